"""Training on many processes gives the ensemble of a single one, whatever happens to a process."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from reactivation_core import cli, experiments, store, training
from reactivation_core.cluster import distributed as training_on

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")

N_BATCHES = 1200


@pytest.fixture
def train(request, monkeypatch, tiny_experiment, tmp_path):
    """Train two small networks by the command line, in this process, to a folder of its own; returns its files.
    Parametrise indirectly by the number of batches."""
    name = tiny_experiment.name
    experiment = tiny_experiment.vary(n_batches=getattr(request, "param", N_BATCHES))
    monkeypatch.setattr(experiments, "EXPERIMENTS", {name: experiment})
    # A commit between two trainings is no difference between them.
    monkeypatch.setattr(store, "commit", lambda: "unknown")
    threads = torch.get_num_threads()

    def train(folder, *options):
        arguments = ["train", name, "--networks", "2", "--threads", "1", "--out", str(tmp_path / folder), *options]
        monkeypatch.setattr(sys, "argv", ["reactivation", *arguments])
        cli.main()
        assert not list((tmp_path / folder / "checkpoints").iterdir())
        files = {path.name: path.read_bytes() for path in (tmp_path / folder).glob("*.*")}
        assert files.keys() == {f"{name}.safetensors"}
        return files | {store.SUMS: (tmp_path / folder / store.SUMS).read_bytes()}

    yield train
    torch.set_num_threads(threads)


def batches(checkpoint):
    """Batches that a checkpoint holds."""
    return int(store.unpack(checkpoint.read_bytes())[1]["batches"]) if checkpoint.exists() else 0


class Prepare(distributed.WorkerPlugin):
    """Have workers, also later ones, write a checkpoint after every block, and name no commit."""

    def setup(self, worker):
        training.CHECKPOINT_SECONDS = 0.0
        store.commit = lambda: "unknown"


def test_an_ensemble_is_the_same_though_a_worker_was_killed(train, tmp_path, tiny_experiment, monkeypatch):
    counted = []
    monkeypatch.setattr(cli.tqdm, "update", lambda self, n: counted.append(n))
    expected = train("serial")
    assert sum(counted) == 2 * N_BATCHES
    counted.clear()
    checkpoints = [tmp_path / "cluster" / "checkpoints" / f"{tiny_experiment.name}.{i}.safetensors" for i in range(2)]
    killed = []
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with cluster, distributed.Client(cluster) as client:
        client.register_plugin(Prepare())
        processes = client.run(os.getpid)

        def kill():
            while not all(200 <= batches(checkpoint) for checkpoint in checkpoints):
                time.sleep(0.01)
            done = [batches(checkpoint) for checkpoint in checkpoints]
            os.kill(next(iter(processes.values())), signal.SIGKILL)
            killed.append(done)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        found = train("cluster", "--scheduler", cluster.scheduler_address)
        survivors = set(client.run(os.getpid).values())
    (done,) = killed
    assert all(n < N_BATCHES for n in done)
    assert len(survivors & set(processes.values())) == 1
    assert found == expected
    # At most the block after the last checkpoint was done again, and counts once.
    assert sum(counted) == 2 * N_BATCHES and min(counted) >= -training.BLOCK


@pytest.mark.parametrize("train", [100], indirect=True)
def test_an_ensemble_grows_on_a_cluster(train):
    expected = train("serial")
    train("cluster", "--networks", "1")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with cluster, distributed.Client(cluster) as client:
        client.register_plugin(Prepare())
        assert train("cluster", "--scheduler", cluster.scheduler_address) == expected


def test_a_cluster_trains_one_ensemble_after_the_other(tiny_experiment, tmp_path):
    names = [f"tiny-{i}" for i in range(6)]
    (tmp_path / "checkpoints").mkdir()
    runs = [training.Run(tiny_experiment.vary(name=name, n_batches=40), tmp_path, 3) for name in names]
    seen = []
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50)
    with cluster:
        trained = training_on(runs, lambda name, *_: seen.append(name.split(".")[0]), cluster.scheduler_address, None)
        assert {path.stem for path, _ in trained} == set(names)
    assert list(dict.fromkeys(seen)) == names


TRAIN = """
import signal, sys
from reactivation_core import cli, experiments

