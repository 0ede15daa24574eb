"""golden/: the vectors agree with the code and with what checks them,
and whatever is wrong with them is named.
"""

import ast
import itertools
import json
import math
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import betainc

from golden import (
    cases_autodiff,
    exact,
    jitter,
    kit,
    loops_envs,
    loops_es,
    loops_policies,
    loops_steps,
    vectors,
)
from golden.__main__ import main

GOLDEN = kit.FOLDER
FILES = {
    stage.STAGE: json.loads(kit.path(stage).read_text(encoding="utf-8")) for stage in kit.STAGES
}
ENTRIES = {(stage, case["name"]): case for stage, text in FILES.items() for case in text["cases"]}
FIELDS = ("intermediate", "outputs")
stages = pytest.mark.parametrize("stage", kit.STAGES, ids=lambda stage: stage.STAGE)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """What is rounded otherwise is left to `python -m golden --check` and test_golden_steps.py."""
    monkeypatch.setattr(jitter, "SEEDS", ())


# --- The files ---
@stages
def test_vectors_agree_with_the_code_and_with_what_checks_them(stage):
    assert kit.check_stage(stage) == []


@stages
def test_files_are_what_would_be_written(stage):
    """Also inputs, faults and tolerances: a case that was changed has to be written anew."""
    for case in stage.cases():
        old, new = ENTRIES[stage.STAGE, case.name], json.loads(vectors.dump(kit.entry(stage, case)))
        numbers = (*FIELDS, "faults")
        assert [old[k] for k in old if k not in numbers] == [
            new[k] for k in new if k not in numbers
        ], case.name
        want, got = (
            {**vectors.decode(e.get("outputs", {})), **vectors.decode(e.get("intermediate", {}))}
            for e in (old, new)
        )
        assert [*kit.disagreements(case, got, want)] == [] or case.rejects
        assert [fault["fault"] for fault in old.get("faults", ())] == [
            fault["fault"] for fault in new.get("faults", ())
        ]


def test_they_are_small_and_many():
    cases, fields, size = kit.census()
    assert cases > 150 and fields > 900 and size < 2e6


def test_names_are_unique_and_every_case_says_why_and_by_what_it_is_checked():
    assert len(ENTRIES) == sum(len(text["cases"]) for text in FILES.values())
    for (_, name), case in ENTRIES.items():
        assert case["why"] and case["checked_by"], name
        fields = [field for part in FIELDS for field in case.get(part, ())]
        assert sorted(fields) == sorted(case.get("tolerance", ())) and (
            fields or case["rejects"]
        ), name


def test_faults_are_far_from_what_is_right():
    faults = [(case, fault) for case in ENTRIES.values() for fault in case.get("faults", ())]
    assert len(faults) > 60
    for case, fault in faults:
        for name, wrong in vectors.decode(fault["outputs"]).items():
            right = vectors.decode({**case["intermediate"], **case["outputs"]}[name])
            assert vectors.difference(wrong, right, 100 * case["tolerance"][name]), fault["fault"]


def test_no_fault_is_taken_for_another():
    """A port that has one agrees with the fields of this one alone."""
    for case in ENTRIES.values():
        faults = [vectors.decode(fault["outputs"]) for fault in case.get("faults", ())]
        for one, other in itertools.combinations(faults, 2):
            for name in one.keys() & other.keys():
                far = 100 * case["tolerance"][name]
                assert vectors.difference(one[name], other[name], far), case["name"]


def test_no_seed_among_the_inputs():
    """All noise is there.

    (The features of a linear bandit are an input, beside the seed that the program names.)
    """
    for case in ENTRIES.values():
        assert not re.search(r'"(seed|rng)"', json.dumps(case["inputs"]))


STANDARD = {"collections", "decimal", "functools", "itertools", "operator", "numpy"}


