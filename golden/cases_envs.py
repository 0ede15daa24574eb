"""Stage 2: task families: transitions, rewards, ends, masks, optimal returns,
and tasks from noise.
"""

import numpy as np

import envs
from policies import rollout

from .loops_envs import episodes_by_loops, tasks_by_loops
from .vectors import Case, Copies, Replay, noise, slip

STAGE = "2-envs"


# --- Episodes under given actions ---
class Script:
    """A policy that does what it is told: `actions` (T, K, H, ...), step by step."""

    def __init__(self, actions):
        self.steps = iter(np.moveaxis(actions, 2, 0))

    def actor(self, theta):
        return lambda obs, rng: next(self.steps)


def episodes(family, options, tasks, actions, noise, X=None):
    """States after each step, and rewards and ends as the environment gives them;
    then as the rollout masks them.
    """
    env, draws, steps = envs.make(family, **options), Replay(noise), []
    state = env.reset(tasks[:, None], actions.shape[:2], draws)
    for action in np.moveaxis(actions, 2, 0):
        state, reward, done = env.step(state, action, tasks[:, None], draws)
        steps.append((state, reward, done))
    D = rollout(env, Script(actions), None, tasks, actions.shape[1], Replay(noise))
    fields = dict(
        zip(
            ("states", "raw_rewards", "done"),
            (np.stack(s, 2) for s in zip(*steps, strict=True)),
            strict=True,
        )
    )
    fields |= {"obs": D.obs, "rewards": D.rewards, "mask": D.mask, "returns": D.returns}
    if hasattr(env, "optimal_return"):
        fields["optimal_return"] = env.optimal_return(tasks)
    return fields


# --- Tasks from noise ---
def tasks(family, options, n, split, noise):
    return {"tasks": envs.make(family, **options).sample_tasks(n, Copies(Replay(noise)), split)}


FUNCTIONS = {"episodes": (episodes, episodes_by_loops), "tasks": (tasks, tasks_by_loops)}
INTERMEDIATE = {"episodes": ("states", "raw_rewards", "done")}
LOOPS = "loop form; the optimal return: the best policy, simulated"

# --- Faults: what is wrong, and the change of text in loops_envs.py that does it ---
# fmt: off
END = "all(exact.less(abs(x), options[\"radius\"]) for x in offset)"
CLIP = "[exact.clip(a, Decimal(-1), Decimal(1)) / 10 for a in action]"
RUNNING = "            running = running and not done\n"
OBSERVED = "            fields[\"obs\"][i, k, t] = state\n"
MASKED = "            fields[\"mask\"][i, k, t] = running\n"
KEPT = (
    "if family == \"fourcorners\":\n"
    "        state = [exact.clip(s, Decimal(-5), Decimal(5))"
)
WITHIN = (
    "if \"box\" in options:\n"
    "        state = [exact.clip(s, -options[\"box\"], options[\"box\"])"
)
MOVED = "cell[0] += -1 if cell[0] % 2 else 1"
FAULTS = {
    "pointmass": [
        ("the product 0.1 a is clipped to [-1, 1], not a",
         (CLIP, "[exact.clip(a / 10, Decimal(-1), Decimal(1)) for a in action]")),
        ("an episode ends within the radius in any axis", (END, END.replace("all", "any"))),
        ("an episode ends within the radius in Euclidean distance",
         (END, "exact.less(distance, options[\"radius\"])")),
        ("the step that ends an episode is masked, and its reward with it", (RUNNING, ""),
         (MASKED, RUNNING + MASKED)),
        ("rewards after the end are counted",
         ("kept = reward if running else Decimal(0)", "kept = reward")),
        ("observations are those after the step", (OBSERVED, ""), (MASKED, MASKED + OBSERVED)),
    ],
    "sparse-pointmass": [
        ("the reward is 1 - distance everywhere",
         (" if exact.less(distance, Decimal(\"0.2\")) else Decimal(0)", "")),
    ],
    "fourcorners": [
        ("the distance in place of its square", ("4 - distance**2", "4 - distance")),
        ("the position leaves the box", ("exact.clip(s, Decimal(-5), Decimal(5))", "s")),
    ],
    "turned-pointmass": [
        ("moves are turned clockwise", ("turned(move, task[0])", "turned(move, -task[0])")),
        ("moves are turned before they are clipped", (CLIP, "action"),
         ("turned(move, task[0])", CLIP.replace("action", "turned(move, task[0])"))),
    ],
    "bandit": [
        ("reward 1 if the uniform number is above",
         ("exact.less(draw, mean)", "exact.less(mean, draw)")),
    ],
    "linear-bandit": [
        ("the deviation is taken for a variance",
         ("options[\"noise\"]", "options[\"noise\"].sqrt()")),
    ],
    "bandit: ties": [
        ("reward 1 if the uniform number is the arm's probability",
         ("exact.less(draw, mean)", "draw <= mean")),
    ],
    "pointmass: ties": [
        ("an episode ends at the radius itself",
         (END, "all(abs(x) <= options[\"radius\"] for x in offset)")),
    ],
    "pointmass beyond its box": [
        ("the position is kept in `box`, where the goals are",
         (KEPT, WITHIN)),
    ],
    "tasks": [
        ("the colours of training and test cells are exchanged",
         ("split == \"test\"", "split == \"train\"")),
        ("cells of the wrong colour are left", (MOVED, "pass")),
    ],
    "tasks of several numbers": [
        ("the next cell is taken, not the one of the same pair",
         (MOVED, "cell[0] = (cell[0] + 1) % 50")),
        ("the cell before is taken, not the one of the same pair",
         (MOVED, "cell[0] = (cell[0] - 1) % 50")),
        ("the last number changes, not the first",
         (MOVED, "cell[-1] += -1 if cell[-1] % 2 else 1")),
        ("all numbers change", (MOVED, "cell = [c - 1 if c % 2 else c + 1 for c in cell]")),
    ],
}
# fmt: on


