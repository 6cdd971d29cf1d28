"""READV_FIXED and WRITEV_FIXED: one request for many places of a registered dma-buf, which are in the order of the file.

An iovec has an offset in the dma-buf where those of ordinary buffers have an address. A list here is [(offset, length), ...].
"""

import contextlib
import ctypes
import mmap
import os
import random
from errno import EAGAIN, EBADF, EFAULT, EINVAL, ENXIO, ESTALE

import pytest

import guest
from dmabuf import CANARY, TestBuffer
from machine import software_controller
from token_fixtures import *  # noqa: F403
from token_fixtures import TARGETS
from token_words import (
    BUFFER_SIZE, GIB, KIB, MIB, Target, attachments, expect, expect_untouched, extents, fails, in_background, on_disk, opened, random_bytes,
    set_direct, sgl_threshold, wait_for,
)  # fmt: skip
from uring import DEFER_TASKRUN, IOPOLL, IOSQE_ASYNC, IOSQE_IO_DRAIN, IOSQE_IO_LINK, READV_FIXED, SINGLE_ISSUER, SQPOLL, WRITEV_FIXED, Iovec, Ring

RWF_NOWAIT = 8
SECTOR, PAGE = 512, 4096
MOST_RANGES = 1024  # UIO_MAXIOV
SEED = int(os.environ.get("VECTORS_SEED", 0)) or random.SystemRandom().randrange(1, 1 << 32)
NEW = random_bytes(BUFFER_SIZE, seed=41)


def scattered(chance, lengths, size=BUFFER_SIZE, unit=SECTOR):
    """Places of these lengths that do not overlap, in any order, with gaps of whole units between them."""
    free = (size - sum(lengths)) // unit
    gaps = sorted(chance.choices(range(free + 1), k=len(lengths)))
    starts = [gap * unit + sum(lengths[:i]) for i, gap in enumerate(gaps)]
    ranges = list(zip(starts, lengths))
    chance.shuffle(ranges)
    return ranges


def sectors_apart(count):
    """Each with a gap behind it, and none on a page."""
    return [(i * 1024 + SECTOR, SECTOR) for i in range(count)]


def pages_backwards(count):
    return [(i * PAGE, PAGE) for i in reversed(range(count))]


_chance = random.Random(17)
LISTS = {
    "one place": [(PAGE + SECTOR, MIB + SECTOR)],
    "the whole buffer, page by page, from its end": pages_backwards(512),
    "sectors": sectors_apart(200),
    "sectors at random": scattered(_chance, [SECTOR] * 300),
    "pages at random": scattered(_chance, [PAGE] * 200, unit=PAGE),
    "all sizes": scattered(_chance, [SECTOR * n for n in (1, 1, 2, 3, 7, 8, 9, 15, 16, 17, 100, 255, 256, 300, 1024)]),
    "no gaps, but for the first and the last end": [(64 * KIB + SECTOR, PAGE - SECTOR), (0, 8 * KIB), (MIB, PAGE), (32 * KIB, PAGE + SECTOR)],
    "neighbours": [(PAGE * 3 + SECTOR * i, SECTOR) for i in range(64)],
    "offsets that are multiples of 4": [(4, PAGE), (2 * PAGE + 100, SECTOR), (BUFFER_SIZE - 3 * SECTOR - 8, 3 * SECTOR)],
    "large before small": [(SECTOR, MIB), (MIB + 512 * KIB, SECTOR), (MIB + 256 * KIB, 128 * KIB)],
}  # fmt: skip


def total(ranges):
    return sum(length for _, length in ranges)


def scatter(memory, ranges, data):
    """What a read of that data does to the memory."""
    for place, length in ranges:
        part, data = data[:length], data[length:]
        memory[place : place + len(part)] = part


def gather(memory, ranges):
    return b"".join(memory[place : place + length] for place, length in ranges)


def arrived(size, ranges, data):
    memory = bytearray([CANARY]) * size
    scatter(memory, ranges, data)
    return bytes(memory)


