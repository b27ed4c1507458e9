/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Keeps a failing state: the image as the crash left it, and the record that it was made of, which can be used again. */
#include "crash/crash-i.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define FILE_MAGIC "VHCRASH1"

struct file_head {
	char magic[8];
	uint32_t volumes, events, ops, time, number, backing;
	uint64_t seed, bytes, unit, start, most, backed, operations;
};

struct file_mem {
	uint64_t bytes, chunks;
};

static int copy_fd(int fd, const char *path, struct vh_err *e)
{
	g_autofree uint8_t *buf = g_malloc(1u << 20);
	int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), ret = 0;
	off_t end = lseek(fd, 0, SEEK_END), at = 0;

	if (out < 0)
		return err_set(e, -errno, "cannot write %s: %s", path, strerror(errno));
	while (at < end && !ret) { /* holes stay holes */
		off_t data = lseek(fd, at, SEEK_DATA), hole = data < 0 ? end : lseek(fd, data, SEEK_HOLE);
		ssize_t n;

		if (data < 0)
			break;
		n = pread(fd, buf, (size_t)MIN(hole - data, 1 << 20), data);
		if (n <= 0 || pwrite(out, buf, (size_t)n, data) != n)
			ret = -EIO;
		at = data + n;
	}
	if (!ret && ftruncate(out, end) < 0)
		ret = -errno;
	if (close(out) < 0 && !ret)
		ret = -errno;
	return ret ? err_set(e, ret, "cannot write %s: %s", path, strerror(-ret)) : 0;
}

static int put(FILE *f, const void *p, size_t n)
{
	return n && fwrite(p, 1, n, f) != n ? -EIO : 0;
}

static int mem_save(FILE *f, const struct mem *m)
{
	struct file_mem h = {.bytes = m->bytes};
	int ret;

	for (uint64_t k = 0; k < m->cap; k++)
		h.chunks += m->chunk[k] != NULL;
	ret = put(f, &h, sizeof(h));
	for (uint64_t k = 0; k < m->cap && !ret; k++) {
		if (!m->chunk[k])
			continue;
		ret = put(f, &k, sizeof(k));
		if (!ret)
			ret = put(f, m->chunk[k], MEM_CHUNK);
	}
	return ret;
}

static int trace_save(struct round *r, const char *path, struct vh_err *e)
{
	struct trace *t = r->trace;
	struct oracle *o = r->oracle;
	struct file_head h = {.magic = FILE_MAGIC, .volumes = r->volumes, .events = t->events->len, .ops = o->ops->len, .time = t->time,
			      .number = r->number, .backing = (uint32_t)r->backing, .seed = r->seed, .bytes = r->bytes,
			      .unit = r->unit, .start = o->start, .most = o->most, .backed = o->backing, .operations = r->operations};
	FILE *f = fopen(path, "w");
	int ret = f ? put(f, &h, sizeof(h)) : -errno;

	for (unsigned v = 0; v < r->volumes && !ret; v++) {
		char name[1024] = "";

		g_strlcpy(name, r->names[v], sizeof(name));
		ret = put(f, name, sizeof(name));
		if (!ret)
			ret = mem_save(f, &t->start[v]);
	}
	for (uint32_t k = 0; k < t->events->len && !ret; k++) {
		const struct trace_event *x = trace_at(t, k);

		ret = put(f, x, sizeof(*x));
		if (!ret && x->data)
			ret = put(f, x->data, x->len);
	}
	for (uint32_t k = 0; k < o->ops->len && !ret; k++) {
		const struct oracle_op *x = oracle_op(o, k);

		ret = put(f, x, sizeof(*x));
		if (!ret && x->values)
			ret = put(f, x->values, o->most * sizeof(uint32_t));
	}
	if (f && fclose(f) && !ret)
		ret = -errno;
	return ret ? err_set(e, ret, "cannot write %s: %s", path, strerror(-ret)) : 0;
}

static int get(FILE *f, void *p, size_t n)
{
	return n && fread(p, 1, n, f) != n ? -EINVAL : 0;
}

static int mem_load(FILE *f, struct mem *m)
{
	uint8_t chunk[MEM_CHUNK];
	struct file_mem h;
	int ret = get(f, &h, sizeof(h));

	if (!ret && (h.bytes > UINT64_C(1) << 32 || h.chunks > h.bytes / MEM_CHUNK + 1))
		ret = -EINVAL;
	for (uint64_t k = 0; !ret && k < h.chunks; k++) {
		uint64_t at;

		ret = get(f, &at, sizeof(at));
		if (!ret)
			ret = get(f, chunk, sizeof(chunk));
		if (!ret && at > h.bytes / MEM_CHUNK)
			ret = -EINVAL;
		if (!ret)
			image_write(m, at * MEM_CHUNK, chunk, sizeof(chunk));
	}
	if (!ret)
		image_resize(m, h.bytes);
	return ret;
}

