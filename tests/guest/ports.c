/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The platform's ports as a guest sees them. */
#include "lib/guest.h"

static uint8_t cmos(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void unclaimed(void)
{
	static const uint16_t port[] = {0x22, 0x100, 0x2f8, 0x3b0, 0x510, 0xa000, 0xfffc};
	static const uint64_t addr[] = {0xcf000000, 0xfed00000, 0xffff0000};
	for (unsigned i = 0; i < sizeof port / sizeof *port; i++) {
		CHECK(inb(port[i]) == 0xff && inw(port[i]) == 0xffff && inl(port[i]) == 0xffffffff, "port %x is not all ones", port[i]);
		outl(port[i], 0);
	}
	for (unsigned i = 0; i < sizeof addr / sizeof *addr; i++) {
		mmio_write64(addr[i], 0);
		CHECK(mmio_read8(addr[i]) == 0xff && mmio_read16(addr[i]) == 0xffff && mmio_read32(addr[i]) == 0xffffffff &&
		      mmio_read64(addr[i]) == ~UINT64_C(0), "address %lx is not all ones", addr[i]);
	}
	put("unclaimed: ok\n");
}

static void timer(void)
{
	uint32_t last = inl(0x608), start = last;
	uint64_t t0 = tsc(), t1;
	for (unsigned i = 0; i < 1000; i++) {
		uint32_t now = inl(0x608);
		CHECK(now - last < 1u << 30, "the PM timer went from %x to %x", last, now);
		last = now;
	}
	t1 = tsc();
	CHECK(last != start, "the PM timer stands still");
	print("timer: ok %lu Hz TSC\n", (t1 - t0) * 3579545 / (last - start));
}

static void rtc(void)
{
	uint8_t b = cmos(0x0b), s;
	unsigned k = 0;
	CHECK(b & 2, "RTC in 12-hour mode at start");
	CHECK(cmos(0x0d) & 0x80, "RTC battery is bad");
	CHECK(cmos(0x32) == 0x20, "century %x", cmos(0x32));
	s = cmos(0);
	for (uint64_t end = now_ns() + 1500000000u; now_ns() < end && cmos(0) == s;)
		k++;
	CHECK(cmos(0) != s, "the clock stands still");
	CHECK(cmos(0x34) | cmos(0x35) << 8 || memory_below_4g() <= 16u << 20, "no memory size in CMOS");
	outb(0x70, 0x0f);
	outb(0x71, 0x5a);
	CHECK(cmos(0x0f) == 0x5a, "the shutdown byte is not kept");
	print("rtc: ok 20%02x-%02x-%02x %02x:%02x:%02x\n", cmos(9), cmos(8), cmos(7), cmos(4), cmos(2), cmos(0));
}

static void serial(void)
{
	outb(0x3fc, 0x10); /* loop back */
	outb(0x3fa, 7);
	for (unsigned i = 0; i < 16; i++)
		outb(0x3f8, (uint8_t)(i * 17));
	for (unsigned i = 0; i < 16; i++) {
		CHECK(inb(0x3fd) & 1, "serial: byte %u is not there", i);
		CHECK(inb(0x3f8) == i * 17, "serial: byte %u is wrong", i);
	}
	CHECK(!(inb(0x3fd) & 1), "serial: a byte too many");
	outb(0x3fc, 0);
	outb(0x3fa, 0);
	outb(0x3ff, 0xa5);
	CHECK(inb(0x3ff) == 0xa5, "serial: scratch register");
	put("serial: ok\n");
}

static void keyboard(void)
{
	outb(0x64, 0xaa);
	CHECK(inb(0x64) & 1 && inb(0x60) == 0x55, "keyboard controller self test");
	outb(0x64, 0xab);
	CHECK(inb(0x60) == 0, "keyboard interface test");
	outb(0x60, 0xff);
	CHECK(inb(0x60) == 0xfa && inb(0x60) == 0xaa, "keyboard reset");
	CHECK(!(inb(0x64) & 1), "keyboard has a byte too many");
	CHECK(inb(0x92) & 2, "A20 is off");
	put("keyboard: ok\n");
}

static void acpi(void)
{
	CHECK(inw(0x604) & 1, "SCI_EN is off");
	outw(0x602, 0x100);
	CHECK(inw(0x602) == 0x100, "PM1 enable");
	outw(0x602, 0);
	outb(0x628, 0xff);
	CHECK(inb(0x628) == 0xff && inb(0x620) == 0, "GPE block");
	outb(0x628, 0);
	CHECK(inb(0x402) == 0xe9 && inb(0x505) == 3, "debug console or pvpanic");
	put("acpi: ok\n");
}

void guest_main(void)
{
	serial();
	unclaimed();
	timer();
	rtc();
	keyboard();
	acpi();
	put("ports: ok\n");
}
