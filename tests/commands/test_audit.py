"""`audit` from end to end, with the model of a tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import read_annotations
from robpicker_jax.auditing import KINDS
from robpicker_jax.commands import audit
from robpicker_jax.commands.cli import call
from robpicker_jax.models.model_file import fingerprint
from robpicker_jax.training.corrector import load_corrector
from robpicker_jax.training.export import load_trained_model


def test_an_audit_ranks_every_annotation_and_records_what_it_changes(tiny_run: Path, tmp_path: Path) -> None:
    out, source = tmp_path / "out", tiny_run / "data" / "train" / "train_000_objl.xml"
    before = source.read_bytes()
    given = read_annotations(source)
    arguments = ["--workdir", str(tiny_run), "--data", str(tiny_run / "data"), "--out", str(out), "--apply"]
    arguments += ["--min-score", "0.3", "--min-score", "missing=0.9"]
    assert call(audit.main, arguments) == 0
    table = read_annotations(out / "audit.csv")
    rows, kinds = table.extra["row"], table.extra["kind"]
    assert sorted(rows[rows > 0].tolist()) == list(range(1, len(given) + 1))
    assert set(kinds.tolist()) <= set(KINDS)
    assert ((kinds == "missing") == (rows == 0)).all()
    assert table.scores is not None
    assert (np.diff(table.scores) <= 0).all()
    of_row = {int(row): position for row, position in zip(rows, table.positions_vox, strict=True) if row}
    for row, position in enumerate(given.positions_vox, start=1):
        np.testing.assert_allclose(of_row[row], position)
    assert (np.abs(table.extra["correction"].astype(float)) <= 1).all()

    content = json.loads((out / "cleaned" / "changes.json").read_text(encoding="utf-8"))
    assert content["model"]["sha256"] == fingerprint(load_trained_model(tiny_run))
    assert content["min_score"] == {**dict.fromkeys(KINDS, 0.3), "missing": 0.9}
    changes = content["tomograms"]["train_000"]["changes"]
    least = np.where(kinds == "missing", 0.9, 0.3)
    assert len(changes) == int((table.scores >= least).sum())
    assert changes
    count = {what: sum(change["what"] == what for change in changes) for what in ("removed", "added")}
    result = read_annotations(out / "cleaned" / "train_000_objl.xml", allow_empty=True)
    assert len(result) == len(given) - count["removed"] + count["added"]
    assert source.read_bytes() == before
    assert (out / "index.html").read_text(encoding="utf-8").count("<article") == min(120, len(table))
    for kind in set(kinds[table.scores >= least].tolist()):
        listed = read_annotations(out / "review" / f"train_000_{kind}.xml")
        assert len(listed) == int(((kinds == kind) & (table.scores >= least)).sum())


def test_an_earlier_audit_stays_unless_it_may_be_replaced(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a model's file alone there is no label correction to ask."""
    arguments = ["--workdir", str(tiny_run / "model.rpk"), "--data", str(tiny_run / "data"), "--out", str(tmp_path)]
    assert call(audit.main, [*arguments, "--split", "test", "--top", "2"]) == 0
    first = (tmp_path / "audit.csv").read_bytes()
    assert b"correction" not in first
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("<article") == 2
    assert not (tmp_path / "cleaned").exists()
    assert call(audit.main, arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "audit.csv").read_bytes() == first
    assert call(audit.main, [*arguments, "--overwrite"]) == 0
    assert (tmp_path / "audit.csv").read_bytes() != first


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (["--split", "val"], "no annotated tomogram in val/"),
        (["--min-score", "wrong=0.5"], "kinds: false, wrong_class"),
        (["--min-score", "1.5"], "--min-score"),
        (["--displaced", "0"], "--displaced"),
    ],
)
def test_bad_arguments(
    further: list[str], message: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--workdir", str(tiny_run), "--data", str(tiny_run / "data"), "--out", str(tmp_path / "out")]
    assert call(audit.main, [*arguments, *further]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_corrector_of_a_run_gives_label_maps_that_do_not_depend_on_the_batch(tiny_run: Path) -> None:
    corrector = load_corrector(tiny_run)
    assert corrector is not None
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 16, 16, 16, 1)).astype(np.float32)
    labels = rng.integers(0, 3, (3, 16, 16, 16)).astype(np.uint8)
    corrected = corrector(images, labels)
    np.testing.assert_allclose(corrected.sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(corrected[1:2], corrector(images[1:2], labels[1:2]), atol=1e-5)
    assert load_corrector(tiny_run / "model.rpk") is None
