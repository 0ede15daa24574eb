// Task families (stage 2). An environment is a few pure functions of a task and a state:
//   start, step(task, state, action, draw) -> {state, reward, done}, optimalReturn(task),
// and what a policy has to know of it: horizon, obs_dim, action_dim, discrete. The state is also
// the observation. `draws` is the kind of the draw that a step takes, or null.

import { dot, total, range, zip } from "./arrays.mjs";
import { betaQuantile, normalQuantile } from "./distributions.mjs";
import { check } from "./refuse.mjs";

const limit = (x, bound) => Math.min(Math.max(x, -bound), bound);

// Anticlockwise.
function turn([x, y], angle) {
  const c = Math.cos(angle);
  const s = Math.sin(angle);
  return [c * x - s * y, s * x + c * y];
}

// ------------------------------------------------------------------------------ points and bandits

// What most points have: episodes do not end, the plane has no bounds, the task is the goal, and
// moves are not turned.
const PLAIN = { done: () => false, bound: Infinity, goal: (task) => task, angle: () => 0 };

// A point in the plane. `reward` is a function of the distance to the goal after the move.
function plane({ horizon }, reward, special = {}) {
  const { done, bound, goal, angle } = { ...PLAIN, ...special };
  return {
    horizon,
    obs_dim: 2,
    action_dim: 2,
    discrete: false,
    draws: null,
    start: [0, 0],
    step(task, position, action) {
      const move = turn(action.map((a) => 0.1 * limit(a, 1)), angle(task));
      const state = zip((x, dx) => limit(x + dx, bound), position, move);
      const away = zip((x, g) => x - g, state, goal(task));
      return { state, reward: reward(Math.hypot(...away)), done: done(away) };
    },
    // The best policy goes straight to the goal in each of the two coordinates.
    optimalReturn(task) {
      const away = turn(goal(task), -angle(task)).map(Math.abs);
      const distance = (t) => Math.hypot(...away.map((x) => Math.max(x - 0.1 * t, 0)));
      return total(range(horizon).map((t) => reward(distance(t + 1))));
    },
  };
}

const oneState = ({ horizon, arms }) => ({
  horizon,
  obs_dim: 1,
  action_dim: arms,
  discrete: true,
  start: [1],
});

function bandit(options) {
  return {
    ...oneState(options),
    draws: "random",
    step: (task, state, arm, u) => ({ state, reward: Number(u < task[arm]), done: false }),
    optimalReturn: (task) => options.horizon * Math.max(...task),
  };
}

// X holds the features of the arms, one row each.
function linearBandit(options, X) {
  const reward = (task, arm, z) => dot(X[arm], task) + options.noise * z;
  return {
    ...oneState(options),
    draws: "standard_normal",
    step: (task, state, arm, z) => ({ state, reward: reward(task, arm, z), done: false }),
    optimalReturn: (task) => options.horizon * Math.max(...X.map((row) => dot(row, task))),
  };
}

// ------------------------------------------------------------------------------------ the families

const sparse = (d) => (d < 0.2 ? 1 - d : 0);
const bowl = (d) => -4 + Math.max(0, 4 - d * d);
const inside = (radius) => (away) => away.every((x) => Math.abs(x) < radius);

// Of each family: its options, with any valid defaults (vectors give all that play a part); the
// environment that is made of them; and a task made of `dims` numbers u in [0, 1].
const FAMILIES = {
  pointmass: {
    options: { horizon: 1, box: 1, radius: 0.1 },
    make: (o) => plane(o, (d) => -d, { done: inside(o.radius) }),
    dims: () => 2,
    task: (u, { box }) => u.map((x) => box * (2 * x - 1)), // the box is that of the goals
  },
  "sparse-pointmass": {
    options: { horizon: 1 },
    make: (o) => plane(o, sparse),
    dims: () => 1,
    task: ([u]) => [Math.cos(Math.PI * u), Math.sin(Math.PI * u)],
  },
  fourcorners: {
    options: { horizon: 1 },
    make: (o) => plane(o, bowl, { bound: 5 }),
  },
  "turned-pointmass": {
    options: { horizon: 1 },
    make: (o) => plane(o, (d) => -d, { goal: () => [0.5, 0], angle: ([angle]) => angle }),
    dims: () => 1,
    task: ([u]) => [Math.PI * (2 * u - 1)],
  },
  bandit: {
    options: { horizon: 1, arms: 2, prior: [] },
    make: bandit,
    dims: (o) => o.arms,
    task: (u, { prior }) =>
      prior.length === 0 ? u : zip((x, [a, b]) => betaQuantile(x, a, b), u, prior),
  },
  "linear-bandit": {
    options: { horizon: 1, arms: 2, dims: 1, noise: 1, features: 0 },
    make: linearBandit,
    dims: (o) => o.dims,
    task: (u) => u.map((x) => 1 + normalQuantile(x)),
  },
};

const positive = (x) => x > 0 && Number.isFinite(x);
const wholeFrom = (least) => (x) => Number.isInteger(x) && x >= least;

// What the value of an option may be.
const ALLOWED = {
  horizon: wholeFrom(1),
  box: positive,
  radius: (x) => x >= 0 && x <= 0.1,
  arms: wholeFrom(2),
  prior: (pairs) => pairs.every((pair) => pair.length === 2 && pair.every(positive)),
  dims: wholeFrom(1),
  noise: (x) => x === 0 || positive(x),
  features: wholeFrom(0),
};

function optionsOf(name, given) {
  check(Object.hasOwn(FAMILIES, name), `no family ${name}`);
  const defaults = FAMILIES[name].options;
  for (const [key, value] of Object.entries(given)) {
    check(Object.hasOwn(defaults, key), `no option ${key} of ${name}`);
    check(ALLOWED[key](value), `${key} = ${value} is not allowed`);
  }
  const o = { ...defaults, ...given };
  if (name === "bandit") {
    check([0, o.arms].includes(o.prior.length), "another number of priors than arms");
  }
  return o;
}

export function makeFamily(name, options, X = null) {
  const o = optionsOf(name, options);
  return FAMILIES[name].make(o, X);
}

// ------------------------------------------------------------------------------- tasks from noise

const CORNERS = [[2, 2], [-2, 2], [-2, -2], [2, -2]];

// Draws of whole numbers c and numbers v in [0, 1] are cells of a checkerboard of 50 an axis, and
// where in them; for training those of one colour, for the test those of the other.
export function sampleTasks(name, options, n, split, draw) {
  const o = optionsOf(name, options);
  check(Number.isInteger(n) && n >= 1, "no tasks");
  check(split === "train" || split === "test", `no split ${split}`);
  if (name === "fourcorners") {
    const permutation = draw("permutation", [n]);
    const shift = draw("integers", []);
    return permutation.map((p) => CORNERS[(p + shift) % 4]);
  }
  const wrong = split === "train" ? 1 : 0; // sums of a row that are odd, or even
  const coloured = ([first, ...others]) => {
    const neighbour = (first + total(others)) % 2 === wrong ? first ^ 1 : first;
    return [neighbour, ...others];
  };
  const task = (c, v) => {
    const u = zip((cell, inside) => (cell + inside) / 50, coloured(c), v);
    return FAMILIES[name].task(u, o);
  };
  const shape = [n, FAMILIES[name].dims(o)];
  const cells = draw("integers", shape);
  const within = draw("uniform", shape);
  return zip(task, cells, within);
}
