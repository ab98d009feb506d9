from __future__ import annotations

from typing import Any

import pytest

from appliance.models.convert.refused import Refused
from appliance.models.convert.tokenizer import token_ids, tokenizer_files
from tests.models.gguf_builder import charsmap, tiny, tiny_encoder


def metadata(**changes: Any) -> dict[str, Any]:
    return dict(tiny().with_metadata(**changes).metadata)


def built(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = tokenizer_files(metadata(**changes))["tokenizer.json"]
    return value


def test_vocabulary_keeps_every_tokens_number() -> None:
    tokens = metadata()["tokenizer.ggml.tokens"]
    assert built()["model"]["vocab"] == {token: index for index, token in enumerate(tokens)}
    assert ["th", "e"] in built()["model"]["merges"]


def test_control_tokens_are_special_and_user_defined_ones_are_not() -> None:
    kinds = [3, 4, 3] + [1] * (len(metadata()["tokenizer.ggml.tokens"]) - 3)
    added = built(tokenizer__ggml__token_type=kinds)["added_tokens"]
    assert [(token["content"], token["special"]) for token in added] == [
        ("<|endoftext|>", True),
        ("<|im_start|>", False),
        ("<|im_end|>", True),
    ]


@pytest.mark.parametrize(
    ("pre", "steps"),
    [
        ("smollm", ["Digits", "ByteLevel"]),
        ("gpt-2", []),
        ("qwen2", ["Split", "ByteLevel"]),
        ("llama-bpe", ["Split", "ByteLevel"]),
        ("tekken", ["Split", "ByteLevel"]),
        ("gpt-4o", ["Split", "ByteLevel"]),
        ("dbrx", ["Split", "ByteLevel"]),
    ],
)
def test_pre_tokenizer_is_the_one_that_the_file_names(pre: str, steps: list[str]) -> None:
    rule = built(tokenizer__ggml__pre=pre)["pre_tokenizer"]
    assert [each["type"] for each in rule.get("pretokenizers", [])] == steps
    assert rule["type"] == ("Sequence" if steps else "ByteLevel")


def test_missing_pre_tokenizer_is_refused_rather_than_guessed() -> None:
    with pytest.raises(Refused, match="`default`") as caught:
        built(tokenizer__ggml__pre=None)
    assert "smollm" in str(caught.value.hint)


@pytest.mark.parametrize(("pre", "whole"), [("llama-bpe", True), ("tekken", True), ("gpt-4o", False), ("dbrx", False)])
def test_a_word_that_is_a_token_is_taken_whole_where_the_family_does_so(pre: str, whole: bool) -> None:
    assert built(tokenizer__ggml__pre=pre)["model"]["ignore_merges"] is whole


@pytest.mark.parametrize(
    ("changes", "template"),
    [
        ({}, None),
        ({"tokenizer__ggml__add_bos_token": True}, ["<|im_start|>", "A"]),
        (
            {"tokenizer__ggml__add_bos_token": True, "tokenizer__ggml__add_eos_token": True},
            ["<|im_start|>", "A", "<|im_end|>"],
        ),
        ({"tokenizer__ggml__pre": "llama-bpe", "tokenizer__ggml__add_bos_token": None}, ["<|im_start|>", "A"]),
        ({"tokenizer__ggml__pre": "llama-bpe", "tokenizer__ggml__add_bos_token": False}, None),
        ({"tokenizer__ggml__pre": "tekken", "tokenizer__ggml__add_bos_token": None}, ["<|im_start|>", "A"]),
        ({"tokenizer__ggml__pre": "gpt-4o", "tokenizer__ggml__add_bos_token": None}, None),
        ({"tokenizer__ggml__pre": "dbrx", "tokenizer__ggml__add_bos_token": None}, None),
    ],
)
def test_texts_begin_and_end_as_the_file_asks(changes: dict[str, Any], template: list[str] | None) -> None:
    processor = built(**changes)["post_processor"]
    if template is None:
        assert processor["type"] == "ByteLevel"
        return
    single = processor["processors"][1]["single"]
    assert [next(iter(each.values()))["id"] for each in single] == template


def test_special_tokens_are_named_in_the_configuration() -> None:
    config = tokenizer_files(metadata())["tokenizer_config.json"]
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert config["model_max_length"] == 256


def test_one_end_is_a_number_and_several_are_a_list() -> None:
    assert token_ids(metadata())["eos_token_id"] == 2
    assert token_ids(metadata(tokenizer__ggml__eot_token_id=2))["eos_token_id"] == 2
    assert token_ids(metadata(tokenizer__ggml__eot_token_id=1))["eos_token_id"] == [2, 1]


def sentencepiece(**changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = tokenizer_files(dict(tiny(spm=True).with_metadata(**changes).metadata))["tokenizer.json"]
    return value


def test_sentencepiece_merges_follow_from_the_scores() -> None:
    built = sentencepiece()
    space = "\u2581"
    merges = [tuple(each) for each in built["model"]["merges"]]
    assert merges.index((space, "t")) < merges.index(("h", "e")) < merges.index((f"{space}t", "he"))
    assert (f"{space}th", "e") in merges
    assert not any("<0x" in part for merge in merges for part in merge)
    assert (built["model"]["byte_fallback"], built["model"]["unk_token"]) == (True, "<unk>")


def test_sentencepiece_puts_a_space_first_unless_the_file_says_otherwise() -> None:
    assert [each["type"] for each in sentencepiece()["normalizer"]["normalizers"]] == ["Prepend", "Replace"]
    without = sentencepiece(tokenizer__ggml__add_space_prefix=False)
    assert without["normalizer"]["type"] == "Replace"
    assert "Strip" not in [each["type"] for each in without["decoder"]["decoders"]]


def test_sentencepiece_begins_texts_by_default() -> None:
    silent = sentencepiece(tokenizer__ggml__add_bos_token=None)
    assert silent["post_processor"]["single"][0]["SpecialToken"]["id"] == "<s>"
    assert sentencepiece(tokenizer__ggml__add_bos_token=False)["post_processor"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer__ggml__scores": None},
        {"tokenizer__ggml__scores": [0.0]},
        {"tokenizer__ggml__scores": [float("nan")] * len(tiny(spm=True).metadata["tokenizer.ggml.tokens"])},
        {"tokenizer__ggml__scores": ["x"] * len(tiny(spm=True).metadata["tokenizer.ggml.tokens"])},
    ],
)
def test_senseless_scores_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="scores"):
        sentencepiece(**changes)


