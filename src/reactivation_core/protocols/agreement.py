r"""Does a network compute Eq. (18)? Its drift beside the score of its own activity.

A waking step ends with fresh noise: $r = x + \xi$, $\xi = \sigma\,\eta$ independent of $x$, the activity before it. If
$\xi \sim N(0, v I)$ and $p$ is the law of waking activity $r$, then for any vector field $g$, decaying or not too fast
growing,

$$ u(r) := v\,\nabla \log p(r) = E[x \mid r] - r = -E[\xi \mid r], \qquad E[g \cdot u] = -E[g \cdot \xi]. $$

The first equation makes of the score a regression on recorded activity: no noise is added, and nothing is assumed of
$p$. The second, Stein's identity, gives the inner product of any drift with the score without an estimate of the score.
If the noise is not normal, $-E[\xi \mid r]$ is still the least-squares denoiser of Eq. (15), but no longer a score.

`examine` asks an ensemble all of it. The other functions take one network, an ensemble with `S = 1`, and tensors
`(n, N)`: $n$ states, $N$ units, in units of activity. What is *along* the manifold is in the span of its tangents, what
is *across* is the rest.

Source: Miyasawa (1961), Raphan and Simoncelli (2011), Efron (2011); Stein (1981) for the identity.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.decomposition import PCA
from torch import Tensor

from reactivation_core import circular, densities, dynamics, manifolds, noise, phases, theory
from reactivation_core.manifolds import Manifold, Plane, Ring
from reactivation_core.networks import GRU
from reactivation_core.phases import Ensemble
from reactivation_core.streams import spawn
from reactivation_core.tasks import must_be

# Directions of displacements, those of `directions`; and their sizes, in standard deviations of a step's noise.
WAYS = ("along", "across", "within span", "amplitude")
SIZES = (0.5, 2.0, 8.0)
# Past inputs that the drift along is regressed on.
N_ECHOES = 5


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
    run = phases.active(ensemble, n_trajectories, n_steps + 1, generator, record=("states", "noise"))
    r, noise, s = (x[0] for x in (run.states, run.noise, run.s))
    ds = s.diff(dim=1)
    # Bearings are wrapped.
    ds = ds if s.shape[-1] == 2 else circular.wrap(ds)
    return Waking(*(x[:, :n_steps] for x in (r, noise, s, ds)))


@torch.no_grad()
def sleeping(ensemble: Ensemble, n_trajectories: int, n_steps: int, generator: torch.Generator) -> Waking:
    """Run one network asleep, with doubled noise, and keep its noise beside its activity; the state is as decoded, and
    does not change."""
    record = ("states", "noise", "decoded")
    run = phases.sleep(ensemble, n_trajectories, n_steps, generator, record=record)
    r, noise, s = (x[0] for x in (run.states, run.noise, run.decoded))
    return Waking(r, noise, s, torch.zeros_like(s))


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
        self.kind = min(self.losses, key=lambda kind: self.losses[kind])
        self.factor = -_inner(u[self.kind], noise[n:]) / _inner(u[self.kind], u[self.kind])

    def _estimate(self, kind: str, r: Tensor, m: Tensor) -> Tensor:
        if kind == "normal":
            return self.normal(r) - self.noise_mean
        u = self.off(r - m) - self.noise_mean
        return u if kind == "manifold" else u + (self._hidden(m, r - m) - self.hidden_mean) @ self.B

    def _hidden(self, m: Tensor, e: Tensor) -> Tensor:
        scores = [scale.transform(x.numpy()) for scale, x in zip(self.scales, (m, e), strict=True)]
        return (torch.from_numpy(np.hstack(scores)).to(self.W.dtype) @ self.W + self.b).relu()

    def __call__(self, r: Float[Tensor, "n N"], s: Float[Tensor, "n d"] | None = None) -> Float[Tensor, "n N"]:
        r"""$\hat u(r)$; `s` is `manifold.place(r)`, if at hand."""
        s = self.manifold.place(r) if s is None else s
        return self.factor * self._estimate(self.kind, r, self.manifold(s))


class _Normal:
    """v times the score of a normal density whose covariance has few leading eigenvalues beside its bulk."""

    def __init__(self, x: Tensor, held_out: Tensor, noise: Tensor, v: float):
        self.mean = x.mean(0)
        covariance = (x - self.mean).T @ (x - self.mean) / (len(x) - 1)
        value, vector = torch.linalg.eigh(covariance.double())
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
    left = (dynamics.flow(ensemble, r + displacement, n_steps) - dynamics.flow(ensemble, r - displacement, n_steps)) / 2
    return left, (left.square().sum((1, 2)) / displacement.square().sum()).sqrt()


def directions(
    manifold: Manifold, s: Float[Tensor, "n d"], span: Float[Tensor, "N k"], generator: torch.Generator
) -> dict[str, Float[Tensor, "n N"]]:
    """Unit vectors at points of the manifold, by name: along it; across it at random; across it but within `span`, an
    orthonormal basis of where waking activity varies most; and across it towards greater activity, $m$ itself."""
    m, basis = manifold(s), manifolds.orthonormal(manifold.tangents(s))
    options = {"generator": generator, "dtype": m.dtype}
    drawn = {
        "across": torch.randn(m.shape, **options),
        "within span": torch.randn(len(m), span.shape[1], **options) @ span.to(m.dtype).T,
        "amplitude": m,
    }
    tangent = torch.einsum("ani,an->ni", basis, torch.randn(basis.shape[:2], **options))
    unit = {"along": tangent} | {name: x - manifolds.along(basis, x) for name, x in drawn.items()}
    return {name: x / x.norm(dim=-1, keepdim=True) for name, x in unit.items()}


def leak(ensemble: Ensemble, r: Float[Tensor, "n N"]) -> Float[Tensor, "n N"]:
    r"""Share of its activity that a unit loses in a step without input: $dt/\tau$, and behind an update gate
    $(1 - z)\,dt/\tau$."""
    pace = torch.full_like(r, ensemble.experiment.dt / ensemble.experiment.tau)
    if isinstance(ensemble.network, GRU):
        z, _ = ensemble.network.gates(r[None], r.new_zeros(1, len(r), ensemble.task.n_inputs))
        pace *= 1 - z[0]
    return pace


class Observed:
    r"""One network awake: its manifold and $\hat u$ fitted to some trajectories, and its drift on others.

    Args:
        ensemble: one network.
        n_fit, n_test: trajectories that are fitted to, and that are compared.
        n_steps: of each.
        generator: draws trajectories, noise, and the features of the denoiser.
        run: `waking`, or `sleeping` for all this of sleep and the score of its own law.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        n_fit: int,
        n_test: int,
        n_steps: int,
        generator: torch.Generator,
        run: Callable[[Ensemble, int, int, torch.Generator], Waking] = waking,
    ):
        self.ensemble, self.n_test = ensemble, n_test
        observed = run(ensemble, n_fit + n_test, n_steps, generator)
        fit, test = observed.flatten(slice(n_fit)), observed.flatten(slice(n_fit, None))
        kind = Plane if ensemble.experiment.task.kind == "position" else Ring
        self.manifold = kind(ensemble, fit.r[::4])
        self.denoiser = Denoiser(fit.r, fit.noise, self.manifold, generator)
        self.v = float(fit.noise.var(0).mean())
        self.leak = float(leak(ensemble, test.r).mean())
        self.test, self.s = test, self.manifold.place(test.r)
        self.tangents = self.manifold.tangents(self.s)
        self.basis = manifolds.orthonormal(self.tangents)
        self.distance = test.r - self.manifold(self.s)
        self.drift = dynamics.step(ensemble, test.r) - test.r
        self.score = self.denoiser(test.r, self.s)
        # The mean of a noise that has one is in the drift of any network that is stationary, denoiser or not.
        mean = noise.mean(ensemble.experiment.noise, ensemble.experiment.dt)
        self.centred = [x - x.mean(0) if mean else x for x in (self.drift, self.score, test.noise)]

    def split(self, x: Float[Tensor, "n N"]) -> tuple[Tensor, Tensor]:
        """The parts along and across the manifold."""
        tangential = manifolds.along(self.basis, x)
        return tangential, x - tangential


