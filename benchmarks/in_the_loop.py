"""Outer loop against in-the-loop: who chooses the step size of an agent whose goal keeps moving?

    python -m benchmarks.in_the_loop [--lifetimes 64] [--seed 0]

A lifetime is 120 updates of a linear policy by policy gradient, each on 10 episodes of 20 steps of
the point mass; after every 20 updates the goal moves, and only the rewards tell. Its score is the
mean return of all its episodes. The meta-parameters eta are the step size alpha and the discount
gamma of the update. Three ways to set them:

    fixed        all through the lifetime, at a value of a grid
    in the loop  while the agent lives, never reset: after each update one step of Adam on eta along
                 the meta-gradient dL(theta')/d eta of the loss of the next episodes, at the
                 reference discount 0.99, through theta' = theta - alpha grad L(theta; gamma) (Xu et
                 al. 2018, eqs. 3 to 6 with mu = 0, there for gamma and lambda); alpha in its
                 logarithm, gamma in its logit
    outer loop   whole lifetimes of agents that are reset each time, on goals and starts of their
                 own, judged by their score alone: CMA-ES on eta; what it has chosen is then fixed

Scores are on the same held-out lifetimes, which differ in goals, first policy and noise, with 95 %
intervals over them, differences paired. A line of the table says what is tuned online, with which
step size beta of Adam, a column what eta is at birth. `replayed` takes, for each column, the
average over lifetimes of the tuned alpha of each update: what is left of the gain when alpha
follows a plan instead of the lifetime at hand.
"""

from concurrent.futures import ProcessPoolExecutor

import numpy as np

import autodiff as ad
import envs
import es
import metarl
from autodiff import Tensor, grad
from benchmarks.common import PROCESSES, cells, in_columns, mean_and_half, parser
from policies import Policy, rollout

HORIZON = 20  # steps of an episode
EPISODES = 10  # of an update
UPDATES = 120  # of a lifetime
PERIOD = 20  # updates between two moves of the goal
FAMILY = envs.PointMass(horizon=HORIZON, radius=0.0)
NETWORK = Policy(2, 2, hidden=())
# The discount that the meta-gradient judges by, and that all but `outer loop` are born with
REFERENCE = 0.99
GRID = (0.03, 0.1, 0.3, 0.6, 1.0, 1.7, 3.0)
TUNED = {  # what changes online: Adam's step sizes on log alpha and on logit gamma
    "fixed": (0.0, 0.0),
    "alpha, beta 0.03": (0.03, 0.0),
    "alpha, beta 0.1": (0.1, 0.0),
    "gamma, beta 0.1": (0.0, 0.1),
    "both, beta 0.1": (0.1, 0.1),
}
REPLAYED = "alpha, beta 0.03"
POPSIZE = 8  # agents in a generation of the outer loop
GENERATIONS = 12
LIVES = 16  # lifetimes that an agent is judged by


# --- The agent ---
def loss(theta, D, gamma):
    """(T,): metarl's surrogate with the baseline "time", standardised,
    as a function of gamma (T, 1, 1) too.
    """
    t = np.arange(HORIZON)
    ahead = t[:, None] - t  # of reward u in the return-to-go of step t: u - t
    discounts = ad.where(ahead >= 0, gamma ** np.maximum(ahead, 0), 0.0)
    A = ad.matmul(D.rewards, discounts)
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
    """(T, 2): the derivative by eta of the loss of theta'(eta) on D'."""
    leaf = Tensor(theta_prime.data)
    gamma = np.full((1, 1, 1), REFERENCE)
    g = grad(ad.sum(loss(leaf, D_prime, gamma)), leaf)
    return grad(theta_prime, eta, g).data


