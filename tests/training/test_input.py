"""Input: device and host form give the same batches, files are read as arrays are, scalings are found once."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from robpicker_jax import parallel
from robpicker_jax.annotations import registry
from robpicker_jax.bilevel import Metrics
from robpicker_jax.commands import main_job
from robpicker_jax.commands.cli import call
from robpicker_jax.config import Config, load_config
from robpicker_jax.datasets import discover, open_tomogram
from robpicker_jax.training.data import TrainingData
from robpicker_jax.training.input_forms import lives_on_devices
from robpicker_jax.training.metrics_log import SilentLog
from robpicker_jax.training.objective import Batch
from robpicker_jax.training.trainer import next_batch
from robpicker_jax.training.workload import step_bytes
from robpicker_jax.volumes import formats, normalisation
from tests.steps import loaded_data
from tests.tiny import write_tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny configuration, with two training tomograms of different sizes and two inner steps."""
    folder = tmp_path_factory.mktemp("input")
    path = write_tiny(folder / "tiny.yaml")
    from robpicker_jax.commands import simulate

    assert call(simulate.main, ["--config", str(path), "--out", str(folder / "data")]) == 0
    other = ["--simulation.shape_zyx=[40,36,44]", "--simulation.seed=3"]
    assert call(simulate.main, ["--config", str(path), "--out", str(folder / "other"), *other]) == 0
    for file in (folder / "other" / "train").iterdir():
        file.rename(folder / "data" / "train" / file.name.replace("train_000", "train_001"))
    return load_config(path, [f"data.dir={folder / 'data'}", "train.inner_steps=2", "train.steps=3"])


WHOLE = (slice(None), slice(None), slice(None))


def loaded(config: Config, **patches: object) -> TrainingData:
    """The data set in the form that the settings ask for."""
    settings = replace(config, patches=replace(config.patches, **patches))  # type: ignore[arg-type]
    return loaded_data(settings)


def batches(data: TrainingData, steps: int = 3) -> list[tuple[Batch, Batch]]:
    """The first steps' batches, on the host."""
    ahead = data.batches(parallel.data_mesh())(0)
    return [jax.device_get(next(ahead)) for _ in range(steps)]


