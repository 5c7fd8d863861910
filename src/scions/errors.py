"""The errors Scions raises on purpose: each message says what was found and what would be right."""

from __future__ import annotations


class ScionsError(Exception):
    """Base of every error raised on purpose; its text is meant for the person who called."""


class UsageError(ScionsError):
    """An argument or a combination of arguments that cannot be served (command line: exit code 2)."""


class DataError(ScionsError):
    """A user's file cannot be read as what it was said to be; names file and line, or row."""


class AdapterError(ScionsError):
    """An adapter's folder, name or weights do not fit; names the adapter and, where it matters, the base."""


class Interrupted(ScionsError):
    """Stopped by Ctrl-C with what was done kept; the message says how to go on (command line: exit code 130)."""
