"""Stamps of input files, by which it is seen that one has changed since.

A stamp is cheap: sizes, and a hash of samples of the content. Files of up to a MiB (lists, headers, chunks) count
whole. A folder (OME-Zarr) counts by all files in it, however deep they lie: writing a chunk does not touch the
folder itself. The time of change is no part of a stamp, since copying changes it; scalings, which are cheap to find
again, hold only as long as that is the same too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robpicker_jax.datasets.discovery import SPLITS, TomogramFiles

Stamps = dict[str, dict[str, dict[str, Any]]]
"""Split → file → stamp."""

_WHOLE = 1 << 20
_PIECE = 1 << 16
_PIECES = 16
_SAMPLED_FILES = 64


def stamp(path: Path) -> dict[str, Any]:
    """Size in bytes and sampled hash of a file, or of a folder with everything in it.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    if not path.is_dir():
        _add_samples(digest, path)
        return {"bytes": path.stat().st_size, "hash": digest.hexdigest()[:32]}
    members = _members(path)
    total = 0
    for member in members:
        size = member.stat().st_size
        total += size
        digest.update(f"{member.relative_to(path)}\0{size}\0".encode(errors="surrogateescape"))
    for index in range(0, len(members), max(1, len(members) // _SAMPLED_FILES)):
        _add_samples(digest, members[index])
    return {"bytes": total, "hash": digest.hexdigest()[:32]}


def changed_at(path: Path) -> int:
    """Time of the latest change of a file, or of anything in a folder, in nanoseconds."""
    times = [path.stat().st_mtime_ns]
    if path.is_dir():
        times += [member.stat().st_mtime_ns for member in _members(path)]
    return max(times)


def stamps(splits: Mapping[str, Sequence[TomogramFiles]]) -> dict[str, dict[str, Any]]:
    """Split → file → stamp of everything that a data set's tomograms consist of.

    Files go by their names within their split, so that a data set may be moved as a whole.

    Raises:
        OSError: a file cannot be read.
    """
    return {
        split: {path.name: stamp(path) for tomogram in tomograms for path in _files(tomogram)}
        for split, tomograms in splits.items()
    }


def changed_files(before: Any, now: Mapping[str, Mapping[str, Any]], splits: Sequence[str] = SPLITS) -> list[str]:
    """Files of some splits that changed, came or went between two calls of `stamps`, each with what happened to it.

    Args:
        before: earlier stamps, as they were stored; what is no stamps counts as none.
        now: stamps.
        splits: the splits.
    """
    found = []
    for split in splits:
        then = before.get(split) if isinstance(before, Mapping) else None
        then, here = then if isinstance(then, Mapping) else {}, now.get(split, {})
        for name in sorted({*then, *here}):
            if then.get(name) != here.get(name):
                what = "is new" if name not in then else "is gone" if name not in here else "changed"
                found.append(f"{split}/{name} {what}")
    return found


def _files(tomogram: TomogramFiles) -> Iterable[Path]:
    paths = (tomogram.volume_path, tomogram.annotation_path, tomogram.target_path, tomogram.mask_path)
    return (path for path in paths if path is not None)


def _members(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _add_samples(digest: Any, path: Path) -> None:
    """Add a file's size and content, the latter by evenly spaced pieces where it is large."""
    size = path.stat().st_size
    digest.update(f"{size}\0".encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
            return
        for piece in range(_PIECES):
            file.seek(piece * (size - _PIECE) // (_PIECES - 1))
            digest.update(file.read(_PIECE))
