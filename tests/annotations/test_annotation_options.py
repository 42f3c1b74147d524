"""`data.annotation_options`: what it changes in every command that reads lists, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from robpicker_jax.annotations import FORMATS, Particles, write_annotations
from robpicker_jax.annotations.format import CONTEXT
from robpicker_jax.annotations.options import check_options, options_for
from robpicker_jax.commands import doctor, evaluate, targets
from robpicker_jax.commands.cli import call
from robpicker_jax.config import dump_config, load_config
from robpicker_jax.datasets import discover, open_tomogram, survey
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume, write_mrc

SHAPE = (40, 48, 56)
POSITIONS = np.array([[10.0, 20.0, 30.0], [40.0, 12.0, 8.0], [25.0, 33.0, 21.0], [47.0, 40.0, 33.0]])


def star(path: Path, positions: np.ndarray) -> None:
    rows = "\n".join(" ".join(f"{value:g}" for value in row) for row in positions)
    header = "\n".join(f"_rlnCoordinate{axis} #{k}" for k, axis in enumerate("XYZ", start=1))
    path.write_text(f"data_\n\nloop_\n{header}\n{rows}\n")


def csv(path: Path, positions: np.ndarray) -> None:
    path.write_text("x,y,z\n" + "".join(",".join(f"{v:g}" for v in row) + "\n" for row in positions))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Unbinned STAR lists in train (binning 4), Å in CSV in meta (10 Å), z y x in .coords in test."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for split in ("train", "meta", "test"):
        density = rng.standard_normal(SHAPE).astype(np.float32)
        for px, py, pz in POSITIONS:
            density[(z - pz) ** 2 + (y - py) ** 2 + (x - px) ** 2 <= 16] += 4
        (tmp_path / split).mkdir()
        write_mrc(tmp_path / split / f"{split}1.mrc", density, 10.0)
    star(tmp_path / "train" / "train1.star", POSITIONS * 4)
    csv(tmp_path / "meta" / "meta1.csv", POSITIONS * 10)
    rows = [" ".join(f"{v:g}" for v in row[::-1]) for row in POSITIONS]
    (tmp_path / "test" / "test1.coords").write_text("\n".join(rows) + "\n")
    return tmp_path


def config_file(folder: Path, **options: object) -> Path:
    species = [{"name": "ribosome", "radius_vox": 4}]
    content = {"data": {"dir": str(folder), "species": species, "meta_labels": "sphere", "annotation_options": options}}
    path = folder / "config.yaml"
    path.write_text(
        yaml.safe_dump(content | {"patches": {"size": 16, "shift_vox": 4}, "inference": {"overlap_vox": 4}})
    )
    return path


RIGHT = {"star": {"binning": 4}, "csv": {"unit": "angstrom"}, "coords": {"axes": "zyx"}}


def test_each_format_has_its_own(data: Path) -> None:
    config = load_config(config_file(data, **RIGHT))
    dataset = discover(data)
    assert survey(dataset, config.data, 16).voxel_size_angstrom == 10
    for split in ("train", "meta", "test"):
        (tomogram,) = dataset[split]
        loaded = open_tomogram(tomogram, config.data).particles
        assert loaded is not None
        np.testing.assert_allclose(loaded.positions_vox, POSITIONS)
    assert load_config(config_file(data, **RIGHT)) == config
    path = data / "again.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_flags_say_the_same(data: Path) -> None:
    flags = ["data.annotation_options.star.binning=4", "data.annotation_options.csv.unit=angstrom"]
    config = load_config(config_file(data), [*flags, "data.annotation_options.coords.axes=zyx"])
    assert config.data.annotation_options == RIGHT
    (data / "meta" / "meta1.csv").unlink()
    star(data / "meta" / "meta1.star", POSITIONS * 4)
    (data / "test" / "test1.coords").unlink()
    config = load_config(config_file(data), ["data.annotation_options.binning=4"])
    for split in ("train", "meta"):
        loaded = open_tomogram(discover(data)[split][0], config.data).particles
        assert loaded is not None
        np.testing.assert_allclose(loaded.positions_vox, POSITIONS)


def test_an_option_that_a_lists_format_lacks_is_not_passed_over(data: Path) -> None:
    config = load_config(config_file(data, binning=4))
    with pytest.raises(InputError) as caught:
        survey(discover(data), config.data, 16)
    assert caught.value.where == str(data / "meta" / "meta1.csv") or caught.value.where == data / "meta" / "meta1.csv"
    assert "data.annotation_options.binning" in str(caught.value)
    assert "csv" in str(caught.value)
    assert "format csv knows unit, axes" in str(caught.value)
    assert "data.annotation_options.FORMAT.binning" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bining": 4}, r"bining: no annotation format has this option; did you mean binning\?.*first_voxel"),
        ({"star": {"bining": 4}}, r"star\.bining: RELION.*did you mean binning\? format star knows tomograms, centre"),
        ({"txt": {"binning": 4}}, "format txt has no options"),
        ({"star": 4}, "star: must hold options of the format, got 4"),
        ({"binning": "four"}, "binning: input should be a valid number.*got 'four'"),
        ({"csv": {"unit": ["angstrom"]}}, r"csv\.unit: input should be a valid string"),
        ({"origin_angstrom": [1, 2]}, "origin_angstrom: "),
        ({"format": "stars"}, "unknown format 'stars'; one of xml, star"),
        ({"voxel_size_angstrom": 4}, "say data.voxel_size_angstrom"),
        ({"class_labels": {"a": 1}}, "data.species"),
    ],
)
def test_what_no_list_could_be_read_with_is_refused_at_once(
    data: Path, options: dict, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(InputError, match=message):
        check_options(options)
    assert call(doctor.main, ["--config", str(config_file(data, **options)), "--no-resources"]) == 2
    assert "data.annotation_options" in capsys.readouterr().err


def test_every_option_of_every_format_is_taken() -> None:
    examples = {
        "binning": 2,
        "first_voxel": 1,
        "unit": "voxel",
        "axes": "zyx",
        "half_pixel": False,
        "origin_angstrom": [0, 1, 2.5],
        "tomograms": "tomograms.star",
        "centre": "N/2-1",
        "pixel_size_angstrom": 1.3,
        "block": "particles",
        "class_column": "rlnClassNumber",
        "user": "ann",
        "tomogram_names": "tomograms.doc",
        "session": 7,
        "object": "ribosome",
    }
    context = set(CONTEXT)
    for name, fmt in FORMATS.items():
        known = {option: examples[option] for option in fmt.arguments("read") if option not in context}
        check_options({name: known})
        check_options(known)
        path = Path(f"list{fmt.suffixes[0]}")
        assert options_for(path, {name: known}, fmt=name) == {"fmt": name, **known}
        assert options_for(path, {"xml": {}, **known}, fmt=name) == {"fmt": name, **known}


def test_the_page_of_formats_lists_every_option_with_its_formats() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([a-z0-9_, ]+) \|$", page, re.MULTILINE)
    listed = {(fmt, option) for option, formats in rows for fmt in formats.split(", ")}
    assert listed == {(name, option) for name in FORMATS for option in FORMATS[name].reading_options}
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    blocks = [block for block in blocks if "annotation_options" in block["data"]]
    assert len(blocks) == 2
    for block in blocks:
        check_options(block["data"]["annotation_options"])


def test_the_format_of_lists_whose_suffix_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "a.coords"
    path.write_text("1 10 20 30\n")
    assert options_for(path, {"format": "deepetpicker"}) == {"fmt": "deepetpicker"}
    assert options_for(path, {"format": "relion5"}) == {}
    assert options_for(
        path, {"format": "deepetpicker", "deepetpicker": {"axes": "zyx"}, "coords": {"axes": "yxz"}}
    ) == {
        "fmt": "deepetpicker",
        "axes": "zyx",
    }


def test_a_tomograms_table_is_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    path = config_file(tmp_path, relion5={"tomograms": "tables/tomograms.star"})
    options = load_config(path).data.annotation_options
    assert options == {"relion5": {"tomograms": str(tmp_path / "tables" / "tomograms.star")}}


def test_centred_coordinates_by_their_table(data: Path) -> None:
    """RELION 5's centred Å, at a tomogram of other size than the volume: (position − size/2) · pixel size."""
    size = np.array([224, 192, 160])
    table = data / "tomograms.star"
    header = ("rlnTomoName", "rlnTomoTiltSeriesPixelSize", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
    loop = "\n".join(f"_{name} #{k}" for k, name in enumerate(header, start=1))
    table.write_text(f"data_global\n\nloop_\n{loop}\ntrain1 2.5 {size[0]} {size[1]} {size[2]}\n")
    centred = (POSITIONS * 4 - size / 2) * 2.5
    columns = "\n".join(f"_rlnCenteredCoordinate{axis}Angst #{k}" for k, axis in enumerate("XYZ", start=1))
    rows = "\n".join("train1 ".join(["", " ".join(f"{v:.3f}" for v in row)]) for row in centred)
    columns = columns.replace("#3", "#4").replace("#2", "#3").replace("#1", "#2")
    (data / "train" / "train1.star").write_text(f"data_particles\n\nloop_\n_rlnTomoName #1\n{columns}\n{rows}\n")
    config = load_config(config_file(data, star={"tomograms": "tomograms.star"}))
    loaded = open_tomogram(discover(data)["train"][0], config.data).particles
    assert loaded is not None
    np.testing.assert_allclose(loaded.positions_vox, POSITIONS, atol=1e-3)


def test_doctor_targets_and_evaluate_read_alike(data: Path, tmp_path: Path) -> None:
    config = config_file(data, **RIGHT)
    found = data / "findings.json"
    assert call(doctor.main, ["--config", str(config), "--json", str(found), "--no-resources"]) == 0
    codes = {entry["code"] for entry in json.loads(found.read_text())["findings"]}
    assert not codes & {"outside_volume", "in_angstrom", "binning", "unreadable_annotations"}
    wrong = json.dumps({"star": {"binning": 1}})
    assert call(doctor.main, ["--config", str(config), "--data.annotation_options", wrong, "--no-resources"]) == 2
    # Without a configuration too: the flags alone.
    flags = [f"--data.annotation_options.{fmt}={json.dumps(options)}" for fmt, options in RIGHT.items()]
    assert call(doctor.main, ["--data", str(data), "--json", str(found), "--overwrite", *flags]) == 0
    assert "no_config" in {entry["code"] for entry in json.loads(found.read_text())["findings"]}

    assert call(targets.main, ["--config", str(config)]) == 0
    for split in ("train", "meta", "test"):
        labels = read_volume(data / split / f"{split}1_target.mrc").data
        assert all(labels[tuple(position[::-1].astype(int))] == 1 for position in POSITIONS)

    write_annotations(data / "picks" / "test1.xml", Particles(POSITIONS, np.ones(4, np.int32)))
    out = data / "evaluation.json"
    arguments = ["--truth", str(data), "--picks", str(data / "picks"), "--overwrite", "--json", str(out)]
    assert call(evaluate.main, [*arguments, "--config", str(config)]) == 0
    assert json.loads(out.read_text())["micro"]["f1"] == 1
    more = ["--classes", "ribosome", "--radii", "4"]
    assert call(evaluate.main, [*arguments, *more, "--truth-option", "axes=zyx"]) == 0
    assert json.loads(out.read_text())["micro"]["f1"] == 1
    (data / "picks" / "test1.xml").unlink()
    star(data / "picks" / "test1.star", POSITIONS * 4)
    more += ["--truth-option", "axes=zyx", "--picks-option", "binning=4"]
    assert call(evaluate.main, [*arguments, *more]) == 0
    assert json.loads(out.read_text())["micro"]["f1"] == 1
