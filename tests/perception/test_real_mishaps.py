"""What goes wrong with perception of real pictures: hints that crowd, parts that fail, folders that are damaged."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from test_real import IMAGE, MASK, NUMBERED, PROMPT, SIZE, Boxes, Knows
from tiny_seeing import SIDE, tiny_detector, tiny_picture_model, tiny_video_model
from torch.nn import functional as F

from throughmask.errors import DeviceError, InvalidValueError, SampleError
from throughmask.perception.language import EnglishRules
from throughmask.perception.parse import Hints, named_hints, parse_scene, track_video
from throughmask.perception.real.detect import Detection, Detections, GroundingDino, WhenAsked
from throughmask.perception.real.perception import RealPerception
from throughmask.perception.real.segment import Prompt, Sam2
from throughmask.perception.real.track import Sam2Tracker, Seed
from throughmask.perception.real.weights import LARGE, find_model, load_whole
from throughmask.types import Scene, SceneObject, Video

# Hints that a person gives


class Listens(Boxes):
    """Remembers how each object is shown."""

    def segment(self, image, prompts):
        self.prompts = prompts
        return super().segment(image, prompts)


def test_boxes_and_points_reach_sam_as_they_were_given():
    """Painted as labels they would hide each other, and near points would run into one."""
    listens = Listens()
    perception = RealPerception(Knows({}), listens, listens)
    hints = named_hints(
        SIZE,
        ["red ball", "blue block"],
        [("red ball", (0, 0, 101, 40)), ("blue block", (50, 0, 101, 40))],
        [("red ball", (0, 0)), ("red ball", (3, 0))],
    )
    assert isinstance(hints, Hints)
    parse_scene(NUMBERED[0], PROMPT, EnglishRules(), perception, hints=hints)
    assert {id: (prompt.box, prompt.points) for id, prompt in listens.prompts.items()} == {
        1: ((0, 0, 101, 40), ((0, 0, True), (3, 0, True))),
        2: ((50, 0, 101, 40), ()),
    }
    only = named_hints(SIZE, ["red ball", "blue block"], points=[(2, (100, 74))])
    known = RealPerception(Knows({(0, "red ball"): (5, 5, 20, 25)}), listens, listens)
    parse_scene(NUMBERED[0], PROMPT, EnglishRules(), known, hints=only)
    assert listens.prompts[1].box == (5, 5, 20, 25)
    assert (listens.prompts[2].box, listens.prompts[2].points) == (None, ((100, 74, True),))


def test_others_are_shown_hints_painted():
    class Toys:
        def segment(self, image, phrases, hints=None):
            assert np.array_equal(hints[:5, :5], np.eye(5) * 0 + 1)
            return np.where(hints == 0, 2, hints).astype(np.uint8)

        def track(self, frames, phrases, first=None): ...

    hints = named_hints(SIZE, ["red ball", "blue block"], [(1, (0, 0, 5, 5))])
    labels = parse_scene(NUMBERED[0], PROMPT, EnglishRules(), Toys(), hints=hints).scene.labels
    assert (labels == 1).sum() == 25


def test_a_number_beyond_the_names_is_an_object_without_one():
    listens = Listens()
    hints = named_hints(SIZE, ["red ball"], [(1, (5, 5, 20, 25)), (3, (50, 30, 80, 60))])
    perception = RealPerception(Knows({}), listens, listens)
    scene = parse_scene(NUMBERED[0], "the red ball rolls", EnglishRules(), perception, hints=hints).scene
    assert [(thing.id, thing.name) for thing in scene.objects] == [(1, "red ball"), (3, "object")]
    assert (scene.labels[30:60, 50:80] == 3).all()
    with pytest.raises(InvalidValueError, match=r"names no such object \(seen: 256\)"):
        named_hints(SIZE, ["red ball"], [(256, (5, 5, 20, 25))])


def test_hints_outside_the_picture_are_refused():
    for more in ({"boxes": [(1, (0, 0, 102, 5))]}, {"points": [(1, (0, 75))]}):
        with pytest.raises(InvalidValueError, match="inside the picture"):
            named_hints(SIZE, ["red ball"], **more)


def test_a_mask_for_a_picture_is_the_logits_of_a_video_and_its_box():
    """SAM 2 takes a mask as it keeps one itself (_use_mask_as_output): resized with antialiasing, cut at a half, and
    20 times that minus 10; and the mask's own box beside it, in the coordinates of its square."""
    inputs = Sam2(tiny_picture_model()).inputs(Prompt(mask=MASK), SIZE)
    small = F.interpolate(torch.from_numpy(MASK)[None, None].float(), (SIDE, SIDE), mode="bilinear", antialias=True)
    assert torch.equal(inputs["input_masks"], (small >= 0.5).float() * 20 - 10)
    expected = torch.tensor([[[20 / 101, 10 / 75, 53 / 101, 31 / 75]]]) * SIDE
    torch.testing.assert_close(inputs["input_boxes"], expected)
    assert set(inputs) == {"input_masks", "input_boxes"}


