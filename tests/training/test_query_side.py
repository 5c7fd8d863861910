"""Query-side training: documents keep the base's vectors before, in and after the training."""

from __future__ import annotations

import json

import numpy as np
import pytest

import scions.training.train_callback as train_callback
from scions.data import read
from scions.encoder import DomainEncoder, load_encoder, space_of
from scions.encoder.query_side import QuerySideModel
from scions.errors import DataError, Interrupted, ScionsError, UsageError
from scions.evaluation import evaluate
from scions.store import Manifest, load_base
from scions.training import plan, query_side, train
from scions.training.examples import to_examples
from scions.training.query_side import DocumentVectors, QuerySteps
from scions.training.trainer import AdapterTrainer
from scions.vectors import embed_file

SHAPES = ("pairs", "triplets", "candidates", "retrieval")
TEXTS = ["the court of law", "a patient in trial"]


@pytest.mark.parametrize("shape", SHAPES)
def test_documents_are_the_bases_and_queries_are_not(write, short, tiny_base, adapters_aside, shape):
    result = train(write(shape), "legal", force=True, query_side=True, **short)
    manifest = Manifest.read(result.path)
    assert (manifest.query_side, manifest.format_version) == (True, 2)
    base, loaded = load_base(tiny_base, device="cpu"), load_encoder("legal", device="cpu")
    assert isinstance(loaded, QuerySideModel)
    np.testing.assert_array_equal(loaded.encode_document(TEXTS), base.encode_document(TEXTS))
    assert np.abs(loaded.encode_query(TEXTS) - base.encode_query(TEXTS)).max() > 1e-3
    np.testing.assert_array_equal(loaded.encode_query(TEXTS), loaded.encode(TEXTS))
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    encoder.load_adapter("legal")
    np.testing.assert_allclose(encoder.encode_document(TEXTS, adapter="legal"), base.encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(encoder.encode_query(TEXTS, adapter="legal"), loaded.encode_query(TEXTS), atol=1e-6)
    assert manifest.space_fingerprint == space_of(base).fingerprint == encoder.space("legal")
    space = space_of(loaded, result.path)
    assert (space.fingerprint, space.adapter, space.query_side) == (manifest.space_fingerprint, "legal", True)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_other_methods(write, short, tiny_base, method):
    options = {**short, "rank": None} if method == "full" else short
    result = train(write("retrieval"), "legal", force=True, query_side=True, method=method, **options)
    base, loaded = load_base(tiny_base, device="cpu"), load_encoder(result.path, device="cpu")
    np.testing.assert_array_equal(loaded.encode_document(TEXTS), base.encode_document(TEXTS))
    assert np.abs(loaded.encode_query(TEXTS) - base.encode_query(TEXTS)).max() > 1e-4
    assert space_of(loaded, result.path).fingerprint == space_of(base).fingerprint


def test_a_step_encodes_its_queries_alone_and_documents_have_no_gradient(write, short, monkeypatch):
    seen = []
    real = AdapterTrainer.compute_loss

    def loss(self, model, inputs, *arguments, **options):
        assert isinstance(self.steps, QuerySteps)
        encoded = sum(len(positions) for positions, _ in inputs["pieces"])
        assert encoded == inputs["index"].max() + 1 <= self.recipe.batch_size
        documents, positives, mask = (inputs[name] for name in ("documents", "positives", "mask"))
        assert len(documents) == len(self.steps.documents) > 2 * self.recipe.batch_size
        assert not mask[range(len(positives)), positives].any()
        assert not inputs["documents"].requires_grad
        norms = inputs["documents"].norm(dim=-1)
        assert np.allclose(norms, 1, atol=1e-5)
        seen.append(encoded)
        return real(self, model, inputs, *arguments, **options)

    monkeypatch.setattr(AdapterTrainer, "compute_loss", loss)
    result = train(write("triplets"), "legal", force=True, query_side=True, **short)
    assert len(seen) == result.fitted.steps


def test_every_given_negative_is_a_negative(tmp_path, short, monkeypatch):
    rows = [
        {
            "query": f"who pays {i}",
            "positive": [f"the seller pays {i}"],
            "negative": [f"rain {i} {j}" for j in range(i % 4)],
        }
        for i in range(60)
    ]
    path = tmp_path / "candidates.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen = []
    real = QuerySteps.__init__

    def steps(self, batches, tokens, examples, vectors, **options):
        real(self, batches, tokens, examples, vectors, **options)
        seen.append(({examples.texts[place] for place in self.documents}, np.linalg.norm(self.matrix, axis=1)))

    monkeypatch.setattr(QuerySteps, "__init__", steps)
    result = train(path, "legal", force=True, query_side=True, **short)
    held, norms = seen[-1]
    own = {text for row in rows for text in (*row["positive"], *row["negative"])}
    assert held <= own
    assert sum(text.startswith("rain") for text in held) > result.manifest.data.rows["train"]
    np.testing.assert_allclose(norms, 1, atol=1e-4)


def test_beyond_the_limit_documents_are_sampled_but_a_steps_positives_stay(write, short, monkeypatch):
    monkeypatch.setattr(query_side, "MAX_DOCUMENTS", 5)
    seen = []
    real = QuerySteps.__getitem__

    def item(self, step):
        found = real(self, step)
        own = self.vectors[self.batches[step].columns[:, 1]]
        np.testing.assert_array_equal(found["documents"][found["positives"]], own)
        seen.append(len(found["documents"]))
        return found

    monkeypatch.setattr(QuerySteps, "__getitem__", item)
    train(write("pairs", 60), "legal", force=True, query_side=True, **short)
    assert seen
    assert max(seen) <= 5 + short["batch_size"]


def test_training_lowers_the_loss(write, short):
    losses = []
    options = {**short, "rank": 8, "epochs": 12, "learning_rate": 0.01}
    train(write("pairs", 120), "legal", force=True, query_side=True, on_step=lambda s: losses.append(s.loss), **options)
    assert np.mean(losses[-6:]) < np.mean(losses[:6]) - 0.05


def test_documents_are_read_at_the_bases_own_length(write, short, tiny_base, monkeypatch):
    path = write("pairs", 40)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["positive"] += " court" * 40
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = []
    real = QuerySteps.__init__

    def steps(self, batches, tokens, examples, vectors, **options):
        kept.append((examples, vectors, max(tokens.lengths)))
        real(self, batches, tokens, examples, vectors, **options)

    monkeypatch.setattr(QuerySteps, "__init__", steps)
    train(path, "legal", force=True, query_side=True, **short)
    [(examples, vectors, longest)] = kept
    place = int(examples.columns[0, 1])
    expected = load_base(tiny_base, device="cpu").encode(examples.texts[place], normalize_embeddings=True)
    np.testing.assert_allclose(vectors[place], expected, atol=0.02)
    assert longest <= plan(str(path), query_side=True, **short).recipe.max_length < 40


def test_each_text_is_encoded_with_the_prompt_of_its_role_once(write, model):
    model.prompts, model.default_prompt_name = {"query": "a claim: ", "document": "the law: "}, "query"
    examples = to_examples(read(str(write("pairs", 10))), "contrastive", "a claim: ", "the law: ")
    found = DocumentVectors(model, 10).of(examples, bf16=False)
    expected = model.encode(examples.texts, prompt="", normalize_embeddings=True)
    expected[~np.isin(range(len(expected)), examples.columns[:, 1])] = 0  # queries
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_resuming_ends_in_the_same_adapter(write, short, monkeypatch, adapters_aside):
    path = write("retrieval")
    whole = train(path, "whole", force=True, query_side=True, **short)
    monkeypatch.setattr(train_callback, "CHECKPOINT_SECONDS", 0.0)

    def stop(step):
        if step.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="resume=True"):
        train(path, "legal", query_side=True, on_step=stop, **short)
    with pytest.raises(UsageError, match="query_side"):
        train(path, "legal", resume=True, **short, max_length=16)
    resumed = train(path, "legal", query_side=True, resume=True, force=True, **short)
    contents = [(one.path / "adapter_model.safetensors").read_bytes() for one in (whole, resumed)]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("shape", ["texts", "labelled", "scored", "binary"])
