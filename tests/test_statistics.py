"""Statistics against SciPy, closed forms, and invariances."""

import numpy as np
import pytest
import scipy.signal
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from reactivation_core import densities, statistics
from reactivation_core.densities import CircularDensity, KernelDensity, UniformDensity, kl_divergence


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def skewed(rng, n):
    """A correlated cloud and a square: neither normal, nor isotropic, nor centred."""
    cloud = rng.normal(size=(n // 2, 2)) @ np.array([[1, 0.6], [0, 0.3]]) + (0.5, -1)
    return np.concatenate((cloud, rng.uniform(-1, 1, (n - n // 2, 2))))


@pytest.mark.parametrize("n", [50, 2000, 20_000])
def test_density_equals_scipy(rng, n):
    points = skewed(rng, n)
    ours, reference = KernelDensity(points), scipy.stats.gaussian_kde(points.T)
    x = ours.sample(1000, rng)
    assert ours(x) == pytest.approx(reference(x.T), rel=1e-3)
    everywhere = rng.uniform(-5, 5, (1000, 2))
    assert ours(everywhere) == pytest.approx(reference(everywhere.T), abs=1e-4 * reference(x.T).max())


@pytest.mark.parametrize("n", [2000, 20_000])
@pytest.mark.parametrize("far", [30.0, 1e3, 1e5])
def test_density_with_outliers_equals_scipy_on_a_grid_of_no_greater_size(rng, n, far):
    outliers = far * np.array([[1.0, 0.9], [-0.8, 1.0], [-0.8, 1.001]])
    ours = KernelDensity(np.concatenate((skewed(rng, n), outliers)))
    assert ours.coefficients.size < 2500**2
    reference = scipy.stats.gaussian_kde(ours.points.T)
    x = np.concatenate((ours.sample(1000, rng), outliers, outliers + 0.3 * ours.bandwidth * far))
    assert ours(x) == pytest.approx(reference(x.T), rel=2e-3)
    assert ours(np.full((3, 2, 2), 20 * far)).tolist() == np.zeros((3, 2)).tolist()


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_density_takes_a_factor_of_the_bandwidth_as_scipy_does(rng, factor):
    points = skewed(rng, 2000)
    ours = KernelDensity(points, factor)
    reference = scipy.stats.gaussian_kde(points.T, lambda kde: factor * kde.scotts_factor())
    x = ours.sample(1000, rng)
    assert ours(x) == pytest.approx(reference(x.T), rel=1e-3)


def test_density_far_from_all_points_is_zero(rng):
    assert KernelDensity(skewed(rng, 100))(np.array([50.0, 50.0])) == 0


def test_density_keeps_the_shape_of_its_argument(rng):
    assert KernelDensity(skewed(rng, 100))(np.zeros((4, 5, 2))).shape == (4, 5)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 2 * np.pi), st.floats(0.01, 100), st.floats(-50, 50))
def test_density_is_equivariant(angle, scale, shift):
    points = skewed(np.random.default_rng(1), 200)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = KernelDensity(points @ turn.T + shift)(points @ turn.T + shift)
    assert moved * scale**2 == pytest.approx(KernelDensity(points)(points), rel=2e-3)


def test_density_samples_follow_the_density(rng):
    density = KernelDensity(skewed(rng, 500))
    x = density.sample(4000, rng)
    covariance = np.cov(density.points.T)
    # A kernel estimate has the covariance of the points plus that of the kernel.
    expected = covariance * (499 / 500 + density.bandwidth**2)
    assert np.cov(x.T) == pytest.approx(expected, rel=0.15)
    along = density.points[rng.integers(500, size=100_000), 0]
    kernel = density.bandwidth * np.sqrt(covariance[0, 0]) * rng.normal(size=100_000)
    assert scipy.stats.ks_2samp(x[:, 0], along + kernel).pvalue > 1e-3


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((10, 3)), "shape"),
        (np.zeros((2, 2)), "at least 3"),
        (np.full((10, 2), np.nan), "finite"),
        (np.arange(20.0).reshape(10, 2), "one line"),
    ],
)
def test_density_refuses(points, message):
    with pytest.raises(ValueError, match=message):
        KernelDensity(points)


class Normal(UniformDensity):
    """A normal density with a diagonal covariance, for closed forms."""

    def __init__(self, mean, sd):
        self.law = scipy.stats.multivariate_normal(mean, np.diag(np.square(sd)))

    def __call__(self, x):
        return self.law.pdf(x)

    def sample(self, n, generator):
        return self.law.rvs(n, random_state=generator)


def test_kl_of_normals_has_its_closed_form(rng):
    p, q = Normal((0, 0), (1, 2)), Normal((0.5, 0), (2, 2))
    closed = 0.5 * (1 / 4 + 0.25 / 4 - 1 + np.log(4))
    n = 40_000
    estimates = kl_divergence(p, q, rng, n)
    assert estimates == pytest.approx(closed, abs=4 / np.sqrt(n))
    assert kl_divergence(q, p, rng, n) != pytest.approx(closed, abs=0.1)


def test_kl_of_a_density_with_itself_is_zero(rng):
    density = KernelDensity(skewed(rng, 500))
    assert kl_divergence(density, density, rng) == 0


def test_kl_to_the_uniform(rng):
    narrow, wide = UniformDensity(1), UniformDensity(2)
    assert kl_divergence(narrow, wide, rng) == pytest.approx(np.log(4))
    # Three quarters of the wide square have no density in the narrow one: their ratio is clipped at 1e7.
    expected = 0.75 * np.log(1e7) + 0.25 * np.log(1 / 4)
    assert kl_divergence(wide, narrow, rng, 40_000) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("n", [3, 500, 20_000])
def test_circular_density_is_scipys_wrapped(rng, n):
    angles = np.concatenate((rng.vonmises(3, 8, n - n // 3), rng.uniform(-np.pi, np.pi, n // 3)))
    density = CircularDensity(angles)
    assert density.bandwidth == pytest.approx(np.pi / np.sqrt(3) * n ** (-1 / 5))
    turns = np.arange(-3, 4) * 2 * np.pi
    images = (angles + turns[:, None]).ravel()
    line = scipy.stats.gaussian_kde(images, density.bandwidth / images.std(ddof=1))
    x = rng.uniform(-np.pi, np.pi, 200)
    assert density(x) == pytest.approx(len(turns) * line(x), abs=1e-8)
    assert density(x + 2 * np.pi) == pytest.approx(density(x), abs=1e-12)


def test_circular_density_of_even_angles_is_uniform():
    density = CircularDensity(np.linspace(-np.pi, np.pi, 1000, endpoint=False))
    assert density(np.linspace(-np.pi, np.pi, 7)) == pytest.approx(1 / (2 * np.pi))


def test_circular_density_takes_a_factor_of_the_bandwidth():
    theta = np.linspace(-0.5, 0.5, 7)
    narrow, h = CircularDensity(np.zeros(4), 0.1), 0.1 * np.pi / np.sqrt(3) * 4 ** (-1 / 5)
    assert narrow(theta) == pytest.approx(scipy.stats.norm.pdf(theta, 0, h), rel=1e-5)


def test_circular_density_samples_follow_the_density(rng):
    density = CircularDensity(rng.vonmises(3, 2, 300))
    moment = np.exp(-1j * density.sample(40_000, rng)).mean()
    assert abs(moment - density.coefficients[0]) < 4 / np.sqrt(40_000)


def test_kl_of_von_mises_laws_has_its_closed_form(rng):
    # KL(VM(0, a) || VM(1, a)) = a A(a) (1 - cos 1), with A = I1 / I0 the mean resultant length.
    p, q = (CircularDensity(rng.vonmises(mean, 1, 200_000)) for mean in (0, 1))
    closed = scipy.special.i1(1) / scipy.special.i0(1) * (1 - np.cos(1))
    # The laws differ mostly in their first moment, and the divergence in its square, which the kernel lowers.
    smoothed = np.exp(-(p.bandwidth**2)) * closed
    assert kl_divergence(p, q, rng, 40_000) == pytest.approx(smoothed, abs=0.013)


@pytest.mark.parametrize(
    ("angles", "message"), [(np.zeros((4, 2)), "shape"), (np.zeros(0), "shape"), (np.full(3, np.nan), "finite")]
)
def test_circular_density_refuses(angles, message):
    with pytest.raises(ValueError, match=message):
        CircularDensity(angles)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_effective_sample_size_of_an_autoregression(rng, correlation):
    B, T = 4000, 50
    x = np.empty((B, T))
    x[:, 0] = rng.standard_normal(B)
    for t in range(1, T):
        x[:, t] = correlation * x[:, t - 1] + np.sqrt(1 - correlation**2) * rng.standard_normal(B)
    lag = np.arange(1, T)
    inflation = 1 + 2 * ((1 - lag / T) * correlation**lag).sum()
    assert statistics.effective_sample_size(x) == pytest.approx(B * T / inflation, rel=0.1)


def test_interval_equals_scipy():
    values = np.array([1.0, 2.0, 4.0, 4.5, 7.0])
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    mean, low, high = statistics.interval(values)
    assert (mean, low, high) == pytest.approx((values.mean(), expected.low, expected.high))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (statistics.interval, [np.array([0.1, np.nan, 0.3])], "expected finite values, got 1 others"),
        (statistics.split_rhat, [np.full((3, 8, 2), 0.1)], "expected chains that differ somewhere, got one value"),
        # Different in the middle alone, which is in neither half.
        (statistics.split_rhat, [np.full((3, 5, 1), 0.5) + np.eye(5)[2][:, None]], "expected chains that differ"),
        (
            statistics.memory,
            [np.concatenate((np.arange(24.0).reshape(3, 2, 2, 2), np.full((3, 2, 1, 2), 0.1)), 2)],
            "expected positions that differ at every time, got one at 1 of 3 times",
        ),
        (statistics.split_rhat, [np.eye(8)[:3, :, None] + [0, np.nan]], "expected finite positions, got 24 others"),
        (
            statistics.memory,
            [np.where(np.eye(6) == 1, np.inf, 0).reshape(3, 2, 3, 2)],
            "finite positions, got 6 others",
        ),
        (statistics.transitions, [np.full((3, 8, 2), np.nan), 1, 2.2, 4], "expected finite positions, got 48 others"),
    ],
)
def test_what_is_not_defined_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


@pytest.mark.parametrize(
    ("scale", "there", "back"),
    [("log", np.log, np.exp), ("logit", scipy.special.logit, scipy.special.expit)],
)
def test_an_interval_on_a_scale_is_that_of_the_values_on_it(scale, there, back):
    values = np.array([0.02, 0.1, 0.03, 0.4, 0.2])
    expected = back(scipy.stats.ttest_1samp(there(values), 0).confidence_interval(0.95))
    mean, low, high = statistics.interval(values, scale)
    assert mean == pytest.approx(0.15) and (low, high) == pytest.approx(tuple(expected))
    assert low > 0 > statistics.interval(values).low


def test_an_interval_of_correlations_is_fishers():
    values = np.array([0.6, 0.9, 0.97, 0.99])
    expected = np.tanh(scipy.stats.ttest_1samp(np.arctanh(values), 0).confidence_interval(0.95))
    _, low, high = statistics.interval(values, "correlation")
    assert (low, high) == pytest.approx(tuple(expected)) and high < 1 < statistics.interval(values).high


def test_an_interval_on_a_scale_covers_where_values_are_skewed():
    rng = np.random.default_rng(0)
    draws = np.exp(rng.normal(0, 1.5, (2000, 5)))
    covered = {
        scale: np.mean([low < mean < high for _, low, high in (statistics.interval(x, scale) for x in draws)])
        for scale, mean in (("linear", np.exp(1.5**2 / 2)), ("log", 1))
    }
    assert abs(covered["log"] - 0.95) < 0.02 and covered["linear"] < 0.8


@pytest.mark.parametrize(
    ("scale", "values", "expected"),
    [
        ("logit", (0.8, 1.0, 1.0), (0.6465, 1.0)),
        ("logit", (1.0, 1.0, 1.0), (1.0, 1.0)),
        ("log", (0.0, 0.0, 0.3), (0.0, 0.5303)),
    ],
)
def test_with_a_value_on_a_bound_the_interval_is_cut_off_there(scale, values, expected):
    _, low, high = statistics.interval(np.array(values), scale)
    assert (low, high) == pytest.approx(expected, abs=1e-4)


def test_values_beyond_the_bounds_of_a_scale_are_refused():
    for scale, values in (("log", (-0.1, 0.2)), ("logit", (0.5, 1.1)), ("correlation", (0.5, -1.1))):
        with pytest.raises(ValueError, match=f"on the scale {scale}, got"):
            statistics.interval(np.array(values), scale)


def test_interval_needs_two_networks():
    with pytest.raises(ValueError, match="at least 2 networks"):
        statistics.interval(np.array([1.0]))


def test_explained_variance_of_a_known_covariance(rng):
    sd = np.array([3.0, 2.0, 1.0])
    turn = scipy.stats.ortho_group.rvs(3, random_state=0)
    explained = statistics.explained_variance((rng.normal(size=(200_000, 3)) * sd) @ turn + 5)
    assert explained == pytest.approx(np.cumsum(sd**2) / (sd**2).sum(), abs=0.005)


def test_independent_noise_is_subtracted_from_every_component(rng):
    signal = rng.normal(size=(200_000, 2)) * (3.0, 1.0)
    states = np.pad(signal, ((0, 0), (0, 48))) + 0.5 * rng.normal(size=(200_000, 50))
    assert statistics.explained_variance(states, 0.25)[:2] == pytest.approx([0.9, 1.0], abs=0.005)
    assert statistics.explained_variance(states)[1] == pytest.approx(10.5 / 22.5, abs=0.005)


def test_participation_ratio_counts_equal_variances(rng):
    even = rng.normal(size=(200_000, 6)) * (2, 2, 2, 2, 0, 0)
    assert statistics.participation_ratio(even + 3) == pytest.approx(4, rel=0.01)
    assert statistics.participation_ratio(even * (1, 0, 0, 0, 1, 1)) == pytest.approx(1)
    few = even[:5]
    variances = np.linalg.eigvalsh(np.cov(few.T))
    assert statistics.participation_ratio(few) == pytest.approx(variances.sum() ** 2 / (variances**2).sum())


def test_dimensions_counts_components():
    explained = np.array([[0.5, 0.8, 0.95, 1.0], [0.9, 0.95, 0.99, 1.0]])
    assert statistics.dimensions(explained).tolist() == [3, 1]


def test_step_lengths():
    positions = np.array([[[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]])
    assert statistics.step_lengths(positions).tolist() == [[5.0, 1.0]]


def test_coverage_counts_tiles():
    assert statistics.coverage(np.array([[0.5, 0.5], [0.6, 0.6], [-0.5, -0.5]]), 2.0) == 2 / 121
    assert statistics.coverage(np.array([[5.0, 5.0]]), 2.0) == 0


def test_near_a_wall_is_within_a_width_of_it_or_beyond():
    positions = np.array([[0.95, 0.0], [0.0, -0.95], [0.85, 0.85], [2.0, 0.0]])
    assert statistics.near_walls(positions, 2.0, 0.1) == 3 / 4


def test_unevenness_of_half_a_box_and_of_draws_from_the_whole(rng):
    draws = rng.uniform(-1, 1, (100_000, 2))
    assert statistics.unevenness(draws, 2.0) == pytest.approx(60 / 100_000, rel=0.5)
    # Five columns of eleven, and what lies outside the box does not count.
    half = draws[draws[:, 0] < -1 / 11]
    assert statistics.unevenness(np.concatenate((half, half + 5)), 2.0) == pytest.approx(np.log(11 / 5), abs=0.003)


def test_total_variance_is_per_trajectory_and_summed_over_coordinates(rng):
    positions = rng.standard_normal((3, 4, 100000, 2)) * (1.0, 2.0) + rng.standard_normal((3, 4, 1, 2))
    np.testing.assert_allclose(statistics.total_variance(positions), 5.0, rtol=0.03)


class Annulus(UniformDensity):
    """Even between two radii, with a cone inside."""

    def __call__(self, x):
        r = np.linalg.norm(x, axis=-1)
        return np.where(r < 0.4, r / 0.4, np.where(r < 0.8, 1.0, 0.0))


def test_ring_depth_of_known_densities():
    assert statistics.ring_depth(Annulus(1.6), 1.0) == pytest.approx(2 / 3 * 0.1 / 0.4, rel=0.06)
    assert statistics.ring_depth(densities.UniformDensity(2.2), 1.1) == pytest.approx(1.0)


def test_ring_hole_of_a_circle_a_disc_and_a_normal_cloud(rng):
    angle, centre = rng.uniform(-np.pi, np.pi, 200000), np.array([2.0, -1.0])
    circle = np.stack((np.cos(angle), np.sin(angle)), 1)
    disc = np.sqrt(rng.random(200000))[:, None] * circle
    assert statistics.ring_hole(centre + circle, centre) == pytest.approx(1.0)
    assert statistics.ring_hole(centre + disc, centre) == pytest.approx(np.sqrt(0.05 / 0.5), rel=0.02)
    # The squared radius of a normal cloud is exponential.
    normal = rng.standard_normal((200000, 2))
    expected = np.sqrt(np.log(0.95) / np.log(0.5))
    assert statistics.ring_hole(centre + normal, centre) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("sign", [1, -1])
def test_ring_order_takes_any_origin_and_sense(rng, sign):
    bearings, centre = rng.uniform(-np.pi, np.pi, 5000), np.array([0.3, 0.7])
    angle = sign * bearings + 1.2 + 0.3 * rng.standard_normal(5000)
    points = centre + 5 * np.stack((np.cos(angle), np.sin(angle)), 1)
    assert statistics.ring_order(points, bearings, centre) == pytest.approx(np.exp(-(0.3**2) / 2), abs=0.01)
    assert statistics.ring_order(points, rng.permutation(bearings), centre) < 0.05


def autoregression(rng, shape, steps, phi):
    """Stationary AR(1) of unit variance, `(*shape, steps)`."""
    noise = rng.standard_normal((*shape, steps))
    noise[..., 1:] *= np.sqrt(1 - phi**2)
    return scipy.signal.lfilter([1], [1, -phi], noise)


@pytest.mark.parametrize("phi", [0.0, 0.9, 0.98])
def test_split_rhat_of_autoregressions(rng, phi):
    chains = np.moveaxis(autoregression(rng, (2, 2000), 200, phi), 0, -1) * (1.0, 3.0) + (5.0, -2.0)
    n = 100
    lag = np.arange(1, n)
    # Variance of the mean of n correlated steps of unit variance.
    g = (1 + 2 * ((1 - lag / n) * phi**lag).sum()) / n
    assert statistics.split_rhat(chains) == pytest.approx(np.sqrt((1 - 1 / n) / (1 - g)), rel=0.02)


def test_split_rhat_sees_what_does_not_mix(rng):
    still = np.repeat(rng.standard_normal((10, 1, 2)), 20, 1)
    assert statistics.split_rhat(still) > 1e6
    # All chains alike, but in another place in each half.
    drifting = rng.standard_normal((50, 200, 1)) + np.repeat([0.0, 10.0], 100)[:, None]
    assert statistics.split_rhat(drifting) > 4
    with pytest.raises(ValueError, match="at least 2 chains"):
        statistics.split_rhat(still[:1])


def test_memory_of_an_autoregression_is_its_correlation_at_twice_the_lag(rng):
    phi, B, T = 0.97, 20_000, 40
    start = rng.standard_normal((B, 1, 1))
    noise = np.sqrt(1 - phi**2) * rng.standard_normal((B, 2, T))
    x = scipy.signal.lfilter([1], [1, -phi], noise, zi=np.broadcast_to(phi * start, (B, 2, 1)))[0]
    found = statistics.memory(np.stack((x + 3, -2 * x), -1))
    assert found == pytest.approx(phi ** (2 * np.arange(1, T + 1)), abs=0.02)


def test_memory_is_whole_without_noise_and_of_any_function_of_the_start(rng):
    twins = np.repeat(rng.standard_normal((50, 1, 3, 2)) ** 2, 2, 1)
    assert statistics.memory(twins) == pytest.approx(1.0)
    apart = statistics.memory(rng.standard_normal((5000, 2, 3, 2)))
    assert apart == pytest.approx(0.0, abs=0.04)


def test_autocorrelation_of_an_autoregression(rng):
    x = np.moveaxis(autoregression(rng, (2, 4000), 100, 0.95), 0, -1) + (7.0, 0.0)
    lags = np.array([0, 1, 10, 40])
    assert statistics.autocorrelation(x, lags) == pytest.approx(0.95**lags, abs=0.02)


def test_mean_squared_displacement_and_its_exponent(rng):
    lags = np.array([1, 2, 5, 10, 20])
    brownian = np.cumsum(0.1 * rng.standard_normal((4000, 100, 2)), 1)
    found = statistics.mean_squared_displacement(brownian, lags)
    assert found == pytest.approx(2 * 0.01 * lags, rel=0.03)
    assert statistics.exponent(lags, found) == pytest.approx(1.0, abs=0.02)
    straight = np.arange(100)[:, None] * rng.standard_normal((10, 1, 2))
    assert statistics.exponent(lags, statistics.mean_squared_displacement(straight, lags)) == pytest.approx(2.0)
    # A stationary AR(1) with variance 1 in each of two coordinates.
    x = np.moveaxis(autoregression(rng, (2, 4000), 100, 0.9), 0, -1)
    assert statistics.mean_squared_displacement(x, lags) == pytest.approx(4 * (1 - 0.9**lags), rel=0.03)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.8])
def test_increment_exponent_is_blind_to_scatter(rng, alpha):
    k = np.array([5, 10, 20])
    assert statistics.increment_exponent(*(0.3 + 0.02 * k**alpha)) == pytest.approx(alpha)
    assert np.isnan(statistics.increment_exponent(1.0, 2.0, 1.5))


def test_increment_exponent_of_diffusion_seen_through_scatter(rng):
    x = np.cumsum(0.1 * rng.standard_normal((20_000, 60, 2)), 1) + 0.3 * rng.standard_normal((20_000, 60, 2))
    lags = np.array([5, 10, 20])
    found = statistics.mean_squared_displacement(x, lags)
    assert statistics.increment_exponent(*found) == pytest.approx(1.0, abs=0.05)
    assert statistics.exponent(lags, found) < 0.7


def cycle(rng, n_steps, forward):
    """Positions in the four tiles of a box, stepping round one way with this probability, else the other."""
    steps = np.where(rng.random((500, n_steps)) < forward, 1, -1)
    tile = (rng.integers(4, size=(500, 1)) + np.cumsum(steps, 1)) % 4
    return np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.5, -0.5]])[tile]


