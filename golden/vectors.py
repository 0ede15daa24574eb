"""What a vector is: its form as JSON, the noise that it records, and when two values agree."""

import inspect
import json
import math
import re
import sys
from dataclasses import dataclass

import numpy as np

from .exact import exact, rounded

FORMAT = {"format": "metarl golden vectors", "version": 1}


@dataclass
class Case:
    """One vector before it is computed.

    function     name in the stage's table FUNCTIONS, of what computes it and what checks it
    why          what it is there for, in a sentence
    checked_by   what else than the project's code gave the same numbers
    inputs       {name: array, number, text, list, ...}
    tolerance    for every field, or {field: tolerance} with "*" for the others
    faults       (what is wrong, edit): `edit(inputs)` gives the fields of a port with that fault
    rejects      the inputs are wrong, and have to be refused
    expected     {field: value} written out by hand, where that is the check
    """

    name: str
    function: str
    why: str
    checked_by: str
    inputs: dict
    tolerance: object = 1e-10
    faults: tuple = ()
    rejects: bool = False
    expected: object = None


# --- Noise ---
class Noise(np.random.Generator):
    """A generator whose methods all ask `draw`, with their name first."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))


for _kind in ("standard_normal", "random", "uniform", "integers", "permutation"):
    setattr(
        Noise, _kind, lambda self, *args, _kind=_kind, **options: self.draw(_kind, *args, **options)
    )


class Recorder(Noise):
    """Takes down what another generator gives, rounded, so that it is short to write;
    the latest is last.

    draws    [{"kind": the method, "values": what it returned}, ...]
    """

    def __init__(self, generator, decimals=3):
        super().__init__()
        self.generator, self.decimals, self.draws = generator, decimals, []

    def draw(self, kind, *args, **options):
        values = np.round(getattr(self.generator, kind)(*args, **options), self.decimals)
        self.draws.append({"kind": kind, "values": values})
        return values


class Replay(Noise):
    """Gives recorded draws back, in their order, whatever is asked for;
    `left` are those to come.
    """

    def __init__(self, draws):
        super().__init__()
        self.left = list(draws)

    def draw(self, kind, *args, **options):
        if not self.left or self.left[0]["kind"] != kind:
            raise LookupError(f"{kind} is asked for, but the record goes on with {self.left[:1]}")
        return self.left.pop(0)["values"]


class Copies(Noise):
    """The draws of another generator, copied: what the program does to them leaves them raw."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def draw(self, kind, *args, **options):
        return np.copy(self.source.draw(kind, *args, **options))[()]


class Streams:
    """Takes the place of metarl.noise_at: gives the noise at each address,
    and takes it down unless it was recorded.

    draws    {"init", "t/tasks", "t/ask", "t/episodes/k": list of draws},
             t the iteration, k the inner step
    name     of the case, which has noise of its own
    """

    def __init__(self, draws=None, name=""):
        self.draws = {} if draws is None else draws
        self.name = name

    def __call__(self, seed, *address):
        what = {0: "tasks", 1: "episodes", 3: "ask"}
        stage, *rest = address
        name = (
            "init"
            if stage == 0
            else f"{rest[0]}/{what[rest[1]]}" + (f"/{rest[3]}" if len(rest) > 3 else "")
        )
        if rest[2:3] not in ([], [0]):
            raise AssertionError("more than one chunk of tasks")
        if name not in self.draws:
            recorder = noise(self.name + name)
            self.draws[name] = recorder.draws
            return Copies(recorder)
        return Copies(Replay(self.draws[name]))


def noise(name, decimals=3):
    """The Recorder for the inputs of the case called `name`:
    those of one case do not depend on the others.
    """
    return Recorder(np.random.default_rng(list(name.encode())), decimals)


