"""Frozen towers, and their features from the disk: the same training bit for bit, and a refusal where it could not."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers.errors import printed_field
from helpers.studies import STUDY, at
from muvla.checkpoints.build import build_policy, get_prompts
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import DatasetConfig, LoraConfig, TaskConfig
from muvla.config.serialization import replace
from muvla.data.collect import collect
from muvla.data.mixture import Mixture
from muvla.errors import DiskError, MuvlaError
from muvla.models.lora import add_adapters, get_adapters
from muvla.models.preprocessing import prepare
from muvla.models.vision import FusedVision
from muvla.training.interface import get_interface
from muvla.training.options import TrainingOptions
from muvla.training.run import train_to_the_end
from muvla.training.trainer import Trainer
from muvla.training.vision_cache import FOLDER, cache_vision, require_cacheable
from muvla.utils.provenance import provenance
from sweeps.train import train_study

FROZEN = {"model.vision": "frozen"}


@pytest.fixture
def cell(cell_with):
    return cell_with(FROZEN)


def cached(cell, store, root):
    trainer = Trainer(cell, store)
    cache_vision(trainer, root)
    return trainer


def the_folder(root):
    (folder,) = (root / FOLDER).iterdir()
    return folder


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """How many images the towers saw at each call."""
    calls, original = [], FusedVision.features

    def features(self, images, *language):
        calls.append(images.shape[0] * images.shape[1])
        return original(self, images, *language)

    monkeypatch.setattr(FusedVision, "features", features)
    return calls


def towers(policy):
    return {n: p.detach().clone() for n, p in policy.named_parameters() if n.startswith(("vision.dino", "vision.sig"))}


def test_frozen_towers_keep_their_values_and_the_projector_learns(store, cell, base):
    trainer = Trainer(cell, store)
    before, projector = towers(trainer.policy), trainer.policy.vision.projector[0].weight.detach().clone()
    for _ in range(2):
        trainer.step()
    after = towers(trainer.policy)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(trainer.policy.vision.projector[0].weight, projector)
    assert not any(name.startswith(("vision.dino", "vision.siglip")) for name in trainer.names)
    free = Trainer(base, store)
    assert all(torch.equal(value, before[name]) for name, value in towers(free.policy).items()), "drawn alike"
    free.step()
    assert any(not torch.equal(value, before[name]) for name, value in towers(free.policy).items())


def test_frozen_towers_get_no_adapters(cell_with, store):
    policies = {}
    for vision in ("trained", "frozen"):
        cell = cell_with({"model.vision": vision})
        policies[vision] = build_policy(cell, get_interface(store, get_prompts(cell), cell))
        add_adapters(policies[vision], cell.model.size, LoraConfig(rank=2), seed=0)
    names = {vision: set(get_adapters(policy)) for vision, policy in policies.items()}
    assert names["frozen"] == {n for n in names["trained"] if not n.startswith(("vision.dino", "vision.siglip"))}
    assert "vision.projector.0" in names["frozen"]
    assert not any(p.requires_grad for n, p in policies["frozen"].named_parameters() if n.startswith("vision.dino"))


@pytest.mark.parametrize(
    "change",
    [
        {},
        *(
            pytest.param(change, marks=pytest.mark.slow)
            for change in (
                {"data.cameras": 1, "data.first_image": True},
                {"model.images": "released"},
                {"model.precision": "bfloat16"},
            )
        ),
    ],
    ids=["plain", "first image", "released", "bfloat16"],
)
def test_a_training_with_cached_features_is_bit_for_bit_that_without(store, cell, tmp_path, seen, change):
    changed = replace(cell, change)
    plain, with_cache = Trainer(changed, store), cached(changed, store, tmp_path)
    seen.clear()
    with with_cache.prefetcher:
        assert [with_cache.step() for _ in range(3)] == [plain.step() for _ in range(3)]
    assert len(seen) == 3, "the towers ran for the plain one alone"
    for (name, a), (_, b) in zip(plain.policy.named_parameters(), with_cache.policy.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert plain.leak_test() == with_cache.leak_test() == 0.0


def test_a_mixture_is_cached_too(store, cell, data_root, tmp_path):
    other = DatasetConfig(TaskConfig("RecallColor3-v0"), episodes=6, seed=100)
    both = Mixture([store, collect(other, data_root)])
    mixed = replace(cell, {"data.mixture": [other]})
    plain, with_cache = Trainer(mixed, both), cached(mixed, both, tmp_path)
    with with_cache.prefetcher:
        assert with_cache.step() == plain.step()
    last = with_cache.prefetcher.features.read(np.array([both.frames * 2 - 1]))  # second dataset, second camera
    images = torch.from_numpy(both["images"][np.array([both.frames - 1])][:, 1]).movedim(-1, -3)
    size = mixed.model.size.image_size
    made = plain.policy.vision.features(prepare(images, size, mixed.model.images)[:, None])[:, 0]
    assert (last - made).abs().max() < 1e-5


@pytest.mark.slow
def test_a_stopped_training_continues_with_its_cache(store, cell, tmp_path, seen):
    stops = iter([False, True])
    train_to_the_end(cached(cell, store, tmp_path), tmp_path / "run", should_stop=lambda: next(stops))
    seen.clear()
    resumed = cached(cell, store, tmp_path)
    assert seen, "a sample is computed again"
    sampled = len(seen)
    train_to_the_end(resumed, tmp_path / "run")
    assert len(seen) == sampled + 1, "the leak test looks at images"
    alone = Trainer(cell, store)
    for _ in range(4):
        alone.step()
    assert all(torch.equal(a, b) for a, b in zip(alone.policy.parameters(), resumed.policy.parameters(), strict=True))


@pytest.mark.parametrize("damage", ["cut", "no meta", "other bytes"])
def test_what_is_damaged_is_made_anew(store, cell, tmp_path, damage):
    features = cached(cell, store, tmp_path).prefetcher.features
    window = Trainer(cell, store).stream.window(8)
    expected, folder = features(window), the_folder(tmp_path)
    file = folder / "features.bin"
    whole = file.read_bytes()
    if damage == "no meta":
        (folder / "meta.json").unlink()
    file.write_bytes({"cut": whole[:-5], "no meta": whole, "other bytes": bytes(len(whole))}[damage])
    assert torch.equal(cached(cell, store, tmp_path).prefetcher.features(window), expected)
    assert file.read_bytes() == whole


def test_it_is_made_anew_beside_whoever_reads_it(store, cell, tmp_path, monkeypatch):
    """Who has mapped the file that is replaced goes on reading it; and its room counts as free for the next one."""
    reader = cached(cell, store, tmp_path).prefetcher.features
    window, file = Trainer(cell, store).stream.window(8), the_folder(tmp_path) / "features.bin"
    expected = reader(window)
    (the_folder(tmp_path) / "meta.json").unlink()
    (the_folder(tmp_path) / "features.unfinished").write_bytes(b"of a killed process")
    there = []

    def disk_usage(folder):
        there.extend(one.name for one in Path(folder).iterdir())
        return SimpleNamespace(free=10**12)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    before = file.stat().st_ino
    held = file.open("rb")  # so that the new file cannot be given the old one's number
    cached(cell, store, tmp_path)
    assert file.stat().st_ino != before and torch.equal(reader(window), expected)
    assert there == ["lock"] and not (the_folder(tmp_path) / "features.unfinished").exists()
    held.close()


def test_another_processor_has_another_cache(store, cell, tmp_path, monkeypatch):
    for name in ("one processor", "one processor", "another processor"):
        monkeypatch.setattr("muvla.training.vision_cache.processor", lambda name=name: name)
        cached(cell, store, tmp_path)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "no instructions")
    cached(cell, store, tmp_path)
    assert len(list((tmp_path / FOLDER).iterdir())) == 3


def test_ranks_have_no_cache(store, cell, tmp_path):
    trainer = Trainer(cell, store)
    trainer.ranks = SimpleNamespace(size=2)
    with pytest.raises(MuvlaError) as info:
        cache_vision(trainer, tmp_path)
    assert info.value.field == "--cache-vision"
    study = SimpleNamespace(cells=lambda: [SimpleNamespace(cell=cell)])  # and of a study before anything is marked
    with pytest.raises(MuvlaError) as info:
        train_study(study, None, "cpu", TrainingOptions(cached_vision=True), trainer.ranks, lambda: False)
    assert info.value.field == "--cache-vision"
    assert not (tmp_path / FOLDER).exists()


def test_other_towers_have_another_cache(store, cell, tmp_path):
    for changed in (cell, replace(cell, {"seed": 1}), replace(cell, {"model.precision": "bfloat16"})):
        cached(changed, store, tmp_path)
    assert len(list((tmp_path / FOLDER).iterdir())) == 3
    cached(replace(cell, {"memory.m": 2, "truncation": 2}), store, tmp_path)
    assert len(list((tmp_path / FOLDER).iterdir())) == 3, "memory and K have no say in it"


def test_towers_that_do_not_repeat_themselves_are_refused(store, cell, tmp_path, monkeypatch):
    original = FusedVision.features
    noisy = lambda self, *args: original(self, *args) + 1e-3 * torch.rand(())  # noqa: E731
    monkeypatch.setattr(FusedVision, "features", noisy)
    with pytest.raises(MuvlaError) as info:
        cached(cell, store, tmp_path)
    assert info.value.field == "--cache-vision"


def test_a_disk_without_room_is_one_clear_error_and_keeps_no_half_cache(store, cell, tmp_path, monkeypatch):
    with monkeypatch.context() as here, pytest.raises(DiskError) as info:
        here.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        cached(cell, store, tmp_path)
    assert FOLDER in info.value.field
    stopped = iter([None, None])
    original = FusedVision.features

    def features(self, *args):
        if next(stopped, "end") == "end":
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as here, pytest.raises(KeyboardInterrupt):
        here.setattr(FusedVision, "features", features)
        cached(cell, store, tmp_path)
    assert not (the_folder(tmp_path) / "features.bin").exists()
    cached(cell, store, tmp_path)


def test_a_disk_that_is_really_full(store, cell, small_disk):
    (small_disk / "filler").write_bytes(bytes(1000 * 1024))
    with pytest.raises(DiskError) as info:
        cached(cell, store, small_disk)
    assert FOLDER in info.value.field
    assert cached(cell, store, small_disk.parent).prefetcher.features is not None


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"model.vision": "trained"}, "model.vision=trained"),
        ({"model.images": "released", "data.augmentation": "frame"}, "data.augmentation=frame"),
        ({"model.film": True}, "model.film=True"),
    ],
    ids=["trained", "augmentation", "FiLM"],
)
def test_features_that_change_are_not_cached(store, cell, tmp_path, changes, got):
    with pytest.raises(MuvlaError) as info:
        cached(replace(cell, changes), store, tmp_path)
    assert (info.value.field, info.value.got) == ("--cache-vision", got)
    require_cacheable(cell)


def test_provenance_says_so_and_else_nothing():
    assert provenance("cpu", cached_vision=True) == provenance("cpu") | {"cached_vision": True}


@pytest.mark.parametrize("verb", ["train", "sweep"])
def test_a_study_of_trained_towers_is_refused_before_any_cell_is_marked(tmp_path, capsys, verb):
    (tmp_path / "study.py").write_text(STUDY.format(updates=2))
    assert main([verb, str(tmp_path), *at(tmp_path), "--device", "cpu", "--cache-vision"]) == EXIT_BAD_INPUT
    assert printed_field(capsys) == "--cache-vision"
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_from_the_command_line(tmp_path, seen):
    """In processes of a sweep and in this one; one cache for both cells, and the numbers of a training without."""
    (tmp_path / "study.py").write_text(STUDY.format(updates=2))
    study = [str(tmp_path), "--set", "model.vision=frozen"]
    here = lambda name: ["--runs", str(tmp_path / name), "--data", str(tmp_path / "data")]  # noqa: E731
    assert main(["sweep", *study, *here("one"), "--no-tracking", "--cache-vision"]) == 0
    assert main(["train", *study, *here("two"), "--cache-vision"]) == 0
    assert main(["train", *study, *here("three")]) == 0
    assert the_folder(tmp_path / "one").name == the_folder(tmp_path / "two").name
    assert not (tmp_path / "three" / FOLDER).exists()
    models = [
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).glob("*/checkpoints/*/model.*")}
        for name in ("one", "two", "three")
    ]
    assert len(models[0]) == 2 and models[0] == models[1] == models[2]


@pytest.mark.gpu
def test_on_a_gpu_it_agrees(store, cell, tmp_path):
    plain, with_cache = Trainer(cell, store, device="cuda"), Trainer(cell, store, device="cuda")
    cache_vision(with_cache, tmp_path)
    window = plain.stream.window(8)
    with with_cache.prefetcher:
        given = with_cache.prefetcher.window(8)
    assert given.features.is_pinned() and plain.stream.state() == with_cache.stream.state()
    torch.testing.assert_close(with_cache.encode(given).prefix, plain.encode(window).prefix, rtol=1e-5, atol=1e-5)
