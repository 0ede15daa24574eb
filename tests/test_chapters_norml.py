"""The two chapters without rewards in the evaluation, norml.py and adaptive_model.py: that none is
used, and each part against its slow form. Whole runs are in .ci/run, as --quick --json.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import erf

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import adaptive_model as am
from chapters import common
from chapters import norml as nr
from chapters.norml import episodes_after, episodes_before
from envs import TurnedPointMass, turned
from metarl import INIT, INNER, MEASURE, TASKS, TEST, TRAIN, noise_at
from policies import Policy, rollout, surrogate

NORML = nr.Options(
    hidden=(4,),
    iterations=2,
    tasks=3,
    episodes=3,
    test_tasks=4,
    adapt_episodes=3,
    test_episodes=2,
    alphas=(0.1, 1.0, 10.0),
)
MODEL = am.Options(
    hidden=(5,), iterations=2, tasks=3, test_tasks=4, new_episodes=2, alphas=(0.1, 0.5), grid=5
)


# --- norml.py: the inner step ---
def a_setting(**options):
    return replace(nr.setting(NORML, 1), dtype="float64", **options)


def some_x(c, scale=0.4):
    return scale * noise_at(5).standard_normal(nr.first_x(c).size)


def some_episodes(c, x, n=3, K=3, k=0):
    theta, _, _ = nr.parts(c, x)
    angles = c.family.sample_tasks(n, noise_at(6))
    return rollout(c.family, c.pi, theta, angles, K, noise_at(7, k))


def rows_of(x, n=3):
    return Tensor(np.tile(x, (n, 1)))


def test_x_is_the_policy_no_offset_and_the_advantage():
    c = a_setting()
    x = nr.first_x(c)
    theta, offset, psi = nr.parts(c, x)
    assert_array_equal(theta, c.pi.init(noise_at(1, INIT)))
    assert_array_equal(offset, np.zeros(c.pi.size))
    assert psi.size == nr.advantage_network(c).size == 6 * 4 + 4 + 4 + 1
    assert nr.first_x(nr.setting(NORML, 1)).dtype == np.float32


def test_the_inner_loss_is_a_loop():
    """Over all steps that have a next state: log pi times A of where the action has led."""
    c = a_setting()
    x = some_x(c)
    theta, _, psi = nr.parts(c, x)
    D = some_episodes(c, x)
    losses = nr.inner_loss(c, np.tile(theta, (3, 1)), np.tile(psi, (3, 1)), D)
    for i in range(3):
        terms = []
        for k in range(3):
            for t in range(19):
                s = D.obs[i, k, t]
                a = D.actions[i, k, t]
                told = np.concatenate([s, a, 10 * (D.obs[i, k, t + 1] - s)])
                A = nr.advantage_network(c).apply(psi, told[None])[0, 0]
                terms.append(-A * c.pi.log_prob(theta, s[None], a[None])[0])
        assert losses[i] == pytest.approx(np.mean(terms), rel=1e-12)


def test_the_step_is_down_the_inner_loss_from_theta_plus_offset():
    c = a_setting(alpha=0.7)
    x = some_x(c)
    theta, offset, psi = nr.parts(c, x)
    D = some_episodes(c, x)
    theta_prime = nr.stepped(c, x, D)
    tile = np.ones((3, 1))
    for p in range(0, theta.size, 3):
        h = 1e-6 * np.eye(theta.size)[p]
        ahead = nr.inner_loss(c, tile * (theta + h), tile * psi, D)
        behind = nr.inner_loss(c, tile * (theta - h), tile * psi, D)
        g = (ahead - behind) / 2e-6
        assert_allclose(theta_prime[:, p], theta[p] + offset[p] - 0.7 * g, atol=1e-8)


@pytest.mark.parametrize("block", ["theta", "offset", "psi"])
def test_gradients_through_the_inner_step_are_those_of_differences(block):
    """On frozen episodes; log_pi makes the value of the surrogate move with theta'."""
    c = a_setting()
    x = some_x(c)
    D = some_episodes(c, x)
    D_prime = some_episodes(c, x, k=1)
    D_prime = D_prime._replace(log_pi=np.zeros(D.rewards.shape))
    blocks = dict(zip(("theta", "offset", "psi"), nr.parts(c, x), strict=True))

    def loss(part):
        all_parts = list((blocks | {block: part}).values())
        both = ad.broadcast_to(ad.concatenate(all_parts), (3, x.size))
        return 10 * nr.meta_loss(c, both, lambda k, theta: D_prime if k else D)

    ad.check_grads(loss, blocks[block], order=1)
    leaf = Tensor(blocks[block])
    assert np.abs(grad(ad.sum(loss(leaf)), leaf).data).max() > 1e-3


