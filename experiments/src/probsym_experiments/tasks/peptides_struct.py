"""Peptides-struct (arXiv 2306.02866, section 4.4; data: arXiv 2206.08164): what shape has a peptide in space?"""

from __future__ import annotations

from ..outcome import Outcome, Place
from .config import Config
from .goals import Numbers
from .learn import learn
from .molecules import PEPTIDE_ATOMS, PEPTIDE_BONDS, Molecules, standardised
from .task import Task

DATA = Molecules("peptides_struct.npz", "Peptides-struct", prepare=standardised)
TASK = Task("peptides-struct", DATA.load, Numbers(11), PEPTIDE_ATOMS, PEPTIDE_BONDS, 444)


def run(config: Config, place: Place) -> Outcome:
    """Trains and tests one model."""
    return learn(TASK, config, place)


__all__ = ["TASK", "Config", "run"]
