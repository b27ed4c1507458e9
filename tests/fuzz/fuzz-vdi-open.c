/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Any bytes as a vdi image, by the plugin itself over a volume in memory: inspected, opened, mapped all over, written,
 * resized, checked, repaired. Every answer must pass the host's validator, and what was repaired must open and be clean.
 * Input: 16 bits of the volume's size in KiB, 16 bits of what is done, then the file's bytes; zeros follow.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/plugin.h>
#include "fmt/validate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROOM (UINT64_C(24) << 20) /* the volume never gets larger */

struct vh_meta {
	uint8_t *data; /* ROOM bytes, of which `used` may not be zeros */
	uint64_t bytes, used;
};

static void must(int ok)
{
	if (!ok)
		abort(); /* what a fuzz target is for */
}

static int m_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off)
{
	uint64_t have = off < m->used ? m->used - off : 0;

	have = have < len ? have : len;
	memcpy(buf, m->data + (have ? off : 0), have);
	memset((uint8_t *)buf + have, 0, len - have);
	return 0;
}

static int m_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	if (off > ROOM || len > ROOM - off)
		return -ENOSPC;
	if (off > m->used)
		memset(m->data + m->used, 0, off - m->used);
	memcpy(m->data + off, buf, len);
	m->used = m->used > off + len ? m->used : off + len;
	m->bytes = m->bytes > m->used ? m->bytes : m->used;
	return 0;
}

static int m_zero(struct vh_meta *m, uint64_t len, uint64_t off)
{
	if (off > ROOM || len > ROOM - off)
		return -ENOSPC;
	if (off < m->used)
		memset(m->data + off, 0, len < m->used - off ? len : m->used - off);
	m->bytes = m->bytes > off + len ? m->bytes : off + len;
	return 0;
}

static int m_flush(struct vh_meta *m) { return 0; }
static uint64_t m_bytes(struct vh_meta *m) { return m->bytes; }
static int m_resize(struct vh_meta *m, uint64_t bytes)
{
	if (bytes > ROOM)
		return -ENOSPC;
	m->bytes = bytes;
	m->used = m->used < bytes ? m->used : bytes;
	return 0;
}

static const struct vh_meta_ops meta = {.size = sizeof(meta), .read = m_read, .write = m_write, .zero = m_zero, .flush = m_flush,
					.bytes = m_bytes, .resize = m_resize};

static const void *service(const struct vh_host *h, const char *iid) { return strcmp(iid, VH_SVC_META) ? NULL : &meta; }
static int h_verr(struct vh_err *e, int code, const char *fmt, va_list ap) { return code; }
static int h_err(struct vh_err *e, int code, const char *fmt, ...)
{
	must(code < 0 && code > -4096);
	return code;
}
static void h_remedy(struct vh_err *e, const char *fmt, ...) { }
static const struct vh_host host = {.size = sizeof(host), .service = service, .err = h_err, .verr = h_verr, .remedy = h_remedy};

static int findings;
static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	findings += what != VH_CHECK_FIXED;
}

static struct fmt_rules rules_of(const struct vh_format_ops *ops, void *img, int read_only)
{
	struct vh_image_info i = {.size = sizeof(i)};

	must(ops->info(img, &i) == 0);
	must(i.unit && !(i.unit & (i.unit - 1)));
	return (struct fmt_rules){.bytes = i.bytes, .backing_bytes = i.backing_bytes, .caps = i.caps, .unit = i.unit, .volumes = 1,
				  .read_only = read_only, .has_commit = 1};
}

