"""Texts of a role go to the encoder's method for that role."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.modules import Router

from scions.encoder import load_encoder
from scions.encoder.query_side import KnownDocuments, QuerySideEncoder
from scions.encoder.roles import RoleEncoder, encode_role
from scions.store import load_base

TEXTS = ["the court of law", "a patient in trial"]


class Recorder(RoleEncoder):
    def encode_role(self, role, sentences, **options):
        return [(role, text, options) for text in sentences]


class Plain:
    def encode(self, sentences, **options):
        return [("plain", text, options) for text in sentences]


def test_one_method_serves_all_roles():
    recorder = Recorder()
    assert recorder.encode(["a"], batch_size=3) == [(None, "a", {"batch_size": 3})]
    assert recorder.encode_query(["a"]) == [("query", "a", {})]
    assert recorder.encode_document(["a"]) == [("document", "a", {})]
    with pytest.raises(NotImplementedError):
        RoleEncoder().encode(["a"])


@pytest.mark.parametrize("role", [None, "query", "document"])
def test_an_encoder_without_roles_is_called_by_encode(role):
    assert encode_role(Plain(), role, ["a"], batch_size=3) == [("plain", "a", {"batch_size": 3})]
    assert encode_role(Recorder(), role, ["a"]) == [(role, "a", {})]


def test_documents_go_to_the_other_encoder():
    both = QuerySideEncoder(Recorder(), Plain())
    assert both.encode(["a"]) == [(None, "a", {})]
    assert both.encode_query(["a"]) == [("query", "a", {})]
    assert both.encode_document(["a"]) == [("plain", "a", {})]


def test_known_documents_are_looked_up_and_others_encoded(tiny_base):
    base = load_base(tiny_base, device="cpu")
    known = KnownDocuments(base, ["x"], np.array([[3.0, 4.0, *[0.0] * 30]]))
    found = known.encode_document(["x", TEXTS[0]])
    np.testing.assert_allclose(found[0][:2], [0.6, 0.8], atol=1e-6)
    np.testing.assert_allclose(found[1], base.encode(TEXTS[0]), atol=1e-6)
    np.testing.assert_array_equal(known.encode_query(TEXTS), base.encode_query(TEXTS))


def test_a_query_side_model_gives_what_a_router_gives(publish_adapter, tiny_base):
    publish_adapter("legal", query_side=True, format_version=2)
    model, base = load_encoder("legal", device="cpu"), load_base(tiny_base, device="cpu")
    router = Router.for_query_document(list(model), list(base), default_route="query")
    routed = type(base)(modules=[router], device="cpu")
    for method in ("encode", "encode_query", "encode_document"):
        np.testing.assert_array_equal(getattr(model, method)(TEXTS), getattr(routed, method)(TEXTS))
    assert model.active_adapters() == ["legal"]
    assert np.abs(model.encode(TEXTS) - model.encode_document(TEXTS)).max() > 1e-3
