"""Outer loop against in-the-loop: who chooses the step size of an agent whose goal keeps moving?

    python -m chapters.in_the_loop [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

A lifetime is 120 updates of a linear policy by policy gradient, each on 10 episodes of 20 steps of
the point mass; after every 20 updates the goal moves, and only the rewards tell. Its score is the
mean return of all its episodes. The meta-parameters eta are the step size alpha and the discount
gamma of the update. Three ways to set them:

    fixed        all through the lifetime, at a value of a grid
    in the loop  while the agent lives, never reset: after each update one step of Adam on eta along
                 the meta-gradient of the loss of the next episodes (Xu, van Hasselt & Silver 2018,
                 "Meta-Gradient Reinforcement Learning", arXiv 1805.09801, eqs. 3 to 6 with mu = 0,
                 there for gamma and lambda); alpha in its logarithm, gamma in its logit
    outer loop   whole lifetimes of agents that are reset each time, on goals and starts of their
                 own, judged by their score alone: CMA-ES on eta; what it has chosen is then fixed

In the loop, with the numbers that the lines of the code carry:

    l.1   D_t: episodes of theta_t
    l.2   eta <- eta - beta Adam(d L(theta_t; D_t, gamma 0.99) / d eta), as theta_t was made by eta
          in l.3 of the update before
    l.3   theta_t+1 <- theta_t - alpha grad L(theta_t; D_t, gamma)

So eta is told one update later what it did. The judge in l.2 has a discount of its own, 0.99, which
nothing tunes: if it used the gamma of eta, eta could please it by changing what it counts. Over 20
steps 0.99 is close to the score, which discounts nothing.

Scores are on the same held-out lifetimes, which differ in goals, first policy and noise. A line of
the table says what is tuned online, with which step size beta of Adam, a column what alpha is at
birth; in the last column eta is the outer loop's choice. `replayed` first tunes alpha with beta
0.03; then the same lifetimes are lived once more, and in each update all of them have the mean of
the tuned log alpha: what is left of the gain when alpha follows a plan instead of the lifetime at
hand.

Said plainly: the outer loop needs many lifetimes (1,536 here, 37 million environment steps) and the
best constants of a grid are as good; tuning online needs none, and rescues every bad start, but
has a step size of its own that somebody chose. Most of what it gains is a schedule: replayed
without looking it is nearly as good.
"""

from dataclasses import dataclass

import numpy as np

import autodiff as ad
import envs
import es
import metarl
from autodiff import Tensor, grad
from chapters import common
from chapters.common import EACH, Chapter, above, table
from policies import Policy, rollout


@dataclass(frozen=True)
class Options:
    lifetimes: int = 64  # held out
    grid: tuple = (0.03, 0.1, 0.3, 0.6, 1.0, 1.7, 3.0)  # of alpha at birth
    popsize: int = 8  # agents in a generation of the outer loop
    generations: int = 12
    lives: int = 16  # lifetimes that an agent is judged by


QUICK = Options(lifetimes=4, grid=(0.1, 1.0), popsize=4, generations=2, lives=2)

HORIZON = 20  # steps of an episode
EPISODES = 10  # of an update
UPDATES = 120  # of a lifetime
PERIOD = 20  # updates between two moves of the goal
FAMILY = envs.PointMass(horizon=HORIZON, radius=0.0)
NETWORK = Policy(2, 2, hidden=())
# The discount that the meta-gradient judges by, and that all but `outer loop` are born with
REFERENCE = 0.99
TUNED = {  # what changes online: Adam's step sizes on log alpha and on logit gamma
    "fixed": (0.0, 0.0),
    "alpha, beta 0.03": (0.03, 0.0),
    "alpha, beta 0.1": (0.1, 0.0),
    "gamma, beta 0.1": (0.0, 0.1),
    "both, beta 0.1": (0.1, 0.1),
}
REPLAYED = "alpha, beta 0.03"


