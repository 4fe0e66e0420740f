"""Folders in Hugging Face layout: bit-equal after loading, nothing overwritten, what does not fit is named."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from backbones import BACKBONES, CHANNELS, backbone, graphs
from safetensors.torch import load_file, save_file
from torch import nn

from cases import seeded
from probsym.integrations.transformers import (
    GraphHead,
    GraphTransformer,
    ImagePatches,
    NodeHead,
    NodeTokens,
    PairHead,
    load_pretrained,
    save_pretrained,
    symmetrized,
)


@pytest.mark.parametrize("name", sorted(BACKBONES))
@pytest.mark.parametrize(
    ("tokens", "head", "options"),
    [
        (ImagePatches(12, 4), PairHead(2), {"layers": 1, "frozen": True}),
        (NodeTokens(12), NodeHead(2), {"checkpointing": True, "dtype": torch.bfloat16}),
    ],
)
def test_graph_transformer_comes_back_whole(name, tokens, head, options, tmp_path):
    f = GraphTransformer(backbone(name), tokens, head, **CHANNELS, **options).eval()
    f.save_pretrained(tmp_path)
    again = GraphTransformer.from_pretrained(tmp_path).eval()
    call = graphs((9, 4), 9)
    assert torch.equal(f(**call), again(**call))
    assert (again.tokens, again.head, again.options, again.dtype) == (tokens, head, f.options, f.dtype)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in f.parameters()]
    scratch = GraphTransformer.from_pretrained(tmp_path, pretrained=False).eval()
    assert not torch.equal(f(**call), scratch(**call))


@pytest.mark.parametrize("lora", [2, {"r": 3, "target_modules": ["query", "q_proj", "q_lin"]}])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_low_rank_updates_come_back(name, lora, tmp_path):
    """Learned ones; without them the output is another one."""
    pytest.importorskip("peft")
    f, call = (
        GraphTransformer(backbone(name), NodeTokens(12), NodeHead(2), **CHANNELS, lora=lora).eval(),
        graphs((9, 4), 9),
    )
    before = f(**call)
    for n, parameter in f.named_parameters():
        if "lora_B" in n:
            nn.init.normal_(parameter)
    f.save_pretrained(tmp_path)
    again = GraphTransformer.from_pretrained(tmp_path).eval()
    assert torch.equal(f(**call), again(**call))
    assert not torch.equal(f(**call), before)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in f.parameters()]


def test_a_description_is_not_used_up():
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    description = f.description()
    for _ in range(2):
        assert GraphTransformer.from_description(description).description() == f.description()


@pytest.mark.parametrize("distribution", ["learned", "haar", "canonical"])
def test_symmetrized_comes_back_whole(distribution, tmp_path):
    f = GraphTransformer(backbone("vit"), ImagePatches(12, 4), GraphHead(2), **CHANNELS)
    phi = symmetrized(f, distribution, eval_samples=3).eval()
    save_pretrained(phi, tmp_path)
    again = load_pretrained(tmp_path).eval()
    call = graphs((9, 4), 9)
    assert torch.equal(phi(**call, generator=seeded(1)), again(**call, generator=seeded(1)))
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "probsym.json"}


def test_nothing_is_overwritten_unasked(tmp_path):
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    nn.init.zeros_(f.decoder.graph.weight)
    for save in (f.save_pretrained, lambda folder: save_pretrained(symmetrized(f), folder)):
        with pytest.raises(FileExistsError, match="overwrite=True"):
            save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    f.save_pretrained(tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != before


# ---------------------------------------------------------------- backbones in folders


@pytest.fixture(params=["vit", "bert"])
def folder(request, tmp_path):
    """A backbone as its own library saves it."""
    backbone(request.param).save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


def rewritten(folder: Path, change) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def opened(folder, **options):
    return GraphTransformer.from_pretrained(folder, NodeTokens(6), GraphHead(2), **CHANNELS, **options)


def test_pretrained_and_scratch(folder):
    """The weights are those of the file, or fresh ones; the architecture is the same."""
    name = "vit" if "vit" in (folder / "config.json").read_text() else "bert"
    own = [*backbone(name).modules()]
    norm = next(m for m in own if isinstance(m, nn.LayerNorm)).weight
    pretrained, scratch = opened(folder), opened(folder, pretrained=False)
    found = [any(torch.equal(norm, p) for p in f.parameters()) for f in (pretrained, scratch)]
    assert found == [True, False]
    assert [p.shape for p in pretrained.parameters()] == [p.shape for p in scratch.parameters()]


def test_implementations_of_attention_agree(folder):
    call = graphs((6, 4), 6)
    one, other = (opened(folder, attention=name).eval() for name in ("eager", "sdpa"))
    names = {m.config._attn_implementation for m in one.modules() if hasattr(m, "config")}
    assert names == {"eager"}
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(**call), other(**call))


def test_half_precision_files_are_read_as_float32(folder):
    rewritten(folder, lambda weights: weights.update({k: v.half() for k, v in weights.items()}))
    assert {p.dtype for p in opened(folder).parameters()} == {torch.float32}


def test_missing_weights_are_listed(folder):
    """By the names that the model gives them."""
    norms = [n for n in load_file(folder / "model.safetensors") if "layer.1." in n and "norm" in n.lower()]
    rewritten(folder, lambda weights: [weights.pop(name) for name in norms])
    with pytest.raises(
        ValueError, match=r"its files lack 4 weights of the backbone: .*1\..*[nN]orm.*\.weight"
    ) as error:
        opened(folder)
    assert str(error.value).count(", ") == 3
    opened(folder, pretrained=False)


def test_weights_that_are_not_used_may_be_missing(folder):
    rewritten(folder, lambda weights: [weights.pop(name) for name in list(weights) if name.startswith("pooler")])
    opened(folder)


def test_wrong_folders(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"no config\.json in the folder"):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder with"):
        opened(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights \(as safetensors\) in"):
        opened(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(ValueError, match="no model that transformers can load"):
        opened(folder)
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=r"the config\.json of .* is no JSON: Expecting value"):
        opened(folder)


@pytest.mark.parametrize("load", [opened, load_pretrained, GraphTransformer.from_pretrained])
def test_sources_that_are_no_names(load):
    """None is not looked up by its name."""
    with pytest.raises(TypeError, match=r"source: expected .*, got None"):
        load(None)


def test_pretrained_is_yes_or_no(folder):
    with pytest.raises(TypeError, match=r"pretrained: expected .*bool.*, got 'no'"):
        opened(folder, pretrained="no")


def test_of_two_towers_that_of_images(tmp_path):
    """A whole CLIP by name is its vision model; its missing weights are told by the names that they have there."""
    import transformers as hf

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    images, words = {**size, "image_size": 8, "patch_size": 4}, {**size, "vocab_size": 9}
    clip = hf.CLIPModel(hf.CLIPConfig(text_config=words, vision_config=images, projection_dim=4)).eval()
    clip.save_pretrained(tmp_path)
    f, vision = opened(tmp_path), clip.vision_model
    kept = {name: p for name, p in vision.named_parameters() if name.startswith("encoder")}
    assert kept
    for name, parameter in kept.items():
        assert torch.equal(f.encoder.get_parameter(name.replace("encoder.layers", "blocks")), parameter)
    f.save_pretrained(tmp_path / "whole")
    call = graphs((6, 4), 6)
    assert torch.equal(GraphTransformer.from_pretrained(tmp_path / "whole").eval()(**call), f.eval()(**call))
    rewritten(tmp_path, lambda weights: weights.pop("text_model.final_layer_norm.weight"))
    opened(tmp_path)
    rewritten(tmp_path, lambda weights: weights.pop("vision_model.post_layernorm.weight"))
    with pytest.raises(ValueError, match=r"lack 1 weights of the backbone: vision_model\.post_layernorm\.weight"):
        opened(tmp_path)


class Shout:
    """An object whose unpickling makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_pickles_are_not_opened(folder, tmp_path):
    """Neither a malicious one nor the plain weights in pytorch_model.bin."""
    marker, weights = tmp_path / "executed", load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for content in ({"a": Shout(marker)}, weights):
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(FileNotFoundError, match="as safetensors"):
            opened(folder)
    assert not marker.exists()
    torch.save({"a": Shout(marker)}, tmp_path / "control.bin")
    torch.load(tmp_path / "control.bin", weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("pretrained", [True, False])
def test_code_of_a_source_is_not_run(folder, tmp_path, known, pretrained):
    """An auto_map is passed over where transformers knows the model, and refused where it does not; nobody is asked."""
    marker = tmp_path / "executed"
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config if known else {**config, "model_type": "own"}))
    if known:
        opened(folder, pretrained=pretrained)
    else:
        with pytest.raises(ValueError, match="no model that transformers can load"):
            opened(folder, pretrained=pretrained)
    assert not marker.exists()


