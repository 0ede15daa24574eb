"""The pictures of a run: what they show, that numbers do not depend on them, and that they are the same each time."""

import io
import json
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import metarl
from harness import cli, figures
from harness.settings import Setting
from test_metarl import SMALL
from tests.command_line import arguments

FAMILIES = [
    "pointmass:horizon=6",
    "turned-pointmass:horizon=6",
    "fourcorners:horizon=6",
    "bandit",
    "linear-bandit:arms=12",
]


def setting(**options):
    return Setting(**SMALL | dict(env="pointmass:horizon=6") | options)


def thetas(c, n=3):
    return np.stack([c.network.init(metarl.noise_at(i)) for i in range(n)])


# --- What is drawn ---
def test_the_largest_task_is_drawn_first_then_what_is_farthest_from_those_before():
    c = setting(test_tasks=12)
    tasks, drawn = metarl.meta_test(c, metarl.initial_state(c)["theta"])[0], figures.chosen(c, 5)
    rows = [tasks.tolist().index(task) for task in drawn.tolist()]
    assert len(set(rows)) == 5 and np.linalg.norm(drawn[0]) == np.linalg.norm(tasks, axis=1).max()
    for n in range(1, 5):
        apart = [min(np.hypot(*(task - before)) for before in drawn[:n]) for task in tasks]
        assert rows[n] == np.argmax(apart)
    assert figures.chosen(c, 99).shape == (12, 2)


@pytest.mark.parametrize("env", [env for env in FAMILIES if "bandit" not in env])
def test_a_path_is_where_the_mean_actions_lead(env):
    c = setting(env=env)
    tasks, theta = figures.chosen(c, 3), thetas(c)
    for task, theta_i, path in zip(tasks, theta, figures.paths(c, theta, tasks), strict=True):
        state, positions, done = np.zeros(2), [np.zeros(2)], False
        while len(positions) <= c.family.horizon and not done:
            state, _, done = c.family.step(state, c.network.mode(theta_i, state), task, None)
            positions.append(state)
        assert_allclose(path, positions, atol=1e-15)


def test_a_path_ends_with_its_episode():
    c = setting(env="pointmass:radius=0.1")
    theta = thetas(c) * 0
    theta[:, c.network.size - 4 : c.network.size - 2] = (
        10,
        0.5,
    )  # the biases of the last layer: full speed, and half
    tasks = np.array([[0.35, 0.175], [0.5, 0.5], [0.04, 0.0]])
    ends = [path[-1].tolist() for path in figures.paths(c, theta, tasks)]
    assert_allclose(ends[::2], [[0.3, 0.15], [0.1, 0.05]])
    assert_allclose(figures.paths(c, theta, tasks)[1], np.arange(101)[:, None] * [0.1, 0.05])


@pytest.mark.parametrize("deterministic", [False, True])
def test_probabilities_of_the_arms(deterministic):
    c = setting(
        env="bandit:arms=3", policy="linear", algo="cma-es", inner="hc", deterministic=deterministic
    )
    theta = thetas(c)
    p = figures.probabilities(c, theta, figures.chosen(c, 3))
    logits = theta[:, :3] + theta[:, 3:]  # weights times 1, and biases
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert_allclose(p, np.eye(3)[logits.argmax(1)] if deterministic else expected, rtol=1e-14)


@pytest.mark.parametrize("algo", ["maml", "reptile", "cma-es"])
@pytest.mark.parametrize("env", FAMILIES)
def test_adaptations_are_those_of_the_meta_test(algo, env):
    c = setting(algo=algo, env=env)
    theta = metarl.initial_state(c)["theta"]
    drawn, tasks = figures.adaptations(c, theta, 2), figures.chosen(c, 2)
    steps = metarl.adaptation(
        replace(c, episodes=5), theta, tasks, (0, metarl.TEST, figures.PICTURES)
    )
    assert len(drawn) == 2 and all(len(views) == c.test_steps + 1 for views, _ in drawn)
    for k, theta_k in zip(range(c.test_steps + 1), steps, strict=False):
        view = figures.probabilities if c.family.discrete else figures.paths
        for i, expected in enumerate(view(c, theta_k, tasks)):
            assert_array_equal(drawn[i][0][k], expected)
    target = c.family.means(tasks) if c.family.discrete else c.family.goals(tasks)
    assert_array_equal([row for _, row in drawn], target)


