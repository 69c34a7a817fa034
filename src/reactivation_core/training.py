r"""Training: mean squared error over cells, Adam, a test every 100 batches, and checkpoints.

Network `i` of an ensemble is determined by the settings, the seed and `i`: every block of batches and every test draws
from a generator seeded with these and its own number. There is no generator to store, a run can resume at any block,
and a network depends on those that are trained beside it by no more than the rounding of products. A run resumed on a
CPU ends in the same bytes as an uninterrupted one on the same machine with the same number of threads.

Source: Krishna et al. (2024), Tables A.1 and A.2.
"""

import ctypes
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor

from reactivation_core import noise, store
from reactivation_core.experiments import Experiment
from reactivation_core.networks import Network
from reactivation_core.phases import Ensemble, active, join
from reactivation_core.recurrence import RECURRENCES, Readable
from reactivation_core.streams import stream
from reactivation_core.tasks import must_be

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Batches whose trajectories are drawn together; tests and checkpoints fall between such blocks.
BLOCK = 20
TEST_EVERY = 100
CHECKPOINT_SECONDS = 30.0

# Batches on a CUDA device before one is captured, as many as in PyTorch's guide.
_EAGER = 3

# Called with a group's name, the batches done since the last call, and the training loss.
Progress = Callable[[str, int, float], None]

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# What a stream of random numbers is for.
_INITIAL, _BATCHES, _TEST = range(3)


