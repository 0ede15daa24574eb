"""What is said of a run: intervals over tasks, scores, the table."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
import metarl
from harness import results
from harness.checkpoints import Stop
from harness.results import adaptation, by_task, evaluate, interval, optimum, scores, table
from harness.settings import Setting
from test_metarl import SMALL


# --- Statistics ---
def test_tests_of_the_same_task_are_averaged():
    tasks = np.array([[1.0, 2.0], [0.0, 5.0], [1.0, 2.0], [1.0, 3.0]])
    returns = np.array([[1.0, 10.0], [2.0, 20.0], [5.0, 50.0], [3.0, 30.0]])
    averaged = by_task(tasks, returns)
    assert_array_equal(averaged[np.argsort(averaged[:, 0])], [[2, 20], [3, 30], [3, 30]])
    assert_array_equal(by_task(tasks[1:], returns[1:]), returns[1:])  # in their own order
    assert_array_equal(by_task(tasks[:1], returns[:1]), returns[:1])


def test_an_interval_is_student_s():
    returns = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [6.0, 0.0]])
    row = interval(returns)
    assert_allclose(row["mean"], [3, 0])
    half = 3.182446305284263 * np.sqrt(14 / 3) / 2  # t with 3 degrees of freedom
    assert_allclose(row["ci95"], [half, 0])
    assert np.isnan(interval(returns[:1])["ci95"]).all()


def test_a_score_is_the_part_of_the_way():
    assert scores([-8.0, -5.0, -2.0, -9.5], -8.0, -2.0) == [0, 50, 100, -25]


# --- result.json ---
def result_of(c):
    state = metarl.initial_state(c)
    return evaluate(c, state, 1.0, metarl.in_chunks, None)


def test_four_corners_are_four_tasks_however_often_they_are_tested():
    c = Setting(**SMALL | dict(env="fourcorners:horizon=3", test_tasks=10))
    test = result_of(c)["held_out"]
    assert (test["tasks"], test["distinct_tasks"], test["splits_coincide"]) == (10, 4, True)
    assert np.shape(test["returns"]) == (10, 3)
    tasks, returns = metarl.meta_test(c, metarl.initial_state(c)["theta"])
    corners = np.array(
        [returns[(tasks == task).all(1)].mean(0) for task in np.unique(tasks, axis=0)]
    )
    assert_allclose(test["mean"], corners.mean(0))
    assert_allclose(test["ci95"], 3.182446305284263 * corners.std(0, ddof=1) / 2)


def test_different_tasks_are_each_a_row():
    c = Setting(**SMALL)
    test = result_of(c)["held_out"]
    assert test["distinct_tasks"] == 3
    assert_allclose(test["mean"], np.mean(test["returns"], 0), rtol=1e-15)


@dataclass(frozen=True)
class OneGoal(envs.PointMass):
    """A family of one task, of which the best return is not known."""

    optimal_return = property()  # reading it raises AttributeError

    def sample_tasks(self, n, rng, split="train"):
        return np.full((n, 2), 0.3)


def test_one_task_has_a_mean_and_no_interval():
    result = result_of(Setting(**SMALL | dict(env=OneGoal(horizon=3))))
    assert result["held_out"]["distinct_tasks"] == 1
    assert result["held_out"]["ci95"] == [None] * 3 and result["optimal"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    text = table(result)
    assert "OneGoal: mean return on 1 held-out task, tested 3 times in all," in text
    assert "±" not in text and "nan" not in text and "None" not in text


@pytest.mark.parametrize(
    "size, what",
    [(2e306, "deviation"), (1e200, "deviation"), (1e308, "mean")],
    ids=["near the largest", "square", "sum"],
)
def test_finite_returns_whose_interval_is_not_stop_the_run(size, what, monkeypatch):
    c = Setting(**SMALL)

    def huge(c, theta, in_chunks):
        signs = 1.0 if what == "mean" else np.array([[1.0], [-1.0], [1.0]])
        return np.arange(3.0)[:, None], np.full((3, 3), size) * signs

    monkeypatch.setattr(metarl, "meta_test", huge)
    with np.errstate(all="ignore"), pytest.raises(Stop, match="the meta-test: returns, or") as stop:
        result_of(c)
    assert stop.value.status == 3 and "not finite" in str(stop.value)


def test_a_mean_of_one_task_that_is_not_finite_stops_the_run(monkeypatch):
    """Where there is no interval that could tell."""
    same = np.zeros((3, 1)), np.full((3, 3), 1e308)
    monkeypatch.setattr(metarl, "meta_test", lambda c, theta, in_chunks: same)
    with np.errstate(all="ignore"), pytest.raises(Stop, match="not finite"):
        result_of(Setting(**SMALL))


@pytest.mark.parametrize("which", ["the test of the untrained parameters", "the test of joint"])
def test_a_baseline_whose_interval_is_not_finite_stops_the_run(which, monkeypatch):
    c = Setting(**SMALL | {"compare": "joint"})
    tests = []

    def tested(c, theta, in_chunks):
        tests.append(c)
        last = len(tests) == (2 if "untrained" in which else 3)
        return np.arange(3.0)[:, None], np.array([[1.0], [-1.0], [1.0]]) * (1e300 if last else 1)

    monkeypatch.setattr(metarl, "meta_test", tested)
    with np.errstate(all="ignore"), pytest.raises(Stop, match=which):
        evaluate(c, metarl.initial_state(c), 1.0, None, lambda joint: None)


def test_an_optimum_that_is_not_a_number_is_null():
    tasks = np.full((3, 2), 0.3)

    class Unknown:
        def optimal_return(self, tasks):
            return np.full(len(tasks), np.nan)

    assert optimum(Unknown(), tasks) is None and optimum(object(), tasks) is None
    assert_allclose(optimum(envs.PointMass(), tasks), envs.PointMass().optimal_return(tasks)[0])


def test_names_stand_for_objects():
    c = Setting(**SMALL | dict(env=envs.PointMass(horizon=3), policy=Setting().pi))
    result = result_of(c)
    assert (result["env"], result["policy"]) == ("PointMass", "Policy")
    assert (result["config"]["env"], result["config"]["policy"]) == ("PointMass", "Policy")


# --- The table ---
def row(x):
    return {"mean": [x, x + 0.5], "ci95": [0.25, 0.125]}


def result(**changes):
    held_out = {
        "tasks": 3,
        "distinct_tasks": 3,
        "splits_coincide": False,
        "adapt_episodes": 20,
        "episodes": 1,
        **row(-3.0),
    }
    whole = {
        "env": "pointmass",
        "algo": "maml",
        "held_out": held_out | changes.pop("held_out", {}),
        "optimal": -1.0,
        "env_steps": 12345.0,
        "baselines": {"random": row(-9.0), "joint": row(-6.0)},
        "config": {"iterations": 7, "inner": changes.pop("inner", "pg")},
        "seconds": 1.25,
    }
    return whole | changes


def lines(**changes):
    return [" ".join(line.split()) for line in table(result(**changes)).splitlines()]


def test_each_row_of_the_table_has_its_own_numbers():
    adapted = "after k steps of policy gradient on 20 episodes each,"
    assert lines() == [
        "pointmass: mean return on 3 held-out tasks,",
        f"with 95 % interval over the 3 tasks, {adapted}",
        "measured on 1 fresh episode",
        "k 0 1",
        "maml -3.00 ± 0.25 -2.50 ± 0.12",
        "score 75 % 81 %",
        "untrained -9.00 ± 0.25 -8.50 ± 0.12",
        "score 0 % 6 %",
        "joint -6.00 ± 0.25 -5.50 ± 0.12",
        "score 38 % 44 %",
        "optimum: -1.00, by policies that know the task",
        "score: from 0 %, untrained and not adapted, to 100 %, the optimum",
        "7 iterations, 12,345 environment steps, 1.2 s of training",
    ]


def test_columns_stand_under_each_other():
    wide = row(-123456.0)
    for text in (table(result()), table(result(baselines={"random": wide}, algo="a-long-name"))):
        table_lines = [
            line for line in text.splitlines()[3:] if ":" not in line and "," not in line
        ]
        assert len({len(line) for line in table_lines}) == 1


def test_without_an_optimum_there_is_no_score():
    text = " ".join(lines(optimal=None))
    assert "optimum" not in text and "score" not in text and "-8.50 ± 0.12" in text
    for optimal in (-9.0, -9.5):  # the untrained policy is as good, by chance better
        text = " ".join(lines(optimal=optimal))
        assert f"optimum: {optimal:.2f}" in text and "score" not in text


def test_a_way_too_long_for_a_number_has_no_score():
    text = " ".join(lines(optimal=1e308, baselines={"random": row(-1e308)}))
    assert "score" not in text and "optimum: 1" in text
    far = {"mean": [-1e308, -1.0], "ci95": [0.25, 0.125]}
    assert "score 100 %" in lines(held_out=far)


def test_tasks_that_are_tested_again_are_said_to_be():
    few = {"tasks": 80, "distinct_tasks": 4, "splits_coincide": True}
    first, second, *_ = lines(held_out=few)
    assert first.endswith("on 4 tasks (the training tasks themselves), tested 80 times in all,")
    assert second.startswith("with 95 % interval over the 4 tasks,")


@pytest.mark.parametrize(
    "inner, episodes, words",
    [
        ("pg", 40, "policy gradient on 40 episodes each"),
        ("pg", 1, "policy gradient on 1 episode each"),
        ("hc", 20, "hill climbing by 20 queries each"),
        ("es", 2, "an ES gradient from 2 queries each"),
        ("mine", 2, "mine on 2 queries each"),
    ],
)
def test_the_adaptation_in_words(inner, episodes, words):
    assert adaptation(inner, episodes) == words
    assert (
        f"after k steps of {words}," in lines(inner=inner, held_out={"adapt_episodes": episodes})[1]
    )


def test_numbers_reach_the_table_as_they_are():
    c = Setting(**SMALL)
    whole = result_of(c)
    text = table(whole)
    for name in ("held_out", "baselines"):
        means = whole[name]["mean"] if name == "held_out" else whole[name]["random"]["mean"]
        assert all(f"{mean:.2f} ± " in text for mean in means)
    start = whole["baselines"]["random"]["mean"][0]
    part = 100 * (whole["held_out"]["mean"][2] - start) / (whole["optimal"] - start)
    assert f"{round(part)} %" in text
    assert results.scores([whole["optimal"]], start, whole["optimal"]) == [100]
