"""The networks of the bundled model that know words and pictures: text encoder, segmenter by phrase, and a check head.

They are trained together and then frozen for both stages. The segmenter and the head are what makes the text encoder
tell colours, shapes, verbs and directions apart: one trained on stage 1 alone would never see a colour.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ..files import new_file, new_folder
from ..perception.segmenter import PhraseSegmenter, load_text, load_words
from ..toybox import split_seeds
from .clips import Clips, make_clips
from .config import WordsConfig
from .devices import Processes
from .samples import seeds_of
from .state import Average
from .words_batches import Batch, WordBatches
from .words_head import ToyHead, head_loss
from .words_score import score_head, score_masks
from .words_texts import Story, make_stories

MAX_TEXT = 128  # tokens; a caption of five toys has about a hundred
WEIGHTS = (4.0, 1.0, 0.5)  # of the losses by pixel, by overlap, and of the head
AGREE = 10  # steps after which processes look at the clock together
HELD_OUT = ("toybox-single", "toybox-multi", "toybox-twins")

Say = Callable[[str], None]
HeldOut = dict[str, tuple[Clips, Sequence[Story]]]


class Learn(nn.Module):
    """One training forward, as a module so that DDP sees it: a batch -> the losses of the mask, by pixel and by
    overlap, and of the head."""

    def __init__(self, encoder: Any, segmenter: PhraseSegmenter, head: ToyHead) -> None:
        super().__init__()
        self.encoder, self.segmenter, self.head = encoder, segmenter, head

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        phrases = self.encoder(batch.phrase_ids, batch.phrase_mask).last_hidden_state
        each = len(batch.target) // len(batch.pixels)
        features = [level.repeat_interleave(each, 0) for level in self.segmenter.encode_picture(batch.pixels)]
        logits = self.segmenter.decode(features, phrases, batch.phrase_mask, batch.prior).float()
        texts = self.encoder(batch.text_ids, batch.text_mask).last_hidden_state
        told = self.head(texts, batch.text_mask)
        by_pixel = F.binary_cross_entropy_with_logits(logits, batch.target)
        return by_pixel, dice_loss(logits, batch.target), head_loss(told, batch.told)


def train_words(config: WordsConfig, say: Say = print) -> dict[str, Any]:
    """Train, save to config.out, and score what was saved on held-out scenes. Returns what was reached."""
    processes = Processes.join(config.device)
    device = processes.device
    say = say if processes.rank == 0 else (lambda text: None)
    clips, stories, held_out = _scenes(config, processes)
    torch.manual_seed(config.seed)  # the same start on every process
    tokenizer, learn = _networks(config, stories)
    learn = learn.to(device)
    say("  ".join(f"{name} {num_parameters(net) / 1e6:.2f} M" for name, net in learn.named_children()) + " parameters")
    average = Average(learn)
    model: nn.Module = learn
    if processes.world > 1:
        model = DistributedDataParallel(learn, device_ids=[device.index] if device.type == "cuda" else None)
    trained = [value for value in learn.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01)
    data = WordBatches(clips, stories, tokenizer, config, device, processes.rank)
    weights, recent = torch.tensor(WEIGHTS, device=device), torch.zeros(3, device=device)
    begun, step, loss = time.monotonic(), 0, torch.zeros(())
    for batch in data:
        if step % AGREE == 0:  # clocks differ, the learning rate and the last step must not
            spent = (time.monotonic() - begun) / 60 / config.minutes
            progress = processes.mean(torch.tensor(max(step / config.steps, spent), device=device))
            if progress >= 1:
                break
        for group in optimiser.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / config.warmup) * max(0.02, 1 - progress)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            losses = torch.stack(model(batch))
        loss = (losses * weights).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learn.parameters(), 1.0)
        optimiser.step()
        step += 1
        average.update(min(config.ema, step / (step + 10)))
        recent += losses.detach() / config.log_every
        if step % config.log_every == 0:
            by_pixel, overlap, words = recent.tolist()
            recent.zero_()
            rate = step * config.batch * processes.world / (time.monotonic() - begun)
            say(f"step {step}  pixels {by_pixel:.4f}  overlap {overlap:.3f}  words {words:.3f}  {rate:.0f} pictures/s")
    minutes = (time.monotonic() - begun) / 60
    result: dict[str, Any] = {"steps": step, "minutes": minutes, "processes": processes.world, "loss": loss.item()}
    if processes.rank == 0:
        with average.in_place():
            save_words(learn, tokenizer, config, result)
        result["scores"] = score(Path(config.out), held_out, config, device)
        _record(Path(config.out), config, result)
        say(f"{config.out}: {json.dumps(result['scores'])}")
    processes.leave()
    return result


def _networks(config: WordsConfig, stories: Sequence[Story]) -> tuple[Any, Learn]:
    """Tokenizer and networks: those of an earlier run, or new ones; `encoder`'s text encoder is not to be trained."""
    if config.encoder or config.init:
        text = load_text(config.encoder or config.init)
        tokenizer, encoder = text.tokenizer, text.encoder.requires_grad_(not config.encoder)
    else:
        tokenizer = train_tokenizer(_texts(stories), config.vocabulary)
        encoder = new_text_encoder(tokenizer, config.width, config.layers)
    width = encoder.config.d_model
    if not config.init:
        return tokenizer, Learn(encoder, PhraseSegmenter(text_dim=width), ToyHead(text_dim=width))
    _, segmenter = load_words(config.init)
    head = ToyHead.from_pretrained(Path(config.init) / "head").float()
    return tokenizer, Learn(encoder, segmenter.train(), head.train())


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One less the overlap of mask and target (M 1 H W), the mean over targets that are not empty."""
    found = logits.sigmoid()
    common, sizes = (found * target).sum((1, 2, 3)), (found + target).sum((1, 2, 3))
    there = target.amax((1, 2, 3))
    return ((1 - 2 * common / sizes.clamp(min=1e-6)) * there).sum() / there.sum().clamp(min=1)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> Any:
    """Byte-level BPE: every string, misspelt or not, is encoded without an unknown token and decoded to itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = ["<pad>", "</s>", "<unk>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TEXT,
        split_special_tokens=True,  # "</s>" in a prompt is four letters, not the end
    )


