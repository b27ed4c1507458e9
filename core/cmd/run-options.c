/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>
#include <unistd.h>
#include "cmd/nic-options.h"
#include "cmd/run-options.h"
#include "util/paths.h"

/* Defaults stand in the text, not in defval: what is absent on the command line comes from the VM's file. */
#define OPT(NAME, TYPE, FLAGS, DOC, ...)                                                                              \
	&(const struct vh_opt)                                                                                        \
	{                                                                                                             \
		.size = sizeof(struct vh_opt), .type = TYPE, .flags = FLAGS, .name = NAME, .doc = DOC, __VA_ARGS__    \
	}

static const char *const protocols[] = {"auto", "linux64", "pvh", NULL};
static const char *const reboots[] = {"reset", "exit", "halt", NULL};

const struct vh_opt *const run_options[] = {
	OPT("name", VH_OPT_STR, 0, "The VM's name (default: that of its file, else vm-PID)"),
	OPT("file", VH_OPT_PATH, 0, "Read the VM from this file instead of the configuration folder's vms/NAME.conf"),
	OPT("kernel", VH_OPT_PATH, 0, "Kernel: a bzImage, or an ELF vmlinux"),
	OPT("initrd", VH_OPT_PATH, 0, "Initial RAM disk"),
	OPT("cmdline", VH_OPT_STR, 0, "Kernel command line"),
	OPT("protocol", VH_OPT_ENUM, 0, "How the kernel is entered (default: auto)", .choices = protocols),
	OPT("cpus", VH_OPT_INT, 0, "vCPUs, one thread each, also more than the host has cores (default: 1)", .min = 1, .max = 4096),
	OPT("pin", VH_OPT_STR, VH_OPT_REPEAT, "VCPU=CPU[,VCPU=CPU...]: pin vCPU threads to host CPUs"),
	OPT("memory", VH_OPT_STR, 0,
	    "SIZE[,hugepages=2M|1G][,KEY=on]... of thp, mergeable, prealloc, dump: guest memory (default: 256M)"),
	OPT("disk", VH_OPT_STR, VH_OPT_REPEAT,
	    "POOL/VOLUME, or path=FILE, or type=POOLTYPE,volume=NAME; [,format=F][,readonly=on][,engine=E]... (see docs/run.md)"),
	OPT("net", VH_OPT_STR, VH_OPT_REPEAT, "type=PLUGIN[,mac=M][,queues=N][,mtu=N][,ifname=I][,PLUGIN'S OPTIONS]: a NIC; guard, limits and vhost: see docs/run.md"),
	OPT("serial", VH_OPT_STR, 0, "stdio, null or file:PATH: the serial port (default: stdio, with --detach null)"),
	OPT("console", VH_OPT_STR, 0, "none, stdio or file:PATH: a virtio console (default: none)"),
	OPT("rng", VH_OPT_BOOL, 0, "A virtio entropy device (default: on)"),
	OPT("balloon", VH_OPT_BOOL, 0, "A virtio balloon, with free page reporting (default: on)"),
	OPT("on-reboot", VH_OPT_ENUM, 0, "What a guest's reset does (default: reset, in place)", .choices = reboots),
	OPT("io-threads", VH_OPT_INT, 0, "Threads for disks and NICs (default: one per vCPU, up to the host's cores)", .min = 1, .max = 256),
	OPT("paused", VH_OPT_BOOL, 0, "Start without running the guest; `vhost vm resume` starts it"),
	OPT("detach", VH_OPT_BOOL, 0, "Return when the guest runs"),
	OPT("dry-run", VH_OPT_BOOL, 0, "Print what would be made, and make nothing"),
	NULL,
};

