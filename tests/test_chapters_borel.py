"""The chapter on offline exploration: training sees arrays alone, what is relabelled is what the
task would have paid, beliefs know nothing of what is to come, and each part against its slow form.
Whole runs are in .ci/run, as --quick --json.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import arena, belief, borel
from chapters.arena import FLOOR, MOVES, RADIUS, Arena
from chapters.belief import VAE
from chapters.offline import Data
from envs import CELLS, distance
from metarl import noise_at

SMALL = borel.Options(
    tasks=5,
    episodes=4,
    latent=2,
    width=6,
    vae_steps=3,
    vae_batch=3,
    prefixes=2,
    draws=3,
    q_steps=3,
    q_batch=8,
    test_tasks=4,
)
WORLD = Arena(horizon=6)
VAE_2 = VAE(2, 6)


def some_goals(n=5, split="train"):
    return WORLD.sample_tasks(n, noise_at(0), split)


def some_data():
    return arena.collect(SMALL, WORLD, some_goals(), noise_at(1))


def some_w(seed=2):
    """Parameters in float64, with biases, so that no relu is at its kink."""
    rng = noise_at(seed)
    first = VAE_2.init(rng).astype(float)
    return 2 * first + 0.3 * rng.standard_normal(first.shape)


def some_seen(B=3, n=7):
    """next_obs (B, n, 2) and rewards (B, n)."""
    rng = noise_at(3)
    return rng.uniform(-1, 1, (B, n, 2)), rng.random((B, n))


# --- The world and its data ---
def test_moves_are_a_kings_and_end_at_the_walls():
    assert len(np.unique(MOVES, axis=0)) == 9
    assert_array_equal(np.unique(MOVES), [-0.1, 0, 0.1])
    middle = np.zeros((9, 2))
    goals = some_goals(9)
    state, _, done = WORLD.step(middle, np.arange(9), goals, None)
    assert_array_equal(state, MOVES)
    assert not done.any()


def test_there_are_walls():
    """A point that would pass the wall is put back along its radius, and not below the floor."""
    s = np.array([[0, 1.05], [0.9, 0.6], [0, -0.05], [1.09, -0.1], [0, 0]])
    north_east = len(MOVES) - 1
    south = 3
    for move in (north_east, south):
        state, *_ = WORLD.step(s, np.full(5, move), some_goals(), None)
        for before, after in zip(s, state, strict=True):
            x, y = before + MOVES[move]
            y = max(y, -0.1)
            r = np.hypot(x, y)
            assert_allclose(after, [x, y] if r < 1.1 else [x / r * 1.1, y / r * 1.1])
    assert_array_equal(MOVES[[south, north_east]], [[0, -0.1], [0.1, 0.1]])
    s = arena.anywhere((500, 40), noise_at(0))
    assert s.shape == (500, 40, 2)
    assert s[..., 1].min() > 0 and distance(s).max() < RADIUS
    assert (distance(s) < RADIUS / 2).mean() == pytest.approx(1 / 4, abs=0.02)
    assert_allclose(s.mean((0, 1)), [0, 4 * RADIUS / (3 * np.pi)], atol=0.02)


def test_held_out_goals_are_at_a_distance_from_all_of_training():
    train = WORLD.sample_tasks(1000, noise_at(0))
    test = WORLD.sample_tasks(1000, noise_at(1), "test")
    assert distance(train[:, None] - test).min() > 1e-3


def test_seekers_go_straight_to_their_goals_but_for_blunders():
    goals = some_goals()
    D = arena.walks(Arena(), goals, 2, noise_at(0))
    assert_array_equal(D.obs[:, :, 0], 0)
    assert (distance(D.next_obs - goals[:, None, None])[:, :, 10:] < 0.08).all()
    obs = arena.anywhere((5, 500), noise_at(2))
    best = np.empty((5, 500))
    for i, k in np.ndindex(5, 500):
        best[i, k] = distance(obs[i, k] + MOVES - goals[i]).argmin()
    for share in (0, 0.3, 1):
        act = arena.seeker(goals, np.full((5, 500), share), noise_at(3))
        assert (act(obs, 0) == best).mean() == pytest.approx(1 - share * 8 / 9, abs=0.04)


def test_the_data_are_of_mixed_seekers_from_anywhere():
    o = replace(SMALL, episodes=500, blunders=(0.0, 1.0))
    goals = some_goals()
    D = arena.collect(o, WORLD, goals, noise_at(1))
    assert D.obs.shape == D.next_obs.shape == (5, 500, 6, 2)
    assert D.actions.shape == D.rewards.shape == (5, 500, 6)
    assert_allclose(D.obs[:, :, 0].mean((0, 1)), [0, 4 * RADIUS / (3 * np.pi)], atol=0.05)
    assert D.obs[..., 1].min() >= FLOOR
    left = distance(D.obs[..., None, :] + MOVES - goals[:, None, None, None])
    as_best = (left.argmin(-1) == D.actions).mean(2)
    assert (as_best == 1).mean() > 0.1 and (as_best < 0.3).mean() > 0.1
    in_between = replace(o, blunders=(0.5, 0.5))
    D = arena.collect(in_between, WORLD, goals, noise_at(1))
    left = distance(D.obs[..., None, :] + MOVES - goals[:, None, None, None])
    assert (left.argmin(-1) == D.actions).mean() == pytest.approx(1 - 0.5 * 8 / 9, abs=0.02)


def test_a_detour_visits_another_goal_and_is_never_paid():
    goals = Arena().sample_tasks(200, noise_at(0), "test")
    D, others = arena.detours(Arena(), goals, noise_at(1))
    assert D.rewards.shape == (200, 1, 40)
    assert_array_equal(D.rewards, 0)
    assert_allclose(distance(others), 1)
    assert (others[:, 1] >= 0).all()
    assert_allclose(distance(others - goals), 2**0.5)
    assert (distance(D.next_obs[:, 0] - others[:, None]).min(1) < 0.2).all()
    assert_array_equal(D.obs[:, :, 0], 0)


# --- l.1: the data ---
def test_a_relabelled_reward_is_what_a_step_to_that_state_pays_in_that_task():
    data = some_data()
    goals = some_goals()
    D = borel.meta_episodes(data, goals, True, 3, noise_at(4))
    assert D.rewards.shape == (5, 4, 18) and D.obs.shape == (5, 4, 18, 2)
    for i, k, t in np.ndindex(5, 4, 18):
        _, paid, _ = WORLD.step(D.obs[i, k, t], D.actions[i, k, t], goals[i], None)
        assert D.rewards[i, k, t] == paid
        d = np.hypot(*(D.next_obs[i, k, t] - goals[i]))
        assert paid == pytest.approx(1 - d if d < 0.2 else 0)
    assert (D.rewards[:, :, :12] > 0).any()


def donor(data, episode):
    """The task and number of an episode of obs (H, 2)."""
    same = (data.obs == episode).all((-1, -2))
    [[task, number]] = np.argwhere(same)
    return task, number


@pytest.mark.parametrize("relabel", [True, False])
def test_first_episodes_are_of_others_or_own_and_the_last_is_own(relabel):
    data = some_data()
    before = [part.tobytes() for part in data]
    D = borel.meta_episodes(data, some_goals(), relabel, 3, noise_at(4))
    donors = set()
    for i, k, e in np.ndindex(5, 4, 2):
        task, number = donor(data, D.obs[i, k, 6 * e : 6 * e + 6])
        assert (task != i) == relabel
        donors.add((i, task, number))
        for taken, part in zip(D, data, strict=True):
            if taken is not D.rewards:
                assert_array_equal(taken[i, k, 6 * e : 6 * e + 6], part[task, number])
        if not relabel:
            assert_array_equal(D.rewards[i, k, 6 * e : 6 * e + 6], data.rewards[task, number])
    for taken, part in zip(D, data, strict=True):
        assert_array_equal(taken[:, :, 12:], part)
    assert len(donors) > 10
    assert [part.tobytes() for part in data] == before


def test_relabelled_first_episodes_are_seldom_paid():
    o = borel.Options()
    goals = Arena().sample_tasks(40, noise_at(0))
    data = arena.collect(o, Arena(), goals, noise_at(1))
    shares = []
    for relabel in (True, False):
        D = borel.meta_episodes(data, goals, relabel, 2, noise_at(2))
        shares.append((D.rewards[:, :, :40] > 0).any(-1).mean())
    assert shares[0] < 0.35 and shares[1] > 0.85


# --- l.2 and 3: the VAE ---
def test_kl_is_that_of_gaussians():
    q = np.array([[0.3, -1.0, 0.2, -0.7], [0, 0, 0, 0]])
    p = np.array([[-0.5, 0.4, -0.3, 0.6], [0, 0, 0, 0]])
    z = belief.draw_z(q[0], noise_at(0).standard_normal((400_000, 2)))
    densities = []
    for g in (q[0], p[0]):
        densities.append(multivariate_normal(g[:2], np.diag(np.exp(g[2:]))).logpdf(z))
    closed = belief.kl(q, p)
    assert closed[0] == pytest.approx((densities[0] - densities[1]).mean(), abs=0.01)
    assert closed[1] == 0
    ad.check_grads(lambda q: belief.kl(q, p), q, order=1)
    assert_allclose(z.mean(0), q[0, :2], atol=0.01)
    assert_allclose(z.var(0), np.exp(q[0, 2:]), rtol=0.01)


def test_a_belief_is_g_of_the_sum_of_f_over_what_was_seen_before():
    next_obs, rewards = some_seen()
    w = some_w()
    beliefs = VAE_2.beliefs(w, next_obs, rewards)
    assert beliefs.shape == (3, 8, 4)
    f, g, _ = VAE_2.networks
    phi_f, phi_g, _ = VAE_2.parameters(w)
    for b in range(3):
        h = np.zeros(6)
        for t in range(8):
            assert_allclose(beliefs[b, t], g.apply(phi_g, h[None])[0], rtol=1e-6, atol=1e-7)
            if t < 7:
                x = np.append(next_obs[b, t], 5 * rewards[b, t])
                h = h + 0.1 * np.maximum(f.apply(phi_f, x[None])[0], 0)
    assert (beliefs.std(1) > 1e-3).all()


def test_beliefs_do_not_depend_on_what_comes_after():
    """Bit for bit; and on what comes before they do."""
    next_obs, rewards = some_seen()
    beliefs = VAE_2.beliefs(some_w(), next_obs, rewards)
    for t in range(7):
        other = next_obs.copy()
        other[:, t:] = 9
        paid = rewards.copy()
        paid[:, t:] = -7
        assert_array_equal(VAE_2.beliefs(some_w(), other, paid)[:, : t + 1], beliefs[:, : t + 1])
        paid = rewards.copy()
        paid[:, t] += 1
        assert (
            (VAE_2.beliefs(some_w(), next_obs, paid)[:, t + 1] != beliefs[:, t + 1]).any(-1).all()
        )


def test_parameters_are_three_parts_without_overlap():
    w = np.arange(VAE_2.init(noise_at(0)).size)
    parts = VAE_2.parameters(w)
    assert [len(part) for part in parts] == [network.size for network in VAE_2.networks]
    assert_array_equal(np.concatenate(parts), w)


def test_the_expected_reward_is_the_mean_over_draws():
    rng = noise_at(0)
    w = some_w()
    s = rng.standard_normal((4, 2))
    q = rng.standard_normal((4, 4))
    eps = rng.standard_normal((5, 2))
    expected = VAE_2.expected_reward(w, s, q, eps)
    _, _, decoder = VAE_2.networks
    _, _, psi = VAE_2.parameters(w)
    for i in range(4):
        total = 0
        for e in eps:
            z = q[i, :2] + np.exp(q[i, 2:] / 2) * e
            total += decoder.apply(psi, np.append(s[i], z)[None])[0, 0]
        assert expected[i] == pytest.approx(total / 5)
    plane = VAE_2.expected_reward(w, np.stack([s, s]), q[0], eps)
    assert plane.shape == (2, 4) and plane[1, 0] == pytest.approx(expected[0])


def test_the_elbo_is_a_loop():
    """Of each prefix the rewards of all steps; KL to the belief before, at first to N(0, I)."""
    next_obs, rewards = some_seen()
    w = some_w()
    t = np.array([0, 5])
    eps = noise_at(5).standard_normal((3, 2, 2))
    losses = belief.negative_elbo(VAE_2, w, next_obs, rewards, t, eps, 0.3)
    q = VAE_2.beliefs(w, next_obs, rewards)
    for b in range(3):
        misfit = 0
        for m in range(2):
            z = belief.draw_z(q[b, t[m]], eps[b, m])
            for i in range(7):
                misfit += (VAE_2.reward(w, next_obs[b, i], z) - rewards[b, i]) ** 2 / 2
        total = belief.kl(q[b, 0], np.zeros(4))
        for step in range(7):
            total += belief.kl(q[b, step + 1], q[b, step])
        assert losses[b] == pytest.approx(misfit + 0.3 * total, rel=1e-6)

    def loss(w):
        return belief.negative_elbo(VAE_2, w, next_obs, rewards, t, eps, 0.3)

    ad.check_grads(loss, w, order=1)


def flat(D):
    """The Data (T, K, n) as what is trained on, (T K, n)."""
    return borel.of_float32(Data(*[part.reshape(-1, *part.shape[2:]) for part in D]))


def some_meta_episodes():
    return borel.meta_episodes(some_data(), some_goals(), True, 2, noise_at(4))


def test_the_vae_is_trained_by_adam():
    """Two steps, by hand."""
    D = flat(some_meta_episodes())
    o = replace(SMALL, vae_steps=2, prefixes=20)
    w = belief.train_vae(o, VAE_2, D, 6)
    assert w.dtype == np.float32

    rng = noise_at(6, borel.OWN, 2)
    v = VAE_2.init(rng)
    m = second = 0
    for step in (1, 2):
        i = rng.integers(20, size=3)
        t = rng.integers(13, size=20)
        eps = rng.standard_normal((3, 20, 2), np.float32)
        x = Tensor(v)
        loss = belief.negative_elbo(VAE_2, x, D.next_obs[i], D.rewards[i], t, eps, o.beta)
        direction, m, second = metarl.adam(grad(ad.sum(loss), x).data, m, second, step)
        v = v - o.step_size * direction
    assert_allclose(w, v, atol=1e-7)


# --- l.4 and 5: Q ---
def test_hyper_states_are_states_and_the_beliefs_at_that_time():
    D = flat(some_meta_episodes())
    w = some_w()
    x, actions, rewards, next_x = borel.hyper_states(VAE_2, w, D)
    assert x.shape == next_x.shape == (20 * 12, 6)
    q = VAE_2.beliefs(w, D.next_obs, D.rewards)
    row = 0
    for b in range(20):
        for t in range(12):
            then = D.obs[b, t + 1] if t < 11 else D.next_obs[b, 11]
            assert_array_equal(x[row], np.append(D.obs[b, t], q[b, t]))
            assert_array_equal(next_x[row], np.append(then, q[b, t + 1]))
            assert actions[row] == D.actions[b, t] and rewards[row] == D.rewards[b, t]
            row += 1


def some_batch(scale=1.0):
    rng = noise_at(7)
    x, next_x = rng.standard_normal((2, 8, 6))
    return borel.Transitions(x, rng.integers(9, size=8), scale * rng.random(8), next_x)


def some_theta(seed):
    net = borel.q_network(SMALL)
    return 3 * np.stack([net.init(noise_at(seed, i)) for i in range(2)])


@pytest.mark.parametrize("scale", [1, -3, 30])
def test_the_error_of_q_is_a_loop(scale):
    """Rewards so large or so low that the target meets its bounds, and some where it does not."""
    batch = some_batch(scale)
    theta = some_theta(8)
    target = some_theta(9)
    net = borel.q_network(SMALL)

    def Q(theta, x):
        return np.stack([net.apply(theta[i], x[None])[0] for i in range(2)])

    total = np.zeros(2)
    for x, a, r, next_x in zip(*batch, strict=True):
        greedy = Q(theta, next_x).min(0).argmax()
        y = r + 0.9 * Q(target, next_x)[:, greedy].min()
        y = min(max(y, 0), 10)
        total += (Q(theta, x)[:, a] - y) ** 2
    losses = borel.td_error(SMALL, theta, target, batch)
    assert_allclose(losses, total / 8)
    ad.check_grads(lambda theta: borel.td_error(SMALL, theta, target, batch), theta, order=1)


def test_q_is_trained_by_adam_and_its_target_follows():
    """Three steps, by hand."""
    transitions = borel.hyper_states(VAE_2, VAE_2.init(noise_at(2)), flat(some_meta_episodes()))
    o = replace(SMALL, tau=0.3)
    theta = borel.train_q(o, transitions, 6)
    assert theta.dtype == np.float32  # of the target

    rng = noise_at(6, borel.OWN, 3)
    net = borel.q_network(o)
    by_hand = np.stack([net.init(rng), net.init(rng)]).astype(np.float32)
    assert (by_hand[0] != by_hand[1]).any()
    target = by_hand
    m = v = 0
    for step in (1, 2, 3):
        i = rng.integers(240, size=8)
        x = Tensor(by_hand)
        batch = borel.Transitions(*[part[i] for part in transitions])
        loss = borel.td_error(o, x, target, batch)
        direction, m, v = metarl.adam(grad(ad.sum(loss), x).data, m, v, step)
        by_hand = by_hand - o.step_size * direction
        target = 0.7 * target + 0.3 * by_hand
    assert_allclose(theta, target, atol=1e-6)


def test_training_sees_arrays_alone_and_leaves_them_as_they_are(monkeypatch):
    data = some_data()

    def step(*_):
        raise AssertionError("a step in training")

    monkeypatch.setattr(Arena, "step", step)
    monkeypatch.setattr(Arena, "reset", step)
    D = borel.meta_episodes(data, some_goals(), True, 2, noise_at(4))
    before = [part.tobytes() for part in D]
    agent = borel.learn(SMALL, D, 3)
    assert [part.tobytes() for part in D] == before
    again = borel.learn(SMALL, D, 3)
    assert_array_equal(agent.w, again.w)
    assert_array_equal(agent.theta, again.theta)
    assert_array_equal(agent.w, belief.train_vae(SMALL, VAE_2, flat(D), 3))
    transitions = borel.hyper_states(VAE_2, agent.w, flat(D))
    x = (transitions.x - agent.mean) / agent.std
    next_x = (transitions.next_x - agent.mean) / agent.std
    assert_allclose(x.mean(0), 0, atol=1e-3)
    assert_allclose(x.std(0), 1, rtol=1e-3)
    transitions = transitions._replace(x=x, next_x=next_x)
    assert_array_equal(agent.theta, borel.train_q(SMALL, transitions, 3))


# --- l.6 and 7: the test ---
@pytest.fixture(scope="module")
def agent():
    rng = noise_at(9)
    std = rng.uniform(0.5, 1, 6)
    return borel.Agent(VAE_2, some_w(), some_theta(34), 0.2 * rng.standard_normal(6), std)


@pytest.mark.parametrize("believer", [[0, 1, 2, 3], [3, 0, 1, 2]])
def test_a_search_is_greedy_and_its_belief_goes_on_over_episodes(agent, believer):
    """Each move by the belief of the believer, which is that of all that this one has seen.

    The goals are so near that all are paid, and by them the beliefs differ.
    """
    goals = 0.15 * some_goals(4, "test")
    D, beliefs = borel.search(SMALL, agent, WORLD, goals, 2, np.array(believer))
    assert D.rewards.shape == (4, 1, 12) and beliefs.shape == (4, 12, 4)
    q = VAE_2.beliefs(agent.w, D.next_obs[:, 0], D.rewards[:, 0])
    assert_allclose(beliefs, q[:, :-1], atol=1e-5)
    for i in range(4):
        for t in range(12):
            s = D.obs[i, 0, t]
            if t in (0, 6):
                assert_array_equal(s, 0)
            else:
                assert_array_equal(s, D.next_obs[i, 0, t - 1])
            x = np.append(s, beliefs[believer[i], t])
            x = (x - agent.mean) / agent.std
            Q = borel.both(SMALL, agent.theta, x[None].astype(np.float32))
            assert D.actions[i, 0, t] == Q.min(0)[0].argmax()
            moved, paid, _ = WORLD.step(s, D.actions[i, 0, t], goals[i], None)
            assert_array_equal(moved, D.next_obs[i, 0, t])
            assert paid == D.rewards[i, 0, t]
    assert (D.next_obs.std((0, 1, 2)) > 0).all()
    own, _ = borel.search(SMALL, agent, WORLD, goals, 2, np.arange(4))
    assert (own.actions == D.actions).all() == (believer == [0, 1, 2, 3])


def test_a_goal_is_found_by_an_episode_when_it_was_paid_until_then():
    rewards = np.zeros((4, 1, 6))
    rewards[0, 0, 1] = 0.9
    rewards[1, 0, 4:] = 0.8
    rewards[2, 0, [0, 5]] = 1
    row = borel.as_row(Data(None, None, rewards, None), 2)
    assert row == pytest.approx(
        {"return 1": 1.9 / 4, "return 2": 2.6 / 4, "found by 1": 0.5, "found by 2": 0.75}
    )
    twice = borel.as_row(Data(None, None, np.ones((4, 2, 3)), None), 2)
    assert twice["return 1"] == twice["return 2"] == 3


def test_a_visit_counts_from_the_arrival_on(agent):
    """The beliefs since then, of the first episode alone where there are two."""
    world = Arena(horizon=14)
    goals = some_goals(4, "test")
    detour, others = arena.detours(world, goals, noise_at(1))
    own = arena.walks(world, goals, 2, noise_at(1))
    for visit, at in ((detour, others), (own, goals)):
        expected = borel.expected_after(SMALL, agent, visit, at, noise_at(5))
        eps = noise_at(5).standard_normal((3, 2), np.float32)
        each = []
        for i in range(4):
            q = VAE_2.beliefs(agent.w, visit.next_obs[i], visit.rewards[i])[0]
            arrived = False
            for t in range(14):
                arrived = arrived or np.hypot(*(visit.next_obs[i, 0, t] - at[i])) < 0.2
                if arrived:
                    each.append(VAE_2.expected_reward(agent.w, at[i], q[t + 1], eps))
        assert 4 < len(each) < 4 * 14
        assert expected == pytest.approx(np.mean(each), rel=1e-4)


def test_all_are_tested_on_the_same_goals_and_are_what_their_rows_say(monkeypatch, agent):
    o = replace(SMALL, reflective=True)
    collected = []
    learned = []
    searched = []

    def learn(o, D, seed):
        learned.append(D)
        return agent

    def search(o, agent, world, goals, n, believer):
        searched.append((goals, n, believer.tolist()))
        return real(o, agent, world, goals, n, believer)

    def collect(o, world, goals, rng):
        collected.append(goals)
        return arena.collect(o, world, goals, rng)

    def expected_after(o, agent, visit, goals, rng):
        at = visit.next_obs[:, 0]
        assert (distance(at - goals[:, None]).min(1) < 0.2).all()
        return (visit.rewards[:, 0] > 0).any(1).mean()

    real = borel.search
    monkeypatch.setattr(borel, "collect", collect)
    monkeypatch.setattr(borel, "learn", learn)
    monkeypatch.setattr(borel, "search", search)
    monkeypatch.setattr(borel, "expected_after", expected_after)
    rows, _ = borel.run(o, 3)
    assert list(rows) == [
        "relabelled",
        "another's belief",
        "not relabelled",
        "reflective",
        "goal known",
    ]
    itself = [0, 1, 2, 3]
    told = [(n, believer) for _, n, believer in searched]
    assert told == [(2, itself), (2, [3, 0, 1, 2]), (2, itself), (3, itself)]
    for goals, *_ in searched:
        assert_array_equal(goals, searched[0][0])
    assert distance(collected[0][:, None] - searched[0][0]).min() > 1e-3
    for goals, colour in ((collected[0], 0), (searched[0][0], 1)):
        cells = np.arctan2(goals[:, 1], goals[:, 0]) / np.pi * CELLS
        assert_array_equal(np.floor(cells) % 2, colour)

    ours = learned[0]
    assert [D.rewards.shape[2] for D in learned] == [80, 80, 120]
    for D in learned:
        assert_array_equal(D.obs[:, :, -40:], ours.obs[:, :, 40:])
    paid = [(D.rewards[:, :, :-40].reshape(-1, 40) > 0).any(1).mean() for D in learned]
    assert paid[1] > 0.7
    assert max(paid[0], paid[2]) < 0.5
    assert rows["goal known"]["found by 1"] == 1 and rows["goal known"]["return 2"] > 30
    for row in ("relabelled", "not relabelled", "reflective"):
        assert (rows[row].pop("elsewhere"), rows[row].pop("own goal")) == (0, 1)
    assert rows["another's belief"].keys() == rows["goal known"].keys()

    as_arrays = {}
    for row, columns in rows.items():
        as_arrays[row] = {column: np.array([number]) for column, number in columns.items()}
    for row in ("relabelled", "not relabelled", "reflective"):
        as_arrays[row] |= {"elsewhere": np.array([0.1]), "own goal": np.array([0.9])}
    assert "Three episodes" in borel.report(as_arrays)
    del as_arrays["reflective"]
    assert "Three episodes" not in borel.report(as_arrays)
    assert len(borel.claims(as_arrays)) == 4


def test_claims_have_the_bounds_that_were_set():
    rows = {
        "relabelled": {
            "return 1": np.array([3.0, 5]),
            "return 2": np.array([10.0, 8]),
            "found by 2": np.array([0.6, 0.8]),
            "elsewhere": np.array([0.1, 0.12]),
        },
        "not relabelled": {
            "return 1": np.array([4.0, 4]),
            "return 2": np.array([11.0, 2]),
            "elsewhere": np.array([0.25, 0.2]),
        },
        "another's belief": {"return 2": np.array([2.0, 3.5])},
    }
    visit, found, steered, gain = borel.claims(rows)
    assert visit.measured == pytest.approx(0.6) and not visit.holds
    assert found.measured == pytest.approx(0.6) and found.holds
    assert steered.measured == pytest.approx(1) and steered.holds
    assert gain.measured == pytest.approx(2.5) and gain.holds
