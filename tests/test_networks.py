import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import expit as sigmoid

from reactivation_core import noise
from reactivation_core.networks import GRU, NETWORKS, RNN

S, B, T, N, CELLS, INPUTS = 2, 3, 5, 6, 4, 2
TAU, DT = 0.1, 0.02


@pytest.fixture(params=NETWORKS.values())
def network(request, generator):
    return request.param.initial(S, N, CELLS, INPUTS, TAU, DT, generator).double()


def parameters(cls):
    """Zeros for every parameter of an `RNN` or `GRU`."""
    return {name: torch.zeros(shape) for name, shape in cls.shapes(S, N, CELLS, INPUTS).items()}


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_the_paper(network, r, ds, noise):
    """One step of one network by Eqs. (A.1) and (A.3) to (A.5), on vectors."""
    W = {name: value.detach().numpy() for name, value in network.named_parameters()}

    def rnn(i, r, ds):
        return -r + np.maximum(W["W_rec"][i] @ r + W["W_in"][i] @ ds, 0)

    def gru(i, r, ds):
        z = sigmoid(W["W_z"][i] @ r + W["W_z_in"][i] @ ds)
        g = sigmoid(W["W_g"][i] @ r + W["W_g_in"][i] @ ds)
        return (1 - z) * (np.tanh(W["W_r"][i] @ (g * r) + W["W_r_in"][i] @ ds) - r)

    phi = rnn if isinstance(network, RNN) else gru
    new = np.empty_like(r)
    for i in range(S):
        for b in range(B):
            new[i, b] = r[i, b] + phi(i, r[i, b], ds[i, b]) / TAU * DT + noise[i, b]
    return new


def test_a_step_is_the_papers_equation(network, generator):
    r, ds, eta = (normal(generator, S, B, n) for n in (N, INPUTS, N))
    got = network.step(r, ds, eta).detach()
    np.testing.assert_allclose(got, by_the_paper(network, *(x.numpy() for x in (r, ds, eta))), rtol=1e-12)


def test_forward_takes_one_step_after_another(network, generator):
    r, ds, eta = normal(generator, S, B, N), normal(generator, S, B, T, INPUTS), normal(generator, S, B, T, N)
    states = network(r, ds, eta)
    for t in range(T):
        r = network.step(r, ds[:, :, t], eta[:, :, t])
        assert torch.equal(states[:, :, t], r)


@pytest.mark.parametrize("cls, rate", [(RNN, 1.0), (GRU, 0.5)])
@pytest.mark.parametrize("dt, tau", [(0.02, 0.1), (0.01, 0.1), (0.02, 0.04)])
def test_without_weights_activity_leaks_away(cls, rate, dt, tau):
    # Without weights z = 1/2, and a GRU leaks at half the rate.
    network = cls(parameters(cls), tau, dt).double()
    r = torch.linspace(-1, 2, S * B * N, dtype=torch.float64).reshape(S, B, N)
    states = network(r, torch.ones(S, B, 30, INPUTS, dtype=r.dtype), torch.zeros(S, B, 30, N, dtype=r.dtype))
    decay = (1 - rate * dt / tau) ** torch.arange(1, 31, dtype=r.dtype)
    torch.testing.assert_close(states, r[:, :, None] * decay[:, None])


@pytest.mark.parametrize("dt", [0.02, 0.01])
def test_without_weights_activity_is_an_ornstein_uhlenbeck_process(dt, generator):
    sigma, n, burn_in, lag = 0.5, 400, round(1.0 / dt), round(0.04 / dt)
    network = RNN(parameters(RNN), TAU, dt)
    eta = noise.gaussian(torch.empty(S, n, burn_in + lag, N), dt, generator)
    states = network(torch.zeros(S, n, N), torch.zeros(S, n, burn_in + lag, INPUTS), sigma * eta).detach()
    before, after = states[:, :, burn_in - 1].flatten(), states[:, :, -1].flatten()
    variance = sigma**2 * dt / (1 - (1 - dt / TAU) ** 2)
    assert scipy.stats.kstest(after, scipy.stats.norm(0, math.sqrt(variance)).cdf).pvalue > 1e-3
    correlation = (1 - dt / TAU) ** lag
    standard_error = (1 - correlation**2) / math.sqrt(len(after))
    assert abs(np.corrcoef(before, after)[0, 1] - correlation) < 4 * standard_error


def test_halving_the_step_keeps_the_course(network, generator):
    r, ds = normal(generator, S, B, N), normal(generator, S, B, INPUTS)

    def course(n_per_step):
        fine = type(network)(dict(network.named_parameters()), TAU, DT / n_per_step)
        shape = S, B, 4 * n_per_step
        return fine(r, ds[:, :, None].expand(*shape, -1), r.new_zeros(*shape, N))[:, :, -1]

    exact = course(256)
    errors = [(course(n) - exact).norm().item() for n in (4, 8)]
    # Euler's method is of first order.
    assert errors[1] / errors[0] == pytest.approx(0.5, abs=0.05)


