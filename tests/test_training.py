import math
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import safetensors.torch
import scipy.stats
import torch

from reactivation_core import networks, noise, store, training
from reactivation_core.phases import Ensemble, active
from reactivation_core.streams import stream
from reactivation_core.tasks import Task
from reactivation_core.trajectories import Recording

KINDS = ["position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"]

every_kind = pytest.mark.parametrize("tiny_experiment", KINDS, indirect=True)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def same(a, b):
    parameters = zip(a.network.parameters(), b.network.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in parameters) and torch.equal(a.history, b.history)


@every_kind
def test_the_loss_falls(tiny_experiment, checkpoint):
    experiment = tiny_experiment.vary(n_batches=210, learning_rate=1e-2)
    initial = Ensemble(experiment, *experiment.draw(1, stream(0, 0, training._INITIAL, 0)))
    before = training.test(initial)[0]
    done = []
    trained = training.train(
        experiment, range(1), checkpoint, progress=lambda batches, loss: done.append((batches, loss))
    )
    # Tests at 100, at 200 and at the end.
    assert trained.history.shape == (1, 3, 2) and trained.squared_error.shape == (1, 3)
    assert trained.history[0, 0, 0] < before / 2 and trained.history[0, -1, 0] < trained.history[0, 0, 0]
    # As what is loaded, for NumPy takes nothing that has a gradient.
    assert not any(parameter.requires_grad for parameter in trained.network.parameters())
    assert sum(batches for batches, _ in done) == 210 and done[0][0] == 0 and math.isnan(done[0][1])
    assert all(math.isfinite(loss) for _, loss in done[1:])


@every_kind
def test_test_measures_loss_and_decoding_error(tiny_ensemble):
    loss, error, squared_error = training.test(tiny_ensemble, seed=5, first=7)
    for i in range(3):
        one, generator = tiny_ensemble[i], [stream(5, 7 + i, training._TEST, 0)]
        phase = active(one, 10, 12, generator, record=("outputs", "decoded"))
        off = (phase.outputs - one.task.cells.tuning(phase.s)).double().numpy()
        assert loss[i] == pytest.approx((off**2).sum() / (10 * 12 * 24))
        away = (phase.decoded - phase.s).double().numpy()
        if one.task.n_inputs == 1:
            away = (away + math.pi) % (2 * math.pi) - math.pi
        assert error[i] == pytest.approx(((away**2).sum(-1) ** 0.5).mean(), rel=1e-5)
        assert squared_error[i] == pytest.approx((away**2).mean(), rel=1e-5)


def test_a_network_does_not_depend_on_the_others(tiny_experiment, tmp_path):
    def train(network, run, seed=0):
        networks = range(network, network + 1)
        return training.train(tiny_experiment, networks, tmp_path / f"{run}-{network}-{seed}.safetensors", seed)

    beside = [train(network, "beside") for network in range(3)]
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert same(train(1, "alone"), beside[1])
    assert torch.equal(state, torch.get_rng_state())
    assert not same(beside[0], beside[1]) and not same(train(1, "another seed", seed=1), beside[1])

    ensemble = training.join(beside)
    assert len(ensemble) == 3 and ensemble.experiment == tiny_experiment
    for i in range(3):
        assert same(ensemble[i], beside[i])
        assert torch.equal(ensemble[i].task.cells.centres, beside[i].task.cells.centres)
    # The last test of each network is that of the whole ensemble.
    torch.testing.assert_close(torch.stack(training.test(ensemble)[:2], -1), ensemble.history[:, -1])


@every_kind
def test_a_group_trains_as_its_networks_do_alone(tiny_experiment, tmp_path):
    group = training.train(tiny_experiment, range(1, 4), tmp_path / "group")
    alone = training.join([training.train(tiny_experiment, range(i, i + 1), tmp_path / str(i)) for i in range(1, 4)])
    assert group.task.n_networks == len(group) == 3
    assert all(torch.equal(a, b) for a, b in zip(group.task.buffers(), alone.task.buffers(), strict=True))
    for name, value in alone.network.named_parameters():
        # A weight moves by about 40 times the learning rate.
        torch.testing.assert_close(getattr(group.network, name), value, rtol=0, atol=1e-5)
    torch.testing.assert_close((group.history, group.squared_error), (alone.history, alone.squared_error))


