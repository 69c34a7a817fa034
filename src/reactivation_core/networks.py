r"""The recurrent networks, one readable step each.

Activity $r(t)$ changes by $\Delta r(t) = \varphi(r, \Delta s)\,dt + \sigma\,\eta(t)$, Eqs. (1) and (2), integrated by
Euler and Maruyama with step $dt$; the output is linear, $o = D r$; the activity starts from a linear map of the cells'
activity, $r(0) = E f(s(0))$. There are no biases.

Every parameter has a leading axis `S`: an ensemble of independent networks is one object, and steps at once.

A further architecture is one subclass with `weights` and `step` (and a `recurrence` to train it quickly).

Source: Krishna et al. (2024), Appendix A; initial weights uniform within $\pm 1/\sqrt{\text{fan in}}$ as in the
released code (PyTorch's default for linear layers).
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Runnable(nn.Module, ABC):
    """What can be run awake and asleep, `S` networks at once; a subclass gives what is abstract, and a readout `D`."""

    n_networks: int
    n_units: int
    n_cells: int
    D: Float[Tensor, "S N_o N_r"]

    @abstractmethod
    def __getitem__(self, index: slice) -> "Runnable":
        """Some of the networks."""

    @abstractmethod
    def encode(self, f: Float[Tensor, "S B N_o"]) -> Float[Tensor, "S B N_r"]:
        """Initial activity from that of the cells."""

    @abstractmethod
    def readout(self, r: Float[Tensor, "S *points N_r"]) -> Float[Tensor, "S *points N_o"]:
        """Output $o = D r$."""

    @abstractmethod
    def step(
        self, r: Float[Tensor, "S B N_r"], ds: Float[Tensor, "S B N_in"], noise: Float[Tensor, "S B N_r"] | float
    ) -> Float[Tensor, "S B N_r"]:
        r"""Activity after one step: $r + \Delta r$, with `noise` the term $\sigma\,\eta(t)$."""

    def forward(
        self, r: Float[Tensor, "S B N_r"], ds: Float[Tensor, "S B T N_in"], noise: Float[Tensor, "S B T N_r"]
    ) -> Float[Tensor, "S B T N_r"]:
        """Activity after each of `T` steps from the initial activity `r`."""
        states = []
        for t in range(ds.shape[2]):
            r = self.step(r, ds[:, :, t], noise[:, :, t])
            states.append(r)
        return torch.stack(states, 2)


class Network(Runnable):
    r"""An ensemble of `S` networks with linear encoder and readout; a subclass gives the `step`.

    Args:
        parameters: tensors named as in `shapes`, all with the same `S`.
        tau: time constant $\tau$ of a unit, in seconds.
        dt: time step $dt$, in seconds.

    Raises:
        ValueError: if a parameter is missing, unknown, of another shape, or not finite.
    """

    encoder: Float[Tensor, "S N_r N_o"]
    weights: dict[str, tuple[str, str]]  # name: (rows, columns) by the sizes N_r and N_in

    def __init__(self, parameters: dict[str, Tensor], tau: float, dt: float):
        super().__init__()
        if not 0 < dt <= tau:
            raise ValueError(f"expected 0 < dt <= tau, got dt = {dt} and tau = {tau}")
        self.tau, self.dt = tau, dt
        expected = {"encoder", "D", *self.weights}
        if set(parameters) != expected:
            raise ValueError(f"expected the parameters {sorted(expected)}, got {sorted(parameters)}")
        for name, value in parameters.items():
            if value.ndim != 3:
                raise ValueError(f"expected {name} with 3 axes, got shape {tuple(value.shape)}")
        self.n_networks, self.n_units, self.n_cells = parameters["encoder"].shape
        n_inputs = next(parameters[name].shape[-1] for name, (_, n) in self.weights.items() if n == "N_in")
        for name, shape in self.shapes(self.n_networks, self.n_units, self.n_cells, n_inputs).items():
            value = parameters[name]
            if value.shape != shape:
                raise ValueError(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
            if not value.isfinite().all():
                raise ValueError(f"expected finite values in {name}, got {int((~value.isfinite()).sum())} others")
            self.register_parameter(name, nn.Parameter(value))

    @classmethod
    def shapes(cls, n_networks: int, n_units: int, n_cells: int, n_inputs: int) -> dict[str, tuple[int, int, int]]:
        """Shape of every parameter, by name."""
        size = {"N_r": n_units, "N_in": n_inputs}
        recurrent = {name: (n_networks, size[m], size[n]) for name, (m, n) in cls.weights.items()}
        return {"encoder": (n_networks, n_units, n_cells), "D": (n_networks, n_cells, n_units)} | recurrent

    @classmethod
    def initial(cls, n_networks, n_units, n_cells, n_inputs, tau, dt, generator: torch.Generator) -> "Network":
        r"""Untrained networks: weights uniform within $\pm 1/\sqrt{\text{fan in}}$."""
        return cls(
            {
                name: (2 * torch.rand(shape, generator=generator, device=generator.device) - 1) / math.sqrt(shape[-1])
                for name, shape in cls.shapes(n_networks, n_units, n_cells, n_inputs).items()
            },
            tau,
            dt,
        )

    def __getitem__(self, index: slice) -> "Network":
        part = type(self)({name: value.detach()[index] for name, value in self.named_parameters()}, self.tau, self.dt)
        return part.requires_grad_(self.D.requires_grad)

    def encode(self, f: Float[Tensor, "S B N_o"]) -> Float[Tensor, "S B N_r"]:
        """Initial activity $r(0) = E f(s(0))$ from the cells' activity."""
        return f @ self.encoder.mT

    def readout(self, r: Float[Tensor, "S *points N_r"]) -> Float[Tensor, "S *points N_o"]:
        """Output $o = D r$, Eq. (A.2)."""
        return (r.flatten(1, -2) @ self.D.mT).unflatten(1, r.shape[1:-1])


