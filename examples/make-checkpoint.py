#!/usr/bin/env python3
"""make-checkpoint.py FILE: a safetensors checkpoint with the tensor names and shapes of GPT-2 (124 M parameters), in the dtypes that such a model
is distributed in today: weights BF16, embeddings F32, norms and biases F16, attention masks BOOL. The values are random, but always the same."""
import sys

import numpy
from safetensors import serialize_file

LAYERS, WIDTH, CONTEXT, VOCABULARY = 12, 768, 1024, 50257
random = numpy.random.default_rng(2)


def weights(*shape):
    return random.standard_normal(shape, dtype=numpy.float32) * numpy.float32(0.02)


def tensor(dtype, array):
    return {'dtype': dtype, 'shape': list(array.shape), 'data': array.tobytes()}


def f32(*shape):
    return tensor('float32', weights(*shape))


def f16(*shape):
    return tensor('float16', weights(*shape).astype(numpy.float16))


def bf16(*shape):
    """numpy has no bfloat16: the upper half of a float32."""
    return tensor('bfloat16', (weights(*shape).view(numpy.uint32) >> 16).astype(numpy.uint16))


tensors = {
    'wte.weight': f32(VOCABULARY, WIDTH),
    'wpe.weight': f32(CONTEXT, WIDTH),
    'ln_f.weight': f16(WIDTH),
    'ln_f.bias': f16(WIDTH),
}
mask = tensor('bool', numpy.tril(numpy.ones((1, 1, CONTEXT, CONTEXT), dtype=bool)))
for layer in range(LAYERS):
    tensors |= {f'h.{layer}.{name}': value for name, value in {
        'ln_1.weight': f16(WIDTH), 'ln_1.bias': f16(WIDTH),
        'attn.bias': mask,
        'attn.c_attn.weight': bf16(WIDTH, 3 * WIDTH), 'attn.c_attn.bias': f16(3 * WIDTH),
        'attn.c_proj.weight': bf16(WIDTH, WIDTH), 'attn.c_proj.bias': f16(WIDTH),
        'ln_2.weight': f16(WIDTH), 'ln_2.bias': f16(WIDTH),
        'mlp.c_fc.weight': bf16(WIDTH, 4 * WIDTH), 'mlp.c_fc.bias': f16(4 * WIDTH),
        'mlp.c_proj.weight': bf16(4 * WIDTH, WIDTH), 'mlp.c_proj.bias': f16(WIDTH),
    }.items()}
serialize_file(tensors, sys.argv[1], {'format': 'pt'})