@pytest.mark.parametrize("forward", [0.5, 0.8, 1.0])
def test_transitions_of_a_cycle(rng, forward):
    p = statistics.transitions(cycle(rng, 200, forward), 1, 2.0, 2)
    expected = np.zeros((4, 4))
    # Tiles are counted along y first: the cycle visits 0, 1, 3, 2.
    for a, b in ((0, 1), (1, 3), (3, 2), (2, 0)):
        expected[a, b], expected[b, a] = forward / 4, (1 - forward) / 4
    assert p == pytest.approx(expected, abs=0.01)
    assert statistics.asymmetry(p) == pytest.approx(2 * forward - 1, abs=0.02)
    assert statistics.transition_distance(p, expected) == pytest.approx(0, abs=0.02)
    assert statistics.transition_distance(p, expected.T) == pytest.approx(2 * forward - 1, abs=0.02)


def test_transition_distance_counts_unvisited_tiles():
    q = np.array([[0.5, 0.0], [0.0, 0.5]])
    assert statistics.transition_distance(np.array([[1.0, 0.0], [0.0, 0.0]]), q) == 0.5
    assert statistics.transition_distance(q, q) == 0


def test_tiles_of_the_square():
    positions = np.array([[-0.9, -0.9], [0.9, -0.9], [-0.9, 0.9], [5.0, 5.0]])
    assert statistics.tiles(positions, 1.0, 2).tolist() == [0, 2, 1, 3]


