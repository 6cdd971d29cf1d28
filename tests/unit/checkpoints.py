"""Safetensors files for tests, and what `fuse-dmabuf load` makes of them."""
import json
import random
import struct
import subprocess
import threading
import time
from pathlib import Path


def encode(header, data=b'', length=None, pad=8):
    """A file from a header (text, bytes, or an object for JSON) and data; length: what the first eight bytes say instead."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    text += b' ' * (-len(text) % pad)
    return struct.pack('<Q', len(text) if length is None else length) + text + data


def tensor(dtype, shape, begin, end, **more):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end], **more}


def small_tensors(path, count, seed=1):
    """Writes a checkpoint of many tensors of a few bytes each, with data that is nowhere the same."""
    source, header, data = random.Random(seed), {}, b''
    parts = []
    position = 0
    for i in range(count):
        size = source.randrange(0, 120)
        header[f'model.layers.{i}.weight'] = tensor('U8', [size], position, position + size)
        parts.append(source.randbytes(size))
        position += size
    path.write_bytes(encode(header, b''.join(parts)))
    return path


def sparse(path, size):
    """A checkpoint of one big tensor without data on the disk."""
    data = encode({'hole': tensor('U8', [size], 0, size)})
    with path.open('wb') as file:
        file.write(data)
        file.truncate(len(data) + size)
    return path


class Loaded:
    """A finished run: .code, .summary (of --json, or None), .output, .error, .peak (VmHWM in bytes, of the last 10 ms at worst)."""

    def __init__(self, process, peak):
        self.output, self.error = process.communicate()
        self.code = process.returncode
        self.peak = peak
        self.summary = json.loads(self.output) if self.output.startswith('{') else None


def _watch(process, peaks):
    try:
        while process.poll() is None:
            for line in Path(f'/proc/{process.pid}/status').read_text().splitlines():
                if line.startswith('VmHWM:'):
                    peaks.append(int(line.split()[1]) * 1024)
            time.sleep(0.01)
    except OSError:
        pass


def load(command, file, into, *options):
    """Runs `fuse-dmabuf load --json`."""
    process = subprocess.Popen([command, 'load', file, '--into', into, '--json', *map(str, options)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peaks = [0]
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    loaded = Loaded(process, peaks)
    watcher.join()
    loaded.peak = max(peaks)
    return loaded
