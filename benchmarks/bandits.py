"""Bernoulli bandits of Duan et al. (2016): one lifetime of n pulls, in which the agent learns.

    python -m benchmarks.bandits [--pulls 10 100] [--arms 5 10 50] [--seeds 5]

The counting agents (random, greedy, UCB1, Thompson, Gittins) know the successes and failures of
each arm. The agent of MAML does not: its softmax policy sees the constant 1, and all that it
remembers is in its parameters theta, which a step of policy gradient, with momentum mu, changes
after each pull t = 0, ..., n-1:

    v <- mu v + s_t grad log pi(a_t),  theta <- theta + v,  u = log(1 + t) / log n
    s_t = exp(win + win_u u) after a success,  -exp(lose + lose_u u) after a failure

(s_t = alpha_t (r - b_t) with step size alpha_t and baseline b_t is the same). Meta-learned is x:
theta before the first pull, and the rule: win, lose, win_u, lose_u, mu. What is maximised is the
return of the lifetime:

- row "MAML": by its gradient through all the steps, which counts that x decides what is sampled
  (E-MAML, Stadie et al. 2018); from time to time it explodes, so outliers are cut, and the best ten
  iterations in a row are kept;
- row "MAML, CMA-ES": the same agent, but theta stays 0 and CMA-ES moves the rule, from 0. It needs
  no gradient of a long chain of steps, the trouble with which Metz et al. (2019) describe.

This agent cannot reach the optimum, which depends on the successes and failures of each arm, 2k
numbers, while the policy is k logits. An arm pulled almost surely has a score near 0: further
successes leave no trace in theta, and what a failure then costs does not depend on how many there
were.

Prints the mean return on held-out bandits with its 95 % interval over seeds (training and test),
beside the published one (Duan et al. 2016; Mishra et al. 2018), environment steps and seconds of
processor time of the training of one seed; for 10 pulls also the exact optimum.
"""

import time
from functools import cache

import numpy as np

import autodiff as ad
import es
import metarl
from autodiff import Tensor, grad
from benchmarks.common import mean_and_half, parser, side_by_side
from harness.settings import Setting
from policies import Common, returns_to_go, rollout

PUBLISHED = {  # by pulls, arms
    (10, 5): {"MAML": "6.5"},
    (10, 10): {"MAML": "6.6"},
    (10, 50): {"MAML": "6.6"},
    (100, 5): {"Gittins": "78.3", "MAML": "67.1"},
    (100, 10): {"Gittins": "82.8", "MAML": "70.1"},
    (100, 50): {"Gittins": "85.2", "MAML": "70.3"},
}
# Where gradients begin: cautious steps, lest they explode at once
RULE = np.array([-1.0, -2.0, 0.0, 0.0, 0.0])
TEST_TASKS = 4000  # for each seed


# --- Agents that count ---
def optimum(arms, pulls):
    """The expected return of the Bayes-optimal agent under uniform priors, by dynamic programming.

    A state is the sorted tuple of (successes, failures) of the arms tried so far: all others are
    alike.
    """

    @cache
    def value(tried, left):
        if left == 0:
            return 0.0
        choices = [(arm, tried[:i] + tried[i + 1 :]) for i, arm in enumerate(tried)]
        if len(tried) < arms:
            choices.append(((0, 0), tried))  # a new arm
        return max(expected(arm, rest, left) for arm, rest in choices)

    def expected(arm, rest, left):
        wins, losses = arm
        p = (wins + 1) / (wins + losses + 2)
        won = tuple(sorted((*rest, (wins + 1, losses))))
        lost = tuple(sorted((*rest, (wins, losses + 1))))
        return p * (1 + value(won, left - 1)) + (1 - p) * value(lost, left - 1)

    return value((), pulls)


@cache
def gittins(pulls, grid=400):
    """The finite-horizon Gittins index of an arm,
    [pulls left, successes, failures] (Kaufmann 2018, section 2).

    The price of a pull at which the best plan for the arm alone, to pull and to stop at any time
    within the pulls left, is worth 0. The plan's worth of pulling at least once, by dynamic
    programming for a grid of prices, is interpolated to 0 between them.
    """
    price = np.linspace(0, 1, grid)[:, None, None]
    index = np.zeros((pulls + 1,) * 3)
    value = np.zeros((grid, pulls + 1, pulls + 1))
    for left in range(1, pulls + 1):
        n = pulls - left + 1  # successes and failures so far are each below n
        wins, losses = np.ogrid[:n, :n]
        p = (wins + 1) / (wins + losses + 2)
        # Decreasing in the price
        won = value[:, 1 : n + 1, :n]
        lost = value[:, :n, 1 : n + 1]
        worth = p - price + p * won + (1 - p) * lost
        i = np.maximum((worth > 0).sum(0), 1) - 1
        high, low = np.take_along_axis(worth, np.stack([i, i + 1]), 0)
        index[left, :n, :n] = (i + high / (high - low)) / (grid - 1)
        value[:, :n, :n] = np.maximum(worth, 0)
    return index


