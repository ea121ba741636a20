"""Several ranks train what one process trains: two of them, in one torchrun on the CPU for all cases of this file."""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file

from helpers import released
from helpers.paths import TESTS
from helpers.processes import torchrun
from helpers.release_size import ANATOMY, SIZE
from muvla.checkpoints import native as ckpt
from muvla.config import DatasetConfig, TaskConfig, no_memory, tbptt
from muvla.config.serialization import replace, to_dict
from muvla.data.collect import collect
from muvla.data.mixture import Mixture
from muvla.data.store import EpisodeStore
from muvla.errors import MuvlaError
from muvla.interventions import parse_intervention
from muvla.runs.run import Run
from muvla.runs.train import train_cell
from muvla.training import run as training
from muvla.training.distributed.base import SINGLE_PROCESS, Ranks
from muvla.training.distributed.memory_state import join_slots, select_slots
from muvla.training.distributed.torchrun import BUCKET, TorchRanks, buckets, checksum, join_ranks
from muvla.training.resume import make_checkpoint, resume
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from muvla.utils.io import read_lines

pytestmark = pytest.mark.slow
SLOW = {"optimizer.lr": 2e-5}  # AdamW divides by the gradient's size: where that is rounding, so is the step
ADAPTED = {"model.size": to_dict(SIZE), "lora.rank": 4, "lora.alpha": 8.0, "model.images": "resized"}
EQUAL = {
    "K=1": tbptt(1, 4),
    "K=4": tbptt(4, 4),
    "from the episode": tbptt(4, 4) | {"truncation_from": "episode"},
    "a slot each": tbptt(2, 4) | {"truncation_from": "episode", "budget.slots": 2},
    "shuffled": no_memory() | {"data.order": "shuffled"},
    "augmented, diffusion": {
        "model.head": "diffusion",
        "data.tail": "repeat",
        "model.images": "released",
        "data.augmentation": "frame",
    },
    "noise on the memory": {"intervention": "noise_unit"},
    "frozen memory": {"intervention": "freeze_first"},
}


OTHER = DatasetConfig(TaskConfig("RecallColor3-v0"), episodes=6, seed=100)


def trained(cell, store, updates=3, start=None):
    trainer = Trainer(cell, store, parse_intervention(cell.intervention))
    if start:
        resume(trainer, ckpt.load(ckpt.latest(start)))
    steps = [trainer.step() for _ in range(updates)]
    return trainer, steps


@pytest.fixture(scope="module")
def cells(base, tmp_path_factory):
    oft = released.write(tmp_path_factory.mktemp("release") / "oft", "oft", action=2, proprio=2, own=ANATOMY)
    slow = replace(base, SLOW)
    made = {name: replace(slow, changes) for name, changes in EQUAL.items()}
    return made | {
        "bfloat16": replace(slow, tbptt(4, 4) | {"model.precision": "bfloat16"}),
        "adapters": replace(slow, ADAPTED | {"start.checkpoint": str(oft)}),
        "adapters in bfloat16": replace(slow, ADAPTED | {"start.checkpoint": str(oft), "model.precision": "bfloat16"}),
    }


@pytest.fixture(scope="module")
def both(store, data_root):
    return Mixture([store, collect(OTHER, data_root)])


@pytest.fixture(scope="module")
def everyday(cells):
    return replace(cells["K=4"], {"data.mixture": [OTHER], "selection": "loss"})


