"""Where data too large for the repository may lie; tests skip what is not there."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("PROBSYM_SHARED", Path(__file__).parents[3] / "shared"))
DATA = SHARED / "data"
