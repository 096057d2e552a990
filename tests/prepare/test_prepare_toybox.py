"""From videos of toys and their captions alone to labels, training and an animation."""

import pytest
from toybox_videos import FRAMES, end_to_end

from throughmask.errors import SampleError
from throughmask.stages.bundle import bundled
from throughmask.storage import load_sample


@pytest.mark.large
@pytest.mark.timeout(3600)
def test_videos_without_masks_are_prepared_trained_on_and_animated(tmp_path):
    try:
        perception = bundled()
    except SampleError:
        pytest.skip("the bundled model is not in this installation")
    result = end_to_end(tmp_path, perception, videos=8, steps=20)
    assert result["samples"] == 8
    assert result["iou"] >= 0.85
    animated = load_sample(tmp_path / "animated")
    assert len(animated.video) == len(animated.trajectory) <= FRAMES
    assert animated.trajectory.ids
