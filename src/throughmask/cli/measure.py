"""The command measure: how well the video of a Sample obeyed the masks that were asked for."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..errors import InvalidValueError, SampleError
from .generate import Device
from .perceive import (
    BoxThreshold,
    DetectorName,
    See,
    Seeing,
    SegmenterName,
    TextThreshold,
    open_perception,
)
from .runs import RUN, read_runs, write_runs
from .samples import Force
from .shell import Answer, command, note

if TYPE_CHECKING:
    from ..evaluate.adherence import Adherence, ObjectAdherence
    from ..types import MaskTrajectory, Sample


def add_to(app: typer.Typer) -> None:
    command(app, "measure")(measure)


def measure(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="A Sample with masks and the video made from them.")],
    against: Annotated[
        Path | None, typer.Option(metavar="SAMPLE", help="Whose masks are asked for; by default DIR's own.")
    ] = None,
    perception: See = None,
    detector: DetectorName = "",
    segmenter: SegmenterName = "",
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="SAMPLE", help="The masks found in the video, by any tracker.")
    ] = None,
    found: Annotated[
        Path | None, typer.Option("--found", metavar="DIR", help="Keep the masks that are found, as a Sample.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="All numbers, those of each frame too.")
    ] = None,
    device: Device = "auto",
    force: Force = False,
) -> Answer:
    """Find the objects of a video again: did they follow their masks?

    For each object: IoU of the masks found with those asked for; its displacement asked and found, in pixels (x to the
    right, y down); the frames in which it is there, of those that ask for it; and the frames in which it is there
    unasked. Also written to DIR's run.json, under "measure".
    """
    started = time.perf_counter()
    from .. import storage
    from ..evaluate.adherence import measure as adherence
    from ..evaluate.adherence import must_match
    from ..files import new_file
    from ..perception.parse import track_video
    from ..types import Sample

    seeing = Seeing(perception, detector, segmenter, box_threshold, text_threshold, device)
    _check_options(perception, masks, found, out)
    sample = storage.load_sample(source)
    requested = _masks_of(source, sample) if against is None else _masks_like(against, sample)
    tracked = None if masks is None else _masks_like(masks, sample)
    clip = tracked or sample.video
    if clip is None:
        fix = "make it with throughmask render, or give the masks found elsewhere with --masks"
        raise SampleError("the Sample has no video to measure", seen=str(source), fix=fix)
    must_match(requested, clip)
    if requested.fps != clip.fps:
        note(f"Frame rates differ ({requested.fps} and {clip.fps}): frames are compared by their number.")
    with ExitStack() as places:  # opened before anything loads, so that a place that cannot be written to costs no time
        run = places.enter_context(new_file(source / RUN, force=True))
        table = None if out is None else places.enter_context(new_file(out, force=force))
        kept = None if found is None else places.enter_context(_new_sample(found, (source, against), force))
        if tracked is None:
            assert sample.video is not None
            tracked = track_video(sample.video, sample.scene, open_perception(seeing, surely=False))
        measured = adherence(requested, tracked, sample.scene)
        facts = {
            **{name: _place(path) for name, path in (("against", against), ("masks", masks))},
            "perception": seeing.facts(),
            "throughmask": __version__,
            "seconds": round(time.perf_counter() - started, 3),
        }
        if kept is not None:
            storage.save_sample(Sample(sample.scene, tracked, sample.video, sample.origin), kept)
            write_runs(kept / RUN, {"track": {**facts, "video": str((source / storage.VIDEO).absolute())}})
        if table is not None:
            table.write_text(json.dumps({**measured.as_json(), **facts}, ensure_ascii=False) + "\n", encoding="utf-8")
        write_runs(run, {**read_runs(source), "measure": {**measured.as_json(each_frame=False), **facts}})
    files = {name: str(path) for name, path in (("found", found), ("out", out)) if path is not None}
    data = {"path": str(source), **measured.as_json(), **facts, "run": str(source / RUN), "files": files}
    whose = "its own masks" if against is None else f"the masks of {against}"
    title = f"{source}: {measured.frames} frames, measured against {whose}"
    return Answer(data, [title, *_table(measured), *(f"  {path}" for path in files.values())])


def _check_options(perception: str | None, masks: Path | None, found: Path | None, out: Path | None) -> None:
    from ..storage import HEADER

    if masks is not None and (perception is not None or found is not None):
        fix = "leave --perception and --found out, or --masks"
        raise InvalidValueError("--masks are found already: nothing is segmented again", seen=str(masks), fix=fix)
    if out is not None and out.suffix.lower() != ".json":
        fix = "name a file such as measured.json; --found keeps masks"
        raise InvalidValueError("--out is a JSON file of numbers", seen=str(out), fix=fix)
    if out is not None and out.name in (HEADER, RUN):
        raise InvalidValueError("a Sample has a file of this name", seen=str(out), fix="choose another name for --out")


def _masks_of(folder: Path, sample: Sample) -> MaskTrajectory:
    if sample.trajectory is None:
        fix = "make them with throughmask move, or name a Sample that has them"
        raise SampleError("the Sample has no masks beyond frame 0", seen=str(folder), fix=fix)
    return sample.trajectory


def _masks_like(folder: Path, sample: Sample) -> MaskTrajectory:
    """The masks of another Sample that knows the same objects, by id."""
    from .. import storage

    other = storage.load_sample(folder)
    names = {thing.id: thing.name for thing in other.scene.objects}
    unknown = [f"{thing.id} {thing.name}" for thing in sample.scene.objects if thing.id not in names]
    if unknown:
        fix = f"it knows {', '.join(f'{id} {name}' for id, name in names.items()) or 'none'}; ids must be the same"
        raise SampleError(f"{folder} does not know every object", seen=", ".join(unknown), fix=fix)
    for thing in sample.scene.objects:
        if names[thing.id] != thing.name:
            note(f"Object {thing.id} is {thing.name!r} here and {names[thing.id]!r} in {folder}: ids decide.")
    return _masks_of(folder, other)


def _new_sample(found: Path, sources: tuple[Path | None, ...], force: bool) -> Any:
    from ..storage import new_sample_folder
    from .convert import check_places

    for source in filter(None, sources):
        check_places(source, found, "sample", force)
    return new_sample_folder(found, force=force)


def _place(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _table(measured: Adherence) -> list[str]:
    """One row for each object, one for the clip; lengths in pixels, x to the right and y down."""
    head = ("object", "IoU", "asked", "found", "off by", "there", "unasked")
    rows = [head, *(_row(thing, measured.width) for thing in measured.objects)]
    whole = (_number(measured.iou), "", "", _error(measured.error, measured.width))
    rows.append(("all", *whole, _percent(measured.presence), _percent(measured.intrusion)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for first, *rest in rows:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join(["", first.ljust(widths[0]), *cells]))
    if measured.motion_accuracy is not None:
        lines.append(f"  go where asked: {measured.motion_accuracy:.0%} of the objects that were to move")
    return lines


def _row(thing: ObjectAdherence, width: int) -> tuple[str, ...]:
    ways = [
        "-" if way is None else f"{way[0] * width:+.1f}, {way[1] * width:+.1f}"
        for way in (thing.asked_way, thing.found_way)
    ]
    there = f"{thing.num_found} of {thing.num_asked}", f"{thing.num_unasked} of {thing.num_absent}"
    return f"{thing.id} {thing.name}", _number(thing.iou), *ways, _error(thing.error, width), *there


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _error(share: float | None, width: int) -> str:
    return "-" if share is None else f"{share * width:.1f} ({share:.1%})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
