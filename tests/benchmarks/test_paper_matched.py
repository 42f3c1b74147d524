"""Studies whose labels are made by template matching: their lists, their averages, and what a record keeps of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper import __main__ as command
from benchmarks.paper.averages import _best, _hits
from benchmarks.paper.collect import as_text, collect
from benchmarks.paper.matched import MatchedLists, _write, matching_config, with_measured_corruption
from benchmarks.paper.measure import carry_out
from benchmarks.paper.restore import restore
from benchmarks.paper.runner import Runner, folder_of, read_further, read_result
from benchmarks.paper.study import FURTHER, RESULT, Matched, Run, Study
from robpicker_jax.annotations import Particles
from robpicker_jax.datasets import discover, open_tomogram
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.system.errors import InputError
from tests.benchmarks.paper_cases import TOY, result_of, toy

MATCHED = {"angle_step_deg": 40.0, "averaged": ["ribosome"], "average_step_deg": 60.0, "iterations": 1}
CASES = {
    "matching": {"label": "the lists", "picks": "matching", "settings": {"train.variant": "supervised"}},
    "supervised": TOY["cases"]["supervised"],
    "truth": {"label": "the truth", "picks": "truth", "settings": {"train.variant": "supervised"}},
}
DATA = {"clean": {"label": "right before matching", "settings": {"label_noise.missing": 0.0, "simulation.test": 2}}}


def matched_toy(folder: Path, **changes: Any) -> Study:
    """The toy study with labels by template matching."""
    entries: dict[str, Any] = {"matched": MATCHED, "cases": CASES, "data_sets": DATA, "references": ["matching"]}
    return toy(folder, **(entries | {"figures": ["averages"]} | changes))


def test_a_run_depends_on_the_matching_and_on_whose_picks_are_judged(tmp_path: Path) -> None:
    study = matched_toy(tmp_path / "a")
    runs = list(study.runs([0]))
    assert len({study.fingerprint(run) for run in runs}) == 3
    other = matched_toy(tmp_path / "b", matched=MATCHED | {"share": 0.5})
    assert not {study.fingerprint(run) for run in runs} & {other.fingerprint(run) for run in runs}
    assert toy(tmp_path / "c").further(Run("few", "supervised", 0)) == {}
    with pytest.raises(InputError, match="no templates"):
        matched_toy(tmp_path / "d", matched=None)
    with pytest.raises(InputError, match="no templates"):
        toy(tmp_path / "f", cases=TOY["cases"] | {"robpicker": {"label": "taught", "corruption": "measured"}})
    with pytest.raises(InputError, match="no species"):
        matched_toy(tmp_path / "e", matched=MATCHED | {"averaged": ["nobody"]})


def _write_result(study: Study, out: Path, run: Run, resolution: float) -> None:
    result = result_of(study, run, 0.5)
    metrics = {
        "average/number/ribosome": 4,
        "average/truth 0.5/ribosome": resolution,
        "average/edge/ribosome": 16,
        **{f"fsc {kind}/ribosome/{shell:02d}": 1 / shell for kind in ("halves", "truth") for shell in range(1, 8)},
    }
    result |= {"fingerprint": study.fingerprint(run), "further": study.further(run)}
    result["metrics"] = result["metrics"] | metrics
    folder = folder_of(out, study, run)
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps(result))


def test_a_record_keeps_averages_and_gives_the_runs_back(tmp_path: Path) -> None:
    study, out = matched_toy(tmp_path / "studies"), tmp_path / "out"
    for seed in (0, 1):
        _write_result(study, out, Run("clean", "matching", seed), 50.0)
        _write_result(study, out, Run("clean", "truth", seed), 45.0 + seed)
    options = ["--study", "toy", "--draw-only", "--out", str(out), "--docs", str(tmp_path / "docs")]
    assert command.main(options, folder=tmp_path / "studies") == 0
    page = (tmp_path / "docs" / "results.md").read_text()
    assert (
        "| the truth | 2 | 4 | – | – | – | 45.5 | -4.5 [-10.9, +1.9] |" in page
    )  # Student's t with one degree: 12.7 · 0.5
    assert "images/results_toy_cpu_averages.png" in page
    record = tmp_path / "record.json"
    record.write_text(as_text(collect(study, out, command="again")))
    assert restore(study, record, tmp_path / "later") == 4
    result = read_result(folder_of(tmp_path / "later", study, Run("clean", "truth", 1)))
    assert result is not None
    assert result["fingerprint"] == study.fingerprint(Run("clean", "truth", 1))
    assert result["metrics"]["average/truth 0.5/ribosome"] == 46.0
    changed = matched_toy(tmp_path / "changed", matched=MATCHED | {"iterations": 2})
    assert restore(changed, record, tmp_path / "none") == 0


def test_the_best_picks_of_all_tomograms_are_averaged() -> None:
    lists = [
        Particles([[0, 0, 0], [9, 0, 0]], [1, 1], scores=[0.9, 0.1]),
        Particles([[5, 0, 0]], [1], scores=[0.5]),
        Particles.empty(),
    ]
    assert [each.positions_vox[:, 0].tolist() for each in _best(lists, 2)] == [[0], [5], []]
    unscored = [Particles(each.positions_vox, each.labels) for each in lists]
    assert sum(map(len, _best(unscored, 2))) == 2
    assert _hits(lists[0], Particles([[0, 3, 0]], [1]), 3.0) == 1
    assert _hits(lists[2], lists[0], 3.0) == 0


def test_cut_offs_come_before_templates_compete(tmp_path: Path) -> None:
    study = matched_toy(tmp_path / "studies")
    config = study.config(Run("clean", "matching", 0))
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), tmp_path / "data")
    (files,) = discover(tmp_path / "data")["train"]
    # The second template's peak is the better one, and below its cut-off.
    at = (
        Particles([[10, 10, 10]], [1], scores=[0.4]),
        Particles([[10, 11, 10], [30, 10, 10]], [2, 2], scores=[0.5, 0.7]),
    )
    _write(tmp_path / "data" / "candidates" / f"train_{files.name}.npz", at, [0.3, 0.6])
    by_clean = {"thresholds": [0.3, 0.6], "radii_vox": [5.0, 3.0]}
    (tmp_path / "data" / "matched.json").write_text(json.dumps(by_clean | {"thresholds": []}))
    lists = MatchedLists(tmp_path / "data")
    with open_tomogram(files, config.data) as tomogram:
        assert lists.picks(tomogram).labels.tolist() == [2, 1]
        (tmp_path / "data" / "matched.json").write_text(json.dumps(by_clean))
        lists = MatchedLists(tmp_path / "data")
        assert lists.picks(tomogram).labels.tolist() == [2, 1]
        candidates = lists.candidates(tomogram)
        assert sorted(candidates.labels.tolist()) == [1, 2, 2]
    # On the clean tomogram every particle is taken for the second species.
    (clean,) = discover(tmp_path / "data")["meta"]
    with open_tomogram(clean, config.data) as tomogram:
        assert tomogram.particles is not None
        wrong = tomogram.particles.with_(labels=np.full(len(tomogram.particles), 2), class_names=None)
        wrong = wrong.with_(scores=np.full(len(wrong), 0.9))
    _write(tmp_path / "data" / "candidates" / f"meta_{clean.name}.npz", [wrong], [0.3, 0.6])
    (tmp_path / "data" / "matched.json").write_text(json.dumps(by_clean | {"radii_vox": [0.1, 0.1]}))
    there = replace(config, data=replace(config.data, dir=str(tmp_path / "data")))
    corruption = with_measured_corruption(there).train.corruption
    assert corruption.swap == {"ribosome": 1.0, "apoferritin": 0.0}
    assert corruption.swap_to == {"ribosome": "apoferritin"}
    assert corruption.false_picks == 0
    assert matching_config(config, Matched()).tilt_step_deg is None
    settings = matching_config(config, Matched(weighing="ctf"))
    assert settings.voxel_size_angstrom == config.simulation.voxel_size_angstrom
    assert [each.density for each in settings.templates] == ["phantom:ribosome", "phantom:apoferritin"]
    assert settings.phase_flipped


@pytest.mark.slow
def test_lists_and_averages_of_a_whole_run(tmp_path: Path) -> None:
    """The true particles score 1 and average best; matched lists become labels, and are not matched twice."""
    study = matched_toy(tmp_path / "studies")
    runner = Runner(study, tmp_path / "out", [0])
    results = {}
    for case in ("truth", "matching", "supervised"):
        run = Run("clean", case, 0)
        folder = folder_of(tmp_path / "out", study, run)
        runner._prepare(folder, run)
        assert read_further(folder)["picks"] == study.file.cases[case].picks
        results[case] = carry_out(folder)
    assert results["truth"]["metrics"]["plain/f1/macro"] == 1
    assert (folder / FURTHER).exists()
    (labelled,) = (tmp_path / "out" / "data").glob("*_*/matched.json")
    stamps = [path.stat().st_mtime_ns for path in sorted(labelled.parent.glob("candidates/*"))]
    assert len(stamps) == 1 + 1 + 2  # train, meta, test
    base = discover(labelled.parent)["train"][0]
    with open_tomogram(base, study.config(Run("clean", "supervised", 0)).data) as tomogram:
        lists = MatchedLists(labelled.parent)
        assert tomogram.particles is not None
        np.testing.assert_allclose(
            np.sort(tomogram.particles.positions_vox, axis=0), np.sort(lists.picks(tomogram).positions_vox, axis=0)
        )
    for name in ("average/number/ribosome", "average/truth 0.5/ribosome"):
        assert results["truth"]["metrics"][name] is not None
