/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Compressed and opaque ranges, fills from a unit's own old content, zeros written where a format cannot make them: with a
 * format of the test's own. Unit k begins as data, compressed, opaque or zeros, by k % 4; writing a compressed unit or one of
 * zeros allocates its second place.
 */
#include "rig.h"

#define U 65536u
#define N 24u
#define DISK (N * U - 1000)

enum kind { DATA, PACKED, OPAQUE, ZERO };
static struct {
	pthread_mutex_t lock;
	enum kind kind[N];
	uint64_t addr[N];
	uint8_t opaque[N][U];
	unsigned eagain, decodes, commits, fail_decode;
	uint64_t rnd;
} mix = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint8_t packed_byte(unsigned k, uint64_t i) { return (uint8_t)(k * 31 + i / 300 + 1); }

static int mix_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	*img = &mix;
	return 0;
}
static void mix_close(void *img) { }
static int mix_info(void *img, struct vh_image_info *i)
{
	i->volumes = 1;
	i->caps = VH_FMT_COMPRESSED | VH_FMT_OPAQUE | VH_FMT_LOCK_SELF;
	i->bytes = DISK;
	i->unit = i->subunit = U;
	return 0;
}

static int mix_map(void *img, struct vh_map *m)
{
	uint64_t pos = m->pos, stop = pos + m->len;

	pthread_mutex_lock(&mix.lock);
	m->n = 0;
	if ((m->flags & VH_MAP_NOWAIT) && rig_rnd(&mix.rnd) % 4 == 0) {
		pthread_mutex_unlock(&mix.lock);
		mix.eagain++;
		return -EAGAIN;
	}
	while (pos < stop && m->n < m->cap) {
		unsigned k = (unsigned)(pos / U);
		uint64_t base = (uint64_t)k * U, end = MIN(base + U, stop);
		struct vh_extent *x = &m->ext[m->n];

		memset(x, 0, sizeof(*x));
		x->pos = pos;
		x->len = end - pos;
		x->addr = mix.addr[k] + (pos - base);
		x->flags = m->op == VH_MAP_READ ? VH_EXT_CACHE : VH_EXT_PURE | VH_EXT_CACHE;
		x->type = VH_EXT_DATA;
		if (mix.kind[k] == OPAQUE) {
			x->type = VH_EXT_OPAQUE;
			x->addr = 0;
			x->flags = m->op == VH_MAP_READ ? 0 : VH_EXT_PURE;
		} else if (mix.kind[k] == ZERO && m->op == VH_MAP_READ) {
			x->type = VH_EXT_ZERO;
		} else if (mix.kind[k] == PACKED && m->op == VH_MAP_READ) {
			x->type = VH_EXT_COMPRESSED;
			x->addr = mix.addr[k] + 5;
			x->aux = 700; /* an upper bound; two bytes count */
			x->bytes = U;
			x->head = (uint32_t)(pos - base);
			x->tail = (uint32_t)(base + U - end);
		} else if (mix.kind[k] != DATA) {
			if (m->flags & VH_MAP_OVERWRITE_ONLY)
				break;
			x->flags = VH_EXT_COMMIT;
			x->addr = base * 2 + U + (pos - base);
			x->head = (uint32_t)(pos - base);
			x->tail = (uint32_t)(base + U - end);
			x->fill_head = x->fill_tail = mix.kind[k] == ZERO ? VH_FILL_ZERO : VH_FILL_COPY;
		}
		pos = end;
		m->n++;
	}
	pthread_mutex_unlock(&mix.lock);
	return 0;
}

static int mix_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	pthread_mutex_lock(&mix.lock);
	for (uint32_t j = 0; j < m->n && !status; j++) {
		unsigned k = (unsigned)(m->ext[j].pos / U);

		if (!(m->ext[j].flags & VH_EXT_COMMIT))
			continue;
		mix.kind[k] = DATA;
		mix.addr[k] = (uint64_t)k * U * 2 + U;
		mix.commits++;
	}
	pthread_mutex_unlock(&mix.lock);
	return 0;
}

