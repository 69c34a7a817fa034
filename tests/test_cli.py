"""The command line as a newcomer meets it: what it does, and one line for everything that goes wrong."""

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reactivation_core import cli, experiments, store, training
from reactivation_core.edition import chapters, claims, execution


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process: exit status, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["reactivation", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as exit:
            # With a text, Python prints it on standard error and exits with 1.
            code = exit.code if isinstance(exit.code, int) else 1
            if isinstance(exit.code, str):
                print(exit.code, file=sys.stderr)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(monkeypatch, tiny_experiment):
    """One small experiment instead of the paper's."""
    monkeypatch.setattr(experiments, "EXPERIMENTS", {tiny_experiment.name: tiny_experiment})
    return tiny_experiment.name


def one_line(error, *parts):
    assert error.startswith("reactivation: ")
    assert error.count("\n") == 1
    for part in parts:
        assert part in error


def test_list_names_every_experiment(run):
    code, out, _ = run("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(experiments.EXPERIMENTS)


def test_train_stores_an_ensemble_and_cleans_up(run, tiny, tmp_path):
    code, out, _ = run("train", tiny, "--networks", 2, "--batches", 20, "--out", tmp_path)
    assert code == 0 and f"{tiny}.safetensors: test losses" in out
    ensemble = store.load(tiny, tmp_path)
    assert len(ensemble) == 2 and ensemble.experiment.n_batches == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.SUMS, "checkpoints", f"{tiny}.safetensors"]
    assert not list((tmp_path / "checkpoints").iterdir())
    before = (tmp_path / f"{tiny}.safetensors").read_bytes()
    # By name it would be refused as of other settings.
    code, out, _ = run("train", "--all", "--networks", 3, "--out", tmp_path)
    assert code == 0 and "is there already" in out
    assert (tmp_path / f"{tiny}.safetensors").read_bytes() == before


def test_the_file_of_another_experiment_is_not_taken_for_one_that_is_trained(run, tiny, tiny_ensemble, tmp_path):
    another = tiny_ensemble.experiment.vary(name="another")
    store.save(replace(tiny_ensemble, experiment=another), tmp_path).rename(tmp_path / f"{tiny}.safetensors")
    code, _, error = run("train", "--all", "--networks", 3, "--out", tmp_path)
    assert code == 1
    one_line(error, f"{tiny}.safetensors: expected the experiment {tiny}, got another")


def test_the_seed_and_the_network_decide(run, tiny, tmp_path):
    for folder, options in (("a", ()), ("b", ()), ("c", ("--seed", 1))):
        assert run("train", tiny, "--networks", 2, "--batches", 20, "--out", tmp_path / folder, *options)[0] == 0
    a, b, c = (store.load(tiny, tmp_path / folder).network.W_rec for folder in "abc")
    assert (a == b).all() and not (a == c).all() and not (a[0] == a[1]).all()


@pytest.fixture
def grow(run, tiny, tmp_path, monkeypatch):
    """Train a small ensemble of so many networks, to one folder; returns what the command line does, and the files."""
    # A commit between two trainings is no difference between them.
    monkeypatch.setattr(store, "commit", lambda: "unknown")

    def grow(networks, *options, folder="out"):
        result = run("train", tiny, "--networks", networks, "--batches", 20, "--out", tmp_path / folder, *options)
        return *result, {path.name: path.read_bytes() for path in (tmp_path / folder).glob("[!.]*.*")}

    return grow


def test_an_ensemble_that_grew_is_the_one_trained_at_once(grow, tiny, tmp_path):
    assert grow(1)[0] == 0
    code, out, _, grown = grow(2)
    assert code == 0 and f"{tiny}.safetensors: test losses" in out
    assert grown == grow(2, folder="at once")[-1] and len(store.load(tiny, tmp_path / "out")) == 2
    assert not list((tmp_path / "out" / "checkpoints").iterdir())
    for networks in (1, 2):
        code, out, _, files = grow(networks, "--seed", 1)
        assert code == 0 and "is there already" in out and files == grown


def test_an_ensemble_that_grows_is_read_only_as_often_as_it_must(grow, tiny, monkeypatch):
    grow(1)
    read, work = [], store.read
    monkeypatch.setattr(store, "read", lambda path: read.append(path.name) or work(path))
    assert grow(2)[0] == 0
    # To see whether it is there, and to add to it.
    assert read.count(f"{tiny}.safetensors") == 2


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--seed", 1), "expected {'seed': '1'}, got {'seed': '0'}"),
        (("--precision", "bfloat16"), "expected {'precision': 'bfloat16'}, got {'precision': 'float32'}"),
        (("--batches", 40), "expected {'n_batches': 40}, got {'n_batches': 20}"),
    ],
)
def test_an_ensemble_does_not_grow_by_networks_of_another_run(grow, tiny, tmp_path, options, parts):
    *_, before = grow(1)
    code, _, error, after = grow(2, *options)
    assert code == 1 and after == before
    one_line(error, f"{tiny}.safetensors: of another run", parts, "choose another folder")
    assert "remove" not in error
    assert not list((tmp_path / "out" / "checkpoints").iterdir())


