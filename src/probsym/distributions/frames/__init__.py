"""Frame averaging: a readable reference, and the completion for degenerate inputs.

- `reference`: the generic case in plain torch, to be checked against the papers.
- `frame`: the distribution `Frame`.
- `columns`, `principal_axes`, `node_keys`: what is read off the inputs; `distinct_axes` is the usual case, faster.
- `signs`, `directions`, `orders`: the rules, each with what it enumerates and what it samples.
- `search`: the walk through the choices; `noise`: the randomness; `tolerances`: what counts as equal.
"""

from probsym.distributions.frames.frame import Frame

__all__ = ["Frame"]
