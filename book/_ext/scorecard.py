"""The scorecard, made from the claims and the results when the book is built.

The directive `scorecard` is the table, one per chapter; `{{ scorecard }}` in a text is its summary in one line.
"""

from itertools import groupby

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

from reactivation_core.edition import claims

MARKS = {
    "reproduced": "✓",
    "holds": "✓",
    "partly": "~",
    "not reproduced": "✗",
    "does not hold": "✗",
    "not measured": "·",
}


class Scorecard(SphinxDirective):
    """One table for each chapter that measures some claims of the section named by the argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = []
        section = [e for e in claims.scorecard() if e["section"] == self.arguments[0]]
        for chapter, entries in groupby(section, lambda entry: entry["chapter"]):
            here = (
                self.env.doc2path(chapter, base=False)
                if chapter in self.env.found_docs
                else None
            )
            lines += [f"**[](/{here})**" if here else f"**{chapter}**", ""]
            lines += ["| claim | test | measured | verdict |", "|---|---|---|---|"]
            lines += [row(entry) for entry in entries]
            lines.append("")
            for name in (claims.CLAIMS, claims.results_path(chapter)):
                self.env.note_dependency(str(name))
        container = nodes.container(classes=["scorecard"])
        self.state.nested_parse(
            StringList(lines, self.env.docname), self.content_offset, container
        )
        return [container]


def row(entry: dict) -> str:
    """A claim in one row; what holds with uniform noise stands below in the same fields."""
    standings = [entry, *([entry["uniform"]] if entry["uniform"] else [])]
    measured, verdicts = [], []
    for name, standing in zip(("", "uniform noise: "), standings, strict=False):
        if standing["value"] is None:
            measured.append("")
        else:
            low, high = standing["interval"]
            measured.append(f"{name}{standing['value']:.3g} ({low:.3g} to {high:.3g})")
        verdicts.append(f"{MARKS[standing['verdict']]} {standing['verdict']}")
    test = f"{entry['test']} {entry['threshold']:g} {entry['unit']}".strip()
    return f"| {entry['statement']} ({entry['source']}) | {test} | {'<br>'.join(measured)} | {'<br>'.join(verdicts)} |"


def summarise(app: Sphinx, config: Config) -> None:
    """Make the summary a substitution."""
    summary = claims.summary(claims.scorecard())
    config.myst_substitutions = config.myst_substitutions | {"scorecard": summary}


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx, before MyST reads its settings."""
    app.add_directive("scorecard", Scorecard)
    app.connect("config-inited", summarise, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
