"""Placeholders and formats are recognised by content, whatever the file is called."""

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from helpers.errors import refused
from muvla.utils.content import describe_format, find_placeholder, require_real
from muvla.utils.io import read_json

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4976698672\n"


@pytest.mark.parametrize(
    ("content", "command"),
    [
        (POINTER, "git lfs pull"),
        ("/annex/objects/SHA256E-s10--0", "git annex get"),
        ("<!DOCTYPE html>\n<html>", "hf download"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "a.parquet", "config.json"])
def test_a_placeholder_is_named_with_the_command_that_helps(tmp_path, name, content, command):
    file = tmp_path / name
    file.write_text(content)
    with refused(str(file)) as info:
        require_real(file)
    assert command in info.value.remedy
    with refused(str(file)) as info:
        read_json(file)
    assert command in info.value.remedy


def test_real_content_is_no_placeholder(tmp_path):
    for name, content in (("a.json", "{}"), ("b.md", "version 2 of git-lfs"), ("empty", "")):
        (tmp_path / name).write_text(content)
        assert find_placeholder(tmp_path / name) is None
    assert find_placeholder(tmp_path / "missing") is None


def test_formats_are_recognised_without_their_names(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "1")
    save_file({"a": torch.zeros(2)}, tmp_path / "2")
    np.savez(tmp_path / "3.npz", a=np.zeros(2))
    (tmp_path / "4").write_bytes(b"GGUF\x03\x00")
    (tmp_path / "5").write_bytes(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0")
    with zipfile.ZipFile(tmp_path / "6", "w") as archive:
        archive.writestr("x.txt", "x")
    (tmp_path / "7").write_text(json.dumps({}))
    (tmp_path / "8").write_bytes(b"")
    names = [describe_format(tmp_path / name) for name in ("1", "2", "3.npz", "4", "5", "6", "7", "8")]
    assert names[:3] == ["a file of torch.save", "safetensors", "npz"]
    assert names[3].startswith("GGUF") and names[4:] == ["ONNX", "zip", None, "an empty file"]