def test_cut_off_files(folder, tmp_path):
    """Of a backbone, of a GraphTransformer, of a Symmetrizer."""
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path / "whole")
    save_pretrained(symmetrized(f), tmp_path / "symmetrized")
    for source, load, message in (
        (folder, opened, "no model that transformers can load"),
        (tmp_path / "whole", GraphTransformer.from_pretrained, r"model\.safetensors: damaged"),
        (tmp_path / "symmetrized", load_pretrained, r"model\.safetensors: damaged"),
    ):
        weights = source / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(ValueError, match=message):
            load(source)


def test_models_of_another_kind(folder, tmp_path):
    """What lies there, and who opens it."""
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path / "whole")
    save_pretrained(symmetrized(f), tmp_path / "symmetrized")
    with pytest.raises(ValueError, match=r"expected a GraphTransformer .* a Symmetrizer \(.* for load_pretrained\)"):
        GraphTransformer.from_pretrained(tmp_path / "symmetrized")
    with pytest.raises(ValueError, match=r"expected a Symmetrizer .* a GraphTransformer \("):
        load_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match=r"expected a Symmetrizer .* a (ViT|Bert)Model"):
        load_pretrained(folder)
    f.save_pretrained(tmp_path / "symmetrized", overwrite=True)
    with pytest.raises(ValueError, match=r"expected a Symmetrizer .* a GraphTransformer \("):
        load_pretrained(tmp_path / "symmetrized")
    with pytest.raises(FileNotFoundError, match="expected a folder with"):
        load_pretrained(tmp_path / "nowhere" / "at" / "all")


