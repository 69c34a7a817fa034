"""The command line, `reactivation`: parsing and messages; all work is done by the library."""

import io
import json
import os
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from numpy import ndarray
from tqdm import tqdm

from reactivation_core import cluster, experiments, phases, statistics, store, training
from reactivation_core.edition import claims, execution
from reactivation_core.experiments import PositionSettings
from reactivation_core.protocols import overview

# Between two lines on the progress of a training that no terminal shows.
LINE_SECONDS = 60.0

Names = tyro.conf.Positional[tuple[str, ...]]


@dataclass
class List:
    """List the experiments: what each is, and whether its ensemble is there."""

    def run(self) -> None:
        for name, experiment in experiments.EXPERIMENTS.items():
            there = "trained" if (store.ENSEMBLES / f"{name}.safetensors").is_file() else "-"
            law = experiment.noise if experiment.sigma > 0 else "no"
            print(
                f"{name:<37} {there:<8} {experiment.network.upper()} {experiment.n_units}, {law} noise,"
                f" {experiment.n_batches} batches of {experiment.batch_size}"
            )


@dataclass
class Train:
    """Train ensembles and store them. A run that was stopped goes on from its checkpoints, by the same command.

    Of an ensemble that is named, and there with fewer networks than asked for, only the missing ones are trained."""

    names: Names = ()
    """Experiments, as `reactivation list` names them."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train every experiment that is not there yet."""
    set: tyro.conf.UseAppendAction[tuple[Annotated[str, tyro.conf.arg(metavar="SETTING=VALUE")], ...]] = ()
    """Train a variation: another value of a setting, as `sigma=0.1` or `task.motion.speed=0.2`; may be repeated."""
    name: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The variation's name."""
    networks: int = 5
    """Networks per ensemble."""
    batches: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Training batches, if other than the experiment's."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Seed of the initial weights, trajectories and noise: that of the ensemble which grows, or else 0."""
    precision: Literal["float32", "bfloat16", "auto"] | None = None
    """Type of the factors in products; sums and parameters are float32. That of the ensemble which grows, or else
    float32; `auto` is the faster one on this machine."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    together: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train all networks of an ensemble in one computation on the CPU, too: faster where they are small."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """CPU threads, if other than all, or than one a worker."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Train on so many processes of this machine, a network each at a time; an ensemble on a CUDA device."""
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Train on a cluster: the address of its dask scheduler, as tcp://HOST:8786."""
    out: Path = store.ENSEMBLES
    """Folder for the ensembles and, below it, `checkpoints`; workers must share it."""

    def run(self) -> None:
        if bool(self.names) == self.all:
            raise ValueError("expected names of experiments or --all, got " + ("both" if self.all else "neither"))
        if self.workers is not None and self.scheduler is not None:
            raise ValueError("expected --workers or --scheduler, got both")
        for name in ("networks", "threads", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected --{name} >= 1, got {value}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"expected --seed >= 0, got {self.seed}")
        device = self.device
        if device == "auto":
            # Of the devices of a cluster's workers nothing is known here.
            device = "cuda" if torch.cuda.is_available() and self.scheduler is None else "cpu"
        precision = self._precision(device)
        changes = {} if self.batches is None else {"n_batches": self.batches}
        wanted = [experiments.get(name).vary(**changes) for name in self.names or experiments.EXPERIMENTS]
        if self.set or self.name:
            wanted = [self._variation(wanted)]
        folder = self.out.absolute()
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        runs = []
        for experiment in wanted:
            settings = self.seed or 0, precision or "float32", device, self.together
            run = training.Run(experiment, folder, self.networks, *settings)
            if run.path.exists():
                ensemble, header = store.restore(run.path, experiment.name)
                if self.all or len(ensemble) >= self.networks:
                    print(f"{run.path} is there already, with {len(ensemble)} networks; --networks adds to a named one")
                    continue
                run = replace(
                    run,
                    seed=int(header.get("seed", 0)) if self.seed is None else self.seed,
                    precision=precision or header.get("precision", run.precision),
                )
            runs.append(run)
        total, done, said = sum(run.experiment.n_batches * len(run.groups()) for run in runs), 0, time.monotonic()
        with tqdm(total=total, disable=None) as bar:

            def progress(name: str, batches: int, loss: float) -> None:
                nonlocal done, said
                done += batches
                bar.set_postfix_str(f"{name}: loss {loss:.2e}", refresh=False)
                bar.update(batches)
                if bar.disable and time.monotonic() - said > LINE_SECONDS:
                    print(f"{done} of {total} batches; {name}: loss {loss:.2e}", flush=True)
                    said = time.monotonic()

            if self.workers is None and self.scheduler is None:
                if self.threads is not None:
                    torch.set_num_threads(self.threads)
                stored = training.serially(runs, progress)
            else:
                stored = cluster.distributed(runs, progress, self.scheduler, self.workers, self.threads or 1)
            for path, losses in stored:
                tqdm.write(f"{path}: test losses {', '.join(f'{loss:.2e}' for loss in losses)}")

    def _variation(self, of: list[experiments.Experiment]) -> experiments.Experiment:
        if len(of) != 1 or not self.set or not self.name:
            raise ValueError("expected one experiment, --set and --name for a variation, got fewer or more")
        if self.name in experiments.EXPERIMENTS or not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"expected --name of letters, digits, - and _ that no experiment has, got {self.name!r}")
        return experiments.change(of[0].vary(name=self.name), self.set)

    def _precision(self, device: str) -> str | None:
        """The precision that is asked for, with a warning where it is the slower one."""
        if self.precision in (None, "float32"):
            return self.precision
        seconds = training.seconds(device)
        if self.precision == "auto":
            return min(seconds, key=lambda name: seconds[name])
        ratio = seconds["bfloat16"] / seconds["float32"]
        if ratio > 1:
            print(f"products in bfloat16 take {ratio:.1f} times as long as in float32 here", file=sys.stderr)
        return self.precision


