"""Outer-loop meta-reinforcement learning: the algorithms and nothing else.

How to read it: `adapt` is the inner loop U(theta, task), a few steps of policy gradient. `meta_gradient` sends a
gradient through it. The outer loops `maml` and `reptile` are pure functions from state and address to state, and
carry the line numbers of their pseudo-code. `train` iterates one of them, `meta_test` judges the result on tasks
never trained on, `Setting` holds every option. What surrounds a run (files, progress, errors) is in cli.py.

    symbol        in code          shape           meaning
    theta, phi    theta, phi       (P,)            meta-parameters (phi in Reptile)
    theta'_i      theta_prime      (T, P)          parameters adapted to task i
    alpha, beta   c.alpha, c.beta  scalar          inner and outer step size
    epsilon       c.epsilon        scalar          Reptile's outer step
    D, D'         D, D_prime       Trajectories    episodes before and after adaptation
    T, K, H, P                                     tasks, episodes per task, horizon, parameters

Losses are minimised: L is minus the return. Noise is addressed, not consumed: the same address gives the same
noise, so every step can be repeated, resumed, or computed elsewhere with the same result.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy is imported: our parallelism is over tasks

import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import count, islice

import numpy as np

import autodiff as ad
import envs
import es
import policies
from autodiff import Tensor, grad
from policies import Common, rollout

INIT, TRAIN, TEST = range(3)  # what noise is for: stands in its address after the seed
TASKS, INNER, MEASURE, ASK = range(4)  # and further on
CHUNK = 5  # tasks that are worked on together, whatever the number of workers


def rng(seed, *address):
    """The generator of the noise at an address, a sequence of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=address))


