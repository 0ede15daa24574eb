"""The options of a run: which default wins, what is allowed, and what an algorithm really reads."""

import json
import pickle
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

import envs
import metarl
import policies
from harness import cli, settings
from harness.settings import Setting, ignored, joint_beside, make_family
from metarl import noise_at


# --- Which default wins ---
def test_defaults_depend_on_family_algorithm_and_both():
    assert Setting().alpha == 0.5
    assert Setting(env="bandit").alpha == 8
    assert Setting(algo="reptile", env="bandit").alpha == 1
    assert Setting(env="bandit").episodes == 1
    assert Setting(algo="es-maml", env="bandit").episodes == 20
    assert Setting(algo="reptile", env="bandit:arms=3", alpha=2.0).alpha == 2


def test_the_later_layer_wins_and_what_is_given_over_all(monkeypatch):
    layers = {
        "maml bandit": {"lam": 0.4},
        "maml": {"lam": 0.3, "std": 3.0, "seed": 3},
        "bandit": {"lam": 0.2, "std": 2.0, "seed": 2, "max_norm": 2.0},
    }
    for layer, options in layers.items():
        monkeypatch.setitem(settings.DEFAULTS, layer, options)
    c = Setting(env="bandit:arms=3", seed=5)
    assert (c.lam, c.std, c.max_norm, c.seed, c.gamma) == (0.4, 3.0, 2.0, 5, 0.99)
    assert (Setting(env="bandit", lam=0.0).lam, Setting().lam) == (0.0, 0.3)


def test_defaults_are_listed_in_the_order_in_which_they_win():
    """Families, then algorithms, then both: --help says that the last of several wins."""
    kinds = []
    for layer in settings.DEFAULTS:
        if layer in envs.FAMILIES:
            kinds.append(0)
        elif layer in metarl.ALGORITHMS:
            kinds.append(1)
        else:
            algo, family = layer.split()
            assert algo in metarl.ALGORITHMS and family in envs.FAMILIES
            kinds.append(2)
    assert kinds == sorted(kinds)
    known = {f.name for f in fields(Setting)}
    assert all(options.keys() <= known for options in settings.DEFAULTS.values())


@pytest.mark.parametrize("env", envs.FAMILIES)
def test_fomaml_is_maml_but_for_its_estimator(env):
    maml, fomaml = asdict(Setting(algo="maml", env=env)), asdict(Setting(algo="fomaml", env=env))
    assert {name for name in maml if maml[name] != fomaml[name]} == {"algo", "estimator"}
    assert fomaml["estimator"] == "first-order"


