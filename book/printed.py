"""Print the built book as one PDF, with a browser: `python book/printed.py`, after `make book`.

The articles of all pages are joined to one page, in the order of the contents. Its identifiers carry the name of their
page, so that none stands twice, and links between pages become links within the document.
"""

import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from posixpath import dirname, join, normpath

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Playwright, sync_playwright
from pypdf import PdfReader

from reactivation_core import store

BOOK = Path(__file__).parent
CHROMIUM = (
    shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
ARGUMENTS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()
TYPESET = """async () => {
    await MathJax.startup.promise
    await document.fonts.ready
    await Promise.all([...document.images].map(image => image.decode()))
}"""
NUMBER = """numbers => document.querySelectorAll("[data-of]").forEach(
    element => { element.textContent = numbers[element.dataset.of] ?? "" })"""
# What typesets a page: styles, and MathJax.
KEPT = (
    r'<link [^>]*rel="stylesheet"[^>]*>|<script>window\.MathJax.*?</script>'
    r"|<script[^>]*mathjax/[^>]*></script>"
)
# Named pages carry the running heads.
HEAD = "@page {name} {{ @top-left {{ content: {part}; }} @top-right {{ content: {title}; }} }}"


def contents() -> list[tuple[str, list[str]]]:
    """The parts of the book: a caption, and the names of its pages. The first page is a part without a caption."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    parts = [
        (part["caption"], [page["file"] for page in part["chapters"]])
        for part in toc["parts"]
    ]
    return [("", [toc["root"]]), *parts]


def anchor(page: str, name: str = "") -> str:
    """The identifier, in the whole book, of a page or of a place on it."""
    return f"{page}--{name}" if name else page


def article(folder: Path, page: str) -> Tag:
    """What a page says, as it is printed in the book."""
    soup = BeautifulSoup((folder / f"{page}.html").read_text("utf-8"), "html.parser")
    found = soup.select_one("article.bd-article")
    if found is None:
        raise ValueError(f"expected an article in {page}.html, found none")
    for element in found.select("script, .headerlink, [data-live], .scorecard > p"):
        # A picture that plays has one that stands.
        still = element.img
        element.replace_with(still) if still else element.decompose()
    for element in found.select("noscript"):
        element.unwrap() if page == "live" else element.decompose()
    # Of what is folded, solutions and tables are printed, and the code of drawings is not.
    for fold in found.select("details"):
        if "hide" in fold["class"]:
            for element in fold.select("summary, .cell_input"):
                element.decompose()
            fold.unwrap()
        else:
            fold["open"] = ""
    for level in range(5, 0, -1):
        for heading in found.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"
    # Sphinx gives several proofs of a page one identifier; the first has it.
    seen = set()
    for element in found.select("[id]"):
        name = element["id"] = anchor(page, str(element["id"]))
        if name in seen:
            del element["id"]
        seen.add(name)
    for image in found.select("img"):
        image["src"] = normpath(join(dirname(page), str(image["src"])))
    return found


def link(articles: dict[str, Tag]) -> None:
    """Turn links to pages into links within the book, and take out those to files beside it."""
    places = {
        str(place["id"]) for of in articles.values() for place in of.select("[id]")
    }
    for page, of in articles.items():
        for a in of.select("a[href]"):
            target, _, place = str(a["href"]).partition("#")
            if re.match(r"\w+:", target):
                continue
            name = (
                normpath(join(dirname(page), target)).removesuffix(".html")
                if target
                else page
            )
            if name not in articles:
                a.unwrap()
                continue
            to = anchor(name, place)
            a["href"] = f"#{to if to in places else name}"


def whole(folder: Path) -> str:
    """The book as one page, to lie in the folder of the built one."""
    settings = yaml.safe_load((BOOK / "_config.yml").read_text(encoding="utf-8"))
    parts = contents()
    articles = {page: article(folder, page) for _, pages in parts for page in pages}
    link(articles)
    titles = {page: of.select("h2")[0] for page, of in articles.items()}
    heads, toc, body = [], [], []
    for caption, pages in parts:
        if caption:
            toc.append(f'<div class="caption">{caption}</div>')
        for i, page in enumerate(pages):
            title = titles[page].get_text()
            name = re.sub(r"\W", "-", page)
            heads.append(
                HEAD.format(name=name, part=quote(caption), title=quote(short(title)))
            )
            toc.append(
                f'<p><a href="#{page}">{titles[page].decode_contents()}</a><span class="page" data-of="{page}"></span></p>'
            )
            part = f'<h1 class="part">{caption}</h1>' if caption and not i else ""
            body.append(
                f'<section class="chapter" id="{page}" style="page: {name}">{part}{articles[page].decode_contents()}</section>'
            )
    # A page without an equation does not ask for MathJax.
    kept = dict.fromkeys(
        found.replace('"../', '"')
        for page in articles
        for found in re.findall(KEPT, (folder / f"{page}.html").read_text("utf-8"))
    )
    return TEMPLATE.format(
        title=settings["title"],
        author=settings["author"],
        version=f"Version {version('reactivation-core')}, commit {store.commit()}",
        head="\n".join(kept),
        style=(BOOK / "printed.css").read_text("utf-8") + "\n".join(heads),
        contents="\n".join(toc),
        body="\n".join(body),
    )


def quote(text: str) -> str:
    """A string of CSS."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def short(title: str, limit: int = 80) -> str:
    """A title that fits the head of a page, cut between words."""
    if len(title) <= limit:
        return title
    return title[:limit].rsplit(" ", 1)[0].rstrip(",;:") + " …"


TEMPLATE = """<!DOCTYPE html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<title>{title}</title>
{head}
<style>{style}</style>
</head>
<body>
<section class="title-page">
<p class="title">{title}</p>
<p>{author}</p>
<p>{version}</p>
</section>
<nav class="contents"><h1>Contents</h1>
{contents}
</nav>
<main class="bd-main"><article class="bd-article">
{body}
</article></main>
</body>
</html>
"""


def print_book(browser: Browser, folder: Path, path: Path) -> None:
    """Print the book that is built in a folder, and again with the numbers of the pages on which chapters began.

    Each time the page is loaded anew: what is printed again is broken into pages differently.
    """
    source = folder / "printed.html"
    source.write_text(whole(folder), encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers, before = {}, None
    try:
        while numbers != before:
            page = browser.new_page()
            page.set_default_timeout(300_000)
            page.goto(source.resolve().as_uri(), wait_until="load")
            page.evaluate(TYPESET)
            page.evaluate(NUMBER, numbers)
            page.pdf(path=path, prefer_css_page_size=True, outline=True, tagged=True)
            page.close()
            numbers, before = beginnings(path), numbers
    finally:
        source.unlink()


def beginnings(path: Path) -> dict[str, int]:
    """On which page of a printed book each chapter begins."""
    reader = PdfReader(path)
    found = {}
    for name, place in reader.named_destinations.items():
        number = reader.get_destination_page_number(place)
        if number is not None and "--" not in name:
            found[name.removeprefix("/")] = number + 1
    return found


def launch(playwright: Playwright) -> Browser:
    """The browser, without a network."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


def main() -> None:
    folder, path = BOOK / "_build" / "html", BOOK / "_build" / "pdf" / "book.pdf"
    if CHROMIUM is None:
        sys.exit(
            "expected Chromium, to print with, found none; on Debian: apt-get install chromium"
        )
    with sync_playwright() as playwright:
        print_book(launch(playwright), folder, path)
    print(f"The book: {path}")


if __name__ == "__main__":
    main()
