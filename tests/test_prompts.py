"""Prompts of other lengths than the training data's: declared before the training, and checked before an episode."""

from dataclasses import replace as replaced

import pytest
import torch

from helpers.studies import STUDY
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import canonical
from muvla.config.serialization import replace
from muvla.envs.registry import task_info
from muvla.errors import MuvlaError
from muvla.evaluation.catalog import declared_sets, get_protocol, get_protocols
from muvla.evaluation.context import EvaluationContext
from muvla.evaluation.evaluate import EvaluationRequest, evaluate, require_prompts
from muvla.models.prompts import built_in_prompts
from muvla.training.trainer import Trainer
from sweeps.loader import load_study

LONGER = replaced(get_protocol("recall-color3-rh@1"), name="longer", episodes=2, slots=2)  # 9 tokens, the data have 6


def test_declared_prompts_compute_the_same_and_leave_room(store, base):
    """Up to rounding: padding is not seen and has no position."""
    cell = replace(base, {"model.prompt_tokens": 12})
    plain, wide = Trainer(base, store), Trainer(cell, store)
    assert (plain.interface.text, plain.interface.text_padded) == (6, False)
    assert (wide.interface.text, wide.interface.text_padded) == (12, True)
    losses = [trainer.backward(trainer.stream.window(8)) for trainer in (plain, wide)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for a, b in zip(plain.parameters, wide.parameters, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)
    assert canonical(cell) != canonical(base)


def test_data_with_longer_prompts_than_declared_are_refused(store, base):
    with pytest.raises(MuvlaError) as info:
        Trainer(replace(base, {"model.prompt_tokens": 5}), store)
    assert info.value.field == "model.prompt_tokens"
    assert Trainer(replace(base, {"model.prompt_tokens": 6}), store).interface.text_padded


def run(trainer, folder, **options):
    request = EvaluationRequest(trainer.policy, trainer.statistics, LONGER, None, "abc", 0, (range(24),))
    return evaluate(request, folder, EvaluationContext(**options)).rows


def test_a_task_of_longer_prompts_is_evaluated_where_they_were_declared(store, base, tmp_path):
    rows = run(Trainer(replace(base, {"model.prompt_tokens": 9}), store), tmp_path)
    assert len(rows) == 2 and not any(row.error for row in rows)


def test_prompts_are_checked_before_an_environment_starts(store, base, tmp_path):
    def never(task, size):
        raise AssertionError

    with pytest.raises(MuvlaError) as info:
        run(Trainer(base, store), tmp_path, env_factory=never)
    assert info.value.field == "model.prompt_tokens"
    narrow = Trainer(replace(base, {"model.prompt_tokens": 8}), store).policy
    with pytest.raises(MuvlaError) as info:
        require_prompts(narrow, [LONGER])
    assert info.value.field == "model.prompt_tokens"


def test_every_angle_of_a_rotation_counts(store, base):
    """Of a whole set the longest is named, which is not the sentence that stands for its task."""
    policy = Trainer(base, store).policy
    told = max(len(built_in_prompts().encode(text)) for text in task_info("RotateStrictPosNeg-VLA-v0").instructions)
    assert told > len(built_in_prompts().encode(task_info("RotateStrictPosNeg-VLA-v0").instruction))
    with pytest.raises(MuvlaError) as info:
        require_prompts(policy, get_protocols("mikasa23-rh@1"))
    with pytest.raises(MuvlaError) as info:
        require_prompts(
            Trainer(replace(base, {"model.prompt_tokens": told - 1}), store).policy, get_protocols("mikasa23-rh@1")
        )
    assert info.value.field == "model.prompt_tokens"
    require_prompts(Trainer(replace(base, {"model.prompt_tokens": told}), store).policy, get_protocols("mikasa23-rh@1"))


def test_a_study_knows_the_declared_length(tmp_path):
    other = STUDY.format(updates=6).replace("recall-position3-rh@1", "recall-color3-rh@1")
    for tokens, fits in ((None, False), (8, False), (9, True)):
        declared = other.replace("chunk=1,", f"chunk=1, prompt_tokens={tokens},")
        (tmp_path / "study.py").write_text(declared)
        if fits:
            load_study(tmp_path).check()
            continue
        with pytest.raises(MuvlaError) as info:
            load_study(tmp_path).check()
        assert info.value.field == "study tiny_study, protocol few@1: task"


@pytest.mark.slow
def test_a_set_is_refused_before_its_first_task_runs(tmp_path, capsys, monkeypatch):
    (tmp_path / "study.py").write_text(STUDY.format(updates=2))
    at = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    assert main(["train", str(tmp_path), *at, "--variant", "K=8"]) == 0
    (run,) = (path.parent.name for path in (tmp_path / "runs").glob("*/run.json"))
    both = [get_protocol("recall-position3-rh@1"), LONGER]
    monkeypatch.setitem(declared_sets(), "both", both)
    capsys.readouterr()
    assert main(["evaluate", run, *at, "--protocol", "both"]) == EXIT_BAD_INPUT
    captured = capsys.readouterr()
    assert "model.prompt_tokens" in captured.err and not captured.out
    assert not list((tmp_path / "runs").glob("*/rows/*"))