def test_an_ensemble_grows_by_the_seed_and_the_precision_that_it_has(grow, tiny, tmp_path):
    chosen = ("--seed", 3, "--precision", "bfloat16")
    assert grow(1, *chosen)[0] == 0
    code, *_, grown = grow(2)
    assert code == 0 and grown == grow(2, *chosen, folder="at once")[-1]


def test_a_training_that_no_terminal_shows_says_how_far_it_is(grow, tiny, monkeypatch):
    assert f"; {tiny}.0: loss" not in grow(1, folder="soon")[1]
    monkeypatch.setattr(cli, "LINE_SECONDS", 0.0)
    assert f"20 of 20 batches; {tiny}.0: loss" in grow(1)[1]


def test_an_ensemble_whose_growth_was_interrupted_is_as_it_was_and_grows_on(grow, tiny, tmp_path, monkeypatch):
    *_, before = grow(1)
    test = training.test

    def interrupted(ensemble, seed, network):
        if network == 2:
            raise KeyboardInterrupt
        return test(ensemble, seed, network)

    monkeypatch.setattr(training, "test", interrupted)
    code, _, _, after = grow(3)
    assert code == 130 and after == before
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == [f"{tiny}.1.safetensors"]
    monkeypatch.setattr(training, "test", test)
    assert grow(3)[-1] == grow(3, folder="at once")[-1]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("train", "position-noisy-unbiasd"), ("'position-noisy-unbiasd'", "did you mean position-noisy-unbiased")),
        (("train", "rat"), ("'rat'", "expected one of position-noisy-unbiased")),
        (("train",), ("--all", "neither")),
        (("train", "position-noisy-unbiased", "--all"), ("both",)),
        (("train", "position-noisy-unbiased", "--networks", "0"), ("--networks >= 1, got 0",)),
        (("train", "position-noisy-unbiased", "--batches", "-3"), ("n_batches", "got -3")),
        (("train", "position-noisy-unbiased", "--threads", "0"), ("--threads >= 1, got 0",)),
        (("train", "position-noisy-unbiased", "--workers", "0"), ("--workers >= 1, got 0",)),
        (("train", "position-noisy-unbiased", "--seed", "-1"), ("--seed >= 0, got -1",)),
        (("train", "--all", "--workers", "2", "--scheduler", "tcp://x:1"), ("--workers or --scheduler, got both",)),
        (("train", "--all", "--scheduler", "nowhere"), ("'nowhere'",)),
        (("run-chapters", "figure_9"), ("unknown chapter 'figure_9'", "did you mean figure_")),
        (("verify", "/nonexistent"), ("/nonexistent",)),
        (("measure", "position-noisy-unbiasd"), ("'position-noisy-unbiasd'", "did you mean position-noisy-unbiased")),
        (("measure", "position-noisy-unbiased", "memry"), ("'memry'", "did you mean memory")),
        (("show", "position-noisy-unbiasd", "--out", "x.png"), ("did you mean position-noisy-unbiased",)),
    ],
)
def test_bad_input_is_one_line_and_a_status(run, tmp_path, arguments, parts):
    out = ("--out", tmp_path) if arguments[0] == "train" else ()
    code, _, error = run(*arguments, *out)
    assert code == 1
    one_line(error, *parts)
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.fixture
def mine(run, tiny, tmp_path):
    """A variation of a small ensemble, trained by the command line to a folder of its own; returns its file."""
    varied = ("--set", "sigma=0.1", "--set", "task.motion.speed=0.2", "--name", "mine")
    code, _, error = run("train", tiny, *varied, "--networks", 2, "--batches", 20, "--out", tmp_path)
    assert code == 0, error
    return tmp_path / "mine.safetensors"


