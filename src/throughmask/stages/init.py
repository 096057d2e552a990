"""A stage from a base text-to-video model: same weights, new layers and channels that do nothing until trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .. import backbones
from ..backbones import LAYOUTS, Backbone
from ..errors import InvalidValueError
from ..palette import named
from .bases import Base, find_base
from .checkpoint import new_checkpoint_folder
from .image_to_motion import ImageToMotionPipeline
from .motion_to_video import MotionToVideoPipeline
from .pipeline import StagePipeline
from .recipes import COND_LATENTS, recipe

PIPELINES: dict[str, type[StagePipeline]] = {"motion": ImageToMotionPipeline, "video": MotionToVideoPipeline}


def make_stage(
    base: str | Path | Base,
    stage: str,
    *,
    num_masked_blocks: int | None = None,
    recipe_name: str = "paper",
    per_frame: bool = False,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> StagePipeline:
    """The pipeline of a stage, equal to its base until trained.

    base: a hub id, a folder of a diffusers text-to-video pipeline, or a name of backbones.BASES. stage: "motion" or
    "video". num_masked_blocks: K, by default for "video" the paper's (a quarter of a DiT's blocks, all spatial ones of
    a U-Net's encoder) and none for "motion" (its blocks are the base's), but in the Recipe `bound` as for "video".
    per_frame: a U-Net's masked self-attention joins the tokens of one frame, not of all. settings: frames, fps,
    palette, num_ids, schedule. say: hears about downloads.

    Raises InvalidValueError or SampleError for a base, stage, recipe or K that does not exist.
    """
    if stage not in PIPELINES:
        raise InvalidValueError("a stage is motion or video", seen=stage)
    chosen = recipe(recipe_name)  # an unknown one is refused before anything loads
    if stage == "motion" and num_masked_blocks and not chosen.bind:
        problem = "the motion stage has no masked attention blocks (the paper adds them to stage 2 only)"
        raise InvalidValueError(problem, seen=num_masked_blocks, fix="leave --blocks out, or take --recipe bound")
    if not isinstance(base, Base):
        base = find_base(str(base), frames=settings.get("frames"), say=say)
    limit = LAYOUTS[base.backbone].num_blocks(base.denoiser) if base.denoiser else None
    if num_masked_blocks is not None and (num_masked_blocks < 0 or (limit and num_masked_blocks > limit)):
        problem = f"masked blocks are 0 to {limit or 'all'} of the base's blocks"
        raise InvalidValueError(problem, seen=num_masked_blocks)
    backbone, components = load_base(base, seed=seed)
    return stage_on(
        backbone,
        components,
        stage,
        num_masked_blocks=num_masked_blocks,
        recipe_name=recipe_name,
        per_frame=per_frame,
        seed=seed,
        **settings,
    )


def stage_on(
    backbone: Backbone,
    components: dict[str, Any],
    stage: str,
    *,
    num_masked_blocks: int | None = None,
    recipe_name: str = "paper",
    per_frame: bool = False,
    seed: int = 0,
    **settings: Any,
) -> StagePipeline:
    """As `make_stage`, on the components of a base that is in memory. They are the stage's from now on: another
    one that is to be trained needs a base of its own."""
    settings.setdefault("num_ids", named(settings.get("palette", "ours")).num_objects)
    denoiser = components["transformer"]
    blocks = 0 if stage == "motion" and not recipe(recipe_name).bind else num_masked_blocks
    if blocks is None:
        blocks = backbone.default_masked(denoiser.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the insides of new layers are random
        changed = backbone.build(denoiser, cond_latents=COND_LATENTS, num_masked_blocks=blocks, per_frame=per_frame)
    pipeline = PIPELINES[stage](**{**components, "transformer": changed}, recipe=recipe_name, **settings)
    assert pipeline.info.stage == stage  # reading the settings checks them
    return pipeline


def bind_stage(pipeline: StagePipeline, num_masked_blocks: int | None = None, *, seed: int = 0) -> StagePipeline:
    """A trained stage 1 of the Recipe `paper` as one of `bound`: it makes the same, until its new layers are trained.

    num_masked_blocks: K, by default as for stage 2. Its VAE, text encoder and settings are shared. Raises
    InvalidValueError for any other stage.
    """
    if pipeline.stage != "motion" or pipeline.config.recipe != "paper":
        seen = f"{pipeline.stage}, {pipeline.config.recipe}"
        raise InvalidValueError("only a stage 1 of the recipe paper can be bound", seen=seen, fix="start from a base")
    old = pipeline.transformer
    blocks = pipeline.info.backbone.default_masked(old.config) if num_masked_blocks is None else num_masked_blocks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = type(old).from_config({**old.config, "num_masked_blocks": blocks})
    missing, unexpected = new.load_state_dict(old.state_dict(), strict=False)
    assert not unexpected, unexpected
    assert all(".masked_" in key for key in missing), missing
    parts = {**pipeline.components, "transformer": new}
    settings = {key: value for key, value in pipeline.config.items() if key not in parts and key[0] != "_"}
    return type(pipeline)(**parts, **{**settings, "recipe": "bound"})


def save_stage(pipeline: StagePipeline, out: str | Path, *, force: bool = False) -> None:
    """Write a checkpoint folder, whole or not at all. With `force` it replaces checkpoints only."""
    with new_checkpoint_folder(out, force=force) as folder:
        pipeline.save_pretrained(folder)


def load_base(base: str | Path | Base, *, seed: int = 0) -> tuple[Backbone, dict[str, Any]]:
    """The backbone of a base model and its components by name."""
    base = base if isinstance(base, Base) else find_base(str(base))
    found = backbones.backbone(base.backbone)
    if base.folder is None:
        return found, found.tiny(seed)
    folders = [base.folder] if base.beside is None else [base.folder, base.beside]
    return found, found.load(folders, _stored_dtypes(base.folder))


def _stored_dtypes(folder: Path) -> dict[str, torch.dtype]:
    """What most weights of each component are stored in; diffusers by itself makes everything float32."""
    known = {"BF16": torch.bfloat16, "F16": torch.float16}
    found: dict[str, torch.dtype] = {}
    for path in sorted(folder.glob("*/*.safetensors")):
        with safe_open(path, "pt") as weights:
            stored = Counter(weights.get_slice(key).get_dtype() for key in weights.keys())  # noqa: SIM118 (no dict)
        found.setdefault(path.parent.name, known.get(max(stored, key=stored.__getitem__, default=""), torch.float32))
    return found