def ucb1(wins, losses, t, pulls, rng):
    """Auer et al. 2002, figure 1."""
    pulled = wins + losses
    n = np.maximum(pulled, 1)  # lest 0 be divided by
    bound = wins / n + np.sqrt(2 * np.log(max(t, 1)) / n)
    return np.where(pulled > 0, bound, np.inf)


# The arm with the largest number is pulled, the first of several: they are exchangeable
COUNTING = {
    "random": lambda wins, losses, t, pulls, rng: rng.random(wins.shape),
    "greedy": lambda wins, losses, t, pulls, rng: (wins + 1) / (wins + losses + 2),
    "UCB1": ucb1,
    "Thompson": lambda wins, losses, t, pulls, rng: rng.beta(wins + 1, losses + 1),
    "Gittins": lambda wins, losses, t, pulls, rng: gittins(pulls)[pulls - t, wins, losses],
}


def play(agent, tasks, pulls, rng):
    """(T,): the return of one lifetime of a counting agent in each task (T, arms)."""
    wins, losses = np.zeros((2, *tasks.shape), int)
    rows = np.arange(len(tasks))
    for t in range(pulls):
        arm = agent(wins, losses, t, pulls, rng).argmax(1)
        won = rng.random(len(tasks)) < tasks[rows, arm]
        wins[rows, arm] += won
        losses[rows, arm] += ~won
    return wins.sum(1)


# --- The agent that steps along the policy gradient ---
def setting(arms):
    """A pull is an episode of one step."""
    return Setting(env=f"bandit:arms={arms},horizon=1", policy="linear", standardise=False)


def lifetime(c, x, pulls, tasks, rng):
    """One lifetime in each task.

    x (T, P + 5), a Tensor if a gradient is to pass through all the steps.

    Returns log pi(a_t) and r_t, each (T, pulls), and theta (T, P) before each pull.
    """
    P = c.pi.size
    theta = x[:, :P]
    v = 0
    win, lose, win_u, lose_u, mu = (x[:, i : i + 1] for i in range(P, P + len(RULE)))
    differentiable = isinstance(x, Tensor)
    steps = []
    for t in range(pulls):
        leaf = theta if differentiable else Tensor(theta)
        D = rollout(c.family, c.pi, leaf.data, tasks, 1, rng)
        r = D.rewards[:, 0]  # (T, 1)
        log_pi = c.pi.log_prob(leaf, D.obs, D.actions)[:, 0]  # (T, 1)
        score = grad(ad.sum(log_pi), leaf, create_graph=differentiable)
        if not differentiable:
            log_pi, score = log_pi.data, score.data
        steps.append((log_pi, r, leaf.data))
        u = np.log1p(t) / np.log(pulls)
        s = ad.where(r > 0, ad.exp(win + win_u * u), -ad.exp(lose + lose_u * u))
        v = mu * v + s * score
        theta = theta + v
    log_pi, rewards, thetas = zip(*steps, strict=True)
    return ad.concatenate(log_pi, 1), np.concatenate(rewards, 1), thetas


def worth(c, thetas, tasks):
    """(T, pulls): what the policy before each pull would earn in the rest
    of the lifetime if it learnt no more.
    """
    parts = np.stack(thetas, 1).reshape(len(tasks), len(thetas), 2, -1)
    logits = parts.sum(2)  # weights times 1, and biases
    pi = np.exp(ad.log_softmax(logits))
    means = (pi * c.family.means(tasks)[:, None]).sum(2)
    return means * np.arange(len(thetas), 0, -1)


