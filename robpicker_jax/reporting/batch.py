"""What a batch of `pick` or `segment` found, tomogram by tomogram, from the folder that it wrote; and what stands out.

Tomograms are looked at one at a time: of each volume a slab about its middle (for the thumbnail) and a box (for the
spectrum) are read, of its results the list or, plane by plane, the class map. What is kept of a tomogram is a few numbers
and a picture of some kilobytes, so that memory does not grow with the volumes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.diagnosis.spectra import log_power_spectrum
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking.expectation import ExpectedCount, expected_counts
from robpicker_jax.picking.finished import Entry, Finished, WrittenClass, entries
from robpicker_jax.reporting.image import grey, window
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path
from robpicker_jax.volumes import VolumeReader, open_volume

VERBS = ("pick", "segment")
THUMBNAIL_PX = 160
SCORE_BINS = 40
_SLAB_PLANES = 9
_BOX = (64, 256, 256)  # z, y, x of the box that the spectrum is taken from
_PREFERRED = (".csv", ".xml", ".star")
_FAR_SPECTRUM = 0.3  # log10: half or twice the power, on average over frequencies, as for the doctor
_FAR_COUNT = 1.0  # log2: half or twice as many
_LEAST = 4  # tomograms among which one can stand out


@dataclass(frozen=True, eq=False)
class Row:
    """One tomogram of a batch.

    Attributes:
        name: the tomogram.
        state: "finished", "left out" or "not finished".
        note: why it is left out, or what could not be read.
        shape_zyx: size of the volume; None where it is not there any more.
        voxel_size_angstrom: of the volume, where it is known.
        counts: picks by class; of class maps, voxels.
        median_scores: of the picks of each class that have scores.
        score_histogram: by class, int (SCORE_BINS,) over scores from 0 to 1.
        spectrum: logarithm of the power by frequency (`diagnosis.spectra.log_power_spectrum`).
        spectrum_distance: root mean square difference from the median of the batch, log10.
        expected: what is expected of the picks of each class, where a calibration is known.
        unusual: what stands out, in words.
        thumbnail: JPEG of the slab about the middle, x to the right, y up.
    """

    name: str
    state: str
    note: str = ""
    shape_zyx: tuple[int, int, int] | None = None
    voxel_size_angstrom: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    median_scores: dict[str, float] = field(default_factory=dict)
    score_histogram: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    spectrum: NDArray[np.float64] | None = None
    spectrum_distance: float | None = None
    expected: dict[str, ExpectedCount] = field(default_factory=dict)
    unusual: tuple[str, ...] = ()
    thumbnail: bytes | None = None

    @property
    def total(self) -> int:
        """Picks, or voxels, of all classes."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class BatchSummary:
    """A batch.

    Attributes:
        verb: "pick" or "segment".
        classes: names, in the order in which they appear.
        rows: the tomograms by name.
    """

    verb: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def calibrated(self) -> tuple[str, ...]:
        """Classes of which it is known what to expect."""
        return tuple(name for name in self.classes if any(name in row.expected for row in self.rows))


def batch_verb(folder: Path) -> str:
    """Which command's batch a folder holds; of both, `pick`.

    Raises:
        InputError: neither's.
    """
    for verb in VERBS:
        if any((folder / ".finished" / verb).glob("*.json")):
            return verb
    raise InputError(
        "holds no records of a batch (.finished/)",
        where=folder,
        fix="give what pick or segment wrote to (--out): a folder, or a copick_config.json",
    )


def batch_rows(
    folder: Path, verb: str, calibration: Mapping[str, ClassCalibration] | None = None, min_score: float | None = None
) -> Iterator[Row]:
    """The tomograms of a batch by name, each looked at when its turn comes.

    Args:
        folder: where the command wrote to.
        verb: the command.
        calibration: by species of the picker, what picks were worth by their score.
        min_score: count picks of at least this score in what is expected; None: all that were kept.
    """
    for entry in entries(folder, verb):
        if not entry.is_finished:
            state = "not finished" if entry.left_out is None else "left out"
            yield Row(entry.name, state, note=entry.left_out or "")
            continue
        row = Row(entry.name, "finished")
        row, size = _with_volume(row, entry)
        try:
            if verb == "segment":
                yield _with_classes(row, entry)
                continue
            picks = _picks(entry, folder, size)
            row = _with_picks(row, picks)
            yield row if calibration is None else _with_expected(row, entry, picks, calibration, min_score or 0.0)
        except InputError as error:
            yield replace(row, note=str(error))