def test_transitions_need_a_lag_shorter_than_the_trajectories(rng):
    with pytest.raises(ValueError, match="lag of 1 to 199"):
        statistics.transitions(cycle(rng, 200, 0.5), 200, 2.0, 2)


def two_normals(rng, n, mean, spread):
    """Standard normal draws, and draws with this mean and standard deviation."""
    return rng.standard_normal((n, len(mean))), mean + spread * rng.standard_normal((n, len(mean)))


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 2.0), (1.0, 1.0), (1.0, 1.5)])
def test_sliced_wasserstein_of_normal_laws(rng, shift, spread):
    d = 8
    x, y = two_normals(rng, 10_000, np.eye(d)[0] * shift, spread)
    # A projection shifts by shift * u_1; quantiles of normal laws then differ by a normal variable.
    u = rng.standard_normal((100_000, d))
    gaps = shift * u[:, 0] / np.linalg.norm(u, axis=1) + (spread - 1) * rng.standard_normal(len(u))
    expected = np.abs(gaps).mean()
    found = np.mean([densities.sliced_wasserstein(x, y, rng) for _ in range(30)])
    assert found == pytest.approx(expected, rel=0.05)


def test_sliced_wasserstein_scales_with_the_unit_and_vanishes_on_one_sample(rng):
    x, y = two_normals(rng, 500, np.array([0.5, 0, 0]), 1.2)
    one, ten = (densities.sliced_wasserstein(f * x, f * y, np.random.default_rng(1)) for f in (1, 10))
    assert ten == pytest.approx(10 * one)
    assert densities.sliced_wasserstein(x, x[::-1], rng) == pytest.approx(0)


