"""The checked layer: JSON, names, paths, arrays, HDF5 and tables of others become MuvlaErrors that name the place."""

import errno
import io
import json
import os
import zipfile
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from muvla.checkpoints.native import latest
from muvla.config.model import SizeConfig
from muvla.config.serialization import from_dict, to_dict
from muvla.config.sizes import TINY
from muvla.errors import DiskError, MuvlaError, located
from muvla.utils import hdf5
from muvla.utils.arrays import read_npz, require_array, require_scalar
from muvla.utils.files import disk_errors, read_text, require_file
from muvla.utils.foreign import decode, read_model, read_object
from muvla.utils.io import read_json, read_lines, write_atomically, write_json
from muvla.utils.names import expand, inside, make_name, require_name
from muvla.utils.tables import get_column, read_table


def field_of(call, *arguments, **options) -> str:
    with pytest.raises(MuvlaError) as info:
        call(*arguments, **options)
    return info.value.field


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"[" * 500 + b"]" * 500,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"9" * 150 + b"}",
        b"{'a': 1}",
    ],
    ids=["empty", "cut", "encoding", "open", "deep", "digits", "more digits", "quotes"],
)
def test_broken_json_names_its_file_and_its_line(tmp_path, content):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    assert field_of(read_json, file) == str(file)
    if content:
        file.write_bytes(b"{}\n" + content + b"\n")
        assert field_of(read_lines, file) == f"{file}:2"


def test_integers_and_marks_of_published_files_are_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(b'\xef\xbb\xbf{"model_max_length": 1000000000000000019884624838656, "limit": Infinity}')
    assert read_object(file)["model_max_length"] == int(1e30)


class Inner(msgspec.Struct):
    shape: list[int]
    dtype: str


class Outer(msgspec.Struct):
    fps: float
    features: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ([], ""),
        ({}, ": fps"),
        ({"fps": "10"}, ": fps"),
        ({"fps": None}, ": fps"),
        ({"fps": True}, ": fps"),
        ({"fps": float("nan")}, ": fps"),
        ({"fps": 10**90}, None),
        ({"fps": 1, "features": {"a": {"shape": [1, "2"], "dtype": "x"}}}, ": features[...].shape[1]"),
        ({"fps": 1, "features": {"a": {"shape": [1]}}}, ": features[...].dtype"),
        ({"fps": 1, "features": 3}, ": features"),
    ],
)
def test_a_model_names_the_place(tmp_path, data, place):
    file = tmp_path / "info.json"
    file.write_text(json.dumps(data))
    if place is None:
        assert read_model(file, Outer).fps == 1e90
    else:
        assert field_of(read_model, file, Outer) == f"{file}{place}"


def test_an_error_shows_any_value_briefly():
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in ("x" * 10_000, list(range(100_000)), 10**5000, deep):
        error = MuvlaError("x", got=value, expected="less", remedy="leave it out")
        assert len(str(error)) < 1000
    assert field_of(decode, deep, list[int], "x").startswith("x")


def test_files_that_are_none_are_named(tmp_path):
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    (tmp_path / "file").write_text("x")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pointer", "pipe", "circle", "absent", "file/below", "n" * 300):
        assert field_of(require_file, tmp_path / name) in (str(tmp_path / name), repr(str(tmp_path / name)))
    with pytest.raises(MuvlaError) as info:
        require_file(tmp_path / "pointer")
    assert "git lfs pull" in info.value.remedy
    for name in ("a\0b", "\ud800"):
        field_of(read_text, tmp_path / name)
    assert field_of(require_file, tmp_path / "file", limit=0) == str(tmp_path / "file")


@pytest.mark.parametrize(
    "number",
    [errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.EMFILE],
)
def test_an_error_of_a_path_is_no_error_of_the_disk(tmp_path, number):
    with pytest.raises(MuvlaError) as info, disk_errors(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert info.value.field == str(tmp_path / "x") and not isinstance(info.value, DiskError)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE])
