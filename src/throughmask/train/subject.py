"""What is trained: a stage's pipeline or the base's, made new, from a base or from a checkpoint, and saved again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import backbones
from ..backbones import LAYOUTS, Backbone
from ..errors import InvalidValueError
from ..files import new_folder
from ..nn.objective import Objective
from ..stages.bases import find_base
from ..stages.bundle import find_part
from ..stages.conditioning import Encoders
from ..stages.init import PIPELINES, bind_stage, load_base, stage_on
from ..stages.pipeline import StagePipeline, hide_loading_bars

if TYPE_CHECKING:
    from .config import StageConfig

LORA_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
ADDED = (".masked_", "patch_embedding", "conv_in")  # trained in full beside LoRA: they start as zero


@dataclass(frozen=True)
class Subject:
    """pipeline: the stage's, or the base's own diffusers pipeline. lora: rank of its adapters, 0 without."""

    backbone: Backbone
    pipeline: Any
    lora: int

    @property
    def denoiser(self) -> Any:
        return self.pipeline.transformer

    @property
    def encoders(self) -> Encoders:
        return Encoders(self.pipeline.tokenizer, self.pipeline.text_encoder, self.pipeline.vae)

    @property
    def objective(self) -> Objective:
        return self.backbone.objective(self.pipeline.scheduler)

    def save(self, weights: Mapping[str, Tensor], folder: Path, record: Mapping[str, Any], dtype: torch.dtype) -> None:
        """The pipeline as a diffusers folder, whole or not at all, with these weights; LoRA becomes part of them."""
        denoiser = type(self.denoiser).from_config(self.denoiser.config)
        if self.lora:
            _add_lora(denoiser, self.lora)
        learnt = dict(denoiser.named_parameters())
        buffers = {key: value for key, value in denoiser.state_dict().items() if key not in learnt}
        denoiser.load_state_dict({**buffers, **weights})
        if self.lora:
            denoiser.fuse_lora()
            denoiser.unload_lora()
        for weight in denoiser.parameters():  # not .to(), which warns of modules that Wan computes in float32
            weight.data = weight.data.to(dtype)
        frozen = {name: _as_found(part) for name, part in self.pipeline.components.items() if name != "transformer"}
        parts = {**frozen, "transformer": denoiser}
        settings = {key: value for key, value in self.pipeline.config.items() if key not in parts and key[0] != "_"}
        with new_folder(folder, force=True) as temporary:
            type(self.pipeline)(**parts, **settings).save_pretrained(temporary)
            (temporary / "train.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def start(config: StageConfig, say: Callable[[str], None]) -> Subject:
    """What `config` trains, on the CPU in float32: from `init`, else from `base`, else new.

    Raises InvalidValueError or SampleError for a base or checkpoint that does not exist or is another stage's.
    """
    hide_loading_bars()
    pipeline = _resumed(config, config.init) if config.init else _fresh(config, say)
    pipeline.set_progress_bar_config(disable=True)
    denoiser = pipeline.transformer.float()
    for part in (pipeline.vae, pipeline.text_encoder):
        if part.dtype == torch.float16:
            part.float()
        part.requires_grad_(False).eval()
    if config.lora:
        denoiser.requires_grad_(False)
        _add_lora(denoiser, config.lora)
        for name, value in denoiser.named_parameters():
            if any(mark in name for mark in ADDED) and "lora_" not in name:
                value.requires_grad_(True)
    return Subject(_backbone_of(pipeline), pipeline, config.lora)


def _as_found(part: Any) -> Any:
    """A frozen network whose weights are half-precision numbers is saved as such: loading made them float32."""
    if not isinstance(part, nn.Module):
        return part
    halves = (w.dtype == torch.float32 and torch.equal(w, w.half().float()) for w in part.parameters())
    return copy.deepcopy(part).half() if all(halves) else part


def _resumed(config: StageConfig, checkpoint: str) -> Any:
    if config.stage != "base":
        pipeline = PIPELINES[config.stage].from_pretrained(checkpoint)
        if config.recipe == "bound" and pipeline.config.recipe == "paper" and config.stage == "motion":
            return bind_stage(pipeline, None if config.blocks < 0 else config.blocks, seed=config.seed)
        if pipeline.config.recipe != config.recipe:
            fix = "give its own recipe, or start from a base"
            raise InvalidValueError(f"{checkpoint} has another recipe", seen=pipeline.config.recipe, fix=fix)
        return pipeline
    return _base_pipeline(*load_base(checkpoint))


def _fresh(config: StageConfig, say: Callable[[str], None]) -> Any:
    """On a base by name, or on a new one."""
    if config.base:
        backbone, parts = load_base(find_base(config.base, frames=config.frames, say=say), seed=config.seed)
    else:
        backbone, parts = _new_base(config)
    if config.stage == "base":
        return _base_pipeline(backbone, parts)
    return stage_on(
        backbone,
        parts,
        config.stage,
        recipe_name=config.recipe,
        num_masked_blocks=None if config.blocks < 0 else config.blocks,
        seed=config.seed,
        frames=config.frames,
        fps=config.fps,
        palette=config.palette,
    )


def _new_base(config: StageConfig) -> tuple[Backbone, dict[str, Any]]:
    backbone = backbones.backbone(config.backbone)
    shape = {"width": config.width, "layers": config.layers, "heads": config.heads, "ffn": config.ffn}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return backbone, backbone.untrained(find_part(config.vae, "vae"), Path(config.words), **shape)


def _base_pipeline(backbone: Backbone, components: dict[str, Any]) -> Any:
    return backbone.base_pipeline(components)


def _backbone_of(pipeline: Any) -> Backbone:
    if isinstance(pipeline, StagePipeline):
        return pipeline.info.backbone
    kind = type(pipeline).__name__
    return next(backbones.backbone(name) for name, layout in LAYOUTS.items() if kind in layout.base_pipelines)


def _add_lora(denoiser: Any, rank: int) -> None:
    from peft import LoraConfig

    denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_lora_targets(denoiser)))


def _lora_targets(denoiser: Any) -> list[str]:
    """The base's own attention projections; the added layers are trained in full."""
    return [
        name
        for name, _ in denoiser.named_modules()
        if name.endswith(tuple(f".{layer}" for layer in LORA_LAYERS)) and not any(mark in name for mark in ADDED)
    ]
