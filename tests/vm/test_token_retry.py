"""A token request ends with bytes or with an errno that says why: not with EAGAIN, which is the answer to RWF_NOWAIT, and not never.

What can wait is retried inside of the kernel, by a worker or by a ring that polls. Nothing may be retried that fails again and again.
"""

import contextlib
import mmap
import os
import resource
import signal
from errno import EBUSY, EDQUOT, EFBIG, EINVAL, ENOSPC, ENXIO, EOPNOTSUPP, EPERM, errorcode
from pathlib import Path

import pytest

import guest
from dmabuf import CANARY, TestBuffer
from fuse_server import FuseServer
from token_fixtures import *  # noqa: F403
from token_words import (
    APPEND_ONLY, DIRECT, IMMUTABLE, JOURNAL_DATA, KIB, MIB, expect, fails, fallocate, flagged, let_go, make_file, opened, random_bytes, set_direct, wait_for,
)  # fmt: skip
from uring import IOPOLL, IOSQE_ASYNC, READ_FIXED, WRITE_FIXED, Ring
from uring_words import DEFERRED

A, B = random_bytes(64 * KIB, seed=1), random_bytes(64 * KIB, seed=2)
SIZE = len(A)
BUFFER_SIZE = 4 * SIZE
NEW = random_bytes(BUFFER_SIZE, seed=9)
USER = 1234
SECONDS = 20  # a request that takes longer never ends

ROOT, MOUNT = Path("/mnt/spare"), Path("/mnt/spare-fuse")
MAKE_EXT4 = "mkfs.ext4 -q -F -b 4096 -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -O quota{} {} 32M"
FILESYSTEMS = {
    "indirect": (lambda device: MAKE_EXT4.format(",^extents,^64bit", device), "noinit_itable,nodelalloc,usrquota", "fsck.ext4 -fn {}"),
    "ext4": (lambda device: MAKE_EXT4.format("", device), "noinit_itable,nodelalloc,usrquota", "fsck.ext4 -fn {}"),
    "xfs": (lambda device: f"mkfs.xfs -q -f -K -d size=320m {device}", "uquota", "xfs_repair -n {}"),
}

# (flags of the ring, flags of the request, by FUSE): no FUSE file can be polled
WAYS = {
    "inline": (DEFERRED, 0, False), "worker": (DEFERRED, IOSQE_ASYNC, False), "polled": (IOPOLL, 0, False), "polled-worker": (IOPOLL, IOSQE_ASYNC, False),
    "fuse-inline": (DEFERRED, 0, True), "fuse-worker": (DEFERRED, IOSQE_ASYNC, True),
}  # fmt: skip


@pytest.fixture(scope="module", params=FILESYSTEMS)
def kind(request):
    return request.param


class Volume:
    """A filesystem on the spare controller, and a FUSE mount of it."""

    def __init__(self, kind):
        self.device = guest.Nvme("spare").device
        make, self.options, self.check = FILESYSTEMS[kind]
        guest.run(*make(self.device).split())
        for directory in (ROOT, MOUNT):
            directory.mkdir(exist_ok=True)
        self.mount()
        self.server = FuseServer(ROOT, MOUNT)

    def mount(self):
        guest.run("mount", "-o", self.options, self.device, ROOT)

    def unmount(self):
        """Nothing keeps it, and what is on the device is consistent."""
        let_go()
        guest.unmount(ROOT)
        guest.run(*self.check.format(self.device).split())

    def close(self):
        self.server.close()
        self.unmount()


@pytest.fixture(scope="module")
def volume(kind):
    volume = Volume(kind)
    yield volume
    volume.close()


class Client:
    """A new file, and a ring on which its requests go one of the ways."""

    def __init__(self, volume, way, name, buffer):
        self.volume, self.name, self.buffer, self.fds = volume, f"{name}-{way}", buffer, []
        flags, self.flags, self.by_fuse = WAYS[way]
        self.ring = Ring(flags=flags)
        self.backing = ROOT / self.name

    @property
    def path(self):
        return (MOUNT if self.by_fuse else ROOT) / self.name

    def make(self, *parts, flags=DIRECT):
        """The file of these parts, and a token for it."""
        make_file(self.backing, *parts)
        return self.open(flags)

    def open(self, flags=DIRECT):
        self.fds.append(os.open(self.path, flags))
        self.ring.register_dmabuf(0, self.buffer, self.fd)
        return self

    @property
    def fd(self):
        return self.fds[-1]

    def run(self, opcode, place, length, offset, **more):
        try:
            return self.ring.run(opcode, self.fd, place, length, offset, timeout=SECONDS, flags=self.flags, **more)
        except TimeoutError:
            pytest.fail(f"{self.name}: the request does not end")

    def read(self, length, offset):
        self.buffer.fill()
        return self.run(READ_FIXED, 0, length, offset)

    def write(self, length, offset):
        self.buffer[:] = NEW
        return self.run(WRITE_FIXED, 0, length, offset)

    def content(self):
        return self.backing.read_bytes()

    def close(self):
        """All that was made, once."""
        while self.fds:
            os.close(self.fds.pop())
        self.ring.close()
        self.backing.unlink(missing_ok=True)


