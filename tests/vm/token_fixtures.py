"""Fixtures of the token tests, for `from token_fixtures import *`: rings, buffers, and files that tokens can be made for."""

import pytest

import guest
from dmabuf import TestBuffer, Udmabuf, VfioDevice
from fuse_server import FuseServer
from token_words import BUFFER_SIZE, Target, add_partition, data_on_ext4, delete_partition, empty_ring, let_go, make_file, place_on_disk
from uring import Ring

__all__ = ["ring", "udmabuf", "moving", "vfio", "bar", "buffer", "fuse", "target", "front", "file", "disk", "directory"]


# Rings and buffers


@pytest.fixture
def ring(request):
    """A ring that is closed before the files it has tokens for: as long as it lives they stay open."""
    for name in {"target", "front", "file", "fuse", "directory", "ext4", "mount", "disk"} & set(request.fixturenames):
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


def raw_target(request, nvme, ext4):
    """The bytes of a file, where they lie on the device."""
    path, content = data_on_ext4(ext4)
    return Target(nvme.device, content, place_on_disk(path))


def partition_target(request, nvme, ext4):
    """A partition laid over the bytes of a file."""
    path, content = data_on_ext4(ext4)
    partition = add_partition(nvme.device, place_on_disk(path), len(content))
    request.addfinalizer(lambda: delete_partition(nvme.device))
    return Target(partition, content)


def ext4_target(request, nvme, ext4):
    return Target(*data_on_ext4(ext4))


def fuse_target(request, nvme, ext4):
    path, content = data_on_ext4(ext4)
    return Target(request.getfixturevalue("fuse").path(path.name), content)


def mount_target(request, nvme, ext4):
    path, content = data_on_ext4(ext4)
    return Target(request.getfixturevalue("mount").path / path.name, content)


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
def disk(nvme, _ext4_root):
    """The whole device, to write to at will: its usual file system comes back afterwards."""
    let_go()
    guest.run("umount", _ext4_root)
    yield nvme.device
    guest.make_ext4(nvme.device, _ext4_root)


@pytest.fixture(params=["ext4", "fuse"])
def directory(request, ext4):
    """A function from (name, parts of make_file) to (path, content), for files on ext4, seen directly or through FUSE."""
    prefix = request.getfixturevalue("fuse").path if request.param == "fuse" else lambda name: str(ext4 / name)

    def make(name, *parts):
        content = make_file(ext4 / name, *parts)
        return prefix(name), content

    make.ext4 = ext4
    return make
