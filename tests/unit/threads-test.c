/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests what the header allows threads: each has queues of its own, and all share files and
 * buffers, which end in any thread, on a simulated kernel. ThreadSanitizer, if the compiler has it,
 * looks for races.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arithmetic.h"
#include "check.h"
#include "simulated-ring.h"
#include "simulation.h"

#define THREADS 4u
#define ROUNDS 200u		/* of each thread */
#define QUEUE_ROUNDS 50u	/* rounds until a thread closes its queue and opens another one */
#define SHARED 3u		/* files, and buffers */
#define FORKS 12u
#define CHILD_TIME 10u		/* s that a child may take; it takes ms */
#define FILE_BLOCKS 64u
#define REGION (8 * BLOCK)	/* bytes of each buffer that one thread moves */

/* Files and buffers that threads take references to, and that are replaced by others meanwhile. */
static struct {
	pthread_mutex_t lock;
	struct fdmabuf_file *files[SHARED];
	struct fdmabuf_buffer *buffers[SHARED];
	char names[SHARED][32];
} shared = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Alignas(BLOCK) unsigned char thread_memories[SHARED][BUFFER_SIZE];
static unsigned char contents[SHARED][FILE_BLOCKS * BLOCK];
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;	/* protects simulation.random */
static atomic_bool is_over;

static void write_content(unsigned number)
{
	int fd = mkstemp(shared.names[number]);

	CHECK(fd >= 0);
	for (uint64_t i = 0; i < sizeof(contents[number]); i++)
		contents[number][i] = content_at(i + number * sizeof(contents[number]));
	CHECK_EQUAL(write(fd, contents[number], sizeof(*contents)), sizeof(*contents));
	close(fd);
}

static struct fdmabuf_file *new_file(unsigned number)
{
	return open_simulated(shared.names[number], O_RDWR);
}

static struct fdmabuf_buffer *new_buffer(unsigned number)
{
	return make_simulated(thread_memories[number], BUFFER_SIZE, number);
}

static void given_shared(void)
{
	memset(&simulation, 0, sizeof(simulation));
	simulation.random = 1;
	simulation.memory = thread_memories[0];
	simulation.memory_size = BUFFER_SIZE;
	simulation.not_fuse = true;
	simulation.short_results = true;
	simulation.again_percent = 5;
	for (unsigned i = 0; i < SHARED; i++) {
		strcpy(shared.names[i], "/tmp/threads-test-XXXXXX");
		write_content(i);
		shared.files[i] = new_file(i);
		shared.buffers[i] = new_buffer(i);
	}
	is_over = false;
}

static void remove_shared(void)
{
	for (unsigned i = 0; i < SHARED; i++) {
		fdmabuf_file_close(shared.files[i]);
		fdmabuf_buffer_free(shared.buffers[i]);
		unlink(shared.names[i]);
	}
	CHECK_EQUAL(simulation.tokens, 0);
}

static struct fdmabuf_queue *open_queue(void)
{
	/* Fewer tokens than pairs, so that queues give up their own as well. */
	const struct fdmabuf_queue_options options = {
		.size = sizeof(options), .depth = 4, .chunk = CHUNK, .tokens = SHARED * SHARED - 2,
	};
	struct fdmabuf_queue *queue = NULL;

	pthread_mutex_lock(&opening);
	CHECK_EQUAL(fdmabuf_queue_open(&options, &queue), 0);
	pthread_mutex_unlock(&opening);
	return queue;
}

/* Takes references to a file and a buffer. */
static void take_shared(struct fdmabuf_range *range, unsigned file_number, unsigned buffer_number)
{
	pthread_mutex_lock(&shared.lock);
	range->file = fdmabuf_file_ref(shared.files[file_number]);
	range->buffer = fdmabuf_buffer_ref(shared.buffers[buffer_number]);
	pthread_mutex_unlock(&shared.lock);
}

static void let_go(const struct fdmabuf_range *range)
{
	fdmabuf_file_close(range->file);
	fdmabuf_buffer_free(range->buffer);
}

/*
 * Moves a part of a file to the thread's region of a buffer, and back: that does not change the
 * file.
 */
static void move(struct fdmabuf_queue *queue, unsigned thread, unsigned long long *random)
{
	unsigned file_number = next_random(random) % SHARED;
	unsigned buffer_number = next_random(random) % SHARED;
	uint64_t odd = next_random(random) % 4 ? 0 : 1 + next_random(random) % 100;
	struct fdmabuf_range range = {
		.file_offset = next_random(random) % (FILE_BLOCKS / 2) * BLOCK + odd,
		.buffer_offset = thread * REGION + odd,
		.length = 1 + next_random(random) % (REGION - BLOCK),
	};

	take_shared(&range, file_number, buffer_number);
	CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), range.length);
	CHECK(!memcmp(thread_memories[buffer_number] + range.buffer_offset,
		      contents[file_number] + range.file_offset, range.length));
	if (next_random(random) % 4 == 0)
		CHECK_EQUAL(fdmabuf_write(queue, &range, 1, 0), range.length);
	CHECK_EQUAL(fdmabuf_file_size(range.file), sizeof(*contents));
	CHECK(fdmabuf_file_is_direct(range.file));
	let_go(&range);
}

static void *work(void *number)
{
	unsigned thread = (uintptr_t)number;
	unsigned long long random = thread + 1;
	struct fdmabuf_queue *queue = open_queue();

	for (unsigned i = 1; i <= ROUNDS && !is_over; i++) {
		struct fdmabuf_counters counters = { .size = sizeof(counters) };

		move(queue, thread, &random);
		CHECK_EQUAL(fdmabuf_queue_counters(queue, &counters), 0);
		CHECK(counters.tokens_kept <= SHARED * SHARED - 2);
		if (i % QUEUE_ROUNDS == 0) {
			fdmabuf_queue_close(queue);
			queue = open_queue();
		}
	}
	fdmabuf_queue_close(queue);
	return NULL;
}

