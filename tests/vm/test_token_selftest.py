"""The kernel's own selftest of tokens (tools/testing/selftests/dmabuf-token) passes on every kind of file.

People run the selftest on machines of their own, so the reasons for which it skips are tested, too, and that
it puts back what it wrote.
"""

import os
import re
import subprocess

import pytest

import guest
from token_fixtures import *  # noqa: F403
from token_words import MIB, Target, let_go, make_file, on_disk, opened

SELFTEST = guest.BED / "dmabuf_token"
SIZE = 16 * MIB  # the selftest wants that much
KSFT_SKIP = 4

pytestmark = pytest.mark.skipif(not SELFTEST.exists(), reason="the kernel's source has no selftest of tokens")


def run(*arguments, **environment):
    """The exit code, and what the selftest says."""
    command = [SELFTEST, *map(str, arguments)]
    ended = subprocess.run(
        command, env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return ended.returncode, ended.stdout


def results(output):
    """The names of the tests by their results; the number of all of them is the one that was announced."""
    found = re.findall(r"^(not ok|ok) \d+ (\S+)( # SKIP .*)?", output, re.MULTILINE)
    assert re.search(r"^1\.\.(\d+)$", output, re.MULTILINE)[1] == str(len(found)), output
    return {
        "failed": [name for result, name, _ in found if result == "not ok"],
        "skipped": [name for result, name, skipped in found if skipped],
        "passed": [name for result, name, skipped in found if result == "ok" and not skipped],
    }  # fmt: skip


def unchanged(target, size=4 * MIB):
    """The selftest may write to the first MiB."""
    return on_disk(target, size) == target.content[:size]


@pytest.fixture(params=["raw", "ext4", "mount"])
def target(request, _ext4_held):
    """A file whose first 16 MiB are written: the device itself, a file on ext4, and that file on the server's mount."""
    content = os.urandom(SIZE)
    if request.param == "raw":
        target = Target(request.getfixturevalue("disk"), content)
        with opened(target.path, os.O_WRONLY) as fd:
            os.write(fd, content)
            os.fsync(fd)
    else:
        directory = request.getfixturevalue("ext4")
        make_file(directory / "data", content)
        place = request.getfixturevalue("mount").path if request.param == "mount" else directory
        target = Target(place / "data", content)
    yield target
    let_go()


def test_it_passes_and_reads_only(target):
    code, output = run(target.path)
    found = results(output)
    assert not found["failed"] and code == 0, output
    assert all(name.startswith("write.") for name in found["skipped"]), output
    assert unchanged(target)


def test_it_passes_and_restores_what_it_overwrites(target):
    code, output = run(target.path, DMABUF_TOKEN_WRITE="1")
    found = results(output)
    assert not found["failed"] and not found["skipped"] and code == 0, output
    assert f"The first {MIB} bytes of {target.path} are overwritten" in output
    assert unchanged(target)


def skipped(*arguments):
    """Why the selftest skips everything."""
    code, output = run(*arguments)
    assert code == KSFT_SKIP, output
    return re.search(r"^1\.\.0 # SKIP (.*)", output, re.MULTILINE)[1]


def test_it_skips_without_a_file():
    assert "DMABUF_TOKEN_FILE" in skipped()
    assert "No such file" in skipped("/nonexistent")


def test_it_skips_a_device_that_is_mounted(nvme, ext4):
    assert "busy" in skipped("-w", nvme.device)


def test_it_skips_a_file_that_was_not_written(ext4):
    make_file(ext4 / "hole", SIZE)
    assert "has a hole" in skipped(ext4 / "hole")


def test_it_skips_a_device_that_takes_no_tokens():
    assert "takes no dma-bufs" in skipped("/dev/vda")
