import copy
import math
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import scipy.stats
import torch

from reactivation_core import dynamics, phases
from reactivation_core.networks import Runnable
from reactivation_core.phases import active, quiescent, starts, untrained
from reactivation_core.theory import OptimalNetwork

KINDS = ["position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

every_kind = pytest.mark.parametrize("tiny_experiment", KINDS, indirect=True)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def without_weights(experiment, n_networks=1, **changes):
    """An ensemble whose activity only leaks and diffuses."""
    ensemble = untrained(experiment.vary(**changes), n_networks, seeded())
    zeros = {name: torch.zeros_like(value) for name, value in ensemble.network.named_parameters()}
    return replace(ensemble, network=type(ensemble.network)(zeros, ensemble.network.tau, ensemble.network.dt))


@every_kind
@pytest.mark.parametrize("n_steps", [1, 10, 23])
def test_shapes(tiny_ensemble, n_steps):
    d, (N, N_o) = tiny_ensemble.task.n_inputs, (16, 24)
    awake = active(tiny_ensemble, 4, n_steps, seeded(), record=phases.RECORDS)
    asleep = quiescent(tiny_ensemble, n_steps, 1.0, starts(tiny_ensemble, 4, seeded()), seeded(), phases.RECORDS)
    for phase in (awake, asleep):
        assert phase.states.shape == (3, 4, n_steps, N) and phase.outputs.shape == (3, 4, n_steps, N_o)
        assert phase.decoded.shape == (3, 4, n_steps, d)
        torch.testing.assert_close(phase.outputs, tiny_ensemble.network.readout(phase.states).detach())
        torch.testing.assert_close(phase.decoded, tiny_ensemble.task.cells.decode(phase.outputs))
    assert awake.s.shape == (3, 4, n_steps, d) and not hasattr(asleep, "s")


@pytest.mark.parametrize("record", [(), ("states",), ("outputs",), ("decoded",), ("states", "decoded")])
def test_only_what_is_asked_for_is_recorded(tiny_ensemble, record):
    start = starts(tiny_ensemble, 4, seeded())
    for phase in (
        active(tiny_ensemble, 4, 12, seeded(), record=record),
        quiescent(tiny_ensemble, 12, 1.0, start, seeded(), record=record),
    ):
        assert {name for name in phases.RECORDS if hasattr(phase, name)} == set(record)


@every_kind
def test_without_noise_the_networks_step_by_their_equation(tiny_ensemble):
    network, cells = tiny_ensemble.network, tiny_ensemble.task.cells
    awake = active(tiny_ensemble, 4, 23, seeded(), noise_scale=0.0, record=["states"])
    batch = tiny_ensemble.task.sample(4, 23, seeded())
    start = network.encode(cells.tuning(batch.s[:, :, 0])).detach()
    silence = torch.zeros(3, 4, 23, 16)
    torch.testing.assert_close(awake.states, network(start, batch.ds, silence).detach())
    assert torch.equal(awake.s, batch.s[:, :, 1:])
    asleep = [quiescent(tiny_ensemble, 23, 0.0, start, seeded(seed), ["states"]).states for seed in range(2)]
    torch.testing.assert_close(asleep[0], network(start, torch.zeros_like(batch.ds), silence).detach())
    assert torch.equal(*asleep) and not torch.allclose(asleep[0], awake.states)


@every_kind
def test_noise_comes_from_the_generator_alone(tiny_ensemble):
    state, start = torch.get_rng_state(), starts(tiny_ensemble, 4, seeded())

    def states(seed):
        return (
            active(tiny_ensemble, 4, 12, seeded(seed), record=["states"]).states,
            quiescent(tiny_ensemble, 12, 1.0, start, seeded(seed), ["states"]).states,
        )

    for first, again, other in zip(states(0), states(0), states(1), strict=True):
        assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "law, scipys",
    [("gaussian", scipy.stats.norm(0, 1)), ("uniform", scipy.stats.uniform(0, 1))],
    ids=["gaussian", "uniform"],
)
@pytest.mark.parametrize("scale", [1.0, math.sqrt(2)])
def test_a_step_adds_noise_of_the_experiments_law_and_scale(tiny_experiment, law, scipys, scale):
    ensemble = without_weights(tiny_experiment, noise=law)
    per_step = scale * ensemble.experiment.sigma * math.sqrt(0.02)
    asleep = quiescent(ensemble, 1, scale, torch.zeros(1, 2000, 16), seeded(), ["states"])
    awake = active(ensemble, 2000, 1, seeded(), noise_scale=scale, record=["states"])
    for phase in (asleep, awake):
        assert scipy.stats.kstest(phase.states.flatten() / per_step, scipys.cdf).pvalue > 1e-3


