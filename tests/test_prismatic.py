"""Training files of CogACT, MemoryVLA and CronusVLA: reading, refusals, export, conversion, and runs."""

import json
import pickle
import shutil

import pytest
import torch
import yaml

from helpers import prismatic, released
from helpers.errors import printed_field
from helpers.published_policy import our_name
from helpers.released_runs import run
from muvla.checkpoints.hub import resolve_checkpoint
from muvla.checkpoints.inspect import inspect, list_fields
from muvla.checkpoints.opening import open_checkpoint
from muvla.checkpoints.prismatic_export import convert, load_training_run, write_training_run
from muvla.checkpoints.released import ReleasedCheckpoint
from muvla.cli.main import EXIT_BAD_INPUT, main
from muvla.config import Cell
from muvla.config.serialization import replace
from muvla.errors import MuvlaError
from muvla.memory.registry import build_memory
from muvla.models.policy import Policy, dimensions_of

FAMILIES = ("cogact", "memoryvla", "cronusvla")
every = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("releases")
    return {family: prismatic.write(root / family, family) for family in (*FAMILIES, "prismatic")}


@torch.no_grad()
def actions_of(policy, ticks=3):
    """Chunks of an episode with random frames and given noise."""
    from muvla.envs.phases import Phase
    from muvla.recurrence import Moment, Recurrence

    loop, chunks = Recurrence(policy.eval(), 1), []
    ids, lengths = policy.encode_text(["touch the cube"])
    for t in range(ticks):
        generator = torch.Generator().manual_seed(t)
        images = torch.randint(0, 256, (1, 2, 3, 28, 28), dtype=torch.uint8, generator=generator)
        encoded = policy.encode(images, torch.zeros(1, 7), ids, lengths)
        output, _ = loop.tick(encoded, torch.tensor([t == 0]), Moment([t], [Phase.DELAY], ["0"], [0]))
        chunks.append(output.actions[0])
    return torch.stack(chunks)


def native_policy(directory, tmp_path, family):
    """The policy put together without the loader: towers and language model come from the same numbers as an OFT
    directory, expert and memory by the documented names."""
    skeleton = directory.skeleton()
    memory = build_memory(skeleton.memory.config, dimensions_of(skeleton.config, skeleton.interface))
    policy = Policy(skeleton.config, memory, skeleton.interface, directory.prompts())
    oft = released.write(tmp_path / f"oft-{family}", "oft", own={"muvla_size": directory.config["muvla_size"]})
    values = dict(ReleasedCheckpoint(oft).load_policy().named_parameters())
    for name, parameter in policy.named_parameters():
        if name.startswith(("vision.", "language.")):
            parameter.data = values[name].data.clone()
    tensors = {n: t for n, t in prismatic.tensors_of(family).items() if n.split(".")[0] not in prismatic.MODULES}
    unread = {name for name in tensors if "history_embedder" in name}
    read = {name: t.flatten(1) if t.ndim == 4 else t for name, t in tensors.items() if name not in unread}
    loaded = {our_name(name, family == "cronusvla"): t for name, t in read.items()}
    missing, unexpected = policy.load_state_dict(loaded, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith(("head.", "memory."))]
    return policy


@every
def test_a_training_file_gives_the_actions_of_the_native_policy(folders, tmp_path, family):
    directory = open_checkpoint(folders[family])
    assert directory.family == family and directory.differences() == []
    native = native_policy(directory, tmp_path, family)
    loaded = directory.load_policy()
    stored = torch.load(next((folders[family] / "checkpoints").glob("*.pt")), weights_only=True)["model"]
    ours = dict(loaded.named_parameters())
    name = "layers.1.mlp.up_proj.weight"
    assert torch.equal(ours[f"language.{name}"], stored["llm_backbone"][f"llm.model.{name}"])
    shared = dict(native.named_parameters())
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            if name.startswith(("vision.", "language.")):
                parameter.copy_(shared[name])
    torch.testing.assert_close(actions_of(loaded), actions_of(native), rtol=1e-5, atol=1e-4)


@every
def test_import_export_import_is_the_identity(folders, tmp_path, family):
    directory = open_checkpoint(folders[family])
    write_training_run(load_training_run(directory), tmp_path / "again")
    again = open_checkpoint(tmp_path / "again")
    assert again.shapes == directory.shapes and again.config == directory.config
    assert all(torch.equal(again.tensors[name], directory.tensors[name]) for name in directory.shapes)
    assert again.statistics == directory.statistics and again.step == directory.step
    assert yaml.safe_load((tmp_path / "again" / "config.yaml").read_text()) == again.config


