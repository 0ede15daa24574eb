"""Faults of one line, such as ports and rewrites make, and for each the test that finds it.

    python -m tests.faults [--only MODULE] [--jobs N] [--write]
    python -m tests.faults --stale [--only MODULE]
    python -m tests.faults --replant [--propose] [--only MODULE] [--jobs N]

faults.json holds them by module: what is wrong in words, the function that it is in, the code that
is replaced, what replaces it, and a test. The code is found by its tokens (snippets.py), so that a
new line break or comment does no harm. Each fault is planted in a copy of the project and has to
make its test fail or, if that passes, another one of the module's. Prints which test found what;
exit status 1 if a fault survives or its code is no longer found exactly once: it is stale.
--write puts the tests that were found into faults.json and the table into FAULTS.md.
--stale lists what is stale in faults.json and equivalents.json, beside the statements most like it.
--replant looks for a new place for each of these, makes the same edit there, and keeps it if its
test finds it, or any if that is gone (an equivalent: if none does). It prints every move, which a
person should read, and what it leaves as it was. With --propose it only prints what it would try.
"""

import argparse
import json
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import snippets

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "tests/faults.json"
EQUIVALENTS = ROOT / "tests/equivalents.json"
TABLE = ROOT / "tests/FAULTS.md"
BEGIN = "<!-- written by python -m tests.faults --write -->\n"
END = "<!-- end -->"
ALGORITHMS = [
    "test_metarl.py",
    "tests/test_gradients.py",
    "tests/test_black_boxes.py",
    "tests/test_runs.py",
    "tests/test_outer.py",
    "tests/test_estimators.py",
    "tests/test_numbers.py",
]
COMMANDS = [
    "tests/test_settings.py",
    "tests/test_cli.py",
    "tests/test_terminal.py",
    "tests/test_fuzz.py",
    "test_metarl.py",
]
TESTS = {  # of each module, in the order in which they are tried, as far as they exist
    "arrays.py": ["tests/test_autodiff.py"],
    "autodiff.py": ["tests/test_autodiff.py"],
    "envs.py": ["tests/test_envs.py", "tests/test_numbers.py"],
    "policies.py": ["tests/test_policies.py", "tests/test_envs.py", *ALGORITHMS],
    "metarl.py": ALGORITHMS,
    "es.py": ["tests/test_es.py", "tests/test_stopping.py"],
    "stopping.py": ["tests/test_stopping.py"],
    "harness/minimize.py": ["tests/test_minimize.py"],
    "harness/settings.py": [*COMMANDS, "tests/test_outer.py"],
    "harness/cli.py": COMMANDS,
    "harness/results.py": ["tests/test_results.py", "tests/test_cli.py"],
    "harness/checkpoints.py": COMMANDS,
    "harness/workers.py": ["tests/test_workers.py"],
    "harness/terminal.py": ["tests/test_terminal.py"],
    "chapters/common.py": ["tests/test_chapters.py"],
    "chapters/swirl.py": ["tests/test_chapters.py", "tests/test_envs.py"],
    "chapters/uml.py": ["tests/test_chapters.py"],
    "chapters/carml.py": ["tests/test_chapters.py"],
    "chapters/models.py": ["tests/test_chapters_model.py"],
    "chapters/latent_model.py": ["tests/test_chapters_model.py"],
    "chapters/latent_comparison.py": ["tests/test_chapters_model.py"],
    "chapters/famle.py": ["tests/test_chapters_famle.py"],
    "chapters/ice.py": ["tests/test_chapters_famle.py"],
    "chapters/norml.py": ["tests/test_chapters_norml.py"],
    "chapters/adaptive_model.py": ["tests/test_chapters_norml.py"],
    "chapters/life.py": ["tests/test_chapters_epg.py"],
    "chapters/epg.py": ["tests/test_chapters_epg.py"],
    "chapters/components.py": ["tests/test_chapters_epg.py"],
    "chapters/direction.py": ["tests/test_chapters_smac.py"],
    "chapters/smac_agent.py": ["tests/test_chapters_smac.py"],
    "chapters/smac.py": ["tests/test_chapters_smac.py"],
    "chapters/macaw.py": ["tests/test_chapters_macaw.py"],
    "chapters/awr.py": ["tests/test_chapters_macaw.py"],
    "chapters/goals.py": ["tests/test_chapters_macaw.py"],
    "chapters/offline.py": ["tests/test_chapters_macaw.py"],
    "chapters/nichol.py": ["tests/test_chapters_nichol.py"],
    "chapters/minibatches.py": ["tests/test_chapters_nichol.py"],
    "chapters/in_the_loop.py": ["tests/test_chapters_in_the_loop.py"],
    "chapters/diversity.py": ["tests/test_chapters_goals.py"],
    "chapters/overfitting.py": ["tests/test_chapters_goals.py"],
    "chapters/sinusoid.py": ["tests/test_chapters_sinusoid.py"],
    "chapters/bandits.py": ["tests/test_chapters_bandits.py"],
    "chapters/counting.py": ["tests/test_chapters_bandits.py"],
    "chapters/navigation.py": ["tests/test_chapters_navigation.py"],
    "chapters/turned.py": ["tests/test_chapters_crssm.py"],
    "chapters/rssm.py": ["tests/test_chapters_crssm.py"],
    "chapters/crssm.py": ["tests/test_chapters_crssm.py"],
    "chapters/crssm_comparison.py": ["tests/test_chapters_crssm.py"],
    "chapters/borel.py": ["tests/test_chapters_borel.py"],
    "chapters/belief.py": ["tests/test_chapters_borel.py"],
    "chapters/arena.py": ["tests/test_chapters_borel.py"],
}
LIKELY = 0.5  # share of the tokens of a stale fault that a statement needs to be proposed
NEAR = 0.3  # how much less like it than the best one a statement may be to be proposed
ALIKE = 0.6  # how much the code at the new place needs to be like the old to be kept
TRIED = 5  # statements, at most, for a stale fault