def readv_and_compare(ring, target, buffer, ranges, start, slot=0, what="", **more):
    """The bytes of the file are in their places, and nothing beside them."""
    buffer.fill()
    assert ring.readv_fixed(target.fd, ranges, target.base + start, slot, **more) == total(ranges), what
    expect(buffer[:], arrived(buffer.size, ranges, target.content[start : start + total(ranges)]), f"read {what}")


def writev_and_compare(ring, target, buffer, ranges, start, slot=0, what="", **more):
    """These bytes of the file change, and no others, nor the buffer."""
    buffer[:] = NEW[: buffer.size]
    assert ring.writev_fixed(target.fd, ranges, target.base + start, slot, **more) == total(ranges), what
    target.content = target.content[:start] + gather(NEW, ranges) + target.content[start + total(ranges) :]
    expect(on_disk(target), target.content, f"file after write {what}")
    expect(buffer[:], NEW[: buffer.size], f"the buffer after write {what}")


# The bytes


@pytest.mark.parametrize("target, buffer", [(target, "moving") for target in TARGETS] + [("ext4", "udmabuf"), ("ext4", "bar"), ("mount", "bar")], indirect=True)
def test_places_in_any_order(ring, target, buffer):
    ring.register_dmabuf(0, buffer, target.fd)
    for name, ranges in LISTS.items():
        start = min(3 * SECTOR, BUFFER_SIZE - total(ranges))
        readv_and_compare(ring, target, buffer, ranges, start, what=name)
        writev_and_compare(ring, target, buffer, ranges, start, what=name)


@pytest.mark.parametrize("order, threshold", [(0, 32 * KIB), (1, 0), (4, 0), (4, 1), (9, 32 * KIB)])
def test_places_in_pieces_of_any_size(ring, file, order, threshold):
    """Whichever list of addresses the controller gets where it may get either."""
    with TestBuffer(BUFFER_SIZE, order) as buffer, sgl_threshold(threshold):
        ring.register_dmabuf(0, buffer, file.fd)
        for name, ranges in LISTS.items():
            readv_and_compare(ring, file, buffer, ranges, 0, what=name)


def random_lengths(chance):
    count, most = chance.choice([(1, 2048), (2, 1024), (5, 512), (20, 128), (100, 16), (400, 4), (MOST_RANGES, 2)])
    return [SECTOR * chance.randrange(1, most + 1) for _ in range(count)]