# --- What is allowed ---
CONTAINS = "which contains the episode itself"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"alpha": 0}, "--alpha 0: must be a finite number above 0"),
        ({"alpha": True}, "--alpha True: must be a finite number"),
        ({"lam": -0.1}, "--lam -0.1: must be a number from 0 to 1"),
        ({"seed": True}, "--seed True: must be a whole number of at least 0"),
        ({"test_tasks": 1}, "--test-tasks 1: must be a whole number of at least 2"),
        ({"hidden": 8}, "--hidden 8: must be whole numbers above 0"),
        ({"hidden": "88"}, "--hidden 88: must be whole numbers above 0"),
        ({"hidden": (8, True)}, "--hidden"),
        ({"hidden": (8.0,)}, "--hidden"),
        ({"alpha": 10**309}, "--alpha 1000.*: must be a finite number above 0"),
        ({"alpha": "0.5"}, "--alpha 0.5: must be a finite number above 0"),
        ({"gamma": True}, "--gamma True: must be a number from 0 to 1"),
        ({"tasks": 10**10}, "--tasks 10000000000: must be .* at most 1,000,000,000"),
        ({"tasks": 20.0}, "--tasks 20.0: must be a whole number"),
        ({"env": 5}, "--env 5: must be a name, or an object with obs_dim, action_dim, discrete"),
        ({"env": envs.PointMass}, "--env <class 'envs.PointMass'>: must be a name, or an object"),
        ({"env": {"horizon": 3}}, "--env {'horizon': 3}: must be a name, or an object"),
        ({"policy": ()}, "--policy .*: must be a name, or an object with actor or log_prob"),
        ({"policy": policies.Policy}, "--policy <class .*: must be a name, or an object"),
        ({"hidden": (10_000, 10_000)}, "must be at most ten million parameters"),
        ({"standardise": 1}, "--standardise 1: must be True or False"),
        ({"algo": "bandit"}, "--algo bandit: must be maml, fomaml, emaml, joint, reptile, es-maml"),
        ({"env": "maze"}, "--env maze: must be pointmass, sparse-pointmass"),
        ({"env": ":arms=3"}, "--env :arms=3: must be pointmass"),
        ({"policy": "deep"}, "--policy deep: must be linear, mlp"),
        ({"algo": "joint", "inner_steps": 1}, "--inner-steps 1: must be 0 for joint"),
        ({"inner_steps": 0}, "--inner-steps 0: must be at least 1, but for joint"),
        ({"inner_optimizer": "adam"}, "--inner-optimizer adam: must be sgd for maml"),
        ({"algo": "reptile", "inner": "es"}, "--inner es: must be pg for reptile"),
        ({"algo": "nes", "inner": "pg"}, "--deterministic True: must be off for policy gradients"),
        ({"algo": "nes", "inner": "es", "episodes": 1}, "--episodes 1: must be at least 2"),
        ({"algo": "nes", "inner": "es", "adapt_episodes": 1}, "--adapt-episodes 1: must be at lea"),
        ({"episodes": 1}, f"--episodes 1: must be at least 2 with --baseline time, {CONTAINS}"),
        (
            {"algo": "joint", "adapt_episodes": 1, "baseline": "linear"},
            f"--adapt-episodes 1: must be at least 2 with --baseline linear, {CONTAINS}",
        ),
        (
            {"algo": "nes", "inner": "pg", "deterministic": False, "episodes": 1},
            f"--episodes 1: must be at least 2 with --baseline time, {CONTAINS}",
        ),
        ({"env": "bandit:horizon=1"}, "--episodes 1: must be at least 2 with --standardise, as"),
        ({"algo": "reptile", "outer": "trpo"}, "--outer trpo: must be sgd or adam for reptile"),
        ({"algo": "nes", "outer": "trpo"}, "--outer trpo: must be sgd or adam for nes"),
        ({"algo": "es-maml", "population": 5}, "--population 5: must be even for es-maml"),
        ({"algo": "cma-es", "compare": "joint"}, "--compare joint: must be none for cma-es"),
        (
            {"algo": "reptile", "inner_optimizer": "adam", "compare": "joint"},
            "--compare joint: must be none with --inner-optimizer adam",
        ),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        Setting(**options)


def test_what_is_allowed_at_the_edge():
    Setting(lam=0, gamma=1, alpha=1, hidden=(), test_tasks=2, test_steps=0, seed=0)
    Setting(algo="nes", inner="es", episodes=2, adapt_episodes=2, population=3)
    Setting(algo="nes", inner="pg", deterministic=False)
    Setting(algo="reptile", inner_optimizer="adam")
    Setting(algo="joint", outer="trpo")
    Setting(alpha=1.7976931348623157e308, beta=5e-324, tasks=10**9, seed=10**30)


def test_one_episode_is_enough_where_no_baseline_contains_it():
    Setting(episodes=1, adapt_episodes=1, baseline="none")
    Setting(test_episodes=1)
    Setting(algo="nes", episodes=1, adapt_episodes=1)  # hill climbing, which has no baseline
    Setting(env="bandit:horizon=1", standardise=False)
    Setting(env="bandit:horizon=1", episodes=2, adapt_episodes=2)


@pytest.mark.parametrize("name", policies.BASELINES)
def test_a_baseline_that_contains_the_episode_moves_with_it_and_is_known(name):
    noise = noise_at(0)
    obs, returns = noise.standard_normal((1, 2, 6, 1)), noise.standard_normal((1, 2, 6))
    D = policies.Trajectories(obs, None, returns, np.ones((1, 2, 6), bool))
    changed = returns.copy()
    changed[0, 0] += 1  # the first of two episodes
    moved = policies.BASELINES[name](D, changed) - policies.BASELINES[name](D, returns)
    assert (moved[0, 0] != 0).any() == (name in policies.WITH_THE_EPISODE)


