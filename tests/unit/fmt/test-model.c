/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A random load from eight queues on an image three deep against an oracle in memory, which knows for each cell of the
 * disk the values that may be read now, given what is in flight. A cell is G bytes, and everything begins and ends at
 * cells, so an odd G makes every request unaligned.
 */
#include "rig.h"

#define QUEUES 8
#define DEPTH 8
#define DISK (2u << 20)

static unsigned G; /* bytes of a cell */
static unsigned ncells;

struct cell {
	uint8_t n, any, writers, readers, failed, shrink, ne;
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
			p->ne = p->failed = p->shrink = 0;
		p->writers++;
		if (discard)
			p->failed = 1; /* what was there may stay */
		set_add(p->v, &p->n, &p->any, x);
		set_add(p->e, &p->ne, &p->failed, x);
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

static void read_end(unsigned c, unsigned n, const uint8_t *b, int failed, const char *what)
{
	for (struct cell *p = &cells[c]; n--; p++, c++, b += G) {
		if (!failed && !allowed(p, b)) {
			unsigned bad = 0;

			while (memchr(p->v, b[bad], p->n))
				bad++;
			g_error("%s, seed %" G_GUINT64_FORMAT ": byte %u reads %u, may be one of %u values: %u %u %u", what, seed,
				c * G + bad, b[bad], p->n, p->v[0], p->v[1], p->v[2]);
		}
		if (p->readers && !--p->readers && p->shrink && !p->writers)
			shrink(p);
	}
}

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
	unsigned left, active;
	struct vh_task task;
	_Atomic int done;
	unsigned errors, ops[6];
};
static struct driver drivers[QUEUES];
static int with_faults;

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
		g_assert_true(with_faults);
		g_assert_true(result == -EIO || result == -ENOSPC);
		d->errors++;
	}
	memset(s->buf, 0xEE, (size_t)s->n * G); /* whoever touches it late will be seen */
	d->active--;
	io->priv[0] = 0;
	s->x = 0;
	loop_post(d->rq.l, &d->task);
}

static void slot_submit(struct driver *d, struct slot *s)
{
	uint64_t r = rig_rnd(&d->rnd);
	unsigned kind = r % 100, most = (r >> 8) % 100 < 85 ? 4096 : (r >> 16) % 8 ? 70000 : 300000, left, at = 0;

	most /= G;
	s->d = d;
	memset(&s->io, 0, sizeof(s->io));
	s->io.done = slot_done;
	s->io.op = kind < 40 ? VH_READ : kind < 80 ? VH_WRITE : kind < 87 ? VH_ZERO : kind < 95 ? VH_DISCARD : VH_FLUSH;
	s->x = (uint8_t)(1 + rig_rnd(&d->rnd) % 250);
	d->ops[s->io.op]++;
	if (s->io.op == VH_FLUSH) {
		s->c = s->n = 0;
	} else {
		s->n = 1 + (unsigned)(rig_rnd(&d->rnd) % most);
		s->c = (unsigned)(rig_rnd(&d->rnd) % (ncells - s->n + 1));
		if (rig_rnd(&d->rnd) % 8 == 0) { /* whole clusters now and then */
			s->c = 65536 / G * (unsigned)(rig_rnd(&d->rnd) % (DISK / 65536 - 3));
			s->n = 2 * 65536 / G + 2;
		}
	}
	s->io.off = (uint64_t)s->c * G;
	s->io.len = (uint64_t)s->n * G;
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
	pthread_mutex_lock(&oracle_lock);
	if (s->io.op == VH_READ)
		for (unsigned k = 0; k < s->n; k++)
			cells[s->c + k].readers++;
	else
		write_begin(s->c, s->n, s->io.op == VH_WRITE ? s->x : 0, s->io.op == VH_DISCARD);
	pthread_mutex_unlock(&oracle_lock);
	d->active++;
	d->left--;
	fmt_submit(d->rq.q, &s->io);
}

static void drive(struct vh_task *t)
{
	struct driver *d = (struct driver *)((char *)t - offsetof(struct driver, task));

	for (int k = 0; k < DEPTH && d->left; k++)
		if (!d->slot[k].x)
			slot_submit(d, &d->slot[k]);
	if (!d->left && !d->active)
		d->done = 1;
}

