/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * dnsmasq for one network. Whether it runs is asked of a lock that its keeper holds, which the kernel ties to that process
 * and drops with it: no number in a file is ever taken for a process.
 */
#include "nat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fault.h"

int service_wanted(const struct nat_want *w)
{
	return w->dhcp || w->dns;
}

int service_find(struct vh_err *e, const char **path)
{
	static const char *const known[] = { "/usr/sbin/dnsmasq", "/usr/bin/dnsmasq", "/sbin/dnsmasq", "/usr/local/sbin/dnsmasq" };

	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!access(known[i], X_OK)) {
			*path = known[i];
			return 0;
		}
	net_host->remedy(e, "install dnsmasq (Debian: dnsmasq-base), or give dhcp=off and dns=off");
	return net_host->err(e, -ENOENT, "there is no %s for the network's DHCP and DNS", known[0]);
}

static void conf_hosts(FILE *f, const struct nat_want *w)
{
	for (uint32_t i = 0; i < w->opts->n; i++) {
		const struct vh_val *v = w->opts->val[i];
		int six;
		struct nat_host h;

		if (strcmp(v->name, "host") || want_host(v->str, &h) < 0)
			continue;
		six = h.family == AF_INET6;
		fprintf(f, "dhcp-host=%02x:%02x:%02x:%02x:%02x:%02x,%s%s%s%s%s\n", h.mac[0], h.mac[1], h.mac[2], h.mac[3], h.mac[4], h.mac[5],
			six ? "[" : "", h.addr, six ? "]" : "", h.name[0] ? "," : "", h.name);
		if (h.name[0] && w->dns)
			fprintf(f, "host-record=%s%s%s%s%s,%s\n", h.name, w->domain ? "," : "", w->domain ? h.name : "",
				w->domain ? "." : "", w->domain ? w->domain : "", h.addr);
	}
}

static void conf_dhcp(FILE *f, const struct nat_want *w)
{
	char first[INET_ADDRSTRLEN], last[INET_ADDRSTRLEN], mask[INET_ADDRSTRLEN];
	uint32_t a, b;
	struct in_addr in;

	/* Known to make clients take anybody's proxy (CERT VU#598349). */
	fprintf(f, "dhcp-name-match=set:no-name,wpad\ndhcp-ignore-names=tag:no-name\n");
	fprintf(f, "dhcp-authoritative\nquiet-dhcp\nquiet-dhcp6\nquiet-ra\n");
	if (w->a4.family) {
		want_range4(w, &a, &b);
		in.s_addr = htonl(a);
		inet_ntop(AF_INET, &in, first, sizeof(first));
		in.s_addr = htonl(b);
		inet_ntop(AF_INET, &in, last, sizeof(last));
		in.s_addr = htonl(~UINT32_C(0) << (32 - w->a4.prefix));
		inet_ntop(AF_INET, &in, mask, sizeof(mask));
		fprintf(f, "dhcp-range=%s,%s,%s,1h\n", first, last, mask);
		if (!w->nat)
			fprintf(f, "dhcp-option=option:router\n"); /* none */
	}
	if (w->a6.family) {
		fprintf(f, "enable-ra\ndhcp-range=::1000,::ffff,constructor:%s,slaac,64,1h\n", w->bridge);
		if (!w->nat)
			fprintf(f, "ra-param=%s,0,0\n", w->bridge); /* prefixes, but no router */
	}
	conf_hosts(f, w);
}

