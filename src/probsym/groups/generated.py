"""Finite groups by generators: a slot says what each generator does to an axis."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probsym.groups import cayley
from probsym.groups.base import Element, Slot, check_sign
from probsym.groups.cayley import CayleyGraph, Matrices, Permutations
from probsym.groups.finite import FiniteGroup
from probsym.groups.orthogonal import rotate
from probsym.groups.whole import positive
from probsym.kernels.gathers import gather_nodes
from probsym.kernels.precision import real_dtype
from probsym.kernels.values import may_peek
from probsym.members import register

LONGEST_REPR = 120  # letters of generators or a table that a repr shows in full


@dataclass(frozen=True, eq=False)
class GeneratedElement(Element):
    """The elements with these places in the list of the group.

    Args:
        number: integers of batch shape.
    """

    number: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"number": 0}


class GeneratedGroup(FiniteGroup[GeneratedElement]):
    """Shared by groups that are told by generators: elements are numbers, slots are given by what generators do.

    Attributes:
        graph: its elements and products, by number.
    """

    graph: CayleyGraph

    def order(self) -> int:
        return self.graph.order

    def elements(self, device: torch.device | str | None = None) -> GeneratedElement:
        return GeneratedElement(self, torch.arange(self.order(), device=device))

    def numbered(self, number: Tensor) -> GeneratedElement:
        return GeneratedElement(self, number)

    def number(self, g: GeneratedElement) -> Tensor:
        return g.number

    def compose(self, g: GeneratedElement, h: GeneratedElement) -> GeneratedElement:
        return GeneratedElement(self, self.graph.multiply(g.number, h.number))

    def inverse(self, g: GeneratedElement) -> GeneratedElement:
        return GeneratedElement(self, self.graph.invert(g.number))

    def violation(self, g: GeneratedElement) -> Tensor:
        """Zero if the numbers are in range."""
        in_range = (g.number >= 0) & (g.number < self.order())
        return (~in_range).to(torch.get_default_dtype())

    @property
    def generator_elements(self) -> GeneratedElement:
        """The generators, in order, as elements of batch shape (S,)."""
        return GeneratedElement(self, torch.from_numpy(self.graph.generators.copy()))

    # ------------------------------------------------------------ slots, by what each generator does

    def permutation(self, images: Sequence[Sequence[int]]) -> Slot:
        """An axis whose N entries are exchanged: classes with a left and a right, keypoints, copies of one part.

            (s x)_i = x_{images[s]_i}

        Args:
            images: for each generator s a list of the numbers 0 to N - 1.

        Raises:
            ValueError: no permutations, or images that do not satisfy the relations of the group.

        >>> from probsym.reps import Rep
        >>> mirror = Finite(generators=1, name="mirror")
        >>> classes = Rep(mirror.permutation([[0, 2, 1]]))                    # background, left kidney, right kidney
        >>> classes.act(mirror.generator_elements, torch.tensor([[0.7, 0.1, 0.2]])).tolist()
        [[0.699999988079071, 0.20000000298023224, 0.10000000149011612]]
        >>> mirror.permutation([[1, 2, 0]])
        Traceback (most recent call last):
        ...
        ValueError: permutation: the images do not satisfy the relations of the group: aa = 1 in the group, and not \
