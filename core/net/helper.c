/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The VM's side of its helper. One request at a time; every request but PRELOAD and SEAL is answered. */
#include "net/helper.h"

#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/wire.h"

static struct {
	pthread_mutex_t lock;
	int sock, said;
	pid_t pid, parent;
	struct wire w;
} helper = { .lock = PTHREAD_MUTEX_INITIALIZER, .sock = -1, .said = -1 };

int net_helper_active(void)
{
	return helper.pid > 0 && helper.parent == getpid();
}

int net_helper_pid(void)
{
	return net_helper_active() ? (int)helper.pid : 0;
}

int net_helper_start(struct vh_err *e)
{
	sigset_t all, old;
	int s[2], said[2], err;
	pid_t pid;

	if (net_helper_active())
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) < 0)
		return err_set(e, -errno, "cannot make the helper's socket: %s", g_strerror(errno));
	/* Without it what the helper says later is lost, no more. */
	if (pipe2(said, O_CLOEXEC | O_NONBLOCK) < 0)
		said[0] = said[1] = -1;
	/* The child takes no signal before it has said what it ignores. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (!pid) {
		close(s[0]);
		net_helper_child(s[1], said[1]);
	}
	err = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(s[1]);
	if (said[1] >= 0)
		close(said[1]);
	if (pid < 0) {
		close(s[0]);
		if (said[0] >= 0)
			close(said[0]);
		return err_set(e, -err, "cannot fork the network helper: %s", g_strerror(err));
	}
	helper.sock = s[0];
	helper.said = said[0];
	helper.pid = pid;
	helper.parent = getpid();
	return 0;
}

static struct wire *begin(uint64_t op)
{
	struct wire *w = &helper.w;

	w->len = w->at = 0;
	w->bad = 0;
	wire_put_u64(w, op);
	return w;
}

static int send_request(struct vh_err *e)
{
	ssize_t n;

	if (helper.w.bad)
		return err_set(e, -EMSGSIZE, "options too long for the network helper");
	do
		n = send(helper.sock, helper.w.data, helper.w.len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? err_set(e, -EPIPE, "the network helper process %d has died", (int)helper.pid) : 0;
}

static int receive(int *fds, unsigned *n_fds)
{
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(HELPER_FDS * sizeof(int))];
	} control;
	struct iovec iov = { helper.w.data, WIRE_MAX };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n;

	do
		n = recvmsg(helper.sock, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	*n_fds = 0;
	if (n <= 0)
		return -EPIPE;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			*n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(c), *n_fds * sizeof(int));
		}
	helper.w.len = (uint32_t)n;
	helper.w.at = 0;
	helper.w.bad = 0;
	return 0;
}

/* Sends what begin() began and reads the answer's head; the rest of it is left in helper.w. */
static int call(struct vh_err *e)
{
	const char *cause, *remedy;
	int r = send_request(e), none[HELPER_FDS];
	unsigned n;

	if (r < 0)
		return r;
	r = receive(none, &n);
	for (unsigned i = 0; i < n; i++)
		close(none[i]);
	if (r < 0)
		return err_set(e, r, "the network helper process %d has died", (int)helper.pid);
	r = (int)(int64_t)wire_get_u64(&helper.w);
	cause = wire_get_str(&helper.w);
	remedy = wire_get_str(&helper.w);
	if (helper.w.bad)
		return err_set(e, -EPROTO, "the network helper's answer cannot be read");
	if (r < 0) {
		err_set(e, r, "%s", cause ? cause : g_strerror(-r));
		if (remedy)
			err_remedy(e, "%s", remedy);
	}
	return r;
}

void net_helper_preload(const char *type)
{
	pthread_mutex_lock(&helper.lock);
	if (net_helper_active()) {
		wire_put_str(begin(HELPER_PRELOAD), type);
		send_request(NULL);
	}
	pthread_mutex_unlock(&helper.lock);
}

int net_helper_seal(int quiet, struct vh_err *e)
{
	int r;

	pthread_mutex_lock(&helper.lock);
	wire_put_u64(begin(HELPER_SEAL), (uint64_t)quiet);
	r = send_request(e);
	pthread_mutex_unlock(&helper.lock);
	return r;
}

static void put_options(struct wire *w, const struct vh_opts *o)
{
	uint32_t n = o ? o->n : 0;

	wire_put_u64(w, n);
	for (uint32_t i = 0; i < n; i++) {
		wire_put_u64(w, o->val[i]->type);
		wire_put_u64(w, (uint64_t)o->val[i]->num);
		wire_put_str(w, o->val[i]->name);
		wire_put_str(w, o->val[i]->str);
	}
}