def test_arguments_too_many_or_too_few(folder, tmp_path):
    with pytest.raises(ValueError, match="is a backbone; give head, edge_channels too"):
        GraphTransformer.from_pretrained(folder, tokens=NodeTokens(3), node_channels=1)
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="is a whole GraphTransformer; leave out tokens, layers"):
        GraphTransformer.from_pretrained(tmp_path / "whole", tokens=NodeTokens(3), layers=1)


def test_files_that_do_not_fit_are_named(tmp_path):
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path)
    rewritten(tmp_path, lambda weights: weights.pop("decoder.graph.weight"))
    with pytest.raises(ValueError, match=r"(?s)does not fit.*decoder\.graph\.weight"):
        GraphTransformer.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        GraphTransformer.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="Symmetrizer of a GraphTransformer"):
        save_pretrained(f, tmp_path)


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("value", ["owner/kernel", "owner/kernel@v1:function", {"": "owner/kernel"}, 3])
def test_implementations_that_transformers_would_fetch_are_refused(key, value, folder, tmp_path, monkeypatch):
    """In the config of a backbone, within a part of it, and in the recipe of a saved model; nothing is fetched."""
    kernels = pytest.importorskip("transformers.integrations.hub_kernels")
    monkeypatch.setattr(kernels, "load_and_register_attn_kernel", lambda *args, **kwargs: pytest.fail("fetched"))
    config = json.loads((folder / "config.json").read_text())
    for changed in ({**config, key: value}, {**config, "vision_config": {"inner": [{key: value}]}}):
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=f"{key}: expected one of 'eager'"):
            opened(folder)
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path / "whole")
    file = tmp_path / "whole" / "config.json"
    saved = json.loads(file.read_text())
    saved["backbone"]["config"][key] = value
    file.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=f"{key}: expected one of 'eager'"):
        GraphTransformer.from_pretrained(tmp_path / "whole")


def test_an_implementation_that_is_asked_for_is_one_of_transformers(folder):
    with pytest.raises(ValueError, match="attention: expected one of 'eager'"):
        opened(folder, attention="owner/kernel")


def test_formats_of_later_versions_are_refused(tmp_path):
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path / "whole")
    file = tmp_path / "whole" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(ValueError, match=r"config\.json: expected format 1, got 99"):
        GraphTransformer.from_pretrained(tmp_path / "whole")


def test_weights_that_are_no_numbers_are_refused(folder, tmp_path):
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path / "whole")
    for source in (folder, tmp_path / "whole"):
        weights = load_file(source / "model.safetensors")
        name = sorted(weights)[0]
        weights[name].fill_(torch.nan)
        save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="expected numbers, got NaN"):
        opened(folder)
    with pytest.raises(ValueError, match=f"{name}: expected numbers, got NaN"):
        GraphTransformer.from_pretrained(tmp_path / "whole")


def test_changed_configs_are_one_clear_error(folder, tmp_path):
    """Seeded changes of values and of bytes: a model, or an error that names the source, the file or the backbone."""
    f = GraphTransformer(backbone("vit"), NodeTokens(5), GraphHead(2), **CHANNELS)
    f.save_pretrained(tmp_path / "whole")
    numbers = random.Random(0)
    values = [None, "x", -1, 0, 1.5, [], {}, [[]], True, "owner/kernel"]
    for source, load in ((folder, opened), (tmp_path / "whole", GraphTransformer.from_pretrained)):
        file = source / "config.json"
        whole = file.read_text()
        changes = ["[" * 100_000, "null", "[]", "{}", whole[:-3]]
        for _ in range(25):
            config = json.loads(whole)
            held = config
            while isinstance(held, dict) and held:
                key = numbers.choice(sorted(held))
                if not isinstance(held[key], dict) or numbers.random() < 0.2:
                    held[key] = numbers.choice(values)
                    break
                held = held[key]
            changes.append(json.dumps(config))
        refused = loaded = 0
        for change in changes:
            file.write_text(change)
            try:
                load(source)
            except (ValueError, TypeError, FileNotFoundError) as error:
                refused += any(word in str(error) for word in ("source: ", "config.json", "backbone: "))
            else:
                loaded += 1
        assert refused > 5
        assert refused + loaded == len(changes)
