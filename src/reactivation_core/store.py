r"""Ensembles on disk.

`data/ensembles/NAME.safetensors` holds the parameters of all networks in float16, the cells (`centres` or `angles`),
and the course of training (`history`, `squared_error`); its header holds the full settings as JSON. `SHA256SUMS`
beside it lists every file, and a file that does not match its entry is refused.

A file is written whole under a temporary name in the same folder, flushed to disk, and then renamed: whatever
happens, the previous file is intact.

Source: the safetensors format, https://huggingface.co/docs/safetensors.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from reactivation_core import experiments
from reactivation_core.experiments import HeadDirectionSettings
from reactivation_core.networks import NETWORKS
from reactivation_core.phases import Ensemble

ENSEMBLES = Path(__file__).resolve().parents[2] / "data" / "ensembles"
SUMS = "SHA256SUMS"


def save(ensemble: Ensemble, folder: Path = ENSEMBLES, **metadata: str) -> Path:
    """Write an ensemble and its line in `SHA256SUMS`; returns the path.

    Raises:
        ValueError: if the ensemble is not trained, or a value is not finite, or too large for float16.
        OSError: if the folder cannot be written, or the disk is full; the previous file is then intact.
    """
    if ensemble.history is None:
        raise ValueError("expected a trained ensemble, got one without a history; nothing was written")
    folder = Path(folder)
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
        "commit": _commit(),
        "torch": torch.__version__,
        **metadata,
    }
    content = pack(tensors, header)
    sums = _sums(folder) | {path.name: hashlib.sha256(content).hexdigest()}
    write(path, content)
    write(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode())
    return path


def load(name: str | Path, folder: Path = ENSEMBLES) -> Ensemble:
    """Read an ensemble by name from `folder`, or from a path; on the CPU, in float32.

    Raises:
        FileNotFoundError: if there is no such file, with the command that makes it.
        ValueError: if the file is not the one in `SHA256SUMS`, is truncated, foreign or malformed, holds values that
            are not finite, or its tensors do not fit its settings.
    """
    path = name if isinstance(name, Path) else Path(folder) / f"{experiments.get(name).name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no ensemble at {path}: make it with `reactivation train {path.stem}`")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    expected = _sums(path.parent).get(path.name)
    if expected is not None and digest != expected:
        raise ValueError(f"{path} is not the file in {SUMS}: expected SHA-256 {expected[:12]}…, got {digest[:12]}…")
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if "experiment" not in header:
        raise ValueError(f"{path} is not an ensemble: expected settings under 'experiment' in its header, got none")
    try:
        return _restore(experiments.parse(header["experiment"]), tensors, digest)
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
            load(folder / name)
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


def write(path: Path, content: bytes) -> None:
    """Replace a file by `content`, whole or not at all.

    Raises:
        OSError: if it cannot be written; an existing file is then intact and no other file is left.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _restore(experiment, tensors: dict[str, Tensor], digest: str) -> Ensemble:
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
    return Ensemble(experiment, task, network, history, squared_error, digest)


def _sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    if not path.is_file():
        return {}
    lines = [line.split() for line in path.read_text().splitlines()]
    if not all(len(line) == 2 and len(line[0]) == 64 for line in lines):
        raise ValueError(f"{path} is malformed: expected lines of a SHA-256 digest and a file name")
    return {name: digest for digest, name in lines}


def _commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout.strip() or "unknown"
