"""benchmarks/bbob.py without the package of the functions."""

import numpy as np
import pytest

import es
from benchmarks import bbob


class Above:
    """|x - 1|^2 in two dimensions, 7 above which is 0, and never less than `floor` above that."""

    def __init__(self, floor):
        self.floor = floor
        self.points = []

    def best_value(self):
        return 7.0

    def __call__(self, x):
        self.points.append(x)
        return 7.0 + max(self.floor, ((x - 1) ** 2).sum())


def test_all_targets_are_reached_and_then_it_ends():
    problem = Above(0.0)
    assert bbob.share(bbob.ours, problem, 2, 10_000, np.random.default_rng(0)) == 1
    values = [problem(x) - 7 for x in problem.points[:]]
    assert min(values[:-6]) > 1e-8 >= min(values)


@pytest.mark.parametrize(("floor", "reached"), [(1.1e-3, 25), (0.9e-3, 26), (200.0, 0)])
def test_share_counts_the_targets_and_restarts_until_the_budget_is_spent(floor, reached):
    """10^2, 10^1.8, ..., 10^-3 are 26 of 51."""
    starts = []

    def make(x0, sigma0, rng):
        starts.append(x0)
        return es.CMAES(x0, sigma0, rng=rng)

    problem = Above(floor)
    assert bbob.share(make, problem, 2, 3000, np.random.default_rng(0)) == reached / 51
    assert 3000 <= len(problem.points) < 3006
    assert (starts[0] == 0).all() and len(starts) > 1
    assert np.abs(starts).max() <= 4 and len({tuple(start) for start in starts}) == len(starts)


def test_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(bbob, "installed", lambda package: False)
    monkeypatch.setattr("sys.argv", ["bbob"])
    assert bbob.main() == 2
    assert capsys.readouterr().out == (
        "benchmarks.bbob needs the BBOB functions: pip install coco-experiment\n"
    )
