"""Every option of a run: its default, its help, what is allowed. The command line is made from it.

`DEFAULTS` holds what suits an algorithm or a family better than the default; `Setting` puts the layers together;
`parser` turns it into options.
"""

import argparse
import contextlib
import math
from dataclasses import dataclass, field, fields
from functools import cached_property

import envs
import policies
from metarl import BLACK_BOXES, GRADIENTS, INNER_LOOPS
from policies import ESTIMATORS

BANDITS = {
    "policy": "linear",
    "gamma": 0.0,
    "baseline": "none",
    "alpha": 8.0,
    "beta": 0.03,
    "tasks": 40,
}
BANDITS |= {"episodes": 1, "test_tasks": 400, "adapt_episodes": 1}
BLACK_BOX = {
    "policy": "linear",
    "inner": "hc",
    "learn_alpha": True,
    "deterministic": True,
    "episodes": 20,
}
BLACK_BOX |= {"adapt_episodes": 20, "test_tasks": 400, "test_episodes": 1}
DEFAULTS = {  # what differs from Setting by family, by algorithm, and by both; the later wins
    "reptile": {"inner_steps": 3},
    "joint": {"inner_steps": 0},
    "fomaml": {"estimator": "first-order"},
    "emaml": {"estimator": "log-prob", "sampling_term": True, "beta": 0.0003},
    "es-maml": BLACK_BOX | {"population": 500, "beta": 0.05, "sigma": 0.2, "iterations": 300},
    "nes": BLACK_BOX,
    "cma-es": BLACK_BOX,
    "pointmass": {"std": 0.5},
    "maml pointmass": {"learn_alpha": True, "std": 0.4, "tasks": 40},
    "fomaml pointmass": {"learn_alpha": True},
    "sparse-pointmass": {"alpha": 0.25, "test_tasks": 80},
    "fourcorners": {"hidden": (32,), "iterations": 150, "test_tasks": 80},
    "bandit": BANDITS,
    "linear-bandit": BANDITS,
    "maml turned-pointmass": {"alpha": 1.0},
    "reptile fourcorners": {"alpha": 1.0},
    "reptile bandit": {"alpha": 1.0, "epsilon": 0.03},
    "reptile linear-bandit": {"alpha": 1.0, "epsilon": 0.03},
}


def option(default, help, allowed):
    """A field with its default, its one-line help, and what is allowed: in words, and as a predicate."""
    words, holds = allowed
    return field(
        default=None, metadata={"default": default, "help": help, "allowed": words, "holds": holds}
    )


# fmt: off
def flag(f): return "--" + f.name.replace("_", "-")
def one_of(*names): return ", ".join(names), lambda value: value in names
def whole(least): return f"a whole number of at least {least}", lambda n: type(n) is int and n >= least
POSITIVE = "a finite number above 0", lambda x: type(x) in (int, float) and 0 < x < math.inf
FRACTION = "a number from 0 to 1", lambda x: type(x) in (int, float) and 0 <= x <= 1
WIDTHS = "whole numbers above 0", lambda ns: type(ns) is tuple and all(type(n) is int and n > 0 for n in ns)
FAMILY = ", ".join(envs.FAMILIES), lambda name: name.partition(":")[0] in envs.FAMILIES
TRUTH = "True or False", lambda value: type(value) is bool
# fmt: on


