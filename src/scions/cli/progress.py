"""Progress bars and spinners, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from scions.cli.render import duration, errors

if TYPE_CHECKING:
    from typing_extensions import Self

_PRINT_SECONDS = 30.0  # between lines where stderr is no terminal


@contextmanager
def status(what: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner beside ``what`` where stderr is a terminal; call what it yields to replace the text."""
    with errors().status(Text(what)) as spinner:
        yield lambda text: spinner.update(Text(text))


class _Bar:
    """A bar that appears with its first figures; without a terminal, a line every 30 seconds."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields
        self._progress: Progress | None = None
        self._task: Any = None
        self._printed = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, what: str, done: int, total: int, **values: Any) -> None:
        """Show ``done`` of ``total`` with ``values`` of the bar's fields."""
        console = errors()
        if not console.is_terminal:
            now = time.monotonic()
            if now - self._printed > _PRINT_SECONDS or done == total:
                self._printed = now
                line = ", ".join(value for value in values.values() if value)
                console.print(Text(f"  {what} {done}/{total}{', ' + line if line else ''}"), soft_wrap=True)
            return
        if self._progress is None:
            fields = [TextColumn(f"{{task.fields[{name}]}}") for name in self.fields]
            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *fields]
            self._progress = Progress(*columns, console=console)
            self._progress.start()
            empty: dict[str, Any] = dict.fromkeys(self.fields, "")
            self._task = self._progress.add_task(what, total=total, **empty)
        self._progress.update(self._task, completed=done, **values)

    def close(self) -> None:
        """Stop the bar; it stays on screen."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._printed = None, 0.0


class TrainingBar(_Bar):
    """Show loss, speed and time left of a training."""

    def __init__(self) -> None:
        super().__init__("loss", "speed", "left")

    def update(self, step: Any) -> None:
        """Show a `scions.training.Step`."""
        self.show(
            "training",
            step.step,
            step.steps,
            loss=f"loss {step.loss:.3f}",
            speed=f"{step.rows_per_second:.0f} rows/s",
            left=f"{duration(step.seconds_left)} left",
        )


class RowsBar(_Bar):
    """Show rows done, speed and time left."""

    def __init__(self, what: str = "embedding") -> None:
        super().__init__("speed", "left")
        self._what = what
        self._first: tuple[float, int] | None = None

    def update(self, done: int, rows: int) -> None:
        """Show ``done`` of ``rows``; speed is measured from the first call on."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
        start, first = self._first
        speed = (done - first) / max(now - start, 1e-9)
        fields = {"speed": f"{speed:.0f} rows/s", "left": f"{duration((rows - done) / speed)} left"} if speed else {}
        self.show(self._what, done, rows, **fields)
