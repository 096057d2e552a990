"""The bundled model itself, with the weights that are shipped: one real animation, and what the folder holds."""

import json

import numpy as np
import pytest

import throughmask
from throughmask import media
from throughmask.perception.language import EnglishRules
from throughmask.perception.toybox import ToyboxPerception
from throughmask.stages.bundle import Habits, bundled

UNNAMED = {1: "white pin", 2: "pink ball"}
STEPS = 6


@pytest.mark.slow
def test_what_is_named_moves_as_it_is_told_and_nothing_else_moves():
    picture = media.read_image(bundled() / "demo.png")
    made = throughmask.animate(picture, "the orange pill rolls to the right", steps=STEPS, progress=False)
    assert [thing.name for thing in made.sample.scene.objects] == ["orange pill"]
    width = picture.shape[1]
    frames = made.sample.video.frames
    seen = ToyboxPerception.load(bundled())
    named = seen.track(frames, {1: "orange pill"})
    places = _places(named, 1)
    assert places[-1][0] - places[0][0] > 0.05 * width
    others = seen.track(frames[[0, -1]], UNNAMED)
    for id, phrase in UNNAMED.items():
        first, last = _places(others, id)
        assert np.linalg.norm(last - first) < 0.02 * width, phrase


def test_the_folder_holds_what_its_card_says():
    folder = bundled()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 46_000_000
    card = (folder / "README.md").read_text(encoding="utf-8")
    habits = Habits.read(folder)
    assert f"{habits.steps} steps" in card
    for stage in ("motion", "video"):
        record = json.loads((folder / stage / "train.json").read_text(encoding="utf-8"))
        assert f"{record['step']:,} steps" in card


def test_the_demo_says_nothing_that_the_model_never_read():
    prompt = (bundled() / "demo.txt").read_text(encoding="utf-8").strip()
    reading = EnglishRules().read(prompt)
    assert len(reading.objects) == 2
    assert not Habits.read(bundled()).unread([reading.motion_prompt, *(thing.prompt for thing in reading.objects)])


def _places(labels, id):
    """Centres x y of an id in frames that show it."""
    found = []
    for frame in labels:
        ys, xs = np.nonzero(frame == id)
        assert len(xs), "not found again"
        found.append(np.array([xs.mean(), ys.mean()]))
    return found
