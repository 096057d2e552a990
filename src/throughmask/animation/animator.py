"""A model of both stages that animates pictures: parse, move and render in one story.

Networks are loaded when they are first needed, and torch with the first of them.
"""

from __future__ import annotations

import difflib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import media
from ..errors import InvalidValueError, SampleError, ThroughMaskWarning
from ..nn.scales import Scales
from ..perception.language import EnglishRules, Known, Language, Reading
from ..perception.parse import Box, Hints, Parsed, Perception, Point, must_name_something, named_hints, parse_scene
from ..stages.apart import rounds
from ..stages.bundle import DEFAULT_MODEL, Habits, find_model, stage_folder
from ..stages.checkpoint import StageInfo, component_folder
from ..stages.devices import check_names, choose_device, choose_dtype, enough_memory
from ..types import Labels, MaskTrajectory, Pixels, Sample, Scene, SceneObject, Video, exact_fps
from .fitting import fitting_size, read_pixels, resized_scene
from .opening import open_perception
from .result import Animation

if TYPE_CHECKING:
    from ..stages.image_to_motion import Proposal
    from .fitting import Picture

Keep = Callable[[str, Animation], None]


class Asked(NamedTuple):
    """A picture and a prompt, read and checked: pixels H W 3; labels H W or None."""

    pixels: Pixels
    prompt: str
    reading: Reading
    labels: Labels | None
    hints: Hints | None


def animate(
    image: Picture,
    prompt: str,
    *,
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    dtype: str = "auto",
    offload: bool = False,
    language: Language | None = None,
    perception: str | Path | Perception | None = None,
    **options: Any,
) -> Animation:
    """Animate a picture from a sentence. options: those of `Animator.animate`; for many pictures use one Animator, of
    whose `load` the other arguments are.

    Raises ThroughMaskError, before a stage is loaded, for whatever does not fit the model.
    """
    how: dict[str, Any] = {"device": device, "dtype": dtype, "offload": offload}
    animator = Animator.load(model, **how, language=language, perception=perception)
    return animator.animate(image, prompt, **options)


