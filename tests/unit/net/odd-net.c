/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A net plugin that says and does what no good one would, as its option `how` tells it; and, with -DOLD, one that was built before
 * there were networks. It makes no ports: open() says what it was given. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stddef.h>
#include <unistd.h>
#include <vhost/net.h>
#include <vhost/sugar.h>

#ifdef OLD
#define ID "old-net"
#else
#define ID "odd-net"
#endif
static const struct vh_host *host;
VH_PLUGIN_NOTE(ID, VH_KIND_NET);

static int odd_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	return host->err(e, -ENOTSUP, "network=%s kind=%s note=%s own=%s", o->network ? o->network : "-", o->kind ? o->kind : "-",
			 vh_opt_str(o->opts, "note", "-"), vh_opt_str(o->opts, "own", "-"));
}

static int odd_info(void *port, struct vh_net_info *i)
{
	return -ENOTSUP;
}

static int odd_queue_fd(void *port, uint32_t pair, struct vh_err *e)
{
	return -ENOTSUP;
}

static void odd_close(void *port)
{
}

#ifndef OLD
static int mark(const struct vh_network *n, int on)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", n->state, n->owner);
	if (!on)
		return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "odd\n", 4) != 4)
		return -EIO;
	return close(fd);
}

static int how(const struct vh_network *n, const char *word)
{
	return !strcmp(vh_opt_str(n->opts, "how", ""), word);
}

static int odd_start(const struct vh_network *n, struct vh_err *e)
{
	int r;

	if (how(n, "start-fails"))
		return host->err(e, -EIO, "as it was told");
	if (how(n, "start-silent"))
		return -ENXIO;
	if (how(n, "start-impossible"))
		return -2000000;
	r = mark(n, 1);
	if (how(n, "start-kills"))
		kill(getpid(), SIGKILL);
	while (how(n, "start-waits"))
		pause();
	return r;
}

static int odd_stop(const struct vh_network *n, struct vh_err *e)
{
	if (how(n, "stop-busy"))
		return host->err(e, -EBUSY, "vnet7 is still there");
	if (how(n, "stop-kills"))
		kill(getpid(), SIGKILL);
	return mark(n, 0);
}

static int odd_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	DIR *d = opendir(state);
	struct dirent *f;

	while (d && (f = readdir(d)))
		if (!strncmp(f->d_name, "vhost:", 6) && !alive(ctx, f->d_name))
			unlinkat(dirfd(d), f->d_name, 0);
	if (d)
		closedir(d);
	return 0;
}

static int odd_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_net_part p = {.size = sizeof(p), .kind = "port", .name = "vnet0", .owner = "vhost:web:12:34:5", .ifindex = 7};
	struct { struct vh_net_part p; char more[64]; } larger = {.p = p};
	static char huge[100000];

	if (how(n, "describe-fails"))
		return -EACCES;
	if (how(n, "many"))
		for (int i = 0; i < 10000; i++)
			fn(ctx, &p);
	if (how(n, "texts")) {
		p.kind = NULL;
		p.name = "vn\xff\xfe<&\"\n\x1b[31m";
		p.detail = memset(huge, 'x', sizeof(huge) - 1);
		p.owner = "vhost:../../etc:1:1:0";
		fn(ctx, &p);
		p.name = NULL;
		fn(ctx, &p);
	}
	if (how(n, "circle")) {
		p.above = "vnet0"; /* itself */
		fn(ctx, &p);
		p.name = "b";
		p.above = "c";
		fn(ctx, &p);
		p.name = "c";
		p.above = "b";
		fn(ctx, &p);
		p.name = "d";
		fn(ctx, &p);
		p.above = "c";
		p.name = "e";
		fn(ctx, &p);
	}
	if (how(n, "sizes")) {
		p.size = 4;
		fn(ctx, &p);
		p.size = offsetof(struct vh_net_part, above);
		p.above = (const char *)8; /* beyond its size */
		fn(ctx, &p);
		larger.p.size = sizeof(larger);
		fn(ctx, &larger.p);
	}
	return 0;
}
static const char *const odd_kinds[] = {"Bad Kind", "odd", "", "-x", "x/../y", "this-kind-has-a-name-that-is-longer-than-is-allowed", "odd-two", NULL};
#endif

static const char *const words[] = {"fine", "start-fails", "start-silent", "start-impossible", "start-kills", "start-waits", "stop-busy", "stop-kills",
	"describe-fails", "many", "texts", "circle", "sizes", NULL};
static const struct vh_opt opt_how = {sizeof(struct vh_opt), VH_OPT_ENUM, 0, "how", "What it does", "fine", words, 0, 0};
static const struct vh_opt opt_note = {sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_MAIN, "note", "Any text", NULL, NULL, 0, 0};
static const struct vh_opt opt_where = {sizeof(struct vh_opt), VH_OPT_PATH, 0, "where", "A path", NULL, NULL, 0, 0};
static const struct vh_opt opt_tag = {sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_REPEAT, "tag", "Any number of texts", NULL, NULL, 0, 0};
static const struct vh_opt opt_own = {sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_NIC, "own", "A text of one NIC", NULL, NULL, 0, 0};
static const struct vh_opt *const options[] = {&opt_how, &opt_note, &opt_where, &opt_tag, &opt_own, NULL};

static const struct vh_net_ops ops = {
#ifdef OLD
	.size = offsetof(struct vh_net_ops, kinds),
#else
	.size = sizeof(struct vh_net_ops),
	.gc = odd_gc, .kinds = odd_kinds, .start = odd_start, .stop = odd_stop, .describe = odd_describe,
#endif
	.kind = ID, .options = options, .open = odd_open, .info = odd_info, .queue_fd = odd_queue_fd, .close = odd_close,
};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &ops;
}

static const char *const iids[] = {VH_IID_NET, NULL};
static const struct vh_plugin desc = {
	.size = sizeof(struct vh_plugin), .built_minor = VH_ABI_MINOR, .id = ID, .version = "1.0", .summary = "What no good plugin does",
	.license = "LGPL-2.1-or-later", .interfaces = iids, .get = get,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *h, const struct vh_plugin **out)
{
	host = h;
	*out = &desc;
	return 0;
}
