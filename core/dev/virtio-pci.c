/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The modern PCI transport: capabilities, the registers of BAR 4, and the status machine, which is strict: features only
 * before FEATURES_OK, queues only between FEATURES_OK and DRIVER_OK (or after a reset of that queue), nothing at all
 * while a reset is under way.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>
#include <unistd.h>
#include "dev/pci-i.h"
#include "dev/virtio.h"

/* BAR 4 */
#define BAR 4
#define BAR_SIZE 0x8000u
#define COMMON_AT 0x0000u
#define COMMON_LEN 60u /* up to and with queue_reset */
#define ISR_AT 0x1000u
#define CONFIG_AT 0x2000u
#define NOTIFY_AT 0x3000u
#define NOTIFY_MULT 4u
#define TABLE_AT 0x4000u
#define PBA_AT 0x7000u
#define MAX_QUEUES 511u

#define NEGOTIATED (VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC) | \
		    VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX) | VIRTIO_BIT(VIRTIO_F_RING_RESET))

static struct virtio_dev *dev_of(struct pci_dev *p)
{
	return container_of(p, struct virtio_dev, pci);
}

/* Under lock. A refusal of the kernel is no failure: the write then arrives at notify_write. */
void virtio_transport_bell(struct virtio_queue *q, int on)
{
	struct virtio_dev *d = q->dev;

	if (q->bell) {
		vm_ioeventfd(d->vm, q->bell_addr, 0, 0, q->kick_fd, 0);
		q->bell = 0;
	}
	if (on && d->bar_addr) {
		q->bell_addr = d->bar_addr + NOTIFY_AT + NOTIFY_MULT * q->index;
		q->bell = vm_ioeventfd(d->vm, q->bell_addr, 0, 0, q->kick_fd, 1) == 0;
	}
}

static void bar_moved(struct pci_dev *p, unsigned bar)
{
	struct virtio_dev *d = dev_of(p);

	if (bar != BAR)
		return;
	pthread_mutex_lock(&d->lock);
	d->bar_addr = p->bar[BAR].mapped ? p->bar[BAR].addr : 0;
	for (unsigned i = 0; i < d->n_queues; i++)
		if (d->queue[i].started && !d->queue[i].stop_pending)
			virtio_transport_bell(&d->queue[i], 1);
	pthread_mutex_unlock(&d->lock);
}

/* Under lock: every queue is quiet. */
void virtio_transport_reset(struct virtio_dev *d)
{
	for (unsigned i = 0; i < d->n_queues; i++) {
		struct virtio_queue *q = &d->queue[i];

		vq_disable(&q->vq);
		q->vq.broken = 0;
		q->reg_size = d->max_queue_size;
		q->reg_desc = q->reg_avail = q->reg_used = 0;
		q->reg_enable = q->reg_reset = 0;
		__atomic_store_n(&q->vector, VIRTIO_NO_VECTOR, __ATOMIC_RELAXED);
	}
	if (d->ops->reset)
		d->ops->reset(d);
	d->acked = d->driver_features = 0;
	d->feature_select = d->driver_feature_select = 0;
	d->queue_select = 0;
	__atomic_store_n(&d->config_vector, VIRTIO_NO_VECTOR, __ATOMIC_RELAXED);
	__atomic_store_n(&d->needs_reset, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&d->isr, 0, __ATOMIC_SEQ_CST);
	pci_intx(&d->pci, 0);
	d->status = 0;
	d->resetting = 0;
}

static uint8_t status_read(struct virtio_dev *d)
{
	uint8_t s = d->status;

	if (__atomic_load_n(&d->needs_reset, __ATOMIC_SEQ_CST))
		s |= VIRTIO_CONFIG_S_NEEDS_RESET;
	/* A status of 0 says that the reset is done: until then it is something else. */
	return d->resetting && !s ? VIRTIO_CONFIG_S_NEEDS_RESET : s;
}

