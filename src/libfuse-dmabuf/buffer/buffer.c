/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers: finds the exporter, counts references and checks ranges. */
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "base/error.h"
#include "base/structs.h"
#include "buffer/exporter.h"

static const struct exporter *const exporters[] = {
	&exporter_udmabuf,
	&exporter_heap,
	&exporter_drm,
	&exporter_vfio,
	&exporter_cuda,
	&exporter_hip,
	&exporter_memory,
};

static const struct exporter *find_exporter(const char *what, const char **argument)
{
	for (size_t i = 0; i < sizeof(exporters) / sizeof(*exporters); i++) {
		size_t length = strlen(exporters[i]->name);

		if (strncmp(what, exporters[i]->name, length))
			continue;
		if (what[length] == '\0' || what[length] == ':') {
			*argument = what[length] ? what + length + 1 : NULL;
			return exporters[i];
		}
	}
	return NULL;
}

static struct fdmabuf_buffer *new_buffer(const struct exporter *exporter)
{
	struct fdmabuf_buffer *buffer = calloc(1, sizeof(*buffer));

	if (!buffer)
		return NULL;
	object_init(&buffer->object);
	buffer->exporter = exporter;
	buffer->dmabuf_fd = -1;
	buffer->numa_node = -1;
	return buffer;
}

/* Refuses what the exporter would ignore. */
static int check_options(const struct exporter *exporter, const struct fdmabuf_memory *memory)
{
	const char *name = exporter->name;

	if (memory->bytes > INT64_MAX - (uint64_t)getpagesize())
		return fail(EINVAL, "%s: no buffer can be that large", name);
	if (!memory->bytes && !(exporter->options & OPTION_SIZE_MISSING))
		return fail(EINVAL, "%s: give a size", name);
	if (memory->device && !(exporter->options & OPTION_DEVICE))
		return fail(EINVAL, "%s takes no device", name);
	if (memory->number && !(exporter->options & OPTION_NUMBER))
		return fail(EINVAL, "%s takes no number of a device", name);
	if (memory->page_size && !(exporter->options & OPTION_PAGE_SIZE))
		return fail(EINVAL, "%s takes no page size", name);
	return 0;
}

static int allocate(const struct exporter *exporter, struct fdmabuf_memory *memory,
		    struct fdmabuf_buffer **result)
{
	int ret = check_options(exporter, memory);
	struct fdmabuf_buffer *buffer;

	if (ret)
		return ret;
	buffer = new_buffer(exporter);
	if (!buffer)
		return fail(ENOMEM, "%s: out of memory", exporter->name);
	memory->bytes = align_up(memory->bytes, getpagesize());
	ret = exporter->allocate(buffer, memory);
	if (ret) {
		fdmabuf_buffer_free(buffer);
		return ret;
	}
	*result = buffer;
	return 0;
}

static const struct exporter *exporter_of(enum fdmabuf_exporter number)
{
	for (size_t i = 0; i < sizeof(exporters) / sizeof(*exporters); i++)
		if (exporters[i]->number == number)
			return exporters[i];
	return NULL;
}

int fdmabuf_buffer_create(const struct fdmabuf_memory *callers, struct fdmabuf_buffer **result)
{
	struct fdmabuf_memory memory;
	const struct exporter *exporter;
	int ret = copy_struct_from_caller(&memory, sizeof(memory), callers);

	if (ret)
		return ret;
	exporter = exporter_of(memory.exporter);
	if (!exporter)
		return fail(EINVAL, "exporter %d cannot allocate memory", (int)memory.exporter);
	return allocate(exporter, &memory, result);
}

int fdmabuf_buffer_allocate(const char *what, uint64_t size, struct fdmabuf_buffer **result)
{
	struct fdmabuf_memory memory = { .size = sizeof(memory), .bytes = size };
	const char *argument;
	const struct exporter *exporter = find_exporter(what, &argument);
	int ret = 0;

	if (!exporter)
		return fail(EINVAL, "%s: no such exporter: use memory, udmabuf, heap, drm, "
			    "vfio:DOMAIN:BUS:DEV.FN, cuda[:DEVICE] or hip[:DEVICE]", what);
	memory.exporter = exporter->number;
	if (argument)
		ret = exporter->parse(argument, &memory);
	return ret ? ret : allocate(exporter, &memory, result);
}

int fdmabuf_buffer_import_address(enum fdmabuf_exporter number, uint64_t address, uint64_t size,
				  struct fdmabuf_buffer **result)
{
	const struct exporter *exporter = exporter_of(number);
	struct fdmabuf_buffer *buffer;
	int ret;

	if (!exporter || !exporter->import_address)
		return fail(EINVAL, "%s: memory cannot be imported by its address",
			    exporter ? exporter->name : "no such exporter");
	if (!size || address > UINT64_MAX - size)
		return fail(EINVAL, "%s: %llu bytes at %#llx are no memory", exporter->name,
			    (unsigned long long)size, (unsigned long long)address);
	buffer = new_buffer(exporter);
	if (!buffer)
		return fail(ENOMEM, "%s: out of memory", exporter->name);
	buffer->is_callers = true;
	ret = exporter->import_address(buffer, address, size);
	if (ret) {
		fdmabuf_buffer_free(buffer);
		return ret;
	}
	*result = buffer;
	return 0;
}

