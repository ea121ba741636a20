"""Several tasks in one training: one store over all of them, the shares of each, one scale; and what does not mix."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from helpers import rlds_files as files
from helpers.errors import refused
from muvla.config import DatasetConfig, TaskConfig, canonical, no_memory, train_id
from muvla.config.serialization import identity, replace
from muvla.data.collect import collect
from muvla.data.contact_sheet import summarize
from muvla.data.importer import import_config, import_dataset
from muvla.data.mixture import Mixture, open_data
from muvla.data.mixture_sampling import Rounds, get_pieces_per_round
from muvla.data.normalization import Statistics
from muvla.data.readers.formats import FORMATS
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.store import Episode, EpisodeStore, EpisodeWriter
from muvla.errors import MuvlaError
from muvla.training.coverage import measure_coverage
from muvla.training.resume import make_checkpoint, resume
from muvla.training.trainer import Trainer

# Longer episodes, another instruction of another length, fewer episodes.
OTHER = DatasetConfig(TaskConfig("RecallColor3-v0", cue=(6, 9), delay=(6, 9)), episodes=10, seed=100)
COLUMNS = ("images", "proprio", "executed_action", "recorded_action", "phase")
ORDERS = {
    "episodic": {},
    "shuffled": no_memory() | {"data.order": "shuffled"},
    "grouped": {"data.order": "grouped", "data.group": 12},
}


@pytest.fixture(scope="session")
def other(data_root):
    return collect(OTHER, data_root)


@pytest.fixture(scope="session")
def mixture(store, other):
    return Mixture([store, other])


@pytest.fixture(scope="session")
def cell(base):
    return replace(base, {"data.mixture": [OTHER]})


def test_a_mixture_is_its_datasets_one_after_the_other(store, other, mixture, data_root, cell):
    assert len(mixture) == 34 and mixture.frames == store.frames + other.frames
    assert mixture.instructions == [*store.instructions, *other.instructions]
    assert [line["instruction"] for line in mixture.index] == [
        x["instruction"] for s in (store, other) for x in s.index
    ]
    for i, line in enumerate(mixture.index):
        part, own = (store, i) if i < 24 else (other, i - 24)
        rows = np.arange(mixture.starts[i], mixture.starts[i] + mixture.lengths[i])
        assert line["start"] == mixture.starts[i] and part.lengths[own] == len(rows)
        for name in COLUMNS:
            assert np.array_equal(mixture[name][rows], part[name][part.starts[own] :][: len(rows)]), name
    every = np.concatenate([store["images"], other["images"]])
    anywhere = np.random.default_rng(0).integers(len(every), size=(5, 3))
    assert np.array_equal(mixture["images"][anywhere], every[anywhere]) and mixture["images"].dtype == every.dtype
    assert mixture["images"].shape == every.shape and len(mixture["images"]) == len(every)
    assert np.array_equal(mixture["images"][-1 + len(every)], every[-1])
    assert np.array_equal(mixture.is_executed, np.concatenate([store.is_executed, other.is_executed]))
    opened = open_data(data_root, cell.data)
    assert opened.sha256 == mixture.sha256 != open_data(data_root, replace(cell, {"data.mixture": []}).data).sha256
    assert Mixture([other, store]).sha256 != mixture.sha256, "another numbering, other draws"


def test_frames_of_a_mixture_stay_on_the_disk(mixture):
    """No column of images is held or copied: what is taken comes from the parts' memory maps."""
    columns = mixture["images"]._columns
    assert [column is part["images"] for column, part in zip(columns, mixture.parts, strict=True)] == [True, True]
    assert all(isinstance(column, np.memmap) for column in columns)


@pytest.mark.parametrize("rows", [(np.array([0, 1]), np.array([1, 0])), slice(3), np.ones(3, bool), 0.5], ids=str)
def test_rows_are_taken_by_their_numbers_alone(mixture, rows):
    with pytest.raises(TypeError):
        mixture["images"][rows]