def test_the_expected_step_in_closed_form():
    """A policy of biases alone, A = w . 10 (s' - s) = w . R(angle) clip(a): by Stein's lemma the
    expectation of a / sigma^2 A is R(-angle) w, times the probability that an action is not cut.
    """
    pi = Policy(2, 2, hidden=(), std=0.5)
    c = a_setting(policy=pi, alpha=0.5)
    w = np.array([0.3, -0.8])
    psi = np.concatenate([np.zeros(4), w, [0.0]])
    theta = pi.init(noise_at(0))
    theta[:4] = 0
    x = np.concatenate([theta, np.zeros(pi.size), psi])
    angles = np.array([[0.7], [-2.0]])
    D = rollout(c.family, pi, theta, angles, 3000, noise_at(1))
    step = nr.stepped(c, x, D) - theta
    uncut = erf(1 / (0.5 * np.sqrt(2)))
    assert_allclose(step[:, 4:6], 0.5 * uncut * turned(np.tile(w, (2, 1)), -angles), atol=0.01)


# --- norml.py: no rewards ---
def test_rewards_of_the_first_episodes_are_nan_and_no_reward_changes_the_step(monkeypatch):
    c = a_setting()
    x = some_x(c)
    D = some_episodes(c, x)
    seen = []
    adapted = nr.adapted

    def spy(c, x, D, **options):
        seen.append(D)
        return adapted(c, x, D, **options)

    monkeypatch.setattr(nr, "adapted", spy)
    paid = D._replace(rewards=1e9 * noise_at(0).standard_normal(D.rewards.shape))
    losses = []
    steps = []
    for E in (D, paid):
        losses.append(nr.meta_loss(c, rows_of(x), lambda k, theta, E=E: D if k else E))
        steps.append(nr.stepped(c, x, E))
    assert len(seen) == 4 and all(np.isnan(E.rewards).all() for E in seen)
    assert losses[0].data.tobytes() == losses[1].data.tobytes()
    assert steps[0].tobytes() == steps[1].tobytes()


def test_the_outer_loss_is_that_of_the_rewards_after_the_step():
    c = a_setting()
    x = some_x(c)
    asked = []

    def sample(k, theta):
        asked.append((k, theta))
        return some_episodes(c, x, k=k)

    loss = nr.meta_loss(c, rows_of(x), sample)
    theta, _, _ = nr.parts(c, x)
    theta_prime = nr.stepped(c, x, some_episodes(c, x))
    assert [k for k, _ in asked] == [0, 1]
    assert_array_equal(asked[0][1], np.tile(theta, (3, 1)))
    assert_allclose(asked[1][1], theta_prime, rtol=1e-12)
    D_prime = some_episodes(c, x, k=1)
    assert_allclose(loss.data, surrogate(c, Tensor(theta_prime), D_prime).data, atol=1e-12)
    more = D_prime._replace(rewards=D_prime.rewards * noise_at(3).random(D_prime.rewards.shape))
    x_ = rows_of(x)
    gradients = []
    for E in (D_prime, more):
        given = nr.meta_loss(c, x_, lambda k, theta, E=E: E if k else some_episodes(c, x))
        gradients.append(grad(ad.sum(given), x_).data)
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-4


