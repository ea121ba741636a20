"""Reading RLDS without TensorFlow: against a dataset that TensorFlow wrote, and against every kind of damage."""

import io
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers import rlds_files as files
from helpers.errors import refused_at
from muvla.data.readers.formats import FORMATS, choose_schema
from muvla.data.readers.rlds import RldsDirectory
from muvla.data.readers.schema import read_demonstrations
from muvla.data.readers.source import Record
from muvla.data.readers.tfrecord import masked_crc, parse_example
from muvla.errors import MuvlaError

MIKASA, LIBERO, TASK = FORMATS["rlds"].schemas["mikasa"], FORMATS["rlds"].schemas["libero"], "RememberColor5-VLA-v0"


@pytest.fixture
def fixture():
    """A dataset of tensorflow-datasets itself, with what was written into it."""
    place = os.environ.get("MUVLA_TEST_DATA")
    if place is None:
        pytest.skip("MUVLA_TEST_DATA is not set")
    folder = Path(place) / "rlds_fixture"
    assert folder.exists(), "MUVLA_TEST_DATA is set, and must hold it"
    return folder / "toy_rlds" / "1.0.0", np.load(folder / "truth.npz")


def test_what_tensorflow_wrote_is_read_back(fixture):
    """Exactly, but for JPEG, which loses colour; as encoded by the same library it is the same to the bit."""
    path, truth = fixture
    read = list(RldsDirectory(path).records())
    assert len(read) == 3
    for one in read:
        number = one.values["episode_metadata/file_path"]
        for name in truth:
            episode, _, leaf = name.partition("/")
            if episode != str(number):
                continue
            (found,) = [column for path, column in one.values.items() if path.split("/")[-1] == leaf]
            if leaf == "image":
                assert np.array_equal(found, np.stack([jpeg(pixels) for pixels in truth[name]]))
                assert np.abs(luminance(found) - luminance(truth[name])).mean() < 2
            else:
                assert found.dtype.kind == truth[name].dtype.kind and np.array_equal(found, truth[name]), name


def test_what_tensorflow_wrote_is_an_episode(fixture):
    path, truth = fixture
    directory = RldsDirectory(path)
    LIBERO.check(directory)
    schema = replace(LIBERO, turn_gripper=False)  # its actions are drawn at random, and no gripper's
    with pytest.raises(MuvlaError) as info:
        list(read_demonstrations(directory, schema, TASK))
    assert info.value.field.endswith("toy_rlds-train.tfrecord-00000-of-00001: record 0 (from 0)")
    for one in read_demonstrations(directory, schema, TASK, image_size=32):
        number = one.info["instruction"].split()[-1]
        action = truth[f"ep{number}/action"]
        assert np.array_equal(one.proprio, truth[f"ep{number}/state"])
        assert np.array_equal(one.recorded_action, action)
        assert np.array_equal(one.images[:, 1], truth[f"ep{number}/wrist_image"])


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def luminance(images):
    return images @ np.array([0.299, 0.587, 0.114])


def test_the_checksum_is_tensorflows():
    """Of the length of a record that TensorFlow wrote."""
    assert masked_crc()(bytes.fromhex("efee000000000000")) == int.from_bytes(bytes.fromhex("dc26f863"), "little")


def test_numbers_texts_and_flags_are_read_as_declared(tmp_path):
    steps = files.MIKASA | {
        "count": files.tensor("int64"),
        "pair": {"sequence": {"feature": files.tensor("int32"), "length": "2"}},
        "ragged": {"sequence": {"feature": files.tensor("int32"), "length": "-1"}},
    }
    others = {"about": files.group({"seed": files.tensor("int64"), "note": {"text": {}}})}
    counts, pairs = np.array([0, -1, 2**63 - 1]), np.array([[1, -2], [127, 128], [300, -(2**31)]])
    written = files.episode(3, count=counts, pair=pairs) | {
        "about/seed": np.array([7]),
        "about/note": [b"Z\xc3\xbcrich"],
    }
    directory = RldsDirectory(files.write(tmp_path / "1.0.0", [written], steps, others=others))
    (read,) = directory.records([path for path in directory.features if not path.endswith("ragged")])
    values = read.values
    assert values["steps/count"].tolist() == counts.tolist() and values["steps/count"].dtype == np.int64
    assert values["steps/pair"].tolist() == pairs.tolist() and values["steps/pair"].dtype == np.int32
    assert values["steps/is_first"].tolist() == [True, False, False] and values["steps/is_first"].dtype == bool
    assert values["about/seed"] == 7 and values["about/note"] == "Zürich"
    assert values["steps/language_instruction"].tolist() == [files.INSTRUCTION] * 3
    assert np.array_equal(values["steps/observation/image"], files.pixels(3, 0))
    with pytest.raises(MuvlaError) as info:
        next(directory.records(["steps/ragged"]))
    assert info.value.field.endswith("ragged")


