"""The chapters that learn a model: each part against its slow form, and that nobody tells in flight
what is to be inferred. Whole runs are in .ci/run, as --quick --json.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import latent_comparison as comparison
from chapters import latent_model as lm
from chapters import payload
from chapters.models import CEM, Dynamics, Moments, adam_step, later
from metarl import noise_at

SMALL = lm.Options(
    lengths=(0.2, 0.5, 1.0),
    held_out=(0.25, 0.35, 0.7, 0.9),
    outside=(0.15, 1.4),
    flights=2,
    flight_steps=12,
    hidden=(6,),
    train_steps=3,
    batch=8,
    test_steps=12,
    exchange=6,
    window=4,
    infer_steps=2,
    horizon=3,
    cem=CEM(plans=5, rounds=2, elites=2),
)


# --- models.py ---
def test_log_p_is_that_of_independent_gaussians():
    net = Dynamics(3, 2, (4,))
    theta = noise_at(0).standard_normal(net.size)
    x = noise_at(1).standard_normal((5, 7, 3))
    y = noise_at(2).standard_normal((5, 7, 2))
    expected = norm(net.mean(theta, x), np.exp(theta[-2:])).logpdf(y).sum(-1)
    assert_allclose(net.log_p(theta, x, y), expected, rtol=1e-12)
    assert_array_equal(net.init(noise_at(0))[-2:], 0)


def test_a_step_of_adam_is_metarls_and_rows_may_be_at_different_steps():
    def loss(w):
        return ad.sum(w**3, -1)

    w = noise_at(0).standard_normal((2, 3))
    one, moments = adam_step(loss, w, 0.1, Moments())
    two, _ = adam_step(loss, one, 0.1, moments)
    direction, m, v = metarl.adam(3 * w**2, 0, 0, 1)
    assert_allclose(one, w - 0.1 * direction, rtol=1e-12)
    direction, *_ = metarl.adam(3 * one**2, m, v, 2)
    assert_allclose(two, one - 0.1 * direction, rtol=1e-12)

    at_its_second = np.array([[False], [True]])
    mixed = Moments(*[np.where(at_its_second, part, 0) for part in moments])
    both, _ = adam_step(loss, np.where(at_its_second, one, w), 0.1, mixed)
    assert_allclose(both, [one[0], two[1]], rtol=1e-12)


def test_the_planner_is_a_loop_over_robots_and_rounds():
    cem = CEM(plans=9, rounds=3, elites=4, std=0.8, bound=1.0)
    goal = noise_at(0).standard_normal((3, 2))
    mean = 0.3 * noise_at(1).standard_normal((3, 5, 2))

    def cost(plans):
        return ((plans.sum(2) - goal[:, None]) ** 2).sum(-1)

    rng = noise_at(2)
    noise = [rng.standard_normal((3, 9, 5, 2)) for _ in range(3)]
    for b, plan in enumerate(cem.plan(cost, mean, noise_at(2))):
        mu = mean[b]
        std = np.full((5, 2), 0.8)
        for eps in noise:
            plans = [np.clip(mu + std * one, -1, 1) for one in eps[b]]
            plans.sort(key=lambda one: ((one.sum(0) - goal[b]) ** 2).sum())
            mu = np.mean(plans[:4], 0)
            std = np.std(plans[:4], 0)
        assert_allclose(plan, mu, rtol=1e-12)


def test_the_planner_finds_the_best_plan():
    target = noise_at(0).uniform(-1, 1, (4, 6, 2))
    cem = CEM(plans=200, rounds=12, elites=20)
    plan = cem.plan(
        lambda plans: ((plans - target[:, None]) ** 2).sum((2, 3)), 0 * target, noise_at(1)
    )
    assert_allclose(plan, target, atol=0.05)


def test_later_drops_the_first_action():
    plan = np.arange(8.0).reshape(1, 4, 2)
    assert_array_equal(later(plan)[0, :, 0], [2, 4, 6, 6])


# --- The world ---
class Calm:
    """Noise that is none."""

    def standard_normal(self, shape):
        return np.zeros(shape)


def test_the_payload_is_a_damped_pendulum():
    """Against its solution, with the vehicle at rest; and towards the vehicle, not away."""
    length = np.array([0.3, 1.0])
    state = payload.at_rest(2)
    state[:, 0] += 0.1
    rate = payload.DRAG / 2
    omega = np.sqrt(payload.GRAVITY / length - rate**2)
    for t in range(1, 11):
        state = payload.step(state, np.zeros((2, 2)), length, Calm())
        swing = np.cos(omega * t * payload.DT) + rate / omega * np.sin(omega * t * payload.DT)
        exact = 0.5 + 0.1 * np.exp(-rate * t * payload.DT) * swing
        assert_allclose(state[:, 0], exact, atol=0.015)
    assert_array_equal(state[:, [1, 4, 5]], [[0, 0.5, 0]] * 2)


def test_x_and_y_say_all_and_nothing_of_the_place():
    state = noise_at(0).standard_normal((5, 6))
    action = noise_at(1).standard_normal((5, 2))
    length = np.full(5, 0.4)
    new = payload.step(state, action, length, Calm())
    y = payload.y_of(state, new)
    assert_allclose(payload.moved(state, action, y), new, rtol=1e-12)
    elsewhere = state + np.array([3, 4, 0, 0, 3, 4.0])
    assert_allclose(payload.x_of(elsewhere, action), payload.x_of(state, action), rtol=1e-12)
    new = payload.step(elsewhere, action, length, Calm())
    assert_allclose(payload.y_of(elsewhere, new), y, atol=1e-12)


def test_wandering_actions_have_deviation_1_and_training_lengths_are_not_held_out():
    x, y = payload.wander(np.repeat([0.3, 1.0], 40), 50, noise_at(0))
    assert x.shape == (80, 50, 6) and y.shape == (80, 50, 4)
    assert_allclose(x[:, 5:, 4:].std((0, 1)), 1, atol=0.05)
    o = lm.Options()
    flown, other = payload.in_flight(o)
    assert not set(o.lengths) & set(flown.ravel())
    assert (flown != flown[:, other]).all()
    held_out = flown[:, : len(o.held_out)]
    assert (held_out[o.exchange - 1] != held_out[o.exchange]).all()
    assert (flown[: o.exchange] == flown[0]).all() and (flown[o.exchange :] == flown[-1]).all()


def test_errors_are_of_the_steps_and_flights_that_they_name():
    states = np.stack([payload.at_rest(6)] * 13)
    for t in range(13):
        states[t, :, :2] = payload.circle(t)
        states[t, :, 0] += t / 100
        states[t, 4:, 0] += 1
    e = payload.errors(SMALL, states)
    assert e["held out"] == pytest.approx(np.sqrt(np.mean([9, 16, 25])))
    assert e["exchanged"] == pytest.approx(6)
    assert e["settled"] == pytest.approx(np.sqrt(np.mean([81, 100, 121, 144])))
    assert e["outside"] == pytest.approx(np.sqrt(np.mean([(100 + t) ** 2 for t in range(3, 13)])))


# --- The ELBO ---
def some_transitions(B=3, n=4):
    rng = noise_at(8)
    x = rng.standard_normal((B, n, 6))
    return x, rng.standard_normal((B, n, 4)), rng.standard_normal((B, n))


def some_net():
    net = Dynamics(7, 4, (5,))
    return net, 0.7 * noise_at(9).standard_normal(net.size)


Q = np.array([[0.5, -0.3], [-1.2, 0.4], [0.1, -2.0]])


def test_kl_is_the_integral_in_closed_form():
    for (mu, log_sigma), kl in zip(Q, lm.kl(Q), strict=True):
        q = norm(mu, np.exp(log_sigma))
        integral, _ = quad(lambda z, q=q: q.pdf(z) * (q.logpdf(z) - norm.logpdf(z)), -10, 10)
        assert kl == pytest.approx(integral, rel=1e-6)
    assert lm.kl(np.zeros(2)) == 0


def test_the_elbo_is_that_of_a_loop():
    net, theta = some_net()
    x, y, eps = some_transitions()
    losses = lm.negative_elbo(net, theta, Q, x, y, eps, 2.5)
    for b, loss in enumerate(losses):
        mu, log_sigma = Q[b]
        expected = lm.kl(Q[b])
        for i in range(4):
            z = mu + np.exp(log_sigma) * eps[b, i]
            mean = net.mean(theta, np.append(x[b, i], z)[None])
            expected -= 2.5 * norm(mean, np.exp(theta[-4:])).logpdf(y[b, i]).sum()
        assert loss == pytest.approx(expected, rel=1e-12)
    start = lm.negative_elbo(net, theta, Q[1], x, y, eps)
    assert_allclose(start, lm.negative_elbo(net, theta, np.tile(Q[1], (3, 1)), x, y, eps))


def test_the_gradient_of_the_elbo_by_theta_mu_and_sigma_is_that_of_differences():
    net, theta = some_net()
    x, y, eps = some_transitions()
    ad.check_grads(lambda w: lm.negative_elbo(net, w, Q, x, y, eps, 2.0), theta, order=1)
    ad.check_grads(lambda q: lm.negative_elbo(net, theta, q, x, y, eps, 2.0), Q, order=1)
    w = np.concatenate([theta, Q.ravel()])
    for part, expected in zip(lm.split(net, w), (theta, Q), strict=True):
        assert_array_equal(part, expected)
    ad.check_grads(lambda w: lm.negative_elbo(net, *lm.split(net, w), x, y, eps, 2.0), w, order=1)


# --- Training ---
def test_training_is_adam_on_all_of_w_from_beliefs_at_zero():
    """Two steps, by hand: theta and all q jointly, each transition for N / batch, beta falling."""
    o = replace(SMALL, train_steps=2)
    x, y, _ = some_transitions(3, 20)
    net, _ = some_net()
    first = np.tile([0.0, -2.0], (3, 1))
    theta, q = lm.train(o, net, x, y, first, 5)

    rng = noise_at(5, lm.OWN, 1, 7)
    w = np.concatenate([net.init(rng), first.ravel()])
    m = v = 0
    for t in range(2):
        i = rng.integers(20, size=(3, 8))
        eps = rng.standard_normal((3, 8))
        leaf = Tensor(w)
        total = 0
        for k in range(3):
            own = leaf[net.size + 2 * k : net.size + 2 * k + 2]
            batch = (x[k, i[k]][None], y[k, i[k]][None], eps[k][None])
            total = total + lm.negative_elbo(net, leaf[: net.size], own[None], *batch, 20 / 8)[0]
        direction, m, v = metarl.adam(grad(total, leaf).data, m, v, t + 1)
        w = w - o.beta * [1, 0.55][t] * direction
    assert_allclose(theta, w[: net.size], atol=1e-9)
    assert_allclose(q.ravel(), w[net.size :], atol=1e-9)
    with pytest.raises(ValueError, match="read-only"):
        theta += 1


def test_a_history_is_what_was_before_and_not_what_is():
    x = np.arange(12.0).reshape(1, 2, 6)
    y = -np.arange(8.0).reshape(1, 2, 4)
    x = np.concatenate([x, x + 100], 1)
    y = np.concatenate([y, y - 100], 1)
    h = comparison.history(x, y, 2)
    pairs = np.concatenate([x, y], -1)[0]
    assert_array_equal(h[0, 0], np.zeros(20))
    assert_array_equal(h[0, 1], np.append(np.zeros(10), pairs[0]))
    assert_array_equal(h[0, 3], np.append(pairs[1], pairs[2]))
    for t in range(4):
        assert_array_equal(comparison.latest(2)(t, x[:, :t], y[:, :t])[0], h[0, t])
    everything = np.append(pairs[2], pairs[3])
    assert_array_equal(comparison.latest(2)(4, x, y)[0], everything)


def test_models_learn_of_each_payload_from_its_own_flights(monkeypatch):
    """And z without a word of its length: rivals are told in columns that are added to x."""
    trained = []

    def train(o, net, x, y, q, seed, loss=lm.negative_elbo):
        trained.append((x, y, q, loss))
        return lm_train(o, net, x, y, q, seed, loss)

    lm_train = lm.train
    monkeypatch.setattr(lm, "train", train)
    lm.learn(SMALL, 3)
    x, y = payload.wander(np.repeat(SMALL.lengths, 2), 12, noise_at(3, lm.OWN, 0))
    x = (x / x.std((0, 1))).reshape(3, 24, 6)
    y = (y / y.std((0, 1))).reshape(3, 24, 4)
    q = np.tile([0, -2.0], (3, 1))
    for (x_and_c, y_of_it, first_q, loss), width in zip(trained, (6, 6, 56, 7), strict=True):
        assert x_and_c.shape[-1] == width
        assert_allclose(x_and_c[..., :6], x)
        assert_allclose(y_of_it, y)
        is_z = len(first_q) > 0
        assert is_z == (loss is lm.negative_elbo) == (first_q.shape == q.shape)
    assert_array_equal(trained[0][2], q)
    assert_allclose(trained[3][0][..., 6], np.log(SMALL.lengths)[:, None] + 0.8 + np.zeros(24))


def test_rivals_learn_by_the_likelihood_alone():
    net, theta = some_net()
    x, y, eps = some_transitions()
    x_and_c = np.concatenate([x, eps[..., None]], -1)
    loss = comparison.negative_log_p(net, theta, np.zeros((0, 2)), x_and_c, y, eps, 7.0)
    assert_allclose(loss, -net.log_p(theta, x_and_c, y).sum(-1))


# --- Inference ---
@pytest.fixture(scope="module")
def learned():
    models, q = lm.learn(SMALL, 3)
    assert q.shape == (3, 2)
    return models


@pytest.fixture(scope="module")
def linear():
    """A model y = z in each of the four, with deviation 0.5: the posterior has a closed form."""
    net = Dynamics(7, 4, ())
    w = np.zeros((7, 4))
    w[6] = 1
    theta = np.concatenate([w.ravel(), np.zeros(4), np.full(4, np.log(0.5))])
    return lm.Model(net, theta, np.ones(6), np.ones(4), False)


def test_without_data_q_stays_at_the_prior(learned):
    q, moments = lm.prior(4)
    for t in range(5):
        nothing = (np.zeros((4, 0, 6)), np.zeros((4, 0, 4)))
        q, moments = lm.infer(SMALL, learned["z"], q, moments, *nothing, noise_at(t))
    assert_array_equal(q, 0)


def test_q_goes_to_the_posterior_and_each_to_its_own(linear):
    """Of n = 5 transitions: precision 1 + 4 n / 0.25, whatever q was before."""
    o = replace(SMALL, infer_steps=300, infer_beta=0.03)
    z = np.array([-1.5, 0.2, 1.0])
    x = np.zeros((3, 5, 6))
    y = z[:, None, None] + 0.5 * noise_at(0).standard_normal((3, 5, 4))
    precision = 1 + 4 * 5 / 0.25
    mean = y.sum((1, 2)) / 0.25 / precision
    prior, none = lm.prior(3)
    for start in (prior, np.full((3, 2), [4.0, -3.0])):
        q, _ = lm.infer(o, linear, start, none, x, y, noise_at(1))
        assert_allclose(q[:, 0], mean, atol=0.05)
        assert_allclose(np.exp(q[:, 1]), precision**-0.5, rtol=0.25)


def test_a_belief_starts_again_where_that_is_better_and_only_there(linear):
    o = replace(SMALL, infer_steps=0)
    y = np.array([-1.9, 0.95])[:, None, None] + np.zeros((2, 4, 4))
    moments = Moments(*np.ones((3, 2, 2)))
    lost = np.array([[3.0, -4.0], [0.95, -4.0]])
    q, moments = lm.infer(o, linear, lost, moments, np.zeros((2, 4, 6)), y, noise_at(0))
    assert_array_equal(q, [[-2, -1], [0.95, -4]])
    for part in moments:
        assert_array_equal(part, [[0, 0], [1, 1]])


def test_z_is_drawn_from_what_is_believed_of_each(linear):
    y = np.array([-1.9, 0.95])[:, None, None] + np.zeros((2, 8, 4))
    z = lm.z_from(replace(SMALL, infer_beta=0.02), linear, np.zeros((2, 8, 6)), y, 99, noise_at(0))
    assert z.shape == (2, 99, 1)
    assert_allclose(z.mean(1)[:, 0], [-1.9, 0.95], atol=0.2)
    assert (z.std(1) > 0.05).all()


def test_predictions_are_of_second_flights_after_the_ends_of_the_first(learned):
    o = replace(SMALL, flight_steps=60)
    seen = []

    def z_from(x, y, n, rng):
        seen.append((x, y))
        return np.full((4, n, 1), 0.3)

    rows = comparison.predictions(o, learned, z_from, 3)
    x, y = payload.wander(np.repeat(o.held_out, 2), 60, noise_at(3, lm.OWN, 5))
    x = x / learned["z"].x_std
    y = y / learned["z"].y_std
    for (x_seen, y_seen), n in zip(seen, (0, 1, 2, 5, 10, 50), strict=True):
        assert_array_equal(x_seen, x[0::2, 60 - n :])
        assert_array_equal(y_seen, y[0::2, 60 - n :])
    lengths = np.log(o.held_out)[:, None, None] + 0.8 + np.zeros((60, 1))
    for name, c in (("length known", lengths), ("z from 5", np.full((4, 60, 1), 0.3))):
        model = learned["z" if name == "z from 5" else name]
        log_p = model.net.log_p(model.theta, np.concatenate([x[1::2], c], -1), y[1::2])
        assert rows[f"predicted, {name}"]["-log p"] == pytest.approx(-log_p.mean())


# --- The flight ---
def flown(o, models, name, seed=3):
    z = models["z"]
    lengths, other = payload.in_flight(o)
    context = lm.inferred(o, z, seed, 6)
    if name == "history":
        context = comparison.latest(o.memory)
    if name == "another's z":
        context = comparison.of_another(context, other)
    return lm.fly(o, models[name] if name == "history" else z, context, lengths, seed)


@pytest.mark.parametrize("name", ["z inferred", "another's z", "history"])
def test_nothing_is_told_of_the_exchange(learned, name):
    """With the exchange at another step the flight is the same, bit for bit, until then."""
    early, told_early = flown(SMALL, learned, name)
    late, told_late = flown(replace(SMALL, exchange=9), learned, name)
    assert early[:7].tobytes() == late[:7].tobytes()
    assert told_early[:7].tobytes() == told_late[:7].tobytes()
    assert (early[7, :4] != late[7, :4]).any(-1).all()
    assert early[:, 4:].tobytes() == late[:, 4:].tobytes()


def test_theta_is_the_same_bytes_after_a_flight(learned):
    before = {name: model.theta.tobytes() for name, model in learned.items()}
    for name in ("z inferred", "history"):
        flown(SMALL, learned, name)
    comparison.predictions(SMALL, learned, partial(lm.z_from, SMALL, learned["z"]), 3)
    for name, model in learned.items():
        assert model.theta.tobytes() == before[name]
        with pytest.raises(ValueError, match="read-only"):
            model.theta[0] = 1


def test_a_model_is_told_the_mean_of_its_own_belief_or_of_anothers(learned):
    """Of the latest transitions alone; in the first step, when nothing was seen, the prior's."""
    x, y, _ = some_transitions(3, 7)
    own = lm.inferred(SMALL, learned["z"], 3, 3)
    again = lm.inferred(SMALL, learned["z"], 3, 3)
    another = comparison.of_another(again, np.array([2, 0, 1]))
    q, moments = lm.prior(3)
    for t in range(7):
        z = own(t, x[:, :t], y[:, :t])
        window = np.s_[:, max(t - 4, 0) : t]
        rng = noise_at(3, lm.OWN, 4, t)
        q, moments = lm.infer(SMALL, learned["z"], q, moments, x[window], y[window], rng)
        assert_array_equal(z, q[:, :1])
        assert_array_equal(another(t, x[:, :t], y[:, :t]), z[[2, 0, 1]])
        assert (z == 0).all() == (t == 0)


