/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A VM's folder of running state. `lock` is held by flock for the VM's life, so the kernel gives it back whatever happens
 * to the process; `pid` says who holds it, for people, and for readers, which must not take the lock even for a moment.
 */
#include "ctl/ctl.h"

#include <dirent.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/port.h"
#include "util/paths.h"

struct ctl_dir {
	char *name, *path;
	int lock;
	pid_t pid; /* who claimed it: a forked child must not remove it */
};

static int read_pid(const char *path, int *pid, uint64_t *start)
{
	g_autofree char *file = g_build_filename(path, "pid", NULL);
	char buf[64];
	ssize_t n;
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return -ENODATA;
	buf[n] = '\0';
	return sscanf(buf, "%d %" G_GUINT64_FORMAT, pid, start) == 2 && *pid > 0 ? 0 : -ENODATA;
}

int ctl_dir_running(const char *name, int *pid)
{
	g_autofree char *path = path_in(PATH_STATE, name, NULL);
	uint64_t start, now;
	int r = read_pid(path, pid, &start);

	if (r < 0)
		return r == -ENODATA ? -ENOENT : r;
	r = net_proc_start(*pid, &now);
	return r < 0 || now != start ? -ENOENT : 0;
}

static int is_vm(const char *name)
{
	g_autofree char *pid = path_in(PATH_STATE, name, "pid", NULL);

	return !name_check("VM", name, NULL) && !access(pid, F_OK);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int ctl_dir_scan(int (*fn)(void *ctx, const char *name), void *ctx, struct vh_err *e)
{
	g_autofree char *path = path_in(PATH_STATE, NULL);
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	struct dirent *d;
	DIR *dir = opendir(path);
	int r = 0;

	if (!dir)
		return errno == ENOENT ? 0 : err_set(e, -errno, "cannot read folder %s: %s", path, g_strerror(errno));
	while ((d = readdir(dir)))
		if (is_vm(d->d_name))
			g_ptr_array_add(names, g_strdup(d->d_name));
	closedir(dir);
	if (names->len)
		qsort(names->pdata, names->len, sizeof(void *), by_name);
	for (unsigned i = 0; i < names->len && !r; i++)
		r = fn(ctx, names->pdata[i]);
	return r;
}

/* The lock may have been released and its file removed between open and flock: then it is another file's lock. */
static int take_lock(const char *path, struct vh_err *e)
{
	g_autofree char *file = g_build_filename(path, "lock", NULL);
	struct stat held, there;
	int fd, err;

	for (int tries = 0; tries < 100; tries++) {
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return err_set(e, -errno, "cannot make folder %s: %s", path, g_strerror(errno));
		fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0)
			return err_set(e, -errno, "cannot open %s: %s", file, g_strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			err = errno;
			close(fd);
			return err == EWOULDBLOCK ? -EWOULDBLOCK :
						    err_set(e, -err, "cannot lock %s: %s", file, g_strerror(err));
		}
		if (!fstat(fd, &held) && !stat(file, &there) && held.st_ino == there.st_ino && held.st_dev == there.st_dev)
			return fd;
		close(fd);
	}
	return err_set(e, -EBUSY, "folder %s is made and removed all the time", path);
}

static int check_folder(const char *path, struct vh_err *e)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return err_set(e, -errno, "cannot stat folder %s: %s", path, g_strerror(errno));
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return err_set(e, -EPERM, "%s is not a folder of this user", path);
	if ((st.st_mode & 077) && chmod(path, 0700) < 0)
		return err_set(e, -errno, "cannot make folder %s private: %s", path, g_strerror(errno));
	return 0;
}

int ctl_dir_claim(const char *name, struct ctl_dir **out, struct vh_err *e)
{
	static const char *const left[] = { "control.sock", "pid", "log", NULL };
	g_autofree char *path = NULL, *base = NULL, *text = NULL, *file = NULL;
	ERR_AUTO(local);
	struct ctl_dir *d;
	uint64_t start = 0;
	int fd, r, pid = 0;

	e = e ? e : &local;
	err_object(e, "VM %s", name);
	r = name_check("VM", name, e);
	if (r < 0)
		return r;
	path = path_in(PATH_STATE, name, NULL);
	base = path_in(PATH_STATE, NULL);
	r = path_make(base, 0755, e);
	if (r < 0)
		return r;
	fd = take_lock(path, e);
	if (fd == -EWOULDBLOCK) {
		read_pid(path, &pid, &start);
		err_status(e, EXIT_EXISTS);
		r = pid ? err_set(e, -EEXIST, "a VM of this name runs already, process %d", pid) :
			  err_set(e, -EEXIST, "a VM of this name is starting or ending");
		err_remedy(e, "stop it with `vhost vm stop %s`, or choose another --name", name);
		return r;
	}
	if (fd < 0)
		return fd;
	r = check_folder(path, e);
	if (r < 0) {
		close(fd);
		return r;
	}
	/* What a dead VM left would mislead clients from now on. */
	for (unsigned i = 0; left[i]; i++) {
		g_autofree char *old = g_build_filename(path, left[i], NULL);

		unlink(old);
	}
	net_proc_start(getpid(), &start);
	text = g_strdup_printf("%d %" G_GUINT64_FORMAT "\n", (int)getpid(), start);
	file = g_build_filename(path, "pid", NULL);
	r = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r < 0 || write(r, text, strlen(text)) != (ssize_t)strlen(text)) {
		int err = r < 0 || errno ? errno : EIO;

		if (r >= 0)
			close(r);
		close(fd);
		return err_set(e, -err, "cannot write %s: %s", file, g_strerror(err));
	}
	close(r);
	d = g_new0(struct ctl_dir, 1);
	d->name = g_strdup(name);
	d->path = g_steal_pointer(&path);
	d->lock = fd;
	d->pid = getpid();
	*out = d;
	return 0;
}

const char *ctl_dir_path(const struct ctl_dir *d)
{
	return d->path;
}

const char *ctl_dir_name(const struct ctl_dir *d)
{
	return d->name;
}

void ctl_dir_release(struct ctl_dir *d)
{
	struct dirent *f;
	DIR *dir;

	if (!d)
		return;
	if (d->pid == getpid()) {
		/* The lock goes last: whoever waits for it finds a folder that is empty, or gone. */
		dir = opendir(d->path);
		while (dir && (f = readdir(dir)))
			if (strcmp(f->d_name, ".") && strcmp(f->d_name, "..") && strcmp(f->d_name, "lock"))
				unlinkat(dirfd(dir), f->d_name, 0);
		if (dir)
			unlinkat(dirfd(dir), "lock", 0);
		if (dir)
			closedir(dir);
		rmdir(d->path);
	}
	close(d->lock);
	g_free(d->name);
	g_free(d->path);
	g_free(d);
}
