"""Representations: `Rep` names what acts on each axis; node axes, containers and `Inputs` carry it over whole calls."""

from probsym.groups import FAMILIES as PLAIN_FAMILIES
from probsym.groups import Group
from probsym.reps.containers import as_spec, build, group_of, leaves
from probsym.reps.inputs import Inputs, Leaf, fold, unfold
from probsym.reps.layout import Layout
from probsym.reps.nodes import Axis, NodeAxis, S
from probsym.reps.rep import Rep
from probsym.reps.signature import Signature
from probsym.reps.storage import NodePermutation, StoredNodes, TrivialElement

FAMILIES: tuple[type[Group], ...] = (S, Axis, *PLAIN_FAMILIES)  # all groups, which the property tests walk

__all__ = [
    "FAMILIES", "Axis", "Inputs", "Layout", "Leaf", "NodeAxis", "NodePermutation", "Rep", "S", "Signature",
    "StoredNodes", "TrivialElement", "as_spec", "build", "fold", "group_of", "leaves", "unfold",
]  # fmt: skip
