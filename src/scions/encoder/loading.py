"""Load an encoder by name: a base, an adapter on its base, or any SentenceTransformer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.deprecation import renamed_arguments
from scions.encoder.base_info import limit_of
from scions.errors import AdapterError, ScionsError
from scions.store import (
    Manifest,
    base_fingerprint,
    base_id,
    check_name,
    find_adapter,
    load_base,
    read_adapter,
    resolve_base,
)
from scions.store.base import is_model_folder
from scions.store.names import BASE, MANIFEST_FILE

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@renamed_arguments(root="adapters")
def load_encoder(
    name_or_path: str | Path | None = None,
    *,
    base: str | None = None,
    adapters: Path | None = None,
    device: str | None = None,
) -> SentenceTransformer:
    """Load what ``name_or_path`` names, ready to encode.

    Args:
        name_or_path: None or ``"base"``: the base alone. An adapter's name under ``adapters``, or its folder: the
            adapter on its base, active under its own name; where it is query-side, ``encode_document`` leaves it out.
            Anything else: a SentenceTransformer's folder or id on the Hub.
        base: the base to use; None takes the adapter's own, or the default.
        adapters: folder of adapters; None is `scions.store.default_root`.
        device: where to load; None takes the GPU where there is one.

    Raises:
        AdapterError: no such adapter, a damaged one (found before anything is built), or one of another base.
        ScionsError: the base or model is not there or cannot be loaded.
    """
    options: dict[str, Any] = {} if device is None else {"device": device}
    if name_or_path is None or str(name_or_path) == BASE:
        return load_base(base, **options)
    folder, why_not = adapter_folder(name_or_path, adapters)
    if folder is not None:
        return _load_adapter(folder, base, options)
    try:
        return load_base(str(name_or_path), **options)
    except AdapterError:
        raise
    except ScionsError as error:
        if why_not is None or "/" in str(name_or_path):
            raise
        raise AdapterError(f"{why_not} Nor is it a model: {error}") from error


def adapter_folder(name_or_path: str | Path, adapters: Path | None = None) -> tuple[Path | None, str | None]:
    """Return the folder of an adapter published by Scions, or None and, where there is none of that name, why.

    Raises:
        AdapterError: the folder holds a bare PEFT adapter without what is needed to load it safely.
    """
    try:
        folder = find_adapter(name_or_path, adapters)
    except AdapterError as error:
        return None, str(error)
    if (folder / MANIFEST_FILE).is_file():
        return folder, None
    if is_model_folder(folder):
        return None, None
    read_adapter(folder)
    raise AdapterError(f"{folder}: no {MANIFEST_FILE}")


def _load_adapter(folder: Path, base: str | None, options: dict[str, Any]) -> SentenceTransformer:
    from scions.encoder.inject import inject_adapter
    from scions.encoder.query_side import QuerySideModel

    manifest = Manifest.read(folder)
    if manifest.method == "full":
        whole = _with_settings(load_base(folder, **options), manifest)
        if not manifest.query_side:
            return whole
        return QuerySideModel.of(whole, _documents_base(folder, base, manifest, options))
    name = check_name(folder.name)
    wanted = base or manifest.base.id
    place = _base_place(wanted, base, folder, manifest)
    # The adapter is checked before anything is loaded; the weights of a base that is still to be downloaded are not
    # known until then.
    known = base_fingerprint(place) if Path(place).is_dir() else None
    config, manifest, weights = read_adapter(folder, known, base_name=base_id(wanted))
    model = load_base(place, **options)
    if known is None:
        read_adapter(folder, base_fingerprint(model), base_name=base_id(wanted))
    bare = _bare_copy(model) if manifest.query_side else None
    inject_adapter(model, name, config, weights)
    adapted = _with_settings(model, manifest)
    return adapted if bare is None else QuerySideModel.of(adapted, bare)


def _bare_copy(model: SentenceTransformer) -> SentenceTransformer:
    """Return a copy of ``model`` that adapters injected later do not change; the tensors are shared."""
    from scions.encoder.peft_engine import sharing

    bare: SentenceTransformer = sharing(model)
    bare.prompts, bare.default_prompt_name = dict(model.prompts or {}), model.default_prompt_name
    return bare


def _documents_base(folder: Path, base: str | None, manifest: Manifest, options: dict[str, Any]) -> SentenceTransformer:
    """Return the base whose vectors of documents a query-side model trained whole was trained against."""
    model = load_base(_base_place(base or manifest.base.id, base, folder, manifest), **options)
    sha256 = base_fingerprint(model)
    if sha256 != manifest.base.weights_sha256:
        raise AdapterError(
            f"{folder}: documents for {manifest.name!r} are encoded with {manifest.base.id} "
            f"(weights {manifest.base.weights_sha256[:12]}); found weights {sha256[:12]}"
        )
    return model


def _base_place(wanted: str, explicit: str | None, folder: Path, manifest: Manifest) -> str:
    try:
        return resolve_base(wanted)
    except ScionsError as error:
        if explicit is not None:
            raise
        raise ScionsError(
            f"{folder}: the base model of adapter {manifest.name!r} was not found: {error}. "
            "If it lies elsewhere, pass `base=...`"
        ) from error


def _with_settings(model: SentenceTransformer, manifest: Manifest) -> SentenceTransformer:
    """Set the prompts and the length (in tokens) with which the adapter was trained and evaluated."""
    if manifest.prompts:
        model.prompts = {**(model.prompts or {}), **manifest.prompts}
    if manifest.max_length > 0:
        model.max_seq_length = manifest.max_length
        model.max_seq_length = limit_of(model)
    return model
