/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* qemu-img as a second opinion, on the memory files of a state by way of links in a folder. */
#include "crash/crash-i.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/sugar.h>
#include "plug/secret.h"

static const char *qemu_name(const char *format)
{
	static const char *const known[] = {"raw", "qcow2", "qcow", "qed", "vdi", "vhdx", "vmdk", "vpc", "parallels", "luks", NULL};

	for (unsigned k = 0; known[k]; k++)
		if (!strcmp(known[k], format))
			return known[k];
	return NULL;
}

char *qemu_why_not(const char *format)
{
	g_autofree char *path = g_find_program_in_path("qemu-img");

	if (!path)
		return g_strdup("it is not installed");
	if (qemu_name(format))
		return NULL;
	return g_strdup_printf("it does not know format %s", format);
}

int qemu_checks(const char *format)
{
	static const char *const known[] = {"qcow2", "qed", "vdi", "vhdx", "vmdk", "parallels", NULL};

	return g_strv_contains(known, format);
}

/* What leaks, it calls damage: only a repaired image passes. */
int qemu_hates_leaks(const char *format)
{
	return !strcmp(format, "vdi");
}

static int link_one(const char *dir, const char *name, int fd, struct vh_err *e)
{
	g_autofree char *to = g_strdup_printf("/proc/%d/fd/%d", (int)getpid(), fd), *path = g_build_filename(dir, name, NULL);

	return symlink(to, path) < 0 ? err_set(e, -errno, "cannot link %s: %s", path, strerror(errno)) : 0;
}

#define KEY "passphrase"
/* The passphrase of an encrypted image in a file of its own: QEMU has other means to say where one is. */
static int key_make(struct round *r, const char *dir, struct vh_err *e)
{
	const char *name = vh_opt_str(optset_get(r->open_opts), "key-secret", NULL);
	g_autofree char *path = g_build_filename(dir, KEY, NULL);
	char buf[4096];
	int64_t n;
	int fd, ret = 0;

	if (!name)
		return 0;
	n = secret_get(name, buf, sizeof(buf), e);
	if (n < 0)
		return (int)n;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, buf, (size_t)n) != n)
		ret = err_set(e, -EIO, "cannot write %s: %s", path, strerror(errno));
	explicit_bzero(buf, sizeof(buf));
	if (fd >= 0)
		close(fd);
	return ret;
}

static int folder_make(struct round *r, char **dir, struct vh_err *e)
{
	int ret = 0;

	*dir = g_build_filename(access("/dev/shm", W_OK) ? g_get_tmp_dir() : "/dev/shm", "vhost-crash-XXXXXX", NULL);
	if (!mkdtemp(*dir)) {
		ret = err_set(e, -errno, "cannot make %s: %s", *dir, strerror(errno));
		g_clear_pointer(dir, g_free);
		return ret;
	}
	for (unsigned v = 0; v < r->volumes && !ret; v++)
		ret = link_one(*dir, r->names[v], r->fds[v], e);
	if (!ret && r->base)
		ret = link_one(*dir, r->base_name, r->base_fd, e);
	return ret ? ret : key_make(r, *dir, e);
}

static void folder_remove(struct round *r, char *dir)
{
	const char *const others[] = {r->base_name[0] ? r->base_name : "out.raw", "out.raw", KEY};

	if (!dir)
		return;
	for (unsigned v = 0; v < r->volumes + G_N_ELEMENTS(others); v++) {
		g_autofree char *path = g_build_filename(dir, v < r->volumes ? r->names[v] : others[v - r->volumes], NULL);

		unlink(path);
	}
	rmdir(dir);
	g_free(dir);
}

/*
 * Runs `qemu-img VERB`, of the image and then of what is in `more`, in dir, where qemu-img looks for a qcow2 image's data file; the exit
 * status, and what it said in *text.
 */
