"""The chapters in which evolution moves a part of a life: each part against its slow form, and what
a loss can and cannot know. Whole runs are in .ci/run, as --quick --json.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import components, epg, life
from chapters.common import OWN
from chapters.epg import CLOSED, OPEN
from chapters.life import AHEAD, BEHIND, EPISODES, Parts, by_hand, learning_curve, live
from harness.settings import Setting
from metarl import noise_at
from policies import Policy, rollout

SMALL = dict(
    hidden=(3,),
    steps=2,
    episodes=2,
    loss_units=4,
    generations=2,
    members=4,
    test_lives=3,
    alphas=(0.06, 0.125),
)
EPG = epg.Options(longer=3, larger=(4, 2), maml_iterations=1, maml_tasks=2, **SMALL)
COMPONENTS = components.Options(**SMALL)
ADDRESS = (5, OWN, 9)


def some_lives(o, n, seed=0):
    """Births (n, P) that are not all alike in their deviations, and tasks (n, 2)."""
    theta = life.births(o, n, noise_at(seed))
    theta[:, -2:] += 0.1 * noise_at(seed, 1).standard_normal((n, 2))
    return theta, AHEAD.sample_tasks(n, noise_at(seed, 2))


def some_phi(o, kind, n, seed=0):
    return 0.7 * noise_at(seed, 3).standard_normal((n, epg.network(o, kind).size))


# --- The world ---
@pytest.mark.parametrize("split", ["train", "test"])
def test_goals_fill_the_sector_ahead_and_lie_opposite_behind(split):
    goals = AHEAD.sample_tasks(10_000, noise_at(0), split)
    radius = np.hypot(*goals.T)
    angle = np.arctan2(goals[:, 1], goals[:, 0]) / np.pi * 4
    assert 0.5 < radius.min() < 0.505 and 0.995 < radius.max() < 1
    assert -1 < angle.min() < -0.99 and 0.99 < angle.max() < 1
    assert abs(angle.mean()) < 0.03
    assert_allclose(BEHIND.sample_tasks(10_000, noise_at(0), split), -goals, atol=1e-12)
    other = "test" if split == "train" else "train"
    assert not (goals == AHEAD.sample_tasks(10_000, noise_at(0), other)).all(1).any()


# --- A life ---
def adapted(o, theta, tasks, alpha):
    """The path of metarl's own inner loop, under the noise of a life at ADDRESS."""
    c = Setting(env=AHEAD, policy=life.policy(o), alpha=alpha, alpha_decay=1.0, episodes=o.episodes)
    sample = metarl.sampler(c, tasks, (*ADDRESS, EPISODES))
    path, _ = metarl.adapt(c, Tensor(theta), sample, steps=o.steps)
    return [theta.data for theta in path]


def test_a_life_by_hand_is_plain_policy_gradient_bit_for_bit():
    o = replace(EPG, steps=3)
    theta, tasks = some_lives(o, 4)
    nothing = np.zeros((4, 0))
    for parts in (
        by_hand(o, theta, 0.1),
        epg.plain(0.1, o, nothing, theta),
        components.parts_of({}, 0.1, o, nothing, theta),
        epg.born_as(0.1, o, theta, np.ones_like(theta)),
    ):
        path = live(o, AHEAD, parts, tasks, ADDRESS)
        for ours, metarls in zip(path, adapted(o, theta, tasks, 0.1), strict=True):
            assert ours.tobytes() == metarls.tobytes()


def test_a_life_is_a_loop_over_lives_and_steps():
    """With step sizes, deviations and a loss of its own for each."""
    o = EPG
    theta, tasks = some_lives(o, 3)
    rng = noise_at(7)
    alphas = rng.uniform(0.1, 1, (3, 2))
    log_stds = rng.uniform(-1, 0, (3, 3))
    phi = some_phi(o, CLOSED, 3)
    parts = Parts(theta, alphas, partial(epg.learned_loss, o, CLOSED, phi), log_stds)
    path = live(o, AHEAD, parts, tasks, ADDRESS)
    assert len(path) == 3
    for k in range(3):
        assert_array_equal(path[k][:, -2:], log_stds[:, [k, k]])
        if k == 0:
            assert_array_equal(path[0][:, :-2], theta[:, :-2])
            continue
        before = path[k - 1]
        rng = noise_at(*ADDRESS, EPISODES, k - 1)
        D = rollout(AHEAD, life.policy(o), before, tasks, o.episodes, rng)
        for i in range(3):
            own = type(D)(*[part[i : i + 1] for part in D[:4]])
            leaf = Tensor(before[i : i + 1])
            loss = epg.learned_loss(o, CLOSED, phi[i : i + 1], leaf, own)
            g = grad(ad.sum(loss), leaf).data[0]
            expected = before[i] - alphas[i, k - 1] * g
            assert_allclose(path[k][i, :-2], expected[:-2], rtol=1e-9, atol=1e-12)


