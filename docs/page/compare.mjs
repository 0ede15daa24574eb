// Part 2: six starts, side by side, on the same task and noise.

import { begin, seeded, step } from "./adapt.mjs";
import { emptyRows, fillRow } from "./drag.mjs";
import * as draw from "./draw.mjs";
import { $, BOX, NAMES, number, starts, state, STEPS } from "./state.mjs";

export const radians = () => (state.angle * Math.PI) / 180;
const taskOf = (family) => (family === "pointmass" ? state.goal : [radians()]);
const goalOf = (family) => (family === "pointmass" ? state.goal : [0.5, 0]);

export function panel(parent, name, colour) {
  const box = draw.element(parent, "div");
  draw.element(box, "h3", name, { style: `border-color: var(--${colour})` });
  return { box, plot: draw.svg(box, "svg", { role: "img", "aria-label": name }) };
}

// A table with these heads.
export function table(parent, heads) {
  const made = draw.element(parent, "table");
  const row = draw.element(draw.element(made, "thead"), "tr");
  for (const head of heads) draw.element(row, "th", head, { scope: "col" });
  return draw.element(made, "tbody");
}

function drawStart(plot, all, family) {
  const corners = family === "pointmass" ? [[-BOX, -BOX], [BOX, BOX]] : [goalOf(family)];
  const points = [...corners, ...all.flatMap(({ path }) => path)];
  const sides = [0, 1].map((j) => points.map((point) => point[j]));
  const lengths = sides.map((xs) => Math.max(...xs) - Math.min(...xs));
  const middle = sides.map((xs) => (Math.max(...xs) + Math.min(...xs)) / 2);
  plot.replaceChildren();
  draw.view(plot, Math.max(0.6, 0.58 * Math.max(...lengths)), middle);
  if (family === "pointmass") draw.square(plot, BOX);
  draw.cross(plot, [0, 0]);
  all.slice(1).forEach(({ tried, k }) => draw.fan(plot, tried, k - 1));
  draw.star(plot, goalOf(family));
  all.forEach(({ path, k }) => draw.path(plot, path, k));
}

export function* comparing() {
  const { family } = state;
  const task = taskOf(family);
  $("panels").replaceChildren();
  const shown = Object.entries(starts[family]).map(([name, start]) => {
    const { box, plot } = panel($("panels"), NAMES[name], name);
    const body = table(box, ["k", "here", "held out"]);
    emptyRows(body, start, 1);
    draw.view(plot, 0.6);
    return { start, plot, body };
  });
  const best = number(starts[family].maml.env.optimalReturn(task));
  const others = number(starts[family].maml.optimum);
  const words = "The best possible, if the task were known";
  $("optimum").textContent = `${words}: ${best} here, ${others} held out.`;
  yield;
  for (const { start, plot, body } of shown) {
    const noise = seeded(start, state.seed);
    const all = [begin(start, task, noise)];
    fillRow(body, all[0], 1);
    for (let k = 1; k <= STEPS; k++) {
      yield;
      all.push(step(start, task, noise, all[k - 1]));
      fillRow(body, all[k], 1);
      drawStart(plot, all, family);
    }
  }
}

export function drawDial() {
  const dial = $("dial");
  dial.replaceChildren();
  draw.svg(dial, "circle", { r: 1.1, class: "frame" });
  dial.half = 1.2;
  draw.arrow(dial, [1, 0], "reference");
  draw.arrow(dial, [Math.cos(radians()), Math.sin(radians())], "arrow mean k2");
}
