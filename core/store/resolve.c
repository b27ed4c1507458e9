/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What an image refers to (a backing image, a data file). The name comes out of an image file and is hostile: only what lies
 * below the pool's folder is opened, or below one that the user allows; whatever the name is, and whatever symbolic links
 * it leads through. No file twice in a chain; no chain without an end. A relative name is relative to the folder of the image
 * that has it.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "store/store-i.h"

static int seen_add(struct resolver *r, struct store_pool *p, const char *volume, int image, struct vh_err *e)
{
	struct vh_vol_stat st;
	int ret = store_vol_stat(p, volume, &st, e);

	if (ret)
		return ret;
	if (g_hash_table_contains(r->seen, st.identity))
		return err_set(e, -ELOOP, "%s appears twice in the chain of images", volume);
	if (image && r->images == CHAIN_MAX)
		return err_set(e, -ELOOP, "the chain of images is longer than %d", CHAIN_MAX);
	r->images += !!image;
	g_hash_table_add(r->seen, g_strdup(st.identity));
	return 0;
}

static int beside(struct store_pool *p, const char *volume, char **dir)
{
	char path[4096];

	*dir = NULL;
	if (!p->ops->path || p->ops->path(p->pool, volume, path, sizeof(path), NULL))
		return 0;
	path[sizeof(path) - 1] = 0;
	*dir = g_path_get_dirname(path);
	return 1;
}

static char *real_path(const char *path)
{
	char *real = realpath(path, NULL), *copy = g_strdup(real ? real : path);

	free(real);
	return copy;
}

void resolver_init_new(struct resolver *r, struct store_pool *p, const char *volume, const char *holder)
{
	g_autofree char *dir = NULL;

	memset(r, 0, sizeof(*r));
	r->pool = p;
	r->holder = holder;
	r->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	r->pools = g_ptr_array_new_with_free_func((GDestroyNotify)store_pool_close);
	r->from = p;
	r->from_name = g_strdup(volume);
	if (beside(p, volume, &dir)) {
		r->root = real_path(dir);
		r->dir = g_strdup(r->root);
	}
}

int resolver_init(struct resolver *r, struct store_pool *p, const char *volume, const char *holder, struct vh_err *e)
{
	if (volume) {
		resolver_init_new(r, p, volume, holder);
		return seen_add(r, p, volume, 1, e);
	}
	memset(r, 0, sizeof(*r)); /* nothing will be resolved */
	r->pool = p;
	r->holder = holder;
	return 0;
}

void resolver_clear(struct resolver *r)
{
	if (r->seen)
		g_hash_table_unref(r->seen);
	if (r->pools)
		g_ptr_array_unref(r->pools);
	g_free(r->root);
	g_free(r->dir);
	g_free(r->next_dir);
	g_free(r->from_name);
	g_free(r->next_name);
	memset(r, 0, sizeof(*r));
}

void resolver_layer(void *ctx, uint32_t depth)
{
	struct resolver *r = ctx;

	if (!depth || !r->next_name)
		return;
	g_free(r->dir);
	g_free(r->from_name);
	r->dir = g_steal_pointer(&r->next_dir);
	r->from_name = g_steal_pointer(&r->next_name);
	r->from = r->next_from;
}

/* The part of `path` below the folder `root`; NULL: it is not below it. */
static const char *below(const char *path, const char *root)
{
	size_t n = strlen(root);

	if (strncmp(path, root, n))
		return NULL;
	if (n && root[n - 1] == '/')
		return path + n;
	return path[n] == '/' ? path + n + 1 : NULL;
}

/* The folder, of those that may be used, that `path` is below; *rest: the part behind it. */
static const char *permitted(const struct resolver *r, const char *path, const char **rest)
{
	if (r->root && (*rest = below(path, r->root)))
		return r->root;
	for (const char *const *a = r->allow; a && *a; a++)
		if ((*rest = below(path, *a)))
			return *a;
	return NULL;
}

