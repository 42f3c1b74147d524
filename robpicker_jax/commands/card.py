"""`card`: print what a model's file says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import ArgumentParser, parser
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.models.provenance import Provenance
    from robpicker_jax.models.trained_model import ModelCard, TrainedModel

_DESCRIPTION = """\
Print the card of a trained model: what it finds, in tomograms of which kind, what it was trained on, and how it scored.
The whole file is read and checked.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(list(arguments or ()))
    from robpicker_jax.system.files import write_text
    from robpicker_jax.system.outputs import check_outputs
    from robpicker_jax.training.export import load_trained_model

    if options.json not in (None, "-"):
        check_outputs([Path(options.json)], inputs=[options.model], overwrite=True)
    model = load_trained_model(options.model)
    if options.json is None:
        lines = card_lines(model)
        width = max(len(name) for name, _ in lines)
        for name, text in lines:
            say(f"{name:<{width}}  {text}".rstrip())
        return 0
    text = json.dumps(as_plain(model), indent=1) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        write_text(Path(options.json), text)
    return 0


def as_plain(model: TrainedModel) -> dict[str, Any]:
    """The card as JSON holds it, with what follows from it: radii in Å, the number of parameters, the fingerprint."""
    from robpicker_jax.config import as_plain_values
    from robpicker_jax.models import n_parameters
    from robpicker_jax.models.model_file import fingerprint

    return {
        "sha256": fingerprint(model),
        "parameters": n_parameters(model.params),
        "species": [
            {
                "name": entry.name,
                "radius_vox": entry.radius_vox,
                "radius_angstrom": _angstrom(model.card, entry.radius_vox),
                "molecular_weight_kda": entry.molecular_weight_kda,
            }
            for entry in model.card.data.species
        ],
        "card": as_plain_values(model.card),
    }


def card_lines(model: TrainedModel) -> list[tuple[str, str]]:
    """The card in words: names of lines, empty where a line goes on, and their text."""
    return [*_what_it_is(model), *_where_from(model.card.provenance)]


def _what_it_is(model: TrainedModel) -> Iterator[tuple[str, str]]:
    card, plain = model.card, as_plain(model)
    for index, entry in enumerate(plain["species"]):
        radius, weight = entry["radius_angstrom"], entry["molecular_weight_kda"]
        size = f"radius {entry['radius_vox']:g} voxels" if radius is None else f"radius {radius:.0f} Å"
        known = "" if weight is None else f", {weight:,.0f} kDa"
        yield "" if index else "species", f"{entry['name']}: {size}{known}"
    voxel, tolerance = card.voxel_size_angstrom, card.voxel_size_tolerance
    yield "voxel size", "not known" if voxel is None else f"{voxel:g} Å, give or take {100 * tolerance:g} %"
    yield "contrast", "the tomogram's densities times −1" if card.data.invert_contrast else "densities as they are"
    yield "normalisation", card.data.normalise
    yield "network", f"{card.model.backbone}, {plain['parameters']:,} parameters; tiles of {card.inference.tile} voxels"
    yield "picking", card.picking.clustering
    score = "" if card.score is None else f"; {card.score_name} {card.score:.3f} on the validation tomograms"
    yield "trained", f"{card.step} steps{score}"
    yield "written by", f"robpicker_jax {card.package_version}; SHA-256 {plain['sha256']}"


def _where_from(provenance: Provenance | None) -> Iterator[tuple[str, str]]:
    if provenance is None:
        yield "provenance", "not stated: this is a run's own file; robpicker export completes it"
        return
    kind = "simulated" if provenance.simulated else "as given by its user"
    counts = ", ".join(f"{number} {split}" for split, number in provenance.tomograms.items() if number)
    yield "trained on", f"tomograms, {kind}: {counts or 'number not known'}"
    if provenance.data_sha256 is not None:
        yield "", f"SHA-256 of the training and meta files: {provenance.data_sha256}"
    if not provenance.test:
        yield "test", "no scores"
    for index, score in enumerate(provenance.test):
        rates = ", ".join(
            f"{name} {'–' if value is None else f'{value:.3f}'}"
            for name, value in (("precision", score.precision), ("recall", score.recall), ("F1", score.f1))
        )
        yield "" if index else "test", f"{score.name}: {rates} ({score.true} particles)"
    if provenance.macro_f1 is not None:
        yield "", f"macro F1 {provenance.macro_f1:.3f}, rule {provenance.rule}"
    chosen = "pick --precision and --thresholds choose scores by it" if provenance.calibration else "none"
    yield "calibration", chosen
    yield "licence", provenance.licence or "not stated"
    for index, note in enumerate(provenance.notes):
        yield "" if index else "notes", note


def _angstrom(card: ModelCard, length_vox: float) -> float | None:
    return None if card.voxel_size_angstrom is None else length_vox * card.voxel_size_angstrom


def _parser() -> ArgumentParser:
    result = parser("card", _DESCRIPTION)
    result.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="a model's file, a run's folder, or the name of a model that ships with the package",
    )
    result.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="the whole card as JSON, to FILE or to the screen"
    )
    return result
