"""The VAE that Toybox models stand on: a small AutoencoderKLWan, learnt from pixels and painted label colours alike.

Half of every batch is pixels, half is colours: stage 1 makes colours, and a VAE that confuses two of them spoils
every mask.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .. import palette
from ..backbones import wan_vae
from ..errors import InvalidValueError
from ..files import new_folder
from ..nn.statistics import LatentStatistics
from .clips import Clips, make_clips
from .config import VAEConfig
from .devices import Processes, to_channels_last
from .state import Average

Say = Callable[[str], None]

AROUND = 4  # pixels of a picture


class Batch(NamedTuple):
    """x: B 3 T H W in -1..1; the first half is pixels, the second labels painted. ids: the palette's, B/2 T H W.

    toys: B T H W, whether a toy is there. rarity: B, how much rarer such a piece is among all pieces than here.
    """

    x: Tensor
    ids: Tensor
    toys: Tensor
    rarity: Tensor


class Autoencode(nn.Module):
    """One training forward, as a module so that DDP sees it: x -> the same again, latents' means, their prior."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = wan_vae.encode(self.vae, x)
        z = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
        return wan_vae.decode(self.vae, z), posterior.mean, posterior.kl()


class VAELearner:
    """The VAE, its average, and one step of training."""

    def __init__(self, config: VAEConfig, device: torch.device, world: int = 1) -> None:
        torch.backends.cudnn.benchmark = (
            True  # shapes never change, and its first guesses for narrow 3D layers are poor
        )
        self.config, self.device = config, device
        self.vae = start_vae(config).to(device)
        if config.channels_last:
            to_channels_last(self.vae)
        self.average = Average(self.vae)
        self.model: nn.Module = Autoencode(self.vae)
        if config.compile:
            self.model.compile(fullgraph=True)
        if world > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.model = DistributedDataParallel(self.model, device_ids=ids)
        fused = device.type == "cuda"
        self.optimiser = torch.optim.AdamW(
            self.vae.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=fused
        )
        colours = torch.tensor(palette.named(config.palette).colours, dtype=torch.float32, device=device)
        self.colours_K3 = colours / 127.5 - 1

    def step(self, batch: Batch, rate: float, decay: float) -> Tensor:
        """Learn from one batch at learning rate `rate`; the average keeps `decay` of itself. Returns the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        x = batch.x.contiguous(memory_format=torch.channels_last_3d) if self.config.channels_last else batch.x
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16"):
            y, latents, kl = self.model(x)
        error = (cut_where_right(y.float(), x) - x).abs()
        weight = importance(batch.toys, self.config.toys)
        loss = (weight * (error + self.config.square * error.square())).mean() + self.config.kl * kl.float().mean()
        if self.config.snap:
            loss = loss + self.config.snap * snap_loss(y[len(y) // 2 :].float(), batch.ids, self.colours_K3)
        if self.config.balance:
            loss = loss + self.config.balance * imbalance(latents.float(), batch.rarity)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self.optimiser.step()
        self.average.update(decay)
        return loss.detach()


def cut_where_right(y: Tensor, x: Tensor) -> Tensor:
    """y cut to -1..1 only on the side where x is at the end: blacker than black is black, but not where x is grey.

    Cut everywhere, a picture that is black all over would have no gradient, and training would never leave it.
    """
    cut = torch.where(x <= -1, y.clamp(min=-1), y)
    return torch.where(x >= 1, cut.clamp(max=1), cut)


def snap_loss(y: Tensor, ids: Tensor, colours_K3: Tensor) -> Tensor:
    """How far decoded colours (B 3 T H W) are from snapping to their ids (B T H W): cross-entropy over the palette.

    It asks only for the right side of the middle between two colours, so it acts at the edges of objects.
    """
    temperature = 0.25  # of squared distances in -1..1: two colours are at least 2 apart, so 8 of them
    nearness = 2 * torch.einsum("bcthw,kc->bkthw", y, colours_K3) - colours_K3.square().sum(1).view(1, -1, 1, 1, 1)
    return F.cross_entropy(nearness / temperature, ids)


def importance(toys_BTHW: Tensor, more: float) -> Tensor:
    """Weights B 1 T H W of mean 1: a pixel within AROUND pixels of a toy counts 1 + more times as much as another.

    Toys are a few hundredths of the picture and most of the error. Both sides of an outline count alike, or masks would
    come out too large.
    """
    near = F.max_pool3d(toys_BTHW[:, None].float(), (1, 2 * AROUND + 1, 2 * AROUND + 1), 1, (0, AROUND, AROUND))
    weight = 1 + more * near
    return weight / weight.mean()


def imbalance(latents: Tensor, rarity_B: Tensor) -> Tensor:
    """How far each channel of latents B C F Y X is from mean 0 and deviation 1, in pixels and in colours each.

    One normalisation serves both; without this it suits neither, as colours are mostly the one code of black. rarity:
    weights of the pieces, so that it is measured as over pieces that were cut anywhere.
    """
    halves = latents.unflatten(0, (2, -1)).flatten(3)  # 2 B/2 C, and all positions
    share = rarity_B.view(2, -1, 1, 1)
    share = share / (share.sum(1, keepdim=True) * halves.shape[3])
    mean = (halves * share).sum((1, 3))
    variance = ((halves - mean[:, None, :, None]).square() * share).sum((1, 3))
    std = (variance + 1e-6).sqrt()  # a channel may be constant, and the root of 0 has no gradient
    return (mean.square() + (std - 1).square()).mean()


def train_vae(config: VAEConfig, say: Say = print) -> dict[str, Any]:
    """Train, measure the latents' statistics, and write a diffusers folder to config.out. Returns what was reached."""
    processes = Processes.join(config.device)
    rank, world, device = processes.rank, processes.world, processes.device
    torch.manual_seed(config.seed + rank)
    say = say if rank == 0 else (lambda text: None)
    if rank == 0:
        devices = range(torch.cuda.device_count())
        make_clips(config.clips, Path(config.cache), workers=config.workers, gl_devices=list(devices))
    processes.wait()
    data = ClipBatches(Clips.load(Path(config.cache)), config, device, rank)
    learner = VAELearner(config, device, world)
    begun, step, loss = time.monotonic(), 0, torch.zeros((), device=device)
    while step < config.steps:
        progress = max(step / config.steps, (time.monotonic() - begun) / 60 / config.minutes)
        if processes.any(progress >= 1):
            break
        rate = config.lr * min(1.0, (step + 1) / config.warmup) * max(0.01, 1 - progress)
        step += 1
        loss = learner.step(data.batch(), rate, min(config.ema, step / (step + 10)))
        if step % 200 == 0 or step == config.steps:
            minutes = (time.monotonic() - begun) / 60
            per_second = step * config.batch * world / minutes / 60
            say(f"step {step}  loss {loss.item():.4f}  {per_second:.0f} clips/s  {minutes:.1f} min")
    result = {"steps": step, "loss": loss.item(), "minutes": (time.monotonic() - begun) / 60, "processes": world}
    if rank == 0:
        vae = learner.vae.eval()
        with learner.average.in_place():
            mean, std = latent_statistics(vae, data, config)
            vae.register_to_config(latents_mean=mean, latents_std=std)
            save_vae(vae, Path(config.out), {"config": asdict(config), **result})
        say(f"{config.out}: {sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters")
    processes.leave()
    return result


