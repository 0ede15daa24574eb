// The page: its state, what changes it, and its three parts. draw.mjs draws, adapt.mjs computes.

import { dot, meanRows, mean, norm, range } from "../../golden/port/arrays.mjs";
import { begin, estimates, makeStart, seeded, step } from "./adapt.mjs";
import * as draw from "./draw.mjs";

const $ = (id) => document.getElementById(id);
const NAMES = {
  maml: "MAML",
  fomaml: "first-order MAML",
  reptile: "Reptile",
  joint: "joint",
  untrained: "untrained",
  "es-maml": "ES-MAML",
};
const STEPS = 3;
const BOX = 0.5; // goals lie within
const number = (x, digits = 2) => x.toFixed(digits).replace("-", "−");
const say = (words) => ($("message").textContent = words);

// ------------------------------------------------------------------------------------- the state

const state = { goal: [0.3, -0.35], seed: 1, angle: -150, family: "turned-pointmass" };

// Text becomes a value, or an error says on the page what is allowed.
function wholeSeed(text) {
  if (/^\d+$/.test(text.trim()) && Number(text) < 2 ** 32) return Number(text);
  throw new Error(`Seed “${text}”: must be a whole number from 0 to ${2 ** 32 - 1}.`);
}

function goalWithin(texts) {
  const goal = texts.map((text) => (text.trim() === "" ? NaN : Number(text.replace("−", "-"))));
  if (goal.length === 2 && goal.every((x) => Math.abs(x) <= BOX)) return goal;
  const why = "both numbers must be from −0.5 to 0.5, the box of the goals.";
  throw new Error(`Goal (${texts.join(", ")}): ${why}`);
}

// As in #seed=1&goal=0.3,-0.35
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.has("seed")) state.seed = wholeSeed(given.get("seed"));
  if (given.has("goal")) state.goal = goalWithin(given.get("goal").split(","));
}

function showState() {
  const { goal, seed, angle, family } = state;
  [$("x").value, $("y").value] = goal.map((x) => String(Number(x.toFixed(3))));
  $("seed").value = seed;
  $("angle").value = angle;
  $("degrees").textContent = `${number(angle, 0)}°`;
  $("turning").hidden = family === "pointmass";
  for (const name of ["K", "alpha"]) $(`${name}-value`).textContent = $(name).value;
}

function writeAddress() {
  history.replaceState(null, "", `#seed=${state.seed}&goal=${state.goal.join(",")}`);
}

// Work is done in pieces, so that the page can answer. What is begun anew stops what runs.
const runs = {};
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

async function work(part, pieces) {
  const mine = {};
  runs[part] = mine;
  $(part).setAttribute("aria-busy", "true");
  try {
    for (const wait of pieces) {
      await pause(still() ? 0 : wait ?? 0);
      if (runs[part] !== mine) return;
    }
    $(part).setAttribute("aria-busy", "false");
  } catch (error) {
    say(`The page failed in the part “${part}”: ${error.message}`);
  }
}

// ------------------------------------------------------------------------ part 1: drag the goal

let starts; // {family: {name: a start with its command and returns on held-out tasks}}
let stages = []; // of the adaptation that is shown

// Once. The goal is moved, not drawn anew: a finger that drags it must not lose it.
function drawBox() {
  const plot = $("box");
  draw.view(plot, 0.6);
  draw.square(plot, BOX);
  draw.cross(plot, [0, 0]);
  for (const name of ["fans", "paths", "goal"]) plot[name] = draw.svg(plot, "g");
  plot.paths.half = plot.goal.half = plot.half;
  draw.star(plot.goal, [0, 0]);
  const grip = draw.svg(plot.goal, "circle", { r: 0.09, class: "grip", tabindex: 0 });
  grip.setAttribute("role", "application");
  grip.addEventListener("keydown", moveByKey);
  grip.addEventListener("pointerdown", drag);
  grip.addEventListener("touchstart", (event) => event.preventDefault()); // do not scroll
}

function showGoal([x, y]) {
  const label = `The goal, at ${number(x)}, ${number(y)}: arrow keys move it`;
  $("box").goal.setAttribute("transform", `translate(${x} ${-y})`);
  $("box").goal.lastChild.setAttribute("aria-label", label);
}

// The return after k steps: here, and that of a start on held-out tasks.
function row(body, { k, value }, { mean: held, ci95 }, digits) {
  const cells = draw.element(body, "tr");
  const head = draw.element(cells, "th", "", { scope: "row" });
  const key = draw.svg(head, "svg", { viewBox: "0 0 30 10", class: "key", "aria-hidden": true });
  draw.svg(key, "path", { d: "M0 5h30", class: `path k${k}` });
  head.append(k);
  draw.element(cells, "td", number(value, digits), { "data-value": value });
  draw.element(cells, "td", `${number(held[k], digits)} ± ${number(ci95[k], digits)}`);
}

