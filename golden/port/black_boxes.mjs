// Black boxes (stage 4): a member of a population is judged by its return after adaptation without
// gradients. All members on a task share its noise, so each takes the draws from the beginning.

import { deviation, mean, total, zip } from "./arrays.mjs";
import { tensor } from "./autodiff.mjs";
import { returnsOf, rollout, stepsOf } from "./episodes.mjs";
import { sampleTasks } from "./families.mjs";
import { withNoise } from "./noise.mjs";
import { check } from "./refuse.mjs";
import { problemOf } from "./steps.mjs";
import { makeStrategy } from "./strategies.mjs";

// One inner step, from theta of each task (T, P). query(thetas) gives the return of one episode of
// each; `scale` is exp(s).

// theta becomes what is better than all before.
function hillClimbing(c, theta, scale, query, draw) {
  let best = query(theta);
  for (let i = 1; i < c.episodes; i++) {
    const z = draw("standard_normal", [theta.length, theta[0].length]);
    const near = moved(theta, z, scale, c.inner_sigma);
    const found = query(near);
    theta = theta.map((row, task) => (found[task] > best[task] ? near[task] : row));
    best = zip((a, b) => Math.max(a, b), best, found);
  }
  return theta;
}

// theta moves along the noise by the difference of the returns on both sides.
function evolution(c, theta, scale, query, draw) {
  const pairs = [];
  for (let i = 0; i < Math.floor(c.episodes / 2); i++) {
    const z = draw("standard_normal", [theta.length, theta[0].length]);
    const plus = query(moved(theta, z, scale, c.inner_sigma));
    const minus = query(moved(theta, z, scale, -c.inner_sigma));
    pairs.push({ z, plus, minus });
  }
  return theta.map((row, task) => {
    const returns = pairs.flatMap(({ plus, minus }) => [plus[task], minus[task]]);
    const unit = returns.length * deviation(returns); // infinite, so no step, if all are equal
    return row.map((x, j) => {
      const g = total(pairs.map(({ z, plus, minus }) => (plus[task] - minus[task]) * z[task][j]));
      return x + (c.alpha * scale[task][j] * g) / unit;
    });
  });
}

export const INNER = { hc: hillClimbing, es: evolution };

// theta + size exp(s) z
function moved(theta, z, scale, size) {
  const row = (xs, zs, factors) => zip((x, a, e) => x + size * e * a, xs, zs, factors);
  return zip(row, theta, z, scale);
}

// One member on each task, x (T, P or 2P): its values (T,), the returns of the first episodes that
// it took (T,), and how many steps it took in all.
function judgeMember(c, x, tasks, noise, t) {
  const { env, policy } = problemOf(c);
  const P = policy.size;
  check(x.every((row) => row.length === (c.learn_alpha ? 2 * P : P)), "x of the wrong length");
  let theta = x.map((row) => row.slice(0, P));
  const ones = Array(P).fill(1);
  const scale = x.map((row) => (c.learn_alpha ? row.slice(P).map(Math.exp) : ones));
  let first = null;
  let steps = 0;
  const play = (thetas, K, draw) => {
    const D = rollout(policy, env, thetas.map(tensor), tasks, K, draw, c.deterministic);
    steps += total(D.map(stepsOf));
    const returns = D.map((episodes) => mean(returnsOf(episodes)));
    first ??= returns;
    return returns;
  };
  for (let k = 0; k < c.inner_steps; k++) {
    theta = withNoise(noise[`${t}/episodes/${k}`], (draw) =>
      INNER[c.inner](c, theta, scale, (thetas) => play(thetas, 1, draw), draw));
  }
  const K = c.deterministic ? 1 : c.episodes;
  const last = noise[`${t}/episodes/${c.inner_steps}`];
  const values = withNoise(last, (draw) => play(theta, K, draw));
  return { values, first, steps };
}

// x (T, n, P or 2P): of each of n members, one row for each task. Values (n, T).
export function judgeMembers(c, x, tasks, noise, t) {
  return x[0].map((_, j) => judgeMember(c, x.map((members) => members[j]), tasks, noise, t));
}

// ------------------------------------------------------------------------------ outer loops

export const BLACK_BOXES = ["es-maml", "nes", "cma-es"];

export function strategyOf(c, x0) {
  const options = { x0, sigma0: c.sigma, popsize: c.population };
  if (c.algo === "cma-es") return makeStrategy("cma-es", options);
  if (c.algo === "nes") return makeStrategy(c.nes, options);
  const paired = { lr: c.beta, fitness: c.fitness, optimizer: c.outer };
  return makeStrategy("openai-es", { ...options, ...paired });
}

// The strategy's state: its mean is called theta.
export const outerState = ({ mean, ...others }) => ({ theta: mean, ...others });

export function blackBoxIteration(c, state, noise) {
  const { t, theta, env_steps, pre, post, ...others } = state;
  const strategy = strategyOf(c, theta);
  const before = { mean: theta, ...others };
  const points = withNoise(noise[`${t}/ask`], (draw) =>
    strategy.ask(before, draw("standard_normal", strategy.drawn)));
  const paired = c.algo === "es-maml"; // one task a pair, else every point on all tasks
  const half = c.population / 2;
  const n = paired ? half : c.tasks;
  const tasks = withNoise(noise[`${t}/tasks`], (draw) =>
    sampleTasks(c.family, c.options, n, "train", draw));
  const x = tasks.map((_, i) => (paired ? [points[i], points[i + half]] : points));
  const judged = judgeMembers(c, x, tasks, noise, t);
  const values = judged.map((member) => member.values);
  const fitness = paired ? values.flat() : values.map(mean);
  const after = strategy.tell(before, points, fitness.map((value) => -value), t + 1);
  return {
    t: t + 1,
    env_steps: env_steps + total(judged.map(({ steps }) => steps)),
    pre: mean(judged.flatMap(({ first }) => first)),
    post: mean(values.flat()),
    tasks,
    ...outerState(after),
  };
}
