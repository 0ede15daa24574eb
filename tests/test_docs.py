"""What the README shows is what the program is: its pseudo-code, exercises, commands and links."""

import argparse
import importlib
import re
import shlex
import sys
from dataclasses import asdict, fields

import pytest

import metarl
from docs import exercises, pseudocode
from docs.exercises import EXERCISES
from docs.pseudocode import ALGORITHMS, BEGIN, END, ROOT
from harness import cli
from harness.settings import Setting

README = (ROOT / "README.md").read_text(encoding="utf-8")


# --- Pseudo-code ---
def test_every_line_of_pseudo_code_has_its_tag_and_every_tag_its_line():
    """`places` refuses a tag that stands twice in a function."""
    used = {(where, tag) for algorithm in ALGORITHMS for _, _, where, tag in algorithm.rows}
    assert used == set(pseudocode.places())


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.title)
def test_an_algorithm_shows_no_place_twice_and_no_number_of_a_paper_is_left_out(algorithm):
    rows = [(where, tag) for _, _, where, tag in algorithm.rows]
    assert len(rows) == len(set(rows))
    bounds = [re.findall(r"\d+", number) for number, *_ in algorithm.rows]
    numbers = {
        n
        for b in bounds
        for n in ([*map(int, b)] if "," in " ".join(b) else range(int(b[0]), int(b[-1]) + 1))
    }
    if algorithm.column == "line":
        assert numbers == set(range(1, max(numbers) + 1))
    else:
        assert numbers == {8, *range(38, 48), *range(49, 59)}  # 48 is a comment on 47


def test_a_number_in_a_tag_is_the_number_in_the_pseudo_code():
    """But for train, which all share, inner_loop in Reptile, and OpenAI-ES, which counts as its own paper does."""
    for algorithm in ALGORITHMS:
        own = [
            row for row in algorithm.rows if "OpenAIES" not in row[2] and row[2] != "metarl.train"
        ]
        for number, _, where, tag in own:
            if (algorithm.title, where) != ("Reptile", "metarl.inner_loop"):
                assert re.findall(r"\d+", number) == re.findall(r"\d+", tag), (where, tag)


SOURCE = '''
class A:
    def f(self):
        """(eq. 41) in a docstring, l.5"""
        x = 1  # (eq. 41) and more
        # a comment between
        y = x | 2  # (eq. 41)
        return y  # h, l.5

def g():
    a = "`"  # l.2, one for each
    b = 2  # l.4-9
    c = 3  # l.4, U
'''


def test_tags_are_what_comments_behind_code_begin_with():
    (a, f), (b, g) = pseudocode.functions(SOURCE)
    assert (a, b) == ("A.f", "g")
    assert pseudocode.tagged(f) == {"(eq. 41)": ["x = 1", "y = x | 2"]}
    assert pseudocode.tagged(g) == {"l.2": ['a = "`"'], "l.4-9": ["b = 2"], "l.4, U": ["c = 3"]}
    with pytest.raises(ValueError, match="l.2 stands at two places"):
        pseudocode.tagged([*g, "    d = 4  # l.2"])


def test_cells_are_whole_in_markdown():
    assert pseudocode.cell("x | y") == r"`x \| y`"
    assert pseudocode.cell('a = "`"') == '``a = "`"``'
    for line in pseudocode.render().splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 5 and "  |" not in line


def test_the_code_shown_is_the_code():
    text, lines = (
        pseudocode.render(),
        [x for f in pseudocode.FILES for x in (ROOT / f).read_text("utf-8").splitlines()],
    )
    shown = [
        code
        for row in text.splitlines()
        if row.startswith("|")
        for code in re.findall("`([^`]+)`", row)[:-1]
    ]
    assert len(shown) >= sum(len(a.rows) for a in ALGORITHMS)
    for code in shown:
        assert any(line.strip().startswith(code.replace("\\|", "|") + "  # ") for line in lines), (
            code
        )


