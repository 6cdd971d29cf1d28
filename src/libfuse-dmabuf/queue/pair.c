/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps the tokens of a queue, and lets those go that were used least recently. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/fork.h"
#include "queue/pair.h"

int pair_table_init(struct pair_table *table, struct ring *ring, unsigned tokens)
{
	table->ring = ring;
	pthread_cond_init(&table->some_ended, NULL);
	table->forks = fork_count();
	table->tokens_max = tokens;
	table->has_tokens = ring_has_tokens(ring);
	table->free_slots = malloc(tokens * sizeof(*table->free_slots));
	if (!table->free_slots)
		return -ENOMEM;
	while (table->free_count < tokens) {
		table->free_slots[table->free_count] = tokens - table->free_count;
		table->free_count++;
	}
	return 0;
}

void pair_set_reason(struct pair *pair, enum fdmabuf_reason reason, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(pair->reason_text, sizeof(pair->reason_text), format, arguments);
	va_end(arguments);
	pair->reason = reason;
}

int fail_denied(const struct pair *pair, enum fdmabuf_direction direction)
{
	return fail(EACCES, "%s: the broker, or the mode of the dma-buf, does not allow %s "
		    "directly", pair->file->path,
		    direction == FDMABUF_WRITE ? "writing" : "reading");
}

/* Ends the token in a slot, which is free afterwards. */
static void empty_slot(struct pair_table *table, unsigned slot)
{
	/* A child that closes a file must not end its parent's token. */
	if (table->forks == fork_count())
		ring_end_token(table->ring, slot);
	objects_lock();
	table->free_slots[table->free_count++] = slot;
	table->token_count--;
	objects_unlock();
}

/* Takes the pair from its table, file and buffer. Caller holds the lock of all objects. */
static void detach(struct pair *pair)
{
	object_unwatch(&pair->file_watch);
	object_unwatch(&pair->buffer_watch);
	*pair->link = pair->next;
	if (pair->next)
		pair->next->link = pair->link;
	pair->table->pair_count--;
}

static void free_detached(struct pair *pair)
{
	handle_put(pair->handle);
	free(pair);
}

void pair_table_destroy(struct pair_table *table)
{
	struct pair *pairs;

	if (!table->ring)	/* the queue could not be opened */
		return;
	objects_lock();
	while (table->ending_count)
		objects_wait(&table->some_ended);
	pairs = table->pairs;
	for (struct pair *pair = pairs; pair; pair = pair->next) {
		object_unwatch(&pair->file_watch);
		object_unwatch(&pair->buffer_watch);
	}
	objects_unlock();
	while (pairs) {
		struct pair *pair = pairs;

		pairs = pair->next;
		free_detached(pair);
	}
	pthread_cond_destroy(&table->some_ended);
	free(table->free_slots);
}

void pair_table_forget(struct pair_table *table)
{
	objects_lock();
	while (table->pairs) {
		struct pair *pair = table->pairs;

		table->pairs = pair->next;
		object_unwatch(&pair->file_watch);
		object_unwatch(&pair->buffer_watch);
		pair->table = NULL;
		if (!pair->users)
			free_detached(pair);
	}
	objects_unlock();
	free(table->free_slots);
}

/*
 * Frees an idle pair whose file or buffer ends, in whichever thread that is. Caller holds the lock
 * of all objects, which is released while the token ends: the kernel may be busy with another token
 * of the same ring, until the broker has answered.
 */
static void end_pair(struct pair *pair)
{
	struct pair_table *table = pair->table;

	detach(pair);
	table->ending_count++;		/* keeps the table */
	objects_unlock();
	if (pair->slot)
		empty_slot(table, pair->slot);
	free_detached(pair);
	objects_lock();
	table->ending_count--;
	/* In a child, nobody waits. */
	if (table->forks == fork_count())
		pthread_cond_broadcast(&table->some_ended);
}

static void file_ended(struct watch *watch)
{
	end_pair((struct pair *)((char *)watch - offsetof(struct pair, file_watch)));
}

static void buffer_ended(struct watch *watch)
{
	end_pair((struct pair *)((char *)watch - offsetof(struct pair, buffer_watch)));
}

/* The caller holds the lock of all objects. */
static void insert(struct pair_table *table, struct pair *pair)
{
	pair->next = table->pairs;
	pair->link = &table->pairs;
	if (pair->next)
		pair->next->link = &pair->next;
	table->pairs = pair;
}

/*
 * Detaches the pair that was used least recently, if there are as many as tokens. Returns NULL if
 * there are fewer, or if transfers use all of them. Caller holds the lock of all objects.
 */
