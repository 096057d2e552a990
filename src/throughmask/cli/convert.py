"""The command `convert`: between Samples and the formats of neighbours."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InvalidValueError, OutputError
from .samples import Force, From
from .shell import Answer, command, note

if TYPE_CHECKING:
    from ..types import Sample
    from .sources import Source

Target = Literal["sample", "davis", "rle", "colours", "npz", "time-to-move"]
PaletteName = Literal["ours", "paper", "davis", "detect"]
LOST = {
    "davis": "the frame rate, pictures, names and prompts",
    "rle": "pictures and prompts",
    "colours": "pictures, names and prompts",
    "npz": "pictures and local prompts",
    "time-to-move": "the video, names, and which object a pixel belongs to",
}


def add_to(app: typer.Typer) -> None:
    command(app, "convert")(convert)


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A Sample, or masks in any format.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Where to write.")],
    to: Annotated[Target, typer.Option("--to", help="Format of DST.")],
    format: From = None,
    video: Annotated[Path | None, typer.Option(help="The video that the masks belong to.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="The picture that the masks belong to, if there is no video.")
    ] = None,
    names: Annotated[str, typer.Option(metavar="1=dog,2=cat", help="Names of the objects, by id.")] = "",
    prompt: Annotated[str | None, typer.Option(help="The prompt of the Sample.")] = None,
    palette: Annotated[
        PaletteName | None, typer.Option(help="Of the colours of SRC; if SRC is no mask video, of those of DST.")
    ] = None,
    resize_masks: Annotated[
        Literal["nearest"] | None, typer.Option(help="Bring the masks to the size of the video.")
    ] = None,
    fps: Annotated[
        str | None, typer.Option(help="Frame rate of SRC, where it does not say: exact, 24 or 30000/1001.")
    ] = None,
    crop: Annotated[str, typer.Option(metavar="X0,X1", help="Columns of the mask video's panel, X1 excluded.")] = "",
    num_objects: Annotated[
        int | None, typer.Option(metavar="N", help="Use the first N colours of the palette of SRC only.")
    ] = None,
    force: Force = False,
) -> Answer:
    """Convert masks, and what is known of them, between formats."""
    from .. import interop, storage
    from .sources import in_writing, open_masks

    check_places(source, target, to, force)
    kind = format or _kind(source)
    options = _reading_options(kind, to, video, resize_masks, fps, crop, palette)
    if num_objects is not None:
        options["num_objects"] = num_objects
    opened = open_masks(source, format or (kind if options and kind != "sample" else None), **options)
    opened = _completed(opened, image, None if "video" in options else video, _names(names), prompt, to)
    if to == "sample":
        sample = opened.sample or _sample(opened)
        storage.save_sample(sample, target, force=force)
    else:
        colours = {"palette": _palette(palette)} if to == "colours" and palette and kind != "colours" else {}
        interop.write(in_writing(opened, to), target, to, force=force, **colours)
    trajectory = opened.trajectory
    assert trajectory is not None
    data = {
        "path": str(target),
        "format": to,
        "from": opened.kind,
        "frames": len(trajectory),
        "fps": str(trajectory.fps),
        "size": list(trajectory.size),
        "ids": list(trajectory.ids),
    }
    height, width = trajectory.size
    about = f"{len(trajectory)} frames of {height} × {width} at {trajectory.fps} fps, {len(trajectory.ids)} objects"
    lost = f"; {to} does not keep {LOST[to]}" if to in LOST else ""
    return Answer(data, [f"{target}: {to}, {about}{lost}"])


def _kind(source: Path) -> str:
    """The format by content; "sample" for a Sample, and "" where `open_masks` will say what is wrong."""
    from .. import interop
    from ..errors import FormatError
    from .sources import is_sample

    if is_sample(source):
        return "sample"
    try:
        return interop.sniff(source)
    except FormatError:
        return ""


def _reading_options(
    kind: str, to: str, video: Path | None, resize: str | None, fps: str | None, crop: str, palette: str | None
) -> dict[str, Any]:
    """The options of the format's reader. Raises InvalidValueError for one that it does not have."""
    given: dict[str, Any] = {}
    if palette and kind == "colours":
        given["palette"] = _palette(palette)
    elif palette and to != "colours":
        raise InvalidValueError(
            "a palette belongs to colours, and neither SRC nor DST is a colour mask video", seen=palette
        )
    if crop:
        match = re.fullmatch(r"(\d{1,6}),(\d{1,6})", crop.replace(" ", ""))
        if match is None:
            raise InvalidValueError("a crop is written X0,X1, such as 512,1024", seen=crop)
        given["crop"] = (int(match[1]), int(match[2]))
    if fps:
        given["video_fps" if kind == "rle" else "fps"] = fps
    if video is not None and kind in ("davis", "rle", "colours", "npz"):
        given["video"] = video
    if resize is not None:
        if video is None and kind != "davis":
            raise InvalidValueError(
                "--resize-masks brings the masks to the size of a video", fix="give it with --video"
            )
        given["resize"] = resize
    return given


