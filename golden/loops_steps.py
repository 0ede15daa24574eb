"""Stages 4 and 6 once more: adaptation, meta-gradients, outer loops,
in loops over tasks and in decimal arithmetic.

What `adapted` and `meta_loss` compute is a function of x alone, all episodes held fixed; its
derivatives are taken by differences. c is the dictionary of options that the vectors carry.
"""

from decimal import Decimal

import numpy as np

from . import exact, loops_envs, loops_es, loops_policies
from .exact import below, gradient
from .loops_policies import act, advantages_of_task, deviation_of, kl, log_prob, mode, score

EPSILON = Decimal("1e-8")


# --- Episodes of one task; `stream` is the list of draws, of which those used are taken away ---
def network_of(c):
    discrete = c["family"] == "bandit"
    dims = (
        {"obs_dim": 1, "action_dim": c["options"]["arms"]}
        if discrete
        else {"obs_dim": 2, "action_dim": 2}
    )
    return {**dims, "discrete": discrete, "hidden": c["hidden"], "activation": c["activation"]}


def size(c):
    network = network_of(c)
    widths = [network["obs_dim"], *c["hidden"], network["action_dim"]]
    layers = sum((i + 1) * o for i, o in zip(widths, widths[1:]))  # noqa: B905, RUF007
    return layers + (0 if network["discrete"] else network["action_dim"])


def episodes(c, theta, task, i, stream, K):
    """K episodes of task number i: {obs, actions, rewards, mask}, each (K, H, ...)."""
    network, H = network_of(c), c["options"]["horizon"]
    start = [Decimal(1)] if network["discrete"] else [Decimal(0), Decimal(0)]
    states, running = [start] * K, [True] * K
    columns = {name: np.empty((K, H), object) for name in ("obs", "actions", "rewards", "mask")}
    for t in range(H):
        own = None if c.get("deterministic") else stream.pop(0)["values"][i]
        outer = stream.pop(0)["values"][i] if network["discrete"] else [None] * K
        for k in range(K):
            action = (
                act(network, theta, states[k], own[k])
                if own is not None
                else mode(network, theta, states[k])
            )
            after = loops_envs.step(
                c["family"], c["options"], states[k], action, task, outer[k], None
            )
            reward = after[1] if running[k] else Decimal(0)
            for name, value in zip(columns, (states[k], action, reward, running[k]), strict=True):
                columns[name][k, t] = value
            states[k], running[k] = after[0], running[k] and not after[2]
    return {
        name: np.array(v.tolist(), bool if name == "mask" else None) for name, v in columns.items()
    }


def mean_return(D):
    return sum(D["rewards"].ravel()) / len(D["rewards"])


def advantages(c, D, standardise):
    """Advantages (K, H), and their deviation before they are standardised."""
    options = [c["baseline"], c["gamma"], c["lam"]]
    *_, raw, A = advantages_of_task(D["obs"], D["rewards"], D["mask"], *options, standardise)
    return A, deviation_of(raw[D["mask"]])


def log_probs(c, theta, D):
    K, H = D["mask"].shape
    at = np.ndindex(K, H)
    return np.array(
        [log_prob(network_of(c), theta, D["obs"][i], D["actions"][i]) for i in at]
    ).reshape(K, H)


# --- The inner loop of one task ---
def loss_gradient(c, theta, D, old, estimator):
    """The gradient of minus sum_t w_t s_t, s_t by `estimator` of r_t = log pi(a_t|o_t) - old_t;
    w = A / (K H).
    """
    (K, H), network = D["mask"].shape, network_of(c)
    w = advantages(c, D, c["standardise"])[0] / (K * H)
    g = np.array([Decimal(0)] * len(theta))
    for k in range(K):
        # The ratio of all actions before t, and the gradient of its logarithm
        ratio = Decimal(1)
        so_far = 0 * g
        for t in range(H):
            s = score(network, theta, D["obs"][k, t], D["actions"][k, t])
            r = log_prob(network, theta, D["obs"][k, t], D["actions"][k, t]) - old[k, t]
            if estimator == "dice":
                before, ratio = ratio * so_far, ratio * r.exp()
                so_far = so_far + s
                g = g - w[k, t] * (ratio * so_far - before)
            else:
                g = g - w[k, t] * (r.exp() if estimator == "lvc" else 1) * s
    return g


