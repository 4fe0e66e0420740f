"""What every choice of p(g|x) is: noise in, group element out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.diagnostics import Diagnostics, added, fill
from probsym.groups import Element, Group, product
from probsym.groups.whole import positive
from probsym.members import register
from probsym.reps import Inputs, Rep, build
from probsym.reps.compiling import marked, marked_inputs

Noise = Any  # nested dict / tuple of tensors, shaped like `noise_rep`

FEW_ELEMENTS = 10  # so many are averaged exactly in evaluation, for no more calls than samples would take
SAMPLES_PER_PAGE = 64  # samples whose noise is drawn together


@dataclass(frozen=True, eq=False)
class Support:
    """A finite distribution over group elements, one an input.

    Args:
        element: batch shape (M, B).
        weight: (M, B), sums to one over M; zero where an input has fewer than M elements.
        exact: (B,), true where these are all elements rather than a sample.
        diagnostics: scalars that tell what was degenerate.
        unsure: (B,), true where the rounding of the input decides which elements these are, so that another pose of it
            may get others: the standard error is infinite. None for none.
        draws: (B,), independent draws among the elements of an input that is not exact; None where each element is one.
        uniform: whether all weights are 1 / M; then nobody has to read them.
    """

    element: Element
    weight: Tensor
    exact: Tensor
    diagnostics: dict[str, Tensor]
    unsure: Tensor | None = None
    draws: Tensor | None = None
    uniform: bool = False

    @property
    def count(self) -> Tensor:
        """Number of elements of each input (B,)."""
        elements, inputs = self.weight.shape
        if self.uniform:
            return torch.full((inputs,), elements, device=self.weight.device)
        return (self.weight > 0).sum(0)

    @property
    def independent(self) -> Tensor:
        """Number of independent draws (B,) of inputs that are not exact."""
        if self.draws is None:
            return self.count
        return self.draws


class EquivariantDistribution(nn.Module, ABC):
    """A distribution over group elements that moves with the input, p(hg | hx) = p(g | x).

    `noise` draws all randomness. `transport` is deterministic and jointly equivariant,

        transport(h x, h eps) = h transport(x, eps)                                        (docs/theory.md, eq. 5)

    Together they give p(hg | hx) = p(g | x) if h eps has the law of eps. Every distribution chooses its noise and says
    in `noise_rep` how the group moves it. Gaussian vectors that turn with a rotation are one choice. Noise that the
    group leaves alone, `Rep(None)`, is another, and the only one where no noise moves without changing its law, as
    under boosts. `probsym.testing.assert_distribution` checks both lines.

    Subclasses give `noise`, `noise_rep` and `transport`; a finite distribution also gives `support` and says
    `has_enumerate_support`. A distribution is used as it is; only `probsym.save` needs it registered.

    Args:
        group: the group of the elements.
    """

    default_samples: tuple[int | None, int | None] = (1, 10)  # in training and in evaluation; None is exact
    has_enumerate_support: bool = False

    def __init__(self, group: Group) -> None:
        super().__init__()
        if not isinstance(group, Group):
            raise TypeError(f"{type(self).__name__}: expected a group such as S('nodes') or O(3), got {group!r}")
        self.group = group

    @abstractmethod
    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        """All randomness of a draw of sample shape `shape`: tensors (*shape, B, ...), ragged (*shape, sum N, ...)."""

    @abstractmethod
    def noise_rep(self, x: Inputs) -> Any:
        """How the group moves the noise: Reps in the containers of `noise`; `Rep(None)` for noise that stays."""

    @abstractmethod
    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        """Group elements of batch shape (*shape, B), a deterministic function of the inputs and the noise.

        Args:
            diagnostics: if given, it is filled with scalars about these elements (entropy, degeneracies). A
                `Diagnostics` computes those that cost something when they are read, any other dict at once.
        """

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile `transport` in place, with the options of `torch.compile`: one compilation for batches of any size.

        The noise is drawn outside, so that a generator or a seed gives the samples that it gives without. Not compiled
        are calls with `diagnostics`, those under function transforms (`torch.vmap`), and those within other compiled
        code, which follows the function itself. Sizes other than that of the batch (samples, nodes) are compiled for
        when they change, and so is a batch of one input. Copies and files hold the distribution as it was.

        Raises:
            TypeError: options that are given by position.
        """
        if args:
            raise TypeError(f"compile: expected options by keyword, got {args!r}")
        self.__dict__["transport"] = CompiledTransport(self, options)

    def __getstate__(self) -> dict[str, Any]:
        # Without what was compiled. Copied: Python gives the dict of this object itself where torch has no way.
        state = dict(super().__getstate__())  # type: ignore[misc]  # as of nn.Module
        state.pop("transport", None)
        return state

    def noise_pages(
        self, x: Inputs, k: int, generator: torch.Generator | None = None, page: int = SAMPLES_PER_PAGE
    ) -> Iterator[Noise]:
        """The noise of k independent samples, at most `page` at a time, so that nobody has to hold all of it."""
        for start in range(0, k, page):
            yield self.noise(x, (min(page, k - start),), generator)

    def draw(self, x: Inputs, k: int, generator: torch.Generator | None = None) -> Noise:
        """The noise of k independent samples at once: `noise_pages` put together."""
        return joined(list(self.noise_pages(x, k, generator)))

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All elements with their weights.

        Raises:
            TypeError: there are infinitely many, more than can be listed, or their weights are not known.
        """
        reason = "does not list its elements" if self.group.finite else "has infinite or too large support"
        raise TypeError(f"{self.brief} {reason}: use MonteCarlo(k) instead of Exact()")

    @property
    def brief(self) -> str:
        """One line for messages, where the repr of a Module would list its nets."""
        return f"{type(self).__name__}({self.group!r})"

    @property
    def left_out_of_forces(self) -> str:
        """What the derivative of an average with respect to the inputs leaves out, in words; "" for nothing.

        With the noise held, an element may jump as the input moves. Derivatives of samples do not show it, though the
        mean follows it smoothly: the force is then not the gradient of the mean energy. Of elements that are the same
        in every draw (frames, canonical poses) the mean itself jumps; its derivative elsewhere is right.
        """
        return ""

    def for_output(self, spec: Any) -> EquivariantDistribution:
        """The distribution for outputs of the given Reps; itself unless what is exact depends on them."""
        return self

    def enumerable_part(self, x: Inputs) -> tuple[EquivariantDistribution | None, EquivariantDistribution | None]:
        """Two independent parts: one whose elements `support` lists, and the rest; None where there is none."""
        if self.has_enumerate_support:
            return self, None
        return None, self

    def move_noise(self, x: Inputs, h: Element, noise: Noise) -> Noise:
        """h eps, for h of batch shape (B,) and noise of any sample shape."""

        def moved(path: tuple[Any, ...], rep: Rep) -> Tensor:
            eps = noise
            for key in path:
                eps = eps[key]
            sample = eps.shape[: eps.ndim - rep.batch_dims - rep.ndim]
            return rep.act(h.map(lambda tensor, _: tensor.expand(*sample, *tensor.shape)), eps)

        return build(self.noise_rep(x), moved)

    def check_noise(self, x: Inputs, noise: Noise) -> None:
        """Refuse noise (K, ...) that was not drawn for these inputs: broadcast, it would be of another law or shape.

        Raises:
            ValueError: another distribution's containers, another number of inputs, nodes or rows; names the tensor.

        >>> import probsym as ps
        >>> space = ps.SO(3)
        >>> phi = ps.symmetrize(nn.Identity(), ps.Rep(None, space), ps.Rep(None, space), "haar")
        >>> one, four = torch.randn(1, 5, 3), torch.randn(4, 5, 3)
        >>> phi(one, noise=phi.draw_noise(four, samples=2))
        Traceback (most recent call last):
        ValueError: noise['features'][SO(3)]: expected shape (K, 1, ...), as drawn for 1 input, got (2, 4, 3, 3)
        """

        def check(path: tuple[Any, ...], rep: Rep) -> None:
            name = "noise"
            eps = noise
            for key in path:
                name += f"[{key!r}]"
                try:
                    eps = eps[key]
                except (KeyError, IndexError, TypeError):
                    raise ValueError(f"{name}: missing; noise is what phi.draw_noise gives for {self.brief}") from None
            if not isinstance(eps, Tensor):
                raise ValueError(f"{name}: expected a tensor, got {type(eps).__name__}")
            if rep.batch_dims:
                rows, of = x.count, f"{x.count} input{'' if x.count == 1 else 's'}"
            elif rep.ragged is not None and not rep.on_edges:
                rows, of = x.layouts[rep.ragged].size, f"{x.layouts[rep.ragged].size} nodes"
            else:
                return  # edges and node numbers get no noise
            if eps.ndim != 1 + rep.batch_dims + rep.ndim or eps.shape[1] != rows:
                raise ValueError(f"{name}: expected shape (K, {rows}, ...), as drawn for {of}, got {tuple(eps.shape)}")
            rep.check_sizes(name, eps[0] if len(eps) else eps.new_zeros(eps.shape[1:]), x.layouts)

        build(self.noise_rep(x), check)

    def __mul__(self, other: EquivariantDistribution) -> ProductDistribution:
        if not isinstance(other, EquivariantDistribution):
            return NotImplemented
        return ProductDistribution(self, other)

    def extra_repr(self) -> str:
        return repr(self.group)


class CompiledTransport:
    """`transport` of a distribution, compiled."""

    def __init__(self, p: EquivariantDistribution, options: dict[str, Any]) -> None:
        self.plain = type(p).transport.__get__(p)
        self.noise_rep = p.noise_rep
        self.compiled = torch.compile(self.plain, **options)

    def __call__(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        if diagnostics is not None or not x.readable:
            return self.plain(x, noise, diagnostics)

        def of_batch(path: tuple[Any, ...], rep: Rep) -> Tensor:
            eps = noise
            for key in path:
                eps = eps[key]
            return marked(eps, eps.ndim - rep.batch_dims - rep.ndim)

        return self.compiled(marked_inputs(x), build(self.noise_rep(x), of_batch))


class ProjectedDistribution(EquivariantDistribution):
    """Distributions that project features on the group: g = project(z, fallback), z = features(x, eps).

    Three things, each of its own:

        features    z, deterministic, moves as the group's `feature_slots` say: features(hx, h eps) = h features(x, eps)
        noise       eps, what makes z random; `feature_noise` draws it and `feature_noise_rep` says how it moves
        fallback    noise that decides wherever z is degenerate (equal scores, missing directions); `fallback_noise`
                    draws it, and it moves as the group's `noise_slots` say

    Subclasses give `features`. By default eps is what `fallback` is, one Gaussian draw for each factor, so that
    `features = eps` gives the Haar distribution. The noise of a call is {"features": eps, "fallback": ...}.

    >>> from probsym.groups import O
    >>> class Upright(ProjectedDistribution):                       # the first point is up, noise turns about it
    ...     def features(self, x, noise):
    ...         (space,) = self.group.factors
    ...         up = x.kwargs["pos"][:, :1].mT                      # (B, D, 1)
    ...         rest = noise[space][..., 1:]                        # (K, B, D, D - 1)
    ...         return {space: torch.cat([up.expand(*rest.shape[:-1], 1), rest], -1)}
    >>> pos = torch.randn(2, 5, 3)
    >>> p = Upright(O(3))
    >>> x = Inputs.bind({"pos": Rep(None, O(3))}, (), {"pos": pos})
    >>> g = p.transport(x, p.noise(x, (4,)))
    >>> axis = pos[:, 0] / pos[:, 0].norm(dim=-1, keepdim=True)
    >>> torch.allclose(g.matrix[..., 0], axis.expand(4, 2, 3))
    True
    """

    @abstractmethod
    def features(self, x: Inputs, noise: Any) -> Mapping[Group, Any]:
        """Features by factor, for the noise eps of any sample shape.

        Args:
            noise: what `feature_noise` draws.

        Returns: scores (*shape, B, N) for S, vectors (*shape, B, D, M) for O and SO, (origin (B, D), vectors) for
            groups that are `anchored` (E, SE), what `project` takes for any other; without sample shape where it does
            not depend on the noise.
        """

    def feature_noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Any:
        """The noise eps of the features, of sample shape `shape`."""
        return self._factor_noise(x, shape, generator)

    def feature_noise_rep(self, x: Inputs) -> Any:
        """How the group moves the noise of the features."""
        return self._factor_reps()

    def fallback_noise(
        self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Mapping[Group, Tensor]:
        """What decides wherever the features are degenerate, by factor."""
        return self._factor_noise(x, shape, generator)

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        features = self.feature_noise(x, shape, generator)
        fallback = self.fallback_noise(x, shape, generator)
        return {"features": features, "fallback": fallback}

    def noise_rep(self, x: Inputs) -> Any:
        return {"features": self.feature_noise_rep(x), "fallback": self._factor_reps()}

    def _factor_noise(
        self, x: Inputs, shape: tuple[int, ...], generator: torch.Generator | None
    ) -> dict[Group, Tensor]:
        """One draw of the noise of each factor."""
        options = draw_options(x, generator)
        batch = (*shape, x.count)
        return {f: x.stored(f).draw_noise(batch, **options) for f in self.group.factors}

    def _factor_reps(self) -> dict[Group, Rep]:
        return {f: Rep(*f.noise_slots) for f in self.group.factors}

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        z = self.features(x, noise["features"])
        g = self.project_all(x, z, noise["fallback"])
        if diagnostics is not None:
            fill(diagnostics, self.diagnose(x, z))
        return g

    def project_all(self, x: Inputs, z: Mapping[Group, Any], fallback: Mapping[Group, Tensor]) -> Element:
        """The elements of all factors for their features."""
        parts: list[Element] = []
        for f in self.group.factors:
            parts.append(self.project(x, f, z[f], fallback[f]))
        return self.group.join(*parts)

    def project(self, x: Inputs, factor: Group, z: Any, fallback: Tensor) -> Element:
        """The element of one factor for its features."""
        return x.stored(factor).project(z, fallback)

    def diagnose(self, x: Inputs, z: Mapping[Group, Any]) -> dict[str, Tensor]:
        """Scalars about the features; none by default."""
        return {}


def draw_options(x: Inputs, generator: torch.Generator | None) -> dict[str, Any]:
    """The keywords of torch's random functions for noise that fits x; the dtype is real.

    A generator of None is left out: with the keyword torch.compile cannot follow draws whose size is symbolic, as it
    is from the second batch size on.
    """
    options: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
    if generator is not None:
        options["generator"] = generator
    return options


@register
class ProductDistribution(EquivariantDistribution):
    """The product p1(g1|x) p2(g2|x) for different groups; each factor must be invariant to the other's group.

    Written `p1 * p2`; products of products are flattened.

    Raises:
        ValueError: two of the distributions are over the same group.
    """

    def __init__(self, *parts: EquivariantDistribution) -> None:
        # 1. products of products are flattened
        members: list[EquivariantDistribution] = []
        for part in parts:
            if isinstance(part, ProductDistribution):
                members += part.members
            else:
                members.append(part)

        # 2. every factor once
        factors = [f for part in members for f in part.group.factors]
        twice = {f for f in factors if factors.count(f) > 1}
        if twice:
            raise ValueError(f"two distributions over {', '.join(map(repr, twice))}: a product needs different groups")

        super().__init__(product(factors))
        self.parts = nn.ModuleList(members)

    def describe(self) -> dict[str, Any]:
        """The parts, for `probsym.save`."""
        return {"parts": tuple(self.members)}

    @classmethod
    def rebuild(cls, parts: tuple[EquivariantDistribution, ...]) -> ProductDistribution:
        """The product of the parts."""
        return cls(*parts)

    @property
    def members(self) -> list[EquivariantDistribution]:
        """The parts, typed."""
        return list(self.parts)  # type: ignore[arg-type]

    def for_output(self, spec: Any) -> EquivariantDistribution:
        return ProductDistribution(*(part.for_output(spec) for part in self.members))

    @property
    def default_samples(self) -> tuple[int | None, int | None]:  # type: ignore[override]
        """The largest of the parts; exact only if all are."""
        largest: list[int | None] = [None, None]
        for part in self.members:
            for place, k in enumerate(part.default_samples):
                most = largest[place]
                if k is not None and (most is None or k > most):
                    largest[place] = k
        return largest[0], largest[1]

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return all(part.has_enumerate_support for part in self.members)

    @property
    def left_out_of_forces(self) -> str:
        return "; ".join(part.left_out_of_forces for part in self.members if part.left_out_of_forces)

    def enumerable_part(self, x: Inputs) -> tuple[EquivariantDistribution | None, EquivariantDistribution | None]:
        listed: list[EquivariantDistribution] = []
        sampled: list[EquivariantDistribution] = []
        for part in self.members:
            finite, rest = part.enumerable_part(x)
            if finite is not None:
                listed.append(finite)
            if rest is not None:
                sampled.append(rest)
        return _product_of(listed), _product_of(sampled)

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        return tuple(part.noise(x, shape, generator) for part in self.members)

    def noise_rep(self, x: Inputs) -> Any:
        return tuple(part.noise_rep(x) for part in self.members)

    def move_noise(self, x: Inputs, h: Element, noise: Noise) -> Noise:
        # each part may move its noise in a way of its own
        return tuple(part.move_noise(x, h, eps) for part, eps in zip(self.members, noise, strict=True))

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        elements: list[Element] = []
        of_parts: list[dict[str, Tensor]] = []
        for part, eps in zip(self.members, noise, strict=True):
            if diagnostics is None:
                elements.append(part.transport(x, eps))
                continue
            # of the kind that was given, so that what costs something waits here as well
            own = Diagnostics() if isinstance(diagnostics, Diagnostics) else dict[str, Tensor]()
            elements.append(part.transport(x, eps, own))
            of_parts.append(own)
        if diagnostics is not None:
            fill(diagnostics, added(of_parts))
        return self.group.join(*elements)

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All pairs of elements; a factor that had to be sampled leaves the pairs a sample.

        Pairs that share a draw are not independent: there are as many draws as the factor with the fewest has.
        """
        parts = [part.support(x, generator) for part in self.members]

        # 1. which element of each part makes which pair, (pairs, parts)
        counts = [torch.arange(len(part.weight), device=x.device) for part in parts]
        picks = torch.cartesian_prod(*counts).reshape(-1, len(parts))

        # 2. the pairs and their weights
        weight = torch.stack([part.weight[picks[:, i]] for i, part in enumerate(parts)]).prod(0)
        element = self.group.join(*[part.element.select(picks[:, i]) for i, part in enumerate(parts)])

        # 3. what is known of a pair is what is known of both of its elements
        exact = torch.stack([part.exact for part in parts]).all(0)
        doubts = [part.unsure for part in parts if part.unsure is not None]
        unsure: Tensor | None = None
        if doubts:
            unsure = torch.stack(doubts).any(0)
        largest = torch.iinfo(torch.long).max
        draws = torch.stack([part.independent.masked_fill(part.exact, largest) for part in parts]).amin(0)
        return Support(element, weight, exact, added(part.diagnostics for part in parts), unsure, draws)