def test_noise_of_pictures_is_used_by_nothing_else(monkeypatch, capsys):
    used, noise_at = [], metarl.noise_at
    monkeypatch.setattr(
        metarl, "noise_at", lambda *address: used.append(address) or noise_at(*address)
    )
    assert cli.main([*arguments(), "--quiet"]) == 0
    run, c = set(used), Setting(**SMALL)
    theta = metarl.initial_state(c)["theta"]
    used.clear()
    figures.text(c, theta, [])
    assert set(used) & run == {(0, metarl.TEST, metarl.TASKS)} and len(
        used
    ) == 1 + c.test_steps == len(set(used))


def test_log_csv_is_read_whatever_is_in_it():
    assert figures.columns([]).shape == (0, 5)
    lines = [
        b"1,-2.5,-1.5,9.0,0.1\n",
        b"x,1,2,3,4\n",
        b"2,-1.0",
        b"\xff\n",
        b"3,nan,-inf,1e400,0.2\r\n",
    ]
    assert_array_equal(
        figures.columns(lines), [[1, -2.5, -1.5, 9, 0.1], [3, np.nan, -np.inf, np.inf, 0.2]]
    )


# --- As text ---
def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert figures.sparkline(np.arange(8)) == "▁▂▃▄▅▆▇█"
    assert figures.sparkline(-np.arange(16.0)) == "██▇▇▆▆▅▅▄▄▃▃▂▂▁▁"
    assert figures.sparkline(np.array([3.0])) == figures.sparkline(np.array([-1.0])) == "▅"
    assert figures.sparkline(np.full(4, 1e308)) == "▅▅▅▅"
    assert figures.sparkline(np.array([0, np.nan, 1, np.inf, -np.inf])) == "▁ █  "
    assert figures.sparkline(np.full(3, np.nan)) == "   "
    assert figures.sparkline(np.array([0, 2, 4, 8, 7, 7]), width=3) == "▁▇█"  # means 1, 6, 7
    assert len(figures.sparkline(np.arange(1000.0))) == 72


def test_text_maps():
    right = np.array([[0, 0], [1, 0], [2, 0.0]])
    up = np.array([[0, 0], [0, 1], [0, np.nan]])
    expected = """\
┌─────┐  ┌─────┐
│  X  │  │· X  │
│     │  │·    │
│o····│  │o    │
└─────┘  └─────┘"""
    assert figures.text_maps([right, up], np.array([1, 1.0]), 5, 3) == expected


def test_a_text_map_of_a_single_point():
    drawn = figures.text_maps([np.zeros((1, 2))], np.zeros(2), 3, 3)
    assert drawn == "┌───┐\n│   │\n│ X │\n│   │\n└───┘"


def test_a_text_map_holds_any_path():
    noise = np.random.default_rng(0)
    for scale in (1e-300, 1.0, 1e12):
        path, goal = scale * noise.standard_normal((2, 20, 2)), scale * noise.standard_normal(2)
        rows = figures.text_maps(path, goal).split("\n")
        assert {len(row) for row in rows} == {76} and len(rows) == 17
        assert "".join(rows).count("X") == 2


def test_text_bars():
    p, q = np.array([0.25, 0.0, 0.75]), np.array([0.5, 0.5, np.nan])
    assert figures.text_bars([p, q], np.array([0.5, -10.0, 0.75]), 4).split("\n") == [
        "arm 3   mean   0.75  ███  0.750          nan",
        "arm 1   mean   0.50  █    0.250   ██   0.500",
        "arm 2   mean -10.00       0.000   ██   0.500",
    ]
    assert figures.text_bars([np.ones(50) / 50], np.arange(50)).count("\n") == 9


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "cp932", "utf-8", None])
def test_text_is_printed_in_any_encoding(encoding):
    c = setting()
    whole = (
        "-1.00 ± 0.20\n" + figures.BLOCKS + figures.text(c, metarl.initial_state(c)["theta"], [])
    )
    text = figures.printable(whole, encoding)
    text.encode(encoding or "utf-8")
    assert [len(line) for line in text.split("\n")] == [len(line) for line in whole.split("\n")]
    if encoding in ("ascii", "cp1252"):
        assert text.startswith("-1.00+/-0.20\n_.:-=+*#\n") and "| " in text
    elif encoding in ("utf-8", None):
        assert text == whole


def test_text_shows_the_first_and_the_last_of_the_steps_and_the_log():
    for env, draw in (("pointmass:horizon=6", figures.text_maps), ("bandit", figures.text_bars)):
        c = setting(env=env)
        theta = metarl.initial_state(c)["theta"]
        [(views, target)] = figures.adaptations(c, theta, 1)
        text = figures.text(c, theta, [b"1,9,-3,0,0", b"2,9,-2.5,0,0"])
        assert text.endswith(
            f" before adaptation and after 2 steps:\n{draw([views[0], views[2]], target)}\n"
            "Return after adaptation in training, from -3.00 to -2.50:\n▁█"
        )