@dataclass(frozen=True)
class Setting:
    """All options of a run, each a plain value; ValueError for one that is not allowed.

    What is None takes its default, or that of algorithm and family in DEFAULTS. In Python `env` and `policy` may also
    be objects that behave like a family of envs.py and like Policy.
    """

    algo: str = option("maml", "algorithm", one_of(*GRADIENTS, "reptile", *BLACK_BOXES))
    env: str = option("pointmass", "task family, with options as in bandit:arms=10", FAMILY)
    policy: str = option(
        "mlp", "policy network; linear has no hidden layers", one_of("linear", "mlp")
    )
    hidden: tuple = option((64, 64), "units in each hidden layer of the mlp", WIDTHS)
    std: float = option(
        1.0, "first standard deviation of the actions of a Gaussian policy", POSITIVE
    )
    activation: str = option("tanh", "of the hidden layers", one_of(*policies.ACTIVATIONS))
    alpha: float = option(0.5, "inner step size", POSITIVE)
    alpha_decay: float = option(0.5, "factor on alpha in inner steps after the first", POSITIVE)
    beta: float = option(0.003, "outer step size of sgd and adam", POSITIVE)
    beta_alpha: float = option(
        0.03, "outer step size of learned step sizes, in their logarithm", POSITIVE
    )
    epsilon: float = option(1.0, "outer step of reptile, a fraction of the way to phi_k", POSITIVE)
    tasks: int = option(20, "tasks in an iteration", whole(1))
    episodes: int = option(
        20, "K, episodes of a task for one inner step: for a gradient, or as queries", whole(1)
    )
    inner_steps: int = option(1, "k, inner steps in training; joint has none", whole(0))
    inner_optimizer: str = option(
        "sgd", "of the inner steps; maml takes sgd only", one_of("sgd", "adam")
    )
    estimator: str = option(
        "lvc", "what the meta-gradient sees of the inner step", one_of(*ESTIMATORS)
    )
    sampling_term: bool = option(
        False, "add what the sampling of the inner episodes contributes", TRUTH
    )
    learn_alpha: bool = option(
        False, "meta-learn a factor on the inner step (hc: the noise) of each parameter", TRUTH
    )
    outer: str = option(
        "adam", "optimiser of maml and its kin and of es-maml", one_of("sgd", "adam", "trpo")
    )
    max_norm: float = option(
        10.0, "length to which sgd and adam scale down a longer outer gradient", POSITIVE
    )
    gamma: float = option(0.99, "discount of rewards, per time step", FRACTION)
    lam: float = option(1.0, "lambda of the generalised advantages", FRACTION)
    baseline: str = option(
        "time", "what returns-to-go are compared with", one_of(*policies.BASELINES)
    )
    standardise: bool = option(True, "scale the advantages of a task to mean 0, deviation 1", TRUTH)
    iterations: int = option(100, "outer steps", whole(1))
    seed: int = option(0, "of all noise", whole(0))
    dtype: str = option("float64", "of all numbers", one_of("float32", "float64"))
    test_tasks: int = option(40, "held-out tasks", whole(2))
    test_episodes: int = option(40, "episodes that measure the return on a held-out task", whole(1))
    adapt_episodes: int = option(
        40, "episodes for one adaptation step on a held-out task", whole(1)
    )
    test_steps: int = option(3, "adaptation steps on held-out tasks", whole(0))
    inner: str = option("pg", "inner loop of es-maml, nes and cma-es", one_of(*INNER_LOOPS))
    inner_sigma: float = option(0.3, "noise of the queries of the inner loops es and hc", POSITIVE)
    deterministic: bool = option(
        False, "act by the mode of the policy; not with policy gradients", TRUTH
    )
    population: int = option(24, "n, points in a generation of es-maml, nes and cma-es", whole(2))
    sigma: float = option(0.1, "first standard deviation of es-maml, nes and cma-es", POSITIVE)
    fitness: str = option(
        "ranks", "what es-maml weighs directions by", one_of("raw", "standardised", "ranks")
    )
    nes: str = option("snes", "the strategy of nes", one_of("snes", "xnes"))
    compare: str = option("none", "a baseline to train and test beside it", one_of("none", "joint"))

    def __post_init__(self):
        algo, family = self.algo or "maml", str(self.env or "pointmass").partition(":")[0]
        special = {
            k: v
            for layer in (family, algo, f"{algo} {family}")
            for k, v in DEFAULTS.get(layer, {}).items()
        }
        for f in fields(self):
            if getattr(self, f.name) is None:
                object.__setattr__(self, f.name, special.get(f.name, f.metadata["default"]))
            value = getattr(self, f.name)
            if isinstance(value, str) or f.name not in ("env", "policy"):
                self.require(f.metadata["holds"](value), f.name, f.metadata["allowed"])
        if isinstance(self.policy, str):
            self.require(self.network.size <= 10**7, "hidden", "at most ten million parameters")
        for holds, name, allowed in self.combinations():
            self.require(holds, name, allowed)

    def combinations(self):
        """What is allowed for one option because of others: (whether it holds, option, what is allowed)."""
        algo, gradients, black = self.algo, self.algo in GRADIENTS, self.algo in BLACK_BOXES
        first, pair = self.estimator == "first-order", 2 if self.inner == "es" else 1
        yield (
            (algo == "joint") == (self.inner_steps == 0),
            "inner_steps",
            "0 for joint, else at least 1",
        )
        yield not gradients or self.inner_optimizer == "sgd", "inner_optimizer", f"sgd for {algo}"
        yield algo != "fomaml" or first, "estimator", "first-order for fomaml"
        yield algo != "emaml" or self.sampling_term, "sampling_term", "on for emaml"
        yield (
            not self.sampling_term or gradients and algo != "joint",
            "sampling_term",
            f"off for {algo}",
        )
        exact = first or self.estimator == "log-prob"
        yield (
            not self.sampling_term or exact,
            "estimator",
            "log-prob or first-order: others count the sampling twice",
        )
        yield (
            not self.learn_alpha or black or gradients and algo != "joint",
            "learn_alpha",
            f"off for {algo}",
        )
        yield self.outer != "trpo" or gradients, "outer", f"sgd or adam for {algo}"
        yield black or self.inner == "pg", "inner", f"pg for {algo}"
        for name in ("episodes", "adapt_episodes"):
            yield getattr(self, name) >= pair, name, "at least 2, a pair, for the inner loop es"
        yield (
            not black or self.compare == "none",
            "compare",
            f"none for {algo}: joint takes policy gradients",
        )
        yield (
            not (self.inner == "pg" and self.deterministic),
            "deterministic",
            "off for policy gradients",
        )
        yield (
            algo != "es-maml" or self.population % 2 == 0,
            "population",
            "even for es-maml, as pairs are",
        )

    def require(self, holds, name, allowed):
        if not holds:
            raise ValueError(
                f"{flag(self.__dataclass_fields__[name])} {getattr(self, name)}: must be {allowed}"
            )

    @cached_property
    def family(self):
        if not isinstance(self.env, str):
            return self.env
        import ast
        name, _, text = self.env.partition(":")
        call = ast.parse(f"dict({text})", mode="eval").body
        return envs.make(name, **{k.arg: ast.literal_eval(k.value) for k in call.keywords})

    pi = property(lambda self: self.network)

    @cached_property
    def network(self):
        if not isinstance(self.policy, str):
            return self.policy
        env, hidden = self.family, self.hidden if self.policy == "mlp" else ()
        head = self.activation, self.deterministic, self.std
        return policies.Policy(env.obs_dim, env.action_dim, env.discrete, hidden, *head)


