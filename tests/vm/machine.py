"""The machine as its operator sees it: QEMU's monitor, by a port that tests/bed/qemu gives the guest."""

import contextlib
import functools
import json
import os
import re
import select
import time
from pathlib import Path

import guest
from token_words import wait_for


class Monitor:
    def __init__(self):
        port = next(path for path in Path("/sys/class/virtio-ports").iterdir() if (path / "name").read_text().strip() == "monitor")
        self._fd = os.open(f"/dev/{port.name}", os.O_RDWR | os.O_NONBLOCK)
        self._unread, self._number = b"", 0
        with contextlib.suppress(RuntimeError):  # an earlier process may have done it
            self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        self._number += 1
        request = {"execute": command, "arguments": arguments, "id": self._number}
        os.write(self._fd, json.dumps(request).encode() + b"\n")
        answer = self._next(lambda message: message.get("id") == self._number)
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    def console(self, line):
        """A line to the monitor for people."""
        answer = self.execute("human-monitor-command", **{"command-line": line})
        assert not answer, answer

    def wait_for_event(self, name):
        self._next(lambda message: message.get("event") == name)

    def _next(self, wanted, timeout=60):
        deadline = time.monotonic() + timeout
        while True:
            line, end, rest = self._unread.partition(b"\n")
            if end:
                self._unread = rest
                message = json.loads(line)
                if wanted(message):
                    return message
                continue
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._fd], [], [], left)[0], "the monitor says nothing"
            with contextlib.suppress(BlockingIOError):
                self._unread += os.read(self._fd, 65536)


@functools.cache
def monitor():
    """One connection for all: its greeting comes only once."""
    return Monitor()


def unplug_and_plug():
    """Takes the spare controller out of its slot, as somebody does who presses the button, and puts it back."""
    monitor().execute("device_del", id="spare")
    monitor().wait_for_event("DEVICE_DELETED")
    monitor().execute("device_add", driver="nvme", id="spare", bus="down3", serial="spare", drive="spare", mdts=9)
    wait_for(lambda: controller("spare"), timeout=60)


def controller(serial):
    """None without one that has its namespace."""
    try:
        nvme = guest.Nvme(serial)
        return nvme if os.path.exists(nvme.device) and nvme.size else None
    except (StopIteration, OSError):
        return None


@contextlib.contextmanager
def software_controller(sgls=True):
    """The controller of tests/modules/controller, which takes 8 MiB a command; its registers are where memmap= has left room for them."""
    parameters = Path("/sys/module/nvme_test/parameters")
    registers = parameters / "registers"
    size, address = re.search(r"\bmemmap=(\w+)\$(\w+)M", Path("/proc/cmdline").read_text()).groups()
    assert size == "8K"
    (parameters / "sgls").write_text("NY"[sgls])
    registers.write_text(hex(int(address) << 20))
    try:
        wait_for(lambda: controller("large"), timeout=60)
        yield guest.Nvme("large")
    finally:
        registers.write_text("0")


@contextlib.contextmanager
def rebound(address):
    """A controller without its driver meanwhile, for what can only be changed then; it is there again afterwards."""
    device = guest.PCI / "devices" / address
    (device / "driver/unbind").write_text(address)
    try:
        yield
    finally:
        (guest.PCI / "drivers/nvme/bind").write_text(address)
        wait_for(lambda: list(device.glob("nvme/nvme*/nvme*n1")))
