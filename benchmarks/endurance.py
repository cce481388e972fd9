"""The endurance run: ``python -m benchmarks.endurance``, which is ``python -m benchmarks`` with the trials alone."""

from __future__ import annotations

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--scenarios=", "--peers=", "--trials=all", *sys.argv[1:]]))
