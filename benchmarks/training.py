"""Time a training batch of each architecture against the readable loop, and against the machine's matrix products; and
what the figures need of trained networks: quiescent trajectories, densities and divergences.

All batches are measured in one run, in turns, best of several; writes `build/benchmarks.json`, and with `--record` also
`data/results/benchmarks.json`, which the book's page on cost shows.

The readable loop is `networks` under automatic differentiation in float32. The roofline is the time the products of a
batch would take at the rate of the machine's own matrix product, measured on 2048 x 2048 matrices in the same run.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

from reactivation_core import densities, experiments, noise, phases
from reactivation_core.recurrence import RECURRENCES
from reactivation_core.training import BLOCK, PRECISIONS, keep_freed_memory

REPEATS = 5
# The numbers of the first stand at the top of the file, those of the others under their names.
NAMES = "position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"


def main() -> None:
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads")
    found: dict[str, Any] = machine()
    for name in NAMES:
        measured = measure(name)
        print(f"{name}\n" + "\n".join(f"  {key:<34} {value:.3g}" for key, value in measured.items()))
        found |= measured if name == NAMES[0] else {name: measured}
    for name, measured in (
        ("quiescence", quiescence(found["product_rate_float32_gflops"])),
        ("divergences", divergences()),
    ):
        print(f"{name}\n" + "\n".join(f"  {key:<34} {value:.3g}" for key, value in measured.items()))
        found[name] = measured
    for folder in (ROOT / "build", *([RESULTS] if "--record" in sys.argv else [])):
        folder.mkdir(exist_ok=True)
        path = folder / "benchmarks.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"written to {path}")


def machine() -> dict[str, str | int]:
    """What the times were measured on, and when."""
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "architecture": platform.machine(),
        "date": str(date.today()),
    }


def measure(name: str) -> dict[str, float]:
    """Seconds per batch, speed-up over the readable loop, and fraction of the roofline, per precision."""
    experiment = experiments.get(name)
    generator = torch.Generator().manual_seed(0)
    task, network = experiment.draw(1, generator)
    adam = torch.optim.Adam(network.parameters(), lr=experiment.learning_rate)
    size = experiment.batch_size, experiment.n_steps

    def readable() -> None:
        batch = task.sample(*size, generator)
        eta = noise.LAWS[experiment.noise](torch.empty(1, *size, experiment.n_units), experiment.dt, generator)
        f = task.cells.tuning(batch.s)
        r = network(network.encode(f[:, :, 0]), batch.ds, experiment.sigma * eta)
        loss = (network.readout(r) - f[:, :, 1:]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    def fused(dtype: torch.dtype) -> Callable[[], None]:
        recurrence = RECURRENCES[type(network)](network, task, *size, dtype)

        def block() -> None:
            batches = task.sample(BLOCK * size[0], size[1], generator)
            for batch in zip(*(part.split(size[0], 1) for part in batches), strict=True):
                noise.LAWS[experiment.noise](recurrence.eta, experiment.dt, generator)
                recurrence(type(batches)(*batch), experiment.sigma)
                adam.step()

        return block

    n, rows = experiment.n_units, experiment.batch_size * experiment.n_steps
    gates = sum(shape == ("N_r", "N_r") for shape in network.weights.values())
    flop = 6 * rows * n * (gates * n + experiment.task.n_cells)
    products = {}
    for precision, dtype in PRECISIONS.items():
        a, b = torch.randn(2, 2048, 2048).to(dtype)
        products[precision] = lambda a=a, b=b: a @ b
    recurrence = RECURRENCES[type(network)](network, task, *size)
    batch = task.sample(*size, generator)
    parts = {
        "noise": lambda: noise.LAWS[experiment.noise](recurrence.eta, experiment.dt, generator),
        # A few steps at a time, as in the recurrence.
        "targets": lambda: [task.cells.tuning(s) for s in batch.s[:, :, 1:].split(10, 2)],
        "optimiser": adam.step,
    }
    best = fastest(
        {"readable": readable}
        | parts
        | {f"product_{precision}": product for precision, product in products.items()}
        | {precision: fused(dtype) for precision, dtype in PRECISIONS.items()}
    )
    found = {f"seconds_{name}": best[name] for name in ("readable", *parts)}
    for precision in PRECISIONS:
        rate = 2 * 2048**3 / best[f"product_{precision}"]
        seconds = best[precision] / BLOCK
        found |= {
            f"product_rate_{precision}_gflops": rate / 1e9,
            f"seconds_{precision}": seconds,
            f"training_speedup_{precision}": best["readable"] / seconds,
            f"training_roofline_{precision}": flop / rate / seconds,
        }
    found["readable_roofline_float32"] = flop / (found["product_rate_float32_gflops"] * 1e9) / best["readable"]
    return found


def quiescence(rate: float) -> dict[str, float]:
    """Seconds for 200 decoded quiescent trajectories of 1 000 steps of five networks, and fraction of the roofline."""
    experiment = experiments.get(NAMES[0])
    generator = torch.Generator().manual_seed(0)
    networks, n_trajectories, n_steps = phases.untrained(experiment, 5, generator), 200, 1000
    start = phases.starts(networks, n_trajectories, generator)
    begin = time.perf_counter()
    phases.quiescent(networks, n_steps, experiment.quiescent_noise, start, generator)
    seconds = time.perf_counter() - begin
    flop = (
        2
        * len(networks)
        * n_trajectories
        * n_steps
        * experiment.n_units
        * (experiment.n_units + networks.network.n_cells)
    )
    return {"seconds": seconds, "roofline": flop / (rate * 1e9) / seconds}


def divergences() -> dict[str, float]:
    """Seconds for the densities and divergences of Fig. 2e, and the density's largest relative error against SciPy's.

    Four waking and six quiescent conditions of five networks, 200 000 points each, and all pairs.
    """
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.1, 1.1, (10, 5, 200_000, 2))
    begin = time.perf_counter()
    density = [[densities.KernelDensity(x) for x in condition] for condition in points]
    for quiescent in density[4:]:
        for active in density[:4]:
            for q, a in zip(quiescent, active, strict=True):
                densities.kl_divergence(q, a, rng)
    seconds = time.perf_counter() - begin
    places = rng.uniform(-1.2, 1.2, (500, 2))
    exact = scipy.stats.gaussian_kde(points[0, 0].T)(places.T)
    return {"seconds": seconds, "relative_error": float(np.abs(density[0][0](places) / exact - 1).max())}


def fastest(functions: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Best seconds of each function, called in turns so that all meet the same disturbances."""
    best = dict.fromkeys(functions, float("inf"))
    for repeat in range(REPEATS + 1):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            if repeat:
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


if __name__ == "__main__":
    main()
