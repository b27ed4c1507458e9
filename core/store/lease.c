/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * One file per identity, named by its hash. Open-file-description locks on its first two bytes are the lease: byte 0 is the
 * readers', byte 1 that of writers who share; a sole user has both. Its lines say who holds it, for people; a line counts
 * only while its process has the file locked. Whoever has it alone when it lets go removes the file.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/pool.h>
#include "store/lease.h"
#include "util/paths.h"

#define READERS 0
#define WRITERS 1
#define LINES_MAX 16384 /* of those who share and have gone; then they are thrown away */

struct lease {
	int fd;
	uint32_t mode;
	char *path, *who;
};

static int set(int fd, short type, int start, int len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	if (!fcntl(fd, F_OFD_SETLK, &l))
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* Whether anybody else has a lock there. */
static int taken(int fd, int start, int len)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	return fcntl(fd, F_OFD_GETLK, &l) < 0 ? -errno : l.l_type != F_UNLCK;
}

/* From one mode (PEEK: none) to another. Nothing is let go before the new one is held. */
static int move(int fd, uint32_t from, uint32_t to)
{
	int mine = to == VH_ATTACH_RO ? READERS : WRITERS, ret;

	if (from == to)
		return 0;
	if (to == VH_ATTACH_RW_EXCL)
		return set(fd, F_WRLCK, READERS, 2);
	ret = set(fd, F_RDLCK, mine, 1);
	if (!ret && from != VH_ATTACH_RW_EXCL) {
		ret = taken(fd, !mine, 1);
		if (ret)
			set(fd, F_UNLCK, mine, 1);
		ret = ret == 1 ? -EBUSY : ret;
	}
	if (!ret)
		set(fd, F_UNLCK, !mine, 1);
	return ret;
}

/* ---- who holds it ---- */

static void sign(struct lease *l)
{
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();
	g_autofree char *since = g_date_time_format_iso8601(now), *line = NULL;
	struct stat st;

	line = g_strdup_printf("%d %s %.200s\n", (int)getpid(), since, l->who);
	for (char *c = line; c[1]; c++)
		if ((unsigned char)*c < 0x20)
			*c = ' ';
	if (l->mode == VH_ATTACH_RW_EXCL || (!fstat(l->fd, &st) && st.st_size > LINES_MAX)) {
		if (ftruncate(l->fd, 0) < 0) /* then an old line stays, which does not count */
			return;
	}
	if (write(l->fd, line, strlen(line)) < 0) { /* nobody's name is known then, the lock holds all the same */
	}
}

/* Whether process `pid` has the file open with a lock on it: 1, 0, -errno when it cannot be told. */
static int holds(int pid, const struct stat *st)
{
	g_autofree char *dir = g_strdup_printf("/proc/%d/fd", pid);
	DIR *fds = opendir(dir);
	struct dirent *d;
	struct stat s;
	int found = 0;

	if (!fds)
		return errno == ENOENT || errno == ESRCH ? 0 : -errno;
	while (!found && (d = readdir(fds))) {
		g_autofree char *info = NULL, *text = NULL;

		if (!isdigit((unsigned char)d->d_name[0]) || fstatat(dirfd(fds), d->d_name, &s, 0) < 0 ||
		    s.st_dev != st->st_dev || s.st_ino != st->st_ino)
			continue;
		info = g_strdup_printf("/proc/%d/fdinfo/%s", pid, d->d_name);
		found = g_file_get_contents(info, &text, NULL, NULL) && strstr(text, "\nlock:") != NULL;
	}
	closedir(fds);
	return found;
}

/* A process that holds it and wrote no line that counts: one that was forked, say. */
static char *search(const struct stat *st)
{
	GDir *proc = g_dir_open("/proc", 0, NULL);
	char *who = NULL;
	const char *n;

	while (proc && !who && (n = g_dir_read_name(proc))) {
		int pid = isdigit((unsigned char)*n) ? atoi(n) : 0;
		g_autofree char *path = NULL, *cmd = NULL;
		gsize len;

		if (pid <= 0 || holds(pid, st) != 1)
			continue;
		path = g_strdup_printf("/proc/%d/cmdline", pid);
		if (g_file_get_contents(path, &cmd, &len, NULL))
			for (gsize i = 0; i + 1 < len; i++)
				if ((unsigned char)cmd[i] < 0x20)
					cmd[i] = ' ';
		who = g_strdup_printf("pid %d %s", pid, cmd && *cmd ? cmd : "(unknown command)");
	}
	if (proc)
		g_dir_close(proc);
	return who;
}

