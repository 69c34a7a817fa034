import errno
import hashlib
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

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


def test_loaded_networks_are_not_to_be_trained(saved):
    loaded = store.load(saved)
    for ensemble in (loaded, loaded[1], loaded[:2], loaded.to("cpu")):
        assert not any(parameter.requires_grad for parameter in ensemble.network.parameters())
        # NumPy takes nothing that has a gradient.
        ensemble.network.readout(torch.zeros(len(ensemble), 4, 16)).numpy()


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


# All calls by which saving changes a file.
CHANGES = [(os, "fsync"), (os, "chmod"), (os, "replace"), (os, "unlink"), (tempfile, "mkstemp")]


def failing(monkeypatch, nth, only):
    """Let the call number `nth` that changes a file fail, and also all that follow unless `only` it does, as of a
    process that died; returns the list of calls."""
    calls = []

    def wrapped(module, name):
        work = getattr(module, name)

        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == nth or (len(calls) > nth and not only):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return work(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    for module, name in CHANGES:
        wrapped(module, name)
    return calls


@pytest.fixture(params=["listed", "unlisted", "new"])
def place(request, tiny_ensemble, tmp_path):
    """A folder where the ensemble is, as its sums say; or is without sums; or is not yet."""
    if request.param != "new":
        store.save(tiny_ensemble, tmp_path)
    if request.param == "unlisted":
        (tmp_path / store.SUMS).unlink()
    return tmp_path


@pytest.mark.parametrize("only", [True, False], ids=["fails", "dies"])
def test_whatever_fails_leaves_the_old_ensemble_or_the_new(tiny_ensemble, place, monkeypatch, only):
    name = tiny_ensemble.experiment.name
    old = store.load(name, place).sha256 if list(place.iterdir()) else None
    new = replace(tiny_ensemble, history=tiny_ensemble.history + 1)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    done, found = False, set()
    for nth in itertools.count(1):
        with monkeypatch.context() as patched:
            calls = failing(patched, nth, only)
            try:
                store.save(new, place)
                done = len(calls) < nth
            except OSError:
                pass
        if done:
            break
        try:
            found.add(store.load(name, place).sha256)
        except FileNotFoundError:
            assert old is None
        # What was left is no hindrance to another saving, nor to the check of the sums once that is done.
        digest = store.load(store.save(new, place)).sha256
        assert subprocess.run(["sha256sum", "--check", "--quiet", store.SUMS], cwd=place).returncode == 0
        assert sorted(path.name for path in place.iterdir()) == [store.SUMS, f"{name}.safetensors"]
        for path in place.iterdir():
            path.unlink()
        for path, content in before.items():
            (place / path).write_bytes(content)
    assert nth > 12 and {old, digest} - {None} <= found <= {old, digest}


def test_no_reader_beside_a_writer_is_refused(tiny_ensemble, saved):
    both = [replace(tiny_ensemble, history=tiny_ensemble.history + i) for i in range(2)]
    stop = Event()

    def read():
        found = []
        while not stop.is_set():
            found.append(store.load(saved).sha256)
        return found

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for i in range(40):
                store.save(both[i % 2], saved.parent)
        finally:
            stop.set()
    for reader in readers:
        assert len(set(reader.result())) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from reactivation_core import store

os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
path = Path(sys.argv[1])
store.save(store.load(path), path.parent)
"""


def test_what_a_killed_writer_left_goes_with_the_next_writing(tiny_ensemble, saved):
    before = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    other = saved.parent / ".other.safetensors.x.part"
    other.touch()
    assert subprocess.run([sys.executable, "-c", KILLED, saved]).returncode == -signal.SIGKILL
    after = {path.name: path.read_bytes() for path in saved.parent.iterdir()}
    assert len(after) > len(before) + 1 and after.items() > before.items()
    store.save(tiny_ensemble, saved.parent)
    assert {path.name for path in saved.parent.iterdir()} == before.keys() | {other.name}


WRITERS = """
import sys
from dataclasses import replace
from pathlib import Path
from reactivation_core import store

path, start = Path(sys.argv[1]), int(sys.argv[2])
ensemble = store.load(path)
print("ready", flush=True)
sys.stdin.readline()
for i in range(start, start + 20):
    store.save(replace(ensemble, experiment=ensemble.experiment.vary(name=f"copy-{i}")), path.parent)
"""


def test_no_line_of_the_sums_is_lost_when_two_processes_save(saved):
    arguments = [[sys.executable, "-c", WRITERS, saved, str(start)] for start in (0, 20)]
    writers = [subprocess.Popen(a, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for a in arguments]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.communicate() and writer.returncode for writer in writers] == [0, 0]
    found = store.verify(saved.parent)
    assert len(found) == 41 and not any(found.values())
    assert len(list(saved.parent.iterdir())) == 42


def test_a_file_that_another_writes_is_named(saved, monkeypatch):
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.1)
    content = saved.read_bytes()
    with store.lock(saved), pytest.raises(BlockingIOError, match=f"{saved} is being written by another process"):
        store.save(store.load(saved), saved.parent)
    assert saved.read_bytes() == content
    store.save(store.load(saved), saved.parent)


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    for content in (b"a long first content", b"short"):
        store.write(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


# Three files are made, filled and given their mode, and then renamed; the second has no old one.
@pytest.mark.parametrize("nth", range(1, 13))
def test_files_written_together_are_all_as_before_if_one_cannot_be(tmp_path, monkeypatch, nth):
    def found():
        return {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    before = {"a": b"first", "c": b"third"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with monkeypatch.context() as patched:
        failing(patched, nth, only=True)
        with pytest.raises(OSError, match="No space left on device"):
            store.write_together({tmp_path / name: b"new" for name in "abc"})
    assert found() == before
    store.write_together({tmp_path / name: b"new" for name in "abc"})
    assert found() == dict.fromkeys("abc", b"new")


def test_a_missing_ensemble_is_answered_with_the_command_that_makes_it(tmp_path):
    name = "position-noisy-unbiased"
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}.*make it with `reactivation train {name}`"):
        store.load(name, tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean position-noisy-unbiased"):
        store.load("position-noisy-unbaised", tmp_path)


@given(st.data())
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bits_and_lost_bytes_are_noticed(saved, data):
    content = saved.read_bytes()
    expected = safetensors.torch.load(content)
    # Without sums a changed number is only another number; all that the header says is checked.
    listed = data.draw(st.booleans(), "listed")
    end = len(content) if listed else 8 + int.from_bytes(content[:8], "little")
    damaged = bytearray(content)
    for bit in data.draw(st.lists(st.integers(0, 8 * end - 1), max_size=3), "flipped"):
        damaged[bit // 8] ^= 1 << bit % 8
    del damaged[data.draw(st.just(len(content)) | st.integers(0, len(content)), "kept") :]
    sums = saved.parent / store.SUMS
    lines = sums.read_bytes()
    try:
        saved.write_bytes(damaged)
        if not listed:
            sums.unlink()
        loaded = store.load(saved)
        found = dict(loaded.network.named_parameters()) | dict(loaded.task.cells.named_buffers())
        found |= {"history": loaded.history, "squared_error": loaded.squared_error}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value.float()) for name, value in expected.items())
        assert damaged == content or not listed
    except ValueError as error:
        assert damaged != content and str(saved) in str(error) and "\n" not in str(error)
    finally:
        saved.write_bytes(content)
        sums.write_bytes(lines)


@pytest.mark.parametrize("size", [0, 7, 100, -1000, -1])
def test_a_truncated_file_is_refused(saved, size):
    content = saved.read_bytes()[:size]
    saved.write_bytes(content)
    assert "not the file in SHA256SUMS" in refusal(saved)
    (saved.parent / store.SUMS).unlink()
    assert "not a whole safetensors file" in refusal(saved)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"PK\x03\x04 some other format", "expected a header of at most 1048576 bytes"),
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


def crafted(saved, change):
    """The file with its header, or the text of its header, changed, and the header's length set to match."""
    content = saved.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    text = change(json.loads(content[8:end]))
    text = (text if isinstance(text, str) else json.dumps(text)).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    (saved.parent / store.SUMS).unlink()
    return saved


def entry(name, **changes):
    return lambda header: header | {name: header[name] | changes}


def twice(name):
    return lambda header: json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"


CRAFTED = {
    "shape beyond the file": (entry("W_rec", shape=[3, 1 << 40, 1 << 40]), "not a whole safetensors file"),
    "shape beyond 64 bits": (entry("W_rec", shape=[1 << 63, 1 << 63, 4]), "not a whole safetensors file"),
    "negative shape": (entry("W_rec", shape=[3, -16, -16]), "not a whole safetensors file"),
    "no shape": (entry("W_rec", shape=None), "not a whole safetensors file"),
    "empty and endless": (
        lambda header: header | {"zero": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}},
        "expected the parameters",
    ),
    "offsets beyond the file": (entry("D", data_offsets=[0, 1 << 60]), "not a whole safetensors file"),
    "offsets backwards": (entry("D", data_offsets=[64, 0]), "not a whole safetensors file"),
    "offsets overlap": (
        lambda header: header | {"D": header["D"] | {"data_offsets": header["encoder"]["data_offsets"]}},
        "not a whole safetensors file",
    ),
    "tensor twice": (twice("W_rec"), "every name once in the header, got 'W_rec' again"),
    "metadata twice": (twice("__metadata__"), "not a whole safetensors file"),
    "settings twice": (
        lambda header: json.dumps(header).replace('"experiment":', '"experiment": "{}", "experiment":'),
        "every name once in the header, got 'experiment' again",
    ),
    "integers": (entry("W_rec", dtype="I16"), "expected W_rec as F16 or F32, got I16"),
    "bfloat16": (entry("W_rec", dtype="BF16"), "expected W_rec as F16 or F32, got BF16"),
    "unknown type": (entry("W_rec", dtype="pickle"), "not a whole safetensors file"),
    "deep": (lambda header: '{"a":' * 100_000 + "0" + "}" * 100_000, "not a whole safetensors file"),
    "no text": (lambda header: "\x00" * 100, "not a whole safetensors file"),
    "metadata of 100 MB": (
        lambda header: header | {"__metadata__": {"experiment": "x" * 100_000_000}},
        "expected a header of at most 1048576 bytes, got 1000",
    ),
    "settings beyond the file": (
        lambda header: (
            header
            | {
                "__metadata__": {
                    "experiment": header["__metadata__"]["experiment"].replace('_units":16', f'_units":{1 << 50}')
                }
            }
        ),
        f"of shape (3, {1 << 50}, 24) as its settings say",
    ),
}


