"""What the pages show is what the program is: pseudo-code, exercises, names, commands, links."""

import argparse
import ast
import importlib
import re
import shlex
import sys
import textwrap
from dataclasses import asdict, fields

import numpy as np
import pytest

import metarl
from chapters import common
from docs import exercises, pseudocode
from docs.exercises import EXERCISES, GRADIENT, PAIR, STRANGERS, TERM, VALLEY, Source
from docs.pseudocode import ALGORITHMS, ROOT, Mark
from harness import cli
from harness.settings import Setting

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / ".github" / "CONTRIBUTING.md",
        ROOT / "chapters" / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
README = PAGES["README.md"]


# --- The README ---
def test_the_readme_is_one_page():
    assert README.count("\n") <= 200
    assert len(README.encode()) <= 14_000


@pytest.mark.parametrize("name", PAGES)
def test_no_cell_of_a_table_is_wider_than_a_reader_follows(name):
    if name == "docs/pseudo-code.md":  # lines of code
        return
    for line in PAGES[name].splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            assert max(len(re.sub(r"\]\([^)]*\)", "]", cell)) for cell in cells) <= 130, line


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_it_is_for_and_where_to_go_on(name):
    text = PAGES[name]
    assert text.startswith("# ")
    if name.startswith("docs/"):
        assert "For whoever" in text.split("\n\n")[1]
        assert links(text.split("\n## ")[0])
        assert f"({name})" in README or name.removeprefix("docs/") in README


def test_the_program_of_the_readme_is_maml():
    """An iteration of it, with the noise of the same addresses, is one of `metarl.maml`."""
    section = README[README.index("## MAML on a page") :].partition("\n## ")[0]
    block = re.search(r"(?:^ {4}.*\n)+", section, re.MULTILINE)[0]
    options = dict(hidden=(5,), tasks=3, episodes=4, inner_steps=2, learn_alpha=False)
    c = Setting(algo="maml", outer="sgd", alpha_decay=1.0, max_norm=1e6, **options)
    state, address = metarl.initial_state(c), (0, metarl.TRAIN, 0)
    given = {"c": c, "theta": state["theta"], "rng": metarl.noise_at(*address, metarl.TASKS)}

    def sample(k, theta):
        return metarl.sampler(c, given["tasks"], (*address, metarl.INNER, 0))(k, theta)

    names = vars(metarl) | {"sample": sample}
    exec(textwrap.dedent(block), names, given)  # noqa: S102
    expected = metarl.maml(c, state, address, metarl.in_chunks)["theta"]
    assert np.abs(expected - state["theta"]).max() > 1e-6
    np.testing.assert_allclose(given["theta"], expected, rtol=1e-12, atol=1e-15)


def programs(text):
    """The indented blocks that import something: Python."""
    blocks = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE)
    blocks = [textwrap.dedent(block) for block in blocks]
    return [block for block in blocks if re.search(r"^(import|from) ", block, re.MULTILINE)]


@pytest.mark.parametrize("page", [name for name in PAGES if programs(PAGES[name])])
def test_python_of_the_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, small = {}, "iterations=1, tasks=2, test_tasks=2, test_steps=1"
    for block in programs(PAGES[page]):
        block = block.replace("iterations=50", small).replace("iterations=100", "iterations=2")
        exec(block, names)  # noqa: S102


# --- Names ---
MODULES = {path.stem for path in ROOT.glob("*.py") if not path.name.startswith("test_")}
NAME = re.compile(rf"(?<![\w./-])({'|'.join(sorted(MODULES))})\.([A-Za-z_]\w*)\b(?!\.md)")


def names(text):
    """(module, name) of each `module.name` in the text, file names aside."""
    return sorted({(m, n) for m, n in NAME.findall(text) if n not in ("py", "md")})


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_modules_exist(page):
    for module, name in names(PAGES[page]):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_names_are_found():
    text = (
        "`metarl.adapt`, es.OpenAIES.ask, (envs.py), tests.test_es.x, metarl.md `benchmarks.es.f`"
    )
    assert names(text) == [("es", "OpenAIES"), ("metarl", "adapt")]
    assert len(names(README)) > 15


