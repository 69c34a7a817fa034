r"""Ensembles on disk.

`data/ensembles/NAME.safetensors` holds the parameters of all networks in float16, the cells (`centres` or `angles`),
and the course of training (`history`, `squared_error`); its header holds the full settings as JSON. `SHA256SUMS`
beside it lists every file, and a file that does not match its entry is refused.

A file is written whole under a temporary name in the same folder, flushed to disk, and then renamed: whatever
happens, the previous file is intact. An ensemble is on disk before the sums say so; they list what it replaces beside
it until it is renamed, so that one of the two is there at any time, to be read by whoever reads meanwhile. Who goes on
writing a file holds its lock, and first removes what a killed writer left.

A file that was made to do harm can at worst be refused: nothing is unpickled, and sizes are checked before use.

Source: the safetensors format, https://huggingface.co/docs/safetensors.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from glob import escape
from importlib.metadata import version
from pathlib import Path

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from reactivation_core import experiments
from reactivation_core.experiments import HeadDirectionSettings
from reactivation_core.networks import NETWORKS
from reactivation_core.phases import Ensemble


def _checkout() -> Path:
    """The repository that holds this source; if it was installed without, that of the current folder, if any."""
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[2], here, *here.parents):
        if (folder / "data" / "claims.toml").is_file():
            return folder
    return here


# The folder of the data, if other than that of the repository.
DATA = "REACTIVATION_DATA"

CHECKOUT = _checkout()
ENSEMBLES = Path(os.environ.get(DATA) or CHECKOUT / "data").absolute() / "ensembles"
SUMS = "SHA256SUMS"

# Settings that the first files were written before, and whose default is what they had.
_LATER = {"rests", "truncate", "cost", "peaks", "concentration", "home"}

# A header of ours has a few thousand bytes, the largest file some ten million.
_MAX_HEADER, _MAX_FILE = 1 << 20, 1 << 30
# A machine that died may hold its locks on a shared folder for a little while.
_LOCK_SECONDS = 10.0


def save(ensemble: Ensemble, folder: Path, **metadata: str) -> Path:
    """Write an ensemble and its line in `SHA256SUMS`; returns the path.

    Raises:
        ValueError: if the ensemble is not trained, or a value is not finite, or too large for float16.
        OSError: if the folder cannot be written, or the disk is full; the previous file is then intact.
    """
    if ensemble.history is None or ensemble.squared_error is None:
        raise ValueError("expected a trained ensemble, got one without a history; nothing was written")
    path = folder / f"{ensemble.experiment.name}.safetensors"
    tensors = {name: value.detach().half() for name, value in ensemble.network.named_parameters()}
    tensors |= dict(ensemble.task.cells.named_buffers())
    tensors |= {"history": ensemble.history, "squared_error": ensemble.squared_error}
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"expected finite values below 65504 in {name}, got others; nothing was written")
    header = {
        "experiment": ensemble.experiment.model_dump_json(),
        "version": version("reactivation-core"),
        "commit": commit(),
        "torch": torch.__version__,
        **metadata,
    }
    content = pack(tensors, header)
    with lock(folder / SUMS), lock(path):
        old, new = _sums(folder).get(path.name, set()), hashlib.sha256(content).hexdigest()
        if not old and path.is_file():
            with path.open("rb") as file:
                old = {hashlib.file_digest(file, "sha256").hexdigest()}
        with _staged(path, content):
            _publish(folder, path.name, old | {new})
        _publish(folder, path.name, {new})
    return path


def load(name: str | Path, folder: Path = ENSEMBLES) -> Ensemble:
    """Read an ensemble by name from `folder`, or from a path; on the CPU, in float32, and not to be trained.

    Raises:
        FileNotFoundError: if there is no such file, with the command that makes it.
        ValueError: if the file is not the one in `SHA256SUMS`, is truncated, foreign, malformed or too large, holds
            values that are not finite, or its tensors do not fit its settings, or these not the name.
    """
    if isinstance(name, Path):
        return restore(name)[0]
    path = Path(folder) / f"{name}.safetensors"
    # A variation has a name of its own.
    return restore(path if path.is_file() else path.with_stem(experiments.get(name).name), name)[0]


def find(name: str, folder: Path = ENSEMBLES) -> str | Path:
    """What `load` takes of an ensemble, given by a name in `folder` or by its path, which ends in `.safetensors`.

    Raises:
        ValueError: if there is none, with the names that are near.
    """
    if Path(name).suffix == ".safetensors":
        return Path(name)
    known = [path.stem for path in sorted(folder.glob("*.safetensors"))]
    if name not in known:
        raise ValueError(
            f"no ensemble {name!r} in {folder}: {experiments.hint(name, known or experiments.EXPERIMENTS)}"
        )
    return name


def restore(path: Path, name: str | None = None) -> tuple[Ensemble, dict[str, str]]:
    """The ensemble at a path, of the experiment of this name where one is given, and what its header says of it; raises
    what `load` does."""
    if not path.is_file():
        raise FileNotFoundError(f"no ensemble at {path}: make it with `reactivation train {path.stem}`")
    try:
        content, digest = _listed(path)
        tensors, header = unpack(content)
        if "experiment" not in header:
            raise ValueError("not an ensemble: expected settings under 'experiment' in its header, got none")
        experiment = experiments.parse(header["experiment"])
        if name not in (None, experiment.name):
            raise ValueError(f"expected the experiment {name}, got {experiment.name}")
        for settings in (experiment, experiment.task, experiment.task.motion):
            # What is left out would become today's default.
            missing = type(settings).model_fields.keys() - settings.model_fields_set - _LATER
            if missing:
                raise ValueError(f"expected the settings {', '.join(sorted(missing))} in its header, got none")
        return _assemble(experiment, tensors, digest), header
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def verify(folder: Path = ENSEMBLES, progress: Callable = iter) -> dict[str, str | None]:
    """The problem of every listed file and every ensemble in a folder, by file name; None where all is well."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    sums, found = _sums(folder), {}
    for name in progress(sorted(sums.keys() | {path.name for path in folder.glob("*.safetensors")})):
        try:
            if name not in sums:
                raise ValueError(f"not listed in {SUMS}")
            restore(folder / name, Path(name).stem)
            found[name] = None
        except (ValueError, OSError) as error:
            found[name] = str(error)
    return found


