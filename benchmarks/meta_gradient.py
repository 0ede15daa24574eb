"""How long does one MAML meta-gradient take, here and in other frameworks?

The problem is told in peers.py.

    python -m benchmarks.meta_gradient [--only NAME ...] [--dtype float32 float64] [--reps 10]
    [--json]

Each contestant that is installed (pip install -r benchmarks/requirements.txt) is a process of its
own and computes the same meta-gradient from the same noise. First the gradients are compared: the
program ends with status 1 if one differs. Then the processes take turns, three meta-gradients in a
row as in training, so that whatever else the machine does slows all alike; a pause before each
turn, since the threads of some frameworks go on waiting at full speed for a while. Printed are the
median and the quartiles of the seconds, after warm-up and compilation; the processor time in all
threads and worker processes; the seconds as a multiple of ours; environment steps per second; the
peak memory, of worker processes too, each by itself; and the seconds of a whole process, from its
start to its end with one meta-gradient: the cold start. --json prints these as one line for each
contestant instead.
"""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from policies import Policy

from .common import parser
from .peers import CONTESTANTS

T, K, H = 20, 20, 100  # tasks, episodes, steps
HIDDEN = (64, 64)
WARM_UP = 2  # turns that do not count
PAUSE = 0.05  # seconds before each turn
IN_A_ROW = 3  # meta-gradients in a turn
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}  # relative to the largest component
SCRIPT = Path(__file__).with_name("peers.py")


def inputs(dtype, T=T, K=K, H=H, hidden=HIDDEN):
    """The arrays of peers.Inputs, from the seed 0."""
    rng = np.random.default_rng(0)
    policy = Policy(2, 2, hidden=hidden)
    arrays = {
        "theta": policy.init(rng),
        "goals": rng.uniform(-0.5, 0.5, (T, 2)),
        "noise": rng.standard_normal((2, H, T, K, 2)),
    }
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    return arrays | {"widths": policy.network.widths}


class Contestant:
    """A process that computes the meta-gradient once, and again whenever it is asked."""

    def __init__(self, name, dtype, directory):
        self.name = name
        self.dtype = dtype
        self.gradient = directory / f"{name}.npy"
        self.command = [sys.executable, SCRIPT, name, directory / f"{dtype}.npz", self.gradient]
        threads = "1" if name == "ours" else str(os.cpu_count())
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        self.environment = os.environ | dict.fromkeys(names, threads)
        self.pairs = []  # seconds and processor time of each meta-gradient
        self.cold = []  # seconds of each cold start

    def cold_start(self):
        streams = quiet(stdin=subprocess.DEVNULL)
        start = time.perf_counter()
        subprocess.run(self.command, env=self.environment, check=True, **streams)
        self.cold.append(time.perf_counter() - start)

    def start(self):
        streams = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen(self.command, env=self.environment, **quiet(**streams))
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            command = " ".join(map(str, self.command[1:]))
            raise SystemExit(f"{self.name}: the process has failed; see python {command}")
        return line

    def turn(self):
        print(IN_A_ROW, file=self.process.stdin, flush=True)
        pairs, self.peak = json.loads(self.answer())
        self.pairs += pairs

    def result(self, ours):
        times, cpu = self.timed.T
        q1, median, q3 = np.percentile(times, [25, 50, 75])
        return {
            "name": self.name,
            "dtype": self.dtype,
            "seconds": median,
            "q1": q1,
            "q3": q3,
            "cpu_seconds": np.median(cpu),
            "ratio": median / ours if ours else None,
            "steps_per_second": 2 * T * K * H / median,
            "peak_mb": self.peak,
            "cold_seconds": min(self.cold),
            "reps": len(times),
        }

    @property
    def timed(self):
        return np.array(self.pairs[WARM_UP * IN_A_ROW :])

    @property
    def median(self):
        return np.median(self.timed[:, 0])


def quiet(**streams):
    return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams


