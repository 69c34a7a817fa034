import errno
import hashlib
import json
import math
import os
from dataclasses import replace

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactivation_core import store

KINDS = ["position-noisy-unbiased", "position-gru-unbiased", "head-direction-unbiased"]

every_kind = pytest.mark.parametrize("tiny_experiment", KINDS, indirect=True)


@pytest.fixture
def saved(tiny_ensemble, tmp_path):
    return store.save(tiny_ensemble, tmp_path)


def header(path):
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def altered(path, tensors=None, metadata=None):
    """The file with other tensors or metadata, and nothing in SHA256SUMS to say that it is altered."""
    content = safetensors.torch.load_file(path) | (tensors or {})
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_bytes(safetensors.torch.save(kept, header(path) if metadata is None else metadata))
    (path.parent / store.SUMS).unlink()
    return path


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(ValueError) as error:
        store.load(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


@every_kind
def test_an_ensemble_comes_back_rounded_to_float16(tiny_ensemble, tmp_path):
    path = store.save(tiny_ensemble, tmp_path, seed="3")
    assert path == tmp_path / f"{tiny_ensemble.experiment.name}.safetensors"
    loaded = store.load(tiny_ensemble.experiment.name, tmp_path)
    assert loaded.experiment == tiny_ensemble.experiment
    assert loaded.task.motion == tiny_ensemble.task.motion and loaded.task.n_networks == 3
    for name, value in tiny_ensemble.network.named_parameters():
        assert torch.equal(getattr(loaded.network, name), value.half().float())
    for before, after in zip(tiny_ensemble.task.cells.buffers(), loaded.task.cells.buffers(), strict=True):
        assert torch.equal(before, after)
    assert torch.equal(loaded.history, tiny_ensemble.history)
    assert torch.equal(loaded.squared_error, tiny_ensemble.squared_error)


def test_the_file_says_what_made_it(tiny_ensemble, saved):
    store.save(tiny_ensemble, saved.parent, seed="3")
    metadata = header(saved)
    assert set(metadata) == {"experiment", "version", "commit", "torch", "seed"} and metadata["seed"] == "3"
    assert json.loads(metadata["experiment"]) == json.loads(tiny_ensemble.experiment.model_dump_json())
    assert metadata["torch"] == torch.__version__
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert (saved.parent / store.SUMS).read_text() == f"{digest}  {saved.name}\n"
    assert store.load(saved).sha256 == digest
    assert saved.stat().st_mode & 0o777 == 0o644


def test_the_same_ensemble_gives_the_same_bytes(tiny_ensemble, saved):
    # With several entries, the order of the library's own header is left to chance.
    contents = [store.save(tiny_ensemble, saved.parent).read_bytes() for _ in range(5)]
    assert set(contents) == {saved.read_bytes()}
    store.save(store.load(saved), saved.parent)
    assert saved.read_bytes() == contents[0]


def test_sums_keep_the_other_files(tiny_ensemble, saved):
    other = tiny_ensemble.experiment.vary(name="position-noisy-biased")
    store.save(replace(tiny_ensemble, experiment=other), saved.parent)
    assert store.verify(saved.parent) == {"position-noisy-biased.safetensors": None, saved.name: None}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e5])
