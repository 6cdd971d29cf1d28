"""The server on the machine's own kernel."""
import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import threading
import time
from pathlib import Path


SOCKETS = Path('/run/fuse-dmabuf')


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.02)


class Server:
    def __init__(self, program, source, target, log, options, descriptors=None, umask=0o022, preload=None):
        self.source, self.target, self.log = source, target, log

        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        # Without CAP_SYS_RESOURCE the server cannot raise its limit again.
        limited = ['setpriv', '--bounding-set=-sys_resource', '--inh-caps=-sys_resource'] if descriptors else []
        with open(log, 'w') as stderr:
            self.process = subprocess.Popen([*limited, program, source, target, '-f', '-o', options], stderr=stderr, umask=umask,
                                            env=os.environ | ({'LD_PRELOAD': str(preload)} if preload else {}),
                                            preexec_fn=limit if descriptors else None)
        wait_until(lambda: 'is mounted' in log.read_text() or self.process.poll() is not None)

    def said(self):
        return self.log.read_text()

    @property
    def socket(self):
        return SOCKETS / f'{os.minor(os.stat(self.target).st_dev)}.socket'

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(str(self.socket))
        return client

    def ask(self, **request):
        with self.connect() as client:
            client.sendall(json.dumps(request).encode() + b'\n')
            return json.loads(client.makefile().read())

    def threads(self, field):
        """That line of the status of each thread."""
        found = {}
        for task in Path(f'/proc/{self.process.pid}/task').iterdir():
            with contextlib.suppress(OSError):   # it has ended meanwhile
                found[int(task.name)] = re.search(rf'^{field}:\t(.*)', (task / 'status').read_text(), re.MULTILINE)[1]
        return found

    def processor_seconds(self):
        words = Path(f'/proc/{self.process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(words[11]) + int(words[12])) / os.sysconf('SC_CLK_TCK')

    def end(self):
        self.process.terminate()
        self.process.wait(20)
        subprocess.run(['umount', '-l', self.target], capture_output=True, check=False)


class Pretender:
    """Listens in the place of a server: what it is asked, and what it says, which is `answer`, or what that makes of the request. None: nothing."""

    def __init__(self, number, answer):
        SOCKETS.mkdir(exist_ok=True)
        self.requests, self._answer, self._clients, self._path = [], answer, [], SOCKETS / f'{number}.socket'
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):   # the end
            while True:
                self._clients.append(self._listener.accept()[0])
                threading.Thread(target=self._serve, args=[self._clients[-1]], daemon=True).start()

    def _serve(self, client):
        request = json.loads(client.makefile().readline())
        self.requests.append(request)
        answer = self._answer(request) if callable(self._answer) else self._answer
        if answer:
            client.sendall(json.dumps(answer).encode() + b'\n')

    def end(self):
        self._path.unlink(missing_ok=True)
        for end in (self._listener, *self._clients):
            with contextlib.suppress(OSError):   # it is not connected
                end.shutdown(socket.SHUT_RDWR)
            end.close()
