"""The checker of groups."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError
from typing import Any

import torch
from torch import Tensor

from probsym.groups import E, Element, Group, Product
from probsym.reps import Rep
from probsym.testing.elements import as_real, distance, images, join, probes, random_element, repeated, seeded
from probsym.testing.statistics import two_sample

SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (3, 1, 2))


def assert_group(
    group: Group,
    *,
    n: Any = None,
    tolerance: float = 1e-10,
    alpha: float = 1e-9,
    samples: int = 512,
    generator: torch.Generator | None = None,
) -> None:
    """Check the axioms of a group, in float64, over batch shapes (), (1,) and (3, 1, 2), near the identity and far.

        (ab)c = a(bc),   ea = a = ae,   a^-1 a = e = a a^-1,   (ab)x = a(bx) on every slot,
        project(h z, h fallback) = h project(z, fallback), up to rounding of h z, finite with a finite gradient, on
        generic, tied, rank-deficient, zero, tiny (1e-20) and huge (1e20) z, and `degenerate` true exactly where the
        fallback matters,
        equality by value, hash, repr,   h haar = haar = haar h in distribution.

    Elements are compared by what they do to random tensors, so an action must be faithful. All checks are exact but
    the last, whose false-alarm rate is `alpha` for each of its two sides (`testing.statistics`).

    Args:
        group: any group, also a product or a user's own.
        n: size of a node axis that does not know its own, by factor for products; 4 unless given.

    Raises:
        AssertionError: names the law that fails.

    >>> from probsym.groups import SE, S
    >>> assert_group(S("nodes") * SE(2), n=3)
    """
    _Checks(group, n, tolerance, seeded(generator)).run(alpha, samples)


class _Checks:
    """The laws of one group, with what all of them share."""

    def __init__(self, group: Group, n: Any, tolerance: float, generator: torch.Generator) -> None:
        self.group, self.tolerance, self.generator = group, tolerance, generator
        size = {f: 4 if n is None and getattr(f, "size", 0) is None else n for f in group.factors}
        size = {f: n.get(f) if isinstance(n, dict) else v for f, v in size.items()}
        self.layouts = {f: f.layout(size[f]) for f in group.factors}
        self.seen = probes(group, self.layouts, generator)

    def run(self, alpha: float, samples: int) -> None:
        self.structure()
        for shape in SHAPES:
            self.axioms(shape)
            for f in self.group.factors:
                self.projection(f, shape)
        if not any(isinstance(f, E) for f in self.group.factors):
            self.uniform(alpha, samples)

    def fail(self, law: str, detail: str = "") -> None:
        raise AssertionError(f"{self.group!r}: {law}{detail}")

    def same(self, law: str, a: list[Tensor], b: list[Tensor], of: str = "") -> None:
        gap = distance(a, b)
        if not gap <= self.tolerance:
            self.fail(law, f" fails{of}: difference {gap:.1e}, tolerance {self.tolerance:.0e}")

    def act(self, g: Element) -> list[Tensor]:
        return images(g, self.seen)

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

    def elements(self, shape: tuple[int, ...]) -> list[Element]:
        """Three random elements, and three near the identity."""
        far = [random_element(self.group, shape, self.layouts, self.generator) for _ in range(3)]
        return [*far, *(self.near(shape) for _ in range(3))]

    def near(self, shape: tuple[int, ...]) -> Element:
        """project(z + small) project(z)^-1."""
        parts = {}
        for f in self.group.factors:
            z, fallback, small = (self.noise(f, shape) for _ in range(3))
            pair = [f.project((w[..., 0], w) if isinstance(f, E) else w, fallback, self.layouts[f])
                    for w in (z, z + 1e-4 * small)]  # fmt: skip
            parts[f] = pair[1] @ pair[0].inverse()
        return join(self.group, parts)

    def noise(self, f: Group, shape: tuple[int, ...]) -> Tensor:
        return f.draw_noise(shape, self.layouts[f], generator=self.generator, dtype=torch.float64)

    def axioms(self, shape: tuple[int, ...]) -> None:
        of = f" for batch shape {shape}"
        n = self.layouts if isinstance(self.group, Product) else self.layouts[self.group]
        e = self.group.identity(shape, n=n, dtype=torch.float64)
        elements = self.elements(shape)
        for i, a in enumerate(elements):
            b, c = elements[i - 1], elements[i - 2]
            if tuple(a.shape) != shape or tuple((a @ b).shape) != shape or tuple(e.shape) != shape:
                self.fail("elements must keep their batch shape", of)
            self.same("associativity (ab)c = a(bc)", self.act((a @ b) @ c), self.act(a @ (b @ c)), of)
            self.same("identity e a = a", self.act(e @ a), self.act(a), of)
            self.same("identity a e = a", self.act(a @ e), self.act(a), of)
            self.same("inverse a^-1 a = e", self.act(a.inverse() @ a), self.act(e), of)
            self.same("inverse a a^-1 = e", self.act(a @ a.inverse()), self.act(e), of)
            for rep, x in self.seen.items():
                twice = rep.act(a, rep.act(b, x, 0))
                self.same(f"action (ab)x = a(bx) on {rep!r}", [as_real(rep.act(a @ b, x, 0))], [as_real(twice)], of)
                still = rep.act(e, x, 0)
                self.same(f"action e x = x on {rep!r}", [as_real(still)], [as_real(x.expand_as(still).to(still))], of)
            self.sound(a, of)

    def sound(self, g: Element, of: str) -> None:
        """Matrices are orthogonal, indices are permutations."""
        for f in self.group.factors:
            matrix, index = getattr(g[f], "matrix", None), getattr(g[f], "index", None)
            if isinstance(matrix, Tensor):
                unit = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
                self.same(f"orthogonality of {f!r}", [as_real(matrix.mH @ matrix)], [as_real(unit)], of)
                if getattr(f, "special", False):
                    det = torch.linalg.det(matrix)
                    self.same(f"determinant one of {f!r}", [as_real(det)], [as_real(torch.ones_like(det))], of)
            if isinstance(index, Tensor):
                places = torch.arange(index.shape[-1], device=index.device).expand_as(index)
                self.same(f"indices of {f!r} are permutations", [index.sort(-1).values.double()], [places.double()], of)

    def projection(self, f: Group, shape: tuple[int, ...]) -> None:
        """Covariance of project, and its gradient."""
        rep, layout = Rep(*f.noise_slots), self.layouts[f]
        seen = {r: x for r, x in self.seen.items() if r.group == f}
        z = self.noise(f, shape)
        for kind, value in _degraded(z).items():
            fallback = self.noise(f, shape)
            h = random_element(f, shape, self.layouts, self.generator)
            moved = self.rounded(rep.act(h, value), f)
            if isinstance(f, E):
                origin = self.noise(f, shape)[..., 0]
                value, moved = (origin, value), (Rep(f).act(h, origin), moved)  # type: ignore[assignment]
            law, of = "covariance project(h z, h fallback) = h project(z, fallback)", f" for {kind} z of shape {shape}"
            left, right = f.project(moved, rep.act(h, fallback), layout), h @ f.project(value, fallback, layout)
            self.same(law, images(left, seen), images(right, seen), of)
            self.gradient(f, value, fallback, seen, of)
            if shape == SHAPES[-1]:
                self.judgement(f, value, shape, seen, of)

    def judgement(self, f: Group, z: Any, shape: tuple[int, ...], seen: dict[Rep, Tensor], of: str) -> None:
        """`degenerate` is true exactly where elements of different ties differ: by chance not once in 2^39."""
        options: dict[str, Any] = {"generator": seeded(None, self.generator.device), "dtype": torch.float64}
        ties = f.draw_noise((40, *shape), self.layouts[f], **options)
        many = tuple(t.expand(40, *t.shape) for t in z) if isinstance(z, tuple) else z.expand(40, *z.shape)
        drawn = torch.cat(images(f.project(many, ties, self.layouts[f]), seen), -1)
        differs = (drawn - drawn[0]).abs().amax((0, -1)) > self.tolerance
        said = f.degenerate(z, self.layouts[f])
        if bool((differs & ~said).any()):
            self.fail("project must not use its fallback where degenerate is false", of)
        if bool((said & ~differs).any()):
            self.fail("project must use its fallback where degenerate is true", of)

    def rounded(self, z: Tensor, f: Group) -> Tensor:
        """z as a net would give it: exact ties and dependences blurred by rounding."""
        axes = tuple(range(z.ndim - Rep(*f.noise_slots).ndim, z.ndim))
        if not axes or not z.numel():
            return z
        return z + 4 * torch.finfo(z.dtype).eps * z.abs().amax(axes, keepdim=True) * self.noise(f, z.shape[: axes[0]])

    def gradient(self, f: Group, z: Any, fallback: Tensor, seen: dict[Rep, Tensor], of: str) -> None:
        z = tuple(t.clone().requires_grad_() for t in (z if isinstance(z, tuple) else (z,)))
        moved = images(f.project(z if len(z) > 1 else z[0], fallback, self.layouts[f]), seen)
        total = sum(as_real(y).sum() for y in moved if y.requires_grad)
        if isinstance(total, Tensor):
            slopes = torch.autograd.grad(total, z, allow_unused=True)
            if not all(bool(s.isfinite().all()) for s in slopes if s is not None):
                self.fail("the gradient of project must be finite", of)

    def uniform(self, alpha: float, samples: int) -> None:
        """haar, h haar and haar h have the same mean of linear and quadratic features."""
        options: dict[str, Any] = {"n": self.layouts if isinstance(self.group, Product) else self.layouts[self.group],
                                   "generator": self.generator, "dtype": torch.float64}  # fmt: skip
        h = repeated(random_element(self.group, (), self.layouts, self.generator), samples)
        for side in ("left", "right"):
            g, other = (self.group.haar((samples,), **options) for _ in range(2))
            a, b = (torch.cat(self.act(k), -1) for k in (g, h @ other if side == "left" else other @ h))
            p = two_sample(torch.cat([a, a.square()], -1), torch.cat([b, b.square()], -1), self.tolerance)
            if p < alpha:
                self.fail(f"haar must be invariant on the {side}", f": p = {p:.1e}, false-alarm rate {alpha:.0e}")


def _degraded(z: Tensor) -> dict[str, Tensor]:
    """Generic and degenerate ambient features."""
    pair = z.clone()
    if z.ndim and z.shape[-1] > 1:
        pair[..., 1] = pair[..., 0]
    return {
        "generic": z, "zero": torch.zeros_like(z), "constant": z[..., :1].expand_as(z) if z.ndim else z,
        "twice the same": pair, "rounded": z.round(), "tiny": 1e-20 * z, "huge": 1e20 * z,
    }  # fmt: skip
