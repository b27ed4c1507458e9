/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "vm/memory.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/log.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define TWO_MIB (UINT64_C(2) << 20)
#define PREALLOC_THREADS 16
#define PREALLOC_STEP (UINT64_C(64) << 20)

/* What mem_new decided; kept behind struct mem so that its users see only addresses. */
struct mem_impl {
	struct mem m;
	uint64_t page; /* the unit that can be given back */
	uint8_t *map;  /* one mapping for both ranges */
	uint64_t map_bytes;
	int prealloc;
};

static struct mem_impl *impl(const struct mem *m)
{
	return (struct mem_impl *)m;
}

/* THP in shared memory has its own switch, which is "never" or "advise" depending on the distribution. */
static int shmem_takes_thp(void)
{
	char line[128] = "";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
	if (!f)
		return 0;
	if (!fgets(line, sizeof line, f))
		line[0] = 0;
	fclose(f);
	return line[0] && !strstr(line, "[never]") && !strstr(line, "[deny]");
}

static int huge_flags(uint64_t page)
{
	return (int)(MFD_HUGETLB | ((unsigned)__builtin_ctzll(page) << MFD_HUGE_SHIFT));
}

static int map_memory(struct mem_impl *i, const struct mem_config *c, int anonymous, struct vh_err *e)
{
	uint64_t align = i->page > TWO_MIB ? i->page : TWO_MIB, span = i->map_bytes + align;
	int flags = i->page > TWO_MIB || c->hugepages ? 0 : MAP_NORESERVE;
	uint8_t *hold, *at;

	if (!anonymous) {
		i->m.fd = memfd_create("guest-memory", MFD_CLOEXEC | (c->hugepages ? (unsigned)huge_flags(i->page) : 0));
		if (i->m.fd < 0) {
			int r = -errno;
			if (c->hugepages) {
				err_set(e, r, "no huge pages of %llu KiB on this machine: %s", (unsigned long long)(i->page >> 10), strerror(-r));
				err_remedy(e, "use 2M, or boot the host with hugepagesz=");
				return r;
			}
			return err_set(e, r, "cannot make guest memory: %s", strerror(-r));
		}
		if (ftruncate(i->m.fd, (off_t)i->map_bytes) < 0)
			return err_set(e, -errno, "cannot size guest memory to %llu MiB: %s", (unsigned long long)(i->map_bytes >> 20), strerror(errno));
	}
	/* Host and guest addresses must agree modulo a huge page, else neither THP nor nested paging can use one. */
	hold = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hold == MAP_FAILED)
		return err_set(e, -errno, "no address space for %llu MiB of guest memory: %s", (unsigned long long)(i->map_bytes >> 20), strerror(errno));
	at = (uint8_t *)(((uintptr_t)hold + align - 1) & ~(uintptr_t)(align - 1));
	if (mmap(at, i->map_bytes, PROT_READ | PROT_WRITE, MAP_FIXED | flags | (anonymous ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED),
		 i->m.fd, 0) == MAP_FAILED) {
		int r = -errno;
		munmap(hold, span);
		err_set(e, r, "cannot map %llu MiB of guest memory: %s", (unsigned long long)(i->map_bytes >> 20), strerror(-r));
		if (c->hugepages)
			err_remedy(e, "reserve %llu huge pages: sysctl vm.nr_hugepages", (unsigned long long)(i->map_bytes / i->page));
		return r;
	}
	if (at > hold)
		munmap(hold, (size_t)(at - hold));
	if (hold + span > at + i->map_bytes)
		munmap(at + i->map_bytes, (size_t)(hold + span - at - i->map_bytes));
	i->map = at;
	/* A child forked later (the privileged helper) never has the guest's memory. */
	madvise(at, i->map_bytes, MADV_DONTFORK);
	if (!c->dump)
		madvise(at, i->map_bytes, MADV_DONTDUMP);
	if (c->thp && !c->hugepages && madvise(at, i->map_bytes, MADV_HUGEPAGE) < 0)
		log_warn("vm", "guest memory: the kernel has no transparent huge pages: %s", strerror(errno));
	if (c->mergeable && madvise(at, i->map_bytes, MADV_MERGEABLE) < 0)
		log_warn("vm", "guest memory: the kernel cannot merge pages (KSM): %s", strerror(errno));
	return 0;
}

struct populate {
	uint8_t *base;
	uint64_t bytes, next; /* next: atomic cursor */
	int error;
};

static void *populate_thread(void *arg)
{
	struct populate *p = arg;
	for (;;) {
		uint64_t at = __atomic_fetch_add(&p->next, PREALLOC_STEP, __ATOMIC_RELAXED), n;
		if (at >= p->bytes || __atomic_load_n(&p->error, __ATOMIC_RELAXED))
			return NULL;
		n = p->bytes - at < PREALLOC_STEP ? p->bytes - at : PREALLOC_STEP;
		int r;
		do
			r = madvise(p->base + at, n, MADV_POPULATE_WRITE);
		while (r < 0 && (errno == EINTR || errno == EAGAIN));
		if (r < 0 && errno == EINVAL) /* before Linux 5.14 */
			for (uint64_t o = 0; o < n; o += 4096)
				__atomic_fetch_or(p->base + at + o, 0, __ATOMIC_RELAXED);
		else if (r < 0)
			__atomic_store_n(&p->error, errno, __ATOMIC_RELAXED);
	}
}

