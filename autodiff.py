"""Reverse-mode automatic differentiation on NumPy arrays, to any order.

How to read it, from top to bottom:

1. `Tensor` holds an array and remembers the NumPy function and the inputs that made it: the graph.
2. `apply`, through which all operations go, calls a NumPy function, and records the call if an input is a
   Tensor. Plain arrays are constants: arrays in, array out, no graph.
3. `VJPS` is the whole of calculus here: one line per function and argument, `(g, out, *inputs)` to the
   adjoint of that argument, where `g` is the adjoint of `out` (a vector-Jacobian product).
4. `grad` walks the graph backwards and looks each step up in the table.

The table is written in the operations of this module: given arrays it computes, given Tensors it records. So
`grad(..., create_graph=True)` returns gradients that can be differentiated again: MAML's second-order term
needs no second mechanism (Griewank & Walther 2008, chapter 5).
A graph holds no reference to itself and nothing is stored on the inputs: it is freed as soon as it is let go.

Conventions where a derivative does not exist: `relu` has slope 0 at 0; `maximum`, `minimum` and `max` share
the adjoint equally among ties; `clip` has slope 1 at its bounds.
"""

import math

import numpy as np

# To keep freed memory for the next arrays: glibc returns large ones to the system, and getting them again costs more
# than computing them. Once 32 MB were freed in one piece it stops that (mallopt(3)), but for what lies at the end of its
# heap: hence a lid. Memory that is never touched costs nothing.
np.empty(4_000_000)
_room, _LID = [np.empty(2_000_000) for _ in range(16)], np.empty(200_000)
del _room


class Tensor:
    """An array whose history is recorded.

    data: array of floating-point numbers (not copied; integers and booleans become float64).
    Supports + - * / ** @ [] among Tensors, arrays and numbers, with NumPy's broadcasting and dtypes.
    """

    __slots__ = ("data", "function", "inputs", "options")
    __array_ufunc__ = (
        None  # array + Tensor asks Tensor.__radd__ instead of building an object array
    )

    def __init__(self, data, function=None, inputs=(), options=None):
        data = np.asarray(_value(data))
        data = data.astype(float) if data.dtype.kind in "biu" else data
        if data.dtype.kind != "f":
            raise TypeError(f"a Tensor holds real floating-point numbers, not {data.dtype}")
        self.data, self.function, self.inputs, self.options = data, function, inputs, options

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    dtype = property(lambda self: self.data.dtype)

    # fmt: off
    def __repr__(self): return f"Tensor({self.data!r})"
    def __getitem__(self, index): return apply(_getitem, self, index=index)
    def reshape(self, *shape): return reshape(self, shape)
    def __neg__(self): return apply(np.negative, self)
    def __add__(self, other): return apply(np.add, self, other)
    def __radd__(self, other): return apply(np.add, other, self)
    def __sub__(self, other): return apply(np.subtract, self, other)
    def __rsub__(self, other): return apply(np.subtract, other, self)
    def __mul__(self, other): return apply(np.multiply, self, other)
    def __rmul__(self, other): return apply(np.multiply, other, self)
    def __truediv__(self, other): return apply(np.divide, self, other)
    def __rtruediv__(self, other): return apply(np.divide, other, self)
    def __pow__(self, other): return apply(np.power, self, other)
    def __rpow__(self, other): return apply(np.power, other, self)
    def __matmul__(self, other): return matmul(self, other)
    def __rmatmul__(self, other): return matmul(other, self)
    # fmt: on


def apply(function, *inputs, **options):
    """Call `function(*inputs, **options)` on the values; a Tensor among the inputs makes the result one."""
    values = [x.data if isinstance(x, Tensor) else x for x in inputs]
    try:
        out = function(*values, **options)
    except (ValueError, IndexError) as error:
        name, shapes = function.__name__.strip("_"), " and ".join(str(np.shape(x)) for x in values)
        raise type(error)(f"{name} of {shapes}: {error}") from None
    return Tensor(out, function, inputs, options) if Tensor in map(type, inputs) else out


