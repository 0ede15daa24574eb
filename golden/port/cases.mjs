// The functions that cases name: inputs -> fields. Each puts together what a stage has.

import { fieldsOf, mean, range, shapeOf, total, zip } from "./arrays.mjs";
import { add, grad, multiply, raised, stop, subtract, tanh, tensor } from "./autodiff.mjs";
import { judgeMembers } from "./black_boxes.mjs";
import { advantages, returnsOf, rollout, takeEpisodes } from "./episodes.mjs";
import { makeFamily, sampleTasks } from "./families.mjs";
import { withNoise } from "./noise.mjs";
import { average, log_softmax, matmul, OPERATIONS, sum } from "./operations.mjs";
import { Policy } from "./policies.mjs";
import { iteration, run } from "./runs.mjs";
import { adapt, compare, fisherProduct, metaGradient } from "./steps.mjs";
import { makeStrategy, runStrategy } from "./strategies.mjs";

// {name0: the first, name1: the second, ...}
function numbered(name, list) {
  return Object.fromEntries(list.map((x, j) => [`${name}${j}`, x]));
}

const named = (names, list) => Object.fromEntries(zip((name, x) => [name, x], names, list));

// The sum of all elements of gradients times directions.
const along = (gradients, directions) =>
  zip((g, v) => sum(multiply(g, v)), gradients, directions).reduce(add);

// -------------------------------------------------------------------------------------- stage 1

function operation({ op, args, options, w, v }) {
  const xs = args.map(tensor);
  const value = OPERATIONS[op](xs, options);
  const vjps = grad(value, xs, w);
  const seconds = grad(along(vjps, v), xs);
  return { value, ...numbered("vjp", vjps), ...numbered("second", seconds) };
}

function network({ x, y, v, ...parameters }) {
  const names = ["W1", "b1", "W2", "b2"];
  const weights = names.map((name) => tensor(parameters[name]));
  const [W1, b1, W2, b2] = weights;
  const z = add(matmul(tensor(x), W1), b1);
  const h = tanh(z);
  const out = add(matmul(h, W2), b2);
  const loss = average(raised(subtract(out, y), 2));
  const adjoints = grad(loss, [...weights, z, h, out]);
  const hvps = grad(along(adjoints.slice(0, 4), names.map((name) => v[name])), weights);
  const adjointNames = [...names, "z", "h", "out"].map((name) => `adjoint_${name}`);
  const hvpNames = names.map((name) => `hvp_${name}`);
  return { z, h, out, loss, ...named(adjointNames, adjoints), ...named(hvpNames, hvps) };
}

function orders({ x: number }) {
  const x = tensor(number);
  const values = [multiply(x, tanh(x))];
  while (values.length < 5) values.push(...grad(values.at(-1), [x]));
  return numbered("order", values);
}

function unused(inputs) {
  const x = tensor(inputs.x);
  const y = tensor(inputs.y);
  const [by_x, by_y] = grad(sum(multiply(x, x)), [x, y]);
  const [stopped] = grad(sum(multiply(x, stop(x))), [x]);
  return { by_x, by_y, stopped };
}

// -------------------------------------------------------------------------------------- stage 2

function episodes({ family, options, tasks, actions, noise, X }) {
  const env = makeFamily(family, options, X);
  const K = actions[0].length;
  const act = (_, t) => actions.map((task) => task.map((episode) => episode[t]));
  const D = withNoise(noise, (draw) => takeEpisodes(env, tasks, K, act, draw));
  return {
    ...fieldsOf(["obs", "states", "raw_rewards", "done", "mask", "rewards"], D),
    returns: D.map((one) => mean(returnsOf(one))),
    optimal_return: tasks.map(env.optimalReturn),
  };
}

function tasks({ family, options, n, split, noise }) {
  return { tasks: withNoise(noise, (draw) => sampleTasks(family, options, n, split, draw)) };
}

// -------------------------------------------------------------------------------------- stage 3