def test_what_checks_them_knows_nothing_of_the_project():
    for path in GOLDEN.glob("*.py"):
        if path.name == "exact.py" or path.name.startswith("loops_"):
            nodes = [
                n
                for n in ast.walk(ast.parse(path.read_text()))
                if isinstance(n, (ast.Import, ast.ImportFrom))
            ]
            absolute = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
            absolute += [n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.level == 0]
            assert set(absolute) <= STANDARD, path.name
            relative = [
                a.name for n in nodes if isinstance(n, ast.ImportFrom) and n.level for a in n.names
            ]
            assert not [
                name for name in relative if name.startswith("cases") or name in ("kit", "vectors")
            ]


def test_the_readme_describes_every_function_and_field():
    text = (GOLDEN / "README.md").read_text(encoding="utf-8")
    words = set(re.findall(r"`([^`]+)`", text))
    words |= {part for word in words for part in re.split(r"[,\s=:()\[\]{}]+", word)}
    missing = set()
    for case in ENTRIES.values():
        names = [
            case["function"],
            *case["inputs"],
            *(f for part in FIELDS for f in case.get(part, ())),
        ]
        missing |= {
            name for name in names if name not in words and re.sub(r"\d+$", "", name) not in words
        }
        missing |= {name for name in case["inputs"].get("c", ()) if name not in words}
    assert not missing


# --- What is wrong is named ---
@pytest.fixture
def copies(tmp_path):
    """The files, to be spoilt: a function that changes the text of a stage by `edit`,
    and checks it.
    """

    def spoil(stage, edit):
        text = json.loads(json.dumps(FILES[stage.STAGE]))
        edit(text)
        kit.path(stage, tmp_path).write_text(json.dumps(text))
        return kit.check_stage(stage, tmp_path)

    return spoil


def test_a_changed_number_is_named_with_its_field(copies):
    def edit(text):
        case = next(c for c in text["cases"] if c["name"] == "tanh")
        case["outputs"]["vjp0"]["data"][4] += 1e-7

    ours, peers = copies(kit.STAGES[0], edit)
    assert (
        ours.startswith("1-autodiff: tanh: vjp0: [1, 1] ")
        and "1 of 6 off by more than 1e-10 of the largest" in ours
    )
    assert peers.startswith("1-autodiff: tanh: vjp0: [1, 1] ") and "differences" in peers


def test_a_change_within_the_tolerance_is_none(copies):
    def edit(text):
        for case in text["cases"]:
            for name, value in case.get("outputs", {}).items():
                if isinstance(value, dict) and all(isinstance(x, float) for x in value["data"]):
                    scale = max(map(abs, value["data"]), default=0)
                    value["data"] = [
                        x + 0.05 * scale * case["tolerance"][name] for x in value["data"]
                    ]

    assert copies(kit.STAGES[0], edit) == []


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda text: text.update(version=2), "not in the format"),
        (lambda text: text["cases"].pop(3), "is not in the file"),
        (lambda text: text["cases"].append({**text["cases"][0], "name": "new"}),
         "new: is in the file alone"),
        (lambda text: text["cases"][0].update(why="?"), "its words are not those of the file"),
        (lambda text: text["cases"][0]["outputs"].pop("vjp0"), "vjp0: only one of them has it"),
        (lambda text: text["cases"][0]["outputs"]["value"].update(shape=[3, 2]),
         "shape (2, 3) instead of (3, 2)"),
        (lambda text: text["cases"][-1]["inputs"].update(w={"shape": [1, 1], "data": [1.0]}),
         "are not refused"),
    ],
)  # fmt: skip
def test_other_damage_is_named(copies, edit, words):
    lines = copies(kit.STAGES[0], edit)
    assert lines and any(words in line for line in lines)


def test_missing_and_foreign_files(tmp_path):
    stage = kit.STAGES[0]
    assert "No such file" in kit.check_stage(stage, tmp_path)[0]
    kit.path(stage, tmp_path).write_text("{")
    assert len(kit.check_stage(stage, tmp_path)) == 1


def test_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr(kit, "STAGES", kit.STAGES[:1])
    assert main(["--check"]) == 0 and capsys.readouterr().out == ""
    monkeypatch.setattr(kit, "check", lambda: ["one", "two"])
    assert main(["--check"]) == 1 and capsys.readouterr().out == "one\ntwo\n"
    with pytest.raises(SystemExit):
        main([])


