/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Whose a kernel object is: owner tags that name a process beyond the reuse of its pid, and MAC addresses from names. */
#include "net/port.h"

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/network.h"

int net_proc_start(int pid, uint64_t *start)
{
	char path[40], buf[1024], state;
	const char *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return -ESRCH;
	buf[n] = '\0';
	/* The command may hold blanks and parentheses: the fields begin behind the last one. */
	p = strrchr(buf, ')');
	if (!p || sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" G_GUINT64_FORMAT,
			 &state, start) != 2)
		return -EPROTO;
	return state == 'Z' || state == 'X' ? -ESRCH : 0;
}

char *net_owner_tag(const char *vm, unsigned index)
{
	uint64_t start = 0;

	net_proc_start(getpid(), &start);
	return g_strdup_printf("vhost:%s:%d:%" G_GUINT64_FORMAT ":%u", vm, (int)getpid(), start, index);
}

int net_owner_alive(void *unused, const char *owner)
{
	g_auto(GStrv) part = g_strsplit(owner, ":", 6);
	uint64_t start, now;
	char *end;
	long pid;
	int r;

	if (part[0] && part[1] && part[1][0] == '@')
		return network_held(owner);
	/* What cannot be read as a tag is somebody's: never removed. */
	if (g_strv_length(part) != 5 || strcmp(part[0], "vhost"))
		return 1;
	errno = 0;
	pid = strtol(part[2], &end, 10);
	if (errno || *end || end == part[2] || pid <= 0 || pid > INT32_MAX)
		return 1;
	start = g_ascii_strtoull(part[3], &end, 10);
	if (*end || end == part[3])
		return 1;
	r = net_proc_start((int)pid, &now);
	if (r == -ESRCH)
		return 0;
	return r < 0 || now == start;
}

void net_mac_derive(const char *vm, unsigned index, uint8_t mac[6])
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	char tail[16];

	/* FNV-1a, then a finaliser, for neighbouring names and indices must differ in all bits. */
	for (const char *p = vm; *p; p++)
		h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	snprintf(tail, sizeof(tail), ":%u", index);
	for (const char *p = tail; *p; p++)
		h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	h ^= h >> 33;
	h *= UINT64_C(0xff51afd7ed558ccd);
	h ^= h >> 33;
	mac[0] = 0x02;
	for (int i = 1; i < 6; i++)
		mac[i] = (uint8_t)(h >> (8 * i));
}
