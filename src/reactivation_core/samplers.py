r"""Steps of sleep as transition matrices: the laws at which they settle, how fast, and how far from waking.

Activity is on points $r_1, …, r_K$ of an even grid that holds all but a negligible part of it, spaced no wider than
$\sqrt v$. Sums over such a grid of what is smooth on the scale $\sqrt v$ are integrals to eight digits, so that laws
come without the noise of draws. Row $i$ of a transition matrix is the law of the state after a step from $r_i$.

All have the mean $\mu(r) = E[m \mid r] = r + v\,\nabla\log p(r)$, $p = P * N(0, v I)$, and differ in the noise:

- `langevin`, Eq. (19): normal, of variance $c\,v$;
- `repaired`: normal, of covariance $v\,(2 I + v\,\nabla^2\log p(r)) = v I + \operatorname{Cov}(m \mid r)$;
- `posterior`: $M + \sqrt v\,\xi$, $M$ drawn from $P(m \mid r)$;
- `metropolis`: proposals of Eq. (19), each accepted or not so that $p$ stays as it is.

Source: Krishna et al. (2024), Section 2.4; Bengio et al. (2013) and Chen et al. (2022) for sampling the posterior;
Roberts and Tweedie (1996) for the accepted proposals.
"""

import math

import numpy as np
import scipy.sparse.linalg
import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core.theory import Density, Mixture, drift


def around(points: Float[Tensor, "J N"], spacing: float, reach: float) -> Float[Tensor, "K N"]:
    """Points of an even grid, as far as `reach` from the nearest of `points`.

    Raises:
        ValueError: for a spacing that is not above 0, or wider than the reach.
    """
    if not 0 < spacing <= reach:
        raise ValueError(f"expected 0 < spacing <= reach, got {spacing} and {reach}")
    low, high = points.amin(0) - reach, points.amax(0) + reach
    axes = [
        torch.arange(a, b + spacing, spacing, dtype=torch.float64, device=points.device)
        for a, b in zip(low.tolist(), high.tolist(), strict=True)
    ]
    r = torch.cartesian_prod(*axes).reshape(-1, points.shape[1])
    return r[torch.cdist(r, points.double()).amin(1) <= reach]


def law(density: Density, r: Float[Tensor, "K N"]) -> Float[Tensor, " K"]:
    """Of waking activity, on the grid."""
    return density.log_prob(r).softmax(0)


def langevin(density: Density, v: float, r: Float[Tensor, "K N"], c: float = 2.0) -> Float[Tensor, "K K"]:
    r"""Eq. (19) with `c` times the noise variance of waking: $r' \sim N(\mu(r), c\,v I)$."""
    return _normal_rows(r + drift(density, r, v), r, c * v)


def covariance(density: Density, v: float, r: Float[Tensor, "K N"]) -> Float[Tensor, "K N N"]:
    r"""Of a step that samples the posterior, $v\,(2 I + v\,\nabla^2\log p(r)) = v\,(I + \partial\mu/\partial r)$."""

    def mean(x):
        return x + drift(density, x[None], v)[0]

    return v * (r.new_ones(r.shape[1]).diag() + torch.func.vmap(torch.func.jacrev(mean), chunk_size=512)(r))


def repaired(density: Density, v: float, r: Float[Tensor, "K N"]) -> Float[Tensor, "K K"]:
    r"""$r' \sim N(\mu(r), v\,(2 I + v\,\nabla^2\log p(r)))$: the first two moments of `posterior`, and all of it where
    $p$ is normal."""
    whiten = torch.linalg.cholesky(covariance(density, v, r)).inverse()
    off = r - (r + drift(density, r, v))[:, None]
    return torch.softmax(-torch.einsum("iab,ikb->ika", whiten, off).square().sum(-1) / 2, 1)


def posterior(density: Mixture, r: Float[Tensor, "K N"]) -> Float[Tensor, "K K"]:
    r"""$r' = M + \sqrt v\,\xi$, $M \sim P(m \mid r)$: reversible, and $p$ stays as it is."""
    return density.posterior(r) @ _normal_rows(density.points, r, density.v)


