"""Networks that give the energy of a molecule from raw coordinates: they know no rotations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probsym.nets.masking import keep

from .attention import check_heads
from .displacements import differences, square
from .node_transformer import BiasedBlock

BLUR = 0.01  # Angstrom^2 below the root of a distance, which is smooth at zero then
RADII = [0.4 + 0.3 * number for number in range(16)]  # centres of the Gaussians that a distance is told by, in Angstrom
WIDTH = 0.3  # of each
SEEN = 3 + len(RADII)  # numbers that an atom sees of another


class AtomTransformer(nn.Module):
    """A token for each atom, whose attention sees the displacements to the others by components.

        a_ij = [x_j - x_i, exp(-(|x_j - x_i| - c)^2 / 2 w^2)]             for 16 radii c of 0.4 to 4.9 Angstrom
        e_ij = SiLU(W' SiLU(W a_ij + L s_i + R s_j) + b')                 once, `pair_width` channels; s: kinds of atoms
        h_i  = S s_i,     h <- BiasedBlock(h, e, B e)                     `layers` times (`NodeTransformer`)
        E    = sum_i W' SiLU(W LayerNorm(h_i))

    The tokens have no places, and positions enter as differences: nothing depends on the order of the atoms or on the
    origin. Directions enter by components: a network to symmetrize over rotations.

    `forward(pos (R, N, 3), kinds (R, N, S), mask (R, N)) -> energy (R, 1)`. The mask is false at padding, which nobody
    attends to and which has no energy; without it all atoms are there. All of it is smooth, and so are the forces.

    >>> net = AtomTransformer(kinds=3)
    >>> net(torch.randn(2, 9, 3), torch.eye(3).repeat(3, 1).expand(2, 9, 3)).shape
    torch.Size([2, 1])
    """

    def __init__(self, kinds: int, width: int = 64, layers: int = 3, heads: int = 4, pair_width: int = 32) -> None:
        super().__init__()
        check_heads(width, heads)
        self.nodes = nn.Linear(kinds, width, bias=False)
        self.pairs = nn.Linear(SEEN, pair_width)
        self.left = nn.Linear(kinds, pair_width, bias=False)
        self.right = nn.Linear(kinds, pair_width, bias=False)
        self.mix = nn.Linear(pair_width, pair_width)
        self.bias = nn.Linear(pair_width, layers * heads, bias=False)
        self.blocks = nn.ModuleList(BiasedBlock(width, heads, pair_width) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, pos: Tensor, kinds: Tensor, mask: Tensor | None = None) -> Tensor:
        silu = nn.functional.silu
        pos = keep(pos, mask)  # padding may hold NaN, which no weight of zero takes away
        kinds = keep(kinds, mask).to(pos.dtype)
        of_kinds = self.left(kinds).unsqueeze(2) + self.right(kinds).unsqueeze(1)
        e = silu(self.mix(silu(self.pairs(seen(-differences(pos))) + of_kinds)))
        bias = self.bias(e).movedim(-1, 1)
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None, :], -torch.inf)
        h = self.nodes(kinds)
        for block, of_layer in zip(self.blocks, bias.chunk(len(self.blocks), 1), strict=True):
            h = block(h, e, of_layer)
        return keep(self.head(h), mask).sum(1)


class AtomPoints(nn.Module):
    """Each atom sees the set of displacements to the others, by components.

        E = sum_i rho(A s_i + B sum_j psi(a_ij, s_i, s_j))

    a_ij and s as in `AtomTransformer`; psi and rho are perceptrons. The atom itself is among the j.

    Molecules of different sizes come padded, or ragged: all atoms one after the other, and nothing is padded.

        forward(pos (R, N, 3), kinds (R, N, S), mask (R, N)) -> energy (R, 1)               mask: false at padding
        forward(pos (sum N, 3), kinds (sum N, S), batch=batch (sum N,)) -> energy (R, 1)    batch: molecule of an atom

    >>> net = AtomPoints(kinds=1)
    >>> net(torch.randn(2, 8, 3), torch.ones(2, 8, 1)).shape
    torch.Size([2, 1])
    """

    def __init__(self, kinds: int, width: int = 64) -> None:
        super().__init__()
        self.pairs = nn.Linear(SEEN, width)
        self.left = nn.Linear(kinds, width, bias=False)
        self.right = nn.Linear(kinds, width, bias=False)
        self.psi = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        # The last map of psi is linear: once for the sum, instead of once for each pair.
        self.around = nn.Linear(width, width)
        self.own = nn.Linear(kinds, width)
        self.rho = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, pos: Tensor, kinds: Tensor, mask: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        kinds = kinds.to(pos.dtype)
        if batch is not None:
            return self.ragged(pos, kinds, batch)
        of_kinds = self.left(kinds).unsqueeze(2) + self.right(kinds).unsqueeze(1)
        messages = self.psi(self.pairs(seen(-differences(pos))) + of_kinds)
        if mask is not None:
            messages = messages.masked_fill(~mask[:, None, :, None], 0)
        return keep(self.energies(kinds, messages.sum(2)), mask).sum(1)

    def ragged(self, pos: Tensor, kinds: Tensor, batch: Tensor) -> Tensor:
        """The same of atoms one after the other; what would be pairs with padding is not computed."""
        i, j = pairs_within(batch)
        of_kinds = self.left(kinds)[i] + self.right(kinds)[j]
        messages = self.psi(self.pairs(seen(pos[j] - pos[i])) + of_kinds)
        energies = self.energies(kinds, messages.new_zeros(len(pos), messages.shape[1]).index_add(0, i, messages))
        return energies.new_zeros(int(batch.max()) + 1, 1).index_add(0, batch, energies)

    def energies(self, kinds: Tensor, messages: Tensor) -> Tensor:
        """Of atoms (..., 1), from the sum of the messages that each gets."""
        return self.rho(self.own(kinds) + self.around(messages))


def pairs_within(batch: Tensor) -> tuple[Tensor, Tensor]:
    """All ordered pairs (i, j) of atoms of one molecule, for the molecule of each atom (sum N,), in ascending order.

    >>> pairs_within(torch.tensor([0, 0, 1]))
    (tensor([0, 0, 1, 1, 2]), tensor([0, 1, 0, 1, 2]))
    """
    sizes = torch.bincount(batch)
    first = sizes.cumsum(0) - sizes  # atom of each molecule

    # 1. Each atom i stands as often as its molecule has atoms.
    times = sizes[batch]
    i = torch.arange(len(batch), device=batch.device).repeat_interleave(times)

    # 2. Its partners are counted from the first atom of the molecule.
    start = times.cumsum(0) - times  # of the pairs of each atom
    number = torch.arange(len(i), device=batch.device) - start[i]
    return i, first[batch[i]] + number


def seen(apart: Tensor) -> Tensor:
    """What an atom sees of another: displacements (..., 3) in Angstrom to these and distances (..., SEEN)."""
    distance = (square(apart) + BLUR).sqrt()
    radii = torch.tensor(RADII, dtype=apart.dtype, device=apart.device)
    return torch.cat([apart, torch.exp(-((distance - radii) / WIDTH).square() / 2)], -1)
