/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * One plugin file, from its name to its tables. The order is the contract (docs/abi.md, "Loading"): what can be checked
 * without running code of the file is checked first.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <gmodule.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "plug/impl.h"
#include "util/log.h"

#define PLUGIN_FLAGS_KNOWN (VH_PLUGIN_OWN_THREADS | VH_PLUGIN_NEEDS_NET | VH_PLUGIN_NEEDS_ROOT)
#define INTERFACES_MAX 32

uint64_t plug_load_timeout_ms = 5000;
__thread struct vh_err *plug_entry_err;

static int refuse(struct vh_err *e, int code)
{
	err_status(e, EXIT_REFUSED);
	return code;
}

/* Whether somebody other than root and the caller could change it. */
static int check_owner(const struct stat *st, const char *what, const char *path, struct vh_err *e)
{
	if (st->st_uid != 0 && st->st_uid != geteuid()) {
		err_set(e, -EPERM, "%s belongs to user %u, who is neither root nor you", what, st->st_uid);
		err_remedy(e, "chown it to root, or to the user who runs vhost: chown %u '%s'", geteuid(), path);
		return -EPERM;
	}
	if (st->st_mode & (S_IWGRP | S_IWOTH)) {
		err_set(e, -EPERM, "%s can be written by %s", what, st->st_mode & S_IWOTH ? "everybody" : "its group");
		err_remedy(e, "chmod go-w '%s'", path);
		return -EPERM;
	}
	return 0;
}

/*
 * The folder is opened first and the file through it, so that the folder which is checked is the one that holds the file.
 * Sticky folders (/tmp) are refused like others: whoever can add a file there can add a library beside the plugin.
 */
static int open_checked(const char *path, struct plug_file *f, struct vh_err *e)
{
	g_autofree char *dir = g_path_get_dirname(path);
	g_autofree char *base = g_path_get_basename(path);
	struct stat dst;
	int r, dfd;

	dfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dfd < 0)
		return err_set(e, -errno, "its folder cannot be opened: %s", g_strerror(errno));
	f->fd = openat(dfd, base, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (f->fd < 0) {
		r = err_set(e, -errno, "cannot be opened: %s", g_strerror(errno));
		goto out;
	}
	if (fstat(f->fd, &f->st) < 0 || fstat(dfd, &dst) < 0) {
		r = err_set(e, -errno, "cannot be examined: %s", g_strerror(errno));
		goto out;
	}
	if (!S_ISREG(f->st.st_mode)) {
		r = err_set(e, -ENOEXEC, "not a vhost plugin: not a regular file");
		goto out;
	}
	r = check_owner(&f->st, "the file", path, e);
	if (r < 0)
		goto out;
	r = check_owner(&dst, "its folder", dir, e);
out:
	close(dfd);
	return r;
}

int plug_file_open(const char *path, struct plug_file *out, struct vh_err *e)
{
	struct plug_file f = {.fd = -1};
	struct elf_src src;
	int r;

	memset(out, 0, sizeof(*out));
	out->fd = -1;
	f.path = realpath(path, NULL);
	if (!f.path) {
		r = -errno;
		if (r == -ENOENT || r == -ENOTDIR)
			return r;
		err_object(e, "plugin %s", path);
		return refuse(e, err_set(e, r, "cannot be opened: %s", g_strerror(-r)));
	}
	r = open_checked(f.path, &f, e);
	if (r < 0)
		goto fail;
	r = elf_open_fd(&src, f.fd, e);
	if (r < 0)
		goto fail;
	r = note_read(&src, &f.note, e);
	elf_close(&src);
	if (r < 0)
		goto fail;
	r = note_check(&f.note, e);
	if (r < 0) {
		/* Who it is stays known, for listings. */
		out->note = f.note;
		goto fail;
	}
	*out = f;
	return 0;
fail:
	err_object(e, "plugin %s", f.path);
	plug_file_close(&f);
	return refuse(e, r);
}

void plug_file_close(struct plug_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	f->fd = -1;
	g_clear_pointer(&f->path, free);
}

/* ---- mapping and entry, on a thread of their own so that one that hangs can be given up ---- */

static const char stage_mapping[] = "while it was being mapped (in a constructor of it or of one of its libraries)";

struct attempt {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int refs, done;
	const char *stage; /* where it is, for the message of the time-out; under lock */
	const struct vh_host *host;
	char *path;
	struct stat st;
	/* The outcome; the waiter's once done is set. */
	int result;
	struct vh_err err;
	void *handle, *entry;
	const struct vh_plugin *theirs;
};

