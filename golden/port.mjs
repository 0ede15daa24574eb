// A port to JavaScript, without dependencies, written from README.md and the vectors alone: stages 1 to 4, without the
// black boxes, linear bandits, and operations that nothing here needs. It recomputes the vectors, prints a line for
// each group of cases, and exits with 1 if anything differs.
//
//     node port.mjs [directory of the vectors]
//
// Sections: arrays; autodiff (stage 1); noise; task families (2); policies, rollouts, advantages (3); adaptation and
// outer loops (4); the functions that the cases call; the runner. Data are numbers and nested arrays of them, only what
// is differentiated is a Tensor. Policies and losses are written for one task, and loops run over tasks.

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

class Refused extends Error {} // the inputs are wrong
class NotPorted extends Error {}

function notPorted(what) {
  throw new NotPorted(what);
}

function check(ok, message) {
  if (!ok) throw new Refused(message);
}

// ----------------------------------------------------------------------------------------------------------- arrays

const range = (n) => Array.from({ length: n }, (_, i) => i);
const zip = (f, ...arrays) => arrays[0].map((_, i) => f(...arrays.map((a) => a[i])));
const total = (values) => values.reduce((a, b) => a + b, 0);
const product = (values) => values.reduce((a, b) => a * b, 1);
// A second mean, of what the first leaves, takes back its rounding: the mean of equal values is their value.
const mean = (values, m = total(values) / values.length) => m + total(values.map((x) => x - m)) / values.length;
const meanRows = (rows) => zip((...column) => mean(column), ...rows);

// Infinite where all are equal. Squares are of numbers up to 1, lest they overflow or vanish.
function deviation(values) {
  const distances = values.map((x) => Math.abs(x - mean(values)));
  const largest = Math.max(...distances);
  return largest === 0 ? Infinity : largest * Math.sqrt(mean(distances.map((d) => (d / largest) ** 2)));
}

const dot = (a, b) => total(zip((x, y) => x * y, a, b));
const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);
const fieldsOf = (names, objects) => Object.fromEntries(names.map((name) => [name, objects.map((o) => o[name])]));

const flat = (x) => (Array.isArray(x) ? x.flat(Infinity) : [x]);
const shapeOf = (x) => (Array.isArray(x) ? [x.length, ...(x.length ? shapeOf(x[0]) : [])] : []);

function nested(shape, data) {
  if (shape.length === 0) return data[0];
  const step = product(shape.slice(1));
  return range(shape[0]).map((i) => nested(shape.slice(1), data.slice(i * step, (i + 1) * step)));
}

// Row by row: where a multi-index is in the data; and where f says, for each multi-index of a shape in this order.
const place = (at, shape) => at.reduce((sum, i, axis) => sum * shape[axis] + i, 0);
const indices = (shape) => shape.reduce((all, n) => all.flatMap((at) => range(n).map((i) => [...at, i])), [[]]);
const places = (shape, inside, f) => indices(shape).map((at) => place(f(at), inside));

// ----------------------------------------------------------------------------------------------- autodiff (stage 1)

let created = 0;

// `vjp` maps the adjoint of the value to those of the parents. They are Tensors, so they can be differentiated again.
class Tensor {
  constructor(shape, data, parents = [], vjp = null) {
    Object.assign(this, { shape, data, parents, vjp, id: created++ });
  }
  get value() {
    return nested(this.shape, this.data);
  }
}

const tensor = (x) => (x instanceof Tensor ? x : new Tensor(shapeOf(x), flat(x).map(Number))); // true counts as 1
const stop = (x) => new Tensor(x.shape, x.data);
const filled = (shape, number) => new Tensor(shape, Array(product(shape)).fill(number));

// The adjoints of xs for the adjoint w of y, which may be left out if y is a single number.
function grad(y, xs, w = null) {
  check(w !== null || y.data.length === 1, "the gradient of an array needs an adjoint");
  const reached = new Set([y]);
  for (const node of reached) node.parents.forEach((parent) => reached.add(parent));
  const nodes = [...reached].sort((a, b) => a.id - b.id); // parents are older than what is made of them
  const needed = new Set(xs);
  for (const node of nodes) if (node.parents.some((parent) => needed.has(parent))) needed.add(node);
  const adjoint = new Map([[y, w === null ? filled(y.shape, 1) : tensor(w)]]);
  check(same(adjoint.get(y).shape, y.shape), "the adjoint has another shape than the value");
  for (const node of nodes.reverse()) {
    if (!node.vjp || !needed.has(node) || !adjoint.has(node)) continue;
    zip((parent, part) => {
      if (needed.has(parent)) adjoint.set(parent, adjoint.has(parent) ? add(adjoint.get(parent), part) : part);
    }, node.parents, node.vjp(adjoint.get(node)));
  }
  return xs.map((x) => adjoint.get(x) ?? filled(x.shape, 0));
}

// Two operations move numbers about, each the adjoint of the other. All that selects, repeats or sums is one of them
// with the right index.
function take(x, index, shape) {
  return new Tensor(shape, index.map((i) => x.data[i]), [x], (w) => [put(w, index, x.shape)]);
}

function put(x, index, shape) {
  const data = Array(product(shape)).fill(0);
  index.forEach((i, j) => (data[i] += x.data[j]));
  return new Tensor(shape, data, [x], (w) => [take(w, index, x.shape)]);
}

function broadcastTo(x, shape) {
  const lead = shape.length - x.shape.length;
  check(lead >= 0 && x.shape.every((n, a) => n === 1 || n === shape[lead + a]), "shapes do not broadcast");
  return take(x, places(shape, x.shape, (at) => x.shape.map((n, a) => (n === 1 ? 0 : at[lead + a]))), shape);
}

