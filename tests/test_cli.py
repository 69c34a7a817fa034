"""The command line as a newcomer meets it: what it does, and one line for everything that goes wrong."""

import errno
import os
import subprocess
import sys

import pytest

from reactivation_core import cli, execution, experiments, store


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

    return run


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
    code, out, _ = run("train", "--all", "--out", tmp_path)
    assert code == 0 and "is there already" in out
    assert (tmp_path / f"{tiny}.safetensors").read_bytes() == before


def test_the_seed_and_the_network_decide(run, tiny, tmp_path):
    for folder, options in (("a", ()), ("b", ()), ("c", ("--seed", 1))):
        assert run("train", tiny, "--networks", 2, "--batches", 20, "--out", tmp_path / folder, *options)[0] == 0
    a, b, c = (store.load(tiny, tmp_path / folder).network.W_rec for folder in "abc")
    assert (a == b).all() and not (a == c).all() and not (a[0] == a[1]).all()


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
        (("run-chapters", "figure_9"), ("figure_1", "got figure_9")),
        (("verify", "/nonexistent"), ("/nonexistent",)),
    ],
)
def test_bad_input_is_one_line_and_a_status(run, tmp_path, arguments, parts):
    out = ("--out", tmp_path) if arguments[0] == "train" else ()
    code, _, error = run(*arguments, *out)
    assert code == 1
    one_line(error, *parts)
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_words_that_cannot_be_parsed(run):
    code, _, error = run("train", "position-noisy-unbiased", "--networks", "five")
    assert code == 2 and "--networks" in error and "five" in error


def test_no_cuda_is_said(run, monkeypatch, tmp_path):
    monkeypatch.setattr(cli.torch.cuda, "is_available", lambda: False)
    code, _, error = run("train", "position-noisy-unbiased", "--device", "cuda", "--out", tmp_path)
    assert code == 1
    one_line(error, "CUDA")


def test_a_full_disk_is_said_and_the_checkpoints_stay(run, tiny, tmp_path, monkeypatch):
    write = store.write

    def full(path, content):
        if path.parent == tmp_path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    monkeypatch.setattr(store, "write", full)
    code, _, error = run("train", tiny, "--networks", 1, "--batches", 20, "--out", tmp_path)
    assert code == 1
    one_line(error, "No space left on device")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{tiny}.0.safetensors"]
    monkeypatch.setattr(store, "write", write)
    assert run("train", tiny, "--networks", 1, "--batches", 20, "--out", tmp_path)[0] == 0


def test_an_interruption_says_how_to_go_on(run, tiny, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.training, "train", interrupted)
    code, _, error = run("train", tiny, "--out", tmp_path)
    assert code == 130 and "the same command goes on" in error


def test_verify_names_the_file_that_was_altered(run, tiny, tmp_path):
    run("train", tiny, "--networks", 1, "--batches", 20, "--out", tmp_path)
    code, out, _ = run("verify", tmp_path)
    assert code == 0 and f"{tiny}.safetensors: whole" in out
    path = tmp_path / f"{tiny}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, out, error = run("verify", tmp_path)
    assert code == 1 and "is not the file in SHA256SUMS" in out
    one_line(error, "1 of 1 ensembles")


def test_a_chapter_that_fails_is_left_as_it_was(run, tmp_path, monkeypatch):
    book = tmp_path / "book"
    (book / "results").mkdir(parents=True)
    (book / "_toc.yml").write_text("parts: [{chapters: [{file: results/broken}]}]")
    notebook = execution.nbformat.v4.new_notebook()
    notebook.cells = [execution.nbformat.v4.new_code_cell("raise ValueError('no such rat')")]
    path = book / "results" / "broken.ipynb"
    execution.nbformat.write(notebook, path)
    before = path.read_bytes()
    monkeypatch.setattr(execution, "BOOK", book)
    code, _, error = run("run-chapters")
    assert code == 1
    one_line(error, "broken.ipynb", "ValueError: no such rat")
    assert path.read_bytes() == before


def test_the_program_is_installed():
    result = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "reactivation"), "train", "rat"], capture_output=True, text=True
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    one_line(result.stderr, "unknown experiment 'rat'")