def test_a_variation_is_trained_under_a_name_of_its_own(mine, tiny_experiment):
    experiment = store.load(mine).experiment
    changed = {"sigma": 0.1, "task": {"motion": {"speed": 0.2}}, "name": "mine", "n_batches": 20}
    assert experiment == tiny_experiment.vary(**changed)
    assert store.find("mine", mine.parent) == "mine" and store.find(str(mine)) == mine


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--set", "sgma=1", "--name", "mine"), ("unknown setting 'sgma'", "did you mean sigma")),
        (("--set", "task.motion.sped=1", "--name", "mine"), ("did you mean task.motion.speed",)),
        (("--set", "sigma", "--name", "mine"), ("expected SETTING=VALUE, got 'sigma'",)),
        (("--set", "sigma=much", "--name", "mine"), ("sigma", "got 'much'")),
        (("--set", "sigma=0.1"), ("--set and --name",)),
        (("--name", "mine"), ("--set and --name",)),
        (("--set", "sigma=0.1", "--name", "../mine"), ("got '../mine'",)),
        (("--set", "sigma=0.1", "--name", "position-noisy-unbiased"), ("got 'position-noisy-unbiased'",)),
    ],
)
def test_a_variation_that_is_wrong_is_answered_with_what_is_near(run, tiny, tmp_path, options, parts):
    code, _, error = run("train", tiny, *options, "--out", tmp_path)
    assert code == 1
    one_line(error, *parts)


def test_any_ensemble_is_measured_beside_its_nulls(run, mine):
    code, out, _ = run("measure", mine)
    assert code == 0
    names = [line.split(":")[0] for line in out.splitlines()]
    assert names == ["decoding error", "divergence from waking", "memory of the start", "pace awake", "pace asleep"]
    code, out, _ = run("measure", mine, "memory", "--json")
    (entry,) = json.loads(out)
    assert code == 0 and entry["measure"] == "memory of the start"
    assert len(entry["values"]) == len(entry["null"]) == 2


@pytest.mark.parametrize("tiny_experiment", ["position-noisy-unbiased", "head-direction-biased"], indirect=True)
def test_any_ensemble_is_drawn(run, tiny_ensemble, tmp_path):
    path = store.save(tiny_ensemble, tmp_path)
    assert run("show", path, "--out", tmp_path / "mine.png")[0] == 0
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    code, _, error = run("show", path, "--out", tmp_path / "mine.xyz")
    assert code == 1 and not (tmp_path / "mine.xyz").exists()
    one_line(error, "xyz")


def test_words_that_cannot_be_parsed(run):
    code, _, error = run("train", "position-noisy-unbiased", "--networks", "five")
    assert code == 2 and "--networks" in error and "five" in error


def test_no_cuda_is_said(run, monkeypatch, tmp_path):
    monkeypatch.setattr(cli.torch.cuda, "is_available", lambda: False)
    code, _, error = run("train", "position-noisy-unbiased", "--device", "cuda", "--out", tmp_path)
    assert code == 1
    one_line(error, "CUDA")


