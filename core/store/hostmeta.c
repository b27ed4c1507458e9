/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Values beside volumes for pool types that keep none: one key file per pool, a group per volume's identity. */
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include "store/store-i.h"
#include "util/paths.h"

static char *file_of(const struct store_pool *p)
{
	g_autofree char *file = g_strconcat(p->name, ".conf", NULL);

	return path_in(PATH_DATA, "volumes", file, NULL);
}

/* Its volume is being deleted, or was: what is recorded does not count any more, also for another volume of that identity. */
#define DELETING "deleting"

static char *group_name(const char *volume, const char *identity)
{
	char *group = g_strdup_printf("%s %s", volume, identity);

	return g_strdelimit(group, "[]\n", '?');
}

/* By identity, so that a volume that takes the name of another one does not inherit its format. */
static int group_of(const struct store_pool *p, const char *volume, char **group, struct vh_err *e)
{
	struct vh_vol_stat st = {.size = sizeof(st)};
	int ret;

	if (!p->name) {
		err_remedy(e, "define the pool: vhost pool define");
		return err_set(e, -EOPNOTSUPP, "an ad hoc pool of type %s keeps no values beside its volumes", p->type);
	}
	ret = p->ops->stat(p->pool, volume, &st, e);
	if (ret)
		return ret;
	st.identity[sizeof(st.identity) - 1] = 0;
	*group = group_name(volume, st.identity);
	return 0;
}

int64_t hostmeta_get(const struct store_pool *p, const char *volume, const char *key, char *buf, size_t cap,
		     struct vh_err *e)
{
	g_autofree char *path = NULL, *group = NULL, *value = NULL;
	g_autoptr(GKeyFile) kf = g_key_file_new();
	int ret;

	if (!p->name)
		return -ENODATA;
	ret = group_of(p, volume, &group, e);
	if (ret)
		return ret;
	path = file_of(p);
	g_key_file_load_from_file(kf, path, G_KEY_FILE_NONE, NULL);
	if (!g_key_file_has_key(kf, group, DELETING, NULL))
		value = g_key_file_get_string(kf, group, key, NULL);
	if (!value)
		return -ENODATA;
	if (g_strlcpy(buf, value, cap) >= cap)
		return err_set(e, -ENOSPC, "the value of %s is too long", key);
	return (int64_t)strlen(buf);
}

/* key NULL: the whole group goes; DELETING: only if there is one. */
static int change(const struct store_pool *p, const char *group, const char *key, const char *value, struct vh_err *e)
{
	g_autofree char *path = file_of(p), *dir = g_path_get_dirname(path), *text = NULL, *lock = NULL;
	g_autoptr(GKeyFile) kf = g_key_file_new();
	int fd, ret = path_make(dir, 0700, e);
	gsize n;

	if (ret)
		return ret;
	lock = g_strconcat(path, ".lock", NULL);
	fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || flock(fd, LOCK_EX) < 0) {
		ret = err_set(e, -errno, "cannot lock %s: %s", lock, g_strerror(errno));
	} else {
		g_key_file_load_from_file(kf, path, G_KEY_FILE_NONE, NULL);
		if (g_key_file_has_key(kf, group, DELETING, NULL) && key && strcmp(key, DELETING))
			g_key_file_remove_group(kf, group, NULL);
		if (!key)
			g_key_file_remove_group(kf, group, NULL);
		else if (!strcmp(key, DELETING) && !g_key_file_has_group(kf, group))
			;
		else if (value)
			g_key_file_set_string(kf, group, key, value);
		else
			g_key_file_remove_key(kf, group, key, NULL);
		text = g_key_file_to_data(kf, &n, NULL);
		ret = file_replace(path, text, n, 0600, e);
	}
	if (fd >= 0)
		close(fd);
	return ret;
}

int hostmeta_set(const struct store_pool *p, const char *volume, const char *key, const char *value, struct vh_err *e)
{
	g_autofree char *group = NULL;
	int ret = group_of(p, volume, &group, e);

	return ret ? ret : change(p, group, key, value, e);
}

char *hostmeta_group(const struct store_pool *p, const char *volume)
{
	char *group = NULL;

	if (!p->ops->meta_set && p->name && group_of(p, volume, &group, NULL))
		return NULL;
	return group;
}

int hostmeta_deleting(const struct store_pool *p, const char *group, int on, struct vh_err *e)
{
	return group ? change(p, group, DELETING, on ? "true" : NULL, e) : 0;
}

void hostmeta_drop(const struct store_pool *p, const char *group)
{
	if (group)
		change(p, group, NULL, NULL, NULL);
}

void hostmeta_sweep(const struct store_pool *p, const char *volume)
{
	g_autofree char *path = NULL, *prefix = g_strconcat(volume, " ", NULL);
	g_autoptr(GKeyFile) kf = g_key_file_new();
	g_auto(GStrv) groups = NULL;

	if (p->ops->meta_set || !p->name)
		return;
	path = file_of(p);
	if (!g_key_file_load_from_file(kf, path, G_KEY_FILE_NONE, NULL))
		return;
	groups = g_key_file_get_groups(kf, NULL);
	for (unsigned i = 0; groups[i]; i++)
		if (g_str_has_prefix(groups[i], prefix) && g_key_file_has_key(kf, groups[i], DELETING, NULL))
			change(p, groups[i], NULL, NULL, NULL);
}

/* ---- the formats of many volumes ---- */

struct store_formats {
	struct store_pool *pool;
	GKeyFile *kf; /* where the host keeps them: read once */
};

struct store_formats *store_formats_new(struct store_pool *p)
{
	struct store_formats *f = g_new0(struct store_formats, 1);

	f->pool = p;
	if (!p->ops->meta_get && p->name) {
		g_autofree char *path = file_of(p);

		f->kf = g_key_file_new();
		g_key_file_load_from_file(f->kf, path, G_KEY_FILE_NONE, NULL);
	}
	return f;
}

void store_formats_get(struct store_formats *f, const char *volume, const struct vh_vol_stat *st, char format[32])
{
	g_autofree char *group = NULL, *value = NULL;

	format[0] = 0;
	if (f->pool->ops->meta_get)
		store_format_get(f->pool, volume, format, NULL);
	if (!f->kf)
		return;
	group = group_name(volume, st->identity);
	if (!g_key_file_has_key(f->kf, group, DELETING, NULL))
		value = g_key_file_get_string(f->kf, group, "format", NULL);
	g_strlcpy(format, value ? value : "", 32);
}

void store_formats_free(struct store_formats *f)
{
	if (f->kf)
		g_key_file_free(f->kf);
	g_free(f);
}
