"""Prints the table of figures; with ``--rest`` also the rows that fail, and with ``--extension`` those of one only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from tests.corpus import CORPUS, Figure, Vector
from tests.corpus.kernel import kernel_figures
from tests.corpus.text import language_figures


def main() -> int:
    """1 where a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument(
        "--extension", help="only rows that name it, as -m NAME or -j NAME; prints every row that fails"
    )
    parser.add_argument("--rest", type=int, default=0, metavar="N", help="rows to print under each figure")
    parser.add_argument("--figure", default="", help="only figures whose name holds this text")
    parser.add_argument("--no-kernel", action="store_true", help="only what needs no namespace and no tools")
    arguments = parser.parse_args()
    if not CORPUS.exists():
        sys.exit(f"no vectors in {CORPUS}: set MESHFW_CORPUS")
    name = arguments.extension

    def chosen(vector: Vector) -> bool:
        return name is None or name in vector["argv"] or vector.get("ext") == name

    missed = 0
    for figure in _figures(arguments.no_kernel, chosen):
        if arguments.figure not in figure.name:
            continue
        _tell(str(figure))
        missed += figure.share < figure.wanted
        for row in figure.rest if name else figure.rest[: arguments.rest]:
            _tell(f"  {row}")
    return bool(missed)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _figures(without_kernel: bool, chosen: Callable[[Vector], bool]) -> Iterator[Figure]:
    yield from language_figures(chosen)
    if not without_kernel:
        yield from kernel_figures(chosen)


if __name__ == "__main__":
    sys.exit(main())
