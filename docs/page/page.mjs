// The page: its parameters, and what sets its three parts going. The parts are drag.mjs,
// compare.mjs and estimate.mjs; adapt.mjs computes, draw.mjs draws.

import { makeStart } from "./adapt.mjs";
import { comparing, drawDial } from "./compare.mjs";
import { adaptAnew, adapting, drawBox } from "./drag.mjs";
import * as draw from "./draw.mjs";
import { estimating } from "./estimate.mjs";
import {
  $, goalWithin, NAMES, readAddress, say, showState, SLIDERS, starts, state, STEPS, wholeSeed,
  work, writeAddress,
} from "./state.mjs";

// The goal has changed.
function changed() {
  writeAddress();
  adaptAnew(STEPS);
  if (state.family === "pointmass") work("starts", comparing());
}

// The angle or the family has changed.
function turned() {
  writeAddress();
  showState();
  drawDial();
  work("starts", comparing());
}

// Everything may have changed.
function anew() {
  writeAddress();
  adaptAnew(STEPS);
  turned();
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

function fromAddress() {
  say("");
  try {
    readAddress();
  } catch (error) {
    say(`In the address of the page: ${error.message}`);
  }
  anew();
}

function listen() {
  $("one").onclick = () => work("adapt", adapting(1));
  $("all").onclick = () => work("adapt", adapting(STEPS));
  $("over").onclick = () => {
    say("");
    adaptAnew(0);
  };
  $("again").onclick = () => {
    state.seed = Math.floor(Math.random() * 1e6);
    anew();
  };
  typed(["x", "y"], (texts) => (state.goal = goalWithin(texts)), changed);
  typed(["seed"], ([text]) => (state.seed = wholeSeed(text)), anew);
  for (const id of SLIDERS) {
    $(id).oninput = () => {
      state[id] = Number($(id).value);
      writeAddress();
      showState();
      if (id === "angle") turned();
      work("gradients", estimating());
    };
  }
  for (const input of document.getElementsByName("family")) {
    input.onchange = () => {
      state.family = input.value;
      turned();
    };
  }
  window.onhashchange = fromAddress;
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
  const all = (family) =>
    Object.fromEntries(Object.keys(NAMES).map((name) => [name, made(family, name)]));
  for (const family of Object.keys(given)) starts[family] = all(family);
}

function main() {
  try {
    readParameters();
  } catch (error) {
    say(`This browser lacks what the page needs (${error.message}). Try a newer one.`);
    return;
  }
  listen();
  drawBox(changed);
  fromAddress();
}

main();
