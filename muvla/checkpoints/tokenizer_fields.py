"""Rules of the files beside `tokenizer.json`: what they say must be what `tokenizer.json` does.

The published code builds its tokenizer from all of these files. The policy here reads `tokenizer.json` alone, and puts
BOS and the closing tokens itself (spec 1.4). A setting that would change the prompt's tokens is therefore refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from muvla.checkpoints.fields import FieldStatus, Irrelevant, Rules, Used, equal_to, judge

TOKENIZER_CONFIG, SPECIAL_TOKENS, ADDED_TOKENS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
LLAMA_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<PAD>", "unk_token": "<unk>"}
UNPADDED = Irrelevant("the prompt is neither padded nor cut by the tokenizer")
DECODING = Irrelevant("concerns the text of generated tokens alone")
LIBRARY = Irrelevant("a record of the library that wrote the file")


def judge_tokenizer_file(name: str, data: Mapping[str, Any], tokenizer: Tokenizer | None) -> Iterator[FieldStatus]:
    """Yields the status of every field of the file `name`; without a readable tokenizer, tokens are not compared."""
    if name == ADDED_TOKENS:
        rules: Rules = {text: _identifier_of(text, tokenizer) for text in data}
    else:
        rules = _special_rules(tokenizer)
        if name == TOKENIZER_CONFIG:
            rules = {**rules, **_config_rules(tokenizer)}
    yield from judge(name, data, rules)


def _special_rules(tokenizer: Tokenizer | None) -> Rules:
    listed = Used(lambda value: _all_special(value, tokenizer), "special tokens of tokenizer.json")
    return {
        **{name: Used(lambda value, text=text: _text(value) == text, repr(text)) for name, text in SPECIAL.items()},
        "additional_special_tokens": listed,
        "extra_special_tokens": listed,
    }


def _config_rules(tokenizer: Tokenizer | None) -> Rules:
    decoder = Used(lambda value: _agrees(value, tokenizer), "the added tokens of tokenizer.json")
    return {
        "tokenizer_class": equal_to(*LLAMA_CLASSES),
        "add_bos_token": equal_to(True, None),
        "add_eos_token": equal_to(False, None),
        "add_prefix_space": equal_to(True, None),
        "split_special_tokens": equal_to(False, None),
        "added_tokens_decoder": decoder,
        **dict.fromkeys(("model_max_length", "padding_side", "truncation_side", "padding", "truncation"), UNPADDED),
        **dict.fromkeys(("max_length", "stride", "pad_to_multiple_of", "model_input_names"), UNPADDED),
        **dict.fromkeys(("clean_up_tokenization_spaces", "spaces_between_special_tokens"), DECODING),
        **dict.fromkeys(("chat_template", "use_default_system_prompt", "response_schema"), DECODING),
        **dict.fromkeys(("processor_class", "auto_map", "name_or_path", "tokenizer_file", "backend"), LIBRARY),
        **dict.fromkeys(("special_tokens_map_file", "is_local", "image_processor_type"), LIBRARY),
        **dict.fromkeys(("legacy", "sp_model_kwargs", "from_slow"), Irrelevant("concerns tokenizer.model alone")),
    }


def _text(token: Any) -> Any:
    """Returns a token's text; files write it plainly, or as an object with `content`."""
    return token.get("content") if isinstance(token, dict) else token


def _identifier_of(text: str, tokenizer: Tokenizer | None) -> Used:
    there = None if tokenizer is None else tokenizer.token_to_id(text)
    fits = lambda value: tokenizer is None or (type(value) is int and value == there)  # noqa: E731
    return Used(fits, f"{there}, as tokenizer.json has it")


def _all_special(value: Any, tokenizer: Tokenizer | None) -> bool:
    tokens = list(value.values()) if isinstance(value, dict) else value
    if tokens is None or tokenizer is None:
        return True
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return isinstance(tokens, list) and all(isinstance(_text(x), str) and _text(x) in special for x in tokens)


def _agrees(value: Any, tokenizer: Tokenizer | None) -> bool:
    """True if every identifier of the object has the same text in the tokenizer's added tokens."""
    if not isinstance(value, dict) or tokenizer is None:
        return isinstance(value, dict)
    added = {str(number): token.content for number, token in tokenizer.get_added_tokens_decoder().items()}
    return all(number in added and _text(token) == added[number] for number, token in value.items())
