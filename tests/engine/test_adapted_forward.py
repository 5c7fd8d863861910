"""A batch of many adapters gives the vectors that each adapter gives alone on the PEFT path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig

from scions import BottleneckConfig, DomainEncoder
from scions.engine.adapted_forward import order_by_adapter
from scions.engine.batches import batches_by_length
from scions.engine.bottleneck import BottleneckSpan, BottleneckTensors, grouped_bottleneck
from scions.store import load_base

KINDS = ("bert", "roberta", "distilbert", "mpnet", "electra")
PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
WORDS = """
    the court and seller shall claim damages a pump of engine fever in doctor trial clause network data
""".split()  # noqa: SIM905


def _texts(rows: int = 24, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size)) for size in random.integers(1, 50, rows)]


def _linear(kind: str) -> list[str]:
    return {
        "bert": ["query", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
        "distilbert": ["q_lin", "k_lin", "lin1", "lin2"],
        "mpnet": ["q", "k", "v", "o"],
    }[kind]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_peft_path(publish_on, tiny_model, adapters_aside, kind, placement):
    base = tiny_model(kind)
    publish_on(base, "legal", BottleneckConfig(rank=3, placement=placement, activation="relu"))
    plain = load_base(base, device="cpu")
    expected = {None: plain.encode(_texts())}
    plain.load_adapter(str(adapters_aside / "legal"), adapter_name="legal")
    expected["legal"] = plain.eval().encode(_texts())
    assert np.abs(expected["legal"] - expected[None]).max() > 0.02
    encoder = DomainEncoder(base, dtype="float32", device="cpu")
    assert encoder.engine == "packed"
    encoder.load_adapter("legal")
    for name, vectors in expected.items():
        np.testing.assert_allclose(encoder.encode(_texts(), adapter=name), vectors, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet"])
def test_lora_is_that_of_the_peft_path(publish_on, tiny_model, kind):
    base = tiny_model(kind)
    config = LoraConfig(r=2, lora_alpha=3, target_modules=_linear(kind))
    expected = publish_on(base, "rented", config)
    encoder = DomainEncoder(base, dtype="float32", device="cpu")
    encoder.load_adapter("rented")
    assert np.abs(expected.encode(_texts()) - encoder.encode(_texts())).max() > 0.02
    np.testing.assert_allclose(encoder.encode(_texts(), adapter="rented"), expected.encode(_texts()), atol=1e-5)


@pytest.fixture
def many(publish_on, tiny_base):
    """An encoder with adapters of every sort, and the plain model of each."""
    configs = {
        "houlsby": BottleneckConfig(rank=3),
        "wide": BottleneckConfig(rank=7, activation="tanh"),
        "upper": BottleneckConfig(rank=2, layers=1, activation="silu"),
        "pfeiffer": BottleneckConfig(rank=4, placement="pfeiffer"),
        "parallel": BottleneckConfig(rank=5, placement="parallel"),
        "normless": BottleneckConfig(rank=3, train_norms=False),
        "named": BottleneckConfig(rank=3, target_modules=["encoder.layer.1.output.dense"]),
        "rented": LoraConfig(r=2, target_modules=["query", "value"], use_rslora=True, lora_alpha=4),
    }
    models = {name: publish_on(tiny_base, name, config, seed) for seed, (name, config) in enumerate(configs.items())}
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    for name in configs:
        encoder.load_adapter(name)
    return encoder, {None: load_base(tiny_base, device="cpu"), **models}


def test_a_mixed_batch_is_every_adapter_alone(many):
    encoder, models = many
    names = [list(models)[i % len(models)] for i in range(40)]
    texts = _texts(40)
    mixed = encoder.encode(texts, adapter=names)
    for row, (text, name) in enumerate(zip(texts, names, strict=True)):
        np.testing.assert_allclose(mixed[row], models[name].encode(text), atol=1e-5, err_msg=str(name))
    # Different adapters do give different vectors of one text.
    same = encoder.encode([texts[0]] * len(models), adapter=list(models))
    assert np.abs(same[:, None] - same[None]).max(-1)[np.triu_indices(len(models), 1)].min() > 1e-3


def test_strength_scales_projections_and_norms(many):
    encoder, models = many
    for name, model in models.items():
        if name is None:
            continue
        expected = _at_strength(model, models[None], 0.5).encode(_texts())
        np.testing.assert_allclose(encoder.encode(_texts(), adapter=name, strength=0.5), expected, atol=1e-5)
        assert np.abs(expected - encoder.encode(_texts(), adapter=name)).max() > 1e-3


def test_strengths_0_and_1_are_the_base_and_the_adapter_exactly(many):
    encoder, _ = many
    texts = _texts()
    for name in encoder.adapters:
        half = [0.0, 1.0] * 12
        base, whole = encoder.encode(texts), encoder.encode(texts, adapter=name)
        np.testing.assert_array_equal(encoder.encode(texts, adapter=name, strength=0.0), base)
        np.testing.assert_array_equal(encoder.encode(texts, adapter=name, strength=1.0), whole)
        mixed = encoder.encode(texts, adapter=name, strength=half)
        np.testing.assert_allclose(mixed[::2], base[::2], atol=1e-5)
        np.testing.assert_allclose(mixed[1::2], whole[1::2], atol=1e-5)


def test_strengths_differ_within_one_adapter(many):
    encoder, _ = many
    texts, strengths = _texts(6), [0.0, 0.25, 0.5, 1.0, 2.0, -1.0]
    for name in ("houlsby", "parallel", "rented"):
        mixed = encoder.encode(texts, adapter=name, strength=strengths)
        alone = [encoder.encode(t, adapter=name, strength=s) for t, s in zip(texts, strengths, strict=True)]
        np.testing.assert_allclose(mixed, np.stack(alone), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vector_hardly_depends_on_its_batch(many, tiny_base, dtype):
    names = [list(many[1])[i % len(many[1])] for i in range(40)]
    encoder = DomainEncoder(tiny_base, dtype=dtype, device="cpu")
    for name in many[0].adapters:
        encoder.load_adapter(name)
    texts = _texts(40)
    together = encoder.encode(texts, adapter=names)
    alone = np.stack([encoder.encode(t, adapter=n) for t, n in zip(texts, names, strict=True)])
    order = np.random.default_rng(1).permutation(40)
    shuffled = encoder.encode([texts[i] for i in order], adapter=[names[i] for i in order], batch_size=7)
    assert _cosines(together, alone).min() > 0.9999
    assert _cosines(together[order], shuffled).min() > 0.9999


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_deterministic_means_exactly(many, tiny_base, dtype):
    encoder = DomainEncoder(tiny_base, dtype=dtype, deterministic=True, device="cpu")
    encoder.load_adapter("houlsby")
    texts, names = _texts(20), ["houlsby", None] * 10
    together = encoder.encode(texts, adapter=names, strength=[0.3, 1.0] * 10)
    for row in (0, 1, 18, 19):
        one = encoder.encode(texts[row], adapter=names[row], strength=0.3 if names[row] else 1.0)
        np.testing.assert_array_equal(together[row], one)


def test_bf16_is_near_float32(many, tiny_base):
    encoder, models = many
    small = DomainEncoder(tiny_base, dtype="bfloat16", device="cpu")
    for name in encoder.adapters:
        small.load_adapter(name)
    names = [list(models)[i % len(models)] for i in range(40)]
    actual, expected = small.encode(_texts(40), adapter=names), encoder.encode(_texts(40), adapter=names)
    assert actual.dtype == np.float32
    assert np.abs(actual - expected).max() > 0
    assert _cosines(actual, expected).min() > 0.999


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken", "weightedmean", ("mean", "cls")])
def test_every_pooling(tiny_base, mode):
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    plain = load_base(tiny_base, device="cpu")
    pooling = Pooling(32, mode)
    model = [plain[0], pooling, Normalize()]
    encoder = DomainEncoder(modules=model, dtype="float32", device="cpu")
    assert encoder.engine == "packed"
    plain[1] = pooling
    np.testing.assert_allclose(encoder.encode(_texts()), plain.encode(_texts()), atol=1e-5)


def test_layers_behind_the_pooling(tiny_base):
    from sentence_transformers.sentence_transformer.modules import Dense

    plain = load_base(tiny_base, device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain.append(Dense(32, 8))
    encoder = DomainEncoder(modules=list(plain), dtype="bfloat16", device="cpu")
    assert encoder.engine == "packed"
    assert encoder.encode(_texts()).shape == (24, 8)
    assert _cosines(encoder.encode(_texts()), plain.encode(_texts())).min() > 0.999


def test_a_base_that_is_trained_meanwhile_is_followed(tiny_base):
    encoder = DomainEncoder(tiny_base, dtype="float32", device="cpu")
    before = encoder.encode(_texts())
    with torch.no_grad():
        encoder[0].auto_model.encoder.layer[0].output.dense.weight.mul_(2)
    after = encoder.encode(_texts())
    assert np.abs(after - before).max() > 1e-3
    plain = load_base(tiny_base, device="cpu")
    with torch.no_grad():
        plain[0].auto_model.encoder.layer[0].output.dense.weight.mul_(2)
    np.testing.assert_allclose(after, plain.encode(_texts()), atol=1e-5)


def test_a_bottleneck_by_hand():
    y, residual = torch.tensor([[1.0, 3.0], [1.0, 3.0], [2.0, 0.0]]), torch.tensor([[1.0, 1.0]] * 3)
    part = BottleneckTensors(
        torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), torch.tensor([[1.0], [0.0]]), torch.tensor([0.0, -3.0]),
        torch.tensor([2.0, 2.0]), torch.tensor([1.0, 1.0]), "relu",
    )  # fmt: skip
    spans = [BottleneckSpan(None, 0, 1), BottleneckSpan(part, 1, 3, torch.tensor([[1.0], [0.5]]))]
    actual = grouped_bottleneck(y, residual, torch.ones(2), torch.zeros(2), 0.0, spans)
    # Row 1: y + [2, -3] + 1 = [4, 1]: 2 * [1, -1] + 1. Row 2: y + [1.5, -1.5] + 1 = [4.5, -0.5]: gamma 1.5, beta 0.5.
    torch.testing.assert_close(actual, torch.tensor([[-1.0, 1.0], [3.0, -1.0], [2.0, -1.0]]))


def test_rows_of_an_adapter_are_neighbors():
    a, b = object(), object()
    assert order_by_adapter([a, None, b, a, None, b]).tolist() == [1, 4, 0, 3, 2, 5]  # type: ignore[list-item]


def test_batches_are_of_like_length_and_bounded():
    lengths = np.array([3, 50, 7, 50, 8, 200])
    batches = batches_by_length(lengths, tokens=100)
    assert [batch.tolist() for batch in batches] == [[5], [1, 3], [4, 2, 0]]
    assert [len(batch) for batch in batches_by_length(lengths, rows=2, tokens=1000)] == [2, 2, 2]
    assert batches_by_length(np.array([], dtype=np.int64)) == []


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@torch.no_grad()
def _at_strength(model, base, strength: float):
    """``model`` with its adapter's parameters scaled as a strength is defined."""
    own = dict(base[0].auto_model.named_parameters())
    for key, parameter in model[0].auto_model.named_parameters():
        if ".bottleneck_up." in key or ".lora_B." in key:
            parameter.mul_(strength)
        elif ".bottleneck_norm." in key:
            gamma = own[key.replace(".bottleneck_norm.default", "")]
            parameter.copy_(gamma + strength * (parameter - gamma))
    return model