def test_symbols_and_what_is_extended_exist():
    """Names of the table of symbols stand in the code, those of `Add your own` where it says."""
    code = "\n".join((ROOT / f"{module}.py").read_text("utf-8") for module in MODULES)
    table = README[README.index("| symbol | in code |") :].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        for name in re.findall(r"`([^`]+)`", row):
            assert re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", code), name
    for name, path in re.findall(r"`(\w+)` (?:of|in) `([\w/]+\.py)`", README):
        defined = re.compile(rf"^(?:def |class )?{name}\b|^    def {name}\b", re.MULTILINE)
        assert defined.search((ROOT / path).read_text("utf-8")), f"{name} in {path}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    for path in re.findall(r"`([\w./-]+\.(?:py|md|mjs|json|toml))`", PAGES[page]):
        if path not in ("result.json",):  # what a run writes
            base = ROOT / "tests" if "/" not in path and (ROOT / "tests" / path).exists() else ROOT
            assert (base / path).exists(), path


# --- Pseudo-code ---
def test_every_tag_stands_at_its_place_once_and_in_order():
    assert pseudocode.problems(pseudocode.all_marks()) == []


def test_the_page_is_what_the_generator_prints():
    page = pseudocode.render(pseudocode.all_marks())
    assert PAGES["docs/pseudo-code.md"] == page, "run python -m docs.pseudocode --write"


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.title)
def test_an_algorithm_shows_no_place_twice_and_no_number_of_a_paper_is_left_out(algorithm):
    rows = [(row.where, row.tag) for row in algorithm.rows]
    assert len(rows) == len(set(rows))
    numbers = set()
    for row in algorithm.rows:
        bounds = [int(n) for n in re.findall(r"\d+", row.number)]
        numbers |= set(bounds if "," in row.number else range(bounds[0], bounds[-1] + 1))
    if algorithm.column == "line":
        first = 3 if algorithm.title == "OpenAI-ES" else 1  # its loop is the caller's
        assert numbers == set(range(first, max(numbers) + 1))
    else:
        assert numbers == {8, *range(38, 48), *range(49, 59)}  # 48 is a comment on 47


def test_a_number_in_a_tag_is_the_number_in_the_pseudo_code():
    for algorithm in ALGORITHMS:
        for row in algorithm.rows:
            assert re.findall(r"\d+", row.number) == re.findall(r"\d+", row.tag), row


SAMPLE = '''
class A:
    def f(self):
        """(eq. 41) in a docstring, MAML l.5"""
        x = 1  # (eq. 41) and more
        # a comment between, MAML l.5
        # MAML l.5
        y = x | 2  # (eq. 41)
        return y  # h, MAML l.5


def g():
    for k in range(
        3
    ):  # MAML l.4-9, Reptile l.4
        z = h(
            "a",
            k,
        )  # MAML l.5. Not recorded
        with z as a:  # ES-MAML l.1
            a = "`"  # MAML l.7, one for each
'''


def test_tags_are_what_comments_behind_statements_begin_with():
    marks = [(where, tag, code) for where, tag, _, code in pseudocode.marks(SAMPLE, "m")]
    assert marks == [
        ("m.A.f", "(eq. 41)", "x = 1"),
        ("m.A.f", "(eq. 41)", "y = x | 2"),
        ("m.g", "MAML l.4-9", "for k in range(3):"),
        ("m.g", "Reptile l.4", "for k in range(3):"),
        ("m.g", "MAML l.5", 'z = h("a", k)'),
        ("m.g", "ES-MAML l.1", "with z as a:"),
        ("m.g", "MAML l.7", 'a = "`"'),
    ]
    with pytest.raises(ValueError, match="line 3: MAML l.5 is inside a statement"):
        pseudocode.marks("def g():\n    h(\n        1,  # MAML l.5\n    )\n", "m")
    with pytest.raises(ValueError, match="line 1: a tag outside of functions"):
        pseudocode.marks("x = 1  # MAML l.5\n", "m")


RIGHT = [  # every tag of the tables at its place
    Mark(row.where, row.tag, i, f"code {i}")
    for i, row in enumerate(row for algorithm in ALGORITHMS for row in algorithm.rows)
]


