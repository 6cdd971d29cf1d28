"""Guest's half of tests/bench/profile.sh: prints in which functions the instructions of a request are spent, with two buffers side by side."""
import argparse
import bisect
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'bed'))
import guest  # noqa: E402
import instructions  # noqa: E402

RESULTS = Path('/results')   # where the plugin of tests/bed/vm --profile writes


class Symbols:
    """The functions of the running kernel and of its modules."""

    def __init__(self):
        names = {}
        for line in Path('/proc/kallsyms').read_text().splitlines():
            address, kind, name = line.split(maxsplit=2)
            if kind in 'tTwW':
                names.setdefault(int(address, 16), name.replace('\t', ' '))
        self.starts = sorted(names)
        self.names = [names[start] for start in self.starts]

    def find(self, address):
        """Returns the name of the function that the instruction belongs to, and whether the instruction is the function's first one."""
        index = bisect.bisect(self.starts, address) - 1
        return self.names[index], self.starts[index] == address


class Profile:
    """What a request with one buffer takes: .instructions and .calls {function: count}; .clock, the instructions that requests.c has counted."""

    def __init__(self, program, file, buffer, arguments):
        self.command = [program, file, arguments.direction, buffer, arguments.requests, arguments.size, arguments.depth]
        self.share = 1 / arguments.requests / arguments.rounds   # of a request in one instruction of one round
        self.instructions, self.calls, self.clock = Counter(), Counter(), 0

    def run(self, symbols):
        """Adds a round."""
        seen = set(RESULTS.glob('counts-*'))
        loops, turn, clock = map(float, guest.run(*self.command, stdin=subprocess.DEVNULL).split()[1:])
        (counts,) = set(RESULTS.glob('counts-*')) - seen
        self.clock += clock * self.share * self.command[4]
        for line in counts.read_text().splitlines():
            address, count = line.split()
            if address == 'user':
                # An idle loop takes a whole number of instructions; requests.c finds more, because the clock ticks meanwhile.
                self.instructions['(programs)'] += (int(count) - loops * round(turn)) * self.share
                continue
            name, is_first = symbols.find(int(address, 16))
            self.instructions[name] += int(count) * self.share
            if is_first:
                self.calls[name] += int(count) * self.share


def print_table(one, other, buffers):
    """Prints the functions, those first in which the second buffer takes more. The clock leaves out the ticks that come in the idle loop."""
    columns = '{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}  {}'.format

    def print_row(name, counts, calls=()):
        print(columns(*(f'{count:.1f}' for count in (*counts, counts[1] - counts[0])),
                      *(f'{count:.3f}' for count in (*calls, calls[1] - calls[0])) if calls else [''] * 3, name))

    print(columns(*buffers, 'more', 'calls', 'calls', 'more', 'function'))
    # Other functions are called once for several requests; for how many, depends on how fast the threads of the host complete requests.
    regular = {name for each in (one, other) for name, count in each.calls.items() if count >= 0.9}
    print_row('= all functions', [sum(each.instructions.values()) for each in (one, other)])
    print_row('= functions called for each request', [sum(each.instructions[name] for name in regular) for each in (one, other)])
    print_row('= all, by the clock of requests.c', [each.clock for each in (one, other)])
    functions = {name for each in (one, other) for name, count in each.instructions.items() if count >= 0.05}
    for name in sorted(functions, key=lambda name: (one.instructions[name] - other.instructions[name], name)):
        print_row(name, [each.instructions[name] for each in (one, other)], [each.calls[name] for each in (one, other)])


def main():
    parser = argparse.ArgumentParser(prog='profile.sh', description='Prints in which kernel functions the instructions of a request are spent.')
    parser.add_argument('direction', nargs='?', choices=instructions.DIRECTIONS, default='read')
    parser.add_argument('buffers', nargs='*', metavar='BUFFER', default=['memory', 'token'],
                        help='the two to compare, of memory, token, contiguous, pieces (see requests.c); the first two otherwise')
    parser.add_argument('--place', choices=('raw', 'ext4', 'FUSE'), default='raw', help='where the file is')
    parser.add_argument('--requests', type=int, default=8192, help='requests in a round')
    parser.add_argument('--size', type=int, default=4096, help='bytes of a request')
    parser.add_argument('--depth', type=int, default=32, help='requests under way at a time')
    parser.add_argument('--rounds', type=int, default=5, help='rounds of each buffer')
    arguments = parser.parse_args()
    if len(arguments.buffers) != 2:
        parser.error('two buffers are compared')

    program = instructions.build()
    file = instructions.places()[arguments.place]
    symbols = Symbols()
    profiles = [Profile(program, file, buffer, arguments) for buffer in arguments.buffers]
    for _ in range(arguments.rounds):
        for each in profiles:
            each.run(symbols)
    print(f'instructions and calls per direct {arguments.direction} of {arguments.size} bytes, queue depth {arguments.depth}, {arguments.place}')
    print_table(*profiles, arguments.buffers)


if __name__ == '__main__':
    main()
