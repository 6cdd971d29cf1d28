"""Our verdicts on thousands of files, beside those of python3-safetensors. Each difference has a name, a reason, and its words in the manual."""
import json
import random
import re
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from safetensors import SafetensorError, deserialize

from headers import CHANGES, DTYPES, Object, make

MANUAL = Path(__file__).resolve().parents[2] / 'man/fuse-dmabuf-load.1'
FILES = 20_000
CURE = re.compile(r'^file: .*(again( with a current safetensors library)?|rename it|pad its last dimension|convert it to another)$')


def reference(file):
    """What it makes of the file: {name: (dtype, shape, data)}, or None if it refuses it."""
    try:
        return {name: (tensor['dtype'], tensor['shape'], bytes(tensor['data'])) for name, tensor in deserialize(file)}
    except SafetensorError:
        return None


def is_known_to_reference(dtype):
    text = json.dumps({'a': {'dtype': dtype, 'shape': [8], 'data_offsets': [0, DTYPES[dtype]]}}).encode()
    return reference(struct.pack('<Q', len(text)) + text + bytes(DTYPES[dtype])) is not None


# Newer than the reference implementation that is installed.
NEW = [dtype for dtype in DTYPES if not is_known_to_reference(dtype)]


def members(file):
    """The members of the header, with those that occur twice; none if it is not JSON."""
    try:
        size = struct.unpack('<Q', file[:8])[0]
        header = json.loads(file[8:8 + size], object_pairs_hook=Object, parse_int=str)
    except ValueError:
        return []
    return [(key, value) for key, value in header if key != '__metadata__'] if isinstance(header, Object) else []


def has_name_twice(file):
    names = [key for key, _ in members(file)]
    return len(names) > len(set(names))


def has_nul_in_name(file):
    return any('\0' in key for key, _ in members(file))


def has_array_as_entry(file):
    return any(not isinstance(value, Object) for _, value in members(file))


def has_object_as_dtype(file):
    return any(isinstance(item, Object) for _, value in members(file) if isinstance(value, Object) for key, item in value if key == 'dtype')


# What we refuse and the reference implementation takes. A header that takes too much memory is not among these: see test_header.py.
# name: (what such a file has, words of the manual)
REFUSED = {
    'name twice': (has_name_twice, 'Two tensors with the same name'),
    'NUL in a name': (has_nul_in_name, 'A tensor name that contains NUL'),
    'array as an entry': (has_array_as_entry, 'A tensor whose entry is an array'),
    'object as a dtype': (has_object_as_dtype, 'a dtype that is an object'),
}


def written(text):
    """A pattern for this string in JSON, however it is escaped."""
    return re.compile(b'"' + b''.join(b'(?:%c|\\\\u%04x|\\\\u%04X)' % (code, code, code) for code in text.encode()) + b'"')


def with_known_dtypes(file):
    """The file with known dtypes, and spaces for the same length, in place of new ones of the same size; None if there are none of that size."""
    for dtype in NEW:
        other = next((known for known in DTYPES if known not in NEW and DTYPES[known] == DTYPES[dtype] and len(known) <= len(dtype)), None)
        if not other and written(dtype).search(file):
            return None
        if other:
            file = written(dtype).sub(lambda found, other=other: f'"{other}"'.encode().ljust(len(found[0])), file)
    return file


def ours(build, files):
    """For each file what we make of it, as reference() has it, or our error."""
    program = build / 'tests/unit/header-verdicts'
    answer = subprocess.run([program], input=b''.join(struct.pack('=Q', len(file)) + file for file in files), stdout=subprocess.PIPE, check=True)
    lines = iter(answer.stdout.decode(errors='replace').splitlines())
    for file in files:
        verdict, rest = next(lines).split(' ', 1)
        if verdict == 'refused':
            yield rest
            continue
        tensors = {}
        for _ in range(int(rest)):
            name, dtype, begin, end, *shape = next(lines).split(' ')
            tensors[bytes.fromhex(name.strip('"')).decode()] = dtype, [int(size) for size in shape], file[int(begin):int(end)]
        yield tensors
    assert next(lines, None) is None


def same(expected, found, is_replaced):
    """A replaced dtype is only as large as the one in the file."""
    return {name: (DTYPES[dtype] if is_replaced else dtype, *rest) for name, (dtype, *rest) in expected.items()} == \
           {name: (DTYPES[dtype] if is_replaced else dtype, *rest) for name, (dtype, *rest) in found.items()}


def difference(file, expected, found):
    """The name of the difference, if it is deliberate; '' if there is none, and None if it is a mistake."""
    is_refused, other = isinstance(found, str), file
    if is_refused and not CURE.search(found):
        return None   # an error without a cure
    if expected is None:
        other = with_known_dtypes(file)
        if other is None:
            return ''   # nobody to compare with
        expected = reference(other)
    reason = next((name for name, (holds, _) in REFUSED.items() if holds(file)), None)
    if expected is None or reason:
        return None if not is_refused else reason if expected is not None else ''
    if is_refused or not same(expected, found, other != file):
        return None
    return 'new dtype' if other != file else ''


@pytest.fixture(scope='module')
def corpus(build):
    """[(names of what was done, file, what the reference makes of it, what we make of it, the difference)]"""
    source = random.Random(17)
    made = [make(source) for _ in range(FILES)]
    verdicts = [(names, file, reference(file), found) for (names, file), found in zip(made, ours(build, [file for _, file in made]))]
    return [(*verdict, difference(*verdict[1:])) for verdict in verdicts]


def test_verdicts_differ_only_where_they_should(corpus):
    wrong = [case for case in corpus if case[-1] is None]
    # Only the first few, because there may be thousands.
    some = [f'{names}: {file}: reference: {expected}, ours: {found}' for names, file, expected, found, _ in wrong[:3]]
    assert not some, f'{len(wrong)} of {len(corpus)}'


def test_corpus_has_each_difference_and_many_files_of_either_kind(corpus):
    """A corpus that is all refused, or that has no file of some kind, would prove little."""
    differences = Counter(case[-1] for case in corpus)
    for name in [*REFUSED, *(['new dtype'] if NEW else [])]:
        assert differences[name] >= 10, differences
    taken = Counter(tuple(names) for names, _, _, found, _ in corpus if not isinstance(found, str))
    refused = Counter(tuple(names) for names, _, _, found, _ in corpus if isinstance(found, str))
    for name in CHANGES:
        assert taken[name,] >= 20 or name in ('root', 'length')
        assert refused[name,] >= 20 or name in ('nothing', 'order')
    assert taken.total() > len(corpus) // 6 and refused.total() > len(corpus) // 6


def test_manual_has_each_difference():
    text = ' '.join(MANUAL.read_text().split())
    missing = [words for _, words in REFUSED.values() if words not in text]
    assert missing + [dtype for dtype in NEW if dtype not in text] == []


def test_limit_of_memory_is_the_same_in_the_manual_and_the_header():
    folder = MANUAL.parents[1] / 'src/safetensors'
    limit = re.search(r'MEMORY_MAX_MIB (\d+)u', (folder / 'internal.h').read_text())[1]
    for path in (MANUAL, folder / 'safetensors.h'):
        assert f'at most {limit} MiB of memory' in ' '.join(re.sub(r'\n \*', '', path.read_text()).split())
