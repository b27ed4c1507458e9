/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Leases. A writer has librbd's exclusive lock, taken by hand, which is not handed over to others who ask for it. Who it is stands
 * among the image's metadata, by its client's number, from before it asks for the lock until it has given it back. A reader has
 * the same lock shared, by librbd's advisory calls; its record is the lock's cookie. Neither goes away with its process. So a
 * lock whose record names a dead process of this very host is broken at once; any other only by command. Breaking keeps the client
 * from writing first (blocklist), then takes the lock.
 *
 * librbd refuses nobody who asks for the exclusive lock while others share it: it tries again without end. So who takes a lock
 * has the image's turn meanwhile, a lock of a name of its own: what ceph_busy() says then holds until the lock is taken.
 */
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "ceph.h"

#define READERS "vhost-ro"          /* tag of readers' locks */
#define FENCED_FOR (30u * 86400)    /* s: a stopped process may wake up late */
#define TURN "vhost.turn"
#define TURN_FOR 10                 /* s: then it is the next one's, whatever became of us */
#define TURN_WAIT 15                /* s */
#define TURN_PAUSE 20               /* ms */
#define LOCKS_BYTES 65536u
#define RECORD_MAX 400

static atomic_uint serial; /* several locks of one process are several cookies */

int ceph_locks_get(const struct ceph_pool *p, const char *id, struct ceph_locks *l)
{
	size_t tag = sizeof(l->tag) - 1, clients = LOCKS_BYTES, cookies = LOCKS_BYTES, addrs = LOCKS_BYTES;
	char oid[CEPH_OID_MAX];
	ssize_t n = -ENOMEM;

	memset(l, 0, sizeof(*l));
	l->clients = calloc(1, LOCKS_BYTES + 1);
	l->cookies = calloc(1, LOCKS_BYTES + 1);
	l->addrs = calloc(1, LOCKS_BYTES + 1);
	ceph_header_oid(id, oid);
	if (l->clients && l->cookies && l->addrs)
		n = rados_list_lockers(p->io, oid, CEPH_LOCK, &l->exclusive, l->tag, &tag, l->clients, &clients, l->cookies, &cookies,
				       l->addrs, &addrs);
	if (n == -ENOENT) /* never locked */
		n = 0;
	if (n < 0)
		ceph_locks_clear(l);
	else
		l->n = (unsigned)n;
	return n < 0 ? (int)n : 0;
}

void ceph_locks_clear(struct ceph_locks *l)
{
	free(l->clients);
	free(l->cookies);
	free(l->addrs);
	memset(l, 0, sizeof(*l));
}

/* The k-th string of a list; "" past its end. */
static const char *nth(const char *list, unsigned k)
{
	const char *end = list + LOCKS_BYTES;

	while (k-- && list < end)
		list += strlen(list) + 1;
	return list < end ? list : "";
}

/* ---- who a process is ---- */

struct record {
	char client[64], host[64], boot[40];
	unsigned long long ns, start;
	int pid;
	long long since;
	const char *text;
};

static void read_line(const char *path, char *buf, size_t cap)
{
	FILE *f = fopen(path, "re");

	if (!f || !fgets(buf, (int)cap, f))
		snprintf(buf, cap, "-");
	buf[strcspn(buf, " \n")] = 0;
	if (f)
		fclose(f);
}

/* When a process started, in clock ticks since the host did; 0: there is none of that number. */
static unsigned long long started(int pid)
{
	unsigned long long start = 0;
	char path[64], buf[1024], *at;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	buf[fread(buf, 1, sizeof(buf) - 1, f)] = 0;
	fclose(f);
	at = strrchr(buf, ')'); /* its name may have anything before */
	for (int k = 0; at && k < 20; k++)
		at = strchr(at + 1, ' ');
	if (at)
		start = strtoull(at, NULL, 10);
	return start ? start : 1;
}

static unsigned long long pid_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) < 0 ? 0 : st.st_ino;
}