def _product_of(parts: list[EquivariantDistribution]) -> EquivariantDistribution | None:
    """The product of independent distributions; None of none."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    return ProductDistribution(*parts)


def has_few_elements(group: Group) -> bool:
    """Whether an average over all elements takes no more calls of the model than the usual number of samples.

    >>> import probsym as ps
    >>> has_few_elements(ps.C(4)), has_few_elements(ps.Shift(16)), has_few_elements(ps.SO(3))
    (True, False, False)
    """
    order = group.order()
    return order is not None and order <= FEW_ELEMENTS


def joined(parts: Sequence[Noise]) -> Noise:
    """The noise of all samples, from that of some at a time."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined([part[place] for part in parts]) for place in range(len(first)))
    return torch.cat(list(parts))


def sliced(noise: Noise, part: slice) -> Noise:
    """The noise of some samples."""
    if isinstance(noise, Mapping):
        return {key: sliced(value, part) for key, value in noise.items()}
    if isinstance(noise, tuple):
        return tuple(sliced(value, part) for value in noise)
    return noise[part]


def map_tensors(noise: Noise, fn: Callable[[Tensor], Tensor]) -> Noise:
    """Noise with fn(tensor) in place of each of its tensors."""
    if isinstance(noise, Tensor):
        return fn(noise)
    if isinstance(noise, Mapping):
        return {key: map_tensors(part, fn) for key, part in noise.items()}
    return tuple(map_tensors(part, fn) for part in noise)


def samples_of(noise: Noise) -> int:
    """Number of samples K of the noise, that of its first tensor.

    Raises:
        ValueError: there is no tensor, or something else than dicts, tuples and tensors stands before it.
    """
    left = [noise]
    while left:
        part = left.pop(0)
        if isinstance(part, Tensor) and part.ndim:
            return part.shape[0]
        if isinstance(part, Mapping):
            left = [*part.values(), *left]
        elif isinstance(part, tuple | list):
            left = [*part, *left]
        else:
            break
    raise ValueError(f"noise: expected what phi.draw_noise gives, tensors of shape (K, ...), got {noise!r}")


def samples_asked(samples: int | None, noise: Noise) -> int:
    """How many samples a call asks for: `samples`, or as many as the noise has; one if neither is given.

    Raises:
        ValueError: `samples` is no positive whole number, or not that of the noise.
    """
    if samples is not None:
        samples = positive("samples", samples)
    if noise is None:
        return samples or 1
    given = samples_of(noise)
    if samples is not None and samples != given:
        raise ValueError(f"samples: expected {given}, as many as the noise has, got {samples}")
    return given
