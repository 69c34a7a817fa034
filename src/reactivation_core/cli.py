"""The command line, `reactivation`: parsing and messages; all work is done by the library."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tqdm import tqdm

from reactivation_core import execution, experiments, store, training
from reactivation_core.claims import CLAIMS, load, results

Names = tyro.conf.Positional[tuple[str, ...]]


@dataclass
class List:
    """List the experiments: what each is, and whether its ensemble is there."""

    def run(self) -> None:
        for name, experiment in experiments.EXPERIMENTS.items():
            there = "trained" if (store.ENSEMBLES / f"{name}.safetensors").is_file() else "-"
            law = experiment.noise if experiment.sigma > 0 else "no"
            print(
                f"{name:<34} {there:<8} {experiment.network.upper()} {experiment.n_units}, {law} noise,"
                f" {experiment.n_batches} batches of {experiment.batch_size}"
            )


@dataclass
class Train:
    """Train ensembles and store them. A run that was stopped goes on from its checkpoints, by the same command."""

    names: Names = ()
    """Experiments, as `reactivation list` names them."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train every experiment that is not there yet."""
    networks: int = 5
    """Networks per ensemble."""
    batches: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Training batches, if other than the experiment's."""
    seed: int = 0
    """Seed of the initial weights, trajectories and noise."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the factors in products; sums and parameters are float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """CPU threads, if other than all."""
    out: Path = store.ENSEMBLES
    """Folder for the ensembles and, below it, `checkpoints`."""

    def run(self) -> None:
        if bool(self.names) == self.all:
            raise ValueError("expected names of experiments or --all, got " + ("both" if self.all else "neither"))
        if self.networks < 1:
            raise ValueError(f"expected --networks >= 1, got {self.networks}")
        if self.threads is not None:
            if self.threads < 1:
                raise ValueError(f"expected --threads >= 1, got {self.threads}")
            torch.set_num_threads(self.threads)
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        elif device == "cuda" and not torch.cuda.is_available():
            raise ValueError("expected a CUDA device for --device cuda, got none")
        changes = {} if self.batches is None else {"n_batches": self.batches}
        wanted = [experiments.get(name).vary(**changes) for name in self.names or experiments.EXPERIMENTS]
        checkpoints = self.out / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        for experiment in wanted:
            path = self.out / f"{experiment.name}.safetensors"
            if path.exists():
                print(f"{path} is there already; remove it to train it anew")
                continue
            files = [checkpoints / f"{experiment.name}.{i}.safetensors" for i in range(self.networks)]
            with tqdm(total=experiment.n_batches * self.networks, desc=experiment.name, disable=None) as bar:

                def progress(batches: int, loss: float, bar=bar) -> None:
                    bar.set_postfix_str(f"loss {loss:.2e}", refresh=False)
                    bar.update(batches)

                networks = [
                    training.train(experiment, i, file, self.seed, self.precision, device, progress)
                    for i, file in enumerate(files)
                ]
            ensemble = training.join(networks)
            path = store.save(ensemble, self.out, seed=str(self.seed), precision=self.precision)
            for file in files:
                file.unlink()
            losses = ", ".join(f"{loss:.2e}" for loss in ensemble.history[:, -1, 0])
            print(f"{path}: test losses {losses}")


@dataclass
class RunChapters:
    """Run chapters of the book again, in place, and make their measurements the reference."""

    chapters: Names = ()
    """Chapters by file name, as `figure_1`; all if none is named."""

    def run(self) -> None:
        known = execution.notebooks()
        unknown = [name for name in self.chapters if name not in known]
        if unknown:
            raise ValueError(f"expected chapters among {', '.join(known)}, got {', '.join(unknown)}")
        bar = tqdm(self.chapters or known, disable=None)
        for name in bar:
            bar.set_description(name)
            print(f"{name}: {execution.run(known[name]):.0f} s")


@dataclass
class Verify:
    """Check every file in data: ensembles against their checksums and settings, claims, and results."""

    folder: tyro.conf.Positional[Path] = store.ENSEMBLES
    """Folder of the ensembles."""

    def run(self) -> None:
        found = store.verify(self.folder, progress=lambda names: tqdm(names, disable=None))
        for chapter in sorted({claim.chapter for claim in load()}):
            results(chapter)
        for name, problem in found.items():
            print(f"{name}: {problem or 'whole'}")
        problems = sum(problem is not None for problem in found.values())
        if problems:
            raise ValueError(f"{problems} of {len(found)} ensembles in {self.folder} have problems")
        print(f"{len(found)} ensembles, {CLAIMS.name} and the results are whole")


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[RunChapters, tyro.conf.subcommand("run-chapters")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
)


def main() -> None:
    """Entry point: one line and exit status 1 for bad input, 130 when interrupted."""
    command = tyro.cli(Command, prog="reactivation", description="Offline reactivation in recurrent networks.")
    try:
        command.run()
    except (ValueError, OSError, FloatingPointError, AssertionError) as error:
        sys.exit(f"reactivation: {error}")
    except KeyboardInterrupt:
        print("\nreactivation: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