@pytest.mark.parametrize(
    "device, groups", [("cpu", [range(1, 2), range(2, 3), range(3, 4)]), ("cuda", [range(1, 4)])], ids=str
)
def test_networks_that_are_not_stored_train_alone_on_the_cpu_and_else_together(tiny_ensemble, tmp_path, device, groups):
    store.save(tiny_ensemble[0], tmp_path, seed="0", precision="float32")
    run = training.Run(tiny_ensemble.experiment, tmp_path, 4, device=device)
    assert run.groups() == groups and not replace(run, n_networks=1).groups()
    assert replace(run, together=True).groups() == [range(1, 4)]


def test_every_network_and_block_has_draws_of_its_own(tiny_experiment, tmp_path, monkeypatch):
    batches, sample = [], Task.sample

    def recorded(*args):
        batch = sample(*args)
        if batch.s.shape[1] > tiny_experiment.batch_size:  # not the test batch
            batches.append(batch.s)
        return batch

    monkeypatch.setattr(Task, "sample", recorded)
    # Too small a rate to move a weight leaves the initial ones.
    experiment = tiny_experiment.vary(learning_rate=1e-30)
    first, second = (training.train(experiment, range(i, i + 1), tmp_path / str(i)) for i in range(2))
    assert not torch.equal(first.network.W_rec, second.network.W_rec)
    assert len(batches) == 4 and len(torch.stack(batches).unique(dim=0)) == 4


@pytest.mark.parametrize("tiny_experiment", KINDS[-1:], indirect=True)
def test_head_direction_networks_are_joined_with_the_cells_they_share(tiny_experiment, tmp_path):
    groups = range(1), range(1, 3)
    ensemble = training.join([training.train(tiny_experiment, group, tmp_path / str(group)) for group in groups])
    assert ensemble.task.cells.angles.shape == (24,) and ensemble.task.n_networks == len(ensemble) == 3


@pytest.mark.parametrize("law", noise.LAWS)
def test_training_draws_the_experiments_noise(tiny_experiment, checkpoint, monkeypatch, law):
    drawn = {name: [] for name in noise.LAWS}

    def spy(name, draw):
        def drawing(eta, dt, generator):
            drawn[name].append(draw(eta, dt, generator).clone())
            return eta

        return drawing

    monkeypatch.setattr(noise, "LAWS", {name: spy(name, draw) for name, draw in noise.LAWS.items()})
    # The test batch has noise as well.
    monkeypatch.setattr(training, "test", lambda *args: torch.zeros(3, 1).unbind())
    training.train(tiny_experiment.vary(noise=law, n_batches=1), range(1), checkpoint)
    other = next(name for name in drawn if name != law)
    assert not drawn[other]
    expected = {"gaussian": scipy.stats.norm(0, 1), "uniform": scipy.stats.uniform(0, 1)}[law]
    assert scipy.stats.kstest(drawn[law][0].flatten() / math.sqrt(0.02), expected.cdf).pvalue > 1e-3
    drawn[law].clear()
    training.train(tiny_experiment.vary(sigma=0.0, n_batches=1), range(1), checkpoint.with_name("noiseless"))
    assert not any(drawn.values())


def test_noise_is_part_of_what_is_learnt(tiny_experiment, tmp_path):
    trained = [
        training.train(tiny_experiment.vary(sigma=sigma, n_batches=1), range(1), tmp_path / str(sigma))
        for sigma in (0.0, 0.5)
    ]
    assert not torch.equal(*(ensemble.network.W_rec for ensemble in trained))


@every_kind
def test_bfloat16_learns_what_float32_learns(tiny_experiment, tmp_path):
    experiment = tiny_experiment.vary(n_batches=100, learning_rate=1e-2)
    exact, rounded = (training.train(experiment, range(1), tmp_path / p, precision=p) for p in training.PRECISIONS)
    assert rounded.network.D.dtype == torch.float32 and not same(exact, rounded)
    assert rounded.history[0, -1, 0] == pytest.approx(exact.history[0, -1, 0].item(), rel=0.05)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from reactivation_core import experiments, training