def lifetime(eta, beta, goals, address, plan=None):
    """T lifetimes at once.

    Returns the mean return (T, UPDATES) and eta (T, UPDATES, 2) of each update.

    eta (T, 2): at birth. beta (2,): Adam's step sizes, 0 for what stays fixed. goals: (T, UPDATES /
    PERIOD, 2). plan (UPDATES, 2): takes the place of eta.
    """
    noise = metarl.noise_at(*address, 0)
    theta = np.stack([NETWORK.init(noise) for _ in goals])
    leaf = theta_prime = None  # eta and what it made of theta, of the update before
    m = v = 0
    returns, etas = [], []
    for t in range(UPDATES):
        goal = goals[:, t // PERIOD]
        noise = metarl.noise_at(*address, 1, t)
        D = rollout(FAMILY, NETWORK, theta, goal, EPISODES, noise)
        if plan is not None:
            eta = np.tile(plan[t], (len(goals), 1))
        elif t > 0 and any(beta):
            g = meta_gradient(leaf, theta_prime, D)
            direction, m, v = metarl.adam(g, m, v, t)
            eta = eta - beta * direction
        leaf = Tensor(eta)
        theta_prime = update(theta, leaf, D, create_graph=any(beta))
        theta = theta_prime.data
        returns.append(D.returns)
        etas.append(eta)
    return np.stack(returns, 1), np.stack(etas, 1)


def born(alpha, gamma, n):
    """eta (n, 2)."""
    return np.tile([np.log(alpha), np.log(gamma / (1 - gamma))], (n, 1))


def goals(n, split, *address):
    """(n, UPDATES / PERIOD, 2): those of n lifetimes."""
    tasks = FAMILY.sample_tasks(n * UPDATES // PERIOD, metarl.noise_at(*address), split)
    return tasks.reshape(n, -1, 2)


# --- Three ways to choose ---
def outer_loop(seed):
    """eta (2,): the mean of CMA-ES after GENERATIONS of whole lifetimes on training goals."""
    start = born(0.1, REFERENCE, 1)[0]
    strategy = es.CMAES(start, 1.0, POPSIZE, metarl.noise_at(seed, metarl.TRAIN))
    for i in range(GENERATIONS):
        x = strategy.ask()
        lives = np.repeat(goals(LIVES, "train", seed, metarl.TRAIN, i, 0), POPSIZE, 0)
        returns, _ = lifetime(np.tile(x, (LIVES, 1)), (0, 0), lives, (seed, metarl.TRAIN, i, 1))
        strategy.tell(x, -returns.mean(1).reshape(LIVES, POPSIZE).mean(0))
    return strategy.mean


def row(tuned, births, lifetimes, seed):
    """For each eta at birth (B, 2) the scores (B, T) of the held-out lifetimes and the mean eta
    (B, UPDATES, 2).

    For REPLAYED also the scores without tuning, on that mean for a plan; else None.
    """
    lives = goals(lifetimes, "test", seed, metarl.TEST, 0)
    address = (seed, metarl.TEST, 1)

    def live(eta, plan=None):
        same = np.tile(eta, (lifetimes, 1))
        return lifetime(same, TUNED[tuned], lives, address, plan)

    runs = [live(eta) for eta in births]
    scores = np.stack([returns.mean(1) for returns, _ in runs])
    plans = np.stack([etas.mean(0) for _, etas in runs])
    if tuned != REPLAYED:
        return scores, plans, None
    again = [live(eta, plan)[0].mean(1) for eta, plan in zip(births, plans, strict=True)]
    return scores, plans, again


def table(lifetimes=64, seed=0):
    """births (B, 2), the last the outer loop's choice; {tuned: scores (B, T)};
    {tuned: mean eta (B, UPDATES, 2)}.
    """
    grid = [born(alpha, REFERENCE, 1)[0] for alpha in GRID]
    with ProcessPoolExecutor(PROCESSES) as pool:
        choice = pool.submit(outer_loop, seed)
        first = {tuned: pool.submit(row, tuned, grid, lifetimes, seed) for tuned in TUNED}
        chosen = choice.result()
        last = {tuned: pool.submit(row, tuned, [chosen], lifetimes, seed) for tuned in TUNED}
    rows = {tuned: (first[tuned].result(), last[tuned].result()) for tuned in TUNED}
    scores = {tuned: np.concatenate([a[0], b[0]]) for tuned, (a, b) in rows.items()}
    scores["replayed"] = np.concatenate([again for _, _, again in rows[REPLAYED]])
    etas = {tuned: np.concatenate([a[1], b[1]]) for tuned, (a, b) in rows.items()}
    return np.stack([*grid, chosen]), scores, etas


def paired(difference):
    mean, half = mean_and_half(difference)
    return f"{mean:+.2f} ± {half:.2f}"


def conclusion(scores, etas):
    """What the table says, in words: all numbers are its own."""
    fixed = scores["fixed"]
    online = scores[REPLAYED] - fixed
    replayed = scores["replayed"] - fixed
    spans = []
    for name in ("fixed", REPLAYED):
        means = scores[name][:-1].mean(1)
        spans.append(f"{name} from {means.min():.2f} to {means.max():.2f}")
    best = int(fixed[:-1].mean(1).argmax())
    spent = GENERATIONS * POPSIZE * LIVES
    steps = spent * UPDATES * EPISODES * HORIZON / 1e6
    alphas = np.exp(etas[REPLAYED][-1, ::PERIOD, 0])
    return (
        f"by alpha at birth, within the grid: {', '.join(spans)}\n"
        f"outer loop's choice - best of the grid, {GRID[best]:g}, both fixed: "
        f"{paired(fixed[-1] - fixed[best])}; "
        f"the choice took {spent} lifetimes, {steps:.0f} million steps\n"
        f"from the outer loop's choice, {REPLAYED} - fixed: {paired(online[-1])}, "
        f"replayed - fixed: {paired(replayed[-1])}; "
        f"alpha at the start of each goal: {' '.join(f'{x:.2f}' for x in alphas)}"
    )


def main():
    p = parser(__doc__)
    p.add_argument("--lifetimes", type=int, default=64, help="held-out lifetimes")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    births, scores, etas = table(a.lifetimes, a.seed)
    print(
        f"seed {a.seed}: mean return of {a.lifetimes} held-out lifetimes, "
        f"by alpha (and gamma, if not {REFERENCE}) at birth"
    )
    alpha = np.exp(births[-1, 0])
    gamma = ad.sigmoid(births[-1, 1])
    heads = [f"{x:g}" for x in GRID] + [f"{alpha:.2f}, {gamma:.2f}"]
    print(f"{'tuned online':17}{in_columns(heads, 14)}")
    for tuned, s in scores.items():
        print(f"{tuned:17}{in_columns(cells(s.T, 2), 14)}")
    print(f"the last column is the outer loop's choice\n{conclusion(scores, etas)}")


if __name__ == "__main__":
    main()
