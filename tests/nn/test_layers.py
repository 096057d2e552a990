"""The added layers: nothing at birth, exactly nothing where a token takes no part, right under checkpointing."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from throughmask.nn.attention import dense_self_attention
from throughmask.nn.layers import RegionCrossAttention, RegionSelfAttention, add, rotate, sort_rotary
from throughmask.nn.plan import SortPlan

B, N, D, HEADS = 2, 12, 16, 2
LABEL = torch.tensor([[0, 1, 1, 2, 0, -1, 2, 1, 0, 0, 1, -1], [0] * 6 + [3] * 6])


def _self(seed=0):
    torch.manual_seed(seed)
    layer = RegionSelfAttention(D, HEADS).double()
    assert not layer.to_out.weight.any()
    torch.nn.init.normal_(layer.to_out.weight)
    return layer


def test_layers_start_as_nothing():
    h, plan = torch.randn(B, N, D), SortPlan.of(LABEL)
    assert not RegionSelfAttention(D, HEADS)(h, LABEL, plan).any()
    cross = RegionCrossAttention(D, HEADS, context_dim=6)
    assert not cross(h, torch.randn(B, 2, 3, 6), torch.ones(B, N, 2, dtype=torch.bool)).any()


def test_self_layer_is_its_formula_with_rotary_positions():
    layer, h = _self(), torch.randn(B, N, D, dtype=torch.float64)
    angle = torch.randn(N, D // HEADS // 2, dtype=torch.float64)
    rotary = (angle.cos(), angle.sin())
    plan = SortPlan.of(LABEL)
    got = layer(h, LABEL, plan, sort_rotary(rotary, plan))
    x = layer.norm(h)
    heads = lambda y: y.unflatten(2, (HEADS, -1))  # noqa: E731
    in_place = tuple(part[None, :, None] for part in rotary)
    q, k = (rotate(heads(n(p(x))), in_place) for n, p in ((layer.norm_q, layer.to_q), (layer.norm_k, layer.to_k)))
    out = dense_self_attention(q.transpose(1, 2), k.transpose(1, 2), heads(layer.to_v(x)).transpose(1, 2), LABEL)
    torch.testing.assert_close(got, layer.to_out(out.transpose(1, 2).flatten(2)))


def test_another_objects_tokens_do_not_matter_and_no_part_is_exactly_zero():
    layer, plan = _self(), SortPlan.of(LABEL)
    h = torch.randn(B, N, D, dtype=torch.float64)
    other = torch.where((LABEL == 2)[..., None], torch.randn_like(h), h)
    difference = (layer(h, LABEL, plan) - layer(other, LABEL, plan)).abs().amax(-1)
    assert not difference[LABEL != 2].any()
    assert difference[0][LABEL[0] == 2].all()
    assert not layer(h, LABEL, plan)[LABEL < 0].any()


def test_norms_that_autocast_makes_float32_leave_the_kernel_its_half_precision(monkeypatch):
    """On a GPU autocast does so (torch.rms_norm is on its list); the CPU's does not, so here the norms do it."""
    seen = []

    def kernel(q, k, v, *_, **options):
        seen.extend([q.dtype, k.dtype, v.dtype])
        return torch.zeros_like(q)

    monkeypatch.setattr("throughmask.nn.layers.region_self_attention", kernel)
    layer, plan = RegionSelfAttention(D, HEADS), SortPlan.of(LABEL)
    layer.norm_q = layer.norm_k = torch.nn.Identity()
    monkeypatch.setattr(torch.nn.Identity, "forward", lambda self, x: x.float())
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(B, N, D), LABEL, plan)
    assert seen == [torch.bfloat16] * 3


def test_a_local_prompt_does_not_matter_where_it_is_not_seen():
    torch.manual_seed(0)
    layer = RegionCrossAttention(D, HEADS, context_dim=6)
    torch.nn.init.normal_(layer.to_out.weight)
    h, text = torch.randn(B, N, D), torch.randn(B, 2, 3, 6)
    sees = torch.stack([LABEL == 1, LABEL == 0], -1)
    changed = text.clone()
    changed[:, 0] += 1
    difference = (layer(h, text, sees) - layer(h, changed, sees)).abs().amax(-1)
    assert not difference[~sees[..., 0]].any()
    assert difference[sees[..., 0]].all()
    assert not layer(h, text, sees)[~sees.any(-1)].any()


def test_checkpointing_gives_the_same_gradients_when_the_next_batch_has_other_labels():
    layer = _self()
    h = torch.randn(B, N, D, dtype=torch.float64, requires_grad=True)

    def gradients(run):
        layer.zero_grad()
        losses = [run(labels).square().sum() for labels in (LABEL, LABEL.flip(1))]  # both forwards before any backward
        torch.stack(losses).sum().backward()
        return [p.grad.clone() for p in layer.parameters()]

    plain = gradients(lambda labels: layer(h, labels, SortPlan.of(labels)))
    saved = gradients(lambda labels: checkpoint(layer, h, labels, SortPlan.of(labels), use_reentrant=False))
    for a, b in zip(plain, saved, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_add_is_plus_with_its_gradients():
    x, y = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.equal(add(x, y), x + y)
    assert torch.autograd.gradcheck(add, (x, y))
    assert torch.autograd.gradgradcheck(add, (x, y))
    torch.library.opcheck(add, (x, y), test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))
    half = torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True)
    add(x.float(), half).sum().backward()  # as under autocast: the stream in float32, a layer's output in bfloat16
    assert half.grad.dtype == torch.bfloat16
    assert torch.equal(half.grad, torch.ones_like(half))


@pytest.mark.slow  # compiles
@torch.no_grad()
def test_a_compiled_block_keeps_one_sum_up_to_its_feed_forward():
    torch.manual_seed(0)
    h = torch.randn(1, 2048, 32)
    layers = [torch.nn.Linear(32, 32), torch.nn.Linear(32, 32), torch.nn.Linear(32, 256), torch.nn.Linear(256, 32)]

    def block(h):
        h = h + layers[0](torch.relu(h))
        h = add(h, layers[1](torch.relu(h)))
        return h + layers[3](torch.relu(layers[2](torch.relu(h))))

    # The sum, the feed-forward's eight times wider inside, its output; with `+` one summand more.
    assert _peak(torch.compile(block, fullgraph=True), h) < 10.1 * h.nbytes


def _peak(function, *arguments):
    """The most bytes that a call holds at once, of what it allocates."""
    function(*arguments)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function(*arguments)
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