def played(cell, store, ticks):
    """Which dataset a tick is of, its visit and its frame, each (ticks, B)."""
    stream = Trainer(cell, store).stream
    episode, step, visit = stream.schedule(ticks)
    return (episode >= 24).astype(int), episode, visit, store.starts[episode] + step


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("balance", ["episode", "frame"])
def test_the_shares_are_those_declared(cell, mixture, store, other, order, balance):
    """`episode`: as many of either; frames follow from the lengths, alike in episodic and shuffled cells. `frame`: half
    of the frames each, in every order."""
    cell = replace(cell, ORDERS[order] | {"data.balance": balance})
    dataset, _, visit, _ = played(cell, mixture, 6000)
    means = [(np.minimum(s.lengths, 12) if order == "grouped" else s.lengths).mean() for s in (store, other)]
    assert means[1] > 1.1 * means[0], "else the two ways would be one"
    expected = means[1] / sum(means) if balance == "episode" else 0.5
    assert dataset.mean() == pytest.approx(expected, abs=0.01)
    for slot in range(4):
        assert dataset[:, slot].mean() == pytest.approx(expected, abs=0.02), "in every slot"
        if balance == "episode" and order != "shuffled":
            of_visit = dict(zip(visit[:, slot].tolist(), dataset[:, slot].tolist(), strict=True))
            sequence = [of_visit[v] for v in sorted(of_visit)]
            rounds = np.array(sequence[: len(sequence) // 2 * 2]).reshape(-1, 2)
            assert (rounds.sum(axis=1) == 1).all(), "every round has one of each"
            assert 0 < rounds[:, 0].mean() < 1, "in an order that is drawn"


@pytest.mark.parametrize("order", ORDERS)
def test_every_piece_of_every_dataset_is_played_before_any_of_it_again(cell, mixture, order):
    dataset, episode, visit, frame = played(replace(cell, ORDERS[order]), mixture, 4000)
    name = frame if order == "shuffled" else episode
    for slot in range(4):
        last = dict(zip(visit[:, slot].tolist(), zip(dataset[:, slot], name[:, slot], strict=True), strict=True))
        sequence = [last[v] for v in sorted(last)]
        for i, part in enumerate(mixture.parts):
            own, size = [x for d, x in sequence if d == i], part.frames if order == "shuffled" else len(part)
            passes = [own[k : k + size] for k in range(0, len(own) - size + 1, size)]
            assert len(passes) >= 2 and all(len(set(one)) == size for one in passes)
            assert passes[0] != passes[1]


@pytest.mark.parametrize("often", [[1.0, 1.0], [1.0, 1.7], [2.25, 1.0, 1.0, 7.1]], ids=str)
def test_rounds_keep_the_shares_at_any_length(often):
    """Never further off than a piece at a round's end, numbered without a gap, whatever visit is asked for first."""
    often = np.array(often)
    for slot in range(3):
        found = [Rounds(often, 0).at(slot, v) for v in (900, 3)]
        rounds = Rounds(often, 0)
        sequence = [rounds.at(slot, v) for v in range(1000)]
        assert [sequence[900], sequence[3]] == found
        for d in range(len(often)):
            assert [n for dataset, n in sequence if dataset == d] == list(range(sum(x == d for x, _ in sequence)))
        counts = np.array([sum(x == d for x, _ in sequence) for d in range(len(often))])
        assert (np.abs(counts - 1000 * often / often.sum()) <= often + 1).all()
    orders = {
        tuple(x for x, _ in (Rounds(often, seed).at(slot, v) for v in range(40))) for slot in (0, 1) for seed in (0, 1)
    }
    assert len(orders) == 4


def test_a_single_dataset_has_no_rounds(store, base):
    assert get_pieces_per_round(store, base.data).tolist() == [1.0] and Rounds(np.ones(1), 0).at(3, 77) == (0, 77)


@pytest.mark.parametrize("order", ORDERS)
def test_a_mixed_stream_continues_exactly_where_it_was_saved(cell, mixture, order):
    cell = replace(cell, ORDERS[order] | {"data.balance": "frame"})
    first, second = Trainer(cell, mixture).stream, Trainer(cell, mixture).stream
    for _ in range(20):
        first.window(8)
    second.load_state(json.loads(json.dumps(first.state())))
    a, b = first.window(8), second.window(8)
    assert np.array_equal(a.frame, b.frame) and torch.equal(a.images, b.images) and torch.equal(a.label, b.label)


def test_cells_of_one_seed_see_the_same_mixture(cell, mixture):
    """Whatever memory, K or labels; prompts of two lengths are padded in all of them."""
    windows = [
        Trainer(replace(cell, change), mixture).stream.window(24)
        for change in ({}, no_memory(), {"truncation": 2}, {"data.labels": "recorded"})
    ]
    for window in windows[1:]:
        assert torch.equal(window.images, windows[0].images) and torch.equal(window.text_ids, windows[0].text_ids)
    assert {tuple(i) for i in windows[0].text_lengths.tolist()} and len(
        set(windows[0].text_lengths[:, 0].tolist())
    ) == 2


def test_mixture_and_balance_bite(store, mixture, base, cell):
    """Turned, each trains another policy; and one policy twice is the same."""

    def after(cell, store):
        trainer = Trainer(cell, store)
        for _ in range(2):
            trainer.step()
        return torch.cat([p.detach().flatten() for p in trainer.policy.parameters()])

    mixed, by_frame = after(cell, mixture), after(replace(cell, {"data.balance": "frame"}), mixture)
    assert torch.equal(mixed, after(cell, mixture)) and not torch.equal(mixed, by_frame)
    assert not torch.equal(mixed, after(base, store))


def test_a_mixed_training_resumes_exactly_and_from_its_own_checkpoints_alone(store, mixture, base, cell):
    whole, first, second = (Trainer(cell, mixture) for _ in range(3))
    for _ in range(3):
        whole.step()
    first.step()
    resume(second, make_checkpoint(first))
    for _ in range(2):
        second.step()
    for a, b in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(MuvlaError) as info:
        resume(Trainer(base, store), make_checkpoint(first))
    assert info.value.field == "checkpoint configuration"
    changed = dataclasses.replace(make_checkpoint(first), statistics=Statistics.from_store(mixture, "recorded"))
    with pytest.raises(MuvlaError) as info:
        resume(second, changed)
    assert info.value.field == "checkpoint statistics"


def test_one_scale_over_all_frames(store, other, mixture, cell):
    """Pooled, not averaged; of what was executed, or of every recorded action, whatever supervises."""
    found = {Trainer(replace(cell, {"data.labels": k}), mixture).statistics for k in ("executed", "recorded", "masked")}
    (pooled,) = found
    assert pooled.data == mixture.sha256
    for source in ("executed", "recorded"):
        action = np.concatenate([s[f"{source}_action"] for s in (store, other)]).astype(np.float64)
        statistics = Statistics.from_store(mixture, source)
        for q, own in ((0.01, statistics.action_low), (0.99, statistics.action_high)):
            assert np.allclose(own, np.quantile(action, q, axis=0))
        assert np.allclose(statistics.action_mean, action.mean(axis=0))
        assert np.allclose(statistics.action_std, action.std(axis=0))
    proprio = np.concatenate([s["proprio"] for s in (store, other)]).astype(np.float64)
    assert np.allclose(pooled.proprio_mean, proprio.mean(axis=0)) and np.allclose(
        pooled.proprio_std, proprio.std(axis=0)
    )
    published = {
        Trainer(replace(cell, {"data.labels": k, "data.statistics": "recorded"}), mixture).statistics
        for k in ("executed", "recorded", "masked")
    }
    assert published == {Statistics.from_store(mixture, "recorded")} and published != found
    assert len({Statistics.from_store(s).id for s in (store, other, mixture)} | {next(iter(published)).id}) == 4


def test_means_are_of_no_comparison(store):
    """A checkpoint written before there were any is one of the same statistics."""
    own = Statistics.from_store(store)
    older = dataclasses.replace(own, action_mean=None, action_std=None, proprio_mean=None, proprio_std=None)
    assert older == own and older.id == own.id and hash(older) == hash(own)


def test_identities(cell, base, mixture, store):
    """The mixture is part of a cell; its balance only where there is one; defaults leave older train ids alone."""
    assert train_id(cell, mixture.sha256, None) != train_id(base, mixture.sha256, None)
    assert canonical(replace(base, {"data.balance": "frame"})) == canonical(base)
    assert canonical(replace(cell, {"data.balance": "frame"})) != canonical(cell)
    assert not {"mixture", "balance", "statistics"} & set(identity(base)["data"])
    assert "source" not in identity(cell)["data"]["mixture"][0], "a field of theirs that is added later"
    both = [
        replace(cell, {"data.labels": "recorded", "data.mixture": [replace(OTHER, {"source": name})]}) for name in "ab"
    ]
    assert len({train_id(one, "content", None) for one in both}) == 1, "a name is no content"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data.mixture": [OTHER, OTHER]}, "data.mixture"),
        (
            {"data.mixture": [OTHER, replace(OTHER, {"episodes": 3, "seed": 109})]},
            "data.mixture",
        ),
        ({"data.balance": "task"}, "data.balance"),
        ({"data.statistics": "all"}, "data.statistics"),
        ({"data.mixture": [{"task": {"name": "RecallColor3-v0"}, "episode": 3}]}, "data.mixture[0].episode"),
    ],
    ids=str,
)
def test_configurations_that_are_refused(base, change, field):
    with refused(field):
        replace(base, change)