def test_the_papers_noise_is_gaussian_with_one_hundredth_per_step(tiny_experiment):
    asleep = quiescent(without_weights(tiny_experiment), 1, 1.0, torch.zeros(1, 2000, 16), seeded(), ["states"])
    assert scipy.stats.kstest(asleep.states.flatten(), scipy.stats.norm(0, 0.01).cdf).pvalue > 1e-3


@pytest.mark.parametrize("scale", [0.5, 1.0, math.sqrt(2)])
def test_variance_asleep_grows_with_the_square_of_the_noise_scale(tiny_experiment, scale):
    ensemble = without_weights(tiny_experiment)
    asleep = quiescent(ensemble, 40, scale, torch.zeros(1, 1000, 16), seeded(), ["states"])
    leak = 1 - 0.02 / ensemble.experiment.tau
    for t in (1, 2, 10, 11, 40):
        expected = (scale * ensemble.experiment.sigma) ** 2 * 0.02 * (1 - leak ** (2 * t)) / (1 - leak**2)
        values = asleep.states[:, :, t - 1]
        assert abs(values.var() / expected - 1) < 4 * math.sqrt(2 / values.numel())


@every_kind
def test_quiescent_runs_start_from_the_encoded_start_of_a_waking_batch(tiny_ensemble):
    s = tiny_ensemble.task.sample(4, 1, seeded()).s[:, :, 0]
    expected = tiny_ensemble.network.encode(tiny_ensemble.task.cells.tuning(s))
    assert torch.equal(starts(tiny_ensemble, 4, seeded()), expected)


@every_kind
@pytest.mark.parametrize("index", [0, 2, -1, np.int64(0), slice(1, 3)], ids=repr)
def test_a_member_runs_as_it_does_in_the_ensemble(tiny_ensemble, index):
    part = tiny_ensemble[index]
    members = list(range(3)[index]) if isinstance(index, slice) else [range(3)[index]]
    assert len(part) == part.network.n_networks == part.task.n_networks == len(members)
    start = starts(tiny_ensemble, 4, seeded())
    together = quiescent(tiny_ensemble, 23, 0.0, start, seeded(), ["outputs"])
    alone = quiescent(part, 23, 0.0, start[members], seeded(), ["outputs", "decoded"])
    torch.testing.assert_close(alone.outputs, together.outputs[members])
    torch.testing.assert_close(alone.decoded, tiny_ensemble.task.cells.decode(together.outputs)[members])
    assert torch.equal(part.history, tiny_ensemble.history[members])
    assert torch.equal(part.squared_error, tiny_ensemble.squared_error[members])


@every_kind
@pytest.mark.parametrize("members", [[0], [1, 2]], ids=str)
def test_a_networks_draws_do_not_depend_on_those_beside_it(tiny_ensemble, members):
    """So that an ensemble can grow, and one of its networks be looked at by itself."""
    part = tiny_ensemble[members[0] : members[-1] + 1]
    for run in (
        lambda of: active(of, 4, 5, seeded(1), record=phases.RECORDS),
        lambda of: phases.sleep(of, 4, 5, seeded(1), record=phases.RECORDS),
    ):
        together, alone = run(tiny_ensemble), run(part)
        assert torch.equal(alone.noise, together.noise[members])
        torch.testing.assert_close(alone.states, together.states[members])
    assert torch.equal(starts(part, 4, seeded(1)), starts(tiny_ensemble, 4, seeded(1))[members])
    assert not torch.equal(together.noise[0], together.noise[1])
    small = phases.untrained(tiny_ensemble.experiment, 2, seeded(2))
    large = phases.untrained(tiny_ensemble.experiment, 3, seeded(2))
    assert torch.equal(small.network.D, large.network.D[:2]) and not torch.equal(small.network.D[0], small.network.D[1])


def test_the_noise_recorded_is_the_noise_added(tiny_experiment):
    ensemble = without_weights(tiny_experiment, n_networks=2)
    phase = quiescent(ensemble, 25, 2.0, torch.zeros(2, 3, 16), seeded(), ["states", "noise"])
    before = torch.cat((torch.zeros(2, 3, 1, 16), phase.states[:, :, :-1]), 2)
    leak = 1 - 0.02 / ensemble.experiment.tau
    torch.testing.assert_close(phase.states, leak * before + phase.noise)


@pytest.mark.parametrize("every", [1, 4, 10, 15])
def test_recording_every_so_many_steps_leaves_the_run_as_it_is(tiny_ensemble, every):
    """In both phases, also across the blocks in which they go through time."""
    start = starts(tiny_ensemble, 4, seeded())
    for run in (
        lambda **options: quiescent(tiny_ensemble, 60, 1.0, start, seeded(), phases.RECORDS, **options),
        lambda **options: active(tiny_ensemble, 4, 60, seeded(), record=phases.RECORDS, **options),
    ):
        full, thin = run(), run(every=every)
        for name in ("s", *phases.RECORDS):
            if hasattr(full, name):
                torch.testing.assert_close(getattr(thin, name), getattr(full, name)[:, :, every - 1 :: every])
    with pytest.raises(ValueError, match="expected every >= 1 that divides 60 steps, got 7"):
        quiescent(tiny_ensemble, 60, 1.0, start, seeded(), every=7)


