"""A model as it is shipped: both stages in one folder, with one copy of what they share, and its perception beside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ..errors import SampleError
from ..files import new_folder
from .checkpoint import BUNDLE, STAGES, StageInfo


def make_bundle(out: str | Path, motion: str | Path, video: str | Path, *, words: str | Path | None = None) -> None:
    """Put two checkpoints that stand on the same VAE and text encoder into one folder, whole or not at all.

    words: what `train toybox-words` wrote; its segmenter is taken along. Replaces nothing: `out` must be new.

    Raises SampleError if a folder is not a checkpoint of its stage, or the two do not share their components.
    """
    folders = dict(zip(STAGES, (Path(motion), Path(video)), strict=True))
    infos = {stage: StageInfo.read(folder, stage) for stage, folder in folders.items()}
    shared = [name for name in infos["motion"].layout.components if name not in ("transformer", "scheduler")]
    for name in shared:
        one, two = (_content(folder / name) for folder in folders.values())
        if one != two:
            changed = sorted(file for file in one.keys() | two.keys() if one.get(file) != two.get(file))
            fix = "train both stages on the same base"
            raise SampleError(f"the stages differ in their {name}", seen=", ".join(changed), fix=fix)
    with new_folder(out) as folder:
        for name in shared:
            shutil.copytree(folders["motion"] / name, folder / name)
        for stage, source in folders.items():
            shutil.copytree(source, folder / stage, ignore=lambda _, names: set(names) & set(shared))
        if words is not None:
            shutil.copytree(Path(words) / "segmenter", folder / "segmenter")
        record = {"format": 1, "stages": list(STAGES), "shared": shared, "segmenter": words is not None}
        (folder / BUNDLE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