def split(c, x):
    """theta, and the factor on the step of each parameter."""
    P = size(c)
    return x[:P], (np.array([s.exp() for s in x[P:]]) if c["learn_alpha"] else 1)


def step_size(c, k):
    return c["alpha"] * (1 if k == 0 else c["alpha_decay"])


def adam(g, m, v, t):
    m, v = Decimal("0.9") * m + Decimal("0.1") * g, Decimal("0.999") * v + Decimal("0.001") * g * g
    root = np.array([(s / (1 - Decimal("0.999") ** t)).sqrt() for s in v])
    return m / (1 - Decimal("0.9") ** t) / (root + EPSILON), m, v


def live(c, x, task, i, streams):
    """What happens: the path of theta, the episodes on it, their log-probabilities,
    and the inner gradients.
    """
    (theta, scale), m, v = split(c, x), 0, 0
    path, taken, old, slopes = [theta], [], [], []
    for k, stream in enumerate(streams):
        D = episodes(c, theta, task, i, list(stream), c["episodes"])
        taken.append(D)
        old.append(log_probs(c, theta, D))
        if k < c["inner_steps"]:
            slopes.append(loss_gradient(c, theta, D, old[k], c["estimator"]))
            g = slopes[k]
            if c["inner_optimizer"] == "adam":
                g, m, v = adam(g, m, v, k + 1)
            theta = theta - step_size(c, k) * scale * g
            path.append(theta)
    return {"path": path, "episodes": taken, "old": old, "slopes": slopes}


def adapted(c, x, life, constant=False):
    """The path from another x on the episodes of `life`; `constant`:
    with its inner gradients too.
    """
    theta, scale = split(c, x)
    path = [theta]
    for k in range(c["inner_steps"]):
        D, old = life["episodes"][k], life["old"][k]
        g = life["slopes"][k] if constant else loss_gradient(c, theta, D, old, c["estimator"])
        theta = theta - step_size(c, k) * scale * g
        path.append(theta)
    return path


# --- The loss after adaptation ---
def sampling(c, path, life):
    """What the distribution of the inner episodes contributes:
    minus sum_n log pi(tau_n) (J - others).
    """
    last = life["episodes"][-1]
    unit = last["mask"].shape[1] * (advantages(c, last, False)[1] if c["standardise"] else 1)

    def values(D):
        return [
            sum(loops_policies.power(c["gamma"], t) * r for t, r in enumerate(row)) / unit
            for row in D["rewards"]
        ]

    J, loss = sum(values(last)) / len(last["mask"]), Decimal(0)
    for theta, D in zip(path[:-1], life["episodes"][:-1], strict=True):
        R, K = values(D), len(D["mask"])
        log_pi = (log_probs(c, theta, D) * D["mask"]).sum(1)
        for k in range(K):
            others = sum(R[:k] + R[k + 1 :]) / max(K - 1, 1) if c["baseline"] != "none" else 0
            loss -= log_pi[k] * (J - others)
    return loss


def meta_loss(c, path, life, ratio=False):
    """On the episodes after adaptation: minus sum_t w_t log pi, or w_t pi / pi_old."""
    D = life["episodes"][-1]
    w = advantages(c, D, c["standardise"])[0] / D["mask"].size
    r = log_probs(c, path[-1], D) - life["old"][-1]
    loss = -sum((w * (np.vectorize(Decimal.exp, otypes=[object])(r) if ratio else r)).ravel())
    return loss + (sampling(c, path, life) if c["sampling_term"] else 0)


def meta_gradient_of_task(c, x, life):
    return gradient(
        lambda y: meta_loss(c, adapted(c, y, life, c["estimator"] == "first-order"), life), x
    )


def streams_of(c, noise, t=0):
    return [noise[f"{t}/episodes/{k}"] for k in range(c["inner_steps"] + (c["algo"] != "reptile"))]


