"""Configuration: what is read, what is refused, and whether the message names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.config import config_folder, describe_fields, dump_config, load_config
from robpicker_jax.config.loading import parse_yaml
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("path", sorted(config_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_load_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    (tmp_path / "again.yaml").write_text(dump_config(config), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("path", sorted(config_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_open_with_what_a_user_must_know(path: Path) -> None:
    comment = [line for line in path.read_text(encoding="utf-8").splitlines()[:25] if line.startswith("#")]
    for word in ("command", "hardware", "time", "result"):
        assert any(line.removeprefix("#").split()[:1] == [word] for line in comment), word


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.stepz=1", ["train.stepz", "unknown key", "train.steps"]),
        ("trian.steps=1", ["trian", "unknown key", "train"]),
        ("data.species.0.raduis_vox=1", ["data.species.0.raduis_vox", "radius_vox"]),
        ("train.steps=-1", ["train.steps", "greater than 0", "-1"]),
        ("train.steps=true", ["train.steps", "must be a number", "true"]),
        ("model.widths=[8, true]", ["model.widths.1", "must be a number", "true"]),
        ("train.steps=many", ["train.steps", "integer", "many"]),
        ("train.inner.learning_rate=-0.1", ["train.inner.learning_rate", "greater than 0"]),
        ("train.inner.momentum=1.5", ["train.inner.momentum", "less than 1"]),
        ("train.variant=robpicker2", ["train.variant", "supervised"]),
        ("label_noise.missing=1.5", ["label_noise.missing", "less than or equal to 1"]),
        ("model.widths=[8,x]", ["model.widths.1", "integer"]),
        ("data.species.7.radius_vox=1", ["data.species.7.radius_vox", "index"]),
        ("data.species.0.radius_vox=null", ["data.species.0.radius_vox", "number"]),
        ("data.species=[]", ["data.species", "no species"]),
        ("data.species=[{name: a}]", ["data.species.0.radius_vox", "missing"]),
        ("data.species=[{name: a, radius_vox: 3}]", ["data.species.0", "phantom"]),
        ("patches.size=512", ["patches.size", "512"]),
        ("patches.shift_vox=16", ["patches.shift_vox", "less than 16"]),
        ("inference.overlap_vox=64", ["inference.overlap_vox", "64"]),
        ("train.inner.eps_root=0", ["train.inner.eps_root", "hypergradient"]),
    ],
)
def test_refusals_name_the_key_in_one_line(override: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_config(None, [override])
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_names_must_be_unique() -> None:
    with pytest.raises(InputError, match="'ribosome' is given 2 times"):
        load_config(None, ["data.species.1.name=ribosome"])


def _doubled(times: int) -> str:
    """YAML of a few hundred letters whose aliases stand for 2 to the power of `times` values."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, times))]
    return "\n".join([*lines, f"data: *a{times - 1}", ""])


