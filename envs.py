"""Task families: batches of small Markov decision processes, as pure functions of explicit state.

A task is a row of numbers, a batch of tasks an (n, D) array. Everything broadcasts: with tasks of
shape (T, 1, D) and states of shape (T, K, ...) one call steps K episodes of each of T tasks.

The contract. A family is any object that has

    obs_dim, action_dim, discrete, horizon   what a policy and a rollout need to know
    task_dim                                 D, the numbers of a task
    sample_tasks(n, rng, split="train")      -> (n, D); "train" and "test" share no task
    reset(tasks, shape, rng)                 -> state of `shape` episodes: (T, K), or (K,) or () of
                                                a single task (D,)
    observe(state)                           -> (..., obs_dim)
    step(state, action, tasks, rng)          -> state, reward (...), done (...) of bool

and, where it can,

    optimal_return(tasks)    -> (...), the mean return of the best policy that knows the task
    splits_coincide          True where the splits are the same by definition, which must be said
    goals(tasks)             -> (..., 2), where the observation is a position; pictures show them
    means(tasks)             -> (..., arms), of a bandit; pictures show them
    judges_states            True where `step` is `advance` and then `judge`, as rewards and ends
                             depend on the task and the state that is reached alone. Then `rollout`
                             may have the states of all steps judged in one call, which is faster:
                             arrays (T, K, H, ...), with tasks (T, 1, 1, D)
    advance(state, action, tasks, rng) -> state, a new array
    judge(state, tasks)      -> reward (...), done (...)

`done` ends an episode before the horizon; what comes after is for the rollout to mask. A state is
an array, or whatever `observe` and `step` understand; `step` makes a new one and leaves the old one
as it is. Rewards and observations take the dtype of the tasks, float64 if these are whole numbers.
Actions are (..., action_dim) or, if `discrete`, integers (...) below action_dim. A policy whose
logits are not finite sends -1: `step` may return any reward for it, as `rollout` puts NaN there.
In `reset` and `step` rng draws by random(shape) and standard_normal(shape) alone, with the episodes
as first axes: black boxes put in its place a generator that serves several members at once.

To add one: write a class with these, a frozen dataclass if it is to have options (its fields, as in
--env bandit:arms=10), and enter it in FAMILIES; defaults of other options that suit it belong to
harness/settings.py. Then enter it in ENVS of tests/test_envs.py, which tests this contract; what
else to prove, .github/CONTRIBUTING.md says.

How to read it: `checkerboard`, which keeps training and test tasks apart; the point masses; the
bandits; and the table of all of them, FAMILIES.
"""

import inspect
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np


def require(holds, name, value, allowed):
    """Raise ValueError with one line that names the option, its value and what is allowed."""
    if not holds:
        raise ValueError(f"{name} {value!r}: must be {allowed}")


def require_whole(name, value, least):
    """Raise ValueError unless the value is an integer of at least `least`."""
    is_whole = is_number(value) and isinstance(value, Integral) and value >= least
    require(is_whole, name, value, f"a whole number of at least {least}")


def is_number(value):
    """Whether it is a real number, of Python or NumPy. A truth is not, though Python takes it."""
    return isinstance(value, Real) and not isinstance(value, bool)


# --- Training and test tasks ---

CELLS = 50  # of the checkerboard per axis; an even number


def check_sample(n, split):
    """Raise ValueError for a split or a number of tasks that there is not."""
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r}: must be 'train' or 'test'")
    if n < 1:
        raise ValueError(f"{n} tasks: must be at least 1")


def checkerboard(n, rng, split, dims):
    """n points in [0, 1]^dims: for training on black cells of a checkerboard, for tests on white.

    The points are uniform there. So the two splits have the same distribution, up to the size of a
    cell, and never share a task. A hundredth of a cell is left out at each border, lest rounding
    carry a point over. A family maps the points to its tasks, one to one. Returns (n, dims).
    """
    check_sample(n, split)
    cells = rng.integers(CELLS, size=(n, dims))
    colour = cells.sum(1) % 2  # 0 black, 1 white
    wanted = 1 if split == "test" else 0
    # A cell of the other colour is exchanged with its neighbour along the first axis, which has the
    # colour that is wanted: 0 with 1, 2 with 3, ..., which the last bit tells (CELLS is even).
    cells[colour != wanted, 0] ^= 1
    within = rng.uniform(0.01, 0.99, (n, dims))
    return (cells + within) / CELLS


