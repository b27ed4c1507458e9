/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The passt plugin: its options, the process's life, and what is left of it. With Debian's passt where it is installed. */
#include <grp.h>
#include <sys/prctl.h>

#include "netcase.h"
#include "passt.h"

/* A host that has one card and a default route, else passt has nothing to show the guest. */
static int begin(void)
{
	if (!netns_fresh())
		return 0;
	net_fault_hook = NULL;
	run_ok("ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 addrgenmode none; ip link set v1 addrgenmode none; ip link set v0 up; ip link set v1 up; "
	       "ip addr add 10.9.0.1/24 dev v0; ip route add default via 10.9.0.254");
	return 1;
}

static int have_passt(void)
{
	if (!access("/usr/bin/passt", X_OK) || !access("/usr/local/bin/passt", X_OK))
		return 1;
	g_test_skip("passt is not installed");
	return 0;
}

#define PLAIN "address=10.9.0.2/24,gateway=10.9.0.254"

static void forwards(void)
{
	static const char *const good[] = { "22", "2222:22", "22,80", "8000-8010", "8000-8010:9000-9010", "127.0.0.1/8080:80", "::1/22",
					    "192.0.2.1%eth0/22", "2000-5000,~3000-3010", "65535", "192.0.2.1/20-30,~25" };
	static const char *const bad[] = { "", "0", "65536", "22:", ":22", "a", "22-", "30-20", "1-3:1-2", "22,,80", "22,", "/22", "x/22",
					   "1.2.3/22", "127.0.0.1%/22", "127.0.0.1%interfaceistoolong/22", "~22", "22:~3", "all", "-t", "22 80",
					   "2222:22:2", "99999999999999999999", "+22" };

	for (unsigned i = 0; i < G_N_ELEMENTS(good); i++)
		if (!args_forward_ok(good[i]))
			g_error("'%s' is refused", good[i]);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
		if (args_forward_ok(bad[i]))
			g_error("'%s' is taken", bad[i]);
}

static void errors(void)
{
	if (!begin())
		return;
	refused(&(struct spec){ "tcp=x" }, -EINVAL, "tcp=x names no ports", "2222:22");
	refused(&(struct spec){ "udp=0" }, -EINVAL, "udp=0 names no ports", NULL);
	refused(&(struct spec){ "address=10.9.0" }, -EINVAL, "address=10.9.0 is no IP address", "192.0.2.2/24");
	refused(&(struct spec){ "address=10.9.0.2/33" }, -EINVAL, "no IP address", NULL);
	refused(&(struct spec){ "address=2001:db8::1/64" }, -EINVAL, "no IP address", NULL);
	refused(&(struct spec){ "gateway=10.9.0.1/24" }, -EINVAL, "no IP address", NULL);
	refused(&(struct spec){ "dns=localhost" }, -EINVAL, "no IP address", NULL);
	refused(&(struct spec){ "loopback=on", .pairs = 2 }, -EINVAL, "has one", "queues=");
	refused(&(struct spec){ "loopback=on", .ifname = "vnet0" }, -EINVAL, "no interface", "ifname=");
	refused(&(struct spec){ "loopback=on", .owner = "vhost:../x:1:1:0" }, -EINVAL, "owner tag", NULL);
	refused(&(struct spec){ "program=/nowhere/passt" }, -ENOENT, "/nowhere/passt cannot be run", NULL);
	/* Something else of that name. */
	g_autofree char *script = g_strdup_printf("%s/script", state), *options = g_strdup_printf("program=%s", script);

	g_file_set_contents(script, "#!/bin/sh\necho 'what do I know' >&2\nexit 3\n", -1, NULL);
	g_chmod(script, 0755);
	refused(&(struct spec){ options }, -EIO, "passt ended with status 3: what do I know", NULL);
	g_file_set_contents(script, "#!/bin/sh\nyes '\033[31m' >&2\n", -1, NULL); /* its text has an end, and no control characters */
	g_chmod(script, 0755);
	refused(&(struct spec){ options }, -EIO, " [31m;  [31m", NULL);
	g_file_set_contents(script, "#!/bin/sh\nexec sleep 100\n", -1, NULL);
	g_chmod(script, 0755);
	refused(&(struct spec){ options }, -ETIMEDOUT, "does not get ready", NULL);
	unlink(script);
	g_assert_cmpuint(journals(), ==, 0);
}

