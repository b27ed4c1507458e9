/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A random load from some queues on an image against an oracle in memory, which knows for each cell of the disk the values that
 * may be read now, given what is in flight. A cell is G bytes, and everything begins and ends at cells, so an odd G makes
 * every request unaligned. Beside the load the image is drained, grown, and its snapshots are made, applied and removed; where the
 * format has backing images it lies on one of its own format, and that on a raw one. Afterwards, and opened again, the disk
 * must be what it was, the check clean, and qemu-img of the same opinion where it knows the format.
 *
 *	test-fmt-model [OPERATIONS [FORMAT [KEY=VALUE...]]]   OPERATIONS: of all its tests together; KEY=VALUE: to create, or
 *	                                                      load.snapshots=off, load.resizes=off to find out what it is,
 *	                                                      load.chain=off: without backing images, secret=on: with a
 *	                                                      passphrase
 */
#include <glib/gstdio.h>
#include "rig.h"

#define QUEUES 8
#define DEPTH 8
#define SNAPSHOTS 3

static const char *format = "toy-format";
static struct kv option[16];
static struct kvs options = {option, 0};
static const struct vh_format_ops *ops;
static uint64_t operations = 120000;

static int with_faults;
static unsigned G; /* bytes of a cell */
static unsigned ncells, max_cells;
static uint64_t unit, disk; /* allocation unit; bytes at first */
static unsigned largest;    /* bytes of a request */

struct cell {
	uint8_t n, any, writers, readers, failed, shrink, ne, lost; /* lost: e is not all of them */
	uint8_t v[8], e[8]; /* what may be read; what the writes now in flight, all together, may leave */
};
static struct cell *cells;
static pthread_mutex_t oracle_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t seed;

static void set_add(uint8_t *v, uint8_t *n, uint8_t *any, uint8_t x)
{
	for (int k = 0; k < *n; k++)
		if (v[k] == x)
			return;
	if (*n == 8)
		*any = 1;
	else
		v[(*n)++] = x;
}

static void write_begin(unsigned c, unsigned n, uint8_t x, int discard)
{
	for (struct cell *p = &cells[c]; n--; p++) {
		if (!p->writers)
			p->ne = p->failed = p->shrink = p->lost = 0;
		p->writers++;
		if (discard)
			p->failed = 1; /* what was there may stay */
		if (discard && with_faults && rig_open_options.n)
			p->any = 1; /* it may fail when its hole is there already, which reads as noise */
		set_add(p->v, &p->n, &p->any, x);
		set_add(p->e, &p->ne, &p->lost, x);
		p->failed |= p->lost;
	}
}

static void shrink(struct cell *p)
{
	memcpy(p->v, p->e, sizeof(p->v));
	p->n = p->ne;
	p->any = p->shrink = 0;
}

static void write_end(unsigned c, unsigned n, int failed)
{
	for (struct cell *p = &cells[c]; n--; p++) {
		p->failed |= failed;
		if (--p->writers || p->failed)
			continue;
		if (p->readers)
			p->shrink = 1;
		else
			shrink(p);
	}
}

static int allowed(const struct cell *p, const uint8_t *b)
{
	for (unsigned k = 0; k < G && !p->any; k++)
		if (!memchr(p->v, b[k], p->n))
			return 0;
	return 1;
}

static void must(const struct cell *p, unsigned c, const uint8_t *b, const char *what)
{
	unsigned bad = 0;

	if (allowed(p, b))
		return;
	while (memchr(p->v, b[bad], p->n))
		bad++;
	g_error("%s, seed %" G_GUINT64_FORMAT ": byte %u (cell %u of %u bytes) reads %u, may be one of %u values: %u %u %u", what, seed,
		c * G + bad, c, G, b[bad], p->n, p->v[0], p->v[1], p->v[2]);
}

static void read_end(unsigned c, unsigned n, const uint8_t *b, int failed, const char *what)
{
	for (struct cell *p = &cells[c]; n--; p++, c++, b += G) {
		if (!failed)
			must(p, c, b, what);
		if (p->readers && !--p->readers && p->shrink && !p->writers)
			shrink(p);
	}
}

