/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Leases by OFD byte-range locks. They belong to the inode, so that hard links, symlinks and bind mounts collide, and to
 * the open file description, so that they go with the process however it ends.
 *
 * Byte 0 is virtlockd's: exclusive for a sole user, shared else. It alone decides between two of us, in one atomic step.
 * The other bytes are QEMU's: a shared lock on 100 + P says "I use permission P", on 200 + P "I forbid P to others";
 * whoever wants P looks for anyone at 200 + P, whoever forbids P for anyone at 100 + P, after setting its own bytes.
 */
#include <fcntl.h>
#include "lease.h"

#define PERM_READ 0x1u  /* consistent read */
#define PERM_WRITE 0x2u
#define PERM_WRITE_UNCHANGED 0x4u
#define PERM_RESIZE 0x8u
#define PERM_ALL 0xfu
#define BASE_USE 100
#define BASE_FORBID 200

static const struct lease_lock want[] = {
	[VH_ATTACH_RO] = {F_RDLCK, PERM_READ, PERM_WRITE | PERM_RESIZE},
	[VH_ATTACH_RW_EXCL] = {F_WRLCK, PERM_ALL, PERM_ALL & ~PERM_READ},
	[VH_ATTACH_RW_SHARED] = {F_RDLCK, PERM_READ | PERM_WRITE | PERM_WRITE_UNCHANGED, PERM_RESIZE},
	[VH_ATTACH_PEEK] = {F_UNLCK, 0, 0},
};

static int set(int fd, short type, int start, int len)
{
	struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	if (fcntl(fd, F_OFD_SETLK, &l) == 0)
		return 0;
	switch (errno) {
	case EAGAIN:
	case EACCES:
		return -EBUSY;
	case ENOSYS:
	case EOPNOTSUPP:
	case ENOLCK:
		return -ENOLCK;
	}
	return -errno;
}

/* 1 when somebody else's lock would stand against an exclusive one. */
static int test(int fd, int start, int len)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

	if (fcntl(fd, F_OFD_GETLK, &l) < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK ? -ENOLCK : -errno;
	return l.l_type != F_UNLCK;
}

/* fn over every run of set bits of mask: neighbouring bytes in one call. */
static int runs(int fd, unsigned mask, int base, int (*fn)(int fd, short type, int start, int len), short type)
{
	for (int i = 0; i < 4; i++) {
		int n = 0, ret;

		while (i + n < 4 && mask & 1u << (i + n))
			n++;
		if (!n)
			continue;
		ret = fn(fd, type, base + i, n);
		if (ret)
			return ret;
		i += n;
	}
	return 0;
}

static int run_test(int fd, short type, int start, int len)
{
	return test(fd, start, len);
}

int lease_lock_set(int fd, struct lease_lock *l, uint32_t mode)
{
	const struct lease_lock *w = &want[mode & 3];
	int ret = 0;

	/* Only ever upwards here, and down after all is checked: the lease is never let go in between. */
	if (w->byte0 != l->byte0 && w->byte0 != F_UNLCK && !(w->byte0 == F_RDLCK && l->byte0 == F_WRLCK))
		ret = set(fd, w->byte0, 0, 1);
	if (!ret)
		ret = runs(fd, w->use & ~l->use, BASE_USE, set, F_RDLCK);
	if (!ret)
		ret = runs(fd, w->forbid & ~l->forbid, BASE_FORBID, set, F_RDLCK);
	if (!ret)
		ret = runs(fd, w->forbid, BASE_USE, run_test, 0);
	if (!ret)
		ret = runs(fd, w->use, BASE_FORBID, run_test, 0);
	if (ret) {
		runs(fd, w->use & ~l->use, BASE_USE, set, F_UNLCK);
		runs(fd, w->forbid & ~l->forbid, BASE_FORBID, set, F_UNLCK);
		if (w->byte0 != l->byte0)
			set(fd, l->byte0, 0, 1);
		return ret == 1 ? -EBUSY : ret;
	}
	runs(fd, l->use & ~w->use, BASE_USE, set, F_UNLCK);
	runs(fd, l->forbid & ~w->forbid, BASE_FORBID, set, F_UNLCK);
	if (w->byte0 == F_UNLCK || (w->byte0 == F_RDLCK && l->byte0 == F_WRLCK))
		set(fd, w->byte0, 0, 1);
	*l = *w;
	return 0;
}

int lease_lock_writer(int fd)
{
	struct flock l = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

	return (fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK) || test(fd, BASE_USE + 1, 1) == 1;
}

int lease_lock_test(int fd)
{
	return test(fd, 0, 1) == 1 || test(fd, BASE_USE, 4) == 1 || test(fd, BASE_FORBID, 4) == 1;
}
