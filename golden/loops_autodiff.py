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


def network_by_loops(x, y, v, **parameters):
    """Values unit by unit; the adjoints by the formulas that every textbook has;
    the product by differences of them.
    """

    def layer(x, W, b):
        return [
            [b[o] + sum(r[i] * W[i, o] for i in range(len(r))) for o in range(len(b))] for r in x
        ]

    def evaluate(W1, b1, W2, b2):
        z = np.array(layer(x, W1, b1))
        h = np.array([[exact.tanh(u) for u in row] for row in z])
        return z, h, np.array(layer(h, W2, b2))

    def adjoints(W1, b1, W2, b2):
        _, h, out = evaluate(W1, b1, W2, b2)
        N, O = out.shape
        d_out = np.array(
            [[2 * (out[n, o] - y[n, o]) / (N * O) for o in range(O)] for n in range(N)]
        )
        d_h = np.array(
            [
                [sum(d_out[n, o] * W2[i, o] for o in range(O)) for i in range(len(W2))]
                for n in range(N)
            ]
        )
        d_z = np.array([[d_h[n, i] * (1 - h[n, i] ** 2) for i in range(len(W2))] for n in range(N)])
        d_W1 = np.array(
            [
                [sum(x[n, j] * d_z[n, i] for n in range(N)) for i in range(len(b1))]
                for j in range(len(W1))
            ]
        )
        d_W2 = np.array(
            [
                [sum(h[n, i] * d_out[n, o] for n in range(N)) for o in range(O)]
                for i in range(len(W2))
            ]
        )
        return [d_W1, sum(d_z), d_W2, sum(d_out), d_z, d_h, d_out]

    theta, direction = [parameters[name] for name in PARAMETERS], [v[name] for name in PARAMETERS]
    z, h, out = evaluate(*theta)
    fields = {"z": z, "h": h, "out": out, "loss": np.sum((out - y) ** 2) / out.size}
    fields |= {
        f"adjoint_{name}": a
        for name, a in zip((*PARAMETERS, "z", "h", "out"), adjoints(*theta), strict=True)
    }
    ahead, behind = (
        adjoints(*[p + h * d for p, d in zip(theta, direction, strict=True)])
        for h in (exact.STEP, -exact.STEP)
    )
    products = [(a - b) / (2 * exact.STEP) for a, b in zip(ahead[:4], behind[:4], strict=True)]
    return fields | {f"hvp_{name}": p for name, p in zip(PARAMETERS, products, strict=True)}


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
