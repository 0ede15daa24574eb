// Evolution strategies (stage 5): OpenAI-ES, SNES and xNES; cma.mjs has CMA-ES. All minimise.
// A strategy is {constants, first, drawn, ask(state, z), tell(state, x, f, generation)}: `first` is
// the state before generation 1, z a draw of the shape `drawn`, x (popsize, n) and f (popsize,)
// what is told. `ask` gives points, `tell` the state after.

import { adam } from "./adam.mjs";
import { compare, deviation, dot, mean, range, shapeOf, total, zip } from "./arrays.mjs";
import { cmaEs } from "./cma.mjs";
import { applied, eigen, identity, ofEigenvalues, outer, solve, times } from "./matrices.mjs";
import { fromBounds, shortened } from "./points.mjs";
import { check } from "./refuse.mjs";

// mean + step, for each step.
const around = (mean, steps) => steps.map((step) => zip((m, s) => m + s, mean, step));

// sum of weights[i] rows[i]
const weighted = (weights, rows) => zip((...column) => dot(weights, column), ...rows);

// ------------------------------------------------------------------------- fitness shaping

// u by rank, smallest f first; each of equal f gets the mean of u over the ranks they take up.
function byRank(u, f) {
  return f.map((value) => {
    const first = f.filter((other) => other < value).length;
    const equal = f.filter((other) => other === value).length;
    return mean(u.slice(first, first + equal));
  });
}

function centred(values) {
  const m = mean(values);
  return values.map((x) => x - m);
}

// Infinite values become the largest or smallest finite one.
function finite(f) {
  const values = f.filter(Number.isFinite);
  if (values.length === 0) return f.map(() => 0);
  const low = Math.min(...values);
  const high = Math.max(...values);
  return f.map((x) => Math.min(Math.max(x, low), high));
}

const SHAPINGS = {
  ranks: (f) => centred(byRank(range(f.length).map((k) => k / (f.length - 1)), f)),
  raw: (f) => centred(finite(f)),
  standardised(f) {
    const d = deviation(finite(f)); // infinite where all are equal
    return centred(finite(f)).map((x) => x / d);
  },
};

// ------------------------------------------------------------------------------- OpenAI-ES

// Salimans et al. 2017. Rows i and i + popsize/2 are a pair: mean + sigma z and mean - sigma z.
function openaiEs({ x0, sigma0, popsize, ...options }) {
  check(popsize % 2 === 0, "an odd population of pairs");
  const { fitness = "ranks", optimizer = "sgd", weight_decay = 0 } = options;
  const { lr = sigma0 ** 2 } = options;
  check(Object.hasOwn(SHAPINGS, fitness), `no fitness ${fitness}`);
  check(optimizer === "sgd" || optimizer === "adam", `no optimizer ${optimizer}`);
  check(lr > 0 && Number.isFinite(lr), "lr is not positive");
  check(Number.isFinite(weight_decay), "weight_decay is not a number");
  const zeros = x0.map(() => 0);
  return {
    constants: { lr },
    first: { mean: x0, sigma: sigma0, m: zeros, v: zeros },
    drawn: [popsize / 2, x0.length],
    ask({ mean, sigma }, z) {
      const steps = z.map((row) => row.map((a) => sigma * a));
      const opposite = steps.map((row) => row.map((a) => -a));
      return around(mean, [...steps, ...opposite]);
    },
    tell({ mean, sigma, m, v }, x, f, generation) {
      const z = x.map((row) => shortened(zip((a, b) => (a - b) / sigma, row, mean)).step);
      const slope = weighted(SHAPINGS[fitness](f), z).map((a) => a / (popsize * sigma));
      const g = zip((a, b) => a + weight_decay * b, slope, mean);
      let after = { m, v, direction: g };
      if (optimizer === "adam") after = adam(g, { m, v }, generation);
      const moved = zip((a, d) => a - lr * d, mean, after.direction);
      return { mean: moved, sigma, m: after.m, v: after.v };
    },
  };
}

// ------------------------------------------------------------------------------- SNES and xNES

// u_k = max(0, log(popsize / 2 + 1) - log k), k = 1, ..., over their sum.
function utilities(popsize) {
  const atRank = (k) => Math.max(0, Math.log(popsize / 2 + 1) - Math.log(k));
  const positive = range(popsize).map((i) => atRank(i + 1));
  return positive.map((u) => u / total(positive));
}

function shaped(u, x, f) {
  const U = byRank(u, f);
  return fromBounds(x) ? U : centred(U);
}

