"""What `pick` and `segment` share: the tomograms of one command, its part of them, and what is recorded of each."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.applying import Queued, queued, streamed
from robpicker_jax.system.progress import console, error_console, say

if TYPE_CHECKING:
    from robpicker_jax.datasets import OpenedTomogram, TomogramFiles
    from robpicker_jax.picking.finished import Finished
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.system.errors import InputError

OTHERWISE = "use another --out, or give --overwrite; what the same command left unfinished is replaced unasked"


def tomograms_of(options: argparse.Namespace, picker: Picker) -> list[TomogramFiles]:
    """The tomograms named on the command line, of all shards; none is opened.

    Raises:
        InputError: a path that is no tomogram, no folder of some and no copick project; a run that no project has.
    """
    from robpicker_jax.datasets.copick_project import is_project
    from robpicker_jax.datasets.named import named_tomograms
    from robpicker_jax.system.errors import InputError

    if options.run and not any(map(is_project, options.tomograms)):
        raise InputError("only copick projects have runs", where="--run", fix="name the files of the tomograms instead")
    return named_tomograms(options.tomograms, picker.data.copick, only=options.run or ())


def names_of(tomograms: Sequence[TomogramFiles], options: argparse.Namespace, results: str) -> dict[TomogramFiles, str]:
    """The name of each tomogram in what is written.

    Args:
        tomograms: of all shards, since they may share a folder.
        options: the parsed arguments of `apply_parser`.
        results: what is written, in words.

    Raises:
        InputError: two tomograms of one name.
    """
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.system.errors import InputError

    rule = NameRule.of(options.name_pattern)
    names = {tomogram: rule.written(tomogram.name) for tomogram in tomograms}
    for name, count in Counter(names.values()).items():
        if count > 1:
            what = f"{'two' if count == 2 else count} tomograms are called {name}; their {results} would have one name"
            raise InputError(what, where=options.out, fix="rename one, or use a folder for each")
    return names


@dataclass(frozen=True)
class Batch:
    """The tomograms of one command, of which this process does its share.

    Attributes:
        names: name of each tomogram in what is written, of all shards.
        records: which are finished.
        options: the parsed arguments of `apply_parser`.
        done: what is done of a tomogram, in words, such as "picked".
        bad: the tomograms of the share that were left out.
    """

    names: Mapping[TomogramFiles, str]
    records: Finished
    options: argparse.Namespace
    done: str
    bad: list[TomogramFiles] = field(default_factory=list)

    @property
    def share(self) -> list[TomogramFiles]:
        """The part that `--shard` names: every N-th, so that parts of a sorted batch take about as long."""
        number, total = self.options.shard
        return list(self.names)[number - 1 :: total]

    def queue(self, picker: Picker, *, whole: bool = False) -> list[Queued]:
        """The tomograms that can be used, every header checked; those that cannot are left out with --skip-bad.

        Args:
            picker: what they are queued for.
            whole: whether those of the other shards are checked too; what of them is left out is theirs to say.

        Raises:
            InputError: a tomogram that cannot be used; with --skip-bad, where this is true of all tomograms of all shards.
        """
        from robpicker_jax.system.errors import InputError

        tomograms = list(self.names) if whole else self.share
        found = queued(tomograms, self.options, picker, self._on_bad)
        if tomograms and not found and len(tomograms) == len(self.names):
            raise InputError(f"none of {len(tomograms)} tomograms can be used", fix="the lines above say why")
        return found

    def waiting(self, queue: Sequence[Queued]) -> list[Queued]:
        """Those of the share that are queued and not finished; says how many are."""
        own = set(self.share)
        mine = [item for item in queue if item.tomogram in own]
        waiting = [item for item in mine if not self.records.has(self.names[item.tomogram], item.tomogram)]
        if len(waiting) < len(mine):
            say(f"{len(mine) - len(waiting)} of {len(mine)} tomograms are finished already, by the same settings")
        return waiting

    def check_free(
        self, waiting: Sequence[Queued], outputs: Mapping[TomogramFiles, Sequence[Path]], further: Sequence[Path] = ()
    ) -> None:
        """Refuse, before anything is computed, to replace what is there: what an interrupted run began is its own.

        Args:
            waiting: the tomograms that are going to be done.
            outputs: the files that each tomogram's results go to.
            further: other files that are read.

        Raises:
            InputError: a file exists and may not be replaced, or is an input.
        """
        from robpicker_jax.system.outputs import check_outputs

        todo = [item.tomogram for item in waiting]
        inputs = [path for tomogram in todo for path in (tomogram.volume_path, tomogram.mask_path)]
        check_outputs(
            [path for tomogram in todo for path in outputs[tomogram]],
            inputs=[*inputs, *further],
            overwrite=self.options.overwrite,
            own={path for tomogram in todo for path in self.records.own(self.names[tomogram], tomogram)},
            fix=OTHERWISE,
        )

    def streamed(
        self, picker: Picker, waiting: Sequence[Queued], advance: Callable[[int], None]
    ) -> Iterator[OpenedTomogram]:
        """The tomograms, opened one by one; with --skip-bad those that turn out to be unusable are left out.

        Args:
            picker: what they are opened for.
            waiting: the tomograms.
            advance: called with the tiles of each that is left out.

        Raises:
            InputError: without --skip-bad, a volume that cannot be used.
        """
        tiles = {item.tomogram: picker.tiles(item.shape_zyx) for item in waiting}

        def leave_out(tomogram: TomogramFiles, error: InputError) -> None:
            self._leave_out(tomogram, error)
            advance(tiles[tomogram])

        yield from streamed(picker, waiting, leave_out if self.options.skip_bad else None)

    def say_end(self, waiting: Sequence[Queued]) -> None:
        """Say how many tomograms were done, where some were left out."""
        if self.bad:
            done = sum(item.tomogram not in self.bad for item in waiting)
            tomograms = "tomogram" if done == 1 else "tomograms"
            console.print(f"{done} {tomograms} {self.done}, {len(self.bad)} left out", highlight=False)

    @property
    def _on_bad(self) -> Callable[[TomogramFiles, InputError], None] | None:
        return self._leave_out if self.options.skip_bad else None

    def _leave_out(self, tomogram: TomogramFiles, error: InputError) -> None:
        """Leave out a tomogram of the share: say why, and record it."""
        if tomogram in self.share:
            self.bad.append(tomogram)
            self.records.leave_out(self.names[tomogram], tomogram, str(error))
            error_console.print(f"left out: {tomogram.name}: {error}", highlight=False, markup=False, soft_wrap=True)
