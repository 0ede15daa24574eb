"""The pictures of a run: what they show, that numbers do not depend on them, that they are the same
each time, and that there are none where a family does not tell what could be drawn."""

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
import metarl
from harness import cli, figures
from harness.checkpoints import Stop
from harness.settings import Setting
from harness.terminal import printable
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
    return np.stack([c.pi.init(metarl.noise_at(i)) for i in range(n)])


class Pendulum:
    """A family to the letter of what envs.py asks for, and nothing more.

    To be swung up from rest by a torque that is too weak to lift it at once. Task: its mass.
    """

    obs_dim = 3
    action_dim = 1
    discrete = False
    horizon = 6
    task_dim = 1

    def sample_tasks(self, n, rng, split="train"):
        mass = rng.uniform(0.5, 1.0, (n, 1))
        return mass + (split == "test")

    def reset(self, tasks, shape, rng):
        angle = np.pi + 0.1 * rng.standard_normal(shape)
        return np.stack([angle, np.zeros(shape)], -1).astype(tasks.dtype)

    def observe(self, state):
        angle, speed = state[..., 0], state[..., 1]
        return np.stack([np.cos(angle), np.sin(angle), speed], -1)

    def step(self, state, action, tasks, rng):
        angle, speed = state[..., 0], state[..., 1]
        speed = speed + 0.05 * (15 * np.sin(angle) + 3 * action[..., 0].clip(-2, 2) / tasks[..., 0])
        angle = angle + 0.05 * speed
        return np.stack([angle, speed], -1), np.cos(angle) - 1, np.zeros(angle.shape, bool)


class Windy(Pendulum):
    """A family with goals, whose episodes begin anywhere, end at any time, and are blown about.

    A plain class too; its state is more than what is observed of it.
    """

    obs_dim = action_dim = task_dim = 2

    def sample_tasks(self, n, rng, split="train"):
        return rng.uniform(1, 2, (n, 2)) * (1 if split == "train" else -1)

    def goals(self, tasks):
        return tasks + 1

    def reset(self, tasks, shape, rng):
        return {"at": rng.standard_normal((*shape, 2)).astype(tasks.dtype), "clock": 0}

    def observe(self, state):
        return state["at"]

    def step(self, state, action, tasks, rng):
        at = state["at"] + 0.1 * action + 0.05 * rng.standard_normal(action.shape)
        clock = state["clock"] + 1
        reward = -np.abs(at - self.goals(tasks)).sum(-1)
        return {"at": at, "clock": clock}, reward, clock >= 4 - 2 * (tasks[..., 0] < -1.5)


class Slots(Pendulum):
    """A bandit that observes two constants, and calls its arms nothing but actions."""

    obs_dim = 2
    action_dim = 3
    discrete = True
    horizon = 2
    task_dim = 3

    def sample_tasks(self, n, rng, split="train"):
        return rng.uniform(0, 1, (n, 3)) + (split == "test")

    def means(self, tasks):
        return 2 * tasks

    def reset(self, tasks, shape, rng):
        return np.full((*shape, 2), 0.5, tasks.dtype)

    def observe(self, state):
        return state

    def step(self, state, action, tasks, rng):
        means = np.broadcast_to(self.means(tasks), (*action.shape, 3))
        reward = np.take_along_axis(means, action[..., None], -1)[..., 0]
        return state, reward, np.zeros(action.shape, bool)


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
            state, _, done = c.family.step(state, c.pi.mode(theta_i, state), task, None)
            positions.append(state)
        assert_allclose(path, positions, atol=1e-15)


def test_a_path_ends_with_its_episode():
    c = setting(env="pointmass:radius=0.1")
    theta = thetas(c) * 0
    theta[:, c.pi.size - 4 : c.pi.size - 2] = (
        10,
        0.5,
    )  # the biases of the last layer: full speed, and half
    tasks = np.array([[0.35, 0.175], [0.5, 0.5], [0.04, 0.0]])
    ends = [path[-1].tolist() for path in figures.paths(c, theta, tasks)]
    assert_allclose(ends[::2], [[0.3, 0.15], [0.1, 0.05]])
    assert_allclose(figures.paths(c, theta, tasks)[1], np.arange(101)[:, None] * [0.1, 0.05])


