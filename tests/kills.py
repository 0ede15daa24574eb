"""Kill and interrupt real runs at random moments, and see that nothing is lost and nothing hangs.

    python -m tests.kills --times 1000

Four series of trials, each in a process of its own:

runs killed          A run is killed without warning (SIGKILL) after a random time, resumed and
                     killed again until it gets to its end. Its checkpoint, log and result are those
                     of an undisturbed run, to the last bit, but for the seconds.
workers killed       Two workers send large results; one of them is killed at a random moment. The
                     results are those of the builtin map, to the last bit.
runs interrupted     Ctrl-C to a run and its workers at a random moment, from its first lines on: it
                     ends with status 130 and one line, and its checkpoint can be loaded.
workers interrupted  The same while workers send large results.

A trial that takes a minute to end is taken for one that hangs, and raises an error. Needs Linux.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from harness import cli
from tests.command_line import ROOT, arguments, children, must, started, until

# --- Runs that are killed ---
SMALL = dict(hidden=(4,), tasks=2, episodes=2, iterations=60, test_tasks=2, test_episodes=2)
PROGRAM = "import sys; from harness import cli, checkpoints; checkpoints.SAVE_EVERY = 0.02; "
PROGRAM += "sys.exit(cli.main())"


def start(*flags):
    command = [sys.executable, "-c", PROGRAM, *map(str, flags), "--quiet"]
    streams = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, **streams)


def start_anew(algo, directory):
    return start(*arguments(algo=algo, **SMALL), "--out", directory)


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


# --- Workers ---
ROUNDS = 5  # of work, so that they last longer than the second in which a worker is killed
# Results of 16 MB, many times what a pipe holds: a worker is nearly always in the middle of one.
# The digest tells the bits of all of them.
LARGE = """
import hashlib, sys
import numpy as np
from harness.workers import workers
def large(i):
    return np.random.default_rng(i).standard_normal(2_000_000)
try:
    with workers(2) as each_map:
        print("ready", flush=True)
        for _ in range(int(sys.argv[1])):
            digest = hashlib.sha256()
            for array in each_map(large, range(12)):
                digest.update(array)
            print(digest.hexdigest(), flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def kill_a_worker(digest, seed):
    """Kill one of two workers at a random moment; the results are still those of the digest."""
    noise = np.random.default_rng(seed)
    with started("-c", LARGE, ROUNDS) as process:
        must(process.stdout.readline() == "ready\n", "it does not begin")
        time.sleep(noise.uniform(0, 1))
        workers = children(process.pid)
        killed = len(workers) > 0
        if killed:
            os.kill(noise.choice(workers), signal.SIGKILL)
        out, err = process.communicate(timeout=60)
    must(process.returncode == 0 and err == "", err)
    must(out.split() == [digest] * ROUNDS, f"seed {seed}: other bits")
    return killed


def interrupt_workers(seed):
    """Seconds from Ctrl-C to the end."""
    noise = np.random.default_rng(seed)
    with started("-c", LARGE, 10**6) as process:
        must(process.stdout.readline() == "ready\n", "it does not begin")
        return interrupt(process, noise.uniform(0, 1))


def interrupt_a_run(directory, seed):
    """Seconds from Ctrl-C to the end, and whether there was already a checkpoint."""
    noise = np.random.default_rng(seed)
    with started("metarl.py", "--algo", "maml", "--out", directory, "--quiet") as process:
        until(lambda: blocks_sigint(process.pid), process)
        seconds = interrupt(process, noise.uniform(0, 1), complaint="metarl: interrupted")
    checkpoint = directory / "checkpoint.npz"
    if checkpoint.exists():
        cli.load(checkpoint)
    return seconds, checkpoint.exists()


def blocks_sigint(pid):
    """Whether the program has come to its first lines: before, Python alone answers."""
    status = Path(f"/proc/{pid}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    return blocked >> (signal.SIGINT - 1) & 1 == 1


def interrupt(process, delay, complaint=""):
    """SIGINT to the process and its workers after a delay; seconds from there to the end."""
    time.sleep(delay)
    began = time.perf_counter()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=60)
    seconds = time.perf_counter() - began
    err = process.stderr.read()
    must(process.returncode == 130, (process.returncode, err))
    must(err.startswith(complaint) and err.count("\n") == bool(complaint), err)
    return seconds


# --- The series ---
def runs_killed(times, work):
    kills = 0
    with ThreadPoolExecutor(2) as pool:
        for algo in ("maml", "reptile"):
            expected, seconds = undisturbed(algo, work / algo)
            seeds = range(times // 2)
            places = [work / f"{algo}-{seed}" for seed in seeds]
            kills += sum(pool.map(partial(trial, algo, expected, seconds), places, seeds))
    print(f"{times} runs, killed {kills} times, all ended with the bits of an undisturbed run")


def workers_killed(times):
    digest = hashlib.sha256()
    for i in range(12):
        digest.update(np.random.default_rng(i).standard_normal(2_000_000))
    killed = sum(kill_a_worker(digest.hexdigest(), seed) for seed in range(times))
    print(f"{times} times two workers, one killed in {killed}: the same bits each time")


def workers_interrupted(times):
    seconds = [interrupt_workers(seed) for seed in range(times)]
    print(f"{times} times two workers, interrupted: all ended, after {max(seconds):.2f} s at most")


def runs_interrupted(times, work):
    trials = [interrupt_a_run(work / f"interrupted-{seed}", seed) for seed in range(times)]
    slowest = max(seconds for seconds, _ in trials)
    kept = sum(kept for _, kept in trials)
    print(
        f"{times} runs, interrupted: all ended, after {slowest:.2f} s at most, with a line; "
        f"{kept} had a checkpoint, which can be loaded"
    )


def main():
    form = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    p.add_argument("--times", type=int, default=1000, help="trials in each series")
    times = p.parse_args().times
    with tempfile.TemporaryDirectory() as work:
        runs_interrupted(times, Path(work))
        workers_interrupted(times)
        workers_killed(times)
        runs_killed(times, Path(work))


if __name__ == "__main__":
    main()
