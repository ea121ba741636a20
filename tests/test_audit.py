"""The label audit: what it must find, and what it must not."""

import pytest

from muvla.cli import EXIT_BAD_INPUT, main
from muvla.config import DatasetConfig, TaskConfig
from muvla.data.audit import audit
from muvla.data.collect import collect
from muvla.errors import MuvlaError


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return collect(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=150), tmp_path_factory.mktemp("audit"))


def test_never_executed_labels_tell_the_target_and_executed_ones_do_not(many):
    """The expert points at the marked disc while nothing is executed (spec 4.4); what is executed then is zero."""
    recorded, executed = audit(many, "recorded", 1), audit(many, "executed", 1)
    assert recorded.leaks and recorded.accuracy > 0.9
    assert not executed.leaks and executed.accuracy <= executed.chance + 0.1
    assert recorded.episodes == 150 and recorded.frames == int((many["phase"] < 3).sum())


def test_chunks_tell_it_by_looking_ahead(many):
    """Executed labels too, once a chunk of the delay reaches the decision; the longer, the more."""
    short, long = audit(many, "executed", 1), audit(many, "executed", 8)
    assert not short.leaks and long.leaks and long.accuracy > 0.9


def test_targets_that_have_nothing_to_do_with_the_labels_are_not_told(many, tmp_path):
    """The same labels with the targets shuffled over the episodes: chance, whatever is looked at."""
    import numpy as np

    from muvla.data.episodes import EpisodeStore

    store = EpisodeStore(many.path)
    targets = np.random.default_rng(0).permutation([line["target"] for line in store.index])
    for line, target in zip(store.index, targets, strict=True):
        line["target"] = int(target)
    assert not audit(store, "recorded", 1).leaks and not audit(store, "executed", 8).leaks


def test_where_there_is_nothing_to_tell_apart(tmp_path):
    store = collect(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=4), tmp_path)
    with pytest.raises(MuvlaError, match="expected at least two targets, a no-op phase and 10 episodes"):
        audit(store, "recorded", 1)


def test_from_the_command_line(many, capsys):
    command = ["audit", many.path.name, "--data", str(many.path.parent)]
    assert main([*command, "--chunk", "1", "--chunk", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "labels recorded, H = 1", "labels executed, H = 1", "labels recorded, H = 8", "labels executed, H = 8",
    ]  # fmt: skip
    assert lines[0].endswith("tells the target") and lines[1].endswith("no more than chance")
    assert main([*command, "--chunk", "0"]) == EXIT_BAD_INPUT
    assert "--chunk: got 0" in capsys.readouterr().err
