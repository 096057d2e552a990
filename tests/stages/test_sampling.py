"""The sampling loop: guidance in one batch, schedules, and gradient checkpointing with masks."""

import pytest
import torch
from tiny_stages import backbone_of, noise_like, plan_of, predict, wide_weight, with_random_layers

from throughmask.errors import InvalidValueError
from throughmask.nn.guidance import Guidance
from throughmask.nn.objective import linear_quadratic_sigmas
from throughmask.stages.conditioning import global_prompt
from throughmask.stages.sampling import sample_latents, seeded_noise


@pytest.mark.parametrize("name", ["motion", "paper", "cross-only", "self-only", "ti2v"])
@torch.no_grad()
def test_batched_guidance_is_three_forwards_and_the_formula(pipelines, conditions, name):
    pipeline, condition, guidance = pipelines[name], conditions[name], Guidance(image=1.7, text=4.2)
    denoiser, backbone = with_random_layers(pipeline), backbone_of(pipeline)
    torch.nn.init.normal_(
        denoiser.get_parameter(wide_weight(denoiser)), std=0.1
    )  # the picture counts, as in a trained model
    empty = global_prompt(backbone, pipeline.encoders, "")[0]
    branches = guidance.branches(condition, empty)
    latents, time = noise_like(condition)
    plan = plan_of(pipeline, branches)
    joined = backbone.denoise(denoiser, torch.cat([latents] * 3), time.expand(3), branches, plan)

    nobody = None if condition.sees is None else torch.zeros_like(condition.sees)
    no_text = condition._replace(text=empty[None], sees=nobody)
    no_label = None if condition.label is None else torch.full_like(condition.label, -1)
    nothing = no_text._replace(visual=torch.zeros_like(condition.visual), label=no_label)
    e_nothing, e_image, e_all = (predict(pipeline, each, denoiser=denoiser) for each in (nothing, no_text, condition))
    assert (e_nothing - e_image).abs().max() > 1e-3 < (e_image - e_all).abs().max()
    expected = e_nothing + 1.7 * (e_image - e_nothing) + 4.2 * (e_all - e_image)
    torch.testing.assert_close(guidance.combine(joined), expected, atol=1e-5, rtol=0)


def test_noise_is_drawn_seed_by_seed():
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 3)]
    noise = seeded_noise((2, 3), generators)
    assert noise.dtype == torch.float32
    assert torch.equal(noise[1:], seeded_noise((2, 3), [torch.Generator().manual_seed(3)]))


def _sample(pipeline, condition, **options):
    backbone, scheduler = backbone_of(pipeline), pipeline.scheduler
    latents, _ = noise_like(condition)
    empty = condition.text[0]
    return sample_latents(
        backbone, pipeline.transformer, scheduler, condition, empty, latents, guidance=Guidance(), **options
    )


@pytest.mark.parametrize("steps", [1, 4])
def test_the_linear_quadratic_schedule_is_movie_gens_whatever_the_schedulers_shift(pipelines, conditions, steps):
    pipeline, times = pipelines["motion"], []
    if "linear-quadratic" not in pipeline.info.layout.schedules:
        with pytest.raises(InvalidValueError, match="one of flow matching"):
            _sample(pipeline, conditions["motion"], steps=steps, schedule="linear-quadratic")
        return
    assert pipeline.scheduler.config.get("shift", 1) != 1
    _sample(
        pipeline,
        conditions["motion"],
        steps=steps,
        schedule="linear-quadratic",
        callback=lambda step, time, latents: times.append(float(time)),
    )
    assert times == pytest.approx([1000 * sigma for sigma in linear_quadratic_sigmas(steps)], rel=1e-5)


def test_a_schedule_that_does_not_fit_is_refused(pipelines, conditions):
    pipeline = pipelines["motion"]
    with pytest.raises(InvalidValueError, match="no such schedule"):
        type(pipeline)(**pipeline.components, schedule="cosine")
    with pytest.raises(InvalidValueError, match="no such schedule or repeat"):
        type(pipeline)(**pipeline.components, repeat="frames")


def test_a_batch_of_conditions_is_a_condition_for_each_sample(pipelines, conditions):
    pipeline, condition = pipelines["paper"], conditions["paper"]
    twice = type(condition)._make(torch.cat([part, part]) for part in condition)
    noise = torch.randn(2, *noise_like(condition)[0].shape[1:])
    empty = torch.zeros_like(condition.text[0])
    one, two = (
        sample_latents(
            backbone_of(pipeline),
            with_random_layers(pipeline),
            pipeline.scheduler,
            each,
            empty,
            noise,
            steps=2,
            guidance=Guidance(1.5, 3),
        )
        for each in (condition, twice)
    )
    torch.testing.assert_close(one, two)


def test_checkpointed_gradients_are_right_with_masks(pipelines, conditions):
    """Both forwards before any backward, with different labels: ambient masks would mix them up without an error."""
    pipeline, condition = pipelines["paper"], conditions["paper"]
    other = condition._replace(label=condition.label.flip(1), sees=condition.sees.flip(1))
    gradients = []
    for checkpointing in (False, True):
        denoiser = with_random_layers(pipeline).train()
        if checkpointing:
            denoiser.enable_gradient_checkpointing()
        outputs = [predict(pipeline, each, denoiser=denoiser) for each in (condition, other)]
        for output in outputs:
            output.square().mean().backward()
        gradients.append({name: value.grad for name, value in denoiser.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.slow
@torch.no_grad()
def test_the_denoiser_compiles_whole_and_once(pipelines, conditions):
    pipeline, condition = pipelines["paper"], conditions["paper"]
    denoiser = with_random_layers(pipeline)
    expected = predict(pipeline, condition, denoiser=denoiser)
    # A U-Net takes the code generator minutes; what it is given is traced just as well without.
    generator = "inductor" if backbone_of(pipeline).name == "wan" else "aot_eager"
    compiled = torch.compile(denoiser, fullgraph=True, backend=generator)
    torch.testing.assert_close(predict(pipeline, condition, denoiser=compiled), expected, atol=1e-5, rtol=0)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(5):
            generator = torch.Generator().manual_seed(seed)
            label = torch.randint(-1, 3, condition.label.shape, generator=generator)
            sees = torch.rand(condition.sees.shape, generator=generator) > 0.5
            other = condition._replace(label=label, sees=sees)
            want = predict(pipeline, other, denoiser=denoiser)
            torch.testing.assert_close(predict(pipeline, other, denoiser=compiled), want, atol=1e-5, rtol=0)
