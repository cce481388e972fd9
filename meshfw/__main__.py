"""The command line, run as ``python -m meshfw``."""

from __future__ import annotations

import sys

from meshfw.cli import main

if __name__ == "__main__":
    sys.exit(main())
