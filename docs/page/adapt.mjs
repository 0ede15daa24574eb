// What the page computes: noise from a seed, steps of adaptation, and estimates of the
// meta-gradient. metarl.py has the same as `adapt`, `hill_climb` and `meta_gradient`.

import { mean, norm, range } from "../../golden/port/arrays.mjs";
import { INNER } from "../../golden/port/black_boxes.mjs";
import { returnsOf } from "../../golden/port/episodes.mjs";
import { problemOf } from "../../golden/port/steps.mjs";
import { lossGradient, Network, play, weights } from "./network.mjs";

// ----------------------------------------------------------------------------------------- noise

// Normal numbers: Mulberry32 and the method of Box and Muller. As in metarl.py, noise has an
// address, whole numbers of which the first is the seed: the same address, the same noise.
export function normals(...address) {
  let state = 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
  for (const number of address) state = (uniform() * 2 ** 32 + number) >>> 0;
  return () => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    return radius * Math.cos(2 * Math.PI * uniform());
  };
}

// Of K episodes of H steps: z[t][k] are two numbers.
export function noiseOf(K, H, ...address) {
  const next = normals(...address);
  return range(H).map(() => range(K).map(() => [next(), next()]));
}

// ------------------------------------------------------------------------------------ adaptation

// A trained start: its options, the parameters, and the factors on the steps.
export function makeStart(c, x) {
  const { env, policy } = problemOf(c);
  const net = new Network(policy);
  const theta = Float64Array.from(x.slice(0, policy.size));
  const scale = theta.map((_, j) => (c.learn_alpha ? Math.exp(x[policy.size + j]) : 1));
  return { c, env, net, theta, scale };
}

// A stage of an adaptation: theta after k steps, K episodes that it takes, their mean return, and
// the path of its mean action. noise(k) is that of the episodes.
function stage({ c, env, net }, task, noise, k, theta) {
  const path = play(net, env, theta, task, 1);
  const D = c.deterministic ? path : play(net, env, theta, task, c.episodes, noise(k));
  return { k, theta, D, value: mean(returnsOf(D)), path: walked(path)[0] };
}

export const begin = (start, task, noise) => stage(start, task, noise, 0, start.theta);

// The next stage, with the episodes that the step learned from.
export function step(start, task, noise, before) {
  const { theta, tried } = STEPS[start.c.inner](start, task, noise, before);
  return { ...stage(start, task, noise, before.k + 1, theta), tried: walked(tried) };
}

const STEPS = {
  // theta - alpha exp(s) g
  pg({ c, net, scale }, task, noise, { k, theta, D }) {
    const g = lossGradient(net, theta, D, weights(c, D));
    const alpha = k === 0 ? c.alpha : c.alpha * c.alpha_decay;
    return { theta: theta.map((x, j) => x - alpha * scale[j] * g[j]), tried: D };
  },
  // Random queries, of which the port keeps the best.
  hc({ c, env, net, scale }, task, noise, { k, theta }) {
    const next = noise(k, true);
    const draw = () => [Array.from(theta, next)];
    const tried = { states: [], mask: [] };
    const query = ([near]) => {
      const D = play(net, env, near, task, 1);
      tried.states.push(...D.states);
      tried.mask.push(...D.mask);
      return returnsOf(D);
    };
    const [found] = INNER.hc(c, [Array.from(theta)], [Array.from(scale)], query, draw);
    return { theta: Float64Array.from(found), tried };
  },
};

// The noise of an adaptation: of step k, for episodes or for queries.
export const seeded = ({ c, env }, seed) => (k, ofQueries = false) =>
  ofQueries ? normals(seed, k, 1) : noiseOf(c.episodes, env.horizon, seed, k, 0);

// The positions of each episode, from the start to its end.
const walked = ({ states, mask }) =>
  states.map((row, k) => [[0, 0], ...row.filter((_, t) => mask[k][t])]);

// --------------------------------------------------------------------------------- meta-gradients

