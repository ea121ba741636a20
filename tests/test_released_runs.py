"""A released directory, evaluated and intervened upon from the command line, in an environment of its robot's kind."""

import json

import pytest
import torch

from helpers import released
from helpers.errors import printed_field
from helpers.release_size import SIZE
from helpers.released_runs import run
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.cli.output import EXIT_MISSING
from muvla.evaluation.records import read_rows
from muvla.runs.run import NOT_A_MEASUREMENT, Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_release")]


def test_a_release_is_evaluated_and_intervened_upon(tmp_path, capsys):
    """At 128 pixels, which only the released pipeline brings to the model's size; its rows say what made them."""
    path = released.write(tmp_path / "release")
    assert run(tmp_path, "evaluate", path) == 0
    assert "released@1 none" in capsys.readouterr().out
    assert run(tmp_path, "intervene", path, "noise_unit") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    files = {p.stem: read_rows(p) for p in (folder / "rows").glob("*.jsonl")}
    by_kind = {rows[0].intervention: rows for rows in files.values()}
    assert {kind: len(rows) for kind, rows in by_kind.items()} == {"none": 4, "noise_unit": 4}
    for row in by_kind["none"]:
        assert row.train == folder.name and row.training_seed is None and row.error is None
    assert run(tmp_path, "evaluate", path) == 0
    assert sum(len(read_rows(p)) for p in (folder / "rows").glob("*.jsonl")) == 8, "what is done is not run again"
    assert main(["verify", folder.name, "--runs", str(tmp_path / "runs")]) == 0
    meta = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps(meta | {"statistics": "another"}))
    assert main(["verify", folder.name, "--runs", str(tmp_path / "runs")]) == EXIT_MISSING


def test_what_decides_nothing_makes_no_other_run(tmp_path):
    path = released.write(tmp_path / "release")
    run(tmp_path, "evaluate", path)
    (path / "README.md").write_text("a model card")
    (path / "optimizer--150000_checkpoint.pt").write_bytes(b"moments")
    run(tmp_path, "evaluate", path)
    (folder,) = (tmp_path / "runs").iterdir()
    told = json.loads((folder / "release.json").read_text())
    assert told["statistics"] == "mikasa_combined" and "memory_meta.json" in told["files"]
    assert told["name"] == told["path"] == str(path)
    assert "README.md" not in told["files"]


def test_other_weights_or_another_scale_are_another_run(tmp_path):
    for name, meta in (("a", {}), ("b", {"tbptt_length": 8})):
        run(tmp_path, "evaluate", released.write(tmp_path / name, **meta))
    path = released.write(tmp_path / "c")
    file = path / "dataset_statistics.json"
    file.write_text(json.dumps({"other": json.loads(file.read_text())["mikasa_combined"]}))
    run(tmp_path, "evaluate", path)
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_without_its_memory_a_muvla_release_is_openvla_oft(tmp_path, capsys):
    """A declared ablation, a run of its own; the one of an OFT release with the same files."""
    path, same = released.write(tmp_path / "muvla"), released.write(tmp_path / "oft", "oft")
    assert run(tmp_path, "evaluate", path, "--without-memory") == 0
    (folder,) = (tmp_path / "runs").iterdir()
    told = json.loads((folder / "release.json").read_text())
    assert told["memory"] == "left out" and not [name for name in told["files"] if "memory" in name]
    policies = [
        ReleasedCheckpoint(path, SIZE, without_memory=True).load_policy(),
        ReleasedCheckpoint(same, SIZE).load_policy(),
    ]
    values = [dict(p.named_parameters()) for p in policies]
    assert values[0].keys() == values[1].keys() and all(torch.equal(values[0][n], values[1][n]) for n in values[0])
    assert {p.config.guard for p in policies} == {"full"} and {p.memory.tokens for p in policies} == {0}
    assert run(tmp_path, "evaluate", same) == 0 and len(list((tmp_path / "runs").iterdir())) == 1
    assert run(tmp_path, "evaluate", path) == 0 and len(list((tmp_path / "runs").iterdir())) == 2
    assert run(tmp_path, "evaluate", same, "--without-memory") == EXIT_BAD_INPUT
    assert "--without-memory" in capsys.readouterr().err


def test_half_precision_is_another_run_with_nearly_the_same_actions(tmp_path):
    path = released.write(tmp_path / "x")
    assert run(tmp_path, "evaluate", path, "--precision", "bfloat16") == 0 and run(tmp_path, "evaluate", path) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2
    one, half = (ReleasedCheckpoint(path, SIZE).load_policy(p) for p in ("float32", "bfloat16"))
    assert half.head.fc_in.weight.dtype == torch.bfloat16 and half.head.norm_in.weight.dtype == torch.float32
    frames = torch.randint(0, 256, (2, 2, 3, 28, 28), dtype=torch.uint8)
    actions = []
    for policy in (one, half):
        with torch.no_grad():
            encoded = policy.encode(frames, torch.zeros(2, 7), *policy.encode_text(["Touch the cube."] * 2))
            actions.append(policy.step(encoded, policy.memory.read(policy.memory.init_state(2)).tokens).actions)
    torch.testing.assert_close(actions[0], actions[1], rtol=0.1, atol=0.05)
    assert not torch.equal(*actions) and actions[1].dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "more", "field"),
    [
        ("muvla", ["--statistics", "libero_combined"], "--statistics"),
        ("openvla", [], "x"),
    ],
)
def test_what_cannot_be_evaluated_is_one_error(tmp_path, capsys, kind, more, field):
    path = released.write(tmp_path / "x", kind)
    assert run(tmp_path, "evaluate", path, *more) == EXIT_BAD_INPUT
    assert printed_field(capsys).endswith(field)


def test_without_memory_there_is_no_intervention(tmp_path, capsys):
    assert run(tmp_path, "intervene", released.write(tmp_path / "x", "oft"), "noise_unit") == EXIT_BAD_INPUT
    assert printed_field(capsys)


def test_a_folder_that_is_no_release_is_one_error(tmp_path, capsys):
    for path in (tmp_path / "nowhere", tmp_path):
        assert run(tmp_path, "evaluate", path) == EXIT_BAD_INPUT
        assert printed_field(capsys) == str(path / "config.json")


def test_the_way_out_of_a_mark_is_one_that_a_release_has(tmp_path, capsys):
    path = released.write(tmp_path / "x")
    run(tmp_path, "evaluate", path)
    (folder,) = (tmp_path / "runs").iterdir()
    Run(tmp_path / "runs", tmp_path, folder.name).fail(NOT_A_MEASUREMENT, "a leak")
    assert run(tmp_path, "evaluate", path) == EXIT_BAD_INPUT
    assert str(folder) in capsys.readouterr().err
