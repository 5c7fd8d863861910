"""The compiled kernel computes what PyTorch's operators compute, and is skipped where it is not available."""

from __future__ import annotations

import copy
import ctypes
import os
import pickle
import shutil
import subprocess
import sys
import threading
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from scions.engine.bottleneck import BottleneckSpan, BottleneckTensors, grouped_bottleneck
from scions.engine.kernels import build
from scions.engine.kernels.build import kernels
from scions.engine.kernels.int8_bottleneck import Int8Batch, Int8Bottlenecks, fits
from scions.engine.kernels.native_attention import attend
from scions.engine.precision import has_bf16

WIDTH = 64


@pytest.fixture(autouse=True)
def _needs_the_kernel(request):
    if "without" in request.node.name:
        return
    able = has_bf16(torch.device("cpu")) and any(map(shutil.which, ("g++", "clang++", "c++")))
    if not able or sys.platform != "linux" or os.environ.get("SCIONS_NATIVE") == "0":
        pytest.skip("no compiled kernel on this machine")
    assert kernels() is not None, "it does not compile"


def _part(rank: int, seed: int, norm: bool = True, parallel: bool = False) -> BottleneckTensors:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    halves = [(random(rank, WIDTH) / 8), random(rank) / 8, random(WIDTH, rank) / 8, random(WIDTH) / 8]
    norms = (random(WIDTH), random(WIDTH)) if norm else (None, None)
    return BottleneckTensors(*(half.bfloat16() for half in halves), *norms, "gelu", parallel)


def _exact(part: BottleneckTensors | None) -> BottleneckTensors | None:
    halves = ("down", "down_bias", "up", "up_bias")
    return part and part._replace(**{name: getattr(part, name).float() for name in halves})


@pytest.mark.parametrize("with_factor", [False, True])
def test_sites_are_those_of_plain_operators(with_factor):
    parts = [None, _part(3, 1), _part(32, 2, norm=False), _part(87, 3, parallel=True), None, _part(33, 4)]
    sizes = [5, 1, 16, 33, 40, 70]
    ends = np.cumsum(sizes).tolist()
    starts = [0, *ends[:-1]]
    generator = torch.Generator().manual_seed(0)
    y, residual = (torch.randn(ends[-1], WIDTH, generator=generator).bfloat16() for _ in range(2))
    gamma, beta = (torch.randn(WIDTH, generator=generator) for _ in range(2))
    factor = torch.rand(ends[-1], generator=generator) if with_factor else None
    stored = [None if part is None else Int8Bottlenecks([None, part]) for part in parts]
    rounded = [None if part is None else part.parts()[1] for part in stored]
    spans = [
        BottleneckSpan(_exact(part), start, end, None if factor is None else factor[start:end, None])
        for part, start, end in zip(rounded, starts, ends, strict=True)
    ]
    expected = grouped_bottleneck(y.float(), residual.float(), gamma, beta, 1e-12, spans)
    actual = Int8Batch(stored, starts, ends, factor, 2).run(1, y.clone(), residual, gamma, beta, 1e-12).float()
    assert torch.nn.functional.cosine_similarity(actual, expected, dim=1).min() > 0.9999
    assert torch.allclose(actual, expected, atol=0.05, rtol=0.02)
    bare = Int8Batch(stored, starts, ends, factor, 2).run(0, y.clone(), residual, gamma, beta, 1e-12).float()
    assert torch.allclose(
        bare, grouped_bottleneck(y.float(), residual.float(), gamma, beta, 1e-12, []), atol=0.05, rtol=0.02
    )


def test_a_token_does_not_depend_on_those_beside_it():
    stored, generator = Int8Bottlenecks([_part(24, 5)]), torch.Generator().manual_seed(0)
    y, residual = (torch.randn(70, WIDTH, generator=generator).bfloat16() for _ in range(2))
    gamma, beta = torch.ones(WIDTH), torch.zeros(WIDTH)
    together = Int8Batch([stored], [0], [70], None, 1).run(0, y.clone(), residual, gamma, beta, 1e-12)
    for at in (0, 31, 32, 69):
        row, beside = y[at : at + 1].clone(), residual[at : at + 1].contiguous()
        alone = Int8Batch([stored], [0], [1], None, 1).run(0, row, beside, gamma, beta, 1e-12)
        assert torch.equal(alone[0], together[at])


def test_parts_come_back_with_weights_to_within_half_a_step():
    zeros = _part(5, 3)._replace(up=torch.zeros(WIDTH, 5, dtype=torch.bfloat16))
    norm = BottleneckTensors(gamma=torch.ones(WIDTH), beta=torch.zeros(WIDTH))
    given = [_part(3, 1), None, _part(33, 2, norm=False), zeros, norm]
    for before, after in zip(given, Int8Bottlenecks(given).parts(), strict=True):
        if before is None or after is None:
            assert before is after
            continue
        for name, one, other in zip(BottleneckTensors._fields, before, after, strict=True):
            if name in ("down", "up") and one is not None:
                # Half a step of its output's scale, and what bf16 rounds off.
                most = one.float().abs().amax(dim=1, keepdim=True)
                assert other.dtype == torch.bfloat16
                assert ((one.float() - other.float()).abs() <= most / 254 + other.float().abs() / 256).all()
            else:
                assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("flags", [build.WITHOUT_TILES, (*build.WITHOUT_TILES, "-mno-avx512vbmi")])