// So many steps more, from the first stage on if there is none.
function* adapting(steps) {
  const start = starts.pointmass.maml;
  const noise = seeded(start, state.seed);
  const { fans, paths } = $("box");
  const body = $("returns").tBodies[0];
  for (const name of ["one", "all"]) $(name).disabled = true;
  if (stages.length === 0) {
    stages = [begin(start, state.goal, noise)];
    draw.path(paths, stages[0].path, 0);
    body.replaceChildren();
    row(body, stages[0], start, 2);
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
    row(body, next, start, 2);
    yield 700;
  }
  for (const name of ["one", "all"]) $(name).disabled = stages.length > STEPS;
}

// From the start again, with as many steps.
function adaptAnew(steps) {
  stages = [];
  showState();
  showGoal(state.goal);
  $("box").fans.replaceChildren();
  $("box").paths.replaceChildren();
  const best = starts.pointmass.maml.env.optimalReturn(state.goal);
  $("best").textContent = `The best that knows the goal: ${number(best)}.`;
  work("adapt", adapting(steps));
}

const within = (x) => Math.min(Math.max(x, -BOX), BOX);

function moveGoal(to) {
  state.goal = to.map((x) => Number(within(x).toFixed(3)));
  const outside = to.some((x) => Math.abs(x) > BOX + 1e-9);
  say(outside ? "Goals lie in the box, from −0.5 to 0.5: the goal stays at its edge." : "");
}

function moveByKey(event) {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const move = by[event.key];
  if (!move) return;
  event.preventDefault();
  moveGoal(state.goal.map((x, j) => x + 0.05 * move[j]));
  changed();
}

function drag(event) {
  event.preventDefault();
  const plot = $("box");
  plot.setPointerCapture(event.pointerId);
  plot.onpointermove = (at) => {
    moveGoal(draw.placeOf(plot, at));
    adaptAnew(0);
  };
  plot.onpointerup = plot.onpointercancel = () => {
    plot.onpointermove = plot.onpointerup = plot.onpointercancel = null;
    changed();
  };
}

// ------------------------------------------------------------------------- part 2: whose start?

const radians = () => (state.angle * Math.PI) / 180;
const taskOf = (family) => (family === "pointmass" ? state.goal : [radians()]);
const goalOf = (family) => (family === "pointmass" ? state.goal : [0.5, 0]);

