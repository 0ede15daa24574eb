"""Every option of a run: its default, its help, what is allowed. cli.py makes its flags from it.

In this order: DEFAULTS, which suit an algorithm or a family better than the plain defaults;
IGNORED, the options that a choice leaves without effect; what is allowed; `Setting`, all options
and their checks; and how options and families are written as text.

The names of algorithms, inner loops, estimators, baselines, activations and families stand where
these things are, in metarl.py, policies.py and envs.py. They are looked up whenever a setting is
checked, so that what is added there, or to those tables by a program, is an option at once.
"""

import ast
import inspect
import math
import sys
from dataclasses import InitVar, dataclass, field, fields, replace
from functools import cached_property

import numpy as np

import envs
import metarl
import policies
from metarl import BLACK_BOXES, GRADIENTS
from policies import WITH_THE_EPISODE, WITHOUT_SCORES

BANDITS = {
    "policy": "linear",
    "gamma": 0.0,
    "baseline": "none",
    "alpha": 8.0,
    "beta": 0.03,
    "tasks": 40,
    "episodes": 1,
    "test_tasks": 400,
    "adapt_episodes": 1,
}
BLACK_BOX = {
    "policy": "linear",
    "inner": "hc",
    "learn_alpha": True,
    "deterministic": True,
    "episodes": 20,
    "adapt_episodes": 20,
    "test_tasks": 400,
    "test_episodes": 1,
}
ES_MAML = {
    **BLACK_BOX,
    "population": 500,
    "beta": 0.05,
    "sigma": 0.2,
    "iterations": 300,
}
MAML_ON_POINTMASS = {"learn_alpha": True, "std": 0.4, "tasks": 40}
# The first step tells the dynamics. The goal is near after it, and steps as long would go past it.
MAML_ON_TURNED_POINTMASS = {
    "std": 0.25,
    "baseline": "linear",
    "alpha": 0.2,
    "alpha_decay": 0.15,
    "tasks": 40,
}
# Rewards are random even where the policy is not.
BLACK_BOX_ON_BANDITS = {"test_episodes": 10}

# What differs from the defaults in Setting. Three layers: by family, by algorithm, and by both, as
# "reptile bandit". The later wins (see `layers`), and what is given wins over all. So what is to
# change for reptile on the bandit, and for nothing else, belongs to "reptile bandit".
DEFAULTS = {
    # by family
    "pointmass": {"std": 0.5},
    "sparse-pointmass": {"alpha": 0.25, "test_tasks": 80},
    "fourcorners": {"hidden": (32,), "iterations": 150, "test_tasks": 80},
    "bandit": BANDITS,
    "linear-bandit": BANDITS,
    # by algorithm
    "fomaml": {"estimator": "first-order"},
    "emaml": {"estimator": "log-prob", "sampling_term": True, "beta": 0.0003},
    "joint": {"inner_steps": 0},
    "reptile": {"inner_steps": 3},
    "es-maml": ES_MAML,
    "nes": BLACK_BOX,
    "cma-es": BLACK_BOX,
    # by both
    "maml pointmass": MAML_ON_POINTMASS,
    "fomaml pointmass": MAML_ON_POINTMASS,
    "maml turned-pointmass": MAML_ON_TURNED_POINTMASS,
    "fomaml turned-pointmass": MAML_ON_TURNED_POINTMASS,
    "reptile turned-pointmass": {
        "std": 0.25,
        "baseline": "linear",
        "alpha": 0.15,
        "alpha_decay": 0.2,
    },
    "maml fourcorners": {"alpha_decay": 0.125},
    "fomaml fourcorners": {"alpha_decay": 0.125},
    "reptile fourcorners": {"alpha": 0.7, "alpha_decay": 0.25},
    "reptile bandit": {"alpha": 1.0, "epsilon": 0.03},
    "reptile linear-bandit": {"alpha": 1.0, "epsilon": 0.03},
    "es-maml bandit": BLACK_BOX_ON_BANDITS,
    "es-maml linear-bandit": BLACK_BOX_ON_BANDITS,
    "nes bandit": BLACK_BOX_ON_BANDITS,
    "nes linear-bandit": BLACK_BOX_ON_BANDITS,
    "cma-es bandit": BLACK_BOX_ON_BANDITS,
    "cma-es linear-bandit": BLACK_BOX_ON_BANDITS,
}