# --- Point masses ---


def dtype_for(tasks):
    """The dtype of observations and rewards: that of the tasks, or float64 for whole numbers."""
    return np.result_type(tasks, 1.0)


def distance(offset):
    """The length of offset (..., 2). Not by a sum over the last axis: slow for two numbers."""
    squares = offset * offset
    return np.sqrt(squares[..., 0] + squares[..., 1])


class Point:
    """What the point masses share. State and observation: the position (2,), at first the origin.

    An action of size 1 moves by 0.1, the most along an axis of the actions. Unless a family says
    otherwise, the task is the goal, the reward minus the distance to it after the move, and an
    episode ends with the horizon.
    """

    obs_dim = 2
    action_dim = 2
    task_dim = 2
    discrete = False
    splits_coincide = False

    def __post_init__(self):
        require_whole("horizon", self.horizon, 1)

    def reset(self, tasks, shape, rng):
        """Positions (*shape, 2) at the origin.

        In Fortran order, in which the x of all tasks lie side by side, and so do the y. NumPy works
        along what lies side by side, and two numbers are too few for that. What is computed from
        such arrays element by element has their order again.
        """
        return np.zeros((*shape, 2), dtype_for(tasks), order="F")

    def observe(self, state):
        """The position itself."""
        return state

    def step(self, state, action, tasks, rng):
        """Move, then be paid for the distance that is left."""
        state = self.advance(state, action, tasks, rng)
        reward, done = self.judge(state, tasks)
        return state, reward, done

    @property
    def judges_states(self):
        """True, unless a derived class has a `step` of its own, which must then be asked."""
        return type(self).step is Point.step

    def advance(self, state, action, tasks, rng):
        """The position after the move."""
        action = action.astype(state.dtype, copy=False)
        return self.allowed(state + self.move(action, tasks))

    def judge(self, state, tasks):
        """The reward at a position, and whether an episode ends there."""
        offset = state - self.goals(tasks)
        return self.reward_at(distance(offset)), self.ended(offset)

    def optimal_return(self, tasks):
        """Straight to the goal, each axis at full speed: at no time can any path be closer."""
        t = np.arange(1, self.horizon + 1)[:, None]
        to_go = np.abs(self.aim(tasks))[..., None, :]
        left = np.maximum(to_go - 0.1 * t, 0)
        return self.reward_at(distance(left)).sum(-1)

    # What a family may do otherwise.

    def goals(self, tasks):
        """The goal of each task (..., 2)."""
        return tasks

    def move(self, action, tasks):
        """How far the action carries (..., 2)."""
        within = action.clip(-1, 1)
        within *= 0.1  # in place: of large populations a step is then a tenth faster
        return within

    def aim(self, tasks):
        """Where the goal (..., 2) lies in the frame of the actions that reach it."""
        return self.goals(tasks)

    def allowed(self, position):
        """The position, moved back within the walls if there are any."""
        return position

    def reward_at(self, d):
        """The reward at distance d from the goal."""
        return -d

    def ended(self, offset):
        """Whether the episode ends, by the offset (..., 2) from the goal."""
        return np.zeros(offset.shape[:-1], bool)


@dataclass(frozen=True)
class PointMass(Point):
    """MAML's 2-D navigation (Finn et al. 2017, section 5.3): go to a goal that only rewards tell.

    Closer to it than `radius` in both axes, the episode ends. Goals: uniform in [-box, box]^2.
    """

    horizon: int = 100
    box: float = 0.5
    radius: float = 0.01  # 0: an episode never ends before the horizon

    def __post_init__(self):
        super().__post_init__()
        wide = is_number(self.box) and 0 < self.box < np.inf
        require(wide, "box", self.box, "above 0 and finite")
        small = is_number(self.radius) and 0 <= self.radius <= 0.1
        require(small, "radius", self.radius, "in [0, 0.1], no more than a step")

    def sample_tasks(self, n, rng, split="train"):
        """Goals (n, 2)."""
        return self.box * (2 * checkerboard(n, rng, split, 2) - 1)

    def ended(self, offset):
        away = np.abs(offset)
        return np.maximum(away[..., 0], away[..., 1]) < self.radius


