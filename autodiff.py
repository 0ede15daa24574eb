"""Reverse-mode automatic differentiation on NumPy arrays, to any order.

How to read it, from top to bottom:

1. `Tensor` holds an array and remembers the function and the inputs that made it: the graph.
2. `apply`, through which all operations go, calls a function of arrays, and records the call if an
   input is a Tensor. Plain arrays are constants: arrays in, array out, no graph.
3. The operations: what this module offers, a line or two each.
4. `VJPS` is the whole of calculus here: one line per function and argument.
5. `grad` walks the graph backwards and looks each step up in the table.
6. `hvp`, a Hessian times a vector, and `check_grads`, which holds derivatives against differences.

What it calls on arrays is NumPy's or, where NumPy has none, from arrays.py: read that after this
file, or not at all.

The table is written in the operations of this module: given arrays it computes, given Tensors it
records. So `grad(..., create_graph=True)` returns gradients that can be differentiated again:
MAML's second-order term needs no second mechanism (Griewank & Walther 2008, chapter 5).
A graph has no cycles of references and nothing is stored on the inputs: it is freed as soon as it
is let go. Indices and masks are copied. Other arrays are not, nor is the data of a Tensor, leaf or
result: do not change one in place before the last `grad` through it. Where a row of the table uses
it, the gradient would be wrong in silence.

In this module `sum` and `max` are its own operations, not Python's.
Conventions where a derivative does not exist: `relu` has slope 0 at 0; `maximum`, `minimum` and
`max` share the adjoint equally among ties; `clip` has slope 1 at its bounds. Where one of these is
NaN, its derivative is NaN too. The derivative of x**y by y is 0 at x = 0 for y >= 0, and NaN for
x < 0. `logsumexp` of -inf everywhere is -inf, with derivative NaN.
"""

import numpy as np

import arrays


def _refused(what, instead):
    """A method that raises TypeError: what would go wrong in silence, and what to write instead."""

    def method(self, *_, **__):
        raise TypeError(f"{what}: write {instead}")

    return method


class Tensor:
    """An array whose history is recorded.

    data: array of floating-point numbers (integers and booleans become float64). It is not copied:
    changed in place after it was used, it makes the gradients wrong in silence.
    function, inputs, options: what made it, data = function(*inputs, **options); None for a leaf.
    Supports + - * / ** @ [] among Tensors, arrays and numbers; shapes and dtypes go as in NumPy.
    """

    __slots__ = ("data", "function", "inputs", "options")
    __array_priority__ = 1  # above that of arrays: array + Tensor asks Tensor.__radd__

    def __init__(self, data, function=None, inputs=(), options=None):
        if isinstance(data, Tensor):
            raise TypeError("Tensor(x) would forget how x was made: write x, or stop_gradient(x)")
        self.data = arrays.floating(data)
        self.function = function
        self.inputs = inputs
        self.options = options

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    dtype = property(lambda self: self.data.dtype)

    # fmt: off
    def __repr__(self): return f"Tensor({self.data!r})"
    def __len__(self): return len(self.data)
    def __iter__(self): return (self[i] for i in range(len(self)))
    def __getitem__(self, index): return apply(arrays.getitem, self, index=_copied(index))
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

    def reshape(self, *shape):
        """x.reshape(2, 3) or x.reshape((2, 3))."""
        if len(shape) == 1:
            shape = shape[0]
        return reshape(self, shape)

    # As a key of a dictionary or in a set, each Tensor equals itself alone.
    __hash__ = object.__hash__
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refused(
        "comparisons have no derivative",
        "x.data > 0 for x > 0, x.data == y for x == y, x is y for the same Tensor",
    )
    __bool__ = _refused("a Tensor is neither true nor false", "bool(x.data)")
    __float__ = __int__ = _refused(
        "a Python number would forget how the Tensor was made",
        "this module's exp(x) for math.exp(x), or float(x.data)",
    )
    # NumPy's functions, given a Tensor, ask it for an array: np.exp(x), np.array([x, y]).
    __array__ = _refused(
        "NumPy would forget how the Tensor was made",
        "this module's exp(x) for np.exp(x) etc., stack([x, y]) for np.array([x, y]), or x.data",
    )


