/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The interface to AMD's HIP runtime, libamdhip64.so, which hip_load() loads with dlopen(3).
 * Neither the library nor its headers are needed to build. The numbers and prototypes are those
 * that are the same in ROCm 5, 6 and 7: structs, which change, are not used.
 */
#ifndef FDMABUF_HIP_DRIVER_H
#define FDMABUF_HIP_DRIVER_H

#include <stddef.h>
#include <stdint.h>

enum hip_attribute {
	HIP_ATTRIBUTE_DMA_BUF_SUPPORTED = 93,
	HIP_ATTRIBUTE_HDP_MEM_FLUSH_CNTL = 10005,	/* the value is a pointer, not an int */
};

enum hip_pointer_attribute {
	HIP_POINTER_MEMORY_TYPE = 2,
	HIP_POINTER_DEVICE_ORDINAL = 9,
};

/* Memory types up to this one are of the host. ROCm 6 has renumbered them. */
#define HIP_MEMORY_HOST 1u
#define HIP_MEMORY_HOST_BEFORE_6 0u
#define HIP_VERSION_6 60000000	/* of hipRuntimeGetVersion() */

#define HIP_COPY_HOST_TO_DEVICE 1
#define HIP_COPY_DEVICE_TO_HOST 2
#define HIP_STREAM_NON_BLOCKING 1u
#define HIP_REGISTER_PORTABLE 1u
#define HIP_HANDLE_DMA_BUF_FD 1

typedef struct hip_stream *hip_stream;

/* F(member of struct hip_driver, symbol, parameters); each function returns a hipError_t. */
#define HIP_FUNCTIONS(F) \
	F(init, hipInit, (unsigned flags)) \
	F(last_error, hipGetLastError, (void)) \
	F(version, hipRuntimeGetVersion, (int *version)) \
	F(device_count, hipGetDeviceCount, (int *count)) \
	F(device_get, hipDeviceGet, (int *device, int ordinal)) \
	F(device_by_address, hipDeviceGetByPCIBusId, (int *device, const char *address)) \
	F(device_name, hipDeviceGetName, (char *name, int room, int device)) \
	F(device_address, hipDeviceGetPCIBusId, (char *address, int room, int device)) \
	F(device_attribute, hipDeviceGetAttribute, (int *value, int attribute, int device)) \
	F(get_current, hipGetDevice, (int *device)) \
	F(set_current, hipSetDevice, (int device)) \
	F(allocate, hipMalloc, (void **memory, size_t size)) \
	F(free, hipFree, (void *memory)) \
	F(memory_info, hipMemGetInfo, (size_t *available, size_t *total)) \
	F(address_range, hipMemGetAddressRange, (void **begin, size_t *size, void *address)) \
	F(pointer_get, hipPointerGetAttribute, (void *value, int attribute, void *pointer)) \
	F(stream_create, hipStreamCreateWithFlags, (hip_stream *stream, unsigned flags)) \
	F(stream_destroy, hipStreamDestroy, (hip_stream stream)) \
	F(stream_wait, hipStreamSynchronize, (hip_stream stream)) \
	F(copy, hipMemcpyAsync, \
	  (void *to, const void *from, size_t length, int kind, hip_stream stream)) \
	F(fill, hipMemsetAsync, (void *to, int byte, size_t length, hip_stream stream)) \
	F(host_register, hipHostRegister, (void *memory, size_t length, unsigned flags)) \
	F(host_unregister, hipHostUnregister, (void *memory))

/* Added in ROCm 7: the pointer is NULL with an older runtime. */
#define HIP_NEWER_FUNCTIONS(F) \
	F(export_range, hipMemGetHandleForAddressRange, \
	  (void *handle, void *from, size_t length, int type, unsigned long long flags))

#define HIP_MEMBER(name, symbol, parameters) int (*name) parameters;

struct hip_driver {
	HIP_FUNCTIONS(HIP_MEMBER)
	HIP_NEWER_FUNCTIONS(HIP_MEMBER)
	const char *(*error_text)(int result);
};

extern struct hip_driver hip_driver;

/* Loads the runtime. Returns 0 or a negative errno with the text of fdmabuf_error() set. */
int hip_load(void);

#endif
