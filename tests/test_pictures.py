"""The pictures of the documentation are those that the code draws today, and can be read."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import attrs
import pytest

from trioqt.core.socket_state import SocketState
from trioqt.core.states import TRANSITIONS, Input

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "_static" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"

RECORDING = "demo"
"""Is drawn by rich, and looks as its release wants it."""
NAMES = sorted(path.stem for path in FOLDER.glob("*.svg") if path.stem != RECORDING)
DRAWN = ("states", "nursery_tree", "two_buffers")
"""Those that are made for a phone; a ladder is as wide as its labels."""


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    """docs/pictures.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()).replace("\xa0", " ") for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def parsed(name: str) -> ElementTree.Element:
    return ElementTree.parse(FOLDER / f"{name}.svg").getroot()


def test_every_picture_is_up_to_date(pictures: ModuleType) -> None:
    """To mend: ``python docs/pictures.py``."""
    drawn = {path.stem: svg for path, svg in pictures.draw_all()}
    recording = drawn.pop(RECORDING)

    assert sorted(drawn) == NAMES
    assert texts(recording) == texts((FOLDER / f"{RECORDING}.svg").read_text())
    assert [name for name, svg in drawn.items() if (FOLDER / f"{name}.svg").read_text() != svg] == []


def test_they_are_the_same_in_every_process() -> None:
    """Where hashes are others, too."""
    code = (
        "import hashlib, runpy; names = runpy.run_path('docs/pictures.py')\n"
        "for path, svg in names['draw_all'](): print(path.stem, hashlib.sha256(svg.encode()).hexdigest())"
    )
    runs = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        runs.append(done.stdout)

    assert runs[0] == runs[1]
    assert sorted(line.split()[0] for line in runs[0].splitlines()) == sorted([*NAMES, RECORDING])


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_has_a_title_and_a_light_and_a_dark_look_and_needs_nothing_from_elsewhere(name: str) -> None:
    """In light and dark every colour has another value."""
    root = parsed(name)
    title = root.find(f"{SVG}title")
    style = root.find(f"{SVG}style")
    assert title is not None
    assert style is not None
    light, dark = (style.text or "").split("@media (prefers-color-scheme:dark){")
    colours = [dict(re.findall(r"--(\w+):(#\w+)", part)) for part in (light, dark)]

    assert (title.text or "").strip()
    assert colours[0].keys() == colours[1].keys()
    assert {colour for colour in colours[0] if colours[0][colour] == colours[1][colour]} == set()
    assert set(re.findall(r"var\(--(\w+)\)", style.text or "")) <= colours[0].keys()
    assert re.findall(r"(?:href|src|url|@import)", (FOLDER / f"{name}.svg").read_text()) == []


@attrs.frozen
class Place:
    """What a text covers."""

    text: str
    left: float
    right: float
    line: float

    def overlaps(self, other: Place) -> bool:
        return abs(self.line - other.line) < 11 and self.left < other.right and other.left < self.right


def places(name: str) -> Iterator[Place]:
    """Of every text, in a font whose characters are 0.6 of their height wide, as monospaced ones are."""
    for text in parsed(name).iter(f"{SVG}text"):
        words = "".join(text.itertext())
        width = len(words) * (7.8 if name in DRAWN else 8.4)
        x = (
            float(text.attrib["x"])
            - {"start": 0.0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
        )
        yield Place(words, x, x + width, float(text.attrib["y"]))


@pytest.mark.parametrize("name", NAMES)
def test_no_text_runs_into_another_or_out_of_the_picture(name: str) -> None:
    """Also on a machine whose fonts are a little wider."""
    left, _, width, height = (float(number) for number in parsed(name).attrib["viewBox"].split())
    found = list(places(name))

    assert len(found) > 5
    assert [one for one in found if one.left < left or one.right > left + width or not 10 < one.line < height] == []
    assert [pair for pair in itertools.combinations(found, 2) if pair[0].overlaps(pair[1])] == []


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_fits_a_phone_in_its_own_size(name: str) -> None:
    """420 pixels."""
    assert float(parsed(name).attrib["width"]) <= 420


def test_the_drawing_of_the_states_has_every_state_and_every_change() -> None:
    """A name for each state, the first one twice; a label for each input on each arrow, and none for what changes
    nothing.
    """
    shown = sorted(place.text for place in places("states"))
    arrows: dict[tuple[SocketState, SocketState], list[Input]] = {}
    for (state, happened), (following, _) in TRANSITIONS.items():
        if following is not state:
            arrows.setdefault((state, following), []).append(happened)
    labels = [happened.name for inputs in arrows.values() for happened in inputs]

    assert shown == sorted([*SocketState.__members__, "UNCONNECTED", *labels])


def test_a_transition_that_is_added_is_drawn(pictures: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept by hand but where the states stand."""
    monkeypatch.setitem(TRANSITIONS, (SocketState.LISTENING, Input.FLUSHED), (SocketState.CONNECTING, ()))

    assert pictures.states().count("FLUSHED") == (FOLDER / "states.svg").read_text().count("FLUSHED") + 1


def test_the_recording_of_the_demo_shows_a_run_in_which_all_is_well() -> None:
    """Some clients are at work and some have ended, then the summary; the README shows it."""
    svg = (FOLDER / f"{RECORDING}.svg").read_text()
    shown = "".join(texts(svg))

    assert "trioqt demo" in shown
    assert all(mark in shown for mark in "●✓○✗")
    assert "all is well: " in shown
    assert re.findall(r"(?:href|src|url)\W*(?:https?:)?//", svg) == []
    assert f"(docs/_static/pictures/{RECORDING}.svg)" in (ROOT / "README.md").read_text()