def test_what_is_wrong_with_tags_is_told():
    assert pseudocode.problems(RIGHT) == []
    adapt = [i for i, mark in enumerate(RIGHT) if mark.where == "metarl.adapt"]
    first, second = adapt[:2]
    (missing,) = pseudocode.problems(RIGHT[:first] + RIGHT[first + 1 :])
    assert missing.startswith("metarl.adapt: `# MAML l.5` is missing")
    (unknown,) = pseudocode.problems([*RIGHT, Mark("metarl.adapt", "l.5", 7, "")])
    assert unknown == "metarl.adapt, line 7: `# l.5` is no line of the tables"
    (twice,) = pseudocode.problems([*RIGHT, RIGHT[first]])
    assert twice == "metarl.adapt: `# MAML l.5` stands at two places"
    swapped = list(RIGHT)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    (order,) = pseudocode.problems(swapped)
    assert order == "metarl.adapt: the tags stand in the order MAML l.6, MAML l.5, MAML l.7"
    both = [*RIGHT[: first + 1], RIGHT[first]._replace(line=99), *RIGHT[first + 1 :]]
    assert pseudocode.problems(both) == []  # two statements that belong together
    with pytest.raises(ValueError, match="is missing"):
        pseudocode.render(RIGHT[1:])


def test_cells_are_whole_in_markdown():
    assert pseudocode.cell("x | y") == r"`x \| y`"
    assert pseudocode.cell('a = "`"') == '``a = "`"``'
    for line in pseudocode.render(RIGHT).splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5 and "  |" not in line


# --- Exercises ---
@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.title)
def test_an_exercise_is_not_solved_until_it_is(exercise, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    number, copy, paths = str(EXERCISES.index(exercise) + 1), tmp_path / "copy", list(sys.path)
    assert exercises.main([number, str(copy)]) == 0
    said = capsys.readouterr().out
    assert exercise.title in said and exercise.check.__name__ not in said
    changed = [
        str(path)
        for path in exercises.program()
        if (ROOT / path).read_text("utf-8") != (copy / path).read_text("utf-8")
    ]
    assert changed == [exercise.file]
    assert exercises.main([number, str(copy), "--check"]) == 1
    assert capsys.readouterr().out.startswith("not yet: ")
    (copy / exercise.file).write_text(exercises.original(exercise), "utf-8")
    assert exercises.main([number, str(copy), "--check"]) == 0
    assert capsys.readouterr().out.startswith("found: ")
    assert not (copy / "__pycache__").exists()
    assert (sys.modules["metarl"], sys.path, sys.dont_write_bytecode) == (metarl, paths, False)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.title)
def test_a_fault_does_not_hang_on_the_wording_of_the_code(exercise):
    """The module without its comments, written by ast.unparse, gets the same fault."""
    plain = ast.unparse(ast.parse(exercises.original(exercise)))
    fault = exercise.fault(Source(exercise.file, plain))
    assert ast.dump(ast.parse(fault)) == ast.dump(ast.parse(exercises.faulty(exercise)))
    with pytest.raises(ValueError, match=f"{exercise.file}: no "):
        exercise.fault(Source(exercise.file, "x = 1\n"))


def unused(text):
    """Parameters and variables of a module's functions that are set and never read."""
    found = set()
    for name, f in pseudocode.functions(ast.parse(text)):
        reads = {x.id for x in ast.walk(f) if isinstance(x, ast.Name) and type(x.ctx) is ast.Load}
        sets = {x.id for x in ast.walk(f) if isinstance(x, ast.Name) and type(x.ctx) is ast.Store}
        found |= {(name, x) for x in sets | {a.arg for a in f.args.args} if x not in reads}
    return found


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.title)
def test_a_faulty_file_does_not_give_itself_away(exercise):
    """Nothing is left unused, but where lines are missing that the task says are missing."""
    fault, right = exercises.faulty(exercise), exercises.original(exercise)
    assert exercise is TERM or unused(fault) <= unused(right)
    assert max(map(len, fault.splitlines())) <= max(120, *map(len, right.splitlines()))
    assert pseudocode.comments(fault).keys() or "#" not in right


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.title)
def test_the_place_is_a_secret_until_it_is_asked_for(exercise, capsys):
    number = str(EXERCISES.index(exercise) + 1)
    function, lines = exercises.solution(exercise)
    assert lines and function in dict(pseudocode.functions(ast.parse(exercises.original(exercise))))
    assert not re.search(rf"\b{function.split('.')[-1]}\b", exercise.task + exercise.hint)
    assert exercises.main([number, "--hint"]) == 0
    assert " ".join(capsys.readouterr().out.split()) == " ".join(exercise.hint.split())
    assert exercises.main([number, "--solution"]) == 0
    out = capsys.readouterr().out
    assert function in out and lines in out


def test_comments_that_tell_are_dropped_and_tags_stay():
    text = "def f():\n    # the sum\n    x = 1  # MAML l.5: the sum\n    return x  # the end\n"
    silent = "def f():\n    x = 1  # MAML l.5\n    return x  # the end\n"
    assert exercises.silent(text, "f", ("sum",)) == silent


