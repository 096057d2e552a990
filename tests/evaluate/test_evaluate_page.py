"""The page: one file that asks for nothing, escapes what it shows, puts the worst first and stays below its size."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from oracles import ONE, TWO, Finder, Oracle

from throughmask import media
from throughmask.evaluate.benchmark import evaluate_scenes
from throughmask.evaluate.clips import LONGEST, MOST_BYTES, write_clips
from throughmask.evaluate.journal import Journal
from throughmask.evaluate.page import page, write_page
from throughmask.evaluate.scores import SceneScore, Scores
from throughmask.synthetic import make_sample
from throughmask.types import Video

NASTY = """<script>alert("x")</script> & 'ball' <img src=https://elsewhere.example/x.png>"""


class Reader(HTMLParser):
    """Collects tags with attributes, and the text of headings."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.headings, self.inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "h2":
            self.headings[-1] += data

    def of(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def scores(folder):
    cases = {7: ONE, 8: TWO}
    journal = Journal(folder, {"model": NASTY, "steps": 4})
    subject, finder = Oracle(ONE, TWO), Finder(ONE, TWO)
    scenes = evaluate_scenes(
        (7, 8), lambda seeds: [cases[s] for s in seeds], subject, finder, seeds=(0, 1), journal=journal
    )
    return Scores("toybox-128", (0, 1), scenes, {"made_with": journal.made_with, "key": journal.key})


@pytest.fixture(scope="module")
def text(folder, scores):
    return "".join(page(scores, folder / "clips" / scores.facts["key"]))


def scene_score(number, prompt, iou, **toy):
    tally = {"iou": (iou, 1)}
    toys = [{"id": 1, "name": "red ball", "verb": "roll", "iou": iou, "right": None, **toy}]
    return SceneScore(number, prompt, toys, {"motion": {"model": tally}}, {"motion": [tally]}, {})


def test_nothing_is_asked_of_any_other_place(text):
    reader = Reader(text)
    links = [value for _, attrs in reader.tags for name, value in attrs.items() if name in ("src", "href", "poster")]
    assert len(links) == 1 + 2 * 2 * 5  # an empty icon; two scenes with five clips and their pictures
    assert all(link.startswith("data:") for link in links)
    assert not {"link", "iframe", "object", "base"} & {tag for tag, attrs in reader.tags if attrs.get("rel") != "icon"}
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\b *\(", text)
    [policy] = [attrs["content"] for attrs in reader.of("meta") if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'")


def test_the_clips_are_the_ones_that_were_made(text, folder, scores):
    videos = Reader(text).of("video")
    assert {(video["preload"], "controls" in video) for video in videos} == {("none", True)}
    labels = [video["aria-label"] for video in videos[:5]]
    assert labels == [
        "true video",
        "true masks",
        "the model’s masks",
        "video of the true masks",
        "video of the model’s masks",
    ]
    first = base64.b64decode(videos[0]["src"].removeprefix("data:video/mp4;base64,"))
    assert first == (folder / "clips" / scores.facts["key"] / "7" / "truth.mp4").read_bytes()


def test_a_clip_is_a_video_that_browsers_play(folder, scores):
    clip = folder / "clips" / scores.facts["key"] / "7" / "truth.mp4"
    info = media.probe_video(clip)
    assert (info.codec, info.frames, info.size) == ("h264", 5, (64, 100))
    assert abs(media.read_video(clip).frames.astype(int) - ONE.video.frames).mean() < 6


def test_clips_of_large_or_noisy_videos_are_made_small(tmp_path):
    noise = make_sample(0, size=(300, 400), frames=5).video.frames.copy()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, noise.shape, dtype=noise.dtype)
    write_clips(tmp_path, {"noise": Video(noise, 12), "nothing": None})
    assert media.probe_video(tmp_path / "noise.mp4").size == (96, LONGEST[-1])
    write_clips(tmp_path, {"calm": Video(noise // 255, 12)})
    assert media.probe_video(tmp_path / "calm.mp4").size == (192, LONGEST[0])
    assert (tmp_path / "calm.mp4").stat().st_size <= MOST_BYTES
    assert not list(tmp_path.glob("nothing*"))


def test_all_text_is_escaped(text, tmp_path):
    scene = scene_score(3, NASTY, 0.5, name=NASTY, verb='"><b>')
    shown = "".join(page(Scores(NASTY, (0,), (scene,), {"made_with": {NASTY: NASTY}}), tmp_path))
    reader = Reader(shown)
    assert NASTY in reader.headings
    assert reader.of("script") == [{}]
    assert not reader.of("img")
    assert not reader.of("b") or all(not attrs for attrs in reader.of("b"))
    assert len(reader.of("title")) == 1
    assert "<b>" not in shown.split('class="facts"')[1].split("</table>")[0]
    assert NASTY not in shown
    assert NASTY not in text


def test_the_worst_scenes_come_first(tmp_path):
    scenes = tuple(scene_score(k, f"scene {k}", iou) for k, iou in enumerate((0.9, 0.1, 0.5)))
    reader = Reader("".join(page(Scores("x", (0,), scenes), tmp_path)))
    assert [heading for heading in reader.headings if heading.startswith("scene")] == ["scene 1", "scene 2", "scene 0"]
    items = [attrs for attrs in reader.of("li") if attrs.get("class") == "scene"]
    assert [attrs["data-scores"] for attrs in items] == [f'{{"motion.iou": {x}, "": {x}}}' for x in (0.1, 0.5, 0.9)]


def test_every_measure_of_the_table_is_on_the_page(text, scores):
    for mode in scores.modes:
        for measure, _, _ in scores.entries(mode):
            assert f">{measure.title}</span>" in text


@pytest.mark.slow
def test_128_scenes_fit_and_the_best_go_without_videos(tmp_path):
    scenes = tuple(scene_score(k, f"scene {k}", k / 128) for k in range(128))
    for scene in scenes:
        (tmp_path / str(scene.scene)).mkdir()
        for name in ("truth", "masks", "moved", "guided", "whole"):
            (tmp_path / str(scene.scene) / f"{name}.mp4").write_bytes(b"x" * (MOST_BYTES + 10_000))
            (tmp_path / str(scene.scene) / f"{name}.webp").write_bytes(b"x" * 8_000)
    write_page(tmp_path / "page.html", Scores("toybox-128", (0, 1, 2), scenes), tmp_path)
    assert (tmp_path / "page.html").stat().st_size < 60e6
    reader = Reader((tmp_path / "page.html").read_text())
    assert len(reader.of("video")) + len(reader.of("img")) == 128 * 5
    assert 100 * 5 < len(reader.of("video")) < 128 * 5
    assert not reader.of("img")[-1]["src"].startswith("data:video")


def test_a_page_takes_the_place_of_the_last_one(tmp_path, scores, folder):
    (tmp_path / "page.html").write_text("old")
    write_page(tmp_path / "page.html", scores, folder / "clips" / scores.facts["key"])
    assert (tmp_path / "page.html").read_text().endswith("</html>\n")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