def test_a_dataset_cannot_be_mixed_with_itself(base, store):
    with pytest.raises(MuvlaError) as info:
        replace(base, {"data.mixture": [base.data.dataset]})
    assert info.value.field == "data.mixture"
    with pytest.raises(MuvlaError) as info:
        Mixture([store, EpisodeStore(store.path)])
    assert info.value.field == f"data.mixture: {store.name} and {store.name}"


def test_no_episode_is_in_two_datasets(base, store, tmp_path):
    """By what was asked for where that is all there is to tell, and by what was tried, failed attempts included."""
    after = DatasetConfig(TaskConfig("RecallPosition3-v0"), episodes=2, seed=24)
    for fits in (after, replace(after, {"seed": 0, "image_size": 16}), replace(after, {"seed": 0, "source": "toy"})):
        replace(base, {"data.mixture": [fits], "data.labels": "recorded", "model.images": "resized"})
    more = collect(after, tmp_path)
    assert len(Mixture([store, more])) == 26
    longer = EpisodeStore(store.path)
    longer.attempts = 26
    for pair in ([longer, more], [more, longer]):
        with pytest.raises(MuvlaError) as info:
            Mixture(pair)
        assert info.value.field == f"data.mixture: {pair[0].name} and {pair[1].name}"


def test_datasets_of_other_shapes_do_not_mix(store, tmp_path):
    small = collect(replace(OTHER, {"image_size": 16, "episodes": 2}), tmp_path)
    with pytest.raises(MuvlaError) as error:
        Mixture([store, small])
    for told in (store.name, small.name, "(2, 16, 16, 3)", "(2, 32, 32, 3)", "image_size"):
        assert told in str(error.value)


