"""What surrounds a run: the command line, progress, results, errors.

`main` reads the command line and hands over to `run`, which iterates over `metarl.train`, keeps the run's directory
(checkpoints.py) and reports; in the end it writes result.json. Whatever stops a run early raises `Stop`.
"""

import json
import re
import sys
import time
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import numpy as np

import metarl
from harness import figures
from harness.checkpoints import FILES, SCHEMA, RunDirectory, Stop, load, replacing, save  # noqa: F401 - cli.save, for those who use it
from harness.figures import PLOTS, require_plots
from harness.settings import Setting, flag, number, parser
from harness.workers import workers


def main(argv=None):
    """Run the command line (sys.argv by default) and return the exit status."""
    try:
        with np.errstate(all="ignore"):  # what is not finite is found and named by `iterate`
            run(*prepare(argv))
        return 0
    except Stop as stop:
        status, line = stop.status, str(stop)
    except KeyboardInterrupt:
        status, line = 130, "interrupted"
    except (OSError, MemoryError) as error:
        status, line = 2, str(error) or "not enough memory for a run of this size"
    print("metarl:", " ".join(line.split()), file=sys.stderr)
    return status


# --- What is asked for ---
def prepare(argv):
    """The run that the command line asks for, as `run` takes it. Writes nothing. Raises Stop for bad input."""
    p = parser()
    p.add_argument("--out", type=Path, metavar="DIR", help=f"write {', '.join(FILES)} there")
    p.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR")
    shared = "share the work among N processes or a Dask cluster's; the same numbers [0: as many as cores]"
    p.add_argument(
        "--workers", type=number(int), default=0, metavar="N|tcp://HOST:PORT", help=shared
    )
    p.add_argument(
        "--quiet",
        action="store_true",
        help="no progress on standard error, no pictures in the terminal",
    )
    p.add_argument(
        "--plot", action="store_true", help=f"draw {' and '.join(PLOTS)} into DIR, with matplotlib"
    )
    try:
        given = {
            name: tuple(x) if isinstance(x, list) else x
            for name, x in vars(p.parse_args(argv)).items()
        }
        out, resume, quiet, plot, spec = map(
            given.pop, ("out", "resume", "quiet", "plot", "workers")
        )
        if not (
            spec >= 0 if type(spec) is int else re.fullmatch(r"tcp://[^\s/]+:[0-9]{1,5}", spec)
        ):
            raise Stop(
                2, f"--workers {spec}: must be a whole number of at least 0, or tcp://HOST:PORT"
            )
        if plot:
            require_plots(resume or out)
        if resume is not None:
            return *resumed(resume, out, given, plot), resume, quiet, plot, spec
        c = Setting(**given)
        if out is not None and any((out / name).exists() for name in FILES):
            raise Stop(2, f"--out {out}: holds a run; choose another directory, or --resume {out}")
        return c, metarl.initial_state(c), 0.0, out, quiet, plot, spec
    except ValueError as error:
        raise Stop(2, error) from None


def resumed(resume, out, given, plot):
    """The setting, state and seconds of the run in the directory `resume`; a finished one has to go on or be plotted."""
    fixed = [flag(f) for f in fields(Setting) if f.name in given and f.name != "iterations"]
    fixed += ["--out"] if out is not None else []
    if fixed:
        can = "--iterations, --workers, --quiet, --plot can"
        raise Stop(2, f"{', '.join(fixed)}: cannot change in a resumed run; {can}")
    c, state, seconds = load(resume / "checkpoint.npz")
    c = replace(c, **given)
    done = state["t"] == c.iterations and (resume / "result.json").exists()
    if state["t"] > c.iterations or (done and not plot):
        raise Stop(
            2,
            f"--resume {resume}: has done {state['t']} iterations; to go on, give more --iterations",
        )
    return c, state, seconds


# --- A run ---
def progress(c, first, quiet):
    """A function of the state that reports on standard error: one line, rewritten, or one every few seconds."""
    live, start = sys.stderr.isatty(), time.perf_counter()
    shown = start

    def show(state):
        nonlocal shown
        now, t = time.perf_counter(), int(state["t"])
        if quiet or (t < c.iterations and now - shown < (0.1 if live else 5)):
            return
        shown, rate = now, (t - first) / (now - start)
        line = f"{c.algo} {t}/{c.iterations}: return {state['pre']:.2f} before, {state['post']:.2f} after adaptation, "
        line += f"{rate:.1f} iterations/s, {(c.iterations - t) / rate:.0f} s left"
        end = "" if live and t < c.iterations else "\n"
        print(f"\r{line}\033[K" if live else line, end=end, file=sys.stderr, flush=True)

    return show


