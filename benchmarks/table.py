"""Train the table of experiments from scratch, and print times and test losses beside those of the stored ensembles.

All is trained on the best device at hand, in a temporary folder. A batch is one of every network of an ensemble.
"""

import tempfile
import time
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from reactivation_core import experiments, store, training

# Without those that only measure where the paper's text differs from its released code.
NAMES = tuple(name for name in experiments.EXPERIMENTS if not name.endswith(("-slow", "-unnormalised")))
N_NETWORKS = 5
ROW = "{:<31} {:>8} {:>10}  {:<44}  {}"


def main(names: tyro.conf.Positional[tuple[str, ...]] = NAMES, batches: int | None = None) -> None:
    """Train ensembles from scratch and compare them with those that are stored.

    Args:
        names: experiments, as `reactivation list` names them.
        batches: training batches, if other than the experiment's.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads")
    changes = {} if batches is None else {"n_batches": batches}
    wanted = [experiments.get(name).vary(**changes) for name in names]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoints").mkdir()
        runs = [training.Run(experiment, Path(folder), N_NETWORKS, device=device) for experiment in wanted]
        with tqdm(total=sum(len(run.groups()) * run.experiment.n_batches for run in runs), disable=None) as bar:

            def progress(name: str, done: int, loss: float) -> None:
                bar.set_postfix_str(f"{name}: loss {loss:.2e}", refresh=False)
                bar.update(done)

            tqdm.write(ROW.format("ensemble", "seconds", "s / batch", "test losses", "test losses of the stored"))
            for run in runs:
                start, name = time.perf_counter(), run.experiment.name
                ((_, losses),) = training.serially([run], progress)
                seconds = time.perf_counter() - start
                stored = []
                if (store.ENSEMBLES / f"{name}.safetensors").exists():
                    stored = store.load(name).history[:, -1, 0].tolist()
                times = f"{seconds:.1f}", f"{seconds / run.experiment.n_batches:.4f}"
                tqdm.write(ROW.format(name, *times, *(" ".join(f"{x:.2e}" for x in of) for of in (losses, stored))))
    print(f"{time.perf_counter() - begin:.0f} s in all")


if __name__ == "__main__":
    tyro.cli(main)
