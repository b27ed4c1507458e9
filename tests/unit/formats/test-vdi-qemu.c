/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The vdi plugin against qemu-img and qemu-io, both ways, on real files through the real block layer: images of theirs are
 * read and written, images of ours are checked, read and written by theirs.
 */
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fmt/image.h"
#include "plug/options.h"
#include "plug/plug.h"

#define MB (1u << 20)
#define DISK (24u * MB + 512 * 7) /* no whole blocks */
#define RW 3                       /* VH_CHECK_LEAK | VH_CHECK_CORRUPT */

static char *dir;

/* ---- a file as a volume ---- */

struct file { int fd; };

static int file_info(void *vol, struct vh_volume_info *i)
{
	struct file *f = vol;
	struct stat st;

	fstat(f->fd, &st);
	i->fd = f->fd;
	i->bytes = (uint64_t)st.st_size;
	i->caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_GROW | VH_VOL_ZERO_ON_GROW;
	i->logical_block = 512;
	i->buf_align = i->len_align = 1;
	return 0;
}
static int file_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	return ftruncate(((struct file *)vol)->fd, (off_t)bytes) ? -errno : 0;
}
static void file_close(void *vol)
{
	close(((struct file *)vol)->fd);
	g_free(vol);
}
static const struct vh_volume_ops file_ops = {.size = sizeof(file_ops), .info = file_info, .resize = file_resize, .close = file_close};

static char *in(const char *name)
{
	return g_build_filename(dir, name, NULL);
}

static struct blk_vol *file_vol(const char *name)
{
	struct blk_config c = {.engine = BLK_ENGINE_THREADS, .label = name};
	g_autofree char *path = in(name);
	struct file *f = g_new0(struct file, 1);
	struct blk_vol *v;
	ERR_AUTO(e);

	f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	g_assert_cmpint(f->fd, >=, 0);
	if (blk_vol_new(f, plug_volume_ops(&file_ops), &c, &v, &e) < 0)
		g_error("%s", e.cause);
	return v;
}

static const struct vh_format_ops *ops(void)
{
	const struct vh_format_ops *o;
	ERR_AUTO(e);

	if (plug_format("vdi", &o, &e) < 0)
		g_error("%s", e.cause);
	return o;
}

static struct fmt_image *image(const char *name)
{
	struct fmt_spec s = {.vol = file_vol(name), .ops = ops(), .label = name};
	struct fmt_image *i;
	ERR_AUTO(e);

	if (fmt_open(&s, &i, &e) < 0)
		g_error("open %s: %s", name, e.cause);
	return i;
}

static void create(const char *name, uint64_t bytes, int is_static)
{
	struct kv kv = {(char *)"static", (char *)(is_static ? "on" : "off")};
	struct kvs kvs = {&kv, 1};
	struct blk_vol *v = file_vol(name);
	struct vh_meta *m = fmt_meta_new(v, 0);
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .volumes = &m, .n = 1};
	struct optset *set;
	ERR_AUTO(e);

	if (optset_parse(ops()->create_options, &kvs, "vdi", &set, &e) < 0)
		g_error("%s", e.cause);
	c.opts = optset_get(set);
	if (ops()->create(&c, NULL, &e) < 0)
		g_error("create: %s", e.cause);
	optset_free(set);
	fmt_meta_free(m);
	blk_vol_put(v);
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	g_test_message("%u at %" G_GUINT64_FORMAT ": %s", what, off, text);
	if (what != VH_CHECK_FIXED)
		++*(int *)ctx;
}

/* Findings of our check. */
static int check(const char *name, uint32_t repair)
{
	struct blk_vol *v = file_vol(name);
	struct vh_meta *m = fmt_meta_new(v, 0);
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &m, .flags = VH_OPEN_REPAIR};
	void *img;
	int n = 0;
	ERR_AUTO(e);

	if (ops()->open(&o, &img, &e) < 0 || ops()->check(img, repair, found, &n, NULL, &e) < 0)
		g_error("check: %s", e.cause);
	ops()->close(img);
	fmt_meta_free(m);
	blk_vol_put(v);
	return n;
}

/* ---- theirs ---- */

static int qemu(const char *command, ...) G_GNUC_PRINTF(1, 2);
static int qemu(const char *command, ...)
{
	g_autofree char *line = NULL, *out = NULL, *err = NULL;
	g_auto(GStrv) argv = NULL;
	va_list ap;
	int status;
	GError *error = NULL;

	va_start(ap, command);
	line = g_strdup_vprintf(command, ap);
	va_end(ap);
	if (!g_shell_parse_argv(line, NULL, &argv, &error) ||
	    !g_spawn_sync(dir, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &error))
		g_error("%s: %s", line, error->message);
	if (status)
		g_test_message("%s: %s%s", line, out, err);
	return status || strstr(out, "Pattern verification failed");
}
#define MUST(...) g_assert_cmpint(qemu(__VA_ARGS__), ==, 0)