# --- The agent ---
def loss(theta, D, gamma):
    """(T,): the loss of policy gradient, as a function of theta (T, P) and of gamma (T, 1, 1).

    It is `surrogate` of policies.py, which takes gamma for a constant: advantages are
    returns-to-go less their mean over episodes at each step, divided by their deviation.
    """
    t = np.arange(HORIZON)
    ahead = t[:, None] - t  # [u, t]: reward u comes u - t steps after step t
    discounts = ad.where(ahead >= 0, gamma ** np.maximum(ahead, 0), 0.0)  # (T, HORIZON, HORIZON)
    A = ad.matmul(D.rewards, discounts)  # (T, EPISODES, HORIZON): returns-to-go
    A = A - ad.mean(A, 1, keepdims=True)
    variance = ad.mean(A * A, (1, 2), keepdims=True)
    A = A / ad.sqrt(ad.where(ad.value(variance) > 0, variance, 1.0))  # where all are equal, A is 0
    return -ad.mean(NETWORK.log_prob(theta, D.obs, D.actions) * A, (1, 2))


def update(theta, eta, D, create_graph=True):
    """theta' (T, P), a function of eta (T, 2), Tensors: log alpha and logit gamma."""
    alpha = ad.exp(eta[:, :1])
    gamma = ad.sigmoid(eta[:, 1:, None])
    theta = Tensor(theta)
    g = grad(ad.sum(loss(theta, D, gamma)), theta, create_graph=create_graph)
    return theta - alpha * g


def meta_gradient(eta, theta_prime, D_prime):
    """(T, 2): the derivative by eta of the loss of theta'(eta) on D', by the chain rule.

    theta_prime: what `update` made of eta; it alone carries the gradient, as D' is a constant.
    """
    leaf = Tensor(theta_prime.data)
    gamma = np.full((1, 1, 1), REFERENCE)
    g = grad(ad.sum(loss(leaf, D_prime, gamma)), leaf)  # by theta', (T, P)
    return grad(theta_prime, eta, g).data  # times d theta' / d eta, through `update`


