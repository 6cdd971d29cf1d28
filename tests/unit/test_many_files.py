"""Many files, which the kernel all knows: what they cost the server. `--storm N` takes N times as many; 84 are a million."""
import os
import re
import subprocess
from pathlib import Path

import pytest


DESCRIPTORS = 2000
KNOWN_WITH_DESCRIPTOR = DESCRIPTORS // 2
IN_DIRECTORY = 1000
# What the manual says of a file that is known and holds no descriptor.
BYTES = int(re.search(r'cost about (\d+) bytes of memory each', (Path(__file__).resolve().parents[2] / 'man/mount.fuse-dmabuf.8').read_text())[1])


@pytest.fixture
def known(serve, request):
    """A mount on which that many files were looked at, and the server's memory before: .target, .files, .before."""
    server = serve(descriptors=DESCRIPTORS)
    server.files = request.config.getoption('--storm') * 12 * IN_DIRECTORY
    for i in range(0, server.files, IN_DIRECTORY):
        (server.source / f'{i}').mkdir()
        for k in range(i, i + IN_DIRECTORY):
            (server.source / f'{i}/{k}').touch()
    server.before = memory_of(server)
    for entry in os.scandir(server.target):
        for number in range(int(entry.name), int(entry.name) + IN_DIRECTORY):
            os.stat(f'{entry.path}/{number}')
    return server


def memory_of(server):
    """Bytes that are its own."""
    return int(re.search(r'^RssAnon:\s+(\d+) kB', Path(f'/proc/{server.process.pid}/status').read_text(), re.MULTILINE)[1]) * 1024


def descriptors_of(server):
    return len(os.listdir(f'/proc/{server.process.pid}/fd'))


def test_known_files_cost_little_memory_and_few_descriptors(known):
    bytes_each = (memory_of(known) - known.before) / known.files
    print(f'{known.files} files: {bytes_each:.0f} bytes each')
    assert bytes_each < BYTES * 1.15
    assert descriptors_of(known) < KNOWN_WITH_DESCRIPTOR + 100
    assert sum(len(files) for _, _, files in os.walk(known.target)) == known.files


def test_many_files_are_removed_and_nothing_of_them_stays(known):
    subprocess.run(['rm', '-r', *known.target.iterdir()], check=True)
    assert os.listdir(known.target) == os.listdir(known.source) == []
    assert descriptors_of(known) < 100
