// The policy of the port (policies.mjs) by hand, for speed: all steps of all episodes are rows of
// typed arrays, and the gradient goes back through the layers as golden/README.md says in stage 3.
// A test holds it against the port's autodiff. For Gaussian policies, tanh, and one task, only.

import { range } from "../../golden/port/arrays.mjs";
import { advantages } from "../../golden/port/episodes.mjs";

// ------------------------------------------------------------------------------------- one layer

// A layer is {inputs, outputs, W, b}: where in theta its weights, inputs x outputs, and its biases
// begin. Four products are added at a time: a number is then written once, and not four times.

// y = x W + b for the rows from `first` to `last`.
function affine({ inputs, outputs, W, b }, theta, x, y, first, last) {
  for (let row = first; row < last; row++) {
    const out = y.subarray(row * outputs, (row + 1) * outputs);
    const left = inputs % 4;
    for (let k = 0; k < outputs; k++) {
      out[k] = theta[b + k];
      for (let j = 0; j < left; j++) out[k] += x[row * inputs + j] * theta[W + j * outputs + k];
    }
    for (let j = left; j < inputs; j += 4) {
      const at = row * inputs + j;
      const [x0, x1, x2, x3] = [x[at], x[at + 1], x[at + 2], x[at + 3]];
      const [w0, w1] = [W + j * outputs, W + (j + 1) * outputs];
      const [w2, w3] = [w1 + outputs, w1 + 2 * outputs];
      for (let k = 0; k < outputs; k++) {
        out[k] += x0 * theta[w0 + k] + x1 * theta[w1 + k]
          + x2 * theta[w2 + k] + x3 * theta[w3 + k];
      }
    }
  }
}

// For the adjoint d of x W + b: g gains the adjoints of W and b, and dx becomes that of x.
function affineBack({ inputs, outputs, W, b }, theta, x, d, dx, g) {
  const rows = d.length / outputs;
  for (let i = 0; i < d.length; i++) g[b + (i % outputs)] += d[i];
  for (let row = 0; row < rows; row += 4) {
    const [d0, d1] = [row * outputs, (row + 1) * outputs];
    const [d2, d3] = [d1 + outputs, d1 + 2 * outputs];
    for (let j = 0; j < inputs; j++) {
      const [i0, i1] = [row * inputs + j, (row + 1) * inputs + j];
      const [i2, i3] = [i1 + inputs, i1 + 2 * inputs];
      const [x0, x1, x2, x3] = [x[i0], x[i1], x[i2], x[i3]];
      let [s0, s1, s2, s3] = [0, 0, 0, 0];
      for (let k = 0; k < outputs; k++) {
        const at = W + j * outputs + k;
        const w = theta[at];
        g[at] += x0 * d[d0 + k] + x1 * d[d1 + k] + x2 * d[d2 + k] + x3 * d[d3 + k];
        s0 += w * d[d0 + k];
        s1 += w * d[d1 + k];
        s2 += w * d[d2 + k];
        s3 += w * d[d3 + k];
      }
      [dx[i0], dx[i1], dx[i2], dx[i3]] = [s0, s1, s2, s3];
    }
  }
}

// ------------------------------------------------------------------------------------ all layers

export class Network {
  constructor(policy) {
    let start = 0;
    this.layers = range(policy.layers).map((i) => {
      const [inputs, outputs] = policy.shapes[2 * i];
      const layer = { inputs, outputs, W: start, b: start + inputs * outputs };
      start = layer.b + outputs;
      return layer;
    });
    this.logStd = start;
    this.size = policy.size;
    this.biases = this.layers.at(-1).b; // of the last layer: two numbers
  }

  // Room for so many rows: the observations, then what each layer gives. Rows are filled up to a
  // multiple of four, and these last ones stay 0.
  room(rows) {
    const full = 4 * Math.ceil(rows / 4);
    const widths = [this.layers[0].inputs, ...this.layers.map(({ outputs }) => outputs)];
    return widths.map((width) => new Float64Array(full * width));
  }

