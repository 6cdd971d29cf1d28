"""What tests of the mount as a filesystem share: a place on it, and users who do things there."""
import os
import re
import shutil
import signal
import subprocess
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import guest


@pytest.fixture(scope='module')
def served(_ext4_root):
    """One mount for all tests of a file, so that each costs only a directory. Not in tmp_path, where only root may go; programs run as on ext4."""
    source, target = _ext4_root / 'served', Path('/mnt/served')
    source.mkdir()
    guest.mount_server(source, target, 'suid')
    yield SimpleNamespace(path=target, source=source)
    guest.unmount(target)
    target.rmdir()
    guest.run('rm', '-rf', source)


@pytest.fixture
def mount(served, request):
    """An empty directory on the mount, open to all users: .path, and .source behind it."""
    name = re.sub(r'\W+', '-', request.node.name)[:200]
    (served.path / name).mkdir()
    (served.path / name).chmod(0o777)
    yield SimpleNamespace(path=served.path / name, source=served.source / name)
    shutil.rmtree(served.source / name)


class OwnMount:
    """A mount that a test may end, and begin again: .path, .source."""

    def __init__(self, source, path, options=''):
        self.source, self.path = source, path
        self.mount(options)

    def mount(self, options=''):
        guest.mount_server(self.source, self.path, options)

    def kill(self):
        """The server, as a crash does; the mount stays."""
        server = server_of(self.path)
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f'/proc/{server}'))
        guest.wait_for_end_of_mount(self.path)

    def take_away(self):
        """The mount, as somebody does who wants to mount again while files are open."""
        guest.unmount(self.path, lazy=True)

    def restart(self, options=''):
        self.kill()
        self.take_away()
        self.mount(options)

    def end(self):
        """Whatever the test has left of it."""
        guest.unmount_all(self.path)


@pytest.fixture(params=['ext4', 'mount'])
def place(request, mount):
    """Only a path; such a test cannot tell whether it is on the mount, or on the ext4 behind it."""
    return mount.source if request.param == 'ext4' else mount.path


def sh(place, script, uid=0, gid=None, groups=(), umask=0o022):
    """Runs a shell script in the place as a user; its output, or CalledProcessError with what it said."""
    return subprocess.run(['sh', '-euc', script], cwd=place, user=uid, group=uid if gid is None else gid, extra_groups=list(groups),
                          umask=umask, check=True, text=True, capture_output=True).stdout


def fails(place, script, **who):
    """The message of a script that must fail."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        sh(place, script, **who)
    return error.value.stderr


def start_as(uid, function, groups=(), umask=0o022):
    """Runs a function as a user in a process of its own, for end_of()."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.umask(umask)
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def end_of(*children):
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


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


def open_files_of(process):
    """What its descriptors are open on, but for those that it closes meanwhile."""
    links = []
    for descriptor in os.listdir(f'/proc/{process}/fd'):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f'/proc/{process}/fd/{descriptor}'))
    return links


def wait_until(condition, seconds=60, pause=0.05):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(pause)
