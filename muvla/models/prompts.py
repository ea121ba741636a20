"""Instructions to token ids: the sentence around an instruction and the tokenizer that splits it.

The built-in tokenizer ships with the package (no download). It is a byte-level BPE trained on the suites' instructions
by `scripts/build_tokenizer.py`; being byte-level, it encodes any other text too, in more tokens. A released checkpoint
brings Llama's own, and the prompt that it was trained with (spec 1.4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from muvla.errors import MuvlaError

# Special tokens of the built-in tokenizer, in id order.
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>", "<empty>")
RELEASED_PROMPT = "In: What action should the robot take to {instruction}?\nOut:"
LLAMA_EMPTY = "▁"  # 29871 in Llama's vocabulary


@dataclass(frozen=True, eq=False)
class Prompts:
    """`empty` closes every prompt: it is the row in which the action head starts to read (spec 1.4, 1.6)."""

    tokenizer: Tokenizer
    template: str
    bos: int
    stop: int
    pad: int
    empty: int
    _known: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def encode(self, instruction: str) -> tuple[int, ...]:
        """Ids of one prompt, its instruction lower-cased, closed by `empty`; without BOS, which stands before the
        image. Raises MuvlaError for an empty instruction."""
        if not instruction.strip():
            raise MuvlaError("instruction", got=instruction, expected="a sentence", remedy="give the task one")
        if instruction not in self._known:
            prompt = self.template.format(instruction=instruction.strip().lower())
            ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
            self._known[instruction] = (*ids, *([self.empty] if ids[-1] != self.empty else []))
        return self._known[instruction]

    def encode_batch(self, instructions: list[str], length: int, padded: bool = True) -> tuple[Tensor, Tensor]:
        """(B, T = length) ids padded on the left, and (B,) true lengths.

        Raises MuvlaError for one that does not fit, or that would need padding in a batch shape declared without it.
        """
        rows = [self.encode(text) for text in instructions]
        for text, row in zip(instructions, rows, strict=True):
            if len(row) > length or (len(row) < length and not padded):
                raise MuvlaError(
                    "instruction",
                    got=f"{len(row)} tokens: {text!r}",
                    expected=f"{'at most' if padded else 'exactly'} {length}, as in the training data",
                    remedy="train with a larger model.prompt_tokens, or evaluate on tasks that its data hold",
                )
        ids = torch.tensor([[self.pad] * (length - len(row)) + list(row) for row in rows])
        return ids, torch.tensor([len(row) for row in rows])


@lru_cache(maxsize=1)
def built_in() -> Prompts:
    """The instruction and nothing around it, by the tokenizer of this package."""
    text = resources.files("muvla.models").joinpath("tokenizer.json").read_text(encoding="utf-8")
    return Prompts(Tokenizer.from_str(text), "{instruction}", *range(len(SPECIAL_TOKENS)))


def released(path: Path) -> Prompts:
    """The released prompt by the `tokenizer.json` of a checkpoint. Raises MuvlaError for one that is missing, or that
    splits the prompt otherwise than Llama's does."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise MuvlaError(
            str(path),
            got=f"unreadable ({error})",
            expected="a tokenizer of Llama's kind",
            remedy="download the checkpoint's tokenizer.json",
        ) from None
    named = {name: tokenizer.token_to_id(name) for name in ("<s>", "</s>", "<PAD>", LLAMA_EMPTY)}
    pieces = tokenizer.encode(RELEASED_PROMPT.format(instruction="x"), add_special_tokens=False).tokens
    if None in named.values() or pieces[:1] != ["▁In"] or pieces[-2:] != ["Out", ":"]:
        raise MuvlaError(
            str(path),
            got=f"{named}, the prompt split as {pieces}",
            expected="<s>, </s>, <PAD> and ▁, and the prompt split as ▁In … Out :",
            remedy="take the tokenizer.json of the same checkpoint",
        )
    return Prompts(tokenizer, RELEASED_PROMPT, *named.values())
