"""The command line as a user meets it, and the files of a run.

What a run's files hold, that none is ever half-written, what is said, and what is refused.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import islice

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
import metarl
from harness import checkpoints, cli
from harness.checkpoints import Stop, load, save
from harness.settings import Setting, flag
from metarl import ALGORITHMS
from test_metarl import SMALL
from tests.command_line import arguments, small


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
    c, state, seconds = load(run / "checkpoint.npz")
    save(run / "checkpoint.npz", c, state, seconds + 100)
    assert cli.main(["--resume", str(run), "--iterations", "4", "--quiet"]) == 0
    assert load(run / "checkpoint.npz")[2] > 100
    assert float((run / "log.csv").read_text().splitlines()[-1].rsplit(",", 1)[1]) > 100


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_save_and_load_keep_every_bit(algo, dtype, tmp_path):
    c = Setting(algo=algo, dtype=dtype, hidden=(3, 2), lam=0.5)
    state = next(metarl.train(c, metarl.initial_state(c)))
    save(tmp_path / "x.npz", c, state, 1.25)
    c2, state2, seconds = load(tmp_path / "x.npz")
    assert (c2, seconds) == (c, 1.25) and state.keys() == state2.keys()
    for name, value in state.items():
        assert_array_equal(state2[name], value, strict=True)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        with checkpoints.replacing(path) as file:
            file.write(b"new")
        assert (
            reader.read() == b"old" and path.read_bytes() == b"new"
        )  # moved into place, not overwritten

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space"), checkpoints.replacing(path) as file:
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
    with pytest.raises(Stop, match="not a checkpoint"):
        load(run / "checkpoint.npz")
    assert not (tmp_path / "executed").exists()


def test_a_flipped_bit_is_refused_or_changes_nothing(run, tmp_path):
    good = (run / "checkpoint.npz").read_bytes()
    _, state, _ = load(run / "checkpoint.npz")
    noise, refused = np.random.default_rng(0), 0
    for _ in range(300):
        bad = bytearray(good)
        bad[noise.integers(len(bad))] ^= 1 << noise.integers(8)
        (tmp_path / "bad.npz").write_bytes(bad)
        try:
            _, other, _ = load(tmp_path / "bad.npz")
        except Stop as stop:
            refused += 1
            assert stop.status == 2
        else:
            assert all(np.array_equal(other[name], state[name]) for name in state)
    assert refused > 200


def help_text(capsys, monkeypatch, columns=80):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 140])
def test_options_have_help_with_their_defaults(columns, capsys, monkeypatch):
    out = help_text(capsys, monkeypatch, columns)
    assert max(len(line) for line in out.splitlines()) <= columns
    words = " ".join(out.split())
    for f in fields(Setting):
        assert f" {flag(f.name)}" in words and f.metadata["help"] in words
    for default in (
        "[0.5; 0.25 for sparse-pointmass; 8.0 for bandit, linear-bandit; 0.2 for maml on",
        "[64 64; 32 for fourcorners]",
        "[1; 0 for joint; 3 for reptile]",
        "[off; on for es-maml, nes, cma-es, maml on pointmass, fomaml on pointmass]",
        "(pg, es, hc) [pg; hc for es-maml, nes, cma-es]",
        "for reptile only [1.0;",
        "half the population); not for es-maml [20;",
    ):
        assert default in words


def test_help_is_in_groups_with_an_example_and_the_options_of_each_family(capsys, monkeypatch):
    out = help_text(capsys, monkeypatch)
    headings = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings == [
        "options:",
        "algorithm:",
        "policy:",
        "inner loop:",
        "outer loop:",
        "black boxes:",
        "noise and size:",
        "meta-test:",
        "files and workers:",
        "families and their options, as in --env bandit:arms=10,horizon=100:",
    ]
    for words in ("pg  policy gradient", "es  ES gradient", "hc  hill climbing"):
        assert f"  {words}" in out
    families = out[out.index("families and their options") :].splitlines()
    assert "  bandit             arms=5, horizon=10, prior=()" in families
    assert "  pointmass          horizon=100, box=0.5, radius=0.01" in families
    assert {line.split()[0] for line in families[1:]} == set(envs.FAMILIES)
    [example] = [line.split() for line in out.splitlines() if line.startswith("  python metarl.py")]
    c, *_ = cli.prepare(example[2:])
    assert c.algo == "reptile" and c.family == envs.Bandit(arms=10)


def test_a_family_whose_splits_coincide_is_said_to_be_one(tmp_path, capsys):
    for env, said in (("fourcorners:horizon=3", True), ("pointmass:horizon=3", False)):
        run = tmp_path / env.partition(":")[0]
        assert cli.main([*arguments(env=env), "--out", str(run), "--quiet"]) == 0
        assert ("the training tasks themselves" in capsys.readouterr().out) == said
        assert json.loads((run / "result.json").read_text())["held_out"]["splits_coincide"] == said


def test_cma_es_says_when_it_takes_its_diagonal_form(capsys):
    for hidden, said in (((30, 30), True), ((3,), False)):
        flags = arguments(algo="cma-es", policy="mlp", hidden=hidden, iterations=1, episodes=2)
        assert cli.main(flags) == 0
        assert ("the diagonal of the covariance only" in capsys.readouterr().err) == said


def test_an_unwritable_directory_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main([*arguments(), "--out", str(tmp_path / "file" / "run")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "run" in err


# --- A run from the first flag to the last file ---
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_command_line_run_and_bit_identical_resume(algo, tmp_path, capsys):
    """Three iterations at once, or one and two more after a resume: the same files."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cli.main([*arguments(algo=algo), "--out", str(whole)]) == 0
    out, err = capsys.readouterr()
    assert f"\n{algo}" in out and "optimum" in out and "untrained" in out and "3/3" in err
    assert cli.main([*arguments(algo=algo, iterations=1), "--out", str(parts), "--quiet"]) == 0
    assert cli.main(["--resume", str(parts), "--iterations", "3", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    (c, state, _), (c2, state2, _) = (load(d / "checkpoint.npz") for d in (whole, parts))
    assert c == c2 == Setting(**small(algo=algo))
    for name, value in state.items():
        assert_array_equal(value, state2[name])
    results = [json.loads((d / "result.json").read_text()) for d in (whole, parts)]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    logs = [
        [row.rsplit(",", 1)[0] for row in (d / "log.csv").read_text().splitlines()]
        for d in (whole, parts)
    ]
    assert logs[0] == logs[1] and [row.split(",")[0] for row in logs[0]] == [
        "iteration",
        "1",
        "2",
        "3",
    ]


def test_result_json(tmp_path):
    assert (
        cli.main(
            [*arguments(algo="reptile", compare="joint"), "--out", str(tmp_path / "run"), "--quiet"]
        )
        == 0
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    keys = "schema numpy algo env policy seed config env_steps seconds held_out optimal baselines"
    assert list(result) == keys.split()
    held_out = result["held_out"]
    assert list(held_out) == [
        "tasks",
        "distinct_tasks",
        "splits_coincide",
        "episodes",
        "adapt_episodes",
        "mean",
        "ci95",
        "returns",
    ]
    returns = np.array(held_out["returns"])
    assert returns.shape == (3, 3)
    assert_allclose(held_out["mean"], returns.mean(0))
    assert_allclose(
        held_out["ci95"], 4.302652729911275 * returns.std(0, ddof=1) / np.sqrt(3)
    )  # t, 2 degrees
    c = Setting(algo="reptile", **SMALL)
    untrained = metarl.meta_test(c, metarl.initial_state(c)["theta"])[1]
    assert_allclose(result["baselines"]["random"]["mean"], untrained.mean(0))
    assert list(result["baselines"]) == ["random", "joint"]
    assert -1.5 < result["optimal"] < 0


def test_joint_beside_an_algorithm_is_joint_alone(tmp_path):
    joint = arguments(algo="joint", std=0.5), "joint"
    beside = arguments(algo="fomaml", std=0.5, compare="joint"), "fomaml"
    means = []
    for flags, name in (joint, beside):
        assert cli.main([*flags, "--out", str(tmp_path / name), "--quiet"]) == 0
        result = json.loads((tmp_path / name / "result.json").read_text())
        means.append(
            (result["held_out"] if name == "joint" else result["baselines"]["joint"])["mean"]
        )
    assert means[0] == means[1]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--algo", "ppo"], ["--algo ppo", "maml", "reptile"]),
        (["--alpha", "-1"], ["--alpha -1", "above 0"]),
        (["--alpha", "nan"], ["--alpha nan", "finite"]),
        (["--tasks", "2.5"], ["--tasks 2.5", "whole number"]),
        (["--gamma", "1.1"], ["--gamma 1.1", "from 0 to 1"]),
        (["--hidden", "8", "0"], ["--hidden", "above 0"]),
        (["--algo", "joint", "--inner-steps", "2"], ["--inner-steps 2", "joint"]),
        (["--inner-steps", "0"], ["--inner-steps 0", "at least 1"]),
        (["--inner-optimizer", "adam"], ["--inner-optimizer adam", "sgd", "maml"]),
        (["--inner", "hc"], ["--inner hc", "pg"]),
        (["--algo", "nes", "--inner", "es", "--episodes", "1"], ["--episodes 1", "at least 2"]),
        (
            ["--algo", "nes", "--inner", "es", "--adapt-episodes", "1"],
            ["--adapt-episodes 1", "at least 2"],
        ),
        (["--algo", "nes", "--compare", "joint"], ["--compare joint", "none for nes"]),
        (["--deterministic"], ["--deterministic True", "off"]),
        (["--algo", "es-maml", "--population", "7"], ["--population 7", "even"]),
        (["--iter", "5"], ["--iter"]),
        (["--seed"], ["--seed"]),
    ],
)
def test_bad_input_ends_in_one_line(flags, words, tmp_path, capsys):
    assert cli.main([*flags, "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert all(word in err for word in words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [["--out", ""], ["--out="], ["--resume", ""]])
def test_an_empty_name_is_not_the_current_directory(flags, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "run", lambda *run: pytest.fail("it runs"))
    assert cli.main(flags) == 2
    option = flags[0].rstrip("=")
    assert capsys.readouterr().err == f"metarl: argument {option}: must name a directory\n"


def test_numbers_that_are_not_finite_stop_the_run(tmp_path, capsys, monkeypatch):
    """At once, by name, with exit status 3, and the checkpoint of the iteration before is kept."""
    real = ALGORITHMS["maml"]

    def broken(c, state, address, in_chunks):
        new = real(c, state, address, in_chunks)
        return {**new, "v": new["v"] * np.nan} if state["t"] == 1 else new

    monkeypatch.setitem(ALGORITHMS, "maml", broken)
    assert cli.main([*arguments(), "--out", str(tmp_path / "run"), "--quiet"]) == 3
    err = capsys.readouterr().err
    assert "iteration 2" in err and " v" in err and err.count("\n") == 1
    assert load(tmp_path / "run" / "checkpoint.npz")[1]["t"] == 1


@pytest.mark.parametrize(
    "flags, words",
    [
        ("nes --inner pg --no-deterministic --alpha 1e300 --inner-steps 2", "f is NaN"),
        ("nes --sigma 1e308", "x must be finite"),
        ("nes --nes xnes --sigma 1e308", "x must be finite"),
        ("cma-es --sigma 1e308", "x must be finite"),
        ("reptile --alpha 1e300", "not finite: "),
        ("joint --iterations 1 --alpha 1e300", "the meta-test: "),
    ],
)
def test_numbers_that_are_too_large(flags, words, tmp_path, capsys):
    run = tmp_path / "run"
    size = "--tasks 2 --episodes 2 --test-tasks 3 --adapt-episodes 2 --iterations 2".split()
    assert cli.main([*size, "--algo", *flags.split(), "--out", str(run), "--quiet"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert words in err and "; try " in err
    assert ("iteration 1: " in err) == ("meta-test" not in err)
    assert not (run / "result.json").exists()
    load(run / "checkpoint.npz")


def test_interrupt_saves_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    real = ALGORITHMS["maml"]

    def interrupted(c, state, address, in_chunks):
        if state["t"] == 2:
            raise KeyboardInterrupt
        return real(c, state, address, in_chunks)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setitem(ALGORITHMS, "maml", interrupted)
        assert cli.main([*arguments(), "--out", str(run), "--quiet"]) == 130
    assert f"python metarl.py --resume {run}" in capsys.readouterr().err
    assert load(run / "checkpoint.npz")[1]["t"] == 2
    assert cli.main(["--resume", str(run), "--quiet"]) == 0


def test_resume_refuses_what_it_cannot_go_on_with(tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main([*arguments(), "--out", str(run), "--quiet"]) == 0
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "checkpoint.npz").write_bytes(before["checkpoint.npz"][:-100])
    capsys.readouterr()
    for flags, words in [
        (["--resume", str(run)], "has done 3 iterations"),
        (["--resume", str(run), "--iterations", "2"], "has done 3 iterations"),
        (["--resume", str(run), "--alpha", "0.1"], "--alpha 0.1: cannot change"),
        (["--resume", str(run), "--alpha", "x"], "--alpha x: cannot change"),
        (
            ["--resume", str(run), "--seed", "0", "--alpha", "0.1", "--no-standardise"],
            "metarl: --alpha 0.1, --no-standardise: cannot change",
        ),
        (["--resume", str(run), "--population", "8"], "--population 8: cannot change"),
        (["--resume", str(run), "--out", str(tmp_path / "other")], "other: cannot change"),
        (["--resume", str(run), "--iterations", "x"], "--iterations x: must be"),
        (["--out", str(run)], "holds a run"),
        (["--resume", str(tmp_path / "none")], "no such file"),
        (["--resume", str(damaged)], "damaged"),
    ]:
        assert cli.main(flags) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


@pytest.mark.parametrize("name", checkpoints.FILES)
def test_no_file_of_another_run_is_written_over(name, tmp_path, capsys):
    """Also of one that was killed before it had all of them."""
    (tmp_path / name).write_text("of another run")
    assert cli.main([*arguments(), "--out", str(tmp_path)]) == 2
    assert "holds a run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "of another run"


def test_resume_takes_the_whole_command_again(tmp_path):
    """Options that equal the run's own are no change, and the directory may be named twice."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    flags = partial(arguments, std=0.7, env="pointmass:horizon=9", standardise=True)
    assert cli.main([*flags(), "--out", str(whole), "--quiet"]) == 0
    assert cli.main([*flags(iterations=1), "--out", str(parts), "--quiet"]) == 0
    assert cli.main([*flags(), "--out", str(parts), "--resume", str(parts), "--quiet"]) == 0
    (c, state, _), (c2, state2, _) = (load(run / "checkpoint.npz") for run in (whole, parts))
    assert c == c2 and all(np.array_equal(state[name], state2[name]) for name in state)


# --- What runs, and what is not used ---
@pytest.mark.parametrize(
    "options, said, unsaid",
    [
        (
            {"algo": "maml", "seed": 7},
            [
                "maml on pointmass: mlp policy with 29 parameters, ",
                "1 inner step of policy gradient on 4 episodes each, alpha 0.5, learn_alpha on, ",
                "outer adam, beta 0.003, estimator lvc, tasks 3, iterations 3, seed 7\n",
            ],
            ["epsilon", "sigma", "population"],
        ),
        (
            {"algo": "reptile", "env": "bandit:arms=3", "policy": "linear"},
            ["reptile on bandit:arms=3: linear policy with 6 parameters, 3 inner steps", "epsilon"],
            ["beta", "estimator", "outer"],
        ),
        (
            {"algo": "es-maml"},
            ["hill climbing by 4 queries each", "outer adam, beta 0.05", "population 6, sigma 0.2"],
            ["alpha 0.5", "tasks", "estimator"],
        ),
        ({"algo": "nes", "nes": "xnes"}, ["nes xnes", "tasks 3"], ["beta", "outer"]),
    ],
)
def test_a_line_says_what_runs(options, said, unsaid, capsys):
    assert cli.main(arguments(**options)) == 0
    line = capsys.readouterr().err.splitlines(keepends=True)[0]
    assert all(words in line for words in said), line
    assert not any(words in line for words in unsaid), line
    assert cli.main([*arguments(**options), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--algo maml --population 8", "--population 8: not used by --algo maml"),
        (
            "--algo maml --population 8 --alpha 0.1 --nes xnes",
            "--population 8: not used by --algo maml; --nes xnes: not used by --algo maml",
        ),
        ("--algo maml --population 24", "--population 24: not used by --algo maml"),
        ("--algo es-maml --estimator dice", "--estimator dice: not used by --algo es-maml"),
        ("--epsilon 0.5", "--epsilon 0.5: not used by --algo maml"),
        ("--algo reptile --beta 0.1", "--beta 0.1: not used by --algo reptile"),
        ("--algo reptile --no-learn-alpha", "--no-learn-alpha: not used by --algo reptile"),
        ("--algo es-maml --tasks 8", "--tasks 8: not used by --algo es-maml"),
        ("--algo nes --inner hc --alpha 1", "--alpha 1.0: not used by --inner hc"),
        ("--algo nes --inner es --gamma 0.5", "--gamma 0.5: not used by --inner es"),
        ("--policy linear --hidden 8 8", "--hidden 8 8: not used by --policy linear"),
        ("--env bandit --hidden 8", "--hidden 8: not used by --policy linear"),
        ("--env bandit:arms=3 --std 0.5", "--std 0.5: not used by --env bandit:arms=3"),
        ("--algo nes --std 0.5", "--std 0.5: not used by --deterministic"),
        ("--outer trpo --beta 0.5", "--beta 0.5: not used by --outer trpo"),
        (
            "--env fourcorners --beta-alpha 0.5",
            "--beta-alpha 0.5: not used by --no-learn-alpha",
        ),
    ],
)
def test_an_option_that_is_not_used_is_refused_by_name(flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "run", lambda *run: pytest.fail("it runs"))
    assert cli.main([*flags.split(), "--out", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"metarl: {words}\n")
    assert not (tmp_path / "run").exists()


def test_what_the_baseline_beside_the_algorithm_uses_is_not_refused():
    c, *_ = cli.prepare("--algo reptile --compare joint --beta 0.1".split())
    assert (c.algo, c.beta) == ("reptile", 0.1)
    with pytest.raises(Stop, match="--estimator lvc: not used by --algo reptile"):
        cli.prepare("--algo reptile --compare joint --estimator lvc".split())


# --- A family and a policy of one's own, from Python ---
class Pendulum:
    """Swing a pole up and hold it; task: its length. The contract of envs.py to its letter."""

    obs_dim = 3
    action_dim = 1
    discrete = False
    horizon = 8
    task_dim = 1

    def sample_tasks(self, n, rng, split):
        low = 0.5 if split == "train" else 1.0
        return rng.uniform(low, low + 0.4, (n, 1))

    def reset(self, tasks, shape, rng):
        state = np.zeros((*shape, 2), tasks.dtype)
        state[..., 0] = np.pi
        return state

    def observe(self, state):
        angle, speed = state[..., :1], state[..., 1:]
        return np.concatenate([np.cos(angle), np.sin(angle), speed], -1)

    def step(self, state, action, tasks, rng):
        angle, speed = state[..., 0], state[..., 1]
        torque = action[..., 0].clip(-2, 2)
        speed = speed + 0.05 * (10 * np.sin(angle) / tasks[..., 0] + torque)
        angle = angle + 0.05 * speed
        reward = np.cos(angle) - 0.1 * torque**2
        return np.stack([angle, speed], -1), reward, np.zeros(reward.shape, bool)


@pytest.mark.parametrize("algo", ["maml", "reptile", "nes"])
def test_a_family_that_knows_no_optimum_and_no_goals(algo, capsys):
    c = Setting(**SMALL | dict(env=Pendulum(), algo=algo))
    result = cli.run(c)
    out, err = capsys.readouterr()
    assert result["env"] == result["config"]["env"] == "Pendulum"
    assert result["optimal"] is None and result["held_out"]["splits_coincide"] is False
    json.dumps(result, allow_nan=False)
    assert out.startswith("Pendulum: mean return on 3 held-out tasks,")
    assert f"\n{algo} " in out and "\nuntrained " in out
    assert not any(word in out for word in ("optimum", "score", "goal X"))
    assert err.startswith(f"{algo} on Pendulum: ")
    state = list(islice(metarl.train(c, metarl.initial_state(c)), 3))[-1]
    assert_allclose(result["held_out"]["returns"], metarl.meta_test(c, state["theta"])[1])


def test_such_a_family_by_its_name_is_kept_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(envs.FAMILIES, "pendulum", Pendulum)
    monkeypatch.setattr(envs, "make", lambda name, **options: envs.FAMILIES[name](**options))
    run = tmp_path / "run"
    assert cli.main([*arguments(env="pendulum"), "--out", str(run)]) == 0
    assert cli.main(["--resume", str(run), "--iterations", "4"]) == 0
    result = json.loads((run / "result.json").read_text())
    assert (result["env"], result["optimal"]) == ("pendulum", None)
    assert "\n  pendulum" in help_text(capsys, monkeypatch)


def test_a_run_with_an_object_is_kept_and_resumed_with_it(tmp_path, capsys):
    """From Python, to the same bits; the command line says what is missing."""
    c = Setting(**SMALL | {"env": Pendulum(), "policy": Setting(env=Pendulum()).pi})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    cli.run(c, out=whole, quiet=True)
    cli.run(replace(c, iterations=1), out=parts, quiet=True)
    capsys.readouterr()
    assert cli.main(["--resume", str(parts), "--iterations", "3"]) == 2
    err = capsys.readouterr().err
    assert "--env was an object, Pendulum: load(..., env=...)" in err and err.count("\n") == 1
    path = parts / "checkpoint.npz"
    for objects, words in (
        ({"policy": c.policy}, "--env was an object, Pendulum: load"),
        ({"env": c.env}, r"--policy was an object, Policy\(obs_dim=3, .*: load\(..., policy=...\)"),
        ({"env": envs.PointMass(), "policy": c.policy}, "--env was an object, Pendulum"),
        ({"env": c.env, "policy": Setting().pi}, "--policy was an object, Policy"),
    ):
        with pytest.raises(Stop, match=words):
            load(path, **objects)
    short, state, seconds = load(path, env=c.env, policy=c.policy)
    assert short == replace(c, iterations=1)
    cli.run(replace(short, iterations=3), state, seconds, out=parts, quiet=True)
    (_, state, _), (_, state2, _) = (
        load(out / "checkpoint.npz", env=c.env, policy=c.policy) for out in (whole, parts)
    )
    assert all(np.array_equal(state[name], state2[name]) for name in state)
    results = [json.loads((out / "result.json").read_text()) for out in (whole, parts)]
    assert results[0]["held_out"] == results[1]["held_out"]


def test_no_object_takes_the_place_of_a_name(run):
    with pytest.raises(Stop, match="--env was pointmass, and no object"):
        load(run / "checkpoint.npz", env=envs.PointMass())
    with pytest.raises(Stop, match="--policy was mlp, and no object"):
        load(run / "checkpoint.npz", policy=Setting().pi)


def test_words_of_an_object_are_the_same_in_another_process():
    """Those of a dataclass with its fields, but not where in memory something is."""

    @dataclass
    class Maze:
        reward: object
        walls: int = 3

    mazes = [Maze(lambda x: x), Maze(lambda x: x), Maze(lambda x: x, walls=4)]
    one, other, with_more_walls = map(checkpoints.in_words, mazes)
    assert one == other != with_more_walls
    assert one["object"].endswith(", walls=3)")


def test_what_a_checkpoint_did_not_need_to_be_given_follows_the_algorithm(tmp_path):
    c = Setting("fomaml", alpha=0.3)
    save(tmp_path / "x.npz", c, metarl.initial_state(c))
    loaded, _, _ = load(tmp_path / "x.npz")
    assert loaded == c and loaded.changed(algo="maml") == Setting("maml", alpha=0.3)
    with pytest.raises(ValueError, match="of another algorithm or family"):
        replace(loaded, algo="maml")


@pytest.mark.parametrize("change", [{"own": np.zeros(2)}, {"theta": np.array([np.nan])}])
def test_what_load_would_refuse_is_not_saved(change, tmp_path):
    """Arrays that an algorithm of one's own adds belong to its initial state, or are lost."""
    c = Setting(**SMALL)
    with pytest.raises(checkpoints.Stop, match="not written: .*initial_state, all finite"):
        save(tmp_path / "x.npz", c, metarl.initial_state(c) | change)
    assert not list(tmp_path.iterdir())


def test_the_directory_of_a_run_may_be_a_text(tmp_path):
    cli.run(Setting(**SMALL), out=str(tmp_path / "run"), quiet=True)
    assert load(tmp_path / "run/checkpoint.npz")[0] == Setting(**SMALL)


def test_a_checkpoint_is_json_without_nan(tmp_path):
    c = Setting(**SMALL)
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(tmp_path / "x.npz", c, metarl.initial_state(c), float("nan"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["the meta-test", "the test of the untrained parameters"])
def test_returns_that_are_not_finite_in_the_test_stop_the_run(where, tmp_path, capsys, monkeypatch):
    """With exit status 3, after the checkpoint, before a result that would not be JSON."""
    real = metarl.meta_test
    start = metarl.initial_state(Setting(**SMALL))["theta"]

    def broken(c, theta, in_chunks):
        tasks, returns = real(c, theta, in_chunks)
        untrained = np.array_equal(theta, start)
        if untrained == (where != "the meta-test"):
            returns[0, -1] = np.nan
        return tasks, returns

    monkeypatch.setattr(metarl, "meta_test", broken)
    run = tmp_path / "run"
    assert cli.main([*arguments(), "--out", str(run), "--quiet"]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"metarl: {where}: ") and err.count("\n") == 1
    assert load(run / "checkpoint.npz")[1]["t"] == 3 and not (run / "result.json").exists()
