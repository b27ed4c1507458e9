/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "util/paths.h"

#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* $VAR/vhost when VAR is set to an absolute path (XDG: others are ignored), else HOME/fallback/vhost. */
static char *xdg(const char *var, const char *fallback)
{
	const char *v = getenv(var), *home;

	if (v && v[0] == '/')
		return g_build_filename(v, "vhost", NULL);
	home = getenv("HOME");
	return g_build_filename(home && home[0] == '/' ? home : g_get_home_dir(), fallback, "vhost", NULL);
}

static char *base_dir(enum path_dir dir)
{
	static const char *const names[] = { [PATH_CONFIG] = "config", [PATH_DATA] = "data", [PATH_STATE] = "state" };
	static const char *const system_dirs[] = {
		[PATH_CONFIG] = "/etc/vhost", [PATH_DATA] = "/var/lib/vhost", [PATH_STATE] = "/run/vhost",
	};
	const char *root = getenv("VHOST_ROOT");

	if (root && *root) {
		g_autofree char *abs = g_canonicalize_filename(root, NULL);

		return g_build_filename(abs, names[dir], NULL);
	}
	if (!geteuid())
		return g_strdup(system_dirs[dir]);
	switch (dir) {
	case PATH_CONFIG:
		return xdg("XDG_CONFIG_HOME", ".config");
	case PATH_DATA:
		return xdg("XDG_DATA_HOME", ".local/share");
	default:
		/* Without a session's folder: one that nobody else can have made before, so not below /tmp. */
		return xdg("XDG_RUNTIME_DIR", ".local/state");
	}
}

char *path_in(enum path_dir dir, ...)
{
	GString *s = g_string_new(NULL);
	g_autofree char *base = base_dir(dir);
	const char *part;
	va_list ap;

	g_string_append(s, base);
	va_start(ap, dir);
	while ((part = va_arg(ap, const char *)))
		g_string_append_printf(s, "/%s", part);
	va_end(ap);
	return g_string_free(s, FALSE);
}

int path_make(const char *dir, unsigned mode, struct vh_err *e)
{
	g_autofree char *path = g_strdup(dir);
	struct stat st;
	char *p = path;
	int err;

	if (!*path)
		return err_set(e, -EINVAL, "an empty path cannot be made");
	for (;;) {
		p += strspn(p, "/");
		p += strcspn(p, "/");
		char saved = *p;
		int last = !p[strspn(p, "/")];

		*p = '\0';
		if (mkdir(path, last ? mode : mode | 0755) < 0) {
			err = errno;
			if (err != EEXIST && stat(path, &st) < 0) /* EROFS and others come before EEXIST */
				return err_set(e, -err, "cannot make folder %s: %s", path, g_strerror(err));
			if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
				return err_set(e, -ENOTDIR, "%s is not a folder", path);
		}
		*p = saved;
		if (last)
			return 0;
	}
}

int name_check(const char *what, const char *name, struct vh_err *e)
{
	size_t i, len = strlen(name);

	if (len >= 1 && len <= 63 && g_ascii_isalnum(name[0])) {
		for (i = 1; i < len; i++)
			if (!g_ascii_isalnum(name[i]) && !strchr("._-", name[i]))
				break;
		if (i == len)
			return 0;
	}
	return err_usage(e, "'%s' is no name for a %s: 1 to 63 letters, digits, '.', '_', '-', beginning with a letter or digit",
			 name, what);
}

static int write_all(int fd, const char *p, size_t len)
{
	ssize_t n;

	for (; len; p += n, len -= n) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return -errno;
	}
	return 0;
}

int file_replace(const char *path, const void *data, size_t len, unsigned mode, struct vh_err *e)
{
	g_autofree char *dir = g_path_get_dirname(path);
	g_autofree char *base = g_path_get_basename(path);
	g_autofree char *tmp = g_strdup_printf("%s/.%.200s.XXXXXX", dir, base);
	int fd, dir_fd, r = 0;

	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		return err_set(e, r, "cannot make a file in %s: %s", dir, g_strerror(-r));
	}
	if (fchmod(fd, mode) < 0)
		r = -errno;
	if (!r)
		r = write_all(fd, data, len);
	if (!r && fsync(fd) < 0)
		r = -errno;
	close(fd);
	if (!r && rename(tmp, path) < 0)
		r = -errno;
	if (r) {
		unlink(tmp);
		return err_set(e, r, "cannot write %s: %s", path, g_strerror(-r));
	}
	/* The new name counts only when the folder is on the disk; a file system that cannot do it has done its best. */
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd >= 0) {
		if (fsync(dir_fd) < 0 && errno != EINVAL)
			r = -errno;
		close(dir_fd);
	}
	return r ? err_set(e, r, "cannot sync folder %s: %s", dir, g_strerror(-r)) : 0;
}