static void verify(struct fmt_image *i, const char *what)
{
	uint8_t *b = g_malloc(DISK);
	ERR_AUTO(e);

	if (fmt_pread(i, b, (uint64_t)ncells * G, 0, &e) < 0)
		g_error("%s: %s", what, e.cause);
	for (unsigned k = 0; k < ncells; k++)
		cells[k].readers = 0;
	read_end(0, ncells, b, 0, what);
	g_free(b);
}

static void faults(struct blk_vol *top, int on)
{
	fake_vol_fail(top, on ? 3000 : 0, -EIO);
	shim.map_eagain = on ? 200000 : 0;
	shim.map_fail = on ? 3000 : 0;
	shim.map_error = -ENOSPC;
	shim.commit_eagain = on ? 200000 : 0;
	/* A discard whose commit fails has been punched: zeros without a cipher, garbage with one, which the oracle does not know. */
	shim.commit_fail = on && !shim.crypt ? 20000 : 0;
	shim.delay = on ? 20000 : 0;
}

/* What was written are long runs of one byte: none of them may be in an encrypted volume, whose data clusters are full. */
static void no_plain_text(struct blk_vol *v)
{
	const uint8_t *b = fake_vol_data(v);
	uint64_t n = blk_vol_bytes(v), same = 0, full = 0;

	for (uint64_t k = 2 * 65536; k < n; k++) { /* after header and table */
		same = b[k] == b[k - 1] ? same + 1 : 0;
		full += same < 4;
		if (same >= 24 && b[k])
			g_error("byte %" G_GUINT64_FORMAT " of the encrypted volume: a run of %u", k, b[k]);
	}
	g_assert_cmpuint(full, >, (n - 2 * 65536) / 4);
}

static void run(unsigned ops, unsigned g, int with, int lock_self, const struct vh_cipher *crypt)
{
	struct blk_vol *base, *mid, *top;
	struct fmt_image *i;
	uint64_t s;
	unsigned errors = 0;
	struct fmt_stats st;

	G = g;
	ncells = DISK / G;
	with_faults = with;
	seed = g_test_rand_int() | 1u;
	s = seed * 0x9e3779b97f4a7c15u | 1;
	g_test_message("seed %" G_GUINT64_FORMAT, seed);
	cells = g_new0(struct cell, ncells);

	/* A raw base, shorter than what lies on it, and a toy image on that. */
	base = fake_vol_new("base", 900 * 1024 + 512, VH_VOL_GROW);
	mid = fake_vol_new("mid", 0, VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW);
	top = fake_vol_new("top", 0, VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW);
	rig_register("base", base);
	rig_register("mid", mid);
	for (unsigned k = 0; k < ncells; k++) {
		for (unsigned b = k * G; b < k * G + G; b++)
			if (b < 900 * 1024 + 512)
				fake_vol_data(base)[b] = (uint8_t)(1 + k % 200);
		cells[k].n = 1;
		cells[k].v[0] = k * G + G <= 900 * 1024 + 512 ? (uint8_t)(1 + k % 200) : 0;
		if (k * G < 900 * 1024 + 512 && k * G + G > 900 * 1024 + 512)
			cells[k].any = 1; /* half base, half nothing */
	}
	rig_create(mid, "toy-format", 1500 * 1024, "base", "raw", 900 * 1024 + 512);
	rig_create(top, "toy-format", DISK, "mid", "toy-format", 1500 * 1024);
	i = rig_open(mid, "toy-format", 0, FMT_REPORT);
	for (int k = 0; k < 20; k++) {
		unsigned n = 1 + (unsigned)(rig_rnd(&s) % (40000 / G)), c = (unsigned)(rig_rnd(&s) % (1500 * 1024 / G - n));
		uint8_t *b = g_malloc(n * G), x = (uint8_t)(1 + rig_rnd(&s) % 250);

		memset(b, x, n * G);
		g_assert_cmpint(fmt_pwrite(i, b, n * G, (uint64_t)c * G, NULL), ==, 0);
		for (unsigned j = c; j < c + n; j++)
			cells[j] = (struct cell){.n = 1, .v = {x}};
		g_free(b);
	}
	fmt_close(i);

	shim.lock_self = lock_self;
	shim.reach = 65536;
	shim.crypt = crypt;
	i = rig_open(top, "toy-format", 1, FMT_REPORT);
	verify(i, "before");
	faults(top, with);
	for (int k = 0; k < QUEUES; k++) {
		struct driver *d = &drivers[k];

		memset(d, 0, sizeof(*d));
		for (int j = 0; j < DEPTH; j++)
			d->slot[j].buf = g_malloc(320000);
		d->rnd = rig_rnd(&s) | 1;
		d->left = ops / QUEUES;
		d->task.fn = drive;
		rig_queue_open(&d->rq, i, DEPTH);
	}
	for (int k = 0; k < QUEUES; k++)
		loop_post(drivers[k].rq.l, &drivers[k].task);
	for (int k = 0; k < QUEUES; k++) {
		for (int t = 0; !drivers[k].done; t++) {
			g_usleep(1000);
			if (t % 500 == 499 && (t / 500) % 2) { /* a drain now and then */
				fmt_drain_begin(i);
				fmt_drain_end(i);
			}
			if (t > 1200000)
				g_error("it does not end");
		}
	}
	faults(top, 0);
	for (int k = 0; k < QUEUES; k++) {
		rig_queue_close(&drivers[k].rq);
		errors += drivers[k].errors;
		for (int j = 0; j < DEPTH; j++)
			g_free(drivers[k].slot[j].buf);
	}
	verify(i, "after");
	g_assert_cmpint(rig_check(i), ==, 0);
	fmt_get_stats(i, &st);
	g_test_message("%u requests failed, %" G_GUINT64_FORMAT " maps, %" G_GUINT64_FORMAT " commits, %" G_GUINT64_FORMAT
		       " cache hits, %u allocations", errors, st.map_calls, st.commits, st.cache_hits, shim.allocs);
	g_assert_true(!with || errors > 0);
	g_assert_cmpuint(fake_blocking_calls, ==, 0);
	fmt_close(i);
	if (crypt)
		no_plain_text(top);
	i = rig_open(top, "toy-format", crypt != NULL, FMT_REPORT);
	verify(i, "opened again");
	g_assert_cmpint(rig_check(i), ==, 0);
	fmt_close(i);
	shim.crypt = NULL;
	rig_forget();
	blk_vol_put(top);
	blk_vol_put(mid);
	blk_vol_put(base);
	g_free(cells);
}

