"""Drift beside score: closed forms of linear systems, and the ideal network, whose answers are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reactivation_core import dynamics, experiments, manifolds, phases, theory
from reactivation_core.networks import RNN
from reactivation_core.protocols import agreement

CELLS = 32


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(kind):
    base = experiments.get("position-noisy-unbiased")
    experiment = base.vary(task={"n_cells": CELLS, "width": 0.4}, n_units=CELLS, sigma=0.08)
    return phases.ideal(experiment, 91, torch.Generator().manual_seed(0), kind=kind)


@pytest.fixture(scope="module")
def ideal():
    return make(theory.IdealNetwork)


@pytest.fixture(scope="module")
def noisy(ideal):
    """Draws from the exact density, with their noise."""
    density, generator = ideal.network.density, torch.Generator().manual_seed(1)
    m = density.points[torch.randint(len(density.points), (8000,), generator=generator)]
    xi = math.sqrt(density.v) * normal(*m.shape, seed=2)
    return m + xi, xi


@pytest.fixture(scope="module")
def manifold(ideal, noisy):
    return manifolds.Plane(ideal, noisy[0])


def linear(a, n=40_000, dimension=6):
    """Activity of a system that keeps the share a of itself per step, and the noise in it, at v = 1."""
    r = normal(n, dimension) / math.sqrt(1 - a**2)
    xi = normal(n, dimension, seed=1)
    return a * r + xi, xi


def test_waking_keeps_the_noise_beside_the_activity(tiny_ensemble, generator):
    one = tiny_ensemble[0]
    waking = agreement.waking(one, 4, 7, generator)
    before = waking.r[:, :-1].flatten(0, 1)
    moved = before + dynamics.step(one, before, ds=waking.ds[:, :-1].flatten(0, 1)) - before
    torch.testing.assert_close(moved, (waking.r - waking.noise)[:, 1:].flatten(0, 1))
    torch.testing.assert_close(waking.s[:, 1:], (waking.s + waking.ds)[:, :-1])
    assert waking.noise.std() == pytest.approx(0.01, rel=0.1)
    some = waking.flatten(slice(1, 3))
    torch.testing.assert_close(some.r, waking.r[1:3].flatten(0, 1))


def test_waking_names_what_it_expected(tiny_ensemble, generator):
    with pytest.raises(ValueError, match="expected one network, got 3"):
        agreement.waking(tiny_ensemble, 2, 2, generator)
    silent = replace(tiny_ensemble[0], experiment=tiny_ensemble.experiment.vary(sigma=0.0))
    with pytest.raises(ValueError, match="expected noise sigma > 0"):
        agreement.waking(silent, 2, 2, generator)


def test_a_manifold_of_another_task_is_refused():
    experiment = experiments.get("head-direction-unbiased").vary(n_units=8)
    one = phases.untrained(experiment, 1, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="expected a network of the position task"):
        manifolds.Plane(one, torch.rand(10, 8))


def test_drift_without_input_is_a_step_without_input_or_noise(tiny_ensemble):
    r = torch.rand(5, 16)
    one = tiny_ensemble[1]
    step = one.network.step(r[None], torch.zeros(1, 5, 2), 0.0)[0]
    torch.testing.assert_close(dynamics.step(one, r) - r, step - r)


@pytest.mark.parametrize("a", [0.0, 0.5, 0.8])
def test_the_slope_of_a_linear_system_is_one_over_one_plus_a(a):
    r, xi = linear(a)
    exact, g = -(1 - a**2) * r, -(1 - a) * r
    assert agreement.agreement(g, exact) == pytest.approx((1, 1 / (1 + a)))
    assert agreement.stein_agreement(g, exact, xi) == pytest.approx((1, 1 / (1 + a)), rel=0.02)
    # The scale of the estimate falls out.
    assert agreement.stein_agreement(g, 3 * exact, xi) == pytest.approx((1, 1 / (1 + a)), rel=0.02)
    assert agreement.denoising_loss(exact, xi) == pytest.approx(a**2, abs=0.02)
    assert agreement.explained_at_most(exact, xi) == pytest.approx(2, rel=0.02)
    assert agreement.explained_at_most(10 * exact, xi) == pytest.approx(0.2, rel=0.02)


def test_steins_cosine_is_an_upper_bound_for_a_poor_estimate():
    r, xi = linear(0.5)
    g = -r + 2 * r.roll(1, 0)
    exact = agreement.agreement(g, -0.75 * r).cosine
    poor = -0.75 * r + normal(*r.shape, seed=3)
    assert agreement.stein_agreement(g, -0.75 * r, xi).cosine == pytest.approx(exact, rel=0.03)
    assert agreement.stein_agreement(g, poor, xi).cosine > 1.2 * exact
    assert agreement.agreement(g, poor).cosine < 0.9 * exact


def test_the_manifold_is_found(ideal, manifold, noisy):
    s = 0.9 * (2 * torch.rand(300, 2, generator=torch.Generator().manual_seed(3)) - 1)
    clean = ideal.network.encode(ideal.task.cells.tuning(s[None])[0])
    v = ideal.network.density.v
    # The noise in each activity is six times as long as sqrt(v).
    assert (manifold(s) - clean).norm(dim=-1).median() < 1.5 * math.sqrt(v)
    assert (manifold.place(clean) - s).norm(dim=-1).median() < 0.02
    h = 1e-3 * torch.eye(2)
    for tangent, x in zip(manifold.tangents(s), h, strict=True):
        torch.testing.assert_close(tangent, (manifold(s + x) - manifold(s - x)) / 2e-3, atol=1e-3, rtol=1e-2)
    ds, cells = 1e-3 * torch.randn(s.shape, generator=torch.Generator().manual_seed(4)), ideal.task.cells
    moved = (cells.tuning((s + ds)[None]) - cells.tuning((s - ds)[None]))[0] / 2
    torch.testing.assert_close(manifold.asked(s, ds), moved.double(), atol=1e-6, rtol=1e-2)
    basis = manifolds.orthonormal(manifold.tangents(s))
    torch.testing.assert_close((basis[0] * basis[1]).sum(-1), torch.zeros(300, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(basis.norm(dim=-1), torch.ones(2, 300, dtype=torch.float64))
    # What is left after the search is across, away from the edges.
    r = noisy[0][:2000]
    place = manifold.place(r)
    rest = r - manifold(place)
    inside = (place.abs() < 1.0).all(-1)
    tangential = manifolds.along(manifolds.orthonormal(manifold.tangents(place)), rest)[inside].square().sum(-1).mean()
    # Of the noise, two units have 2 v.
    assert tangential < 0.2 * v
    assert rest[inside].square().sum(-1).mean() == pytest.approx((CELLS - 2) * v, rel=0.1)


def test_the_score_along_the_manifold_is_that_of_the_mixture(ideal, manifold):
    network = ideal.network
    weights = (-network.s.square().sum(-1) / (2 * 0.4**2)).exp()
    v = 4 * network.density.v
    mixture = theory.Mixture(network.density.points, v, weights)
    s = 0.6 * (2 * torch.rand(200, 2, generator=torch.Generator().manual_seed(4)) - 1)
    basis = manifolds.orthonormal(manifold.tangents(s))
    exact = manifolds.along(basis, mixture.score(network.encode(ideal.task.cells.tuning(s[None])[0])))

    def density(s):
        return np.exp(-(s.astype(float) ** 2).sum(-1) / (2 * 0.4**2))

    found = agreement.score_along(manifold, density, s)
    torch.testing.assert_close(manifolds.along(basis, found), found, atol=1e-6, rtol=1e-4)
    cosine, slope = agreement.agreement(found, exact)
    assert cosine > 0.95 and slope == pytest.approx(1, abs=0.15)


def test_the_denoiser_finds_the_exact_score(ideal, manifold, noisy):
    r, xi = noisy
    denoiser = agreement.Denoiser(r, xi, manifold, torch.Generator().manual_seed(5))
    density = ideal.network.density
    m = density.points[torch.randint(len(density.points), (3000,), generator=torch.Generator().manual_seed(6))]
    fresh = math.sqrt(density.v) * normal(*m.shape, seed=7)
    exact, found = theory.drift(density, m + fresh, density.v), denoiser(m + fresh)
    cosine, slope = agreement.agreement(exact, found)
    assert cosine > 0.95 and slope == pytest.approx(1, abs=0.05)
    least, reached = agreement.denoising_loss(exact, fresh), agreement.denoising_loss(found, fresh)
    assert least < reached < least + 0.1
    product = -agreement.explained_at_most(exact, fresh) * exact.square().sum() / 2
    torch.testing.assert_close(-product, exact.square().sum(), rtol=0.05, atol=0)
    assert denoiser.losses[denoiser.kind] < denoiser.losses["normal"]


def test_regression_finds_coefficients_and_the_share_explained():
    one, two, rest = normal(4000, 3), normal(4000, 3, seed=1), normal(4000, 3, seed=2)
    fit = agreement.regress(2 * one - two + rest, one, two)
    assert fit.coefficients == pytest.approx([2, -1], abs=0.05)
    assert fit.explained == pytest.approx(5 / 6, abs=0.02)


def test_a_displacement_decays_by_the_leak_in_a_network_without_recurrence(tiny_ensemble):
    experiment, shapes = tiny_ensemble.experiment, RNN.shapes(1, 16, 24, 2)
    network = RNN({name: torch.zeros(shape) for name, shape in shapes.items()}, experiment.tau, experiment.dt)
    silent = replace(tiny_ensemble[0], network=network)
    delta = torch.randn(5, 16)
    left, share = agreement.decay(silent, torch.rand(5, 16), delta, 4)
    torch.testing.assert_close(share, 0.8 ** torch.arange(5.0))
    assert agreement.agreement(left[1] - delta, delta).slope == pytest.approx(-0.2, rel=1e-4)


@pytest.mark.parametrize("kind, first", [(theory.IdealNetwork, 0.0), (theory.LeakyIdealNetwork, 0.8)])
def test_a_displacement_across_decays_as_the_denoiser_has_it(kind, first, manifold):
    ensemble = make(kind)
    s = 0.5 * (2 * torch.rand(200, 2, generator=torch.Generator().manual_seed(8)) - 1)
    unit = agreement.directions(manifold, s, manifold.span[:, :8], torch.Generator().manual_seed(9))
    basis = manifolds.orthonormal(manifold.tangents(s))
    for name, x in unit.items():
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(200, dtype=x.dtype))
        tangential = manifolds.along(basis, x).norm(dim=-1)
        torch.testing.assert_close(tangential, torch.full_like(tangential, float(name == "along")), atol=1e-6, rtol=0)
    m, size = manifold(s), math.sqrt(ensemble.network.density.v)
    assert agreement.decay(ensemble, m, size * unit["across"], 1)[1][1] == pytest.approx(first, abs=0.05)
    assert agreement.decay(ensemble, m, size * unit["along"], 1)[1][1] == pytest.approx(1, abs=0.1)


def test_the_dual_of_tangents_reads_them_off():
    T = normal(2, 5, 12)
    product = torch.einsum("ani,bni->nab", manifolds.dual(T), T)
    torch.testing.assert_close(product, torch.eye(2, dtype=T.dtype).expand(5, 2, 2), rtol=0, atol=1e-10)


@pytest.mark.parametrize("multiple", [1.0, 0.6])
def test_the_gradient_of_a_ray_is_its_slope(manifold, multiple):
    s = 0.6 * torch.rand(20, 2, generator=torch.Generator().manual_seed(3)) - 0.3
    r = multiple * manifold(s)
    direction, h = normal(*r.shape, seed=4), 1e-3
    slope = (manifold.ray(r + h * direction) - manifold.ray(r - h * direction)) / (2 * h)
    predicted = torch.einsum("dni,ni->nd", manifold.gradient(r), direction)
    assert (slope - predicted).norm() < 0.02 * predicted.norm()


@pytest.mark.parametrize("kind, factor", [(theory.IdealNetwork, 1.0), (theory.LeakyIdealNetwork, 1 / 1.8)])
def test_ideal_networks_are_found_to_compute_the_equation(kind, factor):
    base = experiments.get("position-noisy-unbiased")
    small = base.vary(task={"n_cells": 48, "width": 0.3}, n_units=48, sigma=0.1)
    generator = torch.Generator().manual_seed(0)
    found = agreement.examine(phases.ideal(small, 81, generator, kind=kind), 160, 60, 30, 100, 3, generator)
    numbers = found.numbers()
    assert {x.shape for x in numbers.values()} == {(1,)}
    # An input moves all of the state at once, and is not heard of again.
    assert numbers["moved_over_input"] == pytest.approx(1, abs=0.1) and numbers["explained_echoes"] < 0.1
    a = 0.0 if kind is theory.IdealNetwork else 0.8
    assert numbers["cosine"] > 0.9 and numbers["slope"] == pytest.approx(factor, abs=0.1)
    assert numbers["carried"] == pytest.approx(1 / (1 - a**2), rel=0.1)
    assert found.response.left[0, agreement.WAYS.index("across"), 1] == pytest.approx(a, abs=0.05)
    # Of the noise on 48 units that on two lies along, and is not undone.
    assert numbers["trace"] * numbers["leak"] == pytest.approx((1 - a) * 46 / 48, abs=0.03)
    assert numbers["beta_change"] > 0.85 and numbers["explained_awake"] > 0.85
    assert abs(numbers["cosine_shuffled"]) < 0.1


def test_what_is_asked_of_networks_of_both_tasks_and_kinds():
    generator = torch.Generator().manual_seed(0)
    for name, plane in (("head-direction-unbiased", False), ("position-gru-unbiased", True)):
        experiment = experiments.get(name).vary(task={"n_cells": 24}, n_units=40)
        ensemble = phases.untrained(experiment, 2, generator)
        found = agreement.examine(ensemble, 8, 4, 20, 10, 2, generator)
        assert {x.shape for x in found.numbers().values()} == {(2,)} and (found.places is not None) == plane
        assert found.response.left.shape == (2, 4, 3) and found.response.taken.shape == (2, 4, 3)


def test_asleep_a_network_without_recurrence_drifts_along_the_score_of_sleep():
    experiment = experiments.get("position-noisy-unbiased").vary(task={"n_cells": 24}, n_units=20)
    one = phases.untrained(experiment, 1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        one.network.W_rec.zero_()
        one.network.encoder.zero_()
    found = agreement.asleep(one, 200, 100, 40, torch.Generator().manual_seed(1))
    # All that is there is noise that leaks, of twice the variance awake, whose drift is its score's step over 1 + a.
    assert found.cosine[0] > 0.95 and found.slope[0] == pytest.approx(1 / 1.8, abs=0.05)


def test_an_update_gate_slows_the_leak():
    experiment = experiments.get("position-gru-unbiased").vary(task={"n_cells": 24}, n_units=16)
    one = phases.untrained(experiment, 1, torch.Generator().manual_seed(0))
    r = torch.zeros(3, 16)
    # Without activity the gate is at one half.
    torch.testing.assert_close(agreement.leak(one, r), torch.full((3, 16), experiment.dt / experiment.tau / 2))
