"""How much kernel memory users can hold by tokens: the limit of each user, user.max_dmabuf_tokens, and the memory cgroup of who registers."""

import contextlib
import os
import signal
from errno import EIO, ENOMEM, EPERM, EUSERS
from pathlib import Path

import pytest

import fuse_server
from broker_fixtures import as_user
from dmabuf import TestBuffer
from fuse_server import FAILED, fork
from privileges import start_in_user_namespace
from test_token_moves import cgroup
from token_fixtures import *  # noqa: F403
from token_words import KIB, MIB, fails, let_go, read_and_compare, setting, wait_for
from uring import Ring, dmabuf_descriptor

SYSCTL = Path("/proc/sys/user/max_dmabuf_tokens")
LIMIT = 10
ONE, ANOTHER = 1000, 1001


# The limit of each user


@pytest.fixture
def limit():
    with setting(SYSCTL, LIMIT):
        yield


@pytest.fixture
def shared_ring(target):
    """A ring that other processes register in: what they have registered outlives them."""
    target.fd
    with Ring(flags=0, slots=64, inherited=True) as ring:
        yield ring
        ring.unregister_all()


of_all_files = pytest.mark.parametrize("target", ["raw", "ext4", "fuse"], indirect=True)


def registered_by(uid, ring, buffer, fd, slots):
    """How many of the slots could be filled; EUSERS is what stops it."""
    result, told = os.pipe()

    def register():
        for done, slot in enumerate(slots):
            try:
                ring.register_dmabuf(slot, buffer, fd)
            except OSError as error:
                assert error.errno == EUSERS, error
                os.write(told, bytes([done]))
                return
        os.write(told, bytes([len(slots)]))

    as_user(uid, [], register)
    os.close(told)
    with open(result, "rb") as file:
        return file.read()[0]


def test_it_is_65536_if_nobody_says_otherwise():
    assert SYSCTL.read_text() == "65536\n"


@of_all_files
def test_each_user_has_so_many(limit, shared_ring, target, udmabuf):
    """Through FUSE it is the client who counts, not the server."""
    ring = shared_ring
    assert registered_by(ONE, ring, udmabuf, target.fd, range(20)) == LIMIT
    assert registered_by(ANOTHER, ring, udmabuf, target.fd, range(20, 40)) == LIMIT
    assert registered_by(ONE, ring, udmabuf, target.fd, [40]) == 0
    read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 0), 3)
    for slot in 2, 5, 25:
        ring.unregister(slot)
    assert registered_by(ONE, ring, udmabuf, target.fd, range(40, 50)) == 2
    assert registered_by(ANOTHER, ring, udmabuf, target.fd, range(50, 60)) == 1


@of_all_files
def test_it_holds_for_root_as_well(limit, shared_ring, target, udmabuf):
    for slot in range(LIMIT):
        shared_ring.register_dmabuf(slot, udmabuf, target.fd)
    with fails(EUSERS):
        shared_ring.register_dmabuf(LIMIT, udmabuf, target.fd)
    read_and_compare(shared_ring, target, udmabuf, (0, 64 * KIB, 0), LIMIT - 1)


@pytest.mark.parametrize("target", ["ext4"], indirect=True)
def test_tokens_of_all_files_and_buffers_count(limit, shared_ring, target, nvme, udmabuf, moving):
    raw = target.open()
    for slot, (buffer, fd) in enumerate([(udmabuf, target.fd), (moving, target.fd), (udmabuf, raw), (moving, raw)] * 3):
        found = registered_by(ONE, shared_ring, buffer, fd, [slot])
        assert found == (slot < LIMIT)


def test_a_server_is_told_of_a_token_that_the_limit_did_not_allow(limit, serve, udmabuf):
    """It had granted it."""
    server, target = serve()
    target.fd
    with Ring(flags=0, slots=16, inherited=True) as ring:
        assert registered_by(ONE, ring, udmabuf, target.fd, range(16)) == LIMIT
        wait_for(server.releases)
        assert [release.reason for release in server.releases()] == [FAILED]
        assert len(server.creates()) == LIMIT + 1


def always_fails(number, function):
    for _ in range(2 * LIMIT):
        with fails(number):
            function()