def test_paths_of_any_family_with_goals():
    """One that is no dataclass, with noise of its own: the same for all parameters."""
    c = setting(env=Windy())
    theta, tasks = thetas(c), figures.chosen(c, 3)
    found = figures.paths(c, theta, tasks)
    lengths = [3 if task[0] < -1.5 else 5 for task in tasks]
    assert [path.shape for path in found] == [(n, 2) for n in lengths] and len(set(lengths)) == 2
    again = figures.paths(c, theta[[0, 0, 0]], tasks)
    assert_array_equal(again[0], found[0])
    starts = [[path[0].tolist() for path in run] for run in (found, again)]
    assert starts[0] == starts[1] and len({tuple(start) for start in starts[0]}) == 3
    for theta_i, path in zip(theta, found, strict=True):
        blown = path[1:] - path[:-1] - 0.1 * c.pi.mode(theta_i, path[:-1])
        assert np.abs(blown).max() < 0.25 and np.abs(blown).min() > 0
    drawn = figures.adaptations(c, metarl.initial_state(c)["theta"], 2)
    assert_array_equal([goal for _, goal in drawn], tasks[:2] + 1)


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


def test_probabilities_of_any_family_with_means():
    c = setting(env=Slots(), policy="linear")
    theta, tasks = thetas(c), figures.chosen(c, 3)
    logits = 0.5 * (theta[:, :3] + theta[:, 3:6]) + theta[:, 6:]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert_allclose(figures.probabilities(c, theta, tasks), expected, rtol=1e-14)
    [(_, means)] = figures.adaptations(c, metarl.initial_state(c)["theta"], 1)
    assert_array_equal(means, 2 * tasks[0])
    assert "arm 3 " in figures.text(c, metarl.initial_state(c)["theta"], [])


