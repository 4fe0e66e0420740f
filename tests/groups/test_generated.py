"""Finite groups by generators: what they are, what slots do, and what is refused."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from cases import seeded
from probsym.distributions import DefaultNet
from probsym.testing import (
    assert_design,
    assert_distribution,
    assert_equivariant,
    assert_group,
    assert_slot,
    equivariance_error,
)

MIRROR = ps.Finite(generators=1, name="mirror")
SQUARE = ps.Finite(2, "square", relations=["aaaa", "bb", "abab"])  # a turns, b flips
EXCHANGES = ps.Finite([[1, 0, 2], [1, 2, 0]])
LATTICE = ps.Finite([[[0.0, -1.0], [1.0, -1.0]]], "lattice")  # a third of a turn in a basis that is not orthogonal
RING = ps.Finite(table=[[0, 1, 2], [1, 2, 0], [2, 0, 1]])
TURN = [[0, -1], [1, 0]]
FLIP = [[1, 0], [0, -1]]


def turn(angle: float) -> list[list[float]]:
    return [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]


def every(group: ps.Group, rep: ps.Rep, x: torch.Tensor) -> torch.Tensor:
    """What all elements make of one tensor without batch dims."""
    return rep.act(group.elements(), x, 0)


# ---------------------------------------------------------------- what they are


@pytest.mark.parametrize(
    "group", [MIRROR, ps.Finite(2), SQUARE, LATTICE, RING, MIRROR * ps.S("nodes"), MIRROR * SQUARE], ids=repr
)
def test_axioms(group):
    assert_group(group)


@pytest.mark.parametrize(
    ("generators", "relations", "order"),
    [
        (1, ["aaa"], 3),
        (2, ["aaaa", "aaBB", "Baba"], 8),  # the quaternions 1, i, j, k with signs
        (2, ["aa", "bbb", "ababababab"], 60),  # A5
        (2, ["aa", "bbb", "ab" * 7, "abaB" * 4], 168),  # PSL(2, 7)
        (3, ["aa", "bb", "cc", "ababab", "bcbcbc", "acac"], 24),  # S4
        (2, ["ab", "a"], 1),
    ],
)
def test_orders_of_known_presentations(generators, relations, order):
    group = ps.Finite(generators, relations=relations)
    assert group.order() == order
    assert group.trivial == (order == 1)
    every_number = torch.arange(order)
    products = group.compose(group.numbered(every_number[:, None]), group.elements()).number
    assert torch.equal(products.sort(1).values, every_number.expand(order, order))
    assert torch.equal(products.sort(0).values, every_number[:, None].expand(order, order))


def test_the_quaternions_are_no_other_group_of_eight():
    """Six of the eight elements have order four; in the symmetries of the square two have."""
    for group, number in ((ps.Finite(2, relations=["aaaa", "aaBB", "Baba"]), 6), (SQUARE, 2)):
        g = group.elements()
        assert int(((g @ g).number != 0).sum()) == number


def test_all_orders_of_eight_places():
    """40,320 elements, the most there may be, from two of them: products are those of the permutations."""
    group = ps.Finite([[1, 0, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 0]])
    assert group.order() == math.factorial(8)
    g, h = (torch.randint(0, group.order(), (500,), generator=seeded(seed)) for seed in (0, 1))
    places = torch.arange(8.0)
    index = every(group, ps.Rep(group), places).long()
    assert len(index.unique(dim=0)) == group.order()
    product = group.compose(group.numbered(g), group.numbered(h)).number
    assert torch.equal(index[product], index[h].gather(1, index[g]))
    assert torch.equal(index[group.numbered(g).inverse().number], index[g].argsort(1))


def test_generators_act_as_they_are_given():
    x = torch.randn(3, 2, generator=seeded())
    rows = every(EXCHANGES, ps.Rep(EXCHANGES), x)
    for place, permutation in enumerate([[1, 0, 2], [1, 2, 0]]):
        assert torch.equal(rows[EXCHANGES.generator_elements.number[place]], x[permutation])
    points = ps.Finite([TURN, FLIP], "points")
    assert points.order() == 8
    v = torch.randn(2, generator=seeded())
    for place, matrix in enumerate((TURN, FLIP)):
        moved = every(points, ps.Rep(points), v)[points.generator_elements.number[place]]
        assert torch.equal(moved, torch.tensor(matrix).float() @ v)
    assert every(points, ps.Rep(points.det), torch.ones(()))[points.generator_elements.number].tolist() == [1, -1]


def test_a_table_names_its_elements():
    """(a b) is table[a][b]: a acts after b."""
    numbers = every(EXCHANGES, ps.Rep(EXCHANGES), torch.arange(3.0)).long()
    table = [[0] * 6 for _ in range(6)]
    for a in range(6):
        for b in range(6):
            product = numbers[b][numbers[a]]
            table[a][b] = int((numbers == product).all(1).nonzero())
    named = ps.Finite(table=table)
    assert torch.equal(
        named.compose(named.numbered(torch.arange(6)[:, None]), named.elements()).number, torch.tensor(table)
    )
    slot = named.permutation(numbers.tolist())  # one image an element
    assert torch.equal(every(named, ps.Rep(slot), torch.arange(3.0)).long(), numbers)
    few = ps.Finite([1, 2], table=table)
    assert few.order() == 6
    assert torch.equal(every(few, ps.Rep(few.permutation(numbers[[1, 2]].tolist())), torch.arange(3.0)).long(), numbers)


def test_equal_by_value_and_told_apart_by_it(tmp_path):
    again = ps.Finite(np.array([[1, 0, 2], [1, 2, 0]]))
    assert again == EXCHANGES
    assert hash(again) == hash(EXCHANGES)
    assert pickle.loads(pickle.dumps(EXCHANGES)) == EXCHANGES
    assert ps.Finite(1) != MIRROR
    assert ps.Finite(1, "other") * MIRROR == MIRROR * ps.Finite(1, "other")
    assert ps.Finite(torch.tensor([TURN])) == ps.Finite([torch.tensor(TURN)])
    long = [[*range(1, 60), 0]]
    shorter = [[*range(1, 58), 0, 58, 59]]
    assert repr(ps.Finite(long)) != repr(ps.Finite(shorter))
    assert len(repr(ps.Finite(long))) < 60


def test_single_precision_is_mended():
    """Matrices that are rounded to seven digits make a representation that is exact to sixteen."""
    group = ps.Finite(torch.tensor([turn(math.pi / 3), FLIP]), "hexagon")
    assert group.order() == 12
    assert_group(group, tolerance=1e-13)
    corner = every(group, ps.Rep(group), torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert (corner.norm(dim=1) - 1).abs().max() < 1e-14


# ---------------------------------------------------------------- slots


SLOTS = [
    MIRROR.permutation([[1, 0, 2]]),
    MIRROR.signed([[2, 1, -3]]),
    MIRROR.linear([[[1.0, 1.0], [0.0, -1.0]]]),
    MIRROR.grid([[1, -2]]),
    SQUARE.grid([[-2, 1], [1, -2]]),
    SQUARE.signed([[-2, 1], [1, -2]]),
    SQUARE.linear([TURN, FLIP]),
    ps.Finite(3, "flips").grid([[-1, 2, 3], [1, -2, 3], [1, 2, -3]]),
    EXCHANGES.grid([[2, 1, 3], [2, 3, 1]]),
    LATTICE.permutation([[1, 2, 0]]),
]


@pytest.mark.parametrize("slot", SLOTS, ids=repr)
def test_slots(slot):
    assert_slot(slot)


def test_slots_say_what_they_keep():
    assert LATTICE.vector.isometric is False
    assert LATTICE.vector.role is None  # its lengths are not invariant
    assert SQUARE.linear([TURN, FLIP]).isometric
    assert SQUARE.linear([TURN, FLIP]).role == "vector"
    with pytest.raises(TypeError, match=r"not made from matrices and has no \.vector: use \.linear or \.signed"):
        _ = MIRROR.vector
    with pytest.raises(TypeError, match=r"has no \.det"):
        _ = EXCHANGES.det


@pytest.mark.parametrize("mixed", [False, True])
def test_grids_by_hand(mixed):
    """Flips of any axes of volumes with three different sides, and a turn of its two equal ones."""
    group = ps.Finite(3, "flips")
    slot = group.grid([[-1, 2, 3], [1, -2, 3], [1, 2, -3]])
    volume = torch.randn(2, 5, 3, 4, 2, generator=seeded())  # batch, three axes, channels
    for dims in ([1], [2], [3], [1, 3], [1, 2, 3]):
        number = torch.tensor(sum(1 << (dim - 1) for dim in dims)).expand(2)
        g = group.numbered(number)
        assert torch.equal(ps.Rep(slot).act(g, volume), volume.flip(dims))
    turned = SQUARE.grid([[-2, 1, 3], [1, -2, 3]])
    box = torch.randn(2, 4, 4, 3, generator=seeded())
    a, b = SQUARE.generator_elements.number.tolist()
    g = SQUARE.numbered(torch.tensor([a, b if mixed else a]))  # by one element, or each by another
    moved = ps.Rep(turned).act(g, box)
    quarter = torch.rot90(box, 1, (1, 2))
    assert torch.equal(moved[0], quarter[0])
    assert torch.equal(moved[1], box.flip(2)[1] if mixed else quarter[1])


def test_a_field_of_vectors_turns_with_its_grid():
    """Pixel c moves to M c, and its vector v becomes M v, for the same images of the generators."""
    images = [[-2, 1], [1, -2]]
    rep = ps.Rep(SQUARE.grid(images), SQUARE.signed(images))
    place = torch.arange(5.0) - 2
    positions = torch.stack(torch.meshgrid(place, place, indexing="ij"), -1)  # the field of vectors that point outwards
    assert torch.equal(every(SQUARE, rep, positions), positions.expand(8, 5, 5, 2))
    crossed = ps.Rep(SQUARE.grid(images), SQUARE.signed([[-1, -2], [1, 2]]))
    assert not torch.equal(every(SQUARE, crossed, positions), positions.expand(8, 5, 5, 2))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.bool, torch.float16, torch.complex64])
def test_what_only_moves_keeps_every_dtype(kind):
    x = torch.tensor([[1, 0, 3]]).to(kind)
    g = MIRROR.generator_elements
    assert torch.equal(ps.Rep(MIRROR.permutation([[2, 1, 0]])).act(g, x), x.flip(1))
    assert torch.equal(ps.Rep(MIRROR.grid([[-1]])).act(g, x), x.flip(1))
    signed = ps.Rep(MIRROR.signed([[3, 2, 1]]))
    if kind in (torch.uint8, torch.bool):
        with pytest.raises(TypeError, match=r"numbers with a sign for .*signed\(\[\[3, 2, 1\]\]\), got"):
            signed.act(g, x)
    else:
        assert torch.equal(signed.act(g, x), x.flip(1))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MIRROR.permutation([[1, 2, 0]]), r"permutation: the images do not satisfy the relations.*aa = 1 in"),
        (lambda: MIRROR.signed([[-2, 1]]), r"signed: the images do not satisfy the relations"),
        (lambda: MIRROR.grid([[-2, 1]]), r"grid: the images do not satisfy the relations"),
        (lambda: MIRROR.linear([[[1.0, 1.0], [0.0, 1.0]]]), r"linear: the images do not satisfy the relations"),
        (lambda: ps.Finite(2).permutation([[1, 0, 2], [0, 2, 1]]), r"ba = ab|ab = ba"),
        (lambda: SQUARE.linear([TURN, TURN]), r"linear: the images do not satisfy the relations"),
        (lambda: SQUARE.signed([[-2, 1]]), r"signed: expected one entry for each of the 2 generators"),
        (lambda: MIRROR.permutation([[1, 0, 1]]), r"permutation\[0\]: expected a permutation, each of the"),
        (lambda: MIRROR.permutation([[2, 1]]), r"each of the numbers 0 to 1 once, got \[2, 1\]"),
        (lambda: MIRROR.signed([[0, 1]]), r"signed\[0\]: expected each of the numbers 1 to 2 once, with a sign"),
        (lambda: MIRROR.signed([1, 2]), r"signed: expected a list of whole numbers for each generator"),
        (lambda: MIRROR.linear([[[1.0, 0.0]]]), r"linear: expected square matrices"),
        (lambda: MIRROR.linear([[[0.0]]]), r"linear\[0\]: expected an invertible matrix"),
        (lambda: MIRROR.linear([[[math.nan]]]), r"linear: expected finite numbers"),
        (lambda: ps.Finite(15).permutation([list(range(2000))] * 15), r"permutation: expected at most 50,000,000"),
        (lambda: ps.Finite([[1, 0], [1, 2, 0]]), r"generators: expected one list a generator, all of the same size"),
        (lambda: ps.Finite([TURN[0], TURN[1]]), r"generators\[0\]: expected a permutation.*goes into a list"),
        (lambda: ps.Finite(0), r"generators: expected an integer of at least 1"),
        (lambda: ps.Finite([1, 0]), r"generators: expected a list of permutations"),
        (lambda: ps.Finite(16), r"at most 40,320 elements, got more"),
        (lambda: ps.Finite([[1, 0, *range(2, 9)], [*range(1, 9), 0]]), r"at most 40,320 elements, got more"),
        (lambda: ps.Finite([turn(1.0)]), r"at most 40,320 elements, got more.*without end"),
        (lambda: ps.Finite([[[2.0]]]), r"generators\[0\]: expected a matrix of finite order.*sizes \[2.0\]"),
        (lambda: ps.Finite(1, relations=[]), r"relations: expected those of a group of at most 40,320 elements"),
        (lambda: ps.Finite(1, relations=["ab"]), r"relations\[0\]: expected the letters a, one a generator.*got 'ab'"),
        (lambda: ps.Finite(1, relations=["a" * 2000]), r"relations\[0\]: expected at most 1000 letters"),
        (lambda: ps.Finite(table=[[1, 0], [0, 1]]), r"table: expected element 0 to be the identity"),
        (lambda: ps.Finite(table=[[0, 1], [1, 1]]), r"table: expected every element once in row 1, got \[1, 1\]"),
        (lambda: ps.Finite(table=[[0, 1], [1, 2]]), r"table: expected whole numbers from 0 to 1"),
        (lambda: ps.Finite(table=[[0, 1]]), r"table: expected one row and one column an element"),
        (lambda: ps.Finite([0], table=[[0, 1], [1, 0]]), r"generators: expected all of the 2 elements.*\[0\] make 1"),
    ],
)  # fmt: skip
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ps.Finite(), r"generators: expected a number, permutations or matrices, or a multiplication table"),
        (lambda: ps.Finite([[[1j]]]), r"generators: expected lists of real numbers"),
        (lambda: ps.Finite([["a"]]), r"generators: expected lists of real numbers"),
        (lambda: ps.Finite(1, relations="aa"), r"relations: expected a list of words"),
        (lambda: ps.Finite([[1, 0]], relations=["aa"]), r"relations: expected a number of generators with them"),
    ],
)
def test_refused_types(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_a_table_that_does_not_associate():
    """A Latin square with an identity of which no group is the table: 5 is prime, and every element undoes itself."""
    table = [[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]]
    with pytest.raises(ValueError, match=r"table: expected the product of a group, got \(\d \d\) \d = \d and"):
        ps.Finite(table=table)


def test_wrong_sizes_are_refused_by_name():
    model = nn.Identity()
    turned = ps.symmetrize(model, ps.Rep(None, SQUARE.grid([[-2, 1], [1, -2]])), ps.Rep(), "haar")
    with pytest.raises(
        ValueError, match=r"equal sizes along the grid axes 1 and 2, which are exchanged, on axes 2 to 3"
    ):
        turned(torch.randn(2, 1, 4, 6))
    flipped = ps.symmetrize(model, ps.Rep(None, MIRROR.grid([[1, -2]])), ps.Rep(None, MIRROR.grid([[1, -2]])), "haar")
    assert flipped(torch.randn(2, 1, 4, 6)).shape == (2, 1, 4, 6)  # these axes are not exchanged
    with pytest.raises(ValueError, match="size 3 on axis 1"):
        ps.symmetrize(model, ps.Rep(MIRROR.signed([[1, 2, -3]])), ps.Rep(), "haar")(torch.randn(2, 4))


def test_channels_of_a_volume_in_the_wrong_place_are_refused():
    flip = MIRROR.grid([[1, 2, -3]])
    scan = torch.randn(2, 1, 4, 5, 6)
    with pytest.raises(ValueError, match=r"axes 1 to 3 for those of a volume, but shape \(2, 1, 4, 5, 6\) looks as if"):
        ps.symmetrize(nn.Identity(), ps.Rep(flip), ps.Rep(flip), "haar")(scan)
    for rep, x in ((ps.Rep(None, flip), scan), (ps.Rep(flip, None), scan), (ps.Rep(flip), scan.movedim(1, -1))):
        phi = ps.symmetrize(nn.Identity(), rep, rep, "haar", eval_samples=ps.Exact()).eval()
        assert torch.equal(phi(x), x)


# ---------------------------------------------------------------- what the library does for them


class Wide(nn.Module):
    """A perceptron that knows no symmetry, on tensors (B, ...) of one shape."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        size = math.prod(shape)
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, size), nn.Unflatten(1, shape)
        ).double()
        self.rows = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        return self.net(x.to(self.net[1].weight.dtype))


