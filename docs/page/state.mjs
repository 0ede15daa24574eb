// What all parts of the page share: its state, which stands in the address, and work in pieces.

export const $ = (id) => document.getElementById(id);
export const STEPS = 3;
export const BOX = 0.5; // goals lie within
export const number = (x, digits = 2) => x.toFixed(digits).replace("-", "−");
export const say = (words) => ($("message").textContent = words);

// The table of starts, {family: {name: start}}, each with its returns on held-out tasks.
export const starts = {};
export const NAMES = {
  maml: "MAML",
  fomaml: "first-order MAML",
  reptile: "Reptile",
  joint: "joint",
  untrained: "untrained",
  "es-maml": "ES-MAML",
};

// ------------------------------------------------------------------------------------- the state

export const state = {
  seed: 1, goal: [0.3, -0.35], family: "turned-pointmass", angle: -150, K: 40, alpha: 0.2,
};
export const SLIDERS = ["angle", "K", "alpha"];

// Text becomes a value, or an error says on the page what is allowed.
export function wholeSeed(text) {
  if (/^\d+$/.test(text.trim()) && Number(text) < 2 ** 32) return Number(text);
  throw new Error(`Seed “${text}”: must be a whole number from 0 to ${2 ** 32 - 1}.`);
}

export function goalWithin(texts) {
  const goal = texts.map((text) => (text.trim() === "" ? NaN : Number(text.replace("−", "-"))));
  if (goal.length === 2 && goal.every((x) => Math.abs(x) <= BOX)) return goal;
  const why = "both numbers must be from −0.5 to 0.5, the box of the goals.";
  throw new Error(`Goal (${texts.join(", ")}): ${why}`);
}

function familyCalled(name) {
  if (Object.hasOwn(starts, name)) return name;
  throw new Error(`Family “${name}”: must be ${Object.keys(starts).join(" or ")}.`);
}

function onSlider(id, text) {
  const { min, max } = $(id);
  const value = text.trim() === "" ? NaN : Number(text);
  if (value >= Number(min) && value <= Number(max)) return value;
  throw new Error(`${id} “${text}”: must be from ${min} to ${max}.`);
}

// As in #seed=1&goal=0.3,-0.35&family=pointmass&angle=-150&K=40&alpha=0.2, or some of it.
export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const read = {
    seed: wholeSeed,
    goal: (text) => goalWithin(text.split(",")),
    family: familyCalled,
    ...Object.fromEntries(SLIDERS.map((id) => [id, (text) => onSlider(id, text)])),
  };
  const wrong = [];
  for (const [name, take] of Object.entries(read)) {
    try {
      if (given.has(name)) state[name] = take(given.get(name));
    } catch (error) {
      wrong.push(error.message);
    }
  }
  if (wrong.length > 0) throw new Error(`${wrong.join(" ")} What is wrong is left as it was.`);
}

export function writeAddress() {
  const parts = Object.entries(state).map(([name, value]) => `${name}=${value}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
}

export function showState() {
  const { goal, seed, family, angle } = state;
  [$("x").value, $("y").value] = goal.map((x) => String(Number(x.toFixed(3))));
  $("seed").value = seed;
  for (const input of document.getElementsByName("family")) input.checked = input.value === family;
  for (const id of SLIDERS) {
    $(id).value = state[id];
    $(`${id}-value`).textContent = state[id];
  }
  $("angle-value").textContent = `${number(angle, 0)}°`;
  $("unused").hidden = family !== "pointmass";
}

// ----------------------------------------------------------------------------- work in pieces

// So the page can answer in between. What a part begins anew stops what it does.
const runs = {};
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export async function work(part, pieces) {
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