@pytest.mark.parametrize("target", ["raw", "ext4", "fuse"], indirect=True)
def test_random_lists_do_what_a_model_does(ring, target, moving):
    """A list to write from may have a place twice. VECTORS_SEED in the environment repeats it."""
    print(f"VECTORS_SEED={SEED}")
    chance = random.Random(SEED)
    memory, file = bytearray(NEW), bytearray(target.content)
    moving[:] = NEW
    ring.register_dmabuf(0, moving, target.fd)
    for step in range(25):
        lengths = random_lengths(chance)
        while sum(lengths) > BUFFER_SIZE:
            lengths.pop()
        ranges = scattered(chance, lengths, unit=chance.choice([SECTOR, PAGE]) if all(n % PAGE == 0 for n in lengths) else SECTOR)
        start = SECTOR * chance.randrange((BUFFER_SIZE - total(ranges)) // SECTOR + 1)
        what = f"step {step}, {len(ranges)} ranges, {total(ranges)} bytes at {start}, VECTORS_SEED={SEED}"
        with sgl_threshold(chance.choice([0, 1, 32 * KIB])):
            if chance.random() < 0.6:
                assert ring.readv_fixed(target.fd, ranges, target.base + start) == total(ranges), what
                scatter(memory, ranges, file[start : start + total(ranges)])
            else:
                if chance.random() < 0.3:
                    ranges = (ranges + ranges[:3])[: MOST_RANGES]
                    while start + total(ranges) > BUFFER_SIZE:
                        ranges.pop()
                assert ring.writev_fixed(target.fd, ranges, target.base + start) == total(ranges), what
                file[start : start + total(ranges)] = gather(memory, ranges)
                expect(on_disk(target), bytes(file), f"the file after {what}")
        expect(moving[:], bytes(memory), f"the buffer after {what}")


def test_places_beyond_32_bits(ring):
    """Of the buffer, and of the device. 8 MiB of memory are behind the buffer, again and again."""
    device = guest.Nvme("spare").device
    with TestBuffer(6 * GIB, chunk_order=10, backed=8 * MIB) as buffer, opened(device) as fd:
        ring.register_dmabuf(0, buffer, fd)
        for base in (4 * GIB - PAGE, 20 * GIB + SECTOR):
            buffer[0 : 8 * MIB] = bytes(8 * MIB)
            buffer[:MIB] = NEW[:MIB]
            assert ring.write_fixed(fd, 0, MIB, base) == MIB
            buffer[0 : 8 * MIB] = bytes(8 * MIB)
            ranges = [(5 * GIB + SECTOR, 96 * KIB), (4 * GIB - PAGE + MIB, 2 * PAGE), (6 * GIB - 256 * KIB, 256 * KIB), (4 * GIB + 3 * MIB, 8 * KIB), (2 * MIB, SECTOR)]
            assert ring.readv_fixed(fd, ranges, base) == total(ranges)
            wanted = bytearray(8 * MIB)
            scatter(wanted, [(place % (8 * MIB), length) for place, length in ranges], NEW)
            expect(buffer[0 : 8 * MIB], bytes(wanted), f"from {base}")
            assert ring.writev_fixed(fd, ranges, base + 8 * MIB) == total(ranges)
            expect(on_disk(Target(device, b""), total(ranges), base + 8 * MIB), NEW[: total(ranges)])


def test_lists_larger_than_a_command_of_the_device(ring):
    """The most ranges that a request may have, each larger than a page, with gaps: many commands, which end anywhere in the ranges."""
    nvme = guest.Nvme("spare")
    with TestBuffer(8 * MIB) as buffer, opened(nvme.device) as fd:
        ring.register_dmabuf(0, buffer, fd)
        content = buffer[:] = random_bytes(8 * MIB, seed=5)
        assert ring.write_fixed(fd, 0, 8 * MIB, MIB) == 8 * MIB
        ranges = scattered(random.Random(5), [PAGE + SECTOR * (i % 5) for i in range(MOST_RANGES)], 8 * MIB)
        buffer.fill()
        assert ring.readv_fixed(fd, ranges, MIB) == total(ranges) > 4 * MIB
        expect(buffer[:], arrived(8 * MIB, ranges, content[: total(ranges)]))


# How many commands


def commands_of(nvme):
    return f"qid > 0 && ctrl_id == {nvme.controller.name.removeprefix('nvme')}"


@pytest.mark.parametrize("target", ["raw", "ext4", "mount"], indirect=True)
def test_as_few_commands_as_the_device_allows(ring, target, moving, nvme, trace):
    """One for as much as the device takes, wherever in the buffer it is."""
    ring.register_dmabuf(0, moving, target.fd)
    most = nvme.max_transfer // PAGE
    places = int((nvme.namespace / "queue/max_segments").read_text())
    for wanted, ranges in [
        (1, pages_backwards(most)), (2, pages_backwards(most + 1)), (4, pages_backwards(4 * most)), (1, sectors_apart(places)),
        (2, sectors_apart(places + 1)), (-(-MOST_RANGES // places), sectors_apart(MOST_RANGES)), (1, LISTS["no gaps, but for the first and the last end"]),
    ]:  # fmt: skip
        os.sync()   # so that the filesystem has nothing to write meanwhile
        with trace("nvme:nvme_setup_cmd", key="opcode", where=commands_of(nvme)) as commands:
            assert ring.readv_fixed(target.fd, ranges, target.base) == total(ranges)
            assert ring.writev_fixed(target.fd, ranges, target.base) == total(ranges)
        assert commands.by_key == {1: wanted, 2: wanted}, f"{len(ranges)} ranges, {total(ranges)} bytes"


@pytest.fixture(scope="module", params=[True, False], ids=["sgl", "prp-only"])
def software(request):
    """A controller that takes 8 MiB at once, and may know no SGLs: then a command ends where a range neither ends nor begins with a page."""
    with software_controller(sgls=request.param) as nvme:
        nvme.sgls = request.param
        yield nvme


def test_a_controller_without_sgls_gets_more_commands(software, trace):
    content = random_bytes(8 * MIB, seed=6)
    with TestBuffer(8 * MIB) as buffer, Ring() as ring, opened(software.device) as fd:
        buffer[:] = content
        ring.register_dmabuf(0, buffer, fd)
        assert ring.write_fixed(fd, 0, 8 * MIB, 0) == 8 * MIB
        for with_sgls, without, ranges in [
            (1, 64, sectors_apart(64)), (1, 1, pages_backwards(MOST_RANGES)), (1, 1, [(i * 8 * KIB, 8 * KIB) for i in reversed(range(MOST_RANGES))]),
            (1, 1, LISTS["no gaps, but for the first and the last end"]), (1, 3, [(0, PAGE + SECTOR), (64 * KIB, SECTOR), (32 * KIB + SECTOR, PAGE)]),
        ]:  # fmt: skip
            start = min(SECTOR * 8, 8 * MIB - total(ranges))
            buffer.fill()
            with trace("nvme:nvme_setup_cmd", key="opcode", where=commands_of(software)) as commands:
                assert ring.readv_fixed(fd, ranges, start) == total(ranges)
            expect(buffer[:], arrived(8 * MIB, ranges, content[start : start + total(ranges)]), f"{len(ranges)} ranges")
            assert commands.hits == (with_sgls if software.sgls else without), f"{len(ranges)} ranges"


def test_all_lists_on_a_controller_without_sgls(software):
    with TestBuffer(BUFFER_SIZE) as buffer, Ring() as ring, opened(software.device) as fd, contextlib.closing(Target(software.device, NEW, MIB)) as target:
        buffer[:] = NEW
        ring.register_dmabuf(0, buffer, fd)
        assert ring.write_fixed(fd, 0, BUFFER_SIZE, MIB) == BUFFER_SIZE
        ring.register_dmabuf(0, buffer, target.fd)
        for name, ranges in LISTS.items():
            readv_and_compare(ring, target, buffer, ranges, 0, what=name)
            writev_and_compare(ring, target, buffer, ranges, 0, what=name)


def test_requests_and_bytes_are_counted(ring, file, moving, trace):
    wait_for(lambda: not attachments())   # those of earlier tests
    with (
        trace("dmabuf_token:dmabuf_token_release", sums=["read_bytes", "write_bytes"]) as released,
        trace("dmabuf_token:dmabuf_token_release", sums=["requests"]) as requests,
    ):
        ring.register_dmabuf(0, moving, file.fd)
        ring.readv_fixed(file.fd, sectors_apart(100), 0)
        ring.writev_fixed(file.fd, pages_backwards(3), 0)
        ring.unregister(0)
        wait_for(lambda: released.update().hits, ring)
    assert requests.sums == {"requests": 2}
    assert released.sums == {"read_bytes": 100 * SECTOR, "write_bytes": 3 * PAGE}


# Holes and ends of files


A, B = random_bytes(64 * KIB, seed=1), random_bytes(64 * KIB, seed=2)
ODD = [(MIB, 24 * KIB), (SECTOR, 24 * KIB), (512 * KIB, 24 * KIB), (256 * KIB, 120 * KIB)]


def test_a_read_ends_short_at_a_hole(directory, token, ring, udmabuf):
    """In the midst of the third place."""
    path, _ = directory("file", A, 64 * KIB, B)
    fd = token(path).fd
    assert ring.readv_fixed(fd, ODD, 0) == 64 * KIB
    expect(udmabuf[:], arrived(BUFFER_SIZE, ODD, A))
    udmabuf.fill()
    with fails(ENXIO):
        ring.readv_fixed(fd, ODD, 64 * KIB)
    expect_untouched(udmabuf)
    assert ring.readv_fixed(fd, ODD, 128 * KIB) == 64 * KIB
    expect(udmabuf[:], arrived(BUFFER_SIZE, ODD, B))


def test_a_read_ends_short_at_the_end_of_the_file(directory, token, ring, udmabuf):
    for slot, size in enumerate([SECTOR, 30000, 24 * KIB, 48 * KIB + 1, 64 * KIB]):
        path, content = directory(f"{size}", A[:size])
        udmabuf.fill()
        assert ring.readv_fixed(token(path).fd, ODD, 0, slot) == size
        there = bytearray(udmabuf[:])
        found = gather(there, ODD)
        expect(found[:size], content, f"{size} bytes")
        end = -(-size // PAGE) * PAGE  # what follows in the last block is not said
        expect(found[end:], bytes([CANARY]) * (len(found) - end), f"behind the end at {size}")
        scatter(there, ODD, bytes([CANARY]) * total(ODD))
        expect(bytes(there), bytes([CANARY]) * BUFFER_SIZE, "beside the places")


def test_a_file_with_many_extents(directory, token, ring, udmabuf):
    """Which end anywhere in the places."""
    path, _ = directory("file")
    content = random_bytes(64 * PAGE, seed=8)
    with open(directory.backing / "file", "wb") as file, open(directory.backing / "other", "wb") as other:
        for place in range(0, len(content), PAGE):   # in turn, so that they lie apart
            os.posix_fallocate(file.fileno(), place, PAGE)
            os.posix_fallocate(other.fileno(), place, PAGE)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    assert len(extents(directory.backing / "file")) > 30
    ranges = scattered(random.Random(8), [SECTOR * (1 + i % 13) for i in range(70)])
    fd = token(path).fd
    assert ring.readv_fixed(fd, ranges, SECTOR) == total(ranges)
    expect(udmabuf[:], arrived(BUFFER_SIZE, ranges, content[SECTOR : SECTOR + total(ranges)]))


# The exporter moves the buffer


@pytest.mark.parametrize("front", ["ext4", "fuse"], indirect=True)
def test_moves_under_lists(ring, front, moving):
    """A command that has lost its map goes on where it was, with the memory that the buffer has then."""
    ring.register_dmabuf(0, moving, front.fd)
    lists = [LISTS[name] for name in ("all sizes", "sectors at random")]
    with in_background(moving.move):
        while moving.stats.moves < 6:
            for ranges in lists:
                readv_and_compare(ring, front, moving, ranges, SECTOR)
                writev_and_compare(ring, front, moving, ranges, SECTOR)
    assert moving.stats.dirty == 0
    assert moving.stats.maps - moving.stats.unmaps <= 1


@pytest.mark.parametrize("flags", [0, IOSQE_ASYNC], ids=["inline", "worker"])
def test_the_list_may_be_overwritten_after_the_call(ring, file, moving, flags):
    """Also where a worker finds the memory only later."""
    ring.register_dmabuf(0, moving, file.fd)
    moving.move()
    moving.delay_map(500)
    ranges = LISTS["all sizes"]
    number = ring.prepare_vector(READV_FIXED, file.fd, ranges, 0, flags=flags)
    ring.submit()
    ctypes.memset(ring._vectors[number], 0xFF, ctypes.sizeof(ring._vectors[number]))
    assert ring.wait() == (number, total(ranges))
    expect(moving[:], arrived(BUFFER_SIZE, ranges, file.content[: total(ranges)]))


def test_a_request_that_must_not_wait_makes_no_map(ring, front, moving):
    ranges = LISTS["all sizes"]
    ring.register_dmabuf(0, moving, front.fd)
    moving.move()
    for flags in (0, IOSQE_ASYNC):
        with fails(EAGAIN):
            ring.readv_fixed(front.fd, ranges, front.base, op_flags=RWF_NOWAIT, flags=flags)
    expect_untouched(moving)
    assert moving.stats.maps == 1
    readv_and_compare(ring, front, moving, ranges, 0)
    small = sectors_apart(16)   # of one command, for which nothing is waited for
    readv_and_compare(ring, front, moving, small, 0, op_flags=RWF_NOWAIT)


# Rings


@pytest.mark.parametrize("flags", [0, SINGLE_ISSUER | DEFER_TASKRUN, SQPOLL, IOPOLL], ids=["plain", "defer-taskrun", "sqpoll", "iopoll"])
@pytest.mark.parametrize("target", ["raw"], indirect=True)
def test_many_requests_at_once(target, moving, flags):
    size, count = 32 * KIB, 16
    lists = [scattered(random.Random(i), [SECTOR * n for n in (1, 3, 20, 40)], size) for i in range(count)]
    with Ring(64, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for sqe_flags in (0, IOSQE_ASYNC, IOSQE_IO_LINK, IOSQE_IO_DRAIN):
            for opcode in READV_FIXED, WRITEV_FIXED:
                moving[:] = NEW
                wanted, content = bytearray(NEW), bytearray(target.content)
                numbers = {}
                for i, ranges in enumerate(lists):
                    there, start = [(i * size + place, length) for place, length in ranges], (count - 1 - i) * size
                    more = 0 if i == count - 1 else sqe_flags
                    number = ring.prepare_vector(opcode, target.fd, there, target.base + start, flags=more)
                    numbers[number] = total(ranges)
                    if opcode == READV_FIXED:
                        scatter(wanted, there, target.content[start : start + total(ranges)])
                    else:
                        content[start : start + total(ranges)] = gather(NEW, there)
                ring.submit()
                assert ring.wait_all(count) == numbers
                expect(moving[:], bytes(wanted), f"the buffer, {sqe_flags=}")
                target.content = bytes(content)
                expect(on_disk(target), target.content, f"the file, {sqe_flags=}")


def test_two_rings_with_the_same_buffer(front, moving):
    with Ring() as first, Ring() as second:
        for ring in first, second:
            ring.register_dmabuf(0, moving, front.fd)
        for name in ("all sizes", "sectors"):
            readv_and_compare(first, front, moving, LISTS[name], 0)
            readv_and_compare(second, front, moving, LISTS[name], SECTOR)
            writev_and_compare(second, front, moving, LISTS[name], PAGE)


def test_ordinary_buffers_beside(ring, front, udmabuf):
    """There an iovec has an address."""
    ring.register_dmabuf(0, udmabuf, front.fd)
    with mmap.mmap(-1, BUFFER_SIZE) as memory:
        memory[:] = bytes([CANARY]) * BUFFER_SIZE
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ring.register_memory(1, address, BUFFER_SIZE)
        for name in ("all sizes", "pages at random"):
            ranges = LISTS[name]
            there = [(address + place, length) for place, length in ranges]
            memory[:] = bytes([CANARY]) * BUFFER_SIZE
            assert ring.readv_fixed(front.fd, there, front.base, slot=1) == total(ranges)
            expect(memory[:], arrived(BUFFER_SIZE, ranges, front.content[: total(ranges)]), name)
            readv_and_compare(ring, front, udmabuf, ranges, 0)
            memory[:] = NEW
            assert ring.writev_fixed(front.fd, there, front.base, slot=1) == total(ranges)
            front.content = gather(NEW, ranges) + front.content[total(ranges) :]
            expect(on_disk(front), front.content, name)
        with fails(EFAULT):
            ring.readv_fixed(front.fd, LISTS["all sizes"], front.base, slot=1)
        ring.unregister(1)


# What is refused: it leaves buffer and file as they were, and the token works


@pytest.fixture
def refusing(ring, front, udmabuf):
    ring.register_dmabuf(0, udmabuf, front.fd)
    yield front
    expect_untouched(udmabuf)
    expect(on_disk(front), front.content)
    readv_and_compare(ring, front, udmabuf, LISTS["all sizes"], 0)


def both_fail(ring, fd, ranges, *numbers, start=0, **more):
    for call in ring.readv_fixed, ring.writev_fixed:
        with fails(*numbers, what=(call.__name__, ranges[:3])):
            call(fd, ranges, start, **more)


OUTSIDE = [
    (BUFFER_SIZE, 512), (BUFFER_SIZE - 512, 1024), (BUFFER_SIZE - 4096, 64 * KIB), (0, BUFFER_SIZE + 512), (4096, BUFFER_SIZE),
    (2**32, 4096), (2**63, 4096), (2**64 - 4096, 4096), (2**64 - 4096, 8192), (0, 2**31 - 512), (2**63 - 512, 1024),
]  # fmt: skip


def test_a_place_outside_the_buffer(ring, refusing):
    """Alone as with READ_FIXED, and anywhere among others."""
    for place in OUTSIDE:
        with fails(EFAULT):
            ring.read_fixed(refusing.fd, *place, refusing.base)
        for ranges in [place], [place, (0, PAGE)], [(0, PAGE), place, (PAGE, PAGE)], [(0, PAGE)] * 40 + [place]:
            both_fail(ring, refusing.fd, ranges, EFAULT, start=refusing.base)


def test_a_place_without_bytes(ring, refusing):
    """As with ordinary buffers."""
    with mmap.mmap(-1, PAGE) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ring.register_memory(1, address, PAGE)
        both_fail(ring, refusing.fd, [(address, SECTOR), (address, 0)], EFAULT, start=refusing.base, slot=1)
        ring.unregister(1)
    for ranges in [(0, 0)], [(0, 0), (0, PAGE)], [(0, PAGE), (PAGE, 0)], [(0, PAGE), (PAGE, 0), (PAGE, PAGE)], [(BUFFER_SIZE, 0)]:
        both_fail(ring, refusing.fd, ranges, EFAULT, start=refusing.base)


def test_places_that_are_not_in_whole_blocks(ring, refusing):
    """Each of them has to be, not only their sum."""
    for ranges in (
        [(0, 511)], [(0, 100)], [(0, 513)], [(0, 256), (PAGE, 256)], [(0, 511), (PAGE, 513)], [(0, PAGE), (PAGE, 100), (2 * PAGE, PAGE)],
        [(0, PAGE), (PAGE, 4), (2 * PAGE, 508)], [(i * PAGE, PAGE) for i in range(20)] + [(MIB, 256), (MIB + PAGE, 256)],
    ):  # fmt: skip
        both_fail(ring, refusing.fd, ranges, EINVAL, start=refusing.base)
    for start in 1, 100, 256:
        both_fail(ring, refusing.fd, [(0, PAGE), (PAGE, PAGE)], EINVAL, start=refusing.base + start)


def test_places_whose_offset_is_no_multiple_of_4(ring, refusing):
    for odd in 1, 2, 3, 4095, PAGE + 514:
        for ranges in [(odd, SECTOR)], [(8 * KIB, SECTOR), (odd, SECTOR)], [(odd, SECTOR), (8 * KIB, SECTOR)], [(odd, PAGE * 4)]:
            both_fail(ring, refusing.fd, ranges, EINVAL, start=refusing.base)


def test_another_file(ring, refusing, ext4):
    (ext4 / "other").write_bytes(bytes(64 * KIB))
    with opened(ext4 / "other") as other:
        both_fail(ring, other, [(0, PAGE), (8 * KIB, PAGE)], EBADF)
    assert (ext4 / "other").read_bytes() == bytes(64 * KIB)
    both_fail(ring, refusing.open(), [(0, PAGE)], EBADF, start=refusing.base)


def test_a_direction_that_the_file_was_not_opened_for(ring, front, udmabuf):
    """With the errno of READ_FIXED and WRITE_FIXED."""
    for flags, call, plain in (os.O_WRONLY, ring.readv_fixed, ring.read_fixed), (os.O_RDONLY, ring.writev_fixed, ring.write_fixed):
        fd = front.open(flags | os.O_DIRECT)
        ring.register_dmabuf(0, udmabuf, fd)
        with pytest.raises(OSError) as error:
            plain(fd, 0, PAGE, front.base)
        with fails(error.value.errno):
            call(fd, [(0, PAGE), (8 * KIB, PAGE)], front.base)
    expect_untouched(udmabuf)
    expect(on_disk(front), front.content)


def test_slots_without_a_buffer(ring, refusing):
    for slot in (1, 8, 65535):
        both_fail(ring, refusing.fd, [(0, PAGE)], EFAULT, slot=slot)


def test_lists_that_the_kernel_cannot_take(ring, refusing):
    """Too many places, too many bytes, and no list where there should be one."""
    both_fail(ring, refusing.fd, [(0, SECTOR)] * (MOST_RANGES + 1), EINVAL)
    for length in (2**63, 2**64 - 512):
        both_fail(ring, refusing.fd, [(0, length)], EINVAL, EFAULT)
        both_fail(ring, refusing.fd, [(0, PAGE), (0, length)], EINVAL, EFAULT)
    for opcode in READV_FIXED, WRITEV_FIXED:
        for address in (0, 4096, 2**64 - 4096):
            with fails(EFAULT, what=address):
                ring.run(opcode, refusing.fd, address, 3, 0)
        with mmap.mmap(-1, 2 * PAGE) as memory:   # nobody may read the second half of the list
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + PAGE
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 0) == 0
            ctypes.memmove(address - 16, ctypes.byref(Iovec(0, PAGE)), 16)
            with fails(EFAULT):
                ring.run(opcode, refusing.fd, address - 16, 2, 0)


def test_an_empty_list(ring, refusing):
    """As with an ordinary buffer."""

    def outcome(call, slot):
        try:
            return call(refusing.fd, [], refusing.base, slot)
        except OSError as error:
            return -error.errno

    with mmap.mmap(-1, PAGE) as memory:
        ring.register_memory(1, ctypes.addressof(ctypes.c_char.from_buffer(memory)), PAGE)
        for call in ring.readv_fixed, ring.writev_fixed:
            assert outcome(call, 0) == outcome(call, 1)
        ring.unregister(1)


def test_more_bytes_than_the_kernel_moves_at_once(ring, file):
    with TestBuffer(GIB, chunk_order=10, backed=8 * MIB) as buffer:
        buffer[: 8 * MIB] = bytes([CANARY]) * (8 * MIB)
        ring.register_dmabuf(0, buffer, file.fd)
        for ranges in [(0, GIB)] * 2, [(0, GIB)] * 4, [(0, GIB)] * MOST_RANGES, [(0, GIB), (0, GIB - SECTOR)]:
            with fails(EINVAL):
                ring.readv_fixed(file.fd, ranges, 0)
        expect_untouched(buffer, 0, 8 * MIB)


def test_o_direct_cleared_after_the_registration(ring, refusing):
    set_direct(refusing.fd, False)
    both_fail(ring, refusing.fd, LISTS["all sizes"], EINVAL, start=refusing.base)
    set_direct(refusing.fd, True)


def test_a_revoked_token(ring, serve, moving):
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    readv_and_compare(ring, target, moving, LISTS["all sizes"], 0)
    moving.fill()
    server.revoke_all()
    wait_for(lambda: moving.stats.maps == moving.stats.unmaps)
    both_fail(ring, target.fd, LISTS["all sizes"], ESTALE)
    expect_untouched(moving)
