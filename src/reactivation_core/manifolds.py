r"""The states that stay: a network's own manifold of clean activity, $m(s) \approx E[r \mid s]$, fitted to activity.

`Plane` is that of the position task, `Ring` that of head direction. Both say which state activity stands for, and which
way along the manifold a change of activity points; the rest is across.

Tensors `(n, N)` are $n$ states of one network with $N$ units, `(n, d)` states $s$ of the world.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from reactivation_core import circular
from reactivation_core.cells import HeadDirectionCells
from reactivation_core.phases import Ensemble
from reactivation_core.tasks import PositionTask, must_be


class Manifold(ABC):
    r"""Clean activity $m(s)$ of one network."""

    unit: str  # of the state

    @abstractmethod
    def __call__(self, s: Float[Tensor, "n d"]) -> Float[Tensor, "n N"]:
        """Clean activity $m(s)$."""

    @abstractmethod
    def tangents(self, s: Float[Tensor, "n d"]) -> Float[Tensor, "d n N"]:
        r"""$\partial m/\partial s_i$, activity per unit of the state."""

    @abstractmethod
    def place(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "n d"]:
        """The state that activity stands for."""

    @abstractmethod
    def ray(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "n d"]:
        """The same, whatever the norm of activity."""

    @abstractmethod
    def gradient(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "d n N"]:
        """Of `ray`, per unit of activity."""

    def difference(self, a: Float[Tensor, "... d"], b: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """From the state `b` to the state `a`, the shorter way."""
        return a - b


class Plane(Manifold):
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

    unit = "m"
    # Of fit and search; and the ridge, over the number of states.
    N_ROUNDS, RIDGE = 3, 1e-6

    def __init__(self, ensemble: Ensemble, r: Float[Tensor, "n N"]):
        task = ensemble.task
        if not (isinstance(task, PositionTask) and task.cells.normalise):
            raise ValueError("expected a network of the position task with normalised place cells")
        self.ensemble, self.cells = ensemble, task.cells
        self.limit = task.motion.box / 2 + 0.1
        self.r_mean, self.f_mean = r.mean(0), r.new_zeros(())
        s = self._decode(r)
        for i in range(self.N_ROUNDS):
            f = self.cells.tuning(s[None])[0]
            self.f_mean = f.mean(0)
            f = (f - self.f_mean).double()
            gram = f.T @ f
            regularised = gram + self.RIDGE * len(f) * torch.eye(len(gram), dtype=gram.dtype, device=r.device)
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

    def _jet(self, s: Tensor) -> tuple[Tensor, ...]:
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
        _, e1, e2 = self._jet(s)
        return e1 * ds[:, :1] + e2 * ds[:, 1:]

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


class Ring(Manifold):
    r"""A head-direction network's own manifold of clean activity, $m(s) \approx E[r \mid s]$, fitted to activity.

    The bearing that $r$ stands for is that of the population vector of its output, $s(r) = \arg \sum_i (D r)_i\,
    e^{i\theta_i}$, and $m$ a sum of the harmonics that make up the tuning curves, by least squares.

    Args:
        ensemble: one network of the head-direction task.
        r: waking activity.
    """

    unit = "rad"

    def __init__(self, ensemble: Ensemble, r: Float[Tensor, "n N"]):
        self.cells = must_be(HeadDirectionCells, ensemble.task.cells)
        axes = torch.stack((self.cells.angles.cos(), self.cells.angles.sin()), -1).to(r.dtype)
        self.axes = ensemble.network.D.detach().reshape(-1, r.shape[1]).T @ axes
        self.M = torch.linalg.lstsq(self._harmonics(self.ray(r)).to(r.dtype), r).solution
        # Of the few dimensions in which the ring lies.
        self.span = torch.linalg.qr(self.M.T).Q

    def __call__(self, s: Float[Tensor, "n 1"]) -> Float[Tensor, "n N"]:
        """Clean activity $m(s)$."""
        return self._harmonics(s).to(self.M.dtype) @ self.M

    def _harmonics(self, s: Tensor) -> Tensor:
        # In double precision there would be more of them.
        return self.cells.harmonics(s.float())

    def tangents(self, s: Float[Tensor, "n 1"]) -> Float[Tensor, "1 n N"]:
        r"""$\partial m/\partial s$, activity per radian."""
        return torch.func.jvp(self, (s,), (torch.ones_like(s),))[1][None]

    def ray(self, r: Float[Tensor, "*shape N"]) -> Float[Tensor, "*shape 1"]:
        r"""The bearing $s(r)$ of activity, in radians; all $\lambda r$ have the same."""
        x, y = (r @ self.axes).unbind(-1)
        return torch.atan2(y, x)[..., None]

    # Nearest points would fold the ring where activity has faded.
    place = ray

    def gradient(self, r: Float[Tensor, "n N"]) -> Float[Tensor, "1 n N"]:
        r"""$\partial s/\partial r$, radians per unit of activity."""
        vector = r @ self.axes
        across = torch.stack((-vector[:, 1], vector[:, 0]), -1)
        return (across / vector.square().sum(-1, keepdim=True) @ self.axes.T)[None]

    def difference(self, a: Float[Tensor, "... 1"], b: Float[Tensor, "... 1"]) -> Float[Tensor, "... 1"]:
        """From the bearing `b` to the bearing `a`, the shorter way round."""
        return circular.wrap(a - b)


def fit(ensemble: Ensemble, r: Float[Tensor, "n N"]) -> Manifold:
    """The manifold of one network's waking activity: a `Ring` for head direction, else a `Plane`."""
    return (Ring if ensemble.experiment.task.kind == "head-direction" else Plane)(ensemble, r)


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
