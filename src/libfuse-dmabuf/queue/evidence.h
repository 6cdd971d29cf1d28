/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Evidence: what this process knows of the direct path from the device of a file to the device of a
 * buffer, in one direction.
 */
#ifndef FDMABUF_EVIDENCE_H
#define FDMABUF_EVIDENCE_H

#include <stdatomic.h>

#include "buffer/buffer.h"
#include "file/file.h"

/* Blocks that have to be compared, spread over the buffer, before a path is trusted. */
#define EVIDENCE_BLOCKS 8u

struct evidence {
	struct evidence *next;		/* all of them; they are never freed */
	dev_t device;			/* of the file */
	const struct exporter *exporter;
	char *buffer_device;
	enum fdmabuf_direction direction;
	atomic_uint blocks;		/* that were compared and were right */
	atomic_bool is_disproved;
};

/* Finds or makes the evidence. Returns NULL without memory: then the path is not trusted. */
struct evidence *evidence_get(const struct fd_handle *handle, const struct fdmabuf_buffer *buffer,
			      enum fdmabuf_direction direction);

/* Returns true if the path is trusted: @evidence may be NULL. */
bool evidence_is_proven(const struct evidence *evidence);
bool evidence_is_disproved(const struct evidence *evidence);

void evidence_add(struct evidence *evidence, unsigned blocks);

/*
 * Records that a path loses bytes. The first time, warns with the names of devices, exporter and
 * file; @symptom says what was seen.
 */
void evidence_disprove(struct evidence *evidence, const struct fdmabuf_file *file,
		       const struct fdmabuf_buffer *buffer, const char *symptom);

/* Sets the text of the reason, of at most @room bytes. */
void evidence_describe(const struct evidence *evidence, char *text, size_t room);

#endif
