// Part 3: what the meta-gradient sees: estimates of it, as arrows, and their cosines.

import { dot, mean, meanRows, norm } from "../../golden/port/arrays.mjs";
import { estimates, references } from "./adapt.mjs";
import { panel, radians, table } from "./compare.mjs";
import * as draw from "./draw.mjs";
import { $, number, starts, state } from "./state.mjs";

const ESTIMATORS = [
  ["inner", "inner gradient", "inner"],
  ["second", "second order", "maml"],
  ["first", "first order", "fomaml"],
  ["all", "ES", "es-maml"],
  ["two", "ES of two biases", "es-maml"],
];
const cosine = (a, b) => dot(a, b) / (norm(a) * norm(b) || 1); // 0 if one of them is 0

// The reference does not depend on K: it is kept while only this changes.
let kept = { key: "" };

export function* estimating() {
  const { reptile } = starts["turned-pointmass"];
  const { seed, angle, alpha, K } = state;
  const task = [radians()];
  const key = [seed, angle, alpha].join();
  if (kept.key !== key) kept = { key, rows: yield* references(reptile, task, { alpha, seed }) };
  const rows = yield* estimates(reptile, task, { K, alpha, seed });
  drawPlanes(rows, meanRows(kept.rows), reptile.net.biases);
  const halves = [0, 1].map((half) => meanRows(kept.rows.filter((_, i) => i % 2 === half)));
  const agreement = cosine(...halves);
  $("sure").textContent = number(agreement);
  $("unsure").hidden = agreement > 0.8;
}

// In each panel its estimates, in the plane of the parameters number `at` and `at` + 1.
function drawPlanes(rows, reference, at) {
  $("planes").replaceChildren();
  const inPlane = (g) => [g[at], g[at + 1]];
  const sure = inPlane(reference);
  for (const [name, words, colour] of ESTIMATORS) {
    const { box, plot } = panel($("planes"), words, colour);
    const all = rows.map((row) => Array.from(row[name]));
    const arrows = all.map(inPlane);
    const longest = Math.max(...arrows.map(norm));
    const scaled = (g) => g.map((x) => x / longest);
    draw.view(plot, 1.1);
    draw.cross(plot, [0, 0]);
    draw.line(plot, [[0, 0], sure.map((x) => (1.05 * x) / norm(sure))], "reference");
    plot.style.setProperty("--colour", `var(--${colour})`);
    for (const g of arrows) draw.arrow(plot, scaled(g), "arrow");
    draw.arrow(plot, scaled(meanRows(arrows)), "arrow mean");
    const body = table(box, ["cosine", "one", "mean"]);
    if (name !== "two") cosines(body, "all parameters", all, reference);
    cosines(body, "two biases", arrows, sure);
  }
}

function cosines(body, words, estimated, reference) {
  const row = draw.element(body, "tr");
  const one = mean(estimated.map((g) => cosine(g, reference)));
  draw.element(row, "th", words, { scope: "row" });
  draw.element(row, "td", number(one));
  draw.element(row, "td", number(cosine(meanRows(estimated), reference)));
}
