"""The chain of Section 2.2 on small networks, and on the ideal one, whose parts are known."""

import math

import numpy as np
import pytest
import torch

from reactivation_core import experiments, phases, statistics
from reactivation_core.protocols import upper_bound


@pytest.fixture
def at(tiny_ensemble):
    return upper_bound.situations(tiny_ensemble, 6, 10, [0, 4, 8], torch.Generator().manual_seed(0))


def test_situations_are_the_networks_own(tiny_ensemble, at):
    awake = phases.active(tiny_ensemble, 6, 10, torch.Generator().manual_seed(0), record=("states",))
    s, r = awake.s[:, :, 4], awake.states[:, :, 4]
    tuning = tiny_ensemble.task.cells.tuning
    torch.testing.assert_close(at.f[:, :, 1].float(), tuning(s), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(at.f_next[:, :, 1].float(), tuning(awake.s[:, :, 5]), rtol=1e-4, atol=1e-6)
    ds = awake.s[:, :, 5] - s
    after = tiny_ensemble.network.step(r, ds, 0.0).detach()
    torch.testing.assert_close((at.r + at.dr1 + at.dr2)[:, :, 1].float(), after)
    h = 1e-3
    slope = (tuning(s + h * ds) - tuning(s - h * ds)) / (2 * h)
    torch.testing.assert_close(at.change[:, :, 1].float(), slope, rtol=0, atol=1e-3)


def test_what_is_proved_of_the_chain_holds_in_every_situation(tiny_ensemble, at, generator):
    b = upper_bound.chain(tiny_ensemble, at, 4, generator)
    assert b.loss.shape == (3, 6, 3)
    slack = 1e-12
    assert ((b.loss - b.taylor).abs() <= b.remainder + slack).all()
    assert ((b.L2 - b.solved).abs() <= b.error + slack).all()
    for lower, upper in ((b.taylor, b.L2), (b.solved, b.L3), (b.L3, b.upper), (b.loss, b.whole)):
        assert (lower <= upper + slack).all()


@pytest.fixture
def ideal(generator):
    experiment = experiments.get("head-direction-unbiased")
    experiment = experiment.vary(task={"n_cells": 24, "motion": {"turning": 1.0}}, n_units=24, sigma=0.3)
    return phases.ideal(experiment, 400, generator)


def test_the_ideal_network_follows_an_input_at_once_and_remembers_it(ideal, generator):
    at = upper_bound.situations(ideal, 400, 3, [1], generator)
    assert upper_bound.response(ideal, at, 4)[0] == pytest.approx(1, abs=0.05)


def test_the_ideal_network_has_nothing_to_gain_from_another_split(ideal, generator):
    moved = upper_bound.best_split(ideal, upper_bound.situations(ideal, 400, 3, [1], generator))
    assert moved.fraction == pytest.approx(0, abs=0.05) and moved.signal_left == pytest.approx(1, abs=0.02)


def test_the_least_mean_square_over_fractions_is_found(tiny_ensemble, at):
    moved = upper_bound.best_split(tiny_ensemble, at)

    def signal(fraction):
        dr2 = at.dr2 + fraction[:, None, None, None] * at.dr1
        return (at.change - upper_bound.readout(tiny_ensemble, dr2)).square().mean((1, 2, 3))

    for change in (-0.01, 0.01):
        assert (signal(moved.fraction + change) > signal(moved.fraction)).all()


def test_a_leak_alone_passes_an_input_once_and_forgets_it(tiny_ensemble, at):
    """Without recurrence the difference an input makes falls by the leak."""
    with torch.no_grad():
        tiny_ensemble.network.W_rec.zero_()
    slopes = upper_bound.response(tiny_ensemble, at, 5)
    kept = 1 - tiny_ensemble.experiment.dt / tiny_ensemble.experiment.tau
    expected = slopes[:, :1] * kept ** torch.arange(5)
    torch.testing.assert_close(slopes, expected.double(), rtol=1e-3, atol=math.ulp(1.0))


def test_the_remainder_falls_as_the_square_of_the_step(tiny_experiment):
    """The same animal, slower and slower."""
    fractions, remainders = (1 / 2, 1 / 4, 1 / 8, 1 / 16), []
    for h in fractions:
        slower = tiny_experiment.vary(task={"motion": {"speed": h * tiny_experiment.task.motion.speed}})
        ensemble = phases.untrained(slower, 2, torch.Generator().manual_seed(0))
        at = upper_bound.situations(ensemble, 100, 2, [0], torch.Generator().manual_seed(1))
        remainders.append(float((at.f_next - at.f - at.change).norm(dim=-1).mean()))
    assert statistics.exponent(np.array(fractions), np.array(remainders)) == pytest.approx(2, abs=0.05)
