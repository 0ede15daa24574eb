"""Outer-loop meta-reinforcement learning: the algorithms and nothing else.

How to read it, from top to bottom:

1. Noise and its addresses, and chunks of tasks: what every algorithm uses.
2. `adapt`, the inner loop U(theta, task): a few steps of policy gradient.
3. `meta_loss` and `meta_gradient`, which send a gradient through it.
4. The outer loops `maml` and `reptile`. Like all others they are pure functions from a state and an
   address to the next state, and carry the line numbers of their pseudo-code.
5. Black boxes, which need the return after adaptation and nothing else: `es_maml` and `evolve`.
6. A run: `initial_state`, `train`, the only loop over iterations, and `meta_test`, which judges the
   result on tasks never trained on.
7. TRPO in place of a gradient step, with which MAML was published.

    symbol         in code           shape          meaning
    theta, phi     theta, phi        (P,)           meta-parameters (phi in Reptile)
    theta'_i       path[-1]          (T, P)         parameters adapted to task i
    alpha, beta    c.alpha, c.beta   scalar         inner and outer step size
    x              x                 (P,) or (2P,)  theta and, if learned, log factors on the steps
    epsilon        c.epsilon         scalar         Reptile's outer step
    D, D'          D, D_prime        Trajectories   episodes before and after adaptation
    T, K, H, P                                      tasks, episodes per task, horizon, parameters

`c` holds the options of a run: `harness.settings.Setting`, which says what each one is, or another
dataclass with these attributes. c.family is the task family, c.pi the policy.
Losses are minimised: L is minus the return.
"""

import math
import os
import signal

# The imports take a while. Ctrl-C waits until `main` of harness/cli.py can answer it in a line.
if __name__ == "__main__" and hasattr(signal, "pthread_sigmask"):  # not on Windows
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

# One thread for linear algebra, before NumPy is imported: our parallelism is over tasks.
for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("VECLIB_MAXIMUM_THREADS", "1")

from dataclasses import replace
from functools import partial

import numpy as np

import autodiff as ad
import es
from autodiff import Tensor, grad
from policies import FIRST_ORDER, Common, length, log_pi_of, rollout, sampling_term, surrogate

# --- Noise ---
# Noise is addressed, not consumed: the same address gives the same noise, so that every step can be
# repeated, resumed, or computed elsewhere with the same result. An address is a sequence of numbers
# that begins with the seed of the run. These are all that a run uses:
#
#     (seed, INIT)                          the first theta
#     (seed, TRAIN, t, TASKS)               the tasks of iteration t
#     (seed, TRAIN, t, ASK)                 the population of iteration t, of NES and CMA-ES
#     (seed, TRAIN, t, ASK, i)              the directions of a chunk of pairs, of ES-MAML
#     (seed, TRAIN, t, INNER, i, k)         inner step k of a chunk; for k = inner_steps, D'
#     (seed, TEST, TASKS)                   the held-out tasks
#     (seed, TEST, INNER, i, INNER, k)      adaptation step k of a chunk of them
#     (seed, TEST, INNER, i, MEASURE, k)    the episodes that measure the return after k steps
#     (seed, TEST, PICTURES, k)             adaptation step k of the tasks that are drawn; for
#                                           k = test_steps, the episode in the picture
#
# t = 0, 1, ... counts iterations (the log counts from 1), k = 0, 1, ... steps, and i is the number
# of the first task of the chunk, counted from 0.

INIT = 0
TRAIN = 1
TEST = 2

TASKS = 0
INNER = 1
MEASURE = 2
ASK = 3
PICTURES = 4


