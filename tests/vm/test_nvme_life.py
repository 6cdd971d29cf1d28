"""Controllers are reset, lose commands, vanish and come back: requests succeed late or fail cleanly, nothing hangs, nothing stays."""

import contextlib
import os
import threading
import time
from errno import EBADF, EIO, ENODEV, ENXIO, EOPNOTSUPP, ESTALE
from pathlib import Path

import pytest

import guest
import machine
from fuse_server import CLOSED, FuseServer
from token_fixtures import *  # noqa: F403
from token_words import (
    BUFFER_SIZE, MIB, Target, add_partition, delete_partition, expect, expect_untouched, fails, in_background, make_file, on_disk,
    opened, random_bytes, read_and_compare, wait_for,
)  # fmt: skip
from uring import IOPOLL, READ_FIXED, WRITE_FIXED, Ring
from uring_words import DEFERRED, DEPTH, SIZE, Transfer, both_ways

CONTENT = random_bytes(BUFFER_SIZE, seed=31)
GONE = {-EIO, -ENODEV, -ENXIO, 0}  # a disk that has gone has no bytes


def reset(nvme):
    (nvme.controller / "reset_controller").write_text("1")


# Reset


@both_ways
@pytest.mark.parametrize("flags, target", [(DEFERRED, "raw"), (IOPOLL, "raw"), (DEFERRED, "fuse")], indirect=["target"])
def test_resets_under_load(nvme, target, moving, flags, opcode):
    """Commands that the controller forgets are sent again, with the memory that the buffer has then."""
    with Ring(DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for i in range(3):
            transfer = Transfer(opcode, target, moving)
            numbers = transfer.start(ring)
            reset(nvme)
            moving.move()
            transfer.finish(ring, numbers)
            target.content = on_disk(target, BUFFER_SIZE)
    assert moving.stats.attaches == 1, "the token survives"
    assert moving.stats.dirty == 0


@pytest.mark.parametrize("target", ["raw"], indirect=True)
def test_resets_while_the_buffer_moves(nvme, target, moving):
    with Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        resets = threading.Thread(target=lambda: [reset(nvme) for _ in range(3)])
        resets.start()
        with in_background(moving.move):
            while resets.is_alive():
                transfer = Transfer(READ_FIXED, target, moving)
                transfer.finish(ring, transfer.start(ring))
        resets.join()
    assert moving.stats.dirty == 0


# Lost commands

LOST = Path("/sys/kernel/debug/fail_io_timeout")


@contextlib.contextmanager
def the_next_completion_is_lost(nvme, missed_after_ms=1000):
    if not LOST.exists():
        pytest.skip("a kernel without CONFIG_FAIL_IO_TIMEOUT: the debug kernel has it")
    os.sync()  # the filesystem has nothing to write that could be lost instead
    limit = nvme.namespace / "queue/io_timeout"
    before = limit.read_text()
    for path, value in (LOST / "verbose", 0), (LOST / "probability", 100), (LOST / "times", 1), (nvme.namespace / "io-timeout-fail", 1), (limit, missed_after_ms):
        path.write_text(str(value))
    try:
        yield
    finally:
        limit.write_text(before)
        (nvme.namespace / "io-timeout-fail").write_text("0")
        (LOST / "probability").write_text("0")


@pytest.mark.parametrize("opcode", [READ_FIXED, WRITE_FIXED], ids=["read", "write"])
@pytest.mark.parametrize("target", ["raw"], indirect=True)
def test_a_command_that_times_out(nvme, target, moving, opcode):
    """It is aborted, then the controller is reset, and the request succeeds; a move waits for that, not for ever."""
    with Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(opcode, target, moving)
        with the_next_completion_is_lost(nvme):
            started = time.monotonic()
            numbers = transfer.start(ring)
            moving.move()
            transfer.finish(ring, numbers)
            assert time.monotonic() - started > 0.9, "nothing was lost"
        read_and_compare(ring, target, moving, (0, SIZE, MIB))
    assert moving.stats.dirty == 0
    assert moving.stats.maps - moving.stats.unmaps <= 1


@pytest.mark.parametrize("target", ["fuse"], indirect=True)
def test_a_server_that_waits_for_a_lost_command_can_be_killed(nvme, fuse, target, moving):
    """Nor does its end wait for the device."""
    with Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(READ_FIXED, target, moving)
        with the_next_completion_is_lost(nvme, missed_after_ms=8000):
            numbers = transfer.start(ring)
            wait_for(lambda: in_flight(nvme) == 1)
            fuse.revoke_all()
            time.sleep(1)
            assert (in_flight(nvme), state(fuse.pid)) == (1, "D"), "nothing was lost"
            started = time.monotonic()
            fuse.kill()
            assert time.monotonic() - started < 5
        transfer.finish_some(ring, numbers, -ESTALE)
    wait_for(lambda: moving.stats.detaches == 1)
    assert moving.stats.maps == moving.stats.unmaps
    assert moving.stats.dirty == 0


def in_flight(nvme):
    """Reads and writes that the controller has."""
    return sum(int(number) for number in (nvme.namespace / "inflight").read_text().split())


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# Removal


@pytest.fixture
def spare():
    """A controller to be taken away, with known content."""
    nvme = guest.Nvme("spare")
    fill(nvme)
    yield nvme
    bring_back_by_sysfs()


def fill(nvme):
    with open(nvme.device, "wb") as disk:
        disk.write(CONTENT)


def unplug_and_plug(nvme):
    machine.unplug_and_plug()


def remove_by_sysfs(nvme):
    (guest.PCI / "devices" / nvme.pci / "remove").write_text("1")


def bring_back_by_sysfs():
    (guest.PCI / "rescan").write_text("1")
    wait_for(lambda: machine.controller("spare"))


def test_a_controller_that_vanishes_and_comes_back(spare, moving):
    """Idle tokens end with it; a new one on the new device works, and so does the old ring."""
    target = Target(spare.device, CONTENT)
    with Ring() as ring:
        ring.register_dmabuf(0, moving, target.fd)
        read_and_compare(ring, target, moving, (0, MIB, 0))
        remove_by_sysfs(spare)
        assert moving.stats.attaches == moving.stats.detaches == 1
        moving.fill()
        for _ in range(3):
            with fails(EIO, ENODEV, ENXIO):
                ring.read_fixed(target.fd, 0, SIZE, 0)
        with fails(EIO, ENODEV, ENXIO, EOPNOTSUPP):
            ring.register_dmabuf(1, moving, target.fd)
        expect_untouched(moving)
        moving.move()
        target.close()
        bring_back_by_sysfs()
        again = Target(machine.controller("spare").device, CONTENT)
        ring.register_dmabuf(0, moving, again.fd)
        read_and_compare(ring, again, moving, (0, MIB, 0))
        again.close()
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    assert moving.stats.dirty == 0


def test_a_registration_after_the_controller_has_gone(spare, moving):
    """Also when it never had a token, and only the open disk is left of it."""
    with opened(spare.device) as disk, Ring() as ring:
        remove_by_sysfs(spare)
        for _ in range(3):
            with fails(ENODEV):
                ring.register_dmabuf(0, moving, disk)
    assert moving.stats.attaches == moving.stats.detaches


def test_registrations_while_the_controller_goes(spare, moving):
    with opened(spare.device) as disk, Ring() as ring:
        removal = threading.Thread(target=remove_by_sysfs, args=(spare,))
        removal.start()
        while True:
            try:
                ring.register_dmabuf(0, moving, disk)
            except OSError as error:
                assert error.errno == ENODEV
                break
        removal.join()
        assert moving.stats.attaches == moving.stats.detaches
        assert moving.stats.maps == moving.stats.unmaps


def test_a_token_whose_controller_has_gone_was_not_revoked(spare, moving, tmp_path, trace):
    """The FUSE server is told that it was closed."""
    for name in ("source", "mount"):
        (tmp_path / name).mkdir()
    guest.run("mkfs.ext4", "-q", "-F", spare.device)
    guest.run("mount", spare.device, tmp_path / "source")
    make_file(tmp_path / "source/data", CONTENT)
    guest.run("mount", "-o", "remount,ro", tmp_path / "source")
    try:
        with FuseServer(tmp_path / "source", tmp_path / "mount") as server:
            with opened(server.path("data"), os.O_RDONLY | os.O_DIRECT) as fd, Ring() as ring:
                ring.register_dmabuf(0, moving, fd)
                with trace("dmabuf_token:dmabuf_import_end") as ended, trace("dmabuf_token:dmabuf_token_revoke") as revoked:
                    remove_by_sysfs(spare)
                assert (ended.hits, revoked.hits) == (1, 0)
                with fails(ENODEV, EIO):
                    ring.read_fixed(fd, 0, SIZE, 0)
            wait_for(server.releases)
            (release,) = server.releases()
            assert release.reason == CLOSED
    finally:
        guest.unmount(tmp_path / "source")


@pytest.mark.parametrize("remove", [unplug_and_plug, remove_by_sysfs])
def test_a_controller_that_vanishes_under_load(spare, moving, remove):
    """Each request succeeds or fails, and the exporter can move all the while."""
    target = Target(spare.device, CONTENT)
    with Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        removal = threading.Thread(target=remove, args=(spare,))
        removal.start()
        failed = 0
        with in_background(moving.move):
            while not failed:
                transfer = Transfer(READ_FIXED, target, moving)
                failed = DEPTH - transfer.finish_some(ring, transfer.start(ring), *GONE)
        removal.join()
        assert moving.stats.attaches == moving.stats.detaches == 1
        assert moving.stats.dirty == 0
        target.close()


def test_a_controller_that_vanishes_while_a_ring_ends(spare, moving):
    target = Target(spare.device, CONTENT)
    ring = Ring(DEPTH)
    ring.register_dmabuf(0, moving, target.fd)
    Transfer(READ_FIXED, target, moving).start(ring)
    removal = threading.Thread(target=remove_by_sysfs, args=(spare,))
    removal.start()
    ring.close()
    target.close()
    removal.join()
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    assert moving.stats.dirty == 0


# Partitions, other paths


def test_the_token_of_a_partition_is_none_for_the_disk(spare, moving):
    partition = add_partition(spare.device, MIB, MIB)
    with Ring() as ring:
        with opened(partition) as part, opened(spare.device) as disk:
            ring.register_dmabuf(0, moving, part)
            assert ring.read_fixed(part, 0, MIB, 0) == MIB
            expect(moving[:MIB], CONTENT[MIB : 2 * MIB])
            with fails(EBADF):
                ring.read_fixed(disk, 0, SIZE, 0)
            assert ring.read_fixed(part, 0, 2 * SIZE, MIB - SIZE) == SIZE, "no byte from behind it"
            ring.unregister(0)
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    delete_partition(spare.device)


def test_a_namespace_with_several_paths(moving):
    """Its head works, or says at the registration that it cannot; it never takes the wrong path."""
    head = head_of_the_shared_namespace()
    with open(head, "wb") as disk:
        disk.write(CONTENT)
    target = Target(head, CONTENT)
    with Ring() as ring:
        try:
            ring.register_dmabuf(0, moving, target.fd)
        except OSError as error:
            assert error.errno == EOPNOTSUPP
            assert moving.stats.attaches == moving.stats.detaches
        else:
            read_and_compare(ring, target, moving, (0, MIB, 0))
        target.close()


def head_of_the_shared_namespace():
    (head,) = {path.parent.name for path in Path("/sys/block").glob("nvme*n1/multipath")}
    return f"/dev/{head}"
