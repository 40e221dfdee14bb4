"""Data sets of the Hugging Face hub as data roots: `hf://datasets/OWNER/NAME[@revision]`.

The files are fetched into the cache of `huggingface_hub`, once; `OCL_BENCH_OFFLINE` or `HF_HUB_OFFLINE` takes what is
there. A branch or tag is resolved to its commit, which becomes part of the revision of the data.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import DataMissingError, UsageError
from ..core.log import logger, quiet
from ..core.optional import import_optional

_PATTERN = re.compile(r"hf:/+datasets/([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")
_FILES = ("*.parquet", "*.tar", "*.json", "*.txt")
"""What readers can use; scripts are neither fetched nor run."""


@dataclass(frozen=True)
class HubFolder:
    """Files of the hub in the local cache. revision: name of the data set and commit."""

    path: Path
    revision: str


def is_hub(root: Path | str) -> bool:
    """Whether a data root names a place on the hub. A Path has lost one of the two slashes."""
    return str(root).startswith("hf:/")


def fetch(root: Path | str) -> HubFolder:
    """The files of a data set, from the cache or the hub.

    Raises:
        UsageError: the text is not `hf://datasets/OWNER/NAME[@revision]`.
        DataMissingError: the files are not in the cache, and the hub cannot be reached, does not know the data set, or
            asks for its terms to be accepted first.
    """
    shown = re.sub("^hf:/+", "hf://", str(root))
    match = _PATTERN.fullmatch(str(root))
    if match is None:
        raise UsageError(f"{shown}: write hf://datasets/OWNER/NAME or hf://datasets/OWNER/NAME@REVISION")
    name, revision = match[1], match[2] or "main"
    import_optional("huggingface_hub", "hub", shown)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    offline = any(os.environ.get(key, "") not in ("", "0") for key in ("HF_HUB_OFFLINE", "OCL_BENCH_OFFLINE"))
    if not offline:
        logger.info("fetching %s@%s from the Hugging Face hub (files in the cache are kept)", name, revision)
    try:
        with quiet("huggingface_hub"):
            folder = snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=list(_FILES), local_files_only=offline
            )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        how = "offline, and it is not in the cache; fetch it once online" if offline else "the hub cannot be reached"
        raise DataMissingError(f"{shown}: {how}") from error
    except GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{name}"
        raise DataMissingError(f"{shown}: accept its terms on {page}, then `hf auth login`") from error
    except (HfHubHTTPError, OSError) as error:
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataMissingError(f"{shown}: cannot be fetched ({text})") from error
    path = Path(folder)
    return HubFolder(path, f"{name.replace('/', '--')}@{path.name[:12]}")  # a revision may become part of a file name
