"""The built documentation in a real browser: every page, every link, every picture.

``nox -s docs`` builds it and says where in TRIOQT_SITE; otherwise it is built here.
"""

from __future__ import annotations

import functools
import http.server
import os
import pydoc
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
import trio

from tests.browser import LIMIT, running_chromium
from tests.peers import peer_command

ROOT = Path(__file__).parents[1]

# What a page has in it, once it is loaded.
PAGE = """
({
  title: document.title,
  links: [...document.querySelectorAll("a[href]")].map((link) => link.href),
  names: [...document.querySelectorAll("[id]")].map((element) => element.id),
  pictures: [...document.images].map((image) => [image.src, image.complete && image.naturalWidth > 0]),
  bare: [...document.querySelectorAll("dl.py > dt[id]")].filter((term) => {
    let text = term.nextElementSibling;
    while (text && text.tagName === "DT") text = text.nextElementSibling;
    return !text || text.textContent.trim() === "";
  }).map((term) => term.id),
  members: document.querySelectorAll("dl.py > dt[id]").length,
  wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
})
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the pages."""
    if "TRIOQT_SITE" in os.environ:
        return Path(os.environ["TRIOQT_SITE"])
    folder = tmp_path_factory.mktemp("html")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-d", str(tmp_path_factory.mktemp("doctrees"))]
    subprocess.run([*command, str(ROOT / "docs"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    """Where a server shows it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_every_link_leads_somewhere_and_no_page_complains(built: Path, site: str, tmp_path: Path) -> None:
    """From the start page on, each page is opened once: its console is silent, and its pictures are there.

    Every member that the reference lists has a text.
    What a link names within a page is in that page.  Links to elsewhere are not followed: a test needs no net.
    """
    program = peer_command("chromium")
    pages: dict[str, dict[str, Any]] = {}
    # Sphinx makes three more, to which only a form leads.
    waiting = [f"{site}{name}.html" for name in ("index", "search", "genindex", "py-modindex")]
    with trio.fail_after(5 * LIMIT):
        async with running_chromium(program, tmp_path) as browser:
            while waiting:
                url = waiting.pop()
                if url in pages:
                    continue
                await browser.open(url)
                pages[url] = await browser.evaluate(PAGE)
                inside = (urldefrag(link)[0] for link in pages[url]["links"] if link.startswith(site))
                waiting += [link for link in inside if link.endswith(".html")]
    assert_whole(built, site, pages)
    assert sum(found["members"] for found in pages.values()) > 600
    assert [name for found in pages.values() for name in found["bare"] if not is_explained(name)] == []
    assert browser.complaints == []


def is_explained(name: str) -> bool:
    """A value without a text of its own is named in that of its class, under ``Attributes``."""
    owner, _, member = name.rpartition(".")
    return bool(re.search(rf"\b{member}\b", getattr(pydoc.locate(owner), "__doc__", None) or ""))


def assert_whole(built: Path, site: str, pages: dict[str, dict[str, Any]]) -> None:
    """All links among the pages lead to what is there, and to each page leads one."""
    shown = {unquote(url.removeprefix(site)) for url in pages}
    links = {(page, link) for page, found in pages.items() for link in found["links"] if link.startswith(site)}
    files = {unquote(urldefrag(link)[0].removeprefix(site)) or "index.html" for _, link in links}
    broken = [
        (page, link)
        for page, link in links
        if (target := urldefrag(link)).url in pages
        and target.fragment
        and unquote(target.fragment) not in pages[target.url]["names"]
    ]

    assert {name for name in files if not (built / name).is_file()} == set()
    assert broken == []
    assert [picture for found in pages.values() for picture, is_there in found["pictures"] if not is_there] == []
    # Nothing is built that no link leads to.
    assert shown == {str(path.relative_to(built)) for path in built.rglob("*.html") if "_static" not in path.parts}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
async def test_pages_can_be_read_wide_and_on_a_phone_by_day_and_by_night(
    site: str, tmp_path: Path, width: int, scheme: str
) -> None:
    """The start page, a lesson's picture and the drawing of the states: not blank, no wider than the screen.

    The letters of the drawing are no smaller than ten pixels, and its paper is as light or as dark as the page.
    """
    program = peer_command("chromium")
    with trio.fail_after(2 * LIMIT):
        async with running_chromium(program, tmp_path) as browser:
            await browser.show_as(width, scheme)
            await browser.open(f"{site}index.html")
            start = await browser.look_at("body")
            start_page = await browser.evaluate(PAGE)
            demo = await browser.look_at('img[src$="demo.svg"]')
            await browser.open(f"{site}lessons.html")
            lesson = await browser.look_at('img[src$="half_close.svg"]')
            lesson_page = await browser.evaluate(PAGE)
            await browser.open(f"{site}topics/states.html")
            states = await browser.look_at('img[src$="states.svg"]')
            states_page = await browser.evaluate(PAGE)
            scale = await browser.evaluate(
                """(() => {const image = document.querySelector('img[src$="states.svg"]');
                return image.getBoundingClientRect().width / image.naturalWidth})()"""
            )

    assert browser.complaints == []
    for look in (start, demo, lesson, states):
        assert look.colours > 10
        assert look.drawn > 0.01
    assert [page["wide"] for page in (start_page, lesson_page, states_page)] == [False, False, False]
    assert 13 * scale >= 10  # its letters have 13 px
    for look in (start, lesson, states):
        assert (look.paper > 128) == (scheme == "light")


# Of each table that is wider than the screen, scrolled: where its first column begins, and how wide that is.
FIRST_COLUMNS = """
[...document.querySelectorAll("article table")].filter((table) => table.offsetWidth > innerWidth).map((table) => {
  table.parentElement.scrollLeft = 100;
  const box = table.rows[table.rows.length - 1].cells[0].getBoundingClientRect();
  return [box.x, box.width];
})
"""


async def test_a_wide_table_can_be_read_on_a_phone(site: str, tmp_path: Path) -> None:
    """While one scrolls in it the first column stays, and takes no more than half of the screen."""
    program = peer_command("chromium")
    with trio.fail_after(2 * LIMIT):
        async with running_chromium(program, tmp_path) as browser:
            await browser.show_as(420, "light")
            columns = []
            for page in ("index", "topics/from-qt", "topics/reliability", "topics/limits"):
                await browser.open(f"{site}{page}.html")
                columns += await browser.evaluate(FIRST_COLUMNS)

    assert len(columns) > 15
    assert [(x, width) for x, width in columns if not (0 <= x < 20 and width <= 210)] == []


async def test_the_console_and_lost_pictures_are_noticed(tmp_path: Path) -> None:
    """The tests above can fail: a page with an error, a missing picture and a blank one."""
    program = peer_command("chromium")
    page = tmp_path / "page.html"
    page.write_text("<img src=gone.svg><div style='width: 90px; height: 90px'></div><script>gone()</script>")
    with trio.fail_after(LIMIT):
        async with running_chromium(program, tmp_path / "profile") as browser:
            await browser.open(page.as_uri())
            found = await browser.evaluate(PAGE)
            blank = await browser.look_at("div")

    assert [is_there for _, is_there in found["pictures"]] == [False]
    assert len(browser.complaints) == 2
    assert (blank.colours, blank.drawn) == (1, 0)
