"""Pseudo-code and code side by side, from the tags in the modules.

    python -m docs.pseudocode            print the page, in Markdown
    python -m docs.pseudocode --write    write it to docs/pseudo-code.md
    python -m docs.pseudocode --check    what is wrong with the tags, if anything: exit status 1

A tag is what the comment behind a statement begins with: an algorithm and lines of its
pseudo-code, `# MAML l.5` or `# MAML l.4-9`; several of these where algorithms share the
statement, `# MAML l.7, Reptile l.4`; or numbers of equations, `# (eq. 41)`. Words may follow. A
tag stands on the first or the last line of its statement and marks that statement alone, of a
loop or an `if` its head. Statements of a function that carry one tag belong together, so that no
other tag of the same algorithm stands between them.

The pseudo-code is written below, and the place of each of its lines; the code is read from the
files, so that the page cannot go stale. Nothing here knows the wording of the code.
"""

import argparse
import ast
import copy
import io
import itertools
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "pseudo-code.md"
FILES = ("metarl.py", "es.py")
LABELS = ("MAML", "Reptile", "ES-MAML", "OpenAI-ES")  # what a tag with `l.` may begin with
LINE = re.compile(rf"({'|'.join(LABELS)}) l\.(\d+(?:-\d+)?)(?!\w)")
EQUATION = re.compile(r"\(eqs?\. [\d, ]+\)")
NAMELESS = re.compile(r"l\.\d+(-\d+)?")  # whose lines? `problems` will ask


# --- What the page says ---
class Row(NamedTuple):
    number: str  # in the source
    pseudo: str  # what the source has there
    where: str  # function that carries the tag; for equations the module
    tag: str


class Algorithm(NamedTuple):
    title: str
    source: str
    column: str  # what the first column counts: lines or equations
    rows: tuple


def equations(*rows):
    """Rows whose tag is their number, somewhere in es.py."""
    tag = lambda number: f"(eqs. {number})" if "," in number else f"(eq. {number})"
    return tuple(Row(number, pseudo, "es", tag(number)) for number, pseudo in rows)


