"""Bernoulli bandits: one lifetime of n pulls, in which the agent learns.

    python -m chapters.bandits [--seeds 5] [--first-seed 0] [--quick] [--full] [--plot DIR] [--json]

Duan, Schulman, Chen, Bartlett, Sutskever & Abbeel, "RL^2: Fast Reinforcement Learning via Slow
Reinforcement Learning", 2016, arXiv 1611.02779, section 3.1. Each of k arms pays 1 with a
probability of its own, uniform in [0, 1] and unknown; an agent has n pulls. Published for MAML by
Mishra et al. 2018, arXiv 1707.03141.

The counting agents (random, greedy, UCB1, Thompson, Gittins) know the successes and failures of
each arm; they are in counting.py. The agent of MAML does not: its softmax policy sees the constant
1, and all that it remembers is in its parameters theta and their momentum v, 0 at first, which a
step of policy gradient changes after each pull t = 0, ..., n-1:

    l.1   v <- mu v + s_t grad log pi(a_t)
    l.2   theta <- theta + v
          where s_t = exp(win + win_u u) after a success, -exp(lose + lose_u u) after a failure,
          u = log(1 + t) / log n

(s_t = alpha_t (r - b_t), with a step size and a baseline for each pull, is the same.) Meta-learned
is x: theta before the first pull, and the rule: win, lose, win_u, lose_u, mu. What is maximised is
the return of the lifetime:

- row "MAML": by its gradient through all the steps, which counts that x decides what is sampled
  (E-MAML, Stadie et al. 2018); from time to time it explodes, so outliers are cut, and the best ten
  iterations in a row are kept;
- row "MAML, CMA-ES": the same agent, but theta stays 0 and CMA-ES moves the rule, from 0. It needs
  no gradient of a long chain of steps, the trouble with which Metz et al. (2019) describe.

By default there are 10 pulls of 5 arms; with --full 10 and 100 pulls of 5, 10 and 50.

Said plainly: this agent cannot reach the optimum, which depends on how often each arm succeeded and
failed: steps along the score do not count that. An arm pulled almost surely has a score, that is
grad log pi, near 0: further successes leave no trace in theta, and what a failure then costs does
not depend on how many there were. The gradient is heavy-tailed through many steps, and does less
well than CMA-ES, which takes 15 million environment steps for its 5 million.
"""

from dataclasses import dataclass

import numpy as np

import autodiff as ad
import es
import metarl
from autodiff import Tensor, grad
from chapters import common, counting
from chapters.common import EACH, Chapter, above, in_columns, table
from harness.settings import Setting
from policies import Common, returns_to_go, rollout


@dataclass(frozen=True)
class Options:
    full: bool = False  # all six problems of the published table
    iterations: int = 100  # of the gradient
    generations: int = 50  # of CMA-ES
    test_tasks: int = 4000


QUICK = Options(iterations=12, generations=4, test_tasks=400)

PULLS = (10, 100)
ARMS = (5, 10, 50)
# By pulls, for 5, 10 and 50 arms.
PUBLISHED = {
    "MAML": {10: (6.5, 6.6, 6.6), 100: (67.1, 70.1, 70.3)},
    "Gittins": {100: (78.3, 82.8, 85.2)},
}
# Where gradients begin: cautious steps, lest they explode at once
RULE = np.array([-1.0, -2.0, 0.0, 0.0, 0.0])


# --- The agent that steps along the policy gradient ---
def setting(arms):
    """A pull is an episode of one step."""
    return Setting(env=f"bandit:arms={arms},horizon=1", policy="linear", standardise=False)