def test_the_readme_holds_what_the_generator_prints():
    if BEGIN in README:
        assert pseudocode.inserted(README, pseudocode.render()) == README, (
            "run python -m docs.pseudocode --write"
        )
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert pseudocode.inserted(page, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert pseudocode.inserted(pseudocode.inserted(page, "new"), "new") == pseudocode.inserted(
        page, "new"
    )
    for broken in ("", BEGIN, f"{END} {BEGIN}"):
        with pytest.raises(ValueError, match="needs a line"):
            pseudocode.inserted(broken, "new")


# --- Exercises ---
@pytest.mark.parametrize("number", range(1, len(EXERCISES) + 1))
def test_an_exercise_is_not_solved_until_it_is(number, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    exercise, copy, paths = EXERCISES[number - 1], tmp_path / "copy", list(sys.path)
    assert exercises.main([str(number), str(copy)]) == 0
    said = capsys.readouterr().out
    assert exercise.title in said and exercise.check.__name__ not in said
    changed = [
        path.name
        for path in exercises.program()
        if path.read_text("utf-8") != (copy / path.name).read_text("utf-8")
    ]
    assert changed == [exercise.file]
    assert exercises.main([str(number), str(copy), "--check"]) == 1
    assert capsys.readouterr().out.startswith("not yet: ")
    path = copy / exercise.file
    path.write_text(path.read_text("utf-8").replace(exercise.wrong, exercise.right), "utf-8")
    assert exercises.main([str(number), str(copy), "--check"]) == 0
    assert capsys.readouterr().out.startswith("found: ")
    assert not (copy / "__pycache__").exists()
    assert (sys.modules["metarl"], sys.path, sys.dont_write_bytecode) == (metarl, paths, False)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.title)
def test_the_place_is_a_secret_until_it_is_asked_for(exercise, capsys):
    number = str(EXERCISES.index(exercise) + 1)
    functions = dict(pseudocode.functions((ROOT / exercise.file).read_text("utf-8")))
    assert exercise.right.strip() in "\n".join(functions[exercise.function])
    assert not re.search(rf"\b{exercise.function.split('.')[-1]}\b", exercise.task + exercise.hint)
    assert exercises.main([number, "--hint"]) == 0
    assert " ".join(capsys.readouterr().out.split()) == " ".join(exercise.hint.split())
    assert exercises.main([number, "--solution"]) == 0
    out = capsys.readouterr().out
    assert exercise.function in out and exercise.right.rstrip() in out


FALSE_SOLUTIONS = {  # what a check must not take for right: number, what replaces the fault
    "the mean alone": (2, "        A = (A - moments(A, D.mask)[0]) * D.mask\n"),
    "the deviation alone": (2, "        A = A * D.mask / moments(A, D.mask)[1]\n"),
    "one noise for all tasks": (3, "return np.repeat(draw((1, *shape[1:])), shape[0], 0)"),
    "the sign of the term": (4, EXERCISES[3].right.replace("self.c_1,", "-self.c_1,")),
    "the sign of the loss": (5, EXERCISES[4].right.replace("loss - ", "loss + ")),
    "without the others": (5, EXERCISES[4].right.replace(" - others", "")),
    "steps after the end": (5, EXERCISES[4].right.replace(" * D.mask", "")),
}


@pytest.mark.parametrize("name", FALSE_SOLUTIONS)
def test_a_false_solution_is_not_taken_for_right(name, tmp_path):
    number, text = FALSE_SOLUTIONS[name]
    exercise = EXERCISES[number - 1]
    assert text != exercise.right
    exercises.write(exercise, tmp_path)
    path = tmp_path / exercise.file
    path.write_text(path.read_text("utf-8").replace(exercise.wrong, text), "utf-8")
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
    exercises.write(EXERCISES[0], tmp_path)
    (tmp_path / "metarl.py").write_text("def broken(:")
    assert exercises.verdict(EXERCISES[0], tmp_path).startswith("SyntaxError")
    assert "no metarl.py" in exercises.verdict(EXERCISES[0], tmp_path / "elsewhere")


def test_exercises_are_listed(capsys):
    assert exercises.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{i}  {e.title}" for i, e in enumerate(EXERCISES, 1)
    ]


# --- The README's commands ---
COMMAND = re.compile(
    r"python3? +(metarl\.py|-m +(?:benchmarks|docs|golden|tests)(?:\.\w+)*)([^`\n#&|;]*)"
)


def commands(text):
    """(program, [arguments]) of each command line in the text; N stands for a number, NAME for a name."""
    text = re.sub(r"(?<!`)`[^`]+`(?!`)", lambda span: span[0].replace("\n", " "), text)
    for program, arguments in COMMAND.findall(text):
        words = ["2" if word == "N" else word for word in shlex.split(arguments)]
        if not program.endswith(".NAME"):
            yield (
                program.split()[-1],
                tuple(words + ["maml"] * (words[-1:] == ["--algo"])),
            )  # the head of a table


class Parsed(Exception):
    """Carries what an ArgumentParser made of its arguments."""


@pytest.fixture
def only_parse(monkeypatch):
    """Ends a program where it has parsed its command line; a bad one ends it with SystemExit or cli.Stop."""
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
    """Its argparse accepts the arguments; where it cannot be imported for want of a package, its text has the options."""
    path = ROOT / name.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert path.exists(), f"python -m {name}"
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        module = importlib.import_module(f"{name}.__main__" if path.name == "__main__.py" else name)
    except (
        ImportError
    ) as error:  # of a package, or of the module itself, which says what to install
        assert "pip install" in str(error) or not (ROOT / f"{error.name}.py").exists(), error
        assert all(
            f'"{word}"' in path.read_text("utf-8") for word in arguments if word.startswith("--")
        )
        return
    with pytest.raises(Parsed):
        module.main()


@pytest.mark.parametrize("program, arguments", sorted(set(commands(README))), ids=str)
def test_a_command_of_the_readme_is_understood(program, arguments, only_parse, monkeypatch):
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
    text = "`python\tmetarl.py`, `.venv/bin/python metarl.py --algo\nreptile` | python -m benchmarks.NAME"
    assert list(commands(text)) == [("metarl.py", ("--algo", "reptile"))]
    text = "```\npython metarl.py --seed N  # why\npython -m golden --check && ls\n```"
    assert list(commands(text)) == [("metarl.py", ("--seed", "2")), ("golden", ("--check",))]


# --- The README's links ---
def links(text):
    text = re.sub(r"`[^`\n]*`", "", text)  # code may hold what looks like a link
    return re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(
        r'(?:src|href|srcset)="([^"\s]+)', text
    )


def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_links_of_the_readme_lead_somewhere():
    headings = {slug(heading) for heading in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}
    for link in links(README):
        path, _, anchor = link.partition("#")
        if not re.match(r"[a-z]+:", link):
            assert not path or (ROOT / path).exists(), link
            assert path or anchor in headings, link
    assert links('[a](b.md "t") ![c](d/e.svg) <img src="f.png">') == ["b.md", "d/e.svg", "f.png"]
    assert slug("Is it meta-learning, that adapts?") == "is-it-meta-learning-that-adapts"