function broadcast(args) {
  const xs = args.map(tensor);
  const axes = range(Math.max(...xs.map((x) => x.shape.length))).reverse(); // counted from the last
  const shape = axes.map((axis) => xs.map((x) => x.shape.at(-1 - axis) ?? 1).find((n) => n !== 1) ?? 1);
  return xs.map((x) => (same(x.shape, shape) ? x : broadcastTo(x, shape)));
}

// f of numbers, and its partial derivatives, functions of the arguments and the value.
function elementwise(f, partials, ...args) {
  const xs = broadcast(args);
  const vjp = (w) => partials.map((partial) => multiply(w, partial(...xs, out)));
  const out = new Tensor(xs[0].shape, zip(f, ...xs.map((x) => x.data)), xs, vjp);
  return out;
}

const indicator = (f, ...xs) => stop(elementwise((...numbers) => Number(f(...numbers)), [], ...xs));
const above = (a, b) => indicator((x, y) => (x === y ? 0.5 : x > y), a, b);
const add = (a, b) => elementwise((x, y) => x + y, [() => 1, () => 1], a, b);
const subtract = (a, b) => elementwise((x, y) => x - y, [() => 1, () => -1], a, b);
const multiply = (a, b) => elementwise((x, y) => x * y, [(x, y) => y, (x) => x], a, b);
const divide = (a, b) =>
  elementwise((x, y) => x / y, [(x, y) => divide(1, y), (x, y, z) => divide(negative(z), y)], a, b);
const power = (a, b) =>
  elementwise(Math.pow, [(x, y) => multiply(y, power(x, subtract(y, 1))), (x, y, z) => multiply(z, log(x))], a, b);
const raised = (a, e) => elementwise((x) => x ** e, [(x) => (e === 0 ? 0 : multiply(e, raised(x, e - 1)))], a);
const maximum = (a, b) => elementwise(Math.max, [(x, y) => above(x, y), (x, y) => above(y, x)], a, b);
const minimum = (a, b) => elementwise(Math.min, [(x, y) => above(y, x), (x, y) => above(x, y)], a, b);
const negative = (a) => elementwise((x) => -x, [() => -1], a);
const exp = (a) => elementwise(Math.exp, [(x, y) => y], a);
const log = (a) => elementwise(Math.log, [(x) => divide(1, x)], a);
const sqrt = (a) => elementwise(Math.sqrt, [(x, y) => divide(0.5, y)], a);
const tanh = (a) => elementwise(Math.tanh, [(x, y) => subtract(1, multiply(y, y))], a);
const sigmoid = (a) => elementwise((x) => 1 / (1 + Math.exp(-x)), [(x, y) => multiply(y, sigmoid(negative(x)))], a);
const softplus = (a) => elementwise((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), [sigmoid], a);
const relu = (a) => elementwise((x) => Math.max(x, 0), [(x) => indicator((x) => x > 0, x)], a);
const clip = (a, low, high) =>
  elementwise((x) => Math.min(Math.max(x, low), high), [(x) => indicator((x) => low <= x && x <= high, x)], a);

function reshape(x, shape) {
  check(product(shape) === x.data.length, "another number of elements");
  return take(x, range(x.data.length), shape);
}

const fromFront = (axis, shape) => (axis < 0 ? axis + shape.length : axis);

// Axes are one, a list, or null for all: the shape with them of length 1, without them, and where each element goes.
function reduced(shape, axes) {
  const over = axes === null ? range(shape.length) : flat(axes).map((axis) => fromFront(axis, shape));
  check(over.every((axis) => axis >= 0 && axis < shape.length), "no such axis");
  const kept = shape.map((n, axis) => (over.includes(axis) ? 1 : n));
  const dropped = shape.filter((_, axis) => !over.includes(axis));
  return { kept, dropped, index: places(shape, kept, (at) => at.map((i, axis) => (over.includes(axis) ? 0 : i))) };
}

function sum(x, axes = null, keepdims = false) {
  const { kept, dropped, index } = reduced(x.shape, axes);
  return put(x, index, keepdims ? kept : dropped);
}

function average(x, axes = null, keepdims = false) {
  const out = sum(x, axes, keepdims);
  return divide(out, x.data.length / out.data.length);
}

function largest(x, axes) {
  const { kept, index } = reduced(x.shape, axes);
  const out = filled(kept, -Infinity);
  index.forEach((i, j) => (out.data[i] = Math.max(out.data[i], x.data[j])));
  return out;
}

function logsumexp(x, axes = null, keepdims = false) {
  const top = largest(x, axes);
  return sum(add(log(sum(exp(subtract(x, top)), axes, true)), top), axes, keepdims); // a sum of one: to drop axes
}

const log_softmax = (x) => subtract(x, logsumexp(x, x.shape.length - 1, true));

function matmul(a, b) {
  const [m, k] = [1, ...a.shape].slice(-2);
  const [inner, n] = b.shape.length === 1 ? [...b.shape, 1] : b.shape.slice(-2);
  check(k === inner, "not as many columns as rows");
  const rows = reshape(a, [...a.shape.slice(0, -2), m, k, 1]);
  const columns = reshape(b, [...b.shape.slice(0, -2), 1, k, n]);
  const terms = multiply(rows, columns);
  const dropped = [...(a.shape.length === 1 ? [3] : []), 2, ...(b.shape.length === 1 ? [1] : [])];
  return sum(terms, dropped.map((axis) => terms.shape.length - axis));
}