def test_numbers_may_stand_one_by_one():
    """As protobuf allows for what TensorFlow packs."""
    floats = b"".join(files.varint(1 << 3 | 5) + np.float32(x).tobytes() for x in (0.5, -2.0))
    whole = b"".join(files.varint(1 << 3) + files.varint(x) for x in (300, -1))
    entries = [
        files.field(1, name) + files.field(2, content)
        for name, content in ((b"f", files.field(2, floats)), (b"i", files.field(3, whole)), (b"nothing", b""))
    ]
    read = parse_example(files.field(1, b"".join(files.field(1, entry) for entry in entries)), "here")
    assert read["f"].tolist() == [0.5, -2.0] and read["i"].tolist() == [300, -1] and len(read["nothing"]) == 0


def test_episodes_come_in_order_from_all_shards_and_any_of_them(tmp_path):
    written = [files.episode(2 + i, seed=i) for i in range(7)]
    directory = RldsDirectory(files.write(tmp_path / "toy" / "1.0.0", written, shards=3))
    assert (len(directory), directory.name) == (7, "toy")
    for skip in range(8):
        read = list(directory.records(["steps/action"], range(skip, 7)))
        assert [len(one.values["steps/action"]) for one in read] == list(range(2 + skip, 9))
        for one, episode in zip(read, written[skip:], strict=True):
            assert np.array_equal(one.values["steps/action"], episode["steps/action"])


def test_the_two_published_schemas(tmp_path):
    """LIBERO's gripper is clipped to [0, 1] and turned over, everything else is as it was written."""
    action = np.linspace(-1, 1, 28, dtype=np.float32).reshape(4, 7)
    action[:, -1] = [0, 1, -0.5, 1]
    mikasa = RldsDirectory(files.write(tmp_path / "m", [files.episode(4, action=action)]))
    libero = RldsDirectory(
        files.write(tmp_path / "l", [files.episode(4, 0, ("state", 8), action=action)], files.LIBERO)
    )
    (one,), (other,) = (list(read_demonstrations(d, s, TASK)) for d, s in ((mikasa, MIKASA), (libero, LIBERO)))
    assert np.array_equal(one.recorded_action, action) and one.proprio.shape == (4, 7)
    assert np.array_equal(other.recorded_action[:, :-1], action[:, :-1]) and other.proprio.shape == (4, 8)
    assert other.recorded_action[:, -1].tolist() == [1, 0, 1, 0]
    assert np.array_equal(one.images, np.stack([files.pixels(4, 0), files.pixels(4, 1000)], axis=1))
    assert one.executed_action is None and not one.phase.any() and one.info["instruction"] == files.INSTRUCTION
    for directory, wrong in ((mikasa, LIBERO), (libero, MIKASA)):
        with pytest.raises(MuvlaError) as info:
            wrong.check(directory)
        assert info.value.field.startswith(f"{directory.path}: feature")
    assert LIBERO.pass_through == (6,) and MIKASA.pass_through == (), "the gripper's command"
    with pytest.raises(MuvlaError) as info:
        choose_schema(mikasa, "kitchen")
    assert info.value.field == "--schema"


@pytest.mark.parametrize("format", ["rlds", "lerobot"])
def test_a_gripper_that_cannot_be_liberos_is_not_turned(format):
    """LIBERO's own commands are -1 (open) and 1, in every conversion: the environment wants 1 and 0."""
    schema = FORMATS[format].schemas["libero"]
    pictures = np.zeros((3, 8, 8, 3), np.uint8)

    def turned(commands):
        action = np.zeros((3, 7), np.float32)
        action[:, -1] = commands
        values = {one: pictures for one in schema.cameras}
        values |= {schema.proprio[0]: np.zeros((3, 8)), schema.action[0]: action}
        record = Record("a file, record 0", values | {schema.instruction: np.array(["Put it there."])})
        source = SimpleNamespace(records=lambda paths, numbers: [record])
        return next(read_demonstrations(source, schema, TASK)).recorded_action[:, -1].tolist()

    assert turned([-1, 1, -1]) == [1, 0, 1]
    for wrong in ([0, 255, 0], [0, 0.04, -1.5]):
        with pytest.raises(MuvlaError) as info:
            turned(wrong)
        assert info.value.field.endswith("action") and "gripper" in info.value.got


