/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeps the evidence of the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/warning.h"
#include "buffer/pci.h"
#include "queue/evidence.h"

static struct evidence *all;	/* protected by the lock of all objects */

static struct evidence *find(dev_t device, const struct fdmabuf_buffer *buffer,
			     enum fdmabuf_direction direction)
{
	struct evidence *evidence = all;

	while (evidence && (evidence->device != device || evidence->direction != direction ||
			    evidence->exporter != buffer->exporter ||
			    strcmp(evidence->buffer_device, buffer->device)))
		evidence = evidence->next;
	return evidence;
}

/* Caller holds the lock of all objects. */
static struct evidence *create(dev_t device, const struct fdmabuf_buffer *buffer,
			       enum fdmabuf_direction direction)
{
	struct evidence *evidence = calloc(1, sizeof(*evidence));
	char *name = strdup(buffer->device);

	if (!evidence || !name) {
		free(evidence);
		free(name);
		return NULL;
	}
	evidence->device = device;
	evidence->exporter = buffer->exporter;
	evidence->buffer_device = name;
	evidence->direction = direction;
	evidence->next = all;
	all = evidence;
	return evidence;
}

struct evidence *evidence_get(const struct fd_handle *handle, const struct fdmabuf_buffer *buffer,
			      enum fdmabuf_direction direction)
{
	struct evidence *evidence;

	objects_lock();
	evidence = find(handle->data_device, buffer, direction);
	if (!evidence)
		evidence = create(handle->data_device, buffer, direction);
	objects_unlock();
	return evidence;
}

bool evidence_is_proven(const struct evidence *evidence)
{
	return evidence && evidence->blocks >= EVIDENCE_BLOCKS && !evidence->is_disproved;
}

bool evidence_is_disproved(const struct evidence *evidence)
{
	return evidence && evidence->is_disproved;
}

void evidence_add(struct evidence *evidence, unsigned blocks)
{
	if (evidence && evidence->blocks < EVIDENCE_BLOCKS)
		evidence->blocks += blocks;
}

/* Names a block device as the kernel does; a filesystem without one by its number. */
static void name_device(dev_t device, char name[PCI_NAME_SIZE])
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(device), minor(device));
	if (!read_last_component(path, name))
		snprintf(name, PCI_NAME_SIZE, "the filesystem with device number %u:%u",
			 major(device), minor(device));
}

void evidence_describe(const struct evidence *evidence, char *text, size_t room)
{
	const char *owner = *evidence->buffer_device ? evidence->buffer_device : "host memory";
	char device[PCI_NAME_SIZE];

	name_device(evidence->device, device);
	snprintf(text, room, "direct %s between %.48s and %.80s succeed but move other bytes",
		 evidence->direction == FDMABUF_READ ? "reads" : "writes", device, owner);
}

void evidence_disprove(struct evidence *evidence, const struct fdmabuf_file *file,
		       const struct fdmabuf_buffer *buffer, const char *symptom)
{
	char text[256];

	if (!evidence || atomic_exchange(&evidence->is_disproved, true))
		return;
	evidence_describe(evidence, text, sizeof(text));
	warn("%s (exporter %s; %s of %s): this process does not use this path any more; look at "
	     "the IOMMU, at PCI switches between the devices, and at the driver of the buffer",
	     text, fdmabuf_buffer_exporter(buffer), symptom, file->path);
}