/* ---- the load ---- */

struct driver;
struct slot {
	struct fmt_io io;
	struct driver *d;
	struct iovec iov[6];
	uint8_t *buf, x;
	unsigned c, n;
};
struct driver {
	struct rig_queue rq;
	struct slot slot[DEPTH];
	uint64_t rnd;
	unsigned left;
	_Atomic unsigned active;
	struct vh_task task;
	_Atomic int done;
	unsigned errors, ops[6], at, burst; /* at: where its last write in a row ended; burst: so many more of them */
};
static struct driver drivers[QUEUES];
static unsigned nqueues;
static _Atomic int paused;

static void slot_done(struct fmt_io *io, int result)
{
	struct slot *s = (struct slot *)io;
	struct driver *d = s->d;

	g_assert_true(loop_is_current(d->rq.l));
	pthread_mutex_lock(&oracle_lock);
	if (io->op == VH_READ)
		read_end(s->c, s->n, s->buf, result < 0, "model");
	else if (io->op != VH_FLUSH)
		write_end(s->c, s->n, result < 0);
	pthread_mutex_unlock(&oracle_lock);
	if (result < 0) {
		if (!with_faults || (result != -EIO && result != -ENOSPC))
			g_error("seed %" G_GUINT64_FORMAT ": operation %u at %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " fails: %s", seed,
				io->op, io->off, io->len, strerror(-result));
		d->errors++;
	}
	memset(s->buf, 0xEE, (size_t)s->n * G); /* whoever touches it late will be seen */
	d->active--;
	s->x = 0;
	loop_post(d->rq.l, &d->task);
}

static void slot_submit(struct driver *d, struct slot *s)
{
	uint64_t r = rig_rnd(&d->rnd);
	unsigned burst = d->burst ? d->burst-- : 0, kind = burst && r >> 60 ? 79 : (unsigned)(r % 100), most = (r >> 8) % 100 < 85 ? 4096 : (r >> 16) % 8 ? MIN(70000, largest) : largest, left, at = 0, now;

	most = MAX(most / G, 1);
	s->d = d;
	memset(&s->io, 0, sizeof(s->io));
	s->io.done = slot_done;
	s->io.op = kind < 40 ? VH_READ : kind < 80 ? VH_WRITE : kind < 87 ? VH_ZERO : kind < 95 ? VH_DISCARD : VH_FLUSH;
	s->x = (uint8_t)(1 + rig_rnd(&d->rnd) % 250);
	d->ops[s->io.op]++;
	pthread_mutex_lock(&oracle_lock);
	now = ncells;
	if (s->io.op == VH_FLUSH) {
		s->c = s->n = 0;
	} else {
		s->n = 1 + (unsigned)(rig_rnd(&d->rnd) % MIN(most, now));
		s->c = (unsigned)(rig_rnd(&d->rnd) % (now - s->n + 1));
		if (rig_rnd(&d->rnd) % 8 == 0 && unit * 2 + 2 * G <= largest && disk > 4 * unit) { /* whole units now and then */
			s->c = (unsigned)(unit * (rig_rnd(&d->rnd) % (disk / unit - 3)) / G);
			s->n = (unsigned)(2 * unit / G + 2);
			if (s->c + s->n > now)
				s->c = s->n = 1;
		}
	}
	/* In a row, in small pieces, which may go together; where there was something, it is thrown away first. */
	if (s->io.op == VH_DISCARD && r >> 50 & 1) {
		d->burst = 20;
		d->at = s->c;
	} else if (burst && s->io.op == VH_WRITE && d->at + MAX(6000 / G, 1) <= now) {
		s->c = d->at;
		s->n = 1 + (unsigned)(rig_rnd(&d->rnd) % MAX(6000 / G, 1));
		d->at = s->c + s->n;
	}
	s->io.off = (uint64_t)s->c * G;
	s->io.len = (uint64_t)s->n * G;
	if (s->io.op == VH_READ)
		for (unsigned k = 0; k < s->n; k++)
			cells[s->c + k].readers++;
	else
		write_begin(s->c, s->n, s->io.op == VH_WRITE ? s->x : 0, s->io.op == VH_DISCARD);
	pthread_mutex_unlock(&oracle_lock);
	if (s->io.op == VH_ZERO && r >> 40 & 1)
		s->io.flags |= VH_REQ_MAY_UNMAP;
	if ((s->io.op == VH_ZERO || s->io.op == VH_WRITE) && (r >> 41) % 16 == 0)
		s->io.flags |= VH_REQ_FUA;
	s->io.iov = s->iov;
	left = s->n * G;
	while (s->io.op <= VH_WRITE && left) {
		unsigned len = s->io.niov == 5 ? left : 1 + (unsigned)(rig_rnd(&d->rnd) % left);

		s->iov[s->io.niov++] = (struct iovec){s->buf + at, len};
		at += len;
		left -= len;
	}
	if (s->io.op == VH_WRITE)
		memset(s->buf, s->x, at);
	d->active++;
	d->left--;
	fmt_submit(d->rq.q, &s->io);
}

