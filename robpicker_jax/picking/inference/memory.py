"""How much memory segmentation takes at most, known before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robpicker_jax.picking.inference.feed import batches_under_way
from robpicker_jax.picking.inference.rotations import PREDICTIONS_MORE
from robpicker_jax.picking.inference.segmentation import PREDICTIONS_UNDER_WAY
from robpicker_jax.picking.inference.tiles import plan_tiles

_ROWS_UNDER_WAY = 4  # fetched, waiting to be fetched, being finished
_STATISTICS_BYTES = 1 << 28  # slabs and sample of the next tomogram's normalisation


@dataclass(frozen=True)
class MemoryBound:
    """Bytes that segmentation takes at most, beside the network and the program itself.

    Attributes:
        host: class map, probability (and scores), batches being read, what the volume's format keeps in memory.
        device: sums of overlapping predictions, predictions under way.
        shared: whether both are the same memory (the CPU backend).
    """

    host: int
    device: int
    shared: bool

    def __str__(self) -> str:
        if self.shared:
            return f"at most {_gib(self.host + self.device)} beside the network"
        return f"at most {_gib(self.host)}, and on the device {_gib(self.device)} beside the network"


def memory_bound(
    shape_zyx: Sequence[int],
    n_classes: int,
    *,
    tile: int,
    overlap_vox: int,
    batch_size: int,
    rotations: int = 1,
    keep_scores: bool = False,
    stream_scores: bool = False,
    shared: bool = True,
    resident_bytes: int = 0,
) -> MemoryBound:
    """The bound for a tomogram of this shape.

    Args:
        shape_zyx: the tomogram's size.
        n_classes: classes, background included.
        tile, overlap_vox: edge and overlap of the tiles, voxels.
        batch_size: tiles a call, on all devices together.
        rotations: orientations in which each tile is predicted.
        keep_scores: whether all class probabilities are kept.
        stream_scores: whether they are handed on block by block (`segment`'s `on_scores`).
        shared: whether the device's memory is the host's.
        resident_bytes: what reader and mask keep in memory.
    """
    plan = plan_tiles(shape_zyx, tile, overlap_vox)
    depth, height, width = plan.shape_zyx
    _, y, x = plan.padded
    outputs = depth * height * width * (3 + (4 * n_classes if keep_scores else 0))
    batch = batch_size * tile**3 * 4
    finished = plan.height * tile * x * (3 + (4 * n_classes if keep_scores or stream_scores else 0))
    row, carry = plan.height * tile * x * n_classes * 4, plan.carried * y * x * n_classes * 4
    # A row is updated in place until it is finished. Then three more of its size exist: its sum with what earlier layers
    # left, the weighted mean, and the row that the next one starts from.
    predictions = PREDICTIONS_UNDER_WAY + 2 + (PREDICTIONS_MORE if rotations > 1 else 0)
    device = carry + 4 * row + predictions * batch * (n_classes + 1)
    host = outputs + (batches_under_way() + 1) * batch + _ROWS_UNDER_WAY * finished + resident_bytes + _STATISTICS_BYTES
    return MemoryBound(host, device, shared)


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 0.95 * 2**30 else f"{max(1, round(size / 2**20))} MiB"
