/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>
#include "fake-fmt.h"

struct fmt_image *fake_image(uint64_t bytes)
{
	struct fmt_image *i = g_new0(struct fmt_image, 1);

	i->data = g_malloc0(bytes);
	i->bytes = bytes;
	return i;
}

void fake_image_free(struct fmt_image *i)
{
	g_assert_cmpuint(i->queues, ==, 0);
	g_free(i->data);
	g_free(i);
}

unsigned fake_count(unsigned *counter)
{
	return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void count(unsigned *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}

void fmt_get_info(const struct fmt_image *i, struct fmt_info *out)
{
	*out = (struct fmt_info){.bytes = i->bytes, .logical_block = 512, .physical_block = 4096, .min_io = 4096, .opt_io = 65536,
				 .discard_gran = 4096, .read_only = i->read_only, .discard = 1, .zero = 1, .serial = "fake-serial"};
}

void fmt_listen(struct fmt_image *i, void (*fn)(void *ctx, uint64_t bytes), void *ctx)
{
	i->listener = fn;
	i->listener_ctx = ctx;
}

static int perform(struct fmt_image *i, struct fmt_io *io)
{
	uint64_t off = io->off, sum = 0;

	if (__atomic_load_n(&i->fail, __ATOMIC_SEQ_CST))
		return i->fail;
	g_assert_true(io->off <= i->bytes && io->len <= i->bytes - io->off);
	if (io->flags & VH_REQ_FUA)
		count(&i->fua);
	switch (io->op) {
	case VH_READ:
	case VH_WRITE:
		for (unsigned k = 0; k < io->niov; k++) {
			sum += io->iov[k].iov_len;
			g_assert_cmpuint(sum, <=, io->len);
			if (io->op == VH_READ)
				memcpy(io->iov[k].iov_base, i->data + off, io->iov[k].iov_len);
			else
				memcpy(i->data + off, io->iov[k].iov_base, io->iov[k].iov_len);
			off += io->iov[k].iov_len;
		}
		g_assert_cmpuint(sum, ==, io->len);
		break;
	case VH_FLUSH:
		count(&i->flushes);
		break;
	case VH_DISCARD:
		count(&i->discards);
		break;
	case VH_ZERO:
		count(&i->zeroed);
		if (io->flags & VH_REQ_MAY_UNMAP)
			count(&i->unmap);
		memset(i->data + io->off, 0, io->len);
		break;
	default:
		return -EOPNOTSUPP;
	}
	return 0;
}

static void complete(struct fmt_queue *q)
{
	unsigned n = q->n;
	struct fmt_io *io[FAKE_HELD];

	memcpy(io, q->io, n * sizeof(io[0]));
	q->n = 0;
	for (unsigned k = 0; k < n; k++)
		io[k]->done(io[k], perform(q->image, io[k]));
}

static void release_task(struct vh_task *t)
{
	complete((struct fmt_queue *)((char *)t - offsetof(struct fmt_queue, task)));
}

void fake_release(struct fmt_image *i)
{
	unsigned n = i->queues; /* the device may be gone when the last one was let go */

	__atomic_store_n(&i->hold, 0, __ATOMIC_SEQ_CST);
	for (unsigned k = 0; k < n; k++)
		loop_post(i->q[k]->loop, &i->q[k]->task);
}

int fmt_queue_open(struct fmt_image *i, struct vh_loop *l, uint32_t depth, struct fmt_queue **out, struct vh_err *e)
{
	struct fmt_queue *q = g_new0(struct fmt_queue, 1);

	(void)e;
	g_assert_cmpuint(depth, <=, FAKE_HELD);
	q->image = i;
	q->loop = l;
	q->task.fn = release_task;
	i->q[i->queues++] = q;
	*out = q;
	return 0;
}

void fmt_queue_close(struct fmt_queue *q)
{
	g_assert_cmpuint(q->n, ==, 0);
	loop_cancel(q->loop, &q->task);
	q->image->queues--;
	g_free(q);
}

void fmt_submit(struct fmt_queue *q, struct fmt_io *io)
{
	g_assert_cmpuint(q->n, <, FAKE_HELD);
	q->io[q->n++] = io;
	count(&q->image->submitted);
}

void fmt_kick(struct fmt_queue *q)
{
	count(&q->image->kicks);
	if (!__atomic_load_n(&q->image->hold, __ATOMIC_SEQ_CST))
		complete(q);
}

int fmt_poll(struct fmt_queue *q)
{
	(void)q;
	return 0;
}