def lifetime(eta, beta, goals, address, plan=None):
    """T lifetimes at once.

    eta (T, 2): at birth. beta (2,): Adam's step sizes, 0 for what stays fixed. goals: (T, UPDATES /
    PERIOD, 2). plan (UPDATES, 2): takes the place of eta.

    Returns the mean return (T, UPDATES) and eta (T, UPDATES, 2) of each update.
    """
    noise = metarl.noise_at(*address, 0)
    theta = np.stack([NETWORK.init(noise) for _ in goals])
    used = theta_prime = None  # eta in the update before, a Tensor, and what it made of theta
    m = v = 0
    returns = []
    etas = []
    for t in range(UPDATES):
        goal = goals[:, t // PERIOD]
        noise = metarl.noise_at(*address, 1, t)
        D = rollout(FAMILY, NETWORK, theta, goal, EPISODES, noise)  # l.1
        if plan is not None:
            eta = np.tile(plan[t], (len(goals), 1))
        elif t > 0 and any(beta):
            g = meta_gradient(used, theta_prime, D)  # l.2
            direction, m, v = metarl.adam(g, m, v, t)
            eta = eta - beta * direction
        used = Tensor(eta)
        theta_prime = update(theta, used, D, create_graph=any(beta))  # l.3
        theta = theta_prime.data
        returns.append(D.returns)
        etas.append(eta)
    return np.stack(returns, 1), np.stack(etas, 1)


def born(alpha, gamma):
    """eta (2,)."""
    return np.log([alpha, gamma / (1 - gamma)])


def goals(n, split, *address):
    """(n, UPDATES / PERIOD, 2): those of n lifetimes."""
    tasks = FAMILY.sample_tasks(n * UPDATES // PERIOD, metarl.noise_at(*address), split)
    return tasks.reshape(n, -1, 2)


# --- Three ways to choose ---
def outer_loop(o, seed):
    """eta (2,): the mean of CMA-ES after generations of whole lifetimes on training goals."""
    start = born(0.1, REFERENCE)
    strategy = es.CMAES(start, 1.0, o.popsize, metarl.noise_at(seed, metarl.TRAIN))
    for i in range(o.generations):
        x = strategy.ask()
        lives = goals(o.lives, "train", seed, metarl.TRAIN, i, 0)
        address = (seed, metarl.TRAIN, i, 1)
        each = np.repeat(lives, o.popsize, 0)  # all agents have the same goals
        returns, _ = lifetime(np.tile(x, (o.lives, 1)), (0, 0), each, address)
        scores = returns.mean(1).reshape(o.lives, o.popsize)
        strategy.tell(x, -scores.mean(0))
    return strategy.mean


def live(o, eta, tuned, seed, plan=None):
    """The scores (T,) of held-out lifetimes from eta (2,) at birth; the mean eta (UPDATES, 2)."""
    lives = goals(o.lifetimes, "test", seed, metarl.TEST, 0)
    same = np.tile(eta, (o.lifetimes, 1))
    returns, etas = lifetime(same, TUNED[tuned], lives, (seed, metarl.TEST, 1), plan)
    return returns.mean(1), etas.mean(0)


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    chosen = outer_loop(o, seed)
    births = {f"{alpha:g}": born(alpha, REFERENCE) for alpha in o.grid}
    births["chosen"] = chosen
    rows = {tuned: {} for tuned in (*TUNED, "replayed")}
    plans = {}
    for column, eta in births.items():
        for tuned in TUNED:
            scores, plan = live(o, eta, tuned, seed)
            rows[tuned][column] = scores.mean()
            if tuned == REPLAYED:
                plans[column] = plan
                again, _ = live(o, eta, "fixed", seed, plan)
                rows["replayed"][column] = again.mean()
    log_alpha, logit_gamma = chosen
    rows["the choice"] = {"alpha": np.exp(log_alpha), "gamma": ad.sigmoid(logit_gamma)}
    starts = np.exp(plans["chosen"][::PERIOD, 0])
    rows["alpha, tuned"] = {f"goal {i + 1}": alpha for i, alpha in enumerate(starts)}
    return rows, plans


# --- What is printed ---
def report(rows):
    tuned = [*TUNED, "replayed"]
    return f"""
Mean return of held-out lifetimes, by alpha at birth; chosen: alpha and gamma, by the outer loop
{table(rows, tuned, list(rows["fixed"]), heading="tuned online")}
What the outer loop chose
{table(rows, ["the choice"], ("alpha", "gamma"))}
From there, alpha at the start of each goal, {REPLAYED}
{table(rows, ["alpha, tuned"], list(rows["alpha, tuned"]))}"""


def best_of_grid(row):
    """(seeds,): the score of that alpha of the grid which is best in the mean over seeds."""
    columns = [column for column in row if column != "chosen"]
    return row[max(columns, key=lambda column: row[column].mean())]


def worst_of_grid(row):
    columns = [column for column in row if column != "chosen"]
    return row[min(columns, key=lambda column: row[column].mean())]


def claims(rows):
    fixed = rows["fixed"]
    online = rows[REPLAYED]
    replayed = rows["replayed"]
    rescued = worst_of_grid(online) - worst_of_grid(fixed)
    plan = replayed["chosen"] - fixed["chosen"]
    gain = online["chosen"] - fixed["chosen"]
    found = fixed["chosen"] - best_of_grid(fixed)
    return [
        above("outer loop: its choice - best of the grid, fixed", -0.25, found),
        above("in the loop: tuned - fixed, from that choice", 0.2, gain, EACH),
        above("bad starts: worst of the grid, tuned - fixed", 0.5, rescued, EACH),
        above("a plan does much of it: replayed - fixed", 0, plan),
    ]


def draw(figure, picture):
    """alpha over a lifetime, tuned online, from each birth: the mean over lifetimes."""
    figure.set_size_inches(6, 3.3)
    panel = figure.subplots()
    for column, plan in picture.items():
        panel.plot(np.exp(plan[:, 0]), label=column)
    for t in range(PERIOD, UPDATES, PERIOD):
        panel.axvline(t, color="0.85", zorder=0)
    panel.set(yscale="log", xlabel="update; the goal moves at the lines", ylabel="alpha")
    panel.legend(title="at birth", loc="upper left", bbox_to_anchor=(1, 1))


CHAPTER = Chapter("in_the_loop", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
