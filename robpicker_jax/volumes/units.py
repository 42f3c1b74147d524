"""Units of length as image files spell them."""

from __future__ import annotations

_ANGSTROMS = {
    1.0: ("angstrom", "ångström", "å", "a", "ang", "angstroms", "\\u00c5", "\\u00e5"),
    10.0: ("nm", "nanometer", "nanometre", "nanometers", "nanometres"),
    1e4: ("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", "\\u00b5m", "\\u03bcm"),
    1e8: ("cm", "centimeter", "centimetre"),
    1e7: ("mm", "millimeter", "millimetre"),
}
_BY_NAME = {name: factor for factor, names in _ANGSTROMS.items() for name in names}


def angstroms_per(unit: object) -> float | None:
    """Length of a unit in Å, None where it is no unit of length ("pixel", "", None)."""
    return _BY_NAME.get(str(unit).strip().lower())
