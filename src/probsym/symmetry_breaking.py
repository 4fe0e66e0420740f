"""Outputs less symmetric than their inputs: an equivariant model with a random, learned vector as a further input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions import EquivariantDistribution, Noise, by_name, complete
from probsym.distributions.base import samples_asked, samples_of
from probsym.groups import Element
from probsym.groups.whole import positive
from probsym.kernels.precision import complex_dtype
from probsym.reps import Inputs, Rep, Signature, as_spec, group_of, unfold
from probsym.reps.outputs import DeclaredOutputs, OutputStructure


class SymmetryBreaking(nn.Module):
    """y = f(x, g v) with g ~ p(g|x): probabilistic symmetry breaking, SymPE (arXiv 2503.21985).

    An equivariant model f cannot give one of several equally good answers to a symmetric input: f(x) is as symmetric as
    x. With the learned vectors v, moved by g, as further inputs it can: every call draws one answer, and the answers of
    h x are those of x moved by h, p(h y | h x) = p(y | x). Train it on samples, with a loss of each single output; the
    mean of the answers would be as symmetric as x again.

    If f is equivariant, f(x, g v) = g f(g^-1 x, v): these are the samples of `symmetrize` around f(., v), for the price
    of moving v instead of x. If f is not, the outputs are not either: `probsym.testing.equivariance_error` tells.

    Args:
        model: f, equivariant, called with the declared inputs and one keyword argument for each vector.
        inputs: Reps of the inputs, as in `symmetrize`.
        vectors: for every further argument its Rep and its shape without the batch: sizes along the axes of the Rep,
            then channels. Along nodes it is the largest number of nodes; inputs with fewer use the first ones.
        output: Reps of the outputs, as in `symmetrize`.
        distribution: of g, as in `symmetrize`. "canonical", the default, draws only where the input is symmetric.

    Attributes:
        vectors: the parameters v, standard normal at first.

    Raises:
        ValueError, TypeError: no vectors, a name that is an input too, a group that acts on no input, a shape that does
            not fit its Rep; at the call, more nodes than a vector has.

    >>> import probsym as ps
    >>> space = ps.O(2, "plane")
    >>> class Pointer(nn.Module):                    # equivariant: the first vector, and a hint where to point
    ...     def forward(self, v, hint):
    ...         return v[:, 0] + hint
    >>> phi = SymmetryBreaking(
    ...     Pointer(), {"v": ps.Rep(None, space)}, {"hint": (ps.Rep(space), (2,))}, ps.Rep(space)
    ... )
    >>> v = torch.zeros(3, 4, 2)                     # nothing to point at: each of three inputs chooses a direction
    >>> phi(v=v).norm(dim=-1).allclose(phi.vectors["hint"].norm())
    True
    >>> phi.sample(v=v, samples=5).shape
    torch.Size([5, 3, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        vectors: Mapping[str, tuple[Rep, tuple[int, ...]]],
        output: Any,
        distribution: str | EquivariantDistribution = "canonical",
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
        if not vectors:
            raise ValueError("vectors: expected at least one name with its Rep and shape, got none")
        self.model = model
        self.inputs = as_spec(inputs, "inputs", untouched=True)
        self.output = as_spec(output, "output", untouched=True)
        self._signature = Signature(self.inputs)
        self._outputs = DeclaredOutputs(self.output)

        # 1. The vectors, each with the Rep that moves it.
        self.reps: dict[str, Rep] = {}
        self.vectors = nn.ParameterDict()
        known = group_of(self.inputs)
        for name, (rep, shape) in vectors.items():
            self._check_vector(name, rep, shape)
            for factor in rep.group.factors:
                if factor not in known.factors:
                    raise ValueError(
                        f"vectors: {factor!r} acts on {name!r} but on no input, so nothing would orient it"
                    )
            self.reps[name] = rep
            kind = complex_dtype(torch.get_default_dtype()) if rep.is_complex else torch.get_default_dtype()
            self.vectors[name] = nn.Parameter(torch.randn(shape, dtype=kind))

        # 2. The distribution of g.
        group = group_of(self.inputs, self.output)
        if isinstance(distribution, str):
            distribution = by_name(distribution, self.inputs, group)
        self.distribution = complete(distribution, group)

    def _check_vector(self, name: str, rep: Rep, shape: tuple[int, ...]) -> None:
        if not isinstance(rep, Rep):
            raise TypeError(f"vectors: expected a Rep and a shape for {name!r}, got {rep!r}")
        if isinstance(self.inputs, dict) and name in self.inputs:
            raise ValueError(f"vectors: {name!r} is an input too; give it another name")
        if rep.labelled is not None or rep.on_edges:
            raise ValueError(f"vectors: {name!r} cannot hold node numbers or edges, got {rep!r}")
        if len(shape) < rep.ndim:
            raise ValueError(f"vectors: expected at least {rep.ndim} sizes for {name!r} with {rep!r}, got {shape}")
        for slot, place in rep.axes:
            if slot.role != "nodes":
                slot.check(torch.empty(shape, device="meta"), place, f"vectors: {name!r}", f" of {rep!r}")

    # ---------------------------------------------------------------- calls

    def forward(self, *args: Any, generator: torch.Generator | None = None, noise: Noise = None, **kwargs: Any) -> Any:
        """One answer for each input, in the containers of the model's output.

        Args:
            args, kwargs: the declared inputs. noise: drawn before with `draw_noise`, instead of a generator.

        Raises:
            ValueError: noise of several samples, whose answers `sample` gives.
        """
        if noise is not None and samples_of(noise) != 1:
            raise ValueError(f"noise: expected one sample, for one answer, got {samples_of(noise)}; see `sample`")
        outputs, structure = self._drawn(args, kwargs, 1, generator, noise)
        return structure.build([output[0] for output in outputs])

    def sample(
        self,
        *args: Any,
        samples: int | None = None,
        generator: torch.Generator | None = None,
        noise: Noise = None,
        **kwargs: Any,
    ) -> Any:
        """Several answers for each input: the output's structure with shapes (K, B, ...).

        Args:
            samples: how many, K; None takes as many as the noise has, else one.

        Raises:
            ValueError: `samples` is not that of the noise.
        """
        outputs, structure = self._drawn(args, kwargs, samples_asked(samples, noise), generator, noise)
        return structure.build(outputs)

    def _drawn(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        samples: int,
        generator: torch.Generator | None,
        noise: Noise,
    ) -> tuple[list[Tensor], OutputStructure]:
        """The samples of every output (K, B, ...), and the containers that they belong into."""
        x = Inputs.bind(self._signature, args, kwargs)
        if x.readable:
            x.check_values()
        if noise is None:
            noise = self.distribution.draw(x, samples, generator)
        elif x.readable:
            self.distribution.check_noise(x, noise)
        g = self.distribution.transport(x, noise)
        return self._evaluated(x, g)

    def draw_noise(
        self, *args: Any, samples: int = 1, generator: torch.Generator | None = None, **kwargs: Any
    ) -> Noise:
        """The noise that a call with these arguments would draw; pass it on as `noise=`."""
        x = Inputs.bind(self._signature, args, kwargs)
        return self.distribution.draw(x, positive("samples", samples), generator)

    def _evaluated(self, x: Inputs, g: Element) -> tuple[list[Tensor], OutputStructure]:
        """f(x, g_k v) for elements of batch shape (K, B)."""
        times = g.shape[0]

        # 1. Copies of the inputs, row = k B + b, and the moved vectors in the same order.
        rows = x.tile(times)
        moved: dict[str, Tensor] = {}
        for name, rep in self.reps.items():
            value = self._spread(x, name, rep)
            moved[name] = rep.act(g, value, rep.batch_dims).flatten(0, 1)

        # 2. The model, and its outputs as samples again.
        given = rows.map(lambda leaf: leaf.value)
        returned = self.model(*given.args, **given.kwargs, **moved)
        structure = OutputStructure.of(returned, self._outputs, x)
        outputs = self._outputs.read(returned, rows, averaged=False)
        samples = []
        for rep, output in zip(self._outputs.reps, outputs, strict=True):
            separate = unfold(output, rep, times)
            samples.append(rep.masked(g, separate, 1 + rep.batch_dims))  # zero at padded nodes
        return samples, structure

    def _spread(self, x: Inputs, name: str, rep: Rep) -> Tensor:
        """The vector for every input: (B, ...), along ragged nodes (sum N, ...)."""
        dtype = _narrow_dtype(x)
        value = self.vectors[name].to(complex_dtype(dtype) if rep.is_complex else dtype)

        # 1. Along nodes the first ones, as many as there are.
        for axis, places in rep.nodes:
            layout = x.layouts[axis]
            for place in places:
                if layout.padded_size > value.shape[place]:
                    raise ValueError(
                        f"vectors: {name!r} has {value.shape[place]} nodes along {axis!r}, and an input has "
                        f"{layout.padded_size}: give it a larger shape"
                    )
                if rep.ragged is None:
                    value = value.narrow(place, 0, layout.padded_size)

        # 2. One copy per input; of ragged nodes each takes the row of its place within its graph.
        if rep.ragged is None:
            return value.expand(x.count, *value.shape)
        layout = x.layouts[rep.ragged]
        place_in_graph = layout.position % max(layout.padded_size, 1)
        return value.index_select(0, place_in_graph)


def _narrow_dtype(x: Inputs) -> torch.dtype:
    """The floating type in which the model meets the inputs: unlike `x.dtype` it may be one of half precision."""
    kinds = [leaf.value.dtype for leaf in x.leaves.values() if leaf.value.is_floating_point()]
    if not kinds:
        return x.dtype
    common = kinds[0]
    for kind in kinds:
        common = torch.promote_types(common, kind)
    return common