def test_aliases_may_repeat_a_value() -> None:
    found = parse_yaml("inner: &one {name: sgd, steps: [1, 2]}\ncorrection: *one\n", "text")
    assert found == {"inner": {"name": "sgd", "steps": [1, 2]}, "correction": {"name": "sgd", "steps": [1, 2]}}


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such configuration"):
        load_config(tmp_path / "absent.yaml")
    path = tmp_path / "broken.yaml"
    for text, expected in (
        ("data: [", "not valid YAML"),
        ("- a\n- b\n", "sections"),
        ("!!python/name:os.system", "YAML"),
        (_doubled(40), "more than 1,000,000 values"),
        ("data: &a {b: *a}\n", "inside what it names"),
        ("data: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("train: {steps: !!int x}\n", "not valid YAML"),
        ("train: {steps: 2020-13-45}\n", "not valid YAML"),
        ("train: {steps: !!timestamp x}\n", "not valid YAML"),
        ("train: {steps: !!bool x}\n", "not valid YAML"),
        ("data: {species: [{name: a, radius_vox: .inf}]}\n", "radius_vox.*finite"),
        ("data: {voxel_size_angstrom: .nan}\n", "voxel_size_angstrom.*finite"),
        ("train: {steps: " + "9" * 5000 + "}\n", "not valid YAML"),
        ('data: {dir: "a\\0b"}\n', "dir: .* cannot be a path"),
        ("data: {dir: ~nobody-has-this-name/x}\n", "dir: .* cannot be a path"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=expected):
            load_config(path)


def test_numbers_of_steps_below_one_are_shares_that_follow_the_steps(tiny_config: Path, tmp_path: Path) -> None:
    shares = ["train.meta_warmup_steps=0.33", "train.fine_tune_steps=0.1"]
    train = load_config(tiny_config, ["train.steps=900", *shares]).train
    assert (train.n_meta_warmup_steps, train.n_fine_tune_steps, train.main_steps) == (297, 90, 810)
    short = load_config(tiny_config, [*shares, "train.steps=12"]).train
    assert (short.n_meta_warmup_steps, short.n_fine_tune_steps, short.main_steps) == (4, 1, 11)
    numbers = load_config(tiny_config, ["train.steps=900", "train.meta_warmup_steps=300", "train.fine_tune_steps=90.0"])
    assert (numbers.train.n_meta_warmup_steps, numbers.train.n_fine_tune_steps) == (300, 90)
    assert "fine_tune_steps: 90\n" in dump_config(numbers)  # as a whole number, of which records have their fingerprint
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(load_config(tiny_config, shares)), encoding="utf-8")
    assert load_config(path).train.fine_tune_steps == 0.1
    for wrong, said in (("1.5", "whole number of steps"), ("-1", "greater than or equal to 0"), ("true", "a number")):
        with pytest.raises(InputError, match=rf"train\.fine_tune_steps.*{said}"):
            load_config(tiny_config, ["train.steps=900", f"train.fine_tune_steps={wrong}"])
    with pytest.raises(InputError, match=r"must be less than train\.steps \(1\)"):
        load_config(tiny_config, ["train.steps=1", "train.fine_tune_steps=0.9"])
    with pytest.raises(InputError, match=r"train\.meta_warmup_until.*meta_warmup_steps"):
        load_config(tiny_config, ["train.meta_warmup_until=plateau", "train.meta_warmup_steps=0"])


@pytest.mark.parametrize("index", ["²", "９", "99999999999999999999", "-1"])
def test_indices_of_overrides_that_are_none(index: str) -> None:
    with pytest.raises(InputError, match="no index of a list"):
        load_config(None, [f"data.species.{index}.radius_vox=3"])


def test_the_name_of_a_shipped_model_stays_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "configs" / "c.yaml"

    def of_file(text: str) -> str | None:
        path.write_text(dump_config(load_config(None, [f"train.init_from={text}"])), encoding="utf-8")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values["train"]["init_from"] = text
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return load_config(path).train.init_from

    assert load_config(None, ["train.init_from=general"]).train.init_from == of_file("general") == "general"
    for text in ("general.rpk", "runs/general", "./general.rpk"):
        assert load_config(None, [f"train.init_from={text}"]).train.init_from == str((tmp_path / text).resolve())
        assert of_file(text) == str((tmp_path / "configs" / text).resolve())
    (tmp_path / "configs" / "RUN").mkdir()  # a run beside the file is meant by its name
    assert of_file("RUN") == str((tmp_path / "configs" / "RUN").resolve())
    (tmp_path / "general").mkdir()  # a file elsewhere does not mean what lies in the working folder
    assert load_config(None, ["train.init_from=general"]).train.init_from == str((tmp_path / "general").resolve())
    assert of_file("general") == str((tmp_path / "configs" / "general").resolve())


def test_paths_are_relative_to_the_file_or_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    text = {"data": {"dir": "../set", "species": [{"name": "a", "radius_vox": 3, "density": "maps/a.mrc"}]}}
    (folder / "a.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    config = load_config(folder / "a.yaml")
    assert config.data.dir == str((tmp_path / "set").resolve())
    assert config.data.species[0].density == str((folder / "maps" / "a.mrc").resolve())
    monkeypatch.chdir(tmp_path)
    assert load_config(folder / "a.yaml", ["data.dir=here"]).data.dir == str((tmp_path / "here").resolve())


def test_every_field_has_help() -> None:
    fields = list(describe_fields())
    assert len(fields) > 60
    assert all(text for *_, text in fields)


@given(st.floats(1e-9, 1e3), st.integers(1, 10**6), st.booleans())
def test_overrides_take_yaml_values(rate: float, steps: int, remat: bool) -> None:
    config = load_config(
        None, [f"train.inner.learning_rate={rate!r}", f"train.steps={steps}", f"model.remat={str(remat).lower()}"]
    )
    assert config.train.inner.learning_rate == rate
    assert config.train.steps == steps
    assert config.model.remat is remat
