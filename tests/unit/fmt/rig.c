/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <unistd.h>
#include "rig.h"

struct shim shim;
_Atomic int rig_stops, rig_stop_error;

static const struct vh_format_ops *real;
static struct vh_format_ops shimmed_ops;
static struct { char name[64]; struct blk_vol *v; } registered[300];
static int nregistered;

uint64_t rig_rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static int chance(unsigned ppm)
{
	static __thread uint64_t s;

	if (!ppm)
		return 0;
	if (!s)
		s = (uint64_t)(uintptr_t)&s * 0x9e3779b97f4a7c15u | 1;
	return rig_rnd(&s) % 1000000 < ppm;
}

/* With lock_self the calls are parallel as far as the core goes; the plugin, which cannot, sees one at a time. */
static pthread_mutex_t plugin_lock = PTHREAD_MUTEX_INITIALIZER;

static int enter(int nowait)
{
	if (!shim.lock_self)
		return 0;
	return nowait ? pthread_mutex_trylock(&plugin_lock) : pthread_mutex_lock(&plugin_lock);
}

static void leave(void)
{
	if (shim.lock_self)
		pthread_mutex_unlock(&plugin_lock);
}

/* Which an answer may do: the host caches what lies behind the range, and must not write it. */
static void reach(void *img, struct vh_map *m)
{
	struct vh_extent *x = m->n ? &m->ext[m->n - 1] : NULL;
	struct vh_image_info i = {.size = sizeof(i)};
	uint64_t end;

	if (!x || m->op != VH_MAP_WRITE || !(x->flags & VH_EXT_PURE) || real->info(img, &i))
		return;
	end = (x->pos + x->len + shim.reach - 1) / shim.reach * shim.reach;
	x->len = MIN(end, i.bytes) - x->pos;
}

static int shim_map(void *img, struct vh_map *m)
{
	int r;

	shim.maps++;
	if ((m->flags & VH_MAP_NOWAIT) && chance(shim.map_eagain))
		return -EAGAIN;
	if (!(m->flags & VH_MAP_NOWAIT) && chance(shim.delay))
		g_usleep(200);
	if (chance(shim.map_fail))
		return shim.map_error;
	if (shim.on_map)
		shim.on_map(m, 1);
	if (enter(m->flags & VH_MAP_NOWAIT))
		return -EAGAIN;
	r = shim.map ? shim.map(img, m) : real->map(img, m);
	if (r == 0 && shim.reach)
		reach(img, m);
	leave();
	for (uint32_t k = 0; r == 0 && shim.crypt && k < m->n; k++) {
		if (m->ext[k].type == VH_EXT_DATA)
			m->ext[k].flags |= VH_EXT_CRYPT;
		else if (m->ext[k].type == VH_EXT_TRIM && (m->ext[k].flags & VH_EXT_PURE))
			m->ext[k].bytes = 0; /* a hole that is still mapped would be decrypted */
	}
	if (shim.lock_self && !(m->flags & VH_MAP_NOWAIT) && chance(shim.delay * 20)) /* the answer grows old */
		g_usleep(300);
	if (shim.on_map)
		shim.on_map(m, 0);
	for (uint32_t k = 0; r == 0 && k < m->n; k++)
		shim.allocs += m->ext[k].type == VH_EXT_DATA && (m->ext[k].flags & VH_EXT_COMMIT);
	return r;
}

static int shim_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	int r;

	if (nowait && chance(shim.commit_eagain))
		return -EAGAIN;
	if (enter((int)nowait))
		return -EAGAIN;
	if (status == 0 && chance(shim.commit_fail)) {
		r = real->commit(img, m, -EIO, nowait);
		leave();
		if (r == -EAGAIN && nowait)
			return r;
		g_assert_cmpint(r, ==, 0);
		shim.aborts++;
		return -EIO;
	}
	r = real->commit(img, m, status, nowait);
	leave();
	if (status < 0)
		shim.aborts++;
	else
		shim.commits++;
	return r;
}

static int shim_flush(void *img, uint32_t phase)
{
	int r;

	if (!phase)
		shim.flushes++;
	if (chance(shim.delay))
		g_usleep(500);
	enter(0);
	r = real->flush(img, phase);
	leave();
	return r;
}

static int shim_info(void *img, struct vh_image_info *i)
{
	int r = real->info(img, i);

	if (shim.lock_self)
		i->caps |= VH_FMT_LOCK_SELF;
	if (shim.crypt) {
		i->caps |= VH_FMT_CRYPT;
		i->cipher = shim.crypt;
	}
	return r;
}

