"""Faults are found by their tokens, planted, listed when stale and re-planted; mutants and a score.

No test here depends on how a line of the project is worded: that a small share of the lists is
stale is enough, and `python -m tests.faults --replant` brings it up to date.
"""

import pytest
from numpy.testing import assert_allclose

from tests import faults, mutation, snippets
from tests.faults import Fault, planted

FAULTS = faults.listed()
STALE = "at most one entry in twenty may be stale: python -m tests.faults --replant"

SAMPLE = '''"""A small module."""

SLOPES = {
    "add": (lambda g, a, b: g, lambda g, a, b: g),
    "mul": (lambda g, a, b: g * b, lambda g, a, b: g * a),
}


class Walk:
    rate = 0.5

    def step(self, x, slope):
        """One step."""
        return x - self.rate * slope  # l.7


def step(x, slope):
    return x - 0.1 * slope


def loss(x, y):
    return (x - y) ** 2 / max(len(SLOPES), 1)
'''


# --- The list ---
def test_faults_are_of_one_line_and_leave_code_that_python_reads():
    for fault in FAULTS:
        assert "\n" not in fault.old + fault.new and fault.old != fault.new
        snippets.snippet(fault.old)
        if not faults.is_stale(fault):
            assert faults.compiles(fault), fault


def test_few_are_stale():
    assert len(faults.stale_of(FAULTS)) <= len(FAULTS) / 20, STALE
    equivalents = faults.equivalents()
    assert len(faults.stale_of(equivalents)) <= max(1, len(equivalents) / 5), STALE


def test_few_recorded_tests_are_gone():
    """Up to their parameters, of which the runner takes care."""
    gone = [fault for fault in FAULTS if not faults.current(fault.test, fault.module)]
    assert len(gone) <= len(FAULTS) / 20, gone


def test_there_are_many_in_every_module_each_with_a_name_of_its_own():
    assert len(FAULTS) == len({fault.fault for fault in FAULTS}) >= 80
    existing = {module for module in faults.TESTS if (faults.ROOT / module).exists()}
    assert existing <= {fault.module for fault in FAULTS}
    changes = [(fault.module, fault.where, fault.old, fault.new) for fault in FAULTS]
    assert len(set(changes)) == len(changes)


def test_the_published_table_is_that_of_the_list():
    _, within, _ = faults.split(faults.read(faults.TABLE))
    assert within == faults.table(FAULTS)


def test_what_is_written_is_read_back(tmp_path, monkeypatch):
    mutants = faults.equivalents()
    for name in ("LIST", "EQUIVALENTS", "TABLE"):
        monkeypatch.setattr(faults, name, tmp_path / getattr(faults, name).name)
    faults.TABLE.write_text(f"before\n{faults.BEGIN}old{faults.END}\nafter", encoding="utf-8")
    faults.write(FAULTS, mutants)
    assert faults.listed() == FAULTS and faults.equivalents() == mutants
    before, within, after = faults.split(faults.read(faults.TABLE))
    assert (before, after) == ("before\n", "\nafter")
    assert within.count("| `test") == len(FAULTS)


# --- Code is found by its tokens ---
def found(text, where, code):
    return len(snippets.find(text, where, code))


@pytest.mark.parametrize(
    "layout",
    [
        "return x - self.rate * slope",
        "return (\n            x\n            - self.rate  # why\n            * slope\n        )",
        "return x-self.rate \\\n            *slope",
    ],
)
def test_layout_does_not_matter(layout):
    text = SAMPLE.replace("return x - self.rate * slope", layout)
    assert found(text, "Walk.step", "return x - self.rate * slope") == 1
    (place,) = snippets.find(text, "Walk.step", "return x - self.rate")
    faulty = snippets.replace(text, place, "return x + self.rate")
    compile(faulty, "sample", "exec")
    assert found(faulty, "Walk.step", "return x + self.rate * slope") == 1


def test_added_brackets_and_commas_do_not_matter():
    wide = (
        'x = {\n    "add": (\n        lambda g, a, b: g,\n        lambda g, a, b: (g),\n    ),\n}\n'
    )
    assert found(wide, "", '"add": (lambda g, a, b: g, lambda g, a, b: g)') == 1
    assert found("f(\n    a,\n    b,\n)\n", "", "f(a, b)") == 1


def test_brackets_that_change_the_meaning_do_matter():
    assert found("x = (a + b) * c\n", "", "a + b * c") == 0
    assert found("x = (a, b)\n", "", "x = a, b") == 0


