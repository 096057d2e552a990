"""The page of a benchmark: one HTML file with its videos inside, worst scenes first. Nothing comes from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..files import new_file
from ..palette import OURS
from .clips import data_uri
from .scores import GROUPS, MEASURES, TITLES, Measure, SceneScore, Scores
from .tally import Mean

CLIPS = {
    "truth": "true video",
    "masks": "true masks",
    "moved": "the model’s masks",
    "guided": "video of the true masks",
    "whole": "video of the model’s masks",
}
MODES = {"motion": "masks", "video": "video of true masks", "whole": "end to end"}
ROWS = {
    "model": "model",
    "again": "played again",
    "still": "frame 0",
    "vae": "VAE alone",
    "truth": "true video",
}
MOST_BYTES = 55_000_000  # of clips on one page; beyond, scenes have pictures only
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_page(path: Path, scores: Scores, clips: Path) -> None:
    """Write the page. clips: the folder with a folder for each scene's clips. Raises OutputError."""
    with new_file(path, force=True) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(page(scores, clips))


def page(scores: Scores, clips: Path) -> Iterator[str]:
    """The page in pieces."""
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    yield f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(scores.split)}: scores</title>
<style>
{style}</style>
</head>
<body>
"""
    yield from _head(scores)
    yield from (_summary(scores, mode) for mode in scores.modes)
    yield f"<p>{escape(scores.left_out)}</p>\n" if scores.left_out else ""
    yield _tools(scores)
    yield '<ol class="scenes">\n'
    room = MOST_BYTES
    for scene in sorted(scores.scenes, key=lambda scene: (scene.rank(), scene.scene)):
        figures = [_figure(clips / str(scene.scene), name, room) for name in CLIPS]
        room -= sum(map(len, figures))
        yield _card(scene, scores, "".join(figures))
    yield f"</ol>\n<script>\n{script}</script>\n</body>\n</html>\n"


def _head(scores: Scores) -> Iterator[str]:
    count = f"{len(scores.scenes)} scenes, {len(scores.seeds)} seeds of noise each"
    about = "Means, with 95 % intervals over scenes. The worst scenes come first."
    yield f"<header>\n<h1>{escape(scores.split)}</h1>\n<p>{count}. {about}</p>\n<dl>\n"
    for name, value in {**scores.facts.get("models", {}), **scores.facts.get("made_with", {})}.items():
        yield f"<div><dt>{escape(name)}</dt><dd>{escape(_plain(value))}</dd></div>\n"
    yield "</dl>\n</header>\n"


def _summary(scores: Scores, mode: str) -> str:
    """The table of one mode: the model by groups of scenes, with intervals; beside it, over all scenes, the others."""
    found = {(measure, row): means for measure, row, means in scores.entries(mode)}
    rows = [row for row in ROWS if row != "model" and any(row == other for _, other in found)]
    lines = []
    for measure in dict.fromkeys(measure for measure, _ in found):
        means = found.get((measure, "model"), {})
        cells = [_mean(means.get(group), measure) for group in GROUPS]
        cells += [_mean(found.get((measure, row), {}).get("all"), measure, bare=True) for row in rows]
        note = f"{_title(measure)}<small>{escape(measure.note)}</small>"
        lines.append(f'<tr><th scope="row">{note}</th>{"".join(cells)}</tr>\n')
    heads = "".join(f'<th scope="col">{name}</th>' for name in (*GROUPS, *(ROWS[row] for row in rows)))
    return f"""<section>
<h2>{escape(TITLES[mode])}</h2>
<div class="wide"><table class="summary">
<thead><tr><th></th>{heads}</tr></thead>
<tbody>
{"".join(lines)}</tbody></table></div>
</section>
"""


def _mean(mean: Mean | None, measure: Measure, *, bare: bool = False) -> str:
    if mean is None:
        return "<td>–</td>"
    digits = 1 if measure.decibel else 2
    edges = "" if bare or mean.low is None else f"<small>{mean.low:.{digits}f}–{mean.high:.{digits}f}</small>"
    return f"<td{' class=beside' * bare}>{mean.value:.{digits}f}{edges}</td>"


def _tools(scores: Scores) -> str:
    """The controls that sort and filter; without scripts they are hidden."""
    verbs = sorted({toy["verb"] for scene in scores.scenes for toy in scene.toys})
    groups = sorted({scene.group for scene in scores.scenes}, reverse=True)
    measured = [
        (f"{mode}.{measure.name}", f"{MODES[mode]}: {measure.title}")
        for mode in scores.modes
        for measure in MEASURES
        if any(scene.value(mode, measure.name) is not None for scene in scores.scenes)
    ]
    return f"""<form class="tools" hidden>
