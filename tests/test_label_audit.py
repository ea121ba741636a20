"""The label audit: what it must find, and what it must not."""

import pytest

from helpers.errors import printed_field
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import DatasetConfig, TaskConfig
from muvla.data.collect import collect
from muvla.data.label_audit import audit
from muvla.errors import MuvlaError


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return collect(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=150), tmp_path_factory.mktemp("audit"))


def test_never_executed_labels_tell_the_target_and_executed_ones_do_not(many):
    """The expert points at the marked disc while nothing is executed (spec 4.4); what is executed then is zero."""
    (recorded, there), (executed, nowhere) = audit(many, "recorded", 1), audit(many, "executed", 1)
    assert recorded.leaks and recorded.value > 0.9 and there.leaks and there.value > 0.5
    assert not executed.leaks and executed.value <= executed.chance + 0.1 and not nowhere.leaks
    assert recorded.episodes == 150 and recorded.frames == int((many["phase"] < 3).sum())


def test_chunks_tell_it_by_looking_ahead(many):
    """Executed labels too, once a chunk of the delay reaches the decision; the longer, the more."""
    (short, _), (long, there) = audit(many, "executed", 1), audit(many, "executed", 8)
    assert not short.leaks and long.leaks and long.value > 0.9 and there.leaks
    assert audit(many, "executed", 10**9)[0].value > 0.9, "no chunk reaches beyond the longest episode"


def test_a_target_that_has_nothing_to_do_with_the_labels_is_not_told_but_where_the_expert_goes_is(many):
    """As where a colour is shown at a place that is drawn by itself: the same labels, the targets shuffled."""
    import numpy as np

    from muvla.data.store import EpisodeStore

    store = EpisodeStore(many.path)
    targets = np.random.default_rng(0).permutation([line["target"] for line in store.index])
    for line, target in zip(store.index, targets, strict=True):
        line["target"] = int(target)
    for labels, chunk in (("recorded", 1), ("executed", 8)):
        target, direction = audit(store, labels, chunk)
        assert not target.leaks and direction.leaks
    for i, line in enumerate(store.index):  # one target of which there is a single episode
        line["target"] = int(i == 0)
    with pytest.raises(MuvlaError) as info:
        audit(store, "recorded", 1)
    assert info.value.field == str(store.path)
    for i, line in enumerate(store.index):  # fewer of one than there are folds
        line["target"] = int(i < 2)
    assert not audit(store, "executed", 1)[0].leaks


def test_where_there_is_nothing_to_tell_apart(tmp_path):
    store = collect(DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=4), tmp_path)
    with pytest.raises(MuvlaError) as info:
        audit(store, "recorded", 1)
    assert info.value.field == str(store.path)


def test_from_the_command_line(many, capsys):
    command = ["data", "audit", many.path.name, "--data", str(many.path.parent)]
    assert main([*command, "--chunk", "1", "--chunk", "8"]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("labels")]
    kinds = [f"labels {kind}, H = {h}" for h in (1, 8) for kind in ("recorded", "executed")]
    assert [line.split(":")[0] for line in lines] == [kind for kind in kinds for _ in range(2)]
    assert lines[0].endswith("reveal it") and "from chance (at most 0." in lines[2]
    assert "target" in lines[0] and "first action of the decision, R²" in lines[1]
    assert main([*command, "--chunk", "0"]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "--chunk"
