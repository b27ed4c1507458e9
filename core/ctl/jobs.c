/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What needs the machine: a call is handed to the main loop, done there, and its result handed back. */
#include "ctl/server-i.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plug/object.h"

struct job {
	struct vh_task go, back;
	struct ctl_server *s;
	struct conn *c; /* [ctl loop] NULL: nobody waits for it */
	struct job *next;
	enum job_op op;
	int64_t arg;
	char *disk, *name; /* of a disk's job; disk: or the NIC of a link's */
	struct rate_limit limit[2]; /* of a NIC's: in and out, */
	int have_limit[2];          /* if given */
	int then_wait; /* Stop: the answer comes when the machine is down */
	int result;
	struct vh_err err;
	JsonObject *reply;
};

static JsonArray *add_array(JsonObject *o, const char *name)
{
	JsonArray *a = json_array_new();

	json_object_set_array_member(o, name, a);
	return a;
}

static JsonObject *add_object(JsonArray *a)
{
	JsonObject *o = json_object_new();

	json_array_add_object_element(a, o);
	return o;
}

static void num(JsonObject *o, const char *name, uint64_t v)
{
	json_object_set_int_member(o, name, (int64_t)MIN(v, (uint64_t)INT64_MAX));
}

static void disk_stats(JsonArray *a, struct disk *d)
{
	JsonObject *o = add_object(a);
	struct fmt_stats st = { 0 };

	fmt_get_stats(d->image, &st);
	json_object_set_string_member(o, "label", d->label);
	num(o, "reads", st.ops[VH_READ]);
	num(o, "read_bytes", st.bytes[VH_READ]);
	num(o, "writes", st.ops[VH_WRITE]);
	num(o, "write_bytes", st.bytes[VH_WRITE]);
	num(o, "zeroes", st.ops[VH_ZERO]);
	num(o, "zero_bytes", st.bytes[VH_ZERO]);
	num(o, "discards", st.ops[VH_DISCARD]);
	num(o, "discard_bytes", st.bytes[VH_DISCARD]);
	num(o, "flushes", st.ops[VH_FLUSH]);
	num(o, "errors", st.errors);
	num(o, "map_calls", st.map_calls);
	num(o, "commits", st.commits);
	num(o, "cache_hits", st.cache_hits);
}

static void nic_stats(JsonArray *a, struct net_port *p, struct virtio_dev *d)
{
	JsonObject *o = add_object(a);
	struct net_port_stats st = { 0 };
	struct virtio_net_stats dev;

	net_port_stats(p, &st);
	virtio_net_get_stats(d, &dev);
	json_object_set_string_member(o, "ifname", net_port_info(p)->ifname);
	num(o, "rx_packets", st.rx_packets);
	num(o, "rx_bytes", st.rx_bytes);
	num(o, "rx_errors", st.rx_errors);
	num(o, "rx_dropped", st.rx_dropped);
	num(o, "tx_packets", st.tx_packets);
	num(o, "tx_bytes", st.tx_bytes);
	num(o, "tx_errors", st.tx_errors);
	num(o, "tx_dropped", st.tx_dropped);
	num(o, "rx_filtered", dev.rx_dropped);
	num(o, "tx_refused", dev.tx_dropped);
	num(o, "guard_dropped", dev.guard_dropped);
	num(o, "rate_in_waits", dev.rate_in_waits);
	num(o, "rate_out_waits", dev.rate_out_waits);
	num(o, "kernel_queues", dev.kernel_queues);
}

static void balloon_stats(JsonObject *parent, struct virtio_dev *b)
{
	JsonObject *o = json_object_new();
	struct balloon_stats st = { 0 };

	virtio_balloon_get(b, &st);
	num(o, "actual", st.actual);
	num(o, "target", st.target);
	if (st.have) {
		num(o, "swap_in", st.swap_in);
		num(o, "swap_out", st.swap_out);
		num(o, "major_faults", st.major_faults);
		num(o, "minor_faults", st.minor_faults);
		num(o, "free", st.free);
		num(o, "total", st.total);
		num(o, "available", st.available);
		num(o, "disk_caches", st.disk_caches);
		num(o, "updated", st.last_update);
	}
	json_object_set_object_member(parent, "balloon", o);
}

