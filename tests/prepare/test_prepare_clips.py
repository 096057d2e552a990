"""Cutting, reading, filtering and making of clips, each against what is known of the video."""

import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from faulty_clips import ColourPerception, write_clip
from PIL import Image

from throughmask.errors import InvalidValueError, MediaError, MissingPackageError
from throughmask.media import read_video, write_video
from throughmask.media.timing import video_stream
from throughmask.perception.language import EnglishRules
from throughmask.prepare.captions import SHOWN, TASK, tell
from throughmask.prepare.config import Config, Cutting
from throughmask.prepare.cutting import Clip, check_cutting, cut
from throughmask.prepare.engine import prepare
from throughmask.prepare.filters import Filters, Reject, check, measure
from throughmask.prepare.frames import Reader, open_frames
from throughmask.prepare.inputs import Input
from throughmask.prepare.making import Tools, prepare_clip
from throughmask.synthetic import make_sample
from throughmask.types import MaskTrajectory, Sample, Video

REAL = [
    ("davis16/blackswan", "gt_union"),
    ("davis16/bmx-trees", "gt_union"),
    ("davis16/dog", "gt_union"),
    ("davis16/horsejump-high", "derived_instances"),
    ("davis16/motocross-jump", "gt_union"),
    ("davis17_multi/dogs_jump", "gt_instances"),
]


def film(path, *seeds, frames=24):
    """Shots of moving shapes, one after another, every second one in negative colours."""
    shots = [make_sample(seed, size=(64, 96), frames=frames).video.frames ^ (seed % 2 * 255) for seed in seeds]
    write_video(path, Video(np.concatenate(shots).astype(np.uint8), Fraction(24)))


def encode(path, codec, options):
    """60 frames of moving shapes, the same for all codecs."""
    shapes = make_sample(1, size=(64, 96), frames=60).video.frames
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for pixels in shapes:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def found(path, **options):
    return cut(Input(path.name, path, id="film"), Config(cutting=Cutting(**options)))


def test_without_shots_a_video_is_cut_into_equal_pieces_and_a_rest(tmp_path):
    film(tmp_path / "film.mp4", 0)
    assert found(tmp_path / "film.mp4", frames=10, shots=False).pieces == ((0, 10), (10, 20), (20, 24))
    assert found(tmp_path / "film.mp4", frames=24, shots=False).pieces == ((0, 24),)
    thinned = found(tmp_path / "film.mp4", frames=10, shots=False, fps=Fraction(12))
    assert (thinned.frames, thinned.fps, thinned.pieces) == (12, 12, ((0, 10), (10, 12)))


def test_shots_are_found(tmp_path):
    pytest.importorskip("scenedetect", reason="shots need PySceneDetect")
    film(tmp_path / "film.mp4", 0, 1, 2)
    assert found(tmp_path / "film.mp4", frames=100).pieces == ((0, 24), (24, 48), (48, 72))
    assert found(tmp_path / "film.mp4", frames=20).pieces == ((0, 20), (20, 24), (24, 44), (44, 48), (48, 68), (68, 72))


def test_without_pyscenedetect_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scenedetect", None)
    with pytest.raises(MissingPackageError, match=r"finding shots \(--no-shots does without\).*\[prepare\]"):
        check_cutting(Cutting())
    check_cutting(Cutting(shots=False))


@pytest.mark.slow
def test_real_clips_are_one_shot_each_and_joined_ones_are_cut_apart(assets, tmp_path):
    """Shaking cameras are no cuts."""
    pytest.importorskip("scenedetect", reason="shots need PySceneDetect")
    videos, starts = [], [0]
    for name in ("blackswan", "bmx-trees", "motocross-jump", "dog"):
        path = assets / "videos" / "davis16" / name / "video.mp4"
        assert len(found(path, frames=200).pieces) == 1, name
        videos.append(read_video(path).frames[:, ::2, ::2])
        starts.append(starts[-1] + len(videos[-1]))
    write_video(tmp_path / "film.mp4", Video(np.concatenate(videos), Fraction(24)))
    assert [piece[0] for piece in found(tmp_path / "film.mp4", frames=200).pieces] == starts[:-1]


