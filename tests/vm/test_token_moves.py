"""The exporter moves, blocks, fails or takes back its memory: the reader gets right bytes or a clean error, and nobody waits for ever."""

import contextlib
import mmap
import os
import random
import select
import signal
import subprocess
import threading
import time
import traceback
from errno import EAGAIN, EBUSY, EIO, ENODEV, ENOMEM, ENOTCONN, ESTALE
from pathlib import Path

import pytest

import guest
from dmabuf import TestBuffer
from fuse_server import fork
from token_fixtures import *  # noqa: F403
from token_words import (
    BUFFER_SIZE, KIB, MIB, Target, expect, expect_untouched, fails, in_background, let_go, make_file, on_disk, opened, random_bytes, read_and_compare,
    wait_for,
)  # fmt: skip
from uring import DEFER_TASKRUN, IOPOLL, IOSQE_ASYNC, NOP, READ_FIXED, SINGLE_ISSUER, SQPOLL, WRITE_FIXED, Ring

RWF_NOWAIT = 8

SIZE = 16 * KIB  # of a request
DEPTH = 32
chance = random.Random(3)
SEED = int(os.environ.get("MOVES_SEED", 0)) or random.SystemRandom().randrange(1, 1 << 32)


def start_read(ring, front, pending, place):
    """Queues a read of SIZE from anywhere to a place of the buffer; pending: {user_data: (place, file offset)}."""
    start = chance.randrange(len(front.content) // SIZE) * SIZE
    pending[ring.prepare(READ_FIXED, front.fd, place * SIZE, SIZE, front.base + start)] = place, start


def start_reads(ring, front):
    pending = {}
    for place in range(DEPTH):
        start_read(ring, front, pending, place)
    ring.submit()
    return pending


def finish_read(ring, front, buffer, pending):
    """The next completion must be a success, its bytes in their place."""
    number, result = ring.wait()
    place, start = pending.pop(number)
    assert result == SIZE, f"request {number} failed with {result}"
    expect(buffer[place * SIZE : (place + 1) * SIZE], front.content[start : start + SIZE], f"request {number}")
    return place


def read_at_depth(ring, front, buffer, count):
    """So many reads, DEPTH at a time."""
    pending = start_reads(ring, front)
    for _ in range(count - DEPTH):
        start_read(ring, front, pending, finish_read(ring, front, buffer, pending))
        ring.submit()
    while pending:
        finish_read(ring, front, buffer, pending)


def all_memory_went_back(buffer):
    stats = buffer.stats
    assert stats.dirty == 0, f"{stats.dirty} bytes were written to memory that the exporter had left"
    assert stats.maps - stats.unmaps <= 1


def test_the_content_moves_with_the_buffer(ring, front, moving):
    ring.register_dmabuf(0, moving, front.fd)
    read_and_compare(ring, front, moving, (0, MIB, 0))
    moving.move()
    expect(moving[:MIB], front.content[:MIB])
    read_and_compare(ring, front, moving, (0, MIB, MIB))
    assert (moving.stats.maps, moving.stats.unmaps) == (2, 1)
    all_memory_went_back(moving)


def test_a_move_before_the_first_read(ring, front, moving):
    ring.register_dmabuf(0, moving, front.fd)
    moving.move()
    read_and_compare(ring, front, moving, (0, MIB, 0))
    all_memory_went_back(moving)


def test_maps_and_their_ends_are_traced(ring, file, moving, trace):
    with trace("dmabuf_token:dmabuf_map", sums=["segments", "size"]) as made, trace("dmabuf_token:dmabuf_map_invalidate") as ended:
        ring.register_dmabuf(0, moving, file.fd)
        for _ in range(3):
            read_and_compare(ring, file, moving, (0, MIB, 0))
            moving.move()
    assert (made.hits, ended.hits) == (moving.stats.maps, moving.stats.moves) == (3, 3)
    assert made.sums["size"] == 3 * moving.size
    assert 3 < made.sums["segments"] <= 3 * moving.size // mmap.PAGESIZE  # pages may be neighbours


def test_moves_without_reads_make_no_maps(ring, file, moving):
    ring.register_dmabuf(0, moving, file.fd)
    read_and_compare(ring, file, moving, (0, MIB, 0))
    for _ in range(10):
        moving.move()
    assert (moving.stats.maps, moving.stats.unmaps) == (1, 1)


def test_moves_under_random_reads(ring, front, moving):
    """No wrong byte, no error, no EAGAIN."""
    ring.register_dmabuf(0, moving, front.fd)
    with in_background(moving.move):
        while moving.stats.moves < 10:
            read_at_depth(ring, front, moving, 100)
    all_memory_went_back(moving)


def test_moves_under_requests_of_several_commands(ring, front, moving, nvme):
    """A request is mapped once or several times; all of its bytes must arrive."""
    ring.register_dmabuf(0, moving, front.fd)
    with in_background(moving.move):
        while moving.stats.moves < 10:
            i = moving.stats.moves
            read_and_compare(ring, front, moving, (512 * i, BUFFER_SIZE - 512 * KIB, 512 * i))
    all_memory_went_back(moving)


def test_moves_that_take_a_while(ring, front, moving):
    """The exporter keeps its reservation lock after DMA has stopped."""
    ring.register_dmabuf(0, moving, front.fd)
    with in_background(lambda: moving.move(hold_ms=20)):
        read_at_depth(ring, front, moving, 100)
    all_memory_went_back(moving)


def test_pipelined_moves(ring, front, moving):
    """Until the exporter's fence signals, the new memory is not to be touched: the move would overwrite what was read."""
    ring.register_dmabuf(0, moving, front.fd)
    for i in range(3):
        moving.move(fence_ms=100)
        read_and_compare(ring, front, moving, (i * 64 * KIB, 64 * KIB, i * 64 * KIB))
    with in_background(lambda: moving.move(fence_ms=5)):
        read_at_depth(ring, front, moving, 100)
    all_memory_went_back(moving)


@pytest.mark.parametrize("flags", [0, SINGLE_ISSUER | DEFER_TASKRUN], ids=["plain", "defer-taskrun"])
def test_a_move_does_not_wait_for_the_reader_to_collect_its_results(front, moving, flags):
    """The controller is done, but the task that owns the ring sits in the exporter's call and does not run."""
    with Ring(64, flags) as ring:
        ring.register_dmabuf(0, moving, front.fd)
        for _ in range(3):
            pending = start_reads(ring, front)
            moving.move()
            while pending:
                finish_read(ring, front, moving, pending)
    all_memory_went_back(moving)


def test_the_waits_of_a_move_are_short(ring, file, moving):
    """They are for commands that the controller has, not for requests that wait their turn."""
    ring.register_dmabuf(0, moving, file.fd)
    with in_background(lambda: moving.move(hold_ms=1)):
        read_at_depth(ring, file, moving, 100)
    assert moving.stats.stop_us < 5_000_000
    assert moving.stats.unmap_us < 5_000_000


def test_two_tokens_of_one_buffer(front, file, moving):
    with Ring() as first, Ring() as second:
        first.register_dmabuf(0, moving, front.fd)
        second.register_dmabuf(0, moving, file.fd)
        with in_background(moving.move):
            for i in range(10):
                read_and_compare(first, front, moving, (0, 256 * KIB, i * 4096))
                read_and_compare(second, file, moving, (MIB, 256 * KIB, i * 4096))
    wait_for(lambda: moving.stats.detaches == 1)  # a ring ends in the background
    assert moving.stats.dirty == 0 and moving.stats.maps == moving.stats.unmaps


def test_a_slow_mapping_delays_only_its_own_requests(file, moving, udmabuf):
    with Ring() as ring:
        ring.register_dmabuf(0, moving, file.fd)
        ring.register_dmabuf(1, udmabuf, file.fd)
        assert ring.read_fixed(file.fd, 0, SIZE, 0) == SIZE
        moving.delay_map(2000)
        moving.move()
        slow = ring.prepare(READ_FIXED, file.fd, 0, SIZE, 0, 0)
        others = [ring.prepare(READ_FIXED, file.fd, 0, SIZE, 0, 1), ring.prepare(NOP)]
        started = time.monotonic()
        ring.submit()
        assert {ring.wait().user_data, ring.wait().user_data} == set(others)
        assert time.monotonic() - started < 1.5
        assert ring.wait() == (slow, SIZE)
        assert time.monotonic() - started > 1.9
    expect(moving[:SIZE], file.content[:SIZE])


def test_a_mapping_that_fails_fails_the_request(ring, front, moving):
    ring.register_dmabuf(0, moving, front.fd)
    read_and_compare(ring, front, moving, (0, SIZE, 0))
    for number in (EIO, ENOMEM, EBUSY, EAGAIN):
        moving.move()
        moving.fill()
        moving.fail_map(1, number)
        with fails(EBUSY if number == EAGAIN else number):  # which has another meaning there
            ring.read_fixed(front.fd, 0, SIZE, front.base)
        expect_untouched(moving)
        read_and_compare(ring, front, moving, (0, MIB, 0))
    assert moving.stats.failed_maps == 4


def test_a_request_that_must_not_wait_makes_no_map(ring, front, moving):
    """RWF_NOWAIT: EAGAIN when the memory has moved, also for a worker, until a request that may wait has found it."""
    ring.register_dmabuf(0, moving, front.fd)
    moving.move()
    maps = moving.stats.maps
    for flags in (0, IOSQE_ASYNC):
        with fails(EAGAIN):
            ring.run(READ_FIXED, front.fd, 0, SIZE, front.base, op_flags=RWF_NOWAIT, flags=flags)
    assert moving.stats.maps == maps
    read_and_compare(ring, front, moving, (0, SIZE, 0))
    assert moving.stats.maps == maps + 1


@contextlib.contextmanager
def held(moving, seconds=4):
    """Its exporter holds its lock, as if it were moving it all the time; tells whether it still does."""
    done = threading.Event()

    def move():
        moving.move(hold_ms=seconds * 1000)
        done.set()

    mover = threading.Thread(target=move)
    moves = moving.stats.moves
    mover.start()
    time.sleep(0.5)
    try:
        yield lambda: not done.is_set()
    finally:
        mover.join()
    assert moving.stats.moves == moves + 1


def test_an_exporter_holds_up_nobody_but_its_own_users(file, ring, moving, udmabuf):
    """A token of its buffer goes meanwhile, which has to wait for it."""
    held_then = []

    def use_other_memory(still):
        time.sleep(0.5)
        with Ring() as other:
            other.register_dmabuf(0, udmabuf, file.fd)
            other.read_fixed(file.fd, 0, SIZE, 0)
            other.unregister(0)
        held_then.append(still())

    ring.register_dmabuf(0, moving, file.fd)
    with held(moving) as still:
        thread = threading.Thread(target=use_other_memory, args=(still,))
        thread.start()
        ring.unregister(0)
        thread.join()
    assert held_then == [True]
    expect(udmabuf[:SIZE], file.content[:SIZE])
    wait_for(lambda: moving.stats.detaches == 1)


def test_a_server_ends_while_an_exporter_holds_its_lock(fuse, ring, moving, ext4):
    """The end of a connection ends its tokens without waiting for anybody."""
    make_file(ext4 / "file", random_bytes(SIZE))
    # closing a file of a server that is gone says so
    with contextlib.suppress(OSError), opened(fuse.path("file")) as fd:
        ring.register_dmabuf(0, moving, fd)
        ring.read_fixed(fd, 0, SIZE, 0)
        moving.fill()
        with held(moving) as still:
            fuse.kill()
            with fails(ESTALE, ENOTCONN):
                ring.read_fixed(fd, 0, SIZE, 0)
            ended_in_time = still()
    assert ended_in_time
    expect_untouched(moving)


def test_a_mapping_that_fails_at_the_registration(ring, file, moving):
    """Whether the first mapping is made there or at the first read: the error is told once, nothing stays."""
    moving.fail_map(1, EIO)
    with fails(EIO):
        ring.register_dmabuf(0, moving, file.fd)
        ring.read_fixed(file.fd, 0, SIZE, 0)
    ring.register_dmabuf(0, moving, file.fd)
    read_and_compare(ring, file, moving, (0, MIB, 0))


def test_a_buffer_taken_back_for_good(ring, front, moving):
    ring.register_dmabuf(0, moving, front.fd)
    read_and_compare(ring, front, moving, (0, MIB, 0))
    moving.revoke()
    for _ in range(3):
        with fails(ENODEV):
            ring.read_fixed(front.fd, 0, SIZE, front.base)
    assert moving.stats.dirty == 0
    assert moving.stats.maps == moving.stats.unmaps == 1


def test_a_buffer_taken_back_under_reads(ring, front, moving):
    """Each request succeeds or fails; none hangs, none writes to what is gone."""
    ring.register_dmabuf(0, moving, front.fd)
    start_reads(ring, front)
    moving.revoke()
    assert set(ring.wait_all(DEPTH).values()) <= {SIZE, -ENODEV}
    assert moving.stats.dirty == 0
    assert moving.stats.maps == moving.stats.unmaps
    assert ring.nop() == 0


def test_registering_a_buffer_that_was_taken_back(ring, file, moving):
    moving.revoke()
    with fails(ENODEV):
        ring.register_dmabuf(0, moving, file.fd)
        ring.read_fixed(file.fd, 0, SIZE, 0)
    assert moving.stats.dirty == 0


def test_a_bar_switched_off_and_on(ring, front, vfio, bar):
    """What vfio-pci does when a guest resets its device."""
    ring.register_dmabuf(0, bar, front.fd)
    read_and_compare(ring, front, bar, (0, MIB, 0))
    vfio.set_memory_enabled(False)
    try:
        for _ in range(3):
            with fails(ENODEV):
                ring.read_fixed(front.fd, 0, SIZE, front.base)
    finally:
        vfio.set_memory_enabled(True)
    read_and_compare(ring, front, bar, (0, MIB, MIB))


def test_a_bar_switched_off_under_reads(ring, front, vfio, bar):
    ring.register_dmabuf(0, bar, front.fd)
    for _ in range(5):
        start_reads(ring, front)
        vfio.set_memory_enabled(False)
        vfio.set_memory_enabled(True)
        assert set(ring.wait_all(DEPTH).values()) <= {SIZE, -ENODEV}
    read_and_compare(ring, front, bar, (0, MIB, 0))


# Many moves


def token_moves(moves, flags, target):
    """token-moves.c with a ring of these flags and a buffer of its own."""
    with TestBuffer(64 * 4096) as buffer:
        fds = (buffer.control, buffer.fileno())
        result = subprocess.run([guest.BED / "token-moves", str(SEED), str(moves), str(flags), *map(str, fds), target.path, str(target.base)],
                                pass_fds=fds, text=True, capture_output=True)  # fmt: skip
        print(result.stdout, result.stderr, buffer.stats)
        assert result.returncode == 0, f"MOVES_SEED={SEED}: {result.stderr}"
        assert buffer.stats.moves >= moves  # and those of the mappings
        all_memory_went_back(buffer)


@pytest.mark.timeout(36000)
@pytest.mark.parametrize("target", ["raw", "fuse"], indirect=True)
def test_many_moves_under_random_reads_and_writes(target, request):
    """No wrong byte, no error, no EAGAIN, no byte of memory that the exporter had left."""
    token_moves(request.config.getoption("--moves"), SINGLE_ISSUER | DEFER_TASKRUN, target)


@pytest.mark.parametrize("flags, target", [(SQPOLL, "fuse"), (IOPOLL, "raw"), (IOPOLL, "ext4")], indirect=["target"])
def test_moves_under_other_rings(target, flags):
    token_moves(200, flags, target)


# Moves wait for the controller, and for nobody else


@pytest.mark.parametrize("target", ["raw", "ext4"], indirect=True)
@pytest.mark.parametrize("flags", [IOPOLL, IOPOLL | SINGLE_ISSUER | DEFER_TASKRUN], ids=["plain", "defer-taskrun"])
def test_a_move_does_not_wait_for_a_task_to_poll(target, moving, flags):
    """Nobody looks for the end of these commands: the task that would sits in the exporter's call."""
    with Ring(64, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for _ in range(3):
            pending = start_reads(ring, target)
            moving.move()
            while pending:
                finish_read(ring, target, moving, pending)
    assert moving.stats.stop_us < 5_000_000
    all_memory_went_back(moving)


@contextlib.contextmanager
def child(function):
    """A process of its own, killed at the end."""
    pid = fork()
    if not pid:
        try:
            function()
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def read_for_ever(front, buffer, flags, between=lambda: None):
    """For a child: it never ends, but with the first wrong byte."""
    parents = buffer.map  # which it does not have, and must not unmap
    buffer.map = mmap.mmap(buffer.fd, buffer.size)
    with Ring(64, flags) as ring:
        ring.register_dmabuf(0, buffer, front.fd)
        while True:
            pending = start_reads(ring, front)
            between()
            while pending:
                finish_read(ring, front, buffer, pending)
    return parents


@pytest.mark.parametrize("flags, target", [(SINGLE_ISSUER | DEFER_TASKRUN, "fuse"), (IOPOLL, "raw")], indirect=["target"])
def test_moves_while_the_task_of_the_ring_is_stopped(target, flags):
    """At any moment of its work."""
    target.fd
    with TestBuffer(DEPTH * SIZE) as buffer, child(lambda: read_for_ever(target, buffer, flags)) as pid:
        for _ in range(20):
            time.sleep(0.02)
            os.kill(pid, signal.SIGSTOP)
            buffer.move()
            buffer.move()
            os.kill(pid, signal.SIGCONT)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it found wrong bytes"
        assert buffer.stats.stop_us < 5_000_000
        assert buffer.stats.dirty == 0


# Moves that come with the mapping: what amdgpu and xe do with memory that the importer cannot reach where it is


def has_arrived(buffer):
    """Whether the memory has its content; until then a descriptor of the buffer is not ready to be read."""
    ready = select.poll()
    ready.register(buffer.fileno(), select.POLLIN)
    return bool(ready.poll(0))


def test_a_first_mapping_that_moves_the_buffer(ring, front, moving):
    data = random_bytes(MIB, seed=7)
    moving[:MIB] = data
    moving.move_when_mapped(fence_ms=300)
    ring.register_dmabuf(0, moving, front.fd)
    assert ring.write_fixed(front.fd, 0, MIB, front.base) == MIB
    expect(on_disk(front, MIB), data, "what was written")
    assert (moving.stats.maps, moving.stats.moves) == (1, 1)
    all_memory_went_back(moving)


@pytest.mark.parametrize("flags", [0, IOSQE_ASYNC], ids=["inline", "worker"])
def test_later_mappings_that_move_the_buffer(ring, front, moving, flags):
    """A read that comes before the content does would be overwritten by it, and a write would take what was there before."""
    content = front.content
    ring.register_dmabuf(0, moving, front.fd)
    for i in range(3):
        moving.fill()
        moving.move()
        moving.move_when_mapped(fence_ms=100)
        assert ring.run(READ_FIXED, front.fd, 0, MIB, front.base + 4096, flags=flags) == MIB
        expect(moving[:MIB], content[4096 : 4096 + MIB], f"read {i}")
        expect_untouched(moving, MIB)

        data = random_bytes(MIB, seed=i + 2)
        moving[:MIB] = data
        moving.move()
        moving.move_when_mapped(fence_ms=100)
        assert ring.run(WRITE_FIXED, front.fd, 0, MIB, front.base, flags=flags) == MIB
        content = data + content[MIB:]
        expect(on_disk(front), content, f"write {i}")
    assert (moving.stats.maps, moving.stats.moves) == (7, 12)
    all_memory_went_back(moving)


def test_mappings_that_move_the_buffer_under_random_reads(ring, front, moving):
    def move():
        moving.move_when_mapped(fence_ms=5)
        moving.move()

    ring.register_dmabuf(0, moving, front.fd)
    with in_background(move):
        read_at_depth(ring, front, moving, 200)
    all_memory_went_back(moving)


def test_a_mapping_for_one_token_moves_the_buffer_of_another(file, moving):
    """Which is for another direction, so that they have a map each."""
    read_only = Target(file.path, file.content)
    read_only.fd = file.open(os.O_RDONLY | os.O_DIRECT)
    with Ring() as first, Ring() as second:
        first.register_dmabuf(0, moving, file.fd)
        read_and_compare(first, file, moving, (0, SIZE, 0))
        moving.move_when_mapped(fence_ms=300)
        second.register_dmabuf(0, moving, read_only.fd)
        read_and_compare(first, file, moving, (0, MIB, 4096))
        read_and_compare(second, read_only, moving, (MIB, 256 * KIB, 0))
        assert (moving.stats.maps, moving.stats.moves) == (3, 1)
    let_go()
    assert moving.stats.dirty == 0 and moving.stats.maps == moving.stats.unmaps


def start_to_wait(ring, target, moving, fence_ms):
    """A read has the buffer mapped anew, which moves it, and waits for its content."""
    ring.register_dmabuf(0, moving, target.fd)
    moving.move()
    moving.move_when_mapped(fence_ms)
    number = ring.prepare(READ_FIXED, target.fd, 0, MIB, target.base)
    ring.submit()
    wait_for(lambda: not has_arrived(moving))
    return number


def test_a_move_takes_away_a_mapping_that_waits_for_its_content(ring, front, moving):
    number = start_to_wait(ring, front, moving, fence_ms=500)
    moving.move()
    assert ring.wait() == (number, MIB)
    expect(moving[:MIB], front.content[:MIB])
    expect_untouched(moving, MIB)
    assert (moving.stats.maps, moving.stats.moves) == (3, 3)
    all_memory_went_back(moving)


def test_revoking_does_not_wait_for_content_to_arrive(fuse, ring, moving, ext4):
    make_file(ext4 / "file", random_bytes(MIB))
    with contextlib.closing(Target(fuse.path("file"), random_bytes(MIB))) as target:
        number = start_to_wait(ring, target, moving, fence_ms=5000)
        fuse.revoke_all()
        assert ring.wait() == (number, -ESTALE)
        assert not has_arrived(moving)
        ring.unregister(0)
    expect_untouched(moving)  # which waits for it
    wait_for(lambda: moving.stats.maps == moving.stats.unmaps)
    assert moving.stats.dirty == 0


def test_the_end_of_a_server_does_not_wait_for_content_to_arrive(fuse, ring, moving, ext4):
    make_file(ext4 / "file", random_bytes(MIB))
    # closing a file of a server that is gone says so
    with contextlib.suppress(OSError), contextlib.closing(Target(fuse.path("file"), random_bytes(MIB))) as target:
        number = start_to_wait(ring, target, moving, fence_ms=5000)
        fuse.kill()
        assert ring.wait() in [(number, -ESTALE), (number, -ENOTCONN)]
        assert not has_arrived(moving)
    expect_untouched(moving)


def test_somebody_who_waits_for_content_can_be_killed(file, moving):
    """While registering, and while a request waits."""
    file.fd

    def register():
        Ring().register_dmabuf(0, moving, file.fd)

    def read():
        ring = Ring()
        start_to_wait(ring, file, moving, fence_ms=4000)
        ring.wait()

    moving.move_when_mapped(fence_ms=4000)
    for function in (register, read):
        with child(function) as pid:
            wait_for(lambda: not has_arrived(moving))
            os.kill(pid, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            assert not has_arrived(moving)
        let_go()
        wait_for(lambda: has_arrived(moving))
    assert moving.stats.dirty == 0 and moving.stats.maps == moving.stats.unmaps


@contextlib.contextmanager
def cgroup(directory, controller):
    """One with that controller, for as long as it has processes."""
    directory.mkdir()
    guest.run("mount", "-t", "cgroup2", "cgroup", directory)
    (directory / "cgroup.subtree_control").write_text(f"+{controller}")
    group = directory / "limited"
    group.mkdir()
    yield group
    wait_for(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()
    guest.unmount(directory)


@pytest.fixture
def little_memory(tmp_path):
    with cgroup(tmp_path / "cgroup", "memory") as group:
        (group / "memory.max").write_text("8M")
        yield group


def limit_reads(group, nvme, rate):
    """Its processes read from the device so many bytes per second."""
    (group / "io.max").write_text(f"{(nvme.namespace / 'dev').read_text().strip()} rbps={rate}")


@pytest.fixture
def slow_device(tmp_path, nvme):
    """A request per second reaches it from processes of this group."""
    with cgroup(tmp_path / "cgroup", "io") as group:
        limit_reads(group, nvme, SIZE)
        yield group
        limit_reads(group, nvme, "max")   # what a test has left behind would hold up the next one


@contextlib.contextmanager
def member_of(group):
    """This process, meanwhile."""
    before = Path("/proc/self/cgroup").read_text().strip().removeprefix("0::/")
    (group / "cgroup.procs").write_text("0")
    try:
        yield
    finally:
        (group.parent / before / "cgroup.procs").write_text("0")


@pytest.mark.parametrize("target", ["raw", "ext4", "fuse"], indirect=True)
@pytest.mark.parametrize("flags", [0, IOSQE_ASYNC], ids=["inline", "worker"])
def test_moves_while_requests_are_held_back(nvme, target, moving, slow_device, flags, trace):
    """Below the filesystem, above the driver: they hold no memory of the exporter, who need not wait for them."""
    target.fd
    with Ring() as ring:
        ring.register_dmabuf(0, moving, target.fd)
        read_and_compare(ring, target, moving, (0, SIZE, 0))
        moving.fill()
        with member_of(slow_device), trace("nvme:nvme_setup_cmd", where="qid > 0 && opcode == 2") as commands:
            for place in range(DEPTH):
                ring.prepare(READ_FIXED, target.fd, place * SIZE, SIZE, target.base + place * SIZE, flags=flags)
            ring.submit()
            wait_for(lambda: commands.update().hits, ring)   # by then the workers, too, have sent what they send
            assert commands.hits < DEPTH / 2, "nothing was held back"
            for _ in range(10):
                moving.move()
                assert commands.update().hits < DEPTH / 2, "the exporter waited for requests that are held back"
            limit_reads(slow_device, nvme, "max")
            assert set(ring.wait_all(DEPTH).values()) == {SIZE}
    expect(moving[: DEPTH * SIZE], target.content[: DEPTH * SIZE])
    assert moving.stats.moves == 10
    assert moving.stats.dirty == 0


@pytest.mark.parametrize("target", ["raw", "fuse"], indirect=True)
def test_moves_while_the_task_of_the_ring_reclaims_memory(target, little_memory, ext4):
    """It and its workers have no memory left but what they write back first, to the same device."""

    def read():
        (little_memory / "cgroup.procs").write_text(str(os.getpid()))
        with open(ext4 / "pages", "wb", buffering=0) as file:

            def write_pages():
                file.seek(0)
                for _ in range(8):
                    file.write(bytes(4 * MIB))

            read_for_ever(target, buffer, 0, write_pages)

    target.fd
    with TestBuffer(DEPTH * SIZE) as buffer, child(read) as pid:
        limit_reached = lambda: int(dict(line.split() for line in (little_memory / "memory.events").read_text().splitlines())["max"])  # noqa: E731
        while buffer.stats.moves < 200 or limit_reached() < 50:
            buffer.move()
            assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it found wrong bytes"
        assert buffer.stats.stop_us < 5_000_000
        assert buffer.stats.dirty == 0
