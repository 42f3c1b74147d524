"""The doctor on a clean simulated data set and on copies of it, each broken in one way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from robpicker_jax.commands.cli import call
from robpicker_jax.commands.doctor import main
from robpicker_jax.config import Config, load_config
from robpicker_jax.diagnosis import CODES, Diagnosis, diagnose, resources
from robpicker_jax.training.workload import count_parameters
from tests.diagnosis.doctor_cases import CONFIG_FAULTS, FAULTS, VOXEL, flip, move


def test_clean_data_set_has_no_fault(clean: Path, config: Config) -> None:
    diagnosis = diagnose(clean, config)
    assert diagnosis.codes == set(), diagnosis.findings
    infos = {finding.code for finding in diagnosis.findings}
    assert infos == {"contrast", "class_counts", "resources"}
    assert diagnosis.class_counts["train"] == {"ribosome": 24, "apoferritin": 32}
    assert diagnosis.hypotheses[0]["hypothesis"] == "as they are"
    assert diagnosis.hypotheses[0]["score"] < -20  # dark particles, as simulated


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_its_code(fault: str, data: Path, config: Config) -> None:
    code, plant = FAULTS[fault]
    plant(data)
    diagnosis = diagnose(data, config, resources_too=False)
    assert code in diagnosis.codes, [f.as_dict() for f in diagnosis.findings]
    found = next(finding for finding in diagnosis.findings if finding.code == code)
    assert found.what
    assert found.fix
    json.dumps(diagnosis.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("fault", "reading"),
    [
        ("z y x", "columns are z y x"),
        ("y z x", "columns are y z x"),
        ("z x y", "columns are z x y"),
        ("mirrored in y", "mirrored in y"),
        ("in angstrom", "in Å"),
        ("unbinned by 4", "of a volume binned 4 times less"),
        ("binned twice", "of a volume binned 2 times more"),
        ("relion 5 written as pixels", "from the centre, in Å"),
        ("origin in the list", "with the header's origin"),
        ("origin in the list, in angstrom", "with the header's origin, in Å"),
        ("origin taken off twice", "the header's origin taken off wrongly"),
    ],
)
def test_the_best_reading_undoes_the_fault(fault: str, reading: str, data: Path, config: Config) -> None:
    FAULTS[fault][1](data)
    diagnosis = diagnose(data, config, resources_too=False)
    assert diagnosis.hypotheses[0]["hypothesis"] == reading
    misread = [f for f in diagnosis.findings if f.severity == "error"]
    assert [f.evidence["reading"] for f in misread] == [reading]
    assert diagnosis.codes <= {misread[0].code}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_configuration_that_does_not_fit_the_data(fault: str, data: Path, config_file: Path) -> None:
    code, changes = CONFIG_FAULTS[fault]
    config = load_config(config_file, [f"data.dir={data}", *(f"{key}={value}" for key, value in changes.items())])
    assert code in diagnose(data, config, resources_too=False).codes


def test_a_wrong_radius_is_told_in_angstrom(data: Path, config_file: Path) -> None:
    config = load_config(config_file, [f"data.dir={data}", "data.species.0.radius_vox=12", "patches.size=40"])
    [finding] = [f for f in diagnose(data, config, resources_too=False).findings if f.code == "radius"]
    assert re.match(rf"the radius of ribosome is {12 * VOXEL:.0f} Å \(12 voxels\), .* is (\d+) Å", finding.what)
    seen = float(finding.evidence["seen_vox"]) * VOXEL
    assert finding.fix == f"set radius_angstrom to about {seen:.0f}"


def test_misspelt_and_missing_folders(tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(main, ["--data", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert diagnose(tmp_path, config).codes == {"layout"}


def test_without_configuration_species_come_from_the_lists(clean: Path) -> None:
    diagnosis = diagnose(clean)
    assert diagnosis.codes == set(), diagnosis.findings
    assert diagnosis.class_counts["meta"] == {"ribosome": 12, "apoferritin": 16}
    assert "no_config" in {finding.code for finding in diagnosis.findings}


def test_estimate_counts_parameters_and_finds_memory_short(
    clean: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evidence(diagnosis: Diagnosis) -> dict[str, Any]:
        return dict(next(f for f in diagnosis.findings if f.code == "resources").evidence)

    small = evidence(diagnose(clean, load_config(config_file)))
    doubled = evidence(diagnose(clean, load_config(config_file, ["train.batch_size=4"])))
    assert doubled["step_tflop"] == pytest.approx(2 * small["step_tflop"])
    # 41 M parameters, as the paper states.
    config = load_config(config_file, ["model={preset: paper}", "train.variant=supervised"])
    counts = count_parameters(config.model, config.train, len(config.data.species) + 1)
    assert sum(counts.values()) == pytest.approx(41e6, rel=0.05)
    monkeypatch.setattr(resources, "available_gib", lambda: 1e-6)
    assert "memory" in diagnose(clean, load_config(config_file)).codes


def test_command_exit_codes_summary_and_json(
    data: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--data",
        str(data),
        "--config",
        str(config_file),
        "--no-resources",
        "--overwrite",
        "--json",
        str(tmp_path / "f.json"),
    ]
    assert call(main, arguments) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["errors"] == 0

    move(flip(2))(data)
    assert call(main, arguments) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert "1 error (flipped)" in captured.err
    assert "mirrored in z" in captured.out
    stored = json.loads((tmp_path / "f.json").read_text())
    (finding,) = [f for f in stored["findings"] if f["severity"] == "error"]
    assert finding["code"] == "flipped"
    assert abs(finding["evidence"]["score"]) > 2 * abs(finding["evidence"]["score_as_they_are"])
    assert stored["hypotheses"][0]["hypothesis"] == "mirrored in z"


def test_every_code_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"`{code}`" not in page] == []
