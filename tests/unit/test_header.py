"""Which safetensors headers are taken, and what is said about the others."""
import random
import time

import pytest
from safetensors import SafetensorError, deserialize

from checkpoints import encode, small_tensors, tensor

U8 = tensor('U8', [4], 0, 4)

# name: (file, part of the message, cure)
HOSTILE = {
    'empty file': (b'', 'only 0 bytes', 'again'),
    'one byte': (b'x', 'only 1 bytes', 'again'),
    'seven bytes': (b'\0' * 7, 'only 7 bytes', 'again'),
    'header longer than the file': (encode({}, length=9000), 'header of 9000 bytes, but the file has only 16', 'again'),
    'header longer than the format allows': (encode({}, length=100_000_001), 'the format allows 100000000', 'again'),
    'header length near 2^64': (encode({}, length=2**64 - 1), 'the format allows', 'again'),
    'no header': (encode(b'', pad=1), 'not a JSON object', 'again'),
    'not JSON': (encode(b'hello, world'), 'not a JSON object', 'again'),
    'an array': (encode([]), 'not a JSON object', 'again'),
    'a space first': (encode(b' {}'), 'not a JSON object', 'again'),
    'text behind the object': (encode(b'{} x'), 'not a JSON object', 'again'),
    'NUL behind the object': (encode(b'{}\0'), 'not a JSON object', 'again'),
    'a comma too much': (encode(b'{"a":1,}'), 'tensor "a"', 'again'),
    'no closing brace': (encode(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}', b'1234'), 'not a JSON object', 'again'),
    'nested without end': (encode(b'{"a":' + b'[' * 10000), 'not a JSON object', 'again'),
    'nested deep': (encode(b'{"a":' + b'[' * 10000 + b']' * 10000 + b'}'), 'tensor "a"', 'again'),
    'not UTF-8': (encode(b'{"\xff":1}'), 'not UTF-8', 'again'),
    'overlong UTF-8': (encode(b'{"\xc0\xaf":1}'), 'not UTF-8', 'again'),
    'UTF-8 surrogate': (encode(b'{"\xed\xa0\x80":1}'), 'not UTF-8', 'again'),
    'lone surrogate escape': (encode(b'{"\\ud800":1}'), 'tensor name', 'again'),
    'NUL in a name': (encode(b'{"\\u0000":1}'), 'tensor name', 'again'),
    'entry is a number': (encode({'a': 1}), 'tensor "a": its entry', 'again'),
    'no dtype': (encode({'a': {'shape': [4], 'data_offsets': [0, 4]}}, b'1234'), 'tensor "a": no dtype', 'again'),
    'no shape': (encode({'a': {'dtype': 'U8', 'data_offsets': [0, 4]}}, b'1234'), 'tensor "a": no shape', 'again'),
    'no offsets': (encode({'a': {'dtype': 'U8', 'shape': [4]}}, b'1234'), 'tensor "a": data_offsets', 'again'),
    'one offset': (encode({'a': {**U8, 'data_offsets': [0]}}, b'1234'), 'tensor "a": data_offsets', 'again'),
    'three offsets': (encode({'a': {**U8, 'data_offsets': [0, 4, 4]}}, b'1234'), 'tensor "a": data_offsets', 'again'),
    'unknown dtype': (encode({'a': tensor('U7', [4], 0, 4)}, b'1234'), 'dtype "U7" is not known', 'convert'),
    'dtype is a number': (encode({'a': {**U8, 'dtype': 8}}, b'1234'), 'tensor "a": no dtype', 'again'),
    'negative dimension': (encode({'a': tensor('U8', [-4], 0, 4)}, b'1234'), 'dimension 0', 'again'),
    'real dimension': (encode({'a': tensor('U8', [4.0], 0, 4)}, b'1234'), 'dimension 0', 'again'),
    'dimension of 2^63': (encode({'a': tensor('U8', [2**63], 0, 4)}, b'1234'), 'tensor "a"', 'again'),
    'shape beyond 64 bits': (encode({'a': tensor('U8', [2**32, 2**32], 0, 0)}), 'larger than any memory', 'again'),
    'bits beyond 64 bits': (encode({'a': tensor('F64', [2**58], 0, 0)}), 'larger than any memory', 'again'),
    '65 dimensions': (encode({'a': tensor('U8', [1] * 65, 0, 1)}, b'1'), 'more than 64 dimensions', 'reshape'),
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
    'key twice in an entry': (encode(b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b'1'), 'twice', 'again'),
    'metadata twice': (encode(b'{"__metadata__":{},"__metadata__":{}}'), '__metadata__ occurs twice', 'again'),
    'metadata is a list': (encode({'__metadata__': []}), '__metadata__ is not a map', 'again'),
    'metadata with a number': (encode({'__metadata__': {'a': 1}}), '__metadata__ is not a map', 'again'),
    'metadata nested': (encode({'__metadata__': {'a': {'b': 'c'}}}), '__metadata__ is not a map', 'again'),
    'terminal codes in a name': (encode({'\x1b[2J\n\x9b': 1}), 'tensor "?[2J???"', 'again'),
    'entry beyond our limit': (encode({'a': {**U8, 'x': 'y' * 70000}}, b'1234'), 'longer than 65536 bytes', 'again'),
}

# Valid, or harmless, where the reference implementation is as strict or less.
GOOD = {
    'no tensors': encode({}),
    'metadata only': encode({'__metadata__': {'format': 'pt', 'é': '\U0001f600'}}),
    'scalar': encode({'a': tensor('F64', [], 0, 8)}, b'x' * 8),
    'tensors without data': encode({'a': tensor('F32', [0, 5], 0, 0), 'b': tensor('F32', [3, 0], 0, 0)}),
    'huge dimension times zero': encode({'a': tensor('U8', [0, 2**62], 0, 0)}),
    'not in the order of offsets': encode({'b': tensor('U8', [1], 4, 5), 'a': U8}, b'x' * 5),
    'spaces everywhere': encode(b'{ "a" : { "dtype" : "U8" ,\n "shape" : [ 4 ] ,\t"data_offsets":[0,4]\r} }   ', b'1234'),
    'unaligned header': encode({'a': U8}, b'1234', pad=1),
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


def test_nothing_is_taken_that_the_reference_refuses(tmp_path, load):
    """Damaged at random, as our own fuzz does, but judged by another implementation."""
    source, path = random.Random(7), tmp_path / 'model.safetensors'
    valid = encode({'a': tensor('F32', [2, 2], 0, 16), 'b': tensor('U8', [3], 16, 19), '__metadata__': {'x': 'y'}}, b'd' * 19)
    taken = 0
    for _ in range(300):
        data = bytearray(valid)
        for _ in range(source.randrange(1, 3)):
            data[source.randrange(len(data))] = source.choice(b'{}[]",:0123456789 \\x')
        path.write_bytes(data)
        if load(path).code == 0:
            taken += 1
            assert reference_accepts(bytes(data)), bytes(data)
    assert taken > 10


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


def test_header_beyond_our_limit_is_refused(checkpoint, load):
    loaded = load(checkpoint(b'{}' + b' ' * (16 << 20)))
    assert loaded.code == 2
    assert 'split the file into shards' in loaded.error


def test_ten_thousand_tensors_take_no_time_and_little_memory(tmp_path, load):
    path = small_tensors(tmp_path / 'many.safetensors', 10_000)
    began = time.monotonic()
    loaded = load(path, 'memory', '--verify')
    assert time.monotonic() - began < 10   # about 0.1 s on an idle machine
    assert (loaded.code, loaded.summary['tensors']) == (0, 10_000)
    assert loaded.peak < 64 << 20


def test_largest_hostile_header_takes_little_memory(checkpoint, load):
    """As many tensors as fit: each entry costs the parser more than its text."""
    entry = b'"%06d":{"dtype":"U8","shape":[0,0,0,0,0,0],"data_offsets":[0,0]}'
    header = b'{' + b','.join(entry % i for i in range(131072)) + b'}'
    loaded = load(checkpoint(header))
    assert (loaded.code, loaded.summary['tensors']) == (0, 131072)
    assert loaded.peak < 64 << 20
