"""Networks fed other inputs, and smaller steps."""

import torch

from reactivation_core import phases
from reactivation_core.protocols import integration


def seeded():
    return torch.Generator().manual_seed(1)


def test_its_own_input_is_a_waking_run(tiny_ensemble):
    experiment = tiny_ensemble.experiment.vary(sigma=0.0)
    ensemble = phases.Ensemble(experiment, tiny_ensemble.task, tiny_ensemble.network)
    batch = ensemble.task.sample(5, 8, seeded())
    start = ensemble.network.encode(ensemble.task.cells.tuning(batch.s[:, :, 0])).detach()
    decoded = integration.track(ensemble, start, batch.ds, seeded())
    torch.testing.assert_close(decoded, phases.active(ensemble, 5, 8, seeded()).decoded)


def test_a_leak_alone_has_its_limit_as_the_step_shrinks(tiny_ensemble):
    """Without weights activity decays by the leak, in many small steps by the exponential."""
    ensemble = tiny_ensemble
    with torch.no_grad():
        ensemble.network.W_rec.zero_()
        ensemble.network.W_in.zero_()
        # A cell that reads one unit, and stays ahead while that unit is above a threshold set by another.
        ensemble.network.D.zero_()
        ensemble.network.D[:, :3, 0] = 1.0
    quiet = phases.Ensemble(ensemble.experiment.vary(sigma=0.0), ensemble.task, ensemble.network)
    start = torch.ones(3, 2, 16)
    decoded = integration.track(quiet, start, torch.zeros(3, 2, 6, 2), seeded(), 4)
    expected = ensemble.task.cells.centres[:, None, None, :3].mean(-2).expand(3, 2, 6, 2)
    torch.testing.assert_close(decoded, expected)
    assert quiet.network.dt == ensemble.experiment.dt


def test_noise_of_smaller_steps_adds_up_to_that_of_one(tiny_ensemble):
    """Activity that only diffuses spreads as much in four quarters of a step as in one."""
    ensemble = tiny_ensemble[0]
    experiment = ensemble.experiment.vary(sigma=1.0, tau=1e6)
    recorded = []

    class Watched(type(ensemble.network)):
        def readout(self, r):
            recorded.append(r[:, :, 0])
            return super().readout(r)

    parameters = {name: torch.zeros_like(value) for name, value in ensemble.network.named_parameters()}
    watched = phases.Ensemble(experiment, ensemble.task, Watched(parameters, 1e6, experiment.dt))
    for parts in (1, 4):
        integration.track(watched, torch.zeros(1, 4000, 16), torch.zeros(1, 4000, 1, 2), seeded(), parts)
    for r in recorded:
        torch.testing.assert_close(r.var(), torch.tensor(experiment.dt), rtol=0.02, atol=0)