def test_an_ensemble_is_a_sequence_of_its_networks(tiny_ensemble):
    assert [len(one) for one in tiny_ensemble] == [1, 1, 1]
    with pytest.raises(IndexError):
        tiny_ensemble[3]


def test_a_phase_changes_nothing_of_the_ensemble(tiny_ensemble):
    before = {name: value.clone() for name, value in tiny_ensemble.network.named_parameters()}
    start = starts(tiny_ensemble, 4, seeded())
    kept = start.clone()
    quiescent(tiny_ensemble, 12, 2.0, start, seeded())
    active(tiny_ensemble, 4, 12, seeded(), noise_scale=2.0)
    assert all(torch.equal(value, before[name]) for name, value in tiny_ensemble.network.named_parameters())
    assert torch.equal(start, kept) and tiny_ensemble.experiment.sigma == pytest.approx(0.01 / math.sqrt(0.02))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_noise_scale_below_zero_or_not_finite_is_refused(tiny_ensemble, scale):
    message = f"expected a finite noise scale >= 0, got {scale}"
    with pytest.raises(ValueError, match=message):
        quiescent(tiny_ensemble, 5, scale, starts(tiny_ensemble, 2, seeded()), seeded())
    with pytest.raises(ValueError, match=message):
        active(tiny_ensemble, 2, 5, seeded(), noise_scale=scale)


@pytest.mark.parametrize("shape", [(3, 2, 15), (2, 2, 16)], ids=["units", "networks"])
def test_a_start_that_does_not_fit_is_refused(tiny_ensemble, shape):
    with pytest.raises(ValueError, match=r"expected a start of shape \(3, B, 16\), got \("):
        quiescent(tiny_ensemble, 5, 1.0, torch.zeros(shape), seeded())


@pytest.mark.parametrize("n_steps", [0, -1])
def test_no_steps_are_refused(tiny_ensemble, n_steps):
    for run in (
        lambda: quiescent(tiny_ensemble, n_steps, 1.0, torch.zeros(3, 2, 16), seeded()),
        lambda: active(tiny_ensemble, 2, n_steps, seeded()),
    ):
        with pytest.raises(ValueError, match=f"expected n_steps >= 1, got {n_steps}"):
            run()


def test_an_unknown_record_is_refused(tiny_ensemble):
    with pytest.raises(ValueError, match="expected records among states, outputs, decoded, noise, got .*dreams"):
        quiescent(tiny_ensemble, 5, 1.0, torch.zeros(3, 2, 16), seeded(), ["decoded", "dreams"])
    with pytest.raises(ValueError, match=r"expected a tuple of records, such as \('states',\), got 'states'"):
        quiescent(tiny_ensemble, 5, 1.0, torch.zeros(3, 2, 16), seeded(), "states")


@pytest.mark.skipif(not CLEAR.exists(), reason="the peak of a process's memory is reset through /proc")
def test_memory_is_bounded_by_what_is_returned(tiny_experiment):
    def resident(entry):
        return int(next(line for line in STATUS.read_text().splitlines() if line.startswith(entry)).split()[1]) / 1024

    ensemble = untrained(tiny_experiment.vary(n_units=128), 2, seeded())
    start = starts(ensemble, 200, seeded())
    quiescent(ensemble, 20, 1.0, start, seeded())
    CLEAR.write_text("5")
    before = resident("VmRSS")
    quiescent(ensemble, 1000, 1.0, start, seeded())
    # All the states are 195 MiB, as is their noise; the decoded positions are 3 MiB.
    assert resident("VmHWM") - before < 60


def test_units_that_only_decay_end_at_zero_and_not_as_subnormal_numbers(tiny_ensemble, generator):
    network = copy.deepcopy(tiny_ensemble.network)
    network.W_rec.data.zero_()
    one = replace(tiny_ensemble, network=network)
    start = torch.full_like(phases.starts(one, 3, generator), 1e-28)
    states = phases.quiescent(one, 500, 0.0, start, generator, ("states",)).states
    assert states[:, :, :10].all() and not states[:, :, -1].any()
    assert states[states > 0].min() > torch.finfo(torch.float32).tiny
    path = dynamics.flow(one[0], start[0], 500)
    assert path[:10].all() and not path[-1].any() and path[path > 0].min() > torch.finfo(torch.float32).tiny


