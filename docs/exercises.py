"""Five exercises: a copy of the program with a fault in it, or with a piece missing, and a check that is exact.

    python -m docs.exercises                  list them
    python -m docs.exercises 3 DIR            write the program with fault 3 into DIR, and print the task
    python -m docs.exercises 3 DIR --check    has it been found? In seconds; exit status 0 if so, 1 if not
    python -m docs.exercises 3 --hint         a hint
    python -m docs.exercises 3 --solution     the place, and what belongs there

Every faulty program learns; so the checks look at no learning curve, but compare numbers with what they must be: a
formula, a sum over everything that can happen, an invariance. Read a check after its exercise: it is half the lesson.
"""

import argparse
import contextlib
import itertools
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

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
    """A family and a policy in one, such that the loss of a task is 1/2 theta' A theta, without any noise.

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
    """After k steps theta' = (I - alpha A)^k theta: MAML's gradient is (I - alpha A)^k A theta', FOMAML's A theta'."""
    import metarl
    from harness.settings import Setting

    A, theta, alpha = Quadratic.A, np.array([1.0, -2.0]), 0.1
    plain = dict(
        env=Quadratic(),
        policy=Quadratic(),
        baseline="none",
        standardise=False,
        gamma=1.0,
        episodes=1,
    )
    plain |= dict(alpha=alpha, alpha_decay=1.0, learn_alpha=False)
    for (algo, estimator), k in itertools.product(
        (("fomaml", "first-order"), ("maml", "log-prob")), (1, 2)
    ):
        c = Setting(algo=algo, estimator=estimator, inner_steps=k, **plain)
        through = np.linalg.matrix_power(np.eye(2) - alpha * A, k)
        expected = (through if algo == "maml" else np.eye(2)) @ A @ through @ theta
        g, _ = metarl.meta_gradient(c, theta, np.zeros((1, 1)), (0,))
        must_equal(
            g[0], expected, f"gradient of {algo} after {k} step(s) on the loss 1/2 theta' A theta"
        )


def check_tasks_apart():
    """What a task is adapted to must not depend on the tasks beside it, and its advantages are standardised."""
    import metarl
    import policies
    from harness.settings import Setting

    tasks, rng = np.array([[0.02, 0.03], [0.5, -0.5], [5.0, 5.0]]), np.random.default_rng(0)
    for baseline in policies.BASELINES:
        plain = dict(baseline=baseline, standardise=True, episodes=4, learn_alpha=False)
        c = Setting(env="pointmass:horizon=12,radius=0.1", policy="linear", **plain)
        x = np.tile(c.network.init(rng), (3, 1))
        D = policies.rollout(c.family, c.network, x, tasks, c.episodes, rng)

        def theta_prime(rows, c=c, x=x, D=D):
            part = policies.Trajectories(*(column[rows] for column in D[:4]))
            return metarl.adapt(c, metarl.Tensor(x[rows]), lambda k, theta: part)[0][-1].data

        alone = np.concatenate([theta_prime(slice(i, i + 1)) for i in range(3)])
        text = f"baseline {baseline}: norm of the step of each of 3 tasks, adapted together"
        norm = lambda theta, x=x: np.linalg.norm(theta - x, axis=1)
        must_equal(norm(theta_prime(slice(3))), norm(alone), text)
        must_equal(
            theta_prime(slice(3)),
            alone,
            f"baseline {baseline}: theta' of 3 tasks, adapted together",
        )
        kept = [A[mask] for A, mask in zip(policies.advantages(D, baseline), D.mask, strict=True)]
        must_equal(
            [A.mean() for A in kept],
            np.zeros(3),
            f"baseline {baseline}: mean advantage of each task",
        )
        must_equal(
            [A.std() for A in kept],
            np.ones(3),
            f"baseline {baseline}: deviation of them",
            rtol=1e-4,
        )


def check_pairs():
    """Two members with the same parameters, judged on the same task, are worth the same; on its twin they are not."""
    import metarl
    from harness.settings import Setting

    plain = dict(
        algo="es-maml", env="pointmass:horizon=6", policy="linear", episodes=4, deterministic=False
    )
    for inner in ("pg", "es", "hc"):
        c = Setting(inner=inner, learn_alpha=True, **plain)
        tasks = np.tile([0.3, -0.2], (3, 1))
        x = np.tile(
            np.append(c.network.init(np.random.default_rng(1)), np.zeros(c.network.size)), (3, 2, 1)
        )
        v, _ = metarl.fitness(c, x, tasks, (0, 1))
        text = f"inner loop {inner}: values of theta + 0 g on 3 tasks, beside those of theta - 0 g"
        must_equal(v[:, 0], v[:, 1], text)
        must(
            len(np.unique(v[:, 0])) == 3,
            f"inner loop {inner}: three tasks share their noise: {v[:, 0]}",
        )