# --- norml.py: the outer loop ---
def iteration_by_hand(c, x, m, v, t, keep):
    """l.3 to 7: tasks, the mean of their gradients, its length cut, and a step of Adam's."""
    address = (c.seed, TRAIN, t)
    tasks = c.family.sample_tasks(c.tasks, noise_at(*address, TASKS))
    leaf = rows_of(x)
    sample = metarl.sampler(c, tasks, (*address, INNER, 0))
    g = grad(ad.sum(nr.meta_loss(c, leaf, sample)), leaf).data.mean(0) * keep
    g = g * min(1, c.max_norm / np.sqrt((g * g).sum()))
    direction, m, v = metarl.adam(g, m, v, t + 1)
    return x - c.beta * (1 - t / c.iterations) * direction, m, v


@pytest.mark.parametrize("with_offset", [True, False])
def test_training_is_adam_on_the_mean_gradient_in_shorter_and_shorter_steps(with_offset):
    c = a_setting(iterations=3, max_norm=3.0)  # the first gradient is longer, the others are not
    first = nr.first_x(c)
    P = c.pi.size
    keep = np.ones(first.size)
    if not with_offset:
        keep[P : 2 * P] = 0
    x, m, v = first, 0, 0
    for t in range(3):
        x, m, v = iteration_by_hand(c, x, m, v, t, keep)

    def iteration(*args):
        return nr.norml(*args, with_offset=with_offset)

    trained = nr.meta_train(c, iteration, first)
    assert_allclose(trained, x, atol=1e-10)
    assert (trained[P : 2 * P] != 0).any() == with_offset
    assert (trained[:P] != first[:P]).any() and (trained[2 * P :] != first[2 * P :]).any()


def test_maml_is_trained_by_the_same_schedule():
    c = a_setting(iterations=2)
    state = metarl.initial_state(c)
    for t in range(2):
        shorter = replace(c, beta=[0.002, 0.001][t])
        state = metarl.maml(shorter, state | {"t": t}, (1, TRAIN, t), metarl.in_chunks)
    trained = nr.meta_train(c, metarl.maml, nr.first_theta(c))
    assert_array_equal(trained, state["theta"])


# --- norml.py: the test ---
def test_the_test_is_on_angles_never_trained_on_and_on_fresh_episodes():
    c = a_setting()
    angles = nr.held_out(c)
    assert_array_equal(angles, c.family.sample_tasks(4, noise_at(1, TEST, TASKS), "test"))
    theta = nr.first_theta(c)
    D = episodes_before(c, theta, 3)
    assert D.obs.shape == (4, 3, 20, 2)
    expected = rollout(c.family, c.pi, theta, angles, 3, noise_at(1, TEST, INNER))
    assert_array_equal(D.actions, expected.actions)
    fresh = episodes_after(c, theta)
    expected = rollout(c.family, c.pi, theta, angles, 2, noise_at(1, TEST, MEASURE))
    assert_array_equal(fresh.rewards, expected.rewards)
    assert not np.isin(fresh.actions, D.actions).any()


def test_the_episodes_of_another_are_all_of_another():
    c = a_setting()
    D = some_episodes(c, some_x(c))
    other = nr.of_another(D)
    for i in range(3):
        assert_array_equal(other.obs[i], D.obs[i - 1])
        assert_array_equal(other.actions[i], D.actions[i - 1])


def test_a_rewarded_step_is_policy_gradient_and_joint_has_the_best():
    c = a_setting(alpha=0.3)
    theta = nr.first_theta(c)
    D = episodes_before(c, theta, 3)
    leaf = Tensor(np.tile(theta, (4, 1)))
    g = grad(ad.sum(surrogate(c, leaf, D)), leaf).data
    assert_allclose(nr.rewarded(c, theta, D), theta - 0.3 * g, rtol=1e-12)
    returns = []
    for alpha in NORML.alphas:
        returns.append(episodes_after(c, theta - alpha * g).returns.mean())
    best = episodes_after(c, nr.best_step(NORML, c, theta, D)).returns.mean()
    assert best == pytest.approx(max(returns))
    assert len(set(np.round(returns, 9))) == 3