@pytest.mark.parametrize("change, message", CRAFTED.values(), ids=CRAFTED)
def test_a_header_made_to_do_harm_is_refused_in_little_memory_and_time(saved, change, message):
    crafted(saved, change)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    started = time.perf_counter()
    try:
        assert message in refusal(saved)
        assert time.perf_counter() - started < 5
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    # What Python does not count, in KiB: the peak of this process.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 50_000


def test_a_file_too_large_to_be_an_ensemble_is_not_read(saved):
    os.truncate(saved, 1 << 40)
    assert f"expected a file of at most {1 << 30} bytes, got {1 << 40}" in refusal(saved)


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
        ({"tau": 0.01}, "tau: Input should be at least the time step"),
        ({"sigma": -1}, "invalid experiment settings: sigma"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(saved, changes, message):
    settings = json.loads(header(saved)["experiment"]) | changes
    assert message in refusal(altered(saved, metadata={"experiment": json.dumps(settings)}))


@pytest.mark.parametrize("line", ["", "abc", "0" * 64, f"{'0' * 63}  x.safetensors"])
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
    assert "not the file in SHA256SUMS" in store.verify(folder)[saved.name]


def test_an_ensemble_under_another_name_is_none_of_that_name(tiny_ensemble, saved):
    other = saved.with_name("position-noisy-biased.safetensors")
    saved.rename(other)
    sums = saved.parent / store.SUMS
    sums.write_text(sums.read_text().replace(saved.name, other.name))
    message = f"expected the experiment position-noisy-biased, got {tiny_ensemble.experiment.name}"
    for name in (other.stem, store.find(other.stem, other.parent)):
        with pytest.raises(ValueError, match=f"{other}: {message}"):
            store.load(name, other.parent)
    assert message in store.verify(other.parent)[other.name]
    # Who names a file means that file.
    assert store.load(other).experiment == tiny_ensemble.experiment


def test_verify_asks_for_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        store.verify(tmp_path / "nowhere")


@pytest.mark.parametrize("path", ["noise", "task.width", "task.motion.dt"])
def test_settings_that_a_file_leaves_out_do_not_become_the_default(saved, path):
    settings = json.loads(header(saved)["experiment"])
    *parents, name = path.split(".")
    of = settings
    for parent in parents:
        of = of[parent]
    del of[name]
    assert f"expected the settings {name}" in refusal(altered(saved, metadata={"experiment": json.dumps(settings)}))