def test_only_its_own_function_is_searched():
    assert found(SAMPLE, "step", "x -") == 1
    assert found(SAMPLE, "Walk.step", "x -") == 1
    assert found(SAMPLE, "", "x -") == 0
    assert found(SAMPLE, "Walk", "rate = 0.5") == 1
    assert found(SAMPLE, "", "g * a") == 1
    assert found(SAMPLE, "", "lambda g, a, b: g") == 4


def test_a_function_within_a_function_and_decorators_belong_to_the_outer_one():
    text = "@cached(1)\ndef f():\n    def g():\n        return 2\n    return g\n"
    assert found(text, "f", "return 2") == 1 and found(text, "f", "cached(1)") == 1


def test_an_f_string_is_one_token():
    text = 'x = f"{a + b} {c!r}" + d\n'
    assert [token.text for token in snippets.tokens(text)][2:4] == ['f"{a + b} {c!r}"', "+"]
    assert found(text, "", 'f"{a + b} {c!r}"') == 1


def test_a_snippet_whose_brackets_do_not_match_is_refused():
    for code in ("f(x", "x)", "(x]"):
        with pytest.raises(ValueError):
            snippets.snippet(code)


@pytest.mark.parametrize(
    "code",
    [
        "x = -y ** (2 * n) - 1 + f(a=1, *b, **c)",
        "theta[..., None] @ {1: 2, **d}[k]",
        "if not (a and b): return [i for i in (1, 2) if i]",
        "lambda g, x: (g, -x)",
        "'a' 'b' if x else y.z(1)[0]",
    ],
)
def test_code_is_spelled_with_the_tokens_that_it_has(code):
    words = snippets.snippet(code)
    assert snippets.snippet(snippets.spelled(words)) == words


def test_every_statement_of_the_project_can_be_put_in_its_own_place():
    for module in faults.TESTS:
        if (faults.ROOT / module).exists():
            text = faults.read(faults.ROOT / module)
            words = snippets.texts(snippets.tokens(text))
            for statement in snippets.statements(text)[::40]:
                place = snippets.Place(statement, 0, len(statement.tokens) - 1)
                same = snippets.replace(text, place, snippets.code_of(place))
                assert snippets.texts(snippets.tokens(same)) == words