def noise_at(seed, *address):
    """The generator of the noise at an address, (seed, *address)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=address))


# --- Chunks of tasks ---

# Chunks are what workers share. Small ones keep many workers busy; in large ones less time is lost
# between NumPy's operations. The size depends on the work alone, not on who is there to do it.

CHUNK = 5  # rows of theta, where gradients need a graph, which takes memory

# The inner loops es and hc need none. They work on rows of theta, one for each member and task. Of
# few rows a chunk takes hardly less time; from so many on that are ENOUGH, a row costs no less. So
# there are as many chunks as LEAST allows, up to CHUNKS; of large populations more, of about ENOUGH
# rows each. All is rounded to whole tasks.
CHUNKS = 8
LEAST = 200  # rows
ENOUGH = 1000  # rows


def in_chunks(f, c, x, tasks, address, members=1, map=map):
    """f(c, x, tasks, address), a chunk of tasks at a time, and the results put together again.

    x: what all tasks share, such as parameters (P,). f returns a list of arrays with a row for each
    of its tasks; so does this. A chunk's noise has the address of f with the number of its first
    task added.
    members: of a population that f judges on each task.
    map: the builtin, or that of any concurrent.futures executor, which shares the chunks among
    workers. The chunks do not depend on it, so the numbers do not either.
    """
    size = chunk_size(c, len(tasks), members)
    first = range(0, len(tasks), size)
    parts = [tasks[i : i + size] for i in first]
    addresses = [(*address, i) for i in first]
    n = len(first)
    results = map(f, [c] * n, [x] * n, parts, addresses)
    return [np.concatenate(column) for column in zip(*results, strict=True)]


def chunk_size(c, T, members):
    """The number of tasks in a chunk, if there are T, and on each of them some members."""
    if c.inner == "pg":  # as of all that is no black box
        return max(1, CHUNK // members)
    rows = T * members
    wanted = max(CHUNKS, rows // ENOUGH)
    possible = max(1, rows // LEAST)
    return math.ceil(T / min(wanted, possible, T))


def sample_tasks(c, n, rng, split="train"):
    """n tasks (n, D) of the family's split, in the dtype of the run."""
    return c.family.sample_tasks(n, rng, split).astype(c.dtype)


# --- The inner loop ---


def adapt(c, x, sample, create_graph=False, steps=None):
    """The inner loop U: policy-gradient steps from x (T, P or 2P), a Tensor, in each of T tasks.

    sample(k, theta) gives the episodes of step k, taken by theta (T, P): Trajectories.
    create_graph: record the inner gradients, so that theta' can be differentiated through them.
    steps: how many; c.inner_steps unless given.
    Returns the path [theta, ..., theta'], Tensors (T, P) before and after each step, and the list
    of the Trajectories that the steps took.
    """
    if steps is None:
        steps = c.inner_steps
    theta, scale = unpack(c, x)
    m = v = 0
    path = [theta]
    episodes = []
    for k in range(steps):
        D = sample(k, theta.data)  # MAML l.5
        loss = ad.sum(surrogate(c, theta, D, c.estimator))  # each row has a gradient of its own
        g = grad(loss, theta, create_graph=create_graph)  # MAML l.6, Reptile l.4
        if c.inner_optimizer == "adam":  # Reptile's alone: sqrt(v) has no derivative at 0
            g, m, v = adam(g, m, v, k + 1)
        alpha = c.alpha if k == 0 else c.alpha * c.alpha_decay  # shorter once, then constant
        theta = theta - alpha * scale * g  # MAML l.7, Reptile l.4
        path.append(theta)
        episodes.append(D)
    return path, episodes


def unpack(c, x):
    """From x (..., P or 2P): theta (..., P), and the factor on the inner step of each parameter.

    The factors are the exponential of the second half of x: Meta-SGD (Li et al. 2017), but for the
    exponential, which keeps step sizes positive. 1 where they are not learned.
    """
    if not c.learn_alpha:
        return x, 1
    P = c.pi.size
    if x.shape[-1] != 2 * P:
        raise ValueError(f"x has {x.shape[-1]} numbers, not {P} of the policy and {P} step sizes")
    return x[..., :P], ad.exp(x[..., P:])


def sampler(c, tasks, address):
    """The function `sample` of `adapt`: K episodes in each task under the noise at the address."""

    def sample(k, theta):
        return rollout(c.family, c.pi, theta, tasks, c.episodes, noise_at(*address, k))

    return sample


def adam(g, m, v, t):
    """The direction of Adam's step t = 1, 2, ..., and its moments (Kingma & Ba 2015, Alg. 1)."""
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    m_hat = m / (1 - 0.9**t)
    v_hat = v / (1 - 0.999**t)
    return m_hat / (ad.sqrt(v_hat) + 1e-8), m, v


# --- The gradient through the inner loop ---


