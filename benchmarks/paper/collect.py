"""The finished runs of a study as one small record: every figure by data set, case and seed, and mean curves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper.runner import folder_of, read_result, say
from benchmarks.paper.study import METRICS_VERSION, RESULT, Run, Study, without_folder
from robpicker_jax.config import META_NETWORKS, Config, as_plain_values
from robpicker_jax.config.loading import validated
from robpicker_jax.system.errors import InputError

_CURVES = ("weight_mean/", "label_gained/", "label_lost/", "label_mass/")
_MEASURES = ("changed_share", "alpha_mean", "patch_loss", "outer_loss")


def seeds_present(study: Study, out: Path) -> list[int]:
    """Seeds of which some run of a study is finished."""
    found = {path.parent.name for path in (out / study.title).glob(f"*/*/seed*/{RESULT}")}
    return sorted(int(name.removeprefix("seed")) for name in found if name.removeprefix("seed").isdigit())


def collect(study: Study, out: Path, *, command: str, former: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Gather what is finished; runs whose settings are not the study's are left out, and that is said.

    Args:
        study: the study.
        out: the folder of runs.
        command: what repeats the study.
        former: the record before, whose curves are kept for cases of which no run in the folder has any.

    Raises:
        InputError: no finished run with the study's settings.
    """
    finished: dict[Run, dict[str, Any]] = {}
    changed = 0
    for run in study.runs(seeds_present(study, out)):
        result = read_result(folder_of(out, study, run))
        if result is not None and result["fingerprint"] == study.fingerprint(run):
            finished[run] = result
        elif result is not None:
            changed += 1
    if changed:
        say(f"{study.title}: {changed} finished runs with other settings or metrics are left out")
    if not finished:
        raise InputError("no finished run with the settings of this study", where=out / study.title)
    results, first = list(finished.values()), next(iter(finished))
    train = study.config(first).train
    return {
        "study": study.name,
        "scale": study.scale,
        "title": study.file.title,
        "question": study.file.question,
        "command": f"{command} --seeds {len({run.seed for run in finished})}",
        "finished": max(result["finished"] for result in results),
        "machines": _origins(
            results, "machines", lambda result: f"{result['machine']} ({', '.join(result['devices'])})"
        ),
        "versions": _origins(results, "versions", lambda result: result["versions"]),
        "commits": _origins(results, "commits", lambda result: result["commit"]),
        "updates": train.steps * train.inner_steps,
        "state": "the best of the validations, by "
        + " or ".join(dict.fromkeys(result["state"]["chosen_by"] for result in results)),
        "seconds": round(sum(result["seconds"] for result in results)),
        "settings": as_plain_values(without_folder(validated(Config, study.base, study.source))),
        "species": results[0]["species"],
        "references": list(study.file.references),
        "figures": list(study.file.figures),
        "overview": study.file.overview,
        "data_sets": {name: change.label for name, change in study.file.data_sets.items()},
        "data_set_settings": {name: change.at(study.scale) for name, change in study.file.data_sets.items()},
        "cases": {
            name: {
                "label": change.label,
                "settings": change.at(study.scale),
                "shown": change.shown,
                "picks": change.picks,
                "corruption": change.corruption,
            }
            for name, change in study.file.cases.items()
        },
        "matched": {
            name: asdict(matched) for name in study.file.data_sets if (matched := study.matched(name)) is not None
        },
        "places": {name: change.places for name, change in study.file.data_sets.items() if change.places != "random"},
        "metrics_version": METRICS_VERSION,
        "metrics": _by_case(study, finished, _metrics),
        "curves": _all_curves(study, finished, former if former and is_current(former) else {}),
    }


def is_current(record: Mapping[str, Any]) -> bool:
    """Whether the figures of a record mean what those of a new run do."""
    return bool(record.get("metrics_version", 0) == METRICS_VERSION)


