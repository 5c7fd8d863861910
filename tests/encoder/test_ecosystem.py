"""Libraries that take a SentenceTransformer take a DomainEncoder, and get the vectors of the adapter that is set.

They are too heavy for the dev extra: a test whose library is missing is skipped. To run them all, in an environment
beside the project's own::

    pip install -e '.[dev]' -c constraints.txt
    pip install -c constraints.txt mteb bertopic llama-index-embeddings-huggingface
    pip install -c constraints.txt --no-deps langchain-core langchain-huggingface  # asks for huggingface_hub < 2
    pip install -c constraints.txt jsonpatch langchain-protocol langsmith tenacity uuid-utils
    pytest tests/encoder/test_ecosystem.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scions import DomainEncoder

TEXTS = [
    "the court and the seller",
    "a pump of the engine",
    "fever",
    "the doctor in trial shall claim damages",
    "the judge and a contract party",
    "valve, motor and battery",
    "a dose of the drug to the patient",
    "the network model of a signal",
]


@pytest.fixture
def legal(tiny_base: Path, publish_adapter: Any) -> DomainEncoder:
    """Two adapters loaded, one of them set."""
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu", prompts={"query": "the court "})
    for seed, name in enumerate(("legal", "medical"), 1):
        publish_adapter(name, seed=seed, max_length=64)
        encoder.load_adapter(name)
    encoder.set_adapter("legal")
    return encoder


def test_mteb_encodes_and_scores_with_the_adapter(legal, tmp_path, monkeypatch):
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path))
    mteb = pytest.importorskip("mteb", reason="needs mteb")
    from datasets import Dataset
    from mteb.models import SentenceTransformerEncoderWrapper
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

    task, gold = _sts_task(mteb), np.arange(4.0)
    wrapped = SentenceTransformerEncoderWrapper(legal)
    for kind, name in ((None, None), (PromptType.query, "query"), (PromptType.document, "document")):
        batches = DataLoader(Dataset.from_dict({"text": TEXTS}), batch_size=3)
        found = wrapped.encode(
            batches, task_metadata=task.metadata, hf_split="test", hf_subset="default", prompt_type=kind
        )
        _is_of_the_adapter(found, legal, TEXTS, prompt_name=name)

    found = {}
    for name in ("legal", "medical", None):
        legal.set_adapter(name)
        # MTEB's cache tells models apart by this name alone.
        legal.model_card_data.model_name = f"tiny/{name}"
        result = mteb.evaluate(legal, task, cache=mteb.ResultCache(tmp_path), co2_tracker=False)
        found[name] = result.task_results[0].scores["test"][0]["cosine_pearson"]
        left, right = legal.encode(TEXTS[:4]), legal.encode(TEXTS[4:])
        assert found[name] == pytest.approx(np.corrcoef((left * right).sum(1), gold)[0, 1], abs=1e-4)
    assert len({round(score, 3) for score in found.values()}) == 3


def test_langchain_searches_with_the_adapter(legal, tiny_base):
    huggingface = pytest.importorskip("langchain_huggingface", reason="needs langchain-huggingface")
    from langchain_core.vectorstores import InMemoryVectorStore

    def embeddings(**options: Any) -> Any:
        made = huggingface.HuggingFaceEmbeddings(model_name=str(tiny_base), model_kwargs={"device": "cpu"}, **options)
        made._client = legal  # it takes a name only
        return made

    plain = embeddings(query_encode_kwargs={"prompt_name": "query"})
    _is_of_the_adapter(plain.embed_documents(TEXTS), legal, TEXTS)
    _is_of_the_adapter([plain.embed_query(TEXTS[0])], legal, TEXTS[:1], prompt_name="query")
    store = InMemoryVectorStore.from_texts(TEXTS, embeddings())
    for text in TEXTS:
        (document, score), *_ = store.similarity_search_with_score(text, k=2)
        assert (document.page_content, score) == (text, pytest.approx(1, abs=1e-5))

    names = ["medical", None] * 4
    chosen = embeddings(encode_kwargs={"adapter": names}).embed_documents(TEXTS)
    np.testing.assert_allclose(chosen, legal.encode(TEXTS, adapter=names), atol=1e-5)


def test_llama_index_retrieves_with_the_adapter(legal, tiny_base, tmp_path):
    huggingface = pytest.importorskip(
        "llama_index.embeddings.huggingface", reason="needs llama-index-embeddings-huggingface"
    )
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    embedding = huggingface.HuggingFaceEmbedding(str(tiny_base), device="cpu", cache_folder=str(tmp_path))
    embedding._model = legal  # it takes a name only
    legal.prompts["text"] = ""  # what it calls the prompt for documents
    _is_of_the_adapter(embedding.get_text_embedding_batch(TEXTS), legal, TEXTS)
    _is_of_the_adapter([embedding.get_query_embedding(TEXTS[0])], legal, TEXTS[:1], prompt_name="query")
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
    vectors, queries = legal.encode(TEXTS), legal.encode_query(TEXTS)
    for text, query in zip(TEXTS, queries, strict=True):
        (hit,) = index.as_retriever(similarity_top_k=1).retrieve(text)
        assert hit.text == TEXTS[int(np.argmax(vectors @ query))]
        assert hit.score == pytest.approx(float(np.max(vectors @ query)), abs=1e-5)


def test_bertopic_finds_topics_of_the_adapter(legal):
    bertopic = pytest.importorskip("bertopic", reason="needs bertopic")
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    # Both are BERTopic's to choose; its own choices need more texts than this.
    steps = {"umap_model": PCA(2, random_state=0), "hdbscan_model": KMeans(3, n_init=4, random_state=0)}
    model = bertopic.BERTopic(embedding_model=legal, **steps)
    topics = np.array(model.fit_transform(TEXTS)[0])
    assert set(topics) == {0, 1, 2}
    for topic in range(3):
        rows = np.flatnonzero(topics == topic)
        vectors, plain = (legal.encode(TEXTS, adapter=name)[rows].mean(0) for name in ("legal", None))
        np.testing.assert_allclose(model.topic_embeddings_[topic], vectors, atol=1e-5)
        assert np.abs(vectors - plain).max() > 0.01
    _is_of_the_adapter(model.embedding_model.embed_documents(TEXTS), legal, TEXTS)


def _is_of_the_adapter(found: Any, encoder: DomainEncoder, texts: Sequence[str], **options: Any) -> None:
    found = np.asarray(found)
    np.testing.assert_allclose(found, encoder.encode(texts, **options), atol=1e-5)
    for other in (None, "medical"):
        assert np.abs(found - encoder.encode(texts, adapter=other, **options)).max(axis=1).min() > 0.01


def _sts_task(mteb: Any) -> Any:
    """Four pairs of TEXTS, scored 0 to 3; nothing is downloaded."""
    from datasets import Dataset, DatasetDict
    from mteb.abstasks import AbsTaskSTS

    class PairsInMemory(AbsTaskSTS):
        metadata = mteb.TaskMetadata(
            name="PairsInMemory",
            type="STS",
            description="Pairs in memory.",
            reference=None,
            dataset={"path": "none", "revision": "1"},
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_pearson",
        )

        def load_data(self, **_: Any) -> None:
            rows = {"sentence1": TEXTS[:4], "sentence2": TEXTS[4:], "score": [0.0, 1.0, 2.0, 3.0]}
            self.dataset = DatasetDict(test=Dataset.from_dict(rows))
            self.data_loaded = True

    return PairsInMemory()