# Parts that fail


SCENE = Scene(
    NUMBERED[0],
    np.where(MASK, 1, 0).astype(np.uint8),
    objects=(SceneObject(1, "red ball", "x"), SceneObject(2, "blue block", "x")),
)


class Fails:
    """A Detector that finds nothing in the first pictures, and then fails."""

    def __init__(self, error, after=0):
        self.error, self.left, self.settings = error, after, {}

    def detect(self, image, phrases):
        self.left -= 1
        if self.left >= 0:
            return Detections({}, {id: f"{phrase!r}: no" for id, phrase in phrases.items()})
        raise self.error


@pytest.mark.parametrize("error", [DeviceError("it is full"), SampleError("it is missing")])
def test_a_detector_that_fails_does_not_stop_what_is_followed(error):
    boxes, heard = Boxes(), []
    perception = RealPerception(Fails(error, after=1), boxes, boxes, look_every=6, say=heard.append)
    labels = track_video(Video(NUMBERED, 12), SCENE, perception).labels
    assert all(np.array_equal(frame, SCENE.labels) for frame in labels)
    assert heard == [
        f"No longer looked for, from frame 12 on: 'blue block': {error}.",
        "Not found in any frame that was looked at: 'blue block'.",
    ]
    with pytest.raises(type(error)):  # nothing is known that could be followed
        track_video(Video(NUMBERED, 12), SCENE, RealPerception(Fails(error), boxes, boxes), from_scene=False)


@pytest.mark.parametrize(
    "box", [(float("nan"), 1, 5, 5), (5, 5, 5, 9), (-3, 0, 9, 9), (0, 0, 500, 9), (9, 9, 3, 3), (0, 0, 9, float("inf"))]
)
def test_boxes_that_cannot_be_count_as_not_found(box):
    class Nonsense:
        def detect(self, image, phrases):
            found = {id: Detection(box, 0.9) for id in phrases} | {77: Detection((1, 1, 5, 5), 0.9)}
            return Detections(found | {1: Detection((5, 5, 20, 25), 0.9)}, {})

    boxes, heard = Boxes(), []
    perception = RealPerception(Nonsense(), boxes, boxes, say=heard.append)
    labels = perception.segment(NUMBERED[0], {1: "red ball", 2: "blue block"})
    assert set(np.unique(labels)) == {0, 1}
    assert heard == ["Not found: 'blue block': the detector gives a box that is not in the picture."]
    tracked = track_video(Video(NUMBERED, 12), SCENE, perception).labels
    assert set(np.unique(tracked)) == {0, 1}


