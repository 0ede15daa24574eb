"""The experiments of benchmarks/: what is exact in them.

Their numbers are for the commands to print.
"""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import autodiff as ad
import envs
import metarl
from autodiff import Tensor, grad
from benchmarks import diversity, in_the_loop, nichol, overfitting
from harness.settings import Setting
from metarl import noise_at
from policies import rollout, surrogate
from tests import oracles

KS = pytest.mark.parametrize("k", nichol.STEPS)


# --- Nichol's coefficients ---
@KS
@pytest.mark.parametrize(
    "problem, name",
    [("quadratics", "MAML, log-prob"), ("trees", "MAML, dice")]  # each with the Hessian of its loss
    + list(itertools.product(("quadratics", "trees"), ("FOMAML", "Reptile"))),
)
def test_coefficients_are_those_of_theory(problem, name, k):
    *_, ab, halves, off = nichol.row(problem, name, k, 0, 0)
    assert_allclose(ab, nichol.theory(name, k), rtol=1e-4)
    assert off < 0.01
    assert_array_equal(halves, 0)


@KS
def test_second_term_of_the_hessian_of_log_prob(k):
    """-(k - 1) (H + E[the Hessian of log pi times the reward to go]) grad L,
    with the oracle's expectations.
    """
    tasks, theta = nichol.problems()["trees"]
    inner, term = 0, 0
    for task in tasks:
        env, (g, H) = task.family, task.exact(theta)
        p, every = oracles.probabilities(env, theta), np.arange(len(oracles.episodes(env)[1]))
        weights = oracles.advantages(env, every)
        own = (
            -np.einsum("m,mt,mtij->ij", p, weights, oracles.step_hessians(env, theta, "log-prob"))
            / env.horizon
        )
        inner, term = inner + H @ g / 2, term - (k - 1) * (H + own) @ g / 2
    *_, ab, _, off = nichol.row("trees", "MAML, log-prob", k, 0, 0)
    assert_allclose(ab, [1, -term @ inner / (inner @ inner)], rtol=1e-4)
    across = term - inner * (term @ inner) / (inner @ inner)
    assert_allclose(off, 100 * np.linalg.norm(across) / np.linalg.norm(term), rtol=1e-4)


@pytest.mark.parametrize("name", ["MAML, dice", "MAML, log-prob", "FOMAML"])
def test_expected_steps_are_those_of_the_oracle(name):
    (task, _), theta = nichol.problems()["trees"]
    options = (
        dict(env=task.family, policy=task.policy, inner_steps=1)
        | nichol.PLAIN
        | nichol.ALGORITHMS[name]
    )
    steps = nichol.expected_steps(task, name, 2, theta)[:, 0]
    for alpha, step in zip(nichol.ALPHAS, steps, strict=True):
        exact = oracles.program_expectation(Setting(alpha=alpha, **options), theta, 1, 1)
        assert_allclose(-task.family.horizon * step, exact, atol=1e-14)


def test_gradients_of_quadratics():
    task, theta = nichol.Quadratic(np.random.default_rng(1)), np.array([0.4, -1.1])
    x = Tensor(np.tile(theta, (3, 1)))
    D = type(task.D)(*(a.swapaxes(0, 1) for a in task.D[:4]))
    c = Setting(env=task, policy=task, **nichol.PLAIN)
    g = grad(ad.sum(surrogate(c, x, D)), x).data
    assert_allclose(
        g, [A @ (theta - centre) for A, centre in zip(task.A, task.c, strict=True)], rtol=1e-14
    )
    assert_allclose(g.mean(0), task.exact(theta)[0], rtol=1e-14)


def test_sampled_steps_agree_with_the_closed_form(monkeypatch):
    monkeypatch.setattr(nichol, "BATCH", 400)
    for name, k in (("FOMAML", 3), ("Reptile", 2)):
        *_, ab, halves, _ = nichol.row("point mass", name, k, 1600, 0)
        assert_array_equal(abs(ab - nichol.theory(name, k)) < 2 * halves, True)
        assert (halves < 0.5 * ab).all()


def test_coefficients_of_a_parabola():
    average, inner, rest = np.array([2.0, 0, 0]), np.array([0, 0.5, 0]), np.array([0, 0, 0.75])
    steps = [
        [n * average - alpha * (3 * inner + rest) + alpha**2 for n in (1, 5)]
        for alpha in nichol.ALPHAS
    ]
    ab, off = nichol.coefficients(np.array(steps), average, inner)
    assert_allclose(ab, [[1, 3], [5, 3]], rtol=1e-9)
    assert_allclose(off, 100 * 0.75 / np.hypot(1.5, 0.75), rtol=1e-9)


# --- In the loop ---
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
    eta = in_the_loop.born(0.3, 0.8, 3)
    assert_allclose(eta[0], ETA[0], rtol=1e-14)
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
    monkeypatch.setattr(in_the_loop, "GENERATIONS", 40)
    assert_allclose(in_the_loop.outer_loop(0), target, atol=0.01)


