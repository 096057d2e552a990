"""Real pictures: Grounding DINO and SAM 2 with tiny random weights, and stubs where these say nothing."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_seeing import SIDE, tiny_detector, tiny_picture_model, tiny_video_model, trained_video_model
from torch.nn import functional as F
from transformers import Sam2VideoModel
from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor
from transformers.models.sam2.processing_sam2 import Sam2Processor
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession
from transformers.models.sam2_video.processing_sam2_video import Sam2VideoProcessor

from throughmask import media
from throughmask.connected import as_labels
from throughmask.errors import InvalidValueError, SampleError
from throughmask.perception.instruct.local import LocalInstruct
from throughmask.perception.language import EnglishRules
from throughmask.perception.parse import named_hints, parse_scene, track_video
from throughmask.perception.real import track
from throughmask.perception.real.detect import Detection, Detections, GroundingDino
from throughmask.perception.real.matching import SAME, Candidate, _distinct, allot, best_assignment, split_place
from throughmask.perception.real.memory import Memory, show
from throughmask.perception.real.perception import RealPerception, prompts_of
from throughmask.perception.real.segment import Prompt, Sam2, at_size, mask_values, pixel_values
from throughmask.perception.real.track import Sam2Tracker, Seed
from throughmask.perception.real.weights import find_model
from throughmask.types import Scene, SceneObject, Video

INSTRUCT = "Qwen/Qwen2.5-1.5B-Instruct"  # small enough for a test on a CPU
SIZE = (75, 101)  # odd, and of no kin to the models' 64 × 64
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (12, *SIZE, 3), dtype=np.uint8)
IMAGE = FRAMES[0]
MASK = np.zeros(SIZE, bool)
MASK[10:31, 20:53] = True
DISC = np.hypot(*np.ogrid[-50:25, -70:31]) < 14


@pytest.fixture(scope="module")
def detector():
    return GroundingDino(*tiny_detector(), box_threshold=0, text_threshold=0, name="tiny")


@pytest.fixture(scope="module")
def sam():
    return Sam2(tiny_picture_model())


@pytest.fixture(scope="module")
def tracker():
    return Sam2Tracker(tiny_video_model())


# Boxes


class WordDetector:
    """In place of the network. seen: boxes (centre x, y, width, height, 0 to 1), each with how sure its words are."""

    device = "cpu"

    def __init__(self, tokenizer, seen):
        self.tokenizer, self.seen, self.asked = tokenizer, seen, []

    def __call__(self, input_ids, pixel_values, **inputs):
        assert len(input_ids) == len(pixel_values) == len(inputs["attention_mask"])
        texts = [self.tokenizer.convert_ids_to_tokens(row) for row in input_ids]
        self.asked.append([" ".join(words).replace(" [PAD]", "")[6:-6] for words in texts])
        # Sure of what only fills up: it is not to be read.
        sure = [
            [[{"[PAD]": 0.99, **said}.get(word, 0.01) for word in words] for _, said in self.seen] for words in texts
        ]
        boxes = [[box for box, _ in self.seen]] * len(texts)
        return SimpleNamespace(logits=torch.tensor(sure).logit(), pred_boxes=torch.tensor(boxes))


def dino(detector, *seen, **thresholds):
    return GroundingDino(
        WordDetector(detector.tokenizer, seen), detector.tokenizer, detector.image_processor, **thresholds
    )


LEFT, MIDDLE, RIGHT = ((x, 0.5, 0.2, 0.4) for x in (0.2, 0.5, 0.8))


def places(detections, width=SIZE[1]):
    """Ids with the horizontal centre of their box, as a share of the picture."""
    return {id: round((box[0] + box[2]) / 2 / width, 3) for id, (box, _) in detections.found.items()}


def test_boxes_are_those_of_transformers_own_postprocessing(detector):
    processor = GroundingDinoProcessor(detector.image_processor, detector.tokenizer)
    inputs = processor(images=IMAGE, text=[["red ball"]], return_tensors="pt")
    with torch.inference_mode():
        output = detector.model(**inputs)
    [expected] = processor.post_process_grounded_object_detection(
        output, inputs["input_ids"], threshold=0, text_threshold=0, target_sizes=[SIZE]
    )
    [answer] = detector._answers(detector.image_processor(images=IMAGE, return_tensors="pt"), ["red ball"])
    found, _ = detector._candidates(answer, SIZE)
    edges = expected["boxes"].clamp(min=0).minimum(torch.tensor([SIZE[1], SIZE[0]] * 2))
    torch.testing.assert_close(torch.tensor([box for box, _, _ in found]), edges, atol=1e-4, rtol=0)


def test_detection_with_the_real_classes(detector):
    found, missed = detector.detect(IMAGE, {3: "red ball", 1: "dog", 7: "left cat"})
    assert set(found) == {1, 3, 7}
    assert missed == {}
    for (left, top, right, bottom), score in found.values():
        assert 0 <= left < right <= SIZE[1]
        assert 0 <= top < bottom <= SIZE[0]
        assert 0 < score < 1
    assert detector.detect(IMAGE, {}) == ({}, {})
    assert json.loads(json.dumps(detector.settings)) == {"model": "tiny", "box_threshold": 0, "text_threshold": 0}


def test_thresholds_and_what_is_not_found(detector):
    seen = (LEFT, {"red": 0.2, "ball": 0.45}), (RIGHT, {"red": 0.9, "ball": 0.1})
    found, _ = dino(detector, *seen).detect(IMAGE, {1: "red ball"})
    assert found[1].score == pytest.approx(0.45)  # the red thing that is no ball does not count
    np.testing.assert_allclose(found[1].box, (10.1, 22.5, 30.3, 52.5), atol=1e-4)
    strict = dino(detector, *seen, box_threshold=0.5).detect(IMAGE, {1: "red ball", 2: "Blue Cat"})
    assert strict.found == {}
    assert strict.missed[1] == "'red ball': not seen surely enough (best score 0.90)"
    assert strict.missed[2] == "'Blue Cat': not seen surely enough (best score 0.01)"
    lax = dino(detector, *seen, text_threshold=0.05).detect(IMAGE, {1: "red ball"})
    assert places(lax) == {1: 0.8}
    for wrong in ({"box_threshold": 1.5}, {"text_threshold": -0.1}):
        with pytest.raises(InvalidValueError, match="threshold is from 0 to 1"):
            dino(detector, **wrong)
    with pytest.raises(InvalidValueError, match="box threshold"):  # before anything is looked for
        GroundingDino.load("no/model", box_threshold=2)


def test_the_noun_of_a_phrase_with_a_tail(detector):
    seen = (LEFT, {"flock": 0.6, "bird": 0.4, "##s": 0.4}), (RIGHT, {"flock": 0.1, "bird": 0.9, "##s": 0.9})
    assert places(dino(detector, *seen).detect(IMAGE, {1: "flock of birds"})) == {1: 0.2}
    assert places(dino(detector, *seen).detect(IMAGE, {1: "birds"})) == {1: 0.8}


def test_each_phrase_is_asked_alone_and_once(detector):
    model = dino(detector, (LEFT, {"dog": 0.9}), (RIGHT, {"dog": 0.8}))
    model.detect(IMAGE, {1: "left dog", 2: "dog on the right", 3: "Red Ball.", 4: "dog"})
    assert model.model.asked == [["dog .", "red ball ."]]
    model.detect(IMAGE, dict(enumerate(["cat", "dog", "left red dog", "ball", "flock of birds", "bird"], 1)))
    assert model.model.asked[1:] == [["cat .", "dog .", "red dog .", "ball ."], ["flock of bird ##s .", "bird ."]]


def test_a_phrase_is_answered_as_if_it_were_alone(monkeypatch):
    """Whatever the length of those beside it."""
    from transformers.models.grounding_dino import modeling_grounding_dino

    # What parts phrases in the tiny vocabulary; else no token would look at another.
    monkeypatch.setattr(modeling_grounding_dino, "SPECIAL_TOKENS", [2, 3, 5, 6])
    detector = GroundingDino(*tiny_detector(), box_threshold=0, text_threshold=0)
    seen = detector.image_processor(images=IMAGE, return_tensors="pt")
    nouns = ["ball", "red ball", "blue cat of a red bird", "dog"]
    answers = detector._answers(seen, nouns)
    for noun, answer in zip(nouns, answers, strict=True):
        [alone] = detector._answers(seen, [noun])
        count = len(alone.places)
        assert answer.text == alone.text
        assert torch.equal(answer.places, alone.places)
        torch.testing.assert_close(answer.logits[:, :count], alone.logits[:, :count], atol=1e-4, rtol=0)
        torch.testing.assert_close(answer.boxes, alone.boxes, atol=1e-4, rtol=0)
        assert (answer.logits[:, count:] == -torch.inf).all()
    assert (answers[0].boxes - answers[3].boxes).abs().max() > 1e-3  # the words do matter
    phrases = dict(enumerate([*nouns, "left ball", "bird"], 1))
    together, apart = (replace(detector, batch=batch).detect(IMAGE, phrases) for batch in (4, 1))
    assert set(together.found) == set(apart.found) != set()
    for id, (box, score) in together.found.items():
        np.testing.assert_allclose(box, apart.found[id].box, atol=1e-2)
        assert score == pytest.approx(apart.found[id].score, abs=1e-4)
    with pytest.raises(InvalidValueError, match="at least one phrase"):
        replace(detector, batch=0)


def test_a_picture_is_looked_at_once():
    """However many phrases are asked, and for each picture anew; in another thread, and outside, as ever."""
    detecting, *words = tiny_detector()
    sizes, backbone = [], detecting.model.backbone.forward
    detecting.model.backbone.forward = lambda pixels, mask: sizes.append(len(pixels)) or backbone(pixels, mask)
    detector = GroundingDino(detecting, *words, box_threshold=0, text_threshold=0, batch=2)
    pictures = [IMAGE, IMAGE[::-1].copy()]
    phrases = dict(enumerate(["ball", "red ball", "dog", "blue cat", "bird"], 1))
    found = [detector.detect(picture, phrases) for picture in pictures]
    assert sizes == [1, 1]
    assert found[0].found.keys() == found[1].found.keys()
    assert found[0] != found[1]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda picture: detector.detect(picture, phrases), pictures)) == found
    assert sizes == [1] * 4
    seen = words[1](images=pictures, return_tensors="pt")
    both = detecting(**seen, **words[0](["ball."] * 2, return_tensors="pt"))
    assert sizes[4:] == [2]
    assert not torch.equal(both.pred_boxes[0], both.pred_boxes[1])
    assert GroundingDino(deepcopy(detecting), *words, 0, 0).detect(pictures[1], phrases) == found[1]


def test_two_phrases_that_claim_one_box(detector):
    one = [(LEFT, {"red": 0.8, "ball": 0.8, "blue": 0.2}), (MIDDLE, {"red": 0.3, "ball": 0.7, "blue": 0.5})]
    assert places(dino(detector, *one).detect(IMAGE, {1: "red ball", 2: "blue ball"})) == {1: 0.2, 2: 0.5}
    # "ball" fits both boxes, the first even better than "red ball" does: it leaves that to the one that has no other.
    assert places(dino(detector, *one).detect(IMAGE, {1: "ball", 2: "red ball"})) == {1: 0.5, 2: 0.2}
    again = (0.205, 0.5, 0.2, 0.4), {"red": 0.7, "ball": 0.7}  # nearly the same box is the same object
    found = dino(detector, one[0], again).detect(IMAGE, {1: "red ball", 2: "blue ball"})
    assert places(found) == {1: 0.2}
    assert found.missed == {2: "'blue ball': what fits it is another object"}


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("left red ball", ("red ball", (0, 0.0))),
        ("The rightmost dog", ("dog", (0, 1.0))),
        ("dog on the right side", ("dog", (0, 1.0))),
        ("bird at the top", ("bird", (1, 0.0))),
        ("middle cat", ("cat", (0, 0.5))),
        ("lower window", ("window", (1, 1.0))),
        ("man in a left shoe", ("man in a left shoe", None)),
        ("left", ("left", None)),
    ],
)
def test_places_in_phrases(phrase, expected):
    assert split_place(phrase) == expected


def candidates(*centres, fits=None):
    fits = fits or [0.8] * len(centres)
    return [Candidate((x - 4, y - 4, x + 4, y + 4), fit, fit) for (x, y), fit in zip(centres, fits, strict=True)]


def centres(found):
    return {id: (c.box[0] + 4, c.box[1] + 4) for id, c in found.items()}


def test_left_right_middle_top_and_bottom():
    row = {"dog": candidates((80, 20), (10, 30), (45, 25))}
    assert centres(allot({1: "left dog", 2: "right dog"}, row, SIZE)) == {1: (10, 30), 2: (80, 20)}
    three = {1: "right dog", 2: "middle dog", 3: "left dog"}
    assert centres(allot(three, row, SIZE)) == {1: (80, 20), 2: (45, 25), 3: (10, 30)}
    pile = {"box": candidates((50, 60), (52, 10), (48, 33))}
    three = {1: "top box", 2: "middle box", 3: "bottom box"}
    assert centres(allot(three, pile, SIZE)) == {1: (52, 10), 2: (48, 33), 3: (50, 60)}
    # Both are in the picture's right half; a doubtful third one is no rival, and one phrase has no place.
    close = {"dog": candidates((60, 20), (90, 30), (5, 5), fits=[0.9, 0.8, 0.3])}
    assert centres(allot({1: "left dog", 2: "right dog"}, close, SIZE)) == {1: (60, 20), 2: (90, 30)}
    assert centres(allot({1: "dog", 2: "right dog"}, close, SIZE)) == {1: (60, 20), 2: (90, 30)}
    # What is another object's is not the leftmost dog.
    both = {"dog": candidates((10, 10), (60, 20), (90, 30), fits=[0.5, 0.8, 0.8]), "cat": candidates((10, 10))}
    assert centres(allot({1: "left dog", 2: "right dog", 3: "cat"}, both, SIZE)) == {
        1: (60, 20),
        2: (90, 30),
        3: (10, 10),
    }
    # One box for two: its half of the picture decides.
    assert centres(allot({1: "left dog", 2: "right dog"}, {"dog": candidates((80, 20))}, SIZE)) == {2: (80, 20)}
    assert allot({1: "left dog"}, {"dog": []}, SIZE) == {}


def test_nearly_equal_boxes_are_one_object():
    rng = np.random.default_rng(1)
    corner, side = rng.uniform(0, 40, (120, 2)), rng.uniform(2, 30, (120, 2))
    boxes = [tuple(map(float, row)) for row in np.hstack([corner, corner + side])]
    likely = {
        noun: [Candidate(box, 0.9, float(fit)) for box, fit in zip(part, rng.permutation(len(part)) / 100, strict=True)]
        for noun, part in (("dog", boxes[:70]), ("cat", boxes[50:]))
    }
    known, expected = [], {}  # by the definition, one pair of boxes after the other
    for noun, group in likely.items():
        for candidate in sorted(group, key=lambda one: -one.fit):
            shared = [_overlap(box, candidate.box) for box in known]
            if not shared or max(shared) < SAME:
                known.append(candidate.box)
                shared.append(1.0)
            expected.setdefault(noun, {}).setdefault(shared.index(max(shared)), candidate)
    assert 20 < len(known) < 120
    assert _distinct(likely) == expected


def _overlap(a, b):
    width, height = (max(0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_the_best_assignment_is_the_best_of_all():
    rng = np.random.default_rng(3)
    for rows, columns in itertools.product(range(1, 5), range(5)):
        worth = rng.random((rows, columns)) * (rng.random((rows, columns)) > 0.4)
        padded = np.hstack([worth, np.zeros((rows, rows))])
        best = max(sum(padded[range(rows), p]) for p in itertools.permutations(range(columns + rows), rows))
        chosen = best_assignment(worth)
        taken = [column for column in chosen if column >= 0]
        assert len(set(taken)) == len(taken)
        assert sum(worth[row, column] for row, column in enumerate(chosen) if column >= 0) == pytest.approx(best)
        assert all(worth[row, column] > 0 for row, column in enumerate(chosen) if column >= 0)


# Prompts and masks of pictures


def own_processor(cls):
    """transformers' processor as far as it runs without torchvision: everything but the picture."""
    processor = cls.__new__(cls)
    processor.target_size, processor.point_pad_value = SIDE, -10
    return processor


