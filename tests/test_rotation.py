"""The turns of a bump that goes around at a known pace, and shares of reversals in closed form."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from reactivation_core.phases import Phase
from reactivation_core.protocols import rotation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("tiny_experiment", ["head-direction-unbiased"], indirect=True)
@pytest.mark.parametrize("pace", [0.3, -0.3])
def test_a_bump_that_goes_around(tiny_ensemble, pace):
    s = (torch.tensor([0.1, 2.0])[:, None] + pace * torch.arange(60))[None, ..., None].expand(3, -1, -1, -1)
    outputs = tiny_ensemble.task.cells.tuning(s)
    phase = Phase(s=s, outputs=outputs, decoded=tiny_ensemble.task.cells.decode(outputs))
    found = rotation.turns(tiny_ensemble, [phase])
    assert found.vector == pytest.approx(np.full((3, 2, 59), pace), abs=1e-4)
    assert found.true == pytest.approx(found.vector, abs=1e-4)
    # The decoder knows a third of the spacing of cells.
    assert np.abs(found.decoded - pace).max() < 2 * math.pi / 24
    assert rotation.rotation(found.decoded).velocity == pytest.approx([pace] * 3, abs=0.01)
    assert rotation.turned(found.vector)[..., -1] == pytest.approx(np.full((3, 2), 59 * pace / (2 * math.pi)), abs=1e-3)
    assert rotation.reversed_spans(found.vector, 10).tolist() == [float(pace < 0)] * 3
    assert found.gathered == pytest.approx(np.full(3, math.cos(0.95)), abs=0.05)


@pytest.mark.parametrize("tiny_experiment", ["head-direction-biased"], indirect=True)
def test_runs_of_both_phases(tiny_ensemble, generator):
    awake = rotation.awake(tiny_ensemble, 4, 6, generator)
    asleep = rotation.asleep(tiny_ensemble, 4, 6, generator)
    assert awake.decoded.shape == asleep.vector.shape == (3, 4, 5)
    assert (awake.true >= 0).all() and asleep.true is None


@pytest.mark.parametrize("tiny_experiment", ["head-direction-biased"], indirect=True)
def test_a_phase_in_parts(tiny_ensemble, generator, monkeypatch):
    monkeypatch.setattr(rotation, "TOGETHER", 2)
    asleep = rotation.asleep(tiny_ensemble, 5, 6, generator)
    assert asleep.decoded.shape == asleep.vector.shape == (3, 5, 5)
    # Each part has noise of its own.
    assert len(np.unique(asleep.vector[0, :, 0])) == 5


@pytest.mark.parametrize("tiny_experiment", ["head-direction-biased"], indirect=True)
def test_gathered_over_all_parts(tiny_ensemble):
    cells = tiny_ensemble.task.cells

    def at(bearing):
        outputs = cells.tuning(torch.full((3, 4, 2, 1), bearing))
        return Phase(outputs=outputs, decoded=cells.decode(outputs))

    assert rotation.turns(tiny_ensemble, [at(0.0), at(math.pi)]).gathered == pytest.approx(np.zeros(3), abs=0.1)


@pytest.mark.parametrize("n", [1, 10])
def test_reversals_of_independent_turns(rng, n):
    mean, spread = 0.05, 0.1
    turns = rng.normal(mean, spread, (2, 500, 400))
    expected = scipy.special.ndtr(-math.sqrt(n) * mean / spread)
    assert rotation.reversed_spans(turns, n) == pytest.approx([expected] * 2, abs=0.01)
    if n == 1:
        of = rotation.rotation(turns)
        assert of.reversed == pytest.approx([expected] * 2, abs=0.01)
        assert of.velocity == pytest.approx([mean] * 2, abs=0.001)
        assert of.spread == pytest.approx([spread] * 2, abs=0.001)
        assert (of.leaps == 0).all()
