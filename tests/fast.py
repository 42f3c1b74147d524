"""The quick tests (`pytest -m fast`): files that take seconds, at least one for each room."""

from __future__ import annotations

from pathlib import Path

import pytest

FAST = {
    "system": ["system/test_errors.py", "system/test_registry.py"],
    "config": ["config/test_config.py", "config/test_differences.py"],
    "bilevel": ["bilevel/test_example.py"],
    "parallel": ["parallel/test_processes.py"],
    "volumes": ["volumes/test_volumes.py", "volumes/test_normalisation.py"],
    "annotations": ["annotations/test_geometry.py", "annotations/test_formats.py", "annotations/test_registration.py"],
    "evaluation": ["evaluation/test_metrics.py", "evaluation/test_curves.py"],
    "datasets": ["datasets/test_dataset.py", "datasets/test_tomogram.py"],
    "molecules": ["molecules/test_phantoms.py"],
    "labels": ["labels/test_labels.py"],
    "patches": ["patches/test_patches.py", "patches/test_prefetch.py"],
    "simulation": ["simulation/test_placement.py", "simulation/test_label_noise.py"],
    "models": ["models/test_voxel_sums.py"],
    "training": ["training/test_seams.py"],
    "picking": ["picking/test_clustering.py", "picking/test_calibration.py", "picking/test_pick_files.py"],
    "diagnosis": ["diagnosis/test_measures.py"],
    "reporting": ["reporting/test_report_numbers.py"],
    "commands": ["commands/test_cli.py"],
}
"""Room → files of its quick tests."""


@pytest.hookimpl(tryfirst=True)  # before pytest selects by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of these files, except those that are marked slow."""
    files = {Path(__file__).parent / name for names in FAST.values() for name in names}
    for item in items:
        if item.path in files and item.get_closest_marker("slow") is None:
            item.add_marker("fast")
