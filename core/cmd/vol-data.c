/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vol upload, download. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cmd/vol.h"

const struct vh_opt *const vol_upload_options[] = {
	CMD_OPT("create", VH_OPT_BOOL, "Make the volume first, as large as the file", .defval = "off"),
	CMD_OPT("format", VH_OPT_STR, "With --create: what the file holds, to be recorded"), NULL};
const struct vh_opt *const vol_download_options[] = {
	CMD_OPT("force", VH_OPT_BOOL, "Overwrite an existing file", .defval = "off"), NULL};

static int file_fail(const char *file, int code, struct vh_err *e)
{
	err_object(e, "file %s", file);
	return err_set(e, code, "%s", g_strerror(-code));
}

/* The pool's own bytes, in no format: the file holds the format. */
static int make_for(const struct cmd_volume *v, int fd, struct vh_job *j, int *made, struct vh_err *e)
{
	struct stat st;
	int zeroed, ret;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		err_remedy(e, "make the volume before: vhost vol create");
		return err_set(e, -EINVAL, "--create needs a regular file, whose size is known");
	}
	ret = store_vol_new(v->pool, v->name, "upload", (uint64_t)st.st_size, j, &zeroed, made, e);
	if (ret == -EEXIST || ret == 1) {
		err_remedy(e, "leave --create away to overwrite it");
		ret = ret == 1 ? err_set(e, -EEXIST, "it exists already") : ret;
	}
	return ret;
}

static int upload(struct cmd_ctx *c, const struct cmd_volume *v, int fd, struct vh_job *j, struct vh_err *e)
{
	const char *format = vh_opt_str(c->opts, "format", NULL);
	int create = (int)vh_opt_num(c->opts, "create", 0), made = 0, ret = 0;
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol upload", (int)getpid());
	/* Through the page cache: no alignment, so that the volume keeps its size to the byte. */
	struct store_attach a = {.name = v->name, .holder = holder, .mode = VH_ATTACH_RW_EXCL, .flags = VH_ATTACH_BUFFERED};
	const struct vh_format_ops *ops;
	struct blk_vol *vol;

	if (create != !!format) {
		err_remedy(e, create ? "add --format raw, or what it is" : "add --create, or use: vhost vol set");
		return err_usage(e, create ? "what the file holds is never guessed" : "--format goes with --create");
	}
	if (create)
		ret = plug_format(format, &ops, e);
	if (!ret && create)
		ret = make_for(v, fd, j, &made, e);
	if (!ret)
		ret = store_attach(v->pool, &a, &vol, e);
	if (!ret) {
		ret = store_import(vol, fd, UINT64_MAX, j, e);
		blk_vol_put(vol);
	}
	if (!ret && create)
		ret = store_vol_done(v->pool, v->name, format, e);
	if (ret && made)
		store_vol_remove(v->pool, v->name, NULL, NULL);
	return ret;
}

int vol_run_upload(struct cmd_ctx *c, struct vh_err *e)
{
	const char *file = c->args[1];
	struct cmd_volume v;
	struct vh_job j;
	int fd, ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	fd = strcmp(file, "-") ? open(file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
	if (fd < 0) {
		ret = file_fail(file, -errno, e);
		goto out;
	}
	job_begin(&j, "uploading", c->quiet || c->json);
	ret = upload(c, &v, fd, &j, e);
	job_end(&j);
	if (fd != STDIN_FILENO)
		close(fd);
	if (ret)
		err_object(e, "volume %s/%s", v.pool_name, v.name);
	else
		vol_done(c, &v, "written");
out:
	cmd_volume_close(&v);
	return ret;
}

static int same_file(int a, int b)
{
	struct stat x, y;

	return !fstat(a, &x) && !fstat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int vol_run_download(struct cmd_ctx *c, struct vh_err *e)
{
	const char *file = c->args[1];
	int std = !strcmp(file, "-"), force = (int)vh_opt_num(c->opts, "force", 0), fd, made = 0, ret;
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol download", (int)getpid());
	struct store_attach a = {.holder = holder, .mode = VH_ATTACH_RO, .flags = VH_ATTACH_BUFFERED};
	struct blk_vol *vol = NULL;
	struct cmd_volume v;
	struct vh_job j;

	ret = cmd_volume_open(c->args[0], &v, e);
	if (ret)
		return ret;
	a.name = v.name;
	ret = store_attach(v.pool, &a, &vol, e);
	if (ret)
		goto out;
	fd = std ? STDOUT_FILENO : open(file, O_WRONLY | O_CREAT | O_CLOEXEC | (force ? 0 : O_EXCL), 0666);
	if (fd < 0) {
		if (errno == EEXIST)
			err_remedy(e, "choose another name, or add --force");
		ret = file_fail(file, -errno, e);
		goto out;
	}
	made = !std && !force;
	if (blk_vol_info(vol)->fd >= 0 && same_file(fd, blk_vol_info(vol)->fd)) {
		err_object(e, "volume %s/%s", v.pool_name, v.name);
		ret = err_set(e, -EINVAL, "%s is the volume itself", std ? "the output" : file);
		if (!std)
			close(fd);
		goto out;
	}
	if (!std && force && ftruncate(fd, 0) < 0 && errno != EINVAL) /* a device or a pipe has nothing to cut */
		ret = file_fail(file, -errno, e);
	job_begin(&j, "downloading", c->quiet || c->json || std);
	if (!ret)
		ret = store_export(vol, fd, &j, e);
	job_end(&j);
	if (!std && close(fd) < 0 && !ret)
		ret = file_fail(file, -errno, e);
	if (ret && made)
		unlink(file);
	if (ret)
		err_object(e, "volume %s/%s", v.pool_name, v.name);
	else if (!std)
		vol_done(c, &v, "read");
out:
	if (vol)
		blk_vol_put(vol);
	cmd_volume_close(&v);
	return ret;
}

static const char *const wipes[] = {"zero", "write", "random", "discard", NULL}; /* enum store_wipe */
const struct vh_opt *const vol_wipe_options[] = {
	CMD_OPT("how", VH_OPT_ENUM, "What is done to every byte", .defval = "zero", .choices = wipes), NULL};
const char vol_wipe_help[] =
	"zero: zeros, by the quickest means of the storage (which may only forget where the old data is); write: zeros that are written out;\n"
	"random: random bytes; discard: the space is given back, and zeros are written where that does not read as zeros. All but random\n"
	"are read back. Whatever image was in the volume, it is an empty raw disk afterwards. Older copies (of snapshots, of a file\n"
	"system or an SSD that writes elsewhere) are out of reach from here; delete the snapshots first.";

int vol_run_wipe(struct cmd_ctx *c, struct vh_err *e)
{
	struct cmd_volume v;
	struct vh_job j;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	job_begin(&j, "wiping", c->quiet || c->json);
	ret = store_vol_wipe(v.pool, v.name, (enum store_wipe)vh_opt_num(c->opts, "how", 0), &j, e);
	job_end(&j);
	if (ret)
		err_object(e, "volume %s/%s", v.pool_name, v.name);
	else
		vol_done(c, &v, "wiped");
	cmd_volume_close(&v);
	return ret;
}