function takeAlongAxis(x, chosen, axis) {
  const [shape, list] = [shapeOf(chosen), flat(chosen)];
  const along = fromFront(axis, shape);
  check(list.every((i) => i >= 0 && i < x.shape[along]), "no such index");
  const from = (at) => at.map((i, a) => (a === along ? list[place(at, shape)] : i));
  return take(x, places(shape, x.shape, from), shape);
}

// Operations as the cases call them: the options come after the arguments.
const OPERATIONS = {
  ...{ add, subtract, multiply, divide, power, maximum, minimum, negative, exp, log, sqrt, tanh, sigmoid, softplus },
  ...{ relu, raised: (x, o) => raised(x, o.exponent), clip: (x, o) => clip(x, o.low, o.high), matmul, log_softmax },
  sum: (x, o) => sum(x, o.axis, o.keepdims),
  mean: (x, o) => average(x, o.axis, o.keepdims),
  logsumexp: (x, o) => logsumexp(x, o.axis, o.keepdims),
  reshape: (x, o) => reshape(x, o.shape),
  broadcast_to: (x, o) => broadcastTo(x, o.shape),
  take_along_axis: (x, o) => takeAlongAxis(x, o.indices, o.axis),
};

// ----------------------------------------------------------------------------------------------------------- noise

// f(draw), draw(kind) giving back one draw after the other; f has to ask for all of them, and for nothing else.
function withNoise(draws, f) {
  const left = [...draws];
  const out = f((kind) => {
    const next = left.shift();
    if (next?.kind !== kind) throw new Error(`the port asks for ${kind}, the next draw is ${next?.kind ?? "none"}`);
    return next.values;
  });
  if (left.length) throw new Error(`the port leaves ${left.length} draws`);
  return out;
}

// ------------------------------------------------------------------------------------------ task families (stage 2)

const limit = (x, bound) => Math.min(Math.max(x, -bound), bound);

function turn([x, y], angle) {
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  return [c * x - s * y, s * x + c * y];
}

// A point in the plane: the reward by the distance to the goal, and, where they are, an end, a box and a turn.
function plane(horizon, reward, { done = () => false, box = Infinity, goal = (task) => task, angle = () => 0 } = {}) {
  return {
    ...{ horizon, obs_dim: 2, action_dim: 2, discrete: false, noise: null, start: [0, 0] },
    step(task, position, action) {
      const move = turn(action.map((a) => 0.1 * limit(a, 1)), angle(task));
      const state = zip((x, dx) => limit(x + dx, box), position, move);
      const away = zip((x, g) => x - g, state, goal(task));
      return { state, reward: reward(Math.hypot(...away)), done: done(away) };
    },
    optimalReturn(task) {
      const away = turn(goal(task), -angle(task)).map(Math.abs);
      const distance = (t) => Math.hypot(...away.map((x) => Math.max(x - 0.1 * t, 0)));
      return total(range(horizon).map((t) => reward(distance(t + 1))));
    },
  };
}

function bandit({ horizon, arms }) {
  return {
    ...{ horizon, obs_dim: 1, action_dim: arms, discrete: true, noise: "random", start: [1] },
    step: (task, state, arm, u) => ({ state, reward: Number(u < task[arm]), done: false }),
    optimalReturn: (task) => horizon * Math.max(...task),
  };
}

// Of each family: its options, with any valid defaults (vectors give all that play a part); an environment made of
// them; a task made of numbers u in [0, 1].
const FAMILIES = {
  pointmass: {
    options: { horizon: 1, box: 1, radius: 0.1 },
    make: (o) => plane(o.horizon, (d) => -d, { done: (away) => away.every((x) => Math.abs(x) < o.radius) }),
    task: (u, o) => u.map((x) => o.box * (2 * x - 1)),
  },
  "sparse-pointmass": {
    options: { horizon: 1 },
    make: (o) => plane(o.horizon, (d) => (d < 0.2 ? 1 - d : 0)),
    task: ([u]) => [Math.cos(Math.PI * u), Math.sin(Math.PI * u)],
  },
  fourcorners: {
    options: { horizon: 1 },
    make: (o) => plane(o.horizon, (d) => -4 + Math.max(0, 4 - d * d), { box: 5 }),
  },
  "turned-pointmass": {
    options: { horizon: 1 },
    make: (o) => plane(o.horizon, (d) => -d, { goal: () => [0.5, 0], angle: ([angle]) => angle }),
    task: ([u]) => [Math.PI * (2 * u - 1)],
  },
  bandit: {
    options: { horizon: 1, arms: 2, prior: [] },
    make: bandit,
    task: (u, { prior }) => (prior.length ? notPorted("inverse distribution functions") : u),
  },
  "linear-bandit": {
    options: { horizon: 1, arms: 2, dims: 1, noise: 1, features: 0 },
    make: () => notPorted("linear bandits"),
    task: () => notPorted("linear bandits"),
  },
};

function optionsOf(name, given) {
  check(name in FAMILIES, `no family ${name}`);
  for (const key of Object.keys(given)) check(key in FAMILIES[name].options, `no option ${key} of ${name}`);
  const o = { ...FAMILIES[name].options, ...given };
  check(Number.isInteger(o.horizon) && o.horizon >= 1, "horizon below 1");
  check(o.radius === undefined || (o.radius >= 0 && o.radius <= 0.1), "radius outside [0, 0.1]");
  check(o.box === undefined || o.box > 0, "no box");
  check(o.arms === undefined || (Number.isInteger(o.arms) && o.arms >= 2), "fewer than 2 arms");
  check(!o.prior?.length || o.prior.length === o.arms, "another number of priors than arms");
  return o;
}