torch.set_num_threads(1)
training.TEST_EVERY, training.CHECKPOINT_SECONDS = 20, 0.0
_, settings, checkpoint, moment, size = sys.argv
calls = 0

def fifth(*args):
    global calls
    calls += 1
    if calls == 5:
        os.kill(os.getpid(), signal.SIGKILL)

progress = lambda batches, loss: None
if moment == "writing":
    os.fsync = fifth
else:
    progress = fifth
training.train(experiments.parse(settings), range(1, 1 + int(size)), Path(checkpoint), progress=progress)
"""


@pytest.mark.parametrize("moment, done, size", [("training", 60, 2), ("writing", 80, 1)])
def test_a_killed_run_goes_on_to_the_same_bytes(tiny_experiment, tmp_path, monkeypatch, one_thread, moment, done, size):
    monkeypatch.setattr(training, "TEST_EVERY", 20)
    experiment = tiny_experiment.vary(n_batches=110)
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    arguments = [sys.executable, "-c", KILLED, experiment.model_dump_json(), str(killed), moment, str(size)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr

    progress, networks = [], range(1, 1 + size)
    resumed = training.train(experiment, networks, killed, progress=lambda batches, loss: progress.append(batches))
    assert progress[0] == done and sum(progress) == 110
    assert not list(tmp_path.glob(".*"))
    uninterrupted = training.train(experiment, networks, whole)
    assert killed.read_bytes() == whole.read_bytes()
    files = []
    for name, ensemble in (("resumed", resumed), ("uninterrupted", uninterrupted)):
        (tmp_path / name).mkdir()
        files.append(store.save(ensemble, tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert resumed.history.shape == (size, 6, 2)


def test_a_run_stopped_before_its_first_test_goes_on_to_the_same_bytes(
    tiny_experiment, tmp_path, monkeypatch, one_thread
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole, stopped = tmp_path / "whole.safetensors", tmp_path / "stopped.safetensors"
    done, progress = [], []

    def stop(batches, loss):
        done.append(batches)
        if sum(done) == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(tiny_experiment, range(2), stopped, progress=stop)
    # safetensors before 0.4.4 wrote a tensor without elements, and did not read it.
    assert store.unpack(stopped.read_bytes())[0]["tests"].shape == (0, 6)
    training.train(tiny_experiment, range(2), stopped, progress=lambda batches, loss: progress.append(batches))
    training.train(tiny_experiment, range(2), whole)
    assert progress == [20, 20] and stopped.read_bytes() == whole.read_bytes()


def test_a_finished_run_is_read_from_its_checkpoint(tiny_experiment, checkpoint):
    first = training.train(tiny_experiment, range(1), checkpoint)
    progress = []
    again = training.train(
        tiny_experiment, range(1), checkpoint, progress=lambda batches, loss: progress.append(batches)
    )
    assert progress == [40] and same(first, again)


@pytest.fixture
def finished(tiny_experiment, checkpoint):
    training.train(tiny_experiment, range(1), checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    "changes, arguments, named",
    [
        ({"sigma": 0.1}, {}, "experiment"),
        ({"n_batches": 60}, {}, "experiment"),
        ({}, {"networks": range(1, 2)}, "network"),
        ({}, {"networks": range(2)}, "network"),
        ({}, {"seed": 1}, "seed"),
        ({}, {"precision": "bfloat16"}, "precision"),
    ],
    ids=str,
)
def test_the_checkpoint_of_another_run_is_refused_and_kept(tiny_experiment, finished, changes, arguments, named):
    content = finished.read_bytes()
    with pytest.raises(ValueError, match=f"of another run: expected {{'{named}'.*remove it to start again"):
        training.train(tiny_experiment.vary(**changes), **({"networks": range(1)} | arguments), checkpoint=finished)
    assert finished.read_bytes() == content


@pytest.mark.parametrize("size", [0, 7, 500, -1])
def test_a_truncated_checkpoint_is_refused_and_kept(tiny_experiment, finished, size):
    content = finished.read_bytes()[:size]
    finished.write_bytes(content)
    with pytest.raises(ValueError, match="not a whole safetensors file.*; remove it to start again") as error:
        training.train(tiny_experiment, range(1), finished)
    assert "\n" not in str(error.value) and finished.read_bytes() == content


def test_a_foreign_checkpoint_is_refused_and_kept(tiny_experiment, checkpoint):
    content = safetensors.torch.save({"weight": torch.zeros(3)})
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match="of another run"):
        training.train(tiny_experiment, range(1), checkpoint)
    assert checkpoint.read_bytes() == content


def rewritten(path, tensors=None, metadata=None):
    """The checkpoint with some tensors or metadata changed, or left out where they are None."""
    old_tensors, old_metadata = store.unpack(path.read_bytes())
    kept = (old_tensors | (tensors or {}), old_metadata | (metadata or {}))
    path.write_bytes(store.pack(*({k: v for k, v in content.items() if v is not None} for content in kept)))


def test_the_checkpoint_of_another_version_is_refused_and_kept(tiny_experiment, finished):
    rewritten(finished, metadata={"version": "0.0.9"})
    content = finished.read_bytes()
    with pytest.raises(ValueError, match=r"another run: expected {'version': '[\d.]+'}, got {'version': '0.0.9'}"):
        training.train(tiny_experiment, range(1), finished)
    assert finished.read_bytes() == content


@pytest.mark.parametrize(
    "tensors, metadata, named",
    [
        ({"parameter.W_rec": None}, {}, "expected other tensors parameter.W_rec"),
        ({"parameter.W_rec": torch.zeros(1, 1, 1)}, {}, "expected other tensors parameter.W_rec"),
        ({"adam.D.exp_avg": torch.zeros(1, 24, 1)}, {}, "expected other tensors adam.D.exp_avg"),
        ({"adam.D.step": torch.zeros(1)}, {}, "expected other tensors adam.D.step"),
        ({"adam.D.stop": torch.zeros(1)}, {}, "expected other tensors adam.D.stop"),
        ({"tests": None}, {}, "expected other tensors tests"),
        ({"parameter.D": torch.zeros(1, 24, 16, dtype=torch.int32)}, {}, "parameter.D as F16 or F32, got I32"),
        ({}, {"batches": "-20"}, "expected other tensors tests after -20 batches"),
        ({}, {"batches": "many"}, "'many'"),
        ({}, {"batches": None}, "''"),
    ],
    ids=str,
)
def test_a_malformed_checkpoint_is_refused_and_kept(tiny_experiment, finished, tensors, metadata, named):
    rewritten(finished, tensors, metadata)
    content = finished.read_bytes()
    with pytest.raises(ValueError, match=f"{named}.*; remove it to start again") as error:
        training.train(tiny_experiment, range(1), finished)
    assert "\n" not in str(error.value) and finished.read_bytes() == content


def test_two_trainings_to_one_checkpoint_do_not_meet(tiny_experiment, finished, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.1)
    content = finished.read_bytes()

    def second(batches, loss):
        with pytest.raises(BlockingIOError, match=f"{finished} is being written by another process"):
            training.train(tiny_experiment, range(1), finished)

    training.train(tiny_experiment, range(1), finished, progress=second)
    assert finished.read_bytes() == content and list(finished.parent.iterdir()) == [finished]


@every_kind
def test_training_without_a_backward_pass_by_hand_comes_to_the_same(tiny_experiment, tmp_path, monkeypatch):
    by_hand = training.train(tiny_experiment, range(1), tmp_path / "by hand")
    monkeypatch.setattr(training, "RECURRENCES", {})
    readable = training.train(tiny_experiment, range(1), tmp_path / "readable")
    torch.testing.assert_close(readable.history, by_hand.history, rtol=1e-3, atol=0)
    noiseless = training.train(tiny_experiment.vary(sigma=0.0), range(1), tmp_path / "noiseless", precision="bfloat16")
    assert noiseless.history.isfinite().all() and not same(noiseless, readable)


def test_an_ensemble_that_is_there_is_not_written_again(tiny_experiment, tmp_path, monkeypatch):
    run = training.Run(tiny_experiment, tmp_path, n_networks=1)
    (tmp_path / "checkpoints").mkdir()
    path, losses = run.store()
    monkeypatch.setattr(store, "save", None)
    assert run.store() == (path, losses)


def test_training_on_a_recorded_path_is_tested_on_the_time_that_is_held_out(tiny_experiment, tmp_path):
    # Back and forth on the left for training, on the right for tests.
    times = 0.02 * np.arange(2000)
    positions = np.stack((np.sin(times) ** 2 * np.where(times < 32, -1, 1), 0 * times), -1)
    np.savez(tmp_path / "mine.npz", t=times, pos=positions)
    motion = Recording(record=str(tmp_path / "mine.npz"), share=0.8)
    experiment = tiny_experiment.vary(task={"motion": motion}, n_batches=210, learning_rate=1e-2)
    path, losses = training.Run(experiment, tmp_path, n_networks=1).store()
    ensemble = store.load(path)
    assert ensemble.experiment == experiment and ensemble.task.motion == motion
    assert losses[0] < ensemble.history[0, 0, 0]
    drawn, held_out = (
        task.sample(50, 12, torch.Generator()).s[..., 0] for task in (ensemble.task, ensemble.task.held_out())
    )
    assert drawn.max() <= 0 <= held_out.min() and drawn.min() < -0.9 and held_out.max() > 0.9
    one = replace(ensemble, task=ensemble.task.held_out())
    phase = active(one, 10, 12, [stream(0, 0, training._TEST, 0)])
    assert training.test(ensemble)[1].item() == pytest.approx((phase.decoded - phase.s).norm(dim=-1).mean().item())


def test_the_network_of_the_contributors_guide_trains_and_is_stored(tiny_experiment, tmp_path):
    guide = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", guide.split("## Adding a network")[1].split("\n## ")[0], re.DOTALL)
    known = dict(networks.NETWORKS)
    try:
        exec(code, {})
        (name,) = networks.NETWORKS.keys() - known.keys()
        experiment = tiny_experiment.vary(network=name, n_batches=210, learning_rate=1e-2)
        before = training.test(Ensemble(experiment, *experiment.draw(1, stream(0, 0, training._INITIAL, 0))))[0]
        run = training.Run(experiment, tmp_path, n_networks=2)
        (tmp_path / "checkpoints").mkdir()
        path, losses = run.store()
        assert max(losses) < before / 2
        assert type(store.load(path).network) is networks.NETWORKS[name]
    finally:
        networks.NETWORKS.clear()
        networks.NETWORKS.update(known)
    with pytest.raises(ValueError, match="network: Input should be 'rnn' or 'gru', got"):
        tiny_experiment.vary(network=name)


def test_a_replayed_update_is_done_once_a_call(monkeypatch):
    done, computed = torch.zeros(()), []

    def update():
        computed.append(done)
        return done.add_(1)

    @contextmanager
    def capture(graph, stream):
        # What is captured is not done, until it is replayed.
        before = done.clone()
        yield
        done.copy_(before)
        graph.replay = lambda: done.add_(1)

    for name in ("Stream", "stream", "current_stream", "CUDAGraph"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "graph", capture)
    results = training._replayed(update)
    assert [int(next(results)) for _ in range(10)] == list(range(1, 11))
    assert len(computed) == training._EAGER + 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a CUDA device")
@every_kind
def test_training_by_a_cuda_graph_is_training(tiny_experiment, tmp_path, monkeypatch):
    def train(name):
        return training.train(tiny_experiment, range(2), tmp_path / name, device="cuda")

    replayed = train("replayed")
    assert same(train("replayed"), replayed)
    monkeypatch.setattr(training, "_EAGER", tiny_experiment.n_batches)
    torch.testing.assert_close(train("computed").history, replayed.history)


def test_a_loss_that_is_not_finite_stops_training(tiny_experiment, checkpoint):
    with pytest.raises(FloatingPointError, match="the training loss of network 3 is (nan|inf) after 20 batches"):
        training.train(tiny_experiment.vary(learning_rate=1e30), range(3, 5), checkpoint)
    assert not checkpoint.exists()


def test_an_unknown_precision_is_refused(tiny_experiment, checkpoint):
    with pytest.raises(ValueError, match="expected a precision among float32, bfloat16, got 'float8'"):
        training.train(tiny_experiment, range(1), checkpoint, precision="float8")
