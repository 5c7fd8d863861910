"""Vector files read back, checked against their texts, and taken into another space."""

from __future__ import annotations

import datetime
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scions.encoder import DomainEncoder, load_encoder, space_of
from scions.encoder.query_side import KnownDocuments, QuerySideEncoder
from scions.errors import AdapterError, DataError, Interrupted, ScionsError, UsageError
from scions.vectors import embed, embed_file, reader
from scions.vectors.reader import known_documents, read_outline, read_vectors
from scions.vectors.reindex import document_encoder, migrate, plan_migration, rows_per_second
from scions.vectors.writer import finish

KINDS = ("npy", "parquet", "jsonl")
WORDS = "court contract party shall claim damages judge law patient dose drug fever".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[i % 12] for i in range(n, n + 1 + n % 7)) for n in range(23)]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"title": "x", "body": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def old(encoder, source, tmp_path):
    def make(kind="npy", **options):
        path = tmp_path / f"old.{kind}"
        embed_file(encoder, source, path, space=space_of(encoder), column="body", **options)
        return path

    return make


@pytest.fixture
def query_side(publish_adapter):
    return publish_adapter("legal-q", query_side=True, format_version=2, max_length=64)[0]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read(old, encoder, kind, dtype):
    path = old(kind, dtype=dtype)
    file = read_vectors(path)
    np.testing.assert_allclose(file.matrix, encoder.encode(TEXTS), atol=1e-6 if dtype == "float32" else 1e-3)
    assert file.space == space_of(encoder).fingerprint
    assert file.ids == (None if kind == "npy" else list(range(23)))
    assert read_outline(path) == (file.record, 23, file.ids)


def test_parquet_has_its_record_inside(old):
    path = old("parquet")
    beside = path.with_name(path.name + ".json")
    record = json.loads(beside.read_text())
    beside.unlink()
    assert read_vectors(path).record == record


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_vectors_are_refused(old, kind):
    path = old(kind)
    record = path.with_name(path.name + ".json")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"old\.{kind}"):
        read_vectors(path)
    path.write_bytes(content)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"rows": 22}))
    for read in (read_vectors, read_outline):
        with pytest.raises(DataError, match="its record says 22"):
            read(path)


@pytest.mark.parametrize("line", [b'{"id": 3, "vector": [1, "\xe9"]}', b"[" * 100_000, b'{"vector": [[1]]}'])
def test_a_line_that_holds_no_vector_is_named(old, line):
    path = old("jsonl")
    lines = path.read_bytes().splitlines()
    lines[3] = line
    path.write_bytes(b"\n".join(lines))
    for read in (read_vectors, read_outline):
        with pytest.raises(DataError, match=r"old\.jsonl:4: "):
            read(path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"base": "x"}', "[" * 100_000])
def test_a_record_that_names_no_space(old, text):
    path = old()
    path.with_name(path.name + ".json").write_text(text)
    with pytest.raises(DataError, match=r"record of its space cannot be read|says which space"):
        read_vectors(path)


def test_other_kinds_of_file(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"\.npy, \.parquet, \.jsonl; found '\.bin'"):
        read_vectors(tmp_path / "x.bin")


def test_known_documents_are_looked_up_and_others_encoded(encoder):
    marked = np.zeros((2, 32), dtype=np.float16)
    marked[:, 0] = 2
    known = KnownDocuments(encoder, TEXTS[:2], marked)
    got = known.encode_document([TEXTS[3], TEXTS[1]])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[1], np.eye(32)[0])
    np.testing.assert_allclose(got[0], encoder.encode(TEXTS[3]), atol=1e-6)
    np.testing.assert_allclose(known.encode_query(TEXTS[:2]), encoder.encode(TEXTS[:2]), atol=1e-6)


