"""Mutation testing with Cosmic Ray: how many thoughtless changes of a module do its tests notice?

    python -m tests.mutation [MODULE ...] [--sample N] [--seed S] [--jobs N]

Needs Cosmic Ray beside what the tests need: pip install cosmic-ray. It makes all its mutants of a
module (operators, numbers, comparisons, conditions, loops, decorators), of which a random sample is
tested in copies of the project, each with the tests that faults.py names for the module, up to the
first that fails. Prints each survivor and, by module, the share that was found, with Wilson's 95 %
interval where it is a sample. Survivors in equivalents.json, where it is said why no test can find
them, are counted in two ways: as survivors, and left out.
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

from tests.faults import (
    ROOT,
    copy_to,
    equivalents,
    first_failure,
    is_stale,
    planted,
    read,
    tests_of,
)
from tests.snippets import texts, tokens

MODULES = ("autodiff.py", "arrays.py", "es.py", "stopping.py", "policies.py", "metarl.py")


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
    """None for a mutant that is found, or runs for ever, else a line before and after."""
    from cosmic_ray.mutating import mutate_and_test

    result = mutate_and_test(item.mutations, command, timeout)
    if result.worker_outcome != "normal":
        raise RuntimeError(result.output)
    if result.is_killed:
        if result.output == "timeout":
            print(f"{position(item)} timed out", flush=True)
        return None
    return first_change(result.diff, "-"), first_change(result.diff, "+")


def position(item):
    mutation = item.mutations[0]
    return f"{mutation.module_path}:{mutation.start_pos[0]}"


def first_change(diff, sign):
    """The first line of a unified diff with this sign, without it; "" if there is none."""
    for line in diff.splitlines():
        if line.startswith(sign) and not line.startswith(3 * sign):
            return line[1:].strip()
    return ""


def code(text):
    """What two modules have in common that differ in layout alone."""
    return tuple(texts(tokens(text)))


def explanations(module):
    """{code of a mutant of the module: why no test can tell it from the original}."""
    found = {}
    for mutant in equivalents():
        if mutant.module == module and is_stale(mutant):
            print(f"stale in equivalents.json: {module} {mutant.where}: {mutant.old}")
        elif mutant.module == module:
            found[code(planted(mutant))] = mutant.fault
    return found


def mutated(item):
    """The module as the mutant has it."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    mutation = item.mutations[0]
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    return mutate_code(read(ROOT / mutation.module_path), operator, mutation.occurrence)


def interval(found, n):
    """Wilson's 95 % interval of a share, from `found` in a sample of n (Wilson 1927)."""
    z, p = 1.959964, found / n
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def score(found, n, whole):
    low, high = interval(found, n)
    return f"{found}/{n} = {found / n:.1%}" + ("" if n == whole else f" ({low:.1%} to {high:.1%})")


def seconds_of(module, work):
    """How long the module's tests take. RuntimeError if one fails without any mutation."""
    start = time.perf_counter()
    failure = first_failure(work / "innocent", tests_of(module))
    if failure:
        raise RuntimeError(f"{failure} fails without any mutation")
    return time.perf_counter() - start


def examine(module, sample, seed, jobs, work):
    """Test a sample of the module's mutants; print its survivors as they come, and its score."""
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += tests_of(module)
    timeout = 60 + 10 * seconds_of(module, work)
    everything = mutants(module, work)
    size = min(sample or len(everything), len(everything))
    chosen = random.Random(seed).sample(everything, size)
    known = explanations(module)
    survivors = 0
    explained = 0
    with ProcessPoolExecutor(jobs, get_context("spawn"), enter, (work,)) as pool:
        test = partial(survivor, command=shlex.join(command), timeout=timeout)
        for item, lines in zip(chosen, pool.map(test, chosen), strict=True):
            if lines:
                why = known.get(code(mutated(item)), "")
                print(f"{position(item)} survived: {why}")
                print(f"    - {lines[0]}\n    + {lines[1]}", flush=True)
                survivors += 1
                explained += bool(why)
    return summary(module, len(everything), len(chosen), survivors, explained)


def summary(module, whole, n, survivors, explained):
    text = f"{module}: {whole} mutants, found {score(n - survivors, n, whole)}"
    text += f", {explained} of {survivors} survivors equivalent, without these "
    return text + score(n - survivors, n - explained, whole - explained)


def main(argv=None):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("modules", nargs="*", metavar="MODULE", help=f"[{' '.join(MODULES)}]")
    sampled = "mutants of each module; 0 for all [100]"
    p.add_argument("--sample", type=int, default=100, metavar="N", help=sampled)
    p.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample [0]")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="processes [2]")
    options = p.parse_args(argv)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as work:
        copy_to(Path(work) / "innocent")
        for module in options.modules or MODULES:
            line = examine(module, options.sample, options.seed, options.jobs, Path(work))
            print(line, flush=True)


if __name__ == "__main__":
    main()
