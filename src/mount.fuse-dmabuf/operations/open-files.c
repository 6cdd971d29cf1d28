/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "operations/file.h"
#include "limits/open-quota.h"

/* 8 KiB; chains are short up to some thousand open files. */
#define BUCKETS 1024u

static struct {
	pthread_mutex_t lock;
	struct file *buckets[BUCKETS];
} open_files = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* By the address, which is the "fh". */
static struct file **slot_of(uint64_t fh)
{
	struct file **slot = &open_files.buckets[(fh * 0x9e3779b97f4a7c15u >> 32) % BUCKETS];

	while (*slot && (uintptr_t)*slot != fh)
		slot = &(*slot)->next;
	return slot;
}

void open_files_add(struct file *file)
{
	share_add(file->uid, 1);
	pthread_mutex_lock(&open_files.lock);
	file->next = NULL;
	*slot_of((uintptr_t)file) = file;
	pthread_mutex_unlock(&open_files.lock);
}

void open_files_remove(struct file *file)
{
	share_remove(file->uid, 1);
	pthread_mutex_lock(&open_files.lock);
	*slot_of((uintptr_t)file) = file->next;
	pthread_mutex_unlock(&open_files.lock);
}

struct inode *open_files_find(uint64_t fh, uint64_t nodeid, int *flags)
{
	struct inode *inode = NULL;
	const struct file *file;

	pthread_mutex_lock(&open_files.lock);
	file = *slot_of(fh);
	if (file && file->inode->nodeid == nodeid) {
		inode = file->inode;
		*flags = file->flags;
		inode_keep(inode);
	}
	pthread_mutex_unlock(&open_files.lock);
	return inode;
}
