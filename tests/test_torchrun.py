"""The command line under torchrun: trained by two processes, one of them killed, stopped, and continued."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from helpers.errors import printed_field
from helpers.processes import torchrun
from helpers.studies import STUDY, at
from muvla.checkpoints import native as ckpt
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.runs.run import NOT_A_MEASUREMENT
from muvla.utils.io import read_json, read_lines

pytestmark = pytest.mark.slow
ENOUGH = 120  # seconds for what should end within a few


@pytest.fixture
def place(tmp_path):
    (tmp_path / "study.py").write_text(STUDY.format(updates=40))
    return tmp_path


def train(place, *options):
    return torchrun("-m", "muvla.cli", "train", str(place), *at(place), "--variant", "K=8", "--device", "cpu", *options)


def the_run(place) -> Path:
    (folder,) = (place / "runs").iterdir()
    return folder


def ranks_of(process) -> dict[int, int]:
    """Rank → process id of torchrun's children."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            rank = re.search(rb"(?:^|\0)RANK=(\d+)", (entry / "environ").read_bytes())
        except OSError:
            continue
        if parent == process.pid and rank:
            found[int(rank[1])] = int(entry.name)
    return found


def wait_for(there, process):
    deadline = time.monotonic() + ENOUGH
    while not there():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate(timeout=9)[1][-3000:]
        time.sleep(0.01)


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error: ")]


def newest(place) -> Path | None:
    runs = list((place / "runs").glob("*/checkpoints"))
    return ckpt.latest(runs[0]) if runs else None


@pytest.mark.parametrize(("victim", "options"), [(1, []), (0, ["--shard"])], ids=["rank 1", "rank 0, sharded"])
def test_a_killed_rank_ends_all_and_a_rerun_continues(place, victim, options):
    """One error line, no mark on the cell, and from its checkpoint any number of ranks goes on."""
    first = train(place, *options)
    wait_for(lambda: newest(place), first)
    os.kill(ranks_of(first)[victim], signal.SIGKILL)
    _, said = first.communicate(timeout=ENOUGH)
    assert first.returncode != 0
    (error,) = errors(said)
    assert "error: ranks: " in error and "continues" in error
    assert not (the_run(place) / "failure.json").exists()
    reached = ckpt.load(newest(place), ()).update
    assert 0 < reached < 40
    assert main(["train", str(place), *at(place), "--variant", "K=8", "--device", "cpu"]) == 0
    assert [row["update"] for row in read_lines(the_run(place) / "train.jsonl")] == [25, 40]
    kinds = [read_json(file).get("ranks") for file in (the_run(place) / "provenance").iterdir()]
    assert sorted(map(str, kinds)) == sorted(["None", "2 sharded" if options else "2 replicated"])


def test_a_stop_is_clean_and_two_ranks_continue_it(place):
    first = train(place)
    wait_for(lambda: newest(place), first)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=ENOUGH)
    assert first.returncode != 0 and not errors(said) and said.count("the same command continues") == 1, said
    second = train(place)
    out, said = second.communicate(timeout=ENOUGH)
    assert second.returncode == 0, said
    assert out.count("trained") == 1 and newest(place).name == "update-000040"
    assert [row["update"] for row in read_lines(the_run(place) / "train.jsonl")] == [25, 40]


def test_no_measurement_is_marked_once_and_said_once(place):
    run = train(place, "--set", "optimizer.lr=1e30", "--set", "optimizer.clip=null")
    _, said = run.communicate(timeout=ENOUGH)
    (error,) = errors(said)
    assert run.returncode != 0 and "expected finite numbers" in error
    assert read_json(the_run(place) / "failure.json")["kind"] == NOT_A_MEASUREMENT


def test_what_needs_several_ranks_or_one_says_so(place, capsys, monkeypatch):
    train_here = ["train", str(place), *at(place)]
    assert main([*train_here, "--shard", "--compile"]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "--shard"
    assert main([*train_here, "--shard"]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "--shard"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["sweep", str(place), *at(place)]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "torchrun"
