"""The server on the machine's own kernel, which has FUSE passthrough but no tokens: an ordinary file system.

Needs root and /dev/fuse; where no FUSE mount is possible these tests are skipped, and say so. The mounts are in the mount namespace of
tests/bed/enter, so they end with it.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ext4 import new_ext4
from server import SOCKETS, Server, wait_until

DEBUG_READ, DEBUG_WRITE = 'opcode: READ ', 'opcode: WRITE '
SOURCE = Path(__file__).resolve().parents[2]
NO_TOKENS = 'this kernel has no dma-buf tokens for FUSE: the mount is an ordinary one'


@pytest.fixture
def without_tokens(serve):
    """A mount on a kernel that has no tokens."""
    server = serve('log=debug')
    if server.ask(command='status')['available']:
        pytest.skip('this kernel has tokens: what happens without them was not tested')
    return server


def test_kernel_without_tokens_is_told_once(without_tokens, command):
    server = without_tokens
    for i in range(3):
        (server.target / f'{i}').write_bytes(b'x')
        assert server.ask(command='status')['available'] is False
    assert server.said().count(NO_TOKENS) == 1
    result = subprocess.run([command, 'status', server.target], text=True, capture_output=True, check=True)
    assert 'this kernel has no tokens' in result.stdout


def test_kernel_without_tokens_has_an_ordinary_file_system(without_tokens):
    server = without_tokens
    content = os.urandom(3 << 20)
    (server.target / 'file').write_bytes(content)
    (server.target / 'file').rename(server.target / 'renamed')
    assert (server.target / 'renamed').read_bytes() == content == (server.source / 'renamed').read_bytes()
    os.link(server.target / 'renamed', server.target / 'linked')
    os.unlink(server.target / 'renamed')
    assert os.listdir(server.target) == ['linked'] and (server.target / 'linked').stat().st_nlink == 1
    # Passthrough: the data has not come by the server.
    assert 'opcode: OPEN ' in server.said()
    assert DEBUG_READ not in server.said() and DEBUG_WRITE not in server.said()


def test_kernel_without_tokens_has_none_to_revoke(without_tokens):
    assert without_tokens.ask(command='revoke', all=True) == {'ok': True, 'revoked': 0}


# At boot


def unit_of_manual():
    manual = (SOURCE / 'man/mount.fuse-dmabuf.8').read_text()
    return re.search(r'/systemd/system/(\S+)\n.*?\n\.Bd -literal\n(.*?)\.Ed', manual, re.DOTALL).groups()


def problems_of_unit(directory, name, text):
    (directory / name).write_text(text)
    result = subprocess.run(['systemd-analyze', 'verify', '--man=no', directory / name], text=True, capture_output=True, check=False)
    return result.stdout + result.stderr or result.returncode


def test_unit_in_the_manual_is_what_systemd_wants(tmp_path):
    name, text = unit_of_manual()
    assert not problems_of_unit(tmp_path, name, text)
    # It would tell of mistakes.
    assert 'Unknown key' in problems_of_unit(tmp_path, name, text.replace('Options=', 'Option='))
    assert problems_of_unit(tmp_path, 'mnt-other.mount', text)


# Words that are not meant for it


@pytest.mark.parametrize('words', ['remount', 'rw,nosuid,relatime,user_id=0,group_id=0,default_permissions,allow_other,remount'])
def test_remount_is_refused_whatever_stands_beside_it(program, tmp_path, words):
    """mount(8) takes what stands beside it from the mount table."""
    result = subprocess.run([program, tmp_path, tmp_path, '-t', 'fuse.fuse-dmabuf', '-o', words], text=True, capture_output=True, check=False)
    assert result.stderr == f'mount.fuse-dmabuf: remount is not possible: umount {tmp_path} and mount it again with the new options\n'
    assert result.returncode == 1


@pytest.mark.parametrize('words, begin', [(['-h'], 'Usage: mount -t fuse-dmabuf'), (['--help'], 'Usage: mount -t fuse-dmabuf'),
                                          (['-V'], 'mount.fuse-dmabuf '), (['-nvs', '-t', 'fuse-dmabuf', '-V'], 'mount.fuse-dmabuf ')])
def test_help_and_version_need_nothing_else(program, words, begin):
    result = subprocess.run([program, *words], text=True, capture_output=True, check=False, user=1000)
    assert result.stdout.startswith(begin) and not result.stderr and not result.returncode


@pytest.mark.parametrize('words, message', [(['-t'], "option requires an argument -- 't'"), (['-x'], "invalid option -- 'x'"), (['--type', 'x'], "unrecognized option '--type'")])
def test_wrong_word_is_named(program, tmp_path, words, message):
    result = subprocess.run([program, tmp_path, tmp_path, *words], text=True, capture_output=True, check=False)
    assert message in result.stderr and result.stderr.count('\n') == 1 and result.returncode == 1


def test_mount_finds_the_installed_helper(tmp_path):
    """mount(8) looks in /sbin only, and for a mount of the mount table by the type that stands there."""
    subprocess.run(['meson', 'setup', tmp_path, SOURCE], capture_output=True, check=True)
    installed = json.loads(subprocess.check_output(['meson', 'introspect', '--installed', tmp_path])).values()
    assert {'/usr/sbin/mount.fuse-dmabuf', '/usr/sbin/mount.fuse.fuse-dmabuf'} <= set(installed)


# Status


def test_status_of_all_shows_what_some_answer(serve, command, pretend):
    """One refuses, one is stopped."""
    server = serve()
    pretend(4000000, {'ok': False, 'error': 'not for you'})
    pretend(4000001, None)
    result = subprocess.run([command, 'status'], text=True, capture_output=True, check=False, timeout=60)
    assert result.stdout.startswith(f'{server.target}: 0 tokens') and result.returncode == 1
    assert 'not for you' in result.stderr and f'the server (pid {os.getpid()}) does not answer' in result.stderr


@pytest.fixture
def first_mount():
    """Nothing was mounted before: the directory of sockets is not there."""
    aside = SOCKETS.with_name('aside')
    SOCKETS.mkdir(exist_ok=True)
    SOCKETS.rename(aside)
    yield
    shutil.rmtree(SOCKETS)
    aside.rename(SOCKETS)


@pytest.mark.usefixtures('first_mount')
def test_directory_of_sockets_is_open_to_all_whatever_the_umask(serve):
    serve(umask=0o077)
    assert SOCKETS.stat().st_mode & 0o777 == 0o755


def test_nobody_else_can_hold_servers_up(serve):
    """Whoever can open the directory can lock it: flock(2) asks for no permission beyond."""
    SOCKETS.mkdir(exist_ok=True)
    holder = subprocess.Popen(['flock', '-F', SOCKETS, 'sh', '-c', 'echo; exec sleep 60'], user=1000, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.read(1)
        serve().end()
        assert SOCKETS.joinpath('lock').stat().st_mode & 0o777 == 0o600
    finally:
        holder.kill()
        holder.wait()


def test_status_tells_when_it_cannot_look_for_mounts(serve, command):
    serve()
    SOCKETS.chmod(0o700)
    try:
        result = subprocess.run([command, 'status'], user=1000, text=True, capture_output=True, check=False)
    finally:
        SOCKETS.chmod(0o755)
    assert result.stderr == 'fuse-dmabuf: /run/fuse-dmabuf: Permission denied\n' and not result.stdout and result.returncode == 1


def test_failed_revocation_tells_what_became_of_the_tokens(serve, command, pretend):
    server = serve()
    server.socket.unlink()
    pretend(os.minor(os.stat(server.target).st_dev), {'ok': False, 'error': 'Interrupted', 'revoked': 3, 'failed': 2})
    result = subprocess.run([command, 'revoke', '--all', server.target], text=True, capture_output=True, check=False)
    assert result.stderr == 'fuse-dmabuf: Interrupted: 3 tokens were revoked, 2 were not\n' and result.returncode == 1


# What it says on stderr


@pytest.mark.parametrize('is_journal, begin', [(True, '<3>mount.fuse-dmabuf: '), (False, 'mount.fuse-dmabuf: ')])
def test_journal_is_told_the_priority(program, tmp_path, is_journal, begin):
    """systemd tells which file its journal is; stderr may be another by now."""
    reader, writer = os.pipe()
    journal = os.fstat(writer if is_journal else 0)
    environment = os.environ | {'JOURNAL_STREAM': f'{journal.st_dev}:{journal.st_ino}'}
    subprocess.run([program, tmp_path / 'missing', tmp_path], stderr=writer, env=environment, check=False)
    os.close(writer)
    with open(reader, encoding='utf-8') as said:
        assert said.read().startswith(begin)


def stream():
    """As the journal's."""
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


