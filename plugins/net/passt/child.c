/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * One passt process. It ends by itself when its socket does: when the port is closed, and when whoever has the other end dies,
 * however that happens; so there is nothing to be told, and nothing that a sealed helper would need a privilege for.
 */
#include "passt.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"
#include "plugin.h"

#define SAID_MAX 4096    /* of what passt says: its memory file grows no further */
#ifdef VH_NET_TEST
#define START_TRIES 100
#else
#define START_TRIES 2000 /* of 5 ms */
#endif
#define END_MS 3000

static ssize_t read_proc(pid_t pid, const char *file, char *buf, size_t cap)
{
	char path[40];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, cap - 1);
	if (n < 0)
		n = -errno;
	else
		buf[n] = '\0';
	close(fd);
	return n;
}

static int started(pid_t pid, uint64_t *start)
{
	char buf[1024], state;
	const char *p;
	ssize_t n = read_proc(pid, "stat", buf, sizeof(buf));

	if (n < 0)
		return (int)n;
	p = strrchr(buf, ')'); /* the name may hold anything */
	if (!p || sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64, &state, start) != 2)
		return -EPROTO;
	return state == 'Z' || state == 'X' ? -ESRCH : 0;
}

/* passt confines itself by seccomp when it has set up everything, right before it serves. */
static int serves(pid_t pid)
{
	char buf[4096];
	const char *at = read_proc(pid, "status", buf, sizeof(buf)) > 0 ? strstr(buf, "\nSeccomp:") : NULL;

	return at && atoi(at + 9) == 2;
}

/* In one line, without what is no reason. */
static void said(int fd, char *out, size_t cap)
{
	static const char *const noise[] = { "Failed to send ", "Don't run as root" };
	char buf[SAID_MAX + 1], *save = NULL;
	ssize_t n = pread(fd, buf, SAID_MAX, 0);
	size_t len = 0;

	out[0] = '\0';
	buf[n > 0 ? n : 0] = '\0';
	for (char *line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (!strncmp(line, noise[0], strlen(noise[0])) || !strncmp(line, noise[1], strlen(noise[1])) || len + strlen(line) + 3 > cap)
			continue;
		len += (size_t)snprintf(out + len, cap - len, "%s%s", len ? "; " : "", line);
	}
	for (char *p = out; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
}

static int above(int fd)
{
	int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 16); /* out of the way of those it will have */

	if (fd >= 0)
		close(fd);
	return high;
}

/* With nothing of ours but its socket: no file, no environment, no ignored signal; not in our group, for Ctrl-C is not for it. */
static int spawn(struct child *c, const struct args *a, int sock, int text)
{
	static char *const environment[] = { (char *)"PATH=/usr/bin:/bin", (char *)"LC_ALL=C", NULL };
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t set;
	int r;

	if (posix_spawn_file_actions_init(&files))
		return -ENOMEM;
	if (posix_spawnattr_init(&attr)) {
		posix_spawn_file_actions_destroy(&files);
		return -ENOMEM;
	}
	r = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
	r = r ? r : posix_spawn_file_actions_adddup2(&files, text, 1);
	r = r ? r : posix_spawn_file_actions_adddup2(&files, text, 2);
	r = r ? r : posix_spawn_file_actions_adddup2(&files, sock, PASST_FD);
	r = r ? r : posix_spawn_file_actions_addclosefrom_np(&files, PASST_FD + 1);
	sigemptyset(&set);
	r = r ? r : posix_spawnattr_setsigmask(&attr, &set);
	sigfillset(&set);
	r = r ? r : posix_spawnattr_setsigdefault(&attr, &set);
	r = r ? r : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
	r = r ? r : posix_spawn(&c->pid, a->v[0], &files, &attr, a->v, environment);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attr);
	return -r;
}

static int wait_until_it_serves(struct child *c, int text, struct vh_err *e)
{
	struct timespec nap = { .tv_nsec = 5000000 };
	char words[1024];
	int status, tries;

	for (tries = 0; tries < START_TRIES && !serves(c->pid); tries++) {
		if (waitpid(c->pid, &status, WNOHANG) == c->pid) {
			c->pid = 0;
			said(text, words, sizeof(words));
			int alone = strstr(words, "routable interface") || strstr(words, "External interface");

			if (alone)
				net_host->remedy(e, "user networking is what the host reaches: give the host a default route");
			return net_host->err(e, alone ? -ENODEV : -EIO, "passt ended with status %d: %s", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
					     words[0] ? words : "it says nothing");
		}
		nanosleep(&nap, NULL);
	}
	return tries < START_TRIES ? 0 : net_host->err(e, -ETIMEDOUT, "passt does not get ready");
}

int child_start(struct child *c, const struct args *a, struct vh_err *e)
{
	int s[2] = { -1, -1 }, text, r = NET_FAULT("spawn");

	*c = (struct child){ .pidfd = -1, .sock = -1 };
	text = memfd_create("passt", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (text >= 0 && (ftruncate(text, SAID_MAX) < 0 || fcntl(text, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) < 0)) {
		close(text);
		text = -1;
	}
	text = above(text);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) < 0)
		s[0] = s[1] = -1;
	s[0] = above(s[0]);
	s[1] = above(s[1]);
	if (!r && (text < 0 || s[0] < 0 || s[1] < 0 || fcntl(s[0], F_SETFL, O_NONBLOCK) < 0))
		r = -errno;
	if (!r)
		r = spawn(c, a, s[1], text);
	if (s[1] >= 0)
		close(s[1]);
	c->sock = s[0];
	if (r < 0) {
		c->pid = 0;
		net_host->err(e, r, "cannot start %s: %s", a->v[0], strerror(-r));
	} else {
		r = wait_until_it_serves(c, text, e);
	}
	if (!r) {
		c->pidfd = pidfd_open(c->pid, 0);
		r = c->pidfd < 0 ? -errno : started(c->pid, &c->start);
		if (r < 0)
			net_host->err(e, r, "passt, process %d, is gone at once: %s", (int)c->pid, strerror(-r));
	}
	if (text >= 0)
		close(text);
	if (r < 0) {
		child_end(c);
		c->pid = 0;
	}
	return r;
}

int child_end(struct child *c)
{
	struct pollfd p = { c->pidfd, POLLIN, 0 };
	int gone = 0;

	if (c->sock >= 0)
		close(c->sock);
	c->sock = -1;
	if (c->pid <= 0)
		return 1;
	if (c->pidfd < 0) { /* only while it starts: it may be killed */
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
		return 1;
	}
	gone = poll(&p, 1, END_MS) == 1;
	/* A sealed helper may do neither; then the system's init, and gc(), do. */
	if (!gone && !pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0))
		gone = poll(&p, 1, END_MS) == 1;
	if (gone)
		waitpid(c->pid, NULL, WNOHANG);
	close(c->pidfd);
	c->pidfd = -1;
	return gone;
}

int child_kill(pid_t pid, uint64_t start)
{
	uint64_t now;
	int fd = pid > 1 ? pidfd_open(pid, 0) : -1, r = 0;

	if (fd < 0)
		return pid <= 1 || errno == ESRCH ? 0 : -errno;
	/* Asked of the one that the fd stands for. */
	if (!started(pid, &now) && now == start)
		r = pidfd_send_signal(fd, SIGKILL, NULL, 0) < 0 ? (errno == ESRCH ? 0 : -errno) : 1;
	close(fd);
	return r;
}