UNDER_O = """
from decimal import Decimal
from pathlib import Path
import numpy as np
from golden import exact, kit, loops_es, vectors
from golden.__main__ import main
from golden.vectors import Case

def refuses(what, f, *inputs):
    try:
        f(*inputs)
    except AssertionError:
        return
    print("not refused:", what)

assert False, "which tells that this is not python -O"
stage = kit.STAGES[1]
kit.check = lambda: kit.check_stage(stage, Path({folder!r}))
if main(["--check"]) != 1:
    print("not refused: a changed number")
half = Decimal("0.5")
refuses("a close decision", exact.below, half, half)
refuses("a close sign", loops_es.signed, np.array([[half], [half]]))
refuses("two chunks", vectors.Streams(), 0, 1, 0, 1, 5, 0)
refuses("a fault without a place", vectors.slip, loops_es.signed, ("nothing like it", ""))
case = Case("name", "step", "", "", {{}})
refuses("a fault that changes nothing", kit.faulty, case, "", {{}}, {{}})
wrong = {{"a": 0.5}}
refuses("a fault like another", kit.faulty, case, "", wrong, {{"a": 0.0}}, [wrong])
stage.FUNCTIONS["accepts"] = (dict, None)
refuses("no refusal", kit.entry, stage, Case("name", "accepts", "", "", {{}}, rejects=True))
"""


def test_what_is_wrong_is_found_under_python_O_too(tmp_path):
    stage = kit.STAGES[1]
    text = json.loads(json.dumps(FILES[stage.STAGE]))
    text["cases"][0]["outputs"]["rewards"]["data"][0] += 1e-7
    kit.path(stage, tmp_path).write_text(json.dumps(text))
    command = [sys.executable, "-O", "-c", UNDER_O.format(folder=str(tmp_path))]
    done = subprocess.run(
        command, cwd=GOLDEN.parent, capture_output=True, text=True, timeout=120, check=False
    )
    assert "off by more than" in done.stdout and "not refused" not in done.stdout, done.stdout
    assert done.returncode == 0, done.stderr


def test_what_is_written_can_be_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "STAGES", kit.STAGES[:1])
    assert kit.write(tmp_path) == [] and kit.check(tmp_path) == []


def test_nothing_is_written_that_its_check_denies(tmp_path, monkeypatch):
    monkeypatch.setattr(kit, "STAGES", kit.STAGES[:1])
    monkeypatch.setitem(kit.STAGES[0].FUNCTIONS, "unused", (cases_autodiff.unused, lambda x, y: {}))
    assert len(kit.write(tmp_path)) == 3 and not [*tmp_path.iterdir()]


# --- The format ---
@pytest.mark.parametrize(
    "x", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, math.inf, -math.inf, math.nan]
)
def test_numbers_read_back_exactly(x):
    back = vectors.decode(json.loads(vectors.dump(vectors.encode({"a": np.array([x]), "b": x}))))
    for value in (back["a"][0], back["b"]):
        assert np.float64(value).tobytes() == np.float64(x).tobytes()


@pytest.mark.parametrize(
    "x", [np.zeros((0, 2)), np.arange(6).reshape(2, 3), np.array([True, False]), np.eye(2) / 3]
)
def test_arrays_keep_shape_and_kind(x):
    back = vectors.decode(json.loads(vectors.dump(vectors.encode(x))))
    assert back.shape == x.shape and back.dtype == x.dtype and np.array_equal(back, x)


@pytest.mark.parametrize(
    "got, want, differs",
    [
        # The tolerance is a share of the largest element
        ([1.0, 100.0], [1.0 + 9e-5, 100.0], False),
        ([1.0, 100.0], [1.0 + 2e-4, 100.0], True),
        ([0.0], [5e-7], True),
        ([9e-7], [0.0], False),  # of 1 where all are 0
        ([math.inf], [math.inf], False),
        ([-math.inf], [math.inf], True),
        ([1.0], [math.nan], True),
        ([math.nan], [1.0], True),
        ([math.nan], [math.nan], False),
        ([1, 2], [1, 3], True),
        ([True], [False], True),
        ([1.0], 1.0, True),
        ("a", "b", True),
    ],
)
def test_difference(got, want, differs):
    got, want = (x if isinstance(x, str) else np.array(x) for x in (got, want))
    assert (vectors.difference(got, want, 1e-6) is not None) == differs