def test_exact_is_the_mean_over_all_elements():
    model = Wide(4, 4)
    rep = ps.Rep(SQUARE.grid([[-2, 1], [1, -2]]))
    phi = ps.symmetrize(model, rep, rep, "haar", eval_samples=ps.Exact()).eval()
    x = torch.randn(3, 4, 4, dtype=torch.float64, generator=seeded())
    by_hand = []
    for flip in (False, True):
        for quarters in range(4):
            pose = torch.rot90(x.flip(2) if flip else x, quarters, (1, 2))
            back = torch.rot90(model(pose), -quarters, (1, 2))
            by_hand.append(back.flip(2) if flip else back)
    estimate = phi.estimate(x)
    assert torch.allclose(estimate.mean, torch.stack(by_hand).mean(0), atol=1e-14)
    assert estimate.samples.tolist() == [8] * 3
    assert (estimate.stderr == 0).all()
    assert_equivariant(phi, x)

    # equal poses of a symmetric input are evaluated once
    x[:] = x[:, :1, :1]
    model.rows = 0
    phi(x)
    assert model.rows == 3


def test_sampled_haar_is_unbiased_and_exactly_equivariant_with_its_noise():
    model = Wide(3)
    rep = ps.Rep(EXCHANGES)
    phi = ps.symmetrize(model, rep, rep, "haar", eval_samples=4).eval()
    x = torch.randn(2, 3, dtype=torch.float64, generator=seeded())
    assert_distribution(phi.distribution, x, rep)
    assert_equivariant(phi, x, generator=seeded())
    exact = phi(x, estimator=ps.Exact())
    sampled = phi.estimate(x, samples=4000, generator=seeded())
    assert ((sampled.mean - exact).abs() < 6 * sampled.stderr).all()


