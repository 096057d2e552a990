"""Binding: who is id 1, who may be missing, and what becomes of given masks."""

import numpy as np
import pytest

from throughmask.errors import InvalidValueError
from throughmask.perception.language import EnglishRules
from throughmask.perception.parse import painted_boxes, parse_scene, track_video
from throughmask.types import MaskTrajectory, Video

PROMPT = "the red ball rolls to the left and the blue block stays still"
RULES = EnglishRules()


class Oracle:
    """Perception that knows where things are, by name."""

    def __init__(self, places):
        self.places, self.asked = places, []

    def segment(self, image, phrases, hints=None):
        self.asked.append((dict(phrases), hints))
        labels = np.zeros(image.shape[:2], np.uint8)
        for id, phrase in phrases.items():
            if phrase in self.places:
                labels[self.places[phrase]] = id
        return labels

    def track(self, frames, phrases, first=None):
        labels = np.stack([self.segment(frame, phrases) for frame in frames])
        if first is not None:
            labels[0] = first
        return labels


IMAGE = np.zeros((32, 48, 3), np.uint8)
LEFT, RIGHT = np.s_[4:12, 4:12], np.s_[4:12, 30:40]


def test_ids_follow_the_order_of_naming():
    oracle = Oracle({"blue block": LEFT, "red ball": RIGHT})
    scene, unused, _, entering = parse_scene(IMAGE, PROMPT, RULES, oracle)
    assert [(thing.id, thing.name) for thing in scene.objects] == [(1, "red ball"), (2, "blue block")]
    assert (scene.labels[RIGHT] == 1).all()
    assert (scene.labels[LEFT] == 2).all()
    assert scene.prompt == PROMPT
    assert "ball" in scene.motion_prompt
    assert "red" not in scene.motion_prompt
    assert (unused, entering) == ((), ())
    hints = painted_boxes((32, 48), [(1, (30, 4, 40, 12))])
    parse_scene(IMAGE, PROMPT, RULES, oracle, hints=hints)
    assert oracle.asked[-1][1] is hints


def test_what_is_not_there_is_named_unless_it_enters():
    oracle = Oracle({"red ball": RIGHT})
    with pytest.raises(InvalidValueError, match=r"does not show what the prompt names \(seen: blue block\)"):
        parse_scene(IMAGE, PROMPT, RULES, oracle)
    parsed = parse_scene(IMAGE, "the red ball rolls left while a blue block enters from the right", RULES, oracle)
    assert parsed.entering == ("blue block",)
    assert [thing.id for thing in parsed.scene.objects] == [1, 2]
    assert set(np.unique(parsed.scene.labels)) == {0, 1}


def test_given_masks_replace_segmentation():
    masks = np.zeros((32, 48), np.uint8)
    masks[LEFT], masks[RIGHT], masks[20:24, 20:24] = 1, 2, 5
    scene = parse_scene(IMAGE, PROMPT, RULES, masks=masks).scene
    assert np.array_equal(scene.labels, masks)
    assert [(thing.id, thing.name) for thing in scene.objects] == [(1, "red ball"), (2, "blue block"), (5, "object")]
    with pytest.raises(InvalidValueError, match="32×40, not 32×48"):
        parse_scene(IMAGE, PROMPT, RULES, masks=masks[:, :40])
    still = parse_scene(IMAGE, "nothing", RULES, masks=np.zeros((32, 48), np.uint8)).scene
    assert still.objects == ()


def test_a_prompt_that_names_nothing():
    with pytest.raises(InvalidValueError, match="names no object"):
        parse_scene(IMAGE, "slowly to the left", RULES, Oracle({}))


def test_a_video_is_tracked_from_the_scenes_own_labels():
    oracle = Oracle({"red ball": LEFT, "blue block": RIGHT})
    scene = parse_scene(IMAGE, PROMPT, RULES, Oracle({"blue block": LEFT, "red ball": RIGHT})).scene
    video = Video(np.zeros((3, 32, 48, 3), np.uint8), 12)
    tracked = track_video(video, scene, oracle)
    assert isinstance(tracked, MaskTrajectory)
    assert tracked.fps == 12
    assert np.array_equal(tracked.labels[0], scene.labels)
    assert (tracked.labels[1][LEFT] == 1).all()
    assert (track_video(video, scene, oracle, from_scene=False).labels[0][LEFT] == 1).all()
    with pytest.raises(InvalidValueError, match="differ in size"):
        track_video(Video(video.frames[:, :16], 12), scene, oracle)


@pytest.mark.parametrize("box", [(0, 0, 49, 10), (5, 5, 5, 9), (-1, 0, 4, 4), (9, 9, 3, 12)])
def test_boxes_outside_the_picture(box):
    with pytest.raises(InvalidValueError, match="inside the picture"):
        painted_boxes((32, 48), [(1, box)])


def test_smaller_boxes_lie_on_top():
    labels = painted_boxes((32, 48), [(1, (4, 4, 8, 8)), (2, (0, 0, 20, 20))])
    assert labels[5, 5] == 1
    assert labels[1, 1] == 2
