"""The paper's U-Net as a preset: its numbers, and its model without its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import UNetMotionModel

from throughmask.backbones import BASES, LAYOUTS, backbone
from throughmask.backbones.animatediff import MaskedSpatialBlock
from throughmask.errors import InvalidValueError
from throughmask.nn.guidance import Condition
from throughmask.nn.objective import VPrediction
from throughmask.train.flops import clip_flops
from throughmask.train.presets import preset
from throughmask.train.stage import learning_rate

CLIP = 123_060_480  # parameters of Stable Diffusion 1.5's text encoder
SAMPLE_VIDEO = (4, 16, 64, 64)  # latents of 16 frames of 512×512


def test_the_papers_numbers() -> None:
    config = preset("paper-unet")
    assert (config.batch, config.lr, config.warmup, config.steps, config.decay) == (32, 2e-5, 2000, 50_000, 0.0)
    assert (config.size, config.frames, config.blocks) == ((512, 512), 16, 6)
    assert learning_rate(config, 1999, 0.04) == learning_rate(config, 49_999, 1.0) == 2e-5
    assert BASES[config.base] == config.backbone == "animatediff"
    unet = backbone(config.backbone)
    objective = unet.objective(unet.tiny()["scheduler"])
    assert isinstance(objective, VPrediction)
    assert objective.zero_terminal_snr


@pytest.mark.slow
def test_toyboxs_u_net_is_as_large_as_its_dit(tmp_path: Path) -> None:
    parts = backbone("wan").tiny()
    parts["vae"].save_pretrained(tmp_path / "vae")
    for name in ("text_encoder", "tokenizer"):
        parts[name].save_pretrained(tmp_path / "words" / name)
    sizes = {}
    for name in ("toybox", "toybox-unet"):
        base, video = preset(f"{name}-base"), preset(f"{name}-video")
        made = backbone(base.backbone)
        shape = {"width": base.width, "layers": base.layers, "heads": base.heads, "ffn": base.ffn}
        denoiser = made.untrained(tmp_path / "vae", tmp_path / "words", **shape)["transformer"]
        stage = made.build(denoiser, cond_latents=2, num_masked_blocks=video.blocks)
        sizes[name] = denoiser.num_parameters(), stage.num_parameters()
        assert (video.base, video.steps, video.batch) == (f"out/{name}-base/model", 20_000, 128)
    assert all(0.8 < unet / dit < 1.25 for unet, dit in zip(sizes["toybox-unet"], sizes["toybox"], strict=True))
    with pytest.raises(InvalidValueError, match="divides by 4 heads"):
        backbone("animatediff").untrained(tmp_path / "vae", tmp_path / "words", width=34, layers=1, heads=4, ffn=0)
    with pytest.raises(
        InvalidValueError, match=r"four times as wide as their level \(seen: ffn 768\); leave --ffn out"
    ):
        backbone("animatediff").untrained(tmp_path / "vae", tmp_path / "words", width=48, layers=1, heads=4, ffn=768)
    wide = backbone("wan").untrained(tmp_path / "vae", tmp_path / "words", width=48, layers=1, heads=4, ffn=0)
    assert wide["transformer"].config.ffn_dim == 192


@pytest.mark.slow
def test_the_papers_model_without_its_memory() -> None:
    config = preset("paper-unet")
    unet = backbone(config.backbone)
    with torch.device("meta"):
        base = UNetMotionModel(cross_attention_dim=768, use_motion_mid_block=False)
    assert LAYOUTS[unet.name].default_masked(base.config) == config.blocks
    stage = unet.build(base, cond_latents=2, num_masked_blocks=config.blocks)
    assert sum(isinstance(module, MaskedSpatialBlock) for module in stage.modules()) == 6
    assert 1.40e9 < stage.num_parameters() + CLIP < 1.45e9
    # The arithmetic that masked attention adds, as a share of the plain model's.
    sample = torch.empty(1, *SAMPLE_VIDEO, device="meta")
    still = torch.empty(1, 8, *SAMPLE_VIDEO[1:], device="meta")
    text, local = (torch.empty(1, *shape, 768, device="meta") for shape in ((77,), (2, 20)))
    plain = clip_flops(unet, base, sample, Condition(still[:, :0], text))
    tokens = 16 * 64 * 64
    half = {"joint": 2 * (tokens / 2) ** 2, "frame": 16 * 2 * (tokens / 32) ** 2}  # an object of half of each frame
    sees = torch.empty(1, tokens, 2, dtype=torch.bool, device="meta")
    told = Condition(still, text, sees=sees, local=local)
    added = {k: clip_flops(unet, stage, sample, told, squared) / plain - 1 for k, squared in half.items()}
    print(f"one plain forward {plain / 3e12:.1f} TFLOPs; added {added}")
    assert 0.3 < added["joint"] < 0.5
    assert added["frame"] < 0.1
