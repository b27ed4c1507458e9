/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Networks: definitions, whose an option is, who holds what, and plugins that say and do the impossible (odd-net.c). No privileges. */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/helper.h"
#include "net/network.h"
#include "net/port.h"
#include "plug/plug.h"
#include "util/paths.h"

static char *root;

static int define(const char *name, const char *kind, const char *options, struct vh_err *e)
{
	struct kvs kvs;
	int r;

	g_assert_cmpint(kvs_parse(options, &kvs, NULL), ==, 0);
	r = network_define(name, kind, NULL, &kvs, e);
	kvs_clear(&kvs);
	return r;
}

static void must_define(const char *name, const char *options)
{
	ERR_AUTO(e);
	int r = define(name, "odd", options, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
}

static void gone(const char *name)
{
	ERR_AUTO(e);

	g_assert_cmpint(network_delete(name, &e), ==, 0);
	g_assert_cmpint(network_state(name), ==, NETWORK_STOPPED);
}

static void says(const struct vh_err *e, const char *cause, const char *remedy)
{
	g_assert_nonnull(e->cause);
	if (!strstr(e->cause, cause))
		g_error("'%s' is not in '%s'", cause, e->cause);
	if (remedy && (!e->remedy || !strstr(e->remedy, remedy)))
		g_error("'%s' is not in '%s'", remedy, e->remedy ? e->remedy : "");
}

static void write_def(const char *name, const char *text)
{
	g_autofree char *path = g_strdup_printf("%s/config/networks/%s.conf", root, name);

	g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

/* Files of odd-net in the state folder: each stands for kernel objects under one owner tag. */
static unsigned marks(void)
{
	g_autofree char *dir = path_in(PATH_STATE, ".net", NULL);
	g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
	const char *name;
	unsigned n = 0;

	while (d && (name = g_dir_read_name(d)))
		n += g_str_has_prefix(name, "vhost:");
	return n;
}

/* ---- definitions ---- */

static int collect(void *ctx, const char *name)
{
	g_string_append_printf(ctx, "%s ", name);
	return 0;
}

static void definitions(void)
{
	g_autofree char *here = g_get_current_dir(), *where = g_build_filename(here, "some/where", NULL);
	g_autoptr(GString) names = g_string_new(NULL);
	struct network n;
	ERR_AUTO(e);
	ERR_AUTO(e2);
	ERR_AUTO(e3);

	must_define("lan", "some note,where=some/where,tag=a,tag=b");
	g_assert_cmpint(network_load("lan", &n, NULL), ==, 0);
	g_assert_cmpstr(n.kind, ==, "odd");
	g_assert_cmpstr(n.type, ==, "odd-net");
	g_assert_cmpstr(kvs_get(&n.options, "note"), ==, "some note");
	g_assert_cmpstr(kvs_get(&n.options, "where"), ==, where);
	g_assert_cmpuint(n.options.n, ==, 4);
	g_assert_cmpstr(n.options.v[3].value, ==, "b");
	g_assert_cmpint(n.autostart, ==, 0);
	network_clear(&n);
	g_assert_cmpint(network_set_autostart("lan", 1, NULL), ==, 0);
	g_assert_cmpint(network_load("lan", &n, NULL), ==, 0);
	g_assert_cmpint(n.autostart, ==, 1);
	network_clear(&n);
	g_assert_cmpint(define("lan", "odd", "note=some note,where=some/where,tag=a,tag=b", NULL), ==, 1); /* the same again */
	g_assert_cmpint(define("lan", "odd", "note=another", &e), ==, -EEXIST);
	says(&e, "defined already", "net delete lan");
	g_assert_cmpint(define("lan", "odd-two", "some note,where=some/where,tag=a,tag=b", NULL), ==, -EEXIST);
	must_define("a", "");
	write_def("zz", "[network]\nkind=odd\n");
	write_def("bad name", "[network]\nkind=odd\ntype=odd-net\n");
	network_names(collect, names, NULL);
	g_assert_cmpstr(names->str, ==, "a lan zz ");
	g_assert_cmpint(network_load("zz", &n, &e2), ==, -EINVAL);
	says(&e2, "no key type", NULL);
	write_def("zz", "\x01 garbage");
	g_assert_cmpint(network_load("zz", &n, NULL), ==, -EINVAL);
	gone("zz"); /* a broken one can go */
	gone("a");
	gone("lan");
	g_assert_cmpint(network_load("lan", &n, &e3), ==, -ENOENT);
	says(&e3, "no such network", "net define lan");
	g_assert_cmpint(network_delete("lan", NULL), ==, -ENOENT);
	g_assert_cmpint(network_load("../lan", &n, NULL), ==, -EINVAL);
	g_assert_cmpint(define("../lan", "odd", "", NULL), ==, -EINVAL);
}

static void options_are_whose(void)
{
	const struct vh_net_ops *ops;
	struct optset *set;
	struct network n;
	struct kvs line;
	ERR_AUTO(e);
	ERR_AUTO(e2);
	ERR_AUTO(e3);
	ERR_AUTO(e4);

	g_assert_cmpint(define("x", "odd", "own=1", &e), ==, -EINVAL);
	says(&e, "option own is of one NIC", "--net x,own=1");
	g_assert_cmpint(define("x", "odd", "hwo=fine", &e2), ==, -EINVAL);
	says(&e2, "hwo", "how");
	g_assert_cmpint(define("x", "odd", "how=never", NULL), ==, -EINVAL);
	must_define("x", "note=n");
	g_assert_cmpint(network_load("x", &n, NULL), ==, 0);
	g_assert_cmpint(plug_net("odd-net", &ops, NULL), ==, 0);
	kvs_parse("own=mine", &line, NULL);
	g_assert_cmpint(network_nic_options(&n, ops, &line, &set, NULL), ==, 0);
	g_assert_cmpuint(optset_get(set)->n, ==, 3); /* how (its default), note, own */
	optset_free(set);
	kvs_clear(&line);
	kvs_parse("note=other", &line, NULL);
	g_assert_cmpint(network_nic_options(&n, ops, &line, &set, &e3), ==, -EINVAL);
	says(&e3, "option note is the network's", "another network with note=other");
	kvs_clear(&line);
	kvs_parse("nope=1", &line, NULL);
	g_assert_cmpint(network_nic_options(&n, ops, &line, &set, &e4), ==, -EINVAL);
	says(&e4, "no option 'nope'", NULL);
	kvs_clear(&line);
	network_clear(&n);
	gone("x");
}

static int collect_kind(void *ctx, const char *kind, const char *type)
{
	g_string_append_printf(ctx, "%s:%s ", kind, type);
	return 0;
}

static void kinds(void)
{
	g_autoptr(GString) all = g_string_new(NULL);
	const struct vh_net_ops *ops;
	struct kvs none = {0};
	char type[VH_ID_MAX];
	ERR_AUTO(e);
	ERR_AUTO(e2);

	network_kinds(collect_kind, all);
	g_assert_cmpstr(all->str, ==, "odd:odd-net odd-two:odd-net "); /* and no word that is none */
	g_assert_cmpint(network_kind_find("odd-two", type, NULL), ==, 0);
	g_assert_cmpstr(type, ==, "odd-net");
	g_assert_cmpint(network_kind_find("ood", type, &e), ==, -ENOENT);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_USAGE);
	says(&e, "'ood'", "odd");
	g_assert_cmpint(network_kind_find("Bad Kind", type, NULL), ==, -ENOENT);
	/* built before there were networks: what lies behind its table is not read */
	g_assert_cmpint(plug_net("old-net", &ops, NULL), ==, 0);
	g_assert_true(!ops->kinds && !ops->start && !ops->stop && !ops->plan_start && !ops->describe);
	g_assert_cmpint(network_define("x", "odd", "old-net", &none, &e2), ==, -EINVAL);
	says(&e2, "old-net makes no networks", NULL);
}

/* ---- holds ---- */

static char *owner_of(const char *name)
{
	g_autofree char *path = path_in(PATH_STATE, ".net", "networks", name, NULL), *text = NULL;

	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	*strchr(text, ' ') = '\0';
	return g_strdup_printf("vhost:@%s:%s", name, text);
}

static void start_and_stop(void)
{
	ERR_AUTO(e);
	ERR_AUTO(e2);

	must_define("lan", "");
	g_assert_cmpint(network_state("lan"), ==, NETWORK_STOPPED);
	g_assert_cmpint(network_stop("lan", NULL), ==, 1);
	g_assert_cmpint(network_start("lan", NULL), ==, 0);
	g_assert_cmpint(network_state("lan"), ==, NETWORK_STARTED);
	g_assert_cmpuint(marks(), ==, 1);
	g_autofree char *owner = owner_of("lan");
	g_autofree char *path = path_in(PATH_STATE, ".net", owner, NULL);

	g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS)); /* under that tag */
	g_assert_cmpint(net_owner_alive(NULL, owner), ==, 1);
	g_assert_cmpint(net_owner_alive(NULL, "vhost:@lan:0000000000000000"), ==, 0);
	g_assert_cmpint(net_owner_alive(NULL, "vhost:@other:0000000000000000"), ==, 0);
	g_assert_cmpint(net_owner_alive(NULL, "vhost:@../lan:00"), ==, 1); /* no tag: somebody's */
	g_assert_cmpint(net_owner_alive(NULL, "vhost:@lan"), ==, 1);
	g_assert_cmpint(net_owner_alive(NULL, "vhost:@lan:a:b"), ==, 1);
	g_assert_cmpint(network_delete("lan", &e), ==, -EBUSY);
	says(&e, "it is started", "net stop lan");
	/* once more makes what is missing, under the same tag */
	g_unlink(path);
	g_assert_cmpint(network_start("lan", NULL), ==, 1);
	g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
	g_assert_cmpint(network_stop("lan", NULL), ==, 0);
	g_assert_cmpuint(marks(), ==, 0);
	g_assert_cmpint(net_owner_alive(NULL, owner), ==, 0);
	gone("lan");
	g_assert_cmpint(network_start("lan", &e2), ==, -ENOENT);
}

