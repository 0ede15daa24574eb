// Noise is given, not made: each draw is taken from a list, in order.

// f(draw), where draw(kind) gives back the values of the next draw. f has to ask for all draws, and
// for each by its kind. Otherwise the port asks in another order, and no number can be right.
export function withNoise(draws, f) {
  const left = [...draws];
  const out = f((kind) => {
    const next = left.shift() ?? { kind: "none" };
    if (next.kind !== kind) {
      throw new Error(`the port asks for ${kind}, the next draw is ${next.kind}`);
    }
    return next.values;
  });
  if (left.length > 0) throw new Error(`the port leaves ${left.length} draws`);
  return out;
}