@pytest.fixture(scope="module")
def ran(cells, store, everyday, both, tmp_path_factory):
    """What each of two ranks has written, and the folder where it lies."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = []
    for name, cell in cells.items():
        cases.append({"name": name, "cell": to_dict(cell), "updates": 3})
    for name in ("K=1", "K=4", "a slot each", "shuffled", "bfloat16", "adapters", "adapters in bfloat16"):
        cases.append({"name": f"sharded {name}", "cell": to_dict(cells[name]), "updates": 3, "sharded": True})
    cases.append(cases[len(cells) + 1] | {"name": "sharded recompute", "recompute": True})
    for name in ("K=4", "frozen memory"):
        first, _ = trained(cells[name], store, 2)
        ckpt.save(folder / f"one {name}", make_checkpoint(first))
        for sharded in (False, True):
            two, one = {"name": f"two {name} {sharded}", "updates": 2}, {"name": f"on {name} {sharded}", "updates": 1}
            one["from"] = str(folder / f"one {name}")
            cases += [case | {"cell": to_dict(cells[name]), "sharded": sharded} for case in (two, one)]
    other = {"indivisible": {"budget.slots": 3}, "perturbed": {}, "diverged": {}, "known": {}, "unknown": {}}
    for name, changes in other.items():
        do = {"do": name} if name in ("perturbed", "diverged") else {"do": "elsewhere", "error": name}
        cases.append({"name": name, "cell": to_dict(replace(cells["K=4"], changes))} | do)
    paths = [str(part.path) for part in both.parts]
    cases.append({"name": "everyday", "cell": to_dict(everyday), "do": "everyday", "stores": paths})
    return launch(store, cases, folder), folder


def launch(store, cases, folder, device="cpu") -> list[dict]:
    (folder / "cases.json").write_text(json.dumps({"store": str(store.path), "device": device, "cases": cases}))
    run = torchrun(str(TESTS / "helpers" / "ranks_worker.py"), str(folder / "cases.json"))
    _, error = run.communicate(timeout=300)
    assert run.returncode == 0, error[-3000:]
    return [json.loads((folder / f"results.{rank}.json").read_text()) for rank in (0, 1)]


def of_ranks(ran, name) -> list:
    """What each rank tells of a case; nothing went wrong."""
    told = [results[name] for results in ran[0]]
    assert not any("error" in one for one in told), told
    return told


def assert_same_policy(ran, name, expected: dict | None):
    """On both ranks bit for bit, and to 1e-6 that of one process."""
    first, second = (load_file(ran[1] / f"{name}.{rank}.safetensors") for rank in (0, 1))
    assert first.keys() == second.keys()
    for parameter, value in first.items():
        assert torch.equal(value, second[parameter]), parameter
        if expected is not None:
            # The gradient of a key bias is zero in theory: AdamW makes whole steps of its rounding.
            atol = 6 * SLOW["optimizer.lr"] if parameter.endswith("k_proj.bias") else 1e-6
            torch.testing.assert_close(
                value, expected[parameter].detach(), rtol=0, atol=atol, msg=lambda m, p=parameter: f"{p} {m}"
            )
    return first


def own(trainer) -> dict:
    return dict(trainer.policy.named_parameters())


@pytest.mark.parametrize("name", [*EQUAL, "bfloat16", "adapters", "adapters in bfloat16"])
def test_two_ranks_train_what_one_process_does(ran, cells, store, name):
    """The same slots, order, augmentation and noise; gradients added up and not averaged; one clipping norm."""
    trainer, steps = trained(cells[name], store)
    half = "bfloat16" in name  # where half the slots are other products, rounded otherwise
    for kind in (name, f"sharded {name}"):
        if kind in ran[0][0]:
            first, second = of_ranks(ran, kind)
            assert first["steps"] == second["steps"] and first["memory_rms"] == second["memory_rms"]
            for got, one in zip(first["steps"], steps, strict=True):
                assert got == pytest.approx(one, rel=0.05 if half else 1e-5)
            assert first["memory_rms"] == pytest.approx(trainer.memory_rms(), rel=1e-2 if half else 1e-5)
            assert_same_policy(ran, kind, None if half else own(trainer))


class Sharded(Ranks):
    sharded = True


@pytest.mark.parametrize(("ranks", "passes"), [(Ranks(), 4), (Sharded(), 1)])
def test_ranks_that_share_layers_go_back_once_a_window(store, cells, monkeypatch, ranks, passes):
    """Blocks from the episode, of a rank's only slot, end at ticks that no other rank knows."""
    trainer = Trainer(replace(cells["a slot each"], {"budget.slots": 1}), store, ranks=ranks)
    ended, end = [], trainer.end_block
    monkeypatch.setattr(trainer, "end_block", lambda loss: ended.append(loss) or end(loss))
    window = trainer.stream.window(8)
    window.is_first[1:] = False
    trainer.backward(window)
    assert len(ended) == passes


