"""Files of vectors: equal to encoding at once, whole or absent, and resumed without a difference."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from scions.encoder import space_of
from scions.errors import DataError, Interrupted, ScionsError, UsageError
from scions.vectors import embed_file

ROWS = 23


@pytest.fixture
def texts():
    words = "court contract party shall claim damages judge law patient dose drug fever".split()  # noqa: SIM905
    return [" ".join(words[i % len(words)] for i in range(n, n + 1 + n % 7)) for n in range(ROWS)]


@pytest.fixture
def source(tmp_path, texts):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts) + "\n")
    return path


@pytest.fixture
def embed(encoder, source, tmp_path):
    space = space_of(encoder)

    def run(output="out.npy", **options):
        return embed_file(encoder, source, tmp_path / output, space=space, **{"chunk_rows": 5, **options})

    return run


def _left(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "texts.txt")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["npy", "parquet", "jsonl"])
def test_every_kind_holds_the_vectors_in_order_with_their_space(embed, encoder, texts, tmp_path, kind, dtype):
    seen = []
    report = embed(f"out.{kind}", dtype=dtype, on_progress=lambda done, rows: seen.append((done, rows)))
    expected = encoder.encode(texts, normalize_embeddings=True).astype(dtype)
    got, record = _read(tmp_path / f"out.{kind}", dtype)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, atol=1e-6 if dtype == "float32" else 1e-3)
    assert seen == [(0, 23), (5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    assert (report.rows, report.dimensions, report.resumed_from) == (23, 32, 0)
    assert record["space"] == space_of(encoder).fingerprint
    assert (record["rows"], record["dimensions"], record["dtype"], record["normalised"]) == (23, 32, dtype, True)
    assert record["source"]["name"] == "texts.txt"
    assert _left(tmp_path) == sorted([f"out.{kind}", f"out.{kind}.json"])


def test_parquet_is_written_in_row_groups_of_fixed_size_lists(embed, tmp_path):
    import pyarrow.parquet as pq

    embed("out.parquet")
    file = pq.ParquetFile(tmp_path / "out.parquet")
    assert file.num_row_groups == 5
    assert str(file.schema_arrow.field("vector").type).startswith("fixed_size_list")


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_ctrl_c_keeps_complete_chunks_and_resume_ends_in_the_same_file(embed, tmp_path, kind):
    embed(f"whole.{kind}")
    with pytest.raises(Interrupted, match=r"after 10 of 23 rows.*resume=True"):
        embed(f"out.{kind}", on_progress=_break_at(10))
    assert not (tmp_path / f"out.{kind}").exists()
    with pytest.raises(UsageError, match="resume=True"):
        embed(f"out.{kind}")
    report = embed(f"out.{kind}", resume=True)
    assert report.resumed_from == 10
    assert (tmp_path / f"out.{kind}").read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    assert not [name for name in _left(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("kind", ["npy", "jsonl"])
def test_resume_finishes_what_was_stopped_before_its_record_was_written(embed, encoder, monkeypatch, tmp_path, kind):
    embed(f"whole.{kind}")
    with monkeypatch.context() as patched:
        patched.setattr("scions.vectors.writer.write_file", _ctrl_c)
        with pytest.raises(Interrupted, match="resume=True"):
            embed(f"out.{kind}")
    record = tmp_path / f"out.{kind}.json"
    assert not record.exists()
    monkeypatch.setattr(encoder, "encode", lambda *_, **__: pytest.fail("encoded"))
    assert embed(f"out.{kind}", resume=True).resumed_from == 23
    assert (tmp_path / f"out.{kind}").read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    assert record.read_bytes() == (tmp_path / f"whole.{kind}.json").read_bytes()
    assert not [name for name in _left(tmp_path) if name.startswith(".")]


def test_what_a_crash_left_after_the_last_chunk_is_cut_off(embed, tmp_path):
    embed("whole.npy")
    with pytest.raises(Interrupted):
        embed(on_progress=_break_at(10))
    with open(tmp_path / ".out.npy.unfinished", "ab") as stream:
        stream.write(b"half a row")
    embed(resume=True)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_resume_refuses_what_differs_and_says_which(embed, encoder, source, tmp_path):
    with pytest.raises(Interrupted):
        embed(on_progress=_break_at(5))
    with pytest.raises(ScionsError, match="dtype was 'float32' and is 'float16'"):
        embed(resume=True, dtype="float16")
    other = replace(space_of(encoder), fingerprint="f" * 16)
    with pytest.raises(ScionsError, match="space was"):
        embed_file(encoder, source, tmp_path / "out.npy", space=other, resume=True)
    source.write_text(source.read_text() + "one more\n")
    with pytest.raises(ScionsError, match="source was"):
        embed(resume=True)
    assert embed(force=True).rows == 24


def test_force_replaces_and_resume_goes_on_with_a_replacement(embed, tmp_path):
    embed()
    with pytest.raises(UsageError, match="exists already"):
        embed()
    with pytest.raises(Interrupted):
        embed(force=True, on_progress=_break_at(15))
    assert embed(force=True, resume=True).resumed_from == 15


def test_a_source_that_changes_meanwhile_is_found(embed, source, tmp_path):
    def grow(done, rows):
        if done == 5:
            source.write_text(source.read_text() + "one more\n")

    with pytest.raises(ScionsError, match="was changed while it was read"):
        embed(on_progress=grow)
    assert _left(tmp_path) == []


def test_truncated_texts_are_counted(encoder, embed, source, texts):
    long = "court " * 100
    texts[3], texts[20] = long, long + "x" * 100_000
    source.write_text("\n".join(texts) + "\n")
    report = embed()
    assert (report.truncated, report.max_length) == (2, 64)


def test_a_row_without_text_is_named_before_anything_is_encoded(embed, source, texts, encoder, monkeypatch):
    texts[17] = " "
    source.write_text("\n".join(texts) + "\n")
    monkeypatch.setattr(encoder, "encode", lambda *_, **__: pytest.fail("encoded"))
    with pytest.raises(DataError, match=r"texts\.txt:18"):
        embed()


def test_vectors_that_are_not_finite_are_refused(embed, encoder, monkeypatch, tmp_path):
    monkeypatch.setattr(encoder, "encode", lambda texts, **_: np.full((len(texts), 32), np.nan))
    with pytest.raises(ScionsError, match="the vector of row 1 is not finite"):
        embed()
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "out.bin"}, r"\.npy, \.parquet, \.jsonl"),
        ({"output": "texts.txt"}, "vectors are written as"),
        ({"dtype": "int8"}, "float32, float16"),
        ({"batch_size": 0}, "at least 1"),
        ({"prompt": "poem"}, "no prompt 'poem'"),
    ],
)
def test_wrong_arguments(embed, options, message):
    with pytest.raises(UsageError, match=message):
        embed(**options)


def test_a_full_disk_keeps_the_work(embed, monkeypatch, tmp_path):
    import errno

    from scions.vectors.writer import ResumableMatrix

    append = ResumableMatrix.append

    def full(self, vectors, truncated):
        if self.rows >= 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, vectors, truncated)

    monkeypatch.setattr(ResumableMatrix, "append", full)
    with pytest.raises(ScionsError, match="disk is full after 10 rows"):
        embed()
    monkeypatch.setattr(ResumableMatrix, "append", append)
    assert embed(resume=True).resumed_from == 10


def _ctrl_c(*_):
    raise KeyboardInterrupt


def _break_at(row):
    def progress(done, rows):
        if done >= row:
            raise KeyboardInterrupt

    return progress


def _read(path, dtype):
    record = json.loads(path.with_name(path.name + ".json").read_text())
    if path.suffix == ".npy":
        return np.load(path), record
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [row["id"] for row in rows] == list(range(len(rows)))
        return np.array([row["vector"] for row in rows], dtype=dtype), record
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    assert json.loads(table.schema.metadata[b"scions"]) == record
    assert table["id"].to_pylist() == list(range(len(table)))
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    return flat.reshape(len(table), -1), record
