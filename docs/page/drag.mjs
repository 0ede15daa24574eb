// Part 1: a goal to drag, and MAML's start, which adapts to it.

import { begin, seeded, step } from "./adapt.mjs";
import * as draw from "./draw.mjs";
import { $, BOX, number, say, showState, starts, state, STEPS, still, work } from "./state.mjs";

let stages = []; // of the adaptation that is shown

// ------------------------------------------------------------------------------------- the goal

// Once. The goal is moved, not drawn anew: a finger that drags it must not lose it. `changed` is
// called when it has come to rest.
export function drawBox(changed) {
  const plot = $("box");
  draw.view(plot, 0.6);
  draw.square(plot, BOX);
  draw.cross(plot, [0, 0]);
  for (const name of ["fans", "star", "paths", "goal"]) {
    plot[name] = draw.svg(plot, "g");
    plot[name].half = plot.half;
  }
  draw.star(plot.star, [0, 0]);
  const grip = draw.svg(plot.goal, "circle", { r: 0.09, class: "grip", tabindex: 0 });
  grip.setAttribute("role", "application");
  grip.addEventListener("keydown", (event) => moveByKey(event, changed));
  grip.addEventListener("touchstart", (event) => event.preventDefault()); // do not scroll
  plot.addEventListener("pointerdown", (event) => drag(event, grip, changed));
}

function showGoal([x, y]) {
  const { star, goal } = $("box");
  for (const moved of [star, goal]) moved.setAttribute("transform", `translate(${x} ${-y})`);
  const label = `The goal, at ${number(x)}, ${number(y)}: arrow keys move it`;
  goal.lastChild.setAttribute("aria-label", label);
}

const within = (x) => Math.min(Math.max(x, -BOX), BOX);

function moveGoal(to) {
  state.goal = to.map((x) => Number(within(x).toFixed(3)));
  const outside = to.some((x) => Math.abs(x) > BOX + 1e-9);
  say(outside ? "Goals lie in the box, from −0.5 to 0.5: the goal stays at its edge." : "");
  adaptAnew(0);
}

function moveByKey(event, changed) {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const move = by[event.key];
  if (!move) return;
  event.preventDefault();
  moveGoal(state.goal.map((x, j) => x + 0.05 * move[j]));
  changed();
}

// A mouse may begin anywhere. A finger has to begin at the goal: elsewhere it scrolls.
function drag(event, grip, changed) {
  if (event.target !== grip && event.pointerType !== "mouse") return;
  event.preventDefault();
  const plot = $("box");
  const follow = (at) => moveGoal(draw.placeOf(plot, at));
  plot.setPointerCapture(event.pointerId);
  if (event.target !== grip) follow(event);
  plot.onpointermove = follow;
  plot.onpointerup = plot.onpointercancel = () => {
    plot.onpointermove = plot.onpointerup = plot.onpointercancel = null;
    changed();
  };
}

// ------------------------------------------------------------------------------ the adaptation

// Rows of a table of returns, with those on held-out tasks; what happens here is filled in later.
export function emptyRows(body, { mean, ci95 }, digits) {
  body.replaceChildren();
  mean.forEach((held, k) => {
    const cells = draw.element(body, "tr");
    const head = draw.element(cells, "th", "", { scope: "row" });
    const key = draw.svg(head, "svg", { viewBox: "0 0 30 10", class: "key", "aria-hidden": true });
    draw.svg(key, "path", { d: "M0 5h30", class: `path k${k}` });
    head.append(k);
    draw.element(cells, "td", "…");
    draw.element(cells, "td", `${number(held, digits)} ± ${number(ci95[k], digits)}`);
  });
}

export function fillRow(body, { k, value }, digits) {
  const cell = body.rows[k].cells[1];
  cell.textContent = number(value, digits);
  cell.dataset.value = value;
}

function toTheStart() {
  const { fans, paths } = $("box");
  stages = [];
  fans.replaceChildren();
  paths.replaceChildren();
  emptyRows($("returns").tBodies[0], starts.pointmass.maml, 2);
}

// So many steps more; from the start again if all are taken.
export function* adapting(steps) {
  const start = starts.pointmass.maml;
  const noise = seeded(start, state.seed);
  const { fans, paths } = $("box");
  const body = $("returns").tBodies[0];
  for (const name of ["one", "all"]) $(name).disabled = true;
  if (stages.length > STEPS) toTheStart();
  if (stages.length === 0) {
    stages = [begin(start, state.goal, noise)];
    draw.path(paths, stages[0].path, 0);
    fillRow(body, stages[0], 2);
    yield;
  }
  for (let i = 0; i < steps && stages.length <= STEPS; i++) {
    const k = stages.length;
    const before = performance.now();
    const next = step(start, state.goal, noise, stages[k - 1]);
    const milliseconds = performance.now() - before;
    $("speed").textContent = `The step took ${milliseconds.toFixed(0)} ms.`;
    $("speed").dataset.milliseconds = milliseconds;
    stages.push(next);
    fans.replaceChildren();
    draw.fan(fans, next.tried, k - 1);
    yield 600;
    draw.grow(draw.path(paths, next.path, k), next.path, still() ? 0 : 600);
    fillRow(body, next, 2);
    yield 700;
  }
  for (const name of ["one", "all"]) $(name).disabled = false;
}

// From the start again, with as many steps.
export function adaptAnew(steps) {
  toTheStart();
  showState();
  showGoal(state.goal);
  const best = starts.pointmass.maml.env.optimalReturn(state.goal);
  $("best").textContent = `The best possible, if the goal were known: ${number(best)}.`;
  work("adapt", adapting(steps));
}