@pytest.mark.parametrize("algo", ["maml", "reptile", "cma-es"])
@pytest.mark.parametrize("env", FAMILIES)
def test_adaptations_are_those_of_the_meta_test(algo, env):
    c = setting(algo=algo, env=env)
    theta = metarl.initial_state(c)["theta"]
    drawn, tasks = figures.adaptations(c, theta, 2), figures.chosen(c, 2)
    steps = metarl.adapted_by_step(
        replace(c, episodes=5), theta, tasks, (0, metarl.TEST, metarl.PICTURES)
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
    # The tasks are those of the test; each step, and the family, has an address of its own
    assert set(used) & run == {(0, metarl.TEST, metarl.TASKS)}
    steps = {(0, metarl.TEST, metarl.PICTURES, k) for k in range(c.test_steps + 1)}
    assert set(used) - run == steps


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
    text = printable(whole, encoding)
    text.encode(encoding or "utf-8")
    assert [len(line) for line in text.split("\n")] == [len(line) for line in whole.split("\n")]
    if encoding in ("ascii", "cp1252"):
        assert text.startswith("-1.00+/-0.20\n_.:-=+*#\n") and "| " in text
    elif encoding in ("utf-8", None):
        assert text == whole


def test_what_no_encoding_has_is_a_question_mark():
    assert printable("Größe ± 1", "ascii") == "Gr??e+/-1"
    assert printable("a\udc80 ± 1", None) == "a?+/-1"


def test_text_shows_the_first_and_the_last_of_the_steps_and_the_log():
    for env, draw in (("pointmass:horizon=6", figures.text_maps), ("bandit", figures.text_bars)):
        c = setting(env=env)
        theta = metarl.initial_state(c)["theta"]
        [(views, target)] = figures.adaptations(c, theta, 1)
        text = figures.text(c, theta, [b"1,9,-3,0,0", b"2,9,-2.5,0,0"])
        assert text.startswith(
            "\nThe held-out task farthest from the origin, before adaptation and "
        )
        assert text.endswith(
            f"\n{draw([views[0], views[2]], target)}\n\n"
            "Return in training, last episodes, from -3.00 to -2.50:\n▁█"
        )


@pytest.mark.parametrize("env", FAMILIES)
def test_text_says_what_it_shows_and_of_which_task(env):
    c = setting(env=env)
    text = figures.text(c, metarl.initial_state(c)["theta"], [])
    which, what = text.lstrip("\n").split("\n")[:2]
    expected = "The task" if "fourcorners" in env else "The held-out task"
    assert which.split(",")[0] == f"{expected} farthest from the origin"
    assert which.split(",")[1] == " before adaptation and after 2 steps:"
    assert ("mean action" in what and "without noise" in what) == (not c.family.discrete)
    assert ("probabilities" in what) == c.family.discrete


def test_a_family_that_tells_nothing_has_the_curve_of_its_training_alone():
    c = setting(env=Pendulum())
    theta = metarl.initial_state(c)["theta"]
    text = figures.text(c, theta, [b"1,9,-3,0,0", b"2,9,-2.5,0,0"])
    assert text == "\nReturn in training, last episodes, from -3.00 to -2.50:\n▁█"
    assert figures.text(c, theta, []) == ""


def test_goals_are_drawn_only_where_positions_are_observed():
    class Hidden(Pendulum):
        def goals(self, tasks):
            return np.zeros((len(tasks), 2))

    assert figures.view(Hidden()) is None
    assert figures.view(Windy()).behaviour is figures.paths
    assert figures.view(Slots()).behaviour is figures.probabilities


# --- After a run ---
@pytest.mark.parametrize("env", FAMILIES)
@pytest.mark.parametrize("algo", ["maml", "es-maml"])
def test_a_run_ends_with_its_picture(algo, env, capsys):
    flags = arguments(algo=algo, env=env)
    assert cli.main([*flags, "--quiet"]) == 0
    table = capsys.readouterr().out
    assert cli.main(flags) == 0
    out = capsys.readouterr().out.rsplit(" farthest from the origin, ")
    assert len(out) == 2
    assert out[0].split("iterations")[0] == table.split("iterations")[0]  # but for the seconds
    when, _, *picture, blank, title, spark = out[1].rstrip("\n").split("\n")
    family = Setting(env=env).family
    assert when == "before adaptation and after 2 steps:" and blank == ""
    assert len(picture) == (min(10, family.arms) if family.discrete else 17)
    assert title.startswith("Return in training, last episodes, from ") and len(spark) == 3


def test_a_picture_without_adaptation_steps(capsys):
    assert cli.main([*arguments(test_steps=0)]) == 0
    out = capsys.readouterr().out
    assert ", before adaptation:\n" in out and out.count("┌") == 1


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
        "first episodes",
        "last episodes",
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


def test_plots_are_drawn_before_results_are_shown(tmp_path, capsys, monkeypatch, figure):
    """So that they are there, too, where standard output takes nothing."""

    def full(text):
        raise Stop(2, "standard output: no space")

    monkeypatch.setattr(cli, "show", full)
    assert cli.main([*arguments(), "--out", str(tmp_path), "--plot", "--quiet"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*cli.FILES, *cli.PLOTS])


def test_plot_of_a_family_that_tells_nothing_is_the_curve(tmp_path, capsys, figure):
    c = setting(env=Pendulum())
    figures.write_plots(tmp_path, c, metarl.initial_state(c)["theta"], [b"1,9,-3,0,0"], None)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "no paths.svg" in err and "Pendulum has neither goals" in err
    assert [path.name for path in tmp_path.iterdir()] == ["learning.svg"]
    assert b"optimum" not in (tmp_path / "learning.svg").read_bytes()


def test_a_run_of_a_family_that_tells_nothing(tmp_path, monkeypatch, capsys, figure):
    monkeypatch.setitem(envs.FAMILIES, "pendulum", Pendulum)
    flags = [*arguments(env="pendulum"), "--out", str(tmp_path), "--plot"]
    assert cli.main(flags) == 0
    out, err = capsys.readouterr()
    assert "Return in training, last episodes" in out and "┌" not in out
    assert err.count("no paths.svg: Pendulum has neither goals") == 1
    assert json.loads((tmp_path / "result.json").read_text())["optimal"] is None
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([*cli.FILES, "learning.svg"])


@pytest.mark.parametrize("family", [Windy, Slots])
def test_plot_of_any_family_that_tells_what_to_draw(family, tmp_path, capsys, figure):
    c = setting(env=family())
    figures.write_plots(tmp_path, c, metarl.initial_state(c)["theta"], [b"1,9,-3,0,0"], None)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(figures.PLOTS)
    assert capsys.readouterr() == ("", "")


def test_pictures_do_not_depend_on_the_user_s_style(figure):
    import matplotlib

    lines = [b"1,-3,-2,1e6,1\n", b"2,-2,nan,2e6,2\n", b"3,-2,-1,3e6,3\n"]
    c = setting()
    plain = figures.svg(figures.draw_log, c, lines, -0.5)
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "lines.linewidth": 5}):
        assert figures.svg(figures.draw_log, c, lines, -0.5) == plain
        assert matplotlib.rcParams["font.size"] == 20
    assert figures.svg(figures.draw_log, c, lines[:1], -0.5) != plain
    assert figures.svg(figures.draw_log, c, [], -0.5)


