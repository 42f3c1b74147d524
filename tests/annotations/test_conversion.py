"""Round trips through every format and every pair of formats, and readers against mutated files."""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import re
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations import FORMATS, Particles, read_annotations, write_annotations
from robpicker_jax.annotations.geometry import random_rotations, rotation_angle_deg
from robpicker_jax.system.errors import InputError
from tests.annotations.strategies import WRITABLE
from tests.annotations.strategies import particles as particle_lists

VOXEL_SIZE = 7.84
SHAPE = (200, 512, 512)
CLASS_LABELS = {"ribosome": 1, "proteasome": 2, "apoferritin": 3}
NAMES = np.array(["", *CLASS_LABELS])
CONTEXT = {"voxel_size_angstrom": VOXEL_SIZE, "shape_zyx": SHAPE}
SINGLE_PRECISION = {"em", "imod"}
# Tables round to 6 decimals, in the unit they are in.
DECIMALS = {"star": 1e-6, "warp": 1e-6, "relion5": 1e-6, "stopgap": 1e-6, "dynamo": 1e-6, "cbox": 1e-6}


def file_of(folder: Path, name: str, stem: str = "particles") -> Path:
    return folder / stem if name == "copick" else folder / f"{stem}{FORMATS[name].suffixes[0]}"


def write(path: Path, particles: Particles, fmt: str) -> None:
    write_annotations(path, particles, fmt=fmt, **CONTEXT)


def read(path: Path, fmt: str) -> Particles:
    return read_annotations(path, fmt=fmt, class_labels=CLASS_LABELS, **CONTEXT)


def tolerance(fmt: str, positions: np.ndarray) -> float:
    return np.abs(positions).max(initial=1.0) * 2e-7 + 1e-9 if fmt in SINGLE_PRECISION else DECIMALS.get(fmt, 1e-9)


def ordered(particles: Particles) -> Particles:
    """By coordinates: copick, IMOD and BILD group particles by class or tomogram."""
    return particles.select(np.lexsort(np.round(particles.positions_vox, 2).T))


def spread(n: int, seed: int) -> Particles:
    """Particles further apart than any format's precision, with every column."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.unravel_index(rng.choice(20**3, n, replace=False), (20, 20, 20)), axis=1) * 9.0
    labels = rng.integers(1, 4, n)
    return Particles(
        grid + rng.uniform(0, 1, (n, 3)),
        labels,
        rotations=random_rotations(n, rng),
        scores=rng.random(n),
        cluster_sizes=rng.integers(1, 900, n),
        class_names=NAMES[labels],
        tomograms=rng.choice(np.array(["1", "2", "31"]), n),
        extra={"lamella": rng.integers(0, 9, n)},
    )


def check(back: Particles, particles: Particles, keeps: frozenset[str], distance: float) -> None:
    assert len(back) == len(particles)
    np.testing.assert_allclose(back.positions_vox, particles.positions_vox, atol=distance)
    if keeps & {"labels", "class_names"}:
        np.testing.assert_array_equal(back.labels, particles.labels)
    if "class_names" in keeps:
        np.testing.assert_array_equal(back.class_names, particles.class_names)
    if "rotations" in keeps:
        assert rotation_angle_deg(back.rotations, particles.rotations).max(initial=0) < 1e-3
    if "scores" in keeps:
        np.testing.assert_allclose(back.scores, particles.scores, atol=1e-6)
    for column in ("cluster_sizes", "tomograms"):
        if column in keeps:
            np.testing.assert_array_equal(getattr(back, column), getattr(particles, column))
    if "extra" in keeps:
        np.testing.assert_array_equal(back.extra["lamella"], particles.extra["lamella"])


@pytest.mark.parametrize("fmt", WRITABLE)
def test_round_trip_keeps_what_the_format_says(fmt: str, tmp_path: Path) -> None:
    for seed, n in enumerate((1, 2, 30)):
        particles = spread(n, seed)
        path = file_of(tmp_path, fmt, f"p{seed}")
        write(path, particles, fmt)
        check(ordered(read(path, fmt)), ordered(particles), FORMATS[fmt].keeps, tolerance(fmt, particles.positions_vox))


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(WRITABLE, 2)))
def test_conversion_between_all_pairs(first: str, second: str, tmp_path: Path) -> None:
    particles = spread(12, 7)
    write(file_of(tmp_path, first, "a"), particles, first)
    write(file_of(tmp_path, second, "b"), read(file_of(tmp_path, first, "a"), first), second)
    back = ordered(read(file_of(tmp_path, second, "b"), second))
    keeps = FORMATS[first].keeps & FORMATS[second].keeps
    distance = tolerance(first, particles.positions_vox) + tolerance(second, particles.positions_vox)
    check(back, ordered(particles), keeps, distance)


@pytest.mark.parametrize("fmt", WRITABLE)
@given(particles=particle_lists())
@settings(max_examples=15, deadline=None)
def test_any_particles_can_be_written_and_read(
    fmt: str, particles: Particles, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    write(file_of(folder, fmt), particles, fmt)
    back = read(file_of(folder, fmt), fmt)
    assert len(back) == len(particles)
    far = max(tolerance(fmt, particles.positions_vox), 1e-9 * np.abs(particles.positions_vox).max(initial=0))
    np.testing.assert_allclose(
        np.sort(back.positions_vox, axis=0), np.sort(particles.positions_vox, axis=0), atol=far, rtol=1e-9
    )


@pytest.mark.parametrize("fmt", WRITABLE)
def test_no_particles_can_be_written_and_read(fmt: str, tmp_path: Path) -> None:
    path = file_of(tmp_path, fmt)
    write(path, Particles.empty(), fmt)
    assert len(read_annotations(path, fmt=fmt, allow_empty=True, **CONTEXT)) == 0


@given(st.lists(st.text(min_size=0, max_size=8), min_size=2, max_size=2), st.sampled_from(["xml", "star", "csv"]))
@settings(max_examples=90, deadline=None)
def test_any_text_survives_or_is_made_plain(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], fmt: str
) -> None:
    particles = Particles([[1, 2, 3], [4, 5, 6]], [1, 2], tomograms=np.array(names, np.str_))
    path = tmp_path_factory.mktemp("text") / f"a{FORMATS[fmt].suffixes[0]}"
    try:
        write_annotations(path, particles, fmt=fmt)
    except UnicodeEncodeError:
        return  # lone surrogates are no text
    back = read_annotations(path, fmt=fmt)
    np.testing.assert_array_equal(back.positions_vox, particles.positions_vox)
    assert back.labels.tolist() == [1, 2]


def mutations(content: bytes, rng: random.Random) -> bytes:
    """One to four edits: bytes changed, removed, repeated, swapped in from elsewhere, or cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 8, 64])
        kind = rng.randrange(6)
        if kind == 0:
            data[at : at + n] = bytes(rng.randrange(256) for _ in range(n))
        elif kind == 1:
            del data[at : at + n]
        elif kind == 2:
            data[at:at] = data[at : at + n] * rng.choice([1, 2, 50])
        elif kind == 3:
            other = rng.randrange(len(data) + 1)
            data[at : at + n] = data[other : other + n]
        elif kind == 4:
            data[at : at + n] = rng.choice(
                [b"nan", b"-1", b"1e999", b'"', b"<", b"\n", b"\t,", b"{", b"9" * 400, b"\0"]
            )
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


