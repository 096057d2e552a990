"""Scenes of every kind go through both stages; decoded colours become labels of known objects."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_stages import FRAMES, SIZE, backbone_of, condition_of, copy_of, run

from throughmask.connected import remove_specks
from throughmask.stages.conditioning import decode
from throughmask.stages.init import make_stage
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Sample, Scene, Video


def _renamed(sample, ids):
    """The same Sample with other ids, in order: {1: 1, 2: 3} leaves a gap."""
    table = np.zeros(256, np.uint8)
    for old, new in ids.items():
        table[old] = new
    objects = tuple(replace(thing, id=ids[thing.id]) for thing in sample.scene.objects)
    scene = replace(sample.scene, labels=table[sample.scene.labels], objects=objects)
    return Sample(scene, MaskTrajectory(table[sample.trajectory.labels], sample.trajectory.fps), sample.video)


def _still(sample):
    """A Sample without any object: only the camera, or nothing, moves."""
    scene = Scene(sample.scene.image, np.zeros(SIZE, np.uint8), "an empty room")
    labels = np.zeros((FRAMES, *SIZE), np.uint8)
    return Sample(scene, MaskTrajectory(labels, sample.trajectory.fps), sample.video)


SCENES = {
    "two objects": lambda sample: sample,
    "ids 1 and 3": lambda sample: _renamed(sample, {1: 1, 2: 3}),
    "ids 12 and 13": lambda sample: _renamed(sample, {1: 12, 2: 13}),
    "no object": _still,
    "one enters": lambda sample: make_sample(4, num_objects=2, size=SIZE, frames=9, entering=True),
}


@pytest.fixture(params=SCENES)
def scene_sample(request, sample):
    return SCENES[request.param](sample)


@pytest.mark.slow
def test_a_scene_of_any_kind_goes_through_both_stages(pipelines, scene_sample):
    scene, frames = scene_sample.scene, len(scene_sample.video)
    proposals = copy_of(pipelines["motion"]).propose(scene, [0, 1], steps=2, frames=frames)
    assert len(proposals) == 2
    for proposal in proposals:
        assert proposal.motion.labels.shape == (frames, *SIZE)
        assert set(proposal.motion.ids) <= set(scene.ids)
        assert np.array_equal(proposal.motion.labels[0], scene.labels)
        assert 0 <= proposal.confidence <= 1
        Sample(scene, proposal.motion)  # checks itself
    assert bool(scene.objects) == (proposals[0].confidence < 1)  # random weights make colours far from any palette's
    for name in ("paper", "cross-only", "self-only"):
        video = run(copy_of(pipelines[name]), scene_sample)
        assert video.frames.shape == (frames, *SIZE, 3)
        assert video.fps == scene_sample.trajectory.fps


def test_perfect_colours_snap_to_their_labels_with_full_confidence(pipelines, scene_sample):
    pipeline = pipelines["motion"]
    colours = pipeline.info.palette.paint(scene_sample.trajectory.labels)
    labels, far = pipeline._snap(colours, scene_sample.scene)
    assert np.array_equal(labels, scene_sample.trajectory.labels)
    assert far == 0


def test_noisy_colours_snap_to_objects_of_the_scene_only(pipelines, sample):
    sample = _renamed(sample, {1: 2, 2: 7})
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, *SIZE, 3), dtype=np.uint8)
    labels, far = pipelines["motion"]._snap(noise, sample.scene)
    assert set(np.unique(labels)) == {0, 2, 7}
    assert 0.2 < far < 1


def test_local_prompts_belong_to_their_ids(pipelines, sample):
    gap = _renamed(sample, {1: 1, 2: 3})
    full, gappy = (condition_of(pipelines["paper"], each) for each in (sample, gap))
    assert gappy.local.shape[1] == gappy.sees.shape[2] == gappy.key_mask.shape[1] == 3
    for old, new in ((0, 0), (1, 2)):
        assert torch.equal(gappy.sees[:, :, new], full.sees[:, :, old])
        assert torch.equal(gappy.key_mask[:, new], full.key_mask[:, old])
        keep = full.key_mask[:, old]
        assert torch.equal(gappy.local[:, new][keep], full.local[:, old][keep])
    assert not gappy.sees[:, :, 1].any()
    assert not gappy.key_mask[:, 1].any()  # there is no object 2
    assert torch.equal(gappy.label, torch.where(full.label == 2, 3, full.label))


def test_the_motion_prompt_is_the_prompt_where_there_is_none(pipelines, sample):
    scene = replace(sample.scene, prompt="a red ball", motion_prompt="rolls to the left")
    other = replace(scene, prompt="a blue ball")
    texts = [
        condition_of(pipelines["motion"], Sample(each, sample.trajectory, sample.video)).text
        for each in (scene, other, replace(scene, motion_prompt=""), replace(other, motion_prompt=""))
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[2], texts[3])


def test_stage_one_of_flow_makes_a_video_and_stage_two_takes_it(base_name, pipelines, sample):
    stage = make_stage(base_name, "motion", recipe_name="flow", frames=FRAMES, fps="8")
    stage.set_progress_bar_config(disable=True)
    (flow,) = stage.move(sample.scene, seeds=[0], steps=2)
    assert isinstance(flow, Video)
    assert (len(flow), flow.size, flow.fps) == (FRAMES, SIZE, 8)
    video = pipelines["flow"].render(sample.scene, flow, steps=2)
    assert video.fps == 8
    assert pipelines["ti2v"].render(sample.scene, steps=2).fps == 12  # no motion: the checkpoint's own rate and length
    assert pipelines["ti2v"].render(sample.scene, steps=2, fps="30000/1001", frames=9).frames.shape[0] == 9


def test_a_proposal_is_the_decoded_latents_snapped_and_cleaned(pipelines, sample):
    """The rule: a region of under 1/16 of a token's pixels takes the label around it; frame 0 is the given mask."""
    pipeline, kept = pipelines["motion"], []
    (proposal,) = pipeline.propose(sample.scene, steps=2, callback_on_step_end=lambda *a: kept.append(a[3]["latents"]))
    (colours,) = decode(backbone_of(pipeline), pipeline.vae, kept[-1])
    snapped, far = pipeline._snap(colours, sample.scene)
    cleaned = remove_specks(snapped, round(pipeline.info.patch**2 / 16))
    cleaned[0] = sample.scene.labels
    assert np.array_equal(proposal.motion.labels, cleaned)
    assert not np.array_equal(cleaned[1:], snapped[1:])
    assert proposal.confidence == 1 - far


def test_labels_and_boxes_lie_where_the_objects_are(pipelines, sample):
    """Tokens are counted in the order of the latents: F, Y, X."""
    condition, info = condition_of(pipelines["paper"], sample), pipelines["paper"].info
    F, Y, X = info.grid(FRAMES).tokens(*SIZE)
    label, sees = condition.label.view(F, Y, X), condition.sees.view(F, Y, X, 2)
    first = sample.scene.labels.reshape(Y, info.patch, X, info.patch)
    for thing in (1, 2):
        covered = (first == thing).sum((1, 3))
        assert covered[label[0].numpy() == thing].min() >= info.patch**2 / 8
        assert sees[0, ..., thing - 1][torch.from_numpy(covered > 0)].all()
