"""The command `edit`: one or more edits of the masks, in order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InvalidValueError
from .samples import Force, From
from .shell import Answer, command, note

if TYPE_CHECKING:
    from ..types import MaskTrajectory, Sample, Scene
    from .steps import Step


def add_to(app: typer.Typer) -> None:
    command(app, "edit")(edit)


def edit(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A Sample, or masks in any format.")],
    out: Annotated[Path, typer.Option("--out", metavar="DST", help="Where to write, in the format of SRC.")],
    do: Annotated[list[str], typer.Option("--do", metavar="EDIT", help="May be given several times; done in order.")],
    format: From = None,
    force: Force = False,
) -> Answer:
    """Edit the masks of one object; all others stay as they are.

    The edits (F is a frame, counted from 0; lengths in pixels, x to the right and y down; degrees clockwise):

    \b
      move ID [dx=PIXELS] [dy=PIXELS] SPAN     scale ID factor=S SPAN
      rotate ID degrees=D SPAN                 remove ID
      freeze ID at=F                           retime ID speed=S | frames=F,F,...
      follow ID F:DX,DY[,SCALE[,DEGREES]] ... [shape=F]
      interpolate ID F:X0,Y0,X1,Y1 ...         reorder OLD=NEW ...
      resample [frames=N] [fps=R]

    SPAN is [start=F] [end=F] [ramp]; with ramp the change grows from nothing at start to all of it at end. An edited
    object passes behind the others; add "front" to draw it over them. The picture of a Sample shows frame 0, so an edit
    must leave that frame as it is: use ramp, or start=1.
    """
    from .. import interop, storage
    from .convert import check_places
    from .sources import in_writing, open_masks
    from .steps import parse_step

    steps = [parse_step(text) for text in do]
    opened = open_masks(source, format)
    check_places(source, out, opened.kind, force)
    before = opened.trajectory
    assert before is not None
    if opened.sample is not None:
        sample = _edited(opened.sample, steps)
        storage.save_sample(sample, out, force=force)
        after = sample.trajectory
    else:
        assert opened.imported is not None
        after = _applied(before, steps)
        imported = replace(opened.imported, trajectory=after, video=None)
        if any(step.new_ids for step in steps):
            imported = replace(imported, names={_new_id(k, steps): name for k, name in imported.names.items()})
        interop.write(in_writing(replace(opened, imported=imported), opened.kind), out, opened.kind, force=force)
    assert after is not None
    changed = _changed(before, after)
    data = {"path": str(out), "format": opened.kind, "edits": do, "frames": len(after), "fps": str(after.fps)}
    return Answer({**data, "changed_frames": changed}, [f"{out}: {len(do)} edits, {_counted(changed, len(after))}"])


def _edited(sample: Sample, steps: list[Step]) -> Sample:
    """The Sample with edited masks. Raises InvalidValueError if frame 0 would no longer be what the picture shows."""
    from ..edit import reorder

    scene, trajectory = sample.scene, sample.trajectory
    assert trajectory is not None
    only_renumbered, culprit = trajectory, None
    for step in steps:
        trajectory = step.apply(trajectory)
        if step.new_ids is not None:
            scene = _renumbered(scene, step.new_ids)
            only_renumbered = reorder(only_renumbered, step.new_ids)
            note("Object ids follow the order in which the prompt names the objects; the prompt was not changed.")
        if culprit is None and (trajectory.labels[0] != scene.labels).any():
            culprit = step
    if (trajectory.labels[0] != scene.labels).any():
        assert culprit is not None
        fix = "add ramp, so that the change grows from nothing, or start=1"
        if culprit.name not in ("move", "scale", "rotate"):
            fix = "begin at a later frame, or convert the masks alone (--to npz) and edit these"
        raise InvalidValueError("the edit changes frame 0, which the picture shows", seen=culprit.text, fix=fix)
    video = sample.video
    if video is not None and trajectory != only_renumbered:
        video = None
        note("The video was left out: it no longer fits the edited masks. The picture stays.")
    return replace(sample, scene=scene, trajectory=trajectory, video=video)


def _renumbered(scene: Scene, new_ids: dict[int, int]) -> Scene:
    import numpy as np

    table = np.arange(256, dtype=np.uint8)
    for old, new in new_ids.items():
        table[old] = new
    objects = tuple(replace(thing, id=new_ids.get(thing.id, thing.id)) for thing in scene.objects)
    return replace(scene, labels=table[scene.labels], objects=objects)


def _applied(trajectory: MaskTrajectory, steps: list[Step]) -> MaskTrajectory:
    for step in steps:
        trajectory = step.apply(trajectory)
    return trajectory


def _new_id(id: int, steps: list[Step]) -> int:
    for step in steps:
        id = (step.new_ids or {}).get(id, id)
    return id


def _changed(before: MaskTrajectory, after: MaskTrajectory) -> int | None:
    """In how many frames the masks differ; None where the number of frames changed."""
    if before.labels.shape != after.labels.shape:
        return None
    return int((before.labels != after.labels).any((1, 2)).sum())


def _counted(changed: int | None, frames: int) -> str:
    return f"{frames} frames now" if changed is None else f"{changed} of {frames} frames changed"
