/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Rings: order, wraps, indirect tables, both ways of notification, and drivers that lie. */
#include <glib.h>
#include <string.h>
#include "dev/virtqueue.h"

#define SIZE 8
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define DATA 0x8000u
#define BYTES (16 << 20)

struct rig {
	struct mem *m;
	struct virtqueue q;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	struct iovec iov[32];
	struct vq_chain c;
};

static void rig_new(struct rig *r, int event_idx)
{
	struct mem_config c = {.bytes = BYTES};

	memset(r, 0, sizeof(*r));
	g_assert_cmpint(mem_new(&c, &r->m, NULL), ==, 0);
	r->q = (struct virtqueue){.mem = r->m, .size = SIZE, .desc_gpa = DESC, .avail_gpa = AVAIL, .used_gpa = USED,
				  .event_idx = (uint8_t)event_idx, .indirect = 1};
	g_assert_cmpint(vq_enable(&r->q), ==, 0);
	r->desc = mem_ptr(r->m, DESC, 16 * SIZE);
	r->avail = mem_ptr(r->m, AVAIL, 64);
	r->used = mem_ptr(r->m, USED, 128);
	r->c = (struct vq_chain){.iov = r->iov, .cap = 32};
}

static void offer(struct rig *r, uint16_t head)
{
	r->avail->ring[r->avail->idx % SIZE] = head;
	r->avail->idx++;
}

static void set(struct rig *r, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	r->desc[i] = (struct vring_desc){addr, len, flags, next};
}

static void test_order(void)
{
	struct rig r;

	rig_new(&r, 0);
	g_assert_cmpint(vq_pop(&r.q, &r.c), ==, 0);
	for (unsigned i = 0; i < 70000; i++) { /* indices wrap */
		unsigned n = i % SIZE;

		set(&r, n, DATA + n * 64, 16 + n, 0, 0);
		offer(&r, (uint16_t)n);
		g_assert_true(vq_pending(&r.q));
		g_assert_cmpint(vq_pop(&r.q, &r.c), ==, 1);
		g_assert_cmpuint(r.c.head, ==, n);
		g_assert_cmpuint(r.c.n_out, ==, 1);
		g_assert_cmpuint(r.c.out_len, ==, 16 + n);
		g_assert_true(r.iov[0].iov_base == mem_ptr(r.m, DATA + n * 64, 1));
		vq_push(&r.q, r.c.head, n);
		g_assert_cmpuint(r.used->idx, ==, (uint16_t)i);
		g_assert_cmpint(vq_publish(&r.q), ==, 1);
		g_assert_cmpuint(r.used->idx, ==, (uint16_t)(i + 1));
		g_assert_cmpuint(r.used->ring[i % SIZE].id, ==, n);
		g_assert_cmpuint(r.used->ring[i % SIZE].len, ==, n);
		g_assert_cmpint(vq_publish(&r.q), ==, 0);
	}
	mem_free(r.m);
}

static void test_chains(void)
{
	struct rig r;
	struct vring_desc *t;

	rig_new(&r, 0);
	set(&r, 3, DATA, 10, VRING_DESC_F_NEXT, 1);
	set(&r, 1, DATA + 100, 0, VRING_DESC_F_NEXT, 7);
	set(&r, 7, DATA + 200, 30, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 0);
	set(&r, 0, DATA + 300, 40, VRING_DESC_F_WRITE, 5);
	offer(&r, 3);
	g_assert_cmpint(vq_pop(&r.q, &r.c), ==, 1);
	g_assert_cmpuint(r.c.n_out, ==, 1);
	g_assert_cmpuint(r.c.n_in, ==, 2);
	g_assert_cmpuint(r.c.in_len, ==, 70);
	vq_unpop(&r.q, 1);
	g_assert_cmpint(vq_pop(&r.q, &r.c), ==, 1);
	g_assert_cmpuint(r.c.head, ==, 3);
	/* A direct part and an indirect one, at an odd address. */
	t = mem_ptr(r.m, 0x9001, 32);
	memcpy(t, &(struct vring_desc){DATA, 5, VRING_DESC_F_NEXT, 1}, 16);
	memcpy((char *)t + 16, &(struct vring_desc){DATA + 64, 6, VRING_DESC_F_WRITE, 0}, 16);
	set(&r, 0, DATA + 300, 4, VRING_DESC_F_NEXT, 1);
	set(&r, 1, 0x9001, 32, VRING_DESC_F_INDIRECT, 0);
	offer(&r, 0);
	g_assert_cmpint(vq_pop(&r.q, &r.c), ==, 1);
	g_assert_cmpuint(r.c.out_len, ==, 9);
	g_assert_cmpuint(r.c.in_len, ==, 6);
	mem_free(r.m);
}

