"""The JavaScript port of golden/: that it agrees with the vectors,
and notices when they are altered.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


def node(program, *arguments):
    run = [NODE, str(program), *map(str, arguments)]
    return subprocess.run(run, check=False, capture_output=True, text=True, timeout=60)


def port(*arguments):
    return node(GOLDEN / "port.mjs", *arguments)


def alter(directory, stage, name, change):
    """Copy the vectors to a directory, if they are not there, and change one case of a file."""
    path = directory / f"{stage}.json"
    if not path.exists():
        for file in GOLDEN.glob("*.json"):
            shutil.copy(file, directory)
    content = json.loads(path.read_text())
    (case,) = [case for case in content["cases"] if case["name"] == name]
    change(case)
    path.write_text(json.dumps(content))


def counts(output):
    """{"2-envs tasks": (passed, failed, not ported)} of what the port prints."""
    lines = [line.split(": ", 1) for line in output.splitlines() if " passed, " in line]
    words = {group: text.split(";")[0].split(", ") for group, text in lines}
    return {group: tuple(int(part.split()[0]) for part in parts) for group, parts in words.items()}


def test_port_agrees_with_all_vectors():
    result = port()
    assert result.returncode == 0, result.stdout + result.stderr
    found = counts(result.stdout)
    assert all(failed == missing == 0 for _, failed, missing in found.values())
    files = {path.stem: json.loads(path.read_text())["cases"] for path in GOLDEN.glob("*.json")}
    cases = {f"{stage} {case['function']}" for stage in files for case in files[stage]}
    assert set(found) == cases
    assert sum(map(sum, found.values())) == sum(map(len, files.values()))


def test_only_the_command_imports_from_node():
    """A page in a browser can import the port."""
    texts = [path.read_text() for path in (GOLDEN / "port").glob("*.mjs")]
    assert texts and not any("node:" in text for text in texts)


def first_element(case, field, factor):
    data = case["outputs"][field]["data"]
    data[0] *= factor


def test_port_notices_one_altered_number_in_each_file(tmp_path):
    altered = [
        ("1-autodiff", "tanh", "second0"),
        ("2-envs", "pointmass", "returns"),
        ("3-policies", "mlp", "gradient"),
        ("4-steps", "meta-gradient: dice, mlp", "meta_gradient"),
        ("4-steps", "iteration: reptile", "theta"),
        ("5-evolution-strategies", "cma-es: diagonal", "mean"),
        ("6-runs", "run: nes, xnes", "theta"),
    ]
    for stage, name, field in altered:
        alter(tmp_path, stage, name, lambda case, field=field: first_element(case, field, 1 + 1e-5))
    result = port(tmp_path)
    assert result.returncode == 1
    complaints = [line for line in result.stdout.splitlines() if line.endswith(" differs")]
    assert complaints == [f"{stage}: {name}: {field} differs" for stage, name, field in altered]
    assert sum(failed for _, failed, _ in counts(result.stdout).values()) == len(altered)


def test_port_notices_altered_inputs_faults_and_refusals(tmp_path):
    def noise(case):
        case["inputs"]["noise"]["0/episodes/0"][0]["values"]["data"][0] += 0.001

    def true_fault(case):
        case["faults"][0]["outputs"] = {"returns": case["outputs"]["returns"]}

    def refusal(case):
        case["rejects"] = True

    alter(tmp_path, "4-steps", "meta-gradient: lvc", noise)
    alter(tmp_path, "2-envs", "turned-pointmass", true_fault)
    alter(tmp_path, "1-autodiff", "exp", refusal)
    result = port(tmp_path)
    assert result.returncode == 1
    assert "4-steps: meta-gradient: lvc: meta_gradient differs" in result.stdout
    assert "2-envs: turned-pointmass: returns as if moves are turned clockwise" in result.stdout
    assert "1-autodiff: exp: wrong inputs are not refused" in result.stdout
    assert sum(failed for _, failed, _ in counts(result.stdout).values()) == 3


def test_port_refuses_another_version(tmp_path):
    alter(tmp_path, "1-autodiff", "exp", lambda case: None)
    path = tmp_path / "3-policies.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    result = port(tmp_path)
    assert result.returncode == 1 and "another format or version" in result.stderr


def listed(golden):
    mistakes = []
    for path in sorted(golden.glob("mistakes/*.json")):
        mistakes.extend(json.loads(path.read_text()))
    return mistakes


def test_the_list_says_what_becomes_of_each_mistake():
    mistakes = listed(GOLDEN)
    assert len(mistakes) >= 300
    names = [(one["file"], one["mistake"]) for one in mistakes]
    assert len(set(names)) == len(names)
    for one in mistakes:
        source = (GOLDEN / "port" / one["file"]).read_text()
        assert source.count(one["old"]) == 1, one
        ends = {"caught", "equivalent", "hole"} & set(one)
        assert len(ends) == 1, one


def test_planted_mistakes_are_found_and_survivors_told(tmp_path):
    golden = tmp_path / "golden"
    ignored = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(GOLDEN, golden, ignore=ignored)
    caught = [one for one in listed(golden) if "caught" in one]
    planted = caught[:: len(caught) // 5][:5]
    for old, mistake in [
        ("// Noise is given", "a comment"),
        ("no such text", "nothing"),
    ]:
        change = {"file": "noise.mjs", "old": old, "new": "// Noise was given"}
        planted.append({**change, "mistake": mistake})
    for path in golden.glob("mistakes/*.json"):
        path.unlink()
    path = golden / "mistakes/1-autodiff.json"
    path.write_text(json.dumps(planted))
    result = node(golden / "mistakes.mjs")
    assert result.returncode == 1
    *_, last = result.stdout.splitlines()
    assert last == "7 mistakes: 5 caught, 1 survives, 1 stale"
    assert "noise.mjs: a comment: survives" in result.stdout
    assert "noise.mjs: nothing: stale" in result.stdout
