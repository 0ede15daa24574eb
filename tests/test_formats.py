"""The files of a run as others read them: result.json by its schema, log.csv in pandas."""

import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from harness import checkpoints, cli
from harness.settings import Setting
from metarl import ALGORITHMS
from tests.command_line import arguments

PATH = Path(__file__).parents[1] / "docs" / "result-schema.json"
SCHEMA = json.loads(PATH.read_text())
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
KEYWORDS = {"$defs", "$ref", "$schema", "title", "description", "type", "const", "enum", "minimum"}
KEYWORDS |= {"items", "minItems", "properties", "required", "additionalProperties"}


def is_of(value, kind):
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, TYPES[kind])


def faults(value, schema, path="result"):
    """What in a JSON value breaks the schema, as far as the words of ours go: a list of paths."""
    assert schema.keys() <= KEYWORDS, schema.keys() - KEYWORDS
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], path)
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds and not any(is_of(value, kind) for kind in kinds):
        return [path]
    number = isinstance(value, (int, float))
    bad = (
        "const" in schema
        and value != schema["const"]
        or "enum" in schema
        and value not in schema["enum"]
    )
    bad |= number and (not math.isfinite(value) or value < schema.get("minimum", -math.inf))
    bad |= isinstance(value, list) and len(value) < schema.get("minItems", 0)
    found = [path] if bad else []
    if isinstance(value, dict):
        known = schema["properties"]
        found += [f"{path}.{name}" for name in schema["required"] if name not in value]
        found += [f"{path}.{name}" for name in value if name not in known]
        found += [
            x
            for name in value
            if name in known
            for x in faults(value[name], known[name], f"{path}.{name}")
        ]
    if isinstance(value, list):
        found += [
            x for i, item in enumerate(value) for x in faults(item, schema["items"], f"{path}[{i}]")
        ]
    return found


def all_faults(value):
    """`faults`, and if jsonschema is installed it has to agree on whether there are any."""
    found = faults(value, SCHEMA)
    try:
        import jsonschema
    except ImportError:
        return found
    try:
        jsonschema.validate(value, SCHEMA)
        valid = True
    except jsonschema.ValidationError:
        valid = False
    assert valid == (not found), found
    return found


@pytest.fixture(scope="module", params=ALGORITHMS)
def run(request, tmp_path_factory):
    """The directory of a finished run."""
    out = tmp_path_factory.mktemp(request.param)
    options = arguments(algo=request.param, iterations=2)
    compare = ["--compare", "joint"] if request.param in ("maml", "reptile") else []
    assert cli.main([*options, *compare, "--out", str(out), "--quiet"]) == 0
    return out


def test_a_result_keeps_to_its_schema(run):
    result = json.loads((run / "result.json").read_text())
    assert all_faults(result) == []
    steps, held_out = result["config"]["test_steps"] + 1, result["held_out"]
    by_step = [held_out["mean"], held_out["ci95"], *held_out["returns"]]
    by_step += [row for baseline in result["baselines"].values() for row in baseline.values()]
    assert {len(row) for row in by_step} == {steps} and len(held_out["returns"]) == held_out[
        "tasks"
    ]
    assert {name: result[name] for name in ("algo", "env", "policy", "seed")}.items() <= result[
        "config"
    ].items()


def test_what_is_not_known_is_null(run):
    """The optimum of a family that has none, and the interval of a single task."""
    result = json.loads((run / "result.json").read_text())
    result["optimal"] = None
    for row in (result["held_out"], *result["baselines"].values()):
        row["ci95"] = [None for _ in row["ci95"]]
    assert all_faults(result) == []


def described_options():
    """What the schema says of `config`, from the fields of Setting."""
    types = {str: "string", float: "number", int: "integer", bool: "boolean"}
    properties = {}
    for f in fields(Setting):
        kind = {"type": types.get(f.type, "array")}
        if f.type is tuple:
            kind["items"] = {"type": "integer", "minimum": 1}
        elif f.type is str and f.name != "env":
            kind = {"enum": str(f.metadata["allowed"]).split(", ")}
        properties[f.name] = {"description": f.metadata["help"], **kind}
    return {"required": list(properties), "additionalProperties": False, "properties": properties}


def test_the_schema_knows_every_option():
    """If it does not any more: python -m tests.test_formats."""
    top, options = SCHEMA["properties"], described_options()
    assert top["config"].items() >= options.items()
    assert top["config"]["required"] == list(top["config"]["properties"])  # in the same order
    assert {name: top[name] for name in ("algo", "env", "policy", "seed")}.items() <= options[
        "properties"
    ].items()
    assert top["schema"]["const"] == checkpoints.SCHEMA


@pytest.mark.parametrize(
    "change, where",
    [
        (lambda r: r.pop("optimal"), "result.optimal"),
        (lambda r: r.update(optimal="unknown"), "result.optimal"),
        (lambda r: r["held_out"].pop("distinct_tasks"), "result.held_out.distinct_tasks"),
        (lambda r: r["held_out"]["mean"].append(None), "result.held_out.mean[3]"),
        (lambda r: r.update(extra=1), "result.extra"),
        (lambda r: r.update(schema=2), "result.schema"),
        (lambda r: r.update(seconds=-1.0), "result.seconds"),
        (lambda r: r.update(algo="ppo"), "result.algo"),
        (lambda r: r.update(seed=0.5), "result.seed"),
        (lambda r: r["config"].update(learn_alpha=1), "result.config.learn_alpha"),
        (lambda r: r["config"].pop("gamma"), "result.config.gamma"),
        (lambda r: r["held_out"].update(tasks=True), "result.held_out.tasks"),
        (lambda r: r["held_out"]["returns"][1].append("x"), "result.held_out.returns[1][3]"),
        (lambda r: r["held_out"].update(mean=[]), "result.held_out.mean"),
        (lambda r: r["baselines"].pop("random"), "result.baselines.random"),
        (lambda r: r["baselines"]["random"].update(mean=0.0), "result.baselines.random.mean"),
    ],
)
def test_what_breaks_the_schema_is_found(run, change, where):
    result = json.loads((run / "result.json").read_text())
    change(result)
    assert all_faults(result) == [where]


def test_a_log_opens_in_pandas(run):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(run / "log.csv", index_col="iteration")
    _, state, _ = checkpoints.load(run / "checkpoint.npz")
    assert list(frame.index) == [1, 2] and list(frame.columns) == [
        "pre",
        "post",
        "env_steps",
        "seconds",
    ]
    assert (frame.dtypes == np.float64).all() and frame.notna().all(axis=None)
    last = pandas.read_csv(run / "log.csv").iloc[-1]
    assert_allclose(
        last[["pre", "post", "env_steps"]],
        [state[name] for name in ("pre", "post", "env_steps")],
        rtol=1e-14,
    )


if __name__ == "__main__":
    SCHEMA["properties"]["config"] |= described_options()
    SCHEMA["properties"] |= {
        x: described_options()["properties"][x] for x in ("algo", "env", "policy", "seed")
    }
    PATH.write_text(json.dumps(SCHEMA, indent=1, allow_nan=False) + "\n")