const makeFamily = (name, options) => FAMILIES[name].make(optionsOf(name, options));

function sampleTasks(name, options, n, split, draw) {
  const o = optionsOf(name, options);
  check(n >= 1 && ["train", "test"].includes(split), "no tasks, or no such split");
  if (name === "fourcorners") {
    const [p, s] = [draw("permutation"), draw("integers")];
    return p.map((i) => [[2, 2], [-2, 2], [-2, -2], [2, -2]][(i + s) % 4]);
  }
  const exchanged = split === "train" ? 1 : 0;
  const task = ([first, ...others], v) => {
    const cell = [(first + total(others)) % 2 === exchanged ? first ^ 1 : first, ...others];
    return FAMILIES[name].task(zip((i, x) => (i + x) / 50, cell, v), o);
  };
  return zip(task, draw("integers"), draw("uniform"));
}

// ------------------------------------------------------------------- policies, rollouts and advantages (stage 3)

class Policy {
  constructor({ obs_dim, action_dim, discrete, hidden, activation }) {
    const widths = [obs_dim, ...hidden, action_dim];
    this.shapes = widths.slice(1).flatMap((n, i) => [[widths[i], n], [n]]); // W and b of each layer
    if (!discrete) this.shapes.push([action_dim]); // log_std
    this.size = total(this.shapes.map(product));
    Object.assign(this, { action_dim, discrete, activate: { tanh, relu }[activation] });
    this.noise = discrete ? "random" : "standard_normal";
  }
  parts(theta) {
    check(theta.data.length === this.size, `theta has ${theta.data.length} numbers, the network ${this.size}`);
    let end = 0;
    return this.shapes.map((shape) => take(theta, range((end += product(shape))).slice(-product(shape)), shape));
  }
  // Means or logits, (..., action_dim) for obs (..., obs_dim), and log_std.
  output(theta, obs) {
    const parts = this.parts(theta);
    const logStd = this.discrete ? null : parts.pop();
    let out = tensor(obs);
    for (let i = 0; i < parts.length; i += 2) {
      if (i > 0) out = this.activate(out);
      out = add(matmul(out, parts[i]), parts[i + 1]);
    }
    return { out, logStd, last: out.shape.length - 1 };
  }
  // Actions for obs (K, obs_dim), from noise (K, action_dim) or (K,).
  sample(theta, obs, noise) {
    const { out, logStd } = this.output(theta, obs);
    if (!this.discrete) return add(out, multiply(exp(logStd), noise)).value;
    const action = (p, u) => range(p.length - 1).filter((a) => total(p.slice(0, a + 1)) <= u).length;
    return zip(action, exp(log_softmax(out)).value, noise);
  }
  mode(theta, obs) {
    const { out } = this.output(theta, obs);
    return this.discrete ? out.value.map((row) => row.indexOf(Math.max(...row))) : out.value;
  }
  logProb(theta, obs, actions) {
    const { out, logStd, last } = this.output(theta, obs);
    if (this.discrete) {
      const chosen = nested([...out.shape.slice(0, -1), 1], flat(actions));
      return sum(takeAlongAxis(log_softmax(out), chosen, last), last);
    }
    const z = multiply(subtract(actions, out), exp(negative(logStd)));
    const constant = add(sum(logStd), (this.action_dim * Math.log(2 * Math.PI)) / 2);
    return negative(add(multiply(0.5, sum(multiply(z, z), last)), constant));
  }
  // KL(pi_theta || pi_other) at each observation.
  divergence(theta, other, obs) {
    const [p, q] = [this.output(theta, obs), this.output(other, obs)];
    if (this.discrete) {
      const [logP, logQ] = [log_softmax(p.out), log_softmax(q.out)];
      return sum(multiply(exp(logP), subtract(logP, logQ)), p.last);
    }
    const variance = ({ logStd }) => exp(multiply(2, logStd));
    const ratio = divide(add(variance(p), raised(subtract(p.out, q.out), 2)), multiply(2, variance(q)));
    return sum(add(subtract(q.logStd, p.logStd), subtract(ratio, 0.5)), p.last);
  }
  initial(std, draw) {
    const layer = (W, b) => [...draw("uniform").map((u) => u * Math.sqrt(6 / total(W))), ...Array(b[0]).fill(0)];
    const layers = range(this.shapes.length >> 1).flatMap((i) => layer(...this.shapes.slice(2 * i, 2 * i + 2)));
    return [...layers, ...(this.discrete ? [] : Array(this.action_dim).fill(Math.log(std)))];
  }
}

// K episodes of each task, in step: act(obs (T, K, obs_dim), t) gives the actions. Of each task, arrays (K, H, ...).
function takeEpisodes(env, tasks, K, act, draw) {
  const each = (f) => tasks.map((_, i) => range(K).map((k) => f(i, k)));
  const steps = [];
  let now = each(() => ({ obs: env.start, mask: true }));
  for (let t = 0; t < env.horizon; t++) {
    const actions = act(now.map((row) => row.map((e) => e.obs)), t);
    const z = env.noise ? draw(env.noise) : each(() => null);
    const after = each((i, k) => env.step(tasks[i], now[i][k].obs, actions[i][k], z[i][k]));
    const record = ({ obs, mask }, actions, { state: states, reward, done }) =>
      ({ obs, mask, actions, states, done, raw_rewards: reward, rewards: mask ? reward : 0 });
    steps.push(each((i, k) => record(now[i][k], actions[i][k], after[i][k])));
    now = each((i, k) => ({ obs: after[i][k].state, mask: now[i][k].mask && !after[i][k].done }));
  }
  const names = Object.keys(steps[0][0][0]); // those of a record
  const arrays = (i) => names.map((name) => [name, range(K).map((k) => steps.map((step) => step[i][k][name]))]);
  return tasks.map((_, i) => Object.fromEntries(arrays(i)));
}

