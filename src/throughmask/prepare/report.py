"""What a preparation holds, as one HTML page: counts, reasons, distributions, and pictures with their masks."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..draw import overlay
from ..files import new_file
from ..shards import open_sample
from ..storage import load_sample
from ..types import Sample
from .ledger import RECORD, Entry, read_entries

PAGE = "report.html"
PICTURES = 48  # Samples that are shown, evenly spaced
SIDE = 256  # pixels, the longer one of a thumbnail
BARS = 12
SHOWN_REJECTS = 200
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(out: str | Path) -> Path:
    """Write report.html of a preparation's folder; returns its path. Raises OutputError if it cannot be written."""
    out = Path(out)
    entries = sorted(read_entries(out), key=lambda entry: entry.clip)
    with new_file(out / PAGE, force=True) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_page(out, entries))
    return out / PAGE


def _page(out: Path, entries: Sequence[Entry]) -> Iterator[str]:
    style = files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    samples = [entry for entry in entries if entry.reject is None]
    rejects = [entry for entry in entries if entry.reject is not None]
    title = f"{out.resolve().name}: {len(samples)} Samples of {len(entries)} clips"
    yield f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
"""
    seconds = sum(
        entry.facts["frames"] / float(Fraction(entry.facts["fps"])) for entry in samples if "frames" in entry.facts
    )
    yield f"<p>{len(rejects)} rejected; the Samples last {seconds / 60:.1f} minutes together.</p>\n</header>\n"
    yield _reasons(rejects)
    yield _distributions([entry.facts for entry in samples])
    yield from _pictures(samples)
    yield _reject_list(rejects)
    yield _configurations(out)
    yield "</body>\n</html>\n"


def _reasons(rejects: Sequence[Entry]) -> str:
    if not rejects:
        return ""
    counts = Counter((entry.reject.step, entry.reject.reason) for entry in rejects if entry.reject)
    most = max(counts.values())
    rows = "".join(
        f'<tr><td>{escape(step)}</td><th scope="row">{escape(reason)}</th><td>{count}</td>'
        f'<td class="bar"><span style="width:{100 * count / most:.1f}%"></span></td></tr>\n'
        for (step, reason), count in counts.most_common()
    )
    return f"<section>\n<h2>Why clips were rejected</h2>\n<table><tbody>\n{rows}</tbody></table>\n</section>\n"


def _distributions(facts: Sequence[dict[str, Any]]) -> str:
    areas = [100 * area for fact in facts for area in fact.get("area", ())]
    charts = (
        _counts("Objects in a clip", [fact["objects"] for fact in facts if "objects" in fact]),
        _histogram("Size of objects, % of the picture", areas),
        _histogram("Motion, diagonals a second", [fact["motion"] for fact in facts if "motion" in fact]),
        _histogram("Flicker, % of frames", [100 * fact["flicker"] for fact in facts if "flicker" in fact]),
        _counts("Frames of a clip", [fact["frames"] for fact in facts if "frames" in fact]),
        _counts("Picture size", [f"{fact['size'][0]}×{fact['size'][1]}" for fact in facts if "size" in fact]),
    )
    return f'<section>\n<h2>What the Samples are like</h2>\n<div class="charts">\n{"".join(charts)}</div>\n</section>\n'


def _counts(title: str, values: Sequence[Any]) -> str:
    counts = Counter(values)
    if len(counts) > BARS and not any(isinstance(value, str) for value in values):
        return _histogram(title, values)
    return _chart(title, [(str(value), count) for value, count in sorted(counts.items())[:BARS]])


def _histogram(title: str, values: Sequence[float]) -> str:
    if len(set(values)) < 2:
        return _chart(title, [(f"{value:.3g}", len(values)) for value in values[:1]])
    heights, edges = np.histogram(values, bins=min(BARS, max(1, len(set(values)))))
    return _chart(title, [(f"{a:.3g}–{b:.3g}", int(n)) for n, a, b in zip(heights, edges, edges[1:], strict=False)])


def _chart(title: str, bars: Sequence[tuple[str, int]]) -> str:
    most = max((count for _, count in bars), default=1) or 1
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="bar"><span style="width:{100 * count / most:.1f}%"></span>'
        f"</td><td>{count}</td></tr>\n"
        for name, count in bars
    )
    return f"<table><caption>{escape(title)}</caption><tbody>\n{rows}</tbody></table>\n"


def _pictures(samples: Sequence[Entry]) -> Iterator[str]:
    if not samples:
        return
    chosen = np.unique(np.linspace(0, len(samples) - 1, PICTURES).round().astype(int))
    yield f'<section>\n<h2>{len(chosen)} of the Samples</h2>\n<ol class="samples">\n'
    for number in chosen:
        entry = samples[number]
        yield _card(entry, _opened(entry))
    yield "</ol>\n</section>\n"


def _opened(entry: Entry) -> Sample:
    return open_sample(entry.place, entry.clip) if entry.place.suffix == ".tar" else load_sample(entry.place)


def _card(entry: Entry, sample: Sample) -> str:
    assert sample.video is not None
    assert sample.trajectory is not None
    frames = sorted({0, len(sample.video) // 2, len(sample.video) - 1})
    shown = overlay(sample.video.frames[frames], sample.trajectory.labels[frames])
    pictures = "".join(
        f'<img src="{_thumbnail(picture)}" alt="frame {k} with masks">'
        for k, picture in zip(frames, shown, strict=True)
    )
    names = ", ".join(f"{thing.id} {thing.name}" for thing in sample.scene.objects)
    facts = entry.facts
    about = f"{len(sample.video)} frames, motion {facts.get('motion', 0):.3g}, flicker {facts.get('flicker', 0):.3g}"
    return f"""<li>
<h3>{escape(entry.clip)}</h3>
<p>{escape(sample.scene.prompt) or "no caption"}</p>
<div class="frames">{pictures}</div>
<p class="meta">{escape(names)}. {about}</p>
</li>
"""


def _thumbnail(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _reject_list(rejects: Sequence[Entry]) -> str:
    if not rejects:
        return ""
    rows = "".join(
        f"<tr><td>{escape(entry.clip)}</td><td>{escape(entry.reject.step)}</td><td>{escape(entry.reject.reason)}</td>"
        f"<td>{escape(_plain(entry.reject.value))}</td></tr>\n"
        for entry in rejects[:SHOWN_REJECTS]
        if entry.reject
    )
    more = f"<p>{len(rejects) - SHOWN_REJECTS} more in rejects.jsonl.</p>\n" if len(rejects) > SHOWN_REJECTS else ""
    heads = "<tr><th>clip</th><th>step</th><th>reason</th><th>value</th></tr>"
    table = f"<table><thead>{heads}</thead><tbody>\n{rows}</tbody></table>"
    return f'<details>\n<summary>All rejects</summary>\n<div class="wide">{table}</div>\n{more}</details>\n'


def _configurations(out: Path) -> str:
    text = json.dumps(json.loads((out / RECORD).read_text(encoding="utf-8"))["configurations"], indent=2)
    return f"<details>\n<summary>Configuration</summary>\n<pre>{escape(text)}</pre>\n</details>\n"


def _plain(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