def test_fitness_is_the_return_of_the_last_policy_on_fresh_episodes():
    o = EPG
    theta, tasks = some_lives(o, 4)
    theta = np.repeat(theta[:2], 2, 0)
    tasks = np.repeat(tasks[:2], 2, 0)
    parts = by_hand(o, theta, 0.1)
    F = life.fitness(o, parts, tasks, ADDRESS)
    last = live(o, AHEAD, parts, tasks, ADDRESS, pairs=True)[-1]
    D = life.episodes(o, AHEAD, last, tasks, (*ADDRESS, EPISODES, 2), pairs=True)
    assert_array_equal(F, D.rewards.sum(2).mean(1))
    learned_on = life.episodes(o, AHEAD, last, tasks, (*ADDRESS, EPISODES, 1), pairs=True)
    assert (D.actions != learned_on.actions).any()


# --- Evolution ---
def test_the_two_of_a_pair_share_birth_task_and_noise(monkeypatch):
    """Lives that do not depend on x: the same in a pair to the last bit, otherwise different."""
    o = replace(EPG, members=6, generations=3)
    seen = []

    def parts_of(o, x, theta):
        seen.append((x, theta))
        return by_hand(o, theta, 0.1)

    def fitness(o, parts, tasks, address):
        F = original(o, parts, tasks, address)
        seen.append((tasks, F))
        return F

    original = life.fitness
    monkeypatch.setattr(life, "fitness", fitness)
    life.evolve(o, np.ones(2), parts_of, 3)
    everything = []
    for (x, theta), (tasks, F) in zip(seen[::2], seen[1::2], strict=True):
        assert_allclose(x[::2] + x[1::2], np.broadcast_to(x[:2].sum(0), (3, 2)), rtol=1e-12)
        assert (x[::2] != x[1::2]).all()
        for shared in (theta, tasks, F[:, None]):
            assert_array_equal(shared[::2], shared[1::2])
        everything.append(np.concatenate([theta, tasks, F[:, None]], 1)[::2])
        assert (tasks[:, 0] > 0).all()  # ahead
    everything = np.concatenate(everything)  # of all pairs of all generations
    different = [len(np.unique(column)) for column in everything.T]
    assert set(different) == {1, 9}
    weights = 2 * 3 + 3 * 2
    assert different.count(9) == weights + 2 + 1  # the biases and deviations at birth are the same


def test_evolution_goes_up_the_fitness(monkeypatch):
    """On F = -|x - target|^2, and each member is judged by its own."""
    target = np.array([0.5, -0.3, 0.2])
    monkeypatch.setattr(life, "fitness", lambda o, x, *_: -((x - target) ** 2).sum(1))
    o = replace(EPG, generations=60, members=16, sigma=0.05)
    x = life.evolve(o, np.zeros(3), lambda o, x, theta: x, 0)
    assert_allclose(x, target, atol=0.05)


def test_evolution_teaches_a_loss_that_teaches():
    """A loss at random makes policies worse; after a few generations lives are better by far."""
    o = epg.Options(generations=12, members=32, test_lives=40, steps=4)
    for kind in (CLOSED, OPEN):
        first = learning_curve(o, 20, AHEAD, partial(epg.taught, kind), epg.first_phi(o, kind, 20))
        phi = epg.learn_loss(o, kind, 20)
        learned = learning_curve(o, 20, AHEAD, partial(epg.taught, kind), phi)
        assert first[0] == learned[0]  # the same births
        assert learned[-1] > first[-1] + 4


