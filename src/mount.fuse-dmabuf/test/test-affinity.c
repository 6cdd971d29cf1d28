/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A thread that goes after the program that asks; and the program, which is sent from one processor to another. */
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "affinity.h"
#include "check.h"
#include "processes.h"

/* More than must be seen of a program before it is looked for, and less than that twice. */
enum { MANY = 300 };

static cpu_set_t processors;
static int two[2];      /* of them */
static int orders[2], done[2];

static void bind_to(int processor)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(processor, &one);
	CHECK(!sched_setaffinity(0, sizeof(one), &one));
}

/* Goes where it is ordered, until there are no more orders. */
static pid_t start_program(void)
{
	int processor;
	pid_t child;

	CHECK(!pipe(orders) && !pipe(done));
	child = fork();
	CHECK(child >= 0);
	if (child) {
		close(orders[0]);
		return child;
	}
	close(orders[1]);
	while (read(orders[0], &processor, sizeof(processor)) > 0) {
		bind_to(processor);
		CHECK_EQUAL(write(done[1], "", 1), 1);
	}
	_exit(0);
}

static void send_program_to(int processor)
{
	char nothing;

	CHECK_EQUAL(write(orders[1], &processor, sizeof(processor)), sizeof(processor));
	CHECK_EQUAL(read(done[0], &nothing, 1), 1);
}

static void get_requests(pid_t program, int count)
{
	while (count--)
		affinity_follow((uint32_t)program);
}

static bool is_free(void)
{
	cpu_set_t present;

	CHECK(!sched_getaffinity(0, sizeof(present), &present));
	return CPU_EQUAL(&present, &processors);
}

static bool is_bound_to(int processor)
{
	cpu_set_t present;

	CHECK(!sched_getaffinity(0, sizeof(present), &present));
	return CPU_COUNT(&present) == 1 && CPU_ISSET(processor, &present);
}

static pid_t program;

static void program_that_asks_alone_is_followed(void)
{
	for (int i = 0; i < 2; i++) {
		send_program_to(two[i]);
		get_requests(program, MANY);
		CHECK(is_bound_to(two[i]));
		get_requests(0, MANY);
		CHECK(is_bound_to(two[i]));
	}
}

static void first_request_of_another_ends_it(void)
{
	get_requests(program, MANY);
	CHECK(!is_free());
	get_requests(getpid(), 1);
	CHECK(is_free());
}

static void programs_that_ask_in_turn_are_not_followed(void)
{
	for (int i = 0; i < MANY; i++) {
		get_requests(program, 1);
		get_requests(getpid(), 1);
		CHECK(is_free());
	}
}

static void request_that_nobody_may_wait_for_ends_it(void)
{
	get_requests(program, MANY);
	CHECK(!is_free());
	affinity_leave();
	CHECK(is_free());
}

static void *be_new(void *unused)
{
	CHECK(!is_free());
	get_requests(program, 1);
	CHECK(is_free());
	return unused;
}

static void thread_that_is_made_meanwhile_is_free(void)
{
	pthread_t thread;

	get_requests(program, MANY);
	CHECK(!pthread_create(&thread, NULL, be_new, NULL));
	pthread_join(thread, NULL);
	CHECK(!is_free());
	affinity_leave();
}

static void program_that_has_ended_is_not_followed(void)
{
	close(orders[1]);
	CHECK_EQUAL(waitpid(program, NULL, 0), program);
	get_requests(program, MANY);
	CHECK(is_free());
}

int main(void)
{
	int count = 0;

	CHECK(!sched_getaffinity(0, sizeof(processors), &processors));
	for (int i = 0; i < CPU_SETSIZE && count < 2; i++) {
		if (CPU_ISSET(i, &processors))
			two[count++] = i;
	}
	if (count < 2)
		return 77;      /* skipped: there is one processor */
	CHECK(processes_begin());
	affinity_begin();
	program = start_program();
	RUN(program_that_asks_alone_is_followed);
	RUN(first_request_of_another_ends_it);
	RUN(programs_that_ask_in_turn_are_not_followed);
	RUN(request_that_nobody_may_wait_for_ends_it);
	RUN(thread_that_is_made_meanwhile_is_free);
	RUN(program_that_has_ended_is_not_followed);
	processes_end();
	return 0;
}