def value(x):
    """The array of a Tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x


def apply(function, *inputs, **options):
    """Call `function(*inputs, **options)` on the values; record it if an input is a Tensor.

    Inputs can be differentiated by, options (axes, shapes, indices) cannot. Returns a Tensor if it
    is recorded, else an array. Raises NumPy's error with the function's name and the shapes.
    """
    values = [value(x) for x in inputs]
    try:
        out = function(*values, **options)
    except (ValueError, IndexError) as error:
        name = function.__name__.strip("_")
        shapes = " and ".join(str(np.shape(x)) for x in values)
        raise type(error)(f"{name} of {shapes}: {error}") from None
    for x in inputs:
        if isinstance(x, Tensor):
            return Tensor(out, function, inputs, options)
    return out


# --- Operations, on Tensors or arrays ---
# As NumPy's functions of the same names; what NumPy does not have says what it is.


# fmt: off
def exp(x): return apply(np.exp, x)
def log(x): return apply(np.log, x)
def sqrt(x): return apply(np.sqrt, x)
def tanh(x): return apply(np.tanh, x)
def relu(x): return apply(arrays.relu, x)  # max(x, 0)
def sigmoid(x): return apply(arrays.sigmoid, x)  # 1 / (1 + exp(-x))
def softplus(x): return apply(arrays.softplus, x)  # log(1 + exp(x))
def maximum(a, b): return apply(np.maximum, a, b)
def minimum(a, b): return apply(np.minimum, a, b)
def sum(x, axis=None, keepdims=False): return apply(arrays.sum, x, axis=axis, keepdims=keepdims)
def max(x, axis=None, keepdims=False): return apply(np.max, x, axis=axis, keepdims=keepdims)
def reshape(x, shape): return apply(arrays.reshape, x, shape=shape)
def swapaxes(x, axis1, axis2): return apply(np.swapaxes, x, axis1=axis1, axis2=axis2)
def broadcast_to(x, shape): return apply(np.broadcast_to, x, shape=shape)
def stack(xs, axis=0): return apply(arrays.stack, *xs, axis=axis)
# fmt: on


def clip(x, low=-np.inf, high=np.inf):
    """x, where it is between the bounds, else the nearer one. The bounds are constants."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        raise TypeError("clip takes constant bounds: write minimum(maximum(x, low), high)")
    return apply(np.clip, x, a_min=low, a_max=high)


def concatenate(xs, axis=0):
    """The xs one after the other along an axis; where it is None, each of them as a vector."""
    if axis is None:
        return concatenate([reshape(x, -1) for x in xs])
    return apply(arrays.concatenate, *xs, axis=axis)


def take_along_axis(x, indices, axis):
    """The elements that `indices` name in each row of x; where axis is None, x is one row."""
    if axis is None:
        return take_along_axis(reshape(x, -1), indices, 0)
    indices = np.array(indices)  # a copy, as in `_copied`
    return apply(np.take_along_axis, x, indices=indices, axis=axis)


def mean(x, axis=None, keepdims=False):
    """The mean over an axis, several, or all."""
    total = sum(x, axis, keepdims)
    sums = np.size(value(total))
    terms_in_each = np.size(value(x)) / (sums or 1)
    return total / terms_in_each


def logsumexp(x, axis=None, keepdims=False):
    """log sum exp(x), without overflow; of nothing -inf."""
    return apply(arrays.logsumexp, x, axis=axis, keepdims=keepdims)


def log_softmax(x, axis=-1):
    """x - logsumexp(x): the logarithms of the probabilities whose logits are x."""
    return apply(arrays.log_softmax, x, axis=axis)


def where(condition, a, b):
    """Select a where `condition` (an array) holds, b elsewhere.

    The branch not taken gets an exact zero, selected and not multiplied: an infinite or NaN value
    there never crosses. But sqrt(x) in that branch has a derivative of its own, inf at x = 0, and 0
    * inf is NaN: so guard the argument too: `where(x.data > 0, sqrt(where(x.data > 0, x, 1)), 0)`.
    """
    condition = np.array(value(condition), bool)  # a copy, as in `_copied`
    return apply(arrays.where, a, b, condition=condition)


def stop_gradient(x):
    """The same value, without history."""
    return Tensor(x.data) if isinstance(x, Tensor) else x


