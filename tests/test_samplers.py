"""Transition matrices against closed forms, and against each other."""

import math

import pytest
import torch

from reactivation_core import samplers, theory
from reactivation_core.protocols import currents, sampling
from reactivation_core.theory import Gaussian, Mixture

LINE = torch.linspace(-6, 6, 601, dtype=torch.float64)[:, None]
AXIS = torch.tensor([1.0, 0.0], dtype=torch.float64)


def ring(v, kappa=1.0):
    angle = torch.arange(256, dtype=torch.float64) * (2 * math.pi / 256)
    return Mixture(torch.stack((angle.cos(), angle.sin()), -1), v, (kappa * angle.cos()).exp())


def plane(v):
    """Half an axis of the plane in steps of half the noise, for a flat manifold of variance 1."""
    x = torch.arange(-6, 6.1, 0.5, dtype=torch.float64)
    return samplers.around(torch.stack((x, 0 * x), -1), math.sqrt(v), 6.5 * math.sqrt(2 * v) + 0.5)


def around_ring(v):
    return samplers.around(ring(v).points, math.sqrt(v), 6.5 * math.sqrt(2 * v))


@pytest.mark.parametrize("c", [1.0, 2.0])
@pytest.mark.parametrize("variance", [0.01, 1.0])
def test_langevin_settles_at_the_variance_of_its_closed_form(variance, c):
    v = 0.01
    q = samplers.settled(samplers.langevin(Gaussian(torch.tensor([variance - v]), v), v, LINE, c))
    assert q.sum() == pytest.approx(1)
    assert q @ LINE[:, 0] ** 2 == pytest.approx(theory.stationary_variance(variance, v, c), rel=1e-6)


@pytest.mark.parametrize("v", [0.1, 0.01])
def test_across_the_manifold_the_step_does_not_help(v):
    density = Gaussian(torch.zeros(1), v)
    step, p = samplers.langevin(density, v, LINE), samplers.law(density, LINE)
    assert samplers.weak_error(step, p, LINE[:, 0]).tolist() == pytest.approx([math.sqrt(2) - 1, 1, 3], rel=0.01)
    assert samplers.divergence(samplers.settled(step), p) == pytest.approx((1 - math.log(2)) / 2, rel=1e-3)


@pytest.mark.parametrize(("sampler", "order"), [(samplers.langevin, 1), (samplers.repaired, 2)])
def test_weak_error_is_of_its_order(sampler, order):
    errors = []
    for v in (0.01, 0.005, 0.0025):
        density = Mixture(torch.tensor([[-1.0], [1.5]]), 0.5 + v, torch.tensor([0.4, 0.6]))
        errors.append(samplers.weak_error(sampler(density, v, LINE), samplers.law(density, LINE), LINE[:, 0])[1].item())
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert orders == pytest.approx([order, order], abs=0.1)


def test_the_covariance_is_that_of_the_posterior_and_one_step_of_noise():
    v, density = 0.05, ring(0.05)
    r = around_ring(v)[::17]
    p = density.posterior(r)
    off = density.points - (p @ density.points)[:, None]
    expected = torch.einsum("kj,kja,kjb->kab", p, off, off) + v * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(samplers.covariance(density, v, r), expected)


def test_repaired_and_posterior_steps_have_the_same_two_moments():
    v, density = 0.02, ring(0.02)
    r = around_ring(v)
    near = (r.norm(dim=1) - 1).abs() < 0.1
    for T in (samplers.repaired(density, v, r)[near], samplers.posterior(density, r)[near]):
        mean = T @ r
        torch.testing.assert_close(mean, r[near] + theory.drift(density, r[near], v), atol=1e-6, rtol=0)
        second = torch.einsum("ik,ka,kb->iab", T, r, r) - mean[:, :, None] * mean[:, None]
        torch.testing.assert_close(second, samplers.covariance(density, v, r[near]), atol=1e-6, rtol=0)


def test_repaired_is_exact_where_the_density_is_normal_and_forgets_at_the_known_pace():
    v = 0.05
    density, r = Gaussian(AXIS, v), plane(v)
    step, p = samplers.repaired(density, v, r), samplers.law(density, r)
    assert samplers.divergence(samplers.settled(step), p) < 1e-7
    assert samplers.forgetting(step) == pytest.approx(1 / math.log(1 + v), rel=1e-4)
    assert samplers.divergence(samplers.settled(samplers.langevin(density, v, r)), p) > 0.15