def rewritten(store, path, pass_through=(), cut=None):
    """The episodes of a store written anew, the first `cut` frames of each."""
    writer = EpisodeWriter(path, store.spec, pass_through=pass_through)
    for line in store.index:
        rows = slice(line["start"], line["start"] + min(line["length"], cut or line["length"]))
        info = {k: v for k, v in line.items() if k not in ("start", "length")}
        writer.append(Episode(*(np.asarray(store[name][rows]) for name in COLUMNS), info=info))
    writer.seal(attempts=len(store))
    return EpisodeStore(path)


def test_dimensions_that_pass_through_are_told_by_the_dataset(store, other, tmp_path, base):
    """As a gripper whose command is 0 or 1 (spec 4.2); they are content, and all datasets of a mixture agree."""
    through = rewritten(store, tmp_path / "through", (1,))
    statistics = Trainer(base, through).statistics
    assert statistics.action_mask == (True, False) and statistics.data != store.sha256
    assert rewritten(store, tmp_path / "again").sha256 == store.sha256, "without any, content is what it was"
    window = Trainer(base, through).stream.window(8)
    assert np.array_equal(window.label[:, :, 0, 1], store["executed_action"][window.frame][..., 1])
    through.verify()
    assert "action dimensions without scaling (from 0): 1" in "\n".join(summarize(through))
    with pytest.raises(MuvlaError) as info:
        Mixture([through, other])
    assert info.value.field == "data.mixture: through and RecallColor3-v0-26cc29297f9f"


