"""The commands that see: parse (a picture and a prompt become a Sample) and track (a video's masks)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..errors import InvalidValueError
from .runs import RUN, read_runs, write_runs
from .samples import Force
from .shell import Answer, command, note

if TYPE_CHECKING:
    from ..perception.parse import Parsed, Perception
    from ..types import Labels, Pixels, Scene

Words = Annotated[
    Path | None,
    typer.Option("--perception", metavar="DIR", help="What finds objects by phrase: made by train toybox-words."),
]


def add_to(app: typer.Typer) -> None:
    command(app, "parse")(parse)
    command(app, "track")(track)


def parse(
    image: Annotated[Path, typer.Argument(metavar="IMAGE")],
    prompt: Annotated[str, typer.Option(help="What shall happen, in plain English.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The Sample that is written.")],
    masks: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Indexed PNG: id k is the k-th object that the prompt names.")
    ] = None,
    boxes: Annotated[
        str, typer.Option(metavar="NAME=L,T,R,B;...", help='Where objects are, such as "red ball=10,20,60,80".')
    ] = "",
    perception: Words = None,
    strip: Annotated[bool, typer.Option("--strip", help="A motion prompt without attributes, as the paper's.")] = False,
    force: Force = False,
) -> Answer:
    """Read a picture and a sentence: who moves, what is said of each, and where each is."""
    started = time.perf_counter()
    from .. import media
    from ..perception.language import EnglishRules
    from ..perception.parse import parse_scene
    from ..storage import new_sample_folder, save_sample
    from ..types import Sample

    if masks is not None and boxes:
        raise InvalidValueError("masks need no boxes", fix="give --masks or --boxes")
    language, pixels = EnglishRules(strip), media.read_image(image)
    given = None if masks is None else media.read_labels(masks)
    reading = language.read(prompt)
    hints = _hints(boxes, [thing.name for thing in reading.objects], pixels) if boxes else None
    with new_sample_folder(out, force=force) as folder:
        seer = None if given is not None else open_perception(perception)
        parsed = parse_scene(pixels, prompt, language, seer, masks=given, hints=hints)
        save_sample(Sample(parsed.scene), folder)
        record = {
            "prompt": prompt,
            "language": "rules",
            "masks": "given" if given is not None else "boxes" if boxes else "phrases",
            "unused": list(parsed.unused),
            "throughmask": __version__,
            "seconds": round(time.perf_counter() - started, 3),
        }
        write_runs(folder / RUN, {"parse": record})
    return _parsed(out, parsed, record)


def track(
    video: Annotated[Path, typer.Argument(metavar="VIDEO")],
    scene: Annotated[Path, typer.Option(metavar="DIR", help="A Sample whose objects are followed.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The Sample that is written.")],
    perception: Words = None,
    free: Annotated[
        bool, typer.Option("--free", help="Find the objects in frame 0 too; do not start from the Sample's masks.")
    ] = False,
    force: Force = False,
) -> Answer:
    """Follow a Sample's objects through a video: its masks, frame by frame."""
    started = time.perf_counter()
    from .. import media, storage
    from ..perception.parse import track_video
    from ..types import Sample

    sample, pixels = storage.load_sample(scene), media.read_video(video)
    seer = open_perception(perception)
    with storage.new_sample_folder(out, force=force) as folder:
        trajectory = track_video(pixels, sample.scene, seer, from_scene=not free)
        seen: Scene = sample.scene
        if free:
            seen = replace(seen, image=pixels.frames[0], labels=trajectory.labels[0])
        storage.save_sample(Sample(seen, trajectory, pixels, sample.origin), folder)
        seconds = round(time.perf_counter() - started, 3)
        record = {"video": video.name, "throughmask": __version__, "seconds": seconds}
        write_runs(folder / RUN, {**read_runs(scene), "track": record})
    shares = {thing.name: float((trajectory.labels == thing.id).any((1, 2)).mean()) for thing in seen.objects}
    lines = [f"{out}: {len(trajectory)} frames, {seconds:.1f} s"]
    lines += [f"  {name}: seen in {share:.0%} of the frames" for name, share in shares.items()]
    return Answer({"path": str(out), "frames": len(trajectory), "seen": shares, "seconds": seconds}, lines)


def open_perception(folder: Path | None) -> Perception:
    """Raises InvalidValueError without a folder: no segmenter is shipped yet."""
    if folder is None:
        fix = "give --masks, or --perception with a folder made by throughmask train toybox-words"
        raise InvalidValueError("finding objects needs a segmenter", fix=fix)
    from ..perception.toybox import ToyboxPerception

    return ToyboxPerception.load(folder)


def _hints(text: str, names: list[str], pixels: Pixels) -> Labels:
    """ "red ball=0,10,50,60; blue block=..." as painted boxes; a name is one that the prompt has, or its number."""
    from ..perception.parse import painted_boxes

    found = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, equals, numbers = part.rpartition("=")
        values = [value.strip() for value in numbers.split(",")]
        if not equals or len(values) != 4 or not all(value.isdecimal() for value in values):
            raise InvalidValueError("a box is written NAME=left,top,right,bottom", seen=part)
        name = name.strip().lower()
        if name not in names and not (name.isdecimal() and 1 <= int(name) <= len(names)):
            raise InvalidValueError("the prompt names no such object", seen=name, fix=f"named: {', '.join(names)}")
        left, top, right, bottom = map(int, values)
        found.append((names.index(name) + 1 if name in names else int(name), (left, top, right, bottom)))
    return painted_boxes((pixels.shape[0], pixels.shape[1]), found)


def _parsed(out: Path, parsed: Parsed, record: dict[str, Any]) -> Answer:
    scene = parsed.scene
    if parsed.unused:
        note(f"Not used of the prompt: {', '.join(repr(span) for span in parsed.unused)}.")
    for text in parsed.notes:
        note(text)
    objects = [{"id": thing.id, "name": thing.name, "prompt": thing.prompt} for thing in scene.objects]
    shares = {thing.id: float((scene.labels == thing.id).mean()) for thing in scene.objects}
    lines = [f"{out}: {scene.motion_prompt or scene.prompt}"]
    for thing in scene.objects:
        where = f"{shares[thing.id]:.1%} of the picture" if shares[thing.id] else "enters later"
        lines.append(f"  {thing.id} {thing.name} ({where}): {thing.prompt}")
    data = {"path": str(out), "motion_prompt": scene.motion_prompt, "objects": objects, **record}
    return Answer(data | {"entering": list(parsed.entering)}, lines)
