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
from itertools import chain, count, islice

import numpy as np

import autodiff as ad
import envs
import policies
from autodiff import Tensor, grad
from policies import rollout

INIT, TRAIN, TEST = range(3)  # what noise is for: stands in its address after the seed
TASKS, INNER, MEASURE = range(3)  # and further on
CHUNK = 5  # tasks that are worked on together, whatever the number of workers


def rng(seed, *address):
    """The generator of the noise at an address, a sequence of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=address))


def each(f, c, theta, tasks, address, map=map):
    """f(c, theta, tasks, address) in chunks of tasks (and of theta, if it has a row per task).

    f returns arrays with a row per task; so does `each`. A chunk's noise is addressed by its first row.
    map: the builtin, or that of any concurrent.futures executor.
    """
    starts = range(0, len(tasks), CHUNK)
    rows = [slice(i, i + CHUNK) for i in starts]
    thetas = [theta[r] if theta.ndim == 2 else theta for r in rows]
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

    maml differentiates through the inner steps. In fomaml their gradients are constants, so that the chain rule
    passes through theta' = theta - alpha * g as through the identity. joint has no inner steps: a policy gradient.
    Returns the meta-gradients (T, P) and the summary of the episodes (T, 3).
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


ALGORITHMS = {"maml": maml, "fomaml": maml, "joint": maml, "reptile": reptile}


def descend(c, state, g):
    """One step of the outer optimiser against the gradient g (P,), scaled down to the length c.max_norm."""
    norm = np.sqrt((g * g).sum())
    g = g * np.minimum(1, c.max_norm / norm) if norm > 0 else g
    if c.outer_optimizer == "adam":
        g, m, v = adam(g, state["m"], state["v"], int(state["t"]) + 1)
        state = {**state, "m": m, "v": v}
    return {**state, "theta": state["theta"] - c.beta * g}


def record(state, log):
    pre, post, _ = log.mean(0)
    return {**state, "pre": pre, "post": post, "env_steps": state["env_steps"] + log[:, 2].sum()}


# --- A run ---


def sample_tasks(c, n, rng, split="train"):
    return c.family.sample_tasks(n, rng, split).astype(c.dtype)


def initial_state(c):
    """Everything that a run carries from one iteration to the next: a flat dict of arrays.

    theta (P,); Adam's moments m, v (P,) where the algorithm has them; t, the number of iterations done; env_steps,
    taken so far; pre and post, the mean return in the first and last episodes of the latest iteration.
    """
    theta = c.network.init(rng(c.seed, INIT)).astype(c.dtype)
    state = {
        "theta": theta,
        "t": np.array(0),
        "env_steps": np.array(0.0),
        "pre": np.array(0.0),
        "post": np.array(0.0),
    }
    if c.algo != "reptile" and c.outer_optimizer == "adam":
        state |= {"m": np.zeros_like(theta), "v": np.zeros_like(theta)}
    return state


def train(c, state, each=each):
    """Iterate the algorithm from `state`, yielding the state after each iteration, without end."""
    while True:
        state = {**ALGORITHMS[c.algo](c, state, (c.seed, TRAIN, int(state["t"])), each), "t": state["t"] + 1}
        yield (state := {name: np.asarray(value) for name, value in state.items()})


def returns_by_step(c, theta, tasks, address):
    """(T, test_steps + 1): the mean return of each task after 0, 1, ... adaptation steps, on episodes of its own."""
    theta = Tensor(np.tile(theta, (len(tasks), 1)))
    adapted = chain([theta], (theta for theta, _ in inner_loop(c, theta, tasks, (*address, INNER))))
    columns = []
    for k, theta in enumerate(islice(adapted, c.test_steps + 1)):
        D = rollout(c.family, c.network, theta.data, tasks, c.test_episodes, rng(*address, MEASURE, k))
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
DEFAULTS = {  # what differs from Setting by algorithm, by family, and by both; the later wins
    "reptile": {"inner_steps": 3},
    "joint": {"inner_steps": 0},
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
    """A field with its default, its one-line help, and what is allowed: a predicate and its description."""
    holds, allowed = allowed
    return field(
        default=None, metadata={"default": default, "help": help, "holds": holds, "allowed": allowed}
    )


def flag(f):
    return "--" + f.name.replace("_", "-")


def require(holds, f, value, allowed):
    if not holds:
        raise ValueError(f"{flag(f)} {value}: must be {allowed}")


def one_of(*names):
    return lambda value: value in names, ", ".join(names)


def whole(least):
    return lambda n: type(n) is int and n >= least, f"a whole number of at least {least}"


POSITIVE = lambda x: type(x) in (int, float) and 0 < x < math.inf, "a finite number above 0"
FRACTION = lambda x: type(x) in (int, float) and 0 <= x <= 1, "a number from 0 to 1"
WIDTHS = lambda ns: type(ns) is tuple and all(type(n) is int and n > 0 for n in ns), "whole numbers above 0"
FAMILY = lambda name: name.partition(":")[0] in envs.FAMILIES, ", ".join(envs.FAMILIES)
TRUTH = lambda value: type(value) is bool, "True or False"


@dataclass(frozen=True)
class Setting:
    """All options of a run, each a plain value; ValueError for one that is not allowed.

    What is None takes its default, or that of algorithm and family in DEFAULTS. In Python `env` and `policy` may also be objects that
    behave like a family of envs.py and like Policy.
    """

    algo: str = option("maml", "algorithm", one_of(*ALGORITHMS))
    env: str = option("pointmass", "task family, with options as in bandit:arms=10", FAMILY)
    policy: str = option("mlp", "policy network; linear has no hidden layers", one_of("linear", "mlp"))
    hidden: tuple = option((64, 64), "units in each hidden layer of the mlp", WIDTHS)
    activation: str = option("tanh", "of the hidden layers", one_of(*policies.ACTIVATIONS))
    alpha: float = option(0.5, "inner step size", POSITIVE)
    alpha_decay: float = option(0.5, "factor on alpha in inner steps after the first", POSITIVE)
    beta: float = option(0.003, "outer step size of maml, fomaml and joint", POSITIVE)
    epsilon: float = option(1.0, "outer step of reptile, a fraction of the way to phi_k", POSITIVE)
    tasks: int = option(20, "tasks in an iteration", whole(1))
    episodes: int = option(20, "K, episodes of a task for one gradient", whole(1))
    inner_steps: int = option(1, "k, inner steps in training; joint has none", whole(0))
    inner_optimizer: str = option("sgd", "of the inner steps; maml takes sgd only", one_of("sgd", "adam"))
    outer_optimizer: str = option("adam", "of maml, fomaml and joint", one_of("sgd", "adam"))
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
    compare: str = option("none", "a baseline to train and test beside it", one_of("none", "joint"))

    def __post_init__(self):
        algo, family = self.algo or "maml", str(self.env or "pointmass").partition(":")[0]
        special = {
            k: v for layer in (algo, family, f"{algo} {family}") for k, v in DEFAULTS.get(layer, {}).items()
        }
        for f in fields(self):
            if getattr(self, f.name) is None:
                object.__setattr__(self, f.name, special.get(f.name, f.metadata["default"]))
            value = getattr(self, f.name)
            plain = isinstance(value, str) or f.name not in ("env", "policy")
            require(not plain or f.metadata["holds"](value), f, value, f.metadata["allowed"])
        options = {f.name: f for f in fields(self)}
        small = not isinstance(self.policy, str) or self.network.size <= 10**7
        require(small, options["hidden"], self.hidden, "at most ten million parameters")
        loops = (self.algo == "joint") == (self.inner_steps == 0)
        require(loops, options["inner_steps"], self.inner_steps, "0 for joint, at least 1 for the others")
        smooth = self.algo != "maml" or self.inner_optimizer == "sgd"
        require(smooth, options["inner_optimizer"], "adam", "sgd for maml: adam's root has no slope at 0")

    @cached_property
    def family(self):
        return envs.make(self.env) if isinstance(self.env, str) else self.env

    @cached_property
    def network(self):
        if not isinstance(self.policy, str):
            return self.policy
        env, hidden = self.family, self.hidden if self.policy == "mlp" else ()
        return policies.Policy(env.obs_dim, env.action_dim, env.discrete, hidden, self.activation)


if __name__ == "__main__":
    from cli import main  # cli imports metarl under its own name: one copy of every class

    raise SystemExit(main())