# --- The cases ---
def case(name, family, options, tasks, actions, why, **more):
    tasks = np.array(tasks)
    actions = np.round(actions, 4)
    recorder = noise(name)
    rollout(envs.make(family, **options), Script(actions), None, tasks, actions.shape[1], recorder)
    inputs = {
        "family": family,
        "options": options,
        "tasks": tasks,
        "actions": actions,
        "noise": recorder.draws,
        **more,
    }
    faults = [(words, slip(episodes_by_loops, *edits)) for words, *edits in FAULTS.get(name, ())]
    return Case(name, "episodes", why, LOOPS, inputs, faults=faults)


def point_masses():
    normal = noise("point masses").standard_normal
    goals = [[0.253, -0.152], [-0.41, 0.307]]
    # episode 0 of task 0 comes to 0.008 of the goal in both axes in its third step,
    # episode 1 in one axis only, episode 2 to 0.003 in both
    actions = 1.5 * normal((2, 3, 5, 2))
    actions[0, 0, :3] = [[0.9, -0.8], [0.85, -0.5], [0.7, -0.14]]
    actions[0, 1, :3] = [[0.9, -0.8], [0.85, -0.5], [0.7, 0.4]]
    actions[0, 2, :3] = [[0.9, -0.8], [0.85, -0.5], [0.75, -0.19]]
    options = {"horizon": 5, "box": 0.6, "radius": 0.01}
    why = "actions are clipped; the reward is that of the position after the move; "
    why += "the end needs both axes"
    yield case("pointmass", "pointmass", options, goals, actions, why)
    options = {"horizon": 7, "box": 0.3, "radius": 0.0}
    why = "nothing keeps the position in `box`; radius 0: an episode never ends before the horizon"
    actions = np.array([0.9, -0.8]) + 0.4 * normal((2, 3, 7, 2))
    yield case("pointmass beyond its box", "pointmass", options, goals, actions, why)

    goals = [[np.cos(0.4), np.sin(0.4)], [np.cos(2.9), np.sin(2.9)]]
    actions = np.array([0.95, 0.4]) + 0.3 * normal((2, 3, 12, 2))
    why = "1 - distance within 0.2 of the goal, else 0"
    yield case("sparse-pointmass", "sparse-pointmass", {"horizon": 12}, goals, actions, why)

    goals = [[2.0, -2.0], [-2.0, 2.0]]
    actions = np.array([1.6, -1.2]) + 0.5 * normal((2, 1, 60, 2))
    why = "nothing is told beyond 2 of the goal; the position stays in [-5, 5]^2"
    yield case("fourcorners", "fourcorners", {"horizon": 60}, goals, actions, why)

    why = "the action is clipped, then the move turned anticlockwise by the task's angle"
    actions = normal((2, 3, 4, 2))
    yield case(
        "turned-pointmass", "turned-pointmass", {"horizon": 4}, [[0.7], [-2.9]], actions, why
    )


