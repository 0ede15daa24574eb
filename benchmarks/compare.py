"""All algorithms on the same held-out tasks, with the same budgets:
meta-gradients against black boxes.

    python -m benchmarks.compare [--env pointmass] [--algos maml ...] [--budget 4e6] [--seeds 3]
    [--out runs/compare]

Each run trains until the first iteration that reaches the budget of environment steps. Every row
trains and is tested with 20 episodes for an adaptation step, on the same 40 held-out tasks of a
seed, and measured on 20 fresh episodes. The black boxes by default adapt a deterministic linear
policy by hill climbing, other algorithms a stochastic multilayer perceptron by policy gradients:
the columns `policy` and `inner` say so, and the rows named `-pg` give the black boxes that same
perceptron and inner loop, with 20 members in a generation (NES and CMA-ES: on 5 tasks). Between
these rows and that of MAML nothing differs but the meta-optimiser. `+alpha`: the inner loop's step
sizes (hill climbing: noise) are meta-learned too. `untrained` is the first parameters, adapted as
in the first row of that policy and inner loop.

Prints the return after 0, 1, 2, 3 adaptation steps with 95 % intervals over seeds (with one seed:
over tasks); the regret, the optimum less the return after the last step; environment steps and
seconds of training. Then what the meta-optimisers are like: `pieces` of an iteration that could be
computed at the same time, and `numbers` that each sends back; for the first and the last parameters
the cosine of two independent updates and, what follows from it, the signal-to-noise ratio |mean|^2
/ E|deviation|^2 per million environment steps (negative: not apart from 0); and seconds per million
steps.

Runs go in parallel, two at a time; each writes a file to --out, and whatever is finished there is
not done again. A file knows its setting, not the code: after a change of the code, give another
directory.
"""

import json
import sys
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

import metarl
from benchmarks.common import in_columns, interval, parser
from harness.checkpoints import described, replacing
from harness.settings import BLACK_BOXES, Setting
from harness.workers import workers

OUT = Path("runs/compare")
SCHEMA = 1  # of the files
UPDATES = 3  # what noise is for, beside metarl.INIT, TRAIN, TEST
REPEATS = 4  # independent updates of the same parameters
FRACTIONS = (0, 1 / 8, 1 / 4, 1 / 2, 1)  # of the budget, at which a run is tested
SHARED = dict(episodes=20, adapt_episodes=20, test_episodes=20, test_tasks=40, test_steps=3)
LEARNER = (  # options of MAML that a row named -pg takes over
    *("policy", "hidden", "std", "activation", "deterministic"),
    *("inner", "inner_steps", "alpha", "alpha_decay", "learn_alpha"),
)
ROWS = *metarl.ALGORITHMS, *(f"{algo}-pg" for algo in BLACK_BOXES)


# --- One run ---
def reach(states, state, env_steps):
    """The first state, from `state` on, that has taken so many environment steps."""
    while state["env_steps"] < env_steps:
        state = next(states)
    return state


def run(c, budget):
    """Train until the budget of environment steps is reached. Returns plain lists and numbers:

    schema, budget, setting; parameters, P; optimal (tasks,); updates, what `update` says of the
    first and the last state; env_steps, seconds (of training) and returns (tasks, test_steps + 1)
    at each of FRACTIONS of the budget.
    """
    state = metarl.initial_state(c)
    states = metarl.train(c, state)
    first = update(c, state)
    seconds = 0.0
    columns = {"env_steps": [], "seconds": [], "returns": []}
    for fraction in FRACTIONS:
        start = time.perf_counter()
        state = reach(states, state, fraction * budget)
        seconds += time.perf_counter() - start
        tasks, returns = metarl.meta_test(c, state["theta"])
        columns["env_steps"].append(state["env_steps"])
        columns["seconds"].append(seconds)
        columns["returns"].append(returns)
    about = {
        "parameters": c.pi.size,
        "optimal": c.family.optimal_return(tasks),
        "updates": [first, update(c, state)],
    }
    return plain({**key(c, budget), **about, **columns})


def plain(x):
    """x with lists in place of arrays and tuples, as JSON gives it back; ValueError for NaN."""
    return json.loads(json.dumps(x, default=lambda array: array.tolist(), allow_nan=False))


def key(c, budget):
    return plain({"schema": SCHEMA, "budget": budget, "setting": described(c)})


