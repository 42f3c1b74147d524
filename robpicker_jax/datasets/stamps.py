"""Stamps of input files, by which it is seen that one has changed since.

A stamp is cheap: size, time of change, and a hash of samples of the content. Files of up to a MiB (lists, headers,
chunks) are hashed whole. A folder (OME-Zarr) counts by all files in it, however deep they lie: writing a chunk does not
touch the folder itself.

A file of another size or hash has changed. One of another time alone may have, where its hash is of samples: what can be
made again is made again then; what cannot is gone on with, and that is said.
"""

from __future__ import annotations

import hashlib
import json
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
    """Size in bytes, hash, and time of change of a file, or of a folder with everything in it.

    The time, in nanoseconds, is null where the hash is of the whole content.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    if not path.is_dir():
        size = path.stat().st_size
        _add_samples(digest, path)
        return {"bytes": size, "hash": digest.hexdigest()[:32], "time": changed_at(path) if size > _WHOLE else None}
    members = _members(path)
    sizes = [member.stat().st_size for member in members]
    for member, size in zip(members, sizes, strict=True):
        digest.update(f"{member.relative_to(path)}\0{size}\0".encode(errors="surrogateescape"))
    step = -(-len(members) // _SAMPLED_FILES) or 1
    for member in members[::step]:
        _add_samples(digest, member)
    whole = step == 1 and max(sizes, default=0) <= _WHOLE
    return {"bytes": sum(sizes), "hash": digest.hexdigest()[:32], "time": None if whole else changed_at(path)}


def content_stamp(path: Path) -> dict[str, Any]:
    """Size and hash of a file or folder, without the time: what a copy has too.

    Raises:
        OSError: it cannot be read.
    """
    return {key: value for key, value in stamp(path).items() if key != "time"}


def changed_at(path: Path) -> int:
    """Time of the latest change of a file, or of anything in a folder, in nanoseconds."""
    times = [path.stat().st_mtime_ns]
    if path.is_dir():
        times += [member.stat().st_mtime_ns for member in _members(path)]
    return max(times)


def stamps(splits: Mapping[str, Sequence[TomogramFiles]]) -> dict[str, dict[str, Any]]:
    """Split → file → stamp of everything that a data set's tomograms consist of.

    Files go by their names within their split, so that a data set may be moved as a whole. Where those do not tell the
    tomogram, as in copick projects, its name stands before them.

    Raises:
        OSError: a file cannot be read.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for split, tomograms in splits.items():
        named: dict[str, Path] = {}
        for tomogram in tomograms:
            for path in dict.fromkeys(_files(tomogram)):
                name = _name(tomogram, path)
                if name in named:  # as in lists/ribosome/TS_01.star and lists/p97/TS_01.star
                    name = f"{path.parent.name}/{name}"
                named[name] = path
        found[split] = {name: stamp(path) for name, path in named.items()}
    return found


def changed_files(
    before: Any, now: Mapping[str, Mapping[str, Any]], splits: Sequence[str] = SPLITS, *, surely: bool = False
) -> list[str]:
    """Files of some splits that changed, came or went between two calls of `stamps`, each with what happened to it.

    Args:
        before: earlier stamps, as they were stored; what is no stamps counts as none.
        now: stamps.
        splits: the splits.
        surely: leave out files of which the time of change alone differs.
    """
    found = []
    for split in splits:
        then = before.get(split) if isinstance(before, Mapping) else None
        then, here = then if isinstance(then, Mapping) else {}, now.get(split, {})
        for name in sorted({*then, *here}):
            if _compared(then.get(name), surely) != _compared(here.get(name), surely):
                what = "is new" if name not in then else "is gone" if name not in here else "changed"
                found.append(f"{split}/{name} {what}")
    return found


def content_digest(stamps_: Mapping[str, Mapping[str, Mapping[str, Any]]], splits: Sequence[str]) -> str:
    """SHA-256 of the stamps of some splits, without their times: equal for a copy of the same files under the same names."""
    content = {
        split: {name: [found.get("bytes"), found.get("hash")] for name, found in stamps_.get(split, {}).items()}
        for split in splits
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _compared(found: Any, surely: bool) -> Any:
    """What counts of a stamp."""
    if not (surely and isinstance(found, Mapping)):
        return found
    return {key: value for key, value in found.items() if key != "time"}


def _files(tomogram: TomogramFiles) -> Iterable[Path]:
    paths = (tomogram.volume_path, tomogram.annotation_path, tomogram.target_path, tomogram.mask_path)
    return (
        path
        for path in (*paths, *(path for _, path in tomogram.class_lists + tomogram.folder_lists))
        if path is not None
    )


def _name(tomogram: TomogramFiles, path: Path) -> str:
    return path.name if tomogram.name in path.name else f"{tomogram.name}/{path.name}"


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
