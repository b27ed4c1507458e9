/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The VM's life on the machine's /dev/kvm, with a guest of a few bytes that reads and writes ports for ever. */
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vm/vm-i.h"

#define CODE 0x200000u
#define PORT 0x510u

struct state {
	struct vm *v;
	struct bus_region r;
	uint64_t writes; /* atomic */
	int events[5];   /* atomic */
	uint32_t last;
};

static void port_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct state *s = ctx;
	__atomic_add_fetch(&s->writes, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&s->last, *(const uint8_t *)data, __ATOMIC_SEQ_CST);
}

static void port_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	memset(data, 0x42, len);
}

static const struct bus_ops ops = {port_read, port_write};

static void on_event(void *ctx, enum vm_event ev, const char *text)
{
	__atomic_add_fetch(&((struct state *)ctx)->events[ev], 1, __ATOMIC_SEQ_CST);
}

static int have_kvm(void)
{
	if (!access("/dev/kvm", R_OK | W_OK))
		return 1;
	g_test_skip("/dev/kvm is not there or may not be opened");
	return 0;
}

/* 32-bit code at CODE, started as PVH does. */
static void start(struct state *s, unsigned cpus, const char *code, size_t len)
{
	struct vm_config c = {.cpus = cpus, .mem = {.bytes = 16 << 20}, .event = on_event, .event_ctx = s};
	static const uint64_t gdt[] = {0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067};
	struct vm_boot b = {.mode = VM_BOOT_PVH32, .rip = CODE, .rbx = 0x1234, .gdt = 0x1000, .gdt_limit = sizeof gdt - 1};
	struct vh_err e = {0};

	memset(s, 0, sizeof *s);
	if (vm_new(&c, &s->v, &e) || vm_ready(s->v, &e))
		g_error("%s", e.cause);
	s->r = (struct bus_region){.base = PORT, .len = 4, .ops = &ops, .ctx = s};
	g_assert_cmpint(bus_add(vm_pio(s->v), &s->r), ==, 0);
	memcpy(mem_ptr(vm_mem(s->v), 0x1000, sizeof gdt), gdt, sizeof gdt);
	memcpy(mem_ptr(vm_mem(s->v), CODE, len), code, len);
	vm_set_boot(s->v, &b);
	if (vm_start(s->v, &e))
		g_error("%s", e.cause);
}

static void finish(struct state *s)
{
	vm_stop(s->v);
	bus_remove(vm_pio(s->v), &s->r);
	vm_free(s->v);
}

static void wait_for(uint64_t *n, uint64_t at_least)
{
	gint64 end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
	while (__atomic_load_n(n, __ATOMIC_SEQ_CST) < at_least && g_get_monotonic_time() < end)
		g_usleep(200);
	g_assert_cmpuint(__atomic_load_n(n, __ATOMIC_SEQ_CST), >=, at_least);
}

static void wait_event(struct state *s, enum vm_event ev)
{
	gint64 end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
	while (!__atomic_load_n(&s->events[ev], __ATOMIC_SEQ_CST) && g_get_monotonic_time() < end)
		g_usleep(200);
	g_assert_cmpint(__atomic_load_n(&s->events[ev], __ATOMIC_SEQ_CST), ==, 1);
}

/* mov dx, PORT; again: out dx, al; in al, dx; jmp again */
static const char loop_code[] = "\x66\xba\x10\x05\xee\xec\xeb\xfc";
/* mov al, [mem]; inc; mov [mem], al; out: counts boots in memory, then for ever in ports */

static void test_pause_resume(void)
{
	struct state s;
	if (!have_kvm())
		return;
	start(&s, 1, loop_code, sizeof loop_code);
	wait_for(&s.writes, 10);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t n;
		vm_pause(s.v);
		n = __atomic_load_n(&s.writes, __ATOMIC_SEQ_CST);
		if (i % 20 == 0)
			g_usleep(2000);
		g_assert_cmpuint(__atomic_load_n(&s.writes, __ATOMIC_SEQ_CST), ==, n);
		vm_resume(s.v);
		if (i % 10 == 0)
			wait_for(&s.writes, n + 2);
	}
	finish(&s);
}

