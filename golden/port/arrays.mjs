// Numbers and nested arrays of them, as the vectors give them. Nothing is differentiated here.

export const range = (n) => [...Array(n).keys()];
export const total = (values) => values.reduce((a, b) => a + b, 0);
export const product = (values) => values.reduce((a, b) => a * b, 1);

// f of the first elements of all arrays, of the second ones, and so on.
export function zip(f, ...arrays) {
  if (arrays.length === 1) return arrays[0].map((x) => f(x)); // the same, but faster
  if (arrays.length === 2) return arrays[0].map((x, i) => f(x, arrays[1][i]));
  return arrays[0].map((_, i) => f(...arrays.map((array) => array[i])));
}

export const dot = (a, b) => total(zip((x, y) => x * y, a, b));
export const norm = (a) => Math.sqrt(dot(a, a));

// A second mean, of what the first leaves, takes back its rounding: the mean of equal values is
// exactly their value.
export function mean(values) {
  const first = total(values) / values.length;
  return first + total(values.map((x) => x - first)) / values.length;
}

export const meanRows = (rows) => zip((...column) => mean(column), ...rows);

// Infinite where all values are equal, so that what it divides is 0.
// Squares are of numbers up to 1, lest they overflow or vanish.
export function deviation(values) {
  const m = mean(values);
  const distances = values.map((x) => Math.abs(x - m));
  const largest = Math.max(...distances);
  if (largest === 0) return Infinity;
  return largest * Math.sqrt(mean(distances.map((d) => (d / largest) ** 2)));
}

// For sorting: a difference would be NaN for two infinite numbers.
export function compare(a, b) {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

export const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

// {name: [that of each object]} for the names that are asked for.
export function fieldsOf(names, objects) {
  return Object.fromEntries(names.map((name) => [name, objects.map((o) => o[name])]));
}

// --------------------------------------------------------------------------------------- shapes

export const flat = (x) => (Array.isArray(x) ? x.flat(Infinity) : [x]);

export function shapeOf(x) {
  if (!Array.isArray(x)) return [];
  if (x.length === 0) return [0];
  return [x.length, ...shapeOf(x[0])];
}

// Data row by row, the last index running fastest, as an array of arrays.
export function nested(shape, data) {
  if (shape.length === 0) return data[0];
  const [rows, ...others] = shape;
  const step = product(others);
  return range(rows).map((i) => nested(others, data.slice(i * step, (i + 1) * step)));
}

// Where a multi-index of an array is in its data.
export function place(at, shape) {
  let sum = 0;
  for (let axis = 0; axis < shape.length; axis++) sum = sum * shape[axis] + at[axis];
  return sum;
}

// All multi-indices of a shape, row by row. They are kept, because few shapes come again and again.
const kept = new Map();

export function indices(shape) {
  const key = shape.join();
  if (!kept.has(key)) {
    const longer = (all, n) => all.flatMap((at) => range(n).map((i) => [...at, i]));
    kept.set(key, shape.reduce(longer, [[]]));
  }
  return kept.get(key);
}

// For each multi-index of a shape: the place of f(multi-index) in an array of the shape `inside`.
export const places = (shape, inside, f) => indices(shape).map((at) => place(f(at), inside));
