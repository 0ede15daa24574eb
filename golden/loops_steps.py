"""Stages 4 and 6 once more: adaptation, meta-gradients, outer loops,
in loops over tasks and in decimal arithmetic.

What `adapted` and `meta_loss` compute is a function of x alone, all episodes held fixed; its
derivatives are taken by differences. c is the dictionary of options that the vectors carry.
"""

from collections import Counter
from decimal import Decimal

import numpy as np

from . import exact, loops_envs, loops_es, loops_policies
from .exact import below, gradient
from .loops_policies import (
    act,
    advantages_of_task,
    deviation_of,
    forward,
    kl,
    layers,
    log_prob,
    mode,
    score,
)

EPSILON = Decimal("1e-8")


# --- Episodes of one task; `stream` is the list of draws, of which those used are taken away ---
def network_of(c):
    discrete = c["family"] == "bandit"
    dims = (
        {"obs_dim": 1, "action_dim": c["options"]["arms"]}
        if discrete
        else {"obs_dim": 2, "action_dim": 2}
    )
    return {**dims, "discrete": discrete, "hidden": c["hidden"], "activation": c.get("activation")}


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


def of_policy(f, c, theta):
    """f(network, theta, obs, action) as a function of obs and action, each pair computed once:
    in a bandit they come again and again.
    """
    network, known = network_of(c), {}

    def once(o, a):
        key = (*o, *np.ravel(a))
        if key not in known:
            known[key] = f(network, theta, o, a)
        return known[key]

    return once


def log_probs(c, theta, D):
    log_pi = of_policy(log_prob, c, theta)
    at = np.ndindex(D["mask"].shape)
    return np.array([log_pi(D["obs"][i], D["actions"][i]) for i in at]).reshape(D["mask"].shape)


# --- The inner loop of one task ---
def weights(c, D):
    """A / (K H)."""
    K, H = D["mask"].shape
    return advantages(c, D, c["standardise"])[0] / (K * H)


def loss_gradient(c, theta, D, w, old):
    """The gradient of minus sum_t w_t s_t, s_t by the estimator of r_t = log pi(a_t|o_t) - old_t.

    Steps after the end of an episode are left out: their weights are 0.
    """
    s_of, log_pi = of_policy(score, c, theta), of_policy(log_prob, c, theta)
    g = np.array([Decimal(0)] * len(theta))
    for k, t in steps_that_count(D):
        at = D["obs"][k, t], D["actions"][k, t]
        s = s_of(*at)
        if c["estimator"] == "dice":
            if t == 0:  # the ratio of all actions before t, and the gradient of its logarithm
                ratio = Decimal(1)
                so_far = 0 * g
            before = ratio * so_far
            ratio = ratio * (log_pi(*at) - old[k, t]).exp()
            so_far = so_far + s
            g = g - w[k, t] * (ratio * so_far - before)
        elif c["estimator"] == "lvc":
            g = g - w[k, t] * (log_pi(*at) - old[k, t]).exp() * s
        else:
            g = g - w[k, t] * s
    return g


def steps_that_count(D):
    """(k, t) of each step that the mask keeps, episode by episode."""
    return [at for at in np.ndindex(D["mask"].shape) if D["mask"][at]]


def split(c, x):
    """theta, and the factor on the step of each parameter."""
    P = size(c)
    scale = np.array([s.exp() for s in x[P:]]) if c.get("learn_alpha") else 1
    return x[:P], scale


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
    theta, scale = split(c, x)
    m = v = 0
    life = {name: [] for name in ("path", "episodes", "weights", "old", "slopes")}
    for k, stream in enumerate(streams):
        D = episodes(c, theta, task, i, list(stream), c["episodes"])
        life["path"].append(theta)
        life["episodes"].append(D)
        life["weights"].append(weights(c, D))
        life["old"].append(log_probs(c, theta, D))
        if k < c["inner_steps"]:
            g = loss_gradient(c, theta, D, life["weights"][k], life["old"][k])
            life["slopes"].append(g)
            if c.get("inner_optimizer") == "adam":
                g, m, v = adam(g, m, v, k + 1)
            theta = theta - step_size(c, k) * scale * g
    life["deviation"] = advantages(c, D, False)[1] if c["standardise"] else 1
    if len(streams) == c["inner_steps"]:  # reptile takes no episodes with it
        life["path"].append(theta)
    return life


