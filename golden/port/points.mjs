// Points that a strategy is told but did not ask for (stage 5).

import { norm } from "./arrays.mjs";

// A step longer than sqrt(n) + 6 is too long for a sample. `factor` is what it was multiplied by.
export function shortened(z) {
  const n = z.length;
  const length = norm(z);
  let factor = 1;
  if (length > Math.sqrt(n) + 6) factor = (Math.sqrt(n) + (2 * n) / (n + 2)) / length;
  return { step: z.map((a) => a * factor), factor };
}

// Where three points have a coordinate in common, they were moved to a bound.
export function fromBounds(x) {
  return x[0].some((_, j) => {
    const column = x.map((row) => row[j]);
    return column.some((a) => column.filter((b) => a === b).length >= 3);
  });
}
