"""The directory of a run, from which it goes on bit by bit, whenever it is interrupted.

checkpoint.npz holds the setting and the state after some iteration, log.csv a row per iteration.
Files are written beside and moved into place: whenever a run is killed, either the old file is
there or the new one. `save` and `load` are for one checkpoint, `RunDirectory` for a run going on.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict

import numpy as np

import metarl
from harness.settings import Setting

SCHEMA = 1  # of checkpoint.npz and result.json
SAVE_EVERY = 5.0  # seconds
FILES = ("checkpoint.npz", "log.csv", "result.json")
LOGGED = ("t", "pre", "post", "env_steps")  # entries of the state that log.csv keeps
LOG_HEADER = b"iteration,pre,post,env_steps,seconds\n"


class Stop(Exception):
    """One line for standard error and an exit status.

    2: bad input. 3: numbers that are not finite. 130: Ctrl-C.
    """

    def __init__(self, status, line):
        super().__init__(line)
        self.status = status


@contextlib.contextmanager
def replacing(path):
    """A file beside `path`, in the end flushed to disk and moved into its place, or dropped."""
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


# --- One checkpoint ---
def save(path, c, state, seconds=0.0):
    """Write a checkpoint: the state, and under `about` schema, setting and seconds as JSON."""
    about = json.dumps({"schema": SCHEMA, "setting": asdict(c), "seconds": seconds})
    with replacing(path) as file:
        np.savez(file, about=np.array(about), **state)


def load(path):
    """Read a checkpoint: setting, state, seconds so far. Stop if missing, damaged or foreign."""
    if not path.exists():
        raise Stop(2, f"{path}: no such file, so there is no run to resume")
    try:
        with np.load(path, allow_pickle=False) as arrays:  # compares the checksum of each array
            state = dict(arrays)
        about = json.loads(str(state.pop("about")))
    except Exception:  # noqa: BLE001 - damage makes zipfile, NumPy and json raise almost anything
        raise Stop(2, f"{path}: is damaged, or not a checkpoint") from None
    try:
        c = setting_from_json(about["setting"])
        seconds = float(about["seconds"])
        schema = about["schema"]
    except (AttributeError, KeyError, TypeError, ValueError):
        schema = None
    if schema != SCHEMA:
        raise Stop(2, f"{path}: is a checkpoint of another version or program")
    if not belongs(state, c):
        raise Stop(2, f"{path}: its arrays do not belong to a run of its setting")
    return c, state, seconds


def setting_from_json(options):
    """The Setting of the options {name: value}, of which JSON has turned tuples into lists."""
    given = {}
    for name, value in options.items():
        if isinstance(value, list):
            value = tuple(value)
        given[name] = value
    return Setting(**given)


def belongs(state, c):
    """Whether the state has the arrays of a run with setting c, of the same shapes, all finite."""
    if shapes(state) != shapes(metarl.initial_state(c)):
        return False
    return all(np.isfinite(array).all() for array in state.values())


def shapes(state):
    return {name: (array.shape, array.dtype) for name, array in state.items()}


# --- A run that goes on ---
class RunDirectory:
    """Where a run leaves its files; if it is to leave none (out is None), the same in memory.

    log.csv grows with every iteration, checkpoint.npz follows every few seconds.
    """

    def __init__(self, out, c, state, seconds):
        """state: the latest of the run. seconds: what training has taken so far."""
        self.out = out
        self.c = c
        self.state = state
        self.seconds = seconds
        self.start = time.perf_counter() - seconds
        self.saved = time.perf_counter()
        self.lines = []  # of log.csv, without its header
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            save(out / "checkpoint.npz", c, state, seconds)
            self.log = self.open_log(out / "log.csv", int(state["t"]))

    def open_log(self, path, t):
        """log.csv, to append to: up to iteration t, without what came after the checkpoint."""
        if path.exists():
            self.lines = path.read_bytes().splitlines(keepends=True)[1 : t + 1]
        with replacing(path) as file:
            file.writelines([LOG_HEADER, *self.lines])
        return open(path, "ab", buffering=0)  # a row is on its way to the disk when it is written

    def keep(self, state):
        """Take the state after one more iteration."""
        self.state = state
        self.seconds = time.perf_counter() - self.start
        values = [repr(state[name].item()) for name in LOGGED]
        line = ",".join([*values, f"{self.seconds:.3f}\n"]).encode()
        self.lines.append(line)
        if self.out is not None:
            self.log.write(line)
        if time.perf_counter() - self.saved > SAVE_EVERY:
            self.checkpoint()

    def checkpoint(self):
        """Write the latest state."""
        if self.out is not None:
            os.fsync(self.log.fileno())  # the log may be ahead of the checkpoint, never behind
            save(self.out / "checkpoint.npz", self.c, self.state, self.seconds)
        self.saved = time.perf_counter()