def lifetime(c, x, pulls, tasks, rng):
    """One lifetime in each task. A pull is a rollout of one episode of one step.

    x (T, P + 5), a Tensor if a gradient is to pass through all the steps.

    Returns log pi(a_t) and r_t, each (T, pulls), and theta (T, P) before each pull.
    """
    P = c.pi.size
    theta = x[:, :P]
    win, lose, win_u, lose_u, mu = (x[:, i : i + 1] for i in range(P, P + len(RULE)))
    v = 0
    differentiable = isinstance(x, Tensor)
    steps = []
    for t in range(pulls):
        leaf = theta if differentiable else Tensor(theta)
        D = rollout(c.family, c.pi, leaf.data, tasks, 1, rng)
        r = D.rewards[:, 0]  # (T, 1)
        log_pi = c.pi.log_prob(leaf, D.obs, D.actions)[:, 0]  # (T, 1)
        score = grad(ad.sum(log_pi), leaf, create_graph=differentiable)
        if not differentiable:
            log_pi = log_pi.data
            score = score.data
        steps.append((log_pi, r, leaf.data))
        u = np.log1p(t) / np.log(pulls)
        s = ad.where(r > 0, ad.exp(win + win_u * u), -ad.exp(lose + lose_u * u))
        v = mu * v + s * score  # l.1
        theta = theta + v  # l.2
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
    """For each task an estimate of minus the gradient of the lifetime's return at x (P + 5,),
    (T, P + 5), and the return (T,).

    Each log pi, a function of x through all the steps before, is weighed by the rewards to come,
    less a baseline: `worth`, for which meta-training, and it alone, uses the means of its bandits.
    The mean over tasks, taken off too, has 1 / T of the task in it: the estimate is without bias
    but for a factor 1 - 1 / T.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    log_pi, rewards, thetas = lifetime(c, x, pulls, tasks, rng)
    advantage = returns_to_go(rewards, 1) - worth(c, thetas, tasks)
    return grad(-ad.sum(log_pi * (advantage - advantage.mean(0))), x).data, rewards.sum(1)


def cut(g):
    """The gradients g (T, ...) with the length of each at most a hundred times the median one."""
    length = np.sqrt((g * g).sum(1, keepdims=True))
    return g * np.minimum(1, 100 * np.median(length) / np.maximum(length, 1e-300))


def by_gradient(c, pulls, seed, iterations, env_steps=50_000):
    """x after Adam on the meta-gradient: the mean of the ten iterations in a row that earned
    most.
    """
    P = c.pi.size
    T = env_steps // pulls  # tasks in an iteration
    x = np.append(np.zeros(P), RULE)
    beta = np.repeat([0.005, 0.05], [P, len(RULE)])
    m = v = 0
    path = []
    earned = []
    for t in range(iterations):
        rng = metarl.noise_at(seed, metarl.TRAIN, t)
        tasks = metarl.sample_tasks(c, T, rng)
        g, returns = meta_gradient(c, x, pulls, tasks, rng)
        path.append(x)
        earned.append(returns.mean())
        g, m, v = metarl.adam(cut(g).mean(0), m, v, t + 1)
        x = x - beta * min(1, 2 - 2 * t / iterations) * g
    best = np.convolve(earned, np.ones(10), "valid").argmax()
    return np.mean(path[best : best + 10], 0)


def by_cma_es(c, pulls, seed, generations, members=12):
    """x after CMA-ES on the mean return, all members in the same tasks under the same noise."""
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
    return np.append(np.zeros(P), s.mean)


def live(c, x, pulls, tasks, rng):
    """(T, pulls): the rewards of one lifetime of the agent x (P + 5,) in each task."""
    _, rewards, _ = lifetime(c, np.tile(x, (len(tasks), 1)), pulls, tasks, rng)
    return rewards


# --- The table ---
def rewards_of_all(o, pulls, arms, seed):
    """{agent: its rewards (test_tasks, pulls)} on the same held-out bandits."""
    c = setting(arms)
    noise = metarl.noise_at(seed, metarl.TEST, metarl.TASKS)
    tasks = metarl.sample_tasks(c, o.test_tasks, noise, "test")
    rewards = {}
    for name, agent in counting.AGENTS.items():
        rng = metarl.noise_at(seed, metarl.TEST, metarl.MEASURE)
        rewards[name] = counting.play(agent, tasks, pulls, rng)
    learned = {
        "MAML": by_gradient(c, pulls, seed, o.iterations),
        "MAML, CMA-ES": by_cma_es(c, pulls, seed, o.generations),
    }
    for name, x in learned.items():
        rng = metarl.noise_at(seed, metarl.TEST, metarl.MEASURE)
        rewards[name] = live(c, x, pulls, tasks, rng)
    return rewards


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    problems = [(10, 5)]
    if o.full:
        problems = [(pulls, arms) for pulls in PULLS for arms in ARMS]
    rows = {}
    for pulls, arms in problems:
        rewards = rewards_of_all(o, pulls, arms, seed)
        for name, r in rewards.items():
            rows.setdefault(name, {})[column(pulls, arms)] = r.sum(1).mean()
    return rows, rewards


def column(pulls, arms):
    return f"{pulls}, {arms}"


# --- What is printed ---
def report(rows):
    columns = list(rows["MAML"])
    lines = [table(rows, list(rows), columns, 3, heading="pulls, arms    ").rstrip()]
    for name in PUBLISHED:
        lines.append(published(name, columns))
    known = [f"{counting.optimum(arms, 10):.3f}" for arms in ARMS if column(10, arms) in columns]
    lines.append(f"The optimum for 10 pulls: {', '.join(known)}")
    return "\n".join(["\nMean return of a lifetime on held-out bandits", *lines]) + "\n"


def published(name, columns):
    """The line of the published numbers of an agent, "-" where there is none."""
    known = {}
    for pulls, returns in PUBLISHED[name].items():
        for arms, number in zip(ARMS, returns, strict=True):
            known[column(pulls, arms)] = number
    cells = [str(known.get(x, "-")) for x in columns]
    return f"{name + ', publ.':15}" + in_columns(cells)


def claims(rows):
    ours = rows["MAML, CMA-ES"]["10, 5"]
    over = [
        above(f"learned: MAML, CMA-ES - {name}", 0.5, ours - rows[name]["10, 5"], EACH)
        for name in ("UCB1", "Thompson")
    ]
    near = above("share of the way from random to the optimum", 0.9, share(rows, "MAML, CMA-ES"))
    gradient = above("by gradient too: that of MAML", 0.8, share(rows, "MAML"))
    return [*over, near, gradient]


def share(rows, name):
    """How much of the way from random play to the optimum an agent goes, with 10 pulls, 5 arms."""
    chance = rows["random"]["10, 5"]
    return (rows[name]["10, 5"] - chance) / (counting.optimum(5, 10) - chance)


def draw(figure, picture):
    """The mean reward of each agent, pull by pull."""
    figure.set_size_inches(6, 3.5)
    panel = figure.subplots()
    for name, rewards in picture.items():
        pulls = np.arange(1, rewards.shape[1] + 1)
        line = "-" if name.startswith("MAML") else "--"
        panel.plot(pulls, rewards.mean(0), line, label=name)
    panel.set(xlabel="pull", ylabel="mean reward")
    panel.legend(loc="upper left", bbox_to_anchor=(1, 1))


FLAGS = {"full": "10 and 100 pulls of 5, 10 and 50 arms: ten minutes"}
CHAPTER = Chapter("bandits", __doc__, Options(), QUICK, run, report, claims, draw, FLAGS)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