static void no_route(void)
{
	if (!have_passt() || !begin())
		return;
	run_ok("ip route del default");
	refused(&(struct spec){ PLAIN }, -ENODEV, "No external routable interface for IPv4", "default route");
	g_assert_cmpuint(journals(), ==, 0);
}

/* Whether the gateway answers ARP through a port. */
static int answers(int fd)
{
	static const uint8_t ask[4 + 42] = { 0, 0, 0, 42, 255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 1, 2, 3, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1,
					     0x52, 0x54, 0, 1, 2, 3, 10, 9, 0, 2, 0, 0, 0, 0, 0, 0, 10, 9, 0, 254 };
	gint64 end = g_get_monotonic_time() + 5 * G_TIME_SPAN_SECOND;
	uint8_t buf[65536];
	size_t have = 0;

	if (send(fd, ask, sizeof(ask), MSG_NOSIGNAL) != sizeof(ask))
		return 0;
	while (g_get_monotonic_time() < end) {
		struct pollfd p = { fd, POLLIN, 0 };
		ssize_t n = read(fd, buf + have, sizeof(buf) - have);

		if (n < 0 && errno == EAGAIN)
			poll(&p, 1, 100);
		else if (n <= 0)
			return 0;
		have += n > 0 ? (size_t)n : 0;
		for (size_t at = 0; have - at >= 46; at += 4 + (size_t)(buf[at + 2] << 8 | buf[at + 3]))
			if (buf[at + 16] == 8 && buf[at + 17] == 6 && buf[at + 25] == 2 && !memcmp(buf + at + 32, "\12\11\0\376", 4))
				return 1;
	}
	return 0;
}

/* The process that a port's journal names; 0: there is none any more. */
static int passt_pid(const char *owner)
{
	g_autofree char *path = g_strdup_printf("%s/%s", state, owner), *text = NULL;
	int pid = 0;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return 0;
	g_assert_cmpint(sscanf(text, "passt %d", &pid), ==, 1);
	return pid;
}

static int running(int pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid), *text = NULL;

	return g_file_get_contents(path, &text, NULL, NULL) && !strstr(text, ") Z ");
}

static void ends_soon(int pid)
{
	for (int i = 0; running(pid); i++) {
		g_assert_cmpint(i, <, 1000);
		g_usleep(5000);
	}
}

static void serves(void)
{
	struct vh_net_info i = { .size = sizeof(i) };
	void *p;
	int pid;

	if (!have_passt() || !begin())
		return;
	g_autofree char *before = netns_state();

	p = must_open(&(struct spec){ PLAIN ",tcp=127.0.0.1/12345:80,tcp=12346,udp=12347,dns=10.9.0.53,loopback=on" });
	g_assert_cmpint(ops->info(p, &i), ==, 0);
	g_assert_cmpint(i.path, ==, VH_NET_PATH_STREAM);
	g_assert_cmpint(i.pairs, ==, 1);
	g_assert_cmpint(i.mtu, ==, 65520);
	g_assert_cmpuint(i.offload, ==, 0);
	g_assert_cmpint(i.link, ==, 1);
	pid = passt_pid("vhost:t:1:1:0");
	g_assert_true(running(pid));
	g_assert_cmpint(ops->queue_fd(p, 1, NULL), ==, -EINVAL);
	g_assert_true(answers(ops->queue_fd(p, 0, NULL)));
	g_assert_true(has("127.0.0.1:12345", "ss -Htln"));
	g_assert_true(has(":12346", "ss -Htln"));
	g_assert_true(has(":12347", "ss -Huln"));
	g_assert_false(has(":12346", "ss -Huln")); /* UDP not along with TCP */
	/* Nothing of ours is in it but its socket: 0 to 3, and what it opened itself, none of them a file of this test's. */
	g_autofree char *fds = sh("ls -l /proc/%d/fd", pid);

	g_assert_null(strstr(fds, state));
	ops->close(p);
	g_assert_false(running(pid));
	g_assert_cmpuint(journals(), ==, 0);
	g_autofree char *after = netns_state();

	g_assert_cmpstr(before, ==, after);
	p = must_open(&(struct spec){ PLAIN, .mtu = 1400 });
	g_assert_cmpint(ops->info(p, &i), ==, 0);
	g_assert_cmpint(i.mtu, ==, 1400);
	ops->close(p);
}

