/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>
#include <sys/mman.h>

#include "vm/memory.h"

#define MIB (UINT64_C(1) << 20)

static struct mem *make(struct mem_config c)
{
	struct vh_err e = {0};
	struct mem *m;
	g_assert_cmpint(mem_new(&c, &m, &e), ==, 0);
	return m;
}

static void test_bounds(void)
{
	struct mem *m = make((struct mem_config){.bytes = 16 * MIB});

	g_assert_true(mem_ptr(m, 0, 16 * MIB) == m->range[0].host);
	g_assert_null(mem_ptr(m, 0, 16 * MIB + 1));
	g_assert_null(mem_ptr(m, 1, 16 * MIB));
	g_assert_nonnull(mem_ptr(m, 16 * MIB - 1, 1));
	g_assert_nonnull(mem_ptr(m, 16 * MIB - 1, 0));
	g_assert_null(mem_ptr(m, 16 * MIB, 0));
	g_assert_null(mem_ptr(m, 8, ~UINT64_C(0)));
	g_assert_null(mem_ptr(m, ~UINT64_C(0) - 3, 8));
	g_assert_cmpint(mem_release(m, 16 * MIB - 4096, 8192), ==, -EFAULT);
	g_assert_cmpint(mem_zero(m, 16 * MIB, 1), ==, -EFAULT);
	mem_free(m);
}

static void test_hole(void)
{
	struct mem *m = make((struct mem_config){.bytes = 6 * 1024 * MIB});
	uint8_t *p;

	g_assert_cmpuint(m->n, ==, 2);
	g_assert_cmphex(m->range[0].bytes, ==, MEM_LOW_MAX);
	g_assert_cmphex(m->range[1].gpa, ==, MEM_HIGH_BASE);
	g_assert_cmphex(m->range[0].bytes + m->range[1].bytes, ==, 6 * 1024 * MIB);
	g_assert_null(mem_ptr(m, MEM_LOW_MAX - 1, 2));
	g_assert_null(mem_ptr(m, MEM_LOW_MAX, 1));
	g_assert_null(mem_ptr(m, MEM_HIGH_BASE - 1, 1));
	p = mem_ptr(m, MEM_HIGH_BASE + 3 * 1024 * MIB, 4096);
	g_assert_nonnull(p);
	*p = 1;
	/* Neighbours in the mapping, strangers in the guest: the two ranges do not overlap. */
	*(uint8_t *)mem_ptr(m, MEM_LOW_MAX - 1, 1) = 2;
	g_assert_cmpuint(*(uint8_t *)mem_ptr(m, MEM_HIGH_BASE, 1), ==, 0);
	g_assert_cmpuint(mem_resident(m), <=, 16 * MIB);
	mem_free(m);
}

static void release(struct mem_config c)
{
	struct mem *m = make(c);
	uint8_t *p = mem_ptr(m, 0, 8 * MIB);

	g_assert_cmpuint(mem_resident(m), <=, c.prealloc ? 16 * MIB : 0);
	memset(p, 0xaa, 8 * MIB);
	g_assert_cmpuint(mem_resident(m), >=, 8 * MIB);
	g_assert_cmpint(mem_release(m, MIB + 100, 2 * MIB), ==, 0); /* the pages cut at both ends stay */
	g_assert_cmphex(p[MIB + 100], ==, 0xaa);
	g_assert_cmphex(p[MIB + 4096], ==, 0);
	g_assert_cmphex(p[3 * MIB], ==, 0xaa);
	g_assert_cmpint(mem_release(m, 100, 3000), ==, 0); /* no whole page in it */
	g_assert_cmphex(p[100], ==, 0xaa);
	g_assert_cmpint(mem_zero(m, 4 * MIB + 5, MIB), ==, 0);
	g_assert_cmphex(p[4 * MIB + 4], ==, 0xaa);
	g_assert_cmphex(p[4 * MIB + 5], ==, 0);
	g_assert_cmphex(p[5 * MIB + 4], ==, 0);
	g_assert_cmphex(p[5 * MIB + 5], ==, 0xaa);
	g_assert_cmpint(mem_zero(m, 10, 20), ==, 0);
	g_assert_cmphex(p[9], ==, 0xaa);
	g_assert_cmphex(p[29], ==, 0);
	g_assert_cmphex(p[30], ==, 0xaa);
	g_assert_cmpint(mem_zero_all(m), ==, 0);
	g_assert_cmphex(p[0], ==, 0);
	mem_free(m);
}

static void test_release_shared(void)
{
	release((struct mem_config){.bytes = 16 * MIB});
}

static void test_release_mergeable(void)
{
	release((struct mem_config){.bytes = 16 * MIB, .mergeable = 1});
}

static void test_prealloc(void)
{
	struct mem *m = make((struct mem_config){.bytes = 192 * MIB, .prealloc = 1});
	g_assert_cmpuint(mem_resident(m), ==, 192 * MIB);
	g_assert_cmpint(mem_zero_all(m), ==, 0);
	g_assert_cmpuint(mem_resident(m), ==, 192 * MIB);
	mem_free(m);
	release((struct mem_config){.bytes = 16 * MIB, .prealloc = 1});
}

static void test_refused(void)
{
	static const struct mem_config bad[] = {{.bytes = 0}, {.bytes = 4097}, {.bytes = 1 * MIB}, {.bytes = UINT64_C(1) << 50},
						{.bytes = 16 * MIB, .hugepages = 12345}, {.bytes = 3 * MIB, .hugepages = 2 << 20}};
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		struct vh_err e = {0};
		struct mem *m;
		g_assert_cmpint(mem_new(&bad[i], &m, &e), <, 0);
		g_assert_null(m);
		g_assert_nonnull(e.cause);
		err_clear(&e);
	}
}

static void test_hugepages(void)
{
	struct mem_config c = {.bytes = 64 * MIB, .hugepages = 2 << 20};
	struct vh_err e = {0};
	struct mem *m;
	int r = mem_new(&c, &m, &e);

	if (r < 0) { /* none reserved on this machine: it must say what to do, and at once, not by SIGBUS later */
		g_assert_nonnull(e.remedy);
		err_clear(&e);
		return;
	}
	memset(mem_ptr(m, 0, 64 * MIB), 1, 64 * MIB);
	mem_free(m);
}

static void test_thp_alignment(void)
{
	struct mem *m = make((struct mem_config){.bytes = 4096 * MIB, .thp = 1});
	for (unsigned i = 0; i < m->n; i++)
		g_assert_cmphex(((uintptr_t)m->range[i].host ^ m->range[i].gpa) & (2 * MIB - 1), ==, 0);
	mem_free(m);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/memory/bounds", test_bounds);
	g_test_add_func("/memory/hole-below-4g", test_hole);
	g_test_add_func("/memory/release-shared", test_release_shared);
	g_test_add_func("/memory/release-mergeable", test_release_mergeable);
	g_test_add_func("/memory/prealloc", test_prealloc);
	g_test_add_func("/memory/refused", test_refused);
	g_test_add_func("/memory/hugepages", test_hugepages);
	g_test_add_func("/memory/huge-page-alignment", test_thp_alignment);
	return g_test_run();
}