@pytest.mark.parametrize("name, e", [("z", 1), ("history", 50), ("no z", 0)])
def test_the_cost_of_a_plan_is_a_loop(learned, name, e):
    """Over flights, plans and steps; a history moves on by what the model itself predicts."""
    model = learned[name]
    rng = noise_at(0)
    state = payload.at_rest(2) + 0.1 * rng.standard_normal((2, 6))
    c = rng.standard_normal((2, e))
    plans = rng.standard_normal((2, 3, 4, 2))
    costs = lm.costs(model, state, c, 5, plans)
    for b in range(2):
        for n in range(3):
            s = state[b]
            told = list(c[b])
            cost = 0
            for h in range(4):
                action = plans[b, n, h]
                x = payload.x_of(s, action) / model.x_std
                y = model.net.mean(model.theta, np.append(x, told)[None])[0]
                s = payload.moved(s, action, y * model.y_std)
                cost += ((s[:2] - payload.circle(5 + h + 1)) ** 2).sum()
                if name == "history":
                    told = told[10:] + [*x, *y]
            assert costs[b, n] == pytest.approx(cost, rel=1e-10)


def test_a_plan_starts_where_the_last_one_ended_and_its_first_action_is_taken(learned):
    means = []

    class Planner:
        def plan(self, cost, mean, rng):
            means.append(mean)
            return mean + np.arange(6).reshape(3, 2) / 10

    o = replace(SMALL, cem=Planner())
    lengths, _ = payload.in_flight(o)
    states, _ = lm.fly(o, learned["no z"], comparison.nothing(0), lengths, 3)
    plan = np.zeros((6, 3, 2))
    for t, mean in enumerate(means):
        assert_array_equal(mean, plan)
        plan = plan + np.arange(6).reshape(3, 2) / 10
        vehicle = states[t, :, 4:] + payload.DT * plan[:, 0]
        assert_allclose(states[t + 1, :, 4:], vehicle, atol=1e-12)
        plan = later(plan)
    assert len(means) == 12


