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

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from torch import Tensor

from reactivation_core import noise as laws
from reactivation_core.dynamics import flow
from reactivation_core.phases import Ensemble
from reactivation_core.theory import IdealNetwork


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


@torch.no_grad()
def drift(ensemble: Ensemble, r: Float[Tensor, "n N"], ds: Float[Tensor, "n d"] | None = None) -> Float[Tensor, "n N"]:
    r"""What a step adds to activity beside noise: $\Delta r_1(r)$ without input, $\Delta r_1 + \Delta r_2$ with it."""
    ds = r.new_zeros(len(r), ensemble.task.n_inputs) if ds is None else ds
    (after,) = ensemble.network.step(r[None], ds[None], 0.0)
    return after - r


class LeakyIdealNetwork(IdealNetwork):
    r"""The ideal network behind a leak: of the denoiser of Eq. (16) a step takes the share `leak` only,

    $$ \Delta r = \text{leak} \cdot (E[m \mid r] - r) + E[D^\dagger f' \mid r]\,\Delta s + \sigma\,\eta. $$

    A displacement across a flat manifold falls by the factor $a = 1 - \text{leak}$ per step, so that awake it has the
    variance $v/(1 - a^2)$, and the drift is $1/(1 + a)$ times $v$ times the score of the network's own activity.
    """

    leak = 0.2