class Across(NamedTuple):
    r"""Across the manifold, of one network, or, stacked by `examine`, `(S,)` each.

    `loss_…` are `denoising_loss` of the drift, of $\hat u$, and of a leak of the network's pace, towards 0
    (`relaxation`) and towards the nearest point $m$ of the manifold (`held`). `carried` is the variance across over
    that of one step's noise. `cosine` and `slope_plain` are of the drift with $\hat u$, `cosine_bound` and `slope` the
    upper bounds of `stein_agreement`; `cosine_shuffled` is with the $\hat u$ of other states, `cosine_relaxation` of
    $-r$. `trace` is $E[g \cdot u]$ over that of the leak towards 0. It counts directions: a perfect leaky denoiser to
    $d$ dimensions of $N$ has $1 - d/N$.
    """

    loss_drift: float
    loss_score: float
    loss_relaxation: float
    loss_held: float
    carried: float
    trace: float
    cosine: float
    cosine_bound: float
    slope: float
    slope_plain: float
    cosine_shuffled: float
    cosine_relaxation: float
    rms_across: float
    rms_score_across: float


def across(x: Observed) -> Across:
    """The drift across the manifold beside the score."""
    xi, e, r = x.test.noise, x.distance, x.test.r
    g, u, noise = (x.split(of)[1] for of in x.centred)
    plain, bound = agreement(g, u), stein_agreement(g, u, noise)
    drift, score, whole = x.centred
    return Across(
        loss_drift=denoising_loss(x.drift, xi),
        loss_score=denoising_loss(x.score, xi),
        loss_relaxation=denoising_loss(-x.leak * r, xi),
        loss_held=denoising_loss(-x.leak * e, xi),
        carried=float(e.square().sum(-1).mean()) / (x.v * (e.shape[1] - len(x.basis))),
        trace=-float((drift * whole).sum(-1).mean()) / (xi.shape[1] * x.v * x.leak),
        cosine=plain.cosine,
        cosine_bound=bound.cosine,
        slope=bound.slope,
        slope_plain=plain.slope,
        cosine_shuffled=agreement(g, x.split(_other(score))[1]).cosine,
        cosine_relaxation=agreement(x.split(-r)[1], u).cosine,
        rms_across=_rms(g),
        rms_score_across=_rms(u),
    )


