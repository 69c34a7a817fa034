r"""Closed forms of Section 2: densities with a score, the least-squares denoiser, Langevin steps.

Notation, as in the paper. A state $s \sim p(s)$ is represented by the clean activity $m = D^\dagger f(s)$, a point of
the *manifold*. One step of noise makes of it $r = m + \sigma\,\eta$, $\eta \sim N(0, dt\,I)$. Everything depends on
$\sigma$ and $dt$ through the variance of that noise alone,

$$ v = \sigma^2\,dt, $$

in squared units of activity, and so `v` is the argument of what follows. The density of noisy activity is

$$ p(r) = \int N(r;\, m,\, v I)\; dP(m). $$

Tensors in and out, float64; activity has the shape `(*shape, N)`. Draws take a `torch.Generator`.

Source: Krishna et al. (2024), Section 2; Miyasawa (1961) and Raphan and Simoncelli (2011) for the denoiser; Besag
(1994) and Roberts and Tweedie (1996) for the sampler.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reactivation_core.networks import Runnable


class Density(nn.Module, ABC):
    r"""A density $p(r)$ of activity with its score $\nabla \log p(r)$; `v` is the variance of the noise in it."""

    v: float

    @abstractmethod
    def log_prob(self, r: Float[Tensor, "*shape N"]) -> Float[Tensor, "*shape"]:
        r"""$\log p(r)$."""

    @abstractmethod
    def score(self, r: Float[Tensor, "*shape N"]) -> Float[Tensor, "*shape N"]:
        r"""$\nabla \log p(r)$, per unit of activity."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n N"]:
        """Independent draws."""


class Gaussian(Density):
    r"""Activity spread normally over a flat manifold: $p(r) = N(0, \Lambda + v I)$.

    $\Lambda$ is diagonal, the variance of clean activity along each axis, 0 across the manifold.

    Args:
        signal: the diagonal of $\Lambda$, `(N,)`.
        v: variance of the noise.

    Raises:
        ValueError: for a variance below 0 or not finite, or no noise.
    """

    variance: Float[Tensor, " N"]

    def __init__(self, signal: Float[Tensor, " N"], v: float):
        super().__init__()
        _check(v)
        if not (signal.isfinite() & (signal >= 0)).all():
            raise ValueError(f"expected finite variances >= 0 of the signal, got {signal.tolist()!s:.80}")
        self.v = v
        self.register_buffer("variance", signal.double() + v)

    def log_prob(self, r):
        """Sum of normal log densities, axis by axis."""
        return -(r.square() / self.variance + (2 * math.pi * self.variance).log()).sum(-1) / 2

    def score(self, r):
        r"""$-(\Lambda + v I)^{-1} r$."""
        return -r / self.variance

    def sample(self, n, generator):
        return self.variance.sqrt() * _normal((n, len(self.variance)), generator)


class Mixture(Density):
    r"""Equal isotropic Gaussians around points, $p(r) = \sum_j \pi_j\,N(r;\, m_j,\, v I)$.

    With points along a curve or a surface, it is the density of noisy activity around that manifold by quadrature;
    this is accurate where neighbouring points are closer than about $\sqrt v$.

    Args:
        points: $m_j$, `(J, N)`.
        v: variance of the noise.
        weights: $\pi_j$, `(J,)`, in any scale; equal if left out.

    Raises:
        ValueError: for weights below 0, not finite, or all 0, or no noise.
    """

    points: Float[Tensor, "J N"]
    weights: Float[Tensor, " J"]
    offset: Float[Tensor, " J"]

    def __init__(self, points: Float[Tensor, "J N"], v: float, weights: Float[Tensor, " J"] | None = None):
        super().__init__()
        _check(v)
        self.v = v
        if weights is None:
            weights = points.new_ones(len(points))
        elif not ((weights.isfinite() & (weights >= 0)).all() and weights.any()):
            raise ValueError(f"expected finite weights >= 0, not all 0, got {weights.tolist()!s:.80}")
        self.register_buffer("points", points.double())
        self.register_buffer("weights", weights.double() / weights.double().sum())
        # Of log π_j N(r; m_j, v I), what depends on j but not on r.
        self.register_buffer("offset", self.weights.log() - self.points.square().sum(-1) / (2 * v))

    def _exponent(self, r: Tensor) -> Tensor:
        # In one pass over what is the largest array of all.
        product = torch.addmm(self.offset, r.reshape(-1, r.shape[-1]), self.points.mT, alpha=1 / self.v)
        return product.reshape(*r.shape[:-1], -1)

    def posterior(self, r: Float[Tensor, "*shape N"]) -> Float[Tensor, "*shape J"]:
        r"""$p(m_j \mid r)$: how likely each point is to be the one that `r` is a noisy version of."""
        return self._exponent(r).softmax(-1)

    def log_prob(self, r):
        """Log of the sum of the components."""
        exponent = self._exponent(r).logsumexp(-1)
        return exponent - r.square().sum(-1) / (2 * self.v) - r.shape[-1] / 2 * math.log(2 * math.pi * self.v)

    def score(self, r):
        r"""$(E[m \mid r] - r)/v$."""
        return (self.posterior(r) @ self.points - r) / self.v

    def sample(self, n, generator):
        """Independent draws: a point, and noise."""
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.points[chosen] + math.sqrt(self.v) * _normal((n, self.points.shape[-1]), generator)