class Manifold:
    r"""The network's own manifold of clean activity, $m(s) \approx E[r \mid s]$, fitted to waking activity.

    $$ m(s) = \bar r + M\,(f(s) - \bar f) $$

    $M$ by ridge regression. The states that $r$ is said to stand for are those of the nearest points, found by
    Gauss–Newton steps from the decoded state; fit and search alternate. So the manifold has the shape of the network's
    representation, not of $D^\dagger f$, and what is left, $r - m$, is orthogonal to it.

    Args:
        ensemble: one network, of the position task with normalised place cells.
        r: waking activity.

    Raises:
        ValueError: for another task.
    """

    # Of fit and search; and the ridge, over the number of states.
    N_ROUNDS, RIDGE = 3, 1e-6

    def __init__(self, ensemble: Ensemble, r: Float[Tensor, "n N"]):
        self.ensemble, self.cells = ensemble, ensemble.task.cells
        if not getattr(self.cells, "normalise", False):
            raise ValueError("expected a network of the position task with normalised place cells")
        self.limit = ensemble.task.motion.box / 2 + 0.1
        self.r_mean, self.f_mean = r.mean(0), torch.zeros(())
        s = self._decode(r)
        for i in range(self.N_ROUNDS):
            f = self.cells.tuning(s[None])[0]
            self.f_mean = f.mean(0)
            f = (f - self.f_mean).double()
            gram = f.T @ f
            regularised = gram + self.RIDGE * len(f) * torch.eye(len(gram), dtype=gram.dtype)
            M = torch.linalg.solve(regularised, f.T @ (r - self.r_mean).double())
            # m(s) lies in few dimensions, and the nearest point is sought within them.
            value, vector = torch.linalg.eigh(M.T @ gram @ M)
            self.span = vector.flip(1)[:, : int((value > 1e-6 * value[-1]).sum())].to(r.dtype)
            self.M, self.reduced = M.to(r.dtype), M.to(r.dtype) @ self.span
            if i < self.N_ROUNDS - 1:
                s = self._search(r, s)
        self.norm = self(s).norm(dim=-1).mean()

    def _tuning(self, s: Tensor) -> Tensor:
        return (self.cells.tuning(s[None])[0] - self.f_mean).to(self.r_mean.dtype)

    def _jet(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f and its derivatives by the two coordinates; of normalised place cells, f (c - Σ f c) / σ_SP²."""
        f, centres = self.cells.tuning(s[None])[0], self.cells.centres[0]
        slopes = [f * (c - (f @ c)[:, None]) / self.cells.width**2 for c in centres.unbind(-1)]
        return tuple(x.to(self.r_mean.dtype) for x in (f - self.f_mean, *slopes))

    @torch.no_grad()
    def _decode(self, r: Tensor) -> Tensor:
        """The state whose f is nearest to the output; the decoder's three cells are too coarse."""
        o = self.ensemble.network.readout(r[None])
        s = self.cells.decode(o.float())[0]
        return self._nearest(o[0] - self.f_mean, s, lambda x: x, 4)

    def __call__(self, s: Float[Tensor, "n 2"]) -> Float[Tensor, "n N"]:
        """Clean activity $m(s)$."""
        return self._tuning(s) @ self.M + self.r_mean

    def tangents(self, s: Float[Tensor, "n 2"]) -> Float[Tensor, "2 n N"]:
        r"""$\partial m/\partial s_1$ and $\partial m/\partial s_2$, activity per metre."""
        return torch.stack([slope @ self.M for slope in self._jet(s)[1:]])

    def place(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "n 2"]:
        """The state of the nearest point of the manifold, in metres."""
        return self._search(r, self._decode(r))

    def _search(self, r: Tensor, s: Tensor) -> Tensor:
        return self._nearest((r - self.r_mean) @ self.span, s, lambda x: x @ self.reduced)

    def _nearest(self, target: Tensor, s: Tensor, image: Callable[[Tensor], Tensor], n_steps: int = 3) -> Tensor:
        for _ in range(n_steps):
            f, e1, e2 = (image(x) for x in self._jet(s))
            rest = target - f
            a, b, c = (e1 * e1).sum(-1), (e1 * e2).sum(-1), (e2 * e2).sum(-1)
            p, q = (e1 * rest).sum(-1), (e2 * rest).sum(-1)
            # Where the map is all but singular, as in an untrained network, the search stays where it is.
            determinant = (a * c - b * b).clamp(min=1e-6 * (a + c).square().mean())
            ds = torch.stack((c * p - b * q, a * q - b * p), -1) / determinant[:, None]
            s = (s + ds.clamp(-0.05, 0.05).to(s.dtype)).clamp(-self.limit, self.limit)
        return s

    def asked(self, s: Float[Tensor, "n 2"], ds: Float[Tensor, "n 2"]) -> Float[Tensor, "n N_o"]:
        r"""What Eq. (17) asks of the output, $f'(s)\,\Delta s$."""
        return sum(slope * x[:, None] for slope, x in zip(self._jet(s)[1:], ds.unbind(-1), strict=True))

    def score_along(self, density, s: Float[Tensor, "n 2"]) -> Float[Tensor, "n N"]:
        r"""Gradient, along the manifold, of the logarithm of the density per area of the manifold,

        $$ T\,G^{-1}\,\nabla_s \left[\log p(s) - \tfrac12 \log \det G(s)\right], \qquad G = T^\top T, $$

        $T$ the tangents: what the score is along a manifold that is wide and flat on the scale of the noise.

        Args:
            density: $p(s)$, from arrays `(n, 2)` to `(n,)`, positive.
        """
        h = 1e-3

        def log_density(s):
            e1, e2 = self.tangents(s)
            determinant = (e1 * e1).sum(-1) * (e2 * e2).sum(-1) - (e1 * e2).sum(-1).square()
            return torch.from_numpy(density(s.numpy())).to(self.r_mean.dtype).log() - determinant.log() / 2

        steps = h * torch.eye(2, dtype=s.dtype)
        gradient = torch.stack([(log_density(s + x) - log_density(s - x)) / (2 * h) for x in steps], -1)
        return torch.einsum("na,ani->ni", gradient, dual(self.tangents(s)))

    def ray(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "n 2"]:
        """The state of the point of the manifold in whose direction from 0 activity lies, in metres: of the nearest one
        when activity is scaled to that point's norm."""
        norm = self.norm
        for _ in range(2):
            s = self.place(r * (norm / r.norm(dim=-1, keepdim=True)))
            norm = self(s).norm(dim=-1, keepdim=True)
        return s

    def gradient(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "2 n N"]:
        r"""Of `ray`, metres per unit of activity, where $r$ has the direction of a point $m$ of the manifold: the dual
        of the tangents less their parts along $m$, times $\lVert m\rVert/\lVert r\rVert$, as small activity is turned
        by more."""
        s = self.ray(r)
        T, m = self.tangents(s), self(s)
        norm = m.norm(dim=-1, keepdim=True)
        turning = T - (T * m).sum(-1, keepdim=True) * m / norm**2
        return dual(turning) * (norm / r.norm(dim=-1, keepdim=True))


def dual(tangents: Float[Tensor, "d n N"]) -> Float[Tensor, "d n N"]:
    r"""Gradient of the place of the nearest point of a manifold, at its points: $T\,G^{-1}$, $G = T^\top T$. The sum of
    its squares is the trace of $G^{-1}$."""
    G = torch.einsum("ani,bni->nab", tangents, tangents)
    return torch.linalg.solve(G, tangents.movedim(1, 0)).movedim(0, 1)


def orthonormal(tangents: Float[Tensor, "d n N"]) -> Float[Tensor, "d n N"]:
    """An orthonormal basis of the space that the tangents span at each point."""
    return torch.linalg.qr(tangents.permute(1, 2, 0)).Q.permute(2, 0, 1)


def along(basis: Float[Tensor, "d n N"], vectors: Float[Tensor, "n N"]) -> Float[Tensor, "n N"]:
    """The part of vectors that is tangent to the manifold, `basis` from `orthonormal`; the rest is across."""
    return torch.einsum("ani,an->ni", basis, torch.einsum("ani,ni->an", basis, vectors))


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
        manifold: Manifold,
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
    manifold: Manifold, s: Float[Tensor, "n d"], span: Float[Tensor, "N k"], generator: torch.Generator
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
