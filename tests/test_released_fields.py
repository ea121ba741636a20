"""Every file and field of a released directory is used, irrelevant or refused, and every tensor is looked at."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import released
from helpers.errors import refused, refused_at
from helpers.release_size import ANATOMY, SIZE
from muvla.checkpoints.hub import resolve_checkpoint
from muvla.checkpoints.inspect import list_fields
from muvla.checkpoints.metadata import make_config_json
from muvla.checkpoints.preprocessor import make_preprocessor_config
from muvla.checkpoints.release import load_release, write_release
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config.model import SizeConfig
from muvla.models.constants import Constants

ROUNDED = Constants(dino_mean=(0.484375, 0.455078125, 0.40625), dino_std=(0.228515625, 0.2236328125, 0.224609375))
FRAMES = torch.randint(0, 256, (1, 2, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return released.write(tmp_path_factory.mktemp("released") / "x", own=ANATOMY)


@pytest.fixture
def path(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "x")


def edit(file, change):
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def set_text(name, value):
    return lambda path: edit(path / "config.json", lambda config: config["text_config"].update({name: value}))


def set_top(name, value):
    return lambda path: edit(path / "config.json", lambda config: config.update({name: value}))


def set_pixels(change=None, **fields):
    def write(path):
        data = make_preprocessor_config(ROUNDED, 28) | fields
        if change:
            change(data)
        (path / "preprocessor_config.json").write_text(json.dumps(data))

    return write


def put(name, data):
    return lambda path: (path / name).write_text(json.dumps(data))


def act(path):
    policy = ReleasedCheckpoint(path).load_policy()
    with torch.no_grad():
        encoded = policy.encode(FRAMES, torch.zeros(1, 7), *policy.encode_text(["Touch the cube."]))
        return policy.step(encoded, policy.memory.read(policy.memory.init_state(1)).tokens).actions


@pytest.mark.parametrize(
    ("store", "name"),
    [
        (set_pixels(), "dino_mean"),
        (set_text("rms_norm_eps", 1e-2), "norm_eps"),
        (set_text("rope_theta", 5e5), "rope_theta"),
        (set_text("rope_parameters", {"rope_type": "default", "rope_theta": 5e5}), "rope_theta"),
    ],
)
def test_a_stored_constant_moves_actions_and_content_and_comes_back(plain, path, tmp_path, store, name):
    store(path)
    checkpoint = ReleasedCheckpoint(path)
    assert name in checkpoint.constants.differing() and checkpoint.differences() == []
    assert checkpoint.content() != ReleasedCheckpoint(plain).content()
    assert (act(path) - act(plain)).abs().max() > 1e-4
    write_release(load_release(checkpoint), tmp_path / "out")
    assert ReleasedCheckpoint(tmp_path / "out").constants == checkpoint.constants


def test_the_textbook_in_float32_leaves_the_content_as_it_is(plain, path):
    in_float32 = [torch.tensor(values).tolist() for values in (Constants().dino_mean, Constants().dino_std)]

    def change(data):
        data["tvf_normalize_params"][0] = dict(zip(("mean", "std"), in_float32, strict=True))

    set_pixels(change)(path)
    assert ReleasedCheckpoint(path).content() == ReleasedCheckpoint(plain).content()
    set_pixels(tvf_do_letterbox=True, interpolations=["lanczos", "lanczos"])(plain.parent / "x")
    checkpoint = ReleasedCheckpoint(plain)
    assert checkpoint.differences() == [] and checkpoint.constants == ROUNDED
    put("preprocessor_config.json", {"image_processor_type": "PrismaticImageProcessor"})(plain)


def test_means_and_stds_count_where_nothing_replaces_them(path):
    means, stds = [[0.4] * 3, [0.5] * 3], [[0.3] * 3, [0.5] * 3]
    put("preprocessor_config.json", {"means": means, "stds": stds})(path)
    assert ReleasedCheckpoint(path).constants == Constants(dino_mean=(0.4,) * 3, dino_std=(0.3,) * 3)
    set_pixels(means=means, stds=stds)(path)
    assert ReleasedCheckpoint(path).constants == ROUNDED


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (set_text("hidden_act", "gelu"), "config.json: text_config.hidden_act"),
        (set_text("rope_scaling", {"type": "linear", "factor": 2.0}), "config.json: text_config.rope_scaling"),
        (set_text("num_key_value_heads", 2), "config.json: text_config.num_key_value_heads"),
        (set_text("num_hidden_layers", 2**64), "config.json: text_config.num_hidden_layers"),
        (set_text("rms_norm_eps", float("nan")), "config.json: text_config.rms_norm_eps"),
        (set_text("rms_norm_eps", True), "config.json: text_config.rms_norm_eps"),
        (set_text("attention_bias", True), "config.json: text_config.attention_bias"),
        (set_text("sliding_window", 8), "config.json: text_config.sliding_window"),
        (set_top("timm_model_ids", ["vit_base"]), "config.json: timm_model_ids"),
        (set_top("timm_override_act_layers", ["quick_gelu", None]), "config.json: timm_override_act_layers"),
        (set_top("image_sizes", [384, 384]), "config.json: image_sizes"),
        (set_top("llm_backbone_id", "mistral-v0.1-7b-pure"), "config.json: llm_backbone_id"),
        (set_top("use_flim", True), "config.json: use_flim"),
        (set_top("text_config", [1]), "config.json: text_config"),
        (set_pixels(tvf_normalize_params=[{"mean": [0.5] * 3, "std": [0.0] * 3}] * 2), "tvf_normalize_params"),
        (set_pixels(tvf_crop_params=[{"output_size": [20, 20]}] * 2), "tvf_crop_params"),
        (set_pixels(image_mean=[0.5] * 3), "preprocessor_config.json: image_mean"),
        (put("tokenizer_config.json", {"add_eos_token": True}), "tokenizer_config.json: add_eos_token"),
        (put("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "cube"}}}), "added_tokens_decoder"),
        (put("special_tokens_map.json", {"eos_token": "<pad>"}), "special_tokens_map.json: eos_token"),
        (put("added_tokens.json", {"cube": 3}), "added_tokens.json: cube"),
    ],
)
def test_a_field_that_is_not_honoured_is_refused(path, spoil, line):
    spoil(path)
    checkpoint = ReleasedCheckpoint(path)
    assert [text for text in checkpoint.differences() if line in text], checkpoint.differences()
    with refused(str(path)):
        checkpoint.load_policy()


@pytest.mark.parametrize(
    ("name", "value"),
    [("muvla_cameras", "2"), ("muvla_proprio", 1), ("muvla_images", "cropped"), ("muvla_first_image", None)],
)
def test_a_key_of_this_project_without_a_meaning_is_refused(path, name, value):
    set_top(name, value)(path)
    with refused(f"{path / 'config.json'}: {name}"):
        ReleasedCheckpoint(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("layers", 2**64), ("layers", 400), ("vocabulary", 10**6), ("width", 48), ("mlp", 2**20), ("siglip.width", 2**16)],
)
def test_a_size_that_the_tensors_contradict_builds_nothing(path, name, value, monkeypatch):
    monkeypatch.setattr("muvla.checkpoints.released.Policy", None)
    size = copy.deepcopy(ANATOMY["muvla_size"])
    *towers, field = name.split(".")
    (size[towers[0]] if towers else size)[field] = value
    set_top("muvla_size", size)(path)
    with refused_at(name if value == 2**64 else f"muvla_size.{name}"):
        ReleasedCheckpoint(path)


def test_inspect_lists_every_file_and_field(path, capsys):
    put("generation_config.json", {"bos_token_id": 1})(path)
    set_text("hidden_act", "gelu")(path)
    assert main(["inspect", str(path), "--json"]) == EXIT_BAD_INPUT
    fields = json.loads(capsys.readouterr().out)["fields"]
    status = {(f["file"], f["field"]): f["status"] for f in fields}
    assert {f["file"] for f in fields} == {file.name for file in path.iterdir()}
    assert status["generation_config.json", ""] == "irrelevant"
    assert status["config.json", "text_config.vocab_size"] == "used"
    assert status["config.json", "text_config.hidden_act"] == "refused"
    assert fields == list_fields(path)
    assert main(["inspect", str(path)]) == EXIT_BAD_INPUT
    assert "refused: config.json: text_config.hidden_act" in capsys.readouterr().out


def test_our_own_exports_state_everything(tmp_path):
    """The fields that an export writes are fields that a reader honours."""
    config, pixels = make_config_json(SIZE), make_preprocessor_config(ROUNDED, 28)
    assert config["text_config"]["rms_norm_eps"] == 1e-6 and config["text_config"]["rope_theta"] == 10_000
    assert pixels["tvf_normalize_params"][0]["mean"] == list(ROUNDED.dino_mean)
    assert SizeConfig(**(config["muvla_size"] | {"dino": SIZE.dino, "siglip": SIZE.siglip})) == SIZE


MEMORY = "memory_module--150000_checkpoint.pt"


def memory(values):
    return lambda path: torch.save({"initial_memory": values}, path / MEMORY)


def weights(name, change):
    def spoil(path):
        file = next(file for file in path.glob("model-*.safetensors") if name in load_file(file))
        save_file(load_file(file) | {name: change(load_file(file)[name])}, file)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (memory(torch.zeros(5, 24, dtype=torch.int64)), "initial_memory"),
        (memory(torch.zeros(5, 24, dtype=torch.bool)), "initial_memory"),
        (memory(torch.zeros(5, 24, dtype=torch.complex64)), "initial_memory"),
        (memory(torch.zeros(5, 24, dtype=torch.float8_e4m3fn)), "initial_memory"),
        (memory(torch.full((5, 24), float("nan"))), "initial_memory"),
        (memory(torch.full((5, 24), float("inf"))), "initial_memory"),
        (memory(torch.full((5, 24), 1e300, dtype=torch.float64)), "initial_memory"),
        (memory(torch.zeros(5, 24).to_sparse()), "initial_memory"),
        (memory(torch.zeros(5, 24, device="meta")), "initial_memory"),
        (memory(torch.tensor(0.5)), "initial_memory"),
        (weights("projector.fc1.weight", lambda t: t.to(torch.int32)), "projector.fc1.weight"),
        (weights("projector.fc1.weight", lambda t: t.fill_(float("inf"))), "projector.fc1.weight"),
    ],
)
def test_a_tensor_without_finite_floats_is_refused_by_name(path, spoil, name, capsys):
    spoil(path)
    with refused_at("", name):
        ReleasedCheckpoint(path).load_policy()
    assert main(["inspect", str(path)]) == EXIT_BAD_INPUT
    printed = capsys.readouterr()
    assert name in printed.out + printed.err


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tbptt_length", float("nan")),
        ("tbptt_length", float("inf")),
        ("tbptt_length", 2.5),
        ("tbptt_length", True),
        ("num_mem_tokens", 5.0),
        ("attention_mask_mode", ["full"]),
    ],
)
def test_a_memory_meta_without_sense_is_refused(path, field, value):
    edit(path / "memory_meta.json", lambda meta: meta.update({field: value}))
    with refused(f"{path / 'memory_meta.json'}: {field}"):
        ReleasedCheckpoint(path)


def test_bounds_that_cross_are_refused(path):
    def cross(statistics):
        statistics["mikasa_combined"]["action"]["q01"][3] = 0.5

    edit(path / "dataset_statistics.json", cross)
    assert [line for line in ReleasedCheckpoint(path).differences() if "q01 above q99 in dimension 3" in line]


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", 5, "x\0.safetensors"])
def test_a_shard_outside_the_folder_is_refused(path, file):
    edit(path / "model.safetensors.index.json", lambda index: index["weight_map"].update({"projector.fc1.bias": file}))
    with refused_at("weight_map: projector.fc1.bias"):
        ReleasedCheckpoint(path)


def test_a_link_that_leaves_the_folder_is_refused(path, tmp_path):
    for name in ("model-00001-of-00002.safetensors", MEMORY):
        copy = shutil.copytree(path, tmp_path / f"{name} linked")
        shutil.move(copy / name, tmp_path / "elsewhere")
        (copy / name).symlink_to(tmp_path / "elsewhere")
        with refused(str(copy / name)):
            ReleasedCheckpoint(copy)
        (tmp_path / "elsewhere").unlink()
    blobs = tmp_path / "models--owner--x" / "blobs"
    blobs.mkdir(parents=True)
    shutil.move(path / MEMORY, blobs / "abc")
    (path / MEMORY).symlink_to(blobs / "abc")
    assert ReleasedCheckpoint(path).differences() == []


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4976698672\n"


@pytest.mark.parametrize(
    "name",
    ["model-00001-of-00002.safetensors", MEMORY, "config.json", "tokenizer.json", "preprocessor_config.json"],
)
def test_a_git_lfs_pointer_is_named_with_its_command(path, name):
    (path / name).write_text(POINTER)
    with refused_at("", "Git LFS pointer") as info:
        ReleasedCheckpoint(path).load_policy()
    assert "git lfs pull" in str(info.value)


def only_adapter(path, config=False):
    for file in {*path.glob("model*"), *([] if config else [path / "config.json"])}:
        file.unlink()
    put("lora_adapter/adapter_config.json", {"base_model_name_or_path": "openvla/openvla-7b"})(path)


def lerobot_policy(path):
    shutil.rmtree(path)
    path.mkdir()
    put("config.json", {"type": "act", "input_features": {}, "output_features": {}, "chunk_size": 100})(path)


def prismatic(path):
    shutil.rmtree(path)
    (path / "checkpoints").mkdir(parents=True)
    put("config.json", {"vla": {"base_vlm": "prism-dinosiglip-224px+7b"}})(path)


@pytest.mark.parametrize(
    ("make", "got", "remedy"),
    [
        (only_adapter, "LoRA adapters", "merge_lora_weights_and_save.py --base_checkpoint openvla/openvla-7b"),
        (lambda path: only_adapter(path, config=True), "LoRA adapters", "merge_lora_weights_and_save.py"),
        (lerobot_policy, "LeRobot policy", "OpenVLA-OFT"),
        (prismatic, "Prismatic", "convert_openvla_weights_to_hf.py"),
    ],
)
def test_another_folder_is_named_by_its_content(path, make, got, remedy):
    make(path)
    with refused(str(path)) as info:
        ReleasedCheckpoint(path)
    assert got in info.value.got and remedy in info.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        ("a.gguf", b"GGUF\x03\x00\x00\x00", "GGUF"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("a.pt", {"model": {"per_mem_bank": {}, "cog_mem_bank": {}, "llm_backbone": {}}}, "MemoryVLA"),
        ("b.pt", {"model": {"vision_backbone": {}, "llm_backbone": {}, "projector": {}}}, "Prismatic"),
        ("c.pt", {"weight": torch.zeros(1)}, "torch.save"),
    ],
)
def test_another_file_is_named_by_its_content(tmp_path, name, content, got):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with refused(str(tmp_path / name)) as info:
        resolve_checkpoint(tmp_path / name)
    assert got in info.value.got