def test_the_reader_gives_the_frames_of_the_whole_video(tmp_path):
    film(tmp_path / "film.mp4", 0)
    whole = read_video(tmp_path / "film.mp4").frames
    item, reader = Input("film.mp4", tmp_path / "film.mp4"), Reader()
    for start, end in ((0, 8), (8, 16), (20, 24), (3, 9)):  # the last one goes back
        assert np.array_equal(reader.read(item, start, end, every=1).frames, whole[start:end])
    assert np.array_equal(Reader().read(item, 1, 5, every=3).frames, whole[3:15:3])
    slow = read_video(tmp_path / "film.mp4", fps=10).frames
    assert np.array_equal(Reader(Fraction(10)).read(item, 2, 7, every=1).frames, slow[2:7])


def test_a_long_video_is_read_a_clip_at_a_time(tmp_path, monkeypatch):
    film(tmp_path / "film.mp4", 0, 1, 2)
    frames = open_frames(Input("film.mp4", tmp_path / "film.mp4"), tmp_path / "film.mp4")
    converted = []
    original = type(frames)._pixels
    monkeypatch.setattr(type(frames), "_pixels", staticmethod(lambda *a: converted.append(1) or original(*a)))
    next(frames.stream(40))
    assert len(converted) == 1


CODECS = {  # name: suffix, codec, options, whether decoding can begin at later frames
    "closed": ("mp4", "libx264", {"g": "12"}, True),
    "few frames refer to others": ("mp4", "libx264", {"g": "12", "bf": "0"}, True),
    "in ts": ("ts", "libx264", {"g": "12"}, True),
    "in matroska": ("mkv", "libx264", {"g": "12"}, True),
    "open": ("mp4", "libx264", {"g": "12", "x264-params": "open-gop=1:keyint=12:min-keyint=6:scenecut=0"}, False),
    "recovers": ("mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=12"}, False),
    "in flash": ("flv", "libx264", {"g": "12"}, True),
    "hevc in matroska": ("mkv", "libx265", {"x265-params": "keyint=12:open-gop=0:log-level=none"}, True),
    "hevc": ("mp4", "libx265", {"x265-params": "keyint=12:open-gop=0:log-level=none"}, True),
    "hevc, open": ("mp4", "libx265", {"x265-params": "keyint=12:open-gop=1:log-level=none"}, False),
    "vp9": ("webm", "libvpx-vp9", {"g": "12"}, True),
    "mpeg4": ("avi", "mpeg4", {"g": "12"}, False),
    "pictures": ("avi", "mjpeg", {}, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CODECS)
def test_where_decoding_begins_does_not_change_a_frame(tmp_path, kind):
    suffix, codec, options, later = CODECS[kind]
    path = tmp_path / f"film.{suffix}"
    try:
        encode(path, codec, options)
    except av.error.FFmpegError as error:
        pytest.skip(f"{codec}: {error}")
    frames = open_frames(Input("film", path), path)
    whole = list(frames.stream())
    assert len(whole) == len(frames) == 60
    assert (len(frames.timing.starts) > 1) == later
    for start in (5, 11, 12, 13, 25, 30, 47, 59):
        assert all(np.array_equal(a, b) for a, b in zip(frames.stream(start), whole[start:], strict=True)), start


def test_what_lies_long_before_a_clip_is_not_decoded(tmp_path, monkeypatch):
    encode(tmp_path / "film.mp4", "libx264", {"g": "12"})
    item, decoded = Input("film.mp4", tmp_path / "film.mp4"), []
    whole = Reader().read(item, 0, 60, every=1).frames

    class Counting:
        """A container that says what it decodes."""

        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def decode(self, *streams):
            for frame in self.container.decode(*streams):
                decoded.append(frame.pts)
                yield frame

    @contextmanager
    def counted(path):
        with video_stream(path) as (container, stream):
            yield Counting(container), stream

    monkeypatch.setattr("throughmask.prepare.frames.video_stream", counted)
    reader = Reader()
    for start, most in ((50, 6), (53, 3), (3, 12)):
        decoded.clear()
        assert np.array_equal(reader.read(item, start, start + 3, every=1).frames, whole[start : start + 3])
        assert 3 <= len(decoded) <= most + 3


