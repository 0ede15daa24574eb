"""What the chapters share: the command line, seeds side by side, tables over seeds, and claims.

A chapter is one file that `python -m chapters.NAME` runs. It has

    Options                    a small frozen dataclass, one for a whole run and one for --quick
    run(options, seed)         -> rows, picture: {row: {column: number}}, and what is to be drawn
    report(rows)               -> text: the tables, out of {row: {column: numbers (seeds,)}}
    claims(rows)               -> the Claims that it says it reproduces, judged on these seeds
    draw(figure, picture)      the picture of the first seed, on a figure of matplotlib
    flags                      options of its own, if it has any: {field of Options: help}

and `main` does the rest. Read `main`, then what it calls, in this order.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import metarl
from harness.checkpoints import Stop
from harness.results import interval
from harness.terminal import say, show
from harness.workers import cores, workers

SEEDS = 5  # in a run without options
QUICK_SEEDS = 2

# The end of a chapter's header, from these words on, is printed too: what does not hold, and what
# was made smaller than in the paper.
PLAINLY = "Said plainly: "

# Noise that is a chapter's own has the address (seed, OWN, ...): metarl.py uses 0, 1 and 2.
OWN = 3

NO_FLAGS = {}


class Chapter(NamedTuple):
    """What is listed above, with the name of the chapter and the header of its file, for --help.

    Each of the flags is a `--name` on the command line, which makes that field of Options True.
    """

    name: str
    doc: str
    full: object  # Options
    quick: object
    run: Callable
    report: Callable
    claims: Callable
    draw: Callable
    flags: dict = NO_FLAGS


def main(chapter, argv=None):
    """Run a chapter as its command line (sys.argv by default) says, and return the exit status.

    2 for bad input, 3 where a number is not finite, 130 after Ctrl-C, each with one line on
    standard error.
    """
    try:
        a = arguments(chapter.doc, chapter.flags, argv)
        options = chapter.quick if a.quick else chapter.full
        for name in chapter.flags:
            if getattr(a, name):
                options = replace(options, **{name: True})
        seeds = range(a.first_seed, a.first_seed + a.seeds)
        results = side_by_side(chapter.run, [(options, seed) for seed in seeds])
        rows = over_seeds([rows for rows, _ in results])
        if a.plot:
            _, picture = results[0]
            save(chapter, picture, a.plot)
        show(as_json(chapter, rows) if a.json else as_text(chapter, rows, seeds, a.quick))
        return 0
    except Stop as stop:
        status = stop.status
        line = str(stop)
    except KeyboardInterrupt:
        status = 130
        line = "interrupted"
    except OSError as error:  # no place for a picture, no processes
        status = 2
        line = str(error)
    say(" ".join(line.split()))
    return status


# --- The command line ---
class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Stop(2, message)


def arguments(doc, flags, argv):
    """The options that all chapters have, and the chapter's flags; Stop for what is not allowed."""
    p = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, metavar="N", help=f"how many (default: {SEEDS})")
    p.add_argument("--first-seed", type=int, default=0, metavar="S", help="the others follow it")
    p.add_argument("--quick", action="store_true", help="ten seconds, too short for the claims")
    p.add_argument("--plot", type=Path, metavar="DIR", help="draw a picture into it, as SVG")
    p.add_argument("--json", action="store_true", help="print rows and claims as JSON")
    for name, text in flags.items():
        p.add_argument(f"--{name}", action="store_true", help=text)
    a = p.parse_args(argv)
    if a.seeds is None:
        a.seeds = QUICK_SEEDS if a.quick else SEEDS
    if a.seeds < 1:
        raise Stop(2, f"--seeds {a.seeds}: must be at least 1")
    if a.first_seed < 0:
        raise Stop(2, f"--first-seed {a.first_seed}: must be at least 0")
    if a.plot:
        prepare_plot(a.plot)
    return a


