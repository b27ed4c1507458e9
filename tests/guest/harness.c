/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The machine without disks, nets and plugins: boots a kernel with the serial port on standard output. For tests of
 * core/vm, core/boot and the platform. Exit status: 0 power-off, 10 reset, 11 panic, 12 triple fault, 1 error, 124 too long.
 */
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "boot/boot.h"
#include "dev/platform.h"
#include "util/log.h"

struct machine {
	int wake;
	enum vm_event ev; /* valid once wake is signalled */
	char text[400];
};

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void on_event(void *ctx, enum vm_event ev, const char *text)
{
	struct machine *m = ctx;
	uint64_t one = 1;
	m->ev = ev;
	snprintf(m->text, sizeof m->text, "%s", text ? text : "");
	if (write(m->wake, &one, sizeof one) < 0)
		_exit(1);
}

static void on_serial(void *ctx, const void *data, size_t len)
{
	if (write(STDOUT_FILENO, data, len) < 0)
		_exit(1);
}

struct input { struct serial *s; const char *left; };

static void feed(void *ctx)
{
	struct input *in = ctx;
	in->left += serial_input(in->s, in->left, strlen(in->left));
}

static const struct option options[] = {
	{"kernel", 1, NULL, 'k'}, {"initrd", 1, NULL, 'i'}, {"cmdline", 1, NULL, 'c'}, {"cpus", 1, NULL, 'n'}, {"memory", 1, NULL, 'm'},
	{"protocol", 1, NULL, 'p'}, {"reboots", 1, NULL, 'r'}, {"limit", 1, NULL, 't'}, {"pause-every", 1, NULL, 'P'}, {"button-after", 1, NULL, 'b'},
	{"thp", 0, NULL, 'T'}, {"timing", 0, NULL, 'v'}, {"input", 1, NULL, 'I'}, {0}};

int main(int argc, char **argv)
{
	struct machine m = {.wake = eventfd(0, EFD_CLOEXEC)};
	struct vm_config c = {.cpus = 1, .mem = {.bytes = UINT64_C(128) << 20}, .event = on_event, .event_ctx = &m};
	struct boot_config bc = {0};
	struct boot_image *image = NULL;
	struct vm *v = NULL;
	struct pci_host *pci = NULL;
	struct platform *plat = NULL;
	struct serial *serial = NULL;
	struct vm_boot boot;
	struct vh_err e = {0};
	int reboots = 0, limit = 60, pause_every = 0, button = -1, timing = 0, o, status = 1;
	struct input input = {0};
	uint64_t start = now_us(), begin;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (o) {
		case 'k': bc.kernel = optarg; break;
		case 'i': bc.initrd = optarg; break;
		case 'c': bc.cmdline = optarg; break;
		case 'n': c.cpus = (unsigned)atoi(optarg); break;
		case 'm': c.mem.bytes = strtoull(optarg, NULL, 0) << 20; break;
		case 'p': bc.protocol = !strcmp(optarg, "pvh") ? BOOT_PVH : !strcmp(optarg, "linux64") ? BOOT_LINUX64 : BOOT_AUTO; break;
		case 'r': reboots = atoi(optarg); break;
		case 't': limit = atoi(optarg); break;
		case 'P': pause_every = atoi(optarg); break;
		case 'b': button = atoi(optarg); break;
		case 'I': input.left = optarg; break;
		case 'T': c.mem.thp = 1; break;
		case 'v': timing = 1; break;
		default: return 2;
		}
	if (!bc.kernel)
		return 2;
	if (vm_new(&c, &v, &e) || boot_open(&bc, &image, &e) || pci_host_new(v, &pci, &e) || platform_new(v, &plat, &e) ||
	    serial_new(v, on_serial, NULL, &serial, &e) || boot_load(image, v, pci, &boot, &e))
		goto out;
	if (timing)
		fprintf(stderr, "harness: loaded after %llu us\n", (unsigned long long)(now_us() - start));
	if (vm_ready(v, &e))
		goto out;
	if (input.left) {
		input.s = serial;
		serial_on_room(serial, feed, &input);
		feed(&input);
	}
	vm_set_boot(v, &boot);
	if (vm_start(v, &e))
		goto out;
	if (timing)
		fprintf(stderr, "harness: started after %llu us\n", (unsigned long long)(now_us() - start));
	begin = now_us();
	for (;;) {
		struct pollfd p = {m.wake, POLLIN, 0};
		uint64_t n;
		int r = poll(&p, 1, pause_every ? pause_every : 100);
		if (now_us() - begin > (uint64_t)limit * 1000000u) {
			fprintf(stderr, "harness: past %d s\n", limit);
			for (unsigned i = 0; i < c.cpus; i++) {
				struct vm_cpu_stats s;
				vm_vcpu_stats(v, i, &s);
				fprintf(stderr, "harness: vCPU %u: %llu exits, %llu port, %llu MMIO\n", i, (unsigned long long)s.exits,
					(unsigned long long)s.io, (unsigned long long)s.mmio);
			}
			status = 124;
			goto out;
		}
		if (r == 0) {
			if (pause_every) {
				vm_pause(v);
				vm_resume(v);
			}
			if (button >= 0 && now_us() - begin > (uint64_t)button * 1000u && platform_acpi_enabled(plat)) {
				platform_power_button(plat);
				button = -1;
			}
			continue;
		}
		if (read(m.wake, &n, sizeof n) < 0)
			goto out;
		fprintf(stderr, "harness: %s\n", m.text);
		if (m.ev == VM_RESET && reboots-- > 0) {
			vm_pause(v);
			platform_reset(plat);
			serial_reset(serial);
			pci_host_reset(pci);
			if (mem_zero_all(vm_mem(v)) < 0 || boot_load(image, v, pci, &boot, &e))
				goto out;
			vm_set_boot(v, &boot);
			if (vm_reset(v, &e))
				goto out;
			vm_resume(v);
			continue;
		}
		status = m.ev == VM_SHUTDOWN ? 0 : m.ev == VM_RESET ? 10 : m.ev == VM_PANIC ? 11 : m.ev == VM_TRIPLE_FAULT ? 12 : 1;
		goto out;
	}
out:
	if (e.code)
		status = err_report(&e, 0);
	if (v)
		vm_stop(v);
	if (timing)
		fprintf(stderr, "harness: stopped after %llu us\n", (unsigned long long)(now_us() - start));
	serial_free(serial);
	platform_free(plat);
	pci_host_free(pci);
	boot_close(image);
	vm_free(v);
	err_clear(&e);
	if (timing)
		fprintf(stderr, "harness: freed after %llu us\n", (unsigned long long)(now_us() - start));
	return status;
}
