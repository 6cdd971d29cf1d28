/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects that callers and transfers count references to, and watches: what somebody keeps of an
 * object without holding it, and lets go when it ends.
 */
#ifndef FDMABUF_OBJECT_H
#define FDMABUF_OBJECT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct watch {
	struct watch *next, **link;	/* link is NULL while nothing is watched */
	/*
	 * Is called once, when the last reference is gone. The caller holds the lock of all
	 * objects, which the function may release and take again.
	 */
	void (*ended)(struct watch *watch);
};

struct object {
	atomic_uint references;
	struct watch *watches;		/* protected by the lock of all objects */
};

/* Gives the object its first reference. */
void object_init(struct object *object);
void object_get(struct object *object);

/*
 * Returns true if that was the last reference: then nothing watches the object, and it can be
 * freed.
 */
bool object_put(struct object *object);

/*
 * The lock of all objects. It protects watches, what a watcher keeps for them, and the handles of
 * files. No thread holds the lock while it waits for a device or a server, because all queues need
 * the lock. A child can use the lock after fork(2), whichever thread of the parent held it.
 */
void objects_lock(void);
void objects_unlock(void);
/* Releases the lock until the condition is signalled. */
void objects_wait(pthread_cond_t *condition);

/* The caller holds the lock, and a reference to the object. */
void object_watch(struct object *object, struct watch *watch);
/* The caller holds the lock. A watch that watches nothing is allowed. */
void object_unwatch(struct watch *watch);

#endif