def matmul(a, b):
    """The matrix product, with 1-D and batched operands as NumPy takes them."""
    a = _array_or_tensor(a)
    b = _array_or_tensor(b)
    summed_in_a = a.shape[-1:]
    summed_in_b = b.shape[-2:-1]
    if b.ndim == 1:
        summed_in_b = b.shape
    if summed_in_a != summed_in_b:
        raise ValueError(f"matmul of {a.shape} and {b.shape}: the axis to sum over has two lengths")
    # A vector is a matrix with one row or one column, which is taken away again.
    if b.ndim == 1:
        return matmul(a, b[:, None])[..., 0]
    if a.ndim == 1:
        return matmul(a[None], b)[..., 0, :]
    # Many matrices times one: the rows of all of them in one large product. So the adjoint of b
    # comes as one matrix, and not as a batch of them that has to be summed.
    if a.ndim > 2 and b.ndim == 2 and b.shape[0]:
        rows = reshape(a, (-1, b.shape[0]))
        return reshape(matmul(rows, b), (*a.shape[:-1], b.shape[1]))
    return apply(np.matmul, a, b)


def affine(x, w, b):
    """x @ w + b, a layer of a network. x (..., n, i), w (..., i, o), b (..., 1, o).

    b has no wider dtype than x @ w.
    """
    return apply(arrays.affine, x, w, b)


def tanh_(x):
    """tanh in the memory of x, whose value is lost: faster.

    Only for an x that no derivative needs, such as the output of `affine`: of the rows of the table
    for `affine` none uses `out`.
    """
    return apply(arrays.tanh_, x)


def relu_(x):
    """relu in the memory of x, as `tanh_`."""
    return apply(arrays.relu_, x)


# --- What they need ---


def _array_or_tensor(x):
    return x if isinstance(x, Tensor) else np.asarray(x)


def _copied(index):
    """A copy of an index to be recorded: the caller may change his own before `grad` needs it."""
    if isinstance(index, (tuple, list)):
        return type(index)(map(_copied, index))
    if isinstance(index, np.ndarray):
        return index.copy()
    return index


# --- What the rows of the table are made of ---


def _with_kept_axes(g, x, axis):
    """Give g, which was reduced from x over `axis`, the reduced axes back with length 1."""
    shape = list(np.shape(x))
    if axis is None or not shape:  # all axes; NumPy lets a number be reduced over "axis 0"
        axes = range(len(shape))
    else:
        axes = np.atleast_1d(axis)
    for i in axes:
        shape[i] = 1
    return reshape(g, tuple(shape))


def _select(chosen, g, out):
    """g where it was chosen, else 0; but NaN where `out` is NaN, which must not vanish.

    Selected and not multiplied, so that an infinite g never crosses where it was not chosen.
    """
    zero_or_nan = np.where(np.isnan(value(out)), value(out), 0)
    return where(chosen, g, zero_or_nan)


def _max_vjp(g, out, x, axis, keepdims):
    """The adjoint goes to the largest element; equal ones share it."""
    out = _with_kept_axes(out, x, axis)
    ties = value(x) == value(out)
    count = np.sum(ties, axis=axis, keepdims=True, dtype=x.dtype)
    return _select(ties, _with_kept_axes(g, x, axis) / count, out)


def _larger_vjp(g, out, a, b):
    """The part of g, the adjoint of max(a, b), that belongs to a: all, half (a tie) or nothing."""
    tie = value(a) == value(b)
    return where(value(a) > value(b), g, _select(tie, 0.5 * g, out))


def _base_vjp(g, x, y):
    """g * y * x**(y - 1).

    At x = y = 0 that would be 0 * 0**-1 = NaN: there the exponent is 0, not -1.
    """
    if isinstance(y, (list, tuple)):
        y = np.array(y)
    zero = value(y) == 0
    if isinstance(y, Tensor):  # to be differentiated by y again: as it is where x is not 0
        zero = zero & (value(x) == 0)
    return g * y * x ** (y - 1 + zero)


def _exponent_vjp(g, out, x):
    """g * x**y * log(x): at x = 0 its limit for y > 0, which is 0; NaN for x < 0."""
    one = np.ones((), out.dtype)
    return g * out * log(where(np.equal(value(x), 0), one, x))


def _along(x, index, axis):
    """x[:, :, ..., index, ...], with the index at `axis`."""
    before = (slice(None),) * (axis % x.ndim)
    return x[(*before, index)]


def _piece_vjp(g, xs, i, axis):
    """The part of g, the adjoint of the concatenation of the xs, that belongs to xs[i]."""
    lengths = [np.shape(x)[axis] for x in xs]
    stop = np.cumsum(lengths)[i]
    return _along(g, slice(stop - lengths[i], stop), axis)