here (generators a, b, ... in order; ab: first b acts)
        """
        return PermutedEntries(self, _permutations("permutation", images, self))

    def signed(self, images: Sequence[Sequence[int]]) -> Slot:
        """An axis whose N entries are exchanged and change sign: joints of a legged robot, components of a vector.

            (s x)_i = sign(images[s]_i) x_{|images[s]_i|}

        Args:
            images: for each generator s a list of the numbers 1 to N with signs, -3 for "minus the third".

        Raises:
            ValueError: no signed permutations, or images that do not satisfy the relations of the group.

        >>> from probsym.reps import Rep
        >>> mirror = Finite(generators=1, name="mirror")
        >>> velocity = Rep(mirror.signed([[1, -2, 3]]))
        >>> velocity.act(mirror.generator_elements, torch.tensor([[5.0, 1.0, 2.0]])).tolist()
        [[5.0, -1.0, 2.0]]
        """
        return SignedEntries(self, _signed_permutations("signed", images, self))

    def linear(self, images: Any) -> Slot:
        """An axis that is multiplied by matrices.

            s x = images[s] x

        Args:
            images: for each generator s an invertible real matrix (D, D). Their relations have to hold up to 1e-6;
                rounding is mended, so that single precision will do (in groups of at most 2,048 elements).

        Raises:
            ValueError: no square matrices, or images that do not satisfy the relations of the group.

        >>> third = Finite(generators=1, relations=["aaa"])
        >>> third.linear([[[0.0, -1.0], [1.0, -1.0]]]).isometric
        False
        """
        return MultipliedEntries(self, _matrices("linear", images, self))

    def grid(self, images: Sequence[Sequence[int]]) -> Slot:
        """The axes of an image or a volume, which are exchanged and flipped about the centre; takes D axes.

        The entry i of the image of s says what becomes axis i: a number from 1 to D, negative if it is read backwards.
        So `[1, -2]` flips the columns of an image, and `[2, 1]` transposes it. Axes that the group exchanges need equal
        sizes; others may have any. A field of vectors with components along the axes moves by `signed` with the same
        images, beside the grid.

        Args:
            images: for each generator s a list of the numbers 1 to D with signs.

        Raises:
            ValueError: no signed permutations, or images that do not satisfy the relations of the group.

        >>> from probsym.reps import Rep
        >>> mirror = Finite(generators=1, name="mirror")
        >>> Rep(mirror.grid([[1, -2]])).act(mirror.generator_elements, torch.tensor([[[1, 2, 3], [4, 5, 6]]])).tolist()
        [[[3, 2, 1], [6, 5, 4]]]
        """
        return TurnedGrid(self, _signed_permutations("grid", images, self))


# ---------------------------------------------------------------- the group


@register
@dataclass(frozen=True, repr=False)
class Finite(GeneratedGroup):
    """A finite group of at most 40,320 elements, by generators.

    | `generators=` | the group |
    |---|---|
    | a number S | S generators; without `relations` they commute and each is its own inverse, as flips do |
    | a number S with `relations=` | words in a, b, ... that are the identity; a capital letter is an inverse |
    | permutations | lists of 0 to N - 1, as gather indices: (s x)_i = x_{s_i}. The group acts on N entries |
    | matrices | (D, D), invertible, of finite order: a point group. Equal up to 1e-6. The group acts on vectors |
    | `table=` | row a, column b has the number of a b; 0 is the identity. All elements are generators, or those named |

    Slots say what each generator does to an axis: `permutation`, `signed`, `linear`, `grid`; they are checked to be
    representations. `regular` has one entry per element. A group of matrices has `vector` and `det`. In a Rep the group
    itself stands for its permutations, its vectors, or else for `regular`.

    Args:
        generators: see above; with a table, the numbers of the elements that generate it.
        name: tells this group from others.
        table: a multiplication table.
        relations: words such as "aaaa" and "abab".

    Raises:
        ValueError, TypeError: no generators of this kind, a table of no group, relations that name no generator; a
            group that is larger than 40,320 elements, or has no end.

    >>> mirror = Finite(generators=1, name="mirror")
    >>> mirror.order(), Finite([[1, 0, 2], [1, 2, 0]]).order(), Finite(2, relations=["aaaa", "bb", "abab"]).order()
    (2, 6, 8)
    >>> quarter = Finite([[[0, -1], [1, 0]]], "quarter turns")
    >>> quarter.order(), quarter.vector
    (4, Finite([[[0, -1], [1, 0]]], 'quarter turns'))
    """

    generators: Any = None
    name: str | None = None
    table: Any = field(default=None, kw_only=True)
    relations: Any = field(default=None, kw_only=True)
    graph: CayleyGraph = field(init=False, compare=False)

    def __post_init__(self) -> None:
        given, table, relations, graph = _group(self.generators, self.table, self.relations)
        object.__setattr__(self, "generators", given)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "relations", relations)
        object.__setattr__(self, "graph", graph)

    @property
    def defining(self) -> Slot:
        if self._holds_matrices:
            return self.vector
        if self.table is None and not isinstance(self.generators, int):
            return PermutedEntries(self, self.generators)
        return self.regular

    @property
    def vector(self) -> Slot:
        """The space in which the matrices act."""
        self._check_matrices("vector")
        return MultipliedEntries(self, self.generators)

    @property
    def det(self) -> Slot:
        """The determinant of the matrices, 1 or -1: pseudoscalars."""
        self._check_matrices("det")
        return determinants(self, self.generators)

    @property
    def _holds_matrices(self) -> bool:
        return isinstance(self.generators, tuple) and self.table is None and isinstance(self.generators[0][0], tuple)

    def _check_matrices(self, slot: str) -> None:
        if not self._holds_matrices:
            raise TypeError(
                f"{self!r} is not made from matrices and has no .{slot}: use .linear or .signed, which take what each "
                "generator does"
            )

    def describe(self) -> dict[str, Any]:
        """The arguments, for `probsym.save`."""
        return {
            "generators": _as_lists(self.generators),
            "name": self.name,
            "table": _as_lists(self.table),
            "relations": _as_lists(self.relations),
        }

    def __hash__(self) -> int:
        return hash((Finite, self.graph.order, self.name))  # of long tables and lists too, at every use

    def __repr__(self) -> str:
        shown: list[str] = []
        if self.generators is not None:
            shown.append(_brief(self.generators))
        if self.name is not None:
            shown.append(repr(self.name) if shown else f"name={self.name!r}")
        if self.table is not None:
            shown.append(f"table={_brief(self.table)}")
        if self.relations is not None:
            shown.append(f"relations={_brief(self.relations)}")
        return f"Finite({', '.join(shown)})"


def _group(generators: Any, table: Any, relations: Any) -> tuple[Any, Any, Any, CayleyGraph]:
    """The arguments of `Finite` as numbers and tuples, and the graph that they tell."""
    if relations is not None and (isinstance(generators, bool) or not isinstance(generators, int | np.integer)):
        raise TypeError(f"relations: expected a number of generators with them, got generators={generators!r}")

    # 1. a table
    if table is not None:
        rows = _table(table)
        chosen = None if generators is None else _members(generators, len(rows))
        return chosen, rows, None, cayley.of_table(rows, chosen)
    if generators is None:
        raise TypeError(
            "generators: expected a number, permutations or matrices, or a multiplication table as table=, got None"
        )

    # 2. abstract generators
    if isinstance(generators, bool | int | np.integer):
        count = positive("generators", generators)
        if relations is None:
            return count, None, None, cayley.of_flips(count)
        words = _words(relations, count)
        return count, None, words, cayley.of_relations(count, words)

    # 3. permutations or matrices
    array = _array("generators", generators)
    if array.ndim == 3:
        matrices = _matrices("generators", array)
        return matrices, None, None, cayley.of_matrices(matrices)
    if array.ndim != 2:
        raise ValueError(
            "generators: expected a list of permutations (lists of numbers) or of matrices (lists of rows), got shape "
            f"{array.shape}"
        )
    permutations = _permutations("generators", array)
    return permutations, None, None, cayley.of_permutations(permutations)


# ---------------------------------------------------------------- arguments


def _array(name: str, values: Any) -> np.ndarray:
    """Nested lists, arrays or tensors as one array of real numbers."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    elif isinstance(values, list | tuple):
        parts: list[Any] = []
        for part in values:
            if isinstance(part, Tensor):
                part = part.detach().cpu().numpy()
            parts.append(part)
        values = parts
    try:
        array = np.array(values)
    except ValueError:
        raise ValueError(f"{name}: expected one list a generator, all of the same size, got {values!r}") from None
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected lists of real numbers, got {values!r}")
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, and some, got {values!r}")
    return array


