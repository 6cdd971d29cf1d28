"""RWF_* flags of token requests: a flag does what it does to any other direct request, or it is refused. A refused request moves nothing."""

import ctypes
import itertools
import os
import random
import threading
from errno import EAGAIN, EFAULT, EINVAL, EOPNOTSUPP, EPERM, errorcode
from typing import NamedTuple

import pytest

from dmabuf import CANARY
from token_fixtures import *  # noqa: F403
from token_fixtures import TARGETS, closing, hold
from token_words import (
    APPEND_ONLY, BUFFER_SIZE, DIRECT, KIB, Target, expect, expect_untouched, fails, make_file, on_disk, opened, random_bytes, set_flag, wait_for,
)  # fmt: skip
from uring import HYBRID_IOPOLL, IOPOLL, READ_FIXED, WRITE_FIXED, Ring
from uring_words import DEFERRED

HIPRI, DSYNC, SYNC, NOWAIT, APPEND, NOAPPEND, ATOMIC, DONTCACHE, NOSIGNAL = KNOWN = [1 << bit for bit in range(9)]
NAMES = dict(zip(KNOWN, ["HIPRI", "DSYNC", "SYNC", "NOWAIT", "APPEND", "NOAPPEND", "ATOMIC", "DONTCACHE", "NOSIGNAL"]))
UNKNOWN = [1 << bit for bit in (9, 10, 15, 16, 17, 21, 27, 31)]  # from the middle on the kernel has flags of its own

SIZE = 16 * KIB  # of a request
PLACES = BUFFER_SIZE // SIZE
AT_ONCE = 32

POLLED_RINGS = {"iopoll": IOPOLL, "iopoll-hybrid": IOPOLL | HYBRID_IOPOLL, "iopoll-defer-taskrun": IOPOLL | DEFERRED}
RINGS = {"plain": DEFERRED} | POLLED_RINGS


class Request(NamedTuple):
    """What the table below asks about."""

    kind: str
    opcode: int
    polled: bool

    @property
    def writes(self):
        return self.opcode == WRITE_FIXED


# (flags, errno, for which requests they are refused together): all else does its work. Several refusals may apply; the kernel tells one of them.
REFUSED = [
    (HIPRI, EINVAL, lambda request: not request.polled),
    (APPEND | NOAPPEND, EINVAL, lambda request: True),
    (ATOMIC, EOPNOTSUPP, lambda request: not request.writes or request.kind in ("ext4", "fuse")),  # ext4 would need a device that writes 4 KiB at once
    (ATOMIC, EINVAL, lambda request: request.writes and request.kind in ("raw", "xfs")),  # of the memory of the caller only
    *((unknown, EOPNOTSUPP, lambda request: True) for unknown in UNKNOWN),
    (0, EOPNOTSUPP, lambda request: request.polled and request.kind == "fuse"),  # no FUSE file can be polled
]  # fmt: skip


def refusals(flags, request):
    return {number for these, number, applies in REFUSED if flags & these == these and applies(request)}


def names(flags):
    return " | ".join(NAMES.get(flag, hex(flag)) for flag in (1 << bit for bit in range(32)) if flags & flag)


def combinations():
    """Each flag alone, known or not, and some together."""
    chance = random.Random(7)
    pairs = chance.sample([a | b for a, b in itertools.combinations(KNOWN, 2)], 16)
    more = [sum(chance.sample(KNOWN, chance.randrange(3, 7))) for _ in range(8)]
    hostile = [chance.choice(KNOWN) | chance.choice(UNKNOWN) for _ in range(4)]
    return [0, *KNOWN, *UNKNOWN, APPEND | NOAPPEND, *pairs, *more, *hostile, 2**32 - 1]


# Files


def xfs_target(request, nvme, ext4):
    path = hold(request.getfixturevalue("filesystems"), "xfs").backing / "flags"
    request.addfinalizer(path.unlink)
    return Target(path, make_file(path, random_bytes(BUFFER_SIZE)))


KINDS = {"raw": TARGETS["raw"], "ext4": TARGETS["ext4"], "xfs": xfs_target, "fuse": TARGETS["fuse"]}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    """Its scope brings the tests of one filesystem together."""
    return request.param


@pytest.fixture
def subject(request, kind, nvme):
    """A file of that kind that a token is made for."""
    return closing(request, KINDS[kind](request, nvme, None if kind == "xfs" else request.getfixturevalue("ext4")))


with_polling = pytest.mark.parametrize("kind", ["raw", "ext4", "xfs"], indirect=True, scope="module")
of_files = pytest.mark.parametrize("kind", ["ext4", "fuse", "xfs"], indirect=True, scope="module")


# Each flag and many together


