"""Stage 1: values, vector-Jacobian products and second derivatives of the operations
of autodiff.py.
"""

import operator

import numpy as np

import autodiff as ad
from autodiff import Tensor, grad

from .loops_autodiff import (
    PARAMETERS,
    index_of,
    network_by_loops,
    operation_by_differences,
    orders_by_formula,
    unused_by_formula,
)
from .vectors import Case, noise

STAGE = "1-autodiff"
DIFFERENCES = "differences of the value, in decimal arithmetic of 60 digits"
HAND = "by hand: there is no derivative, and a convention takes its place"


# --- One operation ---
# Its value, the adjoints of its arguments for the adjoint w of the value, and the Hessian of
# sum(w * value) times v
OPERATORS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "raised": lambda x, exponent: x**exponent,
    "negative": operator.neg,
    "getitem": lambda x, index: x[index_of(index)],
    "concatenate": lambda *xs, axis: ad.concatenate(xs, axis),
    "stack": lambda *xs, axis: ad.stack(xs, axis),
    "where": lambda a, b, condition: ad.where(condition, a, b),
}


def call(op, args, options):
    options = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return (OPERATORS.get(op) or getattr(ad, op))(*args, **options)


def operation(op, args, options, w, v):
    leaves = [Tensor(a) for a in args]
    out = call(op, leaves, options)
    vjps = grad(out, leaves, grad_output=w, create_graph=True)
    slope = ad.sum(ad.stack([ad.sum(g * d) for g, d in zip(vjps, v, strict=True)]))
    fields = {"value": out.data, **{f"vjp{i}": g.data for i, g in enumerate(vjps)}}
    return fields | {f"second{i}": g.data for i, g in enumerate(grad(slope, leaves))}


# --- A small network: tanh(x W1 + b1) W2 + b2 against y, with the mean of squares for loss ---


def network(x, y, v, **parameters):
    W1, b1, W2, b2 = leaves = [Tensor(parameters[name]) for name in PARAMETERS]
    z = x @ W1 + b1
    h = ad.tanh(z)
    out = h @ W2 + b2
    loss = ad.mean((out - y) ** 2)
    g = grad(loss, [*leaves, z, h, out], create_graph=True)
    slope = ad.sum(
        ad.stack([ad.sum(a * v[name]) for a, name in zip(g[:4], PARAMETERS, strict=True)])
    )
    fields = {"z": z.data, "h": h.data, "out": out.data, "loss": loss.data}
    fields |= {
        f"adjoint_{name}": a.data for name, a in zip((*PARAMETERS, "z", "h", "out"), g, strict=True)
    }
    return fields | {
        f"hvp_{name}": a.data for name, a in zip(PARAMETERS, grad(slope, leaves), strict=True)
    }


# --- Derivatives of derivatives ---
def orders(x):
    """x tanh x and its first four derivatives:
    x is used twice, and each derivative is differentiated again.
    """
    x = Tensor(x)
    derivatives = [x * ad.tanh(x)]
    for _ in range(4):
        derivatives.append(grad(derivatives[-1], x, create_graph=True))
    return {f"order{n}": d.data for n, d in enumerate(derivatives)}


def unused(x, y):
    """Derivatives of the sum of x * x by x, by y, which it does not depend on,
    and of x * stop_gradient(x) by x.
    """
    x, y = Tensor(x), Tensor(y)
    by_x, by_y = grad(ad.sum(x * x), [x, y])
    return {
        "by_x": by_x.data,
        "by_y": by_y.data,
        "stopped": grad(ad.sum(x * ad.stop_gradient(x)), x).data,
    }


FUNCTIONS = {
    "operation": (operation, operation_by_differences),
    "network": (network, network_by_loops),
    "orders": (orders, orders_by_formula),
    "unused": (unused, unused_by_formula),
}
INTERMEDIATE = {"network": ("z", "h", "out", "adjoint_z", "adjoint_h", "adjoint_out")}


