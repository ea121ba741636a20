"""Files that simulators need and no package contains: their folder, whether they exist, and their content.

A set of assets is a folder, named by an environment variable or in its usual place. Results carry the hash of the
content. Stand-ins replace originals that cannot be had; results name them.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from muvla.errors import MuvlaError
from muvla.utils.io import disk_errors, read_json, write_json
from muvla.utils.locks import locked


@dataclass(frozen=True)
class AssetSet:
    """A set of files that a suite needs.

    what: description for people.
    variable: environment variable that names the folder.
    usual: the folder where the variable is not set.
    parts: files and folders that the folder must contain.
    stand_ins: folder and {file name: SHA-256} → names of the files that are stand-ins.
    fetch: fetches the files into a folder and returns their source. Raises MuvlaError.
    manifest: file in which a fetch of pinned archives lists the SHA-256 of its files; None where nothing is pinned.
    """

    name: str
    what: str
    variable: str
    usual: Callable[[], Path]
    parts: tuple[str, ...]
    stand_ins: Callable[[Path, Mapping[str, str]], tuple[str, ...]]
    fetch: Callable[[Path], str]
    manifest: str | None = None

    @property
    def folder(self) -> Path:
        folder = os.environ.get(self.variable)
        return Path(folder).expanduser() if folder else self.usual()

    @property
    def remedy(self) -> str:
        return f"run `muvla assets fetch {self.name}`, or set {self.variable} to a folder that has it"

    def missing(self) -> str | None:
        """The first part that does not exist."""
        return next((str(self.folder / part) for part in self.parts if not (self.folder / part).exists()), None)

    def require(self) -> Path:
        """The folder. Raises MuvlaError, with the first missing part."""
        if (missing := self.missing()) is not None:
            raise MuvlaError(f"assets {self.name}", got=f"no {missing}", expected=self.what, remedy=self.remedy)
        return self.folder


@dataclass(frozen=True)
class Content:
    """The content of a folder of assets."""

    files: int
    sha256: str  # of all names and contents
    stand_ins: tuple[str, ...]  # names relative to the folder
    unverified: str = ""  # why the files may differ from fetched ones; "" where they are verified or nothing is pinned

    def __str__(self) -> str:
        label = f" with {len(self.stand_ins)} stand-ins" if self.stand_ins else ""
        return f"assets {self.sha256[:12]}{label}{', unverified' if self.unverified else ''}"


def content(assets: AssetSet) -> Content:
    """The content of a set, read once per process. Raises MuvlaError where a part is missing."""
    return _content(assets, assets.require())


def fetched(assets: AssetSet) -> str:
    """Fetch the set into its folder, and list the files in the manifest where archives are pinned.

    A second process waits for the first. Returns the source of the files. Raises MuvlaError and DiskError.
    """
    with locked(assets.folder / ".fetch.lock", wait=True):
        source = assets.fetch(assets.folder)
        if assets.manifest:
            write_json(assets.folder / assets.manifest, {"fetched": source, "files": _hashes(assets, assets.require())})
    return source


@lru_cache(maxsize=8)
def _content(assets: AssetSet, folder: Path) -> Content:
    hashes = _hashes(assets, folder)
    lines = "".join(f"{name} {digest}\n" for name, digest in hashes.items())
    stand_ins = assets.stand_ins(folder, hashes)
    unverified = "" if stand_ins or assets.manifest is None else _unverified(folder / assets.manifest, hashes)
    return Content(len(hashes), hashlib.sha256(lines.encode()).hexdigest(), stand_ins, unverified)


def _unverified(manifest: Path, hashes: Mapping[str, str]) -> str:
    """Why the files may not be fetched ones; "" where the manifest lists exactly these files."""
    if not manifest.exists():
        return f"no {manifest}: `muvla assets fetch` did not bring them"
    listed = read_json(manifest).get("files")
    if not isinstance(listed, dict):
        return f"{manifest} lists no files"
    other = sorted(name for name in {*listed, *hashes} if listed.get(name) != hashes.get(name))
    if not other:
        return ""
    more = f" and {len(other) - 1} more" if len(other) > 1 else ""
    return f"other than {manifest} lists: {other[0]}{more}"


def _hashes(assets: AssetSet, folder: Path) -> dict[str, str]:
    """File name relative to the folder → SHA-256."""
    hashes = {}
    for path in sorted(path for part in assets.parts for path in (folder / part, *(folder / part).rglob("*"))):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):  # notes of the hub's client
            with path.open("rb") as file:
                hashes[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def from_hub(dataset: str, folder: Path) -> str:
    """Fetch a whole dataset of the Hugging Face hub in its current state; a second call continues.

    Returns name and commit; every result carries the content's hash. Raises MuvlaError and DiskError.
    """
    from huggingface_hub import HfApi, snapshot_download

    with _hub_errors(dataset, folder):
        commit = HfApi().dataset_info(dataset, revision="main").sha
        snapshot_download(dataset, repo_type="dataset", revision=commit, local_dir=folder)
    return f"{dataset}@{commit}"


def archive_from_hub(dataset: str, file: str, sha256: str, folder: Path, name: str | None = None) -> str:
    """Fetch a zip archive from a dataset of the hub and unpack it; each part of it appears completely or not at all.

    Args:
        dataset: name on the hub.
        file: the archive in the dataset.
        sha256: the archive's digest.
        folder: where to unpack.
        name: new name of the archive's single folder; None keeps the name.

    Returns:
        The source.

    Raises:
        MuvlaError: the archive cannot be fetched, or has another digest.
        DiskError: the disk is full.
    """
    from huggingface_hub import hf_hub_download

    with _hub_errors(dataset, folder):
        archive = Path(hf_hub_download(dataset, file, repo_type="dataset"))
        with archive.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != sha256:
            raise MuvlaError(
                f"{file} of dataset {dataset}",
                got=f"SHA-256 {digest}",
                expected=sha256,
                remedy="the file changed: compare it with ManiSkill's record, and raise the protocols' versions",
            )
        _unpack(archive, folder, name)
    return f"{dataset}, {file}"


def archive_from_web(url: str, folder: Path, name: str) -> str:
    """Fetch a zip archive of one folder and unpack it as `folder/name`. Raises MuvlaError and DiskError."""
    try:
        with disk_errors(folder), tempfile.TemporaryDirectory() as place:
            archive = Path(place) / "archive.zip"
            with urllib.request.urlopen(url, timeout=60) as answer, archive.open("wb") as file:
                shutil.copyfileobj(answer, file)
            _unpack(archive, folder, name)
    except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise MuvlaError(
            url,
            got=f"{type(error).__name__}: {error}",
            expected="a zip archive",
            remedy="try again, or download it on a machine with a connection and copy the folder",
        ) from error
    return url


def _unpack(archive: Path, folder: Path, name: str | None) -> None:
    """Unpack beside the target and rename, so that no part is ever incomplete. `name` renames a single folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unpacked, zipfile.ZipFile(archive) as packed:
        packed.extractall(unpacked)
        parts = list(Path(unpacked).iterdir())
        for part in parts:
            target = folder / (name if name and len(parts) == 1 else part.name)
            if target.exists():
                target.rename(Path(unpacked) / f"old {target.name}")
            part.rename(target)


@contextlib.contextmanager
def _hub_errors(dataset: str, folder: Path) -> Iterator[None]:
    from huggingface_hub.errors import HTTPError

    try:
        with disk_errors(folder):
            yield
    except (HTTPError, OSError, RuntimeError) as error:
        raise MuvlaError(
            f"dataset {dataset} of the hub",
            got=" ".join(str(error).split())[:200],
            expected="its files",
            remedy="try again, or download it on a machine with a connection and copy the folder",
        ) from error
