/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "dirtest.h"

const struct vh_pool_ops *dir_ops;

static void job_progress(struct vh_job *j, uint64_t done, uint64_t total)
{
	j->done = done;
	j->total = total;
	if (++j->calls == j->cancel_after)
		j->cancelled = 1;
}

static int job_cancelled(struct vh_job *j)
{
	return j->cancelled;
}

static const struct vh_job_ops job_ops = {.size = sizeof(job_ops), .progress = job_progress, .cancelled = job_cancelled};

static const void *host_service(const struct vh_host *h, const char *iid)
{
	return strcmp(iid, VH_SVC_JOB) ? NULL : &job_ops;
}

static const struct vh_host host = {.size = sizeof(host), .service = host_service, .err = host_err, .verr = host_verr,
				    .remedy = host_remedy};

void dirtest_load(void)
{
	const struct vh_plugin *p;
	vh_plugin_entry_fn *entry;
	void *h = dlopen(DIR_PLUGIN, RTLD_NOW | RTLD_LOCAL);

	if (!h)
		g_error("%s", dlerror());
	entry = (vh_plugin_entry_fn *)dlsym(h, VH_PLUGIN_ENTRY);
	g_assert_nonnull(entry);
	g_assert_cmpint(entry(&host, &p), ==, 0);
	dir_ops = p->get(VH_IID_POOL);
	g_assert_nonnull(dir_ops);
}

static void path_opts(const char *path, struct vh_val *v, const struct vh_val **list, struct vh_opts *o)
{
	*v = (struct vh_val){.size = sizeof(*v), .type = VH_OPT_PATH, .name = "path", .str = path};
	*list = v;
	*o = (struct vh_opts){.size = sizeof(*o), .n = 1, .val = list};
}

int dirtest_make(const char *path, struct vh_err *e)
{
	const struct vh_val *list;
	struct vh_opts o;
	struct vh_val v;

	path_opts(path, &v, &list, &o);
	return dir_ops->make(&o, NULL, e);
}

int dirtest_try_open(const char *path, void **pool, struct vh_err *e)
{
	const struct vh_val *list;
	struct vh_opts o;
	struct vh_val v;

	path_opts(path, &v, &list, &o);
	return dir_ops->open(&o, NULL, pool, e);
}

void *dirtest_open(const char *path)
{
	struct vh_err e = {0};
	void *pool = NULL;

	if (dirtest_try_open(path, &pool, &e))
		g_error("open %s: %s", path, e.text);
	return pool;
}

int dirtest_create(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	struct vh_vol_spec s = {.size = sizeof(s), .name = name, .bytes = bytes, .prealloc = prealloc};

	return dir_ops->create(pool, &s, j, e);
}

static const struct vh_volume_ops *vol_ops;

void *dirtest_attach(void *pool, const char *name, uint32_t mode, struct vh_volume_info *i, struct vh_err *e)
{
	struct vh_attach a = {.size = sizeof(a), .mode = mode, .name = name, .holder = "pid 0 vhost run testvm"};
	void *vol = NULL;
	int ret = dir_ops->attach(pool, &a, &vol, &vol_ops, e);

	if (ret) {
		if (e)
			e->code = ret;
		return NULL;
	}
	if (i) {
		memset(i, 0, sizeof(*i));
		i->size = sizeof(*i);
		g_assert_cmpint(vol_ops->info(vol, i), ==, 0);
	}
	return vol;
}

void dirtest_detach(void *vol)
{
	vol_ops->close(vol);
}

char *dirtest_tmp(void)
{
	char *path = g_dir_make_tmp("vhost-dir-XXXXXX", NULL);

	g_assert_nonnull(path);
	return path;
}

void dirtest_untmp(char *path)
{
	dirtest_run(NULL, "rm", "-rf", "--one-file-system", path, NULL);
	g_free(path);
}

int dirtest_count(const char *folder)
{
	DIR *d = opendir(folder);
	int n = -2;

	g_assert_nonnull(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

int dirtest_run(char **out, const char *arg0, ...)
{
	g_autoptr(GPtrArray) argv = g_ptr_array_new();
	g_autofree char *o = NULL, *err = NULL;
	int status = -1;
	va_list ap;

	va_start(ap, arg0);
	for (const char *a = arg0; a; a = va_arg(ap, const char *))
		g_ptr_array_add(argv, (char *)a);
	va_end(ap);
	g_ptr_array_add(argv, NULL);
	if (!g_spawn_sync(NULL, (char **)argv->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &o, &err, &status, NULL))
		return 127;
	if (out)
		*out = g_strconcat(o, err, NULL);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int dirtest_unshare(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	return 0;
}

int dirtest_break_syscall(int nr, int err, int arg, uint64_t mask, uint64_t value)
{
	scmp_filter_ctx c = seccomp_init(SCMP_ACT_ALLOW);
	int ret;

	if (!c)
		return -ENOMEM;
	if (arg < 0)
		ret = seccomp_rule_add(c, SCMP_ACT_ERRNO(err), nr, 0);
	else
		ret = seccomp_rule_add(c, SCMP_ACT_ERRNO(err), nr, 1,
				       SCMP_CMP((unsigned)arg, SCMP_CMP_MASKED_EQ, mask, value));
	if (!ret)
		ret = seccomp_load(c);
	seccomp_release(c);
	return ret;
}

int dirtest_child(int (*fn)(void *ctx), void *ctx)
{
	int status, pid;

	fflush(NULL);
	pid = fork();
	g_assert_cmpint(pid, >=, 0);
	if (!pid) {
		int ret = fn(ctx);

		fflush(NULL);
		_exit(ret);
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
