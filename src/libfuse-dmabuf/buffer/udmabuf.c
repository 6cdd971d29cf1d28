/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Exporter "udmabuf": host memory as a dma-buf, made from a sealed memfd by /dev/udmabuf. */
#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "buffer/exporter.h"

#define SIZE_LIMIT "/sys/module/udmabuf/parameters/size_limit_mb"

/* Returns the limit in MiB, or 0 if it cannot be read. */
static unsigned long long read_size_limit(void)
{
	unsigned long long limit = 0;
	FILE *file = fopen(SIZE_LIMIT, "re");

	if (file) {
		if (fscanf(file, "%llu", &limit) != 1)
			limit = 0;
		fclose(file);
	}
	return limit;
}

static int open_device(void)
{
	int fd = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == EACCES || errno == EPERM)
		return fail(errno, "/dev/udmabuf: permission denied: "
			    "run as root, or give this user access to the device");
	return fail(EOPNOTSUPP, "/dev/udmabuf: %s: load the driver with \"modprobe udmabuf\" "
		    "(kernel option CONFIG_UDMABUF)", strerror(errno));
}

/*
 * Returns a memfd that cannot shrink, or a negative errno. udmabuf requires this seal, so that the
 * pages stay.
 */
static int create_memfd(uint64_t size)
{
	int fd = memfd_create("fuse-dmabuf", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return fail(errno, "udmabuf: memfd_create: %s", strerror(errno));
	if (ftruncate(fd, size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)) {
		int error = errno;

		close(fd);
		return fail(error, "udmabuf: %llu MiB of shared memory: %s",
			    (unsigned long long)size >> 20, strerror(error));
	}
	return fd;
}

/* Sets the text for errno of UDMABUF_CREATE, and returns a negative errno. */
static int create_error(uint64_t size)
{
	unsigned long long limit = read_size_limit(), mib = align_up(size, 1 << 20) >> 20;

	if (errno == EINVAL && limit && mib > limit)
		return fail(ENOSPC, "udmabuf: %llu MiB is more than its limit of %llu MiB: "
			    "raise it with \"echo %llu > %s\"", mib, limit, mib, SIZE_LIMIT);
	return fail(errno, "udmabuf: %llu MiB: %s", mib, strerror(errno));
}

static int udmabuf_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	uint64_t size = memory->bytes;
	__attribute__((cleanup(close_fd))) int device = -1;
	__attribute__((cleanup(close_fd))) int memfd = -1;
	struct udmabuf_create create = { .flags = UDMABUF_FLAGS_CLOEXEC, .size = size };

	device = open_device();
	if (device < 0)
		return device;
	memfd = create_memfd(size);
	if (memfd < 0)
		return memfd;
	create.memfd = memfd;
	buffer->dmabuf_fd = ioctl(device, UDMABUF_CREATE, &create);
	if (buffer->dmabuf_fd < 0)
		return create_error(size);
	buffer->size = size;
	return 0;
}

const struct exporter exporter_udmabuf = {
	.number = FDMABUF_EXPORTER_UDMABUF,
	.name = "udmabuf",
	.look_interval = LOOK_INTERVAL_MAPPED,
	.allocate = udmabuf_allocate,
	.map = dmabuf_map,
	.write = host_write,
	.read = host_read,
	.zero = host_zero,
	.access = host_access,
	.release = dmabuf_release,
};
