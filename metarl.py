"""Outer-loop meta-reinforcement learning: the algorithms and nothing else.

How to read it: `adapt` is the inner loop U(theta, task), a few steps of policy gradient. `meta_gradient` sends a
gradient through it. The outer loops `maml` and `reptile` are pure functions from state and address to state, and
carry the line numbers of their pseudo-code. `train` iterates one of them, `meta_test` judges the result on tasks
never trained on. Every option of a run, `c`, is in settings.py; what surrounds a run (files, errors) in cli.py.

    symbol        in code          shape           meaning
    theta, phi    theta, phi       (P,)            meta-parameters (phi in Reptile)
    theta'_i      theta_prime      (T, P)          parameters adapted to task i
    alpha, beta   c.alpha, c.beta  scalar          inner and outer step size
    x             x                (P,) or (2P,)   theta and, if they are learned, the inner step sizes
    epsilon       c.epsilon        scalar          Reptile's outer step
    D, D'         D, D_prime       Trajectories    episodes before and after adaptation
    T, K, H, P                                     tasks, episodes per task, horizon, parameters

Losses are minimised: L is minus the return. Noise is addressed, not consumed: the same address gives the same
noise, so every step can be repeated, resumed, or computed elsewhere with the same result.
"""

import os

for _name in (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
):
    os.environ.setdefault(_name, "1")  # before NumPy is imported: our parallelism is over tasks

from dataclasses import replace
from itertools import count, islice

import numpy as np

import autodiff as ad
import es
from autodiff import Tensor, grad
from policies import Common, rollout, sampling_term, surrogate

GRADIENTS = (
    "maml",
    "fomaml",
    "emaml",
    "joint",
)  # learn by gradients of the return after adaptation
BLACK_BOXES = ("es-maml", "nes", "cma-es")  # learn from the return after adaptation alone

INIT, TRAIN, TEST = range(3)  # what noise is for: stands in its address after the seed
TASKS, INNER, MEASURE, ASK = range(4)  # and further on
CHUNK = 5  # tasks that are worked on together, whatever the number of workers


