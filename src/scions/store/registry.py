"""List, find and read the adapters in a folder."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.errors import AdapterError, ScionsError
from scions.store.base import weight_files
from scions.store.fingerprint import state_fingerprint
from scions.store.manifest import Manifest
from scions.store.names import CONFIG_FILE, MANIFEST_FILE, MODULES_FILE, check_name
from scions.store.tensor_check import read_header
from scions.store.weights import check_weights, find_weights_file, read_weights

if TYPE_CHECKING:
    from torch import Tensor

ROOT_VARIABLE = "SCIONS_ADAPTERS"


@dataclass(frozen=True)
class AdapterEntry:
    """One folder of the registry; `problem` says why Scions cannot read it, None where it can."""

    name: str
    path: Path
    manifest: Manifest | None = None
    problem: str | None = None


@dataclass(frozen=True)
class PublishedAdapter:
    """An adapter read from its folder: ``config`` is PEFT's, ``tensors`` are by the names of its file."""

    name: str
    folder: Path
    config: dict[str, Any]
    manifest: Manifest
    tensors: dict[str, Tensor] = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """`adapter_fingerprint` of what was read: the folder may be published anew at any moment."""
        return state_fingerprint(self.tensors)


def default_root() -> Path:
    """Return the folder of adapters: the environment's SCIONS_ADAPTERS, else `adapters` in the working folder."""
    return Path(os.environ.get(ROOT_VARIABLE) or "adapters").expanduser()


def list_adapters(root: str | Path | None = None) -> list[AdapterEntry]:
    """Return the folders under `root` (default: `default_root()`) by name; none if `root` does not exist.

    A broken one is listed with its problem. Hidden folders, which include staging folders, are left out. The header
    and size of weights are checked, their values are not read.

    Raises:
        AdapterError: `root` is a file or cannot be read.
    """
    place = default_root() if root is None else Path(root)
    try:
        folders = sorted(entry.name for entry in os.scandir(place) if entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AdapterError(f"{place}: cannot be read as a folder of adapters: {error.strerror}") from error
    return [_entry(place / name) for name in folders if not name.startswith(".")]


def find_adapter(name_or_path: str | Path, root: str | Path | None = None) -> Path:
    """Return the folder of an adapter given by its name under `root`, or by its path.

    A path may lead anywhere: check untrusted input with `check_name` first.

    Raises:
        AdapterError: there is none; lists close names and all names under `root`.
    """
    place = default_root() if root is None else Path(root)
    text = os.fspath(name_or_path)
    if not text:
        raise AdapterError("no adapter was named: the name is empty")
    path = Path(text).expanduser()
    is_name = path.name == text and not text.startswith(".")
    if is_name and (place / text).is_dir():
        return place / text
    if path.is_dir() and ((path / CONFIG_FILE).is_file() or not is_name):
        return path
    names = [entry.name for entry in list_adapters(place)]
    close = difflib.get_close_matches(path.name, names, n=3)
    meant = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
    have = f"{place} holds {', '.join(names)}." if names else f"{place} holds no adapters."
    raise AdapterError(f"no adapter {text!r}.{meant} {have}")


def read_adapter(
    path: str | Path, base_sha256: str | None = None, *, base_name: str | None = None
) -> tuple[dict[str, Any], Manifest, dict[str, Tensor]]:
    """Read an adapter's folder: PEFT's configuration, the manifest and the tensors (see `read_weights`).

    Args:
        path: the folder.
        base_sha256: `base_fingerprint` of the base it is to be loaded onto; None skips the comparison.
        base_name: that base's name in a message.

    Raises:
        AdapterError: a part is missing or damaged, or it was trained on another base (both are named).
    """
    folder = Path(path)
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such folder")
    config = read_config(folder)
    if not (folder / MANIFEST_FILE).is_file():
        raise AdapterError(f"{folder}: no {MANIFEST_FILE}: it is a PEFT adapter that Scions did not publish")
    manifest = Manifest.read(folder)
    if base_sha256 is not None and base_sha256 != manifest.base.weights_sha256:
        other = (
            f"{base_name} (weights {base_sha256[:12]})" if base_name else f"the base with weights {base_sha256[:12]}"
        )
        raise AdapterError(
            f"{folder}: adapter {manifest.name!r} was trained on {manifest.base.id} "
            f"(weights {manifest.base.weights_sha256[:12]}) and cannot be loaded onto {other}"
        )
    return config, manifest, read_weights(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of PEFT's `adapter_config.json`, an object with at least `peft_type`.

    Raises:
        AdapterError: it is missing, no JSON object or names no `peft_type`.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise AdapterError(f"{folder}: no {CONFIG_FILE}") from None
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path}: expected an object, found {type(config).__name__}")
    if not isinstance(config.get("peft_type"), str):
        raise AdapterError(f"{path}: peft_type: expected a string, found {config.get('peft_type')!r}")
    return config


def is_whole_model(folder: Path) -> bool:
    """Return whether a published folder holds all weights of a model (method `full`) instead of an adapter's."""
    if (folder / CONFIG_FILE).is_file() or not (folder / MODULES_FILE).is_file():
        return False
    return (folder / MANIFEST_FILE).is_file() and Manifest.read(folder).method == "full"


def _entry(folder: Path) -> AdapterEntry:
    manifest = None
    try:
        check_name(folder.name)
        if is_whole_model(folder):
            manifest = Manifest.read(folder)
            for file in weight_files(folder):
                read_header(file)
        else:
            read_config(folder)
            check_weights(find_weights_file(folder))
            manifest = Manifest.read(folder)
    except ScionsError as error:
        # The entry names the folder already.
        problem = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")
        return AdapterEntry(folder.name, folder, manifest, problem)
    return AdapterEntry(folder.name, folder, manifest, None)