def as_text(record: Mapping[str, Any]) -> str:
    """The record as JSON in which each list of numbers takes one line."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[[\s\d.,eE+\-nul]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def _by_case(study: Study, finished: Mapping[Run, Any], take: Any) -> dict[str, dict[str, Any]]:
    """Data set → case → what `take` makes of the finished runs by seed; empty cases are left out."""
    found: dict[str, dict[str, Any]] = {}
    for data_set in study.file.data_sets:
        for case in study.file.cases:
            runs = {run.seed: finished[run] for run in finished if (run.data_set, run.case) == (data_set, case)}
            taken = take(runs) if runs else None
            if taken:
                found.setdefault(data_set, {})[case] = taken
    return found


def _all_curves(study: Study, finished: Mapping[Run, Any], former: Mapping[str, Any]) -> dict[str, Any]:
    """The curves of all cases where the study draws them; those of a former record where there are no new ones."""
    if "curves" not in study.file.figures:
        return {}
    found = _by_case(study, finished, _curves)
    for data_set, cases in former.get("curves", {}).items():
        for case, curves in cases.items():
            if any((run.data_set, run.case) == (data_set, case) for run in finished):
                found.setdefault(data_set, {}).setdefault(case, curves)
    order = list(study.file.cases)  # of the study's file, whichever record a curve comes from
    return {name: dict(sorted(cases.items(), key=lambda item: order.index(item[0]))) for name, cases in found.items()}


def _metrics(runs: Mapping[int, Any]) -> dict[str, Any]:
    """`seeds`, and by metric the `values` in their order, to four digits; metrics that no seed has are left out."""
    names = dict.fromkeys(name for result in runs.values() for name in result["metrics"] if _is_kept(name, result))
    table = {name: [_rounded(result["metrics"].get(name)) for result in runs.values()] for name in names}
    table["seconds"] = [_rounded(result["seconds"]) for result in runs.values()]
    known = {name: row for name, row in table.items() if any(value is not None for value in row)}
    return {"seeds": list(runs), "values": known}


def _is_kept(name: str, result: Mapping[str, Any]) -> bool:
    """Whether a metric belongs in the record: of the many, those that tables and figures show."""
    kind, _, rest = name.partition("/")
    if kind in ("weight", "gained", "lost", "correction"):
        return _has_meta_networks(result)
    if rest.startswith(("precision/group", "recall/group")):
        return False
    return kind != "calibrated" or rest.startswith("f1/") or rest.endswith("/macro")


def _has_meta_networks(result: Mapping[str, Any]) -> bool:
    return bool(META_NETWORKS[result["config"]["train"]["variant"]])


def _curves(runs: Mapping[int, Any]) -> dict[str, Any]:
    """Mean curves over the seeds, of cases with a meta network: name → [[step, value], …]."""
    found: dict[str, Any] = {}
    if not any(_has_meta_networks(result) for result in runs.values()):
        return found
    training = [row for result in runs.values() for row in result["curves"]["training"]]
    names = dict.fromkeys(key for row in training for key in row)
    for name in names:
        if name.startswith(_CURVES) or name in _MEASURES:
            found[name] = _mean_curve(training, name)
    validation = [row for result in runs.values() for row in result["curves"]["validation"]]
    for name in dict.fromkeys(key for row in validation for key in row if key != "step"):
        found[name] = _mean_curve(validation, name)
    return found


def _mean_curve(rows: Sequence[Mapping[str, Any]], name: str) -> list[list[float]]:
    steps = sorted({row["step"] for row in rows})
    means = []
    for step in steps:
        values = [row[name] for row in rows if row["step"] == step and row.get(name) is not None]
        if values:
            means.append([step, float(f"{np.mean(values):.4g}")])
    return means


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def _origins(results: Sequence[Mapping[str, Any]], kind: str, own: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
    """What the runs were made with; runs from a record have all that it names, since it does not say which run had which."""
    return _distinct(
        each for result in results for each in (result["record"][kind] if "record" in result else [own(result)])
    )


def _distinct(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value is not None and value not in found:
            found.append(value)
    return found
