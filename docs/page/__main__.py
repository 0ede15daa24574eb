"""Make docs/adapt.html, the page on which an agent adapts: one file, which asks for nothing else.

    python -m docs.page                  write docs/adapt.html
    python -m docs.page --train DIR      first write docs/page/parameters.json, of the runs in DIR;
                                         those that are not there are done, a minute or two each

The page holds template.html, style.css, parameters.json, page.mjs and all that this imports: the
modules of the page, and those of the JavaScript port, golden/port. Colours are those of
harness/figures.py.

How to read it: how modules become one script (`script`), the page (`page`), the parameters.
"""

import argparse
import base64
import json
import re
import shlex
from pathlib import Path

import numpy as np

import metarl
from harness import cli
from harness.checkpoints import load
from harness.figures import GOAL, LOOKS, OTHER, STEP_LOOKS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "adapt.html"
PARAMETERS = HERE / "parameters.json"
MOST = 300_000  # bytes of parameters.json

# --- Modules as one script ---
IMPORT = re.compile(r'^import (?:\* as (\w+)|(\{[^}]*\})) from "(\.[^"]+)";\n', re.MULTILINE)
EXPORT = re.compile(
    r"^export (?=(?:class|const|function\*?|async function) ([\w$]+))", re.MULTILINE
)


def modules(path, found=None):
    """{path: text} of a module and all that it imports; each comes after what it imports."""
    found = {} if found is None else found
    if path not in found:
        text = path.read_text(encoding="utf-8")
        for _, _, other in IMPORT.findall(text):
            modules((path.parent / other).resolve(), found)
        found[path] = text
    return found


def script(path):
    """The module at `path` with all that it imports, as one script.

    Each becomes a function that is called once and returns what the module exports: so names that
    two modules have do not meet.
    """
    parts = []
    for module, text in modules(path.resolve()).items():

        def imported(match, module=module):
            whole, names, other = match.groups()
            return f"const {whole or names} = {variable(module.parent / other)};\n"

        exports = ", ".join(EXPORT.findall(text))
        body = EXPORT.sub("", IMPORT.sub(imported, text))
        name = module.relative_to(ROOT).as_posix()
        start = f"// ---- {name}\nconst {variable(module)} = (() => {{\n"
        parts.append(f"{start}{body}return {{ {exports} }};\n}})();\n")
    return "\n".join(parts)


def variable(path):
    """The name of what a module exports: that of the file, of the port with `port_` before it."""
    path = path.resolve()
    return f"{path.parent.name}_{path.stem}"


# --- The page ---
def page():
    parts = {
        "style": colours() + (HERE / "style.css").read_text(encoding="utf-8"),
        "parameters": PARAMETERS.read_text(encoding="utf-8"),
        "script": script(HERE / "page.mjs"),
    }
    text = (HERE / "template.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]].rstrip(), text)


def colours():
    """Those of the figures, as variables of the style sheet."""
    looks = {name: look[0] for name, look in LOOKS.items()} | {"goal": GOAL, "untrained": OTHER[0]}
    looks |= {f"step{k}": look[0] for k, look in enumerate(STEP_LOOKS)}
    lines = [f"  --{name}: {colour};" for name, colour in looks.items()]
    return ":root {\n" + "\n".join(lines) + "\n}\n"


# --- The parameters ---
# What is trained with its defaults. Joint gets as many environment steps as MAML, and it and the
# untrained start the alpha and the std that suit them best (docs/results.md, after 3 steps).
TURNED = "--env turned-pointmass --alpha-decay 0.15 --baseline linear"
RUNS = {
    "pointmass": {
        "maml": "--algo maml --env pointmass",
        "fomaml": "--algo fomaml --env pointmass",
        "reptile": "--algo reptile --env pointmass",
        "joint": "--algo joint --env pointmass --iterations 200 --tasks 40 --std 0.5 --alpha 0.2",
        "untrained": "--algo joint --env pointmass --iterations 1 --std 0.003 --alpha 4e-05",
        "es-maml": "--algo es-maml --env pointmass",
    },
    "turned-pointmass": {
        "maml": "--algo maml --env turned-pointmass",
        "fomaml": "--algo fomaml --env turned-pointmass",
        "reptile": "--algo reptile --env turned-pointmass",
        "joint": f"--algo joint {TURNED} --iterations 200 --tasks 40 --std 0.5 --alpha 0.2",
        "untrained": f"--algo joint {TURNED} --iterations 1 --std 0.1 --alpha 0.023",
        "es-maml": "--algo es-maml --env turned-pointmass",
    },
}
OPTIONS = """activation std deterministic inner alpha alpha_decay learn_alpha inner_sigma gamma lam
    baseline standardise estimator""".split()


def parameters(runs):
    """The content of parameters.json, of runs in the directory `runs`."""
    families = {}
    for env, commands in RUNS.items():
        starts = {}
        for name, options in commands.items():
            out = runs / f"{env}-{name}"
            if not (out / "result.json").exists():
                cli.run(*prepared(options, out))
            starts[name] = start(name, options, out)
        families[env] = {"starts": starts, "optimum": optimum(env, runs)}
    return families


def prepared(options, out):
    return cli.prepare([*shlex.split(options), "--quiet", "--out", str(out)])


def start(name, options, out):
    """What the page needs of a run: options, returns on held-out tasks, theta or (theta, s)."""
    c, state, _ = load(out / "checkpoint.npz")
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    test, x = result["held_out"], state["theta"]
    if name == "untrained":
        test, x = result["baselines"]["random"], metarl.initial_state(c)["theta"]
    name_of_env = result["env"].partition(":")[0]
    given = {key: getattr(c, key) for key in OPTIONS}
    hidden = c.hidden if c.policy == "mlp" else ()
    given |= {"family": name_of_env, "options": vars(c.family)}
    given |= {"hidden": hidden, "episodes": c.adapt_episodes}
    return {
        "command": f"python metarl.py {options} --out DIR",
        "c": given,
        "mean": [round(float(x), 4) for x in test["mean"]],
        "ci95": [round(float(x), 4) for x in test["ci95"]],
        "x": base64.b64encode(x.astype("<f4").tobytes()).decode(),
    }


def optimum(env, runs):
    """The mean over the held-out tasks of MAML and its like."""
    text = (runs / f"{env}-maml" / "result.json").read_text(encoding="utf-8")
    return round(json.loads(text)["optimal"], 4)


def write_parameters(runs):
    text = json.dumps(parameters(runs), indent=1) + "\n"
    if len(text) > MOST:
        raise SystemExit(f"parameters.json: {len(text)} bytes: must be at most {MOST}")
    PARAMETERS.write_text(text, encoding="utf-8")


# --- The command line ---
def main(argv=None):
    p = argparse.ArgumentParser(
        prog="python -m docs.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--train", type=Path, metavar="DIR", help="the parameters anew, of runs in DIR")
    given = p.parse_args(argv)
    if given.train is not None:
        with np.errstate(all="ignore"):
            write_parameters(given.train)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"docs/adapt.html: {PAGE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
