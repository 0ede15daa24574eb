"""Compute, check and write the vectors of all stages."""

import json
from pathlib import Path

import numpy as np

from . import cases_autodiff, cases_envs, cases_es, cases_policies, cases_runs, cases_steps, jitter
from .exact import digits, exact, rounded
from .vectors import FORMAT, decode, difference, dump, encode

STAGES = (cases_autodiff, cases_envs, cases_policies, cases_steps, cases_es, cases_runs)
FOLDER = Path(__file__).parent
ERRORS = (ValueError, IndexError, TypeError)
ALLOWED = 0.01  # of a tolerance, for what is rounded otherwise


def path(stage, folder=FOLDER):
    return folder / f"{stage.STAGE}.json"


# --- One case ---
def computed(stage, case, inputs):
    """{field: value} by the project's code; None if it refuses the inputs."""
    run, _ = stage.FUNCTIONS[case.function]
    try:
        return run(**inputs)
    except ERRORS:
        if case.rejects:
            return None
        raise


def verified(stage, case, inputs):
    """{field: value} by what else there is:
    expected numbers, or the loop form in decimal arithmetic.
    """
    if case.expected is not None:
        return case.expected
    _, oracle = stage.FUNCTIONS[case.function]
    with digits():
        return rounded(oracle(**exact(inputs)))


def ill_conditioned(stage, case, inputs, got):
    """Lines, one for each field that errors of a few ulps move by more than a hundredth of its
    tolerance: a port that is right could fail there.
    """
    lines = {}
    for seed in jitter.SEEDS:
        with jitter.rounding(seed):
            moved = computed(stage, case, jitter.off(inputs, seed))
        for line in disagreements(case, moved, got, ALLOWED):
            lines.setdefault(line.partition(":")[0], f"{line} (rounded otherwise)")
    return list(lines.values())


def tolerance(case, name):
    if not isinstance(case.tolerance, dict):
        return case.tolerance
    return case.tolerance.get(name, case.tolerance["*"])


def disagreements(case, got, want, share=1.0):
    """Lines, one for each field in which two sets of fields differ."""
    if got is None or want is None:
        if got is not want:
            yield "the inputs are refused" if got is None else "the inputs are not refused"
        return
    names = [*want, *(name for name in got if name not in want)]
    for name in names:
        if name not in got or name not in want:
            yield f"{name}: only one of them has it"
        elif words := difference(got[name], want[name], share * tolerance(case, name)):
            yield f"{name}: {words}"


def faulty(case, words, wrong, right, others=()):
    """Of the fields of a port with a fault those that are a thousand tolerances or more from the
    right ones, and from those of the ports with the other faults of the case.
    """
    for fields in (right, *others):
        wrong = {
            k: v
            for k, v in wrong.items()
            if k not in fields or difference(v, fields[k], 1000 * tolerance(case, k) or 0)
        }
    # Small ones are enough to tell
    wrong = dict(sorted(wrong.items(), key=lambda item: np.size(item[1]))[:3])
    if not wrong:
        raise AssertionError(f"{case.name}: nothing changes, or as elsewhere, where {words}")
    return wrong


def faults_of(case, inputs, right):
    """[{"fault": words, "outputs": the fields that tell it from the others}]"""
    with digits():
        wrongs = [edit(inputs) for _, edit in case.faults]
    entries = []
    for i, (words, _) in enumerate(case.faults):
        others = wrongs[:i] + wrongs[i + 1 :]
        entries.append({"fault": words, "outputs": faulty(case, words, wrongs[i], right, others)})
    return entries


def entry(stage, case):
    """A case as JSON, after its fields have been held against what else gives them."""
    inputs = decode(json.loads(json.dumps(encode(case.inputs), allow_nan=False)))
    fields = computed(stage, case, inputs)
    head = {name: getattr(case, name) for name in ("name", "function", "why", "checked_by")}
    if case.rejects:
        if fields is not None:
            raise AssertionError(f"{case.name}: is not refused")
        return {**head, "rejects": True, "inputs": encode(case.inputs)}
    between = getattr(stage, "INTERMEDIATE", {}).get(case.function, ())
    between = {name: value for name, value in fields.items() if name in between}
    outputs = {name: value for name, value in fields.items() if name not in between}
    wrong = faults_of(case, inputs, fields)
    parts = {"inputs": case.inputs, "intermediate": between, "outputs": outputs}
    parts["tolerance"] = {name: tolerance(case, name) for name in fields}
    return {**head, **encode(parts), **({"faults": encode(wrong)} if wrong else {})}


# --- All of them ---
def text_of(stage):
    """The contents of the file of a stage."""
    return {**FORMAT, "stage": stage.STAGE, "cases": [entry(stage, case) for case in stage.cases()]}


def write(folder=FOLDER):
    """Write all files, unless something else than the project's code gives other numbers:
    returns what then differs.
    """
    texts = [text_of(stage) for stage in STAGES]
    problems = [
        line for stage, text in zip(STAGES, texts, strict=True) for line in check_text(stage, text)
    ]
    if not problems:
        for stage, text in zip(STAGES, texts, strict=True):
            path(stage, folder).write_text(dump(text) + "\n", encoding="utf-8")
    return problems


def check_case(stage, case, old):
    """Lines that say what is wrong with the vector `old`, as the file has it."""
    inputs = decode(old["inputs"])
    got = computed(stage, case, inputs)
    if case.rejects:
        return disagreements(case, got, None)
    want = decode({**old["intermediate"], **old["outputs"]})
    lines = [*disagreements(case, got, want)]
    peer = disagreements(case, verified(stage, case, inputs), want, 0.1)
    lines += [f"{line} (checked by {case.checked_by})" for line in peer]
    return lines + ill_conditioned(stage, case, inputs, got)


def check_text(stage, text):
    if {name: text.get(name) for name in FORMAT} != FORMAT:
        return [f"{stage.STAGE}: not in the format {FORMAT}"]
    old = {case["name"]: case for case in text["cases"]}
    lines = []
    for case in stage.cases():
        found = old.pop(case.name, None)
        if found is None:
            lines.append(f"{case.name}: is not in the file")
        elif any(found[name] != getattr(case, name) for name in ("function", "why", "checked_by")):
            lines.append(f"{case.name}: its words are not those of the file")
        else:
            lines += [f"{case.name}: {line}" for line in check_case(stage, case, found)]
    lines += [f"{name}: is in the file alone" for name in old]
    return [f"{stage.STAGE}: {line}" for line in lines]


def check_stage(stage, folder=FOLDER):
    try:
        text = json.loads(path(stage, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"{stage.STAGE}: {error}"]
    return check_text(stage, text)


def check(folder=FOLDER):
    """Lines that say what in the files differs from what is computed now,
    or from what else gives it.
    """
    return [line for stage in STAGES for line in check_stage(stage, folder)]


def census(folder=FOLDER):
    """Numbers of vectors and of fields, and the size of all files in bytes."""
    files = [path(stage, folder) for stage in STAGES if path(stage, folder).exists()]
    cases = [case for file in files for case in json.loads(file.read_text())["cases"]]
    fields = sum(len(case.get("tolerance", ())) for case in cases)
    return len(cases), fields, sum(file.stat().st_size for file in files)
