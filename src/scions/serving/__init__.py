"""All adapters of one base behind an HTTP API: what OpenAI's clients speak, with an adapter for every row."""

from __future__ import annotations

from scions.encoder.base_info import Stock, Weights
from scions.serving.http.keys import Keys
from scions.serving.protocols import Encoder, Reader
from scions.serving.server import build, check_host, check_installed, listen, run
from scions.serving.settings import Settings

__all__ = [
    "Encoder",
    "Keys",
    "Reader",
    "Settings",
    "Stock",
    "Weights",
    "build",
    "check_host",
    "check_installed",
    "listen",
    "run",
]