// For the loss of one task after one step: the gradient before the step (`inner`), and by theta
// before it that of the loss after it, with (`second`) and without (`first`) second order.
// z[0] and z[1] are the noise of the episodes before and after.
export function metaGradients({ c, env, net, theta, scale }, task, z) {
  const D = play(net, env, theta, task, c.episodes, z[0]);
  const w = weights(c, D);
  const inner = lossGradient(net, theta, D, w);
  const after = theta.map((x, j) => x - c.alpha * scale[j] * inner[j]);
  const D_prime = play(net, env, after, task, c.episodes, z[1]);
  const first = lossGradient(net, after, D_prime, weights(c, D_prime));
  // theta' = theta - alpha g(theta): first order takes g for a constant, second order subtracts its
  // derivative along u, the difference of two gradients on the same episodes.
  const u = first.map((x, j) => c.alpha * scale[j] * x);
  const h = 1e-4 / (norm(u) || 1); // u is 0 where all episodes after the step are alike
  const at = (sign) => lossGradient(net, theta.map((x, j) => x + sign * h * u[j]), D, w);
  const [plus, minus] = [at(1), at(-1)];
  const second = first.map((x, j) => x - (plus[j] - minus[j]) / (2 * h));
  return { inner, first, second };
}

const PAIRS = 2; // of an evolution strategy

// The same gradient from returns after adaptation alone, of pairs theta + sigma z and theta -
// sigma z. With K / 4 episodes before the step and as many after it, two pairs take 2 K episodes in
// all, as `metaGradients` does. `free` says which parameters z moves.
export function evolved({ c, env, net, theta, scale }, task, free, sigma, ...address) {
  const K = c.episodes / (2 * PAIRS);
  const g = new Float64Array(theta.length);
  range(PAIRS).forEach((i) => {
    const next = normals(...address, i, 0);
    const z = theta.map((_, j) => (free(j) ? next() : 0));
    const noise = [1, 2].map((part) => noiseOf(K, env.horizon, ...address, i, part));
    const value = (sign) => {
      const member = theta.map((x, j) => x + sign * sigma * z[j]);
      const D = play(net, env, member, task, K, noise[0]);
      const slope = lossGradient(net, member, D, weights(c, D));
      const after = member.map((x, j) => x - c.alpha * scale[j] * slope[j]);
      return mean(returnsOf(play(net, env, after, task, K, noise[1])));
    };
    const rise = (value(1) - value(-1)) / (2 * sigma * PAIRS);
    z.forEach((a, j) => (g[j] -= rise * a));
  });
  return g;
}

// The next two pause after each estimate.

const REFERENCES = 32;
const ESTIMATES = 12;
const SIGMA = 0.1; // of the evolution strategy

// Estimates of second order with all episodes of the start, 40: others are held against their mean.
export function* references({ c, ...start }, task, { alpha, seed }) {
  const rows = [];
  for (let i = 0; i < REFERENCES; i++) {
    const z = [0, 1].map((part) => noiseOf(c.episodes, start.env.horizon, seed, 2, i, part));
    rows.push(Array.from(metaGradients({ ...start, c: { ...c, alpha } }, task, z).second));
    yield;
  }
  return rows;
}

// Rows of estimates of each kind, from K episodes before the step and K after it.
export function* estimates({ c, ...start }, task, { K, alpha, seed }) {
  const { env, net } = start;
  const one = { ...start, c: { ...c, alpha, episodes: K } };
  const isBias = (j) => j === net.biases || j === net.biases + 1;
  const rows = [];
  for (let i = 0; i < ESTIMATES; i++) {
    const z = [0, 1].map((part) => noiseOf(K, env.horizon, seed, 3, i, part));
    const all = evolved(one, task, () => true, SIGMA, seed, 4, i);
    const two = evolved(one, task, isBias, SIGMA, seed, 4, i);
    rows.push({ ...metaGradients(one, task, z), all, two });
    yield;
  }
  return rows;
}