def some_tasks(text, keep):
    """Of the statistics that mix tasks only the one at place `keep` still does."""
    source = Source("policies.py", text)
    axes = lambda x: isinstance(x, ast.Tuple) and ast.unparse(x) == "(0, 1, 2)"
    places = source.find("axes", axes, source.named("moments"))
    return source.replaced([(x, "(1, 2)") for x in places if x is not places[keep]])


def one_noise(text):
    """What is drawn for the first task serves all of them."""
    source = Source("policies.py", text)
    edits = []
    for call in source.find("noise", lambda x: exercises.is_call(x, "concatenate")):
        if isinstance(call.args[0], ast.BinOp):
            noise, n = source.code(call.args[0].left.elts[0]), source.code(call.args[0].right)
            edits.append((call, f"np.repeat({noise}[:1], {n} * len({noise}), 0)"))
    return source.replaced(edits)


def another_path(text):
    """The path of the step size in place of that of the covariance."""
    right = Source("es.py", exercises.original(VALLEY))
    places = exercises.uses_of_the_path(right)
    return right.replaced([(x, "self.p_sigma") for x in places])


def other_term(change):
    """The right loss with a change at one place: a function from a node to what takes its place."""

    def solve(text):
        right = Source("policies.py", exercises.original(TERM))
        function = right.named("sampling_term")
        place = right.find("place of the change", lambda x: change(right, x), function)[-1]
        return right.replaced([(place, change(right, place))])

    return solve


def of_the_other_sign(source, x):
    if isinstance(x, ast.BinOp) and type(x.op) is ast.Sub and source.code(x.left) == "loss":
        return f"loss + {source.code(x.right)}"


def without_the_others(source, x):
    if isinstance(x, ast.BinOp) and type(x.op) is ast.Sub and source.code(x.left) == "J":
        return "J"


def after_the_end(source, x):
    if isinstance(x, ast.Call) and source.code(x) == "D.kept(log_pi)":
        return "log_pi"


FALSE_SOLUTIONS = {  # what a check must not take for right: from a faulty text to another one
    "the number alone": (STRANGERS, lambda text: some_tasks(text, 0)),
    "all but the deviation": (STRANGERS, lambda text: some_tasks(text, -1)),
    "one noise for all tasks": (PAIR, one_noise),
    "another path": (VALLEY, another_path),
    "the sign of the loss": (TERM, other_term(of_the_other_sign)),
    "without the others": (TERM, other_term(without_the_others)),
    "steps after the end": (TERM, other_term(after_the_end)),
}


@pytest.mark.parametrize("name", FALSE_SOLUTIONS)
def test_a_false_solution_is_not_taken_for_right(name, tmp_path):
    exercise, solve = FALSE_SOLUTIONS[name]
    exercises.write(exercise, tmp_path)
    path = tmp_path / exercise.file
    path.write_text(solve(path.read_text("utf-8")), "utf-8")
    assert path.read_text("utf-8") != exercises.original(exercise)
    assert exercises.verdict(exercise, tmp_path)
    assert "Error:" not in exercises.verdict(exercise, tmp_path)


def test_maml_and_fomaml_differ_in_nothing_but_their_gradients():
    """So that exercise 1 tells the truth."""
    maml, fomaml = (
        asdict(Setting(algo=algo, env="sparse-pointmass")) for algo in ("maml", "fomaml")
    )
    assert {name for name in maml if maml[name] != fomaml[name]} == {"algo", "estimator"}


def test_a_copy_is_never_written_over(tmp_path, capsys):
    (tmp_path / "es.py").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        exercises.main(["1", str(tmp_path)])
    assert "es.py" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["es.py"]


def test_a_program_that_does_not_even_import_is_not_right(tmp_path):
    exercises.write(GRADIENT, tmp_path)
    (tmp_path / "metarl.py").write_text("def broken(:")
    assert exercises.verdict(GRADIENT, tmp_path).startswith("SyntaxError")
    assert "no metarl.py" in exercises.verdict(GRADIENT, tmp_path / "elsewhere")


def test_exercises_are_listed(capsys):
    assert exercises.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{i}  {e.title}" for i, e in enumerate(EXERCISES, 1)
    ]
    page = PAGES["docs/exercises.md"]
    assert all(f"{i}. *{e.title}*" in page for i, e in enumerate(EXERCISES, 1))