def ends_and_borders():
    options = {"horizon": 6, "box": 0.6, "radius": 0.1}
    why = "within the radius `done` is told again and again; the optimum counts all steps"
    actions = np.zeros((1, 1, 6, 2))
    actions[0, 0, :4] = [[1.0, 0.5], [1.0, 0.5], [0.9, 0.35], [0.3, 0.0]]
    yield case("pointmass within its radius", "pointmass", options, [[0.35, 0.15]], actions, why)

    why = "the reward is that of the position within [-5, 5]^2"
    actions = np.ones((1, 1, 54, 2))
    options = {"horizon": 54}
    yield case("fourcorners: border", "fourcorners", options, [[5.75, 4.5]], actions, why)


def bandits():
    draw = noise("bandits")
    actions = draw.integers(4, size=(2, 3, 6))
    options = {"arms": 4, "horizon": 6, "prior": []}
    why = "reward 1 if a uniform number is below the arm's probability"
    yield case("bandit", "bandit", options, draw.random((2, 4)), actions, why)
    options = {"arms": 4, "horizon": 6, "dims": 5, "noise": 0.45, "features": 0}
    X = np.random.default_rng(0).standard_normal((4, 5))
    why = "mean x_a . w, row a of X; X, which the program draws from the seed `features`, "
    why += "is an input here"
    yield case(
        "linear-bandit",
        "linear-bandit",
        options,
        1 + draw.standard_normal((2, 5)),
        actions,
        why,
        X=X,
    )

    why = "without noise the reward is the mean; the draws are asked for all the same"
    yield case(
        "linear-bandit without noise",
        "linear-bandit",
        {**options, "noise": 0.0},
        1 + draw.standard_normal((2, 5)),
        actions,
        why,
        X=X,
    )


def ties():
    """Numbers that are equal on purpose, and exact in any arithmetic with binary digits."""
    options = {"horizon": 3, "box": 0.6, "radius": 0.0625}
    steps = np.array([[[0.625, 0.25], [-0.625, 0.0], [1.0, 1.0]]])  # on the bound, within, away
    below = np.array([[[-0.25, -0.625], [0.0, 0.625], [1.0, 1.0]]])
    goal = [[0.0, 0.0]]
    actions = np.stack([steps, below], 1)
    why = "at the radius itself an episode goes on; at the goal it ends"
    yield case("pointmass: ties", "pointmass", options, goal, actions, why)
    options = {"horizon": 1, "box": 0.6, "radius": 0.0}
    actions = np.zeros((1, 1, 1, 2))
    why = "radius 0: at the goal itself an episode goes on; a horizon of 1 is enough"
    yield case("pointmass at its goal", "pointmass", options, goal, actions, why)
    actions = np.array([[[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]]])
    why = "at a distance of 0.2 the reward is 0"
    yield case("sparse-pointmass: ties", "sparse-pointmass", {"horizon": 3}, goal, actions, why)
    options = {"arms": 2, "horizon": 4, "prior": []}
    draws = [{"kind": "random", "values": np.array([[u]])} for u in (0.5, 0.0, 0.25, 0.75)]
    why = "a uniform number that is the probability pays nothing; probability 0 never does"
    yield case("bandit: ties", "bandit", options, [[0.5, 0.0]], [[[0, 1, 0, 0]]], why, noise=draws)