def test_boxes_and_points_are_as_transformers_own_processor_makes_them(sam):
    own = own_processor(Sam2Processor)
    box, points = (10, 20.5, 60, 50), ((20, 30, True), (50, 40, False))
    inputs = sam.inputs(Prompt(box=box, points=points), SIZE)
    expected = own(
        input_boxes=[[list(box)]],
        input_points=[[[[x, y] for x, y, _ in points]]],
        input_labels=[[[int(on) for _, _, on in points]]],
        original_sizes=[SIZE],
        return_tensors="pt",
    )
    for name in ("input_boxes", "input_points", "input_labels"):
        assert inputs[name].shape == expected[name].shape
        torch.testing.assert_close(inputs[name], expected[name], check_dtype=name != "input_labels")


def test_video_prompts_are_as_transformers_own_processor_makes_them():
    own = own_processor(Sam2VideoProcessor)
    ours, theirs = (
        Sam2VideoInferenceSession(video_height=SIZE[0], video_width=SIZE[1], dtype=torch.float32) for _ in range(2)
    )
    box, points = (10, 20.5, 60, 50), ((20, 30, True), (50, 40, False))
    for id, prompt in enumerate((Prompt(mask=MASK), Prompt(box=box), Prompt(points=points), Prompt(box, points)), 1):
        show(ours, id, 0, prompt, SIZE, SIDE)
        if prompt.mask is not None:
            own.process_new_mask_for_video_frame(theirs, 0, [id], MASK)
            continue
        own.process_new_points_or_boxes_for_video_frame(
            theirs,
            0,
            [id],
            input_boxes=[[list(box)]] if prompt.box else None,
            input_points=[[[[x, y] for x, y, _ in points]]] if prompt.points else None,
            input_labels=[[[int(on) for _, _, on in points]]] if prompt.points else None,
        )
    assert torch.equal(ours.mask_inputs_per_obj[0][0], theirs.mask_inputs_per_obj[0][0])
    assert 0 < ours.mask_inputs_per_obj[0][0].mean() < 1
    for k in (1, 2, 3):
        for name in ("point_coords", "point_labels"):
            a, b = (session.point_inputs_per_obj[k][0][name] for session in (ours, theirs))
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, check_dtype=False)


