/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The validator of a plugin's answers: one good answer, and every way to make it bad. */
#include <glib.h>
#include "fmt/validate.h"

#define MB (UINT64_C(1) << 20)
#define U 65536u

static const struct fmt_rules rules = {.bytes = 10 * MB + 512, .backing_bytes = 4 * MB, .unit = U, .volumes = 2,
				       .caps = VH_FMT_COMPRESSED | VH_FMT_OPAQUE | VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_BACKING,
				       .has_commit = 1, .has_decode = 1};
static struct fmt_rules R;
static struct vh_extent x[4];
static struct vh_map m;

static void begin(uint32_t op, uint64_t pos, uint64_t len)
{
	R = rules;
	memset(x, 0, sizeof(x));
	m = (struct vh_map){.size = sizeof(m), .op = op, .cap = 4, .n = 1, .pos = pos, .len = len, .ext = x};
	x[0] = (struct vh_extent){.pos = pos, .len = len, .addr = 20 * MB + (pos & 511), .type = VH_EXT_DATA};
	if (op == VH_MAP_WRITE)
		x[0].flags = VH_EXT_PURE;
	if (op == VH_MAP_DISCARD || op == VH_MAP_ZERO) {
		x[0].type = VH_EXT_TRIM;
		x[0].flags = VH_EXT_COMMIT;
		x[0].bytes = len;
	}
}

static void good(void)
{
	g_assert_cmpstr(fmt_validate(&R, &m), ==, NULL);
}

#define bad(...)                                                          \
	do {                                                              \
		struct vh_extent keep_x[4];                               \
		struct vh_map keep_m = m;                                 \
		struct fmt_rules keep_r = R;                              \
		memcpy(keep_x, x, sizeof(x));                             \
		good();                                                   \
		__VA_ARGS__;                                              \
		g_assert_nonnull(fmt_validate(&R, &m));                   \
		memcpy(x, keep_x, sizeof(x));                             \
		m = keep_m;                                               \
		R = keep_r;                                               \
	} while (0)

static void shape(void)
{
	begin(VH_MAP_READ, 512, 4096);
	good();
	bad(m.n = 0);
	bad(m.n = 5);
	bad(m.n = UINT32_MAX);
	bad(x[0].pos = 0);
	bad(x[0].pos = 1024);
	bad(x[0].len = 0);
	bad(x[0].len = 10 * MB + 512);
	bad(x[0].len = UINT64_MAX);
	bad(m.op = 0);
	bad(m.op = 6);
	bad(m.pos = x[0].pos = 10 * MB + 512);
	x[0].len = 10 * MB; /* past the question, up to the end of the disk */
	good();
	x[0].len = 4096;
	m.n = 2;
	x[1] = x[0];
	x[1].pos = 4608;
	good();
	bad(x[1].pos = 4609);
	bad(x[1].pos = 512);
	bad(x[1].len = 10 * MB - 4096 + 1);
	bad(x[0].type = 0);
	bad(x[0].type = VH_EXT_TRIM);
	bad(x[0].type = 7);
	bad(x[0].type = 40);
	bad(x[0].flags = 0x20);
	bad(x[0].flags = 0x8000);
	bad(x[0].flags = VH_EXT_COMMIT);
	bad(x[0].flags = VH_EXT_CRYPT);
}

static void data(void)
{
	begin(VH_MAP_READ, 512, 4096);
	bad(x[0].vol = 2);
	bad(x[0].vol = UINT32_MAX);
	bad(R.missing = 1);
	bad(x[0].addr++);
	bad(x[0].addr = UINT64_MAX - 4095);
	bad(x[0].addr = INT64_MAX);
	bad(x[0].head = 512);
	bad(x[0].fill_head = 4);
	begin(VH_MAP_READ, 4 * MB - 4096, 4096);
	x[0].type = VH_EXT_BACKING;
	bad(x[0].len++);
	bad(R.caps &= ~VH_FMT_BACKING);
	bad(R.backing_bytes = 0);
	begin(VH_MAP_READ, 0, 4096);
	x[0].type = VH_EXT_OPAQUE;
	bad(R.caps &= ~VH_FMT_OPAQUE);
}

