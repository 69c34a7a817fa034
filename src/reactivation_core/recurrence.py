r"""The same networks, trained with a backward pass written by hand.

One call computes the training loss of every network in an ensemble,

$$ L = \frac{1}{B T N_o} \sum_{b, t, i} \left(f_i(s_{b,t}) - (D r_{b,t})_i\right)^2, $$

and its gradient for every parameter, equal to what automatic differentiation of `networks` gives. A `cost` times the
mean square of units may be added. It is faster for
four reasons. Recurrent and input weights act in one product, $[W_{rec}\; W_{in}]\,[r; \Delta s]$. The readout, its
error and the targets are formed a few steps at a time on the way back, while they are still in cache, and never
stored whole. The head-direction cells, sums of few harmonics, are not formed at all. And the time sweep writes into
buffers that are kept from batch to batch.

With a lower-precision `dtype` (bfloat16) the products take their factors in that type; the state $r$, its gradient,
the parameters and the sums over trajectories stay in float32.

Memory is laid out `(S, T, B, N)`, so that all trajectories of one step are contiguous.

Gradients may be cut: with `truncate` $= k$ activity at the steps $k, 2k, \dots$ counts as given, and what is lost after
such a step changes nothing before it (truncated backpropagation through time, Williams and Peng, 1990). The loss is the
same.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from reactivation_core.cells import HeadDirectionCells, PlaceCells
from reactivation_core.networks import GRU, RNN, Network
from reactivation_core.tasks import Task
from reactivation_core.trajectories import Trajectories

# Steps whose readout is formed at once: at B = 200 and N = 512 the working set of a block is a few megabytes.
_BLOCK = 10


class Readout:
    r"""Squared error $\sum \lVert f(s) - D r \rVert^2$ of a readout, and its gradients, a few states at a time."""

    def __init__(self, network: Network, cells: PlaceCells, dtype: torch.dtype):
        self.network, self.cells, self.dtype = network, cells, dtype

    def prepare(self) -> None:
        """Before the first states of a batch: weights in the products' type, sums at zero."""
        D = self.network.D
        self.D = D.to(self.dtype)
        self.grad_D = torch.zeros_like(D)
        self.error = D.new_zeros(len(D))

    def read(self, states: Tensor, s: Tensor) -> Tensor:
        """Take in states `(S, n, N)` and what they should tell; returns the gradient for the states."""
        error = self.cells.tuning(s).sub_(torch.bmm(states, self.D.mT))
        self.error += torch.linalg.vector_norm(error, dim=(1, 2)).square_()
        error = error.to(self.D.dtype)
        self.grad_D += torch.bmm(error.mT, states)
        return torch.bmm(error, -2 * self.D)

    def finish(self) -> tuple[Tensor, Tensor]:
        """The error, `(S,)`, and its gradient for `D`."""
        return self.error, self.grad_D.mul_(-2)


class HarmonicReadout:
    r"""The same, without a product over states and cells both, where few harmonics make up all tuning curves.

    With $f = \varphi\,C$, $x = [r; \varphi]$ and $A = [D, -C^\top]$ the error is $\sum \lVert A x \rVert^2 =
    \mathrm{tr}(A^\top A \sum x x^\top)$. Its gradients are the columns of $2 A^\top A\,x$ and $2 A \sum x x^\top$ that
    belong to $r$. They are small differences of large terms, so all factors keep the parameters' type."""

    def __init__(self, network: Network, cells: HeadDirectionCells, dtype: torch.dtype):
        self.network, self.cells, self.N = network, cells, network.n_units
        self.C_T = cells.loadings().T.expand(network.n_networks, -1, -1)

    def prepare(self) -> None:
        """Before the first states of a batch: both factors of the error in one, moments at zero."""
        self.A = torch.cat((self.network.D, -self.C_T), -1)
        self.gram = self.A.mT @ self.A
        self.moments = torch.zeros_like(self.gram)

    def read(self, states: Tensor, s: Tensor) -> Tensor:
        """Take in states `(S, n, N)` and the bearings they should tell; returns the gradient for the states."""
        x = torch.cat((states.to(self.A.dtype), self.cells.harmonics(s)), -1)
        self.moments += torch.bmm(x.mT, x)
        return torch.bmm(x, 2 * self.gram[..., : self.N])

    def finish(self) -> tuple[Tensor, Tensor]:
        """The error, `(S,)`, and its gradient for `D`."""
        return (self.gram * self.moments).sum((1, 2)), 2 * (self.A @ self.moments)[..., : self.N]