static struct pair *detach_oldest(struct pair_table *table)
{
	struct pair *oldest = NULL;

	if (table->pair_count < table->tokens_max)
		return NULL;
	for (struct pair *pair = table->pairs; pair; pair = pair->next)
		if (!pair->users && (!oldest || pair->last_use < oldest->last_use))
			oldest = pair;
	if (oldest)
		detach(oldest);
	return oldest;
}

/* Takes over the reference to the handle. Caller holds the lock of all objects. */
static struct pair *create(struct pair_table *table, struct fdmabuf_file *file,
			   struct fdmabuf_buffer *buffer, struct fd_handle *handle)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	if (!pair)
		return NULL;
	pair->table = table;
	pair->file = file;
	pair->buffer = buffer;
	pair->handle = handle;
	pair->file_watch.ended = file_ended;
	pair->buffer_watch.ended = buffer_ended;
	object_watch(&file->object, &pair->file_watch);
	object_watch(&buffer->object, &pair->buffer_watch);
	table->pair_count++;
	insert(table, pair);
	return pair;
}

void pair_set_handle(struct pair *pair, struct fd_handle *handle)
{
	handle_put(pair->handle);
	pair->handle = handle;
	pair->is_lost = false;
	pair->token_has_ended = false;
	pair->bounce_is_plain = pair->refuses_direct_io = false;
	pair_forget_token(pair);
}

struct pair *pair_get(struct pair_table *table, struct fdmabuf_file *file,
		      struct fdmabuf_buffer *buffer)
{
	struct fd_handle *handle = file_get_handle(file);
	struct pair *pair, *oldest = NULL;

	objects_lock();
	for (pair = table->pairs; pair; pair = pair->next)
		if (pair->file == file && pair->buffer == buffer)
			break;
	if (!pair) {
		oldest = detach_oldest(table);
		pair = create(table, file, buffer, handle);
		if (pair)
			handle = NULL;
	}
	if (pair) {
		pair->users++;
		pair->last_use = ++table->clock;
		fdmabuf_file_ref(file);
		fdmabuf_buffer_ref(buffer);
	}
	objects_unlock();
	if (oldest) {
		if (oldest->slot)
			empty_slot(table, oldest->slot);
		free_detached(oldest);
	}
	/* Another queue may have found the file on a new mount meanwhile. */
	if (handle && pair && pair->users == 1 && pair->handle != handle)
		pair_set_handle(pair, handle);
	else
		handle_put(handle);
	return pair;
}

void pair_put(struct pair *pair)
{
	struct fdmabuf_file *file = pair->file;
	struct fdmabuf_buffer *buffer = pair->buffer;

	objects_lock();
	pair->users--;
	if (!pair->table && !pair->users)
		free_detached(pair);
	objects_unlock();
	/* Either may be the last reference, which frees the pair. */
	fdmabuf_buffer_free(buffer);
	fdmabuf_file_close(file);
}

/* ------------------------------------------------------------------ tokens */

/* Sets the pair's reason from @error (a positive errno) of a registration. */
static void set_registration_reason(struct pair *pair, int error)
{
	bool is_fuse = pair->handle->is_fuse;

	switch (error) {
	case EOPNOTSUPP:
		pair_set_reason(pair, FDMABUF_REASON_UNSUPPORTED,
				"%s has no dma-buf tokens for this file",
				is_fuse ? "the FUSE server or its backing filesystem" :
					  "the filesystem or its device");
		break;
	case ESTALE:
		pair_set_reason(pair, FDMABUF_REASON_REVOKED,
				"the new token was revoked at once");
		break;
	case EUSERS:
		pair_set_reason(pair, FDMABUF_REASON_FAILED,
				"the user has as many dma-buf tokens as the sysctl "
				"user.max_dmabuf_tokens allows");
		break;
	case EACCES:
	case EPERM:
	case EDQUOT:
	case ENOSPC:
	case ETIMEDOUT:
		if (is_fuse) {
			pair_set_reason(pair, FDMABUF_REASON_REFUSED, "broker refused: %s",
					strerror(error));
			break;
		}
		/* fall through */
	default:
		pair_set_reason(pair, FDMABUF_REASON_FAILED, "registration failed: %s",
				strerror(error));
	}
}

/* Returns the slot of the token, or 0 for none. What the token denied, the next may allow. */
static unsigned take_away_slot(struct pair *pair)
{
	unsigned slot = pair->slot;

	pair->slot = 0;
	pair->is_denied[FDMABUF_READ] = pair->is_denied[FDMABUF_WRITE] = false;
	return slot;
}

