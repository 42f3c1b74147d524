"""Coordinates: inside their volume, in its voxels, axes and orientation, and on particles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robpicker_jax.annotations.bounds import inside, likely_reason
from robpicker_jax.diagnosis.findings import Finding, Severity, names
from robpicker_jax.diagnosis.hypotheses import AS_IS, Hypothesis, Score, best_reading, pool
from robpicker_jax.diagnosis.observation import Observation

_SEEN = 3.0  # smallest score that says: there is something at the picks
_SURE_SIGN = 5.0
_ENOUGH = 20


def hypothesis_table(observations: Sequence[Observation]) -> list[dict[str, Any]]:
    """Score of every reading over all tomograms, best first."""
    pooled = pool([o.measures.scores for o in observations if o.measures])
    rows = [{"hypothesis": name, "score": score.z, "inside": score.inside} for name, score in pooled.items()]
    return sorted(rows, key=lambda row: -abs(float(str(row["score"]))))


def check_coordinates(
    observations: Sequence[Observation],
    hypotheses: Sequence[Hypothesis],
    voxel_size_angstrom: float | None,
    *,
    drop_outside: bool = False,
) -> list[Finding]:
    """Positions outside, and readings of the coordinates that fit the density better than the files as they are.

    Positions outside are an error, or with `drop_outside` a warning, since training leaves them out then.
    """
    findings = []
    explained: dict[str, list[Observation]] = {}
    for observation in observations:
        if observation.measures and observation.measures.reading:
            explained.setdefault(observation.measures.reading.name, []).append(observation)
    by_name = {hypothesis.name: hypothesis for hypothesis in hypotheses}
    if not explained:  # each alone may have too few particles to tell
        measured = [o for o in observations if o.measures and o.measures.scores]
        together = best_reading(pool([o.measures.scores for o in measured if o.measures]), hypotheses)
        if together is not None:
            explained[together.name] = measured
    for name, concerned in explained.items():
        findings.append(_misread(by_name[name], concerned))
    known = {o.name for concerned in explained.values() for o in concerned}
    for observation in observations:
        if observation.name not in known:
            findings += _outside(observation, voxel_size_angstrom, "warning" if drop_outside else "error")
    return findings


def _misread(hypothesis: Hypothesis, concerned: Sequence[Observation]) -> Finding:
    pooled = pool([o.measures.scores for o in concerned if o.measures])
    best, given = pooled[hypothesis.name], pooled[AS_IS]
    where = tuple(o.name for o in concerned)
    return Finding(
        "error",
        hypothesis.code,
        f"the coordinates of {names(where)} fit the density when read as: {hypothesis.name} "
        f"(score {abs(best.z):.1f}, as they are {abs(given.z):.1f})",
        hypothesis.fix,
        where,
        {
            "reading": hypothesis.name,
            "score": best.z,
            "score_as_they_are": given.z,
            "inside": best.inside,
            "inside_as_they_are": given.inside,
            "scores": {o.name: _scores(o.measures.scores) for o in concerned if o.measures},
        },
    )


def _scores(scores: Any) -> dict[str, float]:
    ranked: list[tuple[str, Score]] = sorted(scores.items(), key=lambda item: -abs(item[1].z))
    return {name: round(score.z, 2) for name, score in ranked[:8]}


def _outside(observation: Observation, voxel_size: float | None, severity: Severity) -> list[Finding]:
    particles, header = observation.particles, observation.header
    if particles is None or header is None:
        return []
    ok = inside(particles.positions_vox, header.shape_zyx)
    if ok.all():
        return []
    n = int(np.count_nonzero(~ok))
    first = particles.positions_vox[np.flatnonzero(~ok)[0]]
    depth, height, width = header.shape_zyx
    fix = likely_reason(particles.positions_vox, header.shape_zyx, voxel_size)
    return [
        Finding(
            severity,
            "outside",
            f"{observation.name}: {n} of {len(ok)} positions lie outside the volume of {width} x {height} x {depth} voxels",
            fix or "remove them or correct the file",
            (observation.name,),
            {"outside": n, "of": len(ok), "first_xyz": first, "shape_zyx": header.shape_zyx},
        )
    ]


def check_density(observations: Sequence[Observation]) -> list[Finding]:
    """Something to be seen at the picks, of the same sign in all tomograms, inside the masks."""
    findings = []
    signs: dict[str, float] = {}
    blind: dict[str, float] = {}
    for observation in observations:
        measures = observation.measures
        if measures is None or not measures.scores:
            continue
        score = measures.scores[measures.reading.name if measures.reading else AS_IS]
        if abs(score.z) >= _SURE_SIGN:
            signs[observation.name] = score.z
        elif abs(score.z) < _SEEN and score.n >= _ENOUGH:
            blind[observation.name] = score.z
        if measures.outside_mask and observation.particles is not None:
            share = measures.outside_mask / len(observation.particles)
            findings.append(
                Finding(
                    "warning",
                    "outside_mask",
                    f"{observation.name}: {measures.outside_mask} of {len(observation.particles)} particles lie outside "
                    "the mask of the sample",
                    "check that the mask is 1 in the sample and belongs to this tomogram, or remove the particles",
                    (observation.name,),
                    {"outside_mask": measures.outside_mask, "share": share},
                )
            )
    if blind:
        where = tuple(blind)
        findings.append(
            Finding(
                "warning",
                "no_density",
                f"at the picks of {names(where)} the density is as at random positions",
                "check that the list belongs to this volume; if so, the particles may be too faint for this test",
                where,
                {"score": blind},
            )
        )
    return findings + _signs(signs)


def _signs(signs: dict[str, float]) -> list[Finding]:
    dark = [name for name, z in signs.items() if z < 0]
    bright = [name for name, z in signs.items() if z > 0]
    if dark and bright:
        fewer, kind = (bright, "bright") if len(bright) <= len(dark) else (dark, "dark")
        return [
            Finding(
                "error",
                "contrast_differs",
                f"particles are {kind} in {names(fewer)}, and the other way round in the others",
                "multiply these volumes by -1",
                tuple(fewer),
                {"score": signs},
            )
        ]
    if not signs:
        return []
    kind = "dark" if dark else "bright"
    what = f"particles are {kind}er than their surroundings in all {len(signs)} tomograms where they can be seen"
    fix = "nothing to do; set data.invert_contrast only to use a model trained on the opposite sign"
    return [Finding("info", "contrast", what, fix, (), {"score": signs})]
