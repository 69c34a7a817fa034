"""The scorecard, made from the claims and the results when the book is built.

The directive `scorecard` is the table, one per chapter, with choices of a part and of a verdict that need no script and
no network. In a text `{{ scorecard }}` is its summary in one line, and `{{ scorecard_limits }}` what that cannot say.
"""

from html import escape
from typing import get_args

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.docutils import SphinxDirective

from reactivation_core.edition import claims

MARKS = {
    "reproduced": "✓",
    "holds": "✓",
    "undecided": "~",
    "not reproduced": "✗",
    "does not hold": "✗",
    "uninformative": "○",
    "not measured": "·",
}
PARTS = {"theory": "theory", "results": "figures", "beyond": "pages beyond the paper"}


class Scorecard(SphinxDirective):
    """One table for each chapter that measures some claims of the section named by the argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        section = [e for e in claims.scorecard() if e["section"] == self.arguments[0]]
        container = nodes.container(classes=["scorecard"])
        container += nodes.raw("", choices(section), format="html")
        for chapter in dict.fromkeys(entry["chapter"] for entry in section):
            for name in (claims.CLAIMS, claims.results_path(chapter)):
                self.env.note_dependency(str(name))
            here = (
                self.env.doc2path(chapter, base=False)
                if chapter in self.env.found_docs
                else None
            )
            entries = [entry for entry in section if entry["chapter"] == chapter]
            rows = [row for entry in entries for row in standings(entry)]
            lines = [f"**[](/{here})**" if here else f"**{chapter}**", ""]
            lines += [
                "| claim | test | measured | null | verdict |",
                "|---|---|---|---|---|",
            ]
            lines += [f"| {' | '.join(cells)} |" for _, cells in rows]
            part = nodes.container(classes=["part", slug(chapter.split("/")[0])])
            self.state.nested_parse(
                StringList(lines, self.env.docname), self.content_offset, part
            )
            (body,) = part.findall(nodes.tbody)
            for row, (verdict, _) in zip(body.findall(nodes.row), rows, strict=True):
                row["classes"].append(slug(verdict))
            container += part
        return [container]


def slug(name: str) -> str:
    """A name as a class."""
    return f"is-{name.replace(' ', '-')}"


def choices(section: list[dict]) -> str:
    """A choice of the part and one of the verdict, and the rules by which they hide what was not chosen."""
    rows = [row for e in section for row in (e, *map(e.get, claims.LAWS)) if row]
    verdicts = [
        v for v in get_args(claims.Verdict) if any(r["verdict"] == v for r in rows)
    ]
    parts = [p for p in PARTS if any(e["chapter"].startswith(f"{p}/") for e in section)]
    rules, fields = [], []
    for about, names in (("part", parts), ("verdict", verdicts)):
        options = ["<option>all</option>"]
        for name in names:
            label = PARTS.get(name, name)
            options.append(f'<option class="{slug(name)}">{escape(label)}</option>')
            chosen = f".scorecard:has(> p option.{slug(name)}:checked)"
            hidden = [f"{chosen} > .part:not(.{slug(name)})"]
            if about == "verdict":
                hidden = [
                    f"{chosen} > .part:not(:has(tr.{slug(name)}))",
                    f"{chosen} tbody tr:not(.{slug(name)})",
                ]
            rules.append(f"{', '.join(hidden)} {{ display: none; }}")
        if len(names) > 1:
            fields.append(f"<label>{about} <select>{''.join(options)}</select></label>")
    return f"<style>{' '.join(rules)}</style><p>{' '.join(fields)}</p>"


def standings(entry: dict) -> list[tuple[str, tuple[str, ...]]]:
    """A claim in a row for each way in which networks were trained: verdicts and cells."""
    rows = []
    for law in ("", *claims.LAWS):
        found = entry[law] if law else entry
        if not found:
            continue
        about = [entry["source"]]
        if law:
            about.append(claims.TITLES[law])
        if entry["post_hoc"]:
            about.append("post hoc")
        measured = numbers(found)
        if found["values"]:
            measured += "<br>" + ", ".join(f"{x:.3g}" for x in found["values"])
        null = found["null"] or {"what": "", "should": "fail", "value": None}
        control = null["what"] + ", should pass" * (null["should"] == "pass")
        cells = (
            f"{entry['statement']} ({', '.join(about)})",
            f"{entry['test']} {entry['threshold']:g} {found['unit']}".strip(),
            measured,
            f"{control}: {numbers(null)}".removesuffix(": "),
            f"{MARKS[found['verdict']]} {found['verdict']}",
        )
        rows.append((found["verdict"], cells))
    return rows


def numbers(found: dict) -> str:
    """A value with its interval, if it has one."""
    if found["value"] is None:
        return ""
    low, high = found["interval"]
    limits = f" ({low:.3g} to {high:.3g})" if low < high else ""
    return f"{found['value']:.3g}{limits}"


def summarise(app: Sphinx, config: Config) -> None:
    """Make the summary and its limits substitutions."""
    entries = claims.scorecard()
    config.myst_substitutions = config.myst_substitutions | {
        "scorecard": claims.summary(entries),
        "scorecard_limits": claims.limits(entries),
    }


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx, before MyST reads its settings."""
    app.add_directive("scorecard", Scorecard)
    app.connect("config-inited", summarise, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
