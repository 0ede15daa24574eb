"""Stage 3: the layout of theta, actions from noise, log-probabilities, rollouts,
returns and advantages.
"""

import numpy as np

import autodiff as ad
import envs
import policies
from autodiff import Tensor, grad
from policies import Policy, Trajectories

from .loops_policies import advantages_by_loops, init_by_loops, policy_by_loops, rollout_by_loops
from .vectors import Case, Replay, noise, slip

STAGE = "3-policies"


def network_of(network):
    return Policy(**{**network, "hidden": tuple(network["hidden"])})


def policy(network, theta, other, obs, w, noise):
    """What a policy does at observations (T, K, obs_dim):
    `gradient` is that of the sum of w * log_prob.
    """
    p, leaf = network_of(network), Tensor(theta)
    fields = {"actions": p.act(theta, obs, Replay(noise)), "mode": p.mode(theta, obs)}
    fields |= {"kl": p.kl(theta, other, obs), "log_prob": p.log_prob(theta, obs, fields["actions"])}
    fields["gradient"] = grad(ad.sum(p.log_prob(leaf, obs, fields["actions"]) * w), leaf).data
    first = theta if theta.ndim == 1 else theta[0]
    for n, (W, b) in enumerate(p.network.layers(first)):
        fields |= {f"W{n}": W, f"b{n}": b[0]}
    if not p.discrete:
        return fields | {"log_std": first[p.size - p.action_dim :]}
    each = [p.log_prob(theta, obs, np.full(obs.shape[:-1], a)) for a in range(p.action_dim)]
    return fields | {"log_probs": np.stack(each, -1)}


def init(network, noise):
    return {"theta": network_of(network).init(Replay(noise))}


def rollout(network, theta, family, options, tasks, K, noise, X=None):
    env, policy = envs.make(family, **options), network_of(network)
    D = policies.rollout(env, policy, theta, tasks, K, Replay(noise))
    return {"obs": D.obs, "actions": D.actions, "rewards": D.rewards, "mask": D.mask}


def advantages(obs, rewards, mask, baseline, gamma, lam, standardise):
    D = Trajectories(obs, None, rewards, mask)
    returns = policies.returns_to_go(rewards, gamma)
    values = policies.BASELINES[baseline](D, returns) * mask
    raw, A = (policies.advantages(D, baseline, gamma, lam, s) for s in (False, standardise))
    return {"returns_to_go": returns, "baseline": values, "raw": raw, "A": A}


FUNCTIONS = {
    "policy": (policy, policy_by_loops),
    "init": (init, init_by_loops),
    "rollout": (rollout, rollout_by_loops),
    "advantages": (advantages, advantages_by_loops),
}
INTERMEDIATE = {"policy": ("W0", "b0", "W1", "b1", "W2", "b2", "log_std", "log_probs")}
INTERMEDIATE["advantages"] = ("returns_to_go", "baseline", "raw")