def outcome(ring, subject, buffer, opcode, flags, place):
    """The errno of a request between the same place of buffer and file, or 0: then it has moved what it should have, and else nothing."""
    here = slice(place * SIZE, (place + 1) * SIZE)
    if opcode == WRITE_FIXED:
        buffer[here] = random.Random(flags << 8 | place).randbytes(SIZE)
    else:
        buffer[here] = bytes([CANARY]) * SIZE
    size = os.fstat(subject.fd).st_size
    try:
        assert ring.run(opcode, subject.fd, here.start, SIZE, subject.base + here.start, op_flags=flags) == SIZE, names(flags)
    except OSError as error:
        if opcode == READ_FIXED:
            expect_untouched(buffer, here.start, here.stop)
        else:
            expect(on_disk(subject, SIZE, here.start), subject.content[here], f"refused write with {names(flags)}")
        return error.errno
    if opcode == READ_FIXED:
        expect(buffer[here], subject.content[here], f"read with {names(flags)}")
    elif flags & APPEND and not subject.base:
        assert os.fstat(subject.fd).st_size == size + SIZE
        expect(on_disk(subject, SIZE, size), buffer[here], f"appended with {names(flags)}")
        os.ftruncate(subject.fd, size)
    else:
        expect(on_disk(subject, SIZE, here.start), buffer[here], f"write with {names(flags)}")
        subject.content = subject.content[: here.start] + buffer[here] + subject.content[here.stop :]
    return 0


def test_each_flag_works_or_is_refused(kind, subject, udmabuf):
    """Alone and together with others. An end of file is that of a regular file: appending to a device is writing to it."""
    wrong = []
    for name, flags in RINGS.items():
        few = name not in ("plain", "iopoll") or (kind == "fuse" and flags & IOPOLL)
        with Ring(flags=flags) as ring:
            ring.register_dmabuf(0, udmabuf, subject.fd)
            for number, rwf in enumerate([0, *KNOWN] if few else combinations()):
                for opcode in (READ_FIXED, WRITE_FIXED):
                    allowed = refusals(rwf, Request(kind, opcode, bool(flags & IOPOLL))) or ({0, EAGAIN} if rwf & NOWAIT else {0})
                    found = outcome(ring, subject, udmabuf, opcode, rwf, number % PLACES)
                    if found not in allowed:
                        wrong.append(f"{name}: {'read' if opcode == READ_FIXED else 'write'} with {names(rwf)}: {errorcode.get(found, found)}")
    assert not wrong, wrong
    expect(on_disk(subject), subject.content, "the file at the end")


def test_a_read_that_must_not_wait_and_need_not(subject, udmabuf):
    """RWF_NOWAIT with the map there and the extents known: EAGAIN would be for want of memory, and not again and again."""
    with Ring() as ring:
        ring.register_dmabuf(0, udmabuf, subject.fd)
        assert ring.read_fixed(subject.fd, 0, SIZE, subject.base) == SIZE
        assert 0 in [outcome(ring, subject, udmabuf, READ_FIXED, NOWAIT, 0) for _ in range(20)]


# The end of the file


@of_files
def test_a_file_that_is_opened_to_append(subject, udmabuf):
    """RWF_NOAPPEND writes where the request says, all others at the end."""
    udmabuf[:SIZE] = random_bytes(SIZE, seed=9)
    fd = subject.open(DIRECT | os.O_APPEND)
    with Ring() as ring:
        ring.register_dmabuf(0, udmabuf, fd)
        assert ring.write_fixed(fd, 0, SIZE, SIZE, op_flags=NOAPPEND) == SIZE
        expect(on_disk(subject, 4 * SIZE), subject.content[:SIZE] + udmabuf[:SIZE] + subject.content[2 * SIZE : 4 * SIZE])
        assert os.fstat(fd).st_size == len(subject.content)
        for flags in (0, APPEND, DSYNC):
            size = os.fstat(fd).st_size
            assert ring.write_fixed(fd, 0, SIZE, 0, op_flags=flags) == SIZE
            assert os.fstat(fd).st_size == size + SIZE
            expect(on_disk(subject, SIZE, size), udmabuf[:SIZE])
        expect(on_disk(subject, SIZE), subject.content[:SIZE])


@of_files
def test_an_end_that_is_no_multiple_of_the_block_is_not_appended_to(subject, udmabuf):
    os.truncate(subject.path, 1000)
    with Ring() as ring:
        ring.register_dmabuf(0, udmabuf, subject.fd)
        with fails(EINVAL):
            ring.write_fixed(subject.fd, 0, SIZE, 0, op_flags=APPEND)
    with opened(subject.path, os.O_RDONLY) as fd:
        expect(os.pread(fd, 2000, 0), subject.content[:1000])


