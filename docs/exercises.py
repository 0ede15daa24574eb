"""Five exercises: a copy of the program with a fault in it, or a piece missing, and an exact check.

    python -m docs.exercises                  list them
    python -m docs.exercises 3 DIR            write the program with fault 3 into DIR
    python -m docs.exercises 3 DIR --check    has it been found? Exit status 0 if so, 1 if not
    python -m docs.exercises 3 --hint         a hint
    python -m docs.exercises 3 --solution     the place, and what belongs there

Every faulty program learns; so the checks look at no learning curve, but compare numbers with what
they must be: a formula, a sum over everything that can happen, an invariance. Read a check after
its exercise: it is half the lesson.

Faults are planted by what a statement does, not by how it is written: `fault` of each exercise
finds its place in the syntax tree.
"""

import argparse
import ast
import contextlib
import difflib
import io
import itertools
import sys
import textwrap
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from docs.pseudocode import functions, tags

ROOT = Path(__file__).parent.parent


def must(holds, text):
    if not holds:
        raise AssertionError(text)


def must_equal(actual, expected, text, rtol=1e-9):
    """Names the first row that differs."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    must(actual.shape == expected.shape, f"{text}: shape {actual.shape}, not {expected.shape}")
    for a, b in zip(np.atleast_2d(actual), np.atleast_2d(expected), strict=True):
        must(
            np.allclose(a, b, rtol, 1e-12),
            f"{text}: {a.round(6).tolist()}, not {b.round(6).tolist()}",
        )


# --- Checks. The modules that they import are the learner's. ---
class Quadratic:
    """A family and a policy in one: the loss of a task is 1/2 theta' A theta, without any noise.

    An episode is one step with reward 1; its log-probability is minus the loss.
    """

    obs_dim = action_dim = horizon = task_dim = 1
    discrete = splits_coincide = False
    A = np.array([[3.0, 1.0], [1.0, 2.0]])

    def reset(self, tasks, shape, rng):
        return np.ones((*shape, 1))

    def observe(self, state):
        return state

    def actor(self, theta):
        return lambda obs, rng: obs

    def step(self, state, action, tasks, rng):
        return state, np.ones(state.shape[:-1]), np.zeros(state.shape[:-1], bool)

    def log_prob(self, theta, obs, action):
        import autodiff as ad

        loss = 0.5 * ad.sum(theta * ad.matmul(theta, self.A), -1)
        return -ad.reshape(loss, (len(obs), 1, 1)) * np.ones(obs.shape[:-1])


def check_meta_gradient():
    """After k steps theta' = (I - alpha A)^k theta; FOMAML's gradient is A theta'.

    MAML's is (I - alpha A)^k A theta'.
    """
    import metarl
    from harness.settings import Setting

    A = Quadratic.A
    theta = np.array([1.0, -2.0])
    alpha = 0.1
    plain = dict(env=Quadratic(), policy=Quadratic(), episodes=1, learn_alpha=False)
    plain |= dict(baseline="none", standardise=False, gamma=1.0, alpha=alpha, alpha_decay=1.0)
    estimators = {"fomaml": "first-order", "maml": "log-prob"}
    for algo, k in itertools.product(estimators, (1, 2)):
        c = Setting(algo=algo, estimator=estimators[algo], inner_steps=k, **plain)
        step = np.linalg.matrix_power(np.eye(2) - alpha * A, k)  # theta' = step @ theta
        expected = A @ step @ theta
        if algo == "maml":
            expected = step @ expected  # the chain rule
        g, _ = metarl.meta_gradient(c, theta, np.zeros((1, 1)), (0,))
        text = f"gradient of {algo} after {k} step(s) on the loss 1/2 theta' A theta"
        must_equal(g[0], expected, text)


def check_tasks_apart():
    """What a task is adapted to does not depend on the tasks beside it.

    Each task's own advantages have mean 0 and deviation 1.
    """
    import metarl
    import policies
    from harness.settings import Setting

    tasks = np.array([[0.02, 0.03], [0.5, -0.5], [5.0, 5.0]])
    for baseline in policies.BASELINES:
        plain = dict(baseline=baseline, standardise=True, episodes=4, learn_alpha=False)
        c = Setting(env="pointmass:horizon=12,radius=0.1", policy="linear", **plain)
        x = np.tile(metarl.initial_state(c)["theta"], (3, 1))
        D = metarl.sampler(c, tasks, (0,))(0, x)

        def theta_prime(rows, c=c, x=x, D=D):
            part = policies.Trajectories(*(column[rows] for column in D[:4]))
            path, _ = metarl.adapt(c, metarl.Tensor(x[rows]), lambda k, theta: part)
            return path[-1].data

        together = theta_prime(slice(3))
        alone = np.concatenate([theta_prime(slice(i, i + 1)) for i in range(3)])
        norms = [np.linalg.norm(theta - x, axis=1) for theta in (together, alone)]
        text = f"baseline {baseline}: norm of the step of each of 3 tasks, adapted together"
        must_equal(*norms, text)
        text = f"baseline {baseline}: theta' of 3 tasks, adapted together"
        must_equal(together, alone, text)
        kept = [A[mask] for A, mask in zip(policies.advantages(D, baseline), D.mask, strict=True)]
        text = f"baseline {baseline}: mean advantage of each task"
        must_equal([A.mean() for A in kept], np.zeros(3), text)
        text = f"baseline {baseline}: deviation of the advantages of each task"
        must_equal([A.std() for A in kept], np.ones(3), text, rtol=1e-4)


def check_pairs():
    """Two members with the same parameters are worth the same on the same task, not on its twin."""
    import metarl
    from harness.settings import Setting

    plain = dict(
        algo="es-maml", env="pointmass:horizon=6", policy="linear", episodes=4, deterministic=False
    )
    for inner in ("pg", "es", "hc"):
        c = Setting(inner=inner, learn_alpha=True, **plain)
        tasks = np.tile([0.3, -0.2], (3, 1))
        x = metarl.initial_state(c)["theta"]
        v, _ = metarl.fitness(c, np.tile(x, (3, 2, 1)), tasks, (0, 1))
        text = f"inner loop {inner}: values of theta + 0 g on 3 tasks, beside those of theta - 0 g"
        must_equal(v[:, 0], v[:, 1], text)
        text = f"inner loop {inner}: three tasks share their noise: {v[:, 0]}"
        must(len(np.unique(v[:, 0])) == 3, text)


def check_covariance():
    """C of three generations is Hansen's equation 47, outer product by outer product."""
    import es

    noise = np.random.default_rng(2)
    for diagonal in (False, True):
        s = es.CMAES(np.zeros(3), 0.5, popsize=8, rng=3, diagonal=diagonal)
        for t in range(1, 4):
            x = s.ask()
            f = noise.standard_normal(8)
            y = (x[np.argsort(f)] - s.mean) / s.sigma
            C = np.diag(s.C) if diagonal else s.C
            s.tell(x, f)
            w = s.w
            limit = (1.4 + 2 / 4) * s.chi_n * np.sqrt(1 - (1 - s.c_sigma) ** (2 * t))
            h = float(np.linalg.norm(s.p_sigma) < limit)
            keep = 1 + s.c_1 * (1 - h) * s.c_c * (2 - s.c_c) - s.c_1 - s.c_mu * w.sum()
            expected = keep * C + s.c_1 * np.outer(s.p_c, s.p_c)
            for w_i, y_i in zip(w, y, strict=True):
                if w_i < 0:
                    w_i = w_i * 3 / (y_i @ np.linalg.solve(C, y_i))
                expected = expected + s.c_mu * w_i * np.outer(y_i, y_i)
            if diagonal:
                must_equal(s.C, np.diag(expected), f"diagonal covariance, generation {t}")
            else:
                must_equal(s.C, expected, f"full covariance, generation {t}")