def test_damage_matters_to_those_clips_alone_that_depend_on_it(tmp_path):
    encode(tmp_path / "film.mp4", "libx264", {"g": "12", "bf": "0"})
    with av.open(str(tmp_path / "film.mp4")) as container:
        packet = next(packet for k, packet in enumerate(container.demux(video=0)) if k == 30)
        at, size = packet.pos, packet.size
    shutil.copy(tmp_path / "film.mp4", tmp_path / "whole.mp4")
    content = bytearray((tmp_path / "film.mp4").read_bytes())
    content[at + 8 : at + size] = bytes(size - 8)
    (tmp_path / "film.mp4").write_bytes(content)
    item = Input("film.mp4", tmp_path / "film.mp4")
    clips = [(0, 10), (10, 20), (25, 29), (32, 36), (40, 50), (50, 60)]

    def outcome(reader, start, end, item=item):
        try:
            return reader.read(item, start, end, every=1).frames.tobytes()
        except MediaError as error:
            return str(error)

    one, apart = Reader(), [outcome(Reader(), *clip) for clip in clips]
    assert [outcome(one, *clip) for clip in clips] == apart  # as Ray's actors, which take them one by one
    truth = [outcome(Reader(), *clip, Input("whole.mp4", tmp_path / "whole.mp4")) for clip in clips]
    assert [made == true for made, true in zip(apart, truth, strict=True)] == [True, True, True, False, True, True]
    assert "damaged" in apart[3]


@pytest.mark.slow
@pytest.mark.parametrize(("clip", "masks"), REAL)
def test_given_masks_of_real_clips_are_kept_byte_for_byte(assets, tmp_path, clip, masks):
    folder = assets / "videos" / clip
    item = Input(clip, folder / "video.mp4", masks=folder / masks, id="real")
    config = Config("given", Cutting(frames=1000, shots=False))
    assert prepare([item], tmp_path / "out", config, lambda: Tools(EnglishRules())).samples == 1
    [sample] = (tmp_path / "out" / "samples").iterdir()
    for mine, source in zip(sorted((sample / "masks").iterdir()), sorted((folder / masks).glob("*.png")), strict=True):
        assert np.asarray(Image.open(mine)).tobytes() == np.asarray(Image.open(source)).tobytes()


def labels(*boxes, frames=20, size=(40, 60)):
    """A trajectory of boxes: id k is boxes[k - 1], a function of the frame to top, left, side (0: absent)."""
    out = np.zeros((frames, *size), np.uint8)
    for id, box in enumerate(boxes, 1):
        for t in range(frames):
            top, left, side = box(t)
            out[t, top : top + side, left : left + side] = id
    return MaskTrajectory(out, Fraction(12))


def test_measures_are_what_they_say():
    measures = measure(labels(lambda t: (0, t, 10), lambda t: (20, 20, 10 if t < 15 else 0)))
    assert measures.areas == {1: pytest.approx(100 / 2400), 2: pytest.approx(100 / 2400)}
    assert measures.motions == {1: pytest.approx(12 / np.hypot(40, 60)), 2: 0}
    assert measures.flickers == {1: 0, 2: 0}  # it left, once
    assert measure(labels(lambda t: (0, 0, 10 * (t % 2)))).flickers[1] == pytest.approx(17 / 19)


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([lambda t: (0, t, 10)], None),
        ([lambda t: (0, t, 10)] * 0, "no object found"),
        ([lambda t: (0, t, 10), lambda t: (30, 3, 1)], "an object is tiny"),
        ([lambda t: (0, t % 2, 60)], "an object fills the frame"),
        ([lambda t: (0, t, 10 * (t % 2))], "the masks flicker"),
        ([lambda t: (5, 5, 10)], "too little motion"),
        ([lambda t: (0, 50 * (t % 2), 10)], "too much motion"),
        ([lambda t, k=k: (4 * k, t, 3) for k in range(9)], "too many objects"),
    ],
)
def test_every_filter_has_its_reason(boxes, reason):
    reject = check(measure(labels(*boxes)), Filters())
    assert (reject and reject.reason) == reason
    assert reject is None or reason == "no object found" or reject.value is not None