@every
def test_converted_weights_give_the_same_policy(folders, tmp_path, family):
    directory = open_checkpoint(folders[family])
    convert(directory, tmp_path / "converted")
    assert not list((tmp_path / "converted").glob("**/*.pt"))
    again = open_checkpoint(tmp_path / "converted")
    assert again.differences() == [] and again.shapes == directory.shapes
    values = dict(again.load_policy().named_parameters())
    assert all(torch.equal(values[name], p) for name, p in directory.load_policy().named_parameters())
    with pytest.raises(MuvlaError) as info:
        convert(directory, tmp_path / "converted")
    assert info.value.field == str(tmp_path / "converted")


def test_the_configuration_may_be_yaml_and_the_file_may_be_named(tmp_path):
    path = prismatic.write(tmp_path / "run", "memoryvla", "config.yaml")
    (file,) = (path / "checkpoints").iterdir()
    assert resolve_checkpoint(file) == file
    directory = open_checkpoint(file)
    assert directory.path == path and directory.memory.capacity == 3 and directory.differences() == []
    assert {entry["status"] for entry in list_fields(path)} == {"used", "irrelevant"}
    (path / "checkpoints" / "step-030000.pt").write_bytes(file.read_bytes())
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path)
    assert info.value.field == str(path) and "step-030000.pt" in info.value.remedy


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("mem_length", 8, "capacity", 8),
        ("fusion_type", "gate", "fusion", "gate"),
        ("consolidate_type", "fifo", "consolidation", "fifo"),
        ("update_fused", True, "stored", "fused"),
    ],
)
def test_every_field_of_the_memory_is_used(tmp_path, field, value, attribute, expected):
    path = prismatic.write(tmp_path / "run", "memoryvla")
    change(path, {field: value})
    directory = open_checkpoint(path)
    assert getattr(directory.memory, attribute) == expected and directory.differences() == []
    assert directory.memory.time_code == "call", "the published server counts queries"


def change(path, fields):
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def spoil_model(path, function):
    (file,) = (path / "checkpoints").iterdir()
    model = torch.load(file, weights_only=True)["model"]
    function(model)
    torch.save({"model": model}, file)


class Code:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (lambda m: m["action_model"].pop("net.positional_embedding"), "missing action_model.net.positional_embedding"),
        (lambda m: m["per_compr"].update(other=torch.zeros(2)), "unexpected per_compr.other"),
        (lambda m: m["cog_mem_bank"].update({"gate_fusion_blocks.proj.bias": torch.zeros(5)}), "is (5,) instead of"),
        (lambda m: m.pop("projector"), "missing projector.projector.0"),
        (lambda m: m["action_model"].update({"net.final_layer.linear.bias": torch.zeros(7).int()}), "int32"),
        (lambda m: m.update(ema_diffusion={"x": torch.zeros(2)}), "unexpected ema_diffusion.x"),
    ],
)
def test_loading_is_strict_by_name_shape_and_dtype(tmp_path, spoil, got):
    path = prismatic.write(tmp_path / "run", "memoryvla")
    spoil_model(path, spoil)
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path).load_policy()
    assert info.value.field == str(path) and got in info.value.got
    with pytest.raises(MuvlaError):
        list(inspect(path))


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    path = prismatic.write(tmp_path / "run", "cogact")
    spoil_model(path, lambda m: m["action_model"]["net.positional_embedding"].fill_(float("nan")))
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path).load_policy()
    assert info.value.field == str(path) and "NaN" in info.value.got


def test_a_file_that_holds_code_is_refused_and_never_run(tmp_path, capsys):
    path = prismatic.write(tmp_path / "run", "memoryvla")
    (file,) = (path / "checkpoints").iterdir()
    for content in (pickle.dumps(Code()), None):
        if content is None:
            torch.save({"model": {"action_model": {"x": Code()}}}, file)
        else:
            file.write_bytes(content)
        with pytest.raises(MuvlaError) as info:
            open_checkpoint(path)
        assert info.value.field == str(file)
    assert "must not run" not in capsys.readouterr().out


def test_a_training_file_outside_the_folder_is_refused(tmp_path):
    path = prismatic.write(tmp_path / "run", "cogact")
    (file,) = (path / "checkpoints").iterdir()
    file.rename(tmp_path / "elsewhere.pt")
    file.symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path)
    assert info.value.field == str(file)


