r"""Does a network compute Eq. (18)? Its drift beside the score of its own activity.

A waking step ends with fresh noise: $r = x + \xi$, $\xi = \sigma\,\eta$ independent of $x$, the activity before it. If
$\xi \sim N(0, v I)$ and $p$ is the law of waking activity $r$, then for any vector field $g$, decaying or not too fast
growing,

$$ u(r) := v\,\nabla \log p(r) = E[x \mid r] - r = -E[\xi \mid r], \qquad E[g \cdot u] = -E[g \cdot \xi]. $$

The first equation makes of the score a regression on recorded activity: no noise is added, and nothing is assumed of
$p$. The second, Stein's identity, gives the inner product of any drift with the score without an estimate of the score.
If the noise is not normal, $-E[\xi \mid r]$ is still the least-squares denoiser of Eq. (15), but no longer a score.

Functions take one network, an ensemble with `S = 1`, and tensors `(n, N)`: $n$ states, $N$ units, in units of activity.

Source: Miyasawa (1961), Raphan and Simoncelli (2011), Efron (2011); Stein (1981) for the identity.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from reactivation_core import noise as laws
from reactivation_core.dynamics import flow
from reactivation_core.manifolds import Plane, along, orthonormal
from reactivation_core.phases import Ensemble


class Waking(NamedTuple):
    r"""Waking activity with what made it and what comes next; each `(B, T, …)`.

    `r` is activity, `noise` the fresh noise $\xi$ in it, `s` the true state, `ds` the change that comes next.
    """

    r: Float[Tensor, "B T N"]
    noise: Float[Tensor, "B T N"]
    s: Float[Tensor, "B T d"]
    ds: Float[Tensor, "B T d"]

    def flatten(self, trajectories: slice) -> "Waking":
        """Some trajectories as one list of states, `(n, …)`."""
        return Waking(*(x[trajectories].flatten(0, 1) for x in self))


@torch.no_grad()
def waking(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Waking:
    """Run one network awake, and keep its noise beside its activity.

    Raises:
        ValueError: for more than one network, or a network without noise.
    """
    if len(ensemble) != 1:
        raise ValueError(f"expected one network, got {len(ensemble)}")
    experiment = ensemble.experiment
    if not experiment.sigma > 0:
        raise ValueError("expected noise sigma > 0, got a network without noise")
    batch = ensemble.task.sample(n_trajectories, n_steps + 1, generator)
    r = ensemble.network.encode(ensemble.task.cells.tuning(batch.s[:, :, 0]))
    states, noises = [], []
    for t in range(n_steps):
        xi = experiment.sigma * laws.LAWS[experiment.noise](torch.empty_like(r), experiment.dt, generator)
        r = ensemble.network.step(r, batch.ds[:, :, t], xi)
        states.append(r[0])
        noises.append(xi[0])
    return Waking(torch.stack(states, 1), torch.stack(noises, 1), batch.s[0, :, 1:-1], batch.ds[0, :, 1:])


class Denoiser:
    r"""Least-squares estimate $\hat u(r)$ of $u(r) = -E[\xi \mid r]$ from waking activity and the noise in it.

    Three kinds are fitted to three quarters of the states, and the one with the least loss on the last quarter is kept:
    "normal", one normal density for all activity; "manifold", one for the distance $e = r - m$ from the manifold,

    $$ -\bar\xi - v\,\Sigma^{-1}(r - \bar r) \qquad\text{and}\qquad -\bar\xi - v\,\Sigma_e^{-1} (e - \bar e), $$

    exact if $r$, or $e$ whatever the place, is normal, and else affine denoisers; and "features", which adds to the
    second a ridge regression of what it leaves on random rectified features of the leading components of $m$ and $e$.
    Of a covariance only the leading eigenvalues are kept, the others replaced by their mean; how many, and the factor
    on $\hat u$, are those best on the last quarter. Nothing here knows the network's drift.

    Args:
        r, noise: of `Waking`; the last quarter should be other trajectories.
        manifold: fitted to the same network.
        generator: draws the features.
    """

    # Of the third kind.
    N_FEATURES, N_COMPONENTS, RIDGE = 400, 40, 0.1

    def __init__(
        self,
        r: Float[Tensor, "n N"],
        noise: Float[Tensor, "n N"],
        manifold: Plane,
        generator: torch.Generator,
    ):
        n = 3 * len(r) // 4
        m = manifold(manifold.place(r))
        e = r - m
        self.manifold, self.noise_mean = manifold, noise[:n].mean(0)
        v = float((noise[:n] - self.noise_mean).square().mean())
        self.normal, self.off = (_Normal(x[:n], x[n:], noise[n:] - self.noise_mean, v) for x in (r, e))
        pca = partial(PCA, min(self.N_COMPONENTS, r.shape[1]), whiten=True, svd_solver="covariance_eigh")
        self.scales = [pca().fit(x[:n].numpy()) for x in (m, e)]
        width = sum(scale.n_components_ for scale in self.scales)
        self.W = torch.randn(width, self.N_FEATURES, generator=generator, dtype=r.dtype) / width**0.5
        self.b = torch.randn(self.N_FEATURES, generator=generator, dtype=r.dtype)
        hidden = self._hidden(m[:n], e[:n])
        self.hidden_mean = hidden.mean(0)
        hidden = hidden - self.hidden_mean
        gram = hidden.T @ hidden
        gram += self.RIDGE * gram.diagonal().mean() * torch.eye(self.N_FEATURES, dtype=r.dtype)
        self.B = torch.linalg.solve(gram, hidden.T @ (-noise[:n] - self._estimate("manifold", r[:n], m[:n])))
        u = {kind: self._estimate(kind, r[n:], m[n:]) for kind in ("normal", "manifold", "features")}
        self.losses = {kind: denoising_loss(x, noise[n:]) for kind, x in u.items()}
        self.kind = min(self.losses, key=self.losses.get)
        self.factor = -_inner(u[self.kind], noise[n:]) / _inner(u[self.kind], u[self.kind])

    def _estimate(self, kind: str, r: Tensor, m: Tensor) -> Tensor:
        if kind == "normal":
            return self.normal(r) - self.noise_mean
        u = self.off(r - m) - self.noise_mean
        return u if kind == "manifold" else u + (self._hidden(m, r - m) - self.hidden_mean) @ self.B

    def _hidden(self, m: Tensor, e: Tensor) -> Tensor:
        scores = [scale.transform(x.numpy()) for scale, x in zip(self.scales, (m, e), strict=True)]
        return (torch.from_numpy(np.hstack(scores)).to(self.W.dtype) @ self.W + self.b).relu()

    def __call__(self, r: Float[Tensor, "n N"], s: Float[Tensor, "n 2"] | None = None) -> Float[Tensor, "n N"]:
        r"""$\hat u(r)$; `s` is `manifold.place(r)`, if at hand."""
        s = self.manifold.place(r) if s is None else s
        return self.factor * self._estimate(self.kind, r, self.manifold(s))


class _Normal:
    """v times the score of a normal density whose covariance has few leading eigenvalues beside its bulk."""

    def __init__(self, x: Tensor, held_out: Tensor, noise: Tensor, v: float):
        self.mean = x.mean(0)
        value, vector = torch.linalg.eigh(x.T.double().cov())
        value, self.vector = value.flip(0), vector.flip(1).to(x.dtype)
        z, xi = ((y @ self.vector).double() for y in (held_out - self.mean, noise))
        # Mean over states of (ξ - v z / λ)², axis by axis, for any λ.
        a, b = (z * xi).mean(0), z.square().mean(0)
        bulk = value.flip(0).cumsum(0).flip(0) / torch.arange(len(value), 0, -1)
        gains = (v / torch.cat((value[:k], bulk[k].expand(len(value) - k))) for k in range(len(value)))
        self.gain = min(gains, key=lambda gain: float((gain * gain * b - 2 * gain * a).sum())).to(x.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return -((x - self.mean) @ self.vector * self.gain) @ self.vector.T


def denoising_loss(update: Float[Tensor, "n N"], noise: Float[Tensor, "n N"]) -> float:
    r"""$L_{noise}$ of Eq. (15), as squares and over that of no update: $E\lVert g + \xi\rVert^2 / E\lVert\xi\rVert^2$.

    No update has 1. Of all functions of $r$, $u$ has the least."""
    return float((update + noise).square().sum() / noise.square().sum())


class Agreement(NamedTuple):
    """How far one vector field is another: pooled over states and units.

    `cosine` is of the fields as vectors over all states, `slope` the factor on the second that comes nearest the first.
    """

    cosine: float
    slope: float


def agreement(g: Float[Tensor, "n N"], u: Float[Tensor, "n N"]) -> Agreement:
    r"""$E[g \cdot u]/\sqrt{E\lVert g\rVert^2 E\lVert u\rVert^2}$ and $E[g \cdot u]/E\lVert u\rVert^2$."""
    product, size = _inner(g, u), _inner(u, u)
    return Agreement(product / (_inner(g, g) * size) ** 0.5, product / size)


def stein_agreement(g: Float[Tensor, "n N"], estimate: Float[Tensor, "n N"], noise: Float[Tensor, "n N"]) -> Agreement:
    r"""`agreement` of a drift with the true $u$, by Stein's identity, on states that the estimate was not fitted to.

    $E[g \cdot u]$ is $-E[g \cdot \xi]$, without error beyond sampling. The size of $u$ is at least
    $E[\hat u \cdot u]^2 / E\lVert\hat u\rVert^2$ (Cauchy and Schwarz), which is put in its place: a poor estimate makes
    cosine and slope too large, never too small."""
    product = -_inner(g, noise)
    size = _inner(estimate, noise) ** 2 / _inner(estimate, estimate)
    return Agreement(product / (_inner(g, g) * size) ** 0.5, product / size)


def explained_at_most(g: Float[Tensor, "n N"], noise: Float[Tensor, "n N"]) -> float:
    r"""Upper bound of the share of a drift that the score's step explains with the coefficient 1 of Eq. (18),

    $$ 1 - \frac{E\lVert g - u\rVert^2}{E\lVert g\rVert^2} \le \frac{2\,E[g \cdot u]}{E\lVert g\rVert^2}
       = -\frac{2\,E[g \cdot \xi]}{E\lVert g\rVert^2}, $$

    which needs no estimate of the score; 2 where $g = u$."""
    return -2 * _inner(g, noise) / _inner(g, g)


def _inner(x: Tensor, y: Tensor) -> float:
    return float((x * y).sum(dtype=torch.float64) / len(x))


class Fit(NamedTuple):
    """Coefficients of a regression without intercept, and the share of the mean square that it explains."""

    coefficients: list[float]
    explained: float


def regress(change: Float[Tensor, "n N"], *terms: Float[Tensor, "n N"]) -> Fit:
    r"""Least squares over all states and units, $\Delta r \approx \sum_i \beta_i\,t_i$."""
    gram = torch.tensor([[_inner(x, y) for y in terms] for x in terms], dtype=torch.float64)
    right = torch.tensor([_inner(x, change) for x in terms], dtype=torch.float64)
    beta = torch.linalg.solve(gram, right)
    return Fit(beta.tolist(), float(beta @ right) / _inner(change, change))


@torch.no_grad()
def decay(
    ensemble: Ensemble, r: Float[Tensor, "n N"], displacement: Float[Tensor, "n N"], n_steps: int
) -> tuple[Float[Tensor, "K n N"], Float[Tensor, " K"]]:
    r"""What is left of displacements after 0, 1, …, `n_steps` steps without input or noise.

    Half the difference between the runs from $r + \delta$ and from $r - \delta$, so that what the manifold itself
    drifts falls out; and its norm over that of $\delta$, root mean square over states."""
    left = (flow(ensemble, r + displacement, n_steps) - flow(ensemble, r - displacement, n_steps)) / 2
    return left, (left.square().sum((1, 2)) / displacement.square().sum()).sqrt()


def directions(
    manifold: Plane, s: Float[Tensor, "n d"], span: Float[Tensor, "N k"], generator: torch.Generator
) -> dict[str, Float[Tensor, "n N"]]:
    """Unit vectors at points of the manifold, by name: along it; across it at random; across it but within `span`, an
    orthonormal basis of where waking activity varies most; and across it towards greater activity, $m$ itself."""
    m, basis = manifold(s), orthonormal(manifold.tangents(s))
    options = {"generator": generator, "dtype": m.dtype}
    drawn = {
        "across": torch.randn(m.shape, **options),
        "within span": torch.randn(len(m), span.shape[1], **options) @ span.to(m.dtype).T,
        "amplitude": m,
    }
    tangent = torch.einsum("ani,an->ni", basis, torch.randn(basis.shape[:2], **options))
    unit = {"along": tangent} | {name: x - along(basis, x) for name, x in drawn.items()}
    return {name: x / x.norm(dim=-1, keepdim=True) for name, x in unit.items()}
