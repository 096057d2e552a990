"""Instruct models on this machine, through transformers: the model's own chat template, greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...errors import DeviceError, InvalidValueError
from ..language import Reading
from .asking import read_with
from .prompts import Message


@dataclass(eq=False)
class LocalInstruct:
    """The Language that asks a model in memory. It is loaded when the first prompt is read, and lives as long as this.

    model: a folder, or a name on the hub. device and dtype: as torch names them. max_new_tokens: the longest answer.
    """

    model: str
    device: str = "cpu"
    dtype: str = "float32"
    max_new_tokens: int = 2048
    strip_attributes: bool = False
    _loaded: tuple[Any, Any] | None = field(default=None, init=False, repr=False)

    def read(self, prompt: str) -> Reading:
        """See `read_with`. Raises InvalidValueError for a model that cannot be asked, DeviceError for a full device."""
        return read_with(self.ask, prompt, strip_attributes=self.strip_attributes)

    def ask(self, messages: list[Message]) -> str:
        """The text of the model's answer."""
        import torch

        try:
            self._loaded = self._loaded or self._load()
            with torch.inference_mode():
                return self._answer(*self._loaded, messages)
        except (torch.OutOfMemoryError, MemoryError) as error:
            self._loaded = None
            fix = "take a smaller one, bfloat16, or a server"
            raise DeviceError("the language model does not fit the device", seen=self.device, fix=fix) from error

    def _load(self) -> tuple[Any, Any]:
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            if tokenizer.chat_template is None:
                fix = "take an instruct model: the base models answer nothing"
                raise InvalidValueError("the language model has no chat template", seen=self.model, fix=fix)
            model = AutoModelForCausalLM.from_pretrained(self.model, dtype=self.dtype)
        except InvalidValueError:
            raise
        except (OSError, ValueError, ImportError, SafetensorError) as error:
            fix = f"is {self.model} a whole folder, or a name on a hub that can be reached?"
            raise InvalidValueError("the language model cannot be loaded", seen=str(error), fix=fix) from error
        return tokenizer, model.to(self.device).eval()

    def _answer(self, tokenizer: Any, model: Any, messages: list[Message]) -> str:
        # The last option is for templates of models that else think aloud first.
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt", enable_thinking=False
        ).to(self.device)
        asked = inputs["input_ids"].shape[1]
        room = getattr(model.config.get_text_config(), "max_position_embeddings", asked + self.max_new_tokens) - asked
        if room < 1:
            seen = f"{asked} tokens of {asked + room}"
            raise InvalidValueError("the question is too long for the language model", seen=seen, fix="say it shorter")
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        tokens = model.generate(**inputs, **greedy, max_new_tokens=min(self.max_new_tokens, room), pad_token_id=pad)
        return str(tokenizer.decode(tokens[0, asked:], skip_special_tokens=True))
