"""Options under which a computation equals the published one: each changes what it names, and no train id otherwise."""

import pytest
import torch

from helpers.release_size import SIZE
from muvla.checkpoints import native
from muvla.checkpoints.adapters import make_adapter_files
from muvla.config import LoraConfig, MemoryConfig, ModelConfig, OptimizerConfig, canonical
from muvla.config.identity import train_id
from muvla.config.serialization import replace
from muvla.data.augmentation import draw_change
from muvla.errors import MuvlaError
from muvla.memory.contract import Dimensions
from muvla.memory.registry import build_memory
from muvla.models.init import initialise
from muvla.models.lora import PATCH_EMBEDDINGS, add_adapters, get_adapters
from muvla.models.policy import Interface, Policy
from muvla.training.lr_schedule import get_learning_rate


def build(**fields):
    policy = Policy(
        ModelConfig(SIZE, chunk=8, **fields), build_memory(MemoryConfig(), Dimensions(24)), Interface(1, 7, 7, 8, True)
    )
    initialise(policy, 0)
    return policy


def test_adapters_of_the_patch_embeddings():
    policy = build()
    for patches in (False, True):
        policy, lora = build(), LoraConfig(4, patches=patches)
        add_adapters(policy, SIZE, lora, 0)
        assert set(PATCH_EMBEDDINGS) & get_adapters(policy).keys() == (set(PATCH_EMBEDDINGS) if patches else set())
        files = make_adapter_files(policy, lora, "base")
        assert (b"patch_embed.proj.lora_A" in files["lora_adapter/adapter_model.safetensors"]) == patches


def test_the_class_position_gets_no_gradient():
    images = torch.randint(0, 256, (1, 1, 3, 28, 28), dtype=torch.uint8)
    features, gradients = [], []
    for form in ("two", "one"):
        vision = build(class_token=form).vision
        features.append(vision.features(images))
        features[-1].sum().backward()
        gradients.append(vision.dino.embeddings.position_embeddings.grad[0])
    assert torch.equal(*features), "the option changes no value"
    assert gradients[0][0].abs().max() > 0 and gradients[1][0].abs().max() == 0
    assert torch.equal(gradients[0][1:], gradients[1][1:])


def test_crops_move_on_the_diagonal():
    free, diagonal = ([draw_change(0, 0, i, 0, diagonal=d) for i in range(8)] for d in (False, True))
    assert all(change.left == change.top for change in diagonal)
    assert all(change.left != change.top for change in free)
    assert [(c.top, c.hue) for c in free] == [(c.top, c.hue) for c in diagonal], "the other draws are the same"


def test_the_warm_up_starts_at_a_tenth():
    zero, tenth = OptimizerConfig(lr=1.0, warmup=0.5), OptimizerConfig(lr=1.0, warmup=0.5, warmup_from="tenth")
    rates = [get_learning_rate(tenth, update, 20) for update in range(11)]
    assert rates[0] == pytest.approx(0.1) and rates[5] == pytest.approx(0.55) and rates[10] == pytest.approx(1.0)
    assert get_learning_rate(zero, 0, 20) == pytest.approx(1 / 11)
    assert get_learning_rate(zero, 10, 20) == rates[10]


@pytest.mark.parametrize(
    ("field", "value", "used"),
    [
        ("model.class_token", "one", {}),
        ("optimizer.warmup_from", "tenth", {}),
        ("data.crop", "diagonal", {"data.augmentation": "frame", "model.images": "released"}),
        ("lora.patches", True, {"lora.rank": 4, "start.checkpoint": "x"}),
    ],
)
def test_an_option_counts_where_it_is_used(base, field, value, used):
    start = used.get("start.checkpoint")
    cell = replace(base, used)
    assert train_id(replace(cell, {field: value}), "data", start) != train_id(cell, "data", start)
    unused = {
        "model.class_token": {"model.vision": "frozen"},
        "optimizer.warmup_from": {"optimizer.warmup": 0.0},
        "data.crop": {},
        "lora.patches": {},
    }[field]
    without = replace(base, unused)
    assert canonical(replace(without, {field: value})) == canonical(without)


@pytest.fixture
def folder(tmp_path):
    for update in (2, 4):
        (tmp_path / native.folder_name(update)).mkdir()
        (tmp_path / native.folder_name(update) / native.META).write_text("{}")
    (tmp_path / "latest").write_text("update-000004")
    return tmp_path


@pytest.mark.parametrize("content", ["update-000004\n", " update-000004 ", "update-000006", None])
def test_a_training_continues_from_the_newest_whole_checkpoint(folder, content):
    if content is None:
        (folder / "latest").unlink()
    else:
        (folder / "latest").write_text(content)
    assert native.latest(folder) == folder / "update-000004"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"../update-000004", b"x" * 5000, b"/etc"])
def test_a_pointer_that_names_no_checkpoint_is_one_error(folder, content):
    (folder / "latest").write_bytes(content)
    with pytest.raises(MuvlaError) as info:
        native.latest(folder)
    assert info.value.field == str(folder / "latest") and "remove" in info.value.remedy


def test_a_checkpoint_outside_its_folder_is_refused(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x"
    (folder / "update-000004").rename(elsewhere)
    (folder / "update-000004").symlink_to(elsewhere)
    with pytest.raises(MuvlaError) as info:
        native.latest(folder)
    assert info.value.field == str(folder / "update-000004")
