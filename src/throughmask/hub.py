"""Model repositories on the hub: downloaded once, and said to be large before they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .errors import SampleError

Say = Callable[[str], None]


def download(repo: str, patterns: Sequence[str], say: Say) -> Path:
    """A hub repository's folder, from the cache where it is whole there; `say` hears how much before it comes.

    patterns: of the files that are wanted. HF_HUB_OFFLINE is respected. Raises SampleError if it cannot be had.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError  # type: ignore[attr-defined]

    fix = "check the name and the network, or name a folder that holds the model"
    if not constants.HF_HUB_OFFLINE:
        try:
            files = snapshot_download(repo, allow_patterns=list(patterns), dry_run=True)
            wanted = [file for file in files if file.will_download]
            gigabytes = sum(file.file_size or 0 for file in wanted) / 1e9
            say(f"{repo}: {len(wanted)} of {len(files)} files to download, {gigabytes:.1f} GB; the rest is cached")
            return Path(snapshot_download(repo, allow_patterns=list(patterns)))
        except (HTTPError, OSError, ValueError) as error:  # ValueError: not a name that a repository can have
            reason = str(error.__cause__ or error).strip().splitlines()[0]
    else:
        reason = "HF_HUB_OFFLINE is set, and the cache does not hold it"
        fix = "unset HF_HUB_OFFLINE, or name a folder that holds the model"
    try:
        found = Path(snapshot_download(repo, allow_patterns=list(patterns), local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        raise SampleError(f"{repo} cannot be downloaded", seen=reason, fix=fix) from None
    say(f"{repo}: from the cache, without asking the hub")
    return found
