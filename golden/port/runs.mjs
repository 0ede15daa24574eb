// Iterations of any outer loop (stage 4), and runs of several (stage 6).

import { mean, total } from "./arrays.mjs";
import { BLACK_BOXES, blackBoxIteration, outerState, strategyOf } from "./black_boxes.mjs";
import { returnsOf, stepsOf } from "./episodes.mjs";
import { sampleTasks } from "./families.mjs";
import { withNoise } from "./noise.mjs";
import { outerStep } from "./outer.mjs";
import { adapt, problemOf } from "./steps.mjs";

// The state after, and the tasks.
export function iteration(c, state, noise) {
  if (BLACK_BOXES.includes(c.algo)) return blackBoxIteration(c, state, noise);
  const { t } = state;
  const tasks = withNoise(noise[`${t}/tasks`], (draw) =>
    sampleTasks(c.family, c.options, c.tasks, "train", draw));
  const paths = adapt(c, state.theta, tasks, noise, t);
  const meanReturn = (k) => mean(paths.flatMap(({ memories }) => returnsOf(memories.at(k))));
  return {
    t: t + 1,
    env_steps: state.env_steps + total(paths.flatMap(({ memories }) => memories.map(stepsOf))),
    pre: meanReturn(0),
    post: meanReturn(-1),
    tasks,
    ...outerStep(c, state, paths),
  };
}

export function firstState(c, noise) {
  const { policy } = problemOf(c);
  const theta = withNoise(noise.init, (draw) => policy.initial(c.std, draw));
  const zeros = theta.map(() => 0);
  const x = c.learn_alpha ? [...theta, ...zeros] : theta; // s = 0
  const counts = { t: 0, env_steps: 0, pre: 0, post: 0 };
  if (BLACK_BOXES.includes(c.algo)) return { ...counts, ...outerState(strategyOf(c, x).first) };
  const moments = { m: x.map(() => 0), v: x.map(() => 0) };
  return { ...counts, theta: x, ...(c.outer === "adam" ? moments : {}) };
}

// The states, the initial one first.
export function run(c, noise, iterations) {
  const states = [firstState(c, noise)];
  for (let i = 0; i < iterations; i++) {
    const { tasks, ...after } = iteration(c, states.at(-1), noise);
    states.push(after);
  }
  return states;
}
