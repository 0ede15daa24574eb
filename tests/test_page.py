"""docs/adapt.html: that it is what its sources are, that its numbers are the program's, and that a
browser shows it.

What needs node, or chromium and playwright-core, is skipped where they are not. For the browser:

    apt-get install nodejs chromium && npm install playwright-core

SHOTS=DIRECTORY takes pictures as well; adapt.png, of the first part, is docs/adapt.png.
"""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import metarl
from autodiff import Tensor
from docs.page import __main__ as page
from harness import cli
from harness.checkpoints import load
from harness.results import interval
from policies import rollout
from tests.command_line import ROOT

NODE = shutil.which("node")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FAMILIES = json.loads(page.PARAMETERS.read_text(encoding="utf-8"))
STARTS = [(family, name) for family in FAMILIES for name in FAMILIES[family]["starts"]]
GOALS = [(0.3, -0.35), (-0.45, 0.1), (0.2, 0.45), (-0.15, -0.3), (0.4, 0.05)]

needs_node = pytest.mark.skipif(NODE is None, reason="needs node")


def setting_of(family, name):
    """The Setting of the command that trained a start."""
    words = shlex.split(FAMILIES[family]["starts"][name]["command"])
    assert words[:2] == ["python", "metarl.py"] and words[-2:] == ["--out", "DIR"]
    return cli.prepare(words[2:-2])[0]


def parameters_of(family, name):
    data = base64.b64decode(FAMILIES[family]["starts"][name]["x"])
    return np.frombuffer(data, "<f4").astype(float)


# --- The file ---
def test_the_page_is_made_of_its_sources():
    made = page.page()
    assert page.PAGE.read_text(encoding="utf-8") == made, "run python -m docs.page"


def test_the_page_needs_no_other_file():
    text = page.PAGE.read_text(encoding="utf-8")
    assert not re.search(r"^import |^export |\bimport\(|\bfetch\(|XMLHttp", text, re.MULTILINE)
    links = re.findall(r"(?:src|href)=\"([^\"]*)|(url\(|https?://[^\"]*)", text)
    assert set(map("".join, links)) <= {"data:,", "http://www.w3.org/2000/svg"}


def test_parameters_are_small_and_say_how_they_were_made():
    assert page.PARAMETERS.stat().st_size <= page.MOST
    assert {family: set(FAMILIES[family]["starts"]) for family in FAMILIES} == {
        family: set(runs) for family, runs in page.RUNS.items()
    }


@pytest.mark.parametrize("family, name", STARTS)
def test_options_of_a_start_are_those_of_its_command(family, name):
    start = FAMILIES[family]["starts"][name]
    c = setting_of(family, name)
    assert {key: start["c"][key] for key in page.OPTIONS} == {
        key: getattr(c, key) for key in page.OPTIONS
    }
    assert start["c"]["episodes"] == c.adapt_episodes
    assert start["command"].removesuffix(" --out DIR").endswith(page.RUNS[family][name])
    P = c.pi.size
    assert len(parameters_of(family, name)) == (P if name == "untrained" else len_x(c))
    if name == "untrained":
        assert_allclose(parameters_of(family, name), metarl.initial_state(c)["theta"], rtol=1e-7)


def len_x(c):
    return 2 * c.pi.size if c.learn_alpha else c.pi.size


@pytest.mark.parametrize("name", ["maml", "untrained"])
def test_returns_of_a_start_are_those_of_its_parameters(name):
    start = FAMILIES["turned-pointmass"]["starts"][name]
    c = setting_of("turned-pointmass", name)
    _, returns = metarl.meta_test(c, parameters_of("turned-pointmass", name))
    row = interval(returns)
    assert_allclose(start["mean"], row["mean"], atol=2e-3)
    assert_allclose(start["ci95"], row["ci95"], atol=2e-3)


def test_a_start_is_exported_as_its_run_left_it(tmp_path):
    options = "--algo maml --env pointmass:horizon=3 --iterations 1 --tasks 2 --episodes 4"
    options += " --test-tasks 3 --adapt-episodes 5 --test-episodes 2 --hidden 3"
    cli.run(*page.prepared(options, tmp_path / "run"))
    start = page.start("maml", options, tmp_path / "run")
    x = np.frombuffer(base64.b64decode(start["x"]), "<f4")
    assert_allclose(x, load(tmp_path / "run" / "checkpoint.npz")[1]["theta"], rtol=1e-6)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert_allclose(start["mean"], result["held_out"]["mean"], atol=1e-4)
    assert (start["c"]["episodes"], start["c"]["hidden"]) == (5, (3,))
    assert start["command"] == f"python metarl.py {options} --out DIR"


