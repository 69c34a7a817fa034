r"""Training: mean squared error over cells, Adam, a test every 100 batches, and checkpoints.

Network `i` of an ensemble is determined by the settings, the seed and `i`: every block of batches and every test draws
from a generator seeded with these and its own number. There is no generator to store, a run can resume at any block,
and a network does not depend on which others are trained beside it. A resumed run ends in the same bytes as an
uninterrupted one on the same machine with the same number of threads.

Source: Krishna et al. (2024), Tables A.1 and A.2.
"""

import ctypes
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reactivation_core import noise, store
from reactivation_core.experiments import Experiment
from reactivation_core.phases import Ensemble, active, untrained
from reactivation_core.recurrence import RECURRENCES, Readable

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Batches whose trajectories are drawn together; tests and checkpoints fall between such blocks.
BLOCK = 20
TEST_EVERY = 100
CHECKPOINT_SECONDS = 30.0

# Called with a network's name, the batches done since the last call, and the training loss.
Progress = Callable[[str, int, float], None]

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# What a stream of random numbers is for.
_INITIAL, _BATCHES, _TEST = range(3)


def stream(
    seed: int, network: int, purpose: int, index: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator for one purpose in the training of one network."""
    key = np.random.SeedSequence((seed, network, purpose, index)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(key))


def test(ensemble: Ensemble, seed: int = 0, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    r"""Loss, decoding error and squared decoding error of each network, `(S,)`, on its fixed test batch.

    The loss is the mean of $(f - o)^2$ over cells, steps and trajectories; the decoding error the mean distance, in
    metres or radians; the squared error what the released code reports, the mean square over coordinates.
    The test batch has one training batch's size, and noise. `first` is the number of the ensemble's first network.
    """
    results = []
    for i in range(len(ensemble)):
        one = ensemble[i]
        generator = stream(seed, first + i, _TEST, device=one.network.D.device)
        size = one.experiment.batch_size, one.experiment.n_steps
        phase = active(one, *size, generator, record=("outputs", "decoded"))
        loss = (phase.outputs - one.task.cells.tuning(phase.s)).square().mean()
        error = one.task.error(phase.decoded, phase.s)
        results.append(torch.stack((loss, error.mean(), error.square().mean() / phase.s.shape[-1])))
    return torch.stack(results, 1).cpu().unbind()


def train(
    experiment: Experiment,
    network: int,
    checkpoint: Path,
    seed: int = 0,
    precision: str = "float32",
    device: str = "cpu",
    progress: Callable[[int, float], None] = lambda batches, loss: None,
) -> Ensemble:
    """Train one network of an ensemble, going on from `checkpoint` if it exists.

    Args:
        network: its number in the ensemble.
        checkpoint: file to keep the state of training in; made, replaced at least every minute, and left there.
        precision: type of the factors in products, "float32" or "bfloat16".
        progress: called after each block with the number of batches done since the last call and the training loss.

    Raises:
        ValueError: if the checkpoint is of other settings or another version, or not whole.
        BlockingIOError: if another process is training to the same checkpoint.
        FloatingPointError: if the loss is no longer finite.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"expected a precision among {', '.join(PRECISIONS)}, got {precision!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device, got none")
    if device == "cpu":
        keep_freed_memory()
    ensemble = untrained(experiment, 1, stream(seed, network, _INITIAL, device=device))
    parameters = dict(ensemble.network.named_parameters())
    adam = torch.optim.Adam(parameters.values(), lr=experiment.learning_rate)
    adam.zero_grad()
    recurrence = RECURRENCES.get(type(ensemble.network), Readable)(
        ensemble.network, ensemble.task, experiment.batch_size, experiment.n_steps, PRECISIONS[precision]
    )
    made_by = {
        "experiment": experiment.model_dump_json(),
        "network": str(network),
        "seed": str(seed),
        "precision": precision,
        "device": torch.device(device).type,
        "version": version("reactivation-core"),
    }
    with store.lock(checkpoint):
        tests, done = _resume(checkpoint, made_by, parameters, adam, experiment.n_batches)
        progress(done, float("nan"))
        saved = time.monotonic()
        while done < experiment.n_batches:
            generator = stream(seed, network, _BATCHES, done, device)
            block = min(BLOCK, experiment.n_batches - done)
            batches = ensemble.task.sample(block * experiment.batch_size, experiment.n_steps, generator)
            for batch in zip(*(part.split(experiment.batch_size, 1) for part in batches), strict=True):
                if experiment.sigma > 0:
                    noise.LAWS[experiment.noise](recurrence.eta, experiment.dt, generator)
                loss = recurrence(type(batches)(*batch), experiment.sigma)
                adam.step()
            done += block
            if not loss.isfinite().all():
                raise FloatingPointError(
                    f"the training loss of network {network} is {loss.item()} after {done} batches"
                )
            if done % TEST_EVERY == 0 or done == experiment.n_batches:
                tests.append(torch.cat(test(ensemble, seed, network)))
            progress(block, loss.item())
            if time.monotonic() - saved > CHECKPOINT_SECONDS or done == experiment.n_batches:
                _save(checkpoint, made_by, parameters, adam, tests, done)
                saved = time.monotonic()
    history = torch.stack(tests)
    return replace(ensemble, history=history[None, :, :2], squared_error=history[None, :, 2])