static void driver_ok(struct virtio_dev *d)
{
	int r = d->ops->start ? d->ops->start(d) : 0;

	d->status |= VIRTIO_CONFIG_S_DRIVER_OK;
	if (r < 0) {
		log_error("virtio", "%s: cannot start: %s", d->label, strerror(-r));
		__atomic_store_n(&d->needs_reset, 1, __ATOMIC_SEQ_CST);
		return;
	}
	for (unsigned i = 0; i < d->n_queues; i++)
		if (d->queue[i].reg_enable)
			virtio_start_queue(&d->queue[i]);
}

/* Bits are only ever added, in order; a write of 0 is a reset. */
static void status_write(struct virtio_dev *d, uint8_t v)
{
	uint8_t old = d->status, add;

	if (!v) {
		virtio_begin_reset(d);
		return;
	}
	v &= (uint8_t)~VIRTIO_CONFIG_S_NEEDS_RESET;
	if (old & ~v) {
		log_debug("virtio", "%s: the driver tried to clear status bits (0x%x to 0x%x)", d->label, old, v);
		return;
	}
	add = (uint8_t)(v & ~old);
	d->status |= add & (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED);
	if (add & VIRTIO_CONFIG_S_FEATURES_OK && d->status & VIRTIO_CONFIG_S_DRIVER) {
		uint64_t f = d->driver_features;

		/* A refusal is an unset bit, which the driver must look for. */
		if (!(f & ~d->features) && f & VIRTIO_BIT(VIRTIO_F_VERSION_1)) {
			d->acked = f;
			d->status |= VIRTIO_CONFIG_S_FEATURES_OK;
		}
	}
	if (add & VIRTIO_CONFIG_S_DRIVER_OK && d->status & VIRTIO_CONFIG_S_FEATURES_OK)
		driver_ok(d);
}

static int may_set_queue(const struct virtio_dev *d, const struct virtio_queue *q)
{
	if (!(d->status & VIRTIO_CONFIG_S_FEATURES_OK) || q->reg_enable || q->stop_pending)
		return 0;
	return !(d->status & VIRTIO_CONFIG_S_DRIVER_OK) || virtio_has(d, VIRTIO_F_RING_RESET);
}

static void queue_enable(struct virtio_dev *d, struct virtio_queue *q)
{
	q->vq.size = q->reg_size;
	q->vq.desc_gpa = q->reg_desc;
	q->vq.avail_gpa = q->reg_avail;
	q->vq.used_gpa = q->reg_used;
	q->vq.event_idx = virtio_has(d, VIRTIO_RING_F_EVENT_IDX);
	q->vq.indirect = virtio_has(d, VIRTIO_RING_F_INDIRECT_DESC);
	if (vq_enable(&q->vq)) {
		log_warn("virtio", "%s: queue %u has rings outside memory or misaligned", d->label, q->index);
		__atomic_store_n(&d->needs_reset, 1, __ATOMIC_SEQ_CST);
		return;
	}
	q->reg_enable = 1;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_start_queue(q);
}

static void set_half(uint64_t *reg, int high, uint32_t v)
{
	*reg = high ? (*reg & UINT32_MAX) | (uint64_t)v << 32 : (*reg & ~(uint64_t)UINT32_MAX) | v;
}

static void set_vector(const struct virtio_dev *d, uint16_t *vector, uint32_t v)
{
	__atomic_store_n(vector, v < d->pci.n_msix ? (uint16_t)v : VIRTIO_NO_VECTOR, __ATOMIC_RELAXED);
}

static void queue_write(struct virtio_dev *d, unsigned field, uint32_t v)
{
	struct virtio_queue *q = d->queue_select < d->n_queues ? &d->queue[d->queue_select] : NULL;

	if (!q)
		return;
	if (field == VIRTIO_PCI_COMMON_Q_RESET) {
		if (v == 1 && q->reg_enable && virtio_has(d, VIRTIO_F_RING_RESET) && !q->reg_reset) {
			q->reg_reset = 1;
			if (q->started) {
				virtio_stop_queue(q);
			} else {
				vq_disable(&q->vq);
				q->reg_enable = q->reg_reset = 0;
			}
		}
		return;
	}
	if (field == VIRTIO_PCI_COMMON_Q_MSIX) { /* Linux sets it at any time before DRIVER_OK, others before FEATURES_OK */
		set_vector(d, &q->vector, v);
		if (q->started && d->ops->queue_vector)
			d->ops->queue_vector(q);
		return;
	}
	if (!may_set_queue(d, q)) {
		log_debug("virtio", "%s: write of queue register %u out of turn", d->label, field);
		return;
	}
	switch (field) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (v && v <= d->max_queue_size && !(v & (v - 1)))
			q->reg_size = (uint16_t)v;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (v == 1)
			queue_enable(d, q);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_half(&q->reg_desc, field == VIRTIO_PCI_COMMON_Q_DESCHI, v);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_half(&q->reg_avail, field == VIRTIO_PCI_COMMON_Q_AVAILHI, v);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_half(&q->reg_used, field == VIRTIO_PCI_COMMON_Q_USEDHI, v);
		break;
	default:
		break;
	}
}

