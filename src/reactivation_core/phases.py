r"""An ensemble awake and asleep.

`active` runs the networks on the task: input $\Delta s$, noise $\sigma\,\eta$. `quiescent` runs them with the input
off, $\Delta s = 0$, and noise $\sqrt c\,\sigma\,\eta$; Eq. (19) has $c = 2$. The noise scale, $\sqrt c$, is an argument
of a phase; nothing of the ensemble changes.

Both go through time in blocks and keep only what is asked for, so that memory is bounded by what is returned. Each
network draws its trajectories and noise from a stream of its own, by its number in the ensemble.

Source: Krishna et al. (2024), Sections 2.4 and 3.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core import noise
from reactivation_core.experiments import Experiment
from reactivation_core.networks import Network, Runnable
from reactivation_core.streams import spawn
from reactivation_core.tasks import PositionTask, Task, must_be, part
from reactivation_core.theory import IdealNetwork

RECORDS = ("states", "outputs", "decoded", "noise")

# Steps that are drawn, read out and decoded together.
_BLOCK = 10


@dataclass(frozen=True)
class Ensemble:
    """`S` networks with their task and settings. `ensemble[i]` is one network, `ensemble[i:j]` a smaller ensemble.

    `history`, `(S, tests, 2)`, holds test loss and decoding error along training; `squared_error`, `(S, tests)`, the
    decoding error as the released code measures it, a mean square over coordinates. `sha256` names the file read, if
    any. `numbers` are those of the networks in the whole, by which they draw random numbers; from 0 if left out.
    """

    experiment: Experiment
    task: Task
    network: Runnable
    history: Float[Tensor, "S tests 2"] | None = None
    squared_error: Float[Tensor, "S tests"] | None = None
    sha256: str = ""
    numbers: range = range(0)

    def __post_init__(self):
        if not self.numbers:
            object.__setattr__(self, "numbers", range(len(self)))

    def __len__(self) -> int:
        return self.network.n_networks

    def __getitem__(self, index: SupportsIndex | slice) -> "Ensemble":
        index = part(index, len(self))
        return replace(
            self,
            task=self.task[index],
            network=self.network[index],
            history=None if self.history is None else self.history[index],
            squared_error=None if self.squared_error is None else self.squared_error[index],
            numbers=self.numbers[index],
        )

    def to(self, device: torch.device | str) -> "Ensemble":
        """A copy of the ensemble on another device."""
        return replace(self, task=copy.deepcopy(self.task).to(device), network=copy.deepcopy(self.network).to(device))


class Phase:
    """What was recorded of a phase; `s` is the true state, awake. It has no entries but those asked for."""

    s: Float[Tensor, "S B T d"]
    states: Float[Tensor, "S B T N_r"]
    outputs: Float[Tensor, "S B T N_o"]
    decoded: Float[Tensor, "S B T d"]
    noise: Float[Tensor, "S B T N_r"]

    def __init__(self, **recorded: Tensor):
        vars(self).update(recorded)


def untrained(experiment: Experiment, n_networks: int, generator: torch.Generator) -> Ensemble:
    """An ensemble with initial weights; the random network of Fig. 2e."""
    if n_networks < 1:
        raise ValueError(f"expected at least one network, got {n_networks}")
    return join([Ensemble(experiment, *experiment.draw(1, one)) for one in spawn(generator, range(n_networks))])


def join(ensembles: list[Ensemble]) -> Ensemble:
    """One ensemble of several with the same settings, all trained or none."""
    first, network = ensembles[0], must_be(Network, ensembles[0].network)
    parameters = {
        name: torch.cat([getattr(e.network, name).detach() for e in ensembles])
        for name, _ in network.named_parameters()
    }
    network = type(network)(parameters, network.tau, network.dt)
    cells = [next(e.task.cells.buffers()) for e in ensembles]
    preferred = torch.cat(cells) if cells[0].ndim == 3 else cells[0]
    return Ensemble(
        first.experiment,
        first.experiment.task.restore(network.n_networks, preferred),
        network,
        None if first.history is None else torch.cat([must_be(Tensor, e.history) for e in ensembles]),
        None if first.history is None else torch.cat([must_be(Tensor, e.squared_error) for e in ensembles]),
    )


def ideal(
    experiment: Experiment,
    n_points: int,
    generator: torch.Generator,
    D: Float[Tensor, "N_o N_r"] | None = None,
    kind: type[IdealNetwork] = IdealNetwork,
) -> Ensemble:
    """The ideal network of an experiment's task and noise, `theory.IdealNetwork`: an ensemble of one.

    Args:
        n_points: states that the network knows, on a side of a grid over the box or around the ring. Those next to
            each other should lie closer in activity than the noise is wide.
        generator: draws the task, and the readout where none is given.
        D: readout; a random orthogonal one if left out.
        kind: the class of the network.

    Raises:
        ValueError: if the readout does not have the experiment's shape.
    """
    task, n_cells = experiment.task.draw(1, generator), experiment.task.n_cells
    if D is None:
        normal = torch.randn(n_cells, n_cells, generator=generator, dtype=torch.float64, device=generator.device)
        orthogonal: Tensor = torch.linalg.qr(normal).Q
        D = orthogonal
    if D.shape != (n_cells, experiment.n_units):
        raise ValueError(f"expected a readout of shape {(n_cells, experiment.n_units)}, got {tuple(D.shape)}")
    if isinstance(task, PositionTask):
        edge = task.motion.box / 2
        axis = torch.linspace(-edge, edge, n_points, device=generator.device)
        s = torch.cartesian_prod(axis, axis)
    else:
        s = (torch.arange(n_points, device=generator.device) * (2 * math.pi / n_points) - math.pi)[:, None]
    return Ensemble(experiment, task, kind(task.cells, s, D, experiment.sigma**2 * experiment.dt))


@torch.no_grad()
def active(
    ensemble: Ensemble,
    n_trajectories: int,
    n_steps: int,
    generator: torch.Generator | Sequence[torch.Generator],
    noise_scale: float = 1.0,
    record: Iterable[str] = ("decoded",),
    every: int = 1,
) -> Phase:
    """Run the networks awake on freshly drawn trajectories.

    Args:
        n_trajectories, n_steps: `B` and `T`.
        generator: draws the trajectories and the noise, on the ensemble's device; or a stream for each network.
        noise_scale: factor on the noise of training.
        record: any of "states", "outputs", "decoded", "noise"; the true states `s` are always returned.
        every: steps from one that is recorded to the next; the axis of time then holds `T / every`.

    Raises:
        ValueError: for a size below 1, a noise scale below 0 or not finite, or an unknown record.
    """
    generators = _streams(ensemble, generator)
    batch = ensemble.task.sample(n_trajectories, n_steps, generators)
    r = ensemble.network.encode(ensemble.task.cells.tuning(batch.s[:, :, 0]))
    phase = _run(ensemble, r, n_steps, batch.ds, noise_scale, generators, record, every)
    return Phase(s=batch.s[:, :, every::every], **vars(phase))


@torch.no_grad()
def quiescent(
    ensemble: Ensemble,
    n_steps: int,
    noise_scale: float,
    start: Float[Tensor, "S B N_r"],
    generator: torch.Generator | Sequence[torch.Generator],
    record: Iterable[str] = ("decoded",),
    every: int = 1,
) -> Phase:
    r"""Run the networks asleep: no input, and the noise of training times `noise_scale` ($\sqrt 2$ in Eq. 19).

    Args:
        n_steps: `T`.
        start: activity $r(0)$, for example from `starts`.
        generator: draws the noise, on the ensemble's device; or a stream for each network.
        record: any of "states", "outputs", "decoded", "noise".
        every: steps from one that is recorded to the next.

    Raises:
        ValueError: for a size below 1, a noise scale below 0 or not finite, a start of the wrong shape, or an unknown
            record.
    """
    _check_start(ensemble, start)
    return _run(ensemble, start, n_steps, None, noise_scale, _streams(ensemble, generator), record, every)


@torch.no_grad()
def driven(
    ensemble: Ensemble,
    ds: Float[Tensor, "networks trajectories T N_in"],
    noise_scale: float,
    start: Float[Tensor, "S B N_r"],
    generator: torch.Generator | Sequence[torch.Generator],
    record: Iterable[str] = ("decoded",),
    every: int = 1,
) -> Phase:
    """Run the networks on any input, from any activity; arguments as of `quiescent`.

    Raises:
        ValueError: as there, or for an input of the wrong shape.
    """
    _check_start(ensemble, start)
    if ds.shape[:2] != start.shape[:2] or ds.shape[3] != ensemble.task.n_inputs:
        expected = f"({start.shape[0]}, {start.shape[1]}, T, {ensemble.task.n_inputs})"
        raise ValueError(f"expected an input of shape {expected}, got {tuple(ds.shape)}")
    return _run(ensemble, start, ds.shape[2], ds, noise_scale, _streams(ensemble, generator), record, every)


@torch.no_grad()
def starts(
    ensemble: Ensemble, n_trajectories: int, generator: torch.Generator | Sequence[torch.Generator]
) -> Float[Tensor, "S B N_r"]:
    """Activity that encodes the start states of a waking batch; where the paper's quiescent runs begin."""
    batch = ensemble.task.sample(n_trajectories, 1, _streams(ensemble, generator))
    return ensemble.network.encode(ensemble.task.cells.tuning(batch.s[:, :, 0]))


