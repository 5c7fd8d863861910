"""One decision for texts that belong together, the base's own where no domain fits."""

from __future__ import annotations

import numpy as np
import pytest

from scions.errors import UsageError
from scions.routing.decision import Calibration, calibrate, decide, decide_rows
from scions.routing.domains import Domains

RNG = np.random.default_rng(0)
CENTRES = {"law": [0.6, 0, 0, 0, 0, 0], "medicine": [0, 0.6, 0, 0, 0, 0]}


def around(centre: list[float], n: int = 50) -> np.ndarray:
    vectors = np.array(centre) + RNG.normal(0, 0.25, size=(n, 6))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


DOMAINS = Domains(tuple(CENTRES), np.array(list(CENTRES.values())), 0.05)
STRICT = Calibration(least=1.0, temperature=2.0)


@pytest.mark.parametrize("name", list(CENTRES))
def test_a_collection_goes_to_its_domain(name):
    found = decide(around(CENTRES[name]), DOMAINS, STRICT)
    assert found.adapter == name
    assert found.confidence > 0.9
    assert max(found.evidence, key=found.evidence.get) == name


def test_texts_of_no_domain_go_to_the_base():
    found = decide(around([0, 0, 0, 0, 0, 0.8]), DOMAINS, STRICT)
    assert found.adapter is None
    assert found.confidence > 0.5


def test_confidence_grows_with_the_texts():
    vectors = around(CENTRES["law"])
    assert decide(vectors[:1], DOMAINS, STRICT).confidence < decide(vectors, DOMAINS, STRICT).confidence


def test_rows_decide_alone():
    vectors = np.concatenate([around(CENTRES["law"], 5), around(CENTRES["medicine"], 5)])
    found = decide_rows(vectors, DOMAINS, STRICT)
    assert [d.adapter for d in found] == ["law"] * 5 + ["medicine"] * 5


def test_calibration_turns_as_much_away_as_it_lets_in():
    held = {name: around(centre, 200) for name, centre in CENTRES.items()}
    general = around([0, 0, 0, 0.5, 0, 0], 200)
    found = calibrate(held, general, DOMAINS)
    away = np.mean([d.adapter is None for vectors in held.values() for d in decide_rows(vectors, DOMAINS, found)])
    let_in = np.mean([d.adapter is not None for d in decide_rows(general, DOMAINS, found)])
    assert away < 0.2
    assert away == pytest.approx(let_in, abs=0.03)
    hot = calibrate({name: around(centre, 200) for name, centre in CENTRES.items()}, general, DOMAINS, size=10)
    assert decide(held["law"][:10], DOMAINS, hot).adapter == "law"


def test_what_cannot_be_decided():
    with pytest.raises(UsageError, match=r"expected \[texts, 6\]"):
        decide(np.zeros((2, 5)), DOMAINS)
    with pytest.raises(UsageError, match="expected"):
        decide(np.zeros((0, 6)), DOMAINS)
    with pytest.raises(UsageError, match="no domain 'tax'"):
        calibrate({"tax": np.zeros((2, 6))}, np.zeros((2, 6)), DOMAINS)
