/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The guest's CPUID: KVM's list, less what this VMM does not offer, with the topology of one socket of n cores. */
#include "vm/vm-i.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPUID_ROOM 256
#define KVM_LEAF 0x40000000u
#define TIMING_LEAF 0x40000010u /* TSC and APIC bus frequency in kHz, as VMware and QEMU show them */

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && (!(c->entries[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || c->entries[i].index == sub))
			return &c->entries[i];
	return NULL;
}

static void drop(struct kvm_cpuid2 *c, uint32_t leaf)
{
	unsigned n = 0;
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function != leaf)
			c->entries[n++] = c->entries[i];
	c->nent = n;
}

static void add(struct kvm_cpuid2 *c, struct kvm_cpuid_entry2 en)
{
	if (c->nent < CPUID_ROOM)
		c->entries[c->nent++] = en;
}

static unsigned bits_for(unsigned n)
{
	unsigned b = 0;
	while ((1u << b) < n)
		b++;
	return b;
}

/* Leaves 0xb and 0x1f: one thread a core, all cores in one package. EDX is set per vCPU. */
static void add_topology(struct kvm_cpuid2 *c, uint32_t leaf, unsigned cpus)
{
	uint32_t flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
	drop(c, leaf);
	add(c, (struct kvm_cpuid_entry2){.function = leaf, .index = 0, .flags = flags, .eax = 0, .ebx = 1, .ecx = 1 << 8});
	add(c, (struct kvm_cpuid_entry2){.function = leaf, .index = 1, .flags = flags, .eax = bits_for(cpus), .ebx = cpus, .ecx = 2 << 8 | 1});
	add(c, (struct kvm_cpuid_entry2){.function = leaf, .index = 2, .flags = flags, .ecx = 2});
}