def test_pictures_are_resized_scaled_and_normalised():
    values = pixel_values(IMAGE, SIDE)
    assert values.shape == (3, SIDE, SIDE)
    assert values.dtype == torch.float32
    # The processor's documented arithmetic: bilinear with antialias to S × S on bytes, / 255, ImageNet's statistics.
    picture = torch.tensor(IMAGE).permute(2, 0, 1)[None].float()
    picture = F.interpolate(picture, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0] / 255
    expected = (picture - torch.tensor([[[0.485]], [[0.456]], [[0.406]]])) / torch.tensor(
        [[[0.229]], [[0.224]], [[0.225]]]
    )
    assert (values - expected).abs().max() < 1.01 / 255 / 0.224  # a grey level, from rounding to bytes


@pytest.mark.parametrize("size", [(75, 101), (33, 47), (7, 200)])
def test_masks_come_back_aligned_to_the_pixel_on_odd_sizes(size):
    # Logits that cross zero along a slanted line: bilinear interpolation keeps a plane exact, so that each pixel must
    # be on the side where its centre is. Half a low-resolution cell at the border is no plane; it is left out.
    fine = SIDE // 4
    y, x = ((np.arange(fine) + 0.5) / fine for _ in range(2))
    logits = torch.tensor(0.613 * x[None] + 0.291 * y[:, None] - 0.447)[None, None]
    mask = at_size(logits, size)[0]
    Y, X = ((np.arange(length) + 0.5) / length for length in size)
    expected = 0.613 * X[None] + 0.291 * Y[:, None] - 0.447 > 0
    inner = np.ix_(*((a > 0.5 / fine) & (a < 1 - 0.5 / fine) for a in (Y, X)))
    assert np.array_equal(mask[inner], expected[inner])
    assert 0 < expected.mean() < 1