/* The half-finished port read of a paused vCPU must not reach into the state that a reset sets. */
static void test_reset(void)
{
	/* mov dx, PORT; mov al, 7; out dx, al; again: in al, dx; inc eax; out dx, al; jmp again */
	static const char code[] = "\x66\xba\x10\x05\xb0\x07\xee\xec\x40\xee\xeb\xfb";
	struct state s;
	struct vh_err e = {0};

	if (!have_kvm())
		return;
	start(&s, 1, code, sizeof code);
	for (unsigned i = 0; i < 100; i++) {
		wait_for(&s.writes, 2);
		vm_pause(s.v);
		g_assert_cmpint(vm_reset(s.v, &e), ==, 0);
		__atomic_store_n(&s.writes, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&s.last, 0, __ATOMIC_SEQ_CST);
		vm_resume(s.v);
		wait_for(&s.writes, 1);
		vm_pause(s.v); /* whatever was written: 7 first, then 0x43 */
		g_assert_true(s.last == 7 || s.last == 0x43);
		vm_resume(s.v);
	}
	finish(&s);
}

static void test_stop_at_once(void)
{
	struct state s;
	if (!have_kvm())
		return;
	for (unsigned i = 0; i < 10; i++) {
		start(&s, 1 + i % 3, loop_code, sizeof loop_code);
		finish(&s);
	}
	start(&s, 1, "\xfa\xf4\xeb\xfd", 4); /* cli; hlt */
	g_usleep(50000);
	vm_pause(s.v);
	struct vm_cpu_stats st;
	vm_vcpu_stats(s.v, 0, &st);
	g_test_message("halts: %lu", st.halts);
	finish(&s); /* from the pause */
}

static void test_overcommit(void)
{
	struct state s;
	if (!have_kvm())
		return;
	start(&s, 12, loop_code, sizeof loop_code);
	g_assert_cmpuint(vm_cpus(s.v), ==, 12);
	wait_for(&s.writes, 100);
	for (unsigned i = 0; i < 20; i++) {
		vm_pause(s.v);
		vm_resume(s.v);
	}
	for (unsigned i = 0; i < 12; i++)
		g_assert_cmpint(vm_vcpu_tid(s.v, i), >, 0);
	struct vm_cpu_stats st;
	vm_vcpu_stats(s.v, 0, &st);
	g_assert_cmpuint(st.io, >=, 100);
	finish(&s);
}

static void test_triple_fault(void)
{
	struct state s;
	if (!have_kvm())
		return;
	start(&s, 1, "\x0f\x0b", 2); /* ud2 without an IDT */
	wait_event(&s, VM_TRIPLE_FAULT);
	vm_pause(s.v); /* the vCPU stays parked: one event, not a thousand */
	vm_resume(s.v);
	g_usleep(20000);
	g_assert_cmpint(s.events[VM_TRIPLE_FAULT], ==, 1);
	finish(&s);
}

static void test_first_event_stands(void)
{
	struct state s;
	struct vh_err e = {0};
	if (!have_kvm())
		return;
	start(&s, 1, loop_code, sizeof loop_code);
	vm_post_event(s.v, VM_RESET, "one");
	vm_post_event(s.v, VM_SHUTDOWN, "two");
	g_assert_cmpint(s.events[VM_RESET], ==, 1);
	g_assert_cmpint(s.events[VM_SHUTDOWN], ==, 0);
	vm_pause(s.v);
	g_assert_cmpint(vm_reset(s.v, &e), ==, 0);
	vm_resume(s.v);
	vm_post_event(s.v, VM_SHUTDOWN, "three");
	g_assert_cmpint(s.events[VM_SHUTDOWN], ==, 1);
	finish(&s);
}

static gpointer poster(gpointer p)
{
	struct state *s = p;
	for (unsigned i = 0; i < 300; i++) {
		vm_irq_line(s->v, 4, i & 1);
		g_usleep(50);
	}
	return NULL;
}

/* The boot CPU's APIC accepts interrupts; they stay pending, since the guest runs with interrupts off. */
static void enable_apic(struct state *s)
{
	struct kvm_lapic_state l;
	vm_pause(s->v);
	g_assert_cmpint(ioctl(s->v->vcpu[0].fd, KVM_GET_LAPIC, &l), ==, 0);
	memcpy(l.regs + 0xf0, "\xff\x01\0\0", 4);
	g_assert_cmpint(ioctl(s->v->vcpu[0].fd, KVM_SET_LAPIC, &l), ==, 0);
	vm_resume(s->v);
}

static void wait_irr(struct state *s, unsigned vector)
{
	struct kvm_lapic_state l;
	for (unsigned i = 0; i < 2000; i++) {
		vm_pause(s->v);
		g_assert_cmpint(ioctl(s->v->vcpu[0].fd, KVM_GET_LAPIC, &l), ==, 0);
		vm_resume(s->v);
		if (l.regs[0x200 + vector / 32 * 16 + vector % 32 / 8] >> vector % 8 & 1)
			return;
		g_usleep(1000);
	}
	g_error("interrupt %#x did not arrive", vector);
}