static void attempt_unref(struct attempt *a)
{
	int last;

	pthread_mutex_lock(&a->lock);
	last = !--a->refs;
	pthread_mutex_unlock(&a->lock);
	if (!last)
		return;
	err_clear(&a->err);
	free(a->path);
	pthread_cond_destroy(&a->cond);
	pthread_mutex_destroy(&a->lock);
	g_free(a);
}

static void attempt_stage(struct attempt *a, const char *stage)
{
	pthread_mutex_lock(&a->lock);
	a->stage = stage;
	pthread_mutex_unlock(&a->lock);
}

/* GModule would run it, or call it at unload: from this file or from a library that it brings along. */
static int check_gmodule_hooks(void *handle, struct vh_err *e)
{
	static const char *const hooks[] = {"g_module_check_init", "g_module_unload"};

	for (unsigned i = 0; i < G_N_ELEMENTS(hooks); i++)
		if (dlsym(handle, hooks[i]))
			return err_set(e, -EPROTO, "it defines %s, which GModule would run", hooks[i]);
	return 0;
}

/* The same for the file itself, before any constructor of it has run. A table that cannot be read refuses the file. */
static int check_exports(int fd, struct vh_err *e)
{
	struct elf_src src;
	struct elf_dyn dyn;
	int r = elf_open_fd(&src, fd, e);

	if (r < 0)
		return r;
	r = elf_dyn_read(&src, &dyn, e);
	elf_close(&src);
	if (r < 0)
		return r;
	for (unsigned i = 0; !r && dyn.exports[i]; i++)
		if (!strcmp(dyn.exports[i], "g_module_check_init") || !strcmp(dyn.exports[i], "g_module_unload"))
			r = err_set(e, -EPROTO, "it defines %s, which GModule would run", dyn.exports[i]);
	if (!r && dyn.textrel)
		r = err_set(e, -EPROTO, "it has text relocations: it was not built as position-independent code");
	elf_dyn_clear(&dyn);
	return r;
}

/* dlopen's text begins with the file's name, which the error's object says already. */
static int dl_failed(const char *path, struct vh_err *e)
{
	const char *text = dlerror();
	size_t n = strlen(path);

	if (!text)
		text = "unknown reason";
	if (!strncmp(text, path, n) && text[n] == ':')
		text += n + 1 + strspn(text + n + 1, " ");
	err_set(e, -ELIBACC, "cannot be mapped: %s", text);
	if (strstr(text, "cannot open shared object file")) {
		err_status(e, EXIT_MISSING);
		err_remedy(e, "install the library that it needs");
	}
	return -ELIBACC;
}

/* The symbol must be the module's own: dlsym finds those of its libraries too. */
static int find_entry(struct attempt *a, struct vh_err *e)
{
	struct link_map *own = NULL, *owner = NULL;
	Dl_info info;

	a->entry = dlsym(a->handle, VH_PLUGIN_ENTRY);
	if (!a->entry)
		return err_set(e, -EPROTO, "it has an identity note but no entry %s", VH_PLUGIN_ENTRY);
	if (dlinfo(a->handle, RTLD_DI_LINKMAP, &own) || !dladdr1(a->entry, &info, (void **)&owner, RTLD_DL_LINKMAP) ||
	    !own || !owner)
		return err_set(e, -EPROTO, "the owner of its entry %s cannot be told", VH_PLUGIN_ENTRY);
	if (own != owner)
		return err_set(e, -EPROTO, "the entry %s is not its own but belongs to the library %s", VH_PLUGIN_ENTRY,
			       owner->l_name && *owner->l_name ? owner->l_name : "(the program)");
	return 0;
}

/*
 * GModule makes its own lock on first use and publishes it by an atomic that ThreadSanitizer does not see in an uninstrumented
 * GLib; this one orders the first uses. No constructor runs under it: the file is mapped already.
 */
static GModule *open_module(const char *path)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	GModule *m;

	pthread_mutex_lock(&lock);
	m = g_module_open(path, G_MODULE_BIND_LOCAL);
	if (m)
		g_module_make_resident(m);
	pthread_mutex_unlock(&lock);
	return m;
}

