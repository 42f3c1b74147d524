"""What an audit writes: formats of the sources, refusals, lists for review."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.auditing import KINDS
from robpicker_jax.auditing.files import AuditedList, outputs, write_review, write_table
from robpicker_jax.config import DataConfig, Species
from robpicker_jax.datasets import TomogramFiles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.outputs import check_outputs

SHAPE = (40, 60, 72)
SPECIES = (Species("large", 6.0), Species("small", 4.0))


def audited(path: Path, particles: Particles, **options: object) -> AuditedList:
    files = TomogramFiles("tomo", "train", path.parent / "tomo.mrc", path)
    return AuditedList(files, particles, SHAPE, 10.0, DataConfig(species=SPECIES, annotation_options=dict(options)))


def some(n: int = 5) -> Particles:
    rng = np.random.default_rng(0)
    return Particles(rng.uniform(1, 35, (n, 3)), rng.integers(1, 3, n), scores=rng.uniform(size=n))


@pytest.mark.fast
@pytest.mark.parametrize(("name", "options"), [("a.csv", {}), ("a.star", {"star": {"binning": 4}}), ("a.xml", {})])
def test_a_list_is_written_as_its_source_is_read(name: str, options: dict, tmp_path: Path) -> None:
    entry = audited(tmp_path / name, some(), **options)
    entry.check_writable()
    entry.write(tmp_path / name, entry.particles)
    inner = options.get("star", {})
    back = read_annotations(tmp_path / name, voxel_size_angstrom=10.0, **inner)
    np.testing.assert_allclose(back.positions_vox, entry.particles.positions_vox, atol=1e-4)
    np.testing.assert_array_equal(back.labels, entry.particles.labels)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.coords", {}),  # positions alone: no classes
        ("a.coords", {"format": "deepetpicker", "axes": "zyx"}),  # read in any order, written as x y z
    ],
)
def test_a_format_that_would_be_read_otherwise_is_refused(name: str, options: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="convert"):
        audited(tmp_path / name, some(), **options).check_writable()


def test_a_list_of_the_whole_folder_becomes_one_of_the_tomogram(tmp_path: Path) -> None:
    assert audited(tmp_path / "particles.csv", some()).cleaned_name == "tomo_objl.csv"
    assert audited(tmp_path / "tomo_objl.xml", some()).cleaned_name == "tomo_objl.xml"


def test_an_earlier_audit_is_not_overwritten_unasked(tmp_path: Path) -> None:
    check_outputs(outputs(tmp_path))
    (tmp_path / "audit.csv").write_text("x")
    with pytest.raises(InputError, match=r"audit\.csv: exists"):
        check_outputs(outputs(tmp_path))
    check_outputs(outputs(tmp_path), overwrite=True)


def found(kinds: list[str], scores: list[float]) -> Particles:
    n = len(kinds)
    positions = some(n).positions_vox
    suggested = {f"suggested_{axis}_vox": positions[:, k] for k, axis in enumerate("xyz")}
    extra = {
        "kind": np.array(kinds),
        "suggested_class": np.array(["large"] * n),
        **suggested,
        "row": np.arange(1, n + 1),
    }
    labels, names = np.ones(n, np.int32), ["large"] * n
    return Particles(positions, labels, scores=scores, class_names=names, tomograms=["tomo"] * n, extra=extra)


def test_lists_for_review_hold_what_is_suspicious_enough_and_old_ones_go(tmp_path: Path) -> None:
    rows = found(["false", "false", "missing"], [0.9, 0.3, 0.8])
    lists = [audited(tmp_path / "tomo.csv", some())]
    half = dict.fromkeys(KINDS, 0.5)
    assert write_review(tmp_path, rows, half, lists) == 4
    for suffix in ("xml", "star"):
        back = read_annotations(tmp_path / "review" / f"tomo_false.{suffix}")
        assert len(back) == 1
        np.testing.assert_allclose(back.scores, [0.9], atol=1e-6)
    assert write_review(tmp_path, rows, {**half, "false": 0.95}, lists) == 2
    assert sorted(path.name for path in (tmp_path / "review").iterdir()) == ["tomo_missing.star", "tomo_missing.xml"]


def test_the_table_is_read_as_a_list_with_all_its_columns(tmp_path: Path) -> None:
    rows = found(["false", "missing"], [0.9, 0.8])
    back = read_annotations(write_table(tmp_path, rows))
    np.testing.assert_allclose(back.positions_vox, rows.positions_vox)
    np.testing.assert_allclose(back.scores, rows.scores)
    assert back.extra["kind"].tolist() == ["false", "missing"]
    np.testing.assert_allclose(back.extra["suggested_z_vox"], rows.extra["suggested_z_vox"])
    assert back.tomograms is not None
    assert back.tomograms.tolist() == ["tomo", "tomo"]


def test_a_table_states_its_unit_whatever_the_source_was_in(tmp_path: Path) -> None:
    audited(tmp_path / "a.csv", some(), csv={"unit": "angstrom"}).check_writable()