function rollout(policy, env, thetas, tasks, K, draw) {
  const act = (obs) => zip((theta, obs, z) => policy.sample(theta, obs, z), thetas, obs, draw(policy.noise));
  return takeEpisodes(env, tasks, K, act, draw);
}

// The sum over l of factor^l values[t + l], for each t.
const discounted = (values, factor) => values.reduceRight((out, x) => [x + factor * (out[0] ?? 0), ...out], []);

// Gauss elimination with pivots.
function solve(A, y) {
  const rows = zip((row, b) => [...row, b], A, y);
  for (const i of range(y.length)) {
    const pivot = rows.slice(i).reduce((best, row) => (Math.abs(row[i]) > Math.abs(best[i]) ? row : best));
    rows.splice(rows.indexOf(pivot), 1, rows[i]);
    rows[i] = pivot;
    for (const k of range(y.length).filter((k) => k !== i)) {
      const factor = rows[k][i] / pivot[i];
      rows[k] = zip((x, p) => x - factor * p, rows[k], pivot);
    }
  }
  return rows.map((row, i) => row[y.length] / row[i]);
}

function baselineValues(kind, obs, returns, mask) {
  const running = (f) => mask.map((row, k) => row.map((on, t) => (on ? f(k, t) : 0)));
  if (kind === "none") return running(() => 0);
  if (kind === "time") return running((_, t) => mean(returns.filter((_, k) => mask[k][t]).map((row) => row[t])));
  const features = (o, s) => [...o, ...o.map((x) => x * x), s, s ** 2, s ** 3, 1];
  const x = obs.map((row) => row.map((o, t) => features(o, t / 100)));
  const overSteps = (f) => total(flat(running(f)));
  const n = range(x[0][0].length);
  const A = n.map((i) => n.map((j) => overSteps((k, t) => x[k][t][i] * x[k][t][j]) + (i === j ? 1e-5 : 0)));
  const w = solve(A, n.map((i) => overSteps((k, t) => x[k][t][i] * returns[k][t])));
  return running((k, t) => dot(w, x[k][t]));
}

// Of one task: obs (K, H, obs_dim), rewards and mask (K, H).
function advantages({ obs, rewards, mask }, { baseline: kind, gamma, lam, standardise }) {
  const returns_to_go = rewards.map((row) => discounted(row, gamma));
  const baseline = baselineValues(kind, obs, returns_to_go, mask);
  // delta_t = r_t + gamma V_(t+1) - V_t is E_t - gamma E_(t+1), E the errors of the baseline: 0 where it is right.
  const errors = zip((R, V, m) => zip((r, v, ran) => (ran ? r - v : 0), R, V, m), returns_to_go, baseline, mask);
  const delta = (E) => E.map((e, t) => e - gamma * (E[t + 1] ?? 0));
  const raw = errors.map((E) => discounted(delta(E), gamma * lam));
  const kept = raw.flatMap((row, k) => row.filter((_, t) => mask[k][t]));
  const [m, d] = [mean(kept), deviation(kept)];
  const A = standardise ? raw.map((row, k) => row.map((x, t) => (mask[k][t] ? (x - m) / d : 0))) : raw;
  return { returns_to_go, baseline, raw, A, deviation: d };
}

// --------------------------------------------------------------------------- adaptation and outer loops (stage 4)

// Episodes with what losses need: l, the log-probabilities when they were taken, and w = A / (K H).
function remember(c, policy, theta, D) {
  const { A, deviation } = advantages(D, c);
  return { ...D, A, deviation, l: stop(policy.logProb(theta, D.obs, D.actions)), w: divide(A, flat(A).length) };
}

function loss(policy, { obs, actions, l, w }, estimator, theta) {
  const r = subtract(policy.logProb(theta, obs, actions), l);
  const before = range(r.shape[1]).map((i) => range(r.shape[1]).map((t) => i < t)); // sums over i < t, as a matrix
  const past = matmul(r, tensor(before));
  const forms = {
    "first-order": () => r,
    "log-prob": () => r,
    lvc: () => exp(r),
    dice: () => subtract(exp(add(past, r)), exp(past)),
  };
  return negative(sum(multiply(w, forms[estimator]())));
}

// theta_0, theta_1, ... of one task as functions of x, and the episodes taken on the way.
class Path {
  constructor(c, policy, x) {
    check(x.length === policy.size * (c.learn_alpha ? 2 : 1), "x has another length than the policy");
    const half = (i) => take(this.x, range(policy.size).map((j) => i * policy.size + j), [policy.size]);
    Object.assign(this, { c, policy, x: tensor(x), gradients: [], memories: [] });
    this.factor = c.learn_alpha ? exp(half(1)) : 1;
    this.thetas = [half(0)];
    this.moments = { m: Array(policy.size).fill(0), v: Array(policy.size).fill(0) };
  }
  get theta() {
    return this.thetas.at(-1);
  }
  step(memory) {
    const { c, policy, theta } = this;
    const k = this.gradients.length;
    const [whole] = grad(loss(policy, memory, c.estimator, theta), [theta]);
    const g = c.estimator === "first-order" ? stop(whole) : whole;
    if (c.inner_optimizer === "adam") this.moments = adam(g.data, this.moments, k + 1);
    const direction = c.inner_optimizer === "adam" ? tensor(this.moments.direction) : g;
    const size = multiply(c.alpha * (k === 0 ? 1 : c.alpha_decay), this.factor);
    this.gradients.push(g);
    this.thetas.push(subtract(theta, multiply(size, direction)));
  }
  // The path from another x, on the same episodes.
  replayed(x) {
    const path = new Path(this.c, this.policy, x);
    this.gradients.forEach((_, k) => path.step(this.memories[k]));
    return path;
  }
}