static void drive(struct vh_task *t)
{
	struct driver *d = (struct driver *)((char *)t - offsetof(struct driver, task));

	for (int k = 0; k < DEPTH && d->left && !paused; k++)
		if (!d->slot[k].x)
			slot_submit(d, &d->slot[k]);
	if (!d->left && !d->active)
		d->done = 1;
}

/* Nothing new is asked, and what was has ended; or on again. */
static void pause_all(int on)
{
	paused = on;
	for (unsigned k = 0; k < nqueues; k++) {
		while (on && drivers[k].active)
			g_usleep(100);
		if (!on)
			loop_post(drivers[k].rq.l, &drivers[k].task);
	}
}

/* ---- beside it ---- */

static struct rig_files base, mid, top;

static void faults(int on)
{
	for (unsigned k = 0; k < top.n; k++)
		fake_vol_fail(top.vol[k], on ? 3000 : 0, -EIO);
	shim.map_eagain = on ? 200000 : 0;
	shim.map_fail = on ? 3000 : 0;
	shim.map_error = -ENOSPC;
	shim.commit_eagain = on ? 200000 : 0;
	/* A discard whose commit fails has been punched: zeros without a cipher, garbage with one, which the oracle does not know. */
	shim.commit_fail = on && !shim.crypt ? 20000 : 0;
	shim.delay = on ? 20000 : 0;
}

static struct { struct cell *cells; unsigned ncells, number; } snaps[SNAPSHOTS];
static unsigned nsnaps, snaps_made, snaps_applied, grown;
static int no_snapshots, with_snapshots = 1, with_resizes = 1, with_chain = 1;

static struct cell *copy_cells(void)
{
	struct cell *c = g_memdup2(cells, max_cells * sizeof(*c));

	for (unsigned k = 0; k < max_cells; k++)
		c[k].writers = c[k].readers = c[k].failed = c[k].shrink = c[k].ne = 0;
	return c;
}

/* The disk is again what it was; what waits behind the drain will still be written. */
static void cells_back(const struct cell *old)
{
	for (unsigned k = 0; k < max_cells; k++) {
		struct cell *p = &cells[k];

		memcpy(p->v, old[k].v, sizeof(p->v));
		p->n = old[k].n;
		p->any = old[k].any;
		p->shrink = 0; /* what was to become of it is past */
		p->failed |= p->writers != 0; /* and what was there before it may stay until then */
		for (int j = 0; j < p->ne && p->writers; j++)
			set_add(p->v, &p->n, &p->any, p->e[j]);
		p->any |= p->writers && p->lost;
	}
}

