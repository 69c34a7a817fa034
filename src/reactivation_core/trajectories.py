r"""How the animal moves and how the head turns.

Both motions return the visited states $s(t)$ and the changes $\Delta s(t) = s(t + dt) - s(t)$ the network is told
about, drawn for `S` networks and `B` trajectories each at once, from a generator for each network.

Source: the animal after Erdem and Hasselmo (2012) as released with Sorscher et al. (2019); Krishna et al. (2024),
Section 3 and Appendix A.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from reactivation_core.circular import wrap


class Settings(BaseModel):
    """Settings that do not change once made, and accept no unknown name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Trajectories(NamedTuple):
    """States `s`, one more than the changes `ds` between them; metres for positions, radians for bearings."""

    s: Float[Tensor, "S B T+1 d"]
    ds: Float[Tensor, "S B T d"]


Rests = Annotated[
    float | None, Field(ge=1, description="mean length of a rest, and of a run between two, in steps; None: no rests")
]


class Animal(Settings):
    r"""An animal foraging in a square box centred on 0.

    In each step of length $dt$ it moves by a Rayleigh-distributed speed along its heading, which then turns by
    $N(0, \omega^2)\,dt$. Within `border` of the nearest wall and heading into it, it slows down and turns to run along
    that wall. With a `drift`, each step also carries it the fraction `drift` of its way to the centre. With `rests` it
    stands still half of the time, in rests whose lengths are geometric, as are those of the runs between them.

    Walls hold it only if it turns, and its steps are short: without turning it leaves by a corner, and a step that
    begins outside the border region may end beyond the wall. Other settings are refused. With the default ones it is
    outside in 0.8 % of the steps.
    """

    dt: float = Field(default=0.02, gt=0, description="time step, s")
    box: float = Field(default=2.2, gt=0, description="side of the box, m")
    speed: float = Field(default=0.26 * math.pi, gt=0, description="scale of the Rayleigh speed, m/s")
    turning: float = Field(default=11.52, ge=1, description="s.d. of the angular velocity ω, rad/s")
    border: float = Field(default=0.03, ge=0, validate_default=True, description="width of the border region, m")
    slowing: float = Field(default=0.25, ge=0, le=1, description="factor on the speed in the border region")
    drift: float = Field(default=0.0, ge=0, lt=1, description="fraction of the way to the centre moved per step")
    rests: Rests = None

    @field_validator("border")
    @classmethod
    def _fits(cls, border: float, info) -> float:
        if "box" in info.data and border >= info.data["box"] / 2:
            half = info.data["box"] / 2
            raise PydanticCustomError("border", "Input should be less than half of the box, {half}", {"half": half})
        if {"dt", "speed"} <= info.data.keys() and border < info.data["speed"] * info.data["dt"]:
            step = f"{info.data['speed'] * info.data['dt']:.3g}"
            raise PydanticCustomError("border", "Input should be at least speed times dt, {step}", {"step": step})
        return border

    def __call__(self, n_trajectories: int, n_steps: int, generators: Sequence[torch.Generator]) -> Trajectories:
        """Draw trajectories: positions `(S, B, T+1, 2)` and displacements `(S, B, T, 2)`, in metres."""
        S, B = len(generators), n_trajectories
        s = (_draw(torch.rand, (S, B, 2), generators, 0) - 0.5) * self.box
        heading = _draw(torch.rand, (S, B), generators, 0) * 2 * math.pi
        # The first step is taken and dropped, so that the states start where the released code's do.
        speeds = (-2 * torch.log1p(-_draw(torch.rand, (n_steps + 1, S, B), generators, 1))).sqrt()
        steps = self.speed * self.dt * speeds
        turns = self.turning * self.dt * _draw(torch.randn, (n_steps + 1, S, B), generators, 1)
        moving = _moving(self.rests, (n_steps + 1, S, B), generators)
        positions = []
        for step, turn, moves in zip(steps, turns, moving, strict=True):
            nearest, axis = s.abs().max(-1)
            wall = axis * (math.pi / 2) + torch.where(s.gather(-1, axis[..., None])[..., 0] < 0, math.pi, 0.0)
            incidence = wrap(heading - wall)
            blocked = (nearest > self.box / 2 - self.border) & (incidence.abs() < math.pi / 2)
            step = torch.where(blocked, self.slowing * step, step)
            moved = s * (1 - self.drift) + step[..., None] * torch.stack((heading.cos(), heading.sin()), -1)
            s = torch.where(moves[..., None], moved, s)
            along = wall + torch.where(incidence < 0, -math.pi / 2, math.pi / 2)
            heading = torch.where(moves, torch.where(blocked, along, heading) + turn, heading)
            positions.append(s)
        s = torch.stack(positions, 2)
        return Trajectories(s, s.diff(dim=2))