def spaced(code):
    """A pattern that finds the code however its lines are broken, but for its own line breaks."""
    pattern = ""
    for token in re.findall(r"^ +|\n *|\w+|[^\w\s]", code):
        if token in ")]}":
            pattern += r",?\s*"  # a formatter puts a comma behind the last of several lines
        elif pattern and token[0] != "\n":
            pattern += r"\s*"
        pattern += re.escape(token)
    return re.compile(pattern)


def slip(oracle, *edits):
    """From the inputs of a case to the fields of a port with a fault.

    They are those of the loop form `oracle`, after (old, new) texts have been replaced in the
    source of its module.
    """
    module = sys.modules[oracle.__module__]
    source = inspect.getsource(module)
    scope = {"__name__": module.__name__, "__package__": module.__package__}
    for old, new in edits:
        source, n = spaced(old).subn(lambda _, new=new: new, source)
        if n != 1:
            raise AssertionError(f"{module.__name__} has {n} times {old!r}")
    exec(source, scope)  # noqa: S102 - the source is our own
    return lambda inputs: rounded(scope[oracle.__name__](**exact(inputs)))


# --- JSON ---
def encode(x):
    """As JSON has it: an array is {"shape", "data" row by row},
    and numbers that are not finite are texts.
    """
    if isinstance(x, dict):
        return {name: encode(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [encode(value) for value in x]
    if isinstance(x, np.ndarray) and x.ndim:
        return {"shape": list(x.shape), "data": [encode(value) for value in x.ravel().tolist()]}
    if isinstance(x, (np.generic, np.ndarray)):
        x = x.item()
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def decode(x):
    if isinstance(x, dict) and x.keys() == {"shape", "data"}:
        data = [decode(value) for value in x["data"]]
        return np.array(data, None if data else float).reshape(x["shape"])
    if isinstance(x, dict):
        return {name: decode(value) for name, value in x.items()}
    if isinstance(x, list):
        return [decode(value) for value in x]
    return float(x) if isinstance(x, str) and x in ("inf", "-inf", "nan") else x


def dump(x, depth=0):
    """JSON text of what `encode` returned: a line for each entry,
    but arrays and what is small on one line.
    """
    line = json.dumps(x, allow_nan=False)
    if (
        len(line) <= 110 - 2 * depth
        or not isinstance(x, (dict, list))
        or "data" in x
        or not isinstance(x, (dict, list))
    ):
        return line
    indent = "\n" + "  " * (depth + 1)
    if isinstance(x, dict):
        rows = [f"{json.dumps(name)}: {dump(value, depth + 1)}" for name, value in x.items()]
        return "{" + indent + ("," + indent).join(rows) + "\n" + "  " * depth + "}"
    return (
        "["
        + indent
        + ("," + indent).join(dump(value, depth + 1) for value in x)
        + "\n"
        + "  " * depth
        + "]"
    )


# --- Comparison ---
def difference(got, want, tolerance):
    """None where the two agree, else what differs, in words.

    They agree if the shapes do, and no element is off by more than tolerance times the largest
    finite |element| of `want` (1 if there is none but zeros); infinite elements, NaN, texts and
    whole numbers have to be the same.
    """
    if isinstance(want, (str, list, dict)):
        return None if got == want else f"{got!r} instead of {want!r}"
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return f"shape {got.shape} instead of {want.shape}"
    if want.dtype.kind in "bi" or got.dtype.kind in "bi":
        off = got != want
    else:
        finite = np.isfinite(want)
        scale = np.abs(want[finite]).max(initial=0) or 1.0
        with np.errstate(invalid="ignore"):
            close = np.abs(got - want) <= tolerance * scale
        off = ~np.where(finite, close, (got == want) | (np.isnan(got) & np.isnan(want)))
    if not off.any():
        return None
    i = tuple(int(k) for k in np.argwhere(off)[0])
    where = f"[{', '.join(map(str, i))}]" if i else ""
    count = f"{off.sum()} of {off.size} off by more than {tolerance:g} of the largest"
    return f"{where} {got[i].item()!r} instead of {want[i].item()!r}, {count}".strip()
