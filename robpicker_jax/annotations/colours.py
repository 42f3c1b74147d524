"""Colours of classes, for formats that show them."""

from __future__ import annotations

from collections.abc import Sequence

# Twelve colours that stay apart for colour-blind readers too: Paul Tol's "muted" and "bright" schemes, RGB in 0 … 1.
COLOURS: tuple[tuple[float, float, float], ...] = (
    (0.8, 0.4, 0.467),
    (0.2, 0.133, 0.533),
    (0.867, 0.8, 0.467),
    (0.067, 0.467, 0.2),
    (0.533, 0.8, 0.933),
    (0.533, 0.133, 0.333),
    (0.267, 0.667, 0.6),
    (0.6, 0.6, 0.2),
    (0.667, 0.267, 0.6),
    (0.933, 0.4, 0.467),
    (0.4, 0.8, 0.933),
    (0.8, 0.733, 0.267),
)


def label_of(colour: Sequence[float]) -> int:
    """Class label of one of the colours, 0 where it is none of them."""
    for i, known in enumerate(COLOURS):
        if all(abs(a - b) < 5e-4 for a, b in zip(colour, known, strict=True)):
            return i + 1
    return 0
