/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finds what the page cache has of a file, without starting reads of the rest, and reads it. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "file/file.h"

/* Linux 6.5 and later; headers of distributions lag behind. The number is that of all machines. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

/*
 * In bytes. A part of this size that is cached only in part counts as not cached: two more requests
 * would cost more than reading so few bytes again.
 */
#define GRANULE (64u << 10)
/* In bytes: the most that one look is for. Copies of this size keep several threads busy. */
#define WINDOW (4u << 20)

/* What is known of mincore(2) on a file. */
enum { MINCORE_UNKNOWN, MINCORE_HONEST, MINCORE_LIES };

/* The kernel's struct cachestat_range and struct cachestat. */
struct cachestat_range {
	uint64_t offset, length;
};

struct cachestat {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;	/* pages */
};

/* Returns the number of pages that the range touches. */
static uint64_t count_pages(uint64_t from, uint64_t to)
{
	uint64_t page = getpagesize();

	return (align_up(to, page) - align_down(from, page)) / page;
}

/* Returns how many of these pages are in memory, by mincore(2), or -1 without an answer. */
static int64_t count_resident(const struct fd_handle *handle, uint64_t from, uint64_t to)
{
	uint64_t start = align_down(from, getpagesize());
	size_t pages = count_pages(from, to), length = pages * getpagesize();
	unsigned char *resident = malloc(pages);
	void *map = mmap(NULL, length, PROT_READ, MAP_SHARED, handle->plain_fd, start);
	int64_t count = -1;

	if (resident && map != MAP_FAILED && !mincore(map, length, resident)) {
		count = 0;
		for (size_t i = 0; i < pages; i++)
			count += resident[i] & 1;
	}
	if (map != MAP_FAILED)
		munmap(map, length);
	free(resident);
	return count;
}

/*
 * Returns false if mincore(2) says of all pages that they are in memory, as it does to callers who
 * neither own the file nor may write to it: then it says so of a page after the end as well.
 */
static bool is_mincore_honest(struct fd_handle *handle)
{
	int verdict = atomic_load_explicit(&handle->mincore_verdict, memory_order_relaxed);
	struct file_version version;

	if (verdict == MINCORE_UNKNOWN) {
		verdict = MINCORE_LIES;
		if (handle_get_version(handle, &version)) {
			uint64_t end = align_up(version.size, getpagesize());

			if (!count_resident(handle, end, end + getpagesize()))
				verdict = MINCORE_HONEST;
		}
		atomic_store_explicit(&handle->mincore_verdict, verdict, memory_order_relaxed);
	}
	return verdict == MINCORE_HONEST;
}

/*
 * Looks for one byte, at a place that no earlier look has chosen: if the page is not there, the
 * kernel reads this page alone, and the next look must not find what this one has brought.
 */
static bool has_page(const struct fd_handle *handle, uint64_t from, uint64_t to)
{
	struct timespec now;
	unsigned char byte;
	struct iovec piece = { &byte, 1 };
	uint64_t place;

	clock_gettime(CLOCK_MONOTONIC, &now);
	place = from + (now.tv_nsec * 0x9e3779b97f4a7c15ull >> 20) % (to - from);
	return preadv2(handle->plain_fd, &piece, 1, place, RWF_NOWAIT) == 1;
}

/*
 * Returns how many pages of the range are in the page cache, or fewer if the kernel does not tell.
 * The kernel tells only callers who own the file or may write to it; for others two pages stand
 * for all.
 */
static uint64_t count_cached(struct fd_handle *handle, uint64_t from, uint64_t to)
{
	struct cachestat_range range = { from, to - from };
	struct cachestat found;
	bool is_known = !syscall(SYS_cachestat, handle->plain_fd, &range, &found, 0);
	int64_t resident;

	if (is_known && (found.cached || !handle->is_fuse))
		return found.cached;
	/* Pages that passthrough reads belong to the backing file, and so does a mapping. */
	if (is_mincore_honest(handle)) {
		resident = count_resident(handle, from, min_u64(to, from + WINDOW));
		return resident < 0 ? 0 : resident;
	}
	if (is_known || !has_page(handle, from, to) || !has_page(handle, from, to))
		return 0;
	return count_pages(from, to);
}

static bool is_whole(struct fd_handle *handle, uint64_t from, uint64_t to)
{
	return count_cached(handle, from, to) >= count_pages(from, to);
}

bool handle_find_cached(struct fd_handle *handle, uint64_t from, uint64_t to, uint64_t *end)
{
	uint64_t granule = max_u64(GRANULE, handle->block_size);
	uint64_t window = min_u64(to, align_down(from + WINDOW, granule)), at, next;
	bool is_cached;

	*end = to;
	if (!count_cached(handle, from, to))
		return false;
	*end = window;
	if (is_whole(handle, from, window))
		return true;
	at = min_u64(window, align_down(from, granule) + granule);
	is_cached = is_whole(handle, from, at);
	for (; at < window; at = next) {
		next = min_u64(window, at + granule);
		if (is_whole(handle, at, next) != is_cached)
			break;
	}
	*end = at;
	return is_cached;
}

/* Takes the first @bytes from a vector. */
static void skip_pieces(struct iovec **pieces, unsigned *count, size_t bytes)
{
	while (*count && bytes >= (*pieces)->iov_len) {
		bytes -= (*pieces)->iov_len;
		(*pieces)++;
		(*count)--;
	}
	if (*count) {
		(*pieces)->iov_base = (char *)(*pieces)->iov_base + bytes;
		(*pieces)->iov_len -= bytes;
	}
}

uint64_t handle_read_cached(const struct fd_handle *handle, struct iovec *pieces, unsigned count,
			    uint64_t offset)
{
	int flags = RWF_NOWAIT;
	uint64_t done = 0;

	/* Read again after a short read: the kernel stops where it once read ahead. */
	while (count) {
		ssize_t got = preadv2(handle->plain_fd, pieces, count, offset + done, flags);

		if (got < 0 && errno == EOPNOTSUPP && flags)
			flags = 0;	/* FUSE does not know RWF_NOWAIT */
		else if (got <= 0 && !(got < 0 && errno == EINTR))
			break;
		else if (got > 0) {
			done += got;
			skip_pieces(&pieces, &count, got);
		}
	}
	return done;
}
