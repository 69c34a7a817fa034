"""The built book, as a reader's browser shows it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

axe = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# One page of each kind.
KINDS = ("live", "intro", "results/figure_1", "theory/upper_bound", "verdict/scorecard", "references")
# What docutils and the theme write, by the rule that it breaks and the markup: not ours to mend.
THEME = (
    ("aria-deprecated-role", 'role="doc-biblioentry"'),
    ("aria-required-children", 'class="citation-list"'),
)
# What is around it is the same on all pages, and looked at on the first; mathematics has a voice of its own.
ARTICLE = {"include": [["article"]], "exclude": [["mjx-container"]]}
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}

# What of a page only the browser knows. `math` holds equations that were not typeset, or with an error.
SEEN = """async () => {
    await window.MathJax?.startup?.promise
    for (const image of document.images) image.loading = "eager"
    await Promise.all([...document.images].map(image => image.decode().catch(() => 0)))
    const all = selector => [...document.querySelectorAll(selector)]
    return {
        width: document.scrollingElement.scrollWidth,
        broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
        silent: all("article img").filter(image => !image.alt || image.alt.endsWith(".png")).map(image => image.src),
        math: all(".math").filter(e => !e.querySelector("mjx-container") || e.querySelector("mjx-merror"))
            .map(e => e.textContent),
        ids: all("[id], a[name]").map(element => element.id || element.name),
        links: all("a[href]").map(link => link.href),
    }
}"""


def jupyter_book(source, *options):
    """Build the book strictly: the exit status, and what was said."""
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "-n", "-W", "--keep-going", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """The book, built from nothing, and what Sphinx said."""
    folder = tmp_path_factory.mktemp("book")
    return *jupyter_book(ROOT / "book", "--path-output", folder), folder / "_build" / "html"


@pytest.fixture(scope="module")
def site(build, serve):
    """The address of the built book, and its folder."""
    folder = build[2]
    # The page that forwards to the first one names no icon; a browser asks for this one then, if it is quick enough.
    (folder / "favicon.ico").touch()
    with serve(folder) as address:
        yield address, folder


def test_the_book_builds_without_a_warning(build):
    code, output, _ = build
    assert "WARNING" not in output, output
    assert code == 0, output


def test_without_data_there_is_no_book_but_one_message(tmp_path):
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("_build"))
    code, output = jupyter_book(tmp_path / "book")
    assert code == 1
    assert output.count(f"expected the folder {tmp_path / 'data'}") == 1
    assert "Traceback" not in output


def test_equations_of_the_paper_have_its_numbers(build):
    pages = "".join(path.read_text() for path in build[2].rglob("*.html"))
    found = re.findall(r'id="equation-paper-([\w-]+)">\s*<span class="eqno">\(([^<]*)\)<', pages)
    assert len(found) == pages.count('id="equation-paper-') > 0
    for label, number in found:
        assert re.sub(r"\W", "-", number.lower()) == label


def test_every_page_is_whole(site, browser):
    address, folder = site
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.html") if "_static" not in path.parts
    )
    assert "intro.html" in names
    problems, pages = [], {}
    # One context keeps what pages share, so that it is loaded once.
    context = browser.new_context()
    for name in names:
        page = context.new_page()

        def note(problem, name=name):
            problems.append(f"{name}: {problem}")

        page.on("console", lambda message, note=note: message.type == "error" and note(f"console: {message.text}"))
        page.on("pageerror", lambda error, note=note: note(f"script: {error}"))
        page.on("response", lambda answer, note=note: answer.ok or note(f"{answer.status} {answer.url}"))
        page.on("request", lambda ask, note=note: ask.url.startswith((address, "data:")) or note(f"asks for {ask.url}"))
        if name not in ("index.html", "intro.html", "live.html"):
            page.on("request", lambda ask, note=note: "/live/" in ask.url and note(f"loads {ask.url}"))
        for width, scheme in ((1400, "light"), (390, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            if page.url == "about:blank":
                page.goto(address + name, wait_until="load")
                page.wait_for_load_state("networkidle")
            seen = pages[name] = page.evaluate(SEEN)
            for what in ("broken", "silent", "math"):
                for item in seen[what]:
                    note(f"{what}: {item}")
            if seen["width"] > width:
                note(f"{seen['width']} pixels wide, in {width}")
        page.close()
    for name, seen in pages.items():
        for link in set(seen["links"]):
            if not link.startswith(address):
                continue
            parts = urlsplit(link)
            target, anchor = unquote(parts.path).lstrip("/") or "index.html", unquote(parts.fragment)
            if not (folder / target).is_file():
                problems.append(f"{name}: dead link to {target}")
            # A setting of the live network is no place on its page.
            elif anchor and "=" not in anchor and target in pages and anchor not in pages[target]["ids"]:
                problems.append(f"{name}: dead link to {target}#{anchor}")
    assert not problems, "\n".join(problems)


def test_pages_are_accessible(site, browser):
    """Of each kind of page one, by what axe-core finds against WCAG 2.1, levels A and AA."""
    problems = []
    page = browser.new_page(reduced_motion="reduce")
    for name in KINDS:
        page.goto(f"{site[0]}{name}.html", wait_until="load")
        page.wait_for_load_state("networkidle")
        if name == "live":
            page.check("input[name=swarm]")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for finding in axe.Axe().run(page, None if name == "live" else ARTICLE, WCAG).response["violations"]:
                for html in (node["html"] for node in finding["nodes"]):
                    if not any(rule == finding["id"] and part in html for rule, part in THEME):
                        problems.append(f"{name}, {scheme}: {finding['id']}: {html[:200]}")
    page.close()
    assert not problems, "\n".join(problems)


def test_the_scorecard_shows_what_is_chosen(site, browser):
    page = browser.new_page()
    page.goto(site[0] + "verdict/scorecard.html", wait_until="load")
    card = page.locator(".scorecard").first
    part, verdict = card.locator("select").all()
    rows, tables = card.locator("tbody tr:visible"), card.locator(".part:visible")
    everything = rows.count(), tables.count()
    verdict.select_option("undecided")
    assert 0 < rows.count() < everything[0] and 0 < tables.count() < everything[1]
    assert {text.strip() for text in rows.locator("td:last-child").all_inner_texts()} == {"~ undecided"}
    verdict.select_option("all")
    part.select_option("theory")
    assert 0 < tables.count() < everything[1]
    part.select_option("all")
    assert (rows.count(), tables.count()) == everything
    page.close()


def test_a_page_on_paper_is_its_text(site, browser):
    page = browser.new_page()
    page.emulate_media(media="print")
    for name, shown in (("theory/upper_bound", "h1, pre, figure, mjx-container"), ("verdict/scorecard", "h1, table")):
        page.goto(f"{site[0]}{name}.html", wait_until="load")
        left = page.evaluate(
            """() => [...document.querySelectorAll("nav, aside, header, footer, button, select, details, .headerlink")]
                .filter(e => e.checkVisibility() && e.getBoundingClientRect().height).map(e => e.outerHTML)"""
        )
        assert not left
        assert page.locator(f"article :is({shown})").first.is_visible()
    page.close()


@pytest.fixture(scope="module")
def joined(build, printed):
    """The whole book as one page."""
    return printed.whole(build[2])


def test_the_whole_book_has_every_page_and_its_links_lead_somewhere(joined, printed):
    soup = printed.BeautifulSoup(joined, "html.parser")
    ids = [element["id"] for element in soup.select("[id]")]
    assert len(ids) == len(set(ids))
    chapters = [page for _, pages in printed.contents() for page in pages]
    assert [section["id"] for section in soup.select("section.chapter")] == chapters
    links = [a["href"] for a in soup.select("a[href]")]
    assert {link.partition("#")[0].partition(":")[0] for link in links} <= {"", "http", "https", "mailto"}
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    # Of what pages fold, solutions and tables are printed, and the code of drawings is not.
    assert not soup.select("details.hide, summary .collapsed, script[src*=live], button")
    assert "figure.legend(" not in soup.select_one("#theory\\/upper_bound").get_text()


def test_the_book_is_printed(build, printed, browser, tmp_path, monkeypatch):
    pages = ["intro", "theory/setup", "theory/upper_bound", "references"]
    monkeypatch.setattr(printed, "contents", lambda: [("", pages[:1]), ("Theory", pages[1:])])
    printed.print_book(browser, build[2], tmp_path / "book.pdf")
    reader = printed.PdfReader(tmp_path / "book.pdf")
    texts = [page.extract_text() for page in reader.pages]
    text = "\n".join(texts)
    assert 15 < len(texts) < 60
    assert "Math Processing Error" not in text and "$$" not in text and "\\frac" not in text
    soup = printed.BeautifulSoup(printed.whole(build[2]), "html.parser")
    for page, number in printed.beginnings(tmp_path / "book.pdf").items():
        title = " ".join(soup.find(id=page).h2.get_text().split())
        assert title.replace(" ", "") in texts[number - 1].replace(" ", "").replace("\n", "")
        assert re.search(rf"\b{number}$", texts[1], re.MULTILINE)
    assert set(printed.beginnings(tmp_path / "book.pdf")) == set(pages)
    # Bookmarks: parts, their chapters and sections.
    assert [mark.title for mark in reader.outline if not isinstance(mark, list)] == ["Contents", "THEORY"]
