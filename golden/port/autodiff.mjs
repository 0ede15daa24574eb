// Automatic differentiation (stage 1). A Tensor remembers what it was made of; `grad` goes back
// from a value to what it depends on. Adjoints are made of differentiable operations, so that a
// gradient can be differentiated again. operations.mjs adds what reduces, selects and reorders.

import { flat, nested, places, product, range, same, shapeOf, zip } from "./arrays.mjs";
import { check } from "./refuse.mjs";

let created = 0;

// `vjp` maps the adjoint of the value to those of the parents.
export class Tensor {
  constructor(shape, data, parents = [], vjp = null) {
    Object.assign(this, { shape, data, parents, vjp, id: created++ });
  }
  get value() {
    return nested(this.shape, this.data);
  }
}

// Numbers, booleans (true counts as 1) and nested arrays of them become constants.
export function tensor(x) {
  if (x instanceof Tensor) return x;
  return new Tensor(shapeOf(x), flat(x).map(Number));
}

export const stop = (x) => new Tensor(x.shape, x.data);

export function filled(shape, number) {
  return new Tensor(shape, Array(product(shape)).fill(number));
}

// The adjoints of xs, w being that of y. It may be left out if y is a number without axes.
export function grad(y, xs, w = null) {
  check(w !== null || y.shape.length === 0, "the gradient of an array needs an adjoint");
  const start = w === null ? filled(y.shape, 1) : tensor(w);
  check(same(start.shape, y.shape), "the adjoint has another shape than the value");

  // All that y depends on, the newest last: parents are older than what is made of them.
  const reached = new Set([y]);
  for (const node of reached) node.parents.forEach((parent) => reached.add(parent));
  const nodes = [...reached].sort((a, b) => a.id - b.id);

  // Of these, what depends on xs: nothing else needs an adjoint.
  const needed = new Set(xs);
  for (const node of nodes) {
    if (node.parents.some((parent) => needed.has(parent))) needed.add(node);
  }

  const adjoint = new Map([[y, start]]);
  for (const node of nodes.reverse()) {
    if (!node.vjp || !needed.has(node) || !adjoint.has(node)) continue;
    const parts = node.vjp(adjoint.get(node));
    node.parents.forEach((parent, i) => {
      if (!needed.has(parent)) return;
      const before = adjoint.get(parent);
      adjoint.set(parent, before ? add(before, parts[i]) : parts[i]);
    });
  }
  return xs.map((x) => adjoint.get(x) ?? filled(x.shape, 0));
}

// ---------------------------------------------------------------------- what moves numbers about

// Each of the two is the adjoint of the other. All that selects, repeats, reorders or sums is one
// of them with the right index.

// out[j] = x[index[j]]
export function take(x, index, shape) {
  const data = index.map((i) => x.data[i]);
  return new Tensor(shape, data, [x], (w) => [put(w, index, x.shape)]);
}

// out[index[j]] gains x[j]: what is put at one place twice adds up.
export function put(x, index, shape) {
  const data = Array(product(shape)).fill(0);
  index.forEach((i, j) => (data[i] += x.data[j]));
  return new Tensor(shape, data, [x], (w) => [take(w, index, x.shape)]);
}

// ------------------------------------------------------------------------------- broadcasting

// Shapes are aligned at the last axis; an axis of length 1, or absent, is repeated.
export function broadcastTo(x, shape) {
  const lead = shape.length - x.shape.length;
  const fits = x.shape.every((n, axis) => n === 1 || n === shape[lead + axis]);
  check(lead >= 0 && fits, "shapes do not broadcast");
  const from = (at) => x.shape.map((n, axis) => (n === 1 ? 0 : at[lead + axis]));
  return take(x, places(shape, x.shape, from), shape);
}

export function broadcast(args) {
  const xs = args.map(tensor);
  const dimensions = Math.max(...xs.map((x) => x.shape.length));
  const lengthFromLast = (axis) => {
    const lengths = xs.map((x) => x.shape.at(-axis) ?? 1);
    return lengths.find((n) => n !== 1) ?? 1;
  };
  const shape = range(dimensions).map((axis) => lengthFromLast(dimensions - axis));
  return xs.map((x) => (same(x.shape, shape) ? x : broadcastTo(x, shape)));
}

