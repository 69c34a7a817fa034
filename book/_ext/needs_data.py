"""Stop at once where another folder is built than the book's, or its data are absent: pages show what lies there."""

import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config


def check(app: Sphinx, config: Config) -> None:
    """Exit with one message; an exception would come with a traceback."""
    source = Path(app.srcdir)
    if source != Path(__file__).resolve().parents[1]:
        sys.exit("expected the book's own folder: jupyter-book build book/")
    folder = source.parent / "data"
    if not folder.is_dir():
        sys.exit(
            f"expected the folder {folder} beside the book, got none: clone the repository whole"
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx, before any other extension reads the data."""
    app.connect("config-inited", check, priority=50)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
