"""Representations: `Rep` names what acts on each axis; containers and `Inputs` carry it over whole calls."""

from probsym.reps.containers import as_spec, build, group_of, leaves
from probsym.reps.inputs import Inputs, Leaf, fold, unfold
from probsym.reps.rep import Rep
from probsym.reps.signature import Signature
from probsym.reps.storage import Stored

__all__ = ["Inputs", "Leaf", "Rep", "Signature", "Stored", "as_spec", "build", "fold", "group_of", "leaves", "unfold"]