def test_a_mask_survives_the_way_to_sam_and_back():
    whole = np.zeros(SIZE, bool)
    whole[17:52, 31:80] = True
    back = at_size(mask_values(whole, 1024) - 0.5, SIZE)[0]
    assert np.array_equal(back, whole)


def test_box_point_and_mask_prompts_with_the_real_class(sam):
    prompts = {
        1: Prompt(box=(10, 10, 60, 50)),
        2: Prompt(points=((20, 30, True),)),
        3: Prompt(mask=MASK),
        9: Prompt(box=(10, 10, 60, 50), points=((20, 30, True), (50, 40, False))),
    }
    masks = sam.masks(IMAGE, prompts)
    for mask in masks.values():
        assert mask.shape == SIZE
        assert mask.dtype == bool
        assert 0 < mask.mean() < 1
    assert len({mask.tobytes() for mask in masks.values()}) == 4
    labels = sam.segment(IMAGE, prompts)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, as_labels(masks, SIZE))
    assert np.array_equal(labels > 0, np.any(list(masks.values()), 0))
    assert not sam.segment(IMAGE, {}).any()
    # One object at a time is what transformers makes of all at once.
    with torch.inference_mode():
        boxes = torch.cat(
            [sam.inputs(Prompt(box=box), SIZE)["input_boxes"] for box in ((1, 2, 30, 40), (9, 9, 70, 70))], 1
        )
        output = sam.model(pixel_values(IMAGE, SIDE)[None], input_boxes=boxes, multimask_output=False)
    both = sam.masks(IMAGE, {1: Prompt(box=(1, 2, 30, 40)), 2: Prompt(box=(9, 9, 70, 70))})
    assert np.mean(np.stack(list(both.values())) != at_size(output.pred_masks[0], SIZE)) < 1e-3