def _take_vjp(g, out, x, indices, axis):
    """Of take_along_axis, written as an index array for each axis: x[i, indices, k]."""
    index = list(np.ogrid[tuple(slice(n) for n in x.shape)])
    index[axis] = indices
    return apply(arrays.scatter, g, index=tuple(index), shape=x.shape)


# --- The table ---
# For each function a row for each argument: from g, the adjoint of `out`, to the adjoint of the
# argument (a vector-Jacobian product). The arguments follow, then the options by their names.
# Where NumPy has broadcast an argument, the adjoint still has the shape of `out`: `grad` sums it
# back to the argument's shape (`_unbroadcast`), so that no row has to.
# For functions of any number of arguments (at the end) the rows are one function of the index i.

# fmt: off
VJPS = {
    np.negative:     (lambda g, out, x: -g,),
    np.add:          (lambda g, out, a, b: g,
                      lambda g, out, a, b: g),
    np.subtract:     (lambda g, out, a, b: g,
                      lambda g, out, a, b: -g),
    np.multiply:     (lambda g, out, a, b: g * b,
                      lambda g, out, a, b: g * a),
    np.divide:       (lambda g, out, a, b: g / b,
                      lambda g, out, a, b: -g * out / b),
    np.power:        (lambda g, out, x, y: _base_vjp(g, x, y),
                      lambda g, out, x, y: _exponent_vjp(g, out, x)),
    np.exp:          (lambda g, out, x: g * out,),
    np.log:          (lambda g, out, x: g / x,),
    np.sqrt:         (lambda g, out, x: 0.5 * g / out,),
    # tanh' = 1 - tanh^2. `tanh_slope` is (h, y) -> h (1 - y^2): its slopes are 1 - y^2 and -2 h y.
    np.tanh:         (lambda g, out, x: apply(arrays.tanh_slope, g, out),),
    arrays.tanh_:    (lambda g, out, x: apply(arrays.tanh_slope, g, out),),
    arrays.tanh_slope: (lambda g, out, h, y: apply(arrays.tanh_slope, g, y),
                      lambda g, out, h, y: g * h * y * -2),
    # Where relu is not above 0 it is 0, or NaN: so is its adjoint.
    arrays.relu:     (lambda g, out, x: where(value(out) > 0, g, value(out)),),
    arrays.relu_:    (lambda g, out, x: where(value(out) > 0, g, value(out)),),
    arrays.sigmoid:  (lambda g, out, x: g * out * sigmoid(-x),),
    arrays.softplus: (lambda g, out, x: g * sigmoid(x),),
    np.maximum:      (lambda g, out, a, b: _larger_vjp(g, out, a, b),
                      lambda g, out, a, b: _larger_vjp(g, out, b, a)),
    np.minimum:      (lambda g, out, a, b: _larger_vjp(g, out, b, a),
                      lambda g, out, a, b: _larger_vjp(g, out, a, b)),
    np.clip:         (lambda g, out, x, a_min, a_max:
                        _select(value(out) == value(x), g, out),),
    arrays.where:    (lambda g, out, a, b, condition: where(condition, g, 0),
                      lambda g, out, a, b, condition: where(condition, 0, g)),
    # Matrix products: where out = a b, the adjoint of a is g b^T and that of b is a^T g.
    np.matmul:       (lambda g, out, a, b: matmul(g, swapaxes(b, -1, -2)),
                      lambda g, out, a, b: matmul(swapaxes(a, -1, -2), g)),
    arrays.affine:   (lambda g, out, x, w, b: matmul(g, swapaxes(w, -1, -2)),
                      lambda g, out, x, w, b: apply(arrays.transposed_matmul, x, g),
                      lambda g, out, x, w, b: g),
    # x^T g as one function: no transpose is recorded, nor its adjoint.
    arrays.transposed_matmul: (
        lambda g, out, x, y: matmul(y, swapaxes(g, -1, -2)),
        lambda g, out, x, y: matmul(x, g)),
    # Reductions: every element that went into a sum gets its adjoint.
    arrays.sum:      (lambda g, out, x, axis, keepdims:
                        broadcast_to(_with_kept_axes(g, x, axis), x.shape),),
    np.max:          (_max_vjp,),
    arrays.logsumexp: (lambda g, out, x, axis, keepdims:
                        _with_kept_axes(g, x, axis) * apply(arrays.softmax, x, axis=axis),),
    arrays.softmax:  (lambda g, out, x, axis:
                        out * (g - sum(g * out, axis, keepdims=True)),),
    arrays.log_softmax: (lambda g, out, x, axis:
                        g - exp(out) * sum(g, axis, keepdims=True),),
    # Other shapes and other types: the elements go back to where they came from.
    arrays.reshape:  (lambda g, out, x, shape: reshape(g, x.shape),),
    np.swapaxes:     (lambda g, out, x, axis1, axis2: swapaxes(g, axis1, axis2),),
    np.broadcast_to: (lambda g, out, x, shape: g,),
    np.asarray:      (lambda g, out, x, dtype: g,),
    arrays.getitem:  (lambda g, out, x, index:
                        apply(arrays.scatter, g, index=index, shape=x.shape),),
    arrays.scatter:  (lambda g, out, x, index, shape: g[index],),
    np.take_along_axis: (_take_vjp,),
    arrays.concatenate: lambda i: lambda g, out, *xs, axis: _piece_vjp(g, xs, i, axis),
    arrays.stack:    lambda i: lambda g, out, *xs, axis: _along(g, i, axis),
}
# fmt: on


