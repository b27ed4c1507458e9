/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Damaged images: the same verdict as qemu-img's, and after repair both find them clean and the disk unharmed. */
#include "qcow2-rig.h"

#define DISK "16M"
#define CLUSTER 65536u
#define COPIED (UINT64_C(1) << 63)
#define OFFSET UINT64_C(0x00fffffffffffe00)

static const char *const fill = "-c 'write -P 1 0 1M' -c 'write -P 2 3M 500k' -c 'write -z 5M 192k' -c 'write -P 3 7M 1M'";

struct img { uint8_t *d; gsize n; uint64_t l1, l2, rt, rb; };

static void take(struct img *x, const char *name)
{
	x->d = q2_file(name, &x->n);
	x->l1 = q2_be(x->d + 40, 8);
	x->l2 = q2_be(x->d + x->l1, 8) & OFFSET;
	x->rt = q2_be(x->d + 48, 8);
	x->rb = q2_be(x->d + x->rt, 8);
}

static uint64_t get(struct img *x, uint64_t at) { return q2_be(x->d + at, 8); }
static void set(struct img *x, uint64_t at, uint64_t v) { q2_put(x->d + at, 8, v); }
static void count(struct img *x, uint64_t off, unsigned v) { q2_put(x->d + x->rb + off / CLUSTER * 2, 2, v); }
static void longer(struct img *x)
{
	gsize n = (x->n + CLUSTER - 1) / CLUSTER * CLUSTER + CLUSTER;

	x->d = g_realloc(x->d, n);
	memset(x->d + x->n, 0, n - x->n);
	x->n = n;
}

static void leak(struct img *x) { longer(x); count(x, x->n - CLUSTER, 1); }
static void leak_data(struct img *x) { count(x, get(x, x->l2) & OFFSET, 3); }
static void too_few(struct img *x) { count(x, get(x, x->l2) & OFFSET, 0); }
static void both(struct img *x) { leak_data(x); count(x, get(x, x->l2 + 8) & OFFSET, 0); }
static void not_copied(struct img *x) { set(x, x->l2, get(x, x->l2) & ~COPIED); }
static void l1_not_copied(struct img *x) { set(x, x->l1, get(x, x->l1) & ~COPIED); }
static void copied_shared(struct img *x) { set(x, x->l2, get(x, x->l2) | COPIED); set(x, x->l1, get(x, x->l1) | COPIED); }
static void twice(struct img *x) { set(x, x->l2 + 8, get(x, x->l2)); }
static void outside(struct img *x) { set(x, x->l2 + 8 * 200, ((uint64_t)x->n + 10 * CLUSTER) / CLUSTER * CLUSTER | COPIED); }
static void unaligned(struct img *x) { set(x, x->l2 + 8, get(x, x->l2 + 8) + 512); }
static void zero_unaligned(struct img *x) { set(x, x->l2 + 8 * 200, (get(x, x->l2 + 8) + 512) | 1); }
static void l2_reserved(struct img *x) { set(x, x->l2 + 8, get(x, x->l2 + 8) | 0x80); }
static void l1_reserved(struct img *x) { set(x, x->l1, get(x, x->l1) | 0x80); }
static void l1_unaligned(struct img *x) { set(x, x->l1, get(x, x->l1) + 512); }
static void rt_unaligned(struct img *x) { set(x, x->rt, x->rb + 512); }
static void rt_outside(struct img *x) { set(x, x->rt, ((uint64_t)x->n + 10 * CLUSTER) / CLUSTER * CLUSTER); }
static void rt_zero(struct img *x) { set(x, x->rt, 0); }
static void rt_second_outside(struct img *x) { set(x, x->rt + 8, ((uint64_t)x->n + 10 * CLUSTER) / CLUSTER * CLUSTER); }
static void block_twice(struct img *x) { set(x, x->rt + 8, x->rb); }
static void block_as_data(struct img *x) { set(x, x->l2 + 8 * 210, x->rb | COPIED); }
static void table_as_data(struct img *x) { set(x, x->l2 + 8 * 210, x->rt | COPIED); }
static void l1_as_data(struct img *x) { set(x, x->l2 + 8 * 210, x->l1 | COPIED); }
static void l2_as_data(struct img *x) { set(x, x->l2 + 8 * 210, x->l2 | COPIED); }
static void l2_is_l1(struct img *x) { set(x, x->l1, x->l1 | COPIED); }
static void l2_is_table(struct img *x) { set(x, x->l1, x->rt | COPIED); }
static void block_count_0(struct img *x) { count(x, x->rb, 0); }
static void header_count_0(struct img *x) { count(x, 0, 0); }
static void counts_gone(struct img *x) { memset(x->d + x->rb, 0, CLUSTER); }
static void compressed_copied(struct img *x) { set(x, x->l2, get(x, x->l2) | COPIED); }
static void compressed_outside(struct img *x) { set(x, x->l2, (get(x, x->l2) & ~UINT64_C(0x3fffffffffffff)) | ((uint64_t)x->n + 3 * CLUSTER)); }
static void both_bits(struct img *x) { set(x, x->l2 + 8, get(x, x->l2 + 8) | UINT64_C(1) << 35 | 8); }
static void bits_nowhere(struct img *x) { set(x, x->l2 + 16 * 200 + 8, 1); }
/* Without extra data; what follows it moves down. */
static void short_entry(struct img *x)
{
	uint8_t *p = x->d + q2_be(x->d + 64, 8);

	q2_put(p + 36, 4, 0);
	memmove(p + 40, p + 64, 2);
	memset(p + 42, 0, 24);
}

