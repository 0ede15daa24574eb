"""The chapter on bandits: agents that count against plain recursions and formulas, and the agent
that steps along the policy gradient against all its lifetimes, enumerated.
"""

import itertools

import numpy as np
import pytest

import metarl
from autodiff import Tensor, value
from chapters import bandits, counting
from policies import Trajectories


# --- Bandits: agents that count ---
def bayes_value(counts, left):
    """The optimum in the plain form: no state is identified with another."""
    if left == 0:
        return 0.0
    values = []
    for i, (wins, losses) in enumerate(counts):
        p = (wins + 1) / (wins + losses + 2)
        won, lost = (
            [*counts[:i], c, *counts[i + 1 :]] for c in ((wins + 1, losses), (wins, losses + 1))
        )
        values.append(p * (1 + bayes_value(won, left - 1)) + (1 - p) * bayes_value(lost, left - 1))
    return max(values)


@pytest.mark.parametrize(("arms", "pulls"), [(1, 4), (2, 1), (2, 5), (3, 4), (5, 3)])
def test_optimum_agrees_with_the_plain_recursion(arms, pulls):
    assert counting.optimum(arms, pulls) == pytest.approx(
        bayes_value([(0, 0)] * arms, pulls), abs=1e-12
    )


def test_optimum_of_two_pulls_by_hand():
    """After a success (probability 1/2) the arm is worth 2/3, after a failure another one 1/2."""
    assert counting.optimum(2, 2) == pytest.approx(0.5 + 0.5 * 2 / 3 + 0.5 * 1 / 2)


def test_optimum_of_the_published_tables():
    assert [round(counting.optimum(k, 10), 3) for k in (5, 10, 50)] == [6.660, 6.714, 6.714]


def plan(price, left, wins=0, losses=0):
    """The worth of the best plan for one arm whose pulls cost `price`, with the right to stop."""
    if left == 0:
        return 0.0
    p = (wins + 1) / (wins + losses + 2)
    after = p * plan(price, left - 1, wins + 1, losses) + (1 - p) * plan(
        price, left - 1, wins, losses + 1
    )
    return max(0.0, p - price + after)


@pytest.mark.parametrize(
    ("left", "wins", "losses"), [(1, 0, 0), (2, 0, 0), (5, 1, 2), (7, 0, 0), (3, 4, 1)]
)
def test_gittins_index_is_the_price_at_which_the_arm_is_worth_nothing(left, wins, losses):
    index = counting.gittins(8)[left, wins, losses]
    assert plan(index + 1e-4, left, wins, losses) == 0
    assert plan(index - 1e-4, left, wins, losses) > 0


def test_gittins_index_by_hand():
    """With one pull left the mean; with two, 1/2 - c + (2/3 - c) / 2 = 0 at c = 5/9."""
    index = counting.gittins(8)
    assert index[1, 3, 1] == pytest.approx(4 / 6, abs=1e-9)
    assert index[2, 0, 0] == pytest.approx(5 / 9, abs=1e-4)


def test_gittins_indices_order_arms_as_they_should():
    index, n = counting.gittins(20), 6
    seen = index[2:14, :n, :n]
    assert (np.diff(seen, axis=0) > -1e-9).all(), "more pulls to come, more to explore for"
    assert (np.diff(seen, axis=1) > 0).all(), "more successes"
    assert (np.diff(seen, axis=2) < 0).all(), "more failures"


def test_gittins_earns_the_optimum_of_ten_pulls():
    tasks = np.random.default_rng(0).random((40_000, 5))
    rewards = counting.play(counting.AGENTS["Gittins"], tasks, 10, np.random.default_rng(1))
    returns = rewards.sum(1)
    assert abs(returns.mean() - counting.optimum(5, 10)) < 3 * returns.std() / 200


def test_counting_agents_choose_by_their_formulas():
    wins, losses, rng = np.array([[3, 1, 0]]), np.array([[1, 0, 0]]), np.random.default_rng(0)
    score = {name: f(wins, losses, 5, 10, rng)[0] for name, f in counting.AGENTS.items()}
    np.testing.assert_allclose(score["greedy"], [4 / 6, 2 / 3, 1 / 2])
    ucb = [3 / 4 + np.sqrt(2 * np.log(5) / 4), 1 + np.sqrt(2 * np.log(5)), np.inf]
    np.testing.assert_allclose(score["UCB1"], ucb)
    np.testing.assert_allclose(score["Gittins"], counting.gittins(10)[5, [3, 1, 0], [1, 0, 0]])
    draws = counting.AGENTS["Thompson"](
        np.tile(wins, (20_000, 1)), np.tile(losses, (20_000, 1)), 5, 10, rng
    )
    np.testing.assert_allclose(draws.mean(0), [4 / 6, 2 / 3, 1 / 2], atol=0.01)
    np.testing.assert_allclose(draws.var(0), [8 / 252, 2 / 36, 1 / 12], atol=0.003)


