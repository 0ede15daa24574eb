"""The list of faults fits the sources, its runner tells what is found from what survives; mutants and their score."""

import json

import pytest
from numpy.testing import assert_allclose

from tests import faults, mutation
from tests.faults import ROOT, TESTS, Fault, planted

FAULTS = faults.listed()


# --- The list ---
def test_every_fault_is_one_line_in_one_place():
    for fault in FAULTS:
        text = planted(fault)
        assert "\n" not in fault.old + fault.new and text != (ROOT / fault.module).read_text(
            encoding="utf-8"
        )
        compile(text, fault.module, "exec")


def test_there_are_many_in_every_module_each_with_a_name_of_its_own():
    assert len(FAULTS) == len({fault.fault for fault in FAULTS}) >= 80
    assert {fault.module for fault in FAULTS} == set(TESTS)
    changes = [fault[0::2][:2] + (fault.new,) for fault in FAULTS]
    assert len(set(changes)) == len(changes)


def test_recorded_tests_exist():
    """Up to their parameters, of which the runner takes care."""
    texts = {
        path: (ROOT / path).read_text(encoding="utf-8")
        for paths in TESTS.values()
        for path in paths
    }
    for fault in FAULTS:
        path, name = fault.test.split("::")
        assert f"\ndef {name.partition('[')[0]}(" in texts[path], fault


def test_the_published_table_is_that_of_the_list():
    _, within, _ = faults.split(faults.TABLE.read_text(encoding="utf-8"))
    assert within == faults.table(FAULTS)


def test_known_equivalents_fit_the_sources():
    for (module, old, new), why in faults.equivalents().items():
        assert why and old != new
        assert old in map(str.strip, (ROOT / module).read_text(encoding="utf-8").splitlines()), old


# --- Its runner ---
SOME = [
    "MAML's second-order term switched off",
    "LVC without its ratio",
    "test tasks from the training split",
]


def test_some_faults_from_end_to_end():
    chosen = [fault for fault in FAULTS if fault.fault in SOME]
    reported = []
    tests = faults.found(chosen, 2, lambda *pair: reported.append(pair))
    assert tests == [fault.test for fault in chosen] and reported == list(
        zip(chosen, tests, strict=True)
    )


HARMLESS = Fault("es.py", "no fault at all", "floor(3 ln n)", "floor(3 log n)", "")
SMALL = "tests/test_es.py::test_default_population"


def test_a_fault_that_survives_is_said(monkeypatch, capsys):
    """And one that its recorded test lets pass is found by another, if there is any."""
    other = Fault(
        "es.py",
        "ten",
        "popsize = 4 +",
        "popsize = 10 +",
        "tests/test_es.py::test_nes_constants_by_hand",
    )
    monkeypatch.setattr(faults, "listed", lambda: [HARMLESS, other])
    monkeypatch.setattr(faults, "TESTS", {"es.py": [SMALL]})
    assert faults.main(["--jobs", "1"]) == 1
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "es.py: no fault at all: SURVIVED" and third == "2 faults, 1 survived"
    assert second.startswith(f"es.py: ten: {SMALL}[")


@pytest.mark.parametrize(
    "fault, words",
    [
        (HARMLESS._replace(old="not there"), "es.py: 'not there' occurs 0 times: no fault at all"),
        (HARMLESS._replace(old="self"), "'self' occurs"),
        (
            HARMLESS._replace(test="tests/test_es.py::test_of_something_else"),
            "test_of_something_else",
        ),
    ],
)
def test_a_list_that_does_not_fit_is_refused(fault, words, monkeypatch, capsys):
    monkeypatch.setattr(faults, "listed", lambda: [fault])
    assert faults.main([]) == 1
    assert words in capsys.readouterr().err


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    for name in ("LIST", "TABLE"):
        monkeypatch.setattr(faults, name, tmp_path / getattr(faults, name).name)
    faults.TABLE.write_text(f"before\n{faults.BEGIN}old{faults.END}\nafter", encoding="utf-8")
    faults.write(FAULTS)
    assert faults.listed() == FAULTS
    before, within, after = faults.split(faults.TABLE.read_text(encoding="utf-8"))
    assert (before, after) == ("before\n", "\nafter") and within.count("| `test") == len(FAULTS)
    assert (
        json.loads((ROOT / "tests/faults.json").read_text(encoding="utf-8")).keys() == TESTS.keys()
    )


# --- Mutants ---
def test_interval_of_a_share():
    """Wilson 1927: the shares p from which the sample lies 1.96 deviations of sqrt(p (1 - p) / n)."""
    for found, n in ((0, 10), (90, 100), (100, 100)):
        for p in mutation.interval(found, n):
            assert_allclose((found / n - p) ** 2, 1.959964**2 * p * (1 - p) / n, atol=1e-12)
    assert mutation.score(90, 100, 100) == "90/100 = 90.0%"
    assert mutation.score(90, 100, 900) == "90/100 = 90.0% (82.6% to 94.5%)"


def test_a_sample_of_mutants(monkeypatch, capsys):
    """A test that sees a little of the module finds some mutants of a sample; the others are printed."""
    pytest.importorskip("cosmic_ray", reason="needs cosmic-ray")
    monkeypatch.setattr(
        mutation,
        "TESTS",
        {"es.py": [SMALL, "tests/test_es.py::test_snes_generations_beside_the_loop"]},
    )
    mutation.main(["es.py", "--sample", "5", "--seed", "3", "--jobs", "1"])
    *survivors, last = capsys.readouterr().out.splitlines()
    n = sum(line.startswith("es.py:") for line in survivors)
    assert 0 < n < 5 and len(survivors) == 3 * n and f" mutants, found {5 - n}/5 = " in last
