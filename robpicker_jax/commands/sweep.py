"""`sweep`: trainings with values of some fields that are drawn or listed; the best by its validation score."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import ArgumentParser, configured_parser, console, split_overrides
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.config import Config
    from robpicker_jax.tuning import Space

SETTINGS, TABLE, BEST = "sweep.json", "sweep.csv", "best.yaml"
METHODS = ("random", "grid", "halving", "optuna")

_DESCRIPTION = """\
Train with other values of some fields, each trial in a folder of its own (WORKDIR/trial_000 …), and say which is best by
the validation score (evaluation.choose_by); the test tomograms are picked by the best trial alone. The configuration of
the best is written to WORKDIR/best.yaml, all scores to WORKDIR/sweep.csv. The same command again goes on where it was
stopped; more --trials add to those that are done.

  --over train.loss=dice|tversky                        a choice; each value is YAML
  --over train.inner.learning_rate=1e-4..1e-2:log       a range, evenly in its logarithm
  --over train.batch_size=4..16                         whole numbers

Methods: random draws each field by itself; grid takes every combination of choices; halving draws --trials at random,
trains all for --min-steps, and the best of each --eta again so many times longer, up to train.steps; optuna learns from
the trials that are done (extra `optuna`).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    rest, overrides = split_overrides(_protected(list(arguments or ())))
    options = _parser().parse_args(rest)
    from robpicker_jax.config import load_config
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.tuning import parse_space

    space = parse_space([text.removeprefix(_MARK) for text in options.over])
    config = load_config(options.config, overrides)
    if options.trials < 1:
        raise InputError(f"must be 1 or more, got {options.trials}", where="--trials")
    sweep = Sweep(
        options.workdir,
        config,
        space,
        options.method,
        options.trials,
        options.seed,
        options.min_steps or max(1, config.train.steps // options.eta**2),
        options.eta,
    )
    sweep.run()
    return 0


@dataclass
class Trial:
    """One training of a sweep.

    Attributes:
        number: from 0.
        values: by field.
        steps: how far it is trained.
        score: best validation score so far; None: not trained yet, or failed.
        failed: why.
    """

    number: int
    values: Mapping[str, Any]
    steps: int = 0
    score: float | None = None
    failed: str = ""


@dataclass
class Sweep:
    """A sweep in a folder.

    Attributes:
        workdir: the folder.
        config: what all trials share.
        space: what is searched.
        method: one of `METHODS`.
        count: number of trials.
        seed: of what is drawn.
        least, eta: of successive halving.
        trials: those begun so far.
    """

    workdir: Path
    config: Config
    space: Space
    method: str
    count: int
    seed: int
    least: int
    eta: int
    trials: list[Trial] = field(default_factory=list)

    def run(self) -> None:
        """Do all trials that are not done, and the whole job of the best.

        Raises:
            InputError: fields or values that cannot be, another sweep in the folder, or no trial that did not fail.
        """
        from robpicker_jax.commands import main_job
        from robpicker_jax.config import dump_config
        from robpicker_jax.system.errors import InputError
        from robpicker_jax.system.files import write_text

        proposed = self._proposed_before_training()
        self._check_folder()
        self._share_data()
        if self.method == "halving":
            self._halve(proposed)
        else:
            self._one_by_one()
        self._write_table()
        scored = [trial for trial in self.trials if trial.score is not None and trial.steps == self.config.train.steps]
        if not scored:
            raise InputError("every trial failed", where=self.workdir, fix=f"see {TABLE}, and search other values")
        best = max(scored, key=lambda trial: (trial.score or 0.0, -trial.number))
        config = self._config(best, self.config.train.steps)
        write_text(self.workdir / BEST, dump_config(config))
        self._show(best)
        main_job.run(config, self._folder(best.number))

    def _proposed_before_training(self) -> list[Trial]:
        """The trials whose values depend on no score, each checked: a wrong field is refused before hours of training."""
        from robpicker_jax.tuning import PROPOSALS

        first = 1 if self.method == "optuna" else self.count
        found = []
        for number in range(first):
            values = PROPOSALS["random" if self.method == "halving" else self.method](self.space, number, (), self.seed)
            if values is None:
                break
            found.append(Trial(number, values))
            self._config(found[-1], self.config.train.steps)
        return found

    def _one_by_one(self) -> None:
        from robpicker_jax.tuning import PROPOSALS, Done

        for number in range(self.count):
            done = [Done(trial.values, trial.score) for trial in self.trials]
            values = PROPOSALS[self.method](self.space, number, done, self.seed)
            if values is None:
                break
            self.trials.append(Trial(number, values))
            self._train(self.trials[-1], self.config.train.steps)

    def _halve(self, proposed: list[Trial]) -> None:
        from robpicker_jax.tuning import rungs, survivors

        self.trials, going_on = proposed, list(range(len(proposed)))
        steps = rungs(self.config.train.steps, self.least, self.eta)
        for rung in steps:
            console.print(f"\n{len(going_on)} trials to step {rung}", highlight=False)
            for number in going_on:
                self._train(self.trials[number], rung)
            if rung != steps[-1]:
                going_on = survivors({number: self.trials[number].score for number in going_on}, self.eta)

    def _train(self, trial: Trial, steps: int) -> None:
        """Train a trial to a step, as far as it is not, and take its best validation score."""
        import jax

        from robpicker_jax.commands import main_job
        from robpicker_jax.system.errors import InputError
        from robpicker_jax.training.run_folder import trained_to

        listed = ", ".join(f"{key} {json.dumps(value)}" for key, value in trial.values.items())
        say(f"\ntrial {trial.number}: {listed}")
        folder = self._folder(trial.number)
        try:
            if (
                trained_to(folder) or 0
            ) < steps:  # a sweep that goes on finds trials that are trained as far, or further
                main_job.run(self._config(trial, steps), folder, results=False)
                jax.clear_caches()  # the next trial's programs are others
            trial.steps, trial.score = steps, self._score(trial, steps)
        except InputError as error:  # such as a training that diverged, or a network that does not fit the memory
            trial.score, trial.failed = None, str(error)
            say(f"trial {trial.number} failed: {error}")
        self._write_table()

    def _score(self, trial: Trial, steps: int) -> float | None:
        from robpicker_jax.training.metrics_log import read_metrics

        name = self.config.evaluation.choose_by
        rows = read_metrics(self._folder(trial.number) / "metrics.jsonl")
        scores = [row[name] for row in rows if row["kind"] == "validation" and row["step"] <= steps]
        return max((score for score in scores if score is not None), default=None)

    def _config(self, trial: Trial, steps: int) -> Config:
        """The configuration of a trial; schedules always span the whole training, so that a trial can be prolonged."""
        from robpicker_jax.config import apply_overrides, as_plain_values, config_of
        from robpicker_jax.tuning import as_overrides

        values = apply_overrides(as_plain_values(self.config), as_overrides(trial.values))
        config = config_of(values, self.workdir / BEST)
        train = config.train
        whole: dict[str, Any] = {
            name: replace(getattr(train, name), schedule_steps=getattr(train, name).schedule_steps or train.steps)
            for name in ("inner", "correction", "reweighting", "module")
        }
        if steps < train.steps:
            whole |= {"steps": steps}
            whole |= {name: min(getattr(train, name), steps) for name in ("validate_every", "checkpoint_every")}
        return replace(config, train=replace(train, **whole))

    def _folder(self, number: int) -> Path:
        return self.workdir / f"trial_{number:03d}"

    def _check_folder(self) -> None:
        """Remember what is searched; refuse a folder of another sweep.

        Raises:
            InputError: another sweep's folder.
        """
        from robpicker_jax.config import as_plain_values
        from robpicker_jax.config.differences import differing_keys
        from robpicker_jax.system.errors import InputError
        from robpicker_jax.system.files import read_json_object, write_text

        path = self.workdir / SETTINGS
        stated = {
            "method": self.method,
            "seed": self.seed,
            "space": {key: [type(values).__name__, *vars(values).values()] for key, values in self.space.items()},
            "config": as_plain_values(self.config),
        }
        if self.method == "halving":  # which trials go on depends on how many there are
            stated |= {"trials": self.count, "least": self.least, "eta": self.eta}
        stated = json.loads(json.dumps(stated))
        if path.exists():
            different = differing_keys(read_json_object(path), stated)
            if different:
                raise InputError(
                    f"holds a sweep with other settings ({', '.join(different[:3])})",
                    where=self.workdir,
                    fix="use another --workdir, or give the former settings",
                )
        self.workdir.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(stated, indent=1) + "\n")

    def _share_data(self) -> None:
        """Simulate the data set once for all trials where the configuration names none."""
        from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
        from robpicker_jax.system.progress import progress

        config = self.config
        if config.data.dir is not None:
            return
        recipe = DatasetRecipe(config.data.species, config.simulation, config.label_noise)
        with progress("simulating", recipe.count()) as bar:
            simulate_dataset(recipe, self.workdir / "data", bar)
        self.config = replace(config, data=replace(config.data, dir=str((self.workdir / "data").resolve())))

    def _write_table(self) -> None:
        from robpicker_jax.system.files import write_text

        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "steps", self.config.evaluation.choose_by, *self.space, "failed"])
        for trial in self.trials:
            values = [json.dumps(trial.values[key]) for key in self.space]
            score = "" if trial.score is None else f"{trial.score:.6g}"
            writer.writerow([trial.number, trial.steps, score, *values, trial.failed])
        write_text(self.workdir / TABLE, text.getvalue())

    def _show(self, best: Trial) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(title="Trials by validation score, not by the test set", box=SIMPLE_HEAD, padding=0)
        for name in ("trial", "  steps", f"  {self.config.evaluation.choose_by}", *(f"  {key}" for key in self.space)):
            table.add_column(name, justify="right", overflow="fold")
        ranked = sorted(self.trials, key=lambda trial: (trial.score is None, -(trial.score or 0.0), trial.number))
        for trial in ranked:
            score = "failed" if trial.failed else "–" if trial.score is None else f"{trial.score:.3f}"
            table.add_row(str(trial.number), str(trial.steps), score, *(json.dumps(v) for v in trial.values.values()))
        console.print(table)
        say(f"best: trial {best.number}; configuration: {self.workdir / BEST}; table: {self.workdir / TABLE}")


_MARK = "over:"


def _protected(arguments: list[str]) -> list[str]:
    """The values of --over marked, so that a dotted key is not read as a flag of the configuration."""
    return [
        f"{_MARK}{argument}" if index and arguments[index - 1] == "--over" else argument
        for index, argument in enumerate(arguments)
    ]


def _parser() -> ArgumentParser:
    result = configured_parser("sweep", _DESCRIPTION)
    add = result.add_argument
    add("--workdir", metavar="DIR", type=Path, required=True, help="folder of the sweep")
    add("--over", metavar="KEY=VALUES", action="append", default=[], help="a field and its values; repeat")
    add("--method", choices=METHODS, default="random", help="how values are chosen; default: random")
    add("--trials", metavar="N", type=int, default=10, help="number of trials, of a grid at most; default: 10")
    add("--seed", metavar="N", type=int, default=0, help="of what is drawn; default: 0")
    add("--min-steps", metavar="N", type=int, help="halving: steps of every trial; default: train.steps / eta²")
    add(
        "--eta",
        metavar="N",
        type=int,
        default=3,
        help="halving: one in how many goes on, that many times longer; default: 3",
    )
    return result