static void snapshot(struct fmt_image *i, uint64_t *s)
{
	unsigned which = (unsigned)(rig_rnd(s) % SNAPSHOTS), kind = (unsigned)(rig_rnd(s) % 3), strict = rig_rnd(s) % 2;
	char name[32];
	ERR_AUTO(e);
	int r;

	if (which >= nsnaps)
		kind = 0;
	if (kind == 0 && nsnaps == SNAPSHOTS)
		kind = 1;
	if (kind == 1 && snaps[which].ncells != ncells)
		kind = 2;
	if (strict)
		pause_all(1);
	fmt_drain_begin(i);
	pthread_mutex_lock(&oracle_lock);
	g_snprintf(name, sizeof(name), "s%u", kind == 0 ? snaps_made : snaps[which].number);
	if (kind == 0) {
		snaps[nsnaps].cells = copy_cells();
		snaps[nsnaps].ncells = ncells;
		snaps[nsnaps++].number = snaps_made++;
		r = fmt_snapshot_create(i, name, &e);
		if (r == -EOPNOTSUPP || r == -ERANGE || r == -EOVERFLOW) { /* this kind of image has none, or no more */
			g_free(snaps[--nsnaps].cells);
			no_snapshots = 1;
			r = 0;
		}
	} else if (kind == 1) {
		r = fmt_snapshot_apply(i, name, NULL, &e);
		cells_back(snaps[which].cells);
		snaps_applied++;
	} else {
		r = fmt_snapshot_remove(i, name, NULL, &e);
		g_free(snaps[which].cells);
		snaps[which] = snaps[--nsnaps];
	}
	pthread_mutex_unlock(&oracle_lock);
	if (r < 0)
		g_error("seed %" G_GUINT64_FORMAT ": snapshot %s: %s", seed, name, e.cause);
	fmt_drain_end(i);
	if (strict)
		pause_all(0);
}

static void grow(struct fmt_image *i, uint64_t *s)
{
	struct fmt_info info;
	uint64_t bytes;
	ERR_AUTO(e);

	fmt_get_info(i, &info);
	bytes = info.bytes + 512 * (1 + rig_rnd(s) % (disk / 8 / 512));
	if (shim.crypt)
		bytes &= ~UINT64_C(4095);
	if (bytes / G > max_cells)
		return;
	if (fmt_resize(i, bytes, &e) < 0)
		g_error("seed %" G_GUINT64_FORMAT ": growing to %" G_GUINT64_FORMAT " bytes: %s", seed, bytes, e.cause);
	pthread_mutex_lock(&oracle_lock);
	for (unsigned k = ncells; k < bytes / G; k++)
		cells[k] = (struct cell){.n = 1};
	ncells = (unsigned)(bytes / G);
	pthread_mutex_unlock(&oracle_lock);
	grown++;
}

static void beside(struct fmt_image *i, uint64_t *s, int snapshots, int resizes)
{
	fmt_drain_begin(i);
	fmt_drain_end(i);
	faults(0); /* a control call that fails half done is another test's subject */
	if (snapshots && !no_snapshots && rig_rnd(s) % 3 && ops->snapshot_create && ops->snapshot_apply && ops->snapshot_remove)
		snapshot(i, s);
	else if (resizes && ops->resize && rig_rnd(s) % 6 == 0)
		grow(i, s);
	faults(with_faults);
}

/* ---- afterwards ---- */

static void verify(struct fmt_image *i, const char *what)
{
	uint8_t *b = g_malloc((uint64_t)ncells * G);
	ERR_AUTO(e);

	if (fmt_pread(i, b, (uint64_t)ncells * G, 0, &e) < 0)
		g_error("%s, seed %" G_GUINT64_FORMAT ": %s", what, seed, e.cause);
	for (unsigned k = 0; k < ncells; k++)
		cells[k].readers = 0;
	read_end(0, ncells, b, 0, what);
	g_free(b);
}

/* New images read as zeros, but for encrypted ones that have no map: each byte of those is something. */
static void fill(struct fmt_image *i)
{
	g_autofree uint8_t *b = g_malloc0(disk);
	uint8_t first[512];

	g_assert_cmpint(fmt_pread(i, first, sizeof(first), 0, NULL), ==, 0);
	if (memcmp(first, b, sizeof(first)))
		g_assert_cmpint(fmt_pwrite(i, b, disk, 0, NULL), ==, 0);
}