const struct vh_format_ops *shim_ops(const char *format)
{
	ERR_AUTO(e);

	if (plug_format(format, &real, &e) < 0)
		g_error("%s: %s", format, e.cause);
	shimmed_ops = *real;
	shimmed_ops.map = shim_map;
	shimmed_ops.info = shim_info;
	if (real->commit)
		shimmed_ops.commit = shim_commit;
	if (real->flush)
		shimmed_ops.flush = shim_flush;
	return &shimmed_ops;
}

void rig_create(struct blk_vol *v, const char *format, uint64_t bytes, const char *backing, const char *backing_format,
		uint64_t backing_bytes)
{
	const struct vh_format_ops *ops;
	struct vh_meta *m = fmt_meta_new(v, 0);
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .volumes = &m, .n = 1, .backing = backing,
			      .backing_format = backing_format, .backing_bytes = backing_bytes};
	ERR_AUTO(e);

	if (plug_format(format, &ops, &e) < 0 || ops->create(&c, NULL, &e) < 0)
		g_error("create %s: %s", format, e.cause);
	fmt_meta_free(m);
}

static void parse(const struct vh_format_ops *ops, const struct kvs *options, struct optset **set)
{
	ERR_AUTO(e);

	if (optset_parse(ops->create_options, options, ops->name, set, &e) < 0)
		g_error("options of %s: %s", ops->name, e.cause);
}

void rig_make(struct rig_files *f, const char *name, const char *format, const struct kvs *options, uint64_t bytes,
	      const char *backing, const char *backing_format, struct blk_vol *backing_vol, uint64_t backing_bytes)
{
	const uint64_t caps = VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW;
	const struct vh_format_ops *ops;
	struct vh_meta *metas[16] = {0}, *base = backing ? fmt_meta_new(backing_vol, 1) : NULL;
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .backing = backing, .backing_format = backing_format,
			      .backing_bytes = backing_bytes, .backing_volume = base, .name = name};
	struct vh_create_ref refs[15] = {0};
	struct optset *set = NULL;
	uint64_t required = 0, full = 0;
	int n = 0;
	ERR_AUTO(e);

	if (plug_format(format, &ops, &e) < 0)
		g_error("%s: %s", format, e.cause);
	parse(ops, options, &set);
	c.opts = optset_get(set);
	for (unsigned k = 0; k < 15; k++)
		refs[k].size = sizeof(refs[k]);
	if (ops->create_refs)
		n = ops->create_refs(&c, refs, 15, &e);
	if (n < 0 || n > 15)
		g_error("files of %s: %d %s", format, n, e.cause);
	if (ops->measure && ops->measure(&c, 0, &required, &full, NULL) < 0)
		required = 0;
	f->n = 1 + (unsigned)n;
	for (unsigned k = 0; k < f->n; k++) {
		f->name[k] = g_strdup(k ? refs[k - 1].name : name);
		f->vol[k] = fake_vol_new(f->name[k], k ? refs[k - 1].bytes : n ? 0 : required, caps);
		metas[k] = fmt_meta_new(f->vol[k], 0);
		rig_register(f->name[k], f->vol[k]);
	}
	c.volumes = metas;
	c.n = f->n;
	if (ops->create(&c, NULL, &e) < 0)
		g_error("create %s: %s", format, e.cause);
	for (unsigned k = 0; k < f->n; k++)
		fmt_meta_free(metas[k]);
	fmt_meta_free(base);
	optset_free(set);
}

void rig_files_free(struct rig_files *f)
{
	for (unsigned k = 0; k < f->n; k++) {
		blk_vol_put(f->vol[k]);
		g_free(f->name[k]);
	}
	f->n = 0;
}

void rig_register(const char *name, struct blk_vol *v)
{
	g_strlcpy(registered[nregistered].name, name, sizeof(registered[0].name));
	registered[nregistered++].v = v;
}

void rig_forget(void)
{
	nregistered = 0;
}

static int resolve(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32], struct vh_err *e)
{
	for (int k = 0; k < nregistered; k++) {
		/* A format that keeps no name of its parent says none; here it is "mid". */
		if (strcmp(registered[k].name, ref->name[0] ? ref->name : "mid"))
			continue;
		*vol = blk_vol_ref(registered[k].v);
		g_strlcpy(format, ref->format, 32);
		return 0;
	}
	return err_set(e, -ENOENT, "no volume %s", ref->name);
}

void rig_stopped(void *ctx, const char *label, int error)
{
	rig_stop_error = error;
	rig_stops++;
}

