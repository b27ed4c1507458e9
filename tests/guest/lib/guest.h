/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A guest without an operating system, in ring 3 with all ports and all memory, on vhost and on QEMU (q35, microvm).
 * A guest is one file with guest_main(); returning from it powers off.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stddef.h>
#include <stdint.h>

void guest_main(void);

/* core.c */
static inline void outb(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void outw(uint16_t port, uint16_t v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline void outl(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory"); }
static inline uint8_t inb(uint16_t port) { uint8_t v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline uint16_t inw(uint16_t port) { uint16_t v; __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
static inline uint32_t inl(uint16_t port) { uint32_t v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory"); return v; }
/* One instruction each: KVM emulates MMIO, and compilers make what it cannot. */
#define MMIO(bits, suffix, reg) \
static inline uint##bits##_t mmio_read##bits(uint64_t a) { uint##bits##_t v; __asm__ volatile("mov" suffix " (%1), %0" : "=" reg(v) : "r"(a) : "memory"); return v; } \
static inline void mmio_write##bits(uint64_t a, uint##bits##_t v) { __asm__ volatile("mov" suffix " %0, (%1)" : : reg(v), "r"(a) : "memory"); }
MMIO(8, "b", "q") MMIO(16, "w", "r") MMIO(32, "l", "r") MMIO(64, "q", "r")
static inline uint64_t tsc(void) { uint32_t a, d; __asm__ volatile("lfence; rdtsc" : "=a"(a), "=d"(d) : : "memory"); return (uint64_t)d << 32 | a; }
static inline void relax(void) { __asm__ volatile("pause"); }
static inline void barrier(void) { __asm__ volatile("" : : : "memory"); }
static inline void full_barrier(void) { __asm__ volatile("lock; addl $0, -4(%%rsp)" : : : "memory", "cc"); }

/* a * b / c without overflow in between. */
static inline uint64_t muldiv(uint64_t a, uint64_t b, uint64_t c) { uint64_t hi; __asm__("mulq %2; divq %3" : "=&a"(a), "=&d"(hi) : "r"(b), "r"(c), "0"(a) : "cc"); return a; }

void put(const char *s);
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* %s %c %d %u %x %lu %lx %llu %llx %%, no widths but 0n */
void power_off(void) __attribute__((noreturn));
void reboot(void) __attribute__((noreturn));
void triple_fault(void) __attribute__((noreturn));
void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn)); /* prints "FAIL: ..." and ends */
#define CHECK(cond, ...) do { if (!(cond)) fail(__VA_ARGS__); } while (0)

/* name=value words of the command line. */
uint64_t arg_u64(const char *name, uint64_t def); /* with K, M, G */
const char *arg_str(const char *name);            /* up to the next space; NULL: not given. Valid until the next call. */
int arg_next(const char *name, unsigned n, char *out, size_t room); /* the n-th word of that name */
const char *cmdline(void);
uint64_t memory_below_4g(void); /* end of low memory */

uint64_t tsc_hz(void); /* tsc_khz= of the command line, or measured with the PM timer or the PIT */
uint64_t now_ns(void); /* since boot */
void wait_us(uint64_t us);
uint64_t rnd(void);    /* xorshift; seed= */

void *page_alloc(size_t bytes); /* zeroed, 4 KiB aligned, never freed, of memory behind the program */
void map_device(uint64_t addr, uint64_t len); /* identity, not cached; needed above 4 GiB */

void *memcpy(void *d, const void *s, size_t n);
void *memset(void *d, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memmove(void *d, const void *s, size_t n);
size_t strlen(const char *s);

/* smp.c: starts n further CPUs in fn(index 1..); returns how many came. */
unsigned smp_start(unsigned n, void (*fn)(unsigned cpu));

/* pci.c: configuration by 0xcf8. */
struct pci_fn { unsigned bdf; uint16_t vendor, device; uint64_t bar[6], size[6]; int io[6]; };
uint32_t pci_read(unsigned bdf, unsigned off, unsigned len);
void pci_write(unsigned bdf, unsigned off, uint32_t v, unsigned len);
int pci_find(unsigned index, struct pci_fn *f); /* index-th function of bus 0; sizes BARs and gives them addresses if they have none */

/* virtio.c: a modern device by PCI, or by MMIO as microvm's command line tells. Polled. */
#define VQ_MAX 256
#define VQ_INDIRECT 4 /* descriptors of an indirect table */
#define VIRTIO_F_INDIRECT (UINT64_C(1) << 28)
struct vring_desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
struct vring_avail { uint16_t flags, idx, ring[VQ_MAX], event; };
struct vring_used { uint16_t flags, idx; struct { uint32_t id, len; } ring[VQ_MAX]; uint16_t event; };
struct vq {
	struct vring_desc *desc, *table; /* table: VIRTIO_F_INDIRECT was wanted and offered */
	volatile struct vring_avail *avail;
	volatile struct vring_used *used;
	unsigned size, index;
	uint16_t next_avail, last_used;
	uint16_t free_head, n_free;
	uint64_t notify; /* address of the doorbell */
	int notify32;
};
struct virtio {
	int mmio;
	uint64_t common, notify, isr, config; /* addresses; for MMIO common is the base */
	uint32_t notify_mult;
	struct pci_fn pci;
	uint64_t features;
	struct vq vq[16];
};
#define VIRTIO_NET 1
#define VIRTIO_BLK 2
/* The index-th device of that type; wanted features are masked by what it offers. 0 when there is none. Leaves it at
 * FEATURES_OK; then set up queues and call virtio_ok. */
int virtio_open(struct virtio *v, unsigned type, unsigned index, uint64_t want);
unsigned virtio_queue(struct virtio *v, unsigned q, unsigned max); /* returns its size */
void virtio_ok(struct virtio *v);
uint32_t virtio_config(struct virtio *v, unsigned off, unsigned len);
/* A chain of n buffers, the last `in` of them written by the device; returns the head or -1 when the ring is full. */
struct vbuf { const void *p; uint32_t len; };
int vq_add(struct vq *q, const struct vbuf *b, unsigned n, unsigned in);
void vq_kick(struct vq *q);          /* rings unless the device said it polls */
int vq_get(struct vq *q, uint32_t *len); /* a finished head, its descriptors free again; -1: none */

#endif
