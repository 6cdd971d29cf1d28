/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks operations, and gets the files, buffers and tokens that they need. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "queue/extents.h"
#include "queue/plan.h"
#include "queue/proof.h"
#include "queue/shared-blocks.h"

/* ------------------------------------------------------------------- order */

/* Orders by file and buffer, in any order of these, and by offset in the file. */
static int compare_ranges(const struct fdmabuf_range *a, const struct fdmabuf_range *b)
{
	if (a->file != b->file)
		return (uintptr_t)a->file < (uintptr_t)b->file ? -1 : 1;
	if (a->buffer != b->buffer)
		return (uintptr_t)a->buffer < (uintptr_t)b->buffer ? -1 : 1;
	if (a->file_offset != b->file_offset)
		return a->file_offset < b->file_offset ? -1 : 1;
	return 0;
}

static int compare_indices(const void *a, const void *b, void *ranges)
{
	size_t first = *(const size_t *)a, second = *(const size_t *)b;
	int order = compare_ranges((const struct fdmabuf_range *)ranges + first,
				   (const struct fdmabuf_range *)ranges + second);

	return order ? order : first < second ? -1 : 1;
}

static int put_in_order(struct fdmabuf_transfer *t)
{
	size_t i = 1;

	while (i < t->count && compare_ranges(&t->ranges[i - 1], &t->ranges[i]) <= 0)
		i++;
	if (i >= t->count)
		return 0;
	t->order = malloc(t->count * sizeof(*t->order));
	if (!t->order)
		return fail(ENOMEM, "out of memory");
	for (i = 0; i < t->count; i++)
		t->order[i] = i;
	qsort_r(t->order, t->count, sizeof(*t->order), compare_indices, t->ranges);
	return 0;
}

/* -------------------------------------------------------------------- uses */

static int check_access(const struct fdmabuf_transfer *t, const struct fdmabuf_file *file)
{
	if (t->direction == FDMABUF_READ ? file_is_readable(file) : file_is_writable(file))
		return 0;
	return fail(EBADF, "%s: the file is not open for %s", file->path,
		    t->direction == FDMABUF_READ ? "reading" : "writing");
}

static int check_block_size(const struct fdmabuf_queue *queue, const struct fdmabuf_file *file)
{
	if (queue->host_chunk % file->block_size == 0)
		return 0;
	return fail(EINVAL, "%s: chunk %u is not a multiple of the file's block size of %u",
		    file->path, queue->chunk, file->block_size);
}

/*
 * Notes the version of the file. Uses of one file, which are neighbours, share what one look has
 * found.
 */
static void note_version(struct fdmabuf_transfer *t, struct use *use)
{
	const struct use *before = use > t->uses ? use - 1 : NULL;

	if (before && before->handle == use->handle) {
		use->has_version = before->has_version;
		use->version = before->version;
		return;
	}
	use->has_version = handle_get_version(use->handle, &use->version);
	if (use->has_version)
		file_note_size(use->pair->file, use->version.size);
}

static int add_use(struct fdmabuf_transfer *t, const struct fdmabuf_range *range)
{
	struct use *use = &t->uses[t->use_count];
	int ret = check_access(t, range->file);

	if (!ret)
		ret = check_block_size(t->queue, range->file);
	if (ret)
		return ret;
	use->pair = pair_get(&t->queue->pairs, range->file, range->buffer);
	if (!use->pair)
		return fail(ENOMEM, "out of memory");
	t->use_count++;
	use->handle = use->pair->handle;
	if (!use->pair->evidence[t->direction])
		use->pair->evidence[t->direction] = evidence_get(use->handle, range->buffer,
								 t->direction);
	use->block_size = range->file->block_size;
	use->buffer_size = range->buffer->size;
	use->eof = UINT64_MAX;
	note_version(t, use);
	return 0;
}