def test_every_birth_lives_the_same_held_out_lifetimes(monkeypatch):
    seen = []

    def lifetime(eta, beta, lives, address, plan=None):
        seen.append((eta, beta, lives, address, plan))
        return eta[:, :1] + np.arange(3.0), np.repeat(eta[:, None], 3, 1) + np.arange(len(eta))[
            :, None, None
        ]

    monkeypatch.setattr(in_the_loop, "lifetime", lifetime)
    scores, plans, again = in_the_loop.row(in_the_loop.REPLAYED, ETA[:2], 4, 0)
    assert_allclose(scores, np.repeat(ETA[:2, :1] + 1, 4, 1))
    assert_allclose(plans, np.repeat(ETA[:2, None], 3, 1) + 1.5)
    assert_array_equal(again, scores)
    for eta, beta, lives, address, _ in seen:
        assert (beta, address) == (in_the_loop.TUNED[in_the_loop.REPLAYED], seen[0][3])
        assert_array_equal(lives, seen[0][2])
        assert eta.shape == (4, 2)
    assert colours(seen[0][2]) == colours(in_the_loop.goals(9, "test", 1))
    assert [plan is None for *_, plan in seen] == [True, True, False, False]
    assert_array_equal([seen[2][4], seen[3][4]], plans)
    assert in_the_loop.row("fixed", ETA[:2], 4, 0)[2] is None