enum { MENDS = 1, KEEPS = 2 }; /* repair makes it clean; and the disk is as before the damage */
static const struct damage {
	const char *name, *create, *also;
	void (*fn)(struct img *x);
	int verdict, what;
} damages[] = {
	{"none", "compat=v3", NULL, NULL, 0, MENDS | KEEPS},
	{"leak", "compat=v3", NULL, leak, 3, MENDS | KEEPS},
	{"leak-data", "compat=v3", NULL, leak_data, 2, MENDS | KEEPS}, /* and so COPIED is wrong */
	{"too-few", "compat=v3", NULL, too_few, 2, MENDS | KEEPS},
	{"both", "compat=v2", NULL, both, 2, MENDS | KEEPS},
	{"not-copied", "compat=v3", NULL, not_copied, 2, MENDS | KEEPS},
	{"l1-not-copied", "compat=v3", NULL, l1_not_copied, 2, MENDS | KEEPS},
	{"copied-shared", "compat=v3", "qemu-img snapshot -c s t", copied_shared, 2, MENDS | KEEPS},
	{"twice", "compat=v3", NULL, twice, 2, MENDS | KEEPS}, /* with the same contents */
	{"outside", "compat=v3", NULL, outside, 2, 0},
	{"unaligned", "compat=v3", NULL, unaligned, 2, 0},
	{"zero-unaligned", "compat=v3", NULL, zero_unaligned, 2, MENDS | KEEPS},
	{"l2-reserved", "compat=v3", NULL, l2_reserved, 2, 0},
	{"l1-reserved", "compat=v3", NULL, l1_reserved, 2, 0},
	{"l1-unaligned", "compat=v3", NULL, l1_unaligned, 2, 0},
	{"rt-unaligned", "compat=v3", NULL, rt_unaligned, 2, MENDS | KEEPS},
	{"rt-outside", "compat=v3", NULL, rt_outside, 2, MENDS | KEEPS},
	{"rt-zero", "compat=v3", NULL, rt_zero, 2, MENDS | KEEPS},
	{"rt-second-outside", "compat=v3", NULL, rt_second_outside, 2, MENDS | KEEPS},
	{"block-twice", "compat=v3", NULL, block_twice, 2, MENDS | KEEPS},
	{"block-as-data", "compat=v3", NULL, block_as_data, 2, MENDS},
	{"table-as-data", "compat=v3", NULL, table_as_data, 2, MENDS},
	{"l1-as-data", "compat=v3", NULL, l1_as_data, 2, 0},
	{"l2-as-data", "compat=v3", NULL, l2_as_data, 2, MENDS},
	{"l2-is-l1", "compat=v3", NULL, l2_is_l1, 2, 0},
	{"l2-is-table", "compat=v3", NULL, l2_is_table, 2, MENDS},
	{"block-count-0", "compat=v3", NULL, block_count_0, 2, MENDS | KEEPS},
	{"header-count-0", "compat=v3", NULL, header_count_0, 2, MENDS | KEEPS},
	{"counts-gone", "compat=v3", NULL, counts_gone, 2, MENDS | KEEPS},
	{"counts-gone-snapshot", "compat=v3", "qemu-img snapshot -c s t && qemu-io -f qcow2 -c 'write -P 8 900k 300k' t", counts_gone, 2, MENDS | KEEPS},
	{"counts-gone-bitmaps", "compat=v3", "qemu-img bitmap --add t b && qemu-io -f qcow2 -c 'write -P 8 900k 300k' t", counts_gone, 2, MENDS | KEEPS},
	{"counts-gone-compressed", "compat=v3", "qemu-img convert -c -O qcow2 t u && mv u t", counts_gone, 2, MENDS | KEEPS},
	{"compressed-copied", "compat=v3", "qemu-img convert -c -O qcow2 t u && mv u t", compressed_copied, 2, MENDS | KEEPS},
	{"compressed-outside", "compat=v3", "qemu-img convert -c -O qcow2 t u && mv u t", compressed_outside, 2, 0},
	{"both-bits", "extended_l2=on", NULL, both_bits, 2, 0},
	{"bits-nowhere", "extended_l2=on", NULL, bits_nowhere, 2, 0},
	{"short-entry", "compat=v3", "qemu-img snapshot -c s t", short_entry, 2, MENDS},
	{"snapshot-ok", "compat=v3", "qemu-img snapshot -c s t && qemu-io -f qcow2 -c 'write -P 8 900k 300k' t", NULL, 0, MENDS | KEEPS},
	{"bitmap-ok", "compat=v3", "qemu-img bitmap --add t b && qemu-img bitmap --add -g 4k t c && qemu-io -f qcow2 -c 'write -P 8 900k 300k' t", NULL, 0, MENDS | KEEPS},
};