@dataclass(eq=False)
class Animator:
    """A model of both stages, ready for many pictures: `animate`, or its steps `parse`, `move` and `render`.

    A picture may have any size. A model that learnt pictures of one size (the bundled one: 256×256) is shown as many
    pixels in the picture's own proportions; any other model is shown the picture's own size. Both to the nearest sides
    that divide by the model's patch, with a notice, and the result has that size. `size` says another one, to which
    the picture is stretched.

    find: makes what finds objects, in place of the model's own segmenter; called when something is to be found.
    """

    folder: Path
    motion: StageInfo
    video: StageInfo
    habits: Habits
    device: str = "auto"
    dtype: str = "auto"
    offload: bool = False
    language: Language = field(default_factory=EnglishRules)
    find: Callable[[], Perception] | None = None

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        device: str = "auto",
        dtype: str = "auto",
        offload: bool = False,
        language: Language | None = None,
        perception: str | Path | Perception | None = None,
    ) -> Animator:
        """model: a bundled model's name, or a folder with checkpoints of both stages in motion/ and video/.

        dtype: "auto" is bfloat16 on cuda, float32 elsewhere. offload: keep only the network at work on the device.
        language: what reads prompts, such as an `InstructServer`; by default English by rule. perception: what finds
        objects, or the name of one that is loaded when something is to be found (as for `opening.open_perception`:
        "real" for photographs); by default the model's own segmenter. Raises SampleError for a folder that is no such
        model.
        """
        check_names(device, dtype)
        folder = find_model(model)
        if stage_folder(folder, "motion") == folder or stage_folder(folder, "video") == folder:
            fix = (
                "name a folder with checkpoints in motion/ and video/; throughmask move and render take one stage each"
            )
            raise SampleError("animating needs a model of both stages", seen=str(folder), fix=fix)
        motion, video = (StageInfo.read(folder / stage, stage) for stage in ("motion", "video"))
        for info in (motion, video):
            if info.recipe.motion == "flow":
                fix = "use stages of another recipe, or throughmask move and render"
                raise SampleError("animating goes by masks, this stage goes by optical flow", seen=info.stage, fix=fix)
        find = None if perception is None else partial(_opened, perception, device)
        return cls(folder, motion, video, Habits.read(folder), device, dtype, offload, language or EnglishRules(), find)

    def animate(
        self,
        image: Picture,
        prompt: str,
        *,
        seed: int | None = None,
        seeds: Sequence[int] | None = None,
        pick: int | None = None,
        steps: int | None = None,
        guidance: tuple[float, float] | None = None,
        apart: bool | None = None,
        negative_prompt: str = "",
        masks: str | Path | Labels | None = None,
        boxes: Sequence[tuple[str | int, Box]] = (),
        points: Sequence[tuple[str | int, Point]] = (),
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        fps: object = None,
        progress: bool = True,
        begun: Animation | None = None,
        keep: Keep | None = None,
    ) -> Animation:
        """Parse, move, render. The same seed serves motion and video.

        seeds: candidate motions, made in one batch; `pick`, or else the most confident, is rendered. steps, guidance
        (scales of image and text), apart (several objects are moved one after another), frames, fps: by default the
        model's own. masks: labels of the picture's size, which
        replace segmentation, or a PNG of them; boxes and points: hints to it, each with the name of an object or its
        number, such as [("red ball", (10, 20, 60, 80))]. begun: an Animation that lacks masks or video, to go on from.
        keep: hears of "parse", "move" and "render" with what is there so far, as soon as each is done.

        Raises ThroughMaskError, before a network is loaded, for whatever does not fit the model.
        """
        numbers = _seeds(seed, seeds, pick)
        steps = self.habits.steps if steps is None else steps
        wanted: dict[str, Any] = {"steps": steps, "guidance": guidance, "negative_prompt": negative_prompt}
        seconds: dict[str, float] = {}

        def done(step: str, made: Animation) -> Animation:
            if keep is not None:
                with _timed(seconds, "write"):
                    keep(step, replace(made, seconds=dict(seconds)))
            return replace(made, seconds=dict(seconds))

        if begun is None:
            with _timed(seconds, "parse"):
                asked = self._asked(image, prompt, masks, boxes, points)
                shown = size or self._fitting(_hw(asked.pixels))
                self.check(shown, asked.reading, seeds=numbers, steps=steps, guidance=guidance, frames=frames, fps=fps)
            with _timed(seconds, "load"):
                _ = self.perception if asked.labels is None else None
                _ = self.mover if self.habits.least_psnr is not None else None
            with _timed(seconds, "parse"):
                notes = self._unlike(asked.pixels, shown)  # first: it may be why nothing is found
                parsed = self._found(asked, shown)
                self.motion.check(parsed.scene, frames=frames)
                made = Animation(Sample(parsed.scene), notes=(*notes, *_told(parsed), *self._unread(parsed.scene)))
            made = done("parse", made)
            if self._offloads:
                self.__dict__.pop("perception", None)  # the stages want its memory
        else:
            made = begun
        scene, motion = made.sample.scene, made.sample.trajectory
        if made.sample.video is not None:
            return made
        with _timed(seconds, "load"):
            _ = self.renderer
            _ = self.mover if motion is None else None
        apart = self.habits.apart if apart is None else apart
        moving = steps * rounds(scene, apart)
        with _bar(moving + steps, 0 if motion is None else moving, progress) as bar:
            if motion is None:
                bar.set_description("move")
                with _timed(seconds, "move"):
                    how: dict[str, Any] = {"apart": apart, "frames": frames, "fps": fps}
                    found = self.move(scene, numbers, **wanted, **how, on_step=bar.update)
                best = max(found, key=lambda each: (each.seed == pick, each.confidence))
                assert isinstance(best.motion, MaskTrajectory)
                motion = best.motion
                sample = replace(made.sample, trajectory=motion)
                made = done("move", replace(made, sample=sample, candidates=tuple(found), seed=best.seed))
            bar.set_description("render")
            with _timed(seconds, "render"):
                noise = numbers[0] if made.seed is None else made.seed
                video = self.render(scene, motion, seed=noise, **wanted, on_step=bar.update)
        return done("render", replace(made, sample=replace(made.sample, video=video)))

    def parse(
        self,
        image: Picture,
        prompt: str,
        *,
        masks: str | Path | Labels | None = None,
        boxes: Sequence[tuple[str | int, Box]] = (),
        points: Sequence[tuple[str | int, Point]] = (),
        size: tuple[int, int] | None = None,
    ) -> Parsed:
        """The Scene of a picture and a prompt, at the size that the model is shown; options as for `animate`.

        Raises InvalidValueError as `perception.parse.parse_scene`, and for masks together with boxes or points.
        """
        asked = self._asked(image, prompt, masks, boxes, points)
        return self._found(asked, size or self._fitting(_hw(asked.pixels)))

    def move(
        self,
        scene: Scene,
        seeds: Sequence[int] = (0,),
        *,
        steps: int | None = None,
        guidance: tuple[float, float] | None = None,
        apart: bool | None = None,
        on_step: Callable[[], object] | None = None,
        **options: Any,
    ) -> list[Proposal]:
        """Candidate motions of a Scene; options: as for `ImageToMotionPipeline.propose`."""
        mover = self._ready(self.mover)
        wanted = self._sampling("motion", steps, guidance, on_step)
        wanted["apart"] = self.habits.apart if apart is None else apart
        with enough_memory():
            proposals: list[Proposal] = mover.propose(scene, list(seeds), **wanted, **options)
        return proposals

    def render(
        self,
        scene: Scene,
        motion: MaskTrajectory,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: tuple[float, float] | None = None,
        on_step: Callable[[], object] | None = None,
        **options: Any,
    ) -> Video:
        """The video that follows a motion; options: as for `MotionToVideoPipeline.render`."""
        renderer = self._ready(self.renderer)
        wanted = self._sampling("video", steps, guidance, on_step)
        with enough_memory():
            video: Video = renderer.render(scene, motion, seed=seed, **wanted, **options)
        return video

    def check(
        self,
        size: tuple[int, int],
        reading: Reading,
        *,
        seeds: Sequence[int] = (0,),
        steps: int = 1,
        guidance: tuple[float, float] | None = None,
        frames: int | None = None,
        fps: object = None,
    ) -> None:
        """Whether both stages could animate a picture of that size. Raises InvalidValueError with what would fit."""
        objects = tuple(SceneObject(k, thing.name, thing.prompt) for k, thing in enumerate(reading.objects, 1))
        blank = np.broadcast_to(np.zeros(1, np.uint8), size)
        scene = Scene(np.broadcast_to(np.zeros(1, np.uint8), (*size, 3)), blank, objects=objects)
        scales = {info.stage: self._guidance(info.stage, guidance) for info in (self.motion, self.video)}
        count = self.motion.check(scene, frames=frames, steps=steps, guidance=scales["motion"], seeds=seeds)
        rate = exact_fps(self.motion.fps if fps is None else fps)
        still = MaskTrajectory(np.broadcast_to(blank, (count, *size)), rate)
        self.video.check(scene, still, steps=steps, guidance=scales["video"], seeds=seeds)

    @cached_property
    def place(self) -> str:
        """The device."""
        return choose_device(self.device)

    @property
    def precision(self) -> str:
        """The name of the dtype."""
        return choose_dtype(self.dtype, self.place)

    @cached_property
    def mover(self) -> Any:
        """Stage 1, an ImageToMotionPipeline."""
        return self._load("motion", "renderer")

    @cached_property
    def renderer(self) -> Any:
        """Stage 2, a MotionToVideoPipeline."""
        return self._load("video", "mover")

    @cached_property
    def perception(self) -> Perception:
        """What finds objects: what `find` makes, else the model's own segmenter. Raises SampleError if it has none."""
        if self.find is not None:
            return self.find()
        if not (self.folder / "segmenter").is_dir():
            fix = "give masks (--masks), or take a bundle with a segmenter"
            raise SampleError("this model cannot find objects in pictures", seen=str(self.folder), fix=fix)
        with _loading(self.folder):
            return open_perception(self.folder, device=self.device)

    def _asked(
        self,
        image: Picture,
        prompt: str,
        masks: str | Path | Labels | None,
        boxes: Sequence[tuple[str | int, Box]],
        points: Sequence[tuple[str | int, Point]],
    ) -> Asked:
        pixels, reading = read_pixels(image), self.language.read(prompt)
        if masks is not None and (boxes or points):
            raise InvalidValueError("masks need no boxes or points", fix="give masks, or boxes or points")
        if masks is None:
            must_name_something(reading)
        labels = media.read_labels(masks) if isinstance(masks, str | Path) else masks
        hints = named_hints(_hw(pixels), [thing.name for thing in reading.objects], boxes, points)
        return Asked(pixels, prompt, reading, labels, hints)

    def _found(self, asked: Asked, size: tuple[int, int]) -> Parsed:
        seer = self.perception if asked.labels is None else None
        known = Known(asked.reading)
        parsed = parse_scene(asked.pixels, asked.prompt, known, seer, masks=asked.labels, hints=asked.hints)
        scene, notes = resized_scene(parsed.scene, size)
        return parsed._replace(scene=scene, notes=(*parsed.notes, *notes))

    def _fitting(self, size: tuple[int, int]) -> tuple[int, int]:
        return fitting_size(size, self.motion.patch, self.habits.size)

    def _load(self, stage: str, other: str) -> Any:
        """A stage's pipeline on its device; what lies once for both stages is in memory once."""
        place = self.place
        import torch

        from ..stages.init import PIPELINES
        from ..stages.pipeline import hide_loading_bars

        hide_loading_bars()
        folder, loaded = self.folder / stage, self.__dict__.get(other)
        names = self.motion.layout.components if loaded is not None else ()
        shared = {name: getattr(loaded, name) for name in names if component_folder(folder, name).parent != folder}
        with _loading(folder):
            kind: Any = PIPELINES[stage]
            pipeline = kind.from_pretrained(folder, dtype=getattr(torch, self.precision), **shared)
            if not self._offloads:
                pipeline.to(place)
        pipeline.set_progress_bar_config(disable=True)  # one bar counts the steps of both stages
        return pipeline

    @property
    def _offloads(self) -> bool:
        return self.offload and self.place != "cpu"

    def _ready(self, pipeline: Any) -> Any:
        if self._offloads:  # anew each time: the other stage hooks the networks that both share
            pipeline.enable_model_cpu_offload(device=self.place)
        return pipeline

    def _guidance(self, stage: str, guidance: tuple[float, float] | None) -> Scales:
        return self.habits.guidance_of(stage) if guidance is None else Scales(*guidance)

    def _sampling(
        self, stage: str, steps: int | None, guidance: tuple[float, float] | None, on_step: Callable[[], object] | None
    ) -> dict[str, Any]:
        def after_step(*_: Any) -> dict[str, Any]:
            if on_step is not None:
                on_step()
            return {}

        steps = self.habits.steps if steps is None else steps
        return {"steps": steps, "guidance": self._guidance(stage, guidance), "callback_on_step_end": after_step}

    def _unlike(self, pixels: Pixels, size: tuple[int, int]) -> list[str]:
        """A warning, if the model's VAE reproduces the picture worse than any that it learnt from."""
        least = self.habits.least_psnr
        if least is None:
            return []
        psnr = reconstruction_psnr(self._ready(self.mover), media.resize(pixels, size))
        if psnr >= least:
            return []
        return [
            _tell(
                "The picture is unlike those that this model learnt from: its VAE reproduces it at "
                f"{psnr:.1f} dB, theirs at {least:g} dB or more, so expect little of the result. For photographs use "
                "stages that stand on a base trained on them (throughmask init, then throughmask train) with --model, "
                "and masks from elsewhere with --masks."
            )
        ]

    def _unread(self, scene: Scene) -> list[str]:
        """A warning, if the prompt has words that the model never read."""
        words = self.habits.unread([scene.motion_prompt, *(thing.prompt for thing in scene.objects)])
        if not words:
            return []
        near = [difflib.get_close_matches(word, self.habits.vocabulary or (), n=1, cutoff=0.8) for word in words]
        named = [f"{word!r} ({close[0]}?)" if close else repr(word) for word, close in zip(words, near, strict=True)]
        return [_tell(f"The model never read {', '.join(named)} while it learnt: it guesses what is meant.")]


