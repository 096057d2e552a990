"""Times perception of real pictures at the true shapes, and measures its memory: SAM 2.1 large, Grounding DINO base.

    python benchmarks/perception.py --out out/perception          # perception.json and .md; needs a GPU
    python benchmarks/perception.py --tiny --out out/perception   # the same at a small size on the CPU, in a minute

Random weights, so nothing is downloaded and nothing sensible is found: SAM 2 follows given boxes, and every phrase
costs Grounding DINO the same. Frames are noise of 480×854. For each number of objects and frames: seconds a frame of
tracking (all objects, median of the frames from the window on), of the whole call, and the most memory that the device
holds at once, in MiB, with and above the weights. What is remembered is a window of frames, stated in the table: a
longer video must not need more. Files are written after every row.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    PreTrainedTokenizerFast,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
    SwinConfig,
)
from transformers.models.sam2.configuration_sam2 import Sam2MaskDecoderConfig, Sam2PromptEncoderConfig
from transformers.models.sam2_video.configuration_sam2_video import (
    Sam2VideoMaskDecoderConfig,
    Sam2VideoPromptEncoderConfig,
)

from throughmask.perception.real.detect import GroundingDino
from throughmask.perception.real.segment import Prompt, Sam2
from throughmask.perception.real.track import Sam2Tracker, Seed

PHRASES = ("red ball", "left dog", "right dog", "woman", "grey horse", "blue car", "kite", "yellow tram")
# Where Grounding DINO expects words that part phrases, in BERT's vocabulary of 30,522.
SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}


@dataclass(frozen=True)
class Shape:
    """Sizes of the video and of the models; one of the two below. What is not named is as transformers has it."""

    device: str
    dtype: torch.dtype
    size: tuple[int, int]
    objects: tuple[int, ...]
    frames: tuple[int, ...]
    side: int  # of the square that SAM 2 looks at
    hiera: dict[str, Any]
    fpn: int
    prompts: dict[str, Any] = field(default_factory=dict)
    decoder: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    swin: dict[str, Any] = field(default_factory=dict)
    bert: dict[str, Any] = field(default_factory=dict)
    dino: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=lambda: {"shortest_edge": 800, "longest_edge": 1333})


TRUE = Shape(
    "cuda",
    torch.bfloat16,
    size=(480, 854),
    objects=(1, 4, 8),
    frames=(25, 81, 250),
    side=1024,
    hiera={
        "hidden_size": 144,
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43],
        "window_positional_embedding_background_size": [7, 7],
        "window_size_per_stage": [8, 4, 16, 8],
    },
    fpn=256,
    memory={"enable_temporal_pos_encoding_for_object_pointers": True, "enable_occlusion_spatial_embedding": True},
    swin={
        "image_size": 384,
        "embed_dim": 128,
        "depths": [2, 2, 18, 2],
        "num_heads": [4, 8, 16, 32],
        "window_size": 12,
    },
)
TINY = Shape(
    "cpu",
    torch.float32,
    size=(75, 101),
    objects=(1, 2, 3),
    frames=(6, 12, 18),
    side=64,
    hiera={
        "hidden_size": 16,
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "blocks_per_stage": [1, 1, 2, 1],
        "window_size_per_stage": [4, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [2, 2],
    },
    fpn=128,
    prompts={"hidden_size": 128, "image_size": 64, "patch_size": 16, "mask_input_channels": 8},
    decoder={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    memory={
        "memory_attention_hidden_size": 128,
        "memory_attention_num_layers": 1,
        "memory_attention_feed_forward_hidden_size": 32,
        "memory_attention_rope_feat_sizes": [4, 4],
        "memory_encoder_hidden_size": 128,
        "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": 128,
        "memory_fuser_embed_dim": 128,
        "memory_fuser_intermediate_dim": 32,
        "memory_fuser_num_layers": 1,
        "num_maskmem": 3,
        "max_object_pointers_in_encoder": 4,
    },
    swin={"image_size": 32, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
    bert={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    dino={
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 9,
    },
    shown={"shortest_edge": 64, "longest_edge": 96},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="*", help="how many are followed; by default 1, 4 and 8")
    parser.add_argument("--frames", type=int, nargs="*", help="lengths of the videos; by default 25, 81 and 250")
    parser.add_argument("--repeats", type=int, default=3, help="of detecting and segmenting")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], help="of SAM 2; by default bfloat16")
    parser.add_argument("--skip", nargs="*", default=[], choices=["pictures", "videos"])
    parser.add_argument("--tiny", action="store_true", help="small sizes on the CPU, float32")
    parser.add_argument("--out", type=Path, help="write perception.json and perception.md into this folder")
    args = parser.parse_args()
    shape = TINY if args.tiny else TRUE
    dtype = getattr(torch, args.dtype) if args.dtype else shape.dtype
    machine = f"CPU, {torch.get_num_threads()} threads" if args.tiny else torch.cuda.get_device_name()
    result: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "transformers": transformers.__version__}
    result |= {"size": list(shape.size), "dtype": str(dtype).removeprefix("torch."), "tiny": args.tiny}
    result |= {"parameters": {}, "pictures": [], "videos": []}
    begun = time.perf_counter()

    def keep() -> None:
        result["seconds"] = round(time.perf_counter() - begun)
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "perception.json").write_text(json.dumps(result, indent=1) + "\n")
            (args.out / "perception.md").write_text(to_table(result))

    objects, lengths = args.objects or shape.objects, args.frames or shape.frames
    if "pictures" not in args.skip:
        for row in pictures(shape, dtype, objects, args.repeats, result):
            result["pictures"].append(row)
            print(row, flush=True)
            keep()
        release(shape)
    if "videos" not in args.skip:
        for row in videos(shape, dtype, objects, lengths, result):
            result["videos"].append(row)
            print(row, flush=True)
            keep()
    keep()
    print(to_table(result))


def pictures(
    shape: Shape, dtype: torch.dtype, objects: tuple[int, ...], repeats: int, result: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows: objects found in a picture by phrase, and masks made of their boxes."""
    image = frames_of(shape, 1)[0]
    detector, sam = detector_of(shape), Sam2(picture_model(shape, dtype))
    result["parameters"] |= {"Grounding DINO": count(detector.model), "SAM 2": count(sam.model)}
    for number in objects:
        phrases = {k + 1: PHRASES[k % len(PHRASES)] for k in range(number)}
        prompts = {k + 1: Prompt(box=box) for k, box in enumerate(boxes_of(shape, number))}
        row: dict[str, Any] = {"objects": number, "phrases": len({*phrases.values()})}
        for name, call in (
            ("detect", lambda phrases=phrases: detector.detect(image, phrases)),
            ("segment", lambda prompts=prompts: sam.segment(image, prompts)),
        ):
            call()
            seconds = []
            with peak(shape) as held:
                for _ in range(repeats):
                    start = time.perf_counter()
                    call()
                    synchronise(shape)
                    seconds.append(time.perf_counter() - start)
            row |= {f"{name}_s": statistics.median(seconds), f"{name}_MiB": held["MiB"]}
        yield row


