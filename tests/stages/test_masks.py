"""Masks bind: what belongs to another object changes nothing, exactly; and Recipes differ in what they claim."""

import pytest
import torch
from tiny_stages import ALL, FRAMES, condition_of, first_masked, predict, with_random_layers

from throughmask.stages.init import make_stage
from throughmask.stages.recipes import RECIPES


def _outputs(denoiser, kind, run):
    """What the first added layer of that kind puts out during `run`, and its inputs."""
    layer = first_masked(denoiser, kind)
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append((inputs, output)))
    run()
    handle.remove()
    return kept[0]


@torch.no_grad()
def test_another_objects_prompt_changes_nothing_outside_its_boxes(pipelines, conditions):
    pipeline, condition = pipelines["paper"], conditions["paper"]
    denoiser = with_random_layers(pipeline)
    local = condition.local.clone()
    local[:, 0] += torch.randn_like(local[:, 0])
    _, one = _outputs(denoiser, "masked_cross", lambda: predict(pipeline, condition, denoiser=denoiser))
    other = condition._replace(local=local)
    _, two = _outputs(denoiser, "masked_cross", lambda: predict(pipeline, other, denoiser=denoiser))
    difference, inside = (one - two).abs().amax(-1), condition.sees[:, :, 0]
    assert inside.any()
    assert not inside.all()
    assert not difference[~inside].any()  # exactly 0
    assert difference[inside].all()
    assert not one[~condition.sees.any(-1)].any()  # no prompt seen, nothing added


@torch.no_grad()
def test_another_objects_tokens_change_nothing_inside_an_object(pipelines, conditions):
    pipeline, condition = pipelines["paper"], conditions["paper"]
    denoiser = with_random_layers(pipeline)
    (h, label, *rest), _ = _outputs(denoiser, "masked_self", lambda: predict(pipeline, condition, denoiser=denoiser))
    layer = first_masked(denoiser, "masked_self")
    for changed in (0, 1, 2):
        other = torch.where((label == changed)[..., None], torch.randn_like(h), h)
        difference = (layer(h, label, *rest) - layer(other, label, *rest)).abs().amax(-1)
        assert set(label[0].tolist()) == {0, 1, 2}
        assert not difference[label != changed].any()  # exactly 0
        assert difference[label == changed].all()


@torch.no_grad()
def test_padding_of_a_local_prompt_is_not_read(pipelines, conditions):
    pipeline, condition = pipelines["paper"], conditions["paper"]
    denoiser = with_random_layers(pipeline)
    assert not condition.key_mask.all()  # one of the prompts is shorter
    local = torch.where(condition.key_mask[..., None], condition.local, torch.randn_like(condition.local))
    one = predict(pipeline, condition, denoiser=denoiser)
    assert torch.equal(one, predict(pipeline, condition._replace(local=local), denoiser=denoiser))


CLAIMS = {  # label (masked self-attention), and sees, local and key_mask (masked cross-attention)
    "motion": (False, False),
    "paper": (True, True),
    "no-mask-attention": (False, False),
    "cross-only": (False, True),
    "self-only": (True, False),
    "ti2v": (False, False),
    "flow": (False, False),
    "bound": (True, True),
}


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_masks_what_it_claims_and_no_more(conditions, name):
    masks_self, masks_cross = CLAIMS[name]
    condition, paper = conditions[name], conditions["paper"]
    assert (condition.label is not None) == masks_self
    for part in (condition.sees, condition.local, condition.key_mask):
        assert (part is not None) == masks_cross
    for part in ("label", "sees", "local", "key_mask") * (name != "motion"):
        mine = getattr(condition, part)
        assert mine is None or torch.equal(mine, getattr(paper, part))


