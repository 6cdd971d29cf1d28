"""Guest's half of tests/bench/instructions.sh: counts the instructions of one read or write by each way to the same kind of device, and of a large
one on the raw device with the memory of a token in one piece or in many."""
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'bed'))
import guest  # noqa: E402

ROUNDS = int(os.environ.get('ROUNDS', '15'))
REQUESTS = 8192
DIRECTIONS = 'read', 'write'
BUFFERS = {'memory': 'ordinary registered buffer', 'token': 'token on a udmabuf'}

# Each large request is one command: the raw device takes 2 MiB a command.
LARGE_REQUESTS, LARGE_SIZE, LARGE_DEPTH = 512, 1 << 20, 8
LARGE_BUFFERS = {'contiguous': 'token, contiguous memory', 'pieces': 'token, pieces of 4 KiB'}


def build():
    """Returns the path of requests.c, compiled, with the test exporter that some of its buffers come from."""
    program = '/tmp/requests'
    guest.run('gcc', '-O2', '-Wall', '-o', program, HERE / 'requests.c', '-luring')
    guest.run('insmod', guest.BED / 'dmabuf_test.ko')
    return program


def places():
    """Returns the paths of a device, of a file on ext4, and of that file on the server's mount.

    The raw device is another one of the same kind: writes to the device below ext4 would destroy the file system, and ext4 keeps pages of its
    device in the page cache, which make direct requests to that device cost more.
    """
    root = guest.make_ext4(guest.Nvme().device, '/mnt/nvme')
    file = root / 'file'
    with file.open('wb') as opened:
        opened.write(os.urandom(4 << 20))
        # The counted writes must be overwrites: ext4 must not have blocks to allocate, unwritten extents to convert or cached pages to drop.
        # One thing is left: after each tick the requests at hand go to a thread of io_uring, which changes mtime. It costs 1 %, of ext4 and FUSE.
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    mount = guest.mount_server(root, '/mnt/fuse')
    os.sync()
    return {'raw': guest.Nvme('spare').device, 'ext4': file, 'FUSE': mount / 'file'}


def run(program, file, direction, buffer, *arguments):
    """Returns how many instructions requests.c has counted."""
    if buffer in LARGE_BUFFERS:
        arguments = LARGE_REQUESTS, LARGE_SIZE, LARGE_DEPTH
    return float(guest.run(program, file, direction, buffer, *arguments, stdin=subprocess.DEVNULL).split()[-1])


def measure(program, files, directions):
    """Returns the counts of all rounds, which take turns: what else happens on the machine then falls on all alike."""
    counts = {(direction, place, buffer): [] for direction in directions for buffer in BUFFERS for place in files}
    counts |= {(direction, 'raw', buffer): [] for direction in directions for buffer in LARGE_BUFFERS}
    for _ in range(ROUNDS):
        for (direction, place, buffer), values in counts.items():
            values.append(run(program, files[place], direction, buffer, REQUESTS))
    return counts


def count_server_requests(program, file, direction, buffer):
    """Returns how many requests the kernel sends to the server during REQUESTS reads or writes, in a run whose instructions do not count."""
    command = [program, file, direction, buffer, str(REQUESTS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        with guest.trace('fuse:fuse_request_send') as sent:
            process.stdin.write('\n')
            process.stdin.flush()
            process.stdout.readline()
    if process.returncode:
        raise RuntimeError(f'{" ".join(map(str, command))}: exit code {process.returncode}')
    return sent.hits


def count_pieces(program, device, direction, buffer):
    """Returns how many segments the device sees the buffer in, and the number of its commands per request, in a run that is not measured."""
    with guest.trace('dmabuf_token:dmabuf_map', sums=('segments',)) as maps, \
            guest.trace('nvme:nvme_setup_cmd', where=f'disk == "{Path(device).name}"') as commands:
        run(program, device, direction, buffer)
    return maps.sums['segments'] // maps.hits, commands.hits / (LARGE_REQUESTS + LARGE_REQUESTS // 8)


def find_deviation(counts, medians, direction, buffers):
    """Returns the greatest standard deviation, relative to the median."""
    return max(statistics.pstdev(counts[key]) / medians[key] for key in counts if key[0] == direction and key[2] in buffers)


def print_table(direction, counts, to_server):
    medians = {key: statistics.median(values) for key, values in counts.items()}
    deviation = find_deviation(counts, medians, direction, BUFFERS)
    print(f'instructions per direct 4 KiB {direction}, queue depth 32')
    print(f'{"":28}{"raw":>8}{"ext4":>8}{"FUSE":>8}{"raw/ext4":>10}{"ext4/FUSE":>11}')
    for buffer, name in BUFFERS.items():
        raw, ext4, fuse = (medians[direction, place, buffer] for place in ('raw', 'ext4', 'FUSE'))
        print(f'{name:28}{raw:8.0f}{ext4:8.0f}{fuse:8.0f}{raw / ext4:10.3f}{ext4 / fuse:11.3f}')
    print(f'medians of {ROUNDS} rounds, standard deviation at most {deviation:.1%}; requests to the FUSE server during {REQUESTS}: {to_server}')


def print_large_table(direction, counts, pieces):
    medians = {key: statistics.median(values) for key, values in counts.items()}
    deviation = find_deviation(counts, medians, direction, LARGE_BUFFERS)
    print(f'instructions per direct {LARGE_SIZE >> 20} MiB {direction} on the raw device, queue depth {LARGE_DEPTH}')
    print(f'{"":28}{"segments":>10}{"commands":>10}{"instructions":>14}{"ratio":>8}')
    first = medians[direction, 'raw', 'contiguous']
    for buffer, name in LARGE_BUFFERS.items():
        segments, commands = pieces[buffer]
        count = medians[direction, 'raw', buffer]
        print(f'{name:28}{segments:10}{commands:10.2f}{count:14.0f}{count / first:8.2f}')
    print(f'segments of the buffer of {LARGE_DEPTH} requests, commands per request; '
          f'medians of {ROUNDS} rounds, standard deviation at most {deviation:.1%}')


def main(directions):
    program = build()
    files = places()
    counts = measure(program, files, directions)
    for direction in directions:
        to_server = [count_server_requests(program, files['FUSE'], direction, buffer) for buffer in BUFFERS]
        print_table(direction, counts, ' and '.join(map(str, to_server)))
        print_large_table(direction, counts, {buffer: count_pieces(program, files['raw'], direction, buffer) for buffer in LARGE_BUFFERS})


if __name__ == '__main__':
    main(sys.argv[1:] or DIRECTIONS)
