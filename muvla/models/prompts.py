"""Instructions to token ids: the sentence around an instruction and the tokenizer that splits it.

The built-in tokenizer ships with the package (no download). It is a byte-level BPE trained on the suites' instructions
by `scripts/build_tokenizer.py`. As a byte-level tokenizer it encodes any other text too, in more tokens. A released
checkpoint brings Llama's tokenizer and the prompt of its training (spec 1.4).
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
from muvla.utils.content import require_real

# Special tokens of the built-in tokenizer, in id order.
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>", "<empty>")
RELEASED_PROMPT = "In: What action should the robot take to {instruction}?\nOut:"
LLAMA_EMPTY = "▁"  # 29871 in Llama's vocabulary


@dataclass(frozen=True, eq=False)
class Prompts:
    """A tokenizer with its prompt template.

    The token `empty` closes every prompt: the action head starts to read in its row (spec 1.4, 1.6).
    """

    tokenizer: Tokenizer
    template: str
    bos: int
    stop: int
    pad: int
    empty: int
    _encoded: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def encode(self, instruction: str) -> tuple[int, ...]:
        """Returns the ids of one prompt: lower-cased, closed by `empty`, without BOS (which stands before the image).

        Raises MuvlaError for an empty instruction.
        """
        if not instruction.strip():
            raise MuvlaError(
                "instruction", got=instruction, expected="a sentence", remedy="give the task an instruction"
            )
        if instruction not in self._encoded:
            prompt = self.template.format(instruction=instruction.strip().lower())
            ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
            self._encoded[instruction] = (*ids, *([self.empty] if ids[-1] != self.empty else []))
        return self._encoded[instruction]

    def encode_batch(self, instructions: list[str], length: int, padded: bool = True) -> tuple[Tensor, Tensor]:
        """Returns (B, T = length) ids padded on the left, and (B,) true lengths.

        Args:
            instructions: B texts.
            length: T.
            padded: False if the batch shape was declared without padding.

        Raises:
            MuvlaError: a prompt is too long, or needs padding in a batch shape without padding.
        """
        rows = [self.encode(text) for text in instructions]
        for text, row in zip(instructions, rows, strict=True):
            if len(row) > length or (len(row) < length and not padded):
                raise MuvlaError(
                    "instruction",
                    got=f"{len(row)} tokens: {text!r}",
                    expected=f"{'at most' if padded else 'exactly'} {length} tokens, as in the training data",
                    remedy="train with a larger model.prompt_tokens, or evaluate on tasks of the training data",
                )
        ids = torch.tensor([[self.pad] * (length - len(row)) + list(row) for row in rows])
        return ids, torch.tensor([len(row) for row in rows])


@lru_cache(maxsize=1)
def built_in_prompts() -> Prompts:
    """Returns the package's tokenizer with a template that adds nothing to the instruction."""
    text = resources.files("muvla.models").joinpath("tokenizer.json").read_text(encoding="utf-8")
    return Prompts(Tokenizer.from_str(text), "{instruction}", *range(len(SPECIAL_TOKENS)))


def load_released_prompts(path: Path) -> Prompts:
    """Returns the released prompt with the `tokenizer.json` of a checkpoint.

    Raises MuvlaError if the file is missing, or splits the prompt differently from Llama's tokenizer.
    """
    require_real(path, "Llama's tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise MuvlaError(
            str(path),
            got=f"unreadable ({error})",
            expected="Llama's tokenizer",
            remedy="take the tokenizer.json of the same checkpoint",
        ) from None
    tokenizer.no_truncation()  # the published code passes its own setting, and neither cuts nor pads
    tokenizer.no_padding()
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