static int qemu_knows(const char *const *list)
{
	return g_strv_contains(list, format);
}

static void files_write(const struct rig_files *f, const char *dir)
{
	for (unsigned k = 0; k < f->n; k++) {
		g_autofree char *path = g_build_filename(dir, f->name[k], NULL);

		if (!g_file_set_contents(path, (const char *)fake_vol_data(f->vol[k]), (gssize)blk_vol_bytes(f->vol[k]), NULL))
			g_error("cannot write %s", path);
	}
}

static void files_unlink(const struct rig_files *f, const char *dir)
{
	for (unsigned k = 0; k < f->n; k++) {
		g_autofree char *path = g_build_filename(dir, f->name[k], NULL);

		g_unlink(path);
	}
}

static void qemu_run(const char *dir, const char *command, const char *path, const char *out)
{
	const char *check[] = {"qemu-img", "check", "-f", format, path, NULL};
	const char *convert[] = {"qemu-img", "convert", "-f", format, "-O", "raw", path, out, NULL};
	g_autofree char *said = NULL, *wrong = NULL;
	int status;

	if (!g_spawn_sync(dir, (char **)(uintptr_t)(out ? convert : check), NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &said, &wrong, &status,
			  NULL))
		g_error("cannot run qemu-img");
	if (status)
		g_error("seed %" G_GUINT64_FORMAT ": qemu-img %s: %s%s", seed, command, said, wrong);
}

/* The image, clean by now, as qemu-img has it. */
static void qemu(void)
{
	static const char *const checks[] = {"qcow2", "vdi", "vmdk", "qed", "vhdx", "parallels", NULL};
	static const char *const reads[] = {"raw", "qcow2", "vdi", "vmdk", "qed", "vhdx", "vpc", "parallels", NULL};
	g_autofree char *installed = g_find_program_in_path("qemu-img"), *dir = NULL, *path = NULL, *out = NULL, *disk_bytes = NULL;
	gsize n;

	/* Of vdi it knows one block size, and no images with a parent. The crash tests show it encrypted ones. */
	if (!installed || !qemu_knows(reads) || rig_open_options.n || kvs_get(&options, "block-size") || (!strcmp(format, "vdi") && mid.n)) {
		g_test_message("not shown to qemu-img: %s", installed ? "it does not know such images" : "it is not installed");
		return;
	}
	dir = g_dir_make_tmp("vhost-model-XXXXXX", NULL);
	path = g_build_filename(dir, top.name[0], NULL);
	out = g_build_filename(dir, "out.raw", NULL);
	files_write(&base, dir);
	files_write(&mid, dir);
	files_write(&top, dir);
	if (qemu_knows(checks))
		qemu_run(dir, "check", path, NULL);
	qemu_run(dir, "convert", path, out);
	g_assert_true(g_file_get_contents(out, &disk_bytes, &n, NULL));
	g_assert_cmpuint(n, >=, (uint64_t)ncells * G);
	for (unsigned k = 0; k < ncells; k++)
		must(&cells[k], k, (const uint8_t *)disk_bytes + (gsize)k * G, "as qemu-img reads it");
	g_unlink(out);
	files_unlink(&base, dir);
	files_unlink(&mid, dir);
	files_unlink(&top, dir);
	g_rmdir(dir);
}

static void check(struct fmt_image *i, int leaks_ok, const char *what)
{
	struct rig_found f;

	rig_check_all(i, 0, &f);
	if (f.corrupt || (f.leaks && !leaks_ok))
		g_error("%s, seed %" G_GUINT64_FORMAT ": the check finds %u corruptions and %u leaks", what, seed, f.corrupt, f.leaks);
}

/* ---- one run ---- */

