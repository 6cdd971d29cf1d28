"""Tokens that are revoked while the controller does not complete one of their commands: who waits for it, and who does not."""

import contextlib
import fcntl
import mmap
import os
import threading
from errno import ESTALE
from pathlib import Path

import pytest

from fuse_server import DMABUF_REVOKE
from test_mount_broker import take_descriptor
from test_nvme_life import in_flight, state, the_next_completion_is_lost
from token_fixtures import *  # noqa: F403
from token_words import KIB, MIB, Target, make_file, random_bytes, read_and_compare, wait_for
from uring import READ_FIXED, Ring
from uring_words import DEPTH, Transfer

pytestmark = pytest.mark.parametrize("target", ["fuse"], indirect=True)


def test_other_users_of_the_buffer_do_not_wait(nvme, fuse, target, moving, ext4, trace):
    """Those of another token, nor the exporter and who looks at the memory."""
    file = Target(ext4 / "other", make_file(ext4 / "other", random_bytes(64 * KIB)))
    with contextlib.closing(file) as other, Ring(DEPTH) as ring, Ring() as others_ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(READ_FIXED, target, moving)
        with the_next_completion_is_lost(nvme, missed_after_ms=3000):
            numbers = transfer.start(ring)
            wait_for(lambda: in_flight(nvme) == 1)
            fuse.revoke_all()
            wait_for(lambda: state(fuse.pid) == "D")

            others_ring.register_dmabuf(0, moving, other.fd)
            read_and_compare(others_ring, other, moving, (MIB + 64 * KIB, 64 * KIB, 0))
            with trace("dmabuf_token:dmabuf_token_release") as released:
                others_ring.unregister(0)
                wait_for(lambda: released.update().hits, others_ring)
            with mmap.mmap(moving.fileno(), moving.size) as memory:
                assert memory[MIB + 64 * KIB] == other.content[0]
            assert (in_flight(nvme), state(fuse.pid)) == (1, "D"), "it waited for the device"
        transfer.finish_some(ring, numbers, -ESTALE)
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    assert moving.stats.dirty == 0


def test_all_who_wait_go_on_when_it_is_completed(nvme, fuse, target, moving):
    """Two who revoke the token, and the exporter who moves the memory."""
    counts = []

    def revoke():
        which = bytearray(24)
        fcntl.ioctl(device, DMABUF_REVOKE, which)
        counts.append(int.from_bytes(which[20:], "little"))

    threads = [threading.Thread(target=function) for function in (revoke, revoke, moving.move)]
    with device_of(fuse) as device, Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(READ_FIXED, target, moving)
        with the_next_completion_is_lost(nvme, missed_after_ms=1000):
            numbers = transfer.start(ring)
            wait_for(lambda: in_flight(nvme) == 1)
            for thread in threads:
                thread.start()
            wait_for(lambda: [state(thread.native_id) for thread in threads] == ["D"] * 3)
            assert in_flight(nvme) == 1
            for thread in threads:
                thread.join(60)
            assert not any(thread.is_alive() for thread in threads)
        transfer.finish_some(ring, numbers, -ESTALE)
    assert sorted(counts) == [0, 1]
    wait_for(lambda: moving.stats.detaches == 1)
    assert moving.stats.dirty == 0


@contextlib.contextmanager
def device_of(server):
    """The descriptor by which a server speaks to the kernel, here, too."""
    number = next(path.name for path in Path(f"/proc/{server.pid}/fd").iterdir() if os.readlink(path) == "/dev/fuse")
    pidfd = os.pidfd_open(server.pid)
    fd = take_descriptor(pidfd, int(number))
    os.close(pidfd)
    try:
        yield fd
    finally:
        os.close(fd)
