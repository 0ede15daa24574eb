// One step of the outer loops that differentiate (stage 4): SGD, Adam, a trust region, Reptile.

import { adam } from "./adam.mjs";
import { dot, fieldsOf, mean, meanRows, norm, zip } from "./arrays.mjs";
import { compare, fisherProduct, metaGradient } from "./steps.mjs";

const DAMPING = 1e-5;
const RADIUS = 0.01; // the largest mean divergence

// What a step changes of the state besides the counts: theta, and the moments of Adam.
export function outerStep(c, state, paths) {
  const { theta: x, t } = state;
  if (c.algo === "reptile") {
    const ends = meanRows(paths.map((path) => path.theta.data));
    return { theta: zip((start, end) => start + c.epsilon * (end - start), x, ends) };
  }
  const whole = meanRows(paths.map(metaGradient));
  if (c.outer === "trpo") return { theta: trustRegionStep(paths, x, whole) };
  const scale = Math.min(1, c.max_norm / norm(whole));
  const g = whole.map((a) => a * scale);
  let moments = {};
  let direction = g;
  if (c.outer === "adam") {
    const { m, v, direction: scaled } = adam(g, state, t + 1);
    moments = { m, v };
    direction = scaled;
  }
  const P = paths[0].policy.size;
  const rate = (i) => (i < P ? c.beta : c.beta_alpha);
  return { theta: x.map((a, i) => a - rate(i) * direction[i]), ...moments };
}

function trustRegionStep(paths, x, g) {
  const F = (v) => {
    const products = paths.map((path) => fisherProduct(path, v));
    return zip((Fv, a) => Fv + DAMPING * a, meanRows(products), v);
  };
  const d = conjugateGradients(F, g);
  const length = Math.sqrt((2 * RADIUS) / Math.max(dot(d, F(d)), 1e-30));
  for (let i = 0; i < 15; i++) {
    const tried = zip((a, step) => a - 0.8 ** i * length * step, x, d);
    const compared = paths.map((path) => compare(path, tried));
    const { kl, gain } = fieldsOf(["kl", "gain"], compared);
    if (mean(kl) <= RADIUS && mean(gain) > 0) return tried;
  }
  return x;
}

// The d of F d = g, nearly.
function conjugateGradients(F, g) {
  let d = g.map(() => 0);
  let r = g; // g - F d
  let p = g;
  for (let i = 0; i < 10; i++) {
    if (norm(r) <= 1e-10 * norm(g)) break;
    const Fp = F(p);
    const a = dot(r, r) / dot(p, Fp);
    d = zip((x, y) => x + a * y, d, p);
    const next = zip((x, y) => x - a * y, r, Fp);
    const b = dot(next, next) / dot(r, r);
    p = zip((x, y) => x + b * y, next, p);
    r = next;
  }
  return d;
}
