"""The directory of a run, from which it goes on bit by bit, whenever it is interrupted.

checkpoint.npz holds the setting and the state after some iteration, log.csv a row per iteration. Files are written beside
and moved into place: whenever a run is killed, either the old file is there or the new one.
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


class Stop(Exception):
    """One line for standard error and an exit status: 2 bad input, 3 numbers not finite, 130 Ctrl-C."""

    def __init__(self, status, line):
        super().__init__(line)
        self.status = status


@contextlib.contextmanager
def replacing(path):
    """A file written beside `path`, flushed to disk and moved into its place; or, if that fails, no file."""
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def save(path, c, state, seconds=0.0):
    """Write a checkpoint: the arrays of the state, and `about`, a JSON text with schema, setting and seconds."""
    about = json.dumps({"schema": SCHEMA, "setting": asdict(c), "seconds": seconds})
    with replacing(path) as file:
        np.savez(file, about=np.array(about), **state)


def load(path):
    """Read a checkpoint: setting, state, seconds so far. Raises Stop where it is missing, damaged or foreign."""
    if not path.exists():
        raise Stop(2, f"{path}: no such file, so there is no run to resume")
    try:
        with np.load(path, allow_pickle=False) as arrays:  # compares the checksum of each array
            state = dict(arrays)
        about = json.loads(str(state.pop("about")))
    except Exception:  # noqa: BLE001 - damage makes zipfile, NumPy and json raise almost anything
        raise Stop(2, f"{path}: is damaged, or not a checkpoint") from None
    try:
        options = {
            name: tuple(v) if isinstance(v, list) else v for name, v in about["setting"].items()
        }
        c, seconds, schema = Setting(**options), float(about["seconds"]), about["schema"]
    except (AttributeError, KeyError, TypeError, ValueError):
        schema = None
    if schema != SCHEMA:
        raise Stop(2, f"{path}: is a checkpoint of another version or program")
    kinds = [
        {name: (a.shape, a.dtype) for name, a in s.items()}
        for s in (state, metarl.initial_state(c))
    ]
    if kinds[0] != kinds[1] or not all(np.isfinite(a).all() for a in state.values()):
        raise Stop(2, f"{path}: its arrays do not belong to a run of its setting")
    return c, state, seconds


class Record:
    """The directory of a run: log.csv grows with every iteration, checkpoint.npz follows every few seconds."""

    def __init__(self, out, c, state, seconds):
        self.out, self.c, self.state, self.seconds = out, c, state, seconds
        self.start, self.saved = time.perf_counter() - seconds, time.perf_counter()
        self.lines = []  # of the log
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            save(out / "checkpoint.npz", c, state, seconds)
            self.log = self.open_log(out / "log.csv", int(state["t"]))

    def open_log(self, path, t):
        """log.csv up to iteration t, without what was written after the checkpoint; unbuffered, to append to."""
        self.lines = path.read_bytes().splitlines(keepends=True)[1 : t + 1] if path.exists() else []
        with replacing(path) as file:
            file.writelines([b"iteration,pre,post,env_steps,seconds\n", *self.lines])
        return open(path, "ab", buffering=0)

    def keep(self, state):
        seconds = time.perf_counter() - self.start
        values = [repr(state[name].item()) for name in ("t", "pre", "post", "env_steps")]
        self.lines.append(",".join([*values, f"{seconds:.3f}\n"]).encode())
        if self.out is not None:
            self.log.write(self.lines[-1])
        self.state, self.seconds = state, seconds
        if time.perf_counter() - self.saved > SAVE_EVERY:
            self.checkpoint()

    def checkpoint(self):
        if self.out is not None:
            os.fsync(self.log.fileno())  # the log may be ahead of the checkpoint, never behind
            save(self.out / "checkpoint.npz", self.c, self.state, self.seconds)
        self.saved = time.perf_counter()