@pytest.mark.parametrize('kind', [os.pipe, stream])
def test_reader_of_stderr_that_stops_stops_nothing(program, tmp_path, kind):
    reader, writer = kind()
    target = tmp_path / 'target'
    target.mkdir()
    server = subprocess.Popen([program, tmp_path, target, '-f', '-o', 'log=debug'], stderr=writer)
    try:
        wait_until(lambda: os.path.ismount(target))
        # Several lines for each.
        looking = subprocess.Popen(['sh', '-c', 'for i in $(seq 3000); do test -e "$0/$i"; done', target])
        wait_until(lambda: looking.poll() is not None)
        os.set_blocking(reader, False)
        said = b''

        def is_told():
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                while True:
                    said += os.read(reader, 65536)
            (target / 'file').exists()
            return re.search(rb'^mount.fuse-dmabuf: \d+ messages were lost: the log was busy$', said, re.MULTILINE)
        wait_until(is_told)
        assert os.get_blocking(writer)
    finally:
        server.kill()
        server.wait()
        subprocess.run(['umount', '-l', target], check=True)
        os.close(reader)
        os.close(writer)


# What it was started with


@pytest.mark.parametrize('closed', [[0], [1], [2], [1, 2], [0, 1, 2]])
def test_server_needs_no_open_streams(program, tmp_path, closed):
    for name in ('source', 'target'):
        (tmp_path / name).mkdir()
    (tmp_path / 'source/file').write_text('there')
    close = ' '.join(f'{fd}>&-' for fd in closed)
    try:
        subprocess.run(['sh', '-c', f'"$0" source target {close}', program], cwd=tmp_path, check=True, timeout=20)
        assert (tmp_path / 'target/file').read_text() == 'there'
        (tmp_path / 'target/new').write_text('x')
    finally:
        subprocess.run(['umount', '-l', tmp_path / 'target'], check=False)