def check_covariance():
    """C of three generations against the sum of Hansen's equation 47, outer product by outer product."""
    import es

    noise = np.random.default_rng(2)
    for diagonal in (False, True):
        s = es.CMAES(np.zeros(3), 0.5, popsize=8, rng=3, diagonal=diagonal)
        for t in range(1, 4):
            x, f, mean, sigma, C = s.ask(), noise.standard_normal(8), s.mean, s.sigma, s.C
            matrix = np.diag(C) if diagonal else C
            s.tell(x, f)
            w, y = s.w, (x[np.argsort(f)] - mean) / sigma
            limit = (1.4 + 2 / 4) * s.chi_n * np.sqrt(1 - (1 - s.c_sigma) ** (2 * t))
            h = float(np.linalg.norm(s.p_sigma) < limit)
            expected = (
                1 + s.c_1 * (1 - h) * s.c_c * (2 - s.c_c) - s.c_1 - s.c_mu * w.sum()
            ) * matrix
            expected = expected + s.c_1 * np.outer(s.p_c, s.p_c)
            for w_i, y_i in zip(w, y, strict=True):
                w_i = w_i if w_i >= 0 else w_i * 3 / (y_i @ np.linalg.solve(matrix, y_i))
                expected = expected + s.c_mu * w_i * np.outer(y_i, y_i)
            form = "diagonal" if diagonal else "full"
            must_equal(
                s.C,
                np.diag(expected) if diagonal else expected,
                f"{form} covariance, generation {t}",
            )


class Pulls:
    """A two-armed bandit, pulled twice, unless arm 1 ends the episode at once: three episodes can happen.

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
        """The expected return after a step of gradient ascent on two sampled episodes: the sum over all nine pairs."""
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
    """The expected estimate is the gradient of the expected return after adaptation to sampled episodes."""
    import metarl
    from harness.settings import Setting

    game, theta, alpha = Pulls(), np.array([0.3, -0.2, 0.1, 0.4]), 1.5
    plain = dict(
        algo="emaml", estimator="log-prob", env=game, policy="linear", standardise=False, gamma=1.0
    )
    plain |= dict(alpha=alpha, episodes=2, inner_steps=1, learn_alpha=False)
    c = Setting(baseline="none", **plain)
    courses = np.array(
        list(itertools.product(range(3), repeat=3))
    )  # two inner episodes and one after adaptation
    inner, outer, p = courses[:, :2], courses[:, 2:], game.chances(theta)[courses[:, :2]].prod(1)

    def sample(k, theta_now):
        nonlocal p
        p = p if k == 0 else p * np.take_along_axis(game.chances(theta_now), outer, 1)[:, 0]
        return game.episodes((inner, outer)[k])

    x = metarl.Tensor(np.tile(theta, (27, 1)))
    loss, _ = metarl.meta_loss(c, x, sample)
    expectation = -2 * p @ metarl.grad(loss, x, metarl.Tensor(np.ones(27))).data
    ahead = lambda e: game.adapted_value(theta + e, alpha) - game.adapted_value(theta - e, alpha)
    expected = [ahead(e) / 2e-5 for e in 1e-5 * np.eye(4)]
    must_equal(
        expectation,
        expected,
        "expected estimate of the gradient of the return after adaptation",
        rtol=1e-6,
    )
    game.rewards = np.array([[0.5, 0.0]] * 3)  # whatever is done
    c = Setting(baseline="time", **plain)
    loss, _ = metarl.meta_loss(c, x, sample)
    g = metarl.grad(loss, x, metarl.Tensor(np.ones(27))).data
    must_equal(g, np.zeros_like(g), "gradients where all episodes pay the same, with a baseline")


# --- The exercises ---
class Exercise(NamedTuple):
    title: str
    task: str
    hint: str
    file: str
    function: str
    right: str  # the text of the file, and what stands there instead
    wrong: str
    check: Callable


EXERCISES = (
    Exercise(
        "The gradient that went missing",
        """
        `python metarl.py --algo maml --env sparse-pointmass` and the same with fomaml print the same numbers, digit for
        digit. The one differentiates through its inner steps, the other does not; they cannot agree. Make MAML itself
        again.
        """,
        """
        A gradient of a gradient needs the first one as a function of theta, and not as a number. Follow the inner
        gradient from the call that asks for it to be recorded to the call that computes it.
        """,
        "metarl.py",
        "inner_loop",
        "theta, create_graph=create_graph)  # l.6",
        "theta)  # l.6",
        check_meta_gradient,
    ),
    Exercise(
        "Strangers in the batch",
        """
        The same parameters adapt to the same task on the same episodes, once alone and once in a batch with harder
        tasks; theta' is not the same. In a batch, tasks whose returns vary little hardly move. Where do tasks meet?
        """,
        """
        Step sizes are right, and so are gradients of log pi. Look at what multiplies them, and ask of each statistic
        over which axes it is taken: tasks, episodes, time.
        """,
        "policies.py",
        "advantages",
        """        mean, deviation = moments(A, D.mask)
        A = (A - mean) * D.mask / deviation