@pytest.mark.parametrize("kind", ["ext4"], indirect=True, scope="module")
def test_an_append_only_file(subject, udmabuf, request):
    """Its appending cannot be taken away by a flag."""
    request.addfinalizer(lambda: set_flag(subject.path, APPEND_ONLY, on=False))
    set_flag(subject.path, APPEND_ONLY)
    udmabuf[:SIZE] = random_bytes(SIZE, seed=9)
    fd = subject.open(DIRECT | os.O_APPEND)
    with Ring() as ring:
        ring.register_dmabuf(0, udmabuf, fd)
        with fails(EPERM):
            ring.write_fixed(fd, 0, SIZE, 0, op_flags=NOAPPEND)
        assert ring.write_fixed(fd, 0, SIZE, 0) == SIZE
    expect(on_disk(subject, len(subject.content) + SIZE), subject.content + udmabuf[:SIZE])


# Polling


@with_polling
@pytest.mark.parametrize("opcode", [READ_FIXED, WRITE_FIXED], ids=["read", "write"])
def test_a_move_does_not_wait_for_a_task_to_poll_what_asked_for_it(subject, moving, opcode, trace):
    """RWF_HIPRI: the commands end by themselves all the same, while the task that could poll them does not; it sent some, and workers the others."""
    content = subject.content
    if opcode == WRITE_FIXED:
        content = moving[:] = random_bytes(BUFFER_SIZE, seed=9)
    starts = range(0, BUFFER_SIZE, AT_ONCE * SIZE)
    for start, (name, flags) in zip(starts, [*POLLED_RINGS.items(), ("again", IOPOLL)], strict=True):
        with Ring(flags=flags) as ring:
            ring.register_dmabuf(0, moving, subject.fd)
            if name == "again":
                # makes the map, which workers have to wait for otherwise
                assert ring.run(opcode, subject.fd, start, SIZE, subject.base + start) == SIZE
            for place in range(start, start + AT_ONCE * SIZE, SIZE):
                ring.prepare(opcode, subject.fd, place, SIZE, subject.base + place, op_flags=HIPRI)
            with trace("nvme:nvme_setup_cmd", where="qid > 0") as commands:
                ring.submit()
                wait_for(lambda: commands.update().hits)
            mover = threading.Thread(target=moving.move)
            mover.start()
            mover.join(timeout=10)   # the kernel looks for the end of commands that nobody polls, after 30 s
            waits = mover.is_alive()
            results = ring.wait_all(AT_ONCE)
            mover.join()
            assert not waits, f"{name}: the exporter waits for somebody to poll"
            assert set(results.values()) == {SIZE}, name
    expect(moving[:], content, "the buffer")
    expect(on_disk(subject), content, "the file")
    assert moving.stats.moves == len(starts)
    assert moving.stats.dirty == 0


# Attributes


class ProtectionInformation(ctypes.Structure):
    """struct io_uring_attr_pi"""

    _fields_ = [
        ("flags", ctypes.c_uint16), ("app_tag", ctypes.c_uint16), ("len", ctypes.c_uint32), ("addr", ctypes.c_uint64),
        ("seed", ctypes.c_uint64), ("rsvd", ctypes.c_uint64),
    ]  # fmt: skip


@pytest.mark.parametrize("flags", [DEFERRED, IOPOLL], ids=["plain", "iopoll"])
def test_a_file_without_metadata_takes_none(kind, subject, udmabuf, flags):
    """Nor any attribute that is not known."""
    memory = ctypes.create_string_buffer(4096)
    good = ProtectionInformation(len=SIZE // 512 * 8, addr=ctypes.addressof(memory))
    hostile = ProtectionInformation(len=SIZE // 512 * 8, addr=ctypes.addressof(memory), rsvd=1)
    refused = (EOPNOTSUPP,) if kind == "fuse" and flags & IOPOLL else (EINVAL,)
    with Ring(flags=flags) as ring:
        ring.register_dmabuf(0, udmabuf, subject.fd)
        for opcode in (READ_FIXED, WRITE_FIXED):
            # attr_ptr and attr_type_mask lie where other requests have addr3 and padding
            for pointer, mask, numbers in [
                (ctypes.addressof(good), 1, refused), (ctypes.addressof(hostile), 1, (EINVAL,)), (4096, 1, (EFAULT,)), (ctypes.addressof(good), 2, (EINVAL,)),
            ]:  # fmt: skip
                with fails(*numbers, what=(opcode, mask)):
                    ring.run(opcode, subject.fd, 0, SIZE, subject.base, addr3=pointer, pad=mask)
        expect_untouched(udmabuf)
    expect(on_disk(subject), subject.content)