class Fault(NamedTuple):
    module: str
    fault: str  # what is wrong, in words
    where: str  # qualified name of the function or class that it is in, "" for the module itself
    old: str
    new: str
    test: str  # the node id of one that finds it


# --- The lists ---
def read(path):
    return path.read_text(encoding="utf-8")


def listed():
    """Every Fault in faults.json."""
    modules = json.loads(read(LIST))
    return [Fault(module, **entry) for module, entries in modules.items() for entry in entries]


def equivalents():
    """Mutants that no test can tell from the original, as Faults: in `fault` it says why."""
    entries = json.loads(read(EQUIVALENTS))
    return [Fault(e["module"], e["why"], e["where"], e["old"], e["new"], "") for e in entries]


def tests_of(module):
    """The files of tests that are tried for a module."""
    return [path for path in TESTS.get(module, ()) if (ROOT / path).exists()]


def places(fault, root=None):
    """Every Place of the code that the fault replaces: one, unless the entry is stale."""
    path = (root or ROOT) / fault.module
    return snippets.find(read(path), fault.where, fault.old) if path.exists() else []


def is_stale(fault):
    return len(places(fault)) != 1


def planted(fault, root=None):
    """The text of the module with the fault in it. ValueError where the entry is stale."""
    found = places(fault, root)
    if len(found) != 1:
        where = f"{fault.module} {fault.where}".strip()
        raise ValueError(f"{where}: {fault.old!r} occurs {len(found)} times: {fault.fault}")
    text = read((root or ROOT) / fault.module)
    return snippets.replace(text, found[0], fault.new)


def write(faults, mutants=None):
    """Write faults.json, the equivalents if they are given, and the table in FAULTS.md."""
    entries = {fault.module: [] for fault in faults}
    for fault in faults:
        entry = fault._asdict()
        entries[entry.pop("module")].append(entry)
    dump(LIST, entries)
    if mutants is not None:
        dump(EQUIVALENTS, [equivalent(mutant) for mutant in mutants])
    before, _, after = split(read(TABLE))
    TABLE.write_text(before + BEGIN + table(faults) + END + after, encoding="utf-8")


def equivalent(mutant):
    """An entry of equivalents.json."""
    module, why, where, old, new, _ = mutant
    return {"module": module, "where": where, "old": old, "new": new, "why": why}


