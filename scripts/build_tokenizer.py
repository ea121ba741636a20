"""Rebuild muvla/models/tokenizer.json, the byte-level BPE over the suites' instructions."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from muvla.config.sizes import TINY
from muvla.envs.mikasa.instructions import INSTRUCTIONS as MIKASA
from muvla.envs.recall.colour import ColourRecall
from muvla.envs.recall.position import Position
from muvla.models.prompts import SPECIAL_TOKENS

# The sentences of later families are not among them: the tokenizer, and so every trained policy, stays.
RECALL = {family.family: family.instructions[0] for family in (Position, ColourRecall)}


def build() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(text.lower() for text in (MIKASA | RECALL).values()), trainer)
    return tokenizer


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "muvla" / "models" / "tokenizer.json"
    build().save(str(target), pretty=True)
    print(target)
