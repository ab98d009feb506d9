"""Run inside an engine environment: writes a Whisper of random weights, smaller than two megabytes.

python whisper.py DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

END = "<|endoftext|>"
START = "<|startoftranscript|>"
TASKS = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def write(directory: Path) -> None:
    tokenizer = _tokenizer()
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(directory)
    torch.manual_seed(1)
    end = tokenizer.convert_tokens_to_ids(END)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=64,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        init_std=0.5,  # so large that what it hears makes a difference to what it says
        decoder_start_token_id=tokenizer.convert_tokens_to_ids(START),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config.suppress_tokens = model.generation_config.begin_suppress_tokens = None
    model.save_pretrained(directory)


def _tokenizer() -> WhisperTokenizer:
    """Bytes are its words; the rest are the tokens that tell it what to do."""
    vocabulary = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(vocab={**vocabulary, END: len(vocabulary)}, merges=[])
    languages = [f"<|{language}|>" for language in LANGUAGES]
    tokenizer.add_special_tokens({"additional_special_tokens": [START, *languages, *TASKS]})
    tokenizer.add_tokens([f"<|{moment * 0.02:.2f}|>" for moment in range(1501)])
    return tokenizer


if __name__ == "__main__":
    write(Path(sys.argv[1]))