def _images(name: str, values: Any, group: GeneratedGroup | None, ndim: int) -> np.ndarray:
    """What each generator of a group does, as one array of `ndim` axes, the generators first."""
    array = _array(name, values)
    if array.ndim != ndim:
        what = "a matrix" if ndim == 3 else "a list of whole numbers"
        raise ValueError(f"{name}: expected {what} for each generator, got shape {array.shape}")
    if group is not None and len(array) != len(group.graph.generators):
        raise ValueError(
            f"{name}: expected one entry for each of the {len(group.graph.generators)} generators of {group!r}, got "
            f"{len(array)}"
        )
    return array


def _permutations(name: str, values: Any, group: GeneratedGroup | None = None) -> Permutations:
    array = _images(name, values, group, 2)
    for place, row in enumerate(array):
        if array.dtype.kind == "f" or not np.array_equal(np.sort(row), np.arange(len(row))):
            raise ValueError(
                f"{name}[{place}]: expected a permutation, each of the numbers 0 to {len(row) - 1} once, got "
                f"{row.tolist()}" + (" (a single matrix goes into a list)" if group is None else "")
            )
    return tuple(tuple(row) for row in array.tolist())


def _signed_permutations(name: str, values: Any, group: GeneratedGroup) -> Permutations:
    array = _images(name, values, group, 2)
    for place, row in enumerate(array):
        if array.dtype.kind == "f" or not np.array_equal(np.sort(np.abs(row)), 1 + np.arange(len(row))):
            raise ValueError(
                f"{name}[{place}]: expected each of the numbers 1 to {len(row)} once, with a sign, got {row.tolist()}"
            )
    return tuple(tuple(row) for row in array.tolist())


