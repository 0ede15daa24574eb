// Stage 1, continued: what reduces, multiplies matrices, reorders and selects; and the table of all
// operations as the cases call them.

import { flat, place, places, product, range, shapeOf } from "./arrays.mjs";
import * as autodiff from "./autodiff.mjs";
import { add, broadcastTo, clip, divide, exp, filled, log } from "./autodiff.mjs";
import { multiply, put, raised, stop, subtract, take, Tensor, where } from "./autodiff.mjs";
import { check } from "./refuse.mjs";

// A negative axis counts from the last one.
function axisOf(axis, dimensions) {
  const counted = axis < 0 ? axis + dimensions : axis;
  check(counted >= 0 && counted < dimensions, "no such axis");
  return counted;
}

// ----------------------------------------------------------------------------------- reductions

// Axes are one, a list, or, if absent, all. `kept` is the shape with length 1 in their place,
// `dropped` the shape without them, and `index` says where each element goes.
function reduced(shape, axes) {
  const given = axes == null ? range(shape.length) : flat(axes);
  const over = given.map((axis) => axisOf(axis, shape.length));
  const kept = shape.map((n, axis) => (over.includes(axis) ? 1 : n));
  const dropped = shape.filter((_, axis) => !over.includes(axis));
  const goesTo = (at) => at.map((i, axis) => (over.includes(axis) ? 0 : i));
  return { kept, dropped, index: places(shape, kept, goesTo) };
}

export function sum(x, axes = null, keepdims = false) {
  const { kept, dropped, index } = reduced(x.shape, axes);
  return put(x, index, keepdims ? kept : dropped);
}

export function average(x, axes = null, keepdims = false) {
  const out = sum(x, axes, keepdims);
  return divide(out, x.data.length / out.data.length);
}

// The largest elements, a constant with length 1 in place of the axes.
function largest(x, axes) {
  const { kept, index } = reduced(x.shape, axes);
  const out = filled(kept, -Infinity);
  index.forEach((i, j) => (out.data[i] = Math.max(out.data[i], x.data[j])));
  return out;
}

// The adjoint goes to the largest element; where several are equal they share it.
export function max(x, axes = null, keepdims = false) {
  const { kept, dropped, index } = reduced(x.shape, axes);
  const top = largest(x, axes);
  const equal = x.data.map((number, j) => Number(number === top.data[index[j]]));
  const chosen = new Tensor(x.shape, equal);
  const share = stop(divide(chosen, sum(chosen, axes, true)));
  const vjp = (w) => [multiply(take(w, index, x.shape), share)];
  return new Tensor(keepdims ? kept : dropped, top.data, [x], vjp);
}

export function logsumexp(x, axes = null, keepdims = false) {
  const top = largest(x, axes);
  const out = add(log(sum(exp(subtract(x, top)), axes, true)), top);
  const { kept, dropped } = reduced(x.shape, axes);
  return reshape(out, keepdims ? kept : dropped);
}

export const log_softmax = (x) => subtract(x, logsumexp(x, -1, true));

// 1-D operands are vectors; leading axes are a batch.
export function matmul(a, b) {
  const [m, inner] = a.shape.length === 1 ? [1, ...a.shape] : a.shape.slice(-2);
  const [rowsOfB, n] = b.shape.length === 1 ? [...b.shape, 1] : b.shape.slice(-2);
  check(inner === rowsOfB, "not as many columns as rows");
  const left = reshape(a, [...a.shape.slice(0, -2), m, inner, 1]);
  const right = reshape(b, [...b.shape.slice(0, -2), 1, inner, n]);
  const axes = [-2];
  if (a.shape.length === 1) axes.push(-3);
  if (b.shape.length === 1) axes.push(-1);
  return sum(multiply(left, right), axes);
}

// --------------------------------------------------------------------- reordering and selecting

export function reshape(x, shape) {
  check(product(shape) === x.data.length, "another number of elements");
  return take(x, range(x.data.length), shape);
}

export function swapaxes(x, axis1, axis2) {
  const first = axisOf(axis1, x.shape.length);
  const second = axisOf(axis2, x.shape.length);
  const swapped = (list) => {
    const out = [...list];
    out[first] = list[second];
    out[second] = list[first];
    return out;
  };
  const shape = swapped(x.shape);
  return take(x, places(shape, x.shape, swapped), shape);
}

