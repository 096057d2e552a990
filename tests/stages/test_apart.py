"""Objects that are moved one after another, and laid together again."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_stages import FRAMES

from throughmask.stages.apart import groups, laid, part, rounds
from throughmask.types import SceneObject


def _scene(sample, *prompts):
    names = ("red ball", "blue block", "can", "left pin")
    objects = tuple(SceneObject(k, names[k - 1], prompt) for k, prompt in enumerate(prompts, 1))
    return replace(sample.scene, labels=np.zeros_like(sample.scene.labels), objects=objects)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (["the red ball rolls", "the blue block falls"], [(1,), (2,)]),
        (["the red ball rolls and hits the Blue Block", "the blue block falls"], [(1, 2)]),
        (["rolls", "falls", "the can is hit by the red ball", "the left pin tips over"], [(1, 3), (2,), (4,)]),
        (["it hits the can", "it passes behind the left pin", "the can", "hit by the can"], [(1, 2, 3, 4)]),
        (["a red ballerina of a ball", "it stands in a canyon", "the can"], [(1,), (2,), (3,)]),
        (["only one"], [(1,)]),
        ([], []),
    ],
)
def test_objects_belong_together_if_their_prompts_name_one_another(sample, prompts, expected):
    assert groups(_scene(sample, *prompts)) == expected


def test_of_a_part_alone_is_spoken(sample):
    scene = sample.scene
    one = part(scene, [2])
    assert one.objects == (SceneObject(1, scene.objects[1].name, scene.objects[1].prompt),)
    assert one.prompt == one.motion_prompt == scene.objects[1].prompt
    assert np.array_equal(one.labels == 1, scene.labels == 2)
    assert np.array_equal(one.image, scene.image)
    scene = _scene(sample, "The red ball rolls.", "falls", "the can is hit")
    assert [thing.id for thing in part(scene, (1, 3)).objects] == [1, 2]
    assert part(scene, (1, 3)).motion_prompt == "The red ball rolls. the can is hit"


def test_where_masks_overlap_the_smaller_of_the_frame_is_on_top():
    masks = {id: np.zeros((2, 4, 4), bool) for id in (1, 2, 7)}
    masks[1][0, :, :2], masks[2][0, :, 1:2] = True, True
    masks[1][1, :, 1:2], masks[2][1, :, :2] = True, True
    labels = laid(masks)
    assert labels.dtype == np.uint8
    assert labels[0, 0].tolist() == [1, 2, 0, 0]
    assert labels[1, 0].tolist() == [2, 1, 0, 0]


def test_apart_is_each_group_alone_with_noise_of_its_own(pipelines, sample):
    pipeline, scene, steps = pipelines["motion"], sample.scene, []
    options = {"steps": 2, "guidance": (1.0, 1.0), "frames": FRAMES}
    made = pipeline.propose(scene, [5], apart=True, callback_on_step_end=lambda *a: steps.append(a[1]) or {}, **options)
    assert steps == [0, 1] * rounds(scene, True) == [0, 1, 0, 1]
    generator, masks, sure = torch.Generator().manual_seed(5), {}, []
    for (id,) in groups(scene):
        each = pipeline.propose(part(scene, [id]), generators=[generator], **options)[0]
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


def test_what_belongs_together_is_moved_as_ever(pipelines, sample):
    pipeline, scene = pipelines["motion"], sample.scene
    single = replace(scene, labels=(scene.labels == 1).astype(np.uint8), objects=scene.objects[:1])
    first, second = scene.objects
    joined = replace(scene, objects=(first, replace(second, prompt=f"it hits the {first.name}")))
    options = {"steps": 1, "guidance": (1.0, 1.0), "frames": FRAMES}
    assert rounds(replace(scene, labels=0 * scene.labels, objects=()), True) == 1
    for each in (single, joined):
        assert rounds(each, True) == rounds(scene, False) == 1
        assert pipeline.move(each, apart=True, **options) == pipeline.move(each, **options)
