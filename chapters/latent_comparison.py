"""What z is compared with in latent_model.py, and how the comparison is shown.

The rivals of z are models that are told something else of a payload. What a model is told beside x
is its context c. Of recorded flights x (B, N, 6), y (B, N, 4) it is needed for each transition,
c (B, N, e). In flight it is needed at step t, when x (B, t, 6) and y (B, t, 4) have been seen: a
function of (t, x, y) gives c (B, e).

Read from the top: what the rivals are told, in recorded flights and in flight; how well models
predict; the tables; the picture.
"""

import numpy as np

import autodiff as ad
from chapters import payload
from chapters.common import EACH, OWN, above, below, table
from metarl import noise_at


# --- What the rivals are told, in recorded flights ---
def told(length, x, y, memory):
    """{model: c (B, N, e)} of flights x, y with tethers of length (B,)."""
    B, N, _ = x.shape
    return {
        "no z": np.zeros((B, N, 0)),
        "history": history(x, y, memory),
        "length known": np.tile(as_context(length)[:, None], (1, N, 1)),
    }


def history(x, y, memory):
    """For each transition the `memory` ones before it, (B, N, memory * 10), the oldest first."""
    N = x.shape[1]
    padded = padded_pairs(x, y, memory)  # transition n is at n + memory, after all it is told
    return np.concatenate([padded[:, i : i + N] for i in range(memory)], -1)


def padded_pairs(x, y, memory):
    """(B, memory + N, 10): x and y of each transition, after zeros for the `memory` before all."""
    pairs = np.concatenate([x, y], -1)
    return np.pad(pairs, [(0, 0), (memory, 0), (0, 0)])


def as_context(length):
    """Lengths (B,) as a context (B, 1): logarithms, moved so that in training their mean is 0."""
    return np.log(length)[:, None] + 0.8


def negative_log_p(net, theta, q, x_and_c, y, eps, weight):
    """What rivals learn by in place of the ELBO, (K,).

    Without z there is no use for q and eps; and without KL none for the weight, as Adam does not
    mind a factor.
    """
    return -ad.sum(net.log_p(theta, x_and_c, y), -1)


# --- What they are told in flight ---
def nothing(e):
    """No context (e = 0), or the prior's mean of z (e = 1)."""
    return lambda t, x, y: np.zeros((len(x), e))


def known(lengths):
    """The lengths (H, B) of the tethers."""
    return lambda t, x, y: as_context(lengths[t])


def of_another(context, other):
    """In flight b the context of flight other[b]."""
    return lambda t, x, y: context(t, x, y)[other]


def latest(memory):
    """The history of the transition to come: the latest ones."""

    def context(t, x, y):
        return padded_pairs(x, y, memory)[:, -memory:].reshape(len(x), -1)

    return context


def slide(c, x, y):
    """A history (..., memory * 10) after one more transition, x (..., 6) and y (..., 4).

    In a plan these are the transitions that the model predicts.
    """
    pair = np.concatenate([x, y], -1)
    return np.concatenate([c[..., pair.shape[-1] :], pair], -1)


# --- How well models predict ---
SEEN = (0, 1, 2, 5, 10, 50)  # transitions that z is inferred from


def predictions(o, models, z_from, seed):
    """{row: {"-log p": number}}: how well models predict a second flight of each held-out payload.

    From the end of the first flight z_from(x, y, n, rng) infers a belief, and draws n times z from
    it, one for each transition of the second. -log p is that of p(y|x, z) with the z that was
    drawn, in the mean over transitions.
    """
    length = np.repeat(o.held_out, 2)
    x, y = payload.wander(length, o.flight_steps, noise_at(seed, OWN, 5))
    x = x / models["z"].x_std
    y = y / models["z"].y_std
    x_seen = x[0::2]
    y_seen = y[0::2]
    x_new = x[1::2]
    y_new = y[1::2]
    contexts = told(length[1::2], x_new, y_new, o.memory)
    rng = noise_at(seed, OWN, 6)
    for seen in SEEN:
        start = o.flight_steps - seen
        z = z_from(x_seen[:, start:], y_seen[:, start:], o.flight_steps, rng)
        contexts[f"z from {seen}"] = z
    rows = {}
    for name, c in contexts.items():
        model = models.get(name, models["z"])  # the latter for "z from ..."
        log_p = model.net.log_p(model.theta, np.concatenate([x_new, c], -1), y_new)
        rows[f"predicted, {name}"] = {"-log p": -log_p.mean()}
    return rows