def restart_peak() -> int:
    """Memory that the process holds, bytes; where the system can, its peak counts anew from here."""
    gc.collect()
    with contextlib.suppress(OSError):  # no Linux, or not allowed: the peak is then that of all tests so far
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Most memory held, bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_the_peak_of_memory_is_that_of_what_follows() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("peaks cannot be restarted here")
    np.ones(50 << 20, np.uint8).sum()
    before = restart_peak()
    assert peak() - before < 10 << 20
    np.ones(30 << 20, np.uint8).sum()
    assert 25 << 20 < peak() - before < 45 << 20


def fuzz(fmt: str, folder: Path, count: int) -> None:
    rng = random.Random(fmt)
    write(folder / "seed.json" if fmt == "copick" else file_of(folder, fmt, "seed"), _one_class(spread(6, 3)), fmt)
    (seed,) = folder.glob("seed*")
    content = seed.read_bytes()
    path = folder / f"mutated{seed.suffix}"
    accepted = 0
    resident = restart_peak()
    for _ in range(count):
        path.write_bytes(mutations(content, rng))
        try:
            particles = read_annotations(path, fmt=fmt, allow_empty=True, class_labels=CLASS_LABELS, **CONTEXT)
        except InputError:
            continue
        accepted += 1
        assert np.isfinite(particles.positions_vox).all()
        assert len(particles) <= 1000
    assert peak() - resident < 200 << 20
    assert 0 < accepted < count


def _one_class(particles: Particles) -> Particles:
    n = len(particles)
    return particles.with_(labels=np.ones(n, int), class_names=["ribosome"] * n, tomograms=["1"] * n)


@pytest.mark.parametrize("fmt", WRITABLE)
def test_mutated_files_raise_nothing_but_input_errors(fmt: str, tmp_path: Path) -> None:
    fuzz(fmt, tmp_path, 80)


@pytest.mark.slow
@pytest.mark.parametrize("fmt", WRITABLE)
def test_two_thousand_mutated_files(fmt: str, tmp_path: Path) -> None:
    fuzz(fmt, tmp_path, 2000)