@pytest.mark.parametrize("kind", ["modernbert", "qwen3"])
def test_other_architectures_take_the_peft_path(publish_on, tiny_model, kind):
    base: Path = tiny_model(kind)
    models = {
        "legal": publish_on(base, "legal", BottleneckConfig(rank=3), 1),
        "parallel": publish_on(base, "parallel", BottleneckConfig(rank=4, placement="parallel"), 2),
    }
    encoder = DomainEncoder(base, dtype="float32", device="cpu")
    assert encoder.engine == "peft"
    before = encoder.encode(_texts())
    for name in models:
        encoder.load_adapter(name)
    names = ["legal", None, "parallel"] * 8
    mixed = encoder.encode(_texts(), adapter=names)
    for name, model in models.items():
        rows = [i for i, other in enumerate(names) if other == name]
        np.testing.assert_allclose(mixed[rows], model.encode(_texts())[rows], atol=1e-5)
    np.testing.assert_allclose(mixed[1::3], before[1::3], atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(_texts()), before)
    half = _at_strength(models["legal"], load_base(base, device="cpu"), 0.5).encode(_texts())
    np.testing.assert_allclose(encoder.encode(_texts(), adapter="legal", strength=0.5), half, atol=1e-5)
    assert np.abs(half - before).max() > 1e-3
    np.testing.assert_array_equal(encoder.encode(_texts(), adapter="legal", strength=0), before)
    again = DomainEncoder(base, dtype="bfloat16", deterministic=True, device="cpu")
    again.load_adapter("legal")
    assert _cosines(again.encode(_texts(), adapter="legal"), encoder.encode(_texts(), adapter="legal")).min() > 0.999
