"""Every backend equals the dense definition, outputs and gradients, on the label patterns that occur and odd ones."""

import math

import pytest
import torch

from throughmask.errors import InvalidValueError
from throughmask.nn import attention_runs
from throughmask.nn.attention import (
    CROSS_BACKENDS,
    SELF_BACKENDS,
    CrossMask,
    choose_self_backend,
    dense_cross_attention,
    dense_self_attention,
    region_cross_attention,
    region_self_attention,
)
from throughmask.nn.plan import SortPlan

B, A, N, E = 3, 2, 150, 16  # FlexAttention on CUDA wants a head width of at least 16
CUDA = torch.cuda.is_available()
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="no CUDA device")])]


def _labels(pattern: str) -> torch.Tensor:
    g = torch.Generator().manual_seed(len(pattern))
    label = torch.randint(0, 5, (B, N), generator=g)
    if pattern == "absent objects":  # ids with gaps, different in each sample
        label = label * 3 + torch.arange(B)[:, None] * 40
    elif pattern == "one-token runs":
        label = torch.where(torch.rand(B, N, generator=g) < 0.9, 0, torch.arange(N) + 1)
    elif pattern == "all background":
        label = torch.zeros_like(label)
    elif pattern == "one object":
        label = torch.full_like(label, 7)
    elif pattern == "some take no part":
        label = torch.where(torch.rand(B, N, generator=g) < 0.3, -1, label)
    elif pattern == "one sample takes no part":
        label[1] = -1
    elif pattern == "nobody takes part":
        label = torch.full_like(label, -1)
    return label


PATTERNS = [
    "random",
    "absent objects",
    "one-token runs",
    "all background",
    "one object",
    "some take no part",
    "one sample takes no part",
    "nobody takes part",
]


def _tensors(*shapes, device="cpu", dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=torch.float64).to(device, dtype).requires_grad_() for s in shapes]


def _both(attend, tensors, grad):
    out = attend(*tensors)
    return [out, *torch.autograd.grad(out, tensors, grad)]


def _tolerance(dtype):
    return {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 2e-2, "atol": 2e-2}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("presorted", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "flex")) for name in SELF_BACKENDS],  # compiles
)
def test_self_attention_equals_its_definition(backend, pattern, presorted, device):
    dtype = torch.float64 if device == "cpu" else torch.bfloat16
    label = _labels(pattern).to(device)
    q, k, v, grad = _tensors(*[(B, A, N, E)] * 4, device=device, dtype=dtype)
    if device == "cpu" and backend in ("cudnn", "varlen"):
        with pytest.raises(InvalidValueError, match="cannot run here"):
            region_self_attention(q, k, v, label, backend=backend)
        return
    if device == "cpu" and backend == "flex":  # no backward on the CPU: refused with gradients, right without
        with pytest.raises(InvalidValueError, match="no backward"):
            region_self_attention(q, k, v, label, backend=backend)
        with torch.no_grad():
            got = region_self_attention(q.float(), k.float(), v.float(), label, backend="flex")
            torch.testing.assert_close(got, dense_self_attention(q, k, v, label).float(), rtol=1e-4, atol=1e-5)
        return
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = _both(lambda q, k, v: dense_self_attention(q, k, v, label), exact, grad.detach().double())

    def attend(q, k, v):
        plan = SortPlan.of(label)
        if not presorted:
            return region_self_attention(q, k, v, label, plan=plan, backend=backend)
        q, k, v = (plan.sort(x.transpose(1, 2)).transpose(1, 2) for x in (q, k, v))
        out = region_self_attention(q, k, v, label, plan=plan, presorted=True, backend=backend)
        return plan.unsort(out.transpose(1, 2)).transpose(1, 2)

    for got, want in zip(_both(attend, (q, k, v), grad.detach()), expected, strict=True):
        torch.testing.assert_close(got.double(), want, **_tolerance(dtype))
        assert not got.transpose(1, 2)[label < 0].any()  # exactly 0