/* The guest's memory is a memfd, so shared memory is the guest's, the rest is ours. */
static void memory_stats(JsonObject *parent)
{
	JsonObject *o = json_object_new();
	unsigned long long kib, anon = 0, file = 0, shmem = 0;
	char line[128];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "RssAnon: %llu", &kib) == 1)
			anon = kib;
		else if (sscanf(line, "RssFile: %llu", &kib) == 1)
			file = kib;
		else if (sscanf(line, "RssShmem: %llu", &kib) == 1)
			shmem = kib;
	}
	if (f)
		fclose(f);
	num(o, "resident", (anon + file + shmem) << 10);
	num(o, "guest", shmem << 10);
	num(o, "overhead", (anon + file) << 10);
	json_object_set_object_member(parent, "memory", o);
}

static void add_counter(void *ctx, const char *object, const char *name, uint64_t value)
{
	JsonObject *o = add_object(ctx);

	json_object_set_string_member(o, "object", object ? object : "");
	json_object_set_string_member(o, "name", name);
	num(o, "value", value);
}

static JsonObject *stats(struct mach *m)
{
	JsonObject *o = json_object_new();
	JsonArray *a = add_array(o, "cpus");
	struct vm_cpu_stats cpu;

	for (unsigned i = 0; i < vm_cpus(mach_vm(m)); i++) {
		JsonObject *c = add_object(a);

		vm_vcpu_stats(mach_vm(m), i, &cpu);
		num(c, "exits", cpu.exits);
		num(c, "io", cpu.io);
		num(c, "mmio", cpu.mmio);
		num(c, "halts", cpu.halts);
	}
	a = add_array(o, "disks");
	for (unsigned i = 0; i < mach_disks(m); i++)
		disk_stats(a, mach_disk(m, i));
	a = add_array(o, "nics");
	for (unsigned i = 0; i < mach_nics(m); i++)
		nic_stats(a, mach_port(m, i), mach_nic_dev(m, i));
	if (mach_balloon(m))
		balloon_stats(o, mach_balloon(m));
	memory_stats(o);
	plug_counters(add_counter, add_array(o, "counters"));
	return o;
}

static JsonObject *info(struct ctl_server *s)
{
	JsonObject *o = json_object_new(), *d;
	g_autofree char *since = ctl_time_text(s->since);
	struct mach *m = s->mach;
	JsonArray *a;
	char text[32];
	unsigned late;

	json_object_set_string_member(o, "name", s->name);
	num(o, "pid", (uint64_t)getpid());
	json_object_set_string_member(o, "since", since);
	num(o, "cpus", vm_cpus(mach_vm(m)));
	num(o, "memory", vm_mem(mach_vm(m))->bytes);
	a = add_array(o, "disks");
	for (unsigned i = 0; i < mach_disks(m); i++) {
		struct fmt_info fi = { 0 };

		d = add_object(a);
		fmt_get_info(mach_disk(m, i)->image, &fi);
		json_object_set_string_member(d, "label", mach_disk(m, i)->label);
		json_object_set_string_member(d, "serial", mach_disk(m, i)->serial);
		num(d, "bytes", fi.bytes);
		json_object_set_boolean_member(d, "read_only", fi.read_only != 0);
		json_object_set_boolean_member(d, "lost", fmt_trouble(mach_disk(m, i)->image, &late));
		num(d, "late", late);
	}
	a = add_array(o, "nics");
	for (unsigned i = 0; i < mach_nics(m); i++) {
		const struct vh_net_info *n = net_port_info(mach_port(m, i));

		d = add_object(a);
		json_object_set_string_member(d, "ifname", n->ifname);
		snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2], n->mac[3], n->mac[4],
			 n->mac[5]);
		json_object_set_string_member(d, "mac", text);
		num(d, "mtu", n->mtu);
		num(d, "queue_pairs", n->pairs);
		json_object_set_boolean_member(d, "link", n->link != 0);
		if (net_port_network(mach_port(m, i)))
			json_object_set_string_member(d, "network", net_port_network(mach_port(m, i)));
		if (!net_master(n->ifname, text) && text[0])
			json_object_set_string_member(d, "master", text);
	}
	return o;
}

