"""The chapter on tuning in the loop: its update and its meta-gradient, and who lives what."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import envs
import metarl
from autodiff import Tensor
from chapters import in_the_loop
from harness.settings import Setting
from metarl import noise_at
from policies import rollout, surrogate

# alpha; gamma / (1 - gamma) for 0.8, 0.99 and 0.5
ETA = np.log([[0.3, 4.0], [0.8, 99.0], [1.5, 1.0]])
GOALS = np.array([[0.3, 0.4], [-0.2, 0.1], [0.5, -0.4]])


@pytest.fixture
def episodes():
    theta = np.stack([in_the_loop.NETWORK.init(noise_at(3, i)) for i in range(3)])
    D, D_prime = (
        rollout(in_the_loop.FAMILY, in_the_loop.NETWORK, theta, GOALS, 6, noise_at(4, i))
        for i in range(2)
    )
    return theta, D, D_prime


def plain(alpha, gamma):
    options = dict(
        env=in_the_loop.FAMILY, policy=in_the_loop.NETWORK, baseline="time", standardise=True
    )
    return Setting(alpha=alpha, gamma=gamma, **options)


def test_the_agents_update_is_that_of_metarl(episodes):
    theta, D, _ = episodes
    eta = in_the_loop.born(0.3, 0.8)
    assert_allclose(eta, ETA[0], rtol=1e-14)
    eta = np.tile(eta, (3, 1))
    path, _ = metarl.adapt(plain(0.3, 0.8), Tensor(theta), lambda k, x: D)
    assert_allclose(in_the_loop.update(theta, Tensor(eta), D).data, path[-1].data, rtol=1e-12)


def test_meta_gradient_against_differences(episodes):
    theta, D, D_prime = episodes
    leaf = Tensor(ETA)
    g = in_the_loop.meta_gradient(leaf, in_the_loop.update(theta, leaf, D), D_prime)
    judge = plain(1.0, in_the_loop.REFERENCE)
    fixed = D_prime._replace(log_pi=np.zeros(D_prime.mask.shape))

    def after(eta):
        return surrogate(judge, Tensor(in_the_loop.update(theta, Tensor(eta), D).data), fixed).data

    for i, e in enumerate(1e-5 * np.eye(2)):
        assert_allclose(g[:, i], (after(ETA + e) - after(ETA - e)) / 2e-5, rtol=1e-6)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(in_the_loop, "UPDATES", 6)
    monkeypatch.setattr(in_the_loop, "PERIOD", 2)
    monkeypatch.setattr(in_the_loop, "EPISODES", 4)
    return in_the_loop.goals(3, "train", 5)


def test_a_fixed_lifetime_step_by_step(short):
    returns, etas = in_the_loop.lifetime(ETA, (0, 0), short, (6,))
    assert_array_equal(etas, np.broadcast_to(ETA[:, None], (3, 6, 2)))
    noise = noise_at(6, 0)
    theta = np.stack([in_the_loop.NETWORK.init(noise) for _ in range(3)])
    for t in range(6):
        D = rollout(
            in_the_loop.FAMILY, in_the_loop.NETWORK, theta, short[:, t // 2], 4, noise_at(6, 1, t)
        )
        assert_array_equal(returns[:, t], D.returns)
        theta = in_the_loop.update(theta, Tensor(ETA), D).data


def test_adam_moves_what_is_tuned_and_nothing_else(short):
    _, etas = in_the_loop.lifetime(ETA, (0.1, 0), short, (6,))
    assert_array_equal(etas[:, :, 1], np.broadcast_to(ETA[:, 1:], (3, 6)))
    assert_array_equal(etas[:, 0], ETA)  # the first update has no later episodes to be judged by
    assert_allclose(abs(etas[:, 1, 0] - ETA[:, 0]), 0.1, rtol=1e-5)


def test_the_first_step_goes_down_the_meta_gradient(short):
    noise = noise_at(6, 0)
    theta = np.stack([in_the_loop.NETWORK.init(noise) for _ in range(3)])
    D = rollout(in_the_loop.FAMILY, in_the_loop.NETWORK, theta, short[:, 0], 4, noise_at(6, 1, 0))
    leaf = Tensor(ETA)
    theta = in_the_loop.update(theta, leaf, D)
    D_prime = rollout(
        in_the_loop.FAMILY, in_the_loop.NETWORK, theta.data, short[:, 0], 4, noise_at(6, 1, 1)
    )
    g = in_the_loop.meta_gradient(leaf, theta, D_prime)
    _, etas = in_the_loop.lifetime(ETA, (0.1, 0.2), short, (6,))
    assert_array_equal(np.sign(etas[:, 1] - ETA), -np.sign(g))


def test_a_plan_replays_a_lifetime(short):
    returns, etas = in_the_loop.lifetime(ETA[:1], (0.1, 0.1), short[:1], (6,))
    again, _ = in_the_loop.lifetime(ETA[:1], (0, 0), short[:1], (6,), plan=etas[0])
    assert_array_equal(again, returns)


def colours(goals):
    """Of the checkerboard that keeps the splits apart:
    {0} or {1}, if all goals are of one split.
    """
    return set(np.floor((goals.reshape(-1, 2) + 0.5) * envs.CELLS).astype(int).sum(1) % 2)


def test_the_outer_loop_climbs(monkeypatch):
    """With the score -|eta - target|^2 on every lifetime; on training goals, nothing tuned."""
    target = np.array([-1.0, 3.0])

    def lifetime(eta, beta, lives, address):
        assert len(eta) == len(lives)
        assert not any(beta)
        assert colours(lives) == colours(in_the_loop.goals(9, "train", 1))
        return -((eta - target) ** 2).sum(1, keepdims=True) * np.ones(3), None

    monkeypatch.setattr(in_the_loop, "lifetime", lifetime)
    o = in_the_loop.Options(generations=40)
    assert_allclose(in_the_loop.outer_loop(o, 0), target, atol=0.01)


def test_every_birth_lives_the_same_held_out_lifetimes(monkeypatch):
    """Scores are eta's first number plus 1, and plus 10 where a plan is followed."""
    seen = []

    def lifetime(eta, beta, lives, address, plan=None):
        seen.append((eta, beta, lives, address, plan))
        followed = 0 if plan is None else 10
        returns = eta[:, :1] + followed + np.arange(3.0)
        spread = np.arange(len(eta))[:, None, None]
        return returns, np.repeat(eta[:, None], in_the_loop.UPDATES, 1) + spread

    monkeypatch.setattr(in_the_loop, "lifetime", lifetime)
    monkeypatch.setattr(in_the_loop, "outer_loop", lambda o, seed: ETA[2])
    o = in_the_loop.Options(lifetimes=4, grid=(0.1, 1.0))
    rows, plans = in_the_loop.run(o, 0)
    assert list(rows["fixed"]) == ["0.1", "1", "chosen"]
    for tuned in in_the_loop.TUNED:
        assert_allclose(rows[tuned]["1"], 1)
        assert_allclose(rows[tuned]["chosen"], ETA[2, 0] + 1)
    assert_allclose(rows["replayed"]["1"], 11)
    assert_allclose(rows["the choice"]["alpha"], 1.5)
    assert_allclose(rows["the choice"]["gamma"], 0.5)
    assert_allclose(rows["alpha, tuned"]["goal 6"], 1.5 * np.exp(1.5))
    for eta, beta, lives, address, plan in seen:
        assert eta.shape == (4, 2)
        assert_array_equal(lives, seen[0][2])
        assert address == seen[0][3]
        assert plan is None or not any(beta)
    assert colours(seen[0][2]) == colours(in_the_loop.goals(9, "test", 1))
    assert_array_equal([plan for *_, plan in seen if plan is not None], list(plans.values()))
    by_beta = {tuned: sum(beta == b for _, beta, *_ in seen) for tuned, b in BETAS.items()}
    assert by_beta == dict.fromkeys(in_the_loop.TUNED, 3) | {"fixed": 6}


BETAS = in_the_loop.TUNED


def test_the_splits_have_goals_of_their_own():
    train, test = (in_the_loop.goals(40, split, 1) for split in ("train", "test"))
    assert len(colours(train)) == len(colours(test)) == 1
    assert colours(train) != colours(test)
    assert train.shape == (40, in_the_loop.UPDATES // in_the_loop.PERIOD, 2)


def test_what_the_loops_are_said_to_differ_by():
    """The best and the worst of the grid are those of the mean over seeds."""
    fixed = {"0.1": np.array([-4.0, -4]), "1": np.array([-1.0, -5]), "chosen": np.array([-2.0, -2])}
    online = {"0.1": np.array([-3.0, -2]), "1": np.array([-1.0, -1]), "chosen": np.array([-1.0, 0])}
    replayed = {"chosen": np.array([-1.5, -1.5])}
    rows = {"fixed": fixed, in_the_loop.REPLAYED: online, "replayed": replayed}
    measured = [c.measured for c in in_the_loop.claims(rows)]
    assert measured == [1, 1, 1, 0.5]
