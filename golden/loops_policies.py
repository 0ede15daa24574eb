"""Stage 3 once more: the policy unit by unit, rollouts, returns and advantages,
in loops and decimal arithmetic.
"""

import operator
from decimal import Decimal
from itertools import pairwise

import numpy as np

from . import exact, loops_envs
from .exact import LOG_2PI, exp, less

SMALLEST = Decimal("1e-330")  # what is below is 0 in double precision


# --- One observation (a list), one parameter vector (a list) ---
def layers(network, theta):
    """From the flat vector: [(weights, a list for each input; biases)],
    and the log standard deviations.
    """
    widths = [network["obs_dim"], *network["hidden"], network["action_dim"]]
    out, at = [], 0
    for i, o in pairwise(widths):
        W = [[theta[at + j * o + k] for k in range(o)] for j in range(i)]
        out.append((W, list(theta[at + i * o : at + (i + 1) * o])))
        at += (i + 1) * o
    return out, list(theta[at:])


def squash(network, u):
    return exact.tanh(u) if network["activation"] == "tanh" else exact.larger(u, Decimal(0))


def slope(network, u, h):
    """Of the activation at u, where its value is h."""
    return 1 - h**2 if network["activation"] == "tanh" else Decimal(less(Decimal(0), u))


def forward(network, theta, obs):
    """The input of each layer, and the values before their activation;
    the last of these are means or logits.
    """
    inputs, sums = [], []
    for n, (W, b) in enumerate(layers(network, theta)[0]):
        x = [squash(network, u) for u in sums[-1]] if n > 0 else list(obs)
        inputs.append(x)
        sums.append([b[k] + sum(x[j] * W[j][k] for j in range(len(x))) for k in range(len(b))])
    return inputs, sums


def probabilities(logits):
    total = sum(exp(u) for u in logits)
    return [exp(u) / total for u in logits]


def act(network, theta, obs, noise):
    """An action from given noise: a normal number for each dimension, or one uniform number."""
    mean, (_, log_std) = forward(network, theta, obs)[1][-1], layers(network, theta)
    if not network["discrete"]:
        return [m + exp(s) * z for m, s, z in zip(mean, log_std, noise, strict=True)]
    total, action = Decimal(0), 0
    for p in probabilities(mean)[:-1]:
        total += p if p > SMALLEST else 0
        action += not less(noise, total)
    return action


def mode(network, theta, obs):
    out = forward(network, theta, obs)[1][-1]
    return out.index(max(out)) if network["discrete"] else out


def log_prob(network, theta, obs, action):
    out, (_, log_std) = forward(network, theta, obs)[1][-1], layers(network, theta)
    if network["discrete"]:
        return probabilities(out)[action].ln()
    z = [(a - m) / exp(s) for a, m, s in zip(action, out, log_std, strict=True)]
    return sum(-x * x / 2 - s - LOG_2PI / 2 for x, s in zip(z, log_std, strict=True))


def score(network, theta, obs, action):
    """The gradient of log_prob by theta (P,): back through the layers by hand."""
    inputs, sums = forward(network, theta, obs)
    weights, log_std = layers(network, theta)
    if network["discrete"]:
        d, tail = [(k == action) - p for k, p in enumerate(probabilities(sums[-1]))], []
    else:
        z = [(a - m) / exp(s) for a, m, s in zip(action, sums[-1], log_std, strict=True)]
        d, tail = [x / exp(s) for x, s in zip(z, log_std, strict=True)], [x * x - 1 for x in z]
    parts = []
    for n in reversed(range(len(weights))):
        parts = [x * g for x in inputs[n] for g in d] + d + parts
        if n > 0:
            back = [sum(w * g for w, g in zip(row, d, strict=True)) for row in weights[n][0]]
            d = [
                g * slope(network, u, h)
                for g, u, h in zip(back, sums[n - 1], inputs[n], strict=True)
            ]
    return np.array(parts + tail)


