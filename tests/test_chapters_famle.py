"""chapters/famle.py and ice.py: each part against its slow form; that the choice of a prior knows
meta-parameters alone, and a robot's situation is told to nobody. Whole runs are in .ci/run, as
--quick --json.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import common, famle, ice
from chapters.models import CEM, later
from metarl import noise_at
from policies import Network

SMALL = famle.Options(
    transitions=20,
    embedding=3,
    hidden=(5,),
    iterations=3,
    steps=2,
    batch=4,
    betas=(0.003, 0.01),
    memory=4,
    horizon=3,
    limit=8,
    cem=CEM(plans=6, rounds=2, elites=2, bound=1.0),
)


# --- The world ---
class Calm:
    """Noise that is none."""

    def standard_normal(self, shape):
        return np.zeros(shape)


def test_a_robot_moves_as_the_header_says():
    rng = noise_at(0)
    state = rng.standard_normal((6, 4))
    action = rng.uniform(-1, 1, (6, 2))
    situation = np.stack([rng.uniform(0, 6, 6), [1, -1, 1, -1, 1, -1]], 1)
    x = ice.x_of(state, action)
    new = ice.moved(state, ice.noisy_change(situation, x, Calm()))
    for i in range(6):
        thrust, bearing = action[i]
        angle, sign = situation[i]
        b = angle + sign * np.pi * bearing
        v = 0.8 * state[i, 2:] + 0.025 * (thrust + 1) * np.array([np.cos(b), np.sin(b)])
        assert_allclose(new[i], [*(state[i, :2] + v), *v], rtol=1e-12)
    elsewhere = state + np.array([3, 4, 0, 0.0])
    assert_array_equal(ice.x_of(elsewhere, action), x)
    left = ice.change(np.array([[0, 1.0], [0, -1]]), np.array([0, 0, 0, 0.5]))
    assert_allclose(left, [[0, 1], [0, -1]], atol=1e-12)


def test_noise_on_v_is_as_the_header_says():
    x = np.zeros((4000, 4))
    situation = np.zeros(2)
    y = ice.noisy_change(situation, x, noise_at(1)) - ice.change(situation, x)
    assert_allclose((ice.PUSH * y).std(0), 0.005, rtol=0.05)


def test_held_out_situations_are_not_in_the_data():
    x, y = ice.simulate(300, noise_at(2))
    assert x.shape == (12, 300, 4) and y.shape == (12, 300, 2)
    assert_allclose((y - ice.change(ice.SIMULATED[:, None], x)).std(1), 0.2, rtol=0.2)
    assert np.abs(x[..., 2:]).max() <= 1 and x[..., 2:].std() == pytest.approx(3**-0.5, rel=0.05)
    assert_allclose(x[:, 1:, :2], (x[:, :-1, :2] + y[:, :-1]), atol=1e-12)
    assert len({tuple(s) for s in ice.SIMULATED.round(9)}) == 12
    for angle, sign in ice.HELD_OUT:
        same = ice.SIMULATED[ice.SIMULATED[:, 1] == sign, 0]
        assert len(same) == 6
        assert np.cos(angle - same).max() == pytest.approx(np.cos(np.pi / 6))


def test_robots_are_three_of_each_held_out_situation_and_goals_are_all_around():
    situation, goal = ice.robots(noise_at(3))
    assert_array_equal(situation, np.repeat(ice.HELD_OUT, 3, 0))
    assert_allclose(ice.distance(np.zeros((36, 4)), goal), 2)
    assert len(set(np.floor(np.arctan2(*goal.T)))) == 7
    state = np.array([[1, 2, 9, 9.0]])
    assert_allclose(ice.distance(state, np.array([[4, 6.0]])), 5)


def test_two_simulated_situations_are_nearest():
    situation = ice.HELD_OUT
    near = np.stack([ice.is_nearest(situation, np.full(12, i)) for i in range(12)])
    assert_array_equal(near.sum(0), 2)
    for i, b in zip(*np.nonzero(near), strict=True):
        assert ice.SIMULATED[i, 1] == situation[b, 1]
        turn = np.degrees(ice.SIMULATED[i, 0] - situation[b, 0]) % 360
        assert min(turn, 360 - turn) == pytest.approx(30)


# --- The model ---
NET = Network(4 + 3, 2, (5,))


def some_prior(seed=0):
    rng = noise_at(seed)
    return famle.Prior(NET, 0.7 * rng.standard_normal(NET.size), rng.standard_normal((12, 3)))


def some_transitions(B=3, n=6):
    rng = noise_at(8)
    return rng.standard_normal((B, n, 4)), rng.standard_normal((B, n, 2))


def test_the_model_is_told_its_own_h_beside_x():
    x, y = some_transitions()
    w = noise_at(1).standard_normal((3, NET.size + 3))
    predicted = famle.f(NET, w, x)
    errors = famle.error(NET, w, x, y)
    shared = famle.error(NET, w[1], x, y)
    for b in range(3):
        theta = w[b, : NET.size]
        told = np.array([np.append(one, w[b, NET.size :]) for one in x[b]])
        assert_allclose(predicted[b], NET.apply(theta, told), rtol=1e-12)
        assert errors[b] == pytest.approx(((predicted[b] - y[b]) ** 2).sum(), rel=1e-12)
        assert shared[b] == pytest.approx(famle.error(NET, w[1], x[b], y[b]), rel=1e-12)


def test_the_gradient_of_the_error_by_theta_and_h_is_that_of_differences():
    x, y = some_transitions()
    w = noise_at(1).standard_normal((3, NET.size + 3))
    ad.check_grads(lambda w: famle.error(NET, w, x, y), w, order=1)


def test_adaptation_is_adam_from_moments_of_zero_a_batch_a_step():
    x, y = some_transitions()
    w = noise_at(1).standard_normal(NET.size + 3)
    expected = w
    m = v = 0
    for t in range(3):
        leaf = Tensor(expected)
        g = grad(famle.error(NET, leaf, x[t], y[t]), leaf).data
        direction, m, v = metarl.adam(g, m, v, t + 1)
        expected = expected - 0.02 * direction
    assert_allclose(famle.adapted(NET, w, zip(x, y, strict=True), 0.02), expected, rtol=1e-9)


# --- Meta-training ---
def data_of(i):
    """Transitions that are NaN in all situations but i."""
    x, y = some_transitions(12, 20)
    mask = np.where(np.arange(12) == i, 1, np.nan)[:, None, None]
    return x * mask, y * mask


@pytest.mark.parametrize("seed", range(4))
def test_an_iteration_moves_theta_and_one_row_of_h_by_epsilon(seed):
    """By exactly epsilon times what it would with epsilon = 1; and by the data of that row."""
    prior = some_prior()
    before = (prior.theta.tobytes(), prior.h.tobytes())
    i = noise_at(seed).integers(12)
    x, y = data_of(i)
    whole = famle.meta_step(SMALL, prior, x, y, 1.0, noise_at(seed))
    part = famle.meta_step(SMALL, prior, x, y, 0.3, noise_at(seed))
    assert (prior.theta.tobytes(), prior.h.tobytes()) == before
    for new in (whole, part):
        assert_array_equal(np.nonzero((new.h != prior.h).any(1))[0], [i])
        assert (new.theta != prior.theta).any()
        assert np.isfinite(new.theta).all() and np.isfinite(new.h).all()
    assert_allclose(part.theta - prior.theta, 0.3 * (whole.theta - prior.theta), atol=1e-12)
    assert_allclose(part.h - prior.h, 0.3 * (whole.h - prior.h), atol=1e-12)


def test_an_iteration_with_epsilon_1_is_adaptation_on_batches_of_a_situation():
    prior = some_prior()
    x, y = some_transitions(12, 20)
    new = famle.meta_step(SMALL, prior, x, y, 1.0, noise_at(5))
    rng = noise_at(5)
    i = rng.integers(12)
    rows = rng.integers(20, size=(2, 4))
    w = np.append(prior.theta, prior.h[i])
    batches = [(x[i, row], y[i, row]) for row in rows]
    w = famle.adapted(NET, w, batches, SMALL.alpha)
    assert_allclose(np.append(new.theta, new.h[i]), w, rtol=1e-12)


@pytest.mark.parametrize("e", [0, 3])
def test_meta_training_goes_on_from_itself_and_epsilon_falls_to_0(e):
    x, y = some_transitions(12, 20)
    prior = famle.meta_train(SMALL, e, x, y, 4)
    rng = noise_at(4, famle.OWN, 1, e)
    expected = famle.untrained(SMALL, e, rng)
    assert expected.h.shape == (12, e) and expected.net.inputs == 4 + e
    for factor in (1, 2 / 3, 1 / 3):
        expected = famle.meta_step(SMALL, expected, x, y, 0.5 * factor, rng)
    assert_allclose(prior.theta, expected.theta, rtol=1e-12)
    assert_allclose(prior.h, expected.h, rtol=1e-12)


# --- The choice ---
def test_the_choice_is_the_likeliest_h_under_the_meta_parameters():
    prior = some_prior()
    x, y = some_transitions(20, 5)
    first = np.arange(20) % 12
    b = np.array([3, 4, 7, 11, 19])
    choice = famle.likeliest(prior, first)
    chosen = choice(5, b, x[b], y[b])
    for k, i in zip(b, chosen, strict=True):
        log_p = []
        for h in prior.h:
            mean = NET.apply(prior.theta, np.array([np.append(one, h) for one in x[k]]))
            log_p.append(norm(mean, 0.3).logpdf(y[k]).sum())
        assert i == np.argmax(log_p)
    assert len(set(chosen)) > 1
    assert_array_equal(choice(0, b, x[b, :0], y[b, :0]), first[b])
    assert_array_equal(famle.given(first)(5, b, x[b], y[b]), first[b])


def test_anew_is_another_at_each_step():
    choice = famle.anew(12, 1)
    b = np.arange(400)
    now = choice(3, b, None, None)
    assert_array_equal(now, choice(3, b, None, None))
    assert set(now) == set(range(12))
    assert (now != choice(4, b, None, None)).mean() > 0.8


def test_a_model_is_adapted_to_the_transitions_and_without_any_is_the_prior():
    prior = some_prior()
    x, y = some_transitions()
    i = np.array([4, 0, 9])
    b = np.arange(3)
    w = np.stack([np.append(prior.theta, prior.h[k]) for k in i])
    predict = famle.adapting(prior, famle.given(i), 3, 0.01)(6, b, x, y)
    by_hand = famle.adapted(NET, w, [(x, y)] * 3, 0.01)
    assert_array_equal(predict(x), famle.f(NET, by_hand, x))
    before = famle.error(NET, w, x, y)
    assert (famle.error(NET, by_hand, x, y) < before).all()
    predict = famle.adapting(prior, famle.given(i), 3, 0.01)(0, b, x[:, :0], y[:, :0])
    assert_array_equal(predict(x), famle.f(NET, w, x))


# --- The drive ---
def driven(o=SMALL, model=None, seed=3, turn=0.0):
    situation, goal = ice.robots(noise_at(seed))
    situation = situation + [turn, 0]
    return famle.drive(o, model or famle.known(situation), situation, goal, seed), goal


def test_the_choice_and_each_step_start_from_the_prior(monkeypatch):
    """Whatever adaptation came to: here to NaN, in copies that nobody may keep or choose by."""
    prior = some_prior()
    before = (prior.theta.tobytes(), prior.h.tobytes())
    first = np.arange(36) % 12
    chosen = famle.likeliest(prior, first)
    seen = []

    def choice(t, b, x, y):
        i = chosen(t, b, x, y)
        each = [famle.error(NET, np.append(prior.theta, h), x, y) for h in prior.h]
        assert_array_equal(i, first[b] if t == 0 else np.argmin(each, 0))
        seen.append(i)
        return i

    def adapted(net, w, batches, step_size):
        expected = np.stack([np.append(prior.theta, prior.h[i]) for i in seen[-1]])
        assert_array_equal(w, expected)
        w *= np.nan
        return expected + 100

    monkeypatch.setattr(famle, "adapted", adapted)
    driven(model=famle.adapting(prior, choice, 2, 0.01))
    assert len(seen) == SMALL.limit
    assert any((i != seen[1]).any() for i in seen[2:])
    assert (prior.theta.tobytes(), prior.h.tobytes()) == before


def test_nothing_is_told_of_the_situation():
    """In another one the first action is the same, bit for bit; only then the paths part."""
    model = famle.adapting(some_prior(), famle.given(np.arange(36) % 12), 2, 0.01)
    one, _ = driven(model=model)
    other, _ = driven(model=model, turn=1.0)
    assert one.x[:, 0].tobytes() == other.x[:, 0].tobytes()
    assert (one.y[:, 0] != other.y[:, 0]).any(-1).mean() > 0.9
    assert (one.x[:, -1] != other.x[:, -1]).any(-1).all()


def test_a_model_gets_the_latest_transitions_of_those_who_have_not_arrived(monkeypatch):
    monkeypatch.setattr(ice, "NEAR", 1.7)
    situation, goal = ice.robots(noise_at(3))
    told = []

    def model(t, b, x, y):
        told.append((t, b, x, y))
        return famle.known(situation)(t, b, x, y)

    d, goal = driven(replace(SMALL, memory=3, limit=5), model)
    assert 0 < d.arrived.mean() < 1
    for t, b, x, y in told:
        assert_array_equal(x, d.x[b, max(t - 3, 0) : t])
        assert_array_equal(y, d.y[b, max(t - 3, 0) : t])
        near = ice.distance(d.states[:, : t + 1], goal[:, None]) <= 1.7
        assert_array_equal(b, np.nonzero(~near.any(1))[0])
    near = ice.distance(d.states, goal[:, None]) <= 1.7
    assert_array_equal(d.arrived, near.any(1))
    assert_array_equal(d.steps, np.where(near.any(1), near.argmax(1), 5))


def test_a_drive_is_what_the_world_makes_of_the_plans():
    """The first action of each plan, the rest of which is where the next one starts."""
    means = []

    def plan(cost, mean, rng):
        means.append(mean.copy())
        return (mean + rng.uniform(-0.3, 0.3, mean.shape)).clip(-1, 1)

    d, _ = driven(replace(SMALL, cem=SimpleNamespace(plan=plan)), turn=0.5)
    situation, _ = ice.robots(noise_at(3))
    situation = situation + [0.5, 0]
    assert d.states.shape == (36, 9, 4) and d.x.shape == (36, 8, 4)
    assert_array_equal(means[0], 0)
    rng = noise_at(3, famle.OWN, 3)
    for t in range(8):
        rest = means[t] + noise_at(3, famle.OWN, 4, t).uniform(-0.3, 0.3, (36, 3, 2))
        rest = rest.clip(-1, 1)
        if t < 7:
            assert_array_equal(means[t + 1], later(rest))
        x = ice.x_of(d.states[:, t], rest[:, 0])
        assert_array_equal(d.x[:, t], x)
        y = ice.noisy_change(situation, x, rng)
        assert_array_equal(d.y[:, t], y)
        assert_array_equal(d.states[:, t + 1], ice.moved(d.states[:, t], y))


def test_a_drive_ends_when_all_have_arrived_and_known_dynamics_go_straight():
    cem = CEM(plans=40, rounds=3, elites=6, bound=1.0)
    d, _ = driven(replace(SMALL, limit=50, horizon=4, cem=cem))
    assert d.arrived.all()
    assert d.steps.max() == d.x.shape[1] < 25
    assert d.steps.mean() < 14


def test_the_cost_of_a_plan_is_a_loop():
    rng = noise_at(0)
    state = rng.standard_normal((2, 4))
    goal = rng.standard_normal((2, 2))
    plans = rng.uniform(-1, 1, (2, 3, 4, 2))
    w = rng.standard_normal((2, NET.size + 3))
    costs = famle.costs(lambda x: famle.f(NET, w, x), state, goal, plans)
    for b in range(2):
        for n in range(3):
            s = state[b]
            cost = 0
            for action in plans[b, n]:
                y = famle.f(NET, w[b], ice.x_of(s, action)[None])[0]
                s = ice.moved(s, y)
                cost += np.hypot(*(s[:2] - goal[b]))
            assert costs[b, n] == pytest.approx(cost, rel=1e-10)
    situation = np.array([[0.3, 1], [2.0, -1], [1.0, 1]])
    predict = famle.known(situation)(0, np.array([2, 0]), None, None)
    x = rng.standard_normal((2, 5, 4))
    assert_array_equal(predict(x)[0], ice.change(situation[2], x[0]))


# --- Rows and claims ---
def test_rows_are_what_they_are_called(monkeypatch):
    """Each with its prior, its choice, its number of steps and its step size."""
    calls = {}
    drives = []

    def adapting(prior, choice, steps, beta):
        i = choice(4, np.arange(36), *transitions)
        return prior.h.shape[1], prior.theta.tobytes(), tuple(i), steps, beta

    def drive(o, model, situation, goal, seed):
        n = len(calls)
        if n == 0:
            drives.append((situation, goal))
        assert situation is drives[0][0] and goal is drives[0][1] and seed == 3
        assert_array_equal(situation, np.repeat(ice.HELD_OUT, 3, 0))
        calls[n] = model
        arrived = np.arange(36) < n
        return famle.Drive(None, *transitions, np.full(36, n), arrived)

    x, y = some_transitions(36, 4)
    transitions = (x, y)
    monkeypatch.setattr(famle, "adapting", adapting)
    monkeypatch.setattr(famle, "drive", drive)
    rows, _ = famle.run(SMALL, 3)

    data = ice.simulate(20, noise_at(3, famle.OWN, 0))
    many = famle.meta_train(SMALL, 3, *data, 3)
    one = famle.meta_train(SMALL, 0, *data, 3)
    none = famle.untrained(SMALL, 0, noise_at(3, famle.OWN, 7))
    first = noise_at(3, famle.OWN, 5).integers(12, size=36)
    chosen = famle.likeliest(many, first)(4, np.arange(36), x, y)
    random = noise_at(3, famle.OWN, 6, 4).integers(12, size=36)
    expected = {
        "without l.8": (many, chosen, 0, 0),
        "no prior, 0.01": (none, first, 2, 0.01),
    }
    for beta in (0.003, 0.01):
        expected[f"FAMLE {beta}"] = (many, chosen, 2, beta)
        expected[f"h at random {beta}"] = (many, first, 2, beta)
        expected[f"h anew {beta}"] = (many, random, 2, beta)
        expected[f"one prior {beta}"] = (one, first, 2, beta)
        expected[f"one prior, 3 k {beta}"] = (one, first, 6, beta)
    for name, (prior, i, steps, beta) in expected.items():
        number = name.split()[-1]
        row, column = name, "steps"
        if name not in rows:
            row, column = name.removesuffix(f" {number}"), f"steps {number}"
        n = rows[row][column]
        assert calls[n] == (prior.h.shape[1], prior.theta.tobytes(), tuple(i), steps, beta)
        assert rows[row][column.replace("steps", "arrived")] == pytest.approx(100 * n / 36)
    assert rows["dynamics known"]["steps"] == 0
    situation, _ = ice.robots(noise_at(0))
    assert rows["choice"]["nearest"] == ice.is_nearest(situation, chosen).mean()


def test_claims_by_hand():
    """Of what FAMLE is compared with, the best step size of each seed counts."""

    def row(first, second):
        return {"steps 0.003": np.array(first), "steps 0.01": np.array(second)}

    rows = {
        "FAMLE": row([15.0, 18], [1.0, 1]),
        "h at random": row([60.0, 27], [30.0, 90]),
        "h anew": row([30.0, 36], [45.0, 45]),
        "one prior": row([30.0, 50], [40.0, 20]),
        "one prior, 3 k": row([25.0, 24], [20.0, 30]),
        "dynamics known": {"steps": np.array([10.0, 15])},
        "without l.8": {"steps": np.array([18.0, 18])},
    }
    rows["FAMLE"] |= {"arrived 0.003": np.array([100.0, 96]), "arrived 0.01": np.zeros(2)}
    measured = [c.measured for c in famle.claims(rows)]
    assert_allclose(measured, [0.7, 0.9, 0.75, 0.75, 98, 1.35, 1.75, 2, 1.1])
    holds = [c.holds for c in famle.claims(rows)]
    assert holds == [True, False, False, True, True, True, True, True, True]


def test_the_chapter_in_small(capsys, tmp_path):
    argv = ["--quick", "--seeds", "1"]
    try:
        import matplotlib  # noqa: F401

        argv += ["--plot", str(tmp_path)]
    except ImportError:
        pass
    tiny = famle.CHAPTER._replace(quick=SMALL)
    assert common.main(tiny, [*argv, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert all(len(n) == 1 for columns in content["rows"].values() for n in columns.values())
    assert len(content["claims"]) == 9
    rows = {r: {c: np.array(n) for c, n in row.items()} for r, row in content["rows"].items()}
    report = tiny.report(rows)
    for name in rows:
        assert name in report
    if "--plot" in argv:
        assert (tmp_path / "famle.svg").read_text().startswith("<?xml")
