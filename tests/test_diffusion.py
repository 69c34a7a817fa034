"""Processes whose drift, diffusion and law are known."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from reactivation_core.protocols import diffusion
from reactivation_core.protocols.diffusion import Grid

BOX, CIRCLE = Grid(30, 1.2, 2), Grid(60, np.pi, 1)
A = np.array([[0.01, 0.02], [-0.01, 0.015]])
D = np.array([[8e-4, 3e-4], [3e-4, 6e-4]])
# Of ds = -A s + noise of covariance 2 D.
SIGMA = scipy.linalg.solve_continuous_lyapunov(A, 2 * D)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def linear():
    return diffusion.operator(BOX, -BOX.points @ A.T, np.tile(D, (900, 1, 1)))


def moments(grid, p):
    mean = p @ grid.points
    return mean, np.einsum("c,ca,cb->ab", p, grid.points - mean, grid.points - mean)


def test_probability_stays_and_the_law_that_stays_is_known():
    L = linear()
    assert np.abs(L.sum(0)).max() < 1e-12
    mean, covariance = moments(BOX, diffusion.stationary(L))
    assert mean == pytest.approx([0, 0], abs=1e-6)
    assert covariance == pytest.approx(SIGMA, abs=0.06 * SIGMA.max())
    assert abs(SIGMA[0, 1]) > 0.06 * SIGMA.max()


def test_a_point_spreads_and_moves_as_known():
    start = np.zeros(900)
    at = np.argmin(np.square(BOX.points - 0.4).sum(1))
    start[at] = 1
    mean, covariance = moments(BOX, diffusion.evolve(linear(), start, 20))
    kept = scipy.linalg.expm(-20 * A)
    assert mean == pytest.approx(kept @ BOX.points[at], abs=0.01)
    # Exponential fitting adds about half of |u| h to diffusion.
    assert covariance == pytest.approx(SIGMA - kept @ SIGMA @ kept.T, abs=0.2 * 20 * 2 * D.max())


def test_on_the_circle_the_law_of_a_gradient_is_found_with_a_diffusion_that_varies():
    s = CIRCLE.points[:, 0]
    q = scipy.stats.vonmises(1.0).pdf(s)
    q /= q.sum()
    D = 0.01 * (1 + 0.5 * np.sin(s))
    drift = D * -np.sin(s) + 0.005 * np.cos(s)
    found = diffusion.stationary(diffusion.operator(CIRCLE, drift[:, None], D[:, None, None]))
    assert diffusion.kl(found, q) < 1e-3
    of = diffusion.Coefficients(drift[:, None], D[:, None, None], np.full(60, 1 / 60))
    x = diffusion.sampler(CIRCLE, of, q, found)
    assert x.slope == pytest.approx(1, abs=0.02)
    assert x.explained == pytest.approx(1, abs=0.02)
    assert x.current == pytest.approx(0, abs=0.02)
    # A turn on top goes nowhere but round.
    turned = diffusion.Coefficients(drift[:, None] + 0.02, D[:, None, None], of.weight)
    p = diffusion.stationary(diffusion.operator(CIRCLE, turned.drift, turned.diffusion))
    assert diffusion.sampler(CIRCLE, turned, q, p).current > 0.5


@pytest.mark.parametrize("c", [1.0, 2.0])
@pytest.mark.parametrize("grid", [BOX, CIRCLE])
def test_a_walk_that_samples_has_the_slope_that_its_noise_asks_for(grid, c, rng):
    # A ring in the plane, two peaks on the circle.
    x = grid.points
    log = -np.square(np.linalg.norm(x, axis=1) - 0.6) / (2 * 0.25**2) if grid.d == 2 else np.cos(2 * x[:, 0])
    q = np.exp(log) / np.exp(log).sum()
    d = 2e-4 if grid.d == 2 else 5e-4
    drift = (2 / c) * d * grid.gradient(np.log(q))
    start = grid.points[rng.choice(len(x), 400, p=q)]
    paths = diffusion.walk(grid, drift, d, start, 1000, 50, rng)
    of = diffusion.estimate(paths, 50, grid, 0.1 if grid.d == 2 else 0.15)
    assert of.weight @ np.trace(of.diffusion, axis1=1, axis2=2) / grid.d == pytest.approx(d, rel=0.25)
    p = diffusion.stationary(diffusion.operator(grid, of.drift, of.diffusion))
    found = diffusion.sampler(grid, of, q, p)
    # Of a lag in which places relax, and of kernels, the slope is somewhat below.
    assert found.slope == pytest.approx(2 / c, rel=0.25)
    assert found.explained > 0.7
    assert found.current < 0.3
    free = diffusion.walk(grid, 0 * drift, d, start, 1000, 50, rng)
    still = diffusion.estimate(free, 50, grid, 0.1 if grid.d == 2 else 0.15)
    assert abs(diffusion.sampler(grid, still, q, p).slope) < 0.25


def test_a_walk_is_markov_and_its_path_alone_with_a_hidden_momentum_is_not(rng):
    start = rng.uniform(-1, 1, (2000, 2))
    walk = diffusion.walk(BOX, np.zeros((900, 2)), 4e-4, start, 1000, 50, rng)
    found = diffusion.chapman_kolmogorov(walk, 1.2)
    assert found.twice == pytest.approx(found.floor, abs=0.02)
    assert found.once > found.floor + 0.05
    direction = rng.choice([-0.1, 0.1], (2000, 1, 2))
    straight = (start[:, None] + direction * np.arange(21)[None, :, None] + 1.2) % 2.4 - 1.2
    hidden = diffusion.chapman_kolmogorov(straight, 1.2)
    assert hidden.twice > hidden.floor + 0.1


def test_laws_and_distances(rng):
    states = 0.3 * rng.standard_normal((4000, 2))
    p = diffusion.law(BOX, states, 0.1)
    assert p.sum() == pytest.approx(1)
    assert moments(BOX, p)[1] == pytest.approx((0.09 + 0.01) * np.eye(2), abs=0.006)
    assert diffusion.kl(p, p) == pytest.approx(0, abs=1e-6)
    assert diffusion.kl(p, np.full(900, 1 / 900)) > 0.5


def test_a_walk_in_the_place_of_a_network_is_found_to_be_what_it_is(rng):
    x = BOX.points
    log = -np.square(np.linalg.norm(x, axis=1) - 0.6) / (2 * 0.25**2)
    q = np.exp(log) / np.exp(log).sum()
    waking = x[rng.choice(len(x), (2, 300, 10), p=q)] + rng.uniform(-0.04, 0.04, (2, 300, 10, 2))
    drift = 2e-4 * BOX.gradient(np.log(q))
    start = rng.uniform(-1, 1, (2, 300, 2))
    paths = np.stack([diffusion.walk(BOX, drift, 2e-4, s, 1000, 50, rng) for s in start])
    found = diffusion.compare(paths, waking, 50, BOX, 0.1, rng)
    assert found.slope[:, 0] == pytest.approx(found.slope[:, 1], rel=0.3)
    assert (found.explained[:, :2] > 0.6).all()
    assert (np.abs(found.slope[:, 2]) < 0.3).all()
    near = diffusion.laws(paths, waking, 50, 4, BOX, 0.1)
    assert (near.made < 2 * near.again).all()
    assert (near.made < 0.8 * near.begin).all()
    # One that does not move stays with the law of its starts.
    still = diffusion.walk(BOX, 0 * drift, 1e-8, start[0], 1000, 50, rng)
    stuck = diffusion.laws(still[None], waking[:1], 50, 4, BOX, 0.1)
    assert stuck.begin == pytest.approx(0, abs=1e-3)
    assert stuck.made < 0.2 * stuck.awake
