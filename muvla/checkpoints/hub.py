"""Released checkpoints by their names on the Hugging Face hub, fetched into its usual cache and read from there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from muvla.checkpoints.parts import IGNORED
from muvla.checkpoints.released import UPSTREAM_FILES
from muvla.errors import MuvlaError
from muvla.utils.io import disk_errors

HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>\S+))?", re.ASCII)
PATH_STARTS = ("/", ".", "~")  # what no owner on the hub can begin with
# Every part, also those that the loader has no place for: left behind, they could not be refused.
FETCHED = (*UPSTREAM_FILES, "model*.safetensors", "*--*_checkpoint.pt", "lora_adapter/*")
LEFT_BEHIND = tuple(f"*{part}--*" for part in IGNORED)  # gigabytes that nothing here reads
EXPECTED = "a folder, or owner/name[@revision] of the hub"


def checkpoint_folder(name: str | Path) -> Path:
    """The folder that `name` means: itself where it is one, else that of `owner/name` or `owner/name@revision` on the
    hub, fetched unless the cache has it. Without a connection what the cache holds whole is used.

    Nothing of the repository is executed. A path that is not there is given back as it is: whoever reads it says what
    is missing. Raises MuvlaError for a name that is neither and for what the hub does not give, DiskError for a cache
    that cannot be written.
    """
    path, text = Path(name).expanduser(), str(name)
    missing = not path.exists()
    if path.is_dir() or (missing and text.startswith(PATH_STARTS)):
        return path
    if missing and (found := HUB_NAME.fullmatch(text)):
        return _fetched(text, found["repository"], found["revision"])
    raise _no_name(text, "no such folder" if missing else "a file")


@lru_cache(maxsize=16)
def _fetched(name: str, repository: str, revision: str | None) -> Path:
    """Asked once per process, so that what a name means cannot change while a cell is trained."""
    try:
        with disk_errors(Path(constants.HF_HUB_CACHE)), _numbered():
            return Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(FETCHED),
                    ignore_patterns=list(LEFT_BEHIND),
                    tqdm_class=_Bar,
                )
            )
    except HFValidationError:
        raise _no_name(name, "no such folder, and no name that the hub allows") from None
    except (HTTPError, OSError, RuntimeError) as error:
        raise _explained(name, repository, error) from error


class _Bar(tqdm):
    """On a terminal only, as every bar here; the hub's own bar of files is shown anywhere."""

    def __init__(self, *args, **options):
        super().__init__(*args, **{"disable": None, **options})


@contextlib.contextmanager
def _numbered() -> Iterator[None]:
    """Large files are fetched by hf_xet, which tells the number of a system's error in the text alone, mostly that of
    a RuntimeError: "IO Error: No space left on device (os error 28)"."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error


def _no_name(name: str, got: str) -> MuvlaError:
    return MuvlaError(name, got=got, expected=EXPECTED, remedy="check the path or the name")


def _explained(name: str, repository: str, error: Exception) -> MuvlaError:
    """One error for what the hub, the way to it or hf_xet raised."""
    offline = isinstance(error, LocalEntryNotFoundError)  # says no more than that the cache does not have it either
    cause = (error.__cause__ or error) if offline else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(cause, RevisionNotFoundError):
        got, remedy = "no such revision", f"name a branch, a tag or a commit of {page}"
    elif isinstance(cause, GatedRepoError) or status == 403:
        got, remedy = "no permission", f"log in with `hf auth login` and accept the terms on {page}"
    elif isinstance(cause, RepositoryNotFoundError) or status == 401:
        got = "no such folder, and no such repository, or a private one"
        remedy = "check the name; for a private repository log in with `hf auth login`"
    else:
        told = next((line for line in str(cause).splitlines() if line), type(cause).__name__)
        got = f"no such folder, and {'no answer' if status is None else 'an error'} of the hub ({told})"
        remedy = "try again, or download it on a machine with a connection and give the folder"
    return MuvlaError(name, got=got, expected=EXPECTED, remedy=remedy)