# --- Faults: what is wrong, and the change of text in loops_policies.py that does it ---
# fmt: off
LAYOUT = ("weights are stored output by output", ("theta[at + j * o + k]", "theta[at + k * i + j]"))
KL = (
    "the divergence is taken the other way round",
    ("kl(network, x, y, o)", "kl(network, y, x, o)"),
)
GAUSSIAN = [
    LAYOUT, KL,
    ("the last parameters are standard deviations, not their logarithms, in log_prob",
     ("/ exp(s) for a, m, s in zip(action, out,", "/ s for a, m, s in zip(action, out,")),
    ("noise is scaled by the variance", ("m + exp(s) * z", "m + exp(2 * s) * z")),
    ("log(2 pi)/2 is subtracted once, not for each dimension of the action",
     ("- LOG_2PI / 2 for", "- LOG_2PI / 2 / len(z) for")),
    ("log_prob of the clipped action, not of the sampled one",
     ("log_prob(network, x, o, action), kl",
      "log_prob(network, x, o, [exact.clip(a, -1, 1) for a in action]), kl")),
    ("the biases precede the weights of their layer",
     ("theta[at + j * o + k]", "theta[at + o + j * o + k]"),
     ("list(theta[at + i * o : at + (i + 1) * o])", "list(theta[at : at + o])")),
]
DISCRETE = [
    LAYOUT, KL,
    ("the cumulative sum runs from the last action",
     ("less(noise, total)", "less(1 - noise, total)")),
]
ADVANTAGES = {
    "time": [
        ("the baseline is the mean over all episodes, also those that have ended",
         ("/ (len(ks) or 1)", "/ K")),
        ("the variance is divided by n - 1",
         ("for a in values) / len(values)", "for a in values) / (len(values) - 1)")),
        ("mean and deviation include the masked steps",
         ("for t in range(H) if mask[k, t]]\n    mean", "for t in range(H)]\n    mean")),
        ("the sum of generalised advantages discounts by lambda alone", ("gamma * lam)", "lam)")),
        ("mean and deviation are those of the first episode",
         ("kept = [raw[k, t] for k in range(K)", "kept = [raw[k, t] for k in range(1)")),
    ],
    "linear": [
        ("time starts at 1", ("Decimal(t) / 100", "Decimal(t + 1) / 100")),
        ("the regression takes the masked steps too",
         ("for t in range(H) if mask[k, t]]\n    n =", "for t in range(H)]\n    n =")),
        ("the ridge is 0.001", ("Decimal(\"1e-5\")", "Decimal(\"1e-3\")")),
    ],
    "small": [
        ("masked steps keep an advantage", ("/ deviation * mask", "/ deviation")),
        ("1e-8 is added to the deviation",
         ("(raw - mean) / deviation", "(raw - mean) / (deviation + Decimal(\"1e-8\"))")),
    ],
}
# fmt: on


# --- The cases ---
def net(discrete=False, hidden=(), activation="tanh", obs_dim=2, action_dim=2):
    return dict(
        obs_dim=obs_dim,
        action_dim=action_dim,
        discrete=discrete,
        hidden=hidden,
        activation=activation,
    )


NETWORKS = {
    "linear": (net(obs_dim=3), GAUSSIAN, "three inputs, two actions, no hidden layer"),
    "mlp": (net(hidden=(4,), obs_dim=3), GAUSSIAN[:1], "a hidden layer of 4 tanh units"),
    "relu": (net(hidden=(5,), activation="relu"), (), "a hidden layer of 5 relu units"),
    "deep relu": (
        net(hidden=(4, 3), activation="relu", action_dim=1),
        (),
        "two hidden layers of relu units",
    ),
    "categorical": (
        net(True, action_dim=4),
        DISCRETE,
        "four logits; sampled by the inverse of the cumulative sum",
    ),
    "categorical mlp": (net(True, hidden=(3,), action_dim=4), (), "the same on a hidden layer"),
    "shared": (
        net(hidden=(3,)),
        (),
        "one theta (P,) for all rows: the gradient is the sum over them",
    ),
}


def checked_by_hand(name, why, inputs, faults=()):
    checked = "loop form; the gradient back through the layers by hand"
    faults = [(words, slip(policy_by_loops, *edits)) for words, *edits in faults]
    return Case(name, "policy", why, checked, inputs, faults=faults)


def networks():
    for name, (network, faults, why) in NETWORKS.items():
        draw = noise(name)
        p = network_of(network)
        T = () if name == "shared" else (2,)
        inputs = {"network": network, "theta": draw.standard_normal((*T, p.size))}
        inputs["other"] = inputs["theta"] + 0.125 * draw.standard_normal((*T, p.size))
        inputs |= {
            "obs": draw.standard_normal((2, 5, p.obs_dim)),
            "w": draw.standard_normal((2, 5)),
        }
        draw.draws.clear()
        p.act(inputs["theta"], inputs["obs"], draw)
        yield checked_by_hand(name, why, {**inputs, "noise": draw.draws}, faults)


