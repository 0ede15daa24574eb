"""What a run says: `say` and `progress` on standard error, `show` on standard output.

Words are a courtesy. Whoever reads them may be gone: a stream that was closed from the beginning is
None in Python, a terminal that has gone away or a full disk raises OSError. That never ends a run.
Results are more than a courtesy: that they cannot be shown is said, once they are safe.
"""

import contextlib
import errno
import os
import shlex
import shutil
import subprocess
import sys
import time

from harness.checkpoints import Stop

GONE = (errno.EPIPE, errno.EIO)  # the errors of a pipe, and of a terminal, that nobody reads
ASCII = str.maketrans("▁▂▃▄▅▆▇█·┌┐└┘─│", "_.:-=+*#.++++-|")
UP = "\033[F"  # the cursor goes to the beginning of the line above
ERASE = "\033[K"  # what is right of the cursor


def say(line):
    """Print a line on standard error, if there is anybody to read it."""
    if sys.stderr is not None:  # print(file=None) would take standard output
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def show(text):
    """Print results on standard output. Stop(2) where they cannot be written.

    It is no error that nobody reads them, or not to their end: `>&-`, `| head -1`, a terminal that
    has gone away.
    """
    if sys.stdout is None:
        return
    try:
        print(printable(text, sys.stdout.encoding), flush=True)
    except OSError as error:
        if error.errno not in GONE:
            raise Stop(2, f"standard output: {error.strerror}") from None


def printable(text, encoding):
    """The text, in ASCII if the encoding (None: UTF-8) does not have all its characters."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        text = text.replace(" ± ", "+/-").translate(ASCII)
        return text.encode(encoding, "replace").decode(encoding)


def progress(c, first, quiet):
    """A function of the state that reports on standard error, from iteration `first` on.

    On a terminal it is one line, written again and again; else there is one every few seconds.
    """
    live = rewrites_lines()
    pause = 0.1 if live else 5  # seconds
    start = time.perf_counter()
    shown = start
    above = ""  # leads back to the line that was shown before

    def report(state):
        nonlocal shown, above
        now = time.perf_counter()
        t = int(state["t"])
        last = t == c.iterations
        if quiet or (now - shown < pause and not last):
            return
        shown = now
        rate = (t - first) / (now - start)
        left = (c.iterations - t) / rate
        returns = f"{state['pre']:.2f} in the first episodes, {state['post']:.2f} in the last"
        line = f"{c.algo} {t}/{c.iterations}, {left:.0f} s left: return {returns}, "
        line += f"{rate:.1f} iterations/s"
        if live:
            columns = shutil.get_terminal_size().columns
            line = f"{above}{line[: columns - 1]}{ERASE}"
            above = UP
        say(line)

    return report


def rewrites_lines():
    """Whether standard error is a terminal on which a line can be written again."""
    dumb = os.environ.get("TERM") == "dumb"
    return sys.stderr is not None and sys.stderr.isatty() and not dumb


def quoted(path):
    """The path as a word of a command that can be pasted into a shell."""
    word = str(path)
    if word.startswith("-"):  # or it would be taken for an option
        word = os.path.join(os.curdir, word)
    if os.name == "nt":
        return subprocess.list2cmdline([word])
    return shlex.quote(word)
