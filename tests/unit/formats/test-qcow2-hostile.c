/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Files made to harm: refused, or read within bounds, at once and in little memory. */
#include <sys/resource.h>
#include "qcow2-rig.h"

#define MEMORY (UINT64_C(64) << 10) /* KiB more than before */

static uint8_t *d;
static gsize n;

static void fresh(const char *options)
{
	q2_run("rm -f t && qemu-img create -q -f qcow2 -o %s t 4M && qemu-io -f qcow2 -c 'write -P 1 0 256k' t && qemu-img snapshot -c s t",
	       options);
	g_clear_pointer(&d, g_free);
	d = q2_file("t", &n);
}

static long memory(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss;
}

/* Opens it in each way, reads, checks, repairs. The file is as large as it is: nothing may take long. */
static void survive(const char *what, const char *text)
{
	gint64 start = g_get_monotonic_time();
	long before = memory();

	for (int how = 0; how < 4; how++) {
		struct vh_err e = {0};
		struct q2_img m;
		struct q2_found f;
		uint8_t b[4096];

		q2_file_set("t", d, n);
		if (q2_try_open(&m, "t", how, NULL, &e) < 0) {
			if (!how && text && !strstr(e.cause, text))
				g_error("%s: refused with '%s', not '%s'", what, e.cause, text);
			g_assert_cmpuint(strlen(e.cause), >, 10);
			err_clear(&e);
			continue;
		}
		if (!how && text)
			g_error("%s: it can be opened", what);
		if (fmt_pread(m.i, b, sizeof(b), 0, &e) < 0)
			err_clear(&e);
		if (q2_check_(&m, how == Q2_REPAIR ? VH_CHECK_LEAK | VH_CHECK_CORRUPT : 0, &f, &e) < 0)
			err_clear(&e);
		q2_close_(&m);
	}
	g_test_message("%s: %" G_GINT64_FORMAT " ms, %ld KiB", what, (g_get_monotonic_time() - start) / 1000, memory() - before);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	g_assert_cmpint(memory() - before, <, (long)MEMORY);
#endif
}

static void header(void)
{
	static const struct { const char *name; unsigned at, bytes; uint64_t v; const char *text; } h[] = {
		{"magic", 0, 4, 0x12345678, "not a qcow2"},
		{"version", 4, 4, 4, "version 4"},
		{"bits-8", 20, 4, 8, "2^8"},
		{"bits-22", 20, 4, 22, "2^22"},
		{"bits-huge", 20, 4, 0xffffffff, "clusters of"},
		{"size", 24, 8, UINT64_MAX, "a disk of"},
		{"size-many-l1", 24, 8, UINT64_C(1) << 50, "too few"},
		{"crypt", 32, 4, 7, "method 7"},
		{"l1-size", 36, 4, 0x7fffffff, "entries"},
		{"l1-offset", 40, 8, UINT64_C(1) << 60, "L1 table"},
		{"l1-unaligned", 40, 8, 0x30001, "L1 table"},
		{"rt-offset", 48, 8, UINT64_C(1) << 60, "refcount table"},
		{"rt-clusters", 56, 4, 0x7fffffff, "refcount table"},
		{"rt-none", 56, 4, 0, "refcount table"},
		{"snapshots", 60, 4, 0xffffffff, "snapshots"},
		{"snapshots-many", 60, 4, 65536, "snapshot"},
		{"snapshots-offset", 64, 8, UINT64_C(1) << 60, "snapshots"},
		{"incompatible", 72, 8, UINT64_C(1) << 40, "feature"},
		{"order", 96, 4, 7, "2^7"},
		{"length", 100, 4, 0xfffffff8, "length"},
		{"backing-far", 8, 8, UINT64_C(1) << 40, "backing"},
		{"backing-long", 16, 4, 0xffffffff, NULL},
	};

	for (unsigned k = 0; k < G_N_ELEMENTS(h); k++) {
		fresh("cluster_size=64k");
		q2_put(d + h[k].at, h[k].bytes, h[k].v);
		survive(h[k].name, h[k].text);
	}
}

static void cut(void)
{
	static const unsigned at[] = {0, 3, 71, 104, 512, 65536, 3 * 65536 + 5, 4 * 65536 + 8};

	for (unsigned k = 0; k < G_N_ELEMENTS(at); k++) {
		g_autofree char *name = g_strdup_printf("cut at %u", at[k]);

		fresh("cluster_size=64k");
		n = at[k];
		survive(name, NULL);
	}
}

