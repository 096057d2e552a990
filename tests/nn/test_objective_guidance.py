"""Objectives are consistent with themselves; guidance is the paper's formula; null conditions are the decided ones."""

import itertools

import pytest
import torch

from throughmask.errors import InvalidValueError
from throughmask.nn.guidance import Condition, Guidance, draw_drops, drop
from throughmask.nn.objective import FlowMatching, VPrediction, linear_quadratic_sigmas

OBJECTIVES = [FlowMatching(), FlowMatching(shift=3.0), VPrediction(), VPrediction(zero_terminal_snr=False)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_a_perfect_prediction_gives_the_data_back(objective):
    g = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 64, 4, 3, 2, 2, dtype=torch.float64, generator=g)
    time = objective.draw_times(64, g)
    mixed = objective.mix(clean, noise, time)
    torch.testing.assert_close(objective.clean(mixed, objective.target(clean, noise, time), time), clean)


def test_zero_terminal_snr_leaves_pure_noise_at_the_end():
    clean, noise = torch.randn(2, 1, 4)
    last = torch.tensor([999])
    torch.testing.assert_close(VPrediction().mix(clean, noise, last), noise)
    leaky = VPrediction(zero_terminal_snr=False).mix(clean, noise, last)
    assert not torch.allclose(leaky, noise, atol=1e-3)


def test_v_prediction_is_the_schedulers():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
    )
    objective, (clean, noise) = VPrediction(), torch.randn(2, 5, 4)
    time = torch.tensor([0, 10, 500, 998, 999])
    torch.testing.assert_close(objective.alphas_cumprod().float(), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-6)
    for ours, theirs in ((objective.mix, scheduler.add_noise), (objective.target, scheduler.get_velocity)):
        torch.testing.assert_close(ours(clean, noise, time), theirs(clean, noise, time), rtol=1e-3, atol=1e-3)


def test_times_of_flow_matching():
    g = torch.Generator().manual_seed(0)
    plain, shifted = FlowMatching().draw_times(20000, g), FlowMatching(shift=5.0).draw_times(20000, g)
    assert plain.min() > 0
    assert plain.max() < 1
    assert plain.median() == pytest.approx(0.5, abs=0.02)
    assert shifted.median() == pytest.approx(5 / 6, abs=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50, 250, 400])
def test_linear_quadratic_schedule_starts_at_noise_and_falls(steps):
    sigmas = [*linear_quadratic_sigmas(steps), 0.0]
    assert len(sigmas) == steps + 1
    assert sigmas[0] == 1
    assert all(a > b for a, b in itertools.pairwise(sigmas))


def test_linear_quadratic_schedule_has_movie_gens_first_half():
    sigmas = linear_quadratic_sigmas(50)
    assert sigmas[:25] == pytest.approx([1 - step / 250 for step in range(25)])
    drops = -torch.diff(torch.tensor([*sigmas, 0.0], dtype=torch.float64))
    second = torch.diff(drops[25:])
    assert second.std() < 1e-9  # quadratic: the second difference is constant
    with pytest.raises(InvalidValueError):
        linear_quadratic_sigmas(0)


def _condition(batch=4):
    g = torch.Generator().manual_seed(0)
    return Condition(
        visual=torch.randn(batch, 3, 2, 2, 2, generator=g),
        text=torch.randn(batch, 5, 6, generator=g),
        label=torch.randint(0, 3, (batch, 8), generator=g),
        sees=torch.rand(batch, 8, 2, generator=g) < 0.5,
        local=torch.randn(batch, 2, 3, 6, generator=g),
        key_mask=torch.ones(batch, 2, 3, dtype=torch.bool),
    )


def test_null_conditions():
    c, empty = _condition(), torch.randn(5, 6)
    image, text = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    d = drop(c, empty, image=image, text=text)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(c, d, strict=True))
    assert not d.visual[image].any()
    assert torch.equal(d.visual[~image], c.visual[~image])
    assert (d.label[image] == -1).all()
    assert torch.equal(d.label[~image], c.label[~image])
    assert not d.sees[image | text].any()
    assert torch.equal(d.text[text], empty.expand(2, 5, 6))
    assert torch.equal(d.text[~text], c.text[~text])


def test_a_stage_without_masked_attention_drops_too():
    c = _condition()._replace(label=None, sees=None, local=None, key_mask=None)
    d = drop(c, torch.zeros(5, 6), image=torch.ones(4, dtype=torch.bool), text=torch.ones(4, dtype=torch.bool))
    assert not d.visual.any()
    assert d.label is None


def test_training_drops_have_the_stated_rates():
    image, text = draw_drops(200_000, 0.05, torch.Generator().manual_seed(0))
    for rate in ((image & ~text), (text & ~image), (image & text)):
        assert rate.float().mean() == pytest.approx(0.05, abs=0.003)


@pytest.mark.parametrize(
    ("scales", "num"), [((1.0, 1.0), 1), ((1.0, 4.0), 2), ((2.0, 2.0), 2), ((1.5, 7.5), 3), ((0.0, 0.0), 1)]
)
def test_guidance_is_the_formula_and_skips_branches_that_do_not_count(scales, num):
    c, empty = _condition(), torch.randn(5, 6)
    guidance = Guidance(*scales)
    yes, no = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)
    network = lambda c: c.visual.sum((1, 2, 3, 4)) * 2 + c.text.sum((1, 2)) + c.label.sum(1) + c.sees.sum((1, 2))  # noqa: E731
    nothing = network(drop(c, empty, image=yes, text=yes))
    image = network(drop(c, empty, image=no, text=yes))
    expected = nothing + scales[0] * (image - nothing) + scales[1] * (network(c) - image)
    branches = guidance.branches(c, empty)
    assert len(branches.visual) == 4 * num == 4 * guidance.num_branches()
    torch.testing.assert_close(guidance.combine(network(branches)), expected, rtol=1e-4, atol=1e-4)


def test_guidance_must_be_a_number_from_zero_up():
    for bad in ((-1.0, 1.0), (1.0, float("nan")), (float("inf"), 1.0)):
        with pytest.raises(InvalidValueError, match="guidance"):
            Guidance(*bad).weights()
