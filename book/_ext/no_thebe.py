"""Leave out Thebe, which Jupyter Book always loads, declares twice, and would have fetch its code from outside."""

from sphinx.application import Sphinx


def drop(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object
) -> None:
    """Take its scripts from a page; the list is Sphinx's own, so it is changed in place."""
    scripts = context["script_files"]
    scripts[:] = [
        script
        for script in scripts
        if "thebe" not in f"{script.filename} {script.attributes}".lower()
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("html-page-context", drop)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
