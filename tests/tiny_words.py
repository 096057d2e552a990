"""What train toybox-words writes, with random weights."""

from pathlib import Path


def save_tiny_words(folder: Path) -> Path:
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    from throughmask.backbones.wan import byte_tokenizer
    from throughmask.perception.segmenter import PhraseSegmenter

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    text = UMT5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    tokenizer.save_pretrained(folder / "tokenizer")
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    PhraseSegmenter(text_dim=32, widths=(8, 8, 16, 16), num_blocks=1, num_heads=2).save_pretrained(folder / "segmenter")
    return folder
