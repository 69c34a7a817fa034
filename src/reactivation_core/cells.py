r"""Tuning curves of the cells a network reports with, and the decoding of what they say.

The network's output $o = D r$ is compared with the activity $f(s)$ of $N_o$ cells, Eqs. (20) and (21). A state is
decoded from any activity of these cells as the mean of the preferred states of the `k` most active ones.

Shapes: `S` networks, any further axes, `N_o` cells. Every network has its own place cells.

Source: Krishna et al. (2024), Section 3; place cells and their decoding after Sorscher et al. (2019).
"""

import math

import numpy as np
import scipy.special
import torch
from jaxtyping import Float
from torch import Tensor, nn

from reactivation_core import circular


class PlaceCells(nn.Module):
    r"""Place cells: Gaussian tuning to position, Eq. (20).

    $$ f_i(s) = \exp\left(-\frac{\lVert s - c_i\rVert^2}{2\sigma_{SP}^2}\right) $$

    With `normalise` (the released code's choice, and the default) the activities are divided by their sum over cells.

    Args:
        centres: preferred positions $c_i$ in metres, `(S, N_o, 2)`.
        width: $\sigma_{SP}$ in metres.
        normalise: divide by the sum over cells.
    """

    centres: Tensor

    def __init__(self, centres: Float[Tensor, "S N_o 2"], width: float = 0.2, normalise: bool = True):
        super().__init__()
        self.register_buffer("centres", centres)
        self.width, self.normalise = width, normalise

    def tuning(self, s: Float[Tensor, "S *points 2"]) -> Float[Tensor, "S *points N_o"]:
        """Activity $f(s)$ at positions `s` in metres; sums to 1 over cells if normalised, else peaks at 1."""
        points = s.flatten(1, -2)
        # Differences before squares: of squares far from 0 the difference is lost in rounding.
        x, y = ((points[..., None, i] - self.centres[:, None, :, i]).square() for i in (0, 1))
        exponent = x.add_(y).mul_(-1 / (2 * self.width**2))
        f = exponent.softmax(-1) if self.normalise else exponent.exp()
        return f.unflatten(1, s.shape[1:-1])

    def forward(self, s: Float[Tensor, "n 2"]) -> Float[Tensor, "n N_o"]:
        """`tuning` of the cells of one network, as a function that moves to another device with them."""
        return self.tuning(s[None])[0]

    def decode(self, o: Float[Tensor, "S *points N_o"], k: int = 3) -> Float[Tensor, "S *points 2"]:
        """Position in metres: the mean of the centres of the `k` most active cells."""
        best = _most_active(o, k).flatten(1)
        chosen = self.centres.gather(1, best[..., None].expand(-1, -1, 2))
        return chosen.unflatten(1, (*o.shape[1:-1], k)).mean(-2)


class HeadDirectionCells(nn.Module):
    r"""Head-direction cells: von Mises tuning to bearing, Eq. (21).

    $$ f_i(s) = \frac{\exp\left(\cos(s - \theta_i)/\sigma_{HD}^2\right)}{2\pi I_0(1/\sigma_{HD}^2)} $$

    With `peak` (the released code's choice, and the default) the curves are scaled to a maximum of 1 instead.

    Args:
        angles: preferred bearings $\theta_i$ in radians, `(N_o,)`.
        width: $\sigma_{HD}$ in radians.
        peak: scale to a peak of 1.
    """

    angles: Tensor

    def __init__(self, angles: Float[Tensor, " N_o"], width: float = math.pi / 6, peak: bool = True):
        super().__init__()
        self.register_buffer("angles", angles)
        self.width, self.peak = width, peak

    def tuning(self, s: Float[Tensor, "S *points 1"]) -> Float[Tensor, "S *points N_o"]:
        """Activity $f(s)$ at bearings `s` in radians."""
        kappa = 1 / self.width**2
        # A cosine and an exponential of every cell cost more than training's products: the cosine of a difference
        # needs only those of its terms, and powers of 2 are four times faster than powers of e.
        scaled = kappa / math.log(2)
        f = s.cos() * (scaled * self.angles.cos()) - scaled
        f = f.addcmul_(s.sin(), scaled * self.angles.sin()).exp2_()
        if self.peak:
            return f
        # i0e is exp(-kappa) I0(kappa), which stays finite for narrow tuning.
        return f / (2 * math.pi * scipy.special.i0e(kappa))

    def forward(self, s: Float[Tensor, "n 1"]) -> Float[Tensor, "n N_o"]:
        """`tuning` of the cells of one network, as a function that moves to another device with them."""
        return self.tuning(s[None])[0]

    def harmonics(self, s: Float[Tensor, "*points 1"]) -> Float[Tensor, "*points M"]:
        r"""The functions of a bearing that all tuning curves are made of: $1, \cos ks, \sin ks$ for $k = 1, \dots, K$.

        $$ e^{\kappa \cos(s - \theta)} = I_0(\kappa) + 2 \sum_{k \ge 1} I_k(\kappa)
           \left(\cos ks \cos k\theta + \sin ks \sin k\theta\right) $$

        is cut off where $I_k$ is lost in the rounding of the first term (Abramowitz and Stegun 1964, 9.6.34)."""
        k = torch.arange(1, len(self._orders(s.dtype)), device=s.device, dtype=s.dtype)
        return torch.cat((torch.ones_like(s), (k * s).cos(), (k * s).sin()), -1)

    def loadings(self) -> Float[Tensor, "M N_o"]:
        r"""The share of each harmonic in each curve: $f(s) = \varphi(s)\,C$."""
        first, *others = self._orders(self.angles.dtype)
        weights = self.angles.new_tensor([first, *others, *others])
        return weights[:, None] * self.harmonics(self.angles[:, None]).T

    def _orders(self, dtype: torch.dtype) -> list[float]:
        kappa = 1 / self.width**2
        orders = scipy.special.ive(np.arange(20 + 10 / self.width), kappa)
        orders = orders[orders > torch.finfo(dtype).eps / 10 * orders[0]]
        scale = 1 if self.peak else 1 / (2 * math.pi * orders[0])
        return [scale * orders[0], *(2 * scale * orders[1:])]

    def decode(self, o: Float[Tensor, "S *points N_o"], k: int = 3) -> Float[Tensor, "S *points 1"]:
        """Bearing in radians: the circular mean of the preferred bearings of the `k` most active cells."""
        return circular.mean(self.angles[_most_active(o, k)], -1)[..., None]


def _most_active(o: Tensor, k: int) -> Tensor:
    if not 1 <= k <= o.shape[-1]:
        raise ValueError(f"expected 1 <= k <= {o.shape[-1]} cells to decode from, got k = {k}")
    return o.topk(k, sorted=False).indices
