"""Radii in Å: turned into voxels by the voxel size that is given, replaced by the command line, refused in contradiction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.config import describe_fields, dump_config, load_config, with_radii
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast


def written(path: Path, species: list[dict[str, Any]], **data: Any) -> Path:
    sections = {"data": {"dir": "somewhere", "meta_labels": "sphere", "species": species, **data}}
    path.write_text(yaml.safe_dump(sections))
    return path


def radii(path: Path, *overrides: str) -> list[float]:
    return [entry.radius_vox for entry in load_config(path, overrides).data.species]


def test_radii_in_angstrom_are_divided_by_the_voxel_size(tmp_path: Path) -> None:
    both = [{"name": "ribosome", "radius_angstrom": 150}, {"name": "apoferritin", "radius_vox": 4}]
    path = written(tmp_path / "c.yaml", both, voxel_size_angstrom=12.5)
    assert radii(path) == [12.0, 4.0]
    assert load_config(path).patches.size == 80  # 6 radii, rounded up to a multiple of 16
    plain = load_config(path)
    (tmp_path / "resolved.yaml").write_text(dump_config(plain))
    assert load_config(tmp_path / "resolved.yaml") == plain
    assert yaml.safe_load(dump_config(plain))["data"]["species"][0]["radius_vox"] == 12.0


@given(st.floats(1.0, 2000.0), st.floats(0.5, 50.0))
def test_one_rule_for_all_sizes(radius: float, size: float) -> None:
    data = {"data": {"dir": "d", "voxel_size_angstrom": size, "species": [{"name": "a", "radius_angstrom": radius}]}}
    assert with_radii(data, "")["data"]["species"] == [{"name": "a", "radius_vox": radius / size}]


def test_simulated_and_copick_data_state_their_own_voxel_size(tmp_path: Path) -> None:
    species = [{"name": "ribosome", "phantom": "ribosome", "radius_angstrom": 140}]
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"data": {"species": species}, "simulation": {"voxel_size_angstrom": 14}}))
    assert radii(path) == [10.0]
    path.write_text(yaml.safe_dump({"data": {"species": species}}))
    assert radii(path) == [14.0]  # the simulation's own default, 10 Å
    copick = {"voxel_spacing_angstrom": 20}
    assert radii(written(path, [{"name": "ribosome", "radius_angstrom": 140}], copick=copick)) == [7.0]


def test_what_has_no_size_or_two_radii_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = written(tmp_path / "c.yaml", [{"name": "a", "radius_angstrom": 60}])
    with pytest.raises(InputError, match=r"data\.species\.0\.radius_angstrom.*voxel size.*data\.voxel_size_angstrom"):
        load_config(path)
    assert radii(path, "data.voxel_size_angstrom=15") == [4.0]
    written(path, [{"name": "a", "radius_angstrom": 60, "radius_vox": 5}], voxel_size_angstrom=15)
    with pytest.raises(InputError, match=r"radius_vox 5 and radius_angstrom 60, which is 4 voxels.*keep one"):
        load_config(path)
    written(path, [{"name": "a", "radius_angstrom": 60, "radius_vox": 4.01}], voxel_size_angstrom=15)
    assert radii(path) == [4.01]  # rounded, so that they agree
    for value in (-3, "many", True):
        with pytest.raises(InputError, match=r"data\.species\.0\.radius_angstrom: must be a positive number"):
            load_config(written(path, [{"name": "a", "radius_angstrom": value}], voxel_size_angstrom=15))
    with pytest.raises(InputError, match=r"data\.species\.0\.radius_vox: missing; give it a value, or radius_angstrom"):
        load_config(written(path, [{"name": "a"}]))


def test_a_radius_on_the_command_line_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "c.yaml", [{"name": "a", "radius_angstrom": 60}], voxel_size_angstrom=15)
    assert radii(path, "data.species.0.radius_vox=7") == [7.0]
    assert radii(path, "data.species.0.radius_angstrom=90") == [6.0]
    written(path, [{"name": "a", "radius_vox": 3}], voxel_size_angstrom=15)
    assert radii(path, "data.species.0.radius_angstrom=90") == [6.0]
    with pytest.raises(InputError, match="contradict each other"):
        load_config(path, ["data.species.0.radius_angstrom=90", "data.species.0.radius_vox=7"])


def test_help_lists_it() -> None:
    assert "data.species.N.radius_angstrom" in [name for name, *_ in describe_fields()]
