"""`python -m throughmask` is the command `throughmask`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
