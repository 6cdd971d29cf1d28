"""The control socket: who may ask, what is answered, and what clients cannot do to the server."""
import contextlib
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

import guest
from broker_fixtures import *  # noqa: F403
from broker_fixtures import SIZE, command
from dmabuf import TestBuffer
from places import sh, wait_until
from token_fixtures import vfio  # noqa: F401
from token_words import KIB, MIB, make_file, opened, random_bytes
from uring import Ring

GROUP = 2345


def test_status_tells_all_of_a_token(serve, use):
    broker = serve('max_tokens=7,user_max_bytes=1G')
    ring, fd, _buffer = use(broker.target / 'file')
    for _ in range(3):
        ring.read_fixed(fd, 0, 64 * KIB, 0)
    status = broker.status()
    (token,) = status['tokens']
    assert 0 <= token.pop('age') < 60
    assert token.pop('maps') == 1 and token.pop('requests') == 3
    assert token == {'id': 1, 'path': '/file', 'uid': 0, 'pid': os.getpid(), 'bytes': SIZE, 'exporter': 'udmabuf', 'direction': 'read-write',
                     'revoked': False, 'read_bytes': 3 * 64 * KIB, 'write_bytes': 0, 'peer_bytes': 0, 'invalidations': 0}
    assert status['all'] == {'tokens': 1, 'bytes': SIZE} and status['users'] == [{'uid': 0, 'tokens': 1, 'bytes': SIZE}]
    assert (status['source'], status['mountpoint'], status['pid']) == (str(broker.source), str(broker.target), broker.process.pid)
    assert status['available'] and status['counters']
    assert status['limits'] == {'max_tokens': 7, 'max_bytes': 4 << 40, 'user_max_tokens': None, 'user_max_bytes': 1 << 30, 'deny': False}


def test_status_counts_moves(serve):
    broker = serve()
    with TestBuffer(MIB) as buffer, Ring() as ring, opened(broker.target / 'file') as fd:
        ring.register_dmabuf(0, buffer, fd)
        for _ in range(3):
            buffer.move()
            ring.read_fixed(fd, 0, 64 * KIB, 0)
        (token,) = broker.tokens()
        assert (token['maps'], token['invalidations'], token['peer_bytes']) == (4, 3, 0)


def test_status_tells_what_went_to_another_device(serve, vfio):
    broker = serve()
    with vfio.export(MIB) as buffer, Ring() as ring, opened(broker.target / 'file') as fd:
        ring.register_dmabuf(0, buffer, fd)
        ring.read_fixed(fd, 0, 64 * KIB, 0)
        ring.write_fixed(fd, 0, 4096, 64 * KIB)
        (token,) = broker.tokens()
        assert (token['read_bytes'], token['write_bytes'], token['peer_bytes']) == (64 * KIB, 4096, 68 * KIB)


def test_path_is_where_the_file_is_now(serve, use):
    broker = serve()
    use(broker.target / 'file')
    (broker.target / 'file').rename(broker.target / 'renamed')
    assert broker.tokens()[0]['path'] == '/renamed'


def test_status_for_people(serve, use):
    broker = serve()
    (broker.target / 'file').rename(broker.target / 'esc\033[31mape\n')
    use(broker.target / 'esc\033[31mape\n', uid=1000)
    head, columns, line = command('status', broker.target).stdout.splitlines()
    assert head.startswith(f'{broker.target}: 1 tokens of 4.0M; at most 65536 of 4.0T; server ')
    assert columns.split() == 'ID USER PID SIZE DIRECTION EXPORTER AGE REQUESTS READ WRITTEN PEER STATE PATH'.split()
    words = line.split()
    assert words[:2] == ['1', '1000'] and words[3:6] == ['4.0M', 'read', 'udmabuf']
    assert words[-6:] == ['0', '0B', '0B', '0B', 'live', '/esc?[31mape?']