static int refused(const struct resolver *r, const char *name, struct vh_err *e)
{
	err_remedy(e, "put it into the folder of the image%s or below, or permit its folder: --allow DIR (of a VM's disk: allow=DIR)",
		   r->pool->name ? "'s pool" : "");
	return err_set(e, -EPERM, "the image refers to '%s', which is not in its pool", name);
}

/* "nbd:...", "json:...", "fat:...": what QEMU would take for a protocol. */
static int is_protocol(const char *name)
{
	size_t n = strcspn(name, ":/");

	return name[n] == ':';
}

/* The pool of a folder: the resolver's own, or one made for it. */
static struct store_pool *pool_of(struct resolver *r, const char *dir, struct vh_err *e)
{
	struct kv kv = {(char *)"path", (char *)dir};
	struct kvs options = {&kv, 1};
	struct store_pool *p;

	if (!g_strcmp0(dir, r->root))
		return r->pool;
	for (guint i = 0; i < r->pools->len; i++) {
		p = r->pools->pdata[i];
		if (!strcmp(p->label, dir))
			return p;
	}
	if (store_pool_open_type("dir", &options, &p, e))
		return NULL;
	g_free(p->label);
	p->label = g_strdup(dir);
	g_ptr_array_add(r->pools, p);
	return p;
}

/*
 * The folders were looked at by their names, and whoever may write there could have put a link in the place of one since.
 * What the kernel finds below the permitted folder without any link must be the file that the pool has.
 */
static int same_below(const char *root, const char *rest, struct store_pool *p, const char *volume, struct vh_err *e)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;
	g_autofree char *identity = NULL;
	struct vh_vol_stat st;
	struct stat s;
	int ret = 0;

	fd = at < 0 ? -1 : (int)syscall(SYS_openat2, at, rest, &how, sizeof(how));
	if (fd < 0 || fstat(fd, &s) < 0)
		ret = err_set(e, -errno, "%s below %s: %s", rest, root, g_strerror(errno));
	if (!ret)
		ret = store_vol_stat(p, volume, &st, e);
	if (!ret) {
		identity = g_strdup_printf("file:%u:%u:%llu", major(s.st_dev), minor(s.st_dev), (unsigned long long)s.st_ino);
		if (strcmp(identity, st.identity))
			ret = err_set(e, -EPERM, "%s/%s was replaced while it was looked at", root, rest);
	}
	if (fd >= 0)
		close(fd);
	if (at >= 0)
		close(at);
	return ret;
}

/* A name with a path, or of a pool of files. */
static int find_file(struct resolver *r, const char *name, const char *dir, struct store_pool **pool, char **volume,
		     struct vh_err *e)
{
	g_autofree char *path = g_canonicalize_filename(name, dir ? dir : "/"), *real = NULL, *folder = NULL;
	const char *rest, *root;
	char *r0;
	int ret;

	/* Outside it is refused before anything is looked at, so that an image cannot ask what exists. */
	if ((name[0] != '/' && !dir) || !permitted(r, path, &rest) || !*rest)
		return refused(r, name, e);
	r0 = realpath(path, NULL);
	if (!r0) {
		ret = -errno;
		return err_set(e, ret, "the image refers to '%s': %s: %s", name, path, g_strerror(-ret));
	}
	real = g_strdup(r0);
	free(r0);
	root = permitted(r, real, &rest);
	if (!root || !*rest) {
		err_remedy(e, "name the file itself, or permit its folder: --allow DIR");
		return err_set(e, -EPERM, "the image refers to '%s', a link that leads out of its pool", name);
	}
	folder = g_path_get_dirname(real);
	*pool = pool_of(r, folder, e);
	if (!*pool)
		return e && e->code ? e->code : -EIO;
	*volume = g_path_get_basename(real);
	ret = *pool == r->pool ? 0 : same_below(root, rest, *pool, *volume, e);
	if (ret)
		g_clear_pointer(volume, g_free);
	return ret;
}