def test_a_full_disk_is_said_and_the_checkpoints_stay(run, tiny, tmp_path, monkeypatch):
    staged = store._staged

    def full(path, content):
        if path.parent == tmp_path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return staged(path, content)

    monkeypatch.setattr(store, "_staged", full)
    code, _, error = run("train", tiny, "--networks", 1, "--batches", 20, "--out", tmp_path)
    assert code == 1
    one_line(error, "No space left on device")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{tiny}.0.safetensors"]
    monkeypatch.setattr(store, "_staged", staged)
    assert run("train", tiny, "--networks", 1, "--batches", 20, "--out", tmp_path)[0] == 0


@pytest.fixture
def unprivileged():
    """A folder of a user whom permissions bind, as they do not bind root."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            path = Path(folder) / "out"
            path.mkdir()
            yield path
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("part", [".", "checkpoints"])
def test_a_read_only_folder_is_said_and_left_as_it_was(run, tiny, unprivileged, part):
    arguments = ("train", tiny, "--networks", 1, "--out", unprivileged)
    assert run(*arguments, "--batches", 20)[0] == 0
    before = {path: path.read_bytes() for path in unprivileged.glob("*.*")}
    (unprivileged / f"{tiny}.safetensors").rename(unprivileged / "another.safetensors")
    os.chmod(unprivileged / part, 0o555)
    try:
        code, _, error = run(*arguments, "--batches", 40)
        assert code == 1
        one_line(error, "Permission denied", str(unprivileged))
    finally:
        os.chmod(unprivileged / part, 0o755)
    (unprivileged / "another.safetensors").rename(unprivileged / f"{tiny}.safetensors")
    assert {path: path.read_bytes() for path in unprivileged.glob("*.*")} == before


def test_the_checkpoint_of_other_settings_is_said(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("no space")))
    assert run("train", tiny, "--networks", 1, "--batches", 20, "--out", tmp_path)[0] == 1
    code, _, error = run("train", tiny, "--networks", 1, "--batches", 40, "--out", tmp_path)
    assert code == 1
    one_line(error, "checkpoint", "of another run", "remove it to start again")


TRAIN = """
import signal, sys
from reactivation_core import cli, experiments, training