@dataclass
class Measure:
    """Ask any ensemble what it does awake and asleep: means over networks with 95 % intervals, and their nulls."""

    ensemble: tyro.conf.Positional[str]
    """A name, or the path of a file."""
    protocols: Names = ()
    """Any of tracking, reactivation, memory and pace; all if none is named."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print a list of objects, with the value of every network, instead."""
    seed: int = 0
    """Seed of trajectories and noise."""

    def run(self) -> None:
        for name in self.protocols:
            if name not in overview.QUESTIONS:
                raise ValueError(f"unknown protocol {name!r}: {experiments.hint(name, overview.QUESTIONS)}")
        ensemble = store.load(store.find(self.ensemble))
        found = {}
        for name in tqdm(self.protocols or overview.QUESTIONS, disable=None):
            found |= overview.QUESTIONS[name](ensemble, torch.Generator().manual_seed(self.seed))
        if self.json:
            entries = [
                {"measure": name, "unit": m.unit, "of": m.of, "values": m.values.tolist(), "null": m.null.tolist()}
                for name, m in found.items()
            ]
            print(json.dumps(entries, indent=1))
            return
        for name, m in found.items():
            print(f"{name}: {_mean(m.values)} {m.unit}".rstrip() + f"; {m.of}: {_mean(m.null)}")


def _mean(values: ndarray) -> str:
    return str(statistics.interval(values)) if len(values) > 1 else f"{values[0]:.3g} (one network)"


@dataclass
class Show:
    """Draw what the first network of any ensemble reports awake and asleep, as Figs. 1 and 3 do."""

    ensemble: tyro.conf.Positional[str]
    """A name, or the path of a file."""
    out: Path
    """The picture; its suffix says which kind, as .png, .pdf or .svg."""
    seed: int = 0
    """Seed of trajectories and noise."""

    def run(self) -> None:
        # Only here, as it takes a second.
        from reactivation_core import figures

        network = store.load(store.find(self.ensemble))[0]
        experiment, generator = network.experiment, torch.Generator().manual_seed(self.seed)
        n = overview.N_TRAJECTORIES
        awake = phases.active(network, n, experiment.n_steps, generator).decoded[0].numpy()
        c = experiment.quiescent_noise**2
        asleep = phases.sleep(network, n, experiment.n_quiescent_steps, generator, c).decoded[0].numpy()
        if isinstance(experiment.task, PositionSettings):
            figure = figures.positions(awake, asleep, experiment.task.motion.box)
        else:
            figure = figures.turned(awake.ravel(), asleep.ravel())
        figure.savefig(self.out)