# --- The cases ---
def op(name, op, shapes, why, *, positive=(), faults=(), values=None, **options):
    """A case of an operation at random arguments of the given shapes;
    those numbered in `positive` above 0.
    """
    draw = noise(name)
    args = values or [draw.standard_normal(shape) for shape in shapes]
    args = [np.abs(a) + 0.2 if i in positive else a for i, a in enumerate(args)]
    out = call(op, args, options)
    inputs = {"op": op, "args": args, "options": options, "w": draw.standard_normal(np.shape(out))}
    inputs["v"] = [draw.standard_normal(np.shape(a)) for a in args]
    return Case(name, "operation", why, DIFFERENCES, inputs, faults=faults)


def zero_second(inputs):
    return {f"second{i}": np.zeros_like(a) for i, a in enumerate(inputs["args"])}


DETACHED = ("the value is a constant in the adjoint: the second derivative is missing", zero_second)


def elementwise():
    shapes = [(2, 3)]
    yield op("exp", "exp", shapes, "exp", faults=[DETACHED])
    yield op("log", "log", shapes, "natural logarithm", positive=[0])
    yield op("sqrt", "sqrt", shapes, "square root", positive=[0], faults=[DETACHED])
    yield op(
        "tanh", "tanh", shapes, "tanh: the adjoint is written with the value", faults=[DETACHED]
    )
    yield op("sigmoid", "sigmoid", shapes, "1 / (1 + exp(-x))")
    yield op("softplus", "softplus", shapes, "log(1 + exp x)")
    yield op("relu", "relu", shapes, "max(x, 0): its second derivative is 0")
    yield op("negative", "negative", shapes, "-x")
    yield op("clip", "clip", shapes, "limits on both sides, no adjoint beyond", low=-0.4, high=0.7)
    far = [np.array([-1e4, -40.0, 40.0, 1e4])]
    for name in ("softplus", "sigmoid", "tanh"):
        yield op(f"{name}-far", name, None, "no overflow and no NaN far from 0", values=far)
    below = [np.array([-40.0, -38.5, -45.0])]
    for name in ("softplus", "sigmoid"):
        yield op(f"{name}: small", name, None, "e^x, not 0, far below 0", values=below)


def binary():
    pairs = {
        "same shape": [(2, 3), (2, 3)],
        "row": [(2, 3), (3,)],
        "column and row": [(2, 1), (1, 3)],
        "scalar": [(), (2, 3)],
    }
    signs = {"subtract": "the second adjoint has a minus", "divide": "d(a/b)/db = -(a/b)/b"}
    for shape_name, shapes in pairs.items():
        why = (
            f"{shape_name}: the adjoint of what was repeated is summed"
            if shape_name != "same shape"
            else "no broadcasting"
        )
        for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
            positive = [1] if name == "divide" else []
            yield op(f"{name}: {shape_name}", name, shapes, signs.get(name, why), positive=positive)
    yield op("power", "power", [(2, 3), (2, 3)], "both arguments of x ** y vary", positive=[0])
    yield op(
        "power: number",
        "power",
        [(2, 3), ()],
        "one exponent for all; its adjoint is a sum",
        positive=[0],
    )
    yield op(
        "raised",
        "raised",
        [(2, 3)],
        "a constant exponent: no logarithm of x, which may be below 0",
        exponent=3,
    )
    yield op("raised: below 0", "raised", [(4,)], "x^-2", positive=[0], exponent=-2)
    yield op("raised: a root", "raised", [(4,)], "x^1.5", positive=[0], exponent=1.5)
    condition = np.array([[True, False, True], [False, False, True]])
    yield op("where", "where", [(2, 3), (3,)], "selection, with broadcasting", condition=condition)
    why = "the condition has the larger shape"
    yield op("where: condition", "where", [(3,), ()], why, condition=condition)
    yield op("add: nothing", "add", [(0,), (1,)], "an axis of length 1 is repeated 0 times")


