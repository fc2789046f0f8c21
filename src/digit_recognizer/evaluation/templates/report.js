const PAGE = 120;

const percent = (value) => `${(100 * value).toFixed(value < 0.995 ? 0 : 1)} %`;
const ranked = (probabilities) => probabilities.map((value, digit) => [value, digit]).sort((a, b) => b[0] - a[0]);

// Errors and suspected labels
for (const error of [...content.errors, ...content.suspects]) {
  [[error.confidence, error.predicted]] = ranked(error.probabilities);
}
const errorForm = document.getElementById("error-controls");

function errorItem(error) {
  const [row] = content.training[error.image];
  const item = element("li");
  item.append(digitImage("training", error.image, 84));
  item.append(element("p", `label ${error.label}, predicted ${error.predicted}`, "prediction"));
  const likely = ranked(error.probabilities).filter(([value]) => value >= 0.01);
  item.append(element("p", likely.map(([value, digit]) => `${digit}: ${percent(value)}`).join(", ")));
  item.append(element("p", `row ${row + 1}, ${error.kind}`));
  const near = element("div", undefined, "near");
  for (const place of error.near) {
    const figure = element("figure");
    figure.append(digitImage("training", place, 42), element("figcaption", `a ${content.training[place][1]}`));
    near.append(figure);
  }
  item.append(element("p", "nearest training images:"), near);
  return item;
}

function showErrors() {
  const { kind, label, predicted, sort } = Object.fromEntries(new FormData(errorForm));
  const chosen = content.errors.filter((error) =>
    (!kind || error.kind === kind) && (label === "" || error.label === +label) &&
    (predicted === "" || error.predicted === +predicted));
  const orders = {
    confident: (a, b) => b.confidence - a.confidence,
    unsure: (a, b) => a.confidence - b.confidence,
    pair: (a, b) => a.label - b.label || a.predicted - b.predicted || b.confidence - a.confidence,
  };
  chosen.sort(orders[sort]);
  document.getElementById("error-list").replaceChildren(...chosen.map(errorItem));
  document.getElementById("error-count").textContent = `${chosen.length} of ${content.errors.length} errors`;
}
errorForm.addEventListener("change", showErrors);
document.getElementById("suspect-list")?.append(...content.suspects.map(errorItem));
for (const link of document.querySelectorAll(".matrix a")) {
  link.addEventListener("click", () => {
    errorForm.elements.kind.value = content.errors.some((error) => error.kind === "holdout") ? "holdout" : "";
    errorForm.elements.label.value = link.dataset.label;
    errorForm.elements.predicted.value = link.dataset.predicted;
    showErrors();
  });
}

// Test images
const bytes = Uint8Array.from(atob(content.test), (character) => character.charCodeAt(0));
const view = new DataView(bytes.buffer);
const test = Array.from({ length: content.testRows }, (_, index) => ({
  index,
  first: bytes[5 * index] >> 4,
  second: bytes[5 * index] & 15,
  confidence: view.getUint16(5 * index + 1, true) / 65535,
  other: view.getUint16(5 * index + 3, true) / 65535,
}));
const testForm = document.getElementById("test-controls");
let page = 0;

function testItem(row) {
  const item = element("li");
  item.append(digitImage("test", row.index, 56));
  item.append(element("p", `${row.first}  ${percent(row.confidence)}`, "prediction"));
  if (row.confidence < 0.9) item.append(element("p", `${row.second}  ${percent(row.other)}`));
  item.append(element("p", `id ${row.index + 1}`));
  return item;
}

function showTest() {
  const { digit, below, sort } = Object.fromEntries(new FormData(testForm));
  const chosen = test.filter((row) => (digit === "" || row.first === +digit) && row.confidence < +below);
  if (sort === "unsure") chosen.sort((a, b) => a.confidence - b.confidence || a.index - b.index);
  const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  document.getElementById("test-list").replaceChildren(...chosen.slice(page * PAGE, (page + 1) * PAGE).map(testItem));
  document.getElementById("test-count").textContent =
    `${chosen.length.toLocaleString("en")} images, page ${page + 1} of ${pages}`;
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = page === pages - 1;
}
testForm.addEventListener("change", () => { page = 0; showTest(); });
document.getElementById("previous").addEventListener("click", () => { page -= 1; showTest(); });
document.getElementById("next").addEventListener("click", () => { page += 1; showTest(); });
for (const form of [errorForm, testForm]) form.addEventListener("submit", (event) => event.preventDefault());

// Plots
function drawCurves(id, title, training, validation, format) {
  const { colour, axis, layout, options } = plotStyle();
  const traces = [];
  // A logarithmic scale has no 0.
  for (const member of content.figures.curves) {
    for (const [values, kind] of [[member[training], "training"], [member[validation], "validation"]]) {
      if (!values.length) continue;
      traces.push({
        x: values.map((_, epoch) => epoch + 1), y: values.map((value) => value || null), mode: "lines+markers", name: `${member.name}: ${kind}`,
        line: { color: colour(kind), width: 1.5 },
        marker: { color: colour(kind), size: values.map((_, epoch) => (epoch + 1 === member.checkpoint && kind === "validation" ? 9 : 0.1)) },
      });
    }
  }
  Plotly.react(id, traces, layout(`${title}: blue training, orange validation`, {
    xaxis: { ...axis, title: { text: "epoch" } },
    yaxis: { ...axis, type: "log", tickformat: format, dtick: "D2" },
  }), options);
}

function drawRates() {
  const { colour, axis, layout, options } = plotStyle();
  Plotly.react("plot-rate", content.figures.curves.map((member) => ({
    x: member.rate.map((_, epoch) => epoch + 1), y: member.rate, mode: "lines", name: member.name,
    line: { color: colour("training"), width: 1.5 },
  })), layout("learning rate at the end of the epoch", {
    xaxis: { ...axis, title: { text: "epoch" } }, yaxis: { ...axis, tickformat: "~g", rangemode: "tozero" },
  }), options);
}

function drawCalibration() {
  const { colour, axis, layout, options } = plotStyle();
  const bins = content.figures.calibration;
  Plotly.react("plot-calibration", [
    { x: [0, 1], y: [0, 1], mode: "lines", line: { color: colour("muted"), dash: "dot" }, hoverinfo: "skip" },
    {
      x: bins.map((bin) => bin.confidence), y: bins.map((bin) => bin.accuracy), mode: "markers",
      text: bins.map((bin) => `${bin.rows.toLocaleString("en")} rows`), marker: { color: colour("training"), size: 9 },
      error_y: { type: "data", symmetric: false, array: bins.map((bin) => bin.high - bin.accuracy), arrayminus: bins.map((bin) => bin.accuracy - bin.low), color: colour("training") },
    },
  ], layout("accuracy over confidence", {
    xaxis: { ...axis, title: { text: "mean confidence" }, range: [0.3, 1.02] },
    yaxis: { ...axis, title: { text: "accuracy" }, range: [0, 1.05] },
  }), options);
}

showErrors();
showTest();
const draws = [
  () => drawCurves("plot-loss", "loss (cross-entropy)", "loss", "valLoss", "~g"),
  () => drawCurves("plot-errors", "errors", "errors", "valErrors", ".2~%"),
  drawCalibration,
];
if (document.getElementById("plot-rate")) draws.splice(2, 0, drawRates);
keepPlotsDrawn(draws);
