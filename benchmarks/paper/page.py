"""`docs/results.md` and its figures, from the records in `docs/results/`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.paper.figures import FIGURES
from benchmarks.paper.overview import overview
from benchmarks.paper.record import Record
from benchmarks.paper.statistics import Estimate
from benchmarks.paper.study import SCALES, StudyFile, read_yaml, study_names
from robpicker_jax.config.loading import validated
from robpicker_jax.reporting.style import png_bytes, theme
from robpicker_jax.system.files import atomic_path, write_text

_SCALE_NAMES = {"cpu": "two CPU cores", "full": "one accelerator"}
_INTRODUCTION = """\
# Results

What the studies of `benchmarks/paper/` measured, beside what the paper reports. This page and its figures are written by
`python -m benchmarks.paper --draw-only` from the records in `docs/results/`; do not edit it.

- **Data** are simulated, so that every label error is known. Each seed draws its own tomograms, label errors and initial
  networks, and all cases of a seed share them.
- **Scores** are F1 of picks in the test tomograms by the mask rule, a mean over species (macro). "Small species" are the
  smaller half of the species by radius.
- **The model** that is scored is the best of the validations, for all cases alike; the validation tomograms are clean, and
  nothing else uses them.
  Of equal validations the later model counts; runs made at commits before 1d30ab6d7984 had the earlier one. It matters where
  nearly everything is found: of 95 runs with beads and swaps, look-alikes or template matching whose validations were
  looked at, none had equal ones.
- **Calibrated** scores keep only picks above a score threshold, chosen for each species where its F1 on the meta tomograms is
  highest (halfway to the next pick below). Where a case trains on these tomograms too, its thresholds are chosen on data that
  it knows.
- **Differences** are paired by seed. The interval in brackets is Student's t, 95 %; the one in parentheses is the percentile
  bootstrap over seeds, 95 %, which is too narrow with few seeds. Bold: the t interval leaves zero out. With many
  comparisons some do so by chance.
- **Settings.** RobPicker's were improved over several rounds of these studies; each rival has one
  setting. Where a data set says so, the correction is told the kinds and rates of its label errors
  (`train.corruption`), as comparing a rough list of a tomogram with a clean one tells them (`robpicker evaluate
  --corruption`); the study with matched templates measures them so.
- **Missing particles restored** is the share of their voxels that get their class, in the inner half of patches. There a
  labelled particle that is cut can look like a missing one: where none is missing (balls as labels) the share is one of a few
  voxels.
- **What a case takes**, where a table says so: seconds of training with its compilation and validations; the median time of an
  update; by how much training raised the memory of its process; parameters of the network that picks. Size groups go by
  molecular weight: large from 1 MDa, medium from 400 kDa, small from 100 kDa, tiny below.