static int attempt_run(struct attempt *a, struct vh_err *e)
{
	vh_plugin_entry_fn *entry;
	struct stat now;
	int r;

	a->handle = dlopen(a->path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (!a->handle)
		return dl_failed(a->path, e);
	/* Whoever may write its folder's ancestors might have put another file there since the checks. */
	if (stat(a->path, &now) < 0 || now.st_dev != a->st.st_dev || now.st_ino != a->st.st_ino ||
	    now.st_size != a->st.st_size || now.st_ctim.tv_sec != a->st.st_ctim.tv_sec ||
	    now.st_ctim.tv_nsec != a->st.st_ctim.tv_nsec)
		return err_set(e, -ESTALE, "it was exchanged or changed while it was being loaded");
	r = check_gmodule_hooks(a->handle, e);
	if (r < 0)
		return r;
	if (!open_module(a->path))
		return err_set(e, -ELIBACC, "cannot be mapped: %s", g_module_error());
	r = find_entry(a, e);
	if (r < 0)
		return r;
	attempt_stage(a, "in its entry " VH_PLUGIN_ENTRY);
	*(void **)&entry = a->entry;
	plug_entry_err = e;
	r = entry(a->host, &a->theirs);
	plug_entry_err = NULL;
	if (r > 0) {
		err_clear(e);
		return err_set(e, -EPROTO, "its entry returned %d, which is neither 0 nor a negative errno", r);
	}
	if (r < 0) {
		if (e->cause)
			err_context(e, "its entry failed");
		else
			err_set(e, r, "its entry failed: %s", g_strerror(-r));
		e->code = r;
		if (r == -EOPNOTSUPP && !e->remedy)
			err_remedy(e, "it needs a service that this vhost does not have; use a newer vhost");
		return r;
	}
	err_clear(e);
	if (!a->theirs)
		return err_set(e, -EPROTO, "its entry succeeded without a descriptor");
	return 0;
}

static void *attempt_thread(void *arg)
{
	struct attempt *a = arg;
	struct vh_err err = {0};
	int r = attempt_run(a, &err);

	pthread_mutex_lock(&a->lock);
	a->result = r;
	err_move(&a->err, &err);
	a->done = 1;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->lock);
	attempt_unref(a);
	return NULL;
}

/* Returns the attempt, done or not, or NULL when no thread could be made. */
static struct attempt *attempt_start(const struct plug_file *f, const struct vh_host *host, struct vh_err *e)
{
	struct attempt *a = g_new0(struct attempt, 1);
	pthread_condattr_t ca;
	sigset_t all, old;
	pthread_t t;
	int r;

	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&ca);
	pthread_condattr_setclock(&ca, CLOCK_MONOTONIC);
	pthread_cond_init(&a->cond, &ca);
	pthread_condattr_destroy(&ca);
	a->refs = 2;
	a->stage = stage_mapping;
	a->host = host;
	a->path = strdup(f->path);
	a->st = f->st;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = a->path ? pthread_create(&t, NULL, attempt_thread, a) : ENOMEM;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		a->refs = 1;
		attempt_unref(a);
		err_set(e, -r, "no thread to load it on: %s", g_strerror(r));
		return NULL;
	}
	pthread_detach(t);
	return a;
}

/*
 * A constructor that hangs keeps the dynamic linker's lock, which exit() takes as its very last step: the process would
 * never end. Registered before everything else, so that it runs after all other exit handlers.
 */
static int linker_stuck;

static void leave_anyway(int status, void *unused)
{
	if (!__atomic_load_n(&linker_stuck, __ATOMIC_RELAXED))
		return;
	fflush(NULL);
	_exit(status);
}

__attribute__((constructor)) static void watch_exit(void)
{
	on_exit(leave_anyway, NULL);
}

static int attempt_wait(struct attempt *a, struct vh_err *e)
{
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(plug_load_timeout_ms / 1000);
	until.tv_nsec += (long)(plug_load_timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&a->lock);
	while (!a->done && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&a->cond, &a->lock, &until);
	if (!a->done) {
		if (a->stage == stage_mapping)
			__atomic_store_n(&linker_stuck, 1, __ATOMIC_RELAXED);
		r = err_set(e, -ETIMEDOUT, "it hung for %.1f s %s", (double)plug_load_timeout_ms / 1000, a->stage);
		err_remedy(e, "report it to the plugin's author; the thread is left behind");
	} else {
		r = a->result;
		if (r < 0 && e)
			err_move(e, &a->err);
	}
	pthread_mutex_unlock(&a->lock);
	return r;
}

/* ---- what it gave us ---- */

static int check_text(const char *s, const char *what, struct vh_err *e)
{
	return s && *s ? 0 : err_set(e, -EPROTO, "its descriptor has no %s", what);
}

