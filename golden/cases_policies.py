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
     ("below(noise, total)", "below(1 - noise, total)")),
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
    "linear": (net(), GAUSSIAN, "two inputs, two actions, no hidden layer"),
    "mlp": (net(hidden=(3,)), GAUSSIAN[:1], "a hidden layer of 3 tanh units"),
    "deep relu": (
        net(hidden=(4, 3), activation="relu", action_dim=1),
        (),
        "two hidden layers of relu units",
    ),
    "categorical": (
        net(True, action_dim=3),
        DISCRETE,
        "three logits; sampled by the inverse of the cumulative sum",
    ),
    "categorical mlp": (net(True, hidden=(3,), action_dim=3), (), "the same on a hidden layer"),
    "shared": (
        net(hidden=(3,)),
        (),
        "one theta (P,) for all rows: the gradient is the sum over them",
    ),
}


def networks():
    for name, (network, faults, why) in NETWORKS.items():
        draw, p, T = noise(name), network_of(network), () if name == "shared" else (2,)
        inputs = {"network": network, "theta": draw.standard_normal((*T, p.size))}
        inputs["other"] = inputs["theta"] + 0.125 * draw.standard_normal((*T, p.size))
        inputs |= {
            "obs": draw.standard_normal((2, 3, p.obs_dim)),
            "w": draw.standard_normal((2, 3)),
        }
        draw.draws.clear()
        p.act(inputs["theta"], inputs["obs"], draw)
        faults = [(words, slip(policy_by_loops, *edits)) for words, *edits in faults]
        checked = "loop form; the gradient back through the layers by hand"
        yield Case(name, "policy", why, checked, {**inputs, "noise": draw.draws}, faults=faults)


def beginnings():
    draw, network = noise("init"), {**net(hidden=(3,)), "std": 0.5}
    network_of(network).init(draw)
    why = "uniform numbers in [-1, 1] times sqrt(6 / (inputs + outputs)); biases 0, "
    why += "log deviations log(std)"
    yield Case("init", "init", why, "loop form", {"network": network, "noise": draw.draws})
    zeros = {
        "theta": np.zeros(18),
        "other": np.zeros(18),
        "obs": np.zeros((1, 1, 2)),
        "w": np.zeros((1, 1)),
    }
    inputs = {
        "network": network,
        **zeros,
        "noise": [{"kind": "standard_normal", "values": np.zeros((1, 1, 2))}],
    }
    why = "theta has 18 numbers, the network 19"
    yield Case("theta of the wrong length", "policy", why, "the layout", inputs, rejects=True)


WALK, BANDIT = {"horizon": 4, "box": 0.5, "radius": 0.01}, {"arms": 3, "horizon": 4, "prior": []}
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
        net(True, (), "tanh", 1, 3),
        "bandit",
        BANDIT,
        "in each step first the policy draws, then the arm",
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
        policies.rollout(envs.make(family, **options), p, theta, tasks, 2, draw)
        inputs = {
            "network": network,
            "theta": theta,
            "family": family,
            "options": options,
            "tasks": tasks,
            "K": 2,
        }
        yield Case(name, "rollout", why, "loop form", {**inputs, "noise": draw.draws})


def episodes_of_advantages():
    """{name: episodes of two tasks}; in task 1 nobody runs at the last step."""
    draw = noise("advantages")
    mask = np.arange(5) < np.array([[5, 3, 4], [2, 4, 1]])[..., None]
    obs, rewards = draw.standard_normal((2, 3, 5, 2)), draw.standard_normal((2, 3, 5)) * mask
    data = {"obs": obs, "rewards": rewards, "mask": mask}
    small = {"obs": obs[:, :, :2], "rewards": 1e-9 * rewards[:, :, :2], "mask": mask[:, :, :2]}
    large = {**small, "rewards": 1e160 * rewards[:, :, :2]}
    whole = {**data, "mask": mask | True}
    return {
        "time": data,
        "none": data,
        "linear": data,
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


def cases():
    for group in (networks, beginnings, rollouts, returns, equal_rewards):
        yield from group()
