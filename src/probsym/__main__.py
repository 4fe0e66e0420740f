"""`python -m probsym` is the `probsym` command."""

import sys

from probsym.cli import main

if __name__ == "__main__":
    sys.exit(main())
