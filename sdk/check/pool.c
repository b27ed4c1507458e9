/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * POOL: the contract of vhost/pool.h, on a pool that --set describes (or the default one, in a fresh folder). Volumes that the
 * checks make are named vhcheck-..., and go again unless a check fails; where the type makes none, most checks are skipped.
 */
#include <glib.h>
#include <string.h>
#include <unistd.h>
#include "check.h"
#include "plug/object.h"
#include "util/job.h"

#define SIZE (UINT64_C(4) << 20)
#define SNAP "vhcheck-snap"

struct env {
	struct check_ctx *c;
	const struct vh_pool_ops *ops;
	void *pool;
	const struct vh_opts *create;
	char name[8][64];
	unsigned n;
};

static void env_open(struct env *v, struct check_ctx *c)
{
	memset(v, 0, sizeof(*v));
	v->c = c;
	v->pool = check_pool_open(c, &v->ops);
	v->create = check_opts(c, v->ops->vol_create_options, "create.");
}

static const char *fresh(struct env *v)
{
	CHECK(v->c, v->n < G_N_ELEMENTS(v->name), "the kit itself failed: too many volumes");
	g_snprintf(v->name[v->n], sizeof(v->name[0]), "vhcheck-%d-%u", (int)getpid(), v->n);
	return v->name[v->n++];
}

static void env_close(struct env *v)
{
	for (unsigned i = 0; v->ops->remove && i < v->n; i++)
		v->ops->remove(v->pool, v->name[i], NULL, NULL);
	v->ops->close(v->pool);
}

static int do_stat(struct env *v, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	/* Whatever lies behind `size` is not the callee's. */
	struct { struct vh_vol_stat st; uint8_t tail[64]; } s;
	int r;

	memset(&s, 0xdb, sizeof(s));
	memset(&s.st, 0, sizeof(s.st));
	s.st.size = sizeof(s.st);
	r = v->ops->stat(v->pool, name, &s.st, e);
	for (unsigned i = 0; i < sizeof(s.tail); i++)
		CHECK(v->c, s.tail[i] == 0xdb, "stat() wrote behind the struct's size");
	CHECK(v->c, r <= 0, "stat() returned %d: 0 or a negative errno is allowed", r);
	*st = s.st;
	return r;
}

static int make(struct env *v, const char *name, uint64_t bytes, struct vh_job *j, uint32_t *zeroed, struct vh_err *e)
{
	struct vh_vol_spec s = {.size = sizeof(s), .name = name, .bytes = bytes, .opts = v->create};
	int r = v->ops->create(v->pool, &s, j, e);

	if (zeroed)
		*zeroed = s.zeroed;
	return r;
}

/* A volume of SIZE bytes. Skips the check where the type makes none. */
static const char *volume(struct env *v)
{
	struct vh_err e = {0};
	const char *name;
	int r;

	if (!v->ops->create || !(v->ops->caps & VH_POOL_CREATE))
		check_skip(v->c, "this type makes no volumes");
	name = fresh(v);
	r = make(v, name, SIZE, NULL, NULL, &e);
	CHECK(v->c, !r, "create() failed: %d %s", r, e.cause ? e.cause : "");
	return name;
}

static int do_attach(struct env *v, const char *name, uint32_t mode, uint64_t flags, void **vol, const struct vh_volume_ops **ops,
		     struct vh_err *e)
{
	struct vh_attach a = {.size = sizeof(a), .mode = mode, .name = name, .object = plug_object_new(), .holder = "pid 1 vhost-plugin-check",
			      .flags = flags};

	return v->ops->attach(v->pool, &a, vol, ops, e);
}

