/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of open files, for token requests. */
#include "limits/open-quota.h"
#include "operations/file.h"

static struct {
	pthread_mutex_t lock;
	struct hash_table files;        /* by their address, which is the kernel's "fh" */
} open_files = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct file *find(uint64_t fh)
{
	struct hash_link *link = hash_table_find(&open_files.files, fh);

	return link ? hash_entry(link, struct file, link) : NULL;
}

void open_files_add(struct file *file)
{
	open_quota_add(file->uid, 1);
	pthread_mutex_lock(&open_files.lock);
	hash_table_add(&open_files.files, &file->link, (uintptr_t)file);
	pthread_mutex_unlock(&open_files.lock);
}

void open_files_remove(struct file *file)
{
	open_quota_remove(file->uid, 1);
	pthread_mutex_lock(&open_files.lock);
	hash_table_remove(&open_files.files, &file->link);
	pthread_mutex_unlock(&open_files.lock);
}

struct inode *open_files_find(uint64_t fh, uint64_t nodeid, int *flags)
{
	struct inode *inode = NULL;
	const struct file *file;

	pthread_mutex_lock(&open_files.lock);
	file = find(fh);
	if (file && file->inode->nodeid == nodeid) {
		inode = file->inode;
		*flags = file->flags;
		inode_keep(inode);
	}
	pthread_mutex_unlock(&open_files.lock);
	return inode;
}