// Wierstra et al. 2014. A deviation for each coordinate.
function snes({ x0, sigma0, popsize }) {
  const n = x0.length;
  const u = utilities(popsize);
  const eta_sigma = (3 + Math.log(n)) / (5 * Math.sqrt(n));
  return {
    constants: { u, eta_sigma },
    first: { mean: x0, sigma: x0.map(() => sigma0) },
    ask({ mean, sigma }, z) {
      return around(mean, z.map((row) => zip((s, a) => s * a, sigma, row)));
    },
    tell({ mean, sigma }, x, f) {
      const s = x.map((row) => shortened(zip((a, m, b) => (a - m) / b, row, mean, sigma)).step);
      const U = shaped(u, x, f);
      const gradMean = weighted(U, s);
      const gradSigma = weighted(U, s.map((row) => row.map((a) => a * a - 1)));
      return {
        mean: zip((m, b, g) => m + b * g, mean, sigma, gradMean),
        sigma: zip((b, g) => b * Math.exp((eta_sigma / 2) * g), sigma, gradSigma),
      };
    },
  };
}

// A scalar sigma and a matrix B of determinant 1.
function xnes({ x0, sigma0, popsize }) {
  const n = x0.length;
  const u = utilities(popsize);
  const eta_sigma = (9 + 3 * Math.log(n)) / (5 * n * Math.sqrt(n));
  const eta_B = eta_sigma;
  return {
    constants: { u, eta_sigma, eta_B },
    first: { mean: x0, sigma: sigma0, B: identity(n) },
    ask({ mean, sigma, B }, z) {
      return around(mean, z.map((row) => applied(B, row).map((a) => sigma * a)));
    },
    tell({ mean, sigma, B }, x, f) {
      const y = x.map((row) => zip((a, m) => (a - m) / sigma, row, mean));
      const s = y.map((row) => shortened(solve(B, row)).step);
      const U = shaped(u, x, f);
      const squares = s.map((row) => outer(row, row)).map((square) => plusIdentity(square, -1));
      const M = range(n).map((i) => weighted(U, squares.map((square) => square[i])));
      const tau = total(M.map((row, i) => row[i])) / n;
      const shape = plusIdentity(M, -tau);
      const half = shape.map((row) => row.map((a) => (eta_B / 2) * a));
      const move = applied(B, weighted(U, s));
      return {
        mean: zip((m, a) => m + sigma * a, mean, move),
        sigma: sigma * Math.exp((eta_sigma / 2) * tau),
        B: times(B, ofEigenvalues(Math.exp, eigen(half))),
      };
    },
  };
}

const plusIdentity = (A, number) =>
  A.map((row, i) => row.map((a, j) => (i === j ? a + number : a)));

// ------------------------------------------------------------------------------ any strategy

const STRATEGIES = { "openai-es": openaiEs, snes, xnes, "cma-es": cmaEs };

export function makeStrategy(method, options) {
  const { x0, sigma0, popsize } = options;
  check(x0.length >= 1, "no dimensions");
  check(x0.every(Number.isFinite), "x0 is not finite");
  check(sigma0 > 0 && Number.isFinite(sigma0), "sigma0 is not positive");
  check(Number.isInteger(popsize) && popsize >= 2, "a population below 2");
  check(Object.hasOwn(STRATEGIES, method), `no method ${method}`);
  const strategy = STRATEGIES[method](options);
  const tell = (state, x, f, generation) => {
    check(shapeOf(x).join() === [popsize, x0.length].join(), "x of the wrong shape");
    check(f.length === popsize, "f of the wrong shape");
    check(x.flat().every(Number.isFinite), "x is not finite");
    check(!f.every(Number.isNaN), "f is NaN at every point");
    return strategy.tell(state, x, f.map(nanLast), generation);
  };
  return { drawn: [popsize, x0.length], ...strategy, tell };
}

const nanLast = (x) => (Number.isNaN(x) ? Infinity : x);

// In each generation ask, from the noise, then tell what is given. `begin` is a state together with
// t, the generations told before, and the best point of these. Gives the state after each.
export function runStrategy(strategy, begin, { x, f, noise }) {
  let { t, best_x, best_f, ...state } = begin;
  const generations = [];
  for (const g of range(x.length)) {
    const asked = strategy.ask(state, noise[g]);
    t += 1;
    state = strategy.tell(state, x[g], f[g], t);
    const values = f[g].map(nanLast);
    values.forEach((value, i) => {
      if (value >= best_f) return;
      best_x = x[g][i];
      best_f = value;
    });
    const sorted = [...values].sort(compare);
    const history = [sorted[0], sorted[sorted.length >> 1], sorted.at(-1)];
    generations.push({ asked, ...state, best_x, best_f, history });
  }
  return generations;
}
