"""Tiny instances of transformers' own Grounding DINO and SAM 2 (for pictures, for videos), with random weights."""

import torch
from transformers import (
    BertConfig,
    BertTokenizerFast,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
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

SIDE = 64
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?"]
WORDS = [*SPECIAL, "a", "cat", "dog", "red", "blue", "ball", "left", "flock", "of", "bird", "##s"]
PROMPTS = {"hidden_size": 128, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8}
DECODER = {"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32}


def tiny_detector() -> tuple:
    """Grounding DINO, its tokenizer and its image processor."""
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=32,
            patch_size=4,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            window_size=2,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        num_queries=9,
        max_text_len=16,
        encoder_n_points=2,
        decoder_n_points=2,
        disable_custom_kernels=True,
    )
    tokenizer = BertTokenizerFast(vocab={word: k for k, word in enumerate(WORDS)})
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    return GroundingDinoForObjectDetection(config).eval(), tokenizer, processor


def tiny_picture_model() -> Sam2Model:
    torch.manual_seed(1)
    config = Sam2Config(
        vision_config=_vision(),
        prompt_encoder_config=Sam2PromptEncoderConfig(**PROMPTS),
        mask_decoder_config=Sam2MaskDecoderConfig(**DECODER),
    )
    return Sam2Model(config).eval()


def tiny_video_model(**options: bool) -> Sam2VideoModel:
    """It remembers 4 frames. options: of its configuration."""
    torch.manual_seed(2)
    config = Sam2VideoConfig(
        vision_config=_vision(),
        prompt_encoder_config=Sam2VideoPromptEncoderConfig(**PROMPTS),
        mask_decoder_config=Sam2VideoMaskDecoderConfig(**DECODER),
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[SIDE // 16, SIDE // 16],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
        memory_fuser_num_layers=1,
        num_maskmem=3,
        max_object_pointers_in_encoder=4,
        **options,
    )
    return Sam2VideoModel(config).eval()


def trained_video_model(newer: bool) -> Sam2VideoModel:
    """One that heeds what it remembers, none of whose weights are 0. newer: with what only SAM 2.1 has."""
    model = tiny_video_model(
        enable_temporal_pos_encoding_for_object_pointers=newer, enable_occlusion_spatial_embedding=newer
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if not values.any():
                values.normal_(std=0.02)
            if values.dim() > 1 and name.startswith(("memory", "object_pointer", "temporal")):
                values.mul_(5)
    return model


def _vision() -> Sam2VisionConfig:
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        image_size=[SIDE, SIDE],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[4, 4, 4, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )
    return Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[SIDE // n, SIDE // n] for n in (4, 8, 16)],
        fpn_hidden_size=128,
    )
