"""Tokens on a mount that systemd has made. What needs none is in tests/unit/test_systemd.py."""
import os
import subprocess
from pathlib import Path

import pytest

from places import wait_until
from systemd import Systemd
from token_words import MIB, make_file, random_bytes

UNIT, SIZE = 'mnt-models.mount', 4 * MIB


@pytest.fixture
def systemd(ext4, tmp_path):
    """It has mounted a directory with a file of 4 MiB at /mnt/models when it has booted."""
    make_file(ext4 / 'file', random_bytes(SIZE))
    for path in (tmp_path / 'systemd', Path('/data/models'), Path('/mnt/models')):
        path.mkdir(parents=True, exist_ok=True)
    systemd = Systemd(tmp_path / 'systemd', f'{ext4} /data/models none bind 0 0\n/data/models /mnt/models fuse-dmabuf max_bytes=64G 0 0\n')
    yield systemd
    systemd.end()


READER = f'''
import os, sys
from dmabuf import Udmabuf
from token_words import DIRECT, random_bytes
from uring import Ring
ring, fd, buffer = Ring(flags=0), os.open('/mnt/models/file', DIRECT), Udmabuf({SIZE})
ring.register_dmabuf(0, buffer, fd)
for _ in sys.stdin:
    try:
        ring.read_fixed(fd, 0, {SIZE}, 0)
        print('read' if buffer[0:{SIZE}] == random_bytes({SIZE}) else 'something else', flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
'''


@pytest.fixture
def read(systemd):
    """read(): how a read by a token goes. Its program is a process of that systemd's: the server grants nothing to one that it cannot see."""
    path = os.pathsep.join(str(Path(__file__).parents[1] / name) for name in ('vm', 'bed'))
    with systemd.start('python3', '-c', READER, stdin=subprocess.PIPE, env=os.environ | {'PYTHONPATH': path}) as program:
        def once():
            program.stdin.write('\n')
            program.stdin.flush()
            return program.stdout.readline().strip()
        yield once
        program.stdin.close()


def test_token_keeps_the_unit_from_being_stopped_and_ends_with_its_server(systemd, read):
    assert read() == 'read'
    (server,) = systemd.processes_of(UNIT)
    systemd.systemctl('stop', UNIT, check=False)
    assert systemd.show(UNIT, 'ActiveState') == 'active' and read() == 'read'
    assert ' live ' in systemd.run('fuse-dmabuf', 'status', '/mnt/models')
    systemd.systemctl('kill', UNIT)
    wait_until(lambda: systemd.show(UNIT, 'ActiveState') == 'inactive' and not os.path.exists(f'/proc/{server}'))
    assert read() in ('Stale file handle', 'Software caused connection abort', 'Transport endpoint is not connected')