def compare(contestants):
    """Print the largest difference of each gradient from the first,
    relative to its largest component.
    """
    gradients = {one.name: np.load(one.gradient).astype(float) for one in contestants}
    name, dtype = contestants[0].name, contestants[0].dtype
    first = gradients[name]
    errors = {name: np.abs(g - first).max() / np.abs(first).max() for name, g in gradients.items()}
    wrong = []
    for other, error in errors.items():
        if not error <= TOLERANCE[dtype]:  # nor where it is NaN
            wrong.append(f"{other} by {error:.1e}")
    if wrong:
        raise SystemExit(f"the gradients in {dtype} differ from {name}: {', '.join(wrong)}")
    return max(errors.values())


def race(names, dtype, reps, directory):
    """The results of all contestants, and the largest difference between their gradients."""
    np.savez(directory / f"{dtype}.npz", **inputs(dtype))
    contestants = [Contestant(name, dtype, directory) for name in names]
    for one in contestants * 2:
        one.cold_start()
    difference = compare(contestants)
    for one in contestants:
        one.start()
    for _ in range(WARM_UP + reps):
        for one in contestants:
            time.sleep(PAUSE)
            one.turn()
    for one in contestants:
        one.process.communicate()  # closes its input, so that it ends
    ours = next((one.median for one in contestants if one.name == "ours"), None)
    return [one.result(ours) for one in contestants], difference


def machine(names):
    """One line: processor, cores, versions."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(": ")[2]  # the same in all cores
    modules = dict.fromkeys(CONTESTANTS[name][1] for name in names)
    versions = ", ".join(f"{module} {version(module)}" for module in modules)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def report(results, difference):
    first = results[0]
    size = f"{T} tasks x {K} episodes x {H} steps, network 2-64-64-2"
    print(f"\n{first['dtype']}: {size}; {first['reps']} times")
    print(f"largest difference between the gradients: {difference:.1e} of the largest component")
    head = f"{'':36}{'seconds':>9}{'quartiles':>17}{'/ ours':>8}{'CPU s':>8}"
    print(f"{head}{'Msteps/s':>10}{'MB':>7}{'cold s':>8}")
    for r in results:
        quartiles = f"{r['q1']:.4f} - {r['q3']:.4f}"
        ratio = f"{r['ratio']:.2f}" if r["ratio"] else ""
        memory = f"{r['peak_mb']:.0f}" if r["peak_mb"] else ""
        line = f"{CONTESTANTS[r['name']][2]:36}{r['seconds']:9.4f}{quartiles:>17}{ratio:>8}"
        line += f"{r['cpu_seconds']:8.3f}{r['steps_per_second'] / 1e6:10.2f}"
        print(f"{line}{memory:>7}{r['cold_seconds']:8.2f}")
    ratios = {r["name"]: r["ratio"] for r in results if r["name"] != "ours" and r["ratio"]}
    if ratios:
        line = f"against the fastest peer {min(ratios.values()):.2f} x (must 1.3, aim 2)"
        if "torch-loop" in ratios:
            line += f"; against the loop {ratios['torch-loop']:.2f} x (must 3.5, aim 6)"
        print(line)
    if first["name"] == "ours":
        print(f"whole process of ours {first['cold_seconds']:.2f} s (must 0.5, aim 0.3)")


def main():
    p = parser(__doc__)
    every = list(CONTESTANTS)
    p.add_argument("--only", nargs="+", choices=CONTESTANTS, default=every, metavar="NAME")
    p.add_argument("--dtype", nargs="+", choices=TOLERANCE, default=list(TOLERANCE))
    p.add_argument("--reps", type=int, default=10, help="turns [10]")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    installed = [name for name in CONTESTANTS if importlib.util.find_spec(CONTESTANTS[name][1])]
    names = [name for name in installed if name in a.only]
    missing = ", ".join(name for name in a.only if name not in installed)
    if missing:
        line = f"not installed, so left out: {missing}; see benchmarks/requirements.txt"
        print(line, file=sys.stderr)
    if not names:
        raise SystemExit("nothing to measure")
    if not a.json:
        print(machine(names))
    with tempfile.TemporaryDirectory() as directory:
        for dtype in a.dtype:
            results, difference = race(names, dtype, a.reps, Path(directory))
            if a.json:
                for result in results:
                    print(json.dumps(result, allow_nan=False), flush=True)
            else:
                report(results, difference)


if __name__ == "__main__":
    main()