static unsigned scale = 1;

static void unaligned_with_faults(void) { run(50000 * scale, 37, 1, 0, NULL); }
static void aligned_with_faults(void) { run(20000 * scale, 512, 1, 0, NULL); }
static void unaligned_without_faults(void) { run(20000 * scale, 101, 0, 0, NULL); }
static void parallel_with_faults(void) { run(30000 * scale, 73, 1, 1, NULL); }

static const uint8_t key[64] = "the key of the model test, which is no secret; 64 bytes of it..";

static void crypt_unaligned(void)
{
	struct vh_cipher c = {.size = sizeof(c), .algorithm = VH_CIPHER_AES_XTS, .sector = 512, .iv = VH_IV_PLAIN64,
			      .iv_from = VH_IV_FROM_ADDRESS, .iv_base = 65536, .key_bytes = 64, .key = key};

	run(20000 * scale, 37, 1, 0, &c);
}

static void crypt_large_sectors(void)
{
	struct vh_cipher c = {.size = sizeof(c), .algorithm = VH_CIPHER_AES_XTS, .sector = 4096, .iv = VH_IV_PLAIN64,
			      .iv_from = VH_IV_FROM_POSITION, .iv_unit = 512, .key_bytes = 32, .key = key};

	run(20000 * scale, 512, 1, 1, &c);
}

static void crypt_chained(void)
{
	struct vh_cipher c = {.size = sizeof(c), .algorithm = VH_CIPHER_AES_CBC, .sector = 512, .iv = VH_IV_ESSIV_SHA256,
			      .iv_from = VH_IV_FROM_ADDRESS, .key_bytes = 32, .key = key};

	run(20000 * scale, 512, 1, 1, &c);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	if (argc > 1)
		scale = (unsigned)atoi(argv[1]);
	g_test_add_func("/fmt/model/unaligned-without-faults", unaligned_without_faults);
	g_test_add_func("/fmt/model/aligned-with-faults", aligned_with_faults);
	g_test_add_func("/fmt/model/unaligned-with-faults", unaligned_with_faults);
	g_test_add_func("/fmt/model/parallel-plugin-with-faults", parallel_with_faults);
	g_test_add_func("/fmt/model/encrypted-unaligned-with-faults", crypt_unaligned);
	g_test_add_func("/fmt/model/encrypted-large-sectors-with-faults", crypt_large_sectors);
	g_test_add_func("/fmt/model/encrypted-chained-with-faults", crypt_chained);
	return g_test_run();
}