# --- The same on the command line ---
class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise ValueError(message)


def number(kind):
    """A function from text to float or, for an int or tuple of them, int; other text stays, for Setting to refuse."""

    def convert(text):
        with contextlib.suppress(ValueError):
            return int(text) if kind is tuple else kind(text)
        return text

    return convert


def default(f):
    """The default of an option as text, with what differs by algorithm and family."""
    text = lambda value: " ".join(map(str, value)) if f.type is tuple else str(value)
    special = [
        f"{name} {text(values[f.name])}" for name, values in DEFAULTS.items() if f.name in values
    ]
    return "; ".join([text(f.metadata["default"]), *special])


def parser():
    """An ArgumentParser with a flag for each field of Setting, absent where it is not given. ValueError for bad input."""
    form = lambda prog: argparse.HelpFormatter(prog, max_help_position=26, width=140)
    about = "Outer-loop meta-reinforcement learning, judged on held-out tasks."
    p = Parser(prog="metarl.py", description=about, allow_abbrev=False, formatter_class=form)
    for f in fields(Setting):
        names = f": {f.metadata['allowed']}" if f.type is str else ""
        options = {
            "default": argparse.SUPPRESS,
            "help": f"{f.metadata['help']}{names} [{default(f)}]",
        }
        if f.type is bool:
            p.add_argument(flag(f), action=argparse.BooleanOptionalAction, **options)
        else:
            options |= {"nargs": "*"} if f.type is tuple else {}
            metavar = {float: "X", str: "NAME"}.get(f.type, "N")
            p.add_argument(flag(f), type=number(f.type), metavar=metavar, **options)
    return p