<label>words <input type="search" name="words" placeholder="red ball"></label>
<label>scenes {_select("group", "all", [(group, group) for group in groups])}</label>
<label>a toy does {_select("verb", "anything", [(verb, verb) for verb in verbs])}</label>
<label>worst first by {_select("sort", "the overall rank", [*measured, ("scene", "nothing: as in the split")])}</label>
<output></output>
</form>
"""


def _select(name: str, default: str, options: list[tuple[str, str]]) -> str:
    items = [("", default), *options]
    inner = "".join(f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in items)
    return f'<select name="{name}">{inner}</select>'


def _card(scene: SceneScore, scores: Scores, figures: str) -> str:
    values = {f"{mode}.{m.name}": scene.value(mode, m.name) for mode in scores.modes for m in MEASURES}
    known = {name: round(value, 4) for name, value in values.items() if value is not None}
    rank = scene.rank()
    known |= {"": round(rank, 4)} if rank != float("inf") else {}
    data = f'data-group="{scene.group}" data-verbs="{escape(" ".join(toy["verb"] for toy in scene.toys))}"'
    several = f", the worst of {len(scores.seeds)}" if len(scores.seeds) > 1 else ""
    return f"""<li class="scene" {data} data-scene="{scene.scene}" data-scores="{escape(json.dumps(known))}">
<h2>{escape(scene.prompt)}</h2>
<p class="meta">Scene {scene.scene}, {scene.group}. Shown: noise {scores.seeds[scene.shown]}{several}.</p>
<div class="clips">
{figures}</div>
<p><button type="button" class="play" hidden>play</button></p>
<div class="facts">
{_toys(scene)}{_scores(scene, scores)}</div>
</li>
"""


def _figure(folder: Path, name: str, room: int) -> str:
    """One clip, still until it is played; a picture only where there is no room for the video, nothing without one."""
    poster, video = data_uri(folder / f"{name}.webp"), data_uri(folder / f"{name}.mp4")
    if not poster:
        return ""
    title = escape(CLIPS[name])
    if not video or len(video) + len(poster) > room:
        media = f'<img src="{poster}" alt="{title}, last frame" loading="lazy">'
    else:
        about = f'aria-label="{title}" poster="{poster}" src="{video}"'
        media = f'<video {about} preload="none" controls muted loop playsinline></video>'
    return f"<figure>{media}<figcaption>{title}</figcaption></figure>\n"


def _toys(scene: SceneScore) -> str:
    judged = any("iou" in toy for toy in scene.toys)
    rows = []
    for toy in scene.toys:
        colour = "#" + bytes(OURS.colours[toy["id"]].tolist()).hex()
        swatch = f'<span class="swatch" style="background:{colour}"></span>'
        more = ""
        if judged:
            right = {True: '<td class="good">yes</td>', False: '<td class="bad">no</td>', None: "<td>–</td>"}
            more = right[toy["right"]] + f"<td>{toy['iou']:.2f}</td>"
        rows.append(f"<tr><td>{swatch}{escape(toy['name'])}</td><td>{escape(toy['verb'])}</td>{more}</tr>\n")
    heads = "<th>toy</th><th>does</th>" + ("<th>rightly</th><th>IoU</th>" if judged else "")
    return f"<table><thead><tr>{heads}</tr></thead><tbody>\n{''.join(rows)}</tbody></table>\n"


def _scores(scene: SceneScore, scores: Scores) -> str:
    """A column for each mode; in a cell a number for each seed of noise, the one that is shown bold."""
    rows = []
    for measure in MEASURES:
        cells = [_numbers(scene, mode, measure) for mode in scores.modes]
        if any(cells):
            inner = "".join(f"<td>{text}</td>" for text in cells)
            rows.append(f'<tr><th scope="row">{_title(measure)}</th>{inner}</tr>\n')
    heads = "".join(f'<th scope="col">{MODES[mode]}</th>' for mode in scores.modes)
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>\n{''.join(rows)}</tbody></table>\n"


def _numbers(scene: SceneScore, mode: str, measure: Measure) -> str:
    values = [scene.value(mode, measure.name, take) for take in range(len(scene.by_take.get(mode, [])))]
    if all(value is None for value in values):
        return ""
    digits = 1 if measure.decibel else 2
    texts = ["–" if value is None else f"{value:.{digits}f}" for value in values]
    return " ".join(f"<b>{text}</b>" if take == scene.shown else text for take, text in enumerate(texts))


def _title(measure: Measure) -> str:
    return f'<span title="{escape(measure.note)}">{escape(measure.title)}</span>'


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