OF_BLACK_BOXES = ("inner_sigma", "population", "sigma", "fitness", "nes")
OF_META_GRADIENTS = ("estimator", "sampling_term", "learn_alpha", "beta_alpha")
OF_ADVANTAGES = ("gamma", "lam", "baseline", "standardise")
NOT_OF_BLACK_BOXES = (
    "alpha_decay",
    "inner_optimizer",
    "estimator",
    "sampling_term",
    "beta_alpha",
    "max_norm",
    "epsilon",
)

# (option, its value): the options that are then never read. An algorithm or an inner loop that you
# add is not listed here: it may read every option.
IGNORED = {
    ("algo", "maml"): ("epsilon", *OF_BLACK_BOXES),
    ("algo", "fomaml"): ("epsilon", *OF_BLACK_BOXES),
    ("algo", "emaml"): ("epsilon", *OF_BLACK_BOXES),
    ("algo", "joint"): ("epsilon", *OF_BLACK_BOXES, *OF_META_GRADIENTS),
    ("algo", "reptile"): ("outer", "beta", "max_norm", *OF_BLACK_BOXES, *OF_META_GRADIENTS),
    ("algo", "es-maml"): (*NOT_OF_BLACK_BOXES, "tasks", "nes"),
    ("algo", "nes"): (*NOT_OF_BLACK_BOXES, "outer", "beta", "fitness"),
    ("algo", "cma-es"): (*NOT_OF_BLACK_BOXES, "outer", "beta", "fitness", "nes"),
    ("inner", "pg"): ("inner_sigma",),
    ("inner", "es"): OF_ADVANTAGES,
    ("inner", "hc"): ("alpha", *OF_ADVANTAGES),
    ("policy", "linear"): ("hidden", "activation"),
    ("deterministic", True): ("std",),
    ("learn_alpha", False): ("beta_alpha",),
    ("outer", "trpo"): ("beta", "beta_alpha", "max_norm"),
}


# --- What is allowed: `value in allowed` says whether a value is, `str(allowed)` what would be ---
class OneOf:
    """The names in a table (a dict or a tuple), as they are when asked."""

    def __init__(self, table):
        self.table = table

    def __contains__(self, value):
        return value in tuple(self.table)

    def __str__(self):
        return ", ".join(self.table)


class Family(OneOf):
    """The name of a family, perhaps with options: bandit:arms=10."""

    def __contains__(self, text):
        return super().__contains__(text.partition(":")[0])


class Such:
    """The values for which a predicate holds, and words for them."""

    def __init__(self, words, predicate):
        self.words = words
        self.predicate = predicate

    def __contains__(self, value):
        return self.predicate(value)

    def __str__(self):
        return self.words


def whole(least, most=math.inf):
    def is_whole(n):
        return type(n) is int and least <= n <= most  # not a bool, which is an int to Python

    words = f"a whole number of at least {least}"
    if most < math.inf:
        words += f" and at most {most:,}"
    return Such(words, is_whole)


def count(least):
    """A number of rows. Beyond a billion NumPy no longer says in words that memory is lacking."""
    return whole(least, 10**9)


def is_number(x):
    return type(x) in (int, float)


def is_positive(x):
    return is_number(x) and 0 < x <= sys.float_info.max  # a whole number can be larger


def is_fraction(x):
    return is_number(x) and 0 <= x <= 1


def are_widths(value):
    return type(value) is tuple and all(n in whole(1) for n in value)


def is_truth(value):
    return type(value) is bool


