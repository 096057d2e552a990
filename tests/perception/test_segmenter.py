"""The segmenter by phrase: words, picture and earlier mask all matter; only ids with a phrase are labelled."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from throughmask.errors import InvalidValueError
from throughmask.perception.segmenter import PhraseEncoder, PhraseSegmenter, segment, track

TINY = {"text_dim": 16, "widths": (8, 8, 16, 16), "num_blocks": 1, "num_heads": 2}


def tiny(bias=0.0):
    torch.manual_seed(0)
    model = PhraseSegmenter(**TINY).eval()
    model.conv_out.bias.data.fill_(bias)
    return model


@pytest.fixture(scope="module")
def text():
    from transformers import UMT5Config, UMT5EncoderModel

    from throughmask.train.words import train_tokenizer

    torch.manual_seed(1)
    tokenizer = train_tokenizer(["a red ball"], 300)
    config = UMT5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return PhraseEncoder(tokenizer, UMT5EncoderModel(config).eval())


def inputs(batch=2, height=32, width=48):
    random = torch.Generator().manual_seed(2)
    pixels = torch.rand(batch, 3, height, width, generator=random) * 2 - 1
    states = torch.randn(batch, 5, 16, generator=random)
    mask = torch.ones(batch, 5, dtype=torch.bool)
    mask[1:, 3:] = False
    return pixels, states, mask


def test_the_size_of_the_bundled_one():
    assert sum(p.numel() for p in PhraseSegmenter().parameters()) < 1.85e6  # 46 MB are for five networks


@torch.no_grad()
def test_words_picture_and_prior_all_matter():
    model, (pixels, states, mask) = tiny(), inputs()
    prior = torch.zeros(2, 1, 32, 48)
    plain = model(pixels, states, mask)
    assert plain.shape == (2, 1, 32, 48)
    assert torch.equal(model(pixels, states, mask, prior), plain)  # an empty mask says nothing
    prior[0, :, 4:12, 4:12] = 1
    for other in (model(pixels.flip(-1), states, mask), model(pixels, -states, mask)):
        assert ((other - plain).abs().amax((1, 2, 3)) > 1e-3).all()
    known = model(pixels, states, mask, prior)
    assert (known[0] - plain[0]).abs().max() > 1e-3
    torch.testing.assert_close(known[1], plain[1])  # the other sample's prior is its own


@torch.no_grad()
def test_padding_says_nothing_and_one_picture_serves_many_phrases():
    model, (pixels, states, mask) = tiny(), inputs()
    other = torch.where(mask[..., None], states, 7.0)
    torch.testing.assert_close(model(pixels, other, mask), model(pixels, states, mask))
    features = model.encode_picture(pixels[:1])
    shared = model.decode(features, states, mask)
    for k in range(2):
        torch.testing.assert_close(shared[k : k + 1], model(pixels[:1], states[k : k + 1], mask[k : k + 1]))


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path):
    model, given = tiny(), inputs()
    model.save_pretrained(tmp_path)
    again = PhraseSegmenter.from_pretrained(tmp_path).eval()
    assert tuple(again.config.widths) == TINY["widths"]
    with torch.no_grad():
        assert torch.equal(model(*given), again(*given))


@pytest.mark.parametrize("size", [(32, 40), (20, 32), (0, 16)])
def test_sizes_that_do_not_divide_by_16(size, text):
    with pytest.raises(InvalidValueError, match="multiples of 16"):
        tiny()(torch.zeros(1, 3, *size), torch.zeros(1, 2, 16), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(InvalidValueError, match="multiples of 16"):
        segment(tiny(), text, np.zeros((*size, 3), np.uint8), {1: "ball"})


def test_labels_are_ids_that_have_a_phrase(text):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    phrases = {3: "a red ball", 7: "the blue can", 200: "a cone"}
    everywhere = segment(tiny(20.0), text, pixels, phrases)
    assert everywhere.dtype == np.uint8
    assert set(np.unique(everywhere)) <= set(phrases)
    assert len(np.unique(everywhere)) > 1
    # Which phrase comes first does not matter.
    assert np.array_equal(segment(tiny(20.0), text, pixels, dict(reversed(phrases.items()))), everywhere)
    assert not segment(tiny(-50.0), text, pixels, phrases).any()
    assert not segment(tiny(20.0), text, pixels, {}).any()
    for wrong in (0, 256):
        with pytest.raises(InvalidValueError, match="from 1 to 255"):
            segment(tiny(), text, pixels, {wrong: "ball"})


def test_a_track_is_segmented_frame_by_frame_after_the_last_found_mask(text):
    model, random = tiny(), np.random.default_rng(3)
    frames = random.integers(0, 256, (3, 32, 48, 3), np.uint8)
    phrases = {1: "a red ball", 2: "the blue can"}
    first = np.zeros((32, 48), np.uint8)
    first[3:9, 4:20], first[20:30, 30:40] = 1, 2
    labels = track(model, text, frames, phrases, first)
    assert np.array_equal(labels[0], first)
    assert np.array_equal(labels[1], segment(model, text, frames[1], phrases, first))
    alone = segment(model, text, frames[1], phrases)
    assert not np.array_equal(labels[1], alone)
    found = track(model, text, frames, phrases)
    assert np.array_equal(found[0], segment(model, text, frames[0], phrases))
    assert np.array_equal(found[1], segment(model, text, frames[1], phrases, found[0]))


def test_a_toy_that_is_doubted_everywhere_is_where_it_is_doubted_least(text, monkeypatch):
    """Not where it is sure, gone, or was never seen; and another's surer claim stands."""
    first = np.zeros((32, 32), np.uint8)
    first[4:12, 4:12], first[20:28, 20:28] = 1, 2
    place = torch.zeros(32, 32, dtype=torch.bool)
    place[6:14, 6:14] = True
    frames = np.zeros((2, 32, 32, 3), np.uint8)

    def found(inside, outside, other, phrases, first=first):
        logits = torch.stack([torch.where(place, inside, outside), torch.full((32, 32), other)])[:, None]
        monkeypatch.setattr(PhraseSegmenter, "decode", lambda self, *args: logits[: len(phrases)])
        return track(tiny(), text, frames, phrases, first)[1]

    one, both = {1: "a red ball"}, {1: "a red ball", 2: "the blue can"}
    assert ((found(-1.0, -9.0, 0.0, one) == 1) == place.numpy()).all()
    assert not found(-1.0, -9.0, 0.0, one, np.zeros_like(first)).any()
    assert not found(-5.0, -9.0, 0.0, one).any()
    assert ((found(3.0, -0.5, 0.0, one) == 1) == place.numpy()).all()
    assert (found(-1.0, -9.0, 5.0, both) == 2).all()