/* The bottom of the chain: raw, shorter than what lies on it. Some formats lie on their own only. */
static void make_base(uint64_t bytes)
{
	base = (struct rig_files){.n = 1, .vol = {fake_vol_new("base", bytes, VH_VOL_GROW)}, .name = {g_strdup("base")}};
	rig_register("base", base.vol[0]);
	for (unsigned k = 0; k < ncells; k++) {
		for (uint64_t b = (uint64_t)k * G; b < (uint64_t)k * G + G; b++)
			if (b < bytes)
				fake_vol_data(base.vol[0])[b] = (uint8_t)(1 + k % 200);
		cells[k].v[0] = (uint64_t)k * G + G <= bytes ? (uint8_t)(1 + k % 200) : 0;
		if ((uint64_t)k * G < bytes && (uint64_t)k * G + G > bytes)
			cells[k].any = 1; /* half base, half nothing */
	}
}

static int lies_on_raw(void)
{
	static const char *const not[] = {"vmdk", "vdi", NULL};

	return !g_strv_contains(not, format);
}

/* A raw image, one of the format on that, and the top. Without backing images: the top alone. */
static void make(uint64_t *s)
{
	const uint64_t short_bytes = disk / 16 * 7 + 512, mid_bytes = disk / 4 * 3;
	struct kv its[G_N_ELEMENTS(option)];
	struct kvs below = {its, options.n};
	struct fmt_image *i;

	for (unsigned k = 0; k < options.n; k++) { /* each image has a data file of its own */
		its[k] = option[k];
		if (!strcmp(its[k].key, "data-file"))
			its[k].value = (char *)(uintptr_t)"mid.data";
	}
	for (unsigned k = 0; k < max_cells; k++)
		cells[k] = (struct cell){.n = 1};
	if (!(ops->caps & VH_FMT_BACKING) || !with_chain) {
		rig_make(&top, "top", format, &options, disk, NULL, NULL, NULL, 0);
		return;
	}
	if (lies_on_raw())
		make_base(short_bytes);
	rig_make(&mid, "mid", format, &below, mid_bytes, base.n ? "base" : NULL, base.n ? "raw" : NULL, base.vol[0],
		 base.n ? short_bytes : 0);
	i = rig_open(mid.vol[0], format, 0, FMT_REPORT);
	for (int k = 0; k < 20; k++) {
		unsigned n = 1 + (unsigned)(rig_rnd(s) % (40000 / G)), c = (unsigned)(rig_rnd(s) % (mid_bytes / G - n));
		uint8_t *b = g_malloc((gsize)n * G), x = (uint8_t)(1 + rig_rnd(s) % 250);

		memset(b, x, (gsize)n * G);
		g_assert_cmpint(fmt_pwrite(i, b, (uint64_t)n * G, (uint64_t)c * G, NULL), ==, 0);
		for (unsigned j = c; j < c + n; j++)
			cells[j] = (struct cell){.n = 1, .v = {x}};
		g_free(b);
	}
	fmt_close(i);
	rig_make(&top, "top", format, &options, disk, "mid", format, mid.vol[0], mid_bytes);
}

/* How large a disk is well tried, and what its unit is. */
static void size_up(void)
{
	struct rig_files f = {0};
	struct fmt_layer_info l;
	struct fmt_image *i;

	rig_make(&f, "probe", format, &options, 4u << 20, NULL, NULL, NULL, 0);
	i = rig_open(f.vol[0], format, 0, FMT_REPORT);
	fmt_layer_get(i, 0, &l);
	unit = MAX(l.unit, 4096);
	fmt_close(i);
	rig_files_free(&f);
	rig_forget();
	disk = CLAMP(unit * 12, 2u << 20, 24u << 20);
	largest = MAX(320000, (unsigned)MIN(2 * unit + 70000, 5u << 20));
}

/* What was written are long runs of one byte: none of them may be in an encrypted volume, whose data clusters are full. */
static void no_plain_text(struct blk_vol *v)
{
	const uint8_t *b = fake_vol_data(v);
	uint64_t n = blk_vol_bytes(v), same = 0, full = 0;

	for (uint64_t k = 2 * 65536; k < n; k++) { /* after header and table of a toy image */
		same = b[k] == b[k - 1] ? same + 1 : 0;
		full += same < 4;
		if (same >= 24 && b[k])
			g_error("byte %" G_GUINT64_FORMAT " of the encrypted volume: a run of %u", k, b[k]);
	}
	g_assert_cmpuint(full, >, (n - 2 * 65536) / 4);
}

