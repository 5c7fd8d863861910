"""Serve all adapters of one base over HTTP: OpenAI's embeddings API, with an adapter for every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scions.deprecation import renamed_names

if TYPE_CHECKING:
    from scions.encoder.base_info import BaseInfo, Weights
    from scions.serving.adapter_cache import AdapterReader
    from scions.serving.http.keys import Keys
    from scions.serving.server import build, check_host, check_installed, listen, run
    from scions.serving.settings import Settings
    from scions.serving.workers import RowBatchEncoder

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

# Imported on first use, so that `check_installed` runs where packages of the extra ``serve`` are missing.
_LAZY = {
    "AdapterReader": "scions.serving.adapter_cache",
    "BaseInfo": "scions.encoder.base_info",
    "Keys": "scions.serving.http.keys",
    "RowBatchEncoder": "scions.serving.workers",
    "Settings": "scions.serving.settings",
    "Weights": "scions.encoder.base_info",
    **dict.fromkeys(("build", "check_host", "check_installed", "listen", "run"), "scions.serving.server"),
}

__getattr__ = renamed_names(
    __name__,
    _LAZY,
    Encoder="scions.serving.RowBatchEncoder",
    Reader="scions.serving.AdapterReader",
    Stock="scions.serving.BaseInfo",
)
