from __future__ import annotations

import numpy as np
import pytest

from scions.data.shapes import Shape, Table
from scions.errors import DataError, ScionsError, UsageError
from scions.evaluation import dev_score, evaluate


def two_sentences(shape, cosines, third, circle):
    names = [f"s{i}" for i in range(len(cosines))]
    key = "score" if shape is Shape.SCORED else "label"
    table = Table(shape, {"sentence1": ["base"] * len(names), "sentence2": names, key: third}, "toy")
    return table, {"base": [1, 0], **{n: circle(c) for n, c in zip(names, cosines, strict=True)}}


def test_scored_is_spearman_and_encodes_each_text_once(planted, circle):
    table, vectors = two_sentences(Shape.SCORED, [0.1, 0.5, 0.3, 0.9], [1.0, 2.0, 3.0, 4.0], circle)
    encoder = planted(vectors)
    result = evaluate(encoder, table, batch_size=3)
    assert result.primary == "spearman"
    assert result.n == 4
    assert result.value == pytest.approx(80.0)
    [(sentences, kwargs)] = encoder.calls
    assert sorted(sentences) == ["base", "s0", "s1", "s2", "s3"]
    assert kwargs == {
        "batch_size": 3,
        "show_progress_bar": False,
        "convert_to_numpy": True,
        "normalize_embeddings": True,
    }


def test_cosine_does_not_depend_on_the_encoder_normalising(planted, circle):
    table, vectors = two_sentences(Shape.SCORED, [0.1, 0.5, 0.9], [1.0, 2.0, 3.0], circle)
    vectors["s0"] = np.array(vectors["s0"]) * 1000
    assert evaluate(planted(vectors), table).value == pytest.approx(100.0)


def test_binary(planted, circle):
    table, vectors = two_sentences(Shape.BINARY, [0.9, 0.8, 0.7], [1, 0, 1], circle)
    scores = evaluate(planted(vectors), table).scores
    assert scores == pytest.approx({"average_precision": 100 * 5 / 6, "roc_auc": 50.0})


@pytest.mark.parametrize(
    ("shape", "third", "said"),
    [
        (Shape.SCORED, [2.0, 2.0], "all 2 scores equal 2"),
        (Shape.BINARY, [1, 1], "labels 0 and 1 must both occur"),
        (Shape.BINARY, [0, 2], "found 0, 2"),
    ],
)
def test_gold_that_allows_no_score_is_refused(planted, circle, shape, third, said):
    table, vectors = two_sentences(shape, [0.1, 0.2], third, circle)
    with pytest.raises(DataError, match=said):
        evaluate(planted(vectors), table)


def test_pairs_count_all_positives_of_an_equal_anchor(planted, circle):
    table = Table(Shape.PAIRS, {"anchor": ["q", "q", "r"], "positive": ["a", "b", "c"]}, "toy")
    encoder = planted(
        {"q": [1, 0], "r": [0, 1], "a": circle(0.9), "c": circle(0.8), "b": circle(0.7)},
    )
    result = evaluate(encoder, table)
    assert result.n == 2
    # q finds a, c, b (a and b relevant); r finds b, c, a (c relevant, second).
    ndcg_q = (1 + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert result.scores["ndcg@10"] == pytest.approx(100 * (ndcg_q + 1 / np.log2(3)) / 2)
    assert result.scores["mrr@10"] == pytest.approx(75.0)
    assert result.scores["map@100"] == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert result.scores["recall@10"] == 100.0


def test_triplets_put_negatives_into_the_corpus(planted, circle):
    table = Table(Shape.TRIPLETS, {"anchor": ["q"], "positive": ["a"], "negative": ["n"]}, "toy")
    encoder = planted({"q": [1, 0], "a": circle(0.5), "n": circle(0.9)})
    assert evaluate(encoder, table).scores["mrr@10"] == 50.0


def test_a_querys_own_text_is_not_in_its_way(planted, circle):
    table = Table(Shape.PAIRS, {"anchor": ["a", "b"], "positive": ["b", "a"]}, "toy")
    assert evaluate(planted({"a": [1, 0], "b": circle(0.1)}), table).value == 100.0


def test_retrieval_uses_grades_and_leaves_out_unjudged_queries(planted, circle):
    corpus = {"d1": "one", "d2": "two", "d3": "three"}
    columns = {"query": ["q", "nothing"], "relevant": [{"d1": 1.0, "d2": 2.0, "d3": 0.0}, {"d3": 0.0}]}
    encoder = planted({"q": [1, 0], "one": circle(0.9), "two": circle(0.8), "three": circle(0.1)})
    result = evaluate(encoder, Table(Shape.RETRIEVAL, columns, "toy", corpus))
    assert result.n == 1
    assert result.value == pytest.approx(100 * (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)))


