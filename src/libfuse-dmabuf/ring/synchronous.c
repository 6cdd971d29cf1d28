/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Carries commands out one after the other, when their completions are asked for. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ring/synchronous.h"

struct entry {
	struct ring_command command;
	void *tag;
};

struct synchronous {
	int event_fd;
	bool is_readable;		/* event_fd */
	unsigned depth, first, count;	/* a circular array */
	struct entry entries[];
};

struct synchronous *synchronous_open(unsigned depth)
{
	struct synchronous *synchronous =
		calloc(1, sizeof(*synchronous) + depth * sizeof(*synchronous->entries));

	if (!synchronous)
		return NULL;
	synchronous->depth = depth;
	synchronous->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (synchronous->event_fd < 0) {
		int error = errno;

		free(synchronous);
		errno = error;
		return NULL;
	}
	return synchronous;
}

void synchronous_close(struct synchronous *synchronous)
{
	close(synchronous->event_fd);
	free(synchronous);
}

void synchronous_queue(struct synchronous *synchronous, const struct ring_command *command,
		       void *tag)
{
	unsigned last = (synchronous->first + synchronous->count++) % synchronous->depth;

	synchronous->entries[last] = (struct entry){ *command, tag };
	if (!synchronous->is_readable)
		eventfd_write(synchronous->event_fd, 1);
	synchronous->is_readable = true;
}

static int carry_out(const struct ring_command *command)
{
	const struct iovec *pieces = command->pieces;
	ssize_t ret;

	do
		ret = command->kind == RING_SYNC ? fdatasync(command->fd) :
		      command->kind == RING_WRITE ?
		      pwritev(command->fd, pieces, command->count, command->file_offset) :
		      preadv(command->fd, pieces, command->count, command->file_offset);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : ret;
}

bool synchronous_next(struct synchronous *synchronous, void **tag, int *result)
{
	struct entry *entry = &synchronous->entries[synchronous->first];
	eventfd_t ignored;

	if (!synchronous->count) {
		if (synchronous->is_readable)
			eventfd_read(synchronous->event_fd, &ignored);
		synchronous->is_readable = false;
		return false;
	}
	*tag = entry->tag;
	*result = carry_out(&entry->command);
	synchronous->first = (synchronous->first + 1) % synchronous->depth;
	synchronous->count--;
	return true;
}

int synchronous_wait(const struct synchronous *synchronous, int timeout, int fd)
{
	struct pollfd other = { .fd = fd, .events = POLLIN };

	if (synchronous->count || fd < 0 || poll(&other, 1, timeout) >= 0)
		return 0;
	return errno == EINTR ? -EINTR : 0;
}

int synchronous_fd(const struct synchronous *synchronous)
{
	return synchronous->event_fd;
}