class RNN(Network):
    r"""Rectified-linear recurrent network, Eq. (A.1).

    $$ \Delta r = \frac{1}{\tau}\left[-r + \mathrm{ReLU}(W_{rec}\,r + W_{in}\,\Delta s)\right] dt + \sigma\,\eta $$
    """

    W_rec: Float[Tensor, "S N_r N_r"]
    W_in: Float[Tensor, "S N_r N_in"]
    weights = {"W_rec": ("N_r", "N_r"), "W_in": ("N_r", "N_in")}

    def step(self, r, ds, noise):
        drive = r @ self.W_rec.mT + ds @ self.W_in.mT
        return r + (drive.relu() - r) * (self.dt / self.tau) + noise


class GRU(Network):
    r"""Gated recurrent network in continuous time, Eqs. (A.3) to (A.5).

    $$ z = \mathrm{sigmoid}(W_z r + W_z^{in} \Delta s) \qquad g = \mathrm{sigmoid}(W_g r + W_g^{in} \Delta s) $$
    $$ \Delta r = \frac{1}{\tau}\left[(1 - z) \odot
       \left(\tanh(W_r (g \odot r) + W_r^{in} \Delta s) - r\right)\right] dt + \sigma\,\eta $$
    """

    W_z: Float[Tensor, "S N_r N_r"]
    W_z_in: Float[Tensor, "S N_r N_in"]
    W_g: Float[Tensor, "S N_r N_r"]
    W_g_in: Float[Tensor, "S N_r N_in"]
    W_r: Float[Tensor, "S N_r N_r"]
    W_r_in: Float[Tensor, "S N_r N_in"]
    weights = {
        "W_z": ("N_r", "N_r"),
        "W_z_in": ("N_r", "N_in"),
        "W_g": ("N_r", "N_r"),
        "W_g_in": ("N_r", "N_in"),
        "W_r": ("N_r", "N_r"),
        "W_r_in": ("N_r", "N_in"),
    }

    def gates(self, r: Float[Tensor, "S B N_r"], ds: Float[Tensor, "S B N_in"]) -> tuple[Tensor, Tensor]:
        """The update gate $z$ and the reset gate $g$, Eqs. (A.3) and (A.4)."""
        z = torch.sigmoid(r @ self.W_z.mT + ds @ self.W_z_in.mT)
        g = torch.sigmoid(r @ self.W_g.mT + ds @ self.W_g_in.mT)
        return z, g

    def step(self, r, ds, noise, gates: tuple[Tensor, Tensor] | None = None):
        """As every network's; `gates` takes the place of the network's own."""
        z, g = gates or self.gates(r, ds)
        candidate = torch.tanh((g * r) @ self.W_r.mT + ds @ self.W_r_in.mT)
        return r + (1 - z) * (candidate - r) * (self.dt / self.tau) + noise


NETWORKS: dict[str, type[Network]] = {"rnn": RNN, "gru": GRU}