# --- Commands ---
COMMAND = re.compile(
    r"python3? +(metarl\.py|-m +(?:benchmarks|chapters|docs|golden|tests)(?:\.\w+)*)([^`\n#&|;]*)"
)


def commands(text):
    """(program, arguments) of each command in the text; N stands for a number, NAME for a name."""
    text = text.replace(" -->", "\n")  # of <!-- measure: COMMAND -->
    text = re.sub(r"(?<!`)`[^`]+`(?!`)", lambda span: span[0].replace("\n", " "), text)
    for program, arguments in COMMAND.findall(text):
        words = ["2" if word == "N" else word for word in shlex.split(arguments)]
        if not program.endswith(".NAME"):
            if words[-1:] == ["--algo"]:  # the head of a table
                words.append("maml")
            yield program.split()[-1], tuple(words)


class Parsed(Exception):
    """Carries what an ArgumentParser made of its arguments."""


@pytest.fixture
def only_parse(monkeypatch):
    """Ends a program where it has parsed its command line.

    A bad one ends it with SystemExit, ValueError or cli.Stop.
    """
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        raise Parsed(original(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)


def check_run(arguments):
    with pytest.raises(Parsed) as caught:
        cli.prepare(arguments)
    given = vars(caught.value.args[0])
    options = {f.name: given[f.name] for f in fields(Setting) if f.name in given}
    if given["resume"] is None:
        Setting(**{name: tuple(x) if isinstance(x, list) else x for name, x in options.items()})


def check_module(name, arguments, monkeypatch):
    """Its argparse accepts the arguments.

    Where it cannot be imported for want of a package, its text has the options.
    """
    path = ROOT / name.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert path.exists(), f"python -m {name}"
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        module = importlib.import_module(f"{name}.__main__" if path.name == "__main__.py" else name)
    except ImportError as error:  # of a package, or the module says what to install
        assert "pip install" in str(error) or not (ROOT / f"{error.name}.py").exists(), error
        assert all(
            f'"{word}"' in path.read_text("utf-8") for word in arguments if word.startswith("--")
        )
        return
    if hasattr(module, "CHAPTER"):
        with pytest.raises(Parsed):
            common.main(module.CHAPTER)
        return
    if not hasattr(module, "main"):  # a test that writes a file
        assert not arguments and '__name__ == "__main__"' in path.read_text("utf-8")
        return
    with pytest.raises(Parsed):
        module.main()


COMMANDS = sorted({command for page in PAGES.values() for command in commands(page)})


@pytest.mark.parametrize("program, arguments", COMMANDS, ids=str)
def test_a_command_of_the_pages_is_understood(program, arguments, only_parse, monkeypatch):
    arguments = [word for word in arguments if word != "--help"]
    if program == "metarl.py":
        check_run(arguments)
    else:
        check_module(program, arguments, monkeypatch)


def test_what_is_no_command_is_refused(only_parse, monkeypatch, capsys):
    for flags in (["--alhpa", "1"], ["--alpha", "-1"], ["--algo", "mmal"]):
        with pytest.raises((ValueError, cli.Stop)):
            check_run(flags)
    with pytest.raises(AssertionError, match="benchmarks.nothing"):
        check_module("benchmarks.nothing", [], monkeypatch)
    with pytest.raises(SystemExit):
        check_module("benchmarks.workers", ["--ronuds", "1"], monkeypatch)
    text = "`python\tmetarl.py`, `.venv/bin/python metarl.py --algo\nreptile` | "
    text += "python -m benchmarks.NAME"
    assert list(commands(text)) == [("metarl.py", ("--algo", "reptile"))]
    text = "```\npython metarl.py --seed N  # why\npython -m golden --check && ls\n```"
    assert list(commands(text)) == [("metarl.py", ("--seed", "2")), ("golden", ("--check",))]


# --- Links ---
def links(text):
    text = re.sub(r"`[^`\n]*`", "", text)  # code may hold what looks like a link
    return re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(
        r'(?:src|href|srcset)="([^"\s]+)', text
    )


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(text):
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    base = (ROOT / name).parent
    for link in links(PAGES[name]):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (base / path).resolve() if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), link


def test_links_are_found():
    assert links('[a](b.md "t") ![c](d/e.svg) <img src="f.png">') == ["b.md", "d/e.svg", "f.png"]
    assert slug("Is it meta-learning, that adapts?") == "is-it-meta-learning-that-adapts"