class Pulls:
    """A two-armed bandit, pulled twice, unless arm 1 ends it at once: three episodes can happen.

    theta (4,) or (..., 4): the weights and biases of two logits.
    """

    obs_dim, action_dim, task_dim, horizon, discrete = 1, 2, 1, 2, True
    actions = np.array([[0, 0], [0, 1], [1, 0]])
    mask = np.array([[True, True], [True, True], [True, False]])
    rewards = np.array([[0.3, 1.0], [0.3, 0.2], [0.7, 0.0]])

    def chances(self, theta):
        """The probability of each of the three: (..., 3)."""
        pi = np.exp(theta[..., :2] + theta[..., 2:])
        pi = pi / pi.sum(-1, keepdims=True)
        return np.where(self.mask, pi[..., self.actions], 1).prod(-1)

    def steps(self, theta):
        """The policy gradient of an episode by itself, the mean over its two time steps: (3, 4)."""
        pi = np.exp(theta[:2] + theta[2:])
        scores = (np.eye(2)[self.actions] - pi / pi.sum()) * self.mask[..., None]  # (3, 2, 2)
        ahead = self.rewards[:, ::-1].cumsum(1)[:, ::-1]
        return np.tile((ahead[..., None] * scores).mean(1), 2)

    def value(self, theta):
        return self.chances(theta) @ self.rewards.sum(1)

    def adapted_value(self, theta, alpha):
        """The expected return after a step on two sampled episodes: the sum over all nine pairs."""
        p, g = self.chances(theta), self.steps(theta)
        pairs = itertools.product(range(3), repeat=2)
        return sum(p[i] * p[j] * self.value(theta + alpha * (g[i] + g[j]) / 2) for i, j in pairs)

    def episodes(self, which):
        """The episodes `which` (T, K) as Trajectories."""
        import policies

        return policies.Trajectories(
            np.ones((*which.shape, 2, 1)),
            self.actions[which],
            self.rewards[which],
            self.mask[which],
        )


