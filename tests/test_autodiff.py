"""Tests of autodiff.py, and of arrays.py through it.

How to read it: `CASES` lists every operation with arguments it is differentiable at, and most of
the work is done by the few tests that run over that list. What one list cannot say follows, by
theme: values, edges and ties, what is not finite, `grad` itself, memory, threads, errors, what is
refused, what changes after it was recorded, and `check_grads` on derivatives that are wrong.
"""

import gc
import itertools
import math
import operator
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import arrays
import autodiff as ad
from autodiff import Tensor, check_grads, grad, hvp

DTYPES = [np.float32, np.float64]
ROOT = Path(__file__).parents[1]


def graph(*outputs):
    """Every Tensor that `outputs` were made from, themselves included."""
    found, stack = {}, list(outputs)
    while stack:
        node = stack.pop()
        if id(node) not in found:
            found[id(node)] = node
            stack.extend(x for x in node.inputs if isinstance(x, Tensor))
    return list(found.values())


def has_history(x):
    return x.function is not None or x.inputs != ()


@pytest.fixture
def made(monkeypatch):
    """The list of all Tensors made since the test began."""
    made, init = [], Tensor.__init__

    def record(self, *args, **kwargs):
        init(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Tensor, "__init__", record)
    return made


# --- The cases: name -> (function, where its arguments lie, their shapes) ---


def normal(rng, shape):
    return rng.standard_normal(shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


def apart(rng, shape):
    """Numbers of both signs, apart from each other and from 0 and +-0.5,
    where some functions have kinks.
    """
    n = math.prod(shape)
    return ((rng.permutation(n) - n // 2) * 0.25 + rng.choice([0.03, 0.05, 0.07])).reshape(shape)


def like(x, *numbers):
    """Constants of x's dtype (binary fractions: the same in every dtype)."""
    return np.array(numbers, x.dtype)


BINARY = {
    "add": (operator.add, normal),
    "subtract": (operator.sub, normal),
    "multiply": (operator.mul, normal),
    "divide": (operator.truediv, positive),
    "power": (operator.pow, positive),
    "maximum": (lambda a, b: ad.maximum(a, b + 0.01), apart),
    "minimum": (lambda a, b: ad.minimum(a, b + 0.01), apart),
    "where": (lambda a, b: ad.where(np.array([True, False, True]), a, b), normal),
}
BROADCASTS = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 1)),
    ((), (2, 3)),
    ((1, 3), (4, 1, 1)),
    ((1,), (3,)),
]

UNARY = {
    "negative": (operator.neg, normal),
    "exp": (ad.exp, normal),
    "log": (ad.log, positive),
    "tanh": (ad.tanh, normal),
    "sqrt": (ad.sqrt, positive),
    "relu": (ad.relu, apart),
    "sigmoid": (ad.sigmoid, normal),
    "softplus": (ad.softplus, normal),
    "clip": (lambda x: ad.clip(x, -0.5, 0.5), apart),
    "clip below": (lambda x: ad.clip(x, low=like(x, -0.5, 0.5, 0)), apart),
    "clip above": (lambda x: ad.clip(x, None, 0.5), apart),
    "maximum with a number": (lambda x: ad.maximum(x, 0.25), apart),
    "minimum with a number": (lambda x: ad.minimum(0.25, x), apart),
    "where with numbers": (lambda x: ad.where(np.array([True, False, True]), x, 2.0), normal),
    "x + number": (lambda x: x + 2, normal),
    "number + x": (lambda x: 2 + x, normal),
    "x + array": (lambda x: x + like(x, 2, 3, 4), normal),
    "array + x": (lambda x: like(x, 2, 3, 4) + x, normal),
    "x - number": (lambda x: x - 2, normal),
    "number - x": (lambda x: 2 - x, normal),
    "x - array": (lambda x: x - like(x, 2, 3, 4), normal),
    "array - x": (lambda x: like(x, 2, 3, 4) - x, normal),
    "x * number": (lambda x: x * -2, normal),
    "number * x": (lambda x: -2 * x, normal),
    "x * array": (lambda x: x * like(x, 2, 3, 4), normal),
    "array * x": (lambda x: like(x, 2, 3, 4) * x, normal),
    "x / number": (lambda x: x / 4, normal),
    "number / x": (lambda x: 4 / x, positive),
    "x / array": (lambda x: x / like(x, 2, 4, 8), normal),
    "array / x": (lambda x: like(x, 2, 4, 8) / x, positive),
    "x ** number": (lambda x: x**3, normal),
    "x ** negative": (lambda x: x**-1.5, positive),
    "x ** array": (lambda x: x ** like(x, 0, 2, -1), positive),
    "number ** x": (lambda x: 2**x, normal),
    "array ** x": (lambda x: like(x, 2, 3, 0.5) ** x, normal),
}

REDUCTIONS = {
    "sum": (ad.sum, normal),
    "mean": (ad.mean, normal),
    "max": (ad.max, apart),
    "logsumexp": (ad.logsumexp, normal),
}
AXES = [
    None,
    0,
    -1,
    1,
    (0, 2),
    (-1, 0),
    (0, 1, 2),
    (0,),
    (1,),
    (0, 1),
    (1, 0),
    (-2,),
    (),
    (-1, 0, 1),
]

SHAPED = {
    "log_softmax of a number": (ad.log_softmax, normal, ()),
    "log_softmax last": (ad.log_softmax, normal, (2, 3)),
    "log_softmax first": (lambda x: ad.log_softmax(x, 0), normal, (2, 3)),
    "log_softmax of all": (lambda x: ad.log_softmax(x, None), normal, (2, 3)),
    "log_softmax of two axes": (lambda x: ad.log_softmax(x, (-1, 0)), normal, (2, 3, 2)),
    "reshape": (lambda x: ad.reshape(x, (3, -1)), normal, (2, 3)),
    "reshape to a number": (lambda x: ad.reshape(x, ()), normal, (1, 1)),
    "swapaxes": (lambda x: ad.swapaxes(x, 0, -1), normal, (2, 3, 4)),
    "broadcast_to": (lambda x: ad.broadcast_to(x, (2, 4, 3)), normal, (4, 1)),
    "concatenate": (lambda *xs: ad.concatenate(xs), normal, (2, 3), (1, 3), (3, 3)),
    "concatenate last": (lambda *xs: ad.concatenate(xs, -1), normal, (2, 3), (2, 1), (2, 2)),
    "concatenate all elements": (lambda *xs: ad.concatenate(xs, None), normal, (2, 3), (2,), ()),
    "concatenate constants": (lambda x: ad.concatenate([like(x, 1, 2), x, x]), normal, (3,)),
    "stack": (lambda *xs: ad.stack(xs), normal, (2, 3), (2, 3)),
    "stack middle": (lambda *xs: ad.stack(xs, 1), normal, (2, 3), (2, 3)),
    "stack last": (lambda *xs: ad.stack(xs, -1), normal, (2, 3), (2, 3), (2, 3)),
    "stack numbers": (lambda *xs: ad.stack(xs), normal, (), ()),
    "take_along_axis": (
        lambda x: ad.take_along_axis(x, np.array([[0, 2, 2], [1, 1, -1]]), 1),
        normal,
        (2, 3),
    ),
    "take_along_axis first": (
        lambda x: ad.take_along_axis(x, np.array([[1, 1, 0]]), 0),
        normal,
        (2, 3),
    ),
    "take_along_axis of all elements": (
        lambda x: ad.take_along_axis(x, np.array([5, 0, 5, -2]), None),
        normal,
        (2, 3),
    ),
    "take_along_axis batch": (
        lambda x: ad.take_along_axis(x, np.array([[[1]]]), -2),
        normal,
        (2, 3, 2),
    ),
}

INDICES = {
    "integer": 1,
    "negative integer": -1,
    "numpy integer": np.int64(1),
    "integers": (-1, 2),
    "slice": slice(1, None),
    "empty slice": slice(1, 1),
    "strides": (slice(None), slice(None, None, 2)),
    "backwards": (slice(None, None, -1), slice(-1, 0, -1)),
    "None": (None, slice(None), None),
    "Ellipsis": (Ellipsis, 1),
    "nothing": (),
    "True": True,
    "repeated list": [0, 0, 1],
    "repeated array": np.array([[0, -1], [1, 1]]),
    "repeated column": (slice(None), [0, 2, 2]),
    "repeated pair": ([0, 1, 1], [2, 0, -3]),
    "pair around a slice": (np.array([0, 0]), None, [1, 1]),
    "mask of rows": np.array([False, True]),
    "mask": np.array([[True, False, True], [False, False, True]]),
}

MATMULS = [
    (3,),
    (2, 3),
    (3, 3),
    (1, 3, 3),
    (4, 2, 3),
    (4, 3, 3),
    (5, 1, 2, 3),
    (1, 4, 3, 3),
    (3, 4, 2),
    (3, 0),
    (2, 3, 0),
    (0, 2),
]


def multiplies(a, b):
    try:
        np.matmul(np.ones(a), np.ones(b))
    except ValueError:
        return False
    return True


PRODUCTS = [(a, b) for a, b in itertools.product(MATMULS, MATMULS) if multiplies(a, b)]

AFFINE = [
    ((2, 3), (3, 4), (1, 4)),
    ((2, 3, 2), (2, 2, 4), (2, 1, 4)),
    ((2, 3, 2), (2, 4), (4,)),
    ((3, 2), (2, 2, 4), ()),
]