def summarised(verb: str, rows: Sequence[Row]) -> BatchSummary:
    """The batch, with what stands out in it said of each tomogram."""
    classes = tuple(dict.fromkeys(name for row in rows for name in row.counts))
    counted = {row.name for row in rows if row.state == "finished" and not row.note}
    logs = np.array([np.log2(1 + row.total) for row in rows if row.name in counted])
    seen = [row.spectrum for row in rows if row.spectrum is not None]
    usual = np.median(seen, axis=0) if len(seen) >= _LEAST else None
    distances = [float(np.sqrt(np.mean((spectrum - usual) ** 2))) for spectrum in seen] if usual is not None else []
    far = max(_FAR_SPECTRUM, 3 * float(np.median(distances))) if distances else np.inf
    middle = float(np.median(logs)) if len(logs) >= _LEAST else None
    spread = 3 * 1.4826 * float(np.median(np.abs(logs - middle))) if middle is not None else 0.0
    found = []
    for row in rows:
        unusual = []
        distance = None
        if usual is not None and row.spectrum is not None:
            distance = float(np.sqrt(np.mean((row.spectrum - usual) ** 2)))
            if distance > far:
                unusual.append("spectrum unlike the others'")
        if middle is not None and row.name in counted:
            deviation = float(np.log2(1 + row.total)) - middle
            if abs(deviation) > max(_FAR_COUNT, spread):
                unusual.append(
                    f"{'many' if deviation > 0 else 'few'} {'picks' if verb == 'pick' else 'labelled voxels'}"
                )
        found.append(replace(row, spectrum_distance=distance, unusual=tuple(unusual)))
    return BatchSummary(verb, classes, tuple(found))


def write_table(
    summary: BatchSummary, path: Path, dropped: Mapping[str, Mapping[str, int]] = MappingProxyType({})
) -> None:
    """The summary as a CSV table, a tomogram a row.

    Args:
        summary: the batch.
        path: the file.
        dropped: tomogram → limit of picking → number of candidates that it dropped, where such lists were written.
    """
    text = io.StringIO()
    limits = list(dict.fromkeys(limit for counts in dropped.values() for limit in counts))
    writer = csv.writer(text, lineterminator="\n")
    unit = "picks" if summary.verb == "pick" else "voxels"
    writer.writerow(
        ["tomogram", "state", "note", "z", "y", "x", "voxel_size_angstrom", f"{unit}_total"]
        + [f"{unit}_{name}" for name in summary.classes]
        + [f"median_score_{name}" for name in summary.classes]
        + [f"{what}_{name}" for name in summary.calibrated for what in _EXPECTED]
        + [f"dropped_by_{limit.replace(' ', '_')}" for limit in limits]
        + ["spectrum_distance", "unusual"]
    )
    for row in summary.rows:
        scores = [row.median_scores.get(name) for name in summary.classes]
        writer.writerow(
            [row.name, row.state, row.note, *(row.shape_zyx or ("", "", "")), _number(row.voxel_size_angstrom)]
            + ([row.total] if row.state == "finished" else [""])
            + [row.counts.get(name, 0) if row.state == "finished" else "" for name in summary.classes]
            + [_number(score) for score in scores]
            + [text for name in summary.calibrated for text in _expected(row.expected.get(name))]
            + [dropped[row.name].get(limit, 0) if row.name in dropped else "" for limit in limits]
            + [_number(row.spectrum_distance), "; ".join(row.unusual)]
        )
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


_EXPECTED = tuple(f"expected_{what}{bound}" for what in ("right", "particles") for bound in ("", "_low", "_high"))


def _expected(count: ExpectedCount | None) -> tuple[str, ...]:
    """Cells of what is expected, in the order of `_EXPECTED`."""
    if count is None:
        return ("",) * len(_EXPECTED)
    rates = (count.right, count.particles)
    return tuple(text for rate in rates for text in (("",) * 3 if rate is None else map(_number, astuple(rate))))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _with_volume(row: Row, entry: Entry) -> tuple[Row, float | None]:
    """A row with what its volume shows, and the voxel size for its lists."""
    if entry.volume is None or not entry.volume.exists():
        return row, None
    try:
        with open_volume(entry.volume) as reader:
            size = reader.voxel_size_angstrom
            box = reader.read(_middle(reader.shape_zyx, _BOX))
            spectrum = log_power_spectrum(np.asarray(box, np.float32))
            seen = replace(row, shape_zyx=reader.shape_zyx, voxel_size_angstrom=size, spectrum=spectrum)
            return replace(seen, thumbnail=thumbnail(reader)), size
    except InputError as error:
        return replace(row, note=str(error)), None


