"""Other people's test suites, unmodified, on a simulated network with latency and loss: ``python -m tests.others``.

They are fetched by pip, in the release that is installed here, from source distributions, into .nox/others; after the
first time nothing is fetched.  A name after it runs that suite only.  ``excluded.txt`` says what is left out.
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


def needed() -> Path:
    """Where the packages are that the suites need besides."""
    place = PLACE / "needed"
    if not place.is_dir():
        pip = (sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target", str(place))
        subprocess.run([*pip, *NEEDED], check=True)
    return place


def run(suite: Suite) -> int:
    """Its exit status."""
    folder = fetched(suite.project)
    environment = os.environ | {
        "TRIOQT_SUITE": suite.name,
        "TRIOQT_LATENCY": str(suite.latency),
        "TRIOQT_LOSS": str(suite.loss),
        "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parents[1]), str(needed()))),
    }
    print(f"{folder.name} {suite.how}, {SEEDS} seeds", flush=True)
    pytest = (sys.executable, "-m", "pytest", "-c", str(HERE / "pytest.ini"), "--rootdir=.", "-p", "inside")
    words = [*pytest, *suite.options, f"--trioqt-seeds={SEEDS}", suite.tests]
    return subprocess.run(words, cwd=folder, env=environment).returncode


def main(names: list[str]) -> int:
    """Whether one of them failed."""
    PLACE.mkdir(parents=True, exist_ok=True)
    unknown = set(names) - {suite.project for suite in SUITES}
    if unknown:
        raise SystemExit(f"there is no suite {', '.join(sorted(unknown))}")
    return max(run(suite) for suite in SUITES if not names or suite.project in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
