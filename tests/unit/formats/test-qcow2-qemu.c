/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * qcow2 against QEMU, both ways: images of every kind that qemu-img makes and qemu-io writes are read as qemu-img reads them;
 * then they are written here, and qemu-img must find them clean and read what was written; then qemu-io writes again.
 * Argument `all`: all kinds of images, not only a few.
 */
#include <glib/gstdio.h>
#include "../fmt/rig.h"

#define DISK (UINT64_C(8) << 20)
#define CAPS (VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW)

static char *dir;
static uint64_t seed;

static void run(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static void run(const char *fmt, ...)
{
	va_list ap;
	g_autofree char *cmd = NULL, *all = NULL, *out = NULL, *err = NULL;
	int status;

	va_start(ap, fmt);
	cmd = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	all = g_strdup_printf("cd '%s' && %s", dir, cmd);
	const char *argv[] = {"sh", "-c", all, NULL};

	g_assert_true(g_spawn_sync(NULL, (char **)(uintptr_t)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, NULL));
	if (status)
		g_error("%s: %s%s", cmd, out, err);
}

static char *path_of(const char *name)
{
	return g_build_filename(dir, name, NULL);
}

static struct blk_vol *load(const char *name)
{
	struct blk_vol *v = fake_vol_new(name, 0, CAPS);
	g_autofree char *path = path_of(name);
	g_autofree char *data = NULL;
	gsize n;

	g_assert_true(g_file_get_contents(path, &data, &n, NULL));
	fake_vol_set(v, data, n);
	fake_vol_sync(v, 1);
	return v;
}

static void store(struct blk_vol *v, const char *name)
{
	g_autofree char *path = path_of(name);

	g_assert_true(g_file_set_contents(path, (char *)fake_vol_data(v), (gssize)blk_vol_bytes(v), NULL));
}

/* What qemu-img reads. */
static uint8_t *raw_of(const char *name, gsize *n)
{
	g_autofree char *path = path_of("out.raw");
	char *data;

	run("qemu-img convert -f qcow2 -O raw %s out.raw", name);
	g_assert_true(g_file_get_contents(path, &data, n, NULL));
	return (uint8_t *)data;
}

static void same(const uint8_t *a, const uint8_t *b, uint64_t n, const char *what, const char *when)
{
	for (uint64_t k = 0; k < n; k++)
		if (a[k] != b[k])
			g_error("%s, %s: byte %" G_GUINT64_FORMAT " reads %u, is %u", what, when, k, a[k], b[k]);
}

static void reads_as(struct fmt_image *i, const uint8_t *want, uint64_t n, const char *what, const char *when)
{
	g_autofree uint8_t *b = g_malloc(n);
	ERR_AUTO(e);

	if (fmt_pread(i, b, n, 0, &e) < 0)
		g_error("%s: read: %s", what, e.cause);
	same(b, want, n, what, when);
}

/* Random requests through a queue, the model beside. Discards only where the answer is sure: none. */
static void scribble(struct fmt_image *i, uint8_t *model, uint64_t bytes, unsigned ops)
{
	struct rig_queue q;

	rig_queue_open(&q, i, 16);
	for (unsigned k = 0; k < ops; k++) {
		uint64_t n = 1 + rig_rnd(&seed) % (rig_rnd(&seed) % 4 ? 9000 : 400000), at;
		unsigned kind = (unsigned)(rig_rnd(&seed) % 10);
		g_autofree uint8_t *b = NULL;

		if (rig_rnd(&seed) % 3 == 0)
			n = (n + 511) & ~UINT64_C(511);
		if (rig_rnd(&seed) % 4 == 0)
			n = (n + 65535) & ~UINT64_C(65535);
		n = MIN(n, bytes);
		at = rig_rnd(&seed) % (bytes - n + 1);
		if (rig_rnd(&seed) % 2)
			at &= ~UINT64_C(65535);
		if (kind < 6) {
			b = g_malloc(n);
			memset(b, (int)(1 + rig_rnd(&seed) % 255), n);
			g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, n, at), ==, 0);
			memcpy(model + at, b, n);
		} else if (kind < 8) {
			g_assert_cmpint(rig_io(&q, VH_ZERO, kind == 6 ? VH_REQ_MAY_UNMAP : 0, NULL, n, at), ==, 0);
			memset(model + at, 0, n);
		} else if (kind == 8) {
			g_assert_cmpint(rig_io(&q, VH_DISCARD, 0, NULL, n, at), ==, 0);
			b = g_malloc(n);
			g_assert_cmpint(rig_io(&q, VH_READ, 0, b, n, at), ==, 0);
			for (uint64_t c = 0; c < n; c++)
				g_assert_true(b[c] == model[at + c] || !b[c]);
			memcpy(model + at, b, n);
		} else {
			g_assert_cmpint(rig_io(&q, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
		}
	}
	rig_queue_close(&q);
}

static const char *const patterns =
	"-c 'write -P 1 0 100k' -c 'write -P 2 1M 300k' -c 'write -P 3 3000k 64k' -c 'write -z 64k 200k' -c 'write -P 4 70k 3k'"
	" -c 'write -z -u 1100k 128k' -c 'discard 3008k 64k' -c 'write -P 5 5M 1M' -c 'discard 5200k 300k' -c 'write -P 6 8191k 1k'";
static const char *const again = "-c 'write -P 11 30k 200k' -c 'write -z 2M 100k' -c 'write -P 12 4M 700k' -c 'discard 0 64k'";

struct row { const char *name, *create, *also; uint64_t bytes; };

/* Our writes on top of what is in `name`, and back. */
static void both_ways(const char *name, const char *more, const char *what)
{
	gsize n, n2;
	g_autofree uint8_t *model = raw_of(name, &n), *seen = NULL;
	struct blk_vol *v = load(name), *w = more ? load(more) : NULL;
	struct fmt_image *i;

	if (w)
		rig_register(more, w);
	i = rig_open(v, "qcow2", 0, FMT_REPORT);
	reads_as(i, model, n, what, "as QEMU left it");
	scribble(i, model, n, 60);
	reads_as(i, model, n, what, "written");
	fmt_close(i);
	i = rig_open(v, "qcow2", 0, FMT_REPORT);
	reads_as(i, model, n, what, "opened again");
	fmt_close(i);
	store(v, name);
	if (w)
		store(w, more);
	run("qemu-img check -q -f qcow2 %s", name);
	seen = raw_of(name, &n2);
	g_assert_cmpuint(n, ==, n2);
	same(seen, model, n, what, "as QEMU reads what was written");
	run("qemu-io -f qcow2 %s %s", again, name);
	run("qemu-img check -q -f qcow2 %s", name);
	g_clear_pointer(&seen, g_free);
	seen = raw_of(name, &n2);
	blk_vol_put(v);
	if (w)
		blk_vol_put(w);
	v = load(name);
	rig_forget();
	if (more) {
		w = load(more);
		rig_register(more, w);
	}
	i = rig_open(v, "qcow2", 0, FMT_REPORT);
	reads_as(i, seen, n, what, "written by QEMU again");
	fmt_close(i);
	blk_vol_put(v);
	if (more)
		blk_vol_put(w);
	rig_forget();
}

static void variants(gconstpointer data)
{
	const struct row *r = data;

	seed = (uint64_t)g_test_rand_int() | 1;
	run("qemu-img create -q -f qcow2 -o %s t.qcow2 %" G_GUINT64_FORMAT, r->create, r->bytes ? r->bytes : DISK);
	run("qemu-io -f qcow2 %s t.qcow2", patterns);
	if (r->also && strchr(r->also, ' '))
		run("%s", r->also);
	both_ways("t.qcow2", r->also && !strchr(r->also, ' ') ? r->also : NULL, r->name);
}

static const struct row rows[] = {
	{"plain", "compat=v3", NULL, 0},
	{"v2", "compat=v2", NULL, 0},
	{"512", "cluster_size=512", NULL, 0},
	{"512-refcount-64", "cluster_size=512,refcount_bits=64", NULL, 0},
	{"2m", "cluster_size=2M", NULL, 0},
	{"refcount-1", "refcount_bits=1", NULL, 0},
	{"refcount-2", "refcount_bits=2,cluster_size=1k", NULL, 0},
	{"refcount-4", "refcount_bits=4,cluster_size=4k", NULL, 0},
	{"refcount-8", "refcount_bits=8", NULL, 0},
	{"refcount-32", "refcount_bits=32,cluster_size=2k", NULL, 0},
	{"extended", "extended_l2=on", NULL, 0},
	{"extended-16k", "extended_l2=on,cluster_size=16k", NULL, 0},
	{"extended-2m", "extended_l2=on,cluster_size=2M", NULL, 0},
	{"lazy", "lazy_refcounts=on", NULL, 0},
	{"metadata", "preallocation=metadata", NULL, 0},
	{"falloc", "preallocation=falloc", NULL, 0},
	{"full", "preallocation=full", NULL, 0},
	{"data-file", "data_file=t.data", "t.data", 0},
	{"data-file-raw", "data_file=t.data,data_file_raw=on", "t.data", 0},
	{"odd-size", "cluster_size=64k", NULL, DISK + 41 * 512},
	{"snapshot", "compat=v3", "qemu-img snapshot -c one t.qcow2 && qemu-io -f qcow2 -c 'write -P 9 1M 1M' t.qcow2", 0},
	{"snapshot-gone", "compat=v3", "qemu-img snapshot -c one t.qcow2 && qemu-img snapshot -d one t.qcow2", 0},
	{"snapshot-extended", "extended_l2=on", "qemu-img snapshot -c one t.qcow2 && qemu-io -f qcow2 -c 'write -P 9 1M 3k' t.qcow2", 0},
	{"compressed", "compat=v3", "qemu-img convert -c -f qcow2 -O qcow2 t.qcow2 c.qcow2 && mv c.qcow2 t.qcow2", 0},
	{"compressed-512", "compat=v3", "qemu-img convert -c -o cluster_size=512 -f qcow2 -O qcow2 t.qcow2 c.qcow2 && mv c.qcow2 t.qcow2", 0},
	{"compressed-2m", "compat=v2", "qemu-img convert -c -o cluster_size=2M -f qcow2 -O qcow2 t.qcow2 c.qcow2 && mv c.qcow2 t.qcow2", 0},
	{"compressed-zstd", "compat=v3", "qemu-img convert -c -o compression_type=zstd -f qcow2 -O qcow2 t.qcow2 c.qcow2 && mv c.qcow2 t.qcow2", 0},
	{"compressed-extended", "compat=v3", "qemu-img convert -c -o extended_l2=on -f qcow2 -O qcow2 t.qcow2 c.qcow2 && mv c.qcow2 t.qcow2", 0},
	{"compressed-snapshot", "compat=v3", "qemu-img convert -c -f qcow2 -O qcow2 t.qcow2 c.qcow2 && mv c.qcow2 t.qcow2 && qemu-img snapshot -c s t.qcow2", 0},
};

struct chain { const char *name, *base_create, *top_create; uint64_t base, top; int base_raw; };
static const struct chain chains[] = {
	{"same", "cluster_size=64k", "cluster_size=64k", DISK, DISK, 0},
	{"shorter-base", "cluster_size=4k", "cluster_size=64k", (DISK >> 1) + 5 * 512, DISK, 0},
	{"longer-base", "cluster_size=64k", "cluster_size=64k", DISK * 2, DISK, 0},
	{"raw-base", "", "cluster_size=64k", (DISK >> 2) + 512, DISK, 1},
	{"v2", "compat=v2", "compat=v2", DISK, DISK, 0},
	{"extended", "cluster_size=64k", "extended_l2=on", DISK - 3 * 512, DISK, 0},
	{"small-on-large", "cluster_size=2M", "cluster_size=512", DISK, DISK, 0},
	{"odd-top", "cluster_size=64k", "cluster_size=64k", DISK * 2, DISK + 7 * 512, 0},
};

static void on_a_chain(gconstpointer data)
{
	const struct chain *c = data;
	struct blk_vol *base, *top;
	struct fmt_image *i;
	gsize n, n2;
	g_autofree uint8_t *model = NULL, *seen = NULL;

	seed = (uint64_t)g_test_rand_int() | 1; /* --seed repeats it */
	run("rm -f base top");
	run("qemu-img create -q -f %s %s%s base %" G_GUINT64_FORMAT, c->base_raw ? "raw" : "qcow2", c->base_raw ? "" : "-o ",
	    c->base_create, c->base);
	run("qemu-io -f %s -c 'write -P 77 0 1M' -c 'write -P 78 1500k 400k' -c 'write -P 79 %" G_GUINT64_FORMAT " 64k' base",
	    c->base_raw ? "raw" : "qcow2", c->base - 65536);
	run("qemu-img create -q -f qcow2 -F %s -b base -o %s top %" G_GUINT64_FORMAT, c->base_raw ? "raw" : "qcow2", c->top_create, c->top);
	run("qemu-io -f qcow2 -c 'write -P 1 100k 100k' -c 'write -z 500k 200k' -c 'discard 1600k 128k' top");
	model = raw_of("top", &n);
	base = load("base");
	top = load("top");
	rig_register("base", base);
	i = rig_open(top, "qcow2", 0, FMT_REPORT);
	reads_as(i, model, n, c->name, "as QEMU left it");
	scribble(i, model, n, 80);
	reads_as(i, model, n, c->name, "written");
	fmt_close(i);
	store(top, "top");
	run("qemu-img check -q -f qcow2 top");
	seen = raw_of("top", &n2);
	same(seen, model, n, c->name, "as QEMU reads it");
	rig_forget();
	blk_vol_put(base);
	blk_vol_put(top);
}

/* Larger and smaller by turns: what is cut off is gone, what is new is zeros, whatever lies below. */
struct sizes { const char *name, *create; uint64_t base; int snapshot, odd; };
static const struct sizes sizes[] = {
	{"plain", "cluster_size=64k", 0, 0, 1},
	{"512", "cluster_size=512", 0, 0, 1},
	{"v2", "compat=v2", 0, 0, 1},
	{"extended", "extended_l2=on,cluster_size=16k", 0, 0, 1},
	{"lazy", "lazy_refcounts=on", 0, 0, 1},
	{"snapshot", "cluster_size=64k", 0, 1, 1},
	{"snapshot-extended", "extended_l2=on", 0, 1, 1},
	{"data-file", "data_file=t.data", 0, 0, 1},
	{"data-file-raw", "data_file=t.data,data_file_raw=on", 0, 0, 1},
	{"backing", "cluster_size=64k", 4 * DISK, 0, 0},
	{"backing-v2", "compat=v2", 4 * DISK, 0, 0},
	{"backing-extended", "extended_l2=on", 4 * DISK, 0, 0},
	{"backing-512", "cluster_size=512", 4 * DISK, 0, 0},
};

static void resizing(gconstpointer data)
{
	const struct sizes *z = data;
	struct blk_vol *v, *base = NULL, *file = NULL;
	struct fmt_image *i;
	gsize n, n2;
	g_autofree uint8_t *model = NULL, *seen = NULL;
	ERR_AUTO(e);

	seed = (uint64_t)g_test_rand_int() | 1;
	if (z->base) {
		run("rm -f base && qemu-img create -q -f raw base %" G_GUINT64_FORMAT " && qemu-io -f raw -c 'write -P 88 0 %" G_GUINT64_FORMAT
		    "' base", z->base, z->base);
		base = load("base");
		rig_register("base", base);
	}
	run("rm -f t.data && qemu-img create -q -f qcow2 %s -o %s t.qcow2 %" G_GUINT64_FORMAT, z->base ? "-b base -F raw" : "", z->create, DISK);
	run("qemu-io -f qcow2 %s t.qcow2", patterns);
	if (z->snapshot)
		run("qemu-img snapshot -c one t.qcow2");
	model = raw_of("t.qcow2", &n);
	v = load("t.qcow2");
	if (strstr(z->create, "data_file=")) {
		file = load("t.data");
		rig_register("t.data", file);
	}
	i = rig_open(v, "qcow2", 0, FMT_REPORT);
	for (int k = 0; k < 12; k++) {
		uint64_t to = 65536 * (1 + rig_rnd(&seed) % (2 * DISK / 65536));

		if (z->odd && rig_rnd(&seed) % 2)
			to += 512 * (rig_rnd(&seed) % 128);
		if (fmt_resize(i, to, &e) < 0)
			g_error("%s: resize to %" G_GUINT64_FORMAT ": %s", z->name, to, e.cause);
		model = g_realloc(model, to);
		if (to > n)
			memset(model + n, 0, to - n);
		n = to;
		reads_as(i, model, n, z->name, "resized");
		scribble(i, model, n, 6);
		if (rig_rnd(&seed) % 3 == 0) {
			fmt_close(i);
			i = rig_open(v, "qcow2", 0, FMT_REPORT);
			reads_as(i, model, n, z->name, "opened again");
		}
	}
	fmt_close(i);
	store(v, "t.qcow2");
	if (file)
		store(file, "t.data");
	run("qemu-img check -q -f qcow2 t.qcow2");
	seen = raw_of("t.qcow2", &n2);
	g_assert_cmpuint(n, ==, n2);
	same(seen, model, n, z->name, "as QEMU reads it");
	if (z->snapshot) { /* it has what it had, as far as it was not made after */
		run("qemu-img snapshot -a one t.qcow2 && qemu-img check -q -f qcow2 t.qcow2");
	}
	rig_forget();
	blk_vol_put(v);
	if (base)
		blk_vol_put(base);
	if (file)
		blk_vol_put(file);
}

/* Images that are made here, as QEMU sees them. */
static const struct made { const char *name, *o[4]; int64_t v[4]; uint32_t prealloc; const char *expect; } mades[] = {
	{"plain", {NULL}, {0}, 0, "compat: 1.1"},
	{"v2", {"compat"}, {0}, 0, "compat: 0.10"},
	{"512", {"cluster-size"}, {512}, 0, "cluster_size: 512"},
	{"2m", {"cluster-size"}, {2 << 20}, 0, "cluster_size: 2097152"},
	{"refcount-1", {"refcount-bits", "cluster-size"}, {1, 4096}, 0, "refcount bits: 1"},
	{"refcount-64", {"refcount-bits", "cluster-size"}, {64, 512}, 0, "refcount bits: 64"},
	{"extended", {"extended-l2"}, {1}, 0, "extended l2: true"},
	{"lazy", {"lazy-refcounts"}, {1}, 0, "lazy refcounts: true"},
	{"zstd", {"compression-type"}, {1}, 0, "compression type: zstd"},
	{"metadata", {NULL}, {0}, VH_PREALLOC_METADATA, "compat: 1.1"},
	{"metadata-512", {"cluster-size", "refcount-bits"}, {512, 64}, VH_PREALLOC_METADATA, "cluster_size: 512"},
	{"metadata-extended", {"extended-l2"}, {1}, VH_PREALLOC_METADATA, "extended l2: true"},
	{"metadata-v2", {"compat"}, {0}, VH_PREALLOC_METADATA, "compat: 0.10"},
};

static void made_here(gconstpointer data)
{
	const struct made *k = data;
	struct vh_val v[4], *p[4];
	struct vh_opts o = {sizeof(o), 0, (const struct vh_val *const *)p};
	struct blk_vol *vol = fake_vol_new("made", 0, CAPS);
	struct vh_meta *m = fmt_meta_new(vol, 0);
	struct vh_create c = {.size = sizeof(c), .bytes = DISK, .volumes = &m, .n = 1, .opts = &o, .prealloc = k->prealloc};
	const struct vh_format_ops *ops;
	g_autofree char *info = NULL, *path = path_of("info");
	g_autofree uint8_t *model = NULL;
	struct fmt_image *i;
	gsize n;
	ERR_AUTO(e);

	seed = (uint64_t)g_test_rand_int() | 1;
	fake_vol_sync(vol, 1);
	for (; o.n < 4 && k->o[o.n]; o.n++) {
		v[o.n] = (struct vh_val){.size = sizeof(*v), .name = k->o[o.n], .num = k->v[o.n]};
		p[o.n] = &v[o.n];
	}
	if (plug_format("qcow2", &ops, &e) < 0 || ops->create(&c, NULL, &e) < 0)
		g_error("create: %s", e.cause);
	fmt_meta_free(m);
	store(vol, "made");
	run("qemu-img check -q -f qcow2 made && qemu-img info -f qcow2 made > info");
	g_assert_true(g_file_get_contents(path, &info, NULL, NULL));
	if (!strstr(info, k->expect))
		g_error("qemu-img says:\n%s\nand not %s", info, k->expect);
	model = raw_of("made", &n);
	g_assert_cmpuint(n, ==, DISK);
	for (uint64_t b = 0; b < n; b++)
		g_assert_true(!model[b]);
	i = rig_open(vol, "qcow2", 0, FMT_REPORT);
	reads_as(i, model, n, k->name, "new");
	fmt_close(i);
	blk_vol_put(vol);
	both_ways("made", NULL, k->name);
}

/* Without the argument `all`: those that have found something, or differ most. */
static const char *const few[] = {"plain", "512-refcount-64", "extended-16k", "data-file-raw", "snapshot-extended", "compressed",
				  "chain-longer-base", "chain-extended", "resize-snapshot", "resize-backing-v2", "made-metadata-512", NULL};

static void add(const char *kind, const char *name, const void *row, GTestDataFunc fn, int all)
{
	g_autofree char *short_name = g_strconcat(kind, name, NULL), *path = g_strconcat("/qcow2/qemu/", short_name, NULL);

	if (all || g_strv_contains(few, short_name))
		g_test_add_data_func(path, row, fn);
}

int main(int argc, char **argv)
{
	g_autoptr(GError) e = NULL;
	int r, all;

	g_test_init(&argc, &argv, NULL);
	for (unsigned k = 0; k < 2; k++) {
		g_autofree char *p = g_find_program_in_path(k ? "qemu-io" : "qemu-img");

		if (!p) {
			g_print("1..0 # SKIP %s is not installed\n", k ? "qemu-io" : "qemu-img");
			return 0;
		}
	}
	dir = g_dir_make_tmp("vhost-qcow2-XXXXXX", &e);
	g_assert_no_error(e);
	all = argc > 1 && !strcmp(argv[1], "all");
	for (unsigned k = 0; k < G_N_ELEMENTS(rows); k++)
		add("", rows[k].name, &rows[k], variants, all);
	for (unsigned k = 0; k < G_N_ELEMENTS(chains); k++)
		add("chain-", chains[k].name, &chains[k], on_a_chain, all);
	for (unsigned k = 0; k < G_N_ELEMENTS(sizes); k++)
		add("resize-", sizes[k].name, &sizes[k], resizing, all);
	for (unsigned k = 0; k < G_N_ELEMENTS(mades); k++)
		add("made-", mades[k].name, &mades[k], made_here, all);
	r = g_test_run();
	run("rm -rf '%s'", dir);
	return r;
}