static int mix_decode(void *img, const struct vh_extent *x, const void *in, uint64_t in_len, void *out, uint64_t out_len)
{
	const uint8_t *b = in;

	__atomic_add_fetch(&mix.decodes, 1, __ATOMIC_RELAXED);
	g_assert_cmpuint(in_len, ==, x->aux);
	g_assert_cmpuint(out_len, ==, U);
	if (b[0] != 'c' || mix.fail_decode)
		return -EIO;
	for (uint64_t i = 0; i < out_len; i++)
		((uint8_t *)out)[i] = packed_byte(b[1], i);
	return 0;
}

static int mix_rw(struct vh_req *r, int write)
{
	uint64_t at = r->off;

	for (uint32_t j = 0; j < r->niov; j++) {
		g_assert_cmpuint(at / U, ==, (at + r->iov[j].iov_len - 1) / U);
		if (write)
			memcpy(&mix.opaque[at / U][at % U], r->iov[j].iov_base, r->iov[j].iov_len);
		else
			memcpy(r->iov[j].iov_base, &mix.opaque[at / U][at % U], r->iov[j].iov_len);
		at += r->iov[j].iov_len;
	}
	g_assert_cmpuint(at, ==, r->off + r->len);
	return 0;
}
static int mix_read(void *img, struct vh_req *r) { return mix_rw(r, 0); }
static int mix_write(void *img, struct vh_req *r) { return mix_rw(r, 1); }

static const struct vh_format_ops mix_ops = {
	.size = sizeof(mix_ops), .name = "mix", .caps = VH_FMT_COMPRESSED | VH_FMT_OPAQUE | VH_FMT_LOCK_SELF, .open = mix_open,
	.close = mix_close, .info = mix_info, .map = mix_map, .commit = mix_commit, .decode = mix_decode, .read = mix_read,
	.write = mix_write};

static struct blk_vol *vol;
static uint8_t *model;
static struct fmt_image *image;

static void setup(void)
{
	struct fmt_spec s = {.ops = &mix_ops, .label = "mix"};
	ERR_AUTO(e);

	vol = fake_vol_new("mix", N * U * 2, VH_VOL_ZERO);
	model = g_malloc0(N * U);
	mix.rnd = (uint64_t)g_test_rand_int() | 1;
	mix.decodes = mix.commits = mix.fail_decode = 0;
	for (unsigned k = 0; k < N; k++) {
		uint64_t a = mix.addr[k] = (uint64_t)k * U * 2;

		mix.kind[k] = k % 4;
		memset(fake_vol_data(vol) + a + U, 0x77, U); /* what an allocation finds there */
		for (uint64_t i = 0; i < U; i++) {
			if (k % 4 == DATA)
				model[k * U + i] = fake_vol_data(vol)[a + i] = (uint8_t)(k + i);
			else if (k % 4 == PACKED)
				model[k * U + i] = packed_byte(k, i);
			else if (k % 4 == OPAQUE)
				model[k * U + i] = mix.opaque[k][i] = (uint8_t)(k ^ i);
		}
		fake_vol_data(vol)[a + 5] = k % 4 == PACKED ? 'c' : fake_vol_data(vol)[a + 5];
		if (k % 4 == PACKED)
			fake_vol_data(vol)[a + 6] = (uint8_t)k;
	}
	s.vol = blk_vol_ref(vol);
	g_assert_cmpint(fmt_open(&s, &image, &e), ==, 0);
}

static void teardown(void)
{
	fmt_close(image);
	blk_vol_put(vol);
	g_free(model);
}

static void compare(const uint8_t *b, uint64_t pos, uint64_t len)
{
	for (uint64_t k = 0; k < len; k++)
		if (b[k] != model[pos + k])
			g_error("byte %" G_GUINT64_FORMAT " (unit %u, kind %u) reads %u, should be %u", pos + k, (unsigned)((pos + k) / U),
				mix.kind[(pos + k) / U], b[k], model[pos + k]);
}

