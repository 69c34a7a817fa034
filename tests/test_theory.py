"""Section 2: closed forms against quadrature, automatic differentiation and SymPy; the laws of the dynamics."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import hyp1f1

from reactivation_core import circular, experiments, phases, theory
from reactivation_core.protocols import optimum, sampling, upper_bound
from reactivation_core.theory import Circle, Gaussian, IdealNetwork, Mixture

variances = st.floats(0.01, 2)
dimensions = st.integers(1, 6)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(n, v):
    """Half the axes along the manifold, half across it."""
    return Gaussian(torch.linspace(0, 3, n).clamp(min=0) * (torch.arange(n) % 2), v)


def densities(n, v):
    return [flat(n, v), Mixture(normal(4, n), v, torch.tensor([1.0, 2, 3, 4])), Circle(1.5, v), Circle(1.5, v, 2.0)]


def grid(limit, n):
    axis = torch.linspace(-limit, limit, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), (2 * limit / (n - 1)) ** 2


@settings(max_examples=30, deadline=None)
@given(dimensions, variances)
def test_scores_are_gradients(n, v):
    for density in densities(n, v):
        r = normal(10, 2 if isinstance(density, Circle) else n).requires_grad_()
        (gradient,) = torch.autograd.grad(density.log_prob(r).sum(), r)
        torch.testing.assert_close(density.score(r), gradient)


@settings(max_examples=20, deadline=None)
@given(variances)
def test_densities_integrate_to_one(v):
    r, area = grid(12, 401)
    for density in densities(2, v):
        assert density.log_prob(r).exp().sum() * area == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("concentration", [0.0, 3.0])
def test_ring_is_the_integral_over_its_angle(concentration):
    angle = torch.arange(512, dtype=torch.float64) * (2 * math.pi / 512)
    circle = 1.5 * torch.stack((angle.cos(), angle.sin()), -1)
    ring = Circle(1.5, 0.02, concentration)
    mixture = Mixture(circle, 0.02, (concentration * angle.cos()).exp())
    r = 2 * normal(50, 2)
    torch.testing.assert_close(ring.log_prob(r), mixture.log_prob(r))
    torch.testing.assert_close(ring.score(r), mixture.score(r))
    assert Circle(1.5, 0.02).score(torch.zeros(2, dtype=torch.float64)).tolist() == [0, 0]


def test_samples_follow_the_density(generator):
    n = 40_000
    for density in densities(2, 0.1):
        r, area = grid(10, 401)
        p = density.log_prob(r).exp() * area
        mean = p @ r
        covariance = r.mT @ (p[:, None] * r) - mean[:, None] * mean
        x = density.sample(n, generator)
        torch.testing.assert_close(x.mean(0), mean, atol=0.04, rtol=0)
        torch.testing.assert_close(x.mT.cov(), covariance, atol=0.08, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 3), variances, st.floats(-3, 3))
def test_drift_is_the_posterior_mean_by_quadrature(signal, v, r):
    m = torch.linspace(-15, 15, 30_001, dtype=torch.float64)
    weights = torch.softmax(-(m**2) / (2 * signal) - (r - m) ** 2 / (2 * v), 0) if signal > 0.01 else (m == 0).double()
    signal = signal if signal > 0.01 else 0.0
    density = Gaussian(torch.tensor([signal], dtype=torch.float64), v)
    drift = theory.drift(density, torch.tensor([r], dtype=torch.float64), v)
    assert drift.item() == pytest.approx((weights @ m).item() - r, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(dimensions, variances)
def test_second_order_miyasawa(n, v):
    density = Mixture(normal(5, n), v)
    r = normal(n, seed=1)
    hessian = torch.autograd.functional.hessian(density.log_prob, r)
    p = density.posterior(r)
    centred = density.points - p @ density.points
    covariance = centred.mT @ (p[:, None] * centred)
    torch.testing.assert_close(covariance, v * (torch.eye(n, dtype=torch.float64) + v * hessian))


def test_drift_cancels_what_is_predicted_and_no_other_does_better(generator):
    v, signal = 0.5, torch.tensor([2.0, 0.5, 0, 0], dtype=torch.float64)
    m = signal.sqrt() * torch.randn((200_000, 4), generator=generator, dtype=torch.float64)
    r = m + math.sqrt(v) * torch.randn(m.shape, generator=generator, dtype=torch.float64)
    density = Gaussian(signal, v)

    def left(factor):
        return (r + factor * theory.drift(density, r, v) - m).square().sum(-1).mean().item()

    closed = (signal * v / (signal + v)).sum().item()
    assert left(1) == pytest.approx(closed, rel=0.01)
    taken = theory.drift(density, r, v).square().sum(-1).mean().item()
    assert taken == pytest.approx(4 * v - closed, rel=0.01)
    assert left(1) < min(left(0.9), left(1.1), left(2), left(0.5))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 4))
def test_minimum_norm(n_outputs, surplus):
    D, change = normal(n_outputs, n_outputs + surplus), normal(7, n_outputs, seed=1)
    update = theory.minimum_norm(D, change)
    torch.testing.assert_close(update @ D.mT, change)
    kernel = torch.linalg.svd(D)[2][n_outputs:]
    torch.testing.assert_close(update @ kernel.mT, torch.zeros(7, surplus, dtype=torch.float64))


def test_langevin_step_has_its_mean_and_variance(generator):
    v, c, n = 0.3, 2.5, 200_000
    r = torch.tensor([0.7, -0.2], dtype=torch.float64)
    density = flat(2, v)
    x = theory.langevin(density, r.expand(n, 2), v, c, generator)
    torch.testing.assert_close(x.mean(0), r + theory.drift(density, r, v), atol=0.01, rtol=0)
    torch.testing.assert_close(x.var(0), torch.full((2,), c * v, dtype=torch.float64), rtol=0.02, atol=0)


def test_stationary_variance_solves_its_recursion():
    x, lam, v, c = sympy.symbols("x lambda v c", positive=True)
    (solution,) = sympy.solve(sympy.Eq(x, (1 - v / lam) ** 2 * x + c * v), x)
    for values in ((1.0, 0.3, 2.0), (0.3, 0.3, 2.0), (0.4, 0.5, 1.0)):
        expected = solution.subs(dict(zip((lam, v, c), values, strict=True)))
        assert theory.stationary_variance(*values) == pytest.approx(float(expected))
    assert theory.stationary_variance(0.01, 0.01, 2) == pytest.approx(2 * 0.01)
    with pytest.raises(ValueError, match="expected a step"):
        theory.stationary_variance(1.0, 2.0, 2)


def test_tempered_density_is_stationary():
    x, y, c, sigma = sympy.symbols("x y c sigma", positive=True)
    p = sympy.Function("p", positive=True)(x, y)
    q = p ** (2 / c)
    change = sum(
        -sympy.diff(q * sigma**2 * sympy.diff(sympy.log(p), a), a) + c * sigma**2 / 2 * sympy.diff(q, a, 2)
        for a in (x, y)
    )
    assert sympy.simplify(change) == 0


def test_sampling_the_posterior_is_exact_where_its_mean_is_not(generator):
    v, angle, n = 0.1, torch.arange(128, dtype=torch.float64) * (2 * math.pi / 128), 8_000
    points = torch.stack((angle.cos(), angle.sin()), -1)
    ring = Mixture(points, v, angle.cos().exp())
    waking = ring.sample(n, generator)
    exact = points[64:65].expand(n, 2)
    for _ in range(60):
        drawn = torch.multinomial(ring.posterior(exact), 1, generator=generator)[:, 0]
        exact = points[drawn] + math.sqrt(v) * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    wide = theory.langevin(ring, waking, v, 2, generator, 10)
    radial = [x.norm(dim=-1).var().item() for x in (waking, exact, wide)]
    cosine = [(x[:, 0] / x.norm(dim=-1)).mean().item() for x in (waking, exact)]
    assert radial[1] == pytest.approx(radial[0], rel=0.05) and radial[2] > 1.6 * radial[0]
    assert cosine[1] == pytest.approx(cosine[0], abs=0.02)


def test_mean_cosine_of_von_mises_angles():
    assert theory.mean_cosine(0.0) == 0
    assert theory.mean_cosine(3.0) == pytest.approx(scipy.stats.vonmises(3.0).expect(math.cos), abs=1e-6)


def test_quiescence_on_a_ring_forgets_its_place(generator):
    v, n_steps, c = 0.01, 50, 2.0
    ring, r = Circle(1.0, v), torch.tensor([1.0, 0.0], dtype=torch.float64).expand(20_000, 2)
    r = theory.langevin(ring, r, v, c, generator, n_steps)
    correlation = (r[:, 0] / r.norm(dim=-1)).mean().item()
    # σ = 1 and dt = v.
    assert -n_steps * v / math.log(correlation) == pytest.approx(sampling.relaxation_time(2 * math.pi, 1, c), rel=0.05)


def test_waking_variance_solves_its_recursion():
    # The state and the estimate as one linear recursion z' = A z + B ξ: the variance that its equation has.
    alpha, v, variance = 0.9, 0.05, 2.0
    b = 1 - v / (variance + v)
    A = torch.tensor([[alpha, 0.0], [alpha - 1, b]], dtype=torch.float64)
    B = torch.tensor([[math.sqrt(variance * (1 - alpha**2)), 0]] * 2, dtype=torch.float64)
    B[1, 1] = math.sqrt(v)
    system = torch.eye(4, dtype=torch.float64) - torch.kron(A, A)
    covariance = torch.linalg.solve(system, (B @ B.T).flatten()).reshape(2, 2)
    assert covariance[0, 0] == pytest.approx(variance)
    assert theory.waking_variance(variance, v, alpha) == pytest.approx(covariance[1, 1].item())


def test_relaxation_time_scales():
    assert sampling.relaxation_time(2 * math.pi, 1, 2) == pytest.approx(1)
    assert sampling.relaxation_time(4 * math.pi, 2, 1) == pytest.approx(2)


def test_bounds_on_one_situation_by_hand():
    D = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    f, f_next, change = (torch.tensor([x], dtype=torch.float64) for x in ((2.0, 1.0), (6.0, 1.0), (3.0, 0.0)))
    r, dr1, dr2 = (torch.tensor([x], dtype=torch.float64) for x in ((1.0, 1, 0), (0.0, 0, -1), (0.5, 0, 0)))
    noise = torch.tensor([[[0.0, 3, 5]], [[0.0, -3, 1]]], dtype=torch.float64)
    b = upper_bound.bounds(D, f, f_next, change, r, dr1, dr2, noise)
    # The readout misses its change of 3 by 2; the noise left is (0, 3, 4) or (0, -3, 0).
    assert b.loss.item() == pytest.approx(math.hypot(3, 3))
    assert b.taylor.item() == pytest.approx(math.hypot(2, 3))
    assert (b.L2.item(), b.solved.item()) == pytest.approx((5, 5))
    assert b.L3.item() == pytest.approx(2 + 2 * (5 + 3) / 2)
    assert b.upper.item() == pytest.approx(2 + 2 * math.sqrt((25 + 9) / 2))


@settings(max_examples=20, deadline=None)
@given(dimensions, st.integers(0, 3))
def test_bounds_are_in_order(n, surplus):
    N = n + surplus
    D, f, change = normal(n, N), normal(5, n, seed=1), normal(5, n, seed=2)
    r = theory.minimum_norm(D, f)
    dr1, dr2, noise = normal(5, N, seed=3), normal(5, N, seed=4), normal(50, 5, N, seed=5)
    b = upper_bound.bounds(D, f, f + change, change, r, dr1, dr2, noise)
    slack = 1e-12
    torch.testing.assert_close(b.loss, b.taylor)
    torch.testing.assert_close(b.L2, b.solved)
    for lower, upper in ((b.taylor, b.L2), (b.solved, b.L3), (b.L3, b.upper)):
        assert (lower <= upper + slack).all()


def expected_norm(a, w):
    r"""Mean norm of a normal vector with mean `a` and covariance `w` times the identity: of the noncentral chi law."""
    n = a.shape[-1]
    return math.sqrt(w) * scipy.stats.chi.mean(n) * hyp1f1(-0.5, n / 2, -(a.square().sum(-1) / (2 * w)).numpy())


def test_bounds_of_a_linear_network_in_closed_form():
    """A readout with orthogonal rows of one norm, cells that are linear in the state, and a network that is imperfect:
    it makes 0.7 of the change it should, lets activity leak, and carries an error."""
    n_o, n_r, d, v, n_draws = 4, 12, 0.5, 0.01, 20_000
    F, D = normal(n_o, 2), d * torch.linalg.qr(normal(n_r, n_o, seed=1))[0].mT
    f, change = normal(30, 2, seed=2) @ F.mT, 0.1 * normal(30, 2, seed=3) @ F.mT
    r = theory.minimum_norm(D, f) + 0.1 * normal(30, n_r, seed=4)
    dr1, dr2 = -0.1 * r, 0.7 * theory.minimum_norm(D, change)
    found = upper_bound.bounds(D, f, f + change, change, r, dr1, dr2, math.sqrt(v) * normal(n_draws, 30, n_r, seed=5))
    A, delta, w = change - dr2 @ D.mT, f - r @ D.mT, d**2 * v
    signal = A.norm(dim=-1).numpy()
    exact = {
        "loss": expected_norm(A + delta - dr1 @ D.mT, w),
        "taylor": expected_norm(A + delta - dr1 @ D.mT, w),
        "L2": signal + expected_norm(delta - dr1 @ D.mT, w),
        "solved": signal + expected_norm(dr1 @ D.mT, w),
        "L3": signal + d * expected_norm(dr1, v),
        "upper": signal + d * (dr1.square().sum(-1) + n_r * v).sqrt().numpy(),
        "error": delta.norm(dim=-1).numpy(),
        "remainder": np.zeros(30),
    }
    # A norm is 1-Lipschitz, so that by Poincaré's inequality its variance is at most that of one coordinate of its
    # normal vector; five standard errors.
    allowed = 5 * d * math.sqrt(v / n_draws)
    for name, value in exact.items():
        assert getattr(found, name).numpy() == pytest.approx(value, abs=allowed)


def test_the_square_of_a_sum_has_the_noise_as_a_constant():
    D, fixed, noise = normal(1, 5, 9), normal(3, 5, seed=1), 0.2 * normal(50_000, 3, 9, seed=2)
    sampled = (fixed - noise @ D[0].mT).square().sum(-1).mean(0)
    torch.testing.assert_close(
        sampled - fixed.square().sum(-1), optimum.readout_floor(D, 0.04).expand(3), rtol=0.05, atol=0
    )


@pytest.fixture
def head(generator):
    """The ideal network of a head-direction task whose head turns slowly, with its experiment."""
    experiment = experiments.get("head-direction-unbiased")
    experiment = experiment.vary(task={"n_cells": 32, "motion": {"turning": 2.0}}, n_units=40, sigma=0.5)
    return phases.ideal(experiment, 256, generator, torch.linalg.qr(normal(40, 32))[0].mT)


def test_ideal_network_is_eq_18(head):
    network, v = head.network, head.network.density.v
    r = network.density.points[:20] + math.sqrt(v) * normal(20, 40)
    still, noise = torch.zeros(20, 1), normal(20, 40, seed=1)
    torch.testing.assert_close(network.step(r, still, 0), r + theory.drift(network.density, r, v))
    torch.testing.assert_close(network.step(r, still, noise) - network.step(r, still, 0), noise)
    f = head.task.cells.tuning(network.s)
    torch.testing.assert_close(network.readout(network.density.points), f.double())
    # A state known for certain, moved by a small change.
    s = network.s.double()
    certain = IdealNetwork(head.task.cells.tuning, s, network.D[0], 1e-6)
    moved = certain.step(certain.density.points, torch.full((256, 1), 1e-4), 0)
    expected = certain.encode(head.task.cells.tuning(s + 1e-4))
    assert (moved - expected).norm() < 1e-3 * (expected - certain.density.points).norm()


def test_ideal_network_runs_awake_and_asleep_and_tracks(head, generator):
    awake = phases.active(head, 400, 40, generator, record=("states",))
    error = circular.wrap(head.network.bearing(awake.states[0]) - awake.s[0, ..., 0]).square().mean(0)
    predicted = head.network.spread().mean() * torch.arange(1, 41)
    assert error[9::10] == pytest.approx(predicted[9::10], rel=0.25)
    asleep = phases.quiescent(head, 5, math.sqrt(2), awake.states[:, :, -1], generator, record=("states", "decoded"))
    assert asleep.decoded.shape == (1, 400, 5, 1)


def test_ideal_network_on_the_box(generator):
    experiment = experiments.get("position-noisy-unbiased")
    experiment = experiment.vary(task={"n_cells": 128}, n_units=128, sigma=0.2)
    ensemble = phases.ideal(experiment, 81, generator)
    network, points = ensemble.network, ensemble.network.s.double()
    awake = phases.active(ensemble, 400, 10, generator, record=("states",))
    estimate = network.density.posterior(awake.states[0]) @ points
    error = (estimate - awake.s[0]).square().sum(-1).mean(0)
    # Each step adds noise of covariance v G⁻¹ to the position, G = m'ᵀ m' where the animal is.
    added = network.spread().diagonal(dim1=-1, dim2=-2).sum(-1)
    nearest = torch.cdist(awake.s[0].double(), points).argmin(-1)
    predicted = added[nearest].cumsum(1).mean(0)
    assert error.sqrt()[3:] == pytest.approx(predicted.sqrt()[3:], rel=0.1)


@pytest.mark.parametrize("signal", [[-1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_normal_density_refuses_what_is_no_variance(signal):
    with pytest.raises(ValueError, match="expected finite variances >= 0 of the signal, got"):
        Gaussian(torch.tensor(signal), 0.5)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_a_mixture_refuses_what_are_no_weights(weights):
    with pytest.raises(ValueError, match="expected finite weights >= 0, not all 0, got"):
        Mixture(normal(2, 2), 0.5, torch.tensor(weights))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_circle_refuses_what_is_no_radius_or_concentration(value):
    for options in ((value, 0.1), (1.0, 0.1, value)):
        with pytest.raises(ValueError, match=f"expected a finite radius and concentration >= 0, got .*{value}"):
            Circle(*options)


@pytest.mark.parametrize("v", [0.0, -1.0, math.nan, math.inf])
def test_densities_refuse(v):
    for make in (lambda: Gaussian(torch.ones(2), v), lambda: Mixture(normal(3, 2), v), lambda: Circle(1.0, v)):
        with pytest.raises(ValueError, match="finite variance"):
            make()


def test_the_optimum_turns_a_ring_and_eq_18_is_its_first_order(generator):
    s = (torch.arange(256, dtype=torch.float64) * (2 * math.pi / 256))[:, None]
    D = torch.linalg.qr(normal(2, 2)).Q

    def circle(s):
        return torch.cat((s.cos(), s.sin()), -1)

    first, optimum = (kind(circle, s, D, 0.02) for kind in (IdealNetwork, theory.OptimalNetwork))
    optimum.n_points = 256
    r = first.density.sample(50, generator)
    gap = []
    for turn in (0.2, 0.1):
        ds = torch.full((50, 1), turn, dtype=torch.float64)
        cos, sin = math.cos(turn), math.sin(turn)
        turned = optimum.encode(
            optimum.readout(optimum.step(r, 0 * ds, 0.0)) @ torch.tensor([[cos, sin], [-sin, cos]]).double()
        )
        torch.testing.assert_close(optimum.step(r, ds, 0.0), turned)
        gap.append((first.step(r, ds, 0.0) - optimum.step(r, ds, 0.0)).norm(dim=-1).mean().item())
    assert math.log2(gap[0] / gap[1]) == pytest.approx(2, abs=0.02)
    torch.testing.assert_close(first.step(r, 0 * ds, 0.0), optimum.step(r, 0 * ds, 0.0))
    # Evidence for one point alone leaves no other.
    optimum.evidence = lambda ds: torch.nn.functional.one_hot(torch.tensor(3), 256).expand(len(ds), -1)
    torch.testing.assert_close(optimum.step(r, 0 * ds, 0.0), first.density.points[[3]].expand(50, -1))


@pytest.mark.parametrize("variance, v, correlation", [(1.0, 0.1, 0.9), (2.0, 0.01, 0.5), (0.5, 0.3, 0.99)])
def test_waking_multiplier_gives_sleep_the_variance_of_waking(variance, v, correlation):
    b, waking = 1 - v / (variance + v), theory.waking_variance(variance, v, correlation)
    c = theory.waking_multiplier(variance, v, correlation)
    assert c * v / (1 - b**2) == pytest.approx(waking)
    # Of estimate and position together, after a step: (b + g) x̂ moves with (α - 1) x, and x with α x.
    step = np.array([[b, correlation - 1], [0, correlation]])
    pushed = variance * (1 - correlation**2) * np.ones((2, 2)) + np.diag([v, 0])
    joint = scipy.linalg.solve_discrete_lyapunov(step, pushed)
    assert joint[0, 0] == pytest.approx(waking)
    assert 1 < c < 3