static const char *const hugepages[] = {"off", "2M", "1G", NULL};
static const vh_schema memory_options = (const struct vh_opt *const[]){
	OPT("size", VH_OPT_SIZE, VH_OPT_MAIN, "Bytes of guest memory", .defval = "256M", .min = 1 << 20, .max = INT64_C(1) << 46),
	OPT("hugepages", VH_OPT_ENUM, 0, "Back it with huge pages of this size", .choices = hugepages, .defval = "off"),
	OPT("thp", VH_OPT_BOOL, 0, "Let the host use transparent huge pages", .defval = "off"),
	OPT("mergeable", VH_OPT_BOOL, 0, "Let the host merge equal pages (KSM)", .defval = "off"),
	OPT("prealloc", VH_OPT_BOOL, 0, "Take all of it at the start", .defval = "off"),
	OPT("dump", VH_OPT_BOOL, 0, "Include it in core dumps", .defval = "off"),
	NULL,
};

/* What the core takes of a NIC; the rest goes to its plugin. */
static const char *const nic_keys[] = {"type", "mac", "queues", "mtu", "ifname", NULL};

static const struct vh_val *find(const struct vh_opts *o, const char *name)
{
	for (uint32_t i = 0; o && i < o->n; i++)
		if (!strcmp(o->val[i]->name, name))
			return o->val[i];
	return NULL;
}

/* The command line's value stands before the file's. */
struct sources {
	const struct vh_opts *given, *file;
};

static const struct vh_val *value(const struct sources *s, const char *name)
{
	const struct vh_val *v = find(s->given, name);
	return v ? v : find(s->file, name);
}

static char *str(const struct sources *s, const char *name)
{
	const struct vh_val *v = value(s, name);
	return v && *v->str ? g_strdup(v->str) : NULL;
}

static int64_t num(const struct sources *s, const char *name, int64_t absent)
{
	const struct vh_val *v = value(s, name);
	return v ? v->num : absent;
}

static void kvs_add(struct kvs *k, const char *key, const char *val)
{
	k->v = g_renew(struct kv, k->v, k->n + 1);
	k->v[k->n++] = (struct kv){.key = g_strdup(key), .value = g_strdup(val)};
}

static int read_memory(const char *text, struct mem_config *m, struct vh_err *e)
{
	struct kvs k = {0};
	struct optset *set = NULL;
	int r = text ? kvs_parse(text, &k, e) : 0;

	if (!r)
		r = optset_parse(memory_options, &k, "--memory", &set, e);
	if (!r) {
		const struct vh_opts *o = optset_get(set);
		static const uint64_t huge[] = {0, 2u << 20, 1u << 30};
		m->bytes = find(o, "size")->num;
		m->hugepages = huge[find(o, "hugepages")->num];
		m->thp = find(o, "thp")->num;
		m->mergeable = find(o, "mergeable")->num;
		m->prealloc = find(o, "prealloc")->num;
		m->dump = find(o, "dump")->num;
		if (m->bytes % (m->hugepages ? m->hugepages : 4096))
			r = err_usage(e, "--memory %s is not a whole number of %s", text, m->hugepages ? "huge pages" : "pages");
	}
	optset_free(set);
	kvs_clear(&k);
	return r;
}

static int read_nic(const struct kvs *k, struct mach_nic *n, struct vh_err *e)
{
	int r = 0;
	int64_t v;

	*n = (struct mach_nic){0};
	for (unsigned i = 0; i < k->n && !r; i++) {
		const char *key = k->v[i].key, *val = k->v[i].value;
		if (!key) {
			if (n->type || kvs_get(k, "type")) {
				kvs_add(&n->options, NULL, val); /* the plugin's main option */
				continue;
			}
			r = err_usage(e, "--net %s: named networks are not part of this version", val);
			err_remedy(e, "name the plugin: --net type=bridge,name=%s", val);
		} else if (!strcmp(key, "type")) {
			n->type = val;
		} else if (!strcmp(key, "ifname")) {
			n->ifname = val;
		} else if (!strcmp(key, "mac")) {
			r = parse_mac(val, n->mac, e);
			n->have_mac = 1;
		} else if (!strcmp(key, "queues")) {
			r = parse_int(val, &v, e);
			if (!r && (v < 1 || v > 256))
				r = err_usage(e, "--net queues=%s is not within 1 and 256", val);
			n->queues = (unsigned)v;
		} else if (!strcmp(key, "mtu")) {
			r = parse_int(val, &v, e);
			if (!r && (v < 68 || v > 65535))
				r = err_usage(e, "--net mtu=%s is not within 68 and 65535", val);
			n->mtu = (uint16_t)v;
		} else {
			r = nic_option(key, val, n, e);
			if (!r)
				kvs_add(&n->options, key, val);
			r = r < 0 ? r : 0;
		}
	}
	if (!r)
		r = nic_options_check(n, e);
	if (!r && !n->type) {
		const char *near = k->n && k->v[0].key ? nearest(k->v[0].key, nic_keys) : NULL;
		r = err_usage(e, "--net needs type=PLUGIN");
		if (near)
			err_remedy(e, "did you mean %s=?", near);
		else
			err_remedy(e, "as in --net type=bridge,name=br0");
	}
	return r;
}