@pytest.fixture
def buffer():
    """A small one: each request fills it."""
    with TestBuffer(BUFFER_SIZE) as buffer:
        yield buffer
        assert buffer.stats.dirty == 0


@pytest.fixture
def client(volume, buffer, request):
    """client(way): all of them are gone before the volume is needed without them."""
    name = request.node.originalname
    clients = []

    def client(way, name=name):
        clients.append(Client(volume, way, name, buffer))
        return clients[-1]

    yield client
    for one in clients:
        one.close()
    let_go()


every_way = pytest.mark.parametrize("way", WAYS)
without_extents = pytest.mark.parametrize("kind", ["indirect"], indirect=True, scope="module")


# Files without extents: ext4 fills their holes with the page cache's help, and that cannot be had


@without_extents
@every_way
def test_a_write_into_a_hole_without_extents(client, volume, way):
    """It is refused and writes nothing, and nothing keeps the filesystem."""
    file = client(way).make(A, 64 * KIB, B)
    for length, offset in (4 * KIB, 64 * KIB), (SIZE, 64 * KIB), (512, 64 * KIB), (512, 96 * KIB + 512), (BUFFER_SIZE, 124 * KIB):
        blocks = os.stat(file.backing).st_blocks
        with fails(EOPNOTSUPP, what=(length, offset)):
            file.write(length, offset)
        assert os.stat(file.backing).st_blocks == blocks
    expect(file.content(), A + bytes(64 * KIB) + B)
    file.close()
    volume.unmount()
    volume.mount()


@without_extents
@every_way
def test_a_write_that_runs_into_a_hole_without_extents(client, way):
    """It ends short, with the blocks before the hole; those behind it stay as they are."""
    file = client(way).make(A, 64 * KIB, B)
    for length, offset in (SIZE, 60 * KIB), (128 * KIB, 32 * KIB), (160 * KIB, 0), (1024, 64 * KIB - 512):
        mapped = 64 * KIB - offset
        assert file.write(length, offset) == mapped, (length, offset)
        expect(file.content(), A[:offset] + NEW[:mapped] + bytes(64 * KIB) + B)
        make_file(file.backing, A, 64 * KIB, B)   # as it was


@without_extents
@every_way
def test_what_needs_no_hole_without_extents(client, way):
    """Overwrites, reads and writes at the end of the file and beyond are as those of any file."""
    file = client(way).make(A, 64 * KIB, B)
    assert file.write(SIZE, 0) == SIZE
    assert file.write(512, 128 * KIB + 1024) == 512
    behind = B[:1024] + NEW[:512] + B[1536:]
    assert file.read(SIZE, 128 * KIB) == SIZE
    expect(file.buffer[:SIZE], behind)
    assert file.write(SIZE, 192 * KIB) == SIZE
    assert file.write(SIZE, 512 * KIB) == SIZE
    expect(file.content(), NEW[:SIZE] + bytes(64 * KIB) + behind + NEW[:SIZE] + bytes(256 * KIB) + NEW[:SIZE])


# All that does not go as it should

CASES = {}


def case(ends, *kinds, ways=("inline", "polled", "polled-worker", "fuse-worker")):
    """How the request of the function ends, with a number of bytes or an errno, on these filesystems."""

    def remember(function):
        for kind in kinds or ("ext4", "xfs"):
            CASES.setdefault(kind, []).append((function, ends, ways))
        return function

    return remember


@case(ENXIO, *FILESYSTEMS)
def read_of_a_hole(file):
    return file.make(A, 64 * KIB, B).read(SIZE, 64 * KIB)