def meta_loss(c, x, sample):
    """(T,): the loss of each task after adaptation, as a function of x before it; and the episodes.

    The episodes are the Trajectories of the inner steps and, last, D'.
    Its gradient is the chain rule through theta'. What it estimates depends on how one looks at the
    inner step. If that stands for a step along the true gradient, the objective is the return after
    it: docs/estimators.md calls it J^I. But the step is along a gradient from K sampled episodes,
    and theta also decides which. The expected return after such steps is J^II, and `sampling_term`
    adds what the chain rule leaves out (E-MAML, Stadie et al. 2018).
    """
    # This is what sets MAML apart from first-order MAML, and all that does. If the inner gradients
    # are recorded, theta' = theta - alpha g is differentiated with g as a function of theta. If
    # not, g is a constant, and the chain rule passes from theta' to theta as through the identity.
    # (Learned step sizes get their gradient either way: g is a factor of it.)
    path, episodes = adapt(c, x, sample, create_graph=second_order(c))  # MAML l.4-7
    theta_prime = path[-1]
    D_prime = sample(c.inner_steps, theta_prime.data)  # MAML l.8
    episodes = [*episodes, D_prime]
    loss = surrogate(c, theta_prime, D_prime)  # MAML l.10
    if c.sampling_term:
        loss = loss + sampling_term(c, path, episodes)
    return loss, episodes


def second_order(c):
    """Whether the gradient passes through the inner gradients."""
    return c.estimator not in FIRST_ORDER


def meta_gradient(c, x, tasks, address):
    """For each task the gradient of `meta_loss` by x (P or 2P,): (T, P or 2P); and the log (T, 3).

    Every task has a copy of x, so that each gets a gradient of its own.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    loss, episodes = meta_loss(c, x, sampler(c, tasks, address))
    g = grad(ad.sum(loss), x)  # MAML l.10
    return [g.data, log_of(episodes)]


def log_of(episodes):
    """(T, 3): each task's mean return in the first and the last Trajectories; environment steps."""
    steps = sum(D.mask.sum((1, 2)) for D in episodes)
    return np.stack([episodes[0].returns, episodes[-1].returns, steps], 1)


# --- The outer loops ---
# Their argument in_chunks is the function above, as it is or with workers (harness/workers.py).


def maml(c, state, address, in_chunks):
    """One iteration of MAML for RL (Finn et al. 2017, Algorithm 3), with the mean over tasks.

    Also of fomaml, its first-order form (section 5.2), and of emaml: they differ in `meta_loss`, by
    their estimator and the sampling term. And of joint, which has no inner steps: then it is the
    policy gradient of one policy for all tasks.
    """
    x = state["theta"]  # with the factors on the inner steps, if they are learned
    tasks = sample_tasks(c, c.tasks, noise_at(*address, TASKS))  # MAML l.3
    g, log = in_chunks(meta_gradient, c, x, tasks, (*address, INNER))  # MAML l.4-9
    g = g.mean(0)
    state = with_log(state, log)
    if c.outer == "trpo":
        return state | {"theta": trpo(c, x, g, tasks, (*address, INNER), in_chunks)}
    return descend(c, state, g)  # MAML l.10


def descend(c, state, g):
    """One step of the outer optimiser against the gradient g, scaled down to length c.max_norm."""
    # NumPy's minimum keeps the dtype. Of g = 0 the length is inf, and the factor 0.
    g = g * np.minimum(1, c.max_norm / length(g))
    if c.outer == "adam":
        g, m, v = adam(g, state["m"], state["v"], int(state["t"]) + 1)
        state = state | {"m": m, "v": v}
    beta = c.beta
    if c.learn_alpha:  # step sizes are learned at a rate of their own
        beta = np.repeat([c.beta, c.beta_alpha], c.pi.size).astype(g.dtype)
    return state | {"theta": state["theta"] - beta * g}  # MAML l.10


def reptile(c, state, address, in_chunks):
    """One iteration of Reptile (Nichol et al. 2018, Algorithm 1), batched over c.tasks tasks."""
    phi = state["theta"]
    tau = sample_tasks(c, c.tasks, noise_at(*address, TASKS))  # Reptile l.3
    phi_k, log = in_chunks(reptile_adapt, c, phi, tau, (*address, INNER))  # Reptile l.4
    phi = phi + c.epsilon * (phi_k - phi).mean(0)  # Reptile l.5
    return with_log(state, log) | {"theta": phi}


