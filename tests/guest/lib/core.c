/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <stdarg.h>

#include "guest.h"

struct start_info { uint32_t magic, version, flags, nr_modules; uint64_t modlist, cmdline, rsdp, memmap; uint32_t memmap_entries; };
struct memmap { uint64_t addr, size; uint32_t type, reserved; };

extern uint64_t start_info, idt[], pml4[];
extern char _end[], exception_stubs[];

void *memcpy(void *d, const void *s, size_t n)
{
	void *r = d;
	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return r;
}

void *memset(void *d, int c, size_t n)
{
	void *r = d;
	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return r;
}

void *memmove(void *d, const void *s, size_t n)
{
	char *p = d;
	const char *q = s;
	if (p < q)
		while (n--)
			*p++ = *q++;
	else
		while (n--)
			p[n] = q[n];
	return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const unsigned char *p = a, *q = b;
	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}

static void putc(char c)
{
	outb(0x3f8, (uint8_t)c);
}

void put(const char *s)
{
	while (*s)
		putc(*s++);
}

static void put_number(uint64_t v, unsigned base, unsigned width)
{
	char buf[24];
	unsigned n = 0;
	do
		buf[n++] = "0123456789abcdef"[v % base];
	while (v /= base);
	while (n < width && n < sizeof buf)
		buf[n++] = '0';
	while (n)
		putc(buf[--n]);
}