def test_all_fly_the_same_payloads_in_the_same_gusts(learned, monkeypatch):
    flights = []

    def fly(o, model, context, lengths, seed):
        states, contexts = lm_fly(o, model, context, lengths, seed)
        flights.append((model, lengths, seed, contexts))
        return states, contexts

    lm_fly = lm.fly
    monkeypatch.setattr(lm, "learn", lambda o, seed: (learned, Q))
    monkeypatch.setattr(lm, "fly", fly)
    rows, picture = lm.run(SMALL, 3)
    assert list(rows)[:6] == [
        "no z",
        "history",
        "z inferred",
        "prior's z",
        "another's z",
        "length known",
    ]
    names = ("no z", "history", "z", "z", "z", "length known")
    for (model, lengths, seed, _), name in zip(flights, names, strict=True):
        assert model is learned[name] and seed == 3
        assert_array_equal(lengths, payload.in_flight(SMALL)[0])
    told = {row: contexts for row, (_, _, _, contexts) in zip(rows, flights, strict=False)}
    assert told["no z"].shape == (12, 6, 0) and told["history"].shape == (12, 6, 50)
    assert_array_equal(told["prior's z"], np.zeros((12, 6, 1)))
    assert_array_equal(told["length known"][..., 0], np.log(lengths) + 0.8)
    assert (told["z inferred"][1:, :4] != told["another's z"][1:, :4]).all()
    assert list(picture["flights"]) == list(rows)[:6]
    as_arrays = {}
    for row, columns in rows.items():
        as_arrays[row] = {column: np.array([number]) for column, number in columns.items()}
    assert "z from 50" in lm.report(as_arrays)
    assert len(lm.claims(as_arrays)) == 7


def test_the_picture_is_drawn(learned):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    flights = {name: flown(SMALL, learned, name) for name in ("z inferred", "history")}
    flights["no z"] = flights["history"]
    lengths, _ = payload.in_flight(SMALL)
    figure = Figure()
    lm.draw(figure, {"o": SMALL, "q": Q, "lengths": lengths, "flights": flights})
    *paths, z = figure.axes
    assert [panel.get_title() for panel in paths] == ["no z", "history", "z inferred"]
    drawn = {line.get_label(): line.get_ydata() for line in z.get_lines()}
    assert_array_equal(drawn["0.25 m, then 0.9 m"], flights["z inferred"][1][:, 0, 0])
