"""A sweep that is killed at any file operation continues to the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = {"rename", "write", "fsync", "open", "unlink", "mkdir"}


def kill_a_sweep(folder, of_each):
    """Points, all operations, and what differs from the undisturbed end: in a process without what other tests left."""
    command = [sys.executable, "-m", "helpers.killed_sweep", str(folder), str(of_each)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert set(result["operations"]) == KINDS
    return result["points"], result["operations"], result["faults"]


@pytest.mark.slow
def test_a_sweep_that_is_killed_at_a_file_operation_ends_in_the_same_bytes(tmp_path):
    """One operation of every kind."""
    points, _, faults = kill_a_sweep(tmp_path, 1)
    assert len(points) == len(KINDS)
    assert not faults


@pytest.mark.fuzz
def test_many_kill_points(tmp_path, capsys):
    points, operations, faults = kill_a_sweep(tmp_path, 12)
    assert not faults
    with capsys.disabled():
        print(f"\n{len(points)} of {len(operations)} file operations: all ends equal")
