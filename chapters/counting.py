"""What bandits.py measures itself by: agents that count successes and failures, and the optimum.

wins, losses   (T, arms), of the pulls so far
t, pulls       how many there were, and how many there are in a lifetime
"""

from functools import cache

import numpy as np


def optimum(arms, pulls):
    """The expected return of the Bayes-optimal agent under uniform priors, by dynamic programming.

    A state is the sorted tuple of (successes, failures) of the arms tried so far: all others are
    alike.
    """

    @cache
    def value(tried, left):
        if left == 0:
            return 0.0
        choices = [(arm, tried[:i] + tried[i + 1 :]) for i, arm in enumerate(tried)]
        if len(tried) < arms:
            choices.append(((0, 0), tried))  # a new arm
        return max(expected(arm, rest, left) for arm, rest in choices)

    def expected(arm, rest, left):
        wins, losses = arm
        p = (wins + 1) / (wins + losses + 2)
        won = tuple(sorted((*rest, (wins + 1, losses))))
        lost = tuple(sorted((*rest, (wins, losses + 1))))
        return p * (1 + value(won, left - 1)) + (1 - p) * value(lost, left - 1)

    return value((), pulls)


@cache
def gittins(pulls, grid=400):
    """The finite-horizon Gittins index of an arm,
    [pulls left, successes, failures] (Kaufmann 2018, section 2).

    An arm alone may be pulled for a price, and left for good at any time within the pulls left. Its
    index is the price at which pulling at least once is worth 0. What that is worth comes from
    dynamic programming, for a grid of prices, between which it is interpolated to 0.
    """
    price = np.linspace(0, 1, grid)[:, None, None]
    index = np.zeros((pulls + 1,) * 3)
    value = np.zeros((grid, pulls + 1, pulls + 1))  # of an arm that may be left at once
    for left in range(1, pulls + 1):
        n = pulls - left + 1  # successes and failures so far are each below n
        wins, losses = np.ogrid[:n, :n]
        p = (wins + 1) / (wins + losses + 2)
        won = value[:, 1 : n + 1, :n]
        lost = value[:, :n, 1 : n + 1]
        worth = p - price + p * won + (1 - p) * lost  # it decreases in the price
        # i: the last price at which it is above 0
        i = np.maximum((worth > 0).sum(0), 1) - 1
        high, low = np.take_along_axis(worth, np.stack([i, i + 1]), 0)
        index[left, :n, :n] = (i + high / (high - low)) / (grid - 1)
        value[:, :n, :n] = np.maximum(worth, 0)
    return index


def ucb1(wins, losses, t, pulls, rng):
    """Auer et al. 2002, figure 1."""
    pulled = wins + losses
    n = np.maximum(pulled, 1)  # lest 0 be divided by
    bound = wins / n + np.sqrt(2 * np.log(max(t, 1)) / n)
    return np.where(pulled > 0, bound, np.inf)


# The arm with the largest number is pulled, the first of several: they are exchangeable
AGENTS = {
    "random": lambda wins, losses, t, pulls, rng: rng.random(wins.shape),
    "greedy": lambda wins, losses, t, pulls, rng: (wins + 1) / (wins + losses + 2),
    "UCB1": ucb1,
    "Thompson": lambda wins, losses, t, pulls, rng: rng.beta(wins + 1, losses + 1),
    "Gittins": lambda wins, losses, t, pulls, rng: gittins(pulls)[pulls - t, wins, losses],
}


def play(agent, tasks, pulls, rng):
    """(T, pulls): the rewards of one lifetime of a counting agent in each task (T, arms)."""
    wins = np.zeros(tasks.shape, int)
    losses = np.zeros(tasks.shape, int)
    rows = np.arange(len(tasks))
    rewards = []
    for t in range(pulls):
        arm = agent(wins, losses, t, pulls, rng).argmax(1)
        won = rng.random(len(tasks)) < tasks[rows, arm]
        wins[rows, arm] += won
        losses[rows, arm] += ~won
        rewards.append(won)
    return np.stack(rewards, 1)
