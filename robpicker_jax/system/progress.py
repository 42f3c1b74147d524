"""Progress of long work: a rich bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.segment import Segment
from rich.text import Text

# U+2400 and what follows are pictures of the control characters; a line's end and a tab are what they are.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_VISIBLE |= {127: 0x2421} | dict.fromkeys(range(128, 160), 65533)


class PatientConsole(Console):
    """A console whose reader may go away (`robpicker … | head`): the work goes on, and what is left is not shown."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich renders it, but with control characters as signs: an escape in a name must not reach the terminal."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(segment.text.translate(_VISIBLE), segment.style)

    def on_broken_pipe(self) -> None:
        """Say once that nobody reads, and be quiet from then on; rich would end the process."""
        self.quiet = True
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, (sys.stderr if self.stderr else sys.stdout).fileno())
        except (OSError, ValueError):  # no real file, so nothing that could break again
            pass
        if not self.stderr:
            error_console.print("the output is not read any more; the work goes on", style="yellow", highlight=False)


# Names and paths are the user's: `[/red]` in them is no markup and `:star:` no picture, here and in every table.
console = PatientConsole(markup=False, emoji=False)
error_console = PatientConsole(stderr=True, markup=False, emoji=False)


def say(text: str) -> None:
    """Print a line as it is, however long."""
    console.print(text, highlight=False, soft_wrap=True)


class Progress:
    """Counts units of work and shows them with the time left; `fields` are shown as "name value" pairs.

    Args:
        description: what is being done.
        total: units in all.
        completed: units done before this start (a resumed run).
        every_s: seconds between plain lines, if there is no terminal.
    """

    def __init__(self, description: str, total: int, *, completed: int = 0, every_s: float = 15.0) -> None:
        self.description, self.total, self.completed = description, total, completed
        self._first, self._start, self._every_s = completed, time.monotonic(), every_s
        self._last = self._start
        self._text = ""
        self._bar: RichProgress | None = None

    def start(self) -> None:
        """Show the bar (terminals only)."""
        if console.is_terminal:
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}", markup=False),
                console=console,
            )
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.completed, text="")
            self._bar.start()

    def advance(self, n: int = 1, **fields: object) -> None:
        """Count `n` more units; `fields` replace the shown ones."""
        self.completed += n
        if fields:
            self._text = "  ".join(f"{name} {value}" for name, value in fields.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=self.completed, text=self._text)
            return
        now = time.monotonic()
        if now - self._last >= self._every_s or self.completed >= self.total:
            self._last = now
            rate = (now - self._start) / max(1, self.completed - self._first)
            left = clock(rate * (self.total - self.completed))
            console.print(
                f"{self.description}: {self.completed}/{self.total}, {left} left  {self._text}".rstrip(),
                highlight=False,
                soft_wrap=True,
            )

    def stop(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def progress(description: str, total: int, *, completed: int = 0) -> Iterator[Progress]:
    """Show progress while the block runs."""
    shown = Progress(description, total, completed=completed)
    shown.start()
    try:
        yield shown
    finally:
        shown.stop()


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """Show what is being done while the block runs (terminals only); yields what changes the text."""
    with console.status(Text(text)) as shown:
        yield lambda changed: shown.update(Text(changed))


def clock(seconds: float) -> str:
    """A duration as M:SS or H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