def reductions():
    for name in ("sum", "mean", "max", "logsumexp"):
        yield op(f"{name}: all", name, [(2, 3)], f"{name} of all elements")
        yield op(f"{name}: axis", name, [(2, 3)], f"{name} along an axis", axis=1)
        yield op(f"{name}: first axis", name, [(2, 3)], f"{name} along the first", axis=0)
        why = "axes below 0 count from the end"
        yield op(f"{name}: axis -1", name, [(2, 3, 2)], why, axis=-1)
        yield op(f"{name}: axis -2", name, [(2, 3, 2)], why, axis=-2, keepdims=True)
        why = "two axes, kept with length 1"
        yield op(f"{name}: kept", name, [(2, 3, 2)], why, axis=(0, 2), keepdims=True)
        why = "all axes, kept with length 1"
        yield op(f"{name}: all kept", name, [(2, 3)], why, keepdims=True)
        why = "two axes, in whatever order"
        yield op(f"{name}: two axes", name, [(2, 3, 2)], why, axis=(-1, 1))
    yield op("sum: no axes", "sum", [(2, 3)], "an empty list of axes: x itself", axis=())
    why = "x - log sum exp x along the last axis"
    yield op("log_softmax", "log_softmax", [(2, 3)], why, faults=[DETACHED])
    yield op("log_softmax: more axes", "log_softmax", [(2, 3, 2)], why)
    far = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4 + 2, -1e4]])
    near = np.array([[800.0, 799.0, -800.0], [-800.0, -798.5, -801.0]])
    for name, values in (("far", far), ("800", near), ("-800", near[1:])):
        why = "the largest is subtracted first: no overflow, and no logarithm of 0"
        yield op(f"log_softmax: {name}", "log_softmax", None, why, values=[values])
        yield op(f"logsumexp: {name}", "logsumexp", None, why, values=[values], axis=1)


def products():
    why = "adjoints G B^T and A^T G"
    wrong = ("the adjoint of b is not that of a product: A is not transposed", untransposed)
    yield op("matmul", "matmul", [(3, 3), (3, 3)], why, faults=[wrong])
    yield op("matmul: oblong", "matmul", [(2, 3), (3, 4)], why)
    yield op(
        "matmul: batch",
        "matmul",
        [(2, 2, 3), (2, 3, 2)],
        "one product for each index of the first axis",
    )
    yield op(
        "matmul: shared",
        "matmul",
        [(2, 2, 3), (3, 2)],
        "the adjoint of the shared matrix sums over the batch",
    )
    yield op("matmul: vectors", "matmul", [(3,), (3,)], "two vectors: the scalar product")
    yield op("matmul: vector", "matmul", [(2, 3), (3,)], "matrix times vector")
    yield op("matmul: vector first", "matmul", [(3,), (3, 2)], "vector times matrix")
    yield op("matmul: batch and vector", "matmul", [(2, 4, 3), (3,)], "one vector for all")
    yield op("matmul: vector and batch", "matmul", [(3,), (2, 3, 4)], "one vector for all, first")
    why = "axes of length 1 are repeated in the batch as well"
    yield op("matmul: repeated", "matmul", [(2, 1, 2, 3), (4, 3, 2)], why)


def untransposed(inputs):
    a, _ = inputs["args"]
    return {"vjp1": a @ inputs["w"]}


