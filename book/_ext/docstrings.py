"""Docstrings for the API reference: Google's sections, Markdown, and mathematics between dollars."""

import re
from collections.abc import Iterator

from autodoc2.render.myst_ import MystRenderer
from autodoc2.utils import ItemData
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring


class Parser(MystParser):
    """MyST, once `Args:`, `Returns:` and `Raises:` are field lists."""

    def parse(self, inputstring, document):
        docstring = GoogleDocstring(inputstring, Config())  # pyright: ignore[reportArgumentType]
        super().parse(str(docstring), document)


class Renderer(MystRenderer):
    """A module is a section of the page: its name, its docstring, its contents in the order of the source."""

    def get_item(self, full_name: str) -> ItemData | None:
        """What is known of an object; a constructor inherited from another library says nothing of ours."""
        item = super().get_item(full_name)
        foreign = item and not item.get("inherited", "reactivation_core").startswith(
            "reactivation_core"
        )
        return None if foreign else item

    def format_annotation(self, annotation: str | None) -> str:
        """An annotation as in the source, other libraries' names short, the shape of an array a string."""
        short = re.sub(
            r"(?<![\w.])(?!reactivation_core)([a-z_]+\.)+",
            "",
            super().format_annotation(annotation),
        )
        return re.sub(r"((?:Float|Int|Bool)\[\w+), ([^]]*)]", r'\1, "\2"]', short)

    def render_package(self, item: ItemData) -> Iterator[str]:
        name = item["full_name"]
        yield from (
            f"## `{name.split('.')[-1]}`",
            "",
            f"```{{py:module}} {name}",
            "```",
            "",
        )
        yield from (
            f"```{{autodoc2-docstring}} {name}",
            ":parser: docstrings",
            "```",
            "",
        )
        for child in self.get_children(item):
            yield from self.render_item(child["full_name"])

    def render_data(self, item: ItemData) -> Iterator[str]:
        """A name, its type and its docstring: the value is in the source."""
        name = item["full_name"]
        yield from (
            f"````{{py:{item['type']}}} {name.split('.')[-1]}",
            f":canonical: {name}",
        )
        if annotation := item.get("annotation"):
            yield f":type: {self.format_annotation(annotation)}"
        yield from (
            "",
            f"```{{autodoc2-docstring}} {name}",
            ":parser: docstrings",
            "```",
            "````",
            "",
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx imports every extension it is told of; there is nothing to connect."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}
