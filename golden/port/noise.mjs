// Noise is given, not made: each draw is taken from a list, in order.

import { same, shapeOf } from "./arrays.mjs";

// f(draw), where draw(kind, shape) gives back the values of the next draw. f has to ask for all
// draws, and for each by its kind and, if it names one, its shape. Otherwise the port asks in
// another order, or for another number of tasks or episodes, and no number can be right.
export function withNoise(draws, f) {
  const left = [...draws];
  const out = f((kind, shape = null) => {
    const next = left.shift() ?? { kind: "none", values: [] };
    const given = shapeOf(next.values);
    if (next.kind !== kind || !same(given, shape ?? given)) {
      throw new Error(`the port asks for ${kind} (${shape}), next is ${next.kind} (${given})`);
    }
    return next.values;
  });
  if (left.length > 0) throw new Error(`the port leaves ${left.length} draws`);
  return out;
}
