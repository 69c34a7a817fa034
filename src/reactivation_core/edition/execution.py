"""Run chapters again, in place, by papermill; keep papermill's timings out of them and in a status file."""

import csv
import io
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import nbclient.exceptions
import nbformat
import numpy as np
import papermill
import torch
import yaml

from reactivation_core import store
from reactivation_core.edition import claims
from reactivation_core.edition.chapters import BOOK, RECORD

STATUS = claims.RESULTS / "status.csv"


def notebooks() -> dict[str, Path]:
    """The book's notebooks by file name, in the order of the table of contents."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return {Path(file).name: BOOK / f"{file}.ipynb" for file in files if (BOOK / f"{file}.ipynb").is_file()}


def run(path: Path) -> float:
    """Run a notebook in place as the reference, and note processor time and versions in `data/results/status.csv`.

    The notebook, what it publishes and what it measures are replaced together, once all of it has run; of a chapter
    that fails they are left as they were. Returns its run time in seconds.

    Raises:
        ValueError: with the error of the cell that failed, or if its kernel died.
        OSError: if a file cannot be written.
    """
    # Of the kernel, a child that has ended by then: unlike its run time, hardly longer on a busy machine.
    before = _children()
    with tempfile.TemporaryDirectory() as folder, unconfigured(), _environment(RECORD, folder):
        output = Path(folder) / path.name
        try:
            papermill.execute_notebook(path, output, cwd=path.parent, progress_bar=False, kernel_name="python3")
        except papermill.PapermillExecutionError as error:
            raise ValueError(f"{path.name}, cell {error.exec_count}: {error.ename}: {error.evalue}") from None
        except nbclient.exceptions.DeadKernelError:
            raise ValueError(f"{path.name}: its kernel died, as it does for want of memory") from None
        notebook = nbformat.read(output, as_version=4)
        recorded = {
            place / file.name: file.read_bytes()
            for suffix, place in ((".npz", path.parent), (".json", claims.RESULTS))
            for file in Path(folder).glob(f"*{suffix}")
        }
    seconds = notebook.metadata.pop("papermill")["duration"]
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
    claims.RESULTS.mkdir(exist_ok=True)
    store.write_together({path: (nbformat.writes(notebook).rstrip("\n") + "\n").encode()} | recorded)
    _note_status(path.relative_to(BOOK).with_suffix("").as_posix(), _children() - before)
    return seconds


def _children() -> float:
    """Processor time of this process's children, in seconds."""
    times = os.times()
    return times.children_user + times.children_system


@contextmanager
def unconfigured() -> Iterator[None]:
    """Start kernels that know nothing of a user's settings of IPython and warnings, which would change what pages
    show, and to which Matplotlib has nothing to say of a folder that it cannot write or of the fonts it looks for."""
    # It says so here; kernels inherit the folder that it makes instead, and find the list of fonts.
    import matplotlib.font_manager  # noqa: F401

    with (
        tempfile.TemporaryDirectory() as folder,
        _environment("IPYTHONDIR", folder),
        _environment("PYTHONWARNINGS", ""),
    ):
        yield


def _note_status(chapter: str, seconds: float) -> None:
    row = {"chapter": chapter, "processor seconds": f"{seconds:.0f}", "run on": str(date.today())}
    row |= {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    # Chapters may be run by several processes at once.
    with store.lock(STATUS):
        rows = {}
        if STATUS.is_file():
            rows = {old["chapter"]: old for old in csv.DictReader(STATUS.read_text(encoding="utf-8").splitlines())}
        rows[chapter] = row
        text = io.StringIO()
        writer = csv.DictWriter(text, row, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
        store.write(STATUS, text.getvalue().encode())


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
