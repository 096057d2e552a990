"""What a stage's checkpoint folder says about itself, and what a request must fit: known before torch is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backbones import Backbone, Layout, backbone, layout_of_class
from ..errors import InvalidValueError, OutputError, SampleError, ThroughMaskError
from ..files import new_folder
from ..nn.grid import TokenGrid
from ..nn.scales import Scales
from ..palette import Palette, named
from ..types import MaskTrajectory, Scene, Video, exact_fps
from .recipes import Recipe, recipe

STAGES = {"motion": "ImageToMotionPipeline", "video": "MotionToVideoPipeline"}
VERBS = {"motion": "move", "video": "render"}
BUNDLE = "model.json"  # what a folder of both stages with shared components says about itself
WEIGHTS = ("vae", "transformer", "text_encoder")  # the components that have some
DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = Scales(image=1.5, text=7.5)  # InstructPix2Pix's; the paper gives none


@dataclass(frozen=True)
class StageInfo:
    """The facts that decide whether a request fits: which stage, its Recipe, palette and sizes.

    strides: see backbones.Layout. frames, fps: the default clip.
    """

    stage: str
    layout: Layout
    recipe: Recipe
    palette: Palette
    num_ids: int
    strides: tuple[int, ...]
    frames: int
    fps: str

    def __post_init__(self) -> None:
        if not 1 <= self.num_ids <= self.palette.num_objects:
            problem = f"palette {self.palette.name!r} has colours for 1 to {self.palette.num_objects} ids"
            raise InvalidValueError(problem, seen=self.num_ids)
        exact_fps(self.fps)
        self.grid(self.frames)  # refuses a length that the VAE cannot make

    @classmethod
    def of_configs(cls, index: dict[str, Any], vae: dict[str, Any], denoiser: dict[str, Any]) -> StageInfo:
        """From the configurations of a pipeline, its VAE and its denoiser."""
        layout = layout_of_class(denoiser["_class_name"])
        strides = layout.strides(vae, denoiser)
        schedule = index.get("schedule", "scheduler")
        if schedule not in layout.schedules:
            fix = f"known: {', '.join(layout.schedules)}"
            raise InvalidValueError(f"a {layout.name} has no such schedule", seen=schedule, fix=fix)
        stage = next(key for key, value in STAGES.items() if value == index["_class_name"])
        palette = named(index["palette"])
        num_ids, frames, fps = int(index["num_ids"]), int(index["frames"]), str(exact_fps(index["fps"]))
        return cls(stage, layout, recipe(index["recipe"]), palette, num_ids, strides, frames, fps)

    @property
    def backbone(self) -> Backbone:
        """The model's own code, which loads torch and diffusers."""
        return backbone(self.layout.name)

    @property
    def patch(self) -> int:
        """Pixels along a token's side."""
        return self.strides[1]

    def grid(self, num_frames: int) -> TokenGrid:
        """Raises InvalidValueError for a number of frames that the model cannot take."""
        return self.layout.grid(num_frames, self.strides)

    @classmethod
    def read(cls, folder: str | Path, stage: str) -> StageInfo:
        """From a checkpoint folder, checking that it is a whole checkpoint of that stage ("motion" or "video").

        Raises SampleError for a folder that is not one, another stage's, one with a missing component, or one whose
        weights are pickles.
        """
        root = Path(folder)
        index = _read_json(root / "model_index.json", root)
        kind = index.get("_class_name")
        if kind not in STAGES.values():
            fix = "make one with throughmask init, or train it"
            raise SampleError(f"{root} is not a checkpoint of a stage", seen=kind, fix=fix)
        if kind != STAGES[stage]:
            other = next(key for key, value in STAGES.items() if value == kind)
            fix = f"throughmask {VERBS[stage]} needs one made for --stage {stage}; this one is for {VERBS[other]}"
            raise SampleError(f"{root} is a checkpoint of the other stage", seen=other, fix=fix)
        try:
            configs = [
                _read_json(component_folder(root, name) / "config.json", root) for name in ("vae", "transformer")
            ]
            info = cls.of_configs(index, *configs)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ThroughMaskError):
                raise
            fix = "make it again with throughmask init"
            raise SampleError(f"{root} lacks a setting, or has one of another kind", seen=str(error), fix=fix) from None
        for name in info.layout.components:
            _check_component(root, name, index.get(name))
        return info

    def check(
        self,
        scene: Scene,
        motion: MaskTrajectory | Video | None = None,
        *,
        frames: int | None = None,
        steps: int = 1,
        guidance: Scales | None = None,
        seeds: Sequence[int] = (0,),
    ) -> int:
        """Check a request; returns the number of frames to make. Raises InvalidValueError with what would fit."""
        height, width = scene.size
        beyond = [i for i in scene.ids if i > self.num_ids]
        if beyond:
            raise InvalidValueError(f"this model knows ids 1 to {self.num_ids}", seen=beyond, fix="use fewer objects")
        if steps < 1:
            raise InvalidValueError("sampling takes at least one step", seen=steps)
        if not seeds or any(isinstance(seed, bool) or seed < 0 or seed >= 2**63 for seed in seeds):
            raise InvalidValueError("seeds are whole numbers from 0 up, at least one", seen=list(seeds))
        if guidance is not None:
            guidance.weights()
        if self.stage == "video":
            self._check_motion(scene, motion)
        if frames is None:
            frames = len(motion) if motion is not None else self.frames
        if motion is not None and frames != len(motion):
            raise InvalidValueError("the trajectory has another number of frames", seen=f"{len(motion)}, not {frames}")
        self.grid(frames).tokens(height, width)
        return frames

    def _check_motion(self, scene: Scene, motion: MaskTrajectory | Video | None) -> None:
        if motion is not None and motion.size != scene.size:
            raise InvalidValueError("trajectory and picture differ in size", seen=f"{motion.size} and {scene.size}")
        wanted = {"labels": MaskTrajectory, "flow": Video, "none": None}[self.recipe.motion]
        if wanted is None:
            return
        if not isinstance(motion, wanted):
            needs = "a mask trajectory (throughmask move makes one)" if wanted is MaskTrajectory else "a video of flow"
            raise InvalidValueError(f"recipe {self.recipe.name!r} renders {needs}", seen=type(motion).__name__)
        if isinstance(motion, MaskTrajectory):
            unknown = sorted(set(motion.ids) - set(scene.ids))
            if unknown:
                raise InvalidValueError(
                    "the trajectory has objects that the scene does not know", seen=unknown, fix=f"known: {scene.ids}"
                )