/* The register that holds byte `off`, and its width. */
static unsigned common_field(unsigned off, unsigned *width)
{
	unsigned field;

	if (off < VIRTIO_PCI_COMMON_MSIX || (off >= VIRTIO_PCI_COMMON_Q_DESCLO && off < VIRTIO_PCI_COMMON_Q_NDATA)) {
		field = off & ~3u;
		*width = 4;
	} else if (off == VIRTIO_PCI_COMMON_STATUS || off == VIRTIO_PCI_COMMON_CFGGENERATION) {
		field = off;
		*width = 1;
	} else {
		field = off & ~1u;
		*width = 2;
	}
	return field;
}

static void common_write_field(struct virtio_dev *d, unsigned field, uint32_t v)
{
	if (d->resetting)
		return;
	switch (field) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		d->feature_select = v;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		d->driver_feature_select = v;
		break;
	case VIRTIO_PCI_COMMON_GF:
		if (!(d->status & VIRTIO_CONFIG_S_FEATURES_OK) && d->driver_feature_select < 2)
			set_half(&d->driver_features, (int)d->driver_feature_select, v);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		set_vector(d, &d->config_vector, v);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		status_write(d, (uint8_t)v);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		d->queue_select = (uint16_t)v;
		break;
	default:
		if (field >= VIRTIO_PCI_COMMON_Q_SIZE)
			queue_write(d, field, v);
	}
}

static uint32_t queue_read(const struct virtio_dev *d, unsigned field)
{
	const struct virtio_queue *q = d->queue_select < d->n_queues ? &d->queue[d->queue_select] : NULL;

	if (!q) /* a size of 0: no such queue */
		return field == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_NO_VECTOR : 0;
	switch (field) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->reg_size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return __atomic_load_n(&q->vector, __ATOMIC_RELAXED);
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->reg_enable;
	case VIRTIO_PCI_COMMON_Q_NOFF:
	case VIRTIO_PCI_COMMON_Q_NDATA:
		return q->index;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return (uint32_t)q->reg_desc;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return (uint32_t)(q->reg_desc >> 32);
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return (uint32_t)q->reg_avail;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return (uint32_t)(q->reg_avail >> 32);
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return (uint32_t)q->reg_used;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return (uint32_t)(q->reg_used >> 32);
	case VIRTIO_PCI_COMMON_Q_RESET:
		return q->reg_reset;
	default:
		return 0;
	}
}

static uint32_t common_read_field(struct virtio_dev *d, unsigned field)
{
	switch (field) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return d->feature_select;
	case VIRTIO_PCI_COMMON_DF:
		return d->feature_select < 2 ? (uint32_t)(d->features >> (32 * d->feature_select)) : 0;
	case VIRTIO_PCI_COMMON_GFSELECT:
		return d->driver_feature_select;
	case VIRTIO_PCI_COMMON_GF:
		return d->driver_feature_select < 2 ? (uint32_t)(d->driver_features >> (32 * d->driver_feature_select)) : 0;
	case VIRTIO_PCI_COMMON_MSIX:
		return __atomic_load_n(&d->config_vector, __ATOMIC_RELAXED);
	case VIRTIO_PCI_COMMON_NUMQ:
		return d->n_queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return status_read(d);
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return __atomic_load_n(&d->generation, __ATOMIC_SEQ_CST);
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return d->queue_select;
	default:
		return queue_read(d, field);
	}
}

