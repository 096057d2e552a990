"""What the VAE learns from: passes over whole clips that are its own, batches, and the losses."""

from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from throughmask.backbones import backbone, wan_vae
from throughmask.errors import InvalidValueError
from throughmask.palette import OURS
from throughmask.synthetic import make_sample
from throughmask.train.clips import Clips
from throughmask.train.config import VAEConfig
from throughmask.train.vae import (
    Autoencode,
    ClipBatches,
    VAELearner,
    cut_where_right,
    imbalance,
    importance,
    latent_statistics,
    save_vae,
    snap_loss,
    start_vae,
)

CPU = torch.device("cpu")
TINY = {"frames": 5, "crop": 16, "batch": 4, "base_dim": 8, "z_dim": 8, "statistics": 8}
COLOURS = torch.tensor(OURS.colours).float() / 127.5 - 1


@pytest.fixture(scope="module")
def clips():
    samples = [make_sample(seed, size=(32, 36), frames=7, num_objects=2) for seed in range(3)]
    return Clips(
        *(np.stack(part) for part in zip(*((s.video.frames, s.trajectory.labels) for s in samples), strict=True))
    )


def tiny_vae(dim_mult=(1, 2, 4, 4)):
    torch.manual_seed(0)
    return start_vae(VAEConfig(base_dim=8, z_dim=4, dim_mult=dim_mult)).double()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "dim_mult"), [(1, (1, 2, 4, 4)), (5, (1, 2, 4, 4)), (13, (1, 2, 4, 4)), (9, (1, 2, 2))]
)
def test_whole_clips_are_encoded_and_decoded_as_the_vae_does_in_chunks(frames, dim_mult):
    vae = tiny_vae(dim_mult)
    x = torch.rand(2, 3, frames, 8, 16, dtype=torch.float64) * 2 - 1
    gradients = []
    for encode, decode in (
        (lambda x: vae.encode(x).latent_dist, lambda z: vae.decode(z).sample),
        (lambda x: wan_vae.encode(vae, x), lambda z: wan_vae.decode(vae, z).clamp(-1, 1)),
    ):
        vae.zero_grad()
        posterior = encode(x)
        y = decode(posterior.mean)
        (y.square().mean() + posterior.kl().mean()).backward()
        gradients.append([y, posterior.logvar, *(p.grad for p in vae.parameters() if p.grad is not None)])
    for chunks, once in zip(*gradients, strict=True):
        torch.testing.assert_close(once, chunks, rtol=1e-9, atol=1e-12)


def test_a_backbone_encodes_whole_clips_where_they_are_small(monkeypatch):
    vae = tiny_vae().float()
    pixels = torch.randint(0, 256, (2, 9, 16, 16, 3), dtype=torch.uint8)
    whole = backbone("wan").encode(vae, pixels)
    in_chunks = MagicMock(wraps=vae.encode)
    monkeypatch.setattr(vae, "encode", in_chunks)
    assert torch.equal(backbone("wan").encode(vae, pixels), whole)
    assert not in_chunks.called
    monkeypatch.setattr(wan_vae, "MOST", 2 * 9 * 16 * 16 * 8 - 1)
    torch.testing.assert_close(backbone("wan").encode(vae, pixels), whole)
    assert in_chunks.called


def test_a_vae_of_another_kind_is_refused():
    with pytest.raises(InvalidValueError, match=r"Wan 2\.2"):
        wan_vae.check_kind(AutoencoderKLWan(base_dim=8, z_dim=4, is_residual=True))