def check_sampling_term():
    """The expected estimate is the gradient of the expected return after a sampled step."""
    import metarl
    from harness.settings import Setting

    game = Pulls()
    theta = np.array([0.3, -0.2, 0.1, 0.4])
    alpha = 1.5
    plain = dict(algo="emaml", estimator="log-prob", env=game, policy="linear")
    plain |= dict(alpha=alpha, episodes=2, inner_steps=1, learn_alpha=False)
    plain |= dict(standardise=False, gamma=1.0)
    c = Setting(baseline="none", **plain)
    courses = np.array(list(itertools.product(range(3), repeat=3)))
    inner, outer = courses[:, :2], courses[:, 2:]  # two episodes, and one after adaptation
    p = game.chances(theta)[inner].prod(1)

    def sample(k, theta_now):
        nonlocal p
        if k == 0:
            return game.episodes(inner)
        p = p * np.take_along_axis(game.chances(theta_now), outer, 1)[:, 0]
        return game.episodes(outer)

    x = metarl.Tensor(np.tile(theta, (27, 1)))
    loss, _ = metarl.meta_loss(c, x, sample)
    expectation = -2 * p @ metarl.grad(loss, x, metarl.Tensor(np.ones(27))).data
    value = lambda x: game.adapted_value(x, alpha)
    expected = [(value(theta + e) - value(theta - e)) / 2e-5 for e in 1e-5 * np.eye(4)]
    text = "expected estimate of the gradient of the return after adaptation"
    must_equal(expectation, expected, text, rtol=1e-6)

    game.rewards = np.array([[0.5, 0.0]] * 3)  # whatever is done
    p = game.chances(theta)[inner].prod(1)
    c = Setting(baseline="time", **plain)
    loss, _ = metarl.meta_loss(c, x, sample)
    g = metarl.grad(loss, x, metarl.Tensor(np.ones(27))).data
    must_equal(g, np.zeros_like(g), "gradients where all episodes pay the same, with a baseline")


# --- Planting a fault ---
class Source:
    """A module's text and its syntax tree; ValueError where what is looked for is not there."""

    def __init__(self, file, text):
        self.file, self.text = file, text
        self.tree = ast.parse(text)

    def find(self, what, wanted, inside=None):
        """The nodes for which `wanted` holds, in order, at least one."""
        nodes = [x for x in ast.walk(inside or self.tree) if wanted(x)]
        if not nodes:
            raise ValueError(f"{self.file}: no {what}: the exercise needs a new place")
        return sorted(nodes, key=lambda x: (x.lineno, x.col_offset))

    def named(self, name):
        """The function, class or method ("CMAES.tell") of that name."""
        kinds = ast.FunctionDef, ast.ClassDef
        node = self.tree
        for part in name.split("."):
            wanted = lambda x, part=part: isinstance(x, kinds) and x.name == part
            node = self.find(name, wanted, node)[0]
        return node

    def around(self, node):
        """The name of the function around a node."""
        inside = lambda f: f.lineno <= node.lineno <= f.end_lineno
        return next(name for name, f in functions(self.tree) if inside(f))

    def code(self, node):
        return ast.get_source_segment(self.text, node)

    def replaced(self, edits):
        """The text with other code in the place of nodes, or of all from a first to a last one.

        edits: [(node, code)] or [((first, last), code)].
        """
        data = self.text.encode()
        starts = [0, *itertools.accumulate(len(line) for line in data.splitlines(keepends=True))]
        places = []
        for place, code in edits:
            first, last = place if isinstance(place, tuple) else (place, place)
            begin = starts[first.lineno - 1] + first.col_offset
            places.append((begin, starts[last.end_lineno - 1] + last.end_col_offset, code))
        for begin, end, code in sorted(places, reverse=True):
            data = data[:begin] + code.encode() + data[end:]
        return data.decode()