static int balloon(struct job *j, struct vh_err *e)
{
	struct virtio_dev *b = mach_balloon(j->s->mach);
	uint64_t memory = vm_mem(mach_vm(j->s->mach))->bytes;
	struct balloon_stats st = { 0 };

	if (j->arg < 1 || (uint64_t)j->arg > memory)
		return err_set(e, -ERANGE, "target %lld, but the machine has %llu bytes", (long long)j->arg,
			       (unsigned long long)memory);
	virtio_balloon_set(b, (uint64_t)j->arg);
	virtio_balloon_get(b, &st);
	j->reply = json_object_new();
	num(j->reply, "actual", st.actual);
	num(j->reply, "target", st.target);
	return 0;
}

static int add_snapshot(void *ctx, const struct vh_snapshot *s)
{
	JsonObject *o = add_object(ctx);
	g_autofree char *id = g_utf8_make_valid(s->id ? s->id : "", -1), *name = g_utf8_make_valid(s->name ? s->name : "", -1);
	g_autofree char *time = s->when > 0 ? ctl_time_text(s->when / 1000) : NULL;

	json_object_set_string_member(o, "id", id);
	json_object_set_string_member(o, "name", name);
	num(o, "disk_bytes", s->bytes);
	if (time)
		json_object_set_string_member(o, "time", time);
	return 0;
}

static int disk_job(struct job *j, struct vh_err *e)
{
	struct mach *m = j->s->mach;
	struct fmt_info info;
	struct disk *d;
	int r = mach_disk_find(m, j->disk, &d, e);

	if (r < 0)
		return r;
	j->reply = json_object_new();
	switch (j->op) {
	case JOB_SNAP_CREATE:
		return mach_snapshot_create(m, d, j->name, e);
	case JOB_SNAP_DELETE:
		return mach_snapshot_remove(m, d, j->name, e);
	case JOB_SNAP_LIST:
		return mach_snapshot_list(m, d, add_snapshot, add_array(j->reply, "snapshots"), e);
	default:
		r = mach_resize_disk(m, d, (uint64_t)j->arg, e);
		fmt_get_info(d->image, &info);
		json_object_set_string_member(j->reply, "disk", d->label);
		num(j->reply, "bytes", info.bytes);
		return r;
	}
}

static int link_job(struct job *j, struct vh_err *e)
{
	const struct vh_net_info *now;
	unsigned i;
	int r = mach_set_link(j->s->mach, j->disk, j->arg != 0, &i, &now, e);

	if (r < 0)
		return r;
	j->reply = json_object_new();
	num(j->reply, "nic", i);
	json_object_set_string_member(j->reply, "ifname", now->ifname);
	json_object_set_boolean_member(j->reply, "link", now->link != 0);
	return 0;
}

static int nic_limit(struct job *j, struct vh_err *e)
{
	struct mach *m = j->s->mach;

	if (j->arg < 0 || (uint64_t)j->arg >= mach_nics(m))
		return err_set(e, -ENOENT, "there is no NIC %lld: the machine has %u", (long long)j->arg, mach_nics(m));
	virtio_net_set_rates(mach_nic_dev(m, (unsigned)j->arg), j->have_limit[0] ? &j->limit[0] : NULL,
			     j->have_limit[1] ? &j->limit[1] : NULL);
	return 0;
}

