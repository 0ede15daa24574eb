"""python -m golden --check: recompute the vectors, and name each field that differs. --write:
write them anew.
"""

import argparse
import sys

from . import kit


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m golden", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--check",
        action="store_true",
        help="exit status 1, and a line for each field, if any differs",
    )
    action.add_argument(
        "--write",
        action="store_true",
        help="compute and check the vectors, and write golden/*.json",
    )
    problems = kit.write() if parser.parse_args(argv).write else kit.check()
    print(*problems, sep="\n", end="\n" if problems else "")
    cases, fields, size = kit.census()
    print(
        f"{cases} vectors, {fields} fields, {size / 1e6:.2f} MB: {len(problems) or 'none'} differ",
        file=sys.stderr,
    )
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