static void start_fails(void)
{
	static const struct { const char *how, *cause; int code; } all[] = {
		{"start-fails", "as it was told", -EIO}, {"start-silent", "No such device or address", -ENXIO}, {"start-impossible", "says only", -EIO}};

	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
		g_autofree char *options = g_strdup_printf("how=%s", all[i].how);
		ERR_AUTO(e);

		must_define("lan", options);
		g_assert_cmpint(network_start("lan", &e), ==, all[i].code);
		says(&e, all[i].cause, NULL);
		g_assert_cmpstr(e.object, ==, "network lan");
		g_assert_cmpint(network_state("lan"), ==, NETWORK_STOPPED);
		g_assert_cmpuint(marks(), ==, 0);
		gone("lan");
	}
}

static void stop_is_busy(void)
{
	ERR_AUTO(e);

	must_define("lan", "how=stop-busy");
	g_assert_cmpint(network_start("lan", NULL), ==, 0);
	g_assert_cmpint(network_stop("lan", &e), ==, -EBUSY);
	says(&e, "vnet7", NULL);
	g_assert_cmpint(network_state("lan"), ==, NETWORK_STARTED);
	g_autofree char *owner = owner_of("lan");

	g_assert_cmpint(net_owner_alive(NULL, owner), ==, 1);
	/* A file that a person removed holds nothing: gc takes it all. */
	write_def("lan", "");
	g_autofree char *path = path_in(PATH_CONFIG, "networks", "lan.conf", NULL);

	g_unlink(path);
	g_assert_cmpint(network_forget_dead(NULL), ==, 0);
	g_assert_cmpint(net_owner_alive(NULL, owner), ==, 0);
	g_assert_cmpint(network_state("lan"), ==, NETWORK_STOPPED);
}

