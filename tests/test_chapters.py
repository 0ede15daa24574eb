"""The chapters: what the papers forbid is forbidden, each part against its slow form, and the parts
that all programs share. Whole runs are in .ci/run, as --quick --json.
"""

import json
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import carml, common, swirl, uml
from chapters.common import EACH, Chapter, above, below
from chapters.swirl import NOWHERE, Shuffled, Skills, Swirl, uniform
from harness.settings import Setting
from metarl import noise_at
from policies import Network, Policy, rollout

SMALL = dict(
    hidden=(4,), iterations=2, tasks=3, episodes=3, test_goals=4, test_episodes=2, alphas=(0.1, 1.0)
)
UML = uml.Options(skills=3, diayn_iterations=3, diayn_episodes=2, **SMALL)
CARML = carml.Options(skills=3, rounds=3, em_steps=4, first=10, adapted_tasks=5, kept=2, **SMALL)


# --- What the chapters share ---
def double(options, seed):
    return {"a": {"x": options * seed, "y": 1.0}, "b": {"x": 2.0 * seed}}, f"picture {seed}"


def claims_of_double(rows):
    return [above("grows", 2, rows["a"]["x"]), above("each", 2, rows["a"]["x"], EACH)]


DOC = "Usage.\n\nSaid plainly: nothing.\n"
TOY = Chapter("toy", DOC, 2.0, 20.0, double, lambda rows: "tables", claims_of_double, None)


