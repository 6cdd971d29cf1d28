"""A client written for the proposal on the kernel lists runs unchanged: abi-client.c is such a one, and stays as it is."""

from pathlib import Path

import pytest

import guest
from token_fixtures import *  # noqa: F403
from token_words import data_on_ext4, let_go


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    program = tmp_path_factory.mktemp("abi") / "abi-client"
    guest.run("gcc", "-O1", "-w", "-o", program, Path(__file__).with_name("abi-client.c"), "-luring")
    return program


@pytest.fixture(params=["raw", "ext4", "fuse", "mount"])
def path(request, _ext4_held):
    """What it reads from and writes to: the first 4 MiB."""
    yield request.getfixturevalue("disk") if request.param == "raw" else data_file(request)
    let_go()


def data_file(request):
    path, _ = data_on_ext4(request.getfixturevalue("ext4"))
    if request.param == "fuse":
        return request.getfixturevalue("fuse").path(path.name)
    if request.param == "mount":
        return request.getfixturevalue("mount").path / path.name
    return path


def test_reads_and_writes_host_memory(client, path):
    assert "UDMABUF PASS" in guest.run(client, "udmabuf", path)


def test_reads_and_writes_device_memory(client, path, vram):
    assert "VFIO-P2P PASS" in guest.run(client, "vfio", path, vram)


def test_device_memory_that_is_switched_off(client, path, vram):
    output = guest.run(client, "revoke", path, vram)
    assert "read before revoke: 65536" in output
    assert "read -> -19" in output, "ENODEV"
    assert "memory re-enabled: read -> 65536" in output