def test_batches_are_pieces_of_the_clips_with_their_ids(clips):
    data = ClipBatches(clips, VAEConfig(**TINY), CPU, 0)
    x, ids, toys, _ = data.batch()
    assert torch.equal(toys[2:], ids > 0)
    assert x.shape == (4, 3, 5, 16, 16)
    assert ids.shape == (2, 5, 16, 16)
    assert torch.equal(x[2:], COLOURS[ids].permute(0, 4, 1, 2, 3))
    pixels = ((x[:2] + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(clips.pixels, (5, 16, 16), axis=(1, 2, 3))  # N T Y X C t y x
    windows = windows.reshape(-1, *windows.shape[4:]).transpose(0, 2, 3, 4, 1)
    for piece in pixels:
        assert any(np.array_equal(piece, w) or np.array_equal(piece[:, :, ::-1], w) for w in windows)
    seen = {int(k) for _ in range(40) for k in data.batch().ids.unique()}
    assert seen == set(range(14))
    uncut = data.batch(uncut=True)
    assert uncut.x.shape == (4, 3, 5, 32, 32)  # of 7 frames of 32×36 as much as the VAE takes


def test_beyond_the_range_counts_only_where_it_is_wrong():
    x, y = torch.tensor([-1.0, -1, 0.2, 0.2, 1, 1]), torch.tensor([-3.0, 0, -3, 3, 3, 0], requires_grad=True)
    cut = cut_where_right(y, x)
    assert cut.tolist() == [-1, 0, -3, 3, 1, 0]
    cut.sum().backward()
    assert y.grad.tolist() == [0, 1, 1, 1, 0, 1]


def test_the_snap_loss_asks_for_the_right_side_of_the_middle():
    ids = torch.tensor([0, 1, 5]).view(1, 1, 1, 3)  # black and red, red and black, green and black
    exact = COLOURS[ids].permute(0, 4, 1, 2, 3)
    other = COLOURS[torch.tensor([1, 0, 0]).view(1, 1, 1, 3)].permute(0, 4, 1, 2, 3)
    losses = [float(snap_loss(exact.lerp(other, share), ids, COLOURS)) for share in (0, 0.2, 0.4, 0.6, 1)]
    assert losses == sorted(losses)
    assert losses[0] < 0.01
    assert losses[2] < np.log(2) < losses[3]


def test_imbalance_is_of_each_half_and_each_channel():
    torch.manual_seed(0)
    even = torch.randn(8, 3, 4, 32, 32)
    alike = torch.ones(8)
    assert imbalance(even, alike) < 1e-3
    apart = even + torch.tensor([1.0] * 4 + [-1.0] * 4).view(8, 1, 1, 1, 1)  # together still of mean 0
    assert imbalance(apart, alike) == pytest.approx(1, abs=0.05)
    assert imbalance(3 * even, alike) == pytest.approx(4, abs=0.05)
    constant = torch.ones(2, 3, 1, 1, 1, requires_grad=True)
    imbalance(constant, torch.ones(2)).backward()
    assert constant.grad.isfinite().all()


def test_imbalance_is_measured_as_over_all_pieces():
    torch.manual_seed(0)
    usual, rare = torch.randn(2, 4, 3, 1, 8, 8), torch.randn(2, 4, 3, 1, 8, 8) + 3
    here = torch.cat([usual, rare], 1).flatten(0, 1)  # as often here; truly one in four
    true = torch.cat([usual, usual, usual, rare], 1).flatten(0, 1)
    rarity = torch.tensor([3.0] * 4 + [1.0] * 4).repeat(2)
    assert imbalance(here, rarity) == pytest.approx(float(imbalance(true, torch.ones(32))), rel=1e-4)


def test_pieces_are_aimed_at_toys_and_know_how_rare_they_are():
    labels = np.zeros((4, 5, 96, 96), np.uint8)
    labels[:, :, 70:78, 20:28] = 1
    clips = Clips(np.zeros((*labels.shape, 3), np.uint8), labels)
    shares = {}
    for aim in (0.0, 0.5, 1.0):
        data = ClipBatches(clips, VAEConfig(**{**TINY, "batch": 64, "aim": aim}), CPU, 0)
        batches = [data.batch() for _ in range(20)]
        toys, rarity = (torch.cat([batch[k] for batch in batches]) for k in (2, 3))
        shares[aim] = toys.float().mean((1, 2, 3))
        if aim == 0.5:
            assert float(shares[aim].mean()) > 3 * float(shares[0.0].mean())
            assert float((shares[aim] * rarity).mean()) == pytest.approx(float(shares[0.0].mean()), rel=0.3)
            assert float(rarity.mean()) == pytest.approx(1, rel=0.15)
    assert (shares[1.0] > 0).all()


def test_both_sides_of_an_outline_count_alike():
    toys = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    toys[..., 10:30, 10:30] = True
    weight = importance(toys, 3.0)[0, 0, 0]
    assert weight.mean() == pytest.approx(1)
    assert weight[20, 10] == weight[20, 9] == weight[20, 6] == pytest.approx(4 * float(weight[20, 5]))


def test_statistics_are_those_of_whole_clips(clips):
    config, vae = VAEConfig(**TINY), tiny_vae().float()
    mean, std = latent_statistics(vae, ClipBatches(clips, config, CPU, 0), config)
    data = ClipBatches(clips, config, CPU, 0)
    with torch.no_grad():
        latents = torch.cat([vae.encode(data.batch(uncut=True).x).latent_dist.mode() for _ in range(2)])
    flat = latents.transpose(0, 1).flatten(1)
    assert mean == pytest.approx(flat.mean(1).tolist(), abs=1e-5)
    assert std == pytest.approx(flat.std(1, correction=0).tolist(), rel=1e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"channels_last": True}, {"snap": 0.1, "balance": 0.1}, {"dtype": "bfloat16", "crop": 8, "base_dim": 4}],
)
def test_a_step_lowers_the_loss_of_its_batch(clips, options):
    torch.manual_seed(0)
    config = VAEConfig(**{**TINY, **options})
    learner = VAELearner(config, CPU)
    batch = ClipBatches(clips, config, CPU, 0).batch()
    before = [p.detach().clone() for p in learner.vae.parameters()]
    losses = [float(learner.step(batch, 1e-3, 0.5)) for _ in range(4)]
    assert losses[-1] < losses[0]
    average = list(learner.average.values.values())
    new = list(learner.vae.parameters())
    between = [
        torch.dist(mean, old) < torch.dist(now, old) for mean, old, now in zip(average, before, new, strict=True)
    ]
    assert sum(map(bool, between)) > 0.9 * len(between)


def test_memory_layout_changes_no_number(clips):
    batch = ClipBatches(clips, VAEConfig(**TINY), CPU, 0).batch()
    losses = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        learner = VAELearner(VAEConfig(**TINY, channels_last=channels_last, snap=0.1, balance=0.1), CPU)
        losses.append([float(learner.step(batch, 1e-3, 0.5)) for _ in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_any_memory_layout_is_saved(tmp_path):
    learner = VAELearner(VAEConfig(**TINY, channels_last=True), CPU)
    save_vae(learner.vae, tmp_path / "vae", {"steps": 0})
    again = AutoencoderKLWan.from_pretrained(tmp_path / "vae")
    for (name, saved), value in zip(again.named_parameters(), learner.vae.parameters(), strict=True):
        torch.testing.assert_close(saved.float(), value, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.slow  # compiles
@torch.no_grad()
def test_a_training_forward_compiles_whole():
    model = Autoencode(tiny_vae().float())
    x = torch.rand(2, 3, 5, 8, 8) * 2 - 1
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for got, expected in zip(compiled(x)[1:], model(x)[1:], strict=True):  # the first holds noise
        torch.testing.assert_close(got, expected)