static void writing(void)
{
	begin(VH_MAP_WRITE, U + 512, 4096);
	good();
	x[0].len = 5 * MB; /* a pure answer may go on */
	good();
	x[0].flags |= VH_EXT_CACHE;
	good();
	bad(x[0].flags = 0);
	bad(x[0].flags = VH_EXT_PURE | VH_EXT_COMMIT);
	bad(x[0].flags = VH_EXT_COMMIT); /* but an allocation may not */
	bad(x[0].type = VH_EXT_BACKING);
	bad(x[0].type = VH_EXT_ZERO);
	bad(x[0].type = VH_EXT_COMPRESSED);
	bad(x[0].type = VH_EXT_TRIM);
	bad(R.read_only = 1);
	m.flags = VH_MAP_OVERWRITE_ONLY;
	m.n = 0;
	good();
	m.flags = 0;
	g_assert_nonnull(fmt_validate(&R, &m));

	begin(VH_MAP_WRITE, U + 512, 4096);
	x[0].flags = VH_EXT_COMMIT;
	x[0].head = 512;
	x[0].tail = U - 512 - 4096;
	x[0].fill_head = VH_FILL_BACKING;
	x[0].fill_tail = VH_FILL_COPY;
	good();
	bad(m.flags = VH_MAP_OVERWRITE_ONLY);
	bad(R.has_commit = 0);
	bad(x[0].head++);
	bad(x[0].head = U + 512);
	bad(x[0].tail++);
	bad(x[0].tail = UINT32_MAX);
	bad(x[0].fill_head = VH_FILL_NONE);
	bad(x[0].fill_tail = VH_FILL_NONE);
	bad(x[0].fill_tail = 9);
	bad(R.caps &= ~VH_FMT_BACKING);
	bad(x[0].addr = 0); /* the head would begin before the volume */
	bad(x[0].flags = VH_EXT_COMMIT | VH_EXT_CACHE);
	m.len = m.len + 8192;
	m.n = 2;
	x[0].tail = 0;
	x[1] = (struct vh_extent){.pos = U + 4608, .len = 8192, .addr = 20 * MB + 4096 + 512, .type = VH_EXT_DATA,
				  .flags = VH_EXT_COMMIT};
	x[0].addr = 20 * MB + 512;
	good();
	bad(x[1].addr -= 512); /* overlaps the first */
	bad(x[1].len += 512);

	/* The last unit may reach past the disk. */
	begin(VH_MAP_WRITE, 10 * MB, 512);
	x[0].flags = VH_EXT_COMMIT;
	x[0].tail = U - 512;
	x[0].fill_tail = VH_FILL_ZERO;
	good();
}

static void erasing(void)
{
	begin(VH_MAP_DISCARD, 0, U);
	bad(x[0].bytes = 4 * U);
	bad(x[0].vol = 2);
	bad(x[0].addr = INT64_MAX);
	bad(x[0].len = 2 * U);
	bad(x[0].type = VH_EXT_DATA);
	bad(x[0].flags = 0);
	x[0].flags = VH_EXT_PURE;
	good();
	begin(VH_MAP_ZERO, 0, U);
	bad(x[0].flags = VH_EXT_PURE);
	x[0].flags = VH_EXT_PURE;
	x[0].bytes = 0;
	good();
	x[0].vol = 7; /* nothing to punch: not looked at */
	good();
	begin(VH_MAP_ZERO, 0, U);
	x[0].type = VH_EXT_DATA;
	x[0].bytes = 0;
	good();
	bad(x[0].type = VH_EXT_BACKING);
}

static void compressed(void)
{
	begin(VH_MAP_READ, U + 512, 4096);
	x[0].type = VH_EXT_COMPRESSED;
	x[0].bytes = U;
	x[0].head = 512;
	x[0].tail = U - 512 - 4096;
	x[0].aux = 30000;
	x[0].addr = 12345; /* any alignment */
	bad(x[0].aux = 0);
	bad(x[0].aux = 3 * U);
	bad(x[0].bytes = 0);
	bad(x[0].bytes = U + 1);
	bad(x[0].head++);
	bad(x[0].head = UINT32_MAX);
	bad(x[0].tail = UINT32_MAX);
	bad(x[0].len = U + 1);
	bad(R.has_decode = 0);
	bad(R.caps &= ~VH_FMT_COMPRESSED);
	bad(x[0].addr = INT64_MAX);
}

