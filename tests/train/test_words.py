"""Words: what a text is said to tell is true of it, every string survives the tokenizer, and a tiny run learns."""

import json
import re
import shutil
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughmask.errors import InvalidValueError, SampleError
from throughmask.perception.segmenter import PhraseEncoder, load_words
from throughmask.toybox import make_story, split_seeds
from throughmask.toybox.kinds import COLOURS, HELD_OUT
from throughmask.toybox.words import PACES, VERBS, WAYS
from throughmask.train.augment import swap_sides
from throughmask.train.clips import Clips, origin_of
from throughmask.train.words import HELD_OUT as HELD_OUT_SPLITS
from throughmask.train.words import (
    WordsConfig,
    dice_loss,
    new_text_encoder,
    num_parameters,
    train_tokenizer,
    train_words,
)
from throughmask.train.words_batches import WordBatches, bend, roughen, shrunk
from throughmask.train.words_head import IGNORE, SLOTS, ToyHead, head_loss, name_targets, targets_of
from throughmask.train.words_score import overlaps, score_head
from throughmask.train.words_texts import (
    FIELDS,
    KINDS,
    Toy,
    absent_phrase,
    draw_phrase,
    make_stories,
    misspell,
    read_story,
    said,
    texts_of,
)

SEEDS = (7, 8, 1_100_000, 3_000_000)  # the last: two of a kind
BALL = Toy("red", "ball", "big", "shiny", "roll", "left", "slowly")


@pytest.fixture(scope="module")
def stories():
    return [read_story(seed, phrasings=3) for seed in SEEDS]


@pytest.fixture(scope="module")
def tokenizer(stories):
    return train_tokenizer(text for story in stories for telling in story.tellings for text in telling.prompts)


@given(st.text())
def test_every_string_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.unk_token_id not in ids
    assert ids[-1] == tokenizer.eos_token_id


def test_words_of_toybox_are_whole_and_special_tokens_in_a_prompt_are_letters(tokenizer, tmp_path):
    assert len(tokenizer(" the left orange can").input_ids) <= 5
    assert tokenizer(["a", "a b"], padding=True).attention_mask == [[1, 1, 0], [1, 1, 1]]
    text = "a </s> <unk> <pad> ball"
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    for each in (tokenizer, again):
        assert each(text).input_ids.count(each.eos_token_id) == 1
        assert each.decode(each(text).input_ids, skip_special_tokens=True) == text
    assert again.model_max_length == 128


def test_a_misspelt_word_lacks_doubles_or_swaps_a_letter():
    chance, text = np.random.default_rng(0), "the red barbell rolls slowly to the left"
    assert misspell(text, 0.0, chance) == text
    changed = 0
    for _ in range(50):
        for new, old in zip(misspell(text, 1.0, chance).split(" "), text.split(" "), strict=True):
            places = range(len(old) - 1)
            slips = {old[:k] + old[k + 1 :] for k in places} | {old[:k] + old[k] + old[k:] for k in places}
            slips |= {old[:k] + old[k + 1] + old[k] + old[k + 2 :] for k in places}
            assert new in (slips if len(old) > 2 else {old})
            changed += new != old
    assert changed > 50 * 6


def test_the_sizes_of_the_bundled_networks(tokenizer):
    assert 1.2e6 < num_parameters(new_text_encoder(tokenizer)) < 1.8e6
    assert 0.5e6 < num_parameters(ToyHead()) < 1.5e6


@pytest.mark.parametrize("seed", SEEDS)
def test_a_story_is_the_samples_own_in_other_words(stories, seed):
    story = stories[SEEDS.index(seed)]
    for k, telling in enumerate(story.tellings[:2]):
        text = make_story(seed, phrasing=k).text
        assert (telling.caption, telling.motion, telling.stripped) == (text.caption, text.motion, text.stripped)
        assert (telling.names, telling.prompts) == (text.names, text.prompts)
    assert story.tellings[0].ids == tuple(range(1, len(story.toys) + 1))
    for telling in story.tellings:
        assert sorted(telling.ids) == list(range(1, len(story.toys) + 1))
        for name, prompt, k in zip(telling.names, telling.prompts, telling.ids, strict=True):
            toy = story.toys[k - 1]
            assert name.endswith(f"{toy.colour} {toy.shape}")
            assert name in prompt