# --- After a run ---
@pytest.mark.parametrize("env", FAMILIES)
@pytest.mark.parametrize("algo", ["maml", "es-maml"])
def test_a_run_ends_with_its_picture(algo, env, capsys):
    flags = arguments(algo=algo, env=env)
    assert cli.main([*flags, "--quiet"]) == 0
    table = capsys.readouterr().out
    assert cli.main(flags) == 0
    out = capsys.readouterr().out.rsplit("One held-out task, ")
    assert (
        len(out) == 2 and out[0].split("iterations")[0] == table.split("iterations")[0]
    )  # but for the seconds
    what, *picture, title, spark = out[1].rstrip("\n").split("\n")
    assert what.endswith("before adaptation and after 2 steps:") and len(picture) == (
        min(10, c.arms) if (c := Setting(env=env).family).discrete else 17
    )
    assert title.startswith("Return after adaptation in training, from ") and len(spark) == 3


def test_a_picture_without_adaptation_steps(capsys):
    assert cli.main([*arguments(test_steps=0)]) == 0
    out = capsys.readouterr().out
    assert "goal X before adaptation:\n" in out and out.count("┌") == 1


@pytest.mark.parametrize("log, length", [("kept", 5), ("lost", 2), ("damaged", 4)])
def test_a_resumed_run_shows_all_iterations_of_its_log(log, length, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main([*arguments(), "--out", str(run), "--quiet"]) == 0
    if log == "lost":
        (run / "log.csv").unlink()
    elif log == "damaged":
        (run / "log.csv").write_bytes((run / "log.csv").read_bytes().replace(b"\n2,", b"\n2"))
    capsys.readouterr()
    assert cli.main(["--resume", str(run), "--iterations", "5"]) == 0
    assert len(capsys.readouterr().out.split("\n")[-2]) == length


def test_a_console_without_unicode(monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", console)
    assert cli.main(arguments()) == 0
    console.flush()
    text = console.buffer.getvalue().decode("cp1252")
    assert (
        " ± " in text and "+-----" in text and set(text.rstrip().split("\n")[-1]) <= set("_.:-=+*#")
    )


@pytest.mark.parametrize(
    "flags, hidden, words",
    [([], (), "needs --out DIR"), (["--out", "{run}"], ("matplotlib",), "pip install matplotlib")],
)
def test_plot_is_refused_before_training(flags, hidden, words, tmp_path, monkeypatch, capsys):
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(metarl, "train", None)
    assert (
        cli.main([*arguments(), "--plot", *(flag.format(run=tmp_path / "run") for flag in flags)])
        == 2
    )
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.startswith("metarl: --plot: needs ")
        and words in err
        and err.count("\n") == 1
    )
    assert not (tmp_path / "run").exists()


# --- As SVG ---
@pytest.fixture
def figure():
    return pytest.importorskip("matplotlib.figure").Figure((8, 3), layout="constrained")


@pytest.mark.parametrize("env", FAMILIES)
def test_plot_writes_two_pictures(env, tmp_path, capsys, figure):
    run, plain = tmp_path / "run", tmp_path / "plain"
    assert cli.main([*arguments(env=env), "--out", str(run), "--plot"]) == 0
    assert cli.main([*arguments(env=env), "--out", str(plain), "--quiet"]) == 0
    results = [json.loads((d / "result.json").read_text()) | {"seconds": 0} for d in (run, plain)]
    assert results[0] == results[1]
    assert sorted(p.name for p in run.iterdir()) == sorted([*cli.FILES, *cli.PLOTS])
    said = {"paths.svg": ["before adaptation", "after 1 step", "after 2 steps"]}
    said["learning.svg"] = [
        "before adaptation",
        "after adaptation",
        "optimum",
        "environment steps (millions)",
    ]
    for name, words in said.items():
        text = (run / name).read_text("utf-8")
        assert all(f"<!-- {word} -->" in text for word in words) and "after 3" not in text
        assert text.startswith("<?xml") and "dc:date" not in text and len(text) < 150_000
    first = {name: (run / name).read_bytes() for name in cli.PLOTS}
    for name in cli.PLOTS:
        (run / name).unlink()
    assert (
        cli.main(["--resume", str(run), "--plot", "--quiet"]) == 0
    )  # of a finished run, to the same bytes
    assert first == {name: (run / name).read_bytes() for name in cli.PLOTS}
    assert cli.main(["--resume", str(run), "--quiet"]) == 2


def test_pictures_do_not_depend_on_the_user_s_style(figure):
    import matplotlib

    lines = [b"1,-3,-2,1e6,1\n", b"2,-2,nan,2e6,2\n", b"3,-2,-1,3e6,3\n"]
    plain = figures.svg(figures.draw_log, lines, -0.5)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "lines.linewidth": 5}):
        assert figures.svg(figures.draw_log, lines, -0.5) == plain
        assert matplotlib.rcParams["font.size"] == 20
    assert figures.svg(figures.draw_log, lines[:1], -0.5) != plain
    assert figures.svg(figures.draw_log, [], -0.5)


