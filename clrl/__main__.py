"""``python -m clrl`` is ``clrl``."""

import sys

from clrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
