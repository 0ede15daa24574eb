"""MACAW and the data of the offline chapters: training sees arrays alone, and each part against its
slow form. Whole runs are in .ci/run, as --quick --json.
"""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import awr, common, goals, macaw, offline
from chapters.awr import Transformed
from chapters.goals import ALL_SKILLS, RANDOM_WALKS, WORLD, Known, New
from chapters.macaw import OURS
from chapters.offline import Data
from envs import PointMass
from metarl import noise_at
from policies import Network

SMALL = macaw.Options(
    train_tasks=5,
    test_tasks=4,
    episodes=4,
    iterations=3,
    tasks=3,
    inner_episodes=2,
    outer_episodes=3,
    hidden=5,
    d=3,
    std=0.2,
    fine_tuning=(0, 1, 3),
)
PLAIN = replace(SMALL, d=0)
GOALS = np.array([[0.5, 0.2], [-0.7, 0.4], [0.1, -0.9]])


def some_data(tasks=GOALS, skill=ALL_SKILLS, episodes=2, seed=0):
    """In float64, for differences."""
    data = goals.collect(tasks, skill, episodes, SMALL.noise, noise_at(seed, 9))
    return Data(*[part.astype(float) for part in data])


def some_x(o, seed=0):
    """Meta-parameters in float64, with step sizes that differ and no zeros among the tensors."""
    x = awr.first(o, noise_at(seed)).astype(float)
    return x + 0.1 * noise_at(seed, 1).standard_normal(x.shape)


# --- offline.py ---
def test_what_is_recorded_is_what_the_world_did():
    """Each episode once more, step by step."""
    data = some_data()
    assert data.obs.shape == data.actions.shape == (3, 2, 20, 2)
    for goal, *episodes in zip(GOALS, *data, strict=True):
        for obs, actions, rewards, next_obs in zip(*episodes, strict=True):
            s = np.zeros(2)
            for t in range(20):
                assert_allclose(obs[t], s, atol=1e-6)
                s, reward, _ = WORLD.step(s, actions[t], goal, None)
                assert_allclose(next_obs[t], s, atol=1e-6)
                assert rewards[t] == pytest.approx(reward, abs=1e-6)


def test_a_demonstrator_goes_where_its_skill_says():
    """u of the way, 1 - u of a drift that stays for an episode, and noise."""

    def towards(obs):
        return np.broadcast_to([1.0, 0], obs.shape)

    obs = np.zeros((400, 5, 2))
    expert = offline.demonstrator(towards, (400, 5), (1, 1), 0, noise_at(0))
    assert_array_equal(expert(obs, 0), towards(obs))
    walker = offline.demonstrator(towards, (400, 5), (0, 0), 0, noise_at(1))
    drift = walker(obs, 0)
    assert_array_equal(walker(obs, 7), drift)
    assert_allclose(np.hypot(*drift.T), 1)
    assert_allclose(drift.mean((0, 1)), 0, atol=0.06)
    assert len(np.unique(drift.reshape(-1, 2), axis=0)) == 2000
    mixed = offline.demonstrator(towards, (400, 5), (0.5, 0.9), 0, noise_at(2))
    x = mixed(obs, 0)
    u = (1 - (x**2).sum(-1)) / (2 * (1 - x[..., 0]))  # of |x - (u, 0)| = 1 - u
    assert 0.5 < u.min() < 0.51 and 0.89 < u.max() < 0.9
    assert u.mean() == pytest.approx(0.7, abs=0.01)
    noisy = offline.demonstrator(towards, (400, 5), (1, 1), 0.3, noise_at(3))
    eps = noisy(obs, 0) - towards(obs)
    assert eps.std() == pytest.approx(0.3, abs=0.01)
    assert not (noisy(obs, 1) - towards(obs) == eps).any()


