"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const SIDE = 28;

// The image sheets. A canvas that is drawn before its sheet has arrived is drawn again when it arrives.
const sheets = {};
for (const name of ["training", "test"]) {
  const sheet = { image: new Image(), waiting: [] };
  sheet.image.onload = () => { sheet.waiting.forEach((draw) => draw()); sheet.waiting = []; };
  sheet.image.src = `${name}.png`;
  sheets[name] = sheet;
}

function digitImage(name, index, size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  canvas.setAttribute("aria-hidden", "true");
  const sheet = sheets[name];
  const draw = () => {
    const x = (index % content.columns) * SIDE;
    const y = Math.floor(index / content.columns) * SIDE;
    canvas.getContext("2d").drawImage(sheet.image, x, y, SIDE, SIDE, 0, 0, size, size);
  };
  if (sheet.image.complete && sheet.image.naturalWidth) draw(); else sheet.waiting.push(draw);
  return canvas;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A plot's colours and axes follow the page's.
function plotStyle() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const axis = { gridcolor: colour("line"), zeroline: false, automargin: true };
  const layout = (title, changes) => ({
    title: { text: title, font: { size: 15 } },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("ink") },
    margin: { l: 56, r: 12, t: 40, b: 44 }, showlegend: false, hovermode: "closest", ...changes,
  });
  const options = { responsive: true, displaylogo: false, displayModeBar: false };
  return { colour, axis, layout, options };
}

// Draw the plots after the page has opened, one at a time, and again when its colours change.
function keepPlotsDrawn(draws) {
  const script = document.createElement("script");
  script.src = document.currentScript.dataset.plotly;
  const drawAll = () => draws.forEach((draw) => setTimeout(draw));
  script.onload = () => {
    drawAll();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  };
  script.onerror = () => {
    for (const plot of document.querySelectorAll(".plot")) {
      plot.textContent = "The plot needs plotly.min.js, in the folder of runs.";
      plot.style.minHeight = "auto";
    }
  };
  window.addEventListener("load", () => setTimeout(() => document.head.append(script)));
}
