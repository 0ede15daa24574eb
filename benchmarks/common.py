"""What several benchmarks share: command line, training to the end, jobs side by side, intervals.

A benchmark is one file that `python -m benchmarks.NAME` runs; none of them needs more than this.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import metarl
from harness.results import interval

PROCESSES = 2  # that work side by side


def parser(text):
    """A command line whose --help is `text`, the benchmark's own docstring, as it stands."""
    as_it_stands = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=text, formatter_class=as_it_stands)


def train(c):
    """theta after all iterations of the setting c."""
    return train_from(c, metarl.initial_state(c))


def train_from(c, state):
    """The same from a state of one's own."""
    states = metarl.train(c, state)
    last = next(islice(states, c.iterations - 1, None))
    return last["theta"]


def side_by_side(f, jobs):
    """f(*job) of each job, a tuple, in their order and as soon as it is there; in processes."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        yield from pool.map(f, *zip(*jobs, strict=True))


# --- Means with their 95 % intervals, by Student's t ---
def mean_and_half(samples):
    """The mean of samples (n,) and the half width of its interval, two floats."""
    both = interval(samples[:, None])
    return both["mean"].item(), both["ci95"].item()


def in_columns(texts, width):
    """The texts side by side, each at the right of `width` columns."""
    return "".join(f"{text:>{width}}" for text in texts)
