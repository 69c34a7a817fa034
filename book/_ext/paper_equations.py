"""Number the equations of the book: the paper's by the paper's numbers, ours by chapter.

An equation labelled `paper-16` is numbered 16, `paper-A.1` A.1 and `paper-5-7` 5–7. All others are counted, by
chapter, as if these were not there.
"""

from typing import cast

from docutils.nodes import make_id
from sphinx.application import Sphinx
from sphinx.domains.math import MathDomain
from sphinx.environment import BuildEnvironment

PREFIX = "paper-"


def number(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Replace the numbers that Sphinx gave; no further document has to be written for that."""
    domain = cast(MathDomain, env.get_domain("math"))
    paper = {
        make_id(f"equation-{label}"): label.removeprefix(PREFIX).replace("-", "–")
        for label in domain.equations
        if label.startswith(PREFIX)
    }
    counts: dict[tuple[int, ...], int] = {}
    for document in sorted(
        env.toc_fignumbers,
        key=lambda name: env.toc_secnumbers.get(name, {}).get("", ()),
    ):
        equations = env.toc_fignumbers[document].get("displaymath", {})
        for name, old in equations.items():
            if name in paper:
                equations[name] = (paper[name],)  # pyright: ignore[reportArgumentType]
            else:
                counts[old[:-1]] = counts.get(old[:-1], 0) + 1
                equations[name] = (*old[:-1], counts[old[:-1]])
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx, after it has numbered all equations."""
    app.connect("env-get-updated", number, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