POSITIVE = Such("a finite number above 0", is_positive)
FRACTION = Such("a number from 0 to 1", is_fraction)
WIDTHS = Such("whole numbers above 0", are_widths)
TRUTH = Such("True or False", is_truth)

# What an object must have in place of a name: a number, a class or a dict is refused at once.
OF_FAMILIES = ("obs_dim", "action_dim", "discrete", "horizon")


def is_family(thing):
    has_all = all(hasattr(thing, name) for name in OF_FAMILIES)
    return has_all and not isinstance(thing, type)


def is_policy(thing):
    has_any = hasattr(thing, "actor") or hasattr(thing, "log_prob")
    return has_any and not isinstance(thing, type)


OBJECTS = {
    "env": Such(f"a name, or an object with {', '.join(OF_FAMILIES)}", is_family),
    "policy": Such("a name, or an object with actor or log_prob", is_policy),
}


def option(default, allowed, help):
    """A field of Setting. Its value is None at first, so that `Setting` sees what is not given."""
    return field(default=None, metadata={"default": default, "allowed": allowed, "help": help})


@dataclass(frozen=True)
class Setting:
    """All options of a run, each a plain value; ValueError for one that is not allowed.

    What is None takes its default, from DEFAULTS or from here. NumPy's scalars count as numbers, a
    list as a tuple: so the config of a result.json is a Setting again. In Python `env` and `policy`
    may also be objects that behave like a family of envs.py and like Policy.

    To make one setting from another:

        c.changed(algo="maml")      what differs from the defaults of c stays, all else takes the
                                    defaults that suit maml
        replace(c, iterations=300)  (of dataclasses) keeps every value. For another algorithm or
                                    family it is refused: it would keep defaults that do not suit

    A setting may hold options that its algorithm ignores: it is often made from that of another
    algorithm. On the command line such options are refused, by `refuse_ignored`.
    """

    algo: str = option("maml", OneOf(metarl.ALGORITHMS), "the algorithm of the outer loop")
    env: str = option(
        "pointmass", Family(envs.FAMILIES), "task family, with options as in bandit:arms=10"
    )

    policy: str = option(
        "mlp", OneOf(("linear", "mlp")), "policy network; linear has no hidden layers"
    )
    hidden: tuple = option((64, 64), WIDTHS, "units in each hidden layer of the mlp")
    activation: str = option(
        "tanh", OneOf(policies.ACTIVATIONS), "activation of the hidden layers of the mlp"
    )
    std: float = option(
        1.0, POSITIVE, "standard deviation of continuous actions at first; it is learned"
    )
    deterministic: bool = option(
        False, TRUTH, "take the policy's most probable action; not with policy gradients"
    )

    inner: str = option(
        "pg", OneOf(metarl.INNER_LOOPS), "inner loop of black boxes; other algorithms take pg"
    )
    inner_steps: int = option(1, whole(0), "k, inner steps in training; joint has none")
    alpha: float = option(0.5, POSITIVE, "inner step size; hc has none")
    alpha_decay: float = option(0.5, POSITIVE, "factor on alpha in inner steps after the first")
    learn_alpha: bool = option(
        False,
        TRUTH,
        "meta-learn a factor on alpha (hc: on inner-sigma, es: on both) for each parameter",
    )
    inner_optimizer: str = option(
        "sgd", OneOf(("sgd", "adam")), "optimiser of the inner steps; adam for reptile only"
    )
    inner_sigma: float = option(0.3, POSITIVE, "noise of the queries of the inner loops es and hc")
    gamma: float = option(0.99, FRACTION, "discount of rewards per time step; pg only")
    lam: float = option(1.0, FRACTION, "lambda of the generalised advantages; pg only")
    baseline: str = option(
        "time", OneOf(policies.BASELINES), "what returns-to-go are compared with; pg only"
    )
    standardise: bool = option(
        True, TRUTH, "scale the advantages of a task to mean 0, deviation 1; pg only"
    )

    estimator: str = option(
        "lvc",
        OneOf(policies.ESTIMATORS),
        "the inner step's Hessian in the meta-gradient: none (first-order), that of log pi alone, "
        "of low variance (lvc), unbiased (dice)",
    )
    sampling_term: bool = option(
        False, TRUTH, "add what the sampling of the inner episodes contributes"
    )
    outer: str = option("adam", OneOf(("sgd", "adam", "trpo")), "optimiser of the outer steps")
    beta: float = option(0.003, POSITIVE, "outer step size of sgd and adam")
    beta_alpha: float = option(
        0.03, POSITIVE, "outer step size of the factors that learn-alpha learns, in their logarithm"
    )
    max_norm: float = option(
        10.0, POSITIVE, "length to which sgd and adam scale down a longer outer gradient"
    )
    epsilon: float = option(
        1.0, POSITIVE, "outer step size: the fraction of the way to the adapted parameters"
    )

    population: int = option(24, count(2), "n, points in a generation")
    sigma: float = option(0.1, POSITIVE, "standard deviation of a generation at first")
    fitness: str = option(
        "ranks", OneOf(("raw", "standardised", "ranks")), "how returns become weights of directions"
    )
    nes: str = option("snes", OneOf(metarl.NES), "the strategy of nes")

    iterations: int = option(100, whole(1), "outer steps")
    tasks: int = option(20, count(1), "tasks in an iteration (es-maml: half the population)")
    episodes: int = option(
        20, count(1), "K, episodes of a task for one inner step: for a gradient, or as queries"
    )
    seed: int = option(0, whole(0), "seed of all noise")
    dtype: str = option("float64", OneOf(("float32", "float64")), "type of all numbers")

    test_tasks: int = option(40, count(2), "held-out tasks")
    test_steps: int = option(3, whole(0), "adaptation steps on a held-out task")
    adapt_episodes: int = option(40, count(1), "K, episodes for one of these steps")
    test_episodes: int = option(40, count(1), "episodes that measure the return after each step")
    compare: str = option(
        "none", OneOf(("none", "joint")), "another algorithm to train and test beside it"
    )

    # Not an option: the algorithm and the name of the family whose defaults these are. `replace`
    # reads it from the old setting, as it reads every field, and hands it to the new one.
    origin: InitVar[tuple] = None

    def __post_init__(self, origin):
        for f in fields(self):
            self.store(f.name, plain(getattr(self, f.name)))
        self.fill()
        for f in fields(self):
            self.check(f)
        self.keep_origin(origin)
        if isinstance(self.policy, str) and self.pi.size > 10**7:
            self.refuse("hidden", "at most ten million parameters")
        self.check_inner_loop()
        self.check_episodes()
        self.check_outer_loop()
        self.check_black_boxes()

    def store(self, name, value):
        # Nothing may be assigned in a frozen dataclass, so that a run cannot change its setting.
        # But this one is still being made:
        object.__setattr__(self, name, value)

    def fill(self):
        """Give each option that is None its default."""
        for name, default in defaults_for(self.algo, self.env).items():
            if getattr(self, name) is None:
                self.store(name, default)

    def keep_origin(self, former):
        """ValueError if `replace` made this from a setting of another algorithm or family."""
        family = family_name(self.env)
        if former is not None and not isinstance(self.env, str):
            family = former[1]  # an object has no defaults of its own: it takes those that are here
        origin = (self.algo, family)
        if former not in (None, origin):
            kept = "dataclasses.replace would keep the defaults of another algorithm or family"
            raise ValueError(f"{kept}: to change algo or env take c.changed(...)")
        self.store("origin", origin)

    def changed(self, **options):
        """A setting with these options; for another algorithm or family with their defaults."""
        if not options.keys() & {"algo", "env"}:
            return replace(self, **options)
        defaults = defaults_for(*self.origin)
        given = {name: value for name, value in values(self).items() if value != defaults[name]}
        kept = {"algo": self.algo, "env": self.env}
        return Setting(**kept | given | options)

    def check(self, f):
        """What is allowed for an option by itself."""
        value = getattr(self, f.name)
        allowed = f.metadata["allowed"]
        if f.name in OBJECTS and not isinstance(value, str):
            allowed = OBJECTS[f.name]
        if value not in allowed:
            self.refuse(f.name, allowed)
        if f.type is float:
            self.store(f.name, float(value))  # 1 and 1.0 are the same run, also in its files

    def check_inner_loop(self):
        if self.algo == "joint" and self.inner_steps != 0:
            self.refuse("inner_steps", "0 for joint")
        if self.algo != "joint" and self.inner_steps == 0:
            self.refuse("inner_steps", "at least 1, but for joint")
        if self.algo in GRADIENTS and self.inner_optimizer != "sgd":
            self.refuse("inner_optimizer", f"sgd for {self.algo}")
        if self.algo not in BLACK_BOXES and self.inner != "pg":
            self.refuse("inner", f"pg for {self.algo}")
        if self.inner == "pg" and self.deterministic:
            self.refuse("deterministic", "off for policy gradients")

    def check_episodes(self):
        """Whether a gradient has enough of them to learn anything."""
        for name in ("episodes", "adapt_episodes"):
            if getattr(self, name) > 1:
                continue
            if self.inner == "es":
                self.refuse(name, "at least 2, a pair, for the inner loop es")
            if self.inner == "pg" and self.baseline in WITH_THE_EPISODE:
                with_it = f"--baseline {self.baseline}, which contains the episode itself"
                self.refuse(name, f"at least 2 with {with_it}")
            if self.inner == "pg" and self.standardise and self.family.horizon == 1:
                self.refuse(name, "at least 2 with --standardise, as an episode is one step")

    def check_outer_loop(self):
        differentiates = self.algo in GRADIENTS and self.algo != "joint"  # through inner steps
        if self.algo == "fomaml" and self.estimator != "first-order":
            self.refuse("estimator", "first-order for fomaml")
        if self.algo == "emaml" and not self.sampling_term:
            self.refuse("sampling_term", "on for emaml")
        if self.sampling_term and not differentiates:
            self.refuse("sampling_term", f"off for {self.algo}")
        if self.sampling_term and self.estimator not in WITHOUT_SCORES:
            allowed = " or ".join(WITHOUT_SCORES)
            self.refuse("estimator", f"{allowed}: others count the sampling twice")
        if self.learn_alpha and not differentiates and self.algo not in BLACK_BOXES:
            self.refuse("learn_alpha", f"off for {self.algo}")
        if self.outer == "trpo" and self.algo not in GRADIENTS:
            self.refuse("outer", f"sgd or adam for {self.algo}")

    def check_black_boxes(self):
        if self.algo == "es-maml" and self.population % 2 == 1:
            self.refuse("population", "even for es-maml, as pairs are")
        if self.algo in BLACK_BOXES and self.compare != "none":
            self.refuse("compare", f"none for {self.algo}: joint takes policy gradients")
        if self.inner_optimizer != "sgd" and self.compare != "none":
            self.refuse("compare", "none with --inner-optimizer adam: joint takes sgd")

    def refuse(self, name, allowed):
        raise ValueError(f"{flag(name)} {getattr(self, name)}: must be {allowed}")

    @cached_property
    def family(self):
        if isinstance(self.env, str):
            return make_family(self.env)
        return self.env

    @cached_property
    def pi(self):
        if not isinstance(self.policy, str):
            return self.policy
        return policies.Policy(
            self.family.obs_dim,
            self.family.action_dim,
            self.family.discrete,
            self.hidden if self.policy == "mlp" else (),
            self.activation,
            self.deterministic,
            self.std,
        )


