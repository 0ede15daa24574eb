"""Stage 1 once more: values from their definitions in decimal arithmetic,
derivatives by differences of them.
"""

import operator
from decimal import Decimal

import numpy as np

from . import exact

PARAMETERS = ("W1", "b1", "W2", "b2")


def index_of(axes):
    """From JSON: for each axis a whole number, an array of them, or {"start", "stop"}."""
    return tuple(slice(i["start"], i["stop"]) if isinstance(i, dict) else i for i in axes)


exp, log, sqrt = (np.frompyfunc(f, 1, 1) for f in (Decimal.exp, Decimal.ln, Decimal.sqrt))
larger, smaller = np.frompyfunc(exact.larger, 2, 1), np.frompyfunc(exact.smaller, 2, 1)
VALUES = {
    "exp": exp,
    "log": log,
    "sqrt": sqrt,
    "tanh": np.frompyfunc(exact.tanh, 1, 1),
    "relu": lambda x: larger(x, Decimal(0)),
    "sigmoid": lambda x: 1 / (1 + exp(-x)),
    "softplus": lambda x: log(1 + exp(x)),
    "maximum": larger,
    "minimum": smaller,
    "clip": lambda x, low, high: larger(low, smaller(x, high)),
    "sum": np.sum,
    "mean": lambda x, axis=None, keepdims=False: np.mean(x, axis, keepdims=keepdims),
    "max": lambda x, axis=None, keepdims=False: np.max(x, axis, keepdims=keepdims),
    "logsumexp": lambda x, axis=None, keepdims=False: log(np.sum(exp(x), axis, keepdims=keepdims)),
    "log_softmax": lambda x, axis=-1: x - log(np.sum(exp(x), axis, keepdims=True)),
    "matmul": np.matmul,
    "reshape": lambda x, shape: np.reshape(x, shape),
    "swapaxes": np.swapaxes,
    "broadcast_to": np.broadcast_to,
    "concatenate": lambda *xs, axis: np.concatenate(xs, axis),
    "stack": lambda *xs, axis: np.stack(xs, axis),
    "where": lambda a, b, condition: np.where(condition, a, b),
    "take_along_axis": np.take_along_axis,
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "raised": lambda x, exponent: x**exponent,
    "negative": operator.neg,
    "getitem": lambda x, index: x[index_of(index)],
}


def operation_by_differences(op, args, options, w, v):
    def value(*xs):
        return np.asarray(VALUES[op](*xs, **options), object)

    options = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }

    def weighted(flat):
        return np.sum(w * value(*exact.unpack(flat, args)))

    x = exact.pack(args)
    vjps = exact.unpack(exact.gradient(weighted, x), args)
    seconds = exact.unpack(exact.hessian_vector(weighted, x, exact.pack(v)), args)
    fields = {"value": value(*args), **{f"vjp{i}": g for i, g in enumerate(vjps)}}
    return fields | {f"second{i}": g for i, g in enumerate(seconds)}


def product(A, B):
    """The matrix product, number by number."""

    def number(i, j):
        return sum(A[i, k] * B[k, j] for k in range(len(B)))

    return np.array([[number(i, j) for j in range(B.shape[1])] for i in range(len(A))])


def values_of(x, W1, b1, W2, b2):
    """z, h and out of the network."""
    z = product(x, W1) + b1
    h = np.array([[exact.tanh(unit) for unit in row] for row in z])
    return z, h, product(h, W2) + b2


def adjoints_of(x, y, W1, b1, W2, b2):
    """The gradients of the loss by the parameters, and by z, h and out, back through the layers."""
    _, h, out = values_of(x, W1, b1, W2, b2)
    d_out = 2 * (out - y) / out.size
    d_h = product(d_out, W2.T)
    d_z = d_h * (1 - h**2)
    d_W1 = product(x.T, d_z)
    d_W2 = product(h.T, d_out)
    return [d_W1, sum(d_z), d_W2, sum(d_out), d_z, d_h, d_out]


def network_by_loops(x, y, v, **parameters):
    """Values and adjoints by the formulas that every textbook has; the product by differences of
    these.
    """
    theta = [parameters[name] for name in PARAMETERS]
    direction = [v[name] for name in PARAMETERS]
    z, h, out = values_of(x, *theta)
    fields = {"z": z, "h": h, "out": out, "loss": np.sum((out - y) ** 2) / out.size}
    names = (*PARAMETERS, "z", "h", "out")
    for name, adjoint in zip(names, adjoints_of(x, y, *theta), strict=True):
        fields[f"adjoint_{name}"] = adjoint

    def moved(step):
        return adjoints_of(x, y, *[p + step * d for p, d in zip(theta, direction, strict=True)])

    for name, ahead, behind in zip(PARAMETERS, moved(exact.STEP), moved(-exact.STEP), strict=False):
        fields[f"hvp_{name}"] = (ahead - behind) / (2 * exact.STEP)
    return fields


def orders_by_formula(x):
    """With t = tanh x, u = t' = 1 - t^2: u' = -2 t u, u'' = -2 u^2 + 4 t^2 u,
    u''' = 16 t u^2 - 8 t^3 u.
    """
    t = exact.tanh(x)
    u = 1 - t**2
    u1, u2, u3 = -2 * t * u, -2 * u**2 + 4 * t**2 * u, 16 * t * u**2 - 8 * t**3 * u
    return dict(
        zip(
            [f"order{n}" for n in range(5)],
            [x * t, t + x * u, 2 * u + x * u1, 3 * u1 + x * u2, 4 * u2 + x * u3],
            strict=True,
        )
    )


def unused_by_formula(x, y):
    return {"by_x": 2 * x, "by_y": 0 * y, "stopped": x}
