"""The comparison: equal terms, budgets that are kept, runs that are kept,
and numbers against their definitions.
"""

import itertools
import json
from contextlib import nullcontext

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import t as student

import metarl
from benchmarks import compare
from benchmarks.compare import FRACTIONS, ROWS, SHARED, setting

TINY = dict(
    hidden=(3,), tasks=2, episodes=2, population=4, adapt_episodes=3, test_tasks=3, test_episodes=2
)
TINY |= dict(env="turned-pointmass:horizon=5")
BUDGET = 500.0


def tiny(name, seed=0, **options):
    return setting(name, **(TINY | {"seed": seed} | options))


def tiny_comparison(out, algos, seeds=2, **options):
    return compare.compare(out, algos=algos, budget=BUDGET, seeds=seeds, **(TINY | options))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tiny_comparison(tmp_path_factory.mktemp("compare"), ["maml", "reptile", "es-maml"])


# --- Equal terms ---
def test_all_rows_share_what_decides_on_the_test():
    settings = [setting(name, "pointmass", 3) for name in ROWS]
    for name, value in SHARED.items():
        assert {getattr(c, name) for c in settings} == {value}, name
    tasks = [
        metarl.meta_test(tiny(name, 3), metarl.initial_state(tiny(name, 3))["theta"])[0]
        for name in ROWS
    ]
    for other in tasks[1:]:
        assert_array_equal(other, tasks[0])
    assert {c.algo for c in settings} == set(metarl.ALGORITHMS)


@pytest.mark.parametrize("env", ["pointmass", "sparse-pointmass"])
@pytest.mark.parametrize("options", [{}, {"learn_alpha": True}, {"policy": "linear", "std": 0.7}])
def test_the_rows_like_maml_differ_from_it_by_the_meta_optimiser_only(env, options):
    maml = setting("maml", env, 0, **options)
    for algo in ("es-maml", "nes", "cma-es"):
        c = setting(f"{algo}-pg", env, 0, **options)
        assert (c.algo, c.population, c.tasks) == (algo, 20, 5)
        same = "policy hidden std activation inner deterministic gamma "
        same += "alpha alpha_decay learn_alpha inner_steps"
        for name in same.split():
            assert getattr(c, name) == getattr(maml, name), name
        first = metarl.initial_state(c)["theta"], metarl.initial_state(maml)["theta"]
        assert_array_equal(*first)


# --- A run ---
@pytest.mark.parametrize("name", ["maml", "joint", "reptile", "es-maml", "cma-es-pg"])
def test_a_run_is_tested_at_the_first_iterations_that_reach_the_fractions(name):
    c = tiny(name)
    result = compare.run(c, BUDGET)
    states = [
        metarl.initial_state(c),
        *itertools.islice(metarl.train(c, metarl.initial_state(c)), 60),
    ]
    for fraction, env_steps, returns in zip(
        FRACTIONS, result["env_steps"], result["returns"], strict=True
    ):
        state = next(s for s in states if s["env_steps"] >= fraction * BUDGET)
        assert env_steps == state["env_steps"]
        tasks, expected = metarl.meta_test(c, state["theta"])
        assert_array_equal(returns, expected)
    assert_array_equal(result["optimal"], c.family.optimal_return(tasks))
    assert result["parameters"] == c.pi.size
    assert result["updates"] == compare.plain([compare.update(c, x) for x in (states[0], state)])
    assert result["seconds"] == sorted(result["seconds"])


@pytest.mark.parametrize("name", ROWS)
def test_a_result_is_what_json_gives_back(name):
    result = compare.run(tiny(name), 1.0)
    assert json.loads(json.dumps(result)) == result


# --- Updates ---
def test_agreement_is_the_mean_cosine_of_pairs():
    u = metarl.noise_at(0).standard_normal((4, 7)) + 1
    pairs = [a @ b for a, b in itertools.combinations(u, 2)]
    assert compare.agreement(u) == pytest.approx(
        np.mean(pairs) / np.mean([a @ a for a in u]), rel=1e-12
    )
    assert compare.agreement(np.ones((3, 5))) == pytest.approx(1)
    assert compare.agreement(np.eye(3)) == pytest.approx(0)
    assert compare.agreement(np.zeros((3, 5))) == 0  # nothing moves


def test_signal_to_noise_of_updates_with_known_signal_and_noise():
    """Mean (3, 4), deviation 2 in each of 2 directions:
    25 / 8 from half a million steps, twice that from a million.
    """
    u = np.array([3.0, 4.0]) + 2 * metarl.noise_at(0).standard_normal((200_000, 2))
    ratio = compare.signal_to_noise(compare.agreement(u), 5e5)
    assert ratio == pytest.approx(2 * 25 / 8, rel=0.02)