/* Asks for a part of the disk; whoever writes commits or aborts. Bounded: the disk may be huge. */
static void map_some(const struct vh_format_ops *ops, void *img, const struct fmt_rules *r, uint32_t op, uint32_t seed)
{
	uint64_t pos = r->bytes ? seed * UINT64_C(2654435761) % r->bytes : 0;

	for (int k = 0; k < 24 && pos < r->bytes; k++) {
		struct vh_extent ext[16];
		struct vh_map m = {.size = sizeof(m), .op = op, .cap = 16, .pos = pos, .ext = ext};
		int commits = 0, res;

		m.len = r->bytes - pos < 100000 ? r->bytes - pos : 100000;
		if (op == VH_MAP_ZERO && k % 2)
			m.flags = VH_MAP_MAY_UNMAP;
		res = ops->map(img, &m);
		must(res <= 0 && res != -EAGAIN);
		if (res < 0)
			return;
		must(!fmt_validate(r, &m));
		for (uint32_t j = 0; j < m.n; j++)
			commits |= ext[j].flags & VH_EXT_COMMIT;
		if (commits)
			must(ops->commit(img, &m, (seed + (uint32_t)k) % 3 ? 0 : k % 2 ? -EIO : -ETIMEDOUT, 0) == 0);
		pos = ext[m.n - 1].pos + ext[m.n - 1].len;
		if (pos % 5 == 0 && r->bytes > 1 << 20)
			pos += (r->bytes - pos) / 2;
	}
}

static void *open_as(const struct vh_format_ops *ops, struct vh_meta *m, uint64_t flags)
{
	struct vh_meta *vols[1] = {m};
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = vols, .flags = flags};
	void *img = NULL;

	return ops->open(&o, &img, NULL) < 0 ? NULL : img;
}

static void change(const struct vh_format_ops *ops, struct vh_meta *m, uint32_t what)
{
	void *img = open_as(ops, m, 0);
	struct fmt_rules r;

	if (!img)
		return;
	for (int k = 0; k < 3; k++) {
		r = rules_of(ops, img, 0);
		map_some(ops, img, &r, VH_MAP_WRITE, what);
		map_some(ops, img, &r, what & 1 ? VH_MAP_DISCARD : VH_MAP_ZERO, what * 7);
		for (uint32_t phase = 0; ops->flush(img, phase) > 0; phase++)
			must(phase < 4);
		if (what & 2)
			ops->resize(img, what & 4 ? r.bytes / 2 & ~511ull : (r.bytes + what * 512) & ~511ull, NULL, NULL);
		what = what * 5 + 3;
	}
	findings = 0;
	if (ops->check(img, 0, found, NULL, NULL, NULL) == 0 && !(what & 64))
		ops->empty(img, NULL, NULL);
	ops->close(img);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vh_meta m;
	static const struct vh_format_ops *ops;
	struct vh_ref ref = {.size = sizeof(ref)};
	uint32_t what;
	void *img;

	if (!ops) {
		const struct vh_plugin *p;

		must(vh_plugin_entry_v1(&host, &p) == 0);
		ops = p->get(VH_IID_FORMAT);
		m.data = malloc(ROOM);
		must(m.data != NULL);
	}
	if (size < 4)
		return 0;
	m.used = size - 4;
	m.bytes = (uint64_t)(data[0] | data[1] << 8) * 1024 % ROOM;
	m.bytes = m.bytes > m.used ? m.bytes : m.used;
	what = data[2] | (uint32_t)data[3] << 8;
	memcpy(m.data, data + 4, m.used);
	ops->probe(m.data, m.used < 512 ? m.used : 512, m.bytes);
	must(ops->inspect(&m, &ref, 1, NULL) <= 1);
	img = open_as(ops, &m, VH_OPEN_RO);
	if (img) {
		struct fmt_rules r = rules_of(ops, img, 1);

		map_some(ops, img, &r, VH_MAP_READ, what);
		map_some(ops, img, &r, VH_MAP_REPORT, what * 3);
		findings = 0;
		must(ops->check(img, 0, found, NULL, NULL, NULL) <= 0);
		ops->close(img);
	}
	change(ops, &m, what);
	img = open_as(ops, &m, VH_OPEN_REPAIR);
	if (img) {
		int res = ops->check(img, VH_CHECK_LEAK | VH_CHECK_CORRUPT, found, NULL, NULL, NULL);

		ops->close(img);
		if (res == 0) {
			img = open_as(ops, &m, VH_OPEN_REPAIR | VH_OPEN_RO);
			must(img != NULL);
			findings = 0;
			must(ops->check(img, 0, found, NULL, NULL, NULL) == 0 && !findings);
			ops->close(img);
		}
	}
	return 0;
}