def silent(text, name, words):
    """The text without those comments of a function or class that hold one of the words.

    Of those behind code the tags of pseudo-code stay.
    """
    node = Source("", text).named(name)
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (row, column), told = token.start, token.string.lower()
        here = token.type == tokenize.COMMENT and node.lineno <= row <= node.end_lineno
        if here and any(word in told for word in words):
            before = lines[row - 1][:column].rstrip()
            kept = ", ".join(tags(token.string[1:]))
            lines[row - 1] = f"{before}  # {kept}" if before and kept else before or None
    return "\n".join(line for line in lines if line is not None) + "\n"


def is_call(node, name):
    """Whether a node calls `name` or `module.name`."""
    f = getattr(node, "func", None)
    return isinstance(node, ast.Call) and name in (getattr(f, "id", None), getattr(f, "attr", None))


def assigns(node, name):
    """Whether a node is an assignment to `name`, a variable or an attribute of self."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    return any(ast.unparse(target) in (name, f"self.{name}") for target in targets)


def cut_the_gradient(source):
    """The inner gradient is recorded, if so wanted, and used as a number."""
    asked = lambda x: x.arg == "create_graph" and ast.unparse(x.value) == "create_graph"
    wanted = lambda x: is_call(x, "grad") and any(map(asked, x.keywords))
    call = source.find("gradient that may be recorded", wanted)[0]
    text = source.replaced([(call, source.code(call) + ".data")])
    words = "record", "constant", "create_graph", "order", "second", "number", "through"
    return silent(text, source.around(call), words)


def mix_the_tasks(source):
    """Mean and deviation are those of all tasks of the batch."""
    axes = lambda x: isinstance(x, ast.Tuple) and ast.unparse(x) == "(1, 2)"
    places = source.find("axes of episodes and time", axes, source.named("moments"))
    text = source.replaced([(place, "(0, 1, 2)") for place in places])
    return silent(text, "moments", ("task",))


def shuffle_the_noise(source):
    """Noise in the order of members, where rows are in the order of tasks."""
    places = source.find("repeat", lambda x: is_call(x, "repeat"), source.named("Common"))
    edits = []
    for call in places:
        noise, n = (source.code(x) for x in call.args[:2])
        edits.append((call, f"np.concatenate([{noise}] * {n})"))
    return silent(source.replaced(edits), "Common", ("row", "task", "member", "repeat"))


def uses_of_the_path(source):
    """Where CMA-ES reads its path p_c, but for the update of the path itself."""
    cma_es = source.named("CMAES")
    own = source.find("update of the path", lambda x: assigns(x, "p_c"), cma_es)
    reads = lambda x: ast.unparse(x) in ("self.p_c", "p_c") and isinstance(x.ctx, ast.Load)
    is_read = lambda x: isinstance(x, ast.Name | ast.Attribute) and reads(x)
    inside = lambda x: any(step.lineno <= x.lineno <= step.end_lineno for step in own)
    return [x for x in source.find("use of the path", is_read, cma_es) if not inside(x)]


def forget_the_path(source):
    """The rank-one term takes the latest step of the mean in place of the path."""
    places = uses_of_the_path(source)
    name = source.around(places[0])
    is_step = lambda x: "y_w" in (getattr(x, "id", None), getattr(x, "arg", None))
    source.find("step of the mean", is_step, source.named(name))
    text = source.replaced([(place, "y_w") for place in places])
    return silent(text, name, ("rank-one", "rank one", "rank_one", "p_c p_c", "outer product"))


def remove_the_term(source):
    """Without the lines that turn J and its baseline into a loss."""
    function = source.named("sampling_term")
    is_J = lambda x: isinstance(x, ast.Name) and x.id == "J" and isinstance(x.ctx, ast.Store)
    source.find("J", is_J, function)
    loop = source.find("loop over inner steps", lambda x: isinstance(x, ast.For), function)[-1]
    begin = [n for n, x in enumerate(loop.body) if assigns(x, "log_pi")]
    if not begin or not assigns(loop.body[-1], "loss"):
        raise ValueError(f"{source.file}: log_pi and loss must be assigned at the loop's end")
    fault = 'raise NotImplementedError("lines are missing here")'
    text = source.replaced([((loop.body[begin[0]], loop.body[-1]), fault)])
    return silent(text, "sampling_term", ("log pi", "log_pi", "score", "mask"))


# --- The exercises ---
class Exercise(NamedTuple):
    title: str
    task: str
    hint: str
    file: str
    fault: Callable  # from the Source of the file to a text with the fault
    check: Callable


GRADIENT = Exercise(
    "The gradient that went missing",
    """
    `python metarl.py --algo maml --env sparse-pointmass` and the same with fomaml print the same
    numbers, digit for digit. The one differentiates through its inner steps, the other does not;
    they cannot agree. Make MAML itself again.
    """,
    """
    A gradient of a gradient needs the first one as a function of theta, and not as a number. Follow
    the inner gradient from where it is computed to where it moves theta.
    """,
    "metarl.py",
    cut_the_gradient,
    check_meta_gradient,
)
STRANGERS = Exercise(
    "Strangers in the batch",
    """
    The same parameters adapt to the same task on the same episodes, once alone and once in a batch
    with harder tasks; theta' is not the same. In a batch, tasks whose returns vary little hardly
    move. Where do tasks meet?
    """,
    """
    Step sizes are right, and so are gradients of log pi. Look at what multiplies them, and ask of
    each statistic over which axes it is taken: tasks, episodes, time.
    """,
    "policies.py",
    mix_the_tasks,
    check_tasks_apart,
)
PAIR = Exercise(
    "An unequal pair",
    """
    ES-MAML compares theta + sigma g with theta - sigma g, on one task and under one noise, so that
    what differs between their returns is due to g. But let sigma go to 0, so that the two are the
    same: their returns still differ, unless there is only one task. All that noise goes into the
    gradient.
    """,
    """
    All members of all tasks run in one batch, and task i owns its rows n i, ..., n i + n - 1. Write
    down, for two tasks and two members, which row of noise each row of the batch gets.
    """,
    "policies.py",
    shuffle_the_noise,
    check_pairs,
)
VALLEY = Exercise(
    "A valley without a path",
    """
    CMA-ES solves the sphere as fast as ever. But on a long, narrow valley (one direction a million
    times as flat as the others) it needs more evaluations than it should: it no longer sees that it
    has moved in one and the same direction generation after generation. Hold its update against
    Hansen's tutorial, term by term.
    """,
    """
    The path p_c adds up the steps of the mean, and is computed. Who uses it?
    """,
    "es.py",
    forget_the_path,
    check_covariance,
)
TERM = Exercise(
    "A term to write",
    """
    theta decides not only where the inner step leads from given episodes, but also which episodes
    it takes. MAML ignores the second; E-MAML (Stadie et al. 2018) adds it, and
    `python metarl.py --algo emaml` now stops with NotImplementedError, for two or three lines are
    missing. Write them: a loss (T,) whose gradient is, for each inner step, minus the sum over its
    episodes tau_n of (J - b_n) grad log pi(tau_n), where b_n is the mean return of the others. J
    and b_n are computed above the gap.
    """,
    """
    log pi(tau_n) is a sum over the steps of the episode; those after its end are not its steps.
    J - b_n is a constant, (T, K). For the rest, the docstring tells what has to come out.
    """,
    "policies.py",
    remove_the_term,
    check_sampling_term,
)
EXERCISES = (GRADIENT, STRANGERS, PAIR, VALLEY, TERM)
NO_DIFF = (
    "Comparing the files with the original gives the place away in a second, and teaches nothing: "
    "ask what must be true, and find out where it is not."
)


def original(exercise):
    return (ROOT / exercise.file).read_text(encoding="utf-8")


def faulty(exercise):
    """The text of the exercise's file with its fault; ValueError where there is no place for it."""
    return exercise.fault(Source(exercise.file, original(exercise)))


