/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The helper's side. Until SEAL its parent is trusted; afterwards a request may come from a guest that has broken out, so
 * it can only name ports that exist already, and every length is checked.
 */
#include "net/helper.h"

#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "net/wire.h"
#include "plug/object.h"
#include "plug/plug.h"

#define OPTIONS_MAX 256u

struct child_port {
	const struct vh_net_ops *ops;
	void *port;
	struct vh_object *object;
};
static struct {
	int sock, said, sealed;
	unsigned n;
	struct child_port port[HELPER_PORTS_MAX];
	struct wire in, out;
} child;

static int reply(const int *fds, unsigned n)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(HELPER_FDS * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { child.out.data, child.out.len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t r;

	if (n) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.h.cmsg_level = SOL_SOCKET;
		control.h.cmsg_type = SCM_RIGHTS;
		control.h.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.h), fds, n * sizeof(int));
	}
	do
		r = sendmsg(child.sock, &m, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static void head(int result, const struct vh_err *e)
{
	child.out.len = 0;
	child.out.bad = 0;
	wire_put_u64(&child.out, (uint64_t)(int64_t)result);
	wire_put_str(&child.out, e && e->cause ? e->cause : NULL);
	wire_put_str(&child.out, e && e->remedy ? e->remedy : NULL);
}

static int answer(int result, const struct vh_err *e)
{
	head(result, e);
	if (child.out.bad) /* a text longer than a message */
		head(result, NULL);
	return reply(NULL, 0);
}

/* Pointers into the message: they live until the open returns. */
static int get_options(struct wire *w, struct vh_opts *o, struct vh_val *val, const struct vh_val **ptr)
{
	uint64_t n = wire_get_u64(w);

	if (n > OPTIONS_MAX)
		return -EPROTO;
	for (uint64_t i = 0; i < n; i++) {
		val[i].size = sizeof(val[i]);
		val[i].type = (uint32_t)wire_get_u64(w);
		val[i].num = (int64_t)wire_get_u64(w);
		val[i].name = wire_get_str(w);
		val[i].str = wire_get_str(w);
		if (!val[i].name)
			return -EPROTO;
		ptr[i] = &val[i];
	}
	o->size = sizeof(*o);
	o->n = (uint32_t)n;
	o->val = ptr;
	return 0;
}

static int send_fds(struct child_port *p, const struct vh_net_info *info)
{
	int fds[HELPER_FDS], r = 0;
	unsigned n = 0;

	child.out.len = 0;
	wire_put_u64(&child.out, 0);
	for (uint32_t i = 0; i < info->pairs && !r; i++) {
		fds[n++] = p->ops->queue_fd(p->port, i, NULL);
		if (n == HELPER_FDS || i + 1 == info->pairs) {
			r = reply(fds, n);
			n = 0;
		}
	}
	return r;
}

static int do_open(struct wire *w)
{
	struct vh_net_open o = { .size = sizeof(o) };
	struct vh_net_info info = { .size = sizeof(info) };
	static struct vh_val val[OPTIONS_MAX];
	static const struct vh_val *ptr[OPTIONS_MAX];
	struct child_port *p = &child.port[child.n];
	struct vh_opts opts;
	ERR_AUTO(e);
	const char *type;
	const void *mac;
	int r;

	type = wire_get_str(w);
	o.owner = wire_get_str(w);
	o.state = wire_get_str(w);
	o.ifname = wire_get_str(w);
	o.pairs = (uint32_t)wire_get_u64(w);
	mac = wire_get(w, 6);
	if (mac)
		memcpy(o.mac, mac, 6);
	o.mtu = (uint16_t)wire_get_u64(w);
	o.offload = wire_get_u64(w);
	o.network = wire_get_str(w);
	o.kind = wire_get_str(w);
	r = get_options(w, &opts, val, ptr);
	if (r < 0 || w->bad || !type || !o.owner || !o.state || !o.pairs || o.pairs > HELPER_PAIRS_MAX)
		return answer(-EPROTO, NULL);
	if (child.n == HELPER_PORTS_MAX)
		return answer(err_set(&e, -ENOSPC, "a VM has at most %u NICs", HELPER_PORTS_MAX), &e);
	r = plug_net(type, &p->ops, &e);
	if (r < 0)
		return answer(r, &e);
	net_gc_stale(p->ops, o.state);
	o.opts = &opts;
	o.object = p->object = plug_object_new();
	r = p->ops->open(&o, &p->port, &e);
	if (!r) {
		r = p->ops->info(p->port, &info);
		/* Everything is fetched once before the answer, so that the hand-over itself cannot fail. */
		for (uint32_t i = 0; i < info.pairs && !r; i++)
			r = MIN(p->ops->queue_fd(p->port, i, &e), 0);
		if (!r && (!info.pairs || info.pairs > o.pairs))
			r = err_set(&e, -EPROTO, "plugin %s gave %u queue pairs where %u were wanted", type, info.pairs, o.pairs);
		if (r < 0)
			p->ops->close(p->port);
	}
	if (r < 0) {
		plug_object_free(p->object);
		p->object = NULL;
		return answer(r, &e);
	}
	head(0, NULL);
	wire_put_u64(&child.out, child.n++);
	wire_put(&child.out, &info, sizeof(info));
	r = reply(NULL, 0);
	if (!r)
		r = send_fds(p, &info);
	if (!r) /* the VM's process goes on meanwhile */
		net_watch_add(p->ops, p->port, o.owner);
	return r;
}

static struct child_port *find(struct wire *w)
{
	uint64_t id = wire_get_u64(w);

	return !w->bad && id < child.n && child.port[id].port ? &child.port[id] : NULL;
}

static int do_set_link(struct wire *w)
{
	struct child_port *p = find(w);
	uint64_t up = wire_get_u64(w);
	ERR_AUTO(e);

	if (!p || w->bad)
		return answer(-EPROTO, NULL);
	if (!p->ops->set_link)
		return answer(-EOPNOTSUPP, NULL);
	return answer(p->ops->set_link(p->port, up != 0, &e), &e);
}

static int do_set_filter(struct wire *w)
{
	static _Alignas(8) uint64_t vlans[4096 / 64];
	struct child_port *p = find(w);
	struct vh_net_filter f = { .size = sizeof(f) };
	const void *map, *mac;
	uint64_t n;
	ERR_AUTO(e);

	f.mode = (uint32_t)wire_get_u64(w);
	n = wire_get_u64(w);
	if (n > HELPER_ADDRS_MAX)
		return answer(-EPROTO, NULL);
	f.n_unicast = (uint32_t)n;
	f.unicast = wire_get(w, 6 * n);
	n = wire_get_u64(w);
	if (n > HELPER_ADDRS_MAX)
		return answer(-EPROTO, NULL);
	f.n_multicast = (uint32_t)n;
	f.multicast = wire_get(w, 6 * n);
	if (wire_get_u64(w)) {
		map = wire_get(w, sizeof(vlans));
		if (map)
			memcpy(vlans, map, sizeof(vlans));
		f.vlans = vlans;
	}
	mac = wire_get(w, sizeof(f.mac));
	if (mac)
		memcpy(f.mac, mac, sizeof(f.mac));
	if (!p || w->bad)
		return answer(-EPROTO, NULL);
	if (!p->ops->set_filter)
		return answer(-EOPNOTSUPP, NULL);
	return answer(p->ops->set_filter(p->port, &f, &e), &e);
}

static void close_port(struct child_port *p)
{
	if (!p->port)
		return;
	net_watch_drop(p->port);
	p->ops->close(p->port);
	p->port = NULL;
	plug_object_free(p->object);
	p->object = NULL;
}

static int do_close(struct wire *w)
{
	struct child_port *p = find(w);

	if (!p)
		return answer(-EPROTO, NULL);
	close_port(p);
	return answer(0, NULL);
}

static void do_seal(struct wire *w)
{
	int null;

	if (child.sealed)
		return;
	child.sealed = 1;
	if (wire_get_u64(w)) {
		null = child.said >= 0 ? child.said : open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null >= 0) {
			dup2(null, STDERR_FILENO);
			close(null);
		}
	}
	/* A helper that cannot be confined does nothing more for anybody but closing its ports. */
	if (net_helper_confine() < 0)
		child.sealed = 2;
}

