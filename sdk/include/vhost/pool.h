/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A pool type: a place that holds volumes. All calls are [main] and may block. They are idempotent by name: repeating
 * one that was cut short by a crash finishes it or finds it done; create twice with an equal spec succeeds, with a
 * different one fails with -EEXIST; removing what is not there succeeds. Cancelling through the job (-ECANCELED)
 * leaves nothing behind.
 */
#ifndef VHOST_POOL_H
#define VHOST_POOL_H

#include <vhost/opt.h>
#include <vhost/volume.h>

/* vh_pool_ops.caps: what this pool type can do; vh_pool_info.caps: what this pool can do now. */
#define VH_POOL_CREATE UINT64_C(0x1)
#define VH_POOL_REMOVE UINT64_C(0x2)
#define VH_POOL_GROW UINT64_C(0x4)
#define VH_POOL_SHRINK UINT64_C(0x8)
#define VH_POOL_CLONE_FULL UINT64_C(0x10)
#define VH_POOL_CLONE_COW UINT64_C(0x20)
#define VH_POOL_SNAPSHOT UINT64_C(0x40)
/* Leases. LEASE: the plugin itself keeps the users of a volume apart on this host, in every mode of attach and in the calls
 * below that take a lease, by whatever name, alias or pool it is reached. Without it the host does all of that, by
 * vh_vol_stat.identity, and the plugin does nothing for it: so do pools that have nothing on this host to lock, and those
 * of which one volume can be reached through several definitions. LEASE_HOSTS: attach(RW_EXCL) excludes writers of other
 * hosts; that is the plugin's in either case. */
#define VH_POOL_LEASE UINT64_C(0x80)
#define VH_POOL_LEASE_HOSTS UINT64_C(0x100)
#define VH_POOL_META UINT64_C(0x200)        /* meta_get and meta_set keep values beside the volume */
#define VH_POOL_MAKE UINT64_C(0x400)        /* make() builds the pool's own storage */
#define VH_POOL_FILES UINT64_C(0x800)       /* path() works: volumes are files or device nodes */

struct vh_pool_info {
	uint32_t size, health; /* 0 good, 1 degraded, 2 unusable */
	uint64_t caps;
	uint64_t capacity, allocated, available; /* bytes; UINT64_MAX: unknown */
	char detail[128]; /* NUL-terminated: why it is not good, or empty */
};

/* vh_vol_stat.flags */
#define VH_STAT_SPARSE UINT64_C(0x1)
#define VH_STAT_IN_USE UINT64_C(0x2) /* someone holds a lease now; a hint */

struct vh_vol_stat {
	uint32_t size, resv;
	uint64_t flags;
	uint64_t bytes, allocated; /* UINT64_MAX: unknown */
	int64_t mtime;             /* ns since 1970, 0: unknown */
	/* What the volume is, whatever it is called: device and inode, WWID, cluster fsid + pool + image id, IQN + NAA id.
	 * The host's leases and its records of formats are keyed on it: the same for as long as the volume exists, whoever asks
	 * and by whatever way; another one for another volume of the same name. "TYPE:..." NUL-terminated, never empty. */
	char identity[160];
};

#define VH_PREALLOC_OFF 0u
#define VH_PREALLOC_FALLOC 1u /* space reserved, contents zero */
#define VH_PREALLOC_FULL 2u   /* every byte written */

struct vh_vol_spec {
	uint32_t size, prealloc;
	const char *name;
	uint64_t bytes;
	const struct vh_opts *opts; /* of vol_create_options */
	/* Out: 1 when the contents read as zeros. */
	uint32_t zeroed, resv;
};

#define VH_CLONE_FULL 0u /* independent at once; reflink counts as full */
#define VH_CLONE_COW 1u

#define VH_ATTACH_RO 0u        /* shared with readers, denies writers */
#define VH_ATTACH_RW_EXCL 1u   /* sole user */
#define VH_ATTACH_RW_SHARED 2u /* shared with writers that asked for the same (a cluster file system) */
#define VH_ATTACH_PEEK 3u      /* reads beside a writer, no lease: contents may change underfoot */

struct vh_attach {
	uint32_t size, mode;
	const char *name;
	struct vh_object *object; /* for the volume's events and counters */
	/* Who asks, for lease records: "pid 12 vhost run web". */
	const char *holder;
	uint64_t flags; /* VH_ATTACH_* */
};
#define VH_ATTACH_BUFFERED UINT64_C(0x1) /* must-understand: no O_DIRECT, the host's page cache is wanted */

