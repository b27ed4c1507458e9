/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The nat plugin as a host uses it, and what there is of it in a namespace: addresses, rules, settings, processes. */
#ifndef TEST_NAT_TEST_H
#define TEST_NAT_TEST_H

#include <nftables/libnftables.h>
#include <signal.h>
#include <sys/wait.h>

#include "nat.h"
#include "netns.h"
#include "nlstate.h"
#include "plug/options.h"
#include "plug/plug.h"

static const struct vh_net_ops *ops;
static char *state;

struct spec {
	const char *options, *network, *kind, *owner, *ifname;
};

struct parsed {
	struct optset *set;
	struct kvs kvs;
};

static inline const struct vh_opts *parse(struct parsed *p, const char *options)
{
	ERR_AUTO(e);

	g_assert_cmpint(kvs_parse(options, &p->kvs, NULL), ==, 0);
	optset_parse(ops->options, &p->kvs, "net type nat", &p->set, &e);
	g_assert_cmpstr(e.cause, ==, NULL);
	return optset_get(p->set);
}

static inline void parsed_clear(struct parsed *p)
{
	optset_free(p->set);
	kvs_clear(&p->kvs);
}

static inline int try_open(const struct spec *s, void **port, struct vh_err *e)
{
	struct vh_net_open o = {
		.size = sizeof(o), .pairs = 1, .owner = s->owner ? s->owner : "vhost:t:1:1:0", .ifname = s->ifname, .state = state,
		.mac = { 0x52, 0x54, 0, 1, 2, 3 }, .offload = ~UINT64_C(0), .network = s->network, .kind = s->kind,
	};
	struct parsed p;
	int r;

	o.opts = parse(&p, s->options);
	*port = NULL;
	r = ops->open(&o, port, e);
	parsed_clear(&p);
	return r;
}