def test_rows_without_queries_are_refused_with_what_to_do(write, short, adapters_aside, shape):
    with pytest.raises(UsageError, match=r"no text is a query.*pairs, triplets, candidates, retrieval.*reindex"):
        train(write(shape, 220 if shape == "texts" else 60), "legal", query_side=True, **short)
    assert not adapters_aside.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_side": True, "objective": "simcse"}, "has none"),
        ({"documents": "x.npy"}, "for `query_side=True` only"),
        ({"compare_two_sided": True}, "give that too"),
        ({"query_side": True, "document_texts": "x.txt"}, "give that file of vectors too"),
        ({"query_side": True, "documents": "none.npy"}, "no such file of vectors"),
    ],
)
def test_invalid_options(write, short, options, message):
    with pytest.raises(ScionsError, match=message):
        train(write("pairs"), "legal", **options, **short)


@pytest.fixture
def indexed(write, tiny_base, tmp_path):
    """A BEIR folder and the base's vectors of its corpus."""
    folder = write("retrieval")
    base = load_base(tiny_base, device="cpu")
    target = tmp_path / "index.npy"
    embed_file(base, folder / "corpus.jsonl", target, space=space_of(base), column="text", dtype="float16")
    return folder, target


def test_existing_vectors_are_not_computed_again(indexed, short, monkeypatch):
    from scions.encoder.query_side import KnownDocuments

    folder, target = indexed
    whole = train(folder, "whole", force=True, query_side=True, **short)
    asked = []
    real = KnownDocuments.encode_document

    def encode(self, sentences, **options):
        asked.extend(text for text in sentences if self.rows and text not in self.rows)
        return real(self, sentences, **options)

    monkeypatch.setattr(KnownDocuments, "encode_document", encode)
    result = train(folder, "legal", force=True, query_side=True, documents=target, **short)
    assert asked == []
    assert result.verdict.reindexing.documents == 60
    assert result.verdict.base.value == pytest.approx(whole.verdict.base.value, abs=0.1)


