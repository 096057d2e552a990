"""The commands that look at things and make synthetic ones: inspect, validate, show, synthetic."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidValueError, OutputError, ThroughMaskError
from .shell import Answer, command

if TYPE_CHECKING:
    from ..types import MaskTrajectory, Pixels, Sample, Video
    from .sources import Source

From = Annotated[str | None, typer.Option("--from", metavar="FORMAT", help="Format of the source, if not by content.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write.")]


def add_to(app: typer.Typer) -> None:
    for name, function in (
        ("inspect", inspect),
        ("validate", validate),
        ("show", show),
        ("synthetic", synthetic),
    ):
        command(app, name)(function)


def inspect(
    path: Annotated[Path, typer.Argument(help="A Sample, masks, a video or a picture.")], format: From = None
) -> Answer:
    """Say what a file or folder is, its size, length and objects."""
    from .sources import open_source

    source = open_source(path, format)
    data = _facts(source)
    lines = [f"{path}: {data['kind_text']}"]
    height, width = data["size"]
    clip = f", {data['frames']} frames at {data['fps']} fps ({data['seconds']:.2f} s)" if "frames" in data else ""
    lines.append(f"  size      {height} × {width} (height × width){clip}")
    lines += [f"  {key:<9} {data[key]}" for key in ("prompt", "motion_prompt", "source", "licence") if data.get(key)]
    if "objects" in data:
        lines += [f"  objects   {len(data['objects'])}"]
        lines += [f"    {_object_line(thing)}" for thing in data["objects"]]
    del data["kind_text"]
    return Answer(data, [line.replace("motion_prompt", "motion   ") for line in lines])


def validate(paths: Annotated[list[Path], typer.Argument(help="Samples, folders of Samples, or masks.")]) -> Answer:
    """Check Samples and masks; print every problem (exit status 1)."""
    from .. import storage
    from .sources import is_sample, open_source

    found: dict[str, list[str]] = {}
    for path in (each for given in paths for each in _samples_in(given)):
        if is_sample(path):
            found[str(path)] = storage.check_sample(path)
            continue
        try:
            open_source(path)
            found[str(path)] = []
        except ThroughMaskError as error:
            found[str(path)] = [str(error)]
    bad = any(found.values())
    lines = [f"{path}: {text}" for path, problems in found.items() for text in problems or ["no problem found"]]
    data = {"valid": not bad, "paths": [{"path": path, "problems": problems} for path, problems in found.items()]}
    return Answer(data, lines, status=1 if bad else 0)


def show(
    path: Annotated[Path, typer.Argument(metavar="SRC", help="A Sample or masks in any format.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR_OR_FILE", help="A folder, or one .mp4 or .png file.")],
    format: From = None,
    opacity: Annotated[float, typer.Option(help="Of the masks, 0 to 1.")] = 0.5,
    force: Force = False,
) -> Answer:
    """Draw the masks over the video: overlay.mp4 and sheet.png."""
    from .sources import open_source

    return _show(open_source(path, format), out, opacity, force)


def synthetic(
    out: Out,
    seed: Annotated[int | None, typer.Option(help="One Sample, written to --out itself (0 if not given).")] = None,
    seeds: Annotated[str, typer.Option(metavar="A..B", help="Several, both ends included, as --out/seed-A ...")] = "",
    objects: Annotated[int, typer.Option(help="0 to 12.")] = 2,
    size: Annotated[str, typer.Option(metavar="HxW", help="Height and width in pixels.")] = "128x128",
    frames: Annotated[int, typer.Option()] = 25,
    fps: Annotated[str, typer.Option(help="Exact, such as 12 or 30000/1001.")] = "12",
    entering: Annotated[bool, typer.Option("--entering", help="One object is not in frame 0 and comes in.")] = False,
    force: Force = False,
) -> Answer:
    """Make Samples of moving shapes with exact masks."""
    from ..storage import save_sample
    from ..synthetic import make_sample

    height, width = _pair(size, r"(\d{1,5})[xX×](\d{1,5})", "a size is written HxW, such as 128x128")
    if seed is not None and seeds:
        raise InvalidValueError("give --seed or --seeds, not both")
    chosen = [seed or 0]
    if seeds:
        first, last = _pair(seeds, r"(\d{1,15})\.\.(\d{1,15})", "seeds are written A..B, such as 0..7")
        if not 0 <= last - first < 1_000_000:
            raise InvalidValueError("seeds go from a smaller to a larger number, at most a million", seen=seeds)
        chosen = list(range(first, last + 1))
    made = []
    for number in chosen:
        folder = out / f"seed-{number}" if seeds else out
        sample = make_sample(
            number, num_objects=objects, size=(height, width), frames=frames, fps=fps, entering=entering
        )
        save_sample(sample, folder, force=force)
        made.append({"path": str(folder), "seed": number, "prompt": sample.scene.prompt})
    return Answer({"samples": made}, [f"{item['path']}: {item['prompt']}" for item in made])


def _show(source: Source, out: Path, opacity: float, force: bool) -> Answer:
    import numpy as np

    from .. import draw, media, palette
    from ..types import Video

    video, trajectory = _pictures(source)
    colours = palette.OURS if max(trajectory.ids, default=0) <= palette.OURS.num_objects else palette.DAVIS
    painted = colours.paint(trajectory.labels)
    black = not video.frames.any()
    overlaid = painted if black else draw.overlay(video.frames, trajectory.labels, colours, opacity)
    wanted = [out] if out.suffix.lower() in (".mp4", ".png") else [out / "overlay.mp4", out / "sheet.png"]
    _must_be_free(wanted, force)
    for path in wanted:
        if path.suffix.lower() == ".mp4":
            media.write_video(path, Video(overlaid, video.fps), force=force)
        else:
            title = (source.sample.scene.prompt if source.sample is not None else "") or source.path.name
            rows = [("masks", painted)] if black else [(title, video.frames), ("masks", painted), ("both", overlaid)]
            media.write_image(path, np.asarray(draw.contact_sheet(rows)), force=force)
    return Answer({"files": [str(path) for path in wanted]}, [str(path) for path in wanted])


def _pictures(source: Source) -> tuple[Video, MaskTrajectory]:
    """Pixels and masks of the same length: the video, or the picture repeated, or black where there is neither."""
    import numpy as np

    from ..types import MaskTrajectory, Video

    if source.sample is not None:
        scene, trajectory, video = source.sample.scene, source.sample.trajectory, source.sample.video
        image: Pixels | None = scene.image
        if trajectory is None:  # the picture alone has masks
            return Video(scene.image[None], exact := _one(video)), MaskTrajectory(scene.labels[None], exact)
    elif source.imported is not None:
        trajectory, video, image = source.imported.trajectory, source.imported.video, source.imported.image
    else:
        raise InvalidValueError("there are no masks to show", seen=f"{source.path}: a {source.kind}")
    if video is None:
        still = np.zeros((*trajectory.size, 3), np.uint8) if image is None else image
        video = Video(np.broadcast_to(still, (len(trajectory), *still.shape)), trajectory.fps)
    return video, trajectory


def _one(video: Video | None) -> Any:
    return video.fps if video is not None else 1


def _facts(source: Source) -> dict[str, Any]:
    from .. import interop

    sample, imported = source.sample, source.imported
    kinds = {"sample": "a Sample", "video": "a video", "image": "a picture"}
    kind_text = kinds.get(source.kind) or f"masks in the format {source.kind} ({interop.FORMATS[source.kind]})"
    data: dict[str, Any] = {"path": str(source.path), "kind": source.kind, "kind_text": kind_text}
    if source.image is not None:
        return {**data, "size": list(source.image.shape[:2])}
    clip = source.trajectory or (sample.video if sample is not None else source.video)
    size = sample.scene.size if sample is not None else clip.size if clip is not None else ()
    data["size"] = list(size)
    if clip is not None:
        data.update(frames=len(clip), fps=str(clip.fps), seconds=float(len(clip) / clip.fps))
    if sample is not None:
        data.update(prompt=sample.scene.prompt, motion_prompt=sample.scene.motion_prompt)
        data.update(source=sample.origin.source, licence=sample.origin.licence)
        data.update(has_masks=sample.trajectory is not None, has_video=sample.video is not None)
        data["objects"] = _areas(sample)
    elif imported is not None:
        data.update(prompt=imported.prompt, source=imported.origin.source, licence=imported.origin.licence)
        data["objects"] = [
            {"id": id, "name": imported.names.get(id, ""), **_area(imported.trajectory.labels, id)}
            for id in sorted({*imported.trajectory.ids, *imported.names})
        ]
    return data


def _areas(sample: Sample) -> list[dict[str, Any]]:
    labels = sample.trajectory.labels if sample.trajectory is not None else sample.scene.labels[None]
    return [
        {"id": thing.id, "name": thing.name, "prompt": thing.prompt, **_area(labels, thing.id)}
        for thing in sample.scene.objects
    ]


def _area(labels: Any, id: int) -> dict[str, Any]:
    """First visible frame, number of visible frames, and mean share of the frame in percent over these."""
    pixels = (labels == id).sum((1, 2))
    seen = pixels > 0
    share = 100 * float(pixels[seen].mean()) / labels[0].size if seen.any() else 0.0
    first = int(seen.argmax()) if seen.any() else None
    return {"area_percent": round(share, 3), "visible_frames": int(seen.sum()), "first_frame": first}


def _object_line(thing: dict[str, Any]) -> str:
    where = f"{thing['area_percent']:6.2f} % of the frame, visible in {thing['visible_frames']} frames"
    if thing["first_frame"]:
        where += f" from frame {thing['first_frame']}"
    name = f"  {thing['name']}" if thing["name"] else ""
    about = f": {thing['prompt']}" if thing.get("prompt", thing["name"]) != thing["name"] else ""
    return f"{thing['id']:>3}{where}{name}{about}"


def _samples_in(path: Path) -> list[Path]:
    """The path itself or, for a folder of Samples, these."""
    if path.is_dir() and not os.path.lexists(path / "scene.json"):
        inner = sorted(item.parent for item in path.glob("*/scene.json"))
        return inner or [path]
    return [path]


def _must_be_free(paths: Any, force: bool) -> None:
    taken = [path for path in paths if os.path.lexists(path)]
    if taken and not force:
        raise OutputError("the output exists already", seen=str(taken[0]), fix="choose another name, or pass --force")


def _pair(text: str, pattern: str, problem: str) -> tuple[int, int]:
    match = re.fullmatch(pattern, text.strip())
    if match is None:
        raise InvalidValueError(problem, seen=text)
    return int(match[1]), int(match[2])