# --- Operations, NumPy's of the same names; what NumPy does not have says what it is ---
# fmt: off
def exp(x): "e^x"; return apply(np.exp, x)
def log(x): "the natural logarithm"; return apply(np.log, x)
def tanh(x): "the hyperbolic tangent"; return apply(np.tanh, x)
def sqrt(x): "the square root"; return apply(np.sqrt, x)
def relu(x): "max(x, 0)"; return apply(_relu, x)
def tanh_(x): "tanh in the memory of x, whose value is lost: only for what no derivative needs"; return apply(_tanh_, x)
def relu_(x): "relu, as tanh_"; return apply(_relu_, x)
def sigmoid(x): "1 / (1 + exp(-x))"; return apply(_sigmoid, x)
def softplus(x): "log(1 + exp(x))"; return apply(_softplus, x)
def maximum(a, b): "the larger, element by element"; return apply(np.maximum, a, b)
def minimum(a, b): "the smaller, element by element"; return apply(np.minimum, a, b)
def sum(x, axis=None, keepdims=False): "over axis, or all"; return apply(_sum, x, axis=axis, keepdims=keepdims)
def max(x, axis=None, keepdims=False): "over axis, or all"; return apply(np.max, x, axis=axis, keepdims=keepdims)
def logsumexp(x, axis=None, keepdims=False): "log sum exp(x)"; return apply(_logsumexp, x, axis=axis, keepdims=keepdims)
def log_softmax(x, axis=-1): "x - logsumexp(x)"; return apply(_log_softmax, x, axis=axis)
def clip(x, low=-np.inf, high=np.inf): "x within [low, high]"; return apply(np.clip, x, a_min=low, a_max=high)
def reshape(x, shape): "as NumPy"; return apply(_reshape, x, shape=shape)
def swapaxes(x, axis1, axis2): "as NumPy"; return apply(np.swapaxes, x, axis1=axis1, axis2=axis2)
def broadcast_to(x, shape): "as NumPy"; return apply(np.broadcast_to, x, shape=shape)
def concatenate(xs, axis=0): "along an axis"; return apply(_concatenate, *xs, axis=axis)
def stack(xs, axis=0): "along a new axis"; return apply(_stack, *xs, axis=axis)
def take_along_axis(x, indices, axis): "as NumPy"; return apply(np.take_along_axis, x, indices=indices, axis=axis)
def stop_gradient(x): "the same value, without history"; return Tensor(x.data) if isinstance(x, Tensor) else x

# Values, and forward functions that NumPy does not have, or not with these keywords
def _value(x): return x.data if isinstance(x, Tensor) else x
def _operand(x): return x if isinstance(x, Tensor) else np.asarray(x)
def _getitem(x, index): return x[index]
def _where(a, b, condition): return np.where(condition, a, b)
def _reshape(x, shape): return np.reshape(x, shape)
def _concatenate(*xs, axis): return np.concatenate(xs, axis)
def _stack(*xs, axis): return np.stack(xs, axis)
def _relu(x): return np.maximum(x, 0)
def _tanh_(x): return np.tanh(x, out=x)
def _relu_(x): return np.maximum(x, 0, out=x)
def _cross(x, y): return np.matmul(np.swapaxes(x, -1, -2), y)
def _softplus(x): return np.logaddexp(x, 0)
def _sigmoid(x): return np.exp(-np.logaddexp(np.multiply(x, -1.0), 0))
# fmt: on


def mean(x, axis=None, keepdims=False):
    total = sum(x, axis, keepdims)
    return total / (np.size(_value(x)) / (np.size(_value(total)) or 1))


def affine(x, w, b):
    """x @ w + b in one new array. x (..., n, i), w (..., i, o), b (..., 1, o) of no wider dtype."""
    return apply(_affine, x, w, b)


def where(condition, a, b):
    """Select a where `condition` (an array) holds, b elsewhere.

    The branch not taken gets an exact zero, selected and not multiplied: an infinite or NaN value there never
    crosses. Its own derivative can still be one (0 * inf in the chain rule), so guard the argument too:
    `where(x > 0, sqrt(where(x > 0, x, 1)), 0)`.
    """
    return apply(_where, a, b, condition=_value(condition))


def matmul(a, b):
    """The matrix product, with 1-D and batched operands as NumPy takes them."""
    a, b = _operand(a), _operand(b)
    if a.shape[-1:] != b.shape[-2:][:1]:
        raise ValueError(f"matmul of {a.shape} and {b.shape}: the axis to sum over has two lengths")
    if b.ndim == 1:
        return matmul(a, b[:, None])[..., 0]
    if a.ndim == 1:
        return matmul(a[None], b)[..., 0, :]
    if (
        a.ndim > 2 and b.ndim == 2 and b.shape[0]
    ):  # one large product: no batch of adjoints of b to sum
        return reshape(matmul(reshape(a, (-1, b.shape[0])), b), (*a.shape[:-1], b.shape[1]))
    return apply(np.matmul, a, b)


