/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CPU copies to and from buffers that are mapped, in host memory or in device memory. */
#include <errno.h>
#include <linux/dma-buf.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/error.h"
#include "buffer/exporter.h"

/* --------------------------------------------------------------- host memory */

/* Tells the exporter that CPU access begins or ends, which does its cache maintenance. */
static int sync_cpu_access(struct fdmabuf_buffer *buffer, uint64_t flags)
{
	struct dma_buf_sync sync = { .flags = flags };
	int ret;

	if (buffer->dmabuf_fd < 0)
		return 0;
	do
		ret = ioctl(buffer->dmabuf_fd, DMA_BUF_IOCTL_SYNC, &sync);
	while (ret && (errno == EINTR || errno == EAGAIN));
	return ret ? fail(errno, "the exporter refuses the CPU access: %s", strerror(errno)) : 0;
}

int host_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length)
{
	int ret = sync_cpu_access(buffer, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE);

	if (ret)
		return ret;
	memcpy(buffer->map + offset, data, length);
	return sync_cpu_access(buffer, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
}

int host_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length)
{
	int ret = sync_cpu_access(buffer, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);

	if (ret)
		return ret;
	memcpy(data, buffer->map + offset, length);
	return sync_cpu_access(buffer, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
}

int host_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	int ret = sync_cpu_access(buffer, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE);

	if (ret)
		return ret;
	memset(buffer->map + offset, 0, length);
	return sync_cpu_access(buffer, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);
}

int host_access(struct fdmabuf_buffer *buffer, bool begins, bool writes)
{
	return sync_cpu_access(buffer, (begins ? DMA_BUF_SYNC_START : DMA_BUF_SYNC_END) |
				       (writes ? DMA_BUF_SYNC_WRITE : DMA_BUF_SYNC_READ));
}

/* ------------------------------- device memory, which needs no cache maintenance */

static bool is_word_aligned(const volatile void *pointer)
{
	return (uintptr_t)pointer % sizeof(uint64_t) == 0;
}

/*
 * Copies in aligned words, with bytes at the ends. memcpy(3) may use unaligned and vector accesses,
 * which fail on device memory on some machines.
 */
static void copy_to_io(volatile unsigned char *to, const unsigned char *from, uint64_t length)
{
	uint64_t word;

	for (; length && !is_word_aligned(to); length--)
		*to++ = *from++;
	for (; length >= sizeof(word); length -= sizeof(word)) {
		memcpy(&word, from, sizeof(word));
		*(volatile uint64_t *)to = word;
		to += sizeof(word);
		from += sizeof(word);
	}
	while (length--)
		*to++ = *from++;
}

static void copy_from_io(unsigned char *to, const volatile unsigned char *from, uint64_t length)
{
	uint64_t word;

	for (; length && !is_word_aligned(from); length--)
		*to++ = *from++;
	for (; length >= sizeof(word); length -= sizeof(word)) {
		word = *(const volatile uint64_t *)from;
		memcpy(to, &word, sizeof(word));
		to += sizeof(word);
		from += sizeof(word);
	}
	while (length--)
		*to++ = *from++;
}

static void zero_io(volatile unsigned char *to, uint64_t length)
{
	for (; length && !is_word_aligned(to); length--)
		*to++ = 0;
	for (; length >= sizeof(uint64_t); length -= sizeof(uint64_t)) {
		*(volatile uint64_t *)to = 0;
		to += sizeof(uint64_t);
	}
	while (length--)
		*to++ = 0;
}

int io_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data, uint64_t length)
{
	copy_to_io(buffer->map + offset, data, length);
	return 0;
}

int io_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, uint64_t length)
{
	copy_from_io(data, buffer->map + offset, length);
	return 0;
}

int io_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	zero_io(buffer->map + offset, length);
	return 0;
}