def test_the_splits_have_goals_of_their_own():
    train, test = (in_the_loop.goals(40, split, 1) for split in ("train", "test"))
    assert len(colours(train)) == len(colours(test)) == 1
    assert colours(train) != colours(test)
    assert train.shape == (40, in_the_loop.UPDATES // in_the_loop.PERIOD, 2)


def test_what_the_loops_are_said_to_differ_by():
    B, noise = len(in_the_loop.GRID) + 1, np.array([0.0, 1.0, 2.0])
    level = {"fixed": np.r_[-np.arange(1.0, B), -0.5], "replayed": np.full(B, 0.25)}
    level[in_the_loop.REPLAYED] = np.full(B, 1.5)
    scores = {name: x[:, None] + noise for name, x in level.items()}
    text = in_the_loop.conclusion(
        scores, {in_the_loop.REPLAYED: np.zeros((B, in_the_loop.UPDATES, 2))}
    )
    assert "fixed from -6.00 to 0.00, alpha, beta 0.03 from 2.50 to 2.50" in text
    assert "best of the grid, 0.03, both fixed: +0.50 ± 0.00" in text
    assert "- fixed: +2.00 ± 0.00, replayed - fixed: +0.75 ± 0.00" in text


# --- Diversity ---
@pytest.mark.parametrize("box", diversity.BOXES)
def test_scores_run_from_standing_still_to_the_optimum(box):
    family = diversity.setting("maml", box, 0).family
    tasks = family.sample_tasks(30, noise_at(1))
    stand = np.zeros((30, 1, 2))
    still = sum(
        family.step(stand, np.zeros((30, 1, 2)), tasks[:, None], None)[1]
        for _ in range(family.horizon)
    )
    best = family.optimal_return(tasks)[:, None]
    s = diversity.scores(family, tasks, np.concatenate([still, (still + best) / 2, best], 1))
    assert_allclose(s.mean(0), [0, 50, 100], atol=1e-10)
    assert_allclose(s[:, 0], 0, atol=1e-10)


@pytest.mark.parametrize("algo", diversity.NAMES)
def test_all_train_on_the_same_budget(algo):
    c = diversity.setting(algo, 0.5, 0)
    states = metarl.train(c, metarl.initial_state(c))
    steps = next(states)["env_steps"] * c.iterations
    most = diversity.BUDGET * c.tasks * c.episodes * c.family.horizon
    assert 0.98 * most < steps <= most  # episodes may end at the goal


def test_each_agent_has_the_step_size_that_suits_it(monkeypatch):
    monkeypatch.setattr(diversity, "train", lambda c: metarl.initial_state(c)["theta"])
    best = lambda c, theta, tasks, *address: np.tile(
        [0, 0, 0, -abs(c.alpha - 0.25)], (len(tasks), 1)
    )
    monkeypatch.setattr(diversity, "adapted", best)
    seen = []
    monkeypatch.setattr(
        metarl, "meta_test", lambda c, theta: (seen.append(c.alpha), (GOALS, np.zeros((3, 4))))[1]
    )
    assert diversity.run("joint", 0.5, 0)[1] == 0.25
    assert seen == [0.25]


def test_adapted_is_what_the_meta_test_measures():
    c = diversity.setting("joint", 0.5, 0)
    theta = metarl.initial_state(c)["theta"]
    tasks, returns = metarl.meta_test(c, theta)
    assert_array_equal(
        diversity.adapted(c, theta, tasks, c.seed, metarl.TEST, metarl.INNER), returns
    )


def test_who_is_said_to_be_ahead():
    level = {
        ("maml", 1): 50,
        ("maml", 2): 40,
        ("reptile", 1): 60,
        ("reptile", 2): 10,
        ("joint", 1): 30,
        ("joint", 2): 0,
    }
    jitter = np.arange(3.0)[:, None, None]
    rows = {
        key: (x + (key[1] == 2) * jitter + np.zeros((3, 40, 4)), None) for key, x in level.items()
    }
    lines = diversity.conclusion(rows, (1, 2)).splitlines()
    assert lines[0].endswith("-10 ± 0, +30 ± 0")
    assert lines[1].endswith("+20 ± 0, +40 ± 0")
    assert (
        "lowest in the box 2 (11 %); least steady over seeds in 2 (standard deviation 1.0)"
        in lines[3]
    )


# --- Overfitting ---
def test_pools_are_nested_and_apart_from_held_out_goals():
    families = [overfitting.FewGoals(pool=pool, draw=3) for pool in overfitting.POOLS if pool]
    pools = [family.goals_for_training() for family in families]
    for small, large in itertools.pairwise(pools):
        assert_array_equal(small, large[: len(small)])
    for family, pool in zip(families, pools, strict=True):
        drawn = {tuple(goal) for goal in family.sample_tasks(2000, noise_at(1))}
        assert drawn == {tuple(goal) for goal in pool}
        assert_array_equal(
            family.sample_tasks(9, noise_at(2), "test"),
            envs.PointMass().sample_tasks(9, noise_at(2), "test"),
        )
    unlimited, all_goals = overfitting.FewGoals(pool=0, draw=3), envs.PointMass()
    assert_array_equal(
        unlimited.sample_tasks(9, noise_at(2)), all_goals.sample_tasks(9, noise_at(2))
    )
    black = envs.PointMass().sample_tasks(64, np.random.default_rng(3), "train")
    assert_array_equal(pools[-1], black)


def test_moved_goals():
    assert_array_equal(overfitting.moved(GOALS, 0.0, 1), GOALS)
    by = overfitting.moved(GOALS, 0.5, 1) - GOALS
    assert_allclose(np.linalg.norm(by, axis=1), 0.5, rtol=1e-14)
    assert_allclose(by, np.tile(by[0], (3, 1)), rtol=1e-14)
    assert abs(overfitting.moved(GOALS, 0.5, 2) - GOALS - by).max() > 0.01


def test_regret_is_the_optimum_less_the_return(monkeypatch):
    c = Setting(env=overfitting.FewGoals(), **overfitting.SMALL)
    best = c.family.optimal_return(GOALS)[:, None]
    monkeypatch.setattr(overfitting, "adapted", lambda *_: best - np.array([7.0, 5, 4, 2]))
    assert_allclose(overfitting.regrets(c, None, GOALS, (0,)), [7, 2], rtol=1e-12)


def test_an_agent_is_tested_on_the_goals_it_was_trained_on(monkeypatch):
    seen = []
    monkeypatch.setattr(overfitting, "train", lambda c: metarl.initial_state(c)["theta"])
    monkeypatch.setattr(
        overfitting, "regrets", lambda c, theta, tasks, address: seen.append(tasks) or np.zeros(2)
    )
    overfitting.run(4, 2)
    training = overfitting.FewGoals(pool=4, draw=2).goals_for_training()
    assert_array_equal(seen[0], np.tile(training, (10, 1)))
    assert len(seen[1]) == 40
    assert not {tuple(goal) for goal in seen[1]} & {tuple(goal) for goal in training}


def test_the_gap_is_held_out_less_training():
    regret = lambda train, test: np.array(
        [[[9, train], [9, test]], [[9, train + 0.1], [9, test + 0.1]]]
    )
    by_pool = {pool: regret(2.0, 3.0 if pool == 1 else 2.0) for pool in overfitting.POOLS}
    far = np.stack([np.arange(len(overfitting.SHIFTS)) + 1.0, np.zeros(len(overfitting.SHIFTS))])
    text = overfitting.conclusion(by_pool, np.stack([far, far]))
    assert "from 1.0 with one training task to 0.0" in text
    assert "apart from 0 with: 1\n" in text
    assert "trained - untrained: +1 at 0, +2 at 0.25" in text


def test_trained_and_untrained_agents_on_shifted_goals(monkeypatch):
    monkeypatch.setattr(overfitting, "train", lambda c: np.full(c.pi.size, 7.0))
    monkeypatch.setattr(
        overfitting, "adapted", lambda c, theta, tasks, *_: np.full((40, 4), theta[0])
    )
    monkeypatch.setattr(
        overfitting, "scores", lambda family, tasks, r: r + 100 * np.linalg.norm(tasks.mean(0))
    )
    start = metarl.initial_state(Setting(env=overfitting.FewGoals(), seed=1, **overfitting.SMALL))[
        "theta"
    ][0]
    trained, untrained = overfitting.run(0, 1)[1]
    assert_allclose(trained - untrained, 7 - start)
    assert_allclose(trained[-1] - trained[0], 100 * overfitting.SHIFTS[-1], rtol=0.1)