def test_retrieval_names_the_row_of_a_missing_document(planted):
    table = Table(Shape.RETRIEVAL, {"query": ["q"], "relevant": [{"gone": 1.0}]}, "toy", {"d": "one"})
    with pytest.raises(DataError, match=r"toy, row 1: relevant document 'gone'"):
        evaluate(planted({}), table)


def test_retrieval_goes_through_query_and_document_prompts(planted, circle):
    class Prompted(planted):
        def encode_query(self, sentences, **kwargs):
            return self.encode(["query: " + text for text in sentences], **kwargs)

        def encode_document(self, sentences, **kwargs):
            return self.encode(["document: " + text for text in sentences], **kwargs)

    encoder = Prompted({"query: q": [1, 0], "document: a": circle(0.9)})
    assert evaluate(encoder, Table(Shape.PAIRS, {"anchor": ["q"], "positive": ["a"]}, "toy")).value == 100.0


def test_candidates_are_ranked_per_query(planted, circle):
    columns = {
        "query": ["q", "q2", "nothing to find"],
        "positive": [["a", "b"], ["c"], []],
        "negative": [["x"], [], ["x"]],
    }
    vectors = {"q": [1, 0], "q2": [1, 0], "a": circle(0.9), "x": circle(0.8), "b": circle(0.7), "c": circle(0.1)}
    result = evaluate(planted(vectors), Table(Shape.CANDIDATES, columns, "toy"))
    assert result.n == 2
    assert result.value == pytest.approx(100 * ((1 + 2 / 3) / 2 + 1) / 2)


def test_an_encoder_that_tells_nothing_apart_gains_nothing_from_ties(constant):
    columns = {"query": ["q"], "positive": [["a"]], "negative": [["x", "y", "z"]]}
    assert evaluate(constant, Table(Shape.CANDIDATES, columns, "toy")).value == 25.0
    table = Table(Shape.BINARY, {"sentence1": list("abcd"), "sentence2": list("efgh"), "label": [1, 0, 0, 0]}, "toy")
    assert evaluate(constant, table).value == 25.0


TOPICS = {"fruit": "apple pear plum cherry grape", "metal": "iron zinc lead copper nickel"}


def labelled(n, seed, topics=TOPICS):
    rng = np.random.default_rng(seed)
    labels = [list(topics)[i % len(topics)] for i in range(n)]
    texts = [" ".join(rng.choice(topics[label].split(), 4)) + f" {seed}-{i}" for i, label in enumerate(labels)]
    return Table(Shape.LABELLED, {"text": texts, "label": labels}, "topics")


def test_labelled_separable_topics_score_high_and_shuffled_labels_low(words):
    table = labelled(60, 0)
    result = evaluate(words, table, few_shot=labelled(40, 1))
    assert result.primary == "v_measure"
    assert result.scores["v_measure"] > 60
    assert result.scores["same_label_ap"] > 80
    assert result.scores["few_shot_accuracy"] > 95
    shuffled = Table(Shape.LABELLED, {**table.columns, "label": sorted(table.columns["label"])}, "shuffled")
    low = evaluate(words, shuffled, few_shot=labelled(40, 1))
    assert low.scores["v_measure"] < 20
    assert low.scores["same_label_ap"] < 65
    assert low.scores["few_shot_accuracy"] == pytest.approx(50, abs=10)