static int gc_odd(void)
{
	const struct vh_net_ops *ops;

	g_assert_cmpint(plug_net("odd-net", &ops, NULL), ==, 0);
	return net_gc(ops, NULL, NULL, NULL);
}

/* In a child, which it ends. */
static void killed(int (*fn)(const char *name, struct vh_err *e))
{
	pid_t pid = fork();
	int st;

	if (!pid)
		_exit(fn("lan", NULL) < 0);
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_true(WIFSIGNALED(st));
}

static void killed_while_starting(void)
{
	g_assert_cmpint(gc_odd(), ==, 0);
	must_define("lan", "how=start-kills");
	killed(network_start);
	g_assert_cmpint(network_state("lan"), ==, NETWORK_LEFT);
	g_assert_cmpuint(marks(), ==, 1);
	g_autofree char *owner = owner_of("lan");

	g_assert_cmpint(net_owner_alive(NULL, owner), ==, 0);
	/* another start: what the dead one left goes, under a new tag it is made anew */
	g_autofree char *path = path_in(PATH_CONFIG, "networks", "lan.conf", NULL), *text = NULL, *fine = NULL;

	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	fine = g_strdup_printf("%.*sfine\n", (int)(strstr(text, "start-kills") - text), text);
	write_def("lan", fine);
	g_assert_cmpint(network_start("lan", NULL), ==, 0);
	g_autofree char *now = owner_of("lan");

	g_assert_cmpstr(owner, !=, now);
	g_assert_cmpuint(marks(), ==, 1);
	g_assert_cmpint(network_stop("lan", NULL), ==, 0);
	/* or gc */
	write_def("lan", text);
	killed(network_start);
	g_assert_cmpint(network_forget_dead(NULL), ==, 0);
	g_assert_cmpint(gc_odd(), ==, 0);
	g_assert_cmpuint(marks(), ==, 0);
	gone("lan");
}