static int populate(struct mem_impl *i, struct vh_err *e)
{
	struct populate p = {.base = i->map, .bytes = i->map_bytes};
	pthread_t t[PREALLOC_THREADS];
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned want = cores < 1 ? 1 : cores > PREALLOC_THREADS ? PREALLOC_THREADS : (unsigned)cores, n = 0;

	if (want > i->map_bytes / PREALLOC_STEP)
		want = (unsigned)(i->map_bytes / PREALLOC_STEP);
	while (n + 1 < want && pthread_create(&t[n], NULL, populate_thread, &p) == 0)
		n++;
	populate_thread(&p);
	while (n)
		pthread_join(t[--n], NULL);
	if (!p.error)
		return 0;
	err_set(e, -p.error, "cannot allocate %llu MiB of guest memory in advance: %s", (unsigned long long)(i->map_bytes >> 20), strerror(p.error));
	err_remedy(e, "give the guest less memory, or leave prealloc off");
	return -p.error;
}

int mem_new(const struct mem_config *c, struct mem **out, struct vh_err *e)
{
	uint64_t page = 4096, low;
	int r, anonymous;

	*out = NULL;
	if (c->hugepages)
		page = c->hugepages < 64 && c->hugepages > 0 ? UINT64_C(1) << c->hugepages : (uint64_t)(unsigned)c->hugepages;
	if (page & (page - 1) || page < 4096 || (c->hugepages && page < TWO_MIB))
		return err_usage(e, "a huge page of %llu bytes does not exist", (unsigned long long)page);
	if (!c->bytes || c->bytes % page) {
		err_usage(e, "guest memory of %llu bytes is not a multiple of %llu", (unsigned long long)c->bytes, (unsigned long long)page);
		return -EINVAL;
	}
	if (c->bytes < UINT64_C(4) << 20 || c->bytes > UINT64_C(1) << 46)
		return err_usage(e, "guest memory must be between 4 MiB and 64 TiB");
	struct mem_impl *i = calloc(1, sizeof *i);
	if (!i)
		return err_set(e, -ENOMEM, "out of memory");
	i->m.fd = -1;
	i->page = page;
	i->map_bytes = i->m.bytes = c->bytes;
	i->prealloc = c->prealloc;
	/* KSM merges only anonymous memory, and THP of shared memory may be switched off on the host. */
	anonymous = !c->hugepages && (c->mergeable || (c->thp && !shmem_takes_thp()));
	r = map_memory(i, c, anonymous, e);
	if (!r && c->prealloc)
		r = populate(i, e);
	if (r) {
		mem_free(&i->m);
		return r;
	}
	low = MEM_LOW_MAX & ~(page - 1);
	if (low > c->bytes)
		low = c->bytes;
	i->m.range[i->m.n++] = (struct mem_range){0, low, i->map, 0};
	if (c->bytes > low)
		i->m.range[i->m.n++] = (struct mem_range){MEM_HIGH_BASE, c->bytes - low, i->map + low, low};
	*out = &i->m;
	return 0;
}

void mem_free(struct mem *m)
{
	if (!m)
		return;
	if (impl(m)->map)
		munmap(impl(m)->map, impl(m)->map_bytes);
	if (m->fd >= 0)
		close(m->fd);
	free(impl(m));
}

/* By offset into the one mapping; both multiples of the page. */
static int release(struct mem_impl *i, uint64_t off, uint64_t len)
{
	if (!len)
		return 0;
	if (i->m.fd < 0)
		return madvise(i->map + off, len, MADV_DONTNEED) < 0 ? -errno : 0;
	return fallocate(i->m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0 ? -errno : 0;
}

int mem_release(struct mem *m, uint64_t gpa, uint64_t len)
{
	for (unsigned k = 0; k < m->n; k++) {
		struct mem_range *g = &m->range[k];
		uint64_t o = gpa - g->gpa, page = impl(m)->page, first, last;
		if (o >= g->bytes || len > g->bytes - o)
			continue;
		first = (o + page - 1) & ~(page - 1);
		last = (o + len) & ~(page - 1);
		return last > first ? release(impl(m), g->fd_off + first, last - first) : 0;
	}
	return -EFAULT;
}

int mem_zero(struct mem *m, uint64_t gpa, uint64_t len)
{
	uint8_t *p = mem_ptr(m, gpa, len);
	uint64_t page = impl(m)->page, head, tail;

	if (!p)
		return -EFAULT;
	head = (page - gpa % page) % page;
	if (head >= len || impl(m)->prealloc || mem_release(m, gpa, len) < 0) {
		memset(p, 0, len);
		return 0;
	}
	tail = (gpa + len) % page;
	memset(p, 0, head);
	if (tail < len - head + 1)
		memset(p + len - tail, 0, tail);
	return 0;
}

int mem_zero_all(struct mem *m)
{
	int r = release(impl(m), 0, impl(m)->map_bytes);
	return r ? r : impl(m)->prealloc ? populate(impl(m), NULL) : 0;
}

uint64_t mem_resident(const struct mem *m)
{
	const struct mem_impl *i = impl(m);
	unsigned char vec[16384];
	uint64_t n = 0;
	struct stat st;

	if (m->fd >= 0)
		return fstat(m->fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
	for (uint64_t at = 0; at < i->map_bytes; at += sizeof vec * 4096) {
		uint64_t len = i->map_bytes - at < sizeof vec * 4096 ? i->map_bytes - at : sizeof vec * 4096;
		if (mincore(i->map + at, len, vec) < 0)
			return n;
		for (uint64_t k = 0; k < len / 4096; k++)
			n += (vec[k] & 1) * UINT64_C(4096);
	}
	return n;
}