def thumbnail(reader: VolumeReader) -> bytes:
    """JPEG of the mean of some planes about a volume's middle, its longer edge `THUMBNAIL_PX` pixels at most."""
    from PIL import Image

    slab = np.asarray(reader.read(_middle(reader.shape_zyx, (_SLAB_PLANES, 2**31, 2**31))), np.float32).mean(axis=0)
    image = Image.fromarray(grey(slab, window(slab, 0.3, 99.7))[::-1])
    longest = max(image.size)
    if longest > THUMBNAIL_PX:
        edges = [max(1, round(edge * THUMBNAIL_PX / longest)) for edge in image.size]
        image = image.resize((edges[0], edges[1]), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=70)
    return buffer.getvalue()


def _middle(shape_zyx: Sequence[int], most: Sequence[int]) -> tuple[slice, slice, slice]:
    """The box about a volume's middle, of at most some edges."""
    edges = [min(size, edge) for size, edge in zip(shape_zyx, most, strict=True)]
    starts = [(size - edge) // 2 for size, edge in zip(shape_zyx, edges, strict=True)]
    z, y, x = (slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
    return z, y, x


def _with_picks(row: Row, picks: Particles) -> Row:
    """A row with numbers and scores of its picks."""
    names = (
        picks.class_names if picks.class_names is not None else np.array([f"class {label}" for label in picks.labels])
    )
    counts, medians, histograms = {}, {}, {}
    for name in dict.fromkeys(names.tolist()):
        of_class = names == name
        counts[name] = int(of_class.sum())
        scores = np.zeros(0) if picks.scores is None else picks.scores[of_class]
        scores = scores[np.isfinite(scores)]
        if len(scores):
            medians[name] = float(np.median(scores))
            histograms[name] = np.histogram(np.clip(scores, 0, 1), SCORE_BINS, (0, 1))[0]
    return replace(row, counts=counts, median_scores=medians, score_histogram=histograms)


def _with_expected(
    row: Row, entry: Entry, picks: Particles, calibration: Mapping[str, ClassCalibration], min_score: float
) -> Row:
    """A row with what is expected of its picks, at the smallest scores that they were kept with."""
    if picks.class_names is None or picks.scores is None:
        return row
    names = list(row.counts)
    written = {name: entry.classes.get(name, WrittenClass(name)) for name in names}
    kept = {name: known.min_score or 0.0 for name, known in written.items()}
    # Lists hold rounded scores: one at the limit may come back below it.
    scores = np.maximum(picks.scores, [kept[name] for name in picks.class_names.tolist()])
    labels = np.array([names.index(name) + 1 for name in picks.class_names.tolist()], np.int32)
    species = {name: known.species or "" for name, known in written.items()}
    of_class = {name: calibration[known] for name, known in species.items() if known in calibration}
    least = {name: max(score, min_score) for name, score in kept.items()}
    return replace(row, expected=expected_counts(picks.with_(labels=labels, scores=scores), of_class, names, least))


def _picks(entry: Entry, folder: Path, size: float | None) -> Particles:
    if any(file.suffix == ".npz" for file in entry.files):  # of --together, whose one file holds all tomograms
        return Finished(folder, "pick", {}).kept_picks(entry.name)
    lists = [file for file in entry.files if "rejected" not in file.parent.parts[-1:]]
    order = {suffix: index for index, suffix in enumerate(_PREFERRED)}
    chosen = min(lists, key=lambda file: order.get(file.suffix, len(order)))
    if chosen.suffix not in order:
        return Particles.concatenate([read_annotations(file, voxel_size_angstrom=size) for file in lists])
    return read_annotations(chosen, voxel_size_angstrom=size)


def _with_classes(row: Row, entry: Entry) -> Row:
    """A row with the voxels of each class of its class map, read plane by plane."""
    maps = [file for file in entry.files if file.name.endswith("_classes.mrc")]
    if not maps:
        return replace(row, note="its class map is not there any more")
    counts = np.zeros(256, np.int64)
    with open_volume(maps[0]) as reader:
        depth, height, width = reader.shape_zyx
        for z in range(depth):
            plane = reader.read((slice(z, z + 1), slice(0, height), slice(0, width)))
            counts += np.bincount(np.asarray(plane, np.uint8).ravel(), minlength=256)
    return replace(row, counts={f"class {label}": int(counts[label]) for label in range(1, 256) if counts[label]})