function adam(g, { m, v }, step) {
  const m1 = zip((m, g) => 0.9 * m + 0.1 * g, m, g);
  const v1 = zip((v, g) => 0.999 * v + 0.001 * g * g, v, g);
  const direction = (m, v) => m / (1 - 0.9 ** step) / (Math.sqrt(v / (1 - 0.999 ** step)) + 1e-8);
  return { m: m1, v: v1, direction: zip(direction, m1, v1) };
}

// The paths of all tasks from x; the draws of step k are noise["t/episodes/k"].
function adapt(c, x, tasks, noise, t) {
  const env = makeFamily(c.family, c.options);
  const policy = new Policy({ ...env, hidden: c.hidden, activation: c.activation });
  const paths = tasks.map(() => new Path(c, policy, x));
  for (let k = 0; k <= c.inner_steps - (c.algo === "reptile" ? 1 : 0); k++) {
    const thetas = paths.map((path) => path.theta);
    const episodes = (draw) => rollout(policy, env, thetas, tasks, c.episodes, draw);
    zip((path, D) => {
      path.memories.push(remember(c, policy, path.theta, D));
      if (k < c.inner_steps) path.step(path.memories[k]);
    }, paths, withNoise(noise[`${t}/episodes/${k}`], episodes));
  }
  return paths;
}

// S(x) for the x of this path and the episodes `memories`.
function samplingTerm({ c, policy, thetas }, memories) {
  const outer = memories.at(-1);
  const unit = outer.mask[0].length * (c.standardise ? outer.deviation : 1);
  const returns = ({ rewards }) => rewards.map((row) => discounted(row, c.gamma)[0] / unit);
  const J = mean(returns(outer));
  const term = (memory, theta) => {
    const R = returns(memory);
    const b = (n) => (c.baseline === "none" || R.length === 1 ? 0 : mean(R.filter((_, i) => i !== n)));
    const logs = sum(multiply(memory.mask, policy.logProb(theta, memory.obs, memory.actions)), 1);
    return negative(sum(multiply(logs, R.map((_, n) => J - b(n)))));
  };
  return zip(term, memories.slice(0, -1), thetas).reduce(add, tensor(0));
}

// M(x), L' with ratios (the form lvc): where they are 1, at the x that took D', its gradient is that of log-prob.
function objective(path, memories) {
  const outer = loss(path.policy, memories.at(-1), "lvc", path.theta);
  return path.c.sampling_term ? add(outer, samplingTerm(path, memories)) : outer;
}

const metaGradient = (path) => grad(objective(path, path.memories), [path.x])[0].data;

// KL(pi_theta' || pi_theta), the mean over the steps of D' that count.
function meanDivergence({ policy, theta, memories }, other) {
  const { obs, mask } = memories.at(-1);
  return divide(sum(multiply(mask, policy.divergence(stop(theta), other, obs))), total(flat(mask)));
}

// J^T F' J v. J v is the derivative of J^T u by u along v.
function fisherProduct(path, v) {
  const u = filled(path.theta.shape, 0);
  const [Jv] = grad(grad(path.theta, [path.x], u)[0], [u], v);
  const other = stop(path.theta);
  const [slope] = grad(meanDivergence(path, other), [other]);
  const [FJv] = grad(slope, [other], Jv);
  return grad(path.theta, [path.x], FJv)[0].data;
}

function compare(path, x) {
  const other = path.replayed(x);
  const gain = subtract(objective(path, path.memories), objective(other, path.memories));
  return { kl: meanDivergence(path, other.theta).value, gain: gain.value };
}

function trustRegionStep(paths, x, g) {
  const F = (v) => zip((Fv, v) => Fv + 1e-5 * v, meanRows(paths.map((path) => fisherProduct(path, v))), v);
  let [d, r, p] = [g.map(() => 0), g, g]; // conjugate gradients for F d = g
  for (let i = 0; i < 10 && Math.sqrt(dot(r, r)) > 1e-10 * Math.sqrt(dot(g, g)); i++) {
    const Fp = F(p);
    const a = dot(r, r) / dot(p, Fp);
    const next = zip((r, Fp) => r - a * Fp, r, Fp);
    const b = dot(next, next) / dot(r, r);
    [d, r, p] = [zip((d, p) => d + a * p, d, p), next, zip((r, p) => r + b * p, next, p)];
  }
  const length = Math.sqrt((2 * 0.01) / Math.max(dot(d, F(d)), 1e-30));
  for (let i = 0; i < 15; i++) {
    const tried = zip((x, d) => x - 0.8 ** i * length * d, x, d);
    const { kl, gain } = fieldsOf(["kl", "gain"], paths.map((path) => compare(path, tried)));
    if (mean(kl) <= 0.01 && mean(gain) > 0) return tried;
  }
  return x;
}