def test_the_definition_is_the_papers_formula():
    q, k, v = _tensors(*[(1, 1, 4, E)] * 3)
    label = torch.tensor([[1, 0, 1, 0]])
    mask = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]], dtype=torch.float64)
    formula = torch.softmax(q @ k.mT / math.sqrt(E) + mask.log(), -1) @ v
    torch.testing.assert_close(dense_self_attention(q, k, v, label), formula)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("backend", CROSS_BACKENDS)
def test_cross_attention_equals_its_definition(backend, padded, device):
    dtype = torch.float64 if device == "cpu" else torch.bfloat16
    L, S = 3, 5
    q, k, v, grad = _tensors((B, A, N, E), *[(B, A, L, S, E)] * 2, (B, A, N, E), device=device, dtype=dtype)
    sees = (torch.rand(B, N, L, generator=torch.Generator().manual_seed(1)) < 0.3).to(device)
    sees[2] = False
    key_mask = (torch.arange(S) < torch.tensor([5, 3, 1])[:, None]).expand(B, L, S).to(device) if padded else None
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = _both(lambda q, k, v: dense_cross_attention(q, k, v, sees, key_mask), exact, grad.detach().double())
    got = _both(
        lambda q, k, v: region_cross_attention(q, k, v, sees, key_mask=key_mask, backend=backend),
        (q, k, v),
        grad.detach(),
    )
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, **_tolerance(dtype))
    assert not got[0].transpose(1, 2)[~sees.any(-1)].any()  # exactly 0


def test_layers_share_one_mask():
    """Made once, it is what each call would make: also where S does not divide by 8, and where a token sees nothing."""
    q, k, v = _tensors((B, A, N, E), *[(B, A, 3, 5, E)] * 2)
    sees = torch.rand(B, N, 3, generator=torch.Generator().manual_seed(1)) < 0.3
    key_mask = (torch.arange(5) < torch.tensor([5, 3, 1])[:, None]).expand(B, 3, 5)
    mask = CrossMask.of(sees, key_mask, 5, q.dtype)
    assert (mask.attn_mask.shape, mask.seen.shape) == ((B, 1, N, 15), (B, 1, N, 1))
    assert torch.equal((mask.attn_mask == 0) & mask.seen, (sees[..., None] & key_mask[:, None]).flatten(2)[:, None])
    shared = region_cross_attention(q, k, v, sees, key_mask=key_mask, mask=mask)
    torch.testing.assert_close(shared, region_cross_attention(q, k, v, sees, key_mask=key_mask), rtol=0, atol=1e-12)


def test_cross_attention_over_one_prompt_is_ordinary_attention_over_its_words():
    q, k, v = _tensors((1, 1, 4, E), *[(1, 1, 2, 3, E)] * 2)
    sees = torch.tensor([[[True, False]]]).expand(1, 4, 2)
    formula = torch.softmax(q @ k[:, :, 0].mT / math.sqrt(E), -1) @ v[:, :, 0]
    torch.testing.assert_close(region_cross_attention(q, k, v, sees), formula)


def test_padding_does_not_matter_at_all():
    q, k, v = _tensors((1, A, 4, E), *[(1, A, 1, 3, E)] * 2)
    sees, key_mask = torch.ones(1, 4, 1, dtype=torch.bool), torch.tensor([[[True, True, False]]])
    whole = region_cross_attention(q, k, v, sees, key_mask=key_mask)
    cut = region_cross_attention(q, k[:, :, :, :2], v[:, :, :, :2], sees)
    torch.testing.assert_close(whole, cut, rtol=1e-12, atol=1e-12)


def test_no_local_prompts_yield_zero():
    q = torch.randn(1, A, 4, E)
    none = torch.randn(1, A, 0, 3, E)
    assert not region_cross_attention(q, none, none, torch.zeros(1, 4, 0, dtype=torch.bool)).any()