/* Writes take effect per register and only for whole ones, apart from 64-bit accesses to a pair of halves. */
static void common_access(struct virtio_dev *d, unsigned off, uint8_t *data, unsigned len, int write)
{
	unsigned done = 0;

	while (done < len && off + done < COMMON_LEN) {
		unsigned width, field = common_field(off + done, &width), skip = off + done - field;
		unsigned n = width - skip < len - done ? width - skip : len - done;
		uint32_t v;

		if (write && n == width) {
			v = 0;
			memcpy(&v, data + done, width);
			common_write_field(d, field, v);
		} else if (!write) {
			v = common_read_field(d, field) >> (8 * skip);
			memcpy(data + done, &v, n);
		}
		done += n;
	}
}

static void bar_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct virtio_dev *d = ctx;

	memset(data, 0, len);
	if (off >= ISR_AT && off < ISR_AT + 4) {
		if (off == ISR_AT) {
			uint8_t isr;

			/* The level and the bits change together: a new bit raises the line after this lowered it. */
			pci_intx(&d->pci, 0);
			isr = __atomic_exchange_n(&d->isr, 0, __ATOMIC_SEQ_CST);
			memcpy(data, &isr, 1);
		}
		return;
	}
	pthread_mutex_lock(&d->lock);
	if (off < COMMON_LEN)
		common_access(d, (unsigned)off, data, len, 0);
	else if (off >= CONFIG_AT && off - CONFIG_AT < d->config_size && d->ops->config_read) {
		unsigned at = (unsigned)off - CONFIG_AT, n = d->config_size - at < len ? d->config_size - at : len;

		d->ops->config_read(d, at, data, n);
	}
	pthread_mutex_unlock(&d->lock);
}

static void notify_write(struct virtio_dev *d, uint64_t off)
{
	uint64_t q = (off - NOTIFY_AT) / NOTIFY_MULT, one = 1;

	if (q < d->n_queues && write(d->queue[q].kick_fd, &one, sizeof(one)) < 0)
		log_debug("virtio", "%s: doorbell: %s", d->label, strerror(errno));
}

static void bar_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct virtio_dev *d = ctx;

	if (off >= NOTIFY_AT && off < TABLE_AT) {
		notify_write(d, off);
		return;
	}
	pthread_mutex_lock(&d->lock);
	if (off < COMMON_LEN)
		common_access(d, (unsigned)off, (uint8_t *)data, len, 1);
	else if (off >= CONFIG_AT && off - CONFIG_AT < d->config_size && len <= d->config_size - (off - CONFIG_AT) &&
		 d->ops->config_write && !d->resetting)
		d->ops->config_write(d, (unsigned)off - CONFIG_AT, data, len);
	pthread_mutex_unlock(&d->lock);
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

/* VIRTIO_PCI_CAP_PCI_CFG: a window through configuration space for who cannot map BARs. */
static int window(struct pci_dev *p, unsigned off, unsigned *at, unsigned *len)
{
	const uint8_t *c = p->config + dev_of(p)->pci_cfg_cap;

	if (!dev_of(p)->pci_cfg_cap || off != dev_of(p)->pci_cfg_cap + sizeof(struct virtio_pci_cap))
		return 0;
	*at = pci_get32(c + VIRTIO_PCI_CAP_OFFSET);
	*len = pci_get32(c + VIRTIO_PCI_CAP_LENGTH);
	return c[VIRTIO_PCI_CAP_BAR] == BAR && (*len == 1 || *len == 2 || *len == 4) && !(*at % *len) && *at <= BAR_SIZE - *len;
}

static void config_read(struct pci_dev *p, unsigned off, unsigned len)
{
	unsigned at, n;

	(void)len;
	if (window(p, off, &at, &n))
		pci_bar_read(p, BAR, at, p->config + off, n);
}

static void config_write(struct pci_dev *p, unsigned off, unsigned len)
{
	unsigned at, n;

	(void)len;
	if (window(p, off, &at, &n))
		pci_bar_write(p, BAR, at, p->config + off, n);
}

