/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Folders and pools: whether they can be reached and written, down to the part of a path that refuses. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cmd/doctor.h"
#include "store/store.h"
#include "util/paths.h"

/* The longest part of the path that exists. */
static char *existing(const char *path)
{
	char *p = g_strdup(path);

	while (strcmp(p, "/") && faccessat(AT_FDCWD, p, F_OK, AT_EACCESS) < 0 && errno == ENOENT) {
		char *up = g_path_get_dirname(p);

		g_free(p);
		p = up;
	}
	return p;
}

static void folder(struct doctor *d, const char *what, enum path_dir which, enum doctor_level when_closed, const char *lost)
{
	g_autofree char *path = path_in(which, NULL), *there = existing(path), *remedy = NULL, *at = NULL;

	at = doctor_blocked(there, W_OK | X_OK, &remedy);
	if (at)
		doctor_add(d, when_closed, "folders", remedy, "%s %s cannot be %s, because of %s: %s", what, path,
			   strcmp(there, path) ? "made" : "written", at, lost);
	else
		doctor_add(d, DOCTOR_OK, "folders", NULL, "%s %s%s", what, path, strcmp(there, path) ? ", made when it is needed" : "");
}

void doctor_folders(struct doctor *d)
{
	g_autofree char *secrets = path_in(PATH_CONFIG, "secrets", NULL);
	struct stat st;

	folder(d, "running state in", PATH_STATE, DOCTOR_PROBLEM, "a VM has its control socket there");
	folder(d, "configuration in", PATH_CONFIG, DOCTOR_NOTE, "nothing can be defined");
	folder(d, "data in", PATH_DATA, DOCTOR_NOTE, "the pool default cannot be made");
	if (!stat(secrets, &st) && st.st_mode & 077) {
		g_autofree char *remedy = g_strdup_printf("chmod 700 %s", secrets);

		doctor_add(d, DOCTOR_NOTE, "secrets", remedy, "%s may be read by others", secrets);
	}
}

/* What the file system of a pool's folder is good for. An unnamed file tells; it is gone with its descriptor. */
static void file_system(struct doctor *d, const char *name, const char *path)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	int fd = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), direct;

	if (fd < 0)
		return;
	direct = open(path, O_TMPFILE | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);
	if (direct < 0 && errno == EINVAL)
		doctor_add(d, DOCTOR_NOTE, "pools", "none is needed; a local ext4 or xfs is faster",
			   "%s: its file system has no O_DIRECT: disks go through the page cache", name);
	if (direct >= 0)
		close(direct);
	if (fcntl(fd, F_OFD_SETLK, &l) < 0 && (errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS))
		doctor_add(d, DOCTOR_NOTE, "pools", "mount it with locks (NFS: without nolock)",
			   "%s: its file system has no locks: two VMs could write one volume", name);
	close(fd);
}

static int pool(void *ctx, const char *name, const char *type)
{
	struct vh_pool_info info = {.size = sizeof(info)};
	const struct vh_pool_ops *ops;
	struct doctor *d = ctx;
	struct store_def def = {0};
	struct store_pool *p;
	ERR_AUTO(e);
	const char *path;
	void *h;

	if (store_def_load(name, &def, &e)) {
		doctor_add(d, DOCTOR_NOTE, "pools", e.remedy, "%s: %s", name, e.cause ? e.cause : "broken");
		return 0;
	}
	path = kvs_get(&def.options, "path");
	if (!def.active) {
		doctor_add(d, DOCTOR_OK, "pools", NULL, "%s: stopped", name);
	} else if (def.builtin && path && access(path, F_OK) < 0 && errno == ENOENT) {
		doctor_add(d, DOCTOR_OK, "pools", NULL, "%s: made on first use, in %s", name, path);
	} else if (store_pool_open(name, &p, &e)) {
		doctor_add(d, DOCTOR_NOTE, "pools", e.remedy, "%s: %s", name, e.cause ? e.cause : "cannot be opened");
	} else {
		ops = store_pool_ops(p, &h);
		if (ops->info(h, &info, &e)) {
			doctor_add(d, DOCTOR_NOTE, "pools", e.remedy, "%s: %s", name, e.cause ? e.cause : "tells nothing");
		} else {
			g_autofree char *free_text = info.available == UINT64_MAX ? g_strdup("unknown space") : format_size(info.available);

			info.detail[sizeof(info.detail) - 1] = 0;
			if (info.health)
				doctor_add(d, DOCTOR_NOTE, "pools", "see `vhost pool info`", "%s: %s", name, info.detail);
			else if (info.available < UINT64_C(1) << 30)
				doctor_add(d, DOCTOR_NOTE, "pools", "free space", "%s: only %s available", name, free_text);
			else
				doctor_add(d, DOCTOR_OK, "pools", NULL, "%s: type %s, %s available", name, type ? type : "?", free_text);
		}
		if (!strcmp(def.type, "dir") && path)
			file_system(d, name, path);
		store_pool_close(p);
	}
	store_def_clear(&def);
	return 0;
}

void doctor_pools(struct doctor *d)
{
	ERR_AUTO(e);

	if (store_pool_names(pool, d, &e) < 0)
		doctor_add(d, DOCTOR_NOTE, "pools", e.remedy, "%s", e.cause ? e.cause : "cannot be listed");
}
