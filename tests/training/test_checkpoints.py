"""What checkpoints promise where folders, disks and processes fail (field rows A14, A16, B15, B16)."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.system.errors import InputError
from robpicker_jax.training.checkpoint import Checkpoints

STATE = {"w": jnp.arange(4.0), "step": jnp.asarray(0)}


def state_of(step: int) -> dict[str, jnp.ndarray]:
    """A small state that tells its step."""
    return {"w": jnp.arange(4.0) + step, "step": jnp.asarray(step)}


def saved(folder: Path, *steps: int) -> None:
    """Write checkpoints of some steps."""
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, state_of(step))
    checkpoints.close()


def damage(folder: Path, kind: str) -> None:
    """Damage a checkpoint as killed machines and full disks do."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and kind == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif path.is_file() and kind == "garbled":
            path.write_bytes(bytes(len(path.read_bytes())))
    if kind == "emptied":
        shutil.rmtree(folder)
        folder.mkdir()


@settings(max_examples=6)
@given(name=st.text(st.sampled_from("ab[]*? '#%"), min_size=1, max_size=6).filter(lambda name: name.strip() == name))
def test_a14_a_folder_is_refused_before_training_or_its_checkpoints_can_be_read(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("odd") / name
    checkpoints = Checkpoints(folder)
    refusal = ""
    try:
        checkpoints.check_readable()
    except InputError as error:
        refusal = str(error)
    checkpoints.close()
    if refusal:
        assert "cannot be read back" in refusal
        assert len(refusal.splitlines()) == 1
        return
    saved(folder, 1)
    checkpoints = Checkpoints(folder)
    assert int(checkpoints.restore(STATE)["step"]) == 1
    checkpoints.close()


def test_a14_brackets_in_the_path_are_noticed_and_an_ordinary_folder_is_left_clean(tmp_path: Path) -> None:
    for name in ("plain", "run[1]"):
        checkpoints = Checkpoints(tmp_path / name)
        try:
            if "[" in name:
                with pytest.raises(InputError, match=r"cannot be read back.*path has no \["):
                    checkpoints.check_readable()
            else:
                checkpoints.check_readable()
                assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["best", "latest"]
        finally:
            checkpoints.close()


def test_a16_the_score_lies_in_the_checkpoint_and_left_over_folders_are_cleaned(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(2, state_of(2), 0.25)
    checkpoints.close()
    left = tmp_path / "latest" / "4.orbax-checkpoint-tmp"
    left.mkdir()
    reader = Checkpoints(tmp_path, read_only=True)
    assert (reader.best_step(), reader.best_score()) == (2, 0.25)
    reader.close()
    assert left.exists()  # whoever only reads must not disturb a run that is writing
    owner = Checkpoints(tmp_path)
    assert owner.best_score() == 0.25
    owner.save(5, state_of(5))  # Orbax cleans beside other work, and waits for that before it saves
    assert not left.exists()
    owner.close()


@pytest.mark.parametrize("kind", ["truncated", "garbled", "emptied"])
def test_b16_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 2, 4)
    damage(tmp_path / "latest" / "4", kind)
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore(STATE)
    np.testing.assert_array_equal(restored["w"], state_of(2)["w"])
    said = capsys.readouterr().out
    assert "step 4 is damaged" in said
    assert "step 2 is used" in said
    assert len(said) < 600
    checkpoints.save(4, state_of(4))  # the damaged one does not stand in the way
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert int(checkpoints.restore(STATE)["step"]) == 4
    checkpoints.close()


def test_b16_another_structure_is_told_in_one_line_and_nothing_is_deleted(tmp_path: Path) -> None:
    saved(tmp_path, 2, 4)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(InputError, match="does not fit this configuration") as caught:
        checkpoints.restore({"w": jnp.zeros((3, 3)), "other": jnp.zeros(2)})
    assert len(str(caught.value)) < 700
    checkpoints.close()
    assert {path.name for path in (tmp_path / "latest").iterdir()} >= {"2", "4"}