# Where the tests run in the background, their children are born deaf to interruptions.
signal.signal(signal.SIGINT, signal.default_int_handler)
experiment = experiments.parse(sys.argv.pop(1))
experiments.EXPERIMENTS = {experiment.name: experiment}
training.CHECKPOINT_SECONDS = 0.0
cli.main()
"""


@pytest.fixture
def start(tiny_experiment, tmp_path):
    """Train a small experiment by the command line in a process of its own; the last argument names the folder."""
    started = []

    def start(n_batches, folder, *options):
        settings = tiny_experiment.vary(n_batches=n_batches).model_dump_json()
        arguments = ["train", "--all", "--networks", "1", "--threads", "1", "--out", str(folder), *options]
        started.append(
            subprocess.Popen([sys.executable, "-c", TRAIN, settings, *arguments], stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.slow
def test_an_interruption_leaves_a_checkpoint_and_says_how_to_go_on(start, run, tiny, tmp_path):
    n_batches = 600
    checkpoint = tmp_path / "checkpoints" / f"{tiny}.0.safetensors"
    process = start(n_batches, tmp_path)
    wait_for(checkpoint, process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "\nreactivation: stopped; the same command goes on from the last checkpoints\n"
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    assert 0 < int(store.unpack(checkpoint.read_bytes())[1]["batches"]) < n_batches

    found = []
    for folder in (tmp_path, tmp_path / "whole"):
        arguments = ("--networks", 1, "--threads", 1, "--batches", n_batches, "--out", folder)
        assert run("train", tiny, *arguments)[0] == 0
        found.append(store.load(tiny, folder))
    resumed, whole = found
    assert all(torch.equal(a, b) for a, b in zip(resumed.network.parameters(), whole.network.parameters(), strict=True))
    assert torch.equal(resumed.history, whole.history)


@pytest.mark.slow
def test_a_second_training_of_the_same_ensemble_is_refused(start, run, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.1)
    first = start(600, tmp_path)
    wait_for(tmp_path / "checkpoints" / f"{tiny}.0.safetensors", first)
    for seed in (0, 1):
        code, _, error = run("train", tiny, "--batches", 600, "--networks", 1, "--seed", seed, "--out", tmp_path)
        assert code == 1
        one_line(error, f"{tiny}.0.safetensors is being written by another process; wait for it, or stop it")
    assert first.wait() == 0
    assert store.verify(tmp_path) == {f"{tiny}.safetensors": None}


def test_verify_names_the_file_that_was_altered(run, tiny, tmp_path):
    run("train", tiny, "--networks", 1, "--batches", 20, "--out", tmp_path)
    code, out, _ = run("verify", tmp_path)
    assert code == 0 and f"{tiny}.safetensors: whole" in out
    path = tmp_path / f"{tiny}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, out, error = run("verify", tmp_path)
    assert code == 1 and "not the file in SHA256SUMS" in out
    one_line(error, "1 of 1 ensembles")


def test_the_scorecard_is_printed_and_as_a_list(run):
    expected = claims.scorecard()
    code, out, _ = run("scorecard")
    assert code == 0
    assert out.splitlines()[-2:] == [claims.limits(expected), claims.summary(expected)]
    assert all(f"{entry['id']}: {entry['statement']}" in out for entry in expected)
    first = expected[0]
    assert f"{first['verdict']}, {first['value']:.3g} (" in out and f"null: {first['null']['what']}" in out
    code, out, _ = run("scorecard", "--json")
    assert code == 0 and json.loads(out) == expected
    fields = {"id", "source", "statement", "value", "interval", "verdict", "null", "values"}
    assert fields <= json.loads(out)[0].keys()


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("--paper",), lambda entry: entry["section"] == "paper"),
        (("--beyond",), lambda entry: entry["section"] == "beyond"),
        (("--paper", "--beyond"), lambda entry: True),
        (("--part", "theory"), lambda entry: entry["chapter"].startswith("theory/")),
        (("--part", "results/figure_2"), lambda entry: entry["chapter"] == "results/figure_2"),
        (
            ("--beyond", "--verdict", "does not hold"),
            lambda entry: entry["section"] == "beyond" and entry["verdict"] == "does not hold",
        ),
    ],
)
def test_the_scorecard_is_of_what_is_asked_for(run, arguments, kept):
    code, out, _ = run("scorecard", *arguments, "--json")
    found = json.loads(out)
    assert code == 0 and found and found == [entry for entry in claims.scorecard() if kept(entry)]


def test_a_part_that_is_not_there_is_named(run):
    code, _, error = run("scorecard", "--part", "result")
    assert code == 1
    one_line(error, "got result")


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Makes a book of one chapter with one cell after its parameters; returns its notebook."""

    def make(source):
        folder = tmp_path / "book"
        (folder / "results").mkdir(parents=True)
        (folder / "_toc.yml").write_text("parts: [{chapters: [{file: results/one}]}]")
        notebook = execution.nbformat.v4.new_notebook()
        parameters = execution.nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]})
        notebook.cells = [parameters, execution.nbformat.v4.new_code_cell(source)]
        execution.nbformat.write(notebook, folder / "results" / "one.ipynb")
        monkeypatch.setattr(execution, "BOOK", folder)
        monkeypatch.setattr(execution, "STATUS", tmp_path / "status.csv")
        monkeypatch.setattr(claims, "RESULTS", tmp_path / "data")
        return folder / "results" / "one.ipynb"

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message"),
    [("raise ValueError('no such rat')", "ValueError: no such rat"), ("import os; os._exit(1)", "its kernel died")],
)
def test_a_chapter_that_fails_is_left_as_it_was(run, book, source, message):
    path = book(source)
    before = path.read_bytes()
    code, _, error = run("run-chapters")
    assert code == 1
    one_line(error, "one.ipynb", message)
    assert path.read_bytes() == before and not execution.STATUS.exists()