/* Who has a port and dies takes its passt along. */
static void owner_killed(void)
{
	if (!have_passt() || !begin())
		return;
	pid_t child = fork();

	if (!child) {
		must_open(&(struct spec){ PLAIN });
		kill(getpid(), SIGKILL);
	}
	waitpid(child, NULL, 0);
	int pid = passt_pid("vhost:t:1:1:0");

	g_assert_cmpint(pid, >, 0);
	ends_soon(pid);
	g_assert_cmpuint(gc(everybody), ==, 0);
	g_assert_cmpuint(journals(), ==, 1);
	g_assert_cmpuint(gc(nobody), ==, 0); /* only its journal was left */
	g_assert_cmpuint(journals(), ==, 0);
}

/* One that cannot end by itself is gc's; other processes never. */
static void gc_ends_it(void)
{
	int ready[2];
	char c;

	if (!have_passt() || !begin())
		return;
	g_assert_cmpint(pipe(ready), ==, 0);
	pid_t child = fork();

	if (!child) {
		must_open(&(struct spec){ PLAIN });
		kill(passt_pid("vhost:t:1:1:0"), SIGSTOP);
		g_assert_cmpint(write(ready[1], "x", 1), ==, 1);
		pause();
	}
	g_assert_cmpint(read(ready[0], &c, 1), ==, 1);
	close(ready[0]);
	close(ready[1]);
	int pid = passt_pid("vhost:t:1:1:0");

	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	g_usleep(20000);
	g_assert_true(running(pid));
	g_assert_cmpuint(gc(everybody), ==, 0);
	g_assert_true(running(pid));
	g_assert_cmpuint(gc(nobody), ==, 1);
	ends_soon(pid);
	g_assert_cmpuint(journals(), ==, 0);
	/* Its number has become another process's; a journal that says nonsense. */
	g_autofree char *ours = g_strdup_printf("passt %d 1\n", (int)getpid());

	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:0", ours), ==, 0);
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:1", "passt -1 0\n"), ==, 0);
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:2", "passt 0 0\n"), ==, 0);
	g_assert_cmpint(journal_write(state, "vhost:dead:1:1:3", "macvtap vhm0 v0\n"), ==, 0); /* another plugin's */
	g_assert_cmpuint(gc(nobody), ==, 0);
	g_assert_cmpuint(journals(), ==, 1);
	run_ok("rm %s/vhost*", state);
}

static void each_step(int killing)
{
	unsigned n;

	if (!have_passt() || !begin())
		return;
	for (n = 1;; n++) {
		int st;
		pid_t child = fork();

		if (!child) {
			void *port;

			fault(n, 0, killing);
			int r = try_open(&(struct spec){ PLAIN }, &port, NULL);

			net_fault_hook = NULL;
			if (!r)
				ops->close(port);
			_exit(fault_count < n ? 0 : r < 0 ? 1 : 2);
		}
		g_assert_cmpint(waitpid(child, &st, 0), ==, child);
		g_assert_true(killing && WIFSIGNALED(st) ? 1 : WIFEXITED(st) && WEXITSTATUS(st) < 2);
		if (!killing)
			g_assert_cmpuint(journals(), ==, 0);
		/* By the other end of its socket: whoever is in this namespace and is called so. */
		for (int i = 0; has("passt", "pgrep -l -r D,R,S,T --ns $$ --nslist net '^passt(.av|$)'"); i++) {
			g_assert_cmpint(i, <, 200);
			g_usleep(20000);
		}
		gc(nobody);
		g_assert_cmpuint(journals(), ==, 0);
		if (WIFEXITED(st) && !WEXITSTATUS(st))
			break;
	}
	g_assert_cmpuint(n, >=, 4);
}

