r"""Is activity the pseudoinverse of the readout applied to the cells' activity, $r = D^\dagger f(s)$, Eq. (10)?

With the singular values $D = \sum_j S_j\,u_j v_j^\top$ in falling order the pseudoinverse divides the component of $f$
along $u_j$ by $S_j$. Keep the first $k$ directions only, $D_k^\dagger f = \sum_{j \le k} v_j\,(u_j \cdot f)/S_j$, and
ask what share of the variance of activity they explain,

$$ R^2_k = 1 - \frac{E\lVert r - D_k^\dagger f(s)\rVert^2}{E\lVert r - E r\rVert^2} . $$

Small singular values make the full pseudoinverse meaningless: what is left of $f$ along their directions is blown up.

Source: Krishna et al. (2024), Section 2.2.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.linear_model import Ridge
from torch import Tensor

from reactivation_core import statistics


class Pseudoinverse(NamedTuple):
    r"""`singular` are the $S_j$; `explained` is $R^2_k$ for $k = 0, \dots, N$; `within` the share of the variance of
    activity within the first 1, 2, … directions $v_j$; `norm` and `activity_norm` the mean norms of $D^\dagger f$ and
    of $r$; `linear` is $R^2$ of the best linear map of $f$ for $r$, `output` that of $D r$ for $f$.
    """

    singular: Float[ndarray, "S N"]
    explained: Float[ndarray, "S N+1"]
    within: Float[ndarray, "S N"]
    norm: Float[ndarray, " S"]
    activity_norm: Float[ndarray, " S"]
    linear: Float[ndarray, " S"]
    output: Float[ndarray, " S"]

    @property
    def best(self) -> ndarray:
        """The number of directions that explains most, of each network."""
        return self.explained.argmax(1)

    @property
    def within_best(self) -> ndarray:
        """The share of the variance of activity within these directions."""
        return self.within[np.arange(len(self.best)), self.best - 1]


def pseudoinverse(
    D: Float[Tensor, "S N_o N_r"], f: Float[Tensor, "S B T N_o"], r: Float[Tensor, "S B T N_r"]
) -> Pseudoinverse:
    """Measure activity `r` against the pseudoinverse of `D`, where the cells' activity is `f`.

    The linear map is a ridge regression fitted to the first half of the trajectories and tested on the other.
    """
    found = [_measure(*of) for of in zip(D, f, r, strict=True)]
    return Pseudoinverse(*(np.array(of) for of in zip(*found, strict=True)))


def _measure(D: Tensor, f: Tensor, r: Tensor) -> tuple:
    U, S, V = torch.linalg.svd(D, full_matrices=False)
    y, x = f.flatten(0, 1), r.flatten(0, 1)
    along, wanted = x @ V.mT, y @ U / S
    kept = (along - wanted).square().mean(0).cumsum(0)
    square, across = along.square().mean(0).cumsum(0), x.square().sum(-1).mean()
    missed = torch.cat((across[None], kept + across - square))
    variance = (x - x.mean(0)).square().sum(-1).mean()
    within = (along - along.mean(0)).square().mean(0).cumsum(0) / variance
    n = len(r) // 2 * r.shape[1]
    x, y = x.numpy(), y.numpy()
    linear = Ridge(1e-4 * n).fit(y[:n], x[:n])
    return (
        S.numpy(),
        (1 - missed / variance).numpy(),
        within.numpy(),
        float(wanted.norm(dim=-1).mean()),
        float(np.linalg.norm(x, axis=-1).mean()),
        statistics.r_squared(x[n:] - linear.predict(y[n:]), x[n:]),
        statistics.r_squared(y - x @ D.numpy().T, y),
    )