def test_a_learning_curve_shows_the_log_and_the_optimum(figure):
    lines = [b"1,-3,-2,1e6,1\n", b"2,-2,-1,3e6,2\n"]
    figures.draw_log(figure, setting(algo="reptile"), lines, -0.5)
    [axes] = figure.axes
    before, after, optimum = axes.lines
    assert_allclose([before.get_xdata(), before.get_ydata()], [[1, 3], [-3, -2]])
    assert_allclose([after.get_xdata(), after.get_ydata()], [[1, 3], [-2, -1]])
    assert_allclose(optimum.get_ydata(), -0.5)
    assert axes.get_ylim()[0] < -3 and axes.get_ylim()[1] > -0.5
    assert after.get_color() == figures.look_of("reptile")["color"] != before.get_color()


def test_a_learning_curve_without_an_optimum(figure):
    figures.draw_log(figure, setting(), [b"1,-3,-2,1e6,1\n", b"2,-2,-1,3e6,2\n"], None)
    [axes] = figure.axes
    labels = [line.get_label() for line in axes.lines]
    assert labels == ["first episodes", "last episodes"]


def test_curves_have_their_intervals_as_bands(figure):
    x, y = np.arange(3.0), np.array([1.0, 2.0, 4.0])
    low, high = y - [0.5, 1, 2], y + [0.25, 3, 1]
    axes = figure.subplots()
    a, b = figures.look_of("maml"), figures.look_of("nes")
    curves = {"a": figures.Curve(a, x, y, low, high), "b": figures.Curve(b, x, -y)}
    figures.draw_curves(axes, curves, 5)
    [band] = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert corners == {*zip(x, low, strict=True), *zip(x, high, strict=True)}
    assert_allclose(band.get_facecolor()[0, :3], rgb(a["color"]))
    assert band.get_facecolor()[0, 3] < 0.3
    assert [line.get_color() for line in axes.lines] == [a["color"], b["color"], "grey"]


def rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def test_each_algorithm_has_a_look_of_its_own():
    looks = [figures.look_of(algo) for algo in metarl.ALGORITHMS]
    steps = [figures.look(*step) for step in figures.STEP_LOOKS]
    for part in ("color", "marker"):
        assert len({look[part] for look in looks}) == len(looks)
    assert len({str(look["linestyle"]) for look in looks}) == len(looks)
    colours = [look["color"] for look in [*looks, *steps]]
    assert len(set(colours)) == len(colours) and figures.GOAL not in colours
    # From light to dark, so that the order shows also in black and white
    lightness = [np.dot([0.2126, 0.7152, 0.0722], rgb(step["color"])) for step in steps]
    assert (np.diff(lightness[1:]) < 0).all() and lightness[0] > lightness[2]


def test_an_algorithm_of_the_user_s_own_is_drawn_too(figure):
    look = figures.look_of("mine")
    assert look["color"] not in {figures.look_of(algo)["color"] for algo in metarl.ALGORITHMS}
    figures.draw_curves(figure.subplots(), {"mine": figures.Curve(look, [0, 1], [1, 2])}, None)


def test_a_row_with_another_inner_loop_keeps_the_colour_of_its_algorithm():
    plain, other = figures.look_of("cma-es"), figures.look_of("cma-es-pg")
    assert plain["color"] == other["color"] and plain["marker"] == other["marker"]
    assert plain["linestyle"] != other["linestyle"]
    assert plain["markerfacecolor"] == "white" != other["markerfacecolor"]


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
        for line, step in zip(panel.lines, figures.STEP_LOOKS, strict=False):
            if line.get_label() in ("before adaptation", "after 1 step"):
                assert line.get_color() == step[0]


def test_a_path_starts_where_its_episode_does(figure):
    c = setting(env=Windy())
    figures.draw_adaptation(figure, c, metarl.initial_state(c)["theta"], n=1)
    [panel] = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in panel.lines}
    assert_array_equal(lines["start"], lines["before adaptation"][:1])


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