def adapted(c, x, life, constant=False):
    """The path from another x on the episodes of `life`; `constant`:
    with its inner gradients too.
    """
    theta, scale = split(c, x)
    path = [theta]
    for k in range(c["inner_steps"]):
        recorded = life["episodes"][k], life["weights"][k], life["old"][k]
        g = life["slopes"][k] if constant else loss_gradient(c, theta, *recorded)
        theta = theta - step_size(c, k) * scale * g
        path.append(theta)
    return path


# --- The loss after adaptation ---
def sampling(c, path, life):
    """What the distribution of the inner episodes contributes:
    minus sum_n log pi(tau_n) (J - others).
    """
    last = life["episodes"][-1]
    unit = last["mask"].shape[1] * life["deviation"]

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
            others = 0
            if c["baseline"] != "none":
                others = sum(R[:k] + R[k + 1 :]) / max(K - 1, 1)
            loss -= log_pi[k] * (J - others)
    return loss


def meta_loss(c, path, life, ratio=False):
    """On the episodes after adaptation: minus sum_t w_t log pi, or w_t pi / pi_old."""
    D, w = life["episodes"][-1], life["weights"][-1]
    log_pi = of_policy(log_prob, c, path[-1])
    loss = Decimal(0)
    for at in steps_that_count(D):
        r = log_pi(D["obs"][at], D["actions"][at]) - life["old"][-1][at]
        loss -= w[at] * (r.exp() if ratio else r)
    if c.get("sampling_term"):
        loss += sampling(c, path, life)
    return loss


def meta_gradient_of_task(c, x, life):
    return gradient(
        lambda y: meta_loss(c, adapted(c, y, life, c.get("estimator") == "first-order"), life), x
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
def states_that_count(D):
    """(state, its share) of the steps that the mask keeps, equal states together."""
    kept = [tuple(D["obs"][at]) for at in steps_that_count(D)]
    return [(list(o), Decimal(n) / len(kept)) for o, n in Counter(kept).items()]


def divergence(c, theta, other, D):
    network = network_of(c)
    return sum(share * kl(network, theta, other, o) for o, share in states_that_count(D))


def jacobian(f, x):
    """Of the array f(x) (m,) by x (n,), by central differences: (m, n)."""
    columns = []
    for b in loops_es.identity(len(x)):
        ahead = f(x + exact.STEP * b)
        behind = f(x - exact.STEP * b)
        columns.append((ahead - behind) / (2 * exact.STEP))
    return np.array(columns).T


def outputs_of(network, theta, obs):
    """Means and log standard deviations, or logits, in one state."""
    out = forward(network, theta, obs)[1][-1]
    return np.array([*out, *layers(network, theta)[1]])


def fisher_matrix(c, x, life):
    """J^T F' J: J the derivative of theta' by x,
    F' the Hessian at theta' of the divergence from it.
    """
    constant = c.get("estimator") == "first-order"
    J = jacobian(lambda y: adapted(c, y, life, constant)[-1], x)
    H = hessian_of_divergence(c, life["path"][-1], life["episodes"][-1])
    return J.T @ H @ J


def hessian_of_divergence(c, theta, D):
    """By the parameters of the second policy, where it is the first: the mean over the steps of
    G^T Q G, with Q the Hessian by what the network puts out, and G its derivative by theta. (The
    divergence is at its minimum: second derivatives of the network do not come in.)
    """
    network = network_of(c)
    # What it puts out is a policy as well: one of a network without inputs, which is its biases.
    outer = {**network, "obs_dim": 0, "hidden": []}
    total = 0
    for o, share in states_that_count(D):
        outputs = lambda y, o=o: outputs_of(network, y, o)
        here = outputs(theta)
        G = jacobian(outputs, theta)
        Q = [
            exact.hessian_vector(lambda y, p=here: kl(outer, p, y, []), here, v)
            for v in loops_es.identity(len(here))
        ]
        total = total + share * (G.T @ np.array(Q) @ G)
    return total


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
    if not any(g):
        return x
    F = sum(fisher_matrix(c, x, life) for life in lives) / len(lives) + Decimal(
        "1e-5"
    ) * loops_es.identity(len(x))
    direction = conjugate_gradients(F, g)
    curvature = max(direction @ F @ direction, Decimal("1e-30"))
    step = (2 * Decimal("0.01") / curvature).sqrt() * direction
    for i in range(15):
        new = x - loops_policies.power(Decimal("0.8"), i) * step
        kl, gain = sum(np.array(trial_of_task(c, new, life)) for life in lives) / len(lives)
        if below(kl, Decimal("0.01")) and gain != 0 and below(0, gain):
            return new
    return x
