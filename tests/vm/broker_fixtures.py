"""The real server as broker, for `from broker_fixtures import *`: serve(options) starts one, use(path, …) registers a buffer."""
import json
import os
import re
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

import guest
from dmabuf import Udmabuf
from fuse_server import fork
from places import wait_until
from token_words import DIRECT, MIB, make_file, random_bytes
from uring import Ring

__all__ = ['serve', 'use']

SIZE = 4 * MIB


class Broker:
    """A server in the foreground, and what it says."""

    def __init__(self, source, target, log, options, starter):
        self.source, self.target, self.log, self.ended = source, target, log, False
        with open(log, 'w') as stderr:
            self.process = subprocess.Popen([*starter, '/sbin/mount.fuse-dmabuf', source, target, '-f', '-o', options], stderr=stderr)
        wait_until(lambda: self.said('is mounted') or self.process.poll() is not None)
        assert self.process.poll() is None, log.read_text()

    def said(self, pattern):
        return re.findall(pattern, self.log.read_text())

    def status(self):
        return json.loads(command('status', self.target, '--json').stdout)['mounts'][0]

    def tokens(self):
        return self.status()['tokens']

    def revoke(self, *which):
        """How many the command says it has revoked."""
        return int(command('revoke', self.target, *which).stdout.split()[0])

    @property
    def socket(self):
        return Path(f'/run/fuse-dmabuf/{os.minor(os.stat(self.target).st_dev)}.socket')

    def connect(self):
        """A client of the control socket."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        client.connect(str(self.socket))
        return client

    def ask(self, **request):
        """The answer of the control socket."""
        with self.connect() as client:
            client.sendall(json.dumps(request).encode() + b'\n')
            return json.loads(client.makefile().read())

    def kill(self):
        """The mount stays, as after a crash."""
        self.process.kill()
        self.process.wait(20)
        guest.wait_for_end_of_mount(self.target)

    def end(self):
        if self.ended:
            return
        self.ended = True
        self.process.terminate()
        self.process.wait(20)
        if self.process.returncode:
            guest.unmount_all(self.target)


def command(*words, check=True, **who):
    return subprocess.run(['fuse-dmabuf', *map(str, words)], text=True, capture_output=True, check=check, timeout=60, **who)


@pytest.fixture
def serve(ext4, tmp_path, request):
    """serve(options) mounts a directory with a file of 4 MiB: the server. A target that was mounted before can be given, and what starts the server."""
    make_file(ext4 / 'file', random_bytes(SIZE))
    (ext4 / 'file').chmod(0o644)

    def new_target():
        # Not in tmp_path, where only root may go.
        target = Path(tempfile.mkdtemp(prefix='broker-', dir='/mnt'))
        target.chmod(0o755)
        request.addfinalizer(target.rmdir)
        return target

    def start(options='tokens=allow', target=None, starter=()):
        target = target or new_target()
        broker = Broker(ext4, target, tmp_path / f'{target.name}.log', options, starter)
        request.addfinalizer(broker.end)
        return broker
    return start


@pytest.fixture
def use():
    """use(path, …) registers a buffer for a file, as a user: ring, descriptor and buffer, until the test ends."""
    held = []

    def register(path, size=SIZE, flags=DIRECT, uid=0, groups=()):
        held.append((Ring(flags=0, inherited=True), os.open(path, flags), Udmabuf(size)))
        ring, fd, buffer = held[-1]
        if uid:
            as_user(uid, groups, lambda: ring.register_dmabuf(0, buffer, fd))
        else:
            ring.register_dmabuf(0, buffer, fd)
        return held[-1]
    yield register
    for ring, fd, buffer in reversed(held):
        ring.close()
        os.close(fd)
        buffer.close()


def as_user(uid, groups, function):
    """Does it in a process of that user; an OSError there is one here."""
    child = fork()
    if not child:
        code = 255
        try:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            function()
            code = 0
        except OSError as error:
            code = error.errno
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code not in (-1, 255)
    if code:
        raise OSError(code, os.strerror(code))