CASES = {
    **{f"{name} {s}": (f, domain, *s) for name, (f, domain) in BINARY.items() for s in BROADCASTS},
    **{name: (f, domain, (2, 3)) for name, (f, domain) in UNARY.items()},
    **{
        f"{name} of a number": (*UNARY[name], ())
        for name in ("exp", "relu", "softplus", "x ** number", "number ** x")
    },
    **{
        f"{name} {axis}{' keepdims' * keepdims}": (
            lambda x, f=f, a=axis, k=keepdims: f(x, a, k),
            domain,
            (2, 3, 4),
        )
        for name, (f, domain) in REDUCTIONS.items()
        for axis in AXES
        for keepdims in (True, False)
    },
    **{
        f"{name} of a number, axis -1": (lambda x, f=f: f(x, -1), domain, ())
        for name, (f, domain) in REDUCTIONS.items()
    },
    **SHAPED,
    **{f"getitem {name}": (lambda x, i=i: x[i], normal, (2, 3)) for name, i in INDICES.items()},
    "getitem of a square": (lambda x: (x * x)[[0, 0, 1]], normal, (2, 3)),
    **{f"matmul {a} {b}": (ad.matmul, normal, a, b) for a, b in PRODUCTS},
    **{f"affine {s}": (ad.affine, normal, *s) for s in AFFINE},
    "tanh of a number": (ad.tanh, normal, ()),
    "tanh in place": (lambda x, w, b: ad.tanh_(ad.affine(x, w, b)), normal, (2, 3), (3, 4), (1, 4)),
    "relu in place": (lambda x, w, b: ad.relu_(ad.affine(x, w, b)), apart, (2, 3), (3, 4), (1, 4)),
    "slope of tanh": (lambda g, y: ad.apply(arrays.tanh_slope, g, y), normal, (2, 3), (2, 3)),
    "reshape, as a method": (lambda x: x.reshape(3, -1), normal, (2, 3)),
    "reshape, as a method, to a tuple": (lambda x: x.reshape((3, 2)), normal, (2, 3)),
    "rows": (lambda x: ad.stack([row * row for row in x]), normal, (2, 3)),
}


def arguments(case, dtype):
    """The function of a case, cubed, lest its higher derivatives be zero;
    and a tuple of arrays for it.
    """
    f, domain, *shapes = CASES[case]
    rng = np.random.default_rng(1)
    return lambda *xs: f(*xs) ** 3, tuple(np.asarray(domain(rng, shape), dtype) for shape in shapes)


def second_order(f, xs, create_graph=False):
    """The gradients of a sum of squared gradients of f, as Tensors."""
    leaves = [Tensor(x) for x in xs]
    out = f(*leaves)
    slopes = grad(out, leaves, np.ones(out.shape, out.dtype), create_graph=True)
    return grad(
        ad.sum(ad.stack([ad.sum(g * g) for g in slopes])), leaves, create_graph=create_graph
    )


# --- Every case ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_derivatives_of_every_operation(case, dtype):
    f, xs = arguments(case, dtype)
    check_grads(f, xs, order=3 if dtype == np.float64 else 2)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "?"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums_are_those_of_numpy_over_any_axes(dtype, keepdims):
    """Values, shapes and dtypes; also of an array that is not contiguous,
    and where nothing is left to sum.
    """
    noise = np.random.default_rng(0)
    for x in (
        noise.integers(3, size=(2, 3, 4, 5)),
        noise.integers(3, size=(5, 4, 3, 2)).T,
        np.ones((2, 3, 0, 5)),
    ):
        x = x.astype(dtype)
        for n in range(x.ndim + 1):
            for axes in itertools.permutations(range(x.ndim), n):
                expected = np.sum(x, axes, keepdims=keepdims)
                found = ad.sum(x, axes, keepdims)
                assert (found.dtype, found.shape) == (expected.dtype, expected.shape), axes
                assert_array_equal(found, expected)  # of small whole numbers: exact in any order


def test_the_cases_cover_every_line_of_the_table():
    used = set()
    for f, xs in [CONVERSION, *(arguments(case, np.float64) for case in CASES)]:
        leaves = [Tensor(x) for x in xs]
        out = f(*leaves)
        gradients = grad(out, leaves, np.ones(out.shape), create_graph=True)
        for node in graph(out, *gradients):
            used |= {(node.function, i) for i, x in enumerate(node.inputs) if isinstance(x, Tensor)}
    arity = {f: len(vjps) if isinstance(vjps, tuple) else 2 for f, vjps in ad.VJPS.items()}
    assert {(f, i) for f, n in arity.items() for i in range(n)} - used == set()


# Its backward pass goes from float64 to float32
CONVERSION = (operator.mul, (np.ones(2, np.float32), np.ones(2)))


@pytest.mark.parametrize("case", CASES)
def test_float32_stays_float32(case, made, monkeypatch):
    """In every Tensor of a second-order gradient,
    and in every adjoint before it is made to conform.
    """
    conform, adjoints = ad._unbroadcast, []
    monkeypatch.setattr(ad, "_unbroadcast", lambda g, x: (adjoints.append(g), conform(g, x))[1])
    gradients = second_order(*arguments(case, np.float32))
    assert {x.dtype for x in made + adjoints + gradients} == {np.dtype(np.float32)}


@pytest.mark.parametrize("case", CASES)
def test_arrays_in_array_out_and_the_same_value_as_with_tensors(case, made):
    f, xs = arguments(case, np.float64)
    out = f(*xs)
    assert isinstance(out, (np.ndarray, np.floating)) and made == []
    assert_allclose(f(*map(Tensor, xs)).data, out, rtol=1e-15)


# --- Values ---

X = np.random.default_rng(2).standard_normal((2, 3, 4))
X[0, 0, :2] = X[1, 2, 3]  # ties
Y = np.random.default_rng(3).standard_normal((3, 1))
INDEX = np.array([[[1, -1, 0, 0]]])
VALUES = {
    "exp": lambda: (ad.exp(X), np.exp(X)),
    "log": lambda: (ad.log(X * X), np.log(X * X)),
    "tanh": lambda: (ad.tanh(X), np.tanh(X)),
    "sqrt": lambda: (ad.sqrt(X * X), np.abs(X)),
    "relu": lambda: (ad.relu(X), np.where(X > 0, X, 0)),
    "sigmoid": lambda: (ad.sigmoid(30 * X), scipy.special.expit(30 * X)),
    "sigmoid of bytes": lambda: (
        ad.sigmoid(np.arange(3, dtype=np.uint8)),
        scipy.special.expit([0.0, 1, 2]),
    ),
    "softplus": lambda: (ad.softplus(X), np.log1p(np.exp(X))),
    "logsumexp": lambda: (ad.logsumexp(X), scipy.special.logsumexp(X)),
    "logsumexp axes": lambda: (ad.logsumexp(X, (0, -1)), scipy.special.logsumexp(X, (0, -1))),
    "logsumexp keepdims": lambda: (
        ad.logsumexp(X, 1, True),
        scipy.special.logsumexp(X, 1, keepdims=True),
    ),
    "logsumexp of a length 1": lambda: (
        ad.logsumexp(X[:, :1], -1),
        scipy.special.logsumexp(X[:, :1], -1),
    ),
    "logsumexp with -inf": lambda: (ad.logsumexp(np.array([-np.inf, 0, 0])), np.log(2)),
    "log_softmax": lambda: (ad.log_softmax(X), scipy.special.log_softmax(X, -1)),
    "log_softmax first": lambda: (ad.log_softmax(X, 0), scipy.special.log_softmax(X, 0)),
    "sum": lambda: (ad.sum(X, (0, 2)), X.sum((0, 2))),
    "mean": lambda: (ad.mean(X), X.mean()),
    "mean keepdims": lambda: (ad.mean(X, (0, 2), keepdims=True), X.mean((0, 2), keepdims=True)),
    "mean of integers": lambda: (ad.mean(np.array([[1, 2], [3, 5]]), 0), [2, 3.5]),
    "mean of nothing": lambda: (ad.mean(np.zeros((0, 3)), 1), np.zeros(0)),
    "max": lambda: (ad.max(X, 1), X.max(1)),
    "maximum": lambda: (ad.maximum(X, Y), np.maximum(X, Y)),
    "minimum": lambda: (ad.minimum(X, Y), np.minimum(X, Y)),
    "minimum of bytes": lambda: (
        ad.minimum(np.array([0, 3], np.uint8), np.array([1, 2], np.uint8)),
        [0, 2],
    ),
    "where": lambda: (ad.where(X > 0, X, Y), np.where(X > 0, X, Y)),
    "where of a Tensor": lambda: (ad.where(Tensor(X), X, Y), X),
    "clip": lambda: (ad.clip(X, -0.5, Y * Y), np.clip(X, -0.5, Y * Y)),
    "reshape": lambda: (ad.reshape(X, (4, -1)), X.reshape(4, -1)),
    "swapaxes": lambda: (ad.swapaxes(X, 0, -1), X.swapaxes(0, -1)),
    "broadcast_to": lambda: (ad.broadcast_to(Y, (2, 3, 4)), np.broadcast_to(Y, (2, 3, 4))),
    "concatenate": lambda: (ad.concatenate([X, X[:, :1]], -2), np.concatenate([X, X[:, :1]], -2)),
    "stack": lambda: (ad.stack([X, -X], -1), np.stack([X, -X], -1)),
    "stack of numbers": lambda: (ad.stack([1.0, 2.0]), [1, 2]),
    "take_along_axis": lambda: (ad.take_along_axis(X, INDEX, 1), np.take_along_axis(X, INDEX, 1)),
    "matmul": lambda: (ad.matmul([1.0, 2.0], [3.0, 4.0]), 11),
    "affine": lambda: (ad.affine(X, X.swapaxes(1, 2), Y[0, 0]), X @ X.swapaxes(1, 2) + Y[0, 0]),
    "stop_gradient": lambda: (ad.stop_gradient(X), X),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_those_of_numpy_and_scipy(name):
    value, expected = VALUES[name]()
    assert isinstance(value, (np.ndarray, np.generic))
    assert_allclose(value, expected, rtol=1e-13, atol=0)
    assert np.shape(value) == np.shape(expected)


OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symbol", OPERATORS)
def test_operators_on_either_side_of_arrays_and_numbers(symbol, dtype):
    f, x = OPERATORS[symbol], np.array([[1, 2, 4], [3, 5, 7]], dtype)
    numbers = [2, 0.5, np.float64(3), np.int64(3)]
    arrays = [np.array([1, 2, 3]), np.ones((2, 1), np.float32)]
    for other in [x, *numbers, *arrays]:
        t = Tensor(x)
        for result, expected in [
            (f(t, other), f(x, other)),
            (f(other, t), f(other, x)),
            (f(t, t), f(x, x)),
        ]:
            assert isinstance(result, Tensor) and result.dtype == expected.dtype
            assert_allclose(result.data, expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("b", MATMULS, ids=str)
@pytest.mark.parametrize("a", MATMULS, ids=str)
def test_matmul_takes_the_shapes_that_numpy_takes(a, b):
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal(a), rng.standard_normal(b)
    for left, right in [(Tensor(x), Tensor(y)), (Tensor(x), y), (x, Tensor(y))]:
        if multiplies(a, b):
            product = left @ right
            assert product.shape == np.matmul(x, y).shape
            assert_allclose(product.data, np.matmul(x, y), rtol=1e-12, atol=1e-14)
        else:
            with pytest.raises(ValueError) as error:
                left @ right
            assert f"matmul of {a} and {b}" in str(error.value)


def test_tensor_holds_floating_point_arrays():
    x = np.ones(3, np.float32)
    assert Tensor(x).data is x
    for data in (2, True, [1, 2], np.arange(3), np.array([True]), np.uint8(1), [[0.5]]):
        t = Tensor(data)
        assert (t.dtype, t.shape, t.ndim) == (np.float64, np.shape(data), np.ndim(data))
        assert_array_equal(t.data, data)
    assert repr(Tensor([1.5])) == "Tensor(array([1.5]))"


@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 2), (1, 1)])
def test_length_and_rows_are_those_of_numpy(shape):
    x = np.arange(math.prod(shape), dtype=float).reshape(shape)
    assert len(Tensor(x)) == len(x)
    for found, row in zip(Tensor(x), x, strict=True):
        assert isinstance(found, Tensor)
        assert_array_equal(found.data, row)