def meta_gradient(c, x, pulls, tasks, rng):
    """For each task an unbiased estimate of minus the gradient
    of the lifetime's return at x (P + 5,), and the return.

    Each log pi, a function of x through all the steps before, is weighed by the rewards to come,
    less a baseline: `worth`, for which meta-training, and it alone, uses the means of its bandits.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    log_pi, rewards, thetas = lifetime(c, x, pulls, tasks, rng)
    advantage = returns_to_go(rewards, 1) - worth(c, thetas, tasks)
    return grad(-ad.sum(log_pi * (advantage - advantage.mean(0))), x).data, rewards.sum(1)


def cut(g):
    """The gradients g (T, ...) with the length of each at most a hundred times the median one."""
    length = np.sqrt((g * g).sum(1, keepdims=True))
    return g * np.minimum(1, 100 * np.median(length) / np.maximum(length, 1e-300))


def by_gradient(c, pulls, seed, iterations=100):
    """x after Adam on the meta-gradient, the mean of the ten iterations in a row that earned most;
    environment steps.
    """
    P = c.pi.size
    T = 50_000 // pulls  # tasks in an iteration
    x = np.append(np.zeros(P), RULE)
    beta = np.repeat([0.005, 0.05], [P, len(RULE)])
    m = v = 0
    path, earned = [], []
    for t in range(iterations):
        rng = metarl.noise_at(seed, metarl.TRAIN, t)
        tasks = metarl.sample_tasks(c, T, rng)
        g, returns = meta_gradient(c, x, pulls, tasks, rng)
        path.append(x)
        earned.append(returns.mean())
        g, m, v = metarl.adam(cut(g).mean(0), m, v, t + 1)
        x = x - beta * min(1, 2 - 2 * t / iterations) * g
    best = np.convolve(earned, np.ones(10), "valid").argmax()
    return np.mean(path[best : best + 10], 0), iterations * T * pulls


def by_cma_es(c, pulls, seed, generations=50, members=12):
    """x after CMA-ES on the mean return, all members in the same tasks under the same noise;
    environment steps.
    """
    P = c.pi.size
    T = 25_000 // pulls  # tasks in a generation
    s = es.CMAES(np.zeros(len(RULE)), 0.25, members, metarl.noise_at(seed, metarl.INIT))
    for t in range(generations):
        rng = metarl.noise_at(seed, metarl.TRAIN, t)
        rules = s.ask()
        tasks = np.repeat(metarl.sample_tasks(c, T, rng), members, 0)
        agents = np.hstack([np.zeros((members, P)), rules])
        x = np.tile(agents, (T, 1))
        _, rewards, _ = lifetime(c, x, pulls, tasks, Common(rng, members))
        returns = rewards.sum(1).reshape(T, members)
        s.tell(rules, -returns.mean(0))
    return np.append(np.zeros(P), s.mean), generations * members * T * pulls


def live(c, x, pulls, tasks, rng):
    """(T,): the return of one lifetime of the agent x (P + 5,) in each task."""
    _, rewards, _ = lifetime(c, np.tile(x, (len(tasks), 1)), pulls, tasks, rng)
    return rewards.sum(1)


# --- The table ---
TRAINED = {"MAML": by_gradient, "MAML, CMA-ES": by_cma_es}


def run(agent, pulls, arms, seed):
    """(3,): the mean return of a seed on held-out tasks; environment steps and processor seconds of
    its training.
    """
    c = setting(arms)
    tasks = metarl.noise_at(seed, metarl.TEST, metarl.TASKS)
    tasks = metarl.sample_tasks(c, TEST_TASKS, tasks, "test")
    noise = metarl.noise_at(seed, metarl.TEST, metarl.MEASURE)
    if agent in COUNTING:
        returns = play(COUNTING[agent], tasks, pulls, noise)
        return np.array([returns.mean(), 0, 0])
    start = time.process_time()
    x, steps = TRAINED[agent](c, pulls, seed)
    seconds = time.process_time() - start
    returns = live(c, x, pulls, tasks, noise)
    return np.array([returns.mean(), steps, seconds])


def report(pulls, arms, seeds):
    print(f"{pulls} pulls, {arms} arms; {seeds} seeds")
    print(f"{'agent':15}{'published':>10}{'measured':>16}{'env steps':>12}{'CPU s':>9}")
    if pulls <= 10:
        print(f"{'optimum':15}{'':10}{optimum(arms, pulls):9.3f}")
    published = PUBLISHED.get((pulls, arms), {})
    for agent in [*COUNTING, *TRAINED]:
        jobs = [(agent, pulls, arms, seed) for seed in range(seeds)]
        returns, steps, seconds = np.array(list(side_by_side(run, jobs))).T
        mean, half = mean_and_half(returns)
        claim = published.get(agent.partition(",")[0], "-")
        line = f"{agent:15}{claim:>10}{mean:9.3f} ± {half:.3f}"
        print(f"{line}{steps.mean():12.0f}{seconds.mean():9.1f}", flush=True)


def main():
    p = parser(__doc__)
    p.add_argument("--pulls", type=int, nargs="+", default=[10, 100])
    p.add_argument("--arms", type=int, nargs="+", default=[5, 10, 50])
    p.add_argument("--seeds", type=int, default=5)
    a = p.parse_args()
    for pulls in a.pulls:
        for arms in a.arms:
            report(pulls, arms, a.seeds)


if __name__ == "__main__":
    main()
