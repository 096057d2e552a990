"""The commands that see: parse (a picture and a prompt become a Sample) and track (a video's masks)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .. import __version__
from ..errors import InvalidValueError, SampleError
from .runs import RUN, read_runs, write_runs
from .samples import Force
from .shell import Answer, command, note

if TYPE_CHECKING:
    from ..perception.language import Language
    from ..perception.parse import Box, Parsed, Perception, Point
    from ..types import Scene

Words = Annotated[
    Path | None,
    typer.Option(
        "--perception",
        metavar="real|DIR",
        help="What finds objects: real (Grounding DINO, SAM 2), or what train toybox-words made. Default: the bundled.",
    ),
]
Masks = Annotated[
    Path | None, typer.Option(metavar="PNG", help="Indexed PNG: id k is the k-th object that the prompt names.")
]
Boxes = Annotated[
    str, typer.Option(metavar="NAME=L,T,R,B;...", help='Where objects are, such as "red ball=10,20,60,80".')
]
Points = Annotated[str, typer.Option(metavar="NAME=X,Y;...", help='A point on each object, such as "red ball=35,50".')]


LanguageKind = Annotated[
    Literal["rules", "openai", "local"],
    typer.Option(help="What reads the prompt: English by rule, a server that speaks OpenAI's API, or a model here."),
]
Url = Annotated[str, typer.Option(help="Of the server; its key is read from OPENAI_API_KEY, if that is set.")]
Llm = Annotated[
    str, typer.Option(metavar="NAME", help="What the server calls its model; a folder or hub id with local.")
]


def add_to(app: typer.Typer) -> None:
    command(app, "parse")(parse)
    command(app, "track")(track)


def parse(
    image: Annotated[Path, typer.Argument(metavar="IMAGE")],
    prompt: Annotated[str, typer.Option(help="What shall happen, in plain English.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The Sample that is written.")],
    masks: Masks = None,
    boxes: Boxes = "",
    points: Points = "",
    perception: Words = None,
    language: LanguageKind = "rules",
    url: Url = "",
    llm: Llm = "",
    strip: Annotated[bool, typer.Option("--strip", help="A motion prompt without attributes, as the paper's.")] = False,
    force: Force = False,
) -> Answer:
    """Read a picture and a sentence: who moves, how, and where it is."""
    started = time.perf_counter()
    from .. import media
    from ..perception.language import Known
    from ..perception.parse import painted_hints, parse_scene
    from ..storage import new_sample_folder, save_sample
    from ..types import Sample

    must_be_one_way(masks, boxes, points)
    areas, dots = read_boxes(boxes), read_points(points)
    reader, pixels = open_language(language, url, llm, strip=strip), media.read_image(image)
    given = None if masks is None else media.read_labels(masks)
    reading = reader.read(prompt)
    names = [thing.name for thing in reading.objects]
    hints = painted_hints((pixels.shape[0], pixels.shape[1]), names, areas, dots)
    with new_sample_folder(out, force=force) as folder:
        seer = None if given is not None else open_perception(perception)
        parsed = parse_scene(pixels, prompt, Known(reading), seer, masks=given, hints=hints)
        save_sample(Sample(parsed.scene), folder)
        record = {
            "prompt": prompt,
            "language": llm or language,
            "masks": masks_from(masks, boxes, points),
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
    """Follow the objects of a Sample through a video."""
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
        earlier = {verb: run for verb, run in read_runs(scene).items() if verb != "measure"}  # of another video
        write_runs(folder / RUN, {**earlier, "track": record})
    shares = {thing.name: float((trajectory.labels == thing.id).any((1, 2)).mean()) for thing in seen.objects}
    lines = [f"{out}: {len(trajectory)} frames, {seconds:.1f} s"]
    lines += [f"  {name}: seen in {share:.0%} of the frames" for name, share in shares.items()]
    return Answer({"path": str(out), "frames": len(trajectory), "seen": shares, "seconds": seconds}, lines)


def open_language(kind: str, url: str, llm: str, *, strip: bool = False) -> Language:
    """What reads prompts. Raises InvalidValueError for options that do not go together; nothing is loaded yet."""
    if kind == "rules":
        if url or llm:
            fix = "add --language openai (or local), or leave them out"
            raise InvalidValueError("the rules ask no language model", seen=llm or url, fix=fix)
        from ..perception.language import EnglishRules

        return EnglishRules(strip)
    if not llm or (kind == "openai") != bool(url):
        needs = "--url and --llm" if kind == "openai" else "--llm alone"
        raise InvalidValueError(f"--language {kind} needs {needs}", seen=f"url {url!r}, llm {llm!r}")
    if kind == "openai":
        from ..perception.instruct.server import InstructServer

        return InstructServer(url, llm, strip_attributes=strip)
    from ..perception.instruct.local import LocalInstruct
    from ..stages.devices import choose_device, choose_dtype

    device = choose_device("auto")
    return LocalInstruct(llm, device, choose_dtype("auto", device), strip_attributes=strip)


def open_perception(folder: Path | None) -> Perception:
    """What finds objects: "real", or the folder's, else the bundled model's.

    Raises InvalidValueError if there is neither, SampleError for a folder or a hub that does not have it.
    """
    if folder == Path("real"):
        from ..perception.real.perception import RealPerception
        from ..stages.devices import choose_device, choose_dtype, enough_memory
        from ..stages.pipeline import hide_loading_bars

        hide_loading_bars()
        device = choose_device("auto")
        with enough_memory():
            return RealPerception.load(device=device, dtype=choose_dtype("auto", device), say=note)
    if folder is None:
        from ..stages.bundle import bundled

        try:
            folder = bundled()
        except SampleError:
            fix = "give --masks, or --perception with a folder made by throughmask train toybox-words"
            raise InvalidValueError("finding objects needs a segmenter", fix=fix) from None
    missing = [part for part in ("tokenizer", "text_encoder", "segmenter") if not (folder / part).is_dir()]
    if missing:
        fix = "give a folder made by throughmask train toybox-words"
        raise SampleError(f"{folder} is no segmenter: it lacks {', '.join(missing)}", fix=fix)
    from ..perception.toybox import ToyboxPerception

    return ToyboxPerception.load(folder)


def read_boxes(text: str) -> list[tuple[str, Box]]:
    """ "red ball=0,10,50,60; blue block=...": a name is one that the prompt has, or its number."""
    found = _named_numbers(text, 4, "a box is written NAME=left,top,right,bottom")
    return [(name, (values[0], values[1], values[2], values[3])) for name, values in found]


def read_points(text: str) -> list[tuple[str, Point]]:
    """ "red ball=25,40; blue block=..."; an object may have several points."""
    found = _named_numbers(text, 2, "a point is written NAME=x,y")
    return [(name, (values[0], values[1])) for name, values in found]


def _named_numbers(text: str, count: int, problem: str) -> list[tuple[str, list[int]]]:
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        name, equals, numbers = part.rpartition("=")
        values = [value.strip() for value in numbers.split(",")]
        if not equals or len(values) != count or not all(value.isdecimal() for value in values):
            raise InvalidValueError(problem, seen=part)
        found.append((name, [int(value) for value in values]))
    return found


def masks_from(masks: Path | None, boxes: str, points: str) -> str:
    """In a word, for run.json."""
    return "given" if masks is not None else "boxes" if boxes else "points" if points else "phrases"


def must_be_one_way(masks: Path | None, boxes: str, points: str) -> None:
    """Raises InvalidValueError for masks together with hints."""
    if masks is not None and (boxes or points):
        raise InvalidValueError("masks need no boxes or points", fix="give --masks or --boxes or --points")


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