def test_noise_is_taken_down_and_given_back():
    recorder = vectors.noise("x")
    drawn = [recorder.standard_normal((2, 3)), recorder.random(2), recorder.integers(5, size=3)]
    replay = vectors.Replay(recorder.draws)
    for kind, values in zip(("standard_normal", "random", "integers"), drawn, strict=True):
        assert np.array_equal(getattr(replay, kind)(), values) and np.array_equal(
            np.round(values, 3), values
        )
    assert replay.left == []
    with pytest.raises(LookupError, match="random is asked for"):
        vectors.Replay(recorder.draws).random(2)
    assert np.array_equal(vectors.noise("x").random(9), vectors.noise("x").random(9))
    assert not np.array_equal(vectors.noise("x").random(9), vectors.noise("y").random(9))


def test_streams_give_the_same_noise_at_the_same_address():
    streams = vectors.Streams()
    first = streams(7, 1, 4, 1, 0, 2).random(3)
    assert list(streams.draws) == ["4/episodes/2"]
    assert np.array_equal(streams(7, 1, 4, 1, 0, 2).random(3), first)
    assert [*streams.draws, streams(7, 0) and "init"] == ["4/episodes/2", "init"]
    with pytest.raises(AssertionError, match="more than one chunk"):
        streams(7, 1, 4, 1, 5, 2)


# --- What checks the vectors is itself right ---
def test_close_decisions_are_refused():
    assert exact.below(Decimal(1), Decimal("1.00001")) and not exact.below(
        Decimal("1.00001"), Decimal(1)
    )
    with pytest.raises(AssertionError, match="too close"):
        exact.below(Decimal(1), Decimal("1.0000001"))


def test_a_fault_must_change_the_text_once():
    with pytest.raises(AssertionError, match="0 times"):
        vectors.slip(loops_envs.episodes_by_loops, ("no such text", ""))


def test_functions_in_decimal_arithmetic():
    for x in (-3.1, -0.4, 0.3, 2.9):
        d = Decimal(x)
        with exact.digits():
            got = [exact.sine(d), exact.cosine(d), exact.tanh(d), loops_envs.normal_below(d)]
        np.testing.assert_allclose(
            [float(v) for v in got], [np.sin(x), np.cos(x), np.tanh(x), stats.norm.cdf(x)], 1e-14
        )
    with exact.digits():
        assert float(loops_envs.beta_below(2, 3, Decimal("0.3"))) == pytest.approx(
            betainc(2, 3, 0.3), rel=1e-14
        )


def test_differences_are_exact_on_a_cubic():
    with exact.digits():
        x, v = exact.exact(np.array([0.5, -2.0])), exact.exact(np.array([1.0, 3.0]))
        f = lambda y: y[0] ** 3 + y[0] * y[1] ** 2
        g, h = exact.gradient(f, x), exact.hessian_vector(f, x, v)
    np.testing.assert_allclose(g.astype(float), [0.75 + 4.0, -2.0], 1e-15)
    np.testing.assert_allclose(h.astype(float), [3.0 * 1 - 4.0 * 3, -4.0 * 1 + 1.0 * 3], 1e-15)


@pytest.mark.parametrize("name", ["linear", "mlp", "deep relu", "categorical mlp"])
def test_the_score_by_hand_is_that_by_differences(name):
    inputs = exact.exact(vectors.decode(ENTRIES["3-policies", name]["inputs"]))
    network, theta, o = inputs["network"], inputs["theta"][0], inputs["obs"][0, 0]
    with exact.digits():
        action = loops_policies.act(network, theta, o, inputs["noise"][0]["values"][0, 0])
        by_hand = loops_policies.score(network, theta, o, action)
        other = exact.gradient(lambda x: loops_policies.log_prob(network, x, o, action), theta)
    np.testing.assert_allclose(by_hand.astype(float), other.astype(float), 1e-15, 1e-20)


