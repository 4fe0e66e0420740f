"""The Cayley graph of a finite group: its elements by number, and what each generator makes of each of them.

In numpy: a tensor that a compiler, an exporter or inference mode made must not outlive its call in a cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probsym.groups.permutation import LARGEST_LIST

LARGEST_TABLE = 256  # elements whose products are looked up in one table
LARGEST_MENDED = 2048  # elements whose matrices are averaged into an exact representation
TOLERANCE = 1e-6  # largest difference of matrices that are the same but for rounding
ACCURATE = 1e-9  # the same where nothing mends it
NEXT_TO_ZERO = 1e-16  # of entries of matrices, what rounding leaves of zero
LARGEST_ACTION = 50_000_000  # numbers that say what all elements do to an axis
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST_WORD = 1000  # letters of a relation
COSETS_PER_ELEMENT = 4  # that an enumeration may define, of the largest group

Permutations = tuple[tuple[int, ...], ...]
Matrices = tuple[tuple[tuple[float, ...], ...], ...]


class CayleyGraph:
    """A finite group, told by what its generators make of its elements from the left.

    Elements are numbers; the identity is 0. It never changes, so that copies may share it.

    Args:
        left: (M, S) integers, the number of s e for each of M elements e and S generators s.

    Attributes:
        order: M. inverses: (M,), the number of each inverse.
        found: all elements in an order in which each comes after its parent; the identity first.
        parent, last: (M,), an element e that is not the identity is last_e parent_e, with a generator `last_e`.
    """

    def __init__(self, left: np.ndarray) -> None:
        self.left = left.astype(np.int64)
        self.order = len(left)
        self._search()

        # Products: of small groups all in a table; of large ones by a few factors that all elements share.
        self.table: np.ndarray | None = None
        if self.order <= LARGEST_TABLE:
            self.table = self._all_products()
        else:
            self.factors, self.codes = self._few_factors()
        self.inverses = self._all_inverses()

    @property
    def generators(self) -> np.ndarray:
        """The number of each generator (S,)."""
        return self.left[0]

    def word(self, number: int) -> str:
        """An element as a product of generators, called a, b, ...; 1 for the identity."""
        letters = ""
        while number != 0:
            letters += name_of(int(self.last[number]))
            number = int(self.parent[number])
        return letters or "1"

    def multiply(self, g: Tensor, h: Tensor) -> Tensor:
        """The numbers of g h (*shape)."""
        if self.table is not None:
            return torch.from_numpy(self.table).to(g.device)[g, h]
        g, product = torch.broadcast_tensors(g, h)
        code = torch.from_numpy(self.codes).to(g.device)[g]
        for place, factor in enumerate(torch.from_numpy(self.factors).to(g.device)):
            takes_part = (code >> place) % 2 == 1
            product = torch.where(takes_part, factor[product], product)
        return product

    def invert(self, g: Tensor) -> Tensor:
        """The numbers of g^-1 (*shape)."""
        return torch.from_numpy(self.inverses).to(g.device)[g]

    def __deepcopy__(self, memo: Any) -> CayleyGraph:
        return self

    # ------------------------------------------------------------ how it is made

    def _search(self) -> None:
        """Reach every element from the identity, breadth first."""
        self.parent = np.full(self.order, -1)
        self.last = np.full(self.order, -1)
        found = [0]
        self.parent[0] = 0
        for number in found:  # it grows
            for generator, reached in enumerate(self.left[number].tolist()):
                if self.parent[reached] < 0:
                    self.parent[reached] = number
                    self.last[reached] = generator
                    found.append(reached)
        self.found = found

    def _all_products(self) -> np.ndarray:
        """The number of g h (M, M): the row of s p is that of p, moved by s."""
        table = np.empty((self.order, self.order), dtype=np.int64)
        table[0] = np.arange(self.order)
        for number in self.found[1:]:
            table[number] = self.left[table[self.parent[number]], self.last[number]]
        return table

    def _few_factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Elements r_1, r_2, ... such that every element is a product ... r_2^e_2 r_1^e_1 with each e_i 0 or 1.

        Returns: what each r_i makes of every element (F, M), and the e_i of every element as the bits of a number (M,).

        A random r at least nearly doubles the products of those before it, so that little more than log2 M are needed
        (Erdos and Renyi, "Probabilistic methods in group theory", 1965).
        """
        random = np.random.default_rng(0)
        codes = np.full(self.order, -1)
        codes[0] = 0
        pool = list(self.left.T)
        while len(pool) < 10:
            pool.append(pool[len(pool) % self.left.shape[1]])
        for _ in range(100):
            _replace_one(pool, random)

        factors: list[np.ndarray] = []
        while (codes < 0).any():
            # 1. of a few random elements the one that reaches most
            reached = np.flatnonzero(codes >= 0)
            best = pool[0]
            most = -1
            for _ in range(8):
                candidate = _replace_one(pool, random)
                new = int((codes[candidate[reached]] < 0).sum())
                if new > most:
                    best = candidate
                    most = new

            # 2. what it reaches
            target = best[reached]
            fresh = codes[target] < 0
            codes[target[fresh]] = codes[reached[fresh]] + (1 << len(factors))
            factors.append(best)
        return np.stack(factors), codes

    def _all_inverses(self) -> np.ndarray:
        if self.table is not None:
            return self.table.argmin(1)
        # (r_2 r_1)^-1 = r_1^-1 r_2^-1: the last factor is undone first
        inverses = np.zeros(self.order, dtype=np.int64)
        for place in reversed(range(len(self.factors))):
            undo = np.empty(self.order, dtype=np.int64)
            undo[self.factors[place]] = np.arange(self.order)
            takes_part = (self.codes >> place) % 2 == 1
            inverses = np.where(takes_part, undo[inverses], inverses)
        return inverses


