"""Exceptions of Scions; each message says what was found and what would be right."""

from __future__ import annotations


class ScionsError(Exception):
    """Base of all errors that Scions raises deliberately; the text is meant for users."""


class UsageError(ScionsError):
    """An invalid argument or combination of arguments (command line: exit code 2)."""


class DataError(ScionsError):
    """A data file that cannot be read or does not fit; names file and line, or row."""


class AdapterError(ScionsError):
    """An adapter's folder, name or weights that do not fit; names the adapter and, where it matters, the base."""


class Interrupted(ScionsError):
    """Stopped by Ctrl-C with finished work saved; the message says how to resume (command line: exit code 130)."""