def component_folder(root: Path, name: str) -> Path:
    """Where a component of a checkpoint lies: in its folder, or beside it in a bundle, whose stages share one copy."""
    beside = root.parent / name
    return beside if (root.parent / BUNDLE).is_file() and not (root / name).is_dir() else root / name


@contextmanager
def new_checkpoint_folder(out: str | Path, *, force: bool = False) -> Iterator[Path]:
    """As `files.new_folder`, for a checkpoint; with `force` it replaces checkpoints only."""
    out = Path(out)
    if force and out.is_dir() and any(out.iterdir()) and not (out / "model_index.json").is_file():
        fix = "choose another name; --force replaces checkpoints only"
        raise OutputError("the folder is filled and is not a checkpoint", seen=str(out), fix=fix)
    with new_folder(out, force=force) as folder:
        yield folder


def _read_json(path: Path, root: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        name = path.relative_to(root) if path.is_relative_to(root) else path
        problem = f"{root} is not a checkpoint of a stage: it has no {name}"
        raise SampleError(problem, fix="give a folder made by throughmask init or train") from None
    except (OSError, ValueError) as error:
        raise SampleError(f"{path} cannot be read", seen=str(error)) from None
    if not isinstance(data, dict):
        raise SampleError(f"{path} is not a JSON object", seen=type(data).__name__)
    return data


def _check_component(root: Path, name: str, listed: object) -> None:
    folder = component_folder(root, name)
    if not folder.is_dir() or not (isinstance(listed, list) and listed and listed[0]):
        raise SampleError(f"{root} lacks its component {name!r}", fix="copy the whole folder, or make it again")
    if name not in WEIGHTS:
        return
    shards = sorted({shard for path in folder.glob("*.safetensors.index.json") for shard in _shards(path, root)})
    lost = [shard for shard in shards if not (folder / shard).is_file()]
    if lost:
        raise SampleError(f"{folder} lacks some of its weights", seen=lost, fix="copy the whole folder again")
    if not any(folder.glob("*.safetensors")):
        pickles = [path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        problem = "has weights only as pickles, which can run code" if pickles else "has no weights"
        raise SampleError(f"{folder} {problem}", seen=pickles or None, fix="convert them to safetensors")


def _shards(path: Path, root: Path) -> list[str]:
    weight_map = _read_json(path, root).get("weight_map")
    return [str(name) for name in weight_map.values()] if isinstance(weight_map, dict) else []
