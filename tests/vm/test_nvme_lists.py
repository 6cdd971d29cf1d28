"""Lists of addresses that the driver keeps with the map of a buffer in small pieces, so that commands point into them instead of bringing a list of their own.

A page of such a list has the addresses of 511 pages, and that of the next page of the list at the end. The controller takes the end for the address of
data if it is the last one that a command needs: such commands bring their own. The list begins at the second place of its first page, so that large
requests at multiples of their size are not among these.
"""

import contextlib
import os
import random

import pytest

import guest
from dmabuf import TestBuffer
from machine import software_controller
from test_token_vectors import scattered
from token_fixtures import *  # noqa: F403
from token_words import KIB, MIB, expect, opened, random_bytes, sgl_threshold
from uring import Ring

PAGE, SECTOR = 4096, 512
ENTRIES = 511  # of a page of the list, of which the first page has one less
SIZE = 8 * MIB
PAGES = SIZE // PAGE
CONTENT, NEW = random_bytes(SIZE, seed=51), random_bytes(SIZE, seed=52)


@pytest.fixture(scope="module")
def large():
    """It takes 8 MiB at once, so that a command needs up to five pages of the list."""
    with software_controller() as nvme:
        yield nvme


@pytest.fixture(scope="module")
def spare(nvme):
    """2 MiB at once, which is as many pages as a page of the list has addresses, and one more."""
    return guest.Nvme("spare")


@pytest.fixture
def kept():
    """A buffer in single pages, with a controller that gets PRP lists."""
    with TestBuffer(SIZE) as buffer, sgl_threshold(0):
        yield buffer


@pytest.fixture
def lists_made(trace):
    """Counts the lists that commands of this task bring."""
    with guest.returns_of("dma_pool_alloc") as event:
        yield lambda: trace(event, where=f"common_pid == {os.getpid()}")


def needs_its_own(first, pages):
    """Whether the last address is the first one of a page of the list; that of the first page of the buffer is in the command."""
    last = first + pages - 1
    return last > first + 1 and (last + 1) % ENTRIES == 0


def edges():
    """(first page, pages): each first page near an end of a page of the list, with numbers that reach around each of the ends behind it."""
    for first in (0, 1, 507, 508, 509, 510, 511, 1019, 1020, 1021, 1022, 1531):
        numbers = {1, 2, 3, ENTRIES, ENTRIES + 1, PAGES - first}
        for last in range(ENTRIES - 1, PAGES, ENTRIES):
            numbers |= {last - first + near for near in range(-1, 4)}
        yield from ((first, pages) for pages in sorted(numbers) if 0 < pages <= PAGES - first)


def transfer(ring, fd, buffer, model, first, pages, begin, end):
    """A read, and a write of the same place of the buffer; the first page begins and the last ends so many bytes later and earlier."""
    memory, disk = model
    place, length = first * PAGE + begin, pages * PAGE - begin - end
    what = f"{length} bytes at {place}: pages {first} to {first + pages - 1}"
    start = (place + 7 * SECTOR) % (SIZE - length + SECTOR)
    assert ring.read_fixed(fd, place, length, start) == length, what
    memory[place : place + length] = disk[start : start + length]
    expect(buffer[:], bytes(memory), f"read of {what}")


@contextlib.contextmanager
def written(nvme, buffer):
    """(ring, descriptor) of the controller, with CONTENT on it, and NEW in the buffer, which is registered."""
    with Ring() as ring, opened(nvme.device) as fd:
        ring.register_dmabuf(0, buffer, fd)
        buffer[:] = CONTENT
        assert ring.write_fixed(fd, 0, SIZE, 0) == SIZE
        buffer[:] = NEW
        yield ring, fd


def test_reads_around_the_ends_of_the_lists(large, kept, lists_made):
    """Each page is where it belongs; the lists are used whenever they can be, as no command brings one of its own then."""
    with written(large, kept) as (ring, fd), lists_made() as made:
        model = bytearray(NEW), CONTENT
        for number, (first, pages) in enumerate(edges()):
            begin, end = [(0, 0), (SECTOR, 0), (0, SECTOR), (PAGE - SECTOR, PAGE - SECTOR)][number % 4]
            if pages * PAGE <= begin + end:
                begin = end = 0
            before = made.update().hits
            transfer(ring, fd, kept, model, first, pages, begin, end)
            assert (made.update().hits > before) == needs_its_own(first, pages), f"pages {first} to {first + pages - 1}"


