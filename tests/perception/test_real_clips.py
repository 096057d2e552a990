"""Real clips with given masks: parsed, tracked, validated and scored; the tracker is a stub that knows the answer."""

import json

import numpy as np
import pytest

from throughmask import media, storage
from throughmask.cli import main, perceive
from throughmask.evaluate.segmentation import score_objects
from throughmask.types import MaskTrajectory, Video

# Each prompt names the objects in the order of the clip's own ids, for id k is the k-th object that is named. Of the
# clips with one object the oracle tells the first frames one by one, so that these will do.
CLIPS = {
    "davis16/blackswan": ("gt_union", 5, "A black swan glides across a calm pond.", ["black swan"]),
    "davis16/bmx-trees": ("gt_union", 5, "A rider rides past trees and jumps.", ["rider"]),
    "davis16/dog": ("gt_union", 5, "A dog walks and turns around on the grass.", ["dog"]),
    "davis16/horsejump-high": ("gt_union", 5, "A horse jumps over an obstacle.", ["horse"]),
    "davis16/motocross-jump": ("gt_union", 5, "A rider jumps off a dirt ramp.", ["rider"]),
    "davis17_multi/dogs_jump": (
        "gt_instances",
        66,
        "A dark dog jumps while a grey dog runs and a woman walks.",
        ["dark dog", "grey dog", "woman"],
    ),
}
# The rest in the slow lane.
EVERY = [pytest.param(clip, marks=[] if clip == "davis16/dog" else pytest.mark.slow) for clip in CLIPS]


class Knows:
    """A tracker that gives the same labels whatever it is shown: a real tracker's, or the truth."""

    def __init__(self, labels):
        self.labels, self.asked = labels, []

    def track(self, frames, phrases, first=None):
        self.asked.append((len(frames), dict(phrases), first))
        return self.labels


def labels_in(folder, count):
    """uint8 T H W; of a clip with one object everything is that object, as its oracle has it."""
    labels = np.stack([media.read_labels(path) for path in sorted(folder.glob("*.png"))[:count]])
    return (labels > 0).astype(np.uint8) if (folder.parent / "gt_union").is_dir() else labels


def call(*words):
    assert main([str(word) for word in words]) == 0


@pytest.fixture
def made(tmp_path, assets, monkeypatch):
    """A clip's own masks of frame 0, parsed; and what a tracker says of its video, in a Sample that is valid."""

    def run(clip, tracked):
        folder, (masks, count, prompt, names) = assets / "videos" / clip, CLIPS[clip]
        video = media.read_video(folder / "video.mp4")
        media.write_video(tmp_path / "clip.mp4", Video(video.frames[:count], video.fps))
        media.write_image(tmp_path / "photo.png", video.frames[0])
        media.write_labels(tmp_path / "masks.png", labels_in(folder / masks, 1)[0])
        given = ("--prompt", prompt, "--masks", tmp_path / "masks.png", "--out", tmp_path / "parsed")
        call("parse", tmp_path / "photo.png", *given)
        assert [thing.name for thing in storage.load_sample(tmp_path / "parsed").scene.objects] == names
        knows = Knows(labels_in(folder / tracked, count))
        monkeypatch.setattr(perceive, "open_perception", lambda *_, **__: knows)
        more = () if tracked == masks else ("--free",)  # a tracker's frame 0 need not be what is given
        words = ("--scene", tmp_path / "parsed", "--perception", "real", "--out", tmp_path / "tracked")
        call("track", tmp_path / "clip.mp4", *words, *more)
        call("validate", tmp_path / "tracked")
        assert [(length, phrases) for length, phrases, _ in knows.asked] == [(count, dict(enumerate(names, 1)))]
        assert (knows.asked[0][2] is None) == bool(more)
        return storage.load_sample(tmp_path / "tracked")

    return run


@pytest.mark.parametrize("clip", EVERY)
def test_true_masks_go_through_unchanged(made, assets, clip):
    sample = made(clip, CLIPS[clip][0])
    truth = labels_in(assets / "videos" / clip / CLIPS[clip][0], CLIPS[clip][1])
    assert np.array_equal(sample.trajectory.labels, truth)
    assert sample.video.frames.shape == (*truth.shape, 3)
    assert np.array_equal(sample.scene.labels, truth[0])


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
def test_a_real_trackers_masks_score_as_the_oracle_says(made, assets, clip):
    """J and F of what comes out at the end, against davis2017-evaluation's numbers of what went in."""
    sample = made(clip, "osvos_pred")
    masks, count, _, names = CLIPS[clip]
    truth = MaskTrajectory(labels_in(assets / "videos" / clip / masks, count), sample.trajectory.fps)
    scores = score_objects(truth, sample.trajectory)
    assert list(scores) == list(range(1, len(names) + 1))
    if len(names) > 1:
        expected = json.loads((assets / "oracles" / "dogs_jump_jf_per_object.json").read_text())
        for id, score in scores.items():
            assert score.region == pytest.approx(expected[str(id)]["J"], abs=1e-4)
            assert score.boundary.mean() == pytest.approx(expected[str(id)]["F_mean"], abs=1e-4)
        return
    every = json.loads((assets / "oracles" / "davis_jf.json").read_text())["seqs"]
    expected = every[clip.partition("/")[2]]["osvos_pred"]
    assert scores[1].region == pytest.approx(expected["J_frames_first5"], abs=1e-4)
    assert scores[1].boundary == pytest.approx(expected["F_frames_first5"], abs=1e-4)
