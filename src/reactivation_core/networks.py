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

    @property
    def n_state(self) -> int:
        """Size of the state that a step maps; activity, which gets the noise, comes first in it."""
        return self.n_units

    def forward(
        self, r: Float[Tensor, "S B n_state"], ds: Float[Tensor, "S B T N_in"], noise: Float[Tensor, "S B T N_r"]
    ) -> Float[Tensor, "S B T n_state"]:
        """Activity, or the state that it is part of, after each of `T` steps from the initial one `r`."""
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

    def leaking(self, leak: float) -> "Network":
        r"""The same weights with another leak, the share $dt/\tau$ of its activity that a unit loses in a step."""
        return type(self)({name: value.detach() for name, value in self.named_parameters()}, self.dt / leak, self.dt)

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

    def step(self, r, ds, noise, current: Tensor | float = 0.0):
        """As every network's; `current` is added to the drive of each unit."""
        drive = r @ self.W_rec.mT + ds @ self.W_in.mT + current
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

    def step(self, r, ds, noise, gates: tuple[Tensor, Tensor] | None = None, current: Tensor | float = 0.0):
        """As every network's; `gates` takes the place of the network's own, `current` is added to the candidate's
        drive of each unit."""
        z, g = gates or self.gates(r, ds)
        candidate = torch.tanh((g * r) @ self.W_r.mT + ds @ self.W_r_in.mT + current)
        return r + (1 - z) * (candidate - r) * (self.dt / self.tau) + noise


NETWORKS: dict[str, type[Network]] = {"rnn": RNN, "gru": GRU}


class SecondOrder(Runnable):
    r"""A network with adaptation and momentum, whose state is activity, velocity and adaptation, $z = (r, v, a)$.

    $$ v \leftarrow (1 - \lambda)\,v + \Delta r(r, a) \qquad r \leftarrow r + v \qquad
       a \leftarrow a + \frac{r - a}{\tau_a} $$

    $\Delta r(r, a)$ is the network's own step, noise and all, with $-b\,a$ added to the drive of each unit; all three
    are changed at once, from the values before. With $b = 0$ and $\lambda = 1$ activity is that of the network alone,
    bit for bit. Both begin at 0.

    Args:
        network: a rectified or a gated network.
        b: strength of adaptation.
        tau_a: time constant of adaptation, in steps.
        friction: $\lambda$, the share of its velocity that activity loses in a step.

    Raises:
        ValueError: for another network, b < 0, tau_a < 1, or friction outside (0, 1].

    Source: Casco-Rodriguez et al. (2026), who give networks of this kind a momentum.
    """

    def __init__(self, network: Runnable, b: float = 0.0, tau_a: float = 50.0, friction: float = 1.0):
        super().__init__()
        if not isinstance(network, RNN | GRU):
            raise ValueError(f"expected an RNN or a GRU, got {type(network).__name__}")
        if not (0 <= b < math.inf and 1 <= tau_a < math.inf and 0 < friction <= 1):
            got = f"b = {b}, tau_a = {tau_a}, friction = {friction}"
            raise ValueError(f"expected b >= 0, tau_a >= 1 and 0 < friction <= 1, got {got}")
        self.network, self.b, self.tau_a, self.friction = network, b, tau_a, friction
        self.n_networks, self.n_units, self.n_cells = network.n_networks, network.n_units, network.n_cells
        self.D = network.D

    def __getitem__(self, index: slice) -> "SecondOrder":
        return SecondOrder(self.network[index], self.b, self.tau_a, self.friction)

    @property
    def n_state(self) -> int:
        return 3 * self.n_units

    def encode(self, f: Float[Tensor, "S B N_o"]) -> Float[Tensor, "S B n_state"]:
        """The network's initial activity, without velocity or adaptation."""
        r = self.network.encode(f)
        return torch.cat((r, torch.zeros_like(r), torch.zeros_like(r)), -1)

    def readout(self, r: Float[Tensor, "S *points n_state"]) -> Float[Tensor, "S *points N_o"]:
        """Output $o = D r$ of activity."""
        return self.network.readout(r[..., : self.n_units])

    def step(self, r, ds, noise):
        r, v, a = r.split(self.n_units, -1)
        new = self.network.step(r, ds, noise, current=-self.b * a) + (1 - self.friction) * v
        return torch.cat((new, new - r, a + (r - a) / self.tau_a), -1)