static int read_pins(const struct vh_opts *o, unsigned cpus, int *pin, struct vh_err *e)
{
	long host = sysconf(_SC_NPROCESSORS_CONF);

	for (uint32_t i = 0; o && i < o->n; i++) {
		struct kvs k = {0};
		int r;
		if (strcmp(o->val[i]->name, "pin"))
			continue;
		r = kvs_parse(o->val[i]->str, &k, e);
		for (unsigned j = 0; j < k.n && !r; j++) {
			int64_t vcpu, cpu;
			if (!k.v[j].key) {
				r = err_usage(e, "--pin %s is not VCPU=CPU", o->val[i]->str);
				break;
			}
			r = parse_int(k.v[j].key, &vcpu, e);
			if (!r)
				r = parse_int(k.v[j].value, &cpu, e);
			if (!r && (vcpu < 0 || vcpu >= cpus))
				r = err_usage(e, "--pin %s: there is no vCPU %s (0 to %u)", o->val[i]->str, k.v[j].key, cpus - 1);
			if (!r && (cpu < 0 || cpu >= host))
				r = err_usage(e, "--pin %s: the host has no CPU %s (0 to %ld)", o->val[i]->str, k.v[j].value, host - 1);
			if (!r)
				pin[vcpu] = (int)cpu;
		}
		kvs_clear(&k);
		if (r)
			return r;
	}
	return 0;
}

/* A VM's file: [vm] with the long options as keys, [disk N] and [net N] with the parts of --disk and --net as keys. */
struct vm_file {
	struct optset *set;
	GArray *disks, *nets; /* of struct kvs */
};

static void kvs_free(void *k)
{
	kvs_clear(k);
}

static int read_group(GKeyFile *f, const char *group, struct kvs *k, struct vh_err *e)
{
	g_auto(GStrv) keys = g_key_file_get_keys(f, group, NULL, NULL);

	for (unsigned i = 0; keys && keys[i]; i++) {
		g_autofree char *v = g_key_file_get_string(f, group, keys[i], NULL);
		if (!v)
			return err_set(e, -EINVAL, "[%s] %s: not a valid string", group, keys[i]);
		kvs_add(k, keys[i], v);
	}
	return 0;
}

