"""A client written for the proposal on the kernel lists runs unchanged: abi-client.c is such a one, and stays as it is."""

import pytest

import guest
from token_fixtures import *  # noqa: F403
from token_words import MIB, data_on_ext4, let_go

CLIENT = guest.BED / "abi-client"


@pytest.fixture(params=["raw", "ext4", "fuse", "mount"])
def path(request, _ext4_held):
    """What it reads from and writes to: the first 4 MiB."""
    yield request.getfixturevalue("disk") if request.param == "raw" else data_file(request)
    let_go()


def data_file(request):
    path, _ = data_on_ext4(request.getfixturevalue("ext4"), 4 * MIB)
    if request.param == "fuse":
        return request.getfixturevalue("fuse").path(path.name)
    if request.param == "mount":
        return request.getfixturevalue("mount").path / path.name
    return path


def test_reads_and_writes_host_memory(path):
    assert "UDMABUF PASS" in guest.run(CLIENT, "udmabuf", path)


def test_reads_and_writes_device_memory(path, vram):
    assert "VFIO-P2P PASS" in guest.run(CLIENT, "vfio", path, vram)


def test_device_memory_that_is_switched_off(path, vram):
    output = guest.run(CLIENT, "revoke", path, vram)
    assert "read before revoke: 65536" in output
    assert "read -> -19" in output, "ENODEV"
    assert "memory re-enabled: read -> 65536" in output