def test_pieces_and_numbers_are_counted():
    T, n, K, H = TINY["tasks"], TINY["population"], TINY["episodes"], 5
    for name, pieces, episodes in (
        ("maml", T, 2 * K),
        ("joint", T, K),
        ("es-maml-pg", n, 2 * K),
        ("nes", n * T, K + 1),
    ):
        c = tiny(name)
        about = compare.update(c, metarl.initial_state(c))
        assert about["pieces"] == pieces
        assert about["numbers"] == (c.pi.size if c.algo in metarl.GRADIENTS else 1)
        assert about["env_steps"] == pieces * episodes * H


def test_updates_of_the_same_state_are_independent_and_leave_it():
    c = tiny("maml")
    state = metarl.initial_state(c)
    before = {name: value.copy() for name, value in state.items()}
    cosine = compare.update(c, state)["cosine"]
    assert -1 / 3 <= cosine < 1 - 1e-6
    for name, value in before.items():
        assert_array_equal(state[name], value)


# --- Runs that are kept ---
@pytest.fixture
def counted(monkeypatch):
    """Replaces `run` by one that does nothing but note the name and seed
    of what it is asked for.
    """
    done = []

    def run(c, budget):
        done.append((c.algo, c.seed))
        columns = {"env_steps": [budget], "seconds": [1.0], "returns": [[[0.0]]]}
        return compare.plain({**compare.key(c, budget), **columns})

    monkeypatch.setattr(compare, "run", run)
    return done


def test_finished_runs_are_skipped_and_give_the_same(tmp_path, counted):
    first = tiny_comparison(tmp_path, ["maml", "joint"])
    assert counted == [("maml", 0), ("maml", 1), ("joint", 0), ("joint", 1)]
    assert tiny_comparison(tmp_path, ["maml", "joint"]) == first and len(counted) == 4
    assert tiny_comparison(tmp_path, ["maml", "joint"], seeds=3)["joint"][:2] == first["joint"]
    assert counted[4:] == [("maml", 2), ("joint", 2)]


@pytest.mark.parametrize(
    "options", [{"alpha": 0.3}, {"env": "pointmass"}, {"test_tasks": 4}, {"hidden": (4,)}]
)
def test_a_changed_setting_is_not_mistaken_for_a_finished_one(tmp_path, counted, options):
    tiny_comparison(tmp_path, ["maml"])
    tiny_comparison(tmp_path, ["maml"], **options)
    assert len(counted) == 4 and len(list(tmp_path.iterdir())) == 4
    tiny_comparison(tmp_path, ["maml"])
    assert len(counted) == 4


def test_a_changed_budget_is_not_mistaken_for_a_finished_one(tmp_path, counted):
    for budget in (BUDGET, BUDGET + 1, BUDGET):
        compare.compare(tmp_path, algos=["maml"], budget=budget, seeds=1, **TINY)
    assert len(counted) == 2


@pytest.mark.parametrize("change", [b"", b"{", b"[]", b"null", b'{"schema": 1}', b"\xff"])
def test_a_damaged_or_foreign_file_is_done_again(tmp_path, counted, change):
    tiny_comparison(tmp_path, ["maml"], seeds=1)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(change)
    tiny_comparison(tmp_path, ["maml"], seeds=1)
    assert len(counted) == 2 and path.read_bytes() == whole


def test_a_file_under_the_name_of_another_setting_is_done_again(tmp_path, counted):
    """As after a collision of digests, or where a file was renamed: the content decides."""
    for name, value in (("budget", 7.0), ("schema", 0), ("setting", {})):
        tiny_comparison(tmp_path, ["maml"], seeds=1)
        (path,) = tmp_path.iterdir()
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
        counted.clear()
        tiny_comparison(tmp_path, ["maml"], seeds=1)
        assert counted == [("maml", 0)], name


def test_interrupted_it_keeps_finished_runs(tmp_path, monkeypatch, counted, capsys):
    run = compare.run

    def interrupted(c, budget):
        if c.algo == "joint":
            raise KeyboardInterrupt
        return run(c, budget)

    argv = ["--algos", "maml", "joint", "--seeds", "2", "--out", str(tmp_path / "a b")]
    monkeypatch.setattr(compare, "run", interrupted)
    monkeypatch.setattr(compare, "workers", lambda n: nullcontext(map))
    assert compare.main(argv) == 130
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("interrupted; what is finished is in")
    )
    assert sorted(path.name[:6] for path in (tmp_path / "a b").iterdir()) == ["maml-0", "maml-1"]
    monkeypatch.setattr(compare, "run", run)
    monkeypatch.setattr(compare, "table", lambda results: "")
    monkeypatch.setattr(compare, "optimisers", lambda results: "")
    assert compare.main(argv) == 0
    assert counted == [("maml", 0), ("maml", 1), ("joint", 0), ("joint", 1)]


