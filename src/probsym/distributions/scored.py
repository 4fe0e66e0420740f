"""A learned p over a finite group from any plain net: the poses of the input, weighted by their scores."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.base import EquivariantDistribution, Noise, Support, draw_options, has_few_elements
from probsym.distributions.diagnostics import fill, gathered, lazily
from probsym.distributions.haar import Haar, order_of
from probsym.distributions.learned import called_like_model
from probsym.distributions.registry import stands_for
from probsym.distributions.score_function import score_weights
from probsym.distributions.score_net import ScoreNet
from probsym.groups import Element, Group, product
from probsym.groups.finite import leading
from probsym.groups.permutation import LARGEST_LIST
from probsym.kernels.precision import without_autocast
from probsym.kernels.values import drawn_once, may_peek, readable
from probsym.members import register
from probsym.reps import Inputs, Layout, Rep

ENTRIES_AT_ONCE = 2**22  # numbers of input that are scored at once where no gradient is wanted


@register
class Scored(EquivariantDistribution):
    """The poses of the input, weighted by the scores that any net gives them; finite groups.

        p(g|x) = exp(net(g^-1 x) / temperature) / sum_h exp(net(h^-1 x) / temperature)

    Exactly equivariant, whatever the net is: at h x the element h g has the score that g has at x.

    **Estimators.** `Exact` averages over all elements with their weights, `MonteCarlo(k)` over k draws. Both learn. The
    gradient of `Exact` is exact. A draw chooses by Gumbel noise, argmax_g log p(g|x) + noise_g, and carries a weight of
    value one whose gradient is d log p(g|x), so that the gradient of the average is unbiased, to the net and to the
    inputs. With two draws or more each has the others as a baseline, without which the variance is much larger.

    **Cost.** The net is called on |G| rows per input, in one batch, the model on k (or on |G| by `Exact`). So the net
    should be small next to the model.

    **Temperature zero** is canonicalization by the best pose (Kaba et al., arXiv 2211.06489): one call of
    the model per input. In training its gradient to the net is that of a draw at temperature one; none goes to the
    inputs, since the best pose is piecewise constant. Of equally good poses (a symmetric input; equal up to rounding)
    one is drawn. Such an input has an infinite standard error and is counted in `diagnostics["degenerate"]`.

    One class for several methods, by what the score is (examples/scored.py):

        a small net that is trained with the model       learned canonicalization and its softer forms
        the confidence of the trained model itself       test-time canonicalization, equizero (arXiv 2305.09900)
        minus an energy of the pose                      optimisation-based canonicalization

    Args:
        net: called like the model, on poses g^-1 x: any module, with tensors of its own. It returns one score per row,
            (B,) or (B, 1). -inf excludes a pose.
        group: finite, with at most 40,320 elements: `C`, `D`, `Shift`, `Signs`, small `S`, O(1), a group of your own,
            and products of these.
        temperature: in units of the scores; small is sharp, zero is the best pose alone.

    Raises:
        TypeError: net is no module, temperature no number; at the call, scores that are no real floating tensor.
        ValueError: an infinite or too large group, a negative temperature; at the call, scores of another shape.

    >>> import probsym as ps
    >>> turns = ps.C(4)
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1))
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    >>> phi = ps.symmetrize(model, ps.Rep(turns), ps.Rep(), ps.Scored(net, turns)).eval()
    >>> image = torch.randn(2, 8, 8)
    >>> torch.allclose(phi(image.rot90(1, (1, 2))), phi(image), atol=1e-5)
    True
    """

    has_enumerate_support = True

    def __init__(self, net: nn.Module, group: Group, temperature: float = 1.0) -> None:
        super().__init__(group)
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected an nn.Module that is called like the model, got {type(net).__name__}")
        if not group.finite:
            raise ValueError(
                f"group: expected a finite one, whose elements can all be scored, got {group!r}: take Learned"
            )
        order = group.order()
        if order is not None and order > LARGEST_LIST:
            raise ValueError(f"group: expected at most {LARGEST_LIST} elements to score, got {order} of {group!r}")
        if not isinstance(temperature, int | float) or isinstance(temperature, bool):
            raise TypeError(f"temperature: expected a number of at least zero, got {temperature!r}")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature: expected a number of at least zero, got {temperature}")
        self.net = net
        self.temperature = float(temperature)

    @property
    def default_samples(self) -> tuple[int | None, int | None]:  # type: ignore[override]
        """Two draws in training, of which each is the baseline of the other; exact where that costs no more."""
        if self.temperature == 0 or self.group.order() == 1:
            return None, None
        if has_few_elements(self.group):
            return 2, None
        return 2, 10

    # ---------------------------------------------------------------- scores

    def scores(self, x: Inputs, g: Element) -> Tensor:
        """net(g^-1 x) for elements of batch shape (M, B): (M, B), as the net returns them.

        Raises:
            TypeError, ValueError: the scores are no real floating tensor of one number per row.
        """
        # Where no gradient keeps all rows anyway, so many elements at once as have a moderate number of entries.
        step = count = g.shape[0]
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            entries = sum(leaf.value.numel() for leaf in x.leaves.values())
            step = max(1, min(count, ENTRIES_AT_ONCE // max(entries, 1)))
        if step == count:
            return self._scores_of_rows(x, g)
        parts = []
        for start in range(0, count, step):
            parts.append(self._scores_of_rows(x, g.select(slice(start, start + step))))
        return torch.cat(parts)

    def _scores_of_rows(self, x: Inputs, g: Element) -> Tensor:
        # 1. The poses g^-1 x. Factors of other distributions leave the inputs as they are.
        times = g.shape[0]
        parts: list[Element] = [g]
        for f in x.group.factors:
            if f not in self.group.factors:
                parts.append(x.stored(f).identity((times, x.count), dtype=x.dtype, device=x.device))
        inverse = product((*self.group.factors, *x.group.factors)).join(*parts).inverse()
        rows = x.fold(lambda leaf: leaf.rep.act(inverse, leaf.value, leaf.rep.batch_dims), times)

        # 2. Their scores.
        with without_autocast(x.device):
            scores = called_like_model(self.net, rows, type(self).__name__)
        if not isinstance(scores, Tensor):
            raise TypeError(f"net: expected a tensor of scores, got {type(scores).__name__}")
        if not scores.is_floating_point():
            raise TypeError(f"net: expected real floating scores, got {scores.dtype}")
        if tuple(scores.shape) not in ((rows.count,), (rows.count, 1)):
            raise ValueError(
                f"net: expected one score per row, of shape ({rows.count},) or ({rows.count}, 1), "
                f"got {tuple(scores.shape)}"
            )
        return scores.reshape(times, x.count)

    def log_prob(self, x: Inputs, g: Element) -> Tensor:
        """log p(g|x) for elements of batch shape (K, B): (K, B), in nats.

        Args:
            x: bound inputs, as of `phi.bind`.

        Raises:
            ValueError: at temperature zero, where p is a point mass.
        """
        if self.temperature == 0:
            raise ValueError("log_prob: at temperature zero p is a point mass, without a density that could be trained")
        every, _ = self._scaled(x, self._listed(x))
        return self.scores(x, g).to(every.dtype) / self.temperature - every.logsumexp(0)

    def _count(self, x: Inputs) -> int:
        """Number of elements M, for the largest input.

        Raises:
            ValueError: more than can be listed.
        """
        order = order_of(x, self.group.factors)
        if order is None or order > LARGEST_LIST:
            raise ValueError(f"group: expected at most {LARGEST_LIST} elements to score, got {order} of {self.group!r}")
        return order

    def _listed(self, x: Inputs) -> Support:
        """All elements (M, B), those of an input of fewer nodes padded by others of weight zero."""
        self._count(x)
        return Haar(self.group).support(x)

    def _scaled(self, x: Inputs, listed: Support) -> tuple[Tensor, torch.dtype]:
        """net(g^-1 x) / temperature (M, B) in float32 or better, -inf where an input has no such element.

        With it the dtype whose rounding the scores have: that of the net or of the inputs, whichever is the coarser.
        """
        scores = self.scores(x, listed.element)
        coarsest = max(scores.dtype, x.dtype, key=lambda kind: torch.finfo(kind).eps)
        scaled = scores.to(torch.promote_types(scores.dtype, x.dtype)) / (self.temperature or 1.0)
        if not listed.uniform:
            scaled = scaled.masked_fill(listed.weight == 0, -math.inf)
        return scaled, coarsest

    def _law(self, x: Inputs, listed: Support) -> tuple[Tensor, Tensor, Tensor | None]:
        """log p (M, B), the log p whose gradient the net gets, and at temperature zero which elements are the best."""
        if self.temperature > 0:
            scaled, _ = self._scaled(x, listed)
            log_p = scaled.log_softmax(0)
            return log_p, log_p, None

        # The best pose is piecewise constant: the exact derivative with respect to the inputs has no part through it.
        scaled, coarsest = self._scaled(x.map(lambda leaf: leaf.value.detach()), listed)
        best = leading(scaled.T, coarsest).T  # scores that differ by rounding are equal
        return torch.zeros_like(scaled).masked_fill(~best, -math.inf), scaled.log_softmax(0), best

    # ---------------------------------------------------------------- all elements

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All elements with their probabilities; at temperature zero the best one, drawn where several are.

        Raises:
            ValueError: inputs with more elements than can be listed.
        """
        listed = self._listed(x)
        log_p, learned, best = self._law(x, listed)
        if best is None:
            exact = torch.ones(x.count, dtype=torch.bool, device=x.device)
            return Support(listed.element, log_p.exp(), exact, self._diagnostics(log_p, best))
        eps = drawn_once(lambda: self._choice_noise(x, (1,), generator))
        place = _chosen(log_p, eps)
        g = _picked(x, listed.element, place).weighted(self._weights(learned, place))
        degenerate = best.sum(0) > 1
        return Support(g, torch.ones_like(log_p[:1]), ~degenerate, self._diagnostics(log_p, best))

    # ---------------------------------------------------------------- draws

    # The noise is a uniform group element, which moves with the input, and normal numbers, which stay. The numbers
    # belong to the elements as seen from the uniform one. So every finite group will do, however its nodes are stored.

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        options = draw_options(x, generator)
        start = {f: x.stored(f).draw_noise((*shape, x.count), **options) for f in self.group.factors}
        return {"start": start, "choice": {self.group.factors[0]: self._choice_noise(x, shape, generator)}}

    def _choice_noise(self, x: Inputs, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
        """A normal number for every element of the list (*shape, B, M)."""
        return torch.randn(*shape, x.count, self._count(x), **draw_options(x, generator))

    def noise_rep(self, x: Inputs) -> Any:
        start = {f: Rep(*f.noise_slots) for f in self.group.factors}
        return {"start": start, "choice": {self.group.factors[0]: Rep(None)}}

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        eps = noise["choice"][self.group.factors[0]]
        sample_shape = eps.shape[:-2]
        listed = self._listed(x)
        every = listed.element

        # 1. The elements c_j of the list as seen from a uniform element k: g_j = k c_j. One k will do for all samples:
        #    whatever k is, the g_j are all elements, and each sample chooses among them by noise of its own.
        parts: list[Element] = []
        for f in self.group.factors:
            start = noise["start"][f][(0,) * len(sample_shape)]
            k = x.stored(f).project(start, start)
            k = k.map(lambda tensor, _: tensor.expand(every.shape[0], *tensor.shape))
            parts.append(x.stored(f).compose(k, every[f]))
        seen = replace(listed, element=self.group.join(*parts))

        # 2. Which one each sample takes.
        log_p, learned, best = self._law(x, seen)
        place = _chosen(log_p, eps.reshape(math.prod(sample_shape), *eps.shape[-2:]))
        if diagnostics is not None:
            fill(diagnostics, self._diagnostics(log_p, best))

        # 3. The elements, with the weights that pass the gradient on.
        g = _picked(x, seen.element, place).weighted(self._weights(learned, place))
        return g.map(lambda tensor, _: tensor.reshape(*sample_shape, *tensor.shape[1:]))

    def _weights(self, log_p: Tensor, place: Tensor) -> Tensor | None:
        """Weights (K, B) of the elements drawn: of value one, with the gradient of their law; NaN where the scores are.

        At temperature zero all draws of an input are the best pose. They have no baseline: it would be what they are.
        """
        chosen = log_p.gather(0, place)
        weights = score_weights(chosen, baseline=self.temperature > 0)
        if weights is not None:
            return weights
        if may_peek(chosen) and not bool(chosen.isnan().any()):
            return None
        return torch.where(chosen.isnan(), chosen, 1.0)

    def _diagnostics(self, log_p: Tensor, best: Tensor | None) -> dict[str, Tensor]:
        """`degenerate`: inputs of which several poses are the best; else the mean `entropy` of p in nats."""
        if best is not None:
            return {"degenerate": (best.sum(0) > 1).sum()}

        def entropy() -> Tensor:
            return torch.special.entr(log_p.detach().exp()).sum(0).mean()

        if readable(log_p):
            return gathered({"entropy": lazily(entropy)})
        return {"entropy": entropy()}

    def extra_repr(self) -> str:
        return f"{self.group!r}, temperature={self.temperature}"


def _chosen(log_p: Tensor, eps: Tensor) -> Tensor:
    """Numbers (K, B) of elements drawn from log p (M, B) by normal noise (K, B, M): the Gumbel trick.

    -log(-log u) is Gumbel noise for uniform u, here u = Phi(eps). Normal noise is what designs know to arrange.
    """
    # log u, accurate in both tails
    tail = torch.special.erfc(eps.abs() / math.sqrt(2)) / 2
    log_u = torch.where(eps < 0, tail.log(), torch.log1p(-tail))
    gumbel = -torch.log(-log_u)
    return (log_p.detach().T + gumbel).argmax(-1)


def _picked(x: Inputs, every: Element, place: Tensor) -> Element:
    """The elements with these numbers (K, B) in a list (M, B)."""
    parts: list[Element] = []
    for f in every.group.factors:
        layout = x.layouts.get(f)  # type: ignore[call-overload]

        def pick(tensor: Tensor, trailing: int, layout: Layout | None = layout) -> Tensor:
            number = place.to(tensor.device)
            # permutations of a ragged batch have one entry per node, (M, sum N)
            if layout is not None and layout.ragged and tensor.ndim - trailing == 1:
                number = layout.spread(number, 1)
            return tensor[number, torch.arange(number.shape[1], device=tensor.device)]

        parts.append(every[f].map(pick))
    return every.group.join(*parts)


# ---------------------------------------------------------------- by name


@stands_for("learned", "elements")
def _learned(spec: Any, group: Group) -> EquivariantDistribution:
    return Scored(ScoreNet(spec, group), group)


@stands_for("canonical", "elements")
def _canonical(spec: Any, group: Group) -> EquivariantDistribution:
    return Scored(ScoreNet(spec, group), group, temperature=0.0)