def test_matrices_in_decimal_arithmetic():
    A = np.random.default_rng(0).standard_normal((4, 4))
    with exact.digits():
        S = exact.exact(A @ A.T)
        values, V = loops_es.eigen(S)
        x = loops_policies.solve(S, S[:, 1])
        E = loops_es.expm(S / 100)
    np.testing.assert_allclose((V @ np.diag(values) @ V.T).astype(float), A @ A.T, 1e-14)
    np.testing.assert_allclose((V.T @ V).astype(float), np.eye(4), atol=1e-15)
    np.testing.assert_allclose(np.array(x, float), [0, 1, 0, 0], atol=1e-15)
    power = np.linalg.eigh(A @ A.T / 100)
    np.testing.assert_allclose(E.astype(float), power[1] * np.exp(power[0]) @ power[1].T, 1e-13)
    assert all(column[np.abs(column).argmax()] > 0 for column in loops_es.signed(V.astype(float)).T)


def hessian_product(c, theta, D, v):
    """Of the loss of one task, at the policy that took D, times v:
    the README's table of estimators.
    """
    network = loops_steps.network_of(c)
    w = loops_steps.advantages(c, D, c["standardise"])[0] / D["mask"].size
    total = 0 * theta
    for k, row in enumerate(w):
        S = 0 * theta
        for t, weight in enumerate(row):
            score = lambda x, k=k, t=t: loops_policies.score(
                network, x, D["obs"][k, t], D["actions"][k, t]
            )
            G, before = score(theta), S
            S = S + G
            Hv = (score(theta + exact.STEP * v) - score(theta - exact.STEP * v)) / (2 * exact.STEP)
            extra = {"lvc": G * (G @ v), "dice": S * (S @ v) - before * (before @ v)}
            total = total - weight * (Hv + extra.get(c["estimator"], 0))
    return 0 * total if c["estimator"] == "first-order" else total


def meta_gradient_backwards(c, x, life):
    """The README's recursion: from the gradient at theta' back through the inner steps
    of one task.
    """
    (_, scale), path = loops_steps.split(c, x), life["path"]
    last = {**c, "sampling_term": False}
    u = exact.gradient(lambda y: loops_steps.meta_loss(last, [y], life), path[-1])
    by_scale = 0 * u
    for k in reversed(range(c["inner_steps"])):
        step = loops_steps.step_size(c, k) * scale * u
        by_scale = by_scale - step * life["slopes"][k]
        u = u - hessian_product(c, path[k], life["episodes"][k], step)
        if c["sampling_term"]:
            u = u + exact.gradient(
                lambda y, k=k: loops_steps.sampling(c, [*path[:k], y, *path[k + 1 :]], life),
                path[k],
            )
    return np.append(u, by_scale) if c["learn_alpha"] else u


@pytest.mark.parametrize(
    "name",
    [
        "first-order",
        "first-order, two steps, learned",
        "log-prob, two steps",
        "lvc",
        "dice",
        "sampling term",
        "sampling term, two steps",
        "learned step sizes",
        "bandit",
    ],
)
def test_the_recursion_of_the_readme_gives_the_meta_gradient(name):
    entry = ENTRIES["4-steps", f"meta-gradient: {name}"]
    inputs = exact.exact(vectors.decode(entry["inputs"]))
    c, x, streams = inputs["c"], inputs["x"], loops_steps.streams_of(inputs["c"], inputs["noise"])
    with exact.digits():
        lives = [loops_steps.live(c, x, task, i, streams) for i, task in enumerate(inputs["tasks"])]
        got = np.array([meta_gradient_backwards(c, x, life) for life in lives], float)
    np.testing.assert_allclose(got, vectors.decode(entry["outputs"]["meta_gradient"]), 1e-12, 1e-13)


def test_the_folder_holds_nothing_else():
    assert {path.name for path in Path(GOLDEN).glob("*.json")} == {
        f"{stage.STAGE}.json" for stage in kit.STAGES
    }
