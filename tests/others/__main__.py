"""Other people's test suites, unmodified, on a simulated network with latency and loss: ``python -m tests.others``.

They are fetched by pip, in the release that is installed here, from source distributions, into .nox/others; after the
first time nothing is fetched.  A name after it runs that suite only.  ``excluded.txt`` says what is left out.  The
last are no suites: ``programs.py`` has a small program for each of ten libraries.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import attrs

HERE = Path(__file__).parent.absolute()
PLACE = Path(".nox/others").absolute()
SEEDS = 5

# What the suites import besides, and no test of ours does.
NEEDED = ("pytest-mock", "psutil", "socksio")

# What the programs use, each with all that it needs and that is not here already.  Two of those know another release of
# one of them than is here, but do not mind.
PROGRAMS = (
    *("starlette", "httpx-ws", "fastapi", "annotated-doc", "annotated-types", "pydantic", "pydantic-core"),
    *("typing-inspection", "quart-trio", "quart", "flask", "werkzeug", "blinker", "itsdangerous", "aiofiles"),
    *("asks", "async-generator", "openai", "jiter", "distro", "httpx2", "httpcore2", "truststore", "mcp", "mcp-types"),
    *("jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "opentelemetry-api", "python-multipart"),
    *("sse-starlette", "uvicorn", "pyjwt", "coredis", "beartype", "deprecated", "wrapt", "exceptiongroup"),
    *("trio-mysql", "trio-asyncio", "greenlet", "tqdm"),
)


@attrs.frozen
class Suite:
    """One project's tests."""

    project: str
    tests: str
    """Of the source distribution."""
    latency: float = 0.01
    """Seconds, of the way from the host to itself."""
    loss: float = 0.01
    options: tuple[str, ...] = ()
    """Of pytest."""
    how: str = ""
    """What is said of it in ``excluded.txt`` beside the project, if it is there twice."""

    @property
    def name(self) -> str:
        """As ``excluded.txt`` has it."""
        return f"{self.project} {self.how}".strip()


SUITES = (
    Suite("trio-websocket", "tests", options=("-o", "trio_mode=true")),
    Suite("trio-websocket", "tests", 0, 0, ("-o", "trio_mode=true"), "at once"),
    Suite("hypercorn", "tests/e2e"),
    Suite("httpcore", "tests/_async"),
    # Its clients are sockets of the standard library's that block, in the same task: nothing may take time.
    Suite("anyio", "tests/test_sockets.py", 0, 0, ("-o", "anyio_mode=auto", "-p", "pytest_mock")),
)


def fetched(project: str) -> Path:
    """Where its source distribution is, in the release that is installed."""
    version = importlib.metadata.version(project)
    for stem in (f"{project}-{version}", f"{project.replace('-', '_')}-{version}"):
        if (PLACE / stem).is_dir():
            return PLACE / stem
    pip = (sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--no-binary", ":all:", "--dest", str(PLACE))
    subprocess.run([*pip, f"{project}=={version}"], check=True)
    [archive] = (path for path in PLACE.glob("*.tar.gz") if path.name.lower().replace("_", "-").startswith(project))
    with tarfile.open(archive) as tar:
        tar.extractall(PLACE, filter="data")
    archive.unlink()
    return fetched(project)


def needed(name: str, packages: tuple[str, ...]) -> Path:
    """Where the packages are that are needed besides."""
    place = PLACE / name
    if not place.is_dir():
        pip = (sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target", str(place))
        subprocess.run([*pip, *packages], check=True)
    return place


def run_programs() -> int:
    """The exit status of ``programs.py``."""
    path = (str(HERE.parents[1]), str(needed("programs", PROGRAMS)))
    print("programs", flush=True)
    pytest = (sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), str(HERE / "programs.py"))
    return subprocess.run(pytest, env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}).returncode


def run(suite: Suite) -> int:
    """Its exit status."""
    folder = fetched(suite.project)
    environment = os.environ | {
        "TRIOQT_SUITE": suite.name,
        "TRIOQT_LATENCY": str(suite.latency),
        "TRIOQT_LOSS": str(suite.loss),
        "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parents[1]), str(needed("needed", NEEDED)))),
    }
    print(f"{folder.name} {suite.how}, {SEEDS} seeds", flush=True)
    pytest = (sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), "--rootdir=.", "-p", "inside")
    words = [*pytest, *suite.options, f"--trioqt-seeds={SEEDS}", suite.tests]
    return subprocess.run(words, cwd=folder, env=environment).returncode


def main(names: list[str]) -> int:
    """Whether one of them failed."""
    PLACE.mkdir(parents=True, exist_ok=True)
    unknown = set(names) - {suite.project for suite in SUITES} - {"programs"}
    if unknown:
        raise SystemExit(f"there is no suite {', '.join(sorted(unknown))}")
    found = [run(suite) for suite in SUITES if not names or suite.project in names]
    if not names or "programs" in names:
        found.append(run_programs())
    return max(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
