"""The options of tilts, CTF and contrast that `match` and `average` share, and what they describe."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from robpicker_jax.system.errors import InputError, located

if TYPE_CHECKING:
    import numpy as np

    from robpicker_jax.rotations import TiltScheme

Transfer = Callable[["np.ndarray"], "np.ndarray"]


def add_optics(add: Callable[..., Any]) -> None:
    """The options of the CTF; `add` is the `add_argument` of a parser or of a group."""
    add("--defocus", metavar="UM", type=float, help="underfocus, micrometres, for the CTF; default: no CTF")
    add(
        "--phase-flipped",
        action="store_true",
        help="the tomograms' CTF was corrected by phase flipping, so that its magnitude counts; default: its sign too",
    )
    add("--voltage", metavar="KV", type=float, default=300.0, help="acceleration voltage; default: 300")
    add("--spherical-aberration", metavar="MM", type=float, default=2.7, help="Cs; default: 2.7")
    add("--amplitude-contrast", metavar="A", type=float, default=0.07, help="from 0 to 1; default: 0.07")


def add_tilts(add: Callable[..., Any]) -> None:
    """The options by which Fourier space is weighed tilt by tilt."""
    add("--tilt-step", metavar="DEG", type=float, help="angle between tilts: weighs Fourier space tilt by tilt; default: "
        "the wedge as a whole")  # fmt: skip
    add("--dose-per-tilt", metavar="E", type=float, help="electrons per Å² and tilt, in order from 0 outwards")


def add_contrast(add: Callable[..., Any], *, automatic: bool = False) -> None:
    """The option of the tomograms' contrast, with "auto" where it can be measured."""
    if automatic:
        add("--contrast", choices=["auto", "dark", "bright"], default="auto", help="particles against their "
            "surroundings; default: auto, by the densities at the picks; averages are always bright")  # fmt: skip
    else:
        add("--contrast", choices=["dark", "bright"], default="dark", help="particles against their surroundings; "
            "default: dark")  # fmt: skip


def transfer_of(options: Namespace) -> Transfer | None:
    """The CTF as it acts on the tomogram, of frequencies in 1/Å; None without a defocus.

    Raises:
        InputError: optics that no microscope has.
    """
    import numpy as np

    from robpicker_jax.simulation import Optics

    with located("--voltage, --spherical-aberration, --amplitude-contrast, --defocus"):
        optics = Optics(
            options.voltage, options.spherical_aberration, options.amplitude_contrast, options.defocus or 0.0
        )
    if not options.defocus:
        return None
    if not options.phase_flipped:
        return optics.ctf

    def magnitude(frequency: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(optics.ctf(frequency)))

    return magnitude


def tilt_scheme(options: Namespace, limits: tuple[float, float] | None, transfer: Transfer | None) -> TiltScheme | None:
    """The tilts of `add_tilts`, with dose and CTF; None without a step between them.

    Raises:
        InputError: numbers that are none, a dose or CTF without a step, or a step without a range.
    """
    from robpicker_jax.rotations import scheme_of

    step, dose = positive(options.tilt_step, "--tilt-step"), options.dose_per_tilt
    if dose is not None and not 0 <= dose < math.inf:
        raise InputError(f"{dose:g} is too small", where="--dose-per-tilt", fix="give at least 0")
    return scheme_of(limits, step, dose, transfer)


def positive(value: float | None, flag: str) -> float | None:
    """The value, which must be more than 0 where it is given.

    Raises:
        InputError: it is not.
    """
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"{value:g} is not more than 0", where=flag, fix="give a number above 0")
    return value
