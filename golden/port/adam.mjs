// Adam, Kingma & Ba 2015: of inner steps, outer steps and OpenAI-ES.

import { zip } from "./arrays.mjs";

// Steps count from 1. `direction` is what is to be multiplied by the step size.
export function adam(g, { m, v }, step) {
  const m1 = zip((old, x) => 0.9 * old + 0.1 * x, m, g);
  const v1 = zip((old, x) => 0.999 * old + 0.001 * x * x, v, g);
  const direction = (a, b) => {
    const first = a / (1 - 0.9 ** step);
    const second = b / (1 - 0.999 ** step);
    return first / (Math.sqrt(second) + 1e-8);
  };
  return { m: m1, v: v1, direction: zip(direction, m1, v1) };
}