# --- Values as others have them ---
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, np.array])
def test_numbers_of_numpy_become_those_of_python(kind):
    c = Setting(alpha=kind(0.5), gamma=kind(1))
    assert (c.alpha, c.gamma) == (0.5, 1) and type(c.alpha) is type(c.gamma) is float
    assert c == Setting(alpha=0.5, gamma=1.0) and hash(c) == hash(Setting(alpha=0.5, gamma=1.0))


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.uint64, np.array])
def test_whole_numbers_of_numpy_become_those_of_python(kind):
    c = Setting(seed=kind(5), hidden=(kind(8), kind(9)), beta=kind(1))
    assert (c.seed, c.hidden, c.beta) == (5, (8, 9), 1.0)
    assert [type(x) for x in (c.seed, *c.hidden, c.beta)] == [int, int, int, float]


def test_other_values_of_numpy_become_those_of_python():
    c = Setting(learn_alpha=np.bool_(False), algo=np.str_("maml"), hidden=np.array([8, 9]))
    assert c.learn_alpha is False and c.hidden == (8, 9)
    assert type(c.algo) is str
    for name in ("alpha", "gamma", "seed", "tasks"):
        with pytest.raises(ValueError, match="True: must be a"):
            Setting(**{name: np.bool_(True)})
    with pytest.raises(ValueError, match="--standardise 1: must be True or False"):
        Setting(standardise=np.int64(1))


@pytest.mark.parametrize("algo", metarl.ALGORITHMS)
def test_the_config_of_a_result_is_a_setting(algo):
    """Through JSON, which has lists for tuples, and no numbers of NumPy."""
    c = Setting(algo=algo, env="fourcorners", alpha=np.float32(0.3), seed=np.int64(3))
    text = json.dumps(settings.values(c), allow_nan=False)
    assert Setting(**json.loads(text)) == c


def test_a_whole_number_for_a_fraction_is_written_as_one():
    assert json.dumps(Setting(alpha=1).alpha) == "1.0"


def test_a_named_tuple_may_be_a_family():
    class Point(NamedTuple):
        obs_dim: int = 2
        action_dim: int = 2
        discrete: bool = False
        horizon: int = 3

    assert Setting(env=Point()).env == Point() and type(Setting(env=Point()).family) is Point


# --- One setting made from another ---
ANOTHER = r"of another algorithm or family: .*c\.changed"


def test_what_was_not_given_follows_the_algorithm_and_the_family():
    assert Setting("fomaml").changed(algo="maml") == Setting("maml")
    c = Setting("maml", alpha=0.6, tasks=7)
    assert c.changed(env="bandit") == Setting("maml", env="bandit", alpha=0.6, tasks=7)
    assert c.changed(algo="es-maml", tasks=9) == Setting("es-maml", alpha=0.6, tasks=9)
    assert c.changed() == c and c.changed(alpha=None) == Setting("maml", tasks=7)
    assert c.changed(alpha=None, algo="maml") == Setting("maml", tasks=7)
    given_again = Setting(env="bandit", alpha=Setting(env="bandit").alpha, tasks=7)
    assert given_again.changed(env="pointmass") == Setting(tasks=7)  # as if it were not given


def test_what_is_replaced_counts_as_given():
    c = replace(Setting("fomaml"), alpha=0.2)
    assert c.changed(algo="maml", env="fourcorners") == Setting(env="fourcorners", alpha=0.2)
    assert replace(c, alpha=None).alpha == 0.5