def test_the_most_trusted_of_three_answers_to_one_point():
    class Three:
        device, dtype = "cpu", torch.float32
        config = SimpleNamespace(prompt_encoder_config=SimpleNamespace(image_size=SIDE))

        def get_image_embeddings(self, pixels):
            return []

        def __call__(self, image_embeddings, multimask_output, **inputs):
            masks = torch.tensor([-1.0, 1.0, -1.0] if multimask_output else [-1.0])
            scores = torch.tensor([0.2, 0.9, 0.4] if multimask_output else [0.2])
            return SimpleNamespace(
                pred_masks=masks[None, None, :, None, None].expand(1, 1, -1, 16, 16), iou_scores=scores[None, None]
            )

    sam = Sam2(Three())
    dot = (20, 30, True)
    assert sam.masks(IMAGE, {1: Prompt(points=(dot,))})[1].all()
    assert not sam.masks(IMAGE, {1: Prompt(points=(dot, (5, 5, False)))})[1].any()
    assert not sam.masks(IMAGE, {1: Prompt(box=(1, 1, 9, 9), points=(dot,))})[1].any()


def test_overlaps_go_to_the_smaller_in_whichever_order_they_come():
    masks = {1: np.zeros((6, 8), bool), 2: np.zeros((6, 8), bool), 3: np.zeros((6, 8), bool), 4: np.zeros((6, 8), bool)}
    masks[1][:] = True
    masks[2][1:5, 1:5] = True
    masks[3][2:6, 2:6] = True  # as large as 2
    masks[4][3, 3] = True
    expected = np.array([1, 3, 4])
    for order in itertools.permutations(masks):
        labels = as_labels({id: masks[id] for id in order}, (6, 8))
        assert np.array_equal(labels[[0, 2, 3], [0, 2, 3]], expected)
        assert labels[1, 1] == 2
    assert not as_labels({}, (6, 8)).any()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (Prompt(), "by a box and points, or by a mask"),
        (Prompt(box=(1, 1, 5, 5), mask=MASK), "or by a mask"),
        (Prompt(mask=MASK[:, 1:]), "size, 75×101"),
        (Prompt(mask=np.zeros(SIZE, bool)), "not empty"),
        (Prompt(box=(5, 5, 5, 9)), "inside the picture"),
        (Prompt(box=(0, 0, 102, 9)), "inside the picture"),
        (Prompt(points=((101, 5, True),)), "a point is x,y"),
    ],
)
def test_prompts_that_cannot_be(sam, tracker, prompt, words):
    with pytest.raises(InvalidValueError, match=words):
        sam.segment(IMAGE, {1: prompt})
    with pytest.raises(InvalidValueError, match=words):
        tracker.track(FRAMES, {1: Seed(0, prompt)})


# Videos


SEEDS = {
    1: Seed(0, Prompt(mask=MASK)),
    2: Seed(0, Prompt(box=(40, 30, 90, 70))),
    5: Seed(0, Prompt(points=((20, 60, True),))),
}


def same(labels, expected):
    """But for one pixel at most, at whose logit, next to 0, a batch's rounding shows."""
    return np.count_nonzero(labels != expected) <= 1


def own_outputs(model, frames, seeds, *, reverse=False):
    """transformers' own loop, which keeps the whole video and takes object after object."""
    values = torch.stack([pixel_values(frame, SIDE) for frame in frames])
    session = Sam2VideoInferenceSession(video=values, video_height=SIZE[0], video_width=SIZE[1], dtype=torch.float32)
    [start] = {seed.frame for seed in seeds.values()}
    for id, seed in seeds.items():
        show(session, id, start, seed.prompt, SIZE, SIDE)
    session.obj_with_new_inputs = list(seeds)
    return model.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse)


def every_mask(model, frames, seeds, *, reverse=False):
    outputs = own_outputs(model, frames, seeds, reverse=reverse)
    return {o.frame_idx: dict(zip(o.object_ids, at_size(o.pred_masks, SIZE), strict=True)) for o in outputs}


def whole_session(model, frames, seeds, *, reverse=False):
    return {t: as_labels(masks, SIZE) for t, masks in every_mask(model, frames, seeds, reverse=reverse).items()}


@pytest.fixture
def held(monkeypatch):
    """Of each frame that is followed: how many are encoded and remembered, at the most; and of each batch, its size."""
    held, batches, step, encode = [], [], Memory.step, Sam2VideoModel.get_image_features

    def spy(memory, seen):
        logits = step(memory, seen)
        held.append((len(seen.features[0][0]), memory.values.shape[2], len(memory.values), len(memory.pointers)))
        return logits

    def counted(model, pixels, **options):
        batches.append(len(pixels))
        return encode(model, pixels, **options)

    monkeypatch.setattr(Memory, "step", spy)
    monkeypatch.setattr(Sam2VideoModel, "get_image_features", counted)
    return held, batches


def test_a_video_in_bounded_memory_is_what_the_whole_one_gives(tracker, held):
    labels = tracker.track(FRAMES, SEEDS)
    assert labels.shape == (12, *SIZE)
    assert labels.dtype == np.uint8
    assert tracker.window == 4
    # One frame at a time of the three objects; that in which they are shown is remembered beside the last ones.
    assert held[0] == [(1, 3, 1 + min(t, 2), 1 + min(t, 3)) for t in range(1, 12)]
    assert held[1] == [8, 4]
    expected = whole_session(tracker.model, FRAMES, SEEDS)
    assert same(labels, np.stack([expected[t] for t in range(12)]))
    assert len({frame.tobytes() for frame in labels}) > 6


