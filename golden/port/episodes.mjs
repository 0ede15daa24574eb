// Episodes and advantages (stage 3, and `episodes` of stage 2).

import { deviation, dot, flat, mean, range, total, zip } from "./arrays.mjs";
import { solve } from "./matrices.mjs";

// K episodes of each task. The episodes of all tasks run in step, because each draw holds all
// tasks. act(obs (T, K, obs_dim), t) gives the actions. Of each task: arrays (K, H, ...).
export function takeEpisodes(env, tasks, K, act, draw) {
  const each = (f) => tasks.map((_, i) => range(K).map((k) => f(i, k)));
  let now = each(() => ({ obs: env.start, mask: true }));
  const steps = [];
  for (let t = 0; t < env.horizon; t++) {
    const actions = act(now.map((episodes) => episodes.map(({ obs }) => obs)), t);
    const noise = env.draws ? draw(env.draws, [tasks.length, K]) : each(() => null);
    const step = each((i, k) => {
      const { obs, mask } = now[i][k];
      const after = env.step(tasks[i], obs, actions[i][k], noise[i][k]);
      return record(obs, actions[i][k], after, mask);
    });
    steps.push(step);
    now = each((i, k) => {
      const { states, mask, done } = step[i][k];
      return { obs: states, mask: mask && !done };
    });
  }
  const names = Object.keys(steps[0][0][0]);
  const series = (i, name) => range(K).map((k) => steps.map((step) => step[i][k][name]));
  return tasks.map((_, i) => Object.fromEntries(names.map((name) => [name, series(i, name)])));
}

// The observation is the one before the step; the reward counts up to and with the end.
function record(obs, actions, { state, reward, done }, mask) {
  const rewards = mask ? reward : 0;
  return { obs, actions, states: state, raw_rewards: reward, done, mask, rewards };
}

// In each step first the policy draws, if it does at all, then the environment.
export function rollout(policy, env, thetas, tasks, K, draw, deterministic = false) {
  const act = (obs) => {
    if (deterministic) return zip((theta, o) => policy.mode(theta, o), thetas, obs);
    const noise = draw(policy.draws, [tasks.length, K, ...policy.drawn]);
    return zip((theta, o, z) => policy.sample(theta, o, z), thetas, obs, noise);
  };
  return takeEpisodes(env, tasks, K, act, draw);
}

// For each episode (K,), undiscounted.
export const returnsOf = ({ rewards }) => rewards.map(total);
export const stepsOf = ({ mask }) => flat(mask).filter(Boolean).length;

// ------------------------------------------------------------------------------------ advantages

// The sum over l of factor^l values[t + l], for each t.
export function discounted(values, factor) {
  const out = [...values];
  for (let t = values.length - 2; t >= 0; t--) out[t] = values[t] + factor * out[t + 1];
  return out;
}

// The ridge: on every weight, also that of the constant.
const PENALTY = 1e-5;

const features = (o, s) => [...o, ...o.map((x) => x * x), s, s ** 2, s ** 3, 1];

// V, from the returns to go, for the steps that the mask keeps; 0 for the others.
const BASELINES = {
  none: (obs, returns) => returns.map((row) => row.map(() => 0)),

  // The mean over the episodes that still run at t.
  time(obs, returns, mask) {
    const running = (t) => returns.filter((_, k) => mask[k][t]).map((row) => row[t]);
    return mask.map((row) => row.map((on, t) => (on ? mean(running(t)) : 0)));
  },

  // Ridge regression of the returns to go on features of the observation and the time.
  linear(obs, returns, mask) {
    const x = obs.map((row) => row.map((o, t) => features(o, t / 100)));
    const rows = x.flatMap((row, k) => row.filter((_, t) => mask[k][t]));
    const R = returns.flatMap((row, k) => row.filter((_, t) => mask[k][t]));
    const columns = zip((...column) => column, ...rows);
    const A = columns.map((a, i) => columns.map((b, j) => dot(a, b) + (i === j ? PENALTY : 0)));
    const w = solve(A, columns.map((column) => dot(column, R)));
    return x.map((row, k) => row.map((one, t) => (mask[k][t] ? dot(w, one) : 0)));
  },
};

// Of one task: obs (K, H, obs_dim), rewards and mask (K, H).
export function advantages({ obs, rewards, mask }, { baseline: kind, gamma, lam, standardise }) {
  const returns_to_go = rewards.map((row) => discounted(row, gamma));
  const baseline = BASELINES[kind](obs, returns_to_go, mask);

  // delta_t = r_t + gamma V_(t+1) - V_t is E_t - gamma E_(t+1), where E are the errors of the
  // baseline: exactly 0 where it is right.
  const error = (R, V, runs) => (runs ? R - V : 0);
  const errors = zip((R, V, runs) => zip(error, R, V, runs), returns_to_go, baseline, mask);
  const delta = (E) => E.map((e, t) => e - gamma * (E[t + 1] ?? 0));
  const raw = errors.map((E) => discounted(delta(E), gamma * lam));

  // Over all steps of the task that the mask keeps.
  const kept = raw.flatMap((row, k) => row.filter((_, t) => mask[k][t]));
  const m = mean(kept);
  const d = deviation(kept);
  const standardised = (x, runs) => (runs ? (x - m) / d : 0);
  const A = standardise ? zip((row, runs) => zip(standardised, row, runs), raw, mask) : raw;
  return { returns_to_go, baseline, raw, A, deviation: d };
}