MAML = Algorithm(
    "MAML for RL",
    "Finn et al. 2017, Algorithm 3. p(T): the distribution of tasks; α, β: step sizes; "
    "L: minus the return.",
    "line",
    (
        Row("1", "initialise θ at random", "metarl.initial_state", "MAML l.1"),
        Row("2", "repeat until done:", "metarl.train", "MAML l.2"),
        Row("3", "sample a batch of tasks Tᵢ ∼ p(T)", "metarl.maml", "MAML l.3"),
        Row("4–9", "for every task Tᵢ:", "metarl.maml", "MAML l.4-9"),
        Row("4–7", "adapt θ to Tᵢ", "metarl.meta_loss", "MAML l.4-7"),
        Row("5", "D ← K trajectories in Tᵢ, acting by θ", "metarl.adapt", "MAML l.5"),
        Row("6", "g ← ∇L(θ), estimated from D", "metarl.adapt", "MAML l.6"),
        Row("7", "θ′ᵢ ← θ − α g", "metarl.adapt", "MAML l.7"),
        Row("8", "D′ᵢ ← trajectories in Tᵢ, acting by θ′ᵢ", "metarl.meta_loss", "MAML l.8"),
        Row("10", "L(θ′ᵢ), estimated from D′ᵢ", "metarl.meta_loss", "MAML l.10"),
        Row(
            "10",
            "its gradient by θ, through θ′ᵢ = θ − α ∇L(θ)",
            "metarl.meta_gradient",
            "MAML l.10",
        ),
        Row(
            "10",
            "a step by SGD or Adam against the mean over all tasks",
            "metarl.maml",
            "MAML l.10",
        ),
        Row("10", "θ ← θ − β ∇ Σᵢ L(θ′ᵢ)", "metarl.descend", "MAML l.10"),
    ),
)
REPTILE = Algorithm(
    "Reptile",
    "Nichol et al. 2018, Algorithm 1, its lines counted from the initialisation. "
    "ε: the outer step.",
    "line",
    (
        Row("1", "initialise φ", "metarl.initial_state", "Reptile l.1"),
        Row("2", "for iteration = 1, 2, …:", "metarl.train", "Reptile l.2"),
        Row("3", "sample a task τ (here a batch of them)", "metarl.reptile", "Reptile l.3"),
        Row("4", "φₖ ← U(φ): k steps on the loss L of τ", "metarl.reptile", "Reptile l.4"),
        Row(
            "4",
            "in each of them φ ← φ − α ∇L(φ), or Adam's step",
            "metarl.adapt",
            "Reptile l.4",
        ),
        Row("5", "φ ← φ + ε (φₖ − φ)", "metarl.reptile", "Reptile l.5"),
    ),
)
ES_MAML = Algorithm(
    "ES-MAML",
    "Song et al. 2020, zero-order. σ: a standard deviation; f: the return; U: the inner loop. "
    "Here directions come in pairs, g and −g for the same task, and `es.OpenAIES` minimises −v.",
    "line",
    (
        Row("1", "for t = 0, 1, …:", "metarl.train", "ES-MAML l.1"),
        Row("2", "sample tasks T₁, …, Tₙ", "metarl.es_maml", "ES-MAML l.2"),
        Row(
            "2",
            "and directions g₁, …, gₙ ∼ N(0, I), for the points θ + σ gᵢ",
            "metarl.pairs",
            "ES-MAML l.2",
        ),
        Row("3–5", "for every (Tᵢ, gᵢ):", "metarl.es_maml", "ES-MAML l.3-5"),
        Row(
            "4",
            "θ′ ← U(θ + σ gᵢ, Tᵢ), step by step; then vᵢ ← f(θ′) in Tᵢ",
            "metarl.fitness",
            "ES-MAML l.4",
        ),
        Row("6", "move θ by what the points are worth", "metarl.es_maml", "ES-MAML l.6"),
        Row("6", "the gradient 1/(σ n) Σᵢ vᵢ gᵢ", "es.OpenAIES.gradient", "ES-MAML l.6"),
        Row("6", "θ ← θ + β/(σ n) Σᵢ vᵢ gᵢ", "es.OpenAIES.tell", "ES-MAML l.6"),
    ),
)
OPENAI_ES = Algorithm(
    "OpenAI-ES",
    "Salimans et al. 2017, Algorithm 1, from its third line; it maximises F, `es.OpenAIES` "
    "minimises f. α: the learning rate. Between its lines 4 and 5 stands the caller's evaluation.",
    "line",
    (
        Row("3", "sample ε₁, …, εₙ ∼ N(0, I)", "es.OpenAIES.ask", "OpenAI-ES l.3"),
        Row("4", "the points θ + σ εᵢ, whose returns Fᵢ", "es.OpenAIES.ask", "OpenAI-ES l.4"),
        Row("5", "give 1/(n σ) Σᵢ Fᵢ εᵢ", "es.OpenAIES.gradient", "OpenAI-ES l.5"),
        Row("5", "θ ← θ + α/(n σ) Σᵢ Fᵢ εᵢ", "es.OpenAIES.tell", "OpenAI-ES l.5"),
    ),
)
CMA_ES = Algorithm(
    "CMA-ES",
    "Hansen's tutorial, arXiv 1604.00772v2: the parameters, then the loop. n: the dimension; "
    "λ: points in a generation, μ half of them; B, D²: eigenvectors and eigenvalues of C.",
    "equation",
    equations(
        ("49", "w′ᵢ = ln((λ + 1)/2) − ln i, i = 1, …, λ"),
        ("8", "μ_eff = (Σ w′ᵢ)² / Σ w′ᵢ² over i ≤ μ, μ_eff⁻ over i > μ"),
        ("57", "c₁ = 2/((n + 1.3)² + μ_eff)"),
        ("58", "c_μ = min(1 − c₁, 2 (1/4 + μ_eff + 1/μ_eff − 2)/((n + 2)² + μ_eff))"),
        ("50, 51", "α = min(1 + c₁/c_μ, 1 + 2 μ_eff⁻/(μ_eff + 2), …"),
        ("52", "…, (1 − c₁ − c_μ)/(n c_μ))"),
        ("53", "wᵢ = w′ᵢ/Σ (w′ⱼ ≥ 0), or α w′ᵢ/Σ (−w′ⱼ > 0), by the sign of w′ᵢ"),
        ("54", "c_m = 1"),
        (
            "55",
            (
                "c_σ = (μ_eff + 2)/(n + μ_eff + 5),"
                "d_σ = 1 + 2 max(0, √((μ_eff − 1)/(n + 1)) − 1) + c_σ"
            ),
        ),
        ("56", "c_c = (4 + μ_eff/n)/(n + 4 + 2 μ_eff/n)"),
        ("38", "zᵢ ∼ N(0, I)"),
        ("39", "yᵢ = B D zᵢ ∼ N(0, C)"),
        ("40", "xᵢ = m + σ yᵢ"),
        ("41", "y_w = Σ wᵢ yᵢ over i ≤ μ, y₁ of the best x"),
        ("42", "m ← m + c_m σ y_w"),
        ("43", "p_σ ← (1 − c_σ) p_σ + √(c_σ (2 − c_σ) μ_eff) C^(−1/2) y_w"),
        ("44", "σ ← σ exp(c_σ/d_σ (‖p_σ‖/E‖N(0, I)‖ − 1))"),
        (
            "45",
            (
                "p_c ← (1 − c_c) p_c + h_σ √(c_c (2 − c_c) μ_eff) y_w;"
                "h_σ = 0 while p_σ is long, else 1"
            ),
        ),
        ("46", "w°ᵢ = wᵢ if wᵢ ≥ 0, else wᵢ n/‖C^(−1/2) yᵢ‖²"),
        (
            "47",
            (
                "C ← (1 + c₁ (1 − h_σ) c_c (2 − c_c) − c₁ − c_μ Σ wᵢ) C"
                "+ c₁ p_c p_cᵀ + c_μ Σ w°ᵢ yᵢ yᵢᵀ"
            ),
        ),
    ),
)
ALGORITHMS = (MAML, REPTILE, ES_MAML, OPENAI_ES, CMA_ES)
HEADER = """# Pseudo-code and code, side by side

For whoever reads a paper and wants to see each of its lines as code, or the other way round. The
tables are written by `python -m docs.pseudocode --write` from the tags behind the statements
(`# MAML l.5`, `# (eq. 41)`), and a test holds this page to them. Where the code departs from the
papers, [departures](departures.md) says why; what it is worth, [results](results.md). Back to the
[README](../README.md)."""


