"""Command lines for tests: small runs, written as flags."""

from harness.settings import Setting, as_given, ignored
from test_metarl import SMALL


def small(**options):
    """The options of a small run with these, without those that its algorithm ignores."""
    given = SMALL | options
    unused = ignored(Setting(**given))
    return {name: value for name, value in given.items() if name not in unused}


def arguments(**options):
    """The same as flags."""
    flags = []
    for name, value in small(**options).items():
        flags += as_given(name, value).split()
    return flags