/*
 * Makes room for another token by ending the one that was used least recently, of those without
 * requests in flight. Returns -EBUSY if others have some, and -ENOSPC if there is no other token.
 */
static int give_up_a_token(const struct pair *keep)
{
	struct pair_table *table = keep->table;
	struct pair *oldest = NULL;
	bool is_busy = false, has_waited = false;
	unsigned slot = 0;

	objects_lock();
	for (; table->ending_count; has_waited = true)
		objects_wait(&table->some_ended);
	for (struct pair *pair = has_waited ? NULL : table->pairs; pair; pair = pair->next) {
		if (pair == keep || !pair->slot)
			continue;
		if (pair->in_flight)
			is_busy = true;
		else if (!oldest || pair->last_use < oldest->last_use)
			oldest = pair;
	}
	if (oldest)
		slot = take_away_slot(oldest);
	objects_unlock();
	if (slot)
		empty_slot(table, slot);
	else if (!has_waited)
		return is_busy ? -EBUSY : -ENOSPC;
	return 0;
}

static bool take_free_slot(struct pair *pair)
{
	struct pair_table *table = pair->table;

	objects_lock();		/* another thread may end an idle pair */
	if (table->free_count) {
		pair->slot = table->free_slots[--table->free_count];
		table->token_count++;
	}
	objects_unlock();
	return pair->slot;
}

static int take_slot(struct pair *pair)
{
	while (!take_free_slot(pair)) {
		int ret = give_up_a_token(pair);

		if (ret)
			return ret;
	}
	return 0;
}

/* Returns true for errors that mean that somebody has too many tokens. */
static bool is_limit(int error)
{
	return error == EDQUOT || error == EUSERS || error == ENOSPC;
}

static int register_token(struct pair *pair)
{
	int ret = take_slot(pair);

	if (ret)
		return ret;
	for (;;) {
		int given_up;

		ret = ring_register_token(pair->table->ring, pair->slot, pair->buffer->dmabuf_fd,
					  pair->handle->fd);
		if (!ret || !is_limit(-ret))
			break;
		given_up = give_up_a_token(pair);
		if (given_up == -EBUSY)
			ret = -EBUSY;
		if (given_up)
			break;
	}
	if (!ret) {
		pair->serial++;
		pair->table->registrations++;
		pair_set_reason(pair, FDMABUF_REASON_NONE, "%s", "");
		return 0;
	}
	pair_forget_token(pair);
	if (ret != -EBUSY)
		set_registration_reason(pair, -ret);
	return ret;
}

int pair_need_token(struct pair *pair)
{
	const struct pair_table *table = pair->table;

	if (pair->slot)
		return 0;
	if (table->wanted_path == FDMABUF_BOUNCE)
		pair_set_reason(pair, FDMABUF_REASON_ASKED, "bounce was asked for");
	else if (pair->buffer->dmabuf_fd < 0)
		pair_set_reason(pair, FDMABUF_REASON_NO_DMABUF, "%s",
				*pair->buffer->no_dmabuf_reason ?
				pair->buffer->no_dmabuf_reason :
				"the buffer is ordinary memory, not a dma-buf");
	else if (!pair->handle->is_direct)
		pair_set_reason(pair, FDMABUF_REASON_NOT_DIRECT, "file is not O_DIRECT capable");
	else if (table->no_ring_reason)
		pair_set_reason(pair, FDMABUF_REASON_NO_RING, "io_uring is not available: %s",
				strerror(table->no_ring_reason));
	else if (!table->has_tokens)
		pair_set_reason(pair, FDMABUF_REASON_KERNEL, "kernel has no dma-buf tokens");
	else
		return register_token(pair);
	return -EOPNOTSUPP;
}

void pair_forget_token(struct pair *pair)
{
	unsigned slot = take_away_slot(pair);

	if (slot)
		empty_slot(pair->table, slot);
}

bool pair_has_direct_io(const struct pair *pair)
{
	const unsigned char *map = pair->buffer->map;

	return pair->table->wanted_path == FDMABUF_AUTO && pair->buffer->has_pages && map &&
	       pair->handle->is_direct && !pair->refuses_direct_io &&
	       (uintptr_t)map % pair->file->block_size == 0;
}

void pair_switch_to_bounce(struct pair *pair)
{
	pair_forget_token(pair);
	pair->is_bounce = true;
}

bool pair_has_room(const struct pair *pair)
{
	bool has_room;

	objects_lock();
	has_room = pair->slot || pair->table->free_count;
	objects_unlock();
	return has_room;
}

unsigned pair_table_count_tokens(const struct pair_table *table)
{
	unsigned count;

	objects_lock();
	count = table->token_count;
	objects_unlock();
	return count;
}
