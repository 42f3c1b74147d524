"""A study: data sets crossed with cases, each with several seeds, as its YAML file describes them.

A study's file beside this module says what differs from the base configuration of a scale (`base_cpu.yaml`,
`base_full.yaml`). Everywhere `settings` hold for both scales, `cpu` and `full` for one of them; keys are dotted, as on
the command line. They are applied in this order: base, study, data set, case. So a case can change the data too, such
as their label noise.

Steps and intervals count updates of the segmentation network: a case with `train.inner_steps: 5` takes a fifth of the
training steps, each of five updates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import yaml
from pydantic import ConfigDict

from robpicker_jax.config import Config, TrainConfig, as_plain_values, load_config
from robpicker_jax.config.loading import apply_overrides, validated
from robpicker_jax.config.validation import check
from robpicker_jax.system.errors import InputError

FOLDER = Path(__file__).resolve().parent
ORDER = (
    "main",
    "ablation",
    "noise",
    "template_matching",
    "imbalance",
    "meta_size",
    "loss",
    "systems",
    "backbones",
    "hypergradient",
)
"""The studies in the order in which they are reported; others follow by name."""

JOB, FURTHER, RESULT, LOG = "job.yaml", "further.json", "result.json", "log.txt"
"""Files of a run: its configuration, what it depends on beside it (where there is such), what came out of it (written
last), and what it said."""

METRICS_VERSION = 1
"""What the figures of a run mean: counted up with every change of picking, evaluation or measurement that moves them.

Runs and records carry it; one without it is of version 0. Figures of different versions are never put side by side.
"""

Scale = Literal["cpu", "full"]
SCALES: tuple[Scale, ...] = get_args(Scale)
Figure = Literal["curves", "species", "differences", "data_sets", "averages", "gains"]
Picks = Literal["model", "matching", "truth"]
Places = Literal["random", "shrec_2019"]

_COUNTS = ("steps", "fine_tune_steps", "meta_warmup_steps")  # these may be 0, the intervals may not
_INTERVALS = ("validate_every", "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Changes:
    """Something with a label that changes settings: a case or a data set.

    Attributes:
        label: how tables and figures call it.
        settings: dotted key → value, at both scales.
        cpu, full: the same at one scale; they win.
        shown: whether figures that would become crowded show it.
        picks: of a case: whose picks are judged, the trained model's; in studies that match templates also the matched
            lists themselves, or the true particles. The last two train nothing.
        matched: of a data set: what of the study's template matching is otherwise there.
        only: of a case: the data sets that it is trained on; none named: all.
        scales: of a data set: the scales that have it.
        places: of a data set: where its particles are, at random, or at the positions and angles of SHREC 2019's lists, with
            that benchmark's proteins as density maps (`benchmarks.paper.shrec`).
        corruption: of a case: from where `train.corruption` has its rates, the settings or, in studies that match
            templates, the matched lists of the meta tomograms beside their clean ones.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    cpu: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)
    shown: bool = True
    picks: Picks = "model"
    only: tuple[str, ...] = ()
    scales: tuple[Scale, ...] = SCALES
    places: Places = "random"
    matched: dict[str, Any] = field(default_factory=dict)
    corruption: Literal["stated", "measured"] = "stated"

    def at(self, scale: Scale) -> dict[str, Any]:
        """The settings at a scale."""
        return self.settings | (self.cpu if scale == "cpu" else self.full)