static void run(uint64_t n, unsigned queues, unsigned g, int with, int lock_self, const struct vh_cipher *crypt)
{
	struct fmt_image *i;
	uint64_t s;
	unsigned errors = 0;
	struct fmt_stats st;
	int toy = !strcmp(format, "toy-format");

	size_up();
	G = g;
	nqueues = queues;
	ncells = (unsigned)(disk / G);
	max_cells = (unsigned)((disk + disk / 4) / G + 1);
	with_faults = with;
	grown = snaps_made = snaps_applied = 0;
	no_snapshots = 0;
	seed = g_test_rand_int() | 1u;
	s = seed * 0x9e3779b97f4a7c15u | 1;
	g_test_message("seed %" G_GUINT64_FORMAT, seed);
	cells = g_new0(struct cell, max_cells);
	make(&s);

	shim.lock_self = lock_self && toy;
	shim.reach = toy ? 65536 : 0;
	shim.crypt = crypt;
	i = rig_open(top.vol[0], format, 1, FMT_REPORT);
	if (rig_open_options.n)
		fill(i);
	verify(i, "before");
	faults(with);
	for (unsigned k = 0; k < nqueues; k++) {
		struct driver *d = &drivers[k];

		memset(d, 0, sizeof(*d));
		for (int j = 0; j < DEPTH; j++)
			d->slot[j].buf = g_malloc(largest + 2 * G);
		d->rnd = rig_rnd(&s) | 1;
		d->left = (unsigned)(n / nqueues);
		d->task.fn = drive;
		rig_queue_open(&d->rq, i, DEPTH);
	}
	for (unsigned k = 0; k < nqueues; k++)
		loop_post(drivers[k].rq.l, &drivers[k].task);
	for (unsigned k = 0; k < nqueues; k++) {
		for (int t = 0; !drivers[k].done; t++) {
			g_usleep(1000);
			if (t % 10 == 9)
				beside(i, &s, with_snapshots, with_resizes);
			if (t > 20000000)
				g_error("it does not end");
		}
	}
	faults(0);
	for (unsigned k = 0; k < nqueues; k++) {
		rig_queue_close(&drivers[k].rq);
		errors += drivers[k].errors;
		for (int j = 0; j < DEPTH; j++)
			g_free(drivers[k].slot[j].buf);
	}
	verify(i, "after");
	check(i, with && !toy, "after");
	fmt_get_stats(i, &st);
	g_test_message("%u requests failed, %" G_GUINT64_FORMAT " maps, %" G_GUINT64_FORMAT " commits, %" G_GUINT64_FORMAT
		       " cache hits; grown %u times; %u snapshots, %u applied; %" G_GUINT64_FORMAT " writes went along with %"
		       G_GUINT64_FORMAT " exclusive ones", errors, st.map_calls, st.commits, st.cache_hits, grown,
		       snaps_made, snaps_applied, st.gathered, st.exclusive);
	g_assert_true(!toy || n < 2000 || st.gathered > 0);
	g_assert_true(!with || n < 2000 || errors > 0);
	g_assert_cmpuint(fake_blocking_calls, ==, 0);
	fmt_close(i);
	if (crypt)
		no_plain_text(top.vol[0]);
	i = rig_open(top.vol[0], format, crypt != NULL, FMT_REPORT);
	verify(i, "opened again");
	check(i, with && !toy, "opened again");
	if (ops->check) {
		struct rig_found f;

		rig_check_all(i, VH_CHECK_LEAK | VH_CHECK_CORRUPT, &f);
		check(i, 0, "repaired");
		verify(i, "repaired");
	}
	fmt_close(i);
	shim.crypt = NULL;
	if (!crypt)
		qemu();
	for (unsigned k = 0; k < nsnaps; k++)
		g_free(snaps[k].cells);
	nsnaps = 0;
	rig_forget();
	rig_files_free(&top);
	rig_files_free(&mid);
	rig_files_free(&base);
	g_free(cells);
}