/* Every L1 entry names the same table, or the L1 table itself, or its neighbour. */
static void loops(void)
{
	uint64_t l1;

	fresh("cluster_size=512");
	l1 = q2_be(d + 40, 8);
	for (unsigned k = 1; k < q2_be(d + 36, 4); k++)
		memcpy(d + l1 + 8 * k, d + l1, 8);
	survive("one L2 table for all", "lies over");
	fresh("cluster_size=512");
	for (unsigned k = 0; k < q2_be(d + 36, 4); k++)
		q2_put(d + l1 + 8 * k, 8, l1);
	survive("the L1 table is its L2 tables", "lies over");
	fresh("cluster_size=512");
	for (unsigned k = 0; k < 64; k++) /* the refcount table names itself */
		q2_put(d + q2_be(d + 48, 8) + 8 * k, 8, q2_be(d + 48, 8));
	survive("the refcount table is its blocks", "lies over");
}

/* A large L1 of a large disk, in a file that has none of it: many entries, one table after the other in the hole. */
static void many_tables(void)
{
	uint64_t l1;

	fresh("cluster_size=64k");
	n += 8 << 20;
	d = g_realloc(d, n);
	l1 = (n - (8 << 20) + 65535) / 65536 * 65536;
	memset(d + l1 - 65536, 0, n - l1 + 65536);
	for (unsigned k = 0; k < 100000; k++)
		q2_put(d + l1 + 8 * k, 8, (l1 + ((k % 100) << 16)) | UINT64_C(1) << 63);
	q2_put(d + 40, 8, l1);
	q2_put(d + 36, 4, 100000);
	q2_put(d + 24, 8, UINT64_C(100000) << 29);
	survive("a hundred thousand L1 entries", NULL);
}

static void snapshots(void)
{
	uint64_t s;

	fresh("cluster_size=64k");
	s = q2_be(d + 64, 8);
	q2_put(d + s + 36, 4, 0xffffffff);
	survive("extra data without end", "does not end");
	fresh("cluster_size=64k");
	q2_put(d + s + 14, 2, 0xffff);
	survive("a name past the end of the file", "does not end");
	fresh("cluster_size=64k");
	q2_put(d + s + 8, 4, 0xffffffff);
	survive("an L1 table of 32 GiB", NULL);
	fresh("cluster_size=64k");
	q2_put(d + s, 8, UINT64_C(1) << 55);
	survive("an L1 table far away", NULL);
	fresh("cluster_size=64k");
	q2_put(d + s, 8, 0);
	survive("an L1 table in the header", NULL);
}

/* Half a MiB of compressed zeros in each entry, all the same bytes: decoded cluster by cluster, within one. */
static void bomb(void)
{
	struct vh_err e = {0};
	struct q2_img m;
	uint64_t l2, first;
	uint8_t *b;
	long before;

	q2_run("rm -f t u && qemu-img create -q -f qcow2 u 512M && qemu-io -f qcow2 -c 'write -P 1 0 2M' u &&"
	       " qemu-img convert -c -O qcow2 -o cluster_size=2M u t");
	g_clear_pointer(&d, g_free);
	d = q2_file("t", &n);
	l2 = q2_be(d + q2_be(d + 40, 8), 8) & UINT64_C(0xfffffffffffe00);
	first = q2_be(d + l2, 8);
	g_assert_true(first >> 62 & 1);
	for (unsigned k = 0; k < 256; k++)
		q2_put(d + l2 + 8 * k, 8, first);
	q2_file_set("t", d, n);
	before = memory();
	if (q2_try_open(&m, "t", Q2_RO, NULL, &e) < 0)
		g_error("%s", e.cause);
	b = g_malloc(1 << 20);
	for (unsigned k = 0; k < 512; k++) {
		if (fmt_pread(m.i, b, 1 << 20, (uint64_t)k << 20, &e) < 0)
			g_error("%s", e.cause);
		g_assert_true(b[0] == 1 && b[(1 << 20) - 1] == 1);
	}
	g_free(b);
	q2_close_(&m);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	g_assert_cmpint(memory() - before, <, (long)MEMORY);
#endif
}

static void add(void)
{
	g_test_add_func("/qcow2/hostile/header", header);
	g_test_add_func("/qcow2/hostile/cut", cut);
	g_test_add_func("/qcow2/hostile/loops", loops);
	g_test_add_func("/qcow2/hostile/many-tables", many_tables);
	g_test_add_func("/qcow2/hostile/snapshots", snapshots);
	g_test_add_func("/qcow2/hostile/bomb", bomb);
}

int main(int argc, char **argv)
{
	return q2_main(argc, argv, add);
}