/* [main loop] */
static void go(struct vh_task *t)
{
	struct job *j = (struct job *)((char *)t - offsetof(struct job, go));
	struct mach *m = j->s->mach;

	switch (j->op) {
	case JOB_BUTTON:
		mach_power_button(m);
		break;
	case JOB_QUIT:
		mach_quit(m, EXIT_OK, "ended through the control socket");
		break;
	case JOB_PAUSE:
		j->result = mach_pause(m, &j->err);
		break;
	case JOB_RESUME:
		j->result = mach_resume(m, &j->err);
		break;
	case JOB_RESET:
		j->result = mach_reset(m, &j->err);
		break;
	case JOB_BALLOON:
		j->result = balloon(j, &j->err);
		break;
	case JOB_NIC_LIMIT:
		j->result = nic_limit(j, &j->err);
		break;
	case JOB_STATS:
		j->reply = stats(m);
		break;
	case JOB_INFO:
		j->reply = info(j->s);
		break;
	case JOB_SNAP_CREATE:
	case JOB_SNAP_LIST:
	case JOB_SNAP_DELETE:
	case JOB_RESIZE_DISK:
		j->result = disk_job(j, &j->err);
		break;
	case JOB_LINK:
		j->result = link_job(j, &j->err);
		break;
	}
	loop_post(j->s->loop, &j->back);
}

static void job_free(struct job *j)
{
	err_clear(&j->err);
	g_clear_pointer(&j->reply, json_object_unref);
	g_free(j->disk);
	g_free(j->name);
	g_free(j);
}

/* [ctl loop] */
static void back(struct vh_task *t)
{
	struct job *j = (struct job *)((char *)t - offsetof(struct job, back)), **p;
	struct conn *c = j->c;
	struct event now;

	for (p = &j->s->jobs; *p != j; p = &(*p)->next)
		;
	*p = j->next;
	if (c && j->op == JOB_INFO) { /* the state is the server's own */
		ctl_state_get(j->s, &now);
		json_object_set_string_member(j->reply, "state", now.state);
		if (now.reason)
			json_object_set_string_member(j->reply, "reason", now.reason);
		event_clear(&now);
	}
	if (c) {
		c->job = NULL;
		if (j->result < 0) {
			if (!j->err.code)
				j->err.code = j->result;
			conn_failed(c, &j->err);
		} else if (j->then_wait && !j->s->stopped) {
			c->mode = CONN_STOP;
			job_free(j);
			return;
		} else {
			conn_reply(c, g_steal_pointer(&j->reply), 0);
		}
		conn_done(c);
	}
	job_free(j);
}

void job_forget(struct job *j)
{
	j->c = NULL;
}

/* NULL: it was refused. */
static struct job *job_new(struct ctl_server *s, struct conn *c, enum job_op op, int64_t arg)
{
	struct job *j;

	if (s->closing) {
		if (c)
			conn_error(c, VARLINK_VM ".ShuttingDown", NULL);
		return NULL;
	}
	j = g_new0(struct job, 1);
	j->s = s;
	j->c = c;
	j->op = op;
	j->arg = arg;
	j->go.fn = go;
	j->back.fn = back;
	j->next = s->jobs;
	s->jobs = j;
	if (c) {
		c->job = j;
		c->mode = CONN_JOB;
	}
	return j;
}

void job_start(struct ctl_server *s, struct conn *c, enum job_op op, int64_t arg, int then_wait)
{
	struct job *j = job_new(s, c, op, arg);

	if (!j)
		return;
	j->then_wait = then_wait;
	loop_post(s->main_loop, &j->go);
}

void job_start_disk(struct ctl_server *s, struct conn *c, enum job_op op, const char *disk, const char *name, int64_t arg)
{
	struct job *j = job_new(s, c, op, arg);

	if (!j)
		return;
	j->disk = g_strdup(disk);
	j->name = g_strdup(name);
	loop_post(s->main_loop, &j->go);
}

void job_start_limit(struct ctl_server *s, struct conn *c, int64_t nic, const struct rate_limit *in, const struct rate_limit *out)
{
	struct job *j = job_new(s, c, JOB_NIC_LIMIT, nic);

	if (!j)
		return;
	j->have_limit[0] = in != NULL;
	j->have_limit[1] = out != NULL;
	if (in)
		j->limit[0] = *in;
	if (out)
		j->limit[1] = *out;
	loop_post(s->main_loop, &j->go);
}

void jobs_drop(struct ctl_server *s)
{
	struct job *j;

	while ((j = s->jobs)) {
		s->jobs = j->next;
		loop_cancel(s->main_loop, &j->go);
		job_free(j);
	}
}