static void test_msi(void)
{
	struct state s;
	struct vm_msi *m[40];
	struct vh_err e = {0};
	GThread *t;

	if (!have_kvm())
		return;
	start(&s, 2, loop_code, sizeof loop_code);
	enable_apic(&s);
	t = g_thread_new("irq", poster, &s);
	for (unsigned i = 0; i < 40; i++) {
		g_assert_cmpint(vm_msi_new(s.v, &m[i], &e), ==, 0);
		vm_msi_signal(m[i]); /* without a message: dropped */
		g_assert_cmpint(vm_msi_set(m[i], 0xfee00000, 0x40 + i), ==, 0);
	}
	for (unsigned i = 0; i < 40; i++)
		vm_msi_signal(m[i]);
	for (unsigned i = 0; i < 40; i++)
		wait_irr(&s, 0x40 + i);
	int fd = vm_msi_fd(m[3]);
	uint64_t one = 1;
	g_assert_cmpint(vm_msi_set(m[3], 0, 0), ==, 0); /* masked: the signal waits in the eventfd */
	g_assert_cmpint(write(fd, &one, 8), ==, 8);
	struct pollfd p = {fd, POLLIN, 0};
	g_assert_cmpint(poll(&p, 1, 0), ==, 1);
	g_assert_cmpint(vm_msi_set(m[3], 0xfee00000, 0x99), ==, 0);
	wait_irr(&s, 0x99);
	g_assert_cmpint(vm_msi_set(m[3], 0xfee00000, 0x9a), ==, 0); /* moves to another vector */
	g_assert_cmpint(write(fd, &one, 8), ==, 8);
	wait_irr(&s, 0x9a);
	g_thread_join(t);
	for (unsigned i = 0; i < 40; i++)
		vm_msi_free(m[i]);
	g_assert_cmpint(vm_msi_new(s.v, &m[0], &e), ==, 0); /* GSIs are used again */
	vm_msi_free(m[0]);
	finish(&s);
}

static void test_doorbell(void)
{
	struct state s;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	uint64_t n;

	if (!have_kvm())
		return;
	start(&s, 1, loop_code, sizeof loop_code);
	g_assert_cmpint(vm_ioeventfd(s.v, PORT, 1, 1, fd, 1), ==, 0);
	struct pollfd p = {fd, POLLIN, 0};
	g_assert_cmpint(poll(&p, 1, 10000), ==, 1);
	g_assert_cmpint(vm_ioeventfd(s.v, PORT, 1, 1, fd, 0), ==, 0);
	g_assert_cmpint(read(fd, &n, 8), ==, 8);
	finish(&s);
	close(fd);
}

static void test_refused(void)
{
	struct vm_config c = {.cpus = 0, .mem = {.bytes = 16 << 20}};
	struct vh_err e = {0};
	struct vm *v;
	int pin[2] = {0, 9999};

	if (!have_kvm())
		return;
	g_assert_cmpint(vm_new(&c, &v, &e), <, 0);
	err_clear(&e);
	c.cpus = 4096;
	if (!vm_new(&c, &v, &e)) {
		g_assert_cmpint(vm_ready(v, &e), <, 0);
		g_assert_nonnull(strstr(e.cause, "KVM allows"));
		vm_free(v);
	}
	err_clear(&e);
	c.cpus = 2;
	c.pin = pin;
	g_assert_cmpint(vm_new(&c, &v, &e), ==, 0);
	g_assert_cmpint(vm_start(v, &e), <, 0);
	g_assert_nonnull(strstr(e.cause, "pinned"));
	err_clear(&e);
	vm_free(v);
}

static void test_probe(void)
{
	struct vm_probe p;
	struct vh_err e = {0};
	if (!have_kvm())
		return;
	g_assert_cmpint(vm_probe(&p, &e), ==, 0);
	g_assert_cmpint(p.api, ==, 12);
	g_assert_cmpint(p.emulated_ring0, ==, !p.hw_virt);
	g_test_message("%s", p.text);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/vm/pause-stops-every-vcpu", test_pause_resume);
	g_test_add_func("/vm/reset-in-place", test_reset);
	g_test_add_func("/vm/stop-at-once", test_stop_at_once);
	g_test_add_func("/vm/more-vcpus-than-cores", test_overcommit);
	g_test_add_func("/vm/triple-fault-once", test_triple_fault);
	g_test_add_func("/vm/first-event-stands", test_first_event_stands);
	g_test_add_func("/vm/msi-routes-and-masks", test_msi);
	g_test_add_func("/vm/doorbell", test_doorbell);
	g_test_add_func("/vm/refused", test_refused);
	g_test_add_func("/vm/probe", test_probe);
	return g_test_run();
}
