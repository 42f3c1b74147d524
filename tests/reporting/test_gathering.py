"""What a run gathers for its report: patches shown where they lie in their tomograms."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from robpicker_jax.config import load_config
from robpicker_jax.labels import clean_labels
from robpicker_jax.reporting.gathering import TrainingExamples, label_examples
from tests.steps import loaded_data


def test_examples_are_named_by_where_they_lie(tiny_config: Path, tiny_data: Path) -> None:
    config = load_config(tiny_config, [f"data.dir={tiny_data}", "patches.augment=[rotate_180,rotate_z90]"])
    data = loaded_data(config)

    def correct(image: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Every voxel's label halved: a correction that can be told from what was given."""
        return 0.5 * np.eye(3, dtype=np.float32)[label]

    sources = data.noisy_source(), data.noisy_source(augmented=False)
    examples = label_examples(TrainingExamples(data.train, *sources, correct), config.data)
    assert len({example.name for example in examples}) == len(examples) > 1
    (tomogram,) = data.train
    truth = clean_labels(tomogram, config.data)
    labels = data.label_maps["train", tomogram.name]
    assert truth is not None
    assert isinstance(labels, np.ndarray)
    for example in examples:
        name, place = example.name.split("\n")
        assert name == tomogram.name
        z, y, x = (int(number) for number in re.findall(r"\d+", place))
        region = (z, slice(y - 8, y + 8), slice(x - 8, x + 8))
        np.testing.assert_array_equal(example.noisy, labels[region])
        np.testing.assert_array_equal(example.true, truth[region])
        np.testing.assert_array_equal(example.image, np.asarray(tomogram)[region])
        assert example.probabilities is not None
        np.testing.assert_array_equal(example.probabilities, 0.5 * np.eye(3)[example.noisy])