@pytest.mark.parametrize("kind", [ps.Canonical, ps.Learned])
def test_a_net_of_scores_for_each_element(kind):
    """Scores along `regular`: of the pose g^-1 x, for every g."""

    class Scores(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            poses = every(EXCHANGES, ps.Rep(None, EXCHANGES), x)[EXCHANGES.elements().inverse().number]
            weights = torch.tensor([1.0, 2.0, 4.0], dtype=x.dtype)
            return (poses.tanh() @ weights).T

    rep = ps.Rep(EXCHANGES)
    p = kind(Scores(), EXCHANGES)
    x = torch.randn(4, 3, dtype=torch.float64, generator=seeded())
    x[0] = 0  # no pose is better than another
    assert_distribution(p, x, rep)
    phi = ps.symmetrize(Wide(3), rep, rep, p).eval()
    assert_equivariant(phi, x, generator=seeded())


class Lean(nn.Module):
    """Scores of both elements of MIRROR, invariant to the order of nodes: how far g^-1 x leans to one side."""

    def forward(self, x, mask=None, batch=None):
        poses = torch.stack([x, x * torch.tensor([1.0, -1.0], dtype=x.dtype)])
        each = (poses @ torch.tensor([1.0, 2.0], dtype=x.dtype)).tanh()  # of each node, zero for padding
        if batch is None:
            return each.sum(-1).T
        return each.new_zeros(2, 2).index_add(1, batch, each).T


@pytest.mark.parametrize("kind", ["haar", "canonical", "learned"])
@pytest.mark.parametrize("storage", ["dense", "padded", "ragged"])
def test_beside_nodes(storage, kind):
    """The mirror lists its two elements, or learns which, and the order of the nodes is sampled."""
    if storage == "padded":
        nodes = ps.S("nodes", mask="mask")
    elif storage == "ragged":
        nodes = ps.S("nodes", batch="batch")
    else:
        nodes = ps.S("nodes")
    rep = ps.Rep(nodes, MIRROR.signed([[1, -2]]))
    x = torch.randn(2, 7, 2, dtype=torch.float64, generator=seeded())  # 7! orders are too many for Hybrid to list
    call = {"x": x}
    if storage == "padded":
        call["mask"] = torch.arange(7) < torch.tensor([7, 5])[:, None]
        call["x"] = x * call["mask"][..., None]
    if storage == "ragged":
        call["batch"] = torch.tensor([0] * 7 + [1] * 5)
        call["x"] = x.flatten(0, 1)[:12]

    class Mixing(nn.Module):
        """Every node by its place in memory and its coordinates, without symmetry."""

        def forward(self, x, mask=None, batch=None):
            weight = 1 + torch.arange(x.shape[-2], dtype=x.dtype)[:, None] / 7
            y = (weight * x + 0.3).sin() * torch.tensor([1.0, 2.0], dtype=x.dtype) + x.flip(-1) ** 2
            return y if mask is None else y * mask[..., None]

    if kind == "haar":
        phi = ps.symmetrize(Mixing(), {"x": rep}, rep, "haar", eval_samples=ps.Hybrid(3)).eval()
        assert phi.estimate(**call, generator=seeded()).samples.tolist() == [6, 6]
    else:
        p = ps.Canonical(Lean(), MIRROR) if kind == "canonical" else ps.Learned(Lean(), MIRROR)
        assert_distribution(p * ps.Haar(nodes), call, {"x": rep})
        phi = ps.symmetrize(Mixing(), {"x": rep}, rep, p * ps.Haar(nodes), eval_samples=4).eval()
    assert_equivariant(phi, call, generator=seeded())
    assert not equivariance_error(Mixing(), call, reps=phi.inputs, output=phi.output).passed


def test_a_default_net_that_sees_no_input_is_refused():
    """The nodes hold signed entries alone, of which the net of an order knows nothing."""
    nodes = ps.S("nodes")
    rep = ps.Rep(nodes, MIRROR.signed([[1, -2]]))
    p = ps.Learned(DefaultNet({"x": rep}, nodes), nodes) * ps.Haar(MIRROR)
    phi = ps.symmetrize(nn.Identity(), {"x": rep}, rep, p).eval()
    with pytest.raises(
        ValueError, match=r"no input tells the nodes of S\('nodes'\) apart that the default net can see"
    ):
        phi(x=torch.randn(2, 4, 2))


def test_one_input_one_sample_and_autocast():
    rep = ps.Rep(SQUARE.signed([[-2, 1], [1, -2]]))
    model = Wide(2).float()
    phi = ps.symmetrize(model, rep, rep, "haar", eval_samples=ps.Exact()).eval()
    x = torch.randn(1, 2, generator=seeded())
    assert phi(x, samples=1, generator=seeded()).shape == (1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        half = phi(x)
    assert torch.allclose(half.float(), phi(x), atol=2e-2)
    assert phi(x.bfloat16()).isfinite().all()


def test_saved_and_loaded_bit_for_bit(tmp_path):
    third = turn(2 * math.pi / 3)
    groups = [MIRROR, SQUARE, RING, EXCHANGES, ps.Finite([third], "third"), ps.Finite([1], table=[[0, 1], [1, 0]])]
    inputs = {
        "labels": ps.Rep(MIRROR.permutation([[1, 0]])),
        "field": ps.Rep(SQUARE.grid([[-2, 1], [1, -2]]), SQUARE.signed([[-2, 1], [1, -2]])),
        "ring": ps.Rep(RING),
        "places": ps.Rep(EXCHANGES),
        "vector": ps.Rep(groups[4]),
        "scalar": ps.Rep(groups[4].det),
        "linear": ps.Rep(groups[5].linear([[[0.0, 2.0], [0.5, 0.0]]])),
    }

    class Sum(nn.Module):
        def forward(self, **parts):
            return sum((1 + i) * part.flatten(1).sin().sum(1, keepdim=True) for i, part in enumerate(parts.values()))

    shapes = {
        "labels": (2,),
        "field": (3, 3, 2),
        "ring": (3,),
        "places": (3,),
        "vector": (2,),
        "scalar": (1,),
        "linear": (2,),
    }
    call = {name: torch.randn(2, *shape, generator=seeded()) for name, shape in shapes.items()}
    phi = ps.symmetrize(Sum(), inputs, ps.Rep(), "haar").eval()
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=Sum()).eval()
    assert again.inputs == phi.inputs
    assert set(again.group.factors) == set(groups)
    assert torch.equal(again(**call, generator=seeded()), phi(**call, generator=seeded()))


def test_the_checker_finds_labels_that_do_not_swap():
    """A flip exchanges left and right: a model that flips the volume alone fails, and one that swaps passes."""
    flip = MIRROR.grid([[1, 2, -3]])
    swap = ps.Rep(MIRROR.permutation([[0, 2, 1]]), flip)
    torch.manual_seed(0)
    model = nn.Conv3d(1, 3, 3, padding=1).double()
    scan = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64, generator=seeded())
    inputs = ps.Rep(None, flip)
    right = ps.symmetrize(model, inputs, swap, "haar", eval_samples=ps.Exact()).eval()
    wrong = ps.symmetrize(model, inputs, ps.Rep(None, flip), "haar", eval_samples=ps.Exact()).eval()
    assert_equivariant(right, scan)
    assert_equivariant(wrong, scan)  # under what it declares,
    assert not equivariance_error(wrong, scan, reps=inputs, output=swap).passed  # which is not what is meant


