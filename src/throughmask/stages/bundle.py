"""A model as it is shipped: both stages in one folder, with one copy of what they share, and its perception beside.

Its model.json may say how it is best used (`Habits`). Nothing here loads torch.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SampleError
from ..files import new_folder
from ..nn.scales import Scales
from .checkpoint import BUNDLE, DEFAULT_GUIDANCE, DEFAULT_STEPS, STAGES, StageInfo, component_folder

DEFAULT_MODEL = "toybox"
BUNDLED = (DEFAULT_MODEL,)
# What is written of where a part was loaded from, by which version, and how it was last called: it decides nothing.
PASSING = {
    "config.json": {"_name_or_path", "transformers_version", "_diffusers_version"},
    "tokenizer.json": {"padding", "truncation"},
    "tokenizer_config.json": {"is_local", "local_files_only", "name_or_path", "max_length"},
}
# What a tokenizer that was used, saved, loaded and saved writes down, where a new one is silent.
SILENT = {
    "stride": 0,
    "pad_token_type_id": 0,
    "pad_to_multiple_of": None,
    "truncation_side": "right",
    "padding_side": "right",
    "truncation_strategy": "longest_first",
}
BUNDLED_FOLDER = Path(__file__).resolve().parents[1] / "models"


@dataclass(frozen=True)
class Habits:
    """How a model is best used, where nothing else is asked for.

    size: height and width of the pictures that it learnt from; None for any. least_psnr: how well, in dB, its VAE
    reproduces all such pictures; None if that was not measured. video_guidance: of the stage that renders, if another.
    apart: the stage that moves takes several objects one after another (ImageToMotionPipeline.propose). vocabulary: the
    words of the texts that it learnt from; None for a model that knows language.
    """

    steps: int = DEFAULT_STEPS
    guidance: Scales = DEFAULT_GUIDANCE
    video_guidance: Scales | None = None
    size: tuple[int, int] | None = None
    least_psnr: float | None = None
    apart: bool = False
    vocabulary: tuple[str, ...] | None = None

    @classmethod
    def read(cls, folder: str | Path) -> Habits:
        """Of a bundle, or of a stage in one; of anything else, what holds where nothing is said.

        Raises SampleError for a model.json that cannot be read.
        """
        root = Path(folder)
        path = next((place / BUNDLE for place in (root, root.parent) if (place / BUNDLE).is_file()), None)
        if path is None:
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            said: dict[str, Any] = (content.get("habits") if isinstance(content, dict) else None) or {}
            for name in ("guidance", "video_guidance"):
                if said.get(name) is not None:
                    said[name] = Scales(*map(float, said[name]))
            if said.get("size") is not None:
                height, width = map(int, said["size"])
                said["size"] = height, width
            if said.get("vocabulary") is not None:
                said["vocabulary"] = tuple(map(str, said["vocabulary"]))
            return cls(**said)
        except (OSError, ValueError, TypeError) as error:
            raise SampleError(f"{path} cannot be read", seen=str(error), fix="copy the whole folder again") from None

    def unread(self, texts: Iterable[str]) -> list[str]:
        """The words of some texts that the model never read, in their order: an s at the end makes no other word ("they
        roll", "towards").
        """
        if self.vocabulary is None:
            return []
        known = {form for word in self.vocabulary for form in (word, f"{word}s", word.removesuffix("s"))}
        return [word for word in dict.fromkeys(words_of(texts)) if word not in known]

    def guidance_of(self, stage: str) -> Scales:
        return self.video_guidance or self.guidance if stage == "video" else self.guidance


def words_of(texts: Iterable[str]) -> Iterator[str]:
    """The words of texts, in small letters."""
    return (word for text in texts for word in re.findall(r"[a-z]+", text.lower()))


def bundled(name: str = DEFAULT_MODEL) -> Path:
    """The folder of a model that comes with this package. Raises SampleError if it did not come with this one."""
    folder = BUNDLED_FOLDER / name
    if name not in BUNDLED or not (folder / BUNDLE).is_file():
        fix = "give --model with the folder of a model that was trained or initialised here"
        raise SampleError("the bundled model is not in this installation", seen=name, fix=fix)
    return folder


def find_model(model: str | Path) -> Path:
    """The folder of a model from its path or its name; a folder that has a bundled model's name is written ./toybox.

    Raises SampleError for a bundled model that is not in this installation.
    """
    return bundled(model) if isinstance(model, str) and model in BUNDLED else Path(model)


def find_part(model: str, part: str) -> Path:
    """The folder of one network, such as the VAE: a bundled model's, by the model's name, else `model` itself."""
    return BUNDLED_FOLDER / model / part if model in BUNDLED else Path(model)


def stage_folder(model: Path, stage: str) -> Path:
    """The checkpoint of a stage ("motion" or "video"): the folder itself, or its part in a folder of both."""
    inside = model / stage
    whole = not (model / "model_index.json").is_file() and (inside / "model_index.json").is_file()
    return inside if whole else model


def make_bundle(
    out: str | Path,
    motion: str | Path,
    video: str | Path,
    *,
    words: str | Path | None = None,
    habits: Habits | None = None,
) -> None:
    """Put two checkpoints that stand on the same VAE and text encoder into one folder, whole or not at all.

    words: what `train toybox-words` wrote; its segmenter is taken along. habits: written into model.json. Replaces
    nothing: `out` must be new.

    Raises SampleError if a folder is not a checkpoint of its stage, or the two do not share their components.
    """
    folders = dict(zip(STAGES, (Path(motion), Path(video)), strict=True))
    infos = {stage: StageInfo.read(folder, stage) for stage, folder in folders.items()}
    shared = [name for name in infos["motion"].layout.components if name not in ("transformer", "scheduler")]
    for name in shared:
        one, two = (_content(component_folder(folder, name)) for folder in folders.values())
        if one != two:
            changed = sorted(file for file in one.keys() | two.keys() if one.get(file) != two.get(file))
            fix = "train both stages on the same base"
            raise SampleError(f"the stages differ in their {name}", seen=", ".join(changed), fix=fix)
    with new_folder(out) as folder:
        for name in shared:
            shutil.copytree(component_folder(folders["motion"], name), folder / name)
        for stage, source in folders.items():
            shutil.copytree(source, folder / stage, ignore=lambda _, names: set(names) & set(shared))
        if words is not None:
            shutil.copytree(Path(words) / "segmenter", folder / "segmenter")
        # Whoever gets the bundle has no use for places on this machine.
        for path in [*folder.rglob("config.json"), *folder.rglob("model_index.json")]:
            told = json.loads(path.read_text(encoding="utf-8"))
            kept = {key: value for key, value in told.items() if key != "_name_or_path"}
            path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for path in folder.rglob("train.json"):
            told = json.loads(path.read_text(encoding="utf-8"))
            told["config"] = {key: _without_place(value) for key, value in told.get("config", {}).items()}
            path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        record: dict[str, Any] = {"format": 1, "stages": list(STAGES), "shared": shared}
        record |= {"segmenter": words is not None, "habits": None if habits is None else asdict(habits)}
        (folder / BUNDLE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _without_place(value: Any) -> Any:
    """A setting; of an absolute path its last name."""
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _content(folder: Path) -> dict[str, bytes]:
    """The files of a folder, as far as they decide what it does."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"]  # a card decides nothing
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    for name in files.keys() & PASSING.keys():
        told = json.loads(files[name])
        kept = {key: told[key] for key in told.keys() - PASSING[name]}
        if name == "tokenizer_config.json":
            kept = SILENT | kept
        files[name] = json.dumps(kept, sort_keys=True).encode()
    return files
