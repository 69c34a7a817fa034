"""A walk on the ring in the guise of a network, whose drift in sleep is so many times that of a sampler."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from reactivation_core import experiments, phases, store
from reactivation_core.networks import Runnable
from reactivation_core.protocols import conditions, diffusion

# Variance of the noise of a step, which moves the bearing.
V = 0.005
MULTIPLIERS = np.array([1.0, 2.0, 8.0])


class Walker(Runnable):
    """Activity is a point on a circle. Awake it follows its input; asleep the bearing drifts by `slope` times what
    samples its law at c = 2. It reports a bump, or, `flat`, nothing but noise."""

    n_networks, n_units = 2, 2

    def __init__(self, task, slope, flat=False):
        super().__init__()
        self.cells, self.head, self.slope, self.flat = task.cells, task.motion, slope, flat
        self.n_cells = len(task.cells.angles)

    def __getitem__(self, index):
        return self

    def encode(self, f):
        z = f.to(torch.complex64) @ torch.exp(1j * self.cells.angles)
        return torch.view_as_real(z / z.abs())

    def readout(self, r):
        if self.flat:
            return r.sum(-1, keepdim=True) * torch.linspace(-1, 1, self.n_cells)
        return self.cells.tuning(torch.atan2(r[..., 1], r[..., 0])[..., None])

    def step(self, r, ds, noise):
        s = torch.atan2(r[..., 1], r[..., 0])
        n, kappa = self.head.peaks, self.head.concentration
        pull = 0 if ds.any() else -self.slope * V * n * kappa * (n * s).sin()
        s = s + ds[..., 0] + pull
        return torch.stack((s.cos(), s.sin()), -1) + noise


def walker(slope, peaks=1, flat=False, concentration=1.0):
    motion = {"concentration": concentration, "peaks": peaks}
    settings = {"task": {"motion": motion}, "n_units": 2, "sigma": math.sqrt(V / 0.02)}
    ensemble = phases.untrained(experiments.get("ring-moving").vary(**settings), 2, torch.Generator().manual_seed(0))
    return replace(ensemble, network=Walker(ensemble.task, slope, flat))


def found(ensemble, generator):
    # Few steps, as its errors add up awake.
    space = conditions.ring(ensemble)
    waking = conditions.wake(ensemble, space, 1600, 20, generator)
    end = conditions.ends(ensemble, space, waking, 200, 1200, MULTIPLIERS, generator)
    rng = np.random.default_rng(0)
    return end, conditions.drift_on_score(ensemble, space, waking, 200, 800, 2.0, generator, rng)


@pytest.mark.parametrize("peaks", [1, 2])
def test_a_sampler_comes_from_the_trough_to_the_law_of_waking_at_its_multiplier(peaks, generator):
    end, drift = found(walker(1.0, peaks), generator)
    assert max(end.asleep[:, 1].max(), end.floor.max()) < 0.04
    assert (end.asleep[:, 1] < end.asleep[:, 2]).all() and (end.asleep[:, 1] < end.asleep[:, 0]).all()
    # Its own errors widen the law awake, of two peaks more.
    assert end.turned[:, 1].min() > 0.3 and (end.asleep[:, 1] < end.even / 2).all()
    assert end.cosine == pytest.approx(1, abs=0.01)
    # The law awake, widened by errors and the kernel, has less of a score than the law that the walk samples.
    widened = math.exp(peaks**2 * (20 * V + conditions.ring(walker(1.0)).width ** 2) / 2)
    assert drift.slope[:, 0] == pytest.approx(widened * drift.slope[:, 1], abs=0.25)
    assert np.abs(drift.slope[:, 2]).max() < 0.3


def test_a_walk_without_drift_ends_in_an_even_law(generator):
    end, drift = found(walker(0.0), generator)
    assert end.asleep[:, 2] == pytest.approx(end.even, abs=0.06)
    assert end.asleep[:, 1:].min() > 0.08
    assert np.abs(drift.slope[:, 0]).max() < 0.3


def test_a_drift_too_strong_is_seen_in_slope_and_law(generator):
    end, drift = found(walker(3.0), generator)
    assert drift.slope[:, 0].min() > 2 and drift.slope[:, 1].max() < 1.5
    # The sampler of a multiplier three times as large.
    assert (end.asleep[:, 2] < end.asleep[:, 1]).all()


def test_what_reports_no_bump_is_told_by_its_cosine(generator):
    def cosine(ensemble):
        return conditions.wake(ensemble, conditions.ring(ensemble), 50, 100, generator).cosine

    assert np.abs(cosine(walker(1.0, flat=True))).max() < 0.5 and cosine(walker(1.0)).min() > 0.99


def test_a_law_that_is_even_awake_is_no_test(generator):
    ensemble = walker(1.0, concentration=0.0)
    space = conditions.ring(ensemble)
    waking = conditions.wake(ensemble, space, 1600, 20, generator)
    assert conditions.ends(ensemble, space, waking, 50, 200, MULTIPLIERS[:1], generator).even.max() < 0.02


def test_places_awake_are_read_in_the_box_and_a_law_turned_is_another(generator):
    ensemble = store.load("position-noisy-biased")[:1]
    space = conditions.plane(ensemble, 20, 50, generator)
    waking = conditions.wake(ensemble, space, 100, 40, generator)
    assert waking.path.shape == (1, 100, 2, 2) and waking.cosine.min() > 0.9
    end = conditions.ends(ensemble, space, waking, 20, 40, MULTIPLIERS[:1], generator)
    # The animal stays about the centre, and two steps from a corner are no sampling of that.
    assert end.floor.max() < 0.1 and end.turned.min() > 1 and end.asleep.min() > 1


def test_of_a_wide_normal_law_a_sampler_is_read_as_one(generator):
    rng, space = np.random.default_rng(0), conditions.ring(walker(1.0))
    space = space._replace(grid=diffusion.Grid(30, 1.2, 2), width=0.1, rarest=(0.6, 0.6))
    waking = conditions.Run(0.35 * rng.standard_normal((2, 1000, 4, 2)), np.ones((2, 4)), np.ones((2, 4)))
    law = conditions.law(space, waking.path[0])
    asked = 5e-4 * space.grid.gradient(np.log(np.maximum(law, 1e-6 / len(law))))
    walks = diffusion.Compared(*np.zeros((4, 2, 1)), np.stack((asked, asked)))
    assert conditions.normal(space, waking, walks, 400, 2000, rng) == pytest.approx(1, abs=0.15)


def test_each_law_is_nearer_to_its_own():
    laws = np.random.default_rng(0).dirichlet(np.ones(20), 4)
    assert conditions.own(laws, laws) == pytest.approx(0) and (conditions.nearer(0.9 * laws + 0.005, laws) > 1).all()
    assert conditions.nearer(np.roll(0.9 * laws + 0.005, 1, 0), laws).mean() < 0