def sleep(
    ensemble: Ensemble,
    n_trajectories: int,
    n_steps: int,
    generator: torch.Generator,
    c: float = 2.0,
    record: Iterable[str] = ("decoded",),
    every: int = 1,
) -> Phase:
    r"""`quiescent` as the paper runs it: from `starts`, with `c` times the variance of the noise awake (Eq. 19)."""
    start = starts(ensemble, n_trajectories, generator)
    return quiescent(ensemble, n_steps, math.sqrt(c), start, generator, record, every)


def settle(r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Activity with what has decayed to nothing set to 0. Closed units without noise would end as subnormal numbers,
    with which many CPUs are a hundred times slower."""
    return torch.where(r.abs() < 1e-30, 0.0, r)


def _check_start(ensemble: Ensemble, start: Tensor) -> None:
    network = ensemble.network
    if start.ndim != 3 or (start.shape[0], start.shape[2]) != (network.n_networks, network.n_state):
        expected = f"({network.n_networks}, B, {network.n_state})"
        raise ValueError(f"expected a start of shape {expected}, got {tuple(start.shape)}")


def _streams(ensemble: Ensemble, generator: torch.Generator | Sequence[torch.Generator]) -> Sequence[torch.Generator]:
    return spawn(generator, ensemble.numbers) if isinstance(generator, torch.Generator) else generator


def _run(ensemble, r, n_steps, ds, noise_scale, generators, record, every) -> Phase:
    if isinstance(record, str):
        raise ValueError(f"expected a tuple of records, such as ({record!r},), got {record!r}")
    if not set(record) <= set(RECORDS):
        raise ValueError(f"expected records among {', '.join(RECORDS)}, got {record!r}")
    record = set(record)
    if not (math.isfinite(noise_scale) and noise_scale >= 0):
        raise ValueError(f"expected a finite noise scale >= 0, got {noise_scale}")
    if n_steps < 1:
        raise ValueError(f"expected n_steps >= 1, got {n_steps}")
    if every < 1 or n_steps % every:
        raise ValueError(f"expected every >= 1 that divides {n_steps} steps, got {every}")
    network, task, experiment = ensemble.network, ensemble.task, ensemble.experiment
    S, B, N = *r.shape[:2], network.n_units
    sigma, law = noise_scale * experiment.sigma, noise.LAWS[experiment.noise]
    if ds is None:
        ds = r.new_zeros(1, 1, 1, task.n_inputs).expand(S, B, n_steps, -1)
    kept: dict[str, Tensor] = {}
    for begin in range(0, n_steps, _BLOCK):
        end = min(begin + _BLOCK, n_steps)
        eta = r.new_zeros(S, end - begin, B, N)
        if sigma > 0:
            noise.each(law, eta, experiment.dt, generators).mul_(sigma)
        eta = eta.transpose(1, 2)
        first, states = -(begin + 1) % every, []
        for t in range(end - begin):
            r = network.step(r, ds[:, :, begin + t], eta[:, :, t])
            if t % every == first:
                states.append(r)
        r = settle(r)
        if not states:
            continue
        block = {"states": torch.stack(states, 2), "noise": eta[:, :, first::every]}
        if record & {"outputs", "decoded"}:
            block["outputs"] = network.readout(block["states"])
        if "decoded" in record:
            block["decoded"] = task.cells.decode(block["outputs"])
        for name in record:
            if name not in kept:
                kept[name] = r.new_empty(S, B, n_steps // every, block[name].shape[-1])
            kept[name][:, :, begin // every : end // every] = block[name]
    return Phase(**kept)