@every_kind
def test_an_ensemble_on_another_device_leaves_the_first_where_it_is(tiny_ensemble):
    moved = tiny_ensemble.to("meta")
    for ensemble, device in ((moved, "meta"), (tiny_ensemble, "cpu")):
        for module in (ensemble.network, ensemble.task):
            assert {x.device.type for x in (*module.parameters(), *module.buffers())} == {device}
    assert active(tiny_ensemble, 4, 12, seeded()).decoded.isfinite().all()


class Still(Runnable):
    """The least that can be run: activity stays, and the noise is added to it."""

    n_networks, n_units, n_cells = 3, 24, 24

    def encode(self, f):
        return f

    def readout(self, r):
        return r

    def step(self, r, ds, noise):
        return r + noise

    def __getitem__(self, index):
        return self


def test_whatever_offers_what_runnable_says_can_be_run(tiny_ensemble):
    still = replace(tiny_ensemble, network=Still())
    asleep = phases.sleep(still, 4, 23, seeded(), record=("states", "decoded"))
    start = phases.starts(still, 4, seeded())
    assert asleep.decoded.shape == (3, 4, 23, 2)
    drift = (asleep.states[:, :, -1] - start).var().item()
    assert drift == pytest.approx(23 * 2 * tiny_ensemble.experiment.sigma**2 * 0.02, rel=0.2)

    with pytest.raises(jaxtyping.TypeCheckError):
        replace(tiny_ensemble, network=torch.nn.Identity())


@pytest.fixture
def ideal(tiny_experiment):
    """An ideal network as ensembles have it, by the name of its task."""
    return phases.ideal(tiny_experiment.vary(n_units=24), 40, seeded())


@pytest.mark.parametrize("tiny_experiment", [KINDS[0], KINDS[2]], indirect=True)
def test_the_ideal_network_is_an_ensemble_of_one(ideal):
    assert len(ideal) == len(ideal[0]) == len(ideal[:1]) == len(list(ideal)) == 1
    runs = [active(one, 4, 12, seeded(), record=phases.RECORDS) for one in (ideal, ideal[0], next(iter(ideal)))]
    for run in runs[1:]:
        torch.testing.assert_close(run.states, runs[0].states, rtol=0, atol=0)
    with pytest.raises(ValueError, match="expected the one network there is"):
        ideal[1:]
    with pytest.raises(IndexError):
        ideal[1]


@pytest.mark.parametrize("tiny_experiment", [KINDS[0], KINDS[2]], indirect=True)
def test_the_ideal_network_represents_its_states(ideal):
    network = ideal.network
    torch.testing.assert_close(network.D @ network.D.mT, torch.eye(24, dtype=torch.float64)[None])
    f = ideal.task.cells.tuning(network.s[None])[0].double()
    torch.testing.assert_close(network.readout(network.density.points), f)
    assert network.density.v == pytest.approx(ideal.experiment.sigma**2 * ideal.experiment.dt)


@pytest.mark.parametrize("tiny_experiment", [KINDS[0], KINDS[2]], indirect=True)
def test_the_ideal_network_moves_whole(ideal):
    moved = ideal.to("meta")
    tensors = [*moved.network.buffers(), *moved.task.buffers()]
    assert len(tensors) >= 6 and all(x.device.type == "meta" for x in tensors)
    assert moved.network.density.points is dict(moved.network.named_buffers())["density.points"]


@pytest.mark.parametrize("tiny_experiment", [KINDS[0], KINDS[2]], indirect=True)
def test_the_optimal_network_steps_where_it_was_moved(tiny_experiment):
    ideal = phases.ideal(tiny_experiment.vary(n_units=24), 9, seeded(), kind=OptimalNetwork)
    moved = ideal.to("meta")
    r, ds = torch.zeros(1, 4, 24, dtype=torch.float64), torch.zeros(1, 4, ideal.task.n_inputs)
    assert moved.network.step(r.to("meta"), ds.to("meta"), 0.0).device.type == "meta"
    assert ideal.network.step(r, ds, 0.0).isfinite().all()


def test_the_ideal_network_refuses_a_readout_of_another_shape(tiny_experiment):
    with pytest.raises(ValueError, match=r"expected a readout of shape \(24, 16\), got \(24, 24\)"):
        phases.ideal(tiny_experiment, 4, seeded())


def test_a_driven_run_is_waking_from_the_same_start_on_the_same_input(tiny_ensemble):
    batch = tiny_ensemble.task.sample(4, 12, seeded())
    start = tiny_ensemble.network.encode(tiny_ensemble.task.cells.tuning(batch.s[:, :, 0]))
    found = phases.driven(tiny_ensemble, batch.ds, 0.0, start, seeded(), ("states",)).states
    awake = active(tiny_ensemble, 4, 12, seeded(), 0.0, ("states",)).states
    assert torch.equal(found, awake)
    with pytest.raises(ValueError, match="input of shape"):
        phases.driven(tiny_ensemble, batch.ds[:, :2], 0.0, start, seeded())
