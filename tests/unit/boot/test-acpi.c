/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The AML writer's encodings, the tables' sums and references, and what iasl makes of them. */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>

#include "boot/acpi-i.h"
#include "boot/aml.h"

#define BASE 0xe0000u
#define ROOM 0x20000u

static unsigned gsi(unsigned slot, unsigned pin)
{
	return 16 + (slot + pin) % 8;
}

static const struct acpi_config config = {.cpus = 8, .last_bus = 3, .ecam_base = 0xb0000000, .mmio32_first = 0xc0000000, .mmio32_last = 0xfebfffff,
					  .mmio64_first = UINT64_C(0x8000000000), .mmio64_last = UINT64_C(0xbfffffffff), .intx_gsi = gsi};

#define AML_IS(a, ...) do { static const uint8_t w_[] = {__VA_ARGS__}; g_assert_false((a).bad); g_assert_cmpmem((a).p, (a).n, w_, sizeof w_); (a).n = 0; } while (0)

static void test_encodings(void)
{
	uint8_t buf[256];
	struct aml a;

	aml_init(&a, buf, sizeof buf);
	aml_int(&a, 0); AML_IS(a, 0);
	aml_int(&a, 1); AML_IS(a, 1);
	aml_int(&a, 2); AML_IS(a, 0x0a, 2);
	aml_int(&a, 0x1234); AML_IS(a, 0x0b, 0x34, 0x12);
	aml_int(&a, 0x12345678); AML_IS(a, 0x0c, 0x78, 0x56, 0x34, 0x12);
	aml_int(&a, 0x123456789); AML_IS(a, 0x0e, 0x89, 0x67, 0x45, 0x23, 1, 0, 0, 0);
	aml_string(&a, "ab"); AML_IS(a, 0x0d, 'a', 'b', 0);
	aml_eisaid(&a, "PNP0A03"); AML_IS(a, 0x0c, 0x41, 0xd0, 0x0a, 0x03);
	aml_path(&a, "\\_SB_.PCI0"); AML_IS(a, '\\', 0x2e, '_', 'S', 'B', '_', 'P', 'C', 'I', '0');
	aml_path(&a, "A.B.C"); AML_IS(a, 0x2f, 3, 'A', '_', '_', '_', 'B', '_', '_', '_', 'C', '_', '_', '_');
	aml_package(&a, 1), aml_int(&a, 1), aml_close(&a); AML_IS(a, 0x12, 3, 1, 1);
	aml_resources(&a, "_CRS"), aml_res_io(&a, 0x3f8, 8), aml_resources_close(&a);
	AML_IS(a, 8, '_', 'C', 'R', 'S', 0x11, 0x0d, 0x0a, 0x0a, 0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x79, 0);
}

static void test_lengths(void)
{
	static uint8_t buf[70000];
	struct aml a;

	for (unsigned n = 50; n < 70000 - 16; n += n < 70 ? 1 : n < 4090 ? 700 : n < 4105 ? 1 : 20000) {
		aml_init(&a, buf, sizeof buf);
		aml_byte(&a, 0x12);
		a.open[a.depth++] = a.n;
		for (unsigned i = 0; i < n; i++)
			aml_byte(&a, 0);
		aml_close(&a);
		g_assert_false(a.bad);
		/* Decode PkgLength again: it counts itself. */
		unsigned extra = buf[1] >> 6, len = extra ? buf[1] & 15u : buf[1] & 63u;
		for (unsigned i = 0; i < extra; i++)
			len |= (unsigned)buf[2 + i] << (4 + 8 * i);
		g_assert_cmpuint(len, ==, a.n - 1);
		g_assert_cmpuint(len, ==, n + 1 + extra);
	}
}

static void test_overflow(void)
{
	uint8_t buf[4096 + 1];
	struct aml a;

	for (size_t room = 0; room < 4096; room += 7) {
		memset(buf, 0xee, sizeof buf);
		g_assert_cmpuint(dsdt_write(&config, buf, room < 2000 ? room : 1999), ==, 0);
		g_assert_cmphex(buf[room < 2000 ? room : 1999], ==, 0xee);
	}
	aml_init(&a, buf, sizeof buf);
	aml_close(&a);
	g_assert_true(a.bad);
}