static void pool_info(struct check_ctx *c)
{
	struct vh_pool_info i = {.size = sizeof(i)};
	struct vh_err e = {0};
	struct env v;
	int r;

	env_open(&v, c);
	memset(i.detail, 0xdb, sizeof(i.detail));
	r = v.ops->info(v.pool, &i, &e);
	CHECK(c, !r, "info() failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, i.health <= 2, "health is %u", i.health);
	CHECK(c, memchr(i.detail, 0, sizeof(i.detail)), "detail has no end");
	CHECK(c, !i.health || i.detail[0], "it is not in good health and does not say why");
	CHECK(c, g_utf8_validate(i.detail, -1, NULL), "detail is not UTF-8");
	CHECK(c, !(i.caps & ~v.ops->caps), "this pool can do (%#llx) what its type does not promise (%#llx)", (unsigned long long)i.caps,
	      (unsigned long long)v.ops->caps);
	CHECK(c, i.capacity == UINT64_MAX || i.available == UINT64_MAX || i.available <= i.capacity,
	      "more is available than there is");
	env_close(&v);
}

static void pool_absent(struct check_ctx *c)
{
	struct vh_err e = {0}, e2 = {0};
	struct vh_vol_stat st;
	struct env v;
	const char *name;
	int r;

	env_open(&v, c);
	name = fresh(&v);
	r = do_stat(&v, name, &st, &e);
	if (!r)
		check_skip(c, "every name is a volume of this type");
	CHECK(c, r == -ENOENT, "stat() of what is not there gave %d, not -ENOENT", r);
	CHECK(c, e.cause, "-ENOENT came without a text");
	if (v.ops->remove && v.ops->caps & VH_POOL_REMOVE) {
		r = v.ops->remove(v.pool, name, NULL, &e2);
		CHECK(c, !r, "remove() of what is not there gave %d, not 0: it may be repeated after a crash", r);
	}
	if (v.ops->resize) {
		r = v.ops->resize(v.pool, name, SIZE, VH_PREALLOC_OFF, NULL, NULL);
		CHECK(c, r < 0, "resize() of what is not there gave %d", r);
	}
	env_close(&v);
}

/* Names come from people and from images. */
static void pool_names(struct check_ctx *c)
{
	static const char *const bad[] = {"", ".", "..", "../x", "a/b", "/etc/passwd", "a\nb", "-x", "a b", "x;y", "\xff\xfe", "a%sb", "a,b=c"};
	g_autofree char *longest = g_strnfill(5000, 'x');
	struct vh_vol_stat st;
	struct env v;

	env_open(&v, c);
	for (unsigned i = 0; i <= G_N_ELEMENTS(bad); i++) {
		const char *name = i < G_N_ELEMENTS(bad) ? bad[i] : longest;
		struct vh_err e = {0};
		int r = do_stat(&v, name, &st, &e);

		CHECK(c, r || i >= G_N_ELEMENTS(bad) || !strchr(name, '/') || v.ops->caps == 0, "'%s' is a volume", name);
		if (r && v.ops->create) {
			struct vh_err e2 = {0};

			r = make(&v, name, SIZE, NULL, NULL, &e2);
			CHECK(c, r <= 0, "create() of '%.20s' gave %d", name, r);
			CHECK(c, r || do_stat(&v, name, &st, NULL) == 0, "'%.20s' was created, and is not there", name);
			CHECK(c, r == 0 || !e2.cause || !strchr(e2.cause, '\n'), "the error of create() is more than a line");
			if (!r && v.ops->remove)
				v.ops->remove(v.pool, name, NULL, NULL);
		}
	}
	env_close(&v);
}

struct found { const char *name; unsigned times, all, stop_after; struct vh_vol_stat st; struct check_ctx *c; int with_stat; };

static int find(void *ctx, const char *name, const struct vh_vol_stat *st)
{
	struct found *f = ctx;

	CHECK(f->c, name && *name, "list() told a volume without a name");
	CHECK(f->c, st || !f->with_stat, "list() gave no stat although that was asked for");
	f->all++;
	if (!strcmp(name, f->name)) {
		f->times++;
		if (st)
			memcpy(&f->st, st, MIN(st->size, sizeof(f->st)));
	}
	return f->stop_after && f->all == f->stop_after;
}

static void pool_create(struct check_ctx *c)
{
	struct vh_err e = {0}, e2 = {0};
	struct found f = {.c = c, .with_stat = 1};
	const struct vh_volume_ops *ops;
	struct vh_vol_stat st;
	struct env v;
	const char *name;
	uint32_t zeroed;
	void *vol;
	int r;

	env_open(&v, c);
	name = volume(&v);
	r = do_stat(&v, name, &st, &e);
	CHECK(c, !r, "stat() of a new volume failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, st.bytes >= SIZE && st.bytes < SIZE + (UINT64_C(1) << 30), "it has %llu bytes, %llu were asked for",
	      (unsigned long long)st.bytes, (unsigned long long)SIZE);
	r = make(&v, name, SIZE, NULL, &zeroed, &e);
	CHECK(c, !r, "creating it again with an equal spec gave %d, not 0", r);
	r = make(&v, name, SIZE + (UINT64_C(64) << 20), NULL, NULL, &e2);
	CHECK(c, r == -EEXIST, "creating it again with another size gave %d, not -EEXIST", r);
	CHECK(c, e2.cause, "-EEXIST came without a text");
	f.name = name;
	r = v.ops->list(v.pool, 1, find, &f, &e);
	CHECK(c, !r, "list() gave %d", r);
	CHECK(c, f.times == 1, "the new volume is listed %u times", f.times);
	CHECK(c, f.st.bytes == st.bytes, "list() says %llu bytes, stat() %llu", (unsigned long long)f.st.bytes, (unsigned long long)st.bytes);
	f = (struct found){.c = c, .name = name};
	CHECK(c, !v.ops->list(v.pool, 0, find, &f, NULL) && f.times == 1, "without stats it is listed %u times", f.times);
	f = (struct found){.c = c, .name = name, .stop_after = 1};
	volume(&v);
	r = v.ops->list(v.pool, 0, find, &f, NULL);
	CHECK(c, r == 1 && f.all == 1, "list() went on after 1 (%u volumes), or did not return it (%d)", f.all, r);
	r = do_attach(&v, name, VH_ATTACH_RW_EXCL, 0, &vol, &ops, &e);
	CHECK(c, !r, "the new volume cannot be attached: %d %s", r, e.cause ? e.cause : "");
	ops->close(vol);
	env_close(&v);
}

static void pool_identity(struct check_ctx *c)
{
	struct vh_vol_stat a, b, again;
	struct found f = {.c = c, .with_stat = 1};
	const struct vh_volume_ops *ops;
	struct env v;
	const char *name;
	void *vol;

	env_open(&v, c);
	name = volume(&v);
	CHECK(c, !do_stat(&v, name, &a, NULL) && !do_stat(&v, volume(&v), &b, NULL), "stat() failed");
	CHECK(c, memchr(a.identity, 0, sizeof(a.identity)), "its identity has no end");
	CHECK(c, a.identity[0] && g_utf8_validate(a.identity, -1, NULL), "its identity is no text");
	CHECK(c, strchr(a.identity, ':') && a.identity[0] != ':', "its identity '%s' does not begin with its type", a.identity);
	CHECK(c, strcmp(a.identity, b.identity), "two volumes have the identity '%s'", a.identity);
	CHECK(c, !do_attach(&v, name, VH_ATTACH_RW_EXCL, 0, &vol, &ops, NULL), "attach() failed");
	CHECK(c, !do_stat(&v, name, &again, NULL) && !strcmp(a.identity, again.identity), "attached, its identity is another one");
	ops->close(vol);
	f.name = name;
	v.ops->list(v.pool, 1, find, &f, NULL);
	CHECK(c, !strcmp(f.st.identity, a.identity), "list() and stat() disagree about its identity");
	if (v.ops->resize && v.ops->caps & VH_POOL_GROW) {
		CHECK(c, !v.ops->resize(v.pool, name, SIZE * 2, VH_PREALLOC_OFF, NULL, NULL), "resize() failed");
		CHECK(c, !do_stat(&v, name, &again, NULL) && !strcmp(a.identity, again.identity), "resized, its identity is another one");
	}
	env_close(&v);
}

static void pool_remove(struct check_ctx *c)
{
	struct vh_err e = {0};
	struct vh_vol_stat st;
	struct env v;
	const char *name;
	int r;

	env_open(&v, c);
	if (!v.ops->remove || !(v.ops->caps & VH_POOL_REMOVE))
		check_skip(c, "this type removes no volumes");
	name = volume(&v);
	r = v.ops->remove(v.pool, name, NULL, &e);
	CHECK(c, !r, "remove() failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, do_stat(&v, name, &st, NULL) == -ENOENT, "removed, it is still there");
	CHECK(c, !v.ops->remove(v.pool, name, NULL, NULL), "removing it again is an error");
	r = make(&v, name, SIZE * 2, NULL, NULL, &e);
	CHECK(c, !r, "another one of that name cannot be made: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, !do_stat(&v, name, &st, NULL) && st.bytes >= SIZE * 2, "the new one is not of its size");
	env_close(&v);
}

static void pool_resize(struct check_ctx *c)
{
	struct vh_err e = {0};
	struct vh_vol_stat st;
	struct env v;
	const char *name;
	int r;

	env_open(&v, c);
	if (!v.ops->resize || !(v.ops->caps & VH_POOL_GROW))
		check_skip(c, "this type does not grow volumes");
	name = volume(&v);
	r = v.ops->resize(v.pool, name, SIZE * 3, VH_PREALLOC_OFF, NULL, &e);
	CHECK(c, !r, "growing failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, !do_stat(&v, name, &st, NULL) && st.bytes >= SIZE * 3, "it has %llu bytes after growing", (unsigned long long)st.bytes);
	CHECK(c, !v.ops->resize(v.pool, name, SIZE * 3, VH_PREALLOC_OFF, NULL, NULL), "growing to the size that it has is an error");
	if (v.ops->caps & VH_POOL_SHRINK) {
		r = v.ops->resize(v.pool, name, SIZE, VH_PREALLOC_OFF, NULL, &e);
		CHECK(c, !r, "shrinking failed: %d %s", r, e.cause ? e.cause : "");
		CHECK(c, !do_stat(&v, name, &st, NULL) && st.bytes < SIZE * 3, "it did not shrink");
	}
	env_close(&v);
}

static void pool_lease(struct check_ctx *c)
{
	struct vh_err e = {0}, e2 = {0};
	const struct vh_volume_ops *ops;
	struct vh_vol_stat st;
	struct env v;
	const char *name;
	void *vol;
	int r;

	env_open(&v, c);
	if (!(v.ops->caps & VH_POOL_LEASE))
		check_skip(c, "the host keeps the leases of this type");
	name = volume(&v);
	CHECK(c, !do_attach(&v, name, VH_ATTACH_RW_EXCL, 0, &vol, &ops, &e), "attach() failed: %s", e.cause ? e.cause : "");
	CHECK(c, !do_stat(&v, name, &st, NULL) && st.flags & VH_STAT_IN_USE, "stat() does not say that it is in use");
	if (v.ops->remove) {
		r = v.ops->remove(v.pool, name, NULL, &e2);
		CHECK(c, r == -EBUSY, "removing a volume in use gave %d, not -EBUSY", r);
		CHECK(c, e2.cause, "-EBUSY came without a text that names the holder");
	}
	if (v.ops->resize)
		CHECK(c, v.ops->resize(v.pool, name, SIZE * 2, VH_PREALLOC_OFF, NULL, NULL) == -EBUSY, "resizing a volume in use is not -EBUSY");
	if (v.ops->clone) {
		r = v.ops->clone(v.pool, name, NULL, fresh(&v), VH_CLONE_FULL, NULL, NULL);
		CHECK(c, r == -EBUSY || r == -EOPNOTSUPP, "cloning a volume in use gave %d, not -EBUSY", r);
	}
	if (v.ops->snapshot_rollback)
		CHECK(c, v.ops->snapshot_rollback(v.pool, name, "none", NULL, NULL) < 0, "rolling back a volume in use succeeded");
	ops->close(vol);
	CHECK(c, !do_stat(&v, name, &st, NULL) && !(st.flags & VH_STAT_IN_USE), "closed, stat() says that it is in use");
	env_close(&v);
}

static void pool_break(struct check_ctx *c)
{
	struct vh_err e = {0};
	const struct vh_volume_ops *ops;
	struct env v;
	const char *name;
	void *vol;
	int r;

	env_open(&v, c);
	if (!v.ops->lease_break)
		check_skip(c, "leases of this type end with their holders");
	name = volume(&v);
	r = v.ops->lease_break(v.pool, name, NULL, &e);
	CHECK(c, !r, "breaking a lease that nobody holds gave %d (%s), not 0", r, e.cause ? e.cause : "");
	CHECK(c, !do_attach(&v, name, VH_ATTACH_RW_EXCL, 0, &vol, &ops, NULL), "afterwards it cannot be attached");
	ops->close(vol);
	env_close(&v);
}

static void pool_flags(struct check_ctx *c)
{
	const struct vh_volume_ops *ops;
	struct env v;
	void *vol;
	int r;

	env_open(&v, c);
	r = do_attach(&v, volume(&v), VH_ATTACH_RO, UINT64_C(1) << 31, &vol, &ops, NULL);
	CHECK(c, r == -EOPNOTSUPP, "a flag that must be understood and is not known gave %d, not -EOPNOTSUPP", r);
	r = do_attach(&v, v.name[0], VH_ATTACH_RO, UINT64_C(1) << 63, &vol, &ops, NULL);
	CHECK(c, !r, "a flag that may be ignored gave %d", r);
	ops->close(vol);
	r = do_attach(&v, v.name[0], 77, 0, &vol, &ops, NULL);
	CHECK(c, r < 0, "a mode of attach that there is not was accepted");
	env_close(&v);
}

static void pool_meta(struct check_ctx *c)
{
	g_autofree char *longest = g_strnfill(255, 'v');
	struct vh_err e = {0};
	char buf[300];
	struct env v;
	const char *name;
	int64_t n;
	int r;

	env_open(&v, c);
	if (!v.ops->meta_get || !(v.ops->caps & VH_POOL_META))
		check_skip(c, "the host keeps the values of this type");
	name = volume(&v);
	CHECK(c, v.ops->meta_get(v.pool, name, "check.a", buf, sizeof(buf), NULL) == -ENODATA, "a value that was never set is not -ENODATA");
	for (unsigned i = 0; i < 3; i++) {
		static const char *const texts[] = {"qcow2", "pools of text, = and ; and [x] # \"y\" \\ %s"};
		const char *text = i < 2 ? texts[i] : longest;

		r = v.ops->meta_set(v.pool, name, "check.a", text, &e);
		CHECK(c, !r, "meta_set() of %zu bytes failed: %d %s", strlen(text), r, e.cause ? e.cause : "");
		memset(buf, 0xdb, sizeof(buf));
		n = v.ops->meta_get(v.pool, name, "check.a", buf, sizeof(buf), &e);
		CHECK(c, n == (int64_t)strlen(text) && !memcmp(buf, text, (size_t)n), "a value of %zu bytes came back otherwise", strlen(text));
	}
	n = v.ops->meta_get(v.pool, name, "check.a", buf, 4, NULL);
	CHECK(c, n == -ENOSPC || n == -ERANGE || n == 255, "a value that does not fit gave %lld", (long long)n);
	CHECK(c, !v.ops->meta_set(v.pool, name, "check.a", NULL, NULL), "removing a value failed");
	CHECK(c, v.ops->meta_get(v.pool, name, "check.a", buf, sizeof(buf), NULL) == -ENODATA, "a removed value is not -ENODATA");
	CHECK(c, !v.ops->meta_set(v.pool, name, "check.a", NULL, NULL), "removing it again failed");
	if (v.ops->remove) {
		v.ops->meta_set(v.pool, name, "check.b", "old", NULL);
		CHECK(c, !v.ops->remove(v.pool, name, NULL, NULL) && !make(&v, name, SIZE, NULL, NULL, NULL), "remove() and create() failed");
		CHECK(c, v.ops->meta_get(v.pool, name, "check.b", buf, sizeof(buf), NULL) == -ENODATA,
		      "a new volume has a value of the one that had its name");
	}
	env_close(&v);
}

static void pool_clone(struct check_ctx *c)
{
	struct vh_err e = {0};
	struct vh_vol_stat a, b;
	struct env v;
	const char *name, *copy;
	int r;

	env_open(&v, c);
	if (!v.ops->clone || !(v.ops->caps & (VH_POOL_CLONE_FULL | VH_POOL_CLONE_COW)))
		check_skip(c, "the host copies for this type");
	name = volume(&v);
	copy = fresh(&v);
	r = v.ops->clone(v.pool, name, NULL, copy, v.ops->caps & VH_POOL_CLONE_FULL ? VH_CLONE_FULL : VH_CLONE_COW, NULL, &e);
	CHECK(c, !r, "clone() failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, !do_stat(&v, name, &a, NULL) && !do_stat(&v, copy, &b, NULL), "the copy is not there");
	CHECK(c, a.bytes == b.bytes && strcmp(a.identity, b.identity), "the copy has another size, or the same identity");
	CHECK(c, v.ops->clone(v.pool, fresh(&v), NULL, fresh(&v), VH_CLONE_FULL, NULL, NULL) < 0, "what is not there was cloned");
	if (v.ops->remove) /* copies first: a copy-on-write clone may keep its source */
		v.ops->remove(v.pool, copy, NULL, NULL);
	env_close(&v);
}

static int snapshot(struct env *v, const char *name, const char *snap, uint64_t flags, struct vh_err *e)
{
	struct vh_snap_spec s = {.size = sizeof(s), .flags = flags, .volume = name, .snap = snap};

	return v->ops->snapshot_create(v->pool, &s, e);
}

static void pool_snapshots(struct check_ctx *c)
{
	struct found f = {.c = c, .name = SNAP};
	struct vh_err e = {0};
	struct env v;
	const char *name;
	int r;

	env_open(&v, c);
	if (!v.ops->snapshot_create || !(v.ops->caps & VH_POOL_SNAPSHOT))
		check_skip(c, "this type has no snapshots");
	name = volume(&v);
	CHECK(c, v.ops->snapshot_list(v.pool, name, find, &f, &e) >= 0 && !f.all, "a new volume has snapshots");
	r = snapshot(&v, name, SNAP, 0, &e);
	CHECK(c, !r, "snapshot_create() failed: %d %s", r, e.cause ? e.cause : "");
	f = (struct found){.c = c, .name = SNAP};
	CHECK(c, !v.ops->snapshot_list(v.pool, name, find, &f, NULL) && f.times == 1 && f.all == 1, "the snapshot is listed %u times", f.times);
	f = (struct found){.c = c, .name = SNAP};
	v.ops->list(v.pool, 0, find, &f, NULL);
	CHECK(c, !f.times, "a snapshot is listed among the volumes");
	if (v.ops->snapshot_rollback) {
		r = v.ops->snapshot_rollback(v.pool, name, SNAP, NULL, &e);
		CHECK(c, !r, "snapshot_rollback() failed: %d %s", r, e.cause ? e.cause : "");
		CHECK(c, v.ops->snapshot_rollback(v.pool, name, "none", NULL, NULL) < 0, "going back to no snapshot succeeded");
	}
	for (unsigned i = 0; i < 20 && (r = v.ops->snapshot_remove(v.pool, name, SNAP, NULL, &e)) == -EBUSY; i++)
		g_usleep(500000); /* a merge may run in the background */
	CHECK(c, !r, "snapshot_remove() failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, !v.ops->snapshot_remove(v.pool, name, SNAP, NULL, NULL), "removing it again is an error");
	f = (struct found){.c = c, .name = SNAP};
	v.ops->snapshot_list(v.pool, name, find, &f, NULL);
	CHECK(c, !f.all, "removed, it is still listed");
	env_close(&v);
}

/* Beside a writer, when it is asked for; and never by accident. */
static void pool_snapshot_in_use(struct check_ctx *c)
{
	struct vh_err e = {0}, e2 = {0};
	const struct vh_volume_ops *ops;
	struct found f = {.c = c, .name = SNAP};
	struct env v;
	const char *name;
	void *vol;
	int r;

	env_open(&v, c);
	if (!v.ops->snapshot_create || !(v.ops->caps & VH_POOL_SNAPSHOT))
		check_skip(c, "this type has no snapshots");
	name = volume(&v);
	r = snapshot(&v, name, SNAP, UINT64_C(1) << 31, NULL);
	CHECK(c, r == -EOPNOTSUPP, "a flag that must be understood and is not known gave %d, not -EOPNOTSUPP", r);
	CHECK(c, v.ops->snapshot_list(v.pool, name, find, &f, NULL) >= 0 && !f.all, "refused, it took a snapshot all the same");
	CHECK(c, !do_attach(&v, name, VH_ATTACH_RW_EXCL, 0, &vol, &ops, &e), "attach() failed: %s", e.cause ? e.cause : "");
	if (v.ops->caps & VH_POOL_LEASE) {
		r = snapshot(&v, name, SNAP, 0, &e2);
		CHECK(c, r == -EBUSY && e2.cause, "a snapshot of a volume in use gave %d, not -EBUSY with a text", r);
	}
	r = snapshot(&v, name, SNAP, VH_SNAP_IN_USE | UINT64_C(1) << 63, &e);
	CHECK(c, !r, "with VH_SNAP_IN_USE it failed: %d %s", r, e.cause ? e.cause : "");
	f = (struct found){.c = c, .name = SNAP};
	CHECK(c, !v.ops->snapshot_list(v.pool, name, find, &f, NULL) && f.times == 1 && f.all == 1, "the snapshot is listed %u times", f.times);
	if (v.ops->caps & VH_POOL_LEASE)
		CHECK(c, do_attach(&v, name, VH_ATTACH_RO, 0, &(void *){NULL}, &(const struct vh_volume_ops *){NULL}, NULL) == -EBUSY,
		      "the snapshot took away its user's lease");
	ops->close(vol);
	r = v.ops->snapshot_remove(v.pool, name, SNAP, NULL, &e);
	CHECK(c, !r, "snapshot_remove() failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, !do_attach(&v, name, VH_ATTACH_RW_EXCL, 0, &vol, &ops, &e), "afterwards it cannot be attached: %s", e.cause ? e.cause : "");
	ops->close(vol);
	env_close(&v);
}

static void pool_cancel(struct check_ctx *c)
{
	struct vh_job j = {.cancel = 1};
	struct vh_vol_stat st;
	struct env v;
	const char *name;
	int r;

	env_open(&v, c);
	if (!v.ops->create || !(v.ops->caps & VH_POOL_CREATE))
		check_skip(c, "this type makes no volumes");
	name = fresh(&v);
	r = make(&v, name, SIZE, &j, NULL, NULL);
	CHECK(c, !r || r == -ECANCELED, "create() of a cancelled job gave %d: 0 when it was quicker, or -ECANCELED", r);
	CHECK(c, !!r == (do_stat(&v, name, &st, NULL) == -ENOENT), "cancelled, it left something behind (or done, it left nothing)");
	env_close(&v);
}

static void pool_path(struct check_ctx *c)
{
	char buf[4096];
	struct env v;
	const char *name;
	int r;

	env_open(&v, c);
	if (!v.ops->path || !(v.ops->caps & VH_POOL_FILES))
		check_skip(c, "volumes of this type have no path");
	name = volume(&v);
	memset(buf, 0xdb, sizeof(buf));
	r = v.ops->path(v.pool, name, buf, sizeof(buf), NULL);
	CHECK(c, !r && memchr(buf, 0, sizeof(buf)) && buf[0] == '/', "path() gave %d and no absolute path", r);
	memset(buf, 0xdb, sizeof(buf));
	r = v.ops->path(v.pool, name, buf, 4, NULL);
	CHECK(c, r < 0, "path() of 4 bytes succeeded");
	for (unsigned i = 4; i < 64; i++)
		CHECK(c, (uint8_t)buf[i] == 0xdb, "path() wrote behind what it was given");
	env_close(&v);
}

#define DOC "docs/storage.md"
#define HDR "vhost/pool.h"
static const struct check checks[] = {
	{"pool-info", "info() is whole and consistent, and a pool can do no more than its type promises", HDR, pool_info, VH_KIND_POOL, 60},
	{"pool-absent", "what is not there is -ENOENT with a text, and removing it succeeds", HDR, pool_absent, VH_KIND_POOL, 60},
	{"pool-names", "hostile names are refused or harmless", HDR, pool_names, VH_KIND_POOL, 60},
	{"pool-create", "a new volume has its size, is listed once, and an equal spec finds it done", HDR, pool_create, VH_KIND_POOL, 60},
	{"pool-identity", "an identity is a volume's own and stays", DOC "#leases", pool_identity, VH_KIND_POOL, 60},
	{"pool-remove", "a removed volume is gone, and its name is free", HDR, pool_remove, VH_KIND_POOL, 60},
	{"pool-resize", "growing and shrinking do what the capabilities promise", HDR, pool_resize, VH_KIND_POOL, 60},
	{"pool-lease", "a volume in use is neither removed nor resized nor cloned", DOC "#leases", pool_lease, VH_KIND_POOL, 60},
	{"pool-lease-break", "breaking a lease that nobody holds succeeds and changes nothing", HDR, pool_break, VH_KIND_POOL, 60},
	{"pool-flags", "attach flags that must be understood are, and modes are checked", HDR, pool_flags, VH_KIND_POOL, 60},
	{"pool-meta", "values beside a volume come back whole, and go with it", HDR, pool_meta, VH_KIND_POOL, 60},
	{"pool-clone", "a clone is a volume of its own", HDR, pool_clone, VH_KIND_POOL, 60},
	{"pool-snapshots", "snapshots come, are listed, are gone back to and go", HDR, pool_snapshots, VH_KIND_POOL, 60},
	{"pool-snapshot-in-use", "a snapshot beside a writer is taken only when asked for, and leaves the writer alone", HDR,
	 pool_snapshot_in_use, VH_KIND_POOL, 60},
	{"pool-cancel", "a cancelled create leaves nothing behind", HDR, pool_cancel, VH_KIND_POOL, 60},
	{"pool-path", "path() is absolute and stays within its buffer", HDR, pool_path, VH_KIND_POOL, 60},
	{0},
};
const struct check_group group_pool = {"POOL", "pools: the contract of vhost/pool.h", checks};