def iterate(c, state, quiet, in_chunks, keep=lambda state: None):
    """Train up to c.iterations, handing each state to `keep`, and return the last. Stop where one is not finite."""
    show, states = progress(c, int(state["t"]), quiet), metarl.train(c, state, in_chunks)
    while state["t"] < c.iterations:
        state = next(states)
        broken = [name for name, value in state.items() if not np.isfinite(value).all()]
        if broken:
            raise Stop(
                3,
                f"iteration {state['t']}: not finite: {', '.join(broken)}; try smaller step sizes",
            )
        keep(state)
        show(state)
    return state


def run(c, state, seconds, out, quiet, plot, spec):
    """Train from `state`, save, test, report and draw."""
    if c.algo == "cma-es" and state["C"].ndim == 1 and not quiet:
        print(
            f"cma-es: {len(state['theta'])} parameters: adapts the diagonal of the covariance only",
            file=sys.stderr,
        )
    with workers(spec) as map:
        in_chunks, record = partial(metarl.in_chunks, map=map), RunDirectory(out, c, state, seconds)
        try:
            state = iterate(c, state, quiet, in_chunks, record.keep)
            record.checkpoint()
            result = evaluate(c, state, record.seconds, quiet, in_chunks)
        except KeyboardInterrupt:
            record.checkpoint()
            hint = (
                f"go on with: python metarl.py --resume {out}"
                if out
                else "without --out nothing is kept"
            )
            raise Stop(130, f"interrupted after {record.state['t']} iterations; {hint}") from None
        except (Stop, ConnectionError):
            record.checkpoint()
            raise
    if out is not None:
        with replacing(out / "result.json") as file:
            file.write(json.dumps(result, indent=1).encode())
    print(figures.printable(figures.table(result), sys.stdout.encoding))
    if not quiet:
        print(figures.printable(figures.text(c, state["theta"], record.lines), sys.stdout.encoding))
    if plot:
        figures.write_plots(out, c, state["theta"], record.lines, result["optimal"])


# --- Results ---
def interval(returns):
    """The mean over tasks (rows) and the half width of its 95 % interval, by Student's t."""
    from scipy.special import stdtrit

    n = len(returns)
    return {
        "mean": returns.mean(0),
        "ci95": stdtrit(n - 1, 0.975) * returns.std(0, ddof=1) / np.sqrt(n),
    }


def evaluate(c, state, seconds, quiet, in_chunks):
    """The content of result.json: the trained parameters and the baselines, on the same held-out tasks."""
    tasks, returns = metarl.meta_test(c, state["theta"], in_chunks)
    baselines = {
        "random": interval(metarl.meta_test(c, metarl.initial_state(c)["theta"], in_chunks)[1])
    }
    if c.compare == "joint":
        joint = replace(c, algo="joint", inner_steps=0, sampling_term=False, learn_alpha=False)
        theta = iterate(joint, metarl.initial_state(joint), quiet, in_chunks)["theta"]
        baselines["joint"] = interval(metarl.meta_test(joint, theta, in_chunks)[1])
    held_out = {"tasks": c.test_tasks, "splits_coincide": c.family.splits_coincide}
    held_out |= {"episodes": c.test_episodes, "adapt_episodes": c.adapt_episodes}
    held_out |= {**interval(returns), "returns": returns}
    result = {
        "schema": SCHEMA,
        "numpy": np.__version__,
        "algo": c.algo,
        "env": c.env,
        "policy": c.policy,
    }
    result |= {
        "seed": c.seed,
        "config": asdict(c),
        "env_steps": state["env_steps"],
        "seconds": seconds,
    }
    result |= {
        "held_out": held_out,
        "optimal": c.family.optimal_return(tasks).mean(),
        "baselines": baselines,
    }
    return json.loads(json.dumps(result, default=lambda x: x.tolist()))