def dump(path, data):
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def table(faults):
    """The faults and the tests that find them, and the mutants that none can find, in Markdown."""
    text = f"{len(faults)} faults, each found by a test.\n"
    for module in dict.fromkeys(fault.module for fault in faults):
        rows = [f"| {f.fault} | `{f.test}` |\n" for f in faults if f.module == module]
        text += f"\n### {module}: {len(rows)}\n\n| fault | found by |\n|---|---|\n"
        text += "".join(rows)
    text += "\n### Mutants that no test can tell from the original\n\n"
    text += "| module | function | code | mutant | why |\n|---|---|---|---|---|\n"
    for module, why, where, old, new, _ in equivalents():
        text += f"| {module} | {cell(where)} | {cell(old)} | {cell(new)} | {why} |\n"
    return text


def cell(code):
    return f"`{code}`".replace("|", "\\|") if code else ""


def split(text):
    """What comes before, within and after the part of FAULTS.md that is written by this program."""
    before, rest = text.split(BEGIN)
    within, after = rest.split(END)
    return before, within, after


# --- What finds a fault ---
def copy_to(place, root=None):
    """A copy of the project, without its history and what can be made anew."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.new")
    return Path(shutil.copytree(root or ROOT, place, ignore=ignored))


@contextmanager
def copies(n):
    """A queue of n copies of the project."""
    with tempfile.TemporaryDirectory() as work:
        free = queue.SimpleQueue()
        for i in range(n):
            free.put(copy_to(Path(work) / str(i)))
        yield free


def first_failure(place, tests):
    """The node id of the first of the tests that fails in the copy, None if all pass.

    A test that has other parameters now runs with all of them. RuntimeError if they cannot run.
    """
    failures = place / ".failures"
    shutil.rmtree(failures, ignore_errors=True)
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-o", f"cache_dir={failures}"]
    command += tests
    run = subprocess.run(command, check=False, cwd=place, capture_output=True, text=True)
    if run.returncode == pytest.ExitCode.USAGE_ERROR and any("[" in test for test in tests):
        return first_failure(place, [test.partition("[")[0] for test in tests])
    if run.returncode not in (0, 1):
        raise RuntimeError(run.stdout + run.stderr)
    if run.returncode == 0:
        return None
    failed = json.loads(read(failures / "v/cache/lastfailed"))
    return next(iter(failed), "?")


def first_failure_with(fault, tests, free):
    """The same with the fault planted, in one of the copies in the queue `free`."""
    place = free.get()
    module = place / fault.module
    innocent = read(module)
    try:
        module.write_text(planted(fault, place), encoding="utf-8")
        return first_failure(place, tests)
    finally:
        module.write_text(innocent, encoding="utf-8")
        free.put(place)


def found_by(fault, free):
    """The node id of a test that finds the fault; None if it survives."""
    recorded = fault.test and first_failure_with(fault, [fault.test], free)
    return recorded or first_failure_with(fault, tests_of(fault.module), free)


def check_innocent(faults, free):
    """RuntimeError if one of the tests of these faults fails without a fault."""
    tests = set()
    for fault in faults:
        tests.update([fault.test] if fault.test else tests_of(fault.module))
    place = free.get()
    failure = first_failure(place, sorted(tests)) if tests else None
    free.put(place)
    if failure:
        raise RuntimeError(f"{failure} fails without any fault")


def found(faults, jobs, report=lambda fault, test: None):
    """For each fault the test that finds it, or None.

    RuntimeError if one of these tests fails without a fault.
    """
    tests = []
    known = [renewed(fault) for fault in faults]
    with copies(jobs) as free, ThreadPoolExecutor(jobs) as pool:
        check_innocent(known, free)
        results = pool.map(partial(found_by, free=free), known)
        for fault, test in zip(faults, results, strict=True):
            report(fault, test)
            tests.append(test)
    return tests


# --- Where a stale entry may have gone ---
def candidates(fault):
    """[(module, text, likeness, Place)] of the statements most like a stale fault's, best first.

    Those of its function, of its module, and of modules that have a function of this name; its own
    function is preferred to others that are as like.
    """
    name = last_name(fault.where)
    found = []
    for module in dict.fromkeys([fault.module, *TESTS]):
        text = read(ROOT / module) if (ROOT / module).exists() else ""
        statements = snippets.statements(text)
        holds = name and name in [last_name(statement.where) for statement in statements]
        if module == fault.module or holds:
            for statement in statements:
                found.append((module, text, *snippets.closest(fault.old, statement)))

    def rank(candidate):
        module, _, likeness, place = candidate
        where = place.statement.where
        nearby = [module == fault.module, where == fault.where, last_name(where) == name]
        return -likeness - 0.1 * sum(nearby)

    return sorted(found, key=rank)


def last_name(where):
    return where.rpartition(".")[2]


def proposals(fault):
    """Faults that do elsewhere what this one did, in the statements most like its own."""
    found = []
    options = candidates(fault)
    best = options[0][2] if options else 0
    for module, text, likeness, place in options:
        if likeness < max(LIKELY, best - NEAR) or len(found) == TRIED:
            continue
        carried = snippets.carry(text, fault.old, fault.new, place)
        if carried is None:
            continue
        there, new = carried
        moved = fault._replace(
            module=module,
            where=there.statement.where,
            old=snippets.code_of(there),
            new=new,
            test=current(fault.test, module),
        )
        if moved not in found and compiles(moved):
            found.append(moved)
    return found


def compiles(fault):
    """Whether the fault can be planted, changes something, and leaves code that Python reads."""
    try:
        compile(planted(fault), fault.module, "exec")
    except (SyntaxError, ValueError):
        return False
    return snippets.snippet(fault.old) != snippets.snippet(fault.new)


def current(test, module):
    """The node id of a test, also if it moved to another file of the module's; "" if it is gone."""
    path, _, name = test.partition("::")
    for file in dict.fromkeys([path, *tests_of(module)]):
        exists = name and (ROOT / file).is_file()
        if exists and f"\ndef {name.partition('[')[0]}(" in read(ROOT / file):
            return f"{file}::{name}"
    return ""


