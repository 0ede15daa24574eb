"""Pseudo-code and code side by side, from the line tags in the modules.

    python -m docs.pseudocode            print the tables, in Markdown
    python -m docs.pseudocode --write    put them into README.md, between its two marker comments

A tag is what a comment behind a line of code begins with: lines of a pseudo-code, `# l.5` or `# l.4-9`, parts of one
told apart by a letter, `# l.4, U`; or numbers of equations, `# (eq. 41)`. It marks that line of its function, or
consecutive lines that all carry it. The pseudo-code is written here; the code is read from the files, so that it
cannot go stale.
"""

import argparse
import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FILES = ("metarl.py", "es.py")
TAG = re.compile(
    r"\s*(?P<code>[^\s#].*?)\s+# (?P<tag>l\.\d+(?:-\d+)?(?:, \w)?(?!\w)|\(eqs?\. [\d, ]+\))"
)
BEGIN, END = "<!-- pseudo-code: begin -->", "<!-- pseudo-code: end -->"


class Algorithm(NamedTuple):
    title: str
    source: str
    column: str  # what the first column counts: lines or equations
    rows: tuple  # (number in the source, pseudo-code, file and function, tag)


MAML = (
    ("1", "initialise θ at random", "metarl.initial_state", "l.1"),
    ("2", "repeat until done:", "metarl.train", "l.2"),
    ("3", "sample a batch of tasks Tᵢ ∼ p(T)", "metarl.maml", "l.3"),
    ("4–9", "for every task Tᵢ:", "metarl.maml", "l.4-9"),
    ("4–7", "adapt θ to Tᵢ", "metarl.lifetime", "l.4-7"),
    ("5", "D ← K trajectories in Tᵢ, acting by θ", "metarl.inner_loop", "l.5"),
    ("6", "g ← ∇L(θ), estimated from D", "metarl.inner_loop", "l.6"),
    ("7", "θ′ᵢ ← θ − α g", "metarl.inner_loop", "l.7"),
    ("8", "D′ᵢ ← trajectories in Tᵢ, acting by θ′ᵢ", "metarl.lifetime", "l.8"),
    ("10", "L(θ′ᵢ), estimated from D′ᵢ", "metarl.meta_loss", "l.10"),
    ("10", "its gradient by θ, through θ′ᵢ = θ − α ∇L(θ)", "metarl.meta_gradient", "l.10"),
    ("10", "a step by SGD or Adam against the mean over all tasks", "metarl.maml", "l.10"),
    ("10", "θ ← θ − β ∇ Σᵢ L(θ′ᵢ)", "metarl.descend", "l.10"),
)
REPTILE = (
    ("1", "initialise φ", "metarl.initial_state", "l.1"),
    ("2", "for iteration = 1, 2, …:", "metarl.train", "l.2"),
    ("3", "sample a task τ (here a batch of them)", "metarl.reptile", "l.3"),
    ("4", "φₖ ← U(φ): k steps on the loss L of τ", "metarl.reptile", "l.4"),
    ("4", "in each of them φ ← φ − α ∇L(φ), or Adam's step", "metarl.inner_loop", "l.7"),
    ("5", "φ ← φ + ε (φₖ − φ)", "metarl.reptile", "l.5"),
)
ES_MAML = (
    ("1", "for t = 0, 1, …:", "metarl.train", "l.2"),
    ("2", "sample directions g₁, …, gₙ ∼ N(0, I)", "es.OpenAIES.ask", "l.3"),
    ("2", "which give the points θ + σ gᵢ", "es.OpenAIES.ask", "l.4"),
    ("2", "with them, sample tasks T₁, …, Tₙ", "metarl.es_maml", "l.2"),
    ("3–5", "for every (Tᵢ, gᵢ):", "metarl.es_maml", "l.3-5"),
    ("4", "θ′ ← U(θ + σ gᵢ, Tᵢ), step by step", "metarl.fitness", "l.4, U"),
    ("4", "vᵢ ← f(θ′) in Tᵢ", "metarl.fitness", "l.4, f"),
    ("6", "move θ by what the points are worth", "metarl.es_maml", "l.6"),
    ("6", "the gradient 1/(σ n) Σᵢ vᵢ gᵢ", "es.OpenAIES.gradient", "l.5"),
    ("6", "θ ← θ + β/(σ n) Σᵢ vᵢ gᵢ", "es.OpenAIES.tell", "l.5"),
)
CMA_ES = (
    ("49", "w′ᵢ = ln((λ + 1)/2) − ln i, i = 1, …, λ", "es.CMAES.__init__", "(eq. 49)"),
    (
        "8",
        "μ_eff = (Σ w′ᵢ)² / Σ w′ᵢ² over i ≤ μ, μ_eff⁻ over i > μ",
        "es.CMAES.__init__",
        "(eq. 8)",
    ),
    ("57", "c₁ = 2/((n + 1.3)² + μ_eff)", "es.CMAES.__init__", "(eq. 57)"),
    (
        "58",
        "c_μ = min(1 − c₁, 2 (1/4 + μ_eff + 1/μ_eff − 2)/((n + 2)² + μ_eff))",
        "es.CMAES.__init__",
        "(eq. 58)",
    ),
    (
        "50, 51",
        "α = min(1 + c₁/c_μ, 1 + 2 μ_eff⁻/(μ_eff + 2), …",
        "es.CMAES.__init__",
        "(eqs. 50, 51)",
    ),
    ("52", "…, (1 − c₁ − c_μ)/(n c_μ))", "es.CMAES.__init__", "(eq. 52)"),
    (
        "53",
        "wᵢ = w′ᵢ/Σ (w′ⱼ ≥ 0), or α w′ᵢ/Σ (−w′ⱼ > 0), by the sign of w′ᵢ",
        "es.CMAES.__init__",
        "(eq. 53)",
    ),
    ("54", "c_m = 1", "es.CMAES.__init__", "(eq. 54)"),
    (
        "55",
        "c_σ = (μ_eff + 2)/(n + μ_eff + 5), d_σ = 1 + 2 max(0, √((μ_eff − 1)/(n + 1)) − 1) + c_σ",
        "es.CMAES.__init__",
        "(eq. 55)",
    ),
    ("56", "c_c = (4 + μ_eff/n)/(n + 4 + 2 μ_eff/n)", "es.CMAES.__init__", "(eq. 56)"),
    ("38", "zᵢ ∼ N(0, I)", "es.CMAES.ask", "(eq. 38)"),
    ("39", "yᵢ = B D zᵢ ∼ N(0, C)", "es.CMAES.ask", "(eq. 39)"),
    ("40", "xᵢ = m + σ yᵢ", "es.CMAES.ask", "(eq. 40)"),
    ("41", "y_w = Σ wᵢ yᵢ over i ≤ μ, y₁ of the best x", "es.CMAES.tell", "(eq. 41)"),
    ("42", "m ← m + c_m σ y_w", "es.CMAES.tell", "(eq. 42)"),
    (
        "43",
        "p_σ ← (1 − c_σ) p_σ + √(c_σ (2 − c_σ) μ_eff) C^(−1/2) y_w",
        "es.CMAES.tell",
        "(eq. 43)",
    ),
    ("44", "σ ← σ exp(c_σ/d_σ (‖p_σ‖/E‖N(0, I)‖ − 1))", "es.CMAES.tell", "(eq. 44)"),
    (
        "45",
        "p_c ← (1 − c_c) p_c + h_σ √(c_c (2 − c_c) μ_eff) y_w; h_σ = 0 while p_σ is long, else 1",
        "es.CMAES.tell",
        "(eq. 45)",
    ),
    ("46", "w°ᵢ = wᵢ if wᵢ ≥ 0, else wᵢ n/‖C^(−1/2) yᵢ‖²", "es.CMAES.tell", "(eq. 46)"),
    (
        "47",
        "C ← (1 + c₁ (1 − h_σ) c_c (2 − c_c) − c₁ − c_μ Σ wᵢ) C + c₁ p_c p_cᵀ + c_μ Σ w°ᵢ yᵢ yᵢᵀ",
        "es.CMAES.tell",
        "(eq. 47)",
    ),
)
ALGORITHMS = (
    Algorithm(
        "MAML for RL",
        "Finn et al. 2017, Algorithm 3. p(T): the distribution of tasks; α, β: step sizes; L: minus the return.",
        "line",
        MAML,
    ),
    Algorithm(
        "Reptile",
        "Nichol et al. 2018, Algorithm 1, its lines counted from the initialisation. ε: the outer step.",
        "line",
        REPTILE,
    ),
    Algorithm(
        "ES-MAML",
        "Song et al. 2020, zero-order. σ: a standard deviation; f: the return; U: the inner loop. Here directions come in "
        "pairs, g and −g for the same task, and `es.OpenAIES` minimises −v.",
        "line",
        ES_MAML,
    ),
    Algorithm(
        "CMA-ES",
        "Hansen's tutorial, arXiv 1604.00772v2: the parameters, then the loop. n: the dimension; λ: points in a "
        "generation, μ half of them; B, D²: eigenvectors and eigenvalues of C.",
        "equation",
        CMA_ES,
    ),
)