static void one(gconstpointer data)
{
	const struct damage *x = data;
	g_autofree uint8_t *want = NULL;
	struct q2_found f, again;
	struct vh_err e = {0};
	struct img i;
	struct q2_img m;
	gsize n;
	int r;

	q2_run("rm -f t u && qemu-img create -q -f qcow2 -o %s t %s && qemu-io -f qcow2 %s t", x->create, DISK, fill);
	if (x->also)
		q2_run("%s", x->also);
	q2_clean("t");
	want = q2_raw("t", &n);
	if (x->fn) {
		take(&i, "t");
		x->fn(&i);
		q2_file_set("t", i.d, i.n);
		g_free(i.d);
	}
	g_assert_cmpint(q2_verdict("t"), ==, x->verdict);
	q2_open_(&m, "t", Q2_REPAIR);
	r = q2_check_(&m, VH_CHECK_LEAK | VH_CHECK_CORRUPT, &f, &e);
	if (r < 0)
		g_error("repair: %s", e.cause);
	if (q2_check_(&m, 0, &again, &e) < 0) /* what is in memory agrees */
		g_error("check again: %s", e.cause);
	q2_close_(&m);
	g_assert_true(f.fixed > 0 || !(x->what & MENDS) || !x->verdict);
	if (x->what & MENDS) {
		if (again.bad || again.leaks)
			g_error("after repair: %s", again.first);
		q2_clean("t");
	} else {
		g_assert_cmpuint(again.bad, >, 0);
	}
	if (x->what & KEEPS) {
		g_autofree uint8_t *now = q2_raw("t", &n);

		if (x->fn != twice)
			q2_same(now, want, n, "after repair");
		q2_reads("t", NULL, now, n, "after repair");
		q2_run("qemu-io -f qcow2 -c 'write -P 9 0 16M' t");
		q2_clean("t");
	}
}

/* A leak only is given back, damage stays. */
static void leaks_only(void)
{
	struct q2_found f;
	struct vh_err e = {0};
	struct q2_img m;
	struct img i;

	q2_run("rm -f t && qemu-img create -q -f qcow2 t %s && qemu-io -f qcow2 %s t", DISK, fill);
	take(&i, "t");
	leak(&i);
	too_few(&i);
	q2_file_set("t", i.d, i.n);
	g_free(i.d);
	q2_open_(&m, "t", Q2_REPAIR);
	if (q2_check_(&m, VH_CHECK_LEAK, &f, &e) < 0)
		g_error("%s", e.cause);
	q2_close_(&m);
	g_assert_cmpuint(f.fixed, ==, 1);
	g_assert_cmpuint(f.leaks, ==, 1);
	g_assert_cmpuint(f.bad, >, 0);
	g_assert_cmpint(q2_verdict("t"), ==, 2);
}

