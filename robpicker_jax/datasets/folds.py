"""Cross-validation by tomograms: which of them each fold tests, and folders of links that show a fold as a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robpicker_jax.datasets.discovery import TomogramFiles
from robpicker_jax.system.errors import InputError

TRAIN_PER_META = 7
"""Tomograms that are trained on for each meta tomogram, as in the paper (DeePiCt's data: 7 and 1 in each of five folds)."""

_TRUTH = "_truth_objl.xml"


@dataclass(frozen=True)
class Fold:
    """One fold's tomograms, by name and sorted."""

    train: tuple[str, ...]
    meta: tuple[str, ...]
    test: tuple[str, ...]


def assign_folds(names: Sequence[str], count: int, seed: int = 0) -> list[Fold]:
    """Divide tomograms into folds: each is tested once, by a model that never saw it.

    The tomograms are shuffled and dealt out. Of those that a fold does not test, one in eight (at least one) is its meta set,
    another one in each fold as far as they go round.

    Args:
        names: of all tomograms; their order does not matter.
        count: number of folds.
        seed: of the shuffle.

    Raises:
        InputError: fewer than two folds, or so few tomograms that a fold is left without training or meta tomograms.
    """
    if count < 2:
        raise InputError(f"{count} is no number of folds", where="--folds", fix="give at least 2")
    if len(names) < count or len(names) - -(-len(names) // count) < 2:
        raise InputError(
            f"{len(names)} annotated tomograms are too few for {count} folds",
            where="--folds",
            fix="each fold needs one tomogram to test and two others, to train on and as its meta set",
        )
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
    shuffled = [sorted(names)[index] for index in rng.permutation(len(names))]
    folds = []
    for number in range(count):
        test = shuffled[number::count]
        rest = [name for name in shuffled if name not in test]
        n_meta = max(1, round(len(rest) / (TRAIN_PER_META + 1)))
        first = number * n_meta % len(rest)
        turned = rest[first:] + rest[:first]
        folds.append(Fold(*(tuple(sorted(part)) for part in (turned[n_meta:], turned[:n_meta], test))))
    return folds


def annotated(tomograms: Sequence[TomogramFiles], class_names: Sequence[str]) -> dict[str, TomogramFiles]:
    """The tomograms that have lists, by name.

    Args:
        tomograms: of all splits.
        class_names: name of class 1, 2, …, by which lists of one class are known.

    Raises:
        InputError: two of one name.
    """
    found = [files for files in tomograms if files.lists(class_names)]
    for name, number in Counter(files.name for files in found).items():
        if number > 1:
            raise InputError(f"{number} tomograms are called {name}", fix="folds tell them apart by name: rename one")
    return {files.name: files for files in found}


def link_fold(fold: Fold, tomograms: dict[str, TomogramFiles], folder: Path, class_names: Sequence[str]) -> None:
    """Show a fold as a data set: `folder/{train,meta,test}` with links to the tomograms' files.

    Where clean annotations are stored beside a simulated tomogram's faulty ones, meta and test get the clean ones.

    Raises:
        InputError: a link cannot be made, or another file stands in its place.
    """
    for split in ("train", "meta", "test"):
        for name in getattr(fold, split):
            for target, source in _files(tomograms[name], split, class_names).items():
                _link(folder / split / target, source)


def _files(files: TomogramFiles, split: str, class_names: Sequence[str]) -> dict[str, Path]:
    """What belongs to a tomogram, by the name of its link."""
    lists = [path for _, path in files.lists(class_names)]
    paths = [files.volume_path, files.mask_path, files.target_path, *lists]
    truth = files.volume_path.with_name(f"{files.name}{_TRUTH}")
    named = {path.name: path for path in paths if path is not None}
    if not truth.is_file():
        return named
    if split == "train":
        return named | {truth.name: truth}
    own = f"{files.name}_objl.xml"
    return {name: path for name, path in named.items() if path not in lists} | {own: truth}


def _link(link: Path, source: Path) -> None:
    source = source.resolve()
    if link.is_symlink() and link.resolve() == source:
        return
    if link.is_symlink() or link.exists():
        raise InputError(
            f"is not the link to {source} that it should be", where=link, fix="remove it, or use another --workdir"
        )
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    except OSError as error:
        raise InputError(f"no link can be made ({error})", where=link, fix="use a disk that has links") from None
