"""Faults of one line, such as ports and rewrites make, and for each the test that finds it.

    python -m tests.faults [--only MODULE] [--jobs N] [--write]

faults.json holds them by module: what is wrong in words, a text that occurs once in the module, what replaces it, and
a test. Each fault is planted in a copy of the project and has to make its test fail or, if it passes, another one of
the module's. Prints which test found what; exit status 1 if a fault survives or its text no longer occurs once.
--write puts the tests that were found into faults.json and the table into FAULTS.md.
"""

import argparse
import json
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIST, EQUIVALENTS, TABLE = (
    ROOT / "tests" / name for name in ("faults.json", "equivalents.json", "FAULTS.md")
)
BEGIN, END = "<!-- written by python -m tests.faults --write -->\n", "<!-- end -->"
ALGORITHMS = ["test_metarl.py", "tests/test_outer.py", "tests/test_estimators.py"]
TESTS = {  # of each module, in the order in which they are tried
    "autodiff.py": ["tests/test_autodiff.py"],
    "envs.py": ["tests/test_envs.py"],
    "policies.py": ["tests/test_policies.py", "tests/test_envs.py", *ALGORITHMS],
    "metarl.py": ALGORITHMS,
    "trpo.py": ["tests/test_outer.py"],
    "es.py": ["tests/test_es.py"],
    "settings.py": ["test_metarl.py", "tests/test_outer.py", "tests/test_cli.py"],
    "cli.py": ["test_metarl.py", "tests/test_cli.py", "tests/test_fuzz.py"],
    "checkpoints.py": ["test_metarl.py", "tests/test_cli.py", "tests/test_fuzz.py"],
    "workers.py": ["tests/test_workers.py"],
}


class Fault(NamedTuple):
    module: str
    fault: str  # what is wrong, in words
    old: str
    new: str
    test: str  # the node id of one that finds it


def listed():
    """Every Fault in faults.json."""
    modules = json.loads(LIST.read_text(encoding="utf-8"))
    return [Fault(module, **entry) for module, entries in modules.items() for entry in entries]


def equivalents():
    """{(module, line, line of a mutant): why no test can tell them apart}, of the mutants that mutation.py samples."""
    entries = json.loads(EQUIVALENTS.read_text(encoding="utf-8"))
    return {(e["module"], e["old"], e["new"]): e["why"] for e in entries}


def planted(fault, root=ROOT):
    """The text of the module with the fault in it. ValueError where the text to replace does not occur once."""
    text = (root / fault.module).read_text(encoding="utf-8")
    if text.count(fault.old) != 1:
        raise ValueError(
            f"{fault.module}: {fault.old!r} occurs {text.count(fault.old)} times: {fault.fault}"
        )
    return text.replace(fault.old, fault.new)


def copy_to(place, root=ROOT):
    """A copy of the project, without its history and what can be made anew."""
    return Path(
        shutil.copytree(root, place, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.new"))
    )


def first_failure(place, tests):
    """The node id of the first of the tests that fails in the copy, None if all pass. RuntimeError if they cannot run."""
    failures = place / ".failures"
    shutil.rmtree(failures, ignore_errors=True)
    command = [
        sys.executable,
        "-B",
        "-m",
        "pytest",
        "-q",
        "-x",
        "-o",
        f"cache_dir={failures}",
        *tests,
    ]
    run = subprocess.run(command, check=False, cwd=place, capture_output=True, text=True)
    if run.returncode not in (0, 1):
        raise RuntimeError(run.stdout + run.stderr)
    return (
        next(iter(json.loads((failures / "v/cache/lastfailed").read_text())), "?")
        if run.returncode
        else None
    )


def found_by(fault, places):
    """The node id of a test that finds the fault, in one of the copies in the queue `places`; None if it survives."""
    place = places.get()
    module = place / fault.module
    innocent = module.read_text(encoding="utf-8")
    try:
        module.write_text(planted(fault, place), encoding="utf-8")
        return (fault.test and first_failure(place, [fault.test])) or first_failure(
            place, TESTS[fault.module]
        )
    finally:
        module.write_text(innocent, encoding="utf-8")
        places.put(place)


def found(faults, jobs, report=lambda fault, test: None):
    """For each fault the test that finds it, or None. RuntimeError if one of these tests fails without a fault."""
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(jobs) as pool:
        places = queue.SimpleQueue()
        for i in range(jobs):
            places.put(copy_to(Path(work) / str(i)))
        recorded = {
            test
            for fault in faults
            for test in ([fault.test] if fault.test else TESTS[fault.module])
        }
        if failure := first_failure(Path(work) / "0", sorted(recorded)):
            raise RuntimeError(f"{failure} fails without any fault")
        tests = []
        for fault, test in zip(
            faults, pool.map(partial(found_by, places=places), faults), strict=True
        ):
            report(fault, test)
            tests.append(test)
        return tests


def table(faults):
    """The faults and the tests that find them, and the mutants that none can find, as tables of Markdown."""
    text = f"{len(faults)} faults, each found by a test.\n"
    for module in dict.fromkeys(fault.module for fault in faults):
        rows = [f"| {f.fault} | `{f.test}` |\n" for f in faults if f.module == module]
        text += f"\n### {module}: {len(rows)}\n\n| fault | found by |\n|---|---|\n" + "".join(rows)
    text += "\n### Mutants that no test can tell from the original\n\n| module | line | mutant | why |\n|---|---|---|---|\n"
    cell = lambda line: f"`{line}`".replace("|", "\\|")
    return text + "".join(
        f"| {m} | {cell(old)} | {cell(new)} | {why} |\n"
        for (m, old, new), why in equivalents().items()
    )


def split(text):
    """What comes before, within and after the part of FAULTS.md that is written by this program."""
    before, rest = text.split(BEGIN)
    within, after = rest.split(END)
    return before, within, after


def write(faults):
    """Write faults.json and the table in FAULTS.md."""
    modules = dict.fromkeys(fault.module for fault in faults)
    entries = {
        m: [dict(zip(Fault._fields[1:], f[1:], strict=True)) for f in faults if f.module == m]
        for m in modules
    }
    LIST.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, _, after = split(TABLE.read_text(encoding="utf-8"))
    TABLE.write_text(before + BEGIN + table(faults) + END + after, encoding="utf-8")


def main(argv=None):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", choices=TESTS, metavar="MODULE", help=f"one of {', '.join(TESTS)}")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="processes [2]")
    p.add_argument("--write", action="store_true", help="write faults.json and FAULTS.md")
    options = p.parse_args(argv)
    faults = [fault for fault in listed() if options.only in (None, fault.module)]
    try:
        for fault in faults:
            planted(fault)
        show = lambda fault, test: print(
            f"{fault.module}: {fault.fault}: {test or 'SURVIVED'}", flush=True
        )
        tests = found(faults, options.jobs, show)
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(faults)} faults, {tests.count(None)} survived")
    if options.write:
        now = {
            fault[:-1]: fault._replace(test=test or "")
            for fault, test in zip(faults, tests, strict=True)
        }
        write([now.get(fault[:-1], fault) for fault in listed()])
    return int(None in tests)


if __name__ == "__main__":
    raise SystemExit(main())
