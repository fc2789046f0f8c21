const form = document.getElementById("compare-controls");
const comparable = content.runs.filter((run) => run.comparable).map((run) => run.run);
const decode = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const labels = decode(content.labels);
const UNSCORED = 255;
const SHOWN = 200;

// A run's predictions are in a script of their own, which calls this function when it is loaded.
const predictions = {};
function addRun(name, { scored, test }) {
  predictions[name] = { scored: decode(scored), test: decode(test) };
  compare();
}

function load(name) {
  if (name in predictions) return;
  predictions[name] = null;
  const script = document.createElement("script");
  script.src = `runs/${encodeURIComponent(name)}.js`;
  document.body.append(script);
}

// McNemar's exact test: the probability of counts at least as uneven if both runs were equally good.
function mcnemar(first, second) {
  const total = first + second;
  let term = Math.log(0.5) * total;
  let sum = 0;
  for (let k = 0; k <= Math.min(first, second); k += 1) {
    sum += Math.exp(term);
    term += Math.log(total - k) - Math.log(k + 1);
  }
  return Math.min(1, 2 * sum);
}

function item(sheet, row, prediction, name) {
  const made = element("li");
  made.append(digitImage(sheet, row, 56), element("p", prediction, "prediction"), element("p", name));
  return made;
}

function compare() {
  const { first, second } = Object.fromEntries(new FormData(form));
  const [a, b] = [predictions[first], predictions[second]];
  if (!a || !b) return;
  const counts = { rows: 0, first: 0, second: 0, both: 0 };
  const differing = [];
  labels.forEach((label, row) => {
    const [one, other] = [a.scored[row], b.scored[row]];
    if (one === UNSCORED || other === UNSCORED) return;
    counts.rows += 1;
    if (one !== label && other !== label) counts.both += 1;
    else if (one !== label) counts.first += 1;
    else if (other !== label) counts.second += 1;
    if (one !== other) differing.push(item("training", row, `${one} | ${other}`, `label ${label}, row ${row + 1}`));
  });
  const p = mcnemar(counts.first, counts.second);
  document.getElementById("compare-result").textContent = counts.rows
    ? `${counts.rows.toLocaleString("en")} common rows: ${counts.first} wrong in the first run alone, ` +
      `${counts.second} in the second alone, ${counts.both} in both; p = ${p.toFixed(p < 0.01 ? 4 : 2)} (McNemar).`
    : "The runs have no scored rows in common.";
  document.getElementById("compare-list").replaceChildren(...differing.slice(0, SHOWN));
  const changed = [];
  a.test.forEach((digit, row) => {
    if (digit !== b.test[row]) changed.push(item("test", row, `${digit} | ${b.test[row]}`, `id ${row + 1}`));
  });
  document.getElementById("test-result").textContent =
    `${changed.length.toLocaleString("en")} of ${a.test.length.toLocaleString("en")}; first | second run`;
  document.getElementById("test-list").replaceChildren(...changed.slice(0, SHOWN));
}

function select() {
  const { first, second } = Object.fromEntries(new FormData(form));
  load(first);
  load(second);
  compare();
}

for (const [name, index] of [["first", 0], ["second", 1]]) {
  form.elements[name].append(...comparable.map((run) => new Option(run)));
  form.elements[name].selectedIndex = Math.min(index, comparable.length - 1);
}
form.addEventListener("change", select);
form.addEventListener("submit", (event) => event.preventDefault());
if (comparable.length) select();
else document.getElementById("compare-result").textContent = "No run has its folder, complete and of this data.";

keepPlotsDrawn([() => {
  const { colour, axis, layout, options } = plotStyle();
  const shown = content.runs.filter((run) => run.expected !== null || run.holdout).reverse();
  const names = shown.map((run) => run.run);
  const expected = shown.map((run) => run.expected);
  const reach = (index, sign) => shown.map((run) => (run.expected_interval ? sign * (run.expected_interval[index] - run.expected) : 0));
  const marks = (x, symbol, colourName, name) => ({
    x, y: names, mode: "markers", name, marker: { symbol, size: 10, color: colour(colourName) },
  });
  const plot = document.getElementById("plot-scores");
  plot.style.minHeight = `${Math.max(16, 6 + 2 * names.length)}rem`;
  Plotly.react(plot, [
    {
      ...marks(expected, "circle", "training", "expected"),
      error_x: { type: "data", symmetric: false, array: reach(1, 1), arrayminus: reach(0, -1), color: colour("training") },
    },
    marks(shown.map((run) => run.holdout?.accuracy ?? null), "diamond-open", "validation", "holdout"),
    marks(shown.map((run) => run.public_score), "x", "ink", "public"),
  ], layout("accuracy", { xaxis: { ...axis, tickformat: ".4f" }, yaxis: { ...axis, type: "category" } }), options);
}]);
