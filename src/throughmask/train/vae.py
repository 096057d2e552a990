"""The VAE that Toybox models stand on: a small AutoencoderKLWan, learnt from pixels and painted label colours alike.

Half of every batch is pixels, half is colours: stage 1 makes colours, and a VAE that confuses two of them spoils
every mask.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import palette
from ..errors import InvalidValueError
from ..files import new_folder
from .clips import Clips, make_clips

Say = Callable[[str], None]


@dataclass(frozen=True)
class VAEConfig:
    """clips: see clips.make_clips, kept in cache. minutes, steps: it stops at whichever comes first. batch: clips of
    `frames` frames cut to `crop` pixels, on each process; half of them are painted in colours. init: a VAE folder to
    go on from. kl: weight of the prior.
    statistics: clips that the latents' mean and deviation are measured on. dtype: float32 or bfloat16 (autocast)."""

    out: str = "out/toybox-vae"
    clips: str = "toybox:0..1999"
    cache: str = "out/toybox-clips"
    init: str | None = None
    steps: int = 20_000
    minutes: float = 25.0
    batch: int = 16
    frames: int = 9
    crop: int = 128
    lr: float = 2e-3
    warmup: int = 200
    base_dim: int = 16
    z_dim: int = 16
    blocks: int = 1
    kl: float = 1e-6
    ema: float = 0.999
    statistics: int = 256
    palette: str = "ours"
    dtype: str = "float32"
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
        palette.named(self.palette)


class Autoencode(nn.Module):
    """One training forward, as a module so that DDP sees it: B 3 T H W in -1..1 -> the same again, and its prior."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(x).latent_dist
        return self.vae.decode(posterior.sample()).sample, posterior.kl()


def train_vae(config: VAEConfig, say: Say = print) -> dict[str, Any]:
    """Train, measure the latents' statistics, and write a diffusers folder to config.out. Returns what was reached."""
    rank, world, device = _processes(config)
    torch.manual_seed(config.seed + rank)
    torch.set_flush_denormal(True)  # on the CPU, gradients of almost nothing made steps five times slower
    say = say if rank == 0 else (lambda text: None)
    clips = _shared_clips(config, rank, world)
    data = ClipBatches(clips, config, device, rank)
    vae = _start(config).to(device)
    average = copy.deepcopy(vae).requires_grad_(False)
    model: nn.Module = Autoencode(vae)
    if world > 1:
        model = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)
    begun, step, loss = time.monotonic(), 0, torch.zeros((), device=device)
    while step < config.steps:
        progress = max(step / config.steps, (time.monotonic() - begun) / 60 / config.minutes)
        if _stop(progress >= 1, world, device):
            break
        for group in optimiser.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / config.warmup) * max(0.02, (1 - progress) ** 0.5)
        x = data.batch()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            y, kl = model(x)
        error = (y.float() - x).abs()
        loss = error.mean() + error.square().mean() + config.kl * kl.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        step += 1
        _average(average, vae, min(config.ema, step / (step + 10)))
        if step % 200 == 0 or step == config.steps:
            minutes = (time.monotonic() - begun) / 60
            rate = step * config.batch * world / minutes / 60
            say(f"step {step}  loss {loss.item():.4f}  {rate:.0f} clips/s  {minutes:.1f} min")
    result = {"steps": step, "loss": loss.item(), "minutes": (time.monotonic() - begun) / 60, "processes": world}
    if rank == 0:
        average.eval()
        mean, std = latent_statistics(average, data, config)
        average.register_to_config(latents_mean=mean, latents_std=std)
        save_vae(average, Path(config.out), {"config": asdict(config), **result})
        say(f"{config.out}: {sum(p.numel() for p in average.parameters()) / 1e6:.2f} M parameters")
    if world > 1:
        dist.barrier()
    return result