def layout():
    yield op("reshape", "reshape", [(2, 3)], "row by row, the last index fastest", shape=(3, 2))
    why = "exchange of two axes, the third stays"
    for axes in ((0, 2), (0, 1), (1, 2), (-1, 0)):
        options = {"axis1": axes[0], "axis2": axes[1]}
        yield op(f"swapaxes: {axes[0]} and {axes[1]}", "swapaxes", [(2, 3, 4)], why, **options)
    why = "repetition: the adjoint is summed"
    for shape in ((3,), (2, 1), ()):
        words = "x".join(map(str, shape)) or "a number"
        yield op(f"broadcast_to: {words}", "broadcast_to", [shape], why, shape=(2, 3))
    why = "each gets its part of the adjoint"
    yield op("concatenate", "concatenate", [(2, 3), (1, 3)], why, axis=0)
    yield op("concatenate: three", "concatenate", [(2, 1), (2, 3), (2, 2)], why, axis=1)
    yield op("concatenate: axis -1", "concatenate", [(2, 2, 1), (2, 2, 3)], why, axis=-1)
    for axis in (0, 1, -1, -2):
        yield op(f"stack: {axis}", "stack", 2 * [(2, 3)], "along a new axis", axis=axis)
    taken = "take_along_axis"
    why = "the logit of the action taken"
    last, first = np.array([[0], [2]]), np.array([[1, 0, 1], [1, 1, 0]])
    yield op(taken, taken, [(2, 3)], why, indices=last, axis=1)
    yield op(f"{taken}: axis -1", taken, [(2, 3)], why, indices=last, axis=-1)
    why = "along the first axis; what is taken twice gets both adjoints"
    yield op(f"{taken}: axis 0", taken, [(2, 3)], why, indices=first, axis=0)
    why = "an index is held against the length of its axis"
    yield op(f"{taken}: long axis", taken, [(5, 2)], why, indices=np.array([[4, 3]]), axis=0)
    yield op(
        "getitem: slice",
        "getitem",
        [(2, 5)],
        "a slice of each row",
        index=[{"start": 0, "stop": 2}, {"start": 1, "stop": 4}],
    )
    yield op("getitem: number", "getitem", [(2, 3)], "an index drops its axis", index=[1])
    why, repeated = "an element taken twice gets both adjoints", np.array([0, 2, 2])
    wrong = (
        "of an element taken twice the last adjoint is kept",
        lambda i: overwritten(i, repeated),
    )
    yield op("getitem: repeated", "getitem", [(3, 2)], why, index=[repeated], faults=[wrong])
    pairs = [np.array([0, 1, 1]), np.array([2, 0, 0])]
    why = "two arrays of indices go side by side: the elements (0, 2), (1, 0), (1, 0)"
    yield op("getitem: pairs", "getitem", [(2, 3)], why, index=pairs)


def overwritten(inputs, indices):
    out = np.zeros_like(inputs["args"][0])
    out[indices] = inputs["w"]
    return {"vjp0": out}


# fmt: off
CONVENTIONS = (
    ("relu at 0", "relu", [[0.0, 1.0]], {},
     {"value": [0.0, 1.0], "vjp0": [0.0, 1.0]}, "slope 0 at 0"),
    ("clip at the bound", "clip", [[-1.0, 1.0, 1.5]], {"low": -1.0, "high": 1.0},
     {"value": [-1.0, 1.0, 1.0], "vjp0": [1.0, 1.0, 0.0]}, "slope 1 at the bounds"),
    ("tie of maximum", "maximum", [[1.0, 2.0], [1.0, 0.0]], {},
     {"value": [1.0, 2.0], "vjp0": [0.5, 1.0], "vjp1": [0.5, 0.0]},
     "equal arguments share the adjoint"),
    ("tie of minimum", "minimum", [[1.0, 2.0], [1.0, 0.0]], {},
     {"value": [1.0, 0.0], "vjp0": [0.5, 0.0], "vjp1": [0.5, 1.0]},
     "equal arguments share the adjoint"),
    ("tie of max", "max", [[[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]]], {"axis": 1},
     {"value": [3.0, 2.0], "vjp0": [[0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]]},
     "all that are largest share the adjoint"),
    ("where without NaN", "where", [[1.0, np.nan], [np.inf, 2.0]],
     {"condition": np.array([True, False])},
     {"value": [1.0, 2.0], "vjp0": [1.0, 0.0], "vjp1": [0.0, 1.0]},
     "selected, not multiplied: what was not taken gets an exact 0"),
    ("constant exponent 1 at 0", "raised", [[0.0, 2.0]], {"exponent": 1},
     {"value": [0.0, 2.0], "vjp0": [1.0, 1.0]}, "a second derivative of 0, and not 0 / 0"),
    ("constant exponent 0 at 0", "raised", [[0.0, 2.0]], {"exponent": 0},
     {"value": [1.0, 1.0], "vjp0": [0.0, 0.0]}, "x^0 is 1, with derivative 0 also at 0"),
)
# fmt: on


def infinite_adjoint():
    a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    options = {"condition": np.array([True, False])}
    w = np.array([np.inf, -2.0])
    inputs = {"op": "where", "args": [a, b], "options": options, "w": w}
    inputs["v"] = [np.ones(2), np.ones(2)]
    expected = {"value": np.array([1.0, 4.0])}
    expected |= {"vjp0": np.array([np.inf, 0.0]), "vjp1": np.array([0.0, -2.0])}
    expected |= {"second0": np.zeros(2), "second1": np.zeros(2)}
    why = "the adjoint is selected, not multiplied by the condition: 0 times inf is NaN"
    name = "where: infinite adjoint"
    return Case(name, "operation", why, HAND, inputs, expected=expected)


