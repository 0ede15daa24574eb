"""Unsupervised meta-RL: MAML on tasks that the agent has made up itself, without a reward.

    python -m chapters.uml [--seeds 5] [--first-seed 0] [--quick] [--plot DIR] [--json]

Gupta, Eysenbach, Finn & Levine, "Unsupervised Meta-Learning for Reinforcement Learning", 2018,
arXiv 1806.04640, Algorithm 1. Its tasks come from DIAYN (Eysenbach, Gupta, Ibarz & Levine 2019,
arXiv 1802.06070, Algorithm 1). In our words, with the numbers that the lines of the code carry:

    given a world without rewards
    l.1   D_phi(z|s), at random or by DIAYN:
              DIAYN l.1   while not done:
              DIAYN l.2     each skill z acts by pi_psi(a|s, z)
              DIAYN l.3     and is paid log D_phi(z|s) - log p(z) at every state s
              DIAYN l.4     psi: a step of policy gradient up that reward
              DIAYN l.5     phi: a step up log D_phi(z|s) of these states
          phi is frozen; psi goes no further, but into two rows of the comparison
    l.2   while not done:
    l.3     tasks z ~ p(z)
    l.4     with the reward r_z(s) = log D_phi(z|s)
    l.5     theta: an iteration of MAML on them

A skill is paid where D can tell it from the others, so that skills spread over the world; and a
task is to go where D sees its skill.

The claim: what was meta-trained so learns a task with a true reward faster than from scratch, and
nearly as fast as what was meta-trained on tasks like it.

Read from the top: the discriminator and its skills, l.1; `unsupervised`, l.2 to 5; `run`, which
tests theta on goals, beside what it has to beat; what is printed. swirl.py has the world, the tasks
of skills, and the setting of MAML.

Said plainly: the best skill of DIAYN, fine-tuned, is as good as UML-DIAYN, if all may be tried
first, which takes almost the episodes of a step and is not counted. That DIAYN's tasks are better
than those of a random D is a fact of this world, not a law. DIAYN took 320,000 steps of the world
that UML-RANDOM and MAML on goals did not take.

Smaller than in the paper: a point in a box for simulated robots; policy gradient for SAC, and a
held deviation in place of its bonus on entropy; Adam for MAML's outer step by TRPO; 8 skills, 80
iterations.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

import autodiff as ad
import metarl
from autodiff import Tensor, grad
from chapters import common, swirl
from chapters.common import EACH, OWN, Chapter, above, cell, difference, meta_train
from chapters.swirl import Skills, meta_test, setting, uniform
from metarl import noise_at
from policies import Network, rollout, surrogate


@dataclass(frozen=True)
class Options(swirl.Training):
    skills: int = 8  # K
    diayn_iterations: int = 200
    diayn_episodes: int = 10  # of each skill in an iteration
    beta_psi: float = 0.01  # Adam's step size on the skills
    beta_phi: float = 0.003  # and on the discriminator
    random_scale: float = 4.0  # of the weights of a discriminator that stays random
    trials: int = 2  # episodes in which each skill is tried, to find the best for a goal


QUICK = Options(iterations=10, diayn_iterations=50, test_goals=10, alphas=(0.06, 0.25))

# Noise of its own: (seed, OWN, 0) phi at first; 1 psi at first; (2, t) episodes of iteration t of
# DIAYN; 3 any skill; 4 trials of all skills; 5 the episodes that measure D, and are drawn.


# --- l.1: the discriminator, and the skills that teach it ---
def discriminator(o):
    """The network of D_phi(z|s): from a position to K logits."""
    return Network(2, o.skills, o.hidden)


def first_phi(o, seed):
    return discriminator(o).init(noise_at(seed, OWN, 0))


def log_D(o, phi, s):
    """log D_phi(z|s) of all skills z, (..., K), at s (..., 2)."""
    return ad.log_softmax(discriminator(o).apply(phi, s))


def tasks_of(o, phi, family=Skills):
    """The skills as tasks, z ~ p(z), with the reward r_z(s) = log D_phi(z|s)."""
    return family(o.world, partial(log_D, o, phi), uniform(o.skills))


def skill_network(o):
    """The network of pi_psi(a|s, z): from a position and a skill to the mean of the action."""
    return Network(2 + o.skills, 2, o.hidden)


def skill_policies(o, psi):
    """(K, P): for each z the policy pi_psi(a|s, z), as the parameters of a policy of s alone.

    z, a row of the identity, does one thing in the network: it picks a row of the first weights,
    which is added to the first biases. The deviation of actions is held at o.std, in place of
    DIAYN's bonus on their entropy.
    """
    h = o.hidden[0]
    end = (2 + o.skills) * h  # of the first weights
    w_s = psi[: 2 * h]
    w_z = psi[2 * h : end].reshape(o.skills, h)
    b = psi[end : end + h]
    later = psi[end + h :]
    for_each = np.ones((o.skills, 1))
    log_std = np.full((o.skills, 2), np.log(o.std))
    return ad.concatenate([for_each * w_s, w_z + b, for_each * later, log_std], 1)


def diayn(o, seed):
    """phi of the discriminator, and psi of the skills that taught it."""
    z = np.eye(o.skills)
    phi = first_phi(o, seed)
    psi = skill_network(o).init(noise_at(seed, OWN, 1))
    m_psi = v_psi = m_phi = v_phi = 0  # moments of Adam
    for t in range(o.diayn_iterations):  # DIAYN l.1
        # Without log p(z): it is the same in all states, so that it adds the same to the return of
        # all episodes at a time step, and the baseline takes that away.
        tasks = tasks_of(o, phi)  # DIAYN l.3
        c = setting(o, tasks, seed)
        x = Tensor(psi)
        theta = skill_policies(o, x)
        rng = noise_at(seed, OWN, 2, t)
        D = rollout(tasks, c.pi, theta.data, z, o.diayn_episodes, rng)  # DIAYN l.2
        loss = ad.sum(surrogate(c, theta, D))  # minus the return: down the loss is up the reward
        g = grad(loss, x).data
        g, m_psi, v_psi = metarl.adam(g, m_psi, v_psi, t + 1)
        psi = psi - o.beta_psi * g  # DIAYN l.4

        x = Tensor(phi)
        log_D_of_all = log_D(o, x, after_the_first(D.obs))
        log_D_of_z = ad.sum(log_D_of_all * z[:, None, None], -1)
        g = grad(-ad.mean(log_D_of_z), x).data
        g, m_phi, v_phi = metarl.adam(g, m_phi, v_phi, t + 1)
        phi = phi - o.beta_phi * g  # DIAYN l.5
    phi.flags.writeable = False  # from here on it is frozen
    return phi, psi


def after_the_first(s):
    """The states (K, episodes, H - 1, 2) after the first, which is the origin for all skills."""
    return s[:, :, 1:]


def accuracy(o, phi, s):
    """The share of states s (K, ..., 2), whose row is their skill, that D_phi knows."""
    guess = log_D(o, phi, s).argmax(-1)
    z = np.arange(o.skills).reshape(-1, 1, 1)
    return (guess == z).mean()


# --- l.2 to 5: MAML ---
def unsupervised(o, seed, phi, family=Skills):
    """x (2P,), meta-trained on the tasks of D_phi."""
    c = setting(o, tasks_of(o, phi, family), seed)  # l.3, l.4
    return meta_train(c)["theta"]  # l.2, l.5


# --- What it has to beat, and the test ---
def any_skill(o, seed, psi):
    """(T, P): a skill at random for each of the held-out goals."""
    z = noise_at(seed, OWN, 3).integers(o.skills, size=o.test_goals)
    return skill_policies(o, psi)[z]


def best_skill(o, seed, psi):
    """(T, P): for each held-out goal the skill that earned most in o.trials episodes there."""
    c = setting(o, o.world, seed)
    skills = skill_policies(o, psi)
    goals = np.repeat(swirl.goals_of(c), o.skills, 0)
    theta = np.tile(skills, (o.test_goals, 1))
    D = rollout(o.world, c.pi, theta, goals, o.trials, noise_at(seed, OWN, 4), keep=False)
    z = D.returns.reshape(o.test_goals, o.skills).argmax(1)
    return skills[z]


def run(o, seed):
    """The rows of a seed, {row: {column: number}}; and what `draw` needs."""
    phi, psi = diayn(o, seed)
    random_phi = o.random_scale * first_phi(o, seed)
    on_goals = setting(o, o.world, seed)
    learned_from = {
        "scratch": swirl.untrained(o, seed),
        "any DIAYN skill": any_skill(o, seed, psi),
        "best DIAYN skill": best_skill(o, seed, psi),
    }
    meta_trained = {
        "UML-RANDOM": unsupervised(o, seed, random_phi),
        "UML-DIAYN": unsupervised(o, seed, phi),
        "shuffled": unsupervised(o, seed, phi, swirl.Shuffled),
        "MAML on goals": meta_train(on_goals)["theta"],
    }
    returns = {name: swirl.fine_tuned(o, seed, theta) for name, theta in learned_from.items()}
    returns |= {name: meta_test(on_goals, x) for name, x in meta_trained.items()}

    theta = skill_policies(o, psi)
    rng = noise_at(seed, OWN, 5)
    D = rollout(tasks_of(o, phi), on_goals.pi, theta, np.eye(o.skills), o.episodes, rng)
    rows = {name: swirl.as_row(numbers) for name, numbers in returns.items()}
    rows["D"] = {"accuracy": accuracy(o, phi, after_the_first(D.obs))}
    return rows, {"o": o, "DIAYN": phi, "RANDOM": random_phi, "paths": D.obs}


# --- What is printed ---
def report(rows):
    others = ("scratch", "best DIAYN skill", "UML-RANDOM", "shuffled", "MAML on goals")
    known = cell(rows["D"]["accuracy"], 3)
    text = swirl.tables(rows, "UML-DIAYN", others)
    text += "\nStates of new episodes of the skills, whose skill D knows\n"
    return text + f"{known}; by chance 0.125\n"


def share(rows, k):
    """How much of the way from scratch to MAML on goals UML-DIAYN goes, of the means over seeds."""
    way = difference(rows, "MAML on goals", "scratch")[k].mean()
    return difference(rows, "UML-DIAYN", "scratch")[k].mean() / way


def claims(rows):
    gain = difference(rows, "UML-DIAYN", "scratch")
    over_random = difference(rows, "UML-DIAYN", "UML-RANDOM")
    over_shuffled = difference(rows, "UML-DIAYN", "shuffled")
    known = rows["D"]["accuracy"]
    faster = "faster than scratch: UML-DIAYN - scratch"
    near = "near MAML on goals: share of the way"
    return [
        above(f"{faster}, k = 1", 2.5, gain["k = 1"]),
        above(f"{faster}, k = 1", 0, gain["k = 1"], EACH),
        above(f"{faster}, k = 2", 1.4, gain["k = 2"]),
        above(f"{faster}, k = 2", 0, gain["k = 2"], EACH),
        above(f"{near}, k = 1", 0.6, share(rows, "k = 1")),
        above(f"{near}, k = 2", 0.65, share(rows, "k = 2")),
        above("skills are better tasks: UML-DIAYN - UML-RANDOM, k = 1", 1, over_random["k = 1"]),
        above("tasks are what counts: UML-DIAYN - shuffled, k = 1", 4, over_shuffled["k = 1"]),
        above("skills can be told apart: accuracy of D", 0.9, known, EACH),
    ]


def draw(figure, picture):
    """Which skill D sees where, the paler the less sure, and paths of DIAYN's skills."""
    o = picture["o"]
    figure.set_size_inches(8, 4.3)
    axis = np.linspace(-1, 1, 101)
    plane = np.stack(np.meshgrid(axis, axis), -1)
    for panel, name in zip(figure.subplots(1, 2), ("DIAYN", "RANDOM"), strict=True):
        log_p = log_D(o, picture[name], plane)
        strength = 0.5 * np.exp(log_p.max(-1, keepdims=True))
        colours = 1 - strength * (1 - swirl.COLOURS[log_p.argmax(-1)])
        panel.imshow(colours, origin="lower", extent=(-1, 1, -1, 1))
        panel.set_title(f"the skill that D sees, {name}")
        swirl.draw_walls(panel)
    paths = picture["paths"][:, :5]
    K, n, H, _ = paths.shape
    swirl.draw_paths(figure.axes[0], paths.reshape(K * n, H, 2), np.repeat(np.arange(K), n))


CHAPTER = Chapter("uml", __doc__, Options(), QUICK, run, report, claims, draw)

if __name__ == "__main__":
    raise SystemExit(common.main(CHAPTER))
