"""With its denoiser an ideal network stays by the ring; without it, it leaves."""

import pytest

from reactivation_core import experiments, phases
from reactivation_core.protocols.tracking import distances


def test_distances_with_and_without_the_denoiser(generator):
    experiment = experiments.get("head-direction-unbiased")
    task = {"n_cells": 32, "motion": {"turning": 2.0}}
    ensemble = phases.ideal(experiment.vary(task=task, n_units=32, sigma=0.3), 256, generator)
    v, n_steps = ensemble.network.density.v, 30
    found = distances(ensemble, 300, n_steps, generator)
    assert found.with_denoiser.shape == found.without.shape == found.shortfall.shape == (300, n_steps)
    kept, lost, short = (x[:, -1].mean().item() for x in found)
    assert kept == pytest.approx(v * (31 + n_steps), rel=0.1)
    assert lost == pytest.approx(v * 32 * n_steps + short, rel=0.1)