def plain(value):
    """NumPy's scalars as Python's, lists and arrays as tuples, anything else as it is."""
    if isinstance(value, np.floating):
        value = float(value)  # also a long one, of which `tolist` makes none of Python's
    elif isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if type(value) in (list, tuple):  # not a named tuple, which may be a family
        value = tuple(plain(each) for each in value)
    return value


def values(c):
    """{option: value} of a setting, all of them."""
    return {f.name: getattr(c, f.name) for f in fields(Setting)}


def defaults_for(algo, env):
    """{option: its default}, all of them, for an algorithm and a family (None: the usual ones)."""
    special = layers(algo, env)
    return {f.name: special.get(f.name, f.metadata["default"]) for f in fields(Setting)}


def layers(algo, env):
    """{option: value}: what DEFAULTS says of an algorithm and a family (None: the usual ones)."""
    algo = algo or "maml"
    family = "pointmass" if env is None else family_name(env)
    special = {}
    for layer in (family, algo, f"{algo} {family}"):  # the later wins
        special.update(DEFAULTS.get(layer, {}))
    return special


def family_name(env):
    """bandit for "bandit:arms=10"; nothing for an object, of which DEFAULTS knows nothing."""
    if not isinstance(env, str):
        return ""
    return env.partition(":")[0]