if __name__ == "__main__":
    # Where the tests run in the background, their children are born deaf to interruptions.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    experiment = experiments.parse(sys.argv.pop(1))
    experiments.EXPERIMENTS = {experiment.name: experiment}
    cli.main()
"""


def levels():
    """Of the loggers that dask has made."""
    loggers = [logger for logger in logging.Logger.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    return {logger.name: logger.level for logger in loggers if logger.name.startswith("distributed")}


@pytest.mark.parametrize("train", [20], indirect=True)
def test_the_loggers_of_dask_are_silent_only_while_it_trains(train, monkeypatch):
    before, during = levels(), []
    work = cli.tqdm.update
    monkeypatch.setattr(cli.tqdm, "update", lambda self, n: during.append(levels()) or work(self, n))
    train("cluster", "--workers", "1")
    after = levels()
    assert before and {name: after[name] for name in before} == before
    assert during and all(min(of["distributed"], of["distributed.client"]) > logging.CRITICAL for of in during)


@pytest.fixture
def start(tmp_path):
    """Starts a scheduler with a worker, in processes of their own; returns the first and its address."""
    file, started = tmp_path / "scheduler.json", []

    def start(environment):
        for role, options in (("scheduler", ["--port", "0", "--host", "127.0.0.1"]), ("worker", ["--nthreads", "1"])):
            command = [sys.executable, "-m", f"distributed.cli.dask_{role}", "--scheduler-file", file, "--no-dashboard"]
            keep = {"stderr": subprocess.DEVNULL, "cwd": tmp_path, "env": os.environ | environment}
            started.append(subprocess.Popen([*command, *options], **keep))
            while not file.exists():
                assert started[0].poll() is None
                time.sleep(0.05)
        return started[0], json.loads(file.read_text())["address"]

    yield start
    for process in reversed(started):
        process.terminate()
        process.wait()


def test_a_scheduler_that_died_is_one_line_at_once(start, tiny_experiment, tmp_path):
    process, address = start({})
    script = tmp_path / "script.py"
    script.write_text(TRAIN)
    settings = tiny_experiment.vary(n_batches=10**6).model_dump_json()
    arguments = ["train", "--all", "--networks", "1", "--scheduler", address, "--out", tmp_path]
    training = subprocess.Popen([sys.executable, script, settings, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        while not list(tmp_path.glob("checkpoints/.*.lock")):
            assert training.poll() is None
            time.sleep(0.05)
        process.kill()
        _, error = training.communicate(timeout=20)
        assert training.returncode == 1
        expected = f"lost the scheduler {address}; the same command goes on from the last checkpoints"
        assert error == f"reactivation: {expected}\n"
    finally:
        training.kill()


def test_a_cluster_without_the_library_is_one_line(start, tiny_experiment, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['reactivation_core'] = None")
    _, address = start({"PYTHONPATH": str(tmp_path)})
    runs = [training.Run(tiny_experiment, tmp_path, 1)]
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=f"^expected this library, and what it needs, on the scheduler {address}"):
        list(training_on(runs, lambda *_: None, address, None))


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_interruption_stops_the_workers_of_this_machine(tiny_experiment, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TRAIN)
    settings = tiny_experiment.vary(n_batches=10**6).model_dump_json()
    process = subprocess.Popen(
        [sys.executable, script, settings, "train", "--all", "--networks", "2", "--workers", "2", "--out", tmp_path],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while len(list(tmp_path.glob("checkpoints/.*.lock"))) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        # As a terminal does: to every process.
        os.killpg(process.pid, signal.SIGINT)
        interrupted = time.monotonic()
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert error == "\nreactivation: stopped; the same command goes on from the last checkpoints\n"
        while alive(process.pid):
            assert time.monotonic() < interrupted + 60
            time.sleep(0.05)
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_without_dask_one_line_says_what_to_install(train, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        SystemExit, match=r'^reactivation: expected dask.distributed, got none: pip install "dask\[dist'
    ):
        train("nowhere", "--scheduler", "tcp://127.0.0.1:8786")
