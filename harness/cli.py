"""What surrounds a run: the command line, progress, errors.

`main` reads the command line and hands over to `run`, which iterates over `metarl.train`, keeps
the run's directory (checkpoints.py), tests (results.py) and reports; in the end it writes
result.json. Whatever stops a run early raises `Stop`. `parser`, last, is the command line itself.
"""

import argparse
import json
import re
import signal
import sys
import textwrap
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np

import envs
import es
import metarl
from harness import figures, results
from harness.checkpoints import FILES, RunDirectory, Stop, load, replacing
from harness.figures import PLOTS, require_plots
from harness.settings import (
    DEFAULTS,
    IGNORED,
    OneOf,
    Setting,
    as_given,
    as_text,
    flag,
    ignored,
    label,
    options_of,
    refuse_ignored,
)
from harness.terminal import progress, quoted, say, show
from harness.workers import workers


def main(argv=None):
    """Run the command line (sys.argv by default) and return the exit status.

    0    all is done, whether anybody reads it to its end or not (`| head -1`)
    2    bad input; files or workers that cannot be had; standard output that takes no results
    3    numbers that are not finite
    130  Ctrl-C
    """
    try:
        # What is not finite is found and named by `iterate` and `results.tested`.
        with np.errstate(all="ignore"):
            asked_for = prepare(argv)
            let_sigint_through(asked_for[0])
            run(*asked_for)
        return 0
    except Stop as stop:
        status = stop.status
        line = str(stop)
    except KeyboardInterrupt:
        status = 130
        line = "interrupted"
    except (OSError, MemoryError) as error:
        status = 2
        line = str(error) or "not enough memory for a run of this size"
    say("metarl: " + " ".join(line.split()))
    return status


def let_sigint_through(c):
    """Unblock SIGINT, which metarl.py blocks in its first lines: if one came, it is raised now.

    An import of compiled modules may take a KeyboardInterrupt and tell nobody. So they come first:
    numpy.random, which `prepare` is the first to use, and what a run with the setting c will use.
    """
    import scipy.special

    if c.outer == "trpo":
        import scipy.sparse.linalg  # noqa: F401
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


# --- What is asked for ---
def prepare(argv):
    """The run that the command line asks for, as `run` takes it. Writes nothing.

    Raises Stop for bad input.
    """
    try:
        given = vars(parser().parse_args(argv))
        if "hidden" in given:
            given["hidden"] = tuple(given["hidden"])
        out = given.pop("out")
        resume = given.pop("resume")
        quiet = given.pop("quiet")
        plot = given.pop("plot")
        spec = given.pop("workers")
        check_workers(spec)
        if plot:
            require_plots(resume or out)
        if resume is not None:
            c, state, seconds = resumed(resume, out, given, plot)
            return c, state, seconds, resume, quiet, plot, spec
        c = Setting(**given)
        refuse_ignored(c, given)
    except ValueError as error:
        raise Stop(2, error) from None
    if out is not None and any((out / name).exists() for name in FILES):
        resume = f"--resume {quoted(out)}"
        raise Stop(2, f"--out {out}: holds a run; choose another directory, or {resume}")
    return c, metarl.initial_state(c), 0.0, out, quiet, plot, spec


def check_workers(spec):
    if type(spec) is int and spec >= 0:
        return
    if isinstance(spec, str) and re.fullmatch(r"tcp://[^\s/]+:[0-9]{1,5}", spec):
        return
    allowed = "a whole number of at least 0, or tcp://HOST:PORT"
    raise Stop(2, f"--workers {spec}: must be {allowed}")


def resumed(resume, out, given, plot):
    """The setting, state and seconds of the run in the directory `resume`.

    Of the options given again, only --iterations may differ from the run's own. A finished run has
    to go on or be plotted.
    """
    c, state, seconds = load(resume / "checkpoint.npz")
    differing = [
        as_given(name, value)
        for name, value in given.items()
        if name != "iterations" and value != getattr(c, name)
    ]
    if out is not None and out.resolve() != resume.resolve():
        differing.append(f"--out {out}")
    if differing:
        can = "--iterations, --workers, --quiet, --plot can"
        raise Stop(2, f"{', '.join(differing)}: cannot change in a resumed run; {can}")
    if "iterations" in given:
        c = replace(c, iterations=given["iterations"])
    t = state["t"]
    finished = t == c.iterations and (resume / "result.json").exists()
    if t > c.iterations or (finished and not plot):
        raise Stop(
            2, f"--resume {resume}: has done {t} iterations; to go on, give more --iterations"
        )
    return c, state, seconds