SAMPLES = {
    "pointmass": ({"box": 0.6, "radius": 0.1}, "uniform in the box"),
    "sparse-pointmass": ({}, "at an angle, uniform from 0 to pi"),
    "turned-pointmass": ({}, "an angle, uniform from -pi to pi"),
    "fourcorners": ({}, "each corner as often as the others, or once more"),
    "bandit": ({"arms": 3, "prior": []}, "u itself"),
    "bandit with a prior": (
        {"arms": 3, "prior": [[1, 3], [2, 1], [2, 2]]},
        "by the inverse distribution function of Beta(a, b)",
    ),
    "linear-bandit": (
        {"arms": 3, "dims": 2, "noise": 0.0},
        "by the inverse distribution function of the normal one, plus 1",
    ),
}


PLAIN = ("pointmass", "sparse-pointmass", "turned-pointmass", "bandit")  # and quick to compute


def samples():
    n = 7
    for name, (options, why) in SAMPLES.items():
        family = name.split()[0]
        recorder = noise(f"tasks: {name}")  # the same for both splits
        envs.make(family, **options).sample_tasks(n, Copies(recorder), "train")
        draws = borders(recorder.draws)
        for split in ("train", "test"):
            inputs = {"family": family, "options": options, "n": n, "split": split, "noise": draws}
            faults = FAULTS["tasks"] if name in PLAIN else ()
            if name == "pointmass":
                faults = [*faults, *FAULTS["tasks of several numbers"]]
            yield Case(
                f"tasks: {name}, {split}",
                "tasks",
                why,
                "loop form; distribution functions are inverted by halving",
                inputs,
                faults=[(words, slip(tasks_by_loops, *edits)) for words, *edits in faults],
            )


def one_task():
    draws = [
        {"kind": "integers", "values": np.array([[7, 20]])},
        {"kind": "uniform", "values": np.array([[0.25, 0.75]])},
    ]
    inputs = {"family": "pointmass", "options": {"box": 0.6}, "n": 1, "split": "train"}
    inputs["noise"] = draws
    yield Case("tasks: one", "tasks", "n = 1 is allowed", "loop form", inputs)
    draws = [
        {"kind": "integers", "values": np.array([[0, 0]])},
        {"kind": "uniform", "values": np.array([[0.01, 0.011]])},
    ]
    options = {"arms": 2, "prior": [[1, 3], [1, 30]]}
    inputs = {"family": "bandit", "options": options, "n": 1, "split": "train", "noise": draws}
    why = "probabilities near 0 to as many digits as others"
    yield Case("tasks: bandit, near 0", "tasks", why, "loop form", inputs)


def borders(draws):
    """The draws, with cells of either colour at both borders, and beside a middle one of a pair."""
    cells = draws[0]["values"]
    if cells.ndim == 2:
        cells[:6, 0] = 0, 0, 49, 49, 13, 14
    if cells.shape[1:] > (1,):
        cells[:6, 1:] = 8
        cells[[1, 2], -1] = 49, 7  # which changes their colour
    return draws


