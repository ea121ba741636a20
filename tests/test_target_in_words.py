"""`data.instruction: with_target`: the target in the prompt, in training and evaluation, padded alike for a study."""

import dataclasses

import pytest

from muvla.config import DatasetConfig, TaskConfig, canonical, no_memory, tbptt
from muvla.config.serialization import content_hash, identity, replace
from muvla.data.collect import collect
from muvla.envs.registry import make_env
from muvla.envs.target_words import add_target
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.evaluate import evaluate_policy, require_prompts
from muvla.models.prompts import built_in_prompts
from muvla.training.trainer import Trainer
from sweeps.study import Study

SHORT = dataclasses.replace(get_protocol("recall-position3-rh@1"), name="short", episodes=4, slots=2)
WORDS = {"data.instruction": "with_target", "model.prompt_tokens": 10}


@pytest.fixture
def in_words(base):
    return replace(base, {**no_memory(), **WORDS, "truncation": 1})


def test_the_words_name_every_target_from_one_on():
    assert add_target({"instruction": "Touch it. ", "target": 1}) == "Touch it. Target 2."
    several = {"instruction": "Touch them.", "target": 3, "targets": (3, 0)}
    assert add_target(several) == "Touch them. Target 4 1."
    env = make_env(TaskConfig("RecallSequence3-v0"))
    texts = {add_target(env.reset(seed=seed)[1]) for seed in range(40)}
    assert len(texts) == 6 and len({len(built_in_prompts().encode(text)) for text in texts}) == 1


@pytest.mark.parametrize("facts", [{"target": None}, {}, {"target": 0, "targets": (0, None)}])
def test_an_unknown_target_is_refused(facts):
    with pytest.raises(MuvlaError) as info:
        add_target({"instruction": "Touch it."} | facts)
    assert info.value.field == "data.instruction"


def test_the_target_reaches_training_and_evaluation(store, in_words, monkeypatch):
    trainer = Trainer(in_words, store)
    assert trainer.interface.target_in_text and trainer.interface.text == 10 and trainer.interface.text_padded
    window = trainer.stream.window(8)
    for t, slot in ((0, 0), (3, 1), (7, 3)):
        line = store.index[int(window.episode[t, slot])]
        expected, _ = trainer.policy.encode_text([f"{line['instruction']} Target {line['target'] + 1}."])
        assert (window.text_ids[t, slot] == expected[0]).all()
    texts, encode = set(), trainer.policy.encode_text
    monkeypatch.setattr(trainer.policy, "encode_text", lambda given: texts.update(given) or encode(given))
    rows = evaluate_policy(trainer.policy, trainer.statistics, SHORT)
    assert texts == {f"Touch the marked disc. Target {row.target + 1}." for row in rows}


def test_the_target_decides_the_first_action_without_a_memory(store, in_words):
    """The knob bites: at one frame, other words give another action, and the plain instruction gives the same."""
    for cell, differs in ((in_words, True), (replace(in_words, {"data.instruction": "task"}), False)):
        trainer = Trainer(cell, store)
        texts = [trainer.interface.instruction({"instruction": "Touch it.", "target": target}) for target in range(3)]
        assert (len(set(texts)) == 3) == differs


def test_prompts_are_padded_alike_for_the_whole_study(base, in_words, store):
    with pytest.raises(MuvlaError) as info:
        replace(base, {"data.instruction": "with_target"})
    assert info.value.field == "model.prompt_tokens"
    plain = Trainer(replace(in_words, {"data.instruction": "task"}), store).interface
    assert dataclasses.replace(plain, target_in_text=True) == Trainer(in_words, store).interface
    variants = {"none": no_memory(), "K=8": tbptt(8, 4), "in words": no_memory() | {"data.instruction": "with_target"}}
    factors = ("memory.kind", "memory.m", "truncation", "data.instruction")
    padded = replace(base, {"model.prompt_tokens": 10, "data.dataset.seed": 7})
    study = Study("words", "?", padded, variants, factors, (0,), (SHORT,))
    study.check()
    with pytest.raises(MuvlaError) as info:
        dataclasses.replace(study, base=replace(padded, {"model.prompt_tokens": 9})).check()
    assert info.value.field.endswith("task")


def test_the_field_is_a_part_of_the_identity_and_absent_at_its_default(base, in_words):
    assert "instruction" not in identity(base.data) and "first_image" not in identity(base.data)
    plain = replace(in_words, {"data.instruction": "task"})
    assert content_hash(canonical(plain)) != content_hash(canonical(in_words))


def test_data_without_targets_and_prompts_that_are_too_long_are_refused(store, in_words, monkeypatch):
    policy = Trainer(in_words, store).policy
    require_prompts(policy, [SHORT])
    with pytest.raises(MuvlaError) as info:
        require_prompts(policy, [get_protocol("recall-color3-rh@1")])
    assert info.value.field == "model.prompt_tokens"
    with pytest.raises(MuvlaError) as info:
        Trainer(replace(in_words, {"model.prompt_tokens": 9}), store)
    assert info.value.field == "model.prompt_tokens"
    monkeypatch.setitem(store.index[0], "target", None)
    with pytest.raises(MuvlaError) as info:
        Trainer(in_words, store)
    assert info.value.field == "data.instruction"


def test_demonstrations_of_several_discs_record_them(tmp_path):
    collected = collect(DatasetConfig(TaskConfig("RecallCapacity5-v0"), episodes=3), tmp_path)
    assert all(len(line["targets"]) == 2 and line["targets"][0] == line["target"] for line in collected.index)
    plain = collect(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=3), tmp_path)
    assert not {"targets", "cued", "update_step"} & set(plain.index[0])
