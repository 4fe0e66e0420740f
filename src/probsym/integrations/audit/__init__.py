"""Which symmetries an interatomic potential has, and by how much it misses the others.

>>> from ase.build import molecule
>>> from ase.calculators.lj import LennardJones
>>> report = audit(LennardJones(rc=20.0), molecule("CH3CH2OH"), poses=4, paths=2)
>>> report.passed
True

The command `probsym audit` of the package in `experiments/` calls it, prints `report`, and writes `report.to_dict()`
and `draw(report)`.
"""

from probsym.integrations.audit.evaluation import AuditError
from probsym.integrations.audit.figure import draw
from probsym.integrations.audit.moves import SYMMETRIES, Moved, Symmetry
from probsym.integrations.audit.outcome import Outcome, Rounding, Tolerances
from probsym.integrations.audit.poses import Residual, Spectrum
from probsym.integrations.audit.report import AuditReport, StructureReport
from probsym.integrations.audit.running import audit

__all__ = [
    "SYMMETRIES", "AuditError", "AuditReport", "Moved", "Outcome", "Residual", "Rounding", "Spectrum",
    "StructureReport", "Symmetry", "Tolerances", "audit", "draw",
]  # fmt: skip
