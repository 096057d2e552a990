"""Measures Toybox over many seeds and writes the numbers into docs/toybox.md; --sheet draws docs/toybox.png too.

Physics alone serves for most numbers; `again` and `still` are measured on the rendered label maps of toybox-128.
"""

import argparse
import dataclasses
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from throughmask.evaluate.motion import motion_accuracy, object_motions
from throughmask.toybox import Story, draw, make_story, preview, split_seeds, truth_of
from throughmask.types import MaskTrajectory, Sample

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- statistics: tools/toybox_stats.py -->", "<!-- end of statistics -->"
WORDS = (
    *("stay", "roll", "slide", "hop", "jump", "spin", "tip", "fall"),
    *("bumps", "is bumped", "passes behind or before", "enters", "leaves", "slowly", "quickly"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10_000, help="training seeds 0 to this, excluded")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sheet", action="store_true", help="draw docs/toybox.png, 64 scenes of toybox-128")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes) as pool:
        training = list(pool.map(facts, range(options.seeds), chunksize=20))
        multi = list(pool.map(facts, split_seeds("toybox-multi")))
        motions = list(pool.map(again_and_still, split_seeds("toybox-128")))
    text = "\n".join(
        [*table(training, f"{options.seeds:,} training seeds"), *table(multi, "toybox-128, multi-object half")]
    )
    again, still = ([motion for pair in motions for motion in pair[k]] for k in (0, 1))
    areas = np.concatenate([pair[2] for pair in motions[64:]])
    counted = sum(motion.counts for motion in again)
    text += (
        f"\nMotion accuracy on toybox-128, {counted} moving toys, from rendered label maps: `again`"
        f" **{motion_accuracy(again):.3f}**, `still` **{motion_accuracy(still):.3f}**.\n"
        f"Area of a toy in frame 0 of the multi-object half: median {np.median(areas[areas > 0]):.2%} of the frame,"
        f" middle half {np.quantile(areas[areas > 0], 0.25):.2%} to {np.quantile(areas[areas > 0], 0.75):.2%}.\n"
    )
    page = DOCS / "toybox.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(text)
    if options.sheet:
        draw_sheet()


def draw_sheet() -> None:
    seeds = (*split_seeds("toybox-single")[:16], *split_seeds("toybox-multi")[:40], *split_seeds("toybox-entering")[:4])
    seeds += split_seeds("toybox-twins")[:4]
    sheet = Image.fromarray(preview(three_frames(seed) for seed in seeds))
    sheet.save(DOCS / "toybox.png", optimize=True)


def three_frames(seed: int) -> Sample:
    """The Sample of a seed, of its first, middle and last frame alone."""
    return draw(with_frames(make_story(seed), [0, 12, 24]))[0]


def with_frames(story: Story, frames: list[int]) -> Story:
    chosen = {name: getattr(story.states, name)[frames] for name in ("positions", "rotations")}
    return dataclasses.replace(story, states=dataclasses.replace(story.states, **chosen))


def facts(seed: int) -> dict[str, object]:
    """What is counted of one scene."""
    story = make_story(seed)
    truth = truth_of(story)
    words: Counter[str] = Counter()
    for deed in truth.deeds:
        words[deed.verb] += 1
        words[deed.pace] += 1
        words["bumps"] += bool(deed.bumps)
        words["is bumped"] += bool(deed.bumped_by)
        words["passes behind or before"] += bool(deed.passes)
        words["enters"] += bool(deed.enters)
        words["leaves"] += bool(deed.leaves)
    return {
        "toys": len(truth.deeds),
        "words": words,
        "displacements": [float(np.hypot(*deed.displacement)) for deed in truth.deeds],
        "contact": bool(truth.contacts),
        "occlusion": bool(truth.hidden_by.max() >= 0.15),
        "caption": len(story.text.caption.split()),
        "vocabulary": set(story.text.caption.lower().replace(".", "").replace(",", "").replace(";", "").split()),
        "attempts": story.attempt,
        "nothing": all(deed.verb == "stay" for deed in truth.deeds),
    }


def again_and_still(seed: int):
    """The motions of a scene's toys against the same scene played again, and against its first frame repeated."""
    first, second = labels(seed, 0), labels(seed, 1)
    still = MaskTrajectory(first.labels[[0, 0]], first.fps)
    areas = np.bincount(first.labels[0].ravel())[1:] / first.labels[0].size
    return list(object_motions(first, second).values()), list(object_motions(first, still).values()), areas


def labels(seed: int, again: int) -> MaskTrajectory:
    """The label maps of the first and the last frame; `again` names the toys in the same order."""
    trajectory = draw(with_frames(make_story(seed, again=again), [0, -1]))[0].trajectory
    assert trajectory is not None
    return trajectory


def table(scenes: list[dict], title: str) -> list[str]:
    toys = sum(scene["toys"] for scene in scenes)
    moved = np.array([d for scene in scenes for d in scene["displacements"]])
    vocabulary = set().union(*(scene["vocabulary"] for scene in scenes))
    rows = [
        ("toys in a scene, mean", f"{toys / len(scenes):.2f}"),
        ("toys that move > 10 % of the width", f"{(moved > 0.1).mean():.1%}"),
        ("displacement, median of those that move > 6 %", f"{np.median(moved[moved > 0.06]):.2f} of the width"),
        ("scenes with a contact of toys", f"{np.mean([s['contact'] for s in scenes]):.1%}"),
        ("scenes with an occlusion (≥ 15 % of a toy)", f"{np.mean([s['occlusion'] for s in scenes]):.1%}"),
        ("scenes in which nothing moves", f"{np.mean([s['nothing'] for s in scenes]):.1%}"),
        (
            "words in a caption, mean; different words",
            f"{np.mean([s['caption'] for s in scenes]):.0f}; {len(vocabulary)}",
        ),
        (
            "scenes drawn until one was legible, mean; most",
            f"{np.mean([s['attempts'] for s in scenes]):.1f}; {max(s['attempts'] for s in scenes)}",
        ),
    ]
    lines = [f"### {title}", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    # Each number on its own: what a toy does must not follow from how many there are.
    for who, counted in [("all toys", scenes), ("toys alone", [scene for scene in scenes if scene["toys"] == 1])]:
        words = sum((scene["words"] for scene in counted), Counter())
        toys = sum(scene["toys"] for scene in counted)
        if toys:
            lines += [f"Of {who}, " + ", ".join(f"{word} {words[word] / toys:.1%}" for word in WORDS) + ".", ""]
    return lines


if __name__ == "__main__":
    main()