class ClipBatches:
    """Random crops of random clips on the device: the first half pixels, the second half labels painted with the
    palette.

    Painted clips get their ids dealt anew, so that every colour of the palette is learnt.
    """

    def __init__(self, clips: Clips, config: VAEConfig, device: torch.device, rank: int) -> None:
        _, frames, height, width = clips.labels.shape
        if frames < config.frames or min(height, width) < config.crop:
            seen = f"{frames} frames of {height}×{width}"
            raise InvalidValueError(f"clips must hold {config.frames} frames of {config.crop} pixels", seen=seen)
        # Clips are small enough to stay on the device: 6.5 MB each at 256×256, 25 frames.
        self.pixels, self.labels = (torch.tensor(part, device=device) for part in (clips.pixels, clips.labels))
        self.colours = torch.from_numpy(palette.named(config.palette).colours.copy()).to(device)
        self.config, self.device = config, device
        self.generator = torch.Generator().manual_seed(config.seed * 1000 + rank)

    def batch(self) -> Tensor:
        """B 3 T H W in -1..1, float32."""
        half = self.config.batch // 2
        items = [self._pixels() for _ in range(half)] + [self._painted() for _ in range(half)]
        x = torch.stack(items).permute(0, 4, 1, 2, 3).contiguous()  # channels last is several times slower here
        return x.float() / 127.5 - 1

    def _pixels(self) -> Tensor:
        return self._cut(self.pixels)

    def _painted(self) -> Tensor:
        ids = torch.randperm(len(self.colours) - 1, generator=self.generator) + 1
        table = torch.zeros(256, dtype=torch.long)
        table[1:] = ids.repeat(1 + 255 // len(ids))[:255]
        labels = self._cut(self.labels)
        return self.colours[table.to(self.device)[labels.long()]]

    def _cut(self, clips: Tensor) -> Tensor:
        def draw(size: int, length: int) -> int:
            return int(torch.randint(size - length + 1, (1,), generator=self.generator))

        n, t = draw(len(clips), 1), draw(clips.shape[1], self.config.frames)
        y, x = draw(clips.shape[2], self.config.crop), draw(clips.shape[3], self.config.crop)
        part = clips[n, t : t + self.config.frames, y : y + self.config.crop, x : x + self.config.crop]
        return part.flip(2) if draw(2, 1) else part


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, data: ClipBatches, config: VAEConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over pixels and colours, half and half."""
    batches = -(-config.statistics // config.batch)
    latents = [vae.encode(data.batch()).latent_dist.mode().double() for _ in range(batches)]
    flat = torch.cat(latents).transpose(0, 1).flatten(1)
    return flat.mean(1).tolist(), flat.std(1).tolist()


def save_vae(vae: AutoencoderKLWan, out: Path, record: dict[str, Any]) -> None:
    """A diffusers folder with weights in half precision, and train.json beside it; replaces an earlier one."""
    with new_folder(out, force=True) as folder:
        copy.deepcopy(vae).half().save_pretrained(folder, safe_serialization=True)
        (folder / "train.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _start(config: VAEConfig) -> AutoencoderKLWan:
    if config.init:
        return AutoencoderKLWan.from_pretrained(config.init, use_safetensors=True).float()
    vae = AutoencoderKLWan(
        base_dim=config.base_dim,
        z_dim=config.z_dim,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=config.blocks,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
    )
    # The posterior starts narrow: as wide as the prior, its noise hides the signal and nothing is learnt for long.
    with torch.no_grad():
        vae.quant_conv.weight[config.z_dim :] *= 0.1
        vae.quant_conv.bias[config.z_dim :] = -6.0
    return vae


def _average(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, new in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(new, 1 - decay)


def _processes(config: VAEConfig) -> tuple[int, int, torch.device]:
    """Rank, number of processes and device; torchrun's variables say who we are."""
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    kind = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return int(os.environ.get("RANK", 0)), world, device


def _shared_clips(config: VAEConfig, rank: int, world: int) -> Clips:
    """The first process makes the clips, the others wait for them."""
    devices = range(torch.cuda.device_count())
    if rank == 0:
        make_clips(config.clips, Path(config.cache), workers=config.workers, gl_devices=list(devices))
    if world > 1:
        dist.barrier()
    return Clips.load(Path(config.cache))


def _stop(wish: bool, world: int, device: torch.device) -> bool:
    """Clocks differ: all processes stop at the same step, when the first one wants to."""
    if world == 1:
        return wish
    flag = torch.tensor(float(wish), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)