def kl(network, theta, other, obs):
    """KL(pi_theta || pi_other) in one state."""
    p, q = (forward(network, x, obs)[1][-1] for x in (theta, other))
    if network["discrete"]:
        p, q = probabilities(p), probabilities(q)
        return sum(a * (a / b).ln() for a, b in zip(p, q, strict=True))
    s, r = ([exp(x) for x in layers(network, y)[1]] for y in (theta, other))
    parts = zip(p, q, s, r, strict=True)
    return sum(
        (b / a).ln() + (a**2 + (m - n) ** 2) / (2 * b**2) - Decimal("0.5") for m, n, a, b in parts
    )


# --- Batches ---
def row(theta, i):
    return theta[i] if theta.ndim > 1 else theta


def policy_by_loops(network, theta, other, obs, w, noise):
    discrete, arms = network["discrete"], range(network["action_dim"])
    columns = {
        name: np.empty(obs.shape[:-1], object)
        for name in ("actions", "mode", "log_prob", "kl", "log_probs")
    }
    gradient = np.array([[Decimal(0)] * theta.shape[-1]] * len(obs))
    for at in np.ndindex(obs.shape[:-1]):
        x, y, o = row(theta, at[0]), row(other, at[0]), obs[at]
        action = act(network, x, o, noise[0]["values"][at])
        gradient[at[0]] += w[at] * score(network, x, o, action)
        values = action, mode(network, x, o), log_prob(network, x, o, action), kl(network, x, y, o)
        for name, value in zip(
            columns, (*values, discrete and [log_prob(network, x, o, a) for a in arms]), strict=True
        ):
            columns[name][at] = value
    fields = {
        name: np.array(value.tolist())
        for name, value in columns.items()
        if discrete or name != "log_probs"
    }
    fields["gradient"] = gradient if theta.ndim > 1 else gradient.sum(0)
    weights, log_std = layers(network, row(theta, 0))
    for n, (W, b) in enumerate(weights):
        fields |= {f"W{n}": np.array(W), f"b{n}": np.array(b)}
    return fields if discrete else fields | {"log_std": np.array(log_std)}


def init_by_loops(network, noise):
    widths, theta = [network["obs_dim"], *network["hidden"], network["action_dim"]], []
    for (i, o), draw in zip(pairwise(widths), noise, strict=True):
        theta += [u * (Decimal(6) / (i + o)).sqrt() for u in draw["values"]] + [Decimal(0)] * o
    return {
        "theta": np.array(
            theta + ([] if network["discrete"] else [network["std"].ln()] * network["action_dim"])
        )
    }


def rollout_by_loops(network, theta, family, options, tasks, K, noise, X=None):
    """Episodes one after the other.

    `noise`: in each step the draw of the policy, then that of the environment.
    """
    T, H = len(tasks), options["horizon"]
    each = 2 if "bandit" in family else 1
    columns = {name: np.empty((T, K, H), object) for name in ("obs", "actions", "rewards", "mask")}
    for i, k in np.ndindex(T, K):
        state, running = [Decimal(1)] if "bandit" in family else [Decimal(0), Decimal(0)], True
        for t in range(H):
            own, *outer = (draw["values"][i, k] for draw in noise[each * t : each * (t + 1)])
            action = act(network, row(theta, i), state, own)
            after, reward, done = loops_envs.step(
                family, options, state, action, tasks[i], *outer or [None], X
            )
            reward = reward if running else Decimal(0)
            for name, value in zip(columns, (state, action, reward, running), strict=True):
                columns[name][i, k, t] = value
            state, running = after, running and not done
    return {
        name: np.array(c.tolist(), bool if name == "mask" else None) for name, c in columns.items()
    }


# --- Returns and advantages of one task: rewards and mask (K, H), obs (K, H, obs_dim) ---
def power(x, n):
    return x**n if n else Decimal(1)  # Decimal refuses 0 ** 0


