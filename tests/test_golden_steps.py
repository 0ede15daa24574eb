"""golden/: the cases of stages 4 and 6 tell options apart, and rounding moves no field too far."""

import itertools
import json

import numpy as np
import pytest

from golden import cases_runs, cases_steps, jitter, kit, vectors
from harness.settings import IGNORED

STAGES = (cases_steps, cases_runs)
CASES = [
    case
    for stage in STAGES
    for case in json.loads(kit.path(stage).read_text(encoding="utf-8"))["cases"]
]


# --- Options ---
def numbers_of(c):
    """{option: number} of a case, those of its family among them; of widths and priors none."""
    options = {**c, **c["options"]}
    if "population" in options and c["algo"] == "es-maml":
        options["pairs"] = options["population"] // 2
    return {k: v for k, v in options.items() if type(v) in (int, float)}


ALONE = {"arms", "pairs"}  # are in no product


def coincidences(numbers):
    """Pairs that are equal or one the double of the other, products of two that are a third.
    1 may be there twice, and is no factor.
    """
    numbers = {k: v for k, v in numbers.items() if v not in (0, 1)}
    for (i, a), (j, b) in itertools.combinations_with_replacement(numbers.items(), 2):
        doubles = isinstance(a, float) and (same(a, 2 * b) or same(b, 2 * a))
        if i != j and (same(a, b) or doubles):
            yield f"{i} and {j}"
        if not {i, j} & ALONE:
            third = numbers.keys() - {i, j} - ALONE
            yield from (f"{i} {j} = {k}" for k in third if same(a * b, numbers[k]))


def same(a, b):
    return abs(a - b) < 0.01 * abs(b)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_option_has_a_number_of_its_own(case):
    assert [*coincidences(numbers_of(case["inputs"]["c"]))] == []


def test_coincidences_are_found():
    assert {*coincidences({"a": 0.5, "b": 0.25})} == {"a and b", "a a = b"}
    assert {*coincidences({"a": 0.7, "b": 0.5, "c": 0.35})} == {"a and c", "a b = c"}
    assert [*coincidences({"a": 2, "b": 3, "c": 6})] == ["a b = c"]
    assert not [*coincidences({"a": 1, "b": 3, "c": 5, "d": 0.3})]


def test_options_are_those_that_play_a_part():
    """What the settings of the program call ignored is left out, but for two: reptile names an
    estimator, and the deviation of a policy that does not draw is part of the first theta.
    """
    for case in CASES:
        c = case["inputs"]["c"]
        ignored = [names for (name, value), names in IGNORED.items() if c.get(name) == value]
        assert not c.keys() & {*sum(ignored, ())} - {"estimator", "std"}, case["name"]


def test_draws_of_tasks_are_raw():
    """Some cells have the colour of the other split: the step that changes it is not taken yet."""
    sums = []
    for case in CASES:
        for name, draws in vectors.decode(case["inputs"]["noise"]).items():
            if name.endswith("/tasks") and draws[0]["kind"] == "integers":
                sums += [*draws[0]["values"].sum(1)]
    assert 0.3 < np.mean(np.array(sums) % 2) < 0.7


# --- Rounding ---
def test_what_rounding_moves_too_far_is_named(monkeypatch):
    stage = cases_steps
    case = next(c for c in stage.iterations() if c.name == "iteration: joint")
    (entry,) = [entry for entry in CASES if entry["name"] == case.name]
    inputs = vectors.decode(entry["inputs"])
    got = kit.computed(stage, case, inputs)
    assert kit.ill_conditioned(stage, case, inputs, got) == []
    monkeypatch.setattr(kit, "ALLOWED", 1e-9)
    lines = kit.ill_conditioned(stage, case, inputs, got)
    assert {line.partition(":")[0] for line in lines} >= {"theta", "m", "v"}
    assert all(line.endswith("(rounded otherwise)") for line in lines)


def test_jitter_is_small_and_keeps_what_is_equal_opposite_or_short():
    x = np.random.default_rng(0).standard_normal(1000)
    for seed in jitter.SEEDS:
        y = jitter.jittered(x, seed)
        ulps = (y - x) / np.spacing(np.abs(x))
        assert 0.5 < np.abs(ulps).mean() < 2 and np.abs(ulps).max() <= 4
        assert np.array_equal(jitter.jittered(-x, seed), -y)
        assert np.array_equal(jitter.jittered(np.tile(x, 2), seed), np.tile(y, 2))
        short = np.array([0.0, 0.5, -0.375, 9999.0, 1e4, np.inf, -np.inf])
        assert np.array_equal(jitter.jittered(short, seed), short)
    whole = np.arange(3)
    assert jitter.off({"c": x, "n": [whole]}, 0) == {"c": x, "n": [whole]}
    moved = jitter.off({"noise": {"0/tasks": [{"values": x}]}}, 0)["noise"]["0/tasks"][0]["values"]
    assert np.array_equal(moved, jitter.jittered(x, 0))
