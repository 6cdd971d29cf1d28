"""Fixtures of the token tests, for `from token_fixtures import *`: rings, buffers, and files that tokens can be made for."""

import os
import re
import shutil
from types import SimpleNamespace

import pytest

import fuse_server
from dmabuf import TestBuffer, Udmabuf, VfioDevice
from filesystems import RAW, ROOT
from fuse_server import FuseServer
from token_words import (
    BUFFER_SIZE, DIRECT, KIB, SLOTS, Target, add_partition, data_on_ext4, delete_partition, drop_cache_of, empty_ring, let_go,
    make_file, place_on_disk, random_bytes,
)  # fmt: skip
from uring import Ring

__all__ = [
    "ring", "udmabuf", "little", "moving", "vfio", "bar", "buffer", "fuse", "serve", "target", "front", "file", "disk", "place", "tree", "small", "directory",
    "token",
]  # fmt: skip


# Rings and buffers


@pytest.fixture
def ring(request):
    """A ring that is closed before the files it has tokens for: as long as it lives they stay open."""
    for name in {"target", "front", "file", "fuse", "tree", "small", "ext4", "mount", "disk"} & set(request.fixturenames):
        request.getfixturevalue(name)
    with Ring() as ring:
        yield ring
        if ring.is_open:
            empty_ring(ring)


@pytest.fixture
def udmabuf():
    with Udmabuf(BUFFER_SIZE) as buffer:
        buffer.fill()
        yield buffer


@pytest.fixture
def little():
    """A buffer of a few pages, for those who look at all of it often."""
    with Udmabuf(64 * KIB) as buffer:
        buffer.fill()
        yield buffer


@pytest.fixture
def moving():
    """A buffer of the test exporter."""
    with TestBuffer(BUFFER_SIZE) as buffer:
        buffer.fill()
        yield buffer


@pytest.fixture(scope="module")
def vfio(vram):
    device = VfioDevice(vram)
    yield device
    device.close()


@pytest.fixture
def bar(vfio):
    with vfio.export(BUFFER_SIZE) as buffer:
        buffer.fill()
        yield buffer


@pytest.fixture(params=["udmabuf", "bar", "moving"])
def buffer(request):
    """Each kind of dma-buf: host memory, device memory by peer-to-peer, and memory in single pages."""
    return request.getfixturevalue(request.param)


# Files that tokens can be made for


@pytest.fixture
def fuse(ext4, tmp_path):
    """The ext4 directory behind a scripted server that grants everything."""
    mountpoint = tmp_path / "fuse"
    mountpoint.mkdir()
    with FuseServer(ext4, mountpoint) as server:
        yield server


@pytest.fixture
def serve(ext4, tmp_path, request):
    """serve(broker) mounts the ext4 directory with a server of that broker: (server, target)."""
    path, content = data_on_ext4(ext4)

    def start(broker=fuse_server.grant):
        mountpoint = tmp_path / "fuse"
        mountpoint.mkdir()
        server = FuseServer(ext4, mountpoint, broker)
        request.addfinalizer(server.close)
        target = Target(server.path(path.name), content)
        request.addfinalizer(target.close)
        return server, target

    return start


def data_on_device(nvme):
    """Random bytes, as many as the buffers have, and where they lie on the device."""
    content = random_bytes(BUFFER_SIZE)
    with RAW.open("r+b") as file:
        file.write(content)
    drop_cache_of(nvme.device)
    return content, place_on_disk(RAW)


def raw_target(request, nvme, ext4):
    return Target(nvme.device, *data_on_device(nvme))


def partition_target(request, nvme, ext4):
    """A partition laid over them."""
    content, place = data_on_device(nvme)
    partition = add_partition(nvme.device, place, len(content))
    request.addfinalizer(lambda: delete_partition(nvme.device))
    return Target(partition, content)


def ext4_target(request, nvme, ext4):
    return Target(*data_on_ext4(ext4))


def fuse_target(request, nvme, ext4):
    path, content = data_on_ext4(ext4)
    return Target(request.getfixturevalue("fuse").path(path.name), content)


def mount_target(request, nvme, ext4):
    path, content = data_on_ext4(ext4)
    return Target(request.getfixturevalue("filesystems").mount() / path.relative_to(ROOT), content)


TARGETS = {
    "raw": raw_target, "partition": partition_target, "ext4": ext4_target, "fuse": fuse_target, "mount": mount_target,
}  # fmt: skip


def closing(request, target):
    """At the end the file is closed, and really so."""

    def close():
        target.close()
        let_go()

    request.addfinalizer(close)
    return target


@pytest.fixture(params=TARGETS)
def target(request, nvme, ext4):
    """Each kind of file: the device, a partition, a file, and files on FUSE by a scripted and by the real server."""
    return closing(request, TARGETS[request.param](request, nvme, ext4))


@pytest.fixture(params=["ext4", "fuse"])
def front(request, nvme, ext4):
    """A file on ext4, and the same seen through FUSE."""
    return closing(request, TARGETS[request.param](request, nvme, ext4))


@pytest.fixture
def file(request, nvme, ext4):
    """A file on ext4, where the kind does not matter."""
    return closing(request, ext4_target(request, nvme, ext4))


@pytest.fixture
def disk(nvme, filesystems):
    """The whole device, to write to at will."""
    let_go()
    filesystems.clear()
    ROOT.mkdir(parents=True, exist_ok=True)
    return nvme.device


# Places for files: a filesystem, seen directly or through the server's mount of it

PLACES = ["ext4", "xfs", "ext4-mount", "xfs-mount"]


def hold(filesystems, place, prefix=""):
    """The filesystem of a place: .path for the application, .backing where the files really are."""
    kind, _, mount = place.partition("-")
    if prefix + kind != filesystems.kind:
        let_go()
    backing = filesystems.hold(prefix + kind)
    if not mount:
        filesystems.unmount()
    return SimpleNamespace(kind=kind, path=filesystems.mount() if mount else backing, backing=backing, mount=mount)


@pytest.fixture(scope="module", params=PLACES)
def place(request):
    """Its scope is that of the module only to bring the tests of one filesystem together."""
    return request.param


@pytest.fixture
def tree(filesystems, place, request):
    """An empty directory in each place."""
    found = hold(filesystems, place)
    name = re.sub(r"\W+", "-", request.node.name)
    found.path, found.backing = found.path / name, found.backing / name
    found.backing.mkdir()
    yield found
    shutil.rmtree(found.backing)


@pytest.fixture
def small(filesystems, place):
    """The root of a filesystem of 320 MiB, with quotas and all the features that a token is refused for; it may be broken."""
    return hold(filesystems, place, "small-")


@pytest.fixture
def directory(tree):
    """A function from (name, parts of make_file) to (path, content)."""

    def make(name, *parts):
        content = make_file(tree.backing / name, *parts)
        return str(tree.path / name), content

    make.backing = tree.backing
    return make


@pytest.fixture
def token(ring, udmabuf):
    """token(path) registers `udmabuf` for the file, and returns a function that reads: (buffer offset, length, file offset)."""
    fds = []

    def register(path, flags=DIRECT):
        fds.append(os.open(path, flags))
        slot, fd = (len(fds) - 1) % SLOTS, fds[-1]
        ring.register_dmabuf(slot, udmabuf, fd)

        def read(to, length, start):
            return ring.read_fixed(fd, to, length, start, slot)

        read.fd = fd
        read.write = lambda start, length, to: ring.write_fixed(fd, start, length, to, slot)
        return read

    yield register
    for fd in fds:
        os.close(fd)
    empty_ring(ring)