def fields_of_lives(c, lives):
    """What `live` gives for each task, with a leading axis for tasks:
    {"obs0", ..., "A0", "g0", "theta1", ...}.
    """
    fields = {}
    for k, D in enumerate(lives[0]["episodes"]):
        for name in D:
            fields[f"{name}{k}"] = np.array([life["episodes"][k][name] for life in lives])
        fields[f"A{k}"] = np.array(
            [advantages(c, life["episodes"][k], c["standardise"])[0] for life in lives]
        )
        if k < c["inner_steps"]:
            fields[f"g{k}"] = np.array([life["slopes"][k] for life in lives])
            fields[f"theta{k + 1}"] = np.array([life["path"][k + 1] for life in lives])
    return fields


def meta_gradient_by_loops(c, x, tasks, noise):
    lives = [live(c, x, task, i, streams_of(c, noise)) for i, task in enumerate(tasks)]
    fields = fields_of_lives(c, lives)
    if c["algo"] == "reptile":
        return fields
    return fields | {
        "meta_gradient": np.array([meta_gradient_of_task(c, x, life) for life in lives])
    }


# --- TRPO ---
def divergence(c, theta, other, D):
    values = [
        kl(network_of(c), theta, other, D["obs"][at])
        for at in np.ndindex(D["mask"].shape)
        if D["mask"][at]
    ]
    return sum(values) / len(values)


def fisher_matrix(c, x, life):
    """J^T F' J: J the derivative of theta' by x,
    F' the Hessian at theta' of the divergence from it.
    """
    end, constant, D = life["path"][-1], c["estimator"] == "first-order", life["episodes"][-1]
    along = lambda b: lambda h: adapted(c, x + h * b, life, constant)[-1]
    J = np.array(
        [
            (along(b)(exact.STEP) - along(b)(-exact.STEP)) / (2 * exact.STEP)
            for b in loops_es.identity(len(x))
        ]
    ).T
    units = loops_es.identity(len(end))
    H = np.array([exact.hessian_vector(lambda y: divergence(c, end, y, D), end, v) for v in units])
    return J.T @ H @ J


def trial_of_task(c, new, life):
    """The divergence of the policy adapted from `new`, on the same episodes,
    and the improvement of the loss.
    """
    path = adapted(c, new, life)
    gain = meta_loss(c, life["path"], life, ratio=True) - meta_loss(c, path, life, ratio=True)
    return [divergence(c, life["path"][-1], path[-1], life["episodes"][-1]), gain]


def trust_region_by_loops(c, x, tasks, noise, v, new):
    lives = [live(c, x, task, i, streams_of(c, noise)) for i, task in enumerate(tasks)]
    products = [fisher_matrix(c, x, life) @ v for life in lives]
    trials = np.array([trial_of_task(c, new, life) for life in lives])
    return {"fisher_product": np.array(products), "kl": trials[:, 0], "gain": trials[:, 1]}


def conjugate_gradients(F, g):
    """At most 10 steps towards F^-1 g, from 0; it ends when the residual is 1e-10 of g."""
    x, r = 0 * g, g
    p, norm = r, r @ r
    for _ in range(10):
        if norm.sqrt() <= Decimal("1e-10") * (g @ g).sqrt():
            break
        Fp = F @ p
        a = norm / (p @ Fp)
        x, r = x + a * p, r - a * Fp
        p, norm = r + (r @ r) / norm * p, r @ r
    return x


def trust_region_step(c, x, g, lives):
    F = sum(fisher_matrix(c, x, life) for life in lives) / len(lives) + Decimal(
        "1e-5"
    ) * loops_es.identity(len(x))
    direction = conjugate_gradients(F, g)
    step = (2 * Decimal("0.01") / (direction @ F @ direction)).sqrt() * direction
    for i in range(15):
        new = x - loops_policies.power(Decimal("0.8"), i) * step
        kl, gain = sum(np.array(trial_of_task(c, new, life)) for life in lives) / len(lives)
        if below(kl, Decimal("0.01")) and below(0, gain):
            return new
    return x