def pack(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file: the same bytes for the same content, which the library alone gives only without metadata."""
    content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()})
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": metadata} | json.loads(content[8:end])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        ValueError: if it is not whole, names anything twice, or holds other numbers than float16 and float32.
    """
    try:
        parts = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a whole safetensors file: {error}") from None
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_unique)
    for name, part in parts:
        if part["dtype"] not in ("F16", "F32"):
            raise ValueError(f"expected {name} as F16 or F32, got {part['dtype']}")
    return safetensors.torch.load(content), header.get("__metadata__") or {}


def read(path: Path) -> bytes:
    """The content of a safetensors file.

    Raises:
        ValueError: if it, or its header, is larger than any that is written here.
    """
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
        for name, size, most in (("file", os.fstat(file.fileno()).st_size, _MAX_FILE), ("header", header, _MAX_HEADER)):
            if size > most:
                raise ValueError(f"expected a {name} of at most {most} bytes, got {size}")
        file.seek(0)
        return file.read()


def stamp(path: Path) -> tuple[int, int] | None:
    """What differs after a file was replaced; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def write(path: Path, content: bytes) -> None:
    """Replace a file by `content`, whole or not at all.

    Raises:
        OSError: if it cannot be written; an existing file is then intact and no other file is left.
    """
    with _staged(path, content):
        pass


def write_together(contents: dict[Path, bytes]) -> None:
    """Replace files by their contents, once all of these are on disk.

    Raises:
        OSError: if one cannot be written or replaced; all are then as they were and no other file is left.
    """
    before = {path: path.read_bytes() if path.is_file() else None for path in contents}
    try:
        with ExitStack() as stack:
            for path, content in contents.items():
                stack.enter_context(_staged(path, content))
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != content:
                write(path, content)
        raise


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Be the only one who writes a file, among all processes that ask; what a killed one left of it is removed.

    Raises:
        BlockingIOError: if another process has the file, and keeps it for ten seconds.
    """
    held = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS)
    try:
        held.acquire()
    except filelock.Timeout:
        raise BlockingIOError(f"{path} is being written by another process; wait for it, or stop it") from None
    try:
        for left in path.parent.glob(f".{escape(path.name)}.*.part"):
            left.unlink()
        yield
    finally:
        try:
            # While it is held: who waits for it sees that the file is gone, and makes another. Windows does not
            # remove an open file; there the release does.
            if sys.platform != "win32":
                os.unlink(held.lock_file)
        finally:
            held.release()


