"""A stage is born equal to its base, and learns from the first step."""

from copy import deepcopy

import pytest
import torch
from tiny_stages import ALL, BASE_FORWARD, noise_like, predict, wide_weight

from throughmask.nn.guidance import Condition
from throughmask.stages.init import load_base
from throughmask.stages.recipes import COND_LATENTS


def _random(condition: Condition) -> Condition:
    """The same condition with random latents: every new channel gets something to learn from."""
    return condition._replace(visual=torch.randn(condition.visual.shape))


@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_a_new_stage_predicts_what_its_base_predicts(base, pipelines, conditions, name):
    backbone, components = base
    condition = _random(conditions[name])
    latents, time = noise_like(condition)
    expected = BASE_FORWARD[backbone.name](components["transformer"], latents, time, condition.text)
    assert expected.std() > 0.1
    torch.testing.assert_close(predict(pipelines[name], condition), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_stage_takes_over_its_bases_weights_so_that_none_is_in_memory_twice(base_name):
    backbone, components = load_base(base_name)
    base = components["transformer"].to(torch.bfloat16)
    stage = backbone.build(base, cond_latents=COND_LATENTS, num_masked_blocks=1)
    added = {name for name, _ in stage.named_parameters() if ".masked_" in name}
    own = {name for name, value in base.state_dict(keep_vars=True).items() if value.dtype == torch.bfloat16}
    shared = {name for name in own if base.state_dict()[name].data_ptr() == stage.state_dict()[name].data_ptr()}
    assert own - shared == {wide_weight(stage)}
    assert {value.dtype for name, value in stage.named_parameters() if name in added} == {torch.bfloat16}
    assert all(value.requires_grad for value in stage.parameters())
    mine, theirs = dict(stage.named_buffers()), dict(base.named_buffers())
    assert mine.keys() == theirs.keys()
    assert all(mine[name].equal(theirs[name]) for name in mine)
    assert added
    for name in added:
        assert stage.get_parameter(name).any() != name.endswith("to_out.weight") or name.endswith("bias"), name


@pytest.mark.parametrize("name", ALL)
def test_learning_reaches_every_new_weight_and_ends_the_equality(pipelines, conditions, name):
    pipeline, condition = pipelines[name], _random(conditions[name])
    denoiser = deepcopy(pipeline.transformer).train()
    before = predict(pipeline, condition, denoiser=denoiser).detach()
    optimizer = torch.optim.SGD(denoiser.parameters(), lr=0.5)
    target = torch.randn(before.shape)
    learnt: set[str] = set()
    for _ in range(2):  # a layer that puts out zero passes no gradient to its inside: that comes with the second step
        optimizer.zero_grad()
        (predict(pipeline, condition, denoiser=denoiser) - target).square().mean().backward()
        learnt |= {key for key, value in denoiser.named_parameters() if value.grad is not None and value.grad.any()}
        optimizer.step()
        after = predict(pipeline, condition, denoiser=denoiser).detach()
        assert (after - before).abs().max() > 1e-3
    assert set(dict(denoiser.named_parameters())) == learnt
    wide, half = wide_weight(denoiser), condition.visual.shape[1] // 2
    assert not pipeline.transformer.get_parameter(wide)[:, half:].any()
    assert denoiser.get_parameter(wide)[:, half:].flatten(2).any(-1).all()