# --- A run ---
HEADLINE = (  # options that are told before training, where they are used
    "alpha",
    "learn_alpha",
    "epsilon",
    "outer",
    "beta",
    "estimator",
    "nes",
    "population",
    "sigma",
    "tasks",
    "iterations",
    "seed",
)


def run(c, state=None, seconds=0.0, out=None, quiet=False, plot=False, spec=0):
    """Train with the setting c, test, report and draw; returns the content of result.json.

    state: where to begin, metarl.initial_state(c) by default, after so many `seconds` of training.
    out: the directory to write to, if any. spec: as `workers` takes it. Raises Stop.
    """
    if state is None:
        state = metarl.initial_state(c)
    if out is not None:
        out = Path(out)
    with workers(spec) as map:
        in_chunks = partial(metarl.in_chunks, map=map)
        record = RunDirectory(out, c, state, seconds)
        if not quiet:
            say(headline(c, state))
        state, result = train_and_test(c, state, quiet, in_chunks, record)
    if out is not None:
        with replacing(out / "result.json") as file:
            file.write(json.dumps(result, indent=1, allow_nan=False).encode())
    theta = state["theta"]
    if plot:
        figures.write_plots(out, c, theta, record.lines, result["optimal"])
    show(results.table(result))  # once all is safe
    if not quiet:
        show(figures.text(c, theta, record.lines))
    return result


def headline(c, state):
    """What runs, in a line."""
    steps = results.counted(c.inner_steps, "inner step", "inner steps")
    told = [
        f"{label(c.policy)} policy with {c.pi.size} parameters",
        f"{steps} of {results.adaptation(c.inner, c.episodes)}",
    ]
    unused = ignored(c)
    for name in HEADLINE:
        if name not in unused:
            told.append(f"{name} {as_text(getattr(c, name))}")
    if c.algo == "cma-es" and state["C"].ndim == 1:
        told.append("the diagonal of the covariance only")
    return f"{c.algo} on {label(c.env)}: {', '.join(told)}"


def train_and_test(c, state, quiet, in_chunks, record):
    """The last state and the result. Whatever happens, the last good state is kept."""

    def trained(other):
        return iterate(other, metarl.initial_state(other), quiet, in_chunks)["theta"]

    try:
        state = iterate(c, state, quiet, in_chunks, record.keep)
        record.checkpoint()
        return state, results.evaluate(c, state, record.seconds, in_chunks, trained)
    except KeyboardInterrupt:
        record.checkpoint()
        t = record.state["t"]
        raise Stop(130, f"interrupted after {t} iterations; {how_to_go_on(record)}") from None
    except (Stop, ConnectionError):  # before OSError, as a ConnectionError is one too
        record.checkpoint()
        raise
    except OSError as error:  # the disk is full: there is no checkpoint but the last one
        raise Stop(2, f"{error}; {how_to_go_on(record)}") from None


def how_to_go_on(record):
    """The command that resumes the run, to be pasted."""
    if record.out is None:
        return "without --out nothing is kept"
    program = "metarl.py"
    if sys.argv[0].endswith(program):
        program = quoted(sys.argv[0])  # the way that it was called
    return f"go on with: python {program} --resume {quoted(record.out)}"


def iterate(c, state, quiet, in_chunks, keep=None):
    """Train up to c.iterations, handing each state to `keep`, and return the last.

    Stop where one is not finite.
    """
    report = progress(c, int(state["t"]), quiet)
    states = metarl.train(c, state, in_chunks)
    while state["t"] < c.iterations:
        try:
            state = next(states)
        except es.NotFinite as error:
            t = state["t"] + 1
            raise Stop(3, f"iteration {t}: {error}; try smaller step sizes") from None
        broken = [name for name, value in state.items() if not np.isfinite(value).all()]
        if broken:
            names = ", ".join(broken)
            advice = "try smaller step sizes"
            raise Stop(3, f"iteration {state['t']}: not finite: {names}; {advice}")
        if keep is not None:
            keep(state)
        report(state)
    return state