# --- Numbers, in node ---
START = """
import { readFileSync } from "node:fs";
import * as adapt from "ROOT/docs/page/adapt.mjs";
import * as network from "ROOT/docs/page/network.mjs";
import { grad, tensor } from "ROOT/golden/port/autodiff.mjs";
import { decode } from "ROOT/golden/port/runner.mjs";
import * as steps from "ROOT/golden/port/steps.mjs";
const given = JSON.parse(readFileSync(0, "utf8"));
const put = (x) => console.log(JSON.stringify(x, (_, y) => ArrayBuffer.isView(y) ? [...y] : y));
"""


def node(program, **given):
    """What the module prints, as JSON; it finds `given` under this name."""
    text = START.replace("ROOT", ROOT.resolve().as_uri()) + program
    run = [NODE, "--input-type=module", "--eval", text]
    options = dict(capture_output=True, text=True, timeout=100)
    result = subprocess.run(run, check=False, input=json.dumps(given), **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def golden_cases():
    """Cases of stage 4 that the page covers: point masses, plain steps, tanh."""
    text = (ROOT / "golden" / "4-steps.json").read_text(encoding="utf-8")
    for case in json.loads(text)["cases"]:
        c = case["inputs"].get("c", {})
        if (
            case["function"] == "meta_gradient"
            and not case.get("rejects")
            and c["family"] == "pointmass"
            and c.get("inner_optimizer", "sgd") == "sgd"
            and c.get("activation", "tanh") == "tanh"
            and c["inner_steps"] > 0
        ):
            yield case


def array(value):
    return np.reshape(value["data"], value["shape"])


@needs_node
def test_steps_of_the_page_are_those_of_the_golden_vectors():
    """And its meta-gradients, of which second order is a difference of gradients."""
    cases = list(golden_cases())
    assert len(cases) >= 10
    found = node(
        """
        put(given.inputs.map(decode).map(({ c, x, tasks, noise }) => {
          const start = adapt.makeStart({ ...c, inner: "pg" }, x);
          return tasks.map((task, i) => {
            const z = (k) => (noise[`0/episodes/${k}`] ?? noise["0/episodes/0"])
              .map((draw) => draw.values[i]);
            const stages = [adapt.begin(start, task, z)];
            for (let k = 0; k < c.inner_steps; k++) {
              stages.push(adapt.step(start, task, z, stages[k]));
            }
            const thetas = stages.map(({ theta }) => theta);
            const rewards = stages.map(({ D }) => D.rewards);
            const meta = c.inner_steps === 1 && adapt.metaGradients(start, task, [z(0), z(1)]);
            return { thetas, rewards, meta };
          });
        }));
        """,
        inputs=[case["inputs"] for case in cases],
    )
    compared = []
    for case, tasks in zip(cases, found, strict=True):
        c, known = case["inputs"]["c"], case["intermediate"] | case["outputs"]
        for i, task in enumerate(tasks):
            for k in range(1, c["inner_steps"] + 1):
                assert_close(task["thetas"][k], array(known[f"theta{k}"])[i], 1e-9)
                if f"rewards{k}" in known:
                    assert_close(task["rewards"][k], array(known[f"rewards{k}"])[i], 1e-9)
            name = {"first-order": "first", "lvc": "second"}.get(c["estimator"])
            if name and c["inner_steps"] == 1 and not c["sampling_term"]:
                compared.append(name)
                assert_close(task["meta"][name], array(known["meta_gradient"])[i], 1e-6)
    assert set(compared) == {"first", "second"}


def assert_close(got, want, tolerance):
    assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@needs_node
def test_second_order_counts_learned_step_sizes():
    """MAML on the point mass has them: by the port, the first half of its gradient."""
    c = FAMILIES["pointmass"]["starts"]["maml"]["c"]
    assert c["learn_alpha"]
    c = {**c, "algo": "maml", "episodes": 3, "inner_steps": 1, "alpha": 0.05}
    c["options"] = {"horizon": 3}
    rng = np.random.default_rng(0)
    x = parameters_of("pointmass", "maml")
    x = x + 0.1 * rng.standard_normal(x.shape)
    z = rng.standard_normal((2, 3, 3, 2))
    got, want = node(
        """
        const { c, x, z } = given;
        const noise = {};
        [0, 1].forEach((k) => {
          noise[`0/episodes/${k}`] = z[k].map((v) => ({ kind: "standard_normal", values: [v] }));
        });
        const [path] = steps.adapt({ ...c, sampling_term: false }, x, [[0.3, 0.2]], noise, 0);
        put([
          adapt.metaGradients(adapt.makeStart(c, x), [0.3, 0.2], z).second,
          steps.metaGradient(path),
        ]);
        """,
        c=c,
        x=x.tolist(),
        z=z.tolist(),
    )
    assert_close(got, want[: len(got)], 1e-6)


@needs_node
def test_where_all_episodes_are_alike_the_meta_gradient_is_0():
    """After a long step all go straight, as fast as they can: no episode is better than another."""
    c = {**FAMILIES["pointmass"]["starts"]["maml"]["c"], "episodes": 3}
    x = parameters_of("pointmass", "maml").tolist()
    found = node(
        """
        const start = adapt.makeStart({ ...given.c, options: { horizon: 3 } }, given.x);
        put(adapt.metaGradients(start, [0.3, 0.2], [0, 1].map((k) => adapt.noiseOf(3, 3, 1, k))));
        """,
        c=c,
        x=x,
    )
    for name in ("first", "second"):
        assert_array_equal(np.array(found[name], float), 0)  # and not NaN
    assert np.any(found["inner"])


@needs_node
def test_an_evolution_strategy_sees_returns_after_a_step_alone():
    """Two pairs, each with a quarter of the episodes before the step and a quarter after it."""
    sigma, task = 0.1, (1.2,)
    x = parameters_of("turned-pointmass", "reptile")
    g, pairs = node(
        """
        const start = adapt.makeStart(given.c, given.x);
        const g = adapt.evolved(start, given.task, () => true, given.sigma, 5, 4);
        const pairs = [0, 1].map((i) => ({
          z: Array.from(start.theta, adapt.normals(5, 4, i, 0)),
          noise: [1, 2].map((part) => adapt.noiseOf(10, start.env.horizon, 5, 4, i, part)),
        }));
        put([g, pairs]);
        """,
        c=FAMILIES["turned-pointmass"]["starts"]["reptile"]["c"],
        x=x.tolist(),
        task=task,
        sigma=sigma,
    )
    c = replace(setting_of("turned-pointmass", "reptile"), inner_steps=1)

    def value(theta, noise):
        def sample(k, theta):
            return rollout(c.family, c.pi, theta, np.array([task]), 10, Given(noise[k]))

        path, _ = metarl.adapt(c, Tensor(theta[None]), sample)
        return sample(1, path[-1].data).returns[0]

    want = 0
    for pair in pairs:
        z = np.array(pair["z"])
        up, down = (value(x + sign * sigma * z, pair["noise"]) for sign in (1, -1))
        want = want - (up - down) / (2 * sigma) * z / 2
    assert_close(g, want, 1e-9)


@needs_node
@pytest.mark.parametrize("K, H", [(3, 3), (3, 2), (4, 2)])  # rows: of four at a time, and not
def test_gradients_by_hand_are_those_of_the_port(K, H):
    """Of the default network, before and after a step; by others' parameters; and second order."""
    c = dict(
        FAMILIES["turned-pointmass"]["starts"]["maml"]["c"],
        algo="maml",
        options={"horizon": H},
        episodes=K,
        inner_steps=1,
        sampling_term=False,
        inner_optimizer="sgd",
    )
    rng = np.random.default_rng(K)
    x = parameters_of("turned-pointmass", "maml")
    x = x + 0.1 * rng.standard_normal(x.shape)
    z = rng.standard_normal((2, H, K, 2))
    got = node(
        """
        const { c, x, z } = given;
        const noise = {};
        [0, 1].forEach((k) => {
          noise[`0/episodes/${k}`] = z[k].map((v) => ({ kind: "standard_normal", values: [v] }));
        });
        const [path] = steps.adapt(c, x, [[1.1]], noise, 0);
        const theirs = path.memories.map((memory, k) => {
          const at = tensor(path.thetas[1 - k].data); // not those that took the episodes
          return grad(steps.loss(path.policy, memory, "lvc", at), [at])[0].data;
        });
        const start = adapt.makeStart(c, x);
        const { net, env } = start;
        const thetas = path.thetas.map(({ data }) => Float64Array.from(data));
        const ours = [0, 1].map((k) => {
          const D = network.play(net, env, thetas[k], [1.1], c.episodes, z[k]);
          return network.lossGradient(net, thetas[1 - k], D, network.weights(c, D));
        });
        put({
          first: [adapt.metaGradients(start, [1.1], z).inner, path.gradients[0].data],
          ratios: [ours.flatMap((g) => [...g]), theirs.flat()],
          second: [adapt.metaGradients(start, [1.1], z).second, steps.metaGradient(path)],
        });
        """,
        c=c,
        x=x.tolist(),
        z=z.tolist(),
    )
    for name, tolerance in {"first": 1e-9, "ratios": 1e-9, "second": 1e-6}.items():
        assert_close(*got[name], tolerance)


ADAPT = """
const { c, x, seed, tasks } = given;
const start = adapt.makeStart(c, x);
const noise = adapt.seeded(start, seed);
put({
  stages: tasks.map((task) => {
    const stages = [adapt.begin(start, task, noise)];
    for (let k = 0; k < 3; k++) stages.push(adapt.step(start, task, noise, stages[k]));
    return stages.map(({ theta, value }) => ({ theta, value }));
  }),
  draws: [0, 1, 2, 3].map((k) => {
    if (c.inner === "pg") return noise(k);
    const next = noise(k, true);
    return Array.from({ length: c.episodes - 1 }, () => x.slice(0, x.length / 2).map(next));
  }),
});
"""


class Given:
    """A generator that gives back draws (n, ...), the same for all tasks."""

    def __init__(self, draws):
        self.draws = iter(np.array(draws))

    def standard_normal(self, shape):
        return np.broadcast_to(next(self.draws), shape)


@needs_node
@pytest.mark.parametrize(
    "family, name, tasks",
    [
        ("pointmass", "maml", [GOALS[0]]),
        ("pointmass", "es-maml", GOALS[:2]),
        ("turned-pointmass", "maml", [(2.0,), (-1.0,)]),
        ("turned-pointmass", "joint", [(2.0,)]),
    ],
)
def test_a_seed_of_the_page_gives_the_numbers_of_the_program(family, name, tasks):
    """The program adapts under the page's noise, at full size."""
    x, start = parameters_of(family, name), FAMILIES[family]["starts"][name]
    got = node(ADAPT, c=start["c"], x=x.tolist(), seed=7, tasks=tasks)
    c = setting_of(family, name)
    c = replace(c, episodes=c.adapt_episodes)
    tasks = np.array(tasks)
    with mock.patch.object(metarl, "noise_at", lambda *address: Given(got["draws"][address[-1]])):
        path = metarl.adapted_by_step(c, x, tasks, (0,))
    for k, theta in enumerate(path):
        K = 1 if c.deterministic else c.episodes
        rng = None if c.deterministic else Given(got["draws"][k])
        returns = rollout(c.family, c.pi, theta, tasks, K, rng).returns
        for i, stages in enumerate(got["stages"]):
            assert_close(stages[k]["theta"], theta[i], 1e-9)
            assert abs(stages[k]["value"] - returns[i]) <= 1e-9 * abs(returns[i])


@pytest.fixture(scope="module")
def intervals():
    """For GOALS, between which returns MAML's lie after 3 steps, in 999 of 1000 adaptations."""
    from scipy.special import stdtrit

    n = 8
    c = setting_of("pointmass", "maml")
    tasks = np.repeat(np.array(GOALS), n, 0)
    x = parameters_of("pointmass", "maml")
    c = replace(c, episodes=c.adapt_episodes)
    [returns] = metarl.in_chunks(metarl.returns_by_step, c, x, tasks, (0, metarl.TEST, 9))
    last = returns[:, 3].reshape(len(GOALS), n)
    half = stdtrit(n - 1, 0.9995) * last.std(1, ddof=1) * np.sqrt(1 + 1 / n)
    return np.stack([last.mean(1) - half, last.mean(1) + half], 1)


@needs_node
def test_five_goals_and_three_steps_end_where_the_program_ends(intervals):
    start = FAMILIES["pointmass"]["starts"]["maml"]
    x = parameters_of("pointmass", "maml").tolist()
    got = node(ADAPT, c=start["c"], x=x, seed=3, tasks=GOALS)
    for stages, (low, high) in zip(got["stages"], intervals, strict=True):
        assert low <= stages[3]["value"] <= high
        assert low > stages[0]["value"]


# --- In a browser ---
def playwright():
    """Whether node finds playwright-core."""
    if NODE is None:
        return False
    run = [NODE, "--eval", "require.resolve('playwright-core')"]
    return subprocess.run(run, check=False, capture_output=True, cwd=ROOT).returncode == 0


needs_browser = pytest.mark.skipif(
    BROWSER is None or not playwright(),
    reason="needs a browser: apt-get install nodejs chromium && npm install playwright-core",
)


@pytest.fixture(scope="module")
def visited():
    """What tests/visit.cjs has seen of the page."""
    given = {"page": page.PAGE.as_uri(), "browser": BROWSER, "goals": GOALS, "shots": None}
    if os.environ.get("SHOTS"):  # a directory for screenshots, to be looked at
        given["shots"] = os.environ["SHOTS"]
    run = [NODE, str(ROOT / "tests" / "visit.cjs"), json.dumps(given)]
    options = dict(capture_output=True, text=True, timeout=900, cwd=ROOT)
    result = subprocess.run(run, check=False, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


@needs_browser
def test_a_browser_asks_for_nothing_and_has_nothing_to_say(visited):
    assert visited["asked"] == [page.PAGE.as_uri()] * len(visited["asked"])
    assert visited["console"] == []


@needs_browser
def test_dragging_to_five_goals_ends_where_the_program_ends(visited, intervals):
    assert_allclose([drag["goal"] for drag in visited["drags"]], GOALS, atol=5e-3)
    for drag, (low, high) in zip(visited["drags"], intervals, strict=True):
        assert low <= drag["returns"][3] <= high


@needs_browser
def test_a_browser_and_node_agree(visited):
    """So what is true of the modules is true of the one script that they became."""
    drag = visited["drags"][1]
    start = FAMILIES["pointmass"]["starts"]["maml"]
    x = parameters_of("pointmass", "maml").tolist()
    got = node(ADAPT, c=start["c"], x=x, seed=drag["seed"], tasks=[drag["goal"]])
    assert_allclose(drag["returns"], [stage["value"] for stage in got["stages"][0]], rtol=1e-9)


@needs_browser
def test_the_page_is_used_with_keys_and_fingers(visited):
    assert_allclose(visited["by_key"], [0.3, -0.3], atol=1e-9)  # arrow up
    assert_allclose(visited["by_finger"], [-0.2, 0.2], atol=0.02)


@needs_browser
def test_the_address_holds_all_settings_and_a_step_may_be_taken_again(visited):
    assert visited["settings"] == [
        [9, 0.1, -0.2, 60, 8, 0.1, "pointmass"],
        [10, 0.1, -0.2, -60, 8, 0.1, "pointmass"],
    ]
    assert visited["after_one"] == 2


@needs_browser
def test_bad_input_is_told_on_the_page(visited):
    said = visited["said"]
    assert "whole number" in said["seed"] and "“seven”" in said["seed"]
    assert "4294967295" in said["seed beyond"] and "“4294967296”" in said["seed beyond"]
    assert "−0.5 to 0.5" in said["goal"] and "0.9" in said["goal"]
    assert "stays at its edge" in said["dragged outside"]
    assert "In the address" in said["address"] and "left as it was" in said["address"]
    assert "“x”" in said["address"] and "“999”" in said["address"]
    assert "lacks" in said["old browser"]
    assert "has not run" in said["no script"]
    assert said["right again"] == ""


@needs_browser
def test_nothing_is_wider_than_the_screen(visited):
    assert {width: wide for width, wide in visited["wide"].items() if wide > int(width)} == {}
    assert set(visited["wide"]) == {"360", "1600"}


@needs_browser
def test_a_step_says_how_long_it_took(visited):
    """How long is not asserted: others may use the processor."""
    said, measured = visited["speed"]
    assert measured > 0 and said == f"The step took {measured:.0f} ms."