class Circle(Density):
    r"""Noisy activity around a circle of radius $R$ in the plane, its angle von Mises with concentration $\kappa$:

    $$ p(r) = \frac{I_0\!\left(\lVert k(r)\rVert\right)}{2\pi v\,I_0(\kappa)}\;
       e^{-(\lVert r\rVert^2 + R^2)/2v}, \qquad k(r) = \kappa\,e_1 + R\,r/v . $$

    Given $r$ the angle is again von Mises, with concentration and direction those of $k(r)$ (Mardia and Jupp 2000).

    Args:
        radius: $R$, in units of activity.
        v: variance of the noise.
        concentration: $\kappa$; 0 is the uniform angle.

    Raises:
        ValueError: for a radius or concentration below 0 or not finite, or no noise.
    """

    def __init__(self, radius: float, v: float, concentration: float = 0.0):
        super().__init__()
        _check(v)
        if not (0 <= radius < math.inf and 0 <= concentration < math.inf):
            raise ValueError(f"expected a finite radius and concentration >= 0, got {radius} and {concentration}")
        self.radius, self.v, self.concentration = radius, v, concentration

    def _k(self, r: Tensor) -> tuple[Tensor, Tensor]:
        k = self.radius * r.double() / self.v
        k = torch.stack((k[..., 0] + self.concentration, k[..., 1]), -1)
        return k, k.norm(dim=-1)

    def log_prob(self, r):
        """The logarithm of the density above; Bessel functions are scaled, so that large $k$ do no harm."""
        size = self._k(r)[1]
        kappa = torch.full_like(size, self.concentration)
        bessel = torch.special.i0e(size).log() + size - torch.special.i0e(kappa).log() - kappa
        return bessel - (r.square().sum(-1) + self.radius**2) / (2 * self.v) - math.log(2 * math.pi * self.v)

    def score(self, r):
        r"""$(E[m \mid r] - r)/v$ with $E[m \mid r] = R\,\frac{I_1(\lVert k\rVert)}{I_0(\lVert k\rVert)}\,
        \frac{k}{\lVert k\rVert}$."""
        k, size = self._k(r)
        # I1(x) / x is 1/2 at 0.
        size = size.clamp(min=1e-100)
        shrink = torch.special.i1e(size) / torch.special.i0e(size) / size
        return (self.radius * shrink[..., None] * k - r) / self.v

    def sample(self, n, generator):
        """Independent draws: one of 4096 angles, and noise."""
        angle = torch.arange(4096, dtype=torch.float64, device=generator.device) * (2 * math.pi / 4096)
        circle = self.radius * torch.stack((angle.cos(), angle.sin()), -1)
        return Mixture(circle, self.v, (self.concentration * (angle.cos() - 1)).exp()).sample(n, generator)


def drift(density: Density, r: Float[Tensor, "*shape N"], v: float) -> Float[Tensor, "*shape N"]:
    r"""Eq. (16), $\Delta r_1^*(r) = v\,\nabla \log p(r) = E[m \mid r] - r$, where $p$ holds noise of variance `v`.

    No function of $r$ comes closer to the clean activity in mean square.
    """
    return v * density.score(r)


def minimum_norm(D: Float[Tensor, "N_o N_r"], change: Float[Tensor, "*shape N_o"]) -> Float[Tensor, "*shape N_r"]:
    r"""Eq. (17), $\Delta r_2^* = D^\dagger\,f'\Delta s$: of all updates that change the readout as near to `change`
    $= f'\Delta s$ as any can, the one of least norm."""
    return change @ torch.linalg.pinv(D).mT


def langevin(
    density: Density, r: Float[Tensor, "*shape N"], v: float, c: float, generator: torch.Generator, n_steps: int = 1
) -> Float[Tensor, "*shape N"]:
    r"""Activity after steps asleep, Eq. (19): $r + v\,\nabla\log p(r) + \sqrt{c\,v}\;\xi$, $\xi \sim N(0, I)$, each.

    `c` multiplies the *variance* of the noise: 2 in Eq. (19), whose noise is $\sqrt 2\,\sigma\,\eta$.
    """
    for _ in range(n_steps):
        r = r + drift(density, r, v) + math.sqrt(c * v) * _normal(r.shape, generator)
    return r