static struct kv open_option[1];
struct kvs rig_open_options = {open_option, 0};
static char *key_file;

const char *rig_passphrase(void)
{
	int fd = g_file_open_tmp("vhost-key-XXXXXX", &key_file, NULL);

	if (fd < 0 || write(fd, "open sesame", 11) != 11)
		g_error("cannot make a file for a passphrase");
	close(fd);
	open_option[0] = (struct kv){g_strdup("key-secret"), g_strconcat("file:", key_file, NULL)};
	rig_open_options.n = 1;
	return open_option[0].value;
}

void rig_passphrase_remove(void)
{
	if (key_file)
		unlink(key_file);
}

struct fmt_image *rig_open(struct blk_vol *v, const char *format, int shimmed, enum fmt_policy policy)
{
	struct fmt_spec s = {.vol = blk_vol_ref(v), .resolve = resolve, .label = "test", .on_read_error = policy,
			     .on_write_error = policy, .stopped = rig_stopped};
	struct optset *set = NULL;
	struct fmt_image *i;
	ERR_AUTO(e);

	if (shimmed)
		s.ops = shim_ops(format);
	else if (plug_format(format, &s.ops, &e) < 0)
		g_error("%s: %s", format, e.cause);
	if (optset_parse(s.ops->open_options, &rig_open_options, format, &set, &e) < 0)
		g_error("options of opening %s: %s", format, e.cause);
	s.opts = optset_get(set);
	if (fmt_open(&s, &i, &e) < 0)
		g_error("open %s: %s", format, e.cause);
	optset_free(set);
	return i;
}

void rig_queue_open(struct rig_queue *r, struct fmt_image *i, unsigned depth)
{
	ERR_AUTO(e);

	if (loop_new("q", &r->l, &e) < 0 || fmt_queue_open(i, r->l, depth, &r->q, &e) < 0 || loop_start(r->l, &e) < 0)
		g_error("queue: %s", e.cause);
}

void rig_queue_close(struct rig_queue *r)
{
	loop_stop(r->l);
	fmt_queue_close(r->q);
	loop_free(r->l);
}

static void async_done(struct fmt_io *io, int result)
{
	struct rig_async *a = (struct rig_async *)io;

	a->result = result;
	a->done = 1;
}

static void async_submit(void *ctx)
{
	struct rig_async *a = ctx;

	fmt_submit(a->r->q, &a->io);
}

void rig_start(struct rig_async *a, struct rig_queue *r, uint16_t op, uint16_t flags, void *buf, uint64_t len, uint64_t off)
{
	memset(&a->io, 0, sizeof(a->io));
	a->io.op = op;
	a->io.flags = flags;
	a->io.off = off;
	a->io.len = len;
	a->iov = (struct iovec){buf, len};
	a->io.iov = &a->iov;
	a->io.niov = buf ? 1 : 0;
	a->io.done = async_done;
	a->r = r;
	a->done = 0;
	loop_call(r->l, async_submit, a);
}

int rig_wait(struct rig_async *a)
{
	for (int k = 0; !a->done; k++) {
		g_usleep(100);
		if (k > 300000)
			g_error("a request does not end");
	}
	return a->result;
}

int rig_io(struct rig_queue *r, uint16_t op, uint16_t flags, void *buf, uint64_t len, uint64_t off)
{
	struct rig_async a;

	rig_start(&a, r, op, flags, buf, len, off);
	return rig_wait(&a);
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	g_test_message("check: %u at %" G_GUINT64_FORMAT ": %s", what, off, text);
	++*(int *)ctx;
}

int rig_check(struct fmt_image *i)
{
	int n = 0;
	ERR_AUTO(e);

	if (fmt_check(i, 0, found, &n, NULL, &e) < 0)
		g_error("check: %s", e.cause);
	return n;
}

static void found_kind(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct rig_found *f = ctx;

	f->leaks += what == VH_CHECK_LEAK;
	f->corrupt += what == VH_CHECK_CORRUPT;
	f->fixed += what == VH_CHECK_FIXED;
	if (what == VH_CHECK_CORRUPT)
		g_test_message("check: at %" G_GUINT64_FORMAT ": %s", off, text);
}

void rig_check_all(struct fmt_image *i, int repair, struct rig_found *f)
{
	ERR_AUTO(e);
	int r;

	memset(f, 0, sizeof(*f));
	r = fmt_check(i, repair, found_kind, f, NULL, &e);
	if (r < 0 && r != -EOPNOTSUPP)
		g_error("check: %s", e.cause);
}