@pytest.mark.parametrize("pages", [16, 256, 512, 1024])
def test_requests_at_multiples_of_their_size_bring_no_list(large, kept, lists_made, pages):
    """Which is how most programs cut a large buffer."""
    with Ring() as ring, opened(large.device) as fd:
        ring.register_dmabuf(0, kept, fd)
        with lists_made() as made:
            for place in range(0, SIZE, pages * PAGE):
                assert ring.read_fixed(fd, place, pages * PAGE, 0) == pages * PAGE
        assert made.hits == 0


def test_writes_around_the_ends_of_the_lists(large, kept):
    chance = random.Random(3)
    with written(large, kept) as (ring, fd):
        disk = bytearray(CONTENT)
        for number, (first, pages) in enumerate(chance.sample(list(edges()), 40)):
            place, length = first * PAGE, pages * PAGE
            start = chance.randrange((SIZE - length) // SECTOR + 1) * SECTOR
            assert ring.write_fixed(fd, place, length, start) == length
            disk[start : start + length] = NEW[place : place + length]
        expect(kept[:], NEW, "the buffer")
        assert ring.read_fixed(fd, 0, SIZE, 0) == SIZE
        expect(kept[:], bytes(disk))


def test_all_sizes_on_a_controller_of_2_mib(spare, kept):
    """Where larger requests are cut into commands, which begin anywhere in the list."""
    chance = random.Random(4)
    with written(spare, kept) as (ring, fd):
        model = bytearray(NEW), CONTENT
        for _ in range(20):
            first = chance.choice([0, 1, 509, 510, 511, 700])
            transfer(ring, fd, kept, model, first, chance.choice([1, 2, 511, 512, 513, 1024, PAGES - first]), 0, chance.choice([0, SECTOR]))
        transfer(ring, fd, kept, model, 0, PAGES, 0, 0)
        transfer(ring, fd, kept, model, 0, PAGES, SECTOR, SECTOR)


def test_a_move_makes_new_lists(large, kept, lists_made):
    with Ring() as ring, opened(large.device) as fd:
        ring.register_dmabuf(0, kept, fd)
        kept[:] = CONTENT
        assert ring.write_fixed(fd, 0, SIZE, 0) == SIZE
        for i in range(3):
            kept.move()
            assert ring.read_fixed(fd, 0, PAGE, 0) == PAGE   # makes the map, for which a worker is needed
            kept[:] = NEW
            with lists_made() as made:
                assert ring.read_fixed(fd, 0, SIZE - PAGE, PAGE) == SIZE - PAGE
            expect(kept[:], CONTENT[PAGE:] + NEW[-PAGE:])
            assert made.hits == 0
        assert kept.stats.dirty == 0


@pytest.mark.parametrize("order, kept_lists", [(0, True), (3, True), (4, False), (11, False)], ids=["4 KiB", "32 KiB", "64 KiB", "8 MiB"])
def test_lists_are_kept_for_small_pieces_only(large, lists_made, order, kept_lists):
    """Up to 32 KiB. Larger pieces would need them less than the memory is worth."""
    with TestBuffer(SIZE, order) as buffer, Ring() as ring, opened(large.device) as fd, sgl_threshold(0):
        buffer[:] = NEW
        ring.register_dmabuf(0, buffer, fd)
        assert ring.write_fixed(fd, 0, SIZE, 0) == SIZE
        buffer.fill()
        with lists_made() as made:
            assert ring.read_fixed(fd, 0, SIZE, 0) == SIZE
        expect(buffer[:], NEW)
        assert (made.hits == 0) == kept_lists


def test_lists_of_places_have_lists_of_their_own(large, kept, lists_made):
    """READV_FIXED of several places, and then one place again."""
    with Ring() as ring, opened(large.device) as fd:
        ring.register_dmabuf(0, kept, fd)
        kept[:] = CONTENT
        assert ring.write_fixed(fd, 0, SIZE, 0) == SIZE
        memory = bytearray(kept[:])
        ranges = scattered(random.Random(1), [PAGE * n for n in (1, 511, 512, 2, 100)], SIZE, unit=PAGE)
        with lists_made() as made:
            assert ring.readv_fixed(fd, ranges, 64 * KIB) == 1126 * PAGE
        assert made.hits > 0
        start = 64 * KIB
        for place, length in ranges:
            memory[place : place + length] = CONTENT[start : start + length]
            start += length
        expect(kept[:], bytes(memory))
        with lists_made() as made:
            assert ring.readv_fixed(fd, [(510 * PAGE, 600 * PAGE)], 0) == 600 * PAGE
        memory[510 * PAGE : 1110 * PAGE] = CONTENT[: 600 * PAGE]
        expect(kept[:], bytes(memory))
        assert made.hits == 0
