r"""Is the input's part of the update what Eq. (17) asks for?

$D\,\Delta r_2^* = f'\Delta s$ is linear in $\Delta s$, hence odd, and depends on the state through $f'(s)$. The part of
a network's own update is $\Delta r_2(r, \Delta s) = \mathrm{step}(r, \Delta s) - \mathrm{step}(r, 0)$. It is taken for
all pairs of some activities with some displacements, so that `statistics.two_way` can tell what depends on either.

Source: Krishna et al. (2024), Appendix B, assumption 6.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reactivation_core.networks import RNN
from reactivation_core.phases import Ensemble


class Update(NamedTuple):
    r"""`dr2` is $\Delta r_2(r_j, \Delta s_k)$, `mirrored` that of $-\Delta s_k$, and `asked` $f'(s_j)\,\Delta s_k$."""

    dr2: Float[Tensor, "S J K N_r"]
    mirrored: Float[Tensor, "S J K N_r"]
    asked: Float[Tensor, "S J K N_o"]

    @property
    def even(self) -> Float[Tensor, "S J K N_r"]:
        r"""The part of $\Delta r_2$ that does not change sign with the displacement."""
        return (self.dr2 + self.mirrored) / 2


@torch.no_grad()
def update(
    ensemble: Ensemble, s: Float[Tensor, "S J d"], r: Float[Tensor, "S J N_r"], ds: Float[Tensor, "S K d"]
) -> Update:
    """The input's part of the update for all pairs of states, with their activity, and displacements."""
    J, K, network = s.shape[1], ds.shape[1], ensemble.network
    r, s, ds = r.repeat_interleave(K, 1), s.repeat_interleave(K, 1), ds.repeat(1, J, 1)
    still = network.step(r, torch.zeros_like(ds), 0.0)
    asked = torch.func.jvp(ensemble.task.cells.tuning, (s,), (ds,))[1]
    parts = (*(network.step(r, x, 0.0) - still for x in (ds, -ds)), asked)
    return Update(*(x.unflatten(1, (J, K)) for x in parts))


@torch.no_grad()
def gates(
    network: RNN, r: Float[Tensor, "S J N_r"], ds: Float[Tensor, "S K d"]
) -> tuple[Bool[Tensor, "S J K N_r"], Bool[Tensor, "S J K N_r"]]:
    """Which units of a rectified network are driven above 0 without the input and with it, for all pairs."""
    drive = (r @ network.W_rec.mT)[:, :, None]
    return (drive > 0).expand(-1, -1, ds.shape[1], -1), drive + (ds @ network.W_in.mT)[:, None] > 0


def share(part: Float[Tensor, "S J K N"], whole: Float[Tensor, "S J K N"]) -> Float[Tensor, " S"]:
    """Share of a part in the mean square of the whole."""
    return part.square().sum((1, 2, 3)) / whole.square().sum((1, 2, 3))
