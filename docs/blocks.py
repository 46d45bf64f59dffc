"""The blocks of code, the outputs and the tables in the Markdown, which are written there from what they show.

A page says ``<!-- code: examples/echo_server.py -->`` and ``<!-- end -->``, each on a line of its own; what is between
them is written by ``python -m docs.blocks``, so that it stands in the page wherever that is read, and
``python -m docs.blocks --check`` fails if a page is behind.  There are three kinds:

    <!-- code: FILE -->             the file; of a program, what is below its docstring
    <!-- code: FILE NAME ... -->    these functions, classes and values of a program
    <!-- output: FILE WORD ... -->  what the program prints, run from the root of the repository
    <!-- table: NAME -->            a table of docs/from_code.py
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

__all__ = ["ROOT", "Block", "StaleError", "blocks_of", "fill", "pages", "without_blocks"]

ROOT = Path(__file__).parents[1]

# What a file is shown as.  A file of another kind is refused, so that nobody forgets to add it.
LANGUAGES = {
    ".py": "python",
    ".txt": "text",
    ".sh": "sh",
    ".toml": "toml",
    ".service": "ini",
    ".socket": "ini",
    ".cpp": "cpp",
    ".diff": "diff",
}

BEGIN = re.compile(r"<!-- (code|output|table): (.+) -->")
END = "<!-- end -->"


class StaleError(Exception):
    """A page asks for something that there is not; the message says which page and what."""


@attrs.frozen
class Block:
    """What stands between two comments."""

    kind: str
    words: tuple[str, ...]

    def markdown(self, root: Path = ROOT) -> str:
        """What has to stand there.

        Raises: StaleError if there is no such file, name or table.
        """
        if self.kind == "table":
            from docs.from_code import TABLES

            (name,) = self.words
            if name not in TABLES:
                raise StaleError(f"there is no table {name}")
            try:
                return "\n".join(TABLES[name]()).strip("\n")
            except subprocess.CalledProcessError as exc:
                raise StaleError(f"{exc.cmd} ended with status {exc.returncode}") from exc
        path = root / self.words[0]
        if not path.is_file():
            raise StaleError(f"there is no file {self.words[0]}")
        if self.kind == "output":
            return fenced("text", output_of(self.words, root))
        if path.suffix not in LANGUAGES:
            raise StaleError(f"docs/blocks.py does not know what {path.name} is")
        text = path.read_text(encoding="utf-8")
        return fenced(LANGUAGES[path.suffix], shown(text, self.words[1:]) if path.suffix == ".py" else text)


def fenced(language: str, text: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`{3,}", text)), default=0))
    text = text.rstrip().lstrip("\n")
    return f"{fence}{language}\n{text}\n{fence}"


def output_of(words: Iterable[str], root: Path) -> str:
    """Line numbers in trioqt itself are left out, or each change to it would be one to the pages."""
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise StaleError(f"{' '.join(words)} ended with status {done.returncode}:\n{done.stderr}")
    return re.sub(r"\b(trioqt/[\w/]+\.py):\d+", r"\1", done.stdout)


# ---- of a program --------------------------------------------------------------------------


def shown(text: str, names: Iterable[str]) -> str:
    """The text of these definitions, in this order; without any, all of the file below its docstring."""
    module = ast.parse(text)
    lines = text.splitlines()
    if not (names := tuple(names)):
        has_docstring = ast.get_docstring(module) is not None
        return "\n".join(lines[module.body[0].end_lineno or 0 :] if has_docstring else lines)
    places = {name: node for node in module.body for name in names_of(node)}
    if missing := [name for name in names if name not in places]:
        raise StaleError(f"it does not define {', '.join(missing)}")
    return "\n\n\n".join(definition(lines, places[name]) for name in names)


def names_of(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)):
            yield name


def definition(lines: list[str], node: ast.stmt) -> str:
    """With its decorators, and the comments directly above it."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    while first > 1 and lines[first - 2].startswith("#"):
        first -= 1
    return "\n".join(lines[first - 1 : node.end_lineno])


# ---- in the pages --------------------------------------------------------------------------


def sections(markdown: str) -> Iterator[str | Block]:
    """The page, line by line; what is between two comments is one Block, whatever stands there."""
    fence, inside = "", False
    for line in markdown.splitlines():
        if inside:
            inside = line != END
            continue
        # A page that explains how to write a block shows the comments within a fence.
        if found := re.match("`{3,}", line):
            fence = "" if fence and line.startswith(fence) else fence or found[0]
        elif not fence and (begin := BEGIN.fullmatch(line)):
            inside = True
            yield Block(begin[1], tuple(begin[2].split()))
            continue
        elif not fence and line == END:
            raise StaleError(f"{END} without a beginning")
        yield line
    if inside:
        raise StaleError(f"no {END} after the last beginning")


def fill(markdown: str, root: Path = ROOT) -> str:
    """The page with its blocks as they have to be.

    Raises: StaleError.
    """
    result = []
    for section in sections(markdown):
        if isinstance(section, Block):
            begin = f"<!-- {section.kind}: {' '.join(section.words)} -->"
            try:
                section = f"{begin}\n\n{section.markdown(root)}\n\n{END}"
            except StaleError as exc:
                raise StaleError(f"{begin}: {exc}") from exc
        result.append(section)
    return "\n".join(result) + "\n"


def blocks_of(markdown: str) -> list[Block]:
    """What the page has written into it."""
    return [section for section in sections(markdown) if isinstance(section, Block)]


def without_blocks(markdown: str) -> str:
    """What was written by hand."""
    return "\n".join(section for section in sections(markdown) if isinstance(section, str)) + "\n"


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown that may have blocks."""
    found = [path for folder in ("docs", "examples", "benchmarks") for path in (root / folder).rglob("*.md")]
    return [root / "README.md", *sorted(path for path in found if not {"_build", "newsfragments"} & {*path.parts})]


def main(arguments: list[str]) -> int:
    """Write what is behind; with ``--check`` only say so.  The exit status."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m docs.blocks [--check]", file=sys.stderr)
        return 2
    status = 0
    for page in pages():
        name, text = page.relative_to(ROOT), page.read_text(encoding="utf-8")
        try:
            while (filled := fill(text)) != text and not arguments:
                # Once more, for a table that counts those beside it.
                page.write_text(text := filled, encoding="utf-8")
                print(name)
        except StaleError as exc:
            print(f"{name}: {exc}", file=sys.stderr)
            status = 1
            continue
        if filled != text:
            print(f"{name} is behind: python -m docs.blocks", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