def update(c, state):
    """What one iteration from `state` is: env_steps; pieces, numbers (of each piece);
    the cosine of two such updates.

    By plain gradient steps, so that Adam's first one, the sign, does not hide the direction.
    """
    c = replace(c, outer="sgd")
    count = Counter()

    def in_chunks(f, c, x, tasks, address, members=1, **options):
        rows = metarl.in_chunks(f, c, x, tasks, address, members, **options)
        if f is not metarl.pairs:  # which only makes the points
            count["pieces"] += len(tasks) * members
            count["numbers"] += rows[0].size
        return rows

    iteration = metarl.ALGORITHMS[c.algo]
    after = [iteration(c, state, (c.seed, UPDATES, i), in_chunks) for i in range(REPEATS)]
    moves = np.array([new["theta"] - state["theta"] for new in after], float)
    return {
        "env_steps": sum(new["env_steps"] - state["env_steps"] for new in after) / REPEATS,
        "pieces": count["pieces"] / REPEATS,
        "numbers": count["numbers"] / count["pieces"],
        "cosine": agreement(moves),
    }


def agreement(u):
    """The mean inner product of two different rows of u (n, P), over the mean square of one."""
    n = len(u)
    squares = (u * u).sum()
    if squares == 0:
        return 0.0  # no update moves anything: there is nothing that could agree
    products = (u.sum(0) ** 2).sum() - squares  # of all pairs, n (n - 1) of them
    return products / (n - 1) / squares


def signal_to_noise(cosine, env_steps):
    """|mean|^2 / E|deviation|^2 of an average of updates that took a million environment steps
    together.
    """
    return cosine / (1 - cosine) * 1e6 / env_steps


# --- Runs that are kept ---
def finished(path, c, budget):
    """The result of exactly this run in the file, or None."""
    wanted = key(c, budget)
    try:
        result = json.loads(path.read_bytes())
        found = {name: result[name] for name in wanted}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if found == wanted else None


def file(out, name, c, budget):
    digest = sha256(json.dumps(key(c, budget), sort_keys=True).encode()).hexdigest()[:12]
    return out / f"{name}-{c.seed}-{digest}.json"


def once(path, c, budget):
    """Do the run unless the file holds it, write the file, and return the result."""
    result = finished(path, c, budget)
    if result is None:
        result = run(c, budget)
        with replacing(path) as new:
            new.write(json.dumps(result, allow_nan=False).encode())
        spent = f"{result['env_steps'][-1]:,.0f} steps, {result['seconds'][-1]:.0f} s"
        print(f"{path.name}: {spent}", file=sys.stderr)
    return result