@pytest.mark.parametrize(
    "former, change, words",
    [
        ({"algo": "fomaml"}, {"algo": "maml"}, ANOTHER),
        ({"algo": "fomaml"}, {"algo": "maml", "estimator": "first-order"}, ANOTHER),
        ({"algo": "maml"}, {"algo": "fomaml", "estimator": "first-order"}, ANOTHER),
        ({"env": "bandit"}, {"env": "pointmass"}, ANOTHER),
        ({"env": "fourcorners:horizon=3"}, {"env": "pointmass"}, ANOTHER),
        ({"algo": "fomaml", "env": envs.Bandit()}, {"algo": "maml"}, ANOTHER),
        ({"env": envs.Bandit()}, {"env": "bandit"}, ANOTHER),
        ({"algo": "maml"}, {"algo": "ppo"}, "--algo ppo: must be"),
    ],
)
def test_replace_takes_no_other_algorithm_or_family(former, change, words):
    with pytest.raises(ValueError, match=words):
        replace(Setting(**former), **change)
    with pytest.raises(ValueError, match=words):  # nor after something else was replaced
        replace(replace(Setting(**former), seed=3), **change)


def test_replace_takes_options_of_the_family_and_objects():
    maml = Setting("maml")
    assert maml.std == 0.4
    near = replace(maml, env="pointmass:horizon=9")
    assert near.std == 0.4 and near.family.horizon == 9
    family = envs.PointMass(horizon=9)  # of an object there are no defaults
    kept = replace(maml, env=family)
    assert kept.std == 0.4 and maml.changed(env=family).std == 1.0
    assert kept.changed(seed=3) == replace(kept, seed=3) and kept.changed(seed=3).std == 0.4
    assert replace(kept, env="pointmass:horizon=9") == near
    with pytest.raises(ValueError, match=ANOTHER):
        replace(replace(Setting("fomaml"), env=family), algo="maml")


def test_a_setting_survives_pickling_with_what_was_given():
    c = pickle.loads(pickle.dumps(Setting("fomaml", alpha=0.3)))
    assert c == Setting("fomaml", alpha=0.3)
    assert c.changed(algo="maml") == Setting("maml", alpha=0.3)


def test_a_setting_cannot_be_changed_but_replaced():
    c = Setting(algo="reptile", population=8)  # which it does not use: allowed in Python
    with pytest.raises(AttributeError):
        c.alpha = 3.0
    joint = joint_beside(replace(c, compare="joint", beta=0.2))
    assert joint.algo == "joint" and (joint.beta, joint.population) == (0.2, 8)


# --- What an algorithm really reads ---
NUMBERS = dict(
    env="pointmass:horizon=4",
    policy="mlp",
    hidden=(3,),
    tasks=2,
    episodes=3,
    test_tasks=2,
    test_steps=2,
    adapt_episodes=3,
    test_episodes=2,
    population=4,
    inner_steps=2,
    max_norm=1.0,
    iterations=3,
)
OTHER = {
    "hidden": (4,),
    "activation": "relu",
    "std": 0.7,
    "deterministic": True,
    "inner": "es",
    "inner_steps": 3,
    "alpha": 0.3,
    "alpha_decay": 0.8,
    "learn_alpha": True,
    "inner_optimizer": "adam",
    "inner_sigma": 0.2,
    "gamma": 0.5,
    "lam": 0.5,
    "baseline": "none",
    "standardise": False,
    "estimator": "dice",
    "sampling_term": True,
    "outer": "sgd",
    "beta": 0.01,
    "beta_alpha": 0.01,
    "max_norm": 0.01,
    "epsilon": 0.5,
    "population": 6,
    "sigma": 0.3,
    "fitness": "raw",
    "nes": "xnes",
    "tasks": 3,
    "episodes": 4,
    "seed": 1,
    "dtype": "float32",
    "test_tasks": 3,
    "test_steps": 1,
    "adapt_episodes": 4,
    "test_episodes": 3,
}
ONE_VALUE = {  # options of which some algorithm allows a single value
    "deterministic",
    "inner",
    "inner_steps",
    "inner_optimizer",
    "estimator",
    "sampling_term",
    "learn_alpha",
}
RUNS = [
    {"algo": "maml", "learn_alpha": False},
    {"algo": "maml", "learn_alpha": True},
    {"algo": "maml", "learn_alpha": True, "outer": "trpo", "iterations": 1},
    {"algo": "maml", "policy": "linear", "learn_alpha": False},
    {"algo": "maml", "env": "bandit:horizon=4", "baseline": "time", "gamma": 0.9},
    {"algo": "fomaml", "learn_alpha": True},
    {"algo": "emaml", "learn_alpha": True},
    {"algo": "joint", "inner_steps": 0},
    {"algo": "reptile"},
    {"algo": "es-maml"},
    {"algo": "es-maml", "inner": "es", "deterministic": False},
    {"algo": "es-maml", "inner": "pg", "deterministic": False},
    {"algo": "nes"},
    {"algo": "nes", "inner": "es", "learn_alpha": False},
    {"algo": "nes", "inner": "pg", "deterministic": False, "learn_alpha": False},
    {"algo": "cma-es"},
    {"algo": "cma-es", "inner": "pg", "deterministic": False},
]