@dataclass(frozen=True)
class SparsePointMass(Point):
    """Reward 1 - d for a distance d < 0.2, else 0. Goals: uniform on the unit half-circle, y >= 0.

    The horizon of 50 steps of 0.1 is enough to walk to the circle and along all of its arc:
    1 + pi < 5.
    """

    horizon: int = 50

    def sample_tasks(self, n, rng, split="train"):
        """Goals (n, 2)."""
        angle = np.pi * checkerboard(n, rng, split, 1)
        return np.concatenate([np.cos(angle), np.sin(angle)], 1)

    def reward_at(self, d):
        return np.where(d >= 0.2, 0, 1 - d)  # in this order NaN stays NaN


@dataclass(frozen=True)
class FourCorners(Point):
    """-4 + max(0, 4 - distance^2) in [-5, 5]^2: within 2 of the goal only does anything tell.

    Song et al. 2020. Goals: (+-2, +-2), of which a policy without adaptation can serve one. There
    are only these four, so training and test tasks coincide, as in the published protocol.
    """

    horizon: int = 100
    splits_coincide = True

    def sample_tasks(self, n, rng, split="train"):
        """Goals (n, 2): the four corners in turn, from a random one on, and shuffled."""
        check_sample(n, split)
        order = rng.permutation(n)
        first = rng.integers(4)
        corners = np.array([[2.0, 2.0], [-2.0, 2.0], [-2.0, -2.0], [2.0, -2.0]])
        return corners[(order + first) % 4]

    def allowed(self, position):
        return position.clip(-5, 5)

    def reward_at(self, d):
        return -4 + np.maximum(0, 4 - d**2)


@dataclass(frozen=True)
class TurnedPointMass(Point):
    """The goal (0.5, 0) is known, the dynamics are not: each move is turned by an angle.

    Yang et al. 2019 (NoRML). Task: the angle, uniform in [-pi, pi].
    """

    horizon: int = 20
    task_dim = 1

    def sample_tasks(self, n, rng, split="train"):
        """Angles (n, 1)."""
        return np.pi * (2 * checkerboard(n, rng, split, 1) - 1)

    def goals(self, tasks):
        goal = np.array([0.5, 0], dtype_for(tasks))
        return np.broadcast_to(goal, (*tasks.shape[:-1], 2))

    def move(self, action, tasks):
        return turned(super().move(action, tasks), tasks)

    def aim(self, tasks):
        """The agent has to aim where the turn will carry it to the goal: turned back."""
        return turned(self.goals(tasks), -tasks)


def turned(x, angle):
    """x (..., 2) turned anticlockwise by angle (..., 1)."""
    quarter = x[..., ::-1] * np.array([-1, 1], x.dtype)  # (-y, x): x turned by a right angle
    return np.cos(angle) * x + np.sin(angle) * quarter


# --- Bandits ---


class Arms:
    """What the bandits share. An episode is `horizon` pulls; the observation is the constant 1.

    So the policy has no memory of what it was paid: only adaptation can tell it of the arms.
    """

    obs_dim = 1
    action_dim = property(lambda self: self.arms)
    discrete = True
    splits_coincide = False

    def __post_init__(self):
        require_whole("horizon", self.horizon, 1)
        require_whole("arms", self.arms, 2)

    def reset(self, tasks, shape, rng):
        """The constant 1 (*shape, 1)."""
        return np.ones((*shape, 1), dtype_for(tasks))

    def observe(self, state):
        """The constant 1."""
        return state

    def step(self, state, action, tasks, rng):
        """Pull the arm `action`."""
        means = np.broadcast_to(self.means(tasks), (*action.shape, self.arms))
        mean = np.take_along_axis(means, action[..., None], -1)[..., 0]
        reward = self.pay(mean, rng).astype(dtype_for(tasks))
        return state, reward, np.zeros(action.shape, bool)

    def optimal_return(self, tasks):
        """The best arm in every pull."""
        return self.horizon * self.means(tasks).max(-1)


