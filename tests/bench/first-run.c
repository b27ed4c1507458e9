/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* LD_PRELOAD: writes CLOCK_MONOTONIC in ns to the file $FIRST_RUN when the process first enters the guest (KVM_RUN). */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static int seen;

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...);

int ioctl(int fd, unsigned long request, ...)
{
	static int (*real)(int, unsigned long, ...);
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == KVM_RUN && !__atomic_exchange_n(&seen, 1, __ATOMIC_RELAXED)) {
		const char *path = getenv("FIRST_RUN");
		struct timespec t;
		char text[32];
		int out, n;
		clock_gettime(CLOCK_MONOTONIC, &t);
		n = snprintf(text, sizeof text, "%lld\n", (long long)t.tv_sec * 1000000000 + t.tv_nsec);
		out = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
		if (out >= 0 && write(out, text, (size_t)n) == n)
			close(out);
	}
	if (!real)
		real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	return real(fd, request, arg);
}
