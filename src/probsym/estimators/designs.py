"""Designs: samples in blocks whose errors cancel. A new one is a class and one line in `DESIGNS`.

Cosets g H of a finite group H, antithetic pairs, scrambled Sobol points and strata of the noise. All are unbiased
for Haar. Pairs, points and strata are unbiased for every p. Cosets of a learned p turn it into p * Unif(H): as
equivariant as before, since an input moves g from the left, but the model is then the H-symmetrized one; train with the
design that you evaluate with.

Which design suits which group is measured in docs/performance.md.

>>> sorted(DESIGNS)[:3]
['antithetic', 'cyclic', 'dihedral']
"""

from __future__ import annotations

from typing import Any

from probsym.estimators import finite
from probsym.estimators.base import positive
from probsym.estimators.cosets import Coset, Cyclic, Dihedral, Joint, Polyhedral, Shifts, SignCosets, SignedPermutations
from probsym.estimators.design import IID, Design, check_multiple
from probsym.estimators.quasi import Antithetic, Sobol, Stratified

DESIGNS: dict[str, Design] = {
    **{name: Polyhedral(name) for name in finite.POLYHEDRAL},
    "cyclic": Cyclic(),
    "dihedral": Dihedral(),
    "shifts": Shifts(),
    "signs": SignCosets(),
    "signed-permutations": SignedPermutations(),
    "antithetic": Antithetic(),
    "sobol": Sobol(),
    "stratified": Stratified(),
}


def as_design(given: Any) -> Design:
    """A design by name, a tuple of cosets; None is independent samples.

    Raises:
        ValueError: unknown name, or no cosets to join.
        TypeError: neither a name nor a design.
    """
    if given is None:
        return IID()
    if isinstance(given, Design):
        return given
    if given == ():
        raise ValueError("design: expected at least one coset to join, got ()")
    if isinstance(given, tuple):
        return Joint(tuple(_coset(part) for part in given))
    if not isinstance(given, str):
        raise TypeError(f"design: expected a name or a Design, got {type(given).__name__} {given!r}")
    if given not in DESIGNS:
        raise ValueError(f"design: expected one of {', '.join(map(repr, DESIGNS))}, got {given!r}")
    return DESIGNS[given]


def check_sampling(estimator: Any) -> None:
    """The arguments k, chunk and design of an estimator that draws samples; its integers become ints.

    Raises:
        ValueError: k or chunk below one, an unknown design, k no multiple of its block.
        TypeError: neither the name of a design nor a design.
    """
    object.__setattr__(estimator, "k", positive("k", estimator.k))
    if estimator.chunk is not None:
        object.__setattr__(estimator, "chunk", positive("chunk", estimator.chunk))
    design = as_design(estimator.design)
    if design.size is not None:
        check_multiple(estimator.k, design.size, design)


def _coset(given: Any) -> Coset:
    design = as_design(given)
    if not isinstance(design, Coset):
        raise TypeError(f"design: a tuple joins cosets, got {design!r}")
    return design


__all__ = [
    "DESIGNS",
    "IID",
    "Antithetic",
    "Coset",
    "Cyclic",
    "Design",
    "Dihedral",
    "Joint",
    "Polyhedral",
    "Shifts",
    "SignCosets",
    "SignedPermutations",
    "Sobol",
    "Stratified",
    "as_design",
    "check_multiple",
    "check_sampling",
]  # fmt: skip