static int serve(struct wire *w)
{
	uint64_t op = wire_get_u64(w);
	const struct vh_net_ops *ops;
	const char *type;

	if (op == HELPER_PRELOAD && !child.sealed) {
		type = wire_get_str(w);
		if (type)
			plug_net(type, &ops, NULL); /* why it cannot be loaded is said by whoever needs it */
		return 0;
	}
	if (op == HELPER_SEAL) {
		do_seal(w);
		return 0;
	}
	if (op == HELPER_OPEN && !child.sealed)
		return do_open(w);
	if (op == HELPER_SET_LINK && child.sealed < 2)
		return do_set_link(w);
	if (op == HELPER_SET_FILTER && child.sealed < 2)
		return do_set_filter(w);
	if (op == HELPER_CLOSE)
		return do_close(w);
	return answer(-EPERM, NULL);
}

static void set_up(int sock, int said)
{
	static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGUSR1, SIGUSR2 };
	sigset_t none;
	int null;

	/* Ctrl-C goes to the whole group: the parent decides, its end is ours. */
	for (unsigned i = 0; i < G_N_ELEMENTS(ignored); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	prctl(PR_SET_NAME, "vhost-net");
	prctl(PR_SET_DUMPABLE, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	/* Nothing of the parent stays open here: not its locks, not its sockets. */
	sock = fcntl(sock, F_DUPFD_CLOEXEC, 5);
	said = said < 0 ? -1 : fcntl(said, F_DUPFD_CLOEXEC, 5);
	child.sock = dup3(sock, 3, O_CLOEXEC);
	child.said = said < 0 ? -1 : dup3(said, 4, O_CLOEXEC);
	if (child.sock < 0 || syscall(SYS_close_range, child.said < 0 ? 4U : 5U, ~0U, 0U) < 0)
		_exit(1);
}

void net_helper_child(int sock, int said)
{
	ssize_t n;

	set_up(sock, said);
	for (;;) {
		net_watch_until(child.sock);
		n = recv(child.sock, child.in.data, WIRE_MAX, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		child.in.len = (uint32_t)n;
		child.in.at = 0;
		child.in.bad = 0;
		if (serve(&child.in) < 0)
			break;
	}
	for (unsigned i = 0; i < child.n; i++)
		close_port(&child.port[i]);
	_exit(0);
}
