"""What the frozen networks make of Samples, made once: latents and token labels, in safetensors shards on disk.

Both stages and their base read the same cache, so that a training loop waits for the denoiser alone. Shards are made
by all processes side by side, appear whole, and are found again when a run is started a second time.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor

from ..backbones import Backbone
from ..errors import InvalidValueError, SampleError
from ..files import new_file
from ..nn.grid import TokenGrid
from ..nn.regions import first_regions, token_regions
from ..palette import Palette
from ..stages.conditioning import Encoders, Repeat, encode_stills
from ..types import Labels, Pixels, Sample
from .augment import flip, noisy
from .devices import Processes
from .flows import flip_wheel
from .prompts import PER_SHARD, Prompts, fingerprint, load_shard, make_prompts, shard_path, texts_path, write_texts
from .samples import Samples, Texts, open_samples

ENCODE = 4  # items whose clips the VAE takes at once
INDEX = "cache.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class CacheConfig:
    """What is cached. variants: of each label map, the clean one and noisy ones (what stage 1's mistakes look like).
    flips: mirrored clips as items of their own. phrasings: of each scene's text, as far as the source has more. films:
    whether the videos' latents are wanted; stage 1 alone reads none."""

    data: str
    size: tuple[int, int]
    frames: int
    fps: str
    motion: str = "labels"
    variants: int = 1
    flips: bool = False
    phrasings: int = 1
    seed: int = 0
    films: bool = True


class Prepared(NamedTuple):
    """A Sample before the frozen networks see it. pixels: T H W 3, None without films. labels: V T H W, the clean ones
    first. texts: one for each phrasing."""

    pixels: Pixels | None
    image: Pixels
    labels: Labels
    flow: Pixels | None
    texts: list[Texts]


@dataclass(frozen=True)
class Encoder:
    """The frozen networks and what decides how they are used. dtype: what the VAE computes in; bfloat16 moves latents
    by 0.4 % of their deviation (measured on Toybox's)."""

    backbone: Backbone
    encoders: Encoders
    palette: Palette
    num_ids: int
    grid: TokenGrid
    repeat: Repeat
    device: torch.device
    dtype: torch.dtype = torch.float32

    def described(self) -> dict[str, str]:
        """What would make cached latents stale, in words and numbers."""
        marks = {"vae": fingerprint(self.encoders.vae), "repeat": self.repeat, "dtype": str(self.dtype)}
        grid = f"{self.grid.patch[0]}×{self.grid.patch[1]} pixels, {len(self.grid.frames)} latent frames"
        marks["regions"] = "of the clip, and of frame 0"
        return {**marks, "token": grid, "palette": f"{self.palette.name}, {self.num_ids} ids"}


class LatentItems:
    """Cached items by number. A shard is mapped, not read: only the rows that are asked for come into memory."""

    def __init__(self, folder: Path, num_items: int, prompts: Prompts) -> None:
        self.folder, self.num_items, self.prompts = folder, num_items, prompts
        self._shards: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.num_items

    def rows(self, name: str, items: Sequence[int], variants: Sequence[int] | None = None) -> Tensor:
        """One field of several items, stacked: B ... variants: which one of each, for a field that has some."""
        rows = [self._shard(item)[name][item % PER_SHARD] for item in items]
        return torch.stack(rows if variants is None else [row[k] for row, k in zip(rows, variants, strict=True)])

    def _shard(self, item: int) -> dict[str, Tensor]:
        number = item // PER_SHARD
        if number not in self._shards:
            self._shards[number] = load_shard(shard_path(self.folder, number))
        return self._shards[number]


def open_source(config: CacheConfig, gl_device: int | None = None) -> Samples:
    """The Samples that a cache is made of, in the form that it wants."""
    form = {"size": config.size, "frames": config.frames, "fps": config.fps, "films": config.films}
    return open_samples(config.data, **form, phrasings=config.phrasings, gl_device=gl_device)  # type: ignore[arg-type]


def make_latents(
    config: CacheConfig,
    encoder: Encoder,
    folder: Path,
    processes: Processes,
    *,
    source: Samples | None = None,
    workers: int = 0,
    say: Say = print,
) -> LatentItems:
    """The cached items of `config`, from `folder` as far as it holds them, else made there.

    source: the Samples of `open_source(config)`, where they are at hand already. workers: processes beside each
    training process that read or render Samples; 0 does it here.

    Raises SampleError for a folder that was cached differently (and says what differs) or a Sample that does not fit.
    """
    if source is None:
        source = open_source(config, processes.device.index if processes.device.type == "cuda" else None)
    num_items = len(source) * (1 + config.flips)
    described = {"config": asdict(config) | {"source": source.describe()}, **encoder.described()}
    if processes.rank == 0:
        _claim(folder, json.loads(json.dumps(described)))
    processes.wait()
    numbers = range(-(-num_items // PER_SHARD))
    mine = numbers[processes.rank :: processes.world]
    missing = [n for n in mine if not (shard_path(folder, n).is_file() and texts_path(folder, n).is_file())]
    if missing:
        say(f"encoding {num_items} items into {folder}")
        prepare = Prepare(source, config, encoder.num_ids)
        _make_shards(prepare, encoder, folder, num_items, missing, workers)
    processes.wait()
    prompts = make_prompts(encoder.backbone, encoder.encoders, encoder.num_ids, folder, len(numbers), processes, say)
    return LatentItems(folder, num_items, prompts)


def _claim(folder: Path, described: dict[str, Any]) -> None:
    """Write down what the cache holds; refuse a folder that holds another."""
    index = folder / INDEX
    if index.is_file():
        known = json.loads(index.read_text(encoding="utf-8"))
        newer = {item.name: item.default for item in fields(CacheConfig) if item.default is not MISSING}
        known["config"] = {**newer, **known.get("config", {})}  # a setting that this cache is older than
        changed = sorted(_differences(known, described))
        if changed:
            fix = "name another folder for the cache, or delete this one"
            raise SampleError(f"{folder} was cached with other settings", seen="; ".join(changed), fix=fix)
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise SampleError(f"{folder} is not a cache", fix="name another folder for the cache")
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(index) as path:
        path.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _differences(known: dict[str, Any], wanted: dict[str, Any]) -> Iterator[str]:
    for key in known.keys() | wanted.keys():
        before, now = known.get(key), wanted.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now)
        elif before != now:
            yield f"{key} was {before}, is {now}"


def _make_shards(
    prepare: Prepare, encoder: Encoder, folder: Path, num_items: int, numbers: Sequence[int], workers: int
) -> None:
    each = 1 + prepare.config.flips  # items of one Sample, all in one shard
    shards = [range(number * PER_SHARD // each, min((number + 1) * PER_SHARD, num_items) // each) for number in numbers]
    every = [index for shard in shards for index in shard]
    if workers == 0:
        prepared: Iterator[list[Prepared]] = map(prepare, every)
        for number, shard in zip(numbers, shards, strict=True):
            _write(encoder, folder, number, [item for _ in shard for item in next(prepared)])
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        # Only so many are asked for at once as are waited for: Samples are large.
        waiting = deque(pool.submit(prepare, index) for index in every[: 4 * workers])
        asked = len(waiting)
        for number, shard in zip(numbers, shards, strict=True):
            ready: list[Prepared] = []
            for _ in shard:
                ready += waiting.popleft().result()
                if asked < len(every):
                    waiting.append(pool.submit(prepare, every[asked]))
                    asked += 1
            _write(encoder, folder, number, ready)


@dataclass(frozen=True)
class Prepare:
    """Reads or renders one Sample, for one item or two; a class, so that other processes can be handed it."""

    source: Samples
    config: CacheConfig
    num_ids: int

    def __call__(self, index: int) -> list[Prepared]:
        torch.set_num_threads(1)
        config, source = self.config, self.source
        sample, texts = source.item(index), source.texts(index)
        beyond = [k for k in sample.scene.ids if k > self.num_ids]
        if beyond:
            fix = "leave it out, or take a palette with more colours"
            raise InvalidValueError(f"{source.name(index)} has ids above {self.num_ids}", seen=beyond, fix=fix)
        flow = source.flow(index) if config.motion == "flow" else None
        rng = np.random.default_rng((config.seed, index))
        items = [self._prepared(sample, flow, texts, rng)]
        if config.flips:
            wheel = None if flow is None else flip_wheel(flow)
            items.append(self._prepared(flip(sample), wheel, [text.flipped() for text in texts], rng))
        return items

    def _prepared(self, sample: Sample, flow: Pixels | None, texts: list[Texts], rng: np.random.Generator) -> Prepared:
        assert sample.trajectory is not None
        clean = sample.trajectory.labels
        labels = np.stack([clean, *(noisy(clean, rng) for _ in range(self.config.variants - 1))])
        pixels = None if sample.video is None else sample.video.frames
        return Prepared(pixels, sample.scene.image, labels, flow, texts)


def _write(encoder: Encoder, folder: Path, number: int, items: list[Prepared]) -> None:
    groups = [encode_items(encoder, items[k : k + ENCODE]) for k in range(0, len(items), ENCODE)]
    fields = {name: torch.cat([group[name] for group in groups]) for name in groups[0]}
    write_texts(folder, number, [item.texts for item in items])  # first: latents that are there have their texts
    with new_file(shard_path(folder, number), force=True) as path:
        save_file({name: tensor.contiguous() for name, tensor in fields.items()}, path)


@torch.no_grad()
def encode_items(encoder: Encoder, items: Sequence[Prepared]) -> dict[str, Tensor]:
    """Items as tensors, n first. Latents in float16: video n C F Y X (with films), motion n V C F Y X, and the stills
    image and first n C 1|F Y X; on the token grid tokens uint8 n V N, sees n V N bits of L ids, begins n N of frame 0.
    """
    backbone, vae, num = encoder.backbone, encoder.encoders.vae, len(items)

    def stacked(pictures: list[npt.NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.stack(pictures)).to(encoder.device)

    labels = stacked([item.labels for item in items])  # n V T H W
    colours = torch.tensor(encoder.palette.colours, device=encoder.device)
    painted = colours[labels.int()]
    stills = torch.cat([stacked([item.image for item in items]), painted[:, 0, 0]])
    flow = [item.flow for item in items if item.flow is not None]
    motion = stacked(flow)[:, None] if flow else painted
    films = [item.pixels for item in items if item.pixels is not None]
    clips = torch.cat([stacked(films)[:, None], motion], 1) if films else motion  # n 1+V T H W 3
    with torch.autocast(encoder.device.type, encoder.dtype, enabled=encoder.dtype != torch.float32):
        still = encode_stills(backbone, vae, stills, encoder.grid.num_frames, encoder.repeat).half().cpu()
        latents = backbone.encode(vae, clips.flatten(0, 1)).unflatten(0, (num, -1)).half().cpu()
    tokens, sees = token_regions(labels.flatten(0, 1), encoder.grid, encoder.num_ids)
    begins, _ = first_regions(labels[:, 0, 0], encoder.grid, encoder.num_ids)
    return {
        **({"video": latents[:, 0]} if films else {}),
        "motion": latents[:, 1:] if films else latents,
        "image": still[:num],
        "first": still[num:],
        "tokens": tokens.to(torch.uint8).unflatten(0, (num, -1)).cpu(),
        "begins": begins.to(torch.uint8).cpu(),
        "sees": torch.from_numpy(np.packbits(sees.unflatten(0, (num, -1)).cpu().numpy(), axis=-1)),
    }
