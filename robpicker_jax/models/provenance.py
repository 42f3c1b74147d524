"""Where a trained model comes from and what it is worth: the part of its card that is for those who are given the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict

from robpicker_jax.config.field_types import STRICT
from robpicker_jax.evaluation.calibration_counts import ClassCalibration


@dataclass(frozen=True)
class SpeciesScore:
    """Scores of one species on the test tomograms.

    Attributes:
        name: the species.
        true: particles there were.
        precision, recall, f1: None where undefined.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: str
    true: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Provenance:
    """What `export` adds to a model's card.

    Attributes:
        licence: under which the model may be used; None: not stated.
        notes: free text, a line each.
        simulated: whether the tomograms were simulated.
        tomograms: number of tomograms by split; empty where the run does not tell.
        data_sha256: fingerprint of the files of the training and meta tomograms (`datasets.stamps.content_digest`);
            None: not known.
        rule: how picks were compared with the truth on the test tomograms; None: they were not.
        macro_f1: mean F1 over the species there.
        test: scores of each species there; empty without annotated test tomograms.
        calibration: by species, what its picks above each score were worth on the calibration tomograms, at the ends of
            the steps of the isotonic regression alone (`picking.calibration.condensed`).
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    licence: str | None = None
    notes: tuple[str, ...] = ()
    simulated: bool = False
    tomograms: dict[str, int] = field(default_factory=dict)
    data_sha256: str | None = None
    rule: str | None = None
    macro_f1: float | None = None
    test: tuple[SpeciesScore, ...] = ()
    calibration: dict[str, ClassCalibration] = field(default_factory=dict)