def videos(
    shape: Shape, dtype: torch.dtype, objects: tuple[int, ...], lengths: tuple[int, ...], result: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows: so many objects followed through so many frames. A short one is followed first, to warm up."""
    tracker = Sam2Tracker(video_model(shape, dtype))
    result["parameters"]["SAM 2 for videos"] = count(tracker.model)
    result["window"] = tracker.window
    weights = sum(p.numel() * p.element_size() for p in tracker.model.parameters()) / 2**20
    tracker.track(frames_of(shape, 3), seeds_of(shape, 1))
    for number in objects:
        for length in lengths:
            release(shape)
            frames, stamps = frames_of(shape, length), []
            with peak(shape) as held:
                start = time.perf_counter()
                for _ in tracker.follow(frames, seeds_of(shape, number), range(length)):
                    synchronise(shape)
                    stamps.append(time.perf_counter())
            each = np.diff([start, *stamps])
            steady = each[min(tracker.window, length // 2) :]
            row = {"objects": number, "frames": length, "seconds": stamps[-1] - start}
            row |= {"frame_s": float(statistics.median(steady)), "MiB": held["MiB"], "weights_MiB": weights}
            yield row | {"above_weights_MiB": held["MiB"] - (0 if shape.device == "cpu" else weights)}


def seeds_of(shape: Shape, number: int) -> dict[int, Seed]:
    return {k + 1: Seed(0, Prompt(box=box)) for k, box in enumerate(boxes_of(shape, number))}


def boxes_of(shape: Shape, number: int) -> list[tuple[float, float, float, float]]:
    """Boxes side by side, which overlap by half."""
    height, width = shape.size
    step = width / (number + 1)
    return [(k * step, 0.1 * height, (k + 2) * step, 0.9 * height) for k in range(number)]


def frames_of(shape: Shape, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (length, *shape.size, 3), np.uint8)


def picture_model(shape: Shape, dtype: torch.dtype) -> Sam2Model:
    config = Sam2Config(
        vision_config=vision(shape),
        prompt_encoder_config=Sam2PromptEncoderConfig(**shape.prompts),
        mask_decoder_config=Sam2MaskDecoderConfig(**shape.decoder),
    )
    return built(shape, dtype, lambda: Sam2Model(config))


def video_model(shape: Shape, dtype: torch.dtype) -> Sam2VideoModel:
    config = Sam2VideoConfig(
        vision_config=vision(shape),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(**shape.prompts),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(**shape.decoder),
        image_size=shape.side,
        **shape.memory,
    )
    return built(shape, dtype, lambda: Sam2VideoModel(config))


def vision(shape: Shape) -> Sam2VisionConfig:
    return Sam2VisionConfig(
        backbone_config=Sam2HieraDetConfig(image_size=[shape.side, shape.side], **shape.hiera),
        backbone_channel_list=shape.hiera["embed_dim_per_stage"][::-1],
        backbone_feature_sizes=[[shape.side // n, shape.side // n] for n in (4, 8, 16)],
        fpn_hidden_size=shape.fpn,
    )


def detector_of(shape: Shape) -> GroundingDino:
    """In float32, as throughmask runs it; its tokenizer knows BERT's number of words, and none of them."""
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(out_features=["stage2", "stage3", "stage4"], **shape.swin),
        text_config=BertConfig(**shape.bert),
        **shape.dino,
    )
    words = {**{f"[unused{k}]": k for k in range(30522) if k not in SPECIAL.values()}, **SPECIAL}
    inner = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", SPECIAL["[SEP]"]), ("[CLS]", SPECIAL["[CLS]"]))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    model = built(shape, torch.float32, lambda: GroundingDinoForObjectDetection(config))
    return GroundingDino(model, tokenizer, GroundingDinoImageProcessorPil(size=shape.shown), name="random")