@pytest.mark.parametrize("target", ["ext4"], indirect=True)
def test_a_failed_registration_does_not_count(limit, shared_ring, target, moving):
    moving.fail_map(2 * LIMIT, EIO)
    as_user(ONE, [], lambda: always_fails(EIO, lambda: shared_ring.register_dmabuf(0, moving, target.fd)))
    assert registered_by(ONE, shared_ring, moving, target.fd, range(20)) == LIMIT


def test_a_refused_token_does_not_count(limit, serve, udmabuf):
    server, target = serve(lambda token: EPERM if len(asked) < 2 * LIMIT and not asked.append(token) else fuse_server.grant(token))
    target.fd
    with Ring(flags=0, slots=64, inherited=True) as ring:
        as_user(ONE, [], lambda: always_fails(EPERM, lambda: ring.register_dmabuf(0, udmabuf, target.fd)))
        assert registered_by(ONE, ring, udmabuf, target.fd, range(20)) == LIMIT


asked = []   # of the server process above


def register_until(ring, buffer, fd, slots, allowed):
    for slot in slots[:allowed]:
        ring.register_dmabuf(slot, buffer, fd)
    with fails(EUSERS):
        ring.register_dmabuf(slots[allowed], buffer, fd)


def in_user_namespace(function):
    child = start_in_user_namespace("0 100000 1000", function)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("target", ["ext4", "fuse"], indirect=True)
def test_a_user_namespace_is_no_way_around_it(limit, shared_ring, target, udmabuf):
    """Its users count for the one who made it, here root; and within it, each has a limit, too."""
    ring = shared_ring

    def within():
        SYSCTL.write_text("3")
        register_until(ring, udmabuf, target.fd, range(4), 3)
        SYSCTL.write_text("1000")
        register_until(ring, udmabuf, target.fd, range(3, 20), LIMIT - 3)

    in_user_namespace(within)
    with fails(EUSERS):
        ring.register_dmabuf(20, udmabuf, target.fd)
    assert registered_by(ONE, ring, udmabuf, target.fd, [21]) == 1
    for slot in range(LIMIT):
        ring.unregister(slot)
    ring.register_dmabuf(20, udmabuf, target.fd)
    in_user_namespace(lambda: register_until(ring, udmabuf, target.fd, range(LIMIT), LIMIT - 1))


@pytest.mark.parametrize("target", ["ext4"], indirect=True)
def test_a_lower_limit_takes_no_token_away(shared_ring, target, udmabuf):
    for slot in range(LIMIT):
        shared_ring.register_dmabuf(slot, udmabuf, target.fd)
    with setting(SYSCTL, 2):
        with fails(EUSERS):
            shared_ring.register_dmabuf(LIMIT, udmabuf, target.fd)
        for slot in range(LIMIT):
            assert shared_ring.read_fixed(target.fd, 0, 4 * KIB, target.base, slot) == 4 * KIB
        for slot in range(LIMIT - 1):
            shared_ring.unregister(slot)
        shared_ring.register_dmabuf(0, udmabuf, target.fd)
        with fails(EUSERS):
            shared_ring.register_dmabuf(1, udmabuf, target.fd)


# The memory cgroup


def memory(group, *names):
    """What the processes of a group have the kernel hold, in bytes."""
    found = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return [int(found[name]) for name in names]


@contextlib.contextmanager
def process_in(group, function):
    """A child process in that group does something, and stays for the body with what it has."""
    is_ready, may_end = os.pipe(), os.pipe()
    pid = fork()
    if not pid:
        try:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            os.close(is_ready[0])
            os.close(may_end[1])
            with contextlib.ExitStack() as stack:
                function(stack, lambda: (os.write(is_ready[1], b"x"), os.read(may_end[0], 1)))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(is_ready[1])
    os.close(may_end[0])

    def go_on():
        assert os.read(is_ready[0], 1) == b"x", "it has failed"
        return lambda: os.write(may_end[1], b"x")

    try:
        yield go_on
    finally:
        for fd in is_ready[0], may_end[1]:
            os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0


@pytest.fixture
def group(tmp_path):
    with cgroup(tmp_path / "cgroup", "memory") as group:
        yield group