class Head(Settings):
    r"""A head that turns by $N(0, \omega^2)\,dt$ per step, or by its absolute value if only counter-clockwise.

    With `rests` it is still half of the time, as the animal.
    """

    dt: float = Field(default=0.02, gt=0, description="time step, s")
    turning: float = Field(default=11.52, ge=0, description="s.d. of the angular velocity ω, rad/s")
    counter_clockwise: bool = Field(default=False, description="turn counter-clockwise only")
    rests: Rests = None

    def __call__(self, n_trajectories: int, n_steps: int, generators: Sequence[torch.Generator]) -> Trajectories:
        """Draw trajectories: bearings in [-π, π), `(S, B, T+1, 1)`, and turns `(S, B, T, 1)`, in radians."""
        S, B = len(generators), n_trajectories
        start = _draw(torch.rand, (S, B, 1, 1), generators, 0) * 2 * math.pi - math.pi
        ds = self.turning * self.dt * _draw(torch.randn, (S, B, n_steps, 1), generators, 0)
        if self.counter_clockwise:
            ds = ds.abs()
        ds = ds * _moving(self.rests, (n_steps, S, B), generators).movedim(0, -1)[..., None]
        return Trajectories(wrap(torch.cat((start, start + ds.cumsum(2)), 2)), ds)


class Recorded:
    """Motion along a recorded path: pieces of it, each from a time drawn at random.

    Args:
        times: of the record, in seconds, increasing.
        positions: in metres from the centre of the box, `(times, 2)`.
        dt: time step, to which the path is interpolated linearly.
        box: side of the box.

    Raises:
        ValueError: if positions are not two numbers a time, not finite or outside the box, or times do not increase.
    """

    def __init__(self, times: np.ndarray, positions: np.ndarray, dt: float = 0.02, box: float = 2.2):
        times, positions = np.asarray(times, float), np.asarray(positions, float)
        if times.ndim != 1 or positions.shape != (len(times), 2):
            raise ValueError(f"expected times (n,) and positions (n, 2), got {times.shape} and {positions.shape}")
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError("expected finite times that increase, got others")
        if not np.abs(positions).max() <= box / 2:
            raise ValueError(f"expected positions within {box / 2} m of the centre, got {np.abs(positions).max()}")
        grid = np.arange(times[0], times[-1], dt)
        path = np.stack([np.interp(grid, times, x) for x in positions.T], -1)
        self.dt, self.box, self.path = dt, box, torch.from_numpy(path).float()

    def __call__(self, n_trajectories: int, n_steps: int, generators: Sequence[torch.Generator]) -> Trajectories:
        """Draw pieces: positions `(S, B, T+1, 2)` and displacements `(S, B, T, 2)`, in metres.

        Raises:
            ValueError: if the record is shorter than a piece.
        """
        device, n_starts = generators[0].device, len(self.path) - n_steps
        if n_starts < 1:
            raise ValueError(f"expected a record of more than {n_steps} steps, got {len(self.path)}")
        unit = _draw(torch.rand, (len(generators), n_trajectories, 1), generators, 0)
        steps = (unit * n_starts).long() + torch.arange(n_steps + 1, device=device)
        s = self.path.to(device)[steps]
        return Trajectories(s, s.diff(dim=2))


def _draw(draw: Callable, shape: tuple[int, ...], generators: Sequence[torch.Generator], networks: int) -> Tensor:
    """Draws of every network, along the axis `networks`."""
    size = [*shape[:networks], 1, *shape[networks + 1 :]]
    return torch.cat([draw(size, generator=one, device=one.device) for one in generators], networks)


def _moving(rests: float | None, shape: tuple[int, int, int], generators: Sequence[torch.Generator]) -> Tensor:
    """Whether each step is one of motion, `(T, S, B)`: a chain of two equally likely states with mean stays `rests`."""
    if rests is None:
        return torch.ones(1, dtype=torch.bool, device=generators[0].device).expand(shape)
    uniform = _draw(torch.rand, (shape[0] + 1, *shape[1:]), generators, 1)
    switches = torch.cat((uniform[:1] < 0.5, uniform[1:] < 1 / rests))
    return switches.cumsum(0)[1:] % 2 == 1