def _affine(x, w, b):
    out = np.matmul(x, w)
    out += b
    return out


def _tanh_slope(g, y):
    """g * (1 - y * y), the adjoint of x where y = tanh(x), in one new array."""
    out = np.empty_like(y)
    np.multiply(y, y, out)
    np.subtract(1, out, out)
    return np.multiply(g, out, out)


def _sum(x, axis, keepdims):
    """np.sum; over neighbouring axes, as where broadcasting is undone, by BLAS: NumPy loops over the few numbers left."""
    first, stop = (axis[0], axis[-1] + 1) if isinstance(axis, tuple) and axis else (0, 0)
    if (
        not 0 <= first < stop < np.ndim(x)
        or axis != tuple(range(first, stop))
        or x.dtype.char not in "fd"
    ):
        return np.sum(x, axis=axis, keepdims=keepdims)
    before, summed, after = x.shape[:first], x.shape[first:stop], x.shape[stop:]
    out = np.ones(math.prod(summed), x.dtype) @ x.reshape(*map(math.prod, (before, summed, after)))
    return out.reshape(*before, *[1] * (len(axis) * keepdims), *after)


def _logsumexp(x, axis, keepdims):
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return out if keepdims else np.squeeze(out, axis)


def _log_softmax(x, axis):
    x = x - np.max(x, axis=axis, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))


def _scatter(g, index, shape):
    """The adjoint of x[index]: zeros of x's shape with g added at `index`."""
    out = np.zeros(shape, g.dtype)
    keys = index if isinstance(index, tuple) else (index,)
    if all(k is None or k is Ellipsis or isinstance(k, (slice, int)) for k in keys):
        out[index] = g
    else:
        np.add.at(out, index, g)  # index arrays may name an element more than once
    return out


def _keepdims(g, x, axis):
    """Give g, reduced from x over `axis`, the reduced axes back with length 1."""
    shape = np.array(np.shape(x), int)
    shape[... if axis is None or shape.size == 0 else np.array(axis, int)] = 1
    return reshape(g, tuple(shape))


def _max_vjp(g, out, x, axis, keepdims):
    ties = _value(x) == _value(_keepdims(out, x, axis))
    share = _keepdims(g, x, axis) / np.sum(ties, axis=axis, keepdims=True, dtype=x.dtype)
    return where(ties, share, 0)


def _piece(g, xs, i, axis):
    """The part of g, the adjoint of the concatenation of xs, that belongs to xs[i]."""
    stop = np.cumsum([np.shape(x)[axis] for x in xs])[i]
    return _along(g, slice(stop - np.shape(xs[i])[axis], stop), axis)


def _take_vjp(g, out, x, indices, axis):
    index = list(np.ogrid[tuple(slice(n) for n in x.shape)])
    index[axis] = indices
    return apply(_scatter, g, index=tuple(index), shape=x.shape)


# --- The table: for each function and argument, the adjoint of the argument from g, the adjoint of out. ---
# fmt: off
def _along(x, index, axis): return x[(slice(None),) * (axis % x.ndim) + (index,)]  # x[..., index, ...]
# The part of g, the adjoint of max(a, b), that belongs to a
def _larger(g, a, b): return where(_value(a) > _value(b), g, where(_value(a) == _value(b), 0.5 * g, 0))
# y - 1, but 0 for a constant y = 0: its factor y is 0 too, and 0 * x**-1 would be NaN at x = 0
def _exponent_less_one(y): return y - 1 if isinstance(y, Tensor) else y - 1 + (y == 0)