def test_an_error_of_the_disk_marks_no_run(tmp_path, number):
    with pytest.raises(DiskError) as info, disk_errors(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert info.value.field == str(tmp_path / "x")
    assert ("free some space" in info.value.remedy) == (number == errno.ENOSPC)


def test_errors_of_the_network_pass():
    with pytest.raises(ConnectionRefusedError), disk_errors(Path("x")):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "no")


def test_writing_below_a_file_or_under_a_long_name_is_one_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "x.json", tmp_path / ("n" * 300)):
        with pytest.raises(MuvlaError):
            write_atomically(path, b"")
        with pytest.raises(MuvlaError):
            read_lines(tmp_path / ("n" * 300))


def test_half_of_a_surrogate_pair_is_written_as_json(tmp_path):
    write_json(tmp_path / "x.json", {"error": "ä\ud800"})
    assert read_json(tmp_path / "x.json") == {"error": "ä\ud800"}


@pytest.mark.parametrize("name", ["a", "touch the disc@1", "a,b", "ä", "x" * 200, "a b-c_d.e", "100%"])
def test_safe_names_pass(name):
    assert require_name(name, "--name") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a ",
        ".",
        "..",
        ".a",
        "a/b",
        "../a",
        "a\\b",
        "a\nb",
        "a\0",
        "a**",
        "a?",
        "[a]",
        "x" * 201,
        "\ud800",
        3,
        None,
    ],
)
def test_unsafe_names_are_refused(name):
    assert field_of(require_name, name, "--name") == "--name"


def test_a_safe_name_is_made_of_any_text():
    for text in ("a b[1]%2", "../x", "x" * 500, "ä" * 200, "\ud800a", "a?*"):
        assert require_name(make_name(text), "x") == make_name(text)


@pytest.mark.parametrize("relative", ["a/b.png", "./a", "a b", "a..b"])
def test_paths_inside_pass(tmp_path, relative):
    assert inside(tmp_path, relative, "x") == tmp_path / relative


@pytest.mark.parametrize("relative", ["/a", "../a", "a/../../b", "", "a\0b", "n" * 300, "a/" * 2000, "\ud800", 3, None])
def test_paths_that_leave_are_refused(tmp_path, relative):
    assert field_of(inside, tmp_path, relative, "info.json: data_path") == "info.json: data_path"


def test_format_strings_of_files_have_names_and_widths_alone():
    values = {"video_key": "a{b}", "chunk_index": 3}
    assert expand("v/{video_key}/chunk-{chunk_index:03d}.mp4", values, "x") == "v/a{b}/chunk-003.mp4"
    for pattern in (
        "{0}",
        "{unknown}",
        "{chunk_index:1000000000}",
        "{chunk_index:0999d}",
        "{chunk_index.real}",
        "{chunk_index!r}",
        "{",
        "}",
        "{}",
        "{video_key:03d}",
        3,
        None,
        "{chunk_index[0]}",
    ):
        assert field_of(expand, pattern, values, "info.json: data_path") == "info.json: data_path"


def npz(file: Path, header: dict, content: bytes, name: str = "a.npy") -> Path:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (1,)} | header)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member.getvalue() + content)
    return file


def test_archives_of_arrays_are_held_against_their_headers(tmp_path):
    np.savez(tmp_path / "whole.npz", a=np.arange(3), b=np.float32(2))
    assert read_npz(tmp_path / "whole.npz", ["b"]) == {"b": 2.0}
    broken = {
        "claim": npz(tmp_path / "1.npz", {"shape": (7 * 2**30,)}, b""),
        "negative": npz(tmp_path / "2.npz", {"shape": (-1, 3)}, b""),
        "short": npz(tmp_path / "3.npz", {"shape": (5,)}, b"1234"),
        "text": tmp_path / "5.npz",
        "objects": tmp_path / "6.npz",
    }
    broken["text"].write_text("no archive")
    np.savez(broken["objects"], a=np.array([{}], dtype=object))
    for file in broken.values():
        assert field_of(read_npz, file).startswith(str(file))