def damaged_file(change):
    def damage(folder):
        shard = sorted(folder.glob("*tfrecord*"))[-1]
        shard.write_bytes(change(shard.read_bytes()))

    return damage


def flipped(at):
    return damaged_file(lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def edited(name, old, new):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


LONG_CUT = len(files.record(files.example(files.episode(3, 3))))
SHARD = "00001-of-00002"
FIRST, SECOND = (f"{SHARD}: record {number} (from 0)" for number in range(2))


@pytest.mark.parametrize(
    ("damage", "field", "got"),
    [
        (flipped(2000), FIRST, "CRC32C"),
        (flipped(-1), SECOND, "CRC32C"),
        (flipped(1), FIRST, "CRC32C"),
        (damaged_file(lambda data: data[:-5]), SECOND, f"{LONG_CUT - 16} bytes"),
        (damaged_file(lambda data: data[: -LONG_CUT + 7]), SECOND, "7 bytes"),
        (damaged_file(lambda data: data[:-LONG_CUT]), SHARD, "1 records"),
        (damaged_file(lambda data: data + data), SHARD, "4 records"),
        (damaged_file(lambda data: files.record(b"\x0a\xff")), FIRST, "tf.train.Example"),
        (damaged_file(lambda data: files.record(b"\x0b")), FIRST, "tf.train.Example"),
        (lambda folder: next(folder.glob("*-00000-of-*")).unlink(), "1.0.0", "00000-of-00002"),
        (lambda folder: (folder / "features.json").unlink(), "1.0.0", "features.json"),
        (edited("features.json", "featuresDict", "content"), "features.json", "featuresDict"),
        (edited("dataset_info.json", '"train"', '"test"'), "dataset_info.json", "test"),
        (edited("features.json", '"action"', '"acts"'), "feature steps/action", ""),
        (edited("features.json", '["7"]', '["6"]'), "feature steps/observation/proprio", "(6,)"),
        (
            edited("features.json", '"encoding": "none"', '"encoding": "zlib"'),
            "feature steps/observation/proprio",
            "zlib",
        ),
    ],
)
def test_damage_is_one_clear_error(tmp_path, damage, field, got):
    folder = files.write(tmp_path / "1.0.0", [files.episode(3, seed) for seed in range(4)], shards=2)
    damage(folder)
    with refused_at(field, got):
        read(folder)


def read(folder):
    directory = RldsDirectory(folder)
    MIKASA.check(directory)
    return list(read_demonstrations(directory, MIKASA, TASK))


NAN = np.zeros((3, 7), np.float32)
NAN[1, 4] = np.nan
OTHER_SIZE = [files.png(one) for one in files.pixels(3, 0, size=16)]


@pytest.mark.parametrize(
    ("changes", "feature", "got"),
    [
        ({"action": None}, ": steps/action", ""),
        ({"action": NAN}, ": steps/action", "step 1"),
        ({"observation/proprio": np.full((3, 7), np.inf, np.float32)}, ": steps/observation/proprio", "step 0"),
        ({"action": np.zeros(20, np.float32)}, ": steps/action", "20 values"),
        ({"action": [b"no number"] * 3}, ": steps/action", "3 values"),
        ({"action": np.zeros((2, 7), np.float32)}, "", "'steps/action': 2"),
        ({"language_instruction": [b"  "] * 3}, ": steps/language_instruction", ""),
        ({"language_instruction": [b"a", b"a", b"b"]}, ": steps/language_instruction", "'a', 'b'"),
        ({"language_instruction": np.zeros(3)}, ": steps/language_instruction", "numbers"),
        ({"observation/image": np.zeros(3)}, ": steps/observation/image", "numbers"),
        ({"observation/image": OTHER_SIZE}, ": steps/observation/image", "(16, 16, 3)"),
        ({"observation/image": [b"no picture"] * 3}, ": steps/observation/image", "UnidentifiedImageError"),
        ({"observation/image": [files.png(files.pixels(1, 0)[0])[:900]] * 3}, ": steps/observation/image", "OSError"),
    ],
)
def test_an_episode_that_cannot_be_used_is_named(tmp_path, changes, feature, got):
    folder = files.write(tmp_path / "1.0.0", [files.episode(3), files.episode(3, **changes)])
    with refused_at(f"record 1 (from 0){feature}", got):
        read(folder)


def test_an_episode_of_zero_steps_is_named(tmp_path):
    folder = files.write(tmp_path / "1.0.0", [files.episode(0)])
    with pytest.raises(MuvlaError) as info:
        read(folder)
    assert info.value.field.endswith("toy-train.tfrecord-00000-of-00001: record 0 (from 0)")


def test_cameras_of_two_sizes_need_one(tmp_path):
    steps = files.MIKASA | {
        "observation": files.group(
            {"image": files.image(16), "wrist_image": files.image(), "proprio": files.tensor("float32", 7)}
        )
    }
    folder = files.write(tmp_path / "1.0.0", [files.episode(3, **{"observation/image": OTHER_SIZE})], steps)
    with pytest.raises(MuvlaError) as info:
        read(folder)
    assert info.value.field.endswith("toy-train.tfrecord-00000-of-00001: record 0 (from 0)")
    (one,) = read_demonstrations(RldsDirectory(folder), MIKASA, TASK, image_size=32)
    assert one.images.shape == (3, 2, 32, 32, 3) and np.array_equal(one.images[:, 1], files.pixels(3, 1000))


def test_without_crc32c_the_remedy_is_told(tmp_path, monkeypatch):
    folder = files.write(tmp_path / "1.0.0", [files.episode(3)])
    monkeypatch.setitem(sys.modules, "crc32c", None)
    with pytest.raises(MuvlaError) as info:
        read(folder)
    assert info.value.field == "crc32c"


def test_the_layout_of_features_json_is_what_is_read(tmp_path):
    """Not what the schema expects: a declared dtype decides."""
    folder = files.write(tmp_path / "1.0.0", [files.episode(3)])
    edited("features.json", '"float32"', '"float64"')(folder)
    (one,) = RldsDirectory(folder).records(["steps/action"])
    assert one.values["steps/action"].dtype == np.float64
    assert json.loads((folder / "dataset_info.json").read_text())["name"] == "toy"


def raw_feature(number, content):
    """An Example with one feature `x`, whose list is raw bytes."""
    entry = files.field(1, b"x") + files.field(2, files.field(number, content))
    return files.field(1, files.field(1, entry))


@pytest.mark.parametrize(
    "example",
    [
        b"\x0a" + b"\xff" * 400_000,
        raw_feature(3, files.field(1, b"\xff" * 400_000)),
        raw_feature(3, files.field(1, b"\xff" * 10 + b"\x01")),
        raw_feature(3, files.field(1, b"\xff" * 9 + b"\x02")),
        raw_feature(3, b"\x0d" + b"\0" * 4),
        raw_feature(2, b"\x08\x01"),
        raw_feature(2, b"\x09" + b"\0" * 8),
        raw_feature(2, files.field(1, b"\0" * 5)),
        raw_feature(1, b"\x08\x01"),
        raw_feature(4, b""),
        b"\x08\x01",
        files.field(1, files.field(1, files.field(1, b"x")) * 2),
        b"\x02\x00",
    ],
)
def test_an_example_of_another_encoding_is_refused_in_linear_time(example):
    start = time.process_time()
    with pytest.raises(MuvlaError) as info:
        parse_example(example, "record 0")
    assert info.value.field == "record 0" and time.process_time() - start < 2


def test_packed_and_separate_numbers_are_the_same():
    numbers = [0, 1, 300, 2**63 - 1, -1]
    separate = b"".join(b"\x08" + files.varint(number) for number in numbers)
    assert parse_example(raw_feature(3, separate), "x")["x"].tolist() == numbers
    packed = files.field(1, b"".join(files.varint(number) for number in numbers))
    assert parse_example(raw_feature(3, packed), "x")["x"].tolist() == numbers
    floats = np.array([1.5, -2], "<f4")
    separate = b"".join(b"\x0d" + value.tobytes() for value in floats)
    assert parse_example(raw_feature(2, separate), "x")["x"].tolist() == floats.tolist()


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"is_first": np.array([0, 1, 2])}, "steps/is_first"),
        ({"is_first": np.zeros(3, np.float32)}, "steps/is_first"),
        ({"action": np.zeros((3, 7), np.int64)}, "steps/action"),
    ],
)
def test_numbers_that_the_declared_dtype_does_not_hold_are_refused(tmp_path, change, feature):
    directory = RldsDirectory(files.write(tmp_path / "1.0.0", [files.episode(3, **change)]))
    with refused_at(f"record 0 (from 0): {feature}"):
        list(directory.records())
