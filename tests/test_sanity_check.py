"""A sweep looks at an episode where nothing succeeded."""

import dataclasses

import pytest

from helpers.studies import one_cell
from muvla.runs.evaluate import Evaluator
from muvla.utils.io import read_json
from sweeps import sweep as run_module
from sweeps.launchers.base import End, Status
from sweeps.launchers.local import LocalLauncher
from sweeps.sweep import Finishing, SweepOptions
from sweeps.tracking.view import TrackingView
from sweeps.work import SANITY_CHECK, bring_to_end

pytestmark = pytest.mark.slow


def test_where_nothing_succeeds_an_episode_is_looked_at_once(study_file, tmp_path, monkeypatch):
    """Without intervention, after its last row; printed beside the cell's line. It fails nothing."""
    entry, job = one_cell(study_file, tmp_path)
    real = Evaluator.evaluate

    def hopeless(self, protocol, kind, *arguments):
        return [dataclasses.replace(row, success_once=False) for row in real(self, protocol, kind, *arguments)]

    monkeypatch.setattr(Evaluator, "evaluate", hopeless)
    assert bring_to_end(job, lambda *_: None, lambda: False) == Status.DONE
    ((protocol, lines),) = read_json(entry.run.folder / SANITY_CHECK)
    assert protocol == "few@1" and lines[0].startswith("Nothing succeeded. Episode ")
    assert len(lines) == 4 and "the pictures changed in" in lines[1]
    said = []

    def ended(self, jobs, on_tick, on_end, deadline):
        on_end(End(jobs[0], Status.DONE))

    monkeypatch.setattr(LocalLauncher, "run", ended)
    finishing = Finishing(TrackingView(None, tmp_path, entry.study), said.append, lambda _: None)
    run_module._run_cells([entry], SweepOptions(processes=1, track=False), finishing, None)
    assert said[1] == "\n".join([f"{entry.item.label}, {protocol}:", *lines])
    monkeypatch.setattr(Evaluator, "evaluate", lambda *_: [])
    assert bring_to_end(job, lambda *_: None, lambda: False) == Status.DONE
    assert not (entry.run.folder / SANITY_CHECK).exists(), "what was seen before is not said again"