def test_a_net_that_could_not_learn_is_refused_in_training():
    phi = ps.symmetrize(Wide(3), ps.Rep(EXCHANGES), ps.Rep(EXCHANGES), ps.Learned(nn.Linear(3, 6).double(), EXCHANGES))
    with pytest.raises(ValueError, match="carry no gradient"):
        phi.train()(torch.randn(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["learned", "canonical"])
def test_a_default_net_learns_over_a_group_of_ones_own(name):
    """On images that are not square: equivariant, and where it is not a point mass the net trains."""
    torch.manual_seed(0)
    flips = ps.Finite(2, "flips")
    image = ps.Rep(None, flips.grid([[-1, 2], [1, -2]]))
    model = nn.Conv2d(1, 1, 3, padding=1).double()
    phi = ps.symmetrize(model, image, image, name, eval_samples=ps.Exact()).double()
    x = torch.randn(2, 1, 8, 6, dtype=torch.float64, generator=seeded())
    phi.train()(x, estimator=ps.Exact()).square().sum().backward()
    slopes = [weight.grad for weight in phi.distribution.parameters()]
    assert slopes
    if name == "learned":
        assert all(slope is not None and bool(slope.isfinite().all()) for slope in slopes)
        assert any(bool((slope != 0).any()) for slope in slopes)
    assert_equivariant(phi.eval(), x, generator=seeded())


def test_a_design_for_rotations_beside_a_mirror():
    """An octahedral coset of the rotations, and flips of their own in each of its samples."""
    space = ps.SO(3, "space")
    torch.manual_seed(0)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, v, w):
            return self.net(torch.cat([v, w], 1))

    inputs = {"v": ps.Rep(space), "w": ps.Rep(MIRROR.permutation([[1, 0]]))}
    call = {"v": torch.randn(2, 3, generator=seeded()), "w": torch.randn(2, 2, generator=seeded(1))}
    phi = ps.symmetrize(Both(), inputs, ps.Rep(), "haar").eval()
    assert_design("octahedral", phi, call, repeats=64)
    alone = ps.symmetrize(nn.Linear(3, 3), ps.Rep(ps.Octahedral()), ps.Rep(ps.Octahedral()), "haar")
    with pytest.raises(ValueError, match="fits no factor of Octahedral"):
        alone(call["v"], estimator=ps.MonteCarlo(24, design="octahedral"))