// What an iteration changes of the state besides the counts: theta, and the moments of Adam.
function outerStep(c, { theta: x, t, ...moments }, paths) {
  if (c.algo === "reptile") {
    const ends = meanRows(paths.map((path) => path.theta.data));
    return { theta: zip((x, end) => x + c.epsilon * (end - x), x, ends) };
  }
  const whole = meanRows(paths.map(metaGradient));
  if (c.outer === "trpo") return { theta: trustRegionStep(paths, x, whole) };
  const scale = Math.min(1, c.max_norm / Math.sqrt(dot(whole, whole)));
  const g = whole.map((x) => x * scale);
  const { direction, ...after } = c.outer === "adam" ? adam(g, moments, t + 1) : { direction: g };
  const rate = (i) => (i < paths[0].policy.size ? c.beta : c.beta_alpha);
  return { theta: x.map((x, i) => x - rate(i) * direction[i]), ...after };
}

// ---------------------------------------------------------------------------------- the functions that cases call

const FUNCTIONS = {
  operation({ op, args, options, w, v }) {
    if (!(op in OPERATIONS)) notPorted(op);
    const xs = args.map(tensor);
    const value = OPERATIONS[op](...xs, options);
    const vjps = grad(value, xs, w);
    const seconds = grad(zip((g, v) => sum(multiply(g, v)), vjps, v).reduce(add), xs);
    const numbered = (name, list) => Object.fromEntries(list.map((x, j) => [name + j, x]));
    return { value, ...numbered("vjp", vjps), ...numbered("second", seconds) };
  },
  network({ x, y, v, ...parameters }) {
    const names = ["W1", "b1", "W2", "b2"];
    const weights = names.map((name) => tensor(parameters[name]));
    const [W1, b1, W2, b2] = weights;
    const z = add(matmul(tensor(x), W1), b1);
    const h = tanh(z);
    const out = add(matmul(h, W2), b2);
    const loss = average(raised(subtract(out, y), 2));
    const adjoints = grad(loss, [...weights, z, h, out]);
    const hvps = grad(names.map((name, i) => sum(multiply(adjoints[i], v[name]))).reduce(add), weights);
    const fields = { z, h, out, loss };
    [...names, "z", "h", "out"].forEach((name, i) => (fields[`adjoint_${name}`] = adjoints[i]));
    names.forEach((name, i) => (fields[`hvp_${name}`] = hvps[i]));
    return fields;
  },
  orders({ x: number }) {
    const x = tensor(number);
    const orders = [multiply(x, tanh(x))];
    while (orders.length < 5) orders.push(...grad(orders.at(-1), [x]));
    return Object.fromEntries(orders.map((value, i) => [`order${i}`, value]));
  },
  unused(inputs) {
    const [x, y] = [tensor(inputs.x), tensor(inputs.y)];
    const [by_x, by_y] = grad(sum(multiply(x, x)), [x, y]);
    return { by_x, by_y, stopped: grad(sum(multiply(x, stop(x))), [x])[0] };
  },
  episodes({ family, options, tasks, actions, noise }) {
    const env = makeFamily(family, options);
    const act = (_, t) => actions.map((task) => task.map((episode) => episode[t]));
    const D = withNoise(noise, (draw) => takeEpisodes(env, tasks, actions[0].length, act, draw));
    const returns = D.map(({ rewards }) => mean(rewards.map(total)));
    const names = ["obs", "states", "raw_rewards", "done", "mask", "rewards"];
    return { ...fieldsOf(names, D), returns, optimal_return: tasks.map(env.optimalReturn) };
  },
  tasks({ family, options, n, split, noise }) {
    return { tasks: withNoise(noise, (draw) => sampleTasks(family, options, n, split, draw)) };
  },
  policy({ network, theta, other, obs, w, noise }) {
    const policy = new Policy(network);
    const shared = !Array.isArray(theta[0]);
    const rows = (array) => obs.map((_, i) => tensor(shared ? array : array[i]));
    const thetas = rows(theta);
    const each = (f, ...arrays) => zip((theta, obs, ...more) => f(theta, obs, ...more), thetas, obs, ...arrays);
    const z = withNoise(noise, (draw) => draw(policy.noise));
    const actions = each((theta, obs, z) => policy.sample(theta, obs, z), z);
    const logs = each((theta, obs, actions) => policy.logProb(theta, obs, actions), actions);
    const gradients = zip((l, theta, w) => grad(l, [theta], w)[0].data, logs, thetas, w);
    const names = range(network.hidden.length + 1).flatMap((i) => [`W${i}`, `b${i}`]);
    const parts = policy.parts(thetas[0]).map((part, i) => [names[i] ?? "log_std", part]);
    return {
      ...Object.fromEntries(parts),
      actions,
      mode: each((theta, obs) => policy.mode(theta, obs)),
      log_prob: logs.map((l) => l.value),
      log_probs: network.discrete && each((theta, obs) => log_softmax(policy.output(theta, obs).out).value),
      gradient: shared ? zip((...column) => total(column), ...gradients) : gradients,
      kl: each((theta, obs, other) => policy.divergence(theta, other, obs).value, rows(other)),
    };
  },
  init({ network, noise }) {
    return { theta: withNoise(noise, (draw) => new Policy(network).initial(network.std, draw)) };
  },
  rollout({ network, theta, family, options, tasks, K, noise }) {
    const env = makeFamily(family, options);
    const episodes = (draw) => rollout(new Policy(network), env, theta.map(tensor), tasks, K, draw);
    return fieldsOf(["obs", "actions", "rewards", "mask"], withNoise(noise, episodes));
  },
  advantages({ obs, rewards, mask, ...options }) {
    const each = zip((obs, rewards, mask) => advantages({ obs, rewards, mask }, options), obs, rewards, mask);
    return fieldsOf(["returns_to_go", "baseline", "raw", "A"], each);
  },
  meta_gradient({ c, x, tasks, noise }) {
    const paths = adapt(c, x, tasks, noise, 0);
    const fields = c.algo === "reptile" ? {} : { meta_gradient: paths.map(metaGradient) };
    for (const k of paths[0].memories.keys())
      for (const name of ["obs", "actions", "rewards", "mask", "A"])
        fields[name + k] = paths.map((path) => path.memories[k][name]);
    for (const k of paths[0].gradients.keys()) {
      fields[`g${k}`] = paths.map((path) => path.gradients[k].data);
      fields[`theta${k + 1}`] = paths.map((path) => path.thetas[k + 1].data);
    }
    return fields;
  },
  trust_region({ c, x, tasks, noise, v, new: other }) {
    const paths = adapt(c, x, tasks, noise, 0);
    const compared = fieldsOf(["kl", "gain"], paths.map((path) => compare(path, other)));
    return { fisher_product: paths.map((path) => fisherProduct(path, v)), ...compared };
  },
  iteration({ c, state, noise }) {
    if (["es-maml", "nes", "cma-es"].includes(c.algo)) notPorted(c.algo);
    const { t } = state;
    const tasks = withNoise(noise[`${t}/tasks`], (draw) => sampleTasks(c.family, c.options, c.tasks, "train", draw));
    const paths = adapt(c, state.theta, tasks, noise, t);
    const env_steps = state.env_steps + total(flat(paths.map(({ memories }) => memories.map(({ mask }) => mask))));
    const meanReturn = (k) => mean(paths.flatMap(({ memories }) => memories.at(k).rewards.map(total)));
    const counts = { t: t + 1, env_steps, pre: meanReturn(0), post: meanReturn(-1) };
    return { ...counts, tasks, ...outerStep(c, state, paths) };
  },
};