def chain(
    density: Density, r: Float[Tensor, "*shape N"], v: float, c: float, n_steps: int, generator: torch.Generator
) -> Float[Tensor, "*shape T N"]:
    """`langevin` step after step: the start, and the state after each of `n_steps` steps, so that `T = n_steps + 1`."""
    path = [r]
    for _ in range(n_steps):
        path.append(langevin(density, path[-1], v, c, generator))
    return torch.stack(path, -2)


def stationary_variance(variance: float, v: float, c: float) -> float:
    r"""Variance at which `langevin` settles in a direction where $p$ is normal with the given `variance` $\lambda$:

    $$ \frac{c}{2}\;\frac{\lambda}{1 - v/2\lambda}. $$

    It is $\tfrac c2\lambda$ for $v \ll \lambda$, and $c\,v$ for $\lambda = v$.

    Raises:
        ValueError: if the step is unstable, $v \ge 2\lambda$.
    """
    if not v < 2 * variance:
        raise ValueError(f"expected a step v < 2 * {variance}, got {v}")
    return c / 2 * variance / (1 - v / (2 * variance))


def waking_variance(variance: float, v: float, correlation: float) -> float:
    r"""Variance at which the estimate of a waking network settles, along an axis on which the state has mean 0, the
    given `variance` $\Lambda$ and the correlation $\alpha^k$ between steps $k$ apart. With $\lambda = \Lambda + v$, the
    variance that the derivation takes for granted, and $b = 1 - v/\lambda$,

    $$ \hat x(t + dt) = b\,\hat x(t) + \Delta x + \sqrt v\,\xi, \qquad
       \operatorname{Var}\hat x = \frac{\lambda}{1 + b} + \frac{2\Lambda\,(1 - \alpha)}{(1 + b)(1 - \alpha b)} . $$
    """
    b = 1 - v / (variance + v)
    return (variance + v) / (1 + b) + 2 * variance * (1 - correlation) / (1 + b) / (1 - correlation * b)


def waking_multiplier(variance: float, v: float, correlation: float) -> float:
    r"""The multiplier of the noise's variance with which sleep keeps the law of the estimate of `waking_variance`. With
    $\lambda = \Lambda + v$ and $b = 1 - v/\lambda$,

    $$ c = 1 + \frac{\operatorname{Var}(b\,\hat x + \Delta x) - \operatorname{Var}(b\,\hat x)}{v}
         = 1 + \frac{2\Lambda}{\lambda}\,\frac{1 - \alpha}{1 - \alpha b} . $$
    """
    signal, b = variance / (variance + v), 1 - v / (variance + v)
    return 1 + 2 * signal * (1 - correlation) / (1 - correlation * b)


def mean_cosine(concentration: float) -> float:
    r"""Mean of $\cos\theta$ for a von Mises angle with this concentration about 0, $I_1(\kappa)/I_0(\kappa)$."""
    kappa = torch.tensor(concentration, dtype=torch.float64)
    return (torch.special.i1e(kappa) / torch.special.i0e(kappa)).item()


