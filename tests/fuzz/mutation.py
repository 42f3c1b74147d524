"""Mutations of files: what copying, editing and broken programs do to them, and what a hostile hand might."""

from __future__ import annotations

import re
from random import Random

NUMBERS = [b"0", b"-1", b"1", b"nan", b"inf", b"-inf", b"1e308", b"-1e400", b"1e-320", b"99999999999999999999"]
NUMBERS += [b"2147483648", b"0.5", b"1_000", "１２".encode(), b"", b"x", b"-", b"0x1p3", b"true", b"null", b"1,5"]
TOKENS = [b"\x00", b"\xff\xfe", b"\n", b"\r", b"\t", b'"', b"'", b"\x1b[31m", b"[/red]", b"{}", b"[]", b"<", b"&x;"]
TOKENS += [b"\xe2\x80\xa8", b"loop_", b"data_", b"#", b";", b",", b"..", b"/", b"~nouser", b"!!int x", b"&a [*a]"]
TOKENS += ["é".encode(), "\ud800".encode("utf-8", "surrogatepass")]
_NUMBER = re.compile(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]\w*")


def mutated(content: bytes, rng: Random) -> bytes:
    """The content after one to four mutations."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        content = rng.choice(_MUTATIONS)(content, rng)
    return content


def _flip_a_bit(content: bytes, rng: Random) -> bytes:
    if not content:
        return content
    at = _somewhere(content, rng)
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def _other_bytes(content: bytes, rng: Random) -> bytes:
    at, n = _somewhere(content, rng), rng.choice((1, 2, 4, 8))
    new = rng.choice((b"\x00" * n, b"\xff" * n, rng.randbytes(n), b"\x7f" + b"\xff" * (n - 1)))
    return content[:at] + new + content[at + n :]


def _truncated(content: bytes, rng: Random) -> bytes:
    return content[: _somewhere(content, rng)]


def _cut_out(content: bytes, rng: Random) -> bytes:
    at = _somewhere(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 5, 20, 200)) :]


def _repeated(content: bytes, rng: Random) -> bytes:
    at, n = _somewhere(content, rng), rng.choice((1, 5, 20, 200))
    return content[:at] + content[at : at + n] * rng.choice((2, 3, 50)) + content[at + n :]


def _another_number(content: bytes, rng: Random) -> bytes:
    return _replaced(content, _NUMBER, rng.choice(NUMBERS), rng)


def _another_word(content: bytes, rng: Random) -> bytes:
    words = _WORD.findall(content[:10_000])
    return _replaced(content, _WORD, rng.choice(words) if words else b"x", rng)


def _inserted(content: bytes, rng: Random) -> bytes:
    at = _somewhere(content, rng)
    return content[:at] + rng.choice(TOKENS) + content[at:]


def _lines_moved(content: bytes, rng: Random) -> bytes:
    lines = content.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    if rng.random() < 0.5:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines[first] = lines[second]
    return b"\n".join(lines)


_MUTATIONS = (
    _flip_a_bit,
    _other_bytes,
    _truncated,
    _cut_out,
    _repeated,
    _another_number,
    _another_number,
    _another_word,
    _inserted,
    _lines_moved,
)


def _somewhere(content: bytes, rng: Random) -> int:
    """A position; every other time in the first 300 bytes, where headers lie."""
    end = len(content) if rng.random() < 0.5 else min(len(content), 300)
    return rng.randrange(max(end, 1))


def _replaced(content: bytes, pattern: re.Pattern[bytes], new: bytes, rng: Random) -> bytes:
    places = [match.span() for match in pattern.finditer(content[:20_000])]
    if not places:
        return content
    first, last = rng.choice(places)
    return content[:first] + new + content[last:]