def built(shape: Shape, dtype: torch.dtype, make: Callable[[], torch.nn.Module]) -> Any:
    torch.manual_seed(0)
    with torch.device(shape.device):
        model = make()
    return model.to(shape.device, dtype).eval()


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@contextmanager
def peak(shape: Shape) -> Iterator[dict[str, float]]:
    """The most that the device holds at once, in MiB: on a GPU with the weights, on the CPU what comes on top."""
    held = {"MiB": 0.0}
    if shape.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield held
        held["MiB"] = torch.cuda.max_memory_allocated() / 2**20
        return
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        yield held
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    held["MiB"] = most / 2**20


def release(shape: Shape) -> None:
    gc.collect()
    if shape.device == "cuda":
        torch.cuda.empty_cache()


def synchronise(shape: Shape) -> None:
    if shape.device == "cuda":
        torch.cuda.synchronize()


def to_table(result: dict[str, Any]) -> str:
    sizes = ", ".join(f"{name} {number:,}" for name, number in result["parameters"].items())
    height, width = result["size"]
    lines = [
        f"{result['machine']}, torch {result['torch']}, transformers {result['transformers']}; {height}×{width}, SAM 2 "
        f"in {result['dtype']}, Grounding DINO in float32, random weights ({sizes} parameters); {result['seconds']} s "
        "in all"
    ]
    if result["pictures"]:
        lines += ["", "|objects|phrases|detect s|detect MiB|segment s|segment MiB|", "|---" * 6 + "|"]
        for row in result["pictures"]:
            cells = [f"{row['detect_s']:.3f}", f"{row['detect_MiB']:.1f}"]
            cells += [f"{row['segment_s']:.3f}", f"{row['segment_MiB']:.1f}"]
            lines.append("|" + "|".join([str(row["objects"]), str(row["phrases"]), *cells]) + "|")
    if result["videos"]:
        head = "objects|frames|seconds a frame|seconds in all|peak MiB|above the weights MiB"
        lines += ["", f"SAM 2 remembers {result['window']} frames.", "", f"|{head}|", "|---" * 6 + "|"]
        for row in result["videos"]:
            cells = [f"{row['frame_s']:.3f}", f"{row['seconds']:.1f}"]
            cells += [f"{row['MiB']:.1f}", f"{row['above_weights_MiB']:.1f}"]
            lines.append("|" + "|".join([str(row["objects"]), str(row["frames"]), *cells]) + "|")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
