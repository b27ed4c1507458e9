/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The platform's registers, through the port bus, without a guest. */
#include <glib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dev/platform-i.h"
#include "vm/layout.h"

static struct {
	struct vm *v;
	struct platform *p;
	struct serial *s;
	GString *out;
	int events[5], room;
} f;

static void on_event(void *ctx, enum vm_event ev, const char *text)
{
	f.events[ev]++;
}

static void on_serial(void *ctx, const void *data, size_t len)
{
	g_string_append_len(f.out, data, (gssize)len);
}

static void on_room(void *ctx)
{
	f.room++;
}

static uint8_t in8(uint16_t port)
{
	uint8_t v;
	bus_read(vm_pio(f.v), port, &v, 1);
	return v;
}

static uint32_t in32(uint16_t port)
{
	uint32_t v;
	bus_read(vm_pio(f.v), port, &v, 4);
	return v;
}

static void out8(uint16_t port, uint8_t v)
{
	bus_write(vm_pio(f.v), port, &v, 1);
}

static void out16(uint16_t port, uint16_t v)
{
	bus_write(vm_pio(f.v), port, &v, 2);
}

static uint16_t in16(uint16_t port)
{
	uint16_t v;
	bus_read(vm_pio(f.v), port, &v, 2);
	return v;
}

static int set_up(void)
{
	struct vm_config c = {.cpus = 3, .mem = {.bytes = 64 << 20}, .event = on_event};
	struct vh_err e = {0};

	if (access("/dev/kvm", R_OK | W_OK)) {
		g_test_skip("/dev/kvm is not there or may not be opened");
		return 0;
	}
	memset(&f, 0, sizeof f);
	f.out = g_string_new(NULL);
	if (vm_new(&c, &f.v, &e) || platform_new(f.v, &f.p, &e) || serial_new(f.v, on_serial, NULL, &f.s, &e))
		g_error("%s", e.cause);
	serial_on_room(f.s, on_room, NULL);
	return 1;
}

static void tear_down(void)
{
	serial_free(f.s);
	platform_free(f.p);
	vm_free(f.v);
	g_string_free(f.out, TRUE);
}

static void test_serial_output(void)
{
	if (!set_up())
		return;
	for (const char *p = "hello"; *p; p++)
		out8(0x3f8, (uint8_t)*p);
	g_assert_cmpstr(f.out->str, ==, "hello");
	out8(0x3fb, 0x80); /* divisor latch */
	out8(0x3f8, 1);
	out8(0x3f9, 2);
	g_assert_cmpuint(in8(0x3f8), ==, 1);
	g_assert_cmpuint(in8(0x3f9), ==, 2);
	out8(0x3fb, 3);
	g_assert_cmpuint(in8(0x3f9), ==, 0); /* IER again */
	g_assert_cmpstr(f.out->str, ==, "hello");
	g_assert_cmphex(in8(0x3fd) & 0x60, ==, 0x60);
	tear_down();
}

static void test_serial_interrupts(void)
{
	if (!set_up())
		return;
	g_assert_cmphex(in8(0x3fa), ==, 1); /* none, FIFO off */
	out8(0x3fa, 0xc1);                  /* FIFO on, trigger at 14 */
	g_assert_cmphex(in8(0x3fa), ==, 0xc1);
	out8(0x3f9, 2); /* empty: at once */
	g_assert_cmphex(in8(0x3fa), ==, 0xc2);
	g_assert_cmphex(in8(0x3fa), ==, 0xc1); /* reading it was the service */
	out8(0x3f8, 'x');
	g_assert_cmphex(in8(0x3fa), ==, 0xc2);
	out8(0x3f9, 1);
	g_assert_cmpuint(serial_input(f.s, "abc", 3), ==, 3);
	g_assert_cmphex(in8(0x3fa), ==, 0xcc); /* below the trigger: time-out */
	g_assert_cmpuint(serial_input(f.s, "0123456789abcdef", 16), ==, 13);
	g_assert_cmphex(in8(0x3fa), ==, 0xc4);
	g_assert_cmpint(f.room, ==, 0);
	for (unsigned i = 0; i < 16; i++)
		g_assert_cmpint(in8(0x3f8), ==, "abc0123456789abcd"[i]);
	g_assert_cmpint(f.room, ==, 1);
	g_assert_cmphex(in8(0x3fa), ==, 0xc1);
	g_assert_cmphex(in8(0x3fd) & 1, ==, 0);
	out8(0x3fc, 0x10); /* loop back: modem lines and overrun */
	out8(0x3fc, 0x1f);
	g_assert_cmphex(in8(0x3fe) & 0xf0, ==, 0xf0);
	out8(0x3fa, 0);
	out8(0x3f8, 1);
	out8(0x3f8, 2);
	g_assert_cmphex(in8(0x3fd) & 3, ==, 3);
	g_assert_cmphex(in8(0x3fd) & 2, ==, 0);
	g_assert_cmpuint(serial_input(f.s, "z", 1), ==, 0); /* the line is cut */
	serial_reset(f.s);
	g_assert_cmpuint(serial_input(f.s, "z", 1), ==, 1);
	tear_down();
}