// --------------------------------------------------------------------------------------------------- the runner

// An array has "shape" and "data": one of them alone, as in the options of reshape, is a name like any other.
function decode(v) {
  if (typeof v === "string") return { inf: Infinity, "-inf": -Infinity, nan: NaN }[v] ?? v;
  if (v === null || typeof v !== "object") return v;
  if (Array.isArray(v)) return v.map(decode);
  if ("shape" in v && "data" in v) return nested(v.shape, v.data.map(decode));
  return Object.fromEntries(Object.entries(v).map(([key, x]) => [key, decode(x)]));
}

function close(got, want, tolerance) {
  if (got instanceof Tensor) got = got.value;
  if (!same(shapeOf(got), shapeOf(want))) return false;
  const scale = Math.max(...flat(want).map(Math.abs).filter(Number.isFinite), 0) || 1;
  const finite = (...numbers) => numbers.every(Number.isFinite); // booleans, as well as NaN and infinity, are not
  const right = (x, y) => (finite(x, y) ? Math.abs(x - y) <= tolerance * scale : Object.is(x, y));
  return zip(right, flat(got), flat(want)).every(Boolean);
}

// What is wrong with a case: a list of texts.
function judge({ function: name, inputs, rejects, intermediate, outputs, tolerance, faults = [] }) {
  if (!(name in FUNCTIONS)) notPorted(name);
  let got;
  try {
    got = FUNCTIONS[name](decode(inputs));
  } catch (error) {
    if (rejects && error instanceof Refused) return [];
    throw error;
  }
  if (rejects) return ["wrong inputs are not refused"];
  const agrees = (field, want) => field in got && close(got[field], decode(want), tolerance[field]);
  const differing = Object.entries({ ...intermediate, ...outputs }).filter(([field, want]) => !agrees(field, want));
  const faulty = faults.flatMap(({ fault, outputs }) =>
    Object.keys(outputs).filter((field) => agrees(field, outputs[field])).map((field) => `${field} as if ${fault}`));
  return [...differing.map(([field]) => `${field} differs`), ...faulty];
}

function main(directory) {
  let failures = 0;
  for (const stage of ["1-autodiff", "2-envs", "3-policies", "4-steps", "5-evolution-strategies", "6-runs"]) {
    const { format, version, cases } = JSON.parse(readFileSync(join(directory, `${stage}.json`), "utf8"));
    if (format !== "metarl golden vectors" || version !== 1) throw new Error(`${stage}: another format or version`);
    const groups = {};
    for (const one of cases) {
      const group = (groups[one.function] ??= { passed: [], failed: [], "not ported": [] });
      try {
        const wrong = judge(one);
        group[wrong.length ? "failed" : "passed"].push(one);
        for (const text of wrong) console.log(`${stage}: ${one.name}: ${text}`);
      } catch (error) {
        group[error instanceof NotPorted ? "not ported" : "failed"].push(one);
        if (!(error instanceof NotPorted)) console.log(`${stage}: ${one.name}: ${error.stack}`);
      }
    }
    for (const [name, group] of Object.entries(groups)) {
      failures += group.failed.length;
      const counts = Object.entries(group).map(([verdict, list]) => `${list.length} ${verdict}`);
      const refused = group.passed.filter((one) => one.rejects).length;
      const faults = total(group.passed.map((one) => one.faults?.length ?? 0));
      console.log(`${stage} ${name}: ${counts.join(", ")}; ${refused} wrong inputs refused, ${faults} faults told apart`);
    }
  }
  return failures ? 1 : 0;
}

process.exitCode = main(process.argv[2] ?? dirname(fileURLToPath(import.meta.url)));
