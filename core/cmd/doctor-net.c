/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What network plugins need of the kernel, and the plugins themselves. */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cmd/doctor.h"
#include "plug/plug.h"

#define CAP_NET_ADMIN_BIT 12

static int has_net_admin(void)
{
	g_autofree char *text = NULL;
	const char *line;

	if (!g_file_get_contents("/proc/self/status", &text, NULL, NULL) || !(line = strstr(text, "\nCapEff:")))
		return 0;
	return !!(g_ascii_strtoull(line + 8, NULL, 16) & UINT64_C(1) << CAP_NET_ADMIN_BIT);
}

/* Tries it where it harms nobody: a child in a network namespace of its own. The errno, or -1: it could not be tried. */
static int try_bridge(void)
{
	int status, pid = fork();

	if (pid < 0)
		return -1;
	if (!pid) {
		int s;

		if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
			_exit(255);
		s = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		_exit(ioctl(s, SIOCBRADDBR, "vhostdoctor") < 0 ? errno & 0x7f : 0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) == 255)
		return -1;
	return WEXITSTATUS(status);
}

static void tun(struct doctor *d)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	unsigned features = 0;

	if (fd < 0) {
		int code = errno;
		g_autofree char *remedy = NULL, *at = doctor_blocked("/dev/net/tun", R_OK | W_OK, &remedy);

		doctor_add(d, DOCTOR_NOTE, "tun", code == ENOENT || code == ENODEV || code == ENXIO ? "modprobe tun" : remedy,
			   "%s: no tap devices, so no networks of type bridge", at ? at : g_strerror(code));
		return;
	}
	if (ioctl(fd, TUNGETFEATURES, &features) < 0 || !(features & IFF_VNET_HDR))
		doctor_add(d, DOCTOR_NOTE, "tun", "use a newer kernel", "tap devices have no vnet header: no offloads, so no plugin bridge");
	else if (!(features & IFF_MULTI_QUEUE))
		doctor_add(d, DOCTOR_NOTE, "tun", "use a newer kernel", "tap devices have one queue only");
	else
		doctor_add(d, DOCTOR_OK, "tun", NULL, "tap devices with vnet header and several queues");
	close(fd);
}

/* Where the plugin passt looks for it. */
static void passt(struct doctor *d)
{
	static const char *const at[] = {"/usr/bin/passt", "/usr/local/bin/passt"};

	for (unsigned i = 0; i < G_N_ELEMENTS(at); i++)
		if (!access(at[i], X_OK)) {
			doctor_add(d, DOCTOR_OK, "passt", NULL, "user networking by %s", at[i]);
			return;
		}
	doctor_add(d, DOCTOR_NOTE, "passt", "install the package passt", "passt is not installed: no user networking (--net type=passt)");
}

/* Only looked at: opening it would load the module. */
static void vhost_net(struct doctor *d)
{
	g_autofree char *remedy = NULL, *at = NULL;

	if (access("/dev/vhost-net", R_OK | W_OK) == 0) {
		doctor_add(d, DOCTOR_OK, "vhost-net", NULL, "the kernel can serve a NIC's rings (/dev/vhost-net)");
		return;
	}
	if (errno != ENOENT)
		at = doctor_blocked("/dev/vhost-net", R_OK | W_OK, &remedy);
	doctor_add(d, DOCTOR_NOTE, "vhost-net", remedy ? remedy : "modprobe vhost_net", "%s: NICs are served in user space",
		   at ? at : "/dev/vhost-net is not there");
}

void doctor_net(struct doctor *d)
{
	int bridge = try_bridge();

	tun(d);
	passt(d);
	vhost_net(d);
	if (bridge < 0)
		doctor_add(d, DOCTOR_NOTE, "bridge", "run doctor as root to know", "whether the kernel has bridges cannot be tried by this user");
	else if (bridge == 0 || bridge == EEXIST)
		doctor_add(d, DOCTOR_OK, "bridge", NULL, "the kernel has bridges");
	else
		doctor_add(d, DOCTOR_NOTE, "bridge", "modprobe bridge, or a kernel with CONFIG_BRIDGE",
			   "the kernel has no bridges (%s): no networks of type bridge", g_strerror(bridge));
	if (has_net_admin())
		doctor_add(d, DOCTOR_OK, "net", NULL, "may make tap devices and bridges (CAP_NET_ADMIN)");
	else
		doctor_add(d, DOCTOR_NOTE, "net", "run as root, or without --net",
			   "CAP_NET_ADMIN is missing: tap devices and bridges cannot be made");
}

struct scan { struct doctor *d; GString *names; unsigned found; };

static int scan_one(void *ctx, const struct plug_note *n, const struct vh_err *why_not)
{
	static const char *const wanted[] = {"dir", "raw", "bridge"};
	struct scan *s = ctx;

	if (why_not) {
		doctor_add(s->d, DOCTOR_NOTE, "plugins", why_not->remedy, "%s: %s", n->path ? n->path : n->id,
			   why_not->cause ? why_not->cause : "refused");
		return 0;
	}
	g_string_append_printf(s->names, "%s%s", s->names->len ? " " : "", n->id);
	for (unsigned i = 0; i < G_N_ELEMENTS(wanted); i++)
		if (!strcmp(n->id, wanted[i]))
			s->found |= 1u << i;
	return 0;
}

void doctor_plugins(struct doctor *d)
{
	static const char *const lost[] = {"dir: no volumes in folders, and no path=FILE", "raw: no raw disks", "bridge: no networks"};
	struct scan s = {.d = d, .names = g_string_new(NULL)};

	plug_scan(scan_one, &s);
	if (s.names->len)
		doctor_add(d, DOCTOR_OK, "plugins", NULL, "found: %s", s.names->str);
	for (unsigned i = 0; i < G_N_ELEMENTS(lost); i++)
		if (!(s.found & 1u << i))
			doctor_add(d, DOCTOR_NOTE, "plugins", "install it, or point VHOST_PLUGIN_PATH to it", "missing is %s", lost[i]);
	g_string_free(s.names, TRUE);
}
