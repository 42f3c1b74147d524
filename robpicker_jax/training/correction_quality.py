"""How good corrected labels are, where the truth is known: simulated data keep a clean label map of training tomograms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import scipy

from robpicker_jax.patches import BatchSource

_LABELLED = 0.1  # a particle with a smaller share of labelled voxels is missing from the annotations

_JUDGED_PATCHES = 96

Correct = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""`(images (n, z, y, x, 1), noisy labels (n, z, y, x)) -> corrected labels (n, z, y, x, c)`."""


def correction_quality(
    noisy: np.ndarray, corrected: np.ndarray, truth: np.ndarray, class_names: Sequence[str] = ()
) -> dict[str, float]:
    """Compare a corrected label map, and the noisy one it was made from, with the truth.

    Args:
        noisy: (n, z, y, x) class labels that were given.
        corrected: (n, z, y, x, c) corrected label map; a voxel's class is its largest entry.
        truth: (n, z, y, x) true class labels.
        class_names: species, in the order of their labels from 1, for recovery by species.

    Returns:
        `recovered`: share of the voxels of particles without a label that got their true class (also `recovered/NAME`);
        `filled`: the same of all particle voxels without a label, rims of labelled particles included;
        `added`: share of the true background without a label that got one;
        `removed`: share of the labelled background that lost its label;
        `reclassed`: share of the particle voxels labelled as another species that got their true class;
        `error_before`, `error_after`: share of voxels whose class is not the true one, and `error_change`, relative;
        `precision`, `recall` of the voxels whose class the correction changed: changed rightly, over all changed, and
        over all that were wrong. A share of nothing is NaN.
    """
    found = corrected.argmax(axis=-1)
    particle, given = truth > 0, noisy > 0
    unlabelled, false = particle & ~given, ~particle & given
    missing = unlabelled & _of_missing_particles(truth, given)
    swapped = particle & given & (noisy != truth)
    right, changed, wrong = found == truth, found != noisy, noisy != truth
    before, after = float(wrong.mean()), float((~right).mean())
    scores = {
        "recovered": _share(right & missing, missing),
        "filled": _share(right & unlabelled, unlabelled),
        "added": _share((found > 0) & ~particle & ~given, ~particle & ~given),
        "removed": _share(right & false, false),
        "reclassed": _share(right & swapped, swapped),
        "error_before": before,
        "error_after": after,
        "error_change": (after - before) / before if before else float("nan"),
        "precision": _share(changed & right, changed),
        "recall": _share(changed & right, wrong),
    }
    for label, name in enumerate(class_names, start=1):
        scores[f"recovered/{name}"] = _share(right & missing & (truth == label), missing & (truth == label))
    return scores


def judged_patches(
    source: BatchSource, truths: Sequence[np.ndarray | None]
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of images, noisy and true labels of training patches, from tomograms whose true label map is known.

    Args:
        source: of patches that lie anywhere. About labelled particles, those that miss their label would be at the rims.
        truths: true label map of each training tomogram; None where there is none.
    """
    batches = []
    rows = len(source.plans("train", 0)) if any(truth is not None for truth in truths) else 0
    for step in range(-(-_JUDGED_PATCHES // rows) if rows else 0):
        batch, known, cut = source.train_batch(step), [], []
        for row, plan in enumerate(source.plans("train", step)):
            truth = truths[plan.tomogram]
            if truth is not None:
                known.append(row)
                cut.append(source.cut_map("train", plan, truth))
        if known:
            batches.append((batch["image"][known], batch["label"][known], np.stack(cut)))
    return batches


def quality_of_patches(
    correct: Correct, patches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], class_names: Sequence[str] = ()
) -> dict[str, float]:
    """`correction_quality` of the inner halves of patches, taken together; empty for no batch.

    At the rim of a patch the networks see half of the surroundings at most, and a particle that the rim cuts may be a
    sliver. Patches overlap in training, so that each voxel lies in the inner half of many.

    Args:
        correct: the correction of whole patches.
        patches: batches of (images, noisy labels, true labels).
        class_names: as for `correction_quality`.
    """
    parts = [(_inner(noisy), _inner(correct(image, noisy)), _inner(truth)) for image, noisy, truth in patches]
    if not parts:
        return {}
    noisy, corrected, truth = (np.concatenate(column) for column in zip(*parts, strict=True))
    return correction_quality(noisy, corrected, truth, class_names)


def _inner(patches: np.ndarray) -> np.ndarray:
    """The inner half of each axis of patches (n, z, y, x, …)."""
    z, y, x = (slice(edge // 4, edge - edge // 4) for edge in patches.shape[1:4])
    return patches[:, z, y, x]


def _of_missing_particles(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Voxels of connected components of one true class of which less than a tenth carries a label."""
    result = np.zeros(truth.shape, bool)
    for patch, labelled, found in zip(truth, given, result, strict=True):
        for label in np.unique(patch[patch > 0]):
            parts, count = scipy.ndimage.label(patch == label)
            share = scipy.ndimage.mean(labelled, parts, np.arange(count + 1))
            found |= (parts > 0) & (share < _LABELLED)[parts]
    return result


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    count = int(whole.sum())
    return float(part.sum() / count) if count else float("nan")
