"""The functions of arrays that NumPy does not have, or not as fast: what autodiff.py is made of.

Arrays in, array out; nothing is recorded here. What NumPy has too keeps its name; `tanh_slope`,
`scatter` and `transposed_matmul` serve the derivatives in the table of autodiff.py. The arguments
that can be differentiated by come first, the options after them. Read it after autodiff.py, if at
all. The end is a setting of the memory allocator, made at import.
"""

import math

import numpy as np


def floating(x):
    """x as an array of floating-point numbers: integers and booleans become float64."""
    x = np.asarray(x)
    if x.dtype.kind in "biu":  # booleans, integers, unsigned integers
        x = x.astype(float)
    if x.dtype.kind != "f":
        raise TypeError(f"real floating-point numbers are needed, not {x.dtype}")
    return x


# --- Functions of each element, and what only moves elements ---


# fmt: off
def relu(x): return np.maximum(x, 0)
def softplus(x): return np.logaddexp(x, 0)
def sigmoid(x): return np.exp(-np.logaddexp(np.multiply(x, -1.0), 0))
def where(a, b, condition): return np.where(condition, a, b)
def getitem(x, index): return x[index]
def reshape(x, shape): return np.reshape(x, shape)
def concatenate(*xs, axis): return np.concatenate(xs, axis)
def stack(*xs, axis): return np.stack(xs, axis)
# Of which the result takes the place of x:
def tanh_(x): return np.tanh(x, out=x)
def relu_(x): return np.maximum(x, 0, out=x)
# fmt: on


def tanh_slope(h, y):
    """h * (1 - y * y) in one new array: where y = tanh(x), from the adjoint h of y to that of x."""
    slope = np.empty_like(y)
    np.multiply(y, y, out=slope)
    np.subtract(1, slope, out=slope)
    return np.multiply(h, slope, out=slope)


def scatter(g, index, shape):
    """The adjoint of x[index]: zeros of x's shape with g added at `index`."""
    out = np.zeros(shape, g.dtype)
    keys = index if isinstance(index, tuple) else (index,)
    if all(k is None or k is Ellipsis or isinstance(k, (slice, int)) for k in keys):
        out[index] = g
    else:  # index arrays may name an element more than once
        np.add.at(out, index, g)
    return out


# --- Products ---


def transposed_matmul(x, y):
    """x.T @ y for matrices, or batches of them."""
    return np.matmul(np.swapaxes(x, -1, -2), y)


def affine(x, w, b):
    """x @ w + b."""
    out = np.matmul(x, w)
    out += b  # in place: no second array
    return out


# --- Reductions ---


def logsumexp(x, axis, keepdims):
    x = floating(x)
    top = _finite_max(x, axis)
    with np.errstate(divide="ignore"):  # log 0 is -inf
        out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    if keepdims:
        return out
    return np.squeeze(out, axis)


def softmax(x, axis):
    out = np.exp(x - _finite_max(x, axis))
    return out / np.sum(out, axis=axis, keepdims=True)


def _finite_max(x, axis):
    """The maximum: exp(x - it) does not overflow. Finite, also of nothing: inf - inf is NaN."""
    limits = np.finfo(x.dtype)
    top = np.max(x, axis=axis, keepdims=True, initial=limits.min)
    return np.minimum(top, limits.max)


def log_softmax(x, axis):
    x = floating(x)
    x = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))


def sum(x, axis, keepdims):
    """np.sum, which is slow where few numbers follow the axes, as where broadcasting is undone."""
    x = np.asarray(x)
    if _blas_can_sum(x, axis):
        return _sum_by_blas(x, axis, keepdims)
    return np.sum(x, axis=axis, keepdims=keepdims)


def _blas_can_sum(x, axis):
    """Whether the axes are neighbours, others follow them, and x is of a type that BLAS knows."""
    if not isinstance(axis, tuple) or not axis:
        return False
    first = axis[0]
    stop = axis[-1] + 1
    neighbours = axis == tuple(range(first, stop))
    return neighbours and 0 <= first < stop < x.ndim and x.dtype.char in "fd"


def _sum_by_blas(x, axis, keepdims):
    """The sum over neighbouring axes as a product with a row of ones."""
    first = axis[0]
    stop = axis[-1] + 1
    before = x.shape[:first]
    summed = x.shape[first:stop]
    after = x.shape[stop:]
    matrices = x.reshape(math.prod(before), math.prod(summed), math.prod(after))
    out = np.ones(math.prod(summed), x.dtype) @ matrices
    kept = (1,) * len(axis) if keepdims else ()
    return out.reshape(*before, *kept, *after)


# --- Memory ---


def _keep_freed_memory():
    """Make glibc keep freed arrays for the next ones; a third of the time of a meta-gradient.

    By default glibc gives large arrays back to the system, and to get them again costs more than to
    compute them. Once 32 MB were freed in one piece (mallopt(3)), it keeps what is freed, except at
    the end of its heap. So a small array is left there as a lid, and returned to be kept. None of
    this memory is ever touched, so that it costs nothing.
    """
    np.empty(4_000_000)
    room = [np.empty(2_000_000) for _ in range(16)]
    lid = np.empty(200_000)
    del room
    return lid


_LID = _keep_freed_memory()