def test_posterior_and_accepted_steps_are_reversible():
    v, density = 0.02, ring(0.02)
    r = around_ring(v)
    p = samplers.law(density, r)
    for T in (samplers.posterior(density, r), samplers.metropolis(density, v, r)):
        torch.testing.assert_close(T.sum(1), torch.ones_like(p))
        flow = p[:, None] * T
        torch.testing.assert_close(flow, flow.T, atol=1e-10, rtol=0)
        assert samplers.divergence(samplers.settled(T), p).abs() < 1e-9
    flow = p[:, None] * samplers.langevin(density, v, r)
    assert (flow - flow.T).abs().max() > 1e-6


@pytest.mark.parametrize("k", [1, 3])
def test_acceptance_across(k, generator):
    y = torch.randn(2, 200_000, k, generator=generator, dtype=torch.float64)
    square = y.square().sum(-1)
    accepted = (-(2 * square[1] - square[0]) / 4).exp().clamp(max=1).mean()
    assert samplers.acceptance(k) == pytest.approx(float(accepted), abs=0.005)


def test_log_concave_activity_reaches_its_own_law_at_the_bound():
    v, c = 0.05, 2.0
    density, r = Gaussian(AXIS, v), plane(v)
    step = samplers.langevin(density, v, r, c)
    start = samplers.law(Mixture(torch.tensor([[3.0, 0.0]]), v), r)
    found = samplers.divergence(samplers.path(step, start, 80), samplers.settled(step))
    squared = 9 + (math.sqrt(v) - math.sqrt(theory.stationary_variance(1 + v, v, c))) ** 2
    steps = torch.arange(1, 81, dtype=torch.float64)
    assert (found[1:] <= squared / (2 * c * v) * (1 + v) ** (-2 * steps)).all()
    assert found[70] / found[71] == pytest.approx((1 + v) ** 2, rel=0.01)


@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_the_posterior_forgets_no_slower_than_its_bound(kappa):
    v, density = 0.05, ring(0.05, kappa)
    r = around_ring(v)
    far = Mixture(torch.tensor([[-1.0, 0.0]]), v)
    laws = samplers.path(samplers.posterior(density, r), samplers.law(far, r), 40)
    found = samplers.divergence(laws, samplers.law(density, r))
    bound = found[0] * (1 + math.exp(-2 * kappa) * v) ** (-2 * torch.arange(41, dtype=torch.float64))
    assert (found <= bound).all()
    if kappa == 0:
        # Sharp in the end: twice the exponent, as a factor 2 would have it, is too much.
        assert (found[20] / found[40]).log() < 1.2 * (bound[20] / bound[40]).log()


@pytest.mark.parametrize("c", [1.0, 2.0])
def test_a_ring_has_the_gap_and_the_law_of_its_limit(c):
    v, angles = 0.005, torch.arange(101, dtype=torch.float64) * (2 * math.pi / 101)
    step = samplers.langevin(ring(v), v, around_ring(v), c)
    gap = currents.ring_rates(-(2 / c) * angles.sin())[1].item()
    assert samplers.forgetting(step) == pytest.approx(2 / (c * v * gap), rel=0.03)
    found = samplers.places(samplers.settled(step), around_ring(v), angles)
    expected = ((2 / c) * angles.cos()).softmax(0) * 101 / (2 * math.pi)
    torch.testing.assert_close(found, expected, atol=0.004, rtol=0)


@pytest.mark.parametrize("c", [1.0, 2.0])
def test_two_points_forget_in_the_time_of_the_closed_form(c):
    v, log_odds = 0.05 / c, math.log(7 / 3)
    density = Mixture(torch.tensor([[1.0], [-1.0]]), v, torch.tensor([0.7, 0.3]))
    r = samplers.around(density.points, v / 3, 7 * math.sqrt(c * v))
    step = samplers.langevin(density, v, r, c)
    assert samplers.forgetting(step) == pytest.approx(sampling.switching_time(v, c, log_odds), rel=0.05)
    weight = samplers.settled(step)[r[:, 0] > 0].sum()
    assert weight == pytest.approx(1 / (1 + math.exp(-log_odds / c)), abs=0.02)


def test_a_grid_refuses_what_is_no_spacing():
    with pytest.raises(ValueError, match="spacing"):
        samplers.around(AXIS[None], 0.0, 1.0)