def equal_logits():
    """The logits are the biases, as the observations are 0."""
    logits = [[0.25, 0.75, 0.75], [-1000.0, 0.5, 0.5], [800.0, -800.0, 0.25]]
    logits = np.array([*logits, [-800.0, -799.5, -801.0]])
    inputs = {"network": net(True, action_dim=3)}
    inputs["theta"] = np.concatenate([np.full((4, 6), 0.5), logits], 1)
    inputs["other"] = inputs["theta"] + np.linspace(-0.25, 0.25, 9)
    inputs["obs"] = np.zeros((4, 2, 2))
    inputs["w"] = np.array([[1.0, -0.5], [0.25, 2.0], [1.5, -1.0], [-0.75, 1.25]])
    uniform = np.array([[0.3, 0.9], [0.0, 0.25], [0.0, 0.999], [0.6, 0.2]])
    inputs["noise"] = [{"kind": "random", "values": uniform}]
    why = "mode is the first of equals; u = 0 passes a probability of 0; nothing overflows"
    faults = [
        ("mode is the last of equals", ("out.index(max(out))", "2 - out[::-1].index(max(out))")),
        (
            "cumulative probabilities equal to u are not passed",
            ("not less(noise, total)", "total < noise"),
        ),
    ]
    yield checked_by_hand("equal and far logits", why, inputs, faults)


def units_at_0():
    network = net(hidden=(3,), activation="relu")
    draw, size = noise("units at 0"), network_of(network).size
    theta = draw.standard_normal((2, size))
    theta[:, 6:9] = [[0.0, 0.5, -0.5], [0.25, 0.0, 0.0]]  # biases
    obs = np.zeros((2, 3, 2))
    obs[:, 1:] = draw.standard_normal((2, 2, 2))
    inputs = {"network": network, "theta": theta, "other": 1.25 * theta, "obs": obs}
    inputs["w"] = np.array([[1.0, -0.5, 0.75], [0.25, 2.0, -1.0]])
    inputs["noise"] = [{"kind": "standard_normal", "values": draw.standard_normal((2, 3, 2))}]
    yield checked_by_hand("relu at 0", "units at exactly 0 have slope 0", inputs)


def little_noise():
    """Means are 0, so that no rounding of a mean is divided by the small deviation."""
    network = net(obs_dim=2)
    draw, theta = noise("little noise"), np.zeros((2, network_of(net()).size))
    theta[:, -2:] = [[-16.0, -15.0], [-14.5, -17.0]]
    inputs = {"network": network, "theta": theta, "other": theta + 0.5, "obs": np.zeros((2, 3, 2))}
    inputs["other"][:, :-2] = 0
    inputs["w"] = np.array([[1.0, -0.5, 0.75], [0.25, 2.0, -1.0]])
    inputs["noise"] = [{"kind": "standard_normal", "values": draw.standard_normal((2, 3, 2))}]
    yield checked_by_hand("little noise", "no deviation is too small", inputs)


def beginnings():
    why = "uniform numbers in [-1, 1] times sqrt(6 / (inputs + outputs)); biases 0, "
    why += "log deviations log(std)"
    for name, network in (
        ("init", net(hidden=(3,))),
        ("init: linear", net(obs_dim=4)),
        ("init: categorical", net(True, (5, 3), "relu", 2, 4)),
    ):
        draw, network = noise(name), {**network, "std": 0.6}
        network_of(network).init(draw)
        yield Case(name, "init", why, "loop form", {"network": network, "noise": draw.draws})