/* vh_snap_spec.flags. IN_USE, must-understand: no lease is asked for, somebody may be writing. The snapshot has the disk as it is at one
 * moment between the call and its return: every write that was acknowledged before the call, none that was begun after it
 * returned, as a power failure would leave it. Without it a user that writes is -EBUSY. */
#define VH_SNAP_IN_USE UINT64_C(0x1)

struct vh_snap_spec {
	uint32_t size, resv;
	uint64_t flags; /* VH_SNAP_* */
	const char *volume, *snap;
};

/* Called once per volume; returns 0 to go on, 1 to stop. `st` may be NULL when stats were not asked for. */
typedef int vh_list_fn(void *ctx, const char *name, const struct vh_vol_stat *st);

struct vh_pool_ops {
	uint32_t size, resv;
	uint64_t caps;      /* VH_POOL_* */
	const char *scheme; /* the pool type's name: "dir", "lvm", "iscsi", "ceph" */
	vh_schema pool_options, vol_create_options; /* NULL: none */
	/* Builds the pool's storage (a folder, a volume group). Absent: it must exist. */
	int (*make)(const struct vh_opts *opts, struct vh_job *j, struct vh_err *e);
	/* Opens a pool. Changes nothing in it, except for finishing what a crash left. Mandatory. */
	int (*open)(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e);
	void (*close)(void *pool); /* Everything attached is closed. Mandatory. */
	int (*info)(void *pool, struct vh_pool_info *i, struct vh_err *e); /* Mandatory. */
	/* Every volume, in no order, those that appear or go meanwhile or not. with_stat: cheap stats are wanted. Returns
	 * 0, or fn's 1. Mandatory. */
	int (*list)(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e);
	int (*stat)(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e); /* -ENOENT. Mandatory. */
	int (*create)(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e); /* Absent: -EOPNOTSUPP */
	/* -EBUSY naming the holder when someone holds a lease. Absent: -EOPNOTSUPP. */
	int (*remove)(void *pool, const char *name, struct vh_job *j, struct vh_err *e);
	/* Offline; an attached volume is resized by vh_volume_ops.resize. Durable when it returns. Absent: -EOPNOTSUPP. */
	int (*resize)(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e);
	/* dst is new; snap NULL: the volume itself, which is leased for the time. Absent: the host copies. */
	int (*clone)(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j,
		     struct vh_err *e);
	int (*snapshot_create)(void *pool, const struct vh_snap_spec *s, struct vh_err *e); /* Absent: the format's */
	int (*snapshot_list)(void *pool, const char *name, vh_list_fn *fn, void *ctx, struct vh_err *e);
	int (*snapshot_remove)(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e);
	int (*snapshot_rollback)(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e);
	/* Opens a volume and takes its lease; -EBUSY names the holder. The volume is closed by (*ops)->close. Mandatory. */
	int (*attach)(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops,
		      struct vh_err *e);
	/* Changes the mode of an attached volume, keeping the lease throughout; -EBUSY leaves it as it was. Absent: detach
	 * and attach. */
	int (*reattach)(void *pool, void *vol, uint32_t mode, struct vh_err *e);
	/* Values kept beside the volume where its guest cannot write them (its format, say). Keys [a-z.-]+, values text up
	 * to 255 bytes. get: length, -ENODATA. set with NULL removes. Absent: the host keeps them in its data folder. */
	int64_t (*meta_get)(void *pool, const char *name, const char *key, char *buf, uint64_t cap, struct vh_err *e);
	int (*meta_set)(void *pool, const char *name, const char *key, const char *value, struct vh_err *e);
	/* The file or device node of a volume, for people and for resolving backing names. Absent: none. */
	int (*path)(void *pool, const char *name, char *buf, uint64_t cap, struct vh_err *e);
	/* Takes a lease away from a holder that is gone or cannot be reached, after keeping it from ever writing again
	 * (fencing): when that is not sure, it fails and changes nothing. Only where a lease can outlive its holder; a person
	 * asked for it, and was told who the holder is. 0 as well when there is none. Absent: leases end with their holders. */
	int (*lease_break)(void *pool, const char *name, struct vh_job *j, struct vh_err *e);
	/* Makes a volume that shares with what it was cloned from independent of it. One that shares nothing is so already.
	 * Absent: -EOPNOTSUPP. */
	int (*flatten)(void *pool, const char *name, struct vh_job *j, struct vh_err *e);
};

#endif
