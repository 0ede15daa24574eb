// CMA-ES (stage 5): Hansen, arXiv 1604.00772v2, whose equations the numbers name.

import { compare, dot, norm, range, total, zip } from "./arrays.mjs";
import { applied, eigen, identity, ofEigenvalues, outer, scaledColumns } from "./matrices.mjs";
import { fromBounds, shortened } from "./points.mjs";

// (sum w)^2 / sum w^2                                                                        (8)
const effective = (w) => total(w) ** 2 / dot(w, w);

// The constants, all functions of n and popsize; larger rates for `diagonal`.
function constantsOf(n, lambda, diagonal) {
  const mu = Math.floor(lambda / 2);
  const raw = range(lambda).map((i) => Math.log((lambda + 1) / 2) - Math.log(i + 1)); //      (49)
  const mu_eff = effective(raw.slice(0, mu));
  const mu_minus = effective(raw.slice(mu));
  const larger = diagonal ? (n + 2) / 3 : 1;
  const c_1 = (larger * 2) / ((n + 1.3) ** 2 + mu_eff); //                                    (57)
  const most = (2 * (1 / 4 + mu_eff + 1 / mu_eff - 2)) / ((n + 2) ** 2 + mu_eff);
  const c_mu = Math.min(1 - c_1, larger * most); //                                           (58)
  const alpha = Math.min( //                                                               (50-52)
    1 + c_1 / c_mu,
    1 + (2 * mu_minus) / (mu_eff + 2),
    (1 - c_1 - c_mu) / (n * c_mu),
  );
  const positive = total(raw.filter((x) => x > 0));
  const negative = -total(raw.filter((x) => x < 0));
  const w = raw.map((x) => (x >= 0 ? x / positive : (alpha * x) / negative)); //              (53)
  const c_sigma = (mu_eff + 2) / (n + mu_eff + 5); //                                         (55)
  const beyond = Math.sqrt((mu_eff - 1) / (n + 1)) - 1;
  const d_sigma = 1 + 2 * Math.max(0, beyond) + c_sigma; //                                   (55)
  const c_c = (4 + mu_eff / n) / (n + 4 + (2 * mu_eff) / n); //                               (56)
  const chi_n = Math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n));
  const gap = Math.ceil(1 / (10 * n * (c_1 + c_mu)));
  return { mu, w, mu_eff, c_1, c_mu, c_sigma, d_sigma, c_c, chi_n, gap };
}

// C is a matrix B D^2 B^T, or its diagonal. What differs between the two:
const FULL = {
  first: (n) => ({ C: identity(n), D: Array(n).fill(1), B: identity(n) }),
  root: ({ D, B }, z) => applied(scaledColumns(B, D), z), // B D z
  inverseRoot: ({ D, B }) => ofEigenvalues((d) => 1 / d, { values: D, vectors: B }),
  whitened: (state, y) => applied(FULL.inverseRoot(state), y), // B D^-1 B^T y
  square: (y) => outer(y, y).flat(),
  flat: (C) => C.flat(),
  shaped: (data, n) => range(n).map((i) => data.slice(i * n, (i + 1) * n)),
  decomposed(C) {
    const { values, vectors } = eigen(C);
    return { D: floored(values).map(Math.sqrt), B: vectors };
  },
};

const DIAGONAL = {
  first: (n) => ({ C: Array(n).fill(1), D: Array(n).fill(1) }),
  root: ({ D }, z) => zip((d, a) => d * a, D, z),
  inverseRoot: ({ D }) => D.map((d) => 1 / d),
  whitened: ({ D }, y) => zip((d, a) => a / d, D, y),
  square: (y) => y.map((a) => a * a),
  flat: (C) => C,
  shaped: (data) => data,
  decomposed: (C) => ({ D: floored(C).map(Math.sqrt) }),
};

// D^2, at least 1e-20 of its largest.
function floored(values) {
  const least = 1e-20 * Math.max(...values);
  return values.map((x) => Math.max(x, least));
}

export function cmaEs({ x0, sigma0, popsize, diagonal = false }) {
  const n = x0.length;
  const constants = constantsOf(n, popsize, diagonal);
  const form = diagonal ? DIAGONAL : FULL;
  const zeros = x0.map(() => 0);
  return {
    constants,
    first: { mean: x0, sigma: sigma0, p_sigma: zeros, p_c: zeros, ...form.first(n) },
    ask(state, z) {
      const { mean, sigma } = state;
      return z.map((row) => zip((m, a) => m + sigma * a, mean, form.root(state, row)));
    },
    tell: (state, x, f, generation) => tell(form, constants, state, x, f, generation),
    inverseRoot: form.inverseRoot,
  };
}

// A negative weight as if the point were at the distance sqrt(n). One at the mean adds nothing.
function rescaled(w, square, n) {
  if (w >= 0 || square === 0) return w;
  return (w * n) / square;
}

function tell(form, constants, state, x, f, t) {
  const { mu, mu_eff, c_1, c_mu, c_sigma, d_sigma, c_c, chi_n, gap } = constants;
  const n = state.mean.length;
  const w = constants.w.map((a) => (a < 0 && fromBounds(x) ? 0 : a));

  // The best first, ties in the order of sampling (sort is stable; f may be infinite).
  const order = range(f.length).sort((i, j) => compare(f[i], f[j]));
  const points = order.map((i) => {
    const y = zip((a, m) => (a - m) / state.sigma, x[i], state.mean);
    const { step: z, factor } = shortened(form.whitened(state, y));
    return { y: y.map((a) => a * factor), z };
  });
  const best = (name) => zip((...column) => dot(w.slice(0, mu), column),
    ...points.slice(0, mu).map((point) => point[name]));
  const y_w = best("y");
  const z_w = best("z");

  const mean = zip((m, y) => m + state.sigma * y, state.mean, y_w); //                        (42)
  const speed = Math.sqrt(c_sigma * (2 - c_sigma) * mu_eff);
  const p_sigma = zip((p, z) => (1 - c_sigma) * p + speed * z, state.p_sigma, z_w); //        (43)
  const excess = norm(p_sigma) / chi_n - 1;
  const sigma = state.sigma * Math.exp((c_sigma / d_sigma) * excess); //                      (44)

  const expected = Math.sqrt(1 - (1 - c_sigma) ** (2 * t));
  const h = Number(norm(p_sigma) / expected < (1.4 + 2 / (n + 1)) * chi_n);
  const pace = h * Math.sqrt(c_c * (2 - c_c) * mu_eff);
  const p_c = zip((p, y) => (1 - c_c) * p + pace * y, state.p_c, y_w); //                     (45)

  const w_o = zip((a, { z }) => rescaled(a, dot(z, z), n), w, points); //                     (46)
  const keep = 1 + c_1 * (1 - h) * c_c * (2 - c_c) - c_1 - c_mu * total(w);
  const rank_one = form.square(p_c);
  const rank_mu = zip((...column) => dot(w_o, column), ...points.map(({ y }) => form.square(y)));
  const data = zip((old, one, many) => keep * old + c_1 * one + c_mu * many,
    form.flat(state.C), rank_one, rank_mu); //                                                (47)
  const C = form.shaped(data, n);

  const after = { ...state, mean, sigma, p_sigma, p_c, C };
  return t % gap === 0 ? { ...after, ...form.decomposed(C) } : after;
}
