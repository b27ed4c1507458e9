/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The register state of vCPUs and interrupt controllers: as KVM made it, back to that, and the boot CPU's entry state. */
#include "vm/vm-i.h"

#include <stdlib.h>
#include <string.h>

#include "util/log.h"

#define MSR_TSC 0x10
#define MSR_TSC_ADJUST 0x3b
#define MSR_MISC_ENABLE 0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_ON_WRITE_BACK 0x806
#define RFLAGS_1 2u

void state_set_msrs(struct vcpu *c, const struct kvm_msrs *all)
{
	struct { struct kvm_msrs h; struct kvm_msr_entry e[1]; } one = {.h.nmsrs = 1};
	struct kvm_msrs *part;
	int r = ioctl(c->fd, KVM_SET_MSRS, all);

	if (r == (int)all->nmsrs)
		return;
	/* KVM stops at the first that it refuses: some are listed that cannot be set. Go on with each of the rest. */
	part = (struct kvm_msrs *)&one;
	for (unsigned i = r < 0 ? 0 : (unsigned)r; i < all->nmsrs; i++) {
		one.e[0] = all->entries[i];
		if (ioctl(c->fd, KVM_SET_MSRS, part) != 1)
			log_debug("vm", "KVM does not let MSR %#x be set to %#llx", all->entries[i].index,
				  (unsigned long long)all->entries[i].data);
	}
}

/* The MTRRs say write-back, else Linux does not use PAT; fast strings are on. KVMs without these do without. */
static void set_first_msrs(struct vcpu *c)
{
	struct { struct kvm_msrs h; struct kvm_msr_entry e[2]; } m = {
		.h.nmsrs = 2, .e = {{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ON_WRITE_BACK}, {.index = MSR_MISC_ENABLE, .data = 1}}};
	state_set_msrs(c, (struct kvm_msrs *)&m);
}

/* The MSRs of KVM's list that can be read, less those that a reset must leave alone. */
static int save_msrs(struct vm *v)
{
	struct kvm_msr_list probe = {0}, *list;
	unsigned n = 0;

	if (ioctl(v->kvm, KVM_GET_MSR_INDEX_LIST, &probe) < 0 && errno != E2BIG)
		probe.nmsrs = 0;
	if (probe.nmsrs > 4096)
		probe.nmsrs = 4096;
	list = calloc(1, sizeof *list + (probe.nmsrs + 1) * sizeof list->indices[0]);
	v->msrs = calloc(1, sizeof *v->msrs + (probe.nmsrs + 1) * sizeof v->msrs->entries[0]);
	if (!list || !v->msrs) {
		free(list);
		return -ENOMEM;
	}
	list->nmsrs = probe.nmsrs;
	if (list->nmsrs && ioctl(v->kvm, KVM_GET_MSR_INDEX_LIST, list) < 0)
		list->nmsrs = 0;
	for (unsigned i = 0; i < list->nmsrs; i++)
		if (list->indices[i] != MSR_TSC) /* writing it makes KVM re-synchronise the vCPUs' clocks */
			v->msrs->entries[n++].index = list->indices[i];
	v->msrs->nmsrs = n;
	free(list);
	for (unsigned from = 0; from < n;) {
		struct { struct kvm_msrs h; struct kvm_msr_entry e[1]; } one = {.h.nmsrs = 1};
		if (!from) { /* all at once where KVM can read every one */
			int r = ioctl(v->vcpu[0].fd, KVM_GET_MSRS, v->msrs);
			from = r > 0 ? (unsigned)r : 0;
			if (from == n)
				break;
		}
		one.e[0].index = v->msrs->entries[from].index;
		if (ioctl(v->vcpu[0].fd, KVM_GET_MSRS, &one) == 1) {
			v->msrs->entries[from++].data = one.e[0].data;
		} else {
			memmove(&v->msrs->entries[from], &v->msrs->entries[from + 1], (n - from - 1) * sizeof v->msrs->entries[0]);
			v->msrs->nmsrs = --n;
			if (!from && n)
				continue;
		}
	}
	return 0;
}

int state_save(struct vm *v, struct vh_err *e)
{
	int r;

	for (unsigned i = 0; i < v->n; i++) {
		struct vcpu *c = &v->vcpu[i];
		r = ioctl_retry(c->fd, KVM_GET_SREGS, &c->initial.sregs);
		if (!r)
			r = ioctl_retry(c->fd, KVM_GET_LAPIC, &c->initial.lapic);
		if (r < 0)
			return err_set(e, r, "KVM does not tell the state of vCPU %u: %s", i, strerror(-r));
		set_first_msrs(c);
	}
	if (save_msrs(v))
		return err_set(e, -ENOMEM, "out of memory");
	v->have_chip = 1;
	for (unsigned i = 0; i < 3; i++) {
		v->chip[i].chip_id = i;
		if (ioctl_retry(v->fd, KVM_GET_IRQCHIP, &v->chip[i]) < 0)
			v->have_chip = 0;
	}
	if (v->have_pit && ioctl_retry(v->fd, KVM_GET_PIT2, &v->pit) < 0)
		v->have_pit = 0;
	return 0;
}