class Along(NamedTuple):
    """Along the manifold, of one network, or, stacked by `examine`, `(S,)` each: `explained_at_most` of the drift, its
    size, and the norm of the mean of the whole drift."""

    explained_along: float
    rms_along: float
    mean_step: float


def along(x: Observed) -> Along:
    """The drift along the manifold, and what of it can be the score's step."""
    (g, _), (noise, _) = x.split(x.centred[0]), x.split(x.centred[2])
    return Along(explained_at_most(g, noise), _rms(g), float(x.drift.mean(0).norm()))


class Places(NamedTuple):
    r"""The score's step along a manifold of positions, estimated from a kernel density of places: its agreement with
    the drift along and its size; drift and step in metres at a grid of `places`, the drift from $m(s)$ at rest; and
    the regression of `Update` with $D^\dagger f'\Delta s$ in place of $m'\Delta s$."""

    cosine_along: float
    rms_score_along: float
    explained_literal: float
    beta_literal: float
    places: Float[ndarray, "n 2"]
    field_drift: Float[ndarray, "n 2"]
    field_score: Float[ndarray, "n 2"]


def score_along(manifold: Plane, density, s: Float[Tensor, "n 2"]) -> Float[Tensor, "n N"]:
    r"""Gradient, along the manifold, of the logarithm of the density per area of the manifold,

    $$ T\,G^{-1}\,\nabla_s \left[\log p(s) - \tfrac12 \log \det G(s)\right], \qquad G = T^\top T, $$

    $T$ the tangents: what the score is along a manifold that is wide and flat on the scale of the noise.

    Args:
        density: $p(s)$, from arrays `(n, 2)` to `(n,)`, positive.
    """
    h = 1e-3

    def log_density(s):
        e1, e2 = manifold.tangents(s)
        determinant = (e1 * e1).sum(-1) * (e2 * e2).sum(-1) - (e1 * e2).sum(-1).square()
        return torch.from_numpy(density(s.cpu().numpy())).to(manifold.r_mean).log() - determinant.log() / 2

    steps = h * torch.eye(2, dtype=s.dtype, device=s.device)
    gradient = torch.stack([(log_density(s + x) - log_density(s - x)) / (2 * h) for x in steps], -1)
    return torch.einsum("na,ani->ni", gradient, manifolds.dual(manifold.tangents(s)))