function policy({ network: description, theta, other, obs, w, noise }) {
  const pi = new Policy(description);
  const shared = !Array.isArray(theta[0]); // one theta for all rows
  const rows = (array) => obs.map((_, i) => tensor(shared ? array : array[i]));
  const thetas = rows(theta);
  const draws = withNoise(noise, (draw) => draw(pi.draws, [...shapeOf(w), ...pi.drawn]));
  const actions = zip((row, o, z) => pi.sample(row, o, z), thetas, obs, draws);
  const logs = zip((row, o, a) => pi.logProb(row, o, a), thetas, obs, actions);
  const gradients = zip((l, row, weight) => grad(l, [row], weight)[0].data, logs, thetas, w);
  const divergences = zip((row, q, o) => pi.divergence(row, q, o), thetas, rows(other), obs);
  const all = (row, o) => log_softmax(pi.output(row, o).out).value;
  const layerNames = range(pi.layers).flatMap((i) => [`W${i}`, `b${i}`]);
  const names = pi.discrete ? layerNames : [...layerNames, "log_std"];
  return {
    ...named(names, pi.parts(thetas[0])),
    actions,
    mode: zip((row, o) => pi.mode(row, o), thetas, obs),
    log_prob: logs.map((l) => l.value),
    ...(pi.discrete ? { log_probs: zip(all, thetas, obs) } : {}),
    gradient: shared ? zip((...column) => total(column), ...gradients) : gradients,
    kl: divergences.map((kl) => kl.value),
  };
}

function init({ network: description, noise }) {
  const pi = new Policy(description);
  return { theta: withNoise(noise, (draw) => pi.initial(description.std, draw)) };
}

function rolloutCase({ network: description, theta, family, options, tasks: given, K, noise, X }) {
  const env = makeFamily(family, options, X);
  const pi = new Policy(description);
  const D = withNoise(noise, (draw) => rollout(pi, env, theta.map(tensor), given, K, draw));
  return fieldsOf(["obs", "actions", "rewards", "mask"], D);
}

function advantagesCase({ obs, rewards, mask, ...options }) {
  const one = (o, r, m) => advantages({ obs: o, rewards: r, mask: m }, options);
  return fieldsOf(["returns_to_go", "baseline", "raw", "A"], zip(one, obs, rewards, mask));
}

// -------------------------------------------------------------------------------------- stage 4

function metaGradientCase({ c, x, tasks: given, noise }) {
  const paths = adapt(c, x, given, noise, 0);
  const fields = {};
  paths[0].memories.forEach((_, k) => {
    for (const name of ["obs", "actions", "rewards", "mask", "A"]) {
      fields[`${name}${k}`] = paths.map((path) => path.memories[k][name]);
    }
  });
  paths[0].gradients.forEach((_, k) => {
    fields[`g${k}`] = paths.map((path) => path.gradients[k].data);
    fields[`theta${k + 1}`] = paths.map((path) => path.thetas[k + 1].data);
  });
  if (c.algo !== "reptile") fields.meta_gradient = paths.map(metaGradient);
  return fields;
}

function trustRegion({ c, x, tasks: given, noise, v, new: other }) {
  const paths = adapt(c, x, given, noise, 0);
  return {
    fisher_product: paths.map((path) => fisherProduct(path, v)),
    ...fieldsOf(["kl", "gain"], paths.map((path) => compare(path, other))),
  };
}

function fitness({ c, x, tasks: given, noise }) {
  const values = judgeMembers(c, x, given, noise, 0).map((member) => member.values);
  return { values: zip((...column) => column, ...values) };
}

// ------------------------------------------------------------------------------- stages 5 and 6

function strategy({ method, options, state, x, f, noise }) {
  const made = makeStrategy(method, options);
  const draws = noise.map((one) => withNoise([one], (draw) => draw("standard_normal")));
  const begin = { t: 0, best_x: options.x0, best_f: Infinity, ...made.first, ...state };
  const generations = runStrategy(made, begin, { x, f, noise: draws });
  const { history, ...fields } = fieldsOf(Object.keys(generations[0]), generations);
  const inverse = made.inverseRoot ? { inverse_root: generations.map(made.inverseRoot) } : {};
  return {
    ...made.constants,
    ...fields,
    ...inverse,
    history: zip((...row) => row, ...history),
  };
}

function runCase({ c, noise, iterations }) {
  const states = run(c, noise, iterations);
  return fieldsOf(Object.keys(states[0]), states);
}

export const FUNCTIONS = {
  operation,
  network,
  orders,
  unused,
  episodes,
  tasks,
  policy,
  init,
  rollout: rolloutCase,
  advantages: advantagesCase,
  meta_gradient: metaGradientCase,
  trust_region: trustRegion,
  fitness,
  iteration: ({ c, state, noise }) => iteration(c, state, noise),
  strategy,
  run: runCase,
};