def reptile_adapt(c, phi, tasks, address):
    """phi_k (T, P), the end of k inner steps in each task, and the log (T, 3).

    No episodes are taken with phi_k itself: the last that are logged are those of the last step.
    """
    x = Tensor(np.tile(phi, (len(tasks), 1)))
    path, episodes = adapt(c, x, sampler(c, tasks, address))
    return [path[-1].data, log_of(episodes)]


def with_log(state, log):
    """The state with the mean returns and the environment steps of an iteration's log (T, 3)."""
    pre, post, _ = log.mean(0)
    env_steps = state["env_steps"] + log[:, 2].sum()
    return state | {"pre": pre, "post": post, "env_steps": env_steps}


# --- Black boxes: the return after adaptation takes the place of the loss ---
# The inner loop U of a black box is c.inner_steps times one of these functions. They take theta
# (rows, P), a factor on the step of each parameter, the task of each row and a generator, and
# return theta after the step and the Trajectories that it took.


def hill_climb(c, theta, scale, tasks, rng):
    """hc: hill climbing with K queries (Song et al. 2020).

    The first query is theta itself, each other a random step from the best so far. A return that is
    NaN is worse than any other.
    """
    D = rollout(c.family, c.pi, theta, tasks, 1, rng, keep=False)
    best = np.where(np.isnan(D.returns), -np.inf, D.returns)
    episodes = [D]
    for _ in range(c.episodes - 1):
        eps = rng.standard_normal(theta.shape).astype(theta.dtype)
        query = theta + c.inner_sigma * scale * eps
        D = rollout(c.family, c.pi, query, tasks, 1, rng, keep=False)
        returns = D.returns
        better = returns > best
        theta = np.where(better[:, None], query, theta)
        best = np.where(better, returns, best)
        episodes.append(D)
    return theta, episodes