/* The corrupt bit: refused for writing, read and repaired; the dirty bit: made anew by whoever opens it. */
static void bits(void)
{
	struct vh_err e = {0};
	struct q2_found f;
	struct q2_img m;
	struct img i;
	gsize n;
	g_autofree uint8_t *want = NULL;

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o lazy_refcounts=on t %s && qemu-io -f qcow2 %s t", DISK, fill);
	want = q2_raw("t", &n);
	take(&i, "t");
	i.d[79] |= 2;
	counts_gone(&i);
	q2_file_set("t", i.d, i.n);
	g_assert_cmpint(q2_try_open(&m, "t", 0, NULL, &e), <, 0);
	g_assert_nonnull(strstr(e.cause, "corrupt"));
	err_clear(&e);
	q2_reads("t", NULL, want, n, "read-only, though marked as corrupt");
	q2_open_(&m, "t", Q2_REPAIR);
	if (q2_check_(&m, VH_CHECK_LEAK | VH_CHECK_CORRUPT, &f, &e) < 0)
		g_error("%s", e.cause);
	q2_close_(&m);
	q2_clean("t");
	g_free(i.d);
	take(&i, "t");
	g_assert_cmpint(i.d[79] & 3, ==, 0);
	i.d[79] |= 1;
	counts_gone(&i);
	q2_file_set("t", i.d, i.n);
	g_free(i.d);
	q2_open_(&m, "t", 0);
	q2_close_(&m);
	q2_clean("t");
	q2_reads("t", NULL, want, n, "after counts were made anew");
	take(&i, "t");
	g_assert_cmpint(i.d[79] & 3, ==, 0);
	g_free(i.d);
}

/* Any bytes of the metadata: whoever of the two opens it says the same. */
static void random_bytes(void)
{
	unsigned runs = q2_all ? 400 : 25, seen[4] = {0};
	uint64_t seed = 4711;
	gsize n;
	g_autofree uint8_t *d = NULL;
	static const char *const makes[] = {"-o cluster_size=4k,refcount_bits=8", "-o extended_l2=on,cluster_size=16k", "-o cluster_size=512"};

	for (unsigned k = 0; k < runs; k++) {
		struct vh_err e = {0};
		struct q2_img m;
		g_autofree uint8_t *bad = NULL;
		uint64_t meta[5], cluster;

		if (k % (runs / 3 + 1) == 0) {
			g_clear_pointer(&d, g_free);
			q2_run("rm -f t && qemu-img create -q -f qcow2 %s t %s && qemu-io -f qcow2 %s t && qemu-img snapshot -c s t &&"
			       " qemu-io -f qcow2 -c 'write -P 8 900k 300k' t", makes[k / (runs / 3 + 1)], DISK, fill);
			d = q2_file("t", &n);
		}
		bad = g_memdup2(d, n);
		cluster = UINT64_C(1) << q2_be(d + 20, 4);
		meta[0] = q2_be(d + 40, 8);
		meta[1] = q2_be(d + meta[0], 8) & OFFSET;
		meta[2] = q2_be(d + 48, 8);
		meta[3] = q2_be(d + meta[2], 8);
		meta[4] = q2_be(d + 64, 8);
		for (unsigned c = 0; c < 1 + rig_rnd(&seed) % 3; c++) {
			uint64_t base = meta[rig_rnd(&seed) % 5], at = base + rig_rnd(&seed) % MIN(cluster, base == meta[0] || base >= meta[2] ? 64 : cluster);

			if (at < n)
				bad[at] = (uint8_t)(rig_rnd(&seed) % 3 ? rig_rnd(&seed) : bad[at] ^ 1u << rig_rnd(&seed) % 8);
		}
		q2_file_set("t", bad, n);
		if (q2_try_open(&m, "t", Q2_RO | Q2_REPAIR, NULL, &e) < 0) {
			err_clear(&e);
			continue;
		}
		q2_close_(&m);
		if (q2_try("qemu-img check -q -f qcow2 t") == 1)
			continue;
		seen[q2_verdict("t")]++;
		q2_open_(&m, "t", Q2_REPAIR);
		{
			struct q2_found f, again;

			if (q2_check_(&m, VH_CHECK_LEAK | VH_CHECK_CORRUPT, &f, &e) < 0) {
				err_clear(&e);
			} else if (q2_check_(&m, 0, &again, &e) < 0) {
				g_error("after repair: %s", e.cause);
			} else if (again.leaks) {
				g_error("after repair: %s", again.first);
			}
		}
		q2_close_(&m);
		q2_verdict("t");
	}
	g_test_message("verdicts: %u clean, %u damaged, %u leaks", seen[0], seen[2], seen[3]);
	g_assert_cmpuint(seen[2], >, 2);
}

static void add(void)
{
	for (gsize k = 0; k < G_N_ELEMENTS(damages); k++) {
		g_autofree char *name = g_strdup_printf("/qcow2/check/%s", damages[k].name);

		if (q2_all || k % 3 == 0)
			g_test_add_data_func(name, &damages[k], one);
	}
	g_test_add_func("/qcow2/check/leaks-only", leaks_only);
	g_test_add_func("/qcow2/check/bits", bits);
	g_test_add_func("/qcow2/check/random", random_bytes);
}

int main(int argc, char **argv)
{
	return q2_main(argc, argv, add);
}
