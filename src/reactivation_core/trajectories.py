r"""How the animal moves and how the head turns, by a law or as it was recorded.

All motions return the visited states $s(t)$ and the changes $\Delta s(t) = s(t + dt) - s(t)$ the network is told
about, drawn for `S` networks and `B` trajectories each at once, from a generator for each network.

Source: the animal after Erdem and Hasselmo (2012) as released with Sorscher et al. (2019); Krishna et al. (2024),
Section 3 and Appendix A.
"""

import functools
import importlib.util
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import scipy.special
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
    that wall. With a `drift`, each step also carries it the fraction `drift` of its way to its `home`. With `rests` it
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
    drift: float = Field(default=0.0, ge=0, lt=1, description="fraction of the way home moved per step")
    home: tuple[float, float] = Field(default=(0.0, 0.0), description="where a drift leads, m from the centre")
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

    @field_validator("home")
    @classmethod
    def _inside(cls, home: tuple[float, float], info) -> tuple[float, float]:
        if "box" in info.data and max(map(abs, home)) > info.data["box"] / 2:
            half = info.data["box"] / 2
            raise PydanticCustomError("home", "Input should be within {half} of the centre, in the box", {"half": half})
        return home

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
        positions, home = [], self.drift * s.new_tensor(self.home)
        for step, turn, moves in zip(steps, turns, moving, strict=True):
            nearest, axis = s.abs().max(-1)
            wall = axis * (math.pi / 2) + torch.where(s.gather(-1, axis[..., None])[..., 0] < 0, math.pi, 0.0)
            incidence = wrap(heading - wall)
            blocked = (nearest > self.box / 2 - self.border) & (incidence.abs() < math.pi / 2)
            step = torch.where(blocked, self.slowing * step, step)
            moved = s * (1 - self.drift) + home + step[..., None] * torch.stack((heading.cos(), heading.sin()), -1)
            s = torch.where(moves[..., None], moved, s)
            along = wall + torch.where(incidence < 0, -math.pi / 2, math.pi / 2)
            heading = torch.where(moves, torch.where(blocked, along, heading) + turn, heading)
            positions.append(s)
        s = torch.stack(positions, 2)
        return Trajectories(s, s.diff(dim=2))


