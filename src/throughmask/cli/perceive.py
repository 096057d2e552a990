"""The commands that see: parse (a picture and a prompt become a Sample) and track (a video's masks)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .. import __version__
from ..errors import InvalidValueError, SampleError, ThroughMaskError
from .generate import Device
from .runs import RUN, read_runs, write_runs
from .samples import Force
from .shell import Answer, command, note

if TYPE_CHECKING:
    from ..perception.language import Language, Reading
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
See = Annotated[
    str | None,
    typer.Option(
        "--perception",
        metavar="toybox|real|DIR",
        help="What finds objects: toybox (the bundled model's, and the default), real (photographs: Grounding DINO and "
        "SAM 2), or a folder that train toybox-words made.",
    ),
]
DetectorName = Annotated[
    str, typer.Option("--detector", metavar="NAME", help="With real: a Grounding DINO, by hub id or folder.")
]
SegmenterName = Annotated[
    str, typer.Option("--segmenter", metavar="NAME", help="With real: a SAM 2, by hub id or folder.")
]
BoxThreshold = Annotated[
    float | None, typer.Option(help="With real: how surely a phrase must be seen in a box, 0 to 1 (0.25).")
]
TextThreshold = Annotated[
    float | None, typer.Option(help="With real: how surely the phrase's noun must be seen there, 0 to 1 (0.25).")
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
Timeout = Annotated[float, typer.Option(metavar="SECONDS", help="Of the server, for one answer.")]


def add_to(app: typer.Typer) -> None:
    command(app, "parse")(parse)
    command(app, "track")(track)


@dataclass(frozen=True)
class Seeing:
    """What finds objects, as it was asked for: `kind` is a word, or a folder. Checked before anything is loaded."""

    kind: str | None = None
    detector: str = ""
    segmenter: str = ""
    box_threshold: float | None = None
    text_threshold: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        from ..stages.devices import check_names

        check_names(self.device, "auto")
        own = ("detector", "segmenter", "box_threshold", "text_threshold")
        given = {name: value for name in own if (value := getattr(self, name)) not in (None, "")}
        if given and self.kind != "real":
            words = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InvalidValueError(f"only --perception real takes {words}", seen=f"--perception {self.kind}")
        for name in ("box_threshold", "text_threshold"):
            if not 0 <= given.get(name, 0) <= 1:
                raise InvalidValueError(f"the {name.replace('_', ' ')} is from 0 to 1", seen=given[name])

    def facts(self) -> dict[str, Any] | None:
        """For run.json. None: what comes with the model."""
        if self.kind != "real":
            return None if self.kind is None else {"kind": self.kind}
        from ..perception.real.weights import GROUNDING_DINO, SAM2, THRESHOLD

        return {
            "kind": "real",
            "detector": self.detector or GROUNDING_DINO,
            "segmenter": self.segmenter or SAM2,
            "box_threshold": THRESHOLD if self.box_threshold is None else self.box_threshold,
            "text_threshold": THRESHOLD if self.text_threshold is None else self.text_threshold,
        }


def parse(
    image: Annotated[Path, typer.Argument(metavar="IMAGE")],
    prompt: Annotated[str, typer.Option(help="What shall happen, in plain English.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The Sample that is written.")],
    masks: Masks = None,
    boxes: Boxes = "",
    points: Points = "",
    perception: See = None,
    detector: DetectorName = "",
    segmenter: SegmenterName = "",
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    language: LanguageKind = "rules",
    url: Url = "",
    llm: Llm = "",
    timeout: Timeout = 120.0,
    strip: Annotated[bool, typer.Option("--strip", help="A motion prompt without attributes, as the paper's.")] = False,
    device: Device = "auto",
    force: Force = False,
) -> Answer:
    """Read a picture and a sentence: who moves, how, and where it is."""
    started = time.perf_counter()
    from .. import media
    from ..perception.language import Known
    from ..perception.parse import must_name_something, named_hints, parse_scene
    from ..storage import new_sample_folder, save_sample
    from ..types import Sample

    must_be_one_way(masks, boxes, points)
    seeing = Seeing(perception, detector, segmenter, box_threshold, text_threshold, device)
    areas, dots = read_boxes(boxes), read_points(points)
    reader = Heard(open_language(language, url, llm, strip=strip, timeout=timeout, device=device, stay=False))
    pixels = media.read_image(image)
    given = None if masks is None else media.read_labels(masks)
    with new_sample_folder(out, force=force) as folder:
        seer = None
        if given is None and language != "rules":  # an answer may cost money: not before all else is known to be there
            seer = open_perception(seeing, surely=not areas and not dots)
        reading = reader.read(prompt)
        names = [thing.name for thing in reading.objects]
        hints = named_hints((pixels.shape[0], pixels.shape[1]), names, areas, dots)
        if given is None and seer is None:
            must_name_something(reading)
            seer = open_perception(seeing, surely=not areas and not dots)
        try:
            parsed = parse_scene(pixels, prompt, Known(reading), seer, masks=given, hints=hints)
        except ThroughMaskError:
            reader.tell()
            raise
        save_sample(Sample(parsed.scene), folder)
        record = {
            "prompt": prompt,
            "language": llm or language,
            "masks": masks_from(masks, boxes, points),
            "perception": seeing.facts() if given is None else None,
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
    perception: See = None,
    detector: DetectorName = "",
    segmenter: SegmenterName = "",
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    free: Annotated[
        bool, typer.Option("--free", help="Find the objects in frame 0 too; do not start from the Sample's masks.")
    ] = False,
    device: Device = "auto",
    force: Force = False,
) -> Answer:
    """Follow the objects of a Sample through a video."""
    started = time.perf_counter()
    from .. import media, storage
    from ..perception.parse import track_video
    from ..types import Sample

    seeing = Seeing(perception, detector, segmenter, box_threshold, text_threshold, device)
    sample, pixels = storage.load_sample(scene), media.read_video(video)
    with storage.new_sample_folder(out, force=force) as folder:
        seer = open_perception(seeing, surely=free)
        trajectory = track_video(pixels, sample.scene, seer, from_scene=not free)
        seen: Scene = sample.scene
        if free:
            seen = replace(seen, image=pixels.frames[0], labels=trajectory.labels[0])
        storage.save_sample(Sample(seen, trajectory, pixels, sample.origin), folder)
        seconds = round(time.perf_counter() - started, 3)
        record = {"video": video.name, "perception": seeing.facts(), "throughmask": __version__, "seconds": seconds}
        earlier = {verb: run for verb, run in read_runs(scene).items() if verb != "measure"}  # of another video
        write_runs(folder / RUN, {**earlier, "track": record})
    shares = {thing.name: float((trajectory.labels == thing.id).any((1, 2)).mean()) for thing in seen.objects}
    lines = [f"{out}: {len(trajectory)} frames, {seconds:.1f} s"]
    lines += [f"  {name}: seen in {share:.0%} of the frames" for name, share in shares.items()]
    return Answer({"path": str(out), "frames": len(trajectory), "seen": shares, "seconds": seconds}, lines)


def open_language(
    kind: str,
    url: str,
    llm: str,
    *,
    strip: bool = False,
    timeout: float = 120.0,
    device: str = "auto",
    stay: bool = True,
) -> Language:
    """What reads prompts. stay: a model here stays in memory for more of them.

    Raises InvalidValueError for options that do not go together; nothing is loaded yet.
    """
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

        return InstructServer(url, llm, strip_attributes=strip, timeout=timeout)
    from ..perception.instruct.local import LocalInstruct
    from ..stages.devices import choose_device, choose_dtype

    place = choose_device(device)
    dtype = choose_dtype("auto", place)
    return LocalInstruct(llm, place, dtype, strip_attributes=strip, stay=stay, say=note)


@dataclass
class Heard:
    """A Language that remembers what it read."""

    language: Language
    reading: Reading | None = None

    def read(self, prompt: str) -> Reading:
        self.reading = self.language.read(prompt)
        return self.reading

    def tell(self) -> None:
        """What a language model read is not lost if its objects cannot be found. The rules read again for nothing."""
        from ..perception.language import EnglishRules

        if self.reading is not None and self.reading.objects and not isinstance(self.language, EnglishRules):
            names = ", ".join(f"{k} {thing.name}" for k, thing in enumerate(self.reading.objects, 1))
            note(f"The prompt was read: {names}. Masks with these ids, boxes or points make the search needless.")


def open_perception(seeing: Seeing | Path | None, *, surely: bool = True) -> Perception:
    """As `animation.opening.open_perception`, of what was asked for on the command line."""
    from ..animation.opening import open_perception as opened
    from ..stages.bundle import bundled

    seeing = seeing if isinstance(seeing, Seeing) else Seeing(None if seeing is None else str(seeing))
    if seeing.kind is None:
        try:
            bundled()
        except SampleError:
            fix = "give --masks, or --perception with a folder made by throughmask train toybox-words"
            raise InvalidValueError("finding objects needs a segmenter", fix=fix) from None
    own = {name: value for name, value in (seeing.facts() or {}).items() if name != "kind"}
    return opened(seeing.kind or "toybox", device=seeing.device, surely=surely, say=note, **own)


def read_boxes(text: str) -> list[tuple[str, Box]]:
    """ "red ball=0,10,50,60; blue block=...": a name is one that the prompt has, or an object's number."""
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