@contextmanager
def _staged(path: Path, content: bytes) -> Iterator[None]:
    """Have `content` on disk beside the file that it replaces at the end."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        yield
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _assemble(experiment, tensors: dict[str, Tensor], digest: str) -> Ensemble:
    cells = "angles" if isinstance(experiment.task, HeadDirectionSettings) else "centres"
    tensors = {name: value.float() for name, value in tensors.items()}
    missing = {cells, "history", "squared_error"} - set(tensors)
    if missing:
        raise ValueError(f"expected the tensors {', '.join(sorted(missing))}, got none")
    preferred, history, squared_error = (tensors.pop(name) for name in (cells, "history", "squared_error"))
    network = NETWORKS[experiment.network](tensors, experiment.tau, experiment.dt)
    S, n_cells = network.n_networks, experiment.task.n_cells
    tests = history.shape[1] if history.ndim == 3 else -1
    for name, value, shape in (
        (cells, preferred, (n_cells,) if cells == "angles" else (S, n_cells, 2)),
        ("history", history, (S, tests, 2)),
        ("squared_error", squared_error, (S, tests)),
    ):
        if value.shape != shape or not value.isfinite().all():
            raise ValueError(f"expected finite {name} of shape {shape}, got {tuple(value.shape)}")
    task = experiment.task.restore(S, preferred)
    for name, shape in network.shapes(S, experiment.n_units, n_cells, task.n_inputs).items():
        if tensors[name].shape != shape:
            raise ValueError(f"expected {name} of shape {shape} as its settings say, got {tuple(tensors[name].shape)}")
    return Ensemble(experiment, task, network.requires_grad_(False), history, squared_error, digest)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"expected every name once in the header, got {max(names, key=names.count)!r:.80} again")
    return dict(pairs)


def _listed(path: Path) -> tuple[bytes, str]:
    """The content of a file, and its digest, which is one of those in the sums, if they list it."""
    while True:
        before, expected = stamp(path.parent / SUMS), _sums(path.parent).get(path.name)
        content = read(path)
        digest = hashlib.sha256(content).hexdigest()
        if expected is None or digest in expected:
            return content, digest
        # A writer may have come between the sums and the file.
        if before == stamp(path.parent / SUMS):
            expected = " or ".join(f"{one[:12]}…" for one in sorted(expected))
            raise ValueError(f"not the file in {SUMS}: expected SHA-256 {expected}, got {digest[:12]}…")


def _sums(folder: Path) -> dict[str, set[str]]:
    """The digests that a file may have, by its name: one, or two while it is replaced."""
    path, sums = folder / SUMS, {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        parts = line.split()
        if len(parts) != 2 or len(parts[0]) != 64:
            raise ValueError(f"{path} is malformed: expected lines of a SHA-256 digest and a file name")
        digest, name = parts
        sums.setdefault(name, set()).add(digest)
    return sums


def _publish(folder: Path, name: str, digests: set[str]) -> None:
    sums = _sums(folder) | {name: digests}
    lines = [f"{digest}  {of}\n" for of in sorted(sums) for digest in sorted(sums[of])]
    write(folder / SUMS, "".join(lines).encode())


def commit() -> str:
    """The commit of this source, with `-dirty` if it was changed since, or "unknown": without git, or where the
    repository around it, as of a project that it is installed in, is another one's."""
    # As git sets them for its hooks, they may name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> subprocess.CompletedProcess:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    try:
        if git("ls-files", "--error-unmatch", Path(__file__).name).returncode:
            return "unknown"
        head = git("rev-parse", "--short=12", "HEAD").stdout.strip()
        changes = git("status", "--porcelain", ".").stdout
    except OSError:
        return "unknown"
    return f"{head}-dirty" if changes else head or "unknown"
