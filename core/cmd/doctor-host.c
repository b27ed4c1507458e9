/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* KVM, the kernel, and the limits of the process. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "cmd/doctor.h"
#include "util/parse.h"
#include "vm/vm.h"

static const struct { int cap; const char *name, *lost; int vital; } kvm_caps[] = {
	{KVM_CAP_IRQCHIP, "IRQCHIP", "in-kernel interrupt controllers", 1},
	{KVM_CAP_USER_MEMORY, "USER_MEMORY", "guest memory", 1},
	{KVM_CAP_IRQFD, "IRQFD", "interrupts from other processes and threads", 1},
	{KVM_CAP_IOEVENTFD, "IOEVENTFD", "doorbells without exits", 1},
	{KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING", "MSI routes", 1},
	{KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI", "MSI", 1},
	{KVM_CAP_ADJUST_CLOCK, "ADJUST_CLOCK", "a steady guest clock over pauses", 0},
	{KVM_CAP_KVMCLOCK_CTRL, "KVMCLOCK_CTRL", "quiet guest watchdogs after pauses", 0},
	{KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT", "stopping vCPUs without losing a signal", 0},
};

void doctor_kvm(struct doctor *d)
{
	struct vm_probe p;
	struct utsname u;
	ERR_AUTO(e);
	int fd;

	if (uname(&u) == 0)
		doctor_add(d, DOCTOR_OK, "kernel", NULL, "%s %s, %s", u.sysname, u.release, u.machine);
	if (vm_probe(&p, &e)) {
		g_autofree char *remedy = NULL, *at = doctor_blocked("/dev/kvm", R_OK | W_OK, &remedy);

		/* A folder on the way that refuses is another matter than the device itself. */
		int on_way = at && !g_str_has_prefix(at, "/dev/kvm:");

		doctor_add(d, DOCTOR_PROBLEM, "kvm", on_way ? remedy : e.remedy, "/dev/kvm %s%s%s", e.cause ? e.cause : "is unusable",
			   on_way ? ", because of " : "", on_way ? at : "");
		return;
	}
	if (p.emulated_ring0)
		doctor_add(d, DOCTOR_NOTE, "kvm", "use a machine with VT-x or AMD-V (in a VM: nested virtualisation), or the lab VM of vhost's sources: ./vh lab",
			   "%s", p.text);
	else
		doctor_add(d, DOCTOR_OK, "kvm", NULL, "%s", p.text);
	if (p.api != KVM_API_VERSION)
		doctor_add(d, DOCTOR_PROBLEM, "kvm", "use another kernel", "its API version is %d, not %d", p.api, KVM_API_VERSION);
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	for (unsigned i = 0; fd >= 0 && i < G_N_ELEMENTS(kvm_caps); i++)
		if (ioctl(fd, KVM_CHECK_EXTENSION, kvm_caps[i].cap) <= 0)
			doctor_add(d, kvm_caps[i].vital ? DOCTOR_PROBLEM : DOCTOR_NOTE, "kvm", "use a newer kernel",
				   "KVM_CAP_%s is missing: no %s", kvm_caps[i].name, kvm_caps[i].lost);
	if (fd >= 0) {
		int most = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS), good = ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS);

		doctor_add(d, DOCTOR_OK, "kvm", NULL, "up to %d vCPUs per VM (%d recommended)", most, good);
		close(fd);
	}
}

/* The first number in a file; -1: it is not there. */
static int64_t number_in(const char *path)
{
	g_autofree char *text = NULL;

	return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoll(text, NULL, 10) : -1;
}

static char *limit_text(rlim_t n)
{
	return n == RLIM_INFINITY ? g_strdup("unlimited") : format_size(n);
}

static void uring(struct doctor *d)
{
	int64_t off = number_in("/proc/sys/kernel/io_uring_disabled");
	long r;

	if (off > 0) {
		doctor_add(d, DOCTOR_NOTE, "io_uring", "sysctl kernel.io_uring_disabled=0, or leave engine=uring alone",
			   "is switched off%s (io_uring_disabled = %d): disks use libaio", off == 1 ? " for unprivileged users" : "",
			   (int)off);
		return;
	}
	r = syscall(SYS_io_uring_setup, 0, NULL); /* EINVAL or EFAULT where it exists */
	if (r < 0 && (errno == ENOSYS || errno == EPERM))
		doctor_add(d, DOCTOR_NOTE, "io_uring", "leave engine=uring alone, or use a kernel and a container that allow it",
			   "is not available (%s): disks use libaio", g_strerror(errno));
	else
		doctor_add(d, DOCTOR_OK, "io_uring", NULL, "available (engine=uring)");
}

void doctor_limits(struct doctor *d)
{
	int64_t max = number_in("/proc/sys/fs/aio-max-nr"), used = number_in("/proc/sys/fs/aio-nr");
	struct rlimit r;

	/* A queue of a disk takes its depth, 128 to 256. */
	if (max < 0)
		doctor_add(d, DOCTOR_NOTE, "aio", "use a kernel with CONFIG_AIO", "the kernel has no libaio: disks use threads");
	else if (max - used < 4096)
		doctor_add(d, DOCTOR_NOTE, "aio", "sysctl fs.aio-max-nr=1048576", "%" G_GINT64_FORMAT " of %" G_GINT64_FORMAT
			   " requests are taken (fs.aio-nr): further disks fall back to threads", used, max);
	else
		doctor_add(d, DOCTOR_OK, "aio", NULL, "%" G_GINT64_FORMAT " of %" G_GINT64_FORMAT " requests are taken", used, max);
	uring(d);
	if (getrlimit(RLIMIT_MEMLOCK, &r) == 0) {
		g_autofree char *text = limit_text(r.rlim_cur);

		if (geteuid() && r.rlim_cur != RLIM_INFINITY && r.rlim_cur < 64 << 20)
			doctor_add(d, DOCTOR_NOTE, "memlock", "raise it in /etc/security/limits.conf, or LimitMEMLOCK= of the unit",
				   "%s may be locked: not enough for locked guest memory and registered buffers", text);
		else
			doctor_add(d, DOCTOR_OK, "memlock", NULL, "%s may be locked%s", text,
				   geteuid() ? "" : " (root is not bound by it)");
	}
	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		if (r.rlim_max < 4096)
			doctor_add(d, DOCTOR_NOTE, "nofile", "raise it in /etc/security/limits.conf, or LimitNOFILE= of the unit",
				   "at most %llu open files: too few for VMs with many queues", (unsigned long long)r.rlim_max);
		else
			doctor_add(d, DOCTOR_OK, "nofile", NULL, "up to %llu open files", (unsigned long long)r.rlim_max);
	}
	if (number_in("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages") <= 0)
		doctor_add(d, DOCTOR_OK, "hugepages", NULL, "none are reserved: --memory with hugepages does not work, "
			   "transparent ones do not need it");
}
