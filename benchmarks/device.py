"""What a graphics processor makes of the training: its tests, the table of the paper's conditions, a rollout.

One command for a machine with CUDA. It runs the tests marked `gpu`, trains every ensemble of the paper's conditions
once, and writes wall times, fractions of the card's own matrix product and test losses to `device.json` in the folder
`--out`, which the book's page on cost shows from `data/results/device.json`. Called again it goes on from what that
folder holds. After `--seconds` it stops by itself.
"""

import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import tyro
from tqdm import tqdm

from reactivation_core import experiments, phases, store, training

ROOT = Path(__file__).resolve().parents[1]
N_NETWORKS = 5


class OutOfTimeError(Exception):
    """The seconds are over."""


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = experiments.MAIN,
    out: Path = ROOT / "build" / "device",
    seconds: float = 540.0,
    batches: int | None = None,
) -> None:
    """Measure a CUDA device.

    Args:
        names: experiments, as `reactivation list` names them.
        out: folder for the ensembles, their checkpoints and `device.json`.
        seconds: wall time after which to stop; the same command goes on.
        batches: training batches, if other than the experiment's.
    """
    deadline = time.perf_counter() + seconds
    if not torch.cuda.is_available():
        sys.exit("device: expected a CUDA device, got none; nothing was run")
    changes = {} if batches is None else {"n_batches": batches}
    wanted = [experiments.get(name).vary(**changes) for name in names]
    (out / "checkpoints").mkdir(parents=True, exist_ok=True)
    path = out / "device.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"ensembles": {}}

    def note(**entries: object) -> None:
        found.update(entries)
        store.write(path, (json.dumps(found, indent=1) + "\n").encode())

    note(device=torch.cuda.get_device_name(), torch=torch.__version__, date=str(date.today()))
    if "tests" not in found:
        note(tests=gpu_tests(), product_rate_gflops=product_rates(), rollout_seconds=rollout())
    print(json.dumps({key: value for key, value in found.items() if key != "ensembles"}), flush=True)
    stored = json.loads((ROOT / "data" / "results" / "losses.json").read_text())
    try:
        for experiment in wanted:
            if experiment.name not in found["ensembles"]:
                row = train(experiment, out, deadline, found["product_rate_gflops"])
                row["stored_losses"] = stored.get(experiment.name)
                note(ensembles=found["ensembles"] | {experiment.name: row})
                print(experiment.name, json.dumps(row), flush=True)
    except OutOfTimeError:
        print(f"stopped after {seconds:g} s; the same command goes on")


def gpu_tests() -> str:
    """The last line of the tests that say something about a CUDA device."""
    # Other tests may need what such a machine lacks.
    files = [path for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in path.read_text()]
    options = ["-q", "-m", "gpu", "--device", "cuda", "-o", "addopts="]
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        print(result.stdout[-4000:], result.stderr[-2000:])
    return result.stdout.strip().splitlines()[-1]


def product_rates() -> dict[str, float]:
    """The card's own rate for products of 8192 x 8192 matrices, GFLOP/s, by precision."""
    rates = {}
    for precision, dtype in training.PRECISIONS.items():
        a, b = torch.randn(2, 8192, 8192, device="cuda").to(dtype)
        rates[precision] = 2 * 8192**3 * 5 / timed(lambda a=a, b=b: [a @ b for _ in range(5)]) / 1e9
    return rates


def rollout() -> float:
    """Seconds for 200 decoded quiescent trajectories of 1 000 steps of five networks."""
    experiment, generator = experiments.get("position-noisy-unbiased"), torch.Generator("cuda").manual_seed(0)
    networks = phases.untrained(experiment, N_NETWORKS, generator)
    start = phases.starts(networks, 200, generator)
    return timed(lambda: phases.quiescent(networks, 1000, experiment.quiescent_noise, start, generator))


def train(experiment: experiments.Experiment, out: Path, deadline: float, rates: dict[str, float]) -> dict:
    """Train an ensemble to `out`; seconds, fraction of the card's matrix product, and test losses."""
    # The readout of head direction is float32 whatever the precision, and its ensembles are stored so.
    precision = "float32" if experiment.task.kind == "head-direction" else "bfloat16"
    run = training.Run(experiment, out, N_NETWORKS, precision=precision, device="cuda")
    done = 0
    with tqdm(total=experiment.n_batches, desc=experiment.name, disable=None) as bar:

        def progress(name: str, batches: int, loss: float) -> None:
            nonlocal done
            done += batches
            bar.update(batches)
            if time.perf_counter() > deadline and done < experiment.n_batches:
                raise OutOfTimeError

        begin = time.perf_counter()
        ((_, losses),) = training.serially([run], progress)
    elapsed = time.perf_counter() - begin
    return {
        "precision": precision,
        "seconds": elapsed,
        "product_fraction": flop(experiment) / elapsed / (rates[precision] * 1e9),
        "losses": losses,
    }


def flop(experiment: experiments.Experiment) -> float:
    """Operations in the products of a training: recurrence and readout, forward and twice backward."""
    n, rows = experiment.n_units, experiment.batch_size * experiment.n_steps * experiment.n_batches * N_NETWORKS
    recurrent = 3 if experiment.network == "gru" else 1
    return 6 * rows * n * (recurrent * n + experiment.task.n_cells)


def timed(function) -> float:
    """Seconds of a second call."""
    for _ in range(2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    tyro.cli(main)