@pytest.mark.slow
def test_of_two_alike_the_prior_tells_which_even_after_it_was_hidden(text):
    """Two white squares on black; the phrase is the same. Learnt in seconds."""
    torch.manual_seed(0)
    model = PhraseSegmenter(**TINY)
    states, mask = (part.detach() for part in text(["a red ball"]))
    random = np.random.default_rng(0)

    def scene(hidden=False):
        pixels, labels = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
        for k in (1, 2):
            y, x = int(random.integers(0, 24)), int(random.integers(0, 8)) + 16 * (k - 1)
            pixels[y : y + 8, x : x + 8], labels[y : y + 8, x : x + 8] = 0 if hidden else 255, k
        return pixels, labels

    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(100):
        pixels, labels = (
            torch.from_numpy(np.stack(part)) for part in zip(*(scene(k == 0) for k in range(6)), strict=True)
        )
        mine = (labels == torch.from_numpy(random.integers(1, 3, size=6))[:, None, None]).float()[:, None]
        x = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        target = mine * (x.mean(1, keepdim=True) > 0)
        logits = model(x, states.expand(6, -1, -1), mask.expand(6, -1), torch.roll(mine, (1, -1), (2, 3)))
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(logits, target).backward()
        optimiser.step()
    model.eval()
    right = []
    for _ in range(10):
        pixels, first = scene()
        frames = np.stack([pixels, pixels, np.zeros_like(pixels), pixels])  # hidden for a moment
        labels = track(model, text, frames, {1: "a red ball", 2: "a red ball"}, first)
        assert labels[2].mean() < 0.05
        right += [(labels[t] == first)[first > 0].mean() for t in (1, 3)]
    assert np.mean(right) > 0.9


def test_a_few_pixels_are_no_toy(monkeypatch):
    from throughmask.perception import toybox

    labels = np.zeros((256, 256), np.uint8)
    labels[10:15, 10:15], labels[100:110, 100:110] = 1, 2
    monkeypatch.setattr(toybox, "segment", lambda *_: labels.copy())
    found = toybox.ToyboxPerception(None, None).segment(np.zeros((512, 512, 3), np.uint8), {1: "a", 2: "b"})
    assert found.shape == (512, 512)
    assert set(np.unique(found)) == {0, 2}
    assert (found == 2).sum() == 400


def test_a_small_piece_apart_is_not_the_toy_but_a_toy_may_be_parted(monkeypatch):
    from throughmask.perception import toybox

    labels = np.zeros((256, 256), np.uint8)
    labels[100:120, 100:120], labels[10:15, 10:15] = 1, 1  # 400 pixels, and 25 elsewhere
    labels[200:210, 20:40], labels[200:210, 50:60] = 2, 2  # 200 and 100: something stands before it
    monkeypatch.setattr(toybox, "segment", lambda *_: labels.copy())
    found = toybox.ToyboxPerception(None, None).segment(np.zeros((256, 256, 3), np.uint8), {1: "a", 2: "b"})
    assert [(found == id).sum() for id in (1, 2)] == [400, 300]