def test_values_that_would_not_come_back_are_not_written(tiny_ensemble, tmp_path, value):
    parameters = {name: value.detach().clone() for name, value in tiny_ensemble.network.named_parameters()}
    network = type(tiny_ensemble.network)(parameters, tiny_ensemble.network.tau, tiny_ensemble.network.dt)
    network.W_rec.data[1, 2, 3] = value
    with pytest.raises(ValueError, match="finite values below 65504 in W_rec, got others; nothing was written"):
        store.save(replace(tiny_ensemble, network=network), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_untrained_ensemble_is_not_written(tiny_ensemble, tmp_path):
    with pytest.raises(ValueError, match="expected a trained ensemble"):
        store.save(replace(tiny_ensemble, history=None), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_previous_files(tiny_ensemble, saved, monkeypatch, call):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left on device"):
        store.save(replace(tiny_ensemble, history=tiny_ensemble.history + 1), saved.parent)
    assert {path.name: path.read_bytes() for path in saved.parent.iterdir()} == before


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    for content in (b"a long first content", b"short"):
        store.write(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_ensemble_is_answered_with_the_command_that_makes_it(tmp_path):
    name = "position-noisy-unbiased"
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*make it with `reactivation train {name}`"):
        store.load(name, tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean position-noisy-unbiased"):
        store.load("position-noisy-unbaised", tmp_path)


@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_noticed(saved, data):
    content = saved.read_bytes()
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        saved.write_bytes(flipped)
        assert "is not the file in SHA256SUMS" in refusal(saved)
        assert store.verify(saved.parent)[saved.name] is not None
    finally:
        saved.write_bytes(content)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_with_a_flipped_bit_is_read_or_refused_even_without_sums(saved, data):
    content = saved.read_bytes()
    (saved.parent / store.SUMS).unlink(missing_ok=True)
    end = 8 + int.from_bytes(content[:8], "little")
    flipped = bytearray(content)
    flipped[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        saved.write_bytes(flipped)
        store.load(saved)
    except ValueError as error:
        assert "\n" not in str(error)
    finally:
        saved.write_bytes(content)


@pytest.mark.parametrize("size", [0, 7, 100, -1000, -1])
def test_a_truncated_file_is_refused(saved, size):
    content = saved.read_bytes()[:size]
    saved.write_bytes(content)
    assert "is not the file in SHA256SUMS" in refusal(saved)
    (saved.parent / store.SUMS).unlink()
    assert "is not a whole safetensors file" in refusal(saved)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"PK\x03\x04 some other format", "is not a whole safetensors file"),
        (safetensors.torch.save({"weight": torch.zeros(3)}), "expected settings under 'experiment' in its header"),
        (safetensors.torch.save({"weight": torch.zeros(3)}, {"format": "pt"}), "expected settings under 'experiment'"),
        (safetensors.torch.save({"weight": torch.zeros(3)}, {"experiment": "{}"}), "invalid experiment settings: name"),
        (safetensors.torch.save({}, {"experiment": "nonsense"}), "invalid experiment settings"),
    ],
    ids=["another format", "no header", "another header", "no settings", "no JSON"],
)
def test_a_foreign_file_is_refused(tmp_path, content, message):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    assert message in refusal(path)


@pytest.mark.parametrize("name", ["W_rec", "D", "encoder", "centres", "history", "squared_error"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_refused(saved, name, value):
    tensor = safetensors.torch.load_file(saved)[name]
    tensor.view(-1)[-1] = value
    message = refusal(altered(saved, {name: tensor}))
    assert "expected finite" in message and name in message


@pytest.mark.parametrize(
    "tensors, message",
    [
        ({"W_rec": None}, "expected the parameters"),
        ({"W_extra": torch.zeros(3, 16, 16)}, "expected the parameters"),
        ({"centres": None}, "expected the tensors centres, got none"),
        ({"centres": None, "angles": torch.zeros(24)}, "expected the tensors centres, got none"),
        ({"history": None, "squared_error": None}, "expected the tensors history, squared_error, got none"),
        ({"W_rec": torch.zeros(3, 16, 15)}, "expected W_rec of shape (3, 16, 16), got (3, 16, 15)"),
        ({"W_in": torch.zeros(3, 16, 3)}, "expected W_in of shape (3, 16, 2) as its settings say, got (3, 16, 3)"),
        ({"W_in": torch.tensor(0.0)}, "expected W_in with 3 axes, got shape ()"),
        ({"encoder": torch.zeros(16, 24)}, "expected encoder with 3 axes"),
        ({"D": torch.zeros(2, 24, 16)}, "expected D of shape (3, 24, 16), got (2, 24, 16)"),
        ({"centres": torch.zeros(2, 24, 2)}, "expected finite centres of shape (3, 24, 2), got (2, 24, 2)"),
        ({"history": torch.zeros(3, 4)}, "expected finite history of shape"),
        ({"squared_error": torch.zeros(3, 5)}, "expected finite squared_error of shape (3, 4), got (3, 5)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_tensors_that_do_not_fit_are_refused(saved, tensors, message):
    assert message in refusal(altered(saved, tensors))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_units": 15}, "of shape (3, 15, 24) as its settings say, got (3, 16, 24)"),
        ({"network": "gru"}, "expected the parameters"),
        ({"tau": 0.01}, "expected 0 < dt <= tau"),
        ({"sigma": -1}, "invalid experiment settings: sigma"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(saved, changes, message):
    settings = json.loads(header(saved)["experiment"]) | changes
    assert message in refusal(altered(saved, metadata={"experiment": json.dumps(settings)}))


@pytest.mark.parametrize("line", ["abc", "0" * 64, f"{'0' * 63}  x.safetensors"])
def test_malformed_sums_are_refused_before_anything_is_written(tiny_ensemble, saved, line):
    content = saved.read_bytes()
    (saved.parent / store.SUMS).write_text(f"{line}\n")
    for use in (
        lambda: store.load(saved),
        lambda: store.save(replace(tiny_ensemble, history=tiny_ensemble.history + 1), saved.parent),
    ):
        with pytest.raises(ValueError, match="SHA256SUMS is malformed"):
            use()
    assert saved.read_bytes() == content


def test_verify_names_the_problem_of_every_file(tiny_ensemble, saved):
    folder = saved.parent
    assert store.verify(folder) == {saved.name: None}
    (folder / "unlisted.safetensors").write_bytes(saved.read_bytes())
    with (folder / store.SUMS).open("a") as sums:
        sums.write(f"{'0' * 64}  missing.safetensors\n")
    found = store.verify(folder)
    assert set(found) == {saved.name, "unlisted.safetensors", "missing.safetensors"} and found[saved.name] is None
    assert "not listed in SHA256SUMS" in found["unlisted.safetensors"]
    assert "no ensemble at" in found["missing.safetensors"]
    saved.write_bytes(saved.read_bytes()[:-1] + b"\x7f")
    assert "is not the file in SHA256SUMS" in store.verify(folder)[saved.name]


def test_verify_asks_for_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        store.verify(tmp_path / "nowhere")
