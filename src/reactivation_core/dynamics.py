r"""The step without input: fixed points, slow directions, flow, and the diffusion that noise makes of it.

$F(r)$ is the step of a network without input or noise, and $A(r) = \partial F/\partial r$ its Jacobian. Small noise
$\xi_t$, of variance $v$ per step and unit, that is carried along by the linearised steps from $r_0, r_1 = F(r_0),
\dots$ spreads a quantity with the gradient $w$ at $r_T$ by

$$ \operatorname{Var} = v \sum_{j=0}^{T-1} \lVert L_j \rVert^2, \qquad L_0 = w, \qquad
   L_{j+1} = A(r_{T-1-j})^\top L_j . $$

If fast directions feed nothing into slow ones, the slow ones lose nothing, and $w$ reads nothing of the fast ones, all
$L_j$ are the same.

Functions take one network, an ensemble with `S = 1`, and tensors `(n, N)`: $n$ states, $N$ units.

Source: van Kampen (2007), chapter VIII, for the linear-noise approximation; Sussillo and Barak (2013) for fixed points
and slow ones.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reactivation_core.phases import Ensemble, settle


def step(
    ensemble: Ensemble, r: Float[Tensor, "n N"], bias: float = 0.0, ds: Float[Tensor, "n d"] | None = None
) -> Float[Tensor, "n N"]:
    r"""$F(r)$, or $F(r, \Delta s)$ with an input, plus a constant on every unit, such as the mean of a noise."""
    ds = r.new_zeros(len(r), ensemble.task.n_inputs) if ds is None else ds
    (after,) = ensemble.network.step(r[None], ds[None], bias)
    return after


@torch.no_grad()
def jacobian(ensemble: Ensemble, r: Float[Tensor, "n N"]) -> Float[Tensor, "n N N"]:
    """$A(r)$ at each state."""
    rows = torch.eye(r.shape[1], dtype=r.dtype, device=r.device)[:, None].expand(-1, *r.shape)
    return _pull(ensemble, r, rows).movedim(0, 1)


def moduli(A: Float[Tensor, "n N N"]) -> Float[Tensor, "n N"]:
    r"""$\lvert\lambda\rvert$ of the eigenvalues of each Jacobian, largest first."""
    return torch.linalg.eigvals(A).abs().sort(-1, descending=True).values


def slow_directions(moduli: Float[Tensor, "n N"], n_steps: float) -> Int[Tensor, " n"]:
    r"""Number of eigenvalues of each Jacobian whose time constant $-1/\log\lvert\lambda\rvert$ is above `n_steps`, or
    that grow."""
    return (moduli > math.exp(-1 / n_steps)).sum(-1)


@torch.no_grad()
def newton(ensemble: Ensemble, r: Float[Tensor, "n N"], n_steps: int) -> Float[Tensor, "n N"]:
    r"""Newton's iteration for a fixed point of $F$,

    $$ r \leftarrow r + (I - A(r))^{-1}\left(F(r) - r\right). $$

    It may end at no fixed point, which `step` tells."""
    for _ in range(n_steps):
        rest = step(ensemble, r) - r
        A = jacobian(ensemble, r)
        r = r + torch.linalg.solve(torch.eye(r.shape[1], dtype=r.dtype, device=r.device) - A, rest)
    return r


@torch.no_grad()
def flow(ensemble: Ensemble, r: Float[Tensor, "n N"], n_steps: int, bias: float = 0.0) -> Float[Tensor, "T n N"]:
    """Activity without noise, at the start and after each of `n_steps` steps."""
    path = [r]
    for _ in range(n_steps):
        path.append(settle(step(ensemble, path[-1], bias)))
    return torch.stack(path)


@torch.no_grad()
def after(ensemble: Ensemble, r: Float[Tensor, "n N"], n_steps: int, bias: float = 0.0) -> Float[Tensor, "n N"]:
    """Activity without noise after `n_steps` steps, where `flow` would hold too many."""
    for _ in range(n_steps):
        r = settle(step(ensemble, r, bias))
    return r


@torch.no_grad()
def carried(
    ensemble: Ensemble, path: Float[Tensor, "T n N"], gradient: Float[Tensor, "d n N"]
) -> Iterator[Float[Tensor, "d n N"]]:
    """$L_0, L_1, …$: what noise of the last step, of the one before, … back to the first adds to `d` quantities.

    Args:
        path: of `flow`.
        gradient: of each quantity at the path's end.
    """
    L = gradient.to(path.dtype)
    for r in path[:-1].flip(0):
        yield L
        L = _pull(ensemble, r, L)


def _pull(ensemble: Ensemble, r: Tensor, L: Float[Tensor, "d n N"]) -> Float[Tensor, "d n N"]:
    r"""$A(r)^\top L$, the states independent of each other."""
    pull = torch.func.vjp(lambda x: step(ensemble, x), r)[1]
    return torch.func.vmap(pull)(L)[0]