# --- From the files to tags ---
class Mark(NamedTuple):
    where: str  # module.function or module.Class.method
    tag: str
    line: int
    code: str  # the statement, as one line


def tags(comment):
    """The tags with which a comment begins, `comment` being what follows its `#`."""
    text, found = comment.strip(), []
    match = EQUATION.match(text) or NAMELESS.match(text)
    if match:
        return [match[0]]
    match = LINE.match(text)
    while match:
        found.append(f"{match[1]} l.{match[2]}")
        text = text[match.end() :].removeprefix(", ")
        match = LINE.match(text)
    return found


def comments(text):
    """{line: (column, what follows the #)} of the comments behind code."""
    found, lines = {}, text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and lines[row - 1][:column].strip():
            found[row] = column, token.string[1:]
    return found


def functions(tree):
    """Each function of a module and each method of its classes, as (name, node)."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for f in node.body:
                if isinstance(f, ast.FunctionDef):
                    yield f"{node.name}.{f.name}", f


def last_line(statement):
    """The last line of a statement; of one with a body the last line of its head."""
    body = getattr(statement, "body", None)
    if not body:
        return statement.end_lineno
    heads = [x for x in ast.iter_child_nodes(statement) if not isinstance(x, ast.stmt)]
    nodes = [x for head in heads for x in ast.walk(head)]
    return max([statement.lineno, *(getattr(x, "end_lineno", 0) for x in nodes)])


def one_line(statement):
    """A statement, or the head of one with a body, in one line."""
    if hasattr(statement, "body"):
        statement = copy.copy(statement)
        statement.body, statement.orelse = [ast.Pass()], []
        return ast.unparse(statement).rpartition("\n")[0]
    code = ast.unparse(statement)
    return code if '"' in code else code.replace("'", '"')


def statement_at(function, line):
    """The innermost statement that begins on the line or (its head) ends there; else None."""
    found = [x for x in ast.walk(function) if isinstance(x, ast.stmt) and x is not function]
    found = [x for x in found if line in (x.lineno, last_line(x))]
    return min(found, key=lambda x: last_line(x) - x.lineno, default=None)


def marks(text, module):
    """Every tag in the text of a module, in order: [Mark]. ValueError for one out of place."""
    lines, behind = text.splitlines(), comments(text)
    found, placed = [], set()
    for name, function in functions(ast.parse(text)):
        for line in range(function.lineno, function.end_lineno + 1):
            column, comment = behind.get(line, (0, ""))
            for tag in tags(comment):
                statement = statement_at(function, line)
                if statement is None:
                    raise ValueError(f"{module}.py, line {line}: {tag} is inside a statement")
                whole = statement.lineno == last_line(statement)
                code = lines[line - 1][:column].strip() if whole else one_line(statement)
                found.append(Mark(f"{module}.{name}", tag, line, code))
                placed.add(line)
    for line in behind.keys() - placed:
        if tags(behind[line][1]):
            raise ValueError(f"{module}.py, line {line}: a tag outside of functions")
    return found


def all_marks():
    """The Marks of all files."""
    return [
        mark
        for file in FILES
        for mark in marks((ROOT / file).read_text(encoding="utf-8"), file.removesuffix(".py"))
    ]


# --- From tags to tables ---
def label(tag):
    """Whose lines a tag counts: an algorithm's or, "", those of equations."""
    return "" if tag.startswith("(") else tag.partition(" ")[0]


