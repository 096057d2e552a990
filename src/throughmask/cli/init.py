"""The command `init`: a stage from a base text-to-video model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import InvalidValueError
from .samples import Force
from .shell import Answer, command, note

Stage = Literal["motion", "video"]
RecipeName = Literal["paper", "no-mask-attention", "cross-only", "self-only", "ti2v", "flow", "bound"]


def add_to(app: typer.Typer) -> None:
    command(app, "init")(init)


def init(
    base: Annotated[
        str,
        typer.Option(metavar="NAME", help="A hub id, a folder of a pipeline, or tiny-wan, tiny-animatediff (random)."),
    ],
    stage: Annotated[Stage, typer.Option(help="motion: for move. video: for render.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write the checkpoint.")],
    blocks: Annotated[
        int | None, typer.Option(metavar="K", help="Masked attention blocks (video): the paper's share by default.")
    ] = None,
    per_frame: Annotated[
        bool, typer.Option("--per-frame", help="A U-Net's masked self-attention joins one frame only.")
    ] = False,
    recipe: Annotated[RecipeName, typer.Option(help="What it sees and which attention is masked.")] = "paper",
    frames: Annotated[
        int | None, typer.Option(metavar="N", help="Length of its clips: its base's by default, 25 for a tiny one.")
    ] = None,
    fps: Annotated[str | None, typer.Option(help="Of its clips: its base's by default, 12 for a tiny one.")] = None,
    palette: Annotated[Literal["ours", "paper", "davis"], typer.Option(help="Colours of the objects.")] = "ours",
    schedule: Annotated[
        Literal["scheduler", "linear-quadratic"], typer.Option(help="Times of sampling: the base's, or Movie Gen's.")
    ] = "scheduler",
    seed: Annotated[int, typer.Option(help="Of a tiny base's random weights.")] = 0,
    force: Force = False,
) -> Answer:
    """Make a stage from a text-to-video model.

    Until it is trained it equals that model. Hub models are downloaded; how much is said before.
    """
    from ..backbones import LAYOUTS
    from ..stages.bases import find_base
    from ..stages.checkpoint import new_checkpoint_folder
    from ..types import exact_fps

    settings: dict[str, Any] = {"palette": palette, "schedule": schedule}
    if frames is not None and frames < 1:
        raise InvalidValueError("a clip has at least one frame", seen=frames)
    if not 0 <= seed < 2**63:
        raise InvalidValueError("a seed is a whole number from 0 up", seen=seed)
    if fps is not None:
        settings["fps"] = str(exact_fps(fps))
    with new_checkpoint_folder(out, force=force) as folder:  # refuses a bad place before anything is downloaded
        found = find_base(base, frames=frames, say=note)
        clip = (25, "12") if found.folder is None else LAYOUTS[found.backbone].clip
        settings = {"frames": frames or clip[0], "fps": clip[1], **settings}

        from ..stages.init import make_stage
        from ..stages.pipeline import hide_loading_bars

        hide_loading_bars()
        pipeline = make_stage(
            found,
            stage,
            num_masked_blocks=blocks,
            recipe_name=recipe,
            per_frame=per_frame,
            seed=seed,
            say=note,
            **settings,
        )
        pipeline.save_pretrained(folder)
    denoiser = pipeline.transformer
    data = {
        "path": str(out),
        "stage": stage,
        "base": base,
        "denoiser": type(denoiser).__name__,
        "parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
        "added_parameters": pipeline.info.backbone.num_added(denoiser),
        "masked_blocks": denoiser.config.num_masked_blocks,
        "blocks": pipeline.info.layout.num_blocks(denoiser.config),
        "recipe": recipe,
        **settings,
    }
    lines = [
        f"{out}: a checkpoint for throughmask {'move' if stage == 'motion' else 'render'}, from {base}",
        f"  denoiser  {data['parameters']:,} parameters, {data['added_parameters']:,} of them added",
        f"  blocks    {data['blocks']}, the first {data['masked_blocks']} with masked attention",
        f"  recipe    {recipe}, palette {palette}",
        f"  clips     {settings['frames']} frames at {settings['fps']} fps",
    ]
    return Answer(data, lines)