def test_the_plan_sorts_within_each_sample_and_counts_what_takes_no_part():
    label = torch.tensor([[2, -1, 0, 2], [1, 1, 1, -1]])
    plan = SortPlan.of(label)
    assert plan.sort(label).tolist() == [[0, 2, 2, -1], [1, 1, 1, -1]]
    assert plan.list_runs() == [1, 2, -1, 3, -1]
    x = torch.randn(2, 4, 3)
    assert torch.equal(plan.unsort(plan.sort(x)), x)
    with pytest.raises(ValueError, match=r"-1\.\.255"):
        SortPlan.of(torch.tensor([[256]]))


@pytest.mark.slow
@pytest.mark.parametrize("op", ["sort_plan", "run_attention", "run_attention_backward"])
def test_ops_are_registered_as_torch_expects(op):
    label = _labels("some take no part")
    plan = SortPlan.of(label)
    q, k, v = (x.detach().reshape(B * N, A, E) for x in _tensors(*[(B, N, A, E)] * 3))
    tables = (plan.starts, plan.lengths, plan.runs, plan.num_runs, N, "runs")
    if op == "sort_plan":
        arguments = (label,)
    elif op == "run_attention":
        arguments = (*(x.requires_grad_() for x in (q, k, v)), *tables)
    else:
        out, stats = torch.ops.throughmask.run_attention(q, k, v, *tables)
        arguments = (torch.randn_like(q), q, k, v, out, stats, *tables)
    torch.library.opcheck(getattr(torch.ops.throughmask, op).default, arguments)


@pytest.mark.slow  # compiles
@pytest.mark.parametrize("given_plan", [True, False])
def test_twenty_label_maps_compile_once(given_plan):
    def attend(q, k, v, label, plan, text_k, text_v, sees):
        out = region_self_attention(q, k, v, label, plan=plan)
        return out + region_cross_attention(q, text_k, text_v, sees)

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True)
    q, k, v = _tensors(*[(B, A, N, E)] * 3, dtype=torch.float32)
    text_k, text_v = _tensors(*[(B, A, 2, 4, E)] * 2, dtype=torch.float32)

    def step(seed):
        g = torch.Generator().manual_seed(seed)
        label = torch.randint(-1, 2 + seed, (B, N), generator=g)
        sees = torch.rand(B, N, 2, generator=g) < 0.5
        plan = SortPlan.of(label) if given_plan else None
        got = compiled(q, k, v, label, plan, text_k, text_v, sees)
        got.sum().backward()
        want = dense_self_attention(q, k, v, label) + dense_cross_attention(q, text_k, text_v, sees)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)

    step(0)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in range(1, 20):
            step(seed)


def test_the_choice_of_backend():
    assert choose_self_backend(torch.zeros(1, 1, 8, 8)) == "runs"
    q = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InvalidValueError, match="no such"):
        region_self_attention(q, q, q, torch.zeros(1, 8), backend="magic")
    with pytest.raises(InvalidValueError, match="no such"):
        region_cross_attention(q, q[:, :, None], q[:, :, None], torch.ones(1, 8, 1, dtype=torch.bool), backend="magic")


def test_shapes_that_do_not_fit():
    q = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InvalidValueError, match="B A N E"):
        region_self_attention(q, q, q, torch.zeros(2, 8))
    with pytest.raises(InvalidValueError, match="plan"):
        region_self_attention(q, q, q, torch.zeros(1, 8), presorted=True)
    with pytest.raises(InvalidValueError, match="B A L S E"):
        region_cross_attention(q, q, q, torch.zeros(1, 8, 1))


def test_the_written_out_backward_is_autograds(monkeypatch):
    monkeypatch.setattr(attention_runs, "CHUNK", 7)
    q, k, v, grad = (x[0].transpose(0, 1) for x in _tensors(*[(1, A, 30, E)] * 4))
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = dense_self_attention(*(x.transpose(0, 1)[None] for x in leaves), torch.zeros(1, 30))[0].transpose(0, 1)
    expected = torch.autograd.grad(out, leaves, grad)
    for a, b in zip(attention_runs._written_out_backward(grad, *leaves, out), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
