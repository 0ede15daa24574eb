"""Odd command lines by the thousand, damaged checkpoints, real kills and a real Ctrl-C."""

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial

import numpy as np
import pytest

import metarl
from harness import checkpoints, cli
from harness.settings import Setting
from metarl import ALGORITHMS
from test_metarl import SMALL
from tests import kills
from tests.command_line import arguments, rows, started, until

WORDS = """
    -1 0 1 2 3.5 1e3 1e400 -0.0 nan inf -inf x '' ü 1_0 0x10 99999999999999999999 -- - --x -h= =
    1,2 [] () None maml reptile ppo pointmass bandit bandit: bandit:arms=3 bandit:arms=-1
    bandit:arms=(( bandit:x=1 :arms=3 fourcorners linear-bandit:dims=2,noise=0 linear mlp tanh
    adam sgd none joint float16 float64 true / . .. /dev/null/run /proc/run nowhere/at/all
""".split()
WORDS += ["", " ", "a\nb", "a\0b", "9" * 5000, "a" * 300]


@pytest.fixture
def nothing_touched(tmp_path, monkeypatch):
    """Work in an empty directory, which must stay empty."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(3))
def test_wrong_and_odd_command_lines(seed, nothing_touched, monkeypatch, capsys):
    """800 a seed: exit status 2 and one line, or a setting that is in order; nothing written."""
    started = []
    monkeypatch.setattr(cli, "run", lambda c, *others: started.append(c))
    flags = [f"--{f.name.replace('_', '-')}" for f in fields(Setting)] + [
        "--out",
        "--resume",
        "--quiet",
    ]
    flags += [
        "--no-standardise",
        "--workers",
        "--alp",
        "--hid",
        "-q",
        "--algo=maml",
        "--alpha=",
        "--seed=3",
    ]
    noise, ran = random.Random(seed), 0
    for _ in range(800):
        argv = []
        for _ in range(noise.randrange(4)):
            argv.append(noise.choice(flags) if noise.random() < 0.9 else noise.choice(WORDS))
            argv += noise.choices(WORDS, k=noise.choice([0, 1, 1, 1, 2]))
        before = len(started)
        status = cli.main(argv)
        out, err = capsys.readouterr()
        ran += status == 0
        if status == 0:
            assert len(started) == before + 1 and isinstance(started[-1], Setting) and err == "", (
                argv
            )
        else:
            assert status == 2 and len(started) == before, argv
            assert err.startswith("metarl: ") and err.count("\n") == 1 and err.endswith("\n"), (
                argv,
                err,
            )
        assert out == ""
    assert 20 < ran < 1000


def damaged(good, noise):
    """A copy of `good` (bytes) with one kind of damage."""
    bad, n = bytearray(good), len(good)
    i, j = sorted(noise.integers(n, size=2))
    kind = noise.integers(7)
    if kind == 0:
        bad[i] ^= 1 << noise.integers(8)
    elif kind == 1:
        del bad[i:]
    elif kind == 2:
        del bad[i:j]
    elif kind == 3:
        bad[i:j] = noise.bytes(j - i)
    elif kind == 4:
        bad[i:i] = noise.bytes(10)
    elif kind == 5:
        bad[i:j] = bytes(j - i)
    else:
        bad = bytearray(noise.bytes(n // 4))
    return bytes(bad)


def test_damaged_checkpoints_are_refused_or_read_right(tmp_path):
    """2,000 files: `load` stops with status 2 in one line, or returns what was saved."""
    c = Setting(**SMALL)
    saved = next(metarl.train(c, metarl.initial_state(c)))
    path, noise, refused = tmp_path / "checkpoint.npz", np.random.default_rng(0), 0
    checkpoints.save(path, c, saved, 2.5)
    good = path.read_bytes()
    for _ in range(2000):
        path.write_bytes(bad := damaged(good, noise))
        try:
            c2, state, seconds = checkpoints.load(path)
        except checkpoints.Stop as stop:
            refused += 1
            assert stop.status == 2 and "\n" not in str(stop)
        else:
            assert (c2, seconds) == (c, 2.5)
            assert all(np.array_equal(state[name], value) for name, value in saved.items())
        assert path.read_bytes() == bad
    assert refused > 1500


@pytest.mark.parametrize("algo", ["maml", "cma-es"])
def test_a_killed_run_is_resumed_to_the_same_bits(algo, tmp_path):
    """SIGKILL at two random moments each; `python -m tests.kills` does it a thousand times.

    One that learns by gradients and a black box; test_cli.py resumes runs of all of them.
    """
    expected, seconds = kills.undisturbed(algo, tmp_path / "undisturbed")
    trial = partial(kills.trial, algo, expected, seconds)
    seeds = range(2)
    with ThreadPoolExecutor(2) as pool:
        killed = pool.map(trial, [tmp_path / str(seed) for seed in seeds], seeds)
    assert sum(killed) > 0


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_in_a_real_run(tmp_path):
    run = tmp_path / "run"
    flags = [*arguments(iterations=100_000), "--out", str(run), "--quiet"]
    with started("metarl.py", *flags) as process:
        until(lambda: rows(run) >= 2, process)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert err.count("\n") == 1 and f"python metarl.py --resume {run}" in err
    state = checkpoints.load(run / "checkpoint.npz")[1]
    assert rows(run) == state["t"] >= 2


@pytest.mark.parametrize("name", ["theta", "m", "v", "env_steps", "pre", "post"])
def test_a_nan_in_each_quantity_stops_the_run(name, tmp_path, capsys, monkeypatch):
    real = ALGORITHMS["maml"]

    def broken(c, state, address, in_chunks):
        new = real(c, state, address, in_chunks)
        return {**new, name: new[name] * np.nan} if state["t"] == 1 else new

    monkeypatch.setitem(ALGORITHMS, "maml", broken)
    assert cli.main([*arguments(), "--out", str(tmp_path), "--quiet"]) == 3
    err = capsys.readouterr().err
    assert f"iteration 2: not finite: {name};" in err and err.count("\n") == 1
    assert checkpoints.load(tmp_path / "checkpoint.npz")[1]["t"] == 1


@pytest.mark.parametrize(
    "when", ["at the start", "in the log", "at the last checkpoint", "in the result"]
)
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(
    when, tmp_path, capsys, monkeypatch
):
    """No space from some write on: exit status 2, no file half-written, to be resumed later."""
    writes, real, run = [], os.fsync, tmp_path / "run"
    first_failure = {
        "at the start": 0,
        "in the log": 1,
        "at the last checkpoint": 3,
        "in the result": 4,
    }[when]

    def full(descriptor):
        writes.append(descriptor)
        if len(writes) > first_failure:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main([*arguments(), "--out", str(run), "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "No space left on device" in err and err.count("\n") == 1
    assert not list(run.glob("*.new")) and not (run / "result.json").exists()
    flags = (
        ["--resume", str(run)]
        if (run / "checkpoint.npz").exists()
        else [*arguments(), "--out", str(run)]
    )
    assert cli.main([*flags, "--quiet"]) == 0
    assert (run / "result.json").exists()
