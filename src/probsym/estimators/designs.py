"""Designs: samples in blocks whose errors cancel. A new one is a class and one line in `DESIGNS`.

Cosets g H of a finite group H, antithetic pairs, scrambled Sobol points and strata of the noise. All are unbiased
for Haar. Pairs, points and strata are unbiased for every p. With a learned p, a coset design averages over p * Unif(H)
instead of p. The model stays equivariant, since an input moves g from the left, but it is a different one, so train and
evaluate with the same design.

Which design suits which group is measured in docs/performance.md.

>>> sorted(DESIGNS)[:3]
['antithetic', 'cyclic', 'dihedral']
"""

from __future__ import annotations

from probsym.estimators import finite
from probsym.estimators.cosets import Coset, Cyclic, Dihedral, Joint, Polyhedral, Shifts, SignCosets, SignedPermutations
from probsym.estimators.design import IID, Design, check_multiple
from probsym.estimators.quasi import Antithetic, Sobol, Stratified
from probsym.estimators.unions import IcosahedralUnion
from probsym.groups.whole import positive

DESIGNS: dict[str, Design] = {
    **{name: Polyhedral(name) for name in finite.POLYHEDRAL},
    "icosahedral-5": IcosahedralUnion(5),
    "icosahedral-6": IcosahedralUnion(6),
    "full-icosahedral-5": IcosahedralUnion(5, inversion=True),
    "full-icosahedral-6": IcosahedralUnion(6, inversion=True),
    "cyclic": Cyclic(),
    "dihedral": Dihedral(),
    "shifts": Shifts(),
    "signs": SignCosets(),
    "signed-permutations": SignedPermutations(),
    "antithetic": Antithetic(),
    "sobol": Sobol(),
    "stratified": Stratified(),
}

DesignLike = str | Design | tuple[str | Design, ...] | None  # what the argument `design` of an estimator may be


def as_design(given: DesignLike) -> Design:
    """A design by name, a tuple of cosets; None is independent samples.

    Raises:
        ValueError: unknown name, or no cosets to join.
        TypeError: neither a name nor a design.
    """
    if given is None:
        return IID()
    if isinstance(given, Design):
        return given
    if isinstance(given, tuple):
        return _joint(given)
    if not isinstance(given, str):
        raise TypeError(f"design: expected a name or a Design, got {type(given).__name__} {given!r}")
    if given not in DESIGNS:
        raise ValueError(f"design: expected one of {', '.join(map(repr, DESIGNS))}, got {given!r}")
    return DESIGNS[given]


def _joint(given: tuple[str | Design, ...]) -> Joint:
    """The cosets of a tuple, joined."""
    if not given:
        raise ValueError("design: expected at least one coset to join, got ()")
    parts = []
    for part in given:
        design = as_design(part)
        if not isinstance(design, Coset):
            raise TypeError(f"design: a tuple joins cosets, got {design!r}")
        parts.append(design)
    return Joint(tuple(parts))


def checked_sampling(k: int, chunk: int | None, design: DesignLike) -> tuple[int, int | None]:
    """k and chunk of an estimator that draws samples, as ints.

    Raises:
        ValueError: k or chunk below one, an unknown design, k no multiple of its block.
        TypeError: neither the name of a design nor a design.
    """
    k = positive("k", k)
    if chunk is not None:
        chunk = positive("chunk", chunk)
    checked = as_design(design)
    if checked.size is not None:
        check_multiple(k, checked.size, checked)
    return k, chunk


__all__ = [
    "DESIGNS", "IID", "Antithetic", "Coset", "Cyclic", "Design", "DesignLike", "Dihedral", "IcosahedralUnion", "Joint",
    "Polyhedral", "Shifts", "SignCosets", "SignedPermutations", "Sobol", "Stratified", "as_design", "check_multiple",
    "checked_sampling",
]  # fmt: skip
