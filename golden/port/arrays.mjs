// Numbers and nested arrays of them, as the vectors give them. Nothing is differentiated here.

export const range = (n) => Array.from({ length: n }, (_, i) => i);
export const total = (values) => values.reduce((a, b) => a + b, 0);
export const product = (values) => values.reduce((a, b) => a * b, 1);

// f of the first elements of all arrays, of the second ones, and so on.
export function zip(f, ...arrays) {
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
  return at.reduce((sum, i, axis) => sum * shape[axis] + i, 0);
}

// All multi-indices of a shape, row by row.
export function indices(shape) {
  return shape.reduce((all, n) => all.flatMap((at) => range(n).map((i) => [...at, i])), [[]]);
}

// For each multi-index of a shape: the place of f(multi-index) in an array of the shape `inside`.
export const places = (shape, inside, f) => indices(shape).map((at) => place(f(at), inside));