def test_rows_of_norml_are_what_they_are_called():
    rows, picture = nr.run(NORML, 2)
    c = nr.setting(NORML, 2)
    x = nr.meta_train(c, nr.norml, nr.first_x(c))
    theta, offset, _ = nr.parts(c, x)
    D = episodes_before(c, theta, 3)
    bare = nr.meta_train(c, lambda *args: nr.norml(*args, with_offset=False), nr.first_x(c))
    of_maml = replace(NORML, std=0.25, alpha=0.2, beta=0.003, max_norm=10.0)
    m = nr.setting(of_maml, 2)
    maml = nr.meta_train(m, metarl.maml, nr.first_theta(m))
    j = nr.setting(replace(of_maml, tasks=6), 2, algo="joint")
    joint = nr.meta_train(j, metarl.maml, nr.first_theta(j))
    one = replace(m, baseline="none")
    expected = {
        "NoRML": (theta, nr.stepped(c, x, D)),
        "one episode": (theta, nr.stepped(c, x, episodes_before(c, theta, 1))),
        "another's episodes": (theta, nr.stepped(c, x, nr.of_another(D))),
        "offset alone": (theta, theta + offset),
        "without offset": (
            bare[: theta.size],
            nr.stepped(c, bare, episodes_before(c, bare[: theta.size], 3)),
        ),
        "MAML": (maml, nr.rewarded(m, maml, episodes_before(m, maml, 3))),
        "MAML, one episode": (maml, nr.rewarded(one, maml, episodes_before(m, maml, 1))),
        "joint": (joint, nr.best_step(NORML, j, joint, episodes_before(j, joint, 3))),
    }
    assert list(rows) == [*expected, "the angle known"]
    for name, (first, last) in expected.items():
        returns = episodes_after(c, last).returns
        assert rows[name] == {
            "before": episodes_after(c, first).returns.mean(),
            "after": returns.mean(),
            "worst task": returns.min(),
        }
    assert len({row["after"] for row in rows.values()}) == len(rows)
    assert j.inner_steps == 0 and m.inner_steps == 1
    assert_array_equal(picture["angles"], nr.held_out(c)[:, 0])


# --- adaptive_model.py: experience, and no rewards ---
def test_experience_is_of_the_world():
    angles = np.array([[0.5], [-1.5], [3.0]])
    e = am.wander(angles, 2, noise_at(0))
    by_episode = [column.reshape(3, 2, 20, 2) for column in e]
    s, a, y = by_episode
    for i in range(3):
        assert_allclose(y[i], turned(a[i].clip(-1, 1), angles[i]), atol=1e-12)
    assert_array_equal(s[:, :, 0], 0)
    assert_allclose(s[:, :, 1:], s[:, :, :-1] + 0.1 * y[:, :, :-1], atol=1e-12)
    assert 0.8 < a.std() < 1.2 and (np.abs(a) > 1).any()
    other = am.past_of_another(e)
    for i in range(3):
        for mine, theirs in zip(other, e, strict=True):
            assert_array_equal(mine[i], theirs[i - 1])


def test_no_reward_is_asked_for_but_to_judge(monkeypatch):
    def judge(self, state, tasks):
        raise AssertionError("asked for a reward")

    monkeypatch.setattr(TurnedPointMass, "judge", judge)
    monkeypatch.setattr(TurnedPointMass, "step", judge)
    monkeypatch.setattr(TurnedPointMass, "reward_at", judge)
    theta = am.meta_train(MODEL, 0)
    angles = am.held_out(MODEL, 0)
    past = am.wander(angles, 1, noise_at(0))
    adapted = am.adapt(MODEL, Tensor(np.tile(theta, (4, 1))), past, 0.1)[-1].data
    path = am.live(MODEL, adapted, angles)
    with pytest.raises(AssertionError, match="asked"):
        am.returns(angles, path)


# --- adaptive_model.py: the step ---
def some_model(n=3):
    theta = 0.5 * noise_at(1).standard_normal(am.network(MODEL).size)
    angles = am.WORLD.sample_tasks(n, noise_at(2))
    return theta, am.wander(angles, 1, noise_at(3)), am.wander(angles, 1, noise_at(4))


