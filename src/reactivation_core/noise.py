r"""Laws of the recurrent noise.

In Eq. (2) one step of length $dt$ adds $\sigma\,\eta(t)$ to every unit, with $\eta \sim N(0, dt)$, so that noise per
step has the standard deviation $\sigma\sqrt{dt}$ and the statistics of $r$ depend on $dt$ by no more than the error of
the time step. `gaussian` is that law. `uniform` is what the released code draws instead: $\eta = \sqrt{dt}\,U$ with $U$
uniform on $[0, 1)$, whose mean is $+\sqrt{dt}/2$ and whose variance is $dt/12$.

A law fills a tensor with independent draws of $\eta$ and returns it; $\sigma$ is the caller's.

Source: Krishna et al. (2024), Eq. (2) and Appendix A; the released code for `uniform`.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

Law = Callable[[Tensor, float, torch.Generator], Tensor]

# Torch draws a tensor on one CPU thread. Large draws are split into blocks of this many values, each with a stream of
# its own, so that the draws depend neither on the number of threads nor on their timing.
_BLOCK = 1 << 20


def gaussian(eta: Tensor, dt: float, generator: torch.Generator) -> Tensor:
    r"""Fill `eta` with independent $N(0, dt)$, the paper's noise (Eq. 2); `dt` in seconds. Returns `eta`."""
    return _fill(eta, dt, generator, lambda block, stream: block.normal_(0, math.sqrt(dt), generator=stream))


def uniform(eta: Tensor, dt: float, generator: torch.Generator) -> Tensor:
    r"""Fill `eta` with independent $\sqrt{dt}\,U[0, 1)$, the released code's noise; `dt` in seconds. Returns `eta`."""
    return _fill(eta, dt, generator, lambda block, stream: block.uniform_(0, math.sqrt(dt), generator=stream))


LAWS: dict[str, Law] = {"gaussian": gaussian, "uniform": uniform}


def mean(law: str, dt: float) -> float:
    r"""Mean of $\eta$ by the name of its law; `dt` in seconds."""
    return math.sqrt(dt) / 2 if law == "uniform" else 0.0


def variance(law: str, dt: float) -> float:
    r"""Variance of $\eta$ by the name of its law; `dt` in seconds."""
    return dt / 12 if law == "uniform" else dt


def each(law: Law, eta: Tensor, dt: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Fill `eta`, `(S, …)`, with draws of a law, those of each network from a stream of its own. Returns `eta`."""
    for one, generator in zip(eta, generators, strict=True):
        law(one, dt, generator)
    return eta


def _fill(eta: Tensor, dt: float, generator: torch.Generator, draw: Callable) -> Tensor:
    if not dt > 0:
        raise ValueError(f"expected a time step dt > 0, got {dt}")
    if eta.device.type != "cpu" or eta.numel() <= _BLOCK:
        return draw(eta, generator)
    if not eta.is_contiguous():
        raise ValueError(f"expected a contiguous tensor, got strides {eta.stride()} for shape {tuple(eta.shape)}")
    blocks = eta.view(-1).split(_BLOCK)
    seeds = torch.randint(2**63 - 1, (len(blocks),), generator=generator).tolist()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda block, seed: draw(block, torch.Generator().manual_seed(seed)), blocks, seeds))
    return eta