@pytest.mark.parametrize(
    ("content", "got"),
    [({"model": {}}, "model"), ({"optimizer": {}}, "optimizer"), ({"model": {"action_model": {"x": 3}}}, "int")],
)
def test_a_pickle_of_another_form_is_refused(tmp_path, content, got):
    path = prismatic.write(tmp_path / "run", "cogact")
    (file,) = (path / "checkpoints").iterdir()
    torch.save(content, file)
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path)
    assert info.value.field == str(file) and got in info.value.got


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"muvla_size": {"name": "x"}}, "config.json"),
        ({"muvla_cameras": "two"}, "config.json: muvla_cameras"),
        ({"muvla_images": "cropped"}, "config.json: muvla_images"),
        ({"mem_length": 0}, "config.json: mem_length"),
        ({"mem_length": "16"}, "config.json: mem_length"),
        ({"fusion_type": "sum"}, "config.json: fusion_type"),
        ({"consolidate_type": "merge"}, "config.json: consolidate_type"),
        ({"update_fused": 1}, "config.json: update_fused"),
        ({"future_action_window_size": -1}, "config.json: future_action_window_size"),
        ({"muvla_expert": {"layers": 2, "width": 16, "heads": 4, "dropped": 0.0}}, "guidance"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(tmp_path, fields, field):
    path = prismatic.write(tmp_path / "run", "memoryvla")
    change(path, fields)
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path).differences()
    assert field in info.value.field


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (3, ""),
        ({"action": [1.0]}, "action"),
        ({"action": {"q01": 3}}, "action.q01"),
        ({"action": {"mask": [True, "no"]}}, "action.mask[1]"),
        ({"proprio": {"q01": 5}}, "proprio.q01"),
    ],
)
def test_statistics_of_another_form_are_refused(folders, tmp_path, entry, place):
    path = shutil.copytree(folders["memoryvla"], tmp_path / "run")
    file = path / "dataset_statistics.json"
    file.write_text(json.dumps({"libero": entry}))
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path).differences()
    assert info.value.field.startswith(str(file)) and info.value.field.endswith(place)


def test_statistics_without_bounds_are_a_difference(folders, tmp_path, capsys):
    path = shutil.copytree(folders["memoryvla"], tmp_path / "run")
    empty = {"q01": None, "q99": None, "mask": None}
    (path / "dataset_statistics.json").write_text(json.dumps({"libero": {"action": empty, "proprio": empty}}))
    assert main(["inspect", str(path)]) == EXIT_BAD_INPUT
    assert "statistics: libero" in capsys.readouterr().out


def test_another_chunk_than_the_files_and_a_slip_of_a_name_are_listed(tmp_path):
    path = prismatic.write(tmp_path / "run", "memoryvla")
    change(path, {"future_action_window_size": 15, "mem_lenght": 4, "use_ema": True})
    lines = open_checkpoint(path).differences()
    assert [line for line in lines if "positional_embedding is (5, 16) instead of (17, 16)" in line]
    assert [line for line in lines if "mem_lenght" in line and "mem_length" in line]
    assert [line for line in lines if "use_ema" in line]


def test_another_language_model_is_refused(tmp_path):
    """A training of Prismatic with another model, and a checkpoint of Dexbotic."""
    path = prismatic.write(tmp_path / "run", "memoryvla")
    config = json.loads((path / "config.json").read_text())
    del config["muvla_size"]
    (path / "config.json").write_text(json.dumps(config | {"vla": {"base_vlm": "prism-qwen25-dinosiglip-224px+0_5b"}}))
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path)
    assert info.value.field == f"{path / 'config.json'}: vla.base_vlm"
    dexbotic = tmp_path / "dexbotic"
    dexbotic.mkdir()
    fields = {"model_type": "dexbotic_memvla", "llm_config": {"model_type": "qwen2"}}
    (dexbotic / "config.json").write_text(json.dumps(fields))
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(dexbotic)
    assert info.value.field == str(dexbotic) and "qwen2" in info.value.got


def test_a_folder_without_llamas_tokenizer_says_where_it_is(tmp_path):
    path = prismatic.write(tmp_path / "run", "cogact")
    (path / "tokenizer.json").unlink()
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(path).prompts()
    assert info.value.field == str(path / "tokenizer.json")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_computes_in_both_precisions(folders, precision):
    policy = open_checkpoint(folders["memoryvla"]).load_policy(precision)
    assert bool(actions_of(policy, 2).isfinite().all())
    with pytest.raises(MuvlaError) as info:
        open_checkpoint(folders["memoryvla"]).load_policy("nf4")
    assert info.value.field == "--precision"


@every
def test_inspect_names_the_parts(folders, family):
    lines = list(inspect(folders[family]))
    assert lines[-1] == "would not load: nothing"
    mechanism = {"cogact": "none", "memoryvla": "bank", "cronusvla": "feature_fifo"}[family]
    assert any(line.startswith(f"memory: {mechanism}") for line in lines)


