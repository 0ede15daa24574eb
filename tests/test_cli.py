"""The files of a run: what they hold, that none is ever half-written, and what is refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import metarl
from harness import checkpoints, cli
from harness.settings import Setting
from metarl import ALGORITHMS
from test_metarl import SMALL, arguments


@pytest.fixture
def run(tmp_path):
    """The directory of a finished run."""
    assert cli.main([*arguments(), "--out", str(tmp_path / "run"), "--quiet"]) == 0
    return tmp_path / "run"


def test_log_holds_each_state(run):
    c = Setting(**SMALL)
    rows = [row.split(",") for row in (run / "log.csv").read_text().splitlines()]
    assert rows[0] == ["iteration", "pre", "post", "env_steps", "seconds"]
    for row, state in zip(rows[1:], metarl.train(c, metarl.initial_state(c))):  # noqa: B905
        assert [float(x) for x in row[:4]] == [
            state[name] for name in ("t", "pre", "post", "env_steps")
        ]
    seconds = [float(row[4]) for row in rows[1:]]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_log_written_after_the_checkpoint_is_dropped_on_resume(run, tmp_path):
    part = tmp_path / "part"
    assert cli.main([*arguments(iterations=1), "--out", str(part), "--quiet"]) == 0
    with open(part / "log.csv", "a") as log:
        log.write("2,-1.0,-1.0,9.0,9.0\n3,-1.0,-")
    assert cli.main(["--resume", str(part), "--iterations", "3", "--quiet"]) == 0
    logs = [
        [row.rsplit(",", 1)[0] for row in (d / "log.csv").read_text().splitlines()]
        for d in (run, part)
    ]
    assert logs[0] == logs[1]


def test_a_run_killed_before_its_result_is_resumed_to_it(run):
    before = json.loads((run / "result.json").read_text())
    (run / "result.json").unlink()
    assert cli.main(["--resume", str(run), "--quiet"]) == 0
    assert json.loads((run / "result.json").read_text()) == before


def test_seconds_go_on_over_a_resume(run):
    c, state, seconds = cli.load(run / "checkpoint.npz")
    cli.save(run / "checkpoint.npz", c, state, seconds + 100)
    assert cli.main(["--resume", str(run), "--iterations", "4", "--quiet"]) == 0
    assert cli.load(run / "checkpoint.npz")[2] > 100
    assert float((run / "log.csv").read_text().splitlines()[-1].rsplit(",", 1)[1]) > 100


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_save_and_load_keep_every_bit(algo, dtype, tmp_path):
    c = Setting(algo=algo, dtype=dtype, hidden=(3, 2), lam=0.5)
    state = next(metarl.train(c, metarl.initial_state(c)))
    cli.save(tmp_path / "x.npz", c, state, 1.25)
    c2, state2, seconds = cli.load(tmp_path / "x.npz")
    assert (c2, seconds) == (c, 1.25) and state.keys() == state2.keys()
    for name, value in state.items():
        assert_array_equal(state2[name], value, strict=True)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        with cli.replacing(path) as file:
            file.write(b"new")
        assert (
            reader.read() == b"old" and path.read_bytes() == b"new"
        )  # moved into place, not overwritten

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space"), cli.replacing(path) as file:
        file.write(b"half")
    assert path.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["file"]


def rewritten(path, **changes):
    with np.load(path) as arrays:
        contents = dict(arrays) | changes
    np.savez(path, **{name: value for name, value in contents.items() if value is not None})


def about(**changes):
    return np.array(
        json.dumps({"schema": 1, "setting": asdict(Setting(**SMALL)), "seconds": 0.0} | changes)
    )


SIZE = metarl.initial_state(Setting(**SMALL))["theta"].size


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"theta": np.zeros(3)}, "arrays do not belong"),
        ({"theta": np.zeros(SIZE, "f4")}, "arrays do not belong"),
        ({"m": None}, "arrays do not belong"),
        ({"extra": np.zeros(3)}, "arrays do not belong"),
        ({"v": np.full(SIZE, np.nan)}, "arrays do not belong"),
        ({"about": None}, "not a checkpoint"),
        ({"about": np.array("text")}, "not a checkpoint"),
        ({"about": np.array([None])}, "not a checkpoint"),  # pickled
        ({"about": about(schema=2)}, "another version"),
        ({"about": about(setting={"algo": "ppo"})}, "another version"),
        ({"about": about(setting={"temperature": 3})}, "another version"),
        ({"about": about(setting=[])}, "another version"),
        ({"about": about(seconds=None)}, "another version"),
        ({"about": np.array("[]")}, "another version"),
    ],
)
def test_foreign_checkpoints_are_refused_by_name(run, changes, words, capsys):
    rewritten(run / "checkpoint.npz", **changes)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert cli.main(["--resume", str(run), "--iterations", "9"]) == 2
    err = capsys.readouterr().err
    assert words in err and str(run / "checkpoint.npz") in err and err.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_pickles_are_not_loaded(run, tmp_path):
    class Mine:
        def __reduce__(self):
            return (tmp_path / "executed").write_text, ("",)

    rewritten(run / "checkpoint.npz", about=np.array([Mine()]))
    with pytest.raises(cli.Stop, match="not a checkpoint"):
        cli.load(run / "checkpoint.npz")
    assert not (tmp_path / "executed").exists()


def test_a_flipped_bit_is_refused_or_changes_nothing(run, tmp_path):
    good = (run / "checkpoint.npz").read_bytes()
    _, state, _ = cli.load(run / "checkpoint.npz")
    noise, refused = np.random.default_rng(0), 0
    for _ in range(300):
        bad = bytearray(good)
        bad[noise.integers(len(bad))] ^= 1 << noise.integers(8)
        (tmp_path / "bad.npz").write_bytes(bad)
        try:
            _, other, _ = cli.load(tmp_path / "bad.npz")
        except cli.Stop as stop:
            refused += 1
            assert stop.status == 2
        else:
            assert all(np.array_equal(other[name], state[name]) for name in state)
    assert refused > 200


def test_options_have_help_with_their_defaults(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  --")}
    assert {name.strip(",") for name in lines} >= {cli.flag(f) for f in cli.fields(Setting)}
    assert "[0.5; sparse-pointmass 0.25; " in lines["--alpha"] and lines["--hidden"].endswith(
        "[64 64; fourcorners 32]"
    )
    assert "[1; reptile 3; joint 0]" in lines["--inner-steps"]


def test_a_family_whose_splits_coincide_is_said_to_be_one(tmp_path, capsys):
    for env, said in (("fourcorners:horizon=3", True), ("pointmass:horizon=3", False)):
        run = tmp_path / env.partition(":")[0]
        assert cli.main([*arguments(env=env), "--out", str(run), "--quiet"]) == 0
        assert ("the training tasks themselves" in capsys.readouterr().out) == said
        assert json.loads((run / "result.json").read_text())["held_out"]["splits_coincide"] == said


def test_cma_es_says_when_it_takes_its_diagonal_form(capsys):
    for hidden, said in ((("30", "30"), True), (("3",), False)):
        flags = arguments(algo="cma-es", policy="mlp", hidden=hidden, iterations=1, episodes=2)
        assert cli.main(flags) == 0
        assert ("the diagonal of the covariance only" in capsys.readouterr().err) == said


def test_progress_is_one_line_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert cli.main(arguments()) == 0
    err = capsys.readouterr().err
    assert (
        err.startswith("\rmaml ")
        and err.count("\n") == 1
        and "3/3" in err
        and "iterations/s" in err
    )


def test_an_unwritable_directory_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main([*arguments(), "--out", str(tmp_path / "file" / "run")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "run" in err