def test_blocks_that_are_sharded_and_computed_again(ran, cells, store):
    of_ranks(ran, "sharded recompute")
    assert_same_policy(ran, "sharded recompute", own(trained(cells["K=4"], store)[0]))


def test_gradients_are_added_up_once_per_update(ran):
    """However many truncation blocks there are: what each update sends is whether all are well, twice, which tensors
    have a gradient, and the gradients."""
    update = ["all_reduce torch." + dtype for dtype in ("int64", "float64", "float32", "int64")]
    for name in ("K=1", "K=4"):
        sent = of_ranks(ran, name)[1]["collected"]
        assert sent[: 1 + 3 * 4] == ["all_reduce torch.int64", *update * 3], "the first of them tells of the leak test"


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", ["K=4", "frozen memory"])
def test_a_checkpoint_is_continued_by_any_number_of_ranks(ran, cells, store, name, sharded):
    """From one to two and from two to one: the same stream, memory, histories and moments."""
    alone, _ = trained(cells[name], store, 3)
    of_ranks(ran, f"on {name} {sharded}")
    assert_same_policy(ran, f"on {name} {sharded}", own(alone))
    of_ranks(ran, f"two {name} {sharded}")
    one, two = (
        ckpt.load(ckpt.latest(ran[1] / f"{who} {name}{which}")) for who, which in (("one", ""), ("two", f" {sharded}"))
    )
    assert one.cursor == two.cursor and one.update == two.update == 2
    for part, tensors in one.tensors.items():
        assert {k: t.shape for k, t in tensors.items()} == {k: t.shape for k, t in two.tensors[part].items()}, part
    for key, value in one.tensors["memory"].items():
        torch.testing.assert_close(two.tensors["memory"][key], value, rtol=0, atol=1e-4, msg=key)
    back, _ = trained(cells[name], store, 1, start=ran[1] / f"two {name} {sharded}")
    for key, value in own(alone).items():
        if not key.endswith("k_proj.bias"):
            torch.testing.assert_close(own(back)[key], value, rtol=0, atol=1e-6, msg=key)


def test_an_everyday_training_is_the_one_of_one_process(ran, everyday, both, tmp_path, monkeypatch):
    """A mixture, a selected checkpoint, diagnostics of the first rank's slots, and a stop that rank 1 asks for."""
    assert [one["updates"] for one in of_ranks(ran, "everyday")] == [[2, 4], [2, 4]]
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    train_to_the_end(Trainer(everyday, both), tmp_path)
    (one, two), (alone, of_two) = (
        [ckpt.load(of(folder / "checkpoints")) for folder in (tmp_path, ran[1] / "everyday")]
        for of in (ckpt.latest, ckpt.selected)
    )
    assert (one.cursor, alone.update) == (two.cursor, of_two.update)
    for name, value in one.tensors["model"].items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(two.tensors["model"][name], value, rtol=0, atol=1e-6, msg=name)
    rows, theirs = (read_lines(folder / "train.jsonl") for folder in (tmp_path, ran[1] / "everyday"))
    assert [row["update"] for row in theirs] == [1, 2, 3, 4]
    for own, row in zip(rows, theirs, strict=True):
        assert row["loss"] == pytest.approx(own["loss"], rel=1e-5) and row.keys() == {*own, "slots_looked_at"}
        assert row["slots_looked_at"] == 2 and "loss_by_phase" in row and "gradient_read" in row


def test_every_group_of_tensors_is_synchronised(ran):
    """What one rank adds to its gradient of a tower, the language model, proprio, head or memory moves both alike, and
    a tensor without gradient on one rank is moved by the other's."""
    first, second = of_ranks(ran, "perturbed")
    assert first["moved"] == second["moved"] and len(first["moved"]) == 6
    got = assert_same_policy(ran, "perturbed", None)
    unperturbed = load_file(ran[1] / "K=4.0.safetensors")
    assert all(not torch.equal(got[name], unperturbed[name]) for name in first["moved"])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("indivisible", "MuvlaError: budget.slots: got 3 slots for 2 ranks"),
        (
            "diverged",
            "NotAMeasurement: parameters at update 0: got values on rank 1 that differ from rank 0",
        ),
        ("known", "NotAMeasurement: loss: got 'nan'"),
    ],
)
def test_what_one_rank_raises_all_raise(ran, name, error):
    assert all(results[name]["error"].startswith(error) for results in ran[0])


