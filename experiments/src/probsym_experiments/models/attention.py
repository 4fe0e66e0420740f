"""What the transformers have in common: attention split into heads, and the networks on each token."""

from torch import Tensor, nn


def check_heads(width: int, heads: int) -> None:
    """Raises ValueError unless the channels can be shared out among the heads."""
    if width % heads:
        raise ValueError(f"width: expected a multiple of heads = {heads}, got {width}")


def check_sizes(name: str, num_nodes: int, nodes: Tensor, pairs: Tensor) -> None:
    """Raises ValueError unless nodes (R, N, F) and pairs (R, N, N, P) are those of N = num_nodes nodes."""
    if nodes.shape[1] != num_nodes or pairs.shape[1:3] != (num_nodes, num_nodes):
        raise ValueError(
            f"{name}: expected nodes (R, {num_nodes}, F) and pairs (R, {num_nodes}, {num_nodes}, P), "
            f"got {tuple(nodes.shape)} and {tuple(pairs.shape)}"
        )


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (R, heads, T, width / heads) from what one linear map gives (R, T, 3 width)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def merge_heads(read: Tensor) -> Tensor:
    """What the heads have read (R, heads, T, width / heads), side by side (R, T, width)."""
    return read.transpose(1, 2).flatten(2)


def token_mlp(width: int, ratio: int = 1) -> nn.Sequential:
    """The network on each token in a block: width to width, by way of ratio * width."""
    return nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))


def token_head(width: int, out_features: int) -> nn.Sequential:
    """W' ReLU(W ReLU(LayerNorm(t))): from the token of a node to its output."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out_features)
    )
