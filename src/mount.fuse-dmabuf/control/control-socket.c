/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file of the control socket, which several servers make and remove in one directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/control-socket.h"
#include "identity/identity.h"
#include "identity/privileges.h"
#include "log/log.h"

#define DIRECTORY "/run/fuse-dmabuf"

/* Clients that can wait to be accepted. */
#define BACKLOG 64

/* The inode number of the socket file that this server has made. */
static ino_t own_inode;

/*
 * Takes the lock with which one server at a time makes or removes a socket. Closing the descriptor
 * releases the lock. Only root can open the file. The directory itself is not locked, because
 * anyone who can open it could lock it, too, and keep all servers from beginning and ending.
 */
static int lock_directory(void)
{
	int fd = open(DIRECTORY "/lock", O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd >= 0)
		flock(fd, LOCK_EX);
	return fd;
}

static struct sockaddr_un address_of(unsigned int number)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), DIRECTORY "/%u.socket", number);
	return address;
}

/* Gives the socket to the group. Needs CAP_CHOWN, because the server is not in the group. */
static bool give_to_group(const char *path, gid_t group)
{
	static const struct identity root = { .capabilities = CAPABILITY(CAP_CHOWN) };
	bool done;

	if (!group)
		return true;
	if (!identity_assume(&root))
		return false;
	done = !chown(path, 0, group);
	identity_end();
	return done;
}

/*
 * Returns a socket that listens at the address, or -1 with errno set. A socket that is there
 * already is of a server that was killed: no other mount has this number.
 */
static int bind_socket(const struct sockaddr_un *address, gid_t group)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat attr;

	if (fd < 0)
		return -1;
	unlink(address->sun_path);
	/* Each connection is checked after it was accepted; the mode keeps others away earlier. */
	if (!bind(fd, (const struct sockaddr *)address, sizeof(*address)) &&
	    give_to_group(address->sun_path, group) &&
	    !chmod(address->sun_path, group ? 0660 : 0600) &&
	    !stat(address->sun_path, &attr) && !listen(fd, BACKLOG)) {
		own_inode = attr.st_ino;
		return fd;
	}
	close(fd);
	return -1;
}

/*
 * Makes the directory with mode 0755, whatever the umask of mount(8) is. A directory that is there
 * already may have another mode on purpose, and keeps it.
 */
static bool make_directory(void)
{
	if (mkdir(DIRECTORY, 0755))
		return errno == EEXIST;
	return !chmod(DIRECTORY, 0755);
}

int control_socket_open(unsigned int number, gid_t group)
{
	struct sockaddr_un address = address_of(number);
	int lock, fd = -1;

	lock = make_directory() ? lock_directory() : -1;
	if (lock >= 0)
		fd = bind_socket(&address, group);
	if (fd < 0)
		log_warning("no control socket: %s: %s", address.sun_path, strerror(errno));
	if (lock >= 0)
		close(lock);
	return fd;
}

void control_socket_close(int fd, unsigned int number)
{
	struct sockaddr_un address = address_of(number);
	struct stat attr;
	int lock;

	if (fd < 0)
		return;
	lock = lock_directory();
	if (!stat(address.sun_path, &attr) && attr.st_ino == own_inode)
		unlink(address.sun_path);
	close(lock);
	close(fd);
}
