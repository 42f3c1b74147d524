"""The report: figures that show something, a page that works offline, names that cannot harm it."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.reporting import (
    ClassWeights,
    Comparison,
    ReportData,
    SpeciesInfo,
    write_report,
)
from robpicker_jax.reporting.style import MAX_PNG_BYTES, class_colours
from tests.reporting.report_data import (
    HOSTILE,
    SPECIES,
    Page,
    make_data,
    make_evaluation,
    make_example,
    make_history,
    make_tomogram,
    page_text,
)


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_data()


@pytest.fixture(scope="module")
def index(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(data, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(index: Path) -> Page:
    return Page(index.read_text(encoding="utf-8"))


def test_writes_every_figure_readable_and_bounded(index: Path) -> None:
    names = {path.stem for path in index.parent.glob("*.png")}
    assert names == {
        "f1", "thresholds", "training", "clean_patches", "meta_networks", "label_correction", "correction_over_steps",
        "sample_weights", "weights_over_steps",
        "slice_1_tomo_0000", "slice_2_tomo_0001",
    }  # fmt: skip
    for path in index.parent.glob("*.png"):
        assert path.stat().st_size <= MAX_PNG_BYTES
        image = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert image.shape[1] >= 800, path
        assert image.std() > 10, path
        assert (image.reshape(-1, 3)[0] == 255).all(), path  # a white margin, also after fewer colours
    assert not list(index.parent.glob(".tmp*"))


@pytest.mark.parametrize(
    "name",
    [
        "f1",
        "slice_1_tomo_0000",
        "slice_2_tomo_0001",
        "sample_weights",
        "training",
        "clean_patches",
        "label_correction",
        "correction_over_steps",
        "weights_over_steps",
    ],
)
def test_classes_keep_their_colours_in_every_figure(index: Path, name: str) -> None:
    pixels = np.asarray(Image.open(index.parent / f"{name}.png").convert("RGB")).reshape(-1, 3).astype(int)
    for species, colour in list(class_colours([s[0] for s in SPECIES]).items())[1:]:
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(1) <= 8).sum() > 20, species


def test_page_is_one_file_that_asks_the_network_for_nothing(page: Page, index: Path) -> None:
    text = index.read_text(encoding="utf-8")
    assert len(text) < 8_000_000
    assert not re.search(
        r"(https?:|ftp:|wss?:)?//[a-z0-9]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text).split("<script")[0]
    )
    assert "http:" not in text
    assert "https:" not in text
    for word in ("fetch(", "XMLHttpRequest", "import(", "WebSocket", "@import", "url(", "innerHTML", "eval("):
        assert word not in text
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for key in ("src", "href", "srcset", "action", "poster", "data"):
            if attributes.get(key) is not None:
                assert str(attributes[key]).startswith(("data:image/png;base64,", "#"))
        assert not [key for key in attributes if key.startswith("on")]
    policy = next(m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")


def test_page_holds_the_very_figures_with_a_caption_each(page: Page, index: Path) -> None:
    sources = [str(image["src"]).split(",", 1)[1] for image in page.of("img")]
    stored = {path.read_bytes() for path in index.parent.glob("*.png")}
    assert {base64.b64decode(source) for source in sources} == stored
    assert len(page.of("figcaption")) == len(sources)
    assert all(len(str(image["alt"])) > 20 for image in page.of("img"))


def test_page_links_lead_somewhere(page: Page) -> None:
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {str(a["href"])[1:] for a in page.of("a")} <= targets
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_table_shows_the_evaluation(data: ReportData, page: Page) -> None:
    for row in data.evaluation["classes"]:
        assert f"{row['f1']:.3f}" in page.text
        assert f"{row['average_precision']:.3f}" in page.text
    assert f"{data.evaluation['macro']['f1']:.3f}" in page.text
    assert "F1, supervised" in page.text
    assert "variant: robpicker" in page.text
    assert "0.10.2" in page.text
    assert "inside a true particle" in page.text


def test_same_data_same_bytes(data: ReportData, tmp_path: Path) -> None:
    few = dataclasses.replace(data, tomograms=data.tomograms[:1], label_examples=(), history=(), evaluation={})
    one, other = (write_report(few, tmp_path / name).read_bytes() for name in ("one", "other"))
    assert one == other


def test_no_window_system_is_started(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.reporting.report_data import *\n"
        "few = dataclasses.replace(make_data(tomograms=1), label_examples=(), history=())\n"
        f"write_report(few, Path({str(tmp_path)!r})); assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    species = ((HOSTILE, 5.0, 100.0), ("_hidden\nname", 4.0, 50.0))
    view = make_tomogram(HOSTILE, species=species, shape=(16, 40, 48), per_class=3)
    history = make_history(species, steps=100)
    data = ReportData(
        HOSTILE,
        config_yaml=HOSTILE,
        versions={HOSTILE: [HOSTILE]},
        machine=HOSTILE,
        species=[SpeciesInfo(*s) for s in species],
        history=history,
        evaluation=make_evaluation([view], species) | {"rule": HOSTILE},
        tomograms=[view],
        label_examples=[make_example(HOSTILE, 1, n_species=2)],
        weights=[ClassWeights(HOSTILE, 1.0, np.linspace(0, 1, 9), HOSTILE)],
        comparison=Comparison(HOSTILE, make_evaluation([view], species), history),
        absent={"labels": HOSTILE},
    )
    parsed = Page(page_text(data, tmp_path))
    assert len(parsed.of("script")) == 2
    assert all(str(image["src"]).startswith("data:image/png") for image in parsed.of("img"))
    assert HOSTILE in parsed.text
    payload = json.loads(parsed.scripts[0])
    assert payload["classes"][0]["name"] == HOSTILE
    assert payload["tomograms"][0]["name"] == HOSTILE
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", path.name) for path in tmp_path.iterdir())


def test_an_empty_report_says_why(tmp_path: Path) -> None:
    parsed = Page(page_text(ReportData("nothing yet"), tmp_path))
    assert not list(tmp_path.glob("*.png"))
    for reason in (
        "the test tomograms have not been evaluated",
        "no test tomograms were picked",
        "no training or validation rows",
        "no label examples were kept",
        "no sample weights were kept",
        "configuration was not given",
    ):
        assert reason in parsed.text
    assert not parsed.of("script")


@pytest.mark.parametrize(
    ("variant", "section", "reason"),
    [
        ("supervised", "labels", "supervised variant: no meta networks"),
        ("supervised", "weights", "supervised variant: no meta networks"),
        ("dr_only", "labels", "no label correction network"),
        ("lc_only", "weights", "no data reweighting network"),
        ("robpicker", "weights", "default"),
    ],
)
def test_the_variant_explains_missing_networks(variant: str, section: str, reason: str) -> None:
    assert reason in ReportData("t", variant=variant).reason(section, "default")
    assert ReportData("t", variant=variant, absent={section: "mine"}).reason(section, "default") == "mine"


def test_supervised_history_draws_no_meta_networks(tmp_path: Path) -> None:
    history = [row | {"alpha_mean": 0.0, "weight_mean/ribosome": 1.0} for row in make_history(steps=100, meta=False)]
    parsed = Page(page_text(ReportData("t", variant="supervised", history=history), tmp_path))
    assert {path.stem for path in tmp_path.glob("*.png")} == {"training"}
    assert "supervised variant: no meta networks" in parsed.text


def test_figures_of_a_former_report_go_and_foreign_files_stay(tmp_path: Path) -> None:
    for name in ("slice_3_old.png", "sample_weights.png", "mine.png"):
        (tmp_path / name).write_bytes(b"old")
    write_report(ReportData("t"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.png", "index.html"}


@pytest.mark.parametrize(
    "case", ["no picks", "no truth", "no scores", "unknown classes", "one flat slice", "nan scores"]
)
def test_odd_tomograms(case: str, tmp_path: Path) -> None:
    view = make_tomogram(shape=(12, 40, 48), per_class=2)
    picks, species = view.picks, [SpeciesInfo(*s) for s in SPECIES]
    changes: dict[str, Any] = {
        "no picks": {"picks": Particles.empty()},
        "no truth": {"truth": None},
        "no scores": {"picks": picks.with_(scores=None), "voxel_size_angstrom": None},
        "unknown classes": {"picks": picks.with_(labels=np.where(np.arange(len(picks)) % 2, 0, 9))},
        "one flat slice": {"density": np.zeros((1, 40, 48), np.float32)},
        "nan scores": {"picks": picks.with_(scores=np.full(len(picks), np.nan))},
    }[case]
    data = ReportData("odd", species=species, tomograms=[dataclasses.replace(view, **changes)])
    parsed = Page(page_text(data, tmp_path))
    payload = json.loads(parsed.scripts[0])["tomograms"][0]
    assert len(payload["picks"]["x"]) == (0 if case == "no picks" else len(picks))
    assert ("match" in payload["picks"]) == (case != "no truth")
    assert (payload["picks"]["score"] is None) == (case in ("no scores", "no picks", "nan scores"))
    if case == "no truth":
        assert "missed" not in parsed.text