static char *conf_text(const char *state, const struct nat_want *w)
{
	char leases[PATH_MAX], pid[PATH_MAX], *text = NULL;
	size_t len;
	FILE *f;

	if (record_path(leases, state, "leases", w->bridge) || record_path(pid, state, "pid", w->bridge))
		return NULL;
	f = open_memstream(&text, &len);
	if (!f)
		return NULL;
	fprintf(f, "# Made by vhost at each start.\ninterface=%s\nbind-interfaces\nexcept-interface=lo\npid-file=%s\ndhcp-leasefile=%s\n",
		w->bridge, pid, leases);
	if (w->dhcp)
		conf_dhcp(f, w);
	fprintf(f, "port=%d\n", w->dns ? 53 : 0);
	if (w->dns) {
		fprintf(f, "no-hosts\nbogus-priv\ndomain-needed\n");
		/* An isolated guest reaches nobody by way of names either. */
		if (!w->nat)
			fprintf(f, "no-resolv\n");
	}
	if (w->domain)
		fprintf(f, "domain=%s\nlocal=/%s/\n", w->domain, w->domain);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

int service_pid(const char *state, const char *bridge)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[PATH_MAX];
	int fd, r;

	if (record_path(path, state, "lock", bridge))
		return 0;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return 0;
	r = fcntl(fd, F_GETLK, &lock);
	close(fd);
	if (r < 0 || lock.l_type == F_UNLCK)
		return 0;
	return lock.l_pid > 0 ? lock.l_pid : -1; /* of a process namespace that we do not see: it runs, but has no number here */
}

static int start(const char *state, const struct nat_want *w, int ifindex, const char *program, struct keeper_report *rep)
{
	struct keeper k = { .program = program, .ifindex = ifindex };
	char conf[PATH_MAX], lock[PATH_MAX], pid[PATH_MAX];
	int r = record_path(conf, state, "conf", w->bridge);

	if (!r)
		r = record_path(lock, state, "lock", w->bridge);
	if (!r)
		r = record_path(pid, state, "pid", w->bridge);
	k.conf = conf;
	k.lock = lock;
	k.pid = pid;
	if (!r)
		r = NET_FAULT("process");
	if (!r)
		r = keeper_start(&k, rep);
	return r ? r : NET_FAULT("process answer");
}

int service_start(const char *state, const struct nat_want *w, int ifindex, struct vh_err *e)
{
	struct keeper_report rep = { 0 };
	const char *program;
	char *text;
	int r;

	if (!service_wanted(w) || service_pid(state, w->bridge))
		return 0;
	r = service_find(e, &program);
	if (r < 0)
		return r;
	text = conf_text(state, w);
	if (!text)
		return net_host->err(e, -ENOMEM, "no memory for dnsmasq's configuration");
	r = record_put(state, "conf", w->bridge, text);
	free(text);
	if (r < 0)
		return net_host->err(e, r, "cannot write dnsmasq's configuration in %s: %s", state, strerror(-r));
	r = start(state, w, ifindex, program, &rep);
	if (!r)
		return 0;
	if (strstr(rep.text, "in use"))
		net_host->remedy(e, "another DHCP or DNS server listens on all addresses: let it bind to its own (dnsmasq: bind-dynamic), "
				 "or give dhcp=off or dns=off");
	return net_host->err(e, r, "dnsmasq does not start on %s: %s", w->bridge, rep.text[0] ? rep.text : strerror(-r));
}

/* Only if the process that the number names is still the one with the lock, once a handle has it fast. */
static void kill_keeper(const char *state, const char *bridge)
{
	int pid = service_pid(state, bridge), fd;

	if (pid <= 0)
		return;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return;
	if (service_pid(state, bridge) == pid)
		syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	close(fd);
}

int service_end(const char *state, const char *bridge)
{
	struct timespec nap = { .tv_nsec = 2000000 };
	char none[1];
	int ran = !record_get(state, "lock", bridge, none, sizeof(none));

	/* The sealed helper may not signal anybody: what does not end by itself waits there for gc. */
	for (int tries = 0; service_pid(state, bridge); tries++) {
		if (tries == 1500)
			kill_keeper(state, bridge);
		if (tries == 2500)
			return -EBUSY;
		nanosleep(&nap, NULL);
	}
	record_drop(state, "conf", bridge);
	record_drop(state, "pid", bridge);
	record_drop(state, "lock", bridge);
	return ran;
}