static int event_load(FILE *f, struct trace *t)
{
	struct trace_event x;
	int ret = get(f, &x, sizeof(x)), has = !ret && x.data != NULL;

	if (ret)
		return ret;
	x.data = NULL;
	if (x.vol >= t->volumes || x.len > UINT64_C(1) << 32 || x.off > UINT64_C(1) << 32)
		return -EINVAL;
	if (has) {
		x.data = g_try_malloc(x.len);
		ret = x.data ? get(f, x.data, x.len) : -ENOMEM;
	}
	if (ret || (x.op == VH_WRITE && x.applied && !x.data)) {
		g_free(x.data);
		return -EINVAL;
	}
	g_array_append_val(t->events, x);
	return 0;
}

static int op_load(FILE *f, struct oracle *o)
{
	struct oracle_op x;
	int ret = get(f, &x, sizeof(x)), has = !ret && x.values != NULL;

	if (ret)
		return ret;
	x.values = has ? g_new0(uint32_t, o->most) : NULL;
	if (has)
		ret = get(f, x.values, o->most * sizeof(uint32_t));
	if (ret || (uint64_t)x.c + x.n > o->most || (x.op == ORACLE_APPLY && !has)) {
		g_free(x.values);
		return -EINVAL;
	}
	oracle_begin(o, &x);
	return 0;
}

/* The file is a person's own: it is checked so far that it leads nowhere outside. */
int trace_load(struct round *r, const char *path, struct vh_err *e)
{
	FILE *f = fopen(path, "r");
	struct file_head h;
	int ret = f ? get(f, &h, sizeof(h)) : -errno;

	if (!ret && (memcmp(h.magic, FILE_MAGIC, 8) || !h.volumes || h.volumes > CRASH_VOLUMES || h.most > UINT64_C(1) << 23 ||
		     h.bytes > UINT64_C(1) << 32))
		ret = -EINVAL;
	if (!ret && h.backing && !r->base)
		ret = err_set(e, -EINVAL, "the record %s was made with a backing image; add --backing on", path);
	if (ret)
		goto out;
	r->volumes = h.volumes;
	r->number = h.number;
	r->seed = h.seed;
	r->unit = h.unit;
	r->operations = h.operations;
	r->backing = (int)h.backing;
	r->trace = trace_new(h.volumes);
	r->oracle = oracle_new(h.start, h.most, h.backed);
	r->trace->time = h.time;
	for (unsigned v = 0; v < h.volumes && !ret; v++) {
		char name[1024];

		ret = get(f, name, sizeof(name));
		if (ret)
			break;
		g_free(r->names[v]);
		r->names[v] = g_strndup(name, sizeof(name) - 1);
		ret = mem_load(f, &r->trace->start[v]);
	}
	for (uint32_t k = 0; k < h.events && !ret; k++)
		ret = event_load(f, r->trace);
	for (uint32_t k = 0; k < h.ops && !ret; k++)
		ret = op_load(f, r->oracle);
	if (!ret)
		trace_end(r->trace);
out:
	if (f)
		fclose(f);
	return ret ? err_set(e, ret, "cannot use the record %s: %s", path, strerror(-ret)) : 0;
}

int state_keep(struct round *r, const char *dir, struct crash_result *res, struct vh_err *e)
{
	g_autofree char *record = g_build_filename(dir, "record", NULL), *report = g_build_filename(dir, "report", NULL), *text = NULL;
	g_autoptr(GError) failed = NULL;
	int ret = 0;

	if (g_mkdir_with_parents(dir, 0755) < 0)
		return err_set(e, -errno, "cannot make the folder %s: %s", dir, strerror(errno));
	for (unsigned v = 0; v < r->volumes && !ret; v++) {
		g_autofree char *path = g_build_filename(dir, r->names[v], NULL);

		ret = copy_fd(r->fds[v], path, e);
	}
	if (!ret && r->base) {
		g_autofree char *path = g_build_filename(dir, r->base_name, NULL);

		ret = copy_fd(r->base_fd, path, e);
	}
	if (!ret)
		ret = trace_save(r, record, e);
	text = g_strdup_printf("format %s\nseed %llu\nstate %s\nrecord %016llx\n%s\n", r->spec->format,
			       (unsigned long long)r->spec->seed, res->state, (unsigned long long)res->fingerprint, res->text);
	if (!ret && !g_file_set_contents(report, text, -1, &failed))
		ret = err_set(e, -EIO, "cannot write %s: %s", report, failed->message);
	return ret;
}
