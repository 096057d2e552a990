"""Pictures and videos come back as they were, or the reader is told why not."""

import json
import resource
import signal
import struct
import warnings
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from throughmask import Video
from throughmask.errors import InvalidValueError, MediaError, OutputError, ThroughMaskWarning
from throughmask.media import probe_video, read_image, read_labels, read_video, write_image, write_labels, write_video
from throughmask.palette import DAVIS, OURS

few = settings(max_examples=20, deadline=None)
NTSC = Fraction(30000, 1001)


def picture(height=5, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def clip(num_frames=6, height=48, width=64, fps=24):
    """A bright block that moves over a dim gradient: lossy video keeps it, and all frames differ."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames[..., 0] = np.linspace(20, 90, width).astype(np.uint8)
    frames[..., 1] = np.linspace(20, 90, height).astype(np.uint8)[:, None]
    for t in range(num_frames):
        frames[t, height // 4 : height // 2, 2 * t : 2 * t + width // 4] = (230, 220, 60)
    return Video(frames, fps)


def png(width, height, depth, kind, rows):
    """A PNG file by hand, for what Pillow does not write."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def encode(path, frames, *, codec="libx264", rate=24, ticks=None, options=None, turn=None, aspect=None, audio=False):
    """A video file through av alone, so that reading is not tested by our own writing. `ticks` are milliseconds."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "10"}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if ticks:
            stream.codec_context.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(**turn)
        sound = container.add_stream("aac", rate=8000) if audio else None
        container.start_encoding()
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = ticks[number] if ticks else number
            frame.time_base = Fraction(1, 1000) if ticks else 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            container.mux(sound.encode())
    return path


def which(video, source):
    """For each frame, the number of the most similar frame of `source`."""
    difference = np.abs(video.frames[:, None].astype(int) - source.frames[None]).mean((2, 3, 4))
    return difference.argmin(1).tolist()


# Pictures


@few
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_is_lossless(tmp_path_factory, pixels):
    path = tmp_path_factory.mktemp("png") / "größe 1.png"
    write_image(path, pixels)
    assert np.array_equal(read_image(path), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp", ".JPG"])
def test_lossy_pictures_are_close(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", clip().frames[0])
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - clip().frames[0]).mean() < 2


def test_pictures_are_not_overwritten_and_need_a_known_suffix(tmp_path):
    write_image(tmp_path / "a.png", picture())
    with pytest.raises(OutputError, match="exists already"):
        write_image(tmp_path / "a.png", picture(seed=1))
    assert np.array_equal(read_image(tmp_path / "a.png"), picture())
    write_image(tmp_path / "a.png", picture(seed=1), force=True)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture(seed=1))
    with pytest.raises(MediaError, match=r"end the name in \.png"):
        write_image(tmp_path / "a.tga", picture())


@pytest.mark.parametrize("bad", [picture().astype(float), picture()[..., 0], picture()[..., :2], picture()[:0]])
def test_only_pixels_are_written(tmp_path, bad):
    with pytest.raises(InvalidValueError, match="uint8 H W 3"):
        write_image(tmp_path / "a.png", bad)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.fromarray(picture()).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path)
    assert np.array_equal(read_image(path), np.array(image.convert("RGB")))


def test_grey_of_16_bits_is_scaled(tmp_path):
    wide = np.array([[0, 128, 129, 257, 32768, 65534, 65535]], np.uint16)
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(wide).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        pixels = read_image(tmp_path / name)
        assert pixels.shape == (1, 7, 3)
        assert pixels[0, :, 1].tolist() == [0, 0, 1, 1, 128, 255, 255]


def test_rgb_of_16_bits_is_scaled(tmp_path):
    values = np.array([[0, 32768, 65535], [255, 256, 40000]], ">u2")
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, b"\0" + values.tobytes()))
    assert np.abs(read_image(tmp_path / "a.png")[0].astype(int) - values / 257).max() <= 1


def test_values_without_a_known_white_are_refused(tmp_path):
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(MediaError, match="32-bit"):
        read_image(tmp_path / "a.tif")


def test_transparent_pixels_are_laid_over_white_with_a_notice(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 200, (0, 128, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    with pytest.warns(ThroughMaskWarning, match="2 transparent pixels"):
        pixels = read_image(tmp_path / "a.png")
    assert pixels[0].tolist() == [[255, 255, 255], [227, 127, 127], [200, 0, 0]]


def test_opaque_alpha_goes_unmentioned(tmp_path):
    Image.fromarray(picture()).convert("RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), picture())


def test_a_transparent_palette_entry_counts_as_transparent(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=0)
    with pytest.warns(ThroughMaskWarning, match="1 transparent pixels"):
        assert read_image(tmp_path / "a.png")[0].tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_rotation_is_undone(tmp_path, orientation, suffix):
    upright = np.kron(picture(2, 3), np.ones((16, 16, 1), np.uint8))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a{suffix}", exif=exif, quality=100)
    pixels = read_image(tmp_path / f"a{suffix}")
    assert pixels.shape == upright.shape
    assert np.median(np.abs(pixels.astype(int) - upright)) <= 1


def test_an_animation_is_read_to_its_first_picture_with_a_notice(tmp_path):
    first, second = (Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (0, 255))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    with pytest.warns(ThroughMaskWarning, match="first of 2 pictures"):
        assert not read_image(tmp_path / "a.gif").any()


def test_a_phones_double_jpeg_is_an_ordinary_picture(tmp_path):
    image = Image.fromarray(np.full((16, 16, 3), 90, np.uint8))
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image])
    assert (read_image(tmp_path / "a.jpg") == 90).all()


def test_limits_on_pixels(tmp_path):
    write_image(tmp_path / "a.png", picture(10, 10))
    assert read_image(tmp_path / "a.png", max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(MediaError, match=r"too large \(seen: .*10×10\).*max_pixels"):
        read_image(tmp_path / "a.png", max_pixels=99)
    for side in (9_000, 60_000):  # above our limit, and above Pillow's
        (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 0, b""))
        with pytest.raises(MediaError, match="the picture is too large"):
            read_image(tmp_path / "bomb.png")
        with pytest.raises(MediaError, match="the picture is too large"):
            read_labels(tmp_path / "bomb.png")


def test_files_that_are_no_picture(tmp_path):
    write_image(tmp_path / "whole.png", picture(50, 50))
    whole = (tmp_path / "whole.png").read_bytes()
    for name, content, says in (
        ("text.png", b"hello", "not a picture of a known format"),
        ("empty.png", b"", "the file is empty"),
        ("cut.png", whole[: len(whole) // 2], "damaged"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture of a known format"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=says):
            read_image(tmp_path / name)
    for path, says in (
        (tmp_path, "this is a folder"),
        (tmp_path / "none.png", "no such file"),
        (tmp_path / "whole.png" / "x.png", "cannot be read"),
        ("nul\0.png", "cannot be read|no such file"),
    ):
        with pytest.raises(MediaError, match=says):
            read_image(path)


@few
@given(st.data())
def test_a_damaged_picture_never_fails_otherwise(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a"
    suffix = data.draw(st.sampled_from([".png", ".jpg", ".webp"]))
    write_image(path.with_suffix(suffix), picture())
    content = bytearray(path.with_suffix(suffix).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    for read in (read_image, read_labels):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with suppress(MediaError):
                assert read(path).dtype == np.uint8


# Labels


@few
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_labels_are_lossless(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("labels") / "00000.png"
    write_labels(path, labels)
    assert np.array_equal(read_labels(path), labels)


def test_labels_are_stored_with_the_davis_palette_and_hold_255_objects(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_labels(tmp_path / "a.png", labels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.convert("RGB")), DAVIS.colours[labels])
    assert np.array_equal(read_labels(tmp_path / "a.png"), labels)


def test_labels_from_grey_and_from_one_bit(tmp_path):
    labels = np.array([[0, 1, 7], [1, 0, 255]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    assert np.array_equal(read_labels(tmp_path / "grey.png"), labels)
    Image.fromarray(labels > 0).save(tmp_path / "bit.png")
    assert np.array_equal(read_labels(tmp_path / "bit.png"), labels > 0)


def test_labels_from_a_small_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8))
    image.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    image.save(tmp_path / "a.png", bits=2)
    assert read_labels(tmp_path / "a.png").tolist() == [[0, 1, 2, 3]]


def test_colours_and_stretched_grey_are_no_labels(tmp_path):
    write_image(tmp_path / "rgb.png", picture())
    with pytest.raises(MediaError, match=r"indexed PNG.*mode RGB.*throughmask\.palette"):
        read_labels(tmp_path / "rgb.png")
    (tmp_path / "four.png").write_bytes(png(2, 1, 4, 0, b"\0\x12"))
    with pytest.raises(MediaError, match="indexed or 8-bit grey PNG"):
        read_labels(tmp_path / "four.png")
    write_image(tmp_path / "lossy.jpg", picture())
    with pytest.raises(MediaError, match="readable here: PNG"):
        read_labels(tmp_path / "lossy.jpg")


@pytest.mark.parametrize("bad", [np.zeros((3, 3), int), np.zeros((3, 3, 3), np.uint8), np.zeros((0, 3), np.uint8)])
def test_only_labels_are_written(tmp_path, bad):
    with pytest.raises(InvalidValueError, match="uint8 H W"):
        write_labels(tmp_path / "a.png", bad)


# Video


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (47, 63), (2, 2), (1, 1), (1, 40)])
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_length_size_and_pixels_come_back(tmp_path, size, num_frames):
    video = clip(num_frames, *size)
    write_video(tmp_path / "a b ü.mp4", video)
    back = read_video(tmp_path / "a b ü.mp4")
    assert (len(back), back.size, back.fps) == (len(video), video.size, video.fps)
    if min(size) > 40:
        assert np.abs(back.frames.astype(int) - video.frames).mean() < 4
        assert which(back, video) == list(range(num_frames))


@few
@given(st.fractions(min_value=Fraction(1, 4), max_value=240, max_denominator=1001), st.integers(1, 4))
def test_any_frame_rate_is_kept_exactly(tmp_path_factory, fps, num_frames):
    path = tmp_path_factory.mktemp("rate") / "a.mp4"
    write_video(path, clip(num_frames, 16, 16, fps))
    info = probe_video(path)
    assert (info.fps, info.frames, info.variable) == (fps, num_frames, False)
    assert read_video(path).fps == fps


@pytest.mark.parametrize("fps", [NTSC, Fraction(24000, 1001), 24, 8, Fraction(25, 2), 120])
@pytest.mark.parametrize("num_frames", [1, 2, 60])
def test_common_rates_are_kept_at_any_length(tmp_path, fps, num_frames):
    write_video(tmp_path / "a.mp4", clip(num_frames, 16, 16, fps))
    assert (probe_video(tmp_path / "a.mp4").fps, len(read_video(tmp_path / "a.mp4"))) == (fps, num_frames)


@few
@given(hnp.arrays(np.uint8, st.tuples(*(st.integers(1, 6),) * 3, st.just(3))))
def test_lossless_video_is_bit_exact(tmp_path_factory, frames):
    path = tmp_path_factory.mktemp("lossless") / "a.mp4"
    write_video(path, Video(frames, NTSC), lossless=True)
    assert read_video(path) == Video(frames, NTSC)


def test_painted_labels_survive_lossless_video_bit_for_bit(tmp_path):
    labels = np.random.default_rng(0).integers(0, OURS.num_objects + 1, (9, 31, 45)).astype(np.uint8)
    write_video(tmp_path / "a.mp4", Video(OURS.paint(labels), 8), lossless=True)
    back, far = OURS.snap(read_video(tmp_path / "a.mp4").frames)
    assert np.array_equal(back, labels)
    assert far == 0


def test_flat_colours_survive_lossy_video_within_two_levels(tmp_path):
    colours = np.array([(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 90)], np.uint8)
    frames = np.broadcast_to(np.repeat(np.repeat(colours[None], 64, 0), 64, 1), (3, 64, 384, 3))
    write_video(tmp_path / "a.mp4", Video(frames, 24))
    centres = read_video(tmp_path / "a.mp4").frames[:, 32, 32::64]
    assert np.abs(centres.astype(int) - colours).max() <= 2


def test_what_browsers_need(tmp_path):
    write_video(tmp_path / "a.mp4", clip(30, 47, 63))
    content = (tmp_path / "a.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat"), "the index comes first"
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.height, context.width) == ("h264", "yuv420p", 48, 64)
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert tags == (1, 1, 1, 1), "BT.709, limited range"
    info = probe_video(tmp_path / "a.mp4")
    assert (info.codec, info.size, info.frames, info.seconds) == ("h264", (47, 63), 30, 1.25)


def test_padding_repeats_the_edge(tmp_path):
    write_video(tmp_path / "a.mp4", clip(3, 47, 63))
    with av.open(str(tmp_path / "a.mp4")) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert np.abs(pixels[47] - pixels[46]).mean() < 6
    assert np.abs(pixels[:, 63] - pixels[:, 62]).mean() < 6


@pytest.mark.parametrize(
    "note", ["throughmask size 3x3", "throughmask size 49x64", "throughmask size 0x0", "size 47x63"]
)
def test_a_size_note_that_is_not_ours_is_ignored(tmp_path, note):
    write_video(tmp_path / "a.mp4", clip())
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "b.mp4"), "w") as copy:
        copy.metadata["comment"] = note
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    assert read_video(tmp_path / "b.mp4").size == (48, 64)


def test_video_is_not_overwritten_and_is_mp4(tmp_path):
    write_video(tmp_path / "a.mp4", clip(2))
    with pytest.raises(OutputError, match="exists already"):
        write_video(tmp_path / "a.mp4", clip(3))
    assert len(read_video(tmp_path / "a.mp4")) == 2
    write_video(tmp_path / "a.mp4", clip(3), force=True)
    assert len(read_video(tmp_path / "a.mp4")) == 3
    with pytest.raises(MediaError, match=r"end the name in \.mp4"):
        write_video(tmp_path / "a.avi", clip())
    with pytest.raises(MediaError, match="too fine for mp4"):
        write_video(tmp_path / "b.mp4", clip(fps=Fraction(10**7 + 1, 10**6)))


def test_a_full_disk_leaves_no_video(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(OutputError, match="cannot write the output"):
            write_video(tmp_path / "a.mp4", Video(noise, 24))
        with pytest.raises(OutputError, match="cannot write the output"):
            write_image(tmp_path / "a.png", noise.reshape(-1, 64, 3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.ts", "a.webm"])
@pytest.mark.parametrize("rate", [24, NTSC])
def test_other_containers_keep_count_and_rate(tmp_path, name, rate):
    codec = {"a.avi": "mpeg4", "a.webm": "libvpx-vp9"}.get(name, "libx264")
    video = clip(30, 32, 64)
    path = encode(tmp_path / name, video.frames, codec=codec, rate=rate)
    back = read_video(path)
    assert (back.fps, len(back), probe_video(path).variable) == (rate, 30, False)
    assert which(back, video)[:20] == list(range(20))


def test_a_raw_stream_has_a_rate_and_no_times(tmp_path):
    path = encode(tmp_path / "a.h264", clip(9).frames, rate=25)
    assert (len(read_video(path)), read_video(path).fps) == (9, 25)


def test_a_variable_rate_is_resampled_with_a_notice(tmp_path):
    video = clip(20, 32, 64)
    gaps = np.random.default_rng(1).integers(20, 80, 19)
    ticks = [0, *np.cumsum(gaps).tolist()]
    path = encode(tmp_path / "a.mp4", video.frames, ticks=ticks)
    assert probe_video(path).variable
    assert probe_video(path).frames == 20
    with pytest.warns(
        ThroughMaskWarning, match=r"frame rate varies.*resampled to 10 frames a second \(20 frames became"
    ):
        back = read_video(path, fps=10)
    shown = [max(k for k in range(20) if ticks[k] <= 100 * n) for n in range(len(back))]
    assert back.fps == 10
    assert which(back, video) == shown
    assert abs(len(back) - ticks[-1] / 100) <= 1.5
    rate = probe_video(path).fps
    with pytest.warns(ThroughMaskWarning, match=f"resampled to {rate} frames"):
        assert read_video(path).fps == rate
    assert rate.denominator in (1, 1001)
    assert abs(rate - 19_000 / ticks[-1]) <= 0.5


@pytest.mark.parametrize(
    ("average", "chosen"), [(33.367, NTSC), (41.708, Fraction(24000, 1001)), (90.0, 11), (2000.0, 1)]
)
def test_the_rate_for_variable_video_is_a_sensible_one(tmp_path, average, chosen):
    jitter = np.random.default_rng(0).integers(-8, 9, 30)
    ticks = (np.arange(30) * average).round().astype(int) + jitter * (np.arange(30) % 29 != 0)
    path = encode(tmp_path / "a.mp4", clip(30, 16, 64).frames, ticks=(ticks - ticks[0]).tolist())
    assert (probe_video(path).variable, probe_video(path).fps) == (True, chosen)


@pytest.mark.parametrize(("fps", "shown"), [(12, [0, 2, 4, 6, 8]), (48, [0, 0, 1, 1, 2, 2]), ("24", list(range(10)))])
def test_a_constant_rate_is_resampled_on_request_without_a_notice(tmp_path, fps, shown):
    video = clip(10)
    write_video(tmp_path / "a.mp4", video)
    back = read_video(tmp_path / "a.mp4", fps=fps)
    assert back.fps == int(fps)
    assert which(back, video)[: len(shown)] == shown
    assert len(back) == 10 * int(fps) // 24


TURNS = [{"degrees": turn, "hflip": h, "vflip": v} for turn in (0, 90, 180, -90) for h, v in ((0, 0), (1, 0), (0, 1))]


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_rotation_and_mirroring_in_the_container_are_applied(tmp_path, turn):
    video = clip(3)
    path = encode(tmp_path / "a.mp4", video.frames, turn=turn)
    expected = np.rot90(video.frames, turn["degrees"] // 90, axes=(1, 2))
    expected = expected[:, :: -1 if turn["vflip"] else 1, :: -1 if turn["hflip"] else 1]
    back = read_video(path)
    assert back.size == expected.shape[1:3] == probe_video(path).size
    assert np.abs(back.frames.astype(int) - expected).mean() < 4


def test_odd_pixels_and_high_dynamic_range_are_mentioned(tmp_path):
    with pytest.warns(ThroughMaskWarning, match=r"1\.500 times as wide as high"):
        read_video(encode(tmp_path / "a.mp4", clip().frames, aspect=Fraction(3, 2)))
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        stream.codec_context.color_trc = 16
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    with pytest.warns(ThroughMaskWarning, match="high dynamic range"):
        read_video(tmp_path / "b.mp4")


@pytest.mark.parametrize("read", [read_video, probe_video])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm", "a.avi"])
@pytest.mark.parametrize("index_first", [True, False])
def test_a_video_that_was_cut_off_is_refused(tmp_path, read, name, index_first):
    noise = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    codec = {"a.avi": "mpeg4", "a.webm": "libvpx-vp9"}.get(name, "libx264")
    options = {"movflags": "+faststart"} if index_first and name == "a.mp4" else {}
    path = encode(tmp_path / name, noise, codec=codec, options=options)
    whole = path.read_bytes()
    for share in (0.3, 0.7):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(MediaError, match="cut off or damaged"):
            read(path)


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_video_with_a_hole_is_refused_or_read_whole(tmp_path, where):
    write_video(tmp_path / "a.mp4", clip(30), lossless=True)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    at = content.index(b"mdat") + int(where * (len(content) - content.index(b"mdat")))
    content[at : at + 200] = bytes(200)
    (tmp_path / "a.mp4").write_bytes(content)
    with suppress(MediaError):  # whichever it is, fewer frames are never passed off as all
        assert len(read_video(tmp_path / "a.mp4")) == 30


def test_files_that_are_no_video(tmp_path):
    write_image(tmp_path / "a.png", picture())
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").touch()
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    encode(tmp_path / "real.ts", clip().frames)
    (tmp_path / "concat.txt").write_text("ffconcat version 1.0\nfile real.ts\n")
    for name in ("a.png", "text.mp4", "list.m3u8", "concat.txt"):
        with pytest.raises(MediaError, match="not a video"):
            read_video(tmp_path / name)
    for path, says in (
        (tmp_path / "empty.mp4", "the file is empty"),
        (tmp_path, "this is a folder"),
        (tmp_path / "none.mp4", "no such file"),
        ("http://example.invalid/a.mp4", "no such file"),
        (f"concat:{tmp_path}/real.ts", "no such file"),
    ):
        with pytest.raises(MediaError, match=says):
            read_video(path)


def test_videos_without_frames(tmp_path):
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F24:1 C420jpeg\n")
    (tmp_path / "a.gif").write_bytes(b"GIF89a\x10\0\x10\0\0\0\0;")
    encode(tmp_path / "a.mp4", clip().frames[:0])
    encode(tmp_path / "a.mkv", clip().frames[:0])
    for name, says in (
        ("a.y4m", "has no frames"),
        ("a.gif", "0 of 1 frames can be decoded|no frame that can be decoded"),
        ("a.mp4", "no video track"),
        ("a.mkv", "cut off or damaged"),
    ):
        for read in (read_video, probe_video):
            with pytest.raises(MediaError, match=says):
                read(tmp_path / name)


def test_a_sound_file(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="no video track"):
        read_video(tmp_path / "a.mp4")


def test_limits_on_video(tmp_path):
    write_video(tmp_path / "a.mp4", clip(6))
    assert len(read_video(tmp_path / "a.mp4", max_frames=6, max_pixels=6 * 48 * 64)) == 6
    with pytest.raises(MediaError, match=r"too many frames.*max_frames \(now 5\)"):
        read_video(tmp_path / "a.mp4", max_frames=5)
    with pytest.raises(MediaError, match="too many frames"):
        read_video(tmp_path / "a.mp4", fps=10**9)
    with pytest.raises(MediaError, match=r"too large for memory.*6 frames of 48×64.*max_pixels"):
        read_video(tmp_path / "a.mp4", max_pixels=6 * 48 * 64 - 1)


def test_a_video_that_changes_its_size(tmp_path):
    small, large = encode(tmp_path / "a.h264", clip(4).frames), encode(tmp_path / "b.h264", clip(4, 64, 80).frames)
    (tmp_path / "c.h264").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(MediaError, match=r"changes its size.*48×64, then 64×80"):
        read_video(tmp_path / "c.h264")


@pytest.mark.slow
def test_real_clips_have_the_frames_that_they_should(assets):
    clips = [entry for entry in json.loads((assets / "manifest.json").read_text()) if "frames" in entry]
    checked = 0
    for entry in clips:
        path = assets / (entry.get("file") or f"{entry['dir']}/video.mp4")
        if path.suffix == ".mp4" and path.is_file():
            info = probe_video(path)
            assert (info.frames, info.variable) == (entry["frames"], False), path
            assert info.size == tuple(entry["size"][::-1]), path
            assert info.fps == entry["fps"], path
            checked += 1
    assert checked >= 8


@pytest.mark.parametrize("name", ["magicmotion_mammoth_rhino/mask_trajectory", "time_to_move/cutdrag_wan_Owl/mask"])
def test_real_clips_decode_to_as_many_frames_as_were_counted(assets, name):
    path = Path(assets / "videos" / f"{name}.mp4")
    info = probe_video(path)
    video = read_video(path)
    assert (len(video), video.size, video.fps) == (info.frames, info.size, info.fps)