# --- What is printed ---
def report(rows):
    flown = [name for name in rows if not name.startswith("predicted")]
    predicted = [name for name in rows if name.startswith("predicted")]
    columns = ("held out", "exchanged", "settled", "outside")
    return f"""
Distance of the payload to the circle, cm: before the payload is exchanged,
in the 15 steps after, 30 steps after and later; lengths outside those of training
{table(rows, flown, columns)}
-log p of new transitions of held-out payloads; z from 5 is drawn after 5 others were seen
{table(rows, predicted, ("-log p",))}"""


def claims(rows):
    error = {name: columns.get("held out") for name, columns in rows.items()}
    z = error["z inferred"]
    settled = rows["z inferred"]["settled"] / z
    outside = rows["z inferred"]["outside"] / rows["no z"]["outside"]
    return [
        below("z is needed: error inferred / no z", 0.35, z / error["no z"], EACH),
        below("as if known: inferred / length known", 1.25, z / error["length known"]),
        below("better than a history: inferred / history", 0.8, z / error["history"]),
        above("it has to be its own: another's z / inferred", 4, error["another's z"] / z, EACH),
        above("prior's z / inferred", 3, error["prior's z"] / z, EACH),
        below("after an exchange: settled / before", 1.3, settled, EACH),
        below("outside the lengths of training: inferred / no z", 0.35, outside, EACH),
    ]


# --- The picture ---
def draw(figure, picture):
    """The second half of flights with the longest tether, with three models; below, z over time."""
    o = picture["o"]
    figure.set_size_inches(8, 6)
    three = ["no z", "history", "z inferred"]
    panels = figure.subplot_mosaic([three, ["z"] * 3])
    for name in three:
        states, _ = picture["flights"][name]
        draw_path(panels[name], states[o.exchange :, -1])
        panels[name].set_title(name)
    panels["no z"].set_ylabel(f"tether of {o.outside[-1]} m,\nnever trained on")
    draw_z(panels["z"], **picture)


def draw_path(panel, states):
    """The payload's path (steps, 6), and in grey the circle."""
    turn = np.stack([payload.circle(t) for t in range(payload.PERIOD + 1)])
    panel.plot(*turn.T, color="0.8", linewidth=5)
    panel.plot(*states[:, :2].T, linewidth=0.9)
    side = (-0.75, 0.75)
    panel.set(aspect="equal", xlim=side, ylim=side, xlabel="m")


def draw_z(panel, o, q, lengths, flights):
    """mu of each held-out flight over time, and in grey mu_k of the payloads of training."""
    _, z = flights["z inferred"]
    H = len(z)
    for b, first in enumerate(o.held_out):
        panel.plot(z[:, b, 0], linewidth=1.1, label=f"{first} m, then {lengths[-1, b]} m")
    for mu, length in zip(q[:, 0], o.lengths, strict=True):
        panel.hlines(mu, 0, H, color="0.8", zorder=0)
        panel.text(H + 1, mu, f"{length} m", color="0.4", va="center")
    panel.axvline(o.exchange, color="0.5", linestyle=":")
    panel.set_title("inferred mu; payloads are exchanged at the dotted line; in grey, of training")
    panel.set(xlabel="step", ylabel="mu", xlim=(0, 1.08 * H))
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