@pytest.mark.parametrize(
    "turns",
    [{}, {"augment": ()}, {"augment": ("rotate_180", "flip", "rotate_z90")}],
    ids=["half-turns", "none", "mirrors and quarter-turns"],
)
@pytest.mark.parametrize("labels", ["stored", "drawn"])
def test_device_and_host_form_give_the_same_batches(
    config: Config, turns: dict[str, tuple[str, ...]], labels: str
) -> None:
    device = loaded(config, input="device", labels=labels, **turns)
    host = loaded(config, input="host", labels="drawn" if labels == "stored" else "stored", threads=3, **turns)
    assert device.stacks
    assert not host.stacks
    assert device.train[0].density is not None
    assert host.train[0].density is None
    for one, other in zip(batches(device), batches(host), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
        assert one[0].image.shape == (2, 2, 16, 16, 16, 1)
        assert one[1].image.shape == (2, 16, 16, 16, 1)


def test_rotations_by_interpolation_agree_to_rounding(config: Config) -> None:
    turns = {"augment": ("rotate_any", "rotate_180", "flip")}
    device, host = loaded(config, input="device", **turns), loaded(config, input="host", **turns)
    differing = []
    for one, other in zip(batches(device), batches(host), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_allclose(mine.image, theirs.image, atol=2e-4)
            np.testing.assert_array_equal(mine.center_class, theirs.center_class)
            differing.append((np.asarray(mine.label) != theirs.label).mean())
    assert np.mean(differing) < 1e-4


def test_supervised_training_places_no_meta_tomogram(config: Config) -> None:
    plain = replace(config, train=replace(config.train, variant="supervised"))
    device, host = loaded(plain, input="device"), loaded(plain, input="host")
    assert device.resident_bytes == device.stacks["train"].density.nbytes * 5 // 4 + 2 * 3 * 4
    for one, other in zip(batches(device, 1), batches(host, 1), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
        assert one[1].image.shape == (0, 16, 16, 16, 1)


def test_every_form_reads_what_a_tomogram_of_its_own_has(config: Config) -> None:
    for form in ("device", "host"):
        data = loaded(config, input=form)
        for tomogram in (*data.train, *data.meta):
            whole = open_tomogram(tomogram.files, config.data).density
            assert whole is not None
            np.testing.assert_array_equal(np.asarray(tomogram), whole)
            box = (slice(3, 20), slice(1, 9), slice(10, 30))
            np.testing.assert_array_equal(tomogram[box], whole[box])


def test_scalings_are_found_once_and_again_where_a_file_has_changed(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = replace(config, patches=replace(config.patches, input="host"))
    path = tmp_path / "scalings.json"
    first = loaded_data(host, scalings=path)
    assert len(json.loads(path.read_text())) == 3
    real, calls = normalisation.scaling, []

    def counted(read: normalisation.Planes, shape: tuple[int, int, int], *args: object, **more: object) -> object:
        calls.append(shape)
        return real(read, shape, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(normalisation, "scaling", counted)
    second = loaded_data(host, scalings=path)
    assert not calls
    for one, other in zip(first.train, second.train, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    os.utime(first.train[1].files.volume_path, ns=(1, 1))
    loaded_data(host, scalings=path)
    assert calls == [first.train[1].shape_zyx]
    path.write_text("[damaged")
    loaded_data(host, scalings=path)
    assert len(calls) == 4


@pytest.mark.parametrize("idle", [True, False])
def test_waiting_counts_where_the_devices_had_nothing_left_to_do(idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    inner_loss: Any = SimpleNamespace(is_ready=lambda: idle)
    last = Metrics(inner_loss, *[None] * (len(Metrics._fields) - 1))  # type: ignore[arg-type]
    log = SilentLog()

    def slow() -> Iterator[tuple[int, int]]:
        nonlocal now
        now += 3.0
        yield 1, 2

    assert next_batch(slow(), last, log) == (1, 2)
    assert log.waited_s == (3.0 if idle else 0.0)
    assert log.wait_share() is None
    now += 1.0
    log.pace(1)
    assert log.wait_share() == (0.75 if idle else 0.0)


def test_tomograms_live_on_the_devices_where_they_fit(config: Config) -> None:
    def auto(limit_gib: float | None) -> bool:
        settings = replace(config, parallel=replace(config.parallel, memory_limit_gib=limit_gib))
        shapes = {"train": [(200, 512, 512)] * 10, "meta": [(200, 512, 512)]}
        activations = step_bytes(
            config.model, config.train, n_classes=3, patch_size=config.patches.size, micro_batches=1, parameters=0
        )
        return lives_on_devices(shapes, settings.patches, settings.parallel, activations)

    assert auto(8.0)  # 11 times 52 million voxels of five bytes are 2.7 GiB
    assert not auto(2.5)
    chosen = replace(config.patches, input="device")
    assert lives_on_devices({"train": [(10_000, 10_000, 10_000)]}, chosen, config.parallel, 0.0)


def test_labels_are_drawn_where_whole_maps_are_more_work(config: Config) -> None:
    short = replace(config, train=replace(config.train, steps=1, batch_size=1, inner_steps=1))
    long = replace(config, train=replace(config.train, steps=10_000))
    assert callable(loaded(short).label_maps["train", "train_000"])
    assert isinstance(loaded(long).label_maps["train", "train_000"], np.ndarray)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[Path | None]]:
    """How often each MRC file is opened, and each particle list parsed, from here on."""
    found: dict[str, Counter[Path | None]] = {"opened": Counter(), "parsed": Counter()}

    def count(module: Any, name: str, kind: str) -> None:
        real = getattr(module, name)

        def counted(path: Path, *args: Any, **more: Any) -> Any:
            found[kind][path] += 1
            return real(path, *args, **more)

        monkeypatch.setattr(module, name, counted)

    count(formats, "open_mrc", "opened")
    count(registry, "read", "parsed")
    return found


def check_once(counts: dict[str, Counter[Path | None]], folder: Path) -> None:
    """Every volume and every list of the data set was read exactly once."""
    tomograms = [files for split in discover(folder).values() for files in split]
    assert len(tomograms) >= 4
    assert counts["opened"] >= Counter(files.volume_path for files in tomograms)
    assert {counts["opened"][files.volume_path] for files in tomograms} == {1}
    assert counts["parsed"] == Counter(files.annotation_path for files in tomograms)


@pytest.mark.parametrize("form", ["device", "host"])
def test_each_volume_is_opened_once_and_each_list_parsed_once(
    config: Config, form: str, counts: dict[str, Counter[Path | None]]
) -> None:
    folder = Path(config.data.dir or "")
    data = loaded(config, input=form)
    check_once(counts, folder)
    batches(data, 1)
    for split in ("val", "test"):
        assert all(tomogram.density is not None for tomogram in data.open(split))
    assert not data.survey.readers
    check_once(counts, folder)


def test_the_main_job_opens_each_volume_once(
    config: Config, tmp_path: Path, counts: dict[str, Counter[Path | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class TrainingBegins(Exception):
        pass

    def fit(*_: object, **__: object) -> None:
        raise TrainingBegins

    unplanned = SimpleNamespace(record=dict, lines=list)  # a plan would compile the step
    monkeypatch.setattr(main_job, "prepare", lambda experiment, **_: (experiment, unplanned))
    monkeypatch.setattr(main_job, "fit", fit)
    with pytest.raises(TrainingBegins):
        main_job.run(config, tmp_path / "run")
    check_once(counts, Path(config.data.dir or ""))


@pytest.mark.parametrize("input_form", ["device", "host"])
def test_a_share_of_training_patches_has_the_clean_labels_of_meta_tomograms(config: Config, input_form: str) -> None:
    mixed = replace(config, train=replace(config.train, meta_share=0.5))
    data = loaded(mixed, input=input_form)
    source = data.source()
    flags = []
    for step, (train, _) in enumerate(batches(data)):
        for inner in range(2):
            plans = source.plans("train", 2 * step + inner)
            wanted = [plan.tomogram >= len(data.train) for plan in plans]
            np.testing.assert_array_equal(train.is_clean[inner], wanted)
            flags += wanted
            cut = source.train_batch(2 * step + inner)
            np.testing.assert_array_equal(train.image[inner], cut["image"])
            np.testing.assert_array_equal(train.label[inner], cut["label"])
            for row, plan in enumerate(plans):
                if wanted[row]:
                    meta = data.meta[plan.tomogram - len(data.train)]
                    clean = data.label_maps["meta", meta.name]
                    again = source.cut_map("train", plan, clean if isinstance(clean, np.ndarray) else clean(WHOLE))
                    np.testing.assert_array_equal(train.label[inner, row], again)
    assert any(flags)
    assert not all(flags)
    assert all("is_clean" not in data.noisy_source().train_batch(step) for step in range(2))