/* The disk as qemu-img sees it. */
static uint8_t *through_qemu(const char *name, const char *format, size_t bytes)
{
	g_autofree char *raw = in("out.raw");
	char *data;
	size_t len;

	MUST("qemu-img convert -f %s -O raw %s out.raw", format, name);
	g_assert_true(g_file_get_contents(raw, &data, &len, NULL));
	g_assert_cmpuint(len, ==, bytes);
	g_unlink(raw);
	return (uint8_t *)data;
}

static void same(const char *name, const uint8_t *model)
{
	g_autofree uint8_t *ours = g_malloc(DISK), *theirs = through_qemu(name, "vdi", DISK);
	struct fmt_image *i = image(name);

	g_assert_cmpint(fmt_pread(i, ours, DISK, 0, NULL), ==, 0);
	fmt_close(i);
	for (unsigned k = 0; k < DISK; k++)
		if (ours[k] != model[k] || theirs[k] != model[k])
			g_error("%s: byte %u is %u, we read %u, QEMU %u", name, k, model[k], ours[k], theirs[k]);
}

static void write_ours(const char *name, uint8_t *model, unsigned n)
{
	struct fmt_image *i = image(name);

	for (unsigned k = 0; k < n; k++) {
		uint32_t len = 1 + (uint32_t)g_test_rand_int_range(0, k % 4 ? 9000 : 3 * MB), off;

		off = (uint32_t)g_test_rand_int_range(0, (gint32)(DISK - len));
		memset(model + off, (int)(k + 1), len);
		g_assert_cmpint(fmt_pwrite(i, model + off, len, off, NULL), ==, 0);
	}
	g_assert_cmpint(fmt_flush(i, NULL), ==, 0);
	fmt_close(i);
}

static void write_theirs(const char *name, uint8_t *model, unsigned n)
{
	GString *s = g_string_new("qemu-io -f vdi");

	for (unsigned k = 0; k < n; k++) {
		uint32_t off = (uint32_t)g_test_rand_int_range(0, DISK / 512 - 400) * 512, len = 512 * (1 + k * 13 % 400);

		g_string_append_printf(s, " -c 'write -P %u %u %u'", 100 + k, off, len);
		memset(model + off, (int)(100 + k), len);
	}
	g_string_append_printf(s, " %s", name);
	MUST("%s", s->str);
	g_string_free(s, TRUE);
}

static void both_ways(const char *name, uint8_t *model)
{
	same(name, model);
	write_ours(name, model, 12);
	MUST("qemu-img check -f vdi %s", name);
	same(name, model);
	write_theirs(name, model, 8);
	g_assert_cmpint(check(name, 0), ==, 0);
	write_ours(name, model, 12);
	MUST("qemu-img check -f vdi %s", name);
	same(name, model);
}

static uint8_t *base_raw(void)
{
	uint8_t *m = g_malloc0(DISK);
	g_autofree char *path = in("base.raw");

	for (unsigned k = 3 * MB; k < 9 * MB; k++)
		m[k] = (uint8_t)(k / 512 * 7 + k);
	memset(m + DISK - 512, 9, 512);
	g_assert_true(g_file_set_contents(path, (char *)m, DISK, NULL));
	return m;
}

static void theirs(gconstpointer flavour)
{
	g_autofree uint8_t *m = base_raw();

	MUST("%s/tests/flavours/vdi.sh %s base.raw theirs.vdi", g_getenv("SRCDIR"), (const char *)flavour);
	if (!strcmp(flavour, "empty"))
		memset(m, 0, DISK);
	g_assert_cmpint(check("theirs.vdi", 0), ==, 0);
	both_ways("theirs.vdi", m);
}

static void ours(const char *name, int is_static)
{
	g_autofree uint8_t *m = g_malloc0(DISK);

	create(name, DISK, is_static);
	MUST("qemu-img check -f vdi %s", name);
	both_ways(name, m);
}
static void ours_dynamic(void) { ours("ours.vdi", 0); }
static void ours_static(void) { ours("ours-static.vdi", 1); }

static int zero_range(struct fmt_image *i, uint16_t op, uint64_t off, uint64_t len);