def test_stories_are_made_once(tmp_path):
    path = tmp_path / "stories.jsonl"
    made = make_stories(range(7, 9), path, phrasings=2)
    assert list(made) == [read_story(seed, 2) for seed in (7, 8)]
    path.write_text(path.read_text().replace(made[0].toys[0].shape, "teapot"))
    assert "teapot" in make_stories(range(7, 9), path, phrasings=2)[0].tellings[0].caption
    with pytest.raises(SampleError, match="other stories"):
        make_stories(range(7, 9), path, phrasings=3)


SENTENCES = [
    (BALL, "A red ball rolls slowly to the left.", "colour shape verb way pace"),
    (BALL, "The ball rolls leftward gently. The red can stays still.", "shape verb way pace"),
    (
        replace(BALL, bumped=True, pace=""),
        "A red ball is pushed to the left by the blue can.",
        "colour shape way pace",
    ),
    (
        replace(BALL, bumped=True, pace=""),
        "a red ball is hit by the can and rolls to the left",
        "colour shape verb way pace",
    ),
    (
        replace(BALL, bumped=True, verb="tip", pace=""),
        "a red ball is knocked over by the can",
        "colour shape verb pace",
    ),
    (
        replace(BALL, bumped=True, verb="stay", way="", pace=""),
        "the red ball is hit by the can but does not move",
        "colour shape verb way pace",
    ),
    (replace(BALL, enters="right", pace=""), "a red ball rolling in from the right", "colour shape verb way pace"),
    (
        replace(BALL, enters="front", way="away"),
        "a red ball rolling slowly in from the front",
        "colour shape verb pace",
    ),
    (
        replace(BALL, leaves="left"),
        "a red ball rolls slowly out of the frame on the left",
        "colour shape verb way pace",
    ),
    (
        replace(BALL, leaves="left", way="left away"),
        "a red ball rolls slowly out of the frame on the left",
        "colour shape verb pace",
    ),
    (
        replace(BALL, leaves="left", way="left away"),
        "a red ball rolls slowly to the back left, out of the picture",
        "colour shape verb way pace",
    ),
]


@pytest.mark.parametrize(("toy", "text", "fields"), SENTENCES)
def test_what_a_sentence_tells(toy, text, fields):
    told = said(text, toy, alone=True)
    assert set(told) == set(fields.split())
    assert all(value == getattr(toy, name) for name, value in told.items())
    mirrored = said(swap_sides(text), toy.mirrored(), alone=True)
    assert set(mirrored) == set(told)
    assert mirrored.get("way", "").replace("left", "right") == told.get("way", "").replace("left", "right")
    assert toy.mirrored().mirrored() == toy


def test_what_is_told_stands_in_the_text(stories):
    """Of local prompts, which tell of one toy each: its words are there, or what implies them."""
    told = [
        (prompt, said(prompt, story.toys[k - 1], alone=True), story.toys[k - 1])
        for story in stories
        for telling in story.tellings
        for prompt, (k,) in texts_of(telling, "prompt")
    ]
    for prompt, what, toy in told:
        assert f"{what['colour']} {what['shape']}" in prompt
        forms = {*chain(*VERBS[what.get("verb", "stay")])}
        forms |= {"does not move", "not moving", "nudged", "knocked over"} if toy.bumped else set()
        assert "verb" not in what or any(form in prompt for form in forms)
        sides = re.findall(r"(?:from|on) the (left|right)", prompt)
        assert not what.get("way") or sides or any(word in prompt for word in WAYS[what["way"]])
        assert not what.get("pace") or any(word in prompt for word in PACES[what["pace"]])
    assert sum("way" in what for _, what, _ in told) > len(told) / 2