def test_a_ring_has_one_long_loop_and_a_cloud_has_none():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 150)
    noise = 0.1 * rng.standard_normal((150, 5))
    ring = noise.copy()
    ring[:, :2] += np.stack((np.cos(angle), np.sin(angle)), -1)
    two = noise.copy()
    two[:, :2] += np.stack((np.cos(angle) * np.sign(np.arange(150) - 75), np.sin(angle)), -1)
    two[75:, 0] += 3
    ratio = {name: np.divide(*statistics.loops(x)[:2]) for name, x in (("ring", ring), ("noise", noise), ("two", two))}
    assert ratio["ring"] > 3
    assert ratio["noise"] < 2 and ratio["two"] < 2
    assert statistics.loops(3 * ring) == pytest.approx(3 * statistics.loops(ring), rel=1e-4)


def test_population_vector_is_the_bearing_of_a_bump_whatever_its_height(rng):
    angles = np.linspace(-np.pi, np.pi, 512, endpoint=False)
    bearings = rng.uniform(-np.pi, np.pi, (3, 50))
    bumps = np.exp(4 * np.cos(bearings[..., None] - angles)) * rng.uniform(0.1, 1, (3, 50, 1))
    assert statistics.population_vector(bumps, angles) == pytest.approx(bearings, abs=1e-9)
    assert statistics.population_vector(bumps - 5.0, angles) == pytest.approx(bearings, abs=1e-9)