def compare(out, env="pointmass", algos=ROWS, budget=4e6, seeds=3, map=map, **options):
    """Train and test every algorithm with every seed.

    Returns {name of the row: [result of `run` for each seed]}.

    out: a directory for finished runs. map: the builtin, or that of `workers`. options: of Setting,
    for all rows.
    """
    settings = {
        (name, seed): setting(name, env, seed, **options) for name in algos for seed in range(seeds)
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = [file(out, name, c, budget) for (name, _), c in settings.items()]
    results = list(map(once, paths, settings.values(), [budget] * len(paths)))
    return {name: results[i * seeds : (i + 1) * seeds] for i, name in enumerate(algos)}


def setting(name, env, seed, **options):
    """That of a row; -pg stands for the LEARNER of MAML, in small generations."""
    options = SHARED | {"env": env, "seed": seed} | options
    if name.endswith("-pg"):
        maml = Setting(algo="maml", **options)
        options = {"population": 20, "tasks": 5} | options | {x: getattr(maml, x) for x in LEARNER}
    return Setting(algo=name.removesuffix("-pg"), **options)


# --- What they say ---
def over_seeds(values):
    """(mean, ci95) over seeds of what has a row per task: values (seeds, tasks, ...);
    with one seed over tasks.
    """
    rows = np.asarray(values, float)
    rows = rows[0] if len(rows) == 1 else rows.mean(1)
    return tuple(interval(rows).values())


def curves(runs):
    """The learning curve of a row, from its results: a point for each of FRACTIONS of the budget.

    env_steps, seconds (points,): means over seeds. returns, ci95 (points, k + 1): after each
    adaptation step.
    """
    by_task = [np.moveaxis(np.array(r["returns"]), 0, 1) for r in runs]  # (tasks, points, k + 1)
    mean, ci95 = over_seeds(by_task)
    env_steps = np.mean([r["env_steps"] for r in runs], 0)
    seconds = np.mean([r["seconds"] for r in runs], 0)
    return {"env_steps": env_steps, "seconds": seconds, "returns": mean, "ci95": ci95}


def regret(runs):
    """(mean, ci95) of the optimum less the return after the last adaptation step."""
    return over_seeds([np.array(r["optimal"]) - np.array(r["returns"][-1])[:, -1] for r in runs])


def table(results):
    """Return after each adaptation step, regret, environment steps and seconds of each row."""
    first = next(iter(results.values()))
    c = first[0]["setting"]
    steps = len(first[0]["returns"][0][0])
    title = (
        f"{c['env']}: mean return on {c['test_tasks']} held-out tasks after k adaptation steps of "
        f"{c['adapt_episodes']} episodes, 95 % intervals; "
        f"seeds: {len(first)}, budget: {first[0]['budget']:,.0f}"
    )
    heads = in_columns(["k = 0", *range(1, steps), "regret"], 17)
    lines = [title, f"{'k':13}{'policy':14}{'inner':10}{heads}{'env steps':>12}{'seconds':>9}"]
    untrained = {}
    for name, runs in results.items():
        c = runs[0]["setting"]
        kind = f"{c['policy']}, P={runs[0]['parameters']}"
        alpha = " +alpha" if c["learn_alpha"] else ""
        before, after = cells_of(runs)
        lines.append(f"{name:13}{kind:14}{c['inner'] + alpha:10}{after}")
        untrained.setdefault((kind, c["inner"]), before)
    for (kind, inner), before in untrained.items():
        lines.append(f"{'untrained':13}{kind:14}{inner:10}{before}")
    optimum = np.mean([run["optimal"] for run in first])
    return "\n".join([*lines, f"{'optimum':37}{optimum:17.2f}"])


def cells_of(runs):
    """Of a row: the returns before training; those after it, and all that follows them."""
    curve = curves(runs)
    returns = list(zip(curve["returns"], curve["ci95"], strict=True))  # a pair for each point
    before = "".join(map(cell, zip(*returns[0], strict=True)))
    after = "".join(map(cell, zip(*returns[-1], strict=True)))
    counts = f"{curve['env_steps'][-1]:12,.0f}{curve['seconds'][-1]:9.1f}"
    return before, after + cell(regret(runs)) + counts


def cell(mean_and_half):
    return f"{'{:.2f} ± {:.2f}'.format(*mean_and_half):>17}"


def optimisers(results):
    """What the updates of each row are like, a mean over seeds, as text."""
    ends = 2 * f"{'cosine':>9}{'S/N per M':>11}"
    heads = f"{'update':13}{'pieces':>8}{'numbers':>9}{'env steps':>11}"
    lines = [f"{'':41}{'first parameters':^20}{'last':^20}", f"{heads}{ends}{'s per M':>9}"]
    for name, runs in results.items():
        mean = lambda end, x, runs=runs: np.mean([r["updates"][end][x] for r in runs])
        line = f"{name:13}{mean(0, 'pieces'):8.0f}{mean(0, 'numbers'):9.0f}"
        line += f"{mean(0, 'env_steps'):11,.0f}"
        for end in (0, 1):  # the first parameters, the last
            cosine = mean(end, "cosine")
            line += f"{cosine:9.4f}{signal_to_noise(cosine, mean(end, 'env_steps')):11.3f}"
        seconds = np.sum([r["seconds"][-1] for r in runs])
        million = np.sum([r["env_steps"][-1] for r in runs]) / 1e6
        lines.append(f"{line}{seconds / million:9.2f}")
    return "\n".join(lines)


def main(argv=None):
    p = parser(__doc__)
    p.add_argument("--env", default="pointmass")
    p.add_argument("--algos", nargs="+", choices=ROWS, default=ROWS)
    p.add_argument("--budget", type=float, default=4e6, help="environment steps of a run [4e6]")
    seeds = "runs of each row, with seeds 0, 1, ... [3]"
    p.add_argument("--seeds", type=int, default=3, help=seeds)
    p.add_argument("--out", type=Path, default=OUT, help=f"where finished runs are kept [{OUT}]")
    a = p.parse_args(argv)
    if not (a.seeds >= 1 and 0 < a.budget < np.inf):
        p.error("--seeds and --budget must be above 0")
    try:
        with workers(2) as map:
            results = compare(a.out, a.env, a.algos, a.budget, a.seeds, map)
    except ValueError as error:
        p.error(error)
    except KeyboardInterrupt:
        line = f"interrupted; what is finished is in {a.out}: the same command goes on from there"
        print(line, file=sys.stderr)
        return 130
    print(table(results), optimisers(results), sep="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