static int add_cap(struct virtio_dev *d, uint8_t type, uint32_t off, uint32_t len, const uint32_t *extra, const uint8_t *wmask)
{
	uint8_t body[18] = {0};
	unsigned n = 14 + (extra ? 4 : 0);

	body[0] = (uint8_t)(n + 2);
	body[1] = type;
	body[2] = type == VIRTIO_PCI_CAP_PCI_CFG ? 0 : BAR;
	pci_put32(body + VIRTIO_PCI_CAP_OFFSET - 2, off);
	pci_put32(body + VIRTIO_PCI_CAP_LENGTH - 2, len);
	if (extra)
		pci_put32(body + 14, *extra);
	return (int)pci_add_cap(&d->pci, PCI_CAP_ID_VNDR, body, n, wmask);
}

static void add_caps(struct virtio_dev *d)
{
	static const uint32_t mult = NOTIFY_MULT, zero;
	static const uint8_t window_mask[18] = {0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
						0xff, 0xff, 0xff, 0xff};

	add_cap(d, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_AT, COMMON_LEN, NULL, NULL);
	add_cap(d, VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, 1, NULL, NULL);
	if (d->config_size)
		add_cap(d, VIRTIO_PCI_CAP_DEVICE_CFG, CONFIG_AT, d->config_size, NULL, NULL);
	add_cap(d, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_AT, NOTIFY_MULT * d->n_queues, &mult, NULL);
	d->pci_cfg_cap = (unsigned)add_cap(d, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, &zero, window_mask);
}

static void on_loop(struct virtio_queue *q, void (*fn)(void *queue))
{
	if (loop_is_current(q->loop))
		fn(q);
	else
		loop_call(q->loop, fn, q);
}

/* [main] The machine's reset, or the end: begins a reset and waits for it. */
static void reset_now(struct pci_dev *p)
{
	struct virtio_dev *d = dev_of(p);

	pthread_mutex_lock(&d->lock);
	virtio_begin_reset(d);
	for (unsigned i = 0; i < d->n_queues; i++) {
		struct virtio_queue *q = &d->queue[i];

		if (!q->stop_pending)
			continue;
		pthread_mutex_unlock(&d->lock);
		on_loop(q, virtio_sync_queue);
		pthread_mutex_lock(&d->lock);
	}
	while (d->resetting)
		pthread_cond_wait(&d->idle, &d->lock);
	pthread_mutex_unlock(&d->lock);
}

int virtio_pci_init(struct virtio_dev *d, struct pci_host *h, struct vh_err *e)
{
	struct pci_dev *p = &d->pci;
	int r;

	if (!d->n_queues || d->n_queues > MAX_QUEUES || !d->max_queue_size || d->max_queue_size > VQ_MAX_SIZE)
		return err_set(e, -EINVAL, "%s: %u queues of %u are too many", d->label, d->n_queues, d->max_queue_size);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->idle, NULL);
	d->features |= NEGOTIATED;
	p->name = d->label;
	pci_init_config(p, 0x1af4, (uint16_t)(0x1040 + d->ops->id), 0x1af4, 0x1100, 1, d->ops->pci_class[0],
			d->ops->pci_class[1], d->ops->pci_class[2]);
	p->bar[BAR] = (struct pci_bar){.size = BAR_SIZE, .is64 = 1, .prefetch = 1, .ops = &bar_ops, .ctx = d};
	p->config_read = config_read;
	p->config_write = config_write;
	p->bar_moved = bar_moved;
	p->reset = reset_now;
	add_caps(d);
	virtio_transport_reset(d);
	r = pci_msix_init(p, d->n_queues + 1, BAR, TABLE_AT, PBA_AT, e);
	if (!r)
		r = pci_add(h, p, -1, e);
	if (r) {
		pci_msix_exit(p);
		pthread_mutex_destroy(&d->lock);
		pthread_cond_destroy(&d->idle);
	}
	return r;
}

void virtio_pci_exit(struct virtio_dev *d)
{
	struct pci_host *h = d->pci.host;

	if (!h)
		return;
	/* First out of the guest's sight, so that it cannot start the device again. */
	pci_hide(h, &d->pci);
	reset_now(&d->pci);
	for (unsigned i = 0; i < d->n_queues; i++)
		on_loop(&d->queue[i], virtio_forget_queue);
	pci_remove(h, &d->pci);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->idle);
}
