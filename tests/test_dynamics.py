"""The step without input, against closed forms and finite differences."""

import math

import pytest
import torch

from reactivation_core import dynamics, experiments, manifolds, phases
from reactivation_core.networks import GRU
from reactivation_core.protocols import spreading

N = 12


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=["rnn", "gru"])
def ensemble(request, tiny_experiment, generator):
    experiment = tiny_experiment.vary(network=request.param, n_units=N)
    drawn = phases.untrained(experiment, 1, generator)
    drawn.network.double()
    return drawn


def states(n, generator):
    return torch.randn(n, N, generator=generator, dtype=torch.float64)


def test_the_jacobian_is_the_derivative_of_the_step(ensemble, generator):
    r, h = states(5, generator), 1e-6
    A = dynamics.jacobian(ensemble, r)
    for i, axis in enumerate(torch.eye(N, dtype=r.dtype)):
        slope = (dynamics.step(ensemble, r + h * axis) - dynamics.step(ensemble, r - h * axis)) / (2 * h)
        torch.testing.assert_close(A[:, :, i], slope, rtol=0, atol=1e-8)


def test_a_function_of_one_network_refuses_several(tiny_experiment, generator):
    two = phases.untrained(tiny_experiment.vary(n_units=N), 2, generator)
    with pytest.raises(ValueError, match="too many values"):
        dynamics.step(two, states(3, generator).float())


def test_slow_directions_are_counted():
    A = torch.diag(torch.tensor([1.01, 0.99, -0.985, 0.97, 0.5]))[None]
    assert dynamics.slow_directions(dynamics.moduli(A), 50).tolist() == [3]


def test_without_a_bias_newton_goes_to_zero_at_once(tiny_experiment, generator):
    ensemble = phases.untrained(tiny_experiment.vary(n_units=N), 1, generator)
    ensemble.network.double()
    assert dynamics.newton(ensemble, states(5, generator), 1).abs().max() < 1e-12


def test_newton_finds_the_fixed_point_of_a_biased_step(ensemble, generator):
    class Biased(type(ensemble.network)):
        def step(self, r, ds, noise):
            return super().step(r, ds, noise + 0.1)

    ensemble.network.__class__ = Biased
    r = dynamics.newton(ensemble, states(5, generator), 10)
    torch.testing.assert_close(dynamics.step(ensemble, r), r)
    assert r.norm(dim=-1).min() > 0.1


def test_flow_is_the_step_again_and_again(ensemble, generator):
    r = states(3, generator)
    path = dynamics.flow(ensemble, r, 2, bias=0.1)
    assert torch.equal(path[0], r)
    assert torch.equal(path[2], dynamics.step(ensemble, dynamics.step(ensemble, r, 0.1), 0.1))
    assert torch.equal(path[2], dynamics.after(ensemble, r, 2, bias=0.1))


def test_noise_is_carried_as_its_covariance_is(ensemble, generator):
    with torch.no_grad():
        for name in ensemble.network.weights:
            getattr(ensemble.network, name).mul_(8)  # so that the Jacobian changes along the path
    path = dynamics.flow(ensemble, states(4, generator), 6)
    gradient = torch.randn(2, 4, N, generator=generator, dtype=torch.float64)
    covariance = torch.zeros(4, N, N, dtype=torch.float64)
    for r in path[:-1]:
        A = dynamics.jacobian(ensemble, r)
        covariance = A @ covariance @ A.mT + 0.3 * torch.eye(N)
    expected = torch.einsum("dni,nij,dnj->n", gradient, covariance, gradient)
    torch.testing.assert_close(spreading.linear_variance(ensemble, path, gradient, 0.3), expected)


def test_noise_on_a_leak_alone_has_the_closed_form(tiny_experiment, generator):
    ensemble = phases.untrained(tiny_experiment.vary(n_units=N), 1, generator)
    with torch.no_grad():
        ensemble.network.W_rec.zero_()
    path = dynamics.flow(ensemble, states(1, generator).float(), 10)
    gradient = torch.randn(1, 1, N, generator=generator)
    a = 1 - tiny_experiment.dt / tiny_experiment.tau
    expected = 0.3 * sum(a ** (2 * j) for j in range(10)) * gradient.square().sum()
    torch.testing.assert_close(spreading.linear_variance(ensemble, path, gradient, 0.3)[0], expected)


@pytest.fixture
def ideal(generator):
    """The ideal head-direction network, on points closer than its noise is wide."""
    base = experiments.get("head-direction-unbiased")
    small = base.vary(task={"n_cells": 24}, n_units=24, sigma=0.1 / math.sqrt(0.02))
    return phases.ideal(small, 400, generator)


def test_the_ring_is_found_in_noisy_activity(ideal, generator):
    def clean(s):
        return ideal.network.encode(ideal.task.cells.tuning(s[None])[0])

    drawn = clean(2 * math.pi * torch.rand(2000, 1, generator=generator))
    ring = manifolds.Ring(ideal, drawn + 0.02 * torch.randn(drawn.shape, generator=generator))
    s, h = torch.linspace(-3, 3, 50)[:, None], 1e-3
    assert (ring(s) - clean(s)).norm() < 0.01 * clean(s).norm()
    torch.testing.assert_close(ring.ray(2 * clean(s)).float(), s)
    torch.testing.assert_close(ring.tangents(s)[0], (ring(s + h) - ring(s - h)) / (2 * h), rtol=0, atol=1e-3)
    r = clean(s) + 0.1 * torch.randn(50, 24, generator=generator)
    for i, axis in enumerate(torch.eye(24)):
        slope = (ring.ray(r + h * axis) - ring.ray(r - h * axis)) / (2 * h)
        torch.testing.assert_close(ring.gradient(r)[0, :, i], slope[:, 0], rtol=0, atol=1e-5)


def test_the_ideal_ring_has_one_slow_direction(ideal, generator):
    s = torch.linspace(-3, 3, 7)[:, None]
    m = ideal.network.encode(ideal.task.cells.tuning(s[None])[0])
    assert dynamics.slow_directions(dynamics.moduli(dynamics.jacobian(ideal, m)), 20).tolist() == [1] * 7


def test_the_gru_is_not_homogeneous(ensemble, generator):
    """What the chapter on dynamics says of the rectified network holds of it alone."""
    r = states(4, generator)
    scaled = dynamics.step(ensemble, 3 * r) - 3 * dynamics.step(ensemble, r)
    assert (scaled.abs().max() < 1e-12) != isinstance(ensemble.network, GRU)
