"""PCQM-Contact (arXiv 2306.02866, section 4.4; data: arXiv 2206.08164): which distant atoms touch in space?"""

from __future__ import annotations

from ..outcome import Outcome, Place
from .config import Config
from .goals import Links
from .learn import learn
from .molecules import CONTACT_ATOMS, CONTACT_BONDS, PAIRS, Molecules
from .task import Task

DATA = Molecules("pcqm_contact.npz", "PCQM-Contact", PAIRS)
TASK = Task("pcqm-contact", DATA.load, Links(), CONTACT_ATOMS, CONTACT_BONDS, 53)


def run(config: Config, place: Place) -> Outcome:
    """Trains and tests one model."""
    return learn(TASK, config, place)


__all__ = ["TASK", "Config", "run"]
