"""Picks into the overlay of a copick project, by the copick library: one set of picks for each run and object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.datasets.copick_project import local_overlay, object_names, open_project
from robpicker_jax.picking.pick_files import PickFiles, PickTarget
from robpicker_jax.system.errors import InputError

USER, SESSION = "robpicker", "0"


@dataclass(frozen=True)
class CopickFiles(PickFiles):
    """How picks are written into a project; the folder is its overlay, the options are copick's user and session.

    Attributes:
        project: the project's root, as the library gives it.
        objects: the project's object of each class that it has one for, by the class's name. Picks are labelled by the
            order of these objects, from 1.
    """

    project: Any = None
    objects: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def into(
        cls, config: Path, class_names: Sequence[str], options: dict[str, Any], *, every: bool = True
    ) -> CopickFiles:
        """Open a project for writing.

        Args:
            config: its `copick_config.json`.
            class_names: name of class 1, 2, …, each called like one of its objects, up to case and punctuation.
            options: `user_id` and `session_id`, where they are given.
            every: whether each class must have its object; else one of them must.

        Raises:
            InputError: a project that cannot be opened or lies elsewhere, or classes that it has no object for.
        """
        project = open_project(config)
        known = {_letters(name): name for name in object_names(project)}
        missing = [name for name in class_names if _letters(name) not in known]
        if missing and (every or len(missing) == len(class_names)):
            what = f"has no object for {', '.join(missing)}"
            listed = f"its objects: {', '.join(known.values())}" if known else "it has no objects that are particles"
            raise InputError(what, where=config, fix=f"{listed}; pick --species NAME=OBJECT names the one to write to")
        objects = {name: known[_letters(name)] for name in class_names if name not in missing}
        return cls(local_overlay(project, config), ["copick"], False, options, project, objects)

    def written_name(self, class_name: str) -> str:
        """The project's object of a class; the class's own name where it has none."""
        return self.objects.get(class_name, class_name)

    def check(self, targets: Sequence[PickTarget]) -> None:
        """Refuse, before anything is picked, what could not be written.

        Raises:
            InputError: as `PickFiles.check`, and for a tomogram that is no run of the project.
        """
        super().check(targets)
        for target in targets:
            self._run(target)

    def outputs(self, target: PickTarget, class_names: Sequence[str]) -> list[Path]:
        """The files of the picks by the same user and session, in the overlay and wherever the library finds earlier ones."""
        user, session = str(self.options.get("user_id", USER)), str(self.options.get("session_id", SESSION))
        run = self._run(target)
        folder = self.folder / "ExperimentRuns" / target.name / "Picks"
        found = [picks for name in self._filled for picks in run.get_picks(name, user_id=user, session_id=session)]
        paths = [folder / f"{user}_{session}_{name}.json" for name in self._filled]
        return list(dict.fromkeys([*paths, *(Path(picks.path) for picks in found)]))

    def write(self, target: PickTarget, picks: Particles, earlier: Sequence[Path] = ()) -> list[Path]:
        """Store the picks of one tomogram as its run's, in place of earlier ones by the same user and session.

        Every object of the classes gets its file, with or without picks, so that nothing of `earlier` stays as it was.
        """
        from copick.models import CopickPoint

        assert target.voxel_size_angstrom is not None  # `check` refused it
        run, paths = self._run(target), []
        for label, name in enumerate(self._filled, start=1):
            mine = picks.select(picks.labels == label)
            stored = run.new_picks(
                name,
                str(self.options.get("session_id", SESSION)),
                str(self.options.get("user_id", USER)),
                exist_ok=True,
            )
            turned = mine.rotations is not None and bool(np.isfinite(mine.rotations).all())
            stored.meta.points = [
                CopickPoint(
                    location=dict(zip("xyz", map(float, position * target.voxel_size_angstrom), strict=True)),
                    transformation_=_matrix(mine, i if turned else None),
                    score=1.0 if mine.scores is None or np.isnan(mine.scores[i]) else float(mine.scores[i]),
                )
                for i, position in enumerate(mine.positions_vox)
            ]
            stored.meta.voxel_spacing = target.voxel_size_angstrom
            stored.meta.trust_orientation = turned
            stored.store()
            paths.append(Path(stored.path))
        return paths

    @property
    def _filled(self) -> list[str]:
        """The objects that are written to, that of label 1 first."""
        return list(dict.fromkeys(self.objects.values()))

    def _run(self, target: PickTarget) -> Any:
        run = self.project.get_run(target.name)
        if run is None:
            fix = "--name-pattern says what of a volume's name is the run's"
            raise InputError(f"no run {target.name!r} in the copick project", where="--out", fix=fix)
        return run


def _matrix(particles: Particles, i: int | None) -> list[list[float]]:
    matrix = np.eye(4)
    if i is not None and particles.rotations is not None:
        matrix[:3, :3] = particles.rotations[i]
    rows: list[list[float]] = matrix.tolist()
    return rows


def _letters(name: str) -> str:
    """A name without what copick's names cannot hold."""
    return "".join(character for character in name.lower() if character.isalnum())