static void set_features(struct vm *v, struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *p;
	unsigned cores = 1u << bits_for(v->n);

	if ((p = find(c, 1, 0))) {
		p->ebx = (p->ebx & 0xff00) | (cores > 255 ? 255u : cores) << 16;
		p->ecx &= ~(1u << 5 | 1u << 27);  /* VMX: guests do not nest; OSXSAVE follows CR4 */
		p->ecx |= 1u << 21 | 1u << 31;    /* x2APIC is KVM's own; hypervisor */
		if (ioctl(v->kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
			p->ecx |= 1u << 24;
		p->edx = v->n > 1 ? p->edx | 1u << 28 : p->edx & ~(1u << 28);
	}
	if ((p = find(c, 7, 0))) {
		p->ebx &= ~(1u << 2 | 1u << 25); /* SGX, processor trace: need set-up that is not made */
		p->ecx &= ~(1u << 30);
	}
	for (unsigned i = 0; i < c->nent; i++) { /* caches: the last level is everyone's */
		p = &c->entries[i];
		if (p->function != 4 && p->function != 0x8000001d)
			continue;
		unsigned level = p->eax >> 5 & 7, sharing = level >= 3 ? cores - 1 : 0;
		if (!(p->eax & 0x1f))
			continue;
		p->eax = (p->eax & ~(0xfffu << 14)) | (sharing & 0xfff) << 14;
		if (p->function == 4)
			p->eax = (p->eax & ~(0x3fu << 26)) | (cores > 64 ? 63 : cores - 1) << 26;
	}
	drop(c, 0x12);
	drop(c, 0x14);
	drop(c, 0x8000000a);
	drop(c, 0x8000001f);
}

static int is_amd(struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *p = find(c, 0, 0);
	return p && (p->ebx == 0x68747541 /* Auth */ || p->ebx == 0x6f677948 /* Hygo */);
}

static void set_amd(struct vm *v, struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *p;
	if ((p = find(c, 0x80000001, 0))) {
		p->ecx &= ~(1u << 2); /* SVM */
		p->ecx = v->n > 1 ? p->ecx | 1u << 1 : p->ecx & ~(1u << 1);
	}
	if (!is_amd(c))
		return;
	if ((p = find(c, 0x80000008, 0)))
		p->ecx = (p->ecx & ~0xf0ffu) | bits_for(v->n) << 12 | (v->n > 256 ? 255 : v->n - 1);
	if ((p = find(c, 0x8000001e, 0)))
		p->ebx = p->ecx = p->edx = 0;
}

static void set_paravirt(struct vm *v, struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *p = find(c, KVM_LEAF, 0);
	if (!p) {
		add(c, (struct kvm_cpuid_entry2){.function = KVM_LEAF, .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d});
		add(c, (struct kvm_cpuid_entry2){.function = KVM_LEAF + 1});
		p = find(c, KVM_LEAF, 0);
	}
	if (p && p->eax < KVM_LEAF + 1)
		p->eax = KVM_LEAF + 1; /* old kernels: 0, meaning this */
	/* MSI destinations above 255: irq.c moves the high bits to where KVM wants them. */
	if ((p = find(c, KVM_LEAF + 1, 0)) && v->n > 254)
		p->eax |= 1u << 15;
}

int cpuid_make(struct vm *v, struct vh_err *e)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof *c + CPUID_ROOM * sizeof c->entries[0]);
	struct kvm_cpuid_entry2 *p;
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	v->cpuid = c;
	c->nent = CPUID_ROOM - 16; /* room for what is added */
	r = ioctl_retry(v->kvm, KVM_GET_SUPPORTED_CPUID, c);
	if (r < 0)
		return err_set(e, r, "KVM does not tell its CPU features: %s", strerror(-r));
	p = find(c, 0x80000008, 0);
	v->phys_bits = p && (p->eax & 0xff) ? p->eax & 0xff : 36;
	if (p && p->eax >> 16 & 0xff && (p->eax >> 16 & 0xff) < v->phys_bits) /* what the guest can really map */
		v->phys_bits = p->eax >> 16 & 0xff;
	set_features(v, c);
	set_amd(v, c);
	set_paravirt(v, c);
	add_topology(c, 0xb, v->n);
	p = find(c, 0, 0);
	if (p && p->eax < 0xb)
		p->eax = 0xb;
	if (p && p->eax >= 0x1f && !is_amd(c))
		add_topology(c, 0x1f, v->n);
	else
		drop(c, 0x1f);
	return 0;
}

int cpuid_set(struct vcpu *vc, struct vh_err *e)
{
	struct kvm_cpuid2 *base = vc->vm->cpuid;
	size_t size = sizeof *base + CPUID_ROOM * sizeof base->entries[0];
	struct kvm_cpuid2 *c = malloc(size);
	struct kvm_cpuid_entry2 *p;
	int r, khz;

	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	memcpy(c, base, size);
	for (unsigned i = 0; i < c->nent; i++) {
		p = &c->entries[i];
		if (p->function == 1)
			p->ebx = (p->ebx & 0xffffff) | (vc->id & 0xff) << 24;
		else if (p->function == 0xb || p->function == 0x1f)
			p->edx = vc->id;
		else if (p->function == 0x8000001e) {
			p->eax = vc->id;
			p->ebx = vc->id & 0xff;
		}
	}
	khz = ioctl(vc->fd, KVM_GET_TSC_KHZ, 0);
	p = find(c, KVM_LEAF, 0);
	if (khz > 0 && p && !find(c, TIMING_LEAF, 0)) {
		p->eax = TIMING_LEAF;
		add(c, (struct kvm_cpuid_entry2){.function = TIMING_LEAF, .eax = (uint32_t)khz, .ebx = 1000000});
	}
	r = ioctl_retry(vc->fd, KVM_SET_CPUID2, c);
	free(c);
	return r < 0 ? err_set(e, r, "KVM refused vCPU %u's features: %s", vc->id, strerror(-r)) : 0;
}