def es_gradient(c, theta, scale, tasks, rng):
    """es: a step along an ES gradient from K / 2 antithetic pairs of queries.

    Returns are divided by their standard deviation over all queries (with the divisor n): where all
    are equal there is no step. The 1 / sigma of an ES gradient is left to alpha.
    """
    g = 0
    episodes = []
    for _ in range(c.episodes // 2):
        eps = rng.standard_normal(theta.shape).astype(theta.dtype)
        step = c.inner_sigma * scale * eps
        plus = rollout(c.family, c.pi, theta + step, tasks, 1, rng, keep=False)
        minus = rollout(c.family, c.pi, theta - step, tasks, 1, rng, keep=False)
        g = g + (plus.returns - minus.returns)[:, None] * eps
        episodes += [plus, minus]
    returns = np.stack([D.returns for D in episodes])
    deviation = length(returns - returns.mean(0), 0)[0] / np.sqrt(len(episodes))
    return theta + c.alpha * scale * g / (len(episodes) * deviation[:, None]), episodes


def policy_gradient(c, theta, scale, tasks, rng):
    """pg: a step of policy gradient on K episodes, always with step size alpha.

    For black boxes only: MAML and Reptile take theirs in `adapt`, with alpha_decay.
    """
    D = rollout(c.family, c.pi, theta, tasks, c.episodes, rng)
    leaf = Tensor(theta)
    g = grad(ad.sum(surrogate(c, leaf, D)), leaf).data
    return theta - c.alpha * scale * g, [D]


INNER_LOOPS = {"pg": policy_gradient, "es": es_gradient, "hc": hill_climb}


def fitness(c, x, tasks, address):
    """v = f(U(x, task)), the return after adaptation, of n members on each of T tasks: (T, n).

    And the log (T, 3). x: (n, P or 2P), the same members on all tasks, or (T, n, P or 2P). All
    members of a task are judged under the same noise.
    """
    T = len(tasks)
    n, size = x.shape[-2:]
    x = np.broadcast_to(x, (T, n, size))
    theta, scale = unpack(c, x.reshape(T * n, size).astype(c.dtype))
    tasks = np.repeat(tasks, n, 0)  # task by task, as the rows of theta
    episodes = []
    for k in range(c.inner_steps):
        rng = Common(noise_at(*address, k), n)
        theta, taken = INNER_LOOPS[c.inner](c, theta, scale, tasks, rng)  # ES-MAML l.4, U
        episodes += taken
    rng = Common(noise_at(*address, c.inner_steps), n)  # not the noise that it adapted to
    K = 1 if c.deterministic else c.episodes
    D = rollout(c.family, c.pi, theta, tasks, K, rng, keep=False)  # ES-MAML l.4, f
    v = D.returns.reshape(T, n)
    pre, post, steps = np.moveaxis(log_of([*episodes, D]).reshape(T, n, 3), 2, 0)
    return [v, np.stack([pre.mean(1), post.mean(1), steps.sum(1)], 1)]


def es_maml(c, state, address, in_chunks):
    """One iteration of zero-order ES-MAML (Song et al. 2020, Algorithm 2) from antithetic pairs.

    n = c.population counts both members of a pair, which share a task. Fitness "raw" and outer
    "sgd" follow the paper to the letter; the defaults are ranks and Adam.
    """
    theta = state["theta"]
    tasks = sample_tasks(c, c.population // 2, noise_at(*address, TASKS))  # ES-MAML l.2
    inner = (*address, INNER)
    v, log = in_chunks(fitness_of_pairs, c, theta, tasks, inner, members=2)  # ES-MAML l.3-5
    # A worker that judged pairs has also made them: it was sent theta and an address, no points
    # (Salimans et al. 2017, Algorithm 2). They are made once more from the same addresses, by the
    # builtin map: in this process, whatever workers there are.
    [x] = in_chunks(pairs, c, theta, tasks, inner, members=2, map=map)
    x = np.concatenate([x[:, 0], x[:, 1]])
    v = np.concatenate([v[:, 0], v[:, 1]])
    strategy = strategy_of(c, state, None)
    strategy.tell(x, -v)  # ES-MAML l.6
    return with_distribution(with_log(state, log), strategy)


def pairs(c, theta, tasks, address):
    """[(T, 2, P or 2P)]: for each task theta + sigma g and theta - sigma g."""
    *iteration, _, i = address  # (..., INNER, i): their noise is not that of the inner loop
    g = noise_at(*iteration, ASK, i).standard_normal((len(tasks), theta.size))  # ES-MAML l.2
    return [np.stack([theta + c.sigma * g, theta - c.sigma * g], 1)]


def fitness_of_pairs(c, theta, tasks, address):
    """The `fitness` of the pairs of a chunk: v (T, 2), and the log (T, 3)."""
    [x] = pairs(c, theta, tasks, address)
    return fitness(c, x, tasks, address)


def evolve(c, state, address, in_chunks):
    """One generation of NES or CMA-ES on the mean return after adaptation.

    All members are judged on the same tasks, or it would rank tasks, not members.
    """
    strategy = strategy_of(c, state, noise_at(*address, ASK))
    x = strategy.ask()
    tasks = sample_tasks(c, c.tasks, noise_at(*address, TASKS))
    v, log = in_chunks(fitness, c, x, tasks, (*address, INNER), members=len(x))
    strategy.tell(x, -v.mean(0))
    return with_distribution(with_log(state, log), strategy)


NES = {"snes": es.SNES, "xnes": es.XNES}
FULL_COVARIANCE = 500  # parameters; for more CMA-ES adapts the diagonal only


def strategy_of(c, state, rng):
    """The evolution strategy of the algorithm, where the last iteration left it.

    The state of a run holds what describes the strategy's distribution, its mean as theta, and the
    number t of iterations done. What else a strategy remembers, its best point and its history, is
    not kept: each generation has other tasks, so that their fitness cannot be compared.
    """
    x = state["theta"]
    if c.algo == "es-maml":
        strategy = es.OpenAIES(
            x, c.sigma, c.population, rng, fitness=c.fitness, optimizer=c.outer, lr=c.beta
        )
    elif c.algo == "nes":
        strategy = NES[c.nes](x, c.sigma, c.population, rng)
    else:
        diagonal = x.size > FULL_COVARIANCE
        strategy = es.CMAES(x, c.sigma, c.population, rng, diagonal=diagonal)
    entries = strategy.state()  # its mean is x already
    for name in ("t", *strategy.MOVING):
        if name in state:
            entries[name] = state[name]
    return strategy.restore(entries)


def with_distribution(state, strategy):
    """The state with what the strategy has moved."""
    moved = {name: getattr(strategy, name) for name in strategy.MOVING}
    theta = moved.pop("mean")
    return state | moved | {"theta": theta}


# --- A run ---

GRADIENTS = ("maml", "fomaml", "emaml", "joint")  # learn by the gradient of `meta_loss`
BLACK_BOXES = ("es-maml", "nes", "cma-es")  # learn from the return after adaptation alone
ALGORITHMS = {
    "maml": maml,
    "fomaml": maml,
    "emaml": maml,
    "joint": maml,
    "reptile": reptile,
    "es-maml": es_maml,
    "nes": evolve,
    "cma-es": evolve,
}


def initial_state(c):
    """Everything that a run carries from one iteration to the next: a flat dict of arrays.

    theta (P,), with learned step sizes (2P,); Adam's moments m, v or the shape of the strategy's
    distribution, if there are any; t, the number of iterations done; env_steps, taken so far; pre
    and post, the mean return in the first and in the last episodes of the latest iteration, before
    and after adaptation (Reptile: before its last step).
    """
    theta = c.pi.init(noise_at(c.seed, INIT))  # MAML l.1, Reptile l.1
    if c.learn_alpha:
        theta = np.append(theta, np.zeros(theta.size))  # factors exp(0) = 1
    state = {
        "t": np.array(0),
        "env_steps": np.array(0.0),
        "pre": np.array(0.0),
        "post": np.array(0.0),
    }
    if c.algo in BLACK_BOXES:
        return with_distribution(state, strategy_of(c, {"theta": theta}, None))
    theta = theta.astype(c.dtype)
    state["theta"] = theta
    if c.outer == "adam" and c.algo in GRADIENTS:
        state["m"] = np.zeros_like(theta)
        state["v"] = np.zeros_like(theta)
    return state


def train(c, state, in_chunks=in_chunks):
    """Iterate the algorithm from `state`, yielding the state after each iteration, without end."""
    while True:  # MAML l.2, Reptile l.2, ES-MAML l.1
        t = int(state["t"])
        state = ALGORITHMS[c.algo](c, state, (c.seed, TRAIN, t), in_chunks)
        state = state | {"t": t + 1}
        state = {name: np.asarray(value) for name, value in state.items()}
        yield state


def meta_test(c, x, in_chunks=in_chunks):
    """Adapt x (P or 2P,) to held-out tasks.

    Returns the tasks (n, D), and the mean return of each before any and after each adaptation step,
    (n, test_steps + 1).
    """
    tasks = sample_tasks(c, c.test_tasks, noise_at(c.seed, TEST, TASKS), "test")
    c = replace(c, episodes=c.adapt_episodes)
    [returns] = in_chunks(returns_by_step, c, x, tasks, (c.seed, TEST, INNER))
    return tasks, returns


def returns_by_step(c, x, tasks, address):
    """[(T, test_steps + 1)]: the return of each task after 0, 1, ... steps, on fresh episodes."""
    columns = []
    for k, theta in enumerate(adapted_by_step(c, x, tasks, (*address, INNER))):
        rng = noise_at(*address, MEASURE, k)
        D = rollout(c.family, c.pi, theta, tasks, c.test_episodes, rng, keep=False)
        columns.append(D.returns)
    return [np.stack(columns, 1)]


def adapted_by_step(c, x, tasks, address):
    """From x (P or 2P,) to a list of theta (T, P) after 0, 1, ..., test_steps adaptation steps."""
    x = np.tile(x.astype(c.dtype), (len(tasks), 1))
    if c.algo not in BLACK_BOXES:
        path, _ = adapt(c, Tensor(x), sampler(c, tasks, address), steps=c.test_steps)
        return [theta.data for theta in path]
    theta, scale = unpack(c, x)
    path = [theta]
    for k in range(c.test_steps):
        theta, _ = INNER_LOOPS[c.inner](c, theta, scale, tasks, noise_at(*address, k))
        path.append(theta)
    return path


# --- TRPO as the outer optimiser ---
# A step along the natural gradient, within a bound on how far the adapted policies may move. F, the
# Fisher matrix of the policies after adaptation as a function of x before it, is never built, only
# multiplied: by automatic differentiation through the inner loop.

DELTA = 0.01  # the bound on the divergence
DAMPING = 1e-5  # is added to the diagonal of F


def trpo(c, x, g, tasks, address, in_chunks):
    """x after a trust-region step against the gradient g (Schulman et al. 2015, Appendix C).

    The direction is F^-1 g, by conjugate gradients. The step along it is shortened until the mean
    divergence of the adapted policies is at most DELTA and their loss has improved; if it never is,
    x stays. A step that is not finite makes x so, which ends a run.
    """
    from scipy.sparse.linalg import LinearOperator, cg  # here, as it is slow to import

    def mean_over_tasks(f, vector):
        [rows] = in_chunks(partial(f, vector), c, x, tasks, address)
        return rows.mean(0)

    def F(v):
        return mean_over_tasks(fisher_product, v.astype(x.dtype)) + DAMPING * v

    if not g.any():
        return x
    g = g / length(g)  # only its direction matters, and squares of a very short one would be 0
    operator = LinearOperator((x.size, x.size), F, dtype=x.dtype)
    direction, _ = cg(operator, g, rtol=1e-10, maxiter=10)
    # For small steps the divergence is 1/2 step^T F step: this one would reach the bound.
    curvature = direction @ F(direction)
    step = np.sqrt(2 * DELTA / curvature) * direction
    if not np.isfinite(step).all():
        return x + step
    for i in range(15):
        new = x - (0.8**i * step).astype(x.dtype)
        divergence, gain = mean_over_tasks(trial, new)
        if divergence <= DELTA and gain > 0:
            return new
    return x


def fisher_product(v, c, x, tasks, address):
    """[(T, P or 2P)]: J^T F' J v for each task: the Hessian at x of the divergence, times v.

    J is the derivative of theta' by x; F' the Hessian of the divergence by theta', where it is at
    its minimum 0, so that no second derivative of theta' comes in.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    sample = sampler(c, tasks, address)
    path, _ = adapt(c, x, sample, create_graph=second_order(c))
    theta_prime = path[-1]
    D_prime = sample(c.inner_steps, theta_prime.data)
    # A backward pass gives J^T u for any u. It is linear in u, so the number v . J^T u = (J v) . u
    # has the gradient J v by u: a second backward pass, this time by u, whatever its value.
    u = Tensor(np.zeros(theta_prime.shape, x.dtype))
    JT_u = grad(theta_prime, x, u, create_graph=True)
    J_v = grad(ad.sum(JT_u * v), u).data
    fixed = theta_prime.data
    F_J_v = ad.hvp(lambda other: ad.sum(mean_kl(c, fixed, other, D_prime)), fixed, J_v)
    return [grad(theta_prime, x, F_J_v).data]


def mean_kl(c, theta, other, D):
    """(T,): the mean of KL(pi_theta || pi_other) over the steps of D."""
    kl = c.pi.kl(theta, other, D.kept(D.obs))
    return ad.sum(D.kept(kl), (1, 2)) / D.mask.sum((1, 2))


def trial(new, c, x, tasks, address):
    """[(T, 2)]: the divergence of `new` (P or 2P,) from x after adaptation; how much less its loss.

    Both adapt on, and are judged by, the episodes of x. The loss is that of TRPO: the ratio of the
    two policies times the advantages, which is the surrogate called lvc.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    new = Tensor(np.tile(new, (len(tasks), 1)))
    sample = sampler(c, tasks, address)
    path, episodes = adapt(c, x, sample)
    episodes = [*episodes, sample(c.inner_steps, path[-1].data)]
    episodes = with_log_pi(c, path, episodes)
    other, _ = adapt(c, new, lambda k, theta: episodes[k])
    D_prime = episodes[-1]
    gain = surrogate(c, path[-1], D_prime, "lvc") - surrogate(c, other[-1], D_prime, "lvc")
    if c.sampling_term:
        gain = gain + sampling_term(c, path, episodes) - sampling_term(c, other, episodes)
    divergence = mean_kl(c, path[-1].data, other[-1].data, D_prime)
    return [np.stack([divergence, gain.data], 1)]


def with_log_pi(c, path, episodes):
    """The episodes with log pi of those who took them, so that others can be judged by them."""
    pairs = zip(path, episodes, strict=True)
    return [D._replace(log_pi=log_pi_of(c, theta.data, D)) for theta, D in pairs]


if __name__ == "__main__":
    from harness.cli import main  # it imports metarl under its own name: one copy of every class

    raise SystemExit(main())