def to_go(rewards, gamma):
    """sum_{s >= t} gamma^(s - t) r_s, each sum on its own."""
    K, H = rewards.shape
    factor = [power(gamma, n) for n in range(H)]
    return np.array(
        [
            [sum(factor[s - t] * rewards[k, s] for s in range(t, H)) for t in range(H)]
            for k in range(K)
        ]
    )


def time_baseline(obs, returns, mask):
    K, H = returns.shape
    running = [[k for k in range(K) if mask[k, t]] for t in range(H)]
    means = [
        sum((returns[k, t] for k in ks), Decimal(0)) / (len(ks) or 1)
        for t, ks in enumerate(running)
    ]
    return np.array([means] * K)


def features(o, t):
    time = Decimal(t) / 100
    return [*o, *[x**2 for x in o], time, time**2, time**3, Decimal(1)]


def linear_baseline(obs, returns, mask):
    """Ridge regression: (sum x x^T + 1e-5 I) w = sum x R over the steps that count."""
    K, H = returns.shape
    steps = [
        (features(obs[k, t], t), returns[k, t]) for k in range(K) for t in range(H) if mask[k, t]
    ]
    n = len(steps[0][0])
    gram = [
        [sum(x[a] * x[b] for x, _ in steps) + (a == b) * Decimal("1e-5") for b in range(n)]
        for a in range(n)
    ]
    w = solve(gram, [sum(x[a] * R for x, R in steps) for a in range(n)])
    return np.array(
        [[sum(map(operator.mul, features(obs[k, t], t), w)) for t in range(H)] for k in range(K)]
    )


def solve(A, b):
    """x with A x = b, by elimination with pivoting."""
    rows, n = [[*a, c] for a, c in zip(A, b, strict=True)], len(b)
    for i in range(n):
        p = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[p] = rows[p], rows[i]
        for r in range(i + 1, n):
            factor = rows[r][i] / rows[i][i]
            rows[r] = [u - factor * v for u, v in zip(rows[r], rows[i], strict=True)]
    x = [Decimal(0)] * n
    for i in reversed(range(n)):
        x[i] = (rows[i][n] - sum(rows[i][j] * x[j] for j in range(i + 1, n))) / rows[i][i]
    return x


BASELINES = {
    "none": lambda obs, returns, mask: 0 * returns,
    "time": time_baseline,
    "linear": linear_baseline,
}


def advantages_of_task(obs, rewards, mask, baseline, gamma, lam, standardise):
    """Returns-to-go, baseline (0 where masked), generalised advantages,
    and these to mean 0 and deviation 1.
    """
    K, H = rewards.shape
    returns = to_go(rewards, gamma)
    values = BASELINES[baseline](obs, returns, mask) * mask
    deltas = 0 * rewards
    for k in range(K):
        for t in range(H):
            following = values[k, t + 1] if t + 1 < H else 0
            deltas[k, t] = rewards[k, t] + gamma * following - values[k, t]
    raw = to_go(deltas, gamma * lam)
    if not standardise:
        return returns, values, raw, raw
    kept = [raw[k, t] for k in range(K) for t in range(H) if mask[k, t]]
    mean = sum(kept) / len(kept)
    deviation = deviation_of(kept)
    return returns, values, raw, (raw - mean) / deviation * mask


def deviation_of(values):
    """The standard deviation, divided by n; infinite where all are equal."""
    mean = sum(values) / len(values)
    variance = sum((a - mean) ** 2 for a in values) / len(values)
    return variance.sqrt() or Decimal("Infinity")


def advantages_by_loops(obs, rewards, mask, baseline, gamma, lam, standardise):
    tasks = zip(obs, rewards, mask, strict=True)
    columns = zip(
        *(advantages_of_task(*task, baseline, gamma, lam, standardise) for task in tasks),
        strict=True,
    )
    return dict(zip(("returns_to_go", "baseline", "raw", "A"), map(np.array, columns), strict=True))
