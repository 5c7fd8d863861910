"""The adapter cache: load once, bounded memory, versions."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from scions.errors import UsageError
from scions.serving.adapter_cache import AdapterCache
from scions.serving.errors import ApiError


@pytest.fixture
def adapter_cache(root, read):
    made = AdapterCache(root, read, memory=250)  # two adapters of 100 bytes
    made.scan()
    yield made
    made.close()


def _get(adapter_cache, name, version=None):
    return asyncio.run(adapter_cache.get(name, version))


def test_scanning_registers_what_is_an_adapter_and_reads_no_weights(root, write, tmp_path):
    write("third", 1.0)
    (root / ".hidden").mkdir()
    (root / "empty").mkdir()
    (root / "base").mkdir()  # no name for an adapter
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "adapter_config.json").write_text("{}")
    (root / "link").symlink_to(outside)

    def unread(folder, name):
        raise AssertionError

    adapter_cache = AdapterCache(root, unread, 100)
    assert adapter_cache.scan() == 3
    assert adapter_cache.names() == ["legal", "medical", "third"]
    assert adapter_cache.versions("legal")[0].version is None


def test_a_root_that_is_no_folder_is_an_error(tmp_path, read):
    with pytest.raises(UsageError, match="cannot be read as a folder of adapters"):
        AdapterCache(tmp_path / "none", read, 100).scan()


def test_weights_are_read_once_however_many_ask(root, read):
    reads = []
    begin = threading.Event()

    def slow(folder, name):
        begin.wait(5)
        reads.append(name)
        return read(folder, name)

    adapter_cache = AdapterCache(root, slow, 1000)
    adapter_cache.scan()

    async def ask():
        asked = [asyncio.ensure_future(adapter_cache.get("legal")) for _ in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()  # others still get the weights
        await asyncio.sleep(0)
        begin.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, *others = asyncio.run(ask())
    assert isinstance(first, asyncio.CancelledError)
    assert len({id(weights) for weights in others}) == 1
    assert reads == ["legal"]
    assert (adapter_cache.misses, adapter_cache.hits) == (1, 0)
    assert _get(adapter_cache, "legal") is others[0]
    assert adapter_cache.hits == 1


def test_reading_one_does_not_keep_others_waiting(root, read, write):
    never = threading.Event()

    def stuck(folder, name):
        if name == "medical":
            never.wait(5)
        return read(folder, name)

    adapter_cache = AdapterCache(root, stuck, 1000)
    adapter_cache.scan()

    async def ask():
        waiting = asyncio.ensure_future(adapter_cache.get("medical"))
        await asyncio.sleep(0)
        weights = await adapter_cache.get("legal")
        assert not waiting.done()
        never.set()
        await waiting
        return weights

    assert asyncio.run(ask()).value == 5


def test_the_least_recently_used_is_evicted(adapter_cache, write):
    write("third", 1.0)
    adapter_cache.add("third")
    _get(adapter_cache, "legal")
    _get(adapter_cache, "third")
    _get(adapter_cache, "medical")
    assert adapter_cache.loaded_bytes == 200
    assert adapter_cache.evictions == 1
    assert {name: adapter_cache.versions(name)[0].loaded for name in adapter_cache.names()} == {
        "legal": False,
        "medical": True,
        "third": True,
    }
    assert _get(adapter_cache, "legal").value == 5


def test_memory_stays_bounded_over_many_adapters(adapter_cache, write):
    for number in range(60):
        write(f"domain-{number}", number)
    adapter_cache.scan()
    for number in range(60):
        assert _get(adapter_cache, f"domain-{number}").value == number
        assert adapter_cache.loaded_bytes <= 250


def test_weights_in_use_survive_and_are_found_again_without_reading(adapter_cache, write):
    held = _get(adapter_cache, "legal")
    write("large", 1.0, size=200)
    adapter_cache.add("large")
    assert not adapter_cache.versions("legal")[0].loaded
    misses = adapter_cache.misses
    assert _get(adapter_cache, "legal") is held
    assert adapter_cache.misses == misses


def test_weights_in_use_are_bounded_too(root, read, write):
    adapter_cache = AdapterCache(root, read, memory=100)
    for number in range(4):
        write(f"d{number}", number)
    adapter_cache.scan()
    held = [_get(adapter_cache, f"d{number}") for number in range(3)]
    with pytest.raises(ApiError, match="Too many adapters are in use") as refused:
        _get(adapter_cache, "d3")
    assert refused.value.status == 429
    held.clear()
    assert _get(adapter_cache, "d3").value == 3


def test_a_version_read_from_the_same_folder_stays_until_it_is_removed(adapter_cache, write, read, root):
    old = _get(adapter_cache, "legal").version
    write("legal", 6.0)
    new, is_new = adapter_cache.add("legal")
    assert is_new
    assert _get(adapter_cache, "legal").value == 6
    assert _get(adapter_cache, "legal", old).value == 5
    assert _get(adapter_cache, "legal", new).value == 6
    _get(adapter_cache, "medical")  # memory is short, and the old version is nowhere else
    assert _get(adapter_cache, "legal", old).value == 5
    assert [(v.version, v.kept) for v in adapter_cache.versions("legal")] == [(new, False), (old, True)]
    assert adapter_cache.remove("legal", old) == [old]
    with pytest.raises(ApiError, match="does not exist"):
        _get(adapter_cache, "legal", old)
    assert _get(adapter_cache, "legal").value == 6


def test_versions_in_folders_of_their_own_cost_no_memory(adapter_cache, write):
    old = _get(adapter_cache, "legal").version
    write("legal-2", 6.0)
    adapter_cache.add("legal-2", "legal")
    write("large", 1.0, size=250)
    adapter_cache.add("large")
    assert adapter_cache.loaded_bytes == 250
    assert _get(adapter_cache, "legal", old).value == 5
    assert _get(adapter_cache, "legal").value == 6


def test_removing_the_newest_brings_the_one_before_back(adapter_cache, write):
    _get(adapter_cache, "legal")
    write("legal-2", 6.0)
    new, _ = adapter_cache.add("legal-2", "legal")
    adapter_cache.remove("legal", new)
    assert _get(adapter_cache, "legal").value == 5


def test_old_versions_do_not_outgrow_the_memory(adapter_cache, write):
    _get(adapter_cache, "legal")
    write("legal", 6.0)
    adapter_cache.add("legal")
    write("legal", 7.0)
    with pytest.raises(ApiError, match="remove some") as refused:
        adapter_cache.add("legal")
    assert refused.value.status == 409
    assert _get(adapter_cache, "legal").value == 6


def test_reading_an_unchanged_folder_again_adds_nothing(adapter_cache):
    first = _get(adapter_cache, "legal").version
    assert adapter_cache.add("legal") == (first, False)
    assert len(adapter_cache.versions("legal")) == 1


def test_a_folder_that_changed_unannounced_is_refused(adapter_cache, write):
    version = _get(adapter_cache, "legal").version
    write("legal", 9.0)
    write("large", 1.0, size=250)
    adapter_cache.add("large")  # evicts legal
    while len(adapter_cache._alive) > 1:  # the thread that read it may not have let go of it yet
        time.sleep(0.001)
    with pytest.raises(ApiError, match=f"not {version}; register the new one"):
        _get(adapter_cache, "legal")
    adapter_cache.add("legal")
    assert _get(adapter_cache, "legal").value == 9


def test_removed_while_it_is_read(root, read):
    begin = threading.Event()

    def slow(folder, name):
        begin.wait(5)
        return read(folder, name)

    adapter_cache = AdapterCache(root, slow, 1000)
    adapter_cache.scan()

    async def ask():
        asked = asyncio.ensure_future(adapter_cache.get("legal"))
        await asyncio.sleep(0)
        adapter_cache.remove("legal")
        begin.set()
        return await asked

    assert asyncio.run(ask()).value == 5
    assert adapter_cache.loaded_bytes == 0
    with pytest.raises(ApiError):
        _get(adapter_cache, "legal")


@pytest.mark.parametrize("folder", ["../outside", "a/b", "..", ".", "/etc", ".hidden", "", "a\\b", "a\0b", "link"])
def test_only_a_folder_under_the_root_can_be_added(adapter_cache, root, tmp_path, folder, write):
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ApiError) as refused:
        adapter_cache.add(folder, "legal2")
    assert refused.value.status == 400


def test_adding_what_is_not_there_or_damaged(adapter_cache, write):
    with pytest.raises(ApiError, match="there is no such folder") as missing:
        adapter_cache.add("nobody")
    write("broken", 1.0).joinpath("adapter_model.safetensors").write_text("x")
    with pytest.raises(ApiError, match="adapter 'broken' cannot be used") as damaged:
        adapter_cache.add("broken")
    with pytest.raises(ApiError, match="reserved"):
        adapter_cache.add("legal", "base")
    assert (missing.value.status, damaged.value.status) == (404, 409)
    assert "broken" not in adapter_cache.names()


def test_many_threads_add_get_and_remove(root, read, write):
    adapter_cache = AdapterCache(root, read, memory=1000)
    adapter_cache.scan()
    write("legal-2", 6.0)
    stop = time.monotonic() + 0.5
    problems = []

    def change():
        while time.monotonic() < stop:
            version, _ = adapter_cache.add("legal-2", "legal")
            adapter_cache.remove("legal", version)

    async def use():
        while time.monotonic() < stop:
            try:
                assert (await adapter_cache.get("legal")).value in (5, 6)
            except Exception as error:
                problems.append(error)
            await asyncio.sleep(0)

    changing = threading.Thread(target=change)
    changing.start()
    asyncio.run(use())
    changing.join()
    assert problems == []
    assert len(adapter_cache.versions("legal")) == 1
