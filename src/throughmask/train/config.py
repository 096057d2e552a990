"""The settings of trainings, checked when they are made: of a stage or its base, of the word networks, of the VAE."""

from __future__ import annotations

from dataclasses import dataclass

from .. import palette
from ..errors import InvalidValueError
from ..stages.recipes import recipe
from ..types import exact_fps
from .samples import seeds_of

STAGES = ("base", "motion", "video")


@dataclass(frozen=True)
class StageConfig:
    """stage: "base" (text to video), "motion" (stage 1) or "video" (stage 2). data, held_out: see samples.open_samples.
    base: the text-to-video model to start from: a folder, a hub id, or a name of backbones.BASES; empty for an
    untrained one of width, layers, heads and ffn (0: four times the width, all that a U-Net takes) around the folders
    vae ("toybox" is the bundled one) and words. init: a checkpoint of this very stage, whose weights it goes on from.
    blocks: K, how many are masked; -1 is a quarter.

    variants, flips, phrasings, films: see latents.CacheConfig. batch: samples of one step, over all processes;
    accumulate: in so many parts. lr: constant after `warmup` steps, falling to 0 over the last share `decay` of the
    run. clip: the gradient's norm. ema: of the averaged weights. drop: how often text, image and both are null
    (InstructPix2Pix). minutes: stop after so many, 0 for no limit. lora: rank of adapters on the base's layers, 0 to
    train all of it. *_every: in steps, 0 for never; export_every: out/model is written meanwhile too, not only at the
    end. keep: checkpoints of the run. held_out, sample_steps: Samples of a sheet.
    """

    stage: str = "motion"
    data: str = "toybox:0..9999"
    out: str = "out/stage"
    cache: str = "out/latents"
    base: str = "out/toybox-base/model"
    init: str | None = None
    recipe: str = "paper"
    blocks: int = -1
    backbone: str = "wan"
    vae: str = "toybox"
    words: str = "out/toybox-words"
    width: int = 256
    layers: int = 8
    heads: int = 4
    ffn: int = 0
    size: tuple[int, ...] = (256, 256)
    frames: int = 25
    fps: str = "12"
    palette: str = "ours"
    variants: int = 1
    flips: bool = False
    phrasings: int = 1
    films: bool = True
    steps: int = 20_000
    minutes: float = 0.0
    batch: int = 64
    accumulate: int = 1
    lr: float = 5e-4
    warmup: int = 200
    decay: float = 0.0
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    drop: float = 0.05
    dtype: str = "bfloat16"
    checkpointing: bool = False
    compile: bool = False
    parallel: str = "ddp"
    lora: int = 0
    save_every: int = 1000
    export_every: int = 0
    sheet_every: int = 2000
    log_every: int = 50
    keep: int = 2
    held_out: str = "toybox:1000000..1000003"
    sample_steps: int = 10
    workers: int = 2
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("stage", STAGES), ("dtype", ("float32", "bfloat16")), ("parallel", ("ddp", "fsdp"))):
            if getattr(self, name) not in known:
                raise InvalidValueError(f"{name} is one of {', '.join(known)}", seen=getattr(self, name))
        least = {
            0: ("steps", "minutes", "warmup", "weight_decay", "lora", "workers", "ffn"),
            1: ("width", "layers", "heads"),
        }
        least[0] += ("save_every", "export_every", "sheet_every", "log_every")
        least[1] += ("frames", "variants", "phrasings", "batch", "accumulate", "keep", "sample_steps")
        for value, names in least.items():
            for name in names:
                if getattr(self, name) < value:
                    raise InvalidValueError(f"{name} must be at least {value}", seen=getattr(self, name))
        for name, most in (("decay", 1.0), ("drop", 1 / 3), ("ema", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise InvalidValueError(f"{name} is from 0 to {most:.3g}", seen=getattr(self, name))
        if len(self.size) != 2:
            raise InvalidValueError("size is height,width", seen=self.size, fix="such as 256,256")
        if self.batch % self.accumulate:
            raise InvalidValueError("batch must divide by accumulate", seen=f"{self.batch}, {self.accumulate}")
        if self.lora and self.stage == "base":
            raise InvalidValueError("a base is trained whole", seen=f"lora {self.lora}", fix="leave --lora out")
        if not self.films and (self.stage != "motion" or recipe(self.recipe).motion == "flow"):
            seen = f"stage {self.stage}, recipe {self.recipe}"
            raise InvalidValueError("only a stage 1 of masks learns without films", seen=seen, fix="leave --films out")
        exact_fps(self.fps)
        recipe(self.recipe)
        palette.named(self.palette)


@dataclass(frozen=True)
class WordsConfig:
    """clips: toybox:A..B, kept in cache with the stories of the same seeds in so many phrasings. encoder: a folder of
    an earlier run, whose tokenizer and text encoder stay as they are, so that stages trained on them stay valid; empty
    for new ones, of `vocabulary`, `width` and `layers`. init: a folder of an earlier run whose networks are gone on
    from, with a fresh optimiser. minutes, steps: it stops at whichever comes first. batch:
    pictures, each with so many phrases; texts: for the head; on each process.

    prior: how often a phrase comes with a mask of another frame. absent: how often it names what is not there.
    typos: share of words misspelt. flip: half of all pictures and their words are mirrored. half: share of steps at
    half the size. bend: share of pictures whose toys are bent and blurred, as in a generated video. shrink: clips are
    made smaller by this factor. evaluate: held-out scenes that are scored, 0 for none.
    dtype: float32 or bfloat16 (autocast).
    """

    out: str = "out/toybox-words"
    clips: str = "toybox:0..1999"
    cache: str = "out/toybox-words-clips"
    encoder: str = ""
    init: str = ""
    steps: int = 20_000
    minutes: float = 12.0
    batch: int = 32
    phrases: int = 4
    texts: int = 64
    lr: float = 1e-3
    warmup: int = 200
    ema: float = 0.999
    phrasings: int = 8
    prior: float = 0.5
    absent: float = 0.12
    typos: float = 0.1
    flip: bool = True
    half: float = 0.25
    bend: float = 0.4
    shrink: int = 1
    vocabulary: int = 1024
    width: int = 192
    layers: int = 3
    evaluate: int = 128
    log_every: int = 200
    dtype: str = "float32"
    device: str = "auto"
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "phrases", "texts", "phrasings", "shrink", "width", "layers", "workers"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} must be at least 1", seen=getattr(self, name))
        for name in ("prior", "absent", "typos", "half", "bend", "ema"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidValueError(f"{name} is from 0 to 1", seen=getattr(self, name))
        for name in ("minutes", "lr"):
            if not getattr(self, name) > 0:
                raise InvalidValueError(f"{name} must be positive", seen=getattr(self, name))
        if self.vocabulary < 300:
            raise InvalidValueError("vocabulary must be at least 300: 256 bytes come first", seen=self.vocabulary)
        if self.evaluate < 0:
            raise InvalidValueError("evaluate must not be negative", seen=self.evaluate)
        if self.dtype not in ("float32", "bfloat16"):
            raise InvalidValueError("dtype is float32 or bfloat16", seen=self.dtype)
        seeds_of(self.clips)


@dataclass(frozen=True)
class VAEConfig:
    """clips: see clips.make_clips, kept in cache. minutes, steps: it stops at whichever comes first. batch: clips of
    `frames` frames cut to `crop` pixels, on each process; half of them are painted in colours. init: a VAE folder to
    go on from. base_dim, dim_mult: channels of each level; where there are three levels and not four, patches of 2×2
    pixels stand for the first. aim: share of pieces that are cut where a toy is. Weights: square of squared errors,
    toys of pixels on toys and around them, kl of the prior, snap of `snap_loss`, balance of `imbalance`. statistics:
    whole clips that the latents' mean and deviation are measured on. dtype: float32 or bfloat16 (autocast). compile,
    channels_last: faster on some machines; `benchmarks/toybox_vae.py --speed` tells."""

    out: str = "out/toybox-vae"
    clips: str = "toybox:0..1999"
    cache: str = "out/toybox-clips"
    init: str | None = None
    steps: int = 20_000
    minutes: float = 25.0
    batch: int = 8
    frames: int = 25
    crop: int = 112
    lr: float = 2e-3
    warmup: int = 200
    base_dim: int = 40
    dim_mult: tuple[int, ...] = (1, 2, 2)
    z_dim: int = 16
    blocks: int = 1
    aim: float = 0.6
    square: float = 4.0
    toys: float = 3.0
    kl: float = 1e-6
    snap: float = 0.0
    balance: float = 0.02
    ema: float = 0.999
    statistics: int = 1024
    palette: str = "ours"
    dtype: str = "float32"
    compile: bool = False
    channels_last: bool = False
    device: str = "auto"
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "frames", "crop", "base_dim", "z_dim", "blocks", "workers", "statistics"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} must be at least 1", seen=getattr(self, name))
        if self.batch % 2:
            raise InvalidValueError("batch must be even: half pixels, half colours", seen=self.batch)
        if self.frames % 4 != 1:
            raise InvalidValueError("frames must be 1 + 4k", seen=self.frames)
        if self.crop % 8:
            raise InvalidValueError("crop must be a multiple of 8", seen=self.crop)
        if self.dtype not in ("float32", "bfloat16"):
            raise InvalidValueError("dtype is float32 or bfloat16", seen=self.dtype)
        if not 3 <= len(self.dim_mult) <= 4 or min(self.dim_mult) < 1:
            seen = ",".join(map(str, self.dim_mult))
            raise InvalidValueError("dim_mult is a whole number for each of 3 or 4 levels", seen=seen)
        palette.named(self.palette)