def test_unit_vectors():
    assert_allclose(offline.unit(np.array([[3.0, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


def test_tasks_and_episodes_are_chosen_by_row():
    data = some_data(episodes=4)
    chosen = offline.of_tasks(data, np.array([2, 0]))
    k = np.array([[3, 1, 0], [2, 2, 1]])
    for part, of_both, before in zip(offline.of_episodes(chosen, k), chosen, data, strict=True):
        assert_array_equal(of_both, before[[2, 0]])
        for i in range(2):
            for n in range(3):
                assert_array_equal(part[i, n], before[[2, 0][i], k[i, n]])


# --- Training sees arrays alone ---
def refuse(*_, **__):
    raise AssertionError("a world was asked")


def test_training_steps_no_world_and_leaves_the_data_as_they_are(monkeypatch):
    known, new = goals.data_sets(SMALL, 0)
    for name in ("reset", "step", "advance", "judge", "observe", "sample_tasks"):
        monkeypatch.setattr(PointMass, name, refuse)
    parts = [*known.walks, *known.demonstrations, *new.D]
    for part in parts:
        part.flags.writeable = False
    before = [part.tobytes() for part in parts]
    for loss in (macaw.meta_loss, macaw.imitation_loss, macaw.multi_task_loss):
        x = macaw.train(SMALL, known, 0, loss)
        assert np.isfinite(x).all() and x.dtype == np.float32
        assert (x != awr.first(SMALL, noise_at(0, 3, 5))).any()
        macaw.adapt(SMALL, Tensor(x), new.D)
    assert [part.tobytes() for part in parts] == before
    with pytest.raises(AssertionError, match="a world was asked"):
        macaw.tested(SMALL, awr.unpack(SMALL, x).theta, new.tasks)


@pytest.mark.parametrize("seed", range(5))
def test_new_goals_are_at_a_distance_from_all_of_training(seed):
    """At least what is left out between two cells of the checkerboard."""
    known, new = [], []

    def spy(self, n, rng, split="train", sample=PointMass.sample_tasks):
        tasks = sample(self, n, rng, split)
        {"train": known, "test": new}[split].extend(tasks)
        return tasks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PointMass, "sample_tasks", spy)
        _, sets = goals.data_sets(replace(macaw.Options(), episodes=1, inner_episodes=1), seed)
    assert (len(known), len(new)) == (80, 100)
    assert_array_equal(sets.tasks, new)
    apart = np.hypot(*(np.array(known)[:, None] - np.array(new)).T)
    assert apart.min() > 2 * 0.01 * 2 / 50 * 0.999


def test_data_sets_are_walks_in_all_and_demonstrations_in_known_tasks():
    known, new = goals.data_sets(replace(SMALL, train_tasks=40, test_tasks=40, episodes=10), 0)
    assert known.walks.rewards.shape == known.demonstrations.rewards.shape == (40, 10, 20)
    assert new.D.rewards.shape == (40, 2, 20)
    for walks in (known.walks, new.D):
        assert goals.mean_return(walks) == pytest.approx(-24, abs=2)
    assert goals.mean_return(known.demonstrations) == pytest.approx(-11.5, abs=1)
    offset = new.D.next_obs - new.tasks[:, None, None]
    assert_allclose(new.D.rewards, -np.linalg.norm(offset, axis=-1), atol=1e-5)


def test_in_exchanged_data_no_task_has_its_own():
    _, new = goals.data_sets(SMALL, 0)
    other = goals.exchanged(new)
    assert_array_equal(other.tasks, new.tasks)
    for of_another, own in zip(other.D, new.D, strict=True):
        assert_array_equal(of_another, own[[3, 0, 1, 2]])


def test_batches_are_of_the_same_tasks_and_without_replacement():
    """Walks for D and demonstrations for D', marked by their task and their episode."""
    o = replace(SMALL, iterations=40)
    seen = []

    def marked(offset):
        task = np.arange(5)[:, None, None]
        episode = np.arange(4)[:, None]
        obs = np.broadcast_to(task * 10 + episode + offset, (5, 4, 20))
        return Data(*[np.zeros((5, 4, 20, 2))] * 2, obs, np.zeros((5, 4, 20, 2)))

    def spy(o, x, D, D_prime):
        seen.append((D.rewards[..., 0], D_prime.rewards[..., 0]))
        return ad.sum(x)

    macaw.train(o, Known(marked(0), marked(100)), 0, spy)
    pairs = set()
    for D, D_prime in seen:
        assert D.shape == (3, 2) and D_prime.shape == (3, 3)
        tasks = D // 10
        assert_array_equal(tasks, tasks[:, :1].repeat(2, 1))
        assert_array_equal((D_prime - 100) // 10, tasks[:, :1].repeat(3, 1))
        assert len(set(tasks[:, 0])) == 3
        for row in (*D, *D_prime):
            assert len(set(row)) == len(row)
        pairs |= set(D.ravel()) | set(D_prime.ravel())
    assert len(pairs) == 40


def test_adam_steps_of_tensors_and_of_rates_differ():
    """The first is as long as Adam's step size, whatever the gradient."""
    known, _ = goals.data_sets(SMALL, 0)
    o = replace(SMALL, iterations=1)
    x = macaw.train(o, known, 0, lambda o, x, D, D_prime: ad.sum(x))
    moved = awr.first(o, noise_at(0, 3, 5)) - x
    rates = len(awr.shapes(o)[0] + awr.shapes(o)[1]) + 1
    assert_allclose(moved[:-rates], o.beta, rtol=1e-3)
    assert_allclose(moved[-rates:], o.beta_rates, rtol=1e-3)


# --- The weight transform ---
def test_a_transformed_layer_is_z_W_plus_c():
    """By loops, for each task."""
    net = Transformed(Network(2, 2, (4,), "relu"), 3)
    rows = [net.init(noise_at(k)) for k in range(2)]
    rows = [[w + 0.1 * noise_at(9).standard_normal(w.shape) for w in row] for row in rows]
    s = noise_at(7).standard_normal((2, 5, 2))
    together = net.apply([np.stack(pair) for pair in zip(*rows, strict=True)], s)
    for theta, x, out in zip(rows, s, together, strict=True):
        assert [w.shape for w in theta] == net.shapes
        h = x
        for n, (i, o) in enumerate([(2, 4), (4, 2)]):
            z, W, c = theta[3 * n : 3 * n + 3]
            made = c[0].copy()
            for j in range(3):
                made += z[0, j] * W[j]
            h = h @ made[: i * o].reshape(i, o) + made[i * o :]
            if n == 0:
                h = np.maximum(h, 0)
        assert_allclose(out, h, rtol=1e-12)


def test_layers_start_as_plain_ones_do_but_for_a_small_z_W():
    net = Network(60, 40, (50,))
    plain = net.init(noise_at(0))
    of_plain = Transformed(net, 0)
    assert_array_equal(of_plain.weights(of_plain.init(noise_at(0))), plain)
    made = Transformed(net, 16)
    tensors = made.init(noise_at(0))
    assert [w.shape for w in tensors] == made.shapes
    c = np.concatenate([c[0] for c in tensors[2::3]])
    assert_array_equal(c, plain)
    added = [made.weights(made.init(noise_at(k))) - net.init(noise_at(k)) for k in range(50)]
    first_layer = np.stack(added)[:, : 60 * 50]
    assert (first_layer**2).mean() == pytest.approx(0.3**4 * 2 / 110, rel=0.15)


@pytest.mark.parametrize("d, ranks", [(0, [1, 1]), (6, [5, 5])])
def test_a_transition_changes_a_plain_layer_by_rank_1_and_a_transformed_one_by_more(d, ranks):
    net = Transformed(Network(5, 5, (5,)), d)
    theta = net.init(noise_at(0))
    leaves = [Tensor(w) for w in theta]
    error = net.apply(leaves, noise_at(1).standard_normal((1, 5))) - 1
    gradients = grad(ad.sum(error * error), leaves)
    after = [w - 0.1 * g.data for w, g in zip(theta, gradients, strict=True)]
    change = net.weights(after) - net.weights(theta)
    changes = [w for w, _ in net.network.layers(change)]
    assert [np.linalg.matrix_rank(w, tol=1e-9) for w in changes] == ranks


# --- The networks and the vector of everything ---
def test_the_vector_is_cut_where_it_was_joined():
    x = awr.first(SMALL, noise_at(4))
    m = awr.unpack(SMALL, x)
    rng = noise_at(4)
    V, trunk, mean, head = awr.nets(SMALL)
    phi = V.init(rng)
    theta = trunk.init(rng) + mean.init(rng) + head.init(rng)
    for tensor, expected in zip(m.phi + m.theta, phi + theta, strict=True):
        assert_allclose(tensor, expected, rtol=1e-6)
    assert_allclose(m.alpha_phi, np.full(9, SMALL.alpha), rtol=1e-6)
    assert_allclose(m.alpha_theta, np.full(15, SMALL.alpha), rtol=1e-6)
    assert m.lam == pytest.approx(SMALL.lam)
    x = np.stack([some_x(SMALL, k) for k in range(2)])
    both = awr.unpack(SMALL, x)
    for k in range(2):
        alone = awr.unpack(SMALL, x[k])
        for tensor, expected in zip(both.phi + both.theta, alone.phi + alone.theta, strict=True):
            assert_array_equal(tensor[k], expected)
        rates = (both.alpha_phi[k], both.alpha_theta[k], both.lam[k])
        for rate, expected in zip(rates, alone[2:], strict=True):
            assert_array_equal(rate, expected)


def network_by_hand(net, tensors, x):
    """The output of a plain relu network."""
    for n in range(len(net.network.widths) - 1):
        if n > 0:
            x = np.maximum(x, 0)
        w, b = tensors[2 * n : 2 * n + 2]
        x = x @ w + b
    return x


def test_value_policy_and_head():
    m = awr.unpack(PLAIN, some_x(PLAIN))
    nets = awr.nets(PLAIN)
    D = some_data()
    trunk, mean, head = m.theta[:4], m.theta[4:6], m.theta[6:]
    values = awr.V(PLAIN, m.phi, D.obs)
    h = awr.features(PLAIN, m.theta, D.obs)
    actions = awr.mean_action(PLAIN, m.theta, h)
    told = awr.told_advantage(PLAIN, m.theta, h, D.actions)
    for t in range(20):
        s = D.obs[:, :, t]
        s_and_t = np.concatenate([s, np.full((3, 2, 1), t / 20)], -1)
        assert_allclose(values[..., t], network_by_hand(nets.V, m.phi, s_and_t)[..., 0])
        h = np.maximum(network_by_hand(nets.trunk, trunk, s), 0)
        assert_allclose(actions[:, :, t], np.tanh(network_by_hand(nets.mean, mean, h)))
        h_and_a = np.concatenate([h, D.actions[:, :, t]], -1)
        assert_allclose(told[..., t], network_by_hand(nets.head, head, h_and_a)[..., 0])


# --- The losses ---
def test_weights_are_whitened_in_each_task_and_clipped():
    A = noise_at(0).standard_normal((3, 4, 20)) * np.array([0.1, 1, 50])[:, None, None]
    A[1, 0, 0] = 40
    w = awr.advantage_weights(A)
    for k in range(3):
        flat = A[k].ravel()
        mean = sum(flat) / 80
        std = np.sqrt(sum((a - mean) ** 2 for a in flat) / 80)
        expected = [min(np.exp((a - mean) / std), 20) for a in flat]
        assert_allclose(w[k].ravel(), expected, rtol=1e-10)
    assert w.max() == pytest.approx(20) and w[1, 0, 0] == w.max()
    assert awr.advantage_weights(A.astype(np.float32)).dtype == np.float32


def test_losses_by_loops():
    o = PLAIN
    m = awr.unpack(o, some_x(o))
    D = some_data()
    h = awr.features(o, m.theta, D.obs)
    A = awr.advantages(o, m.phi, D)
    w = awr.advantage_weights(A)
    mean = awr.mean_action(o, m.theta, h)
    values = awr.V(o, m.phi, D.obs)
    told = awr.told_advantage(o, m.theta, h, D.actions)
    terms = np.zeros((4, 3, 2, 20))
    for k, e, t in np.ndindex(3, 2, 20):
        R = 0
        for later in range(t, 20):
            R += 0.1 * 0.9 ** (later - t) * D.rewards[k, e, later]
        log_pi = 0
        for i in range(2):
            log_pi -= 0.5 * ((D.actions[k, e, t, i] - mean[k, e, t, i]) / 0.2) ** 2
        assert A[k, e, t] == pytest.approx(R - values[k, e, t])
        terms[0, k, e, t] = (values[k, e, t] - R) ** 2
        terms[1, k, e, t] = -w[k, e, t] * log_pi
        terms[2, k, e, t] = -log_pi
        terms[3, k, e, t] = (told[k, e, t] - 10 * A[k, e, t]) ** 2
    V, AWR, imitation, head = terms.mean((2, 3))
    assert_allclose(awr.L_V(o, m.phi, D), V)
    assert_allclose(awr.L_AWR(o, m.theta, h, A, D), AWR)
    assert_allclose(awr.L_BC(o, m.theta, h, D), imitation)
    assert_allclose(awr.L_head(o, m.theta, h, A, D), head)
    assert_allclose(macaw.outer_loss(o, m.phi, m.theta, D), V + AWR)


def test_the_head_gives_the_trunk_a_gradient_where_the_weights_alone_give_none():
    """At the policy's own actions."""
    o = SMALL
    m = awr.unpack(o, some_x(o))
    D = some_data()
    own = awr.mean_action(o, m.theta, awr.features(o, m.theta, D.obs))
    D = D._replace(actions=own)
    theta = [Tensor(w) for w in m.theta]
    A = awr.advantages(o, m.phi, D)
    h = awr.features(o, theta, D.obs)
    trunk, mean, head = awr.of_policy(o, theta)
    for g in grad(ad.sum(awr.L_AWR(o, theta, h, A, D)), theta):
        assert_array_equal(g.data, 0)
    of_head = grad(ad.sum(awr.L_head(o, theta, h, A, D)), theta)
    assert all((g.data != 0).any() for g in awr.of_policy(o, of_head)[0])
    assert all((g.data == 0).all() for g in awr.of_policy(o, of_head)[1])
    assert len(trunk) + len(mean) + len(head) == len(theta)


# --- Adaptation ---
def step_down(loss, tensors, alpha):
    """The tensors after a gradient step down loss(tensors), each with its own step size."""
    leaves = [Tensor(w) for w in tensors]
    gradients = grad(ad.sum(loss(leaves)), leaves)
    return [w - a * g.data for w, a, g in zip(tensors, alpha, gradients, strict=True)]


def test_an_inner_step_is_down_each_gradient_with_its_own_step_size():
    o = SMALL
    m = awr.unpack(o, some_x(o))
    D = some_data()
    phi_prime, theta_prime = macaw.adapt(o, Tensor(some_x(o)), D)
    for k in range(3):
        alone = offline.of_tasks(D, [k])
        phi = step_down(partial(awr.L_V, o, D=alone), m.phi, m.alpha_phi)
        A = awr.advantages(o, phi, alone)

        def L_pi(theta, A=A, D=alone):
            h = awr.features(o, theta, D.obs)
            of_head = awr.L_head(o, theta, h, A, D)
            return awr.L_AWR(o, theta, h, A, D) + m.lam * of_head

        theta = step_down(L_pi, m.theta, m.alpha_theta)
        for tensor, expected in zip(phi_prime + theta_prime, phi + theta, strict=True):
            assert_allclose(tensor.data[k], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("o", [SMALL, PLAIN, replace(SMALL, head=False)])
def test_the_gradient_through_the_inner_step_against_differences(o):
    """The advantages are constants. So the loss of V concerns phi and its step sizes alone; with
    these held, the differences of the rest are those of the whole loss.
    """
    x = some_x(o)
    D = some_data(skill=RANDOM_WALKS, seed=1)
    D_prime = some_data(seed=2)
    leaf = Tensor(x)
    g = grad(ad.sum(macaw.meta_loss(o, leaf, D, D_prime)), leaf).data

    def loss_of_V(x):
        phi_prime, _ = macaw.adapt(o, Tensor(x), D)
        return awr.L_V(o, phi_prime, D_prime).data.sum()

    def loss(x):
        return macaw.meta_loss(o, Tensor(x), D, D_prime).data.sum()

    n = len(awr.shapes(o)[0])
    tensors = len(awr.shapes(o)[1]) + n
    of_phi = np.zeros(len(x), bool)
    of_phi[: sum(np.prod(shape) for shape in awr.shapes(o)[0])] = True
    of_phi[len(x) - tensors - 1 :][:n] = True
    rng = noise_at(5)
    for f, chosen in ((loss_of_V, of_phi), (loss, ~of_phi)):
        for _ in range(3):
            v = np.where(chosen, rng.standard_normal(len(x)), 0)
            v /= np.linalg.norm(v)
            slope = (f(x + 1e-6 * v) - f(x - 1e-6 * v)) / 2e-6
            assert g @ v == pytest.approx(slope, rel=1e-4, abs=1e-5)
    of_rates = g[-tensors - 1 :]
    assert (of_rates[:n] != 0).all()
    assert (of_rates[-1] != 0) == o.head


def test_meta_bc_does_not_look_at_rewards_and_macaw_does():
    D = some_data()
    other = D._replace(rewards=noise_at(3).standard_normal(D.rewards.shape))
    x = Tensor(some_x(SMALL))
    for adapt, same in ((macaw.imitate, True), (macaw.adapt, False)):
        one, two = (adapt(SMALL, x, data)[1] for data in (D, other))
        mean = awr.of_policy(SMALL, one)[1][-1].data
        assert (mean == awr.of_policy(SMALL, two)[1][-1].data).all() == same


def test_meta_bc_is_a_step_of_imitation_judged_by_imitation():
    o = SMALL
    m = awr.unpack(o, some_x(o))
    D = some_data()
    D_prime = some_data(seed=1)
    losses = macaw.imitation_loss(o, Tensor(some_x(o)), D, D_prime)

    def L_BC(theta, D):
        return awr.L_BC(o, theta, awr.features(o, theta, D.obs), D)

    for k in range(3):
        of_k = partial(L_BC, D=offline.of_tasks(D, [k]))
        theta = step_down(of_k, m.theta, m.alpha_theta)
        expected = L_BC(theta, offline.of_tasks(D_prime, [k]))
        assert_allclose(losses.data[k], expected[0], rtol=1e-9)


# --- The test on new tasks ---
def test_a_test_is_an_episode_of_the_mean_action():
    o = PLAIN
    x = np.stack([some_x(o, k) for k in range(3)])
    data = macaw.tested(o, awr.unpack(o, x).theta, GOALS)
    assert data.rewards.shape == (3, 1, 20)
    for k in range(3):
        theta = awr.unpack(o, x[k]).theta
        s = np.zeros(2)
        for t in range(20):
            assert_allclose(data.obs[k, 0, t], s, atol=1e-12)
            h = awr.features(o, theta, s[None])
            s, reward, _ = WORLD.step(s, awr.mean_action(o, theta, h)[0], GOALS[k], None)
            assert data.rewards[k, 0, t] == pytest.approx(reward)
    assert goals.mean_return(data) == pytest.approx(data.rewards.sum() / 3)


def test_before_after_and_after_the_data_of_another_task():
    o = SMALL
    x = some_x(o)
    D = some_data()
    tests = macaw.adapted(o, x, New(GOALS, D))
    for k in range(3):
        policies = {"before": awr.unpack(o, x).theta}
        for when, i in (("after", k), ("another's data", k - 1)):
            alone = offline.of_tasks(D, [i])
            policies[when] = macaw.adapt(o, Tensor(x), alone)[1]
        for when, theta in policies.items():
            expected = macaw.tested(o, theta, GOALS[k : k + 1])
            assert_allclose(tests[when].rewards[k], expected.rewards[0], rtol=1e-9)


def test_fine_tuning_takes_steps_of_adam_in_each_task():
    o = PLAIN
    x = some_x(o)
    D = some_data()
    by_count = macaw.fine_tuned(o, x, New(GOALS, D))
    assert by_count.shape == (3,)
    w = np.tile(x, (3, 1))
    m = v = 0
    for t in range(4):
        if t in o.fine_tuning:
            expected = goals.mean_return(macaw.tested(o, awr.unpack(o, w).theta, GOALS))
            assert by_count[o.fine_tuning.index(t)] == pytest.approx(expected)
        g = np.zeros_like(w)
        for k in range(3):
            leaf = Tensor(w[k])
            parts = awr.unpack(o, leaf)
            alone = offline.of_tasks(D, [k])
            phi = [tensor[None] for tensor in parts.phi]
            theta = [tensor[None] for tensor in parts.theta]
            g[k] = grad(ad.sum(macaw.outer_loss(o, phi, theta, alone)), leaf).data
        direction, m, v = metarl.adam(g, m, v, t + 1)
        w = w - o.beta * direction


# --- A run ---
def test_rows_of_a_run():
    rows, picture = macaw.run(SMALL, 0)
    assert list(rows) == [OURS, "meta-BC", macaw.MULTI_TASK, macaw.COUNTS, "data"]
    for name in (OURS, "meta-BC", macaw.MULTI_TASK):
        assert rows[name].keys() == set(macaw.WHEN)
    assert rows[macaw.COUNTS].keys() == {"0", "1", "3"}
    assert rows[macaw.MULTI_TASK]["after"] == max(rows[macaw.COUNTS].values())
    assert rows[macaw.MULTI_TASK]["before"] == rows[macaw.COUNTS]["0"]
    assert goals.mean_return(picture["paths"]["after"]) == rows[OURS]["after"]
    data = rows["data"]
    assert data["random walks"] < data["demonstrators"] < data["the best possible"] < 0


def test_the_chapter_in_small_with_ablations(capsys, tmp_path):
    argv = ["--quick", "--seeds", "1", "--ablations", "--json"]
    try:
        import matplotlib  # noqa: F401

        argv += ["--plot", str(tmp_path)]
    except ImportError:
        pass
    tiny = macaw.CHAPTER._replace(quick=SMALL)
    assert common.main(tiny, argv) == 0
    content = json.loads(capsys.readouterr().out)
    assert set(macaw.ABLATIONS) < content["rows"].keys()
    assert len(content["claims"]) == 8
    after = {name: row.get("after") for name, row in content["rows"].items()}
    assert len({tuple(after[name]) for name in (OURS, *macaw.ABLATIONS)}) == 4
    rows = {r: {c: np.array(n) for c, n in row.items()} for r, row in content["rows"].items()}
    assert all(name in macaw.report(rows) for name in (OURS, *macaw.ABLATIONS))
    if "--plot" in argv:
        assert (tmp_path / "macaw.svg").read_text().startswith("<?xml")


def test_claims_are_judged_by_their_columns():
    rows = {
        OURS: {"before": [-20, -16], "after": [-10, -11], "another's data": [-18, -15]},
        "meta-BC": {"before": [-9, -9], "after": [-15, -16.5], "another's data": [0, 0]},
        macaw.MULTI_TASK: {"before": [-9, -9], "after": [-14, -14], "another's data": [0, 0]},
        "no head": {"before": [-9, -9], "after": [-12, -10], "another's data": [0, 0]},
    }
    rows = {name: {k: np.array(r) for k, r in row.items()} for name, row in rows.items()}
    measured = [c.measured for c in macaw.claims(rows)]
    assert measured == [-10.5, 5, 4, 5, 3.5, 0.5]
    assert [c.must for c in macaw.claims(rows)] == [
        "above -11.5 in the mean",
        "above 4 in every seed",
        "above 3 in every seed",
        "above 3 in every seed",
        "above 2 in the mean",
        "above 0 in the mean",
    ]