def joint_beside(c):
    """The setting of the baseline that --compare joint trains beside c: the same but for that."""
    no_inner_loop = dict(inner_steps=0, sampling_term=False, learn_alpha=False)
    return Setting(**values(c) | no_inner_loop | dict(algo="joint", compare="none"))


def ignored(c):
    """{option: why}: what a run with the setting c never reads, and the choice that is to blame."""
    why = {}
    for (name, value), options in IGNORED.items():
        if getattr(c, name) == value:
            for each in options:
                why.setdefault(each, as_given(name, value))
    if c.family.discrete:
        why.setdefault("std", as_given("env", label(c.env)))
    if c.compare == "joint":  # two runs: what neither of them reads
        beside = ignored(joint_beside(c))
        why = {name: reason for name, reason in why.items() if name in beside}
    return why


def refuse_ignored(c, given):
    """Raise ValueError if among the options `given` {name: value} are some that c ignores."""
    why = ignored(c)
    wrong = [
        f"{as_given(name, value)}: not used by {why[name]}"
        for name, value in given.items()
        if name in why
    ]
    if wrong:
        raise ValueError("; ".join(wrong))


# --- An option as text ---
def flag(name):
    return "--" + name.replace("_", "-")


def label(thing):
    """A family or a policy in words: its text, or the name of its class."""
    if isinstance(thing, str):
        return thing
    return type(thing).__name__


