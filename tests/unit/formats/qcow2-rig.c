/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "qcow2-rig.h"

#define CAPS (VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW)

char *q2_dir;
int q2_all;

static int shell(char **out, const char *fmt, va_list ap)
{
	g_autofree char *cmd = g_strdup_vprintf(fmt, ap), *all = g_strdup_printf("cd '%s' && { %s; } 2>&1", q2_dir, cmd);
	const char *argv[] = {"sh", "-c", all, NULL};
	int status;

	g_assert_true(g_spawn_sync(NULL, (char **)(uintptr_t)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, out, NULL, &status, NULL));
	return status;
}

void q2_run(const char *fmt, ...)
{
	g_autofree char *out = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (shell(&out, fmt, ap))
		g_error("%s: %s", fmt, out);
	va_end(ap);
}

int q2_try(const char *fmt, ...)
{
	g_autofree char *out = NULL;
	va_list ap;
	int s;

	va_start(ap, fmt);
	s = shell(&out, fmt, ap);
	va_end(ap);
	return WIFEXITED(s) ? WEXITSTATUS(s) : -1;
}

char *q2_out(const char *fmt, ...)
{
	char *out = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (shell(&out, fmt, ap))
		g_error("%s: %s", fmt, out);
	va_end(ap);
	return out;
}

uint8_t *q2_file(const char *name, gsize *n)
{
	g_autofree char *path = g_build_filename(q2_dir, name, NULL);
	g_autoptr(GError) e = NULL;
	char *data;

	g_file_get_contents(path, &data, n, &e);
	g_assert_no_error(e);
	return (uint8_t *)data;
}

void q2_file_set(const char *name, const void *data, gsize n)
{
	g_autofree char *path = g_build_filename(q2_dir, name, NULL);

	g_assert_true(g_file_set_contents(path, data, (gssize)n, NULL));
}

uint8_t *q2_raw(const char *name, gsize *n)
{
	q2_run("qemu-img convert -f qcow2 -O raw %s out.raw", name);
	return q2_file("out.raw", n);
}

static int resolve(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32], struct vh_err *e)
{
	gsize n;
	g_autofree uint8_t *data = q2_file(ref->name, &n);

	*vol = fake_vol_new(ref->name, 0, CAPS);
	fake_vol_set(*vol, data, n);
	fake_vol_sync(*vol, 1);
	g_strlcpy(format, ref->format[0] ? ref->format : "raw", 32);
	return 0;
}

const struct vh_format_ops *q2_ops(void)
{
	const struct vh_format_ops *ops;
	struct vh_err e = {0};

	if (plug_format("qcow2", &ops, &e) < 0)
		g_error("%s", e.cause);
	return ops;
}

int q2_try_open(struct q2_img *m, const char *name, int how, const struct vh_opts *o, struct vh_err *e)
{
	struct fmt_spec s = {.ops = q2_ops(), .opts = o, .read_only = !!(how & Q2_RO), .repair = !!(how & Q2_REPAIR), .label = name,
			     .resolve = resolve};
	gsize n;
	g_autofree uint8_t *data = q2_file(name, &n);
	int r;

	m->v = fake_vol_new(name, 0, how & Q2_RO ? CAPS | VH_VOL_READ_ONLY : CAPS);
	fake_vol_set(m->v, data, n);
	fake_vol_sync(m->v, 1);
	s.vol = blk_vol_ref(m->v);
	m->name = how & Q2_RO ? NULL : g_strdup(name);
	r = fmt_open(&s, &m->i, e);
	if (r < 0) {
		blk_vol_put(m->v);
		g_clear_pointer(&m->name, g_free);
	}
	return r;
}

void q2_open_(struct q2_img *m, const char *name, int how)
{
	struct vh_err e = {0};

	if (q2_try_open(m, name, how, NULL, &e) < 0)
		g_error("open %s: %s", name, e.cause);
}

void q2_close_(struct q2_img *m)
{
	fmt_close(m->i);
	if (m->name)
		q2_file_set(m->name, fake_vol_data(m->v), blk_vol_bytes(m->v));
	g_clear_pointer(&m->name, g_free);
	blk_vol_put(m->v);
}

struct vh_opts *q2_opts(const char *name, const char *str, int64_t num, ...)
{
	struct vh_opts *o = g_new0(struct vh_opts, 1);
	const struct vh_val **v = g_new0(const struct vh_val *, 16);
	va_list ap;