def test_roles_go_to_their_encoders(encoder):
    class Ones:
        def encode(self, sentences, **_):
            return np.ones((len(sentences), 32))

    both = QuerySideEncoder(Ones(), encoder)
    assert (both.encode_query(TEXTS) == 1).all()
    assert (both.encode(TEXTS) == 1).all()
    np.testing.assert_allclose(both.encode_document(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_vectors_of_other_texts_are_found(old, encoder):
    file = read_vectors(old(dtype="float16"))
    space = space_of(encoder).fingerprint
    names = {"encoder_name": "the base", "texts_name": "the corpus"}
    assert known_documents(file, TEXTS, encoder, space, **names).vectors is file.matrix
    with pytest.raises(ScionsError, match="the vector of that row of the corpus"):
        known_documents(file, TEXTS[::-1], encoder, space, **names)
    with pytest.raises(DataError, match="23 vectors, but the corpus has 22 documents"):
        known_documents(file, TEXTS[1:], encoder, space, **names)
    with pytest.raises(ScionsError, match=r"old\.npy .* and documents of the base are vectors of different spaces"):
        known_documents(file, TEXTS, encoder, "f" * 16, **names)


@pytest.mark.parametrize(("number", "found"), [(np.nan, "not finite"), (np.inf, "not finite"), (0.0, "all zeros")])
def test_rows_without_a_direction_are_named(old, encoder, number, found, monkeypatch):
    monkeypatch.setattr(reader, "ROWS_AT_ONCE", 5)
    path = old()
    matrix = np.load(path)
    matrix[12] = number
    np.save(path, matrix)
    with pytest.raises(DataError, match=rf"old\.npy, row 13: is {found}"):
        known_documents(
            read_vectors(path), TEXTS, encoder, space_of(encoder).fingerprint, encoder_name="a", texts_name="b"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_new_file_is_the_adapters_in_the_form_of_the_old(old, source, publish_adapter, kind):
    publish_adapter("legal", max_length=64)
    path = old(kind, dtype="float16", normalize=False)
    before = path.read_bytes()
    adapted, space = document_encoder("legal")
    plan = plan_migration(path, source, space, adapter="legal")
    assert (plan.needed, plan.rows, plan.same_texts, plan.column) == (True, 23, True, "body")
    report = migrate(adapted, plan)
    assert report.output.name == f"old.legal.{kind}"
    assert path.read_bytes() == before
    file = read_vectors(report.output)
    np.testing.assert_allclose(file.matrix, adapted.encode(TEXTS).astype("float16"), atol=1e-3)
    assert (file.record["dtype"], file.space, file.record["adapter"]) == ("float16", space.fingerprint, "legal")
    again = plan_migration(report.output, source, space)
    assert not again.needed


def test_own_ids_stay(old, source, publish_adapter, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    publish_adapter("legal", max_length=64)
    path = old("parquet")
    table = pq.read_table(path)
    keys = [f"doc-{n}" for n in range(23)]
    pq.write_table(table.set_column(0, "id", pa.array(keys)), path)
    lines = [json.loads(line) for line in old("jsonl").read_text().splitlines()]
    (tmp_path / "old.jsonl").write_text(
        "".join(json.dumps(r | {"id": k}) + "\n" for r, k in zip(lines, keys, strict=True))
    )
    adapted, space = document_encoder("legal")
    for name in ("old.parquet", "old.jsonl"):
        report = migrate(adapted, plan_migration(tmp_path / name, source, space), chunk_rows=5)
        assert read_vectors(report.output).ids == keys


IDS = {
    "int": 2**40,
    "uint64": 2**64 - 1,
    "float": 0.5,
    "str": "doc-1",
    "date": datetime.date(2024, 2, 29),
    "bytes": b"\xff",
    "null": None,
}


@pytest.mark.parametrize("key", IDS.values(), ids=IDS)
def test_ids_of_any_type_stay_in_parquet_and_those_that_json_lacks_are_refused_first(
    old, source, publish_adapter, monkeypatch, key
):
    import pyarrow as pa
    import pyarrow.parquet as pq

    publish_adapter("legal", max_length=64)
    path, keys = old("parquet"), [key] * 22 + [None]
    kind = pa.uint64() if key == IDS["uint64"] else None
    pq.write_table(pq.read_table(path).set_column(0, "id", pa.array(keys, kind)), path)
    adapted, space = document_encoder("legal")
    plan = plan_migration(path, source, space)
    assert read_vectors(migrate(adapted, plan).output).ids == keys
    lines = replace(plan, output=path.with_name("new.jsonl"))
    if isinstance(key, (bytes, datetime.date)):
        monkeypatch.setattr(adapted, "encode", lambda *_, **__: pytest.fail("encoded"))
        named = rf"new\.jsonl: the column 'id' cannot be written: row 1 is the {type(key).__name__} .*\.parquet"
        with pytest.raises(DataError, match=named):
            migrate(adapted, lines)
        assert not lines.output.exists()
    else:
        assert read_vectors(migrate(adapted, lines).output).ids == keys


@pytest.mark.parametrize(("keys", "types"), [([1, "a"], "int and str"), ([2**70, 1], "int"), (["\ud800"] * 2, "str")])
def test_ids_that_are_no_column_of_parquet_are_refused_first(old, source, publish_adapter, monkeypatch, keys, types):
    publish_adapter("legal", max_length=64)
    path = old("jsonl")
    rows = [json.loads(line) | {"id": keys[n % 2]} for n, line in enumerate(path.read_text().splitlines())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapted, space = document_encoder("legal")
    plan = plan_migration(path, source, space, output=path.with_name("new.parquet"))
    monkeypatch.setattr(adapted, "encode", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(DataError, match=rf"new\.parquet: the column 'id' .* {types} fit into no one type .*\.jsonl"):
        migrate(adapted, plan)


def test_a_broken_migration_resumes_to_the_same_file(old, source, publish_adapter, tmp_path):
    publish_adapter("legal", max_length=64)
    adapted, space = document_encoder("legal")
    path = old()
    whole = migrate(adapted, plan_migration(path, source, space, output=tmp_path / "whole.npy"), chunk_rows=5)
    plan = plan_migration(path, source, space)

    def stop(done, rows):
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match=r"after 10 of 23 rows.*resume=True"):
        migrate(adapted, plan, chunk_rows=5, on_progress=stop)
    with pytest.raises(UsageError, match="resume=True"):
        migrate(adapted, plan)
    report = migrate(adapted, plan, chunk_rows=5, resume=True)
    assert report.resumed_from == 10
    assert report.output.read_bytes() == whole.output.read_bytes()
    with pytest.raises(UsageError, match="force=True"):
        migrate(adapted, plan)


def test_the_old_file_is_replaced_only_when_forced(old, source, publish_adapter):
    publish_adapter("legal", max_length=64)
    adapted, space = document_encoder("legal")
    path = old()
    plan = plan_migration(path, source, space, output=path)
    with pytest.raises(UsageError, match="exists already"):
        migrate(adapted, plan)
    migrate(adapted, plan, force=True)
    assert read_vectors(path).space == space.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_step_vectors_never_stand_beside_the_record_of_others(
    old, source, publish_adapter, monkeypatch, kind
):
    publish_adapter("legal", max_length=64)
    adapted, space = document_encoder("legal")
    path = old(kind)
    files = {one: one.read_bytes() for one in (path, path.with_name(path.name + ".json"))}
    before, after = read_vectors(path).matrix[:], adapted.encode(TEXTS)
    for step in itertools.count(1):
        for one, content in files.items():
            one.write_bytes(content)
        plan = plan_migration(path, source, space, output=path)
        with monkeypatch.context() as patched:
            _kill_finishing_at(step, patched)
            try:
                migrate(adapted, plan, force=True)
                break
            except Killed:
                pass
        if kind == "parquet" or path.with_name(path.name + ".json").exists():
            found = read_vectors(path)
            np.testing.assert_allclose(found.matrix, after if found.space == space.fingerprint else before, atol=1e-6)
        else:
            with pytest.raises(DataError, match="repeat it with `resume=True`"):
                read_vectors(path)
        plan = plan_migration(path, source, space, output=path)
        if plan.needed:
            assert migrate(adapted, plan, resume=True, force=True).resumed_from == 23
        again = read_vectors(path)
        assert again.space == space.fingerprint
        np.testing.assert_allclose(again.matrix, after, atol=1e-6)
    assert step == 7  # the state, the old record, the vectors, the new record, and two files of the state


class Killed(BaseException):
    pass


def _kill_finishing_at(step, monkeypatch):
    """Raise before the ``step``-th file is renamed or removed, once all rows are there."""
    steps = itertools.count(1)

    def counted(do):
        def call(*arguments, **options):
            if next(steps) == step:
                raise Killed
            return do(*arguments, **options)

        return call

    def armed(*arguments):
        monkeypatch.setattr(os, "replace", counted(os.replace))
        monkeypatch.setattr(Path, "unlink", counted(Path.unlink))
        finish(*arguments)

    monkeypatch.setattr(embed, "finish", armed)


def test_texts_of_another_number_are_refused(old, source, encoder, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("one\ntwo\n")
    path = old()
    with pytest.raises(DataError, match=r"other\.txt: has 2 rows, but .*old\.npy holds 23 vectors"):
        plan_migration(path, other, space_of(encoder))
    lines = source.read_text().splitlines()
    source.write_text("\n".join(lines[::-1]) + "\n")
    assert plan_migration(path, source, space_of(encoder)).same_texts is False


def test_documents_of_a_query_side_adapter_are_the_bases(old, source, query_side, encoder, publish_adapter):
    documents, space = document_encoder("legal-q")
    np.testing.assert_array_equal(documents.encode(TEXTS), encoder.encode(TEXTS))
    assert not plan_migration(old(), source, space).needed
    publish_adapter("legal", max_length=64)
    adapted, other = document_encoder("legal")
    moved = migrate(adapted, plan_migration(old(force=True), source, other)).output
    assert plan_migration(moved, source, space).needed


def test_a_query_side_adapter_of_any_row(query_side, publish_adapter, encoder, tiny_base):
    publish_adapter("legal", seed=2, max_length=64)
    many = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    many.load_adapter("legal")
    many.load_adapter("legal-q")
    rows = ["legal-q", "legal", None]
    got = many.encode_document(TEXTS[:3], adapter=rows)
    plain = encoder.encode(TEXTS[:3])
    np.testing.assert_allclose(got[[0, 2]], plain[[0, 2]], atol=1e-5)
    np.testing.assert_allclose(got[1], many.encode(TEXTS[1], adapter="legal"), atol=1e-5)
    np.testing.assert_allclose(many.encode_document(TEXTS[0], adapter="legal-q"), plain[0], atol=1e-5)
    assert np.abs(many.encode_query(TEXTS[:3], adapter="legal-q") - plain).max() > 1e-2
    many.set_adapter("legal-q")
    np.testing.assert_allclose(many.encode_document(TEXTS[:3]), plain, atol=1e-5)
    assert many.space("legal-q") == many.space() != many.space("legal")
    with pytest.raises(AdapterError, match="no adapter 'nobody'"):
        many.encode_document(TEXTS[:2], adapter=["legal-q", "nobody"])
    with pytest.raises(UsageError, match="2 entries for 3 rows"):
        many.encode_document(TEXTS[:3], adapter=["legal-q", None])


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_loading_leaves_the_base_as_it_is(tiny_model, publish_adapter, kind):
    from scions.store import load_base

    base = tiny_model(kind)
    folder, adapted = publish_adapter("legal-q", on=base, query_side=True, format_version=2, max_length=64)
    loaded = load_encoder(folder, device="cpu")
    np.testing.assert_array_equal(loaded.encode_document(TEXTS), load_base(base, device="cpu").encode(TEXTS))
    np.testing.assert_allclose(loaded.encode_query(TEXTS), adapted.encode(TEXTS), atol=1e-6)
    assert loaded.max_seq_length == 64


def test_speed_is_measured(encoder):
    assert rows_per_second(encoder, TEXTS) > 0
    assert rows_per_second(encoder, []) == 0