@pytest.mark.parametrize("target", ["ext4"], indirect=True)
def test_tokens_count_for_the_memory_cgroup(group, target, udmabuf):
    """Each several hundred bytes, some of them for each CPU; the map of all of them once."""
    count = 2000
    target.fd

    def register(stack, tell_and_wait):
        ring = stack.enter_context(Ring(flags=0, slots=count))
        ring.update(0, [dmabuf_descriptor(udmabuf, target.fd)])
        tell_and_wait()
        ring.update(1, [dmabuf_descriptor(udmabuf, target.fd)] * (count - 1))
        tell_and_wait()
        ring.unregister_all()
        tell_and_wait()

    with process_in(group, register) as next_stage:
        go_on = next_stage()
        before = memory(group, "kernel", "percpu")
        go_on()
        go_on = next_stage()
        with_tokens = memory(group, "kernel", "percpu")
        go_on()
        go_on = next_stage()
        grown = [(after - one) / (count - 1) for one, after in zip(before, with_tokens)]
        print(f"{grown[0]:.0f} bytes for each token, {grown[1]:.0f} of them of CPUs")
        assert grown[0] > 300 and grown[1] >= 2 * 24
        assert grown[0] < 4 * KIB
        wait_for(lambda: memory(group, "kernel")[0] < before[0] + (with_tokens[0] - before[0]) / 10)
        wait_for(lambda: memory(group, "percpu")[0] < before[1] + (with_tokens[1] - before[1]) / 10)
        go_on()


@pytest.mark.parametrize("target", ["ext4"], indirect=True)
def test_maps_count_for_the_memory_cgroup(group, target):
    """64 MiB in single pages, with little memory behind them: 16 bytes for each page, and 8 in the lists for the controller."""
    target.fd
    count, pages = 4, 16384
    with contextlib.ExitStack() as buffers:
        made = [buffers.enter_context(TestBuffer(pages * 4 * KIB, backed=MIB)) for _ in range(count)]

        def register(stack, tell_and_wait):
            ring = stack.enter_context(Ring(flags=0, slots=count))
            tell_and_wait()
            for slot, buffer in enumerate(made):
                ring.register_dmabuf(slot, buffer, target.fd)
            tell_and_wait()
            ring.unregister_all()
            tell_and_wait()

        with process_in(group, register) as next_stage:
            go_on = next_stage()
            (before,) = memory(group, "kernel")
            go_on()
            go_on = next_stage()
            (with_maps,) = memory(group, "kernel")
            go_on()
            go_on = next_stage()
            print(f"{(with_maps - before) / count / pages:.1f} bytes for each page")
            assert with_maps - before >= count * pages * (16 + 8)
            wait_for(lambda: memory(group, "kernel")[0] < before + (with_maps - before) / 10)
            go_on()
        assert all(buffer.stats.segments == pages for buffer in made)


@contextlib.contextmanager
def quiet_console():
    """What the kernel says of a process that it has to kill has a stack in it, which would be taken for a report of a fault."""
    with setting(Path("/proc/sys/kernel/printk"), 1):
        yield


@pytest.mark.parametrize("target", ["ext4"], indirect=True)
def test_no_more_tokens_than_the_cgroup_has_memory_for(group, target, udmabuf):
    """The registration fails, or the process is killed. All of it comes back then."""
    limit = 16 * MIB
    target.fd
    (group / "memory.max").write_text(str(limit))
    with quiet_console():
        pid = fork()
        if not pid:
            code = 1
            try:
                (group / "cgroup.procs").write_text(str(os.getpid()))
                rings = [Ring(flags=0, slots=16000) for _ in range(4)]
                for ring in rings:
                    for slot in range(16000):
                        ring.register_dmabuf(slot, udmabuf, target.fd)
            except OSError as error:
                code = error.errno
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (ENOMEM, -signal.SIGKILL), "as much as 64000 tokens take"
    assert int((group / "memory.peak").read_text()) <= limit + MIB
    let_go()
    wait_for(lambda: memory(group, "kernel")[0] < 2 * MIB)
    with Ring() as ring:
        ring.register_dmabuf(0, udmabuf, target.fd)
        read_and_compare(ring, target, udmabuf, (0, 64 * KIB, 0))