def test_a_learning_curve_shows_the_log_and_the_optimum(figure):
    figures.draw_log(figure, [b"1,-3,-2,1e6,1\n", b"2,-2,-1,3e6,2\n"], -0.5)
    [axes] = figure.axes
    before, after, optimum = axes.lines
    assert_allclose([before.get_xdata(), before.get_ydata()], [[1, 3], [-3, -2]])
    assert_allclose([after.get_xdata(), after.get_ydata()], [[1, 3], [-2, -1]])
    assert_allclose(optimum.get_ydata(), -0.5)
    assert axes.get_ylim()[0] < -3 and axes.get_ylim()[1] > -0.5


def test_curves_have_their_intervals_as_error_bars(figure):
    x, y, axes = np.arange(3.0), np.array([1.0, 2.0, 4.0]), figure.subplots()
    figures.draw_curves(axes, {"a": (x, y, np.array([0.5, 100, 1.0])), "b": (x, -y)}, 5)
    [bars] = [container for container in axes.containers if container.has_yerr]
    segments = bars.lines[2][0].get_segments()
    assert_allclose([s[:, 1] for s in segments], [[0.5, 1.5], [-98, 102], [3, 5]])
    assert (
        axes.get_ylim()[0] > -6 and axes.get_ylim()[1] < 7
    )  # the widest interval does not squeeze all the rest


def test_panels_show_paths_and_goals(figure):
    c = setting()
    theta = metarl.initial_state(c)["theta"]
    figures.draw_adaptation(figure, c, theta, n=2, steps=1)
    for panel, (views, goal) in zip(figure.axes, figures.adaptations(c, theta, 2), strict=True):
        lines = {line.get_label(): line.get_xydata() for line in panel.lines}
        assert list(lines) == ["before adaptation", "after 1 step", "start", "goal"]
        assert_array_equal(lines["before adaptation"], views[0])
        assert_array_equal(lines["after 1 step"], views[1])
        assert_array_equal(lines["start"], [[0, 0]])
        assert_array_equal(lines["goal"], [goal])


def test_panels_show_the_arms_from_the_best_down(figure):
    c = setting(env="linear-bandit:arms=12")
    theta = metarl.initial_state(c)["theta"]
    figures.draw_adaptation(figure, c, theta, n=3, steps=2)
    for panel, (views, means) in zip(figure.axes, figures.adaptations(c, theta, 3), strict=True):
        best = sorted(range(12), key=lambda arm: -means[arm])[:10]
        for p, bars in zip(views, panel.containers, strict=True):
            assert_allclose([bar.get_width() for bar in bars], [p[arm] for arm in best])
        labels = [label.get_text() for label in panel.get_yticklabels()]
        assert labels == [f"{arm + 1}: {means[arm]:.2f}" for arm in best]
        assert panel.get_ylim()[0] > panel.get_ylim()[1]


# --- Of the README ---
def test_learning_curves_are_means_over_seeds_with_intervals(figure):
    from benchmarks import figures as pictures

    log = np.stack([1e6 * np.arange(1, 101), np.arange(100.0)], 1)
    runs = {("maml", "pointmass", i): (setting(seed=i), None, log + [0, i]) for i in range(3)}
    draw, curves, optimum = pictures.learning(runs, map)
    steps, post, half = curves["maml"]
    assert (
        len(steps) <= pictures.POINTS
        and steps[0] == 1
        and steps[-1] < 100
        and (np.diff(steps) > 0).all()
    )
    assert_allclose(
        post, steps
    )  # mean over seeds: one more than the iteration's index, as steps are
    assert_allclose(half, 4.302652729911275 / np.sqrt(3))  # t, 2 degrees
    tasks = [metarl.meta_test(c, metarl.initial_state(c)["theta"])[0] for c, _, _ in runs.values()]
    assert_allclose(optimum, np.mean([setting().family.optimal_return(t) for t in tasks]))
    draw(figure, curves, optimum)
    assert [line.get_label() for line in figure.axes[0].lines if line.get_label()[0] != "_"] == [
        "maml",
        "optimum",
    ]


