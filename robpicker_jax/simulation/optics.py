"""Electron optics: wavelength, contrast transfer function, and the phase shift of protein in ice."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robpicker_jax.config import SimulationConfig
from robpicker_jax.molecules.phantoms import PROTEIN_DENSITY
from robpicker_jax.system.errors import InputError

PROTEIN_POTENTIAL_V = 3.0
"""Mean inner potential of protein above that of vitreous ice, volts (about 7.5 against 4.5)."""

ICE_MEAN_FREE_PATH_ANGSTROM = 3100.0
"""Inelastic mean free path of 300 kV electrons in vitreous ice: electrons so scattered are lost to the image."""

_REST_ENERGY_EV = 510_998.95


@dataclass(frozen=True)
class Optics:
    """The microscope.

    Attributes:
        voltage_kv: acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: fraction A of amplitude contrast.
        defocus_um: underfocus, positive; 0 switches the CTF off.

    Raises:
        InputError: a value that no microscope has.
    """

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    defocus_um: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.voltage_kv < math.inf:
            raise InputError(f"an acceleration voltage of {self.voltage_kv:g} kV", fix="give more than 0")
        if not 0 <= self.spherical_aberration_mm < math.inf:
            raise InputError(f"a spherical aberration of {self.spherical_aberration_mm:g} mm", fix="give 0 or more")
        if not 0 <= self.amplitude_contrast <= 1:
            raise InputError(f"an amplitude contrast of {self.amplitude_contrast:g}", fix="give a share from 0 to 1")
        if not math.isfinite(self.defocus_um):
            raise InputError(f"a defocus of {self.defocus_um:g} micrometres", fix="give a number")

    @classmethod
    def from_config(cls, config: SimulationConfig) -> Optics:
        """The microscope that a configuration describes."""
        return cls(config.voltage_kv, config.spherical_aberration_mm, config.amplitude_contrast, config.defocus_um)

    @property
    def wavelength_angstrom(self) -> float:
        """Relativistic de Broglie wavelength λ = hc / √(E (E + 2 m c²)); 0.01969 Å at 300 kV."""
        energy = self.voltage_kv * 1000
        return 12_398.4198 / math.sqrt(energy * (energy + 2 * _REST_ENERGY_EV))

    @property
    def interaction_parameter(self) -> float:
        """σ = 2π/(λE) · (E + mc²)/(E + 2mc²), radians per volt and ångström; 6.53e-4 at 300 kV."""
        energy = self.voltage_kv * 1000
        ratio = (energy + _REST_ENERGY_EV) / (energy + 2 * _REST_ENERGY_EV)
        return 2 * math.pi / (self.wavelength_angstrom * energy) * ratio

    @property
    def phase_per_mass(self) -> float:
        """Phase shift, in radians, of a projected mass density of 1 Da/Å²."""
        return self.interaction_parameter * PROTEIN_POTENTIAL_V / PROTEIN_DENSITY

    def ctf(self, frequency: np.ndarray) -> np.ndarray:
        """Contrast transfer function at spatial frequencies k in 1/Å; without a defocus, 1 everywhere.

        CTF(k) = √(1−A²) sin χ(k) + A cos χ(k), χ(k) = π λ Δz k² − ½π Cs λ³ k⁴, underfocus Δz positive (Rohou and
        Grigorieff 2015, up to the sign). It starts positive at low frequencies: the recorded contrast is
        −2 CTF times the phase, so that protein is dark.
        """
        if self.defocus_um == 0:
            return np.ones_like(frequency)
        wavelength, amplitude = self.wavelength_angstrom, self.amplitude_contrast
        squared = frequency**2
        chi = math.pi * wavelength * self.defocus_um * 1e4 * squared
        chi = chi - 0.5 * math.pi * self.spherical_aberration_mm * 1e7 * wavelength**3 * squared**2
        return math.sqrt(1 - amplitude**2) * np.sin(chi) + amplitude * np.cos(chi)

    def delocalisation_angstrom(self, pixel_size_angstrom: float) -> float:
        """How far the CTF spreads a point, |dχ/dk| / 2π at the Nyquist frequency."""
        k = 0.5 / pixel_size_angstrom
        wavelength = self.wavelength_angstrom
        slope = wavelength * self.defocus_um * 1e4 * k - self.spherical_aberration_mm * 1e7 * wavelength**3 * k**3
        return abs(slope)