def renewed(fault):
    """The fault with its test where that is now, without one if it is gone."""
    return fault._replace(test=current(fault.test, fault.module))


def replanted(fault, free):
    """The likeliest proposal that the recorded test finds; None if there is none.

    Almost any edit makes some test fail, so that another test says little about whether this is
    still the same fault. It is asked only if the recorded one is gone.
    """
    for option in proposals(fault):
        tests = [option.test] if option.test else tests_of(option.module)
        alike = snippets.likeness(fault.old, option.old)
        test = finder(option, tests, free) if alike >= ALIKE else None
        if test:
            return option._replace(test=test)
    return None


def finder(fault, tests, free):
    """The first of the tests that fails with the fault; None if it fails without, or none does."""
    try:
        test = first_failure_with(fault, tests, free)
    except RuntimeError:  # with this fault not even the tests can be read
        return None
    if test is None:
        return None
    place = free.get()
    try:
        return None if first_failure(place, [test]) else test
    finally:
        free.put(place)


def moved_equivalent(mutant, free):
    """The likeliest proposal, if no test of the module finds it, or None."""
    try:
        for option in proposals(mutant)[:1]:
            if first_failure_with(option, tests_of(option.module), free) is None:
                return option
    except RuntimeError:  # with this mutant not even the tests can be read
        pass
    return None


# --- The command ---
def title(fault):
    return f"{fault.module} {fault.where}".strip() + f": {fault.fault}"


def show_stale(entries):
    """Print stale entries, each with the statements that are most like it."""
    for entry in entries:
        print(f"{title(entry)}\n    - {entry.old}\n    + {entry.new}")
        show_like(entry)


def show_like(entry):
    """Print the statements that are most like an entry's code."""
    for module, text, likeness, place in candidates(entry)[:3]:
        line = text.count("\n", 0, place.statement.tokens[place.first].start) + 1
        around = f"{module}:{line} {place.statement.where}".strip()
        words = snippets.texts(place.statement.tokens)
        near = words[max(0, place.first - 10) : place.last + 11]
        print(f"    ? {likeness:.2f} {around}: {snippets.spelled(near)}")