class IdealNetwork(Runnable):
    r"""The network that *is* Eq. (18), for states on a set of points.

    It takes the state for one of the `J` points $s_j$, and knows which from $r$ alone. Its step,

    $$ r + \Delta r^* = \sum_j p(s_j \mid r) \left[m_j + D^\dagger f'(s_j)\,\Delta s\right] + \sigma\,\eta,
       \qquad m_j = D^\dagger f(s_j), $$

    is Eq. (18) with the exact score of the mixture, and with $f'$ averaged over the states that $r$ may stand for.
    `phases` runs it like any network, and its `ideal` makes it for a task; it is an ensemble of one, `S = 1`, whose `D`
    has that axis.

    Args:
        f: tuning of the cells, from `(J, d)` to `(J, N_o)`.
        s: the points $s_j$, `(J, d)`.
        D: readout, `(N_o, N_r)`.
        v: variance $\sigma^2\,dt$ of one step's noise awake.
    """

    n_networks = 1
    s: Float[Tensor, "J d"]
    tangents: Float[Tensor, "d J N_r"]
    inverse: Float[Tensor, "N_r N_o"]
    # Share of the way to the denoised state that a step goes.
    leak = 1.0

    def __init__(self, f: Callable[[Tensor], Tensor], s: Float[Tensor, "J d"], D: Float[Tensor, "N_o N_r"], v: float):
        super().__init__()
        self.n_cells, self.n_units = D.shape
        self.register_buffer("s", s)
        self.register_buffer("D", D.double()[None])
        self.register_buffer("inverse", torch.linalg.pinv(D.double()))
        self.density = Mixture(self.encode(f(s)), v)
        axes = torch.eye(s.shape[1], dtype=s.dtype, device=s.device)
        along = [torch.func.jvp(f, (s,), (axis.expand_as(s),))[1] for axis in axes]
        self.register_buffer("tangents", torch.stack([self.encode(change) for change in along]))

    def __getitem__(self, index: slice) -> "IdealNetwork":
        if len(range(self.n_networks)[index]) != 1:
            raise ValueError(f"expected the one network there is, got {index}")
        return self

    def encode(self, f: Float[Tensor, "*shape N_o"]) -> Float[Tensor, "*shape N_r"]:
        r"""Clean activity $D^\dagger f$."""
        return f.double() @ self.inverse.mT

    def readout(self, r: Float[Tensor, "*shape N_r"]) -> Float[Tensor, "*shape N_o"]:
        return r @ self.D[0].mT

    def step(self, r: Tensor, ds: Float[Tensor, "*shape d"], noise: Float[Tensor, "*shape N_r"] | float) -> Tensor:
        r = r.double()
        posterior = self.density.posterior(r)
        r = torch.lerp(r, posterior @ self.density.points, self.leak) + noise
        for axis, tangents in zip(ds.double().unbind(-1), self.tangents, strict=True):
            if axis.any():
                r = r + axis[..., None] * (posterior @ tangents)
        return r

    def bearing(self, r: Float[Tensor, "*shape N_r"]) -> Float[Tensor, "*shape"]:
        """Of states that are bearings, the direction of the mean over the posterior, in radians."""
        posterior, s = self.density.posterior(r), self.s.double()[:, 0]
        return torch.atan2(posterior @ s.sin(), posterior @ s.cos())

    def spread(self) -> Float[Tensor, "J d d"]:
        r"""Covariance $v\,G(s_j)^{-1}$, $G = m'^\top m'$, by which one step's noise moves the estimate of the state, to
        first order in $v$."""
        return self.density.v * torch.linalg.inv(torch.einsum("ajn,bjn->jab", self.tangents, self.tangents))


class OptimalNetwork(IdealNetwork):
    r"""The one-step optimum, for states on a set of points: a step to the mean of the next clean activity,

    $$ r + g^*(r, \Delta s) = E[D^\dagger f(s + \Delta s) \mid r, \Delta s]
       = \sum_j p(s_j \mid r, \Delta s)\,D^\dagger f(s_j + \Delta s) . $$

    `IdealNetwork`, Eq. (18), is its first-order expansion in $\Delta s$ where $\Delta s$ tells nothing of $s$. That is
    taken for granted unless `evidence` gives $p(\Delta s \mid s_j)$, in any scale, as `(*shape, J)` from `(*shape, d)`.
    """

    evidence: Callable[[Tensor], Tensor] | None = None

    def __init__(self, f: Callable[[Tensor], Tensor], s: Float[Tensor, "J d"], D: Float[Tensor, "N_o N_r"], v: float):
        super().__init__(f, s, D, v)
        self.f = f
        # The sum is cut to the likeliest points; the others should have no weight.
        self.n_points = min(32 * s.shape[1], len(s))

    def step(self, r, ds, noise):
        weight = self.density.posterior(r)
        if self.evidence is not None:
            weight = weight * self.evidence(ds)
        weight, chosen = weight.topk(self.n_points)
        target = self.f((self.s[chosen] + ds[..., None, :]).flatten(0, -2)).unflatten(0, chosen.shape)
        weight = (weight / weight.sum(-1, keepdim=True)).to(target)
        return self.encode((weight[..., None, :] @ target).squeeze(-2)) + noise


class LeakyIdealNetwork(IdealNetwork):
    r"""The ideal network behind a leak: of the denoiser of Eq. (16) a step takes the share `leak` only,

    $$ \Delta r = \text{leak} \cdot (E[m \mid r] - r) + E[D^\dagger f' \mid r]\,\Delta s + \sigma\,\eta. $$

    A displacement across a flat manifold falls by the factor $a = 1 - \text{leak}$ per step, so that awake it has the
    variance $v/(1 - a^2)$, and the drift is $1/(1 + a)$ times $v$ times the score of the network's own activity.
    """

    leak = 0.2


def _check(v: float) -> None:
    if not (math.isfinite(v) and v > 0):
        raise ValueError(f"expected a finite variance v > 0, got {v}")


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