def other_lengths():
    """Theta alone is wrong: by one number, by log deviations, by step sizes behind it."""
    small, arms = net(hidden=(3,)), net(True, action_dim=3)
    size, size_of_arms = network_of(small).size, network_of(arms).size
    for name, network, length, why in (
        ("theta too short", small, size - 1, "the last log deviation is missing"),
        ("theta too long", small, size + 1, "a number follows the log deviations"),
        ("theta without log deviations", small, size - 2, "they belong to theta"),
        ("theta with step sizes", small, 2 * size, "these are not the policy's"),
        ("logits too long", arms, size_of_arms + 1, "a number follows the biases"),
        ("logits and deviations", arms, size_of_arms + 3, "a categorical policy has no deviations"),
        ("logits too short", arms, size_of_arms - 1, "the last bias is missing"),
    ):
        right = network_of(network).size
        yield refused(name, network, why, np.full((2, length), 0.25), np.full((2, right), 0.5))
    right = np.full((2, size), 0.25)
    for name, length in (("other too short", size - 1), ("other too long", size + 1)):
        yield refused(name, small, "theta is right, other is not", right, np.full((2, length), 0.5))
    for name, length in (("rollout: too short", size - 1), ("rollout: too long", size + 1)):
        draws = [{"kind": "standard_normal", "values": np.full((2, 3, 2), 0.5)}] * 5
        inputs = {"network": small, "theta": np.full((2, length), 0.25), "family": "pointmass"}
        inputs |= {"options": WALK, "tasks": np.full((2, 2), 0.25), "K": 3, "noise": draws}
        why = "theta has another length than the policy"
        yield Case(name, "rollout", why, "the layout", inputs, rejects=True)


def refused(name, network, why, theta, other):
    inputs = {"network": network, "theta": theta, "other": other, "obs": np.ones((2, 3, 2))}
    inputs["w"] = np.ones((2, 3))
    kind, shape = ("random", (2, 3)) if network["discrete"] else ("standard_normal", (2, 3, 2))
    inputs["noise"] = [{"kind": kind, "values": np.full(shape, 0.5)}]
    return Case(name, "policy", why, "the layout", inputs, rejects=True)


WALK = {"horizon": 5, "box": 0.6, "radius": 0.01}
BANDIT = {"arms": 4, "horizon": 5, "prior": []}
ROLLOUTS = {
    "rollout: linear": (
        net(),
        "pointmass",
        {**WALK, "horizon": 6, "radius": 0.05},
        "an episode that ends is masked",
    ),
    "rollout: mlp": (
        net(hidden=(3,)),
        "pointmass",
        WALK,
        "actions are clipped by the environment alone",
    ),
    "rollout: bandit": (
        net(True, (), "tanh", 1, 4),
        "bandit",
        BANDIT,
        "in each step first the policy draws, then the arm",
    ),
    "rollout: linear bandit": (
        net(True, (), "tanh", 1, 3),
        "linear-bandit",
        {"arms": 3, "horizon": 4, "dims": 2, "noise": 0.45, "features": 0},
        "X is an input here as well",
    ),
    "rollout: turned": (
        net(hidden=(4,), activation="relu"),
        "turned-pointmass",
        {"horizon": 5},
        "the task is an angle, which the policy does not see",
    ),
}


def rollouts():
    for name, (network, family, options, why) in ROLLOUTS.items():
        draw, p = noise(name), network_of(network)
        theta = draw.standard_normal((2, p.size))
        tasks = draw.random((2, envs.make(family, **options).task_dim))
        if name == "rollout: linear":  # a policy that walks into the goal, with little noise
            theta, tasks = 0.1 * theta, np.array([[0.21, -0.18], [0.43, 0.4]])
            theta[:, 4:6], theta[:, 6:] = [[0.7, -0.6], [0.9, 0.9]], -2.0
        draw.draws.clear()
        policies.rollout(envs.make(family, **options), p, theta, tasks, 3, draw)
        inputs = {
            "network": network,
            "theta": theta,
            "family": family,
            "options": options,
            "tasks": tasks,
            "K": 3,
        }
        if family == "linear-bandit":
            seed, shape = options["features"], (options["arms"], options["dims"])
            inputs["X"] = np.random.default_rng(seed).standard_normal(shape)
        yield Case(name, "rollout", why, "loop form", {**inputs, "noise": draw.draws})


