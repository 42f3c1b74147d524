"""Made-up runs to report on, and a parser for the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.evaluation import EvaluationOptions, evaluate
from robpicker_jax.reporting import (
    ClassWeights,
    Comparison,
    LabelExample,
    ReportData,
    SpeciesInfo,
    TomogramView,
    write_report,
)

SPECIES = (("ribosome", 7.0, 3200.0), ("proteasome", 5.5, 1700.0), ("apoferritin", 3.5, 480.0), ("HSP60", 4.0, 840.0))
HOSTILE = "</script><img src=x onerror=alert(1)>&\"'$\\alpha$_{"


def make_tomogram(
    name: str = "tomo_0003",
    *,
    shape: tuple[int, int, int] = (32, 96, 112),
    per_class: int = 12,
    species: Any = SPECIES,
    seed: int = 0,
) -> TomogramView:
    """Dark balls in noise; most of them picked, some missed, some picks false."""
    rng = np.random.default_rng(seed)
    density = rng.normal(size=shape).astype(np.float32)
    density = gaussian_filter(density, 1.0) * 3
    positions, labels = [], []
    taken: list[tuple[np.ndarray, float]] = []
    for label, (_, radius, _) in enumerate(species, start=1):
        placed = 0
        for _ in range(per_class * 60):
            margin = min(radius, min(shape) / 2 - 1)
            xyz = rng.uniform(margin, np.array(shape[::-1]) - 1 - margin)
            if all(np.linalg.norm(xyz - other) > radius + r + 0.5 for other, r in taken):
                taken.append((xyz, radius))
                positions.append(xyz)
                labels.append(label)
                placed += 1
            if placed == per_class:
                break
    for (x, y, z), label in zip(positions, labels, strict=True):
        radius = species[label - 1][1]
        reach = int(radius) + 3
        box = tuple(
            slice(max(0, int(c) - reach), min(n, int(c) + reach + 1)) for c, n in zip((z, y, x), shape, strict=True)
        )
        zz, yy, xx = np.ogrid[box]
        distance = np.sqrt((zz - z) ** 2 + (yy - y) ** 2 + (xx - x) ** 2)
        density[box] -= 1.8 / (1 + np.exp((distance - radius) * 2)) * (0.6 + 0.4 * np.sin(distance * 1.6))
    truth = Particles(np.array(positions), np.array(labels))
    kept = rng.random(len(truth)) < 0.8
    picked = truth.positions_vox[kept] + rng.normal(scale=0.6, size=(kept.sum(), 3))
    false = rng.uniform(4, np.array(shape[::-1]) - 5, size=(len(truth) // 6, 3))
    picks = Particles(
        np.concatenate([picked, false]),
        np.concatenate([truth.labels[kept], rng.integers(1, len(species) + 1, len(false))]),
        scores=np.concatenate([rng.uniform(0.55, 0.99, len(picked)), rng.uniform(0.3, 0.7, len(false))]),
    )
    return TomogramView(name, density, truth, picks, voxel_size_angstrom=10.0)


def make_history(species: Any = SPECIES, *, offset: float = 0.0, meta: bool = True, steps: int = 1000) -> list[dict]:
    rng = np.random.default_rng(1)
    rows: list[dict] = []
    for step in range(10, steps + 1, 10):
        progress = 1 - np.exp(-step / 300)
        row = {
            "step": step,
            "kind": "train",
            "inner_loss": 0.85 - 0.5 * progress + 0.04 * rng.normal(),
            "outer_loss": 0.82 - 0.55 * progress + 0.05 * rng.normal(),
            "patches_per_second": 11.0 + rng.normal(),
        }
        if meta:
            row |= {
                "alpha_mean": 0.1 + 0.3 * progress,
                "changed_share": 0.04 * progress,
                "hypergradient_norm": float(np.exp(-3 - 2 * progress + 0.3 * rng.normal())),
                "own_loss": 0.6 - 0.4 * progress + 0.03 * rng.normal(),
                "own_restored": 0.9 * progress,
                "own_spoiled": 0.004,
                "label_gained/background": 40 * progress,
                "label_lost/background": 300 * progress,
            }
            for name, radius, _ in species:
                row[f"label_mass/{name}"] = radius**3 * (1 + 0.3 * rng.normal())
                row[f"label_gained/{name}"] = progress * radius**3 * rng.uniform(0.2, 0.6)
                row[f"label_lost/{name}"] = progress * radius**2 * rng.uniform(0.0, 0.4)
                row[f"weight_mean/{name}"] = 0.5 + progress * (0.35 - 0.05 * radius) + 0.01 * rng.normal()
                row[f"weight_std/{name}"] = 0.04
        rows.append(row)
        if step % 100 == 0:
            f1 = {f"f1/{s[0]}": float(np.clip((0.95 - 0.25 / s[1] - offset) * progress, 0, 1)) for s in species}
            found = {"macro_f1": float(np.mean(list(f1.values()))), **f1}
            if meta:
                held = {f"held_out_loss/{s[0]}": 0.9 - 0.5 * progress - 0.02 * s[1] for s in species}
                found |= {"held_out_loss": float(np.mean(list(held.values()))), **held}
                quality = {"error_before": 0.03, "error_after": 0.03 - 0.012 * progress, "recall": 0.6 * progress}
                quality |= {"precision": None if step == 100 else 0.9, "recovered": 0.95 * progress}
                found |= {f"correction/{key}": value for key, value in quality.items()}
            rows.append({"step": step, "kind": "validation", **found})
    return rows


def make_evaluation(views: Sequence[TomogramView], species: Any = SPECIES, *, dropped: float = 0.0) -> dict[str, Any]:
    """The metrics of the views' own picks, as evaluation.json holds them, with a share of the picks dropped."""
    rng = np.random.default_rng(5)
    return evaluate(
        {view.name: view.truth for view in views if view.truth is not None},
        {view.name: view.picks.select(rng.random(len(view.picks)) >= dropped) for view in views},
        EvaluationOptions(
            class_names=[name for name, *_ in species],
            radii_vox=[radius for _, radius, _ in species],
            molecular_weights_kda=[kda for *_, kda in species],
            voxel_size_angstrom=10.0,
        ),
    ).as_dict()


