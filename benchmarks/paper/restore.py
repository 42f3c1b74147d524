"""Take the finished runs of a study back from its record, so that a study goes on where its folder of runs is gone.

A record holds every figure of every run, and the settings that the runs had. What is written here has the place and
form of a run's own `result.json`; the runner then trains what is missing, and `collect` gathers both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.paper.collect import is_current
from benchmarks.paper.runner import folder_of, say
from benchmarks.paper.study import RESULT, Changes, Matched, Run, Scale, Study, StudyFile, changed, fingerprint
from robpicker_jax.config import as_plain_values
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text


def read_record(path: Path) -> dict[str, Any] | None:
    """The content of a study's record; None where there is none that can be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def restore(study: Study, record: Path, out: Path) -> int:
    """Write `result.json` of each run of a record that has the study's settings and metrics, and no folder yet.

    Curves are not restored: `collect` keeps those of the record where no run brings new ones.

    Args:
        study: the study as it is now.
        record: its record.
        out: the folder of runs.

    Returns:
        How many runs were restored.
    """
    restored, content = 0, read_record(record)
    if content and not is_current(content):
        say(f"{record}: its figures are of another version of the metrics, and its runs are done again")
        return 0
    for run, result in _results(content, study.scale, record) if content else ():
        folder = folder_of(out, study, run)
        if folder.exists() or not _is_of(study, run, result["fingerprint"]):
            continue
        write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")
        restored += 1
    if restored:
        say(f"{study.title}: {restored} runs taken from {record}")
    return restored


def _is_of(study: Study, run: Run, recorded: str) -> bool:
    known = run.data_set in study.file.data_sets and run.case in study.file.cases
    return known and study.fingerprint(run) == recorded


def _results(content: Mapping[str, Any], scale: Scale, source: Path) -> list[tuple[Run, dict[str, Any]]]:
    """Each run of a record with what its `result.json` said; none where the record is of an older form."""
    found = []
    try:
        former = _study(content, scale, source)
        for data_set, cases in content["metrics"].items():
            for case, table in cases.items():
                for index, seed in enumerate(table["seeds"]):
                    run = Run(data_set, case, seed)
                    metrics = {name: values[index] for name, values in table["values"].items()}
                    found.append((run, _result(former, run, metrics, content)))
    except (KeyError, TypeError, IndexError, AttributeError, InputError) as error:
        say(f"{source}: its runs cannot be taken over ({error!r})")
        return []
    return found


def _study(content: Mapping[str, Any], scale: Scale, source: Path) -> Study:
    """The study as it was when the record was written."""
    matched, places = content.get("matched", {}), content.get("places", {})
    file = StudyFile(
        title="",
        question="",
        data_sets={
            name: Changes("", settings, matched=matched.get(name, {}), places=places.get(name, "random"))
            for name, settings in content["data_set_settings"].items()
        },
        cases={
            name: Changes(
                "", case["settings"], picks=case.get("picks", "model"), corruption=case.get("corruption", "stated")
            )
            for name, case in content["cases"].items()
        },
        references=(),
        matched=Matched() if matched else None,
    )
    return Study(content["study"], scale, file, changed(content["settings"], {}), source)


def _result(former: Study, run: Run, metrics: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    config = former.config(run)
    config = replace(config, data=replace(config.data, dir=None))
    further = former.further(run)
    return {
        "fingerprint": fingerprint(config, further),
        "further": further,
        "config": as_plain_values(config),
        "species": content["species"],
        "metrics": metrics,
        "metrics_version": content["metrics_version"],
        "state": {"chosen_by": config.evaluation.choose_by},
        "curves": {"training": [], "validation": []},
        "seconds": metrics["seconds"],
        "finished": content["finished"],
        "machine": content["machines"][0].partition(" (")[0],
        "devices": content["machines"][0].partition(" (")[2].rstrip(")").split(", "),
        "versions": content["versions"][0],
        "commit": next(iter(content["commits"]), None),
        "record": {kind: content[kind] for kind in ("machines", "versions", "commits")},
    }