def test_targets_are_in_the_texts_order_and_leave_open_what_is_not_said():
    can = Toy("blue", "can", "", "matte", "slide", "right", bumped=True)
    targets = targets_of("A red ball rolls slowly to the left and hits the can.", [BALL, can], alone=False)
    assert targets["present"] == [1, 1, 0, 0, 0]
    assert targets["colour"] == [FIELDS["colour"].index("red"), *[IGNORE] * 4]
    assert targets["shape"][:3] == [FIELDS["shape"].index("ball"), FIELDS["shape"].index("can"), IGNORE]
    assert targets["verb"][:2] == [FIELDS["verb"].index("roll"), IGNORE]
    alone = targets_of("a red ball", [BALL], alone=True)
    assert alone["present"] == [1, *[IGNORE] * 4]
    name = name_targets("red ball", BALL)
    assert name["colour"] == alone["colour"]
    assert name["verb"] == name["way"] == name["pace"] == [IGNORE] * SLOTS


@torch.no_grad()
def test_the_head_knows_the_order_of_a_text_and_passes_over_padding():
    torch.manual_seed(0)
    head, mask = ToyHead(16, 1, 2).eval(), torch.tensor([[True, True, True, False]])
    text = torch.randn(1, 4, 16)
    shape = head(text, mask)["shape"]
    assert (head(text[:, [1, 0, 2, 3]], mask)["shape"] - shape).abs().max() > 1e-3
    torch.testing.assert_close(head(text.index_fill(1, torch.tensor(3), 9.0), mask)["shape"], shape)


def test_the_heads_loss_counts_only_what_is_told():
    targets = {name: torch.full((2, SLOTS), IGNORE) for name in ("present", *FIELDS)}
    logits = {name: torch.randn(2, SLOTS, len(FIELDS.get(name, "ab"))) for name in targets}
    assert head_loss(logits, targets) == 0
    targets["colour"][1, 0] = 3
    expected = -logits["colour"][1, 0].log_softmax(0)[3]
    torch.testing.assert_close(head_loss(logits, targets), expected)


def test_phrases_mean_one_toy(stories):
    chance = np.random.default_rng(0)
    held, by_place = set(), 0
    for story in stories:
        names = {(toy.colour, toy.shape) for toy in story.toys}
        for _ in range(60):
            telling = story.tellings[int(chance.integers(3))]
            index = int(chance.integers(len(telling.ids)))
            phrase, toy = draw_phrase(story, telling, index, chance), story.toys[telling.ids[index] - 1]
            held.add(phrase.holds)
            assert toy.shape in phrase.text
            if re.search(
                f"(left|right|front|back|middle) {toy.shape}$", phrase.text
            ):  # "the left can", of two white ones
                assert {t.colour for t in story.toys if t.shape == toy.shape} == {toy.colour}
                by_place += 1
            fitting = [
                t
                for t in story.toys
                if t.shape == toy.shape and (t.colour == toy.colour or toy.colour not in phrase.text)
            ]
            assert len(fitting) == 1 or phrase.holds != "always" or re.search("big|small", phrase.text)
            absent = absent_phrase(story, chance).split()[-2:]
            assert tuple(absent) not in names
            assert tuple(absent) not in HELD_OUT
    assert held == {"always", "at first", "never"}
    assert by_place


def clips_of(stories, size=64, frames=3):
    """Blocks of the toys' colours that drift over a floor whose shade tells clip and frame: no OpenGL is needed."""
    pixels = np.zeros((len(stories), frames, size, size, 3), np.uint8)
    labels = np.zeros((len(stories), frames, size, size), np.uint8)
    for n, story in enumerate(stories):
        for t in range(frames):
            pixels[n, t] = 40 * n + 10 * t
            for k, toy in enumerate(story.toys, 1):
                labels[n, t, 4 + t : 24 + t, 10 * k : 10 * k + 6] = k
                pixels[n, t, labels[n, t] == k] = np.array(COLOURS[toy.colour]) * 255
    return Clips(pixels, labels)