# --- The test ---
@pytest.mark.parametrize("quiet", [False, True])
def test_returns_are_of_held_out_goals_after_each_step(quiet):
    o = EPG
    n = o.test_lives
    x = np.array([0.3])

    def parts_of(o, x, theta):
        assert_array_equal(x, np.full((n, 1), 0.3))
        return by_hand(o, theta, x[0, 0])

    returns = learning_curve(o, 4, BEHIND, parts_of, x, quiet=quiet)
    address = (4, OWN, life.TESTED)
    tasks = BEHIND.sample_tasks(n, noise_at(*address, life.TASKS), "test")
    theta = life.births(o, n, noise_at(*address, life.BIRTHS))
    path = live(o, BEHIND, by_hand(o, theta, 0.3), tasks, address)
    pi = replace(life.policy(o), deterministic=quiet)
    for k, theta in enumerate(path):
        rng = noise_at(*address, life.MEASURE, k)
        D = rollout(BEHIND, pi, theta, tasks, o.episodes, rng)
        assert returns[k] == pytest.approx(D.returns.mean(), rel=1e-12)
    assert len(returns) == 3


def test_the_best_alpha_is_chosen_at_the_end_and_not_on_test_goals(monkeypatch):
    def fake(o, seed, world, parts_of, x, split, lives):
        assert (world, split, lives, x) == (AHEAD, "train", life.CHOICE, "x")
        alpha = parts_of()
        return np.array([alpha, -abs(alpha - 0.3)])

    monkeypatch.setattr(life, "learning_curve", fake)
    o = replace(EPG, alphas=(0.1, 0.25, 0.5))
    assert life.best_alpha(o, 0, lambda alpha: alpha, "x") == 0.25


# --- What a loss is told ---
def episodes_of(o, theta, tasks):
    return life.episodes(o, AHEAD, theta, tasks, ADDRESS)


def test_what_is_told_of_rewards_is_a_loop():
    o = EPG
    D = episodes_of(o, *some_lives(o, 3))
    told = epg.rewards_told(D)
    assert told.shape == (3, 2, 20, 4)
    for i in range(3):
        for e in range(2):
            r = D.rewards[i, e]
            for t in range(20):
                before = 10 * (r[t] - r[t - 1]) if t > 0 else 0
                after = 10 * (r[t + 1] - r[t]) if t < 19 else 0
                expected = [r[t], before, after, D.rewards[i].sum() / 40]
                assert_allclose(told[i, e, t], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [CLOSED, OPEN])
def test_the_loss_is_a_loop_over_lives_with_a_network_of_its_own_for_each(kind):
    o = EPG
    theta, tasks = some_lives(o, 3)
    D = episodes_of(o, theta, tasks)
    phi = some_phi(o, kind, 3)
    losses = epg.learned_loss(o, kind, phi, theta, D)
    told = epg.rewards_told(D)
    pi = life.policy(o)
    h = o.loss_units
    for i in range(3):
        if kind is CLOSED:
            log_pi = pi.log_prob(theta[i], D.obs[i], D.actions[i])
            x = np.concatenate([told[i], log_pi[..., None]], -1)
        else:
            mu = pi.mode(theta[i], D.obs[i])
            log_std = np.broadcast_to(theta[i, -2:], mu.shape)
            x = np.concatenate([D.obs[i], D.actions[i], told[i], mu, log_std], -1)
        w = phi[i, : kind.width * h].reshape(kind.width, h)
        b, v = phi[i, kind.width * h : -1].reshape(2, h)
        expected = (np.tanh(x @ w + b) @ v + phi[i, -1]).mean()
        assert losses[i] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", [CLOSED, OPEN])
def test_the_gradient_of_the_loss_by_theta_is_that_of_differences(kind):
    o = EPG
    theta, tasks = some_lives(o, 2)
    D = episodes_of(o, theta, tasks)
    phi = some_phi(o, kind, 2)
    ad.check_grads(lambda theta: epg.learned_loss(o, kind, phi, theta, D), theta, order=1)
    leaf = Tensor(theta)
    g = grad(ad.sum(epg.learned_loss(o, kind, phi, leaf, D)), leaf).data
    assert (g[:, -2:] != 0).all()  # deviations are taught too


class Turned:
    """Noise whose normal numbers have the other sign."""

    def __init__(self, rng):
        self.rng = rng

    def standard_normal(self, shape):
        return -self.rng.standard_normal(shape)