static inline void *must_open(const struct spec *s)
{
	ERR_AUTO(e);
	void *port;
	int r = try_open(s, &port, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
	return port;
}

enum { START, STOP, PLAN, DESCRIBE };

static inline void hold_step(void *ctx, const char *text)
{
	g_string_append_printf(ctx, "%s\n", text);
}

static inline void hold_part(void *ctx, const struct vh_net_part *p)
{
	g_string_append_printf(ctx, "%s %s on %s: %s, %s\n", p->kind, p->name, p->above ? p->above : "-", p->detail ? p->detail : "-",
			       p->up ? "up" : "down");
}

/* `out` gets what is told, a line each. */
static inline int hold(int what, const struct spec *s, GString *out, struct vh_err *e)
{
	struct vh_network n = { .size = sizeof(n), .name = s->network, .kind = s->kind, .state = state };
	struct parsed p;
	int r;

	n.opts = parse(&p, s->options);
	n.owner = what == START || what == STOP ? s->owner : NULL;
	r = what == START ? ops->start(&n, e) : what == STOP ? ops->stop(&n, e) :
	    what == PLAN ? ops->plan_start(&n, hold_step, out, e) : ops->describe(&n, hold_part, out, e);
	parsed_clear(&p);
	return r;
}

static inline void must_hold(int what, const struct spec *s)
{
	ERR_AUTO(e);
	int r = hold(what, s, NULL, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
}

static inline int nobody(void *ctx, const char *owner)
{
	return 0;
}

static inline void gc(int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx)
{
	ERR_AUTO(e);
	int r = ops->gc(state, alive, fn, ctx, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
}

static inline void is_there(const char *pid, const char *net, GString *out)
{
	g_autofree char *comm_path = g_build_filename("/proc", pid, "comm", NULL), *status_path = g_build_filename("/proc", pid, "status", NULL);
	g_autofree char *ns_path = g_build_filename("/proc", pid, "ns/net", NULL), *comm = NULL, *ns = NULL, *status = NULL;

	if (!g_file_get_contents(comm_path, &comm, NULL, NULL) || (strcmp(comm, "dnsmasq\n") && strcmp(comm, "vhost-dhcp\n")))
		return;
	ns = g_file_read_link(ns_path, NULL);
	if (!ns || strcmp(ns, net) || !g_file_get_contents(status_path, &status, NULL, NULL) || strstr(status, "State:\tZ") ||
	    strstr(status, "State:\tX"))
		return;
	if (strcmp(comm, "dnsmasq\n"))
		g_string_append(out, comm);
	else
		g_string_prepend(out, comm);
}

/* dnsmasq and its keeper in this network namespace; one that is only waited for by its parent is none. */
static inline char *processes(void)
{
	g_autofree char *net = g_file_read_link("/proc/self/ns/net", NULL);
	g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
	GString *out = g_string_new(NULL);
	const char *name;

	while ((name = g_dir_read_name(proc)))
		if (g_ascii_isdigit(name[0]))
			is_there(name, net, out);
	return g_string_free(out, FALSE);
}

/* A process that has let its lock go is still taken apart for a moment. */
static inline char *processes_at_last(const char *want)
{
	char *now = processes();

	for (int i = 0; i < 200 && strcmp(now, want); i++) {
		g_free(now);
		g_usleep(10000);
		now = processes();
	}
	return now;
}

static inline void nat_setting(GString *s, const char *fmt, const char *of)
{
	g_autofree char *path = g_strdup_printf(fmt, of), *text = NULL;

	if (g_file_get_contents(path, &text, NULL, NULL))
		g_string_append_printf(s, "%s=%s", path, text);
}

/* The settings of the host that the plugin knows, and the ruleset as libnftables shows it: no program is started. */
static inline char *nat_state(void)
{
	g_autofree char *base = net_state();
	struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);
	GString *s = g_string_new(base);
	const char *name;

	nft_ctx_buffer_output(nft);
	g_assert_cmpint(nft_run_cmd_from_buffer(nft, "list ruleset"), ==, 0);
	g_string_append(s, nft_ctx_get_output_buffer(nft));
	nft_ctx_free(nft);
	nat_setting(s, "%s/ip_forward", "/proc/sys/net/ipv4");
	for (const char *const *f = (const char *const[]){ "ipv4", "ipv6", NULL }; *f; f++) {
		g_autofree char *conf = g_strdup_printf("/proc/sys/net/%s/conf", *f);
		g_autoptr(GDir) d = g_dir_open(conf, 0, NULL);

		while (d && (name = g_dir_read_name(d))) {
			g_autofree char *dir = g_build_filename(conf, name, NULL);

			nat_setting(s, "%s/forwarding", dir);
			nat_setting(s, "%s/accept_ra", dir);
		}
	}
	return g_string_free(s, FALSE);
}

static inline unsigned state_files(const char *prefix)
{
	g_autoptr(GDir) d = g_dir_open(state, 0, NULL);
	const char *name;
	unsigned n = 0;

	while ((name = g_dir_read_name(d)))
		n += g_str_has_prefix(name, prefix);
	return n;
}

static inline int has(const char *text, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static inline int has(const char *text, const char *fmt, ...)
{
	g_autofree char *cmd = NULL, *out = NULL;
	va_list ap;

	va_start(ap, fmt);
	cmd = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	out = sh("%s 2>&1", cmd);
	return strstr(out, text) != NULL;
}

/* An uplink with a default route, as a host has one. */
static inline int nat_begin(void)
{
	if (!netns_fresh())
		return 0;
	for (const char *const *p = (const char *const[]){ "nft", "dnsmasq", NULL }; *p; p++) {
		g_autofree char *path = g_find_program_in_path(*p);

		if (!path) {
			g_autofree char *why = g_strdup_printf("%s is not installed", *p);

			g_test_skip(why);
			return 0;
		}
	}
	run_ok("ip link set lo up; ip link add up0 type veth peer name out0; ip link set up0 addrgenmode none; ip link set out0 addrgenmode none; "
	       "ip addr add 203.0.113.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad; ip link set up0 up; ip link set out0 up; "
	       "ip route add default via 203.0.113.254; ip -6 route add default via 2001:db8::fe; nft list ruleset");
	return 1;
}

/* What a test that has failed left running would live for ever, with its namespace. */
static inline void end_leftovers(void)
{
	g_autoptr(GDir) d = g_dir_open(state, 0, NULL);
	const char *name;
	int pid;

	while ((name = g_dir_read_name(d)))
		if (g_str_has_prefix(name, "nat.lock.") && (pid = service_pid(state, name + strlen("nat.lock."))) > 0)
			kill(pid, SIGKILL);
}

static inline int nat_main(int argc, char **argv, void (*add)(void))
{
	const struct vh_plugin *p;
	int st = 0;
	pid_t pid;

	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder("nat");
	pid = fork();
	if (!pid) {
		g_test_init(&argc, &argv, NULL);
		g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
		ops = p->get(VH_IID_NET);
		add();
		exit(g_test_run());
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	end_leftovers();
	run_ok("rm -rf %s", state);
	g_free(state);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 1;
}

#endif
