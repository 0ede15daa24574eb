"""Mutation testing with Cosmic Ray: how many small changes of a module, made without a thought, do its tests notice?

    python -m tests.mutation [MODULE ...] [--sample N] [--seed S] [--jobs N]

Needs Cosmic Ray beside what the tests need: pip install cosmic-ray. It makes all its mutants of a module (operators,
numbers, comparisons, conditions, loops, decorators), of which a random sample is tested in copies of the project, each
with the tests that faults.py names for the module, up to the first that fails. Prints each survivor and, by module,
the share that was found, with Wilson's 95 % interval where it is a sample. Survivors in equivalents.json, where it is
said why no test can find them, are counted in two ways: as survivors, and left out.
"""

import argparse
import os
import random
import shlex
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.faults import ROOT, TESTS, copy_to, equivalents, first_failure

MODULES = ("autodiff.py", "es.py", "policies.py", "metarl.py")


def mutants(module, work):
    """All work items of Cosmic Ray for the module, always in the same order."""
    from cosmic_ray.commands import init
    from cosmic_ray.work_db import use_db

    with use_db(work / f"{module}.sqlite") as database:
        init([Path(module)], database, {})
        items = database.work_items
    order = lambda item: (item.mutations[0].operator_name, item.mutations[0].occurrence)
    return sorted(items, key=order)


def enter(work):
    """Each process works in a copy of its own, of what was seen to pass."""
    os.chdir(copy_to(work / str(os.getpid()), work / "innocent"))


def survivor(item, command, timeout):
    """None for a mutant that is found, or runs for ever, else the first line that differs, before and after."""
    from cosmic_ray.mutating import mutate_and_test

    result = mutate_and_test(item.mutations, command, timeout)
    if result.worker_outcome != "normal":
        raise RuntimeError(result.output)
    if result.is_killed:
        if result.output == "timeout":
            print(
                f"{item.mutations[0].module_path}:{item.mutations[0].start_pos[0]} timed out",
                flush=True,
            )
        return None
    lines = [
        line
        for line in result.diff.splitlines()
        if line[:1] in "+-" and line[:3] not in ("---", "+++")
    ]
    return tuple(next((line[1:].strip() for line in lines if line[0] == sign), "") for sign in "-+")


def interval(found, n):
    """Wilson's 95 % interval of a share, from `found` in a sample of n (Wilson 1927)."""
    z, p = 1.959964, found / n
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def score(found, n, whole):
    low, high = interval(found, n)
    return f"{found}/{n} = {found / n:.1%}" + ("" if n == whole else f" ({low:.1%} to {high:.1%})")


def examine(module, sample, seed, jobs, work):
    """Test a sample of the module's mutants; print its survivors as they come, and its score."""
    command = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *TESTS[module],
    ]
    start = time.perf_counter()
    if failure := first_failure(work / "innocent", TESTS[module]):
        raise RuntimeError(f"{failure} fails without any mutation")
    timeout = 60 + 10 * (time.perf_counter() - start)
    everything, known = mutants(module, work), equivalents()
    chosen = random.Random(seed).sample(everything, min(sample or len(everything), len(everything)))
    survivors, explained = 0, 0
    with ProcessPoolExecutor(jobs, get_context("spawn"), enter, (work,)) as pool:
        results = pool.map(partial(survivor, command=shlex.join(command), timeout=timeout), chosen)
        for item, lines in zip(chosen, results, strict=True):
            if lines:
                where = f"{module}:{item.mutations[0].start_pos[0]}"
                why = known.get((module, *lines))
                print(
                    f"{where} survived: {why or ''}\n    - {lines[0]}\n    + {lines[1]}", flush=True
                )
                survivors, explained = survivors + 1, explained + bool(why)
    n = len(chosen)
    text = f"{module}: {len(everything)} mutants, found {score(n - survivors, n, len(everything))}"
    text += f", {explained} of {survivors} survivors equivalent, without these "
    return text + score(n - survivors, n - explained, len(everything) - explained)


def main(argv=None):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("modules", nargs="*", metavar="MODULE", help=f"[{' '.join(MODULES)}]")
    p.add_argument(
        "--sample",
        type=int,
        default=100,
        metavar="N",
        help="mutants of each module; 0 for all [100]",
    )
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample [0]")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="processes [2]")
    options = p.parse_args(argv)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as work:
        copy_to(Path(work) / "innocent")
        for module in options.modules or MODULES:
            print(
                examine(module, options.sample, options.seed, options.jobs, Path(work)), flush=True
            )


if __name__ == "__main__":
    main()