class Head(Settings):
    r"""A head that turns by $N(0, \omega^2)\,dt$ per step, or by its absolute value if only counter-clockwise.

    With `rests` it is still half of the time, as the animal. With a `concentration` $\kappa$ turns drift towards
    `peaks` bearings, $n$ evenly spaced ones from 0, by $\frac12 (\omega\,dt)^2\,(\log q)'$ per step, so that bearings
    keep the law

    $$ q(\theta) = \frac{e^{\kappa \cos n\theta}}{2\pi I_0(\kappa)} $$

    of their starts, as far as $n^2 \kappa\,(\omega\,dt)^2$ is small. Larger values are refused, and a drift of turns
    that all go one way.
    """

    dt: float = Field(default=0.02, gt=0, description="time step, s")
    turning: float = Field(default=11.52, ge=0, description="s.d. of the angular velocity ω, rad/s")
    counter_clockwise: bool = Field(default=False, description="turn counter-clockwise only")
    rests: Rests = None
    peaks: int = Field(default=1, ge=1, description="peaks n of the law of bearings, where that is uneven")
    concentration: float = Field(default=0.0, ge=0, description="concentration κ of the law of bearings; 0: even")

    @field_validator("concentration")
    @classmethod
    def _stationary(cls, concentration: float, info) -> float:
        if {"dt", "turning", "counter_clockwise", "peaks"} <= info.data.keys() and concentration > 0:
            if info.data["counter_clockwise"]:
                raise PydanticCustomError("concentration", "Input should be 0 where turns are counter-clockwise only")
            most = 0.25 / (info.data["peaks"] * info.data["turning"] * info.data["dt"]) ** 2
            if concentration > most:
                context = {"most": f"{most:.3g}"}
                raise PydanticCustomError("concentration", "Input should be at most 1/(2 n ω dt)², {most}", context)
        return concentration

    def density(self, s: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The law of bearings $q$, per radian."""
        kappa = self.concentration
        # i0e is exp(-kappa) I0(kappa), which stays finite for sharp peaks.
        return (kappa * ((self.peaks * s).cos() - 1)).exp() / (2 * math.pi * scipy.special.i0e(kappa))

    def __call__(self, n_trajectories: int, n_steps: int, generators: Sequence[torch.Generator]) -> Trajectories:
        """Draw trajectories: bearings in [-π, π), `(S, B, T+1, 1)`, and turns `(S, B, T, 1)`, in radians."""
        S, B = len(generators), n_trajectories
        unit = _draw(torch.rand, (S, B, 1, 1), generators, 0)
        start = self._quantile(unit) if self.concentration else unit * 2 * math.pi - math.pi
        ds = self.turning * self.dt * _draw(torch.randn, (S, B, n_steps, 1), generators, 0)
        if self.counter_clockwise:
            ds = ds.abs()
        moving = _moving(self.rests, (n_steps, S, B), generators).movedim(0, -1)[..., None]
        if self.concentration:
            s, pull = start[:, :, 0], (self.turning * self.dt) ** 2 / 2 * self.peaks * self.concentration
            for t in range(n_steps):
                ds[:, :, t] -= pull * (self.peaks * s).sin()
                s = s + ds[:, :, t] * moving[:, :, t]
        ds = ds * moving
        return Trajectories(wrap(torch.cat((start, start + ds.cumsum(2)), 2)), ds)

    def _quantile(self, unit: Tensor) -> Tensor:
        """Bearings below which $q$ has these shares, by linear interpolation."""
        edges = torch.linspace(-math.pi, math.pi, 4097, device=unit.device)
        below = self.density((edges[:-1] + edges[1:]) / 2).cumsum(0)
        below = torch.cat((below.new_zeros(1), below / below[-1]))
        right = torch.searchsorted(below, unit.contiguous(), right=True).clamp(1, len(edges) - 1)
        share = (unit - below[right - 1]) / (below[right] - below[right - 1])
        return edges[right - 1] + share * (edges[1] - edges[0])


class Recorded:
    """Motion along a recorded path: windows of it, each from a time drawn at random.

    The path is interpolated linearly to the time step, within runs of samples that no gap divides. A window lies in one
    run.

    Args:
        times: of the record, in seconds, increasing.
        positions: in metres from the centre of the box, `(times, 2)`.
        dt: time step, s.
        box: side of the box, m.
        gap: longest time between two samples of one run, s.
        every: makes the animal faster: of a window every so many steps of the path are taken.
        symmetries: put each window through one of the eight symmetries of the square, drawn at random.

    Raises:
        ValueError: if positions are not two numbers a time, not finite or outside the box, or times do not increase.
    """

    def __init__(
        self,
        times: np.ndarray,
        positions: np.ndarray,
        dt: float = 0.02,
        box: float = 2.2,
        gap: float = 0.1,
        every: int = 1,
        symmetries: bool = False,
    ):
        times, positions = _matching(times, positions)
        if not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
            raise ValueError("expected finite times that increase, got others")
        if not np.abs(positions).max() <= box / 2:
            raise ValueError(f"expected positions within {box / 2} m of the centre, got {np.abs(positions).max()}")
        self.dt, self.box, self.every, self.symmetries = dt, box, every, symmetries
        path, left = [], []
        ends = np.flatnonzero(np.diff(times) > gap) + 1
        for t, s in zip(np.split(times, ends), np.split(positions, ends), strict=True):
            # A step that ends at the last sample but for rounding is taken.
            grid = t[0] + dt * np.arange(int((t[-1] - t[0]) / dt + 1e-6) + 1)
            path.append(np.stack([np.interp(grid, t, x) for x in s.T], -1))
            left.append(np.arange(len(grid))[::-1])
        self.path = torch.from_numpy(np.concatenate(path)).float()
        # Steps from each to the end of its run.
        self.left = torch.from_numpy(np.concatenate(left))

    def __call__(self, n_trajectories: int, n_steps: int, generators: Sequence[torch.Generator]) -> Trajectories:
        """Draw windows: positions `(S, B, T+1, 2)` and displacements `(S, B, T, 2)`, in metres.

        Raises:
            ValueError: if no run is as long as a window.
        """
        S, B, device = len(generators), n_trajectories, generators[0].device
        starts = (self.left >= self.every * n_steps).nonzero()[:, 0].to(device)
        if not len(starts):
            longest = int(self.left.max()) // self.every
            raise ValueError(f"expected a record with {n_steps} steps on end, got {longest} at most")
        unit = _draw(torch.rand, (S, B, 1), generators, 0)
        window = self.every * torch.arange(n_steps + 1, device=device)
        s = self.path.to(device)[starts[(unit * len(starts)).long()] + window]
        if self.symmetries:
            swap, flip = (_draw(torch.rand, (S, B, 1, n), generators, 0) < 0.5 for n in (1, 2))
            s = torch.where(swap, s.flip(-1), s)
            s = torch.where(flip, -s, s)
        return Trajectories(s, s.diff(dim=2))

    def apart(self, n_steps: int) -> int:
        """How many windows of so many steps there are that do not overlap."""
        ends = (self.left == 0).nonzero()[:, 0] + 1
        # A run of so many samples has one step less.
        steps = ends.diff(prepend=ends.new_zeros(1)) - 1
        return int((steps // (self.every * n_steps)).sum())


class Recording(Settings):
    r"""`Recorded` as settings, so that networks can be trained on it: a recording by name or file.

    $$ s(t) = a\,(x(t) - x_0), $$

    with $x$ the recorded position, $x_0$ the `centre` and $a$ the `scale`. Training draws its windows from the first
    `share` of the time, its tests from the rest, which is `held_out`.
    """

    record: str = Field(description="recording of ratinabox, or path of an .npz file with t (s) and pos (m)")
    dt: float = Field(default=0.02, gt=0, description="time step, s")
    box: float = Field(default=2.2, gt=0, description="side of the box, m")
    centre: tuple[float, float] = Field(default=(0.0, 0.0), description="of the recorded box, m")
    scale: float = Field(default=1.0, gt=0, description="factor on recorded distances")
    gap: float = Field(default=0.1, gt=0, description="longest time between two samples of one run, s")
    every: int = Field(default=1, ge=1, description="steps of the path that make one of the animal")
    symmetries: bool = Field(default=False, description="draw one of the eight symmetries of the square a window")
    share: float = Field(default=0.8, gt=0, lt=1, description="share of the time that training draws from")
    held_out: bool = Field(default=False, description="draw from the rest of the time instead")

    @field_validator("record")
    @classmethod
    def _known(cls, record: str) -> str:
        if record not in RECORDINGS and not record.endswith(".npz"):
            known = ", ".join(map(repr, RECORDINGS))
            raise PydanticCustomError("record", "Input should be {known} or the path of an .npz file", {"known": known})
        return record

    def __call__(self, n_trajectories: int, n_steps: int, generators: Sequence[torch.Generator]) -> Trajectories:
        """Draw windows: positions `(S, B, T+1, 2)` and displacements `(S, B, T, 2)`, in metres.

        Raises:
            ValueError: as `read` and `Recorded` do.
        """
        return self.recorded()(n_trajectories, n_steps, generators)

    def recorded(self) -> Recorded:
        """The path that windows are drawn from.

        Raises:
            ValueError: as `read` and `Recorded` do.
        """
        path = _file(self.record)
        written = path.stat().st_mtime_ns if path.is_file() else 0
        return _recorded(self.model_dump_json(), written)


# A batch of training would take longer to read than to draw; a file that was written again is another one.
@functools.lru_cache(maxsize=2)
def _recorded(text: str, written: int) -> Recorded:
    settings = Recording.model_validate_json(text)
    times, positions = read(settings.record)
    drawn = (times >= times[0] + settings.share * (times[-1] - times[0])) == settings.held_out
    positions = settings.scale * (positions - settings.centre)
    more = settings.dt, settings.box, settings.gap, settings.every, settings.symmetries
    return Recorded(times[drawn], positions[drawn], *more)


# What ratinabox ships: Sargolini et al. (2006), Tanni et al. (2022).
RECORDINGS = ("sargolini", "tanni")


def read(record: str) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 2"]]:
    """Times in seconds and positions in metres: the arrays `t` and `pos` of an .npz file, given by its path or, of
    `RECORDINGS`, by name. Those are read from the package ratinabox, which need not be imported.

    Raises:
        ValueError: if there is no such package or file, or it does not hold these arrays.
    """
    path = _file(record)
    if not zipfile.is_zipfile(path):
        raise ValueError(f"expected an .npz file at {path}, got none")
    with np.load(path) as arrays:
        if not {"t", "pos"} <= set(arrays.files):
            raise ValueError(f"expected the arrays t and pos in {path}, got {', '.join(arrays.files)}")
        return _matching(arrays["t"], arrays["pos"])


def _file(record: str) -> Path:
    if record not in RECORDINGS:
        return Path(record)
    package = importlib.util.find_spec("ratinabox")
    if package is None or not package.submodule_search_locations:
        raise ValueError(f"expected the package ratinabox for the recording {record!r}: pip install ratinabox")
    return Path(package.submodule_search_locations[0]) / "data" / f"{record}.npz"


def _matching(times: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    times, positions = np.asarray(times, float), np.asarray(positions, float)
    if times.ndim != 1 or len(times) < 2 or positions.shape != (len(times), 2):
        expected = "times (n,), n > 1, and positions (n, 2)"
        raise ValueError(f"expected {expected}, got {times.shape} and {positions.shape}")
    return times, positions


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