// ---------------------------------------------------------------------- operations on elements

// f of numbers, and its partial derivatives: functions of the arguments and of the value. The
// adjoint of an argument is w times the partial derivative.
function elementwise(f, partials, ...args) {
  const xs = broadcast(args);
  const data = zip(f, ...xs.map((x) => x.data));
  const vjp = (w) => partials.map((partial) => multiply(w, partial(...xs, out)));
  const out = new Tensor(xs[0].shape, data, xs, vjp);
  return out;
}

// A condition as a constant: 1 where it holds, 0 elsewhere.
function indicator(condition, ...xs) {
  return stop(elementwise((...numbers) => Number(condition(...numbers)), [], ...xs));
}

// 1 where a > b, and 1/2 where they are equal: each gets half of the adjoint.
function above(a, b) {
  const larger = indicator((x, y) => x > y, a, b);
  const atLeast = indicator((x, y) => x >= y, a, b);
  return multiply(0.5, add(larger, atLeast));
}

export const add = (a, b) => elementwise((x, y) => x + y, [() => 1, () => 1], a, b);
export const subtract = (a, b) => elementwise((x, y) => x - y, [() => 1, () => -1], a, b);
export const multiply = (a, b) => elementwise((x, y) => x * y, [(x, y) => y, (x) => x], a, b);

export function divide(a, b) {
  const byA = (x, y) => divide(1, y);
  const byB = (x, y, ratio) => divide(negative(ratio), y);
  return elementwise((x, y) => x / y, [byA, byB], a, b);
}

export function power(a, b) {
  const byA = (x, y) => multiply(y, power(x, subtract(y, 1)));
  const byB = (x, y, value) => multiply(value, log(x));
  return elementwise((x, y) => x ** y, [byA, byB], a, b);
}

// A constant exponent. For 0 the derivative is 0, also at x = 0.
export function raised(a, exponent) {
  const byA = (x) => (exponent === 0 ? 0 : multiply(exponent, raised(x, exponent - 1)));
  return elementwise((x) => x ** exponent, [byA], a);
}

export const maximum = (a, b) =>
  elementwise(Math.max, [(x, y) => above(x, y), (x, y) => above(y, x)], a, b);
export const minimum = (a, b) =>
  elementwise(Math.min, [(x, y) => above(y, x), (x, y) => above(x, y)], a, b);

export const negative = (a) => elementwise((x) => -x, [() => -1], a);
export const exp = (a) => elementwise(Math.exp, [(x, y) => y], a);
export const log = (a) => elementwise(Math.log, [(x) => divide(1, x)], a);
export const sqrt = (a) => elementwise(Math.sqrt, [(x, y) => divide(0.5, y)], a);
export const tanh = (a) => elementwise(Math.tanh, [(x, y) => subtract(1, multiply(y, y))], a);

// y sigmoid(-x), and not y (1 - y), which is 0 to rounding from x = 37 on.
export const sigmoid = (a) =>
  elementwise((x) => 1 / (1 + Math.exp(-x)), [(x, y) => multiply(y, sigmoid(negative(x)))], a);

export const softplus = (a) =>
  elementwise((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), [sigmoid], a);

// The slope is 0 at 0.
export const relu = (a) =>
  elementwise((x) => Math.max(x, 0), [(x) => indicator((number) => number > 0, x)], a);

// The slope is 1 at the bounds.
export function clip(a, low, high) {
  const within = (x) => indicator((number) => low <= number && number <= high, x);
  return elementwise((x) => Math.min(Math.max(x, low), high), [within], a);
}

// w, or an exact 0, selected and not multiplied: no NaN crosses to the other side.
export function where(condition, a, b) {
  const [chosen, x, y] = broadcast([condition, a, b]);
  const data = zip((first, one, other) => (first ? one : other), chosen.data, x.data, y.data);
  const vjp = (w) => [where(chosen, w, 0), where(chosen, 0, w)];
  return new Tensor(chosen.shape, data, [x, y], vjp);
}
