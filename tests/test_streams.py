import numpy as np
import pytest
import scipy.stats
import torch

from reactivation_core.streams import spawn, stream


def test_a_stream_depends_on_its_key_alone():
    first, again, other, longer = (torch.rand(5, generator=stream(*key)) for key in ((1, 2), (1, 2), (2, 1), (1, 2, 1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, longer)


def test_streams_of_one_generator_differ_by_their_numbers_and_advance_it_once():
    generator, twin = (torch.Generator().manual_seed(0) for _ in range(2))
    some, more = spawn(generator, [0, 1]), spawn(twin, range(5))
    assert [one.initial_seed() for one in some] == [one.initial_seed() for one in more[:2]]
    assert len({one.initial_seed() for one in more}) == 5
    assert torch.equal(generator.get_state(), twin.get_state())
    assert spawn(generator, [0])[0].initial_seed() != some[0].initial_seed()


def test_draws_of_different_streams_are_uniform_and_uncorrelated():
    draws = np.array([torch.rand(2000, generator=one).numpy() for one in spawn(torch.Generator(), range(20))])
    assert scipy.stats.kstest(draws[:, 0], "uniform").pvalue > 1e-3
    correlation = np.corrcoef(draws)[np.triu_indices(20, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError):
        stream(-1)