// Each part is put at its place in an array of zeros, and these are added.
export function concatenate(xs, axis) {
  const along = axisOf(axis, xs[0].shape.length);
  const others = (x) => x.shape.filter((_, i) => i !== along);
  check(xs.every((x) => others(x).join() === others(xs[0]).join()), "shapes do not fit");
  const shape = [...xs[0].shape];
  shape[along] = xs.reduce((length, x) => length + x.shape[along], 0);
  let start = 0;
  const parts = [];
  for (const x of xs) {
    const first = start;
    const goesTo = (at) => at.map((i, other) => (other === along ? i + first : i));
    parts.push(put(x, places(x.shape, shape, goesTo), shape));
    start += x.shape[along];
  }
  return parts.reduce(add);
}

export function stack(xs, axis) {
  const along = axisOf(axis, xs[0].shape.length + 1);
  const longer = (x) => reshape(x, [...x.shape.slice(0, along), 1, ...x.shape.slice(along)]);
  return concatenate(xs.map(longer), along);
}

// An index from 0.
function indexOf(i, length) {
  check(i >= 0 && i < length, "no such index");
  return i;
}

// For each axis, from the first: a number, which drops the axis, an array of numbers, or
// {start, stop}. Axes without an index stay as they are. Several arrays go side by side: together
// they are one axis, in the place of the first.
export function getitem(x, index) {
  check(index.length <= x.shape.length, "more indices than axes");
  const chosen = x.shape.map((n, axis) => {
    const one = index[axis] ?? { start: 0, stop: n };
    if (typeof one === "number") return [indexOf(one, n)];
    if (Array.isArray(one)) return one.map((i) => indexOf(i, n));
    return range(one.stop - one.start).map((i) => one.start + i);
  });
  const arrays = index.flatMap((one, axis) => (Array.isArray(one) ? [axis] : []));
  const [first, ...others] = arrays;
  const isOther = (axis) => others.includes(axis);
  check(others.every((axis) => chosen[axis].length === chosen[first].length), "unequal arrays");
  const from = (at) => at.map((i, axis) => chosen[axis][isOther(axis) ? at[first] : i]);
  const whole = chosen.map((list, axis) => (isOther(axis) ? 1 : list.length));
  const dropped = (axis) => typeof index[axis] === "number" || isOther(axis);
  const shape = whole.filter((_, axis) => !dropped(axis));
  return take(x, places(whole, x.shape, from), shape);
}

export function takeAlongAxis(x, chosen, axis) {
  const along = axisOf(axis, x.shape.length);
  const shape = shapeOf(chosen);
  const list = flat(chosen).map((i) => indexOf(i, x.shape[along]));
  const from = (at) => at.map((i, other) => (other === along ? list[place(at, shape)] : i));
  return take(x, places(shape, x.shape, from), shape);
}

// ------------------------------------------------------------------ as the cases call them

// f(arguments, options).
export const OPERATIONS = {
  raised: ([x], o) => raised(x, o.exponent),
  clip: ([x], o) => clip(x, o.low, o.high),
  where: ([a, b], o) => where(o.condition, a, b),
  sum: ([x], o) => sum(x, o.axis, o.keepdims),
  mean: ([x], o) => average(x, o.axis, o.keepdims),
  max: ([x], o) => max(x, o.axis, o.keepdims),
  logsumexp: ([x], o) => logsumexp(x, o.axis, o.keepdims),
  log_softmax: ([x]) => log_softmax(x),
  matmul: ([a, b]) => matmul(a, b),
  reshape: ([x], o) => reshape(x, o.shape),
  swapaxes: ([x], o) => swapaxes(x, o.axis1, o.axis2),
  broadcast_to: ([x], o) => broadcastTo(x, o.shape),
  concatenate: (xs, o) => concatenate(xs, o.axis),
  stack: (xs, o) => stack(xs, o.axis),
  getitem: ([x], o) => getitem(x, o.index),
  take_along_axis: ([x], o) => takeAlongAxis(x, o.indices, o.axis),
};

const ONLY_ARGUMENTS = ["add", "subtract", "multiply", "divide", "power", "maximum", "minimum",
  "negative", "exp", "log", "sqrt", "tanh", "sigmoid", "softplus", "relu"];
for (const name of ONLY_ARGUMENTS) OPERATIONS[name] = (xs) => autodiff[name](...xs);