def at(row, mark):
    """Whether a Mark is the place of a Row."""
    inside = mark.where == row.where or mark.where.startswith(f"{row.where}.")
    return inside and mark.tag == row.tag


def problems(found):
    """What is wrong with the Marks: tags missing, unknown, at two places or out of order."""
    rows = [row for algorithm in ALGORITHMS for row in algorithm.rows]
    wrong = []
    for row in rows:
        if not any(at(row, mark) for mark in found):
            wrong.append(f"{row.where}: `# {row.tag}` is missing ({row.pseudo})")
    for mark in found:
        if not any(at(row, mark) for row in rows):
            wrong.append(f"{mark.where}, line {mark.line}: `# {mark.tag}` is no line of the tables")
    for where, name in sorted({(row.where, label(row.tag)) for row in rows}):
        expected = [row.tag for row in rows if (row.where, label(row.tag)) == (where, name)]
        here = [mark for mark in found if any(at(row, mark) for row in rows if row.where == where)]
        here = [mark for mark in here if label(mark.tag) == name]
        order = [tag for (_, tag), _ in itertools.groupby((m.where, m.tag) for m in here)]
        for tag in sorted({tag for tag in order if order.count(tag) > 1}):
            wrong.append(f"{where}: `# {tag}` stands at two places")
        if len(set(order)) == len(order) and order != [tag for tag in expected if tag in order]:
            wrong.append(f"{where}: the tags stand in the order {', '.join(order)}")
    return wrong


def cell(line):
    """A line of code as a cell of a table in GitHub's Markdown."""
    fence = "``" if "`" in line else "`"
    return f"{fence}{line}{fence}".replace("|", "\\|")


def table(algorithm, found):
    lines = [f"| {algorithm.column} | pseudo-code | code | where |", "|---|---|---|---|"]
    for row in algorithm.rows:
        here = [mark for mark in found if at(row, mark)]
        code = "<br>".join(cell(mark.code) for mark in here)
        file, _, function = here[0].where.partition(".")
        where = f"[{file}.py](../{file}.py), `{function}`"
        lines.append(f"| {row.number} | {row.pseudo} | {code} | {where} |")
    return "\n".join([f"## {algorithm.title}", "", algorithm.source, "", *lines])


def render(found):
    """The page in Markdown. ValueError where `problems` finds any."""
    wrong = problems(found)
    if wrong:
        raise ValueError("\n".join(wrong))
    return "\n\n".join([HEADER, *(table(algorithm, found) for algorithm in ALGORITHMS)]) + "\n"


# --- The command line ---
def parser():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="write docs/pseudo-code.md")
    what.add_argument("--check", action="store_true", help="only say what is wrong with the tags")
    return p


def main(argv=None):
    given = parser().parse_args(argv)
    try:
        page = render(all_marks())
    except ValueError as error:
        raise SystemExit(str(error)) from None
    if given.write:
        PAGE.write_text(page, encoding="utf-8")
    elif not given.check:
        print(page, end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