def test_readout_and_encoder_are_linear_maps_of_each_network(network, generator):
    r, f = normal(generator, S, B, T, N), normal(generator, S, B, CELLS)
    torch.testing.assert_close(network.readout(r), torch.einsum("son,sbtn->sbto", network.D, r))
    torch.testing.assert_close(network.encode(f), torch.einsum("sno,sbo->sbn", network.encoder, f))


def test_a_slice_is_its_networks(network, generator):
    r, ds, eta = normal(generator, S, B, N), normal(generator, S, B, T, INPUTS), normal(generator, S, B, T, N)
    part = network[1:]
    assert part.n_networks == 1 and type(part) is type(network)
    torch.testing.assert_close(part(r[1:], ds[1:], eta[1:]), network(r, ds, eta)[1:].detach(), check_stride=False)


def test_initial_weights_are_uniform_within_the_root_of_the_fan_in(generator):
    for name, value in GRU.initial(2, 64, 100, 2, TAU, DT, generator).named_parameters():
        bound = 1 / math.sqrt(value.shape[-1])
        law = scipy.stats.uniform(-bound, 2 * bound)
        assert scipy.stats.kstest(value.detach().flatten(), law.cdf).pvalue > 1e-3, name
        assert not torch.equal(value[0], value[1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"extra": torch.zeros(1)}, r"expected the parameters \['D', 'W_in', 'W_rec', 'encoder'\], got .*'extra'"),
        ({"W_rec": torch.zeros(S, N, N + 1)}, rf"expected W_rec of shape \({S}, {N}, {N}\), got \({S}, {N}, {N + 1}\)"),
        ({"W_in": torch.tensor(0.0)}, r"expected W_in with 3 axes, got shape \(\)"),
        ({"encoder": torch.zeros(N, CELLS)}, "expected encoder with 3 axes"),
        ({"D": torch.full((S, CELLS, N), math.nan)}, f"expected finite values in D, got {S * CELLS * N} others"),
    ],
    ids=["unknown", "another shape", "a number", "a matrix", "NaN"],
)
def test_parameters_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RNN(parameters(RNN) | change, TAU, DT)


def test_a_missing_parameter_is_refused():
    with pytest.raises(ValueError, match="expected the parameters"):
        RNN({name: value for name, value in parameters(RNN).items() if name != "D"}, TAU, DT)


@pytest.mark.parametrize("tau, dt", [(0.1, 0.0), (0.1, -0.02), (0.01, 0.02), (math.nan, 0.02)])
def test_a_time_step_beyond_the_time_constant_is_refused(tau, dt):
    with pytest.raises(ValueError, match="expected 0 < dt <= tau"):
        RNN(parameters(RNN), tau, dt)


def test_the_rectified_network_is_homogeneous(generator):
    """What scales the encoder, the input weights and the noise, and the readout the other way, changes no output."""
    network = RNN.initial(S, N, CELLS, INPUTS, TAU, DT, generator).double()
    c = {"encoder": 4.0, "W_in": 4.0, "W_rec": 1.0, "D": 0.25}
    louder = RNN({name: c[name] * value.detach() for name, value in network.named_parameters()}, TAU, DT)
    f, ds, eta = (normal(generator, S, B, *n) for n in ((CELLS,), (T, INPUTS), (T, N)))
    quiet, loud = (of.readout(of(of.encode(f), ds, x * eta)) for of, x in ((network, 1), (louder, 4)))
    torch.testing.assert_close(loud, quiet)
    r = normal(generator, S, B, N)
    assert not network.step(0 * r, torch.zeros(S, B, INPUTS, dtype=r.dtype), 0.0).any()


@torch.no_grad()
def test_the_gated_network_beside_pytorchs(generator):
    """The same for dt = tau where all reset gates are alike, and not otherwise; for dt < tau a part of the step."""
    gru = GRU.initial(1, N, CELLS, INPUTS, TAU, TAU, generator).double()
    r, ds = normal(generator, 1, B, N), normal(generator, 1, B, INPUTS)

    def pytorch():
        cell = torch.nn.GRUCell(INPUTS, N, bias=False, dtype=torch.float64)
        cell.weight_hh.copy_(torch.cat((gru.W_g[0], gru.W_z[0], gru.W_r[0])))
        cell.weight_ih.copy_(torch.cat((gru.W_g_in[0], gru.W_z_in[0], gru.W_r_in[0])))
        return cell(ds[0], r[0])[None]

    whole = gru.step(r, ds, 0.0)
    assert (whole - pytorch()).abs().max() > 1e-3
    slow = GRU(dict(gru.named_parameters()), TAU, DT)
    torch.testing.assert_close(slow.step(r, ds, 0.0), r + DT / TAU * (whole - r))
    gru.W_g.zero_(), gru.W_g_in.zero_()
    torch.testing.assert_close(gru.step(r, ds, 0.0), pytorch())