def noise_at(seed, *address):
    """The generator of the noise at an address, a sequence of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=address))


def in_chunks(f, c, theta, tasks, address, map=map):
    """f(c, theta, tasks, address) in chunks of tasks (and of theta, unless all tasks share it, (P,)).

    f returns arrays with a row per task; so does `each`. A chunk's noise is addressed by its first row.
    map: the builtin, or that of any concurrent.futures executor. The chunks do not depend on it.
    """
    members = theta.shape[1] if theta.ndim == 3 else 1  # (T, n, P): n for each task
    size = (
        CHUNK if c.inner == "pg" else max(1, 2000 // members)
    )  # no graph to hold, but small arrays
    starts = range(0, len(tasks), size)
    rows = [slice(i, i + size) for i in starts]
    thetas = [theta[r] if theta.ndim > 1 else theta for r in rows]
    chunks = map(
        f, [c] * len(rows), thetas, [tasks[r] for r in rows], [(*address, i) for i in starts]
    )
    return [np.concatenate(column) for column in zip(*chunks, strict=True)]


# --- The inner loop ---
def adam(g, m, v, t):
    """The direction of Adam's step number t >= 1, and its moments (Kingma & Ba 2015, Algorithm 1)."""
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return m / (1 - 0.9**t) / (ad.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v


def unpack(c, x):
    """From x (..., P or 2P): theta (..., P), and the factor on the inner step size of each parameter, exp of the rest.

    Meta-SGD (Li et al. 2017), but for the exponential, which keeps step sizes positive.
    """
    return (x[..., : c.network.size], ad.exp(x[..., c.network.size :])) if c.learn_alpha else (x, 1)


def sampler(c, tasks, address):
    """The episodes of inner step k: a function of k and theta (T, P)."""
    return lambda k, theta: rollout(
        c.family, c.network, theta, tasks, c.episodes, noise_at(*address, k)
    )


def inner_loop(c, x, sample, create_graph=False):
    """Policy-gradient steps from x (T, P or 2P), a Tensor, in each task; after each step theta (T, P) and its episodes."""
    (theta, scale), m, v = unpack(c, x), 0, 0
    for k in count():
        D = sample(k, theta.data)  # l.5
        g = grad(
            ad.sum(surrogate(c, theta, D, c.estimator)), theta, create_graph=create_graph
        )  # l.6
        if c.inner_optimizer == "adam":
            g, m, v = adam(g, m, v, k + 1)
        theta = theta - (c.alpha if k == 0 else c.alpha * c.alpha_decay) * scale * g  # l.7
        yield theta, D


def adapt(c, x, sample, create_graph=False):
    """The inner loop U of k = c.inner_steps steps from x (T, P or 2P), a Tensor, on the episodes that `sample` gives.

    create_graph: record the steps, so that a gradient can pass through them. Returns [theta, ..., theta'], Tensors
    (T, P) before and after each step, and the list of the k Trajectories that they took.
    """
    steps = list(islice(inner_loop(c, x, sample, create_graph), c.inner_steps))
    return [unpack(c, x)[0], *(theta for theta, _ in steps)], [D for _, D in steps]


def summary(episodes):
    """(T, 3): each task's mean return in the first and in the last of the Trajectories, its environment steps."""
    steps = sum(D.mask.sum((1, 2)) for D in episodes)
    return np.stack([episodes[0].returns, episodes[-1].returns, steps], 1)


# --- The outer loops ---
def lifetime(c, x, sample):
    """The path [theta, ..., theta'] of the inner loop from x, to be differentiated; its Trajectories and D', k + 1."""
    path, episodes = adapt(c, x, sample, create_graph=c.estimator != "first-order")  # l.4-7
    return path, [*episodes, sample(c.inner_steps, path[-1].data)]  # l.8


def meta_loss(c, x, sample):
    """(T,): the loss of each task after adaptation, as a function of x before it; and the k + 1 Trajectories.

    Two objectives. J^I is the return after steps along the true gradient: the chain rule through theta', exact with
    dice and infinitely many episodes. J^II_K is the expected return after steps on K sampled episodes; these too
    depend on theta, and `sampling` adds what that contributes: with log-prob, exactly (E-MAML, Stadie et al. 2018).
    """
    path, episodes = lifetime(c, x, sample)
    loss = surrogate(c, path[-1], episodes[-1])  # l.10
    return loss + sampling_term(c, path, episodes) if c.sampling_term else loss, episodes


def meta_gradient(c, x, tasks, address):
    """For each task the gradient of `meta_loss`, (T, P or 2P), and the summary of the episodes, (T, 3).

    With the estimator first-order the inner gradients are constants, so that the chain rule passes through
    theta' = theta - alpha * g as through the identity. joint has no inner steps: a policy gradient.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    loss, episodes = meta_loss(c, x, sampler(c, tasks, address))
    return grad(ad.sum(loss), x).data, summary(episodes)  # l.10


def maml(c, state, address, in_chunks):
    """One iteration of MAML for RL (Finn et al. 2017, Algorithm 3), with the mean over tasks for the sum in l.10.

    Also of fomaml, its first-order form (section 5.2), of emaml, and of joint, which trains one policy for all tasks.
    """
    tasks = sample_tasks(c, c.tasks, noise_at(*address, TASKS))  # l.3
    g, log = in_chunks(meta_gradient, c, state["theta"], tasks, (*address, INNER))  # l.4-9
    state, g = record(state, log), g.mean(0)
    if c.outer != "trpo":
        return descend(c, state, g)  # l.10
    from trpo import trpo  # which needs this module

    return trpo(c, state, g, tasks, (*address, INNER), in_chunks)


def reptile_adapt(c, phi, tasks, address):
    """U for Reptile: phi_k (T, P) and the summary of the episodes (T, 3)."""
    path, episodes = adapt(c, Tensor(np.tile(phi, (len(tasks), 1))), sampler(c, tasks, address))
    return path[-1].data, summary(episodes)


def reptile(c, state, address, in_chunks):
    """One iteration of Reptile (Nichol et al. 2018, Algorithm 1), serial with one task, else batched over tasks."""
    phi = state["theta"]
    tau = sample_tasks(c, c.tasks, noise_at(*address, TASKS))  # l.3
    phi_k, log = in_chunks(reptile_adapt, c, phi, tau, (*address, INNER))  # l.4
    return {**record(state, log), "theta": phi + c.epsilon * (phi_k - phi).mean(0)}  # l.5


def descend(c, state, g):
    """One step of the outer optimiser against the gradient g (P,), scaled down to the length c.max_norm."""
    norm = np.sqrt((g * g).sum())
    g = g * np.minimum(1, c.max_norm / norm) if norm > 0 else g
    if c.outer == "adam":
        g, m, v = adam(g, state["m"], state["v"], int(state["t"]) + 1)
        state = {**state, "m": m, "v": v}
    beta = (
        np.repeat([c.beta, c.beta_alpha], c.network.size).astype(g.dtype)
        if c.learn_alpha
        else c.beta
    )
    return {**state, "theta": state["theta"] - beta * g}  # l.10


def record(state, log):
    """The state with the returns and environment steps of an iteration's episodes, from their summaries (T, 3)."""
    pre, post, _ = log.mean(0)
    return {**state, "pre": pre, "post": post, "env_steps": state["env_steps"] + log[:, 2].sum()}


# --- Without meta-gradients: the return after adaptation takes the place of the loss ---


def hill_climb(c, theta, scale, tasks, noise):
    """hc: of K queries the first is theta, each other a step at random from the best so far (Song et al. 2020)."""
    D = rollout(c.family, c.network, theta, tasks, 1, noise, keep=False)
    best, episodes = D.returns, [D]
    for _ in range(c.episodes - 1):
        trial = theta + c.inner_sigma * scale * noise.standard_normal(theta.shape).astype(
            theta.dtype
        )
        D = rollout(c.family, c.network, trial, tasks, 1, noise, keep=False)
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
        pair = [
            rollout(c.family, c.network, x, tasks, 1, noise, keep=False)
            for x in (theta + step, theta - step)
        ]
        g = g + (pair[0].returns - pair[1].returns)[:, None] * eps
        episodes += pair
    deviation = np.std([D.returns for D in episodes], 0)[:, None] + 1e-8  # over all queries, by n
    return theta + c.alpha * scale * g / (len(episodes) * deviation), episodes


def policy_gradient(c, theta, scale, tasks, noise):
    """pg: the inner step of MAML, with alpha times `scale` for step size."""
    leaf = Tensor(theta)
    D = rollout(c.family, c.network, theta, tasks, c.episodes, noise)
    return theta - c.alpha * scale * grad(ad.sum(surrogate(c, leaf, D)), leaf).data, [D]


INNER_LOOPS = {"pg": policy_gradient, "es": es_gradient, "hc": hill_climb}


def fitness(c, x, tasks, address):
    """v = f^T(U(x, T)) of n members on each of T tasks, all under the same noise (Song et al. 2020, l.4).

    x: (T, n, P or 2P). Returns the values (T, n) and the summary of the episodes (T, 3).
    """
    T, n, _ = x.shape
    (theta, scale), tasks, episodes = (
        unpack(c, x.reshape(T * n, -1).astype(c.dtype)),
        np.repeat(tasks, n, 0),
        [],
    )
    for k in range(c.inner_steps):
        theta, taken = INNER_LOOPS[c.inner](
            c, theta, scale, tasks, Common(noise_at(*address, k), n)
        )  # l.4, U
        episodes += taken
    noise = Common(noise_at(*address, c.inner_steps), n)  # not the noise that it adapted to
    D = rollout(
        c.family, c.network, theta, tasks, 1 if c.deterministic else c.episodes, noise, keep=False
    )  # l.4, f
    log = summary([*episodes, D]).reshape(T, n, 3)
    return D.returns.reshape(T, n), np.stack([*log.mean(1).T[:2], log[..., 2].sum(1)], 1)


def strategy(c, state, noise):
    """The evolution strategy of the algorithm, where the last iteration left it."""
    if c.algo == "es-maml":
        s = es.OpenAIES(state["theta"], c.sigma, c.population, noise, c.fitness, c.outer, c.beta)
    elif c.algo == "nes":
        s = NES[c.nes](state["theta"], c.sigma, c.population, noise)
    else:
        s = es.CMAES(
            state["theta"], c.sigma, c.population, noise, diagonal=state["theta"].size > 500
        )
    return s.restore({**s.state(), **state, "mean": state["theta"]})


def moved(state, s):
    """The state with what the strategy s has moved."""
    return {
        **state,
        **{name: getattr(s, name) for name in s.MOVING if name != "mean"},
        "theta": s.mean,
    }


def es_maml(c, state, address, in_chunks):
    """One iteration of zero-order ES-MAML (Song et al. 2020, Algorithm 2) from antithetic pairs, n counting both.

    With c.fitness "raw" and SGD to the letter; ranks and Adam take the place of values and step size otherwise.
    """
    s = strategy(c, state, noise_at(*address, ASK))
    x = s.ask()  # l.2, theta + sigma g: rows i and i + n/2 are a pair
    tasks = sample_tasks(c, c.population // 2, noise_at(*address, TASKS))  # l.2, one for each pair
    v, log = in_chunks(fitness, c, np.stack(np.split(x, 2), 1), tasks, (*address, INNER))  # l.3-5
    s.tell(x, -v.T.ravel())  # l.6
    return moved(record(state, log), s)


def distribution(c, state, address, in_chunks):
    """One generation of NES or CMA-ES on the mean return after adaptation, all members on the same tasks."""
    s = strategy(c, state, noise_at(*address, ASK))
    x = s.ask()
    tasks = sample_tasks(c, c.tasks, noise_at(*address, TASKS))
    v, log = in_chunks(
        fitness, c, np.broadcast_to(x, (len(tasks), *x.shape)), tasks, (*address, INNER)
    )
    s.tell(x, -v.mean(0))
    return moved(record(state, log), s)


ALGORITHMS = {**dict.fromkeys(GRADIENTS, maml), "reptile": reptile, "es-maml": es_maml}
ALGORITHMS |= {"nes": distribution, "cma-es": distribution}
NES = {"snes": es.SNES, "xnes": es.XNES}


# --- A run ---
def sample_tasks(c, n, rng, split="train"):
    """n tasks (n, D) of the family's split, in the dtype of the run."""
    return c.family.sample_tasks(n, rng, split).astype(c.dtype)


def initial_state(c):
    """Everything that a run carries from one iteration to the next: a flat dict of arrays.

    theta (P,), with learned step sizes (2P,); Adam's moments m, v or the shape of the strategy's distribution, if
    there are any; t, the number of iterations done; env_steps, taken so far; pre and post, the mean return in the
    first and last episodes of the latest iteration.
    """
    theta = c.network.init(noise_at(c.seed, INIT))  # l.1
    x = np.append(theta, np.zeros(theta.size * c.learn_alpha))
    state = {
        "t": np.array(0),
        "env_steps": np.array(0.0),
        "pre": np.array(0.0),
        "post": np.array(0.0),
    }
    if c.algo in BLACK_BOXES:
        return moved(state, strategy(c, {"theta": x}, None))
    x = x.astype(c.dtype)
    adam = c.algo != "reptile" and c.outer == "adam"
    return {**state, "theta": x, **({"m": 0 * x, "v": 0 * x} if adam else {})}


def train(c, state, in_chunks=in_chunks):
    """Iterate the algorithm from `state`, yielding the state after each iteration, without end."""
    while True:  # l.2
        state = {
            **ALGORITHMS[c.algo](c, state, (c.seed, TRAIN, int(state["t"])), in_chunks),
            "t": state["t"] + 1,
        }
        yield (state := {name: np.asarray(value) for name, value in state.items()})


def adaptation(c, theta, tasks, address):
    """From meta-parameters (P or 2P,) to theta (T, P) after 0, 1, 2, ... adaptations to each task, without end."""
    x = np.tile(theta.astype(c.dtype), (len(tasks), 1))
    theta, scale = unpack(c, x)
    if c.algo in BLACK_BOXES:
        for k in count():
            yield theta
            theta, _ = INNER_LOOPS[c.inner](c, theta, scale, tasks, noise_at(*address, k))
    yield theta
    for theta, _ in inner_loop(c, Tensor(x), sampler(c, tasks, address)):
        yield theta.data


def returns_by_step(c, theta, tasks, address):
    """(T, test_steps + 1): the mean return of each task after 0, 1, ... adaptation steps, on episodes of its own."""
    columns = []
    for k, adapted in enumerate(
        islice(adaptation(c, theta, tasks, (*address, INNER)), c.test_steps + 1)
    ):
        D = rollout(
            c.family,
            c.network,
            adapted,
            tasks,
            c.test_episodes,
            noise_at(*address, MEASURE, k),
            keep=False,
        )
        columns.append(D.returns)
    return (np.stack(columns, 1),)


def meta_test(c, theta, in_chunks=in_chunks):
    """Adapt theta (P,) to held-out tasks. Returns the tasks (n, D) and the returns after each step (n, steps + 1)."""
    tasks = sample_tasks(c, c.test_tasks, noise_at(c.seed, TEST, TASKS), "test")
    c = replace(c, episodes=c.adapt_episodes)
    return tasks, in_chunks(returns_by_step, c, theta, tasks, (c.seed, TEST, INNER))[0]


if __name__ == "__main__":
    from harness.cli import main  # cli imports metarl under its own name: one copy of every class

    raise SystemExit(main())