def places(x: Observed) -> Places:
    """What is asked of the position task alone."""
    density = densities.KernelDensity(x.s.double().numpy())
    # A quarter of the states will do for what is small, and slow to compute.
    manifold = must_be(Plane, x.manifold)
    gradient = x.v * score_along(manifold, density, x.s[::4])
    readout = x.ensemble.network.D.reshape(-1, x.test.r.shape[1])
    literal = theory.minimum_norm(readout, manifold.asked(x.test.s, x.test.ds).to(x.score.dtype))
    fit = regress(_change(x), x.score, literal)
    axis = torch.linspace(-1.0, 1.0, 11)
    grid = torch.cartesian_prod(axis, axis)
    m, T = manifold(grid), manifold.tangents(grid)
    G = torch.einsum("ani,bni->nab", T, T)
    fields = (dynamics.step(x.ensemble, m) - m, x.v * score_along(manifold, density, grid))
    return Places(
        agreement(x.split(x.centred[0])[0][::4], gradient).cosine,
        _rms(gradient),
        fit.explained,
        fit.coefficients[1],
        grid.numpy(),
        *(torch.linalg.solve(G, torch.einsum("ani,ni->na", T, field)).numpy() for field in fields),
    )


class Echoes(NamedTuple):
    r"""Past inputs: by how much of an input the represented state moves in the step in which it arrives; the
    coefficient of the last input in the drift along, and the share of it that the last five explain."""

    moved_over_input: float
    beta_last: float
    explained_echoes: float


def echoes(x: Observed) -> Echoes:
    """How much of the drift along is the late effect of inputs."""
    s, ds = (of.unflatten(0, (x.n_test, -1)) for of in (x.s, x.test.ds.to(x.s.dtype)))
    moved, inputs = x.manifold.difference(s[:, 1:], s[:, :-1]), ds[:, :-1]
    tangents = x.tangents.unflatten(1, (x.n_test, -1))[:, :, N_ECHOES:].flatten(1, 2)
    drift = x.split(x.drift)[0].unflatten(0, (x.n_test, -1))[:, N_ECHOES:].flatten(0, 1)
    last = (ds[:, N_ECHOES - k : ds.shape[1] - k].flatten(0, 1) for k in range(1, N_ECHOES + 1))
    fit = regress(drift, *(torch.einsum("ani,na->ni", tangents, of.to(tangents.dtype)) for of in last))
    return Echoes(float((moved * inputs).sum() / inputs.square().sum()), fit.coefficients[0], fit.explained)


class Update(NamedTuple):
    r"""The whole update awake as $\beta_1\,\hat u + \beta_2\,m'\Delta s$, of one network, or, stacked by `examine`,
    `(S,)` each: coefficients, and the share of the mean square explained; by one term alone, and with $\hat u$ of
    another state, $-r$ or $m - r$ (`held`) in place of $\hat u$."""

    beta_score: float
    beta_change: float
    explained_awake: float
    explained_score: float
    explained_change: float
    explained_shuffled: float
    explained_relaxation: float
    explained_held: float


def update(x: Observed) -> Update:
    """Both terms of Eq. (18) in the update with input."""
    change, moved = _change(x), torch.einsum("ani,na->ni", x.tangents, x.test.ds.to(x.score.dtype))
    (beta_score, beta_change), explained = regress(change, x.score, moved)
    alone = (regress(change, term).explained for term in (x.score, moved))
    instead = (regress(change, term, moved).explained for term in (_other(x.score), -x.test.r, -x.distance))
    return Update(beta_score, beta_change, explained, *alone, *instead)


class Response(NamedTuple):
    r"""Displacements from $m(s)$, in the directions `WAYS`, of one network, or, stacked by `examine`, with an axis `S`.

    `left` is the share left after 0, 1, … steps of displacements of four standard deviations of a step's noise. Of
    displacements of `SIZES`: `taken` and `asked`, the shares that a step and $\hat u$ take away, and `cosine`, of
    drift and $\hat u$ there, across. `rms_rest_…` is the size of the drift from $m(s)$ itself.
    """

    left: Float[ndarray, "ways K"]
    taken: Float[ndarray, "ways sizes"]
    asked: Float[ndarray, "ways sizes"]
    cosine: Float[ndarray, "ways sizes"]
    rms_rest_along: float
    rms_rest_across: float