/* Holes in the file: QEMU reads right and appends behind them; its check is content after a repair of ours. */
static void holes(void)
{
	g_autofree uint8_t *m = g_malloc0(DISK);
	struct fmt_image *i;

	create("holes.vdi", DISK, 0);
	write_ours("holes.vdi", m, 60);
	i = image("holes.vdi");
	g_assert_cmpint(zero_range(i, VH_ZERO, 5 * MB, 3 * MB), ==, 0);
	g_assert_cmpint(zero_range(i, VH_ZERO, 11 * MB + 512, 4 * MB), ==, 0);
	memset(m + 5 * MB, 0, 3 * MB);
	memset(m + 11 * MB + 512, 0, 4 * MB);
	fmt_close(i);
	same("holes.vdi", m);
	write_theirs("holes.vdi", m, 8); /* allocates behind everything */
	same("holes.vdi", m);
	write_ours("holes.vdi", m, 3);
	same("holes.vdi", m);
	g_assert_cmpint(check("holes.vdi", RW), ==, 0);
	MUST("qemu-img check -f vdi holes.vdi");
	same("holes.vdi", m);
	both_ways("holes.vdi", m);
}

/* What QEMU lacks: sizes. The large one needs a larger map than there was room for, so that blocks had to move. */
static void sizes(void)
{
	g_autofree uint8_t *m = g_malloc0(DISK);
	uint64_t large = UINT64_C(300) << 30;
	struct fmt_image *i;
	ERR_AUTO(e);

	MUST("qemu-img create -q -f vdi sizes.vdi %u", DISK);
	write_ours("sizes.vdi", m, 12);
	i = image("sizes.vdi");
	if (fmt_resize(i, large, &e) < 0)
		g_error("%s", e.cause);
	fmt_close(i);
	MUST("qemu-img check -f vdi sizes.vdi");
	MUST("qemu-io -f vdi -c 'read -P 0 %u 50M' -c 'write -P 7 299G 1M' sizes.vdi", DISK);
	i = image("sizes.vdi");
	{
		uint8_t b[512];

		g_assert_cmpint(fmt_pread(i, b, 512, UINT64_C(299) << 30, NULL), ==, 0);
		g_assert_cmpuint(b[511], ==, 7);
	}
	if (fmt_resize(i, DISK, &e) < 0)
		g_error("%s", e.cause);
	fmt_close(i);
	MUST("qemu-img check -f vdi sizes.vdi");
	both_ways("sizes.vdi", m);
}

/* ---- a request, waited for ---- */

struct wait { struct fmt_io io; _Atomic int done; int result; struct fmt_queue *q; };
static void wait_done(struct fmt_io *io, int result)
{
	struct wait *w = (struct wait *)io;

	w->result = result;
	w->done = 1;
}
static void wait_submit(void *ctx)
{
	struct wait *w = ctx;

	fmt_submit(w->q, &w->io);
	fmt_kick(w->q);
}
static int zero_range(struct fmt_image *i, uint16_t op, uint64_t off, uint64_t len)
{
	struct wait w = {.io = {.op = op, .flags = op == VH_ZERO ? VH_REQ_MAY_UNMAP : 0, .off = off, .len = len, .done = wait_done}};
	struct vh_loop *l;
	ERR_AUTO(e);

	if (loop_new("q", &l, &e) < 0 || fmt_queue_open(i, l, 4, &w.q, &e) < 0 || loop_start(l, &e) < 0)
		g_error("queue: %s", e.cause);
	loop_call(l, wait_submit, &w);
	while (!w.done)
		g_usleep(500);
	loop_stop(l);
	fmt_queue_close(w.q);
	loop_free(l);
	return w.result;
}

static void remove_all(void)
{
	GDir *d = g_dir_open(dir, 0, NULL);
	const char *name;

	while (d && (name = g_dir_read_name(d))) {
		g_autofree char *path = in(name);

		g_unlink(path);
	}
	g_dir_close(d);
	g_rmdir(dir);
}

int main(int argc, char **argv)
{
	g_autofree char *img = g_find_program_in_path("qemu-img"), *io = g_find_program_in_path("qemu-io");
	int r;

	g_test_init(&argc, &argv, NULL);
	if (!img || !io) {
		g_print("1..0 # SKIP qemu-img and qemu-io are not installed\n");
		return 0;
	}
	dir = g_strdup_printf("%s/vhost-vdi-XXXXXX", g_get_tmp_dir());
	g_assert_nonnull(g_mkdtemp(dir));
	g_test_add_data_func("/vdi/qemu/theirs-dynamic", "dynamic", theirs);
	g_test_add_data_func("/vdi/qemu/theirs-static", "static", theirs);
	g_test_add_data_func("/vdi/qemu/theirs-static-full", "static-full", theirs);
	g_test_add_data_func("/vdi/qemu/theirs-empty", "empty", theirs);
	g_test_add_func("/vdi/qemu/ours-dynamic", ours_dynamic);
	g_test_add_func("/vdi/qemu/ours-static", ours_static);
	g_test_add_func("/vdi/qemu/holes", holes);
	g_test_add_func("/vdi/qemu/sizes", sizes);
	r = g_test_run();
	remove_all();
	g_free(dir);
	return r;
}