def test_vectors_of_a_file_of_texts(write, short, tiny_base, tmp_path):
    data = write("pairs")
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(json.loads(line)["positive"] + "\n" for line in data.read_text().splitlines()))
    base = load_base(tiny_base, device="cpu")
    embed_file(base, texts, tmp_path / "index.parquet", space=space_of(base))
    options = {"query_side": True, "documents": tmp_path / "index.parquet", **short}
    with pytest.raises(UsageError, match="document_texts="):
        train(data, "legal", **options)
    assert train(data, "legal", force=True, document_texts=texts, **options).path is not None


def test_vectors_that_are_not_the_documents_are_refused(indexed, short, tiny_base, publish_adapter, tmp_path):
    folder, target = indexed
    options = {"query_side": True, **short}
    lines = (folder / "corpus.jsonl").read_text().splitlines()
    base = load_base(tiny_base, device="cpu")

    def embedded(name, rows, encoder=base, space=None):
        source = tmp_path / f"{name}.jsonl"
        source.write_text("\n".join(rows) + "\n")
        out = tmp_path / f"{name}.npy"
        embed_file(encoder, source, out, space=space or space_of(base), column="text")
        return out

    with pytest.raises(DataError, match=r"few\.npy: holds 50 vectors, but the corpus of .* has 60 documents"):
        train(folder, "legal", documents=embedded("few", lines[:50]), **options)
    with pytest.raises(ScionsError, match=r"row \d+: is not the vector of that row"):
        train(folder, "legal", documents=embedded("turned", lines[::-1]), **options)
    other, _ = publish_adapter("other", max_length=64)
    adapted = load_encoder(other, device="cpu")
    with pytest.raises(
        ScionsError, match=r"foreign\.npy .*adapter other.* and documents of the base .*different spaces"
    ):
        train(folder, "legal", documents=embedded("foreign", lines, adapted, space_of(adapted, other)), **options)
    (tmp_path / "index.npy.json").unlink()
    with pytest.raises(DataError, match="nothing says which space"):
        train(folder, "legal", documents=target, **options)


def test_gain_and_cost_of_reindexing_are_reported(write, short):
    path = write("retrieval")
    result = train(path, "one", force=True, query_side=True, **short)
    alone = result.verdict.reindexing
    assert alone.two_sided is None
    assert alone.query_side == result.verdict.difference
    assert (alone.documents, alone.seconds > 0) == (60, True)
    assert "0 documents embedded anew" in alone.sentences[0]
    assert "compare_two_sided=True" in alone.sentences[1]
    both = train(path, "two", force=True, query_side=True, compare_two_sided=True, **short)
    assert "two-sided adapter" in both.verdict.baselines
    gain = both.verdict.baselines["two-sided adapter"].value - both.verdict.base.value
    assert both.verdict.reindexing.two_sided.value == pytest.approx(gain)
    assert both.manifest.scores["reindexing"]["documents"] == 60
    card = (both.path / "README.md").read_text()
    for part in ("**Query-side**", "encode_query", *both.verdict.reindexing.sentences):
        assert part in card


def test_the_plan_of_a_query_side_training(write, short):
    made = plan(str(write("retrieval")), query_side=True, compare_two_sided=True, **short)
    assert (made.query_side, made.documents) == (True, 60)
    assert made.seconds > 0
    assert made.baseline_seconds > 0


def test_scores_use_the_bases_documents(write, short, tiny_base):
    from scions.data import read

    path = write("retrieval")
    result = train(path, "legal", force=True, query_side=True, **short)
    table = read(path)
    loaded = load_encoder("legal", device="cpu")
    base = load_base(tiny_base, device="cpu")

    class ByHand:
        encode = encode_query = staticmethod(loaded.encode)
        encode_document = staticmethod(base.encode)

    assert evaluate(loaded, table).scores == evaluate(ByHand(), table).scores
    assert evaluate(loaded, table).value != evaluate(base, table).value
    assert result.verdict.metric == "ndcg@10"
