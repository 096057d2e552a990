"""Instruct models on this machine, through transformers: the model's own chat template, greedy decoding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...errors import DeviceError, InvalidValueError
from ...hub import Say
from ..language import Reading
from ..real.weights import enough_memory, find_model, load_whole, loading, silent
from .asking import read_with
from .prompts import Message


@dataclass(eq=False)
class LocalInstruct:
    """The Language that asks a model in memory, which is loaded when the first prompt is read.

    model: a folder, or a name on the hub, downloaded if need be; `say` hears how much before it comes. device and
    dtype: as torch names them. max_new_tokens: the longest answer. stay: keep the model in memory for more prompts.
    """

    model: str
    device: str = "cpu"
    dtype: str = "float32"
    max_new_tokens: int = 2048
    strip_attributes: bool = False
    stay: bool = True
    say: Say = field(default=silent, repr=False)
    _loaded: tuple[Any, Any] | None = field(default=None, init=False, repr=False)

    def read(self, prompt: str) -> Reading:
        """See `read_with`. Raises SampleError too, for a model that cannot be had or is damaged, InvalidValueError for
        one that cannot be asked, and DeviceError for one that does not fit the device."""
        try:
            return read_with(self.ask, prompt, strip_attributes=self.strip_attributes)
        finally:
            if not self.stay:
                self._loaded = None

    def ask(self, messages: list[Message]) -> str:
        """The text of the model's answer."""
        import torch

        try:
            with enough_memory("the language model", self.device), torch.inference_mode():
                self._loaded = self._loaded or self._load()
                return self._answer(*self._loaded, messages)
        except DeviceError:
            self._loaded = None
            raise

    def _load(self) -> tuple[Any, Any]:
        folder = find_model(self.model, say=self.say)
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with loading(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.chat_template is None:
            fix = "take an instruct model: the base models answer nothing"
            raise InvalidValueError("the language model has no chat template", seen=self.model, fix=fix)
        return tokenizer, load_whole(AutoModelForCausalLM, folder, self.device, dtype=self.dtype)

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
