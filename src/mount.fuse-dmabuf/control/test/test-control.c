/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of control/: clients of the control socket while others are slow, while a reload waits for
 * the kernel, and while tokens come and go. A wrapper of the linker revokes in place of the kernel.
 */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "broker/broker.h"
#include "broker/test/test-policy.h"
#include "control/control.h"
#include "log/log.h"
#include "nodes/test/test-node.h"

#define POLICY "/tmp/fuse-dmabuf-test-control.conf"

/* The group whose members may use the socket. */
#define GROUP 4000

static struct inode *file;
static atomic_bool waiting, finish;

int __wrap_kernel_token_revoke(uint64_t id);

int __wrap_kernel_token_revoke(uint64_t id)
{
	(void)id;
	waiting = true;
	while (!finish)
		usleep(1000);
	return 0;
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*function)(void *), void *data);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*function)(void *), void *data);

static bool no_threads;

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*function)(void *), void *data)
{
	return no_threads ? EAGAIN : __real_pthread_create(thread, attr, function, data);
}

const char *__real_inode_name(const struct inode *inode, char name[INODE_NAME_MAX]);
const char *__wrap_inode_name(const struct inode *inode, char name[INODE_NAME_MAX]);

static atomic_int name_milliseconds;    /* time that inode_name() still takes, in all calls */
static atomic_bool long_names;

const char *__wrap_inode_name(const struct inode *inode, char name[INODE_NAME_MAX])
{
	while (name_milliseconds > 0) {
		name_milliseconds--;
		usleep(1000);
	}
	if (long_names) {
		memset(name, 'n', INODE_NAME_MAX - 1);
		name[INODE_NAME_MAX - 1] = '\0';
		return name;
	}
	return __real_inode_name(inode, name);
}

static void grant(uint64_t id, struct inode *inode)
{
	struct token_request request = {
		.id = id, .inode = inode, .open_flags = O_RDONLY, .size = 4096,
		.direction = FUSE_DMABUF_TOKEN_READ, .exporter = "test",
	};
	uint32_t direction;

	CHECK_EQUAL(broker_grant(&request, &direction), 0);
	broker_answered(id);
}

static void release(uint64_t id)
{
	CHECK(broker_release(&(struct token_end){ .id = id }));
}

static void write_policy(const char *text)
{
	FILE *stream = fopen(POLICY, "w");

	CHECK(stream && fputs(text, stream) >= 0 && !fclose(stream));
}

static struct sockaddr_un socket_address(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct stat attr;

	CHECK(!stat(test_directory, &attr));
	snprintf(address.sun_path, sizeof(address.sun_path), "/run/fuse-dmabuf/%u.socket",
		 minor(attr.st_dev));
	return address;
}

static int connect_client(void)
{
	const struct timeval timeout = { .tv_sec = 10 };
	struct sockaddr_un address = socket_address();
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK(fd >= 0);
	CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));
	CHECK(!connect(fd, (const struct sockaddr *)&address, sizeof(address)));
	return fd;
}