def test_less_able_processors_get_the_same(flags, monkeypatch):
    stored = Int8Bottlenecks([_part(87, 5), _part(24, 6)])
    generator = torch.Generator().manual_seed(0)
    y, residual = (torch.randn(70, WIDTH, generator=generator).bfloat16() for _ in range(2))
    gamma, beta = torch.ones(WIDTH), torch.zeros(WIDTH)

    def both_sites() -> list[torch.Tensor]:
        batch = Int8Batch([stored, stored, stored], [0, 5, 38], [5, 38, 70], None, 2)
        return [batch.run(n, y.clone(), residual, gamma, beta, 1e-12).float() for n in (0, 1)]

    expected = both_sites()
    kernels.cache_clear()
    try:
        monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, *flags))
        actual = both_sites()
    finally:
        monkeypatch.undo()
        kernels.cache_clear()
    for one, other in zip(expected, actual, strict=True):
        assert torch.nn.functional.cosine_similarity(one, other, dim=1).min() > 0.9999


def test_where_the_system_refuses_the_matrix_unit_the_kernel_does_without(monkeypatch):
    tried = []

    def library(path: str) -> object:
        tried.append(path)
        loaded = ctypes.CDLL(path)
        if len(tried) == 1:
            loaded.prepare = lambda: 1
        return loaded

    kernels.cache_clear()
    try:
        monkeypatch.setattr(build, "ctypes", SimpleNamespace(**{**vars(ctypes), "CDLL": library}))
        assert kernels() is not None
        assert len(set(tried)) == 2
    finally:
        monkeypatch.undo()
        kernels.cache_clear()


def test_what_it_does_not_cover():
    assert fits([_part(3, 1), None], WIDTH)
    assert not fits([_part(3, 1)._replace(activation="relu")], WIDTH)
    assert not fits([_exact(_part(3, 1))], WIDTH)
    assert not fits([], 48)
    assert not fits([_part(2000, 1)], WIDTH)


def test_without_a_compiler_or_when_switched_off_there_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.cache_clear()
    try:
        monkeypatch.setattr(build.shutil, "which", lambda name: None)
        assert kernels() is None
        assert not fits([], WIDTH)
        kernels.cache_clear()
        monkeypatch.undo()
        monkeypatch.setenv("SCIONS_NATIVE", "0")
        assert kernels() is None
    finally:
        kernels.cache_clear()


def test_a_folder_beside_the_sources_does_no_harm(monkeypatch, tmp_path):
    shutil.copytree(build.SOURCES, tmp_path / "kernels")
    (tmp_path / "kernels" / "__pycache__").mkdir(exist_ok=True)
    monkeypatch.setattr(build, "SOURCES", tmp_path / "kernels")
    kernels.cache_clear()
    try:
        assert kernels() is not None
    finally:
        kernels.cache_clear()


def test_a_cache_others_may_write_to_is_not_loaded_from(monkeypatch, tmp_path):
    folder = tmp_path / "scions" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.cache_clear()
    try:
        assert kernels() is None
        assert not list(folder.iterdir())
    finally:
        kernels.cache_clear()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda parts: pickle.loads(pickle.dumps(parts))])
def test_a_copy_points_to_tensors_of_its_own(again):
    given = [_part(3, 1), None, BottleneckTensors(gamma=torch.ones(WIDTH), beta=torch.zeros(WIDTH))]
    parts = Int8Bottlenecks(given)
    other = again(parts)
    addresses = set(parts.table[:, :8].flatten().tolist()) - {0}
    assert not addresses & set(other.table[:, :8].flatten().tolist())
    y = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    one, two = (
        Int8Batch([p], [0], [5], None, 3).run(0, y.clone(), y, torch.ones(WIDTH), torch.zeros(WIDTH), 1e-12)
        for p in (parts, other)
    )
    assert torch.equal(one, two)


def test_handing_it_to_another_process_leaves_its_own_addresses_true():
    parts = Int8Bottlenecks([_part(3, 1), BottleneckTensors(gamma=torch.ones(WIDTH), beta=torch.zeros(WIDTH))])
    before = parts.table.copy()
    # What a spawned process, or a queue, is sent through: it moves tensors into shared memory.
    pickle.loads(bytes(ForkingPickler.dumps(parts)))
    held = [[0 if t is None else t.data_ptr() for t in part[:8]] for part in parts._stored]
    assert before[:, :8].tolist() == held


def test_a_thread_that_ends_gives_its_memory_back():
    head, tokens = 128, 512
    projected = torch.randn(tokens, 3 * head, generator=torch.Generator().manual_seed(0)).bfloat16()

    def run() -> None:
        assert attend(projected, 1, np.array([0]), np.array([tokens])) is not None

    def resident() -> int:
        for _ in range(100):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    assert resident() - resident() > -10e6


def test_it_works_in_as_many_threads_as_torch():
    script = """
import os, threading
import numpy as np, torch
from scions.engine.kernels.native_attention import attend
torch.set_num_threads(1)
projected, lengths = torch.zeros(640, 96).bfloat16(), np.full(64, 10)
starts = np.cumsum(lengths) - lengths
def run():
    before = len(os.listdir("/proc/self/task"))
    attend(projected, 1, starts, lengths)
    print(len(os.listdir("/proc/self/task")) - before)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "OMP_DYNAMIC": "false"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "0", done.stderr


def test_a_user_without_a_home_goes_without(monkeypatch):
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(build.Path, "home", home)
    kernels.cache_clear()
    try:
        assert kernels() is None
    finally:
        kernels.cache_clear()
