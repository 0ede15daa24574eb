// Policies (stage 3): a multilayer perceptron whose parameters are slices of one flat vector. It is
// written for one task; loops run over tasks.

import { flat, nested, product, range, total, zip } from "./arrays.mjs";
import { add, divide, exp, multiply, negative, raised, relu, subtract } from "./autodiff.mjs";
import { take, tanh, tensor } from "./autodiff.mjs";
import { log_softmax, matmul, sum, takeAlongAxis } from "./operations.mjs";
import { check } from "./refuse.mjs";

const ACTIVATIONS = { tanh, relu };

export class Policy {
  constructor({ obs_dim, action_dim, discrete, hidden, activation }) {
    const widths = [obs_dim, ...hidden, action_dim];
    this.layers = widths.length - 1;
    this.shapes = []; // W and b of each layer, from the input, then log_std
    for (let i = 0; i < this.layers; i++) {
      this.shapes.push([widths[i], widths[i + 1]]); // inputs x outputs
      this.shapes.push([widths[i + 1]]);
    }
    if (!discrete) this.shapes.push([action_dim]);
    this.size = total(this.shapes.map(product));
    this.action_dim = action_dim;
    this.discrete = discrete;
    this.activate = ACTIVATIONS[activation];
    this.draws = discrete ? "random" : "standard_normal"; // of the shape `drawn` for an action
    this.drawn = discrete ? [] : [action_dim];
  }

  // Tensors of these shapes, taken out of theta one after the other.
  parts(theta) {
    const given = theta.data.length;
    check(given === this.size, `theta has ${given} numbers, the network ${this.size}`);
    let start = 0;
    return this.shapes.map((shape) => {
      const first = start;
      start += product(shape);
      return take(theta, range(product(shape)).map((i) => first + i), shape);
    });
  }

  // Means or logits (..., action_dim) for obs (..., obs_dim), and log_std.
  output(theta, obs) {
    const parts = this.parts(theta);
    let out = tensor(obs);
    for (let i = 0; i < this.layers; i++) {
      if (i > 0) out = this.activate(out);
      const W = parts[2 * i];
      const b = parts[2 * i + 1];
      out = add(matmul(out, W), b);
    }
    return { out, logStd: this.discrete ? null : parts.at(-1) };
  }

  // Actions for obs (K, obs_dim), from noise (K, action_dim), or (K,) if discrete.
  sample(theta, obs, noise) {
    const { out, logStd } = this.output(theta, obs);
    if (!this.discrete) return add(out, multiply(exp(logStd), noise)).value;
    // The number of cumulative probabilities, all but the last, that u has reached.
    const action = (p, u) => {
      const reached = (a) => total(p.slice(0, a + 1)) <= u;
      return range(p.length - 1).filter(reached).length;
    };
    return zip(action, exp(log_softmax(out)).value, noise);
  }

  // The mean, or the first of the largest logits.
  mode(theta, obs) {
    const { out } = this.output(theta, obs);
    if (!this.discrete) return out.value;
    return out.value.map((logits) => logits.indexOf(Math.max(...logits)));
  }

  // A Gaussian's is summed over the dimensions of the action.
  logProb(theta, obs, actions) {
    const { out, logStd } = this.output(theta, obs);
    if (this.discrete) {
      const column = nested([...out.shape.slice(0, -1), 1], flat(actions));
      return sum(takeAlongAxis(log_softmax(out), column, -1), -1);
    }
    const z = multiply(subtract(actions, out), exp(negative(logStd)));
    const squares = multiply(0.5, sum(multiply(z, z), -1));
    const constant = (this.action_dim * Math.log(2 * Math.PI)) / 2;
    return negative(add(squares, add(sum(logStd), constant)));
  }

  // KL(pi_theta || pi_other) at each observation.
  divergence(theta, other, obs) {
    const p = this.output(theta, obs);
    const q = this.output(other, obs);
    if (this.discrete) {
      const logP = log_softmax(p.out);
      const logQ = log_softmax(q.out);
      return sum(multiply(exp(logP), subtract(logP, logQ)), -1);
    }
    const variance = ({ logStd }) => exp(multiply(2, logStd));
    const distance = raised(subtract(p.out, q.out), 2);
    const ratio = divide(add(variance(p), distance), multiply(2, variance(q)));
    return sum(add(subtract(q.logStd, p.logStd), subtract(ratio, 0.5)), -1);
  }

  // Numbers, from a draw in [-1, 1] for the weights of each layer.
  initial(std, draw) {
    const theta = [];
    for (let i = 0; i < this.layers; i++) {
      const [inputs, outputs] = this.shapes[2 * i];
      const scale = Math.sqrt(6 / (inputs + outputs));
      theta.push(...draw("uniform", [inputs * outputs]).map((u) => u * scale));
      theta.push(...Array(outputs).fill(0));
    }
    if (!this.discrete) theta.push(...Array(this.action_dim).fill(Math.log(std)));
    return theta;
  }
}