def encoder(*, spm: bool = False, **changes: Any) -> dict[str, Any]:
    files = tokenizer_files(dict(tiny_encoder(spm=spm).with_metadata(**changes).metadata))
    value: dict[str, Any] = {**files["tokenizer.json"], "config": files["tokenizer_config.json"]}
    return value


def test_wordpiece_has_berts_own_spelling_again() -> None:
    built = encoder()
    vocabulary = built["model"]["vocab"]
    assert [vocabulary[each] for each in ("[CLS]", "[unused0]", "the", "##ing")] == [2, 5, 6, 39]
    assert built["normalizer"]["lowercase"] is True
    single = [next(iter(each.values())) for each in built["post_processor"]["single"]]
    assert [each["id"] for each in single] == ["[CLS]", "A", "[SEP]"]
    types = [next(iter(each.values()))["type_id"] for each in built["post_processor"]["pair"]]
    assert types == [0, 0, 0, 1, 1]
    assert built["config"]["mask_token"] == "[MASK]"


def test_wordpiece_tells_cases_apart_where_its_vocabulary_does() -> None:
    tokens = tiny_encoder().metadata["tokenizer.ggml.tokens"]
    cased = [f"{tokens[6]}X".replace("the", "The") if index == 6 else token for index, token in enumerate(tokens)]
    assert encoder(tokenizer__ggml__tokens=cased)["normalizer"]["lowercase"] is False


def test_wordpiece_finds_its_special_tokens_by_their_names_where_the_file_is_silent() -> None:
    parts = ("cls", "seperator", "unknown", "padding", "mask")
    silent: dict[str, Any] = dict.fromkeys(f"tokenizer__ggml__{part}_token_id" for part in parts)
    assert encoder(**silent)["post_processor"] == encoder()["post_processor"]
    tokens = ["[X]" if each == "[SEP]" else each for each in tiny_encoder().metadata["tokenizer.ggml.tokens"]]
    with pytest.raises(Refused, match="SEP"):
        encoder(**silent, tokenizer__ggml__tokens=tokens)


def test_unigram_model_is_its_scores() -> None:
    built = encoder(spm=True)
    vocabulary = built["model"]["vocab"]
    assert (vocabulary[4], built["model"]["unk_id"]) == (["\u2581the", -1.0], 3)
    assert vocabulary[-2] == ["[PAD0]", min(score for _, score in vocabulary)]
    assert min(score for _, score in vocabulary) > -1000
    pair = [next(iter(each.values())) for each in built["post_processor"]["pair"]]
    assert [each["id"] for each in pair] == ["<s>", "A", "</s>", "</s>", "B", "</s>"]
    assert {each["type_id"] for each in pair} == {0}


def test_unigram_model_knows_what_to_make_of_the_unknown() -> None:
    kinds = tiny_encoder(spm=True).metadata["tokenizer.ggml.token_type"]
    silent: dict[str, Any] = {"tokenizer__ggml__unknown_token_id": None}
    assert encoder(spm=True, **silent)["model"]["unk_id"] == 3
    with pytest.raises(Refused, match="no other covers"):
        encoder(spm=True, **silent, tokenizer__ggml__token_type=[1 if kind == 2 else kind for kind in kinds])


def test_t5_ends_its_texts_and_begins_none() -> None:
    silent = dict.fromkeys(("tokenizer__ggml__add_bos_token", "tokenizer__ggml__add_eos_token"))
    metadata = dict(tiny_encoder(spm=True).with_metadata(**silent).metadata) | {"general.architecture": "t5"}
    processor = tokenizer_files(metadata)["tokenizer.json"]["post_processor"]
    assert [next(iter(each.values()))["id"] for each in processor["single"]] == ["A", "</s>"]


@pytest.mark.parametrize(
    "table",
    [
        [1, 2, 3],
        [0] * 100,
        list(charsmap({"A": "a"}))[:-3],
        [255] * 4096,
        [*charsmap({"A": "a"})[:4], *[255, 255, 255, 127] * 512, 0],
        [*charsmap({"A": "a"})[:-2], 255, 254, 0],
        [300] * 4096,
        [[1]],
        ["x"],
    ],
)
def test_senseless_normalization_is_refused_before_a_library_meets_it(table: list[Any]) -> None:
    with pytest.raises(Refused, match="precompiled_charsmap"):
        encoder(spm=True, tokenizer__ggml__precompiled_charsmap=table)


def test_unknown_kind_of_tokenizer_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refused, match="`rwkv`") as caught:
        built(tokenizer__ggml__model="rwkv")
    assert "WordPiece" in str(caught.value.hint)