- Where runs are missing, what is there is shown, and the column "seeds" says how many.
"""


def draw(docs: Path, folder: Path) -> list[Path]:
    """Write the page and the figures of all records.

    Args:
        docs: has results/ with the records; gets results.md and images/.
        folder: where the studies are described.

    Returns:
        The files written.

    Raises:
        InputError: a record or a study's file that is not readable.
    """
    written, parts = [], [_INTRODUCTION]
    for name in study_names(folder):
        file = validated(StudyFile, read_yaml(folder / f"{name}.yaml"), folder / f"{name}.yaml")
        parts.append(f"## {file.title}\n\n{file.question.strip()}\n")
        if file.paper:
            parts.append(f"*The paper:* {file.paper.strip()}\n")
        for scale in SCALES:
            path = docs / "results" / f"{name}_{scale}.json"
            if not path.exists():
                command = f"python -m benchmarks.paper --study {name} --scale {scale}"
                parts.append(f"On {_SCALE_NAMES[scale]}: not yet measured (`{command}`).\n")
                continue
            record = Record.read(path)
            images = draw_figures(record, docs / "images")
            written += images
            parts.append(_section(record, images, file.findings.get(scale, "")))
    write_text(docs / "results.md", "\n".join(parts))
    return [*written, docs / "results.md"]


def as_markdown(rows: Iterable[Sequence[str]]) -> str:
    """A table of a head and rows, as Markdown."""
    head, *others = rows
    return "\n".join([*_head(head), *(_line(row) for row in others)])


def draw_figures(record: Record, folder: Path) -> list[Path]:
    """Write the figures that a record asks for, as far as there is something to show."""
    written = []
    with theme():
        for kind in record.content["figures"]:
            figure = FIGURES[kind](record)
            if figure is None:
                continue
            with atomic_path(
                folder / f"results_{record.content['study']}_{record.content['scale']}_{kind}.png"
            ) as path:
                path.write_bytes(png_bytes(figure))
            written.append(folder / f"results_{record.content['study']}_{record.content['scale']}_{kind}.png")
    return written


def _section(record: Record, images: Sequence[Path], findings: str) -> str:
    content = record.content
    versions = "; ".join(", ".join(f"{k} {v}" for k, v in each.items()) for each in content["versions"])
    hours = content["seconds"] / 3600
    parts = [
        f"### On {_SCALE_NAMES[content['scale']]}\n",
        f"`{content['command']}`, finished {content['finished'][:10]}; {', '.join(content['machines'])}; {versions}; "
        f"{content['updates']:,} updates a run, {hours:.1f} hours in all; model scored: {content['state']}; "
        f"made at the commits {', '.join(content['commits']) or 'not known'}.\n",
    ]
    parts += [f"{findings.strip()}\n"] * bool(findings)
    parts += [f"![{record.content['title']}: {path.stem.rsplit('_', 1)[-1]}](images/{path.name})\n" for path in images]
    for data_set, label in record.data_sets.items():
        parts.append(f"**{label[0].upper()}{label[1:]}**\n")
        if content.get("overview"):
            parts.append(as_markdown(overview(record, data_set)) + "\n")
        parts.append("\n".join(_scores(record, data_set)) + "\n")
        for reference in record.references(data_set):
            if len(record.cases(data_set)) > 1:
                parts.append(f"Difference of F1 to {record.label(reference)}:\n")
                parts.append("\n".join(_differences(record, data_set, reference)) + "\n")
        meta = record.cases_with_meta_networks(data_set)
        if meta:
            parts.append("Label correction and weights at the end of training:\n")
            parts.append("\n".join(_meta(record, data_set, meta)) + "\n")
        for species in record.averaged(data_set):
            parts.append(f"Averages of {species}, in Å except where said otherwise; smaller is better:\n")
            parts.append("\n".join(_averages(record, data_set, species)) + "\n")
    return "\n".join(parts)


def _scores(record: Record, data_set: str) -> Iterator[str]:
    columns = {
        "macro F1": "plain/f1/macro",
        "calibrated": "calibrated/f1/macro",
        "small species": "plain/f1/small species",
        "calibrated small": "calibrated/f1/small species",
        "precision": "plain/precision/macro",
        "recall": "plain/recall/macro",
        "average precision": "plain/average precision",
        **{name: f"plain/f1/{name}" for name in record.species},
    }
    yield from _head(["case", "seeds", *columns, "ms an update"])
    for case in record.cases(data_set):
        cells = [_value(record.mean(data_set, case, metric)) for metric in columns.values()]
        seconds = record.mean(data_set, case, "seconds_per_update").mean
        time = "–" if math.isnan(seconds) else f"{1000 * seconds:.0f}"
        yield _line([record.label(case), str(len(record.seeds(data_set, case))), *cells, time])


def _differences(record: Record, data_set: str, reference: str) -> Iterator[str]:
    columns = {
        "macro": "plain/f1/macro",
        "macro, calibrated": "calibrated/f1/macro",
        "small species": "plain/f1/small species",
        **{name: f"plain/f1/{name}" for name in record.species},
        **{f"{group} (group)": f"plain/f1/group {group}" for group in record.groups},
    }
    yield from _head(["case", "seeds", *columns])
    for case in record.cases(data_set):
        if case != reference:
            found = [record.difference(data_set, case, metric, reference) for metric in columns.values()]
            cells = [_change(each, brief=number > 2) for number, each in enumerate(found)]
            yield _line([record.label(case), str(found[0].n), *cells])


def _meta(record: Record, data_set: str, cases: Sequence[str]) -> Iterator[str]:
    columns = {
        "missing particles restored": "correction/recovered",
        "background labelled": "correction/added",
        "false labels removed": "correction/removed",
        "relative change of wrong voxels": "correction/error_change",
        **{f"weight {name}": f"weight/{name}" for name in record.species},
        **{f"mass gained {name}": f"gained/{name}" for name in record.species},
        **{f"mass lost {name}": f"lost/{name}" for name in record.species},
    }
    known = {k: v for k, v in columns.items() if any(record.mean(data_set, case, v).n for case in cases)}
    yield from _head(["case", *known])
    for case in cases:
        yield _line([record.label(case), *(_value(record.mean(data_set, case, metric)) for metric in known.values())])


def _averages(record: Record, data_set: str, species: str) -> Iterator[str]:
    columns = {
        "picks": "number",
        "of them right": "right",
        "FSC 0.143 of halves": "halves 0.143",
        "FSC 0.5 of halves": "halves 0.5",
        "FSC 0.5 with the true map": "truth 0.5",
    }
    reference = next(iter(record.references(data_set)), None)
    against = [] if reference is None else [f"its difference to {record.label(reference)}"]
    yield from _head(["case", "seeds", *columns, *against])
    for case in record.cases(data_set):
        means = [record.mean(data_set, case, f"average/{metric}/{species}") for metric in columns.values()]
        forms = ("{:.0f}", "{:.2f}", "{:.1f}", "{:.1f}", "{:.1f}")
        cells = ["–" if math.isnan(m.mean) else form.format(m.mean) for m, form in zip(means, forms, strict=True)]
        if reference is not None:
            found = record.difference(data_set, case, f"average/truth 0.5/{species}", reference)
            cells.append("–" if case == reference else _change(found, brief=True, digits=1))
        yield _line([record.label(case), str(means[-1].n), *cells])


def _head(names: Sequence[str]) -> Iterator[str]:
    yield _line(names)
    yield _line(["---", *["---:"] * (len(names) - 1)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(found: Estimate) -> str:
    return "–" if math.isnan(found.mean) else f"{found.mean:.3f}"


def _change(found: Estimate, *, brief: bool, digits: int = 3) -> str:
    """A difference with its intervals; the bootstrap's is left out of a brief one."""
    if math.isnan(found.mean):
        return "–"
    mean = f"{found.mean:+.{digits}f}"
    mean = f"**{mean}**" if found.is_clear else mean
    if found.t is None or found.bootstrap is None:
        return mean
    text = f"{mean} [{found.t[0]:+.{digits}f}, {found.t[1]:+.{digits}f}]"
    return text if brief else f"{text} ({found.bootstrap[0]:+.3f}, {found.bootstrap[1]:+.3f})"