@pytest.fixture(params=[pytest.param(False, marks=pytest.mark.slow), True], ids=["SAM 2", "SAM 2.1"])
def trained(request):
    return trained_video_model(request.param)


@pytest.mark.slow
def test_all_objects_at_once_get_what_transformers_own_step_gives_each(trained):
    """Logits: masks would hide what is small. Some objects are there, others are not, by their score."""
    scores = torch.cat([output.object_score_logits for output in own_outputs(trained, FRAMES, SEEDS)])
    with torch.no_grad():
        trained.mask_decoder.pred_obj_score_head.proj_out.bias -= scores[len(SEEDS) :].median()
    first, *others = Sam2Tracker(trained)._seen(FRAMES)
    memory = Memory(trained, first, SIZE, {id: seed.prompt for id, seed in SEEDS.items()})
    ours = torch.stack([memory.masks, *map(memory.step, others)])
    theirs = torch.stack([output.pred_masks for output in own_outputs(trained, FRAMES, SEEDS)])
    assert 0 < (theirs == -1024).float().mean() < 1
    torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=0)


@pytest.mark.slow
def test_frames_by_the_chunk_give_what_they_give_one_by_one(trained, held):
    """Shown at the start, amid a chunk and at the end, followed both ways."""
    late = {3: Seed(4, Prompt(mask=DISC)), 7: Seed(4, Prompt(box=(5, 5, 60, 50))), 9: Seed(11, SEEDS[1].prompt)}
    seeds = {**SEEDS, **late}
    masks = [{} for _ in FRAMES]  # by transformers' own loop, for those that are shown in the same frame
    for start in (0, 4, 11):
        together = {id: seed for id, seed in seeds.items() if seed.frame == start}
        for reverse in (True, False):
            for t, found in every_mask(trained, FRAMES, together, reverse=reverse).items():
                masks[t] |= found
    assert len({mask.tobytes() for found in masks for mask in found.values()}) > 12
    for chunk in (1, 5, 20):
        held[1].clear()
        labels = Sam2Tracker(trained, chunk).track(FRAMES, seeds)
        assert held[1] == {1: [1] * 24, 5: [5, 5, 2] * 2, 20: [12] * 2}[chunk]
        assert same(labels, np.stack([as_labels(found, SIZE) for found in masks]))


def test_backward_is_forward_through_the_reversed_video(tracker):
    late = {id: Seed(11, seed.prompt) for id, seed in SEEDS.items()}
    labels = tracker.track(FRAMES, late)
    assert np.array_equal(labels, tracker.track(FRAMES[::-1], SEEDS)[::-1])
    expected = whole_session(tracker.model, FRAMES, late, reverse=True)
    assert same(labels, np.stack([expected[t] for t in range(12)]))


def test_objects_shown_in_different_frames_are_followed_both_ways(tracker):
    seeds = {1: Seed(0, Prompt(mask=MASK)), 2: Seed(7, Prompt(mask=DISC))}
    labels = tracker.track(FRAMES, seeds)
    alone = {id: tracker.track(FRAMES, {id: seed}) for id, seed in seeds.items()}
    for t in range(12):  # nobody's presence changes what another one's mask is
        assert same(labels[t], as_labels({id: alone[id][t] == id for id in seeds}, SIZE))
    for t in (-1, 12):
        with pytest.raises(InvalidValueError, match="object 2 is shown in a frame that is not there"):
            tracker.track(FRAMES, {2: Seed(t, Prompt(mask=MASK))})
    assert not tracker.track(FRAMES, {}).any()


class Following:
    """In place of SAM 2: the k-th object is where a frame has its grey level; where not, logits are far below 0."""

    device, dtype = "cpu", torch.float32
    config = SimpleNamespace(image_size=SIDE, max_object_pointers_in_encoder=2, num_maskmem=2)

    def get_image_features(self, pixels, return_dict):
        values = pixels.flatten(2).permute(2, 0, 1)
        return SimpleNamespace(fpn_hidden_states=[values], fpn_position_encoding=[values])


class Grey:
    """In place of a Memory."""

    def __init__(self, levels, seen, prompts):
        self.levels, self.ids = levels, list(prompts)
        self.masks = self.step(seen)

    def step(self, seen):
        seen = seen.features[0].mean(2).reshape(SIDE, SIDE)
        found = [(seen - level).abs() < 0.4 for level in self.levels]
        return torch.stack([torch.where(at, 5.0, -5.0 if at.any() else -1024.0) for at in found])[:, None]


def test_what_is_lost_and_comes_back_keeps_its_id(monkeypatch):
    grey = {2: 255, 7: 128}
    levels = [pixel_values(np.full((4, 4, 3), value, np.uint8), SIDE).mean() for value in grey.values()]
    monkeypatch.setattr(track, "Memory", lambda model, seen, size, prompts, graphs: Grey(levels, seen, prompts))
    frames = np.zeros((12, *SIZE, 3), np.uint8)
    for t in range(12):
        frames[t, 10:30, 3 * t : 3 * t + 20] = grey[7]
        if t not in range(4, 9):  # hidden for five frames, longer than the window
            frames[t, 40:60, 70 - 2 * t : 90 - 2 * t] = grey[2]
    seeds = {id: Seed(0, Prompt(mask=(frames[0] == grey[id]).all(-1))) for id in (2, 7)}
    labels = Sam2Tracker(Following()).track(frames, seeds)
    assert [2 in frame for frame in labels] == [t not in range(4, 9) for t in range(12)]
    for t in (3, 9, 11):
        there = frames[t, ..., 0] == grey[2]  # its rim is lost in the small picture
        assert (labels[t] == 2)[there].mean() > 0.7
        assert not (labels[t] == 2)[~there].any()
    assert all(7 in frame for frame in labels)


