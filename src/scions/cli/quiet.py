"""Silence other libraries' progress bars, reports and warnings."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from importlib import import_module
from typing import Any

DEBUG_VARIABLE = "SCIONS_DEBUG"

# Read by the libraries on import.
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
}
_LOGGERS = ("sentence_transformers", "transformers", "datasets", "peft", "accelerate", "huggingface_hub", "matplotlib")


def debugging() -> bool:
    """Whether SCIONS_DEBUG is set."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def silence() -> None:
    """Silence other libraries, unless SCIONS_DEBUG is set."""
    for stream in (sys.stdout, sys.stderr):
        # Texts may hold characters that the terminal's encoding lacks.
        reconfigure: Any = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    if debugging():
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    silence_loaded()


def silence_loaded() -> None:
    """Silence libraries that are imported already and no longer read the environment."""
    for library in {"transformers", "datasets"} & set(sys.modules):
        library_logging = import_module(f"{library}.utils.logging")
        library_logging.disable_progress_bar()
        library_logging.set_verbosity_error()