# Family, a wrong option or its wrong value, and why; all else is right, and so are the draws.
WRONG = {
    "no such option": (
        "pointmass",
        {"size": 2},
        "options are those of the family",
    ),
    "another's option": (
        "pointmass",
        {"arms": 3},
        "`arms` is an option of bandits",
    ),
    "a radius without an end": (
        "sparse-pointmass",
        {"radius": 0.05},
        "an option of pointmass",
    ),
    "a box around the corners": (
        "fourcorners",
        {"box": 5.0},
        "an option of pointmass",
    ),
    "dims without weights": (
        "bandit",
        {"dims": 3},
        "an option of linear-bandit",
    ),
    "horizon 0": (
        "pointmass",
        {"horizon": 0},
        "a whole number of at least 1",
    ),
    "horizon below 0": (
        "bandit",
        {"horizon": -3},
        "a whole number of at least 1",
    ),
    "horizon 2.5": (
        "pointmass",
        {"horizon": 2.5},
        "a whole number of at least 1",
    ),
    "radius beyond a step": (
        "pointmass",
        {"radius": 0.2},
        "in [0, 0.1]",
    ),
    "radius below 0": (
        "pointmass",
        {"radius": -0.01},
        "in [0, 0.1]",
    ),
    "radius not a number": (
        "pointmass",
        {"radius": np.nan},
        "in [0, 0.1]",
    ),
    "no box": (
        "pointmass",
        {"box": 0.0},
        "above 0",
    ),
    "box below 0": (
        "pointmass",
        {"box": -0.5},
        "above 0",
    ),
    "box infinite": (
        "pointmass",
        {"box": np.inf},
        "above 0 and finite",
    ),
    "box not a number": (
        "pointmass",
        {"box": np.nan},
        "above 0 and finite",
    ),
    "one arm": (
        "bandit",
        {"arms": 1},
        "a whole number of at least 2",
    ),
    "one arm of a linear bandit": (
        "linear-bandit",
        {"arms": 1, "dims": 2},
        "a whole number of at least 2",
    ),
    "half an arm": (
        "linear-bandit",
        {"arms": 2.5, "dims": 2},
        "a whole number of at least 2",
    ),
    "no dims": (
        "linear-bandit",
        {"arms": 3, "dims": 0},
        "a whole number of at least 1",
    ),
    "half a dimension": (
        "linear-bandit",
        {"arms": 3, "dims": 1.5},
        "a whole number of at least 1",
    ),
    "noise below 0": (
        "linear-bandit",
        {"arms": 3, "dims": 2, "noise": -0.5},
        "at least 0",
    ),
    "noise infinite": (
        "linear-bandit",
        {"arms": 3, "dims": 2, "noise": np.inf},
        "at least 0 and finite",
    ),
    "fewer priors": (
        "bandit",
        {"arms": 3, "prior": [[1, 1], [2, 1]]},
        "one pair for each arm",
    ),
    "more priors": (
        "bandit",
        {"arms": 2, "prior": 3 * [[2, 1]]},
        "one pair for each arm",
    ),
    "a prior of 0": (
        "bandit",
        {"arms": 2, "prior": [[2, 1], [0, 1]]},
        "numbers above 0",
    ),
    "a prior of 0 behind": (
        "bandit",
        {"arms": 2, "prior": [[2, 1], [1, 0]]},
        "both numbers above 0",
    ),
    "a prior below 0": (
        "bandit",
        {"arms": 2, "prior": [[2, 1], [-1, 1]]},
        "numbers above 0",
    ),
    "a prior below 0 behind": (
        "bandit",
        {"arms": 2, "prior": [[2, 1], [1, -1]]},
        "both numbers above 0",
    ),
    "an infinite prior": (
        "bandit",
        {"arms": 2, "prior": [[2, 1], [3, np.inf]]},
        "both numbers finite",
    ),
    "priors of one number": (
        "bandit",
        {"arms": 2, "prior": [[2], [1]]},
        "pairs of numbers",
    ),
    "a prior of three numbers": (
        "bandit",
        {"arms": 2, "prior": [[2, 1], [1, 3, 2]]},
        "pairs of numbers",
    ),
}


def refused(name, family, why, options, n=1, split="train"):
    dims = {"bandit": options.get("arms", 5), "linear-bandit": options.get("dims")}
    shape = (n, int(np.ceil(dims.get(family, 1 if family == "sparse-pointmass" else 2))))
    draws = [
        {"kind": "integers", "values": np.full(shape, 12)},
        {"kind": "uniform", "values": np.full(shape, 0.25)},
    ]
    if family == "fourcorners":
        draws = [
            {"kind": "permutation", "values": np.arange(n)},
            {"kind": "integers", "values": 3},
        ]
    inputs = {"family": family, "options": options, "n": n, "split": split, "noise": draws}
    return Case(name, "tasks", why, "the definition of the family", inputs, rejects=True)


def rejected():
    names = "names are pointmass, sparse-pointmass, ..."
    yield refused("no such family", "point-mass", names, {})
    for name, (family, options, why) in WRONG.items():
        yield refused(name, family, why, options)
    yield refused("no such split", "pointmass", "train or test", {}, split="validation")
    why = "train or test, though they are alike"
    yield refused("no such split of the corners", "fourcorners", why, {}, split="all")
    yield refused("no tasks", "pointmass", "at least 1", {}, n=0)


def cases():
    for group in (point_masses, ends_and_borders, bandits, ties, samples, one_task, rejected):
        yield from group()
