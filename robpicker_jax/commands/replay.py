"""`train --replay W`: run a workdir's record again, and compare what comes out bit by bit.

A record is what a run's folder says of it: `config.yaml` (with the micro-batches as planned), the stamps of its data, and
what came out: rows of metrics, evaluation, picks, model. The same settings and data on the same versions and the same kind
of device give the same numbers, whenever and however often the run was stopped in between.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robpicker_jax.datasets import dataset
from robpicker_jax.datasets.stamps import changed_files, stamps
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object
from robpicker_jax.system.progress import say
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.metrics_log import read_metrics

_OF_THE_CLOCK = {"patches_per_second", "input_wait_share"}
_OF_THE_START = {"date", "command", "plan"}


def replay(record: Path, workdir: Path | None = None) -> int:
    """Run the job of a record anew in another folder and compare; 0 where all is equal, else 1.

    The folder is removed where all is equal, unless it was named.

    Args:
        record: folder of a run.
        workdir: folder of the replay; by default beside the record.

    Raises:
        InputError: no run, or a run on other data than there are now.
    """
    from robpicker_jax.commands import main_job

    config = folders.read_config(record)
    rows = _rows(record)
    if not rows:
        raise InputError("holds no rows of a training to compare with", where=record / "metrics.jsonl")
    _check_data(record, config.data.dir)
    again = record.with_name(f"{record.resolve().name}-replay") if workdir is None else workdir
    if again.resolve() == record.resolve():
        raise InputError("is the record itself", where=again, fix="give another --workdir")
    main_job.run(config, again)
    for line in _other_versions(record, again):
        say(line)
    difference = first_difference(record, again)
    if difference is not None:
        say(f"replay of {record}: {difference}\nthe replay is kept in {again}")
        return 1
    say(f"replay of {record}: {len(rows)} rows of metrics, evaluation, picks and model are equal, bit by bit")
    if workdir is None:
        shutil.rmtree(again)
    return 0


def first_difference(record: Path, again: Path) -> str | None:
    """The first thing in which a replay differs from its record, in words; None where it does not.

    Of a record that was not finished, what there is of it counts.
    """
    before, after = _rows(record), _rows(again)
    for old, new in itertools.zip_longest(before, after):
        if old is None:  # the record ends here
            break
        found = "the replay has no such row" if new is None else _difference(old, new)
        if found is not None:
            return f"step {old['step']}, {old['kind']}: {found}"
    for path in (Path("evaluation.json"), *sorted(p.relative_to(record) for p in record.glob("picks/[!.]*"))):
        if (record / path).is_file() and _content(record / path) != _content(again / path):
            return f"{path} differs"
    if (record / "model.rpk").is_file() and (record / "results.json").is_file():
        return None if _content(record / "model.rpk") == _content(again / "model.rpk") else "model.rpk differs"
    return None


def _rows(workdir: Path) -> list[dict[str, Any]]:
    rows = read_metrics(workdir / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key not in _OF_THE_CLOCK} for row in rows]


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    for key in dict.fromkeys([*old, *new]):
        # JSON keeps every digit of a number, so equal text means equal bits.
        if json.dumps(old.get(key)) != json.dumps(new.get(key)):
            return f"{key} was {old.get(key)!r} and is {new.get(key)!r} now"
    return None


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _check_data(record: Path, folder: str | None) -> None:
    """Refuse a replay on other data; data that the run simulated itself are simulated in the same way again."""
    if folder is None or not (record / "inputs.json").is_file():
        return
    before = read_json_object(record / "inputs.json")
    now = stamps(dataset(Path(folder), folders.read_config(record).data))
    if changed := changed_files(before, now, surely=True):
        raise InputError(f"the data have changed since the record was made: {', '.join(changed[:3])}", where=folder)


def _other_versions(record: Path, again: Path) -> list[str]:
    """What numbers depend on and is not as it was, a line each."""
    try:
        before, after = read_json_object(record / "versions.json"), read_json_object(again / "versions.json")
    except InputError as error:
        return [f"warning: {error}"]
    keys = [key for key in after if key not in _OF_THE_START and before.get(key) != after[key]]
    return [f"warning: made with {key} {before.get(key)}, here {after[key]}: numbers may differ" for key in keys]
