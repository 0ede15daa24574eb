"""TRPO as the outer optimiser: a step along the natural gradient, within a bound on how far adapted policies may move.

MAML was published with it. `trpo` is the step; F, the Fisher matrix of the policies after adaptation as a function of
the parameters before it, is never built, only multiplied: by automatic differentiation through the inner loop.
"""

from dataclasses import replace
from functools import partial

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

import autodiff as ad
from autodiff import Tensor, grad
from metarl import adapt, lifetime, sampler
from policies import sampling_term, surrogate

DELTA, DAMPING = 0.01, 1e-5  # the bound on the divergence, and what is added to F


def trpo(c, state, g, tasks, address, in_chunks):
    """A trust-region step against the gradient g (Schulman et al. 2015, Appendix C), as MAML was published with.

    The direction is F^-1 g, F the Hessian of the mean divergence of the adapted policies from those before the step;
    the step along it is shortened until the divergence is at most DELTA and the loss has improved.
    """
    x = state["theta"]
    mean = lambda f, vector: in_chunks(partial(f, vector), c, x, tasks, address)[0].mean(0)
    F = lambda v: mean(fisher_product, v.astype(x.dtype)) + DAMPING * v
    direction, _ = cg(LinearOperator((x.size, x.size), F, dtype=x.dtype), g, rtol=1e-10, maxiter=10)
    step = np.sqrt(2 * DELTA / max(direction @ F(direction), 1e-30)) * direction
    for i in range(15):
        new = x - (0.8**i * step).astype(x.dtype)
        kl, gain = mean(trial, new)
        if kl <= DELTA and gain > 0:
            return {**state, "theta": new}
    return state


def divergence(c, theta, other, D):
    """(T,): the mean of KL(pi_theta || pi_other) over the steps of D."""
    return ad.sum(c.network.kl(theta, other, D.obs) * D.mask, (1, 2)) / D.mask.sum((1, 2))


def fisher_product(v, c, x, tasks, address):
    """[(T, P)]: J^T F' J v for each task, the product of v with the Hessian at x of the divergence after adaptation.

    J is the derivative of theta' by x; F' the Hessian of the divergence by theta', whose gradient is 0 there.
    """
    x = Tensor(np.tile(x, (len(tasks), 1)))
    path, episodes = lifetime(c, x, sampler(c, tasks, address))
    theta, u = path[-1], Tensor(np.zeros(path[-1].shape, x.dtype))
    Jv = grad(
        ad.sum(grad(theta, x, u, create_graph=True) * v), u
    )  # the derivative of v . J^T u by u
    Fv = ad.hvp(
        lambda other: ad.sum(divergence(c, theta.data, other, episodes[-1])), theta.data, Jv.data
    )
    return [grad(theta, x, Fv).data]


def remember(c, path, episodes):
    """The episodes with the log-probabilities under the policies that took them, so that others can be judged on them."""
    pairs = zip(path, episodes, strict=True)
    return [
        D._replace(log_pi=c.network.log_prob(theta.data, D.obs, D.actions)) for theta, D in pairs
    ]


def trial(new, c, x, tasks, address):
    """[(T, 2)]: for each task the divergence of new (P,) from x and what it improves, on the episodes of x."""
    x, new = (Tensor(np.tile(a, (len(tasks), 1))) for a in (x, new))
    path, episodes = lifetime(replace(c, estimator="first-order"), x, sampler(c, tasks, address))
    episodes = remember(c, path, episodes)
    other, D = adapt(c, new, lambda k, theta: episodes[k])[0], episodes[-1]
    gain = surrogate(c, path[-1], D, "lvc") - surrogate(c, other[-1], D, "lvc")
    if c.sampling_term:
        gain = gain + sampling_term(c, path, episodes) - sampling_term(c, other, episodes)
    return [np.stack([divergence(c, path[-1].data, other[-1].data, D), gain.data], 1)]