/* Sends a request. Returns the socket from which the caller reads the answer. */
static int begin_to_ask(const char *request)
{
	int client = connect_client();

	/*
	 * The server may refuse the client, and close the connection, before the request is sent.
	 */
	if (send(client, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
		CHECK_EQUAL(errno, EPIPE);
	return client;
}

/* Returns true if the answer says that the request succeeded. The answer can still be read. */
static bool is_answered(int client)
{
	static const char wanted[] = "{\"ok\":true";
	char begin[sizeof(wanted)] = "";

	CHECK(recv(client, begin, sizeof(begin) - 1, MSG_PEEK | MSG_WAITALL) > 0);
	return !strcmp(begin, wanted);
}

/* Sends a request, and reads the first 4095 bytes of the answer. */
static void ask(const char *request, char answer[4096])
{
	int client = begin_to_ask(request);
	ssize_t got = recv(client, answer, 4095, MSG_WAITALL);

	CHECK(got > 0);
	answer[got] = '\0';
	close(client);
}

#define STATUS "{\"command\":\"status\"}\n"

static bool is_served(void)
{
	int client = begin_to_ask(STATUS);
	bool served = is_answered(client);

	close(client);
	return served;
}

/*
 * Begins a client that takes no more than the beginning of its answer. It tries again if it is
 * refused, because a client that has gone may still occupy a place for a moment.
 */
static int begin_slow_client(void)
{
	int client;

	while (!is_answered(client = begin_to_ask(STATUS))) {
		close(client);
		usleep(1000);
	}
	return client;
}

static void nothing_is_left_where_threads_cannot_be_started(const struct control_mount *mount)
{
	struct sockaddr_un address = socket_address();

	no_threads = true;
	log_set_level(LOG_EMERG);
	CHECK(!control_begin(mount));
	log_set_level(LOG_ERR);
	no_threads = false;
	CHECK(access(address.sun_path, F_OK) && errno == ENOENT);
}

/*
 * The server knows no path of an inode that is not below the source, here of /: that is like a file
 * whose path is too long to be known.
 */
static void token_whose_path_is_not_known_is_told_of(void)
{
	struct stat attr;
	struct inode *unknown = inode_lookup(open("/", O_PATH | O_CLOEXEC), &attr);
	char answer[4096];

	CHECK(unknown);
	finish = true;
	grant(1, file);
	grant(2, unknown);
	ask("{\"command\":\"revoke\",\"path\":\"/other\"}\n", answer);
	CHECK(!strcmp(answer, "{\"ok\":true,\"revoked\":0,\"unknown\":1}\n"));
	ask("{\"command\":\"revoke\",\"path\":\"/\"}\n", answer);
	CHECK(!strcmp(answer, "{\"ok\":true,\"revoked\":2}\n"));
	release(1);
	release(2);
	inode_forget(unknown, 1);
	finish = waiting = false;
}

static void nobody_waits_while_the_status_is_made(void)
{
	int client;

	grant(1, file);
	name_milliseconds = 5000;
	client = begin_to_ask(STATUS);
	while (name_milliseconds == 5000)
		usleep(1000);
	CHECK_EQUAL(broker_state(0).all.tokens, 1);
	CHECK(name_milliseconds > 0);
	name_milliseconds = 0;
	CHECK(is_answered(client));
	close(client);
	release(1);
}

/* The limit for root's clients; and more tokens than fit into the buffer of a socket. */
enum { CLIENTS_MAX = 32, MANY = 3000 };

/* Slow clients occupy their places until their time to take the answer is over. */
static void clients_that_take_no_answer_hold_nobody_up_and_are_let_go(void)
{
	int slow[CLIENTS_MAX];
	time_t begun;

	for (uint64_t id = 1; id <= MANY; id++)
		grant(id, file);
	for (int i = 0; i < CLIENTS_MAX - 1; i++)
		slow[i] = begin_slow_client();
	CHECK(is_served());
	slow[CLIENTS_MAX - 1] = begin_slow_client();
	CHECK(!is_served());
	begun = time(NULL);
	while (!is_served()) {
		CHECK(time(NULL) - begun < 20);
		usleep(100000);
	}
	for (int i = 0; i < CLIENTS_MAX; i++)
		close(slow[i]);
	for (uint64_t id = 1; id <= MANY; id++)
		release(id);
}

static long memory_kib(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	long size, resident;

	CHECK(file && fscanf(file, "%ld %ld", &size, &resident) == 2 && !fclose(file));
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* In the answer to each client the paths alone take 12 MB. */
static void clients_take_no_more_memory_for_more_tokens(void)
{
	enum { SLOW = 8 };
	int slow[SLOW];
	long before;

	for (uint64_t id = 1; id <= MANY; id++)
		grant(id, file);
	long_names = true;
	before = memory_kib();
	for (int i = 0; i < SLOW; i++)
		slow[i] = begin_slow_client();
	usleep(500000);
	printf("%ld KiB for %d clients\n", memory_kib() - before, SLOW);
	CHECK(memory_kib() - before < 8192);
	for (int i = 0; i < SLOW; i++)
		close(slow[i]);
	long_names = false;
	for (uint64_t id = 1; id <= MANY; id++)
		release(id);
}

static size_t count_of(const char *text, const char *word)
{
	size_t count = 0;

	while ((text = strstr(text, word))) {
		text += strlen(word);
		count++;
	}
	return count;
}

/*
 * The answer has each token that lasted, and none twice, although tokens end and are granted while
 * the client is slow.
 */
static void status_is_whole_although_the_books_change(void)
{
	enum { SIZE = 16 << 20 };
	char *answer = calloc(1, SIZE);
	ssize_t got;
	int client;

	CHECK(answer);
	for (uint64_t id = 1; id <= MANY; id++)
		grant(id, file);
	long_names = true;
	client = begin_slow_client();
	for (uint64_t id = 2; id <= MANY; id += 2)
		release(id);
	grant(MANY + 1, file);
	got = recv(client, answer, SIZE - 1, MSG_WAITALL);
	CHECK(got > 2 && !strcmp(answer + got - 3, "]}\n"));
	for (uint64_t id = 1; id <= MANY; id += 2) {
		char word[32];

		snprintf(word, sizeof(word), "{\"id\":%llu,", (unsigned long long)id);
		if (id % 201 == 1)
			CHECK_EQUAL(count_of(answer, word), 1);
		release(id);
	}
	CHECK(count_of(answer, "{\"id\":") < MANY && count_of(answer, "{\"id\":") >= MANY / 2);
	CHECK(!strstr(answer, "{\"id\":3001,"));
	long_names = false;
	release(MANY + 1);
	close(client);
	free(answer);
}

/* 65536 groups are as many as the kernel lets a process have. */
static void member_of_many_groups_may_ask(void)
{
	static gid_t groups[65536];
	int status;
	pid_t child;

	for (unsigned int i = 0; i < 65536; i++)
		groups[i] = i ? 100000 + i : GROUP;
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		CHECK(!setgroups(65536, groups) && !setresgid(1000, 1000, 1000) &&
		      !setresuid(1000, 1000, 1000));
		_exit(is_served() ? 0 : 2);
	}
	CHECK_EQUAL(waitpid(child, &status, 0), child);
	CHECK_EQUAL(status, 0);
}

static void clients_are_answered_while_a_reload_waits(void)
{
	char answer[4096];

	grant(1, file);
	write_policy("max_tokens = 0;");
	CHECK(!kill(getpid(), SIGHUP));
	while (!waiting)
		usleep(1000);
	ask(STATUS, answer);
	CHECK(strstr(answer, "\"revoked\":false"));
	ask("{\"command\":\"ping\"}\n", answer);
	CHECK(!strcmp(answer, "{\"ok\":true}\n"));
	finish = true;
}

int main(void)
{
	const struct policy_options policy = { .file = POLICY };
	struct control_mount mount = {
		.source = "/", .mountpoint = test_directory, .group = GROUP, .policy = &policy,
	};
	struct stat attr;

	log_set_level(LOG_ERR);
	nodes_begin();
	file = node_lookup("file");
	CHECK(!stat(test_directory, &attr));
	mount.connection = minor(attr.st_dev);
	broker_begin(test_policy(false, UINT64_MAX));
	nothing_is_left_where_threads_cannot_be_started(&mount);
	CHECK(control_begin(&mount));
	RUN(token_whose_path_is_not_known_is_told_of);
	RUN(nobody_waits_while_the_status_is_made);
	RUN(clients_that_take_no_answer_hold_nobody_up_and_are_let_go);
	RUN(clients_take_no_more_memory_for_more_tokens);
	RUN(status_is_whole_although_the_books_change);
	RUN(member_of_many_groups_may_ask);
	RUN(clients_are_answered_while_a_reload_waits);
	control_end();
	CHECK_EQUAL(broker_state(0).all.tokens, 0);
	broker_end();
	unlink(POLICY);
	inode_forget(file, 1);
	node_remove("file");
	nodes_end();
	return 0;
}
