"""The shelf: load once, keep little, know versions."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from scions.errors import UsageError
from scions.serving.adapter_cache import Shelf
from scions.serving.errors import ApiError


@pytest.fixture
def shelf(root, read):
    made = Shelf(root, read, memory=250)  # two adapters of 100 bytes
    made.scan()
    yield made
    made.close()


def _get(shelf, name, version=None):
    return asyncio.run(shelf.get(name, version))


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

    shelf = Shelf(root, unread, 100)
    assert shelf.scan() == 3
    assert shelf.names() == ["legal", "medical", "third"]
    assert shelf.versions("legal")[0].version is None


def test_a_root_that_is_none_is_an_error(tmp_path, read):
    with pytest.raises(UsageError, match="cannot be read as a folder of adapters"):
        Shelf(tmp_path / "none", read, 100).scan()


def test_weights_are_read_once_however_many_ask(root, read):
    reads = []
    begin = threading.Event()

    def slow(folder, name):
        begin.wait(5)
        reads.append(name)
        return read(folder, name)

    shelf = Shelf(root, slow, 1000)
    shelf.scan()

    async def ask():
        asked = [asyncio.ensure_future(shelf.get("legal")) for _ in range(20)]
        await asyncio.sleep(0)
        asked[0].cancel()  # who gives up takes nothing from the others
        await asyncio.sleep(0)
        begin.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, *others = asyncio.run(ask())
    assert isinstance(first, asyncio.CancelledError)
    assert len({id(weights) for weights in others}) == 1
    assert reads == ["legal"]
    assert (shelf.misses, shelf.hits) == (1, 0)
    assert _get(shelf, "legal") is others[0]
    assert shelf.hits == 1


def test_reading_one_does_not_keep_others_waiting(root, read, write):
    never = threading.Event()

    def stuck(folder, name):
        if name == "medical":
            never.wait(5)
        return read(folder, name)

    shelf = Shelf(root, stuck, 1000)
    shelf.scan()

    async def ask():
        waiting = asyncio.ensure_future(shelf.get("medical"))
        await asyncio.sleep(0)
        found = await shelf.get("legal")
        assert not waiting.done()
        never.set()
        await waiting
        return found

    assert asyncio.run(ask()).value == 5


def test_the_least_recently_used_is_set_aside(shelf, write):
    write("third", 1.0)
    shelf.add("third")
    _get(shelf, "legal")
    _get(shelf, "third")
    _get(shelf, "medical")
    assert shelf.loaded_bytes == 200
    assert shelf.evictions == 1
    assert {name: shelf.versions(name)[0].loaded for name in shelf.names()} == {
        "legal": False,
        "medical": True,
        "third": True,
    }
    assert _get(shelf, "legal").value == 5


def test_memory_stays_bounded_over_many_adapters(shelf, write):
    for number in range(60):
        write(f"domain-{number}", number)
    shelf.scan()
    for number in range(60):
        assert _get(shelf, f"domain-{number}").value == number
        assert shelf.loaded_bytes <= 250


def test_weights_in_use_survive_and_are_found_again_without_reading(shelf, write):
    held = _get(shelf, "legal")
    write("large", 1.0, size=200)
    shelf.add("large")
    assert not shelf.versions("legal")[0].loaded
    misses = shelf.misses
    assert _get(shelf, "legal") is held
    assert shelf.misses == misses


def test_weights_in_use_are_bounded_too(root, read, write):
    shelf = Shelf(root, read, memory=100)
    for number in range(4):
        write(f"d{number}", number)
    shelf.scan()
    held = [_get(shelf, f"d{number}") for number in range(3)]
    with pytest.raises(ApiError, match="Too many adapters are in use") as refused:
        _get(shelf, "d3")
    assert refused.value.status == 429
    held.clear()
    assert _get(shelf, "d3").value == 3


def test_a_version_read_from_the_same_folder_stays_until_it_is_removed(shelf, write, read, root):
    old = _get(shelf, "legal").version
    write("legal", 6.0)
    new, is_new = shelf.add("legal")
    assert is_new
    assert _get(shelf, "legal").value == 6
    assert _get(shelf, "legal", old).value == 5
    assert _get(shelf, "legal", new).value == 6
    _get(shelf, "medical")  # memory is short, and the old one can be had nowhere else
    assert _get(shelf, "legal", old).value == 5
    assert [(v.version, v.kept) for v in shelf.versions("legal")] == [(new, False), (old, True)]
    assert shelf.remove("legal", old) == [old]
    with pytest.raises(ApiError, match="does not exist"):
        _get(shelf, "legal", old)
    assert _get(shelf, "legal").value == 6


def test_versions_in_folders_of_their_own_cost_no_memory(shelf, write):
    old = _get(shelf, "legal").version
    write("legal-2", 6.0)
    shelf.add("legal-2", "legal")
    write("large", 1.0, size=250)
    shelf.add("large")
    assert shelf.loaded_bytes == 250
    assert _get(shelf, "legal", old).value == 5
    assert _get(shelf, "legal").value == 6


def test_removing_the_newest_brings_the_one_before_back(shelf, write):
    _get(shelf, "legal")
    write("legal-2", 6.0)
    new, _ = shelf.add("legal-2", "legal")
    shelf.remove("legal", new)
    assert _get(shelf, "legal").value == 5


def test_old_versions_do_not_outgrow_the_memory(shelf, write):
    _get(shelf, "legal")
    write("legal", 6.0)
    shelf.add("legal")
    write("legal", 7.0)
    with pytest.raises(ApiError, match="remove some") as refused:
        shelf.add("legal")
    assert refused.value.status == 409
    assert _get(shelf, "legal").value == 6


def test_reading_an_unchanged_folder_again_adds_nothing(shelf):
    first = _get(shelf, "legal").version
    assert shelf.add("legal") == (first, False)
    assert len(shelf.versions("legal")) == 1


def test_a_folder_that_changed_unannounced_is_refused(shelf, write):
    version = _get(shelf, "legal").version
    write("legal", 9.0)
    write("large", 1.0, size=250)
    shelf.add("large")  # sets legal aside
    while len(shelf._alive) > 1:  # the thread that read it may not have let go of it yet
        time.sleep(0.001)
    with pytest.raises(ApiError, match=f"not {version} any more; take the new one up"):
        _get(shelf, "legal")
    shelf.add("legal")
    assert _get(shelf, "legal").value == 9


def test_removed_while_it_is_read(root, read):
    begin = threading.Event()

    def slow(folder, name):
        begin.wait(5)
        return read(folder, name)

    shelf = Shelf(root, slow, 1000)
    shelf.scan()

    async def ask():
        asked = asyncio.ensure_future(shelf.get("legal"))
        await asyncio.sleep(0)
        shelf.remove("legal")
        begin.set()
        return await asked

    assert asyncio.run(ask()).value == 5
    assert shelf.loaded_bytes == 0
    with pytest.raises(ApiError):
        _get(shelf, "legal")


@pytest.mark.parametrize("folder", ["../outside", "a/b", "..", ".", "/etc", ".hidden", "", "a\\b", "a\0b", "link"])
def test_only_a_folder_under_the_root_can_be_added(shelf, root, tmp_path, folder, write):
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ApiError) as refused:
        shelf.add(folder, "legal2")
    assert refused.value.status == 400


def test_adding_what_is_not_there_or_damaged(shelf, write):
    with pytest.raises(ApiError, match="there is no such folder") as missing:
        shelf.add("nobody")
    write("broken", 1.0).joinpath("adapter_model.safetensors").write_text("x")
    with pytest.raises(ApiError, match="adapter 'broken' cannot be used") as damaged:
        shelf.add("broken")
    with pytest.raises(ApiError, match="reserved"):
        shelf.add("legal", "base")
    assert (missing.value.status, damaged.value.status) == (404, 409)
    assert "broken" not in shelf.names()


def test_many_threads_add_get_and_remove(root, read, write):
    shelf = Shelf(root, read, memory=1000)
    shelf.scan()
    write("legal-2", 6.0)
    stop = time.monotonic() + 0.5
    problems = []

    def change():
        while time.monotonic() < stop:
            version, _ = shelf.add("legal-2", "legal")
            shelf.remove("legal", version)

    async def use():
        while time.monotonic() < stop:
            try:
                assert (await shelf.get("legal")).value in (5, 6)
            except Exception as error:
                problems.append(error)
            await asyncio.sleep(0)

    changing = threading.Thread(target=change)
    changing.start()
    asyncio.run(use())
    changing.join()
    assert problems == []
    assert len(shelf.versions("legal")) == 1