def conventions():
    """Where there is no derivative: all that is expected is written out, the adjoints of the
    arguments for an adjoint of ones, here with others.
    """
    yield infinite_adjoint()
    for name, op_name, args, options, expected, why in CONVENTIONS:
        args = [np.array(a) for a in args]
        inputs = {"op": op_name, "args": args, "options": options}
        inputs["v"] = [np.ones(a.shape) for a in args]
        w = np.array([1.5, -0.75, 2.25])[: np.size(expected["value"])]
        inputs["w"] = w
        expected = {f: np.array(value) for f, value in expected.items()}
        expected |= {f: (g.T * w).T for f, g in expected.items() if f != "value"}
        expected |= {f"second{i}": np.zeros(a.shape) for i, a in enumerate(args)}
        yield Case(name, "operation", why, HAND, inputs, expected=expected)


# Operation, shapes of the arguments, options, and a shape of w that a careless port may take.
WRONG = {
    "add: 3 and 2 columns": ("add", [(2, 3), (2,)], {}, (2, 3)),
    "multiply: 3 and 2 elements": (
        "multiply",
        [(3,), (2,)],
        {},
        (3,),
    ),
    "subtract: 2 and 4 rows": (
        "subtract",
        [(2, 3), (4, 3)],
        {},
        (2, 3),
    ),
    "broadcast_to without the axis": ("broadcast_to", [(1, 3)], {"shape": (3,)}, (3,)),
    "matmul: 3 columns, 1 row": ("matmul", [(2, 3), (1, 2)], {}, (2, 2)),
    "broadcast_to fewer axes": (
        "broadcast_to",
        [(2, 3)],
        {"shape": (3,)},
        (3,),
    ),
    "broadcast_to a shorter axis": (
        "broadcast_to",
        [(4,)],
        {"shape": (3,)},
        (3,),
    ),
    "broadcast_to one of three": ("broadcast_to", [(3,)], {"shape": (1,)}, (1,)),
    "broadcast_to one column": ("broadcast_to", [(2, 3)], {"shape": (2, 1)}, (2, 1)),
    "matmul: 1 column, 4 rows": ("matmul", [(3, 1), (4, 2)], {}, (3, 2)),
    "matmul: a vector and 1 row": ("matmul", [(3,), (1, 2)], {}, (2,)),
    "sum along no axis before, any": ("sum", [(2, 3)], {"axis": -3}, (2, 3)),
    "concatenate: other middles": ("concatenate", [(1, 2, 3), (1, 3, 2)], {"axis": 0}, (2, 2, 3)),
    "concatenate: other axes": ("concatenate", [(2,), (2, 1)], {"axis": 0}, (4,)),
    "take_along_axis beyond the first": (
        "take_along_axis",
        [(2, 5)],
        {"indices": np.array([[0, 1, 3, 0, 1]]), "axis": 0},
        (1, 5),
    ),
    "matmul: 3 columns, 2 rows": (
        "matmul",
        [(2, 3), (2, 3)],
        {},
        (2, 3),
    ),
    "matmul: 3 columns, 4 rows": (
        "matmul",
        [(2, 3), (4, 2)],
        {},
        (2, 2),
    ),
    "matmul: 1 column, 3 rows": ("matmul", [(2, 1), (3, 2)], {}, (2, 2)),
    "matmul: vectors of two lengths": (
        "matmul",
        [(3,), (2,)],
        {},
        (),
    ),
    "reshape to fewer": (
        "reshape",
        [(2, 3)],
        {"shape": (4,)},
        (4,),
    ),
    "reshape to more": (
        "reshape",
        [(2, 3)],
        {"shape": (4, 2)},
        (4, 2),
    ),
    "sum along no axis": ("sum", [(2, 3)], {"axis": 2}, (2, 3)),
    "sum along no axis before": (
        "sum",
        [(2, 3)],
        {"axis": -3},
        (2,),
    ),
    "max along no axis": ("max", [(2, 3)], {"axis": 2}, (2, 3)),
    "logsumexp along no axis": (
        "logsumexp",
        [(2, 3)],
        {"axis": 2},
        (2, 3),
    ),
    "swapaxes: no axis": (
        "swapaxes",
        [(2, 3)],
        {"axis1": 0, "axis2": 2},
        (2, 3),
    ),
    "concatenate: 3 and 4 columns": (
        "concatenate",
        [(2, 3), (2, 4)],
        {"axis": 0},
        (4, 3),
    ),
    "stack: 3 and 4 columns": (
        "stack",
        [(2, 3), (2, 4)],
        {"axis": 0},
        (2, 2, 3),
    ),
    "take_along_axis beyond": (
        "take_along_axis",
        [(2, 3)],
        {"indices": np.array([[0], [3]]), "axis": 1},
        (2, 1),
    ),
    "getitem: one beyond": ("getitem", [(2, 3)], {"index": [np.array([0, 2])]}, (2, 3)),
    "getitem: a column beyond": (
        "getitem",
        [(2, 3)],
        {"index": [{"start": 0, "stop": 2}, np.array([0, 3])]},
        (2, 2),
    ),
    "getitem: three of two axes": ("getitem", [(2, 3)], {"index": [1, 0, 0]}, ()),
    "getitem beyond": ("getitem", [(2, 3)], {"index": [2]}, (3,)),
    "an adjoint turned": ("exp", [(2, 3)], {}, (3, 2)),
    "an adjoint of one row": ("exp", [(2, 3)], {}, (3,)),
    "an adjoint of one number": ("exp", [(2, 3)], {}, ()),
    "an adjoint of a row too many": (
        "sum",
        [(2, 3)],
        {"axis": 0},
        (1, 3),
    ),
}


