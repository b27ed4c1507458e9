/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "uplink.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <vhost/sugar.h>

#include "fault.h"
#include "plugin.h"
#include "rtset.h"
#include "tag.h"

#define MAGIC "vhost uplink 1\n"
#define PREFIX "uplink:"
#define ADDR_GEN_MODE_NONE 1

struct record {
	int ifindex, up, addrgen; /* of the uplink as it was */
	char name[16], bridge[16];
	long long boottime;       /* s, when it was written */
	struct rtset set;         /* what it had */
};

static long long boottime(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec;
}

/* ---- the record ---- */

static int record_path(char *out, size_t cap, const char *state, int bridge, const char *suffix)
{
	return snprintf(out, cap, "%s/" PREFIX "%d%s", state, bridge, suffix) >= (int)cap ? -ENAMETOOLONG : 0;
}

static int record_write(const char *state, int bridge, const struct record *r)
{
	char path[4096], tmp[4096];
	int fd, err = record_path(path, sizeof(path), state, bridge, "");
	FILE *f;

	if (!err)
		err = record_path(tmp, sizeof(tmp), state, bridge, ".new");
	if (!err)
		err = NET_FAULT("journal");
	if (err)
		return err;
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	fprintf(f, MAGIC "%d %s %s %d %d %lld\n", r->ifindex, r->name, r->bridge, r->up, r->addrgen, r->boottime);
	rtset_write(&r->set, f);
	fputs("end\n", f);
	err = ferror(f) || fflush(f) ? -EIO : 0;
	fclose(f);
	/* Not synced: the addresses do not outlive the kernel either. */
	if (!err && rename(tmp, path) < 0)
		err = -errno;
	if (err)
		unlink(tmp);
	return err;
}

/* 1, 0: there is none, -errno. */
static int record_read(const char *state, int bridge, struct record *r)
{
	char path[4096], *line = NULL;
	int fd, ok = 0, err = record_path(path, sizeof(path), state, bridge, "");
	size_t cap = 0;
	FILE *f;

	memset(r, 0, sizeof(*r));
	if (err)
		return err;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	f = fdopen(fd, "r");
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	ok = getline(&line, &cap, f) > 0 && !strcmp(line, MAGIC) && getline(&line, &cap, f) > 0 &&
	     sscanf(line, "%d %15s %15s %d %d %lld", &r->ifindex, r->name, r->bridge, &r->up, &r->addrgen, &r->boottime) == 6;
	for (err = 1; ok && err > 0;)
		err = getline(&line, &cap, f) > 0 ? rtset_read_line(&r->set, line) : -EPROTO;
	ok = ok && !err && !strcmp(line, "end\n");
	free(line);
	fclose(f);
	if (!ok)
		rtset_free(&r->set);
	return ok ? 1 : -EPROTO;
}

static void record_remove(const char *state, int bridge)
{
	char path[4096];

	if (!record_path(path, sizeof(path), state, bridge, "") && !NET_FAULT("journal end"))
		unlink(path);
}

int uplink_of(const char *state, int bridge, char name[16])
{
	struct record r;
	int have = state ? record_read(state, bridge, &r) : 0;

	if (have != 1)
		return 0;
	rtset_free(&r.set);
	memcpy(name, r.name, 16);
	return r.ifindex;
}

/* ---- joining ---- */

static int refuse(struct vh_err *e, const char *name, const char *why, const char *remedy)
{
	net_host->remedy(e, "%s", remedy);
	return net_host->err(e, -EINVAL, "%s cannot be an uplink: %s", name, why);
}

/* A station may send with its own address only. The kernel refuses most of them itself; this says why. */
static int is_wifi(const char *name)
{
	char path[64];

	for (const char *const *leaf = (const char *const[]){ "phy80211", "wireless", NULL }; *leaf; leaf++) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/%s", name, *leaf);
		if (!access(path, F_OK))
			return 1;
	}
	return 0;
}

int uplink_check(struct nl *nl, const char *name, int bridge, struct nl_link *out, struct vh_err *e)
{
	struct nl_link master;
	int r = nl_link_get(nl, 0, name, out);

	if (r == -ENODEV) {
		net_host->remedy(e, "`ip link` lists the interfaces");
		return net_host->err(e, -ENOENT, "uplink %s does not exist", name);
	}
	if (r < 0)
		return net_host->err(e, r, "cannot look for uplink %s: %s", name, nl->text[0] ? nl->text : strerror(-r));
	if (out->flags & IFF_LOOPBACK)
		return refuse(e, name, "it is the loopback", "name a network card");
	if (out->type != ARPHRD_ETHER || out->flags & (IFF_POINTOPOINT | IFF_NOARP))
		return refuse(e, name, "it is no Ethernet interface", "use a network of kind nat");
	if (is_wifi(name))
		return refuse(e, name, "wifi carries the addresses of one station only", "use a network of kind nat, or macvtap where the access point allows it");
	if (!strcmp(out->kind, "bridge"))
		return refuse(e, name, "it is a bridge itself", "use it by name= instead of uplink=");
	if (tag_ours(out->alias))
		return refuse(e, name, "it is an interface that vhost made", "name a network card");
	if (out->master && out->master != bridge) {
		r = nl_link_get(nl, out->master, NULL, &master);
		net_host->remedy(e, "use a bridge that has it by name=, or take %s out of it", name);
		return net_host->err(e, -EBUSY, "uplink %s is a port of %s already", name, r ? "another interface" : master.name);
	}
	return 0;
}

