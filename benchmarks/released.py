"""Time training beside the paper's released trainer, in turns on the same cores.

Given a checkout of the released code (github.com/nandahkrishna/RNNReactivation), both train one noisy position network
of the paper's size for a few batches, each turn from its start, and the best turn of each counts. Writes the ratios,
with the checkout's commit, to `data/results/released.json`, which the book's page on cost shows.
"""

import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro
from training import RESULTS, machine

from reactivation_core import experiments, training

N_BATCHES, ROUNDS = 20, 3


def main(path: tyro.conf.Positional[Path]) -> None:
    """Compare with the released code.

    Args:
        path: a checkout of it.
    """
    if not (path / "trainer.py").is_file():
        sys.exit(f"released: expected a checkout of the released code with a trainer.py, got {path}")
    training.keep_freed_memory()
    git = ["git", "-C", str(path), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    functions = {"released": released(path)} | {name: ours(name) for name in training.PRECISIONS}
    best = dict.fromkeys(functions, math.inf)
    for _ in range(ROUNDS):
        for name, function in functions.items():
            begin = time.perf_counter()
            function()
            best[name] = min(best[name], (time.perf_counter() - begin) / N_BATCHES)
    found = machine() | {"commit": commit}
    found |= {f"seconds_{name}": seconds for name, seconds in best.items()}
    found |= {f"speedup_{name}": best["released"] / best[name] for name in training.PRECISIONS}
    print(json.dumps(found, indent=1))
    (RESULTS / "released.json").write_text(json.dumps(found, indent=1) + "\n")


def ours(precision: str) -> Callable[[], object]:
    """Train one network of `position-noisy-unbiased`, with its initial weights, a test and a checkpoint."""
    experiment = experiments.get("position-noisy-unbiased").vary(n_batches=N_BATCHES)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            training.train(experiment, range(1), Path(folder) / "checkpoint.safetensors", precision=precision)

    return run


def released(path: Path) -> Callable[[], object]:
    """Train one network with the released trainer, at the settings of its `noisy_unbiased` configuration."""
    sys.path.insert(0, str(path))
    from models import rnn  # pyright: ignore[reportMissingImports]
    from tasks import spatial_navigation  # pyright: ignore[reportMissingImports]
    from trainer import Trainer  # pyright: ignore[reportMissingImports]

    sizes = {"n_in": 2, "n_rec": 512, "n_out": 512, "n_init": 512}

    def run() -> None:
        task = spatial_navigation.SpatialNavigation(
            sigma=11.52, b=0.26 * math.pi, sequence_length=100, batch_size=200, device="cpu"
        )
        model = rnn.RNN(task=task, **sizes, sigma_rec=0.01, device="cpu")
        never = {"test_freq": N_BATCHES + 1, "save_freq": N_BATCHES + 1}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            Trainer(model, task.get_generator(), {}, **never, path=folder, device="cpu").train(N_BATCHES)

    return run


if __name__ == "__main__":
    torch.manual_seed(0)
    tyro.cli(main)