def test_a_network_that_answers_nonsense_finds_nothing():
    model, tokenizer, processor = tiny_detector()
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    found, missed = GroundingDino(model, tokenizer, processor, 0, 0).detect(IMAGE, {1: "red ball"})
    assert found == {}
    assert "'red ball'" in missed[1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_a_full_device_is_said_in_one_sentence(monkeypatch, error):
    def full(*_, **__):
        raise error

    detector, sam, tracker = GroundingDino(*tiny_detector()), Sam2(tiny_picture_model()), tiny_video_model()
    for model in (detector.model, sam.model, tracker):
        monkeypatch.setattr(model, "forward", full)
    monkeypatch.setattr(sam.model, "get_image_embeddings", full)
    with pytest.raises(DeviceError, match=r"Grounding DINO does not fit the device's memory \(seen: cpu\); take a sm"):
        detector.detect(IMAGE, {1: "dog"})
    with pytest.raises(DeviceError, match="SAM 2 does not fit"):
        sam.segment(IMAGE, {1: Prompt(mask=MASK)})
    with pytest.raises(DeviceError, match="SAM 2 with 1 objects does not fit"):
        Sam2Tracker(tracker).track(IMAGE[None], {1: Seed(0, Prompt(mask=MASK))})


def test_other_mistakes_of_the_networks_stay_ours(monkeypatch):
    sam = Sam2(tiny_picture_model())
    monkeypatch.setattr(sam.model, "get_image_embeddings", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sam.segment(IMAGE, {1: Prompt(mask=MASK)})


# Folders and names


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    for part in tiny_detector():
        part.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lost", ["tokenizer.json", "preprocessor_config.json", "model.safetensors", "config.json"])
def test_a_folder_that_lacks_a_part(whole, tmp_path, lost):
    shutil.copytree(whole, tmp_path / "dino")
    (tmp_path / "dino" / lost).unlink()
    with pytest.raises(SampleError, match=r"cannot be loaded|is no transformers model|lacks its tokenizer") as caught:
        GroundingDino.load(str(tmp_path / "dino"))
    assert "\n" not in str(caught.value)


def test_a_configuration_that_cannot_be(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "dino")
    config = json.loads((whole / "config.json").read_text())
    for wrong in ({"d_model": "wide"}, {"d_model": 48}, {"backbone_config": 3}):
        (tmp_path / "dino" / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(SampleError, match="cannot be loaded"):
            GroundingDino.load(str(tmp_path / "dino"))


def test_a_model_that_fits_nowhere_is_not_called_damaged(whole):
    class Large:
        @staticmethod
        def from_pretrained(*_, **__):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(DeviceError, match="does not fit the device's memory"):
        load_whole(Large, whole)


def test_a_detector_by_name_is_loaded_when_it_is_asked(whole):
    later = WhenAsked(str(whole), box_threshold=0, text_threshold=0)
    assert "_loaded" not in vars(later)
    assert later.settings == {"model": str(whole), "box_threshold": 0, "text_threshold": 0}
    assert later.detect(IMAGE, {1: "dog"}).found
    assert later.loaded.settings == later.settings
    other = WhenAsked(str(whole))
    with ThreadPoolExecutor(4) as threads:  # it is loaded once
        assert len({id(found) for found in threads.map(lambda _: other.loaded, range(4))}) == 1
    with pytest.raises(InvalidValueError, match="box threshold"):
        WhenAsked(str(whole), box_threshold=2)
    missing = WhenAsked("nowhere")
    for _ in range(2):
        with pytest.raises(InvalidValueError, match="no such model"):
            missing.detect(IMAGE, {1: "dog"})


@pytest.mark.parametrize("name", LARGE)
def test_how_large_a_model_is_that_cannot_be_had(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SampleError, match=rf"it is {LARGE[name]:g} GB: hf download {name} --local-dir FOLDER"):
        find_model(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same():
    prompts = {1: Prompt(mask=MASK), 2: Prompt(box=(40, 30, 90, 70)), 3: Prompt(points=((20, 60, True),))}
    seeds = {id: Seed(0, prompt) for id, prompt in prompts.items()}
    found = {}
    for device in ("cpu", "cuda"):
        model, tokenizer, processor = tiny_detector()
        detector = GroundingDino(model.to(device), tokenizer, processor, 0, 0)
        labels = Sam2(tiny_picture_model().to(device)).segment(IMAGE, prompts)
        tracked = Sam2Tracker(tiny_video_model().to(device)).track(NUMBERED[:6] + IMAGE // 2, seeds)
        found[device] = detector.detect(IMAGE, {1: "red ball"}).found[1].box, labels, tracked
    for ours, theirs in zip(*found.values(), strict=True):
        if isinstance(ours, tuple):
            assert ours == pytest.approx(theirs, abs=0.5)
        else:
            assert np.mean(ours != theirs) < 0.01