def test_what_the_real_class_holds_for_hidden_has_no_mask_and_keeps_its_id():
    """Its own score says whether an object is there; here it says no for longer than the window, of one object."""
    model, hidden = tiny_video_model(), range(3, 10)

    class Score(torch.nn.Module):
        frame = 0

        def forward(self, tokens):
            score = torch.full((*tokens.shape[:-1], 1), 9.0)
            if len(tokens) == 2:  # one by one they are only shown
                self.frame += 1
                score[1] = -9.0 if self.frame in hidden else 9.0
            return score

    model.mask_decoder.pred_obj_score_head = Score()
    tracker = Sam2Tracker(model)
    assert len(hidden) > tracker.window
    labels = tracker.track(FRAMES, {2: Seed(0, Prompt(mask=MASK)), 7: Seed(0, Prompt(mask=DISC))})
    assert [7 in frame for frame in labels] == [t not in hidden for t in range(12)]
    assert all(2 in frame for frame in labels)


def test_bfloat16_runs_on_all_kinds_of_prompts():
    picture, video = Sam2(tiny_picture_model().bfloat16()), Sam2Tracker(tiny_video_model().bfloat16())
    prompts = {1: Prompt(mask=MASK), 2: Prompt(box=(40, 30, 90, 70)), 3: Prompt(points=((20, 60, True),))}
    assert picture.segment(IMAGE, prompts).shape == SIZE
    assert video.track(FRAMES[:3], {id: Seed(0, prompt) for id, prompt in prompts.items()}).shape == (3, *SIZE)


# Together


class Knows:
    """A Detector that knows where things are, frame by frame: a frame's first pixel is its number."""

    def __init__(self, where):
        self.where, self.asked, self.settings = where, [], {"model": "knows"}

    def detect(self, image, phrases):
        t = int(image[0, 0, 0])
        self.asked.append((t, tuple(phrases.values())))
        found = {id: Detection(self.where[t, p], 0.9) for id, p in phrases.items() if (t, p) in self.where}
        return Detections(found, {id: f"{p!r}: not seen surely enough" for id, p in phrases.items() if id not in found})


class Boxes:
    """A segmenter and tracker whose masks are the prompts themselves, at rest."""

    def segment(self, image, prompts):
        return as_labels({id: self._mask(prompt, image.shape[:2]) for id, prompt in prompts.items()}, image.shape[:2])

    def track(self, frames, seeds):
        self.seeds = seeds
        masks = {id: self._mask(seed.prompt, frames.shape[1:3]) for id, seed in seeds.items()}
        return np.stack([as_labels(masks, frames.shape[1:3]) for _ in frames])

    def _mask(self, prompt, size):
        if prompt.mask is not None:
            return prompt.mask
        mask = np.zeros(size, bool)
        left, top, right, bottom = (
            int(edge) for edge in prompt.box or (*prompt.points[0][:2], *(v + 1 for v in prompt.points[0][:2]))
        )
        mask[top:bottom, left:right] = True
        return mask


PROMPT = "the red ball rolls to the left and the blue block stays still"
NUMBERED = np.zeros((20, *SIZE, 3), np.uint8)
NUMBERED[:, 0, 0, 0] = range(20)


def test_parse_with_boxes_that_a_detector_finds():
    heard = []
    boxes = Boxes()
    perception = RealPerception(
        Knows({(0, "red ball"): (5, 5, 20, 25), (0, "blue block"): (15, 20, 60, 70)}), boxes, boxes, say=heard.append
    )
    labels = parse_scene(NUMBERED[0], PROMPT, EnglishRules(), perception).scene.labels
    assert (labels[5:25, 5:20] == 1).all()  # the smaller one
    assert (labels[30:70, 15:60] == 2).all()
    assert heard == []
    perception = RealPerception(Knows({(0, "red ball"): (5, 5, 20, 25)}), boxes, boxes, say=heard.append)
    with pytest.raises(InvalidValueError, match=r"does not show what the prompt names \(seen: blue block\)"):
        parse_scene(NUMBERED[0], PROMPT, EnglishRules(), perception)
    assert heard == ["Not found: 'blue block': not seen surely enough."]
    both = RealPerception(Knows({(0, name): (5, 5, 20, 25) for name in ("a", "b")}), boxes, boxes, say=heard.append)
    both.segment(NUMBERED[0], {1: "a", 2: "b"})
    assert heard[1:] == ["Not found: 'a': its mask is empty, or smaller objects cover it."]


def test_hints_become_boxes_points_or_masks():
    names = ["dog", "cat", "ball", "bird"]
    hints = named_hints(
        (100, 201),
        names,
        [("dog", (10, 10, 90, 70)), ("cat", (60, 50, 140, 95))],
        [("ball", (30, 20)), ("ball", (170, 20))],
    ).painted((100, 201))
    prompts = prompts_of(hints, [1, 2, 3, 4])
    assert set(prompts) == {1, 2, 3}
    assert prompts[2].box == (60, 50, 140, 95)
    assert prompts[1].box == (10, 10, 90, 70)  # though others lie on it
    assert prompts[3].points == ((30, 20, True), (170, 20, True))
    hints[hints == 2] = 0
    hints[60:90, 100:160][np.tri(30, 60, dtype=bool)] = 4
    assert np.array_equal(prompts_of(hints, [4])[4].mask, hints == 4)
    boxes = Boxes()
    knows = Knows({(0, name): (100, 60, 120, 90) for name in ("cat", "dog")})
    hint = named_hints((100, 201), names, [("dog", (10, 10, 90, 50))]).painted((100, 201))
    labels = RealPerception(knows, boxes, boxes).segment(np.zeros((100, 201, 3), np.uint8), {1: "dog", 2: "cat"}, hint)
    assert (labels[10:50, 10:90] == 1).all()  # the hint is more than what a detector thinks
    assert (labels[60:90, 100:120] == 2).all()