def _completed(
    source: Source, image: Path | None, video: Path | None, names: dict[int, str], prompt: str | None, to: str
) -> Source:
    """The source with what the command line says about it."""
    from dataclasses import replace

    from .. import media

    more: dict[str, Any] = {}
    if image is not None:
        more["image"] = media.read_image(image)
    if video is not None:
        more["video"] = media.read_video(video)
    if prompt is not None:
        more["prompt"] = prompt
    if source.sample is not None:
        return replace(source, sample=_described(source.sample, names, more))
    assert source.imported is not None
    lost = ["names"] * bool(names and to not in ("sample", "npz", "rle"))
    lost += ["a prompt"] * bool(prompt and to not in ("sample", "npz", "time-to-move"))
    if lost:
        note(f"The format {to} does not hold {' and '.join(lost)}, so the option has no effect.")
    names = {**source.imported.names, **names}
    return replace(source, imported=replace(source.imported, **more, names=names))


def _described(sample: Sample, names: dict[int, str], more: dict[str, Any]) -> Sample:
    from dataclasses import replace

    unknown = sorted(set(names) - set(sample.scene.ids))
    if unknown:
        raise InvalidValueError(
            "the Sample has no object with that id", seen=unknown, fix=f"ids: {list(sample.scene.ids)}"
        )
    objects = tuple(replace(thing, name=names.get(thing.id, thing.name)) for thing in sample.scene.objects)
    changes = {key: more[key] for key in ("image", "prompt") if key in more}
    scene = replace(sample.scene, objects=objects, **changes)
    return replace(sample, scene=scene, video=more.get("video", sample.video))


def _sample(source: Source) -> Sample:
    assert source.imported is not None
    if source.imported.image is None and source.imported.video is None:
        fix = "give it with --video or --image"
        raise InvalidValueError("a Sample needs the picture that the masks belong to", seen=str(source.path), fix=fix)
    return source.imported.to_sample()


def _names(text: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d{1,3})\s*=\s*(\S.*)", part)
        if match is None:
            raise InvalidValueError('names are written "1=dog,2=cat"', seen=part)
        if int(match[1]) in names:
            raise InvalidValueError("an object has two names", seen=text)
        names[int(match[1])] = match[2]
    return names


def _palette(name: str) -> str:
    return "detected" if name == "detect" else name


def check_places(source: Path, target: Path, to: str, force: bool) -> None:
    """Raise OutputError where writing would destroy the source, or a folder that is not of the format."""
    from .. import interop
    from ..errors import ThroughMaskError

    here, there = Path(os.path.realpath(source)), Path(os.path.realpath(target))
    if there == here or there in here.parents:
        raise OutputError("the output would replace its own source", seen=str(target), fix="choose another name")
    if to == "sample" or not force or not target.is_dir() or not any(target.iterdir()):
        return
    try:
        same = interop.sniff(target) == to
    except ThroughMaskError:
        same = False
    if not same:
        fix = "choose another name; --force replaces only a folder of the same format"
        raise OutputError(f"the folder holds something else than {to}", seen=str(target), fix=fix)