# In the state in which descriptors are used up


def test_server_without_descriptors_does_not_burn_a_processor(serve):
    server = serve(descriptors=60)
    for i in range(80):
        (server.source / f'{i}').touch()
    held, failure = [], None
    while not failure:
        try:
            held.append(os.open(server.target / f'{len(held)}', os.O_RDONLY))
        except OSError as error:
            failure = error
    clients = [server.connect() for _ in range(3)]
    before = server.processor_seconds()
    time.sleep(2)
    used = server.processor_seconds() - before
    for fd in held:
        os.close(fd)
    assert used < 0.5
    # They were not turned away: as soon as there are descriptors again they are served.
    for client in clients:
        with client:
            client.sendall(b'{"command":"status"}\n')
            assert json.loads(client.makefile().read())['ok']


# How many answer


@contextlib.contextmanager
def frozen(file_system):
    """Whoever changes something waits."""
    subprocess.run(['fsfreeze', '--freeze', file_system], check=True)
    try:
        yield
    finally:
        subprocess.run(['fsfreeze', '--unfreeze', file_system], check=True)


def test_requests_that_wait_for_the_disk_hold_up_no_other(program, tmp_path, tmp_path_factory):
    with new_ext4(tmp_path_factory, 32 << 20, reserved=0) as source:
        names = [f'{i}' for i in range(20)]
        for name in names:
            (source / name).mkdir()
        server = Server(program, source, tmp_path, tmp_path.with_suffix('.log'), 'log=info')
        with frozen(source):
            waiting = [subprocess.Popen(['mkdir', server.target / name / 'new']) for name in names]
            wait_until(lambda: [state[0] for state in server.threads('State').values()].count('D') == len(waiting))
            assert subprocess.run(['ls', server.target], check=True, capture_output=True, timeout=20).stdout
        assert [process.wait(20) for process in waiting] == [0] * len(waiting)
        server.end()


# Clients


def test_clients_are_read_without_privileges(serve):
    """In two threads, of which one waits for clients, and one for what this one sends."""
    server = serve()
    with server.connect() as client:
        wait_until(lambda: list(server.threads('CapEff').values()).count('0' * 16) == 2)
        assert server.ask(command='status')['ok']
        client.sendall(b'{"command":"revoke","all":true}\n')
        assert json.loads(client.makefile().read()) == {'ok': True, 'revoked': 0}


# The end


def test_server_ends_with_its_mount(serve):
    server = serve()
    subprocess.run(['umount', server.target], check=True)
    assert server.process.wait(20) == 0
    assert server.said().splitlines()[-1] == 'mount.fuse-dmabuf: unmounted' and 'signal' not in server.said()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_server_in_order(serve, number):
    server = serve()
    server.process.send_signal(number)
    assert server.process.wait(20) == 0 and not os.path.ismount(server.target)
    assert server.said().splitlines()[-2:] == [f'mount.fuse-dmabuf: ended by signal {number:d}', 'mount.fuse-dmabuf: unmounted']


def test_signals_that_end_the_server_come_to_the_thread_that_waits_for_them(serve):
    server = serve()
    (server.target / 'file').touch()
    with server.connect():
        assert server.ask(command='status')['ok']
        blocked = {thread: int(signals, 16) for thread, signals in server.threads('SigBlk').items()}
    takers = [thread for thread, signals in blocked.items() if not signals >> (signal.SIGTERM - 1) & 1]
    assert len(blocked) >= 5 and takers == [server.process.pid]


def test_idle_clients_do_not_hold_up_the_end(serve):
    server = serve()
    with server.connect():
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(4) == 0


def test_thread_without_memory_for_a_request_tries_again(serve, build):
    """Others go on. An fsync lets another thread read, which has no memory at first."""
    server = serve(preload=build / 'tests/unit/little-memory.so')
    for _ in range(20):
        (server.target / 'file').write_text('x')
        fd = os.open(server.target / 'file', os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
        time.sleep(0.05)
    assert server.process.poll() is None and os.listdir(server.target) == ['file']
    assert server.said().count('out of memory for one more request') == 1
    server.end()
    assert 'connection to the kernel failed' not in server.said()