static int take_fds(int *fds, unsigned want, struct vh_err *e)
{
	unsigned have = 0, n;
	int got[HELPER_FDS];

	while (have < want) {
		int r = receive(got, &n);

		for (unsigned i = 0; i < n; i++)
			if (have < want)
				fds[have++] = got[i];
			else
				close(got[i]);
		if (r < 0 || !n) {
			while (have)
				close(fds[--have]);
			return err_set(e, -EPIPE, "the network helper gave too few of its fds");
		}
	}
	return 0;
}

int net_helper_open(const struct net_config *c, const char *owner, const char *state, uint64_t *id, struct vh_net_info *info,
		    int *fds, struct vh_err *e)
{
	const void *p;
	struct wire *w;
	int r;

	pthread_mutex_lock(&helper.lock);
	w = begin(HELPER_OPEN);
	wire_put_str(w, c->type ? c->type : c->ops->kind);
	wire_put_str(w, owner);
	wire_put_str(w, state);
	wire_put_str(w, c->ifname);
	wire_put_u64(w, c->pairs);
	wire_put(w, c->mac, 6);
	wire_put_u64(w, c->mtu);
	wire_put_u64(w, c->offload);
	wire_put_str(w, c->network);
	wire_put_str(w, c->kind);
	put_options(w, c->opts);
	r = call(e);
	if (!r) {
		*id = wire_get_u64(w);
		p = wire_get(w, sizeof(*info));
		if (p)
			memcpy(info, p, sizeof(*info));
		r = !p || info->pairs < 1 || info->pairs > c->pairs ? err_set(e, -EPROTO, "the network helper's answer is wrong") :
								      take_fds(fds, info->pairs, e);
	}
	pthread_mutex_unlock(&helper.lock);
	return r;
}

int net_helper_set_link(uint64_t id, int up, struct vh_err *e)
{
	struct wire *w;
	int r;

	pthread_mutex_lock(&helper.lock);
	w = begin(HELPER_SET_LINK);
	wire_put_u64(w, id);
	wire_put_u64(w, up != 0);
	r = call(e);
	pthread_mutex_unlock(&helper.lock);
	return r;
}

int net_helper_set_filter(uint64_t id, const struct vh_net_filter *f, struct vh_err *e)
{
	struct wire *w;
	int r;

	if (f->n_unicast > HELPER_ADDRS_MAX || f->n_multicast > HELPER_ADDRS_MAX)
		return err_set(e, -E2BIG, "a filter has at most %u addresses of a kind", HELPER_ADDRS_MAX);
	pthread_mutex_lock(&helper.lock);
	w = begin(HELPER_SET_FILTER);
	wire_put_u64(w, id);
	wire_put_u64(w, f->mode);
	wire_put_u64(w, f->n_unicast);
	wire_put(w, f->unicast, 6 * (size_t)f->n_unicast);
	wire_put_u64(w, f->n_multicast);
	wire_put(w, f->multicast, 6 * (size_t)f->n_multicast);
	wire_put_u64(w, f->vlans != NULL);
	if (f->vlans)
		wire_put(w, f->vlans, 4096 / 8);
	wire_put(w, f->mac, sizeof(f->mac));
	r = call(e);
	pthread_mutex_unlock(&helper.lock);
	return r;
}

void net_helper_close(uint64_t id)
{
	pthread_mutex_lock(&helper.lock);
	wire_put_u64(begin(HELPER_CLOSE), id);
	call(NULL);
	pthread_mutex_unlock(&helper.lock);
}

int net_helper_said_fd(void)
{
	return net_helper_active() ? helper.said : -1;
}

int net_helper_said(void)
{
	char buf[4096];
	ssize_t n = 0;

	while (helper.said >= 0 && (n = read(helper.said, buf, sizeof(buf))) > 0)
		if (write(STDERR_FILENO, buf, (size_t)n) < 0)
			return 1;
	return n < 0;
}

void net_helper_end(void)
{
	pid_t r;

	if (!net_helper_active())
		return;
	close(helper.sock);
	helper.sock = -1;
	do
		r = waitpid(helper.pid, NULL, 0);
	while (r < 0 && errno == EINTR);
	net_helper_said();
	if (helper.said >= 0)
		close(helper.said);
	helper.said = -1;
	helper.pid = 0;
}
