"""``python -m clrl`` is ``clrl``."""

import sys

from clrl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