/* Each lie breaks the queue, for good. */
static void test_lies(void)
{
	static const struct lie {
		const char *what;
		struct vring_desc d[3];
		uint16_t head, idx;
	} lies[] = {
		{"head", {{DATA, 1, 0, 0}}, SIZE, 1},
		{"index", {{DATA, 1, 0, 0}}, 0, SIZE + 1},
		{"loop", {{DATA, 1, 1, 1}, {DATA, 1, 1, 0}}, 0, 1},
		{"self", {{DATA, 1, 1, 0}}, 0, 1},
		{"next", {{DATA, 1, 1, SIZE}}, 0, 1},
		{"outside", {{BYTES, 1, 0, 0}}, 0, 1},
		{"over the end", {{(BYTES) - 1, 2, 0, 0}}, 0, 1},
		{"wraps", {{UINT64_MAX, 2, 0, 0}}, 0, 1},
		{"huge", {{0, UINT32_MAX, 0, 0}}, 0, 1},
		{"order", {{DATA, 1, 3, 1}, {DATA, 1, 0, 0}}, 0, 1},
		{"indirect next", {{DATA, 16, 5, 1}, {DATA, 1, 0, 0}}, 0, 1},
		{"indirect length", {{DATA, 17, 4, 0}}, 0, 1},
		{"indirect empty", {{DATA, 0, 4, 0}}, 0, 1},
		{"indirect outside", {{(BYTES) - 8, 16, 4, 0}}, 0, 1},
		{"indirect long", {{0, 16 * 1025, 4, 0}}, 0, 1},
		{"indirect of the ring itself", {{DESC, 16 * SIZE, 4, 0}}, 0, 1},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
		struct rig r;

		rig_new(&r, 0);
		memcpy(r.desc, lies[i].d, sizeof(lies[i].d));
		r.avail->ring[0] = lies[i].head;
		r.avail->idx = lies[i].idx;
		g_test_message("%s", lies[i].what);
		g_assert_cmpint(vq_pop(&r.q, &r.c), ==, -EPROTO);
		g_assert_nonnull(r.q.why);
		r.avail->idx = 0;
		g_assert_cmpint(vq_pop(&r.q, &r.c), ==, -EPROTO);
		mem_free(r.m);
	}
	/* More buffers than the caller can take. */
	struct rig r;
	rig_new(&r, 0);
	r.c.cap = 2;
	for (unsigned i = 0; i < 3; i++)
		set(&r, i, DATA, 1, i < 2, (uint16_t)(i + 1));
	offer(&r, 0);
	g_assert_cmpint(vq_pop(&r.q, &r.c), ==, -EPROTO);
	/* Indirect where it was not negotiated. */
	g_assert_cmpint(vq_enable(&r.q), ==, 0);
	r.q.indirect = 0;
	set(&r, 0, DATA, 16, VRING_DESC_F_INDIRECT, 0);
	g_assert_cmpint(vq_pop(&r.q, &r.c), ==, -EPROTO);
	mem_free(r.m);
}

static void test_rings_checked(void)
{
	struct rig r;
	static const struct {
		uint16_t size;
		uint64_t desc, avail, used;
	} bad[] = {{0, DESC, AVAIL, USED}, {6, DESC, AVAIL, USED}, {2048, DESC, AVAIL, USED}, {8, DESC + 8, AVAIL, USED},
		   {8, DESC, AVAIL + 1, USED}, {8, DESC, AVAIL, USED + 2}, {8, BYTES, AVAIL, USED}, {8, (BYTES) - 112, AVAIL, USED},
		   {8, DESC, (BYTES) - 20, USED}, {8, DESC, AVAIL, (BYTES) - 68}, {8, DESC, AVAIL, UINT64_MAX - 3}};

	rig_new(&r, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
		r.q.size = bad[i].size;
		r.q.desc_gpa = bad[i].desc;
		r.q.avail_gpa = bad[i].avail;
		r.q.used_gpa = bad[i].used;
		g_assert_cmpint(vq_enable(&r.q), ==, -EINVAL);
	}
	mem_free(r.m);
}

static void test_notifications(void)
{
	struct rig r;

	rig_new(&r, 0);
	vq_notify_off(&r.q);
	g_assert_cmpuint(r.used->flags, ==, VRING_USED_F_NO_NOTIFY);
	g_assert_cmpint(vq_notify_on(&r.q), ==, 0);
	g_assert_cmpuint(r.used->flags, ==, 0);
	set(&r, 0, DATA, 1, 0, 0);
	offer(&r, 0);
	g_assert_cmpint(vq_notify_on(&r.q), ==, 1);
	g_assert_cmpint(vq_pop(&r.q, &r.c), ==, 1);
	r.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	vq_push(&r.q, 0, 0);
	g_assert_cmpint(vq_publish(&r.q), ==, 0);
	mem_free(r.m);

	rig_new(&r, 1);
	uint16_t *used_event = &r.avail->ring[SIZE], *avail_event = (uint16_t *)&r.used->ring[SIZE];
	for (unsigned i = 0; i < 66000; i++) {
		/* The driver wants to hear of every third. */
		*used_event = (uint16_t)(i / 3 * 3 + 2);
		set(&r, 0, DATA, 1, 0, 0);
		offer(&r, 0);
		g_assert_cmpint(vq_pop(&r.q, &r.c), ==, 1);
		vq_push(&r.q, 0, 0);
		g_assert_cmpint(vq_publish(&r.q), ==, i % 3 == 2);
		vq_notify_off(&r.q);
		g_assert_cmpint(vq_notify_on(&r.q), ==, 0);
		g_assert_cmpuint(*avail_event, ==, r.avail->idx);
	}
	mem_free(r.m);
}

