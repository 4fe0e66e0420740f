"""Where data and models too large for the repository may lie; tests skip what is not there."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("PROBSYM_SHARED", Path(__file__).parents[2] / "shared"))
DATA = SHARED / "data"
MODELS = Path(os.environ.get("PROBSYM_MODELS", SHARED / "models"))
