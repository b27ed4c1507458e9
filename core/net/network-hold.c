/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Networks that are held. A record, "ID STATE PID START", is written before the plugin makes the first object under the tag
 * "vhost:@NAME:ID", and removed after the last one is gone. While it says starting or stopping, the tag lives as long as the
 * process that is at it: what one leaves that is killed halfway is collected like a dead VM's.
 */
#include "net/network.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>
#include "net/helper.h"
#include "net/network-i.h"
#include "net/port.h"
#include "plug/plug.h"
#include "util/paths.h"

#define LOCK_TRIES 3000 /* of 10 ms */

struct hold {
	char id[17], state[12];
	int pid;
	uint64_t start;
};

static char *hold_path(const char *name)
{
	return path_in(PATH_STATE, ".net", "networks", name, NULL);
}

static int hold_folder(struct vh_err *e)
{
	g_autofree char *state = net_state_folder(e), *dir = hold_path(".");

	return state ? path_make(dir, 0700, e) : e && e->code ? e->code : -EIO;
}

/* 1, 0: there is none, -errno: there is one that cannot be read. */
static int hold_read(const char *name, struct hold *h)
{
	g_autofree char *path = hold_path(name);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char text[128], end;
	ssize_t n;

	memset(h, 0, sizeof(*h));
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n < 0)
		return -EIO;
	text[n] = '\0';
	return sscanf(text, "%16[0-9a-f] %11[a-z] %d %" G_GUINT64_FORMAT "%c", h->id, h->state, &h->pid, &h->start, &end) == 5 &&
			       end == '\n' ? 1 : -EPROTO;
}

static int hold_write(const char *name, struct hold *h, const char *state, struct vh_err *e)
{
	g_autofree char *path = hold_path(name), *text = NULL;

	h->pid = (int)getpid();
	h->start = 0;
	net_proc_start(h->pid, &h->start);
	g_strlcpy(h->state, state, sizeof(h->state));
	text = g_strdup_printf("%s %s %d %" G_GUINT64_FORMAT "\n", h->id, h->state, h->pid, h->start);
	return file_replace(path, text, strlen(text), 0600, e);
}

static int hold_remove(const char *name, struct vh_err *e)
{
	g_autofree char *path = hold_path(name);

	return unlink(path) < 0 && errno != ENOENT ? err_set(e, -errno, "cannot remove %s: %s", path, g_strerror(errno)) : 0;
}

static enum network_state state_of(const struct hold *h)
{
	uint64_t now;
	int r;

	if (!strcmp(h->state, "started"))
		return NETWORK_STARTED;
	r = net_proc_start(h->pid, &now);
	return r == -ESRCH || (!r && now != h->start) ? NETWORK_LEFT : NETWORK_CHANGING;
}

enum network_state network_state(const char *name)
{
	struct hold h;
	int r = name_check("network", name, NULL) ? 0 : hold_read(name, &h);

	return !r ? NETWORK_STOPPED : r < 0 ? NETWORK_LEFT : state_of(&h);
}

int network_held(const char *owner)
{
	g_auto(GStrv) part = g_strsplit(owner, ":", 4);
	struct hold h;
	int r;

	/* What cannot be read as a tag is somebody's: never removed. */
	if (g_strv_length(part) != 3 || strcmp(part[0], "vhost") || part[1][0] != '@' || name_check("network", part[1] + 1, NULL))
		return 1;
	r = hold_read(part[1] + 1, &h);
	if (r < 0)
		return 1;
	return r && !strcmp(h.id, part[2]) && state_of(&h) != NETWORK_LEFT;
}

int network_lock(struct vh_err *e)
{
	g_autofree char *path = hold_path(".lock");
	int r = hold_folder(e), fd;

	if (r)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(e, -errno, "cannot open %s: %s", path, g_strerror(errno));
	for (int i = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
		if ((errno == EWOULDBLOCK || errno == EINTR) && i < LOCK_TRIES) {
			g_usleep(10000);
			continue;
		}
		r = errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
		close(fd);
		err_remedy(e, "`fuser %s` names the process that starts or stops a network", path);
		return err_set(e, r, "cannot lock %s: %s", path, g_strerror(-r));
	}
	return fd;
}

/* The definition, its plugin, its options, and the struct that the plugin gets. */
struct use {
	struct network def;
	const struct vh_net_ops *ops;
	struct optset *set;
	char *state, *owner;
	struct vh_network n;
};

static void use_clear(struct use *u)
{
	network_clear(&u->def);
	optset_free(u->set);
	g_free(u->state);
	g_free(u->owner);
}

