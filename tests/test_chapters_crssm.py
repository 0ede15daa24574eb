"""The chapter on cRSSM: each part against its slow form, who is told what and when, and that the
policy learns in dreams alone. Whole runs are in .ci/run, as --quick --json.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import crssm, rssm, turned
from chapters import crssm_comparison as comparison
from chapters.crssm_comparison import Told
from chapters.models import CEM
from chapters.rssm import RSSM, State
from metarl import noise_at
from policies import Network

SMALL = crssm.Options(
    contexts=4,
    episodes=2,
    steps=7,
    rounds=3,
    first_model_steps=2,
    model_steps=2,
    batch=3,
    policy_steps=2,
    dreams=3,
    hidden=(5,),
    test_contexts=4,
    test_episodes=2,
    seen=3,
    dreamed=4,
)
KINDS = ["hidden", "concatenated", "cRSSM"]


def some(seed, *shape):
    return noise_at(seed).standard_normal(shape)


# --- The world ---
def test_thrust_is_turned_by_right_angles():
    """One to the left: ahead is up. In between, and with speed, by the formula in full."""
    p, v = turned.step(np.zeros(2), np.zeros(2), np.array([1.0, 0.0]), np.ones(1))
    assert_allclose(v, [0, 0.04], atol=1e-12)
    assert_array_equal(p, v)
    p, v, a = some(0, 3, 5, 2)
    c = some(1, 5, 1)
    p_new, v_new = turned.step(p, v, a, c)
    for k in range(5):
        angle = c[k, 0] * np.pi / 2
        R = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        assert_allclose(v_new[k], 0.8 * v[k] + 0.04 * np.array(R) @ a[k])
    assert_allclose(p_new, p + v_new)


def test_the_reward_is_minus_the_distance_to_the_goal():
    assert_allclose(turned.reward(np.array([[1.5, 0], [4.5, 4], [0, 0.0]])), [0, -5, -1.5])


def test_an_episode_is_a_loop_in_the_context_of_each_step():
    """What acts sees positions and actions until now; gusts move v, and so p."""
    T = 5
    seen = []
    actions = some(0, T, 3, 2)

    def act(o, a):
        seen.append((o, a))
        return actions[len(seen) - 1]

    c = some(1, 3, T, 1)
    o, a = turned.play(act, c, T, noise_at(2))
    assert_array_equal(a, actions.swapaxes(0, 1))
    rng = noise_at(2)
    p = 0.1 * rng.standard_normal((3, 2))
    v = np.zeros((3, 2))
    assert_array_equal(o[:, 0], p)
    for t in range(T):
        assert_array_equal(seen[t][0], o[:, : t + 1])
        assert_array_equal(seen[t][1], a[:, :t])
        p_before = p
        p, v = turned.step(p, v, actions[t], c[:, t])
        v = v + 0.003 * rng.standard_normal((3, 2))
        p = p_before + v
        assert_allclose(o[:, t + 1], p, rtol=1e-12)


def test_one_context_is_that_of_all_steps():
    c = some(1, 3, 1)
    each = np.repeat(c[:, None], 4, 1)
    runs = [turned.play(turned.wander(noise_at(0)), x, 4, noise_at(2)) for x in (c, each)]
    assert_array_equal(runs[0][0], runs[1][0])


def test_the_cost_of_a_plan_is_what_the_world_takes_for_it(monkeypatch):
    monkeypatch.setattr(turned, "GUST", 0)
    c = some(0, 2, 1)
    plans = some(1, 2, 3, 4, 2)
    p, v = some(2, 2, 2, 2)
    costs = turned.cost(p, v, c, plans)
    for b in range(2):
        for n in range(3):
            at = (p[b], v[b])
            total = 0
            for action in plans[b, n]:
                at = turned.step(*at, action, c[b])
                total += np.hypot(*(at[0] - turned.GOAL))
            assert costs[b, n] == pytest.approx(total)


def test_who_knows_the_world_knows_the_velocity_and_goes_to_the_goal(monkeypatch):
    seen = []

    def cost(p, v, c, plans):
        seen.append((p, v, plans.shape[2]))
        return turned_cost(p, v, c, plans)

    turned_cost = turned.cost
    monkeypatch.setattr(turned, "cost", cost)
    c = np.array([[-0.9], [0.3], [1.4]])
    act = turned.knowing(CEM(plans=24, rounds=3, elites=5, bound=1.0), c, 15, noise_at(0))
    o, a = turned.play(act, c, 15, noise_at(1))
    assert (np.hypot(*(o[:, -1] - turned.GOAL).T) < 0.3).all()
    assert np.abs(a).max() <= 1
    for t in range(15):
        p, v, ahead = seen[3 * t]
        assert ahead == 15 - t
        assert_array_equal(p, o[:, t])
        assert_allclose(v, o[:, t] - o[:, max(t - 1, 0)], atol=1e-12)


def test_contexts_of_the_test_are_a_grid_inside_and_one_outside():
    inside, outside = turned.inside_and_outside(20, 3).values()
    assert inside.shape == outside.shape == (60, 1)
    assert np.abs(inside).max() == 0.95 and len(np.unique(inside)) == 20
    assert np.abs(outside).min() == 1.05 and np.abs(outside).max() == 1.5
    assert len(np.unique(outside)) == 20 and outside.sum() == pytest.approx(0)
    assert_allclose(np.abs(turned.another(inside) - inside), 1, atol=1e-9)


def test_a_context_is_exchanged_after_so_many_observations():
    """Of the same actions and gusts: the way is the same for three positions, then another."""
    c = np.zeros((2, 1))
    new_c = np.ones((2, 1))
    ways = []
    for x in (c, turned.exchanged(c, new_c, 3, 7)):
        o, _ = turned.play(turned.wander(noise_at(0)), x, 7, noise_at(1))
        ways.append(o)
    same = (ways[0] == ways[1]).all((0, 2))
    assert_array_equal(same, [True] * 3 + [False] * 5)
    assert_array_equal(turned.exchanged(c, new_c, 1, 7), 1)


# --- The world model ---
def small_model(kind="cRSSM"):
    _, model = crssm.KINDS[kind]
    model = replace(model, h=5, z=3, embedding=4, units=6)
    return model, 0.5 * some(7, len(model.init(noise_at(0))))


def weights(model, phi):
    """{name: its layers}, counted off in the order of the parts."""
    layers = {}
    start = 0
    for name, net in model.parts.items():
        layers[name] = net.layers(phi[start : start + net.size])
        start += net.size
    assert start == len(phi)
    return layers


def test_the_context_is_in_neither_prior_nor_posterior():
    c_rssm = RSSM(observation=2, context=1)
    inputs = {name: net.inputs for name, net in c_rssm.parts.items()}
    assert inputs["prior"] == 32 and inputs["posterior"] == 32 + 16 and inputs["embed"] == 2
    assert inputs["input"] == 8 + 2 + 1 and inputs["gru"] == 32 + 32
    assert inputs["observation"] == inputs["reward"] == 32 + 8 + 1
    for kind, seen in (("hidden", 2), ("concatenated", 3)):
        _, model = crssm.KINDS[kind]
        assert model.parts["input"].inputs == 8 + 2 and model.parts["reward"].inputs == 32 + 8
        assert model.parts["embed"].inputs == model.parts["observation"].outputs == seen


def test_phi_at_first_is_that_of_its_networks():
    model, _ = small_model()
    rng = noise_at(3)
    phi = np.concatenate([net.init(rng) for net in model.parts.values()])
    assert_array_equal(model.init(noise_at(3)), phi)


def test_the_gru_is_a_loop_over_its_units():
    model, phi = small_model()
    state = State(some(0, 2, 5), some(1, 2, 3))
    a = some(2, 2, 2)
    c = some(3, 2, 1)
    h_new = rssm.remember(model.at(phi), state, a, c)
    [(w_in, b_in)] = weights(model, phi)["input"]
    [(w, b)] = weights(model, phi)["gru"]
    for n in range(2):
        told = [*state.z[n], *a[n], *c[n]]
        x = [np.tanh(np.dot(told, w_in[:, j]) + b_in[0, j]) for j in range(6)]
        both = [*state.h[n], *x]
        for j in range(5):
            reset, update, new = [np.dot(both, w[:, j + k]) + b[0, j + k] for k in (0, 5, 10)]
            new = np.tanh(new / (1 + np.exp(-reset)))
            update = 1 / (1 + np.exp(-update))
            assert h_new[n, j] == pytest.approx(update * new + (1 - update) * state.h[n, j])


def test_z_is_drawn_from_its_gaussian():
    said = some(0, 4, 6)
    mean, std = rssm.gaussian(said)
    assert_array_equal(mean, said[:, :3])
    assert_allclose(std, 0.05 + np.exp(said[:, 3:]))
    assert_array_equal(rssm.draw(said, np.zeros((4, 3))), mean)
    assert_allclose(rssm.draw(said, np.full((4, 3), 2.0)), mean + 2 * std)


def test_kl_is_that_of_gaussians():
    p, q = 0.5 * some(0, 2, 4, 6)
    z = np.linspace(-15, 15, 6001)
    expected = np.zeros(4)
    for n in range(4):
        for k in range(3):
            of_p = norm(p[n, k], 0.05 + np.exp(p[n, 3 + k]))
            of_q = norm(q[n, k], 0.05 + np.exp(q[n, 3 + k]))
            ratio = of_p.logpdf(z) - of_q.logpdf(z)
            expected[n] += np.trapezoid(of_p.pdf(z) * ratio, z)
    assert_allclose(rssm.kl(p, q), expected, rtol=1e-4)
    assert_array_equal(rssm.kl(p, p), 0)


def episodes(model, B=3, n=5):
    """Observations, actions, rewards, contexts and noise."""
    return (
        some(10, B, n, model.observation),
        some(11, B, n - 1, 2),
        some(12, B, n - 1),
        some(13, B, model.context),
        some(14, B, n, model.z),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_observing_is_a_loop_over_episodes_and_time(kind):
    model, phi = small_model(kind)
    f = model.at(phi)
    o, a, _, c, eps = episodes(model)
    states, said = rssm.observe(f, model.before(3), o, a, c, eps)
    [(w, b)] = weights(model, phi)["embed"]
    for k in range(3):
        h = np.zeros((1, 5))
        z = None
        for t in range(5):
            if t > 0:
                h = rssm.remember(f, State(h, z), a[k : k + 1, t - 1], c[k : k + 1])
            embedded = np.tanh(o[k, t] @ w + b)
            q = f["posterior"](np.concatenate([h, embedded], 1))
            z = rssm.draw(q, eps[k, t])
            assert_allclose(states.h[k, t], h[0], atol=1e-12)
            assert_allclose(states.z[k, t], z[0], atol=1e-12)
            assert_allclose(said[k, t], q[0], atol=1e-12)
    assert_array_equal(states.last().h, states.h[:, -1])
    assert_array_equal(states.last().z, states.z[:, -1])


def test_dreaming_is_a_loop_with_z_of_the_prior_and_actions_of_the_state():
    model, phi = small_model()
    f = model.at(phi)
    eps = some(0, 2, 4, 3)
    c = some(1, 2, 1)
    start = State(some(2, 2, 5), some(3, 2, 3))

    def act(t, state):
        return np.tanh((t + 1) * state.z[:, :2])

    states = rssm.dream(f, start, act, c, eps)
    state = start
    for t in range(4):
        h = rssm.remember(f, state, act(t, state), c)
        state = State(h, rssm.draw(f["prior"](h), eps[:, t]))
        assert_allclose(states.h[:, t], state.h, atol=1e-12)
        assert_allclose(states.z[:, t], state.z, atol=1e-12)


def test_a_state_is_told_with_its_own_context():
    h = some(0, 2, 4, 5)
    z = some(1, 2, 4, 3)
    c = some(2, 2, 1)
    told = State(h, z).with_context(c)
    for b in range(2):
        for t in range(4):
            assert_array_equal(told[b, t], [*h[b, t], *z[b, t], *c[b]])
        assert_array_equal(State(h[:, 0], z[:, 0]).with_context(c)[b], told[b, 0])
    assert State(h, z).with_context(c[:, :0]).shape == (2, 4, 8)


def pieces(model, phi, o, a, r, c, eps):
    """What the loss is made of: the mean squared errors, and what posterior and prior say."""
    f = model.at(phi)
    states, posterior = rssm.observe(f, model.before(len(o)), o, a, c, eps)
    squares = []
    B, n, _ = o.shape
    for b in range(B):
        for t in range(n):
            told = np.concatenate([states.h[b, t], states.z[b, t], c[b]])[None]
            squares.append(((f["observation"](told)[0] - o[b, t]) ** 2).sum() / (B * n))
            if t > 0:
                squares.append((f["reward"](told)[0, 0] - r[b, t - 1]) ** 2 / (B * (n - 1)))
    return sum(squares), posterior, f["prior"](states.h)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_a_loop_and_its_gradient_draws_prior_and_posterior_by_their_weights(kind):
    """Along a direction: the constants of the loss are kept, as phi moves, in the differences."""
    model, phi = small_model(kind)
    data = episodes(model)
    _, posterior_0, prior_0 = pieces(model, phi, *data)

    def slow(phi):
        decoded, posterior, prior = pieces(model, phi, *data)
        drawn = 0.5 * rssm.kl(posterior_0, prior) + 0.1 * rssm.kl(posterior, prior_0)
        return 50 * decoded + drawn.mean()

    assert rssm.loss(model, phi, *data) == pytest.approx(slow(phi), rel=1e-12)
    leaf = Tensor(phi)
    g = grad(rssm.loss(model, leaf, *data), leaf).data
    for seed in range(3):
        way = 1e-5 * some(seed, len(phi))
        assert g @ way == pytest.approx((slow(phi + way) - slow(phi - way)) / 2, rel=1e-5)
    for name, width in (("prior", 5), ("posterior", 9)):  # each of the two alone
        only = np.zeros_like(phi)
        [(w, _)] = weights(model, only)[name]
        w += 1e-5 * some(5, width, 6)
        change = (slow(phi + only) - slow(phi - only)) / 2
        assert change != 0 and g @ only == pytest.approx(change, rel=1e-4)


# --- Who is told what ---
def small_agent(kind, seed=0):
    shown, _ = crssm.KINDS[kind]
    model, phi = small_model(kind)
    pi = Network(model.h + model.z + model.context, 2, (5,))
    return crssm.Agent(shown, model, phi, pi, 0.7 * some(8, pi.size))


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_is_not_told_the_context_knows_nothing_of_it(kind):
    """With c hidden, neither acts nor dreams change where it is NaN; else they are NaN."""
    agent = small_agent(kind)
    o, a = turned.play(turned.wander(noise_at(0)), some(1, 3, 1), 7, noise_at(2))
    action = agent.acting(np.full((3, 1), np.nan), 0.3, noise_at(3))(o, a)
    c = np.full((3, 1), np.nan)
    dream = comparison.dreamed(SMALL, agent, o, a, Told(c, c, c), 3)
    if kind == "hidden":
        c = np.zeros((3, 1))
        assert_array_equal(action, agent.acting(c, 0.3, noise_at(3))(o, a))
        assert_array_equal(dream, comparison.dreamed(SMALL, agent, o, a, Told(c, c, c), 3))
        assert np.isfinite(dream).all()
    else:
        assert np.isnan(action).all() and np.isnan(dream).all()


def test_what_is_shown():
    o = some(0, 3, 4, 2)
    c = some(1, 3, 1)
    observations, told = crssm.concatenated(o, c)
    assert_array_equal(observations[..., :2], o)
    assert_array_equal(observations[..., 2], np.repeat(c, 4, 1))
    assert told.shape == crssm.hidden(o, c)[1].shape == (3, 0)
    assert_array_equal(crssm.hidden(o, c)[0], o)
    assert_array_equal(crssm.apart(o, c)[0], o)
    assert_array_equal(crssm.apart(o, c)[1], c)


def test_what_is_inferred_of_the_first_observation_knows_no_context():
    """It enters cRSSM with the first step; and concatenated, with the observation itself."""
    o = some(0, 3, 4, 2)
    a = some(1, 3, 3, 2)
    for kind, first_differs in (("cRSSM", False), ("concatenated", True)):
        agent = small_agent(kind)
        for n, differs in ((1, first_differs), (2, True)):
            states = []
            for c in (np.zeros((3, 1)), np.ones((3, 1))):
                observations, told = agent.shown(o[:, :n], c)
                states.append(agent.follow(observations, a[:, : n - 1], told).z)
            assert (states[0] != states[1]).any() == differs


@pytest.mark.parametrize("kind", KINDS)
def test_acting_follows_all_that_was_seen(kind):
    agent = small_agent(kind)
    o = some(0, 3, 4, 2)
    a = some(1, 3, 3, 2)
    c = some(2, 3, 1)
    eps = 0.3 * some(4, 3, 2)
    observations, told = agent.shown(o, c)
    f = agent.model.at(agent.phi)
    no_noise = np.zeros((3, 4, 3))
    states, _ = rssm.observe(f, agent.model.before(3), observations, a, told, no_noise)
    told = np.concatenate([states.h[:, 3], states.z[:, 3], told], 1)
    expected = np.tanh(agent.pi.apply(agent.theta, told) + eps)
    assert_allclose(agent.acting(c, 0.3, noise_at(4))(o, a), expected, rtol=1e-12)


# --- l.2 to 5 ---
def test_the_world_is_stepped_exactly_rounds_times_T(monkeypatch):
    """In l.2, with all robots side by side: neither phi nor theta learns from another step."""
    calls = []

    def step(p, v, a, c):
        calls.append(len(p))
        return turned_step(p, v, a, c)

    turned_step = turned.step
    monkeypatch.setattr(turned, "step", step)
    crssm.learn(SMALL, "cRSSM", 3)
    assert calls == [4 * 2] * (3 * 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_round_acts_then_learns_phi_from_all_rounds_and_then_theta_with_it(kind, monkeypatch):
    played, fitted, taught = [], [], []
    turned_play = turned.play

    def play(act, c, T, rng):
        o, a = turned_play(act, c, T, rng)
        played.append((o, a, c))
        return o, a

    def learned_phi(o, agent, data, steps, rng):
        fitted.append((agent, data, steps))
        return agent.phi + 1

    def learned_theta(o, agent, data, rng):
        taught.append((agent, data))
        return agent.theta + 2

    monkeypatch.setattr(turned, "play", play)
    monkeypatch.setattr(crssm, "learned_phi", learned_phi)
    monkeypatch.setattr(crssm, "learned_theta", learned_theta)
    o = replace(SMALL, first_model_steps=9)
    last = crssm.learn(o, kind, 3)
    first = crssm.newborn(o, kind, 3)
    assert [steps for *_, steps in fitted] == [9, 2, 2]
    assert_allclose(last.phi, first.phi + 3)
    assert_allclose(last.theta, first.theta + 6)
    for i, (positions, a, c) in enumerate(played):
        agent, data, _ = fitted[i]
        assert_allclose(agent.phi, first.phi + i)
        assert_allclose(taught[i][0].phi, first.phi + i + 1)
        assert_allclose(taught[i][0].theta, first.theta + 2 * i)
        assert taught[i][1] is data
        assert len(data.o) == 8 * (i + 1)
        assert_array_equal(data.o[8 * i :], positions)
        assert_array_equal(data.a[8 * i :], a)
        assert_array_equal(data.r[8 * i :], turned.reward(positions[:, 1:]))
        assert_array_equal(data.c[8 * i :], c)
        assert_array_equal(c[0::2], c[1::2])
        assert np.abs(c).max() <= 1 and len(np.unique(c)) == 4
        rng = noise_at(3, crssm.OWN, 3, i)
        acting = turned.wander(rng) if i == 0 else agent.acting(c, o.world_noise, rng)
        again, _ = turned_play(acting, c, 7, rng)
        assert_array_equal(again, positions)


@pytest.fixture
def data():
    o, a = turned.play(turned.wander(noise_at(0)), some(1, 6, 1), 7, noise_at(2))
    return crssm.Episodes(o, a, turned.reward(o[:, 1:]), some(1, 6, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_phi_learns_by_adam_with_a_falling_step(kind, data):
    agent = small_agent(kind)
    phi = crssm.learned_phi(SMALL, agent, data, 2, noise_at(5))
    rng = noise_at(5)
    w = agent.phi
    m = v = 0
    for t, beta in enumerate([0.004, 0.0022]):
        i = rng.integers(6, size=3)
        o, c = agent.shown(data.o[i], data.c[i])
        eps = rng.standard_normal((3, 8, 3))
        leaf = Tensor(w)
        loss = rssm.loss(agent.model, leaf, o, data.a[i], data.r[i], c, eps)
        direction, m, v = metarl.adam(grad(loss, leaf).data, m, v, t + 1)
        w = w - beta * direction
    assert_allclose(phi, w, atol=1e-10)


def dreamed_return(agent, theta, start, c, eps_z, eps_a):
    """The slow form: a dream at a time, a step at a time."""
    f = agent.model.at(agent.phi)
    returns = []
    for b in range(len(c)):
        state = State(start.h[b : b + 1], start.z[b : b + 1])
        told_c = c[b : b + 1]
        total = 0
        for t in range(eps_z.shape[1]):
            told = np.concatenate([state.h, state.z, told_c], 1)
            a = np.tanh(agent.pi.apply(theta, told) + eps_a[b, t])
            h = rssm.remember(f, state, a, told_c)
            state = State(h, rssm.draw(f["prior"](h), eps_z[b, t]))
            total += f["reward"](np.concatenate([state.h, state.z, told_c], 1))[0, 0]
        returns.append(total)
    return np.mean(returns)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_through_a_dream_is_that_of_differences(kind):
    agent = small_agent(kind)
    start = State(some(0, 3, 5), some(1, 3, 3))
    c = some(2, 3, agent.model.context)
    noise = dict(eps_z=some(3, 3, 4, 3), eps_a=0.3 * some(4, 3, 4, 2))

    def loss(theta):
        return crssm.minus_return(agent, theta, start, c, **noise)

    assert loss(agent.theta) == pytest.approx(
        -dreamed_return(agent, agent.theta, start, c, **noise), rel=1e-10
    )
    ad.check_grads(loss, agent.theta, order=1)


@pytest.mark.parametrize("kind", KINDS)
def test_theta_learns_by_adam_up_dreams_from_first_observations(kind, data):
    """Of which later positions know nothing: they are NaN here."""
    agent = small_agent(kind)
    blind = data._replace(o=np.where(np.arange(8)[:, None] > 0, np.nan, data.o))
    theta = crssm.learned_theta(SMALL, agent, blind, noise_at(5))
    rng = noise_at(5)
    w = agent.theta
    m = v = 0
    for t in range(2):
        i = rng.integers(6, size=3)
        first, c = agent.shown(data.o[i, :1], data.c[i])
        start = agent.follow(first, np.zeros((3, 0, 2)), c)
        eps_z = rng.standard_normal((3, 7, 3))
        eps_a = 0.1 * rng.standard_normal((3, 7, 2))
        leaf = Tensor(w)
        loss = crssm.minus_return(agent, leaf, start, c, eps_z, eps_a)
        direction, m, v = metarl.adam(grad(loss, leaf).data, m, v, t + 1)
        w = w - 0.01 * direction
    assert_allclose(theta, w, atol=1e-10)


# --- The test ---
@pytest.mark.parametrize("kind", KINDS)
def test_a_dream_is_told_contexts_when_their_names_say(kind):
    """And observes nothing after the newest observation: later positions are NaN."""
    agent = small_agent(kind)
    o = some(0, 2, 8, 2)
    a = some(1, 2, 7, 2)
    told = Told(*some(2, 3, 2, 1))
    blind = np.where(np.arange(8)[:, None] > 2, np.nan, o)
    dream = comparison.dreamed(SMALL, agent, blind, a, told, 3)
    f = agent.model.at(agent.phi)
    state = agent.model.before(2)
    with_observation = [told.c, told.c, told.newest_c]
    for t in range(7):
        h = state.h
        _, c = agent.shown(o, told.c if t < 3 else told.dream_c)
        if t > 0:
            h = rssm.remember(f, state, a[:, t - 1], c)
        if t < 3:
            seen, _ = agent.shown(o[:, t : t + 1], with_observation[t])
            embedded = np.tanh(f["embed"](seen[:, 0]))
            z = rssm.draw(f["posterior"](np.concatenate([h, embedded], 1)), 0)
        else:
            z = rssm.draw(f["prior"](h), 0)
        state = State(h, z)
        if t >= 3:
            expected = f["observation"](state.with_context(c))[:, :2]
            assert_allclose(dream[:, t - 3], expected, rtol=1e-10)


def test_an_error_is_squared_and_relative_to_the_way_gone(monkeypatch):
    o = some(0, 3, 8, 2)
    way = o[:, 3:7]
    stands = np.repeat(o[:, 2:3], 4, 1)
    for dream, expected in ((way, 0), (stands, 1), (way + 0.5 * (way - stands), 0.25)):
        monkeypatch.setattr(comparison, "dreamed", lambda *_, dream=dream: dream)
        assert comparison.error(SMALL, None, o, None, None, 3) == pytest.approx(expected)


def test_each_error_is_told_what_its_name_says(monkeypatch):
    """Against the world that goes on in the context that it really has."""
    told = []
    monkeypatch.setattr(comparison, "error", lambda o, agent, *args: told.append(args) or 0.0)
    names = list(comparison.dream_errors(SMALL, None, 3))
    inside, outside = comparison.worlds(SMALL).values()
    wrong = turned.another(inside)
    expected = {
        "inside": (inside, inside, (inside, inside, inside), 1),
        "outside": (outside, outside, (outside, outside, outside), 1),
        "wrong c": (inside, inside, (wrong, wrong, wrong), 1),
        "no change": (inside, inside, (inside, inside, inside), 3),
        "told after": (inside, wrong, (inside, inside, wrong), 3),
        "told with it": (inside, wrong, (inside, wrong, wrong), 3),
        "told before": (inside, wrong, (wrong, wrong, wrong), 3),
    }
    assert names == list(expected)
    for (positions, a, told_c, told_seen), name in zip(told, names, strict=True):
        before, after, contexts, seen = expected[name]
        in_time = turned.exchanged(before, after, 3, 7)
        wander = turned.wander(noise_at(3, crssm.OWN, 7))
        o, actions = turned.play(wander, in_time, 7, noise_at(3, crssm.OWN, 6))
        assert_array_equal(positions, o)
        assert_array_equal(a, actions)
        assert_array_equal(told_c, contexts)
        assert told_seen == seen


def test_returns_are_those_of_the_world_whatever_the_agent_is_told():
    """All act in the same gusts; the misled one acts for another context, in its own."""
    agent = small_agent("cRSSM")
    rows = comparison.tested(SMALL, "x", agent, 3)
    assert list(rows) == ["x", "x, misled", "dreams, x"]
    for place, c in comparison.worlds(SMALL).items():
        for name, told in (("x", c), ("x, misled", turned.another(c))):
            act = agent.acting(told, 0, noise_at(0))
            o, _ = turned.play(act, c, 7, noise_at(3, crssm.OWN, 6))
            distances = np.hypot(*(o[:, 1:] - turned.GOAL).T)
            assert rows[name][place] == pytest.approx(-distances.sum(0).mean())


def test_a_run_has_the_rows_that_claims_and_tables_need():
    rows, picture = crssm.run(SMALL, 3)
    assert list(picture["agents"]) == KINDS
    as_arrays = {}
    for row, columns in rows.items():
        as_arrays[row] = {column: np.array([number]) for column, number in columns.items()}
    assert "told after" in comparison.report(as_arrays)
    assert len(comparison.claims(as_arrays)) == 8


def as_rows(**numbers):
    return {column: np.array([number]) for column, number in numbers.items()}


def test_claims_compare_the_rows_that_they_name():
    ours = {"inside": 0.02, "wrong c": 0.5, "told after": 0.1}
    rows = {
        "world known": as_rows(inside=-8.0, outside=-8.0),
        "at random": as_rows(inside=-24.0, outside=-24.0),
        "hidden": as_rows(inside=-12.0, outside=-28.0),
        "cRSSM": as_rows(inside=-9.0, outside=-15.0),
        "dreams, hidden": as_rows(inside=0.7),
        "dreams, concatenated": as_rows(**{"told after": 0.8}),
        "dreams, cRSSM": as_rows(**ours),
    }
    measured = [claim.measured for claim in comparison.claims(rows)]
    assert_allclose(measured, [0.02, 0.7, 25, 0.1, 0.8, 15 / 16, 3, 13])
    assert all(claim.holds for claim in comparison.claims(rows))


# --- What it can only know by remembering ---
def test_a_model_remembers_how_fast_it_goes():
    """A position tells no velocity; five of them do, or one and the memory of what was done."""
    o = replace(SMALL, steps=9, dreamed=4, batch=16, beta=0.02)
    model = RSSM(observation=2, context=1, h=12, z=4, embedding=8, units=12)
    agent = crssm.newborn(o, "cRSSM", 0)._replace(model=model, phi=model.init(noise_at(0)))
    c = np.zeros((60, 1))
    positions, a = turned.play(turned.wander(noise_at(1)), c, 9, noise_at(2))
    data = crssm.Episodes(positions, a, turned.reward(positions[:, 1:]), c)
    agent = agent._replace(phi=crssm.learned_phi(o, agent, data, 100, noise_at(3)))
    positions, a = turned.play(turned.wander(noise_at(4)), c, 9, noise_at(5))
    remembers = comparison.error(o, agent, positions, a, Told(c, c, c), 5)
    forgot = comparison.error(o, agent, positions[:, 4:], a[:, 4:], Told(c, c, c), 1)
    assert remembers < 0.6 and forgot > 1  # 1 is the error of standing still