# --- The command line ---
GROUPS = {  # of --help: each begins with an option
    "algo": "algorithm",
    "policy": "policy",
    "inner": "inner loop",
    "estimator": "outer loop",
    "population": "black boxes",
    "iterations": "noise and size",
    "test_tasks": "meta-test",
}
ABOUT = """\
Outer-loop meta-reinforcement learning, judged on held-out tasks.

  python metarl.py --algo reptile --env bandit:arms=10 --iterations 50

In brackets stands the default of an option, then what differs: for a family,
for an algorithm, for an algorithm on a family. Where several hold, the last
wins; what you give wins over all. An option that the algorithm does not use
is refused.
"""
HELP_ON_ALGORITHMS = """\
maml, fomaml, emaml   gradients of the return after adaptation
joint                 one policy for all tasks, no inner loop
reptile               towards the parameters after adaptation
es-maml, nes, cma-es  black boxes, from the returns after adaptation alone
"""
HELP_ON_INNER_LOOPS = """\
pg  policy gradient
es  ES gradient, from pairs of queries
hc  hill climbing: random queries, of which the best is kept
A query tries other parameters for an episode.
"""
DESCRIPTIONS = {"algorithm": HELP_ON_ALGORITHMS, "inner loop": HELP_ON_INNER_LOOPS}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(message)

    def print_help(self, file=None):
        show(self.format_help().rstrip())


class Form(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal; names such as cma-es stay on one line."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=26)

    def _split_lines(self, text, width):
        return textwrap.wrap(text, width, break_on_hyphens=False)


def parser():
    """An ArgumentParser with a flag for each option of Setting, absent where it is not given.

    It raises ValueError for bad input, but leaves a number that is none as text: Setting refuses
    it by name.
    """
    p = Parser(
        prog="metarl.py",
        usage="python metarl.py [--algo NAME] [--env NAME] [--out DIR] [OPTION ...]",
        description=ABOUT,
        epilog=families(),
        allow_abbrev=False,
        formatter_class=Form,
    )
    for f in fields(Setting):
        if f.name in GROUPS:
            title = GROUPS[f.name]
            group = p.add_argument_group(title, DESCRIPTIONS.get(title))
        add_option(group, f)
    add_files_and_workers(p.add_argument_group("files and workers"))
    return p


def add_option(group, f):
    options = {"default": argparse.SUPPRESS, "help": help_of(f)}
    if f.type is bool:
        group.add_argument(flag(f.name), action=argparse.BooleanOptionalAction, **options)
        return
    kind = f.type
    if kind is tuple:
        kind = int
        options["nargs"] = "*"
    options["metavar"] = {int: "N", float: "X", str: "NAME"}[kind]
    group.add_argument(flag(f.name), type=number(kind), **options)


def add_files_and_workers(group):
    files = ", ".join(FILES)
    group.add_argument("--out", type=directory, metavar="DIR", help=f"write {files} there")
    group.add_argument("--resume", type=directory, metavar="DIR", help="go on with the run in DIR")
    group.add_argument(
        "--workers",
        type=number(int),
        default=0,
        metavar="N|tcp://HOST:PORT",
        help="share the work among N processes or a Dask cluster's; "
        "the same numbers [0: as many as cores]",
    )
    group.add_argument(
        "--quiet",
        action="store_true",
        help="no progress on standard error, no pictures in the terminal",
    )
    pictures = " and ".join(PLOTS)
    group.add_argument(
        "--plot", action="store_true", help=f"draw {pictures} into DIR, with matplotlib"
    )


def directory(text):
    """A Path; but an empty one would be the current directory."""
    if not text:
        raise argparse.ArgumentTypeError("must name a directory")
    return Path(text)


def number(kind):
    """The function from text to an int, float or str; what cannot be converted stays text."""

    def convert(text):
        try:
            return kind(text)
        except ValueError:
            return text

    return convert


def help_of(f):
    """What an option is for, its names, which algorithms use it, its defaults."""
    text = f.metadata["help"]
    if isinstance(f.metadata["allowed"], OneOf):
        text += f" ({f.metadata['allowed']})"
    others = [algo for algo in metarl.ALGORITHMS if f.name in IGNORED.get(("algo", algo), ())]
    users = [algo for algo in metarl.ALGORITHMS if algo not in others]
    if others and len(others) < len(users):
        text += f"; not for {', '.join(others)}"
    elif others:
        text += f"; for {', '.join(users)} only"
    return f"{text} [{default_of(f)}]"


def default_of(f):
    """The default as text, and what differs from it by family, by algorithm, and by both."""
    text = as_text(f.metadata["default"])
    previous = None
    for layer, options in DEFAULTS.items():
        value = options.get(f.name)
        if value is None:
            continue
        name = " on ".join(layer.split())
        if value == previous:
            text += f", {name}"
        else:
            text += f"; {as_text(value)} for {name}"
        previous = value
    return text


def families():
    """The families and their options."""
    lines = ["families and their options, as in --env bandit:arms=10,horizon=100:"]
    for name in envs.FAMILIES:
        options = ", ".join(f"{option}={value!r}" for option, value in options_of(name).items())
        lines.append(f"  {name:18} {options}")
    return "\n".join(lines)