def test_a_number_has_no_length_and_no_rows():
    for ask in (len, list, iter, lambda x: [*x]):
        with pytest.raises(TypeError):
            ask(Tensor(3.0))


RESHAPED = {
    "numbers": lambda x: x.reshape(3, 2),
    "a tuple": lambda x: x.reshape((3, 2)),
    "a list": lambda x: x.reshape([3, 2]),
    "one number": lambda x: x.reshape(-1),
    "a tuple of one": lambda x: x.reshape((-1,)),
    "an open length": lambda x: x.reshape((2, -1)),
    "no axes": lambda x: x[:1, :1].reshape(()),
}


@pytest.mark.parametrize("name", RESHAPED)
def test_the_method_reshape_takes_what_numpy_s_takes(name):
    x = np.arange(6.0).reshape(2, 3)
    assert_array_equal(RESHAPED[name](Tensor(x)).data, RESHAPED[name](x))


def test_what_is_added_in_place_to_an_array_is_recorded():
    x = Tensor(np.ones(3))
    total = before = np.zeros(3)
    total += x * 2
    assert isinstance(total, Tensor)
    assert_array_equal(grad(ad.sum(total), x).data, [2, 2, 2])
    assert_array_equal(before, np.zeros(3))


LISTS = {
    "exp": lambda x: ad.exp(x),
    "relu": lambda x: ad.relu(x),
    "sigmoid": lambda x: ad.sigmoid(x),
    "softplus": lambda x: ad.softplus(x),
    "maximum": lambda x: ad.maximum(x, [2, 1]),
    "clip": lambda x: ad.clip(x, 2, [3, 4]),
    "sum of neighbouring axes": lambda x: ad.sum(x, (0,)),
    "sum": lambda x: ad.sum(x, 1),
    "mean of neighbouring axes": lambda x: ad.mean(x, (0,)),
    "mean": lambda x: ad.mean(x),
    "max": lambda x: ad.max(x, (0, 1)),
    "logsumexp": lambda x: ad.logsumexp(x, 1),
    "log_softmax": lambda x: ad.log_softmax(x),
    "reshape": lambda x: ad.reshape(x, [4]),
    "swapaxes": lambda x: ad.swapaxes(x, 0, 1),
    "concatenate": lambda x: ad.concatenate(x),
    "concatenate all": lambda x: ad.concatenate([x, x], None),
    "stack": lambda x: ad.stack(x, 1),
    "where": lambda x: ad.where([True, False], x, 0),
    "matmul": lambda x: ad.matmul(x, x),
    "affine": lambda x: ad.affine(x, x, x),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_counts_as_an_array(name):
    rows = [[1, 2], [4, 3]]
    found, expected = LISTS[name](rows), LISTS[name](np.array(rows))
    assert found.dtype == expected.dtype
    assert_array_equal(found, expected)


OPERANDS = {
    **OPERATORS,
    "maximum": ad.maximum,
    "minimum": ad.minimum,
    "where": lambda a, b: ad.where([True, False, True], a, b),
    "matmul": ad.matmul,
    "concatenate": lambda a, b: ad.concatenate([a, b]),
    "stack": lambda a, b: ad.stack([a, b]),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", OPERANDS)
def test_a_list_beside_a_tensor_counts_as_an_array(name, create_graph):
    f = OPERANDS[name]
    numbers = [1, 0, 3]
    for ask in (lambda x, other: f(x, other), lambda x, other: f(other, x)):
        results = []
        for other in (numbers, tuple(numbers), np.array(numbers)):
            x = Tensor(np.array([0.5, 1, 2]))
            with np.errstate(divide="ignore"):
                slope = grad(ad.sum(ask(x, other)), x, create_graph=create_graph)
            results.append(slope.data)
        assert_array_equal(results[0], results[2])
        assert_array_equal(results[1], results[2])


# --- Edges: large arguments, ties, kinks, values that are not finite ---


def first_and_second(f, x):
    """The gradient of sum(f(x)), and the Hessian, row by row."""
    x = Tensor(x)
    slope = grad(ad.sum(f(x)), x, create_graph=True)
    return slope.data, np.array(
        [grad(slope, x, grad_output=row).data for row in np.eye(x.data.size)]
    )


LARGE = {"softplus": (ad.softplus, [0, 1e4], [0, 1]), "sigmoid": (ad.sigmoid, [0, 1], [0, 0])}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LARGE)
def test_large_arguments(name, dtype):
    f, value, slope = LARGE[name]
    x = np.array([-1e4, 1e4], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert_array_equal(f(x), np.array(value, dtype))
        first, second = first_and_second(f, x)
    assert_array_equal(first, slope)
    assert_array_equal(second, np.zeros((2, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_arguments_of_logsumexp_and_log_softmax(dtype):
    x, p = np.array([1e4, -1e4, 0, 1e4], dtype), np.array([0.5, 0, 0, 0.5])
    covariance = np.diag(p) - np.outer(p, p)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert_allclose(ad.logsumexp(x), 1e4 + math.log(2), rtol=1e-7)
        assert_allclose(ad.logsumexp(-x, keepdims=True), [1e4], rtol=1e-7)
        assert_allclose(ad.log_softmax(x), x - 1e4 - math.log(2), rtol=1e-7)
        results = *first_and_second(ad.logsumexp, x), *first_and_second(ad.log_softmax, x)
    for result, expected in zip(results, (p, covariance, 1 - 4 * p, -4 * covariance), strict=True):
        assert_allclose(result, expected, atol=1e-7)


EMPTY = [((0,), None), ((0,), -1), ((2, 0), 1), ((2, 0), 0), ((0, 3), (0,)), ((2, 0, 3), (0, 1))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize(("shape", "axis"), EMPTY)
def test_logsumexp_and_log_softmax_of_nothing(shape, axis, keepdims, dtype):
    """log 0 = -inf for each sum that has no terms, as in SciPy; no probabilities of nothing."""
    x = Tensor(np.zeros(shape, dtype))
    with np.errstate(all="raise"):
        total = ad.logsumexp(x, axis, keepdims)
    with np.errstate(divide="ignore"):
        probabilities = ad.log_softmax(x, axis)
    gradients = [grad(ad.sum(f), x, create_graph=True) for f in (total, probabilities)]
    expected = np.full(np.sum(x.data, axis, keepdims=keepdims).shape, -np.inf)
    assert_array_equal(total.data, expected)
    assert total.shape == expected.shape
    assert {y.dtype for y in (total, probabilities, *gradients)} == {np.dtype(dtype)}
    assert {y.shape for y in (probabilities, *gradients)} == {shape}


def test_impossible_entries_leave_the_derivatives_of_the_others_alone():
    x, q = np.array([-np.inf, 0, 1]), np.array([0, 1, math.e]) / (1 + math.e)
    for f, chosen in [(ad.logsumexp, 0), (lambda x: -ad.log_softmax(x)[1], np.array([0, 1, 0]))]:
        first, second = first_and_second(f, x)
        assert_allclose(first, q - chosen)
        assert_allclose(second, np.diag(q) - np.outer(q, q))


CONVENTIONS = {
    "relu at 0": (ad.relu, [0.0, -0.0], [0, 0]),
    "clip at the bounds": (lambda x: ad.clip(x, -1, 2), [-1.5, -1, 0, 2, 2.5], [0, 1, 1, 1, 0]),
    "maximum": (lambda x: ad.maximum(x, 1.0), [0.0, 1, 2], [0, 0.5, 1]),
    "maximum, second": (lambda x: ad.maximum(1.0, x), [0.0, 1, 2], [0, 0.5, 1]),
    "minimum": (lambda x: ad.minimum(x, 1.0), [0.0, 1, 2], [1, 0.5, 0]),
    "minimum, second": (lambda x: ad.minimum(1.0, x), [0.0, 1, 2], [1, 0.5, 0]),
    "maximum of x and x": (lambda x: ad.maximum(x, x), [1.0, -2], [1, 1]),
    "max": (ad.max, [3.0, 1, 3, 3], [1 / 3, 0, 1 / 3, 1 / 3]),
    "max, rows": (lambda x: ad.max(ad.reshape(x, (2, 2)), 1), [3.0, 3, 1, 2], [0.5, 0.5, 0, 1]),
    "x ** 0 at 0": (lambda x: x**0, [0.0, 1], [0, 0]),
    "x ** 0.0 at 0": (lambda x: x**0.0, [0.0, 1], [0, 0]),
    "x ** array at 0": (lambda x: x ** np.array([0, 1, 2, 3]), [0.0, 0, 0, 0], [0, 1, 0, 0]),
    "x ** y, y at x = 0": (lambda y: 0 ** y, [1.0, 2], [0, 0]),
    "stop_gradient": (lambda x: ad.stop_gradient(x) * x, [3.0, 2], [3, 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_where_there_is_no_derivative(name):
    f, x, expected = CONVENTIONS[name]
    with np.errstate(all="raise"):
        first, second = first_and_second(f, x)
    assert_array_equal(first, expected)
    if "array" not in name and "stop_gradient" not in name:
        assert_array_equal(second, np.zeros((len(x), len(x))))


@pytest.mark.parametrize("kind", [int, float, np.array, Tensor, lambda n: Tensor(float(n))])
@pytest.mark.parametrize("x", [0.0, -0.0, -1.5])
def test_powers_to_fifth_order_at_and_below_zero(x, kind):
    for n, derivatives in {
        0: (0, 0, 0, 0, 0),
        1: (1, 0, 0, 0, 0),
        2: (2 * x, 2, 0, 0, 0),
        3: (3 * x**2, 6 * x, 6, 0, 0),
    }.items():
        point = Tensor(x)
        y = point ** kind(n)
        for expected in derivatives:
            y = grad(y, point, create_graph=True)
            assert y.data == expected


def test_the_derivatives_of_a_power_where_the_exponent_is_0():
    """By x 0, by y log x, and by both 1 / x; the exponent is a Tensor, at some places 0."""
    x = Tensor(np.array([2.5, 1, 0.5]))
    y = Tensor(np.zeros(3))
    of_x, of_y = grad(ad.sum(x**y), [x, y], create_graph=True)
    assert_array_equal(of_x.data, np.zeros(3))
    assert_allclose(of_y.data, np.log(x.data), atol=0)
    assert_allclose(grad(ad.sum(of_x), y).data, 1 / x.data)
    assert_allclose(grad(ad.sum(of_y), x).data, 1 / x.data)


def test_the_derivative_of_a_power_by_its_exponent():
    """x**y log x; its limit 0 at x = 0, and NaN where x has no logarithm, as in torch and JAX."""
    y = Tensor(np.array([2.0, 2, 2, 3, 0.5, 2]))
    for x in (np.array([0.0, -0.0, -1, -2, 4, np.nan]), [0.0, -0.0, -1, -2, 4, math.nan]):
        with np.errstate(invalid="ignore"):
            slope = grad(ad.sum(x**y), y).data
        assert_allclose(slope, [0, 0, np.nan, np.nan, 2 * math.log(4), np.nan])


def test_where_never_lets_the_branch_not_taken_cross():
    x = Tensor(np.array([np.nan, np.inf, -np.inf, 4.0]))
    taken = np.array([False, False, False, True])
    for out in (ad.where(taken, x, 0), ad.where(~taken, 0, x)):
        assert_array_equal(out.data, [0, 0, 0, 4])
        assert_array_equal(grad(ad.sum(out * out), x).data, [0, 0, 0, 8])
    # Adjoints that are not finite do not cross either
    weights = np.array([np.nan, np.inf, np.nan, 3.0])
    assert_array_equal(grad(ad.where(taken, x, 0), x, grad_output=weights).data, [0, 0, 0, 3])


NAN, INF = np.nan, np.inf
NOT_FINITE = {  # function, x, its value, the gradient of its sum
    "relu": (ad.relu, [NAN, -INF, INF, 1], [NAN, 0, INF, 1], [NAN, 0, 1, 1]),
    "relu in place": (
        lambda x: ad.relu_(x * 1),
        [NAN, -INF, INF, 1],
        [NAN, 0, INF, 1],
        [NAN, 0, 1, 1],
    ),
    "clip": (
        lambda x: ad.clip(x, -1, 2),
        [NAN, -INF, INF, 1],
        [NAN, -1, 2, 1],
        [NAN, 0, 0, 1],
    ),
    "clip, infinite bounds": (
        lambda x: ad.clip(x, like(x, -INF, INF, -INF), like(x, INF, INF, -INF)),
        [1, 1, 1],
        [1, INF, -INF],
        [1, 0, 0],
    ),
    "clip, a bound is NaN": (lambda x: ad.clip(x, like(x, NAN, 0)), [1, 1], [NAN, 1], [NAN, 1]),
    "maximum": (
        lambda x: ad.maximum(x, like(x, 1, NAN, 1, 1, -INF)),
        [NAN, 1, INF, -INF, -INF],
        [NAN, NAN, INF, 1, -INF],
        [NAN, NAN, 1, 0, 0.5],
    ),
    "maximum, second": (
        lambda x: ad.maximum(like(x, 1, NAN, 1), x),
        [NAN, 1, INF],
        [NAN, NAN, INF],
        [NAN, NAN, 1],
    ),
    "minimum": (
        lambda x: ad.minimum(x, like(x, 1, NAN, 1, 1, INF)),
        [NAN, 1, INF, -INF, INF],
        [NAN, NAN, 1, -INF, INF],
        [NAN, NAN, 0, 1, 0.5],
    ),
    "max": (lambda x: ad.max(x, keepdims=True), [1, NAN, 2], [NAN], [NAN, NAN, NAN]),
    "max, rows": (
        lambda x: ad.max(ad.reshape(x, (3, 2)), 1),
        [1, NAN, -INF, -INF, INF, 1],
        [NAN, -INF, INF],
        [NAN, NAN, 0.5, 0.5, 1, 0],
    ),
    "logsumexp": (lambda x: ad.logsumexp(x, keepdims=True), [INF, 1, -INF], [INF], [NAN, 0, 0]),
    "logsumexp, ties": (lambda x: ad.logsumexp(x, 0, True), [INF, INF, 1], [INF], [NAN, NAN, 0]),
    "logsumexp, impossible": (lambda x: ad.logsumexp(x, 0, True), [-INF, 1], [1], [0, 1]),
    "logsumexp, all impossible": (ad.logsumexp, [-INF, -INF], -INF, [NAN, NAN]),
    "logsumexp, NaN": (ad.logsumexp, [-INF, NAN, INF], NAN, [NAN, NAN, NAN]),
    "log_softmax": (ad.log_softmax, [INF, 1], [NAN, NAN], [NAN, NAN]),
    "log_softmax, impossible": (ad.log_softmax, [-INF, 1], [-INF, 0], [1, -1]),
    "log_softmax, all impossible": (ad.log_softmax, [-INF, -INF], [NAN, NAN], [NAN, NAN]),
    "log_softmax, NaN": (ad.log_softmax, [NAN, 1], [NAN, NAN], [NAN, NAN]),
    "sigmoid": (ad.sigmoid, [-INF, INF, NAN], [0, 1, NAN], [0, 0, NAN]),
    "softplus": (ad.softplus, [-INF, INF, NAN], [0, INF, NAN], [0, 1, NAN]),
    "tanh": (ad.tanh, [-INF, INF, NAN], [-1, 1, NAN], [0, 0, NAN]),
    "exp": (ad.exp, [-INF, INF, NAN], [0, INF, NAN], [0, INF, NAN]),
    "log": (ad.log, [0, INF, NAN], [-INF, INF, NAN], [INF, 0, NAN]),
    "sqrt": (ad.sqrt, [0, INF, NAN], [0, INF, NAN], [INF, 0, NAN]),
    "where": (
        lambda x: ad.where([True, True, False], x, 0),
        [NAN, INF, NAN],
        [NAN, INF, 0],
        [1, 1, 0],
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite(name, dtype):
    """Beside torch and JAX, which agree but for the NaN of relu, clip, maximum and minimum."""
    f, x, expected, slope = NOT_FINITE[name]
    leaf = Tensor(np.array(x, dtype))
    with np.errstate(all="ignore"):
        out = f(leaf)
        gradient = grad(ad.sum(out), leaf)
        recorded = grad(ad.sum(out), leaf, create_graph=True)
    assert out.dtype == gradient.dtype == dtype
    assert_allclose(out.data, expected, rtol=1e-6)
    assert_array_equal(gradient.data, slope)
    assert_array_equal(recorded.data, slope)


def test_a_maximum_that_is_nan_is_no_slope_of_0_for_the_other():
    a, b = Tensor(np.array([NAN, 1])), Tensor(np.array([1, NAN]))
    for f in (ad.maximum, ad.minimum):
        for slope in grad(ad.sum(f(a, b)), [a, b]):
            assert np.isnan(slope.data).all()


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "tanh"])
def test_curves_are_flat_at_infinity(name):
    first, second = first_and_second(NOT_FINITE[name][0], np.array([-INF, INF]))
    assert np.isfinite(first).all()
    assert_array_equal(second, np.zeros((2, 2)))


@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_of_impossible_entries_is_impossible_without_a_warning(keepdims):
    x = np.array([[-INF, -INF], [-INF, 3], [INF, 1000], [1000, INF]])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        total = ad.logsumexp(x, 1, keepdims)
        assert_array_equal(np.ravel(total), [-INF, 3, INF, INF])
        assert ad.logsumexp(x[0]) == -INF
        assert ad.logsumexp(np.full((2, 3), -INF), (0, 1)) == -INF


SELECTIONS = {
    "where": lambda x: ad.where(np.array([False, True]), x, 0),
    "relu": ad.relu,
    "clip": lambda x: ad.clip(x, 0),
    "maximum": lambda x: ad.maximum(x, 0),
    "minimum": lambda x: -ad.minimum(0, -x),
    "max": lambda x: ad.max(x, keepdims=True) * np.ones(2),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_never_let_an_infinite_adjoint_cross(name):
    x = Tensor(np.array([-1.0, 2]))
    out = SELECTIONS[name](x)
    assert_array_equal(grad(out, x, grad_output=np.array([np.inf, np.inf])).data, [0, np.inf])


def test_the_guard_in_the_docstring_of_where():
    [code] = [code for code in ad.where.__doc__.split("`") if code.startswith("where(")]

    def f(x):
        return eval(code, {"where": ad.where, "sqrt": ad.sqrt, "x": x})

    first, second = first_and_second(f, np.array([0.0, -1, 4]))
    assert_array_equal(first, [0, 0, 1 / 4])
    assert_array_equal(second, np.diag([0, 0, -1 / 32]))


@pytest.mark.parametrize("name", INDICES)
def test_getitem_adds_up_what_is_selected_more_than_once(name):
    index, x = INDICES[name], Tensor(np.zeros((2, 3)))
    selected = x[index]
    weights, expected = np.random.default_rng(5).standard_normal(selected.shape), np.zeros((2, 3))
    np.add.at(expected, index, weights)
    assert_allclose(grad(selected, x, grad_output=weights).data, expected, rtol=1e-15)


def test_take_along_axis_adds_up_what_is_selected_more_than_once():
    x = Tensor(np.zeros((2, 3)))
    selected = ad.take_along_axis(x, np.array([[0, 0, -1], [1, 1, 1]]), axis=-1)
    weights = np.array([[1.0, 2, 4], [8, 16, 32]])
    assert_array_equal(grad(selected, x, grad_output=weights).data, [[3, 0, 4], [0, 56, 0]])


# --- grad ---


def test_grad_of_the_quadratic_and_its_kinds_of_arguments():
    x, y = Tensor(np.array([1.0, -2])), Tensor(3.0)
    out = ad.sum(x * x) * y
    assert isinstance(grad(out, x), Tensor)
    for inputs in ([x, y], (x, y), iter([x, y])):
        of_x, of_y = grad(out, inputs)
        assert_array_equal(of_x.data, [6, -12])
        assert_array_equal(of_y.data, 5)
    assert grad(out, []) == []
    assert [g.data.tolist() for g in grad(out, [x, x])] == [[6, -12], [6, -12]]


def test_grad_output_is_an_array_a_list_or_a_tensor():
    x, w = Tensor(np.array([1.0, 2])), np.array([3.0, -1])
    for seed in (w, [3, -1], Tensor(w), w.astype(np.float32)):
        g = grad(x**3, x, grad_output=seed)
        assert_array_equal(g.data, 3 * w * x.data**2)
        assert g.dtype == np.float64
    assert grad(x[0], x, grad_output=2).data.tolist() == [2, 0]


def test_grad_is_linear_in_a_recorded_grad_output():
    """The derivative of the backward pass with respect to grad_output is the forward derivative."""
    x, v = Tensor(np.array([1.0, 2])), np.array([3.0, -1])
    w = Tensor(np.zeros(2))
    backward = grad(ad.exp(x), x, grad_output=w, create_graph=True)
    assert_array_equal(grad(backward, w, grad_output=v).data, np.exp(x.data) * v)


def test_zeros_for_inputs_that_the_output_does_not_depend_on():
    x = Tensor(np.ones((2, 3), np.float32))
    y = Tensor(np.ones(4))
    constants = np.arange(6.0).reshape(2, 3)
    assert_array_equal(grad(ad.sum(x), [x, y])[1].data, np.zeros(4))
    for output in (Tensor(1.0), 1.0, np.float32(2), ad.stop_gradient(ad.sum(x))):
        g = grad(output, x, create_graph=True)
        assert_array_equal(g.data, np.zeros((2, 3)))
        assert g.dtype == np.float32
    slope = grad(ad.sum(x * constants), x, create_graph=True)  # the Hessian of a linear function
    assert_array_equal(grad(slope, x, grad_output=constants).data, np.zeros((2, 3)))


def test_inputs_upstream_of_one_another_and_the_output_among_them():
    x = Tensor(2.0)
    y = x * x
    z = y * y * x
    of_z, of_y, of_x = grad(z, [z, y, x])
    assert (of_z.data, of_y.data, of_x.data) == (1, 2 * 4 * 2, 5 * 16)
    of_x, of_y = grad(z, [x, y], create_graph=True)
    assert grad(of_y, x).data == 2 * 3 * 4  # of 2 y x, y = x**2
    assert grad(y, y).data == 1 and grad(x, [y, x])[0].data == 0
    seed = np.array([3.0, 4])
    vector = Tensor(np.zeros(2))
    assert_array_equal(grad(vector, vector, grad_output=seed).data, seed)


def test_paths_that_meet_again_add_up():
    x = Tensor(np.array([0.5, 2]))
    a, b = ad.exp(x), x * 3
    out = ad.sum(a * b + a + x + x)
    assert_allclose(grad(out, x).data, np.exp(x.data) * (3 * x.data + 3) + np.exp(x.data) + 2)


def test_a_tensor_reached_on_many_ways_is_visited_once():
    class Counted(tuple):
        visits = 0

        def __iter__(self):
            Counted.visits += 1
            return super().__iter__()

    x = y = Tensor(1.0)
    for _ in range(12):
        y = y + y
        y.inputs = Counted(y.inputs)
    assert grad(y, x).data == 2**12
    assert Counted.visits <= 4 * 12


def test_grad_twice_gives_the_same_and_stores_nothing():
    x = Tensor(np.array([0.5, 2]))
    data, out = x.data.copy(), ad.sum(ad.exp(x) * ad.tanh(x))
    before = [
        (id(node), node.function, node.inputs, node.options, node.data.copy())
        for node in graph(out)
    ]
    results = [grad(out, x, create_graph=create).data for create in (False, True, False, True)]
    for result in results[1:]:
        assert_array_equal(result, results[0])
    after = [(id(node), node.function, node.inputs, node.options, node.data) for node in graph(out)]
    for old, new in zip(before, after, strict=True):
        assert old[:4] == new[:4]
        assert_array_equal(old[4], new[4])
    assert not has_history(x) and not hasattr(x, "__dict__")
    results[0][:] = 7  # neither is the result anyone else's memory
    assert_array_equal(x.data, data)


def test_the_gradient_is_no_view_of_the_arguments():
    x, w = Tensor(np.ones((2, 3))), np.ones((2, 3))
    for out in (x, x + 1, ad.reshape(ad.reshape(x, 6), (2, 3))):
        assert not np.shares_memory(grad(out, x, grad_output=w).data, w)
    grad(ad.sum(x), x).data[0, 0] = 5  # can be written to


def test_create_graph_false_records_nothing(made):
    x = Tensor(np.ones(3))
    out = ad.sum(ad.exp(x) * ad.log_softmax(x) ** 2)
    made.clear()
    plain = grad(out, [x, out])
    assert len(made) == 2 and not any(map(has_history, plain))
    recorded = grad(out, x, create_graph=True)
    assert has_history(recorded) and any(node is x for node in graph(recorded))


def test_only_what_leads_to_a_requested_input_is_computed(monkeypatch):
    def forbidden(g, out, *inputs):
        raise RuntimeError("this derivative was not asked for")

    of_a, _ = ad.VJPS[np.multiply]
    monkeypatch.setitem(ad.VJPS, np.exp, (forbidden,))
    monkeypatch.setitem(ad.VJPS, np.multiply, (of_a, forbidden))
    x, y = Tensor(2.0), Tensor(0.0)
    h = ad.exp(y)
    out = x * h
    assert grad(out, x).data == 1
    assert grad(x * 3 + h, h).data == 1  # x * 3 leads elsewhere, and exp lies upstream of h
    for a in (h, y):
        with pytest.raises(RuntimeError, match="not asked for"):
            grad(out, a)


@pytest.mark.parametrize("create_graph", [False, True])
def test_mixed_dtypes(create_graph):
    rng = np.random.default_rng(6)
    single = Tensor(rng.standard_normal(3).astype(np.float32))
    double = Tensor(rng.standard_normal((2, 3)))
    out = ad.exp(single * double) @ single + ad.sum(single)
    gradients = grad(out, [single, double], grad_output=np.ones(2), create_graph=create_graph)
    assert [(g.dtype, g.shape) for g in gradients] == [(np.float32, (3,)), (np.float64, (2, 3))]
    e = np.exp(single.data * double.data)
    assert_allclose(gradients[1].data, e * single.data**2, rtol=1e-6)
    check_grads(lambda a, b: ad.exp(a * a * b) @ a, (single.data, double.data), order=3)


def test_reusing_one_tensor_for_several_arguments():
    check_grads(
        lambda x: ad.concatenate([x, x * x, x]) * ad.concatenate([x * x, x, x]),
        np.array([1.0, -2]),
        order=3,
    )
    check_grads(lambda x: x**x + ad.matmul(x, x), np.array([1.0, 2]), order=3)
    check_grads(
        lambda x: ad.maximum(x, x) * ad.where(np.array([True, False]), x, x), np.array([1.0, 2])
    )


# --- Hessian-vector products ---


def quartic(x):
    return ad.sum(x**4) / 12 + 0.5 * (x @ A @ x)


A = np.array([[3.0, 1, 0], [1, 2, -1], [0, -1, 4]])
POINT, DIRECTION = np.array([1.0, -2, 0.5]), np.array([0.5, 1, -3])
HESSIAN = np.diag(POINT**2) + A


def test_hvp_of_an_array_is_an_array():
    product = hvp(quartic, POINT, DIRECTION)
    assert isinstance(product, np.ndarray)
    assert_allclose(product, HESSIAN @ DIRECTION, rtol=1e-14)
    assert_allclose(
        [hvp(quartic, POINT, row) for row in np.eye(3)], HESSIAN, rtol=1e-14, atol=1e-14
    )
    assert_array_equal(hvp(lambda x: ad.sum(x * A[0]), POINT, DIRECTION), np.zeros(3))
    assert hvp(ad.exp, 1, 2.0) == pytest.approx(2 * math.e)


def test_hvp_of_a_tensor_is_a_tensor_to_be_differentiated_again():
    x = Tensor(POINT)
    product = hvp(quartic, x, DIRECTION)
    assert_allclose(product.data, HESSIAN @ DIRECTION, rtol=1e-14)
    assert_allclose(grad(product @ DIRECTION, x).data, 2 * POINT * DIRECTION**2, rtol=1e-14)
    v = Tensor(DIRECTION)
    assert_allclose(grad(hvp(quartic, x, v), v, grad_output=A[0]).data, HESSIAN @ A[0], rtol=1e-14)
    assert hvp(quartic, Tensor(POINT.astype(np.float32)), DIRECTION).dtype == np.float32


# --- Size, memory, threads ---


def meta_gradient(seed=0, steps=3):
    """MAML on a small network: the gradient through three steps of gradient descent."""
    rng = np.random.default_rng(seed)
    theta = Tensor(rng.standard_normal((4, 5)))
    x = rng.standard_normal((50, 4))
    y = rng.standard_normal((50, 5))

    def loss(theta):
        return -ad.mean(ad.sum(ad.log_softmax(ad.tanh(x @ theta)) * ad.sigmoid(y), axis=-1))

    adapted = theta
    for _ in range(steps):
        adapted = adapted - 0.1 * grad(loss(adapted), adapted, create_graph=True)
    return grad(loss(adapted), theta).data


def tensors_alive():
    return sum(isinstance(x, Tensor) for x in gc.get_objects())


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_no_reference_cycles(no_collector):
    """Twenty second-order gradients leave memory where it was,
    and nothing for the collector to find.
    """
    meta_gradient()
    gc.collect()
    tracemalloc.start()
    try:
        meta_gradient()
        start, _ = tracemalloc.get_traced_memory()
        for _ in range(20):
            meta_gradient()
        left = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert gc.collect() == 0
    assert left < 10_000


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_chain_of_100_000_operations(create_graph, no_collector):
    before = tensors_alive()
    x = Tensor(1.0)
    y = x
    for _ in range(50_000):
        y = (y + 0.25) * 1.0
    g = grad(y, x, create_graph=create_graph)
    assert (y.data, g.data) == (12_501, 1)
    assert tensors_alive() > before + 100_000
    del x, y, g
    assert tensors_alive() == before


def test_no_operation_makes_a_reference_cycle(no_collector):
    for case in CASES:
        f, xs = arguments(case, np.float64)
        second_order(f, xs, create_graph=True)
        assert gc.collect(0) == 0, case


def test_threads_differentiate_different_graphs_at_the_same_time():
    seeds, interval = range(16), sys.getswitchinterval()
    serial = [meta_gradient(seed) for seed in seeds]
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            parallel = list(pool.map(meta_gradient, seeds))
    finally:
        sys.setswitchinterval(interval)
    assert_array_equal(parallel, serial)


# --- Errors ---

M, ROW = Tensor(np.ones((2, 3))), np.ones(4)
BROADCAST_ERRORS = {
    **OPERATORS,
    "maximum": ad.maximum,
    "minimum": ad.minimum,
    "where": lambda a, b: ad.where(True, a, b),
    "matmul": ad.matmul,
    "concatenate": lambda a, b: ad.concatenate([a, b]),
    "stack": lambda a, b: ad.stack([a, b]),
}


@pytest.mark.parametrize("name", BROADCAST_ERRORS)
def test_shapes_that_do_not_fit_are_named(name):
    for pair in ((M, ROW), (ROW, M)):
        with pytest.raises(ValueError) as error:
            BROADCAST_ERRORS[name](*pair)
        assert f"of {pair[0].shape} and {pair[1].shape}" in str(error.value)


AXIS_ERRORS = {
    "sum": lambda x: ad.sum(x, 2),
    "mean": lambda x: ad.mean(x, -3),
    "max": lambda x: ad.max(x, 2),
    "logsumexp": lambda x: ad.logsumexp(x, (0, 2)),
    "log_softmax": lambda x: ad.log_softmax(x, 2),
    "swapaxes": lambda x: ad.swapaxes(x, 0, 2),
    "concatenate": lambda x: ad.concatenate([x, x], 2),
    "stack": lambda x: ad.stack([x, x], 3),
    "take_along_axis": lambda x: ad.take_along_axis(x, np.array([[0]]), 2),
}


@pytest.mark.parametrize("name", AXIS_ERRORS)
def test_an_axis_out_of_range_is_named(name):
    with pytest.raises(np.exceptions.AxisError, match=r"of \(2, 3\).*: .*axis.* out of bounds"):
        AXIS_ERRORS[name](M)


@pytest.mark.parametrize("axes", [(2,), (1, 2), (-3,), (0, 2)])
def test_axes_out_of_range_are_named(axes):
    with pytest.raises(np.exceptions.AxisError, match=r"sum of \(2, 3\): .*axis.* out of bounds"):
        ad.sum(M, axes)


OTHER_ERRORS = {
    "non-scalar output": (lambda: grad(M, M), ValueError, "shape (2, 3) needs grad_output"),
    "output of one element": (
        lambda: grad(M[0, :1], M),
        ValueError,
        "shape (1,) needs grad_output",
    ),
    "grad_output": (
        lambda: grad(M, M, np.ones(3)),
        ValueError,
        "shape (3,), the output has shape (2, 3)",
    ),
    "grad_output, scalar": (
        lambda: grad(M[0, 0], M, np.ones(1)),
        ValueError,
        "shape (1,), the output has shape ()",
    ),
    "input, array": (lambda: grad(M[0, 0], [M, M.data]), TypeError, "not ndarray"),
    "input, one array": (lambda: grad(M[0, 0], M.data[0]), TypeError, "not float64"),
    "hvp": (lambda: hvp(ad.exp, np.ones((2, 3)), 1), ValueError, "(2, 3)"),
    "hvp, vector": (
        lambda: hvp(ad.sum, np.ones((2, 3)), np.ones(2)),
        ValueError,
        "(2,), the output has shape (2, 3)",
    ),
    "reshape": (lambda: ad.reshape(M, (4, 2)), ValueError, "reshape of (2, 3): "),
    "broadcast_to": (lambda: ad.broadcast_to(M, (2, 4)), ValueError, "broadcast_to of (2, 3): "),
    "getitem": (lambda: M[2], IndexError, "getitem of (2, 3): "),
    "getitem, too many": (lambda: M[0, 0, 0], IndexError, "getitem of (2, 3): "),
    "where": (lambda: ad.where(np.ones(5), M, M), ValueError, "(5,)"),
    "take_along_axis": (
        lambda: ad.take_along_axis(M, np.array([0, 0]), 1),
        ValueError,
        "take_along_axis of (2, 3): ",
    ),
    "matmul, number": (lambda: M @ 2, ValueError, "matmul of (2, 3) and ()"),
    "matmul, batches": (
        lambda: np.ones((2, 4, 2)) @ (M[None] * np.ones((3, 1, 1))),
        ValueError,
        "matmul of (2, 4, 2) and (3, 2, 3)",
    ),
    "affine": (lambda: ad.affine(M, ROW, ROW), ValueError, "affine of (2, 3) and (4,) and (4,): "),
    "affine, bias too large": (
        lambda: ad.affine(M, M.reshape(3, 2), np.ones((3, 2, 2))),
        ValueError,
        "(3, 2, 2): ",
    ),
    "max of nothing": (lambda: ad.max(Tensor(np.ones(0))), ValueError, "max of (0,): "),
    "complex": (lambda: Tensor(np.array([1j])), TypeError, "complex128"),
    "a length of time": (lambda: Tensor(np.ones(1, "m8[s]")), TypeError, "timedelta64[s]"),
    "objects": (lambda: Tensor([None]), TypeError, "object"),
    "text": (lambda: Tensor("1"), TypeError, "<U1"),
    "an axis twice": (lambda: ad.sum(M, (0, -2)), ValueError, "sum of (2, 3): duplicate"),
    "an axis twice, logsumexp": (lambda: ad.logsumexp(M, (1, 1)), ValueError, "duplicate"),
    "an axis twice, log_softmax": (lambda: ad.log_softmax(M, (0, 0)), ValueError, "duplicate"),
}


@pytest.mark.parametrize("name", OTHER_ERRORS)
def test_errors_say_what_was_wrong(name):
    call, kind, message = OTHER_ERRORS[name]
    with pytest.raises(kind) as error:
        call()
    assert message in str(error.value)


# --- What would go wrong in silence is refused, with what to write instead ---

BARE = "x.data"
HERE = "this module's exp(x) for np.exp(x)"
REFUSED = {  # of a vector and a number
    "x == 0": (lambda x, n: ad.where(x == 0, 5.0, x), "x.data == y"),
    "0 == x": (lambda x, n: operator.eq(0, x), "x.data == y"),
    "x != x": (lambda x, n: operator.ne(x, x), "x.data == y"),
    "x == None": (lambda x, n: x == None, "x is y"),
    "x > 0": (lambda x, n: x > 0, "x.data > 0"),
    "x >= n": (lambda x, n: operator.ge(x, n), "x.data > 0"),
    "0 < n": (lambda x, n: operator.lt(0, n), "x.data > 0"),
    "n <= 0": (lambda x, n: n <= 0, "x.data > 0"),
    "array == x": (lambda x, n: np.ones(3) == x, "x.data == y"),
    "array > x": (lambda x, n: np.ones(3) > x, "x.data > 0"),
    "number < n": (lambda x, n: np.float64(1) < n, "x.data > 0"),
    "in a list": (lambda x, n: n in [x], "x is y"),
    "a number in x": (lambda x, n: 1.0 in x, "x.data == y"),
    "the largest in a list": (lambda x, n: sorted([n, n]), "x.data > 0"),
    "if": (lambda x, n: not n, "bool(x.data)"),
    "and": (lambda x, n: x and n, "bool(x.data)"),
    "float": (lambda x, n: float(n), "float(x.data)"),
    "int": (lambda x, n: int(n), "float(x.data)"),
    "math": (lambda x, n: math.exp(n), "this module's exp(x) for math.exp(x)"),
    "a copy": (lambda x, n: Tensor(x * 2), "stop_gradient(x)"),
    "a copy of a leaf": (lambda x, n: Tensor(n), "stop_gradient(x)"),
    "Tensor of Tensors": (lambda x, n: Tensor([n, n]), "stack([x, y])"),
    "np.array": (lambda x, n: np.array(x), BARE),
    "np.array of vectors": (lambda x, n: np.array([x, x]), "stack([x, y]) for np.array([x, y])"),
    "np.array of numbers": (lambda x, n: np.array([n, 1.0]), "stack([x, y]) for np.array([x, y])"),
    "np.asarray": (lambda x, n: np.asarray(x, np.float32), BARE),
    "np.where": (lambda x, n: np.where([True, False, True], x, 0), HERE),
    "np.stack": (lambda x, n: np.stack([x]), HERE),
    "np.concatenate": (lambda x, n: np.concatenate([x, x]), HERE),
    "np.exp": (lambda x, n: np.exp(n), HERE),
    "np.add": (lambda x, n: np.add(np.ones(3), x), HERE),
    "np.maximum": (lambda x, n: np.maximum(x, 0), HERE),
    "np.sum": (lambda x, n: np.sum(x), HERE),
    "np.mean": (lambda x, n: np.mean(x), HERE),
    "np.max": (lambda x, n: np.max(x), HERE),
    "np.dot": (lambda x, n: np.dot(np.ones(3), x), HERE),
    "np.matmul": (lambda x, n: np.matmul(np.ones((3, 3)), x), HERE),
    "np.tile": (lambda x, n: np.tile(x, 2), HERE),
    "np.reshape": (lambda x, n: np.reshape(x, (3, 1)), HERE),
    "np.broadcast_to": (lambda x, n: np.broadcast_to(x, (2, 3)), HERE),
    "np.zeros_like": (lambda x, n: np.zeros_like(x), HERE),
    "np.size": (lambda x, n: np.size(x), BARE),
    "np.isfinite": (lambda x, n: np.isfinite(x), BARE),
    "np.linalg": (lambda x, n: np.linalg.norm(x), HERE),
    "assignment": (lambda x, n: operator.setitem(np.ones(3), slice(None), x), BARE),
    "out": (lambda x, n: np.add(1, 1, out=x), None),
    "a list of Tensors": (lambda x, n: ad.exp([n, n]), "stack([x, y])"),
    "plus a list of Tensors": (lambda x, n: x + [n, n, n], "stack([x, y])"),
    "an index": (lambda x, n: x[n], BARE),
    "an index of an array": (lambda x, n: np.ones(3)[x], BARE),
    "indices": (lambda x, n: ad.take_along_axis(x, x, 0), BARE),
    "clip from a Tensor": (lambda x, n: ad.clip(x, n), "minimum(maximum(x, low), high)"),
    "clip to a Tensor": (lambda x, n: ad.clip(np.ones(3), high=n), "clip takes constant bounds"),
    "an axis": (lambda x, n: ad.sum(x, n), None),
    "axes": (lambda x, n: ad.logsumexp(x, (n,)), None),
    "a shape": (lambda x, n: ad.reshape(x, (n, 1)), None),
    "keepdims": (lambda x, n: ad.max(x, 0, n), None),
    "assignment to x": (lambda x, n: operator.setitem(x, 0, 1.0), None),
    "absolute value": (lambda x, n: abs(x), None),
    "quotient without remainder": (lambda x, n: x // 2, None),
    "remainder": (lambda x, n: x % 2, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_go_wrong_in_silence_is_refused(name):
    ask, instead = REFUSED[name]
    with pytest.raises(TypeError) as error:
        ask(Tensor(np.array([0.0, 1, 2])), Tensor(0.0))
    if instead is not None:
        assert " write " in str(error.value) and instead in str(error.value)


def test_each_tensor_is_a_key_of_its_own():
    x, y = Tensor(np.ones(2)), Tensor(np.ones(2))
    names = {x: "x", y: "y"}
    assert (names[x], names[y]) == ("x", "y")
    assert len({x, y, x}) == 2
    assert x in [x]


def test_what_is_to_be_written_instead_of_clip_has_derivatives_by_its_bounds():
    def f(x, low, high):
        return ad.minimum(ad.maximum(x, low), high) ** 3

    x = np.array([-2.0, 0.3, 0.4, 5])
    check_grads(f, (x, np.array([-1, -1, 0.5, -1]), np.array(2.0)), order=3)


# --- What is changed after it was recorded ---


def changed(index):
    """Set every element of the arrays and lists in an index to 0, in place."""
    if isinstance(index, np.ndarray):
        index[...] = 0
    elif isinstance(index, tuple):
        for part in index:
            changed(part)
    elif isinstance(index, list):
        for i, part in enumerate(index):
            if isinstance(part, list):
                changed(part)
            else:
                index[i] = 0


KEPT = {  # a function of x and of what is changed later
    "index array": (operator.getitem, lambda: np.array([2, 2, 1])),
    "index list": (operator.getitem, lambda: [2, 2, 1]),
    "nested list": (operator.getitem, lambda: [[2, 1], [1, 2]]),
    "mask as an index": (operator.getitem, lambda: np.array([False, True, True])),
    "index of two axes": (lambda x, i: x[:, None][i], lambda: (np.array([2, 1]), [0, 0])),
    "take_along_axis": (lambda x, i: ad.take_along_axis(x, i, 0), lambda: np.array([2, 2, 1])),
    "take_along_axis, list": (lambda x, i: ad.take_along_axis(x, i, 0), lambda: [2, 2, 1]),
    "take_along_axis, all": (lambda x, i: ad.take_along_axis(x, i, None), lambda: np.array([2, 1])),
    "where": (lambda x, m: ad.where(m, x, 7), lambda: np.array([False, True, True])),
    "where, list": (lambda x, m: ad.where(m, x, 7), lambda: [False, True, True]),
    "where, numbers": (lambda x, m: ad.where(m, 7, x), lambda: np.array([0.0, 2, -1])),
    "where, Tensor": (lambda x, m: ad.where(m, x, 7), lambda: Tensor(np.array([0.0, 2, -1]))),
    "clip": (lambda x, low: ad.clip(x, low), lambda: np.array([2.0, 1.5, 1])),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", KEPT)
def test_indices_masks_and_bounds_may_change_after_they_were_recorded(name, create_graph):
    f, make = KEPT[name]
    x = Tensor(np.array([1.0, 2, 3]))

    def derivatives(change):
        option = make()
        cube = f(x, option) ** 3
        change(ad.value(option))
        slope = grad(ad.sum(cube), x, create_graph=True)
        change(ad.value(option))
        return slope.data, grad(ad.sum(slope * slope), x, create_graph=create_graph).data

    assert_array_equal(derivatives(changed), derivatives(lambda option: None))


# --- check_grads on derivatives that are wrong ---


def tanh_vjp(g, out, x):
    return g * (1 - out * out)


def detached(x):
    return x.data if isinstance(x, Tensor) else x


WRONG_FIRST_ORDER = {
    "sign": lambda g, out, x: -g * (1 - out * out),
    "factor": lambda g, out, x: 1.1 * g * (1 - out * out),
    "missing factor": lambda g, out, x: g,
    "zero": lambda g, out, x: 0 * g,
    "not finite": lambda g, out, x: g * np.nan,
    "ignores g": lambda g, out, x: 1 - out * out,
    "one element": lambda g, out, x: g * (1 - out * out) * np.array([1, 1, 1.1]),
    "elements exchanged": lambda g, out, x: (g * (1 - out * out))[::-1],
}
WRONG_SECOND_ORDER = {
    "detached": lambda g, out, x: g * (1 - detached(out) * detached(out)),
    "half detached": lambda g, out, x: g * (1 - detached(out) * out),
    "detached from g": lambda g, out, x: detached(g) * (1 - out * out),
    "wrong when recorded": lambda g, out, x: tanh_vjp(g, out, x) * (1 + isinstance(out, Tensor)),
}


def with_tanh(x):
    """A function that shows wrong derivatives of tanh,
    also those wrong only where g is differentiated.
    """
    return x * ad.tanh(x * x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_check_grads_passes_what_is_right(dtype, monkeypatch):
    x = np.array([0.3, -0.5, 1], dtype)
    monkeypatch.setitem(ad.VJPS, np.tanh, (tanh_vjp,))
    for f in (with_tanh, ad.sum, lambda x: np.ones(2), lambda x: ad.stop_gradient(np.ones(3)) * x):
        check_grads(f, x)
        check_grads(f, x, order=3, rng=np.random.default_rng(7))
    check_grads(lambda a, b: a * b, (x, 2.0), order=1)
    check_grads(ad.exp, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WRONG_FIRST_ORDER)
def test_check_grads_finds_wrong_first_derivatives(name, dtype, monkeypatch):
    monkeypatch.setitem(ad.VJPS, np.tanh, (WRONG_FIRST_ORDER[name],))
    for order in (1, 2):
        with pytest.raises(AssertionError, match="by differences"):
            check_grads(with_tanh, np.array([0.3, -0.5, 1], dtype), order)


def test_check_grads_finds_wrong_derivatives_where_asserts_are_left_out():
    """python -O leaves assert statements out."""
    code = """if True:
        import numpy as np
        import autodiff as ad
        ad.VJPS[np.tanh] = (lambda g, out, x: g,)
        ad.check_grads(ad.tanh, np.array([0.3]))
    """
    command = [sys.executable, "-O", "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=60)
    assert run.returncode == 1
    assert "AssertionError" in run.stderr and "by differences" in run.stderr


def test_check_grads_allows_for_the_rounding_of_what_hardly_changes():
    check_grads(lambda x: 1000 + 1e-12 * x, np.array([0.3, -0.5, 1]))


def test_check_grads_finds_a_small_factor_in_float64(monkeypatch):
    monkeypatch.setitem(ad.VJPS, np.tanh, (lambda g, out, x: 1.00001 * tanh_vjp(g, out, x),))
    with pytest.raises(AssertionError, match="by differences"):
        check_grads(with_tanh, np.array([0.3, -0.5, 1]), order=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WRONG_SECOND_ORDER)
def test_check_grads_finds_wrong_second_derivatives(name, dtype, monkeypatch):
    x = np.array([0.3, -0.5, 1], dtype)
    monkeypatch.setitem(ad.VJPS, np.tanh, (WRONG_SECOND_ORDER[name],))
    if "detached" in name:
        check_grads(with_tanh, x, order=1)
    with pytest.raises(
        AssertionError, match="by differences" if "detached" in name else "by create_graph"
    ):
        check_grads(with_tanh, x)


def test_check_grads_finds_wrong_third_derivatives_where_it_is_asked_to():
    """x**4 as an operation whose third derivative is 20 x in place of 24 x."""

    def power(factor, exponent):
        return lambda x: factor * x**exponent

    fourth, third, second, first = power(1, 4), power(4, 3), power(12, 2), power(24, 1)
    rows = {
        fourth: (lambda g, out, x: g * ad.apply(third, x),),
        third: (lambda g, out, x: g * ad.apply(second, x),),
        second: (lambda g, out, x: g * ad.apply(first, x) * (20 / 24),),
    }
    ad.VJPS.update(rows)
    try:
        x = np.array([0.5, -1.5])
        ad.check_grads(lambda x: ad.apply(fourth, x), x)  # to second order all is right
        with pytest.raises(AssertionError):
            ad.check_grads(lambda x: ad.apply(fourth, x), x, order=3)
    finally:
        for function in rows:
            del ad.VJPS[function]


def test_clip_has_no_bound_where_none_is_given():
    x = np.array([-1e9, 0, 1e9])
    np.testing.assert_array_equal(ad.clip(x), x)
    np.testing.assert_array_equal(ad.clip(x, high=1), [-1e9, 0, 1])
    np.testing.assert_array_equal(ad.clip(x, low=-1), [-1, 0, 1e9])


def test_check_grads_finds_an_argument_mistaken_for_the_other(monkeypatch):
    of_a, _ = ad.VJPS[np.multiply]
    monkeypatch.setitem(ad.VJPS, np.multiply, (of_a, of_a))
    with pytest.raises(AssertionError, match="by differences"):
        check_grads(operator.mul, (np.array([1.0, 2]), np.array([3.0, -1])))


WRONG_CONFORM = {
    "not summed": (np.float64, lambda g, x: g, r"gradient float64\(2, 3\), x float64\(3,\)"),
    "not converted": (np.float32, lambda g, x: 1.0 * g, r"gradient float64\(3,\), x float32\(3,\)"),
}


@pytest.mark.parametrize("name", WRONG_CONFORM)
def test_check_grads_finds_gradients_of_the_wrong_shape_or_dtype(name, monkeypatch):
    dtype, wrong, message = WRONG_CONFORM[name]
    monkeypatch.setattr(ad, "_unbroadcast", wrong)
    other = np.ones(3 if name == "not converted" else (2, 3), dtype)
    with pytest.raises(AssertionError, match=message):
        check_grads(operator.add, (np.ones(3, dtype), other))


# --- Random expressions ---

ONE = [
    operator.neg,
    ad.tanh,
    ad.sigmoid,
    ad.softplus,
    ad.log_softmax,
    lambda x: ad.exp(-x * x),
    lambda x: ad.sqrt(x * x + 1),
    lambda x: ad.log(x * x + 1),
    lambda x: x**3,
    lambda x: 1 / (2 + ad.tanh(x)),
    lambda x: x - ad.logsumexp(x, 0),
    lambda x: ad.mean(x, 0),
    lambda x: ad.sum(x, -1, keepdims=True),
    lambda x: ad.broadcast_to(x, (2, *x.shape)),
    lambda x: ad.swapaxes(x, 0, -1),
    lambda x: ad.reshape(x, -1),
    lambda x: x[::-1],
    lambda x: x[[0, 0]],
]
TWO = [
    operator.add,
    operator.sub,
    operator.mul,
    ad.matmul,
    lambda a, b: a / (b * b + 1),
    lambda a, b: ad.sigmoid(a) ** b,
    lambda a, b: ad.stack([a, b]),
    lambda a, b: ad.concatenate([a, b], -1),
    lambda a, b: ad.where(np.array([True, False, True]), a, b),
]


def random_expression(seed):
    """A function of two Tensors that applies twelve random steps to what it has so far,
    and its arguments.
    """

    def f(*leaves):
        rng, pool = np.random.default_rng(seed), list(leaves)
        while len(pool) < 14:
            step = rng.choice(ONE + TWO)
            arguments = [pool[i] for i in rng.integers(len(pool), size=2 if step in TWO else 1)]
            try:
                pool.append(ad.tanh(step(*arguments)))  # tanh keeps the numbers small
            except (ValueError, IndexError):  # shapes that do not fit: draw again
                continue
        return ad.concatenate([ad.reshape(x, -1) for x in pool[-4:]])

    rng = np.random.default_rng(seed)
    return f, (rng.standard_normal(3), rng.standard_normal((2, 3)))


@pytest.mark.parametrize("seed", range(60))
def test_random_expressions(seed):
    f, xs = random_expression(seed)
    check_grads(f, xs, order=2, rng=np.random.default_rng(seed))
