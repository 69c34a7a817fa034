"""Floors and better readouts, where they are known."""

import numpy as np
import pytest
import torch

from reactivation_core import experiments, noise, phases
from reactivation_core.protocols import optimum


def test_the_ideal_network_spreads_noise_as_its_geometry_says(generator):
    """With an orthonormal readout G is f'ᵀf', and the first trace the number of coordinates."""
    base = experiments.get("position-noisy-unbiased")
    small = base.vary(task={"n_cells": 48, "width": 0.3}, n_units=48, sigma=0.1)
    ensemble = phases.ideal(small, 81, generator)
    run = phases.active(ensemble, 200, 30, generator, record=("states",))
    s, r = run.s[0].flatten(0, 1)[::10], run.states[0].flatten(0, 1)
    output, state = optimum.accumulated(ensemble, r, s)
    assert output == pytest.approx(2, rel=0.1)
    network = ensemble.network
    metric = torch.einsum("ajn,bjn->jab", network.tangents, network.tangents)
    nearest = torch.cdist(s.double(), network.s.double()).argmin(-1)
    exact = torch.linalg.inv(metric).diagonal(dim1=-1, dim2=-2).sum(-1)[nearest].mean()
    assert state == pytest.approx(float(exact), rel=0.2)


@pytest.mark.parametrize("law, factor", [(noise.gaussian, 1), (noise.uniform, 1 / 12)])
def test_the_floor_is_the_last_steps_noise(law, factor, generator):
    """Of the released code's uniform noise, whose mean belongs to the update, a twelfth."""
    D = torch.randn(1, 5, 9, generator=generator)
    eta = 0.3 * law(torch.empty(50_000, 9), 0.02, generator)
    spread = ((eta - eta.mean(0)) @ D[0].mT).square().sum(-1).mean()
    assert spread == pytest.approx(factor * optimum.readout_floor(D, 0.3**2 * 0.02).item(), rel=0.03)


def test_a_better_readout_is_found_where_there_is_one():
    rng = np.random.default_rng(0)
    r, lost = rng.normal(size=(400, 5, 6)), rng.normal(size=(400, 5, 3))
    assert optimum.refitted(r, lost) == pytest.approx(1, abs=0.02)
    seen = r @ rng.normal(size=(6, 3))
    share = np.square(lost).mean() / np.square(lost + seen).mean()
    assert optimum.refitted(r, lost + seen) == pytest.approx(share, rel=0.05)


def test_the_refit_is_a_ridge_regression():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(1)
    r, missed = rng.normal(size=(10, 2, 8)), rng.normal(size=(10, 2, 3))
    x, y, x_test, y_test = (of.reshape(-1, of.shape[-1]) for of in (r[:5], missed[:5], r[5:], missed[5:]))
    models = (Ridge(penalty, fit_intercept=False).fit(x, y) for penalty in optimum.PENALTIES)
    best = min(np.square(y_test - model.predict(x_test)).mean() for model in models)
    assert optimum.refitted(r, missed) == pytest.approx(best / np.square(y_test).mean())