static void encrypted(void)
{
	begin(VH_MAP_READ, 512, 4096);
	R.caps |= VH_FMT_CRYPT;
	R.crypt_sector = 4096;
	R.crypt_base = 4096;
	x[0].flags = VH_EXT_CRYPT;
	x[0].addr = 20 * MB + 512;
	bad(R.caps &= ~VH_FMT_CRYPT);
	bad(R.crypt_sector = 0);
	bad(x[0].type = VH_EXT_ZERO);
	bad(x[0].type = VH_EXT_OPAQUE);
	bad(x[0].addr += 512);  /* agrees within 512 bytes, but not within the cipher's sector */
	bad(x[0].addr = 512);   /* before what is encrypted */
	bad(x[0].addr = 2560);
	bad(R.crypt_base = 20 * MB + 4096);
	bad(x[0].addr = INT64_MAX / 4096 * 4096 + 512);
	bad(x[0].len = 1024); /* the rest of the sector would be somewhere else */
	bad(x[0].len = 5120);
	x[0].len = 12288 - 512; /* past the question, a whole sector's end */
	good();
	m.len = x[0].len = 3 * 4096 - 512;
	m.n = 2;
	x[0].len = 8192 - 512;
	x[1] = x[0];
	x[1].pos = 8192;
	x[1].len = 4096;
	x[1].addr = 30 * MB;
	good();
	bad(x[0].len = 8192 - 1024, x[1].pos = 8192 - 512, x[1].addr = 30 * MB + 3584, x[1].len = 4608);

	begin(VH_MAP_WRITE, U + 512, 4096);
	R.caps |= VH_FMT_CRYPT;
	R.crypt_sector = 4096;
	x[0].flags = VH_EXT_CRYPT | VH_EXT_COMMIT;
	x[0].addr = 20 * MB + 512;
	x[0].head = 512;
	x[0].tail = U - 512 - 4096;
	x[0].fill_head = x[0].fill_tail = VH_FILL_ZERO;
	bad(x[0].head = 0);
	bad(x[0].tail = 512);
	bad(R.crypt_base = 20 * MB + 512);
	x[0].tail = 3584;
	good();
	x[0].flags = VH_EXT_CRYPT | VH_EXT_PURE;
	x[0].head = x[0].tail = 0;
	good();
}

/* Any bytes: it must answer, and look at no extent past what the plugin may have written. */
static void garbage(void)
{
	struct vh_extent *edge = g_new(struct vh_extent, 4);

	for (int k = 0; k < 200000; k++) {
		begin(1 + (uint32_t)k % 5, (uint64_t)g_test_rand_int_range(0, 20000) * 512, 512);
		for (size_t b = 0; b < sizeof(*edge) * 4 / 4; b++)
			((uint32_t *)(void *)edge)[b] = (uint32_t)g_test_rand_int();
		edge[0].pos = m.pos;
		if (k & 1)
			edge[0].type = (uint16_t)(1 + k % 6);
		m.ext = edge;
		m.n = (uint32_t)g_test_rand_int_range(0, 7);
		if (k & 2) {
			R.caps |= VH_FMT_CRYPT;
			R.crypt_sector = 4096;
		}
		(void)fmt_validate(&R, &m);
	}
	g_free(edge);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/fmt/validate/shape", shape);
	g_test_add_func("/fmt/validate/data", data);
	g_test_add_func("/fmt/validate/writing", writing);
	g_test_add_func("/fmt/validate/erasing", erasing);
	g_test_add_func("/fmt/validate/compressed", compressed);
	g_test_add_func("/fmt/validate/encrypted", encrypted);
	g_test_add_func("/fmt/validate/garbage", garbage);
	return g_test_run();
}
