"""Patches, tiles, the network and the number of steps: from the radii, the tomograms and this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robpicker_jax.config.derived import overlap_of_tiles, patch_edge
from robpicker_jax.config.picking_sections import fifth_of_sphere
from robpicker_jax.diagnosis.observation import Observation
from robpicker_jax.diagnosis.resources import available_gib, duration, estimate

_STRIDE = 16
_HOURS = 12.0
"""Longest training that is proposed, by the doctor's estimate."""

_MEMORY_SHARE = 0.6

# From the largest: of the configurations that ship, that of a real data set, one between, and the quickstart's.
_NETWORKS: tuple[dict[str, Any], ...] = (
    {
        "model": {"widths": [32, 64, 128, 256], "convs_per_block": 2, "bottleneck_convs": 2, "decoder_convs": 2,
                  "correction_widths": [16, 32, 48], "remat": True},
        "train": {"steps": 10000, "batch_size": 8, "rate": 5.0e-4, "every": 500},
    },
    {
        "model": {"widths": [16, 32, 64], "convs_per_block": 2, "bottleneck_convs": 2, "decoder_convs": 1,
                  "correction_widths": [8, 16, 24], "remat": False},
        "train": {"steps": 3000, "batch_size": 6, "rate": 2.0e-3, "every": 250},
    },
    {
        "model": {"widths": [8, 16, 24], "convs_per_block": 2, "bottleneck_convs": 1, "decoder_convs": 1,
                  "correction_widths": [8, 16, 24], "remat": False},
        "train": {"steps": 900, "batch_size": 6, "rate": 6.0e-3, "every": 150},
    },
)  # fmt: skip


def patches(
    radii_vox: Sequence[float], shapes_zyx: Sequence[Sequence[int]], *, supervised: bool = False
) -> dict[str, Any]:
    """The section `patches`: as the radii have it, and never more than the thinnest tomogram."""
    edge = patch_edge(max(radii_vox), min(min(shape) for shape in shapes_zyx) if shapes_zyx else None)
    return {"size": edge, "shift_vox": edge // 5} | ({} if supervised else {"meta_background_share": 0.3})


def inference(radii_vox: Sequence[float], size: int) -> dict[str, Any]:
    """The section `inference`: tiles of a patch or of 64 voxels, so that overlaps do not cost the most."""
    tile = max(64, size)
    return {"tile": tile, "overlap_vox": overlap_of_tiles(max(radii_vox), tile)}


def derived_remark(names: Sequence[str], radii_vox: Sequence[float]) -> str:
    """What the radii say of clusters and distances, in words."""
    clusters = ", ".join(f"{name} {fifth_of_sphere(radius)}" for name, radius in zip(names, radii_vox, strict=True))
    distances = ", ".join(f"{radius:.3g}" for radius in radii_vox)
    return f"smallest clusters {clusters} voxels; picks at least {distances} voxels apart"


def networks(radii_vox: Sequence[float], n_species: int, *, supervised: bool = False) -> list[dict[str, Any]]:
    """The sections `model` and `train` to choose from, the largest first.

    Args:
        radii_vox: of the species.
        n_species: how many there are.
        supervised: without meta networks, for data without meta tomograms.
    """
    found = []
    for entry in _NETWORKS:
        train = entry["train"]
        model = {"preset": "custom", **entry["model"], "alpha_bias": 0.0}
        inner: dict[str, Any] = {
            "name": "adam",
            "learning_rate": train["rate"],
            "schedule": "cosine",
            "warmup_steps": 20,
        }
        meta: dict[str, Any] = {
            "correction": {"name": "adam", "learning_rate": 5.0e-3, "b2": 0.99, "schedule": "cosine"},
            "reweighting": {"name": "adam", "learning_rate": 1.0e-3, "b2": 0.99, "schedule": "cosine"},
            "meta_warmup_steps": 0.33,
            "meta_share": 0.25,
            "fine_tune_steps": 0.1,
            "meta_class_entropy": 0.3,
            "corruption": corruption(radii_vox, n_species),
        }
        section: dict[str, Any] = {"variant": "supervised"} if supervised else {}
        section |= {"steps": train["steps"], "batch_size": train["batch_size"], "inner": inner}
        section |= {} if supervised else meta
        section |= {"validate_every": train["every"], "checkpoint_every": train["every"]}
        found.append({"model": model, "train": section})
    return found


def corruption(radii_vox: Sequence[float], n_species: int) -> dict[str, Any]:
    """How rough lists usually err; the user's own rates are better."""
    return {
        "missing": 0.3,
        "false_picks": 0.1,
        "swap": 0.05 if n_species > 1 else 0.0,
        "shifted": 1.0,
        "shift_vox": round(min(2.0, max(0.5, 0.15 * min(radii_vox))), 2),
        "untouched": 0.0,
    }


def fitting_network(
    choices: Sequence[Mapping[str, Any]], build: Any, observations: Sequence[Observation]
) -> tuple[Mapping[str, Any], str]:
    """The largest choice that this machine trains in its memory and in twelve hours, and the estimate in words.

    Args:
        choices: sections, the largest network first.
        build: sections → `Config`.
        observations: the tomograms.
    """
    have = available_gib()
    for choice in choices:
        needs = estimate(observations, build(choice))
        total = needs.step_gib + (needs.data_gib if "cpu" in needs.device.lower() else 0.0)
        fits = have is None or total <= _MEMORY_SHARE * have
        if (fits and needs.train_hours <= _HOURS) or choice is choices[-1]:
            break
    memory = "" if have is None else f" of {have:.0f} GiB"
    text = (
        f"on this machine ({needs.device}) about {total:.2g} GiB{memory}, and {duration(needs.train_hours * 3600)} for all "
        f"steps; one tomogram about {duration(needs.tomogram_minutes * 60)}; within a factor of 3"
    )
    return choice, text
