"""Run inside an engine environment: writes a model that looks and one that listens, random weights of two megabytes.

    python media_models.py DIRECTORY     # DIRECTORY/eyes, an Idefics 3, and DIRECTORY/ears, a Whisper

Bytes are their words. Weights are so large that what they see or hear makes a difference to what they say.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.whisper.tokenization_whisper import LANGUAGES

SPREAD = 0.5
WORDS = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}

EDGE, PATCH, MERGED = 56, 14, 2
"""Pixels of a picture and of one of its patches, and how many patches become one along each side."""
PICTURE = ("<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>")
TEMPLATE = (
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)

END, START = "<|endoftext|>", "<|startoftranscript|>"
TASKS = ("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>")


def eyes(directory: Path) -> None:
    tokenizer = _reader()
    size = {"longest_edge": EDGE}
    images = Idefics3ImageProcessorPil(size=size, max_image_size=size, do_image_splitting=False)
    length = (EDGE // PATCH // MERGED) ** 2
    Idefics3Processor(images, tokenizer, image_seq_len=length, chat_template=TEMPLATE).save_pretrained(directory)
    common = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "initializer_range": SPREAD,
    }
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 512, "pad_token_id": tokenizer.pad_token_id}
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=MERGED,
        pad_token_id=tokenizer.pad_token_id,
        vision_config={**common, "image_size": EDGE, "patch_size": PATCH},
        text_config={**common, **text, "model_type": "llama", "num_key_value_heads": 2},
    )
    Idefics3ForConditionalGeneration(config).save_pretrained(directory)


def _reader() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE(vocab=WORDS, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    found.add_special_tokens({"additional_special_tokens": [*PICTURE, *rows]})
    return found


def ears(directory: Path) -> None:
    tokenizer = _listener()
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(directory)
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
        init_std=SPREAD,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids(START),
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config.suppress_tokens = model.generation_config.begin_suppress_tokens = None
    model.save_pretrained(directory)


def _listener() -> WhisperTokenizer:
    """The rest of its tokens tell it what to do, and when what was said."""
    tokenizer = WhisperTokenizer(vocab={**WORDS, END: len(WORDS)}, merges=[])
    languages = [f"<|{language}|>" for language in LANGUAGES]
    tokenizer.add_special_tokens({"additional_special_tokens": [START, *languages, *TASKS]})
    tokenizer.add_tokens([f"<|{moment * 0.02:.2f}|>" for moment in range(1501)])
    return tokenizer


if __name__ == "__main__":
    torch.manual_seed(1)
    eyes(Path(sys.argv[1], "eyes"))
    ears(Path(sys.argv[1], "ears"))
