"""Which safetensors headers are taken, and what is said about the others."""
import time

import pytest
from safetensors import SafetensorError, deserialize

from checkpoints import encode, small_tensors, tensor

U8 = tensor('U8', [4], 0, 4)


def deep(levels):
    return b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"more":' + b'[' * levels + b']' * levels + b'}}'


# name: (file, part of the message, cure)
HOSTILE = {
    'empty file': (b'', 'only 0 bytes', 'again'),
    'one byte': (b'x', 'only 1 bytes', 'again'),
    'seven bytes': (b'\0' * 7, 'only 7 bytes', 'again'),
    'header longer than the file': (encode({}, length=9000), 'header of 9000 bytes, but the file has only 16', 'again'),
    'header longer than the format allows': (encode({}, length=100_000_001), 'the format allows 100000000', 'again'),
    'header length near 2^64': (encode({}, length=2**64 - 1), 'the format allows', 'again'),
    'no header': (encode(b'', pad=1), 'not JSON', 'again'),
    'not JSON': (encode(b'hello, world'), 'not JSON (byte 0', 'again'),
    'an array': (encode([]), 'not a JSON object', 'again'),
    'text behind the object': (encode(b'{} x'), 'not JSON (byte 3', 'again'),
    'NUL behind the object': (encode(b'{}\0'), 'not JSON', 'again'),
    'a byte order mark': (encode('\ufeff{}'), 'not JSON', 'again'),
    'a comma too much': (encode(b'{"a":1,}'), 'not JSON', 'again'),
    'no closing brace': (encode(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}', b'1234'), 'not JSON', 'again'),
    'nested without end': (encode(b'{"a":' + b'[' * 10000), 'not JSON', 'again'),
    'nested deep': (encode(deep(126), b'1234'), 'tensor "a": its entry in the header has more than 127 levels', 'again'),
    'not UTF-8': (encode(b'{"\xff":1}'), 'not JSON (byte 2: invalid UTF-8', 'again'),
    'overlong UTF-8': (encode(b'{"\xc0\xaf":1}'), 'invalid UTF-8', 'again'),
    'UTF-8 surrogate': (encode(b'{"\xed\xa0\x80":1}'), 'invalid UTF-8', 'again'),
    'lone surrogate escape': (encode(b'{"\\ud800":1}'), 'not JSON', 'again'),
    'NUL in a name': (encode({'a\0b': U8}, b'1234'), 'tensor "a": its name contains NUL', 'rename'),
    'entry is a number': (encode({'a': 1}), 'tensor "a": its entry in the header is not an object', 'again'),
    'entry is an array': (encode({'a': ['U8', [4], [0, 4]]}, b'1234'), 'tensor "a": its entry in the header is not an object', 'again'),
    'no dtype': (encode({'a': {'shape': [4], 'data_offsets': [0, 4]}}, b'1234'), 'tensor "a": no dtype', 'again'),
    'no shape': (encode({'a': {'dtype': 'U8', 'data_offsets': [0, 4]}}, b'1234'), 'tensor "a": no shape', 'again'),
    'no offsets': (encode({'a': {'dtype': 'U8', 'shape': [4]}}, b'1234'), 'tensor "a": data_offsets', 'again'),
    'one offset': (encode({'a': {**U8, 'data_offsets': [0]}}, b'1234'), 'tensor "a": data_offsets', 'again'),
    'three offsets': (encode({'a': {**U8, 'data_offsets': [0, 4, 4]}}, b'1234'), 'tensor "a": data_offsets', 'again'),
    'unknown dtype': (encode({'a': tensor('U7', [4], 0, 4)}, b'1234'), 'dtype "U7" is not known', 'convert'),
    'dtype is a number': (encode({'a': {**U8, 'dtype': 8}}, b'1234'), 'tensor "a": no dtype', 'again'),
    'dtype and NUL': (encode({'a': {**U8, 'dtype': 'U8\0'}}, b'1234'), 'dtype "U8" is not known', 'convert'),
    'negative dimension': (encode({'a': tensor('U8', [-4], 0, 4)}, b'1234'), 'dimension 0', 'again'),
    'real dimension': (encode({'a': tensor('U8', [4.0], 0, 4)}, b'1234'), 'dimension 0', 'again'),
    'dimension of 2^63': (encode({'a': tensor('U8', [2**63], 0, 4)}, b'1234'), 'tensor "a"', 'again'),
    'shape beyond 64 bits': (encode({'a': tensor('U8', [2**32, 2**32], 0, 0)}), 'larger than any memory', 'again'),
    'bits beyond 64 bits': (encode({'a': tensor('F64', [2**58], 0, 0)}), 'larger than any memory', 'again'),
    'elements beyond 64 bits, times zero': (encode({'a': tensor('U8', [2**32, 2**32, 0], 0, 0)}), 'larger than any memory', 'again'),
    'dimension of 2^64': (encode({'a': tensor('U8', [0, 2**64], 0, 0)}), 'dimension 1', 'again'),
    'dimension of -0': (encode(b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'), 'dimension 0', 'again'),
    'shape and size differ': (encode({'a': tensor('F32', [4], 0, 4)}, b'1234'), 'shape and dtype make 16 bytes, its data has 4', 'again'),
    'half a byte': (encode({'a': tensor('F4', [3], 0, 2)}, b'12'), 'whole bytes', 'pad'),
    'ends before it begins': (encode({'a': tensor('U8', [0], 4, 0)}, b'1234'), 'ends before it begins', 'again'),
    'data behind the end': (encode({'a': tensor('U8', [100], 0, 100)}, b'x' * 60), 'ends 40 bytes beyond the end', 'again'),
    'offset near 2^63': (encode({'a': tensor('U8', [1], 2**63 - 2, 2**63 - 1)}), 'beyond the end', 'again'),
    'overlap': (encode({'a': U8, 'b': tensor('U8', [4], 3, 7)}, b'x' * 7), 'tensor "b": overlaps tensor "a"', 'again'),
    'same data twice': (encode({'a': U8, 'b': U8}, b'1234'), 'overlaps', 'again'),
    'empty tensor inside another': (encode({'a': U8, 'b': tensor('U8', [0], 2, 2)}, b'1234'), 'tensor "b": overlaps', 'again'),
    'gap between tensors': (encode({'a': U8, 'b': tensor('U8', [1], 6, 7)}, b'x' * 7), 'tensor "b": there is a gap of 2 bytes', 'again'),
    'gap before the first': (encode({'a': tensor('U8', [4], 1, 5)}, b'x' * 5), 'gap of 1 bytes', 'again'),
    'data left over': (encode({'a': U8}, b'12345'), '1 bytes after the last tensor', 'again'),
    'data without tensors': (encode({}, b'1'), '1 bytes after the last tensor', 'again'),
    'name twice': (encode(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b'12'),
                   'tensor "a": occurs twice', 'again'),
    'name twice, once escaped': (encode(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":'
                                        b'{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b'12'), 'tensor "a": occurs twice', 'again'),
    'key twice in an entry': (encode(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b'1'), '"dtype" twice', 'again'),
    'metadata twice': (encode(b'{"__metadata__":{},"__metadata__":{}}'), '__metadata__ occurs twice', 'again'),
    'metadata twice, once escaped': (encode(b'{"__metadata__":{},"\\u005f_metadata__":null}'), '__metadata__ occurs twice', 'again'),
    'metadata is a list': (encode({'__metadata__': []}), '__metadata__ is not a map', 'again'),
    'metadata with a number': (encode({'__metadata__': {'a': 1}}), '__metadata__ is not a map', 'again'),
    'metadata with null': (encode({'__metadata__': {'a': None}}), '__metadata__ is not a map', 'again'),
    'metadata nested': (encode({'__metadata__': {'a': {'b': 'c'}}}), '__metadata__ is not a map', 'again'),
    'terminal codes in a name': (encode({'\x1b[2J\n\x9b': 1}), 'tensor "?[2J???"', 'again'),
}

# Valid, or harmless, where the reference implementation is as strict or less.
GOOD = {
    'no tensors': encode({}),
    'no metadata': encode({'__metadata__': None}),
    'metadata in one long string': encode({'__metadata__': {'workflow': '\n"é' * (4 << 20)}, 'a': U8}, b'1234'),
    'metadata with an escaped key': encode(b'{"\\u005f_metadata__":{"format":"pt"}}'),
    'metadata with one key twice': encode(b'{"__metadata__":{"format":"pt","format":"pt"}}'),
    'metadata only': encode({'__metadata__': {'format': 'pt', 'é': '\U0001f600'}}),
    'scalar': encode({'a': tensor('F64', [], 0, 8)}, b'x' * 8),
    'tensors without data': encode({'a': tensor('F32', [0, 5], 0, 0), 'b': tensor('F32', [3, 0], 0, 0)}),
    'huge dimension times zero': encode({'a': tensor('U8', [0, 2**62], 0, 0), 'b': tensor('F64', [2**64 - 1, 0], 0, 0)}),
    '100 dimensions': encode({'a': tensor('U8', [1] * 100, 0, 1)}, b'1'),
    'not in the order of offsets': encode({'b': tensor('U8', [1], 4, 5), 'a': U8}, b'x' * 5),
    'spaces everywhere': encode(b' \n{ "a" : { "dtype" : "U8" ,\n "shape" : [ 4 ] ,\t"data_offsets":[0,4]\r} }   ', b'1234'),
    'unaligned header': encode({'a': U8}, b'1234', pad=1),
    'long entry': encode({'a': {**U8, 'x': 'y' * 70000}}, b'1234'),
    'nested entry': encode(deep(125), b'1234'),
    'unknown keys in an entry': encode({'a': {**U8, 'more': [{}, None, 1.5]}}, b'1234'),
    'names of any script': encode({'重み': U8, '"\\/\t': tensor('U8', [1], 4, 5), '': tensor('U8', [1], 5, 6)}, b'x' * 6),
    'escaped name': encode(b'{"\\u00e9\\ud83d\\ude00":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b'1234'),
}

DTYPES = {'BOOL': 8, 'F4': 4, 'F6_E2M3': 6, 'F6_E3M2': 6, 'U8': 8, 'I8': 8, 'F8_E5M2': 8, 'F8_E4M3': 8, 'F8_E8M0': 8, 'F8_E4M3FNUZ': 8,
          'F8_E5M2FNUZ': 8, 'I16': 16, 'U16': 16, 'F16': 16, 'BF16': 16, 'I32': 32, 'U32': 32, 'F32': 32, 'C64': 64, 'F64': 64, 'I64': 64,
          'U64': 64}


def reference_accepts(data):
    try:
        deserialize(data)
    except SafetensorError:
        return False
    return True


@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_header_is_refused_with_one_line(name, tmp_path, load):
    data, message, cure = HOSTILE[name]
    path = tmp_path / 'bad.safetensors'
    path.write_bytes(data)
    loaded = load(path)
    assert loaded.code == 2
    assert loaded.output == ''
    assert loaded.error.startswith(f'fuse-dmabuf: {path}: ') and loaded.error.count('\n') == 1
    assert message in loaded.error
    assert cure in loaded.error


@pytest.mark.parametrize('name', GOOD)
def test_unusual_header_is_taken(name, tmp_path, load):
    path = tmp_path / 'good.safetensors'
    path.write_bytes(GOOD[name])
    loaded = load(path, 'memory', '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert loaded.summary['bytes'] == len(GOOD[name])


@pytest.mark.parametrize('dtype', DTYPES)
def test_dtype_has_its_size(dtype, checkpoint, load):
    size = DTYPES[dtype] * 8 // 8
    assert load(checkpoint({'a': tensor(dtype, [2, 4], 0, size)}, b'x' * size)).code == 0
    assert 'shape and dtype make' in load(checkpoint({'a': tensor(dtype, [2, 4], 0, size + 1)}, b'x' * (size + 1))).error


def test_reference_agrees_on_the_unusual_headers():
    for name, data in GOOD.items():
        assert reference_accepts(data), name


def test_truncated_anywhere_is_refused(checkpoint, load):
    path = checkpoint({'a': tensor('F32', [2, 2], 0, 16)}, b'x' * 16)
    whole = path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        loaded = load(path)
        assert loaded.code == 2 and loaded.error.count('\n') == 1 and 'again' in loaded.error


def test_header_as_large_as_the_format_allows_is_taken(checkpoint, load):
    """Applications keep a whole workflow in one string."""
    path = checkpoint(b'{"__metadata__":{"workflow":"' + b'x' * 99_999_968 + b'"}}', pad=1)
    loaded = load(path)
    assert (loaded.code, loaded.error) == (0, '')
    assert path.stat().st_size == 8 + 100_000_000
    assert loaded.peak < path.stat().st_size + (128 << 20)   # the destination is memory, too


# (begin, piece, number): of these sizes the tree, which grows by half each time, comes close to the limit before it exceeds it.
HUNGRY = {
    'arrays without end': (b'{"a":', b'[', 46_000_000),
    'tensors': (b'{', b'"":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', 1_900_000),
}


@pytest.mark.parametrize('name', HUNGRY)
def test_hostile_header_takes_bounded_memory_and_time(name, checkpoint, load):
    begin, piece, number = HUNGRY[name]
    path = checkpoint(begin + piece * number)
    began = time.monotonic()
    loaded = load(path)
    assert time.monotonic() - began < 20   # about 2 s
    assert (loaded.code, loaded.error.split(': ', 2)[2]) == (2, 'its header takes more than 448 MiB of memory: split the file into shards\n')
    assert loaded.peak < (448 + 16) << 20


def test_ten_thousand_tensors_take_no_time_and_little_memory(tmp_path, load):
    path = small_tensors(tmp_path / 'many.safetensors', 10_000)
    began = time.monotonic()
    loaded = load(path, 'memory', '--verify')
    assert time.monotonic() - began < 10   # about 0.1 s on an idle machine
    assert (loaded.code, loaded.summary['tensors']) == (0, 10_000)
    assert loaded.peak < 64 << 20


def test_many_tensors_take_little_memory(checkpoint, load):
    """More than the largest checkpoints known have in all their shards together."""
    entry = b'"%06d":{"dtype":"U8","shape":[0,0,0,0,0,0],"data_offsets":[0,0]}'
    header = b'{' + b','.join(entry % i for i in range(131072)) + b'}'
    loaded = load(checkpoint(header))
    assert (loaded.code, loaded.summary['tensors']) == (0, 131072)
    assert loaded.peak - len(header) < 64 << 20