function panel(parent, name, colour) {
  const box = draw.element(parent, "div");
  draw.element(box, "h3", name, { style: `border-color: var(--${colour})` });
  return { box, plot: draw.svg(box, "svg", { role: "img", "aria-label": name }) };
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

function* comparing() {
  const { family } = state;
  const task = taskOf(family);
  $("panels").replaceChildren();
  const shown = Object.entries(starts[family]).map(([name, start]) => {
    const { box, plot } = panel($("panels"), NAMES[name], name);
    const table = draw.element(box, "table");
    const heads = draw.element(draw.element(table, "thead"), "tr");
    for (const head of ["k", "here", "held out"]) {
      draw.element(heads, "th", head, { scope: "col" });
    }
    draw.view(plot, 0.6);
    return { start, plot, body: draw.element(table, "tbody") };
  });
  const best = number(starts[family].maml.env.optimalReturn(task));
  const others = number(starts[family].maml.optimum);
  $("optimum").textContent = `The best that knows the task: ${best} here, ${others} held out.`;
  yield;
  for (const { start, plot, body } of shown) {
    const noise = seeded(start, state.seed);
    const all = [begin(start, task, noise)];
    row(body, all[0], start, 1);
    for (let k = 1; k <= STEPS; k++) {
      yield;
      all.push(step(start, task, noise, all[k - 1]));
      row(body, all[k], start, 1);
      drawStart(plot, all, family);
    }
  }
}

function drawDial() {
  const dial = $("dial");
  dial.replaceChildren();
  draw.svg(dial, "circle", { r: 1.1, class: "frame" });
  dial.half = 1.2;
  draw.arrow(dial, [1, 0], "reference");
  draw.arrow(dial, [Math.cos(radians()), Math.sin(radians())], "arrow mean k2");
}

// ------------------------------------------------------ part 3: what the meta-gradient sees

const ESTIMATORS = [
  ["inner", "inner gradient", "inner"],
  ["second", "outer, second order", "maml"],
  ["first", "outer, first order", "fomaml"],
  ["all", "ES, all parameters", "es-maml"],
  ["two", "ES, two biases", "es-maml"],
];
const cosine = (a, b) => dot(a, b) / (norm(a) * norm(b));

function* estimating() {
  const { reptile } = starts["turned-pointmass"];
  const [K, alpha] = ["K", "alpha"].map((id) => Number($(id).value));
  const found = yield* estimates(reptile, [radians()], { K, alpha, seed: state.seed });
  drawPlanes(found.rows, meanRows(found.reference), reptile.net.biases);
}

function drawPlanes(rows, reference, at) {
  $("planes").replaceChildren();
  const inPlane = (g) => [g[at], g[at + 1]];
  for (const [name, words, colour] of ESTIMATORS) {
    const { box, plot } = panel($("planes"), words, colour);
    const all = rows.map((row) => Array.from(row[name]));
    const arrows = all.map(inPlane);
    draw.view(plot, 1.1);
    draw.cross(plot, [0, 0]);
    const sure = inPlane(reference);
    draw.line(plot, [[0, 0], sure.map((x) => (1.05 * x) / norm(sure))], "reference");
    const longest = Math.max(...arrows.map(norm));
    const scaled = (g) => g.map((x) => x / longest);
    plot.style.setProperty("--colour", `var(--${colour})`);
    for (const g of arrows) draw.arrow(plot, scaled(g), "arrow");
    draw.arrow(plot, scaled(meanRows(arrows)), "arrow mean");
    const near = (cosines) => number(mean(cosines));
    const plane = near(arrows.map((g) => cosine(g, sure)));
    const whole = near(all.map((g) => cosine(g, reference)));
    const mostly = number(cosine(meanRows(arrows), sure));
    draw.element(box, "p", `cosine with the dashed line: ${plane}; of their mean: ${mostly}`);
    if (name !== "two") draw.element(box, "p", `over all ${reference.length} parameters: ${whole}`);
  }
}

// ------------------------------------------------------------------------------ what sets it going

// The seed or the goal have changed.
function changed() {
  writeAddress();
  adaptAnew(STEPS);
  if (state.family === "pointmass") work("starts", comparing());
}

function turned() {
  showState();
  drawDial();
  work("starts", comparing());
  work("gradients", estimating());
}

// What is typed: taken if it is right; if not, the page says so, and nothing changes.
function typed(inputs, take, then) {
  for (const id of inputs) {
    $(id).addEventListener("change", () => {
      let wrong = "";
      try {
        take(inputs.map((each) => $(each).value));
      } catch (error) {
        wrong = error.message;
      }
      say(wrong);
      for (const each of inputs) $(each).setAttribute("aria-invalid", wrong !== "");
      if (wrong === "") then();
    });
  }
}

function listen() {
  $("one").onclick = () => work("adapt", adapting(1));
  $("all").onclick = () => work("adapt", adapting(STEPS));
  $("over").onclick = () => adaptAnew(0);
  $("again").onclick = () => {
    state.seed = Math.floor(Math.random() * 1e6);
    changed();
    turned();
  };
  typed(["x", "y"], (texts) => (state.goal = goalWithin(texts)), changed);
  typed(["seed"], ([text]) => (state.seed = wholeSeed(text)), () => {
    changed();
    turned();
  });
  $("angle").oninput = () => {
    state.angle = Number($("angle").value);
    turned();
  };
  for (const name of ["K", "alpha"]) {
    $(name).oninput = () => {
      showState();
      work("gradients", estimating());
    };
  }
  for (const input of document.getElementsByName("family")) {
    input.onchange = () => {
      state.family = input.value;
      showState();
      work("starts", comparing());
    };
  }
}

// Numbers of 32 bits, as base64.
const numbers = (text) =>
  Array.from(new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));

function readParameters() {
  const given = JSON.parse($("parameters").textContent);
  const made = (family, name) => {
    const { c, x, command, mean, ci95 } = given[family].starts[name];
    draw.element(draw.element($("commands"), "li", `${NAMES[name]}: `), "code", command);
    return { ...makeStart(c, numbers(x)), mean, ci95, optimum: given[family].optimum };
  };
  const table = (family) =>
    Object.fromEntries(Object.keys(NAMES).map((name) => [name, made(family, name)]));
  starts = Object.fromEntries(Object.keys(given).map((family) => [family, table(family)]));
}

function main() {
  try {
    readParameters();
  } catch (error) {
    say(`This browser lacks what the page needs (${error.message}). Try a newer one.`);
    return;
  }
  say("");
  try {
    readAddress();
  } catch (error) {
    say(`In the address of the page: ${error.message}`);
  }
  listen();
  drawBox();
  adaptAnew(STEPS);
  turned();
}

main();