int state_reset_chips(struct vm *v, struct vh_err *e)
{
	int r = 0;
	for (unsigned i = 0; v->have_chip && i < 3 && r >= 0; i++)
		r = ioctl_retry(v->fd, KVM_SET_IRQCHIP, &v->chip[i]);
	if (r >= 0 && v->have_pit)
		r = ioctl_retry(v->fd, KVM_SET_PIT2, &v->pit);
	return r < 0 ? err_set(e, r, "KVM refused to reset the interrupt controllers: %s", strerror(-r)) : 0;
}

static void set_default_fpu(struct vcpu *c)
{
	struct kvm_fpu f = {.fcw = 0x37f, .mxcsr = 0x1f80};
	struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = 1}}};
	struct kvm_debugregs d = {.dr6 = 0xffff0ff0, .dr7 = 0x400};

	/* Each of these is optional in KVM. */
	if (ioctl(c->fd, KVM_SET_FPU, &f) < 0 || ioctl(c->fd, KVM_SET_XCRS, &x) < 0 || ioctl(c->fd, KVM_SET_DEBUGREGS, &d) < 0)
		log_debug("vm", "vCPU %u: part of the FPU and debug state stays: %s", c->id, strerror(errno));
}

int state_reset_vcpu(struct vcpu *c, struct vh_err *e)
{
	struct kvm_regs regs = {.rip = 0xfff0, .rflags = RFLAGS_1};
	struct kvm_mp_state mp = {.mp_state = c->id ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE};
	struct kvm_vcpu_events ev = {0};
	const char *what = "special registers";
	int r = ioctl_retry(c->fd, KVM_SET_SREGS, &c->initial.sregs);

	if (r >= 0) {
		what = "local APIC";
		r = ioctl_retry(c->fd, KVM_SET_LAPIC, &c->initial.lapic);
	}
	if (r >= 0) {
		state_set_msrs(c, c->vm->msrs);
		set_first_msrs(c);
		set_default_fpu(c);
		what = "pending events";
		ev.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW;
		r = ioctl_retry(c->fd, KVM_SET_VCPU_EVENTS, &ev);
	}
	if (r >= 0) {
		what = "registers";
		r = ioctl_retry(c->fd, KVM_SET_REGS, &regs);
	}
	if (r >= 0) {
		what = "run state";
		r = ioctl_retry(c->fd, KVM_SET_MP_STATE, &mp);
	}
	return r < 0 ? err_set(e, r, "KVM refused the %s of vCPU %u: %s", what, c->id, strerror(-r)) : 0;
}

static struct kvm_segment flat(uint16_t selector, uint8_t type)
{
	return (struct kvm_segment){.limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .s = 1, .g = 1};
}

/* Selectors as both boot protocols want them: code 0x10, data 0x18, task 0x20. */
static void protected_segments(struct kvm_sregs *s, const struct vm_boot *b)
{
	s->cs = flat(0x10, 0xb);
	s->ds = s->es = s->fs = s->gs = s->ss = flat(0x18, 3);
	s->ds.db = s->es.db = s->fs.db = s->gs.db = s->ss.db = 1;
	s->tr = (struct kvm_segment){.limit = 0x67, .selector = 0x20, .type = 0xb, .present = 1};
	s->ldt = (struct kvm_segment){.type = 2, .unusable = 1};
	s->gdt.base = b->gdt;
	s->gdt.limit = b->gdt_limit;
	s->idt.base = s->idt.limit = 0;
}

int state_boot(struct vm *v, struct vh_err *e)
{
	const struct vm_boot *b = &v->boot;
	struct vcpu *c = &v->vcpu[0];
	struct kvm_sregs s = c->initial.sregs;
	struct kvm_regs r = {.rip = b->rip, .rsi = b->rsi, .rsp = b->rsp, .rbp = b->rsp, .rbx = b->rbx, .rflags = RFLAGS_1};
	int ret;

	if (!v->have_boot || b->mode == VM_BOOT_REAL)
		return 0;
	protected_segments(&s, b);
	if (b->mode == VM_BOOT_LONG64) {
		s.cs.l = 1;
		s.cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
		s.cr4 = 0x20;       /* PAE */
		s.efer |= 0x500;    /* LME LMA */
		s.cr3 = b->cr3;
	} else {
		s.cs.db = 1;
		s.cr0 = 0x11; /* ET PE */
		s.cr4 = 0;
	}
	ret = ioctl_retry(c->fd, KVM_SET_SREGS, &s);
	if (ret >= 0)
		ret = ioctl_retry(c->fd, KVM_SET_REGS, &r);
	return ret < 0 ? err_set(e, ret, "KVM refused the boot CPU's entry state: %s", strerror(-ret)) : 0;
}