static char *holder(int fd)
{
	char buf[LINES_MAX + 1024];
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);
	g_auto(GStrv) lines = NULL;
	char *who = NULL;
	unsigned more = 0;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return g_strdup("an unknown process");
	buf[MAX(n, 0)] = 0;
	lines = g_strsplit(buf, "\n", -1);
	for (unsigned i = 0; lines[i]; i++) {
		char since[64], text[256];
		int pid;

		/* A process that may not be looked into is believed as long as it lives. */
		if (sscanf(lines[i], "%d %63s %255[^\n]", &pid, since, text) != 3 || pid <= 0 || !holds(pid, &st))
			continue;
		if (who)
			more++;
		else
			who = g_strdup_printf("%s since %s%s", text, since, pid == getpid() ? " (this process)" : "");
	}
	if (who && more) {
		char *all = g_strdup_printf("%s, and %u more", who, more);

		g_free(who);
		who = all;
	}
	if (!who)
		who = search(&st);
	return who ? who : g_strdup("an unknown process (of another user, or of another PID namespace)");
}

static int busy(int fd, struct vh_err *e)
{
	g_autofree char *who = holder(fd);

	err_remedy(e, "stop that first, or wait until it has ended");
	return err_set(e, -EBUSY, "in use by %s", who);
}

/* ---- taking and letting go ---- */

static char *path_of(const char *identity)
{
	g_autofree char *name = g_compute_checksum_for_string(G_CHECKSUM_SHA256, identity, -1);

	return path_in(PATH_STATE, ".leases", name, NULL);
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 && errno == ENOENT) {
		g_autofree char *dir = g_path_get_dirname(path);
		ERR_AUTO(e);
		int ret = path_make(dir, 0700, &e);

		if (ret)
			return ret;
		fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	return fd < 0 ? -errno : fd;
}

/* The one that let go of it may have removed it between our opening and our locking. */
static int still_there(int fd, const char *path)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat(path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int lease_take(const char *identity, uint32_t mode, const char *who, struct lease **out, struct vh_err *e)
{
	g_autofree char *path = NULL;
	int fd, ret;

	*out = NULL;
	if (mode == VH_ATTACH_PEEK)
		return 0;
	path = path_of(identity);
	for (;;) {
		fd = ret = open_file(path);
		if (fd < 0)
			break;
		ret = move(fd, VH_ATTACH_PEEK, mode);
		if (still_there(fd, path) || (ret && ret != -EBUSY))
			break;
		close(fd);
	}
	if (ret == -EBUSY)
		ret = busy(fd, e);
	else if (ret < 0)
		ret = err_set(e, ret, "its lease %s cannot be taken: %s", path, g_strerror(-ret));
	if (ret < 0) {
		if (fd >= 0)
			close(fd);
		return ret;
	}
	*out = g_new(struct lease, 1);
	**out = (struct lease){fd, mode, g_steal_pointer(&path), g_strdup(who ? who : "vhost")};
	sign(*out);
	return 0;
}

int lease_change(struct lease *l, uint32_t mode, struct vh_err *e)
{
	int ret = mode > VH_ATTACH_RW_SHARED ? -EINVAL : move(l->fd, l->mode, mode);

	if (ret == -EBUSY)
		return busy(l->fd, e);
	if (ret)
		return err_set(e, ret, "its lease cannot be changed: %s", g_strerror(-ret));
	l->mode = mode;
	sign(l);
	return 0;
}

void lease_drop(struct lease *l)
{
	if (!l)
		return;
	/* Alone with it? Then nobody else can hold the file, and whoever opened it by now looks again. */
	if (!move(l->fd, l->mode, VH_ATTACH_RW_EXCL))
		unlink(l->path);
	close(l->fd);
	g_free(l->path);
	g_free(l->who);
	g_free(l);
}

int lease_look(const char *identity, char **who)
{
	g_autofree char *path = path_of(identity);
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC), held;

	if (who)
		*who = NULL;
	if (fd < 0)
		return 0;
	held = taken(fd, READERS, 2) == 1;
	if (held && who)
		*who = holder(fd);
	close(fd);
	return held;
}
