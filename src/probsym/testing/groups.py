"""The checker of groups."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import FrozenInstanceError
from typing import Any

import torch
from torch import Tensor

from probsym.groups import Element, Group, Slot
from probsym.reps import Rep
from probsym.testing.elements import (
    as_real,
    distance,
    draw_elements,
    draw_features,
    expand_samples,
    images,
    probes,
    seeded,
    slots_of,
    stored_alone,
)  # fmt: skip
from probsym.testing.statistics import two_sample

BATCH_SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (3, 1, 2))
DEFAULT_NODES = 4  # of a node axis that does not know its size
NEAR = 1e-4  # relative change of features whose elements are near one another
FALLBACK_DRAWS = 40  # that are compared: two of a fair coin agree in all of them once in 2^39
FEATURE_DRAWS = 40  # generic features that are compared, as many for the same reason


def assert_group(
    group: Group,
    *,
    n: Any = None,
    slots: Sequence[Slot] = (),
    tolerance: float = 1e-10,
    alpha: float = 1e-9,
    samples: int = 512,
    generator: torch.Generator | None = None,
) -> None:
    """Check the axioms of a group, in float64, over batch shapes (), (1,) and (3, 1, 2), near the identity and far.

        (ab)c = a(bc),   ea = a = ae,   a^-1 a = e = a a^-1,   (ab)x = a(bx) on every slot,
        `violation` is zero, where the group has one,
        project(h z, h fallback) = h project(z, fallback), up to rounding of h z, finite with a finite gradient, on
        generic, tied, rank-deficient, zero, tiny (1e-20) and huge (1e20) z, and `degenerate` true exactly where the
        fallback matters,
        generic z are not all degenerate, and project depends on them,
        equality by value, hash, repr,   h haar = haar = haar h in distribution.

    Elements are compared by what they do to random tensors, so an action must be faithful. Complex groups are checked
    with complex tensors, both parts of them. All checks are exact but the last, whose false-alarm rate is `alpha` for
    each of its two sides (`testing.statistics`).

    What a group says about itself decides which laws apply. A group that is not `compact` has no Haar measure to check.
    Where the group leaves its noise alone (`noise_slots` of None), no fallback can move along, so that covariance is
    asked of features that are not degenerate; such a group gives `draw_features`. A group of one element cannot depend
    on its features: it says so by `trivial`, or by an `order` of 1. Random elements come from `project`, so that a
    group without one cannot be checked.

    Args:
        group: any group, also a product or a user's own.
        n: size of a node axis that does not know its own, by factor for products; 4 unless given.
        slots: ways of acting beyond those that the group has as attributes (`defining`, `vector`, `det`, ...).

    Raises:
        AssertionError: names the law that fails.
        TypeError: a group without `project`.

    >>> from probsym.groups import SE
    >>> from probsym.reps import S
    >>> assert_group(S("nodes") * SE(2), n=3)
    """
    checks = _Checks(group, n, tuple(slots), tolerance, seeded(generator))
    checks.structure()
    for f in group.factors:
        checks.dependence(f)
    for shape in BATCH_SHAPES:
        checks.axioms(shape)
        for f in group.factors:
            checks.projection(f, shape)
    if group.compact:
        checks.uniform(alpha, samples)


class _Checks:
    """The laws of one group, with what all of them share."""

    def __init__(
        self, group: Group, n: Any, slots: tuple[Slot, ...], tolerance: float, generator: torch.Generator
    ) -> None:
        self.group = group
        self.tolerance = tolerance
        self.generator = generator
        self.sizes: dict[Group, Any] = {}
        for f in group.factors:
            size = n.get(f) if isinstance(n, dict) else n
            if size is None and getattr(f, "size", 0) is None:
                size = DEFAULT_NODES
            self.sizes[f] = size
        self.stored = stored_alone(group, self.sizes)
        self.seen = probes((*slots_of(group), *slots), self.stored, generator)

    def fail(self, law: str, detail: str = "") -> None:
        raise AssertionError(f"{self.group!r}: {law}{detail}")

    def same(self, law: str, a: list[Tensor], b: list[Tensor], of: str = "") -> None:
        gap = distance(a, b)
        if not gap <= self.tolerance:
            self.fail(law, f" fails{of}: difference {gap:.1e}, tolerance {self.tolerance:.0e}")

    def act(self, g: Element) -> list[Tensor]:
        return images(g, self.seen)

    # ------------------------------------------------------------ structure and axioms

    def structure(self) -> None:
        other = copy.deepcopy(self.group)
        if other != self.group or hash(other) != hash(self.group):
            self.fail("equality and hash must be by value")
        if " at 0x" in repr(self.group) or repr(other) != repr(self.group):
            self.fail("repr must show the value")
        try:
            self.group.name = "other"
        except (FrozenInstanceError, AttributeError):
            return
        self.fail("a group must be frozen")

    def axioms(self, shape: tuple[int, ...]) -> None:
        """The laws of a group and of its actions, for elements of one batch shape."""
        of = f" for batch shape {shape}"

        # 1. the identity, and elements far from it and near it
        e = self.group.join(*[self.stored[f].identity(shape, dtype=torch.float64) for f in self.group.factors])
        if tuple(e.shape) != shape:
            self.fail("the identity must have the batch shape that was asked for", of)
        elements: list[Element] = []
        for _ in range(3):
            elements.append(draw_elements(self.group, shape, self.stored, self.generator))
        for _ in range(3):
            elements.append(self.near(shape))

        for i, a in enumerate(elements):
            b, c = elements[i - 1], elements[i - 2]

            # 2. as a group
            if tuple(a.shape) != shape or tuple((a @ b).shape) != shape:
                self.fail("elements must keep their batch shape", of)
            self.same("associativity (ab)c = a(bc)", self.act((a @ b) @ c), self.act(a @ (b @ c)), of)
            self.same("identity e a = a", self.act(e @ a), self.act(a), of)
            self.same("identity a e = a", self.act(a @ e), self.act(a), of)
            self.same("inverse a^-1 a = e", self.act(a.inverse() @ a), self.act(e), of)
            self.same("inverse a a^-1 = e", self.act(a @ a.inverse()), self.act(e), of)

            # 3. as it acts
            for rep, x in self.seen.items():
                once = rep.act(a @ b, x, 0)
                twice = rep.act(a, rep.act(b, x, 0))
                self.same(f"action (ab)x = a(bx) on {rep!r}", [as_real(once)], [as_real(twice)], of)
                left = rep.act(e, x, 0)
                right = x.expand_as(left).to(left)
                self.same(f"action e x = x on {rep!r}", [as_real(left)], [as_real(right)], of)

            # 4. as the group says its elements are
            self.membership(a, of)

    def near(self, shape: tuple[int, ...]) -> Element:
        """An element near the identity: project(z + small) project(z)^-1."""
        parts: dict[Group, Element] = {}
        for f in self.group.factors:
            z = self.features(f, shape)
            small = self.features(f, shape)
            fallback = self.noise(f, shape)
            here = self.stored[f].project(self.anchored(f, z), fallback)
            there = self.stored[f].project(self.anchored(f, z + NEAR * small), fallback)
            parts[f] = there @ here.inverse()
        return self.group.join(*parts.values())

    def membership(self, g: Element, of: str) -> None:
        """What the group says about its elements: orthogonal matrices, indices that are permutations."""
        for f in self.group.factors:
            violation = f.violation(g[f])
            if violation is None or not violation.numel():
                continue
            gap = float(violation.abs().double().max())  # it may be complex, or negative
            if not gap <= self.tolerance:
                self.fail(f"{f!r} must hold its elements: violation {gap:.1e}, tolerance {self.tolerance:.0e}", of)

    # ------------------------------------------------------------ project

    def noise(self, f: Group, shape: tuple[int, ...]) -> Tensor:
        return self.stored[f].draw_noise(shape, generator=self.generator, dtype=torch.float64)

    def features(self, f: Group, shape: tuple[int, ...]) -> Tensor:
        return draw_features(f, self.stored[f], shape, generator=self.generator, dtype=torch.float64)

    def anchored(self, f: Group, z: Tensor) -> Any:
        """Features as `project` takes them: with an origin, the first vector, where the group has an anchor."""
        if f.anchored:
            return z[..., 0], z
        return z

    def dependence(self, f: Group) -> None:
        """Generic features decide: without it the other laws say nothing.

        Where all features are degenerate, an element is made of its fallback alone. Where project always returns the
        same element, all elements that the checker draws are one.
        """
        # a generator of its own, so that the other checks do not depend on this one
        options: dict[str, Any] = {"generator": seeded(None, self.generator.device), "dtype": torch.float64}
        stored = self.stored[f]
        z = self.anchored(f, draw_features(f, stored, (FEATURE_DRAWS,), **options))

        # 1. the features decide for some of the batch
        settled = ~stored.degenerate(z)
        if not bool(settled.any()):
            self.fail(f"{f!r}: generic features must not all be degenerate", f": all of {FEATURE_DRAWS} are")

        # 2. they decide on more than one element, where there is more than one
        if f.trivial or stored.order() == 1:
            return
        fallback = stored.draw_noise((), **options)
        fallbacks = fallback.expand(FEATURE_DRAWS, *fallback.shape)  # one for all, so that only z differs
        seen = {rep: x for rep, x in self.seen.items() if rep.group == f}
        drawn = torch.cat(images(stored.project(z, fallbacks), seen), -1)
        if not bool(((drawn - drawn[0]).abs() > self.tolerance).any()):
            self.fail(f"{f!r}: project must depend on its features", f": {FEATURE_DRAWS} gave the same element")

    def projection(self, f: Group, shape: tuple[int, ...]) -> None:
        """Covariance of project, its gradient, and what `degenerate` says."""
        stored = self.stored[f]
        of_features = Rep(*f.feature_slots)
        of_noise = Rep(*f.noise_slots)
        seen = {rep: x for rep, x in self.seen.items() if rep.group == f}
        for kind, features in _degraded(self.features(f, shape)).items():
            fallback = self.noise(f, shape)
            h = draw_elements(f, shape, self.stored, self.generator)

            # 1. features and what h makes of them
            z: Any = features
            moved: Any = self.rounded(f, of_features.act(h, features))
            if f.anchored:
                origin = self.noise(f, shape)[..., 0]
                z = (origin, z)
                moved = (Rep(f).act(h, origin), moved)

            # 2. covariance; noise that stays cannot move along where z is degenerate
            of = f" for {kind} z of shape {shape}"
            left = images(stored.project(moved, of_noise.act(h, fallback)), seen)
            right = images(h @ stored.project(z, fallback), seen)
            if not of_noise.axes and of_features.axes:
                settled = ~stored.degenerate(z)
                left = [torch.where(settled.unsqueeze(-1), image, 0) for image in left]
                right = [torch.where(settled.unsqueeze(-1), image, 0) for image in right]
            self.same("covariance project(h z, h fallback) = h project(z, fallback)", left, right, of)

            # 3. finite slopes, and an honest `degenerate`
            self.gradient(f, z, fallback, seen, of)
            if shape == BATCH_SHAPES[-1]:
                self.judgement(f, z, shape, seen, of)

    def rounded(self, f: Group, z: Tensor) -> Tensor:
        """z as a net would give it: exact ties and dependences blurred by rounding."""
        axes = tuple(range(z.ndim - Rep(*f.feature_slots).ndim, z.ndim))
        if not axes or not z.numel():
            return z
        extent = z.abs().amax(axes, keepdim=True)
        return z + 4 * torch.finfo(z.dtype).eps * extent * self.features(f, tuple(z.shape[: axes[0]]))

    def gradient(self, f: Group, z: Any, fallback: Tensor, seen: dict[Rep, Tensor], of: str) -> None:
        """Finite slopes of where g sends the probes."""
        if isinstance(z, tuple):
            leaves = tuple([part.clone().requires_grad_() for part in z])
            g = self.stored[f].project(leaves, fallback)
        else:
            leaves = (z.clone().requires_grad_(),)
            g = self.stored[f].project(leaves[0], fallback)
        outputs = [y.sum() for y in images(g, seen) if y.requires_grad]
        if not outputs:
            return
        slopes = torch.autograd.grad(torch.stack(outputs).sum(), leaves, allow_unused=True)
        for slope in slopes:
            if slope is not None and not bool(slope.isfinite().all()):
                self.fail("the gradient of project must be finite", of)

    def judgement(self, f: Group, z: Any, shape: tuple[int, ...], seen: dict[Rep, Tensor], of: str) -> None:
        """`degenerate` is true exactly where elements of different fallbacks differ."""
        # a generator of its own, so that the other checks do not depend on this one
        options: dict[str, Any] = {"generator": seeded(None, self.generator.device), "dtype": torch.float64}
        fallbacks = self.stored[f].draw_noise((FALLBACK_DRAWS, *shape), **options)
        many: Any
        if isinstance(z, tuple):
            many = tuple([part.expand(FALLBACK_DRAWS, *part.shape) for part in z])
        else:
            many = z.expand(FALLBACK_DRAWS, *z.shape)
        g = self.stored[f].project(many, fallbacks)
        drawn = torch.cat(images(g, seen), -1)
        differs = (drawn - drawn[0]).abs().amax((0, -1)) > self.tolerance
        said = self.stored[f].degenerate(z)
        if bool((differs & ~said).any()):
            self.fail("project must not use its fallback where degenerate is false", of)
        if bool((said & ~differs).any()):
            self.fail("project must use its fallback where degenerate is true", of)

    # ------------------------------------------------------------ Haar

    def uniform(self, alpha: float, samples: int) -> None:
        """haar, h haar and haar h have the same mean of linear and quadratic features."""
        h = expand_samples(draw_elements(self.group, (), self.stored, self.generator), samples)
        for side in ("left", "right"):
            g = self.haar(samples)
            other = self.haar(samples)
            moved = h @ other if side == "left" else other @ h
            a = torch.cat(self.act(g), -1)
            b = torch.cat(self.act(moved), -1)
            p = two_sample(torch.cat([a, a.square()], -1), torch.cat([b, b.square()], -1), self.tolerance)
            if p < alpha:
                self.fail(f"haar must be invariant on the {side}", f": p = {p:.1e}, false-alarm rate {alpha:.0e}")

    def haar(self, samples: int) -> Element:
        # products take the sizes by factor
        n: Any = self.sizes
        if len(self.group.factors) == 1:
            n = self.sizes[self.group]
        return self.group.haar((samples,), n=n, generator=self.generator, dtype=torch.float64)


def _degraded(z: Tensor) -> dict[str, Tensor]:
    """Generic and degenerate features."""
    constant = z
    if z.ndim:
        constant = z[..., :1].expand_as(z)
    pair = z.clone()
    if z.ndim and z.shape[-1] > 1:
        pair[..., 1] = pair[..., 0]
    if z.is_complex():
        whole = torch.view_as_complex(torch.view_as_real(z).round())
    else:
        whole = z.round()
    return {
        "generic": z,
        "zero": torch.zeros_like(z),
        "constant": constant,
        "twice the same": pair,
        "rounded": whole,
        "tiny": 1e-20 * z,
        "huge": 1e20 * z,
    }
