"""Rates of errors between a rough and a careful list: what was planted is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.commands import evaluate
from robpicker_jax.commands.cli import call
from robpicker_jax.config import load_config
from robpicker_jax.evaluation.label_errors import label_errors
from robpicker_jax.system.errors import InputError

NAMES = ("ribosome", "atpase", "albumin")
RADII = (9.0, 7.0, 5.0)


def grid(count: int) -> np.ndarray:
    """Positions so far apart that no two lie within a radius of each other, even displaced."""
    return 40.0 * np.stack(np.unravel_index(np.arange(count), (5, 5, 5)), axis=1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_planted_errors_are_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 4, 60)
    fate = rng.choice(["kept", "missing", "swapped"], 60, p=[0.6, 0.25, 0.15])
    given_labels = np.where(fate == "swapped", labels % 3 + 1, labels)
    kept = fate != "missing"
    false_labels = rng.integers(1, 4, 20)
    offsets = rng.normal(0, 0.7, (60, 3))
    careful = Particles(grid(125)[:60], labels)
    positions = np.concatenate([(grid(125)[:60] + offsets)[kept], grid(125)[60:80]])
    order = rng.permutation(len(positions))
    rough = Particles(positions[order], np.concatenate([given_labels[kept], false_labels])[order])
    found = label_errors({"t": careful}, {"t": rough}, RADII, NAMES)
    for label in (1, 2, 3):
        mine = labels == label
        assert found.careful[label - 1] == mine.sum()
        assert found.missing[label - 1] == (mine & (fate == "missing")).sum()
        assert found.swapped[label - 1, label % 3] == (mine & (fate == "swapped")).sum()
        assert found.false[label - 1] == (false_labels == label).sum()
    assert found.swapped.sum() == (fate == "swapped").sum()
    right = fate == "kept"
    np.testing.assert_allclose(np.sort(found.offsets_vox, axis=0), np.sort(offsets[right], axis=0), atol=1e-9)
    section = found.corruption(24)
    assert section["shift_vox"] == pytest.approx(np.sqrt(np.mean(offsets[right] ** 2)), abs=0.006)


def test_a_pick_serves_one_particle_and_the_nearest() -> None:
    careful = Particles(np.array([[0.0, 0, 0], [6, 0, 0], [100, 0, 0]]), [1, 1, 1])
    rough = Particles(np.array([[5.0, 0, 0], [107, 0, 0]]), [1, 1])
    found = label_errors({"t": careful}, {"t": rough}, (6.5,), ("a",))
    assert (found.missing.tolist(), found.false.tolist()) == ([2], [1])  # the second pick lies 7 voxels away
    np.testing.assert_allclose(found.offsets_vox, [[-1, 0, 0]])
    assert label_errors({"t": careful}, {}, (6.5,), ("a",)).missing.tolist() == [3]


def test_labels_without_a_class_and_lists_without_particles_are_refused() -> None:
    one = Particles(np.zeros((1, 3)), [2])
    with pytest.raises(InputError, match="none of the classes"):
        label_errors({"t": one}, {}, (5.0,), ("a",))
    with pytest.raises(InputError, match="no careful particle"):
        label_errors({"t": Particles.empty()}, {"t": one}, (5.0, 5.0), ("a", "b"))


def test_the_command_prints_a_section_that_the_configuration_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = np.array(["ribosome", "apoferritin"])
    labels = np.array([1, 1, 1, 1, 2, 2])
    careful = Particles(grid(6), labels, class_names=names[labels - 1])
    write_annotations(tmp_path / "careful.xml", careful)
    write_annotations(tmp_path / "rough.xml", careful.select([0, 1, 2, 4]))
    arguments = ["--truth", str(tmp_path / "careful.xml"), "--picks", str(tmp_path / "rough.xml"), "--corruption"]
    assert call(evaluate.main, [*arguments, "--classes", "ribosome,apoferritin"]) == 2
    assert "radius" in capsys.readouterr().err
    assert call(evaluate.main, [*arguments, "--classes", "ribosome,apoferritin", "--radii", "6,4"]) == 0
    printed = capsys.readouterr().out
    section = yaml.safe_load(printed)["train"]["corruption"]
    assert section["missing"] == {"ribosome": 0.25, "apoferritin": 0.5}
    assert section["false_picks"] == section["shift_vox"] == 0.0
    species = "data.species=[{name: ribosome, radius_vox: 6, phantom: ribosome}, {name: apoferritin, radius_vox: 4, "
    (tmp_path / "c.yaml").write_text(printed, encoding="utf-8")
    config = load_config(tmp_path / "c.yaml", [species + "phantom: apoferritin}]", "patches.size=32"])
    assert config.train.corruption.missing == {"ribosome": 0.25, "apoferritin": 0.5}
