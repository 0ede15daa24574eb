"""The chapters on diverse tasks and on overfitting: budgets, scores, and who is tested on what."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
import metarl
from chapters import diversity, overfitting
from harness.settings import Setting
from metarl import noise_at

GOALS = np.array([[0.3, 0.4], [-0.2, 0.1], [0.5, -0.4]])


# --- Diversity ---
D = diversity.Options()
O = overfitting.Options()


@pytest.mark.parametrize("box", D.boxes)
def test_scores_run_from_standing_still_to_the_optimum(box):
    family = diversity.setting(D, "maml", box, 0).family
    tasks = family.sample_tasks(30, noise_at(1))
    stand = np.zeros((30, 1, 2))
    still = sum(
        family.step(stand, np.zeros((30, 1, 2)), tasks[:, None], None)[1]
        for _ in range(family.horizon)
    )
    best = family.optimal_return(tasks)[:, None]
    s = diversity.scores(family, tasks, np.concatenate([still, (still + best) / 2, best], 1))
    assert_allclose(s.mean(0), [0, 50, 100], atol=1e-10)
    assert_allclose(s[:, 0], 0, atol=1e-10)


@pytest.mark.parametrize("algo", diversity.NAMES)
def test_all_train_on_the_same_budget(algo):
    c = diversity.setting(D, algo, 0.5, 0)
    states = metarl.train(c, metarl.initial_state(c))
    steps = next(states)["env_steps"] * c.iterations
    most = D.budget * c.tasks * c.episodes * c.family.horizon
    assert 0.98 * most < steps <= most  # episodes may end at the goal


def test_each_agent_has_the_step_size_that_suits_it(monkeypatch):
    def adapted(c, theta, tasks, *address):
        return np.tile([0, 0, 0, -abs(c.alpha - 0.25)], (len(tasks), 1))

    def meta_test(c, theta):
        seen.append(c.alpha)
        return GOALS, np.zeros((3, 4))

    seen = []
    monkeypatch.setattr(diversity, "meta_train", metarl.initial_state)
    monkeypatch.setattr(diversity, "adapted", adapted)
    monkeypatch.setattr(metarl, "meta_test", meta_test)
    _, alpha = diversity.trained(D, "joint", 0.5, 0)
    assert alpha == 0.25
    assert seen == [0.25]


def test_adapted_is_what_the_meta_test_measures():
    c = diversity.setting(D, "joint", 0.5, 0)
    theta = metarl.initial_state(c)["theta"]
    tasks, returns = metarl.meta_test(c, theta)
    assert_array_equal(
        diversity.adapted(c, theta, tasks, c.seed, metarl.TEST, metarl.INNER), returns
    )


def test_who_is_said_to_be_ahead():
    level = {
        ("maml", 1): 50,
        ("maml", 2): 40,
        ("reptile", 1): 60,
        ("reptile", 2): 10,
        ("joint", 1): 70,
        ("joint", 2): 45,
    }
    rows = {
        diversity.row(algo, box): {"k = 3": np.array([x - 1.0, x + 1])}
        for (algo, box), x in level.items()
    }
    assert diversity.boxes_of(rows) == [1, 2]
    measured = [c.measured for c in diversity.claims(rows)]
    assert measured == [-20, -5, 30, 9]


def test_rows_of_a_run(monkeypatch):
    def trained(o, algo, box, seed):
        s = np.tile([0.0, 10, 20, 30], (4, 1))
        s[0, -1] = -2
        return s, box

    monkeypatch.setattr(diversity, "trained", trained)
    rows, _ = diversity.run(diversity.Options(boxes=(0.5, 2.0)), 0)
    assert len(rows) == 6
    expected = {"k = 0": 0, "k = 1": 10, "k = 2": 20, "k = 3": 22, "lost": 25, "alpha": 2}
    assert rows["box 2, Reptile"] == expected


# --- Overfitting ---
def test_pools_are_nested_and_apart_from_held_out_goals():
    families = [overfitting.FewGoals(pool=pool, draw=3) for pool in O.pools if pool]
    pools = [family.goals_for_training() for family in families]
    for small, large in itertools.pairwise(pools):
        assert_array_equal(small, large[: len(small)])
    for family, pool in zip(families, pools, strict=True):
        drawn = {tuple(goal) for goal in family.sample_tasks(2000, noise_at(1))}
        assert drawn == {tuple(goal) for goal in pool}
        assert_array_equal(
            family.sample_tasks(9, noise_at(2), "test"),
            envs.PointMass().sample_tasks(9, noise_at(2), "test"),
        )
    unlimited, all_goals = overfitting.FewGoals(pool=0, draw=3), envs.PointMass()
    assert_array_equal(
        unlimited.sample_tasks(9, noise_at(2)), all_goals.sample_tasks(9, noise_at(2))
    )
    black = envs.PointMass().sample_tasks(64, np.random.default_rng(3), "train")
    assert_array_equal(pools[-1], black)


def test_moved_goals():
    assert_array_equal(overfitting.moved(GOALS, 0.0, 1), GOALS)
    by = overfitting.moved(GOALS, 0.5, 1) - GOALS
    assert_allclose(np.linalg.norm(by, axis=1), 0.5, rtol=1e-14)
    assert_allclose(by, np.tile(by[0], (3, 1)), rtol=1e-14)
    assert abs(overfitting.moved(GOALS, 0.5, 2) - GOALS - by).max() > 0.01


def test_regret_is_the_optimum_less_the_return(monkeypatch):
    c = Setting(env=overfitting.FewGoals(), **overfitting.SMALL)
    best = c.family.optimal_return(GOALS)[:, None]
    monkeypatch.setattr(overfitting, "adapted", lambda *_: best - np.array([7.0, 5, 4, 2]))
    assert_allclose(overfitting.regrets(c, None, GOALS, (0,)), [7, 2], rtol=1e-12)


def test_an_agent_is_tested_on_the_goals_it_was_trained_on():
    c = Setting(env=overfitting.FewGoals(pool=4, draw=2), seed=2, **overfitting.SMALL)
    training = c.family.goals_for_training()
    seen = overfitting.seen_goals(O, c)
    held_out = overfitting.held_out_goals(O, c)
    assert_array_equal(seen, np.tile(training, (10, 1)))
    assert len(held_out) == 40
    assert not {tuple(goal) for goal in held_out} & {tuple(goal) for goal in training}
    large = Setting(env=overfitting.FewGoals(pool=64, draw=2), seed=2, **overfitting.SMALL)
    some = {tuple(goal) for goal in overfitting.seen_goals(O, large)}
    assert some <= {tuple(goal) for goal in large.family.goals_for_training()}


def test_the_gap_is_held_out_less_training(monkeypatch):
    """Regrets 9 and 2 on goals of training, 19 and 7 on held-out ones."""

    def regrets(c, theta, tasks, address):
        if np.array_equal(tasks, overfitting.held_out_goals(O, c)):
            return np.array([19.0, 7.0])
        return np.array([9.0, 2.0])

    monkeypatch.setattr(overfitting, "meta_train", metarl.initial_state)
    monkeypatch.setattr(overfitting, "regrets", regrets)
    rows, _ = overfitting.run(overfitting.Options(pools=(1, 64)), 0)
    assert list(rows) == ["1 goals", "64 goals"]
    assert list(rows["1 goals"].values()) == [9, 2, 19, 7, 5]


def test_trained_and_untrained_agents_on_shifted_goals(monkeypatch):
    """An agent is worth its first parameter here, and 100 for each unit that goals have moved."""

    def adapted(c, theta, tasks, *address):
        return np.full((40, 4), theta[0])

    def scores(family, tasks, returns):
        return returns + 100 * np.linalg.norm(tasks.mean(0))

    c = Setting(env=overfitting.FewGoals(), seed=1, **overfitting.SMALL)
    monkeypatch.setattr(overfitting, "adapted", adapted)
    monkeypatch.setattr(overfitting, "scores", scores)
    seven = overfitting.far_scores(O, c, np.full(3, 7.0))
    zero = overfitting.far_scores(O, c, np.zeros(3))
    assert list(seven) == ["0", "0.25", "0.5", "1", "2"]
    assert_allclose(seven["1"] - zero["1"], 7)
    assert_allclose(seven["2"] - seven["0"], 200, rtol=0.1)


def test_what_is_said_of_overfitting():
    gap = {"1 goals": [1.0, 5.0], "64 goals": [0.1, -0.6]}
    rows = {name: {"gap, k = 3": np.array(numbers)} for name, numbers in gap.items()}
    rows["trained"] = {"0": np.array([90.0, 80]), "2": np.array([30.0, 40])}
    rows["untrained"] = {"0": np.array([10.0, 0]), "2": np.array([10.0, 20])}
    measured = [c.measured for c in overfitting.claims(rows)]
    assert measured == [3, 1, 0.6, 80, 0.25]
