"""The estimators against closed forms."""

import numpy as np
import pytest
import scipy.stats

from reactivation_core import densities, statistics
from reactivation_core.densities import KernelDensity, UniformDensity
from reactivation_core.protocols import resolution


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("rho", [0.0, 0.95])
def test_autoregressions_are_stationary_and_standard(rng, rho):
    x = resolution.autoregression(2000, 60, rho, rng)
    assert x.var((0, 2)) == pytest.approx(np.ones(60), abs=0.1)
    assert (x[:, 1:] * x[:, :-1]).mean() == pytest.approx(rho, abs=0.02)


def test_laws_are_what_they_are_called(rng):
    z = rng.standard_normal((50_000, 2))
    uniform = resolution.LAWS["uniform"](z)
    assert scipy.stats.kstest(uniform[:, 0], scipy.stats.uniform(-1.1, 2.2).cdf).pvalue > 1e-3
    radius = np.linalg.norm(resolution.LAWS["ring"](z), axis=1)
    assert (radius.mean(), radius.std()) == pytest.approx((0.35, 0.08), rel=0.01)


def test_divergences_of_smoothed_normal_laws(rng):
    """Kernels widen both laws; but for a doubled variance, which has draws where the other has no points."""
    found = resolution.known(200, 200, 100, 0.0, 3, rng).values
    h_p, h_q = 40_000 ** (-1 / 6), 20_000 ** (-1 / 6)
    wider = (1 + h_p**2) / (1 + h_q**2)
    expected = {
        "normal": resolution.normal_divergence(wider),
        "shifted": resolution.normal_divergence(wider, 0.5 / np.sqrt(1 + h_q**2)),
        "halved": resolution.normal_divergence(wider / 2),
    }
    for law, value in expected.items():
        assert found[law].mean() == pytest.approx(value, abs=0.02)
    assert found["doubled"].mean() > resolution.normal_divergence(2 * wider) + 0.05


def test_the_ring_by_sampling(rng):
    """Entropy of the ring's exact density at its own points."""
    x = resolution.LAWS["ring"](rng.standard_normal((200_000, 2)))
    radius = np.linalg.norm(x, axis=1)
    log_p = scipy.stats.norm.logpdf(radius, 0.35, 0.08) - np.log(2 * np.pi * radius)
    assert resolution.ring_divergence() == pytest.approx((log_p + np.log(2.2**2)).mean(), abs=0.01)


def test_a_kernel_estimate_of_the_box_leaks_through_its_walls(rng):
    estimate = KernelDensity(rng.uniform(-1.1, 1.1, (20_000, 2)))
    outside = (np.abs(estimate.sample(100_000, rng)) > 1.1).any(-1).mean()
    assert resolution.mass_outside(estimate.bandwidth) == pytest.approx(outside, abs=0.005)
    found = densities.kl_divergence(UniformDensity(2.2), estimate, rng, 40_000)
    assert resolution.wall_divergence(estimate.bandwidth) == pytest.approx(found, abs=0.02)


def test_halves_are_disjoint_and_in_order(rng):
    x = rng.standard_normal((2, 8, 5, 2))
    first, second = resolution.halves(x, 2, n_pairs=2)
    for densities_of, starts in ((first, (0, 4)), (second, (2, 6))):
        expected = [x[i, j : j + 2].reshape(-1, 2) for j in starts for i in (0, 1)]
        assert all(np.array_equal(d.points, points) for d, points in zip(densities_of, expected, strict=True))


def test_variance_about_a_paths_own_mean(rng):
    rho = np.exp(-1 / np.array([3.0, 100.0]))
    for r, missed in zip(rho, resolution.variance_missed(rho, 200), strict=True):
        found = statistics.total_variance(resolution.autoregression(2000, 200, r, rng))
        assert abs(found.mean() - 2 * (1 - missed)) < 4 * scipy.stats.sem(found)


def test_a_diffusion_between_walls(rng):
    steps = np.array([0.004, 0.1, 5.0])
    for step, expected in zip(steps, resolution.walk_variance(steps, 300), strict=True):
        walk = resolution.reflected_walk(1000, 300, step, rng)
        assert np.abs(walk).max() <= 1.1
        found = statistics.total_variance(walk)
        assert abs(found.mean() - expected) < 4 * scipy.stats.sem(found)
    # A walk that has not met the walls, and one that is anywhere at every step.
    assert resolution.walk_variance(steps, 300)[0] == pytest.approx(0.004**2 * 300 / 3, rel=0.05)
    assert resolution.walk_variance(steps, 300)[2] == pytest.approx(2.2**2 / 6, rel=0.01)


def test_students_interval_covers_a_normal_mean_and_the_bootstrap_does_not(rng):
    held = resolution.interval_coverage(rng.standard_normal((800, 5)), 0.0, rng)
    assert abs(held["student"].mean() - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 800)
    assert all(held[method].mean() < 0.92 for method in ("percentile", "bca"))