def rejected():
    why = "shapes or indices do not fit, whatever w is"
    for name, (op_name, shapes, options, of_w) in WRONG.items():
        if name.startswith("an adjoint"):
            why = "the adjoint has not the shape of the value"
        args = [np.full(shape, 0.5) for shape in shapes]
        inputs = {"op": op_name, "args": args, "options": options, "w": np.ones(of_w), "v": args}
        yield Case(name, "operation", why, "by the shapes themselves", inputs, rejects=True)
    why = "the gradient of a vector needs an adjoint to start from"
    inputs = {"op": "exp", "args": [np.ones(2)], "options": {}, "w": None, "v": [np.ones(2)]}
    yield Case("no adjoint", "operation", why, "by the shapes themselves", inputs, rejects=True)
    why = "nor is a matrix of one element a single number"
    kept = {"op": "sum", "options": {"keepdims": True}}
    inputs = {**kept, "args": [np.ones((2, 2))], "w": None, "v": [np.ones((2, 2))]}
    yield Case("no adjoint of 1 x 1", "operation", why, "by the shapes", inputs, rejects=True)


def graphs():
    draw = noise("network")
    shapes = {"W1": (2, 3), "b1": (3,), "W2": (3, 4), "b2": (4,)}
    inputs = {"x": draw.standard_normal((5, 2)), "y": draw.standard_normal((5, 4))}
    inputs |= {name: draw.standard_normal(shape) for name, shape in shapes.items()}
    inputs["v"] = {name: draw.standard_normal(shape) for name, shape in shapes.items()}
    yield Case(
        "network",
        "network",
        "every value and adjoint of a network",
        "loop form, " + DIFFERENCES,
        inputs,
    )

    why = "adjoints of a value used twice add up; derivatives to fourth order"
    wrong = (
        "the adjoint of a value used twice is overwritten, not added",
        lambda i: {"order1": np.tanh(i["x"])},
    )
    yield Case("orders", "orders", why, "formula", {"x": 0.7}, faults=[wrong])

    why = "zeros for what does not matter; stop_gradient gives a constant"
    wrong = ("stop_gradient is the identity", lambda i: {"stopped": 2 * i["x"]})
    inputs = {"x": draw.standard_normal(3), "y": draw.standard_normal(2)}
    yield Case("unused", "unused", why, "formula", inputs, faults=[wrong])


def cases():
    for group in (elementwise, binary, reductions, products, layout, conventions, graphs, rejected):
        yield from group()
