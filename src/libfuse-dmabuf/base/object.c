/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts references to objects, and tells their watches of their end. */
#include <pthread.h>
#include <stddef.h>

#include "base/object.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Without this, a child could inherit the lock from a thread that it does not have. */
static void keep_lock_over_fork(void)
{
	pthread_atfork(objects_lock, objects_unlock, objects_unlock);
}

void object_init(struct object *object)
{
	pthread_once(&once, keep_lock_over_fork);
	atomic_init(&object->references, 1);
	object->watches = NULL;
}

void object_get(struct object *object)
{
	atomic_fetch_add_explicit(&object->references, 1, memory_order_relaxed);
}

bool object_put(struct object *object)
{
	if (atomic_fetch_sub_explicit(&object->references, 1, memory_order_acq_rel) > 1)
		return false;
	objects_lock();
	while (object->watches) {
		struct watch *watch = object->watches;

		object_unwatch(watch);
		watch->ended(watch);
	}
	objects_unlock();
	return true;
}

void objects_lock(void)
{
	pthread_mutex_lock(&lock);
}

void objects_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void objects_wait(pthread_cond_t *condition)
{
	pthread_cond_wait(condition, &lock);
}

void object_watch(struct object *object, struct watch *watch)
{
	watch->next = object->watches;
	watch->link = &object->watches;
	if (watch->next)
		watch->next->link = &watch->next;
	object->watches = watch;
}

void object_unwatch(struct watch *watch)
{
	if (!watch->link)
		return;
	*watch->link = watch->next;
	if (watch->next)
		watch->next->link = watch->link;
	watch->link = NULL;
}