static int use_load(struct use *u, const char *name, struct vh_err *e)
{
	int r = network_load(name, &u->def, e);

	if (!r)
		r = plug_net(u->def.type, &u->ops, e);
	if (!r)
		r = network_kind_check(u->ops, u->def.type, u->def.kind, e);
	if (!r)
		r = network_options(&u->def, u->ops, &u->set, e);
	if (r)
		return r;
	u->state = path_in(PATH_STATE, ".net", NULL);
	u->n = (struct vh_network){.size = sizeof(u->n), .name = u->def.name, .kind = u->def.kind, .opts = optset_get(u->set),
				   .state = u->state};
	return 0;
}

static void use_owner(struct use *u, const struct hold *h)
{
	u->owner = g_strdup_printf("vhost:@%s:%s", u->def.name, h->id);
	u->n.owner = u->owner;
}

static int new_id(struct hold *h, struct vh_err *e)
{
	uint64_t id;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return err_set(e, -EIO, "the kernel gives no random number: %s", g_strerror(errno));
	snprintf(h->id, sizeof(h->id), "%016" G_GINT64_MODIFIER "x", id);
	return 0;
}

/* A plugin's result is an errno, whatever it says. */
static int sane(int r, struct vh_err *e)
{
	if (r >= 0)
		return 0;
	if (r < -4095)
		r = -EIO;
	return e && e->cause ? r : err_set(e, r, "its plugin says only: %s", g_strerror(-r));
}

/* [locked] */
static int start(struct use *u, struct vh_err *e)
{
	const char *name = u->def.name;
	struct hold h;
	int have = hold_read(name, &h), r = 0, was;

	was = have == 1 && state_of(&h) == NETWORK_STARTED;
	if (!was) {
		/* What is left of an attempt that died carries another tag, which nobody has from here on. */
		r = new_id(&h, e);
		if (!r)
			r = hold_write(name, &h, "starting", e);
	}
	if (r)
		return r;
	net_gc_stale(u->ops, u->state);
	use_owner(u, &h);
	if (u->ops->start)
		r = sane(u->ops->start(&u->n, e), e);
	if (!r && !was)
		r = hold_write(name, &h, "started", e);
	/* Undone by the plugin; what it could not undo is nobody's now. */
	if (r && !was && !hold_remove(name, NULL))
		net_gc_stale(u->ops, u->state);
	return r ? r : was;
}

/* [locked] */
static int stop(struct use *u, struct vh_err *e)
{
	const char *name = u->def.name;
	struct hold h;
	int have = hold_read(name, &h), r = 0;
	enum network_state was = have == 1 ? state_of(&h) : NETWORK_LEFT;

	if (!have)
		return 1;
	if (was == NETWORK_STARTED) {
		r = hold_write(name, &h, "stopping", e);
		if (r)
			return r;
		use_owner(u, &h);
		if (u->ops->stop)
			r = sane(u->ops->stop(&u->n, e), e);
		if (r) {
			hold_write(name, &h, "started", NULL);
			return r;
		}
	}
	r = hold_remove(name, e);
	if (!r && was != NETWORK_STARTED)
		net_gc_stale(u->ops, u->state);
	return r;
}

static int locked(const char *name, int (*fn)(struct use *u, struct vh_err *e), struct vh_err *e)
{
	struct use u = {0};
	int r = use_load(&u, name, e), lock;

	if (!r) {
		lock = network_lock(e);
		r = lock < 0 ? lock : fn(&u, e);
		if (lock >= 0)
			close(lock);
	}
	if (r < 0)
		err_object(e, "network %s", name);
	use_clear(&u);
	return r;
}

int network_start(const char *name, struct vh_err *e)
{
	return locked(name, start, e);
}

int network_stop(const char *name, struct vh_err *e)
{
	return locked(name, stop, e);
}

int network_forget_dead(struct vh_err *e)
{
	g_autofree char *dir = hold_path(".");
	GDir *d = g_dir_open(dir, 0, NULL);
	const char *name;
	struct hold h;
	int lock, r = 0;

	if (!d)
		return 0;
	lock = network_lock(e);
	while (lock >= 0 && (name = g_dir_read_name(d))) {
		if (name_check("network", name, NULL))
			continue;
		if (!network_defined(name) || (hold_read(name, &h) == 1 && state_of(&h) == NETWORK_LEFT))
			r = hold_remove(name, e);
	}
	g_dir_close(d);
	if (lock >= 0)
		close(lock);
	return lock < 0 ? lock : r;
}

int network_plan(const struct network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct use u = {0};
	int r = use_load(&u, n->name, e);

	if (!r && u.ops->plan_start)
		r = sane(u.ops->plan_start(&u.n, fn, ctx, e), e);
	else if (!r)
		fn(ctx, u.ops->start ? "steps not told by this backend" : "nothing: its NICs make what they need");
	if (r < 0)
		err_object(e, "network %s", n->name);
	use_clear(&u);
	return r;
}
