r"""How near is a network's loss to what its noise permits?

With the readout $D$ given there is a floor, `readout_floor`, which leaves out the noise that accumulates. A
network that takes activity back to its manifold $m(s)$ in every step still cannot tell noise along it from motion.
With $G = m'^\top m'$ noise $\sigma\,\eta$ moves its estimate of the state by $G^{-1} m'^\top \sigma\,\eta$, and its
output by $f'$ of that: after $n$ steps from a start without error, to first order,

$$ E\lVert f - D r\rVert^2 \approx \sigma^2 dt \left[\lVert D\rVert_F^2
   + (n - 1)\, E \operatorname{tr}\left(G^{-1} f'^\top f'\right)\right] . $$

Another comparison keeps the activity and asks for a better readout of it.

Source: Krishna et al. (2024), Appendix B, assumption 5.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core.manifolds import Plane, dual
from reactivation_core.phases import Ensemble

PENALTIES = 10.0 ** np.arange(-4, 3)


def readout_floor(D: Float[Tensor, "S N_o N_r"], v: float) -> Float[Tensor, " S"]:
    r"""Least squared error of any network with this readout, whatever its update: that of the last step's noise,

    $$ E\lVert f - D r\rVert^2 \ge v\,\lVert D\rVert_F^2, $$

    since $r = q + \xi$ with $\xi$ of covariance $v I$, mean 0, and independent of all before it."""
    return v * D.square().sum((1, 2))


def accumulated(ensemble: Ensemble, r: Float[Tensor, "n N_r"], s: Float[Tensor, "m 2"]) -> tuple[float, float]:
    r"""What noise of unit variance along the manifold of one network adds in a step to the square of the output, and to
    that of the state: means of $\operatorname{tr}(G^{-1} f'^\top f')$ and of $\operatorname{tr} G^{-1}$.

    Args:
        r: waking activity, to which the manifold is fitted.
        s: the states that the means are over.
    """
    manifold = Plane(ensemble, r)
    gradient = dual(manifold.tangents(s).double())
    slopes = torch.stack([manifold.asked(s, axis.expand_as(s)) for axis in torch.eye(2, dtype=s.dtype)]).double()
    inverse, gram = (torch.einsum("ani,bni->nab", x, x) for x in (gradient, slopes))
    return float((inverse * gram).sum((1, 2)).mean()), float(inverse.diagonal(dim1=1, dim2=2).sum(1).mean())


def refitted(r: Float[ndarray, "B T N_r"], missed: Float[ndarray, "B T N_o"]) -> float:
    r"""Squared error of a better readout of activity `r` over that of the network's, which leaves `missed` $= f - D r$.

    It is a ridge regression of `missed` on `r`, fitted to one half of the trajectories and tested on the other, with
    the penalty that does best there: that choice favours it, the finite number of trajectories disfavours it."""
    (x, x_test), (y, y_test) = (
        [half.reshape(-1, of.shape[-1]).astype(float) for half in np.split(of, 2)] for of in (r, missed)
    )
    value, vector = np.linalg.eigh(x.T @ x)
    right, x_test = vector.T @ (x.T @ y), x_test @ vector
    errors = (np.square(y_test - x_test @ (right / (value + penalty)[:, None])).mean() for penalty in PENALTIES)
    return min(errors) / np.square(y_test).mean()
