"""The command prepare: from videos to Samples that train reads."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InvalidValueError, OutputError
from .generate import Device
from .perceive import (
    BoxThreshold,
    DetectorName,
    LanguageKind,
    Llm,
    See,
    Seeing,
    SegmenterName,
    TextThreshold,
    Timeout,
    Url,
    open_language,
    open_perception,
)
from .shell import Answer, as_json_now, command, note

if TYPE_CHECKING:
    from ..perception.language import Language
    from ..prepare.cluster import Pools
    from ..prepare.config import Config
    from ..prepare.engine import Totals
    from ..prepare.making import Tools

Source = Annotated[
    Path | None,
    typer.Argument(
        metavar="SOURCE", help="A folder of videos, a manifest, WebDataset shards, DAVIS or SA-V; none with --report."
    ),
]
Kind = Annotated[
    str,
    typer.Option("--from", help="What SOURCE is, if not told by its content: folder, manifest, shards, davis, sav."),
]
Masks = Annotated[
    Literal["find", "given"], typer.Option(help="Find what captions name, or take the masks beside each video.")
]
Frames = Annotated[int, typer.Option(metavar="N", help="Of a clip, at most.")]
Fps = Annotated[str, typer.Option(help="Resample to this rate, such as 16 or 30000/1001.")]
Shots = Annotated[bool, typer.Option("--shots/--no-shots", help="Cut where the shot changes.")]
Threshold = Annotated[float, typer.Option(help="A shot changes where frames differ so many times more than around.")]
Caption = Annotated[str, typer.Option(metavar="TEXT", help="For every video that has none.")]
Sees = Annotated[
    bool, typer.Option("--sees", help="With openai: the model sees frames, and tells what has no caption.")
]
Shard = Annotated[int, typer.Option(metavar="N", help="Samples of a tar shard; 0 for folders.")]
Redo = Annotated[bool, typer.Option("--redo", help="Make anew what another configuration made.")]
Ray = Annotated[
    str, typer.Option(metavar="local|ADDRESS", help="Spread the work with Ray: on this machine, or over a cluster.")
]
Actors = Annotated[
    str, typer.Option(metavar="A,B,C", help="With --ray: how many actors decode, look for objects, and write.")
]
Gpus = Annotated[float, typer.Option(metavar="N", help="With --ray: GPUs of each actor that looks for objects.")]
Batch = Annotated[int, typer.Option(metavar="N", help="With --ray: clips that travel together.")]
Report = Annotated[bool, typer.Option("--report", help="Also write DIR/report.html, a page to look at.")]


def add_to(app: typer.Typer) -> None:
    command(app, "prepare")(prepare)


def prepare(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="For all results; a run that stopped goes on here.")
    ],
    source: Source = None,
    kind: Kind = "",
    masks: Masks = "find",
    frames: Frames = 81,
    fps: Fps = "",
    shots: Shots = True,
    threshold: Threshold = 3.0,
    caption: Caption = "",
    language: LanguageKind = "rules",
    url: Url = "",
    llm: Llm = "",
    sees: Sees = False,
    timeout: Timeout = 120.0,
    perception: See = None,
    detector: DetectorName = "",
    segmenter: SegmenterName = "",
    box_threshold: BoxThreshold = None,
    text_threshold: TextThreshold = None,
    device: Device = "auto",
    min_frames: Annotated[int, typer.Option(help="Of a clip.")] = 17,
    max_objects: Annotated[int, typer.Option(help="Of a clip.")] = 8,
    min_area: Annotated[float, typer.Option(help="Of an object, as a share of the picture.")] = 0.001,
    max_area: Annotated[float, typer.Option(help="Of an object, as a share of the picture.")] = 0.9,
    max_flicker: Annotated[float, typer.Option(help="Share of frames in which a mask comes, goes or jumps.")] = 0.2,
    min_motion: Annotated[float, typer.Option(help="Of the fastest object, in diagonals a second.")] = 0.005,
    max_motion: Annotated[float, typer.Option(help="Of the fastest object, in diagonals a second.")] = 2.0,
    min_found: Annotated[float, typer.Option(help="Share of the objects named by the caption that are seen.")] = 0.0,
    per_shard: Shard = 0,
    redo: Redo = False,
    ray: Ray = "",
    actors: Actors = "2,1,2",
    gpus: Gpus = 0.0,
    batch: Batch = 2,
    report: Report = False,
) -> Answer:
    """Turn videos into Samples: cut, find what captions name, follow it, and leave out what is no use."""
    from ..prepare.config import Config, Cutting
    from ..prepare.filters import Filters
    from ..types import exact_fps

    if source is None:
        if not report:
            raise InvalidValueError("there is nothing to do", fix="name a SOURCE, or give --report")
        return _reported(out)
    if sees and language != "openai":
        raise InvalidValueError("only a server's model sees frames", seen=language, fix="add --language openai")
    if masks == "given" and perception is not None:
        note("--perception has no effect: masks are given.")
    seeing = Seeing(perception, detector, segmenter, box_threshold, text_threshold, device)
    config = Config(
        masks,
        Cutting(frames, shots, threshold, exact_fps(fps) if fps else None),
        Filters(min_frames, max_objects, min_area, max_area, max_flicker, min_motion, max_motion, min_found),
        caption,
        {"kind": language, "model": llm, "sees": sees},
        _identity(seeing) if masks == "find" else None,
    )
    open_reader = partial(open_language, language, url, llm, timeout=timeout, device=device)
    open_reader()  # options that do not go together are told before anything is read
    open_tools = partial(_open_tools, open_reader, seeing if masks == "find" else None, sees)
    pools = _pools(ray, actors, gpus, batch)
    totals = _run(source, kind, out, config, open_tools, per_shard, redo, pools)
    answer = _answered(out, totals)
    if not report:
        return answer
    page = _reported(out)
    return Answer({**answer.data, **page.data}, [*answer.lines, *page.lines])


def _run(
    source: Path,
    kind: str,
    out: Path,
    config: Config,
    open_tools: Callable[[], Tools],
    per_shard: int,
    redo: bool,
    pools: Pools | None,
) -> Totals:
    from ..prepare.engine import prepare
    from ..prepare.progress import Progress
    from ..prepare.sources import open_source

    if per_shard < 0:
        raise InvalidValueError("a shard holds at least 1 Sample", seen=per_shard, fix="0 stands for folders")
    inputs = open_source(source, kind)
    progress = Progress(None if as_json_now.get() else sys.stderr)
    return prepare(inputs, out, config, open_tools, per_shard=per_shard, redo=redo, progress=progress, pools=pools)


def _pools(ray: str, actors: str, gpus: float, batch: int) -> Pools | None:
    from ..prepare.cluster import Pools

    sizes = [size.strip() for size in actors.split(",")]
    if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
        raise InvalidValueError("actors are three numbers, such as 2,1,2", seen=actors)
    if batch < 1 or gpus < 0:
        raise InvalidValueError(
            "a batch has at least 1 clip, and an actor no less than 0 GPUs", seen=f"{batch}, {gpus}"
        )
    decoders, seers, writers = map(int, sizes)
    return Pools("" if ray == "local" else ray, decoders, seers, writers, gpus, batch) if ray else None


def _open_tools(open_reader: Callable[[], Language], seeing: Seeing | None, sees: bool) -> Tools:
    from ..prepare.captions import tell
    from ..prepare.making import Tools

    reader: Any = open_reader()
    if seeing is not None and seeing.kind is None:  # the bundled segmenter knows toys only: never unasked on films
        fix = "give --masks, or --perception: real for photographs, toybox for toys"
        raise InvalidValueError("finding objects needs a segmenter", fix=fix)
    seer = None if seeing is None else open_perception(seeing)
    at_once = 2 if getattr(seer, "device", "cpu").startswith("cuda") else 1
    return Tools(reader, seer, partial(tell, ask=reader.ask) if sees else None, at_once=at_once)


def _identity(seeing: Seeing) -> Any:
    """What finds objects, for the record: a folder by the content of its files."""
    from ..files import fingerprint

    folder = Path(seeing.kind or "")
    words = (None, "toybox", "real")
    return {"folder": fingerprint(folder)} if seeing.kind not in words and folder.is_dir() else seeing.facts()


def _answered(out: Path, totals: Totals) -> Answer:
    lines = [f"{out}: {totals.samples} Samples and {totals.rejects} rejects of {totals.clips} clips"]
    if totals.made + totals.rejected < totals.clips:
        lines[0] += f"; of these {totals.made} and {totals.rejected} by this run"
    lines += [f"  {count} {reason}" for reason, count in totals.reasons.items()]
    return Answer({"path": str(out), **totals._asdict()}, lines)


def _reported(out: Path) -> Answer:
    from ..prepare.ledger import RECORD
    from ..prepare.report import PAGE, write_report

    if not (out / RECORD).is_file():
        raise OutputError("the folder is not from prepare", seen=str(out), fix="give SOURCE to make it")
    write_report(out)
    return Answer({"report": str(out / PAGE)}, [str(out / PAGE)])