def turned_birth(o, theta):
    """pi'(s) = -pi(-s): the first weights and the last layer change their sign."""
    theta = theta.copy()
    h = o.hidden[0]
    theta[:, : 2 * h] *= -1
    theta[:, 3 * h : -2] *= -1
    return theta


@pytest.mark.parametrize("kind", [CLOSED, OPEN])
def test_turned_around_a_closed_loss_teaches_the_same_and_an_open_one_does_not(kind, monkeypatch):
    o = EPG
    theta, tasks = some_lives(o, 3)
    phi = some_phi(o, kind, 3)
    path = live(o, AHEAD, epg.taught(kind, o, phi, theta), tasks, ADDRESS)
    monkeypatch.setattr(life, "noise_at", lambda *address: Turned(noise_at(*address)))
    behind = epg.taught(kind, o, phi, turned_birth(o, theta))
    opposite = live(o, BEHIND, behind, -tasks, ADDRESS)[-1]
    apart = np.abs(turned_birth(o, opposite) - path[-1]).max()
    assert apart < 1e-12 if kind is CLOSED else apart > 1e-3


def test_told_wrong_is_another_lifes_rewards_and_nothing_else():
    o = EPG
    theta, tasks = some_lives(o, 3)
    D = episodes_of(o, theta, tasks)
    phi = np.tile(some_phi(o, CLOSED, 1), (3, 1))
    wrong = epg.told_wrong(partial(epg.taught, CLOSED), o, phi, theta)
    right = epg.taught(CLOSED, o, phi, theta)
    assert_array_equal(wrong.births, right.births)
    assert_array_equal(wrong.alphas, right.alphas)
    for i, loss in enumerate(wrong.loss(theta, D)):
        rewards = D.rewards.copy()
        rewards[i] = rewards[i - 1]
        assert loss == right.loss(theta, D._replace(rewards=rewards))[i]
        assert loss != right.loss(theta, D)[i]


def test_the_birth_is_that_of_maml():
    o = EPG
    birth = epg.maml(o, 6)
    c = Setting(
        algo="maml", env=AHEAD, policy=Policy(2, 2, hidden=(3,), std=0.5), alpha=o.maml_alpha,
        tasks=2, episodes=2, seed=6,
    )  # fmt: skip
    state = next(metarl.train(c, metarl.initial_state(c)))
    assert_array_equal(birth, state["theta"])


def test_the_rows_of_epg():
    """Each against what it says it is."""
    o = EPG
    rows, curves = epg.run(o, 6)
    longer = replace(o, steps=3)
    larger = replace(o, hidden=(4, 2))
    for name, kind in (("closed loss", CLOSED), ("open loss", OPEN)):
        phi = epg.learn_loss(o, kind, 6)
        parts_of = partial(epg.taught, kind)
        curve = partial(learning_curve, seed=6, parts_of=parts_of)
        assert_array_equal(curves[name][0], curve(longer, world=AHEAD, x=phi))
        assert_array_equal(curves[name][1], curve(longer, world=BEHIND, x=phi))
        untrained = epg.first_phi(o, kind, 6)
        at_the_end = [
            curve(o, world=AHEAD, x=untrained)[-1],
            curve(larger, world=AHEAD, x=phi)[-1],
            learning_curve(o, 6, AHEAD, partial(epg.told_wrong, parts_of), phi)[-1],
        ]
        for control, number in zip(
            ("untrained", "larger policy", "others' rewards"), at_the_end, strict=True
        ):
            assert rows[f"{name}, {control}"]["ahead"] == number
    for options, returns in (
        (o, rows["policy gradient"]["ahead"]),
        (larger, rows["policy gradient, larger policy"]["ahead"]),
    ):
        by_alpha = []
        for alpha in o.alphas:
            plain = partial(epg.plain, alpha)
            by_alpha.append(learning_curve(options, 6, AHEAD, plain, epg.NOTHING)[-1])
        alpha = life.best_alpha(options, 6, epg.plain, epg.NOTHING)
        assert returns == by_alpha[o.alphas.index(alpha)]
    for name, both in curves.items():
        for where, returns in zip(("ahead", "behind"), both, strict=True):
            assert len(returns) == 4
            columns = [rows[name][f"{where}, 1 step"], rows[name][where]]
            assert columns + [rows[name][f"{where}, longer"]] == list(returns[1:])
    assert len(rows) == 4 + 4 + 2 + 3
    many = as_arrays(rows)
    assert "open loss, larger policy" in epg.report(many)
    assert len(epg.claims(many)) == 8


