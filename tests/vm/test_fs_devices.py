"""Filesystems on two devices, and on a device that needs its pages stable: no token where it could not be kept."""

import fcntl
import os
import struct
from errno import EIO, EINVAL, ENODEV, EOPNOTSUPP, EREMOTEIO
from pathlib import Path

import pytest

import guest
from filesystems import ROOT
from token_fixtures import *  # noqa: F403
from token_words import DIRECT, KIB, expect, expect_untouched, fails, make_file, random_bytes, setting

A = random_bytes(64 * KIB, seed=1)
FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_XFLAG_REALTIME = 0x801C581F, 0x401C5820, 1


@pytest.fixture
def two_devices(disk):
    """XFS with its realtime device on another controller."""
    other = guest.Nvme("spare").device
    guest.run("mkfs.xfs", "-q", "-f", "-K", "-d", "size=320m", "-r", f"rtdev={other},size=320m", disk)
    guest.run("mount", "-o", f"rtdev={other}", disk, ROOT)
    yield ROOT
    guest.unmount(ROOT)


def move_to_realtime_device(path):
    """As long as the file is empty."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    attributes = bytearray(28)
    fcntl.ioctl(fd, FS_IOC_FSGETXATTR, attributes)
    flags, *rest = struct.unpack("=IIIII8s", attributes)
    fcntl.ioctl(fd, FS_IOC_FSSETXATTR, struct.pack("=IIIII8s", flags | FS_XFLAG_REALTIME, *rest))
    os.close(fd)


def test_file_on_the_realtime_device(two_devices, token):
    move_to_realtime_device(two_devices / "file")
    with open(two_devices / "file", "r+b") as file:
        file.write(A)
    with fails(EOPNOTSUPP):
        token(two_devices / "file")


def test_file_that_moves_to_another_device_after_the_registration(two_devices, token, udmabuf):
    """The token is for the controller of the device that it was on: the other one must not use it."""
    path = two_devices / "file"
    path.touch()
    read = token(path, DIRECT)
    move_to_realtime_device(path)
    with open(path, "r+b") as file:
        file.write(A)
        os.fsync(file.fileno())
    with fails(EIO, EINVAL, ENODEV, EOPNOTSUPP, EREMOTEIO):
        read(0, 64 * KIB, 0)
    expect_untouched(udmabuf)
    udmabuf[: 64 * KIB] = bytes(64 * KIB)
    with fails(EIO, EINVAL, ENODEV, EOPNOTSUPP, EREMOTEIO):
        read.write(0, 64 * KIB, 0)
    udmabuf.fill()
    assert path.read_bytes() == A


def test_file_on_the_data_device_beside_it(two_devices, token, udmabuf):
    make_file(two_devices / "file", A)
    assert token(two_devices / "file")(0, 64 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 64 * KIB], A)


@pytest.fixture
def stable_writes(disk):
    """The device wants that nobody changes pages while it writes them, as one that makes checksums does."""
    with setting(Path(f"/sys/block/{Path(disk).name}/queue/stable_writes"), 1):
        guest.run("mkfs.xfs", "-q", "-f", "-K", "-d", "size=320m", disk)
        guest.run("mount", disk, ROOT)
        yield ROOT
        guest.unmount(ROOT)


def test_direct_writes_that_go_through_bounce_buffers(stable_writes, token):
    make_file(stable_writes / "file", A)
    with fails(EOPNOTSUPP):
        token(stable_writes / "file")


@pytest.fixture(params=["ext4", "xfs"])
def dax(request, disk):
    """mount(options) a filesystem with one file, whose device has DAX by grace of tests/modules/dax. No NVMe device has."""
    claim = Path("/sys/module/dax_claim/parameters/device")
    make = {"ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard", disk, "320M"],
            "xfs": ["mkfs.xfs", "-q", "-f", "-K", "-d", "size=320m", disk]}
    guest.run(*make[request.param])
    guest.run("mount", disk, ROOT)
    make_file(ROOT / "file", A)
    guest.unmount(ROOT)

    def mount(options):
        guest.run("mount", "-o", options, disk, ROOT)
        return ROOT / "file"

    with setting(claim, disk):
        yield mount
        guest.unmount(ROOT)


@pytest.mark.parametrize("options, refused", [("dax=always", True), ("dax=never", False)])
def test_file_that_is_read_past_its_block_device(dax, token, options, refused):
    path = dax(options)
    if refused:
        with fails(EOPNOTSUPP):
            token(path)
    else:
        assert token(path)(0, 64 * KIB, 0) == 64 * KIB