# --- A stale entry is listed, and moved ---
TEST_OF_SAMPLE = """import pytest
from sample import SLOPES, Walk, loss, step

def test_slopes():
    assert SLOPES["mul"][1](1, 3, 5) == 3

def test_walk():
    assert Walk().step(1.0, 1.0) == 0.5

@pytest.mark.parametrize("x", [1.0, 2.0])
def test_step(x):
    assert step(x, 10) == x - 1

def test_loss():
    assert loss(3, 1) == 2
"""
IN_STEP = Fault(
    "sample.py", "uphill", "step", "x - 0.1", "x + 0.1", "test_sample.py::test_step[1.0]"
)
IN_TABLE = Fault("sample.py", "wrong", "", "g * a", "g * b", "test_sample.py::test_slopes")
IN_LOSS = Fault("sample.py", "no square", "loss", "** 2 /", "/", "test_sample.py::test_loss")
SAME = Fault(
    "sample.py", "SLOPES has two", "loss", "max(len(SLOPES), 1)", "max(len(SLOPES), 2)", ""
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A function that writes the sample, with some words replaced, as a project with two lists."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "test_sample.py").write_text(TEST_OF_SAMPLE, encoding="utf-8")
    monkeypatch.setattr(faults, "ROOT", root)
    monkeypatch.setattr(faults, "TESTS", {"sample.py": ["test_sample.py"], "new.py": []})
    for name in ("LIST", "EQUIVALENTS", "TABLE"):
        monkeypatch.setattr(faults, name, root / getattr(faults, name).name)
    faults.TABLE.write_text(faults.BEGIN + faults.END, encoding="utf-8")

    def write(*rewording, listed=(IN_STEP, IN_TABLE, IN_LOSS), mutants=(SAME,)):
        text = SAMPLE
        for old, new in zip(rewording[::2], rewording[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        (root / "sample.py").write_text(text, encoding="utf-8")
        faults.write(listed, mutants)

    return write


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_nothing_is_stale_where_only_the_layout_changed(project, capsys):
    project("return x - 0.1 * slope", "return (\n        x  # here\n        - 0.1 * slope\n    )")
    assert faults.main(["--stale"]) == 0
    assert lines(capsys) == ["0 of 4 entries are stale"]


def test_stale_entries_are_listed_beside_what_is_most_like_them(project, capsys):
    project("return x - 0.1 * slope", "return x - 0.1 / 2 * slope", "g * a", "a * g")
    assert faults.main(["--stale"]) == 1
    shown = lines(capsys)
    assert shown[:3] == ["sample.py: wrong", "    - g * a", "    + g * b"]
    assert all(line.startswith("    ? ") for line in shown[3:6]) and "sample.py:5" in shown[3]
    assert shown[-1] == "1 of 4 entries are stale"


def test_a_renamed_function_and_a_renamed_name(project, capsys):
    project(
        "def step(x, slope):\n    return x - 0.1",
        "def move(w, slope):\n    return w - 0.1",
        "(x - y) ** 2",
        "(x - target) ** 2",
        "(x, y)",
        "(x, target)",
        "max(len(SLOPES), 1)",
        "max(len(SLOPES), one)",
        "def loss",
        "one = 1\n\n\ndef loss",
    )
    test = faults.ROOT / "test_sample.py"
    test.write_text(
        TEST_OF_SAMPLE.replace("loss, step", "loss, move as step").replace("1.0, 2.0", "1.5, 2.5"),
        encoding="utf-8",
    )
    assert faults.main(["--replant", "--jobs", "1"]) == 1
    shown = lines(capsys)
    assert "sample.py step: uphill -> sample.py move (0.67 alike)" in shown
    assert shown[-1] == "1 of 2 stale entries re-planted"
    moved = faults.listed()[0]
    assert moved == IN_STEP._replace(
        where="move", old="w - 0.1", new="w + 0.1", test="test_sample.py::test_step[1.5]"
    )
    assert faults.listed()[1:] == [IN_TABLE, IN_LOSS] and faults.equivalents() == [SAME]


def test_a_proposal_alone_writes_nothing(project, capsys):
    project("x - 0.1", "w - 0.1", "def step(x,", "def step(w,")
    before = faults.read(faults.LIST)
    assert faults.main(["--replant", "--propose"]) == 0
    assert "    + w + 0.1" in lines(capsys) and faults.read(faults.LIST) == before


def test_code_that_moved_to_another_module(project, capsys):
    """It is looked for where a function of this name is now."""
    project("def step(x, slope):\n    return x - 0.1 * slope\n", "from new import step\n")
    body = "def step(x, slope):\n    return x - 0.1 * slope\n"
    (faults.ROOT / "new.py").write_text(body, encoding="utf-8")
    assert faults.main(["--replant", "--jobs", "1"]) == 0
    assert IN_STEP._replace(module="new.py") in faults.listed()


def test_an_edit_that_no_test_finds_stays_stale(project, capsys):
    harmless = IN_STEP._replace(old="x - 0.2", new="x - 0.1 - 0.1", test="")
    project("x - 0.1", "x - 0.10", listed=[harmless])
    (faults.ROOT / "test_sample.py").write_text("def test_none():\n    pass\n", encoding="utf-8")
    assert faults.main(["--replant", "--jobs", "1"]) == 1
    assert "NOT RE-PLANTED" in lines(capsys)[0] and faults.listed() == [harmless]


def test_a_test_that_fails_without_the_fault_finds_nothing(project, capsys):
    project("x - 0.1", "w - 0.1", "def step(x,", "def step(w,")
    failing = "\ndef test_nothing():\n    assert False\n"
    (faults.ROOT / "test_sample.py").write_text(failing, encoding="utf-8")
    assert faults.main(["--replant", "--jobs", "1"]) == 1
    assert "NOT RE-PLANTED" in lines(capsys)[0]


def test_an_equivalent_is_moved_if_no_test_finds_it(project):
    project("SLOPES", "TABLE")
    (faults.ROOT / "test_sample.py").write_text(
        TEST_OF_SAMPLE.replace("import SLOPES", "import TABLE as SLOPES"), encoding="utf-8"
    )
    assert faults.main(["--replant", "--jobs", "1"]) == 0
    assert faults.equivalents() == [
        SAME._replace(old="max(len(TABLE), 1)", new="max(len(TABLE), 2)")
    ]


# --- What finds a fault ---
SOME = [
    "MAML's second-order term switched off",
    "LVC without its ratio",
    "test tasks from the training split",
]


def test_some_faults_from_end_to_end():
    chosen = [fault for fault in FAULTS if fault.fault in SOME and not faults.is_stale(fault)]
    if not chosen:
        pytest.skip("all of them are stale")
    reported = []
    tests = faults.found(chosen, 2, lambda *pair: reported.append(pair))
    assert None not in tests
    assert reported == list(zip(chosen, tests, strict=True))


def test_a_fault_that_survives_is_said(project, capsys):
    """And one that its recorded test lets pass is found by another, if there is any."""
    harmless = IN_STEP._replace(fault="none", new="x - 0.10", test="test_sample.py::test_step")
    other = IN_TABLE._replace(test="test_sample.py::test_walk")
    project(listed=[harmless, other])
    assert faults.main(["--jobs", "1", "--write"]) == 1
    first, second, third = lines(capsys)
    assert first == "sample.py: none: SURVIVED"
    assert second == f"sample.py: wrong: {IN_TABLE.test}"
    assert third == "2 faults, 1 survived, 0 stale"
    assert faults.listed() == [harmless._replace(test=""), IN_TABLE]


def test_stale_faults_are_listed_and_the_others_run(project, capsys):
    project("x - 0.1", "w - 0.1", "def step(x,", "def step(w,")
    assert faults.main(["--jobs", "1"]) == 1
    shown = lines(capsys)
    assert shown[0] == f"sample.py: wrong: {IN_TABLE.test}"
    assert shown[2] == "sample.py step: uphill" and shown[-1] == "3 faults, 0 survived, 1 stale"


def test_a_suite_that_fails_without_a_fault_is_refused(project, capsys):
    project("g * a", "g * a + 1", listed=[IN_TABLE])
    assert faults.main(["--jobs", "1"]) == 1
    assert "test_slopes fails without any fault" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, words",
    [
        ({"old": "not there"}, "sample.py step: 'not there' occurs 0 times: uphill"),
        ({"old": "slope", "where": ""}, "sample.py: 'slope' occurs 0 times: uphill"),
        ({"module": "gone.py"}, "gone.py step: 'x - 0.1' occurs 0 times: uphill"),
    ],
)
def test_what_is_stale_cannot_be_planted(project, change, words):
    project()
    with pytest.raises(ValueError) as error:
        planted(IN_STEP._replace(**change))
    assert str(error.value) == words


def test_an_unknown_module_is_refused(project, capsys):
    project()
    with pytest.raises(SystemExit) as stop:
        faults.main(["--only", "trop.py"])
    assert stop.value.code == 2 and "--only trop.py: must be one of" in capsys.readouterr().err


# --- Mutants ---
def test_interval_of_a_share():
    """Wilson 1927: shares p that lie 1.96 sqrt(p (1 - p) / n) from the sample's."""
    for found, n in ((0, 10), (90, 100), (100, 100)):
        for p in mutation.interval(found, n):
            assert_allclose((found / n - p) ** 2, 1.959964**2 * p * (1 - p) / n, atol=1e-12)
    assert mutation.score(90, 100, 100) == "90/100 = 90.0%"
    assert mutation.score(90, 100, 900) == "90/100 = 90.0% (82.6% to 94.5%)"


def test_an_equivalent_explains_a_mutant_in_any_layout(project, monkeypatch, capsys):
    project()
    known = mutation.explanations("sample.py")
    mutant = SAMPLE.replace("max(len(SLOPES), 1)", "max(\n        len(SLOPES),\n        2)")
    assert known == {mutation.code(mutant): SAME.fault}
    assert mutation.code(SAMPLE) not in known
    project("max(len(SLOPES), 1)", "1")
    assert mutation.explanations("sample.py") == {}
    assert "stale in equivalents.json: sample.py loss" in capsys.readouterr().out


SMALL = [
    "tests/test_es.py::test_default_population",
    "tests/test_es.py::test_snes_generations_beside_the_loop",
]


def test_a_sample_of_mutants(monkeypatch, capsys):
    """A test that sees a little of the module finds some of the mutants; the others are shown."""
    pytest.importorskip("cosmic_ray", reason="needs cosmic-ray")
    monkeypatch.setattr(mutation, "tests_of", lambda module: SMALL)
    mutation.main(["es.py", "--sample", "5", "--seed", "3", "--jobs", "1"])
    *survivors, last = lines(capsys)
    n = sum(line.startswith("es.py:") for line in survivors)
    assert 0 < n < 5 and len(survivors) == 3 * n and f" mutants, found {5 - n}/5 = " in last