def outcome(c):
    """All returns of a short run, in training and in the test."""
    returns = []
    for state in islice(metarl.train(c, metarl.initial_state(c)), c.iterations):
        returns += [state["pre"], state["post"], state["env_steps"]]
    return np.append(returns, metarl.meta_test(c, state["theta"])[1])


def differ(a, b):
    return a.shape != b.shape or not np.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", RUNS, ids=str)
def test_what_is_refused_changes_nothing_and_what_is_not_does(options):
    """Each option is changed by itself: the returns are the same if and only if it is ignored.

    But for options of which the algorithm allows one value only, and two that a run reads in vain:
    all episodes of a deterministic policy are the same in this family, and CMA-ES turns the
    rounding of an unused coordinate into another basis of its eigenspaces.
    """
    c = Setting(**NUMBERS | options)
    before = outcome(c)
    unused = ignored(c)
    in_vain = {"test_episodes"} if c.deterministic else set()
    if c.algo == "cma-es":
        in_vain.add("std")
    single = set()
    names = OTHER.keys() - in_vain
    if c.outer == "trpo":  # which is slow
        names = {"beta", "beta_alpha", "max_norm", "alpha", "epsilon", "tasks", "sigma"}
    for name in names:
        value = OTHER[name]
        if getattr(c, name) == value:
            value = "hc" if name == "inner" else False
        try:
            other = replace(c, **{name: value})
        except ValueError:
            single.add(name)
            continue
        assert differ(before, outcome(other)) == (name not in unused), name
    assert single <= ONE_VALUE


def test_two_runs_ignore_what_neither_reads():
    alone, beside = Setting(algo="reptile"), Setting(algo="reptile", compare="joint")
    assert ignored(alone).keys() - ignored(beside).keys() == {"beta", "outer", "max_norm"}
    assert not ignored(beside).keys() - ignored(alone).keys()


@pytest.mark.parametrize("algo", ["maml", "fomaml", "emaml", "reptile"])
def test_joint_beside_an_algorithm_has_no_inner_loop_and_is_the_same_but_for_that(algo):
    c = Setting(algo=algo, beta=0.2, compare="joint")
    joint = joint_beside(c)
    of_joint = {
        "algo": "joint",
        "inner_steps": 0,
        "sampling_term": False,
        "learn_alpha": False,
        "compare": "none",
    }
    for f in fields(c):
        assert getattr(joint, f.name) == of_joint.get(f.name, getattr(c, f.name))


# --- Entries of one's own ---
@dataclass(frozen=True)
class Maze(envs.PointMass):
    walls: int = 3