@case(SIZE // 2, *FILESYSTEMS)
def read_that_runs_into_a_hole(file):
    return file.make(A, 64 * KIB, B).read(SIZE, SIZE // 2)


@case(0)
def read_at_the_end(file):
    return file.make(A).read(SIZE, SIZE)


@case(ENXIO, "ext4", "xfs")
def read_of_what_was_never_written(file):
    file.make()
    fallocate(file.backing, 0, 0, SIZE)
    return file.read(SIZE, 0)


@case(SIZE, "ext4", "xfs")
def write_into_a_hole(file):
    return file.make(A, 64 * KIB, B).write(SIZE, 64 * KIB)


@case(512, "ext4", "xfs")
def write_of_a_part_of_a_block_into_a_hole(file):
    return file.make(A, 64 * KIB, B).write(512, 64 * KIB + 512)


@case(SIZE)
def write_at_the_end(file):
    return file.make(A).write(SIZE, SIZE)


@case(EINVAL)
def write_that_is_not_aligned(file):
    return file.make(A).write(SIZE, 100)


@case(EOPNOTSUPP, "xfs")
def write_of_a_part_of_a_shared_block(file):
    reflink(file.make(A))
    return file.write(512, 512)


@case(SIZE, "xfs")
def write_of_shared_blocks(file):
    reflink(file.make(A))
    return file.write(SIZE, 0)


def reflink(file):
    guest.run("cp", "--reflink=always", file.backing, ROOT / "clone")
    (ROOT / "clone").unlink()


@case(EPERM, "ext4", "indirect")
def write_to_a_file_that_has_become_immutable(file):
    with flagged(file.make(A).backing, IMMUTABLE):
        return file.write(SIZE, 0)


@case(SIZE, "ext4", "indirect")
def write_to_a_file_that_has_become_append_only(file):
    """It was opened before."""
    with flagged(file.make(A).backing, APPEND_ONLY):
        return file.write(SIZE, 0)


@case(EOPNOTSUPP, "ext4", "indirect")
def write_to_a_file_whose_data_goes_to_the_journal_now(file):
    with flagged(file.make(A).backing, JOURNAL_DATA):
        return file.write(SIZE, 0)


@case(EOPNOTSUPP, "ext4", "indirect")
def read_of_a_file_whose_data_goes_to_the_journal_now(file):
    with flagged(file.make(A).backing, JOURNAL_DATA):
        return file.read(SIZE, 0)


@case(EINVAL)
def write_without_o_direct(file):
    set_direct(file.make(A).fd, False)
    return file.write(SIZE, 0)


@case(EINVAL)
def read_without_o_direct(file):
    set_direct(file.make(A).fd, False)
    return file.read(SIZE, 0)


@case(SIZE)
def write_to_a_file_that_is_not_to_block(file):
    return file.make(A, flags=DIRECT | os.O_NONBLOCK).write(SIZE, 0)


@case(SIZE)
def read_of_a_file_that_is_not_to_block(file):
    """Nor for a map that has gone."""
    file.make(A, flags=DIRECT | os.O_NONBLOCK).read(SIZE, 0)
    file.buffer.move()
    return file.read(SIZE, 0)


@case(EBUSY)
def read_whose_map_fails_with_eagain(file):
    file.make(A).buffer.move()
    file.buffer.fail_map(1, 11)
    return file.read(SIZE, 0)


@case(SIZE, *FILESYSTEMS)
def write_to_pages_that_somebody_has_mapped_and_changed(file):
    with dirty_pages(file.make(A)):
        return file.write(SIZE, 0)


@case(SIZE, *FILESYSTEMS)
def read_of_pages_that_somebody_has_mapped_and_changed(file):
    with dirty_pages(file.make(A)):
        return file.read(SIZE, 0)


@contextlib.contextmanager
def dirty_pages(file):
    with open(file.backing, "r+b") as pages, mmap.mmap(pages.fileno(), 0) as mapped:
        mapped[:] = bytes(SIZE)
        yield


@case(EFBIG)
def write_beyond_the_limit_of_the_process(file):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    file.make(A)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE, before[1]))
    try:
        return file.write(SIZE, SIZE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@case(EFBIG, "ext4", "indirect")
def write_beyond_the_limit_of_the_filesystem(file):
    return file.make(A).write(SIZE, 2**63 - 2 * SIZE)


@case(EDQUOT, *FILESYSTEMS, ways=["inline", "polled-worker"])
def write_beyond_the_quota(file):
    """Where a FUSE server is the owner's it has the server's rights."""
    os.chown(file.make(A).backing, USER, USER)
    guest.run("xfs_quota", "-x", "-f", "-c", f"limit -u bhard=1m {USER}", ROOT)
    os.seteuid(USER)
    try:
        return until_it_fails(file)
    finally:
        os.seteuid(0)
        guest.run("xfs_quota", "-x", "-f", "-c", f"limit -u bhard=0 {USER}", ROOT)


def until_it_fails(file):
    return sum(file.write(SIZE, SIZE + done) for done in range(0, 16 * MIB, SIZE))


def test_each_ends_as_it_should(kind, client):
    """On each way that differs."""
    wrong = {}
    for case, ends, ways in CASES[kind]:
        for way in ways:
            try:
                found = case(client(way, case.__name__))
            except OSError as error:
                found = error.errno
            if found != ends:
                wrong[f"{case.__name__}, {way}"] = errorcode.get(found, found)
    assert not wrong


def test_no_space(client):
    files = [client(way).make(A) for way in WAYS]
    with opened(ROOT / "filler", os.O_WRONLY | os.O_DIRECT | os.O_CREAT) as fd:
        fill(fd)
        try:
            for file in files:
                with fails(ENOSPC, what=file.name):
                    until_it_fails(file)
        finally:
            (ROOT / "filler").unlink()
    # what is free now is free to all
    wait_for(lambda: os.statvfs(ROOT).f_bavail * 4 * KIB > 8 * MIB)
    for file in files:
        assert file.write(SIZE, SIZE) == SIZE, file.name


def fill(fd):
    """Takes all space, where files have no extents by writing."""
    state = os.statvfs(ROOT)
    try:
        fallocate(ROOT / "filler", 0, 0, state.f_bavail * state.f_frsize - 2 * MIB)
    except OSError as error:
        assert error.errno == EOPNOTSUPP
    os.lseek(fd, 0, os.SEEK_END)
    with mmap.mmap(-1, MIB) as zeros:
        for size in (MIB, 4 * KIB):
            with contextlib.suppress(OSError), memoryview(zeros) as memory:
                while True:
                    os.write(fd, memory[:size])
    os.fsync(fd)


def test_a_frozen_filesystem(client):
    """A write waits for the thaw, on each way, and a read for nothing."""
    files = [client(way).make(A) for way in WAYS]
    guest.run("fsfreeze", "--freeze", ROOT)
    try:
        for file in files:
            assert file.read(SIZE, 0) == SIZE
            expect(file.buffer[:SIZE], A)
            file.number = file.ring.prepare(WRITE_FIXED, file.fd, SIZE, SIZE, 0, flags=file.flags)
            file.ring.submit()
        for file in files:
            with pytest.raises(TimeoutError):
                file.ring.wait(0.1)
    finally:
        files[0].buffer[SIZE : 2 * SIZE] = B
        guest.run("fsfreeze", "--unfreeze", ROOT)
    for file in files:
        assert file.ring.wait(SECONDS) == (file.number, SIZE), file.name
        expect(file.content(), B)


# The end of a device


@pytest.fixture(params=["inline", "worker", "polled", "polled-worker"])
def device(disk, nvme, buffer, request):
    """A controller without a filesystem: .size and requests, as of a Client."""
    client = Device(nvme, request.param, buffer)
    yield client
    client.close()
    let_go()


class Device(Client):
    def __init__(self, nvme, way, buffer):
        super().__init__(None, way, "the device", buffer)
        self.size, self.backing = nvme.size, Path(nvme.device)
        self.open()

    @property
    def path(self):
        return self.backing

    def close(self):
        self.ring.close()
        os.close(self.fd)


def test_the_end_of_a_device(device):
    assert device.read(SIZE, device.size) == 0
    with fails(ENOSPC):
        device.write(SIZE, device.size)
    assert device.write(SIZE, device.size - 4 * KIB) == 4 * KIB
    assert device.read(SIZE, device.size - 4 * KIB) == 4 * KIB
    expect(device.buffer[: 8 * KIB], NEW[: 4 * KIB] + bytes([CANARY]) * 4 * KIB)


def test_a_device_that_is_read_only_now(device):
    assert device.write(SIZE, 0) == SIZE
    guest.run("blockdev", "--setro", device.path)
    try:
        with fails(EPERM):
            device.write(SIZE, 0)
        assert device.read(SIZE, 0) == SIZE
    finally:
        guest.run("blockdev", "--setrw", device.path)
    expect(device.buffer[:SIZE], NEW[:SIZE])
