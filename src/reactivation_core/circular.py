r"""Angles.

An angle is a real number of radians modulo $2\pi$; every function here returns its representative in $[-\pi, \pi)$.
Averages and differences are taken on the circle: the mean of $\pi - 0.1$ and $-\pi + 0.1$ is $-\pi$, not $0$.

Source: Mardia and Jupp (2000), *Directional Statistics*.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def wrap(angle: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""The representative of an angle in $[-\pi, \pi)$, in radians."""
    wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    # Just below -π the remainder rounds up to 2π.
    return torch.where(wrapped >= math.pi, -math.pi, wrapped)


def mean(angle: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "..."]:
    r"""Circular mean $\mathrm{atan2}(\langle\sin\theta\rangle, \langle\cos\theta\rangle)$ along `dim`, in radians."""
    return wrap(torch.atan2(angle.sin().mean(dim), angle.cos().mean(dim)))


def distance(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""Length of the shorter arc between two angles, in $[0, \pi]$ radians."""
    return wrap(a - b).abs()


def turns(bearings: Float[Tensor, "*shape T"]) -> Float[Tensor, "*shape T-1"]:
    """Angle from each bearing to the next, by the shorter way; positive counter-clockwise."""
    return wrap(bearings.diff(dim=-1))