class ClipBatches:
    """Random clips on the device, in random crops: the first half pixels, the second labels painted with the palette.

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
        # Of a sample of clips: a mean over all would pass over gigabytes.
        self.toy_share = float((self.labels[:: max(1, len(clips) // 256)] > 0).float().mean().clamp(min=1e-6))
        self.config, self.device = config, device
        self.generator = torch.Generator().manual_seed(config.seed * 1000 + rank)

    def batch(self, *, uncut: bool = False) -> Batch:
        """Clips of the config's frames and crop; uncut: as much of them as the VAE takes."""
        config = self.config
        size = (config.frames, config.crop, config.crop)
        if uncut:
            T, H, W = self.labels.shape[1:]
            size = (T - (T - 1) % 4, H - H % 8, W - W % 8)
        piece = self._piece(config.batch, size, 0.0 if uncut else config.aim)
        labels = self.labels[piece]
        toys = labels > 0
        half = config.batch // 2
        tables = torch.stack([self._deal() for _ in range(half)]).to(self.device)
        ids = tables[torch.arange(half, device=self.device).view(-1, 1, 1, 1), labels[half:].long()]
        x = torch.cat([self.pixels[tuple(index[:half] for index in piece)], self.colours[ids]]).permute(0, 4, 1, 2, 3)
        share = toys.float().mean((1, 2, 3)) / self.toy_share
        rarity = 1 / (1 - config.aim + config.aim * share) if config.aim and not uncut else torch.ones_like(share)
        return Batch(
            x.contiguous().float() / 127.5 - 1,  # channels last is several times slower on the CPU
            ids,
            toys,
            rarity,
        )

    def _deal(self) -> Tensor:
        """A new id for each of 256, the background's excepted."""
        ids = torch.randperm(len(self.colours) - 1, generator=self.generator) + 1
        return torch.cat([torch.zeros(1, dtype=torch.long), ids.repeat(1 + 255 // len(ids))[:255]])

    def _piece(self, num: int, size: tuple[int, int, int], aim: float) -> tuple[Tensor, ...]:
        """Indices of `num` random pieces of random clips, half of them mirrored; about a share `aim` is cut around a
        random pixel of a toy."""

        def draw(length: int) -> Tensor:
            return torch.randint(length, (num,), generator=self.generator)

        corners = [draw(length - part + 1) for length, part in zip(self.labels.shape[1:], size, strict=True)]
        clip, mirrored = draw(len(self.labels)), draw(2)
        aimed = torch.rand(num, generator=self.generator) < aim
        frame, back = corners[0] + draw(size[0]), [draw(part) for part in size[1:]]
        parts = [clip, *corners, mirrored, aimed, frame, *back]
        n, t, y, x, mirrored, aimed, frame, up, left = torch.stack([part.long() for part in parts]).to(self.device)
        height, width = self.labels.shape[2:]
        there = (self.labels[n, frame] > 0).flatten(1).float() + 1e-9  # anywhere, where no toy is
        place = there.cumsum(1)
        lot = torch.rand(num, 1, generator=self.generator).to(self.device) * place[:, -1:]
        pixel = torch.searchsorted(place, lot).squeeze(1).clamp(max=height * width - 1)
        y = torch.where(aimed.bool(), (pixel // width - up).clamp(0, height - size[1]), y)
        x = torch.where(aimed.bool(), (pixel % width - left).clamp(0, width - size[2]), x)
        n, t, y, x, mirrored = (part.view(-1, 1, 1, 1) for part in (n, t, y, x, mirrored))
        T, H, W = (torch.arange(part, device=self.device) for part in size)
        columns = torch.where(mirrored.bool(), W.flip(0), W)
        return n, t + T.view(-1, 1, 1), y + H.view(-1, 1), x + columns


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, data: ClipBatches, config: VAEConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over pixels and colours, half and half, of whole clips."""
    batches = -(-config.statistics // config.batch)
    first, *more = (
        LatentStatistics.of(vae.encode(data.batch(uncut=True).x).latent_dist.mode()) for _ in range(batches)
    )
    seen = sum(more, first)
    return seen.mean().tolist(), seen.std().tolist()


def save_vae(vae: AutoencoderKLWan, out: Path, record: dict[str, Any]) -> None:
    """A diffusers folder with weights in half precision, and train.json beside it; replaces an earlier one."""
    half = copy.deepcopy(vae).half()
    half.register_to_config(_name_or_path=None)  # where it started from is in train.json
    for parameter in half.parameters():
        parameter.data = parameter.data.contiguous()  # safetensors takes no other layout
    with new_folder(out, force=True) as folder:
        half.save_pretrained(folder, safe_serialization=True)
        (folder / "train.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def start_vae(config: VAEConfig) -> AutoencoderKLWan:
    if config.init:
        vae = AutoencoderKLWan.from_pretrained(config.init, use_safetensors=True).float()
        wan_vae.check_kind(vae)
        return vae
    patch = 16 >> len(config.dim_mult)  # every level but the last halves the size, patches do the rest of the eighth
    vae = AutoencoderKLWan(
        base_dim=config.base_dim,
        z_dim=config.z_dim,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.blocks,
        temperal_downsample=[False, True, True][-(len(config.dim_mult) - 1) :],
        patch_size=None if patch == 1 else patch,
        in_channels=3 * patch**2,
        out_channels=3 * patch**2,
        latents_mean=[0.0] * config.z_dim,
        latents_std=[1.0] * config.z_dim,
    )
    # The posterior starts narrow: as wide as the prior, its noise hides the signal and nothing is learnt for long.
    with torch.no_grad():
        vae.quant_conv.weight[config.z_dim :] *= 0.1
        vae.quant_conv.bias[config.z_dim :] = -6.0
    return vae