def test_arrays_are_what_is_declared():
    for value in ([[1], [1, 2]], ["a"], [None], np.array([float("nan")])):
        assert field_of(require_array, value, "x", kinds="f", finite=True) == "x"
    assert field_of(require_array, np.zeros((2, 3)), "x", shape=(None, 2)) == "x"
    assert require_array(np.zeros((2, 3)), "x", shape=(None, 3)).shape == (2, 3)
    assert require_scalar(np.array([3]), "x") == 3
    assert field_of(require_scalar, np.array([3.5]), "x") == "x"


def test_nothing_of_hdf5_leaves_its_file(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(12))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.zeros(3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["group/a"] = np.arange(3)
        file["soft"] = h5py.SoftLink("/group/a")
        file["external"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/a")
        file.create_dataset("stored", (3,), "f4", external=[(str(secret), 0, 12)])
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a", (3,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("huge", (2**33,), "f4", chunks=(1024,))
        file["text"] = "words"
    where = str(tmp_path / "x.h5")
    with hdf5.open_hdf5(tmp_path / "x.h5") as file:
        assert hdf5.read_dataset(hdf5.get_node(file, "group/a", where), where).tolist() == [0, 1, 2]
        assert hdf5.read_text(hdf5.get_node(file, "text", where), where) == "words"
        assert [path for path, _ in hdf5.walk(file["group"], where)] == ["a"]
        for name in ("soft", "external", "stored", "virtual", "absent", "group/a/b"):
            assert field_of(hdf5.get_node, file, name, where) == f"{where}: {name}"
        field_of(lambda: list(hdf5.walk(file, where)))
        assert field_of(hdf5.read_dataset, hdf5.get_node(file, "huge", where), "x") == "x"
        assert field_of(hdf5.read_dataset, hdf5.get_node(file, "text", where), "x") == "x"
        assert field_of(hdf5.read_dataset, file["group"], "x") == "x"
    (tmp_path / "text.h5").write_text("no HDF5")
    assert field_of(hdf5.open_hdf5(tmp_path / "text.h5").__enter__) == str(tmp_path / "text.h5")


def test_columns_of_tables_are_what_is_declared(tmp_path):
    table = pa.table({"index": [0, None], "text": ["a", "b"], "number": [1.0, float("inf")], "texts": [["a"], [None]]})
    pq.write_table(table, tmp_path / "x.parquet")
    table, where = read_table(tmp_path / "x.parquet"), "x.parquet"
    assert get_column(table, "text", where, "text") == ["a", "b"]
    assert get_column(table, "index", where, "integer", nulls=True) == [0, None]
    for name, content in (
        ("index", "integer"),
        ("text", "integer"),
        ("number", "number"),
        ("texts", "texts"),
        ("no", "any"),
    ):
        assert field_of(get_column, table, name, where, content) == f"{where}: {name}"
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-20])
    assert field_of(read_table, tmp_path / "cut.parquet") == str(tmp_path / "cut.parquet")


@pytest.mark.parametrize("place", ["layers", "vocabulary", "dino.layers", "siglip.mlp"])
@pytest.mark.parametrize("number", [0, 2**40, 2**64])
def test_a_size_that_no_model_has_is_refused_before_a_layer_is_built(place, number):
    size = to_dict(TINY)
    *parents, leaf = place.split(".")
    node = size[parents[0]] if parents else size
    node[leaf] = number
    assert leaf in field_of(from_dict, SizeConfig, size)


def test_an_error_about_a_field_names_its_file():
    with pytest.raises(MuvlaError) as info, located("run.json"):
        from_dict(SizeConfig, {})
    assert info.value.field.startswith("run.json: ")


def test_a_pointer_that_names_no_checkpoint_is_refused(tmp_path):
    pointer = tmp_path / "latest"
    (tmp_path / "update-000002").mkdir()
    (tmp_path / "update-000002" / "checkpoint.json").write_text("{}")
    pointer.write_text("update-000002\n")
    assert latest(tmp_path) == tmp_path / "update-000002"
    for content in (b"\xff", b"../x", b"update-000002/..", b"x" * 5000, b""):
        pointer.write_bytes(content)
        assert field_of(latest, tmp_path) == str(pointer)