def test_what_enters_later_is_found_and_followed_backward():
    boxes = Boxes()
    knows = Knows({(t, "blue block"): (50, 30, 80, 60) for t in range(10, 20)})
    perception = RealPerception(knows, boxes, boxes, look_every=6)
    labels = np.where(MASK, 1, 0).astype(np.uint8)
    scene = Scene(NUMBERED[0], labels, objects=(SceneObject(1, "red ball", "x"), SceneObject(2, "blue block", "x")))
    trajectory = track_video(Video(NUMBERED, 12), scene, perception)
    assert [t for t, _ in knows.asked] == [6, 12]
    assert {id: seed.frame for id, seed in boxes.seeds.items()} == {1: 0, 2: 12}
    assert np.array_equal(trajectory.labels[0], labels)
    assert 2 in trajectory.labels[1]
    knows.where = {(0, "red ball"): (5, 5, 20, 25), (19, "blue block"): (50, 30, 80, 60)}
    free = track_video(Video(NUMBERED, 12), scene, perception, from_scene=False)
    assert {id: seed.frame for id, seed in boxes.seeds.items()} == {1: 0, 2: 19}  # the last frame is looked at
    assert set(np.unique(free.labels[0])) == {0, 1}


def test_the_whole_chain_from_folders(tmp_path):
    model, tokenizer, processor = tiny_detector()
    for part in (model, tokenizer, processor):
        part.save_pretrained(tmp_path / "dino")
    video = tiny_video_model()
    video.save_pretrained(tmp_path / "sam2")
    perception = RealPerception.load(
        str(tmp_path / "dino"), str(tmp_path / "sam2"), box_threshold=0.0, text_threshold=0.0
    )
    assert perception.segmenter.model.vision_encoder is perception.tracker.model.vision_encoder
    assert perception.settings["detector"]["box_threshold"] == 0
    assert perception.segmenter.graphs
    assert perception.detector.loaded.graphs
    for name, weights in perception.segmenter.model.state_dict().items():
        assert torch.equal(weights, video.state_dict()[name]), name
    parsed = parse_scene(IMAGE, "the red ball rolls to the left", EnglishRules(), perception)
    trajectory = track_video(Video(FRAMES[:3], 12), parsed.scene, perception)
    assert trajectory.labels.shape == (3, *SIZE)
    assert np.array_equal(trajectory.labels[0], parsed.scene.labels)

    with pytest.raises(SampleError, match=r"another kind of model \(seen: grounding-dino\); it must be sam2_video"):
        RealPerception.load(str(tmp_path / "dino"), str(tmp_path / "dino"))
    weights = tmp_path / "sam2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SampleError, match="cannot be loaded"):
        RealPerception.load(str(tmp_path / "dino"), str(tmp_path / "sam2"))


def test_a_download_is_announced_and_offline_is_respected(tmp_path, monkeypatch):
    heard = []

    def snapshot_download(repo, allow_patterns, dry_run=False, local_files_only=False):
        if local_files_only:
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError("no")
        heard.append("asked" if dry_run else "came")
        if dry_run:
            return [SimpleNamespace(will_download=size > 0, file_size=size) for size in (900_000_000, 700_000, 0)]
        (tmp_path / "config.json").write_text('{"model_type": "sam2_video"}')
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert find_model("facebook/sam2.1-hiera-large", ["sam2_video"], say=heard.append) == tmp_path
    said = "facebook/sam2.1-hiera-large: 2 of 3 files to download, 0.9 GB; the rest is cached"
    assert heard == ["asked", said, "came"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SampleError, match=r"cannot be downloaded .*HF_HUB_OFFLINE is set"):
        find_model("facebook/sam2.1-hiera-large", ["sam2_video"], say=heard.append)
    assert len(heard) == 3
    for name in ("nowhere", "./not/here", "a/b/c"):
        with pytest.raises(InvalidValueError, match="no such model"):
            find_model(name, ["sam2_video"])


@pytest.mark.weights
def test_true_weights_on_a_real_clip(assets):
    """The same chain with the true models: an instruct model, Grounding DINO and SAM 2, 5 GB in all."""
    try:
        perception = RealPerception.load(segmenter="facebook/sam2.1-hiera-tiny")
        perception.make_ready()
        find_model(INSTRUCT)
    except SampleError as error:
        pytest.skip(f"the models cannot be had: {error}")
    folder = assets / "videos" / "davis16" / "blackswan"
    frames = media.read_video(folder / "video.mp4").frames[:12]
    truth = np.stack([media.read_labels(folder / "gt_union" / f"{t:05d}.png") for t in range(len(frames))]) > 0
    for language in (EnglishRules(), LocalInstruct(INSTRUCT, stay=False)):
        parsed = parse_scene(frames[0], "A black swan glides across a calm pond.", language, perception)
        assert [thing.name.split()[-1] for thing in parsed.scene.objects] == ["swan"]
        labels = track_video(Video(frames, 24), parsed.scene, perception).labels
        for t, mask in enumerate(truth):
            assert ((labels[t] == 1) & mask).sum() > 0.85 * ((labels[t] == 1) | mask).sum()