static void unaligned_without_faults(void) { run(operations / 6, 8, 101, 0, 0, NULL); }
static void aligned_with_faults(void) { run(operations / 6, 8, 512, 1, 0, NULL); }
static void unaligned_with_faults(void) { run(operations / 4, 4, 37, 1, 0, NULL); }
static void parallel_with_faults(void) { run(operations / 4, 8, 73, 1, 1, NULL); }
static void one_queue(void) { run(operations / 6, 1, 512, 0, 0, NULL); }

/* The toy format with all its data encrypted. */
static const uint8_t key[64] = "the key of the model test, which is no secret; 64 bytes of it..";

static void crypt_unaligned(void)
{
	struct vh_cipher c = {.size = sizeof(c), .algorithm = VH_CIPHER_AES_XTS, .sector = 512, .iv = VH_IV_PLAIN64,
			      .iv_from = VH_IV_FROM_ADDRESS, .iv_base = 65536, .key_bytes = 64, .key = key};

	run(operations / 6, 8, 37, 1, 0, &c);
}

static void crypt_large_sectors(void)
{
	struct vh_cipher c = {.size = sizeof(c), .algorithm = VH_CIPHER_AES_XTS, .sector = 4096, .iv = VH_IV_PLAIN64,
			      .iv_from = VH_IV_FROM_POSITION, .iv_unit = 512, .key_bytes = 32, .key = key};

	run(operations / 6, 8, 512, 1, 1, &c);
}

static void crypt_chained(void)
{
	struct vh_cipher c = {.size = sizeof(c), .algorithm = VH_CIPHER_AES_CBC, .sector = 512, .iv = VH_IV_ESSIV_SHA256,
			      .iv_from = VH_IV_FROM_ADDRESS, .key_bytes = 32, .key = key};

	run(operations / 6, 8, 512, 1, 1, &c);
}

int main(int argc, char **argv)
{
	int result;
	ERR_AUTO(e);

	g_test_init(&argc, &argv, NULL);
	if (argc > 1)
		operations = strtoull(argv[1], NULL, 10);
	if (argc > 2)
		format = argv[2];
	for (int k = 3; k < argc && options.n < G_N_ELEMENTS(option); k++) {
		char *eq = strchr(argv[k], '=');

		g_assert_nonnull(eq);
		if (g_str_has_prefix(argv[k], "crash.")) /* another test's */
			continue;
		if (!strcmp(argv[k], "secret=on")) {
			option[options.n++] = (struct kv){g_strdup("key-secret"), (char *)(uintptr_t)rig_passphrase()};
			continue;
		}
		if (g_str_has_prefix(argv[k], "load.")) {
			int *what = argv[k][5] == 's' ? &with_snapshots : argv[k][5] == 'r' ? &with_resizes : &with_chain;

			*what = strcmp(eq, "=off") != 0;
			continue;
		}
		option[options.n].key = g_strndup(argv[k], (gsize)(eq - argv[k]));
		option[options.n++].value = eq + 1;
	}
	if (plug_format(format, &ops, &e) < 0)
		g_error("%s: %s", format, e.cause);
	g_test_add_func("/fmt/model/unaligned-without-faults", unaligned_without_faults);
	g_test_add_func("/fmt/model/aligned-with-faults", aligned_with_faults);
	g_test_add_func("/fmt/model/unaligned-with-faults", unaligned_with_faults);
	g_test_add_func("/fmt/model/parallel-plugin-with-faults", parallel_with_faults);
	g_test_add_func("/fmt/model/one-queue", one_queue);
	if (!strcmp(format, "toy-format") && !options.n) {
		g_test_add_func("/fmt/model/encrypted-unaligned-with-faults", crypt_unaligned);
		g_test_add_func("/fmt/model/encrypted-large-sectors-with-faults", crypt_large_sectors);
		g_test_add_func("/fmt/model/encrypted-chained-with-faults", crypt_chained);
	}
	result = g_test_run();
	rig_passphrase_remove();
	return result;
}
