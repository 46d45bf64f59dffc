"""What a package index gets: the wheel, built from the sdist and without the net, and what it says of itself."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
from markdown_it import MarkdownIt

import trioqt

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def build(kind: str, source: Path, target: Path) -> Path:
    """The sdist or the wheel of what is in ``source``."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    [built] = target.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the sdist, as installers build it that get no wheel: it must have all that the wheel is made from."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    sdist = build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))
    subprocess.run(["tar", "-xf", str(sdist), "-C", str(unpacked)], check=True)
    [source] = unpacked.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """The wheel's METADATA; its payload is the long description."""
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def urls_of(metadata: Message) -> dict[str, str]:
    return dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))


def links(markdown: str) -> list[str]:
    """Where its links and pictures lead, in every way that Markdown has to write them."""
    return re.findall(r'(?:href|src)="([^"]*)"', MarkdownIt().render(markdown))


def is_relative(link: str) -> bool:
    return not re.match(r"\w+:|#", link)


def test_the_version_is_said_once(wheel: Path, metadata: Message) -> None:
    """In ``trioqt.__version__``; the wheel has it from there."""
    assert metadata["Version"] == trioqt.__version__
    assert wheel.name == f"trioqt-{trioqt.__version__}-py3-none-any.whl"
    assert "version" not in PROJECT["project"]


def test_the_wheel_says_where_everything_is(metadata: Message) -> None:
    """The sources, the documentation, the news and where to tell of a bug, all in one place."""
    urls = urls_of(metadata)

    assert list(urls) == ["Source", "Documentation", "Changes", "Issues"]
    assert urls["Source"].startswith("https://")
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    shown = [url.removeprefix(f"{urls['Source']}/blob/main/") for url in (urls["Documentation"], urls["Changes"])]
    assert [(ROOT / path).is_file() for path in shown] == [True, True]


def test_the_links_of_the_readme_lead_somewhere_from_a_package_index(metadata: Message) -> None:
    """README.md has relative links; in the long description each leads to the same file where the sources are.

    A picture leads to the file as it is, and not to the page that shows it.
    """
    in_readme = links((ROOT / "README.md").read_text(encoding="utf-8"))
    source = urls_of(metadata)["Source"]

    in_description = links(str(metadata.get_payload()))

    def target(link: str) -> str:
        return f"{source}/{'raw' if link.endswith('.svg') else 'blob'}/main/{link}" if is_relative(link) else link

    assert any(map(is_relative, in_readme))
    assert any(link.endswith(".svg") for link in in_readme)
    assert in_description == list(map(target, in_readme))
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.parametrize(
    "markdown",
    [
        "[a](docs/b.md)",
        "![a](docs/b.md)",
        "[a]\n\n[a]: docs/b.md",
        '<a href="docs/b.md">',
        "[![b](docs/b.md)](https://c)",
    ],
)
def test_a_relative_link_is_found(markdown: str) -> None:
    """The test above can fail, in whatever way a link is written."""
    assert [link for link in links(markdown) if is_relative(link)] == ["docs/b.md"]


def test_what_builds_the_wheel_is_there_for_developers() -> None:
    """So that these tests need no net."""
    assert set(PROJECT["build-system"]["requires"]) <= set(PROJECT["project"]["optional-dependencies"]["dev"])