static int read_file(const char *path, struct vm_file *vf, struct vh_err *e)
{
	g_autoptr(GKeyFile) f = g_key_file_new();
	g_autoptr(GError) ge = NULL;
	g_auto(GStrv) groups = NULL;
	struct kvs vm = {0};
	int r = 0;

	if (!g_key_file_load_from_file(f, path, G_KEY_FILE_NONE, &ge)) {
		if (g_error_matches(ge, G_FILE_ERROR, G_FILE_ERROR_NOENT))
			return err_set(e, -ENOENT, "there is no file %s", path);
		return err_set(e, -EINVAL, "%s: %s", path, ge->message);
	}
	groups = g_key_file_get_groups(f, NULL);
	for (unsigned i = 0; groups[i] && !r; i++) {
		const char *g = groups[i];
		struct kvs k = {0};
		if (!strcmp(g, "vm")) {
			r = read_group(f, g, &vm, e);
		} else if (g_str_has_prefix(g, "disk")) {
			r = read_group(f, g, &k, e);
			g_array_append_val(vf->disks, k);
		} else if (g_str_has_prefix(g, "net")) {
			r = read_group(f, g, &k, e);
			g_array_append_val(vf->nets, k);
		} else {
			r = err_usage(e, "[%s] is not a group of a VM's file", g);
			err_remedy(e, "the groups are [vm], [disk N] and [net N]");
		}
	}
	for (unsigned i = 0; i < vm.n && !r; i++)
		if (!strcmp(vm.v[i].key, "disk") || !strcmp(vm.v[i].key, "net") || !strcmp(vm.v[i].key, "file") ||
		    !strcmp(vm.v[i].key, "detach") || !strcmp(vm.v[i].key, "dry-run"))
			r = err_usage(e, "[vm] cannot hold %s", vm.v[i].key);
	if (!r)
		r = optset_parse(run_options, &vm, "[vm]", &vf->set, e);
	kvs_clear(&vm);
	return r ? err_context(e, "%s", path) : 0;
}

static int gather(const char *option, const struct vh_opts *given, GArray *out, struct vh_err *e)
{
	for (uint32_t i = 0; given && i < given->n; i++) {
		struct kvs k = {0};
		int r;
		if (strcmp(given->val[i]->name, option))
			continue;
		r = kvs_parse(given->val[i]->str, &k, e);
		if (r)
			return err_context(e, "--%s", option);
		g_array_append_val(out, k);
	}
	return 0;
}

static int sink_check(const char *option, const char *s, struct vh_err *e)
{
	if (!s || !strcmp(s, "stdio") || !strcmp(s, "null") || !strcmp(s, "none") || (g_str_has_prefix(s, "file:") && s[5]))
		return 0;
	return err_usage(e, "--%s %s is not stdio, null or file:PATH", option, s);
}

static int fill(const struct sources *s, struct run_spec *r, struct vm_file *vf, struct vh_err *e)
{
	struct mach_config *m = &r->mach;
	g_autofree char *memory = str(s, "memory");
	int ret;

	m->cpus = (unsigned)num(s, "cpus", 1);
	m->boot.protocol = (enum boot_protocol)num(s, "protocol", BOOT_AUTO);
	m->rng = (int)num(s, "rng", 1);
	m->balloon = (int)num(s, "balloon", 1);
	m->on_reboot = (enum mach_reboot)num(s, "on-reboot", MACH_REBOOT_RESET);
	m->io_threads = (unsigned)num(s, "io-threads", 0);
	r->paused = (int)num(s, "paused", 0);
	r->detach = (int)num(s, "detach", 0);
	r->dry_run = (int)num(s, "dry-run", 0);
	m->boot.kernel = r->kernel = str(s, "kernel");
	m->boot.initrd = r->initrd = str(s, "initrd");
	m->boot.cmdline = r->cmdline = str(s, "cmdline");
	r->serial = str(s, "serial");
	r->console = str(s, "console");
	m->console = r->console && strcmp(r->console, "none");
	m->console_in = m->console_out = -1;
	if (!r->serial)
		r->serial = g_strdup(r->detach || (m->console && !strcmp(r->console, "stdio")) ? "null" : "stdio");
	ret = sink_check("serial", r->serial, e);
	if (!ret)
		ret = sink_check("console", r->console, e);
	if (!ret && m->console && !strcmp(r->console, "stdio") && !strcmp(r->serial, "stdio"))
		ret = err_usage(e, "--serial and --console cannot both be stdio");
	if (!ret && !m->boot.kernel) {
		ret = err_usage(e, "there is nothing to boot");
		err_remedy(e, "give --kernel FILE");
	}
	if (!ret)
		ret = read_memory(memory, &m->mem, e);
	if (ret)
		return ret;
	r->pin = g_new(int, m->cpus);
	for (unsigned i = 0; i < m->cpus; i++)
		r->pin[i] = -1;
	m->pin = r->pin;
	ret = read_pins(s->file, m->cpus, r->pin, e);
	if (!ret)
		ret = read_pins(s->given, m->cpus, r->pin, e);
	if (!ret)
		ret = gather("disk", s->given, vf->disks, e);
	if (!ret)
		ret = gather("net", s->given, vf->nets, e);
	if (ret)
		return ret;
	m->n_disks = vf->disks->len;
	r->disks = (struct kvs *)g_array_steal(vf->disks, NULL);
	m->disks = r->disks;
	r->nics = g_new0(struct mach_nic, vf->nets->len + 1);
	m->nics = r->nics;
	for (; m->n_nics < vf->nets->len && !ret; m->n_nics++) {
		struct mach_nic *n = &r->nics[m->n_nics];
		ret = read_nic(&g_array_index(vf->nets, struct kvs, m->n_nics), n, e);
		/* The array's strings go with it; what is kept is copied. */
		n->type = g_strdup(n->type);
		n->ifname = g_strdup(n->ifname);
	}
	return ret;
}

