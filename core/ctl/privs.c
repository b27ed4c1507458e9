/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Giving privileges away. Capabilities belong to threads, and by now there are several, some of which block every signal:
 * each is made to drop its own in a handler of the signal that the C library keeps for itself and that nobody can block.
 */
#include "ctl/ctl.h"

#include <dirent.h>
#include <glib.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ctl/ctl-i.h"
#include "net/helper.h"
#include "plug/secret.h"
#include "util/log.h"
#include "util/loop.h"

#define SIG_DROP 33 /* glibc's SIGSETXID: pthread_sigmask and sigaction leave it alone */
#define CAP_LAST 63

/* The kernel's own struct, which is not the C library's. */
struct ksigaction {
	void (*handler)(int sig);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};
#define KSA_RESTORER 0x04000000UL

__asm__(".pushsection .text\n.type ctl_sigreturn,@function\nctl_sigreturn:\n\tmov $15,%eax\n\tsyscall\n"
	".size ctl_sigreturn,.-ctl_sigreturn\n.popsection");
extern void ctl_sigreturn(void) __attribute__((visibility("hidden")));

static atomic_uint dropped;
static atomic_int drop_error;

static int have_caps(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	return syscall(SYS_capget, &head, data) < 0 || data[0].permitted || data[1].permitted;
}

static int has_net_admin(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	return !syscall(SYS_capget, &head, data) && data[0].effective & 1U << CAP_NET_ADMIN;
}

/* What runs in the handler: only raw system calls, and nothing of a sanitizer's, which the signal may have interrupted. */
#define BARE __attribute__((no_sanitize("thread", "address")))

static BARE long sys(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = 0;
	long ret;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return ret;
}

static BARE void drop_own(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2] = { { 0 } };
	long r;

	for (long cap = 0; cap <= CAP_LAST; cap++)
		if (sys(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0) == -EINVAL)
			break; /* beyond the last one */
	sys(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0);
	r = sys(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0);
	if (!r)
		r = sys(SYS_capset, (long)&head, (long)none, 0, 0);
	if (r)
		atomic_store(&drop_error, (int)-r);
}

static BARE void on_signal(int sig)
{
	drop_own();
	atomic_fetch_add(&dropped, 1);
}

/* 1: it has none, or is gone. */
static int thread_is_bare(const char *tid)
{
	char path[64], line[128];
	unsigned long long caps = 0, set;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%.16s/status", tid);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT || errno == ESRCH;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "CapPrm: %llx", &set) == 1 || sscanf(line, "CapEff: %llx", &set) == 1)
			caps |= set;
	fclose(f);
	return !caps;
}

/* Signals every other thread that has capabilities. Returns how many there were. */
static int drop_others(struct vh_err *e)
{
	struct timespec nap = { .tv_nsec = 50000 };
	unsigned asked = 0, self = (unsigned)gettid();
	struct dirent *d;
	DIR *dir;

	dir = opendir("/proc/self/task");
	if (!dir)
		return err_set(e, -errno, "cannot list this process's threads: %s", g_strerror(errno));
	atomic_store(&dropped, 0);
	while ((d = readdir(dir))) {
		unsigned tid = (unsigned)strtoul(d->d_name, NULL, 10);

		if (!tid || tid == self || thread_is_bare(d->d_name))
			continue;
		asked += !syscall(SYS_tgkill, getpid(), tid, SIG_DROP);
	}
	closedir(dir);
	/* One that ends before it answers is seen at the next look. */
	for (int i = 0; i < 2000 && atomic_load(&dropped) < asked; i++)
		nanosleep(&nap, NULL);
	return (int)asked;
}

int ctl_drop_caps(struct vh_err *e)
{
	struct ksigaction act = { on_signal, SA_RESTART | SA_ONSTACK | KSA_RESTORER, ctl_sigreturn, ~UINT64_C(0) }, old;
	int r, tries;

	if (!have_caps())
		return 0;
	if (syscall(SYS_rt_sigaction, SIG_DROP, &act, &old, sizeof(act.mask)) < 0)
		return err_set(e, -errno, "cannot reach this process's threads: %s", g_strerror(errno));
	/* A thread that is made meanwhile has what its maker had: until one look finds nobody. */
	for (tries = 0; (r = drop_others(e)) > 0 && tries < 100; tries++)
		;
	drop_own();
	if (!r)
		r = drop_others(e);
	syscall(SYS_rt_sigaction, SIG_DROP, &old, NULL, sizeof(old.mask));
	if (r < 0)
		return r;
	if (r || atomic_load(&drop_error) || have_caps())
		return err_set(e, -EPERM, "this process's privileges cannot be dropped: %s",
			       atomic_load(&drop_error) ? g_strerror(atomic_load(&drop_error)) : "a thread does not answer");
	return 0;
}

int ctl_privs_prepare(unsigned n_nics, struct vh_err *e)
{
	return n_nics && has_net_admin() ? net_helper_start(e) : 0;
}

int ctl_privs_drop(struct vh_err *e)
{
	int r;

	secret_forget(); /* every image is open */
	if (net_helper_active()) {
		r = net_helper_seal(ctl_detached(), e);
		if (r < 0)
			return r;
	}
	if (!have_caps())
		return 0;
	/* No core file and no debugger of another user: guest memory is private. */
	prctl(PR_SET_DUMPABLE, 0);
	return ctl_drop_caps(e);
}

static void on_said(void *ctx, uint32_t events)
{
	struct vh_watch **w = ctx;

	/* Of a helper that has died nothing more comes. */
	if (net_helper_said() || !*w)
		return;
	loop_unwatch(*w);
	*w = NULL;
}

void ctl_privs_follow(struct vh_loop *l, struct vh_watch **out)
{
	int fd = net_helper_said_fd();

	*out = NULL;
	if (fd >= 0 && loop_watch(l, fd, VH_IN, on_said, out, out) < 0)
		log_warn("ctl", "what the network helper says is lost");
}

void ctl_privs_end(void)
{
	net_helper_end();
}
