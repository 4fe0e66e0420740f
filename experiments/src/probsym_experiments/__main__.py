"""`python -m probsym_experiments` is the `probsym` command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