int fdmabuf_exporters(fdmabuf_exporter_function *function, void *data)
{
	for (size_t i = 0; i < sizeof(exporters) / sizeof(*exporters); i++) {
		const struct exporter_report report = { exporters[i], function, data };
		int ret = exporters[i]->list ? exporters[i]->list(&report) : 0;

		if (ret)
			return ret;
	}
	return 0;
}

/* The flags are invalid on purpose: a dma-buf answers EINVAL, other files do not know the ioctl. */
static bool is_dmabuf(int fd)
{
	struct dma_buf_sync sync = { .flags = ~(uint64_t)DMA_BUF_SYNC_VALID_FLAGS_MASK };

	return ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync) == -1 && errno == EINVAL;
}

int fdmabuf_buffer_import(int dmabuf_fd, struct fdmabuf_buffer **result)
{
	struct fdmabuf_buffer *buffer;
	off_t size;

	if (!is_dmabuf(dmabuf_fd))
		return fail(EINVAL, "descriptor %d is not a dma-buf", dmabuf_fd);
	size = lseek(dmabuf_fd, 0, SEEK_END);
	if (size <= 0)
		return fail(EINVAL, "the size of the dma-buf on descriptor %d cannot be found",
			    dmabuf_fd);
	buffer = new_buffer(&exporter_import);
	if (!buffer)
		return fail(ENOMEM, "out of memory");
	buffer->size = size;
	buffer->dmabuf_fd = fcntl(dmabuf_fd, F_DUPFD_CLOEXEC, 3);
	if (buffer->dmabuf_fd < 0) {
		int error = errno;

		fdmabuf_buffer_free(buffer);
		return fail(error, "the dma-buf's descriptor cannot be duplicated: %s",
			    strerror(error));
	}
	*result = buffer;
	return 0;
}

struct fdmabuf_buffer *fdmabuf_buffer_ref(struct fdmabuf_buffer *buffer)
{
	object_get(&buffer->object);
	return buffer;
}

void fdmabuf_buffer_free(struct fdmabuf_buffer *buffer)
{
	if (!buffer || !object_put(&buffer->object))
		return;
	buffer->exporter->release(buffer);
	free(buffer);
}

uint64_t fdmabuf_buffer_size(const struct fdmabuf_buffer *buffer)
{
	return buffer->size;
}

int fdmabuf_buffer_fd(const struct fdmabuf_buffer *buffer)
{
	return buffer->dmabuf_fd;
}

uint64_t fdmabuf_buffer_device_address(const struct fdmabuf_buffer *buffer)
{
	return buffer->address;
}

const char *fdmabuf_buffer_exporter(const struct fdmabuf_buffer *buffer)
{
	return buffer->exporter->name;
}

int buffer_prepare_copy(struct fdmabuf_buffer *buffer)
{
	if (!buffer->exporter->map || buffer->map)
		return 0;
	return buffer->exporter->map(buffer);
}

int buffer_check_range(const struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	if (length > buffer->size || offset > buffer->size - length)
		return fail(EFAULT,
			    "%llu bytes at offset %llu are outside the buffer of %llu bytes",
			    (unsigned long long)length, (unsigned long long)offset,
			    (unsigned long long)buffer->size);
	return 0;
}

static int prepare_range(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	int ret = buffer_check_range(buffer, offset, length);

	return ret ? ret : buffer_prepare_copy(buffer);
}

int fdmabuf_buffer_write(struct fdmabuf_buffer *buffer, uint64_t offset, const void *data,
			 size_t length)
{
	int ret = prepare_range(buffer, offset, length);

	return ret || !length ? ret : buffer->exporter->write(buffer, offset, data, length);
}

int fdmabuf_buffer_read(struct fdmabuf_buffer *buffer, uint64_t offset, void *data, size_t length)
{
	int ret = prepare_range(buffer, offset, length);

	return ret || !length ? ret : buffer->exporter->read(buffer, offset, data, length);
}

int fdmabuf_buffer_zero(struct fdmabuf_buffer *buffer, uint64_t offset, uint64_t length)
{
	int ret = prepare_range(buffer, offset, length);

	return ret || !length ? ret : buffer->exporter->zero(buffer, offset, length);
}

struct host_pin *buffer_pin_host(struct fdmabuf_buffer *buffer, void *memory, size_t length)
{
	if (!buffer->exporter->pin_host)
		return NULL;
	return buffer->exporter->pin_host(buffer, memory, length);
}

void buffer_unpin_host(struct host_pin *pin)
{
	if (pin)
		pin->release(pin);
}

int buffer_begin_access(struct fdmabuf_buffer *buffer, bool writes)
{
	if (!buffer->has_pages || !buffer->exporter->access)
		return 0;
	return buffer->exporter->access(buffer, true, writes);
}

int buffer_end_access(struct fdmabuf_buffer *buffer, bool writes)
{
	if (!buffer->has_pages || !buffer->exporter->access)
		return 0;
	return buffer->exporter->access(buffer, false, writes);
}

int buffer_flush(struct fdmabuf_buffer *buffer)
{
	return buffer->exporter->flush ? buffer->exporter->flush(buffer) : 0;
}
