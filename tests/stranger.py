"""A stranger's path: ``python -m tests.stranger --from clone`` does what the documents say, in a fresh environment.

Every command and every block of README.md, of the tutorial, of the lessons and of the how-to pages, from a clean clone
of what is committed, or from a wheel that was built from it, with any Python.  What is printed has to be what the page
shows.  What is not done, or not to the letter, has a reason: ``LEFT_OUT`` and ``SHORTER``, printed at the end.
A part of it is in the tests: the tutorial, in the environment that they run in, and that nothing else is left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
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

__all__ = ["Fence", "LostError", "doings", "fences", "inline_commands", "walk"]

ROOT = Path(__file__).parents[1]

# No command of a page takes so long unless it fails, in seconds; some have to install what they need.
LIMIT = 600.0

# ---- what is not done to the letter ------------------------------------------------------------

# Commands that take minutes, or need more rights: what is run instead, and why that is enough.
SHORTER = {
    "sudo apt-get update && sudo apt-get install --no-install-recommends $(sed 's/#.*//' .ci/packages)": (
        "apt-get install --simulate --no-install-recommends $(sed 's/#.*//' .ci/packages)",
        "needs root; .ci/run installs them",
    ),
    "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/nox": (
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/nox -s lint examples",
        "the rest takes twenty minutes; .ci/run runs the line as it stands",
    ),
    ".venv/bin/python -m benchmarks.chaos --peers": (
        ".venv/bin/python -m benchmarks.chaos --peers --only raise,half-close --scale 0.2",
        "all cases take ten minutes; tests/chaos runs each with trioqt",
    ),
    ".venv/bin/pip install -e '.[dev]' && .venv/bin/nox -s bench -- --quick": (
        ".venv/bin/pip install -q -e '.[dev]' && "
        ".venv/bin/nox -s bench -- --quick --row echo:1 --servers trioqt --rounds 1 --seconds 0.1",
        "one row and one round of nine rows and three, beside raw trio alone",
    ),
    ".venv/bin/nox -s conformance -- --live": (
        ".venv/bin/nox -s conformance -- --live udp",
        "one group of scenarios of five",
    ),
    ".venv/bin/nox -s docs": (
        ".venv/bin/nox -s docs -- -k every_link",
        "the site is built whole, and every link in it followed; .ci/run has the browser look at more",
    ),
    "trioqt demo --slow": ("trioqt demo --slow --clients 2", "two clients of six"),
}

# From a wheel, README's commands but these: they are about the repository.
NEEDS_CLONE = r"pip install -e|apt-get|nox|benchmarks"

INSTALLED = "has been installed for all pages at once"
NEEDS_SYSTEMD = "needs root, and systemd as process 1; the same server is started by systemd-socket-activate below"

# Blocks and inline commands that are not done at all: page, and first line.
LEFT_OUT = {
    ("docs/howto/systemd_socket.md", "systemctl daemon-reload"): NEEDS_SYSTEMD,
    (
        "docs/howto/proxy.md",
        "https_proxy=http://proxy.example:3128 no_proxy=.lan,10.0.0.0/8 python program.py",
    ): "needs such a proxy; the program of the page sets the variable itself",
    ("docs/howto/beside_qt.md", "pip install PySide6-Essentials"): INSTALLED,
    ("docs/howto/encrypt.md", "pip install 'trioqt[tls]'"): INSTALLED,
    ("docs/howto/encrypt.md", "pip install -e '.[tls]'"): INSTALLED,
}

# What is said of these in a sentence is typed as part of something else.
INLINE = {
    "pytest --trioqt-seeds=20": "with the tests of docs/howto/partition.md",
    "trioqt connect 127.0.0.1 4000": "with the server of the tutorial, as `printf ... | trioqt connect`",
}

# Programs of examples/ that serve until they are stopped, and what tells that they are ready.
SERVERS = {"examples/graceful_stop.py": 4000, "examples/echo_server.py": 4000, "examples/be_found.py": 45455}

# What a program prints that is not the same on every machine.
PRINTS = {"examples/find_servers.py": r"(\S+ \d+ hello\n)+"}

# Beside the extra `test`, what the programs of the how-to pages say that they need.
PEERS = ("PySide6-Essentials >= 6.12",)


class LostError(Exception):
    """A page says what is not so; the message says where and what."""


# ---- a page that is taken apart ----------------------------------------------------------------


@attrs.frozen
class Fence:
    """A block of a page."""

    language: str
    text: str
    file: str | None = None
    """What the sentence above says that it is to be saved as."""
    block: blocks.Block | None = None
    """What it was written from; nothing if it was typed."""

    @property
    def command(self) -> str:
        return self.text.strip()


def fences(markdown: str) -> list[Fence]:
    """The blocks of a page, in order."""
    found = []
    lines = iter(markdown.splitlines())
    above, block = "", None
    for line in lines:
        if begin := re.fullmatch(r"(`{3,})([\w-]*|\{[\w-]+\})", line):
            text = []
            for inner in lines:
                if inner == begin[1]:
                    break
                text.append(inner)
            named = re.search(r"(?:[Ss]ave this as|say so once, in) `([\w.]+)`[^`]*(?:`[\w.]+`)?:$", above)
            found.append(Fence(begin[2], "\n".join(text) + "\n", named[1] if named else None, block))
            above = ""
        elif comment := blocks.BEGIN.fullmatch(line):
            block = blocks.Block(comment[1], tuple(comment[2].split()))
        elif line == blocks.END:
            block = None
        elif line:
            above = line
    return found


def inline_commands(markdown: str) -> list[str]:
    """Those that stand in a sentence."""
    prose = re.sub(r"^(`{3,}).*?^\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    begins = (
        r"\S*bin/\S+ |trioqt (?:demo|connect|serve|states)\b|python \S+\.py|pytest |nox |pip |systemd-\S+ |\w+=\S+ "
    )
    return [text for text in re.findall(r"`([^`\n]+)`", prose) if re.match(begins, text)]


def doings(page: str, markdown: str) -> list[str]:
    """How each block and each inline command of a page is done, in a word.

    Raises: LostError if there is one of which nobody knows what to do.
    """
    page_fences = fences(markdown)
    typed = "".join(fence.text for fence in page_fences if fence.language == "sh")
    words = []
    for before, fence in zip([None, *page_fences], page_fences, strict=False):
        words.append(doing(page, fence, before, typed))
    for command in inline_commands(markdown):
        shown = {" ".join(("python", *fence.block.words)) for fence in page_fences if fence.block}
        if (page, command) in LEFT_OUT:
            words.append("left out")
        elif command in SHORTER or command in shown or command in typed or command in INLINE:
            words.append("typed")
        else:
            raise LostError(f"{page}: what is to be done with `{command}`?")
    return words


def doing(page: str, fence: Fence, before: Fence | None, typed: str) -> str:
    first = fence.text.partition("\n")[0]
    if (page, first) in LEFT_OUT:
        return "left out"
    match fence:
        case Fence(language="sh", block=None):
            return "typed"
        case Fence(file=str()):
            return "saved"
        case Fence(block=blocks.Block(kind="output")):
            return "compared"
        case Fence(language="ini"):
            return "verified"
        case Fence(language="{toctree}"):
            return "built"
        case Fence(block=blocks.Block(kind="code", words=(name, *_))) if name.endswith((".txt", ".diff")):
            return "compared" if name.endswith(".txt") else "applied"
        case Fence(block=blocks.Block(kind="code", words=(name, *_))):
            return "typed" if Path(name).name in typed else "run"
        case Fence(language="python", block=None):
            return "tested"
        case Fence(language="text", block=None) if before is not None and before.language == "sh":
            return "compared"
    raise LostError(f"{page}: what is to be done with the block that begins with {first!r}?")


# ---- what is typed -----------------------------------------------------------------------------


def run(command: str, folder: Path, environment: Mapping[str, str], shown: str | None = None) -> str:
    """Run it as a shell does; what it printed.  Raises: LostError if it failed, or printed something else."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if done.returncode:
        raise LostError(f"$ {command}\nended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    if shown is not None and done.stdout != shown:
        raise LostError(f"$ {command}\nprinted\n{done.stdout}and not\n{shown}")
    return done.stdout


def port_of(command: str, folder: Path) -> int | None:
    """Where a command listens that serves until it is stopped; None if it is another command."""
    if (program := re.search(r"\S+\.py\b", command)) is None:
        serves = re.match(r"(?:\S*/)?trioqt serve .*--port (\d+)", command)
        return int(serves[1]) if serves else None
    if activated := re.match(r"systemd-socket-activate -l (\d+) ", command):
        return int(activated[1])
    if program[0] in SERVERS:
        return SERVERS[program[0]]
    text = (folder / program[0]).read_text(encoding="utf-8") if (folder / program[0]).is_file() else ""
    listens = re.search(r"server\.listen\((?:\"127.0.0.1\", (\d+))?", text)
    if program[0].startswith("docs/") or command.startswith("python -") or listens is None:
        return None
    return int(listens[1] or 0)


class Terminals:
    """Those in which a server runs, while commands are typed in another."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self.environment = {**environment}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Terminals:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for port in [*self._processes]:
            self._stop(port)

    def type(self, command: str, shown: str | None = None) -> str:
        """A server is left running until the next one on its port, or the end; what another command printed."""
        port = port_of(command, self._folder)
        if port is None:
            return run(command, self._folder, self.environment, shown)
        self._stop(port)
        until = time.monotonic() + LIMIT
        while is_taken(port):  # by another run of this, for one
            if time.monotonic() > until:
                raise LostError(f"another program of this machine listens on port {port}")
            time.sleep(1)
        # A group of its own, so that what it starts ends with it.
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self._folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._processes[port] = process
        until = time.monotonic() + LIMIT
        while not is_taken(port):
            if process.poll() is not None or time.monotonic() > until:
                raise LostError(f"$ {command}\ndoes not listen on port {port}")
            time.sleep(0.05)
        return ""

    def _stop(self, port: int) -> None:
        if (process := self._processes.pop(port, None)) is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_taken(port: int) -> bool:
    """For TCP somebody answers; for datagrams, which nobody has to answer, Linux has a list."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return f":{port:04X} 00000000:0000" in Path("/proc/net/udp").read_text(encoding="ascii")
    return True


# ---- a page that is followed -------------------------------------------------------------------


def walk(markdown: str, folder: Path, environment: Mapping[str, str], source: Path | None = None) -> int:
    """Do in ``folder`` what the tutorial says; how many commands that was.

    A file is saved under the name that the sentence above gives.  What a command prints must be what the next block
    of text shows.  Its environment is made as it says, with ``source`` for the path of the clone; without one, that is
    left out.

    Raises: LostError.
    """
    count = 0
    with Terminals(folder, environment) as terminals:
        # A test's settings stand below the test that needs them, as nobody runs it before.
        page = fences(markdown)
        for fence in page:
            if fence.file is not None:
                (folder / fence.file).write_text(fence.text, encoding="utf-8")
        for at, fence in enumerate(page):
            is_set_up = "pip install" in fence.text
            if fence.language == "sh" and (source or not is_set_up):
                count += 1
                command = fence.command.replace("\n", " && ").replace("/path/to/trioqt", str(source))
                terminals.type(command, shown_below(page, at))
                if is_set_up:
                    # What `activate` has done in the first terminal it does in the second one too.
                    terminals.environment["PATH"] = f"{folder / '.venv' / 'bin'}:{environment['PATH']}"
    return count


def shown_below(page: list[Fence], at: int) -> str | None:
    """What the block behind a command says that it prints."""
    following = page[at + 1] if at + 1 < len(page) else None
    is_output = following and following.language == "text" and not following.file and not following.block
    return following.text if following and is_output else None


@attrs.frozen
class Stranger:
    """Where the stranger is."""

    python: str
    clone: Path
    work: Path
    environment: dict[str, str]

    def say(self, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)

    def follow_readme(self, folder: Path) -> None:
        """Everything that README.md and the start page say is to be typed; without a clone, what needs none."""
        commands: dict[str, None] = {}
        for name in ("README.md", "docs/index.md"):
            text = (folder / name).read_text(encoding="utf-8")
            doings(name, text)
            for fence in fences(text):
                commands |= dict.fromkeys(fence.text.splitlines() if fence.language == "sh" else [])
            commands |= dict.fromkeys(inline_commands(text))
        with Terminals(folder, self.environment) as terminals:
            for command in commands:
                if folder == self.clone or not re.search(NEEDS_CLONE, command):
                    short, _ = SHORTER.get(command, (command, ""))
                    self.say(f"$ {short}")
                    terminals.type(short)

    def set_up_wheel(self, folder: Path) -> Path:
        """What a package index would give, beside the pages and without the package; where the wheel is."""
        for name in ("docs", "examples"):
            shutil.copytree(self.clone / name, folder / name)
        shutil.copy(self.clone / "README.md", folder)
        run(f"{sys.executable} -m hatchling build -t wheel -d {self.work / 'dist'}", self.clone, self.environment)
        [wheel] = (self.work / "dist").iterdir()
        run("python3 -m venv .venv", folder, self.environment)
        peers = " ".join(f"'{peer}'" for peer in PEERS)
        run(f".venv/bin/pip install -q '{wheel}[cli,test]' {peers}", folder, self.environment)
        where = run(".venv/bin/python -c 'import trioqt; print(trioqt.__file__)'", folder, self.environment)
        if "site-packages" not in where:
            raise LostError(f"the wheel is not what is used: {where}")
        run(".venv/bin/trioqt demo", folder, self.environment)
        return wheel

    def follow(self, pages: Path, source: Path) -> None:
        """The tutorial, the lessons, and each how-to: its commands, its programs, and its tests."""
        folder = self.work / "tutorial"
        folder.mkdir()
        text = (pages / "docs" / "tutorial.md").read_text(encoding="utf-8")
        doings("docs/tutorial.md", text)
        self.say(f"docs/tutorial.md: {walk(text, folder, self.environment, source)} commands")
        self.teach(pages)
        for page in sorted((pages / "docs" / "howto").glob("*.md")):
            self.follow_howto(page, pages)

    def teach(self, pages: Path) -> None:
        """Each lesson and its answer; in what was not cloned, ``git apply`` works too."""
        page = fences((pages / "docs" / "lessons.md").read_text(encoding="utf-8"))
        doings("docs/lessons.md", (pages / "docs" / "lessons.md").read_text(encoding="utf-8"))
        commands = [line for fence in page if fence.language == "sh" for line in fence.text.splitlines()]
        names = [fence.block.words[0] for fence in page if fence.block and fence.block.words[0].endswith(".py")]
        for name in map(Path, names):
            beside = [pages / name.with_suffix(".txt"), pages / name.parent / "answers" / f"{name.stem}.txt"]
            outputs = iter(path.read_text(encoding="utf-8") for path in beside)
            for line in dict.fromkeys(commands):
                command = line.replace("no_messages", name.stem)
                if command.startswith("python "):
                    run(command, pages, self.environment, next(outputs))
                elif command.startswith("git apply ") and "-R" not in command:
                    run(f"{command} && python {name}", pages, self.environment, next(outputs))
                else:
                    run(command, pages, self.environment)
        run(SHORTER["trioqt demo --slow"][0], pages, self.environment)
        self.say(f"docs/lessons.md: {len(names)} lessons and answers, and {SHORTER['trioqt demo --slow'][0]}")

    def follow_howto(self, page: Path, pages: Path) -> None:
        name, text = f"docs/howto/{page.name}", page.read_text(encoding="utf-8")
        parts = fences(text)
        done = doings(name, text)
        printed: dict[tuple[str, ...], str] = {}
        with Terminals(pages, self.environment) as terminals:
            for at, (fence, how) in enumerate(zip(parts, done, strict=False)):
                file = fence.block.words[0] if fence.block else ""
                if how == "typed" and fence.language == "sh":
                    terminals.type(fence.command, shown_below(parts, at))
                elif how == "run" and (file,) not in printed:
                    printed[(file,)] = terminals.type(f"python {file}")
                    if not re.fullmatch(PRINTS.get(file, r"[^\0]*"), printed[(file,)]):
                        raise LostError(f"$ python {file}\nprinted\n{printed[(file,)]}")
                elif how == "compared" and fence.block is not None:
                    if fence.block.words not in printed:
                        printed[fence.block.words] = terminals.type(f"python {' '.join(fence.block.words)}")
                    if printed[fence.block.words] != fence.text:
                        raise LostError(f"{name} shows\n{fence.text}and not\n{printed[fence.block.words]}")
                elif how == "verified":
                    self.verify_unit(Path(file).name, fence.text)
        tests = self.run_tests(name, parts)
        words = {each: done.count(each) for each in dict.fromkeys(done)}
        self.say(f"{name}: {', '.join([f'{count} {word}' for word, count in words.items()] + tests)}")

    def verify_unit(self, name: str, text: str) -> None:
        """As systemd reads it, with a Python that is there."""
        folder = self.work / "units"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text.replace("/srv/echo/.venv/bin/python", self.python), encoding="utf-8")
        if name.endswith(".service"):
            run("systemd-analyze verify ./*.socket ./*.service", folder, self.environment)

    def run_tests(self, name: str, parts: list[Fence]) -> list[str]:
        """What is typed into the page, as one file of tests, beside the programs that it shows."""
        code = [fence.text for fence in parts if fence.language == "python" and fence.block is None]
        if not code:
            return []
        folder = self.work / Path(name).stem
        folder.mkdir()
        for fence in parts:
            if fence.block:
                shutil.copy(self.clone / fence.block.words[0], folder)
        (folder / "test_page.py").write_text("\n".join(code), encoding="utf-8")
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        commands = ["python -m pytest -q -p no:cacheprovider test_page.py"]
        if "pytest --trioqt-seeds=20" in inline_commands((self.clone / name).read_text(encoding="utf-8")):
            commands.append("pytest --trioqt-seeds=20 -q -p no:cacheprovider test_page.py")
        return [run(command, folder, self.environment).strip().splitlines()[-1] for command in commands]


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
            folder = path.clone if options.source == "clone" else path.work / "pages"
            source = path.clone if options.source == "clone" else path.set_up_wheel(folder)
            path.follow_readme(folder)
            path.environment["PATH"] = f"{folder / '.venv' / 'bin'}:{path.environment['PATH']}"
            path.follow(folder, source)
        except LostError as exc:
            print(exc, file=sys.stderr)
            return 1
    print("\nshortened:", *(f"  {why}\n    $ {short}" for short, why in SHORTER.values()), sep="\n")
    if options.source == "wheel":
        print(f"left out from a wheel: what is about the repository, {NEEDS_CLONE}")
    print("left out:", *(f"  {page}: {first}\n    {why}" for (page, first), why in LEFT_OUT.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