def test_the_error_is_a_mean_over_moves_and_axes():
    theta, past, _ = some_model()
    errors = am.error(MODEL, np.tile(theta, (3, 1)), past)
    for i in range(3):
        squares = []
        for s, a, y in zip(past.s[i], past.a[i], past.y[i], strict=True):
            predicted = am.network(MODEL).apply(theta, np.append(s, a)[None])[0]
            squares += list((predicted - y) ** 2)
        assert errors[i] == pytest.approx(np.mean(squares), rel=1e-12)


def test_steps_are_down_the_error_each_from_the_last():
    theta, past, _ = some_model()
    path = am.adapt(MODEL, Tensor(np.tile(theta, (3, 1))), past, 0.3, steps=2)
    assert len(path) == 3
    for old, new in ((path[0].data, path[1].data), (path[1].data, path[2].data)):
        for p in range(theta.size):
            h = 1e-6 * np.eye(theta.size)[p]
            ahead = am.error(MODEL, old + h, past)
            g = (ahead - am.error(MODEL, old - h, past)) / 2e-6
            assert_allclose(new[:, p], old[:, p] - 0.3 * g, atol=1e-8)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_the_meta_gradient_through_the_steps_is_that_of_differences(steps):
    o = replace(MODEL, alpha=0.4)
    theta, past, future = some_model()
    ad.check_grads(lambda w: am.meta_loss(o, w, past, future, steps), theta, order=1)
    loss = am.meta_loss(o, Tensor(theta), past, future, steps)
    path = am.adapt(o, Tensor(np.tile(theta, (3, 1))), past, 0.4, steps)
    assert loss.data == pytest.approx(am.error(o, path[-1].data, future).mean(), rel=1e-12)


@pytest.mark.parametrize("steps", [0, 1])
def test_the_model_is_trained_by_adam_on_new_tasks_in_shorter_and_shorter_steps(steps):
    theta = am.first_theta(MODEL, 7)
    m = v = 0
    for t in range(2):
        rng = noise_at(7, am.OWN, 1, t)
        angles = am.WORLD.sample_tasks(3, rng)
        past = am.wander(angles, 1, rng)
        future = am.wander(angles, 1, rng)
        leaf = Tensor(theta)
        g = grad(am.meta_loss(MODEL, leaf, past, future, steps), leaf).data
        direction, m, v = metarl.adam(g, m, v, t + 1)
        theta = theta - [0.003, 0.0015][t] * direction
    assert_allclose(am.meta_train(MODEL, 7, steps), theta, atol=1e-10)


def test_what_one_step_leaves_of_a_linear_model():
    """As the header has it: the best multiple of the mean of a a^T over 20 actions, for no turn,
    mistakes moves by .04.
    """
    a = noise_at(0).standard_normal((4000, 20, 2)).clip(-1, 1)
    variance = (a * a).mean()
    estimate = np.einsum("nti,ntj->nij", a, a) / 20
    errors = []
    for multiple in np.linspace(0.5, 1.1, 61) / variance:
        errors.append(variance * ((multiple * estimate - np.eye(2)) ** 2).sum((1, 2)).mean() / 2)
    assert min(errors) == pytest.approx(0.04, abs=0.003)


# --- adaptive_model.py: the evaluation ---
def a_model_that_knows(angles):
    """Parameters (T, P) of the linear model y = R(angle) a."""
    theta = np.zeros((len(angles), am.network(replace(MODEL, hidden=())).size))
    for row, angle in zip(theta, angles[:, 0], strict=True):
        w = np.zeros((4, 2))
        w[2] = [np.cos(angle), np.sin(angle)]
        w[3] = [-np.sin(angle), np.cos(angle)]
        row[:8] = w.ravel()
    return theta


