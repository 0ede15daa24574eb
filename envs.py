"""Task families: batches of small Markov decision processes, as pure functions of explicit state.

A task is a row of numbers, a batch of tasks an (n, D) array. Everything broadcasts: with tasks of shape (T, 1, D)
and states of shape (T, K, ...) one call steps K episodes of each of T tasks. A family has

    obs_dim, action_dim, discrete, horizon, task_dim   what a policy and a rollout need to know
    splits_coincide                                    True where training and test tasks are the same by definition
    sample_tasks(n, rng, split)                        -> (n, D), split "train" or "test"; the splits share no task
    reset(tasks, shape, rng)                           -> state of `shape` episodes
    observe(state)                                     -> (..., obs_dim)
    step(state, action, tasks, rng)                    -> state, reward (...), done (...)
    optimal_return(tasks)                              -> (...): the mean return of the best policy that knows the task

`done` ends an episode before the horizon; what comes after is for the rollout to mask. States, rewards and
observations take the dtype of the tasks.
"""

import ast
from dataclasses import dataclass, fields

import numpy as np

CELLS = 50  # per axis, even


def check_sample(n, split):
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r}: must be 'train' or 'test'")
    if n < 1:
        raise ValueError(f"{n} tasks: must be at least 1")


def checkerboard(n, rng, split, dims):
    """n points uniform in [0, 1]^dims, training ones on the black cells of a checkerboard, test ones on the white.

    So the two splits have the same distribution up to the size of a cell and never share a task. A hundredth of a cell
    is left out at each border, lest rounding carry a point over. Returns (n, dims).
    """
    check_sample(n, split)
    cells = rng.integers(CELLS, size=(n, dims))
    cells[:, 0] ^= (
        cells.sum(1) + (split == "test")
    ) % 2  # the neighbour along the first axis has the other colour
    return (cells + rng.uniform(0.01, 0.99, (n, dims))) / CELLS


def require(holds, name, value, allowed):
    if not holds:
        raise ValueError(f"{name} {value!r}: must be {allowed}")


def require_whole(name, value, least):
    require(
        isinstance(value, int) and value >= least,
        name,
        value,
        f"a whole number of at least {least}",
    )


def distance(offset):
    x, y = (
        offset[..., 0],
        offset[..., 1],
    )  # no sum over the last axis: NumPy's is slow for two numbers
    return np.sqrt(x * x + y * y)


# fmt: off
# --- Point masses. A method that is one expression is one line. ---
class Point:
    """What the point masses share. State and observation: the position (2,), at first the origin.

    Action 1 moves by 0.1, at most 0.1 per axis and step. Unless a family says otherwise, the task is the goal, the
    reward minus the distance to it after the move, and an episode ends with the horizon.
    """
    obs_dim = action_dim = task_dim = 2
    discrete = splits_coincide = False

    def __post_init__(self):
        require_whole("horizon", self.horizon, 1)

    def reset(self, tasks, shape, rng): return np.zeros((*shape, 2), tasks.dtype)
    def observe(self, state): return state
    def allowed(self, position): return position
    def move(self, action, tasks): return 0.1 * action.clip(-1, 1)
    def goals(self, tasks): return tasks
    def own_frame(self, tasks): return self.goals(tasks)  # as the agent has to aim at them
    def reward(self, d): return -d
    def ended(self, offset): return np.zeros(offset.shape[:-1], bool)

    def step(self, state, action, tasks, rng):
        state = self.allowed(state + self.move(action, tasks))
        offset = state - self.goals(tasks)
        return state, self.reward(distance(offset)), self.ended(offset)

    def optimal_return(self, tasks):
        """Straight to the goal, each axis at full speed: at no time can any path be closer."""
        t = np.arange(1, self.horizon + 1)[:, None]
        left = np.maximum(np.abs(self.own_frame(tasks)[..., None, :]) - 0.1 * t, 0)
        return self.reward(distance(left)).sum(-1)

@dataclass(frozen=True)
class PointMass(Point):
    """MAML's 2-D navigation (Finn et al. 2017, section 5.3): go to a goal that only the rewards tell.

    Closer to it than `radius` in both axes, the episode ends. Goals: uniform in [-box, box]^2.
    """
    horizon: int = 100
    box: float = 0.5
    radius: float = 0.01  # 0: an episode never ends before the horizon

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.box < np.inf, "box", self.box, "above 0 and finite")
        require(0 <= self.radius <= 0.1, "radius", self.radius, "in [0, 0.1], no more than a step")

    def sample_tasks(self, n, rng, split="train"): return self.box * (2 * checkerboard(n, rng, split, 2) - 1)
    def ended(self, offset):
        near = np.abs(offset) < self.radius
        return near[..., 0] & near[..., 1]

@dataclass(frozen=True)
class SparsePointMass(Point):
    """1 - distance within 0.2 of the goal, else 0. Goals: uniform on the unit half-circle, y >= 0.

    The horizon of 50 steps of 0.1 is enough to walk to the circle and along all of its arc: 1 + pi < 5.
    """
    horizon: int = 50

    def sample_tasks(self, n, rng, split="train"):
        angle = np.pi * checkerboard(n, rng, split, 1)
        return np.concatenate([np.cos(angle), np.sin(angle)], 1)

    def reward(self, d): return np.where(d < 0.2, 1 - d, 0)