def test_blocks_of_a_learning_curve_are_all_iterations():
    from benchmarks.figures import thinned

    assert_array_equal(thinned(np.array([[5.0, 6.0]])), [[5, 6]])
    assert_allclose(thinned(np.arange(4.0)[:, None])[:, 0], [0, 1, 2, 3])
    assert (
        thinned(np.ones((1000, 2))).tolist() == [[1, 1]] * 11
    )  # the first two of twelve would begin with the first


def test_pictures_of_the_readme(tmp_path, monkeypatch, capsys, figure):
    from benchmarks import figures as pictures

    @contextmanager
    def here(n):
        yield map

    def train(algo, env, seed):
        c = setting(algo=algo, seed=seed, env=env + ":horizon=3" if env == "pointmass" else env)
        state = metarl.initial_state(c)
        return c, state["theta"], np.array([(1e6, -3.0), (2e6, -2.0)])

    biases = [
        (problem, name, 1.0, 1e-13, 80.0) for problem in ("bandit", "tree") for name in ("a", "b")
    ]
    table = [
        (name, baseline, {"deep tree": [0.1, 0.5, 1.0]})
        for name in ("a", "b", "es")
        for baseline in ("none", "time")
    ]
    row = [
        {
            "returns": -np.ones((3, 4, 4)).cumsum(2),
            "env_steps": [0, 1, 2],
            "seconds": [0, 1, 2],
            "optimal": [-0.5],
        }
    ] * 3
    monkeypatch.setattr(pictures, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(pictures, "workers", here)
    monkeypatch.setattr(pictures, "train", train)
    monkeypatch.setattr(pictures.estimators, "bias_table", lambda n: biases)
    monkeypatch.setattr(pictures.estimators, "table", lambda n: table)
    monkeypatch.setattr(
        pictures.compare, "compare", lambda *a, algos, **b: dict.fromkeys(algos, row)
    )
    assert pictures.main([]) is None
    names = list(pictures.PICTURES)
    printed = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == [f"docs/{name}.svg" for name in names]
    first = {name: (tmp_path / "docs" / f"{name}.svg").read_bytes() for name in names}
    assert pictures.main(["--only", "arms", "estimators"]) is None
    assert first == {name: (tmp_path / "docs" / f"{name}.svg").read_bytes() for name in names}
    assert all(
        f"<!-- {name} -->".encode() in first["compare"] for name in (*pictures.COMPARED, "optimum")
    )
    assert all(
        f"<!-- {word} -->".encode() in first["estimators"]
        for word in ("bandit", "tree", "es", "80 episodes")
    )


def test_dots_are_biases_deviations_and_cosines(figure, monkeypatch):
    from benchmarks import figures as pictures

    biases = [
        ("bandit", "b", 5.0, 1e-13, 80.0),
        ("tree", "a", 1.0, 2.0, 3.0),
        ("tree", "b", 4.0, 5.0, 6.0),
    ]
    table = [(name, base, {"deep tree": [x, x + 0.1, x + 0.2], "tree": [0, 0, 0]}) for name, base, x in [
        ("a", "none", 0.1), ("a", "time", 0.2), ("b", "none", 0.3), ("b", "time", 0.4), ("es", "time", 0.5)]]  # fmt: skip
    monkeypatch.setattr(pictures.estimators, "bias_table", lambda n: biases)
    monkeypatch.setattr(pictures.estimators, "table", lambda n: table)
    draw, *content = pictures.estimates({}, map)
    draw(figure, *content)
    bandit, tree, deep = figure.axes
    assert [line.get_xydata().tolist() for line in bandit.lines] == [
        [[5, 1]],
        [[0.1, 1]],
        [[80, 1]],
    ]
    assert [line.get_xdata().tolist() for line in tree.lines] == [[1, 4], [2, 5], [3, 6]]
    assert_allclose(
        [line.get_xdata() for line in deep.lines], np.add.outer([0, 0.1, 0.2], [0.2, 0.4, 0.5])
    )
    assert [label.get_text() for label in bandit.get_yticklabels()] == ["a", "b", "es"]


def test_pictures_of_the_readme_need_matplotlib(monkeypatch, capsys):
    from benchmarks import figures as pictures

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as stop:
        pictures.main(["--only", "arms"])
    assert stop.value.code == 2 and "pip install matplotlib" in capsys.readouterr().err
