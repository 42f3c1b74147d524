"""Which tomograms of a batch are finished, so that a batch that was stopped goes on, and shards of it fit together.

A command that applies a model keeps a record for each tomogram in `OUT/.finished/VERB/{name}.json`: by which settings
the results were made, from which input, and what the written files are. A tomogram is finished where all of these are
still the same. A record is written after the files that it speaks of, in one step, so that a stop at any moment leaves
a tomogram either finished or to be done again. Before the files, it is recorded that they are begun: only what was
begun and not finished is replaced without being asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.datasets import TomogramFiles
from robpicker_jax.datasets.stamps import stamp
from robpicker_jax.system.files import atomic_path, read_arrays, write_text
from robpicker_jax.system.version import __version__

_COLUMNS = ("positions_vox", "labels", "rotations", "scores", "cluster_sizes", "class_names", "tomograms")
_EXTRA = "extra "


@dataclass(frozen=True)
class WrittenClass:
    """What picks of one class in the lists are.

    Attributes:
        species: the picker's name of the class; None where several of its classes go by one name in the lists.
        min_score: smallest score that they were kept with; None where it is not known.
    """

    species: str | None
    min_score: float | None = None


@dataclass(frozen=True)
class Finished:
    """The finished tomograms of one command in one folder.

    Attributes:
        out: the folder that results go to.
        verb: the command.
        settings: all that results depend on, beside the tomogram, as JSON can hold it; None: not known, so that nothing
            counts as finished.
        classes: what picks of each class are, by its name in the lists; told in every record.
    """

    out: Path
    verb: str
    settings: Mapping[str, Any] | None
    classes: Mapping[str, WrittenClass] = field(default_factory=dict)

    def has(self, name: str, tomogram: TomogramFiles) -> bool:
        """Whether the results of a tomogram are there as these settings make them of the tomogram as it is now."""
        try:
            record = json.loads(self._record(name).read_text(encoding="utf-8"))
            made = record["settings"] == self._digest() and record["input"] == _stamps(tomogram)
            return made and all(stamp(self.out / file) == known for file, known in record["files"].items())
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            RecursionError,
        ):  # no record, or a damaged one
            return False

    def add(self, name: str, tomogram: TomogramFiles, files: Sequence[Path]) -> None:
        """Record a tomogram whose results have been written to these files."""
        if self.settings is None:
            return
        record = {
            "settings": self._digest(),
            "input": _stamps(tomogram),
            "volume": _path(tomogram),
            "files": {file.relative_to(self.out).as_posix(): stamp(file) for file in files},
        }
        record |= {"classes": {name: asdict(known) for name, known in self.classes.items()}} if self.classes else {}
        write_text(self._record(name), json.dumps(record, indent=1) + "\n")

    def begin(self, name: str, tomogram: TomogramFiles, files: Sequence[Path]) -> None:
        """Record that the results of a tomogram are about to be written to these files."""
        if self.settings is None:
            return
        begun = [file.relative_to(self.out).as_posix() for file in files]
        record = {"settings": self._digest(), "input": _stamps(tomogram), "volume": _path(tomogram), "begun": begun}
        write_text(self._record(name), json.dumps(record, indent=1) + "\n")

    def own(self, name: str, tomogram: TomogramFiles) -> list[Path]:
        """Files of a tomogram that may be replaced: begun and not finished, or still as these settings made them."""
        record = self._stored(self._record(name))
        if "begun" in record:
            return [self.out / file for file in record["begun"]]
        if record.get("settings") != self._digest() or record.get("input") != _stamps(tomogram):
            return []
        return self._unchanged(record)

    def begin_together(self, files: Sequence[Path]) -> None:
        """Record that the results of all tomograms are about to be written into these files."""
        if self.settings is not None:
            begun = [file.relative_to(self.out).as_posix() for file in files]
            write_text(self._together(), json.dumps({"begun": begun}, indent=1) + "\n")

    def add_together(self, names: Sequence[str], files: Sequence[Path]) -> None:
        """Record that the results of these tomograms have been written into these files."""
        if self.settings is not None:
            stamps = {file.relative_to(self.out).as_posix(): stamp(file) for file in files}
            record = {"settings": self._digest(), "tomograms": list(names), "files": stamps}
            write_text(self._together(), json.dumps(record, indent=1) + "\n")

    def own_together(self, names: Sequence[str]) -> list[Path]:
        """Files of all tomograms that may be replaced: begun and not finished, or made by these settings of some of them."""
        record = self._stored(self._together())
        if "begun" in record:
            return [self.out / file for file in record["begun"]]
        if record.get("settings") != self._digest() or not set(record.get("tomograms", [])) <= set(names):
            return []
        return self._unchanged(record)

    def _stored(self, path: Path) -> dict[str, Any]:
        """The record; empty where there is none, it is damaged, or nothing counts as finished."""
        if self.settings is None:
            return {}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) and _is_record(record) else {}

    def _unchanged(self, record: Mapping[str, Any]) -> list[Path]:
        """The files of a record that nobody changed since."""
        files = {self.out / file: known for file, known in record.get("files", {}).items()}
        return [file for file, known in files.items() if file.exists() and stamp(file) == known]

    def leave_out(self, name: str, tomogram: TomogramFiles, reason: str) -> None:
        """Record a tomogram that cannot be used: it is tried again by a later run, and no shard waits for it."""
        if self.settings is not None:
            record = {"settings": self._digest(), "input": _stamps(tomogram), "volume": _path(tomogram)}
            record |= {"left out": reason}
            write_text(self._record(name), json.dumps(record, indent=1) + "\n")

    def left_out(self, name: str) -> bool:
        """Whether `leave_out` recorded the tomogram last."""
        try:
            return "left out" in json.loads(self._record(name).read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            return False

    def keep_picks(self, name: str, picks: Particles) -> Path:
        """Keep the picks of one tomogram, every number exactly, until those of all tomograms are written into one file."""
        path = self._record(name).with_suffix(".npz")
        columns = {column: getattr(picks, column) for column in _COLUMNS}
        columns |= {f"{_EXTRA}{column}": values for column, values in picks.extra.items()}
        with atomic_path(path) as temporary:
            np.savez(temporary, allow_pickle=False, **{k: v for k, v in columns.items() if v is not None})
        return path

    def kept_picks(self, name: str) -> Particles:
        """The picks that `keep_picks` kept."""
        columns = read_arrays(self._record(name).with_suffix(".npz"))
        extra = {
            column.removeprefix(_EXTRA): columns.pop(column) for column in list(columns) if column.startswith(_EXTRA)
        }
        return Particles(**columns, extra=extra)

    def _record(self, name: str) -> Path:
        return self.out / ".finished" / self.verb / f"{name}.json"

    def _together(self) -> Path:
        return self.out / ".finished" / f"{self.verb}-together.json"

    def _digest(self) -> str:
        if self.settings is None:
            return ""
        settings = json.dumps([__version__, self.settings], sort_keys=True, default=str)
        return hashlib.sha256(settings.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """What the records of a batch say of one tomogram.

    Attributes:
        name: the tomogram.
        volume: its volume's file; None where the record does not tell.
        files: what was written for it; empty unless it is finished.
        left_out: why it is left out; None: it is not.
        classes: what picks of each class are, by its name in the lists; classes of which the record tells nothing are
            absent.
    """

    name: str
    volume: Path | None
    files: tuple[Path, ...]
    left_out: str | None
    classes: Mapping[str, WrittenClass] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether its results are there."""
        return bool(self.files)


