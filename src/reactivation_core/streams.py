r"""Streams of random numbers.

A stream is a generator of its own for one purpose, seeded by whole numbers that say which. Each network of an ensemble
draws from a stream of its own, so that what it does depends neither on how many others run beside it nor on whether it
runs with them or by itself.

Source: NumPy's `SeedSequence`, after O'Neill (2015), https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html.
"""

from collections.abc import Sequence

import numpy as np
import torch


def stream(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on a sequence of whole numbers >= 0, and on nothing else."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state))


def spawn(generator: torch.Generator, numbers: Sequence[int]) -> list[torch.Generator]:
    """A stream for each number, all from one draw of a generator, and on its device."""
    seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    return [stream(seed, number, device=generator.device) for number in numbers]