def each(f, c, theta, tasks, address, map=map):
    """f(c, theta, tasks, address) in chunks of tasks (and of theta, unless all tasks share it, (P,)).

    f returns arrays with a row per task; so does `each`. A chunk's noise is addressed by its first row.
    map: the builtin, or that of any concurrent.futures executor. The chunks do not depend on it.
    """
    members = theta.shape[1] if theta.ndim == 3 else 1  # (T, n, P): n for each task
    size = CHUNK if c.inner == "pg" else max(1, 500 // members)  # no graph to hold, but small arrays
    starts = range(0, len(tasks), size)
    rows = [slice(i, i + size) for i in starts]
    thetas = [theta[r] if theta.ndim > 1 else theta for r in rows]
    chunks = map(f, [c] * len(rows), thetas, [tasks[r] for r in rows], [(*address, i) for i in starts])
    return [np.concatenate(column) for column in zip(*chunks, strict=True)]


# --- The inner loop ---
def surrogate(c, theta, D):
    """The loss whose gradient is minus the policy gradient, summed over tasks (Finn et al. 2017, eq. 4).

    For each task minus the mean of log pi(a|s) * advantage over its steps; theta (T, P), a scalar Tensor.
    """
    A = policies.advantages(D, c.baseline, c.gamma, c.lam, c.standardise)
    weights = A * D.mask / D.mask.sum((1, 2), keepdims=True).astype(A.dtype)
    return -ad.sum(c.network.log_prob(theta, D.obs, D.actions) * weights)


def adam(g, m, v, t):
    """The direction of Adam's step number t >= 1, and its moments (Kingma & Ba 2015, Algorithm 1)."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return m / (1 - 0.9**t) / (ad.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def inner_loop(c, theta, tasks, address, create_graph=False):
    """Policy-gradient steps from theta (T, P) in each task, on fresh episodes; after each step theta and those."""
    m = v = 0
    for k in count():
        D = rollout(c.family, c.network, theta.data, tasks, c.episodes, rng(*address, k))  # l.5
        g = grad(surrogate(c, theta, D), theta, create_graph=create_graph)  # l.6
        if c.inner_optimizer == "adam":
            g, m, v = adam(g, m, v, k + 1)
        theta = theta - (c.alpha if k == 0 else c.alpha * c.alpha_decay) * g  # l.7
        yield theta, D


def adapt(c, theta, tasks, address, create_graph=False):
    """The inner loop U of k = c.inner_steps steps.

    theta: Tensor (T, P). create_graph: record the steps, so that a gradient can pass through them.
    Returns theta' (T, P), a Tensor, and the list of the k Trajectories that it took.
    """
    steps = list(islice(inner_loop(c, theta, tasks, address, create_graph), c.inner_steps))
    return (steps[-1][0] if steps else theta), [D for _, D in steps]


def summary(episodes):
    """(T, 3): each task's mean return in the first and in the last of the Trajectories, its environment steps."""
    steps = sum(D.mask.sum((1, 2)) for D in episodes)
    return np.stack([episodes[0].returns, episodes[-1].returns, steps], 1)


# --- The outer loops ---
def meta_gradient(c, theta, tasks, address):
    """For each task the gradient of the loss after adaptation with respect to the parameters before it.

    maml differentiates through the inner steps. In fomaml their gradients are constants, so that the chain rule passes
    through theta' = theta - alpha * g as through the identity. joint has no inner steps: a policy gradient. Returns
    the meta-gradients (T, P) and the summary of the episodes (T, 3).
    """
    theta = Tensor(np.tile(theta, (len(tasks), 1)))
    theta_prime, episodes = adapt(c, theta, tasks, address, create_graph=c.algo == "maml")  # l.4-7
    noise = rng(*address, c.inner_steps)
    D_prime = rollout(c.family, c.network, theta_prime.data, tasks, c.episodes, noise)  # l.8
    g = grad(surrogate(c, theta_prime, D_prime), theta)
    return g.data, summary([*episodes, D_prime])


def maml(c, state, address, each):
    """One iteration of MAML for RL (Finn et al. 2017, Algorithm 3), with the mean over tasks for the sum in l.10.

    Also of fomaml, its first-order form (section 5.2), and of joint, which trains one policy for all tasks.
    """
    tasks = sample_tasks(c, c.tasks, rng(*address, TASKS))  # l.3
    g, log = each(meta_gradient, c, state["theta"], tasks, (*address, INNER))  # l.4-9
    return descend(c, record(state, log), g.mean(0))  # l.10


def learn(c, phi, tasks, address):
    """U for Reptile: phi_k (T, P) and the summary of the episodes (T, 3)."""
    phi_k, episodes = adapt(c, Tensor(np.tile(phi, (len(tasks), 1))), tasks, address)
    return phi_k.data, summary(episodes)


def reptile(c, state, address, each):
    """One iteration of Reptile (Nichol et al. 2018, Algorithm 1), serial with one task, else batched over tasks."""
    phi = state["theta"]
    tau = sample_tasks(c, c.tasks, rng(*address, TASKS))  # l.3
    phi_k, log = each(learn, c, phi, tau, (*address, INNER))  # l.4
    return {**record(state, log), "theta": phi + c.epsilon * (phi_k - phi).mean(0)}  # l.5


def descend(c, state, g):
    """One step of the outer optimiser against the gradient g (P,), scaled down to the length c.max_norm."""
    norm = np.sqrt((g * g).sum())
    g = g * np.minimum(1, c.max_norm / norm) if norm > 0 else g
    if c.outer_optimizer == "adam":
        g, m, v = adam(g, state["m"], state["v"], int(state["t"]) + 1)
        state = {**state, "m": m, "v": v}
    return {**state, "theta": state["theta"] - c.beta * g}


def record(state, log):
    """The state with the returns and environment steps of an iteration's episodes, from their summaries (T, 3)."""
    pre, post, _ = log.mean(0)
    return {**state, "pre": pre, "post": post, "env_steps": state["env_steps"] + log[:, 2].sum()}


# --- Without meta-gradients: the return after adaptation takes the place of the loss ---


def hill_climb(c, theta, scale, tasks, noise):
    """hc: of K queries the first is theta, each other a step at random from the best so far (Song et al. 2020)."""
    D = rollout(c.family, c.network, theta, tasks, 1, noise)
    best, episodes = D.returns, [D]
    for _ in range(c.episodes - 1):
        trial = theta + c.inner_sigma * scale * noise.standard_normal(theta.shape).astype(theta.dtype)
        D = rollout(c.family, c.network, trial, tasks, 1, noise)
        better = D.returns > best
        theta, best = np.where(better[:, None], trial, theta), np.where(better, D.returns, best)
        episodes.append(D)
    return theta, episodes


def es_gradient(c, theta, scale, tasks, noise):
    """es: ascent along an ES gradient from K / 2 antithetic pairs of queries, of returns over their deviation."""
    episodes, g = [], 0
    for _ in range(c.episodes // 2):
        eps = noise.standard_normal(theta.shape).astype(theta.dtype)
        step = c.inner_sigma * scale * eps
        pair = [rollout(c.family, c.network, x, tasks, 1, noise) for x in (theta + step, theta - step)]
        g = g + (pair[0].returns - pair[1].returns)[:, None] * eps
        episodes += pair
    deviation = np.std([D.returns for D in episodes], 0)[:, None] + 1e-8
    return theta + c.alpha * scale * g / (len(episodes) * deviation), episodes


def policy_gradient(c, theta, scale, tasks, noise):
    """pg: the inner step of MAML, with alpha times `scale` for step size."""
    leaf = Tensor(theta)
    D = rollout(c.family, c.network, theta, tasks, c.episodes, noise)
    return theta - c.alpha * scale * grad(surrogate(c, leaf, D), leaf).data, [D]


INNER_LOOPS = {"pg": policy_gradient, "es": es_gradient, "hc": hill_climb}


def unpack(c, x):
    """From meta-parameters (T, P or 2P): theta (T, P), and the scale of noise or step of each, the exp of the rest."""
    theta, rest = np.split(x.astype(c.dtype), [c.network.size], -1)
    return theta, np.exp(rest) if c.learn_scale else np.ones_like(theta)


def fitness(c, x, tasks, address):
    """v = f^T(U(x, T)) of n members on each of T tasks, all under the same noise (Song et al. 2020, l.4).

    x: (T, n, P or 2P). Returns the values (T, n) and the summary of the episodes (T, 3).
    """
    T, n, _ = x.shape
    (theta, scale), tasks, episodes = unpack(c, x.reshape(T * n, -1)), np.repeat(tasks, n, 0), []
    for k in range(c.inner_steps):
        theta, taken = INNER_LOOPS[c.inner](c, theta, scale, tasks, Common(rng(*address, k), n))
        episodes += taken
    noise = Common(rng(*address, c.inner_steps), n)  # not the noise that it adapted to
    D = rollout(c.family, c.network, theta, tasks, 1 if c.deterministic else c.episodes, noise)
    log = summary([*episodes, D]).reshape(T, n, 3)
    return D.returns.reshape(T, n), np.stack([*log.mean(1).T[:2], log[..., 2].sum(1)], 1)


def strategy(c, state, noise):
    """The evolution strategy of the algorithm, where the last iteration left it."""
    if c.algo == "es-maml":
        s = es.OpenAIES(state["theta"], c.sigma, c.population, noise, c.fitness, c.outer_optimizer, c.beta)
    elif c.algo == "nes":
        s = NES[c.nes](state["theta"], c.sigma, c.population, noise)
    else:
        s = es.CMAES(state["theta"], c.sigma, c.population, noise, diagonal=state["theta"].size > 500)
    return s.restore({**s.state(), **state, "mean": state["theta"]})


def moved(state, s):
    """The state with what the strategy s has moved."""
    return {**state, **{name: getattr(s, name) for name in s.MOVING if name != "mean"}, "theta": s.mean}


def es_maml(c, state, address, each):
    """One iteration of zero-order ES-MAML (Song et al. 2020, Algorithm 2) from antithetic pairs, n counting both.

    With c.fitness "raw" and SGD to the letter; ranks and Adam take the place of values and step size otherwise.
    """
    s = strategy(c, state, rng(*address, ASK))
    x = s.ask()  # l.2, theta + sigma g: rows i and i + n/2 are a pair
    tasks = sample_tasks(c, c.population // 2, rng(*address, TASKS))  # l.2, one for each pair
    v, log = each(fitness, c, np.stack(np.split(x, 2), 1), tasks, (*address, INNER))  # l.3-5
    s.tell(x, -v.T.ravel())  # l.6
    return moved(record(state, log), s)


def distribution(c, state, address, each):
    """One generation of NES or CMA-ES on the mean return after adaptation, all members on the same tasks."""
    s = strategy(c, state, rng(*address, ASK))
    x = s.ask()
    tasks = sample_tasks(c, c.tasks, rng(*address, TASKS))
    v, log = each(fitness, c, np.broadcast_to(x, (len(tasks), *x.shape)), tasks, (*address, INNER))
    s.tell(x, -v.mean(0))
    return moved(record(state, log), s)


BLACK_BOXES = {"es-maml": es_maml, "nes": distribution, "cma-es": distribution}
ALGORITHMS = {"maml": maml, "fomaml": maml, "joint": maml, "reptile": reptile, **BLACK_BOXES}
NES = {"snes": es.SNES, "xnes": es.XNES}


# --- A run ---
def sample_tasks(c, n, rng, split="train"):
    """n tasks (n, D) of the family's split, in the dtype of the run."""
    return c.family.sample_tasks(n, rng, split).astype(c.dtype)


def initial_state(c):
    """Everything that a run carries from one iteration to the next: a flat dict of arrays.

    theta (P,), with meta-learned scales (2P,); Adam's moments m, v or the shape of the strategy's distribution, if
    there are any; t, the number of iterations done; env_steps, taken so far; pre and post, the mean return in the
    first and last episodes of the latest iteration.
    """
    theta = c.network.init(rng(c.seed, INIT)).astype(c.dtype)
    state = {"t": np.array(0), "env_steps": np.array(0.0), "pre": np.array(0.0), "post": np.array(0.0)}
    if c.algo in BLACK_BOXES:
        x = np.append(theta, np.zeros(c.network.size * c.learn_scale)).astype(float)
        return moved(state, strategy(c, {"theta": x}, None))
    adam = c.algo != "reptile" and c.outer_optimizer == "adam"
    return {**state, "theta": theta, **({"m": 0 * theta, "v": 0 * theta} if adam else {})}


def train(c, state, each=each):
    """Iterate the algorithm from `state`, yielding the state after each iteration, without end."""
    while True:
        state = {**ALGORITHMS[c.algo](c, state, (c.seed, TRAIN, int(state["t"])), each), "t": state["t"] + 1}
        yield (state := {name: np.asarray(value) for name, value in state.items()})


def adaptation(c, theta, tasks, address):
    """From meta-parameters (P,) to theta (T, P) after 0, 1, 2, ... adaptations to each task, without end."""
    x = np.tile(theta, (len(tasks), 1))
    if c.algo in BLACK_BOXES:
        theta, scale = unpack(c, x)
        for k in count():
            yield theta
            theta, _ = INNER_LOOPS[c.inner](c, theta, scale, tasks, rng(*address, k))
    yield x
    for theta, _ in inner_loop(c, Tensor(x), tasks, address):
        yield theta.data


def returns_by_step(c, theta, tasks, address):
    """(T, test_steps + 1): the mean return of each task after 0, 1, ... adaptation steps, on episodes of its own."""
    columns = []
    for k, adapted in enumerate(islice(adaptation(c, theta, tasks, (*address, INNER)), c.test_steps + 1)):
        D = rollout(c.family, c.network, adapted, tasks, c.test_episodes, rng(*address, MEASURE, k))
        columns.append(D.returns)
    return (np.stack(columns, 1),)


def meta_test(c, theta, each=each):
    """Adapt theta (P,) to held-out tasks. Returns the tasks (n, D) and the returns after each step (n, steps + 1)."""
    tasks = sample_tasks(c, c.test_tasks, rng(c.seed, TEST, TASKS), "test")
    c = replace(c, episodes=c.adapt_episodes)
    return tasks, each(returns_by_step, c, theta, tasks, (c.seed, TEST, INNER))[0]


# --- Every option of a run ---
BANDITS = {"policy": "linear", "gamma": 0.0, "baseline": "none", "alpha": 8.0, "beta": 0.03, "tasks": 40}
BANDITS |= {"episodes": 1, "test_tasks": 400, "adapt_episodes": 1}
BLACK_BOX = {"policy": "linear", "inner": "hc", "learn_scale": True, "deterministic": True, "episodes": 20}
BLACK_BOX |= {"adapt_episodes": 20, "test_tasks": 400, "test_episodes": 1}
DEFAULTS = {  # what differs from Setting by family, by algorithm, and by both; the later wins
    "reptile": {"inner_steps": 3},
    "joint": {"inner_steps": 0},
    "es-maml": BLACK_BOX | {"population": 500, "beta": 0.05, "sigma": 0.2, "iterations": 300},
    "nes": BLACK_BOX,
    "cma-es": BLACK_BOX,
    "sparse-pointmass": {"alpha": 0.25, "test_tasks": 80},
    "fourcorners": {"hidden": (32,), "iterations": 150, "test_tasks": 80},
    "bandit": BANDITS,
    "linear-bandit": BANDITS,
    "maml turned-pointmass": {"alpha": 1.0},
    "reptile fourcorners": {"alpha": 1.0},
    "reptile bandit": {"alpha": 1.0, "epsilon": 0.03},
    "reptile linear-bandit": {"alpha": 1.0, "epsilon": 0.03},
}


def option(default, help, allowed):
    """A field with its default, its one-line help, and what is allowed: in words, and as a predicate."""
    words, holds = allowed
    return field(default=None, metadata={"default": default, "help": help, "allowed": words, "holds": holds})


# fmt: off
def flag(f): return "--" + f.name.replace("_", "-")
def one_of(*names): return ", ".join(names), lambda value: value in names
def whole(least): return f"a whole number of at least {least}", lambda n: type(n) is int and n >= least
POSITIVE = "a finite number above 0", lambda x: type(x) in (int, float) and 0 < x < math.inf
FRACTION = "a number from 0 to 1", lambda x: type(x) in (int, float) and 0 <= x <= 1
WIDTHS = "whole numbers above 0", lambda ns: type(ns) is tuple and all(type(n) is int and n > 0 for n in ns)
FAMILY = ", ".join(envs.FAMILIES), lambda name: name.partition(":")[0] in envs.FAMILIES
TRUTH = "True or False", lambda value: type(value) is bool
# fmt: on


@dataclass(frozen=True)
class Setting:
    """All options of a run, each a plain value; ValueError for one that is not allowed.

    What is None takes its default, or that of algorithm and family in DEFAULTS. In Python `env` and `policy` may also
    be objects that behave like a family of envs.py and like Policy.
    """

    algo: str = option("maml", "algorithm", one_of(*ALGORITHMS))
    env: str = option("pointmass", "task family, with options as in bandit:arms=10", FAMILY)
    policy: str = option("mlp", "policy network; linear has no hidden layers", one_of("linear", "mlp"))
    hidden: tuple = option((64, 64), "units in each hidden layer of the mlp", WIDTHS)
    activation: str = option("tanh", "of the hidden layers", one_of(*policies.ACTIVATIONS))
    alpha: float = option(0.5, "inner step size", POSITIVE)
    alpha_decay: float = option(0.5, "factor on alpha in inner steps after the first", POSITIVE)
    beta: float = option(0.003, "outer step size of maml, fomaml, joint and es-maml", POSITIVE)
    epsilon: float = option(1.0, "outer step of reptile, a fraction of the way to phi_k", POSITIVE)
    tasks: int = option(20, "tasks in an iteration", whole(1))
    episodes: int = option(20, "K, episodes of a task for one inner step: for a gradient, or as queries", whole(1))
    inner_steps: int = option(1, "k, inner steps in training; joint has none", whole(0))
    inner_optimizer: str = option("sgd", "of the inner steps; maml takes sgd only", one_of("sgd", "adam"))
    outer_optimizer: str = option("adam", "of maml, fomaml, joint and es-maml", one_of("sgd", "adam"))
    max_norm: float = option(10.0, "length to which a longer outer gradient is scaled down", POSITIVE)
    gamma: float = option(0.99, "discount of rewards, per time step", FRACTION)
    lam: float = option(1.0, "lambda of the generalised advantages", FRACTION)
    baseline: str = option("time", "what returns-to-go are compared with", one_of(*policies.BASELINES))
    standardise: bool = option(True, "scale the advantages of a task to mean 0, deviation 1", TRUTH)
    iterations: int = option(100, "outer steps", whole(1))
    seed: int = option(0, "of all noise", whole(0))
    dtype: str = option("float64", "of all numbers", one_of("float32", "float64"))
    test_tasks: int = option(40, "held-out tasks", whole(2))
    test_episodes: int = option(40, "episodes that measure the return on a held-out task", whole(1))
    adapt_episodes: int = option(40, "episodes for one adaptation step on a held-out task", whole(1))
    test_steps: int = option(3, "adaptation steps on held-out tasks", whole(0))
    inner: str = option("pg", "inner loop of es-maml, nes and cma-es", one_of(*INNER_LOOPS))
    inner_sigma: float = option(0.3, "noise of the queries of the inner loops es and hc", POSITIVE)
    learn_scale: bool = option(False, "meta-learn the inner noise or step of each parameter", TRUTH)
    deterministic: bool = option(False, "act by the mode of the policy; not with policy gradients", TRUTH)
    population: int = option(24, "n, points in a generation of es-maml, nes and cma-es", whole(2))
    sigma: float = option(0.1, "first standard deviation of es-maml, nes and cma-es", POSITIVE)
    fitness: str = option("ranks", "what es-maml weighs directions by", one_of("raw", "standardised", "ranks"))
    nes: str = option("snes", "the strategy of nes", one_of(*NES))
    compare: str = option("none", "a baseline to train and test beside it", one_of("none", "joint"))

    def __post_init__(self):
        algo, family = self.algo or "maml", str(self.env or "pointmass").partition(":")[0]
        special = {k: v for layer in (family, algo, f"{algo} {family}") for k, v in DEFAULTS.get(layer, {}).items()}
        for f in fields(self):
            if getattr(self, f.name) is None:
                object.__setattr__(self, f.name, special.get(f.name, f.metadata["default"]))
            value = getattr(self, f.name)
            if isinstance(value, str) or f.name not in ("env", "policy"):
                self.require(f.metadata["holds"](value), f.name, f.metadata["allowed"])
        black, pg = algo in BLACK_BOXES, self.inner == "pg"
        if isinstance(self.policy, str):
            self.require(self.network.size <= 10**7, "hidden", "at most ten million parameters")
        self.require((algo == "joint") == (self.inner_steps == 0), "inner_steps", "0 for joint, else at least 1")
        self.require(algo != "maml" or self.inner_optimizer == "sgd", "inner_optimizer", "sgd for maml")
        self.require(black or pg, "inner", f"pg for {algo}")
        for name in ("episodes", "adapt_episodes"):
            self.require(
                self.inner != "es" or getattr(self, name) > 1, name, "at least 2, a pair, for the inner loop es"
            )
        self.require(not black or self.compare == "none", "compare", f"none for {algo}: joint takes policy gradients")
        self.require(not (pg and self.deterministic), "deterministic", "off for policy gradients")
        self.require(algo != "es-maml" or self.population % 2 == 0, "population", "even for es-maml, as pairs are")

    def require(self, holds, name, allowed):
        if not holds:
            raise ValueError(f"{flag(self.__dataclass_fields__[name])} {getattr(self, name)}: must be {allowed}")

    @cached_property
    def family(self):
        return envs.make(self.env) if isinstance(self.env, str) else self.env

    @cached_property
    def network(self):
        if not isinstance(self.policy, str):
            return self.policy
        env, hidden = self.family, self.hidden if self.policy == "mlp" else ()
        return policies.Policy(env.obs_dim, env.action_dim, env.discrete, hidden, self.activation, self.deterministic)


if __name__ == "__main__":
    from cli import main  # cli imports metarl under its own name: one copy of every class

    raise SystemExit(main())