""",
        """        A = (A - A[D.mask].mean()) * D.mask / (A[D.mask].std() + 1e-8)
""",
        check_tasks_apart,
    ),
    Exercise(
        "An unequal pair",
        """
        ES-MAML compares theta + sigma g with theta - sigma g, on one task and under one noise, so that what differs
        between their returns is due to g. But let sigma go to 0, so that the two are the same: their returns still
        differ, unless there is only one task. All that noise goes into the gradient.
        """,
        """
        All members of all tasks run in one batch, and task i owns its rows n i, ..., n i + n - 1. Write down, for two
        tasks and two members, which row of noise each row of the batch gets.
        """,
        "policies.py",
        "Common.shared",
        "return np.repeat(draw((shape[0] // self.n, *shape[1:])), self.n, 0)",
        "return np.concatenate([draw((shape[0] // self.n, *shape[1:]))] * self.n)",
        check_pairs,
    ),
    Exercise(
        "A valley without a path",
        """
        CMA-ES solves the sphere as fast as ever. But on a long, narrow valley (one direction a million times as flat
        as the others) it needs more evaluations than it should: it no longer sees that it has moved in one and the
        same direction generation after generation. Hold its update against Hansen's tutorial, term by term.
        """,
        """
        The path p_c adds up the steps of the mean, and is computed. Who uses it?
        """,
        "es.py",
        "CMAES.tell",
        "weights, rows = np.append(self.c_1, self.c_mu * w_o), np.vstack([self.p_c, y])",
        "weights, rows = self.c_mu * w_o, y",
        check_covariance,
    ),
    Exercise(
        "A term to write",
        """
        theta decides not only where the inner step leads from given episodes, but also which episodes it takes. MAML
        ignores the second; E-MAML (Stadie et al. 2018) adds it, and `python metarl.py --algo emaml` now stops with
        NotImplementedError, for two lines are missing. Write them: a loss (T,) whose gradient is, for each inner step,
        minus the sum over its episodes tau_n of (J - others) grad log pi(tau_n). J and others are there.
        """,
        """
        log pi(tau_n) is a sum over the steps of the episode; those after its end are not its steps. J - others is a
        constant, (T, K). For the rest, the docstring tells what has to come out.
        """,
        "policies.py",
        "sampling",
        """        log_pi = ad.sum(c.network.log_prob(theta, D.obs, D.actions) * D.mask, 2)
        loss = loss - ad.sum(log_pi * (J - others), 1)
""",
        """        raise NotImplementedError("two lines are missing here")
""",
        check_sampling_term,
    ),
)


def faulty(exercise):
    """The text of the exercise's file with its fault; ValueError where the file has changed under it."""
    text = (ROOT / exercise.file).read_text(encoding="utf-8")
    if text.count(exercise.right) != 1:
        raise ValueError(
            f"{exercise.file}: the lines of {exercise.title!r} must stand there exactly once"
        )
    return text.replace(exercise.right, exercise.wrong)


def program():
    """The files of the program: the modules, without their tests."""
    return [path for path in sorted(ROOT.glob("*.py")) if not path.name.startswith("test_")]


def write(exercise, directory):
    """Write the program with the fault into the directory; ValueError where one stands there already."""
    for path in program():
        if (directory / path.name).exists():
            raise ValueError(
                f"{directory}: holds {path.name}, which would be lost; choose another directory"
            )
    directory.mkdir(parents=True, exist_ok=True)
    for path in program():
        text = faulty(exercise) if path.name == exercise.file else path.read_text(encoding="utf-8")
        (directory / path.name).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def modules_of(directory):
    """Within, `import metarl` and the like give the modules in the directory, as they stand there now."""
    names = [path.stem for path in program()]
    ours = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    path, compiled = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(directory.resolve()))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, compiled
        for name in names:
            sys.modules.pop(name, None)
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
        print(f"{exercise.file}, {exercise.function}:\n\n{exercise.right.rstrip()}")
        return 0
    if given.directory is None:
        p.error("DIR is missing: the directory for your copy of the program")
    if given.check:
        wrong = verdict(exercise, given.directory)
        print(f"not yet: {wrong}" if wrong else f"found: {exercise.check.__doc__}")
        return 1 if wrong else 0
    try:
        write(exercise, given.directory)
    except ValueError as error:
        p.error(str(error))
    again = f"python -m docs.exercises {given.number}"
    print(f"{given.number}  {exercise.title}\n\n{paragraph(exercise.task)}\n")
    print(
        f"The program is in {given.directory}. Try: {again} {given.directory} --check; {again} --hint"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
