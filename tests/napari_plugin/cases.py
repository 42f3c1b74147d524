"""Reviews in napari, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.reviewing import ReviewList

NOT_INSTALLED = "the extra napari is not installed"
SHAPE = (32, 32, 32)
RADII_VOX = (5.0, 3.0, 4.0)


def opened(given: ReviewList) -> Any:
    """A list with a density of noise."""
    from robpicker_jax.napari_plugin.opening import Opened

    return Opened(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), given, RADII_VOX)


def reviewed_in(viewer: Any, given: ReviewList) -> Any:
    """The review of a list in a viewer, which keeps nothing."""
    from robpicker_jax.napari_plugin.session import ReviewSession

    return ReviewSession(viewer, opened(given))


def widget_in(viewer: Any, keep_in: Path | None) -> Any:
    """The widget, which keeps reviews in a folder."""
    from robpicker_jax.napari_plugin.widget import ReviewWidget

    widget = ReviewWidget(viewer)
    widget.keep_in = keep_in
    return widget


def press(session: Any, key: str) -> None:
    """What napari does for a key while the layer of points is the active one."""
    from napari.utils.key_bindings import coerce_keybinding

    session.layer.keymap[coerce_keybinding(key)](session.layer)


def drag(session: Any, start: tuple[float, ...], end: tuple[float, ...]) -> None:
    """Drag what is selected with napari's own tool: its moves are one change of the data once the mouse is released."""
    layer = session.layer
    with layer.events.data.blocker():
        for position in (start, end):
            layer._move(layer.selected_data, np.array(position))
    layer._drag_start = None
    layer.events.data(value=layer.data, action="changed", data_indices=tuple(layer.selected_data), vertex_indices=((),))