def _matrices(name: str, values: Any, group: GeneratedGroup | None = None) -> Matrices:
    array = _images(name, values, group, 3)
    if array.shape[1] != array.shape[2]:
        raise ValueError(f"{name}: expected square matrices, got shape {array.shape}")
    for place, matrix in enumerate(array):
        if np.linalg.matrix_rank(matrix.astype(np.float64)) < len(matrix):
            raise ValueError(f"{name}[{place}]: expected an invertible matrix, got {matrix.tolist()}")
    matrices: list[tuple[tuple[float, ...], ...]] = []
    for matrix in array.tolist():
        rows = [tuple(row) for row in matrix]
        matrices.append(tuple(rows))
    return tuple(matrices)


def _table(values: Any) -> Permutations:
    array = _array("table", values)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"table: expected one row and one column an element, got shape {array.shape}")
    if array.dtype.kind == "f" or array.min() < 0 or array.max() >= len(array):
        raise ValueError(f"table: expected whole numbers from 0 to {len(array) - 1}, the numbers of elements")
    if len(array) > cayley.LARGEST_LIST:
        cayley.refuse_too_large()
    return tuple(tuple(row) for row in array.tolist())


def _members(values: Any, order: int) -> tuple[int, ...]:
    array = _array("generators", values)
    if array.ndim != 1 or array.dtype.kind == "f" or array.min() < 0 or array.max() >= order:
        raise ValueError(f"generators: expected numbers of elements of the table, 0 to {order - 1}, got {values!r}")
    return tuple(array.tolist())


def _words(relations: Any, count: int) -> tuple[str, ...]:
    known = cayley.LETTERS[:count]
    if count > len(cayley.LETTERS):
        raise ValueError(f"generators: expected at most {len(cayley.LETTERS)} with relations, got {count}")
    if isinstance(relations, str) or not all(isinstance(word, str) for word in relations):
        raise TypeError(f'relations: expected a list of words such as ["aaaa", "bb", "abab"], got {relations!r}')
    for place, word in enumerate(relations):
        if len(word) > cayley.LONGEST_WORD:
            raise ValueError(f"relations[{place}]: expected at most {cayley.LONGEST_WORD} letters, got {len(word)}")
        for letter in word:
            if letter.lower() not in known:
                raise ValueError(
                    f"relations[{place}]: expected the letters {', '.join(known)}, one a generator, and capital ones "
                    f"for their inverses, got {word!r}"
                )
    return tuple(relations)


def _as_lists(value: Any) -> Any:
    return [_as_lists(part) for part in value] if isinstance(value, tuple) else value


