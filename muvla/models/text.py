"""Instructions to token ids, with a tokenizer that ships with the package (no download).

The file is a byte-level BPE trained on the suites' instructions by `scripts/build_tokenizer.py`; being byte-level, it
encodes any other text too, in more tokens.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import torch
from tokenizers import Tokenizer
from torch import Tensor

from muvla.errors import MuvlaError

# Special tokens in id order. EMPTY closes every prompt, as Llama's 29871 does in the published one (spec 1.4): it is
# the row in which the action head starts to read.
BOS, STOP, PAD, EMPTY = range(4)
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>", "<empty>")


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    text = resources.files("muvla.models").joinpath("tokenizer.json").read_text(encoding="utf-8")
    return Tokenizer.from_str(text)


@lru_cache(maxsize=4096)
def encode(instruction: str) -> tuple[int, ...]:
    """Ids of one instruction, lower-cased, closed by EMPTY; without BOS, which stands before the image."""
    if not instruction.strip():
        raise MuvlaError("instruction", got=instruction, expected="a sentence", remedy="give the task an instruction")
    return (*tokenizer().encode(instruction.strip().lower(), add_special_tokens=False).ids, EMPTY)


def encode_batch(instructions: list[str], length: int, padded: bool = True) -> tuple[Tensor, Tensor]:
    """(B, T = length) ids padded on the left, and (B,) true lengths.

    Raises MuvlaError for one that does not fit, or that would need padding in a batch shape declared without it.
    """
    rows = [encode(text) for text in instructions]
    for text, row in zip(instructions, rows, strict=True):
        if len(row) > length or (len(row) < length and not padded):
            raise MuvlaError(
                "instruction",
                got=f"{len(row)} tokens: {text!r}",
                expected=f"{'at most' if padded else 'exactly'} {length}, as in the training data",
                remedy="train on data that holds this instruction, or evaluate on a task that it holds",
            )
    ids = torch.tensor([[PAD] * (length - len(row)) + list(row) for row in rows])
    return ids, torch.tensor([len(row) for row in rows])
