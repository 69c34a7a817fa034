"""Time a training batch of each architecture against the readable loop, and against the machine's matrix products.

All are measured in one run, in turns, best of several; writes `build/benchmarks.json`, and with `--record` also
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

import torch

from reactivation_core import experiments, noise
from reactivation_core.recurrence import RECURRENCES
from reactivation_core.training import BLOCK, PRECISIONS, keep_freed_memory

REPEATS = 7
# The numbers of the first stand at the top of the file, those of the others under their names.
NAMES = "position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"


def main() -> None:
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads")
    found = machine()
    for name in NAMES:
        measured = measure(name)
        print(f"{name}\n" + "\n".join(f"  {key:<34} {value:.3g}" for key, value in measured.items()))
        found |= measured if name == NAMES[0] else {name: measured}
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