static int take_desc(const struct plug_ident *note, const struct vh_plugin *theirs, struct vh_plugin *d, struct vh_err *e)
{
	uint32_t size;
	int r;

	memset(d, 0, sizeof(*d));
	memcpy(&size, &theirs->size, sizeof(size));
	if (size % 4 || size < VH_END(theirs, get))
		return err_set(e, -EPROTO, "its descriptor is %u bytes long, which is too short for the mandatory member get",
			       size);
	memcpy(d, theirs, MIN(size, sizeof(*d)));
	if (!VH_KNOWS(theirs, fini))
		d->fini = NULL;
	d->size = MIN(size, (uint32_t)sizeof(*d));
	if ((r = check_text(d->id, "id", e)) < 0 || (r = check_text(d->version, "version", e)) < 0 ||
	    (r = check_text(d->summary, "summary", e)) < 0 || (r = check_text(d->license, "license", e)) < 0)
		return r;
	if (strncmp(d->id, note->id, VH_ID_MAX))
		return err_set(e, -EPROTO, "its note says that it is '%s', its descriptor '%.*s'", note->id, VH_ID_MAX, d->id);
	if (d->flags & VH_MUST_UNDERSTAND & ~PLUGIN_FLAGS_KNOWN)
		return err_set(e, -EOPNOTSUPP, "its descriptor has flags that this vhost must understand and does not: 0x%llx",
			       (unsigned long long)(d->flags & VH_MUST_UNDERSTAND & ~PLUGIN_FLAGS_KNOWN));
	if (!d->interfaces || !d->get)
		return err_set(e, -EPROTO, "its descriptor lacks the mandatory member %s", d->interfaces ? "get" : "interfaces");
	return 0;
}

int plug_image_take(const struct plug_ident *note, const struct vh_plugin *theirs, struct plug_image *out,
		    struct vh_err *e)
{
	uint32_t seen = 0;
	unsigned n;
	int r = take_desc(note, theirs, &out->desc, e);

	if (r < 0)
		return r;
	out->theirs = theirs;
	for (n = 0; n < INTERFACES_MAX && out->desc.interfaces[n]; n++) {
		const struct plug_table *t = plug_table_by_iid(out->desc.interfaces[n]);
		unsigned i;

		if (!t)
			continue; /* newer than this host */
		i = (unsigned)(t - plug_tables);
		if (seen & t->kind)
			return err_set(e, -EPROTO, "it lists the interface %s twice", t->iid);
		seen |= t->kind;
		out->raw[i] = out->desc.get(t->iid);
		if (!out->raw[i])
			return err_set(e, -EPROTO, "it lists the interface %s but has no table of it", t->iid);
		out->table[i] = g_malloc0(t->size);
		r = plug_table_import(t, out->raw[i], out->table[i], e);
		if (r < 0)
			return r;
	}
	if (n == INTERFACES_MAX)
		return err_set(e, -EPROTO, "its list of interfaces does not end");
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if ((note->kinds ^ seen) & plug_tables[i].kind)
			return err_set(e, -EPROTO, "its note %s the interface %s, its descriptor %s",
				       note->kinds & plug_tables[i].kind ? "has" : "lacks", plug_tables[i].iid,
				       seen & plug_tables[i].kind ? "lists it" : "does not list it");
	return 0;
}

int plug_image_load(const struct plug_file *f, const struct vh_host *host, struct plug_image *out, struct vh_err *e)
{
	struct attempt *a;
	int r;

	memset(out, 0, sizeof(*out));
	r = check_exports(f->fd, e);
	if (r < 0) {
		err_object(e, "plugin %s", f->path);
		return refuse(e, r);
	}
	a = attempt_start(f, host, e);
	if (!a) {
		err_object(e, "plugin %s", f->path);
		return -EAGAIN;
	}
	r = attempt_wait(a, e);
	if (!r) {
		out->handle = a->handle;
		out->entry = a->entry;
		r = plug_image_take(&f->note, a->theirs, out, e);
	}
	attempt_unref(a);
	if (r < 0) {
		for (unsigned i = 0; i < PLUG_TABLES; i++)
			g_clear_pointer(&out->table[i], g_free);
		err_object(e, "plugin %s", f->path);
		if (!e || e->status != EXIT_MISSING)
			refuse(e, r);
		return r;
	}
	log_info("plug", "%s %s (%s) from %s: ABI %u.%u, %s", f->note.id, out->desc.version, out->desc.license, f->path,
		 f->note.major, f->note.minor, out->desc.summary);
	return 0;
}