def test_population_vector_weighs_directions_by_their_activity():
    outputs, angles = np.array([[3.0, 3.0], [1.0, 0.0], [1.0, -2.0]]), np.array([0.0, np.pi / 2])
    expected = [np.pi / 4, 0, -np.arctan(2)]
    assert statistics.population_vector(outputs, angles) == pytest.approx(expected)


def test_r_squared_is_the_share_of_the_variance(rng):
    x = rng.normal(3, 2, (20_000, 2))
    assert statistics.r_squared(x - x.mean(0), x) == pytest.approx(0)
    assert statistics.r_squared(0.5 * (x - x.mean(0)), x) == pytest.approx(0.75)
    assert statistics.r_squared(x, x) == pytest.approx(-9 / 4, rel=0.05)


def test_a_two_way_analysis_finds_what_it_was_made_of(rng):
    first, second = rng.normal(size=(40, 1, 3)), rng.normal(size=(1, 50, 3))
    first, second = first - first.mean(0), second - second.mean(1)
    both = first * second
    x = 2 + first + 3 * second + 4 * both
    squares = [np.square(part).sum(-1).mean() for part in (2 * np.ones((1, 1, 3)), first, 3 * second, 4 * both)]
    assert list(statistics.two_way(x).values()) == pytest.approx(np.array(squares) / sum(squares))