def test_greedy_takes_the_action_that_the_model_says_is_best():
    o = replace(MODEL, hidden=())
    angles = np.array([[0.4], [2.0], [-1.0]])
    theta = a_model_that_knows(angles)
    s = [0.5, 0] + 0.1 * noise_at(0).standard_normal((3, 2))  # within a step of the goal
    goals = am.WORLD.goals(angles)
    for i, action in enumerate(am.greedy(o, theta, s, goals)):
        best = None
        for a in np.stack(np.meshgrid(*[[-1, -0.5, 0, 0.5, 1]] * 2), -1).reshape(-1, 2):
            after = s[i] + 0.1 * turned(a, angles[i])
            d = np.hypot(*(after - [0.5, 0]))
            if best is None or d < best[0]:
                best = (d, a)
        assert_array_equal(action, best[1])


def test_a_model_that_knows_the_turn_goes_to_the_goal():
    o = replace(MODEL, hidden=(), grid=11)
    angles = am.held_out(o, 0)
    path = am.live(o, a_model_that_knows(angles), angles)
    assert path.shape == (4, 21, 2)
    assert_array_equal(path[:, 0], 0)
    returns = am.returns(angles, path)
    assert_allclose(returns, -np.hypot(path[:, 1:, 0] - 0.5, path[:, 1:, 1]).sum(1), rtol=1e-12)
    assert (returns > am.WORLD.optimal_return(angles) - 0.4).all()
    wrong = am.returns(angles, am.live(o, a_model_that_knows(angles + np.pi), angles))
    assert (wrong < -20).all()


def test_the_best_of_each_column_is_in_their_favour():
    one = {"error, k = 1": 2.0, "return, k = 1": -5.0}
    other = {"error, k = 1": 3.0, "return, k = 1": -4.0}
    best = am.best_of([one, other])
    assert best == {"error, k = 1": 2.0, "return, k = 1": -4.0}


def test_rows_of_the_model_are_what_they_are_called():
    o = replace(MODEL, steps=(0, 1, 2))
    rows, picture = am.run(o, 2)
    angles = am.WORLD.sample_tasks(4, noise_at(2, am.OWN, 2), "test")
    past = am.wander(angles, 1, noise_at(2, am.OWN, 3))
    new = am.wander(angles, 2, noise_at(2, am.OWN, 4))

    def measured(theta, alpha, past):
        path = am.adapt(o, Tensor(np.tile(theta, (4, 1))), past, alpha, 2)
        row = {}
        for k in range(3):
            theta = path[k].data
            row[f"error, k = {k}"] = am.error(o, theta, new).mean()
            row[f"return, k = {k}"] = am.returns(angles, am.live(o, theta, angles)).mean()
        return row

    theta = am.meta_train(o, 2)
    expected = {
        "MAML": measured(theta, 0.1, past),
        "another's past": measured(theta, 0.1, am.past_of_another(past)),
    }
    for name, other in (("joint", am.meta_train(o, 2, 0)), ("untrained", am.first_theta(o, 2))):
        expected[name] = am.best_of([measured(other, alpha, past) for alpha in o.alphas])
    known = {"return": am.WORLD.optimal_return(angles).mean()}
    assert rows == expected | {"the angle known": known}
    assert len({row.get("error, k = 1") for row in rows.values()}) == 5
    start, adapted = picture["paths"]
    assert_array_equal(start, am.live(o, np.tile(theta, (4, 1)), angles))
    assert (start != adapted).any()


# --- Both ---
@pytest.mark.parametrize("chapter, o", [(nr, NORML), (am, MODEL)])
def test_a_chapter_in_small(chapter, o, capsys, tmp_path):
    argv = ["--quick", "--seeds", "1"]
    try:
        import matplotlib  # noqa: F401

        argv += ["--plot", str(tmp_path)]
    except ImportError:
        pass
    tiny = chapter.CHAPTER._replace(quick=o)
    assert common.main(tiny, [*argv, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    for claim in content["claims"]:
        assert set(claim) == {"claim", "must", "measured", "holds"}
    rows = {}
    for name, row in content["rows"].items():
        rows[name] = {column: np.array(numbers) for column, numbers in row.items()}
        assert all(len(numbers) == 1 for numbers in row.values())
    assert "MAML" in tiny.report(rows)
    if "--plot" in argv:
        assert chapter.__name__ == f"chapters.{tiny.name}"
        assert (tmp_path / f"{tiny.name}.svg").read_text().startswith("<?xml")
