"""A study of a mixture: from the plan to the report, one policy under a protocol per task, and what is refused."""

import dataclasses
import json

import pytest

from helpers.errors import printed_field
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from sweeps.loader import load_study

STUDY = """
from muvla.config import *
from muvla.config.sizes import get_size
from muvla.evaluation.catalog import get_protocol
from muvla.evaluation.protocol import Protocol
from sweeps.study import Study
base = Cell(
    model=ModelConfig(size=get_size("tiny"), chunk=1, reserve=4),
    data=DataConfig(
        DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=6),
        mixture=(DatasetConfig(TaskConfig("RecallColor3-v0", delay=(3, 4)), episodes=4, seed={seed}),),
    ),
    memory=MemoryConfig("tokens", 4), truncation=4, budget=BudgetConfig(slots=2, window=4, updates=2),
)
protocols = tuple(Protocol(f"short-{{name}}", 1, TaskConfig(name), 2, slots=2, step_limit=8)
                  for name in ("RecallPosition3-v0", "RecallColor3-v0"))
study = Study("mixed", "a mixture for tests", base,
    {{"by episode": {{}}, "by frame": {{"data.balance": "frame"}}}}, ("data.balance",), (0,), protocols)
"""


@pytest.mark.slow
def test_a_study_of_a_mixture_from_collection_to_report(tmp_path, capsys):
    place = ["--runs", str(tmp_path / "runs"), "--data", str(tmp_path / "data")]
    study = [str(tmp_path / "study.py"), *place]
    (tmp_path / "study.py").write_text(STUDY.format(seed=0))
    assert main(["sweep", *study, "--plan"]) == 0 and "not collected" in capsys.readouterr().out
    assert main(["diff", study[0], "by episode", "by frame", *study[1:]]) == 0
    assert "not collected" in capsys.readouterr().out
    assert main(["collect", *study]) == 0
    out = capsys.readouterr().out
    assert "6 episodes" in out and "4 episodes" in out and len(list((tmp_path / "data").iterdir())) == 2
    assert main(["sweep", *study, "--plan"]) == 0
    plan = capsys.readouterr().out
    for task in ("RecallPosition3-v0", "RecallColor3-v0"):
        assert f"{task}: Cue-to-decision pairs" in plan
    assert "balanced by episode, in seed 0's stream: RecallPosition3-v0 0.5" in plan and "balanced by frame" in plan
    assert main(["sweep", *study, "--no-tracking", "--processes", "1"]) == 0
    assert main(["train", *study]) == 0 and main(["report", *study]) == 0
    out = capsys.readouterr().out
    assert (
        "`by frame` against `by episode`: data.balance frame against episode."
        in next((tmp_path / "runs").glob("report/*/report.md")).read_text()
    )
    assert "short-RecallPosition3-v0@1" in out and "short-RecallColor3-v0@1" in out
    (run, _) = sorted((tmp_path / "runs").glob("*/run.json"))
    assert len(json.loads(run.read_text())["data"]) == 2
    again = [run.parent.name, "--protocol", "recall-color3-rh@1", *place]
    (one,) = (p for p in (tmp_path / "data").iterdir() if "Color" in p.name)
    actions = bytearray((one / "executed_action.bin").read_bytes())
    (one / "executed_action.bin").write_bytes(actions[4:] + actions[:4])
    assert main(["evaluate", *again]) == EXIT_BAD_INPUT
    assert printed_field(capsys).startswith(str(tmp_path / "data"))
    assert main(["train", *study, "--set", "budget.updates=3"]) == EXIT_BAD_INPUT
    assert printed_field(capsys).startswith(str(tmp_path / "data"))


def test_protocols_are_checked_against_every_dataset(tmp_path):
    (tmp_path / "study.py").write_text(STUDY.format(seed=4_242_424_242))
    with pytest.raises(MuvlaError) as info:
        load_study(tmp_path).check()
    assert info.value.field == "study mixed, protocol short-RecallPosition3-v0@1: seed"
    (tmp_path / "study.py").write_text(STUDY.format(seed=0).replace('RecallColor3-v0", delay', 'Elsewhere-v0", delay'))
    with pytest.raises(MuvlaError) as info:
        load_study(tmp_path).check()
    assert info.value.field == "task.name" and info.value.got == "Elsewhere-v0"
    (tmp_path / "study.py").write_text(STUDY.format(seed=0))
    study = load_study(tmp_path)
    study.check()
    alone = dataclasses.replace(study, base=replace(study.base, {"data.mixture": []}), variants={"alone": {}})
    with pytest.raises(MuvlaError) as info:
        alone.check()
    assert info.value.field == "study mixed, protocol short-RecallColor3-v0@1: task"
