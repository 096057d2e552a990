"""FLOPs counted from weights against torch's own count of what a tiny model does, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from throughmask.backbones.wan import MaskedWanTransformer3DModel
from throughmask.errors import InvalidValueError
from throughmask.nn import attention
from throughmask.train import flops
from throughmask.train.flops import peak_flops, step_flops, train_flops

F, Y, X, S = 2, 8, 12, 7
TOKENS = F * Y * X // 4
OBJECTS, LOCAL = 2, 5  # local prompts, and the text tokens of one
CONFIG = {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 100, "text_dim": 20, "num_layers": 3}


@pytest.fixture(autouse=True)
def _countable(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torch counts matrix products: no fused kernel may hide them."""
    monkeypatch.setattr(attention, "choose_self_backend", lambda q: "dense")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.set_num_threads(threads)


def plain(**config: Any) -> Any:
    return WanTransformer3DModel(**CONFIG | {"in_channels": 16} | config)


def masked(blocks: int) -> Any:
    return MaskedWanTransformer3DModel(**CONFIG, in_channels=48, num_masked_blocks=blocks)


def inputs(channels: int, local: bool, grad: bool) -> dict[str, Any]:
    """Of a batch of one, one label over the whole clip. grad: the inputs want gradients too, as `6·P·n` supposes."""
    tensors = {
        "hidden_states": torch.randn(1, channels, F, Y, X),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, S, 20),
    }
    if local:
        tensors["local"] = torch.randn(1, OBJECTS, LOCAL, 20)
    tensors = {name: value.requires_grad_(grad) for name, value in tensors.items()}
    if local:
        tensors["label"] = torch.ones(1, TOKENS, dtype=torch.long)
        tensors["sees"] = torch.ones(1, TOKENS, OBJECTS, dtype=torch.bool)
        tensors["key_mask"] = torch.ones(1, OBJECTS, LOCAL, dtype=torch.bool)
    return tensors


def measure(model: Any, channels: int, *, local: bool = False, grad: bool = True) -> tuple[int, int]:
    """What torch counts: forward, and forward with backward."""
    arguments = inputs(channels, local, grad)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(**arguments)
    with FlopCounterMode(display=False) as both:
        model(**arguments, return_dict=False)[0].sum().backward()
    return forward.get_total_flops(), both.get_total_flops()


MODELS = {
    "plain": (lambda: plain(), 16, False),
    "motion stage": (lambda: masked(0), 48, False),
    "video stage": (lambda: masked(2), 48, True),
    "video stage, no masks": (lambda: masked(2), 48, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_torch_counts_the_same(name: str) -> None:
    make, channels, local = MODELS[name]
    model = make()
    masks = {"local": OBJECTS * LOCAL, "squared_runs": float(TOKENS**2)} if local else {}
    counted = step_flops(model, tokens=TOKENS, text=S, **masks)
    forward, both = measure(model, channels, local=local)
    assert counted.forward == forward
    assert counted.total == both == 3 * forward
    assert train_flops(model, tokens=TOKENS, text=S, **masks) == counted.total


def test_backward_to_the_inputs_is_counted_though_nobody_computes_it() -> None:
    """It is little, and less of a larger model."""
    shares = []
    for heads in (2, 6):
        model = plain(num_attention_heads=heads, ffn_dim=100 * heads, num_layers=4)
        counted = train_flops(model, tokens=TOKENS, text=S)
        shares.append(measure(model, 16, grad=False)[1] / counted)
    assert 0.95 < shares[0] < shares[1] < 1
    assert shares[1] > 0.98


def test_frozen_weights_save_a_third_and_adapters_add_theirs() -> None:
    model = masked(2)
    whole = step_flops(model, tokens=TOKENS, text=S)
    model.requires_grad_(False)
    assert step_flops(model, tokens=TOKENS, text=S) == (whole.forward, 0.0)
    # As fine-tuning with adapters does it: new layers and channels in full, the base's through LoRA.
    model.add_adapter(LoraConfig(r=4, target_modules=r".*attn\d\.to_[qkv]", modules_to_save=["patch_embedding"]))
    for name, weight in model.named_parameters():
        if ".masked_" in name:
            weight.requires_grad_(True)
    counted = step_flops(model, tokens=TOKENS, text=S)
    forward, both = measure(model, 48)
    assert counted.forward == forward > whole.forward
    assert counted.total == both
    assert 2 * counted.forward < counted.total < 3 * counted.forward


def test_runs_and_local_prompts_change_their_own_layers_only() -> None:
    model, width, blocks = masked(2), 48, 2
    common = {"tokens": TOKENS, "text": S, "local": 10}
    fewer, more = (train_flops(model, **common, squared_runs=runs) for runs in (100.0, 300.0))
    assert more - fewer == 12 * 200 * width * blocks
    none = train_flops(model, tokens=TOKENS, text=S, local=0, squared_runs=100.0)
    embedder = sum(p.numel() for p in model.condition_embedder.text_embedder.parameters() if p.ndim == 2)
    keys_and_values = 2 * width**2 * blocks
    assert fewer - none == 6 * 10 * (embedder + keys_and_values) + 12 * TOKENS * 10 * width * blocks


def test_an_unknown_weight_is_refused() -> None:
    model = plain()
    model.blocks[1].attn2.add_k_proj = torch.nn.Linear(4, 4)
    with pytest.raises(InvalidValueError, match=r"blocks\.1\.attn2\.add_k_proj"):
        train_flops(model, tokens=TOKENS, text=S)
    with pytest.raises(InvalidValueError, match="does not have"):
        train_flops(torch.nn.Linear(4, 4), tokens=1, text=1)


def test_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_flops("cpu") is None
    names = iter(["NVIDIA H200", "NVIDIA GeForce RTX 4090 Laptop GPU"])
    monkeypatch.setattr(flops.torch.cuda, "get_device_name", lambda device: next(names))
    assert peak_flops("cuda:0") == 790e12
    assert peak_flops(torch.device("cuda")) is None