MEASURED = """
from pathlib import Path
from reactivation_core.edition import chapters
chapters.BOOK = Path.cwd().parent
chapter = chapters.Chapter("results/one", globals())
chapter.measure("size", [0.4, 0.5, 0.6])
import os
os.chdir("/")
chapter.publish(size=[0.4, 0.5, 0.6])
chapter.finish()
"""


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def recorded(book, tmp_path):
    """A chapter with a record of an earlier run; the folder that has its files, and what they hold."""
    path = book(MEASURED + "raise ValueError('at the end')")
    (tmp_path / "data").mkdir()
    for place in (path.with_suffix(".npz"), tmp_path / "data" / "one.json"):
        place.write_text("earlier")
    return tmp_path, files(tmp_path)


def test_a_chapter_that_fails_at_its_end_leaves_all_its_files(run, recorded):
    folder, before = recorded
    code, _, error = run("run-chapters")
    assert code == 1
    one_line(error, "one.ipynb", "ValueError: at the end")
    assert files(folder) == before
    # Its kernel knows nothing of the folders of this test.
    assert not (store.ENSEMBLES.parent / "results" / "one.json").exists()


def test_a_chapter_that_cannot_be_written_leaves_all_its_files(run, recorded, monkeypatch):
    folder, _ = recorded
    path = folder / "book" / "results" / "one.ipynb"
    path.write_text(path.read_text().replace("raise ValueError('at the end')", ""))
    before = files(folder)
    calls, work = [], os.fsync

    def full(*args):
        calls.append(args)
        # Of the notebook, the arrays and the measurements the last.
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        work(*args)

    monkeypatch.setattr(os, "fsync", full)
    code, _, error = run("run-chapters")
    assert code == 1
    one_line(error, "No space left on device")
    assert files(folder) == before


@pytest.mark.slow
def test_a_chapter_is_run_in_place_and_its_time_noted(run, book, tmp_path, monkeypatch):
    monkeypatch.setenv(chapters.RECORD, "elsewhere")
    path = book(MEASURED)
    assert run("run-chapters", "one")[0] == 0
    assert run("run-chapters", "one")[0] == 0
    notebook = execution.nbformat.read(path, as_version=4)
    _, cell = notebook.cells
    assert cell.outputs[-1].text == "1 measurements agree with one.json.\n"
    assert not cell.metadata and "papermill" not in notebook.metadata
    assert claims.results("results/one").measurements["size"].mean == 0.5
    np.testing.assert_allclose(np.load(path.with_suffix(".npz"))["size"], [0.4, 0.5, 0.6])
    assert len(files(tmp_path)) == 5
    (row,) = csv.DictReader(execution.STATUS.read_text().splitlines())
    assert row["chapter"] == "results/one" and 0 < float(row["processor seconds"]) < 60
    assert os.environ[chapters.RECORD] == "elsewhere"


def test_verify_reads_the_results_of_every_chapter(run, monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    # A chapter without claims.
    (tmp_path / "paper_and_code.json").write_text("{}")
    code, _, error = run("verify")
    assert code == 1
    one_line(error, "paper_and_code.json")


@pytest.mark.slow
# The last has so little to say that it is written only at the end.
@pytest.mark.parametrize(
    "arguments",
    [("scorecard",), ("scorecard", "--json"), ("list",), ("scorecard", "--part", "results/figure_c1")],
    ids=" ".join,
)
def test_a_reader_who_has_seen_enough_is_no_error(arguments):
    """As `head` is one."""
    command = [os.path.join(os.path.dirname(sys.executable), "reactivation"), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, env=os.environ | {"PYTHONUNBUFFERED": ""})
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait()


def test_the_program_is_installed():
    result = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "reactivation"), "train", "rat"], capture_output=True, text=True
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    one_line(result.stderr, "unknown experiment 'rat'")