def _brief(value: Any) -> str:
    """Lists in full if they are short, and by their size and a checksum if not."""
    text = repr(_as_lists(value))
    if len(text) <= LONGEST_REPR:
        return text
    sizes: list[str] = []
    part = value
    while isinstance(part, tuple):
        sizes.append(str(len(part)))
        part = part[0]
    return f"<{' x '.join(sizes)} numbers, {zlib.crc32(text.encode()):08x}>"


# ---------------------------------------------------------------- slots


@dataclass(frozen=True, repr=False)
class GivenByGenerators(Slot):
    """Shared by the slots that say what each generator does.

    Args:
        images: of each generator.
    """

    group: GeneratedGroup
    images: Any
    verb: ClassVar[str]  # the method of the group that makes it
    guards_precision: ClassVar[bool] = True

    def __repr__(self) -> str:
        if self == self.group.defining:
            return repr(self.group)
        return f"{self.group!r}.{self.verb}({_brief(self.images)})"


def of_elements(array: np.ndarray, g: GeneratedElement) -> Tensor:
    """The entries of an array (order, ...) for the elements g: (*shape, ...)."""
    return torch.from_numpy(array).to(g.number.device)[g.number]


@register
@dataclass(frozen=True, repr=False)
class PermutedEntries(GivenByGenerators):
    """(g x)_i = x_{index_i} along one axis; see `GeneratedGroup.permutation`."""

    index: np.ndarray = field(init=False, compare=False)
    verb = "permutation"

    def __post_init__(self) -> None:
        # Signed images count from one.
        shifted: list[tuple[int, ...]] = []
        for image in self.images:
            shifted.append(tuple(1 + place for place in image))
        index, _ = cayley.signed_action(self.group.graph, self.verb, tuple(shifted))
        object.__setattr__(self, "index", index)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (len(self.images[0]),)

    def act(self, g: GeneratedElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        return gather_nodes(x, of_elements(self.index, g), axis, shared_dims)


@register
@dataclass(frozen=True, repr=False)
class SignedEntries(GivenByGenerators):
    """(g x)_i = sign_i x_{index_i} along one axis; see `GeneratedGroup.signed`."""

    index: np.ndarray = field(init=False, compare=False)
    sign: np.ndarray = field(init=False, compare=False)
    verb = "signed"

    def __post_init__(self) -> None:
        index, sign = cayley.signed_action(self.group.graph, self.verb, self.images)
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "sign", sign)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (len(self.images[0]),)

    def act(self, g: GeneratedElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        check_sign(x, self)
        moved = gather_nodes(x, of_elements(self.index, g), axis, shared_dims)
        shape = (*g.shape, *[1] * (axis - shared_dims), len(self.images[0]), *[1] * (x.ndim - axis - 1))
        return moved * of_elements(self.sign, g).to(x.dtype).reshape(shape)


@register
@dataclass(frozen=True, repr=False)
class MultipliedEntries(GivenByGenerators):
    """g x = R x along one axis; see `GeneratedGroup.linear`."""

    matrices: np.ndarray = field(init=False, compare=False)
    orthogonal: bool = field(init=False, compare=False)
    verb = "linear"

    def __post_init__(self) -> None:
        matrices = cayley.linear_action(self.group.graph, self.verb, self.images)
        one = np.eye(matrices.shape[-1])
        away = np.abs(np.swapaxes(matrices, 1, 2) @ matrices - one).max()
        object.__setattr__(self, "matrices", matrices)
        object.__setattr__(self, "orthogonal", bool(away <= cayley.ACCURATE))

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (len(self.images[0]),)

    @property
    def requires_float(self) -> bool:
        return True

    @property
    def isometric(self) -> bool:
        return self.orthogonal

    @property
    def role(self) -> str | None:  # type: ignore[override]
        """Nets look at the lengths of vectors, which matrices keep if they are orthogonal."""
        return "vector" if self.orthogonal else None

    def act(self, g: GeneratedElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        kind = real_dtype(x.dtype)
        matrix = of_elements(self.matrices, g)
        return rotate(matrix.to(kind) if kind.is_floating_point else matrix, x, axis, shared_dims)


@register
@dataclass(frozen=True, repr=False)
class SignedScalar(GivenByGenerators):
    """x -> sign x; takes no axis. A pseudoscalar, for the determinant as sign.

    Args:
        images: 1 or -1 for each generator.
    """

    sign: np.ndarray = field(init=False, compare=False)
    num_axes: ClassVar[int] = 0
    verb = "det"

    def __post_init__(self) -> None:
        _, sign = cayley.signed_action(self.group.graph, self.verb, tuple((image,) for image in self.images))
        object.__setattr__(self, "sign", sign[:, 0])

    def act(self, g: GeneratedElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_sign(x, self)
        sign = of_elements(self.sign, g).to(x.dtype)
        return x * sign.reshape((*sign.shape, *[1] * (x.ndim - shared_dims)))

    def __repr__(self) -> str:
        return f"{self.group!r}.{self.verb}"


def determinants(group: GeneratedGroup, matrices: Matrices) -> Slot:
    """The slot of a sign that is the determinant of the matrices of the generators."""
    signs: list[int] = []
    for matrix in matrices:
        signs.append(int(np.sign(np.linalg.det(np.array(matrix, dtype=np.float64)))))
    return SignedScalar(group, tuple(signs))


@register
@dataclass(frozen=True, repr=False)
class TurnedGrid(GivenByGenerators):
    """The axes of an image or a volume, exchanged and flipped; see `GeneratedGroup.grid`.

    Pixel c, counted from the centre, moves to c' with c'_i = sign_i c_{index_i}.
    """

    index: np.ndarray = field(init=False, compare=False)
    sign: np.ndarray = field(init=False, compare=False)
    exchanged: tuple[tuple[int, ...], ...] = field(init=False, compare=False)
    verb = "grid"

    def __post_init__(self) -> None:
        index, sign = cayley.signed_action(self.group.graph, self.verb, self.images)
        orbits = sorted({tuple(sorted(set(column))) for column in index.T.tolist()})
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "sign", sign)
        object.__setattr__(self, "exchanged", tuple(orbits))

    @property
    def num_axes(self) -> int:  # type: ignore[override]
        return len(self.images[0])

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        for orbit in self.exchanged:
            if any(sizes[axis] != sizes[orbit[0]] for axis in orbit):
                numbers = " and ".join(str(1 + axis) for axis in orbit)
                return f"equal sizes along the grid axes {numbers}, which are exchanged,"
        return None

    def act(self, g: GeneratedElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        if may_peek(g.number) and g.number.numel() and bool((g.number == g.number.reshape(-1)[0]).all()):
            return self._all_alike(g, x, axis, shared_dims)
        sizes = x.shape[axis : axis + self.num_axes]

        # 1. One step along axis i of the result is a step of so many pixels in x, backwards where the sign is negative.
        strides = torch.tensor([math.prod(sizes[i + 1 :]) for i in range(self.num_axes)], device=x.device)
        index = of_elements(self.index, g)
        step = strides[index] * of_elements(self.sign, g)
        lengths = torch.tensor(sizes, device=x.device)
        pixels = ((lengths - 1) * step.clamp_max(0).abs()).sum(-1)  # exchanged axes have equal lengths

        # 2. Which pixel of x each pixel is: (*shape, sizes...).
        for i, size in enumerate(sizes):
            along = step[..., i].reshape(*g.shape, *[1] * (i + 1))
            pixels = pixels.unsqueeze(-1) + along * torch.arange(size, device=x.device)
        moved = gather_nodes(x.flatten(axis, axis + self.num_axes - 1), pixels.flatten(len(g.shape)), axis, shared_dims)
        return moved.unflatten(axis + len(g.shape) - shared_dims, sizes)

    def _all_alike(self, g: GeneratedElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        """All by the same element: a copy of rows instead of a gather of pixels."""
        number = int(g.number.reshape(-1)[0])
        order = list(range(x.ndim))
        backwards: list[int] = []
        for i, source in enumerate(self.index[number].tolist()):
            order[axis + i] = axis + source
            if self.sign[number, i] < 0:
                backwards.append(axis + i)
        moved = x.permute(order).flip(backwards).contiguous()  # base models may call `view`
        return moved.expand(*g.shape, *moved.shape[shared_dims:])
