"""The particle record and DeepFinder's XML object lists."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.annotations.columns import number, typed
from robpicker_jax.annotations.geometry import matrix_from_euler, rotation_angle_deg
from robpicker_jax.system.errors import InputError
from tests.annotations.strategies import particles as particle_lists

OBJECT = '<object tomo_idx="7" class_label="1" x="1" y="2" z="3" phi="10" psi="20" the="30"/>'


def xml(tmp_path: Path, text: str, name: str = "a_objl.xml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_record_rejects_columns_of_other_lengths() -> None:
    with pytest.raises(ValueError, match="labels"):
        Particles(np.zeros((2, 3)), [1])
    with pytest.raises(ValueError, match="positions_vox"):
        Particles(np.zeros((2, 2)), [1, 1])
    with pytest.raises(ValueError, match="finite"):
        Particles([[0, 0, np.nan]], [1])
    with pytest.raises(ValueError, match="rotations"):
        Particles(np.zeros((2, 3)), [1, 1], rotations=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="negative"):
        Particles(np.zeros((1, 3)), [-1])


@given(particle_lists(full=True), particle_lists())
@settings(max_examples=50, deadline=None)
def test_concatenate_then_select_gives_the_parts_back(first: Particles, second: Particles) -> None:
    both = Particles.concatenate([first, Particles.empty(), second])
    assert len(both) == len(first) + len(second)
    for part, index in ((first, slice(0, len(first))), (second, slice(len(first), None))):
        back = both.select(index)
        np.testing.assert_array_equal(back.positions_vox, part.positions_vox)
        np.testing.assert_array_equal(back.labels, part.labels)
        if part.scores is None:
            assert np.isnan(back.scores).all()
        else:
            np.testing.assert_array_equal(back.scores, part.scores)
        assert part.cluster_sizes is not None or not back.cluster_sizes.any()
        assert part.tomograms is not None or (back.tomograms == "").all()
        assert part.rotations is not None or np.isnan(back.rotations).all()


def test_selection_by_mask_and_nothing() -> None:
    particles = Particles(np.arange(9.0).reshape(3, 3), [1, 2, 3], extra={"a": np.array(["x", "y", "z"])})
    chosen = particles.select([True, False, True])
    assert chosen.labels.tolist() == [1, 3]
    assert chosen.extra["a"].tolist() == ["x", "z"]
    assert len(particles.select([])) == 0
    assert len(Particles.concatenate([])) == 0
    assert particles.with_(labels=[4, 4, 4]).labels.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("train_tomo0137", 693),
        ("train_tomo0145", 935),
        ("train_tomo1959", 1638),
        ("train_tomo2252", 1020),
        ("meta_tomo1333", 820),
        ("test_tomo2814", 836),
    ],
)
def test_empiar_lists(shared_data: Path, name: str, count: int) -> None:
    path = shared_data / "annotations" / f"empiar11830_{name}_objl.xml"
    objects = re.findall(r"<object ([^>]*)/>", path.read_text())
    particles = read_annotations(path)
    assert len(particles) == len(objects) == count
    for i in (0, count // 2, count - 1):
        fields = dict(re.findall(r'(\w+)="([^"]*)"', objects[i]))
        assert particles.positions_vox[i].tolist() == [float(fields[axis]) for axis in "xyz"]
        assert particles.labels[i] == int(fields["class_label"])
        assert particles.tomograms[i] == fields["tomo_idx"] == name[-4:]
        angles = [float(fields[a]) for a in ("phi", "psi", "the")]
        np.testing.assert_allclose(particles.rotations[i], matrix_from_euler(angles, "deepfinder"), atol=1e-12)


def test_shrec_training_list_holds_nine_tomograms(shared_data: Path) -> None:
    path = shared_data / "shrec2019" / "object_list_train.xml"
    text = path.read_text()
    particles = read_annotations(path)
    assert len(particles) == text.count("<object ") == 22446
    for index in "08":
        assert np.count_nonzero(particles.tomograms == index) == text.count(f'tomo_idx="{index}"')
    valid = read_annotations(shared_data / "shrec2019" / "object_list_valid.xml")
    np.testing.assert_array_equal(particles.select(particles.tomograms == "8").positions_vox, valid.positions_vox)


@given(particle_lists())
@settings(max_examples=100, deadline=None)
def test_xml_round_trip(tmp_path_factory: pytest.TempPathFactory, particles: Particles) -> None:
    path = tmp_path_factory.getbasetemp() / "round_objl.xml"
    write_annotations(path, particles)
    back = read_annotations(path)
    np.testing.assert_array_equal(back.positions_vox, particles.positions_vox)
    np.testing.assert_array_equal(back.labels, particles.labels)
    for name in ("scores", "cluster_sizes", "tomograms"):
        expected = getattr(particles, name)
        if expected is None:
            assert getattr(back, name) is None
        else:
            np.testing.assert_array_equal(getattr(back, name), expected)
    if particles.rotations is not None:
        assert rotation_angle_deg(back.rotations, particles.rotations).max() < 1e-5
    assert set(back.extra) == set(particles.extra)


def test_xml_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    other = '<object class_label="2" x="1.5" y="2" z="3" score="0.5" lamella="07" note="a &lt; b"/>'
    particles = read_annotations(xml(tmp_path, f"<objlist>{OBJECT}{other}</objlist>"))
    assert particles.extra["lamella"].tolist() == ["", "07"]
    assert particles.scores[1] == 0.5
    assert np.isnan(particles.scores[0])
    assert np.isnan(particles.rotations[1]).all()
    write_annotations(tmp_path / "b.xml", particles)
    again = read_annotations(tmp_path / "b.xml")
    assert again.extra["note"].tolist() == ["", "a < b"]
    assert np.isnan(again.rotations[1]).all()
    assert again.tomograms.tolist() == ["7", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("<objlist>", "not readable as XML"),
        ("<objlist/>", "holds no particles"),
        ("<catalogue/>", "no object list"),
        (f'<objlist>{OBJECT}<object class_label="1" x="1" z="1"/></objlist>', "object 2 has no attribute 'y'"),
        ('<objlist><object x="1" y="1" z="1"/></objlist>', "object 1 has no attribute 'class_label'"),
        ('<objlist><object class_label="1" x="one" y="1" z="1"/></objlist>', "object 1: x is 'one'"),
        ('<objlist><object class_label="1" x="nan" y="1" z="1"/></objlist>', "not a finite number"),
        ('<objlist><object class_label="1.5" x="1" y="1" z="1"/></objlist>', "not a whole number"),
        ('<objlist><object class_label="-1" x="1" y="1" z="1"/></objlist>', "not a whole number"),
        ('<objlist><object class_label="9999999999" x="1" y="1" z="1"/></objlist>', "not a whole number"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><objlist>&b;</objlist>', "not readable as XML"),
        ('<?xml version="1.0" encoding="utf-99"?><objlist/>', "not readable as XML"),
    ],
)
def test_bad_xml_is_refused_with_file_and_object(tmp_path: Path, text: str, message: str) -> None:
    path = xml(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_annotations(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_lists_are_read_on_request_and_written(tmp_path: Path) -> None:
    write_annotations(tmp_path / "none.xml", Particles.empty())
    assert len(read_annotations(tmp_path / "none.xml", allow_empty=True)) == 0


def test_unknown_files_formats_and_options(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_annotations(tmp_path / "absent.xml")
    with pytest.raises(InputError, match="unknown annotation format 'exel'"):
        read_annotations(xml(tmp_path, OBJECT), fmt="exel")
    with pytest.raises(InputError, match="no annotation format has this suffix"):
        read_annotations(xml(tmp_path, OBJECT, "a.docx"))
    with pytest.raises(InputError, match="has no option 'binning'"):
        read_annotations(xml(tmp_path, OBJECT), binning=2)
    with pytest.raises(InputError, match="cannot be read"):
        read_annotations(tmp_path, fmt="xml")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = xml(tmp_path, f"<objlist>{OBJECT}</objlist>")
    monkeypatch.setattr("robpicker_jax.annotations.deepfinder_xml.ElementTree.write", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_annotations(path, Particles.empty())
    assert len(read_annotations(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_formats_are_called_what_their_records_say() -> None:
    for name, entry in FORMATS.items():
        assert entry.name == name
        assert all(suffix.startswith(".") for suffix in entry.suffixes)
        assert not {assumed.option for assumed in entry.assumptions} - set(entry.options)


def test_typed_columns() -> None:
    assert typed(["1", "2"]).dtype == np.int64
    assert typed(["1", "2.5"]).tolist() == [1.0, 2.5]
    assert typed(["007", "8"]).tolist() == ["007", "8"]
    assert typed(["0.5", None])[0] == 0.5
    assert np.isnan(typed(["0.5", None])[1])
    assert typed(["a", None]).tolist() == ["a", ""]
    assert typed([]).dtype.kind == "U"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_without_loss(value: float) -> None:
    assert float(number(value)) == value
