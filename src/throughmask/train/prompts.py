"""The encoded prompts of a cache: made of the texts beside its latents, so that another text encoder costs seconds.

Texts lie beside each shard of latents; what one text encoder makes of them lies in a folder of its own, named after it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..backbones import Backbone
from ..errors import SampleError
from ..files import new_file
from ..stages.conditioning import Encoders
from .devices import Processes
from .samples import Texts

PER_SHARD = 64
AT_ONCE = 256  # prompts that are encoded together

Say = Callable[[str], None]


class Prompts:
    """Encoded prompts of items by number, in a folder that `make_prompts` filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[int, tuple[Tensor, npt.NDArray[np.int32]]] = {}

    def texts(self, items: Sequence[int], phrasings: Sequence[int], column: int) -> tuple[Tensor, Tensor]:
        """Encoded prompts, padded to the longest: B S D, and B S. column: 0 the prompt, 1 the motion prompt."""
        return _padded([self._text(item, k, column) for item, k in zip(items, phrasings, strict=True)])

    def local(self, items: Sequence[int], phrasings: Sequence[int], num_objects: int) -> tuple[Tensor, Tensor]:
        """Encoded local prompts of ids 1 to num_objects: B L S D, and B L S, False on padding and where no id is."""
        pairs = zip(items, phrasings, strict=True)
        padded, mask = _padded([self._text(item, k, 2 + index) for item, k in pairs for index in range(num_objects)])
        return padded.unflatten(0, (len(items), num_objects)), mask.unflatten(0, (len(items), num_objects))

    def num_phrasings(self, item: int) -> int:
        _, spans = self._shard(item)
        return int((spans[item % PER_SHARD, :, 0, 1] > 0).sum())

    def empty(self) -> tuple[Tensor, Tensor]:
        """The empty prompt, encoded: 1 S D, and 1 S."""
        states = load_shard(self.folder / "empty.safetensors")["states"]
        return states[None], torch.ones(1, len(states), dtype=torch.bool)

    def _text(self, item: int, phrasing: int, column: int) -> Tensor:
        text, spans = self._shard(item)
        start, length = spans[item % PER_SHARD, phrasing, column]
        return text[start : start + length]

    def _shard(self, item: int) -> tuple[Tensor, npt.NDArray[np.int32]]:
        """text and spans, see _encoded; hundreds of spans are looked up for a batch, which numpy does faster."""
        number = item // PER_SHARD
        if number not in self._read:
            fields = load_shard(shard_path(self.folder, number))
            self._read[number] = fields["text"], fields["spans"].numpy()
        return self._read[number]


def make_prompts(
    backbone: Backbone, encoders: Encoders, num_ids: int, cache: Path, num_shards: int, processes: Processes, say: Say
) -> Prompts:
    """The prompts of a cache's shards as these encoders see them, made by all processes where they are not there yet.

    num_ids: local prompts that an item has room for.
    """
    words = str(encoders.tokenizer("a red ball rolls").input_ids)
    mark = hashlib.sha256(f"{fingerprint(encoders.text_encoder)} {words} {num_ids}".encode()).hexdigest()[:8]
    folder = cache / f"text-{mark}"

    def encode(prompts: list[str], local: bool) -> tuple[Tensor, Tensor]:
        how = backbone.encode_text if local else backbone.encode_global
        states, mask = how(encoders.tokenizer, encoders.text_encoder, prompts)
        return states.half().cpu(), mask.cpu()

    with torch.no_grad():
        if processes.rank == 0:
            folder.mkdir(exist_ok=True)
            with new_file(folder / "empty.safetensors", force=True) as path:
                save_file({"states": encode([""], False)[0][0].contiguous()}, path)
        processes.wait()
        mine = range(processes.rank, num_shards, processes.world)
        missing = [number for number in mine if not shard_path(folder, number).is_file()]
        if missing:
            say(f"encoding texts into {folder}")
        for number in missing:
            fields = _encoded(read_texts(cache, number), num_ids, encode)
            with new_file(shard_path(folder, number), force=True) as path:
                save_file(fields, path)
    processes.wait()
    return Prompts(folder)


def write_texts(cache: Path, number: int, items: Sequence[Sequence[Texts]]) -> None:
    """The texts of a shard's items, all phrasings of each, as JSON."""
    with new_file(texts_path(cache, number), force=True) as path:
        path.write_text(json.dumps(items, ensure_ascii=False) + "\n", encoding="utf-8")


def read_texts(cache: Path, number: int) -> list[list[Texts]]:
    """Raises SampleError if they cannot be read."""
    path = texts_path(cache, number)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return [
            [Texts(prompt, motion, tuple((name, told) for name, told in objects)) for prompt, motion, objects in item]
            for item in records
        ]
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def load_shard(path: Path) -> dict[str, Tensor]:
    """A safetensors file, mapped and not read. Raises SampleError if it is broken."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> SampleError:
    fix = "delete that file and start again: it will be made anew"
    return SampleError(f"{path} of the cache cannot be read", seen=str(error), fix=fix)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"


def texts_path(cache: Path, number: int) -> Path:
    return cache / f"{number:05d}.json"


def fingerprint(network: Any) -> str:
    """Of the weights, by a few numbers of each: reading all of a large text encoder would take minutes."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        flat = value.detach().flatten()
        part = flat[:: max(1, len(flat) // 64)][:64].double().cpu().numpy()
        digest.update(f"{name} {tuple(value.shape)}".encode() + part.tobytes())
    return digest.hexdigest()[:16]


def _encoded(
    items: Sequence[Sequence[Texts]], num_ids: int, encode: Callable[[list[str], bool], tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """text: encoded prompts one after the other, each once. spans: n P 2+L 2, where each item's prompts start in it
    and how long they are (0: there is none): the prompt, the motion prompt, the local prompts of ids 1 to L."""
    num_phrasings = max(len(item) for item in items)
    spans = torch.zeros(len(items), num_phrasings, 2 + num_ids, 2, dtype=torch.int32)
    wanted: dict[tuple[bool, str], list[tuple[int, int, int]]] = {}  # local or global, for they may be encoded apart
    for row, item in enumerate(items):
        for k, text in enumerate(item):
            prompts = (text.prompt, text.motion_prompt or text.prompt, *(prompt for _, prompt in text.objects))
            for column, prompt in enumerate(prompts):
                if column >= 2 and not prompt:
                    continue  # an id that this scene does not have
                wanted.setdefault((column >= 2, prompt), []).append((row, k, column))
    pieces, start = [], 0
    for local in (False, True):
        different = [prompt for kind, prompt in wanted if kind == local]
        for k in range(0, len(different), AT_ONCE):
            some = different[k : k + AT_ONCE]
            for prompt, state, kept in zip(some, *encode(some, local), strict=True):
                piece = state[kept]
                for place in wanted[local, prompt]:
                    spans[place] = torch.tensor([start, len(piece)])
                pieces.append(piece)
                start += len(piece)
    return {"text": torch.cat(pieces), "spans": spans}


def _padded(states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(state) for state in states])
    states = [state if len(state) else state.new_zeros(1, state.shape[1]) for state in states]
    padded = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]