class Recurrence(ABC):
    r"""Loss and gradients of an ensemble on batches of one shape; `eta`, `(S, T, B, N_r)`, holds the draws of $\eta$.

    Args:
        network: the ensemble, whose parameters receive the gradients.
        task: the cells that give the targets.
        n_trajectories, n_steps: `B` and `T`.
        dtype: the type of the factors of every product; float32 by default.
        truncate: steps after which gradients are cut, or None.
        cost: weight of the mean square of units in the loss.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        n_trajectories: int,
        n_steps: int,
        dtype: torch.dtype = torch.float32,
        truncate: int | None = None,
        cost: float = 0.0,
    ):
        self.network, self.task, self.truncate, self.cost = network, task, truncate or n_steps, cost
        self.shape = S, T, B, N = network.n_networks, n_steps, n_trajectories, network.n_units
        self.options = {"device": network.D.device, "dtype": dtype}
        self.eta = torch.empty(S, T, B, N, device=network.D.device, dtype=network.D.dtype)

    @abstractmethod
    def __call__(self, batch: Trajectories, sigma: float) -> Tensor:
        """Loss of each network, `(S,)`, with the noise `sigma` times `eta`; leaves the gradients in the parameters'
        `.grad`."""


class ByHand(Recurrence):
    """A backward pass written by hand: a subclass gives the steps forth and back, to the sweep that is the same."""

    def __init__(self, network: Network, task: Task, *settings, **options):
        super().__init__(network, task, *settings, **options)
        S, T, B, N = self.shape
        # x(t) = [r(t); Δs(t)], the factor of every recurrent product.
        self.x = torch.empty(S, T + 1, B, N + task.n_inputs, **self.options)
        # Views of every step, as making them anew takes as long as a small step's arithmetic.
        self.x_at, self.r_at, self.eta_at = self.x.unbind(1), self.x[..., :N].unbind(1), self.eta.unbind(1)
        self.alpha = network.dt / network.tau
        if isinstance(task.cells, HeadDirectionCells):
            self.readout = HarmonicReadout(network, task.cells, self.options["dtype"])
        else:
            self.readout = Readout(network, task.cells, self.options["dtype"])

    @torch.no_grad()
    def __call__(self, batch: Trajectories, sigma: float) -> Tensor:
        """As of every recurrence."""
        S, T, B, N = self.shape
        dtype = self.options["dtype"]
        self.x[:, :-1, :, N:] = batch.ds.transpose(1, 2)
        f0 = self.task.cells.tuning(batch.s[:, :, 0]).to(dtype)
        r = torch.bmm(f0, self.network.encoder.to(dtype).mT).to(self.eta.dtype)
        self.r_at[0].copy_(r)
        self.prepare()
        for t in range(T):
            self.forward_step(t, r)
            if sigma:
                r.add_(self.eta_at[t], alpha=sigma)
            self.r_at[t + 1].copy_(r)

        self.readout.prepare()
        delta = torch.zeros_like(r)  # α dL/dr(t), carried backwards
        scale, ratio = 1 / (B * T * self.network.n_cells), self.cost * self.network.n_cells / N
        squares = torch.zeros(S, device=r.device, dtype=r.dtype)
        for end in range(T, 0, -_BLOCK):
            start = max(end - _BLOCK, 0)
            states = self.x[:, start + 1 : end + 1].flatten(1, 2)[..., :N]
            s = batch.s[:, :, start + 1 : end + 1].transpose(1, 2)
            grad_states = self.readout.read(states, s.flatten(1, 2))
            if self.cost:
                grad_states.add_(states, alpha=2 * ratio)
                squares += torch.linalg.vector_norm(states, dim=(1, 2), dtype=r.dtype).square_()
            grad_states = grad_states.unflatten(1, (end - start, B))
            for t in reversed(range(start, end)):
                delta.add_(grad_states[:, t - start], alpha=self.alpha * scale)
                self.backward_step(t, delta)
                if t and t % self.truncate == 0:
                    delta.zero_()
            self.accumulate(start, end)
        loss, grad_D = self.readout.finish()
        self.network.D.grad = grad_D.mul_(scale)
        self.network.encoder.grad = torch.bmm(delta.to(dtype).mT, f0).to(grad_D.dtype).div_(self.alpha)
        self.finish()
        return loss.add_(squares, alpha=ratio).mul_(scale)

    def join(self, *names: str) -> Tensor:
        """Weights side by side, in the products' type."""
        return torch.cat([getattr(self.network, name) for name in names], -1).to(self.options["dtype"])

    @staticmethod
    def add_product(total: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> None:
        r"""$\beta\,$`total`$\, + \alpha\,a\,b$ in place; $a$ and $b$ may be of a lower precision than the total."""
        if a.dtype == total.dtype:
            total.baddbmm_(a, b, beta=beta, alpha=alpha)
        else:
            total.mul_(beta).add_(torch.bmm(a, b), alpha=alpha)

    def assign(self, grad: Tensor, recurrent: str, inputs: str) -> None:
        """Split a joint gradient between the recurrent and the input weights."""
        N = self.network.n_units
        getattr(self.network, recurrent).grad = grad[..., :N].contiguous()
        getattr(self.network, inputs).grad = grad[..., N:].contiguous()

    @abstractmethod
    def prepare(self) -> None:
        """Before the first step: weights in the products' type, gradients at zero."""

    @abstractmethod
    def forward_step(self, t: int, r: Tensor) -> None:
        """Advance `r` in place by the noiseless step from `x(t)`, keeping what the way back needs."""

    @abstractmethod
    def backward_step(self, t: int, delta: Tensor) -> None:
        r"""Turn `delta` in place from $\alpha\,\partial L/\partial r(t+1)$ into $\alpha\,\partial L/\partial r(t)$."""

    @abstractmethod
    def accumulate(self, start: int, end: int) -> None:
        """Add the steps from `start` to `end` to the weights' gradients."""

    @abstractmethod
    def finish(self) -> None:
        """After the last step back: hand the gradients to the parameters."""


class Readable(Recurrence):
    """Automatic differentiation of the network's own `step`, for a network without a backward pass by hand."""

    @torch.enable_grad()
    def __call__(self, batch, sigma):
        network, tuning = self.network, self.task.cells.tuning
        noise = sigma * self.eta if sigma else torch.zeros_like(self.eta)
        network.zero_grad()
        dtype = self.options["dtype"]
        with torch.autocast(self.eta.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            r, parts = network.encode(tuning(batch.s[:, :, 0])), []
            for ds, eta in zip(batch.ds.split(self.truncate, 2), noise.split(self.truncate, 1), strict=True):
                parts.append(network(r, ds, eta.transpose(1, 2)))
                r = parts[-1][:, :, -1].detach()
            states = torch.cat(parts, 2)
            outputs = network.readout(states)
        loss = (outputs - tuning(batch.s[:, :, 1:])).square().mean((1, 2, 3))
        if self.cost:
            loss = loss + self.cost * states.square().mean((1, 2, 3))
        loss.sum().backward()
        return loss.detach()


class RNNRecurrence(ByHand):
    r"""Eq. (A.1). With $u = W x$, $\alpha = dt/\tau$ and $\delta = \alpha\,\partial L/\partial r$, on the way back
    $v = \delta \odot [u > 0]$, $\delta \leftarrow (1 - \alpha)\,\delta + \alpha\,W_{rec}^\top v$, and
    $\partial L/\partial W = \sum v\,x^\top$."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.v = torch.empty(self.shape, **self.options)
        self.v_at = self.v.unbind(1)

    def prepare(self):
        W = self.join("W_rec", "W_in")
        # Products take the factor on the right faster as it lies in memory than transposed.
        self.W_T, self.W_rec = W.mT.contiguous(), W[..., : self.network.n_units].contiguous()
        self.grad = torch.zeros(W.shape, device=self.eta.device, dtype=self.eta.dtype)

    def forward_step(self, t, r):
        rate = torch.bmm(self.x_at[t], self.W_T, out=self.v_at[t]).relu_()
        r.mul_(1 - self.alpha).add_(rate, alpha=self.alpha)

    def backward_step(self, t, delta):
        v = self.v_at[t]
        torch.ops.aten.threshold_backward.grad_input(delta.to(v.dtype), v, 0, grad_input=v)
        self.add_product(delta, v, self.W_rec, 1 - self.alpha, self.alpha)

    def accumulate(self, start, end):
        self.grad += torch.bmm(self.v[:, start:end].flatten(1, 2).mT, self.x[:, start:end].flatten(1, 2))

    def finish(self):
        self.assign(self.grad, "W_rec", "W_in")


class GRURecurrence(ByHand):
    r"""Eqs. (A.3) to (A.5). With $c$ the candidate $\tanh(\cdot)$, $y = [g \odot r; \Delta s]$, $\alpha = dt/\tau$ and
    $\delta = \alpha\,\partial L/\partial r$, on the way back

    $$ \partial c = \delta (1 - z)(1 - c^2) \qquad \partial z = -\delta (c - r)\, z (1 - z)
       \qquad \partial g = (W_r^\top \partial c)\, r\, g (1 - g) $$
    $$ \delta \leftarrow \delta + \alpha \left(-\delta (1 - z) + (W_r^\top \partial c)\, g + W_z^\top \partial z
       + W_g^\top \partial g\right) $$

    all products of activities taken unit by unit."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        S, T, B, N = self.shape
        self.gates = torch.empty(S, T, B, 2 * N, **self.options)
        self.candidate = torch.empty(self.shape, **self.options)
        self.y = torch.empty_like(self.x[:, :-1])
        self.gates_at, self.candidate_at = self.gates.unbind(1), self.candidate.unbind(1)
        self.z_at, self.g_at = (gate.unbind(1) for gate in self.gates.chunk(2, -1))
        self.y_at, self.gr_at = self.y.unbind(1), self.y[..., :N].unbind(1)

    def prepare(self):
        N = self.network.n_units
        W_gates = torch.cat((self.join("W_z", "W_z_in"), self.join("W_g", "W_g_in")), 1)
        W_r = self.join("W_r", "W_r_in")
        self.W_gates_T, self.W_r_T = W_gates.mT.contiguous(), W_r.mT.contiguous()
        self.W_gates, self.W_r = W_gates[..., :N].contiguous(), W_r[..., :N].contiguous()
        self.y[..., N:] = self.x[:, :-1, :, N:]
        self.grad_gates, self.grad_r = (
            torch.zeros(W.shape, device=W.device, dtype=self.eta.dtype) for W in (W_gates, W_r)
        )

    def forward_step(self, t, r):
        torch.bmm(self.x_at[t], self.W_gates_T, out=self.gates_at[t]).sigmoid_()
        torch.mul(self.g_at[t], self.r_at[t], out=self.gr_at[t])
        candidate = torch.bmm(self.y_at[t], self.W_r_T, out=self.candidate_at[t]).tanh_()
        r.mul_(1 - self.alpha).add_(torch.lerp(candidate, self.r_at[t], self.z_at[t]), alpha=self.alpha)

    def backward_step(self, t, delta):
        z, g, c, r = self.z_at[t], self.g_at[t], self.candidate_at[t], self.r_at[t]
        grad_z = delta * (r - c)
        v = torch.addcmul(delta, delta, z, value=-1)
        # From here on z, g and c are the gradients of the arguments of their functions.
        torch.ops.aten.sigmoid_backward.grad_input(grad_z, z, grad_input=z)
        torch.ops.aten.tanh_backward.grad_input(v, c, grad_input=c)
        grad_gr = torch.bmm(c, self.W_r)
        delta.sub_(v, alpha=self.alpha).addcmul_(grad_gr, g, value=self.alpha)
        torch.ops.aten.sigmoid_backward.grad_input(grad_gr.mul_(r), g, grad_input=g)
        self.add_product(delta, self.gates_at[t], self.W_gates, 1, self.alpha)

    def accumulate(self, start, end):
        self.grad_gates += torch.bmm(self.gates[:, start:end].flatten(1, 2).mT, self.x[:, start:end].flatten(1, 2))
        self.grad_r += torch.bmm(self.candidate[:, start:end].flatten(1, 2).mT, self.y[:, start:end].flatten(1, 2))

    def finish(self):
        grad_z, grad_g = self.grad_gates.chunk(2, 1)
        self.assign(grad_z, "W_z", "W_z_in")
        self.assign(grad_g, "W_g", "W_g_in")
        self.assign(self.grad_r, "W_r", "W_r_in")


RECURRENCES: dict[type[Network], type[Recurrence]] = {RNN: RNNRecurrence, GRU: GRURecurrence}