/*
 * Replaces files and buffers, whose tokens in idle queues then end in this thread or in a worker.
 */
static void *replace(void *unused)
{
	unsigned long long random = 99;

	(void)unused;
	while (!is_over) {
		unsigned number = next_random(&random) % SHARED;
		struct fdmabuf_range old = { .file = NULL };

		if (next_random(&random) % 2) {
			struct fdmabuf_file *made = new_file(number);

			pthread_mutex_lock(&shared.lock);
			old.file = shared.files[number];
			shared.files[number] = made;
			pthread_mutex_unlock(&shared.lock);
		} else {
			struct fdmabuf_buffer *made = new_buffer(number);

			pthread_mutex_lock(&shared.lock);
			old.buffer = shared.buffers[number];
			shared.buffers[number] = made;
			pthread_mutex_unlock(&shared.lock);
		}
		let_go(&old);
		usleep(200);
	}
	return NULL;
}

static void start_threads(pthread_t *threads)
{
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQUAL(pthread_create(&threads[i], NULL, work, (void *)i), 0);
	CHECK_EQUAL(pthread_create(&threads[THREADS], NULL, replace, NULL), 0);
}

static void join(const pthread_t *threads)
{
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	is_over = true;
	pthread_join(threads[THREADS], NULL);
}

static void files_and_buffers_end_in_any_thread(void)
{
	pthread_t threads[THREADS + 1];

	given_shared();
	start_threads(threads);
	join(threads);
	CHECK(simulation.registrations > THREADS * SHARED);
	remove_shared();
}

/* What a child may do: use files and buffers, and open a queue of its own. */
static void use_in_child(struct fdmabuf_queue *parents, struct fdmabuf_transfer *transfer,
			 struct fdmabuf_range *range)
{
	unsigned char byte;

	/* Ends a child that waits for a lock of a thread that the child does not have. */
	alarm(CHILD_TIME);
	CHECK_EQUAL(fdmabuf_file_size(range->file), sizeof(*contents));
	CHECK_EQUAL(fdmabuf_file_pread(range->file, &byte, 1, 0), 1);
	CHECK_EQUAL(fdmabuf_buffer_read(range->buffer, 0, &byte, 1), 0);
	CHECK_EQUAL(fdmabuf_read(parents, range, 1, 0), -ECHILD);
	CHECK(!fdmabuf_queue_next(parents));
	fdmabuf_transfer_free(transfer);
	fdmabuf_queue_close(parents);
	let_go(range);
	_exit(0);
}

static void child_uses_files_and_buffers_of_busy_threads(void)
{
	pthread_t threads[THREADS + 1];

	given_shared();
	start_threads(threads);
	for (unsigned i = 0; i < FORKS; i++) {
		struct fdmabuf_range range = { .buffer_offset = THREADS * REGION };
		struct fdmabuf_operation operation = {
			.size = sizeof(operation), .ranges = &range, .count = 1,
		};
		struct fdmabuf_queue *queue = open_queue();
		struct fdmabuf_transfer *transfer = NULL;
		int status;
		pid_t child;

		take_shared(&range, i % SHARED, (i + 1) % SHARED);
		/* One transfer that has finished, and one that has not, in turn. */
		range.length = i % 2 ? REGION : 0;
		CHECK_EQUAL(fdmabuf_submit(queue, &operation, &transfer), 0);
		child = fork();
		if (!child)
			use_in_child(queue, transfer, &range);
		CHECK(child > 0);
		CHECK_EQUAL(waitpid(child, &status, 0), child);
		CHECK_EQUAL(status, 0);
		fdmabuf_transfer_free(transfer);
		fdmabuf_queue_close(queue);
		let_go(&range);
	}
	is_over = true;
	join(threads);
	remove_shared();
}

/* ------------------------------------------------------------- a returning mount */

static struct fdmabuf_file *mounted;

static void *read_from_mount(void *number)
{
	unsigned thread = (uintptr_t)number;
	struct fdmabuf_buffer *own = new_buffer(thread % SHARED);
	struct fdmabuf_queue *queue = open_queue();
	struct fdmabuf_range range = {
		.file = mounted,
		.buffer = own,
		.buffer_offset = thread * REGION,
		.length = REGION,
	};

	for (unsigned i = 0; i < 20; i++) {
		CHECK_EQUAL(fdmabuf_read(queue, &range, 1, 0), REGION);
		CHECK(!memcmp(thread_memories[thread % SHARED] + range.buffer_offset, expected,
			      REGION));
		fdmabuf_file_size(mounted);
	}
	fdmabuf_queue_close(queue);
	fdmabuf_buffer_free(own);
	return NULL;
}

static void queues_find_a_file_on_its_new_mount_together(void)
{
	pthread_t threads[THREADS];

	given_file_on_mount("################", REGION);
	simulation.memory = thread_memories[0];
	simulation.end_request = THREADS * 10;
	mounted = file;
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQUAL(pthread_create(&threads[i], NULL, read_from_mount, (void *)i), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK(file->handle->device != OLD_MOUNT_DEVICE);
	remove_given();
}

int main(void)
{
	RUN(files_and_buffers_end_in_any_thread);
	RUN(child_uses_files_and_buffers_of_busy_threads);
	RUN(queues_find_a_file_on_its_new_mount_together);
	return 0;
}
