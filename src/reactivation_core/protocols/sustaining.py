r"""What holds up the size of activity, if anything does?

Networks start from activity at the end of waking trajectories, and are run without noise on walks made of their own
displacements. Some go so many steps back the way they came and the same way out again, over and over: motion that stays
within a few decimetres. Two comparisons part motion through the space represented from mere input: the same path at
half the speed, and the walk all the way back and out turned by a right angle, which leads out of the box.

If input adds a response of its own, proportional to its size and at right angles to the activity that is left without
it, the square of the norm grows with the square of the size $h$ of displacements,

$$ \lVert r\rVert_h^2 = \lVert r\rVert_0^2 + h^2 \left(\lVert r\rVert_1^2 - \lVert r\rVert_0^2\right) . $$

Source: Krishna et al. (2024), Appendix B, assumption 7.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from reactivation_core.phases import Ensemble


def walks(ds: Float[Tensor, "S B T 2"]) -> dict[str, Float[Tensor, "S B 2*T 2"]]:
    """Inputs by name, twice as long as the walk `ds` at whose end they begin.

    "none"; "1", "10" and "25" steps back and out, over and over, the last also at half the speed ("slow"), with
    displacements of half the size ("half") and of twice ("double"); "back", all the way; and "turned", the same turned
    by a right angle about its start. `T` must be a multiple of 50.
    """
    back = torch.cat((-ds.flip(2), ds), 2)
    T = ds.shape[2]

    def to_and_fro(n):
        return back[:, :, [*range(n), *range(-n, 0)]].repeat(1, 1, T // n, 1)

    return {
        "none": torch.zeros_like(back),
        "1": to_and_fro(1),
        "10": to_and_fro(10),
        "25": to_and_fro(25),
        "25_slow": (to_and_fro(25) / 2).repeat_interleave(2, 2)[:, :, : 2 * T],
        "25_half": to_and_fro(25) / 2,
        "25_double": 2 * to_and_fro(25),
        "back": back,
        "turned": torch.stack((-back[..., 1], back[..., 0]), -1),
    }


@torch.no_grad()
def norms(ensemble: Ensemble, start: Float[Tensor, "S B N_r"], ds: Float[Tensor, "S B T d"]) -> Float[Tensor, "S B T"]:
    """Norm of activity after each step from `start` on the input `ds`, without noise."""
    none = start.new_zeros(1, 1, 1, 1).expand(*ds.shape[:3], start.shape[2])
    return ensemble.network(start, ds, none).norm(dim=-1)


def in_quadrature(none: Float[ndarray, " S"], full: Float[ndarray, " S"], size: float) -> Float[ndarray, " S"]:
    """The norm predicted for displacements of a size, from those without input and with displacements of size 1."""
    return np.sqrt(none**2 + size**2 * (full**2 - none**2))