def test_status_without_a_mountpoint_lists_all_mounts(serve):
    brokers = [serve(), serve()]
    mounts = json.loads(command('status', '--json').stdout)['mounts']
    assert {mount['mountpoint'] for mount in mounts} == {str(broker.target) for broker in brokers}


def test_counters_are_unknown_without_fusectl(serve, use):
    broker = serve()
    use(broker.target / 'file')
    subprocess.run(['umount', '/sys/fs/fuse/connections'], check=True)
    try:
        status = broker.status()
        assert not status['counters'] and status['tokens'][0]['requests'] is None
        assert command('status', broker.target).stdout.splitlines()[-1].split()[-5:-1] == ['-', '-', '-', 'live']
    finally:
        subprocess.run(['mount', '-t', 'fusectl', 'fusectl', '/sys/fs/fuse/connections'], check=True)


def test_other_directories_have_no_server(serve, tmp_path):
    for words in (['status', tmp_path], ['revoke', '/', '--all'], ['status', tmp_path / 'missing']):
        result = command(*words, check=False)
        assert result.returncode == 1 and result.stderr.count('\n') == 1


@pytest.mark.parametrize('words', [['revoke'], ['revoke', '/'], ['revoke', '/', '--all', '--uid', '5'], ['revoke', '/', '--uid', 'nobody here'],
                                   ['revoke', '/', '--token', '-1'], ['revoke', '/', '--path', 'relative'], ['status', '/', '/'], ['status', '--x']])
def test_wrong_usage(words):
    result = command(*words, check=False)
    assert result.returncode == 2 and result.stderr.count('\n') == 1 and not result.stdout


def test_new_mount_starts_clean_after_a_killed_server(serve, use):
    broker = serve()
    use(broker.target / 'file')
    broker.process.kill()
    broker.process.wait()
    assert 'its server has ended' in command('status', broker.target, check=False).stderr
    again = serve()
    assert again.tokens() == [] and again.status()['all'] == {'tokens': 0, 'bytes': 0}


def test_socket_goes_with_the_mount(serve):
    broker = serve()
    path = broker.socket
    assert path.exists()
    broker.end()
    assert not path.exists()


# Who may ask

def test_only_root_without_a_group(serve):
    broker = serve()
    result = command('status', broker.target, check=False, user=1000, group=1000, extra_groups=[GROUP])
    assert 'Permission denied' in result.stderr and result.returncode == 1


def test_members_of_the_group_and_nobody_else(serve, use):
    sh('/', f'grep -q ^brokers: /etc/group || echo brokers:x:{GROUP}: >>/etc/group')
    broker = serve('control-group=brokers')
    use(broker.target / 'file')
    for who in ({'group': GROUP, 'extra_groups': []}, {'group': 1000, 'extra_groups': [5, GROUP]}):
        assert command('status', broker.target, user=1000, **who).stdout
    assert command('revoke', broker.target, '--all', user=1000, group=GROUP).stdout == '1 tokens revoked\n'
    os.chmod(broker.socket, 0o666)
    result = command('status', broker.target, check=False, user=1000, group=1000, extra_groups=[5])
    assert 'only root and the control group may ask' in result.stderr


# What clients cannot do

MALFORMED = [b'\n', b'', b'x\n', b'{\n', b'[]\n', b'5\n', b'{}\n', b'{"command":5}\n', b'{"command":"status","x":1}\n', b'{"command":"halt"}\n', b'{"command":"ping","x":1}\n',
             b'{"command":"revoke"}\n', b'{"command":"revoke","all":false}\n', b'{"command":"revoke","all":true,"uid":5}\n',
             b'{"command":"revoke","token":-1}\n', b'{"command":"revoke","token":"1"}\n', b'{"command":"revoke","path":""}\n',
             b'{"command":"revoke","uid":4294967295}\n', b'{"command":"status","command":"status"}\n', b'\xff\xfe\0\n', b'[' * 8000 + b'\n']


