"""The pictures of the README: statistics over seeds, and what is drawn from which numbers."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_figures import setting

import metarl
from benchmarks import figures as pictures
from harness import figures


@pytest.fixture
def figure():
    return pytest.importorskip("matplotlib.figure").Figure((8, 3), layout="constrained")


# --- Statistics over seeds ---


@pytest.mark.parametrize("n", range(1, 14))
def test_the_interquartile_mean_is_the_mean_of_the_middle_half(n):
    from scipy.stats import trim_mean

    values = np.random.default_rng(n).standard_normal((n, 3))
    slow = []
    for column in values.T:
        kept = sorted(column)
        for _ in range(int(n / 4)):
            kept.remove(max(kept))
            kept.remove(min(kept))
        slow.append(sum(kept) / len(kept))
    assert_allclose(pictures.interquartile_mean(values), slow, rtol=1e-13)
    assert_allclose(pictures.interquartile_mean(values), trim_mean(values, 0.25), rtol=1e-13)


def test_the_bootstrap_interval_is_that_of_seeds_drawn_again():
    """Beside a slow form with other noise, and the same each time."""
    noise = np.random.default_rng(0)
    values = noise.standard_normal((10, 2)) * [1, 10]
    means = []
    for _ in range(4000):
        seeds = [values[noise.integers(10)] for _ in range(10)]
        means.append(pictures.interquartile_mean(np.array(seeds)))
    ends = np.sort(means, axis=0)[[100, 3900]]
    found = pictures.bootstrap_interval(values)
    assert (np.abs(found - ends) < 0.05 * np.ptp(ends, axis=0)).all()
    assert_array_equal(pictures.bootstrap_interval(values), found)
    assert_allclose(pictures.bootstrap_interval(3 * values + 1), 3 * found + 1)
    assert_array_equal(pictures.bootstrap_interval(np.ones((10, 2))), np.ones((2, 2)))
    assert_allclose(pictures.bootstrap_interval(values[:1]), [values[0], values[0]])


def test_the_bootstrap_draws_a_seed_as_a_whole():
    """So what is the same in all seeds, here the difference of two columns, has no interval."""
    x = np.random.default_rng(1).standard_normal((10, 1))
    low, high = pictures.bootstrap_interval(np.hstack([x, x + 3]))
    assert_allclose([low[1] - low[0], high[1] - high[0]], 3)


def test_one_seed_gone_astray_does_not_move_the_interval():
    values = np.random.default_rng(3).standard_normal(20)
    values[5] = 1e6  # of twenty, five are left out at either end
    assert np.abs(pictures.bootstrap_interval(values)).max() < 3


def test_the_bootstrap_covers_the_truth():
    """In 95 of 100 samples if there were endless seeds; from ten, intervals are too short."""
    samples = np.random.default_rng(2).standard_normal((10, 400))
    low, high = pictures.bootstrap_interval(samples)
    assert 0.85 < ((low < 0) & (high > 0)).mean() < 0.98


# --- What is drawn ---
def test_learning_curves_are_interquartile_means_over_seeds_with_intervals(figure):
    log = np.stack([1e6 * np.arange(1, 101), np.arange(100.0)], 1)
    returns = [0, 1, 2, 3, 1000]  # the first and the last are left out
    runs = {}
    for i, shift in enumerate(returns):
        runs["maml", "pointmass", i] = (setting(seed=i), None, log + [0, shift])
    draw, curves, optimum = pictures.learning(runs, map)
    [(name, (look, steps, post, low, high))] = curves.items()
    assert name == "maml" and look == figures.look_of("maml")
    assert len(steps) <= pictures.POINTS and (np.diff(steps) > 0).all()
    assert steps[0] == 1 and steps[-1] < 100
    assert_allclose(post, steps - 1 + 2)  # the mean of 1, 2, 3
    expected = pictures.bootstrap_interval(np.array(returns, float))
    assert_allclose(low, steps - 1 + expected[0])
    assert_allclose(high, steps - 1 + expected[1])
    tasks = [metarl.meta_test(c, metarl.initial_state(c)["theta"])[0] for c, _, _ in runs.values()]
    assert_allclose(optimum, np.mean([setting().family.optimal_return(t) for t in tasks]))
    draw(figure, curves, optimum)
    assert [line.get_label() for line in figure.axes[0].lines] == ["maml", "optimum"]


def test_the_comparison_is_over_training_and_over_steps(figure, monkeypatch):
    noise = np.random.default_rng(0)
    asked = {}

    def compare(out, algos, **options):
        asked.update(options, out=out)
        rows = {}
        for name in algos:
            rows[name] = [
                {
                    "env_steps": [0, 1e6 + seed, 2e6],
                    "returns": -noise.exponential(size=(3, 5, 4)).cumsum(2),
                    "optimal": [-0.5, -0.25],
                }
                for seed in range(6)
            ]
        asked["rows"] = rows
        return rows

    monkeypatch.setattr(pictures.compare, "compare", compare)
    draw, over_training, over_k, optimum = pictures.comparison({}, map)
    assert asked["seeds"] == len(pictures.SEEDS) >= 10 and asked["out"] == pictures.KEPT
    assert list(over_training) == list(over_k) == list(pictures.COMPARED)
    assert optimum == -0.375
    seeds = asked["rows"]["maml"]
    assert_allclose(over_training["maml"].x, [0, 1 + 2.5e-6, 2])
    assert_array_equal(over_k["maml"].x, [0, 1, 2, 3])
    for k in range(4):
        at_the_end = sorted(run["returns"][-1][:, k].mean() for run in seeds)
        assert_allclose(over_k["maml"].y[k], np.mean(at_the_end[1:-1]))
    for point in range(3):
        at_last = sorted(run["returns"][point][:, -1].mean() for run in seeds)
        assert_allclose(over_training["maml"].y[point], np.mean(at_last[1:-1]))
    for curve in (over_training["reptile"], over_k["reptile"]):
        assert (curve.low < curve.y).all() and (curve.y < curve.high).all()
        assert curve.look == figures.look_of("reptile")
    draw(figure, over_training, over_k, optimum)
    left, right = figure.axes
    for axes in (left, right):
        labels = [line.get_label() for line in axes.lines]
        assert labels == [*pictures.COMPARED, "optimum"]
        assert len(axes.collections) == len(pictures.COMPARED)
        assert axes.get_yscale() == "symlog" and axes.get_ylim()[1] == 0
    assert_allclose(right.lines[1].get_ydata(), over_k["maml"].y)


def test_blocks_of_a_learning_curve_are_all_iterations():
    assert_array_equal(pictures.thinned(np.array([[5.0, 6.0]])), [[5, 6]])
    assert_allclose(pictures.thinned(np.arange(4.0)[:, None])[:, 0], [0, 1, 2, 3])
    log = np.random.default_rng(0).standard_normal((1000, 2))
    blocks = pictures.thinned(log)
    assert len(blocks) <= pictures.POINTS
    assert_array_equal(blocks[0], log[0])
    start = int(1001 ** (1 - 1 / pictures.POINTS))  # iteration, of the last block
    assert_allclose(blocks[-1], log[start - 1 :].mean(0))
    assert_allclose(pictures.thinned(np.ones((1000, 2))), 1)


def test_pictures_of_the_readme(tmp_path, monkeypatch, capsys, figure):
    @contextmanager
    def here(n):
        yield map

    def train(algo, env, seed):
        c = setting(algo=algo, seed=seed, env=env + ":horizon=3" if env == "pointmass" else env)
        state = metarl.initial_state(c)
        return c, state["theta"], np.array([(1e6, -3.0), (2e6, -2.0)])

    biases = []
    for problem in ("bandit", "tree"):
        biases += [(problem, name, 1.0, 1e-13, 80.0) for name in ("a", "b")]
    table = []
    for name in ("a", "b", "es"):
        table += [(name, base, {"deep tree": [0.1, 0.5, 1.0]}) for base in ("none", "time")]
    run = {
        "returns": -np.ones((3, 4, 4)).cumsum(2),
        "env_steps": [0, 1, 2],
        "seconds": [0, 1, 2],
        "optimal": [-0.5],
    }
    monkeypatch.setattr(pictures, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(pictures, "workers", here)
    monkeypatch.setattr(pictures, "train", train)
    monkeypatch.setattr(pictures.estimators, "bias_table", lambda n: biases)
    monkeypatch.setattr(pictures.estimators, "table", lambda n: table)
    rows = lambda *_, algos, **__: dict.fromkeys(algos, [run] * 3)
    monkeypatch.setattr(pictures.compare, "compare", rows)
    assert pictures.main([]) is None
    names = list(pictures.PICTURES)
    printed = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == [f"docs/{name}.svg" for name in names]
    first = {name: (tmp_path / "docs" / f"{name}.svg").read_bytes() for name in names}
    assert pictures.main(["--only", "arms", "estimators"]) is None
    assert first == {name: (tmp_path / "docs" / f"{name}.svg").read_bytes() for name in names}
    for word in (*pictures.COMPARED, "optimum"):
        assert f"<!-- {word} -->".encode() in first["compare"]
    for word in ("bandit", "tree", "es", "80 episodes"):
        assert f"<!-- {word} -->".encode() in first["estimators"]


def test_dots_are_biases_deviations_and_cosines(figure, monkeypatch):
    biases = [
        ("bandit", "b", 5.0, 1e-13, 80.0),
        ("tree", "a", 1.0, 2.0, 3.0),
        ("tree", "b", 4.0, 5.0, 6.0),
    ]
    table = []
    for name, base, x in [
        ("a", "none", 0.1),
        ("a", "time", 0.2),
        ("b", "none", 0.3),
        ("b", "time", 0.4),
        ("es", "time", 0.5),
    ]:
        table.append((name, base, {"deep tree": [x, x + 0.1, x + 0.2], "tree": [0, 0, 0]}))
    monkeypatch.setattr(pictures.estimators, "bias_table", lambda n: biases)
    monkeypatch.setattr(pictures.estimators, "table", lambda n: table)
    draw, *content = pictures.estimates({}, map)
    draw(figure, *content)
    bandit, tree, deep = figure.axes
    dots = [line.get_xydata().tolist() for line in bandit.lines]
    assert dots == [[[5, 1]], [[0.1, 1]], [[80, 1]]]
    assert [line.get_xdata().tolist() for line in tree.lines] == [[1, 4], [2, 5], [3, 6]]
    assert_allclose(
        [line.get_xdata() for line in deep.lines], np.add.outer([0, 0.1, 0.2], [0.2, 0.4, 0.5])
    )
    assert [label.get_text() for label in bandit.get_yticklabels()] == ["a", "b", "es"]


def test_pictures_of_the_readme_need_matplotlib(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as stop:
        pictures.main(["--only", "arms"])
    assert stop.value.code == 2 and "pip install matplotlib" in capsys.readouterr().err
