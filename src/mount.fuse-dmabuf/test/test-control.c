/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control socket while a reload waits for the kernel, whose part in revoking is the linker's wrapper here. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "broker.h"
#include "control.h"
#include "log.h"
#include "test-node.h"
#include "test-policy.h"

#define POLICY "/tmp/fuse-dmabuf-test-control.conf"

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

static void grant(void)
{
	struct token_request request = {
		.id = 1, .inode = file, .open_flags = O_RDONLY, .size = 4096, .direction = FUSE_DMABUF_TOKEN_READ,
		.exporter = "test" };
	uint32_t direction;

	CHECK_EQUAL(broker_grant(&request, &direction), 0);
	broker_answered(1);
}

static void write_policy(const char *text)
{
	FILE *stream = fopen(POLICY, "w");

	CHECK(stream && fputs(text, stream) >= 0 && !fclose(stream));
}

static int connect_client(void)
{
	const struct timeval patience = { .tv_sec = 10 };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct stat attr;

	CHECK(fd >= 0 && !stat(test_directory, &attr));
	CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)));
	snprintf(address.sun_path, sizeof(address.sun_path), "/run/fuse-dmabuf/%u.socket", minor(attr.st_dev));
	CHECK(!connect(fd, (const struct sockaddr *)&address, sizeof(address)));
	return fd;
}

static void clients_are_answered_while_a_reload_waits(void)
{
	static const char request[] = "{\"command\":\"status\"}\n";
	char answer[4096] = "";
	int client;

	grant();
	write_policy("max_tokens = 0;");
	CHECK(!kill(getpid(), SIGHUP));
	while (!waiting)
		usleep(1000);
	client = connect_client();
	CHECK(send(client, request, strlen(request), 0) == (ssize_t)strlen(request));
	CHECK(recv(client, answer, sizeof(answer) - 1, 0) > 0);
	CHECK(strstr(answer, "\"revoked\":false"));
	close(client);
	finish = true;
}

int main(void)
{
	const struct options options = { .source = "/", .policy_file = POLICY };

	log_set_level(LOG_ERR);
	nodes_begin();
	file = node_lookup("file");
	broker_begin(test_policy(false, UINT64_MAX));
	CHECK(control_begin(&options, test_directory, -1));
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