static uint8_t sum(const uint8_t *p, size_t n)
{
	uint8_t s = 0;
	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

static uint64_t get(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;
	memcpy(&v, p, n);
	return v;
}

static const uint8_t *at(const uint8_t *buf, uint64_t gpa)
{
	g_assert_cmphex(gpa, >=, BASE);
	g_assert_cmphex(gpa, <, BASE + ROOM);
	return buf + (gpa - BASE);
}

static void check_tables(const uint8_t *buf, unsigned cpus)
{
	const uint8_t *xsdt;
	unsigned seen = 0;

	g_assert_cmpmem(buf, 8, "RSD PTR ", 8);
	g_assert_cmphex(sum(buf, 20), ==, 0);
	g_assert_cmphex(sum(buf, 36), ==, 0);
	xsdt = at(buf, get(buf + 24, 8));
	g_assert_cmpmem(xsdt, 4, "XSDT", 4);
	g_assert_cmphex(sum(xsdt, get(xsdt + 4, 4)), ==, 0);
	for (unsigned i = 36; i < get(xsdt + 4, 4); i += 8) {
		const uint8_t *t = at(buf, get(xsdt + i, 8));
		size_t len = get(t + 4, 4);
		g_assert_cmphex(sum(t, len), ==, 0);
		if (!memcmp(t, "FACP", 4)) {
			const uint8_t *dsdt = at(buf, get(t + 140, 8)), *facs = at(buf, get(t + 36, 4));
			g_assert_cmpuint(get(t + 40, 4), ==, get(t + 140, 8));
			g_assert_cmpmem(dsdt, 4, "DSDT", 4);
			g_assert_cmphex(sum(dsdt, get(dsdt + 4, 4)), ==, 0);
			g_assert_cmpmem(facs, 4, "FACS", 4);
			g_assert_cmpuint(((uintptr_t)(facs - buf)) % 64, ==, 0);
			g_assert_cmpuint(get(t + 56, 4), ==, 0x600);
			g_assert_cmpuint(get(t + 64, 4), ==, 0x604);
			g_assert_cmpuint(get(t + 76, 4), ==, 0x608);
			seen |= 1;
		} else if (!memcmp(t, "APIC", 4)) {
			unsigned n = 0, x2 = 0;
			for (size_t o = 44; o < len; o += t[o + 1]) {
				g_assert_cmpuint(t[o + 1], >, 0);
				n += t[o] == 0;
				x2 += t[o] == 9;
			}
			g_assert_cmpuint(n + x2, ==, cpus);
			g_assert_cmpuint(x2, ==, cpus > 255 ? cpus - 255 : 0);
			seen |= 2;
		} else if (!memcmp(t, "MCFG", 4)) {
			g_assert_cmphex(get(t + 44, 8), ==, 0xb0000000);
			g_assert_cmpuint(t[55], ==, config.last_bus);
			seen |= 4;
		} else {
			g_assert_cmpmem(t, 4, "WAET", 4);
			seen |= 8;
		}
	}
	g_assert_cmphex(seen, ==, 15);
}

static void test_tables(void)
{
	g_autofree uint8_t *buf = g_malloc(ROOM);
	struct acpi_config c = config;

	for (c.cpus = 1; c.cpus <= 1024; c.cpus = c.cpus < 3 ? c.cpus + 1 : c.cpus * 2 - 1) {
		memset(buf, 0xee, ROOM);
		g_assert_cmpuint(acpi_write(&c, BASE, buf, ROOM), >, 0);
		check_tables(buf, c.cpus);
	}
	c.cpus = 4096; /* too many for the place: said, not cut off */
	g_assert_cmpuint(acpi_write(&c, BASE, buf, ROOM), ==, 0);
}

/* iasl decompiles each table, and compiles the DSDT's source again without an error or warning of its own. */
static void test_iasl(void)
{
	g_autofree uint8_t *buf = g_malloc0(ROOM);
	g_autofree char *dir = NULL, *iasl = g_find_program_in_path("iasl");
	const char *const names[] = {"FACP", "APIC", "MCFG", "WAET"};
	const uint8_t *xsdt, *dsdt = NULL;

	if (!iasl) {
		g_test_skip("iasl is not installed (package acpica-tools)");
		return;
	}
	dir = g_dir_make_tmp("vhost-acpi-XXXXXX", NULL);
	g_assert_nonnull(dir);
	g_assert_cmpuint(acpi_write(&config, BASE, buf, ROOM), >, 0);
	xsdt = at(buf, get(buf + 24, 8));
	for (unsigned i = 0; i < 5; i++) {
		const uint8_t *t = i < 4 ? at(buf, get(xsdt + 36 + i * 8, 8)) : dsdt;
		g_autofree char *name = g_strdup_printf("%s/%.4s.aml", dir, (const char *)t);
		g_assert_cmpmem(t, 4, i < 4 ? names[i] : "DSDT", 4);
		if (i == 0)
			dsdt = at(buf, get(t + 140, 8));
		g_assert_true(g_file_set_contents(name, (const char *)t, (gssize)get(t + 4, 4), NULL));
	}
	g_autofree char *cmd = g_strdup_printf("cd '%s' && for t in FACP APIC MCFG WAET DSDT; do '%s' -d $t.aml >$t.log 2>&1 || { cat $t.log; exit 1; }; done;"
					       " grep -lE 'Unknown|invalid|Invalid' *.dsl && exit 1; cp DSDT.aml want; '%s' -oa -p again DSDT.dsl >c.log 2>&1 || { cat c.log; exit 1; };"
					       " grep -qE '^ *(Compilation successful|Compilation complete).* 0 Errors, 0 Warnings' c.log || { cat c.log; exit 1; };"
					       " cmp -i 36 want again.aml", dir, iasl, iasl);
	const char *argv[] = {"sh", "-c", cmd, NULL};
	char *out = NULL;
	int status = -1;
	g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, NULL, &status, NULL));
	if (status)
		g_error("iasl: %s", out);
	g_free(out);
	g_autofree char *rm = g_strdup_printf("rm -rf '%s'", dir);
	argv[2] = rm;
	g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/acpi/aml-encodings", test_encodings);
	g_test_add_func("/acpi/aml-lengths", test_lengths);
	g_test_add_func("/acpi/aml-overflow", test_overflow);
	g_test_add_func("/acpi/tables", test_tables);
	g_test_add_func("/acpi/iasl-agrees", test_iasl);
	return g_test_run();
}