static void vprint(const char *f, va_list ap)
{
	for (; *f; f++) {
		unsigned width = 0, wide = 0;
		if (*f != '%') {
			putc(*f);
			continue;
		}
		for (f++; *f >= '0' && *f <= '9'; f++)
			width = width * 10 + (unsigned)(*f - '0');
		for (; *f == 'l' || *f == 'z'; f++)
			wide = 1;
		switch (*f) {
		case 's': put(va_arg(ap, const char *)); break;
		case 'c': putc((char)va_arg(ap, int)); break;
		case 'd': {
			int64_t v = wide ? va_arg(ap, long) : va_arg(ap, int);
			if (v < 0)
				putc('-');
			put_number(v < 0 ? -(uint64_t)v : (uint64_t)v, 10, width);
			break;
		}
		case 'u': put_number(wide ? va_arg(ap, unsigned long) : va_arg(ap, unsigned), 10, width); break;
		case 'x': put_number(wide ? va_arg(ap, unsigned long) : va_arg(ap, unsigned), 16, width); break;
		case 0: return;
		default: putc(*f);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

/* An empty IDT and an invalid opcode: no handler, no double fault handler. */
void triple_fault(void)
{
	memset(idt, 0, 512);
	for (;;)
		__asm__ volatile("ud2");
}

void reboot(void)
{
	outb(0xcf9, 2);
	outb(0xcf9, 6);
	outb(0x64, 0xfe);
	triple_fault();
}

void power_off(void)
{
	outw(0x604, 0x2000); /* PM1a control of vhost and of q35: S5 */
	reboot();            /* microvm without ACPI ends here, with -no-reboot */
}

void fail(const char *fmt, ...)
{
	va_list ap;
	outb(0x3fb, 3); /* whatever the guest did to its serial port: it is heard */
	outb(0x3fc, 3);
	put("FAIL: ");
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	put("\n");
	power_off();
}

void guest_exception(uint64_t vector, uint64_t error, uint64_t rip, uint64_t cr2);
void guest_exception(uint64_t vector, uint64_t error, uint64_t rip, uint64_t cr2)
{
	fail("exception %lu error %lx at %lx, cr2 %lx", vector, error, rip, cr2);
}

const char *cmdline(void)
{
	struct start_info *s = (void *)start_info;
	return s && s->cmdline ? (const char *)s->cmdline : "";
}

int arg_next(const char *name, unsigned n, char *out, size_t room)
{
	size_t len = strlen(name), k;
	for (const char *p = cmdline(); *p;) {
		while (*p == ' ')
			p++;
		if (!memcmp(p, name, len) && p[len] == '=' && n-- == 0) {
			p += len + 1;
			for (k = 0; p[k] && p[k] != ' ' && k + 1 < room; k++)
				out[k] = p[k];
			out[k] = 0;
			return 1;
		}
		while (*p && *p != ' ')
			p++;
	}
	return 0;
}

const char *arg_str(const char *name)
{
	static char buf[128];
	return arg_next(name, 0, buf, sizeof buf) ? buf : NULL;
}

uint64_t arg_u64(const char *name, uint64_t def)
{
	const char *p = arg_str(name);
	uint64_t v = 0;
	if (!p)
		return def;
	for (; *p >= '0' && *p <= '9'; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	return *p == 'K' ? v << 10 : *p == 'M' ? v << 20 : *p == 'G' ? v << 30 : v;
}

uint64_t memory_below_4g(void)
{
	struct start_info *s = (void *)start_info;
	uint64_t end = 0;
	if (!s || s->version < 1)
		return 32u << 20;
	for (unsigned i = 0; i < s->memmap_entries; i++) {
		struct memmap *m = (struct memmap *)s->memmap + i;
		if (m->type == 1 && m->addr < UINT64_C(1) << 32 && m->addr + m->size > end)
			end = m->addr + m->size;
	}
	return end;
}

void *page_alloc(size_t bytes)
{
	static uint64_t next;
	void *p;
	if (!next)
		next = ((uint64_t)_end + 4095) & ~UINT64_C(4095);
	bytes = (bytes + 4095) & ~UINT64_C(4095);
	CHECK(next + bytes <= memory_below_4g(), "out of memory");
	p = (void *)next;
	next += bytes;
	return memset(p, 0, bytes);
}

void map_device(uint64_t addr, uint64_t len)
{
	for (uint64_t a = addr & ~UINT64_C(0x1fffff); a < addr + len; a += 0x200000) {
		uint64_t *t = pml4;
		for (unsigned shift = 39; shift > 21; shift -= 9) {
			uint64_t *e = &t[a >> shift & 511];
			if (!(*e & 1))
				*e = (uint64_t)page_alloc(4096) | 7;
			t = (uint64_t *)(*e & ~UINT64_C(4095));
		}
		if (!(t[a >> 21 & 511] & 1))
			t[a >> 21 & 511] = a | 0x9f;
	}
	full_barrier();
}

/* TSC cycles in 20 ms of the PM timer, or of the PIT's channel 2 where there is none. */
static uint64_t measure(void)
{
	uint64_t t0;
	if (inl(0x608) != 0xffffffff) {
		uint32_t from = inl(0x608), span = 71591;
		t0 = tsc();
		while (((inl(0x608) - from) & 0xffffff) < span)
			;
		return (tsc() - t0) * 50;
	}
	outb(0x61, (uint8_t)((inb(0x61) & ~2) | 1));
	outb(0x43, 0xb0); /* channel 2, mode 0 */
	outb(0x42, 23864 & 0xff);
	outb(0x42, 23864 >> 8);
	t0 = tsc();
	while (!(inb(0x61) & 0x20) && tsc() - t0 < UINT64_C(2000000000))
		;
	return (tsc() - t0) * 50;
}

uint64_t tsc_hz(void)
{
	static uint64_t hz;
	if (!hz)
		hz = arg_u64("tsc_khz", 0) * 1000;
	if (!hz)
		hz = measure();
	return hz;
}

static uint64_t boot_tsc;

uint64_t now_ns(void)
{
	return muldiv(tsc() - boot_tsc, 1000000000u, tsc_hz());
}

void wait_us(uint64_t us)
{
	uint64_t end = tsc() + us * (tsc_hz() / 1000000);
	while (tsc() < end)
		relax();
}

uint64_t rnd(void)
{
	static uint64_t s;
	if (!s)
		s = arg_u64("seed", 0) * 2 + 88172645463325253u;
	s ^= s << 13;
	s ^= s >> 7;
	s ^= s << 17;
	return s;
}

void guest_boot(void);
void guest_boot(void)
{
	boot_tsc = tsc();
	for (unsigned i = 0; i < 32; i++) {
		uint64_t h = (uint64_t)exception_stubs + i * 16;
		idt[i * 2] = (h & 0xffff) | 8u << 16 | UINT64_C(0x8e00) << 32 | (h >> 16 & 0xffff) << 48;
		idt[i * 2 + 1] = h >> 32;
	}
	guest_main();
	power_off();
}