def metropolis(density: Density, v: float, r: Float[Tensor, "K N"]) -> Float[Tensor, "K K"]:
    r"""Proposals $r' \sim Q(r, \cdot)$ of Eq. (19), accepted with probability $\min\!\left(1, \frac{p(r')\,Q(r', r)}
    {p(r)\,Q(r, r')}\right)$; else activity stays where it is."""
    Q, p = langevin(density, v, r), law(density, r)
    flow = p[:, None] * Q
    accepted = torch.minimum(flow, flow.T) / p[:, None]
    return accepted + torch.diag(1 - accepted.sum(1))


def acceptance(k: int) -> float:
    r"""Share of the proposals of `metropolis` that are accepted where `k` directions are across a flat manifold, and
    those along it, in which $p$ is level for a step, refuse none: $2\,F_{k,k}(\tfrac12)$, $F$ the distribution function
    of the ratio of two mean squares (Snedecor).

    Across, proposals $N(0, 2 v)$ are independent of where activity is, so that
    $E \min(1, w(y')/w(y)) = 2\,P(w(y') > w(y))$ with $w(y) = e^{-\lVert y\rVert^2/4v}$, $y \sim N(0, v)$ awake.
    """
    return 2 * float(scipy.stats.f.cdf(0.5, k, k))


def settled(transition: Float[Tensor, "K K"]) -> Float[Tensor, " K"]:
    """The law that a step leaves as it is."""
    # One equation of the balance follows from the others; the sum of the law takes its place.
    flow, right = transition.T - torch.ones_like(transition[0]).diag(), torch.zeros_like(transition[0])
    flow[0], right[0] = 1, 1
    return torch.linalg.solve(flow, right)


def forgetting(transition: Float[Tensor, "K K"]) -> float:
    r"""Steps in which the start is forgotten but for the share $1/e$, at last: $-1/\log\lvert\lambda_2\rvert$, from the
    second eigenvalue."""
    start = np.random.default_rng(0).normal(size=len(transition))
    found = scipy.sparse.linalg.eigs(transition.cpu().numpy(), k=2, v0=start, return_eigenvectors=False)
    return -1 / math.log(np.abs(np.asarray(found)).min())


def divergence(q: Float[Tensor, "*shape K"], p: Float[Tensor, " K"]) -> Float[Tensor, "*shape"]:
    r"""$KL(q \,\Vert\, p)$ in nats. What rounding has made less than 0 counts as 0, and no `p` as less than 1e-300."""
    q = q.clamp(min=0)
    return (torch.xlogy(q, q) - q * p.clamp(min=1e-300).log()).sum(-1)


def path(transition: Float[Tensor, "K K"], start: Float[Tensor, " K"], n_steps: int) -> Float[Tensor, "n K"]:
    """Laws at the start and after each of `n_steps` steps, which are one more."""
    laws, to = [start], transition.T.contiguous()
    for _ in range(n_steps):
        laws.append(to @ laws[-1])
    return torch.stack(laws)


def weak_error(transition: Float[Tensor, "K K"], p: Float[Tensor, " K"], x: Float[Tensor, " K"]) -> Float[Tensor, " 3"]:
    r"""Relative errors of $E\lvert x\rvert$, $E\,x^2$ and $E\,x^4$ in the law at which a transition matrix settles,
    with `p` as the law awake."""
    q = settled(transition)
    return torch.stack([(q @ h) / (p @ h) - 1 for h in (x.abs(), x**2, x**4)])


def places(q: Float[Tensor, " K"], r: Float[Tensor, "K 2"], angles: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    r"""Density of the angle of activity, per radian, from its Fourier coefficients $E\,e^{ik\theta}$, $k \le 16$."""
    angle, k = torch.atan2(r[:, 1], r[:, 0]), torch.arange(1, 17, dtype=torch.float64, device=r.device)
    coefficients = torch.polar(torch.ones_like(angle), angle)[:, None] ** k
    series = (q.to(coefficients.dtype) @ coefficients) * torch.exp(-1j * angles[:, None] * k)
    return (1 + 2 * series.real.sum(1)) / (2 * math.pi)


def _normal_rows(mean: Float[Tensor, "J N"], r: Float[Tensor, "K N"], variance: float) -> Float[Tensor, "J K"]:
    exponent = mean @ r.T - r.square().sum(1) / 2
    return torch.softmax(exponent / variance, 1)
