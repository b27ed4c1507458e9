/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"

#define TAG "vhost:"

int journal_lock(const char *state, int exclusive)
{
	struct timespec nap = { .tv_nsec = 2000000 };
	char path[4096];
	int fd, err;

	if (snprintf(path, sizeof(path), "%s/lock", state) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	for (int tries = 0; flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0; tries++) {
		if ((errno == EWOULDBLOCK || errno == EINTR) && tries < 5000) {
			nanosleep(&nap, NULL);
			continue;
		}
		err = errno == EWOULDBLOCK ? ETIMEDOUT : errno;
		close(fd);
		return -err;
	}
	return fd;
}

int journal_owner_ok(const char *owner)
{
	size_t n = owner ? strlen(owner) : 0;

	return n > strlen(TAG) && n < 200 && !strncmp(owner, TAG, strlen(TAG)) && !strchr(owner, '/');
}

static int entry_path(char *out, size_t cap, const char *state, const char *owner)
{
	return snprintf(out, cap, "%s/%s", state, owner) >= (int)cap ? -ENAMETOOLONG : 0;
}

int journal_write(const char *state, const char *owner, const char *text)
{
	size_t len = strlen(text);
	char path[4096];
	ssize_t n;
	int fd, r = entry_path(path, sizeof(path), state, owner);

	if (!r)
		r = NET_FAULT("journal");
	if (r)
		return r;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	/* Not synced: kernel objects do not outlive the kernel either. */
	n = write(fd, text, len);
	r = n < 0 ? -errno : (size_t)n < len ? -ENOSPC : 0;
	close(fd);
	if (r)
		unlink(path);
	return r;
}

int journal_remove(const char *state, const char *owner)
{
	char path[4096];
	int r = entry_path(path, sizeof(path), state, owner);

	if (!r)
		r = NET_FAULT("journal end");
	if (r)
		return r;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int journal_scan(const char *state, void (*fn)(void *ctx, const char *owner, const char *text), void *ctx)
{
	char path[4096], text[1024];
	struct dirent *d;
	ssize_t n;
	DIR *dir;
	int fd;

	dir = opendir(state);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	while ((d = readdir(dir))) {
		if (!journal_owner_ok(d->d_name) || entry_path(path, sizeof(path), state, d->d_name))
			continue;
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd < 0)
			continue;
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
		if (n < 0)
			continue;
		text[n] = '\0';
		fn(ctx, d->d_name, text);
	}
	closedir(dir);
	return 0;
}
