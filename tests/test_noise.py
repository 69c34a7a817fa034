import math

import numpy as np
import pytest
import scipy.stats
import torch

from reactivation_core import noise

DT = 0.02
SCIPY = {"gaussian": scipy.stats.norm(0, math.sqrt(DT)), "uniform": scipy.stats.uniform(0, math.sqrt(DT))}
BLOCK = noise._BLOCK


@pytest.fixture
def threads():
    """Set the number of threads, and put it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draw(law, *shape, seed=0, dt=DT, dtype=torch.float32):
    return noise.LAWS[law](torch.empty(*shape, dtype=dtype), dt, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("law", noise.LAWS)
@pytest.mark.parametrize("shape", [(100_000,), (2 * BLOCK + 5,)], ids=["one block", "several blocks"])
def test_law(law, shape):
    eta = draw(law, *shape).numpy().astype(np.float64)
    expected = SCIPY[law]
    n = eta.size
    # A sample of the whole keeps the test quick; its end is in the last, short block.
    assert scipy.stats.kstest(np.r_[eta[:50_000], eta[-50_000:]], expected.cdf).pvalue > 1e-3
    assert abs(eta.mean() - expected.mean()) < 4 * expected.std() / math.sqrt(n)
    assert (noise.mean(law, DT), noise.variance(law, DT)) == pytest.approx((expected.mean(), expected.var()))
    kurtosis = expected.stats("k") + 3
    assert abs(eta.var() / expected.var() - 1) < 4 * math.sqrt((kurtosis - 1) / n)
    # The next value, and the same place in the next block.
    for lag in (1, BLOCK if n > 2 * BLOCK else n // 2):
        correlation = np.corrcoef(eta[:-lag], eta[lag:])[0, 1]
        assert abs(correlation) < 4 / math.sqrt(n - lag)


def test_the_laws_are_the_papers_and_the_released_codes():
    assert noise.LAWS == {"gaussian": noise.gaussian, "uniform": noise.uniform}
    released = draw("uniform", 100_000)
    assert 0 <= released.min() and released.max() < math.sqrt(DT)
    assert released.mean() == pytest.approx(math.sqrt(DT) / 2, rel=1e-2)
    assert released.var() == pytest.approx(DT / 12, rel=2e-2)


@pytest.mark.parametrize("law", noise.LAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variance_is_proportional_to_dt(law, dtype):
    long, short = (draw(law, 1000, dt=dt, dtype=dtype) for dt in (DT, DT / 4))
    torch.testing.assert_close(short, long / 2)


@pytest.mark.parametrize("law", noise.LAWS)
def test_draws_do_not_depend_on_the_number_of_threads(law, threads):
    draws = []
    for n in (1, 2, 4):
        threads(n)
        draws.append(draw(law, 3 * BLOCK // 512, 512))
    assert torch.equal(draws[0], draws[1]) and torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("size", [100, BLOCK + 1])
def test_draws_come_from_the_generator_alone(size):
    state = torch.get_rng_state()
    first = draw("gaussian", size)
    assert torch.equal(first, draw("gaussian", size))
    assert not torch.equal(first, draw("gaussian", size, seed=1))
    generator = torch.Generator().manual_seed(0)
    again, then = (noise.gaussian(torch.empty(size), DT, generator) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, then)
    assert torch.equal(state, torch.get_rng_state())


def test_a_tensor_is_filled_in_place(generator):
    eta = torch.empty(4, 6)
    assert noise.gaussian(eta, DT, generator) is eta
    assert noise.gaussian(eta.T, DT, generator).ne(0).all()


@pytest.mark.parametrize("dt", [0.0, -0.02, math.nan])
def test_a_time_step_that_is_not_positive_is_refused(dt, generator):
    with pytest.raises(ValueError, match=f"expected a time step dt > 0, got {dt}"):
        noise.gaussian(torch.empty(3), dt, generator)


def test_a_large_tensor_with_gaps_is_refused(generator):
    with pytest.raises(ValueError, match="contiguous"):
        noise.gaussian(torch.empty(BLOCK, 2).T, DT, generator)