def solution(exercise):
    """Where the fault is, and what belongs there: the function, and lines of the original."""
    right, wrong = original(exercise).splitlines(), faulty(exercise).splitlines()
    changes = difflib.SequenceMatcher(None, right, wrong, autojunk=False).get_opcodes()
    rows = [i for tag, a, b, _, _ in changes if tag != "equal" for i in range(a, b)]
    rows = [i for i in rows if right[i].strip() and not right[i].strip().startswith("#")]
    tree = ast.parse(original(exercise))
    names = [name for name, f in functions(tree) if f.lineno <= rows[0] + 1 <= f.end_lineno]
    return names[0], textwrap.dedent("\n".join(right[i] for i in rows))


def program():
    """The files of the program, relative to its directory: the method and the harness, no tests."""
    paths = [*ROOT.glob("*.py"), *ROOT.glob("harness/*.py")]
    return sorted(p.relative_to(ROOT) for p in paths if not p.name.startswith("test_"))


def write(exercise, directory):
    """Write the program with the fault into the directory; ValueError where one stands there."""
    for path in program():
        if (directory / path).exists():
            raise ValueError(f"{directory}: holds {path}, which would be lost; choose another")
    text = faulty(exercise)
    (directory / "harness").mkdir(parents=True, exist_ok=True)
    for path in program():
        own = text if str(path) == exercise.file else (ROOT / path).read_text(encoding="utf-8")
        (directory / path).write_text(own, encoding="utf-8")