@dataclass(frozen=True)
class FourCorners(Point):
    """-4 + max(0, 4 - distance^2) in [-5, 5]^2: nothing tells where the goal is before one is within 2 of it.

    Song et al. 2020. Goals: (+-2, +-2), of which a policy without adaptation can serve one. There are only these four,
    so training and test tasks coincide, as in the published protocol.
    """
    horizon: int = 100
    splits_coincide = True

    def sample_tasks(self, n, rng, split="train"):
        check_sample(n, split)
        corner = (rng.permutation(n) + rng.integers(4)) % 4  # each as often as the others, or once more
        return np.array([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]])[corner]

    def allowed(self, position): return position.clip(-5, 5)
    def reward(self, d): return -4 + np.maximum(0, 4 - d**2)

@dataclass(frozen=True)
class TurnedPointMass(Point):
    """The goal (0.5, 0) is known, the dynamics are not: each move is turned by an angle (Yang et al. 2019, NoRML).

    Task: the angle, uniform in [-pi, pi].
    """
    horizon: int = 20
    task_dim = 1

    def sample_tasks(self, n, rng, split="train"): return np.pi * (2 * checkerboard(n, rng, split, 1) - 1)
    def goals(self, tasks): return np.broadcast_to(np.array([0.5, 0], tasks.dtype), (*tasks.shape[:-1], 2))

    def turn(self, x, angle):
        """x (..., 2) turned anticlockwise by angle (..., 1)."""
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([cos * x[..., :1] - sin * x[..., 1:], sin * x[..., :1] + cos * x[..., 1:]], -1)

    def move(self, action, tasks): return self.turn(super().move(action, tasks), tasks)
    def own_frame(self, tasks): return self.turn(self.goals(tasks), -tasks)


# --- Bandits ---
class Arms:
    """What the bandits share. An episode is `horizon` pulls; the observation is the constant 1, without memory."""
    obs_dim = 1
    discrete, splits_coincide = True, False
    action_dim = property(lambda self: self.arms)

    def __post_init__(self):
        require_whole("horizon", self.horizon, 1)
        require_whole("arms", self.arms, 2)

    def reset(self, tasks, shape, rng): return np.ones((*shape, 1), tasks.dtype)
    def observe(self, state): return state

    def step(self, state, action, tasks, rng):
        means = np.broadcast_to(self.means(tasks), (*action.shape, self.arms))
        mean = np.take_along_axis(means, action[..., None], -1)[..., 0]
        return state, self.reward(mean, rng).astype(tasks.dtype), np.zeros(action.shape, bool)

    def optimal_return(self, tasks): return self.horizon * self.means(tasks).max(-1)

@dataclass(frozen=True)
class Bandit(Arms):
    """Bernoulli arms: reward 1 with the probability of the arm, else 0 (Duan et al. 2016).

    Task: the probabilities (arms,), each uniform in [0, 1], or Beta(a, b) with prior = ((a, b) for each arm).
    """
    arms: int = 5
    horizon: int = 10
    prior: tuple = ()
    task_dim = property(lambda self: self.arms)

    def __post_init__(self):
        super().__post_init__()
        pairs = len(self.prior) in (0, self.arms) and all(len(ab) == 2 and min(ab) > 0 for ab in self.prior)
        require(pairs, "prior", self.prior, f"() or {self.arms} pairs of numbers above 0")

    def sample_tasks(self, n, rng, split="train"):
        from scipy.special import betaincinv

        a, b = np.array(self.prior or self.arms * [(1, 1)], float).T
        return betaincinv(a, b, checkerboard(n, rng, split, self.arms))  # increasing: the splits stay apart

    def means(self, tasks): return tasks
    def reward(self, mean, rng): return rng.random(mean.shape) < mean

@dataclass(frozen=True)
class LinearBandit(Arms):
    """The parametric bandit: arm a pays x_a . w plus Gaussian noise of deviation `noise`.

    The features x_a, standard normal from the seed `features`, are the same for all tasks. Task: the hidden weights w
    (dims,), each normal with mean 1 and deviation 1.
    """
    arms: int = 5
    horizon: int = 10
    dims: int = 3
    noise: float = 0.5
    features: int = 0
    task_dim = property(lambda self: self.dims)

    def __post_init__(self):
        super().__post_init__()
        require_whole("dims", self.dims, 1)
        require_whole("features", self.features, 0)
        require(0 <= self.noise < np.inf, "noise", self.noise, "at least 0 and finite")

    def sample_tasks(self, n, rng, split="train"):
        from scipy.special import ndtri

        return 1 + ndtri(checkerboard(n, rng, split, self.dims))

    def means(self, tasks):
        x = np.random.default_rng(self.features).standard_normal((self.arms, self.dims))
        return tasks @ x.T.astype(tasks.dtype)

    def reward(self, mean, rng): return mean + self.noise * rng.standard_normal(mean.shape)

# fmt: on


FAMILIES = {
    "pointmass": PointMass,
    "sparse-pointmass": SparsePointMass,
    "turned-pointmass": TurnedPointMass,
    "fourcorners": FourCorners,
    "bandit": Bandit,
    "linear-bandit": LinearBandit,
}


def make(name, **options):
    """The family called `name`, with its dataclass fields as options; ValueError for what it does not know.

    The name can carry options of its own, as Python writes keyword arguments: "bandit:arms=10,horizon=100".
    """
    name, _, text = name.partition(":")
    require(name in FAMILIES, "environment", name, f"one of {', '.join(FAMILIES)}")
    known = ", ".join(f"{f.name}={f.default}" for f in fields(FAMILIES[name]))
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        options |= {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        unknown = call.args or options.keys() - {f.name for f in fields(FAMILIES[name])}
    except (AttributeError, SyntaxError, ValueError):
        unknown = True
    require(not unknown, f"options of environment {name}", text or options, f"among {known}")
    try:
        return FAMILIES[name](**options)
    except TypeError:
        raise ValueError(f"options of environment {name} {options}: must be like {known}") from None