static uint8_t cmos(uint8_t reg)
{
	out8(0x70, reg);
	return in8(0x71);
}

static void cmos_set(uint8_t reg, uint8_t v)
{
	out8(0x70, reg);
	out8(0x71, v);
}

static int bcd(uint8_t v)
{
	return (v >> 4) * 10 + (v & 15);
}

static void test_rtc_time(void)
{
	time_t before, after, t;
	struct tm tm = {0};

	if (!set_up())
		return;
	do { /* all within one second */
		before = time(NULL);
		tm = (struct tm){.tm_sec = bcd(cmos(0)), .tm_min = bcd(cmos(2)), .tm_hour = bcd(cmos(4)), .tm_mday = bcd(cmos(7)),
				 .tm_mon = bcd(cmos(8)) - 1, .tm_year = bcd(cmos(0x32)) * 100 + bcd(cmos(9)) - 1900};
		after = time(NULL);
	} while (before != after);
	t = timegm(&tm);
	g_assert_cmpint(t, ==, before);
	g_assert_cmpint(bcd(cmos(6)), ==, gmtime(&t)->tm_wday + 1);
	cmos_set(0x0b, 0x82 | 4); /* hold, binary */
	cmos_set(9, 99);
	cmos_set(0x32, 19);
	cmos_set(8, 12);
	cmos_set(7, 31);
	cmos_set(4, 23);
	cmos_set(2, 59);
	cmos_set(0, 58);
	g_assert_cmpuint(cmos(0), ==, 58);
	cmos_set(0x0b, 4 | 2);
	g_usleep(2100000);
	g_assert_cmpuint(cmos(9), ==, 0);
	g_assert_cmpuint(cmos(0x32), ==, 20);
	g_assert_cmpuint(cmos(7), ==, 1);
	cmos_set(0x0b, 4); /* 12-hour */
	g_assert_cmphex(cmos(4), ==, 12);
	cmos_set(4, 0x80 | 3);
	g_assert_cmphex(cmos(4), ==, 0x83);
	cmos_set(0x0b, 6);
	g_assert_cmphex(cmos(4), ==, 15);
	tear_down();
}

static void wait_flag(uint8_t want)
{
	uint8_t got = 0;
	for (unsigned i = 0; i < 3000 && !(got & want); i++) {
		got |= cmos(0x0c);
		g_usleep(1000);
	}
	g_assert_cmphex(got & want, ==, want);
}

static void test_rtc_interrupts(void)
{
	if (!set_up())
		return;
	cmos_set(0x0b, 0x42); /* periodic */
	wait_flag(0xc0);
	cmos_set(0x0b, 0x12); /* update ended */
	cmos(0x0c);
	wait_flag(0x90);
	cmos_set(1, 0xff); /* alarm: any second */
	cmos_set(3, 0xff);
	cmos_set(5, 0xff);
	cmos_set(0x0b, 0x22);
	cmos(0x0c);
	wait_flag(0xa0);
	g_assert_cmphex(cmos(0x0d), ==, 0x80);
	platform_reset(f.p);
	g_assert_cmphex(cmos(0x0b), ==, 2);
	tear_down();
}

static void test_cmos(void)
{
	if (!set_up())
		return;
	g_assert_cmpuint(cmos(0x34) | cmos(0x35) << 8, ==, (64 - 16) * 16);
	g_assert_cmpuint(cmos(0x5f), ==, 2);
	cmos_set(0x0f, 0xa);
	cmos_set(0x50, 0x55);
	platform_reset(f.p);
	g_assert_cmphex(cmos(0x0f), ==, 0);
	g_assert_cmphex(cmos(0x50), ==, 0x55); /* memory survives a reset */
	g_assert_cmphex(in8(0x70), ==, 0xff);
	tear_down();
}

static void test_i8042(void)
{
	if (!set_up())
		return;
	out8(0x64, 0xaa);
	g_assert_cmphex(in8(0x64) & 5, ==, 5);
	g_assert_cmphex(in8(0x60), ==, 0x55);
	out8(0x64, 0x60);
	out8(0x60, 0x47);
	out8(0x64, 0x20);
	g_assert_cmphex(in8(0x60), ==, 0x47);
	out8(0x60, 0xf2);
	g_assert_cmphex(in8(0x60), ==, 0xfa);
	g_assert_cmphex(in8(0x60), ==, 0xab);
	g_assert_cmphex(in8(0x60), ==, 0x41);
	for (unsigned i = 0; i < 100; i++)
		out8(0x60, 0xee); /* the queue is bounded */
	out8(0x64, 0xd0);
	for (unsigned i = 0; i < 16; i++)
		g_assert_cmphex(in8(0x60), ==, 0xee);
	g_assert_cmphex(in8(0x64) & 1, ==, 0);
	g_assert_cmpint(f.events[VM_RESET], ==, 0);
	out8(0x64, 0xfe);
	g_assert_cmpint(f.events[VM_RESET], ==, 1);
	tear_down();
}