def as_text(value):
    if value is True:
        return "on"
    if value is False:
        return "off"
    if isinstance(value, tuple):
        return " ".join(str(x) for x in value)
    return str(value)


def as_given(name, value):
    """An option as one gives it on the command line."""
    if value is True:
        return flag(name)
    if value is False:
        return flag(f"no_{name}")
    return f"{flag(name)} {as_text(value)}"


# --- A family as text ---
def make_family(text):
    """The family of a text as "bandit:arms=10,horizon=100"; ValueError for what is not known."""
    name, _, options = text.partition(":")
    if name not in envs.FAMILIES:
        known = ", ".join(envs.FAMILIES)
        raise ValueError(f"environment {name!r}: must be one of {known}")
    given = keyword_arguments(options)
    known = options_of(name)
    if given is None or not given.keys() <= known.keys():
        allowed = ", ".join(f"{option}={value!r}" for option, value in known.items())
        raise ValueError(f"options of environment {name} {options!r}: must be among {allowed}")
    return envs.make(name, **given)


def options_of(name):
    """{option: default} of a family: the arguments of its class."""
    parameters = inspect.signature(envs.FAMILIES[name]).parameters
    return {option: p.default for option, p in parameters.items()}


def keyword_arguments(text):
    """{name: value} of a text as Python writes keyword arguments; None if it is something else."""
    try:
        call = ast.parse(f"dict({text})", mode="eval").body
        # A text with brackets of its own can close ours, and make something else than one call.
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            return None
        return {each.arg: ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
