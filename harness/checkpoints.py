"""The directory of a run, from which it goes on bit by bit, whenever it is interrupted.

checkpoint.npz holds the setting and the state after some iteration, log.csv a row per iteration.
Files are written beside and moved into place: whenever a run is killed, either the old file is
there or the new one. `save` and `load` are for one checkpoint, `RunDirectory` for a run going on.
"""

import contextlib
import errno
import json
import os
import re
import time
from dataclasses import is_dataclass

import numpy as np

import metarl
from harness.settings import OBJECTS, Setting, flag, label, values

SCHEMA = 1  # of checkpoint.npz and result.json
SAVE_EVERY = 5.0  # seconds
FILES = ("checkpoint.npz", "log.csv", "result.json")
LOGGED = ("t", "pre", "post", "env_steps")  # entries of the state that log.csv keeps
LOG_HEADER = b"iteration,pre,post,env_steps,seconds\n"


class Stop(Exception):
    """One line for standard error and an exit status.

    2: bad input, or files or a standard output that take nothing. 3: numbers that are not finite.
    130: Ctrl-C.
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
    """Write a checkpoint: the state, and under `about` schema, setting and seconds as JSON.

    Stop if `load` would refuse it.
    """
    if not belongs(state, c):
        wanted = "those of metarl.initial_state, all finite"
        raise Stop(2, f"{path}: not written: the arrays of the state must be {wanted}")
    about = {"schema": SCHEMA, "setting": described(c), "seconds": seconds}
    about = json.dumps(about, allow_nan=False)
    with replacing(path) as file:
        np.savez(file, about=np.array(about), **state)


def described(c):
    """{option: value} of a setting for a file, which has only the words of an object."""
    options = values(c)
    for name in OBJECTS:
        if not isinstance(options[name], str):
            options[name] = in_words(options[name])
    return options


def in_words(thing):
    """What a file has of an object: of a dataclass its fields too, of others the class's name."""
    if not is_dataclass(thing):
        return {"object": label(thing)}
    return {"object": re.sub(" at 0x[0-9a-f]+", "", repr(thing))}  # without places in memory


def load(path, env=None, policy=None):
    """Read a checkpoint: setting, state, seconds so far. Stop if missing, damaged or foreign.

    env, policy: the same objects again, where the setting has objects in place of names.
    """
    if not path.exists():
        raise Stop(2, f"{path}: no such file, so there is no run to resume")
    try:
        with np.load(path, allow_pickle=False) as arrays:  # compares the checksum of each array
            state = dict(arrays)
        about = json.loads(str(state.pop("about")))
    except Exception:  # noqa: BLE001 - damage makes zipfile, NumPy and json raise almost anything
        raise Stop(2, f"{path}: is damaged, or not a checkpoint") from None
    try:
        options = dict(about["setting"])
        for name, thing in {"env": env, "policy": policy}.items():
            options[name] = in_place_of_words(path, name, options[name], thing)
        c = Setting(**options)
        seconds = float(about["seconds"])
        schema = about["schema"]
    except (AttributeError, KeyError, TypeError, ValueError):
        schema = None
    if schema != SCHEMA:
        raise Stop(2, f"{path}: is a checkpoint of another version or program")
    if not belongs(state, c):
        raise Stop(2, f"{path}: its arrays do not belong to a run of its setting")
    return c, state, seconds


def in_place_of_words(path, name, words, thing):
    """The value of the option `name`, of which the file has the words: `thing`, if it is an object.

    Stop if there is none, or another.
    """
    if isinstance(words, str) and thing is None:
        return words
    if thing is not None and in_words(thing) == words:
        return thing
    if isinstance(words, str):
        raise Stop(2, f"{path}: {flag(name)} was {words}, and no object")
    again = f"load(..., {name}=...) in Python takes it again, and no other"
    raise Stop(2, f"{path}: {flag(name)} was an object, {words['object']}: {again}")


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
            self.append(line)
        if time.perf_counter() - self.saved > SAVE_EVERY:
            self.checkpoint()

    def append(self, line):
        """A row of log.csv, the whole of it: of a full disk the system may take the part that fits,
        and say so by a number alone.
        """
        written = self.log.write(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.log.name)

    def checkpoint(self):
        """Write the latest state."""
        if self.out is not None:
            os.fsync(self.log.fileno())  # the log may be ahead of the checkpoint, never behind
            save(self.out / "checkpoint.npz", self.c, self.state, self.seconds)
        self.saved = time.perf_counter()