def test_a_batchs_masks_are_of_the_toys_that_its_phrases_name(stories, tokenizer):
    config = WordsConfig(batch=8, phrases=3, texts=4, typos=0.0, half=0.0, bend=0.0, absent=0.2, prior=0.5)
    clips = clips_of(stories)
    data = WordBatches(clips, stories, tokenizer, config, torch.device("cpu"), 0)
    seen = {"empty": 0, "mirrored": 0, "prior": 0}
    for step in range(4):
        draw = data.draws[step]
        batch = data.join(draw)
        clip, frame, flip, ids, prior_frames, prior_ids = draw.which
        assert (prior_frames != frame[:, None]).all()  # the answer is not given away
        assert batch.pixels.shape == (8, 3, 64, 64)
        assert batch.target.shape == batch.prior.shape == (24, 1, 64, 64)
        for m, (words, target) in enumerate(zip(batch.phrase_ids, batch.target[:, 0], strict=True)):
            b = m // 3
            phrase = tokenizer.decode(words, skip_special_tokens=True)
            phrase = swap_sides(phrase) if flip[b] else phrase
            k, story = int(ids.flatten()[m]), stories[clip[b]]
            if k == 255:
                assert not target.any()
                assert not any(re.search(f"{toy.colour} {toy.shape}$", phrase) for toy in story.toys)
                seen["empty"] += 1
            else:
                assert story.toys[k - 1].shape in phrase
                truth = torch.from_numpy(clips.labels[clip[b], frame[b]] == k).float()
                assert torch.equal(target, truth.flip(-1) if flip[b] else truth)
                seen["mirrored"] += int(flip[b])
            assert (prior_ids.flatten()[m] == 255) == (not batch.prior[m].any())
            seen["prior"] += int(batch.prior[m].any())
    assert min(seen.values()) > 3


def test_bent_pictures_take_their_masks_along():
    """Discs that are their own masks: bent, some blurred, and still each under its mask; others are as they were."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    discs = [((y - cy) ** 2 + (x - cx) ** 2 < 400).float()[None] for cy, cx in ((40, 40), (80, 90))] * 32
    masks = torch.stack(discs)
    pixels = masks.unflatten(0, (32, 2)).sum(1).expand(-1, 3, -1, -1)
    bent, moved = bend(pixels, masks, 0.5, torch.Generator().manual_seed(0))
    assert (bent.shape, moved.shape) == (pixels.shape, masks.shape)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    changed = (bent - pixels).abs().amax((1, 2, 3)) > 1e-3
    assert 8 < changed.sum() < 24
    assert torch.equal(moved[~changed.repeat_interleave(2)], masks[~changed.repeat_interleave(2)])
    assert ((moved != masks).float().mean((1, 2, 3)) > 0.005).sum() > 8
    both = moved.unflatten(0, (32, 2)).sum(1)[:, 0]
    same = ((bent[:, 0] > 0.5) == (both > 0)).float().mean((1, 2))
    assert same.min() > 0.99  # picture and mask went the same way


def test_mirrored_texts_tell_the_mirrored_way(stories, tokenizer):
    """Every way that a batch tells is in its text's words, whether or not the text was mirrored."""
    config = WordsConfig(batch=1, phrases=1, texts=40, typos=0.0, half=0.0)
    data = WordBatches(clips_of(stories), stories, tokenizer, config, torch.device("cpu"), 0)
    batch = next(iter(data))
    checked = 0
    for words, ways in zip(batch.text_ids, batch.told["way"], strict=True):
        text = tokenizer.decode(words, skip_special_tokens=True)
        for way in (FIELDS["way"][k] for k in ways if k != IGNORE):
            if way in ("left", "right"):
                assert re.search(f"{way}|from the {'left' if way == 'right' else 'right'}", text)
                checked += 1
    assert checked > 5


