"""The options of CTF and contrast mean the same to `match` and `average`."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest

from robpicker_jax.commands.average import _parser
from robpicker_jax.commands.match_arguments import match_parser
from robpicker_jax.commands.optics_arguments import transfer_of

pytestmark = pytest.mark.fast

FLAGS = ("defocus", "phase_flipped", "voltage", "spherical_aberration", "amplitude_contrast")


def parsed(verb: str, *further: str) -> Namespace:
    common = ["--tomo", "a.mrc", "--out", "o", *further]
    if verb == "match":
        return match_parser().parse_args(["--template", "t.mrc", *common])
    return _parser().parse_args(["--picks", "p.star", *common])


@pytest.mark.parametrize("verb", ["match", "average"])
def test_the_transfer_is_signed_unless_phases_were_flipped(verb: str) -> None:
    """Against the textbook's formula without aberration: sin χ with all of it phase contrast, χ = π λ Δz k²."""
    optics = ["--voltage", "300", "--spherical-aberration", "0", "--amplitude-contrast", "0"]
    k = np.linspace(0, 0.05, 40)
    expected = np.sin(np.pi * 0.0196875 * 30_000 * k**2)
    assert expected.min() < -0.9
    signed, flipped = (
        transfer_of(parsed(verb, "--defocus", "3", *optics, *more)) for more in ((), ("--phase-flipped",))
    )
    assert signed is not None
    assert flipped is not None
    np.testing.assert_allclose(signed(k), expected, atol=1e-3)
    np.testing.assert_allclose(flipped(k), np.abs(expected), atol=1e-3)
    assert transfer_of(parsed(verb)) is None
    assert transfer_of(parsed(verb, "--defocus", "0")) is None


def test_both_commands_have_the_same_defaults() -> None:
    values = [[getattr(parsed(verb), flag) for flag in FLAGS] for verb in ("match", "average")]
    assert values[0] == values[1] == [None, False, 300.0, 2.7, 0.07]
    assert [parsed(verb, "--contrast", "bright").contrast for verb in ("match", "average")] == ["bright"] * 2
    assert [parsed(verb).contrast for verb in ("match", "average")] == ["dark", "auto"]
