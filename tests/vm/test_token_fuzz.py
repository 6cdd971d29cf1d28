"""Random and hostile registrations and requests (token-fuzz.c): errors or right results only, and nothing of them stays.

tests/run.sh --fuzz=N makes N calls; FUZZ_SEED in the environment says which.
"""

import contextlib
import os
import random
import subprocess
from pathlib import Path

import pytest

import guest
from dmabuf import TestBuffer, Udmabuf
from fuse_server import TOKEN_CREATE, TOKEN_RELEASE, FuseServer
from token_words import MIB, add_partition, attachments, delete_partition, drop_cache_of, make_file, place_on_disk, random_bytes, wait_for

SEED = int(os.environ.get("FUZZ_SEED", 0)) or random.SystemRandom().randrange(1, 1 << 32)
FILE_SIZE, BUFFER_SIZE = 8 * MIB, MIB


def open_files():
    return int(Path("/proc/sys/fs/file-nr").read_text().split()[0])


@contextlib.contextmanager
def without_extents(directory):
    """ext4 on the spare controller, with a file there that has a hole: a request that would have to fill it fails, or ends short before it."""
    device = guest.Nvme("spare").device
    guest.run("mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^extents,^64bit", "-E", "nodiscard", device, "64M")
    directory.mkdir()
    guest.run("mount", device, directory)
    try:
        content = random_bytes(FILE_SIZE, seed=3)
        make_file(directory / "indirect", content[: 3 * MIB], 2 * MIB, content[5 * MIB :])
        yield directory / "indirect"
    finally:
        guest.unmount(directory)


@pytest.mark.timeout(36000)
def test_random_and_hostile_calls(nvme, ext4, tmp_path, request):
    """On ext4, FUSE, a partition, and a file without extents, into host memory and memory in single pages; none on a device with zones."""
    (tmp_path / "fuse").mkdir()
    for i, name in enumerate(("direct", "fuse", "partition")):
        make_file(ext4 / name, random_bytes(FILE_SIZE, seed=i))
    drop_cache_of(nvme.device)
    partition = add_partition(nvme.device, place_on_disk(ext4 / "partition"), FILE_SIZE)
    request.addfinalizer(lambda: delete_partition(nvme.device))
    before = open_files()
    with (without_extents(tmp_path / "indirect") as indirect, FuseServer(ext4, tmp_path / "fuse") as server,
          Udmabuf(BUFFER_SIZE) as udmabuf, TestBuffer(BUFFER_SIZE) as moving):  # fmt: skip
        buffers, zoned = (udmabuf.fileno(), moving.fileno()), guest.Nvme("zoned").device
        files = (ext4 / "direct", server.path("fuse"), partition, indirect)
        result = subprocess.run([guest.BED / "token-fuzz", str(SEED), str(request.config.getoption("--fuzz")), *map(str, buffers), zoned, *files],
                                pass_fds=buffers, text=True, capture_output=True)  # fmt: skip
        print(result.stdout, result.stderr)
        assert result.returncode == 0, f"FUZZ_SEED={SEED}: {result.stderr}"
        nothing_is_left(server, moving)
    wait_for(lambda: open_files() <= before + 64)  # each CPU counts up to 32 of them for itself
    the_exporter_can_go()


def nothing_is_left(server, moving):
    wait_for(lambda: not attachments())
    wait_for(lambda: len(server.requests(TOKEN_CREATE)) <= len(server.requests(TOKEN_RELEASE)))
    stats = moving.stats
    assert (stats.attaches, stats.maps, stats.dirty) == (stats.detaches, stats.unmaps, 0)
    moving.map.close()
    moving.close_fd()
    wait_for(lambda: moving.stats.released)
    guest.unmount(server.mountpoint)
    server.kill()
    server.close = lambda: None


def the_exporter_can_go():
    guest.run("rmmod", "dmabuf_test")
    guest.load_modules()