static void put_addrgen(struct nl *nl, int mode)
{
	size_t a = nl_nest(nl, IFLA_AF_SPEC), b = nl_nest(nl, AF_INET6);

	nl_put_u8(nl, IFLA_INET6_ADDR_GEN_MODE, (uint8_t)mode);
	nl_nest_end(nl, b);
	nl_nest_end(nl, a);
}

static void put_mode(struct nl *nl, int ifindex, int mode)
{
	if (mode < 0)
		return;
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, ifindex, NULL, -1);
	put_addrgen(nl, mode);
}

/* The uplink becomes a port and goes up, and makes no address of its own any more. */
static int enslave(struct nl *nl, const struct nl_link *up, const struct nl_link *br)
{
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, up->ifindex, NULL, 1);
	nl_put_u32(nl, IFLA_MASTER, (uint32_t)br->ifindex);
	put_mode(nl, up->ifindex, up->addrgen < 0 ? -1 : ADDR_GEN_MODE_NONE);
	return nl_commit(nl);
}

static int move(struct nl *nl, const struct rtset *s, const struct nl_link *up, const struct nl_link *br)
{
	int r = rtset_add(nl, s, up->ifindex, br->ifindex, up->name, br->name, NULL);

	if (!r)
		r = rtset_trim(nl, s, NULL, up->ifindex, br->ifindex);
	if (!r)
		r = rtset_remove(nl, s, up->ifindex);
	if (!r && up->addrgen >= 0) {
		/* From here on the bridge makes its addresses as the uplink did. */
		put_mode(nl, br->ifindex, up->addrgen);
		r = nl_commit(nl);
	}
	return r;
}

int uplink_join(struct nl *nl, const char *state, const struct nl_link *up, const struct nl_link *br, struct vh_err *e)
{
	struct record rec = { .ifindex = up->ifindex, .up = (up->flags & IFF_UP) != 0, .addrgen = up->addrgen, .boottime = boottime() };
	const struct nlmsghdr *fixed;
	char text[128], why[128];
	int r;

	if (up->master == br->ifindex)
		return 0;
	memcpy(rec.name, up->name, sizeof(rec.name));
	memcpy(rec.bridge, br->name, sizeof(rec.bridge));
	r = rtset_get(nl, up->ifindex, &rec.set);
	if (r)
		return net_host->err(e, r, "cannot list the addresses of %s: %s", up->name, nl->text[0] ? nl->text : strerror(-r));
	fixed = rtset_unmovable(&rec.set);
	if (fixed) {
		rtset_text(fixed, text, sizeof(text));
		rtset_free(&rec.set);
		net_host->remedy(e, "write it without a nexthop object");
		return net_host->err(e, -EOPNOTSUPP, "%s through %s uses a nexthop object, and cannot be moved", text, up->name);
	}
	r = record_write(state, br->ifindex, &rec);
	if (r) {
		rtset_free(&rec.set);
		return net_host->err(e, r, "cannot write the journal in %s: %s", state, strerror(-r));
	}
	r = enslave(nl, up, br);
	if (!r)
		r = move(nl, &rec.set, up, br);
	snprintf(why, sizeof(why), "%s", nl->text[0] ? nl->text : strerror(-r));
	rtset_free(&rec.set);
	if (!r)
		return 0;
	uplink_leave(nl, state, br->ifindex);
	if (r == -EPERM || r == -EACCES)
		net_host->remedy(e, "run as root, or give the program CAP_NET_ADMIN");
	else if (r == -EBUSY)
		net_host->remedy(e, "remove what is stacked on %s: a macvlan or macvtap, a bond or team, Open vSwitch", up->name);
	return net_host->err(e, r, "cannot make %s the uplink of bridge %s: %s", up->name, br->name, why);
}

int uplink_plan(struct nl *nl, const struct nl_link *up, const char *bridge, const struct plan *p, struct vh_err *e)
{
	struct rtset s;
	char text[128];
	int r = rtset_get(nl, up->ifindex, &s);

	if (r)
		return net_host->err(e, r, "cannot list the addresses of %s: %s", up->name, nl->text[0] ? nl->text : strerror(-r));
	step(p, "make %s a port of bridge %s%s", up->name, bridge, up->flags & IFF_UP ? "" : ", and set it up");
	for (unsigned i = 0; i < s.n; i++) {
		rtset_text(s.msg[i], text, sizeof(text));
		step(p, "move %s from %s to %s", text, up->name, bridge);
	}
	rtset_free(&s);
	return 0;
}

/* ---- leaving ---- */