@dataclass(frozen=True)
class Matched:
    """Template matching in a study: its lists are the training labels, and averages are made of what each case picks.

    The templates are the species themselves.

    Attributes:
        angle_step_deg: of the search.
        weighing: of the templates: a binary wedge, or every tilt with the CTF of the simulation.
        cutoff: by the statistics of each tomogram's peaks, or where F1 on the clean meta tomograms is best.
        candidates: peaks that a template gives at most in a tomogram, over the number of its species' particles there.
        averaged: the species that are averaged.
        share: how many of the best-scored picks are averaged, over the number of the species' particles in the test
            tomograms: all cases average equally many.
        average_step_deg: angular step of the alignment's global search.
        iterations: alignments.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    angle_step_deg: float = 15.0
    weighing: Literal["wedge", "ctf"] = "wedge"
    cutoff: Literal["statistics", "clean"] = "statistics"
    candidates: float = 2.5
    averaged: tuple[str, ...] = ()
    share: float = 0.8
    average_step_deg: float = 20.0
    iterations: int = 2


@dataclass(frozen=True)
class StudyFile:
    """The content of a study's file.

    Attributes:
        title, question: what it is about.
        data_sets, cases: by name; every case is run on every data set.
        references: the cases that all others are compared with, seed by seed.
        figures: which figures are drawn.
        overview: whether a table by size groups comes first, with what each case takes: time, memory, parameters.
        settings, cpu, full: changes for the whole study.
        matched: template matching in place of label noise; None: none.
        paper: what the paper reports, as Markdown.
        findings: what was found, as Markdown by scale; written by hand after the study.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    title: str
    question: str
    data_sets: dict[str, Changes]
    cases: dict[str, Changes]
    references: tuple[str, ...]
    figures: tuple[Figure, ...] = ("species", "differences")
    overview: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    cpu: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)
    matched: Matched | None = None
    paper: str = ""
    findings: dict[Scale, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training of a study."""

    data_set: str
    case: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data_set}, {self.case}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A study at one scale.

    Attributes:
        name: of its file.
        scale: the scale.
        file: its content.
        base: the base configuration as nested values, the study's own changes applied.
        source: its file, for messages.
        extra: settings that are applied last, to every run.
    """

    name: str
    scale: Scale
    file: StudyFile
    base: dict[str, Any]
    source: Path
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name and scale, as files are called."""
        return f"{self.name}_{self.scale}"

    def runs(self, seeds: Sequence[int]) -> Iterator[Run]:
        """All runs, seed by seed, so that a study that is stopped has compared every case on fewer seeds."""
        for seed in seeds:
            for data_set in self.file.data_sets:
                for case, change in self.file.cases.items():
                    if not change.only or data_set in change.only:
                        yield Run(data_set, case, seed)

    def config(self, run: Run) -> Config:
        """The configuration of a run; its seed draws the data, their label noise and the training.

        Raises:
            InputError: a setting that no configuration can have, named with its case.
        """
        changes = self.file.data_sets[run.data_set].at(self.scale)
        changes |= self.file.cases[run.case].at(self.scale)
        changes |= self.extra
        changes |= {f"{section}.seed": run.seed for section in ("simulation", "label_noise", "train")}
        where = f"{self.source}, {run.data_set}, {run.case}"
        config = validated(Config, changed(self.base, changes), where)
        train = config.train
        config = replace(config, train=replace(train, **_in_steps(train, where)))
        places = self.file.data_sets[run.data_set].places
        # Species that lists place have no phantom: their maps are found when the data are made.
        check(config if places == "random" else replace(config, data=replace(config.data, dir=places)), where)
        return config

    def matched(self, data_set: str) -> Matched | None:
        """How a data set's labels are matched; None where the study matches no templates.

        Raises:
            InputError: an entry that there is not.
        """
        if self.file.matched is None:
            return None
        entries = asdict(self.file.matched) | self.file.data_sets[data_set].matched
        return validated(Matched, entries, f"{self.source}, data_sets.{data_set}.matched")

    def further(self, run: Run) -> dict[str, Any]:
        """What a run depends on beside its configuration, as JSON has it; empty where there is no such thing."""
        matched, case = self.matched(run.data_set), self.file.cases[run.case]
        further: dict[str, Any] = {}
        if matched is not None:
            further |= {"picks": case.picks, "matched": asdict(matched)}
            if case.corruption != "stated":
                further["corruption"] = case.corruption
        if (places := self.file.data_sets[run.data_set].places) != "random":
            further["places"] = places
        return dict(json.loads(json.dumps(further)))

    def fingerprint(self, run: Run) -> str:
        """Short hash of all that a run's result depends on."""
        return fingerprint(self.config(run), self.further(run))

    def check(self) -> None:
        """Refuse a study that names an unknown reference, or has a case that cannot be configured.

        Raises:
            InputError: the first fault.
        """
        for name in self.file.references:
            if name not in self.file.cases:
                raise InputError(f"the reference {name!r} is no case", where=self.source)
        for name, case in self.file.cases.items():
            if self.file.matched is None and (case.picks, case.corruption) != ("model", "stated"):
                raise InputError("the study matches no templates", where=f"{self.source}, cases.{name}")
        for run in self.runs([0]):
            matched, config = self.matched(run.data_set), self.config(run)
            averaged = set() if matched is None else set(matched.averaged)
            unknown = averaged - {species.name for species in config.data.species}
            if unknown:
                raise InputError(f"{min(unknown)!r} is no species", where=f"{self.source}, matched.averaged")

    def smaller(self, extra: Mapping[str, Any]) -> Study:
        """One data set and two cases, one with meta networks and one without where there are both, with `extra` settings.

        Tomograms have one particle of each species, so that all have room in small ones.
        """
        first, reference = next(iter(self.file.data_sets)), self.file.references[0]
        others = [name for name in self.file.cases if name != reference]
        unlike = [name for name in others if self._is_bilevel(first, name) != self._is_bilevel(first, reference)]
        file = replace(
            self.file,
            data_sets={first: self.file.data_sets[first]},
            cases={name: self.file.cases[name] for name in (reference, *(unlike or others)[:1])},
            references=(reference,),
        )
        copies = {f"data.species.{index}.copies": 1 for index in range(len(self.base["data"]["species"]))}
        return replace(self, file=file, extra=copies | dict(extra))

    def _is_bilevel(self, data_set: str, case: str) -> bool:
        return self.config(Run(data_set, case, 0)).train.is_bilevel


def study_names(folder: Path = FOLDER) -> list[str]:
    """The studies that a folder describes, in the order in which they are reported."""
    found = {path.stem for path in folder.glob("*.yaml") if not path.stem.startswith(("base_", "quick"))}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def load_study(name: str, scale: Scale, folder: Path = FOLDER) -> Study:
    """Read a study and its base configuration; every case is checked.

    Args:
        name: of its file in the folder.
        scale: which base configuration, and which of the settings that differ between scales.
        folder: where the files are.

    Raises:
        InputError: no such study, a file that is not readable, an impossible setting.
    """
    path, base = folder / f"{name}.yaml", folder / f"base_{scale}.yaml"
    if name not in study_names(folder):
        raise InputError(f"no study {name!r}", fix=f"choose from {', '.join(study_names(folder))}")
    load_config(base)  # a fault of the base is not reported as one of the first case
    file = validated(StudyFile, read_yaml(path), path)
    for kind, named in (("data_sets", file.data_sets), ("cases", file.cases)):
        if not named:
            raise InputError(f"{kind}: none", where=path)
    for case, change in file.cases.items():
        if elsewhere := set(change.only) - set(file.data_sets):
            raise InputError(f"{min(elsewhere)!r} is no data set", where=f"{path}, cases.{case}.only")
    there = {data_set: change for data_set, change in file.data_sets.items() if scale in change.scales}
    if not there:
        raise InputError(f"data_sets: none at the scale {scale}", where=path)
    own, file = Changes("", file.settings, file.cpu, file.full).at(scale), replace(file, data_sets=there)
    study = Study(name, scale, file, changed(read_yaml(base), own), path)
    study.check()
    return study


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: not readable, or no mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"not readable: {error}", where=path) from None
    if not isinstance(data, dict):
        raise InputError("must hold a mapping", where=path)
    return data


def changed(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested `data` with the values of dotted keys replaced."""
    lines = {key: yaml.safe_dump(value, default_flow_style=True, width=10**9) for key, value in changes.items()}
    return apply_overrides(data, [f"{key}={text.removesuffix('...' + chr(10))}" for key, text in lines.items()])


def without_folder(config: Config) -> Config:
    """The configuration without the place of its data, which says nothing about the result."""
    return replace(config, data=replace(config.data, dir=None))


def fingerprint(config: Config, further: Mapping[str, Any] | None = None) -> str:
    """Short hash of all settings that a result depends on: the configuration, and what there is beside it."""
    text = json.dumps(as_plain_values(without_folder(config)), sort_keys=True)
    if further:
        text += json.dumps(further, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _in_steps(train: TrainConfig, where: str) -> dict[str, Any]:
    """The fields that count updates, in training steps of `inner_steps` updates each."""
    k = train.inner_steps
    if train.steps % k:
        raise InputError(f"{train.steps} updates are no multiple of {k} inner steps", where=where)
    counts = {name: value if 0 < (value := getattr(train, name)) < 1 else value // k for name in _COUNTS}  # or shares
    return counts | {name: max(1, getattr(train, name) // k) for name in _INTERVALS}
