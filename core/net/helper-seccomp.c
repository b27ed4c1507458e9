/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The sealed helper: one capability, and the system calls that netlink, a tap's fds, the journal and malloc need. */
#include "net/helper.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARG(n) ((uint32_t)offsetof(struct seccomp_data, args[n]))
#define LOAD(off) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (off))
#define RET(v) BPF_STMT(BPF_RET | BPF_K, (v))
#define DENY RET(SECCOMP_RET_ERRNO | EPERM)
#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 1), RET(SECCOMP_RET_ALLOW)
/* Only when argument n equals v, or has no bit of v. */
#define ALLOW_ARG(nr, n, v)                                                                                          \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 4), LOAD(ARG(n)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (v), 0, 1), \
		RET(SECCOMP_RET_ALLOW), DENY
#define ALLOW_WITHOUT(nr, n, v)                                                                                       \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (nr), 0, 4), LOAD(ARG(n)), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (v), 1, 0), \
		RET(SECCOMP_RET_ALLOW), DENY

static const struct sock_filter filter[] = {
	LOAD((uint32_t)offsetof(struct seccomp_data, arch)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
	RET(SECCOMP_RET_KILL_PROCESS),
	LOAD((uint32_t)offsetof(struct seccomp_data, nr)),
	/* its socket, netlink */
	ALLOW(SYS_recvmsg), ALLOW(SYS_recvfrom), ALLOW(SYS_sendmsg), ALLOW(SYS_sendto), ALLOW(SYS_setsockopt),
	ALLOW_ARG(SYS_socket, 0, AF_NETLINK),
	/* the journal, its lock, the log */
	ALLOW(SYS_openat), ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_writev), ALLOW(SYS_close), ALLOW(SYS_flock), ALLOW(SYS_unlink),
	ALLOW(SYS_unlinkat), ALLOW(SYS_fstat), ALLOW(SYS_newfstatat), ALLOW(SYS_fcntl), ALLOW(SYS_ioctl), ALLOW(SYS_lseek),
	/* waiting and time */
	ALLOW(SYS_nanosleep), ALLOW(SYS_clock_nanosleep), ALLOW(SYS_clock_gettime), ALLOW(SYS_gettimeofday), ALLOW(SYS_futex), ALLOW(SYS_poll),
	ALLOW(SYS_ppoll), ALLOW(SYS_sched_yield), ALLOW(SYS_restart_syscall),
	/* memory, never executable */
	ALLOW(SYS_brk), ALLOW(SYS_munmap), ALLOW(SYS_mremap), ALLOW(SYS_madvise),
	ALLOW_WITHOUT(SYS_mmap, 2, PROT_EXEC), ALLOW_WITHOUT(SYS_mprotect, 2, PROT_EXEC),
	/* itself and its end */
	ALLOW(SYS_getpid), ALLOW(SYS_gettid), ALLOW(SYS_getrandom), ALLOW(SYS_rt_sigprocmask), ALLOW(SYS_rt_sigreturn),
	ALLOW(SYS_rt_sigaction), ALLOW(SYS_sigaltstack), ALLOW(SYS_exit), ALLOW(SYS_exit_group),
	DENY,
};

int net_helper_confine(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { 0 } };
	struct sock_fprog prog = { sizeof(filter) / sizeof(filter[0]), (struct sock_filter *)filter };

	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (cap != CAP_NET_ADMIN)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	data[0].permitted = data[0].effective = 1U << CAP_NET_ADMIN;
	if (syscall(SYS_capset, &head, data) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return -errno;
	return 0;
}