static int run(struct round *r, const char *dir, const char *verb, const char *const *more, char **text, struct vh_err *e)
{
	const char *format = qemu_name(r->spec->format);
	g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *key = g_build_filename(dir, KEY, NULL), *out = NULL, *err = NULL;
	g_autoptr(GError) failed = NULL;
	int status;

	g_ptr_array_add(argv, g_strdup("qemu-img"));
	g_ptr_array_add(argv, g_strdup(verb));
	if (access(key, F_OK)) {
		g_ptr_array_add(argv, g_strdup("-f"));
		g_ptr_array_add(argv, g_strdup(format));
		g_ptr_array_add(argv, g_build_filename(dir, r->names[0], NULL));
	} else {
		g_ptr_array_add(argv, g_strdup("--object"));
		g_ptr_array_add(argv, g_strdup("secret,id=key,file=" KEY));
		g_ptr_array_add(argv, g_strdup("--image-opts"));
		g_ptr_array_add(argv, g_strdup_printf("driver=%s,%skey-secret=key,file.filename=%s", format,
						      strcmp(format, "luks") ? "encrypt." : "", r->names[0]));
	}
	for (; *more; more++)
		g_ptr_array_add(argv, g_strdup(*more));
	g_ptr_array_add(argv, NULL);
	if (!g_spawn_sync(dir, (char **)argv->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &failed))
		return err_set(e, -EIO, "cannot run qemu-img: %s", failed->message);
	*text = g_strdup_printf("%s%s", err, out);
	g_strchomp(*text);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Whether it opens a new image of this kind: some variants it does not know, and says so. */
int qemu_opens(struct round *r, char **why_not, struct vh_err *e)
{
	g_autofree char *said = NULL;
	char *dir = NULL;
	int ret = folder_make(r, &dir, e);

	if (!ret) {
		ret = run(r, dir, "info", (const char *const[]){NULL}, &said, e);
		if (ret > 0) {
			const char *cause = strstr(said, "': ") ? strstr(said, "': ") + 3 : said;

			*why_not = g_strdup_printf("it does not open a new image of this kind: %.400s", cause);
		}
	}
	folder_remove(r, dir);
	return ret < 0 ? ret : 0;
}

/*
 * Whether all that it complains of are flags that say "the only owner" where the count says otherwise, or the other way round. No order of
 * writes keeps flags and counts in step while a snapshot is made or removed; what it must not do is lose or share data, which others see.
 */
static int only_flags(const char *said)
{
	g_auto(GStrv) line = g_strsplit(said, "\n", -1);
	unsigned flags = 0;

	for (unsigned k = 0; line[k]; k++) {
		if (g_str_has_prefix(line[k], "ERROR OFLAG_COPIED"))
			flags++;
		else if (g_str_has_prefix(line[k], "ERROR"))
			return 0;
	}
	return flags > 0;
}

int qemu_check(struct round *r, int leaks_ok, int *leaks, char **text, struct vh_err *e)
{
	g_autofree char *said = NULL;
	char *dir = NULL;
	int ret = folder_make(r, &dir, e);

	if (!ret) {
		ret = run(r, dir, "check", (const char *const[]){NULL}, &said, e);
		*leaks = ret == 3;
		if (ret == 2 && leaks_ok && r->spec->snapshots && only_flags(said))
			ret = 3;
		if (ret > 0 && !(ret == 3 && leaks_ok)) {
			*text = g_strdup_printf("qemu-img check ends with status %d: %.600s", ret, said);
			ret = 1;
		} else if (ret > 0) {
			ret = 0;
		}
	}
	folder_remove(r, dir);
	return ret;
}

static char *compare(struct round *r, FILE *f)
{
	uint8_t buf[CRASH_SECTOR];
	uint64_t c;

	for (c = 0; fread(buf, 1, sizeof(buf), f) == sizeof(buf); c++) {
		g_autofree char *wrong = c < r->oracle->most ? oracle_wrong(r->oracle, c, buf, r->encrypted) : g_strdup("the disk is too large");

		if (wrong)
			return g_strdup_printf("as qemu-img reads it: %s", wrong);
	}
	return oracle_size_ok(r->oracle, c) ? NULL
					    : g_strdup_printf("qemu-img reads a disk of %llu sectors", (unsigned long long)c);
}

int qemu_read(struct round *r, char **text, struct vh_err *e)
{
	g_autofree char *raw = NULL, *said = NULL;
	char *dir = NULL;
	int ret = folder_make(r, &dir, e);
	FILE *f;

	if (!ret) {
		raw = g_build_filename(dir, "out.raw", NULL);
		ret = run(r, dir, "convert", (const char *const[]){raw, "-O", "raw", NULL}, &said, e);
		if (ret > 0) {
			*text = g_strdup_printf("qemu-img convert ends with status %d: %.600s", ret, said);
			ret = 1;
		}
	}
	if (!ret) {
		f = fopen(raw, "r");
		if (!f)
			ret = err_set(e, -errno, "cannot open %s: %s", raw, strerror(errno));
		else
			*text = compare(r, f);
		if (f)
			fclose(f);
		ret = ret ? ret : *text != NULL;
	}
	folder_remove(r, dir);
	return ret;
}