@dataclass(frozen=True)
class Run:
    """The training of an ensemble: all that a process needs to know to take part in it."""

    experiment: Experiment
    folder: Path
    n_networks: int
    seed: int = 0
    precision: str = "float32"
    device: str = "cpu"

    def train(self, network: int, progress: Progress = lambda name, batches, loss: None) -> Ensemble:
        """Train one network, to its checkpoint."""
        name = f"{self.experiment.name}.{network}"
        checkpoint = self._checkpoint(network)
        return train(
            self.experiment, network, checkpoint, self.seed, self.precision, self.device, partial(progress, name)
        )

    @property
    def path(self) -> Path:
        """Where the ensemble is stored."""
        return self.folder / f"{self.experiment.name}.safetensors"

    def stored(self) -> list[Ensemble]:
        """What is stored of the ensemble already: one, to be grown, or none.

        Raises:
            ValueError: if it is of other settings, another seed or precision, or cannot be read.
        """
        if not self.path.exists():
            return []
        ensemble, (_, header) = store.load(self.path), store.unpack(store.read(self.path))
        expected = self.experiment.model_dump() | self._header
        try:
            _expect(expected, header | ensemble.experiment.model_dump())
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}; remove it to train it anew") from None
        return [ensemble]

    def missing(self) -> range:
        """The numbers of the networks that are not stored yet."""
        return range(sum(map(len, self.stored())), self.n_networks)

    def store(self) -> tuple[Path, list[float]]:
        """Store the ensemble once its networks are trained; returns its path and their last test losses."""
        missing = self.missing()
        ensemble = join([*self.stored(), *map(self.train, missing)])
        path = store.save(ensemble, self.folder, **self._header)
        for network in missing:
            self._checkpoint(network).unlink(missing_ok=True)
        return path, ensemble.history[:, -1, 0].tolist()

    @property
    def _header(self) -> dict[str, str]:
        return {"seed": str(self.seed), "precision": self.precision}

    def _checkpoint(self, network: int) -> Path:
        return self.folder / "checkpoints" / f"{self.experiment.name}.{network}.safetensors"


def serially(runs: Iterable[Run], progress: Progress) -> Iterator[tuple[Path, list[float]]]:
    """Train and store one ensemble after the other, in this process; yields what `Run.store` returns."""
    for run in runs:
        for network in run.missing():
            run.train(network, progress)
        yield run.store()


def join(ensembles: list[Ensemble]) -> Ensemble:
    """One ensemble of several trained with the same settings."""
    first = ensembles[0]
    parameters = {
        name: torch.cat([getattr(e.network, name).detach() for e in ensembles])
        for name, _ in first.network.named_parameters()
    }
    network = type(first.network)(parameters, first.network.tau, first.network.dt)
    cells = [next(e.task.cells.buffers()) for e in ensembles]
    preferred = torch.cat(cells) if cells[0].ndim == 3 else cells[0]
    return Ensemble(
        first.experiment,
        first.experiment.task.restore(len(ensembles), preferred),
        network,
        torch.cat([e.history for e in ensembles]),
        torch.cat([e.squared_error for e in ensembles]),
    )


def _save(path, made_by, parameters, adam, tests, done) -> None:
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, state in adam.state[value].items():
            tensors[f"adam.{name}.{key}"] = state
    tensors["tests"] = torch.stack(tests) if tests else torch.zeros(0, 3)
    store.write(path, store.pack(tensors, made_by | {"batches": str(done)}))


def _resume(path, made_by, parameters, adam, n_batches) -> tuple[list[Tensor], int]:
    if not path.exists():
        return [], 0
    try:
        tensors, header = store.unpack(store.read(path))
        # The first version did not write its number.
        header.setdefault("version", "0.1.0")
        _expect(made_by, header)
        done = int(header.get("batches", ""))
        shapes = {"tests": (done // TEST_EVERY + (done == n_batches and done % TEST_EVERY > 0), 3)}
        for name, value in parameters.items():
            shapes |= dict.fromkeys(
                (f"parameter.{name}", f"adam.{name}.exp_avg", f"adam.{name}.exp_avg_sq"), tuple(value.shape)
            )
            shapes[f"adam.{name}.step"] = ()
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        wrong = {name for name, _ in shapes.items() ^ found.items()}
        if wrong:
            raise ValueError(f"expected other tensors {', '.join(sorted(wrong))} after {done} batches")
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}; remove it to start again") from None
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"parameter.{name}"])
            prefix = f"adam.{name}."
            adam.state[value] = {
                key.removeprefix(prefix): state if key.endswith("step") else state.to(value.device)
                for key, state in tensors.items()
                if key.startswith(prefix)
            }
    return list(tensors["tests"]), done


def _expect(expected: dict, got: dict) -> None:
    differing = [name for name, value in expected.items() if got.get(name) != value]
    if differing:
        expected, got = ({name: of.get(name) for name in differing} for of in (expected, got))
        raise ValueError(f"of another run: expected {expected}, got {got}")


def keep_freed_memory() -> None:
    """Keep the C library from giving large freed blocks back to the system between operations.

    Every batch would then pay for new pages, more than half of its time. glibc does this of itself once a block of
    31 MiB was freed, but not where its environment sets a threshold, as that of a dask worker does.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 31 << 20)
        mallopt(_M_TRIM_THRESHOLD, 62 << 20)