def test_recipes_see_the_same_picture_and_their_own_motion(conditions):
    half = conditions["paper"].visual.shape[1] // 2
    picture, motion = conditions["paper"].visual.split(half, dim=1)
    assert motion.std() > 0
    for name in RECIPES:
        own_picture, own_motion = conditions[name].visual.split(half, dim=1)
        assert torch.equal(own_picture, picture)
        assert torch.equal(conditions[name].text, conditions["paper"].text)
        assert torch.equal(own_motion, motion) == (RECIPES[name].motion == "labels")
    assert not conditions["ti2v"].visual[:, half:].any()
    # Stage 1 sees the painted first labels, then the picture, each standing still.
    labels, still = conditions["motion"].visual.split(half, dim=1)
    assert torch.equal(still, picture)
    assert torch.equal(still[:, :, :1].expand_as(still), still)
    assert torch.equal(labels[:, :, :1].expand_as(labels), labels)
    # The first latent sees the first frame only; how many frames go with it moves the last bits.
    torch.testing.assert_close(labels[:, :, 0], motion[:, :, 0], atol=1e-5, rtol=0)


def test_all_recipes_have_the_same_parameters(pipelines):
    shapes = {
        name: {key: value.shape for key, value in pipelines[name].transformer.named_parameters()} for name in RECIPES
    }
    assert all(shapes[name] == shapes["paper"] for name in RECIPES)
    count = {name: pipelines[name].transformer.num_parameters() for name in RECIPES}
    assert count["ti2v"] == count["paper"] > pipelines["motion"].transformer.num_parameters()


@torch.no_grad()
def test_unmasked_layers_join_all_tokens_and_read_the_global_prompt(pipelines, conditions):
    pipeline, condition = pipelines["ti2v"], conditions["ti2v"]
    denoiser = with_random_layers(pipeline)
    (h, *rest), one = _outputs(denoiser, "masked_self", lambda: predict(pipeline, condition, denoiser=denoiser))
    other = h.clone()
    other[:, -1] += torch.randn_like(h[:, -1])
    assert (first_masked(denoiser, "masked_self")(other, *rest) - one).abs().amax(-1).all()
    (h, text, sees, *_), one = _outputs(
        denoiser, "masked_cross", lambda: predict(pipeline, condition, denoiser=denoiser)
    )
    assert sees.all()
    assert text.shape[2] == condition.text.shape[1]
    assert one.abs().amax(-1).all()


@torch.no_grad()
def test_recipes_with_trained_layers_predict_differently(pipelines, conditions):
    predictions = {}
    for name in ("paper", "no-mask-attention", "cross-only", "self-only"):  # the same latents, text and weights
        denoiser = with_random_layers(pipelines[name])
        predictions[name] = predict(pipelines[name], conditions[name], denoiser=denoiser)
    names = list(predictions)
    for index, one in enumerate(names):
        for two in names[index + 1 :]:
            assert (predictions[one] - predictions[two]).abs().max() > 1e-4, (one, two)


@torch.no_grad()
def test_a_bound_stage_1_reads_each_prompt_where_its_object_begins(base_name, sample):
    pipeline = make_stage(base_name, "motion", recipe_name="bound", frames=FRAMES)
    condition = condition_of(pipeline, sample)
    plain = condition_of(make_stage(base_name, "motion", frames=FRAMES), sample)
    assert torch.equal(condition.visual, plain.visual)
    assert plain.sees is None
    # Untrained it is its base; with trained layers it minds which object a prompt belongs to, and where that begins.
    swapped = condition._replace(local=condition.local.flip(1), key_mask=condition.key_mask.flip(1))
    elsewhere = condition._replace(sees=condition.sees.flip(2))
    assert torch.equal(predict(pipeline, condition), predict(pipeline, swapped))
    denoiser = with_random_layers(pipeline)
    made, other, moved = (predict(pipeline, each, denoiser=denoiser) for each in (condition, swapped, elsewhere))
    assert (made - other).abs().max() > 1e-3
    torch.testing.assert_close(other, moved, atol=1e-5, rtol=0)  # two objects: the same said in two ways
    pipeline.set_progress_bar_config(disable=True)
    assert len(pipeline.move(sample.scene, steps=1, frames=FRAMES)[0]) == FRAMES
