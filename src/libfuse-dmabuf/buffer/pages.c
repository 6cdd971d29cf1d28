/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Huge pages of host memory, and the amount of memory that is available. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "buffer/pages.h"

#define HUGE_PAGES "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB"
#define SHARED_HUGE_PAGES "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define TEXT_SIZE 32	/* bytes; for the size of a page, such as "16G" */

static const char *page_size_text(uint64_t size, char text[TEXT_SIZE])
{
	static const char units[] = "KMGT";
	const char *unit = units;

	for (size >>= 10; size % 1024 == 0 && unit[1]; size >>= 10)
		unit++;
	snprintf(text, TEXT_SIZE, "%" PRIu64 "%c", size, *unit);
	return text;
}

/* Returns the power of 1024 that the letter stands for, or -1. */
static int unit_power(char letter)
{
	static const char units[] = "KMGT";
	const char *unit = letter ? strchr(units, letter) : NULL;

	return unit ? (int)(unit - units) + 1 : -1;
}

int parse_page_size(const char *argument, struct fdmabuf_memory *memory)
{
	char *end;
	uint64_t number = *argument >= '1' && *argument <= '9' ? strtoull(argument, &end, 10) : 0;
	int power = number && *end ? unit_power(*end) : -1;

	/* Five digits are enough for any page, and cannot overflow. */
	if (power < 0 || end - argument > 5 || end[1])
		return fail(EINVAL, "\"%s\" is not the size of a huge page: write for example 2M "
			    "or 1G: \"ls /sys/kernel/mm/hugepages\" lists the sizes", argument);
	memory->page_size = number << 10 * power;
	return 0;
}

/* Returns a number of a file in the directory of huge pages of this size, or 0. */
static uint64_t read_count(uint64_t page_size, const char *file)
{
	char path[PATH_MAX];
	uint64_t count = 0;
	FILE *stream;

	snprintf(path, sizeof(path), HUGE_PAGES "/%s", page_size >> 10, file);
	stream = fopen(path, "re");
	if (!stream)
		return 0;
	if (fscanf(stream, "%" SCNu64, &count) != 1)
		count = 0;
	fclose(stream);
	return count;
}

/* Returns the number of huge pages that are free, and not promised to a mapping. */
static uint64_t free_pages(uint64_t page_size)
{
	uint64_t free = read_count(page_size, "free_hugepages");
	uint64_t promised = read_count(page_size, "resv_hugepages");

	return free > promised ? free - promised : 0;
}

static int check_page_size(const char *exporter, uint64_t page_size)
{
	char path[PATH_MAX], text[TEXT_SIZE];

	if (page_size < (uint64_t)getpagesize() || page_size & (page_size - 1))
		return fail(EINVAL, "%s: no page has %" PRIu64 " bytes", exporter, page_size);
	snprintf(path, sizeof(path), HUGE_PAGES, page_size >> 10);
	if (page_size != (uint64_t)getpagesize() && access(path, F_OK))
		return fail(EOPNOTSUPP, "%s: this machine has no huge pages of %s: \"ls "
			    "/sys/kernel/mm/hugepages\" lists the sizes that it has (kernel option "
			    "CONFIG_HUGETLBFS)", exporter, page_size_text(page_size, text));
	return 0;
}

int choose_pages(const char *exporter, const struct fdmabuf_memory *memory, uint64_t *size,
		 unsigned *flags)
{
	uint64_t page_size = memory->page_size ? memory->page_size : (uint64_t)getpagesize();
	int ret = check_page_size(exporter, page_size);

	if (ret)
		return ret;
	*size = align_up(memory->bytes, page_size);
	*flags = 0;
	if (page_size != (uint64_t)getpagesize())
		*flags = (unsigned)__builtin_ctzll(page_size) << MAP_HUGE_SHIFT;
	return 0;
}

int pages_error(const char *exporter, const struct fdmabuf_memory *memory, uint64_t size,
		int error)
{
	uint64_t page_size = memory->page_size, wanted, free;
	char text[TEXT_SIZE];

	if (page_size <= (uint64_t)getpagesize())
		return fail(error, "%s: %" PRIu64 " MiB: %s", exporter,
			    align_up(size, 1 << 20) >> 20, strerror(error));
	page_size_text(page_size, text);
	wanted = size / page_size;
	free = free_pages(page_size);
	if (error != ENOMEM || free >= wanted)
		return fail(error, "%s: %" PRIu64 " huge pages of %s: %s", exporter, wanted, text,
			    strerror(error));
	return fail(ENOSPC, "%s: %" PRIu64 " huge pages of %s are needed, %" PRIu64 " are free: "
		    "reserve them with \"echo %" PRIu64 " > " HUGE_PAGES "/nr_hugepages\"",
		    exporter, wanted, text, free,
		    read_count(page_size, "nr_hugepages") + wanted - free, page_size >> 10);
}

uint64_t available_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	uint64_t kib = 0;
	char line[128];

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			break;
	fclose(file);
	return kib << 10;
}

bool shared_memory_needs_advice(void)
{
	FILE *file = fopen(SHARED_HUGE_PAGES, "re");
	char line[128];
	bool needs;

	if (!file)
		return false;
	needs = fgets(line, sizeof(line), file) && strstr(line, "[advise]");
	fclose(file);
	return needs;
}

int report_huge_pages(const struct exporter_report *report, bool has_dmabuf)
{
	char what[TEXT_SIZE * 2], text[TEXT_SIZE];
	uint64_t page_size = getpagesize();
	int ret = 0;

	while (!ret && page_size <= UINT64_MAX / 2) {
		page_size *= 2;
		if (!read_count(page_size, "nr_hugepages"))
			continue;
		snprintf(what, sizeof(what), "%s:%s", report->exporter->name,
			 page_size_text(page_size, text));
		ret = report_exporter(report, (struct fdmabuf_exporter_info){
			.what = what,
			.bytes = free_pages(page_size) * page_size,
			.has_dmabuf = has_dmabuf,
		});
	}
	return ret;
}