# --- The backward pass ---


def grad(output, inputs, grad_output=None, create_graph=False):
    """The gradient of `output` with respect to `inputs`.

    output: Tensor, scalar unless grad_output (array or Tensor of its shape) gives the adjoint to
    start from.
    inputs: a Tensor, or a list of them; one that `output` does not depend on gets zeros.
    create_graph: record the backward pass, so that the result can be differentiated again.
    Returns a list of Tensors of the inputs' shapes and dtypes; for a single Tensor, a single one.
    Raises ValueError for a shape that does not fit, TypeError for an input that is not a Tensor.
    """
    single = isinstance(inputs, Tensor)
    inputs = [inputs] if single else list(inputs)
    output, g = _checked(output, inputs, grad_output)

    # First or higher order is decided here. The table is written in the operations of this module.
    # If it is given Tensors, what it computes is recorded: the gradient is a function of the inputs
    # again. If it is given the bare arrays, the same lines compute a constant.
    def operand(x):
        return x if create_graph else value(x)

    nodes = _nodes_between(inputs, output)
    wanted = {id(x) for x in inputs}
    adjoints = {id(output): _unbroadcast(operand(g), output)}
    for key, node in reversed(nodes.items()):
        # All that depends on the node has been visited: its adjoint is complete.
        g = adjoints[key]
        if key not in wanted:  # one that is wanted can lie in the middle of the graph
            del adjoints[key]
        out = operand(node)
        values = [operand(x) for x in node.inputs]
        for i, x in enumerate(node.inputs):
            if id(x) not in nodes:  # a constant, or a way that leads to no input
                continue
            adjoint = _vjp(node.function, i)(g, out, *values, **node.options)
            adjoint = _unbroadcast(adjoint, x)
            if id(x) in adjoints:  # x is used more than once: the chain rule adds its uses
                adjoint = adjoints[id(x)] + adjoint
            adjoints[id(x)] = adjoint

    gradients = [_as_tensor(adjoints.get(id(x)), x) for x in inputs]
    return gradients[0] if single else gradients


def _checked(output, inputs, grad_output):
    """`output` as a Tensor and its adjoint; an error where they or the inputs do not fit."""
    for x in inputs:
        if not isinstance(x, Tensor):
            kind = type(x).__name__
            raise TypeError(f"grad needs Tensors to differentiate with respect to, not {kind}")
    if not isinstance(output, Tensor):
        output = Tensor(output)
    if grad_output is None:
        if output.ndim > 0:
            shape = output.shape
            raise ValueError(f"grad of an output of shape {shape} needs grad_output, its adjoint")
        return output, np.ones((), output.dtype)
    g = _array_or_tensor(grad_output)
    if g.shape != output.shape:
        raise ValueError(f"grad_output has shape {g.shape}, the output has shape {output.shape}")
    return output, g