@dataclass
class RunChapters:
    """Run chapters of the book again, in place, and make their measurements the reference."""

    chapters: Names = ()
    """Chapters by file name, as `figure_1`; all if none is named."""

    def run(self) -> None:
        known = execution.notebooks()
        unknown = [name for name in self.chapters if name not in known]
        if unknown:
            raise ValueError(f"unknown chapter {unknown[0]!r}: {experiments.hint(unknown[0], known)}")
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
        claims.load()
        for notebook in execution.notebooks().values():
            claims.results(notebook.relative_to(execution.BOOK).with_suffix("").as_posix())
        for name, problem in found.items():
            print(f"{name}: {problem or 'whole'}")
        problems = sum(problem is not None for problem in found.values())
        if problems:
            raise ValueError(f"{problems} of {len(found)} ensembles in {self.folder} have problems")
        print(f"{len(found)} ensembles, {claims.CLAIMS.name} and the results are whole")


@dataclass
class Scorecard:
    """Print every claim of the paper, and every prediction beyond it, with its value, 95 % interval and verdict."""

    paper: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only the claims of the paper."""
    beyond: tyro.conf.FlagCreatePairsOff[bool] = False
    """Only the predictions beyond it."""
    part: Annotated[str | None, tyro.conf.arg(metavar="PART")] = None
    """Only what this part of the book measures, or this page: results, or results/figure_1."""
    verdict: claims.Verdict | None = None
    """Only what has this verdict, for the paper's noise."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print a list of objects instead."""

    def run(self) -> None:
        everything = entries = claims.scorecard()
        if self.paper != self.beyond:
            entries = [entry for entry in entries if entry["section"] == ("paper" if self.paper else "beyond")]
        if self.part is not None:
            parts = sorted({part for entry in entries for part in (entry["chapter"], entry["chapter"].split("/")[0])})
            if self.part not in parts:
                raise ValueError(f"expected --part among {', '.join(parts)}, got {self.part}")
            entries = [entry for entry in entries if f"{entry['chapter']}/".startswith(f"{self.part}/")]
        if self.verdict is not None:
            entries = [entry for entry in entries if entry["verdict"] == self.verdict]
        if self.json:
            print(json.dumps(entries, indent=1, ensure_ascii=False))
            return
        for entry in entries:
            print(f"{entry['id']}: {entry['statement']} ({entry['source']}){', post hoc' * entry['post_hoc']}")
            for law in ("", *claims.LAWS):
                found = entry[law] if law else entry
                if found:
                    title = f"{claims.TITLES[law]}: " if law else ""
                    print(f"    {title}{found['verdict']}{_measured(entry, found)}")
                    if null := found["null"]:
                        control = null["what"] + ", should pass" * (null["should"] == "pass")
                        print(f"        null: {control}{_numbers(null)}")
        print(claims.limits(everything))
        print(claims.summary(entries))


def _measured(entry: dict, found: dict) -> str:
    if found["value"] is None:
        return ""
    values = ", ".join(f"{value:.3g}" for value in found["values"])
    return f"{_numbers(found)} [{values}], expected {entry['test']} {entry['threshold']:g}"


def _numbers(found: dict) -> str:
    if found["value"] is None:
        return ""
    low, high = found["interval"]
    limits = f" ({low:.3g} to {high:.3g})" if low < high else ""
    return f", {found['value']:.3g}{limits} {found['unit']}".rstrip()


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Measure, tyro.conf.subcommand("measure")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[RunChapters, tyro.conf.subcommand("run-chapters")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Scorecard, tyro.conf.subcommand("scorecard")]
)


def main() -> None:
    """Entry point: one line and exit status 1 for bad input, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        # Whatever the locale; the claims have Greek letters.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    command = tyro.cli(Command, prog="reactivation", description="Offline reactivation in recurrent networks.")
    try:
        command.run()
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads, as `head`, has seen enough. What is left is not written at the end either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except FileNotFoundError as error:
        hint = f"work in a checkout of the repository, or set {store.DATA} to its folder `data`"
        sys.exit(f"reactivation: {error}" + ("" if store.ENSEMBLES.is_dir() else f"; for the book's data {hint}"))
    except (ValueError, OSError, FloatingPointError, AssertionError) as error:
        sys.exit(f"reactivation: {error}")
    except KeyboardInterrupt:
        hint = "; the same command goes on from the last checkpoints" if isinstance(command, Train) else ""
        print(f"\nreactivation: stopped{hint}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
