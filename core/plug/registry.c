/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Which plugins there are: found by id, loaded once each, kept until the process ends. Threads may ask at the same time;
 * different plugins are loaded in parallel, the same one once.
 *
 * A name that is also the file's name is found with one open() per folder. Only when that fails everywhere are the
 * folders read and the notes of their files compared.
 */
#include <dirent.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include "plug/impl.h"
#include "util/log.h"
#include "util/parse.h"

#ifndef VHOST_PLUGIN_DIR
#error "VHOST_PLUGIN_DIR is the build's"
#endif
#define SCAN_FILES_MAX 4096u

struct plug {
	struct plug *next;
	struct plug_file file; /* fd -1 once it was loaded or has failed */
	char *path;
	struct stat st;
	struct plug_ident note;
	enum { PLUG_NEW, PLUG_LOADING, PLUG_LOADED, PLUG_FAILED } state;
	struct vh_err err;
	struct plug_image image;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct plug *plugs; /* newest last, so that --plugin's order stands */

static const char *const folders[] = {"storage", "formats", "net"};

/* ---- the search path ---- */

static void add_folder(GPtrArray *a, const char *dir, uint32_t kind, int flat)
{
	const struct plug_table *t = kind ? plug_table_by_kind(kind) : NULL;

	if (flat)
		g_ptr_array_add(a, g_strdup(dir));
	for (unsigned i = 0; i < G_N_ELEMENTS(folders); i++)
		if (!t || !strcmp(t->folder, folders[i]))
			g_ptr_array_add(a, g_build_filename(dir, folders[i], NULL));
}

int plug_search_path(uint32_t kind, char ***out, struct vh_err *e)
{
	const char *env = secure_getenv("VHOST_PLUGIN_PATH");
	GPtrArray *a = g_ptr_array_new_with_free_func(g_free);
	g_auto(GStrv) dirs = g_strsplit(env ? env : "", ":", -1);

	for (unsigned i = 0; dirs[i]; i++) {
		if (!*dirs[i])
			continue; /* an empty entry is nothing; never the working directory */
		if (*dirs[i] != '/') {
			g_ptr_array_free(a, TRUE);
			err_object(e, "VHOST_PLUGIN_PATH");
			err_usage(e, "the entry '%s' is not an absolute path", dirs[i]);
			err_remedy(e, "plugins are never searched relative to the working directory; write the whole path");
			return -EINVAL;
		}
		add_folder(a, dirs[i], kind, 1);
	}
	add_folder(a, VHOST_PLUGIN_DIR, kind, 0);
	g_ptr_array_add(a, NULL);
	*out = (char **)g_ptr_array_free(a, FALSE);
	return 0;
}

/* ---- the list; under lock ---- */

static struct plug *find_id(const char *id, uint32_t kind)
{
	for (struct plug *p = plugs; p; p = p->next)
		if (!strcmp(p->note.id, id) && (!kind || p->note.kinds & kind))
			return p;
	return NULL;
}

static struct plug *find_file(const struct plug_file *f)
{
	for (struct plug *p = plugs; p; p = p->next)
		if (p->st.st_dev == f->st.st_dev && p->st.st_ino == f->st.st_ino && p->st.st_size == f->st.st_size &&
		    p->st.st_mtim.tv_sec == f->st.st_mtim.tv_sec && p->st.st_mtim.tv_nsec == f->st.st_mtim.tv_nsec)
			return p;
	return NULL;
}

/* Takes the file over. */
static struct plug *add(struct plug_file *f)
{
	struct plug *p = g_new0(struct plug, 1), **at = &plugs;

