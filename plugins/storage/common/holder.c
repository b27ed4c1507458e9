/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Who holds a lease. OFD locks do not tell their owner, so a holder leaves a record in an extended attribute of the
 * file: "HOST PID SINCE TEXT". A record counts only as long as the file is locked and its process has the file open;
 * else /proc is searched for a process with a locked descriptor of the inode. A block device is the same through
 * every node that has its number; where nobody has locked it, whoever has it open is named.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include "lease.h"

/* Attributes of users are for files and folders only. */
static const char *attr_of(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISBLK(st.st_mode) ? "trusted.vhost.holder" : "user.vhost.holder";
}

struct record {
	char host[65], since[32], text[256];
	int pid;
};

static int record_read(int fd, struct record *r)
{
	char buf[512];
	ssize_t n = fgetxattr(fd, attr_of(fd), buf, sizeof(buf) - 1);

	if (n <= 0)
		return -ENODATA;
	buf[n] = 0;
	if (sscanf(buf, "%64s %d %31s %255[^\n]", r->host, &r->pid, r->since, r->text) != 4 || r->pid <= 0)
		return -ENODATA;
	return 0;
}

static int same(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(b->st_mode))
		return S_ISBLK(a->st_mode) && a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether process `pid` has the inode open with a lock on it (any: or without): 1, 0, -errno when it cannot be told. */
static int holds(int pid, const struct stat *st, int any)
{
	char dir[64], line[256];
	struct dirent *d;
	struct stat s;
	int found = 0;
	DIR *fds;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	fds = opendir(dir);
	if (!fds)
		return errno == ENOENT || errno == ESRCH ? 0 : -errno;
	while (!found && (d = readdir(fds))) {
		char info[340];
		FILE *f;

		if (!isdigit((unsigned char)d->d_name[0]) || fstatat(dirfd(fds), d->d_name, &s, 0) < 0 || !same(&s, st))
			continue;
		snprintf(info, sizeof(info), "/proc/%d/fdinfo/%s", pid, d->d_name);
		f = fopen(info, "re");
		while (f && !found && fgets(line, sizeof(line), f))
			found = any || !strncmp(line, "lock:", 5);
		if (f)
			fclose(f);
	}
	closedir(fds);
	return found;
}

/* RFC 3339. gmtime() would read the time zone's file, on the way of a starting VM. Days to a date after Howard Hinnant's
 * well-known arithmetic: years begin in March, so that the leap day is the last one. */
static void utc_text(time_t t, char out[32])
{
	unsigned second = (unsigned)(t % 86400);
	uint64_t day = (uint64_t)(t / 86400) + 719468, era = day / 146097, doe = day % 146097;
	uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned mp = (unsigned)((5 * doy + 2) / 153), d = (unsigned)(doy - (153 * mp + 2) / 5 + 1), m = mp < 10 ? mp + 3 : mp - 9;

	snprintf(out, 32, "%04u-%02u-%02uT%02u:%02u:%02uZ", (unsigned)(yoe + era * 400 + (m <= 2)) % 10000, m % 100, d % 100,
		 second / 3600, second / 60 % 60, second % 60);
}

void lease_holder_write(int fd, const char *holder, int shared)
{
	char buf[512], since[32];
	struct utsname u;
	struct record old;
	struct stat st;
	time_t now = time(NULL);
	int n;

	if (!holder || uname(&u) < 0)
		return;
	utc_text(now, since);
	n = snprintf(buf, sizeof(buf), "%.64s %d %s %.255s", u.nodename[0] ? u.nodename : "-", (int)getpid(), since,
		     holder);
	for (char *c = buf; *c; c++)
		if ((unsigned char)*c < 0x20)
			*c = ' ';
	/* Readers share: the first one's record stands as long as that one does. No attribute, no record: not an error. */
	if (fsetxattr(fd, attr_of(fd), buf, (size_t)n, shared ? XATTR_CREATE : 0) < 0 && errno == EEXIST &&
	    !record_read(fd, &old) && !fstat(fd, &st) && (strcmp(old.host, u.nodename) || !holds(old.pid, &st, 0)))
		fsetxattr(fd, attr_of(fd), buf, (size_t)n, 0);
}

void lease_holder_clear(int fd)
{
	struct record r;

	if (!record_read(fd, &r) && r.pid == getpid())
		fremovexattr(fd, attr_of(fd));
}

static void describe(int pid, char *out, size_t cap)
{
	char path[64], cmd[200] = "";
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, cmd, sizeof(cmd) - 1);
	if (fd >= 0)
		close(fd);
	for (ssize_t i = 0; i < n; i++)
		if ((unsigned char)cmd[i] < 0x20)
			cmd[i] = ' ';
	while (n > 0 && cmd[n - 1] == ' ')
		cmd[--n] = 0;
	snprintf(out, cap, "pid %d %s%s", pid, n > 0 ? cmd : "(unknown command)", pid == getpid() ? " (this process)" : "");
}

static int search(const struct stat *st, int any, char *out, size_t cap)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	int found = 0;

	if (!proc)
		return 0;
	while (!found && (d = readdir(proc))) {
		int pid = atoi(d->d_name);

		/* Ourselves last: the caller's own descriptor of the file is not locked, but a second volume's may be. */
		if (pid > 0 && pid != getpid() && holds(pid, st, any) == 1) {
			describe(pid, out, cap);
			found = 1;
		}
	}
	closedir(proc);
	if (!found && !any && holds(getpid(), st, 0) == 1) {
		describe(getpid(), out, cap);
		found = 1;
	}
	return found;
}

int lease_busy(const struct vh_host *host, int fd, struct vh_err *e)
{
	char who[512] = "";
	struct utsname u = {0};
	struct record r;
	struct stat st;

	uname(&u);
	if (fstat(fd, &st) < 0)
		return host->err(e, -EBUSY, "in use");
	if (!record_read(fd, &r)) {
		int here = !strcmp(r.host, u.nodename);

		/* A process that we may not look into (-EACCES) is believed as long as it lives. */
		if (!here)
			snprintf(who, sizeof(who), "%s on host %s since %s", r.text, r.host, r.since);
		else if (holds(r.pid, &st, 0))
			snprintf(who, sizeof(who), "%s since %s", r.text, r.since);
	}
	if (!who[0] && !search(&st, 0, who, sizeof(who)) && (!S_ISBLK(st.st_mode) || !search(&st, 1, who, sizeof(who))))
		snprintf(who, sizeof(who), "an unknown process (of another user or host)");
	host->remedy(e, "stop that first, or wait until it has ended");
	return host->err(e, -EBUSY, "in use by %s", who);
}
