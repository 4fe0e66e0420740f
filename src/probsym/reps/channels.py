"""Images and volumes whose channels stand first, declared as if they stood last."""

from __future__ import annotations

from collections.abc import Iterable

from probsym.reps.rep import Rep


def refuse_channels_first(name: str, rep: Rep, shape: tuple[int, ...]) -> None:
    """Refuse an image (B, C, H, W) that is declared `Rep(G)`, which takes its first two axes for rows and columns.

    Axes that no Rep names are channels and stand last, so `Rep(G)` means (B, H, W) or (B, H, W, C). A tensor whose
    rows, columns and channels could as well be channels, rows and columns is refused: with as many channels as columns
    (a square image), or with fewer rows than either. `Rep(G, None)` names the last axis and so says that it is meant.
    Volumes are judged by the first and the last of their axes.

    Raises:
        ValueError: names the tensor.

    >>> from probsym.groups import D
    >>> refuse_channels_first("argument 'x'", Rep(D(1)), (2, 8, 6, 3))         # rows, columns, channels
    >>> refuse_channels_first("argument 'x'", Rep(None, D(1)), (2, 3, 8, 8))   # channels, rows, columns
    """
    # 1. only slots of several axes, those of an image or a volume, that stand last are in doubt
    last = rep.slots[-1] if rep.slots else None
    if last is None or not rep.is_image:
        return

    # 2. without channels there is nothing to confuse, and few channels behind many rows are what they seem
    start = rep.batch_dims + rep.ndim
    grid = shape[start - last.num_axes : start]
    rows, columns = grid[0], grid[-1]
    channels = shape[start:]
    if not channels:
        return
    if len(channels) == 1 and channels[0] != columns and rows >= min(columns, channels[0]):
        return

    # 3. the two ways to say it
    named = ", ".join(["None"] * len(channels))
    shown = "".join(f"{slot!r}, " for slot in rep.slots[:-1])
    taken = f"axes {start - 2} and {start - 1} for the rows and columns of an image"
    if len(grid) > 2:
        taken = f"axes {start - len(grid)} to {start - 1} for those of a volume"
    raise ValueError(
        f"{name}: {rep!r} takes {taken}, but shape "
        f"{tuple(shape)} looks as if channels came first: declare Rep({shown}{named}, {last!r}) if they do, and "
        f"Rep({shown}{last!r}, {named}) if they stand last"
    )


def plain_images(inputs: Iterable[tuple[Rep, tuple[int, ...]]], rep: Rep, shape: tuple[int, ...]) -> bool:
    """Whether an output has the rows and columns of an input that is declared as it is and has no channels at all.

    The channels of such an output are its own, and stand where undeclared axes do.

    >>> from probsym.groups import C
    >>> plain_images([(Rep(C(4)), (1, 2, 2))], Rep(C(4)), (16, 2, 2, 2))
    True
    """
    start = rep.batch_dims + rep.ndim
    for known, size in inputs:
        if known == rep and len(size) == start and size[1:] == shape[1:start]:
            return True
    return False