	p->file = *f;
	p->path = f->path;
	p->st = f->st;
	p->note = f->note;
	f->fd = -1;
	f->path = NULL;
	while (*at)
		at = &(*at)->next;
	return *at = p;
}

/* ---- finding ---- */

struct search {
	const char *id;
	uint32_t kind;
	int scanning;
	struct plug_file found;
	char *other; /* a file that is nearly it, and why it is not: for the message when nothing else is found */
};

/* 1: found, 0: go on, < 0: it is this file, and it is refused. */
static int try_file(struct search *s, const char *path, struct vh_err *e)
{
	ERR_AUTO(why);
	struct plug_file f;
	int r = plug_file_open(path, &f, &why);

	if (r == -ENOENT || r == -ENOTDIR)
		return 0;
	if (r < 0) {
		if (!strcmp(f.note.id, s->id)) {
			g_free(s->other);
			s->other = g_strdup_printf("%s is refused: %s", path, why.cause);
		}
		err_move(e, &why);
		return r;
	}
	if (strcmp(f.note.id, s->id)) {
		/* Its name led here; in a scan every other plugin would be told about. */
		if (!s->scanning) {
			g_free(s->other);
			s->other = g_strdup_printf("%s is the plugin '%s'", f.path, f.note.id);
		}
	} else if (s->kind && !(f.note.kinds & s->kind)) {
		g_autofree char *kinds = plug_kinds_text(f.note.kinds);

		g_free(s->other);
		s->other = g_strdup_printf("%s is a %s plugin", f.path, kinds);
	} else {
		s->found = f;
		return 1;
	}
	plug_file_close(&f);
	return 0;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Calls fn for every file of a folder that ends in .so, in name order. */
static int each_file(const char *dir, int (*fn)(void *ctx, const char *path), void *ctx)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	struct dirent *de;
	DIR *d = opendir(dir);
	int r = 0;

	if (!d)
		return 0;
	while ((de = readdir(d)) && names->len < SCAN_FILES_MAX)
		if (g_str_has_suffix(de->d_name, ".so") && de->d_name[0] != '.')
			g_ptr_array_add(names, g_build_filename(dir, de->d_name, NULL));
	closedir(d);
	g_ptr_array_sort(names, by_name);
	for (unsigned i = 0; !r && i < names->len; i++)
		r = fn(ctx, g_ptr_array_index(names, i));
	return r;
}

/* In a scan a refused file is passed over, but told about when its note says that it is the one that is wanted. */
static int try_scanned(void *ctx, const char *path)
{
	struct search *s = ctx;

	return try_file(s, path, NULL) == 1;
}

/* The search path for people: without subfolders of VHOST_PLUGIN_PATH that are not there. */
static char *places_text(char **dirs)
{
	GString *s = g_string_new(NULL);

	for (unsigned i = 0; dirs[i]; i++) {
		g_autofree char *base = g_path_get_basename(dirs[i]);
		int sub = 0;

		for (unsigned j = 0; j < G_N_ELEMENTS(folders); j++)
			sub |= !strcmp(base, folders[j]);
		if (!sub || g_str_has_prefix(dirs[i], VHOST_PLUGIN_DIR) || g_file_test(dirs[i], G_FILE_TEST_IS_DIR))
			g_string_append_printf(s, "%s%s", s->len ? " " : "", dirs[i]);
	}
	return g_string_free(s, FALSE);
}

static int search(struct search *s, struct vh_err *e)
{
	g_auto(GStrv) dirs = NULL;
	g_autofree char *places = NULL, *name = NULL;
	int r;

	if (!note_id_valid(s->id, VH_ID_MAX)) {
		err_object(e, "plugin '%s'", s->id);
		return err_usage(e, "a plugin's name is made of a-z, 0-9 and -");
	}
	r = plug_search_path(s->kind, &dirs, e);
	if (r < 0)
		return r;
	name = g_strconcat(s->id, ".so", NULL);
	for (unsigned i = 0; dirs[i]; i++) {
		g_autofree char *path = g_build_filename(dirs[i], name, NULL);

		r = try_file(s, path, e);
		if (r)
			return r;
	}
	s->scanning = 1;
	for (unsigned i = 0; dirs[i]; i++)
		if (each_file(dirs[i], try_scanned, s))
			return 1;
	places = places_text(dirs);
	err_object(e, "plugin %s", s->id);
	if (s->other)
		err_set(e, -ENOENT, "not found (%s); searched: %s", s->other, places);
	else
		err_set(e, -ENOENT, "not found; searched: %s", places);
	err_status(e, EXIT_MISSING);
	err_remedy(e, "install it there, or name its file with --plugin FILE");
	return -ENOENT;
}

int plug_add_file(const char *path, struct vh_err *e)
{
	struct plug_file f;
	struct plug *p;
	int r = plug_file_open(path, &f, e);

	if (r == -ENOENT || r == -ENOTDIR) {
		err_object(e, "plugin %s", path);
		err_set(e, r, "no such file");
		err_status(e, EXIT_MISSING);
		return r;
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&lock);
	p = find_id(f.note.id, 0);
	if (!find_file(&f)) {
		if (p) {
			err_object(e, "plugin %s", f.path);
			r = err_set(e, -EEXIST, "the plugin '%s' is taken already from %s", p->note.id, p->path);
		} else {
			add(&f);
		}
	}
	pthread_mutex_unlock(&lock);
	plug_file_close(&f);
	return r;
}

/* ---- loading ---- */

/* Under lock, which it lets go while it works. */
static int ensure_loaded(struct plug *p, struct vh_err *e)
{
	while (p->state == PLUG_LOADING)
		pthread_cond_wait(&changed, &lock);
	if (p->state == PLUG_NEW) {
		struct vh_err err = {0};
		int r;

		p->state = PLUG_LOADING;
		pthread_mutex_unlock(&lock);
		r = plug_image_load(&p->file, &plug_host, &p->image, &err);
		p->file.path = NULL; /* stays p->path */
		plug_file_close(&p->file);
		pthread_mutex_lock(&lock);
		p->err = err;
		p->state = r < 0 ? PLUG_FAILED : PLUG_LOADED;
		pthread_cond_broadcast(&changed);
	}
	if (p->state == PLUG_LOADED)
		return 0;
	/* Its entry is called once per process: the first outcome stays. */
	err_object(e, "%s", p->err.object ? p->err.object : p->path);
	err_set(e, p->err.code, "%s", p->err.cause ? p->err.cause : "it could not be loaded");
	if (p->err.remedy)
		err_remedy(e, "%s", p->err.remedy);
	err_status(e, (enum exit_status)p->err.status);
	return p->err.code;
}

static int get(const char *id, uint32_t kind, struct plug **out, struct vh_err *e)
{
	struct search s = {.id = id, .kind = kind, .found.fd = -1};
	struct plug *p;
	int r = 0;

	pthread_mutex_lock(&lock);
	p = find_id(id, kind);
	if (!p) {
		pthread_mutex_unlock(&lock);
		r = search(&s, e);
		g_free(s.other);
		if (r < 0)
			return r;
		pthread_mutex_lock(&lock);
		/* Another thread may have been faster. */
		p = find_id(id, kind);
		if (!p)
			p = find_file(&s.found);
		if (!p)
			p = add(&s.found);
	}
	r = ensure_loaded(p, e);
	pthread_mutex_unlock(&lock);
	plug_file_close(&s.found);
	*out = p;
	return r;
}

static const void *table_of(const char *id, const struct plug_table *t, int *result, struct vh_err *e)
{
	struct plug *p;

	*result = get(id, t->kind, &p, e);
	return *result < 0 ? NULL : p->image.table[t - plug_tables];
}

int plug_pool(const char *id, const struct vh_pool_ops **out, struct vh_err *e)
{
	int r;

	*out = table_of(id, plug_table_by_kind(VH_KIND_POOL), &r, e);
	return r;
}

int plug_format(const char *id, const struct vh_format_ops **out, struct vh_err *e)
{
	int r;

	*out = table_of(id, plug_table_by_kind(VH_KIND_FORMAT), &r, e);
	return r;
}

int plug_net(const char *id, const struct vh_net_ops **out, struct vh_err *e)
{
	int r;

	*out = table_of(id, plug_table_by_kind(VH_KIND_NET), &r, e);
	return r;
}

int plug_filter(const char *id, const struct vh_filter_ops **out, struct vh_err *e)
{
	int r;

	*out = table_of(id, plug_table_by_kind(VH_KIND_FILTER), &r, e);
	return r;
}

int plug_load(const char *id, struct plug **out, struct vh_err *e)
{
	return get(id, 0, out, e);
}

const struct vh_plugin *plug_desc(const struct plug *p)
{
	return &p->image.desc;
}

const char *plug_path(const struct plug *p)
{
	return p->path;
}

const struct plug_image *plug_image_of(const struct plug *p)
{
	return &p->image;
}

const struct plug_ident *plug_ident_of(const struct plug *p)
{
	return &p->note;
}

void plug_fini(void)
{
	pthread_mutex_lock(&lock);
	for (struct plug *p = plugs; p; p = p->next) {
		void (*fini)(void) = p->state == PLUG_LOADED ? p->image.desc.fini : NULL;

		/* Its last call. The file stays mapped, the plugin stays loaded logically only for those who ask again. */
		p->image.desc.fini = NULL;
		if (fini)
			fini();
	}
	pthread_mutex_unlock(&lock);
}

/* ---- volumes' tables ---- */

struct volume_copy {
	struct volume_copy *next;
	const struct vh_volume_ops *theirs;
	struct vh_volume_ops ours;
};
static struct volume_copy *volume_copies;

const struct vh_volume_ops *plug_volume_ops(const struct vh_volume_ops *theirs)
{
	struct volume_copy *c;

	if (!theirs)
		return NULL;
	for (c = __atomic_load_n(&volume_copies, __ATOMIC_ACQUIRE); c; c = c->next)
		if (c->theirs == theirs)
			return &c->ours;
	c = g_new0(struct volume_copy, 1);
	c->theirs = theirs;
	if (plug_table_import(&plug_volume_table, theirs, &c->ours, NULL) < 0) {
		g_free(c);
		return NULL;
	}
	/* Two threads may copy the same table; both copies are right, and are kept. */
	c->next = __atomic_load_n(&volume_copies, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&volume_copies, &c->next, c, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	return &c->ours;
}

/* ---- listing ---- */

struct scan {
	int (*fn)(void *ctx, const struct plug_note *n, const struct vh_err *why_not);
	void *ctx;
	GHashTable *seen; /* real paths */
};

static int scan_file(void *ctx, const char *path)
{
	struct scan *s = ctx;
	ERR_AUTO(why);
	struct plug_note n = {0};
	struct plug_file f;
	int r;

	n.path = realpath(path, NULL);
	if (!n.path)
		return 0;
	if (!g_hash_table_add(s->seen, g_strdup(n.path))) {
		free(n.path);
		return 0;
	}
	r = plug_file_open(path, &f, &why);
	memcpy(n.id, f.note.id, sizeof(n.id));
	n.major = f.note.major;
	n.minor = f.note.minor;
	n.draft = f.note.draft;
	n.kinds = f.note.kinds;
	plug_file_close(&f);
	r = s->fn(s->ctx, &n, r < 0 ? &why : NULL);
	free(n.path);
	return r;
}

int plug_scan(int (*fn)(void *ctx, const struct plug_note *n, const struct vh_err *why_not), void *ctx)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GPtrArray) given = g_ptr_array_new_with_free_func(g_free);
	struct scan s = {fn, ctx, seen};
	g_auto(GStrv) dirs = NULL;
	int r = 0;

	pthread_mutex_lock(&lock);
	for (struct plug *p = plugs; p; p = p->next)
		g_ptr_array_add(given, g_strdup(p->path));
	pthread_mutex_unlock(&lock);
	for (unsigned i = 0; !r && i < given->len; i++)
		r = scan_file(&s, g_ptr_array_index(given, i));
	if (!r)
		r = plug_search_path(0, &dirs, NULL);
	for (unsigned i = 0; !r && dirs[i]; i++)
		r = each_file(dirs[i], scan_file, &s);
	return r;
}
