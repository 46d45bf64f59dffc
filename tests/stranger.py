"""A stranger's path: ``python -m tests.stranger --from clone`` does what the documents say, in a fresh environment.

Every command and every block of code of README.md, of the tutorial and of the how-to pages, from a clean clone of what
is committed, or from a wheel that was built from it, with any Python.  What is printed has to be what the page shows.
A part of it is in the tests: the tutorial, in the environment that they run in.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

from docs import blocks

__all__ = ["Fence", "LostError", "fences", "walk"]

ROOT = Path(__file__).parents[1]

# No command of a page takes so long unless it fails, in seconds; the first has to install what it needs.
LIMIT = 300.0

# Where the servers of the tutorial listen.
PORT = 4000

# Commands of README.md that are not run here, because they are sessions of their own, and take minutes.
LEFT_OUT = {
    "sudo apt-get install --no-install-recommends $(sed 's/#.*//' .ci/packages)": ".ci/run",
    "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/nox": ".ci/run",
    ".venv/bin/python -m benchmarks.chaos --peers": "nox -s chaos",
    ".venv/bin/pip install -e '.[dev]' && .venv/bin/nox -s bench -- --quick": "nox -s bench",
}

# Beside the extra `test`, what the programs of the how-to pages say that they need.
PEERS = ("PySide6-Essentials >= 6.12",)


class LostError(Exception):
    """A page says what is not so; the message says where and what."""


@attrs.frozen
class Fence:
    """A block of a page."""

    language: str
    text: str
    file: str | None
    """What the sentence above says that it is to be saved as."""


def fences(markdown: str) -> list[Fence]:
    """The blocks of a page, in order."""
    found = []
    lines = iter(markdown.splitlines())
    above = ""
    for line in lines:
        if begin := re.fullmatch(r"(`{3,})([\w-]*)", line):
            text = []
            for inner in lines:
                if inner == begin[1]:
                    break
                text.append(inner)
            named = re.search(r"(?:[Ss]ave this as|say so once, in) `([\w.]+)`[^`]*(?:`[\w.]+`)?:$", above)
            found.append(Fence(begin[2], "\n".join(text) + "\n", named[1] if named else None))
            above = ""
        elif line and not line.startswith("<!--"):
            above = line
    return found


# ---- a page that is followed ---------------------------------------------------------------


def walk(markdown: str, folder: Path, environment: Mapping[str, str]) -> int:
    """Do in ``folder`` what the page says; how many commands that was.

    A file is saved under the name that the sentence above gives.  A program that serves is left running until the next
    one.  What another command prints must be what the next block of text shows.

    Raises: LostError.
    """
    count = 0
    with Server(folder, environment) as server:
        # A test's settings stand below the test that needs them, as nobody runs it before.
        page = fences(markdown)
        for fence in page:
            if fence.file is not None:
                (folder / fence.file).write_text(fence.text, encoding="utf-8")
        for at, fence in enumerate(page):
            if fence.language != "sh" or "pip install" in fence.text:
                continue
            command = fence.text.strip()
            program = re.fullmatch(r"python (\w+\.py)", command)
            count += 1
            if program and "server.listen(" in (folder / program[1]).read_text(encoding="utf-8"):
                server.start(command)
                continue
            following = page[at + 1] if at + 1 < len(page) else None
            shown = following.text if following and following.language == "text" and not following.file else None
            run(command, folder, environment, shown)
    return count


def run(command: str, folder: Path, environment: Mapping[str, str], shown: str | None = None) -> str:
    """Run it as a shell does; what it printed.  Raises: LostError if it failed, or printed something else."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    if done.returncode:
        raise LostError(f"$ {command}\nended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    if shown is not None and done.stdout != shown:
        raise LostError(f"$ {command}\nprinted\n{done.stdout}and not\n{shown}")
    return done.stdout


class Server:
    """The one that runs in the first terminal."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, command: str) -> None:
        """Instead of the one before, until it listens."""
        self.stop()
        if listens():
            raise LostError(f"another program of this machine listens on port {PORT}")
        self._process = subprocess.Popen(command.split(), cwd=self._folder, env=self._environment)
        until = time.monotonic() + LIMIT
        while not listens():
            if self._process.poll() is not None or time.monotonic() > until:
                raise LostError(f"$ {command}\ndoes not listen on port {PORT}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def listens() -> bool:
    try:
        socket.create_connection(("127.0.0.1", PORT)).close()
    except ConnectionRefusedError:
        return False
    return True


# ---- the whole path ------------------------------------------------------------------------


@attrs.frozen
class Stranger:
    """Where the stranger is."""

    python: str
    clone: Path
    work: Path
    environment: dict[str, str]

    def say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)

    def set_up_clone(self) -> None:
        """The README's commands, but for those that are sessions of their own."""
        commands = [
            line
            for fence in fences((self.clone / "README.md").read_text(encoding="utf-8"))
            if fence.language == "sh"
            for line in fence.text.splitlines()
        ]
        if gone := LEFT_OUT.keys() - {*commands}:
            raise LostError(f"README.md has no longer: {gone}")
        for command in commands:
            if command not in LEFT_OUT:
                self.say(f"$ {command}")
                run(command, self.clone, self.environment)
        run(f".venv/bin/pip install -q -e '.[test]' {quoted(PEERS)}", self.clone, self.environment)

    def set_up_wheel(self) -> None:
        """What a package index would give, in the environment that the tutorial says."""
        run(f"{sys.executable} -m hatchling build -t wheel -d {self.work / 'dist'}", self.clone, self.environment)
        [wheel] = (self.work / "dist").iterdir()
        run("python3 -m venv .venv", self.work, self.environment)
        run(f".venv/bin/pip install -q '{wheel}[cli,test]' {quoted(PEERS)}", self.work, self.environment)
        run(".venv/bin/trioqt demo --seconds 3", self.work, self.environment)
        where = run(".venv/bin/python -c 'import trioqt; print(trioqt.__file__)'", self.work, self.environment)
        if "site-packages" not in where:
            raise LostError(f"the wheel is not what is used: {where}")

    def follow(self, pages: Path) -> None:
        """The tutorial, and each how-to: its program, and its tests."""
        folder = self.work / "tutorial"
        folder.mkdir()
        count = walk((pages / "docs" / "tutorial.md").read_text(encoding="utf-8"), folder, self.environment)
        self.say(f"docs/tutorial.md: {count} commands")
        for page in sorted((pages / "docs" / "howto").glob("*.md")):
            text = page.read_text(encoding="utf-8")
            done = [self.run_program(block, text, pages) for block in blocks.blocks_of(text) if block.kind == "output"]
            done += self.run_tests(page, text)
            self.say(f"docs/howto/{page.name}: {', '.join(done) or 'nothing to run by itself'}")

    def run_program(self, block: blocks.Block, text: str, pages: Path) -> str:
        begin = f"<!-- output: {' '.join(block.words)} -->\n\n```text\n"
        shown = text.partition(begin)[2].partition("\n```\n")[0] + "\n"
        run(f"python {' '.join(block.words)}", pages, self.environment, shown)
        return Path(block.words[0]).name

    def run_tests(self, page: Path, text: str) -> list[str]:
        code = re.findall(r"^```python\n(.*?)^```$", blocks.without_blocks(text), re.MULTILINE | re.DOTALL)
        if not code:
            return []
        folder = self.work / page.stem
        folder.mkdir()
        for block in blocks.blocks_of(text):
            shutil.copy(self.clone / block.words[0], folder)
        (folder / "test_page.py").write_text("\n".join(code), encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        return [run("python -m pytest -q -p no:cacheprovider", folder, self.environment).strip().splitlines()[-1]]


def quoted(requirements: tuple[str, ...]) -> str:
    return " ".join(f"'{requirement}'" for requirement in requirements)


@contextmanager
def stranger(python: str) -> Iterator[Stranger]:
    """Somebody who has a clone, one Python, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="stranger") as name:
        work = Path(name)
        subprocess.run(["git", "clone", "-q", str(ROOT), str(work / "clone")], check=True)
        programs = work / "bin"
        programs.mkdir()
        (programs / "python3").symlink_to(python)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TRIOQT", "VIRTUAL"))}
        yield Stranger(python, work / "clone", work, kept | {"PATH": f"{programs}:{os.environ['PATH']}"})


def main() -> int:
    """The whole path once; the status is 1 if it was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.stranger", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="which Python (default: this one)")
    parser.add_argument("--from", dest="source", choices=["clone", "wheel"], default="clone")
    options = parser.parse_args()
    python = os.path.realpath(options.python)
    with stranger(python) as path:
        path.say(f"{python}, from a {options.source}")
        try:
            if options.source == "clone":
                path.set_up_clone()
                pages, home = path.clone, path.clone
            else:
                path.set_up_wheel()
                # Without the package beside them.
                pages, home = path.work / "pages", path.work
                shutil.copytree(path.clone / "docs", pages / "docs")
            path.environment["PATH"] = f"{home / '.venv' / 'bin'}:{path.environment['PATH']}"
            path.follow(pages)
        except LostError as exc:
            print(exc, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