def test_own_entries_are_options_at_once(monkeypatch, capsys):
    used = set()

    def mine(D, returns):
        used.add("baseline")
        return np.zeros_like(returns)

    def squared(r):
        used.add("estimator")
        return r + r * r

    def nothing(c, theta, scale, tasks, noise):
        used.add("inner")
        D = metarl.rollout(c.family, c.pi, theta, tasks, c.episodes, noise)
        return theta, [D]

    for table, name, entry in (
        (policies.BASELINES, "mean", mine),
        (policies.ESTIMATORS, "squared", squared),
        (policies.ACTIVATIONS, "leaky", policies.ACTIVATIONS["relu"]),
        (metarl.INNER_LOOPS, "nothing", nothing),
        (metarl.ALGORITHMS, "mine", metarl.ALGORITHMS["reptile"]),
        (envs.FAMILIES, "maze", Maze),
    ):
        with pytest.raises(ValueError, match="must be "):
            Setting(**{OPTION[name]: name})
        monkeypatch.setitem(table, name, entry)

    c = Setting(**NUMBERS | {"env": "maze:horizon=4,walls=2"}, baseline="mean", estimator="squared")
    assert c.family == Maze(horizon=4, walls=2)
    assert np.isfinite(outcome(c)).all()
    c = Setting(algo="nes", inner="nothing", deterministic=False, **NUMBERS)
    returns = metarl.meta_test(c, metarl.initial_state(c)["theta"])[1]
    assert used == {"baseline", "estimator", "inner"} and returns.shape == (2, 3)
    assert not ignored(c).keys() & {"alpha", "gamma", "inner_sigma"}  # it may read what it likes
    assert not ignored(Setting(algo="mine")).keys() & {"beta", "epsilon", "population"}

    with pytest.raises(SystemExit):
        cli.main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    for listed in (
        "dice, squared)",
        "linear, mean)",
        "hc, nothing)",
        "cma-es, mine)",
        "relu, leaky)",
    ):
        assert listed in words
    assert "maze horizon=100, box=0.5, radius=0.01, walls=3" in words
    flags = "--algo nes --inner nothing --no-deterministic --alpha 2 --env maze:walls=1".split()
    assert cli.prepare(flags)[0].alpha == 2


OPTION = {
    "mean": "baseline",
    "squared": "estimator",
    "leaky": "activation",
    "nothing": "inner",
    "mine": "algo",
    "maze": "env",
}


# --- A family as text ---
def test_a_family_as_text():
    assert make_family("pointmass") == make_family("pointmass:") == envs.PointMass()
    assert make_family("pointmass:horizon=7") == envs.PointMass(horizon=7)
    family = make_family("bandit:arms=2, horizon=3,prior=((1, 9), (5, 5))")
    assert family == envs.Bandit(arms=2, horizon=3, prior=((1, 9), (5, 5)))
    assert Setting(env="linear-bandit:dims=2").family == envs.LinearBandit(dims=2)
    assert_allclose(make_family("linear-bandit:noise=-0.0").noise, 0)


@pytest.mark.parametrize(
    "text, words",
    [
        ("maze", "environment 'maze': must be one of pointmass, sparse-pointmass"),
        (
            "pointmass:size=3",
            "options of environment pointmass 'size=3': must be among horizon=100, box=0.5",
        ),
        ("bandit:arms", "options of environment bandit 'arms': must be among arms=5, horizon=10"),
        ("bandit:3", "options of environment bandit '3'"),
        ("bandit:arms=", "options of environment bandit 'arms='"),
        ("bandit:arms=f(3)", "options of environment bandit"),
        ("bandit:arms=__import__('os').getcwd()", "options of environment bandit"),
        ("bandit:**{}", "options of environment bandit"),
        ("bandit:**{'arms': 3}", "options of environment bandit"),
        ("bandit:arms=3)(horizon=2", "options of environment bandit"),
        ("bandit:arms=3) or dict(arms=2", "options of environment bandit"),
        ("bandit:arms={[]: 1}", "options of environment bandit"),
        ("bandit:arms=" + 5000 * "-" + "1", "options of environment bandit"),
        ("bandit:arms=" + 5000 * "(", "options of environment bandit"),
        ("bandit:arms=" + 5000 * "9", "options of environment bandit"),
        ("bandit:arms=\0", "options of environment bandit"),
        ("bandit:arms='x'", "arms 'x': must be a whole number"),
        ("bandit:arms=2.5", "arms 2.5: must be a whole number of at least 2"),
        ("bandit:arms=1", "arms 1: must be a whole number of at least 2"),
        ("bandit:prior=3", "prior 3: must be"),
        ("linear-bandit:noise=-1", "noise -1"),
    ],
)
def test_a_text_that_is_no_family_is_refused(text, words, capsys):
    with pytest.raises(ValueError) as error:
        make_family(text)
    assert words in str(error.value)
    assert cli.main(["--env", text]) == 2
    err = capsys.readouterr().err
    assert err.startswith("metarl: ") and err.count("\n") == 1
