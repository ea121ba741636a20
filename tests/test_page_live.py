"""The page of a study from its run folders: before, between and after its cells, and with episodes played again."""

from __future__ import annotations

import dataclasses

import pytest

from analysis.page import live
from analysis.page.live import LivePage, shown_intervention
from analysis.page.render import NAME
from helpers.html import parse
from helpers.studies import at, one_cell
from muvla.cli.main import main
from sweeps.launchers.local import LocalLauncher
from sweeps.ledger import Ledger
from sweeps.loader import load_study
from sweeps.work import bring_to_end


@pytest.fixture(scope="module")
def swept(study_file, tmp_path_factory):
    """(study of one cell, its page before and after the cell, with episodes)."""
    root = tmp_path_factory.mktemp("live")
    entry, job = one_cell(study_file, root)
    job = dataclasses.replace(job, missing=tuple(entry.missing()))
    page = LivePage([entry.study], Ledger(root / "runs", root / "data"), root / "report", "muvla sweep x")
    before = page.write().read_text(encoding="utf-8")
    bring_to_end(job, lambda *_: None, lambda: False)
    page.record_episodes(2, print)
    return entry, page, parse(before), parse(page.write().read_text(encoding="utf-8"))


def test_the_page_stands_before_the_first_cell_and_shows_the_task(swept):
    _, _, before, after = swept
    for page in (before, after):
        phases = [item.text for item in page.all("li") if list(item.all("img"))]
        assert phases[0] == "cue step 0" and any("decision" in phase for phase in phases)
    assert "1 of 1 cells planned" in before.text and "1 of 1 cells done" in after.text
    assert not list(before.all("circle")) and len(list(after.all("circle"))) >= 3  # a mark per metric


def test_the_page_shows_recorded_episodes_with_and_without_intervention(swept):
    entry, _, _, after = swept
    players = list(after.all("div", data_panel="films"))
    assert [player.attributes["data-number"] for player in players] == ["0", "1"]
    rows = {(name, row.seed): row for (_, name), several in entry.complete_rows().items() for row in several}
    for number, player in enumerate(players):
        panes = list(player.all("figure"))
        for name, pane in zip(("none", "zero"), panes, strict=True):
            row = rows[name, entry.study.protocols[0].seed + number]
            assert int(pane.attributes["data-frames"]) == row.steps
            assert ("success" in next(pane.all("figcaption")).text) == row.success_once
            assert len(list(pane.all("div", role="img"))) == 2  # the frames, and under attention


def test_episodes_are_played_once(swept, monkeypatch):
    _, page, _, _ = swept
    monkeypatch.setattr("analysis.page.films.replay_attended", lambda *_: pytest.fail("played again"))
    page.record_episodes(2, print)


def test_a_done_cell_is_read_once(swept, monkeypatch):
    _, page, _, _ = swept
    page.write()
    monkeypatch.setattr("sweeps.ledger.Entry.results", lambda *_: pytest.fail("read again"))
    page.write()


def test_a_slow_page_is_not_written_after_every_cell(swept, monkeypatch):
    entry, page, _, _ = swept
    now, written = [0.0], []
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])

    def write():
        written.append(now[0])
        now[0] += 3.0

    monkeypatch.setattr(page, "write", write)
    monkeypatch.setattr(page, "_next", 0.0)
    for moment in (0.0, 10.0, 32.9, 33.0, 50.0, 70.0):
        now[0] = moment
        page(entry)
    assert written == [0.0, 33.0, 70.0]  # 3 seconds of writing, then 30 seconds without


def test_a_page_that_cannot_be_written_is_a_warning(swept, monkeypatch):
    _, page, _, _ = swept
    monkeypatch.setattr(page, "write", lambda: 1 / 0)
    with pytest.warns(UserWarning, match="page"):
        assert page.show() is None


def test_the_intervention_beside_the_plain_run_has_a_donor_where_one_exists(study_file):
    study = load_study(study_file)
    assert shown_intervention(study) == "zero"
    assert shown_intervention(dataclasses.replace(study, interventions=("zero", "transplant"))) == "transplant"
    assert shown_intervention(dataclasses.replace(study, interventions=())) is None


def test_the_page_lies_beside_the_report(swept):
    _, page, _, _ = swept
    assert (page.folder / NAME).exists() and (page.folder / "filmstrip.json").exists()


def test_the_page_stands_before_any_cell_runs(study_file, tmp_path, monkeypatch):
    seen = []

    def run(self, jobs, *_):
        page = parse((tmp_path / "runs" / "report" / "tiny_study" / NAME).read_text(encoding="utf-8"))
        seen.append((len(jobs), page.text))

    monkeypatch.setattr(LocalLauncher, "run", run)
    main(["sweep", str(study_file), "--no-tracking", "--variant", "none", "--variant", "K=8", *at(tmp_path)])
    ((jobs, text),) = seen
    assert jobs == 2 and "2 of 2 cells planned" in text and "No cell has finished yet" in text
    assert load_study(study_file).title in text