def test_what_nobody_expects_is_told_by_the_rank_that_met_it(ran):
    first, second = (results["unknown"]["error"] for results in ran[0])
    assert first.startswith("MuvlaError: rank 1: got KeyError: 'frame'") and second == "KeyError: 'frame'"


@pytest.mark.gpu
@pytest.mark.parametrize("sharded", [False, True])
def test_two_gpus_train_what_one_does(cells, store, tmp_path, sharded):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    case = {"name": "K=4", "cell": to_dict(cells["K=4"]), "updates": 3, "sharded": sharded}
    ran = launch(store, [case], tmp_path, "cuda"), tmp_path
    one = Trainer(cells["K=4"], store, device="cuda")
    for got in of_ranks(ran, "K=4")[0]["steps"]:
        assert got == pytest.approx(one.step(), rel=1e-3)
    assert_same_policy(ran, "K=4", None)


# --- alone ---------------------------------------------------------------------------------------------------------


def test_buckets_hold_every_tensor_once_and_not_too_much():
    tensors = [torch.empty(n, device="meta") for n in (3, BUCKET, 5, BUCKET - 5, 1)]
    assert [[len(t) for t in bucket] for bucket in buckets(tensors)] == [[3], [BUCKET], [5, BUCKET - 5], [1]]
    assert list(buckets([])) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_checksum_sees_a_single_bit(dtype):
    tensor = torch.randn(7, 5).to(dtype)
    other = tensor.clone()
    assert checksum(tensor.T) == checksum(other.T)
    other[3, 2] = torch.nextafter(other[3, 2], other.new_tensor(9.0))
    assert checksum(tensor) != checksum(other)


def test_parts_of_the_slots_are_joined_again():
    whole = {"state/tokens": torch.randn(4, 3, 2), "writes": torch.tensor([1, 2, 0, 1])}
    places = [(slot, i) for slot, writes in enumerate([1, 2, 0, 1]) for i in range(writes)]
    whole |= {f"history/{slot}/{i:06d}/tokens": torch.randn(3, 2) for slot, i in places}
    parts = [select_slots(whole, slots) for slots in (range(0, 2), range(2, 4))]
    assert sorted(parts[1]) == ["history/1/000000/tokens", "state/tokens", "writes"]
    again = join_slots(parts)
    assert again.keys() == whole.keys() and all(torch.equal(again[name], value) for name, value in whole.items())


def test_data_are_verified_with_patience(base, store, tmp_path, monkeypatch):
    """Of a large dataset that takes longer than a rank that answers nothing is waited for."""
    ranks = object.__new__(TorchRanks)
    ranks.rank, ranks.size, ranks._long_group, groups = 0, 2, "the group for long work", []
    ranks._collect = lambda operation, told, how, group: groups.append(group)
    for long_running in (False, True):
        with ranks.raise_together(long_running):
            pass
    assert groups == [None, "the group for long work"]

    class Watched(Ranks):
        @contextlib.contextmanager
        def raise_together(self, long_running=False):
            asked.append(long_running)
            yield

    asked, found = [], []
    monkeypatch.setattr(EpisodeStore, "verify", lambda self: found.append(asked[-1]))
    cell = replace(base, {"budget.updates": 1})
    train_cell(Run(tmp_path, store.path.parent, "any"), cell, store, "cpu", ranks=Watched())
    assert found == [True]


def test_one_process_is_alone_and_says_so_to_shard(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_ranks(sharded=False) as ranks:
        assert ranks is SINGLE_PROCESS and not torch.distributed.is_initialized()
    with pytest.raises(MuvlaError) as info, join_ranks(sharded=True):
        pass
    assert info.value.field == "--shard"