def _replace_one(pool: list[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Multiply one element of a pool by another: after many steps its elements are nearly uniform in the group.

    Product replacement (Celler et al., "Generating random elements of a finite group", 1995).
    """
    i, j = random.choice(len(pool), 2, replace=False)
    if random.integers(2):
        pool[i] = pool[i][pool[j]]
    else:
        pool[i] = pool[j][pool[i]]
    return pool[i]


def name_of(generator: int) -> str:
    """a, b, ..., z, and (27), (28), ... beyond."""
    if generator < len(LETTERS):
        return LETTERS[generator]
    return f"({generator + 1})"


def refuse_too_large() -> None:
    raise ValueError(
        f"generators: expected a group of at most {LARGEST_LIST:,} elements, got more: a larger group, or one without "
        f"end (matrices count as equal up to {TOLERANCE:.0e}; rounded ones may never close: give double precision)"
    )


# ---------------------------------------------------------------- what generators may be


@lru_cache(maxsize=64)
def of_flips(count: int) -> CayleyGraph:
    """`count` generators that commute, each its own inverse."""
    if 2**count > LARGEST_LIST:
        refuse_too_large()
    elements = np.arange(2**count)[:, None]
    return CayleyGraph(elements ^ (1 << np.arange(count)))


@lru_cache(maxsize=64)
def of_permutations(generators: Permutations) -> CayleyGraph:
    """The group that permutations generate; (s e)_i = e_{s_i}, as gather indices compose."""
    rows = np.array(generators, dtype=np.int64)
    elements = [np.arange(rows.shape[1])]
    number_of = {elements[0].tobytes(): 0}
    left: list[list[int]] = []
    for element in elements:  # it grows
        numbers: list[int] = []
        for row in rows:
            product = element[row]
            number = number_of.setdefault(product.tobytes(), len(elements))
            if number == len(elements):
                if number == LARGEST_LIST:
                    refuse_too_large()
                elements.append(product)
            numbers.append(number)
        left.append(numbers)
    return CayleyGraph(np.array(left))


@lru_cache(maxsize=64)
def of_matrices(generators: Matrices) -> CayleyGraph:
    """The group that invertible matrices generate; two are the same if all entries agree to `TOLERANCE`.

    Raises:
        ValueError: a matrix that no power takes to the identity, or a group that is too large.
    """
    matrices = np.array(generators)
    for place, matrix in enumerate(matrices):
        sizes = np.abs(np.linalg.eigvals(matrix))
        if np.abs(sizes - 1).max() > 1e-4:
            raise ValueError(
                f"generators[{place}]: expected a matrix of finite order, whose eigenvalues have size 1, got sizes "
                f"{np.round(sizes, 4).tolist()}"
            )
    dim = matrices.shape[1]
    tolerance = TOLERANCE * max(1.0, float(np.abs(matrices).max()))

    # Elements by a number that hardly differs between equal ones: they are in one cell, or in neighbours.
    weights = np.random.default_rng(0).uniform(-1, 1, dim * dim)
    width = 2 * dim * dim * tolerance
    cells: dict[int, list[int]] = {}
    elements: list[np.ndarray] = []

    def number_of(matrix: np.ndarray) -> int:
        cell = int(np.floor(weights @ matrix.ravel() / width))
        for near in (cell - 1, cell, cell + 1):
            for number in cells.get(near, ()):
                if np.abs(elements[number] - matrix).max() <= tolerance:
                    return number
        if len(elements) == LARGEST_LIST:
            refuse_too_large()
        cells.setdefault(cell, []).append(len(elements))
        elements.append(matrix)
        return len(elements) - 1

    number_of(np.eye(dim))
    left: list[list[int]] = []
    for element in elements:  # it grows
        left.append([number_of(matrix @ element) for matrix in matrices])
    return CayleyGraph(np.array(left))


@lru_cache(maxsize=16)
def of_table(table: Permutations, generators: tuple[int, ...] | None) -> CayleyGraph:
    """The group of a multiplication table; of all elements where no generators are named.

    Raises:
        ValueError: no table of a group.
    """
    products = np.array(table, dtype=np.int64)
    order = len(products)
    every = np.arange(order)
    if not ((products[0] == every).all() and (products[:, 0] == every).all()):
        raise ValueError("table: expected element 0 to be the identity, so that row and column 0 count from 0 upwards")
    for lines, kind in ((products, "row"), (products.T, "column")):
        wrong = (np.sort(lines, 1) != every).any(1)
        if wrong.any():
            place = int(wrong.argmax())
            raise ValueError(
                f"table: expected every element once in {kind} {place}, got {lines[place].tolist()}: no group"
            )

    # (a s) b = a (s b) for all s that generate the rest (Light's test)
    chosen = list(generators) if generators is not None else _generating(products)
    for s in chosen:
        wrong_pairs = products[products[:, s]] != products[:, products[s]]
        if wrong_pairs.any():
            a, b = np.argwhere(wrong_pairs)[0].tolist()
            raise ValueError(
                f"table: expected the product of a group, got ({a} {s}) {b} = {products[products[a, s], b]} and "
                f"{a} ({s} {b}) = {products[a, products[s, b]]}"
            )
    if generators is None:
        return CayleyGraph(products.T)
    reached = _closure(products, chosen)
    if len(reached) < order:
        raise ValueError(f"generators: expected all of the {order} elements of the table, {chosen} make {len(reached)}")
    return CayleyGraph(products[chosen].T)


def _generating(products: np.ndarray) -> list[int]:
    """Elements of a table that make all others."""
    chosen: list[int] = []
    reached = {0}
    while len(reached) < len(products):
        chosen.append(min(set(range(len(products))) - reached))
        reached = _closure(products, chosen)
    return chosen


def _closure(products: np.ndarray, generators: list[int]) -> set[int]:
    """What generators make of the identity."""
    found = [0]
    known = {0}
    for element in found:  # it grows
        for s in generators:
            reached = int(products[s, element])
            if reached not in known:
                known.add(reached)
                found.append(reached)
    return known


@lru_cache(maxsize=64)
def of_relations(count: int, relations: tuple[str, ...]) -> CayleyGraph:
    """The group of generators a, b, ... in which each of the words is the identity; a capital letter is an inverse.

    Todd and Coxeter's enumeration of the cosets of the trivial subgroup, which are the elements.

    Raises:
        ValueError: a group that is too large, or an enumeration that does not end.
    """
    # 1. Words as columns: s and its inverse are columns 2 s and 2 s + 1.
    words: list[list[int]] = []
    for s in range(count):
        words.append([2 * s, 2 * s + 1])
    for relation in relations:
        words.append([2 * LETTERS.index(letter.lower()) + int(letter.isupper()) for letter in relation])

    # 2. Cosets: what each column makes of them, -1 if not known, and which one stands for each of them.
    neighbours: list[list[int]] = [[-1] * (2 * count)]
    stands_for: list[int] = [0]

    def representative(coset: int) -> int:
        while stands_for[coset] != coset:
            stands_for[coset] = stands_for[stands_for[coset]]
            coset = stands_for[coset]
        return coset

    def join(a: int, column: int, b: int) -> None:
        """Let a column lead from a to b."""
        neighbours[a][column] = b
        neighbours[b][column ^ 1] = a

    def close(coset: int, word: list[int]) -> None:
        """Let a word lead from a coset to itself; cosets that are missing on the way are made."""
        start, end = coset, coset
        first, last = 0, len(word) - 1
        while first <= last:
            # 1. as far as is known, from both ends
            start, end = representative(start), representative(end)
            forward = neighbours[start][word[first]]
            backward = neighbours[end][word[last] ^ 1]
            if forward >= 0:
                start = forward
                first += 1
            elif backward >= 0:
                end = backward
                last -= 1
            # 2. one letter is missing: it leads from one to the other
            elif first == last:
                join(start, word[first], end)
                return
            # 3. more are missing: one step further, to a coset of its own
            else:
                new = len(neighbours)
                if new > COSETS_PER_ELEMENT * LARGEST_LIST:
                    raise ValueError(
                        f"relations: expected those of a group of at most {LARGEST_LIST:,} elements, got no end after "
                        f"{new:,} steps: a larger group, one without end, or too few relations; give permutations or "
                        "matrices instead"
                    )
                neighbours.append([-1] * (2 * count))
                stands_for.append(new)
                join(start, word[first], new)
        unite(start, end)

    def unite(a: int, b: int) -> None:
        """Let two cosets be one, and with them what each column makes of them."""
        pairs = [(a, b)]
        while pairs:
            a, b = pairs.pop()
            a, b = representative(a), representative(b)
            if a == b:
                continue
            kept, dropped = min(a, b), max(a, b)
            stands_for[dropped] = kept
            for column, end in enumerate(neighbours[dropped]):
                if end < 0:
                    continue
                if neighbours[kept][column] < 0:
                    neighbours[kept][column] = end
                else:
                    pairs.append((neighbours[kept][column], end))

    # 3. Every word leads from every coset to itself.
    coset = 0
    while coset < len(neighbours):
        for word in words:
            if stands_for[coset] != coset:
                break
            close(coset, word)
        coset += 1

    # 4. Coset c is the product of the letters that lead to it, and a letter multiplies from the right. The inverses of
    #    the cosets are multiplied from the left, by the inverse of the letter: s c^-1 = (c s^-1)^-1.
    remaining = [coset for coset in range(len(neighbours)) if stands_for[coset] == coset]
    if len(remaining) > LARGEST_LIST:
        refuse_too_large()
    number_of = {coset: number for number, coset in enumerate(remaining)}
    left = np.empty((len(remaining), count), dtype=np.int64)
    for number, coset in enumerate(remaining):
        for s in range(count):
            left[number, s] = number_of[representative(neighbours[coset][2 * s + 1])]
    return CayleyGraph(left)


# ---------------------------------------------------------------- what elements do


def signed_action(graph: CayleyGraph, name: str, images: Permutations) -> tuple[np.ndarray, np.ndarray]:
    """Signed permutations of all elements, from those of the generators (1-based, with signs).

        (g x)_i = sign_i x_{index_i}

    Returns: index (M, N) from 0, and sign (M, N).

    Raises:
        ValueError: the images do not satisfy the relations of the group.
    """
    moves = np.array(images, dtype=np.int64).reshape(len(images), -1)
    source = np.abs(moves) - 1
    flip = np.sign(moves)
    _refuse_large(graph, name, moves.shape[1])

    # 1. of s p: (s p x)_i = flip_i (p x)_{source_i}
    index = np.empty((graph.order, moves.shape[1]), dtype=np.int64)
    sign = np.empty_like(index)
    index[0] = np.arange(moves.shape[1])
    sign[0] = 1
    for number in graph.found[1:]:
        parent, s = graph.parent[number], graph.last[number]
        index[number] = index[parent, source[s]]
        sign[number] = flip[s] * sign[parent, source[s]]

    # 2. the same, whichever way leads to an element
    for s in range(len(moves)):
        moved = graph.left[:, s]
        same_place = (index[moved] == index[:, source[s]]).all(1)
        same_sign = (sign[moved] == flip[s] * sign[:, source[s]]).all(1)
        _refuse_broken(graph, name, s, ~(same_place & same_sign))
    return index, sign


def linear_action(graph: CayleyGraph, name: str, images: Matrices) -> np.ndarray:
    """Matrices (M, D, D) of all elements, from those of the generators.

    Rounding of the images is mended, in groups of at most 2,048 elements: the mean of rho(h)^-1 rho(h g) over h is a
    representation up to the square of the error of rho.

    Raises:
        ValueError: the images do not satisfy the relations of the group.
    """
    moves = np.array(images, dtype=np.float64)
    dim = moves.shape[1]
    _refuse_large(graph, name, dim * dim)

    # 1. by products
    matrices = np.empty((graph.order, dim, dim))
    matrices[0] = np.eye(dim)
    with np.errstate(all="ignore"):
        for number in graph.found[1:]:
            matrices[number] = moves[graph.last[number]] @ matrices[graph.parent[number]]

    # 2. the same, whichever way leads to an element
    mends = graph.order <= LARGEST_MENDED
    tolerance = TOLERANCE if mends else ACCURATE
    for s in range(len(moves)):
        with np.errstate(all="ignore"):
            away = np.abs(matrices[graph.left[:, s]] - moves[s] @ matrices).max((1, 2))
        size = np.maximum(1, np.abs(matrices).max((1, 2)))
        _refuse_broken(graph, name, s, ~(away <= tolerance * size))

    # 3. as exact as numbers allow
    if not mends:
        return matrices
    every = torch.arange(graph.order)
    for _ in range(2):
        inverses = np.linalg.inv(matrices)
        total = np.zeros_like(matrices)
        for h in range(graph.order):
            total += inverses[h] @ matrices[graph.multiply(torch.tensor(h), every).numpy()]
        matrices = total / graph.order
    matrices[np.abs(matrices) < NEXT_TO_ZERO] = 0
    matrices[0] = np.eye(dim)
    return matrices


def _refuse_large(graph: CayleyGraph, name: str, numbers: int) -> None:
    """Refuse an axis for which what all elements do would not fit into memory."""
    if graph.order * numbers > LARGEST_ACTION:
        raise ValueError(
            f"{name}: expected at most {LARGEST_ACTION:,} numbers for all elements together, got {graph.order:,} "
            f"elements times {numbers:,}"
        )


def _refuse_broken(graph: CayleyGraph, name: str, s: int, broken: np.ndarray) -> None:
    """Refuse images under which s e is not what it is in the group, for an element e that is marked."""
    if not broken.any():
        return
    number = int(broken.argmax())
    one = name_of(s) + graph.word(number) if number else name_of(s)
    other = graph.word(int(graph.left[number, s]))
    raise ValueError(
        f"{name}: the images do not satisfy the relations of the group: {one} = {other} in the group, and not here "
        "(generators a, b, ... in order; ab: first b acts)"
    )