def test(ensemble: Ensemble, seed: int = 0, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    r"""Loss, decoding error and squared decoding error of each network, `(S,)`, on its fixed test batch.

    The loss is the mean of $(f - o)^2$ over cells, steps and trajectories; the decoding error the mean distance, in
    metres or radians; the squared error what the released code reports, the mean square over coordinates.
    The test batch has one training batch's size, and noise; of a recording, its windows are of the time that is held
    out. A cost of activity is left out. `first` is the number of the ensemble's first network.
    """
    generators = [stream(seed, first + i, _TEST, 0, device=ensemble.network.D.device) for i in range(len(ensemble))]
    ensemble = replace(ensemble, task=ensemble.task.held_out())
    size = ensemble.experiment.batch_size, ensemble.experiment.n_steps
    phase = active(ensemble, *size, generators, record=("outputs", "decoded"))
    loss = (phase.outputs - ensemble.task.cells.tuning(phase.s)).square().mean((1, 2, 3))
    error = ensemble.task.error(phase.decoded, phase.s)
    return loss.cpu(), error.mean((1, 2)).cpu(), error.square().mean((1, 2)).cpu() / phase.s.shape[-1]


def train(
    experiment: Experiment,
    networks: range,
    checkpoint: Path,
    seed: int = 0,
    precision: str = "float32",
    device: str = "cpu",
    progress: Callable[[int, float], None] = lambda batches, loss: None,
) -> Ensemble:
    """Train a group of networks of an ensemble in one computation, going on from `checkpoint` if it exists.

    Args:
        networks: their numbers in the ensemble.
        checkpoint: file to keep the state of training in; made, replaced after the first block that
            ends 30 s after the last time, and left there.
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
    initial = (experiment.draw(1, stream(seed, i, _INITIAL, 0, device=device)) for i in networks)
    ensemble = join([Ensemble(experiment, *drawn) for drawn in initial])
    network = must_be(Network, ensemble.network)
    parameters = dict(network.named_parameters())
    adam = torch.optim.Adam(parameters.values(), lr=experiment.learning_rate, capturable=device == "cuda")
    recurrence = RECURRENCES.get(type(network), Readable)(
        network,
        ensemble.task,
        experiment.batch_size,
        experiment.n_steps,
        PRECISIONS[precision],
        experiment.truncate,
        experiment.cost,
    )
    # The buffers that every batch is read from, as a CUDA graph must; of this draw only the shapes are used.
    batch = ensemble.task.sample(experiment.batch_size, experiment.n_steps, torch.Generator(device))

    def update() -> Tensor:
        losses = recurrence(batch, experiment.sigma)
        adam.step()
        return losses

    if device == "cuda":
        update = partial(next, _replayed(update))
    made_by = {
        "experiment": experiment.model_dump_json(),
        "network": _label(networks),
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
            generators = [stream(seed, i, _BATCHES, done, device=device) for i in networks]
            block = min(BLOCK, experiment.n_batches - done)
            size = block * experiment.batch_size, experiment.n_steps
            drawn = ensemble.task.sample(*size, generators)
            for parts in zip(*(part.split(experiment.batch_size, 1) for part in drawn), strict=True):
                for buffer, part in zip(batch, parts, strict=True):
                    buffer.copy_(part)
                if experiment.sigma > 0:
                    for eta, generator in zip(recurrence.eta, generators, strict=True):
                        noise.LAWS[experiment.noise](eta, experiment.dt, generator)
                losses = update()
            done += block
            for i, loss in zip(networks, losses.tolist(), strict=True):
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the training loss of network {i} is {loss} after {done} batches")
            if done % TEST_EVERY == 0 or done == experiment.n_batches:
                tests = torch.cat((tests, torch.cat(test(ensemble, seed, networks[0]))[None]))
            progress(block, losses.mean().item())
            if time.monotonic() - saved > CHECKPOINT_SECONDS or done == experiment.n_batches:
                _save(checkpoint, made_by, parameters, adam, tests, done)
                saved = time.monotonic()
    tests = tests.unflatten(1, (3, -1)).permute(2, 0, 1)
    return replace(ensemble, network=network.requires_grad_(False), history=tests[..., :2], squared_error=tests[..., 2])


@dataclass(frozen=True)
class Run:
    """The training of an ensemble: all that a process needs to know to take part in it."""

    experiment: Experiment
    folder: Path
    n_networks: int
    seed: int = 0
    precision: str = "float32"
    device: str = "cpu"
    together: bool = False

    def train(self, networks: range, progress: Progress = lambda name, batches, loss: None) -> Ensemble:
        """Train one of the groups, to its checkpoint."""
        checkpoint, report = self._checkpoint(networks), partial(progress, self.name(networks))
        return train(self.experiment, networks, checkpoint, self.seed, self.precision, self.device, report)

    def name(self, networks: range) -> str:
        """The name of a group."""
        return f"{self.experiment.name}.{_label(networks)}"

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
        ensemble, header = _stored(self.path, store.stamp(self.path))
        expected = self.experiment.model_dump() | self._header
        try:
            _expect(expected, header | ensemble.experiment.model_dump())
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}; choose another folder, or the settings it has") from None
        return [ensemble]

    def groups(self) -> list[range]:
        """The networks that are not stored yet, by number, as they train together: on the CPU each alone, for there
        processes share the work, but where they are to train `together`; on another device all."""
        missing = range(sum(map(len, self.stored())), self.n_networks)
        size = 1 if self.device == "cpu" and not self.together else self.n_networks
        return [missing[i : i + size] for i in range(0, len(missing), size)]

    def store(self) -> tuple[Path, list[float]]:
        """Store the ensemble once its networks are trained; returns its path and their last test losses."""
        groups = self.groups()
        ensemble = join([*self.stored(), *(self.train(group).to("cpu") for group in groups)])
        # What is there with all its networks stays as it is: results are of a file, and name it.
        if groups:
            store.save(ensemble, self.folder, device=self.device, **self._header)
        for group in groups:
            self._checkpoint(group).unlink(missing_ok=True)
        return self.path, must_be(Tensor, ensemble.history)[:, -1, 0].tolist()

    @property
    def _header(self) -> dict[str, str]:
        return {"seed": str(self.seed), "precision": self.precision}

    def _checkpoint(self, networks: range) -> Path:
        return self.folder / "checkpoints" / f"{self.name(networks)}.safetensors"


def serially(runs: Iterable[Run], progress: Progress) -> Iterator[tuple[Path, list[float]]]:
    """Train and store one ensemble after the other, in this process; yields what `Run.store` returns."""
    for run in runs:
        for group in run.groups():
            run.train(group, progress)
        yield run.store()


@lru_cache(maxsize=1)
def _stored(path: Path, stamp: tuple[int, int]) -> tuple[Ensemble, dict[str, str]]:
    """An ensemble that is asked for more than once while it grows; `stamp` tells whether it is still the same file."""
    return store.restore(path)


def _label(networks: range) -> str:
    return f"{networks[0]}-{networks[-1]}" if len(networks) > 1 else f"{networks[0]}"


def _replayed(update: Callable[[], Tensor]) -> Iterator[Tensor]:
    """Results of an update on a CUDA device: the first are computed, all others replayed from a graph captured once.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
    """
    # On the stream of the capture, too: libraries and Adam make there at first use what must not be captured.
    stream = torch.cuda.Stream()
    for _ in range(_EAGER):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = update()
        torch.cuda.current_stream().wait_stream(stream)
        yield result
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        result = update()
    while True:
        graph.replay()
        yield result


def _save(path, made_by, parameters, adam, tests, done) -> None:
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for key, state in adam.state[value].items():
            tensors[f"adam.{name}.{key}"] = state
    store.write(path, store.pack(tensors | {"tests": tests}, made_by | {"batches": str(done)}))


def _resume(path, made_by, parameters, adam, n_batches) -> tuple[Tensor, int]:
    n_results = 3 * len(parameters["D"])
    if not path.exists():
        return torch.zeros(0, n_results), 0
    try:
        tensors, header = store.unpack(store.read(path))
        _expect(made_by, header)
        done = int(header.get("batches", ""))
        n_tests = done // TEST_EVERY + (done == n_batches and done % TEST_EVERY > 0)
        shapes: dict[str, tuple[int, ...]] = {"tests": (n_tests, n_results)}
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
                key.removeprefix(prefix): state.to(value.device)
                for key, state in tensors.items()
                if key.startswith(prefix)
            }
    return tensors["tests"], done


def _expect(expected: dict, got: dict) -> None:
    differing = [name for name, value in expected.items() if got.get(name) != value]
    if differing:
        expected, got = ({name: of.get(name) for name in differing} for of in (expected, got))
        raise ValueError(f"of another run: expected {expected}, got {got}")


def seconds(device: str) -> dict[str, float]:
    """How long the product of a batch's activity with recurrent weights takes on this machine, by its precision."""
    # Where a CUDA toolkit stands beside no card, older versions of PyTorch say so on stderr as this is imported.
    with redirect_stderr(StringIO()):
        from torch.utils.benchmark import Timer

    found = {}
    for name, dtype in PRECISIONS.items():
        factors = {
            "r": torch.ones(200, 512, dtype=dtype, device=device),
            "W": torch.ones(512, 512, dtype=dtype, device=device),
        }
        timer = Timer("r @ W.mT", globals=factors, num_threads=torch.get_num_threads())
        found[name] = timer.blocked_autorange(min_run_time=0.1).median
    return found


def keep_freed_memory() -> None:
    """Keep the C library from giving large freed blocks back to the system between operations.

    Every batch would then pay for new pages, more than half of its time. glibc does this of itself once a block of
    31 MiB was freed, but not where its environment sets a threshold, as that of a dask worker does.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, 31 << 20)
        mallopt(_M_TRIM_THRESHOLD, 62 << 20)