def as_arrays(rows):
    """{row: {column: numbers (seeds,)}} of the rows of one seed."""
    many = {}
    for row, columns in rows.items():
        many[row] = {column: np.array([number]) for column, number in columns.items()}
    return many


# --- Components ---
def all_numbers(o):
    return components.first_numbers(o, 1)


def test_x_is_all_parts_one_after_the_other():
    full = all_numbers(components.Options())
    assert [len(part) for part in full.values()] == [8, 9, 113, 84]
    x = np.arange(2 * 214).reshape(2, 214)
    parts = components.split(full, x)
    assert list(parts) == list(components.PARTS)
    assert_array_equal(parts["step sizes"], x[:, :8])
    assert_array_equal(parts["exploration"], x[:, 8:17])
    assert_array_equal(parts["loss"], x[:, 17:130])
    assert_array_equal(parts["birth"], x[:, 130:])


def test_each_part_changes_what_it_names_and_nothing_else():
    o = COMPONENTS
    theta, tasks = some_lives(o, 3)
    plain = by_hand(o, theta, 0.1)
    D = episodes_of(o, theta, tasks)
    rng = noise_at(8)
    for name, learned in components.LEARNED.items():
        numbers = {part: all_numbers(o)[part] for part in learned}
        x = rng.standard_normal((3, sum(len(part) for part in numbers.values())))
        own = components.split(numbers, x)
        parts = components.parts_of(numbers, 0.1, o, x, theta)
        assert_array_equal(parts.births, own.get("birth", theta))
        step = o.alpha if "loss" in own else 0.1
        factors = np.exp(own.get("step sizes", np.zeros((3, 2))))
        assert_array_equal(parts.alphas * np.ones((3, 2)), step * factors)
        if "exploration" in own:
            assert_array_equal(parts.log_stds, own["exploration"])
        else:
            assert parts.log_stds is None
        loss = plain.loss(theta, D)
        if "loss" in own:
            loss = epg.learned_loss(o, CLOSED, own["loss"], theta, D)
        assert_array_equal(parts.loss(theta, D), loss)
        assert name in ("nothing", "all") or learned == (name,)


def test_step_sizes_and_birth_start_from_what_is_done_by_hand():
    o = COMPONENTS
    theta, tasks = some_lives(o, 3)
    first = all_numbers(o)
    numbers = {"step sizes": first["step sizes"], "birth": first["birth"]}
    x = np.concatenate([np.tile(first["step sizes"], (3, 1)), theta], 1)
    parts = components.parts_of(numbers, 0.1, o, x, np.zeros_like(theta))
    path = live(o, AHEAD, parts, tasks, ADDRESS)
    assert path[-1].tobytes() == adapted(o, theta, tasks, 0.1)[-1].tobytes()
    assert_allclose(first["exploration"], np.log(o.std))


def test_the_rows_of_components():
    rows, picture = components.run(COMPONENTS, 2)
    assert list(rows) == ["nothing", "step sizes", "exploration", "loss", "birth", "all"]
    nothing, *parts, everything = [row["numbers"] for row in rows.values()]
    assert nothing == 0 and sum(parts) == everything
    for name, (ahead, behind) in picture["curves"].items():
        assert (rows[name]["ahead"], rows[name]["behind"]) == (ahead[-1], behind[-1])
    assert_allclose(picture["schedules"]["exploration"], 0.5, rtol=0.3)
    first = {"birth": components.first_numbers(COMPONENTS, 2)["birth"]}
    alpha = life.best_alpha(COMPONENTS, 2, epg.plain, epg.NOTHING)
    lives = partial(components.parts_of, first, alpha)
    x = life.evolve(COMPONENTS, first["birth"], lives, 2)
    curve = partial(learning_curve, COMPONENTS, 2, parts_of=lives, x=x)
    assert rows["birth"]["ahead"] == curve(AHEAD)[-1]
    assert rows["birth"]["behind"] == curve(BEHIND)[-1]
    assert rows["birth"]["ahead, quiet"] == curve(AHEAD, quiet=True)[-1]
    many = as_arrays(rows)
    assert "all - nothing" in components.report(many)
    assert len(components.claims(many)) == 9