@pytest.mark.parametrize("factor", [1, 2])
def test_shrunk_clips_keep_their_toys(stories, factor):
    clips = clips_of(stories)
    pixels, labels = shrunk(clips, factor, torch.device("cpu"))
    assert pixels.shape == (len(stories), 3, 64 // factor, 64 // factor, 3)
    assert torch.equal(pixels[:, :, 0, 0], torch.from_numpy(clips.pixels[:, :, 0, 0]))
    assert torch.equal(labels[:, 0], torch.from_numpy(clips.labels[:, 0, ::factor, ::factor]))


def test_rough_masks_are_near_the_true_ones():
    masks = torch.zeros(64, 1, 64, 64)
    masks[:, :, 20:40, 20:40] = 1
    rough = roughen(masks, torch.Generator().manual_seed(0))
    assert set(rough.unique().tolist()) == {0.0, 1.0}
    common, union = (rough * masks).sum((1, 2, 3)), torch.maximum(rough, masks).sum((1, 2, 3))
    assert (common / union).min() > 0.5
    assert len(set((common / union).tolist())) >= 4


def test_scores_and_losses_of_masks():
    truth = np.zeros((8, 8), np.uint8)
    truth[:4, :4], truth[6:, 6:] = 1, 2
    found = truth.copy()
    found[:2] = 0
    assert overlaps(truth, found, (1, 2, 3), least=4) == [0.5, 1.0]
    assert overlaps(truth, found, (1, 2), least=10) == [0.5]
    target = torch.from_numpy(truth == 1).float()[None, None]
    right, wrong = 40 * (2 * target - 1), -40 * torch.ones_like(target)
    assert dice_loss(right, target) == pytest.approx(0)
    assert dice_loss(wrong, target) == pytest.approx(1)
    assert dice_loss(torch.cat([right, wrong]), torch.cat([target, 0 * target])) == pytest.approx(
        0
    )  # empty: not counted


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"clips": "out/samples"}, r"toybox:A\.\.B"),
        ({"clips": "toybox:5..1"}, r"toybox:A\.\.B"),
        ({"batch": 0}, "at least 1"),
        ({"typos": 1.5}, "from 0 to 1"),
        ({"minutes": 0.0}, "positive"),
        ({"vocabulary": 100}, "at least 300"),
        ({"evaluate": -1}, "negative"),
        ({"dtype": "half"}, "float32 or bfloat16"),
    ],
)
def test_bad_configs(fields, words):
    with pytest.raises(InvalidValueError, match=words):
        WordsConfig(**fields)


def test_clips_of_a_size_that_does_not_divide(stories, tokenizer):
    config = WordsConfig(half=0.5)
    with pytest.raises(InvalidValueError, match="multiples of 16"):
        WordBatches(clips_of(stories, size=48), stories, tokenizer, config, torch.device("cpu"), 0)


def test_every_kind_of_text_tells_of_its_toys(stories):
    for story in stories:
        for kind in KINDS:
            for text, ids in texts_of(story.tellings[1], kind):
                assert all(story.toys[k - 1].shape in text for k in ids)


def write_clips(folder, first, last):
    """Painted clips of Toybox's seeds, as `make_clips` would leave them."""
    clips = clips_of([read_story(seed, 1) for seed in range(first, last + 1)])
    folder.mkdir()
    np.save(folder / "pixels.npy", clips.pixels)
    np.save(folder / "labels.npy", clips.labels)
    (folder / "source.json").write_text(json.dumps(origin_of(f"toybox:{first}..{last}")))