/* A driver on another thread; nothing is lost, and who sleeps is woken. */
struct pair {
	struct rig r;
	int asleep; /* the device waits for a doorbell */
	unsigned bells;
};

static void *driver(void *p)
{
	struct pair *x = p;
	struct rig *r = &x->r;
	uint16_t idx = 0, seen = 0;

	for (unsigned i = 0; i < 200000; i++) {
		uint16_t ev, slot = idx % SIZE;

		while ((uint16_t)(idx - __atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE)) >= SIZE)
			g_thread_yield();
		r->desc[slot] = (struct vring_desc){DATA + slot * 8, 8, 0, 0};
		memcpy(mem_ptr(r->m, DATA + slot * 8, 8), &(uint64_t){i}, 8);
		__atomic_store_n(&r->avail->ring[slot], slot, __ATOMIC_RELAXED);
		idx++;
		__atomic_store_n(&r->avail->idx, idx, __ATOMIC_SEQ_CST);
		ev = __atomic_load_n((uint16_t *)&r->used->ring[SIZE], __ATOMIC_SEQ_CST);
		if (vring_need_event(ev, idx, seen)) {
			__atomic_fetch_add(&x->bells, 1, __ATOMIC_SEQ_CST);
			__atomic_store_n(&x->asleep, 0, __ATOMIC_SEQ_CST);
		}
		seen = idx;
	}
	return NULL;
}

static void test_threads(void)
{
	struct pair x = {0};
	GThread *t;

	rig_new(&x.r, 1);
	t = g_thread_new("driver", driver, &x);
	for (uint64_t i = 0; i < 200000;) {
		struct rig *r = &x.r;
		uint64_t v;
		int n = vq_pop(&r->q, &r->c);

		g_assert_cmpint(n, >=, 0);
		if (n) {
			memcpy(&v, r->iov[0].iov_base, 8);
			g_assert_cmpuint(v, ==, i);
			i++;
			vq_push(&r->q, r->c.head, 0);
			vq_publish(&r->q);
			continue;
		}
		__atomic_store_n(&x.asleep, 1, __ATOMIC_SEQ_CST);
		if (!vq_notify_on(&r->q))
			for (int64_t end = g_get_monotonic_time() + 10000000; __atomic_load_n(&x.asleep, __ATOMIC_SEQ_CST);) {
				g_assert_cmpint(g_get_monotonic_time(), <, end); /* a lost doorbell */
				g_thread_yield();
			}
	}
	g_thread_join(t);
	mem_free(x.r.m);
}

static void test_iov(void)
{
	char a[4] = "abc", b[6] = "defgh", out[10];
	struct iovec iov[2] = {{a, 3}, {b, 5}}, *p = iov;
	unsigned n = 2;

	g_assert_cmpuint(iov_to_buf(iov, 2, 1, out, 10), ==, 7);
	g_assert_cmpmem(out, 7, "bcdefgh", 7);
	g_assert_cmpuint(iov_to_buf(iov, 2, 8, out, 1), ==, 0);
	g_assert_cmpuint(iov_from_buf(iov, 2, 2, "XYZ", 3), ==, 3);
	g_assert_cmpmem(a, 3, "abX", 3);
	g_assert_cmpmem(b, 5, "YZfgh", 5);
	g_assert_cmpuint(iov_drop(&p, &n, 4), ==, 4);
	g_assert_cmpuint(n, ==, 1);
	g_assert_true(p == iov + 1 && p->iov_base == b + 1 && p->iov_len == 4);
	g_assert_cmpuint(iov_cut(p, n, 2), ==, 1);
	g_assert_cmpuint(p->iov_len, ==, 2);
	g_assert_cmpuint(iov_drop(&p, &n, 10), ==, 2);
	g_assert_cmpuint(n, ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/virtqueue/order-and-wrap", test_order);
	g_test_add_func("/virtqueue/chains", test_chains);
	g_test_add_func("/virtqueue/lies", test_lies);
	g_test_add_func("/virtqueue/rings-checked", test_rings_checked);
	g_test_add_func("/virtqueue/notifications", test_notifications);
	g_test_add_func("/virtqueue/driver-on-a-thread", test_threads);
	g_test_add_func("/virtqueue/iovecs", test_iov);
	return g_test_run();
}
