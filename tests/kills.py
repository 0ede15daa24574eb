"""Kill real runs at random moments, resume them, and compare with a run that was left alone.

    python -m tests.kills --times 1000

Each trial starts a run in a process of its own, kills it without warning (SIGKILL) after a random
time, resumes and kills it again until it gets to its end, and then holds its checkpoint, log and
result against those of an undisturbed run: all the same, to the last bit, but for the seconds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

import metarl
from harness import cli
from tests.command_line import arguments

ROOT = Path(metarl.__file__).parent
SMALL = dict(hidden=(4,), tasks=2, episodes=2, iterations=60, test_tasks=2, test_episodes=2)
PROGRAM = "import sys; from harness import cli, checkpoints; checkpoints.SAVE_EVERY = 0.02; "
PROGRAM += "sys.exit(cli.main())"


def start(*flags):
    command = [sys.executable, "-c", PROGRAM, *map(str, flags), "--quiet"]
    streams = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, **streams)


def start_anew(algo, directory):
    return start(*arguments(algo=algo, **SMALL), "--out", directory)


def must(holds, words):
    """`assert`, which python -O leaves out."""
    if not holds:
        raise AssertionError(words)


def contents(directory):
    """All that a run leaves behind, without its seconds."""
    c, state, _ = cli.load(directory / "checkpoint.npz")
    rows = [row.rsplit(",", 1)[0] for row in (directory / "log.csv").read_text().splitlines()]
    result = json.loads((directory / "result.json").read_text())
    result.pop("seconds")
    return c, {name: value.tobytes() for name, value in state.items()}, rows, result


def undisturbed(algo, directory):
    """The contents of a run that nothing happens to, and the seconds that it takes."""
    began = time.perf_counter()
    must(start_anew(algo, directory).wait() == 0, f"a run of {algo} fails")
    return contents(directory), time.perf_counter() - began


def trial(algo, expected, seconds, directory, seed):
    """One run, killed until it ends by itself. Returns how often it was killed.

    Raises AssertionError where it differs from `expected`.
    """
    noise = np.random.default_rng(seed)
    kills = 0
    while True:
        if (directory / "checkpoint.npz").exists():
            process = start("--resume", directory)
        else:
            process = start_anew(algo, directory)
        patience = None
        if kills < 4:
            patience = noise.uniform(0.2, 1.2) * seconds
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        finally:
            complaint = process.communicate()[1]
        over = b"has done" in complaint  # it was killed after its result was written
        must(process.returncode == (2 if over else 0), complaint)
        must(contents(directory) == expected, f"seed {seed}: other contents")
        return kills


def main():
    form = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    p.add_argument("--times", type=int, default=1000, help="runs, each killed up to four times")
    times = p.parse_args().times
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(2) as pool:
        kills = 0
        for algo in ("maml", "reptile"):
            expected, seconds = undisturbed(algo, Path(work) / algo)
            seeds = range(times // 2)
            places = [Path(work) / f"{algo}-{seed}" for seed in seeds]
            kills += sum(pool.map(partial(trial, algo, expected, seconds), places, seeds))
    print(f"{times} runs, killed {kills} times, all ended with the bits of an undisturbed run")


if __name__ == "__main__":
    main()