int resolver_find(struct resolver *r, const char *name, struct store_pool **pool, char **volume, struct vh_err *e)
{
	g_autofree char *path = NULL, *dir = NULL;
	size_t n = strlen(name);

	*volume = NULL;
	if (is_protocol(name)) {
		err_remedy(e, "images refer to files only; a file whose name has a ':' is named ./NAME");
		return err_set(e, -EPERM, "the image refers to '%s', which is a protocol's name", name);
	}
	if (!n || name[n - 1] == '/')
		return refused(r, name, e);
	if (!strcmp(r->pool->type, "dir"))
		return find_file(r, name, r->dir, pool, volume, e);
	/* Device nodes: what is directly in the pool's folder is the pool's, through whatever links udev makes. */
	if (!strchr(name, '/')) {
		*pool = r->pool;
		*volume = g_strdup(name);
		return 0;
	}
	path = g_canonicalize_filename(name, r->dir ? r->dir : "/");
	dir = g_path_get_dirname(path);
	if ((name[0] == '/' || r->dir) && !g_strcmp0(dir, r->root)) {
		*pool = r->pool;
		*volume = g_path_get_basename(path);
		return 0;
	}
	return find_file(r, name, r->dir, pool, volume, e);
}

static int is_held(const struct resolver *r, struct store_pool *p, const char *volume)
{
	struct vh_vol_stat st;

	if (!r->held || store_vol_stat(p, volume, &st, NULL))
		return 0;
	return g_strv_contains(r->held, st.identity);
}

static int format_of(struct store_pool *p, const char *volume, const char *want, char format[32], struct vh_err *e)
{
	ERR_AUTO(why);
	int ret = store_format_pick(p, volume, want[0] ? want : NULL, format, &why);

	if (ret && !want[0] && !format[0]) {
		err_remedy(e, "write it into the image: vhost img rebase --unsafe IMAGE --backing FILE --backing-format FORMAT");
		return err_set(e, -EINVAL, "neither the image nor the record of %s says its format, and it is never guessed", volume);
	}
	if (ret)
		err_move(e, &why);
	return ret;
}

static void recorded_name(struct resolver *r, char *name, size_t cap)
{
	vol_meta_read(r->from, r->from_name, REBASING, name, cap, NULL);
	r->undecided |= name[0] != 0;
	if (!name[0] || !r->other)
		vol_meta_read(r->from, r->from_name, BACKING, name, cap, NULL);
}

int resolver_open(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32],
		  struct vh_err *e)
{
	struct resolver *r = ctx;
	char name[sizeof(ref->name)], want[sizeof(ref->format)];
	int image = ref->role == VH_REF_BACKING, ret;
	g_autofree char *volume = NULL, *dir = NULL;
	struct store_pool *p;

	g_strlcpy(name, ref->name, sizeof(name));
	g_strlcpy(want, ref->format, sizeof(want));
	if (!name[0] && image && r->from_name)
		recorded_name(r, name, sizeof(name));
	if (!name[0]) {
		err_remedy(e, "record it: vhost vol set, or vhost img set, --backing NAME");
		return err_set(e, -EINVAL, "the image has a backing image, but its file does not say which");
	}
	ret = resolver_find(r, name, &p, &volume, e);
	if (ret)
		return ret; /* the name is told already */
	ret = seen_add(r, p, volume, image, e);
	if (!ret && image)
		ret = format_of(p, volume, want, format, e);
	else if (!ret)
		g_strlcpy(format, "raw", 32); /* the image's plugin reads it */
	if (!ret) {
		struct store_attach a = {.name = volume, .holder = r->holder, .flags = r->attach_flags, .blk = r->blk,
					 .mode = r->peek || is_held(r, p, volume) ? VH_ATTACH_PEEK :
						 read_only ? VH_ATTACH_RO : VH_ATTACH_RW_EXCL};

		a.blk.label = NULL;
		ret = store_attach(p, &a, vol, e);
	}
	if (!ret && image) {
		g_free(r->next_dir);
		g_free(r->next_name);
		r->next_dir = beside(p, volume, &dir) ? real_path(dir) : NULL;
		r->next_name = g_strdup(volume);
		r->next_from = p;
	}
	return ret ? err_context(e, "%s '%s' of the image", image ? "the backing image" : "the data file", name), ret : 0;
}
