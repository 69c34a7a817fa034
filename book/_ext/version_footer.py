"""Have the foot of every page say which version and commit it was built from."""

from importlib.metadata import version

from sphinx.application import Sphinx
from sphinx.config import Config

from reactivation_core import store


def say(app: Sphinx, config: Config) -> None:
    """Set the theme's own field for it."""
    text = f"Version {version('reactivation-core')}, commit {store.commit()}"
    config.html_theme_options = config.html_theme_options | {"extra_footer": text}


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("config-inited", say)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