def test_malformed_requests_are_answered_with_an_error(serve, use):
    broker = serve()
    use(broker.target / 'file')
    for request in MALFORMED:
        with broker.connect() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            answer = json.loads(client.makefile().read())
        assert answer['ok'] is False and answer['error'], request
    assert broker.status()['all']['tokens'] == 1


def test_endless_request_is_cut_off(serve):
    broker = serve()
    with broker.connect() as client, pytest.raises(OSError):
        for _ in range(10000):
            client.sendall(b'x' * 4096)
    assert broker.tokens() == []


def test_idle_clients_of_the_group_do_not_keep_root_out_and_are_let_go(serve):
    sh('/', f'grep -q ^brokers: /etc/group || echo brokers:x:{GROUP}: >>/etc/group')
    broker = serve('control-group=brokers')
    path = broker.socket
    script = f'''import socket, time
s = [socket.socket(socket.AF_UNIX) for _ in range(40)]
for i in s: i.connect({str(path)!r})
print("connected", flush=True)
for i in s: i.recv(1000)
print("let go", flush=True)
time.sleep(60)'''
    with subprocess.Popen(['python3', '-c', script], user=1000, group=GROUP, extra_groups=[], stdout=subprocess.PIPE, text=True) as idle:
        assert idle.stdout.readline() == 'connected\n'
        started = time.monotonic()
        assert broker.tokens() == []
        assert time.monotonic() - started < 4
        assert idle.stdout.readline() == 'let go\n'
        idle.kill()


def test_client_that_takes_no_answer_holds_nobody_up(serve):
    broker = serve()
    with broker.connect() as client:
        client.sendall(b'{"command":"status"}\n')
        assert broker.tokens() == []
        broker.end()
    assert broker.process.returncode == 0


def test_client_that_sends_a_byte_now_and_then_is_let_go(serve):
    """It is the whole request that has five seconds."""
    broker = serve()
    with broker.connect() as client:
        answer, started = None, time.monotonic()
        client.settimeout(0.5)
        while not answer:
            assert time.monotonic() - started < 15
            with contextlib.suppress(TimeoutError, BrokenPipeError):
                client.sendall(b' ')
                answer = client.recv(1000)
    assert b'sent at once' in answer


def test_log_that_is_stopped_stops_nothing(ext4, tmp_path, use):
    """Nobody reads /dev/log: the server says what it can, and later how much it could not."""
    make_file(ext4 / 'file', random_bytes(SIZE))
    target = tmp_path / 'target'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind('/dev/log')
        try:
            guest.mount_server(ext4, target)
            ring, fd, buffer = use(target / 'file', 64 * KIB)
            room = int(Path('/proc/sys/net/unix/max_dgram_qlen').read_text())
            for _ in range(room + 5):
                ring.register_dmabuf(1, buffer, fd)   # a line for this token, and one for the last
            assert len(json.loads(command('status', target, '--json').stdout)['mounts'][0]['tokens']) == 2
            log.setblocking(False)
            said = read_all(log)
            assert len(said) <= room + 2
            ring.unregister(1)
            wait_until(lambda: said.extend(read_all(log)) or re.search(r'\d+ messages were lost', ''.join(said)))
        finally:
            os.unlink('/dev/log')
            guest.run('umount', '-l', target)


def read_all(log):
    said = []
    with contextlib.suppress(BlockingIOError):
        while True:
            said.append(log.recv(8192).decode())
    return said


def test_server_in_a_revocation_storm_of_clients(serve, use):
    broker = serve()
    ring, fd, buffer = use(broker.target / 'file', 64 * KIB)
    clients = [subprocess.Popen(['fuse-dmabuf', 'revoke', broker.target, '--all'], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(8)]
    said = [client.communicate(timeout=60)[0] for client in clients]
    assert said.count('1 tokens revoked\n') == 1 and said.count('0 tokens revoked\n') == 7
    wait_until(lambda: broker.tokens()[0]['revoked'])