def test_filters_that_contradict_themselves_are_refused():
    with pytest.raises(InvalidValueError, match="a lower limit is above the upper one"):
        Filters(min_motion=2, max_motion=1)
    with pytest.raises(InvalidValueError, match="min_found is a share of the named objects, 0 to 1"):
        Filters(min_found=50)
    with pytest.raises(InvalidValueError, match="is not resampled"):
        Config("given", Cutting(fps=Fraction(12)))


def made(tmp_path, caption, perception=None, config=Config(), **tools):  # noqa: B008 (frozen)
    write_clip(tmp_path, "clip", 5, size=(128, 128))
    item = Input("clip.mp4", tmp_path / "clip.mp4", caption, id="clip")
    perception = perception or ColourPerception()
    return prepare_clip(Clip(item, 0, 18), config, Tools(EnglishRules(), perception, **tools)).result


@pytest.mark.parametrize(
    ("caption", "reject"),
    [
        ("", Reject("language", "no caption")),
        ("it rains", Reject("language", "the caption names no object", "it rains")),
        ("word " * 3000, Reject("language", "the prompt is too long", "3000 words")),
        ("a silver fox runs", Reject("detect", "no object found", ["silver fox"])),
    ],
)
def test_captions_that_lead_nowhere(tmp_path, caption, reject):
    assert made(tmp_path, caption) == reject


def test_what_a_caption_names_but_no_frame_shows_is_left_out(tmp_path):
    truth = make_sample(5, num_objects=1, size=(128, 128), frames=18).scene
    caption = f"{truth.prompt.rstrip('.')} and a silver fox runs"
    sample = made(tmp_path, caption, config=Config(filters=Filters(min_found=0.5)))
    assert isinstance(sample, Sample)
    assert [thing.name for thing in sample.scene.objects] == [truth.objects[0].name]
    assert "fox" in sample.scene.prompt
    strict = made(tmp_path, caption, config=Config(filters=Filters(min_found=0.6)))
    assert strict == Reject("filter", "objects that the caption names are not found", ["silver fox"])
    assert "min_found" not in Config().made_with()["filters"]  # what was made before there was one is not stale
    assert Config(filters=Filters(min_found=0.6)).made_with()["filters"]["min_found"] == 0.6


def test_a_model_that_sees_frames_tells_what_has_no_caption(tmp_path):
    truth = make_sample(5, num_objects=1, size=(128, 128), frames=18).scene
    asked = []

    def ask(messages):
        asked.append(messages)
        return f' "{truth.prompt}"\n'

    sample = made(tmp_path, "", tell=lambda frames: tell(frames, ask))
    assert sample.scene.prompt == truth.prompt.strip('"')
    [[message]] = asked
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text"] + ["image_url"] * SHOWN
    assert message["content"][0]["text"] == TASK
    assert re.match("data:image/jpeg;base64,", message["content"][1]["image_url"]["url"])
    with pytest.raises(InvalidValueError, match="the model's answer is no caption"):
        tell(np.zeros((2, 8, 8, 3), np.uint8), lambda messages: "  ")


def test_the_same_clip_is_always_the_same_sample(tmp_path):
    truth = make_sample(5, num_objects=1, size=(128, 128), frames=18).scene
    assert made(tmp_path, truth.prompt) == made(tmp_path, truth.prompt)


def test_a_server_that_is_down_rejects_no_clips(tmp_path):
    from throughmask.perception.instruct.connection import ServerError

    class Down:
        def read(self, prompt):
            raise ServerError("the server does not answer")

    write_clip(tmp_path, "clip", 3)
    item = Input("clip.mp4", tmp_path / "clip.mp4", "a ball rolls", id="clip")
    tools = Tools(Down(), ColourPerception())
    with pytest.raises(ServerError):
        prepare([item], tmp_path / "out", Config(cutting=Cutting(shots=False)), lambda: tools)
    assert not (tmp_path / "out" / "rejects.jsonl").exists()
    up = replace(tools, language=EnglishRules())
    assert prepare([item], tmp_path / "out", Config(cutting=Cutting(shots=False)), lambda: up).clips == 1