static void complain(struct nl *nl, int r, const char *what, const char *uplink)
{
	const struct vh_log_ops *log = vh_service(net_host, VH_SVC_LOG, sizeof(*log));

	if (log && r)
		log->log(VH_LOG_WARN, "uplink", "%s %s: %s", what, uplink, nl->text[0] ? nl->text : strerror(-r));
}

/* As it was: no port, its mode, down when it was. */
static int release(struct nl *nl, const struct record *rec)
{
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, rec->ifindex, NULL, rec->up ? -1 : 0);
	nl_put_u32(nl, IFLA_MASTER, 0);
	put_mode(nl, rec->ifindex, rec->addrgen);
	return nl_commit(nl);
}

/* What the bridge has now, for that may have changed: leases are renewed, people add addresses. Nothing is taken away before what
 * replaces it is there: whatever fails, the host is reached by the one or the other, and gc() goes on from there. */
static int move_back(struct nl *nl, const struct record *rec, const struct nl_link *up, const struct nl_link *br)
{
	unsigned refused = 0;
	struct rtset now;
	int r = rtset_get(nl, br->ifindex, &now);

	if (r)
		return r;
	rtset_drop_own(&now, &rec->set);
	r = rtset_add(nl, &now, br->ifindex, up->ifindex, br->name, up->name, &refused);
	/* Once it is no port, the kernel's routes on it are those that shall be. */
	if (!r && up->master == br->ifindex)
		r = rtset_trim(nl, &now, &rec->set, br->ifindex, up->ifindex);
	complain(nl, r ? r : refused ? -EINVAL : 0, "not all addresses and routes could be moved back to", rec->name);
	if (!r) {
		r = release(nl, rec);
		complain(nl, r, "cannot take out of its bridge", rec->name);
	}
	if (!r)
		r = rtset_remove(nl, &now, br->ifindex);
	rtset_free(&now);
	return r;
}

static int restore(struct nl *nl, const char *state, int bridge, struct record *rec)
{
	unsigned refused = 0;
	struct rtset now = { 0 };
	struct nl_link up;
	int r = nl_link_get(nl, rec->ifindex, NULL, &up), ours;

	ours = !r && !up.master && !strcmp(up.name, rec->name);
	if (ours)
		r = rtset_get(nl, up.ifindex, &now);
	/* Of its own it may have some from a restoring that did not come to its end. */
	if (ours && !r && !rtset_has_other(&now, &rec->set)) {
		rtset_age(&rec->set, (uint32_t)(boottime() - rec->boottime));
		r = rtset_add(nl, &rec->set, up.ifindex, up.ifindex, up.name, up.name, &refused);
		if (!r)
			r = rtset_trim(nl, &rec->set, NULL, up.ifindex, up.ifindex);
	}
	rtset_free(&now);
	if (ours && !r)
		r = release(nl, rec);
	if (r == -ENODEV)
		r = 0;
	if (!r)
		record_remove(state, bridge);
	return r;
}

int uplink_leave(struct nl *nl, const char *state, int bridge)
{
	struct nl_link up, br;
	struct record rec;
	int have = state ? record_read(state, bridge, &rec) : 0, r;

	if (have != 1)
		return have;
	r = nl_link_get(nl, bridge, NULL, &br);
	if (r == -ENODEV) {
		r = restore(nl, state, bridge, &rec);
		rtset_free(&rec.set);
		return r;
	}
	if (!r)
		r = nl_link_get(nl, rec.ifindex, NULL, &up);
	if (!r && tag_ours(br.alias) && (!up.master || up.master == bridge))
		r = move_back(nl, &rec, &up, &br);
	/* An uplink that has gone, or that somebody put elsewhere, is not ours any more. */
	if (r == -ENODEV)
		r = 0;
	rtset_free(&rec.set);
	/* One that could not be moved back is kept for gc(), which tries again. */
	if (!r)
		record_remove(state, bridge);
	return r;
}

void uplink_collect(struct nl *nl, const char *state, void (*fn)(void *ctx, const char *uplink, int result), void *ctx)
{
	DIR *d = opendir(state);
	struct dirent *f;

	while (d && (f = readdir(d))) {
		struct record rec;
		struct nl_link br;
		char end[8] = "";
		int bridge;

		/* Nobody writes one now: the lock is ours. */
		if (sscanf(f->d_name, PREFIX "%d%7s", &bridge, end) == 2 && !strcmp(end, ".new"))
			unlinkat(dirfd(d), f->d_name, 0);
		if (sscanf(f->d_name, PREFIX "%d%7s", &bridge, end) != 1 || record_read(state, bridge, &rec) != 1)
			continue;
		/* Numbers are used again: it must be a bridge of ours. */
		if (nl_link_get(nl, bridge, NULL, &br) == -ENODEV || strcmp(br.kind, "bridge") || !tag_ours(br.alias)) {
			int r = restore(nl, state, bridge, &rec);

			if (fn)
				fn(ctx, rec.name, r);
		}
		rtset_free(&rec.set);
	}
	if (d)
		closedir(d);
}
