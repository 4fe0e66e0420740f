"""GIN-ID as the published code trains it: the gradient of an order goes through the identifiers of the nodes alone."""

from __future__ import annotations

import torch
from torch import Tensor

import probsym as ps
from probsym.distributions.diagnostics import Diagnostics

from ..batches import Batch


def estimate(phi: ps.Symmetrizer, given: Batch, samples: int) -> ps.Estimate:
    """The average of f(A, x, P_k): the graph as it is, and node i with the identifier of its place, row i of P_k.

    f is invariant to an order of all that it sees, so these are the numbers f(P^T A P, P^T x, 1) of phi. Their
    gradient to P is another: that of phi goes through the permuted graph.

    Args:
        phi: With an invariant output and a GINID as its model. given: The graphs. samples: k.
    """
    # 1. Orders, as phi draws them.
    x = phi.bind((), given)
    p = phi.distribution
    diagnostics = Diagnostics()
    order = p.transport(x, p.draw(x, samples), diagnostics)

    # 2. Order k applied to the rows of the identity is P_k; zero on padding.
    (nodes,) = p.group.factors
    count, n = given["adjacency"].shape[:2]
    identity = torch.eye(n, dtype=x.dtype, device=x.device).expand(count, n, n)
    if "mask" in given:
        identity = identity * given["mask"].unsqueeze(-1)
    identifiers = ps.Rep(nodes, None).act(order, identity, 1)

    # 3. All samples in one batch.
    rows: dict[str, Tensor] = {}
    for name, value in given.items():
        rows[name] = value.expand(samples, *value.shape).flatten(0, 1)
    y = phi.model(**rows, identifiers=identifiers.flatten(0, 1)).unflatten(0, (samples, count))
    counts = torch.full((count,), samples, device=y.device)
    return ps.Estimate(y.mean(0), None, counts, diagnostics)