def loaded():
    """The modules of the program that have been imported: {name: module}."""
    names = {path.parts[0].removesuffix(".py") for path in program()}
    return {name: m for name, m in sys.modules.items() if name.partition(".")[0] in names}


@contextlib.contextmanager
def modules_of(directory):
    """Within, `import metarl` and the like give the modules in the directory, as they are now."""
    ours = loaded()
    for name in ours:
        del sys.modules[name]
    path, compiled = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(directory.resolve()))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, compiled
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(ours)


def verdict(exercise, directory):
    """What is still wrong with the program in the directory, in one line, or None."""
    if not (directory / exercise.file).exists():
        return (
            f"{directory} holds no {exercise.file}: write the exercise there first, without --check"
        )
    try:
        with modules_of(directory), np.errstate(all="ignore"):
            exercise.check()
    except Exception as error:  # noqa: BLE001 - a learner's program may raise anything
        return " ".join(f"{type(error).__name__}: {error}".removeprefix("AssertionError: ").split())
    return None


# --- The command line ---
def paragraph(text):
    return textwrap.fill(" ".join(text.split()), 100)


def parser():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "number", nargs="?", type=int, choices=range(1, len(EXERCISES) + 1), help="of an exercise"
    )
    p.add_argument(
        "directory", nargs="?", type=Path, metavar="DIR", help="where the learner's copy is"
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="whether the program in DIR is right")
    what.add_argument("--hint", action="store_true", help="where to think")
    what.add_argument("--solution", action="store_true", help="where it is, and what belongs there")
    return p


def main(argv=None):
    p = parser()
    given = p.parse_args(argv)
    if given.number is None:
        print(*(f"{i}  {exercise.title}" for i, exercise in enumerate(EXERCISES, 1)), sep="\n")
        return 0
    exercise = EXERCISES[given.number - 1]
    if given.hint:
        print(paragraph(exercise.hint))
        return 0
    if given.solution:
        function, lines = solution(exercise)
        print(f"{exercise.file}, {function}:\n\n{lines}")
        return 0
    if given.directory is None:
        p.error("DIR is missing: the directory for your copy of the program")
    if given.check:
        wrong = verdict(exercise, given.directory)
        if wrong:
            print(f"not yet: {wrong}")
            return 1
        print(paragraph(f"found: {exercise.check.__doc__}"))
        return 0
    try:
        write(exercise, given.directory)
    except ValueError as error:
        p.error(str(error))
    again = f"python -m docs.exercises {given.number}"
    print(f"{given.number}  {exercise.title}\n\n{paragraph(exercise.task)}\n")
    print(f"The program is in {given.directory}. {paragraph(NO_DIFF)}\n")
    print(f"    {again} {given.directory} --check\n    {again} --hint")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
