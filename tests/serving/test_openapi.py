"""The committed OpenAPI file is generated from the code, and answers follow it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))


def test_the_committed_file_is_what_the_code_gives():
    spec = importlib.util.spec_from_file_location("generate_openapi", DOCS / "generate_openapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads(module.text()) == SCHEMA, "run: python docs/generate_openapi.py"


def test_the_server_gives_the_same(ask):
    assert ask("GET", "/openapi.json").json() == SCHEMA


def test_every_reference_leads_somewhere():
    names = set(SCHEMA["components"]["schemas"])
    text = json.dumps(SCHEMA)
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used == names
    assert {"EmbeddingsRequest", "EmbeddingsResponse", "ErrorResponse"} <= used


def test_embeddings_documents_its_body_its_errors_and_its_key():
    operation = SCHEMA["paths"]["/v1/embeddings"]["post"]
    assert operation["requestBody"]["required"] is True
    assert {"200", "400", "401", "404", "408", "409", "413", "415", "422", "429", "503"} == set(operation["responses"])
    assert {"key": []} in operation["security"]
    assert "security" not in SCHEMA["paths"]["/health"]["get"]


@pytest.mark.parametrize(
    ("method", "path", "pattern", "body"),
    [
        ("POST", "/v1/embeddings", "/v1/embeddings", {"model": "base", "input": ["a"], "adapter": ["legal"]}),
        ("POST", "/v1/embeddings", "/v1/embeddings", {"model": "base", "input": "a", "encoding_format": "base64"}),
        ("POST", "/v1/embeddings", "/v1/embeddings", {"model": "nobody", "input": "a"}),
        ("GET", "/v1/models", "/v1/models", None),
        ("GET", "/v1/models/legal", "/v1/models/{model}", None),
        ("GET", "/v1/adapters", "/v1/adapters", None),
        ("GET", "/v1/adapters/legal", "/v1/adapters/{adapter}", None),
        ("POST", "/v1/adapters", "/v1/adapters", {"folder": "legal"}),
        ("POST", "/v1/adapters", "/v1/adapters", {"folder": "nobody"}),
        ("DELETE", "/v1/adapters/legal", "/v1/adapters/{adapter}", None),
        ("GET", "/health", "/health", None),
        ("GET", "/ready", "/ready", None),
    ],
)
def test_answers_are_what_the_file_says(ask, method, path, pattern, body):
    import jsonschema_rs

    answer = ask(method, path, json=body)
    documented = SCHEMA["paths"][pattern][method.lower()]["responses"][str(answer.status_code)]
    schema = documented["content"]["application/json"]["schema"]
    jsonschema_rs.validator_for({**schema, "components": SCHEMA["components"]}).validate(answer.json())