def test_dev_score_of_labelled_rows_is_same_label_ap(words):
    table = labelled(60, 0)
    assert dev_score(words, table) == evaluate(words, table).scores["same_label_ap"]


def test_few_shot_is_left_out_where_no_label_is_shared_and_refused_where_unlabelled(words):
    other = labelled(20, 1, {"bird": "crow wren owl", "fish": "cod eel carp"})
    assert "few_shot_accuracy" not in evaluate(words, labelled(30, 0), few_shot=other).scores
    with pytest.raises(UsageError, match="must be a labelled table; plain is texts"):
        evaluate(words, labelled(30, 0), few_shot=Table(Shape.TEXTS, {"text": ["a"]}, "plain"))


def test_one_label_is_refused(words):
    table = Table(Shape.LABELLED, {"text": ["a", "b"], "label": ["x", "x"]}, "toy")
    with pytest.raises(DataError, match="at least two are needed"):
        evaluate(words, table)


def test_texts_are_scored_by_their_halves(words, constant):
    texts = [" ".join(f"topic{i}w{j % 4}" for j in range(8)) for i in range(25)]
    table = Table(Shape.TEXTS, {"text": [*texts, "too short"]}, "plain")
    result = evaluate(words, table)
    assert result.primary == "halves_ndcg@10"
    assert result.n == 25
    assert result.value > 90 > 40 > evaluate(constant, table).value


def test_too_few_long_texts_ask_for_a_labelled_file(words):
    table = Table(Shape.TEXTS, {"text": ["one two three four five six seven eight"] * 30}, "plain")
    with pytest.raises(DataError, match=r"plain: 1 distinct texts .* Give more texts, or labelled files"):
        evaluate(words, table)


def test_no_rows(words):
    with pytest.raises(DataError, match="toy: there are no rows"):
        evaluate(words, Table(Shape.TEXTS, {"text": []}, "toy"))


def test_a_nan_vector_names_its_text(planted, circle):
    table, vectors = two_sentences(Shape.SCORED, [0.1, 0.2, 0.3], [1.0, 2.0, 3.0], circle)
    vectors["s1"] = [float("nan"), 0]
    with pytest.raises(ScionsError, match=r"1 of 4 texts, first for text 3: 's1'"):
        evaluate(planted(vectors), table)


def test_a_wrong_number_of_vectors_is_refused(circle):
    class Short:
        def encode(self, sentences, **kwargs):
            return np.ones((1, 2))

    table, _ = two_sentences(Shape.SCORED, [0.1, 0.2], [1.0, 2.0], circle)
    with pytest.raises(ScionsError, match=r"shape \(1, 2\) for 3 texts"):
        evaluate(Short(), table)


def test_tied_documents_give_one_figure_in_any_order_of_the_corpus(words):
    documents = {"a": "red fox", "b": "red fox", "c": "red fox", "d": "blue whale"}
    figures = set()
    for keys in ("abcd", "dcba", "cadb"):
        corpus = {key: documents[key] for key in keys}
        columns = {"query": ["red fox runs", "blue whale swims"], "relevant": [{"b": 1.0}, {"d": 1.0}]}
        found = evaluate(words, Table(Shape.RETRIEVAL, columns, "t", corpus=corpus))
        figures.add(tuple(found.scores.values()))
    assert len(figures) == 1
    # The relevant one is the third of three equal ones: it counts as found last.
    assert found.scores["mrr@10"] == pytest.approx(100 * (1 / 3 + 1) / 2)


def test_a_document_of_the_querys_own_id_is_left_out_unless_it_is_relevant(words):
    corpus = {"1": "red fox runs fast", "2": "blue whale", "3": "red hen"}
    columns = {"query": ["red fox runs", "blue whale"], "relevant": [{"3": 1.0}, {"2": 1.0}]}
    table = Table(Shape.RETRIEVAL, columns, "t", corpus=corpus, ids=["1", "2"])
    assert evaluate(words, table).scores["ndcg@10"] == pytest.approx(100)
    table.ids = None
    assert evaluate(words, table).scores["ndcg@10"] < 100