  // From values[0], the observations, to values.at(-1), the means of the actions.
  forward(theta, values, first, last) {
    this.layers.forEach((layer, i) => {
      const y = values[i + 1];
      affine(layer, theta, values[i], y, first, last);
      if (i + 1 === this.layers.length) return;
      const end = last * layer.outputs;
      for (let at = first * layer.outputs; at < end; at++) y[at] = Math.tanh(y[at]);
    });
  }

  // g gains the gradient, d being the adjoint of the means.
  backward(theta, values, d, g) {
    for (let i = this.layers.length - 1; i >= 0; i--) {
      const x = values[i];
      const dx = new Float64Array(x.length);
      affineBack(this.layers[i], theta, x, d, dx, g);
      for (let at = 0; at < x.length; at++) dx[at] *= 1 - x[at] * x[at]; // the slope of tanh
      d = dx;
    }
  }
}

// ------------------------------------------------------------------------------- episodes, losses

// K episodes of theta in one task, with the fields (K, H, ...) of the port's `takeEpisodes`, and
// with what `lossGradient` needs. z[t][k] is the noise of a step, two normal numbers; without it
// the mean action is taken.
export function play(net, env, theta, task, K, z = null) {
  const H = env.horizon;
  const values = net.room(H * K); // row t K + k
  const std = [0, 1].map((j) => (z ? Math.exp(theta[net.logStd + j]) : 0));
  const names = ["obs", "actions", "states", "rewards", "mask"];
  const D = Object.fromEntries(names.map((name) => [name, range(K).map(() => [])]));
  const now = range(K).map(() => ({ obs: env.start, mask: true }));
  for (let t = 0; t < H; t++) {
    now.forEach(({ obs }, k) => values[0].set(obs, 2 * (t * K + k)));
    net.forward(theta, values, t * K, (t + 1) * K);
    now.forEach(({ obs, mask }, k) => {
      const mean = (j) => values.at(-1)[2 * (t * K + k) + j];
      const action = [0, 1].map((j) => mean(j) + (z ? std[j] * z[t][k][j] : 0));
      const { state, reward, done } = env.step(task, obs, action, null);
      D.obs[k].push(obs);
      D.actions[k].push(action);
      D.states[k].push(state);
      D.rewards[k].push(mask ? reward : 0);
      D.mask[k].push(mask);
      now[k] = { obs: state, mask: mask && !done };
    });
  }
  return { ...D, values, theta };
}

// The weights of the loss, w = A / (K H).
export function weights(c, D) {
  const { A } = advantages(D, c);
  const n = A.length * A[0].length;
  return A.map((row) => row.map((a) => a / n));
}

// By theta, of the loss -sum w ratio, in which `ratio` is the probability of an action by theta
// over that by the parameters that took it: the estimator lvc. Where both are the same parameters,
// it is the gradient of all estimators.
export function lossGradient(net, theta, D, w) {
  const K = D.obs.length;
  const rows = K * D.obs[0].length;
  let { values } = D;
  if (theta !== D.theta) {
    values = [D.values[0], ...net.room(rows).slice(1)];
    net.forward(theta, values, 0, rows);
  }
  const g = new Float64Array(net.size);
  const d = new Float64Array(values.at(-1).length);
  D.actions.forEach((episode, k) => episode.forEach((action, t) => {
    if (!D.mask[k][t]) return;
    const at = 2 * (t * K + k);
    const here = logProb(net, theta, values, at, action);
    const before = logProb(net, D.theta, D.values, at, action);
    const weight = -w[k][t] * Math.exp(here.log - before.log);
    here.z.forEach((z, j) => {
      d[at + j] = weight * z * Math.exp(-theta[net.logStd + j]);
      g[net.logStd + j] += weight * (z * z - 1);
    });
  }));
  net.backward(theta, values, d, g);
  return g;
}

// Up to a constant, with the noise z that leads to the action.
function logProb(net, theta, values, at, action) {
  const logStd = [theta[net.logStd], theta[net.logStd + 1]];
  const z = logStd.map((s, j) => (action[j] - values.at(-1)[at + j]) * Math.exp(-s));
  return { z, log: -(z[0] ** 2 + z[1] ** 2) / 2 - logStd[0] - logStd[1] };
}
