/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Files nat.WHAT.BRIDGE beside the journal. `up` is written before a network's first object and removed after its last: it is
 * the journal of what no port owns.
 */
#include "nat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

int record_path(char out[PATH_MAX], const char *state, const char *what, const char *bridge)
{
	return snprintf(out, PATH_MAX, "%s/nat.%s.%s", state, what, bridge) >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int record_put(const char *state, const char *what, const char *bridge, const char *text)
{
	char path[PATH_MAX], tmp[PATH_MAX];
	size_t len = strlen(text);
	ssize_t n;
	int fd, r = record_path(path, state, what, bridge);

	if (!r)
		r = record_path(tmp, state, "new", "file"); /* one writer: the journal is locked */
	if (!r)
		r = NET_FAULT("record");
	if (r)
		return r;
	unlink(tmp);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	n = write(fd, text, len);
	r = n < 0 ? -errno : (size_t)n < len ? -ENOSPC : 0;
	close(fd);
	if (!r && rename(tmp, path) < 0)
		r = -errno;
	if (r)
		unlink(tmp);
	return r;
}

int record_get(const char *state, const char *what, const char *bridge, char *text, size_t cap)
{
	char path[PATH_MAX];
	ssize_t n;
	int fd, r = record_path(path, state, what, bridge);

	if (r)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	n = read(fd, text, cap - 1);
	r = n < 0 ? -errno : 0;
	close(fd);
	text[n < 0 ? 0 : n] = '\0';
	return r;
}

void record_drop(const char *state, const char *what, const char *bridge)
{
	char path[PATH_MAX];

	if (!record_path(path, state, what, bridge))
		unlink(path);
}

int record_write(const char *state, const char *bridge, const struct nat_record *r)
{
	char text[256];

	snprintf(text, sizeof(text), "options %016llx\nkind %s\nkeep %d\nifindex %d\naddress %s\n", (unsigned long long)r->options,
		 r->nat ? "nat" : "isolated", r->keep, r->ifindex, r->address[0] ? r->address : "-");
	return record_put(state, "up", bridge, text);
}

int record_read(const char *state, const char *bridge, struct nat_record *r)
{
	unsigned long long options;
	char text[256], kind[16];
	int ret;

	memset(r, 0, sizeof(*r));
	ret = record_get(state, "up", bridge, text, sizeof(text));
	if (ret < 0)
		return ret;
	if (sscanf(text, "options %llx kind %15s keep %d ifindex %d address %63s", &options, kind, &r->keep, &r->ifindex,
		   r->address) != 5)
		return -EPROTO;
	r->options = options;
	r->nat = !strcmp(kind, "nat");
	if (!strcmp(r->address, "-"))
		r->address[0] = '\0';
	return 0;
}

int record_scan(const char *state, void (*fn)(void *ctx, const char *bridge), void *ctx)
{
	DIR *dir = opendir(state);
	struct dirent *d;

	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	errno = 0;
	while ((d = readdir(dir))) {
		if (!strncmp(d->d_name, "nat.up.", 7) && want_bridge_ok(d->d_name + 7))
			fn(ctx, d->d_name + 7);
		errno = 0;
	}
	int err = errno;

	closedir(dir);
	return -err;
}