def test_seeds_side_by_side_and_json(capsys):
    assert common.main(TOY, ["--json", "--seeds", "3", "--first-seed", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["rows"] == {"a": {"x": [2, 4, 6], "y": [1, 1, 1]}, "b": {"x": [2, 4, 6]}}
    assert content["claims"] == [
        {"claim": "grows", "must": "above 2 in the mean", "measured": 4, "holds": True},
        {"claim": "each", "must": "above 2 in every seed", "measured": 2, "holds": False},
    ]


def test_defaults_and_quick(capsys):
    seeds_and_first = []
    for argv in ([], ["--quick"], ["--quick", "--seeds", "1"]):
        common.main(TOY, ["--json", *argv])
        x = json.loads(capsys.readouterr().out)["rows"]["a"]["x"]
        seeds_and_first.append((len(x), x[-1]))
    assert seeds_and_first == [(5, 8), (2, 20), (1, 0)]


@dataclass(frozen=True)
class Flagged:
    scale: float = 2.0
    ablations: bool = False
    slow: bool = False


def of_flags(o, seed):
    return {"o": {"scale": o.scale, "ablations": o.ablations, "slow": o.slow}}, None


def test_a_flag_of_a_chapter_replaces_a_field_of_its_options(capsys):
    flags = {"ablations": "more rows", "slow": "longer"}
    chapter = Chapter(
        "toy", DOC, Flagged(), Flagged(9.0), of_flags, str, lambda rows: [], None, flags
    )
    printed = []
    for argv in ([], ["--ablations"], ["--slow", "--quick"]):
        assert common.main(chapter, ["--json", "--seeds", "1", *argv]) == 0
        row = json.loads(capsys.readouterr().out)["rows"]["o"]
        printed.append([row["scale"][0], row["ablations"][0], row["slow"][0]])
    assert printed == [[2, False, False], [2, True, False], [9, False, True]]
    assert common.main(TOY, ["--ablations"]) == 2
    assert "unrecognized arguments: --ablations" in capsys.readouterr().err


def test_text_ends_with_what_is_said_plainly(capsys):
    common.main(TOY, ["--seeds", "2"])
    out = capsys.readouterr().out
    assert out.startswith("Means over seeds 0, 1, with") and "tables" in out
    assert "does NOT hold" in out and "--quick" not in out
    assert out.endswith("Said plainly: nothing.\n")


@pytest.mark.parametrize(
    "argv, line",
    [
        (["--seeds", "0"], "--seeds 0: must be at least 1"),
        (["--first-seed", "-1"], "--first-seed -1: must be at least 0"),
        (["--seeds", "many"], "argument --seeds: invalid int value: 'many'"),
        (["--plot", "/dev/null/no"], "--plot /dev/null/no: "),
    ],
)
def test_bad_input_is_one_line_and_status_2(argv, line, capsys):
    assert common.main(TOY, argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and line in err and err.count("\n") == 1


def test_without_matplotlib_one_line_before_anything_is_computed(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert common.main(TOY._replace(run=None), ["--plot", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "--plot: needs matplotlib: pip install matplotlib\n"


def test_numbers_that_are_not_finite_end_a_run(capsys):
    assert common.main(TOY._replace(full=np.inf), ["--first-seed", "1", "--seeds", "1"]) == 3
    assert capsys.readouterr().err == "a, x: [inf]: not finite\n"


def test_claims_are_judged_by_the_mean_or_by_each_seed():
    x = np.array([1.0, 2.0, 6.0])
    judged = [above("", 2, x), above("", 1, x, EACH), below("", 4, x), below("", 4, x, EACH)]
    assert [(c.measured, c.holds) for c in judged] == [(3, True), (1, False), (3, True), (6, False)]
    assert below("", 4, x, EACH).must == "below 4 in every seed"


def test_tables_have_means_and_intervals_and_differences_are_paired():
    """Of 1, 2, 3: the standard error is 1 / sqrt(3), the 97.5 % point of Student's t 4.3027."""
    rows = {"a": {"k": np.array([1.0, 2.0, 3.0]), "l": np.ones(3)}, "b": {"k": np.full(3, 0.5)}}
    lines = common.table(rows, ["a", "b"], ["k"], digits=3, heading="row").splitlines()
    assert [line.split() for line in lines] == [
        ["row", "k"],
        ["a", "2.000", "±", "2.484"],
        ["b", "0.500", "±", "0.000"],
    ]
    assert common.cell(np.array([2.0])) == "2.00"
    paired = common.difference(rows, "a", "b")
    assert paired.keys() == {"k"}
    assert_array_equal(paired["k"], [0.5, 1.5, 2.5])


# --- The world ---
def test_a_move_is_turned_by_twice_the_distance_from_the_origin():
    """At (0.5, 0) by one radian, at the origin not at all; never through a wall."""
    world = Swirl()
    s = np.array([[0.5, 0], [0, 0], [0.999, 0.0]])
    action = np.array([[1.0, 0], [0.5, 7], [0, -1]])
    moved = world.advance(s, action, NOWHERE, None)
    at_wall = [min(1, 0.999 + 0.1 * np.sin(1.998)), -0.1 * np.cos(1.998)]
    expected = [[0.5 + 0.1 * np.cos(1), 0.1 * np.sin(1)], [0.05, 0.1], at_wall]
    assert_allclose(moved, expected, rtol=1e-12)
    reward, done = world.judge(moved, np.array([0.05, 0.5]))
    assert reward[1] == pytest.approx(-0.4) and not done.any()


@pytest.mark.parametrize("split", ["train", "test"])
def test_goals_fill_the_annulus(split):
    goals = Swirl().sample_tasks(10_000, noise_at(0), split)
    radius = np.hypot(*goals.T)
    assert 0.7 < radius.min() < 0.705 and 0.995 < radius.max() < 1
    assert_allclose(goals.mean(0), 0, atol=0.03)
    other = "test" if split == "train" else "train"
    assert not (goals == Swirl().sample_tasks(10_000, noise_at(0), other)).all(1).any()


def toy_reward(s):
    """Of three skills: x, y, 1."""
    return np.concatenate([s, np.ones_like(s[..., :1])], -1)


def test_a_skill_is_paid_its_own_reward():
    tasks = Skills(Swirl(), toy_reward, uniform(3))
    D = rollout(tasks, Policy(2, 2, hidden=()), np.ones(8), np.eye(3), 2, noise_at(0))
    after = Swirl().advance(D.obs, D.actions, NOWHERE, None)
    assert_allclose(D.rewards, [after[0, ..., 0], after[1, ..., 1], np.ones((2, 20))])


def test_skills_are_drawn_as_they_are_probable():
    tasks = Skills(Swirl(), toy_reward, np.array([0.2, 0.0, 0.8]))
    z = tasks.sample_tasks(20_000, noise_at(0))
    assert_array_equal(z.sum(1), 1)
    assert_allclose(z.mean(0), tasks.p, atol=0.01)


def test_shuffled_batches_are_paid_for_a_skill_that_is_not_theirs_but_drawn():
    tasks = Shuffled(Swirl(), toy_reward, uniform(3))
    z = np.repeat(np.eye(3), 400, 0)
    D = rollout(tasks, Policy(2, 2, hidden=()), np.ones(8), z, 2, noise_at(0))
    pay = toy_reward(Swirl().advance(D.obs, D.actions, NOWHERE, None))
    is_paid = np.isclose(D.rewards[..., None], pay).all((1, 2))  # a skill for a whole batch
    assert_array_equal(is_paid.sum(1), 1)
    for of_one_skill in is_paid.reshape(3, 400, 3):
        assert_allclose(of_one_skill.mean(0), 1 / 3, atol=0.08)


# --- No true reward in meta-training ---
@dataclass(frozen=True)
class Blind(Swirl):
    """It has no goals to give, and says when it is asked for a reward at one."""

    def sample_tasks(self, n, rng, split="train"):
        raise AssertionError("asked for goals")

    def judge(self, state, tasks):
        assert np.isnan(tasks).all(), "asked for a reward"
        return super().judge(state, tasks)


class Peeking(Skills):
    """A fake: its tasks pay a little of the true reward too."""

    def judge(self, state, z):
        reward, done = super().judge(state, z)
        return reward + 1e-9 * self.world.judge(state, NOWHERE)[0], done


def test_every_true_reward_nowhere_is_nan():
    s = noise_at(0).uniform(-1, 1, (50, 2))
    reward, _ = Swirl().judge(s, NOWHERE)
    assert np.isnan(reward).all()


def learned_by_uml(o, family=Skills):
    phi, psi = uml.diayn(o, 7)
    return phi, psi, uml.unsupervised(o, 7, phi, family)


def learned_by_carml(o):
    x, rounds, pictures = carml.carml(o, 7)
    return x, np.array([list(row.values()) for row in rounds.values()]), pictures[-1][0]


@pytest.mark.parametrize("learned, o", [(learned_by_uml, UML), (learned_by_carml, CARML)])
def test_meta_training_is_the_same_in_a_world_that_has_no_goals(learned, o):
    for with_goals, without in zip(learned(o), learned(replace(o, world=Blind())), strict=True):
        assert with_goals.tobytes() == without.tobytes() and np.isfinite(with_goals).all()


def test_a_program_that_peeks_at_true_rewards_is_caught(monkeypatch):
    assert np.isnan(learned_by_uml(UML, Peeking)[-1]).any()
    monkeypatch.setattr(carml, "Skills", Peeking)
    with np.errstate(all="ignore"):
        x, *_ = carml.carml(replace(CARML, rounds=1), 7)
    assert np.isnan(x).any()
    with pytest.raises(AssertionError, match="asked for goals"):
        common.meta_train(swirl.setting(UML, Blind(), 0))


@pytest.mark.parametrize("learned, o", [(learned_by_uml, UML), (learned_by_carml, CARML)])
def test_meta_training_starts_from_the_untrained_policy_of_the_state_alone(learned, o, monkeypatch):
    """Bit for bit what learning from scratch starts from, and not psi; factors on alpha are 1."""
    started = []

    def spy(c, state, train=metarl.train):
        started.append((c, state))
        return train(c, state)

    monkeypatch.setattr(metarl, "train", spy)
    learned(o)
    c, state = started[0]
    P = c.pi.size
    assert state["t"] == 0 and state["theta"][:P].tobytes() == swirl.untrained(o, 7).tobytes()
    assert_array_equal(state["theta"][P:], 0)
    for c, _ in started:
        observed = c.family.observe(c.family.reset(np.eye(3)[:, None], (3, 5), noise_at(0)))
        assert c.pi.obs_dim == 2 and observed.shape == (3, 5, 2)
        assert c.estimator == "dice" and c.learn_alpha
    assert [int(state["t"]) for _, state in started] == list(range(0, 2 * len(started), 2))


def test_the_discriminator_is_frozen_in_meta_training():
    phi, _ = uml.diayn(UML, 3)
    before = phi.tobytes()
    uml.unsupervised(UML, 3, phi)
    assert phi.tobytes() == before
    with pytest.raises(ValueError, match="read-only"):
        phi += 1


# --- UML ---
def test_a_skill_is_the_network_that_is_told_it():
    psi = noise_at(0).standard_normal(uml.skill_network(UML).size)
    s = noise_at(1).uniform(-1, 1, (3, 6, 2))
    theta = uml.skill_policies(UML, psi)
    pi = Policy(2, 2, hidden=UML.hidden)
    for k in range(3):
        told = np.concatenate([s[k], np.tile(np.eye(3)[k], (6, 1))], 1)
        expected = Network(5, 2, UML.hidden).apply(psi, told)
        assert_allclose(pi.mode(theta[k], s[k]), expected, rtol=1e-12)
    assert_allclose(np.exp(theta[:, -2:]), UML.std)
    ad.check_grads(lambda x: ad.sum(uml.skill_policies(UML, x) ** 2), psi, order=1)


def test_a_diayn_step_is_up_both_gradients(monkeypatch):
    """With Adam replaced by the gradient itself: psi goes up the policy gradient of log D for each
    z, phi up log D(z|s), by differences.
    """
    monkeypatch.setattr(metarl, "adam", lambda g, m, v, t: (g, m, v))
    o = replace(UML, diayn_iterations=1, beta_phi=1.0, beta_psi=1.0)
    phi_0 = uml.first_phi(o, 5)
    psi_0 = uml.skill_network(o).init(noise_at(5, common.OWN, 1))
    phi, psi = uml.diayn(o, 5)

    tasks = Skills(o.world, lambda s: uml.log_D(o, phi_0, s), uniform(3))
    c = Setting(env=tasks, policy=Policy(2, 2, hidden=o.hidden))
    theta = uml.skill_policies(o, psi_0)
    D = rollout(tasks, c.pi, theta, np.eye(3), o.diayn_episodes, noise_at(5, common.OWN, 2, 0))

    def log_D_of_own(phi):
        logs = [uml.log_D(o, phi, D.obs[k, :, 1:])[..., k] for k in range(3)]
        return np.mean(logs)

    e = 1e-6 * np.eye(len(phi))
    by_phi = [(log_D_of_own(phi_0 + d) - log_D_of_own(phi_0 - d)) / 2e-6 for d in e]
    assert_allclose(phi - phi_0, by_phi, atol=1e-8)

    after = o.world.advance(D.obs, D.actions, NOWHERE, None)
    pay = np.stack([uml.log_D(o, phi_0, after[k])[..., k] for k in range(3)])
    assert_allclose(D.rewards, pay, rtol=1e-12)
    x = Tensor(psi_0)
    log_pi = c.pi.log_prob(uml.skill_policies(o, x), D.obs, D.actions)
    A = metarl_advantages(pay)
    by_psi = grad(ad.sum(log_pi * A) / A[0].size, x).data
    assert_allclose(psi - psi_0, by_psi, atol=1e-10)


def metarl_advantages(pay):
    """Returns-to-go minus their mean over episodes, standardised for each skill: by loops."""
    A = np.empty_like(pay)
    for k, episodes in enumerate(pay):
        R = np.zeros_like(episodes)
        for t in reversed(range(R.shape[1])):
            R[:, t] = episodes[:, t]
            if t + 1 < R.shape[1]:
                R[:, t] += 0.99 * R[:, t + 1]
        R = R - R.mean(0)
        A[k] = R / R.std()
    return A


def test_accuracy_counts_the_states_that_are_known():
    phi = 4 * uml.first_phi(UML, 2)
    s = noise_at(0).uniform(-1, 1, (5000, 2))
    guess = uml.log_D(UML, phi, s).argmax(-1)
    known = np.stack([s[guess == k][:20].reshape(4, 5, 2) for k in range(3)])
    assert uml.accuracy(UML, phi, known) == 1
    assert uml.accuracy(UML, phi, known[[0, 2, 1]]) == pytest.approx(1 / 3)


def test_the_best_skill_is_the_one_that_earns_most_on_the_goal():
    """With almost no noise in the actions one trial tells."""
    o = replace(UML, std=1e-6, test_goals=10)
    psi = 3 * uml.skill_network(o).init(noise_at(4))
    skills = uml.skill_policies(o, psi)
    chosen = uml.best_skill(o, 4, psi)
    c = swirl.setting(o, o.world, 4)
    picked = set()
    for goal, theta in zip(swirl.goals_of(c), chosen, strict=True):
        D = [rollout(o.world, c.pi, one, goal[None], 1, noise_at(9)).returns[0] for one in skills]
        best = int(np.argmax(D))
        picked.add(best)
        assert_array_equal(theta, skills[best])
    assert len(picked) > 1
    rows = {row.tobytes() for row in uml.any_skill(replace(o, test_goals=40), 4, psi)}
    assert rows == {row.tobytes() for row in skills}


# --- The test on goals ---
def test_returns_after_each_step_are_those_of_metarl(monkeypatch):
    """With its chunks made large: the same addresses, so the same noise."""
    c = swirl.setting(UML, UML.world, 0)
    x = noise_at(3).standard_normal(2 * c.pi.size) / 3
    monkeypatch.setattr(metarl, "CHUNK", 1000)
    _, returns = metarl.meta_test(replace(c, adapt_episodes=c.episodes), x)
    assert_allclose(swirl.meta_test(c, x), returns.mean(0), rtol=1e-12)


def test_scratch_takes_the_best_step_size_for_each_number_of_steps():
    o = replace(UML, test_goals=8, alphas=(0.3, 1.0))
    theta = swirl.untrained(o, 0)
    by_alpha = []
    for alpha in o.alphas:
        c = swirl.setting(o, o.world, 0, learn_alpha=False, alpha=alpha)
        by_alpha.append(swirl.meta_test(c, theta))
    short, long = by_alpha
    assert long[1] > short[1] and long[3] < short[3]
    assert_array_equal(swirl.fine_tuned(o, 0, theta), np.maximum(short, long))
    rows = np.tile(theta, (o.test_goals, 1))
    assert_array_equal(swirl.fine_tuned(o, 0, rows), np.maximum(short, long))


# --- CARML: the mixture ---
def some_mixture():
    mu = np.array([[0.3, 0.1], [-0.5, 0.2], [0.0, -0.6]])
    return carml.Mixture(mu, 0.2, np.array([0.5, 0.2, 0.3]))


def some_trajectories(n=12, H=7):
    """About as many centres as the mixture has, so that E is neither sure nor blind."""
    rng = noise_at(0)
    centres = 0.3 * rng.standard_normal((n, 1, 2))
    return centres + 0.4 * rng.standard_normal((n, H, 2))


def densities(m, s):
    """q(s|z) of a single state, for each z."""
    return [multivariate_normal(mu, m.variance).pdf(s) for mu in m.mu]


@pytest.mark.parametrize("lam", [0, 0.5, 1])
def test_reward_is_that_of_the_paper(lam):
    """lambda log q(s|z) - log q(s), and log pi_z, which is the same in all states."""
    m = some_mixture()
    for s in some_trajectories()[0]:
        q = np.array(densities(m, s))
        expected = lam * np.log(q) - np.log(m.pi @ q) + np.log(m.pi)
        assert_allclose(carml.r_z(m, lam, s), expected, rtol=1e-10)


def test_responsibilities_are_those_of_whole_trajectories():
    m = some_mixture()
    s = some_trajectories()
    rho, log_probability = carml.e_step(m, s)
    total = np.log(m.pi).sum()
    for n, trajectory in enumerate(s):
        joint = m.pi.copy()
        for state in trajectory:
            joint *= densities(m, state)
        assert_allclose(rho[n], joint / joint.sum(), rtol=1e-10)
        total += np.log(joint.sum())
    assert log_probability == pytest.approx(total, rel=1e-12)


def test_a_permutation_of_trajectories_is_nothing_one_across_them_is_something():
    m = some_mixture()
    s = some_trajectories()
    rho, log_probability = carml.e_step(m, s)
    order = noise_at(1).permutation(len(s))
    again, same = carml.e_step(m, s[order])
    assert_allclose(again, rho[order], rtol=1e-12)
    assert same == pytest.approx(log_probability, rel=1e-12)
    mixed = carml.permuted(s, noise_at(2))
    assert_array_equal(np.sort(mixed, 0)[..., 0], np.sort(s, 0)[..., 0])
    pairs = {tuple(state) for state in s.reshape(-1, 2)}
    assert {tuple(state) for state in mixed.reshape(-1, 2)} == pairs
    other, log_probability_of_mixed = carml.e_step(m, mixed)
    assert np.abs(other - rho).max() > 0.1
    assert log_probability_of_mixed < log_probability - 1


@pytest.mark.parametrize("seed", range(3))
def test_em_never_makes_the_trajectories_less_probable(seed):
    s = some_trajectories(60)
    m = carml.start(s, 4, noise_at(seed))
    probable = []
    for _ in range(25):
        rho, log_probability = carml.e_step(m, s)
        probable.append(log_probability)
        m = carml.m_step(m, s, rho)
    assert (np.diff(probable) > -1e-9 * np.abs(probable[0])).all()
    assert probable[-1] > probable[0] + 1


def test_m_step_is_at_the_maximum():
    """Of sum rho log pi q + sum log pi, whichever number is moved."""
    s = some_trajectories()
    rho, _ = carml.e_step(some_mixture(), s)
    best = carml.m_step(some_mixture(), s, rho)

    def expected(m):
        log_joint = np.log(m.pi) + carml.log_q(m, s).sum(1)
        return (rho * log_joint).sum() + np.log(m.pi).sum()

    assert best.pi.sum() == pytest.approx(1)
    for move in (-0.01, 0.01):
        assert expected(best._replace(variance=best.variance + move)) < expected(best)
        for k in range(3):
            e = move * np.eye(3)[k]
            assert expected(best._replace(mu=best.mu + e[:, None])) < expected(best)
            pi = best.pi + e
            assert expected(best._replace(pi=pi / pi.sum())) < expected(best)


def test_a_skill_without_trajectories_stays_where_it_is():
    rho = np.zeros((12, 3))
    rho[:, 0] = 1
    m = carml.m_step(some_mixture(), some_trajectories(), rho)
    assert_array_equal(m.mu[1:], some_mixture().mu[1:])
    assert_allclose(m.pi, [13 / 15, 1 / 15, 1 / 15])


def test_em_starts_from_trajectories_far_apart():
    """Three heaps of ten, far from each other: a centre in each."""
    heaps = np.repeat([[0.9, 0], [-0.9, 0], [0, 0.9]], 10, 0)[:, None]
    s = heaps + 0.01 * noise_at(0).standard_normal((30, 4, 2))
    for seed in range(5):
        m = carml.start(s, 3, noise_at(seed))
        assert {tuple(c) for c in m.mu} <= {tuple(c) for c in s.mean(1)}
        assert len({(c > 0.5, c < -0.5) for c in m.mu[:, 0]}) == 3


# --- CARML: the rounds ---
def test_the_reservoir_keeps_all_and_without_refit_tasks_stay(monkeypatch):
    fitted = []
    fit = carml.fit

    def spy(o, s, rng, shuffle):
        fitted.append(s)
        return fit(o, s, rng, shuffle)

    monkeypatch.setattr(carml, "fit", spy)
    x, rounds, _ = carml.carml(CARML, 1)
    assert [len(s) for s in fitted] == [10, 20, 30]
    assert_array_equal(fitted[2][:20], fitted[1])
    assert_array_equal(fitted[0], carml.random_walks(CARML, 1)[:10])

    one, rounds_of_one, _ = carml.carml(CARML, 1, refit=False)
    assert len(fitted) == 4
    assert rounds_of_one["round 1"] == rounds["round 1"]
    assert {row["spread"] for row in rounds_of_one.values()} == {rounds["round 1"]["spread"]}
    assert not np.array_equal(x, one)

    _, rounds_of_other, _ = carml.carml(CARML, 1, shuffle=True)
    assert_array_equal(fitted[4], fitted[0])
    assert rounds_of_other["round 1"]["spread"] != rounds["round 1"]["spread"]


def test_the_control_permutes_before_it_fits():
    """At every time each mean is then about that of all: the means are close together."""
    s = some_trajectories(200)
    spread = [np.ptp(carml.fit(CARML, s, noise_at(0), shuffle).mu, 0).max() for shuffle in (0, 1)]
    assert spread[1] < 0.6 * spread[0]


def test_trajectories_of_a_round_are_those_after_adaptation():
    """The policy of all tasks is the same before a step, so the first states tell nothing; paid for
    going right or left, it goes there after it.
    """
    o = replace(CARML, episodes=30, alpha=3.0)
    tasks = Skills(o.world, lambda s: s[..., :1] * [1, -1], uniform(2))
    c = swirl.setting(o, tasks, 0)
    x = metarl.initial_state(c)["theta"]
    z, s = carml.adapted(o, c, x, (0, common.OWN))
    assert z.shape == (150,) and s.shape == (5, 30, 20, 2)
    right = s[:, :, -1, 0].mean(1)
    of_task = z.reshape(5, 30)[:, 0]
    assert len(set(of_task)) == 2
    assert right[of_task == 0].min() > right[of_task == 1].max() + 0.1


def test_measures_by_hand():
    m = carml.Mixture(np.array([[0.3, 0.4], [-0.3, -0.4]]), 0.1, np.array([0.5, 0.5]))
    s = np.array([[[0.5, 0.5], [0.05, 0.05]], [[-0.9, -0.9], [0.55, 0.59]], [[1, 1], [0.99, 0.81]]])
    measured = carml.measures(m, np.array([0, 0, 0]), s)
    assert measured["spread"] == pytest.approx(0.5)
    assert measured["recognised"] == pytest.approx(2 / 3)
    assert measured["cells"] == 0.04


# --- Whole programs, in small ---
def test_rows_of_uml_are_what_they_are_called():
    rows, picture = uml.run(UML, 2)
    phi, psi = uml.diayn(UML, 2)
    random_phi = 4 * uml.first_phi(UML, 2)
    on_goals = swirl.setting(UML, UML.world, 2)
    x = {
        "UML-DIAYN": uml.unsupervised(UML, 2, phi),
        "UML-RANDOM": uml.unsupervised(UML, 2, random_phi),
        "shuffled": uml.unsupervised(UML, 2, phi, Shuffled),
        "MAML on goals": common.meta_train(on_goals)["theta"],
    }
    theta = {
        "scratch": swirl.untrained(UML, 2),
        "any DIAYN skill": uml.any_skill(UML, 2, psi),
        "best DIAYN skill": uml.best_skill(UML, 2, psi),
    }
    returns = {name: swirl.meta_test(on_goals, each) for name, each in x.items()}
    returns |= {name: swirl.fine_tuned(UML, 2, each) for name, each in theta.items()}
    assert len({tuple(r) for r in returns.values()}) == len(rows) - 1
    for name, numbers in returns.items():
        assert list(rows[name].values()) == list(numbers)
    assert rows["D"]["accuracy"] == uml.accuracy(UML, phi, picture["paths"][:, :, 1:])


def test_rows_of_carml_are_what_they_are_called():
    o = replace(CARML, rounds=2)
    rows, _ = carml.run(o, 2)
    on_goals = swirl.setting(o, o.world, 2)
    theta, rounds, _ = carml.carml(o, 2)
    one, rounds_of_one, _ = carml.carml(o, 2, refit=False)
    mixed, _, _ = carml.carml(o, 2, shuffle=True)
    long = common.meta_train(swirl.setting(o, o.world, 2, iterations=4))["theta"]
    x = {"CARML": theta, "one round": one, "shuffled": mixed, "MAML on goals": long}
    for name, each in x.items():
        assert list(rows[name].values()) == list(swirl.meta_test(on_goals, each))
    assert rows["CARML, round 2"] == rounds["round 2"]
    assert rows["one round, round 2"] == rounds_of_one["round 2"] != rounds["round 2"]


@pytest.mark.parametrize("chapter, o", [(uml, UML), (carml, replace(CARML, rounds=2))])
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
    assert content["rows"]["scratch"].keys() == set(swirl.STEPS)
    assert all(len(n) == 1 for columns in content["rows"].values() for n in columns.values())
    assert all(set(c) == {"claim", "must", "measured", "holds"} for c in content["claims"])
    rows = {r: {c: np.array(n) for c, n in row.items()} for r, row in content["rows"].items()}
    assert "MAML on goals" in tiny.report(rows)
    if "--plot" in argv:
        assert chapter.__name__ == f"chapters.{tiny.name}"
        assert (tmp_path / f"{tiny.name}.svg").read_text().startswith("<?xml")
