"""Lets these tests import `backbones`; skips them where transformers is not installed."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
