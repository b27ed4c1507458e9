/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What kind of KVM this machine has. */
#include "vm/vm-i.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int has_word(const char *line, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = line; (p = strstr(p, word)); p += n)
		if ((p == line || p[-1] == ' ' || p[-1] == '\t') && (p[n] == ' ' || p[n] == '\n' || !p[n]))
			return 1;
	return 0;
}

static void cpu_flags(struct vm_probe *p)
{
	char *line = NULL;
	size_t room = 0;
	FILE *f = fopen("/proc/cpuinfo", "re");

	while (f && getline(&line, &room, f) > 0)
		if (!strncmp(line, "flags", 5)) {
			p->hw_virt = has_word(line, "vmx") || has_word(line, "svm");
			p->nested = has_word(line, "hypervisor");
			break;
		}
	free(line);
	if (f)
		fclose(f);
}

int vm_probe(struct vm_probe *out, struct vh_err *e)
{
	int fd, r;

	*out = (struct vm_probe){0};
	cpu_flags(out);
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		r = -errno;
		err_object(e, "/dev/kvm");
		err_set(e, r, "cannot be opened: %s", strerror(-r));
		err_remedy(e, r == -EACCES ? "add the user to the group kvm" : "enable virtualisation in the firmware and load kvm_intel or kvm_amd");
		return r;
	}
	out->api = ioctl_retry(fd, KVM_GET_API_VERSION, NULL);
	close(fd);
	/* KVM without VT-x or AMD-V is PVM: it runs the guest's kernel in its instruction emulator. */
	out->emulated_ring0 = !out->hw_virt;
	if (out->emulated_ring0)
		out->nested = 0;
	snprintf(out->text, sizeof out->text, "%s",
		 out->emulated_ring0 ? "KVM without VT-x or AMD-V (PVM): ring 0 is emulated and slow, ordinary kernels do not boot" :
		 out->nested	     ? "KVM on virtualised VT-x or AMD-V (nested): slower exits than on hardware" :
				       "KVM on VT-x or AMD-V hardware");
	return 0;
}