def make_example(name: str, seed: int, *, soft: bool = True, n_species: int = len(SPECIES)) -> LabelExample:
    rng = np.random.default_rng(seed)
    size = 48
    yy, xx = np.ogrid[:size, :size]
    true, noisy = np.zeros((size, size), int), np.zeros((size, size), int)
    for index in range(6):
        y, x = rng.uniform(6, size - 6, 2)
        label, radius = 1 + index % n_species, rng.uniform(3.5, 6.5)
        ball = (yy - y) ** 2 + (xx - x) ** 2 <= radius**2
        true[ball & (((yy - y) * 0.9) ** 2 + (xx - x) ** 2 * 1.4 <= radius**2)] = label
        if index % 3:
            noisy[ball] = label
    noisy[40:45, 4:10] = 1  # a false particle, which the correction takes away
    image = gaussian_filter(rng.normal(size=(size, size)), 1) * 2 - gaussian_filter((true > 0) * 1.0, 1)
    soft_true = gaussian_filter(np.eye(n_species + 1)[true], (1.2, 1.2, 0))
    probabilities = 0.55 * soft_true + 0.45 * np.eye(n_species + 1)[noisy]
    probabilities[40:45, 4:10] = np.eye(n_species + 1)[0]
    return LabelExample(
        name,
        image,
        noisy,
        probabilities.argmax(-1),
        true,
        confidence=probabilities.max(-1),
        probabilities=probabilities if soft else None,
    )


def make_data(species: Any = SPECIES, *, tomograms: int = 2, **changes: Any) -> ReportData:
    rng = np.random.default_rng(2)
    views = [make_tomogram(f"tomo_{i:04d}", seed=i, species=species) for i in range(tomograms)]
    weights = [(n, kda, 1 / (1 + np.exp(rng.normal(kda / 2000 - 1, 0.3, 60))), "kDa") for n, _, kda in species]
    data = ReportData(
        title="Quickstart, simulated data",
        config_yaml="train:\n  variant: robpicker\n  steps: 1000\n",
        versions={"robpicker_jax": "0.1.0", "jax": "0.10.2", "python": "3.11.2", "devices": ["cpu"], "scipy": None},
        machine="2-core test machine",
        species=[SpeciesInfo(*s) for s in species],
        history=make_history(species),
        evaluation=make_evaluation(views, species),
        tomograms=views,
        label_examples=[
            make_example("train_000\nz 31, y 52, x 117", 3, n_species=len(species)),
            make_example("train_002\nz 20, y 40, x 16", 4, soft=False, n_species=len(species)),
        ],
        weights=[ClassWeights(*row) for row in weights],
        comparison=Comparison(
            "supervised", make_evaluation(views, species, dropped=0.25), make_history(species, offset=0.15, meta=False)
        ),
    )
    return dataclasses.replace(data, **changes)


def page_text(data: ReportData, out: Path) -> str:
    return write_report(data, out).read_text(encoding="utf-8")


class Page(HTMLParser):
    """A parsed page: every element closed, elements and attributes listed, the text of scripts kept apart."""

    VOID = frozenset({"meta", "img", "input", "br", "hr", "link", "base", "embed", "source"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside != "style":
            (self.scripts if inside == "script" else self.texts).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]