def new_text_encoder(tokenizer: Any, width: int = 192, layers: int = 3) -> Any:
    """A UMT5EncoderModel for that tokenizer, with random weights: 1.5 M parameters at the default size."""
    from transformers import UMT5Config, UMT5EncoderModel

    heads = 4
    sizes = {"d_model": width, "d_kv": width // heads, "d_ff": 3 * width, "num_heads": heads}
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer), num_layers=layers, dropout_rate=0.0, pad_token_id=0, eos_token_id=1, **sizes
        )
    )


def num_parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def save_words(learn: Learn, tokenizer: Any, config: WordsConfig, result: dict[str, Any]) -> None:
    """Write tokenizer, text_encoder, segmenter and head, in half precision, and train.json. Replaces an earlier
    folder."""
    with new_folder(Path(config.out), force=True) as folder:
        tokenizer.save_pretrained(folder / "tokenizer")
        for name, net in (("text_encoder", learn.encoder), ("segmenter", learn.segmenter), ("head", learn.head)):
            copy.deepcopy(net).half().save_pretrained(folder / name)
        _record(folder, config, result)


def _record(folder: Path, config: WordsConfig, result: dict[str, Any]) -> None:
    with new_file(folder / "train.json", force=True) as path:
        path.write_text(json.dumps({"config": asdict(config), **result}, indent=1) + "\n", encoding="utf-8")


def score(folder: Path, held_out: HeldOut, config: WordsConfig, device: torch.device) -> dict[str, Any]:
    """How good what lies in a folder is on held-out scenes; see words_score."""
    text, segmenter = load_words(folder)
    head = ToyHead.from_pretrained(folder / "head").float().eval()
    for net in (text.encoder, segmenter, head):
        net.to(device)
    scores: dict[str, Any] = {
        name: score_masks(text, segmenter, clips, stories, shrink=config.shrink)
        for name, (clips, stories) in held_out.items()
    }
    known = [story for _, stories in held_out.values() for story in stories]
    if known:
        scores["texts"] = score_head(text, head, known)
        scores["misspelt"] = score_head(text, head, known, typos=config.typos)
    return scores


def _scenes(config: WordsConfig, processes: Processes) -> tuple[Clips, Sequence[Story], HeldOut]:
    """Clips and stories, to learn from and held out. The first process makes them, the others wait for them."""
    half = config.evaluate // 2
    held_out = {name: split_seeds(name)[:half] for name in HELD_OUT if half}
    sources = {
        name: (f"toybox:{seeds[0]}..{seeds[-1]}", f"{config.cache}-{name}-{half}") for name, seeds in held_out.items()
    }
    if processes.rank == 0:
        for source, cache in ((config.clips, config.cache), *sources.values()):
            _scene(source, cache, config)
    processes.wait()
    clips, stories = _scene(config.clips, config.cache, config)
    return clips, stories, {name: _scene(*place, config) for name, place in sources.items()}


def _scene(source: str, cache: str, config: WordsConfig) -> tuple[Clips, Sequence[Story]]:
    """Clips and stories of a source, made if they are not in the cache yet."""
    devices = list(range(torch.cuda.device_count()))
    clips = make_clips(source, Path(cache), workers=config.workers, gl_devices=devices)
    path = Path(cache) / f"stories-{config.phrasings}.jsonl"
    return clips, make_stories(seeds_of(source), path, phrasings=config.phrasings, workers=config.workers)


def _texts(stories: Sequence[Story]) -> Iterator[str]:
    for story in stories:
        for telling in story.tellings:
            yield from (telling.caption, telling.motion, telling.stripped, *telling.names, *telling.prompts)