def show_move(entry, moved):
    """Print where an entry went, or that it stays stale."""
    if moved is None:
        print(f"{title(entry)}: NOT RE-PLANTED\n    - {entry.old}\n    + {entry.new}")
        show_like(entry)
        sys.stdout.flush()
        return
    likeness = snippets.likeness(entry.old, moved.old)
    print(f"{title(entry)} -> {moved.module} {moved.where} ({likeness:.2f} alike)")
    print(f"    - {entry.old}\n    + {entry.new}\n    now\n    - {moved.old}\n    + {moved.new}")
    if moved.test != entry.test:
        print(f"    found by {moved.test or 'a test to be found'}, not {entry.test or 'one'}")
    sys.stdout.flush()


def propose(entries):
    """Print the moves that would be tried for stale entries."""
    for entry in entries:
        options = proposals(entry)
        for option in options or [None]:
            show_move(entry, option)


def replant(faults, mutants, only, jobs):
    """Re-plant what is stale in both lists and write them; returns how many entries stay stale."""
    stale = stale_of(faults, only)
    stale_mutants = stale_of(mutants, only)
    with copies(jobs) as free, ThreadPoolExecutor(jobs) as pool:
        moves = moved(stale, pool.map(partial(replanted, free=free), stale))
        results = pool.map(partial(moved_equivalent, free=free), stale_mutants)
        moves |= moved(stale_mutants, results)
    now = [moves.get(fault) or renewed(fault) for fault in faults]
    write(now, [moves.get(mutant, mutant) for mutant in mutants])
    n = len(stale) + len(stale_mutants)
    print(f"{len(moves)} of {n} stale entries re-planted")
    return n - len(moves)


def moved(entries, results):
    """Print each move as it comes; {entry: its new form} of those that have one."""
    moves = {}
    for entry, result in zip(entries, results, strict=True):
        show_move(entry, result)
        if result is not None:
            moves[entry] = result
    return moves


def stale_of(entries, only=None):
    return [entry for entry in entries if only in (None, entry.module) and is_stale(entry)]


def plant(only, jobs, keep):
    """Plant all faults that are not stale, print what finds each; returns the exit status."""
    everything = listed()
    chosen = [fault for fault in everything if only in (None, fault.module)]
    stale = stale_of(chosen)
    fresh = [fault for fault in chosen if fault not in stale]
    tests = found(fresh, jobs, show_found)
    show_stale(stale)
    survived = tests.count(None)
    print(f"{len(chosen)} faults, {survived} survived, {len(stale)} stale")
    if keep:
        pairs = zip(fresh, tests, strict=True)
        now = {fault: fault._replace(test=test or "") for fault, test in pairs}
        write([now.get(fault, fault) for fault in everything])
    return int(survived + len(stale) > 0)


def show_found(fault, test):
    print(f"{fault.module}: {fault.fault}: {test or 'SURVIVED'}", flush=True)


def parsed(argv):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", metavar="MODULE", help=f"such as {', '.join(TESTS)}")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="processes [2]")
    p.add_argument("--write", action="store_true", help="write faults.json and FAULTS.md")
    p.add_argument("--stale", action="store_true", help="list what is no longer found")
    p.add_argument("--replant", action="store_true", help="look for new places for what is stale")
    p.add_argument("--propose", action="store_true", help="with --replant: only print the moves")
    options = p.parse_args(argv)
    known = {*TESTS, *(fault.module for fault in listed())}
    if options.only not in (None, *known):
        p.error(f"--only {options.only}: must be one of {', '.join(sorted(known))}")
    return options


def main(argv=None):
    options = parsed(argv)
    both = [*listed(), *equivalents()]
    try:
        if options.replant and options.propose:
            propose(stale_of(both, options.only))
            return 0
        if options.replant:
            return int(replant(listed(), equivalents(), options.only, options.jobs) > 0)
        if options.stale:
            stale = stale_of(both, options.only)
            show_stale(stale)
            print(f"{len(stale)} of {len(both)} entries are stale")
            return int(len(stale) > 0)
        return plant(options.only, options.jobs, options.write)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
