"""Lets these tests import `backbones`, and the calculators of benchmarks/lab_axes.py."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.append(str(HERE.parents[1] / "benchmarks"))
