"""Arithmetic with 60 decimal digits, differences in it in place of every rule of differentiation,
and near decisions.

The loop forms that check the vectors are written in it. Arrays are NumPy's, of Decimals: only
NumPy's layout is used.
"""

from decimal import Context, Decimal, localcontext
from functools import lru_cache

import numpy as np

# Of differences: off by about STEP^2 and, by rounding, 10^-60 / STEP^2 in the second ones
STEP = Decimal("1e-12")
MARGIN = Decimal("1e-6")


def digits():
    return localcontext(Context(prec=60))


def exact(x):
    """x with every float in it, however deep, as the Decimal of the same value;
    whole numbers and texts as they are.
    """
    if isinstance(x, dict):
        return {name: exact(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [exact(value) for value in x]
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return np.array([Decimal(v) for v in x.ravel().tolist()], object).reshape(x.shape)
    return Decimal(x) if isinstance(x, float) else x


def rounded(x):
    """x with every Decimal in it as the nearest float, and lists of numbers as arrays."""
    if isinstance(x, dict):
        return {name: rounded(value) for name, value in x.items()}
    x = np.array(x)
    return x.astype(float) if x.dtype == object else x


def below(a, b):
    """a < b, which must not be a close decision: a port rounds differently."""
    if not abs(a - b) > MARGIN:
        raise AssertionError(f"{a} and {b} are too close for a decision")
    return a < b


def less(a, b):
    """a < b, where they may be equal on purpose."""
    return a != b and below(a, b)


def larger(a, b):
    return b if less(a, b) else a


def smaller(a, b):
    return a if less(a, b) else b


def clip(x, low, high):
    return larger(low, smaller(x, high))


@lru_cache(10000)
def exp(x):
    return x.exp()  # slow, and often asked for the same deviations


def tanh(x):
    return 1 - 2 / (exp(2 * x) + 1)


def sine(x):
    """The series of sin x, after halving angles to be quick is not worth the while for |x| < 4."""
    term, total, n = x, x, 1
    while abs(term) > Decimal("1e-58"):
        term, n = -term * x * x / ((n + 1) * (n + 2)), n + 2
        total += term
    return total


def cosine(x):
    return 1 - 2 * sine(x / 2) ** 2


LOG_2PI = Decimal("1.8378770664093454835606594728112352797227949472756")


def gradient(f, x):
    """Of the scalar f at the array x, by central differences."""
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[i] += STEP
        behind[i] -= STEP
        out[i] = (f(ahead) - f(behind)) / (2 * STEP)
    return out


def hessian_vector(f, x, v):
    """The Hessian of the scalar f at x times v, by differences of differences."""
    return gradient(lambda y: (f(y + STEP * v) - f(y - STEP * v)) / (2 * STEP), x)


def pack(arrays):
    return np.concatenate([np.ravel(np.asarray(a, object)) for a in arrays])


def unpack(flat, like):
    """The arrays, of the shapes of those in `like`, that `pack` put into one vector."""
    parts = np.split(flat, np.cumsum([np.size(a) for a in like])[:-1])
    return [part.reshape(np.shape(a)) for part, a in zip(parts, like, strict=True)]
