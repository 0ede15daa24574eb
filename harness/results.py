"""What a run has reached: the meta-test with its baselines, as result.json and as a table.

`evaluate` tests and compares, `interval` is the statistics, `table` the text.
"""

import json
import math

import numpy as np

import metarl
from harness.checkpoints import SCHEMA, Stop
from harness.settings import joint_beside, label, values


# --- Statistics ---
def by_task(tasks, returns):
    """The mean of the rows that have the same task: returns (n, ...) -> (distinct tasks, ...).

    A family may have few tasks, and the test draws them again and again. More tests of the same
    task do not tell more about other tasks: an interval over tasks counts each of them once.
    """
    _, number = np.unique(tasks, axis=0, return_inverse=True)
    number = number.reshape(-1)
    distinct = number.max() + 1
    if distinct == len(tasks):
        return returns
    return np.stack([returns[number == i].mean(0) for i in range(distinct)])


def interval(returns):
    """The mean over tasks (rows) and the half width of its 95 % interval, by Student's t.

    One task says nothing about others: the half width is then NaN.
    """
    from scipy.special import stdtrit

    n = len(returns)
    mean = returns.mean(0)
    if n == 1:
        return {"mean": mean, "ci95": np.full_like(mean, np.nan)}
    deviation = returns.std(0, ddof=1)
    return {"mean": mean, "ci95": stdtrit(n - 1, 0.975) * deviation / np.sqrt(n)}


def scores(means, start, optimum):
    """How much of the way from `start` to the optimum each mean is, in per cent."""
    return [100 * (mean - start) / (optimum - start) for mean in means]


# --- result.json ---
def evaluate(c, state, seconds, in_chunks, trained):
    """The content of result.json: the trained parameters and the baselines, on the same tasks.

    trained: a function from a setting to its trained parameters. Stop where a return is not finite.
    """
    tasks, returns, row = tested(c, state["theta"], in_chunks, "the meta-test")
    theta = metarl.initial_state(c)["theta"]
    _, _, untrained = tested(c, theta, in_chunks, "the test of the untrained parameters")
    baselines = {"random": untrained}
    if c.compare == "joint":
        joint = joint_beside(c)
        _, _, others = tested(joint, trained(joint), in_chunks, "the test of joint")
        baselines["joint"] = others
    held_out = {
        "tasks": c.test_tasks,
        "distinct_tasks": len(by_task(tasks, tasks)),
        "splits_coincide": getattr(c.family, "splits_coincide", False),
        "episodes": c.test_episodes,
        "adapt_episodes": c.adapt_episodes,
        **row,
        "returns": returns,
    }
    config = values(c) | {"env": label(c.env), "policy": label(c.policy)}
    result = {
        "schema": SCHEMA,
        "numpy": np.__version__,
        "algo": c.algo,
        "env": label(c.env),
        "policy": label(c.policy),
        "seed": c.seed,
        "config": config,
        "env_steps": state["env_steps"],
        "seconds": seconds,
        "held_out": held_out,
        "optimal": optimum(c.family, tasks),
        "baselines": baselines,
    }
    # Through JSON and back: what is returned is what a reader of the file gets.
    return json.loads(json.dumps(result, default=plain, allow_nan=False))


def tested(c, theta, in_chunks, what):
    """The tasks and returns of metarl.meta_test, and their `interval`. Stop if not finite.

    The largest returns are finite, but not their mean or their deviation.
    """
    tasks, returns = metarl.meta_test(c, theta, in_chunks)
    rows = by_task(tasks, returns)
    row = interval(rows)
    reported = [returns, row["mean"]]
    if len(rows) > 1:
        reported.append(row["ci95"])
    if not all(np.isfinite(numbers).all() for numbers in reported):
        line = f"{what}: returns, or their mean or interval, that are not finite"
        raise Stop(3, f"{line}; try a smaller --alpha")
    return tasks, returns, row


def optimum(family, tasks):
    """The mean return of the best policy that knows the task; None if nobody knows it."""
    if not hasattr(family, "optimal_return"):
        return None
    mean = float(family.optimal_return(tasks).mean())
    return mean if np.isfinite(mean) else None


def plain(array):
    """An array as lists. JSON has no NaN, but null."""
    values = array.astype(object)
    values[~np.isfinite(array)] = None
    return values.tolist()


# --- As text ---
ADAPTATION = {
    "pg": "policy gradient on {} each",
    "es": "an ES gradient from {} each",
    "hc": "hill climbing by {} each",
}


def adaptation(inner, episodes):
    """What the steps of an inner loop are, in words."""
    if inner == "pg":
        spent = counted(episodes, "episode", "episodes")
    else:
        spent = counted(episodes, "query", "queries")
    return ADAPTATION.get(inner, inner + " on {} each").format(spent)


def counted(n, one, many):
    return f"{n} {one if n == 1 else many}"


def table(result):
    """The result as text: a line for the algorithm, for each baseline and for the optimum."""
    test = result["held_out"]
    baselines = dict(result["baselines"])
    untrained = baselines.pop("random")
    start = untrained["mean"][0]
    optimal = result["optimal"]
    scored = optimal is not None and 0 < optimal - start < math.inf

    rows = [[str(k) for k in range(len(test["mean"]))]]
    names = ["k"]
    for name, row in {result["algo"]: test, "untrained": untrained, **baselines}.items():
        names.append(name)
        rows.append([cell(*pair) for pair in zip(row["mean"], row["ci95"], strict=True)])
        if scored:
            names.append("  score")
            rows.append([percent(score) for score in scores(row["mean"], start, optimal)])
    lines = heading(result)
    first = max(10, *(len(name) for name in names))
    others = max(15, *(len(text) for row in rows for text in row)) + 2
    for name, row in zip(names, rows, strict=True):
        lines.append(f"{name:{first}}" + "".join(f"{text:>{others}}" for text in row))
    if optimal is not None:
        lines.append(f"optimum: {optimal:.2f}, by policies that know the task")
    if scored:
        lines.append("score: from 0 %, untrained and not adapted, to 100 %, the optimum")
    iterations = result["config"]["iterations"]
    steps = result["env_steps"]
    seconds = result["seconds"]
    lines.append(
        f"{iterations} iterations, {steps:,.0f} environment steps, {seconds:.1f} s of training"
    )
    return "\n".join(lines)


def heading(result):
    """What the numbers of the table are."""
    test = result["held_out"]
    n = test["distinct_tasks"]
    tasks = counted(n, "task", "tasks")
    if test["splits_coincide"]:
        which = f"{tasks} (the training tasks themselves)"
    else:
        which = counted(n, "held-out task", "held-out tasks")
    if n < test["tasks"]:
        which += f", tested {test['tasks']} times in all"
    steps = adaptation(result["config"]["inner"], test["adapt_episodes"])
    measured = counted(test["episodes"], "fresh episode", "fresh episodes")
    return [
        f"{result['env']}: mean return on {which},",
        f"with 95 % interval over the {tasks}, after k steps of {steps},",
        f"measured on {measured}",
    ]


def cell(mean, half):
    if half is None:
        return f"{mean:.2f}"
    return f"{mean:.2f} ± {half:.2f}"


def percent(score):
    if not math.isfinite(score):
        return ""  # too far for a number
    return f"{round(score)} %"