int run_spec_read(const char *vm, const struct vh_opts *given, struct run_spec *r, struct vh_err *e)
{
	struct vm_file vf = {.disks = g_array_new(FALSE, FALSE, sizeof(struct kvs)),
			     .nets = g_array_new(FALSE, FALSE, sizeof(struct kvs))};
	const struct vh_val *file = find(given, "file"), *name;
	struct sources s = {.given = given};
	int ret = 0;

	*r = (struct run_spec){0};
	g_array_set_clear_func(vf.nets, kvs_free);
	if (file && vm) {
		ret = err_usage(e, "give a VM's name or --file, not both");
	} else if (file) {
		ret = read_file(file->str, &vf, e);
		if (ret)
			err_object(e, "--file");
	} else if (vm) {
		ret = name_check("VM", vm, e);
		if (!ret) {
			g_autofree char *leaf = g_strdup_printf("%s.conf", vm);
			g_autofree char *path = path_in(PATH_CONFIG, "vms", leaf, NULL);
			ret = read_file(path, &vf, e);
			if (ret)
				err_object(e, "VM %s", vm);
			if (ret == -ENOENT)
				err_remedy(e, "write it, or describe the VM by options alone");
		}
	}
	if (!ret) {
		s.file = vf.set ? optset_get(vf.set) : NULL;
		ret = fill(&s, r, &vf, e);
	}
	if (!ret) {
		name = value(&s, "name");
		r->name = name ? g_strdup(name->str) : vm ? g_strdup(vm) : g_strdup_printf("vm-%d", (int)getpid());
		ret = name_check("VM", r->name, e);
		r->mach.name = r->name;
	}
	optset_free(vf.set);
	for (unsigned i = 0; vf.disks->data && i < vf.disks->len; i++)
		kvs_clear(&g_array_index(vf.disks, struct kvs, i));
	g_array_free(vf.disks, TRUE);
	g_array_free(vf.nets, TRUE);
	if (ret == -EINVAL || ret == -ERANGE)
		err_status(e, EXIT_USAGE);
	if (ret)
		run_spec_clear(r);
	return ret;
}

void run_spec_clear(struct run_spec *r)
{
	for (unsigned i = 0; i < r->mach.n_disks && r->disks; i++)
		kvs_clear(&r->disks[i]);
	for (unsigned i = 0; i < r->mach.n_nics && r->nics; i++) {
		kvs_clear(&r->nics[i].options);
		g_free((char *)r->nics[i].type);
		g_free((char *)r->nics[i].ifname);
	}
	g_free(r->disks);
	g_free(r->nics);
	g_free(r->pin);
	g_free(r->kernel);
	g_free(r->initrd);
	g_free(r->cmdline);
	g_free(r->serial);
	g_free(r->console);
	g_free(r->name);
	*r = (struct run_spec){0};
}