@dataclass(frozen=True)
class Bandit(Arms):
    """Bernoulli arms: reward 1 with the probability of the arm, else 0 (Duan et al. 2016).

    Task: the probabilities (arms,), each uniform in [0, 1], or Beta(a, b) with
    prior = ((a, b) for each arm).
    """

    arms: int = 5
    horizon: int = 10
    prior: tuple = ()
    task_dim = property(lambda self: self.arms)

    def __post_init__(self):
        super().__post_init__()
        allowed = f"() or {self.arms} pairs of numbers above 0"
        pairs = np.array(self.prior, object)  # of lists or an array too
        right_shape = pairs.shape in ((0,), (self.arms, 2))
        require(right_shape, "prior", self.prior, allowed)
        above_0 = all(is_number(x) and 0 < x < np.inf for x in pairs.flat)
        require(above_0, "prior", self.prior, allowed)
        # Nothing may be assigned in a frozen dataclass, but this one is still being made.
        object.__setattr__(self, "prior", tuple((float(a), float(b)) for a, b in pairs))

    def sample_tasks(self, n, rng, split="train"):
        """Probabilities (n, arms): the inverse of Beta's cumulative distribution at the points.

        That increases with the point, so the splits stay apart.
        """
        from scipy.special import betaincinv

        uniform = self.arms * [(1, 1)]
        a, b = np.array(self.prior or uniform, float).T
        return betaincinv(a, b, checkerboard(n, rng, split, self.arms))

    def means(self, tasks):
        """The mean reward of each arm (..., arms)."""
        return tasks

    def pay(self, mean, rng):
        """The reward of a pull of an arm with this mean."""
        return rng.random(mean.shape) < mean


@dataclass(frozen=True)
class LinearBandit(Arms):
    """The parametric bandit: arm a pays x_a . w plus Gaussian noise of deviation `noise`.

    The features x_a, standard normal from the seed `features`, are the same for all tasks. Task:
    the hidden weights w (dims,), each normal with mean 1 and deviation 1.
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
        at_least_0 = is_number(self.noise) and 0 <= self.noise < np.inf
        require(at_least_0, "noise", self.noise, "at least 0 and finite")

    def sample_tasks(self, n, rng, split="train"):
        """Weights (n, dims): the inverse of the normal distribution at the points."""
        from scipy.special import ndtri

        return 1 + ndtri(checkerboard(n, rng, split, self.dims))

    def means(self, tasks):
        """The mean reward of each arm (..., arms)."""
        x = np.random.default_rng(self.features).standard_normal((self.arms, self.dims))
        return tasks @ x.T.astype(dtype_for(tasks))

    def pay(self, mean, rng):
        """The reward of a pull of an arm with this mean."""
        return mean + self.noise * rng.standard_normal(mean.shape)


# --- All of them ---

FAMILIES = {
    "pointmass": PointMass,
    "sparse-pointmass": SparsePointMass,
    "turned-pointmass": TurnedPointMass,
    "fourcorners": FourCorners,
    "bandit": Bandit,
    "linear-bandit": LinearBandit,
}


def make(name, **options):
    """The family called `name`; options are the arguments of its class.

    ValueError for a name or an option that there is not, and for a value that is not allowed.
    """
    require(name in FAMILIES, "environment", name, f"one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    known = inspect.signature(family).parameters
    examples = ", ".join(f"{option}={known[option].default!r}" for option in known)
    for option in options:
        require(option in known, f"options of environment {name}", options, f"among {examples}")
    try:
        return family(**options)
    except TypeError:  # a value of another type
        raise ValueError(
            f"options of environment {name} {options}: must be like {examples}"
        ) from None
