"""The chapter on SMAC: what nobody pays for is not read, training steps no world, and each part
against its slow form. Whole runs are in .ci/run, as --quick --json.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import direction, smac
from chapters import smac_agent as sa
from chapters.direction import Direction, Unpaid, demonstrations
from chapters.models import Moments
from chapters.offline import Data
from metarl import noise_at

SMALL = smac.Options(
    train_tasks=6,
    test_tasks=5,
    demonstrations=3,
    hidden=(8,),
    latent=2,
    tasks=3,
    batch=4,
    steps=4,
    rounds=2,
    round_steps=2,
    trials=2,
)


def some_data(o=SMALL, seed=0):
    """Directions (6, 2), and Data of demonstrators in them."""
    tasks = Direction().sample_tasks(o.train_tasks, noise_at(seed))
    return tasks, smac.recorded(o, Direction(), tasks, o.demonstrations, noise_at(seed + 1))


def some_agent(o=SMALL):
    """Parameters in float64, biases that are not 0, and a target of its own."""
    first = sa.first_agent(o, 0)
    rng = noise_at(3)
    parts = [part + 0.3 * rng.standard_normal(part.shape) for part in first[:4]]
    return sa.Agent(*parts)


def some_batch(n=4):
    """A history of 3 tasks and n transitions of them, float64."""
    rng = noise_at(4)
    batch = []
    for shape in ((3, 2, 5), (3, n)):
        vectors = [rng.standard_normal((*shape, 2)) for _ in range(3)]
        batch.append(Data(vectors[0], vectors[1], rng.standard_normal(shape), vectors[2]))
    return batch


def same_bits(agent, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(agent[:4], other[:4], strict=True))


# --- The world ---
def test_the_reward_is_ten_times_the_progress_and_shows_nowhere_else():
    tasks = Direction().sample_tasks(3, noise_at(0))
    actions = 2 * noise_at(1).standard_normal((3, 4, 2)).astype(np.float32)
    states = noise_at(2).standard_normal((3, 4, 2)).astype(np.float32)
    new, reward, done = Direction().step(states, actions, tasks[:, None], None)
    unpaid, nan, _ = Unpaid().step(states, actions, tasks[:, None], None)
    for i in range(3):
        for k in range(4):
            moved = 0.1 * actions[i, k].clip(-1, 1)
            assert_allclose(new[i, k], states[i, k] + moved, rtol=1e-6)
            assert reward[i, k] == pytest.approx(10 * moved @ tasks[i], abs=1e-5)
    assert not done.any() and done.shape == (3, 4)
    assert_array_equal(unpaid, new)
    assert np.isnan(nan).all() and nan.shape == reward.shape


def test_the_optimum_is_both_axes_at_full_speed():
    world = Direction(horizon=7)
    tasks = world.sample_tasks(5, noise_at(0))
    d = demonstrations(world, 2 * np.sign(tasks), 1, (1, 1), 0, noise_at(1))
    returns = 10 * (d.next_obs[:, 0, -1] * tasks).sum(-1)
    assert_allclose(returns, world.optimal_return(tasks), rtol=1e-5)


def test_held_out_directions_are_unit_vectors_at_a_distance_from_all_training_tasks():
    o = smac.Options()
    for seed in range(5):
        tasks = Direction().sample_tasks(o.train_tasks, noise_at(seed, smac.OWN, 0))
        test = smac.held_out(o, Direction(), seed)
        assert test.tasks.shape == (400, 2) and test.tasks.dtype == np.float32
        assert len(np.unique(test.tasks, axis=0)) == 100
        nearest = np.linalg.norm(test.tasks[:, None] - tasks, axis=-1).min(1)
        assert (nearest > 0.002).all()
        assert_allclose(np.linalg.norm(tasks, axis=-1), 1, rtol=1e-6)
        assert_array_equal(test.tasks[:100], test.tasks[100:200])


def test_demonstrators_know_the_direction():
    tasks = Direction().sample_tasks(4, noise_at(0))
    d = demonstrations(Direction(), tasks, 3, (1, 1), 0, noise_at(1))
    assert d.actions.shape == (4, 3, 20, 2) and d.rewards.dtype == np.float32
    assert_allclose(d.actions, np.broadcast_to(tasks[:, None, None], d.actions.shape), rtol=1e-6)
    assert_array_equal(d.obs[:, :, 0], 0)
    turned = direction.turned_to_the_right(d.next_obs, tasks)
    assert_allclose(turned[:, :, -1], np.tile([2.0, 0.0], (4, 3, 1)), atol=1e-5)
    left = np.stack([-tasks[:, 1], tasks[:, 0]], -1)
    expected = np.tile([0.0, 1.0], (4, 1, 1))
    assert_allclose(direction.turned_to_the_right(left[:, None], tasks), expected, atol=1e-6)


# --- The belief ---
def test_q_is_a_product_of_gaussians_and_takes_transitions_in_any_order():
    o = SMALL
    phi = some_agent().phi
    h, _ = some_batch()
    mean, variance = sa.q(o, phi, h)
    grid = np.linspace(-12, 12, 40001)
    net = sa.encoder(o)
    for i in range(3):
        log_p = np.zeros((2, len(grid)))
        for k in range(2):
            for t in range(5):
                x = np.concatenate([h.obs[i, k, t], h.actions[i, k, t], [h.rewards[i, k, t]]])
                out = net.apply(phi[: net.size], x[None])[0]
                for j in range(2):
                    std = math.sqrt(math.log1p(math.exp(out[2 + j])) + 1e-4)
                    log_p[j] += norm.logpdf(grid, out[j], std)
        for j in range(2):
            p = np.exp(log_p[j] - log_p[j].max())
            p /= p.sum()
            assert mean[i, 0, j] == pytest.approx(p @ grid, rel=1e-5)
            assert variance[i, 0, j] == pytest.approx(p @ (grid - p @ grid) ** 2, rel=1e-5)

    order = noise_at(5).permutation(10)
    flat = [part.reshape(3, 10, *part.shape[3:])[:, order] for part in h]
    shuffled = Data(*[part.reshape(3, 2, 5, *part.shape[2:]) for part in flat])
    for part, other in zip(sa.q(o, phi, shuffled), (mean, variance), strict=True):
        assert_allclose(part, other, rtol=1e-10)


def test_a_draw_of_z_has_the_deviation_of_q():
    assert_allclose(sa.z_of(1.0, 4.0, np.array([-1.0, 0, 2])), [-1, 1, 5])


# --- The losses ---
def one_by_one(net, theta, *parts):
    return net.apply(theta, np.concatenate(parts)[None])[0]


def test_networks_get_s_a_and_the_z_of_their_task():
    o = SMALL
    agent = some_agent()
    z = noise_at(6).standard_normal((3, 1, 2))
    _, d = some_batch()
    r = sa.decoded(o, agent.phi, d.obs, d.actions, z)
    both = sa.Q(o, agent.w, d.obs, d.actions, z)
    means = sa.pi(o, agent.theta, d.obs, z)
    assert r.shape == (3, 4) and both.shape == (2, 3, 4) and means.shape == (3, 4, 2)
    of_decoder = agent.phi[sa.encoder(o).size :]
    for i in range(3):
        for n in range(4):
            x = (d.obs[i, n], d.actions[i, n], z[i, 0])
            assert r[i, n] == pytest.approx(one_by_one(sa.decoder(o), of_decoder, *x)[0])
            for j in range(2):
                assert both[j, i, n] == pytest.approx(one_by_one(sa.critic(o), agent.w[j], *x)[0])
            mean = np.tanh(one_by_one(sa.policy(o), agent.theta, d.obs[i, n], z[i, 0]))
            assert_allclose(means[i, n], mean)
    assert_array_equal(sa.lower(both), both.min(0))


def test_the_reward_loss_and_its_gradient_through_z():
    o = replace(SMALL, kl_weight=0.3)
    phi = some_agent().phi
    h, d = some_batch()
    eps = noise_at(7).standard_normal((3, 1, 2))
    mean, variance = sa.q(o, phi, h)
    z = mean + np.sqrt(variance) * eps
    error = sa.decoded(o, phi, d.obs, d.actions, z) - d.rewards
    kl = 0
    for m, v in zip(mean.reshape(3, 2), variance.reshape(3, 2), strict=True):
        kl += sum(-0.5 * math.log(v[j]) + (v[j] + m[j] ** 2) / 2 - 0.5 for j in range(2))
    expected = (error**2).mean() + 0.3 * kl / 3
    assert sa.reward_loss(o, phi, h, d, eps) == pytest.approx(expected, rel=1e-10)
    ad.check_grads(lambda x: sa.reward_loss(o, x, h, d, eps), phi, order=1)


def test_targets_are_the_lower_of_the_slow_critics_at_an_action_of_the_policy():
    o = SMALL
    agent = some_agent()
    _, d = some_batch()
    z = noise_at(6).standard_normal((3, 1, 2))
    eps = noise_at(8).standard_normal((3, 4, 2))
    y = sa.targets(o, agent, d, z, eps)
    for i in range(3):
        for n in range(4):
            s = d.next_obs[i, n]
            a = np.tanh(one_by_one(sa.policy(o), agent.theta, s, z[i, 0])) + 0.2 * eps[i, n]
            both = [one_by_one(sa.critic(o), w, s, a, z[i, 0])[0] for w in agent.slow_w]
            assert y[i, n] == pytest.approx(d.rewards[i, n] + 0.9 * min(both))


def test_the_critic_loss_is_of_both_critics():
    o = SMALL
    w = some_agent().w
    _, d = some_batch()
    z = noise_at(6).standard_normal((3, 1, 2))
    y = noise_at(9).standard_normal((3, 4))
    both = sa.Q(o, w, d.obs, d.actions, z)
    expected = ((both[0] - y) ** 2).mean() + ((both[1] - y) ** 2).mean()
    assert sa.critic_loss(o, w, d, z, y) == pytest.approx(expected)
    ad.check_grads(lambda x: sa.critic_loss(o, x, d, z, y), w, order=1)


def by_hand(o, agent, d, z):
    """Weights (12,), and log pi of a, Q of the mean action, both functions of theta."""
    both = sa.Q(o, agent.w, d.obs, d.actions, z)
    at_mean = sa.Q(o, agent.w, d.obs, sa.pi(o, agent.theta, d.obs, z), z)
    A = (both.min(0) - at_mean.min(0)).ravel() / o.temperature
    weights = np.exp(A) / np.exp(A).sum()

    def log_pi(theta):
        means = sa.pi(o, theta, d.obs, z)
        log_p = norm.logpdf(d.actions, means, o.std) - norm.logpdf(0, 0, o.std)
        return log_p.sum(-1).ravel()

    def value(theta):
        return sa.Q(o, agent.w, d.obs, sa.pi(o, theta, d.obs, z), z).min(0).mean()

    return weights, log_pi, value


@pytest.mark.parametrize("climb", [False, True])
def test_the_actor_loss_and_its_gradient_with_weights_held(climb):
    o = replace(SMALL, temperature=0.7, std=0.5)
    agent = some_agent()
    _, d = some_batch()
    z = noise_at(6).standard_normal((3, 1, 2))
    weights, log_pi, value = by_hand(o, agent, d, z)

    def expected(theta):
        return -weights @ log_pi(theta) - climb * value(theta)

    leaf = Tensor(agent.theta)
    loss = sa.actor_loss(o, leaf, agent.w, d, z, climb)
    assert loss.data == pytest.approx(expected(agent.theta))
    v = noise_at(10).standard_normal(agent.theta.shape)
    ahead = expected(agent.theta + 1e-6 * v)
    behind = expected(agent.theta - 1e-6 * v)
    slope = (grad(loss, leaf).data * v).sum()
    assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-5)


# --- A step ---
def test_a_sample_is_of_the_same_tasks_and_of_all_their_data():
    o = replace(SMALL, tasks=40, batch=30)
    number = np.arange(6 * 3 * 20).reshape(6, 3, 20)
    pairs = np.stack([number, number], -1)
    data = Data(pairs, pairs + 1000, number, pairs + 2000)
    h, d = sa.sample(o, data, noise_at(0))
    assert h.obs.shape == (40, 2, 20, 2) and d.obs.shape == (40, 30, 2)
    for part in (h, d):
        assert_array_equal(part.obs[..., 0], part.rewards)
        assert_array_equal(part.actions, part.obs + 1000)
        assert_array_equal(part.next_obs, part.obs + 2000)
    of_h = h.rewards // 60
    of_d = d.rewards // 60
    assert (of_h == of_h[:, :1, :1]).all() and (of_d == of_h[:, 0, :1]).all()
    assert_array_equal(np.unique(of_d), np.arange(6))
    assert_array_equal(np.diff(h.rewards, axis=-1), 1)
    assert len(np.unique(d.rewards)) > 300
    assert_array_equal(np.unique(h.rewards // 20 % 3), [0, 1, 2])
    h, d = sa.sample(o, data, noise_at(0), oldest=1)
    assert_array_equal(np.unique(h.rewards // 20 % 3), [1, 2])
    assert_array_equal(np.unique(d.rewards // 20 % 3), [0, 1, 2])


@pytest.mark.parametrize("frozen", [False, True])
def test_a_step_is_adam_on_each_loss_with_z_as_it_was(frozen):
    o = SMALL
    _, data = some_data()
    before = sa.first_agent(o, 0)
    before = sa.update(o, before, data, noise_at(1))
    after = sa.update(o, before, data, noise_at(2), climb=True, frozen=frozen)

    rng = noise_at(2)
    h, d = sa.sample(o, data, rng)
    eps = rng.standard_normal((3, 1, 2), np.float32)
    eps_a = rng.standard_normal((3, 4, 2), np.float32)
    z = sa.z_of(*sa.q(o, before.phi, h), eps)

    def stepped(loss, x, moments):
        leaf = Tensor(x)
        direction, *_ = metarl.adam(grad(loss(leaf), leaf).data, moments.m, moments.v, 2)
        return x - 0.001 * direction

    of_phi, of_w, of_theta = before.moments
    phi = stepped(lambda x: sa.reward_loss(o, x, h, d, eps), before.phi, of_phi)
    y = sa.targets(o, before, d, z, eps_a)
    w = stepped(lambda x: sa.critic_loss(o, x, d, z, y), before.w, of_w)
    theta = stepped(lambda x: sa.actor_loss(o, x, w, d, z, True), before.theta, of_theta)
    assert_array_equal(after.phi, before.phi if frozen else phi)
    assert_allclose(after.w, w, atol=1e-7)
    assert_allclose(after.slow_w, 0.99 * before.slow_w + 0.01 * w, atol=1e-7)
    assert_allclose(after.theta, theta, atol=1e-7)
    assert [m.t for m in after.moments] == [1 if frozen else 2, 2, 2]
    assert {part.dtype for part in after[:4]} == {np.dtype(np.float32)}


def test_training_gets_arrays_and_changes_none_of_them(monkeypatch):
    o = SMALL
    tasks, data = some_data()
    before = [part.tobytes() for part in data]

    def step(*_):
        raise AssertionError("a step of the world")

    monkeypatch.setattr(Direction, "step", step)
    agent = smac.phase_1(o, data, 3)
    assert all(m.t == 4 for m in agent.moments)
    smac.phase_2(o, Unpaid(), agent, tasks, data, 3, "none")
    monkeypatch.undo()
    smac.phase_2(o, Unpaid(), agent, tasks, data, 3, "decoder")
    assert [part.tobytes() for part in data] == before


# --- Phase 2 ---
@pytest.fixture(scope="module")
def learned():
    tasks, data = some_data()
    return smac.phase_1(SMALL, data, 3), tasks, data


@pytest.mark.parametrize("how", ["decoder", "frozen", "shuffled", "mixed", "none"])
def test_phase_2_gives_the_same_bits_paid_or_not(learned, how):
    unpaid = smac.phase_2(SMALL, Unpaid(), *learned, 3, how)
    paid = smac.phase_2(SMALL, Direction(), *learned, 3, how)
    assert len(unpaid) == 3 and unpaid[0] is learned[0]
    assert all(same_bits(a, b) for a, b in zip(unpaid, paid, strict=True))
    assert all(np.isfinite(part).all() for part in unpaid[-1][:4])
    assert not same_bits(unpaid[-1], learned[0])


def test_a_program_that_reads_rewards_is_caught(learned, monkeypatch):
    monkeypatch.setattr(smac, "labeller", lambda *_: lambda d: d)
    with np.errstate(invalid="ignore"):
        cheat = smac.phase_2(SMALL, Unpaid(), *learned, 3, "decoder")[-1]
    assert not np.isfinite(cheat.w).any()
    paid = smac.phase_2(SMALL, Direction(), *learned, 3, "true")[-1]
    assert same_bits(paid, smac.phase_2(SMALL, Direction(), *learned, 3, "decoder")[-1])


def spied(monkeypatch, learned, how):
    """What `update` gets in phase 2, [(data, oldest, climb, frozen)]; the phi that gives labels."""
    steps = []
    phis = []
    update = smac.update
    labeller = smac.labeller

    def spy(o, agent, data, rng, oldest, climb=False, frozen=False):
        steps.append((data, oldest, climb, frozen))
        return update(o, agent, data, rng, oldest, climb, frozen)

    def spy_on_labels(o, phi, *rest):
        phis.append(phi)
        return labeller(o, phi, *rest)

    monkeypatch.setattr(smac, "update", spy)
    monkeypatch.setattr(smac, "labeller", spy_on_labels)
    agents = smac.phase_2(SMALL, Unpaid(), *learned, 3, how)
    return steps, phis, agents


def test_labels_are_of_phase_1_and_all_new_episodes_are_kept(learned, monkeypatch):
    agent, _, data = learned
    steps, phis, agents = spied(monkeypatch, learned, "decoder")
    assert [d.rewards.shape[1] for d, *_ in steps] == [6, 6, 9, 9]
    assert all(phi is agent.phi for phi in phis) and len(phis) == 2
    assert agents[-1].phi.tobytes() != agent.phi.tobytes()
    assert {step[1:] for step in steps} == {(3, True, False)}
    last = steps[-1][0]
    for part, old in zip(last, data, strict=True):
        assert_array_equal(part[:, :3], old)
    assert_allclose(last.next_obs - last.obs, 0.1 * last.actions.clip(-1, 1), atol=1e-6)
    assert len({part.tobytes() for part in last.rewards.swapaxes(0, 1)}) == 9


def test_frozen_keeps_phi_and_none_keeps_the_data(learned, monkeypatch):
    agent, _, data = learned
    steps, _, agents = spied(monkeypatch, learned, "frozen")
    assert agents[-1].phi.tobytes() == agent.phi.tobytes()
    assert len(steps) == 4
    steps, _, agents = spied(monkeypatch, learned, "none")
    assert agents[-1].phi.tobytes() != agent.phi.tobytes()
    assert len(steps) == 4 and all(d is data and oldest == 0 for d, oldest, *_ in steps)
    steps, *_ = spied(monkeypatch, learned, "mixed")
    assert [(d.rewards.shape[1], oldest) for d, oldest, *_ in steps] == [(6, 0)] * 2 + [(9, 0)] * 2


def test_the_last_new_episode_is_by_the_belief_from_the_first_ones(learned):
    o = SMALL
    agent, tasks, _ = learned
    calls = []

    def label(d):
        calls.append(d)
        return d._replace(rewards=np.full(d.rewards.shape, len(calls), np.float32))

    new = smac.explored(o, Unpaid(), agent, tasks, label, noise_at(5))
    rng = noise_at(5)
    z = rng.standard_normal((6, 2, 2), np.float32)
    first = smac.act(o, Unpaid(), agent, tasks, z, rng)
    first = first._replace(rewards=np.ones((6, 2, 20), np.float32))
    mean, variance = sa.q(o, agent.phi, first)
    z = mean + np.sqrt(variance) * rng.standard_normal((6, 1, 2), np.float32)
    last = smac.act(o, Unpaid(), agent, tasks, z, rng)
    assert_array_equal(new.obs[:, :2], first.obs)
    assert_array_equal(new.obs[:, 2:], last.obs)
    assert_array_equal(new.rewards[:, :, 0], np.tile([1, 1, 2], (6, 1)))


def test_episodes_are_of_their_own_z_and_noise_is_added_only_with_a_generator(learned):
    o = SMALL
    agent, tasks, _ = learned
    z = noise_at(6).standard_normal((6, 3, 2)).astype(np.float32)
    d = smac.act(o, Direction(), agent, tasks, z)
    assert d.actions.shape == (6, 3, 20, 2) and d.actions.dtype == np.float32
    for t in (0, 19):
        means = sa.pi(o, agent.theta, d.obs[:, :, t], z)
        assert_allclose(d.actions[:, :, t], means, atol=1e-6)
    noisy = smac.act(o, Direction(), agent, tasks, z, noise_at(7))
    error = noisy.actions - sa.pi(o, agent.theta, noisy.obs, z[:, :, None])
    assert error.std() == pytest.approx(0.2, rel=0.05)


def test_labels_come_from_offline_histories_of_the_task_or_of_another(learned, monkeypatch):
    """With an encoder that tells the task, and a decoder that repeats z."""
    o = SMALL
    *_, data = learned
    number = np.arange(6.0)[:, None, None]
    offline = data._replace(rewards=number + np.zeros((6, 3, 20)))
    monkeypatch.setattr(smac, "q", lambda o, phi, h: (h.rewards.mean((1, 2))[:, None, None], 0))
    monkeypatch.setattr(smac, "decoded", lambda o, phi, s, a, z: z[..., 0] + np.zeros(s.shape[:3]))
    own = {}
    for how in ("decoder", "shuffled"):
        label = smac.labeller(o, None, offline, noise_at(8), how)
        labels = [label(data).rewards for _ in range(2)]
        own[how] = [r[:, 0, 0] for r in labels]
        assert all((r == r[:, :1, :1]).all() for r in labels)
        assert all(sorted(r) == [0, 1, 2, 3, 4, 5] for r in own[how])
    assert_array_equal(own["decoder"], [np.arange(6)] * 2)
    first, second = own["shuffled"]
    assert (first != second).any() and (first != np.arange(6)).any()


# --- The test ---
def test_agents_are_tested_by_means_after_histories_of_their_own_or_not(learned, monkeypatch):
    o = SMALL
    agent, *_ = learned
    test = smac.held_out(o, Direction(), 3)
    seen = []
    q = smac.q

    def spy(o, phi, h):
        seen.append(h)
        return q(o, phi, h)

    monkeypatch.setattr(smac, "q", spy)
    row = smac.measured(o, agent, test)
    own, offline, another = seen
    rng = noise_at(3, smac.OWN, 8)
    z = rng.standard_normal((10, 2, 2), np.float32)
    expected = smac.act(o, Direction(), agent, test.tasks, z, rng)
    assert_array_equal(own.rewards, expected.rewards)
    assert np.isfinite(own.rewards).all() and own.rewards.shape == (10, 2, 20)
    assert_array_equal(offline.rewards, test.offline.rewards)
    order = noise_at(3, smac.OWN, 9).permutation(10)
    for part, others in zip(test.offline, another, strict=True):
        assert_array_equal(others, part[order])
    assert (test.tasks[order] != test.tasks).any(-1).sum() > 5
    for h, whose in zip(seen, ("own", "demonstrator's", "another task's"), strict=True):
        mean, _ = q(o, agent.phi, h)
        d = smac.act(o, Direction(), agent, test.tasks, mean)
        assert row[whose] == pytest.approx(d.rewards[:, 0].sum(-1).mean())


def test_r_squared_is_1_for_true_rewards_and_0_for_their_mean(learned, monkeypatch):
    o = SMALL
    agent, *_ = learned
    test = smac.held_out(o, Direction(), 3)
    true = smac.own(o, agent, test).rewards
    told = []
    for answer, expected in ((true, 1), (np.full_like(true, true.mean()), 0)):

        def decoded(o, phi, s, a, z, answer=answer):
            told.append(z)
            return answer

        monkeypatch.setattr(smac, "decoded", decoded)
        assert smac.r_squared(o, agent, test) == pytest.approx(expected, abs=1e-5)
    mean, _ = sa.q(o, agent.phi, test.offline)
    assert_array_equal(told[0], mean[:, None])


def row(own, offline, another):
    numbers = {"own": own, "demonstrator's": offline, "another task's": another}
    return {column: np.array(number, float) for column, number in numbers.items()}


def test_the_gap_and_the_share_of_it_that_is_closed():
    rows = {"phase 1": row([10, 12], [15, 20], [1, 2]), "decoder": row([14, 18], [0, 0], [0, 0])}
    assert_array_equal(smac.gap(rows), [5, 8])
    assert_array_equal(smac.closed(rows, "decoder"), [0.8, 0.75])


def test_a_run_has_all_rows_and_each_phase_2_its_world(monkeypatch):
    worlds = {}
    phase_2 = smac.phase_2

    def spy(o, world, agent, tasks, data, seed, how):
        worlds[how] = type(world)
        return phase_2(o, world, agent, tasks, data, seed, how)

    monkeypatch.setattr(smac, "phase_2", spy)
    o = replace(SMALL, ablations=True, hidden=(4,), rounds=1)
    rows, picture = smac.run(o, 3)
    free = ("decoder", "shuffled", "none", "frozen", "mixed")
    assert worlds == {"true": Direction} | dict.fromkeys(free, Unpaid)
    as_arrays = {}
    for name, columns in rows.items():
        as_arrays[name] = {column: np.array([number]) for column, number in columns.items()}
        assert np.isfinite(list(columns.values())).all()
    report = smac.report(as_arrays)
    assert all(name in report for name in worlds)
    assert len(smac.claims(as_arrays)) == 9
    headline = {name: as_arrays[name] for name in as_arrays if name not in smac.ABLATIONS}
    assert len(smac.claims(headline)) == 7
    for how, curve in picture["curves"].items():
        assert curve[0] == rows["phase 1"]["own"] and curve[-1] == rows[how]["own"]
        assert len(curve) == 2


def test_a_first_agent_is_at_its_own_target_with_two_critics():
    agent = sa.first_agent(SMALL, 0)
    assert_array_equal(agent.w, agent.slow_w)
    assert (agent.w[0] != agent.w[1]).any()
    assert agent.moments == (Moments(),) * 3