VJPS = {
    np.negative:    (lambda g, out, x: -g,),
    np.add:         (lambda g, out, a, b: g,
                     lambda g, out, a, b: g),
    np.subtract:    (lambda g, out, a, b: g,
                     lambda g, out, a, b: -g),
    np.multiply:    (lambda g, out, a, b: g * b,
                     lambda g, out, a, b: g * a),
    np.divide:      (lambda g, out, a, b: g / b,
                     lambda g, out, a, b: -g * out / b),
    np.power:       (lambda g, out, x, y: g * y * x ** _exponent_less_one(y),
                     lambda g, out, x, y: g * out * log(where(_value(x) > 0, x, np.ones((), out.dtype)))),
    np.matmul:      (lambda g, out, a, b: matmul(g, swapaxes(b, -1, -2)),
                     lambda g, out, a, b: matmul(swapaxes(a, -1, -2), g)),
    _affine:        (lambda g, out, x, w, b: matmul(g, swapaxes(w, -1, -2)),
                     lambda g, out, x, w, b: apply(_cross, x, g),
                     lambda g, out, x, w, b: g),
    _cross:         (lambda g, out, x, y: matmul(y, swapaxes(g, -1, -2)),  # x.T @ y
                     lambda g, out, x, y: matmul(x, g)),
    np.exp:         (lambda g, out, x: g * out,),
    np.log:         (lambda g, out, x: g / x,),
    np.tanh:        (lambda g, out, x: apply(_tanh_slope, g, out),),
    _tanh_:         (lambda g, out, x: apply(_tanh_slope, g, out),),
    _tanh_slope:    (lambda g, out, h, y: apply(_tanh_slope, g, y),
                     lambda g, out, h, y: g * h * y * -2),
    np.sqrt:        (lambda g, out, x: 0.5 * g / out,),
    _relu:          (lambda g, out, x: where(_value(x) > 0, g, 0),),
    _relu_:         (lambda g, out, x: where(_value(out) > 0, g, 0),),
    _sigmoid:       (lambda g, out, x: g * out * sigmoid(-x),),
    _softplus:      (lambda g, out, x: g * sigmoid(x),),
    _logsumexp:     (lambda g, out, x, axis, keepdims: _keepdims(g, x, axis) * exp(log_softmax(x, axis)),),
    _log_softmax:   (lambda g, out, x, axis: g - exp(out) * sum(g, axis, keepdims=True),),
    _sum:           (lambda g, out, x, axis, keepdims: broadcast_to(_keepdims(g, x, axis), x.shape),),
    np.max:         (_max_vjp,),
    np.maximum:     (lambda g, out, a, b: _larger(g, a, b),
                     lambda g, out, a, b: _larger(g, b, a)),
    np.minimum:     (lambda g, out, a, b: _larger(g, b, a),
                     lambda g, out, a, b: _larger(g, a, b)),
    np.clip:        (lambda g, out, x, a_min, a_max: where(_value(out) == _value(x), g, 0),),
    _where:         (lambda g, out, a, b, condition: where(condition, g, 0),
                     lambda g, out, a, b, condition: where(condition, 0, g)),
    _reshape:       (lambda g, out, x, shape: reshape(g, x.shape),),
    np.swapaxes:    (lambda g, out, x, axis1, axis2: swapaxes(g, axis1, axis2),),
    np.broadcast_to: (lambda g, out, x, shape: g,),
    np.asarray:     (lambda g, out, x, dtype: g,),
    _getitem:       (lambda g, out, x, index: apply(_scatter, g, index=index, shape=x.shape),),
    _scatter:       (lambda g, out, x, index, shape: g[index],),
    np.take_along_axis: (_take_vjp,),
    _concatenate:   lambda i: lambda g, out, *xs, axis: _piece(g, xs, i, axis),
    _stack:         lambda i: lambda g, out, *xs, axis: _along(g, i, axis),
}
# fmt: on


# --- The backward pass ---
def _between(output, wanted):
    """{id: Tensor} on the ways from the `wanted` ids to `output`, both included, each after its inputs."""
    found, seen, stack = {}, set(), [(output, False)]
    while stack:
        node, inputs_are_done = stack.pop()
        if inputs_are_done:
            if id(node) in wanted or any(id(x) in found for x in node.inputs):
                found[id(node)] = node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((x, False) for x in node.inputs if isinstance(x, Tensor))
    return found


def _conform(g, x):
    """Undo broadcasting: sum g over the axes along which x was repeated; and take x's dtype."""
    if g.dtype != x.dtype:
        g = apply(np.asarray, g, dtype=x.dtype)
    if g.shape == x.shape:
        return g
    extra = g.ndim - x.ndim
    ones = tuple(i for i in range(g.ndim) if i < extra or x.shape[i - extra] == 1)
    return reshape(sum(g, ones), x.shape)


