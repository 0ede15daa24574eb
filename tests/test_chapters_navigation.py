"""The chapter on navigation: whose goals are where, and what each row changes."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from chapters import navigation
from chapters.common import meta_train
from harness.settings import Setting
from metarl import noise_at

FULL = navigation.Options(full=True)


def test_published_goals_are_those_of_the_test_and_of_no_training():
    family = navigation.Navigation()
    assert_array_equal(family.sample_tasks(40, noise_at(0), "test"), navigation.GOALS)
    goals = family.sample_tasks(3000, noise_at(1), "train")
    assert goals.shape == (3000, 2)
    assert abs(goals).max() <= family.box
    away = np.linalg.norm(goals[:, None] - navigation.GOALS, axis=-1)
    assert 0.01 < away.min() < 0.02


@pytest.mark.parametrize("name", navigation.ROWS)
def test_a_row_differs_from_maml_in_what_it_says(name):
    maml = navigation.setting(FULL, "maml", 3)
    c = navigation.setting(FULL, name, 3)
    assert maml.algo == "maml" and c.seed == 3
    for option, value in navigation.ROWS[name].items():
        assert getattr(c, option) == value
    short = navigation.setting(navigation.Options(iterations=4), name, 0)
    assert short.iterations == 4


def test_training_goes_to_the_last_iteration():
    c = Setting(algo="reptile", env="bandit", iterations=3)
    assert meta_train(c)["t"] == 3
    state = meta_train(c)
    assert meta_train(c, state)["t"] == 6


def test_one_row_unless_all_are_asked_for(monkeypatch):
    def trained(c):
        return {"theta": c.algo, "env_steps": 5}

    def meta_test(c, theta):
        return navigation.GOALS, np.tile([1.0, 2, 3, 4], (40, 1))

    monkeypatch.setattr(navigation, "meta_train", trained)
    monkeypatch.setattr(navigation.metarl, "meta_test", meta_test)
    rows, (c, theta) = navigation.run(navigation.Options(), 0)
    assert rows == {"maml": {"k = 0": 1, "k = 1": 2, "k = 2": 3, "k = 3": 4, "env steps": 5}}
    assert c.algo == theta == "maml"
    rows, _ = navigation.run(FULL, 0)
    assert list(rows) == list(navigation.ROWS)
    assert rows["untrained"]["env steps"] == 0
    assert rows["trpo"]["env steps"] == 5
