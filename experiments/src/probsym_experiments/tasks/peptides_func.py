"""Peptides-func (arXiv 2306.02866, section 4.4; data: arXiv 2206.08164): which of ten functions has a peptide?"""

from __future__ import annotations

from ..outcome import Outcome, Place
from .config import Config
from .goals import Labels
from .learn import learn
from .molecules import PEPTIDE_ATOMS, PEPTIDE_BONDS, Molecules
from .task import Task

DATA = Molecules("peptides_func.npz", "Peptides-func")
TASK = Task("peptides-func", DATA.load, Labels(10), PEPTIDE_ATOMS, PEPTIDE_BONDS, 444)


def run(config: Config, place: Place) -> Outcome:
    """Trains and tests one model."""
    return learn(TASK, config, place)


__all__ = ["TASK", "Config", "run"]