# --- From the files to tables ---
def functions(text):
    """For each function in the source text its name, with that of its class, and the lines of its body."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        for f in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(f, ast.FunctionDef):
                prefix = f"{node.name}." if f is not node else ""
                yield prefix + f.name, lines[f.lineno - 1 : f.end_lineno]


def tagged(lines):
    """What the tags of a function mark: {tag: [lines of code]}. ValueError for a tag at two places."""
    marked, last = {}, None
    for line in lines:
        if line.lstrip().startswith("#"):
            continue
        match = TAG.match(line)
        tag = match and match["tag"]
        if tag and tag != last and tag in marked:
            raise ValueError(f"tag {tag} stands at two places: {line.strip()}")
        if tag:
            marked.setdefault(tag, []).append(match["code"])
        last = tag
    return marked


def places():
    """All that is tagged: {(file and function, tag): [lines of code]}."""
    found = {}
    for file in FILES:
        for name, lines in functions((ROOT / file).read_text(encoding="utf-8")):
            where = f"{file.removesuffix('.py')}.{name}"
            found |= {(where, tag): code for tag, code in tagged(lines).items()}
    return found


def cell(line):
    """A line of code as a cell of a table in GitHub's Markdown."""
    fence = "``" if "`" in line else "`"
    return f"{fence}{line}{fence}".replace("|", "\\|")


def table(algorithm, found):
    rows = [f"| {algorithm.column} | pseudo-code | code | where |", "|---|---|---|---|"]
    for number, pseudo, where, tag in algorithm.rows:
        file, _, function = where.partition(".")
        code = "<br>".join(map(cell, found[where, tag]))
        rows.append(f"| {number} | {pseudo} | {code} | [{file}.py]({file}.py), `{function}` |")
    return "\n".join([f"### {algorithm.title}", "", algorithm.source, "", *rows])


def render():
    """The tables of all algorithms in Markdown."""
    found = places()
    return "\n\n".join(table(algorithm, found) for algorithm in ALGORITHMS)


def inserted(readme, text):
    """The README with the text between its marker comments; ValueError where they are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md: needs a line {BEGIN} and, after it, a line {END}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def parser():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--write", action="store_true", help="put the tables into README.md")
    return p


def main(argv=None):
    if not parser().parse_args(argv).write:
        print(render())
        return 0
    path = ROOT / "README.md"
    try:
        text = inserted(path.read_text(encoding="utf-8"), render())
    except ValueError as error:
        raise SystemExit(str(error)) from None
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