def entries(out: Path, verb: str) -> Iterator[Entry]:
    """The tomograms of a command's batch in a folder, by name, one record read at a time; damaged records are passed over."""
    for path in sorted((out / ".finished" / verb).glob("*.json")):
        record = Finished(out, verb, {})._stored(path)
        if not record:
            continue
        volume, reason = record.get("volume"), record.get("left out")
        files = tuple(out / file for file in record.get("files", {}))
        yield Entry(
            path.stem,
            Path(volume) if isinstance(volume, str) else None,
            tuple(file for file in files if file.is_file()),
            reason if isinstance(reason, str) else None,
            _classes(record),
        )


def _classes(record: Mapping[str, Any]) -> dict[str, WrittenClass]:
    """What a record tells of its classes; what is damaged counts as not told."""
    found = record.get("classes")
    known = {}
    for name, entry in found.items() if isinstance(found, dict) else ():
        if isinstance(entry, dict):
            species, score = entry.get("species"), entry.get("min_score")
            known[name] = WrittenClass(
                species if isinstance(species, str) else None, score if isinstance(score, float) else None
            )
    return known


def _path(tomogram: TomogramFiles) -> str:
    return str(tomogram.volume_path.resolve())


def _is_record(found: Mapping[str, Any]) -> bool:
    """Whether what a record names are files and tomograms; a damaged one counts as none."""
    names = [found.get("begun", []), found.get("tomograms", [])]
    lists = all(isinstance(some, list) and all(isinstance(name, str) for name in some) for some in names)
    return lists and isinstance(found.get("files", {}), dict)


def shard_of(text: str) -> tuple[int, int]:
    """`I/N`: the I-th of N parts of a batch, counted from 1.

    Raises:
        ValueError: not two whole numbers with 1 ≤ I ≤ N.
    """
    index, _, count = text.partition("/")
    number, total = int(index), int(count)
    if not 1 <= number <= total:
        raise ValueError(text)
    return number, total


def _stamps(tomogram: TomogramFiles) -> dict[str, Any]:
    paths = (tomogram.volume_path, tomogram.mask_path)
    return {path.name: stamp(path) for path in paths if path is not None}
