"""SHREC 2019's ten tomograms simulated anew for a study: its object lists, and density maps of its twelve proteins.

Places, angles, numbers and crowding are those of the benchmark; imaging, noise and label errors are the study's own. The
lists and maps are not part of this repository: ROBPICKER_TEST_DATA names their folder, with `shrec2019/` and
`densities/` in it. For two of the proteins near relatives stand in.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from robpicker_jax.config import Config, SimulationConfig
from robpicker_jax.datasets import SPLITS
from robpicker_jax.simulation import DatasetRecipe, Placement
from robpicker_jax.system.errors import InputError

STAND_INS = {"4b4t": "4cr2", "4d8q": "4v94"}
"""Density maps of near relatives: another structure of the 26S proteasome, and another eukaryotic chaperonin."""

_VARIABLE = "ROBPICKER_TEST_DATA"
_FIRST_NINE, _LAST = "object_list_train.xml", "particle_locations_model_9.txt"
_N_TOMOGRAMS = 10


def recipe(config: Config) -> DatasetRecipe:
    """The data set of a configuration at the places of SHREC 2019.

    Args:
        config: its species are named by their entries in the Protein Data Bank, and have no shape of their own.

    Raises:
        InputError: the lists or a map are not there, or the splits have more than ten tomograms together.
    """
    folder = _folder()
    maps = {species.name: f"{STAND_INS.get(species.name, species.name)}.mrc" for species in config.data.species}
    for name, file in maps.items():
        if not (folder / "densities" / file).is_file():
            raise InputError(f"no density map of {name}", where=folder / "densities" / file)
    species = tuple(replace(each, density=str(folder / "densities" / maps[each.name])) for each in config.data.species)
    return DatasetRecipe(species, config.simulation, config.label_noise, placements(folder, config.simulation))


def placements(folder: Path, simulation: SimulationConfig) -> tuple[Placement, ...]:
    """Which of the ten tomograms are in which split, in the order of the splits.

    The seed of the simulation turns the ten, so that each seed tests on other ones.

    Args:
        folder: has `shrec2019/` with the lists.
        simulation: the number of tomograms of each split, and the seed.

    Raises:
        InputError: more than ten tomograms.
    """
    counts = {split: int(getattr(simulation, split)) for split in SPLITS}
    total = sum(counts.values())
    if total > _N_TOMOGRAMS:
        raise InputError(f"{total} tomograms, and SHREC 2019 has {_N_TOMOGRAMS}", where="simulation.train … test")
    splits = [split for split, count in counts.items() for _ in range(count)]
    return tuple(_placement(folder, split, index + simulation.seed) for index, split in enumerate(splits))


def _placement(folder: Path, split: str, turned: int) -> Placement:
    number = turned % _N_TOMOGRAMS
    lists = folder / "shrec2019"
    if number == _N_TOMOGRAMS - 1:
        return Placement(split, lists / _LAST)
    return Placement(split, lists / _FIRST_NINE, str(number))


def _folder() -> Path:
    named = os.environ.get(_VARIABLE)
    fix = f"{_VARIABLE} names the folder that has shrec2019/ and densities/"
    if named is None:
        raise InputError("the lists and maps of SHREC 2019 are not part of this repository", fix=fix)
    for name in (_FIRST_NINE, _LAST):
        if not (path := Path(named) / "shrec2019" / name).is_file():
            raise InputError("no such list of SHREC 2019", where=path, fix=fix)
    return Path(named)
