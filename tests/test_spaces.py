"""The law of activity asleep beside that awake: networks in which both are known."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from reactivation_core import phases
from reactivation_core.networks import RNN
from reactivation_core.phases import Ensemble
from reactivation_core.protocols import spaces


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def leaky(tiny_ensemble):
    """Networks that only leak: inputs do nothing, and sleep differs from waking by the variance of the noise alone."""
    experiment, shapes = tiny_ensemble.experiment, RNN.shapes(3, 16, 24, 2)
    parts = {name: torch.zeros(shape) for name, shape in shapes.items()}
    parts["D"] = torch.randn(shapes["D"], generator=torch.Generator().manual_seed(1))
    # So that clean activity is not all 0; after the first steps it is as nothing beside the noise.
    parts["encoder"] = 0.01 * torch.randn(shapes["encoder"], generator=torch.Generator().manual_seed(2))
    return Ensemble(experiment, tiny_ensemble.task, RNN(parts, experiment.tau, experiment.dt))


def test_a_leak_has_the_waking_law_asleep_and_doubled_noise_widens_it(leaky):
    found = spaces.compare(leaky, 100, 100, torch.Generator().manual_seed(0), 0)
    late, doubled = (found.sw[:, spaces.RUNS.index(run), 0] for run in ("asleep late, c = 1", "asleep late"))
    floor = found.sw[:, spaces.RUNS.index("awake late"), 0]
    alike, told = (found.auc[:, spaces.RUNS.index(run), 0] for run in ("asleep late, c = 1", "asleep late"))
    assert alike == pytest.approx(found.auc[:, spaces.RUNS.index("awake late"), 0], abs=0.06)
    assert alike == pytest.approx(0.5, abs=0.06) and (told > 0.8).all()
    assert late == pytest.approx(floor, abs=0.03) and (late < 0.1).all()
    assert doubled == pytest.approx((math.sqrt(2) - 1) * math.sqrt(2 / math.pi), rel=0.1)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_common_factor_is_seen_in_activity_and_not_in_its_direction(tiny_ensemble, factor):
    r = np.random.default_rng(0).standard_normal((4000, 16)).astype(np.float32)
    # Half the units lie across.
    of = spaces.Spaces(tiny_ensemble[0], r * np.repeat(np.float32([1, 0.01]), 8))
    reference, runs = of(r[:2000]), {"other": [of(factor * r[2000:])]}
    sw = dict(zip(spaces.SPACES, spaces.distances(reference, runs, 0)[0], strict=True))
    for name in ("states", "outputs"):
        assert sw[name] == pytest.approx(abs(factor - 1) * math.sqrt(2 / math.pi), rel=0.1)
    assert sw["direction"] < 0.06
    lengths = np.linalg.norm(r, axis=1)
    assert spaces.gains(reference, runs)[0] == pytest.approx((factor - 1) * lengths.mean() / lengths.std(), rel=0.05)


@pytest.mark.parametrize("shift", [0.0, 1.0, 4.0])
def test_auc_of_shifted_normal_laws(rng, shift):
    x, y = rng.standard_normal((2, 4000, 5))
    assert spaces.auc(x, y + shift * np.eye(5)[0], 400) == pytest.approx(
        scipy.stats.norm.cdf(shift / math.sqrt(2)), abs=0.02
    )


def test_auc_sees_a_difference_of_covariances_alone(rng):
    x, y = rng.standard_normal((2, 4000, 5))
    # Squared lengths are chi-squared; a draw of the wider law is the longer one with the chance of an F variate.
    assert spaces.auc(x, 2 * y, 400) == pytest.approx(scipy.stats.f.cdf(4, 5, 5), abs=0.02)


def test_auc_holds_whole_trajectories_out(rng):
    x, y = np.repeat(rng.standard_normal((2, 40, 20)), 10, axis=1)
    assert abs(spaces.auc(x, y, 40) - 0.5) < 0.15
    # Were other states of the same trajectories fitted to, it would seem to tell the two apart.
    assert spaces.auc(x, y, 400) > 0.9


def test_sets_of_one_law_are_not_told_apart_in_many_dimensions(rng):
    def draw():
        return {space: rng.standard_normal((500, 200)) for space in spaces.TOLD}

    late = {run: [draw() for _ in range(3 if "awake" in run else 1)] for run in spaces.RUNS}
    assert spaces.told_apart(late, 50) == pytest.approx(0.5, abs=0.06)


def test_spaces_are_parts_of_activity(tiny_ensemble):
    r = np.random.default_rng(0).random((50, 16), dtype=np.float32)
    of = spaces.Spaces(tiny_ensemble[1], r)
    found = of(r)
    assert tuple(found) == spaces.SPACES and found["along"].shape[1] + found["across"].shape[1] == 16
    variances = found["along"].var(0).sum(), found["across"].var(0).sum()
    assert 0.99 <= variances[0] / sum(variances) and sum(variances) == pytest.approx(r.var(0).sum(), rel=1e-4)
    assert np.linalg.norm(found["direction"], axis=1) == pytest.approx(1, rel=1e-5)
    assert found["outputs"] == pytest.approx(r @ tiny_ensemble.network.D[1].detach().numpy().T, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("tiny_experiment", ["head-direction-unbiased"], indirect=True)
def test_bearings_are_points_of_the_unit_circle(tiny_ensemble):
    r = np.random.default_rng(0).random((50, 16), dtype=np.float32)
    decoded = spaces.Spaces(tiny_ensemble[0], r)(r)["decoded"]
    assert decoded.shape == (50, 2) and np.linalg.norm(decoded, axis=1) == pytest.approx(1)


def test_shuffling_keeps_the_law_of_every_unit(tiny_ensemble):
    found = spaces.sample(tiny_ensemble[0], 10, 40, torch.Generator().manual_seed(0), 0)
    (shuffled,), (_, whole, _) = found.runs["shuffled"], found.runs["awake late"]
    np.testing.assert_array_equal(np.sort(shuffled, 0), np.sort(whole, 0))
    assert not np.array_equal(shuffled, whole) and shuffled.shape == (100, 16)
    assert found.reference.shape == (100, 16) and found.clean.shape == (100, 16)


def test_a_network_without_noise_awake_has_none_asleep(tiny_experiment):
    silent = phases.untrained(tiny_experiment.vary(sigma=0.0), 1, torch.Generator().manual_seed(0))
    found = spaces.sample(silent, 4, 40, torch.Generator().manual_seed(0), 0)
    again = spaces.sample(silent, 4, 40, torch.Generator().manual_seed(0), 0)
    np.testing.assert_array_equal(found.runs["asleep late"], again.runs["asleep late"])