def test_play_counts_what_it_pulled():
    """A certain arm and a hopeless one, an agent that looks at both and then at its counts."""
    seen = []

    def agent(wins, losses, t, pulls, rng):
        seen.append((wins.copy(), losses.copy(), t))
        return np.tile(np.eye(2)[t % 2], (len(wins), 1))

    rewards = counting.play(agent, np.array([[1.0, 0.0], [0.0, 1.0]]), 3, np.random.default_rng(0))
    np.testing.assert_array_equal(rewards, [[1, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(seen[2][0], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(seen[2][1], [[0, 1], [1, 0]])
    assert [t for _, _, t in seen] == [0, 1, 2]


# --- Bandits: the agent that steps along the policy gradient ---
K, PULLS, MEANS = 2, 3, np.array([0.8, 0.3])
X = np.array([0.1, -0.2, 0.3, 0.0, 0.2, 0.4, 0.1, -0.2, 0.3])


def rule(theta, v, x, t, pulls, action, success):
    """theta and v after a pull, with grad log pi by hand: the logits are weights plus biases."""
    k, (win, lose, win_u, lose_u, mu) = len(theta) // 2, x[-5:]
    pi = np.exp(theta[:k] + theta[k:])
    score = np.tile(np.eye(k)[action] - pi / pi.sum(), 2)
    u = np.log(1 + t) / np.log(pulls)
    v = mu * v + (np.exp(win + win_u * u) if success else -np.exp(lose + lose_u * u)) * score
    return theta + v, v


def probability(x, history):
    """Of the (action, success) of each pull, in the bandit MEANS."""
    theta, v, p = x[: 2 * K], np.zeros(2 * K), 1.0
    for t, (action, success) in enumerate(history):
        pi = np.exp(theta[:K] + theta[K:])
        p *= pi[action] / pi.sum() * (MEANS[action] if success else 1 - MEANS[action])
        theta, v = rule(theta, v, x, t, PULLS, action, success)
    return p


def expected_return(x):
    """J^II of a whole lifetime: the sum over all histories."""
    histories = itertools.product(itertools.product(range(K), (0, 1)), repeat=PULLS)
    return sum(
        probability(x, history) * sum(success for _, success in history) for history in histories
    )


@pytest.mark.parametrize("kind", [Tensor, np.asarray])
def test_lifetime_follows_the_rule_pull_by_pull(kind):
    c, rng = bandits.setting(3), np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((4, 6)), np.tile(X[-5:], (4, 1))], 1)
    log_pi, rewards, thetas = bandits.lifetime(c, kind(x), 6, rng.random((4, 3)), rng)
    log_pi = value(log_pi)
    for i in range(4):
        theta, v = x[i, :6], np.zeros(6)
        for t in range(6):
            np.testing.assert_allclose(thetas[t][i], theta, atol=1e-12)
            log_probs = theta[:3] + theta[3:] - np.log(np.exp(theta[:3] + theta[3:]).sum())
            action = np.abs(log_probs - log_pi.data[i, t]).argmin()
            assert log_probs[action] == pytest.approx(log_pi.data[i, t])
            theta, v = rule(theta, v, x[i], t, 6, action, rewards[i, t] > 0)


def test_meta_gradient_is_that_of_the_enumerated_lifetimes(monkeypatch):
    """Each of the 64 histories is lived once, by a scripted rollout;
    the estimates' mean under their probabilities.
    """
    histories = np.array(list(itertools.product(itertools.product(range(K), (0, 1)), repeat=PULLS)))
    n, time = len(histories), iter(range(PULLS))

    def scripted(family, network, theta, tasks, episodes, rng):
        action, reward = histories[:, next(time), :, None, None].swapaxes(0, 1)
        return Trajectories(
            np.ones((n, 1, 1, 1)), action, reward.astype(float), np.ones((n, 1, 1), bool)
        )

    monkeypatch.setattr(bandits, "rollout", scripted)
    g, returns = bandits.meta_gradient(bandits.setting(K), X, PULLS, np.tile(MEANS, (n, 1)), None)
    p = [probability(X, history) for history in histories]
    assert sum(p) == pytest.approx(1) and p @ returns == pytest.approx(expected_return(X))
    exact = [
        (expected_return(X + 1e-5 * e) - expected_return(X - 1e-5 * e)) / 2e-5
        for e in np.eye(len(X))
    ]
    np.testing.assert_allclose(-(p @ g), exact, atol=1e-8)


def test_worth_is_what_a_policy_earns_without_learning():
    c, tasks = bandits.setting(2), np.array([[0.5, 0.1], [0.2, 1.0]])
    even, first = np.zeros((2, 4)), np.tile([50.0, 0, 50, 0], (2, 1))
    np.testing.assert_allclose(
        bandits.worth(c, [even, first], tasks), [[0.6, 0.5], [1.2, 0.2]], atol=1e-12
    )


def test_cut_shortens_outliers_alone():
    g = np.ones((5, 2))
    g[3] = 1e3, -1e3
    g[4] = 0
    short = bandits.cut(g)
    np.testing.assert_array_equal(short[[0, 1, 2, 4]], g[[0, 1, 2, 4]])
    np.testing.assert_allclose(short[3], [100, -100])


def test_members_of_cma_es_live_under_the_same_noise(monkeypatch):
    """Members with the same rule earn the same;
    the return that counts is that of each member over all tasks.
    """
    told = []
    monkeypatch.setattr(bandits.es.CMAES, "ask", lambda self: np.tile(bandits.RULE, (12, 1)))
    monkeypatch.setattr(bandits.es.CMAES, "tell", lambda self, x, f: told.append(f))
    x = bandits.by_cma_es(bandits.setting(2), 100, 0, generations=1)
    np.testing.assert_array_equal(x, np.zeros(9))
    assert np.ptp(told[0]) == 0 and -100 < told[0][0] < -50


def test_training_is_reproducible():
    c = bandits.setting(2)
    x, again = (bandits.by_gradient(c, 5, 3, 11, 500) for _ in range(2))
    np.testing.assert_array_equal(x, again)
    assert x.shape == (9,)
    assert not np.array_equal(x[4:], bandits.RULE)


def test_the_ten_iterations_that_earned_most_are_kept(monkeypatch):
    """Returns with a peak at iteration 20, a gradient that moves every parameter by the same:
    the mean place there.
    """
    places = []

    def scripted(c, x, pulls, tasks, rng):
        places.append(x)
        return np.ones((3, 9)), np.full(3, -abs(len(places) - 21.0))

    monkeypatch.setattr(bandits, "meta_gradient", scripted)
    x = bandits.by_gradient(bandits.setting(2), 50_000, 0, iterations=40)
    np.testing.assert_allclose(x, np.mean(places[15:25], 0))
    assert (np.diff(places, axis=0) < 0).all(), "against the gradient of the loss"


def test_all_are_judged_on_the_same_held_out_bandits(monkeypatch):
    c = bandits.setting(2)
    o = bandits.Options(test_tasks=300)
    lived = []

    def live(c, x, pulls, tasks, rng):
        lived.append((x, tasks))
        return np.ones((300, pulls))

    monkeypatch.setattr(bandits, "by_gradient", lambda c, pulls, seed, iterations: iterations)
    monkeypatch.setattr(bandits, "by_cma_es", lambda c, pulls, seed, generations: generations)
    monkeypatch.setattr(bandits, "live", live)
    rewards = bandits.rewards_of_all(o, 40, 2, 5)
    tasks = metarl.sample_tasks(c, 300, metarl.noise_at(5, metarl.TEST, metarl.TASKS), "test")
    assert [x for x, _ in lived] == [o.iterations, o.generations]
    for _, given in lived:
        np.testing.assert_array_equal(given, tasks)
    assert rewards["MAML"].shape == rewards["Gittins"].shape == (300, 40)
    assert abs(rewards["random"].mean() - tasks.mean()) < 4 * np.sqrt(1 / 4 / 300 / 40)


def test_rows_are_agents_and_columns_are_problems(monkeypatch):
    def rewards_of_all(o, pulls, arms, seed):
        return {"MAML": np.full((3, pulls), arms)}

    monkeypatch.setattr(bandits, "rewards_of_all", rewards_of_all)
    rows, _ = bandits.run(bandits.Options(), 0)
    assert rows == {"MAML": {"10, 5": 50}}
    rows, _ = bandits.run(bandits.Options(full=True), 0)
    assert rows["MAML"]["100, 50"] == 5000
    assert len(rows["MAML"]) == 6


def test_published_numbers_stand_under_their_problem():
    line = bandits.published("MAML", ["10, 50", "100, 5", "7, 7"])
    assert line.split()[-3:] == ["6.6", "67.1", "-"]


def test_an_agent_lives_from_the_same_start_in_each_task():
    x = np.array([99.0, 0, 0, 0, *bandits.RULE])  # the first arm, whatever comes
    tasks = np.array([[1.0, 0.0], [0.0, 1.0]])
    rewards = bandits.live(bandits.setting(2), x, 9, tasks, metarl.noise_at(0))
    np.testing.assert_array_equal(rewards, np.tile([[1], [0]], 9))


def test_settings_of_the_bandits():
    c = bandits.setting(5)
    assert (c.family.horizon, c.family.arms, c.pi.size) == (1, 5, 10)
    train, test = (
        metarl.sample_tasks(c, 50, metarl.noise_at(0), split) for split in ("train", "test")
    )
    assert not (train[:, None] == test).all(-1).any()