static void record_make(const struct ceph_pool *p, const char *holder, char *buf, size_t cap)
{
	char host[64] = "-", boot[40];

	if (gethostname(host, sizeof(host) - 1) < 0 || !host[0])
		snprintf(host, sizeof(host), "-");
	host[sizeof(host) - 1] = 0;
	read_line("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
	snprintf(buf, cap, "client.%llu %s %s %llu %d %llu %lld %s", (unsigned long long)rados_get_instance_id(p->cluster), host, boot,
		 pid_namespace(), (int)getpid(), started((int)getpid()), (long long)time(NULL), holder ? holder : "");
}

static int record_parse(const char *text, struct record *r)
{
	int at = 0;

	memset(r, 0, sizeof(*r));
	if (sscanf(text, "%63s %63s %39s %llu %d %llu %lld %n", r->client, r->host, r->boot, &r->ns, &r->pid, &r->start, &r->since,
		   &at) < 7 || !at)
		return 0;
	r->text = text + at;
	return 1;
}

/* The record of the k-th locker, if there is one and it is this locker's. buf holds its text. */
static int record_of(const struct ceph_pool *p, const char *id, const struct ceph_locks *l, unsigned k, char buf[CEPH_COOKIE_MAX],
		     struct record *r)
{
	char key[128];

	if (l->exclusive) {
		snprintf(key, sizeof(key), CEPH_HOLDER "%.64s", nth(l->clients, k));
		if (ceph_meta_read(p, id, key, buf, CEPH_COOKIE_MAX) < 0)
			return 0;
	} else {
		snprintf(buf, CEPH_COOKIE_MAX, "%s", nth(l->cookies, k));
	}
	return record_parse(buf, r) && !strcmp(r->client, nth(l->clients, k));
}

/* Surely dead: it was a process of this host, since its last start, in our own number space, and is no more. */
static int surely_dead(const struct record *r)
{
	char boot[40];

	read_line("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
	return !strcmp(boot, r->boot) && strlen(boot) == 36 && r->ns && r->ns == pid_namespace() && r->pid > 0 &&
	       started(r->pid) != r->start;
}

static void my_key(const struct ceph_pool *p, char key[128])
{
	snprintf(key, 128, CEPH_HOLDER "client.%llu", (unsigned long long)rados_get_instance_id(p->cluster));
}

void ceph_record_drop(const struct ceph_pool *p, const char *id)
{
	char key[128];

	my_key(p, key);
	ceph_meta_write(p, id, key, NULL);
}

/* Those who died after they had given back the lock, or before they got it. */
static void sweep(const struct ceph_pool *p, const char *id, rbd_image_t image)
{
	char *keys = malloc(65536), *values = malloc(65536), *k = keys, *v = values, mine[128];
	size_t keys_n = 65536, values_n = 65536;
	struct record r;

	my_key(p, mine);
	if (keys && values && rbd_metadata_list(image, CEPH_HOLDER, 64, keys, &keys_n, values, &values_n) >= 0)
		for (; k < keys + keys_n && v < values + values_n; k += strlen(k) + 1, v += strlen(v) + 1)
			if (!strncmp(k, CEPH_HOLDER, strlen(CEPH_HOLDER)) && strcmp(k, mine) && record_parse(v, &r) && surely_dead(&r))
				ceph_meta_write(p, id, k, NULL);
	free(keys);
	free(values);
}

/* ---- breaking ---- */

static int break_one(struct ceph_pool *p, const char *id, const char *client, const char *cookie, const char *addr, struct vh_err *e)
{
	char mine[64], key[128], oid[CEPH_OID_MAX], to[128];
	int ret;

	snprintf(mine, sizeof(mine), "client.%llu", (unsigned long long)rados_get_instance_id(p->cluster));
	if (!strcmp(client, mine) || !*addr || strlen(addr) >= sizeof(to))
		return ceph_fail(e, -EBUSY, "the lock of %s at %s cannot be broken", client, *addr ? addr : "an unknown address");
	snprintf(to, sizeof(to), "%s", addr);
	ret = rados_blocklist_add(p->cluster, to, FENCED_FOR);
	if (ret) {
		if (ret == -EPERM || ret == -EACCES)
			ceph_hint(e, "give client.%s the monitors' profile rbd: ceph auth caps client.%s mon 'profile rbd' ...", p->user, p->user);
		return ceph_fail(e, ret, "%s at %s cannot be kept from writing: %s", client, addr, ceph_why(ret));
	}
	/* What we do from here on carries the map that has the entry; an OSD that does not know it yet waits for it. */
	ret = rados_wait_for_latest_osdmap(p->cluster);
	ceph_header_oid(id, oid);
	if (!ret)
		ret = rados_break_lock(p->io, oid, CEPH_LOCK, client, cookie);
	if (ret == -ENOENT) /* it let go */
		ret = 0;
	snprintf(key, sizeof(key), CEPH_HOLDER "%.64s", client);
	if (!ret)
		ceph_meta_write(p, id, key, NULL);
	return ret ? ceph_fail(e, ret, "the lock of %s at %s cannot be taken: %s", client, addr, ceph_why(ret)) : 0;
}

int ceph_lease_break(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	struct ceph_locks l;
	char id[CEPH_ID_MAX];
	int ret = ceph_name_ok(name, e);

	if (ret)
		return ret;
	ret = ceph_id(p, name, id);
	if (!ret)
		ret = ceph_locks_get(p, id, &l);
	if (ret)
		return ceph_errno(e, ret, p, name);
	for (unsigned k = 0; k < l.n && !ret; k++)
		ret = break_one(p, id, nth(l.clients, k), nth(l.cookies, k), nth(l.addrs, k), e);
	ceph_locks_clear(&l);
	return ret;
}

/* ---- refusing ---- */

static void clean(char *text)
{
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

int ceph_busy(struct ceph_pool *p, const char *id, int reading, struct vh_err *e)
{
	char buf[CEPH_COOKIE_MAX], when[40] = "";
	struct ceph_locks l;
	struct record r;
	struct tm tm;
	time_t t;
	int ret = ceph_locks_get(p, id, &l), known;

	if (ret)
		return ceph_fail(e, ret, "its locks cannot be read: %s", ceph_why(ret));
	for (unsigned k = 0; k < l.n && !ret; k++) {
		if (reading && !l.exclusive && !strcmp(l.tag, READERS))
			break;
		known = record_of(p, id, &l, k, buf, &r);
		if (known && surely_dead(&r)) {
			ret = break_one(p, id, nth(l.clients, k), nth(l.cookies, k), nth(l.addrs, k), e);
			if (!ret)
				ceph_warn("%s, pid %d of this host, is dead: its lock is broken and it is blocklisted", r.client, r.pid);
			continue;
		}
		if (!known) {
			snprintf(buf, sizeof(buf), "%.60s", nth(l.clients, k));
			clean(buf);
			ceph_hint(e, "stop it; if it is dead for certain: vhost vol unlock keeps it from writing and breaks its lock");
			ret = ceph_fail(e, -EBUSY, "in use by %s at %.80s, which did not say who it is", buf, nth(l.addrs, k));
			continue;
		}
		t = (time_t)r.since;
		if (gmtime_r(&t, &tm))
			strftime(when, sizeof(when), " since %Y-%m-%dT%H:%M:%SZ", &tm);
		clean(buf);
		ceph_hint(e, "stop it; if it is dead for certain: vhost vol unlock keeps it from writing and breaks its lock");
		ret = ceph_fail(e, -EBUSY, "in use by %s on host %s%s (%s at %.80s)", *r.text ? r.text : "an unnamed process", r.host, when,
				r.client, nth(l.addrs, k));
	}
	ceph_locks_clear(&l);
	return ret;
}

/* ---- taking ---- */

struct turn {
	char oid[CEPH_OID_MAX], cookie[24];
};

/* Of an image that we have open, so that its header is there. A client that may not lock at all gets it too. */
static int turn_take(struct ceph_pool *p, const char *id, struct turn *t, struct vh_err *e)
{
	struct timeval limit = { .tv_sec = TURN_FOR };
	int ret;

	ceph_header_oid(id, t->oid);
	snprintf(t->cookie, sizeof(t->cookie), "#%u", atomic_fetch_add(&serial, 1));
	for (int left = TURN_WAIT * 1000;; left -= TURN_PAUSE) {
		ret = rados_lock_exclusive(p->io, t->oid, TURN, t->cookie, "", &limit, 0);
		if (ret != -EBUSY || left <= 0)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = TURN_PAUSE * 1000000L }, NULL);
	}
	if (ret == -EPERM || ret == -EACCES || ret == -EROFS)
		ret = 0;
	if (ret == -EBUSY) {
		ceph_hint(e, "try again; if it stays: rados lock info %s " TURN, t->oid);
		return ceph_fail(e, ret, "others have been taking its lock for %d s", TURN_WAIT);
	}
	return ret ? ceph_fail(e, ret, "it cannot be locked: %s", ceph_why(ret)) : 0;
}

static int take_shared(struct ceph_pool *p, const char *name, const char *id, const char *holder, rbd_image_t image,
		       char cookie[CEPH_COOKIE_MAX], struct vh_err *e)
{
	int ret, busy, tries = 0;

	record_make(p, holder, cookie, CEPH_COOKIE_MAX - 16);
	snprintf(cookie + strlen(cookie), 16, " #%u", atomic_fetch_add(&serial, 1));
	do { /* who had it may have let go between the answers */
		ret = rbd_lock_shared(image, cookie, READERS);
		busy = ret == -EBUSY ? ceph_busy(p, id, 1, e) : 0;
	} while (ret == -EBUSY && !busy && ++tries < 10);
	if (!ret)
		return 0;
	cookie[0] = 0;
	if (busy)
		return busy;
	if (ret == -EPERM || ret == -EACCES || ret == -EROFS) {
		ceph_warn("%s/%s: client.%s may not lock: nothing keeps others from writing the volume meanwhile", p->name, name, p->user);
		return 0;
	}
	return ceph_fail(e, ret, "%s/%s cannot be locked: %s", p->name, name, ceph_why(ret));
}

static int take_exclusive(struct ceph_pool *p, const char *name, const char *id, const char *holder, rbd_image_t image, struct vh_err *e)
{
	char record[RECORD_MAX], key[128];
	uint64_t features;
	int ret = rbd_get_features(image, &features), busy;

	if (ret)
		return ceph_errno(e, ret, p, name);
	if (!(features & RBD_FEATURE_EXCLUSIVE_LOCK)) {
		ceph_hint(e, "rbd feature enable %s%s%s/%s exclusive-lock", p->name, p->ns ? "/" : "", p->ns ? p->ns : "", name);
		return ceph_fail(e, -EOPNOTSUPP, "the image has no exclusive lock: nothing would keep two from writing it");
	}
	ret = ceph_busy(p, id, 0, e); /* nobody came since it was asked first; who comes now waits for the turn */
	if (ret)
		return ret;
	record_make(p, holder, record, sizeof(record));
	my_key(p, key);
	ret = ceph_meta_write(p, id, key, record);
	if (ret)
		return ceph_errno(e, ret, p, name);
	ret = rbd_lock_acquire(image, RBD_LOCK_MODE_EXCLUSIVE);
	if (ret) {
		ceph_meta_write(p, id, key, NULL);
		busy = ret == -EROFS || ret == -EBUSY || ret == -EAGAIN ? ceph_busy(p, id, 0, e) : 0;
		return busy ? busy : ceph_fail(e, ret == -EROFS ? -EBUSY : ret, "%s/%s cannot be locked: %s", p->name, name, ceph_why(ret));
	}
	sweep(p, id, image);
	return 0;
}

static int take(struct ceph_pool *p, const char *name, const char *id, uint32_t mode, const char *holder, rbd_image_t image,
		char cookie[CEPH_COOKIE_MAX], struct vh_err *e)
{
	struct turn t;
	int ret = turn_take(p, id, &t, e);

	if (ret)
		return ret;
	ret = mode == VH_ATTACH_RO ? take_shared(p, name, id, holder, image, cookie, e) : take_exclusive(p, name, id, holder, image, e);
	rados_unlock(p->io, t.oid, TURN, t.cookie);
	return ret;
}

int ceph_lease(struct ceph_pool *p, const char *name, const char *id, uint32_t mode, const char *holder, rbd_image_t *image,
	       char cookie[CEPH_COOKIE_MAX], struct vh_err *e)
{
	int ret, read_only = mode == VH_ATTACH_PEEK;

	cookie[0] = 0;
	ret = mode == VH_ATTACH_PEEK ? 0 : ceph_busy(p, id, mode == VH_ATTACH_RO, e);
	if (ret)
		return ret;
	ret = read_only ? rbd_open_by_id_read_only(p->io, id, image, NULL) : rbd_open_by_id(p->io, id, image, NULL);
	if (mode == VH_ATTACH_RO && (ret == -EPERM || ret == -EACCES || ret == -EROFS)) { /* a client that may only read */
		read_only = 1;
		ret = rbd_open_by_id_read_only(p->io, id, image, NULL);
	}
	if (ret)
		return ceph_errno(e, ret, p, name);
	if (mode == VH_ATTACH_RO && read_only)
		ceph_warn("%s/%s: client.%s may only read: nothing keeps others from writing the volume meanwhile", p->name, name, p->user);
	else if (mode == VH_ATTACH_RO || mode == VH_ATTACH_RW_EXCL)
		ret = take(p, name, id, mode, holder, *image, cookie, e);
	if (ret)
		ceph_image_close(p, *image, NULL, NULL);
	return ret;
}

int ceph_lease_for(struct ceph_pool *p, const char *name, const char *why, char id[CEPH_ID_MAX], rbd_image_t *image, struct vh_err *e)
{
	char holder[96], cookie[CEPH_COOKIE_MAX];
	int ret = ceph_name_ok(name, e);

	if (ret)
		return ret;
	ret = ceph_id(p, name, id);
	if (ret)
		return ceph_errno(e, ret, p, name);
	snprintf(holder, sizeof(holder), "pid %d vhost (%s)", (int)getpid(), why);
	return ceph_lease(p, name, id, VH_ATTACH_RW_EXCL, holder, image, cookie, e);
}

void ceph_unlease(struct ceph_pool *p, rbd_image_t image, const char *id)
{
	ceph_image_close(p, image, id, NULL);
}