def response(x: Observed, n_displaced: int, n_follow: int, generator: torch.Generator) -> Response:
    """What becomes of displacements from the manifold, without input or noise."""
    pick = torch.randperm(len(x.s), generator=generator)[:n_displaced]
    m, basis = x.manifold(x.s[pick]), x.basis[:, pick]
    sd = math.sqrt(x.v)

    def drift(r):
        return dynamics.step(x.ensemble, r) - r

    def displaced(unit, size):
        delta = size * sd * unit
        after = decay(x.ensemble, m, delta, 1)[0][1]
        wanted = x.denoiser(m + delta)
        asked = (wanted - x.denoiser(m - delta)) / 2
        there = [of - manifolds.along(basis, of) for of in (drift(m + delta), wanted)]
        slopes = (-agreement(of, delta).slope for of in (after - delta, asked))
        return *slopes, agreement(*there).cosine

    units = directions(x.manifold, x.s[pick], x.manifold.span[:, :20], generator)
    units = [units[way].to(m.dtype) for way in WAYS]
    left = [decay(x.ensemble, m, 4 * sd * unit, n_follow)[1].numpy() for unit in units]
    taken = np.array([[displaced(unit, size) for size in SIZES] for unit in units])
    rest = drift(m)
    rest_along = manifolds.along(basis, rest)
    shares, rms = np.moveaxis(taken, -1, 0), (_rms(rest_along), _rms(rest - rest_along))
    return Response(np.array(left), *shares, rms_rest_along=rms[0], rms_rest_across=rms[1])


class Examined(NamedTuple):
    """All that is asked of an ensemble; every entry has the axis `S` first. `leak` is the share of its activity that a
    unit loses in a step."""

    leak: Float[ndarray, " S"]
    across: Across
    along: Along
    update: Update
    response: Response
    echoes: Echoes
    places: Places | None

    def numbers(self) -> dict[str, Float[ndarray, " S"]]:
        """What is one number of each network, by name."""
        found = {"leak": self.leak}
        for group in self[1:]:
            found |= {name: x for name, x in group._asdict().items() if x.ndim == 1} if group else {}
        return found


@torch.no_grad()
def examine(
    ensemble: Ensemble,
    n_fit: int,
    n_test: int,
    n_steps: int,
    n_displaced: int,
    n_follow: int,
    generator: torch.Generator,
) -> Examined:
    """The drift of every network beside its score.

    Args:
        n_fit, n_test, n_steps: of `Observed`.
        n_displaced: states that are displaced.
        n_follow: steps that displacements are followed for.
        generator: as of both, a stream for each network.
    """
    rows = []
    for i, one in enumerate(spawn(generator, ensemble.numbers)):
        x = Observed(ensemble[i], n_fit, n_test, n_steps, one)
        answers = across(x), along(x), update(x), response(x, n_displaced, n_follow, one), echoes(x)
        rows.append((x.leak, *answers, places(x) if isinstance(x.manifold, Plane) else None))
    leaks, *groups = zip(*rows, strict=True)
    return Examined(np.array(leaks), *(_stack(group) for group in groups))


@torch.no_grad()
def asleep(ensemble: Ensemble, n_fit: int, n_test: int, n_steps: int, generator: torch.Generator) -> Across:
    """Across the manifold of sleep, of every network, the drift beside the score of the law of sleep itself."""
    streams = enumerate(spawn(generator, ensemble.numbers))
    rows = [across(Observed(ensemble[i], n_fit, n_test, n_steps, one, sleeping)) for i, one in streams]
    return _stack(tuple(rows))


def _stack(rows: tuple) -> Any:
    return type(rows[0])(*map(np.array, zip(*rows, strict=True))) if rows[0] else None


def _change(x: Observed) -> Tensor:
    """What a step with input adds beside its noise."""
    return dynamics.step(x.ensemble, x.test.r, ds=x.test.ds) - x.test.r


def _other(x: Tensor) -> Tensor:
    """Each state's entry exchanged for that of a state of another trajectory."""
    return x.roll(len(x) // 3, 0)


def _rms(x: Tensor) -> float:
    return float(x.square().sum(-1).mean().sqrt())