# --- What is printed ---
def test_curves_and_regret_are_means_over_seeds_with_students_interval(results):
    runs = results["reptile"]
    curve = compare.curves(runs)
    # (seeds, points, k + 1)
    by_seed = np.array([[np.mean(point, 0) for point in run["returns"]] for run in runs])
    assert_allclose(curve["returns"], by_seed.mean(0), rtol=1e-12)
    half = student.ppf(0.975, 1) * by_seed.std(0, ddof=1) / np.sqrt(2)
    assert_allclose(curve["ci95"], half, rtol=1e-9)
    assert_allclose(curve["env_steps"], np.mean([run["env_steps"] for run in runs], 0))
    assert_allclose(curve["seconds"], np.mean([run["seconds"] for run in runs], 0))
    lost = [np.mean(run["optimal"]) - by_seed[i, -1, -1] for i, run in enumerate(runs)]
    mean, half = compare.regret(runs)
    assert_allclose(
        [mean, half], [np.mean(lost), student.ppf(0.975, 1) * np.std(lost, ddof=1) / np.sqrt(2)]
    )
    assert mean > 0


def test_with_one_seed_intervals_are_over_tasks(results):
    (run, _) = results["maml"]
    returns = np.array(run["returns"])  # (points, tasks, k + 1)
    curve = compare.curves([run])
    assert_allclose(curve["returns"], returns.mean(1), rtol=1e-12)
    assert_allclose(
        curve["ci95"], student.ppf(0.975, 2) * returns.std(1, ddof=1) / np.sqrt(3), rtol=1e-9
    )


def test_the_tables_hold_the_numbers(results):
    lines = compare.table(results).splitlines()
    assert (
        "seeds: 2, budget: 500" in lines[0]
        and "on 3 held-out tasks" in lines[0]
        and "of 3 episodes" in lines[0]
    )
    curve = compare.curves(results["es-maml"])
    row = next(line for line in lines if line.startswith("es-maml"))
    assert row.split()[:5] == ["es-maml", "linear,", "P=8", "hc", "+alpha"]
    cells = [
        f"{m:.2f} ± {h:.2f}" for m, h in zip(curve["returns"][-1], curve["ci95"][-1], strict=True)
    ]
    cells.append("{:.2f} ± {:.2f}".format(*compare.regret(results["es-maml"])))
    assert row.split("alpha")[1].split() == [
        *" ".join(cells).split(),
        f"{curve['env_steps'][-1]:,.0f}",
        row.split()[-1],
    ]
    untrained = [line for line in lines if line.startswith("untrained")]
    assert len(untrained) == 2
    for line, name, inner in zip(untrained, ("maml", "es-maml"), ("pg", "hc"), strict=True):
        first = compare.curves(results[name])["returns"][0]
        assert line.split(inner)[1].split()[::3] == [f"{m:.2f}" for m in first]
    assert lines[-1].split() == [
        "optimum",
        f"{np.mean([run['optimal'] for run in results['maml']]):.2f}",
    ]

    updates = compare.optimisers(results).splitlines()
    pieces, numbers, steps, cosine, ratio, last, _, cost = updates[2].split()[1:]
    about = [[run["updates"][end] for run in results["maml"]] for end in (0, 1)]
    assert (pieces, numbers, steps) == ("2", f"{results['maml'][0]['parameters']}", "40")
    assert cosine == f"{np.mean([x['cosine'] for x in about[0]]):.4f}"
    assert last == f"{np.mean([x['cosine'] for x in about[1]]):.4f}"
    assert ratio == f"{compare.signal_to_noise(np.mean([x['cosine'] for x in about[0]]), 40):.3f}"
    seconds, taken = (
        sum(run[name][-1] for run in results["maml"]) for name in ("seconds", "env_steps")
    )
    assert cost == f"{1e6 * seconds / taken:.2f}"


def test_the_command_line_in_two_processes(tmp_path, capsys):
    env = "turned-pointmass:horizon=2"
    argv = [
        "--env",
        env,
        "--algos",
        "joint",
        "nes",
        "--budget",
        "1",
        "--seeds",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert compare.main(argv) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(env) and "\njoint " in printed and "\nnes " in printed
    names = {path.name.rsplit("-", 1)[0] for path in tmp_path.iterdir()}
    assert names == {"joint-0", "nes-0"}


@pytest.mark.parametrize(
    "bad", [["--env", "nowhere"], ["--budget", "nan"], ["--seeds", "0"], ["--algos", "sarsa"]]
)
def test_bad_input_is_refused_before_anything_is_written(bad, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main([*bad, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and not (tmp_path / "out").exists()
    assert bad[1] in capsys.readouterr().err.splitlines()[-1] or bad[0] in ("--budget", "--seeds")
