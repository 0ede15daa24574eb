"""What decides in benchmarks.baselines: which alpha, after how many steps, by which differences.

And in benchmarks.families: the smallest gain of a step.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import metarl
from benchmarks import baselines, families
from envs import Bandit, TurnedPointMass
from harness.settings import Setting

TINY = dict(
    env="bandit", iterations=2, tasks=2, episodes=2, test_tasks=4, adapt_episodes=2, test_episodes=2
)


# --- The grid ---
@pytest.mark.parametrize(("peak", "number"), [(0, 7), (2, 7), (3, 8), (-5, 10)])
def test_grid_is_widened_until_the_best_is_within(peak, number):
    best = 0.5 * baselines.RATIO**peak
    results = baselines.over_grid(lambda value: 2 * [-abs(np.log(value / best))], 0.5)
    values = list(results)
    assert len(values) == number
    assert values == sorted(values)
    first, _ = baselines.best_of_columns(results)
    assert first == pytest.approx(best)
    assert values[0] < first < values[-1]


def test_each_column_has_its_own_best():
    results = baselines.over_grid(lambda value: [-abs(value - 0.1), -abs(value - 3)], 0.5)
    first, last = baselines.best_of_columns(results)
    assert first == pytest.approx(0.1, rel=0.2)
    assert last == pytest.approx(3, rel=0.2)


def test_a_grid_has_an_end():
    values = list(baselines.over_grid(lambda value: [value], 1.0))
    assert values[-1] == pytest.approx(baselines.RATIO**baselines.FAR)


# --- The choice ---
@dataclass(frozen=True)
class Watched(Bandit):
    """A bandit that remembers which splits were asked for."""

    splits: list = field(default_factory=list)

    def sample_tasks(self, n, rng, split="train"):
        self.splits.append(split)
        return super().sample_tasks(n, rng, split)


def test_values_are_chosen_on_training_tasks(monkeypatch):
    """The best there is taken, whatever the held-out tasks would say: these only measure."""
    env = Watched()
    c = Setting(algo="reptile", **TINY | dict(env=env, policy="linear"))
    x = metarl.initial_state(c)["theta"]
    tried = {}

    def recorded(c, x, f=baselines.on_training_tasks):
        env.splits.clear()
        tried[c.alpha] = f(c, x)
        assert set(env.splits) == {"train"}
        return tried[c.alpha]

    monkeypatch.setattr(baselines, "on_training_tasks", recorded)
    monkeypatch.setattr(baselines, "FAR", 4)
    chosen = baselines.choose([(c, x)])
    for column, best in enumerate(chosen):
        assert tried[best.c.alpha][column] == max(means[column] for means in tried.values())
        np.testing.assert_array_equal(best.returns, metarl.meta_test(best.c, x)[1])


def test_a_return_that_is_not_finite_is_never_the_best():
    c = Setting(algo="reptile", **TINY)
    x = np.full_like(metarl.initial_state(c)["theta"], np.nan)
    assert (baselines.on_training_tasks(c, x) == -np.inf).all()


@pytest.mark.parametrize(("best", "marked"), [(0.1, True), (0.3, False), (1.0, True)])
def test_std_at_the_border_is_marked(best, marked, monkeypatch):
    def returns(c, x):
        return -np.ones(2) * abs(np.log(c.std / best)) - abs(np.log(c.alpha))

    tasks = np.zeros((2, 1))
    monkeypatch.setattr(baselines, "on_training_tasks", returns)
    monkeypatch.setattr(metarl, "meta_test", lambda c, x: (tasks, np.zeros((2, 4))))
    c = Setting(algo="joint", env="turned-pointmass", alpha=1.0)
    chosen = baselines.choose([(replace(c, std=std), None) for std in (0.1, 0.3, 1.0)])
    for each in chosen:
        assert each.c.std == best
        assert each.at_border == ({"std"} if marked else set())
    text = baselines.row("joint", chosen)
    assert text.count("*") == (2 if marked else 0)


def test_alpha_at_the_border_is_marked(monkeypatch):
    tasks = np.zeros((2, 1))
    monkeypatch.setattr(baselines, "on_training_tasks", lambda c, x: np.full(2, c.alpha))
    monkeypatch.setattr(metarl, "meta_test", lambda c, x: (tasks, np.zeros((2, 4))))
    [first, last] = baselines.choose([(Setting(algo="reptile", env="bandit", alpha=1.0), None)])
    assert first.at_border == last.at_border == {"value"}
    assert "32*" in baselines.row("reptile", [first, last])


# --- Equal steps ---
def test_training_ends_once_the_steps_are_taken():
    c = Setting(algo="joint", **TINY)
    of_an_iteration = TINY["tasks"] * TINY["episodes"] * 10  # pulls of an episode
    assert baselines.trained(c)["env_steps"] == 2 * of_an_iteration
    assert baselines.trained(c, 5 * of_an_iteration)["t"] == 5
    assert baselines.trained(c, 5 * of_an_iteration + 1)["t"] == 6


def test_joint_has_as_many_steps_as_the_first_algorithm(monkeypatch):
    runs = []
    train = baselines.trained

    def recorded(c, env_steps=None):
        state = train(c, env_steps)
        runs.append((c.algo, c.std, float(state["env_steps"])))
        return state

    monkeypatch.setattr(baselines, "trained", recorded)
    monkeypatch.setattr(baselines, "NEAR", 1)
    monkeypatch.setattr(baselines, "FAR", 1)
    options = TINY | dict(env=TurnedPointMass(horizon=2), policy="linear")
    settings = {algo: Setting(algo=algo, **options) for algo in ("maml", "reptile", "cma-es")}
    results, rivals = baselines.contest(settings)
    assert rivals == {
        "maml": ["joint", "untrained"],
        "reptile": ["joint", "untrained"],
        "cma-es": ["untrained, hc"],
    }
    assert results.keys() == {*settings, "joint", "untrained", "untrained, hc"}
    joint = [(std, steps) for algo, std, steps in runs if algo == "joint"]
    [(_, _, of_maml)] = [run for run in runs if run[0] == "maml"]
    assert joint == [(std, of_maml) for std in baselines.STDS_OF_JOINT]


# --- Differences ---
def test_differences_are_paired_by_task_and_of_the_right_column():
    """Of tasks that are drawn twice, each counts once: 1 and 3 leave one degree of freedom."""
    tasks = np.array([[0.0], [1.0], [1.0]])
    ours = np.zeros((3, 4))
    theirs = np.zeros((3, 4))
    ours[:, 1] = [101, 202, 204]
    theirs[:, 1] = [100, 200, 200]
    theirs[:, 3] = 5
    c = Setting(algo="reptile", env="bandit")

    def of(returns):
        return [baselines.Chosen(c, set(), tasks, returns)] * 2

    text = baselines.difference("a - b", of(ours), of(theirs))
    numbers = text.replace("a - b", "").replace("±", "").split()
    assert [float(x) for x in numbers] == [2, 12.71, -5, 0]  # 12.7062, Student's t for one degree


# --- Families ---
def test_smallest_gain_of_a_step():
    """Of two seeds with three tasks; the second loses 1 on average in its last step."""
    tasks = np.arange(3.0)[:, None]
    first = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4]], float)
    second = np.array([[0, 5, 4], [0, 5, 3], [0, 5, 5]], float)
    gain, half = families.smallest_gain([(tasks, first), (tasks, second)])
    assert gain == pytest.approx(-1)
    assert half == pytest.approx(4.302652729911275 / np.sqrt(3))
    row = families.line("maml", [(tasks, first), (tasks, second)])
    assert row.split() == ["maml", "0.00", "3.50", "3.50", "0.00", "-1.00", "±", "2.48"]
