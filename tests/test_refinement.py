"""Strong order where it is known."""

import numpy as np
import pytest
import torch

from reactivation_core.protocols import refinement

LEVELS = np.array([1, 2, 4])


def test_a_leak_alone_is_of_order_1(tiny_ensemble, generator):
    """Without weights a unit only leaks, and the error is that of the Ornstein–Uhlenbeck process: of order 1."""
    for name, value in tiny_ensemble.network.named_parameters():
        if name.startswith("W"):
            torch.nn.init.zeros_(value)
    errors = refinement.strong_errors(tiny_ensemble, LEVELS, 64, 4, 0.4, generator)
    assert refinement.order(LEVELS, errors, 64) == pytest.approx(np.ones(len(tiny_ensemble)), abs=0.15)


def test_the_reference_does_not_differ_from_itself(tiny_ensemble, generator):
    assert (refinement.strong_errors(tiny_ensemble, np.array([16]), 16, 3, 0.1, generator) == 0).all()


def test_a_known_order_is_found():
    levels = np.array([1, 2, 4, 8])
    errors = np.stack([(1 / levels - 1 / 64) ** p for p in (0.5, 1.0)])
    assert refinement.order(levels, errors, 64) == pytest.approx([0.5, 1.0])


def test_the_ensemble_is_left_as_it_was(tiny_ensemble, generator):
    refinement.strong_errors(tiny_ensemble, np.array([1]), 2, 2, 0.04, generator)
    assert tiny_ensemble.network.D.dtype == torch.float32
