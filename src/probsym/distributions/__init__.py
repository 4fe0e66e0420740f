"""Distributions p(g|x) that move with the input: every method of symmetrization is a choice of p.

A new distribution is one new file here and one line in `NAMES` or `FAMILIES`, which the property tests walk.
"""

from probsym.distributions.base import (
    EquivariantDistribution,
    Noise,
    ProductDistribution,
    ProjectedDistribution,
    Support,
)
from probsym.distributions.default_net import NETS, DefaultNet, net_for
from probsym.distributions.frames import Frame
from probsym.distributions.haar import Haar
from probsym.distributions.learned import Canonical, Learned, NetDistribution
from probsym.distributions.recursive import Head, PlainNet, Recursive, SmallAngle, UnitQuaternion
from probsym.distributions.registry import BY_KIND, NAMES, by_name, complete, stands_for
from probsym.distributions.relax import Relaxation
from probsym.distributions.score_function import ScoreFunction
from probsym.distributions.score_net import ScoreNet
from probsym.distributions.scored import Scored
from probsym.distributions.weighted_frame import WeightedFrame

__all__ = [
    "BY_KIND",
    "NAMES",
    "NETS",
    "Canonical",
    "DefaultNet",
    "EquivariantDistribution",
    "Frame",
    "Haar",
    "Head",
    "Learned",
    "NetDistribution",
    "Noise",
    "PlainNet",
    "ProductDistribution",
    "ProjectedDistribution",
    "Recursive",
    "Relaxation",
    "ScoreFunction",
    "ScoreNet",
    "Scored",
    "SmallAngle",
    "Support",
    "UnitQuaternion",
    "WeightedFrame",
    "by_name",
    "complete",
    "net_for",
    "stands_for",
]  # fmt: skip