@pytest.mark.slow
def test_a_tiny_run_learns_and_leaves_what_loads_with_its_scores(tmp_path):
    cache = tmp_path / "clips"
    write_clips(cache, 7, 8)
    for split in HELD_OUT_SPLITS:
        seed = split_seeds(split)[0]
        write_clips(tmp_path / f"clips-{split}-1", seed, seed)
    config = WordsConfig(
        clips="toybox:7..8",
        cache=str(cache),
        out=str(tmp_path / "words"),
        steps=30,
        warmup=5,
        batch=4,
        phrases=2,
        texts=8,
        phrasings=2,
        half=0.0,
        lr=3e-3,
        width=32,
        layers=1,
        ema=0.9,
        evaluate=2,
        log_every=5,
        workers=2,
        device="cpu",
    )
    lines: list[str] = []
    result = train_words(config, lines.append)
    losses = [re.findall(r"(?:pixels|overlap|words) ([\d.]+)", line) for line in lines if line.startswith("step")]
    _, overlap, words = np.array(losses, float).T
    assert overlap[-2:].mean() < 0.8 * overlap[0]
    assert words[-2:].mean() < 0.9 * words[0]
    record = json.loads((tmp_path / "words" / "train.json").read_text())
    assert record["config"]["steps"] == record["steps"] == 30
    assert record["scores"] == result["scores"]
    assert set(record["scores"]) == {*HELD_OUT_SPLITS, "texts", "misspelt"}
    assert record["scores"]["toybox-single"]["iou"] > 0.2
    text, segmenter = load_words(tmp_path / "words")
    head = ToyHead.from_pretrained(tmp_path / "words" / "head").float()
    assert head(*text(["a red ball"]))["colour"].shape == (1, SLOTS, len(FIELDS["colour"]))
    weights = (tmp_path / "words" / "segmenter" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert weights < 2.5 * num_parameters(segmenter)  # half precision
    for name in ("tokenizer", "text_encoder"):  # nothing else is read of it
        shutil.copytree(tmp_path / "words" / name, tmp_path / "text" / name)
    again = replace(config, encoder=str(tmp_path / "text"), out=str(tmp_path / "again"), steps=5, evaluate=0)
    train_words(again, lines.append)
    kept, other = load_words(again.out)
    for name, value in text.encoder.state_dict().items():
        assert torch.equal(kept.encoder.state_dict()[name], value), name
    assert kept.tokenizer("a red bal").input_ids == text.tokenizer("a red bal").input_ids
    assert not torch.equal(other.stem.weight, segmenter.stem.weight)
    on = replace(config, init=config.out, out=str(tmp_path / "on"), steps=1, lr=1e-9, evaluate=0)
    train_words(on, lines.append)
    text_on, segmenter_on = load_words(on.out)
    for net, gone_on in ((text.encoder, text_on.encoder), (segmenter, segmenter_on)):
        for name, value in net.state_dict().items():
            assert torch.allclose(gone_on.state_dict()[name], value, atol=1e-5), name


@torch.no_grad()
def test_the_heads_score_is_the_share_of_what_is_told(stories, tokenizer):
    torch.manual_seed(0)
    text = PhraseEncoder(tokenizer, new_text_encoder(tokenizer, 16, 1).eval())
    head = ToyHead(16, 1, 2).eval()
    scores = score_head(text, head, stories[:1])
    right = []
    for telling in stories[0].tellings:
        shapes = head(*text([telling.caption]))["shape"][0].argmax(-1)
        right += [FIELDS["shape"][shapes[n]] == stories[0].toys[k - 1].shape for n, k in enumerate(telling.ids)]
    assert scores["caption"]["shape"] == pytest.approx(np.mean(right), abs=1e-4)
    assert "colour" not in scores["stripped"]  # never told there


def test_the_preset():
    from throughmask.train.presets import override, preset

    config = override(preset("toybox-words"), {"typos": "0.2", "flip": "false"})
    assert (type(config), config.typos, config.flip) == (WordsConfig, 0.2, False)
