"""Two copies of a text without half of its tokens each."""

from __future__ import annotations

import numpy as np
import pytest

from scions.data import Shape, Table
from scions.store import load_base
from scions.training.batches import plan_batches
from scions.training.examples import to_examples
from scions.training.objectives.token_deletion import DeletionSteps
from scions.training.tokens import Tokens

TEXTS = ["the court held that the appeal was out of time", "a contract needs an offer and its acceptance", "law", "tax"]


@pytest.fixture
def steps(tiny_base):
    def make(texts, seed=0, prompt="", packed=False):
        model = load_base(tiny_base, device="cpu")
        examples = to_examples(Table(Shape.TEXTS, {"text": texts}, "t"), "deletion", document_prompt=prompt)
        tokens = Tokens(model, examples.texts, 64)
        batches = plan_batches(examples, 4, 3, seed)
        return DeletionSteps(batches, tokens, examples, packed=packed, seed=seed, prompt=prompt), tokens

    return make


def _copies(item, tokens):
    found = {}
    for places, features in item["pieces"]:
        for place, ids, seen in zip(places, features["input_ids"], features["attention_mask"], strict=True):
            found[int(place)] = ids[seen.bool()].tolist()
    return [found[place] for place in range(len(found))]


def test_copies_keep_order_specials_and_about_half(steps):
    made, tokens = steps(TEXTS * 50)
    special, shares = set(tokens.tokenizer.all_special_ids), []
    for step in range(3):
        copies = _copies(made[step], tokens)
        for place, copy in zip(made.batches[step].columns.ravel(), copies, strict=True):
            whole = tokens.ids[place]
            rest = iter(whole)
            assert all(one in rest for one in copy)  # a subsequence
            assert (copy[0], copy[-1]) == (whole[0], whole[-1])
            own = [one for one in whole if one not in special]
            kept = [one for one in copy if one not in special]
            assert kept
            if len(own) > 5:
                shares.append(len(kept) / len(own))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.12)


def test_copies_of_a_text_differ_and_follow_from_seed_and_step(steps):
    first, again, other = (steps(TEXTS, seed)[0] for seed in (1, 1, 2))
    tokens = first.tokens
    one = _copies(first[0], tokens)
    columns = first.batches[0].columns
    longest = int(np.argmax([len(tokens.ids[place]) for place in columns[:, 0]]))
    assert one[2 * longest] != one[2 * longest + 1]
    assert one == _copies(again[0], tokens)
    assert one != _copies(first[1], tokens)
    assert one != _copies(other[0], tokens)


def test_prompts_stay(steps):
    made, tokens = steps(TEXTS, prompt="law the court ")
    start = tokens.tokenizer("law the court ", add_special_tokens=False)["input_ids"]
    for copy in _copies(made[0], tokens):
        assert copy[1 : 1 + len(start)] == start


def test_every_other_text_of_the_batch_is_a_negative(steps):
    made, _ = steps(TEXTS)
    item = made[0]
    assert not item["mask"].any()
    assert item["index"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_packed_and_padded_copies_are_the_same(steps):
    padded, tokens = steps(TEXTS)
    packed, _ = steps(TEXTS, packed=True)
    flat = {}
    for places, features in packed[1]["pieces"]:
        for place, ids in zip(places, features["input_ids"].split(features["lengths"].tolist()), strict=True):
            flat[int(place)] = ids.tolist()
    assert [flat[place] for place in range(len(flat))] == _copies(padded[1], tokens)
