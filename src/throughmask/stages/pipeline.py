"""What both stages share as diffusers pipelines: components, loading, devices, sampling."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import WanLoraLoaderMixin
from safetensors import SafetensorError
from torch import Tensor

from ..backbones import autocast_dtype
from ..errors import InvalidValueError, SampleError
from ..nn.guidance import Condition, Guidance
from ..types import exact_fps
from .checkpoint import WEIGHTS, StageInfo, component_folder
from .conditioning import REPEATS, Encoders, Repeat, global_prompt
from .sampling import SCHEDULES, sample_latents, seeded_noise


class StagePipeline(DiffusionPipeline, WanLoraLoaderMixin):
    """A stage: tokenizer, text encoder, VAE, scheduler and denoiser, and the settings of its checkpoint.

    recipe and palette: names; num_ids: how many object ids the model knows; frames, fps: the clip it makes by default;
    schedule: "scheduler" or "linear-quadratic"; repeat: how a still picture enters (see conditioning.still_latents).
    """

    stage: ClassVar[str]
    model_cpu_offload_seq = "text_encoder->vae->transformer"
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: Any,
        vae: Any,
        scheduler: Any,
        transformer: Any,
        recipe: str = "paper",
        palette: str = "ours",
        num_ids: int = 13,
        frames: int = 25,
        fps: str = "12",
        schedule: str = "scheduler",
        repeat: str = "latents",
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES or repeat not in REPEATS:
            fix = f"schedules: {', '.join(SCHEDULES)}; repeats: {', '.join(REPEATS)}"
            raise InvalidValueError("there is no such schedule or repeat", seen=f"{schedule}, {repeat}", fix=fix)
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, scheduler=scheduler, transformer=transformer
        )
        self.register_to_config(
            recipe=recipe,
            palette=palette,
            num_ids=num_ids,
            frames=frames,
            fps=fps,
            schedule=schedule,
            repeat=repeat,
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Any:
        """Load a checkpoint folder, after checking that it is one of this stage; safetensors only.

        dtype: of the denoiser, and of VAE and text encoder except that these stay float32 beside a float16 denoiser.
        Raises SampleError for a folder that is not such a checkpoint.
        """
        info = StageInfo.read(folder, cls.stage)
        _ = info.backbone  # diffusers finds a component's class only in modules that are loaded
        dtypes = {"transformer": dtype, "default": autocast_dtype(dtype)}
        try:
            wanted = [name for name in info.layout.components if name not in kwargs]
            kwargs = {**_shared(Path(folder), wanted, autocast_dtype(dtype)), **kwargs}
            return super().from_pretrained(str(folder), use_safetensors=True, dtype=dtypes, **kwargs)
        except (OSError, SafetensorError) as error:
            fix = "copy the whole folder again, or make it again"
            raise SampleError(f"{folder} cannot be loaded", seen=str(error), fix=fix) from error

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Save as a diffusers folder. Raises SampleError while a LoRA adapter is attached: it would not load again."""
        if getattr(self.transformer, "peft_config", None):
            fix = "save_lora_weights keeps it apart; fuse_lora and unload_lora_weights make it part of the model"
            raise SampleError("the denoiser has a LoRA adapter attached", fix=fix)
        super().save_pretrained(str(folder), safe_serialization=True, **kwargs)

    @classmethod
    def _maybe_expand_t2v_lora_for_i2v(cls, transformer: Any, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        return state_dict  # diffusers would ask for image embeddings, which no stage takes

    @property
    def info(self) -> StageInfo:
        index = {"_class_name": type(self).__name__, **self.config}
        denoiser = {"_class_name": type(self.transformer).__name__, **self.transformer.config}
        return StageInfo.of_configs(index, self.vae.config, denoiser)

    @property
    def encoders(self) -> Encoders:
        return Encoders(self.tokenizer, self.text_encoder, self.vae)

    @property
    def repeat(self) -> Repeat:
        repeat: Repeat = self.config.repeat
        return repeat

    def default_fps(self) -> Fraction:
        return exact_fps(self.config.fps)

    @torch.no_grad()
    def _sample(
        self,
        make_condition: Callable[[], Condition],
        size: tuple[int, int],
        frames: int,
        *,
        seeds: Sequence[int],
        generators: Sequence[torch.Generator] | None,
        steps: int,
        guidance: Guidance,
        negative_prompt: str,
        callback_on_step_end: Callable[..., dict[str, Tensor] | None] | None,
    ) -> Tensor:
        """Latents B C F Y X, a sample for each seed (or generator)."""
        generators = generators or [torch.Generator().manual_seed(seed) for seed in seeds]
        if any(generator.device.type != "cpu" for generator in generators):
            raise InvalidValueError("noise comes from CPU generators, so that it is the same on every device")
        with _whole_float32(self.transformer.dtype):
            condition = make_condition()
            backbone = self.info.backbone
            empty = global_prompt(backbone, self.encoders, negative_prompt)[0]
            self.maybe_free_model_hooks()  # with offloading, the text encoder makes room for the denoiser
            noise = seeded_noise(backbone.latent_shape(self.vae, frames, *size), generators)

            def after_step(step: int, time: Tensor, latents: Tensor) -> Tensor | None:
                if callback_on_step_end is None:
                    return None
                return (callback_on_step_end(self, step, time, {"latents": latents}) or {}).get("latents")

            with self.progress_bar(total=steps) as bar:
                latents = sample_latents(
                    backbone,
                    self.transformer,
                    self.scheduler,
                    condition,
                    empty,
                    noise,
                    steps=steps,
                    guidance=guidance,
                    schedule=self.config.schedule,
                    device=self._execution_device,
                    progress=bar.update,
                    callback=after_step,
                )
        self.maybe_free_model_hooks()
        return latents


@contextmanager
def _whole_float32(dtype: torch.dtype) -> Iterator[None]:
    """Who asks for float32 gets it, so that a GPU gives what a CPU gives: by default cuDNN convolves it in TF32."""
    flags = torch.backends.cudnn
    before = flags.allow_tf32
    flags.allow_tf32 = before and dtype != torch.float32
    try:
        yield
    finally:
        flags.allow_tf32 = before


def _shared(root: Path, names: Sequence[str], dtype: torch.dtype) -> dict[str, Any]:
    """The components that lie beside a stage's folder in a bundle; diffusers looks for them inside only."""
    index = DiffusionPipeline.load_config(str(root))
    found = {}
    for name in names:
        folder = component_folder(root, name)
        if folder.parent != root:
            library, kind = index[name]
            loader = getattr(importlib.import_module(library), kind)
            options = {"use_safetensors": True, "torch_dtype": dtype} if name in WEIGHTS else {}
            found[name] = loader.from_pretrained(str(folder), **options)
    return found


def hide_loading_bars() -> None:
    """Loading shows a bar for each component; one bar, of the sampling, is enough."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
