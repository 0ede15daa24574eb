// Inverse distribution functions, for tasks from a prior: normal(0, 1), and Beta(a, b).

import { total } from "./arrays.mjs";

// The x in [low, high] at which an increasing function takes a value, by halving the interval.
function inverted(f, value, low, high) {
  for (;;) {
    const middle = (low + high) / 2;
    if (middle <= low || middle >= high) return middle; // no number lies between
    if (f(middle) < value) low = middle;
    else high = middle;
  }
}

// 1/2 + density(x) (x + x^3 / 3 + x^5 / (3 5) + ...)
function normalDistribution(x) {
  const terms = [x];
  for (let odd = 3; Math.abs(terms.at(-1)) > 1e-18; odd += 2) {
    terms.push((terms.at(-1) * x * x) / odd);
  }
  return 0.5 + (Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI)) * total(terms);
}

export const normalQuantile = (u) => inverted(normalDistribution, u, -9, 9);

// log Gamma(x): Gamma(x) = Gamma(x + 1) / x until x is large, then Stirling's series.
function logGamma(x) {
  if (x < 20) return logGamma(x + 1) - Math.log(x);
  const series = 1 / (12 * x) - 1 / (360 * x ** 3) + 1 / (1260 * x ** 5) - 1 / (1680 * x ** 7);
  return (x - 0.5) * Math.log(x) - x + Math.log(2 * Math.PI) / 2 + series;
}

// x^a (1 - x)^b / (a B(a, b)) (1 + (a+b)/(a+1) x + (a+b)(a+b+1)/((a+1)(a+2)) x^2 + ...), which
// converges fast below the mean; above it the other tail is 1 less that of Beta(b, a).
function betaDistribution(x, a, b) {
  if (x > a / (a + b)) return 1 - betaDistribution(1 - x, b, a);
  if (x === 0) return 0;
  const logBeta = logGamma(a) + logGamma(b) - logGamma(a + b);
  const terms = [1];
  for (let n = 0; terms.at(-1) > 1e-18; n++) {
    terms.push((terms.at(-1) * x * (a + b + n)) / (a + 1 + n));
  }
  const front = Math.exp(a * Math.log(x) + b * Math.log1p(-x) - logBeta) / a;
  return front * total(terms);
}

export const betaQuantile = (u, a, b) => inverted((x) => betaDistribution(x, a, b), u, 0, 1);
