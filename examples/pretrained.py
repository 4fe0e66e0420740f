"""From a Hugging Face folder to a trained graph classifier: a vision transformer looks at adjacency matrices.

python examples/pretrained.py                 a small ViT with random weights
python examples/pretrained.py FOLDER          a pretrained ViT, DeiT, DINOv2, BEiT or BERT (a hub name works too)
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

import probsym as ps
from probsym.integrations.transformers import (
    GraphHead,
    ImagePatches,
    load_pretrained,
    parameter_groups,
    save_pretrained,
    symmetrize_transformer,
)

torch.manual_seed(0)
NODES = 24


def small_vit(folder: str) -> str:
    """A folder as `save_pretrained` of any Hugging Face model writes it."""
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **size)).save_pretrained(folder)
    return folder


def batch(count: int = 32) -> tuple[dict[str, Tensor], Tensor]:
    """Trees of 16 to 24 nodes: each new node joins one chosen at random (0), or by the square of its degree (1)."""
    size = torch.randint(16, NODES + 1, (count, 1))
    label = torch.randint(2, (count,))
    mask = torch.arange(NODES) < size
    tree = torch.arange(count)
    edge = torch.zeros(count, NODES, NODES)
    edge[:, 0, 1] = 1.0
    edge[:, 1, 0] = 1.0
    for new in range(2, NODES):
        weight = torch.where(label[:, None] == 1, edge.sum(2) ** 2, torch.arange(NODES) < new)
        old = torch.multinomial(weight, 1).squeeze(1)
        exists = (new < size).float().squeeze(1)
        edge[tree, old, new] = exists
        edge[tree, new, old] = exists
    return {"x": mask.float().unsqueeze(-1), "edge": edge.unsqueeze(-1), "mask": mask}, label


with tempfile.TemporaryDirectory() as folder:
    if len(sys.argv) > 1:
        source = sys.argv[1]
        backbone_lr = 1e-4
    else:
        source = small_vit(f"{folder}/vit")
        backbone_lr = 1e-3
    phi = symmetrize_transformer(
        source,
        ImagePatches(NODES, patch=4),
        GraphHead(2),
        node_channels=1,
        edge_channels=1,
        layers=2,
        eval_samples=ps.MonteCarlo(10, chunk=1),
    )
    optimizer = torch.optim.AdamW(parameter_groups(phi, lr=1e-3, backbone_lr=backbone_lr))
    for _ in range(200):
        x, y = batch()
        loss = nn.functional.cross_entropy(phi(**x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    phi.eval().requires_grad_(False)
    x, y = batch(200)
    accuracy = (phi(**x).argmax(-1) == y).float().mean()
    report = ps.testing.equivariance_error(phi, batch(4)[0], samples=64, generator=torch.Generator().manual_seed(0))
    print(f"{Path(source).name}: accuracy {accuracy:.2f}, {report}")

    save_pretrained(phi, f"{folder}/graph-model")  # model.safetensors and config.json: push the folder to a hub
    again = load_pretrained(f"{folder}/graph-model").eval()
    before = phi(**x, generator=torch.Generator().manual_seed(1))
    after = again(**x, generator=torch.Generator().manual_seed(1))
    assert torch.equal(before, after)
    assert report.passed
    assert accuracy > 0.85