static int add_uses(struct fdmabuf_transfer *t)
{
	size_t count = 0;

	for (size_t i = 0; i < t->count; i++)
		count += !i || !is_same_pair(range_at(t, i - 1), range_at(t, i));
	t->uses = calloc(count ? count : 1, sizeof(*t->uses));
	if (!t->uses)
		return fail(ENOMEM, "out of memory");
	for (size_t i = 0; i < t->count; i++) {
		int ret = i && is_same_pair(range_at(t, i - 1), range_at(t, i)) ?
			  0 : add_use(t, range_at(t, i));

		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Cuts a range that is read at the end of the file. If the size is not known, because the server
 * has ended, the end is found when the file is read.
 */
static int check_range(struct fdmabuf_transfer *t, const struct use *use,
		       struct fdmabuf_range *range)
{
	uint64_t size = use->version.size;

	if (t->direction == FDMABUF_READ && use->has_version)
		range->length = range->file_offset < size ?
				min_u64(range->length, size - range->file_offset) : 0;
	if (!range->length)
		return 0;
	if (range->length > INT64_MAX || range->file_offset > INT64_MAX - range->length)
		return fail(EINVAL, "%s: %llu bytes at offset %llu are beyond the end of any file",
			    range->file->path, (unsigned long long)range->length,
			    (unsigned long long)range->file_offset);
	if (!buffer_check_range(range->buffer, range->buffer_offset, range->length))
		return 0;
	return fail(EFAULT, "%s: %llu bytes at offset %llu do not fit into the buffer of %llu "
		    "bytes", range->file->path, (unsigned long long)range->length,
		    (unsigned long long)range->buffer_offset,
		    (unsigned long long)range->buffer->size);
}

static int check_ranges(struct fdmabuf_transfer *t)
{
	const struct use *use = t->uses;

	for (size_t i = 0; i < t->count; i++) {
		struct fdmabuf_range *range = range_at(t, i);
		int ret;

		if (i && !is_same_pair(range_at(t, i - 1), range))
			use++;
		ret = check_range(t, use, range);
		if (ret)
			return ret;
		t->done[range_index(t, i)] = range->length;
		t->use_of[range_index(t, i)] = use - t->uses;
	}
	return 0;
}

/* -------------------------------------------------------------------- path */

static int fail_neither_path(const struct pair *pair, int ret)
{
	char bounce_error[REASON_TEXT_SIZE];

	snprintf(bounce_error, sizeof(bounce_error), "%s", fdmabuf_error());
	return fail(-ret, "%s: neither path is possible; direct: %s; bounce: %s", pair->file->path,
		    pair->reason_text, bounce_error);
}

/* Makes the token of a use, or switches the pair to bounce. */
static int choose_path(struct fdmabuf_queue *queue, struct pair *pair,
		       enum fdmabuf_direction direction)
{
	int ret;

	if (pair->is_bounce || pair->is_lost)
		return 0;
	/* Another transfer ended before it asked for a new token: this does not count as asking. */
	if (pair->token_has_ended && pair->users == 1) {
		pair->token_has_ended = false;
		pair_forget_token(pair);
	}
	if (pair->is_denied[direction] && queue->wanted_path == FDMABUF_DIRECT && !pair->in_flight)
		pair_forget_token(pair);	/* the policy may have changed */
	if (pair->is_denied[direction])
		return queue->wanted_path == FDMABUF_DIRECT ? fail_denied(pair, direction) :
							      buffer_prepare_copy(pair->buffer);
	if (pair_is_disproved(pair, direction))
		return queue->wanted_path == FDMABUF_DIRECT ? proof_fail(pair, direction) :
							      buffer_prepare_copy(pair->buffer);
	/* With more pairs than tokens, one after the other gets its token when it is its turn. */
	if (!pair_has_room(pair))
		return 0;
	ret = pair_need_token(pair);
	if (!ret || ret == -EBUSY)
		return 0;
	/*
	 * Only where the server was asked: another question would wait for a server that is busy.
	 */
	if (pair->reason >= FDMABUF_REASON_UNSUPPORTED && handle_is_lost(pair->handle, ENOTCONN)) {
		pair->is_lost = true;
		return 0;
	}
	if (queue->wanted_path == FDMABUF_DIRECT)
		return fail(-ret, "%s: direct path impossible: %s", pair->file->path,
			    pair->reason_text);
	pair_switch_to_bounce(pair);
	ret = buffer_prepare_copy(pair->buffer);
	return ret && queue->wanted_path == FDMABUF_AUTO ? fail_neither_path(pair, ret) : ret;
}

static int choose_paths(struct fdmabuf_transfer *t)
{
	for (size_t i = 0; i < t->use_count; i++) {
		int ret = choose_path(t->queue, t->uses[i].pair, t->direction);

		if (ret)
			return ret;
	}
	return 0;
}

/* --------------------------------------------------------------- operation */

static int check_operation(const struct fdmabuf_operation *operation)
{
	unsigned allowed = operation->direction == FDMABUF_READ ? FDMABUF_WHOLE_BLOCKS :
								  FDMABUF_SYNC;

	if (operation->direction > FDMABUF_WRITE)
		return fail(EINVAL, "direction %d is not known", (int)operation->direction);
	if (operation->flags & ~allowed)
		return fail(EINVAL, "flags %#x are not known for a %s", operation->flags & ~allowed,
			    operation->direction == FDMABUF_READ ? "read" : "write");
	if (operation->count > SIZE_MAX / 2 / sizeof(struct fdmabuf_range))
		return fail(EINVAL, "%zu ranges are too many", operation->count);
	if (operation->count && !operation->ranges)
		return fail(EINVAL, "there is no array of %zu ranges", operation->count);
	for (size_t i = 0; i < operation->count; i++)
		if (!operation->ranges[i].file || !operation->ranges[i].buffer)
			return fail(EINVAL, "range %zu has no file or no buffer", i);
	return 0;
}

static struct fdmabuf_transfer *new_transfer(struct fdmabuf_queue *queue,
					     const struct fdmabuf_operation *operation)
{
	size_t count = operation->count;
	struct fdmabuf_transfer *t = malloc(sizeof(*t) + count * (sizeof(*t->ranges) +
								  sizeof(*t->done) +
								  sizeof(*t->use_of)));

	if (!t)
		return NULL;
	/* All but the text of an error, which is long. */
	memset(t, 0, offsetof(struct fdmabuf_transfer, error_text) + 1);
	t->queue = queue;
	t->direction = operation->direction;
	t->flags = operation->flags;
	t->progress = operation->progress;
	t->data = operation->data;
	t->ranges = (struct fdmabuf_range *)(t + 1);
	t->done = (uint64_t *)(t->ranges + count);
	t->use_of = (uint32_t *)(t->done + count);
	t->count = count;
	if (count)
		memcpy(t->ranges, operation->ranges, count * sizeof(*t->ranges));
	return t;
}

int plan_transfer(struct fdmabuf_queue *queue, const struct fdmabuf_operation *operation,
		  struct fdmabuf_transfer **result)
{
	struct fdmabuf_transfer *t;
	int ret = check_operation(operation);

	if (ret)
		return ret;
	t = new_transfer(queue, operation);
	if (!t)
		return fail(ENOMEM, "out of memory");
	ret = put_in_order(t);
	if (!ret)
		ret = add_uses(t);
	if (!ret)
		ret = check_ranges(t);
	if (!ret)
		ret = choose_paths(t);
	if (!ret)
		ret = shared_blocks_find(t);
	if (!ret)
		ret = extents_make(t);
	if (!ret)
		ret = proof_choose(t);
	if (ret)
		transfer_release(t);
	else
		*result = t;
	return ret;
}

enum fdmabuf_reason plan_explain(enum fdmabuf_direction direction,
				 const struct fdmabuf_range *range, uint32_t block_size,
				 uint64_t buffer_size, unsigned flags, char *text)
{
	uint64_t block = block_size, end = range->file_offset + range->length;

	*text = '\0';
	if ((range->buffer_offset - range->file_offset) % block) {
		snprintf(text, REASON_TEXT_SIZE, "the offsets in file and buffer differ modulo the "
			 "block size of %llu", (unsigned long long)block);
		return FDMABUF_REASON_UNALIGNED;
	}
	if (flags & FDMABUF_WHOLE_BLOCKS &&
	    align_up(range->buffer_offset + range->length, block) <= buffer_size)
		return FDMABUF_REASON_NONE;
	if (direction == FDMABUF_WRITE)
		block = extents_write_block(block_size);
	if (range->file_offset % block == 0 && end % block == 0)
		return FDMABUF_REASON_NONE;
	snprintf(text, REASON_TEXT_SIZE, "the range has partial blocks of %llu bytes, which are "
		 "copied", (unsigned long long)block);
	return FDMABUF_REASON_PARTIAL_BLOCK;
}

bool plan_has_whole_blocks(enum fdmabuf_direction direction, const struct fdmabuf_range *range,
			   uint32_t block_size)
{
	uint64_t block = direction == FDMABUF_WRITE ? extents_write_block(block_size) : block_size;

	return align_up(range->file_offset, block) <
	       align_down(range->file_offset + range->length, block);
}