def episodes_of_advantages():
    """{name: episodes of two tasks}; in task 1 nobody runs at the last step."""
    draw = noise("advantages")
    mask = np.arange(5) < np.array([[5, 3, 4], [2, 4, 1]])[..., None]
    obs, rewards = draw.standard_normal((2, 3, 5, 2)), draw.standard_normal((2, 3, 5)) * mask
    data = {"obs": obs, "rewards": rewards, "mask": mask}
    small = {"obs": obs[:, :, :4], "rewards": 1e-9 * rewards[:, :, :4], "mask": mask[:, :, :4]}
    large = {**small, "rewards": 1e160 * rewards[:, :, :4]}
    whole = {**data, "mask": mask | True}
    return {
        "time": data,
        "none": data,
        "linear": data,
        "linear, far": {**data, "obs": 12 * obs},
        "lambda 0": data,
        "small": small,
        "large": large,
        "gamma 0": whole,
    }


# fmt: off
RETURNS = {  # baseline, gamma, lam, standardise, why
    "time": ("time", 0.9, 0.8, True,
             "mean of the episodes that still run; generalised advantages"),
    "none": ("none", 0.99, 1.0, False, "no baseline, lambda 1: returns-to-go"),
    "linear": ("linear", 0.9, 1.0, True,
               "ridge regression on state and time, in each task on its own"),
    "linear, far": ("linear", 0.9, 0.7, True, "observations beyond 10 are not clipped"),
    "lambda 0": ("time", 0.9, 0.0, True, "the error of one step alone"),
    "small": ("none", 1.0, 1.0, True,
              "advantages do not depend on the unit of rewards: nothing is added to the deviation"),
    "large": ("time", 0.9, 1.0, True, "nor do squares overflow"),
    "gamma 0": ("none", 0.0, 1.0, True, "each reward for itself, as in the bandits"),
}
# fmt: on


def returns():
    episodes = episodes_of_advantages()
    for name, (baseline, gamma, lam, standardise, why) in RETURNS.items():
        faults = [
            (words, slip(advantages_by_loops, *edits)) for words, *edits in ADVANTAGES.get(name, ())
        ]
        inputs = {
            **episodes[name],
            "baseline": baseline,
            "gamma": gamma,
            "lam": lam,
            "standardise": standardise,
        }
        # The normal equations lose half of the digits
        tolerance = 1e-7 if baseline == "linear" else 1e-10
        yield Case(f"advantages: {name}", "advantages", why, "loop form", inputs, tolerance, faults)


def equal_rewards():
    """All returns equal their baseline: what is left is 0, and not rounding over rounding."""
    K, H, gamma = 3, 6, 0.9
    returns = [-4 * (1 - gamma ** (H - t)) / (1 - gamma) for t in range(H)]
    returns = np.broadcast_to(returns, (1, K, H))
    zeros = np.zeros((1, K, H))
    inputs = {
        "obs": np.zeros((1, K, H, 2)),
        "rewards": np.full((1, K, H), -4.0),
        "mask": np.ones((1, K, H), bool),
        "baseline": "time",
        "gamma": gamma,
        "lam": 1.0,
        "standardise": True,
    }
    expected = {"returns_to_go": returns, "baseline": returns, "raw": zeros, "A": zeros}
    why = "rewards that are all equal tell nothing: no advantage, not rounding over rounding"
    yield Case("advantages: equal", "advantages", why, "by hand", inputs, expected=expected)


def equal_tenths():
    """The sixth part of 0.1, six times, is not 0.1 to the last digit."""
    tenths, zeros = np.full((1, 3, 2), 0.1), np.zeros((1, 3, 2))
    inputs = {
        "obs": np.zeros((1, 3, 2, 2)),
        "rewards": tenths,
        "mask": np.ones((1, 3, 2), bool),
        "baseline": "none",
        "gamma": 0.0,
        "lam": 1.0,
        "standardise": True,
    }
    expected = {"returns_to_go": tenths, "baseline": zeros, "raw": tenths, "A": zeros}
    why = "the mean of equal numbers is that number, though sums are rounded"
    yield Case("advantages: tenths", "advantages", why, "by hand", inputs, expected=expected)


GROUPS = (networks, equal_logits, units_at_0, little_noise, beginnings, rollouts, returns)
BY_HAND = (equal_rewards, equal_tenths)


def cases():
    for group in (*GROUPS, *BY_HAND, other_lengths):
        yield from group()
