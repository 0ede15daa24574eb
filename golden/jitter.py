"""What another machine rounds otherwise: the project's code with errors of a few ulps.

Elsewhere sums are taken in another order, and exp and tanh come from another library. That may
change the last digits of a field, but by no more than a small share of its tolerance, or a port
that is right fails. So here each number of the inputs, and of what an operation gives, is off by
up to 2 ulps. By how many is decided by the number itself and a seed: equal numbers stay equal and
opposite ones opposite; and what has few binary digits (0, 0.5, 9999, a sum of rewards of 1), which
no order of a sum rounds, stays as it is. So a tie that is meant stays a tie.
"""

from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np

import arrays
import autodiff as ad
import policies

ULPS = 2
FACTORS = 1 + (np.arange(2**12) % (2 * ULPS + 1) - ULPS) * np.finfo(float).eps
# One for each seed, to be multiplied with the bits of a number: odd, and without a pattern
MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64)
SEEDS = range(len(MULTIPLIERS))
SIGN = np.uint64(1)  # the first bit
LONG = np.uint64(12 + 24)  # sign, exponent, and so many digits that a number with them is short
HASH = np.uint64(64 - 12)
NAMED = ("c", "options", "network")  # inputs that hold no arrays, but options

# The operations of autodiff.py that round; others only move numbers, or choose among them.
ROUNDING = {
    np.add, np.subtract, np.multiply, np.divide, np.power, np.exp, np.log, np.sqrt, np.tanh,
    arrays.tanh_, arrays.tanh_slope, arrays.sigmoid, arrays.softplus, arrays.sum, np.matmul,
    arrays.affine, arrays.transposed_matmul, arrays.logsumexp, arrays.softmax, arrays.log_softmax,
}  # fmt: skip


def jittered(x, seed):
    """x with each element off by -2 to 2 ulps, if it is an array of float64."""
    if not isinstance(x, (np.ndarray, np.float64)) or x.dtype != float:
        return x
    bits = np.ravel(x).view(np.uint64)
    is_long = bits << LONG != 0
    drawn = (bits << SIGN) * MULTIPLIERS[seed] >> HASH
    factors = np.where(is_long, FACTORS[drawn], 1.0)
    return x * factors.reshape(np.shape(x))


def off(inputs, seed):
    """The inputs of a case with every array in them, however deep, jittered."""
    if isinstance(inputs, dict):
        return {k: v if k in NAMED else off(v, seed) for k, v in inputs.items()}
    if isinstance(inputs, list):
        return [off(value, seed) for value in inputs]
    return jittered(inputs, seed)


@contextmanager
def rounding(seed):
    """Operations, returns and the solution of linear equations are jittered."""
    apply, solve, returns_to_go = ad.apply, np.linalg.solve, policies.returns_to_go

    def jittered_apply(function, *inputs, **options):
        out = apply(function, *inputs, **options)
        if function not in ROUNDING:
            return out
        if isinstance(out, ad.Tensor):
            out.data = jittered(out.data, seed)
            return out
        return jittered(out, seed)

    def jittered_solve(a, b):
        return solve(jittered(a, seed), jittered(b, seed))

    def jittered_returns(rewards, gamma):
        return jittered(returns_to_go(rewards, gamma), seed)

    with ExitStack() as stack:
        for patch in (
            mock.patch.object(ad, "apply", jittered_apply),
            mock.patch.object(np.linalg, "solve", jittered_solve),
            mock.patch.object(policies, "returns_to_go", jittered_returns),
        ):
            stack.enter_context(patch)
        yield