def grad(output, inputs, grad_output=None, create_graph=False):
    """The gradient of `output` with respect to `inputs`.

    output: Tensor, scalar unless grad_output (array or Tensor of its shape) gives the adjoint to start from.
    inputs: a Tensor, or a list of them; one that `output` does not depend on gets zeros.
    create_graph: record the backward pass, so that the result can be differentiated again.
    Returns a list of Tensors of the inputs' shapes and dtypes; for a single Tensor, a single one.
    Raises ValueError for a shape that does not fit, TypeError for an input that is not a Tensor.
    """
    single = isinstance(inputs, Tensor)
    inputs = [inputs] if single else list(inputs)
    for x in inputs:
        if not isinstance(x, Tensor):
            raise TypeError(
                f"grad needs Tensors to differentiate with respect to, not {type(x).__name__}"
            )
    output = output if isinstance(output, Tensor) else Tensor(output)
    if grad_output is None and output.ndim > 0:
        raise ValueError(
            f"grad of an output of shape {output.shape} needs grad_output, its adjoint"
        )
    g = np.ones((), output.dtype) if grad_output is None else _operand(grad_output)
    if g.shape != output.shape:
        raise ValueError(f"grad_output has shape {g.shape}, the output has shape {output.shape}")

    recorded = (lambda x: x) if create_graph else _value
    adjoints, wanted = {id(output): _conform(recorded(g), output)}, {id(x) for x in inputs}
    between = _between(output, wanted)
    for key, node in reversed(between.items()):
        g = adjoints[key] if key in wanted else adjoints.pop(key)
        out, values = recorded(node), [recorded(x) for x in node.inputs]
        for i, x in enumerate(node.inputs):
            if id(x) in between:
                vjps = VJPS[node.function]
                vjp = vjps[i] if isinstance(vjps, tuple) else vjps(i)
                adjoint = _conform(vjp(g, out, *values, **node.options), x)
                adjoints[id(x)] = adjoints[id(x)] + adjoint if id(x) in adjoints else adjoint
    found = [adjoints.get(id(x), np.zeros_like(x.data)) for x in inputs]
    found = [g if isinstance(g, Tensor) else Tensor(np.array(g)) for g in found]
    return found[0] if single else found


def hvp(f, x, v):
    """The product of the Hessian of the scalar function f at x with the vector v, without the Hessian.

    For an array x an array; for a Tensor x a Tensor, which can be differentiated again.
    """
    leaf = x if isinstance(x, Tensor) else Tensor(x)
    slope = grad(f(leaf), leaf, create_graph=True)
    product = grad(slope, leaf, grad_output=v, create_graph=leaf is x)
    return product if leaf is x else product.data


def check_grads(f, x, order=2, rng=None):
    """Hold the derivatives of f at x, up to `order`, against central differences in a random direction.

    f: function of Tensors to a Tensor of any shape; x: an array, or a tuple of arrays for several arguments.
    The differences are taken in float64 also for float32 arguments. Raises AssertionError if they disagree.
    """
    rng = rng or np.random.default_rng(0)
    leaves = [Tensor(a) for a in (x if isinstance(x, tuple) else (x,))]
    out = f(*leaves)
    w, v = rng.standard_normal(out.shape), [rng.standard_normal(a.shape) for a in leaves]

    def slope(
        *tensors,
    ):  # the derivative of sum(w * f) along v, itself a function that can be checked
        gradients = grad(f(*tensors), tensors, grad_output=w, create_graph=True)
        return sum(stack([sum(g * d) for g, d in zip(gradients, v, strict=True)]))

    gradients = grad(out, leaves, grad_output=w)
    for g, a in zip(gradients, leaves, strict=True):
        assert (g.dtype, g.shape) == (a.dtype, a.shape), (
            f"gradient {g.dtype}{g.shape}, x {a.dtype}{a.shape}"
        )
    terms = np.concatenate([np.ravel(g.data * d) for g, d in zip(gradients, v, strict=True)])
    steps = [
        [Tensor(a.data + h * d) for a, d in zip(leaves, v, strict=True)] for h in (1e-5, -1e-5)
    ]
    ahead, behind = (np.sum(w * _value(f(*step))) for step in steps)
    precision = 1e-6 if all(a.dtype == np.float64 for a in leaves) else 1e-3
    for name, value in (
        ("differences", (ahead - behind) / 2e-5),
        ("create_graph", slope(*leaves).data),
    ):
        error = abs(terms.sum() - value)
        assert error <= precision * (1 + np.abs(terms).sum()), (
            f"{terms.sum()} by grad, {value} by {name}"
        )
    if order > 1:
        check_grads(slope, tuple(leaves), order - 1, rng)
