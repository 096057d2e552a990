"""A real, small detector of COCO's 80 classes behind the same protocol as Grounding DINO, on real pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from throughmask import media
from throughmask.connected import as_labels
from throughmask.perception.real.detect import Detection, Detections
from throughmask.perception.real.matching import Candidate, allot, split_place
from throughmask.perception.real.perception import RealPerception

KINDS = {"person": 0, "rider": 0, "bicycle": 1, "bike": 1, "bird": 14, "swan": 14, "horse": 17, "potted plant": 58}


class FastestDet:
    """A Detector: a phrase's last words name a class."""

    def __init__(self, path, threshold=0.5):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.threshold = threshold

    @property
    def settings(self):
        return {"model": "FastestDet", "threshold": self.threshold}

    def detect(self, image, phrases):
        size = image.shape[:2]
        bgr = np.asarray(Image.fromarray(image).resize((352, 352), Image.Resampling.BILINEAR), np.float32)[..., ::-1]
        [[cells]] = self.session.run(None, {"input.1": np.ascontiguousarray(bgr.transpose(2, 0, 1))[None] / 255})
        nouns = {split_place(phrase)[0] for phrase in phrases.values()}
        boxes = allot(phrases, {noun: self._candidates(cells, noun, size) for noun in nouns}, size)
        missed = {id: f"{phrase!r}: not seen surely enough" for id, phrase in phrases.items() if id not in boxes}
        return Detections({id: Detection(c.box, c.score) for id, c in boxes.items()}, missed)

    def _candidates(self, cells, noun, size):
        """cells: objectness, place, size and class scores (85), for 22 × 22 places."""
        kind = next((k for name, k in KINDS.items() if noun.endswith(name)), None)
        if kind is None:
            return []
        score = np.where(cells[5:].argmax(0) == kind, cells[0] ** 0.6 * cells[5 + kind] ** 0.4, 0)
        y, x = np.nonzero(score > self.threshold)
        middle = (np.stack([x, y]) + np.tanh(cells[1:3, y, x])) / 22
        half = 0.5 / (1 + np.exp(-cells[3:5, y, x]))
        edges = np.concatenate([middle - half, middle + half]).clip(0, 1) * np.tile(size[::-1], 2)[:, None]
        return [Candidate(tuple(box), s, s) for box, s in zip(edges.T.tolist(), score[y, x].tolist(), strict=True)]


@pytest.fixture(scope="module")
def fastestdet(assets):
    pytest.importorskip("onnxruntime", reason="FastestDet is an ONNX network, and onnxruntime is not installed")
    return FastestDet(assets / "weights" / "fastestdet" / "FastestDet.onnx")


def first_frame(assets, clip):
    return media.read_video(assets / "videos" / "davis16" / clip / "video.mp4").frames[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "phrase", "label"),
    [
        ("blackswan", "black swan", "bird"),
        ("bmx-trees", "bike", "bicycle"),
        ("horsejump-high", "brown horse", "horse"),
        ("horsejump-high", "rider", "person"),
        ("motocross-jump", "rider", "person"),
    ],
)
def test_the_best_box_is_the_one_that_others_found(assets, fastestdet, clip, phrase, label):
    found, missed = fastestdet.detect(first_frame(assets, clip), {4: phrase})
    assert missed == {}
    known = json.loads((assets / "oracles" / "refs.json").read_text())[clip]["fastestdet_frame0"]
    best = next(item for item in known if item["label"] == label)
    left, top, width, height = best["xywh"]
    np.testing.assert_allclose(
        found[4].box, np.clip([left, top, left + width, top + height], 0, [854, 480] * 2), atol=8
    )
    assert found[4].score == pytest.approx(best["score"], abs=0.05)


def test_phrases_on_a_real_picture(assets, fastestdet):
    class Boxes:
        def segment(self, image, prompts):
            masks = {id: np.zeros(image.shape[:2], bool) for id in prompts}
            for id, prompt in prompts.items():
                left, top, right, bottom = (round(edge) for edge in prompt.box)
                masks[id][top:bottom, left:right] = True
            return as_labels(masks, image.shape[:2])

    heard = []
    perception = RealPerception(fastestdet, Boxes(), None, say=heard.append)
    labels = perception.segment(
        first_frame(assets, "horsejump-high"), {1: "horse", 2: "rider", 3: "potted plant", 4: "red bus"}
    )
    centre = {id: np.argwhere(labels == id).mean(0) for id in (1, 2, 3)}
    assert centre[2][0] < centre[1][0]  # the rider sits above
    assert centre[3][1] > max(centre[1][1], centre[2][1])  # the plant stands to the right
    assert heard == ["Not found: 'red bus': not seen surely enough."]