static void test_resets(void)
{
	if (!set_up())
		return;
	out8(0x92, 2);
	g_assert_cmpint(f.events[VM_RESET], ==, 0);
	out8(0x92, 3);
	g_assert_cmpint(f.events[VM_RESET], ==, 1);
	tear_down();
	if (!set_up())
		return;
	out8(0x505, 2); /* a crash kernel is there: no panic */
	g_assert_cmpint(f.events[VM_PANIC], ==, 0);
	out8(0x505, 1);
	g_assert_cmpint(f.events[VM_PANIC], ==, 1);
	tear_down();
}

static void test_pm(void)
{
	if (!set_up())
		return;
	uint32_t a = in32(LAYOUT_PM_TIMER);
	g_usleep(100000);
	uint32_t d = in32(LAYOUT_PM_TIMER) - a;
	g_assert_cmpuint(d, >=, 357954);
	g_assert_cmpuint(d, <, 3579545 * 5u);
	g_assert_cmpuint(pm_ticks(UINT64_C(1000000000)), ==, 3579545);
	g_assert_cmpuint(pm_ticks(UINT64_C(1000000000) * 86400 * 365), ==, (uint32_t)(UINT64_C(3579545) * 86400 * 365));
	g_assert_false(platform_acpi_enabled(f.p));
	out16(LAYOUT_PM_BASE + 2, 0x100);
	g_assert_true(platform_acpi_enabled(f.p));
	platform_power_button(f.p);
	g_assert_cmphex(in16(LAYOUT_PM_BASE) & 0x100, ==, 0x100);
	out8(LAYOUT_PM_BASE, 0xff); /* the other byte: stays */
	g_assert_cmphex(in16(LAYOUT_PM_BASE) & 0x100, ==, 0x100);
	out16(LAYOUT_PM_BASE, 0x100);
	g_assert_cmphex(in16(LAYOUT_PM_BASE) & 0x100, ==, 0);
	out16(LAYOUT_PM_CNT, 0x0400 | 0x2000); /* S-state 1 does not exist */
	g_assert_cmpint(f.events[VM_SHUTDOWN], ==, 0);
	g_assert_cmphex(in16(LAYOUT_PM_CNT) & 0x2001, ==, 1);
	out8(LAYOUT_PM_CNT + 1, 0x20); /* a byte write works as well */
	g_assert_cmpint(f.events[VM_SHUTDOWN], ==, 1);
	out8(LAYOUT_GPE0 + 8, 0x81);
	g_assert_cmphex(in8(LAYOUT_GPE0 + 8), ==, 0x81);
	platform_reset(f.p);
	g_assert_cmphex(in8(LAYOUT_GPE0 + 8), ==, 0);
	g_assert_false(platform_acpi_enabled(f.p));
	tear_down();
}

/* Every port of the platform, every width, random values: nothing but the asked-for events happens. */
static void test_random(void)
{
	static const uint16_t base[] = {0x60, 0x64, 0x70, 0x71, 0x92, 0xb2, 0x3f8, 0x402, 0x505, 0x600, 0x620};
	GRand *r;
	if (!set_up())
		return;
	r = g_rand_new_with_seed(7);
	for (unsigned i = 0; i < 60000; i++) {
		uint16_t port = (uint16_t)(base[g_rand_int_range(r, 0, G_N_ELEMENTS(base))] + g_rand_int_range(r, 0, 16));
		uint64_t v = (uint64_t)g_rand_int(r) << 32 | g_rand_int(r);
		unsigned len = 1u << g_rand_int_range(r, 0, 4);
		if (g_rand_boolean(r))
			bus_read(vm_pio(f.v), port, &v, len);
		else
			bus_write(vm_pio(f.v), port, &v, len);
	}
	g_rand_free(r);
	platform_reset(f.p);
	serial_reset(f.s);
	tear_down();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/platform/serial-output", test_serial_output);
	g_test_add_func("/platform/serial-interrupts-and-input", test_serial_interrupts);
	g_test_add_func("/platform/rtc-time", test_rtc_time);
	g_test_add_func("/platform/rtc-interrupts", test_rtc_interrupts);
	g_test_add_func("/platform/cmos", test_cmos);
	g_test_add_func("/platform/keyboard-controller", test_i8042);
	g_test_add_func("/platform/reset-and-panic-ports", test_resets);
	g_test_add_func("/platform/power-management", test_pm);
	g_test_add_func("/platform/random-accesses", test_random);
	return g_test_run();
}
