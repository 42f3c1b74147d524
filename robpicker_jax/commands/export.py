"""`export`: a run's best model as one file to give away, its card completed from what the run has recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import ArgumentParser, parser
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.config import Config, DataConfig
    from robpicker_jax.models.provenance import Provenance
    from robpicker_jax.models.trained_model import TrainedModel

_DESCRIPTION = """\
Write the best model of a training run as one file, with a card: species with radii in Å and molecular weights, voxel
size, contrast, normalisation, a fingerprint of the training data, scores on the test tomograms, the counts by which
score thresholds are chosen, licence and notes. `robpicker card FILE` prints it; `pick`, `segment` and `audit` take the
file as --model, `train` as --init-from.

RUN may be a model's file too: it is written again with another licence, or further notes.

A file called .onnx gets the network as an ONNX graph instead, for other programs (extra `onnx`): normalised densities of one
tile in, class probabilities out, the card in its metadata. It cannot be read back.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(list(arguments or ()))
    from robpicker_jax.models.model_file import save_model
    from robpicker_jax.models.shipped import find_model
    from robpicker_jax.system.outputs import check_outputs

    source = find_model(options.run)
    check_outputs([options.out], inputs=[source if source.is_file() else None], overwrite=options.overwrite)
    model = exported(source, licence=options.licence, notes=options.note)
    if options.out.suffix.lower() == ".onnx":
        from robpicker_jax.models.onnx_export import save_onnx

        save_onnx(options.out, model)
        say(f"written: {options.out}")
        return 0
    save_model(options.out, model)
    for line in _missing(model, options.out):
        say(line)
    say(f"written: {options.out}; robpicker card {options.out} prints its card")
    return 0


def exported(source: Path, *, licence: str | None = None, notes: Sequence[str] = ()) -> TrainedModel:
    """The model of a run or a file, its card with where it comes from and what it is worth.

    Args:
        source: a run's folder, or a model's file.
        licence: under which it may be used; None: as a file's card has it.
        notes: free text, appended to what a file's card has.

    Raises:
        InputError: no model there, or records of the run that are damaged.
    """
    from robpicker_jax.models.provenance import Provenance
    from robpicker_jax.training.export import load_trained_model

    model = load_trained_model(source)
    data = model.card.data
    if source.is_dir():
        provenance, data = _of_run(source, data)
    else:
        provenance = model.card.provenance or Provenance()
    provenance = replace(provenance, licence=licence or provenance.licence, notes=(*provenance.notes, *notes))
    return replace(model, card=replace(model.card, data=data, provenance=provenance))


def _of_run(workdir: Path, data: DataConfig) -> tuple[Provenance, DataConfig]:
    """What a run's folder tells of its model, and the section `data` with the molecular weights of its species."""
    from robpicker_jax.datasets.stamps import content_digest
    from robpicker_jax.models.provenance import Provenance
    from robpicker_jax.molecules import PHANTOMS
    from robpicker_jax.picking import calibration
    from robpicker_jax.system.files import read_json_object
    from robpicker_jax.training.run_folder import read_config

    config = read_config(workdir)
    weights = {
        entry.name: entry.molecular_weight_kda
        or (PHANTOMS[entry.phantom].molecular_weight_kda if entry.phantom else None)
        for entry in config.data.species
    }
    species = tuple(replace(entry, molecular_weight_kda=weights.get(entry.name)) for entry in data.species)
    inputs, test = (
        read_json_object(workdir / name) if (workdir / name).is_file() else {}
        for name in ("inputs.json", "evaluation.json")
    )
    known = calibration.load(workdir).classes if (workdir / calibration.FILE).is_file() else {}
    provenance = Provenance(
        simulated=config.data.dir is None,
        tomograms=_tomograms(config),
        data_sha256=content_digest(inputs, ("train", "meta")) if inputs else None,
        calibration={name: calibration.condensed(entry) for name, entry in known.items()},
        **_scores(test, workdir / "evaluation.json"),
    )
    return provenance, replace(data, species=species)


def _tomograms(config: Config) -> dict[str, int]:
    """Number of tomograms by split; empty where the data set has been moved away."""
    from robpicker_jax.datasets import SPLITS, dataset
    from robpicker_jax.system.errors import InputError

    if config.data.dir is None:
        return {split: getattr(config.simulation, split) for split in SPLITS}
    try:
        return {split: len(found) for split, found in dataset(config.data.dir, config.data).items()}
    except (InputError, OSError):
        return {}


def _scores(evaluation: dict[str, Any], where: Path) -> dict[str, Any]:
    """The scores of an evaluation.json as fields of a `Provenance`; none where no test tomogram was annotated.

    Raises:
        InputError: it is no evaluation.
    """
    from robpicker_jax.models.provenance import SpeciesScore
    from robpicker_jax.system.errors import InputError

    if not evaluation.get("classes"):
        return {}
    try:
        test = tuple(
            SpeciesScore(str(row["name"]), int(row["true"]), *(row[key] for key in ("precision", "recall", "f1")))
            for row in evaluation["classes"]
        )
        return {"rule": str(evaluation["rule"]), "macro_f1": evaluation["macro"]["f1"], "test": test}
    except (KeyError, TypeError, ValueError):
        raise InputError("damaged: no evaluation of a run", where=where, fix="run train again") from None


def _missing(model: TrainedModel, out: Path) -> list[str]:
    """What a reader of the card will ask for and not find."""
    card = model.card
    assert card.provenance is not None
    lines = []
    if card.provenance.licence is None:
        lines.append(f"{out}: no licence is stated; --licence says under which the model may be used")
    if not card.provenance.test:
        lines.append(f"{out}: no scores, since no test tomogram of the run was annotated or it is not finished")
    if card.voxel_size_angstrom is None:
        lines.append(f"{out}: the voxel size of the training tomograms is not known, so radii in Å are not either")
    return lines


def _parser() -> ArgumentParser:
    result = parser("export", _DESCRIPTION)
    add = result.add_argument
    add("run", metavar="RUN", type=Path, help="folder of a training run, or a model's file")
    add("out", metavar="FILE", type=Path, help="the file to write: MODEL.rpk, or NETWORK.onnx")
    add("--licence", metavar="TEXT", help="under which the model may be used, such as CC-BY-4.0")
    add("--note", metavar="TEXT", action="append", default=[], help="free text for the card; repeat")
    add("--overwrite", action="store_true", help="replace an earlier file")
    return result