def reconstruction_psnr(pipeline: Any, picture: Pixels) -> float:
    """How well a stage's VAE reproduces a picture (uint8 H W 3): PSNR in dB, at most 100."""
    from ..stages.conditioning import decode, encode

    backbone, vae = pipeline.info.backbone, pipeline.vae
    again = decode(backbone, vae, encode(backbone, vae, picture[None]))[0][0]
    error = float(np.mean((again.astype(np.float64) - picture) ** 2))
    return min(100.0, float(10 * np.log10(255**2 / max(error, 1e-9))))


def _seeds(seed: int | None, seeds: Sequence[int] | None, pick: int | None) -> list[int]:
    if seeds is not None and seed is not None:
        raise InvalidValueError("give a seed or seeds, not both")
    numbers = [seed or 0] if seeds is None else list(seeds)
    if pick is not None and pick not in numbers:
        raise InvalidValueError("the picked seed is not among the seeds", seen=pick, fix=f"seeds: {numbers}")
    return numbers


def _told(parsed: Parsed) -> tuple[str, ...]:
    unused = [f"Not used of the prompt: {', '.join(repr(span) for span in parsed.unused)}."] if parsed.unused else []
    return tuple(_tell(text) for text in (*unused, *parsed.notes))


def _opened(perception: str | Path | Perception, device: str) -> Perception:
    if not isinstance(perception, str | Path):
        return perception
    say = partial(warnings.warn, category=ThroughMaskWarning, stacklevel=2)
    return open_perception(perception, device=device, say=say)


def _tell(text: str) -> str:
    warnings.warn(text, ThroughMaskWarning, stacklevel=4)
    return text


def _bar(total: int, initial: int, shown: bool) -> Any:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    return tqdm(total=total, initial=initial, disable=not shown, unit="step")


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Turn damaged weights into a SampleError, and a full device into a DeviceError."""
    from safetensors import SafetensorError

    try:
        with enough_memory():
            yield
    except (OSError, SafetensorError) as error:
        fix = "copy the whole folder again, or make it again"
        raise SampleError(f"{folder} cannot be loaded", seen=str(error), fix=fix) from error


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun


def _hw(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]