def test_a_base_without_an_expert_is_a_start_and_no_policy(folders):
    directory = open_checkpoint(folders["prismatic"])
    assert "would not load" not in "".join(inspect(folders["prismatic"]))
    with pytest.raises(MuvlaError) as info:
        directory.load_policy()
    assert info.value.field == str(folders["prismatic"])


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("small_release")
@pytest.mark.parametrize(
    ("family", "intervention", "evaluated"),
    [("memoryvla", "skip_read", {"none", "skip_read", "zero_perception"}), ("cronusvla", "empty", {"none", "empty"})],
)
def test_a_training_file_is_evaluated_and_intervened_upon(folders, tmp_path, capsys, family, intervention, evaluated):
    """With perceptual tokens the results hold `zero_perception`, though the command does not name the intervention."""
    path = folders[family]
    assert run(tmp_path, "evaluate", path) == 0
    assert "released@1 none" in capsys.readouterr().out
    assert run(tmp_path, "intervene", path, intervention) == 0
    assert {line.split()[1].rstrip(":") for line in capsys.readouterr().out.splitlines()} >= evaluated - {"none"}
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(list((folder / "rows").glob("*.jsonl"))) == len(evaluated)
    origin = json.loads((folder / "release.json").read_text())
    assert origin["statistics"] == "libero" and "tokenizer.json" in origin["files"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_release")
@pytest.mark.parametrize(
    ("family", "probe", "refused"),
    [("memoryvla", "retrieval", None), ("cronusvla", "gradients", "retrieval"), ("cogact", "attention", "gradients")],
)
def test_a_training_file_is_probed(folders, tmp_path, capsys, family, probe, refused):
    """By the probes of every policy; a probe that needs another memory is refused by its name."""
    assert run(tmp_path, "probe", folders[family], probe, "--episodes", "1") == 0
    (file,) = (tmp_path / "runs").glob(f"*/probes/{probe}@*.csv")
    assert len(file.read_text().splitlines()) > 1
    capsys.readouterr()
    if refused:
        assert run(tmp_path, "probe", folders[family], refused, "--episodes", "1") == 2
        assert printed_field(capsys).startswith(f"probe {refused}")


@pytest.mark.slow
@pytest.mark.usefixtures("small_release")
def test_cogact_has_no_memory_to_intervene_on(folders, tmp_path, capsys):
    assert run(tmp_path, "intervene", folders["cogact"], "zero") == 2
    assert printed_field(capsys) == "INTERVENTION"
    assert run(tmp_path, "evaluate", folders["cogact"], "--statistics", "bridge") == 2
    assert printed_field(capsys) == "--statistics"
    assert run(tmp_path, "evaluate", folders["memoryvla"], "--without-memory") == 2
    assert printed_field(capsys) == "--without-memory"


# --- trainings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["cogact", "prismatic", "memoryvla"])
def test_a_training_starts_from_a_training_file(folders, start, cell_with):
    """From CogACT the memory and the perception attention are drawn; from Prismatic the whole expert, too."""
    from helpers.experts import MEMORYVLA
    from muvla.checkpoints.build import build_policy

    directory = open_checkpoint(folders[start])
    fields = {"model.expert.width": 16, "model.expert.heads": 4, "memory.perceptual_width": 8, "model.chunk": 4}
    cell: Cell = cell_with(MEMORYVLA | fields)
    cell = replace(cell, {"model.size": directory.size, "start.checkpoint": str(folders[start])})
    interface = open_checkpoint(folders["memoryvla"]).skeleton().interface
    policy = build_policy(cell, interface)
    stored = directory.tensors
    assert torch.equal(policy.language.embed_tokens.weight, stored["llm_backbone.llm.model.embed_tokens.weight"])
    block = policy.head.blocks[0]
    name = "action_model.net.blocks.0.attn.qkv.weight"
    assert (name in stored and torch.equal(block.attention.qkv.weight, stored[name])) == (start != "prismatic")
    assert (block.cross.qkv.weight.abs().max() == 0) == (start != "memoryvla")


def test_an_expert_of_another_chunk_cannot_start_a_training(folders, cell_with):
    from helpers.experts import COGACT
    from muvla.checkpoints.build import build_policy

    directory = open_checkpoint(folders["cogact"])
    fields = {"model.expert.width": 16, "model.expert.heads": 4, "model.chunk": 8}
    start = {"model.size": directory.size, "start.checkpoint": str(folders["cogact"])}
    cell = replace(cell_with(COGACT | fields), start)
    with pytest.raises(MuvlaError) as info:
        build_policy(cell, directory.skeleton().interface)
    assert "positional_embedding" in info.value.got
