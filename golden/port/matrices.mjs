// Matrices as arrays of rows: products, linear equations, and eigenvectors of symmetric ones.

import { dot, range, zip } from "./arrays.mjs";

export const identity = (n) => range(n).map((i) => range(n).map((j) => Number(i === j)));
export const transposed = (A) => zip((...column) => column, ...A);
export const applied = (A, x) => A.map((row) => dot(row, x)); // A x
export const outer = (x, y) => x.map((a) => y.map((b) => a * b)); // x y^T

export function times(A, B) {
  const columns = transposed(B);
  return A.map((row) => columns.map((column) => dot(row, column)));
}

// Each column multiplied by a number of its own: A diag(d).
export const scaledColumns = (A, d) => A.map((row) => zip((x, scale) => x * scale, row, d));

// The x of A x = y, by Gauss and Jordan's elimination with pivots.
export function solve(A, y) {
  const n = y.length;
  const rows = zip((row, b) => [...row, b], A, y);
  for (const i of range(n)) {
    let pivot = i;
    for (let k = i + 1; k < n; k++) {
      if (Math.abs(rows[k][i]) > Math.abs(rows[pivot][i])) pivot = k;
    }
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    for (const k of range(n)) {
      if (k === i) continue;
      const factor = rows[k][i] / rows[i][i];
      rows[k] = zip((x, p) => x - factor * p, rows[k], rows[i]);
    }
  }
  return rows.map((row, i) => row[n] / row[i]);
}

// Jacobi's method: turn the plane of two axes so that their common element vanishes, over and over.
// Eigenvalues ascend. The eigenvectors are the columns of `vectors`, and the sign of each, which is
// anybody's choice, is such that its largest element is positive.
export function eigen(symmetric) {
  const n = symmetric.length;
  const A = symmetric.map((row) => [...row]);
  const V = identity(n);
  for (let sweep = 0; sweep < 60; sweep++) {
    let turned = false;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const scale = Math.sqrt(Math.abs(A[p][p] * A[q][q]));
        if (A[p][q] === 0 || Math.abs(A[p][q]) < 1e-17 * scale) continue;
        turned = true;
        turnPlane(A, V, p, q);
      }
    }
    if (!turned) break;
  }
  const order = range(n).sort((i, j) => A[i][i] - A[j][j]);
  const columns = transposed(V);
  const vectors = transposed(order.map((i) => withPositiveLargest(columns[i])));
  return { values: order.map((i) => A[i][i]), vectors };
}

function turnPlane(A, V, p, q) {
  // The tangent of the smaller of the two angles that do it: tan^2 + 2 theta tan = 1.
  const theta = (A[q][q] - A[p][p]) / (2 * A[p][q]);
  const sign = theta < 0 ? -1 : 1;
  const tangent = sign / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const cosine = 1 / Math.sqrt(tangent * tangent + 1);
  const sine = tangent * cosine;
  const turn = (row) => {
    const [x, y] = [row[p], row[q]];
    row[p] = cosine * x - sine * y;
    row[q] = sine * x + cosine * y;
  };
  A.forEach(turn); // the columns p and q
  V.forEach(turn);
  for (const k of range(A.length)) {
    const [x, y] = [A[p][k], A[q][k]];
    A[p][k] = cosine * x - sine * y;
    A[q][k] = sine * x + cosine * y;
  }
  A[p][q] = 0; // exactly, so that rounding cannot keep the sweeps going
  A[q][p] = 0;
}

function withPositiveLargest(vector) {
  const largest = vector.reduce((best, x) => (Math.abs(x) > Math.abs(best) ? x : best));
  return largest < 0 ? vector.map((x) => -x) : vector;
}

// V diag(f(eigenvalues)) V^T: the root, the inverse root or the exponential of a symmetric matrix.
export function ofEigenvalues(f, { values, vectors }) {
  return times(scaledColumns(vectors, values.map(f)), transposed(vectors));
}
