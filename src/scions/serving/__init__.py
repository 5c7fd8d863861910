"""All adapters of one base behind an HTTP API: what OpenAI's clients speak, with an adapter for every row."""

from __future__ import annotations

from scions.encoder.base_info import BaseInfo, Weights
from scions.serving.http.keys import Keys
from scions.serving.protocols import AdapterReader, RowBatchEncoder
from scions.serving.server import build, check_host, check_installed, listen, run
from scions.serving.settings import Settings

__all__ = [
    "AdapterReader",
    "BaseInfo",
    "Keys",
    "RowBatchEncoder",
    "Settings",
    "Weights",
    "build",
    "check_host",
    "check_installed",
    "listen",
    "run",
]