static void each_step_fails(void)
{
	each_step(0);
}

static void each_step_is_the_last(void)
{
	each_step(1);
}

/* The whole of it by an ordinary user. */
static void unprivileged(void)
{
	int st;

	if (!have_passt() || !begin())
		return;
	g_chmod(state, 0777);
	pid_t pid = fork();

	if (!pid) {
		void *port;

		if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
			_exit(3);
		if (try_open(&(struct spec){ PLAIN }, &port, NULL))
			_exit(4);
		int child = passt_pid("vhost:t:1:1:0"), ok = answers(ops->queue_fd(port, 0, NULL));

		ops->close(port);
		_exit(!ok ? 5 : running(child) ? 6 : 0);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_cmpint(st, ==, 0);
	g_chmod(state, 0700);
	g_assert_cmpuint(journals(), ==, 0);
}

static void note_part(void *ctx, const struct vh_net_part *p)
{
	g_string_append_printf(ctx, "%s %.5s %s\n", p->kind, p->name, p->owner);
}

static void say(void *ctx, const char *text)
{
	g_string_append_printf(ctx, "%s\n", text);
}

static void plan_and_describe(void)
{
	struct vh_network n = { .size = sizeof(n), .name = "mine", .kind = "user", .state = state };
	struct vh_net_open o = { .size = sizeof(o), .pairs = 1, .owner = "vhost:t:1:1:0", .state = state, .flags = VH_NET_OPEN_DRY_RUN };
	g_autoptr(GString) s = g_string_new(NULL);
	struct optset *set;
	struct kvs kvs;

	if (!have_passt() || !begin())
		return;
	kvs_parse(PLAIN ",tcp=2222:22", &kvs, NULL);
	g_assert_cmpint(optset_parse(ops->options, &kvs, "x", &set, NULL), ==, 0);
	o.opts = n.opts = optset_get(set);
	g_assert_cmpint(ops->plan(&o, say, s, NULL), ==, 0);
	g_assert_nonnull(strstr(s->str, "--tcp-ports 2222:22"));
	g_assert_nonnull(strstr(s->str, "--udp-ports none"));
	g_assert_nonnull(strstr(s->str, "--no-map-gw"));
	g_assert_cmpuint(journals(), ==, 0);
	g_string_truncate(s, 0);
	void *a = must_open(&(struct spec){ PLAIN, .owner = "vhost:a:1:1:0", .network = "mine" });
	void *b = must_open(&(struct spec){ PLAIN, .owner = "vhost:b:1:1:0", .network = "minelike" });

	g_assert_cmpint(ops->describe(&n, note_part, s, NULL), ==, 0);
	g_assert_cmpstr(s->str, ==, "service passt vhost:a:1:1:0\n");
	ops->close(a);
	ops->close(b);
	optset_free(set);
	kvs_clear(&kvs);
}

int main(int argc, char **argv)
{
	const struct vh_plugin *p;
	int r;

	g_test_init(&argc, &argv, NULL);
	g_setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", TRUE);
	state = temp_folder("passt");
	g_assert_cmpint(vh_plugin_entry_v1(&plug_host, &p), ==, 0);
	ops = p->get(VH_IID_NET);
	g_test_add_func("/passt/forwards-are-checked", forwards);
	g_test_add_func("/passt/errors-name-cause-and-remedy", errors);
	g_test_add_func("/passt/a-host-without-a-route", no_route);
	g_test_add_func("/passt/serves-and-ends", serves);
	g_test_add_func("/passt/ends-with-a-killed-owner", owner_killed);
	g_test_add_func("/passt/gc-ends-what-hangs", gc_ends_it);
	g_test_add_func("/passt/each-step-fails", each_step_fails);
	g_test_add_func("/passt/killed-at-each-step", each_step_is_the_last);
	g_test_add_func("/passt/unprivileged", unprivileged);
	g_test_add_func("/passt/plan-and-describe", plan_and_describe);
	r = g_test_run();
	run_ok("rm -rf %s", state);
	g_free(state);
	return r;
}