def test_liberos_gripper_is_left_as_it_is(tmp_path):
    """From the schema into the store, and from there into the scale (spec 4.2, 4.5)."""
    episodes = [files.episode(4, i, ("state", 8)) for i in range(3)]
    directory = RldsDirectory(files.write(tmp_path / "toy" / "1.0.0", episodes, files.LIBERO))
    spec = import_config(directory, "RecallPosition3-v0")
    imported = import_dataset(directory, FORMATS["rlds"].schemas["libero"], spec, tmp_path / "data")
    assert imported.pass_through == (6,) and Statistics.from_store(imported).action_mask == (True,) * 6 + (False,)
    values = np.asarray(imported["recorded_action"])
    assert np.array_equal(Statistics.from_store(imported).normalise_action(values)[:, 6], values[:, 6])
    imported.verify()


def test_imported_and_collected_demonstrations_know_what_both_know(store, other, base, tmp_path):
    """Executed actions are unknown of the whole; what needs them refuses, naming the mixture."""
    writer = EpisodeWriter(tmp_path / "toy", replace(other.spec, {"source": "toy"}), origin="elsewhere")
    for line in other.index:
        rows = slice(line["start"], line["start"] + line["length"])
        columns = {name: np.asarray(other[name][rows]) for name in COLUMNS} | {"executed_action": None}
        writer.append(Episode(**columns, info={"instruction": line["instruction"]}))
    writer.seal(attempts=len(other))
    both = Mixture([store, EpisodeStore(tmp_path / "toy")])
    assert not both.knows_executed
    with pytest.raises(MuvlaError) as info:
        both["executed_action"]
    assert info.value.field == f"{store.name} + toy: executed_action"
    assert (
        Statistics.from_store(both).action_low == Statistics.from_store(Mixture([store, other]), "recorded").action_low
    )
    mixture = [replace(OTHER, {"source": "toy"})]
    trainer = Trainer(replace(base, {"data.labels": "recorded", "data.mixture": mixture}), both)
    assert trainer.stream.window(8).label_is_executed is None and np.isfinite(trainer.step()[0])


def test_episodes_shorter_than_the_chunk(store, other, base, tmp_path):
    """Every entry past the end is masked, or repeats the last action: of one frame, H − 1 of them."""
    short = Mixture([rewritten(store, tmp_path / "short", cut=1), other])
    for tail, weight in (("mask", [1, 0, 0, 0]), ("repeat", [1, 1, 1, 1])):
        trainer = Trainer(replace(base, {"model.chunk": 4, "data.mixture": [OTHER], "data.tail": tail}), short)
        window = trainer.stream.window(64)
        ones = short.lengths[window.episode] == 1
        assert ones.any() and window.is_last[ones].all()
        assert (window.weight[torch.from_numpy(ones)] == torch.tensor(weight)).all()
        assert (window.label[torch.from_numpy(ones)].std(dim=1) == 0).all()
        assert np.isfinite(trainer.step()[0])


def test_an_empty_instruction_never_reaches_a_store(store, tmp_path):
    line = store.index[0]
    episode = Episode(*(np.asarray(store[name][: line["length"]]) for name in COLUMNS), info={"instruction": "  "})
    with pytest.raises(MuvlaError) as info:
        EpisodeWriter(tmp_path / "x", store.spec).append(episode)
    assert info.value.field == "episode instruction"


def test_coverage_is_counted_by_dataset(cell, mixture, store, other):
    budget = replace(cell, {"budget.updates": 100}).budget
    counted = measure_coverage(mixture, cell.data, budget, 0, [(8, "window"), (2, "window")], [1, 4])
    one, two = counted.parts
    assert one.pairs + two.pairs == counted.pairs and one.frames + two.frames == counted.frames == 100 * 8 * 4
    assert one.inside_block[8, "window"] > two.inside_block[8, "window"] == 0 or two.inside_block[8, "window"] < 0.3
    assert one.delay_frames + two.delay_frames == counted.delay_frames
    whole = sum(part.pairs * part.inside_block[8, "window"] for part in counted.parts) / counted.pairs
    assert counted.inside_block[8, "window"] == pytest.approx(whole)
