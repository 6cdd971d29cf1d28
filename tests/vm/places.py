"""A behaviour is tested in two places with the same expectations: a directory on ext4, and the server's mount of it."""
import os
import subprocess
import time
from pathlib import Path

import pytest


@pytest.fixture(params=['ext4', 'mount'])
def place(request, ext4):
    """An empty directory, open to all users; the test must not be able to tell which."""
    ext4.chmod(0o777)
    return ext4 if request.param == 'ext4' else request.getfixturevalue('mount').path


def sh(place, script, uid=0, gid=None, groups=(), umask=0o022):
    """Runs a shell script in the place as a user; its output, or CalledProcessError with what it said."""
    return subprocess.run(['bash', '-euc', script], cwd=place, user=uid, group=uid if gid is None else gid, extra_groups=list(groups),
                          umask=umask, check=True, text=True, capture_output=True).stdout


def fails(place, script, **who):
    """The message of a script that must fail."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        sh(place, script, **who)
    return error.value.stderr


def server_of(target):
    """The process that serves a mount."""
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            words = (entry / 'cmdline').read_bytes().split(b'\0')
        except OSError:
            continue
        if b'mount.fuse-dmabuf' in words[0] and os.fsencode(target) in words:
            return int(entry.name)
    raise LookupError(f'no server for {target}')


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.05)
