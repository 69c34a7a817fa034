r"""The two tasks: report $f(s(t))$, given $f(s(0))$ and then only the changes $\Delta s(t)$.

A task joins a motion (`trajectories`) to the cells that encode and decode its states (`cells`).

Source: Krishna et al. (2024), Sections 2.1 and 3.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import SupportsIndex, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reactivation_core import circular
from reactivation_core.cells import HeadDirectionCells, PlaceCells
from reactivation_core.streams import spawn
from reactivation_core.trajectories import Animal, Head, Recorded, Recording, Trajectories

_T = TypeVar("_T")


def must_be(kind: type[_T], value: object) -> _T:
    """A value that is of a kind, without which what is asked has no answer.

    Raises:
        ValueError: if it is of another.
    """
    if not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def part(index: SupportsIndex | slice, n_networks: int) -> slice:
    """The slice that an index stands for, as networks keep their axis `S`.

    Raises:
        IndexError: if there is no such network.
    """
    if isinstance(index, slice):
        return index
    first = range(n_networks)[index]
    return slice(first, first + 1)


class Task(nn.Module, ABC):
    """A motion and the cells that encode its states, for `S` networks: `task[i]` for one, `task[i:j]` for some."""

    n_inputs: int

    def __init__(
        self,
        n_networks: int,
        motion: Animal | Head | Recorded | Recording,
        cells: PlaceCells | HeadDirectionCells,
    ):
        super().__init__()
        self.n_networks, self.motion, self.cells = n_networks, motion, cells

    def sample(
        self, n_trajectories: int, n_steps: int, generator: torch.Generator | Sequence[torch.Generator]
    ) -> Trajectories:
        """Draw states `(S, B, T+1, d)` and their changes `(S, B, T, d)`, on the generator's device.

        Args:
            n_trajectories, n_steps: `B` and `T`.
            generator: one, from which each network gets a stream, or the streams of the networks.
        """
        for name, value in (("n_trajectories", n_trajectories), ("n_steps", n_steps)):
            if value < 1:
                raise ValueError(f"expected {name} >= 1, got {value}")
        if isinstance(generator, torch.Generator):
            generator = spawn(generator, range(self.n_networks))
        return self.motion(n_trajectories, n_steps, generator)

    def held_out(self) -> "Task":
        """The task on motion that training does not meet: the rest of a recording. What is drawn by a law is new."""
        task = copy.copy(self)
        if isinstance(self.motion, Recording):
            task.motion = Recording.model_validate(self.motion.model_dump() | {"held_out": True})
        return task

    @abstractmethod
    def error(self, decoded: Float[Tensor, "*shape d"], s: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape"]:
        """How far the decoded is from the true state, in the task's unit."""

    @abstractmethod
    def __getitem__(self, index: SupportsIndex | slice) -> "Task":
        """The task of some of the networks."""

    def floor(self, s: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape"]:
        """Error of decoding the cells' own activity: what no network's decoding error can be expected to fall below."""
        return self.error(self.cells.decode(self.cells.tuning(s)), s)

    def staying(self, s: Float[Tensor, "S B T d"]) -> Float[Tensor, "S B T"]:
        """Error of reporting the first state for ever."""
        return self.error(s[:, :, :1].expand_as(s), s)

    def silence(self, s: Float[Tensor, "S *shape d"]) -> Float[Tensor, " S"]:
        """Training loss of an output of zero, per network: with it losses of different tasks can be compared."""
        return self.cells.tuning(s).square().flatten(1).mean(1)


class PositionTask(Task):
    """Track the position of the animal, reported by place cells; errors are distances in metres."""

    n_inputs = 2
    motion: Animal | Recorded | Recording
    cells: PlaceCells

    def error(self, decoded: Float[Tensor, "*shape 2"], s: Float[Tensor, "*shape 2"]) -> Float[Tensor, "*shape"]:
        """Distance between the decoded and the true position, in metres."""
        return (decoded - s).norm(dim=-1)

    def __getitem__(self, index: SupportsIndex | slice) -> "PositionTask":
        centres = self.cells.centres[part(index, self.n_networks)]
        return PositionTask(len(centres), self.motion, PlaceCells(centres, self.cells.width, self.cells.normalise))


class HeadDirectionTask(Task):
    """Track the bearing of the head, reported by head-direction cells; errors are arcs in radians."""

    n_inputs = 1
    motion: Head
    cells: HeadDirectionCells

    def error(self, decoded: Float[Tensor, "*shape 1"], s: Float[Tensor, "*shape 1"]) -> Float[Tensor, "*shape"]:
        """Arc between the decoded and the true bearing, in radians."""
        return circular.distance(decoded, s)[..., 0]

    def __getitem__(self, index: SupportsIndex | slice) -> "HeadDirectionTask":
        n_networks = len(range(self.n_networks)[part(index, self.n_networks)])
        return HeadDirectionTask(n_networks, self.motion, self.cells)
