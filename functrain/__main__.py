"""`python -m functrain`. Imports app."""

import sys

from functrain.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