def test_project_finds_the_plane_of_waking_in_both_phases(rng):
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    scale = np.array([3.0, 2.0, *[0.1] * 10])
    awake, asleep = (rng.normal(size=(2, 40, 50, 12)) * s @ basis.T for s in (scale, scale[::-1]))
    states = {"active": awake, "quiescent": asleep}
    scores = statistics.project(states)
    assert scores["active"].var(1) == pytest.approx(np.array([[9.0, 4.0]] * 2), rel=0.1)
    shares = [statistics.plane_variance(scores[phase], states[phase]) for phase in states]
    assert shares[0] == pytest.approx(np.full(2, 13 / 13.1), abs=0.01)
    assert shares[1] == pytest.approx(np.full(2, 0.02 / 13.1), abs=0.01)


def test_divergences_go_from_every_column_to_every_row_and_back(rng):
    small, large = [UniformDensity(1.0)] * 2, [UniformDensity(2.0)] * 2
    found = densities.divergences([small, large], [large, small, large], rng)
    assert found.forward.shape == found.backward.shape == (2, 3, 2)
    assert found.forward[1] == pytest.approx(np.array([[0] * 2, [np.log(4)] * 2, [0] * 2]))
    assert found.backward[0] == pytest.approx(np.array([[np.log(4)] * 2, [0] * 2, [np.log(4)] * 2]))


def test_circular_densities_are_one_a_network(rng):
    bearings = rng.vonmises(1.0, 1.0, (2, 5, 40))
    found = densities.circular(bearings)
    theta = np.linspace(-3.0, 3.0, 7)
    assert [p(theta) for p in found] == [pytest.approx(CircularDensity(x.ravel())(theta)) for x in bearings]
