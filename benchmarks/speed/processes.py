"""Children that are told a line and answer a line, the load generator, the cores, and the clocks of the kernel."""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.speed.rows import ALONE, PEERS, Row

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
CACHE = FOLDER / ".cache"

# Every wait for a child is bounded; a loaded machine may need seconds to start a dozen interpreters.
PATIENCE = 60.0


class BenchmarkError(Exception):
    """Bytes were wrong, or a process died or hung."""


class MissingError(Exception):
    """What a peer needs is not installed."""


class Child:
    """A process that is told a line and answers a line."""

    def __init__(self, what: str, command: list[str]) -> None:
        self.what = what
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin: IO[bytes] = self.process.stdin
        self._stdout: IO[bytes] = self.process.stdout
        self._buffer = b""

    def answer(self, patience: float = PATIENCE) -> list[str]:
        deadline = time.monotonic() + patience
        while b"\n" not in self._buffer:
            readable, _, _ = select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise BenchmarkError(f"{self.what}: no answer within {patience:.0f} s")
            if not (data := self._stdout.read(4096)):
                raise BenchmarkError(f"{self.what}: ended with status {self.process.wait(PATIENCE)}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode().split(" ")

    def ask(self, question: str, patience: float = PATIENCE) -> list[str]:
        try:
            self._stdin.write(question.encode() + b"\n")
        except BrokenPipeError:
            raise BenchmarkError(f"{self.what}: ended with status {self.process.wait(PATIENCE)}") from None
        return self.answer(patience)

    def end(self) -> None:
        """Close its stdin, which ends it.

        Raises: BenchmarkError if it had failed.
        """
        self._stdin.close()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{self.what}: did not end") from None
        if status != 0:
            raise BenchmarkError(f"{self.what}: ended with status {status}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stdin.close()
        self._stdout.close()


@dataclass(frozen=True)
class Place:
    """The cores that server and generator have to themselves, as far as we can tell; -1 on a machine with one."""

    server: int
    generator: int

    @classmethod
    def choose(cls) -> Place:
        if not hasattr(os, "sched_getaffinity"):
            return cls(-1, -1)
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[1]) if len(cores) > 1 else cls(-1, -1)


OPENSSL = Path("/usr/include/openssl/ssl.h")


def build_generator() -> Path:
    """Compile load/ unless that has been done; with TLS where OpenSSL's headers are."""
    folder = FOLDER / "load"
    sources = sorted(folder.glob("*.c"))
    text = b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".c", ".h"))
    tls = ["-DWITH_TLS", "-lssl", "-lcrypto"] if OPENSSL.exists() else []
    program = CACHE / f"load-{'tls' if tls else 'plain'}-{hashlib.sha256(text).hexdigest()[:16]}"
    if not program.exists():
        compiler = shutil.which("gcc")
        if compiler is None:
            raise BenchmarkError("gcc, which compiles the load generator, was not found")
        program.parent.mkdir(exist_ok=True)
        # Renamed into place, so that two runs at once never see half a program.
        with tempfile.TemporaryDirectory(dir=program.parent) as temporary:
            fresh = Path(temporary) / "load"
            command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(fresh), *map(str, sources), *tls]
            subprocess.run(command, check=True)
            fresh.replace(program)
    return program


def certificate() -> Path:
    """A file with a certificate for localhost and its key, which nobody trusts.

    Raises: MissingError if what makes it is not installed, or the generator has no TLS.
    """
    if not OPENSSL.exists():
        raise MissingError("the headers of OpenSSL (libssl-dev)")
    try:
        import trustme
    except ImportError as error:
        raise MissingError(str(error)) from None
    file = CACHE / "certificate.pem"
    if not file.exists():
        CACHE.mkdir(exist_ok=True)
        made = trustme.CA(key_type=trustme.KeyType.ECDSA).issue_cert("localhost", key_type=trustme.KeyType.ECDSA)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            fresh = Path(temporary) / "certificate.pem"
            fresh.write_bytes(made.private_key_and_cert_chain_pem.bytes())
            fresh.replace(file)
    return file


@contextmanager
def generator_running(program: Path, row: Row, port: int, place: Place, *, mode: str = "") -> Iterator[Child]:
    """The load generator in the row's mode, or in another."""
    settings = {"port": port, "core": place.generator, "size": row.size, "batch": row.number, "tls": int(row.mode.tls)}
    command = [str(program), mode or row.mode.generator, *(f"{name}={value}" for name, value in settings.items())]
    child = Child("generator", command)
    try:
        yield child
    finally:
        child.kill()


def start_server(row: Row, name: str, place: Place, *, port: int = 0, against: str | None = None) -> Child:
    """A peer's process, which has not told its port yet.  ``name@folder`` is with the trioqt of that checkout."""
    plain, _, other = name.partition("@")
    command = [sys.executable, "-m", "benchmarks.speed.server", row.mode.server, plain.removesuffix(ALONE)]
    command += ["--core", str(place.server), "--port", str(port), "--clients", str(row.connections)]
    if row.mode.tls:
        command += ["--certificate", str(certificate())]
    if other:
        assert against is not None
        command += ["--package", against]
    return Child(f"server {name}", command)


def listening(child: Child) -> int:
    """The port that a server or the generator tells; 0 of a client.

    Raises: MissingError if a package is.
    """
    match child.answer():
        case ["listening", port]:
            return int(port)
        case ["missing", *reason]:
            raise MissingError(" ".join(reason))
        case words:
            raise BenchmarkError(f"{child.what}: unexpected {' '.join(words)!r}")


def label(name: str) -> str:
    """How a server of a row is called in print."""
    plain, at, folder = name.partition("@")
    return PEERS[plain.removesuffix(ALONE)].label + (", alone" if plain.endswith(ALONE) else "") + at + folder


# -- the clocks of the kernel ---------------------------------------------------------------------


def cpu_seconds(child: Child) -> float:
    """The CPU time of the whole process, read from outside, so that asking costs it nothing."""
    # clock_getcpuclockid(3), which Python lacks: the scheduler's clock (2) of a process.
    return time.clock_gettime(~child.process.pid << 3 | 2)


def settled_cpu_seconds(child: Child) -> float:
    """The same once the server sleeps: after a slice of ``send`` it fills the kernel's buffers again."""
    last = cpu_seconds(child)
    for _ in range(200):
        time.sleep(0.0005)
        # A server whose core is taken uses none either, but it does not sleep.
        if (current := cpu_seconds(child)) == last and sleeps(child):
            break
        last = current
    return last


def sleeps(child: Child) -> bool:
    """Whether its main thread does; True where nobody tells."""
    try:
        # | pid | (name) | state | ...; the name may have blanks and brackets of its own.
        state = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return True
    return not state.startswith("R")


def core_wait(child: Child) -> float:
    """Seconds that a process could have run but others had its core: the noise to expect.  0 where nobody tells."""
    try:
        return int(Path(f"/proc/{child.process.pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0
