"""`python -m functrain`."""

import sys

# `python -m` puts the current directory first, where a file of somebody's run could take the place of a library.
if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]

from functrain.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
