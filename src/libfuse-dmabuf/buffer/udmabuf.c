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
#include "buffer/pages.h"

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
 * pages stay. @huge is what choose_pages() gave.
 */
static int create_memfd(uint64_t size, unsigned huge)
{
	int fd = memfd_create("fuse-dmabuf", MFD_CLOEXEC | MFD_ALLOW_SEALING |
			      (huge ? MFD_HUGETLB | huge : 0));

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

/*
 * Maps the memfd for the CPU: these are the pages of the dma-buf, but ordinary memory, which
 * O_DIRECT accepts; the map of the dma-buf itself is none. The map has to come before the dma-buf:
 * it reserves huge pages, or fails, and asks for transparent ones.
 */
static int map_memfd(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory, int memfd,
		     unsigned huge)
{
	void *map = mmap(NULL, buffer->size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	if (map == MAP_FAILED)
		return pages_error("udmabuf", memory, buffer->size, errno);
	buffer->map = map;
	buffer->has_pages = true;
	if (huge || !shared_memory_needs_advice())
		return 0;
	madvise(map, buffer->size, MADV_HUGEPAGE);
	if (madvise(map, buffer->size, MADV_POPULATE_WRITE) && errno == ENOMEM)
		return pages_error("udmabuf", memory, buffer->size, ENOMEM);
	return 0;
}

/* Sets the text for errno of UDMABUF_CREATE, and returns a negative errno. */
static int create_error(uint64_t size, unsigned huge)
{
	unsigned long long limit = read_size_limit(), mib = align_up(size, 1 << 20) >> 20;

	if (errno == EINVAL && limit && mib > limit)
		return fail(ENOSPC, "udmabuf: %llu MiB is more than its limit of %llu MiB: "
			    "raise it with \"echo %llu > %s\"", mib, limit, mib, SIZE_LIMIT);
	if (errno == EBADFD && huge)
		return fail(EOPNOTSUPP, "udmabuf: this kernel makes no dma-buf of huge pages: use "
			    "Linux 6.13 or later, or ordinary pages (\"udmabuf\")");
	return fail(errno, "udmabuf: %llu MiB: %s", mib, strerror(errno));
}

static int udmabuf_allocate(struct fdmabuf_buffer *buffer, const struct fdmabuf_memory *memory)
{
	__attribute__((cleanup(close_fd))) int device = -1;
	__attribute__((cleanup(close_fd))) int memfd = -1;
	struct udmabuf_create create = { .flags = UDMABUF_FLAGS_CLOEXEC };
	unsigned huge;
	int ret;

	device = open_device();
	if (device < 0)
		return device;
	ret = choose_pages("udmabuf", memory, &buffer->size, &huge);
	if (ret)
		return ret;
	memfd = create_memfd(buffer->size, huge);
	if (memfd < 0)
		return memfd;
	ret = map_memfd(buffer, memory, memfd, huge);
	if (ret)
		return ret;
	create.memfd = memfd;
	create.size = buffer->size;
	buffer->dmabuf_fd = ioctl(device, UDMABUF_CREATE, &create);
	return buffer->dmabuf_fd < 0 ? create_error(buffer->size, huge) : 0;
}

static int udmabuf_list(const struct exporter_report *report)
{
	__attribute__((cleanup(close_fd))) int device = open_device();
	uint64_t bytes = available_memory(), limit = read_size_limit() << 20;
	int ret;

	if (device < 0)
		return report_failure(report, NULL, NULL, device);
	ret = report_exporter(report, (struct fdmabuf_exporter_info){
		.bytes = limit ? min_u64(bytes, limit) : bytes,
		.has_dmabuf = true,
	});
	return ret ? ret : report_huge_pages(report, true);
}

const struct exporter exporter_udmabuf = {
	.number = FDMABUF_EXPORTER_UDMABUF,
	.name = "udmabuf",
	.options = OPTION_PAGE_SIZE,
	.look_interval = LOOK_INTERVAL_MAPPED,
	.parse = parse_page_size,
	.allocate = udmabuf_allocate,
	.list = udmabuf_list,
	.write = host_write,
	.read = host_read,
	.zero = host_zero,
	.access = host_access,
	.release = dmabuf_release,
};
