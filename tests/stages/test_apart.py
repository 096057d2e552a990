"""Objects that are moved one after another, and laid together again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_stages import FRAMES

from throughmask.stages.apart import alone, laid
from throughmask.types import SceneObject


def test_alone_an_object_is_all_that_is_spoken_of(sample):
    scene = sample.scene
    one = alone(scene, 2)
    assert one.objects == (SceneObject(1, scene.objects[1].name, scene.objects[1].prompt),)
    assert one.prompt == one.motion_prompt == scene.objects[1].prompt
    assert np.array_equal(one.labels == 1, scene.labels == 2)
    assert one.image is scene.image or np.array_equal(one.image, scene.image)


def test_where_masks_overlap_the_smaller_of_the_frame_is_on_top():
    masks = {id: np.zeros((2, 4, 4), bool) for id in (1, 2, 7)}
    masks[1][0, :, :2], masks[2][0, :, 1:2] = True, True
    masks[1][1, :, 1:2], masks[2][1, :, :2] = True, True
    labels = laid(masks)
    assert labels.dtype == np.uint8
    assert labels[0, 0].tolist() == [1, 2, 0, 0]
    assert labels[1, 0].tolist() == [2, 1, 0, 0]


def test_apart_is_each_object_alone_with_noise_of_its_own(pipelines, sample):
    pipeline, scene, steps = pipelines["motion"], sample.scene, []
    options = {"steps": 2, "guidance": (1.0, 1.0), "frames": FRAMES}
    made = pipeline.propose(scene, [5], apart=True, callback_on_step_end=lambda *a: steps.append(a[1]) or {}, **options)
    assert steps == [0, 1] * pipeline.rounds(scene, True) == [0, 1, 0, 1]
    generator, masks, sure = torch.Generator().manual_seed(5), {}, []
    for id in scene.ids:
        each = pipeline.propose(alone(scene, id), generators=[generator], **options)[0]
        masks[id] = each.motion.labels == 1
        sure.append(each.confidence)
    expected = laid(masks)
    expected[0] = scene.labels
    assert np.array_equal(made[0].motion.labels, expected)
    assert made[0].confidence == pytest.approx(np.mean(sure))
    assert made[0].seed == 5
    assert made[0].motion != pipeline.propose(scene, [5], **options)[0].motion


@pytest.mark.slow
def test_a_seed_apart_gives_the_same_alone_and_among_others(pipelines, sample):
    options = {"steps": 1, "guidance": (1.0, 1.0), "frames": FRAMES, "apart": True}
    many = pipelines["motion"].move(sample.scene, [4, 5, 6], **options)
    one = pipelines["motion"].move(sample.scene, [5], **options)[0]
    assert np.mean(one.labels != many[1].labels) < 0.001


def test_one_object_is_moved_as_ever(pipelines, sample):
    pipeline, scene = pipelines["motion"], sample.scene
    single = replace(scene, labels=(scene.labels == 1).astype(np.uint8), objects=scene.objects[:1])
    options = {"steps": 1, "guidance": (1.0, 1.0), "frames": FRAMES}
    assert pipeline.rounds(single, True) == pipeline.rounds(scene, False) == 1
    assert pipeline.move(single, apart=True, **options) == pipeline.move(single, **options)
