// Adaptation and meta-gradients (stage 4). The path of one task, x, g_0, theta_1, g_1, ...,
// theta', is one expression of x. Then the meta-gradient is one gradient of it, and each estimator
// is one line.

import { adam } from "./adam.mjs";
import { flat, mean, range, total } from "./arrays.mjs";
import { add, divide, exp, filled, grad, multiply, negative } from "./autodiff.mjs";
import { stop, subtract, take, tensor } from "./autodiff.mjs";
import { advantages, discounted, rollout } from "./episodes.mjs";
import { makeFamily } from "./families.mjs";
import { withNoise } from "./noise.mjs";
import { matmul, sum } from "./operations.mjs";
import { Policy } from "./policies.mjs";
import { check } from "./refuse.mjs";

export function problemOf(c) {
  const env = makeFamily(c.family, c.options, c.X);
  const policy = new Policy({ ...env, hidden: c.hidden, activation: c.activation });
  return { env, policy };
}

// ----------------------------------------------------------------------------------- the loss

// Episodes D of theta with what the losses need: the weights w = A / (K H), masked steps counted,
// and l, the log-probabilities under the policy that took them.
function remember(c, policy, theta, D) {
  const { A, deviation } = advantages(D, c);
  const w = divide(A, flat(A).length);
  const l = stop(policy.logProb(theta, D.obs, D.actions));
  return { ...D, A, deviation, w, l };
}

// s_t as a function of r (K, H), the log-ratios.
const ESTIMATORS = {
  "first-order": (r) => r,
  "log-prob": (r) => r,
  lvc: (r) => exp(r),
  dice(r) {
    const H = r.shape[1];
    const before = range(H).map((i) => range(H).map((t) => i < t));
    const past = matmul(r, tensor(before)); // r_0 + ... + r_(t-1)
    return subtract(exp(add(past, r)), exp(past));
  },
};

export function loss(policy, { obs, actions, l, w }, estimator, theta) {
  const r = subtract(policy.logProb(theta, obs, actions), l);
  return negative(sum(multiply(w, ESTIMATORS[estimator](r))));
}

// ------------------------------------------------------------------------------ the inner loop

// theta_0, theta_1, ... of one task as functions of x, and the episodes taken on the way.
export class Path {
  constructor(c, policy, x) {
    const P = policy.size;
    check(x.length === (c.learn_alpha ? 2 * P : P), "x has another length than the policy");
    this.c = c;
    this.policy = policy;
    this.x = tensor(x);
    this.thetas = [take(this.x, range(P), [P])];
    this.factor = 1; // exp(s)
    if (c.learn_alpha) this.factor = exp(take(this.x, range(P).map((j) => P + j), [P]));
    this.memories = [];
    this.gradients = [];
    this.moments = { m: Array(P).fill(0), v: Array(P).fill(0) };
  }

  get theta() {
    return this.thetas.at(-1);
  }

  step(memory) {
    const { c, policy, theta } = this;
    const k = this.gradients.length;
    const [whole] = grad(loss(policy, memory, c.estimator, theta), [theta]);
    const g = c.estimator === "first-order" ? stop(whole) : whole;
    let direction = g;
    if (c.inner_optimizer === "adam") {
      this.moments = adam(g.data, this.moments, k + 1);
      direction = tensor(this.moments.direction);
    }
    const alpha = k === 0 ? c.alpha : c.alpha * c.alpha_decay;
    const size = multiply(alpha, this.factor);
    this.gradients.push(g);
    this.thetas.push(subtract(theta, multiply(size, direction)));
  }

  // The path from another x, on the same episodes.
  replayed(x) {
    const path = new Path(this.c, this.policy, x);
    this.gradients.forEach((_, k) => path.step(this.memories[k]));
    return path;
  }
}

// The paths of all tasks from x. Those of Reptile end before the last episodes.
export function adapt(c, x, tasks, noise, t) {
  const { env, policy } = problemOf(c);
  const paths = tasks.map(() => new Path(c, policy, x));
  const last = c.algo === "reptile" ? c.inner_steps - 1 : c.inner_steps;
  for (let k = 0; k <= last; k++) {
    const thetas = paths.map((path) => path.theta);
    const episodes = withNoise(noise[`${t}/episodes/${k}`], (draw) =>
      rollout(policy, env, thetas, tasks, c.episodes, draw));
    paths.forEach((path, i) => {
      const memory = remember(c, policy, path.theta, episodes[i]);
      path.memories.push(memory);
      if (k < c.inner_steps) path.step(memory);
    });
  }
  return paths;
}

// ---------------------------------------------------------------------------- the meta-gradient

// S: that the distribution of the inner episodes depends on x as well. The x is that of this path,
// the episodes are `memories`.
function samplingTerm({ c, policy, thetas }, memories) {
  const outer = memories.at(-1);
  const H = outer.mask[0].length;
  const unit = c.standardise ? H * outer.deviation : H;
  const returns = ({ rewards }) => rewards.map((row) => discounted(row, c.gamma)[0] / unit);
  const J = mean(returns(outer));
  const terms = memories.slice(0, -1).map((memory, k) => {
    const R = returns(memory);
    const others = (n) => R.filter((_, i) => i !== n);
    const alone = c.baseline === "none" || R.length === 1;
    const b = R.map((_, n) => (alone ? 0 : mean(others(n))));
    const logs = policy.logProb(thetas[k], memory.obs, memory.actions);
    const logOfEpisodes = sum(multiply(memory.mask, logs), 1);
    return negative(sum(multiply(logOfEpisodes, b.map((x) => J - x))));
  });
  return terms.reduce(add, tensor(0));
}

// M(x). L' is written with ratios (the form lvc): where they are 1, at the x that took D', its
// gradient is that of log-prob.
function objective(path, memories) {
  const outer = loss(path.policy, memories.at(-1), "lvc", path.theta);
  return path.c.sampling_term ? add(outer, samplingTerm(path, memories)) : outer;
}

export const metaGradient = (path) => grad(objective(path, path.memories), [path.x])[0].data;

// ----------------------------------------------------------------- what the trust region compares

// KL(pi_theta' || pi_other), the mean over the steps of D' that count.
function meanDivergence({ policy, theta, memories }, other) {
  const { obs, mask } = memories.at(-1);
  const divergences = multiply(mask, policy.divergence(stop(theta), other, obs));
  return divide(sum(divergences), total(flat(mask)));
}

// J^T F' J v. J^T u is a gradient, and J v the derivative of (J^T u) v by u.
export function fisherProduct(path, v) {
  const u = filled(path.theta.shape, 0);
  const [JTu] = grad(path.theta, [path.x], u);
  const [Jv] = grad(JTu, [u], v);
  const other = stop(path.theta);
  const [slope] = grad(meanDivergence(path, other), [other]);
  const [FJv] = grad(slope, [other], Jv);
  return grad(path.theta, [path.x], FJv)[0].data;
}

// From the x of this path to another one, on the same episodes.
export function compare(path, x) {
  const other = path.replayed(x);
  const here = objective(path, path.memories);
  const there = objective(other, path.memories);
  return { kl: meanDivergence(path, other.theta).value, gain: subtract(here, there).value };
}
