"""Stage 2: task families: transitions, rewards, ends, masks, optimal returns,
and tasks from noise.
"""

import numpy as np

import envs
from policies import rollout

from .loops_envs import episodes_by_loops, tasks_by_loops
from .vectors import Case, Replay, noise, slip

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
    return {"tasks": envs.make(family, **options).sample_tasks(n, Replay(noise), split)}


FUNCTIONS = {"episodes": (episodes, episodes_by_loops), "tasks": (tasks, tasks_by_loops)}
INTERMEDIATE = {"episodes": ("states", "raw_rewards", "done")}
LOOPS = "loop form; the optimal return: the best policy, simulated"

# --- Faults: what is wrong, and the change of text in loops_envs.py that does it ---
# fmt: off
END = "all(exact.below(abs(x), options[\"radius\"]) for x in offset)"
CLIP = "[exact.clip(a, Decimal(-1), Decimal(1)) / 10 for a in action]"
RUNNING = "            running = running and not done\n"
OBSERVED = "            fields[\"obs\"][i, k, t] = state\n"
MASKED = "            fields[\"mask\"][i, k, t] = running\n"
FAULTS = {
    "pointmass": [
        ("the product 0.1 a is clipped to [-1, 1], not a",
         (CLIP, "[exact.clip(a / 10, Decimal(-1), Decimal(1)) for a in action]")),
        ("an episode ends within the radius in any axis", (END, END.replace("all", "any"))),
        ("an episode ends within the radius in Euclidean distance",
         (END, "exact.below(distance, options[\"radius\"])")),
        ("the step that ends an episode is masked, and its reward with it", (RUNNING, ""),
         (MASKED, RUNNING + MASKED)),
        ("rewards after the end are counted",
         ("kept = reward if running else Decimal(0)", "kept = reward")),
        ("observations are those after the step", (OBSERVED, ""), (MASKED, MASKED + OBSERVED)),
    ],
    "sparse-pointmass": [
        ("the reward is 1 - distance everywhere",
         (" if exact.below(distance, Decimal(\"0.2\")) else Decimal(0)", "")),
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
         ("exact.below(draw, mean)", "exact.below(mean, draw)")),
    ],
    "linear-bandit": [
        ("the deviation is taken for a variance",
         ("options[\"noise\"]", "options[\"noise\"].sqrt()")),
    ],
    "tasks": [
        ("the colours of training and test cells are exchanged",
         ("split == \"test\"", "split == \"train\"")),
    ],
}
# fmt: on


# --- The cases ---
def case(name, family, options, tasks, actions, why, **more):
    tasks, actions, draws = np.array(tasks), np.round(actions, 3), noise(name)
    rollout(envs.make(family, **options), Script(actions), None, tasks, actions.shape[1], draws)
    inputs = {
        "family": family,
        "options": options,
        "tasks": tasks,
        "actions": actions,
        "noise": draws.draws,
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
    options = {"horizon": 5, "box": 0.5, "radius": 0.01}
    why = "actions are clipped; the reward is that of the position after the move; "
    why += "the end needs both axes"
    yield case("pointmass", "pointmass", options, goals, actions, why)
    why = "radius 0: an episode never ends before the horizon"
    yield case(
        "pointmass without end", "pointmass", {**options, "radius": 0.0}, goals, actions, why
    )

    goals = [[np.cos(0.4), np.sin(0.4)], [np.cos(2.9), np.sin(2.9)]]
    actions = np.array([0.95, 0.4]) + 0.3 * normal((2, 2, 12, 2))
    why = "1 - distance within 0.2 of the goal, else 0"
    yield case("sparse-pointmass", "sparse-pointmass", {"horizon": 12}, goals, actions, why)

    goals, actions = [[2.0, -2.0], [-2.0, 2.0]], np.array([1.6, -1.2]) + 0.5 * normal((2, 1, 60, 2))
    why = "nothing is told beyond 2 of the goal; the position stays in [-5, 5]^2"
    yield case("fourcorners", "fourcorners", {"horizon": 60}, goals, actions, why)

    why = "the action is clipped, then the move turned anticlockwise by the task's angle"
    actions = normal((2, 2, 4, 2))
    yield case(
        "turned-pointmass", "turned-pointmass", {"horizon": 4}, [[0.7], [-2.9]], actions, why
    )


def bandits():
    draw = noise("bandits")
    actions = draw.integers(3, size=(2, 2, 6))
    options = {"arms": 3, "horizon": 6, "prior": []}
    why = "reward 1 if a uniform number is below the arm's probability"
    yield case("bandit", "bandit", options, draw.random((2, 3)), actions, why)
    options = {"arms": 3, "horizon": 6, "dims": 2, "noise": 0.5, "features": 0}
    X = np.random.default_rng(0).standard_normal((3, 2))
    why = "mean x_a . w, row a of X; X, which the program draws from the seed `features`, "
    why += "is an input here"
    yield case(
        "linear-bandit",
        "linear-bandit",
        options,
        1 + draw.standard_normal((2, 2)),
        actions,
        why,
        X=X,
    )


SAMPLES = {
    "pointmass": ({"box": 0.5}, "uniform in the box"),
    "sparse-pointmass": ({}, "at an angle, uniform from 0 to pi"),
    "turned-pointmass": ({}, "an angle, uniform from -pi to pi"),
    "fourcorners": ({}, "each corner as often as the others, or once more"),
    "bandit": (
        {"arms": 3, "prior": [[1, 3], [2, 1], [2, 2]]},
        "by the inverse distribution function of Beta(a, b)",
    ),
    "linear-bandit": (
        {"arms": 3, "dims": 2},
        "by the inverse distribution function of the normal one, plus 1",
    ),
}


def samples():
    for family, (options, why) in SAMPLES.items():
        for split in ("train", "test"):
            draws = noise(f"tasks: {family}")  # the same for both splits
            envs.make(family, **options).sample_tasks(5, draws, split)
            inputs = {
                "family": family,
                "options": options,
                "n": 5,
                "split": split,
                "noise": draws.draws,
            }
            faults = [(words, slip(tasks_by_loops, *edits)) for words, *edits in FAULTS["tasks"]]
            faults = [] if family == "fourcorners" else faults  # where the splits coincide
            name = f"tasks: {family}, {split}"
            yield Case(
                name,
                "tasks",
                why,
                "loop form; distribution functions are inverted by halving",
                inputs,
                faults=faults,
            )


def rejected():
    for name, family, options, n, split, why in (
        (
            "no such family",
            "point-mass",
            {},
            1,
            "train",
            "names are pointmass, sparse-pointmass, ...",
        ),
        ("no such option", "pointmass", {"size": 2}, 1, "train", "options are those of the family"),
        ("horizon 0", "pointmass", {"horizon": 0}, 1, "train", "a whole number of at least 1"),
        ("radius beyond a step", "pointmass", {"radius": 0.2}, 1, "train", "in [0, 0.1]"),
        ("one arm", "bandit", {"arms": 1}, 1, "train", "a whole number of at least 2"),
        (
            "priors for other arms",
            "bandit",
            {"arms": 3, "prior": [[1, 1]]},
            1,
            "train",
            "one pair for each arm",
        ),
        ("no such split", "pointmass", {}, 1, "validation", "train or test"),
        ("no tasks", "pointmass", {}, 0, "train", "at least 1"),
    ):
        inputs = {"family": family, "options": options, "n": n, "split": split, "noise": []}
        yield Case(name, "tasks", why, "the definition of the family", inputs, rejects=True)


def cases():
    for group in (point_masses, bandits, samples, rejected):
        yield from group()
