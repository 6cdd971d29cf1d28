/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interface to NVIDIA's driver library, libcuda.so.1, which cuda_load() loads with dlopen(3).
 * Neither the library nor its headers are needed to build. The numbers and prototypes are those of
 * the CUDA driver API, whose binary interface does not change; the suffix _v2 is part of the
 * symbols' names.
 */
#ifndef FDMABUF_CUDA_DRIVER_H
#define FDMABUF_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

enum cuda_attribute {
	CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS = 117,
	CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING = 118,
	CUDA_ATTRIBUTE_DMA_BUF_SUPPORTED = 124,
};

/* A bit of CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS. */
#define CUDA_FLUSH_BY_HOST 1
/* Values of CUDA_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING. */
#define CUDA_WRITES_ORDERED_FOR_OWNER 100

enum cuda_pointer_attribute {
	CUDA_POINTER_CONTEXT = 1,
	CUDA_POINTER_MEMORY_TYPE = 2,
	CUDA_POINTER_SYNC_MEMOPS = 6,
	CUDA_POINTER_IS_MANAGED = 8,
	CUDA_POINTER_DEVICE_ORDINAL = 9,
};

#define CUDA_MEMORY_HOST 1u
#define CUDA_MEMORY_DEVICE 2u
#define CUDA_REGISTER_PORTABLE 1u
#define CUDA_STREAM_NON_BLOCKING 1u
#define CUDA_HOST_REGISTER_PORTABLE 1u	/* for all contexts: a queue may serve two GPUs */
#define CUDA_HANDLE_DMA_BUF_FD 1
#define CUDA_RANGE_FLAG_PCIE 1ull
#define CUDA_FLUSH_CURRENT_CONTEXT 0
#define CUDA_FLUSH_TO_OWNER 100

typedef uint64_t cuda_pointer;
typedef struct cuda_context *cuda_context;
typedef struct cuda_stream *cuda_stream;

/* F(member of struct cuda_driver, symbol, parameters); each function returns a CUresult. */
#define CUDA_FUNCTIONS(F) \
	F(init, cuInit, (unsigned flags)) \
	F(error_text, cuGetErrorString, (int result, const char **text)) \
	F(device_count, cuDeviceGetCount, (int *count)) \
	F(device_get, cuDeviceGet, (int *device, int ordinal)) \
	F(device_by_address, cuDeviceGetByPCIBusId, (int *device, const char *address)) \
	F(device_name, cuDeviceGetName, (char *name, int room, int device)) \
	F(device_address, cuDeviceGetPCIBusId, (char *address, int room, int device)) \
	F(device_attribute, cuDeviceGetAttribute, (int *value, int attribute, int device)) \
	F(context_retain, cuDevicePrimaryCtxRetain, (cuda_context *context, int device)) \
	F(context_release, cuDevicePrimaryCtxRelease_v2, (int device)) \
	F(context_state, cuDevicePrimaryCtxGetState, \
	  (int device, unsigned *flags, int *is_active)) \
	F(context_push, cuCtxPushCurrent_v2, (cuda_context context)) \
	F(context_pop, cuCtxPopCurrent_v2, (cuda_context *context)) \
	F(allocate, cuMemAlloc_v2, (cuda_pointer *pointer, size_t size)) \
	F(free, cuMemFree_v2, (cuda_pointer pointer)) \
	F(memory_info, cuMemGetInfo_v2, (size_t *available, size_t *total)) \
	F(address_range, cuMemGetAddressRange_v2, \
	  (cuda_pointer *begin, size_t *size, cuda_pointer address)) \
	F(pointer_get, cuPointerGetAttribute, \
	  (void *value, int attribute, cuda_pointer pointer)) \
	F(pointer_set, cuPointerSetAttribute, \
	  (const void *value, int attribute, cuda_pointer pointer)) \
	F(stream_create, cuStreamCreate, (cuda_stream *stream, unsigned flags)) \
	F(stream_destroy, cuStreamDestroy_v2, (cuda_stream stream)) \
	F(stream_wait, cuStreamSynchronize, (cuda_stream stream)) \
	F(copy_in, cuMemcpyHtoDAsync_v2, \
	  (cuda_pointer to, const void *from, size_t length, cuda_stream stream)) \
	F(copy_out, cuMemcpyDtoHAsync_v2, \
	  (void *to, cuda_pointer from, size_t length, cuda_stream stream)) \
	F(fill, cuMemsetD8Async, \
	  (cuda_pointer to, unsigned char byte, size_t length, cuda_stream stream)) \
	F(host_register, cuMemHostRegister_v2, (void *memory, size_t length, unsigned flags)) \
	F(host_unregister, cuMemHostUnregister, (void *memory))

/* Added in CUDA 11.3 and 11.7: these pointers are NULL with an older driver. */
#define CUDA_NEWER_FUNCTIONS(F) \
	F(flush_writes, cuFlushGPUDirectRDMAWrites, (int target, int scope)) \
	F(export_range, cuMemGetHandleForAddressRange, \
	  (void *handle, cuda_pointer from, size_t length, int type, unsigned long long flags))

#define CUDA_MEMBER(name, symbol, parameters) int (*name) parameters;

struct cuda_driver {
	CUDA_FUNCTIONS(CUDA_MEMBER)
	CUDA_NEWER_FUNCTIONS(CUDA_MEMBER)
};

extern struct cuda_driver cuda_driver;

/* Loads the driver. Returns 0 or a negative errno with the text of fdmabuf_error() set. */
int cuda_load(void);

#endif