def prepare_plot(directory):
    """Stop where no picture could be drawn: now, not after two minutes."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(2, f"--plot {directory}: {error.strerror}") from None
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Stop(2, "--plot: needs matplotlib: pip install matplotlib") from None


# --- Training ---
def meta_train(c, state=None):
    """The state of metarl.train after c.iterations, from `state` or from the beginning."""
    if state is None:
        state = metarl.initial_state(c)
    states = metarl.train(c, state)
    for _ in range(c.iterations):
        state = next(states)
    return state


# --- Seeds ---
def side_by_side(f, jobs):
    """[f(*job) for each of the jobs], in as many processes as there are cores."""
    with workers(min(cores(), len(jobs))) as map:
        return map(f, *zip(*jobs, strict=True))


def over_seeds(results):
    """From rows {row: {column: number}} of each seed to {row: {column: numbers (seeds,)}}.

    Stop for a number that is not finite.
    """
    rows = {}
    for row, columns in results[0].items():
        rows[row] = {column: np.array([r[row][column] for r in results]) for column in columns}
        for column, numbers in rows[row].items():
            if not np.isfinite(numbers).all():
                raise Stop(3, f"{row}, {column}: {numbers}: not finite")
    return rows


# --- Tables ---
def table(rows, names, columns, digits=2, heading=""):
    """The rows with these names as text, a line each: in each column the mean over seeds ± half
    the width of its 95 % interval.
    """
    first = max(len(text) for text in (heading, *names))
    lines = [f"{heading:{first}}" + in_columns(columns)]
    for name in names:
        cells = [cell(rows[name][column], digits) for column in columns]
        lines.append(f"{name:{first}}" + in_columns(cells))
    return "\n".join(lines) + "\n"


def cell(numbers, digits=2):
    """Mean ± half width of numbers (seeds,), as text; of a single seed the number alone."""
    both = interval(numbers)
    if len(numbers) == 1:
        return f"{both['mean']:.{digits}f}"
    return f"{both['mean']:.{digits}f} ± {both['ci95']:.{digits}f}"


def in_columns(texts, width=16):
    return "".join(f"{text:>{width}}" for text in texts)


def difference(rows, name, other):
    """The row `name` minus the row `other`, seed by seed, in the columns that both have."""
    both = [column for column in rows[name] if column in rows[other]]
    return {column: rows[name][column] - rows[other][column] for column in both}


# --- Claims ---
EACH = "in every seed"
MEAN = "in the mean"


class Claim(NamedTuple):
    """What a chapter says it reproduces, and what these seeds say to it.

    The bounds were set beforehand, by a trial.
    """

    claim: str
    must: str
    measured: float
    holds: bool


def above(claim, bound, numbers, where=MEAN):
    """The Claim that numbers (seeds,) are above the bound: their mean, or each of them."""
    measured = {MEAN: np.mean, EACH: np.min}[where](numbers)
    return Claim(claim, f"above {bound:g} {where}", float(measured), bool(measured > bound))


def below(claim, bound, numbers, where=MEAN):
    """The same for below."""
    measured = {MEAN: np.mean, EACH: np.max}[where](numbers)
    return Claim(claim, f"below {bound:g} {where}", float(measured), bool(measured < bound))


# --- The output ---
def as_text(chapter, rows, seeds, quick):
    """The tables, the claims, and the end of the header."""
    numbers = ", ".join(str(seed) for seed in seeds)
    parts = [f"Means over seeds {numbers}, with 95 % intervals"]
    if quick:
        parts.append("--quick: a first look, too short for the claims")
    plainly = chapter.doc[chapter.doc.index(PLAINLY) :].rstrip()
    parts += [chapter.report(rows), verdicts(chapter.claims(rows)), "", plainly]
    return "\n".join(parts)


def verdicts(claims):
    """The claims as text, a line each."""
    first = max(len(c.claim) for c in claims)
    lines = [f"{'claim':{first}}  {'must be':24}{'measured':>10}"]
    for c in claims:
        verdict = "holds" if c.holds else "does NOT hold"
        lines.append(f"{c.claim:{first}}  {c.must:24}{c.measured:10.2f}  {verdict}")
    return "\n".join(lines)


def as_json(chapter, rows):
    """Rows and claims as one line of JSON, which knows no NaN."""
    plain = {}
    for row, columns in rows.items():
        plain[row] = {column: numbers.tolist() for column, numbers in columns.items()}
    claims = [c._asdict() for c in chapter.claims(rows)]
    return json.dumps({"rows": plain, "claims": claims}, allow_nan=False)


# --- Pictures ---
def save(chapter, picture, directory):
    """Draw the picture into DIR/NAME.svg; the same bytes for the same numbers."""
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.hashsalt": "metarl", "figure.constrained_layout.use": True, "font.size": 8}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user prefers
        matplotlib.rcParams.update(style)
        figure = Figure()
        chapter.draw(figure, picture)
        figure.savefig(directory / f"{chapter.name}.svg", metadata={"Date": None})