def _nodes_between(inputs, output):
    """{id: Tensor} on the ways from the inputs to the output, both included.

    In topological order: each one after what it was made of. A stack takes the place of recursion,
    which Python limits to some thousand levels: each node is put on it a second time below its
    inputs, and comes up again when all of them are done.
    """
    wanted = {id(x) for x in inputs}
    nodes = {}
    seen = set()
    stack = [(output, False)]
    while stack:
        node, inputs_are_done = stack.pop()
        if inputs_are_done:
            if id(node) in wanted or any(id(x) in nodes for x in node.inputs):
                nodes[id(node)] = node
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            for x in node.inputs:
                if isinstance(x, Tensor):
                    stack.append((x, False))
    return nodes


def _vjp(function, i):
    """The row of the table for argument i of the function."""
    rows = VJPS[function]
    if isinstance(rows, tuple):
        return rows[i]
    return rows(i)


def _unbroadcast(g, x):
    """Undo broadcasting: sum g over the axes along which x was repeated; and take x's dtype."""
    if g.dtype != x.dtype:
        g = apply(np.asarray, g, dtype=x.dtype)
    if g.shape == x.shape:
        return g
    added = g.ndim - x.ndim  # NumPy adds axes on the left, and stretches those of length 1
    repeated = [i for i in range(g.ndim) if i < added or x.shape[i - added] == 1]
    return reshape(sum(g, tuple(repeated)), x.shape)


def _as_tensor(adjoint, x):
    """The gradient by x as a Tensor, zeros if there is no adjoint. A constant one is copied."""
    if isinstance(adjoint, Tensor):
        return adjoint
    if adjoint is None:
        return Tensor(np.zeros_like(x.data))
    return Tensor(np.array(adjoint))


def hvp(f, x, v):
    """The product of the Hessian of the scalar function f at x with the vector v.

    The Hessian is never formed: it is the gradient of the number grad f . v, with v held constant.
    For an array x an array; for a Tensor x a Tensor, which can be differentiated again.
    """
    if isinstance(x, Tensor):
        slope = grad(f(x), x, create_graph=True)
        return grad(slope, x, grad_output=v, create_graph=True)
    leaf = Tensor(x)
    slope = grad(f(leaf), leaf, create_graph=True)
    return grad(slope, leaf, grad_output=v).data


def check_grads(f, x, order=2, rng=None):
    """Hold the derivatives of f at x, up to `order`, against central differences.

    f: function of Tensors to a Tensor of any shape; x: an array, or a tuple of them for several
    arguments. Checked is the derivative of sum(w * f) along v, for random w and v. The differences
    are taken in float64 also for float32 arguments. Raises AssertionError if they disagree, by the
    measure of values of about 1: scale f so, as of much smaller ones any derivative would pass.
    """
    rng = rng or np.random.default_rng(0)
    arguments = x if isinstance(x, tuple) else (x,)
    leaves = [Tensor(value(a)) for a in arguments]
    out = f(*leaves)
    w = rng.standard_normal(out.shape)
    v = [rng.standard_normal(a.shape) for a in leaves]

    def slope(*tensors):  # the derivative along v, itself a function that can be checked
        gradients = grad(f(*tensors), tensors, grad_output=w, create_graph=True)
        return sum(stack([sum(g * d) for g, d in zip(gradients, v, strict=True)]))

    gradients = grad(out, leaves, grad_output=w)
    for g, a in zip(gradients, leaves, strict=True):
        if (g.dtype, g.shape) != (a.dtype, a.shape):
            raise AssertionError(f"gradient {g.dtype}{g.shape}, x {a.dtype}{a.shape}")
    terms = np.concatenate([np.ravel(g.data * d) for g, d in zip(gradients, v, strict=True)])

    h = 1e-5
    ahead = f(*[Tensor(a.data + h * d) for a, d in zip(leaves, v, strict=True)])
    behind = f(*[Tensor(a.data - h * d) for a, d in zip(leaves, v, strict=True)])
    differences = (np.sum(w * value(ahead)) - np.sum(w * value(behind))) / (2 * h)
    exact = all(a.dtype == np.float64 for a in leaves)
    allowed = (1e-6 if exact else 1e-3) * (1 + np.abs(terms).sum())
    for name, other in (("differences", differences), ("create_graph", slope(*leaves).data)):
        if not abs(terms.sum() - other) <= allowed:  # not, so that NaN is refused too
            raise AssertionError(f"{terms.sum()} by grad, {other} by {name}")
    if order > 1:
        check_grads(slope, tuple(leaves), order - 1, rng)
