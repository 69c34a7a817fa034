"""Activity made by a pseudoinverse, and activity beside it."""

import numpy as np
import pytest
import torch

from reactivation_core.protocols.pseudoinverse import pseudoinverse


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_activity_that_is_the_pseudoinverse_is_explained_by_it():
    D, f = normal(2, 8, 12), normal(2, 40, 5, 8, seed=1)
    r = f @ torch.linalg.pinv(D).mT[:, None]
    found = pseudoinverse(D, f, r)
    assert found.explained[:, -1] == pytest.approx(1) and found.output == pytest.approx(1)
    assert found.linear == pytest.approx(1, abs=1e-4) and found.norm == pytest.approx(found.activity_norm)
    assert (found.best == 8).all() and found.within_best == pytest.approx(1)


def test_what_the_readout_does_not_see_is_left_unexplained():
    """Half of the variance lies where D does not look, independent of f."""
    D = torch.eye(12, dtype=torch.float64)[None, :6]
    r = normal(1, 4000, 5, 12)
    found = pseudoinverse(D, r @ D[0].mT, r)
    assert found.explained[0] == pytest.approx(np.arange(7) / 12, abs=0.01)
    assert found.within[0] == pytest.approx(np.arange(1, 7) / 12, abs=0.01)
    assert found.linear == pytest.approx(0.5, abs=0.01) and found.output == pytest.approx(1)


def test_a_small_singular_value_spoils_the_pseudoinverse_but_not_the_truncated_one():
    D = torch.diag(torch.tensor([1.0, 0.5, 1e-6], dtype=torch.float64))[None]
    r = normal(1, 500, 4, 3) * torch.tensor([1.0, 1.0, 0.0])
    f = r @ D.mT + 1e-2 * normal(1, 500, 4, 3, seed=1)
    found = pseudoinverse(D, f, r)
    assert found.best == 2 and found.explained[0, 2] > 0.99
    assert found.explained[0, 3] == pytest.approx(-((1e-2 / 1e-6) ** 2) / 2, rel=0.1)
    assert found.singular[0] == pytest.approx([1, 0.5, 1e-6])
