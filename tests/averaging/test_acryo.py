"""Average and FSC against acryo, an independent implementation (the extra `peers`); skipped where it is not installed."""

from __future__ import annotations

import numpy as np
import pytest

from robpicker_jax.averaging.extraction import box_centres, cut, soft_ball
from robpicker_jax.averaging.resolution import shell_correlation
from robpicker_jax.averaging.sums import Sums
from robpicker_jax.averaging.weights import Transfer
from tests.averaging.averaging_cases import VOXEL, gaussian_copies, poses, tomogram_of

EDGE, COUNT = 25, 8


def test_average_and_fsc_agree_with_acryo() -> None:
    acryo = pytest.importorskip("acryo", reason="acryo is not installed")
    from acryo._utils import fourier_shell_correlation
    from scipy.spatial.transform import Rotation

    rotations, offsets = poses(COUNT)
    copies = gaussian_copies(EDGE, rotations, offsets)
    grid = np.stack(np.meshgrid([14], [14, 42], [14, 42, 70, 98], indexing="ij"), -1).reshape(-1, 3)
    reader = tomogram_of(copies, grid, (30, 58, 114), noise=0.3 * copies.std())
    positions = grid[:, ::-1] + offsets

    ball = soft_ball(EDGE, 7, 3)
    averages = []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        centres, fractions = box_centres(positions[half])
        sums = Sums.empty(EDGE)
        boxes = np.array([cut(reader, centre, EDGE) for centre in centres])
        sums.add(boxes, fractions, rotations[half], Transfer(-90.0, 90.0), VOXEL)
        # acryo's vectors are z y x, and so are its rotations.
        turns = Rotation.from_matrix(rotations[half][:, ::-1, ::-1])
        molecules = acryo.Molecules(positions[half][:, ::-1], turns)
        loader = acryo.SubtomogramLoader(reader.read(), molecules, order=3, output_shape=(EDGE,) * 3, corner_safe=True)
        theirs = np.asarray(loader.average())
        ours = sums.average(0.0)
        assert np.corrcoef((ours * ball).ravel(), (theirs * ball).ravel())[0, 1] > 0.999
        averages.append((ours * ball, theirs * ball))

    (ours_1, theirs_1), (ours_2, theirs_2) = averages
    ours, theirs = shell_correlation(ours_1, ours_2), shell_correlation(theirs_1, theirs_2)
    assert np.abs(ours - theirs)[1:7].max() < 0.002
    # acryo's shell s holds s <= |k| < s + 1, whose middle is s + ½: half-way between ours.
    _, other = fourier_shell_correlation(theirs_1, theirs_2, dfreq=1 / EDGE)
    between = (theirs[1:6] + theirs[2:7]) / 2
    assert np.abs(np.asarray(other)[1:6] - between).max() < 0.1
