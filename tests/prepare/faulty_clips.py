"""Tiny videos with masks and captions beside them, some broken in ten ways, each with the step and reason expected."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from throughmask.media import write_labels, write_video
from throughmask.perception.language import EnglishRules
from throughmask.prepare.making import Tools
from throughmask.synthetic import COLOURS, make_sample
from throughmask.types import Sample

FRAMES, SIZE = 18, (32, 48)


def write_clip(folder: Path, name: str, seed: int, frames: int = FRAMES, size: tuple[int, int] = SIZE) -> Sample:
    """NAME.mp4, NAME.txt and NAME/00000.png ... of moving shapes."""
    sample = make_sample(seed, num_objects=1, size=size, frames=frames)
    write_video(folder / f"{name}.mp4", sample.video, force=True)
    (folder / f"{name}.txt").write_text(sample.scene.prompt)
    for number, labels in enumerate(sample.trajectory.labels):
        write_labels(folder / name / f"{number:05d}.png", labels, force=True)
    return sample


def _empty(folder: Path, name: str) -> None:
    (folder / f"{name}.mp4").write_bytes(b"")


def _text(folder: Path, name: str) -> None:
    (folder / f"{name}.mp4").write_text("this is no video\n" * 50)


def _cut_off(folder: Path, name: str) -> None:
    path = folder / f"{name}.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _no_picture(folder: Path, name: str) -> None:
    """Sound alone."""
    import av

    with av.open(str(folder / f"{name}.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)


def _garbled(folder: Path, name: str) -> None:
    """The index is whole, the pictures are not."""
    path = folder / f"{name}.mp4"
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 8
    content[start:] = bytes(len(content) - start)
    path.write_bytes(content)


def _mask_missing(folder: Path, name: str) -> None:
    (folder / name / "00007.png").unlink()


def _mask_too_few(folder: Path, name: str) -> None:
    (folder / name / f"{FRAMES - 1:05d}.png").unlink()


def _mask_damaged(folder: Path, name: str) -> None:
    path = folder / name / "00007.png"
    path.write_bytes(path.read_bytes()[:60])


def _mask_in_colours(folder: Path, name: str) -> None:
    Image.new("RGB", SIZE[::-1], (200, 10, 10)).save(folder / name / "00007.png")


def _mask_of_other_size(folder: Path, name: str) -> None:
    write_labels(folder / name / "00007.png", np.zeros((16, 16), np.uint8), force=True)


def _no_masks(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name)


def _no_object(folder: Path, name: str) -> None:
    for path in (folder / name).iterdir():
        write_labels(path, np.zeros(SIZE, np.uint8), force=True)


FAULTS = {
    "empty": (_empty, "cut", "the file is empty"),
    "text": (_text, "cut", "the file is not a video, or is cut off or damaged"),
    "cutoff": (_cut_off, "cut", "the video is cut off or damaged"),
    "sound": (_no_picture, "cut", "the file has no video track"),
    "garbled": (_garbled, "decode", "the file is not a video, or is cut off or damaged"),
    "gap": (_mask_missing, "masks", "the frame numbers are not evenly spaced"),
    "toofew": (_mask_too_few, "masks", "masks and video differ in frame count"),
    "damaged": (_mask_damaged, "masks", "the picture is damaged or cannot be read"),
    "colours": (_mask_in_colours, "masks", "labels must be an indexed PNG"),
    "size": (_mask_of_other_size, "masks", "masks and video differ in size"),
    "nomasks": (_no_masks, "masks", "there are no masks for this video"),
    "noobject": (_no_object, "filter", "no object found"),
}


def write_source(folder: Path, clips: int, faulty: int) -> dict[str, tuple[str, str]]:
    """`clips` videos, of which `faulty` are broken in turn; id of each of those -> step and reason."""
    folder.mkdir()
    expected = {}
    kinds = list(FAULTS)
    every = clips // faulty if faulty else clips + 1
    for number in range(clips):
        broken = number % every == every // 2 and len(expected) < faulty
        kind = kinds[len(expected) % len(kinds)] if broken else "fine"
        name = f"{number:04d}-{kind}"
        write_clip(folder, name, number)
        if broken:
            apply, step, reason = FAULTS[kind]
            apply(folder, name)
            expected[name] = step, reason
    return expected


def rejects(out: Path) -> list[dict]:
    path = out / "rejects.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def outcome(out: Path) -> dict[str, bytes]:
    """Every file of a preparation but its lock."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(files)}


def differences(one: Path, other: Path, *, ordered: bool = True) -> dict[str, tuple]:
    """Files that are not the same in two preparations, with the lines that only one of them has; without order for
    Ray, whose results come in none."""
    first, second = outcome(one), outcome(other)
    found = {}
    for name in sorted(first.keys() | second.keys()):
        sides = [side.get(name, b"there is no such file") for side in (first, second)]
        lines = [side.splitlines() for side in sides]
        if not ordered and name.endswith(".jsonl"):
            lines = [sorted(several) for several in lines]
        if lines[0] != lines[1]:
            only = [[line[:300] for line in one if line not in other][:5] for one, other in (lines, lines[::-1])]
            found[name] = (*map(len, sides), *only)
    return found


class ColourPerception:
    """Finds moving shapes by the colour that a phrase names: what a perception does, without a network."""

    def segment(self, image, phrases, hints=None):
        labels = np.zeros(image.shape[:2], np.uint8)
        for id, phrase in phrases.items():
            colour = next((COLOURS[word] for word in re.findall(r"\w+", phrase) if word in COLOURS), None)
            if colour is not None:
                far = np.abs(image.astype(int) - colour).max(-1)
                labels[far < 60] = id
        return labels

    def track(self, frames, phrases, first=None):
        labels = np.stack([self.segment(frame, phrases) for frame in frames])
        if first is not None:
            labels[0] = first
        return labels


def given_tools() -> Tools:
    return Tools(EnglishRules())