static void killed_while_stopping(void)
{
	must_define("lan", "how=stop-kills");
	g_assert_cmpint(network_start("lan", NULL), ==, 0);
	killed(network_stop);
	g_assert_cmpint(network_state("lan"), ==, NETWORK_LEFT);
	g_assert_cmpuint(marks(), ==, 1);
	/* stop again needs no plugin's stop: nobody holds it */
	g_assert_cmpint(network_stop("lan", NULL), ==, 0);
	g_assert_cmpuint(marks(), ==, 0);
	g_assert_cmpint(network_state("lan"), ==, NETWORK_STOPPED);
	gone("lan");
}

/* What is being started lives as long as who starts it. */
static void being_started(void)
{
	pid_t pid;

	must_define("lan", "how=start-waits");
	pid = fork();
	if (!pid)
		_exit(network_start("lan", NULL) < 0);
	for (int i = 0; i < 2000 && !marks(); i++)
		g_usleep(5000);
	g_assert_cmpuint(marks(), ==, 1);
	g_autofree char *owner = owner_of("lan");

	g_assert_cmpint(network_state("lan"), ==, NETWORK_CHANGING);
	g_assert_cmpint(net_owner_alive(NULL, owner), ==, 1);
	g_assert_cmpint(gc_odd(), ==, 0);
	g_assert_cmpuint(marks(), ==, 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	g_assert_cmpint(network_state("lan"), ==, NETWORK_LEFT);
	g_assert_cmpint(gc_odd(), ==, 0);
	g_assert_cmpuint(marks(), ==, 0);
	g_assert_cmpint(network_forget_dead(NULL), ==, 0);
	gone("lan");
}

/* ---- what a plugin tells ---- */

static void describe(const char *how, struct network_parts *p)
{
	g_autofree char *options = g_strdup_printf("how=%s", how);
	struct network n;
	ERR_AUTO(e);

	must_define("lan", options);
	g_assert_cmpint(network_load("lan", &n, NULL), ==, 0);
	g_assert_cmpint(network_describe(&n, p, &e), ==, 0);
	network_clear(&n);
	gone("lan");
}

static void parts(void)
{
	struct network_parts p;
	struct network n;
	ERR_AUTO(e);

	describe("many", &p);
	g_assert_cmpuint(p.n, ==, NETWORK_PARTS_MAX);
	g_assert_cmpint(p.cut, ==, 1);
	g_assert_cmpstr(p.v[0].vm, ==, "web");
	g_assert_cmpint(p.v[0].nic, ==, 5);
	network_parts_clear(&p);

	describe("texts", &p);
	g_assert_cmpuint(p.n, ==, 1); /* one without a name is none */
	g_assert_true(g_utf8_validate(p.v[0].name, -1, NULL));
	g_assert_null(strpbrk(p.v[0].name, "\n\x1b"));
	g_assert_cmpuint(strlen(p.v[0].detail), ==, 255);
	g_assert_cmpstr(p.v[0].kind, ==, "part");
	g_assert_null(p.v[0].vm); /* no VM has such a name */
	network_parts_clear(&p);

	describe("circle", &p);
	g_assert_cmpuint(p.n, ==, 5);
	g_assert_cmpint(p.v[0].parent, ==, -1);
	g_assert_cmpint(p.v[1].parent, ==, -1);
	g_assert_cmpint(p.v[2].parent, ==, 1);
	g_assert_cmpint(p.v[3].parent, ==, 1);
	g_assert_cmpint(p.v[4].parent, ==, 2);
	g_assert_cmpuint(p.v[4].depth, ==, 2);
	network_parts_clear(&p);

	describe("sizes", &p);
	g_assert_cmpuint(p.n, ==, 2); /* too short for a name; the older one; the newer one */
	g_assert_null(p.v[0].above);
	network_parts_clear(&p);

	must_define("lan", "how=describe-fails");
	g_assert_cmpint(network_load("lan", &n, NULL), ==, 0);
	g_assert_cmpint(network_describe(&n, &p, &e), ==, -EACCES);
	says(&e, "Permission denied", NULL);
	g_assert_cmpuint(p.n, ==, 0);
	network_clear(&n);
	gone("lan");
}

/* ---- the port gets its network, here and in the helper ---- */

static void open_tells(void)
{
	struct net_config c = {.type = "odd-net", .pairs = 1, .vm = "t", .mac = {2, 0, 0, 0, 0, 1}, .network = "lan", .kind = "odd"};
	struct net_port *port;
	struct optset *set;
	struct network n;
	struct kvs line;
	ERR_AUTO(e);

	must_define("lan", "note=of the network");
	g_assert_cmpint(network_load("lan", &n, NULL), ==, 0);
	g_assert_cmpint(plug_net("odd-net", &c.ops, NULL), ==, 0);
	kvs_parse("own=of the NIC", &line, NULL);
	g_assert_cmpint(network_nic_options(&n, c.ops, &line, &set, NULL), ==, 0);
	c.opts = optset_get(set);
	g_assert_cmpint(net_port_open(&c, &port, &e), ==, -ENOTSUP);
	says(&e, "network=lan kind=odd note=of the network own=of the NIC", NULL);
	c.network = c.kind = NULL;
	err_clear(&e);
	g_assert_cmpint(net_port_open(&c, &port, &e), ==, -ENOTSUP);
	says(&e, "network=- kind=-", NULL);
	optset_free(set);
	kvs_clear(&line);
	network_clear(&n);
	gone("lan");
}

static void helper_tells(void)
{
	g_assert_cmpint(net_helper_start(NULL), ==, 0);
	open_tells();
	net_helper_end();
}

int main(int argc, char **argv)
{
	g_autofree char *pattern = g_strdup_printf("%s/vhost-network-XXXXXX", g_get_tmp_dir()), *networks = NULL;
	g_autofree char *remove = NULL;
	ERR_AUTO(e);
	int r;

	g_test_init(&argc, &argv, NULL);
	root = g_mkdtemp(pattern);
	g_assert_nonnull(root);
	g_setenv("VHOST_ROOT", root, TRUE);
	g_setenv("VHOST_PLUGIN_PATH", root, TRUE); /* no others */
	networks = g_build_filename(root, "config/networks", NULL);
	g_mkdir_with_parents(networks, 0700);
	for (const char *const *p = (const char *const[]){"odd-net.so", "old-net.so", NULL}; *p; p++) {
		g_autofree char *path = g_build_filename(g_getenv("ODD_PLUGINS"), *p, NULL);

		g_assert_cmpint(plug_add_file(path, &e), ==, 0);
	}
	g_test_add_func("/network/definitions", definitions);
	g_test_add_func("/network/options-are-a-network's-or-a-NIC's", options_are_whose);
	g_test_add_func("/network/kinds-are-the-plugins'-word", kinds);
	g_test_add_func("/network/start-and-stop", start_and_stop);
	g_test_add_func("/network/start-fails", start_fails);
	g_test_add_func("/network/stop-is-busy", stop_is_busy);
	g_test_add_func("/network/killed-while-starting", killed_while_starting);
	g_test_add_func("/network/killed-while-stopping", killed_while_stopping);
	g_test_add_func("/network/held-while-being-started", being_started);
	g_test_add_func("/network/parts-of-hostile-plugins", parts);
	g_test_add_func("/network/open-is-told-its-network", open_tells);
	g_test_add_func("/network/open-is-told-by-the-helper", helper_tells);
	r = g_test_run();
	remove = g_strdup_printf("rm -rf %s", root);
	g_assert_cmpint(system(remove), ==, 0);
	return r;
}