static void everything(void)
{
	struct rig_queue q[2];
	uint8_t *b = g_malloc(N * U);
	uint64_t s;

	setup();
	s = mix.rnd * 3 | 1;
	for (int k = 0; k < 2; k++)
		rig_queue_open(&q[k], image, 4);
	g_assert_cmpint(rig_io(&q[0], VH_READ, 0, b, DISK, 0), ==, 0);
	compare(b, 0, DISK);
	for (int k = 0; k < 600; k++) {
		uint64_t len = 1 + rig_rnd(&s) % (k % 3 ? 3 * U : 5000), pos = rig_rnd(&s) % (DISK - len);
		unsigned what = (unsigned)(rig_rnd(&s) % 10);
		struct rig_queue *r = &q[rig_rnd(&s) % 2];

		if (k < 200 && what > 1)
			what = 0; /* read most before it is all data */
		if (what < 5) {
			memset(b, 0xEE, len);
			g_assert_cmpint(rig_io(r, VH_READ, 0, b, len, pos), ==, 0);
			compare(b, pos, len);
		} else if (what < 8) {
			memset(b, k, len);
			memset(model + pos, k, len);
			g_assert_cmpint(rig_io(r, VH_WRITE, what == 7 ? VH_REQ_FUA : 0, b, len, pos), ==, 0);
		} else if (what == 8) {
			memset(model + pos, 0, len);
			g_assert_cmpint(rig_io(r, VH_ZERO, 0, NULL, len, pos), ==, 0);
		} else {
			g_assert_cmpint(rig_io(r, VH_DISCARD, 0, NULL, len, pos), ==, 0); /* the format cannot: nothing happens */
			g_assert_cmpint(rig_io(r, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
		}
	}
	g_assert_cmpint(rig_io(&q[1], VH_READ, 0, b, DISK, 0), ==, 0);
	compare(b, 0, DISK);
	g_assert_cmpuint(mix.decodes, >, 20);
	g_assert_cmpuint(mix.commits, >, 5);
	for (int k = 0; k < 2; k++)
		rig_queue_close(&q[k]);
	teardown();
	g_free(b);
}

/* Many decodes at once share few buffers; a damaged unit fails its own request only. */
static void crowd(void)
{
	struct rig_queue q;
	static struct rig_async a[16];
	uint8_t *b = g_malloc(16 * 4096);

	setup();
	rig_queue_open(&q, image, 16);
	for (int round = 0; round < 20; round++) {
		for (unsigned k = 0; k < 16; k++)
			rig_start(&a[k], &q, VH_READ, 0, b + k * 4096, 4096, (uint64_t)(1 + 4 * (k % 5)) * U + k * 3000);
		for (unsigned k = 0; k < 16; k++) {
			g_assert_cmpint(rig_wait(&a[k]), ==, 0);
			compare(b + k * 4096, (uint64_t)(1 + 4 * (k % 5)) * U + k * 3000, 4096);
		}
	}
	/* A vector shorter than the request: an error, whatever lies there. */
	for (unsigned k = 0; k < 4; k++) {
		rig_start(&a[0], &q, VH_READ, 0, NULL, 4096, (uint64_t)k * U);
		g_assert_cmpint(rig_wait(&a[0]), ==, k == PACKED || k == ZERO ? 0 : -EINVAL);
	}
	mix.fail_decode = 1;
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, U), ==, -EIO);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, U), ==, -EIO); /* its fill cannot be read */
	mix.fail_decode = 0;
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, U), ==, 0);
	compare(b, U, 4096);
	fake_vol_fail_op(vol, VH_READ, -EIO);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, U), ==, -EIO);
	fake_vol_fail_op(vol, VH_READ, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, U), ==, 0);
	rig_queue_close(&q);
	teardown();
	g_free(b);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/fmt/mix/every-type", everything);
	g_test_add_func("/fmt/mix/crowd", crowd);
	return g_test_run();
}