	o->size = sizeof(*o);
	o->val = v;
	va_start(ap, num);
	while (name) {
		struct vh_val *x = g_new0(struct vh_val, 1);

		x->size = sizeof(*x);
		x->name = name;
		x->str = str;
		x->num = num;
		v[o->n++] = x;
		name = va_arg(ap, const char *);
		if (!name)
			break;
		str = va_arg(ap, const char *);
		num = va_arg(ap, int64_t);
	}
	va_end(ap);
	return o;
}

void q2_opts_free(struct vh_opts *o)
{
	for (uint32_t k = 0; k < o->n; k++)
		g_free((void *)(uintptr_t)o->val[k]);
	g_free((void *)(uintptr_t)o->val);
	g_free(o);
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct q2_found *f = ctx;

	if (!f->first[0])
		g_snprintf(f->first, sizeof(f->first), "%s", text);
	*(what == VH_CHECK_LEAK ? &f->leaks : what == VH_CHECK_CORRUPT ? &f->bad : &f->fixed) += 1;
}

int q2_check_(struct q2_img *m, int repair, struct q2_found *f, struct vh_err *e)
{
	memset(f, 0, sizeof(*f));
	return fmt_check(m->i, repair, found, f, NULL, e);
}

int q2_verdict(const char *name)
{
	struct q2_img m;
	struct q2_found f;
	struct vh_err e = {0};
	int theirs = q2_try("qemu-img check -q -f qcow2 %s", name), ours;

	if (q2_try_open(&m, name, Q2_RO | Q2_REPAIR, NULL, &e) < 0)
		g_error("open %s: %s", name, e.cause);
	if (q2_check_(&m, 0, &f, &e) < 0)
		g_error("check %s: %s", name, e.cause);
	q2_close_(&m);
	ours = f.bad ? 2 : f.leaks ? 3 : 0;
	if (ours == 2 && !theirs && g_str_has_prefix(f.first, "something else lies over"))
		return ours; /* the counts agree, which is all that qemu-img looks at */
	if (ours != theirs && !(theirs == 1 && ours)) { /* 1: it did not get to the end */
		g_autofree char *out = NULL;

		q2_try("qemu-img check -f qcow2 %s > said 2>&1", name);
		out = (char *)q2_file("said", &(gsize){0});
		g_error("%s: qemu-img says %d (%.400s), here: %d (%s)", name, theirs, out, ours, f.first);
	}
	return ours;
}

void q2_clean(const char *name)
{
	int v = q2_verdict(name);

	if (v)
		g_error("%s is not clean: %d", name, v);
}

void q2_same(const uint8_t *a, const uint8_t *b, gsize n, const char *when)
{
	for (gsize k = 0; k < n; k++)
		if (a[k] != b[k])
			g_error("%s: byte %" G_GSIZE_FORMAT " is %u, not %u", when, k, a[k], b[k]);
}

void q2_reads(const char *name, const struct vh_opts *o, const uint8_t *want, gsize n, const char *when)
{
	g_autofree uint8_t *b = g_malloc(n + 1);
	struct fmt_info info;
	struct q2_img m;
	struct vh_err e = {0};

	if (q2_try_open(&m, name, Q2_RO, o, &e) < 0)
		g_error("%s: open %s: %s", when, name, e.cause);
	fmt_get_info(m.i, &info);
	g_assert_cmpuint(info.bytes, ==, n);
	if (fmt_pread(m.i, b, n, 0, &e) < 0)
		g_error("%s: read %s: %s", when, name, e.cause);
	q2_close_(&m);
	q2_same(b, want, n, when);
}

uint64_t q2_be(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned k = 0; k < bytes; k++)
		v = v << 8 | p[k];
	return v;
}

void q2_put(uint8_t *p, unsigned bytes, uint64_t v)
{
	while (bytes--) {
		p[bytes] = (uint8_t)v;
		v >>= 8;
	}
}

int q2_main(int argc, char **argv, void (*add)(void))
{
	g_autoptr(GError) e = NULL;
	int r;

	g_test_init(&argc, &argv, NULL);
	q2_all = argc > 1 && !strcmp(argv[1], "all");
	for (unsigned k = 0; k < 2; k++) {
		g_autofree char *p = g_find_program_in_path(k ? "qemu-io" : "qemu-img");

		if (!p) {
			g_print("1..0 # SKIP %s is not installed\n", k ? "qemu-io" : "qemu-img");
			return 0;
		}
	}
	q2_dir = g_dir_make_tmp("vhost-qcow2-XXXXXX", &e);
	g_assert_no_error(e);
	add();
	r = g_test_run();
	q2_run("rm -rf '%s'", q2_dir);
	return r;
}
