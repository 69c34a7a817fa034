"""Time a training batch against the number of units, of networks and of steps.

Each is varied by itself, about one network of `position-noisy-unbiased`, in both precisions; best of several, all
sizes in turns. A batch is its noise, the way forward, the way back and the optimiser; the trajectories are drawn
before. Writes `data/results/growth.json`, which the book's page on cost shows.
"""

import json
import time

import torch
from training import RESULTS, machine

from reactivation_core import experiments, noise
from reactivation_core.recurrence import RECURRENCES
from reactivation_core.training import PRECISIONS, keep_freed_memory

ROUNDS = 2
VARIED = {"units": [128, 256, 512, 1024, 2048], "networks": [1, 2, 4, 8, 16], "steps": [50, 100, 200, 400, 800]}
EXPERIMENT = experiments.get("position-noisy-unbiased")


def main() -> None:
    keep_freed_memory()
    measured = {}
    for _ in range(ROUNDS):
        for name, sizes in VARIED.items():
            for precision, dtype in PRECISIONS.items():
                series = [seconds(dtype, **{name: size}) for size in sizes]
                best = measured.setdefault(name, {}).get(precision, series)
                measured[name][precision] = [min(pair) for pair in zip(best, series, strict=True)]
    for name, sizes in VARIED.items():
        print(f"{name:<18}" + "".join(f"{size:10}" for size in sizes))
        for precision, series in measured[name].items():
            print(f"  {precision:<14} s" + "".join(f"{value:10.3g}" for value in series))
    path = RESULTS / "growth.json"
    path.write_text(json.dumps(machine() | {"sizes": VARIED, "seconds": measured}, indent=1) + "\n")
    print(f"written to {path}")


def seconds(
    dtype: torch.dtype, units: int = EXPERIMENT.n_units, networks: int = 1, steps: int = EXPERIMENT.n_steps
) -> float:
    """Seconds of a batch: the better of two, after one that meets fresh memory."""
    experiment = EXPERIMENT.vary(n_units=units, n_steps=steps)
    generator = torch.Generator().manual_seed(0)
    task, network = experiment.draw(networks, generator)
    adam = torch.optim.Adam(network.parameters(), lr=experiment.learning_rate)
    batch = task.sample(experiment.batch_size, steps, generator)
    recurrence = RECURRENCES[type(network)](network, task, experiment.batch_size, steps, dtype)
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        noise.LAWS[experiment.noise](recurrence.eta, experiment.dt, generator)
        recurrence(batch, experiment.sigma)
        adam.step()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


if __name__ == "__main__":
    main()
